//! What is on a feed already, as far as its signatures count.

use std::fs;
use std::io;
use std::path::Path;

use bumpless_trust::document::{
    Channel, IndexDocument, MAX_DOCUMENT, MAX_SIGNATURES, RootDocument, TimestampDocument, parse, root_path,
};
use bumpless_trust::signature::Signatures;
use bumpless_trust::{Answer, Refresh, Refused, Role, Signed, Stored, Trusted, Want};

use crate::check::read;
use crate::desk::sigs_of;
use crate::error::PublishError;
use crate::signer::{Signer, Standing};

/// A file of a feed and its signatures.
pub(crate) fn signed(path: &Path) -> Result<Option<Signed>, PublishError> {
    let failed = |error| PublishError::File("read", path.to_owned(), error);
    let Some(bytes) = read(path, MAX_DOCUMENT).map_err(failed)? else { return Ok(None) };
    let signatures = read(&sigs_of(path), MAX_SIGNATURES).map_err(failed)?.unwrap_or_default();
    Ok(Some(Signed { bytes, signatures }))
}

/// The newest root of a feed, reached from its first as a client reaches it; none if there is no first one.
/// Whether it is expired does not matter to who is about to publish the next.
///
/// # Errors
/// A root cannot be read, or a client would refuse it.
pub fn newest_root(feed: &Path) -> Result<Option<Standing>, PublishError> {
    let first = feed.join(root_path(1));
    let Some(anchor) = signed(&first)? else { return Ok(None) };
    let refused = |why| PublishError::Feed(feed.to_owned(), why);
    // Roots belong to all channels, so that any will do.
    let loaded = Trusted::load(Some(anchor), Stored::default(), Channel::default());
    let (mut trusted, _, _) = loaded.map_err(refused)?;
    let mut newest = 1;
    'chain: loop {
        let mut refresh = Refresh::begin(trusted, 0, 0).map_err(refused)?;
        loop {
            let Want::Root(version) = refresh.want() else { break 'chain };
            let Some(next) = signed(&feed.join(root_path(version)))? else { break 'chain };
            match refresh.answer(Answer::Found(next)) {
                Ok(_) => newest = version,
                // A client goes on at its next check.
                Err(Refused::TooManyRoots) => break,
                Err(why) => return Err(refused(why)),
            }
        }
        trusted = refresh.trusted().clone();
    }
    let path = feed.join(root_path(newest));
    let bytes = fs::read(&path).map_err(|error| PublishError::File("read", path, error))?;
    let bad = |why: String| PublishError::Value(format!("root {newest} of {}: {why}", feed.display()));
    let document: RootDocument = parse(&bytes, "root").map_err(|why| bad(why.to_string()))?;
    Standing::new(document).map(Some).map_err(|why| bad(why.to_string()))
}

/// The channels of a feed: each whose timestamp is there, in the order of their names.
///
/// # Errors
/// A folder cannot be read.
pub fn channels(feed: &Path) -> Result<Vec<Channel>, PublishError> {
    let folder = feed.join("channel");
    let failed = |error| PublishError::File("read", folder.clone(), error);
    let mut channels = vec![Channel::default()];
    match fs::read_dir(&folder) {
        Ok(entries) => {
            for entry in entries {
                let name = entry.map_err(failed)?.file_name();
                channels.extend(name.to_str().and_then(|name| name.parse().ok()));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    channels.retain(|channel| feed.join(Role::Timestamp.path(channel, 0)).exists());
    channels.sort_unstable();
    channels.dedup();
    Ok(channels)
}

/// The index that the newest timestamp of this channel names, if it is signed by enough keys of this root.
///
/// # Errors
/// A file cannot be read.
pub fn newest_index(
    feed: &Path,
    channel: &Channel,
    root: &Standing,
) -> Result<Option<IndexDocument>, PublishError> {
    let Some(timestamp) = newest_timestamp(feed, channel, root)? else { return Ok(None) };
    let Some(index) = signed(&feed.join(Role::Release.path(channel, timestamp.index.version)))? else {
        return Ok(None);
    };
    let counts = is_signed(&index, Signer::Release, root);
    Ok(if counts { IndexDocument::parse(&index.bytes).ok() } else { None })
}

/// The newest timestamp of this channel, if it is signed by enough keys of this root.
///
/// # Errors
/// It cannot be read.
pub fn newest_timestamp(
    feed: &Path,
    channel: &Channel,
    root: &Standing,
) -> Result<Option<TimestampDocument>, PublishError> {
    let Some(timestamp) = signed(&feed.join(Role::Timestamp.path(channel, 0)))? else { return Ok(None) };
    let counts = is_signed(&timestamp, Signer::Timestamp, root);
    Ok(if counts { parse(&timestamp.bytes, "timestamp").ok() } else { None })
}

/// Whether enough keys that this root names have signed a file.
pub(crate) fn is_signed(file: &Signed, signer: Signer, root: &Standing) -> bool {
    let (Some(keys), Ok(signatures)) = (root.keys(signer), Signatures::parse(&file.signatures)) else {
        return false;
    };
    signatures.verify(keys, signer, &file.bytes).is_ok()
}

/// The bytes of a file that may be missing.
pub(crate) fn text(path: &Path) -> Result<Option<String>, PublishError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PublishError::File("read", path.to_owned(), error)),
    }
}

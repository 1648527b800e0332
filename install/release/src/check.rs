//! A whole client run against a folder, with a word on each check.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bumpless_shared::digest::Digest;
use bumpless_trust::build::BUILDERS;
use bumpless_trust::document::{Artifact, Channel, Encoding, MAX_DOCUMENT, MAX_SIGNATURES};
use bumpless_trust::keys::Keys;
use bumpless_trust::root::Root;
use bumpless_trust::signature::Signatures;
use bumpless_trust::time::Utc;
use bumpless_trust::{Answer, Refresh, Refused, Role, Signed, Stored, Trusted, Want};
use sha2::{Digest as _, Sha256};

use crate::desk::sigs_of;

/// The feed would not be accepted.
#[derive(Debug)]
pub enum Faulty {
    /// A file cannot be read.
    File(PathBuf, io::Error),
    /// A client would refuse it.
    Refused(Refused),
    /// A blob is not what the index says.
    Blob(PathBuf, String),
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Faulty::File(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Faulty::Refused(why) => why.fmt(f),
            Faulty::Blob(path, why) => write!(f, "{} {why}", path.display()),
        }
    }
}

impl std::error::Error for Faulty {}

/// Runs the client's order over `feed` at `now`, beginning with the root file `first`, and hands each passed
/// check to `say` as a sentence.
///
/// # Errors
/// The first thing that a client would refuse.
pub fn check(
    feed: &Path,
    first: &Path,
    channel: &Channel,
    now: u64,
    mut say: impl FnMut(String),
) -> Result<Trusted, Faulty> {
    let first = signed(first, MAX_DOCUMENT)?.ok_or_else(|| missing(first))?;
    let (trusted, _, _) =
        Trusted::load(Some(first), Stored::default(), channel.clone()).map_err(Faulty::Refused)?;
    let fingerprint = trusted.root_fingerprint();
    say(format!("root {} is the beginning, its SHA-256 is {fingerprint}", trusted.root().version()));
    let mut refresh = Refresh::begin(trusted, now, 0).map_err(Faulty::Refused)?;
    while let Some((name, limit)) = refresh.file() {
        let want = refresh.want();
        let found = signed(&feed.join(name), limit)?;
        let before = refresh.trusted().root().clone();
        let answer = found.clone().map_or(Answer::Missing, Answer::Found);
        refresh.answer(answer).map_err(Faulty::Refused)?;
        let trusted = refresh.trusted();
        let by = |root: &Root, role, version| match &found {
            Some(found) => signed_by(found, root.keys(role), role, version),
            None => String::new(),
        };
        match want {
            Want::Root(version) if found.is_some() => {
                let (old, new) = (by(&before, Role::Root, version), by(trusted.root(), Role::Root, version));
                say(format!(
                    "root {version} is signed by {old} of root {} and by {new} of its own",
                    version - 1
                ));
            }
            Want::Root(version) => {
                let expires = Utc(trusted.root().expires());
                say(format!("there is no root {version}; root {} is valid until {expires}", version - 1));
            }
            Want::Timestamp => {
                if let Some(timestamp) = trusted.timestamp() {
                    let (version, index) = (timestamp.version, timestamp.index.version);
                    let (by, expires) =
                        (by(trusted.root(), Role::Timestamp, version), Utc(timestamp.expires));
                    say(format!(
                        "timestamp {version} names index {index}, signed by {by}, valid until {expires}"
                    ));
                }
            }
            Want::Index(_) => {
                if let Some(index) = trusted.index() {
                    let (version, expires) = (index.version, Utc(index.expires));
                    let by = by(trusted.root(), Role::Release, version);
                    say(format!("index {version} is that one, signed by {by}, valid until {expires}"));
                }
            }
            Want::Build(name) => {
                let releases = trusted.index().map_or(&[][..], |index| &index.releases);
                let entry = releases.iter().find(|entry| entry.build.sums_sha256 == Some(name));
                if let (Some(entry), Some(found), Some(keys)) = (entry, &found, trusted.root().builders()) {
                    let by = signed_by(found, keys, BUILDERS, entry.counter);
                    say(format!(
                        "what release {} consists of is signed by {by} of its builders",
                        entry.release
                    ));
                }
            }
            Want::Nothing => {}
        }
    }
    let trusted = refresh.trusted().clone();
    for entry in trusted.index().map_or(&[][..], |index| &index.releases) {
        if trusted.root().builders().is_some() && entry.build.sums_sha256.is_none() {
            say(format!(
                "release {} is not newly installed anywhere: it names no builders' work",
                entry.release
            ));
        }
        for artifact in &entry.artifacts {
            blob(&feed.join(artifact.path()), artifact)?;
            let (version, target) = (&entry.release, &artifact.target);
            say(format!(
                "release {version} for {target} unpacks to {} bytes with its SHA-256",
                artifact.raw_size
            ));
        }
    }
    Ok(trusted)
}

/// `2 of 3 keys (2 are needed)`.
fn signed_by(file: &Signed, keys: &Keys, role: impl fmt::Display, version: u64) -> String {
    let signers = Signatures::parse(&file.signatures)
        .map_or(0, |signatures| signatures.signers(keys, role, version, &file.bytes).len());
    format!("{signers} of {} keys ({} needed)", keys.keys().len(), keys.threshold())
}

fn missing(path: &Path) -> Faulty {
    Faulty::File(path.to_owned(), io::ErrorKind::NotFound.into())
}

fn signed(path: &Path, limit: u64) -> Result<Option<Signed>, Faulty> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| Faulty::File(path, error)
    };
    let Some(bytes) = read(path, limit).map_err(failed(path))? else { return Ok(None) };
    let sigs = sigs_of(path);
    let signatures = read(&sigs, MAX_SIGNATURES).map_err(failed(&sigs))?.unwrap_or_default();
    Ok(Some(Signed { bytes, signatures }))
}

/// At most one byte more than allowed, which is enough to be refused.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn blob(path: &Path, artifact: &Artifact) -> Result<(), Faulty> {
    let failed = |error| Faulty::File(path.to_owned(), error);
    let (size, sha256) = hash(File::open(path).map_err(failed)?, artifact.size).map_err(failed)?;
    if (size, sha256) != (artifact.size, artifact.sha256) {
        return Err(Faulty::Blob(
            path.to_owned(),
            format!("has {size} bytes or more, SHA-256 {sha256}; not as signed"),
        ));
    }
    let file = File::open(path).map_err(failed)?;
    let (raw_size, raw_sha256) = match artifact.encoding {
        Encoding::Plain => (size, sha256),
        Encoding::Zstd => {
            let unpacked = zstd::Decoder::new(file).map_err(failed)?.single_frame();
            hash(unpacked, artifact.raw_size).map_err(failed)?
        }
    };
    if (raw_size, raw_sha256) != (artifact.raw_size, artifact.raw_sha256) {
        let text = format!("unpacks to {raw_size} bytes or more, SHA-256 {raw_sha256}; not as signed");
        return Err(Faulty::Blob(path.to_owned(), text));
    }
    Ok(())
}

/// Size and SHA-256, of at most one byte more than expected.
fn hash(source: impl Read, expected: u64) -> io::Result<(u64, Digest)> {
    let (mut source, mut hash, mut size) = (source.take(expected.saturating_add(1)), Sha256::new(), 0);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match source.read(&mut buffer)? {
            0 => return Ok((size, Digest(hash.finalize().into()))),
            read => {
                hash.update(&buffer[..read]);
                size += read as u64;
            }
        }
    }
}

//! `draft.json`: what is kept between two runs of the publisher, beside keys and feed; one for each channel, that of
//! `beta` as `draft-beta.json`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bumpless_trust::document::{Channel, IndexDocument};
use serde::{Deserialize, Serialize};

use crate::document::{json, of};
use crate::error::PublishError;
use crate::file::{self, Readers};

/// A channel's next index and the numbers that are used up.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Draft {
    /// The index that was written last, with the changes made since. Its version is the highest that was ever
    /// given to an index of the channel, whether or not that one was published: no version is signed twice.
    pub(crate) index: IndexDocument,
    /// Whether there are such changes.
    pub(crate) changed: bool,
    /// The version of the index that is on the feed; 0 before the first.
    pub(crate) published: u64,
    /// The highest version that was ever given to a timestamp of the channel.
    pub(crate) timestamp_version: u64,
    /// zstd level.
    pub(crate) level: i32,
}

impl Draft {
    /// Where a channel's lies.
    pub(crate) fn path(folder: &Path, channel: &Channel) -> PathBuf {
        folder.join(format!("draft{}.json", of(channel)))
    }

    /// Those of all channels, `stable` first, the others in the order of their names.
    ///
    /// # Errors
    /// There is none, or one of them cannot be read or lies in another one's place.
    pub(crate) fn load_all(folder: &Path) -> Result<Vec<Self>, PublishError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => PublishError::NoFeed(folder.to_owned()),
            _ => PublishError::File("read", folder.to_owned(), error),
        };
        let mut drafts = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let name = name.to_str().unwrap_or_default();
            if name.starts_with("draft") && name.ends_with(".json") {
                drafts.push(Draft::load(&folder.join(name), folder)?);
            }
        }
        if drafts.is_empty() {
            return Err(PublishError::NoFeed(folder.to_owned()));
        }
        let stable = Channel::default();
        drafts.sort_by_key(|draft| (draft.index.channel != stable, draft.index.channel.clone()));
        Ok(drafts)
    }

    fn load(path: &Path, folder: &Path) -> Result<Self, PublishError> {
        let text = fs::read(path).map_err(|error| PublishError::File("read", path.to_owned(), error))?;
        let draft: Draft =
            serde_json::from_slice(&text).map_err(|error| PublishError::Draft(path.to_owned(), error))?;
        let channel = &draft.index.channel;
        if Draft::path(folder, channel) == path {
            return Ok(draft);
        }
        // A copy would give out versions twice.
        let why = format!("{} is of channel {channel} and has another one's name", path.display());
        Err(PublishError::Value(why))
    }

    pub(crate) fn save(&self, folder: &Path) -> Result<(), PublishError> {
        let path = Draft::path(folder, &self.index.channel);
        file::write(&path, &json(self), Readers::Owner)
            .map_err(|error| PublishError::File("write", path, error))
    }
}

//! `draft.json`: what is kept between two runs of the publisher, beside keys and feed.

use std::fs;
use std::io;
use std::path::Path;

use bumpless_trust::document::IndexDocument;
use serde::{Deserialize, Serialize};

use crate::document::json;
use crate::error::PublishError;
use crate::file::{self, Readers};

/// The next index and the numbers that are used up.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Draft {
    /// The index that was written last, with the changes made since. Its version is the highest that was ever
    /// given to an index, whether or not that one was published: no version is signed twice.
    pub(crate) index: IndexDocument,
    /// Whether there are such changes.
    pub(crate) changed: bool,
    /// The version of the index that is on the feed; 0 before the first.
    pub(crate) published: u64,
    /// The highest version that was ever given to a timestamp.
    pub(crate) timestamp_version: u64,
    /// zstd level.
    pub(crate) level: i32,
}

impl Draft {
    pub(crate) fn load(folder: &Path) -> Result<Self, PublishError> {
        let path = folder.join("draft.json");
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| PublishError::Draft(path, error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(PublishError::NoFeed(folder.to_owned()))
            }
            Err(error) => Err(PublishError::File("read", path, error)),
        }
    }

    pub(crate) fn save(&self, folder: &Path) -> Result<(), PublishError> {
        let path = folder.join("draft.json");
        file::write(&path, &json(self), Readers::Owner)
            .map_err(|error| PublishError::File("write", path, error))
    }
}

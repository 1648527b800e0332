//! What can be wrong with a generation.

use std::fmt;
use std::path::PathBuf;

use bumpless_shared::control::Generation;
use bumpless_shared::digest::Digest;

use super::chunks::ChunkError;
use super::directory::FileError;

/// Why a generation could not be made, opened, read or written.
#[derive(Debug)]
pub enum StoreError {
    /// A generation that was to be made is there already.
    Exists {
        /// Its directory.
        path: PathBuf,
    },
    /// A generation that was to be opened is not there, or not whole.
    Missing {
        /// What is missing.
        path: PathBuf,
    },
    /// The generation was made by a version that lays it out in a way this one does not know.
    UnknownLayout {
        /// Which generation.
        generation: Generation,
        /// What its file says.
        says: String,
    },
    /// A generation that is to be filled holds something already.
    NotEmpty {
        /// Which one.
        generation: Generation,
    },
    /// Another process has it open.
    Locked {
        /// Which generation.
        generation: Generation,
    },
    /// The database holds something that this version never writes.
    Damaged {
        /// While doing what.
        doing: &'static str,
        /// What was found.
        found: &'static str,
    },
    /// The operation given is malformed, or its name is not that of its content.
    BadEntry {
        /// In words.
        reason: String,
    },
    /// A chunk file.
    Chunk(ChunkError),
    /// The system refused.
    File(FileError),
    /// The database refused.
    Database {
        /// While doing what.
        doing: &'static str,
        /// Its answer.
        source: fjall::Error,
    },
}

impl From<FileError> for StoreError {
    fn from(error: FileError) -> Self {
        StoreError::File(error)
    }
}

impl From<ChunkError> for StoreError {
    fn from(error: ChunkError) -> Self {
        StoreError::Chunk(error)
    }
}

impl StoreError {
    pub(super) fn database(doing: &'static str) -> impl FnOnce(fjall::Error) -> StoreError {
        move |source| StoreError::Database { doing, source }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Exists { path } => {
                write!(f, "{} is there already; a generation's number is never used twice", path.display())
            }
            StoreError::Missing { path } => {
                write!(f, "the generation is not whole: {} is missing", path.display())
            }
            StoreError::UnknownLayout { generation, says } => write!(
                f,
                "generation {generation} says {says:?}, which this version cannot read; start it with the release that made it"
            ),
            StoreError::NotEmpty { generation } => {
                write!(f, "generation {generation} holds something already; only an empty one can be filled")
            }
            StoreError::Locked { generation } => {
                write!(f, "generation {generation} is open in another process")
            }
            StoreError::Damaged { doing, found } => write!(f, "cannot {doing}: the database holds {found}"),
            StoreError::BadEntry { reason } => write!(f, "refused: {reason}"),
            StoreError::Chunk(error) => error.fmt(f),
            StoreError::File(error) => error.fmt(f),
            StoreError::Database { doing, source } => write!(f, "cannot {doing}: {source}"),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StoreError::Chunk(error) => Some(error),
            StoreError::File(error) => Some(error),
            StoreError::Database { source, .. } => Some(source),
            StoreError::Exists { .. }
            | StoreError::Missing { .. }
            | StoreError::UnknownLayout { .. }
            | StoreError::NotEmpty { .. }
            | StoreError::Locked { .. }
            | StoreError::Damaged { .. }
            | StoreError::BadEntry { .. } => None,
        }
    }
}

/// Why content could not be read. Nothing but the right content is ever returned.
#[derive(Debug)]
pub enum ReadError {
    /// What is stored under the name is something else.
    WrongContent {
        /// The name asked for.
        name: Digest,
        /// The name of what is stored.
        found: Digest,
    },
    /// Its chunk file is missing, or unreadable.
    Chunk {
        /// The name asked for.
        name: Digest,
        /// What is wrong with it.
        source: ChunkError,
    },
    /// The database could not be read.
    Store(StoreError),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::WrongContent { name, found } => {
                write!(
                    f,
                    "what is stored as {name} is damaged (it hashes to {found}); other names are not affected"
                )
            }
            ReadError::Chunk { name, source } => {
                write!(f, "{name} cannot be read: {source}; other names are not affected")
            }
            ReadError::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ReadError::WrongContent { .. } => None,
            ReadError::Chunk { source, .. } => Some(source),
            ReadError::Store(error) => Some(error),
        }
    }
}

//! One record in one file: replaced whole, durable when the call returns, never half read.
//!
//! The bytes are a message of the contract's framing ([`bumpless_shared::frame`]): a version that is
//! read first, a length held against a limit, a checksum, then bincode. Each record has its own
//! version.

use std::fmt;
use std::io::{self, Read};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use bincode::{Decode, Encode};
use bumpless_os::disk::{self, File, sync_dir};
use bumpless_os::durable::{aside, parent, replace};
use bumpless_shared::frame::{self, FrameError};

/// Most bytes of a record's payload. Quarantine with outputs is the largest, and bounded below this.
const LIMIT: usize = 1024 * 1024;

/// Why a record cannot be used. Nothing was changed by the failed call, except where it says so.
#[derive(Debug)]
pub enum RecordError {
    /// It is there and cannot be read.
    Read {
        /// What it is.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be written; the one before stands.
    Write {
        /// What it is.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It was replaced, and whether the replacement would survive a power loss is not known.
    Unsynced {
        /// What it is.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in the file is not such a record.
    Damaged {
        /// What it is.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// How.
        source: FrameError,
    },
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordError::Read { what, path, source } => {
                write!(f, "cannot read the {what} {}: {source}{}", path.display(), hint(source))
            }
            RecordError::Write { what, path, source } => write!(
                f,
                "cannot write the {what} {}: {source}; what was there before stands{}",
                path.display(),
                hint(source)
            ),
            RecordError::Unsynced { what, path, source } => write!(
                f,
                "the {what} {} was replaced, but may not survive a power loss: {source}; it is tried again",
                path.display()
            ),
            RecordError::Damaged { what, path, source: source @ FrameError::Version { .. } } => write!(
                f,
                "the {what} {} is of another version of bumplessd: {source}. Run the version that wrote it",
                path.display()
            ),
            RecordError::Damaged { what, path, source } => write!(
                f,
                "the {what} {} is damaged: {source}. Check the disk, then restore the file from a backup",
                path.display()
            ),
        }
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ". Give the supervisor's user access to it",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ". Make room on its file system",
        io::ErrorKind::ReadOnlyFilesystem => ". Its file system is read-only: the disk may be failing",
        _ => "",
    }
}

impl std::error::Error for RecordError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RecordError::Read { source, .. }
            | RecordError::Write { source, .. }
            | RecordError::Unsynced { source, .. } => Some(source),
            RecordError::Damaged { source, .. } => Some(source),
        }
    }
}

/// A record's place. Holds nothing open.
#[derive(Clone, Debug)]
pub struct RecordFile<T> {
    path: PathBuf,
    what: &'static str,
    version: u16,
    record: PhantomData<fn() -> T>,
}

impl<T: Encode + Decode<()>> RecordFile<T> {
    /// The record `what` (as errors call it) at `path`, written as `version` (1 or more).
    pub fn new(path: PathBuf, what: &'static str, version: u16) -> RecordFile<T> {
        RecordFile { path, what, version, record: PhantomData }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The record; `None` where there is none. It and its directory's entry are durable as read.
    ///
    /// # Errors
    /// [`RecordError::Read`], [`RecordError::Damaged`].
    pub fn load(&self) -> Result<Option<T>, RecordError> {
        let read = |source| RecordError::Read { what: self.what, path: self.path.clone(), source };
        let damaged = |source| RecordError::Damaged { what: self.what, path: self.path.clone(), source };
        let file = match File::open(&self.path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(read(error)),
        };
        sync_dir(parent(&self.path)).map_err(read)?;
        let Some(file) = file else { return Ok(None) };
        file.sync_all().map_err(read)?;
        let mut bytes = Vec::new();
        file.std().take((frame::HEADER + LIMIT + 1) as u64).read_to_end(&mut bytes).map_err(read)?;
        frame::decode(&bytes, self.version, LIMIT).map(Some).map_err(damaged)
    }

    /// Replaces it.
    ///
    /// # Errors
    /// [`RecordError::Write`]: the one before stands. [`RecordError::Unsynced`]: this one is there, and
    /// only a later `store` that succeeds makes it certain.
    pub fn store(&self, record: &T) -> Result<(), RecordError> {
        let bytes = frame::encode(record, self.version, LIMIT).map_err(|source| RecordError::Damaged {
            what: self.what,
            path: self.path.clone(),
            source,
        })?;
        replace(&self.path, &bytes, 0o600).map_err(|source| {
            let (what, path) = (self.what, self.path.clone());
            // After the rename nothing is left aside: what failed then was the directory's sync.
            if std::fs::read(&path).is_ok_and(|there| there == bytes) && !aside(&path).exists() {
                RecordError::Unsynced { what, path, source }
            } else {
                RecordError::Write { what, path, source }
            }
        })
    }

    /// Removes it, durably. That there is none is no error.
    ///
    /// # Errors
    /// [`RecordError::Write`].
    pub fn remove(&self) -> Result<(), RecordError> {
        let removed = match disk::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        removed.and_then(|()| sync_dir(parent(&self.path))).map_err(|source| RecordError::Write {
            what: self.what,
            path: self.path.clone(),
            source,
        })
    }
}

/// A record that holds in memory whether or not it could be written; what could not is tried again.
#[derive(Debug)]
pub struct Kept<T> {
    file: RecordFile<T>,
    value: T,
    written: bool,
}

impl<T: Encode + Decode<()> + Default> Kept<T> {
    /// Reads it. What cannot be read comes back as the error, beside what `unreadable` makes of it: the
    /// supervisor runs on and says so. The unreadable file is not overwritten until something changes.
    pub fn open(
        file: RecordFile<T>,
        unreadable: impl FnOnce(&RecordError) -> T,
    ) -> (Kept<T>, Option<RecordError>) {
        let (value, error) = match file.load() {
            Ok(value) => (value.unwrap_or_default(), None),
            Err(error) => (unreadable(&error), Some(error)),
        };
        (Kept { file, value, written: true }, error)
    }

    /// As it is in memory.
    pub fn get(&self) -> &T {
        &self.value
    }

    /// Whether the disk says the same as memory.
    pub fn is_written(&self) -> bool {
        self.written
    }

    /// Changes it: in memory at once, and on disk if that can be.
    ///
    /// # Errors
    /// It could not be written; [`retry`](Self::retry) later.
    pub fn change<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> Result<R, RecordError> {
        let result = change(&mut self.value);
        self.written = false;
        self.retry().map(|()| result)
    }

    /// Writes what could not be written before; nothing where nothing is missing.
    ///
    /// # Errors
    /// It still cannot be written.
    pub fn retry(&mut self) -> Result<(), RecordError> {
        if !self.written {
            self.file.store(&self.value)?;
            self.written = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(dir: &Path) -> RecordFile<Vec<u64>> {
        RecordFile::new(dir.join("numbers"), "list", 1)
    }

    #[test]
    fn a_record_reads_back_and_its_absence_is_not_damage() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path());
        assert_eq!(file.load().unwrap(), None);
        file.store(&vec![1, 2]).unwrap();
        assert_eq!(file.load().unwrap(), Some(vec![1, 2]));
        file.remove().unwrap();
        file.remove().unwrap();
        assert_eq!(file.load().unwrap(), None);
    }

    #[test]
    fn damage_is_never_taken_for_absence() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path());
        file.store(&vec![1, 2]).unwrap();
        let whole = std::fs::read(file.path()).unwrap();
        for length in 0..whole.len() {
            std::fs::write(file.path(), &whole[..length]).unwrap();
            let error = file.load().unwrap_err();
            assert!(matches!(error, RecordError::Damaged { .. }), "{length}: {error}");
            assert!(error.to_string().contains("numbers is damaged"), "{error}");
        }
        let longer = [whole.as_slice(), &[0; 2 * LIMIT]].concat();
        std::fs::write(file.path(), longer).unwrap();
        assert!(matches!(file.load().unwrap_err(), RecordError::Damaged { .. }));
    }

    #[test]
    fn a_record_of_another_version_names_both() {
        let dir = tempfile::tempdir().unwrap();
        RecordFile::new(dir.path().join("numbers"), "list", 2).store(&vec![1_u64]).unwrap();
        let text = file(dir.path()).load().unwrap_err().to_string();
        assert!(
            text.contains("version 2, agreed was 1") && text.contains("Run the version that wrote it"),
            "{text}"
        );
    }

    #[test]
    fn what_cannot_be_written_holds_in_memory_and_is_written_later() {
        let dir = tempfile::tempdir().unwrap();
        let (mut kept, error) = Kept::open(file(dir.path()), |_| Vec::new());
        assert!(error.is_none() && kept.is_written());
        let obstacle = aside(file(dir.path()).path());
        std::fs::create_dir(&obstacle).unwrap();
        let error = kept.change(|list| list.push(7)).unwrap_err();
        assert!(matches!(error, RecordError::Write { .. }), "{error}");
        assert!(!kept.is_written());
        assert_eq!(kept.get(), &[7]);
        assert!(kept.retry().is_err());
        std::fs::remove_dir(&obstacle).unwrap();
        kept.retry().unwrap();
        assert!(kept.is_written());
        assert_eq!(file(dir.path()).load().unwrap(), Some(vec![7]));
    }

    #[test]
    fn a_damaged_record_is_reported_and_not_overwritten_before_something_changes() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("numbers"), b"rubbish of some length").unwrap();
        let (mut kept, error) = Kept::open(file(dir.path()), |_| Vec::new());
        assert!(matches!(error, Some(RecordError::Damaged { .. })));
        kept.retry().unwrap();
        assert_eq!(std::fs::read(dir.path().join("numbers")).unwrap(), b"rubbish of some length");
    }
}

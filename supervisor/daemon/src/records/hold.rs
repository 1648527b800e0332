//! An operator's "not now": no upgrade begins while it is there.

use bincode::{Decode, Encode};
use bumpless_control::Unix;

use super::file::{Kept, RecordError, RecordFile};
use super::paths::Paths;

/// Upgrades are held.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hold {
    /// For the person who finds it.
    pub reason: String,
    /// Since; 0 where that cannot be read.
    pub at: Unix,
    /// User id of the one who did it, where that can be read.
    pub by: Option<u32>,
}

/// Whether they are.
#[derive(Debug)]
pub struct HoldFile(Kept<Option<Hold>>);

impl HoldFile {
    /// Reads it. Where it cannot be read upgrades count as held: somebody wanted them not to begin, and
    /// nobody can tell whether that is over.
    pub fn open(paths: &Paths) -> (HoldFile, Option<RecordError>) {
        let unreadable = |error: &RecordError| Some(Hold { reason: error.to_string(), at: 0, by: None });
        let (kept, error) = Kept::open(RecordFile::new(paths.hold(), "hold", 1), unreadable);
        (HoldFile(kept), error)
    }

    /// The hold, if there is one.
    pub fn get(&self) -> Option<&Hold> {
        self.0.get().as_ref()
    }

    /// Holds; it counts whether or not it could be written. A later hold replaces an earlier one.
    ///
    /// # Errors
    /// It could not be written; [`retry`](Self::retry) later.
    pub fn set(&mut self, hold: Hold) -> Result<(), RecordError> {
        self.0.change(|value| *value = Some(hold))
    }

    /// Lets upgrades go on; whether they were held.
    ///
    /// # Errors
    /// As for [`set`](Self::set).
    pub fn clear(&mut self) -> Result<bool, RecordError> {
        if self.get().is_none() {
            return Ok(false);
        }
        self.0.change(|value| *value = None).map(|()| true)
    }

    /// Whether the disk says the same as memory.
    pub fn is_written(&self) -> bool {
        self.0.is_written()
    }

    /// Writes what could not be written before.
    ///
    /// # Errors
    /// It still cannot be.
    pub fn retry(&mut self) -> Result<(), RecordError> {
        self.0.retry()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_hold_lasts_over_a_restart_until_it_is_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), dir.path());
        assert_eq!(HoldFile::open(&paths).0.get(), None);
        let hold = Hold { reason: "moving racks".into(), at: 5, by: Some(1000) };
        HoldFile::open(&paths).0.set(hold.clone()).unwrap();
        let (mut file, _) = HoldFile::open(&paths);
        assert_eq!(file.get(), Some(&hold));
        assert!(file.clear().unwrap() && !file.clear().unwrap());
        assert_eq!(HoldFile::open(&paths).0.get(), None);
    }

    #[test]
    fn a_hold_that_cannot_be_read_holds_until_it_is_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), dir.path());
        std::fs::write(paths.hold(), b"").unwrap();
        let (mut file, error) = HoldFile::open(&paths);
        assert!(error.is_some() && file.get().unwrap().reason.contains("hold is damaged"));
        assert!(file.clear().unwrap());
        assert_eq!(HoldFile::open(&paths).0.get(), None);
    }
}

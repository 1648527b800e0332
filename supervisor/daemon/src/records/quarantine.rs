//! Releases that failed here, by the hash of their bytes. It survives clean-up and rollback, and a
//! release of the same name with other bytes is another release.

use bincode::{Decode, Encode};
use bumpless_control::Unix;
use bumpless_shared::digest::Digest;
use bumpless_shared::release::Release;

use super::file::{Kept, RecordError, RecordFile};
use super::paths::Paths;

/// Entries whose output is kept; of older ones only the reason. 64 outputs of 4 KiB are a quarter of
/// what a record may have.
const OUTPUTS: usize = 64;

/// A release that is not tried again.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Quarantined {
    /// Which.
    pub release: Release,
    /// What it did.
    pub reason: String,
    /// When.
    pub at: Unix,
    /// The last that its worker wrote; see [`Output::tail`](crate::launch::Output::tail).
    pub output: String,
}

/// The list.
#[derive(Debug)]
pub struct Quarantine(Kept<Vec<Quarantined>>);

impl Quarantine {
    /// Reads it; where it cannot be read it is empty, and the error says so.
    pub fn open(paths: &Paths) -> (Quarantine, Option<RecordError>) {
        let (kept, error) = Kept::open(RecordFile::new(paths.quarantine(), "quarantine", 1), |_| Vec::new());
        (Quarantine(kept), error)
    }

    /// Adds a release; it counts from now on, whether or not it could be written. A second entry of the
    /// same bytes replaces the first.
    ///
    /// # Errors
    /// It could not be written; [`retry`](Self::retry) later.
    pub fn add(&mut self, entry: Quarantined) -> Result<(), RecordError> {
        self.0.change(|list| {
            list.retain(|other| other.release.sha256 != entry.release.sha256);
            list.push(entry);
            let old = list.len().saturating_sub(OUTPUTS);
            list.iter_mut().take(old).for_each(|entry| entry.output.clear());
        })
    }

    /// Takes a release out; whether it was in.
    ///
    /// # Errors
    /// As for [`add`](Self::add).
    pub fn lift(&mut self, sha256: &Digest) -> Result<bool, RecordError> {
        if !self.contains(sha256) {
            return Ok(false);
        }
        self.0.change(|list| list.retain(|entry| entry.release.sha256 != *sha256)).map(|()| true)
    }

    /// Whether these bytes are in.
    pub fn contains(&self, sha256: &Digest) -> bool {
        self.find(sha256).is_some()
    }

    /// Their entry.
    pub fn find(&self, sha256: &Digest) -> Option<&Quarantined> {
        self.all().iter().find(|entry| entry.release.sha256 == *sha256)
    }

    /// All, oldest first.
    pub fn all(&self) -> &[Quarantined] {
        self.0.get()
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

    fn entry(byte: u8) -> Quarantined {
        Quarantined {
            release: Release { version: "1.2.0".parse().unwrap(), sha256: Digest([byte; 32]) },
            reason: "died".into(),
            at: 5,
            output: "x".repeat(4096),
        }
    }

    #[test]
    fn a_release_is_recognised_by_its_bytes_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), dir.path());
        let (mut quarantine, error) = Quarantine::open(&paths);
        assert!(error.is_none());
        quarantine.add(entry(1)).unwrap();
        quarantine.add(Quarantined { reason: "again".into(), ..entry(1) }).unwrap();
        let (mut quarantine, _) = Quarantine::open(&paths);
        assert!(quarantine.contains(&Digest([1; 32])) && !quarantine.contains(&Digest([2; 32])));
        assert_eq!((quarantine.all().len(), quarantine.all()[0].reason.as_str()), (1, "again"));
        assert!(quarantine.lift(&Digest([1; 32])).unwrap() && !quarantine.lift(&Digest([1; 32])).unwrap());
        assert!(Quarantine::open(&paths).0.all().is_empty());
    }

    #[test]
    fn it_holds_where_the_disk_refuses() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), dir.path());
        let (mut quarantine, _) = Quarantine::open(&paths);
        std::fs::create_dir(dir.path().join("quarantine.new")).unwrap();
        assert!(quarantine.add(entry(1)).is_err());
        assert!(quarantine.contains(&Digest([1; 32])) && !quarantine.is_written());
        std::fs::remove_dir(dir.path().join("quarantine.new")).unwrap();
        quarantine.retry().unwrap();
        assert!(Quarantine::open(&paths).0.contains(&Digest([1; 32])));
    }

    #[test]
    fn any_number_of_releases_fits_with_the_outputs_of_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let (mut quarantine, _) = Quarantine::open(&Paths::new(dir.path(), dir.path()));
        for byte in 0..=255 {
            quarantine.add(entry(byte)).unwrap();
        }
        assert_eq!(quarantine.all().len(), 256);
        assert_eq!(quarantine.all().iter().filter(|entry| !entry.output.is_empty()).count(), OUTPUTS);
    }
}

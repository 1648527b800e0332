//! Numbers that are given out once and never again.
//!
//! Each is durable before it is handed out; one that was not used after all is lost, which costs
//! nothing. They are kept in two files, written one after the other, and a start takes the higher of
//! each: damage of one file is an alarm, not a loss. Where both are gone although there is a node, a
//! start begins above what the other records, the alive files and the workers show, and skips
//! a million numbers; workers report the highest term and generation that they find, and
//! [`Numbers::raise`] goes above it before anything is given out.

use bincode::{Decode, Encode};
use bumpless_shared::control::{Generation, Incarnation, Instance, Term};

use super::file::{RecordError, RecordFile};
use super::paths::Paths;

/// How far a start goes on where both files are damaged: more than any node hands out between two
/// records that would tell.
const SKIP: u64 = 1_000_000;

/// The highest of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Highest {
    /// Of supervisors.
    pub incarnation: Incarnation,
    /// Of workers.
    pub instance: Instance,
    /// Of state directories.
    pub generation: Generation,
    /// Of periods of authority.
    pub term: Term,
    /// Of marks at which states are compared.
    pub mark: u64,
}

impl Highest {
    /// The higher of each.
    pub fn max(self, other: Highest) -> Highest {
        Highest {
            incarnation: self.incarnation.max(other.incarnation),
            instance: self.instance.max(other.instance),
            generation: self.generation.max(other.generation),
            term: self.term.max(other.term),
            mark: self.mark.max(other.mark),
        }
    }

    fn skip(self) -> Highest {
        Highest {
            incarnation: self.incarnation.saturating_add(SKIP),
            instance: self.instance.saturating_add(SKIP),
            generation: self.generation.saturating_add(SKIP),
            term: self.term.saturating_add(SKIP),
            mark: self.mark.saturating_add(SKIP),
        }
    }
}

/// The numbers of this node.
#[derive(Debug)]
pub struct Numbers {
    files: [RecordFile<Highest>; 2],
    highest: Highest,
}

impl Numbers {
    /// Reads them. `seen` is the highest of what other records and the alive files show. The second
    /// value is damage of a file, for an alarm; what was damaged is repaired by the next write.
    ///
    /// # Errors
    /// A file that is there and cannot be read for another reason than damage.
    pub fn open(paths: &Paths, seen: Highest) -> Result<(Numbers, Option<RecordError>), RecordError> {
        let files = [paths.numbers(), paths.numbers_twin()]
            .map(|path| RecordFile::<Highest>::new(path, "list of numbers", 1));
        let (mut highest, mut readable, mut damage) = (seen, false, None);
        for file in &files {
            match file.load() {
                Ok(Some(read)) => (highest, readable) = (highest.max(read), true),
                Ok(None) => {}
                Err(error @ RecordError::Damaged { .. }) => damage = Some(error),
                Err(error) => return Err(error),
            }
        }
        let used = damage.is_some() || seen != Highest::default();
        if !readable && used {
            highest = highest.skip();
        }
        Ok((Numbers { files, highest }, damage))
    }

    /// The highest that was handed out or seen.
    pub fn highest(&self) -> Highest {
        self.highest
    }

    /// For a supervisor that starts.
    ///
    /// # Errors
    /// It could not be made durable, so it is not given out. The same holds for all of these.
    pub fn next_incarnation(&mut self) -> Result<Incarnation, RecordError> {
        self.advance(|highest| &mut highest.incarnation, 1)
    }

    /// For a worker.
    ///
    /// # Errors
    /// As above.
    pub fn next_instance(&mut self) -> Result<Instance, RecordError> {
        self.advance(|highest| &mut highest.instance, 1)
    }

    /// For a state directory.
    ///
    /// # Errors
    /// As above.
    pub fn next_generation(&mut self) -> Result<Generation, RecordError> {
        self.advance(|highest| &mut highest.generation, 1)
    }

    /// For a comparison of states.
    ///
    /// # Errors
    /// As above.
    pub fn next_mark(&mut self) -> Result<u64, RecordError> {
        self.advance(|highest| &mut highest.mark, 1)
    }

    /// Reserves `count` terms in a row (at least one) and returns the first.
    ///
    /// # Errors
    /// As above.
    pub fn reserve_terms(&mut self, count: u64) -> Result<Term, RecordError> {
        self.advance(|highest| &mut highest.term, count.max(1))
    }

    /// Never gives out anything up to these: what a worker reports may be higher than what is known.
    ///
    /// # Errors
    /// As above; in memory it holds all the same.
    pub fn raise(&mut self, seen: Highest) -> Result<(), RecordError> {
        let raised = self.highest.max(seen);
        if raised == self.highest {
            return Ok(());
        }
        self.highest = raised;
        self.store()
    }

    /// The first of `count` new numbers. In memory they are used up even where the disk refuses, so
    /// that a number which may have reached one of the files is not given out later either.
    fn advance(&mut self, which: impl Fn(&mut Highest) -> &mut u64, count: u64) -> Result<u64, RecordError> {
        let number = which(&mut self.highest);
        let first = number.saturating_add(1);
        *number = number.saturating_add(count);
        self.store()?;
        Ok(first)
    }

    fn store(&self) -> Result<(), RecordError> {
        self.files.iter().try_for_each(|file| file.store(&self.highest))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::path::Path;

    fn open(dir: &Path, seen: Highest) -> (Numbers, Option<RecordError>) {
        Numbers::open(&Paths::new(dir, dir), seen).unwrap()
    }

    #[test]
    fn no_number_is_handed_out_twice_over_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let (mut numbers, damage) = open(dir.path(), Highest::default());
        assert!(damage.is_none());
        assert_eq!(numbers.next_instance().unwrap(), 1);
        assert_eq!(numbers.reserve_terms(2).unwrap(), 1);
        assert_eq!(numbers.reserve_terms(1).unwrap(), 3);
        let (mut numbers, damage) = open(dir.path(), Highest::default());
        assert!(damage.is_none());
        assert_eq!(numbers.next_instance().unwrap(), 2);
        assert_eq!(numbers.reserve_terms(2).unwrap(), 4);
        assert_eq!(numbers.next_generation().unwrap(), 1);
        assert_eq!(numbers.next_incarnation().unwrap(), 1);
        assert_eq!(numbers.next_mark().unwrap(), 1);
    }

    #[test]
    fn damage_of_one_file_is_reported_and_loses_nothing() {
        for name in ["numbers", "numbers.2"] {
            let dir = tempfile::tempdir().unwrap();
            open(dir.path(), Highest::default()).0.reserve_terms(5).unwrap();
            std::fs::write(dir.path().join(name), b"").unwrap();
            let (mut numbers, damage) = open(dir.path(), Highest::default());
            assert!(damage.unwrap().to_string().contains(name));
            assert_eq!(numbers.reserve_terms(1).unwrap(), 6);
            assert!(open(dir.path(), Highest::default()).1.is_none());
        }
    }

    #[test]
    fn with_both_files_gone_a_node_goes_on_far_above_what_it_can_see() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), Highest::default()).0.reserve_terms(40).unwrap();
        std::fs::write(dir.path().join("numbers"), b"").unwrap();
        std::fs::write(dir.path().join("numbers.2"), b"").unwrap();
        let seen = Highest { term: 30, ..Highest::default() };
        assert!(open(dir.path(), seen).0.reserve_terms(1).unwrap() > 40);
        std::fs::remove_file(dir.path().join("numbers")).unwrap();
        std::fs::remove_file(dir.path().join("numbers.2")).unwrap();
        assert!(open(dir.path(), seen).0.reserve_terms(1).unwrap() > 40);
    }

    #[test]
    fn a_number_that_a_worker_reports_is_never_handed_out() {
        let dir = tempfile::tempdir().unwrap();
        let (mut numbers, _) = open(dir.path(), Highest::default());
        numbers.raise(Highest { term: 90, generation: 7, ..Highest::default() }).unwrap();
        assert_eq!((numbers.reserve_terms(1).unwrap(), numbers.next_generation().unwrap()), (91, 8));
        numbers.raise(Highest { term: 5, ..Highest::default() }).unwrap();
        assert_eq!(open(dir.path(), Highest::default()).0.reserve_terms(1).unwrap(), 92);
    }

    #[test]
    fn a_number_that_could_not_be_written_is_not_handed_out_then_or_later() {
        let dir = tempfile::tempdir().unwrap();
        let (mut numbers, _) = open(dir.path(), Highest::default());
        let obstacle = dir.path().join("numbers.2.new");
        std::fs::create_dir(&obstacle).unwrap();
        assert!(numbers.next_instance().is_err());
        std::fs::remove_dir(&obstacle).unwrap();
        assert_eq!(numbers.next_instance().unwrap(), 2);
    }
}

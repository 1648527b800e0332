//! Tries of a release that failed, so that a restart neither forgets nor hurries them.

use std::time::Duration;

use bincode::{Decode, Encode};
use bumpless_control::Unix;
use bumpless_shared::digest::Digest;

use super::file::{Kept, RecordError, RecordFile};
use super::paths::Paths;

/// Times kept of one release; the count of bad tries that leads to quarantine is at most 100.
const TIMES: usize = 128;

/// Releases kept; of more, those without a try for the longest time go.
const RELEASES: usize = 256;

/// What became of one release here so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Tries {
    /// When it was found bad.
    pub bad: Vec<Unix>,
    /// When a try ended without saying anything about the release.
    pub undecided: Vec<Unix>,
}

impl Tries {
    fn last(&self) -> Unix {
        self.bad.iter().chain(&self.undecided).copied().max().unwrap_or_default()
    }

    /// When the next try may begin: after the first bad one the first of `after`, and so on, the last
    /// one repeating. Undecided tries wait as after a first one. `None`: at once.
    pub fn next_at(&self, after: &[Duration]) -> Option<Unix> {
        let index = self.bad.len().saturating_sub(1).min(after.len().saturating_sub(1));
        let wait =
            |at: &Unix, delay: Option<&Duration>| at.saturating_add(delay.map_or(0, |delay| ceil(*delay)));
        let bad = self.bad.last().map(|at| wait(at, after.get(index)));
        let undecided = self.undecided.last().map(|at| wait(at, after.first()));
        bad.max(undecided)
    }
}

/// Whole seconds, rounded up: a short delay is not none.
fn ceil(delay: Duration) -> u64 {
    delay.as_secs() + u64::from(delay.subsec_nanos() > 0)
}

/// Of all releases.
#[derive(Debug)]
pub struct Attempts(Kept<Vec<(Digest, Tries)>>);

impl Attempts {
    /// Reads them; where they cannot be read there are none, and the error says so.
    pub fn open(paths: &Paths) -> (Attempts, Option<RecordError>) {
        let (kept, error) =
            Kept::open(RecordFile::new(paths.attempts(), "list of attempts", 1), |_| Vec::new());
        (Attempts(kept), error)
    }

    /// A try was found bad. It counts whether or not it could be written.
    ///
    /// # Errors
    /// It could not be written; [`retry`](Self::retry) later.
    pub fn failed(&mut self, sha256: &Digest, at: Unix) -> Result<(), RecordError> {
        self.add(sha256, at, |tries| &mut tries.bad)
    }

    /// A try ended without saying anything about the release.
    ///
    /// # Errors
    /// As for [`failed`](Self::failed).
    pub fn undecided(&mut self, sha256: &Digest, at: Unix) -> Result<(), RecordError> {
        self.add(sha256, at, |tries| &mut tries.undecided)
    }

    fn add(
        &mut self,
        sha256: &Digest,
        at: Unix,
        which: impl Fn(&mut Tries) -> &mut Vec<Unix>,
    ) -> Result<(), RecordError> {
        self.0.change(|list| {
            let place = list.iter().position(|(other, _)| other == sha256);
            let (_, mut tries) = place.map(|place| list.remove(place)).unwrap_or((*sha256, Tries::default()));
            let times = which(&mut tries);
            times.push(at);
            times.drain(..times.len().saturating_sub(TIMES));
            list.push((*sha256, tries));
            if list.len() > RELEASES
                && let Some(oldest) = (0..list.len()).min_by_key(|place| list[*place].1.last())
            {
                list.remove(oldest);
            }
        })
    }

    /// Those of one release.
    pub fn tries(&self, sha256: &Digest) -> Tries {
        let mut list = self.0.get().iter();
        list.find(|(other, _)| other == sha256).map(|(_, tries)| tries.clone()).unwrap_or_default()
    }

    /// When the next try of a release may begin; see [`Tries::next_at`].
    pub fn next_at(&self, sha256: &Digest, after: &[Duration]) -> Option<Unix> {
        self.tries(sha256).next_at(after)
    }

    /// The clock says this. A try that is said to come still was made before the clock was set back: it
    /// counts as made now, or it would be waited for until the clock has come there again.
    ///
    /// # Errors
    /// As for [`failed`](Self::failed).
    pub fn clock_says(&mut self, now: Unix) -> Result<(), RecordError> {
        if self.0.get().iter().all(|(_, tries)| tries.last() <= now) {
            return Ok(());
        }
        self.0.change(|list| {
            let times =
                list.iter_mut().flat_map(|(_, tries)| tries.bad.iter_mut().chain(&mut tries.undecided));
            times.for_each(|at| *at = now.min(*at));
        })
    }

    /// It was good, or an operator wants it tried anew.
    ///
    /// # Errors
    /// As for [`failed`](Self::failed).
    pub fn forget(&mut self, sha256: &Digest) -> Result<(), RecordError> {
        if self.tries(sha256) == Tries::default() {
            return Ok(());
        }
        self.0.change(|list| list.retain(|(other, _)| other != sha256))
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

    const AFTER: [Duration; 3] =
        [Duration::from_secs(60), Duration::from_secs(600), Duration::from_millis(3_599_500)];

    #[test]
    fn the_next_try_waits_longer_after_each_bad_one_and_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), dir.path());
        let sha = Digest([1; 32]);
        assert_eq!(Attempts::open(&paths).0.next_at(&sha, &AFTER), None);
        for (at, next) in [(1000, 1060), (2000, 2600), (3000, 6600), (7000, 10_600)] {
            Attempts::open(&paths).0.failed(&sha, at).unwrap();
            assert_eq!(Attempts::open(&paths).0.next_at(&sha, &AFTER), Some(next));
        }
        let (mut attempts, _) = Attempts::open(&paths);
        assert_eq!(attempts.tries(&sha).bad, [1000, 2000, 3000, 7000]);
        assert_eq!(attempts.tries(&Digest([2; 32])), Tries::default());
        attempts.forget(&sha).unwrap();
        assert_eq!(Attempts::open(&paths).0.next_at(&sha, &AFTER), None);
    }

    #[test]
    fn an_undecided_try_waits_shortly_and_does_not_count_as_bad() {
        let dir = tempfile::tempdir().unwrap();
        let (mut attempts, _) = Attempts::open(&Paths::new(dir.path(), dir.path()));
        let sha = Digest([1; 32]);
        for at in [1000, 2000, 3000] {
            attempts.undecided(&sha, at).unwrap();
        }
        assert_eq!(attempts.next_at(&sha, &AFTER), Some(3060));
        assert!(attempts.tries(&sha).bad.is_empty());
    }

    #[test]
    fn after_the_clock_was_set_back_a_try_waits_no_longer_than_it_should() {
        let dir = tempfile::tempdir().unwrap();
        let (mut attempts, _) = Attempts::open(&Paths::new(dir.path(), dir.path()));
        let sha = Digest([1; 32]);
        attempts.failed(&sha, 100_000).unwrap();
        for (now, next) in [(100_010, 100_060), (13_600, 13_660), (13_650, 13_660)] {
            attempts.clock_says(now).unwrap();
            assert_eq!(attempts.next_at(&sha, &AFTER), Some(next), "at {now}");
        }
    }

    #[test]
    fn the_list_is_bounded_and_the_newest_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (mut attempts, _) = Attempts::open(&Paths::new(dir.path(), dir.path()));
        let sha = |n: u16| Digest(std::array::from_fn(|i| n.to_le_bytes()[i % 2]));
        for n in 0..=RELEASES as u16 {
            attempts.failed(&sha(n), u64::from(n) + 1).unwrap();
        }
        assert_eq!(attempts.tries(&sha(0)), Tries::default());
        assert_eq!(attempts.tries(&sha(1)).bad, [2]);
        for at in 1000..1000 + 2 * TIMES as u64 {
            attempts.failed(&sha(7), at).unwrap();
        }
        assert_eq!(attempts.tries(&sha(7)).bad.len(), TIMES);
    }
}

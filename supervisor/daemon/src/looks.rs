//! When a machine looks at the feed, so that many of them do not come at once. Pure.
//!
//! ```text
//!   a start ─────────────────▶ a look, within ten seconds
//!   a look ─┬─ went through ─▶ the next one after check_every, plus jitter
//!           └─ failed ───────▶ the next one after retry_after, plus jitter, at most twice that
//! ```
//!
//! Machines that were installed alike, started together or met the same failure at the same moment differ
//! in their id alone, so the id decides; and because those that came close to each other once should not do so
//! every time, the number of the look does, too. Nothing is drawn: the same machine, look and bound give the
//! same delay.

use std::time::Duration;

use bumpless_shared::digest::Digest;
use sha2::{Digest as _, Sha256};

use crate::config;

/// Longest delay of the first look after a start. A thousand machines that get their power back together are
/// then a hundred looks a second, which any file server bears; and a person who has just started a
/// supervisor still sees it look.
const FIRST: Duration = Duration::from_secs(10);

/// How a look at the feed ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Everything was verified.
    Well,
    /// Something was missing, or not to be believed.
    Failed,
}

/// From the start to the first look.
pub fn first(machine: &Digest, feed: &config::Feed) -> Duration {
    jitter(machine, 0, feed.jitter.min(FIRST))
}

/// From a look that ended like this to the next one, which has this number.
pub fn next(machine: &Digest, number: u64, ended: Look, feed: &config::Feed) -> Duration {
    let (wait, within) = match ended {
        Look::Well => (feed.check_every, feed.jitter),
        Look::Failed => {
            let wait = feed.retry_after.min(feed.check_every);
            (wait, feed.jitter.min(wait))
        }
    };
    wait + jitter(machine, number, within)
}

/// The delay of this machine's look of this number: at least nothing, less than `within`, in whole
/// milliseconds.
pub fn jitter(machine: &Digest, look: u64, within: Duration) -> Duration {
    let mut hash = Sha256::new();
    hash.update(b"bumpless/jitter/1");
    hash.update(machine.0);
    hash.update(look.to_be_bytes());
    let hash: [u8; 32] = hash.finalize().into();
    let (first, _) = hash.split_at(8);
    let drawn = first.iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
    // A fraction of 2⁶⁴, taken of the bound.
    let delay = u128::from(drawn).saturating_mul(within.as_millis()) >> 64;
    Duration::from_millis(u64::try_from(delay).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINES: u32 = 10_000;
    const WITHIN: Duration = Duration::from_secs(600);

    /// Ids that hardly differ.
    fn machine(number: u32) -> Digest {
        let mut id = [0; 32];
        id[28..].copy_from_slice(&number.to_be_bytes());
        Digest(id)
    }

    /// Into how many of a hundred equal parts of the bound how many delays fall: chi-square with 99 degrees of
    /// freedom, mean 99, variance 198. Five standard deviations are no accident.
    fn is_even(delays: impl Iterator<Item = Duration>, what: &str) {
        let mut count = [0u32; 100];
        delays.for_each(|delay| count[(delay.as_millis() * 100 / WITHIN.as_millis()) as usize] += 1);
        let mean = f64::from(count.iter().sum::<u32>()) / 100.0;
        let square: f64 = count.iter().map(|count| (f64::from(*count) - mean).powi(2) / mean).sum();
        assert!((square - 99.0).abs() < 5.0 * 198f64.sqrt(), "{what}: chi-square {square}, {count:?}");
    }

    #[test]
    fn the_looks_of_ten_thousand_machines_are_spread_evenly() {
        for look in [0, 1, 2, 1000] {
            let delays = (0..MACHINES).map(|number| jitter(&machine(number), look, WITHIN));
            is_even(delays, &format!("look {look}"));
        }
    }

    #[test]
    fn the_looks_of_one_machine_are_spread_evenly_and_two_machines_meet_only_by_chance() {
        is_even((0..10_000).map(|look| jitter(&machine(7), look, WITHIN)), "one machine");
        // Of two that came within a second of each other once, one in three hundred does so the next time.
        let near = |look: u64| {
            let (one, other) = (jitter(&machine(1), look, WITHIN), jitter(&machine(2), look, WITHIN));
            one.abs_diff(other) < Duration::from_secs(1)
        };
        let met = (0..10_000).filter(|look| near(*look)).count();
        assert!((10..=60).contains(&met), "{met}");
    }

    #[test]
    fn a_look_comes_soon_after_a_start_and_after_a_failure_at_most_twice_as_late_as_configured() {
        let feed = |jitter| config::Feed { jitter, ..config::Feed::default() };
        let exact = feed(Duration::ZERO);
        assert_eq!(first(&machine(1), &exact), Duration::ZERO);
        assert_eq!(next(&machine(1), 1, Look::Well, &exact), exact.check_every);
        assert_eq!(next(&machine(1), 1, Look::Failed, &exact), exact.retry_after);
        let day = feed(Duration::from_secs(86_400));
        let latest = |delay: &dyn Fn(&Digest) -> Duration| (0..1000).map(|id| delay(&machine(id))).max();
        let bounded = |found: Option<Duration>, low: Duration, bound: Duration| {
            // The latest of a thousand comes near to the bound.
            let near = low + (bound - low) * 9 / 10;
            assert!(found.is_some_and(|found| found >= near && found < bound), "{found:?}, below {bound:?}");
        };
        bounded(latest(&|id| first(id, &day)), Duration::ZERO, FIRST);
        let retry = day.retry_after;
        bounded(latest(&|id| next(id, 5, Look::Failed, &day)), retry, 2 * retry);
        let (every, most) = (day.check_every, day.check_every + day.jitter);
        bounded(latest(&|id| next(id, 5, Look::Well, &day)), every, most);
    }

    #[test]
    fn a_delay_is_the_same_each_time_and_below_its_bound() {
        for within in [Duration::ZERO, Duration::from_millis(1), FIRST, Duration::from_secs(86_400)] {
            for look in 0..1000 {
                let delay = jitter(&machine(3), look, within);
                assert!(delay < within || within.is_zero() && delay.is_zero(), "{delay:?} of {within:?}");
                assert_eq!(delay, jitter(&machine(3), look, within));
            }
        }
    }
}

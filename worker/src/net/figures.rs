//! What the node counts, so that somebody else can judge it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Each power of two is cut into this many buckets: a quantile is at most an eighth too high.
const PARTS: u32 = 8;
const BUCKETS: usize = 40 * PARTS as usize;

/// Figures since they were last taken, but for [`open_connections`](Self::open_connections).
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Requests answered by the handler.
    pub requests: u64,
    /// Those among them that the node failed (see [`crate::wire::Answer::is_failure`]).
    pub errors: u64,
    /// Requests that never reached the handler: not readable, too large, cut off.
    pub rejected: u64,
    /// How long the handler took for each.
    pub latency: Histogram,
    /// Connections whose handshake is complete, now.
    pub open_connections: usize,
    /// Packets passed on to the other worker.
    pub strays_sent: u64,
    /// Packets that the other worker passed on to this one.
    pub strays_received: u64,
    /// Packets for the other worker that could not be passed on.
    pub strays_dropped: u64,
    /// Errors of sockets while reading, each survived.
    pub socket_errors: u64,
}

/// How often each duration occurred, to an eighth of itself.
#[derive(Clone)]
pub struct Histogram([u64; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Histogram([0; BUCKETS])
    }
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Histogram({} values, p50 {:?}, p99 {:?})",
            self.count(),
            self.quantile(0.5),
            self.quantile(0.99)
        )
    }
}

impl Histogram {
    /// Adds one duration.
    pub fn record(&mut self, duration: Duration) {
        self.0[bucket(duration)] += 1;
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Histogram) {
        self.0.iter_mut().zip(&other.0).for_each(|(ours, theirs)| *ours += theirs);
    }

    /// How many durations there are.
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The duration that the share `quantile` (0 to 1) of all do not exceed; `None` without any.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let count = self.count();
        let rank = ((count as f64 * quantile).ceil() as u64).clamp(1, count.max(1));
        let mut below = 0;
        for (index, here) in self.0.iter().enumerate() {
            below += here;
            if below >= rank {
                return Some(upper_bound(index));
            }
        }
        None
    }
}

/// Below 8 µs each microsecond has its own bucket, then 8 buckets to each power of two.
fn bucket(duration: Duration) -> usize {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let Some(power) = micros.checked_ilog2().filter(|power| *power >= 3) else { return micros as usize };
    let part = (micros >> (power - 3)) as usize - PARTS as usize;
    ((power - 2) as usize * PARTS as usize + part).min(BUCKETS - 1)
}

fn upper_bound(bucket: usize) -> Duration {
    let (row, part) = (bucket / PARTS as usize, (bucket % PARTS as usize) as u64);
    Duration::from_micros(match row {
        0 => part,
        row => ((u64::from(PARTS) + part + 1) << (row - 1)) - 1,
    })
}

/// The counters themselves, shared by all tasks.
#[derive(Debug)]
pub struct Counters {
    requests: AtomicU64,
    errors: AtomicU64,
    pub rejected: AtomicU64,
    latency: [AtomicU64; BUCKETS],
    pub strays_sent: AtomicU64,
    pub strays_received: AtomicU64,
    pub strays_dropped: AtomicU64,
    pub socket_errors: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Counters {
            requests: AtomicU64::default(),
            errors: AtomicU64::default(),
            rejected: AtomicU64::default(),
            latency: std::array::from_fn(|_| AtomicU64::default()),
            strays_sent: AtomicU64::default(),
            strays_received: AtomicU64::default(),
            strays_dropped: AtomicU64::default(),
            socket_errors: AtomicU64::default(),
        }
    }
}

impl Counters {
    /// The handler took so long for one request.
    pub fn answered(&self, took: Duration, failed: bool) {
        count(&self.requests);
        if failed {
            count(&self.errors);
        }
        count(&self.latency[bucket(took)]);
    }

    /// All of them, set back to zero.
    pub fn take(&self, open_connections: usize) -> Figures {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        Figures {
            requests: take(&self.requests),
            errors: take(&self.errors),
            rejected: take(&self.rejected),
            latency: Histogram(std::array::from_fn(|index| take(&self.latency[index]))),
            open_connections,
            strays_sent: take(&self.strays_sent),
            strays_received: take(&self.strays_received),
            strays_dropped: take(&self.strays_dropped),
            socket_errors: take(&self.socket_errors),
        }
    }
}

/// One more.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_duration_is_found_again_to_an_eighth_of_itself() {
        for micros in (0..10_000).chain([65_535, 65_536, 1_000_000, 59_999_999]) {
            let mut histogram = Histogram::default();
            let duration = Duration::from_micros(micros);
            histogram.record(duration);
            let found = histogram.quantile(0.99).unwrap();
            assert!(found >= duration && found <= duration + duration / 8, "{duration:?} became {found:?}");
        }
        let mut longest = Histogram::default();
        longest.record(Duration::MAX);
        assert_eq!(longest.count(), 1);
    }

    #[test]
    fn quantiles_are_those_of_all_that_was_merged() {
        let (mut all, mut slow) = (Histogram::default(), Histogram::default());
        assert_eq!(all.quantile(0.5), None);
        (0..98).for_each(|_| all.record(Duration::from_micros(5)));
        (0..2).for_each(|_| slow.record(Duration::from_millis(5)));
        all.merge(&slow);
        assert_eq!(all.quantile(0.5), Some(Duration::from_micros(5)));
        assert!(all.quantile(0.99).unwrap() >= Duration::from_millis(5));
    }

    #[test]
    fn figures_begin_anew_when_they_are_taken() {
        let counters = Counters::default();
        counters.answered(Duration::from_micros(3), false);
        counters.answered(Duration::from_micros(3), true);
        let figures = counters.take(4);
        assert_eq!(
            (figures.requests, figures.errors, figures.latency.count(), figures.open_connections),
            (2, 1, 2, 4)
        );
        assert_eq!(counters.take(0).requests, 0);
    }
}

//! Probation's evidence: heartbeats of the new worker against limits and against how the old one did
//! just before the cut. Pure; asked again with each heartbeat and each tick.

use std::time::Duration;

use bumpless_shared::control::Heartbeat;

use super::state::{Moment, Verdict};

/// Limits, from the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Without a heartbeat for so long it counts as hung.
    pub silence: Duration,
    /// Most resident memory, bytes.
    pub memory: u64,
    /// Most records that the old worker may be behind.
    pub lag: u64,
    /// Most bytes of logbook that may pile up.
    pub logbook: u64,
    /// Most errors per thousand requests above the baseline.
    pub error_permille: u64,
    /// Most times the baseline's 99th percentile.
    pub p99_factor: u64,
    /// A 99th percentile under this is never slow, whatever the baseline was: below it the scheduler of a
    /// small machine decides.
    pub p99_floor: Duration,
    /// Below so many requests in a heartbeat's interval nothing is concluded from them.
    pub min_sample: u64,
}

/// A slow interval is one of bad luck; so many in a row are not.
const SLOW_IN_A_ROW: u32 = 3;

/// How the serving worker did before the cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Baseline {
    /// Worst 99th percentile of its last heartbeats, microseconds.
    pub p99_us: u64,
    /// Errors per thousand requests.
    pub error_permille: u64,
}

/// The evidence so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Judge {
    baseline: Baseline,
    heard: Moment,
    slow: u32,
    requests: u64,
    errors: u64,
}

impl Judge {
    /// Begins at the cut.
    pub fn new(baseline: Baseline, now: Moment) -> Judge {
        Judge { baseline, heard: now, slow: 0, requests: 0, errors: 0 }
    }

    /// When the new worker was last heard.
    pub fn heard(&self) -> Moment {
        self.heard
    }

    /// Takes a heartbeat in; says what is wrong, if something is.
    pub fn heartbeat(&mut self, beat: &Heartbeat, now: Moment, limits: &Limits) -> Option<Verdict> {
        self.heard = now;
        self.requests += beat.requests;
        self.errors += beat.errors;
        if beat.rss > limits.memory {
            return Some(Verdict::Bad(format!(
                "uses {} MB of memory, {} are allowed",
                beat.rss >> 20,
                limits.memory >> 20
            )));
        }
        if beat.logbook > limits.logbook {
            let sizes = format!("{} MB, {} are allowed", beat.logbook >> 20, limits.logbook >> 20);
            return Some(Verdict::Unknown(format!("the logbook grew to {sizes} before the verdict")));
        }
        let permille = self.errors.saturating_mul(1000) / self.requests.max(1);
        if self.requests >= limits.min_sample
            && permille > self.baseline.error_permille + limits.error_permille
        {
            return Some(Verdict::Bad(format!(
                "{} of {} requests failed on the node's side; before the cut {} in a thousand did",
                self.errors, self.requests, self.baseline.error_permille
            )));
        }
        let allowed = self.baseline.p99_us.saturating_mul(limits.p99_factor).max(micros(limits.p99_floor));
        let slow = beat.requests >= limits.min_sample && beat.p99_us > allowed;
        self.slow = if slow { self.slow + 1 } else { 0 };
        (self.slow >= SLOW_IN_A_ROW).then(|| {
            Verdict::Bad(format!(
                "too slow: one request in a hundred took longer than {} ms, before the cut {} ms",
                beat.p99_us / 1000,
                self.baseline.p99_us / 1000
            ))
        })
    }

    /// Silence speaks too.
    pub fn tick(&self, now: Moment, limits: &Limits) -> Option<Verdict> {
        (now >= self.heard + limits.silence)
            .then(|| Verdict::Bad(format!("not heard for {} s: it hangs", limits.silence.as_secs_f32())))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        silence: Duration::from_secs(3),
        memory: 100 << 20,
        lag: 1000,
        logbook: 1 << 30,
        error_permille: 10,
        p99_factor: 4,
        p99_floor: Duration::from_millis(50),
        min_sample: 50,
    };

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    fn judge() -> Judge {
        Judge::new(Baseline { p99_us: 20_000, error_permille: 0 }, at(0))
    }

    fn beat(requests: u64, errors: u64, p99_us: u64) -> Heartbeat {
        Heartbeat { requests, errors, p99_us, ..Heartbeat::default() }
    }

    #[test]
    fn silence_is_bad_and_a_heartbeat_ends_it() {
        let mut judge = judge();
        assert!(judge.tick(at(2), &LIMITS).is_none());
        assert!(matches!(judge.tick(at(3), &LIMITS), Some(Verdict::Bad(_))));
        assert!(judge.heartbeat(&beat(1, 0, 1), at(3), &LIMITS).is_none());
        assert!(judge.tick(at(5), &LIMITS).is_none());
    }

    #[test]
    fn errors_count_only_above_a_sample_and_above_the_baseline() {
        assert!(judge().heartbeat(&beat(49, 49, 1), at(1), &LIMITS).is_none());
        assert!(judge().heartbeat(&beat(1000, 10, 1), at(1), &LIMITS).is_none());
        assert!(matches!(judge().heartbeat(&beat(1000, 11, 1), at(1), &LIMITS), Some(Verdict::Bad(_))));
    }

    #[test]
    fn one_slow_interval_is_bad_luck_three_in_a_row_are_not() {
        let mut judge = judge();
        for (second, p99, bad) in [
            (1, 81_000, false),
            (2, 81_000, false),
            (3, 79_000, false),
            (4, 81_000, false),
            (5, 81_000, false),
            (6, 81_000, true),
        ] {
            assert_eq!(
                judge.heartbeat(&beat(100, 0, p99), at(second), &LIMITS).is_some(),
                bad,
                "second {second}"
            );
        }
    }

    #[test]
    fn memory_over_the_cap_is_bad_at_once() {
        let fat = Heartbeat { rss: 101 << 20, ..Heartbeat::default() };
        assert!(matches!(judge().heartbeat(&fat, at(1), &LIMITS), Some(Verdict::Bad(_))));
    }
}

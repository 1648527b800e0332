//! How fast something goes: from what was reported in the last few seconds, so that a line that changed
//! its speed is believed soon.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bumpless_control::status::Amount;

/// What is older says nothing about the present.
const WINDOW: Duration = Duration::from_secs(10);
/// From less than this nothing is concluded.
const SHORTEST: Duration = Duration::from_millis(500);
/// Reports that come closer together than this are one.
const APART: Duration = Duration::from_millis(100);

/// The last few seconds of one phase.
#[derive(Debug, Default)]
pub struct Pace {
    reports: VecDeque<(Instant, u64)>,
}

impl Pace {
    /// Takes a report in: bytes done and in all. It comes back with what follows from it.
    pub fn amount(&mut self, now: Instant, done: u64, total: u64) -> Amount {
        if self.reports.back().is_some_and(|(_, before)| *before > done) {
            // It was begun again.
            self.reports.clear();
        }
        // The first one stays until there is one beside it that is old enough to count from.
        while self.reports.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            self.reports.pop_front();
        }
        let rate = self.reports.front().and_then(|(since, from)| {
            let time = now.duration_since(*since);
            let bytes = u128::from(done - from) * 1000;
            let rate = bytes.checked_div(time.as_millis()).unwrap_or(0);
            (time >= SHORTEST).then(|| u64::try_from(rate).unwrap_or(u64::MAX))
        });
        if self.reports.back().is_none_or(|(at, _)| now.duration_since(*at) >= APART) {
            self.reports.push_back((now, done));
        }
        let left = rate.filter(|rate| *rate > 0).map(|rate| total.saturating_sub(done).div_ceil(rate));
        Amount { done, total: Some(total), rate, left }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rate_and_remaining_time_follow_the_last_few_seconds() {
        let (mut pace, begun) = (Pace::default(), Instant::now());
        let mut amount = |ms: u64, done| pace.amount(begun + Duration::from_millis(ms), done, 1_000_000);
        assert_eq!(amount(0, 0), Amount { done: 0, total: Some(1_000_000), rate: None, left: None });
        assert_eq!(amount(200, 5000).rate, None, "too early to say");
        for second in 1..=20 {
            assert_eq!(amount(second * 1000, second * 10_000).rate, Some(10_000));
        }
        let slower = (21..=40).map(|second| amount(second * 1000, 200_000 + (second - 20) * 1000)).last();
        assert_eq!((slower.unwrap().rate, slower.unwrap().left), (Some(1000), Some(780)));
        let stalled = (41..=60).map(|second| amount(second * 1000, 220_000)).last();
        assert_eq!((stalled.unwrap().rate, stalled.unwrap().left), (Some(0), None));
    }

    #[test]
    fn what_is_begun_again_is_not_measured_against_what_was_before() {
        let (mut pace, begun) = (Pace::default(), Instant::now());
        pace.amount(begun, 5000, 10_000);
        assert_eq!(pace.amount(begun + Duration::from_secs(1), 100, 10_000).rate, None);
        assert_eq!(pace.amount(begun + Duration::from_secs(2), 300, 10_000).rate, Some(200));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (mut pace, begun) = (Pace::default(), Instant::now());
        for ms in 0..60_000 {
            pace.amount(begun + Duration::from_millis(ms), ms, 60_000);
        }
        assert!(pace.reports.len() <= 102, "{}", pace.reports.len());
    }
}

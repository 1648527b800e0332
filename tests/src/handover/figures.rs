//! Figures of several rounds: a median, and how far they spread.

use std::time::Duration;

use serde::Serialize;

use crate::latency::{self, Outcome, milliseconds};
use crate::load::Seen;

/// Median, least and most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// The lower of the two in the middle where there are two.
    pub median: f64,
    /// Least.
    pub min: f64,
    /// Most.
    pub max: f64,
}

impl Spread {
    /// Of these; all 0 without any.
    pub fn of(mut values: Vec<f64>) -> Spread {
        values.sort_by(f64::total_cmp);
        let rounded = |value: Option<&f64>| value.map_or(0.0, |value| (value * 1e3).round() / 1e3);
        let middle = values.len().saturating_sub(1) / 2;
        Spread {
            median: rounded(values.get(middle)),
            min: rounded(values.first()),
            max: rounded(values.last()),
        }
    }
}

/// What the clients noticed in one scenario of one round.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measure {
    /// Requests without a right answer by their deadline.
    pub failed: u64,
    /// Connections ended by neither their client nor a GOAWAY.
    pub dropped: u64,
    /// Of these, older than the cut.
    pub dropped_old: u64,
    /// Requests that clients sent again.
    pub retried: u64,
    /// Acknowledged writes that could not be read back.
    pub lost: u64,
    /// Longest time without an answer, milliseconds.
    pub gap_ms: f64,
    /// 99th percentile of latency, milliseconds.
    pub p99_ms: f64,
}

/// A moment of a load: times since it began, and what had been counted by then.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// When.
    pub at: Duration,
    /// Requests sent again so far.
    pub retried: u64,
    /// The number of the next write.
    pub writes: u64,
}

/// Counts between two marks, latencies in a window (from, to).
pub fn measure(
    seen: &Seen,
    lost: &[u64],
    (from, to): (Mark, Mark),
    window: (Duration, Duration),
    cut: Option<Duration>,
) -> Measure {
    let within = latency::due(&seen.samples, window.0, window.1);
    let drops = || seen.drops.iter().filter(|drop| (from.at..to.at).contains(&drop.dropped));
    let failed = latency::due(&seen.samples, from.at, to.at)
        .iter()
        .filter(|sample| sample.outcome == Outcome::Failed)
        .count();
    Measure {
        failed: failed as u64,
        dropped: drops().count() as u64,
        dropped_old: drops().filter(|drop| cut.is_none_or(|cut| drop.made < cut)).count() as u64,
        retried: to.retried - from.retried,
        lost: lost.iter().filter(|number| (from.writes..to.writes).contains(number)).count() as u64,
        gap_ms: milliseconds(latency::longest_silence(&seen.samples, window.0, window.1)),
        p99_ms: latency::quantile(&within, 990).map_or(0.0, milliseconds),
    }
}

/// All rounds of one scenario.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Scenario {
    /// Sum over all rounds.
    pub failed: u64,
    /// Sum over all rounds.
    pub dropped: u64,
    /// Of these, older than the cut.
    pub dropped_old: u64,
    /// Sum over all rounds.
    pub retried: u64,
    /// Sum over all rounds.
    pub lost: u64,
    /// Longest time without an answer.
    pub gap_ms: Spread,
    /// 99th percentile of latency.
    pub p99_ms: Spread,
}

impl Scenario {
    /// Of these rounds.
    pub fn of(rounds: &[Measure]) -> Scenario {
        let sum = |count: fn(&Measure) -> u64| rounds.iter().map(count).sum();
        let spread = |figure: fn(&Measure) -> f64| Spread::of(rounds.iter().map(figure).collect());
        Scenario {
            failed: sum(|round| round.failed),
            dropped: sum(|round| round.dropped),
            dropped_old: sum(|round| round.dropped_old),
            retried: sum(|round| round.retried),
            lost: sum(|round| round.lost),
            gap_ms: spread(|round| round.gap_ms),
            p99_ms: spread(|round| round.p99_ms),
        }
    }

    /// Nothing failed, was dropped or lost.
    pub fn is_clean(&self) -> bool {
        (self.failed, self.dropped, self.lost) == (0, 0, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::Sample;
    use crate::load::DroppedConnection;

    #[test]
    fn a_median_is_a_value_that_was_seen() {
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0, 9.0]), Spread { median: 2.0, min: 1.0, max: 9.0 });
        assert_eq!(Spread::of(vec![]), Spread::default());
    }

    #[test]
    fn each_thing_is_counted_in_the_span_in_which_it_happened() {
        let ms = Duration::from_millis;
        let sample =
            |intended, outcome| Sample { intended: ms(intended), late: ms(0), latency: ms(1), outcome };
        let drop =
            |made, dropped| DroppedConnection { made: ms(made), dropped: ms(dropped), cause: String::new() };
        let seen = Seen {
            samples: vec![
                sample(5, Outcome::Failed),
                sample(15, Outcome::Answered),
                sample(25, Outcome::Failed),
            ],
            drops: vec![drop(1, 12), drop(11, 18), drop(1, 30)],
            ..Seen::default()
        };
        let mark = |at, retried, writes| Mark { at: ms(at), retried, writes };
        let spans = (mark(10, 4, 100), mark(30, 9, 200));
        let found = measure(&seen, &[99, 100, 199, 200], spans, (ms(10), ms(20)), Some(ms(10)));
        let gap_ms = 6.0;
        let expected =
            Measure { failed: 1, dropped: 2, dropped_old: 1, retried: 5, lost: 2, gap_ms, p99_ms: 1.0 };
        assert_eq!(found, expected);
    }
}

//! When each request was meant to be sent and when its right answer came: latency is counted from the
//! intended moment, so that a server that stalls cannot hide behind requests that were never sent.

use std::time::Duration;

/// One request, times since the load began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When it was due.
    pub intended: Duration,
    /// So much later the load began with it: its own unpunctuality, which is part of the latency.
    pub late: Duration,
    /// From the intended moment to the answer, or to the moment it was given up.
    pub latency: Duration,
    /// Whether the right answer came.
    pub outcome: Outcome,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With the right answer, however often the client had to ask.
    Answered,
    /// Without a right answer by the client's deadline.
    Failed,
}

impl Sample {
    /// When the answer came.
    pub fn ended(&self) -> Duration {
        self.intended + self.latency
    }
}

/// Those that were due in `from..to`.
pub fn due(samples: &[Sample], from: Duration, to: Duration) -> Vec<Sample> {
    samples.iter().filter(|sample| (from..to).contains(&sample.intended)).copied().collect()
}

/// The latency that so many of a thousand samples did not exceed; `None` without samples.
pub fn quantile(samples: &[Sample], permille: usize) -> Option<Duration> {
    rank(samples.iter().map(|sample| sample.latency).collect(), permille)
}

/// The same of the load's own unpunctuality.
pub fn lateness(samples: &[Sample], permille: usize) -> Option<Duration> {
    rank(samples.iter().map(|sample| sample.late).collect(), permille)
}

fn rank(mut times: Vec<Duration>, permille: usize) -> Option<Duration> {
    times.sort_unstable();
    let rank = (times.len() * permille).div_ceil(1000).max(1);
    times.get(rank - 1).copied()
}

/// The longest interval within `from..to` in which nothing was answered.
pub fn longest_silence(samples: &[Sample], from: Duration, to: Duration) -> Duration {
    let answered = samples.iter().filter(|sample| sample.outcome == Outcome::Answered).map(Sample::ended);
    let mut moments: Vec<Duration> = answered.filter(|moment| (from..to).contains(moment)).collect();
    moments.extend([from, to.max(from)]);
    moments.sort_unstable();
    moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

/// Milliseconds with a fraction, as people read them.
pub fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sample(intended: u64, latency: u64) -> Sample {
        Sample {
            intended: Duration::from_millis(intended),
            late: Duration::ZERO,
            latency: Duration::from_millis(latency),
            outcome: Outcome::Answered,
        }
    }

    #[test]
    fn a_quantile_is_a_latency_that_was_seen() {
        let samples: Vec<Sample> = (1..=100).map(|i| sample(0, i)).collect();
        let at = |permille| quantile(&samples, permille).unwrap().as_millis();
        assert_eq!((at(0), at(500), at(990), at(1000)), (1, 50, 99, 100));
        assert_eq!(quantile(&[], 500), None);
    }

    #[test]
    fn silence_is_measured_between_answers_and_to_the_edges_of_the_window() {
        let ms = Duration::from_millis;
        let samples = [sample(0, 10), sample(20, 70), sample(30, 10), sample(100, 5)];
        assert_eq!(longest_silence(&samples, ms(0), ms(110)), ms(50));
        assert_eq!(longest_silence(&samples, ms(200), ms(1200)), ms(1000));
        let failed = [Sample { outcome: Outcome::Failed, ..sample(5, 0) }];
        assert_eq!(longest_silence(&failed, ms(0), ms(10)), ms(10));
    }
}

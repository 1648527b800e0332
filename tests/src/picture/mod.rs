//! Request latency over time with what happened marked on it: as text for a terminal and as an SVG
//! file. Both are drawn from the same [`Picture`].

pub mod svg;
pub mod terminal;

use std::time::Duration;

use crate::latency::Sample;

/// What is drawn; all times since the load began.
#[derive(Clone, Debug)]
pub struct Picture {
    /// What it shows, in one line.
    pub title: String,
    /// The result, in one line.
    pub subtitle: String,
    /// Every request.
    pub samples: Vec<Sample>,
    /// Where the picture ends.
    pub length: Duration,
    /// Which release held authority when, in order.
    pub reigns: Vec<Reign>,
    /// What was going on when, in order and without overlap.
    pub phases: Vec<Phase>,
    /// Moments worth a line, in order.
    pub marks: Vec<Mark>,
}

/// One release's time of authority.
#[derive(Clone, Debug)]
pub struct Reign {
    /// Its name.
    pub release: String,
    /// When it took.
    pub from: Duration,
    /// When it yielded or died.
    pub to: Duration,
}

/// One phase of an upgrade.
#[derive(Clone, Debug)]
pub struct Phase {
    /// One word.
    pub name: String,
    /// Its beginning.
    pub from: Duration,
    /// Its end.
    pub to: Duration,
}

/// One moment.
#[derive(Clone, Debug)]
pub struct Mark {
    /// When.
    pub at: Duration,
    /// A few words.
    pub text: String,
    /// Good news or bad.
    pub mood: Mood,
}

/// How a mark is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// As planned.
    Good,
    /// Something died.
    Bad,
}

/// Latencies are drawn on a logarithmic scale between these two, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    /// Whole decades that hold all samples, at least 0.1 to 100 ms.
    fn of(samples: &[Sample]) -> Scale {
        let slowest = samples.iter().map(|sample| sample.latency.as_secs_f64() * 1e3).fold(0.0, f64::max);
        let mut high = 100.0;
        while high < slowest {
            high *= 10.0;
        }
        Scale { low: 0.1, high }
    }

    /// 0 at the bottom, 1 at the top.
    fn place(self, latency: Duration) -> f64 {
        self.place_ms(latency.as_secs_f64() * 1e3)
    }

    fn place_ms(self, ms: f64) -> f64 {
        (ms.clamp(self.low, self.high) / self.low).log10() / self.decades()
    }

    fn decades(self) -> f64 {
        (self.high / self.low).log10()
    }

    /// The decades with their names, from the bottom.
    fn ticks(self) -> Vec<(f64, String)> {
        let mut ticks = Vec::new();
        let mut ms = self.low;
        while ms <= self.high * 1.001 {
            let name = if ms > 999.0 {
                format!("{:.0} s", ms / 1e3)
            } else {
                format!("{} ms", (ms * 10.0).round() / 10.0)
            };
            ticks.push((ms, name));
            ms *= 10.0;
        }
        ticks
    }
}

/// The index of the reign in which a request was answered.
fn reign_at(reigns: &[Reign], moment: Duration) -> usize {
    reigns.iter().rposition(|reign| reign.from <= moment).unwrap_or(0)
}

/// The distinct releases, in order of appearance.
fn releases(reigns: &[Reign]) -> Vec<&str> {
    let mut all: Vec<&str> = Vec::new();
    for reign in reigns {
        if !all.contains(&reign.release.as_str()) {
            all.push(&reign.release);
        }
    }
    all
}

/// A picture of invented requests: quiet, one hand-over, one slow moment. For the tests of both forms.
#[cfg(test)]
fn invented() -> Picture {
    use crate::latency::Outcome;
    let ms = Duration::from_millis;
    let mut state = 12345u64;
    let mut random = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as f64 / (1u64 << 31) as f64
    };
    let samples = (0..20_000)
        .map(|i| {
            let intended = ms(i * 3);
            let near_cut = [30_000, 46_000, 48_200].iter().any(|cut: &u64| (i * 3).abs_diff(*cut) < 60);
            let syncing = (21_000..27_000).contains(&(i * 3)) || (39_000..43_000).contains(&(i * 3));
            let base = 0.35 * (1.0 + 3.0 * random().powi(6)) * (1.0 + 30.0 * random().powi(40));
            let factor = if near_cut {
                25.0
            } else if syncing {
                1.6
            } else {
                1.0
            };
            let latency = Duration::from_secs_f64(base * factor / 1e3);
            Sample { intended, late: Duration::ZERO, latency, outcome: Outcome::Answered }
        })
        .collect();
    let reign = |release: &str, from, to| Reign { release: release.to_owned(), from: ms(from), to: ms(to) };
    let phase = |name: &str, from, to| Phase { name: name.to_owned(), from: ms(from), to: ms(to) };
    let mark = |at, text: &str, mood| Mark { at: ms(at), text: text.to_owned(), mood };
    Picture {
        title: "Request latency while a node is upgraded, and rolled back, under load".to_owned(),
        subtitle: "20,000 requests · 0 failed · 0 lost · no old connection dropped".to_owned(),
        samples,
        length: ms(60_000),
        reigns: vec![
            reign("1.0.0", 0, 30_000),
            reign("1.1.0", 30_000, 46_000),
            reign("1.2.0", 46_000, 48_200),
            reign("1.1.0", 48_200, 60_000),
        ],
        phases: vec![
            phase("fetching", 19_000, 20_400),
            phase("starting", 20_400, 21_000),
            phase("syncing", 21_000, 27_000),
            phase("level", 27_000, 30_000),
            phase("probation", 30_000, 35_200),
            phase("committing", 35_200, 36_800),
            phase("fetching", 37_500, 38_500),
            phase("syncing", 39_000, 43_000),
            phase("level", 43_000, 46_000),
            phase("probation", 46_000, 48_200),
        ],
        marks: vec![
            mark(30_000, "1.1.0 takes over in 1.4 ms", Mood::Good),
            mark(35_400, "committed", Mood::Good),
            mark(46_000, "1.2.0 takes over in 1.2 ms", Mood::Good),
            mark(48_050, "1.2.0 dies", Mood::Bad),
            mark(48_200, "1.1.0 holds again", Mood::Good),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_has_whole_decades_and_holds_the_slowest() {
        let mut picture = invented();
        let quick = [Sample { latency: Duration::from_millis(3), ..picture.samples[0] }];
        assert_eq!(Scale::of(&quick), Scale { low: 0.1, high: 100.0 });
        picture.samples[0].latency = Duration::from_secs(3);
        let scale = Scale::of(&picture.samples);
        assert_eq!(scale, Scale { low: 0.1, high: 10_000.0 });
        assert_eq!(scale.place(Duration::from_micros(1)), 0.0);
        assert!((scale.place(Duration::from_secs(1)) - 0.8).abs() < 1e-9);
        let names: Vec<String> = scale.ticks().into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["0.1 ms", "1 ms", "10 ms", "100 ms", "1 s", "10 s"]);
    }
}

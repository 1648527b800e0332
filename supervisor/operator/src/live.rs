//! Progress while an upgrade is waited for.

use bumpless_control::reply::Progress;
use bumpless_control::status::{Amount, Phase};

use crate::words::{amount, clause, course};

/// What progress is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    /// One line that is written over.
    Terminal,
    /// A line for each phase, and for each tenth of a phase that counts bytes.
    Lines,
    /// Nowhere.
    Nothing,
}

/// Columns of a terminal's line: a longer one would wrap, and could not be written over.
const COLUMNS: usize = 79;

/// Remembers what was shown.
#[derive(Debug)]
pub struct Live {
    screen: Screen,
    shown: Option<(Phase, u64)>,
}

impl Live {
    /// Nothing was shown yet.
    pub fn new(screen: Screen) -> Live {
        Live { screen, shown: None }
    }

    /// What to write for this progress.
    pub fn show(&mut self, progress: &Progress) -> String {
        let tenth = match (progress.done, progress.total) {
            (Some(done), Some(total)) if total > 0 => done.saturating_mul(10) / total,
            _ => 0,
        };
        let now = Some((progress.phase.clone(), tenth));
        let same = std::mem::replace(&mut self.shown, now.clone()) == now;
        match self.screen {
            Screen::Terminal => {
                let line: String = line(progress).chars().take(COLUMNS).collect();
                format!("\r\x1b[K{line}")
            }
            Screen::Lines if !same => format!("{}\n", line(progress)),
            Screen::Lines | Screen::Nothing => String::new(),
        }
    }

    /// What to write before the outcome.
    pub fn end(&mut self) -> String {
        match (self.screen, self.shown.take()) {
            (Screen::Terminal, Some(_)) => "\r\x1b[K".into(),
            (Screen::Terminal | Screen::Lines | Screen::Nothing, _) => String::new(),
        }
    }
}

fn line(progress: &Progress) -> String {
    let mut line = format!("{}: {}", course(progress.from.as_ref(), &progress.to), short(&progress.phase));
    if let Some(done) = progress.done {
        let Progress { total, rate, left, .. } = *progress;
        line.push_str(&format!(", {}", amount(&Amount { done, total, rate, left })));
    }
    if let Some(text) = &progress.text {
        line.push_str(&format!(", {}", clause(text)));
    }
    line
}

/// A phase in two or three words.
pub fn short(phase: &Phase) -> &str {
    match phase {
        Phase::Fetching => "fetching",
        Phase::Verifying => "verifying",
        Phase::Installing => "installing",
        Phase::Starting => "starting",
        Phase::Syncing => "taking over the state",
        Phase::Level => "waiting for a suitable moment",
        Phase::Cutting => "cutting over",
        Phase::Probation => "serving on probation",
        Phase::Committing => "committing",
        Phase::Draining => "moving connections",
        Phase::BackingOut => "backing out",
        Phase::GoingBack => "going back",
        Phase::RollingBack => "rolling back",
        Phase::Recovering => "recovering",
        Phase::Other(word) => word,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn progress(phase: Phase, done: Option<u64>, text: Option<&str>) -> Progress {
        Progress {
            phase,
            from: Some("1.0.0".parse().unwrap()),
            to: "1.1.0".parse().unwrap(),
            done,
            total: done.map(|_| 300_000_000),
            deadline: None,
            rehearsal: None,
            rate: None,
            left: None,
            text: text.map(str::to_owned),
        }
    }

    #[test]
    fn a_terminal_has_one_line_that_never_wraps() {
        let mut live = Live::new(Screen::Terminal);
        assert_eq!(
            live.show(&progress(Phase::Syncing, Some(150_000_000), None)),
            "\r\x1b[Kfrom 1.0.0 to 1.1.0: taking over the state, 150.0 MB of 300.0 MB (50 %)"
        );
        let long = live.show(&progress(Phase::Syncing, None, Some(&"x".repeat(500))));
        assert_eq!(long.chars().count(), 4 + COLUMNS);
        assert_eq!(live.end(), "\r\x1b[K");
        assert_eq!(live.end(), "");
    }

    #[test]
    fn without_a_terminal_there_is_a_line_per_phase_and_tenth() {
        let mut live = Live::new(Screen::Lines);
        assert_eq!(live.show(&progress(Phase::Starting, None, None)), "from 1.0.0 to 1.1.0: starting\n");
        assert_eq!(live.show(&progress(Phase::Starting, None, None)), "");
        let lines = (0..=300).map(|done| live.show(&progress(Phase::Syncing, Some(done * 1_000_000), None)));
        assert_eq!(lines.filter(|line| !line.is_empty()).count(), 11);
        assert_eq!(live.end(), "");
        assert_eq!(Live::new(Screen::Nothing).show(&progress(Phase::Starting, None, None)), "");
    }
}

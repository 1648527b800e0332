//! What cases brought, by fault and by step.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::case::Case;
use super::fault::Fault;
use super::rig::{Broken, Passed};
use super::step::Step;
use crate::display::thousands;

/// A case that was played.
#[derive(Clone, Debug)]
pub struct Played {
    /// Which.
    pub case: Case,
    /// How it went.
    pub result: Result<Passed, Broken>,
    /// The world, where it was kept.
    pub folder: Option<PathBuf>,
}

/// All of them.
#[derive(Clone, Debug)]
pub struct Report {
    /// What chance followed from.
    pub seed: u64,
    /// How long it took.
    pub seconds: f64,
    played: Vec<Played>,
}

impl Report {
    /// Nothing was played.
    pub fn new(seed: u64) -> Report {
        Report { seed, seconds: 0.0, played: Vec::new() }
    }

    /// Takes one in, and says what is wrong with it.
    pub fn note(&mut self, played: Played) -> Vec<String> {
        let mut lines = Vec::new();
        if let Err(Broken { what, .. }) = &played.result {
            lines.push(format!("  ✘ {}", played.case));
            lines.extend(what.iter().map(|what| format!("      {what}")));
            if let Some(folder) = &played.folder {
                lines.push(format!("      kept: {}", folder.display()));
            }
        }
        self.played.push(played);
        lines
    }

    /// Cases played.
    pub fn runs(&self) -> usize {
        self.played.len()
    }

    /// Cases in which something is wrong.
    pub fn violations(&self) -> usize {
        self.played.iter().filter(|played| played.result.is_err()).count()
    }

    /// Acknowledged operations that are not there.
    pub fn lost(&self) -> u64 {
        self.played.iter().filter_map(|played| played.result.as_ref().err()).map(|broken| broken.lost).sum()
    }

    /// The last case, in a few words.
    pub fn last(&self) -> String {
        self.played.last().map_or(String::new(), |played| {
            format!("{}, {}", played.case.step.name(), played.case.fault.name())
        })
    }

    /// `{runs, lost, violations, seeds}`.
    pub fn json(&self) -> serde_json::Value {
        let broken =
            self.played.iter().filter_map(|played| played.result.as_ref().err().map(|it| (played, it)));
        let violations: Vec<_> = broken
            .map(|(played, broken)| {
                json!({
                    "case": played.case.number,
                    "step": played.case.step.name(),
                    "fault": played.case.fault.name(),
                    "operator": played.case.beside.name(),
                    "what": broken.what,
                    "folder": played.folder,
                })
            })
            .collect();
        json!({
            "runs": self.runs(),
            "lost": self.lost(),
            "violations": violations,
            "seeds": [self.seed],
            "seconds": self.seconds.round(),
            "longest_s": self.longest().as_secs_f64(),
            "requests": self.requests(),
        })
    }

    /// How long the parts of a case take.
    fn parts(&self) -> String {
        let mut sums: Vec<(&str, Duration)> = Vec::new();
        for (name, took) in self.passed().flat_map(|passed| &passed.parts) {
            match sums.iter_mut().find(|(it, _)| it == name) {
                Some((_, sum)) => *sum += *took,
                None => sums.push((name, *took)),
            }
        }
        let count = self.passed().count().max(1) as f64;
        let words: Vec<String> =
            sums.iter().map(|(name, sum)| format!("{name} {:.2} s", sum.as_secs_f64() / count)).collect();
        format!("  a case on average: {}", words.join(", "))
    }

    fn requests(&self) -> u64 {
        self.passed().map(|passed| passed.requests).sum()
    }

    fn longest(&self) -> Duration {
        self.passed().map(|passed| passed.took).max().unwrap_or_default()
    }

    fn passed(&self) -> impl Iterator<Item = &Passed> {
        self.played.iter().filter_map(|played| played.result.as_ref().ok())
    }

    /// The summary.
    pub fn table(&self) -> Vec<String> {
        let mut lines = vec![
            String::new(),
            "  fault                                     cases  broken  longest".to_owned(),
        ];
        for fault in Fault::ALL {
            lines.extend(self.line(fault.name(), |case| case.fault == fault));
        }
        lines.extend([
            String::new(),
            "  step                                      cases  broken  longest".to_owned(),
        ]);
        for step in Step::ALL {
            lines.extend(self.line(step.name(), |case| case.step == step));
        }
        lines.extend([String::new(), self.parts()]);
        lines.push(String::new());
        lines.push(format!(
            "  {} cases in {:.0} s (seed {}): {} broken, {} requests, {} acknowledged operations lost",
            self.runs(),
            self.seconds,
            self.seed,
            self.violations(),
            thousands(self.requests()),
            self.lost()
        ));
        lines
    }

    fn line(&self, name: &str, of: impl Fn(&Case) -> bool) -> Option<String> {
        let played: Vec<&Played> = self.played.iter().filter(|played| of(&played.case)).collect();
        let broken = played.iter().filter(|played| played.result.is_err()).count();
        let longest = played.iter().filter_map(|played| played.result.as_ref().ok()).map(|it| it.took).max();
        (!played.is_empty()).then(|| {
            let seconds = longest.map_or("-".to_owned(), |took| format!("{:.1} s", took.as_secs_f64()));
            format!("  {name:<41} {:>5}  {broken:>6}  {seconds:>7}", played.len())
        })
    }
}

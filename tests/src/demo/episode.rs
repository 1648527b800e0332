//! One upgrade under load, as the supervisor tells it while it happens.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use bumpless_control::reply::{Answer, Move, Outcome};
use bumpless_control::request::Request;
use bumpless_control::status::Phase;
use bumpless_worker::client::Counters;
use bumpless_worker::stamp::Stamp;

use crate::display::Display;
use crate::load::Load;
use crate::world::{Result, World};

/// After a hand-over was reported, answers are looked for so much longer.
const AFTER: Duration = Duration::from_millis(300);
/// The window in which the longest silence is looked for is at least so long.
const WINDOW: Duration = Duration::from_secs(1);
/// How long a drain may take before the story goes on without its end.
const DRAIN: Duration = Duration::from_secs(30);

/// What happened; times since the load began.
#[derive(Clone, Debug)]
pub struct Episode {
    /// What served before.
    pub from: String,
    /// What was published.
    pub to: String,
    /// When it was asked for.
    pub begun: Duration,
    /// When nothing of it was left.
    pub ended: Duration,
    /// The phases with their beginnings, in order.
    steps: Vec<(Phase, Duration)>,
    /// When the outcome came.
    decided: Duration,
    outcome: Outcome,
    /// Numbers of the writes that were begun in it.
    pub writes: Range<u64>,
    /// The clients' counts at its beginning.
    pub before: Counters,
    /// And at its end.
    pub after: Counters,
}

impl Episode {
    /// Publishes a release, asks for the upgrade and follows it to its end.
    ///
    /// # Errors
    /// The supervisor went away, or the feed cannot be written.
    pub async fn run(
        world: &mut World,
        display: &mut Display,
        load: &Load,
        stamp: &Stamp,
    ) -> Result<Episode> {
        display.begin("publish");
        let release = world.publish(stamp)?;
        display.done(&format!("{release}"));
        let from = world
            .control()
            .status()
            .await?
            .serving
            .map_or_else(String::new, |worker| worker.release.to_string());
        let (begun, first, before) = (load.now(), load.oracle().begun(), load.counters());
        let mut story = Story { display, steps: Vec::new(), details: HashMap::new() };
        let request = Request::Upgrade { version: Some(stamp.release.clone()), wait: true, rehearse: false };
        let outcome = world
            .control()
            .ask(&request, |moment, progress| {
                story.step(
                    load.when(moment),
                    &progress.phase,
                    progress.done.map(|done| (done, progress.total)),
                );
            })
            .await?;
        let decided = load.now();
        story.close(&outcome);
        let steps = story.steps;
        let drained =
            |status: &bumpless_control::status::Status| status.draining.is_none() && status.upgrade.is_none();
        world.control().until("the end of the upgrade", DRAIN, drained).await?;
        Ok(Episode {
            from,
            to: stamp.release.to_string(),
            begun,
            ended: load.now(),
            steps,
            decided,
            outcome,
            writes: first..load.oracle().begun(),
            before,
            after: load.counters(),
        })
    }

    fn start_of(&self, wanted: &Phase) -> Option<Duration> {
        self.steps.iter().find(|(phase, _)| phase == wanted).map(|(_, at)| *at)
    }

    /// When the old worker was told to yield.
    pub fn cut(&self) -> Option<Duration> {
        self.start_of(&Phase::Cutting).or_else(|| self.start_of(&Phase::Probation))
    }

    /// When the new worker held.
    pub fn took(&self) -> Option<Duration> {
        self.start_of(&Phase::Probation)
    }

    /// When it was committed.
    pub fn committed(&self) -> Option<Duration> {
        let committed = matches!(self.outcome, Outcome::Done { .. });
        committed.then(|| self.start_of(&Phase::Draining).unwrap_or(self.decided))
    }

    /// When the new worker's death was noticed.
    pub fn died(&self) -> Option<Duration> {
        self.start_of(&Phase::RollingBack)
    }

    /// When the old worker held again.
    pub fn resumed(&self) -> Option<Duration> {
        let Outcome::RolledBack { gap_ms, .. } = &self.outcome else { return None };
        let gap = gap_ms.and_then(|ms| Duration::try_from_secs_f64(ms / 1e3).ok());
        Some(self.died().zip(gap).map_or(self.decided, |(died, gap)| died + gap))
    }

    /// From the beginning of the sync until the new worker was level.
    pub fn sync(&self) -> Option<Duration> {
        let begun = self.start_of(&Phase::Syncing)?;
        self.steps.iter().find(|(_, at)| *at > begun).map(|(_, at)| *at - begun)
    }

    /// From the cut's intent until a little after the new worker held, and at least a second.
    pub fn gap_window(&self) -> (Duration, Duration) {
        let from = self.cut().unwrap_or(self.begun);
        let to = self.took().unwrap_or(self.ended) + AFTER;
        (from, to.max(from + WINDOW))
    }

    /// The same around the death: it begins a little before it was noticed.
    pub fn back_window(&self) -> (Duration, Duration) {
        let from = self.died().unwrap_or(self.decided).saturating_sub(AFTER);
        (from, (self.decided + AFTER).max(from + WINDOW))
    }

    /// From the freeze of the old worker to the new one's hold, as the node measured it.
    pub fn handover_ms(&self) -> Option<f64> {
        match &self.outcome {
            Outcome::Done { answer: Answer::Upgraded(Move { gap_ms, .. }) } => *gap_ms,
            Outcome::RolledBack { gap_ms, .. } => *gap_ms,
            Outcome::Done { .. }
            | Outcome::Refused { .. }
            | Outcome::NothingToDo { .. }
            | Outcome::Failed { .. } => None,
        }
    }

    /// Why it did not go through, in the supervisor's words.
    pub fn cause(&self) -> &str {
        match &self.outcome {
            Outcome::RolledBack { reason, .. }
            | Outcome::Failed { reason }
            | Outcome::Refused { reason }
            | Outcome::NothingToDo { reason } => reason,
            Outcome::Done { .. } => "",
        }
    }

    /// Each phase with its beginning and end.
    pub fn phases(&self) -> impl Iterator<Item = (String, Duration, Duration)> + '_ {
        let ends = self.steps.iter().skip(1).map(|(_, at)| *at).chain([self.decided]);
        let phases = self.steps.iter().zip(ends).map(|((phase, from), to)| (words(phase), *from, to));
        phases.filter(|(_, from, to)| to > from)
    }

    /// Fails unless the release was committed.
    ///
    /// # Errors
    /// It was not; the supervisor's words.
    pub fn require_committed(&self) -> Result<()> {
        match &self.outcome {
            Outcome::Done { .. } => Ok(()),
            other => Err(format!("the upgrade to {} was not committed: {other:?}", self.to).into()),
        }
    }

    /// Fails unless the release was rolled back.
    ///
    /// # Errors
    /// It was not; the supervisor's words.
    pub fn require_rolled_back(&self) -> Result<()> {
        match &self.outcome {
            Outcome::RolledBack { .. } => Ok(()),
            other => Err(format!("the upgrade to {} was not rolled back: {other:?}", self.to).into()),
        }
    }
}

fn words(phase: &Phase) -> String {
    phase.as_str().replace('_', " ")
}

/// Shows each phase as a step while it lasts.
struct Story<'a> {
    display: &'a mut Display,
    steps: Vec<(Phase, Duration)>,
    details: HashMap<String, u64>,
}

impl Story<'_> {
    fn step(&mut self, at: Duration, phase: &Phase, amount: Option<(u64, Option<u64>)>) {
        if self.steps.last().is_none_or(|(last, _)| last != phase) {
            self.finish_last();
            self.steps.push((phase.clone(), at));
            self.display.begin(&words(phase));
        }
        match amount {
            Some((done, total)) => {
                self.details.insert(phase.as_str().to_owned(), total.unwrap_or(done));
                self.display.amount(done, total);
            }
            None => self.display.update(explained(phase)),
        }
    }

    fn finish_last(&mut self) {
        let Some((phase, _)) = self.steps.last() else { return };
        let amount = self.details.get(phase.as_str()).map(|amount| crate::display::bytes(*amount));
        let text =
            [amount.as_deref(), Some(explained(phase))].into_iter().flatten().collect::<Vec<_>>().join(", ");
        self.display.done(text.trim_end_matches(", "));
    }

    fn close(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Done { .. } => {
                self.finish_last();
                self.display.begin("committed");
                self.display.done("the old worker's connections have moved and it has gone");
            }
            Outcome::RolledBack { from, reason, .. } => {
                self.finish_last();
                self.display.begin("rolled back");
                self.display.bad(&format!("{from} holds again: {reason}"));
            }
            Outcome::Failed { reason } | Outcome::Refused { reason } | Outcome::NothingToDo { reason } => {
                self.display.bad(reason);
            }
        }
    }
}

fn explained(phase: &Phase) -> &'static str {
    match phase {
        Phase::Fetching => "over HTTP, by a process of its own",
        Phase::Verifying => "signatures, versions, hash",
        Phase::Installing => "under its version and hash",
        Phase::Starting => "idle: it serves nobody yet",
        Phase::Syncing => "while the old worker serves",
        Phase::Level => "equal state hashes, then a suitable moment",
        Phase::Cutting => "the old worker freezes, the new one takes over",
        Phase::Probation => "the new worker serves, the old one watches it",
        Phase::Committing => "durable",
        Phase::Draining => "connections move to the new worker",
        Phase::BackingOut => "the new worker is ended; the old one never noticed",
        Phase::GoingBack => "the new worker hands back to the old one, and connections move",
        Phase::RollingBack => "the old worker reads the logbook to its end and takes over again",
        Phase::Recovering => "the committed worker is started",
        Phase::Other(_) => "",
    }
}

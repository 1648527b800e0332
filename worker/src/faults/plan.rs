//! Which step, and what is done there.
//!
//! | step | *before* | *after* |
//! |---|---|---|
//! | `start`, `go`, `prepare`, `retire`, `commit`, `drain`, `resume`, `persist`, `remove` | the order has come | before its answer |
//! | `pair`, `cut`, `stop` | the order has come | never |
//! | `sync` | a part of the snapshot has come | never |
//! | `level` | the snapshot is in, before the logbook is followed | before `Level` |
//! | `mark` | the mark was ordered or met | before `StateHash` |
//! | `yield` | the suitable moment has come, before it freezes | `Yield` is sent; before `Yielded` |
//! | `take` | `Yield` has come | `Took` is sent; before the supervisor's |
//! | `resign` | `Took` has come | before `Resigned` |
//!
//! What waits *before* a step holds up everything that the worker decides; what waits *after* one, its
//! reports. Heartbeats go on in both.

use std::path::PathBuf;

use bumpless_shared::control::{Command, Report};
use serde::{Deserialize, Serialize};

use super::harm::{Files, Harm};

/// What is done at which step, once in a process's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Planned {
    /// The step.
    pub step: Step,
    /// On which side of it.
    pub place: Place,
    /// As what.
    #[serde(default)]
    pub role: Role,
    /// What.
    pub does: Does,
}

/// A step of a worker's life; see the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the table above")]
pub enum Step {
    Start,
    Go,
    Pair,
    Sync,
    Level,
    Mark,
    Prepare,
    Cut,
    Yield,
    Take,
    Resign,
    Persist,
    Retire,
    Commit,
    Drain,
    Resume,
    Remove,
    Stop,
}

/// On which side of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// It is known what is to be done, and nothing was done.
    Before,
    /// It is done, and the supervisor does not know.
    After,
}

/// What the worker has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Either.
    #[default]
    Any,
    /// A candidate, until it has answered `Commit`.
    New,
    /// One that was started to hold, or was committed.
    Old,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Does {
    /// The step waits so many milliseconds.
    Pause(u64),
    /// The step waits at a gate: two named pipes that begin with this path. Into `.reached` goes a byte,
    /// then one is awaited from `.open`, or its end.
    Wait(PathBuf),
    /// This, and then the step.
    Do(Deed),
    /// This so many milliseconds later; the step does not wait.
    Later(u64, Deed),
}

/// Something bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// SIGSTOP to itself.
    Stop,
    /// The process ends.
    Exit,
    /// Link and stream to the other worker are closed.
    CloseLink,
    /// The other worker's files.
    Harm(Files, Harm),
    /// Messages without end.
    Flood(Flood),
    /// Bytes that are no message.
    Garbage(Wire),
}

/// Which messages never end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flood {
    /// `Took` to the other worker.
    Notes,
    /// Answers that the other worker did not ask for.
    Answers,
    /// Credit for the other worker, one request each.
    Credit,
    /// Suspicions to the supervisor.
    Reports,
    /// Records in its own logbook.
    Records,
}

/// Where garbage goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wire {
    /// Notes to the other worker.
    Link,
    /// Bulk to the other worker.
    Stream,
    /// Reports to the supervisor.
    Control,
}

impl Step {
    /// Which step an order begins.
    pub fn of_order(command: &Command) -> Option<Step> {
        Some(match command {
            Command::Start(_) => Step::Start,
            Command::Go { .. } => Step::Go,
            Command::Pair { .. } => Step::Pair,
            Command::Mark { .. } => Step::Mark,
            Command::Prepare { .. } => Step::Prepare,
            Command::Cut { .. } => Step::Cut,
            Command::Resume { .. } => Step::Resume,
            Command::Persist => Step::Persist,
            Command::Retire { .. } => Step::Retire,
            Command::Commit { .. } => Step::Commit,
            Command::Drain { .. } => Step::Drain,
            Command::Remove { .. } => Step::Remove,
            Command::Stop { .. } => Step::Stop,
            Command::PeerGone { .. } => return None,
        })
    }

    /// Which step a report ends.
    pub fn of_report(report: &Report) -> Option<Step> {
        Some(match report {
            Report::Ready { .. } => Step::Start,
            Report::Going { .. } => Step::Go,
            Report::Level { .. } => Step::Level,
            Report::StateHash { .. } => Step::Mark,
            Report::Prepared { .. } => Step::Prepare,
            Report::Yielded { .. } => Step::Yield,
            Report::Took { .. } => Step::Take,
            Report::Resigned { .. } => Step::Resign,
            Report::Persisted { .. } => Step::Persist,
            Report::Retired { .. } => Step::Retire,
            Report::Committed { .. } => Step::Commit,
            Report::Drained { .. } => Step::Drain,
            Report::Resumed { .. } => Step::Resume,
            Report::Removed { .. } => Step::Remove,
            Report::Identity(_)
            | Report::Syncing { .. }
            | Report::Heartbeat(_)
            | Report::Suspect { .. }
            | Report::Trouble { .. }
            | Report::Refused { .. } => return None,
        })
    }
}

//! What can happen. Everything that the sequence decides on comes in through one of these.

use bumpless_os::process::Ending;
use bumpless_shared::control::{Heartbeat, Instance, Report, Suspicion, Term, Trouble};
use bumpless_shared::digest::Digest;

use super::state::{Attempt, Terms, Verdict, Worker};

/// Something happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Time passed. Comes only after everything that had already arrived was given in, so that a
    /// deadline is never missed by a message that is merely unread.
    Tick,
    /// Somebody decided.
    Asked(Ask),
    /// Fetching and installing.
    Acquired(Acquired),
    /// Starting a process.
    Launched(Launched),
    /// Our own records.
    Stored(Stored),
    /// A worker's report.
    Said(Instance, Said),
    /// Its pidfd is readable; how it ended.
    Ended(Instance, Ending),
    /// Its control channel is closed and it lives.
    Closed(Instance),
}

/// Decisions from outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// This upgrade is to begin; `installed` says that its release lies verified on the disk.
    Upgrade {
        /// What and why.
        attempt: Attempt,
        /// Whether fetching can be left out.
        installed: bool,
    },
    /// The operator wants an upgrade under way taken back.
    Rollback {
        /// Who.
        uid: u32,
    },
    /// What the publisher forbids ([`Rules::forbidden`](super::Rules)) may be something else than before.
    Reconsider,
    /// A real stop.
    Stop,
}

/// How fetching and installing went.
#[derive(Clone, Debug, PartialEq)]
pub enum Acquired {
    /// The blob lies in staging, unverified.
    Fetched,
    /// It lies verified in its own directory.
    Installed,
    /// It could not be fetched, verified or installed.
    Failed(Verdict),
}

/// How starting a process went.
#[derive(Clone, Debug, PartialEq)]
pub enum Launched {
    /// The binary was verified once more, and runs.
    Running(Worker),
    /// It was not started.
    Failed(Verdict),
}

/// How writing our own records went.
#[derive(Clone, Debug, PartialEq)]
pub enum Stored {
    /// Two terms and the journal's intent are durable.
    Reserved(Terms),
    /// They are not.
    NotReserved(String),
    /// The committed record is durable; its term, newly reserved if this is a cold start.
    Recorded(Term),
    /// It is not, or nobody knows.
    NotRecorded(String),
}

/// What a worker said, as far as decisions need it.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// It greeted in a version that we speak.
    Greeting,
    /// It greeted in none.
    NoCommonVersion(String),
    /// `Ready`, with the highest term that it found on disk.
    Ready(Term),
    /// `Going`.
    Going,
    /// `Syncing`: what is left, in bytes and records.
    Left(u64),
    /// `Level`.
    Level,
    /// `StateHash`: mark and hash.
    Hash(u64, Digest),
    /// `Prepared`.
    Prepared(Term),
    /// `Yielded`.
    Yielded(Term),
    /// `Took`.
    Took(Term),
    /// `Resigned`, with the gap in microseconds: the taker holds.
    Resigned(u64),
    /// `Resumed`, with the gap in microseconds.
    Resumed(Term, u64),
    /// `Retired`.
    Retired(Term),
    /// `Persisted`.
    Persisted,
    /// `Committed`: its logbook is ended.
    Sealed(Term),
    /// `Drained`, with the connections that were closed at the deadline.
    Drained(u64),
    /// `Heartbeat`.
    Heartbeat(Heartbeat),
    /// `Suspect`.
    Suspects(Suspicion, String),
    /// `Trouble`.
    Trouble(Trouble, String),
    /// `Refused`: which order and why.
    Refused(String, String),
}

impl Said {
    /// A report, as far as decisions need it; `None` for one that only the records do.
    pub fn of(report: Report) -> Option<Said> {
        Some(match report {
            Report::Identity(_) | Report::Removed { .. } => return None,
            Report::Ready { term, .. } => Said::Ready(term),
            Report::Going { .. } => Said::Going,
            Report::Syncing { done, total, lag } => {
                Said::Left(total.saturating_sub(done).saturating_add(lag))
            }
            Report::Level { .. } => Said::Level,
            Report::Prepared { term } => Said::Prepared(term),
            Report::StateHash { id, hash, .. } => Said::Hash(id, hash),
            Report::Yielded { term, .. } => Said::Yielded(term),
            Report::Took { term } => Said::Took(term),
            Report::Resigned { gap_us, .. } => Said::Resigned(gap_us),
            Report::Resumed { term, gap_us, .. } => Said::Resumed(term, gap_us),
            Report::Retired { term } => Said::Retired(term),
            Report::Persisted { .. } => Said::Persisted,
            Report::Committed { term } => Said::Sealed(term),
            Report::Drained { cut_off, .. } => Said::Drained(cut_off),
            Report::Heartbeat(beat) => Said::Heartbeat(beat),
            Report::Suspect { kind, reason } => Said::Suspects(kind, reason),
            Report::Trouble { kind, text } => Said::Trouble(kind, text),
            Report::Refused { order, reason } => Said::Refused(order, reason),
        })
    }
}

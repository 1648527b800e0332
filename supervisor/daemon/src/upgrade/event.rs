//! What can happen. Everything that the sequence decides on comes in through one of these.

use bumpless_os::process::Ending;
use bumpless_shared::control::{Heartbeat, Instance, Suspicion, Term, Trouble};
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

//! How the node is. `bumpless status` puts this into words; `--json` prints it as it is.

use bumpless_shared::digest::Digest;
use bumpless_shared::release::Version;
use serde::{Deserialize, Serialize};

use crate::Unix;
use crate::history::Source;
use crate::schema::Schema;
use crate::word::words;

/// All of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// 1.
    pub schema: Schema,
    /// Who answers.
    pub supervisor: Supervisor,
    /// The worker that holds; `None` while none does.
    pub serving: Option<Worker>,
    /// The other one of an upgrade: before the cut the new worker, in probation the old one.
    pub standby: Option<Worker>,
    /// After a commit the old worker, after a way back the new one, until its connections are gone.
    pub draining: Option<Worker>,
    /// What is going on; `None` in steady state.
    pub upgrade: Option<Upgrade>,
    /// When the feed is looked at next; `None` without a feed.
    pub next_check: Option<Unix>,
    /// What comes next and why not now; `None` where nothing is known to come.
    pub next: Option<Next>,
    /// How the next release spreads, as far as this machine is concerned; left out without an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// Whether upgrades are held.
    pub held: Option<Held>,
    /// Releases that failed here and are not tried again.
    pub quarantined: Vec<Quarantined>,
    /// How the last upgrade ended; `None` if there was none.
    pub last: Option<Last>,
    /// The feed; `None` where none is configured.
    pub feed: Option<Feed>,
    /// What the system's packages declare; left out where there is no folder for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packages: Option<Packages>,
    /// What is wrong and stays wrong until something changes.
    pub alarms: Vec<Alarm>,
    /// One sentence or command; `None`: nothing.
    pub you_need_to_do: Option<String>,
}

/// The supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supervisor {
    /// Of bumplessd.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Its start.
    pub since: Unix,
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// What it runs.
    pub release: Version,
    /// Of the bytes that run.
    pub sha256: Digest,
    /// On whose word it runs; left out where its record cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Of its authority; `None` where it has none and had none.
    pub term: Option<u64>,
    /// Its number.
    pub instance: u64,
    /// Its process.
    pub pid: i32,
    /// Since when it is what it is (serves, stands by, drains).
    pub since: Unix,
    /// From its last heartbeat; `None` before the first.
    pub figures: Option<Figures>,
}

/// What a worker says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Resident bytes.
    pub memory: u64,
    /// Open connections of clients.
    pub connections: u64,
    /// Records that it has yet to apply.
    pub lag: u64,
    /// Bytes in logbooks.
    pub logbook: u64,
    /// Requests answered per second.
    pub requests_per_second: u64,
    /// Of a thousand requests, those answered with an error of the node's.
    pub errors_permille: u64,
    /// 99th percentile from a request's arrival to its answer, microseconds.
    pub p99_us: u64,
    /// When it said so.
    pub at: Unix,
}

words! {
    /// What an upgrade is in.
    Phase {
        /// The artifact comes from the feed.
        Fetching = "fetching",
        /// It is unpacked and hashed.
        Verifying = "verifying",
        /// It gets its place under `releases/`.
        Installing = "installing",
        /// The new worker starts.
        Starting = "starting",
        /// It takes the state over while the old one serves.
        Syncing = "syncing",
        /// It is level and waits for a suitable moment.
        Level = "level",
        /// Authority changes hands.
        Cutting = "cutting",
        /// The new worker serves and is watched; the old one can take over again.
        Probation = "probation",
        /// It was good; this is being made durable.
        Committing = "committing",
        /// The old worker's connections move over.
        Draining = "draining",
        /// It failed before the cut: the new worker is being ended.
        BackingOut = "backing_out",
        /// Nothing failed: authority goes back to the old worker by a cut, and connections with it.
        GoingBack = "going_back",
        /// It failed after the cut: the old worker takes over again.
        RollingBack = "rolling_back",
        /// No living worker holds: the committed one is being started.
        Recovering = "recovering",
    }
}

/// What is going on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgrade {
    /// Where it stands.
    pub phase: Phase,
    /// What served when it began; `None` at the very first start.
    pub from: Option<Version>,
    /// Where it goes.
    pub to: Version,
    /// When it began.
    pub since: Unix,
    /// Which try of this release this is, from 1.
    pub attempt: u32,
    /// How many tries a release has.
    pub attempts: u32,
    /// Where the phase counts bytes.
    pub progress: Option<Amount>,
    /// When the phase is given up (probation: when it ends well); `None` where a killed process is
    /// waited for.
    pub deadline: Option<Unix>,
    /// More about the phase, in words.
    pub text: Option<String>,
    /// Which of the three hand-overs of a rehearsal it is about; left out where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<u8>,
}

/// Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Done.
    pub done: u64,
    /// To do in all, where known.
    pub total: Option<u64>,
    /// Bytes per second in the last few seconds; left out where it is too early to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// Seconds that the rest takes at that rate; left out where nobody can say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<u64>,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Next {
    /// In words, beginning with a lower-case letter: "upgrade to 1.2.0, second of 3 tries".
    pub what: String,
    /// When; `None` where no time is known.
    pub at: Option<Unix>,
    /// Why not now.
    pub why_not: Option<String>,
}

/// The rollout of the next release, or where none is newer of the one that runs, for this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Which release.
    pub release: Version,
    /// This machine's place, 0 to 999: a stage of so many permille reaches the places below it.
    pub bucket: u16,
    /// The group that the machine belongs to; `None`: to none.
    pub group: Option<String>,
    /// The first parts of the versions that may come here; `None`: any version may.
    pub pin: Option<String>,
    /// From when on this machine may take it by itself; `None` where no stage reaches it.
    pub eligible_at: Option<Unix>,
    /// Why it is not begun by itself now; `None` where nothing blocks it, and where it runs.
    pub blocks: Option<String>,
}

/// Upgrades are held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// As given.
    pub reason: String,
    /// Since.
    pub at: Unix,
    /// User id of the one who did it.
    pub by: Option<u32>,
}

/// A release that is not tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Its name.
    pub release: Version,
    /// By which it is recognised.
    pub sha256: Digest,
    /// What it did.
    pub reason: String,
    /// When.
    pub at: Unix,
    /// The last that its worker wrote before it ended, at most 4 KiB, control characters escaped.
    pub output: String,
}

words! {
    /// How an upgrade ended.
    Ending {
        /// The new release serves for good.
        Committed = "committed",
        /// It served and failed; the old one serves again.
        RolledBack = "rolled_back",
        /// It failed before it served.
        Failed = "failed",
        /// Something else came in between: it says nothing about the release.
        Undecided = "undecided",
    }
}

/// How the last upgrade ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Last {
    /// In a word.
    pub result: Ending,
    /// What served when it began.
    pub from: Option<Version>,
    /// Where it went or should have gone.
    pub to: Version,
    /// When it ended.
    pub at: Unix,
    /// Milliseconds in which nothing was served: the cut's for a commit, the way back's after a failure
    /// in probation; `None` where there was no cut.
    pub gap_ms: Option<f64>,
    /// Why it ended so; `None` for a commit.
    pub reason: Option<String>,
}

/// The feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feed {
    /// Which releases it follows.
    pub channel: String,
    /// Where it is looked for, in order.
    pub urls: Vec<String>,
    /// The last look that went through.
    pub checked_at: Option<Unix>,
    /// Why the last look did not go through.
    pub error: Option<String>,
    /// What this machine does not have of the sandbox that files are fetched in, with what a fetcher gone bad could
    /// do for want of it; left out where nothing is wanting.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sandbox_lacks: Vec<String>,
}

/// What the system's packages declare, by the last look at their folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packages {
    /// Where they put workers.
    pub folder: String,
    /// Releases that are declared.
    pub declared: Vec<Version>,
    /// What is not believed.
    pub refused: Vec<Refused>,
}

/// A declaration, or the whole folder, is not believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The declaration, or the folder.
    pub file: String,
    /// What is wrong with which file, and what to do.
    pub why: String,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// Since.
    pub at: Unix,
    /// What is wrong, what still works, what to do.
    pub text: String,
}

//! One entry per thing that happened: a line of `history.jsonl` and of the reply to `history`.

use bumpless_shared::digest::Digest;
use bumpless_shared::release::Release;
use serde::{Deserialize, Serialize};

use crate::Unix;
use crate::schema::Schema;
use crate::word::words;

words! {
    /// What happened.
    Event {
        /// The supervisor started.
        SupervisorStarted = "supervisor_started",
        /// The supervisor was told to stop, and stopped its workers.
        SupervisorStopped = "supervisor_stopped",
        /// A worker with authority was started outside of an upgrade.
        WorkerStarted = "worker_started",
        /// A worker that should have lived ended.
        WorkerDied = "worker_died",
        /// A worker was taken back by a supervisor that started after it.
        WorkerTakenBack = "worker_taken_back",
        /// A release was fetched, verified and put into its place.
        Installed = "installed",
        /// An upgrade began.
        UpgradeStarted = "upgrade_started",
        /// Authority went to another worker.
        Cut = "cut",
        /// The first two hand-overs of a rehearsal are done, and nothing bumped.
        Rehearsed = "rehearsed",
        /// It was good.
        Committed = "committed",
        /// It failed after the cut.
        RolledBack = "rolled_back",
        /// It failed before the cut.
        Failed = "failed",
        /// It ended without a verdict.
        Undecided = "undecided",
        /// The release is not tried again.
        Quarantined = "quarantined",
        /// An operator held upgrades.
        Held = "held",
        /// An operator let them go on.
        Unheld = "unheld",
        /// Root accepted media that had expired, for one upgrade.
        StaleAccepted = "stale_accepted",
        /// Root had everything forgotten that was verified, and trust begins anew with another root.
        TrustReset = "trust_reset",
        /// The feed was refused or could not be read, for the first time since it was well.
        FeedFailed = "feed_failed",
        /// The feed is well again.
        FeedWell = "feed_well",
        /// Something is wrong that a person should know of.
        Alarm = "alarm",
    }
}

words! {
    /// On whose word a release runs here.
    Source {
        /// The publisher's: a signed index of the feed.
        Feed = "feed",
        /// The machine's administrator's: a package of the system.
        Package = "package",
    }
}

/// The signed index that an upgrade was decided on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Its version.
    pub version: u64,
    /// Of its bytes, 64 hexadecimal digits.
    pub sha256: Digest,
    /// The public keys that had signed it: second lines of minisign `.pub` files.
    pub keys: Vec<String>,
}

/// One entry. What does not apply is `None` and left out of the line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// 1.
    pub schema: Schema,
    /// When.
    pub at: Unix,
    /// What.
    pub event: Event,
    /// User id of the operator who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<u32>,
    /// The release before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Release>,
    /// The release that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Release>,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Milliseconds in which nothing was served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap_ms: Option<f64>,
    /// What an upgrade was decided on: with its begin and with its end. For a way back, what the release before
    /// had been decided on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Index>,
    /// On whose word the release of an upgrade runs here, where `index` may stand, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
}

impl Entry {
    /// An entry that says no more than when and what.
    pub fn new(at: Unix, event: Event) -> Entry {
        let (actor, from, to, reason, gap_ms) = (None, None, None, None, None);
        let (index, source) = (None, None);
        Entry { schema: Schema, at, event, actor, from, to, reason, gap_ms, index, source }
    }
}

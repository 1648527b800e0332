//! What an operator can set. Every value has a default; a file that sets nothing is a good file.
//!
//! ```text
//!   config.toml, then config.d/*.toml in the order of their names
//!     ▶ each parsed strictly on its own     an unknown key, a wrong value: file, line, what is allowed
//!     ▶ merged, later files over earlier    tables key by key, lists whole
//!     ▶ checked                             values out of range or against each other: file, key, limits
//!     ▶ Config
//! ```
//!
//! Anything wrong is an error that names the file: a key that is misspelt and silently ignored would
//! be a setting that somebody relies on and nobody follows. A file in `config.d` that does not end in
//! `.toml` is an error too. `install/bumpless.toml` shows every key with its default.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bumpless_shared::control::{Durability, Timing};
use bumpless_shared::digest::Digest;
use bumpless_trust::Pin;
use bumpless_trust::document::{Channel, Group};
use serde::Deserialize;

mod check;
mod load;
mod units;
mod window;

pub use load::ConfigError;

use units::{bytes, durability, duration, durations, proxy};
use window::windows;

use crate::feed::proxy::Address;
use crate::windows::Windows;

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

const MIB: u64 = 1024 * 1024;

/// All of it, checked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What has to survive: records, releases, and `state/`, which belongs to the workers.
    pub state_dir: PathBuf,
    /// Sockets; empty after a boot.
    pub run_dir: PathBuf,
    /// Addresses that the node is reached on. Port 0 is resolved once and kept.
    pub listen: Vec<SocketAddr>,
    /// What a start does where a revoked release is all there is.
    pub revoked: Revoked,
    /// Where releases come from.
    pub feed: Feed,
    /// How they are fetched.
    pub fetch: Fetch,
    /// Workers that the system's packages brought.
    pub packages: Packages,
    /// Which of them come to this machine, and when.
    pub rollout: Rollout,
    /// What is asked of a worker.
    pub worker: Worker,
    /// How an upgrade goes.
    pub upgrade: Upgrade,
}

/// What a start does where a revoked release is all there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Revoked {
    /// It runs, with an alarm: for a node that others rely on, serving goes first; and only what runs can
    /// hand its state to a release that may.
    Run,
    /// Nothing runs, until the publisher allows it again or this is changed.
    Stop,
}

/// Where releases come from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Feed {
    /// Base addresses (`https://…`) or folders (an absolute path), tried in order. Empty: no feed, and
    /// nothing is upgraded but by the system's packages.
    pub urls: Vec<String>,
    /// The first root of trust, a file; later roots are reached from it. One of `root`, `root_sha256` and
    /// `network` is needed until a root is kept.
    pub root: Option<PathBuf>,
    /// The SHA-256 of the first root on the feed, instead of a file.
    pub root_sha256: Option<Digest>,
    /// The network whose root came with the system's packages, instead of a file.
    pub network: Option<Digest>,
    /// Which of the feed's channels to follow.
    pub channel: Channel,
    /// Time between two looks, at the system's packages, too.
    #[serde(deserialize_with = "duration")]
    pub check_every: Duration,
    /// Each look is later by a part of this, another one for each machine and each look, so that a thousand
    /// nodes do not come at once. The first look after a start is not later by more than ten seconds.
    #[serde(deserialize_with = "duration")]
    pub jitter: Duration,
    /// Time to the next look after one that did not go through.
    #[serde(deserialize_with = "duration")]
    pub retry_after: Duration,
    /// Plain HTTP to a loopback address is allowed: for a feed on the same machine.
    pub allow_http_loopback: bool,
    /// Certificates (PEM) of who may vouch for the feed's servers, instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// How releases are fetched.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fetch {
    /// The fetcher; `None`: `bumpless-fetch` beside the supervisor's own executable.
    pub program: Option<PathBuf>,
    /// The user that it runs as, by name; `None`: `bumpless-fetch` if the supervisor is root and there is
    /// such a user, and the supervisor's own otherwise.
    pub user: Option<String>,
    /// For the connection to stand.
    #[serde(deserialize_with = "duration")]
    pub connect_timeout: Duration,
    /// For one file of metadata; an artifact has `upgrade.fetch_deadline`.
    #[serde(deserialize_with = "duration")]
    pub metadata_timeout: Duration,
    /// Bytes per second below which a transfer is given up.
    #[serde(deserialize_with = "bytes")]
    pub min_rate: u64,
    /// What the feed is reached through; `None`: nothing, whatever the environment says.
    #[serde(deserialize_with = "proxy")]
    pub proxy: Option<Proxy>,
}

/// Workers that the system's packages brought.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Packages {
    /// Where they lie, each with its declaration beside it. What others than root could have written there is
    /// refused. There need not be such a folder.
    pub folder: PathBuf,
}

/// Which proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// The one that the supervisor's environment names, if it does.
    Environment,
    /// This one.
    Address(Address),
}

/// Which releases come to this machine, and when. By default: each, in the turn that its stages give to the
/// machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rollout {
    /// The group of machines that this one belongs to: a publisher can let a release out to certain groups
    /// first, or to them alone. Absent: none.
    pub group: Option<Group>,
    /// The first parts of the versions that may come here, such as `1.8`; it binds the operator, too.
    /// Absent: any version may.
    pub pin: Option<Pin>,
}

/// What is asked of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Worker {
    /// The user that it runs as, by name or by number; `None`: the supervisor's own. Looked up at the start, and
    /// in force from the next start at which no worker lives.
    pub user: Option<String>,
    /// What an acknowledgement waits for: `"fsync"` survives a power loss, `"os"` only a kill.
    #[serde(deserialize_with = "durability")]
    pub durability: Durability,
    /// Resident bytes above which a new worker in probation is bad. An old one only gets an alarm.
    #[serde(deserialize_with = "bytes")]
    pub memory_max: u64,
    /// Between two heartbeats.
    #[serde(deserialize_with = "duration")]
    pub heartbeat: Duration,
    /// So many missed in a row mean that a worker hangs.
    pub missed: u32,
    /// Between two canary requests in probation.
    #[serde(deserialize_with = "duration")]
    pub canary: Duration,
    /// How long a relayed request or a canary request may take before the new worker is suspected.
    #[serde(deserialize_with = "duration")]
    pub relay: Duration,
}

/// Who begins an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The supervisor, as soon as the feed offers a release that may run here, or a package declares one.
    Auto,
    /// An operator, with `bumpless upgrade`.
    Manual,
}

/// How an upgrade goes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Upgrade {
    /// Who begins.
    pub mode: Mode,
    /// When the supervisor may begin by itself; none: at any time.
    #[serde(deserialize_with = "windows")]
    pub windows: Windows,
    /// How long the new worker serves under watch, from the cut to the verdict.
    #[serde(deserialize_with = "duration")]
    pub probation: Duration,
    /// Whether an upgrade is rehearsed: cut over, handed back and cut over again before the real probation.
    pub rehearse: bool,
    /// How long the new worker serves in a rehearsal before it hands back.
    #[serde(deserialize_with = "duration")]
    pub rehearsal: Duration,
    /// Longest that nothing may be served at each of a rehearsal's three hand-overs.
    #[serde(deserialize_with = "duration")]
    pub rehearsal_gap: Duration,
    /// So many tries that were found bad, then a release is quarantined.
    pub attempts: u32,
    /// Time to the next try, after the first, second, third … bad one; the last one repeats.
    #[serde(deserialize_with = "durations")]
    pub retry_after: Vec<Duration>,
    /// For the whole artifact to be fetched.
    #[serde(deserialize_with = "duration")]
    pub fetch_deadline: Duration,
    /// For it to be unpacked, hashed and put into its place.
    #[serde(deserialize_with = "duration")]
    pub install_deadline: Duration,
    /// For a worker to be ready, from its start. A cold start replays logbooks in this time.
    #[serde(deserialize_with = "duration")]
    pub start_deadline: Duration,
    /// A sync that makes no progress for so long is given up. A sync that does may take its time.
    #[serde(deserialize_with = "duration")]
    pub sync_stall: Duration,
    /// From level to the order to cut: state hashes, the new term's logbook.
    #[serde(deserialize_with = "duration")]
    pub level_deadline: Duration,
    /// How long the cut waits for a moment without a request under way; then it is made anyway.
    #[serde(deserialize_with = "duration")]
    pub window: Duration,
    /// From the end of the window to the new worker's `Took`.
    #[serde(deserialize_with = "duration")]
    pub cut_deadline: Duration,
    /// For the old worker to hold again after the new one's death: it reads a logbook to its end.
    #[serde(deserialize_with = "duration")]
    pub resume_deadline: Duration,
    /// For each step of a commit that hashes or makes durable.
    #[serde(deserialize_with = "duration")]
    pub persist_deadline: Duration,
    /// For the old worker's `Retired`; then it is killed.
    #[serde(deserialize_with = "duration")]
    pub retire_deadline: Duration,
    /// For the old worker's connections to move over after a commit; then they are closed.
    #[serde(deserialize_with = "duration")]
    pub drain: Duration,
    /// The requests to move are spread over so long, so that clients do not come all at once.
    #[serde(deserialize_with = "duration")]
    pub goaway_stagger: Duration,
    /// A killed process that is still there after so long raises an alarm. It is waited for without
    /// end: nothing else tells that it will not write any more.
    #[serde(deserialize_with = "duration")]
    pub kill_alarm: Duration,
    /// For a worker to end in good order when the supervisor is stopped; then it is killed.
    #[serde(deserialize_with = "duration")]
    pub stop_deadline: Duration,
    /// Disk space set aside for the new term's logbook before the cut.
    #[serde(deserialize_with = "bytes")]
    pub reserve: u64,
    /// Of a thousand requests in probation, so many more failed than before the cut are bad.
    pub max_error_permille: u32,
    /// A 99th percentile of so many times that before the cut is bad.
    pub p99_factor: u32,
    /// A 99th percentile below this is never bad, whatever it was before.
    #[serde(deserialize_with = "duration")]
    pub p99_floor: Duration,
    /// Error rate and percentile count only above so many requests.
    pub min_sample: u64,
    /// Records that the old worker may be behind in probation; beyond it the cut is reversed.
    pub max_lag: u64,
    /// Bytes of logbook in probation; beyond it the cut is reversed.
    #[serde(deserialize_with = "bytes")]
    pub max_logbook: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            state_dir: PathBuf::from("/var/lib/bumpless"),
            run_dir: PathBuf::from("/run/bumpless"),
            listen: vec![SocketAddr::from(([0, 0, 0, 0], 4433))],
            revoked: Revoked::Run,
            feed: Feed::default(),
            fetch: Fetch::default(),
            packages: Packages::default(),
            rollout: Rollout::default(),
            worker: Worker::default(),
            upgrade: Upgrade::default(),
        }
    }
}

impl Default for Feed {
    fn default() -> Feed {
        Feed {
            urls: Vec::new(),
            root: None,
            root_sha256: None,
            network: None,
            channel: Channel::default(),
            // An hour: a fix is everywhere within a morning, and a feed of a thousand nodes is idle.
            check_every: secs(3600),
            jitter: secs(600),
            retry_after: secs(60),
            allow_http_loopback: false,
            ca_file: None,
        }
    }
}

impl Default for Fetch {
    fn default() -> Fetch {
        Fetch {
            program: None,
            user: None,
            connect_timeout: secs(10),
            // A quarter of a megabyte at the most, at the minimum rate, with time to connect.
            metadata_timeout: secs(60),
            min_rate: 8 * 1024,
            proxy: None,
        }
    }
}

impl Default for Packages {
    fn default() -> Packages {
        Packages { folder: PathBuf::from("/usr/lib/bumpless/workers") }
    }
}

impl Default for Worker {
    fn default() -> Worker {
        Worker {
            user: None,
            durability: Durability::Fsync,
            // Four times the peak that was measured while a million records are streamed (118 MB).
            memory_max: 512 * MIB,
            heartbeat: secs(1),
            // Three seconds: a busy disk holds a process up for one, hardly for three.
            missed: 3,
            canary: ms(500),
            // Far above any answer of a healthy node, and still time for a client's retry.
            relay: secs(5),
        }
    }
}

impl Default for Upgrade {
    fn default() -> Upgrade {
        Upgrade {
            mode: Mode::Auto,
            // Clients notice nothing of an upgrade, and a fix should not wait.
            windows: Windows::default(),
            // Sixty heartbeats and a hundred and twenty canary requests.
            probation: secs(60),
            rehearse: false,
            // Five heartbeats and ten canary requests; and what dies of its first requests has died.
            rehearsal: secs(5),
            // A cut takes about a millisecond, the way back one sync of the database more. A tenth of a
            // second is what a busy disk does to that, and less than a client notices.
            rehearsal_gap: ms(100),
            attempts: 3,
            retry_after: vec![secs(60), secs(600), secs(3600)],
            // 200 MB over a line of 1 Mbit/s.
            fetch_deadline: secs(1800),
            // 200 MB at 1 MB per second: a slow machine on a busy disk.
            install_deadline: secs(300),
            // Opening after a kill took 0.4 s at the worst; the rest is for logbooks and slow disks.
            start_deadline: secs(60),
            // A streaming disk says something several times a second.
            sync_stall: secs(60),
            // State hashes read everything that is stored; a moment that never comes backs out.
            level_deadline: secs(600),
            // Most requests end within milliseconds; a steady load never reaches zero.
            window: ms(500),
            // The cut itself takes about a millisecond; this is for a machine that stalls.
            cut_deadline: secs(5),
            resume_deadline: secs(60),
            persist_deadline: secs(600),
            retire_deadline: secs(5),
            drain: secs(30),
            goaway_stagger: secs(2),
            kill_alarm: secs(5),
            // With `kill_alarm` well below the 90 s after which systemd kills.
            stop_deadline: secs(20),
            reserve: 64 * MIB,
            max_error_permille: 10,
            p99_factor: 4,
            // What a scheduler on a busy machine does by itself.
            p99_floor: ms(50),
            min_sample: 200,
            max_lag: 1_000_000,
            max_logbook: 1024 * MIB,
        }
    }
}

impl Config {
    /// What a worker is told about intervals and deadlines.
    pub fn timing(&self) -> Timing {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Timing {
            heartbeat_ms: millis(self.worker.heartbeat),
            canary_ms: millis(self.worker.canary),
            relay_ms: millis(self.worker.relay),
        }
    }
}

#[cfg(test)]
mod tests;

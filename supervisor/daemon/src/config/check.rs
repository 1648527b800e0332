//! What a parser cannot see: limits of values, and values that have to fit each other.

use std::fmt::Debug;
use std::time::Duration;

use super::{Config, MIB, ms, secs};
use crate::windows::MAX_LENGTH;

/// A value that is not allowed: which, and what is.
pub(super) struct Wrong {
    pub(super) key: &'static str,
    pub(super) text: String,
}

fn between<T: PartialOrd + Debug>(key: &'static str, value: &T, low: T, high: T) -> Result<(), Wrong> {
    if *value >= low && *value <= high {
        return Ok(());
    }
    Err(Wrong { key, text: format!("{value:?} is not allowed; allowed is {low:?} to {high:?}") })
}

fn require(key: &'static str, holds: bool, text: impl Into<String>) -> Result<(), Wrong> {
    if holds { Ok(()) } else { Err(Wrong { key, text: text.into() }) }
}

/// What a stop may wait for in all; systemd kills after 90 s.
const STOP_WITHIN: Duration = secs(80);

const DAY: Duration = secs(86_400);

/// The first value that is not allowed.
pub(super) fn check(config: &Config) -> Result<(), Wrong> {
    // A channel, a group and a pin that were parsed are good.
    let Config { state_dir, run_dir, listen, revoked: _, feed, fetch, packages, rollout: _, worker, upgrade } =
        config;
    require("state_dir", state_dir.is_absolute(), "must be an absolute path")?;
    require("run_dir", run_dir.is_absolute(), "must be an absolute path")?;
    // The path of a Unix socket has at most 107 bytes; the longest name in there is `control.sock`.
    require(
        "run_dir",
        run_dir.as_os_str().len() <= 90,
        "must have at most 90 bytes: socket names are short",
    )?;
    require("listen", !listen.is_empty(), "needs at least one address, such as \"0.0.0.0:4433\"")?;
    // Three sockets and LISTEN for each travel in one message of at most 64 descriptors.
    require("listen", listen.len() <= 8, "takes at most 8 addresses")?;

    let roots = [
        ("feed.root", feed.root.is_some()),
        ("feed.root_sha256", feed.root_sha256.is_some()),
        ("feed.network", feed.network.is_some()),
    ];
    let set: Vec<&'static str> = roots.iter().filter(|(_, set)| *set).map(|(key, _)| *key).collect();
    if let [first, .., last] = set[..] {
        let text = format!(
            "each says where trust begins, so only one of feed.root, feed.root_sha256 and feed.network may be set; \
             {first} is set, too"
        );
        return Err(Wrong { key: last, text });
    }
    for url in &feed.urls {
        let http = url.starts_with("http://");
        require(
            "feed.urls",
            http || url.starts_with("https://") || url.starts_with('/'),
            format!("{url:?} is not allowed; allowed is https://… or a folder's absolute path"),
        )?;
        require(
            "feed.urls",
            !http || feed.allow_http_loopback,
            format!(
                "{url:?} is plain HTTP; write https://, or for this machine alone set feed.allow_http_loopback = true"
            ),
        )?;
    }
    between("feed.check_every", &feed.check_every, secs(1), 30 * DAY)?;
    between("feed.jitter", &feed.jitter, ms(0), DAY)?;
    between("feed.retry_after", &feed.retry_after, secs(1), DAY)?;
    between("fetch.connect_timeout", &fetch.connect_timeout, ms(100), secs(300))?;
    between("fetch.metadata_timeout", &fetch.metadata_timeout, ms(100), secs(3600))?;
    require("packages.folder", packages.folder.is_absolute(), "must be an absolute path")?;

    between("worker.memory_max", &worker.memory_max, 16 * MIB, u64::MAX)?;
    between("worker.heartbeat", &worker.heartbeat, ms(50), secs(60))?;
    between("worker.missed", &worker.missed, 2, 100)?;
    between("worker.canary", &worker.canary, ms(20), secs(60))?;
    between("worker.relay", &worker.relay, ms(100), secs(600))?;

    require("upgrade.windows", upgrade.windows.0.len() <= 32, "takes at most 32 windows")?;
    for window in &upgrade.windows.0 {
        between("upgrade.windows", &window.length, secs(60), MAX_LENGTH)?;
    }
    between("upgrade.probation", &upgrade.probation, ms(100), 7 * DAY)?;
    between("upgrade.rehearsal", &upgrade.rehearsal, ms(100), DAY)?;
    between("upgrade.rehearsal_gap", &upgrade.rehearsal_gap, ms(0), secs(60))?;
    between("upgrade.attempts", &upgrade.attempts, 1, 100)?;
    require("upgrade.retry_after", !upgrade.retry_after.is_empty(), "needs at least one duration")?;
    for after in &upgrade.retry_after {
        between("upgrade.retry_after", after, ms(100), 30 * DAY)?;
    }
    for (key, deadline) in [
        ("upgrade.fetch_deadline", upgrade.fetch_deadline),
        ("upgrade.install_deadline", upgrade.install_deadline),
        ("upgrade.start_deadline", upgrade.start_deadline),
        ("upgrade.sync_stall", upgrade.sync_stall),
        ("upgrade.level_deadline", upgrade.level_deadline),
        ("upgrade.cut_deadline", upgrade.cut_deadline),
        ("upgrade.resume_deadline", upgrade.resume_deadline),
        ("upgrade.persist_deadline", upgrade.persist_deadline),
        ("upgrade.retire_deadline", upgrade.retire_deadline),
        ("upgrade.drain", upgrade.drain),
        ("upgrade.kill_alarm", upgrade.kill_alarm),
    ] {
        between(key, &deadline, ms(100), DAY)?;
    }
    between("upgrade.window", &upgrade.window, ms(0), secs(600))?;
    require(
        "upgrade.goaway_stagger",
        upgrade.goaway_stagger < upgrade.drain,
        format!(
            "must be shorter than upgrade.drain ({:?}), or connections are closed before they are asked to move",
            upgrade.drain
        ),
    )?;
    between("upgrade.stop_deadline", &upgrade.stop_deadline, ms(100), STOP_WITHIN)?;
    require(
        "upgrade.stop_deadline",
        upgrade.stop_deadline + upgrade.kill_alarm <= STOP_WITHIN,
        format!("and upgrade.kill_alarm together must be at most {STOP_WITHIN:?}: systemd kills after 90s"),
    )?;
    between("upgrade.reserve", &upgrade.reserve, MIB, 1024 * 1024 * MIB)?;
    between("upgrade.max_error_permille", &upgrade.max_error_permille, 0, 1000)?;
    between("upgrade.p99_factor", &upgrade.p99_factor, 1, 1000)?;
    between("upgrade.p99_floor", &upgrade.p99_floor, ms(0), secs(600))?;
    between("upgrade.max_lag", &upgrade.max_lag, 1000, u64::MAX)?;
    require(
        "upgrade.max_logbook",
        upgrade.max_logbook > upgrade.reserve,
        format!("must be larger than upgrade.reserve ({} bytes)", upgrade.reserve),
    )
}

//! The sequence's settings: every deadline and limit from the configuration, and what the publisher forbids.

use std::collections::BTreeMap;
use std::time::Duration;

use bumpless_shared::digest::Digest;
use bumpless_shared::release::Release;

use super::judge::Limits;
use crate::config::Revoked;

/// How long each step may take, what probation allows, and what must not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Fetching one release.
    pub fetch: Duration,
    /// Unpacking, hashing and installing it.
    pub install: Duration,
    /// From the start of a process to `Ready`, and from `Go` to `Going`.
    pub start: Duration,
    /// Syncing without progress.
    pub stall: Duration,
    /// From level to the order to cut, both included: hashing and preparing.
    pub level: Duration,
    /// How long the holder waits for a moment without requests.
    pub window: Duration,
    /// From the end of that window to `Took`.
    pub cut: Duration,
    /// Probation.
    pub probation: Duration,
    /// How long the first cut of a rehearsal is watched before it is taken back.
    pub rehearsal: Duration,
    /// A hand-over of a rehearsal in which nothing was served for longer is a bump.
    pub rehearsal_gap: Duration,
    /// One step of a commit or of a way back that makes a database durable.
    pub persist: Duration,
    /// The old worker's answer to `Retire`, and its getting ready for a reverse cut.
    pub retire: Duration,
    /// From the order to resume to `Resumed`: a logbook is read to its end.
    pub resume: Duration,
    /// Draining.
    pub drain: Duration,
    /// Over which GOAWAYs are spread.
    pub stagger: Duration,
    /// After which an unconfirmed death raises an alarm, and then again.
    pub kill_alarm: Duration,
    /// A real stop, all of it.
    pub stop: Duration,
    /// Disk reserved for the logbook of T+1, bytes.
    pub reserve: u64,
    /// What probation allows.
    pub limits: Limits,
    /// What must not start, nor be committed. Whenever it changes, the sequence is asked to reconsider
    /// ([`Ask::Reconsider`](super::Ask::Reconsider)).
    pub forbidden: Forbidden,
    /// Whether what is committed starts all the same.
    pub revoked: Revoked,
}

/// Releases that must not run, each with the reason, as in "1.2.0 is revoked by the publisher". Of those that
/// could be started here; it says nothing about others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forbidden(BTreeMap<Digest, String>);

impl Forbidden {
    /// Why this one must not run, if so.
    pub fn why(&self, release: &Release) -> Option<&str> {
        self.0.get(&release.sha256).map(String::as_str)
    }
}

impl FromIterator<(Digest, String)> for Forbidden {
    fn from_iter<T: IntoIterator<Item = (Digest, String)>>(all: T) -> Forbidden {
        Forbidden(all.into_iter().collect())
    }
}

impl Rules {
    /// Why what is committed does not start, if so.
    pub fn keeps_down(&self, committed: &Release) -> Option<&str> {
        match self.revoked {
            Revoked::Run => None,
            Revoked::Stop => self.forbidden.why(committed),
        }
    }

    /// How long to wait after the given number of failed cold starts in a row.
    pub fn restart_after(&self, tries: u32) -> Duration {
        match tries {
            0 => Duration::ZERO,
            n => Duration::from_secs(1 << (n - 1).min(6)),
        }
    }
}

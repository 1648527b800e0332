//! What operators ask for, and what they are told.

use std::time::{Duration, Instant};

use bumpless_control::history::{Entry, Event as Happening, Index, Source};
use bumpless_control::reply::{Answer, Checked, Listed, Move, Outcome, Progress};
use bumpless_control::request::Request;
use bumpless_control::schema::Schema;
use bumpless_control::status::{Feed as FeedShown, Held, Next as Coming, Status, Supervisor};
use bumpless_control::{Unix, gap_ms};
use bumpless_shared::release::{Release, Version};
use bumpless_trust::{Choice, Evidence, Expiry, Origin, Request as Wanted};

use super::Driver;
use super::dry_run::Foreseen;
use super::packages::source;
use super::rollout::Waits;
use super::trust::FromFolder;
use crate::control_socket::{Asked, Replies};
use crate::effects::unix_now;
use crate::feed;
use crate::records::hold::Hold;
use crate::releases::Record;
use crate::status;
use crate::upgrade::{Ask, Attempt, Event, Moment, Rehearsal, State, Verdict};

/// Who waits for the feed's answer.
#[derive(Debug)]
pub(super) enum Pending {
    /// The interval.
    Automatic,
    /// `bumpless check`.
    Check(Replies),
    /// `bumpless upgrade [VERSION]`.
    Upgrade { version: Option<Version>, wait: bool, rehearse: bool, uid: u32, replies: Replies },
}

/// Who waits for the end of the upgrade under way.
#[derive(Debug)]
pub(super) struct Waiter {
    replies: Replies,
    /// It asked for a way back, not for an upgrade.
    back: bool,
}

impl Driver {
    pub(super) fn asked(&mut self, asked: Asked) {
        let Asked { request, uid, replies } = asked;
        match request {
            Request::Status => {
                let status = Box::new(self.status());
                replies.finish(Outcome::Done { answer: Answer::Status(status) });
            }
            Request::History { limit } => match self.ledger.newest(limit as usize) {
                Ok(entries) => replies.finish(Outcome::Done { answer: Answer::History(entries) }),
                Err(error) => replies.finish(Outcome::Failed { reason: error.to_string() }),
            },
            Request::Versions => {
                let versions = self.versions();
                replies.finish(Outcome::Done { answer: Answer::Versions(versions) });
            }
            Request::Check => self.check(Pending::Check(replies)),
            Request::Upgrade { version, wait, rehearse } => {
                self.ask_upgrade(Pending::Upgrade { version, wait, rehearse, uid, replies });
            }
            Request::DryRun { version, folder: None } => replies.finish(self.dry_run(version)),
            Request::DryRun { version, folder: Some(folder) } => {
                self.foresee(Foreseen { folder, version, replies })
            }
            Request::UpgradeFrom { folder, version, wait, rehearse, accept_stale } => {
                self.ask_folder(FromFolder { folder, version, wait, rehearse, accept_stale, uid, replies });
            }
            Request::Trust => self.show_trust(replies),
            Request::TrustReset { root } => self.reset_trust(&root, uid, replies),
            Request::Rollback { wait } => self.ask_rollback(wait, uid, replies),
            Request::Hold { reason } => {
                let hold = Hold { reason: reason.clone(), at: unix_now(), by: Some(uid) };
                match self.ledger.set_hold(hold) {
                    Ok(()) => replies.finish(Outcome::Done { answer: Answer::Held { reason } }),
                    Err(error) => replies.finish(Outcome::Failed { reason: error.to_string() }),
                }
            }
            Request::Unhold => match self.ledger.clear_hold(uid, unix_now()) {
                Ok(true) => {
                    self.next_check = Instant::now();
                    replies.finish(Outcome::Done { answer: Answer::Unheld });
                }
                Ok(false) => replies.finish(Outcome::NothingToDo { reason: "the node is not held".into() }),
                Err(error) => replies.finish(Outcome::Failed { reason: error.to_string() }),
            },
        }
    }

    /// There is no feed to ask, and nothing is declared.
    pub(super) fn refuse_without_feed(&mut self, pending: Pending) {
        let reason = match &self.feed_state.error {
            Some(error) if !self.edge.config.feed.urls.is_empty() => error.clone(),
            Some(_) | None => {
                let folder = self.packages.folder().display();
                format!("no feed is configured (feed.urls), and no package declares a release in {folder}")
            }
        };
        match pending {
            Pending::Automatic => {}
            Pending::Check(replies) | Pending::Upgrade { replies, .. } => {
                replies.finish(Outcome::Failed { reason });
            }
        }
    }

    fn ask_upgrade(&mut self, pending: Pending) {
        match (self.busy().or(self.held()), pending) {
            (None, pending) => self.check(pending),
            (Some(_), Pending::Automatic) => {}
            (Some(reason), Pending::Check(replies) | Pending::Upgrade { replies, .. }) => {
                replies.finish(Outcome::Refused { reason });
            }
        }
    }

    /// Why no upgrade may begin until somebody says so.
    pub(super) fn held(&self) -> Option<String> {
        let hold = self.ledger.hold()?;
        Some(format!("the node is held: {}. `bumpless unhold` frees it", hold.reason))
    }

    /// Why no upgrade can begin now.
    pub(super) fn busy(&self) -> Option<String> {
        if self.may_begin() {
            return None;
        }
        Some(match (status::phase(&self.state), self.state.attempt()) {
            (Some(phase), Some(attempt)) => {
                format!(
                    "an upgrade to {} is under way ({}); one at a time",
                    attempt.to.version,
                    phase.as_str()
                )
            }
            (Some(_) | None, Some(_) | None) => match status::nothing_serves(&self.state) {
                Some(why) => format!("not now: {why}"),
                None => "not now: the supervisor is stopping".into(),
            },
        })
    }

    /// The feed has been asked; decides for one who waited for it.
    pub(super) fn decide(&mut self, pending: Pending) {
        let (wanted, uid) = match &pending {
            Pending::Automatic | Pending::Check(_) => (Wanted::Newest, None),
            Pending::Upgrade { version, uid, .. } => {
                (version.clone().map_or(Wanted::Newest, Wanted::Version), Some(*uid))
            }
        };
        let now = unix_now();
        let found = match &pending {
            Pending::Automatic | Pending::Check(_) => self.newest(now),
            Pending::Upgrade { .. } => self.choose(&wanted),
        };
        // What a package brings needs no feed.
        let packaged = found.as_ref().is_ok_and(|choice| source(choice) == Source::Package);
        let missed = self.feed_error().filter(|_| !packaged).cloned();
        match pending {
            Pending::Automatic => {
                let Ok(choice) = found else { return };
                let release = choice.release();
                if !self.may_begin() {
                    self.found_meanwhile = true;
                    return;
                }
                if self.automatic(&choice, now).is_err() {
                    return;
                }
                if let Some(wait) = self.wait_for(&release) {
                    self.next_check = self.next_check.min(Instant::now() + wait);
                    return;
                }
                self.begin(choice, None, false);
            }
            Pending::Check(replies) => replies.finish(match (found, missed) {
                (_, Some(reason)) => Outcome::Failed { reason },
                (Ok(choice), None) => {
                    let version = choice.release().version;
                    let mut text = match self.automatic(&choice, now) {
                        Ok(()) => {
                            self.next_check = Instant::now();
                            format!("{version} is there and will be installed")
                        }
                        Err(Waits { why, .. }) => format!("{version} is there; {why}"),
                    };
                    if let Some(error) = self.feed_error() {
                        text += &format!(". The look at the feed failed: {error}");
                    }
                    Outcome::Done { answer: Answer::Checked(Checked { found: Some(version), text }) }
                }
                (Err(why), None) => {
                    Outcome::Done { answer: Answer::Checked(Checked { found: None, text: why }) }
                }
            }),
            Pending::Upgrade { wait, rehearse, replies, .. } => {
                if let Some(reason) = self.busy() {
                    return replies.finish(Outcome::Refused { reason });
                }
                if let Some(reason) = missed {
                    return replies.finish(Outcome::Failed { reason });
                }
                match found {
                    Err(why) if wanted == Wanted::Newest || self.runs(&wanted) => {
                        replies.finish(Outcome::NothingToDo { reason: why });
                    }
                    Err(reason) => replies.finish(Outcome::Refused { reason }),
                    Ok(choice) => {
                        let started = self.moving(&choice.release());
                        self.wait_or_answer(replies, wait, started, false);
                        self.begin(choice, uid, rehearse);
                    }
                }
            }
        }
    }

    pub(super) fn runs(&self, wanted: &Wanted) -> bool {
        match (wanted, &self.edge.committed) {
            (Wanted::Version(version), Some(committed)) => *version == committed.release.version,
            (Wanted::Version(_), None) | (Wanted::Newest | Wanted::Urgent, _) => false,
        }
    }

    pub(super) fn wait_or_answer(&mut self, replies: Replies, wait: bool, started: Move, back: bool) {
        if wait {
            self.waiters.push(Waiter { replies, back });
        } else {
            replies.finish(Outcome::Done { answer: Answer::Started(started) });
        }
    }

    pub(super) fn moving(&self, to: &Release) -> Move {
        let from = self.edge.committed.as_ref().map(|committed| committed.release.version.clone());
        Move { from, to: to.version.clone(), gap_ms: None }
    }

    /// What is begun by itself: the newest, or where that one waits for a window, the newest that does not.
    fn newest(&self, now: Unix) -> Result<Choice, String> {
        let newest = self.choose(&Wanted::Newest)?;
        let waits = self.automatic(&newest, now).is_err_and(|waits| waits.until.is_some());
        Ok(if waits { self.choose(&Wanted::Urgent).unwrap_or(newest) } else { newest })
    }

    /// The record of what is committed, if anything is. Without it nobody can tell what may follow: what runs
    /// goes on running, and nothing takes its place.
    pub(super) fn installed_now(&self) -> Result<Option<Record>, String> {
        let Some(committed) = &self.edge.committed else { return Ok(None) };
        let release = &committed.release;
        let why = match self.edge.releases.find(release) {
            Ok(Some(record)) => return Ok(Some(record)),
            Ok(None) => "it is gone".to_owned(),
            Err(error) => error.to_string(),
        };
        Err(format!(
            "the record of {}, which runs, cannot be read: {why}. It goes on running, and nothing can take its place \
             before releases/{}/release.json is restored",
            release.version,
            release.directory()
        ))
    }

    /// Rehearsed if that is asked for, or configured.
    pub(super) fn begin(&mut self, choice: Choice, by: Option<u32>, rehearse: bool) {
        let to = choice.release();
        let (source, index) = match choice.origin().clone() {
            Origin::Index(Evidence { version, sha256, keys }) => {
                (Source::Feed, Some(Index { version, sha256, keys }))
            }
            Origin::Package => (Source::Package, None),
        };
        let installed = matches!(self.edge.releases.find(&to), Ok(Some(_)));
        let from = self.edge.committed.as_ref().map(|committed| committed.release.clone());
        self.choice = Some(choice);
        let rehearsal =
            if rehearse || self.edge.config.upgrade.rehearse { Rehearsal::Cut } else { Rehearsal::Off };
        self.begin_attempt(Attempt { from, to, by, rehearsal }, installed, index, source);
    }

    fn begin_attempt(&mut self, attempt: Attempt, installed: bool, index: Option<Index>, source: Source) {
        self.last_words = None;
        let entry = Entry {
            actor: attempt.by,
            from: attempt.from.clone(),
            to: Some(attempt.to.clone()),
            index,
            source: Some(source),
            ..Entry::new(unix_now(), Happening::UpgradeStarted)
        };
        self.ledger.append(&entry);
        self.feed_in([Event::Asked(Ask::Upgrade { attempt, installed })].into());
    }

    fn ask_rollback(&mut self, wait: bool, uid: u32, replies: Replies) {
        if let State::Steady(_) = self.state {
            return self.go_back(wait, uid, replies);
        }
        let phase = status::phase(&self.state);
        match (phase, self.state.attempt().cloned()) {
            (Some(_), Some(attempt)) if self.state.is_ending() => {
                let reason =
                    format!("the upgrade to {} is ending; ask again when it has ended", attempt.to.version);
                replies.finish(Outcome::Refused { reason });
            }
            (Some(_), Some(attempt)) if attempt.from.is_some() => {
                let started = Move {
                    from: Some(attempt.to.version.clone()),
                    to: attempt.to.version.clone(),
                    gap_ms: None,
                };
                let started =
                    Move { to: attempt.from.map_or(started.to.clone(), |from| from.version), ..started };
                self.wait_or_answer(replies, wait, started, true);
                self.feed_in([Event::Asked(Ask::Rollback { uid })].into());
            }
            (Some(_) | None, Some(_) | None) => {
                let reason = status::nothing_serves(&self.state)
                    .unwrap_or_else(|| "nothing can be taken back now".into());
                replies.finish(Outcome::Refused { reason });
            }
        }
    }

    /// After the commit a way back is an upgrade to the release before, with everything that belongs to
    /// one.
    fn go_back(&mut self, wait: bool, uid: u32, replies: Replies) {
        let Some(running) = self.edge.committed.as_ref().map(|committed| committed.release.clone()) else {
            return replies.finish(Outcome::NothingToDo { reason: "nothing runs".into() });
        };
        let previous = match self.edge.releases.previous() {
            Ok(previous) => previous,
            Err(error) => {
                let reason = format!("the record of the release before cannot be read: {error}");
                return replies.finish(Outcome::Refused { reason });
            }
        };
        let Some(previous) = previous.filter(|previous| previous.release() != running) else {
            let reason = format!("{} is the only release that ever ran here", running.version);
            return replies.finish(Outcome::NothingToDo { reason });
        };
        if let Some(reason) = self.forbidden(&previous, &running) {
            return replies.finish(Outcome::Refused { reason });
        }
        self.ledger.lift(&previous.sha256);
        // What ran here before needs no rehearsal, and whoever goes back is in a hurry.
        let rehearsal = Rehearsal::Off;
        let attempt = Attempt { from: Some(running), to: previous.release(), by: Some(uid), rehearsal };
        let started = self.moving(&previous.release());
        self.wait_or_answer(replies, wait, started, true);
        self.going_back = Some(uid);
        self.begin_attempt(attempt, true, previous.index(), previous.source.into());
    }

    /// Why the release before must not run again.
    fn forbidden(&self, previous: &Record, running: &Release) -> Option<String> {
        if let Some(why) = self.bans.doubts((&previous.release(), Some(previous.counter))) {
            return Some(format!("{} {why}", previous.release));
        }
        let writes = match self.installed_now() {
            Ok(record) => record?.state,
            Err(why) => return Some(why),
        };
        (!previous.state.reads(&writes)).then(|| {
            format!(
                "{} reads state versions {}, {} writes {} to {}",
                previous.release, previous.state, running.version, writes.read_min, writes.write
            )
        })
    }

    /// Tells everybody who waits how far it is.
    pub(super) fn tell_waiters(&mut self) {
        let Some(progress) = self.progress_line() else { return };
        self.waiters.retain(|waiter| !waiter.replies.is_gone());
        for waiter in &self.waiters {
            waiter.replies.progress(progress.clone());
        }
    }

    fn progress_line(&self) -> Option<Progress> {
        let (phase, attempt) = (status::phase(&self.state)?, self.state.attempt()?);
        Some(Progress {
            phase,
            from: attempt.from.as_ref().map(|release| release.version.clone()),
            to: attempt.to.version.clone(),
            done: self.progress.map(|amount| amount.done),
            total: self.progress.and_then(|amount| amount.total),
            deadline: self.deadline(),
            text: status::text(&self.state),
            rehearsal: attempt.rehearsal.number(),
            rate: self.progress.and_then(|amount| amount.rate),
            left: self.progress.and_then(|amount| amount.left),
        })
    }

    /// The end of an upgrade, for everybody who waits.
    pub(super) fn finish_waiters(
        &mut self,
        attempt: &Attempt,
        verdict: &Verdict,
        gap_us: Option<u64>,
        went_back: bool,
    ) {
        let (from, to) =
            (attempt.from.as_ref().map(|release| release.version.clone()), attempt.to.version.clone());
        let gap_ms = gap_us.map(gap_ms);
        for Waiter { replies, back } in std::mem::take(&mut self.waiters) {
            let outcome = match (verdict, back) {
                (Verdict::Good, _) => {
                    let moved = Move { from: from.clone(), to: to.clone(), gap_ms };
                    let answer = if went_back { Answer::WentBack(moved) } else { Answer::Upgraded(moved) };
                    Outcome::Done { answer }
                }
                (Verdict::RolledBack(_), true) => {
                    let moved =
                        Move { from: Some(to.clone()), to: from.clone().unwrap_or(to.clone()), gap_ms };
                    Outcome::Done { answer: Answer::WentBack(moved) }
                }
                (
                    Verdict::Bad(why)
                    | Verdict::Wrong(why)
                    | Verdict::Unknown(why)
                    | Verdict::RolledBack(why)
                    | Verdict::Withdrawn(why),
                    _,
                ) => match (&from, gap_us) {
                    (Some(from), Some(_)) => Outcome::RolledBack {
                        from: from.clone(),
                        to: to.clone(),
                        gap_ms,
                        reason: why.clone(),
                    },
                    (Some(_) | None, Some(_) | None) => Outcome::Failed { reason: why.clone() },
                },
            };
            replies.finish(outcome);
        }
    }

    fn deadline(&self) -> Option<u64> {
        let deadline = match &self.state {
            State::Probation { until, .. } => *until,
            State::Steady(_) | State::Vacant | State::Stopped => return None,
            State::Cold { deadline, .. }
            | State::Fetching { deadline, .. }
            | State::Installing { deadline, .. }
            | State::Starting { deadline, .. }
            | State::Syncing { deadline, .. }
            | State::Level { deadline, .. }
            | State::Cutting { deadline, .. }
            | State::Committing { deadline, .. }
            | State::Reversing { deadline, .. }
            | State::RollingBack { deadline, .. }
            | State::BackingOut { alarm: deadline, .. }
            | State::Clearing { alarm: deadline, .. }
            | State::Stopping { deadline, .. } => *deadline,
        };
        let Moment(since) = deadline;
        Some(unix_now() + since.saturating_sub(self.born.elapsed()).as_secs())
    }

    fn shown(
        &self,
        worker: &crate::upgrade::Worker,
        term: Option<u64>,
    ) -> Option<bumpless_control::status::Worker> {
        let handle = self.edge.handles.get(&worker.instance)?;
        let interval = self.edge.config.timing().heartbeat_ms;
        let record = self.edge.releases.find(&worker.release).ok().flatten();
        let source = record.map(|record| record.source.into());
        let heartbeat = handle.heartbeat.as_ref();
        Some(status::shown(worker, source, term, handle.pid, handle.since, heartbeat, interval))
    }

    pub(super) fn status(&self) -> Status {
        let roles = status::roles(&self.state);
        let config = &self.edge.config;
        let try_number =
            self.state.attempt().map_or(1, |attempt| self.ledger.attempt_number(&attempt.to.sha256));
        let upgrade = status::upgrade(
            &self.state,
            self.phase.as_ref().map_or(self.since, |(_, since)| *since),
            try_number,
            config.upgrade.attempts,
            self.progress,
            self.deadline(),
        );
        let in_seconds = self.next_check.saturating_duration_since(Instant::now()).as_secs();
        let looked_at = self.has_places() || self.packages.is_there();
        let next_check = (self.checks() && looked_at).then(|| unix_now() + in_seconds);
        let serving = roles.serving.and_then(|(worker, term)| self.shown(worker, term));
        let nothing = status::nothing_serves(&self.state);
        Status {
            schema: Schema,
            supervisor: Supervisor {
                version: env!("CARGO_PKG_VERSION").into(),
                pid: std::process::id(),
                since: self.since,
            },
            next: self.coming(next_check),
            rollout: self.rollout(),
            you_need_to_do: self.to_do(&nothing),
            serving,
            standby: roles.standby.and_then(|worker| self.shown(worker, None)),
            draining: roles.draining.and_then(|worker| self.shown(worker, None)),
            upgrade,
            next_check,
            held: self.ledger.hold().map(|hold| Held {
                reason: hold.reason.clone(),
                at: hold.at,
                by: hold.by,
            }),
            quarantined: self.ledger.quarantine(),
            last: self.ledger.last().cloned(),
            feed: (!config.feed.urls.is_empty() || self.packages.is_empty()).then(|| FeedShown {
                channel: config.feed.channel.to_string(),
                urls: config.feed.urls.clone(),
                checked_at: self.feed_state.checked_at,
                error: self.feed_state.error.clone(),
                sandbox_lacks: feed::lacks(),
            }),
            packages: self.packages_shown(),
            alarms: self.ledger.alarms(),
        }
    }

    /// What comes next without anybody's help.
    /// How long a release is not to be tried again yet. The time of day may be set meanwhile, so it decides
    /// only where the failure was before this process.
    fn wait_for(&mut self, release: &Release) -> Option<Duration> {
        if let Some((failed, due)) = &self.again
            && *failed == release.sha256
        {
            let wait = due.saturating_duration_since(Instant::now());
            return (!wait.is_zero()).then_some(wait);
        }
        let now = unix_now();
        self.ledger.clock_says(now);
        let due = self.ledger.next_try(&release.sha256, &self.edge.config.upgrade)?;
        let wait = due.saturating_sub(now);
        (wait > 0).then(|| Duration::from_secs(wait))
    }

    fn coming(&self, next_check: Option<u64>) -> Option<Coming> {
        if !self.may_begin() {
            return None;
        }
        let now = unix_now();
        match self.newest(now) {
            Ok(choice) => {
                let release = choice.release();
                let due = self.ledger.next_try(&release.sha256, &self.edge.config.upgrade);
                let (until, why_not) = match self.automatic(&choice, due.unwrap_or(now).max(now)) {
                    Err(Waits { why, until }) => (until, Some(why)),
                    Ok(()) => {
                        let later = due.filter(|due| *due > now);
                        (None, later.map(|_| "it failed before and is tried again then".into()))
                    }
                };
                Some(Coming {
                    what: format!("upgrade to {}", release.version),
                    at: until.or(due).or(next_check),
                    why_not,
                })
            }
            Err(why) => {
                let at = next_check?;
                let what = if self.has_places() { "ask the feed" } else { "look at this system's packages" };
                Some(Coming { what: what.into(), at: Some(at), why_not: Some(why) })
            }
        }
    }

    fn to_do(&self, nothing_serves: &Option<String>) -> Option<String> {
        match (&self.state, nothing_serves) {
            (State::Cold { step: crate::upgrade::state::Cold::Forbidden(_), .. }, Some(_)) => {
                Some("set revoked = \"run\" in config.toml and restart the supervisor: only a release that runs can hand its state to another one, so this one has to serve until `bumpless upgrade`, or the next look at the feed, has replaced it. Should the publisher allow it again, the node starts by itself".into())
            }
            (State::Cold { step: crate::upgrade::state::Cold::Waiting(_), .. }, Some(_)) => {
                Some("look at the reason above; once it is mended the node starts by itself. `bumpless history` tells more".into())
            }
            (State::Vacant, Some(_))
                if (self.feed.is_some() || !self.packages.is_empty()) && self.ledger.last().is_some() =>
            {
                Some("look at why the last upgrade failed; once that is mended the node starts by itself".into())
            }
            (State::Vacant, Some(_)) if !self.has_places() && !self.packages.refused().is_empty() => {
                Some("look at what is refused of this system's packages; once that is mended, `bumpless check` looks again".into())
            }
            // The next look takes it, or what comes next says why it does not.
            (State::Vacant, Some(_)) if !self.has_places() && !self.packages.is_empty() => None,
            (State::Vacant, Some(_)) if self.feed.is_some() && !self.has_places() => {
                Some("take a release from a folder (bumpless upgrade --from DIR), or name a feed in config.toml ([feed] urls) and restart the supervisor".into())
            }
            (State::Vacant, Some(_)) if self.feed.is_none() && !self.away && self.has_places() => {
                Some("look at why the feed cannot be used; once that is mended the node starts by itself".into())
            }
            (State::Vacant, Some(_)) if self.feed.is_none() && !self.away => {
                Some("name a feed and its first root in config.toml ([feed] urls, root) and restart the supervisor, or install a package that brings a worker".into())
            }
            (State::Steady(serving), None) => {
                self.rules.forbidden.why(&serving.worker.release)?;
                self.to_be_replaced()
            }
            (_, Some(_) | None) => None,
        }
    }

    /// What serves must not run: what stands in the way of a release that may, if anything does.
    fn to_be_replaced(&self) -> Option<String> {
        self.feed.as_ref().filter(|_| self.feed_state.error.is_none())?;
        let Ok(choice) = self.choose(&Wanted::Newest) else {
            return Some("find a release that may run instead: `bumpless versions` tells what is offered and why it is not taken; if there is none, ask the publisher".into());
        };
        let why = self.automatic(&choice, unix_now()).err()?.why;
        Some(format!("let {} take its place, with `bumpless upgrade`: {why}", choice.release().version))
    }

    /// What the feed has for this machine.
    fn offered(&self) -> Vec<Release> {
        let Some(index) = self.trusted().ok().and_then(|trusted| trusted.index()) else { return vec![] };
        let targets = bumpless_trust::choice::targets();
        let ours = |entry: &bumpless_trust::document::ReleaseDocument| {
            let artifact = entry.artifacts.iter().find(|artifact| targets.contains(&artifact.target))?;
            Some(Release { version: entry.release.clone(), sha256: artifact.raw_sha256 })
        };
        index.releases.iter().filter_map(ours).collect()
    }

    fn versions(&self) -> Vec<Listed> {
        let serving = self.edge.committed.as_ref().map(|committed| committed.release.clone());
        let mut listed: Vec<Listed> = vec![];
        for record in self.edge.releases.list().unwrap_or_default() {
            let release = record.release();
            let quarantined =
                self.ledger.quarantined(&release.sha256).map(|why| format!("quarantined: {why}"));
            listed.push(Listed {
                serving: Some(&release) == serving.as_ref(),
                installed: true,
                offered: false,
                packaged: false,
                why_not: self.bans.doubts((&release, Some(record.counter))).or(quarantined),
                release: release.version,
                sha256: release.sha256,
            });
        }
        for release in self.offered() {
            if let Some(known) = listed.iter_mut().find(|known| known.sha256 == release.sha256) {
                known.offered = true;
                continue;
            }
            let named = Wanted::Version(release.version.clone());
            listed.push(Listed {
                why_not: self.choose_offered(&named, Expiry::Counts).err(),
                release: release.version,
                sha256: release.sha256,
                serving: false,
                installed: false,
                offered: true,
                packaged: false,
            });
        }
        for package in self.packages.all() {
            let release = package.release();
            if let Some(known) = listed.iter_mut().find(|known| known.sha256 == release.sha256) {
                known.packaged = true;
                continue;
            }
            let chosen = self.packaged(&Wanted::Version(release.version.clone()));
            let chosen = chosen.and_then(|outlook| outlook.chosen.map_err(|why| why.to_string()));
            listed.push(Listed {
                why_not: chosen.err(),
                release: release.version,
                sha256: release.sha256,
                serving: false,
                installed: false,
                offered: false,
                packaged: true,
            });
        }
        listed
    }
}

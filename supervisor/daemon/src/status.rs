//! The sequence's state in the words of the local API. Pure.

use bumpless_control::Unix;
use bumpless_control::history::Source;
use bumpless_control::status::{Amount, Figures, Phase, Upgrade, Worker as Shown};
use bumpless_shared::control::{Heartbeat, Term};
use bumpless_shared::release::Release;

use crate::config::Revoked;
use crate::upgrade::state::{Back, Cold, Commit, Old, Pair, Reverse};
use crate::upgrade::{State, Worker};

/// Which phase an upgrade is in; `None` when none is under way.
pub fn phase(state: &State) -> Option<Phase> {
    Some(match state {
        State::Vacant | State::Steady(_) | State::Stopping { .. } | State::Stopped => return None,
        State::Cold { pair: Pair::Genesis(_), .. } => Phase::Starting,
        State::Cold { pair: Pair::Committed(..), .. } | State::Clearing { .. } => return None,
        State::Fetching { .. } => Phase::Fetching,
        State::Installing { .. } => Phase::Verifying,
        State::Starting { .. } => Phase::Starting,
        State::Syncing { .. } => Phase::Syncing,
        State::Level { .. } => Phase::Level,
        State::Cutting { .. } => Phase::Cutting,
        State::Probation { .. } => Phase::Probation,
        State::Committing { step: Commit::Draining, .. } => Phase::Draining,
        State::Committing { step, .. } => match step {
            Commit::Hashing(_) | Commit::Persisting(_) | Commit::Retiring | Commit::Recording => {
                Phase::Committing
            }
            Commit::Sealing | Commit::Draining => Phase::Committing,
        },
        State::Reversing { .. } => Phase::GoingBack,
        State::RollingBack { .. } => Phase::RollingBack,
        State::BackingOut { .. } => Phase::BackingOut,
    })
}

/// Which part of a rehearsal it is, and what the phase is waiting for, where the phase alone does not
/// say it.
pub fn text(state: &State) -> Option<String> {
    let part = state.attempt().and_then(|attempt| attempt.rehearsal.words());
    match (part, waiting(state)) {
        (Some(part), Some(waiting)) => Some(format!("{part}; {waiting}")),
        (one, other) => one.or(other).map(str::to_owned),
    }
}

fn waiting(state: &State) -> Option<&'static str> {
    Some(match state {
        State::Probation { old: Old::Gone(_), .. } => {
            "the old worker has died; the new one is judged on its own figures"
        }
        State::Committing { step, .. } => match step {
            Commit::Hashing(_) => "both workers hash what they store",
            Commit::Persisting(_) => "the new worker makes its database durable",
            Commit::Retiring => "the old worker gives up its claim",
            Commit::Recording => "the committed record is written",
            Commit::Sealing => "the new worker ends its logbook",
            Commit::Draining => "connections move from the old worker to the new one",
        },
        State::Reversing { step, .. } => match step {
            Reverse::Preparing => "the old worker gets ready to take over again",
            Reverse::Cutting => "the new worker hands back to the old one",
            Reverse::Draining(_) => {
                "the old worker serves; connections move to it from the new one, which then ends"
            }
        },
        State::RollingBack { step, .. } => match step {
            Back::Killing => "the new worker was killed; its death is awaited",
            Back::Resuming => "the old worker reads the logbook to its end and resumes",
            Back::Persisting(_) => "the old worker serves; its database becomes durable",
        },
        State::Vacant | State::Cold { .. } | State::Steady(_) | State::Fetching { .. } => return None,
        State::Installing { .. } | State::Starting { .. } | State::Syncing { .. } => return None,
        State::Level { .. } | State::Cutting { .. } | State::Probation { .. } => return None,
        State::BackingOut { .. } | State::Clearing { .. } => return None,
        State::Stopping { .. } | State::Stopped => return None,
    })
}

/// Who serves, who stands by and who drains.
#[derive(Debug, Default)]
pub struct Roles<'a> {
    /// Has authority, with its term.
    pub serving: Option<(&'a Worker, Option<Term>)>,
    /// Follows.
    pub standby: Option<&'a Worker>,
    /// Sends its connections away.
    pub draining: Option<&'a Worker>,
}

/// Finds them.
pub fn roles(state: &State) -> Roles<'_> {
    if let Some(serving) = state.serving() {
        let standby = match state {
            State::Starting { new, .. } => new.as_ref(),
            State::Syncing { new, .. } | State::Level { new, .. } => Some(new),
            State::Vacant | State::Cold { .. } | State::Steady(_) | State::Fetching { .. } => None,
            State::Installing { .. } | State::Cutting { .. } | State::Probation { .. } => None,
            State::Committing { .. } | State::Reversing { .. } | State::RollingBack { .. } => None,
            State::BackingOut { .. } | State::Clearing { .. } | State::Stopping { .. } | State::Stopped => {
                None
            }
        };
        return Roles { serving: Some((&serving.worker, Some(serving.term))), standby, draining: None };
    }
    match state {
        State::Cutting { old, new, .. } => {
            Roles { serving: Some((old, None)), standby: Some(new), draining: None }
        }
        State::Probation { old, new, terms, .. } => {
            Roles { serving: Some((new, Some(terms.take))), standby: old.warm(), draining: None }
        }
        State::Committing { old, new, terms, step, .. } => {
            let serving = Some((new, Some(terms.take)));
            match step {
                Commit::Draining => Roles { serving, standby: None, draining: old.warm() },
                Commit::Hashing(_)
                | Commit::Persisting(_)
                | Commit::Retiring
                | Commit::Recording
                | Commit::Sealing => Roles { serving, standby: old.warm(), draining: None },
            }
        }
        State::Reversing { old, new, terms, step, .. } => match step {
            Reverse::Preparing | Reverse::Cutting => {
                Roles { serving: Some((new, Some(terms.take))), standby: Some(old), draining: None }
            }
            Reverse::Draining(_) => {
                Roles { serving: Some((old, Some(terms.resume))), standby: None, draining: Some(new) }
            }
        },
        State::RollingBack { old, terms, step: Back::Persisting(_), .. } => {
            Roles { serving: Some((old, Some(terms.resume))), ..Roles::default() }
        }
        State::RollingBack { old, step: Back::Killing | Back::Resuming, .. } => {
            Roles { standby: Some(old), ..Roles::default() }
        }
        State::Vacant | State::Cold { .. } | State::Steady(_) | State::Fetching { .. } => Roles::default(),
        State::Installing { .. } | State::Starting { .. } | State::Syncing { .. } | State::Level { .. } => {
            Roles::default()
        }
        State::BackingOut { .. } | State::Clearing { .. } | State::Stopping { .. } | State::Stopped => {
            Roles::default()
        }
    }
}

/// Why nothing serves, if nothing does.
pub fn nothing_serves(state: &State) -> Option<String> {
    match state {
        State::Vacant => Some("no release has been installed yet".into()),
        State::Cold { step: Cold::Waiting(why), pair, .. } => {
            Some(format!("release {} does not start: {why}", pair.release().version))
        }
        State::Cold { step: Cold::Forbidden(why), pair, .. } => Some(format!(
            "release {} {why}, and revoked = \"stop\" does not let it start",
            pair.release().version
        )),
        State::Cold { pair, .. } => Some(format!("release {} is starting", pair.release().version)),
        State::Clearing { .. } => {
            Some("the workers that are left are being ended before a fresh start".into())
        }
        State::Steady(_) | State::Fetching { .. } | State::Installing { .. } | State::Starting { .. } => None,
        State::Syncing { .. } | State::Level { .. } | State::Cutting { .. } | State::Probation { .. } => None,
        State::Committing { .. } | State::Reversing { .. } | State::RollingBack { .. } => None,
        State::BackingOut { .. } | State::Stopping { .. } | State::Stopped => None,
    }
}

/// The alarm about what is committed and must not run, for this reason.
pub fn forbidden(state: &State, committed: &Release, why: &str, policy: Revoked) -> String {
    let version = &committed.version;
    if let State::Cold { step: Cold::Forbidden(_), .. } = state {
        return format!("release {version} {why}. Nothing serves: revoked = \"stop\" does not let it start");
    }
    let again = match policy {
        Revoked::Run => "and starts again if it has to (revoked = \"run\")",
        Revoked::Stop => "but does not start again (revoked = \"stop\")",
    };
    format!(
        "release {version} {why}. It goes on serving, {again}. A newer release that may run takes its place as \
         usual: by itself (upgrade.mode = \"auto\") when its rollout has reached this node, at once if it is \
         urgent; or with `bumpless upgrade VERSION`"
    )
}

/// A worker, with what its handle knows.
pub fn shown(
    worker: &Worker,
    source: Option<Source>,
    term: Option<Term>,
    pid: i32,
    since: Unix,
    beat: Option<&(Heartbeat, Unix)>,
    interval_ms: u64,
) -> Shown {
    let figures = beat.map(|(beat, at)| Figures {
        memory: beat.rss,
        connections: beat.connections,
        lag: beat.lag,
        logbook: beat.logbook,
        requests_per_second: beat.requests.saturating_mul(1000) / interval_ms.max(1),
        errors_permille: beat.errors.saturating_mul(1000) / beat.requests.max(1),
        p99_us: beat.p99_us,
        at: *at,
    });
    Shown {
        release: worker.release.version.clone(),
        sha256: worker.release.sha256,
        source,
        term,
        instance: worker.instance,
        pid,
        since,
        figures,
    }
}

/// The upgrade under way.
pub fn upgrade(
    state: &State,
    since: Unix,
    try_number: u32,
    attempts: u32,
    progress: Option<Amount>,
    deadline: Option<Unix>,
) -> Option<Upgrade> {
    let (phase, attempt) = (phase(state)?, state.attempt()?);
    Some(Upgrade {
        phase,
        from: attempt.from.as_ref().map(|release| release.version.clone()),
        to: attempt.to.version.clone(),
        since,
        attempt: try_number,
        attempts,
        progress,
        deadline,
        text: text(state),
        rehearsal: attempt.rehearsal.number(),
    })
}

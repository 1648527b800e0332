//! Time without a clock: every moment in a state is one of two, "lately" for when somebody was heard and
//! "later" for a deadline, so that states that differ in nothing else are equal.
//!
//! A deadline passes, or a silence is noticed, when the model says so: for that one step the clock is set
//! so that exactly this is true. All durations are equal; how long they are decides nothing. A heartbeat
//! that shows nothing bad does no more than renew when its sender was heard, so none is sent. Words that
//! go with a verdict, and how often a cold start was tried, are dropped: only people read them, and waits
//! grow with them.

use std::time::Duration;

use bumpless_shared::control::Instance;
use bumplessd::config::Revoked;
use bumplessd::upgrade::judge::{Baseline, Judge, Limits};
use bumplessd::upgrade::rules::Forbidden;
use bumplessd::upgrade::state::{After, Back, Cold, Old, Return, Reverse, Serving};
use bumplessd::upgrade::{Attempt, Moment, Rules, State, Verdict};

/// Now, whenever it is.
pub const NOW: Moment = Moment(Duration::from_secs(1000));
/// Every deadline.
pub const LATER: Moment = Moment(Duration::from_secs(1100));
/// When somebody was heard who is noticed to be silent.
const LONG_AGO: Moment = Moment(Duration::from_secs(900));
const WAIT: Duration = Duration::from_secs(100);

/// The sequence's settings.
pub fn rules() -> Rules {
    Rules {
        fetch: WAIT,
        install: WAIT,
        start: WAIT,
        stall: WAIT,
        level: WAIT,
        window: Duration::ZERO,
        cut: WAIT,
        probation: WAIT,
        rehearsal: WAIT,
        rehearsal_gap: WAIT,
        persist: WAIT,
        retire: WAIT,
        resume: WAIT,
        drain: WAIT,
        stagger: Duration::ZERO,
        kill_alarm: WAIT,
        stop: WAIT,
        reserve: 1,
        limits: Limits {
            silence: Duration::from_secs(50),
            memory: 1,
            lag: 1,
            logbook: 1,
            error_permille: 1000,
            p99_factor: 1,
            p99_floor: WAIT,
            min_sample: 1,
        },
        forbidden: Forbidden::default(),
        revoked: Revoked::Run,
    }
}

/// The same where the publisher has revoked every release.
pub fn rules_of_revoked() -> Rules {
    let every = (0..=u8::MAX).map(|number| (super::world::release(number).sha256, String::new()));
    Rules { forbidden: every.collect(), ..rules() }
}

/// The state as it is at any moment at which nothing is due.
pub fn settled(state: State) -> State {
    rebased(state, LATER, |_| NOW)
}

/// The same at a moment at which every deadline has passed and everybody was heard just now.
pub fn due(state: State) -> (State, Moment) {
    (rebased(state, LATER, |_| LATER), LATER)
}

/// The same with one of the workers not heard for too long.
pub fn silent(state: State, who: Instance) -> (State, Moment) {
    (rebased(state, LATER, |heard| if heard == who { LONG_AGO } else { NOW }), NOW)
}

/// Whether a deadline is waited for, apart from silences.
pub fn has_deadline(state: &State, rules: &Rules) -> bool {
    let never = Moment(Duration::from_secs(1 << 20));
    rebased(state.clone(), LATER, |_| never).next_tick(rules) == Some(LATER)
}

/// Whose silence would be noticed.
pub fn listened_to(state: &State, rules: &Rules) -> Vec<Instance> {
    let never = Moment(Duration::from_secs(1 << 20));
    let workers = state.workers();
    let noticed = |who: &Instance| {
        let state = rebased(state.clone(), never, |heard| if heard == *who { LONG_AGO } else { never });
        state.next_tick(rules).is_some_and(|tick| tick <= NOW)
    };
    workers.iter().map(|worker| worker.instance).filter(noticed).collect()
}

fn rebased(state: State, later: Moment, heard: impl Fn(Instance) -> Moment) -> State {
    let alone = |mut serving: Serving| {
        serving.heard = heard(serving.worker.instance);
        serving.beats.clear();
        serving
    };
    let old = |old: Old| match old {
        Old::Warm(worker, _) => {
            let at = heard(worker.instance);
            Old::Warm(worker, at)
        }
        Old::Gone(worker) => Old::Gone(worker),
    };
    match state {
        State::Vacant => State::Vacant,
        State::Cold { pair, step, deadline: _, tries } => {
            let step = match step {
                Cold::Failing(worker, _) => Cold::Failing(worker, String::new()),
                Cold::Waiting(_) => Cold::Waiting(String::new()),
                Cold::Forbidden(_) => Cold::Forbidden(String::new()),
                Cold::Spawning | Cold::Opening(_) | Cold::Recording(..) | Cold::Going(..) => step,
            };
            State::Cold { pair, step, deadline: later, tries: tries.min(1) }
        }
        State::Steady(serving) => State::Steady(alone(serving)),
        State::Fetching { serving, attempt, deadline: _ } => {
            State::Fetching { serving: serving.map(alone), attempt, deadline: later }
        }
        State::Installing { serving, attempt, deadline: _ } => {
            State::Installing { serving: serving.map(alone), attempt, deadline: later }
        }
        State::Starting { serving, attempt, new, deadline: _ } => {
            State::Starting { serving: alone(serving), attempt, new, deadline: later }
        }
        State::Syncing { serving, attempt, new, left, deadline: _ } => {
            State::Syncing { serving: alone(serving), attempt, new, left, deadline: later }
        }
        State::Level { serving, attempt, new, step, deadline: _ } => {
            State::Level { serving: alone(serving), attempt, new, step, deadline: later }
        }
        State::Cutting { old, new, attempt, terms, baseline: _, gap_us, deadline: _ } => State::Cutting {
            old,
            new,
            attempt,
            terms,
            baseline: Baseline::default(),
            gap_us,
            deadline: later,
        },
        State::Probation { old: before, new, attempt, terms, gap_us, judge: _, until: _ } => {
            let judge = Judge::new(Baseline::default(), heard(new.instance));
            State::Probation { old: old(before), new, attempt, terms, gap_us, judge, until: later }
        }
        State::Committing { old: before, new, attempt, terms, gap_us, step, deadline: _, heard: _ } => {
            let at = heard(new.instance);
            State::Committing {
                old: old(before),
                new,
                attempt,
                terms,
                gap_us,
                step,
                deadline: later,
                heard: at,
            }
        }
        State::Reversing { old, new, attempt, terms, step, why, gap_us, deadline: _ } => {
            let step = match step {
                Reverse::Draining(_) => Reverse::Draining(heard(old.instance)),
                Reverse::Preparing | Reverse::Cutting => step,
            };
            let why = match why {
                Return::Ends(verdict) => Return::Ends(wordless(verdict)),
                Return::Rehearsed { cut_us, moved } => Return::Rehearsed { cut_us, moved },
            };
            State::Reversing { old, new, attempt, terms, step, why, gap_us, deadline: later }
        }
        State::RollingBack { old, new, attempt, terms, step, verdict, gap_us, deadline: _ } => {
            let step = match step {
                Back::Persisting(_) => Back::Persisting(heard(old.instance)),
                Back::Killing | Back::Resuming => step,
            };
            let verdict = wordless(verdict);
            State::RollingBack { old, new, attempt, terms, step, verdict, gap_us, deadline: later }
        }
        State::BackingOut { serving, attempt, new, verdict, alarm: _ } => {
            let verdict = wordless(verdict);
            State::BackingOut { serving: alone(serving), attempt, new, verdict, alarm: later }
        }
        State::Clearing { dying, after, alarm: _ } => State::Clearing { dying, after, alarm: later },
        State::Stopping { left, deadline: _ } => State::Stopping { left, deadline: later },
        State::Stopped => State::Stopped,
    }
}

fn wordless(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Good => Verdict::Good,
        Verdict::Bad(_) => Verdict::Bad(String::new()),
        Verdict::Wrong(_) => Verdict::Wrong(String::new()),
        Verdict::Unknown(_) => Verdict::Unknown(String::new()),
        Verdict::RolledBack(_) => Verdict::RolledBack(String::new()),
        Verdict::Withdrawn(_) => Verdict::Withdrawn(String::new()),
    }
}

/// Whether time alone is waited for: this deadline passes in the best of all worlds, too.
pub fn passes_by_itself(state: &State) -> bool {
    match state {
        State::Probation { .. } => true,
        State::Cold { step: Cold::Waiting(_), .. } => true,
        State::Committing { step: bumplessd::upgrade::state::Commit::Recording, .. } => true,
        State::Clearing { dying, after, .. } => match after {
            After::Record { .. } => dying.is_empty(),
            After::Cold(..) => false,
        },
        State::Cold { .. } | State::Vacant | State::Steady(_) | State::Fetching { .. } => false,
        State::Installing { .. } | State::Starting { .. } | State::Syncing { .. } => false,
        State::Level { .. } | State::Cutting { .. } | State::Committing { .. } => false,
        State::Reversing { .. } | State::RollingBack { .. } | State::BackingOut { .. } => false,
        State::Stopping { .. } | State::Stopped => false,
    }
}

/// Where a sequence stands, in one word or two: what has to be reached for the model to say anything.
pub fn phase(state: &State) -> &'static str {
    use bumplessd::upgrade::state::{Commit, Levelling};
    match state {
        State::Vacant => "Vacant",
        State::Cold { step: Cold::Spawning, .. } => "Cold Spawning",
        State::Cold { step: Cold::Opening(_), .. } => "Cold Opening",
        // The record is written at once, and its outcome heard before anything else.
        State::Cold { step: Cold::Recording(..), .. } => "Cold Recording",
        State::Cold { step: Cold::Going(..), .. } => "Cold Going",
        State::Cold { step: Cold::Failing(..), .. } => "Cold Failing",
        State::Cold { step: Cold::Waiting(_), .. } => "Cold Waiting",
        // Under another policy than that of the model.
        State::Cold { step: Cold::Forbidden(_), .. } => "Cold Forbidden",
        State::Steady(_) => "Steady",
        State::Fetching { .. } => "Fetching",
        State::Installing { .. } => "Installing",
        State::Starting { new: None, .. } => "Starting, no process yet",
        State::Starting { new: Some(_), .. } => "Starting",
        State::Syncing { .. } => "Syncing",
        State::Level { step: Levelling::Hashing(_), .. } => "Level Hashing",
        State::Level { step: Levelling::Preparing(_), .. } => "Level Preparing",
        State::Cutting { .. } => "Cutting",
        State::Probation { old: Old::Warm(..), .. } => "Probation",
        State::Probation { old: Old::Gone(_), .. } => "Probation alone",
        State::Committing { step: Commit::Hashing(_), .. } => "Committing Hashing",
        State::Committing { step: Commit::Persisting(_), .. } => "Committing Persisting",
        State::Committing { step: Commit::Retiring, .. } => "Committing Retiring",
        State::Committing { step: Commit::Recording, .. } => "Committing Recording",
        State::Committing { step: Commit::Sealing, .. } => "Committing Sealing",
        State::Committing { step: Commit::Draining, .. } => "Committing Draining",
        State::Reversing { step: Reverse::Preparing, .. } => "Reversing Preparing",
        State::Reversing { step: Reverse::Cutting, .. } => "Reversing Cutting",
        State::Reversing { step: Reverse::Draining(_), .. } => "Reversing Draining",
        State::RollingBack { step: Back::Killing, .. } => "RollingBack Killing",
        State::RollingBack { step: Back::Resuming, .. } => "RollingBack Resuming",
        State::RollingBack { step: Back::Persisting(_), .. } => "RollingBack Persisting",
        State::BackingOut { .. } => "BackingOut",
        State::Clearing { after: After::Cold(..), .. } => "Clearing for a cold start",
        State::Clearing { after: After::Record { .. }, .. } => "Clearing for the record",
        State::Stopping { .. } => "Stopping",
        State::Stopped => "Stopped",
    }
}

/// Every phase that a state can be seen in between two events.
pub const PHASES: [&str; 33] = [
    "Vacant",
    "Cold Spawning",
    "Cold Opening",
    "Cold Going",
    "Cold Failing",
    "Cold Waiting",
    "Steady",
    "Fetching",
    "Installing",
    "Starting, no process yet",
    "Starting",
    "Syncing",
    "Level Hashing",
    "Level Preparing",
    "Cutting",
    "Probation",
    "Probation alone",
    "Committing Hashing",
    "Committing Persisting",
    "Committing Retiring",
    "Committing Recording",
    "Committing Sealing",
    "Committing Draining",
    "Reversing Preparing",
    "Reversing Cutting",
    "Reversing Draining",
    "RollingBack Killing",
    "RollingBack Resuming",
    "RollingBack Persisting",
    "BackingOut",
    "Clearing for a cold start",
    "Clearing for the record",
    "Stopping",
];

/// An attempt as the model makes them.
pub fn attempt(
    from: Option<bumpless_shared::release::Release>,
    to: bumpless_shared::release::Release,
) -> Attempt {
    Attempt { from, to, by: None, rehearsal: bumplessd::upgrade::Rehearsal::Off }
}

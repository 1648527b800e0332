//! Starting a pair with nothing beside it, and ending everything in good order: the moments in which no
//! worker serves.

use bumpless_shared::control::{Command, Instance, Origin, Trouble};

use super::effect::{Effect, RecordTerm};
use super::event::{Ask, Event, Launched, Said, Stored};
use super::rules::Rules;
use super::state::{After, Attempt, Cold, Moment, Pair, Serving, State, Verdict, Worker};
use super::step::{RECORD_AGAIN, Step, bad, begin, not_dead, other_tag};

pub(super) fn vacant(event: Event, now: Moment, rules: &Rules) -> Step {
    match event {
        Event::Asked(Ask::Upgrade { attempt, installed }) => begin(None, attempt, installed, now, rules),
        Event::Asked(Ask::Rollback { .. } | Ask::Reconsider | Ask::Stop)
        | Event::Tick
        | Event::Acquired(_) => (State::Vacant, vec![]),
        Event::Launched(_) | Event::Stored(_) | Event::Said(..) => (State::Vacant, vec![]),
        Event::Ended(..) | Event::Closed(_) => (State::Vacant, vec![]),
    }
}

/// Starts a pair with nothing beside it, unless it is committed and must stay down: only a worker that runs
/// can hand its state over, so no other release could start in its place.
pub(super) fn start_cold(pair: Pair, tries: u32, now: Moment, rules: &Rules) -> Step {
    if let Pair::Committed(release, _) = &pair
        && let Some(why) = rules.keeps_down(release)
    {
        let step = Cold::Forbidden(why.to_owned());
        // It waits for no moment.
        return (State::Cold { pair, step, deadline: Moment::default(), tries }, vec![]);
    }
    let (generation, origin) = match &pair {
        Pair::Genesis(_) => (None, Origin::Genesis),
        Pair::Committed(_, generation) => (Some(*generation), Origin::Cold),
    };
    let spawn = Effect::Spawn { release: pair.release().clone(), generation, origin, tag: 1 };
    (State::Cold { pair, step: Cold::Spawning, deadline: now + rules.start, tries }, vec![spawn])
}

pub(super) fn cold(
    pair: Pair,
    step: Cold,
    deadline: Moment,
    tries: u32,
    event: Event,
    now: Moment,
    rules: &Rules,
) -> Step {
    let origin = match pair {
        Pair::Genesis(_) => Origin::Genesis,
        Pair::Committed(..) => Origin::Cold,
    };
    let id = step.worker().map(|worker| worker.instance);
    let from_it = |who: Instance| id == Some(who);
    match (step, event) {
        (Cold::Spawning, Event::Launched(Launched::Running(worker))) => {
            (State::Cold { pair, step: Cold::Opening(worker), deadline: now + rules.start, tries }, vec![])
        }
        (Cold::Spawning, Event::Launched(Launched::Failed(verdict))) => {
            cold_failed(pair, None, tries, verdict, now, rules)
        }
        (Cold::Opening(worker), Event::Said(who, Said::Greeting)) if from_it(who) => {
            let start = Effect::Start(worker.clone(), origin);
            (State::Cold { pair, step: Cold::Opening(worker), deadline, tries }, vec![start])
        }
        (Cold::Opening(worker), Event::Said(who, Said::Ready(found))) if from_it(who) => {
            let (release, generation) = (worker.release.clone(), worker.generation);
            let term = RecordTerm::Above(found);
            let record = Effect::Record { release: release.clone(), generation, term };
            // From here on the record may name this pair, whatever becomes of the worker.
            let first = match pair {
                Pair::Genesis(attempt) => Some(attempt),
                Pair::Committed(..) => None,
            };
            let pair = Pair::Committed(release, generation);
            (State::Cold { pair, step: Cold::Recording(worker, first), deadline, tries }, vec![record])
        }
        (Cold::Recording(worker, first), Event::Stored(Stored::Recorded(term))) => {
            let mut effects = vec![Effect::Tell(worker.instance, Command::Go { term })];
            if let Some(attempt) = first {
                effects.push(Effect::conclude(attempt, Verdict::Good, None));
            }
            (
                State::Cold { pair, step: Cold::Going(worker, term), deadline: now + rules.start, tries },
                effects,
            )
        }
        (Cold::Recording(worker, first), Event::Stored(Stored::NotRecorded(why))) => {
            let step = cold_kill(pair, worker, tries, why.clone(), now, rules);
            with_undecided(step, first, &why)
        }
        (Cold::Recording(worker, first), Event::Ended(who, how)) if from_it(who) => {
            let why = format!("{how} while starting");
            with_undecided(cold_failed(pair, Some(&worker), tries, bad(why.clone()), now, rules), first, &why)
        }
        (Cold::Going(worker, term), Event::Said(who, Said::Going)) if from_it(who) => {
            // Nobody else lives, so it answers for the other slots: clients of a worker that died come
            // back at once instead of waiting for their connections to time out.
            let others = [other_tag(worker.tag), other_tag(other_tag(worker.tag))];
            let gone = others.map(|tag| Effect::Tell(worker.instance, Command::PeerGone { tag }));
            (State::Steady(Serving::new(worker, term, now)), gone.into())
        }
        (Cold::Failing(worker, why), Event::Ended(who, _)) if from_it(who) => {
            cold_failed(pair, Some(&worker), tries, bad(why), now, rules)
        }
        (Cold::Failing(worker, why), Event::Tick) if now >= deadline => {
            let effects = vec![Effect::Kill(worker.instance), not_dead(&worker)];
            (
                State::Cold {
                    pair,
                    step: Cold::Failing(worker, why),
                    deadline: now + rules.kill_alarm,
                    tries,
                },
                effects,
            )
        }
        (Cold::Waiting(_), Event::Tick) if now >= deadline => start_cold(pair, tries, now, rules),
        (Cold::Opening(worker) | Cold::Going(worker, _), Event::Tick) if now >= deadline => {
            let why = format!("did not start within {} s", rules.start.as_secs_f32());
            cold_kill(pair, worker, tries, why, now, rules)
        }
        (
            Cold::Opening(worker) | Cold::Going(worker, _),
            Event::Said(who, Said::NoCommonVersion(why) | Said::Trouble(Trouble::CannotStart, why)),
        ) if from_it(who) => cold_kill(pair, worker, tries, why, now, rules),
        (Cold::Opening(worker) | Cold::Going(worker, _), Event::Ended(who, how)) if from_it(who) => {
            cold_failed(pair, Some(&worker), tries, bad(format!("{how} while starting")), now, rules)
        }
        (Cold::Opening(worker) | Cold::Going(worker, _), Event::Closed(who)) if from_it(who) => {
            cold_kill(pair, worker, tries, "closed its control channel".into(), now, rules)
        }
        (
            step,
            Event::Tick
            | Event::Asked(_)
            | Event::Acquired(_)
            | Event::Launched(_)
            | Event::Stored(_)
            | Event::Said(..)
            | Event::Ended(..)
            | Event::Closed(_),
        ) => (State::Cold { pair, step, deadline, tries }, vec![]),
    }
}

/// The node's first upgrade ends without anybody knowing whether it was recorded.
fn with_undecided((state, mut effects): Step, first: Option<Attempt>, why: &str) -> Step {
    if let Some(attempt) = first {
        effects.push(Effect::conclude(attempt, Verdict::Unknown(why.into()), None));
    }
    (state, effects)
}

pub(super) fn cold_kill(
    pair: Pair,
    worker: Worker,
    tries: u32,
    why: String,
    now: Moment,
    rules: &Rules,
) -> Step {
    let kill = vec![Effect::Kill(worker.instance)];
    (State::Cold { pair, step: Cold::Failing(worker, why), deadline: now + rules.kill_alarm, tries }, kill)
}

/// At genesis the release is to blame, and another one may do better; later the committed pair is all
/// there is and is tried again, with growing waits.
fn cold_failed(
    pair: Pair,
    worker: Option<&Worker>,
    tries: u32,
    verdict: Verdict,
    now: Moment,
    rules: &Rules,
) -> Step {
    match pair {
        Pair::Genesis(attempt) => {
            let generations = worker.map(|worker| worker.generation).into_iter().collect();
            let conclude = Effect::conclude(attempt, verdict, None);
            (State::Vacant, vec![Effect::Discard { logs: vec![], generations }, conclude])
        }
        Pair::Committed(release, generation) => {
            let wait = rules.restart_after(tries + 1);
            let alarm = Effect::Alarm(format!(
                "release {release} does not start: {}. Nothing serves; the next try comes in {} s",
                verdict.reason(),
                wait.as_secs()
            ));
            let step = Cold::Waiting(verdict.reason().to_owned());
            let pair = Pair::Committed(release, generation);
            (State::Cold { pair, step, deadline: now + wait, tries: tries + 1 }, vec![alarm])
        }
    }
}

/// Waits for the dead (`Kill` was ordered for each), then goes on.
pub(super) fn clear(
    dying: Vec<Worker>,
    after: After,
    mut effects: Vec<Effect>,
    now: Moment,
    rules: &Rules,
) -> Step {
    if !dying.is_empty() {
        return (State::Clearing { dying, after, alarm: now + rules.kill_alarm }, effects);
    }
    let (state, more) = match after {
        After::Cold(release, generation) => start_cold(Pair::Committed(release, generation), 0, now, rules),
        After::Record { ref worker, terms, .. } => {
            let term = RecordTerm::Held(terms.take);
            let record =
                Effect::Record { release: worker.release.clone(), generation: worker.generation, term };
            (State::Clearing { dying, after, alarm: now + RECORD_AGAIN }, vec![record])
        }
    };
    effects.extend(more);
    (state, effects)
}

pub(super) fn clearing(
    mut dying: Vec<Worker>,
    after: After,
    alarm: Moment,
    event: Event,
    now: Moment,
    rules: &Rules,
) -> Step {
    match event {
        Event::Ended(who, _) if dying.iter().any(|worker| worker.instance == who) => {
            dying.retain(|worker| worker.instance != who);
            if dying.is_empty() {
                return clear(dying, after, vec![], now, rules);
            }
            (State::Clearing { dying, after, alarm }, vec![])
        }
        Event::Stored(Stored::Recorded(_)) if dying.is_empty() => match after {
            After::Record { worker, old, attempt, terms, gap_us } => {
                let pair = Pair::Committed(worker.release, worker.generation);
                let (state, mut effects) = start_cold(pair, 0, now, rules);
                effects.push(Effect::Discard { logs: vec![terms.held, terms.take], generations: vec![old] });
                effects.push(Effect::conclude(attempt, Verdict::Good, gap_us));
                (state, effects)
            }
            After::Cold(release, generation) => {
                start_cold(Pair::Committed(release, generation), 0, now, rules)
            }
        },
        Event::Stored(Stored::NotRecorded(why)) => {
            let text = format!("the committed record cannot be written: {why}. Nothing serves until it is");
            (State::Clearing { dying, after, alarm: now + RECORD_AGAIN }, vec![Effect::Alarm(text)])
        }
        Event::Tick if now >= alarm => {
            if dying.is_empty() {
                return clear(dying, after, vec![], now, rules);
            }
            let effects = dying.iter().flat_map(|w| [Effect::Kill(w.instance), not_dead(w)]).collect();
            (State::Clearing { dying, after, alarm: now + rules.kill_alarm }, effects)
        }
        Event::Tick
        | Event::Asked(_)
        | Event::Acquired(_)
        | Event::Launched(_)
        | Event::Stored(_)
        | Event::Said(..)
        | Event::Ended(..)
        | Event::Closed(_) => (State::Clearing { dying, after, alarm }, vec![]),
    }
}

pub(super) fn stopping(
    mut left: Vec<Worker>,
    deadline: Moment,
    event: Event,
    now: Moment,
    rules: &Rules,
) -> Step {
    match event {
        Event::Ended(who, _) => {
            left.retain(|worker| worker.instance != who);
            if left.is_empty() {
                (State::Stopped, vec![])
            } else {
                (State::Stopping { left, deadline }, vec![])
            }
        }
        Event::Tick if now >= deadline => {
            let kill = left.iter().map(|worker| Effect::Kill(worker.instance)).collect();
            (State::Stopping { left, deadline: now + rules.kill_alarm }, kill)
        }
        Event::Tick
        | Event::Asked(_)
        | Event::Acquired(_)
        | Event::Launched(_)
        | Event::Stored(_)
        | Event::Said(..)
        | Event::Closed(_) => (State::Stopping { left, deadline }, vec![]),
    }
}

//! A supervisor that has just started, and the workers that the one before it left behind.
//!
//! Every instance has been heard or fenced before this is asked: what is in [`Found::alive`] lives and
//! said what it does; nobody else lives. The living decide, the journal only says what was attempted:
//!
//! - **A holder stays the holder.** On the committed generation it serves on: beside a worker that
//!   yielded to it a commit is carried to its end, or a way back if that one is the candidate;
//!   otherwise the attempt is over. On another generation it is on probation, and is judged on. (In a
//!   rehearsal its cut was not measured by us, so it is handed back, without a verdict.)
//! - **Nobody holds**: every worker that is not on the committed generation is killed and confirmed;
//!   then a frozen one on it resumes.
//! - **Nobody is left**: the committed pair starts cold; if that is the attempt's, it was committed.
//!
//! The generation in `committed` is never corrected to a survivor's; it changes by a commit alone.

use bincode::{Decode, Encode};
use bumpless_shared::control::{Command, Generation, Role, Term};
use bumpless_shared::release::Release;

use super::cold::{clear, start_cold};
use super::effect::Effect;
use super::judge::{Baseline, Judge};
use super::rules::Rules;
use super::state::{
    After, Attempt, Back, Moment, Old, Pair, Rehearsal, Return, Serving, State, Terms, Verdict, Worker,
};
use super::step::{Cut, drain_new, other_tag, seal, tag_before};

/// A living worker, as it told us.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Survivor {
    /// Which.
    pub worker: Worker,
    /// What it does.
    pub role: Role,
}

/// What the journal says was attempted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Intent {
    /// The upgrade.
    pub attempt: Attempt,
    /// The candidate's.
    pub generation: Generation,
    /// That of the worker that held when it began.
    pub old_generation: Generation,
    /// If a cut was prepared.
    pub terms: Option<Terms>,
}

impl Intent {
    /// Of the upgrade under way, before the process of its candidate exists.
    pub fn begun(state: &State, generation: Generation) -> Option<Intent> {
        let attempt = state.attempt()?.clone();
        let old_generation = state.serving().map_or(0, |serving| serving.worker.generation);
        Some(Intent { attempt, generation, old_generation, terms: None })
    }

    /// What it leaves behind for nobody, and how it ended: the committed generation tells.
    fn over(self, committed: Generation, why: &str) -> [Effect; 2] {
        let Intent { attempt, generation, old_generation, terms } = self;
        let logs = terms.map_or(vec![], |terms| vec![terms.held, terms.take]);
        let (nobodys, verdict) = match generation == committed {
            true => (old_generation, Verdict::Good),
            false => (generation, Verdict::Unknown(why.into())),
        };
        // At the node's first start there is no old one.
        let generations = (nobodys != 0).then_some(nobodys).into_iter().collect();
        [Effect::Discard { logs, generations }, Effect::conclude(attempt, verdict, None)]
    }
}

/// All that a start knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Found {
    /// The committed pair.
    pub committed: Option<(Release, Generation)>,
    /// From the journal.
    pub intent: Option<Intent>,
    /// Who lives.
    pub alive: Vec<Survivor>,
}

/// Where to go on, and what to do first.
pub fn recover(found: Found, now: Moment, rules: &Rules) -> (State, Vec<Effect>) {
    let Found { committed, intent, mut alive } = found;
    let Some((release, generation)) = committed else {
        return nothing_committed(intent, alive);
    };
    let mut effects = Vec::new();
    // Two holders cannot be; should the impossible happen, the higher term is the true one.
    alive.sort_by_key(|survivor| std::cmp::Reverse(held(survivor.role)));
    let holder = alive.first().filter(|survivor| held(survivor.role).is_some()).cloned();
    let Some(Survivor { worker, role: Role::Holding { term } }) = holder else {
        return nobody_holds(release, generation, intent, alive, now, rules);
    };
    let mut others: Vec<Survivor> = alive.into_iter().skip(1).collect();
    effects.push(Effect::Tell(worker.instance, Command::Go { term }));
    let why = "the supervisor was replaced in the middle of it";
    let attempt = intent.as_ref().map(|intent| intent.attempt.clone());
    let terms = intent.as_ref().and_then(|intent| intent.terms).filter(|terms| terms.take == term);
    let old =
        others.iter().position(|other| yielded_to(other.role, term)).map(|index| others.swap_remove(index));
    for other in &others {
        effects.push(Effect::Alarm(format!(
            "worker {} has no place any more and is killed",
            other.worker.instance
        )));
        effects.push(Effect::Kill(other.worker.instance));
    }
    if worker.generation == generation {
        if let (Some(Survivor { worker: new, .. }), Some(intent)) = (&old, &intent)
            && let Intent { attempt, old_generation, terms: Some(terms), .. } = intent
            && *old_generation == generation
        {
            // The one that yielded is the candidate: a way back that goes on to its end.
            effects.push(Effect::Tell(new.instance, Command::Go { term }));
            let (new, mut attempt, terms) = (new.clone(), attempt.clone(), *terms);
            if attempt.rehearsal == Rehearsal::Cut {
                attempt.rehearsal = Rehearsal::Back;
            }
            let cut = Cut { old: worker, new, attempt, terms, gap_us: None };
            let (state, more) = drain_new(cut, Return::Ends(Verdict::Unknown(why.into())), now, rules);
            effects.extend(more);
            return (state, effects);
        }
        if old.is_some() || terms.is_some() {
            let attempt = attempt.unwrap_or(Attempt {
                from: None,
                to: release.clone(),
                by: None,
                rehearsal: Rehearsal::Off,
            });
            let terms = terms.unwrap_or(Terms { held: term, take: term, resume: term });
            let old = old_of(old, &worker, term, &intent, now, &mut effects);
            let (state, more) = seal(old, worker, attempt, terms, None, now, rules);
            effects.extend(more);
            return (state, effects);
        }
        if let Some(intent) = intent {
            effects.push(Effect::Tell(worker.instance, Command::PeerGone { tag: other_tag(worker.tag) }));
            effects.extend(intent.over(generation, why));
        }
        // A stop that never reached it may have ended an upgrade between its commit and this.
        effects.push(Effect::Tell(worker.instance, Command::Commit { term }));
        return (State::Steady(Serving::new(worker, term, now)), effects);
    }
    let mut attempt = attempt.unwrap_or(Attempt {
        from: Some(release.clone()),
        to: worker.release.clone(),
        by: None,
        rehearsal: Rehearsal::Off,
    });
    let Some(terms) = terms else {
        // Nothing says under which term the old one may resume: the committed pair and the logbooks do.
        effects.push(Effect::Kill(worker.instance));
        effects.push(Effect::conclude(attempt, Verdict::Unknown(why.into()), None));
        let mut dying = vec![worker];
        if let Some(old) = old {
            effects.push(Effect::Kill(old.worker.instance));
            dying.push(old.worker);
        }
        return clear(dying, After::Cold(release, generation), effects, now, rules);
    };
    let old = match old {
        Some(Survivor { worker: old, .. }) => {
            effects.push(Effect::Tell(old.instance, Command::Go { term }));
            Old::Warm(old, now)
        }
        None => {
            let tag = tag_before(worker.tag);
            effects.push(Effect::Tell(worker.instance, Command::PeerGone { tag }));
            Old::Gone(Worker { instance: 0, generation, release, tag })
        }
    };
    attempt.rehearsal = match (attempt.rehearsal, &old) {
        (Rehearsal::Cut | Rehearsal::Back, Old::Warm(..)) => Rehearsal::Cut,
        // Nobody is left to hand back to, or all that was left to do was to measure the third cut.
        (Rehearsal::Cut | Rehearsal::Back, Old::Gone(_)) | (Rehearsal::Again | Rehearsal::Off, _) => {
            Rehearsal::Off
        }
    };
    let judge = Judge::new(Baseline::default(), now);
    let until = now + attempt.rehearsal.watch(rules);
    (State::Probation { old, new: worker, attempt, terms, gap_us: None, judge, until }, effects)
}

fn held(role: Role) -> Option<u64> {
    match role {
        Role::Holding { term } => Some(term),
        Role::Frozen { .. } | Role::Retired { .. } | Role::Draining => None,
    }
}

/// Whether this worker yielded to the one that holds this term.
fn yielded_to(role: Role, holders: u64) -> bool {
    match role {
        Role::Frozen { term, .. } | Role::Retired { term } => term == holders,
        Role::Draining => true,
        Role::Holding { .. } => false,
    }
}

fn old_of(
    old: Option<Survivor>,
    holder: &Worker,
    term: Term,
    intent: &Option<Intent>,
    now: Moment,
    effects: &mut Vec<Effect>,
) -> Old {
    match old {
        Some(Survivor { worker, .. }) => {
            effects.push(Effect::Tell(worker.instance, Command::Go { term }));
            Old::Warm(worker, now)
        }
        None => Old::Gone(Worker {
            instance: 0,
            generation: intent.as_ref().map_or(0, |intent| intent.old_generation),
            release: holder.release.clone(),
            tag: tag_before(holder.tag),
        }),
    }
}

fn nothing_committed(intent: Option<Intent>, alive: Vec<Survivor>) -> (State, Vec<Effect>) {
    let mut effects: Vec<Effect> =
        alive.iter().map(|survivor| Effect::Kill(survivor.worker.instance)).collect();
    if let Some(Intent { attempt, generation, .. }) = intent {
        effects.push(Effect::Discard { logs: vec![], generations: vec![generation] });
        let verdict = Verdict::Unknown("the supervisor was replaced during the first start".into());
        effects.push(Effect::conclude(attempt, verdict, None));
    }
    (State::Vacant, effects)
}

fn nobody_holds(
    release: Release,
    generation: Generation,
    intent: Option<Intent>,
    alive: Vec<Survivor>,
    now: Moment,
    rules: &Rules,
) -> (State, Vec<Effect>) {
    let why = "the supervisor was replaced, and the new worker with it";
    let resumable = alive.iter().find(|survivor| {
        survivor.worker.generation == generation
            && match survivor.role {
                Role::Frozen { resume, .. } => resume != 0,
                Role::Retired { .. } => true,
                Role::Holding { .. } | Role::Draining => false,
            }
    });
    let old = resumable.map(|survivor| survivor.worker.clone());
    let mut dying: Vec<Worker> = alive.into_iter().map(|survivor| survivor.worker).collect();
    let mut effects: Vec<Effect> = vec![];
    if let (Some(old), Some(Intent { attempt, generation: candidate, terms: Some(terms), .. })) =
        (old, intent.clone())
    {
        let verdict = Verdict::Unknown(why.into());
        dying.retain(|worker| worker.instance != old.instance);
        effects.push(Effect::Tell(old.instance, Command::Go { term: terms.resume }));
        effects.extend(dying.iter().map(|worker| Effect::Kill(worker.instance)));
        let (new, step) = match dying.pop() {
            Some(new) => (new, Back::Killing),
            None => {
                let new = Worker {
                    instance: 0,
                    generation: candidate,
                    release: attempt.to.clone(),
                    tag: other_tag(old.tag),
                };
                effects.push(Effect::Tell(old.instance, Command::Resume { term: terms.resume }));
                effects.push(Effect::Tell(old.instance, Command::PeerGone { tag: new.tag }));
                (new, Back::Resuming)
            }
        };
        let deadline = now + rules.resume;
        let state = State::RollingBack { old, new, attempt, terms, step, verdict, gap_us: None, deadline };
        return (state, effects);
    }
    effects.extend(dying.iter().map(|worker| Effect::Kill(worker.instance)));
    effects.extend(intent.into_iter().flat_map(|intent| intent.over(generation, why)));
    if dying.is_empty() {
        let (state, more) = start_cold(Pair::Committed(release, generation), 0, now, rules);
        effects.extend(more);
        return (state, effects);
    }
    clear(dying, After::Cold(release, generation), effects, now, rules)
}

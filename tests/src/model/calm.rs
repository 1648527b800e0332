//! "If faults cease, it ends steady": from every state, what happens when nothing more goes wrong.
//!
//! Of everything that happens by itself, always the first, until nothing is left: one way out of many, but
//! the others are states of the model too, and each of them is looked at in the same way. Who was stopped
//! stays stopped (that it goes on is a move of the model). What was found once is not walked again, so
//! this costs one more step for each state. One exception: who was stopped before it had the lock by which a
//! new supervisor finds it goes on some time, and ends; until then nobody can do anything about it.
//!
//! One end is not steady and yet as it should be: a node whose database cannot be written any more serves
//! what it has, and waits for an operator to repair its disk.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use bumpless_worker::state::{Logbook, Role};
use bumplessd::upgrade::State;
use bumplessd::upgrade::state::{Back, Commit};

use super::moves::Game;
use super::world::{Control, World};

/// More steps than any way to the end takes.
const LONGEST: usize = 1000;
/// More workers than any run starts.
const MOST: u64 = 20;
/// More orders than ever wait for one worker.
const QUEUED: usize = 12;
const SHARDS: usize = 64;

/// States from which it ends steady.
#[derive(Debug)]
pub struct Calm(Vec<Mutex<HashSet<u64>>>);

impl Default for Calm {
    fn default() -> Self {
        Calm((0..SHARDS).map(|_| Mutex::default()).collect())
    }
}

impl Calm {
    /// Whether it ends steady from here; if not, why not.
    pub fn ends_steady(&self, game: &Game, world: &World) -> Result<(), String> {
        let numbers = &world.disk.numbers;
        if [numbers.instance, numbers.term, numbers.incarnation, numbers.generation]
            .into_iter()
            .any(|n| n > MOST)
        {
            return Err(format!("more and more are used up: {numbers:?}"));
        }
        if world.disk.logs.values().any(|log| log.records.len() > QUEUED)
            || world
                .workers
                .values()
                .any(|process| process.wires.iter().any(|wire| wire.notes.len() > QUEUED))
            || world
                .workers
                .keys()
                .any(|who| world.handle(*who).is_some_and(|handle| handle.said.len() > QUEUED))
        {
            return Err("more and more waits".to_owned());
        }
        let queued = |process: &std::sync::Arc<super::world::Process>| process.orders.len() > QUEUED;
        if world.workers.values().any(queued) {
            return Err("more and more orders wait".to_owned());
        }
        let mut way = vec![fingerprint(world)];
        if self.knows(way[0]) {
            return Ok(());
        }
        let mut world = world.clone();
        loop {
            if reads_only(&world) {
                break;
            }
            let next = game.by_itself(&world);
            let Some(step) = next.into_iter().next() else {
                steady(&world)?;
                break;
            };
            let Some(after) = game.after(&world, step) else {
                return Err(format!("{step:?} is none, and nothing else happens"));
            };
            world = after;
            let here = fingerprint(&world);
            if self.knows(here) {
                break;
            }
            if way.contains(&here) {
                return Err(format!("it turns in a circle: {step:?} for ever ({})", standing(&world)));
            }
            if way.len() > LONGEST {
                return Err("it does not end".to_owned());
            }
            way.push(here);
        }
        for state in way {
            self.shard(state).insert(state);
        }
        Ok(())
    }

    fn knows(&self, state: u64) -> bool {
        self.shard(state).contains(&state)
    }

    fn shard(&self, state: u64) -> std::sync::MutexGuard<'_, HashSet<u64>> {
        self.0[state as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What happens by itself from here on, up to so many steps; for people to read.
pub fn continuation(game: &Game, world: &World, most: usize) -> Vec<(World, Option<super::moves::Move>)> {
    let mut path = vec![];
    let mut world = world.clone();
    while path.len() < most
        && let Some(step) = game.by_itself(&world).into_iter().next()
        && let Some(after) = game.after(&world, step)
    {
        path.push((std::mem::replace(&mut world, after), Some(step)));
    }
    path.push((world, None));
    path
}

fn reads_only(world: &World) -> bool {
    let settled = world.running().is_some_and(|running| {
        matches!(
            running.state,
            State::Steady(_)
                | State::Committing { step: Commit::Sealing, .. }
                | State::RollingBack { step: Back::Persisting(_), .. }
        )
    });
    let mut holders = world.holders();
    settled && holders.next().is_some_and(|process| process.role == Some(Role::Poisoned))
}

fn standing(world: &World) -> String {
    match world.running() {
        Some(running) => super::time::phase(&running.state).to_owned(),
        None => "no supervisor".to_owned(),
    }
}

/// What decides how it goes on by itself.
fn fingerprint(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&world.supervisor, &world.workers, &world.disk, world.published).hash(&mut hasher);
    hasher.finish()
}

/// Nothing happens any more: is it as it should be?
fn steady(world: &World) -> Result<(), String> {
    let Some(running) = world.running() else { return Err("no supervisor runs".to_owned()) };
    if !running.written || !running.own.is_empty() {
        return Err("the supervisor has something to do".to_owned());
    }
    if let Some(intent) = &running.journal.intent {
        return Err(format!("the journal still names an upgrade to {}", intent.attempt.to.version));
    }
    let serving = match &running.state {
        State::Vacant => {
            let left = !world.workers.is_empty() || world.disk.committed.reads.is_some();
            return if left {
                Err("nothing is committed, and not nothing is there".to_owned())
            } else {
                Ok(())
            };
        }
        State::Steady(serving) => serving,
        state => return Err(format!("it stays in {}", super::time::phase(state))),
    };
    let mut living = world.workers.values();
    let (Some(process), None) = (living.next(), living.next()) else {
        return Err(format!("{} workers live", world.workers.len()));
    };
    if process.worker != serving.worker {
        return Err("another worker lives than the one that is known to serve".to_owned());
    }
    if process.role != Some(Role::Holding { term: serving.term, logbook: Logbook::None }) {
        return Err(format!(
            "worker {} is {:?}, it should hold term {}",
            process.worker.instance, process.role, serving.term
        ));
    }
    if process.control != Control::Open || process.stopped {
        return Err("the worker and the supervisor do not hear each other".to_owned());
    }
    let Some(committed) = &world.disk.committed.reads else { return Err("nothing is committed".to_owned()) };
    if committed.generation != process.worker.generation {
        return Err(format!(
            "generation {} is committed, {} serves",
            committed.generation, process.worker.generation
        ));
    }
    let generations: Vec<_> = world.disk.generations.keys().collect();
    if generations != [&committed.generation] {
        return Err(format!("generations {generations:?} are left, {} serves", committed.generation));
    }
    if !world.disk.logs.is_empty() {
        return Err(format!("logbooks {:?} are left", world.disk.logs.keys().collect::<Vec<_>>()));
    }
    Ok(())
}

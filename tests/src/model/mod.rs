//! `cargo model`: every state that a node can come to, with a bounded number of faults.
//!
//! ```text
//!  supervisor ── orders ─▶ worker ◀── link ──▶ worker        the product's own, pure:
//!      │      ◀─ reports ──   │                   │            bumplessd::upgrade  step, recover
//!      │                      │                   │            bumpless_worker     Life, Role, place, missing
//!  committed, journal     gen-1, log/T        gen-2, log/T+1   Journal, Said, Terms, Intent
//! ```
//!
//! What the product decides is asked of the product: [`State::step`](bumplessd::upgrade::State::step) and
//! `recover` of the supervisor, [`Life`](bumpless_worker::lifecycle::Life) and
//! [`Role`](bumpless_worker::state::Role) of the workers, what a record of a logbook means
//! ([`place`](bumpless_worker::state::place), [`missing`](bumpless_worker::state::missing)), what the
//! journal owes. What is modelled is everything around them: [`supervisor`] and [`worker`] stand for the
//! two edges, [`disk`] for what survives, [`world`] holds a state, [`moves`] says what can happen next.
//!
//! **Good path.** From a node that serves, and from one on which nothing was installed, clients write and an
//! operator upgrades; with no fault at all the states are those of one upgrade in every order of its
//! messages. **Faults** are added from a budget: any process dies or stops at any point, within a step too;
//! the power fails; the supervisor is killed and starts again; channels and links close while both ends
//! live; records, logbooks and databases cannot be written or synced; deadlines pass and suspicions arise
//! too early; an operator takes back or stops; the publisher revokes every release.
//!
//! **What is looked at** is in [`property`]: in every state, whether all of them hold, what a power loss
//! would leave just then, and whether it would end steady if nothing more went wrong ([`calm`]).
//! **That it finds something** is seen by planting the readings of [`plant`], and by counting how often
//! each phase was reached.
//!
//! **What makes it finite.** Moments are two ([`time`]); numbers that only rise do so with spawns, starts
//! and upgrades, each of which costs a fault or an upgrade, or ends a wait that one caused; words are
//! dropped. Nothing else is pruned, and no symmetry is used.
//!
//! **What is coarser than the product**, and why that hides nothing: a step of a process is whole (what it
//! sent and nobody has read yet may turn out to be unsent when it dies); copying a state, hashing and
//! persisting are done at once (only their reports decide anything, and those can be late); a record is
//! appended, synced and acknowledged at once (that it is appended and not synced when its writer dies, or
//! when the sync fails, is a fault within); a supervisor that is stopped is one that is not scheduled.
//! Not modelled: rehearsals, damage below what was synced, chunk files, what a heartbeat's figures say.

pub mod arguments;
pub mod calm;
pub mod disk;
pub mod moves;
pub mod node;
pub mod plant;
pub mod property;
mod report;
pub mod supervisor;
pub mod time;
pub mod worker;
pub mod world;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use stateright::{Checker, HasDiscoveries, Model, Property};

use arguments::Arguments;
use calm::Calm;
use moves::{Game, Kind, Move};
use plant::Plant;
use world::{Left, Supervisor, World};

/// How often something was reached.
#[derive(Debug)]
pub struct Reached(BTreeMap<&'static str, AtomicU64>);

impl Reached {
    fn new(names: impl IntoIterator<Item = &'static str>) -> Reached {
        Reached(names.into_iter().map(|name| (name, AtomicU64::new(0))).collect())
    }

    fn count(&self, name: &'static str) {
        if let Some(count) = self.0.get(name) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// By name.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.0.iter().map(|(name, count)| (*name, count.load(Ordering::Relaxed))).collect()
    }
}

/// The model as the checker takes it.
#[derive(Debug)]
pub struct Checked {
    game: Game,
    left: Left,
    calm: Calm,
    phases: Arc<Reached>,
    recoveries: Arc<Reached>,
}

impl Checked {
    fn new(plant: Option<Plant>, kinds: &[Kind], left: Left) -> Checked {
        Checked {
            game: Game::new(plant, kinds.to_vec()),
            left,
            calm: Calm::default(),
            phases: Arc::new(Reached::new(time::PHASES)),
            recoveries: Arc::new(Reached::new(time::PHASES)),
        }
    }

    fn count(&self, world: &World, moves: &[Move]) {
        match &*world.supervisor {
            Supervisor::Running(running) => self.phases.count(time::phase(&running.state)),
            Supervisor::Starting(_) if moves.contains(&Move::Recovers) => {
                if let Some(after) = self.game.after(world, Move::Recovers)
                    && let Some(running) = after.running()
                {
                    self.recoveries.count(time::phase(&running.state));
                }
            }
            Supervisor::Absent | Supervisor::Starting(_) => {}
        }
    }

    fn holds(&self, property: &'static str, world: &World) -> Result<(), String> {
        match property {
            property::STEADY => self.calm.ends_steady(&self.game, world),
            property => property::holds(property, world),
        }
    }
}

impl Model for Checked {
    type State = World;
    type Action = Move;

    fn init_states(&self) -> Vec<World> {
        vec![World::steady(self.left), World::vacant(self.left)]
    }

    fn actions(&self, world: &World, moves: &mut Vec<Move>) {
        // What is broken is shown; what would follow from it is not of interest.
        if world.past.broken.is_some() {
            moves.clear();
            return;
        }
        self.game.all(world, moves);
        self.count(world, moves);
    }

    fn next_state(&self, world: &World, step: Move) -> Option<World> {
        self.game.after(world, step)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        use property as p;
        vec![
            Property::always(p::HOLDERS, |model: &Checked, world| model.holds(p::HOLDERS, world).is_ok()),
            Property::always(p::TERMS, |model: &Checked, world| model.holds(p::TERMS, world).is_ok()),
            Property::always(p::READABLE, |model: &Checked, world| model.holds(p::READABLE, world).is_ok()),
            Property::always(p::DURABLE, |model: &Checked, world| model.holds(p::DURABLE, world).is_ok()),
            Property::always(p::ONCE, |model: &Checked, world| model.holds(p::ONCE, world).is_ok()),
            Property::always(p::COMPLETE, |model: &Checked, world| model.holds(p::COMPLETE, world).is_ok()),
            Property::always(p::REMOVED, |model: &Checked, world| model.holds(p::REMOVED, world).is_ok()),
            Property::always(p::ALONE, |model: &Checked, world| model.holds(p::ALONE, world).is_ok()),
            Property::always(p::TAGS, |model: &Checked, world| model.holds(p::TAGS, world).is_ok()),
            Property::always(p::SOCKETS, |model: &Checked, world| model.holds(p::SOCKETS, world).is_ok()),
            Property::always(p::FORGONE, |model: &Checked, world| model.holds(p::FORGONE, world).is_ok()),
            Property::always(p::REVOKED, |model: &Checked, world| model.holds(p::REVOKED, world).is_ok()),
            Property::always(p::STEADY, |model: &Checked, world| model.holds(p::STEADY, world).is_ok()),
        ]
    }
}

/// Of what follows a state that does not end steady, so many steps are shown.
const SHOWN: usize = 40;

/// What a run explores.
#[derive(Clone, Debug)]
pub struct Run {
    /// A mistake that is planted.
    pub plant: Option<Plant>,
    /// How much may happen.
    pub left: Left,
    /// Faults of these sorts alone; none named: of all.
    pub kinds: Vec<Kind>,
    /// Stop after so many states.
    pub states: Option<usize>,
    /// Threads; with one, a counterexample is a shortest one.
    pub threads: usize,
}

/// What a run found.
#[derive(Debug)]
pub struct Found {
    /// States that were generated, repeated ones counted each time.
    pub generated: usize,
    /// Different ones.
    pub states: usize,
    /// Most steps from a first state.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// Whether all of them were looked at.
    pub complete: bool,
    /// How often the sequence was seen in each phase.
    pub phases: BTreeMap<&'static str, u64>,
    /// Where a start went on.
    pub recoveries: BTreeMap<&'static str, u64>,
    /// What does not hold.
    pub broken: Vec<Broken>,
}

/// A property that does not hold.
#[derive(Debug)]
pub struct Broken {
    /// Which.
    pub property: &'static str,
    /// How it is broken in the last state.
    pub how: String,
    /// The way there, a line for each step.
    pub steps: Vec<String>,
    /// What happens then without further faults, where that is what is wrong.
    pub then: Vec<String>,
}

/// Explores.
pub fn explore(run: Run) -> Found {
    let began = Instant::now();
    let model = Checked::new(run.plant, &run.kinds, run.left);
    let (phases, recoveries) = (model.phases.clone(), model.recoveries.clone());
    let finish = HasDiscoveries::AnyFailures;
    let mut builder = model.checker().threads(run.threads).finish_when(finish);
    if let Some(states) = run.states {
        builder = builder.target_state_count(states);
    }
    let checker = builder.spawn_bfs().join();
    let took = began.elapsed();
    let again = Checked::new(run.plant, &run.kinds, run.left);
    let mut broken = vec![];
    for (property, path) in checker.discoveries() {
        let last = path.last_state().clone();
        let how = again.holds(property, &last).err().unwrap_or_default();
        let steps = report::steps(&path.into_vec());
        let then = match property {
            property::STEADY => report::steps(&calm::continuation(&again.game, &last, SHOWN)),
            _ => vec![],
        };
        broken.push(Broken { property, how, steps, then });
    }
    broken.sort_by_key(|broken| broken.steps.len());
    Found {
        generated: checker.state_count(),
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        took,
        complete: checker.is_done() && broken.is_empty(),
        phases: phases.counts(),
        recoveries: recoveries.counts(),
        broken,
    }
}

/// The whole program. Exit codes: 0 everything holds (or everything planted was found), 1 it does not.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        for plant in Plant::ALL {
            println!("{:24} {}", plant.name(), plant.words());
        }
        return ExitCode::SUCCESS;
    }
    let good = match arguments.plant.as_deref() {
        None => report::whole(&arguments),
        Some("all") => report::planted(&arguments, &Plant::ALL),
        Some(name) => match Plant::named(name) {
            Some(plant) => report::planted(&arguments, &[plant]),
            None => {
                eprintln!("no mistake is called {name}; see --list");
                return ExitCode::from(2);
            }
        },
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

//! One step of the node, as it is being taken.

use bumpless_shared::control::Instance;
use bumpless_shared::link::Note;
use bumplessd::upgrade::Rules;

use super::plant::Plant;
use super::world::World;

/// What goes wrong within a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mishap {
    /// The supervisor is killed after so many effects of the step (orders are not counted: they may be
    /// unsent for longer).
    SupervisorDies(u8),
    /// The committed record cannot be written.
    RecordUnwritten,
    /// It is replaced, and whether it would survive a power loss is not known.
    RecordUnsynced,
    /// The same, and the supervisor is killed there.
    RecordUnsyncedAndDies,
    /// The journal cannot be written.
    JournalUnwritten,
    /// It is replaced, and whether it would survive a power loss is not known.
    JournalUnsynced,
    /// What was fetched, installed or to be executed is none.
    NotAcquired,
    /// The worker cannot make a logbook, or cannot make its database durable.
    NotPrepared,
    /// The taker cannot take over.
    NotTaken,
    /// The candidate takes the state in wrongly.
    TakenInWrongly,
    /// The writer is killed before it acknowledges, and what it wrote is not synced.
    WriterDies,
    /// The logbook cannot be written, and the record is not in it.
    LogbookUnwritten,
    /// The record is in it, and it cannot be synced.
    LogbookUnsynced,
    /// The database cannot be written: the worker writes nothing more.
    DatabaseFails,
}

/// What a step met that could have gone wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Met {
    /// Effects of the supervisor, without orders.
    pub effects: u8,
    /// The committed record was written.
    pub record: bool,
    /// The journal was written.
    pub journal: bool,
}

/// A step.
pub struct Node<'a> {
    /// As it is by now.
    pub world: World,
    /// The sequence's settings.
    pub rules: &'a Rules,
    /// A mistake that is planted.
    pub plant: Option<Plant>,
    /// What goes wrong in it.
    pub mishap: Option<Mishap>,
    /// What could have.
    pub met: Met,
    /// The mishap has happened; without it the step is none.
    pub happened: bool,
}

impl<'a> Node<'a> {
    /// Nothing has been done yet.
    pub fn new(world: World, rules: &'a Rules, plant: Option<Plant>, mishap: Option<Mishap>) -> Node<'a> {
        Node { world, rules, plant, mishap, met: Met::default(), happened: mishap.is_none() }
    }

    /// Whether this goes wrong now; it does so once.
    pub fn fails(&mut self, mishap: Mishap) -> bool {
        let now = self.mishap == Some(mishap) && !self.happened;
        self.happened |= now;
        now
    }

    /// Sends a note to another worker, if there is a wire; whether it was sent.
    pub fn note(&mut self, from: Instance, to: Instance, note: Note) -> bool {
        let open = self
            .world
            .workers
            .get(&from)
            .and_then(|process| process.wire(to))
            .is_some_and(|wire| wire.up && self.world.connected(from, wire));
        let Some(other) = self.world.process(to).filter(|_| open) else { return false };
        let Some(wire) = other.wires.iter_mut().find(|wire| wire.peer.instance == from) else { return false };
        wire.notes.push_back(note);
        true
    }
}

//! One state of the node: its processes, what is under way between them, and the disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bumpless_shared::control::{Generation, Incarnation, Instance, Order, Report, Sequence, Tag, Term};
use bumpless_shared::digest::Digest;
use bumpless_shared::link::Note;
use bumpless_shared::release::Release;
use bumpless_worker::lifecycle::{self, Life, Peer};
use bumpless_worker::state::{Position, Role};
use bumplessd::effects::journal::Journal;
use bumplessd::upgrade::recovery::Survivor;
use bumplessd::upgrade::state::Serving;
use bumplessd::upgrade::{State, Worker};

use super::disk::{Committed, Contents, Disk, Numbers, Twofold, Write};
use super::time::NOW;

/// A state of the node.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct World {
    /// The supervisor's process.
    pub supervisor: Arc<Supervisor>,
    /// The workers' living processes, by instance.
    pub workers: BTreeMap<Instance, Arc<Process>>,
    /// What is on the disk.
    pub disk: Arc<Disk>,
    /// What the publisher said last.
    pub published: Published,
    /// What may still happen.
    pub left: Left,
    /// What must not be forgotten.
    pub past: Past,
}

/// What the publisher said last of every release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Published {
    /// It may run.
    Allowed,
    /// It is revoked, and the supervisor knows; so does each that starts after it.
    Revoked,
}

/// How much may still happen that need not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Left {
    /// Faults, and an operator's changes of mind.
    pub faults: u8,
    /// Upgrades.
    pub upgrades: u8,
    /// Clients' writes, the highest number.
    pub writes: Write,
}

/// What invariants speak of and no process knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Past {
    /// The highest term that was ever held, and by whom.
    pub held: (Term, Instance),
    /// Which writes were acknowledged, and as which records.
    pub acked: Vec<(Write, Sequence)>,
    /// Of which generation the committed record was last begun to be written.
    pub recorded: Generation,
    /// An invariant that was broken in the step that led here, and how.
    pub broken: Option<(&'static str, String)>,
}

/// The supervisor's process.
#[derive(Clone, Debug, PartialEq, Hash)]
#[allow(clippy::large_enum_variant, reason = "it is behind an Arc, and nearly always the largest")]
pub enum Supervisor {
    /// Dead, or it has stopped.
    Absent,
    /// It has started, and hears or fences every worker.
    Starting(Starting),
    /// It supervises.
    Running(Running),
}

/// A supervisor that has just started.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Starting {
    /// Its number.
    pub incarnation: Incarnation,
    /// The committed pair, as read.
    pub committed: Option<Committed>,
    /// As read.
    pub journal: Journal,
    /// Whom it has to hear or to end.
    pub expected: BTreeSet<Instance>,
    /// Who came back.
    pub survivors: Vec<Survivor>,
    /// The channels of those who came.
    pub handles: BTreeMap<Instance, Handle>,
    /// Whether it has the sockets.
    pub sockets: bool,
}

/// A supervisor that supervises.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Running {
    /// Its number.
    pub incarnation: Incarnation,
    /// The sequence.
    pub state: State,
    /// As in memory.
    pub journal: Journal,
    /// Whether the disk says the same.
    pub written: bool,
    /// Living workers, and dead ones whose death it has not heard of.
    pub handles: BTreeMap<Instance, Handle>,
    /// What it has under way itself.
    pub own: VecDeque<Own>,
    /// Whether it has the sockets.
    pub sockets: bool,
    /// A removal was asked for and waits for the database to be durable.
    pub removing: bool,
}

/// A worker as the supervisor holds it.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Handle {
    /// Which.
    pub worker: Worker,
    /// What it said and nobody has heard yet.
    pub said: VecDeque<Up>,
    /// Whether its end of the channel is open.
    pub open: bool,
    /// That it is not was heard.
    pub closed: bool,
}

/// From a worker.
#[derive(Clone, Debug, PartialEq, Hash)]
pub enum Up {
    /// It greets.
    Greeting,
    /// It reports.
    Report(Report),
}

/// What the supervisor has under way itself.
#[derive(Clone, Debug, PartialEq, Hash)]
pub enum Own {
    /// A release is fetched.
    Fetch,
    /// It is installed.
    Install,
    /// A binary is verified and executed.
    Launch(Worker),
}

/// A worker's process.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Process {
    /// Which.
    pub worker: Worker,
    /// What it is.
    pub life: Life,
    /// SIGSTOP: it does nothing, and whoever listens hears nothing.
    pub stopped: bool,
    /// SIGKILL is on its way.
    pub doomed: bool,
    /// It holds the lock of its alive file, and the sockets.
    pub locked: bool,
    /// The way to the supervisor.
    pub control: Control,
    /// Orders it has not read.
    pub orders: VecDeque<Order>,
    /// Orders of a channel that is closed; only a planted mistake reads them.
    pub stale: VecDeque<Order>,
    /// The ways to other workers.
    pub wires: Vec<Wire>,
    /// Whether it has its database open.
    pub opened: bool,
    /// What its sequencer is, once there is one.
    pub role: Option<Role>,
    /// A logbook that is ready for this term.
    pub prepared: Option<Term>,
    /// The logbook that it follows.
    pub following: Option<Term>,
    /// Somebody waits to hear that it is level.
    pub awaited: bool,
    /// Its state is not what it should be.
    pub wrong: bool,
    /// Tags that it answers for.
    pub adopted: BTreeSet<Tag>,
    /// It looks for a moment to cut.
    pub moment: bool,
    /// What it finishes before it ends.
    pub ending: Ending,
    /// It gave its authority up for good.
    pub forwent: bool,
    /// It was ordered to resume.
    pub told_to_resume: bool,
}

/// The way from a worker to the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Control {
    /// Open.
    Open,
    /// The other end is closed; the worker has not noticed.
    Severed,
    /// It looks for a supervisor.
    Lost,
}

/// What a worker finishes before it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Nothing.
    No,
    /// It drains.
    Drain,
    /// It stops.
    Stop,
}

/// One end of a link.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Wire {
    /// To whom.
    pub peer: Peer,
    /// Both have greeted.
    pub up: bool,
    /// It was cut while both live.
    pub cut: bool,
    /// Notes that were not read yet.
    pub notes: VecDeque<Note>,
    /// Its end was noticed.
    pub closed: bool,
    /// The other's death was noticed.
    pub died: bool,
}

impl Process {
    /// It has just been executed.
    pub fn new(worker: Worker) -> Process {
        Process {
            worker,
            life: Life::default(),
            stopped: false,
            doomed: false,
            locked: false,
            control: Control::Open,
            orders: VecDeque::new(),
            stale: VecDeque::new(),
            wires: vec![],
            opened: false,
            role: None,
            prepared: None,
            following: None,
            awaited: false,
            wrong: false,
            adopted: BTreeSet::new(),
            moment: false,
            ending: Ending::No,
            forwent: false,
            told_to_resume: false,
        }
    }

    /// Whether it has authority.
    pub fn holds(&self) -> bool {
        matches!(self.role, Some(Role::Holding { .. }))
            || matches!(self.life.state(), lifecycle::State::Holding(_))
    }

    /// The wire to another worker.
    pub fn wire(&self, peer: Instance) -> Option<&Wire> {
        self.wires.iter().find(|wire| wire.peer.instance == peer)
    }

    /// The wire to the worker that its state is about.
    pub fn peer(&self) -> Option<Peer> {
        match self.life.state() {
            lifecycle::State::Standby(standby) => standby.peer,
            lifecycle::State::Holding(holding) => holding.pairing.peer(),
            lifecycle::State::Frozen(frozen) => Some(frozen.peer),
            lifecycle::State::Draining { peer, .. } => Some(*peer),
            lifecycle::State::Born
            | lifecycle::State::Opening { .. }
            | lifecycle::State::Ready { .. }
            | lifecycle::State::Ended => None,
        }
    }
}

impl World {
    /// A node on which nothing was ever installed.
    pub fn vacant(left: Left) -> World {
        let running = Running {
            incarnation: 1,
            state: State::Vacant,
            journal: Journal::default(),
            written: true,
            handles: BTreeMap::new(),
            own: VecDeque::new(),
            sockets: false,
            removing: false,
        };
        let numbers = Numbers { incarnation: 1, ..Numbers::default() };
        World {
            supervisor: Arc::new(Supervisor::Running(running)),
            workers: BTreeMap::new(),
            disk: Arc::new(Disk { numbers, ..Disk::default() }),
            published: Published::Allowed,
            left,
            past: Past::default(),
        }
    }

    /// A node that serves.
    pub fn steady(left: Left) -> World {
        let mut world = World::vacant(left);
        let worker = Worker { instance: 1, generation: 1, release: release(0), tag: 1 };
        let position = Position { term: 1, sequence: 0 };
        let disk = Arc::make_mut(&mut world.disk);
        disk.numbers = Numbers { incarnation: 1, instance: 1, generation: 1, term: 1 };
        disk.committed = Twofold::of(Some(Committed { release: release(0), generation: 1, term: 1 }));
        disk.generations.insert(1, Twofold::of(Contents { position, ..Contents::default() }));
        world.past.held = (1, 1);
        world.past.recorded = 1;
        if let Supervisor::Running(running) = Arc::make_mut(&mut world.supervisor) {
            running.state = State::Steady(Serving::new(worker.clone(), 1, NOW));
            running.sockets = true;
            let handle = Handle { worker: worker.clone(), said: VecDeque::new(), open: true, closed: false };
            running.handles.insert(1, handle);
        }
        let mut process = Process::new(worker);
        process.life = super::worker::holding(1);
        process.locked = true;
        process.opened = true;
        process.role = Some(Role::Holding { term: 1, logbook: bumpless_worker::state::Logbook::None });
        process.adopted = [2, 3].into();
        world.workers.insert(1, Arc::new(process));
        world
    }

    /// A worker's process, to be changed.
    pub fn process(&mut self, who: Instance) -> Option<&mut Process> {
        self.workers.get_mut(&who).map(Arc::make_mut)
    }

    /// A generation's database, to be changed.
    pub fn database(&mut self, generation: Generation) -> Option<&mut super::disk::Database> {
        Arc::make_mut(&mut self.disk).generations.get_mut(&generation)
    }

    /// The disk, to be changed.
    pub fn disk(&mut self) -> &mut Disk {
        Arc::make_mut(&mut self.disk)
    }

    /// The supervisor that supervises.
    pub fn running(&self) -> Option<&Running> {
        match &*self.supervisor {
            Supervisor::Running(running) => Some(running),
            Supervisor::Absent | Supervisor::Starting(_) => None,
        }
    }

    /// The same, to be changed.
    pub fn running_mut(&mut self) -> Option<&mut Running> {
        match Arc::make_mut(&mut self.supervisor) {
            Supervisor::Running(running) => Some(running),
            Supervisor::Absent | Supervisor::Starting(_) => None,
        }
    }

    /// What the supervisor has of a worker, to be changed.
    pub fn handle_mut(&mut self, who: Instance) -> Option<&mut Handle> {
        match Arc::make_mut(&mut self.supervisor) {
            Supervisor::Absent => None,
            Supervisor::Starting(starting) => starting.handles.get_mut(&who),
            Supervisor::Running(running) => running.handles.get_mut(&who),
        }
    }

    /// What the supervisor has of a worker.
    pub fn handle(&self, who: Instance) -> Option<&Handle> {
        match &*self.supervisor {
            Supervisor::Absent => None,
            Supervisor::Starting(starting) => starting.handles.get(&who),
            Supervisor::Running(running) => running.handles.get(&who),
        }
    }

    /// Notes that an invariant was broken, the first one if there are several.
    pub fn breaks(&mut self, property: &'static str, how: impl Into<String>) {
        if self.past.broken.is_none() {
            self.past.broken = Some((property, how.into()));
        }
    }

    /// Who has authority.
    pub fn holders(&self) -> impl Iterator<Item = &Process> {
        self.workers.values().map(|process| &**process).filter(|process| process.holds())
    }

    /// Whether the other end of a wire is still there.
    pub fn connected(&self, who: Instance, wire: &Wire) -> bool {
        use bumpless_shared::control::Command;
        let travels = |process: &Process| {
            process
                .orders
                .iter()
                .any(|order| matches!(&order.command, Command::Pair { peer, .. } if *peer == who))
        };
        !wire.cut
            && self
                .workers
                .get(&wire.peer.instance)
                .is_some_and(|other| other.wire(who).is_some_and(|back| !back.cut) || travels(other))
    }

    /// A worker is dead. What it sent and nobody has read is still read, or was not sent any more.
    pub fn die(&mut self, who: Instance, unsent: Unsent) {
        if self.workers.remove(&who).is_none() {
            return;
        }
        if let Some(handle) = self.handle_mut(who) {
            handle.open = false;
            if unsent.reports {
                handle.said.clear();
            }
        }
        if unsent.notes {
            for process in self.workers.values_mut() {
                if process.wire(who).is_some_and(|wire| !wire.notes.is_empty()) {
                    for wire in Arc::make_mut(process).wires.iter_mut() {
                        if wire.peer.instance == who {
                            wire.notes.clear();
                        }
                    }
                }
            }
        }
    }
}

/// What a process had not sent yet when it died.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Unsent {
    /// Its unread reports.
    pub reports: bool,
    /// Its unread notes.
    pub notes: bool,
}

/// The release with this number.
pub fn release(number: u8) -> Release {
    let version = format!("1.{number}.0").parse();
    // A version of digits and dots is one.
    let version = version.unwrap_or_else(|_| unreachable!("1.{number}.0 is a version"));
    Release { version, sha256: Digest([number; 32]) }
}

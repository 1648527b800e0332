//! What can happen next.
//!
//! Moves cost nothing: a message arrives, a step is taken, a process that was killed dies. Each can come at
//! any time, in any order with others, so every delay is among them. A deadline passes by itself where time
//! is all that is waited for, or when nothing else can happen; that it passes before is a fault.
//!
//! Faults come out of a budget, and so do an operator's changes of mind. Some happen between two moves, some
//! within one ([`Mishap`]).

use bumpless_shared::control::{Command, Instance, Suspicion};
use bumpless_shared::link::Note;
use bumpless_worker::lifecycle;
use bumplessd::upgrade::{Ask, Rules, State};

use super::disk::{Loss, Write};
use super::node::{Mishap, Node};
use super::plant::Plant;
use super::time;
use super::world::{Control, Ending, Published, Supervisor, Unsent, Up, World};

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Move {
    /// A process that was killed is dead.
    Dies(Instance, Unsent),
    /// A supervisor starts.
    Starts,
    /// It hears who a worker is that came back.
    TakesBack(Instance),
    /// It gives a worker up that does not come back.
    Fences(Instance),
    /// It has heard or fenced everybody, and goes on where things stand.
    Recovers,
    /// Two workers greet on their link; a candidate takes in the holder's state.
    Links(Instance, Instance),
    /// A worker takes an order in.
    Obeys(Instance),
    /// The planted mistake: one of an old channel.
    ObeysStale(Instance),
    /// A worker finds its control channel closed.
    FindsControlClosed(Instance),
    /// A worker tells a supervisor that has started who it is.
    Introduces(Instance),
    /// A worker reads what the other one wrote to it.
    ReadsNote(Instance, Instance),
    /// A worker finds the link to another closed.
    FindsLinkClosed(Instance, Instance),
    /// A worker finds another dead.
    FindsDead(Instance, Instance),
    /// A follower applies what is in the logbook.
    Applies(Instance),
    /// A suitable moment for the cut.
    Moment(Instance),
    /// A worker has drained, or finished, and ends.
    Ends(Instance),
    /// The supervisor hears what a worker said, or that it ended, or that its channel is closed.
    Hears(Instance),
    /// What the supervisor has under way itself is done.
    Does,
    /// The supervisor notices that a worker is silent.
    Silence(Instance),
    /// The supervisor tidies up.
    Tidies,
    /// A deadline of the supervisor passes.
    Deadline,
    /// A frozen worker suspects the other one.
    Suspects(Instance, Suspicion),
    /// A process that was stopped goes on.
    Continues(Instance),
    /// A client's write comes to the holder.
    Writes(Write),
    /// An operator asks for an upgrade.
    Upgrade,
    /// A fault, or an operator's change of mind.
    Fault(Fault),
}

/// What need not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// SIGKILL.
    Kill(Instance, Unsent),
    /// SIGSTOP.
    Stop(Instance),
    /// SIGKILL to the supervisor; what it had not sent is lost, or was sent.
    KillSupervisor {
        /// Lost.
        unsent: bool,
    },
    /// Every process is gone, and what was not durable in this way.
    PowerLoss {
        /// How bad it is for databases and logbooks.
        loss: Loss,
        /// Whether records that were replaced read as new.
        replaced: bool,
    },
    /// A control channel is closed while both live.
    CloseControl(Instance),
    /// A link is closed while both live.
    CloseLink(Instance, Instance),
    /// A deadline passes before what is under way is done.
    Late,
    /// A worker that lives is not heard for too long.
    Silent(Instance),
    /// A frozen worker suspects one that is well.
    Suspects(Instance, Suspicion),
    /// A worker that lives does not come back in time.
    Fenced(Instance),
    /// An operator takes an upgrade back.
    Rollback,
    /// An operator stops the node.
    StopNode,
    /// A look at the feed shows that the publisher has revoked every release.
    Revokes,
    /// Something goes wrong within a move.
    Within(Inner, Mishap),
}

/// What sort of fault it is; a run may be about some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// A worker is killed.
    Kill,
    /// A worker is stopped.
    Stop,
    /// The supervisor is killed.
    Supervisor,
    /// The power fails.
    Power,
    /// A channel or a link is closed while both ends live.
    Channel,
    /// Something comes too late, or somebody is suspected without reason.
    Late,
    /// The supervisor's records cannot be written.
    Record,
    /// Anything that a worker's part of the disk, or a release, may fail in.
    Storage,
    /// An operator's change of mind.
    Operator,
    /// The publisher's.
    Publisher,
}

impl Fault {
    /// Of what sort it is.
    pub fn kind(self) -> Kind {
        match self {
            Fault::Kill(..) | Fault::Within(_, Mishap::WriterDies) => Kind::Kill,
            Fault::Stop(_) => Kind::Stop,
            Fault::KillSupervisor { .. }
            | Fault::Within(_, Mishap::SupervisorDies(_) | Mishap::RecordUnsyncedAndDies) => Kind::Supervisor,
            Fault::PowerLoss { .. } => Kind::Power,
            Fault::CloseControl(_) | Fault::CloseLink(..) => Kind::Channel,
            Fault::Late | Fault::Silent(_) | Fault::Suspects(..) | Fault::Fenced(_) => Kind::Late,
            Fault::Within(
                _,
                Mishap::RecordUnwritten
                | Mishap::RecordUnsynced
                | Mishap::JournalUnwritten
                | Mishap::JournalUnsynced,
            ) => Kind::Record,
            Fault::Within(
                _,
                Mishap::NotAcquired
                | Mishap::NotPrepared
                | Mishap::NotTaken
                | Mishap::TakenInWrongly
                | Mishap::LogbookUnwritten
                | Mishap::LogbookUnsynced
                | Mishap::DatabaseFails,
            ) => Kind::Storage,
            Fault::Rollback | Fault::StopNode => Kind::Operator,
            Fault::Revokes => Kind::Publisher,
        }
    }
}

/// A move within which something goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Inner {
    /// See [`Move`].
    Recovers,
    /// See [`Move`].
    Links(Instance, Instance),
    /// See [`Move`].
    Obeys(Instance),
    /// See [`Move`].
    ReadsNote(Instance, Instance),
    /// See [`Move`].
    Hears(Instance),
    /// See [`Move`].
    Does,
    /// See [`Move`].
    Silence(Instance),
    /// See [`Move`].
    Tidies,
    /// See [`Move`].
    Deadline,
    /// See [`Move`].
    Writes(Write),
    /// See [`Move`].
    Upgrade,
}

impl Inner {
    /// The move itself.
    pub fn as_move(self) -> Move {
        match self {
            Inner::Recovers => Move::Recovers,
            Inner::Links(one, other) => Move::Links(one, other),
            Inner::Obeys(who) => Move::Obeys(who),
            Inner::ReadsNote(who, peer) => Move::ReadsNote(who, peer),
            Inner::Hears(who) => Move::Hears(who),
            Inner::Does => Move::Does,
            Inner::Silence(who) => Move::Silence(who),
            Inner::Tidies => Move::Tidies,
            Inner::Deadline => Move::Deadline,
            Inner::Writes(write) => Move::Writes(write),
            Inner::Upgrade => Move::Upgrade,
        }
    }

    /// The supervisor's moves, within which it may die or its records fail.
    fn of_supervisor(step: Move) -> Option<Inner> {
        Some(match step {
            Move::Recovers => Inner::Recovers,
            Move::Hears(who) => Inner::Hears(who),
            Move::Does => Inner::Does,
            Move::Silence(who) => Inner::Silence(who),
            Move::Tidies => Inner::Tidies,
            Move::Deadline => Inner::Deadline,
            Move::Upgrade => Inner::Upgrade,
            Move::Dies(..)
            | Move::Starts
            | Move::TakesBack(_)
            | Move::Fences(_)
            | Move::Links(..)
            | Move::Obeys(_)
            | Move::ObeysStale(_)
            | Move::FindsControlClosed(_)
            | Move::Introduces(_)
            | Move::ReadsNote(..)
            | Move::FindsLinkClosed(..)
            | Move::FindsDead(..)
            | Move::Applies(_)
            | Move::Moment(_)
            | Move::Ends(_)
            | Move::Suspects(..)
            | Move::Continues(_)
            | Move::Writes(_)
            | Move::Fault(_) => return None,
        })
    }
}

/// The rules by which moves are found and made.
#[derive(Clone, Debug)]
pub struct Game {
    /// The sequence's settings.
    pub rules: Rules,
    /// The same once everything is revoked.
    pub revoked: Rules,
    /// A mistake that is planted.
    pub plant: Option<Plant>,
    /// Faults of these sorts alone; none named: of all.
    pub kinds: Vec<Kind>,
}

impl Game {
    /// As it is, or with a mistake.
    pub fn new(plant: Option<Plant>, kinds: Vec<Kind>) -> Game {
        Game { rules: time::rules(), revoked: time::rules_of_revoked(), plant, kinds }
    }

    fn rules(&self, world: &World) -> &Rules {
        match world.published {
            Published::Allowed => &self.rules,
            Published::Revoked => &self.revoked,
        }
    }

    /// Everything that happens by itself, the most urgent first: what without further faults and without
    /// clients or operators happens next is the first of these.
    pub fn by_itself(&self, world: &World) -> Vec<Move> {
        let mut moves = vec![];
        for process in world.workers.values().filter(|process| process.doomed) {
            moves.push(Move::Dies(process.worker.instance, Unsent::default()));
        }
        self.of_starting(world, &mut moves);
        self.of_workers(world, &mut moves);
        self.of_running(world, &mut moves);
        moves
    }

    fn of_starting(&self, world: &World, moves: &mut Vec<Move>) {
        match &*world.supervisor {
            Supervisor::Absent => moves.push(Move::Starts),
            Supervisor::Starting(starting) => {
                for (who, handle) in &starting.handles {
                    if starting.expected.contains(who) && matches!(handle.said.front(), Some(Up::Report(_))) {
                        moves.push(Move::TakesBack(*who));
                    }
                }
                let mut waits = false;
                for who in &starting.expected {
                    let Some(process) = world.workers.get(who) else { continue };
                    waits = true;
                    if process.stopped && !process.doomed {
                        moves.push(Move::Fences(*who));
                    }
                }
                if !waits {
                    moves.push(Move::Recovers);
                }
            }
            Supervisor::Running(_) => {}
        }
    }

    fn of_workers(&self, world: &World, moves: &mut Vec<Move>) {
        for (who, process) in &world.workers {
            let who = *who;
            if process.stopped {
                // Whom no supervisor knows, none can end: it has not even its lock yet.
                if !process.locked && !process.doomed && process.control != Control::Open {
                    moves.push(Move::Continues(who));
                }
                continue;
            }
            for wire in &process.wires {
                let peer = wire.peer.instance;
                let connected = world.connected(who, wire);
                let other = world.workers.get(&peer);
                if !wire.notes.is_empty() {
                    moves.push(Move::ReadsNote(who, peer));
                } else if !connected && !wire.closed {
                    moves.push(Move::FindsLinkClosed(who, peer));
                }
                if other.is_none() && !wire.died {
                    moves.push(Move::FindsDead(who, peer));
                }
                let holds = process.holds();
                let first = other.is_some_and(|other| holds || (!other.holds() && who < peer));
                if first
                    && connected
                    && !wire.up
                    && other.is_some_and(|other| !other.stopped && other.wire(who).is_some())
                {
                    moves.push(Move::Links(who, peer));
                }
            }
            if !process.orders.is_empty() && process.control != Control::Lost {
                moves.push(Move::Obeys(who));
            }
            if process.control == Control::Severed {
                moves.push(Move::FindsControlClosed(who));
            }
            if process.control == Control::Lost
                && process.life.role().is_some()
                && let Supervisor::Starting(starting) = &*world.supervisor
                && starting.expected.contains(&who)
                && !starting.handles.contains_key(&who)
            {
                moves.push(Move::Introduces(who));
            }
            let linked = process
                .peer()
                .and_then(|peer| process.wire(peer.instance))
                .is_some_and(|wire| wire.up && world.connected(who, wire));
            if linked && behind(world, who) {
                moves.push(Move::Applies(who));
            }
            if process.moment {
                moves.push(Move::Moment(who));
            }
            if process.ending != Ending::No {
                moves.push(Move::Ends(who));
            }
            if !process.stale.is_empty() && process.control == Control::Open {
                moves.push(Move::ObeysStale(who));
            }
        }
    }

    fn of_running(&self, world: &World, moves: &mut Vec<Move>) {
        let Some(running) = world.running() else { return };
        for (who, handle) in &running.handles {
            let lives = world.workers.contains_key(who);
            if !handle.said.is_empty() || !lives || (!handle.open && !handle.closed) {
                moves.push(Move::Hears(*who));
            }
        }
        if !running.own.is_empty() {
            moves.push(Move::Does);
        }
        for who in time::listened_to(&running.state, &self.rules) {
            if world.workers.get(&who).is_some_and(|process| process.stopped && !process.doomed) {
                moves.push(Move::Silence(who));
            }
        }
        if !running.written || self.may_tidy(world) {
            moves.push(Move::Tidies);
        }
        if time::has_deadline(&running.state, &self.rules)
            && (moves.is_empty() || time::passes_by_itself(&running.state))
        {
            moves.push(Move::Deadline);
        }
    }

    /// Whether something can be removed and nothing is under way with its holder: it is asked again only
    /// after some seconds.
    fn may_tidy(&self, world: &World) -> bool {
        let Some(running) = world.running() else { return false };
        let Some((holder, _)) = running.journal.owed(&running.state) else { return false };
        let silent = |handle: &super::world::Handle| handle.said.is_empty();
        world.workers.get(&holder).is_none_or(|process| process.orders.is_empty())
            && running.handles.get(&holder).is_none_or(silent)
    }

    /// Everything that can happen.
    pub fn all(&self, world: &World, moves: &mut Vec<Move>) {
        *moves = self.by_itself(world);
        let own = moves.len();
        for process in world.workers.values() {
            let who = process.worker.instance;
            if process.doomed && unread(world, who) != Unsent::default() {
                moves.push(Move::Dies(who, unread(world, who)));
            }
            if process.stopped && !process.doomed {
                moves.push(Move::Continues(who));
            }
            if let Some((Some(true), suspected)) = suspects(world, who)
                && !suspected
            {
                moves.push(Move::Suspects(who, Suspicion::Silent));
            }
        }
        if let Some(write) = next_write(world) {
            moves.push(Move::Writes(write));
        }
        if world.left.upgrades > 0
            && world
                .running()
                .is_some_and(|running| matches!(running.state, State::Vacant | State::Steady(_)))
        {
            moves.push(Move::Upgrade);
        }
        if world.left.faults > 0 {
            self.faults(world, own, moves);
        }
    }

    fn faults(&self, world: &World, own: usize, moves: &mut Vec<Move>) {
        let mut faults = vec![];
        for process in world.workers.values() {
            let who = process.worker.instance;
            if !process.doomed {
                let Unsent { reports, notes } = unread(world, who);
                for unsent in [
                    Unsent::default(),
                    Unsent { reports: true, notes: false },
                    Unsent { reports: false, notes: true },
                    Unsent { reports: true, notes: true },
                ] {
                    if (reports || !unsent.reports) && (notes || !unsent.notes) {
                        faults.push(Fault::Kill(who, unsent));
                    }
                }
                if !process.stopped {
                    faults.push(Fault::Stop(who));
                }
                if world.handle(who).is_some_and(|handle| handle.open) && process.control == Control::Open {
                    faults.push(Fault::CloseControl(who));
                }
            }
            for wire in &process.wires {
                let peer = wire.peer.instance;
                if who < peer && wire.up && world.connected(who, wire) {
                    faults.push(Fault::CloseLink(who, peer));
                }
            }
            if let Some((Some(false), suspected)) = suspects(world, who)
                && !suspected
            {
                faults.push(Fault::Suspects(who, Suspicion::Silent));
                faults.push(Fault::Suspects(who, Suspicion::Wrong));
            }
        }
        match &*world.supervisor {
            Supervisor::Absent => {}
            Supervisor::Starting(starting) => {
                faults.push(Fault::KillSupervisor { unsent: false });
                for who in &starting.expected {
                    if world.workers.get(who).is_some_and(|process| !process.stopped && !process.doomed) {
                        faults.push(Fault::Fenced(*who));
                    }
                }
            }
            Supervisor::Running(running) => {
                faults.push(Fault::KillSupervisor { unsent: false });
                if world.workers.values().any(|process| !process.orders.is_empty()) {
                    faults.push(Fault::KillSupervisor { unsent: true });
                }
                if running.state.attempt().is_some() {
                    faults.push(Fault::Rollback);
                }
                if !matches!(running.state, State::Stopping { .. } | State::Stopped) {
                    faults.push(Fault::StopNode);
                    if world.published == Published::Allowed {
                        faults.push(Fault::Revokes);
                    }
                }
                if time::has_deadline(&running.state, &self.rules) && !moves[..own].contains(&Move::Deadline)
                {
                    faults.push(Fault::Late);
                }
                for who in time::listened_to(&running.state, &self.rules) {
                    if world.workers.get(&who).is_some_and(|process| !process.stopped && !process.doomed) {
                        faults.push(Fault::Silent(who));
                    }
                }
            }
        }
        for loss in Loss::ALL {
            for replaced in [false, true] {
                let two = world.disk.committed.reads != world.disk.committed.durable
                    || world.disk.journal.reads != world.disk.journal.durable;
                if replaced || two {
                    faults.push(Fault::PowerLoss { loss, replaced });
                }
            }
        }
        for step in moves.iter().copied() {
            self.within(world, step, &mut faults);
        }
        faults.retain(|fault| self.kinds.is_empty() || self.kinds.contains(&fault.kind()));
        moves.extend(faults.into_iter().map(Move::Fault));
    }

    /// What can go wrong within a move.
    fn within(&self, world: &World, step: Move, faults: &mut Vec<Fault>) {
        if let Some(inner) = Inner::of_supervisor(step) {
            let mut node = Node::new(world.clone(), self.rules(world), self.plant, None);
            if self.make(&mut node, step).is_none() {
                return;
            }
            for effects in 1..node.met.effects {
                faults.push(Fault::Within(inner, Mishap::SupervisorDies(effects)));
            }
            if node.met.record {
                for mishap in [Mishap::RecordUnwritten, Mishap::RecordUnsynced, Mishap::RecordUnsyncedAndDies]
                {
                    faults.push(Fault::Within(inner, mishap));
                }
            }
            if node.met.journal {
                for mishap in [Mishap::JournalUnwritten, Mishap::JournalUnsynced] {
                    faults.push(Fault::Within(inner, mishap));
                }
            }
            if step == Move::Does {
                faults.push(Fault::Within(inner, Mishap::NotAcquired));
            }
        }
        match step {
            Move::Links(one, other) => {
                faults.push(Fault::Within(Inner::Links(one, other), Mishap::TakenInWrongly));
            }
            Move::Obeys(who) => {
                let order = world.workers.get(&who).and_then(|process| process.orders.front());
                if let Some(Command::Prepare { .. }) = order.map(|order| &order.command) {
                    faults.push(Fault::Within(Inner::Obeys(who), Mishap::NotPrepared));
                }
            }
            Move::ReadsNote(who, peer) => {
                let wire = world.workers.get(&who).and_then(|process| process.wire(peer));
                if let Some(Note::Yield { .. }) = wire.and_then(|wire| wire.notes.front()) {
                    faults.push(Fault::Within(Inner::ReadsNote(who, peer), Mishap::NotTaken));
                }
            }
            Move::Writes(write) => {
                for mishap in [
                    Mishap::WriterDies,
                    Mishap::LogbookUnwritten,
                    Mishap::LogbookUnsynced,
                    Mishap::DatabaseFails,
                ] {
                    faults.push(Fault::Within(Inner::Writes(write), mishap));
                }
            }
            _ => {}
        }
    }

    /// The state after a move; `None` where it is none after all.
    pub fn after(&self, world: &World, step: Move) -> Option<World> {
        let mut world = world.clone();
        world.past.broken = None;
        let (step, mishap) = match step {
            Move::Fault(fault) => {
                world.left.faults -= 1;
                match fault {
                    Fault::Within(inner, mishap) => (inner.as_move(), Some(mishap)),
                    Fault::Kill(..)
                    | Fault::Stop(_)
                    | Fault::KillSupervisor { .. }
                    | Fault::PowerLoss { .. }
                    | Fault::CloseControl(_)
                    | Fault::CloseLink(..)
                    | Fault::Late
                    | Fault::Silent(_)
                    | Fault::Suspects(..)
                    | Fault::Fenced(_)
                    | Fault::Rollback
                    | Fault::StopNode
                    | Fault::Revokes => (step, None),
                }
            }
            step => (step, None),
        };
        if step == Move::Fault(Fault::Revokes) {
            world.published = Published::Revoked;
        }
        let rules = self.rules(&world);
        let mut node = Node::new(world, rules, self.plant, mishap);
        self.make(&mut node, step)?;
        node.happened.then_some(node.world)
    }

    fn make(&self, node: &mut Node<'_>, step: Move) -> Option<()> {
        match step {
            Move::Dies(who, unsent) => node.world.die(who, unsent),
            Move::Starts => node.start_supervisor(),
            Move::TakesBack(who) => node.take_back(who)?,
            Move::Fences(who) => node.world.process(who)?.doomed = true,
            Move::Recovers => node.recover()?,
            Move::Links(one, other) => node.link(one, other)?,
            Move::Obeys(who) => node.obey(who, false)?,
            Move::ObeysStale(who) => node.obey(who, true)?,
            Move::FindsControlClosed(who) => node.find_control_closed(who)?,
            Move::Introduces(who) => node.introduce(who)?,
            Move::ReadsNote(who, peer) => node.read_note(who, peer)?,
            Move::FindsLinkClosed(who, peer) => node.find_link_closed(who, peer)?,
            Move::FindsDead(who, peer) => node.find_dead(who, peer)?,
            Move::Applies(who) => node.apply(who)?,
            Move::Moment(who) => {
                node.world.process(who)?.moment = false;
                node.event(who, lifecycle::Event::Moment);
            }
            Move::Ends(who) => node.end(who)?,
            Move::Hears(who) => node.hear(who)?,
            Move::Does => node.own()?,
            Move::Silence(who) => node.silence(who)?,
            Move::Tidies => node.tidy()?,
            Move::Deadline => node.deadline()?,
            Move::Suspects(who, kind) => node.suspect(who, kind),
            Move::Continues(who) => node.world.process(who)?.stopped = false,
            Move::Writes(write) => {
                let holder = node.world.holders().next()?.worker.instance;
                node.client_writes(holder, write)?;
            }
            Move::Upgrade => {
                node.world.left.upgrades -= 1;
                let number = node.world.disk.numbers.generation as u8 + 1;
                node.upgrade(number)?;
            }
            Move::Fault(fault) => self.make_fault(node, fault)?,
        }
        Some(())
    }

    fn make_fault(&self, node: &mut Node<'_>, fault: Fault) -> Option<()> {
        match fault {
            Fault::Kill(who, unsent) => node.world.die(who, unsent),
            Fault::Stop(who) => node.world.process(who)?.stopped = true,
            Fault::KillSupervisor { unsent } => node.kill_supervisor(unsent),
            Fault::PowerLoss { loss, replaced } => {
                node.world.workers.clear();
                node.world.supervisor = std::sync::Arc::new(Supervisor::Absent);
                node.world.disk().lose_power(loss, replaced);
            }
            Fault::CloseControl(who) => {
                node.world.process(who)?.control = Control::Severed;
                node.world.handle_mut(who)?.open = false;
            }
            Fault::CloseLink(who, peer) => {
                for (one, other) in [(who, peer), (peer, who)] {
                    let wire =
                        node.world.process(one)?.wires.iter_mut().find(|wire| wire.peer.instance == other);
                    wire?.cut = true;
                }
            }
            Fault::Late => node.deadline()?,
            Fault::Silent(who) => node.silence(who)?,
            Fault::Suspects(who, kind) => node.suspect(who, kind),
            Fault::Fenced(who) => node.world.process(who)?.doomed = true,
            Fault::Rollback => node.ask(Ask::Rollback { uid: 0 }),
            Fault::StopNode => node.ask(Ask::Stop),
            Fault::Revokes => node.ask(Ask::Reconsider),
            Fault::Within(..) => return None,
        }
        Some(())
    }
}

/// What of a worker nobody has read.
fn unread(world: &World, who: Instance) -> Unsent {
    let reports = world.handle(who).is_some_and(|handle| !handle.said.is_empty());
    let notes =
        world.workers.values().any(|process| process.wire(who).is_some_and(|wire| !wire.notes.is_empty()));
    Unsent { reports, notes }
}

fn behind(world: &World, who: Instance) -> bool {
    let Some(process) = world.workers.get(&who) else { return false };
    let Some(term) = process.following else { return false };
    if process.role.is_none_or(|role| role.follows().is_err()) {
        return false;
    }
    let own = process.worker.generation;
    let applied = world.disk.generations.get(&own).map_or(0, |database| database.reads.position.sequence);
    let last = world.disk.logs.get(&term).and_then(|log| log.records.last());
    process.awaited || last.is_some_and(|last| last.sequence > applied)
}

/// Of a frozen worker: whether the other one is stopped (`None`: it is dead), and whether it was suspected
/// already.
fn suspects(world: &World, who: Instance) -> Option<(Option<bool>, bool)> {
    use bumpless_shared::control::Report;
    let process = world.workers.get(&who).filter(|process| !process.stopped)?;
    let lifecycle::State::Frozen(frozen) = process.life.state() else { return None };
    let other = world.workers.get(&frozen.peer.instance);
    let suspected = process.control == Control::Open
        && world.handle(who).is_some_and(|handle| {
            handle.said.iter().any(|up| matches!(up, Up::Report(Report::Suspect { .. })))
        });
    Some((other.map(|other| other.stopped || other.doomed), suspected))
}

/// The first write that was not acknowledged, if there is somebody to take it.
fn next_write(world: &World) -> Option<Write> {
    let holder = world.holders().next()?;
    if holder.stopped || holder.role?.route().is_err() || holder.ending != Ending::No {
        return None;
    }
    (1..=world.left.writes).find(|write| !world.past.acked.iter().any(|(acked, _)| acked == write))
}

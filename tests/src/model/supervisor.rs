//! The supervisor's process: the product's sequence and recovery, and around them what its edge does.
//!
//! An event is taken in, with all that its effects bring about at once, in one step, as in the driver.
//! Orders are queued, so that whoever they are for sees them any time later, or never, should the
//! supervisor die. A kill is sent at once and takes effect any time later.

use std::collections::VecDeque;
use std::sync::Arc;

use bumpless_os::process::Ending;
use bumpless_shared::control::{
    Command, Durability, Instance, Order, Origin, Report, RoutingKeys, Start, Timing,
};
use bumplessd::effects::journal::{Journal, replayed};
use bumplessd::upgrade::recovery::{Found, Intent, Survivor, recover};
use bumplessd::upgrade::{
    Acquired, Ask, Attempt, Effect, Event, Launched, Moment, RecordTerm, Said, State, Stored, Terms, Verdict,
    Worker,
};

use super::disk::{Committed, Twofold};
use super::node::{Mishap, Node};
use super::plant::{self, Plant};
use super::property;
use super::time::{self, NOW};
use super::world::{Control, Handle, Own, Process, Published, Running, Starting, Supervisor, Up};

/// Whether the supervisor outlived what it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alive {
    Yes,
    No,
}

impl Node<'_> {
    /// A supervisor starts: it reads its records, which are durable as read, and asks who lives.
    pub fn start_supervisor(&mut self) {
        let synced = self.plant != Some(Plant::UnsyncedRecord);
        let disk = self.world.disk();
        if synced {
            disk.committed.sync();
        }
        disk.journal.sync();
        disk.numbers.incarnation += 1;
        let starting = Starting {
            incarnation: disk.numbers.incarnation,
            committed: disk.committed.reads.clone(),
            journal: disk.journal.reads.clone(),
            expected: self
                .world
                .workers
                .values()
                .filter(|process| process.locked)
                .map(|process| process.worker.instance)
                .collect(),
            survivors: vec![],
            handles: Default::default(),
            sockets: false,
        };
        self.world.supervisor = Arc::new(Supervisor::Starting(starting));
    }

    /// A worker that came back says who it is.
    pub fn take_back(&mut self, who: Instance) -> Option<()> {
        let Supervisor::Starting(starting) = Arc::make_mut(&mut self.world.supervisor) else { return None };
        let handle = starting.handles.get_mut(&who)?;
        let Up::Report(Report::Identity(identity)) = handle.said.pop_front()? else { return None };
        starting.expected.remove(&who);
        starting.sockets = true;
        starting.survivors.push(Survivor { worker: handle.worker.clone(), role: identity.role });
        Some(())
    }

    /// Everybody was heard or is dead: what now?
    pub fn recover(&mut self) -> Option<()> {
        let Supervisor::Starting(starting) = Arc::make_mut(&mut self.world.supervisor) else { return None };
        let Starting { incarnation, committed, journal, survivors, handles, sockets, .. } =
            std::mem::replace(starting, Starting::nobody());
        let found = Found {
            committed: committed.map(|committed| (committed.release, committed.generation)),
            intent: journal.intent.clone(),
            alive: survivors,
        };
        let (state, effects) = plant::recover(self.plant, found, recover, self.rules);
        let running = Running {
            incarnation,
            state: time::settled(state),
            journal,
            written: true,
            handles,
            own: VecDeque::new(),
            sockets,
            removing: false,
        };
        self.world.supervisor = Arc::new(Supervisor::Running(running));
        self.perform_and_feed(effects);
        self.ask(Ask::Reconsider);
        Some(())
    }

    /// The next from a worker: what it said, that it ended, or that its channel is closed.
    pub fn hear(&mut self, who: Instance) -> Option<()> {
        let lives = self.world.workers.contains_key(&who);
        let handle = self.world.running_mut()?.handles.get_mut(&who)?;
        match handle.said.pop_front() {
            Some(Up::Greeting) => self.feed(Event::Said(who, Said::Greeting)),
            Some(Up::Report(report)) => self.take_in(who, report),
            None if !lives => {
                self.world.running_mut()?.handles.remove(&who);
                self.feed(Event::Ended(who, Ending::Unknown));
            }
            None if !handle.open && !handle.closed => {
                handle.closed = true;
                self.feed(Event::Closed(who));
            }
            None => return None,
        }
        Some(())
    }

    fn take_in(&mut self, who: Instance, report: Report) {
        if let Report::Ready { term, generations, .. } = &report {
            let generation = generations.iter().copied().max().unwrap_or(0);
            let numbers = &mut self.world.disk().numbers;
            numbers.term = numbers.term.max(*term);
            numbers.generation = numbers.generation.max(generation);
        }
        let Some(running) = self.world.running_mut() else { return };
        let logs = replayed(&running.state, &report);
        if !logs.is_empty() && self.write_journal(|journal| journal.discard(logs, vec![])) == Alive::No {
            return;
        }
        match &report {
            Report::Persisted { .. } => self.persisted(who),
            Report::Removed { logs, generations } => {
                self.write_journal(|journal| journal.removed(logs, generations));
            }
            _ => {}
        }
        if let Some(said) = Said::of(report) {
            self.feed(Event::Said(who, said));
        }
    }

    /// What it has under way itself comes to its end.
    pub fn own(&mut self) -> Option<()> {
        let own = self.world.running_mut()?.own.pop_front()?;
        let failed = self.fails(Mishap::NotAcquired);
        let not = || Verdict::Unknown(String::new());
        match own {
            Own::Fetch | Own::Install if failed => self.feed(Event::Acquired(Acquired::Failed(not()))),
            Own::Fetch => self.feed(Event::Acquired(Acquired::Fetched)),
            Own::Install => self.feed(Event::Acquired(Acquired::Installed)),
            Own::Launch(_) if failed => self.feed(Event::Launched(Launched::Failed(not()))),
            Own::Launch(worker) => {
                let instance = worker.instance;
                self.world.workers.insert(instance, Arc::new(Process::new(worker.clone())));
                let said = VecDeque::from([Up::Greeting]);
                let handle = Handle { worker: worker.clone(), said, open: true, closed: false };
                self.world.running_mut()?.handles.insert(instance, handle);
                self.feed(Event::Launched(Launched::Running(worker)));
            }
        }
        Some(())
    }

    /// Time passes: a deadline.
    pub fn deadline(&mut self) -> Option<()> {
        let running = self.world.running_mut()?;
        let (state, now) = time::due(std::mem::replace(&mut running.state, State::Stopped));
        running.state = state;
        self.feed_at(Event::Tick, now);
        Some(())
    }

    /// Time passes: a worker was not heard for too long.
    pub fn silence(&mut self, who: Instance) -> Option<()> {
        let running = self.world.running_mut()?;
        let (state, now) = time::silent(std::mem::replace(&mut running.state, State::Stopped), who);
        running.state = state;
        self.feed_at(Event::Tick, now);
        Some(())
    }

    /// An operator asks for the next release, if one may be begun.
    pub fn upgrade(&mut self, number: u8) -> Option<()> {
        let from = self.world.disk.committed.reads.as_ref().map(|committed| committed.release.clone());
        let attempt: Attempt = time::attempt(from, super::world::release(number));
        self.feed(Event::Asked(Ask::Upgrade { attempt, installed: false }));
        Some(())
    }

    /// An operator asks.
    pub fn ask(&mut self, ask: Ask) {
        self.feed(Event::Asked(ask));
    }

    /// Writes what could not be written, has removed what nobody needs.
    pub fn tidy(&mut self) -> Option<()> {
        if !self.world.running()?.written && self.write_journal(|_| ()) == Alive::No {
            return Some(());
        }
        let running = self.world.running_mut()?;
        if let Some((holder, _)) = running.journal.owed(&running.state) {
            running.removing = true;
            self.tell(holder, Command::Persist);
        }
        Some(())
    }

    fn persisted(&mut self, from: Instance) {
        let Some(running) = self.world.running_mut() else { return };
        if running.state.serving().is_some_and(|serving| serving.worker.instance == from)
            && std::mem::take(&mut running.removing)
            && let Some((holder, command)) = running.journal.owed(&running.state)
        {
            self.tell(holder, command);
        }
    }

    fn feed(&mut self, event: Event) {
        self.feed_at(event, NOW);
    }

    fn feed_at(&mut self, event: Event, now: Moment) {
        let mut events = VecDeque::from([event]);
        let mut now = now;
        while let Some(event) = events.pop_front() {
            let (plant, rules) = (self.plant, self.rules);
            let Some(running) = self.world.running_mut() else { return };
            let before = std::mem::replace(&mut running.state, State::Stopped);
            let (state, effects) = plant::step(plant, before, event, now, rules);
            running.state = time::settled(state);
            now = NOW;
            match self.perform_all(effects) {
                Some(more) => events.extend(more),
                None => return,
            }
        }
        self.stopped();
    }

    fn perform_and_feed(&mut self, effects: Vec<Effect>) {
        if let Some(events) = self.perform_all(effects) {
            for event in events {
                self.feed(event);
            }
        }
    }

    /// A supervisor whose work is done ends.
    fn stopped(&mut self) {
        if self.world.running().is_some_and(|running| running.state == State::Stopped) {
            self.kill_supervisor(false);
        }
    }

    /// It is gone, and with it what it had not sent yet.
    pub fn kill_supervisor(&mut self, unsent: bool) {
        self.world.supervisor = Arc::new(Supervisor::Absent);
        for process in self.world.workers.values_mut() {
            if process.control == Control::Open {
                let process = Arc::make_mut(process);
                process.control = Control::Severed;
                if unsent {
                    process.orders.clear();
                }
            }
        }
    }

    /// Performs effects in order; `None` if the supervisor is killed in the middle.
    fn perform_all(&mut self, effects: Vec<Effect>) -> Option<Vec<Event>> {
        let mut events = vec![];
        for effect in effects {
            let counts = !matches!(effect, Effect::Tell(..) | Effect::Alarm(_));
            if counts {
                if self.mishap == Some(Mishap::SupervisorDies(self.met.effects)) && self.met.effects > 0 {
                    self.happened = true;
                    self.kill_supervisor(false);
                    return None;
                }
                self.met.effects += 1;
            }
            events.extend(self.perform(effect));
            self.world.running()?;
        }
        Some(events)
    }

    fn perform(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Fetch(_) => self.world.running_mut()?.own.push_back(Own::Fetch),
            Effect::Install(_) => self.world.running_mut()?.own.push_back(Own::Install),
            Effect::CancelAcquire => {
                self.world.running_mut()?.own.retain(|own| matches!(own, Own::Launch(_)));
            }
            Effect::Spawn { release, generation, origin, tag } => {
                return match self.plan(generation, origin) {
                    Some((instance, generation)) => {
                        let worker = Worker { instance, generation, release, tag };
                        self.world.running_mut()?.own.push_back(Own::Launch(worker));
                        None
                    }
                    None => {
                        self.world.running()?;
                        Some(Event::Launched(Launched::Failed(Verdict::Unknown(String::new()))))
                    }
                };
            }
            Effect::Start(worker, origin) => {
                if self.world.running()?.sockets {
                    self.tell(worker.instance, start(&worker, origin));
                }
            }
            Effect::Pair { serving, new } => self.pair(&serving, &new),
            Effect::Tell(who, command) => self.tell(who, command),
            Effect::Kill(who) => self.kill(who),
            Effect::Reserve { attempt, generation, held: (old_generation, held) } => {
                let numbers = &mut self.world.disk().numbers;
                numbers.term = numbers.term.max(held) + 2;
                let terms = Terms::reserved(held, numbers.term - 1);
                let intent = Intent { attempt, generation, old_generation, terms: Some(terms) };
                let alive = self.write_journal(|journal| journal.intent = Some(intent));
                let written = self.world.running()?.written;
                return (alive == Alive::Yes).then_some(Event::Stored(match written {
                    true => Stored::Reserved(terms),
                    false => Stored::NotReserved(String::new()),
                }));
            }
            Effect::Record { release, generation, term } => {
                return self.record(release, generation, term).map(Event::Stored);
            }
            Effect::Discard { logs, generations } => {
                if !logs.is_empty() || !generations.is_empty() {
                    self.write_journal(|journal| journal.discard(logs, generations));
                }
            }
            Effect::Conclude { .. } => {
                self.write_journal(Journal::conclude);
            }
            Effect::Alarm(_) | Effect::Rehearsed { .. } => {}
        }
        None
    }

    /// Numbers, sockets and the journal, all before a process exists.
    fn plan(
        &mut self,
        generation: Option<bumpless_shared::control::Generation>,
        origin: Origin,
    ) -> Option<(Instance, bumpless_shared::control::Generation)> {
        if !self.world.running()?.sockets {
            let bound = |process: &Process| {
                process.locked
                    || process.orders.iter().any(|order| matches!(order.command, Command::Start(_)))
            };
            if self.world.workers.values().any(|process| bound(process)) {
                if let Some(holder) =
                    self.world.workers.values().find(|process| process.life.role().is_some())
                {
                    let how = format!("worker {} has the sockets", holder.worker.instance);
                    self.world.breaks(property::SOCKETS, how);
                }
                return None;
            }
            self.world.running_mut()?.sockets = true;
        }
        let numbers = &mut self.world.disk().numbers;
        numbers.instance += 1;
        let instance = numbers.instance;
        let generation = match generation {
            Some(generation) => generation,
            None => {
                numbers.generation += 1;
                numbers.generation
            }
        };
        let intent = match origin {
            Origin::Genesis | Origin::Candidate => Intent::begun(&self.world.running()?.state, generation),
            Origin::Cold => None,
        };
        if let Some(intent) = intent {
            self.write_journal(|journal| journal.intent = Some(intent));
            if !self.world.running()?.written {
                return None;
            }
        }
        Some((instance, generation))
    }

    fn record(
        &mut self,
        release: bumpless_shared::release::Release,
        generation: bumpless_shared::control::Generation,
        term: RecordTerm,
    ) -> Option<Stored> {
        self.met.record = true;
        let unwritten = self.fails(Mishap::RecordUnwritten);
        let dies = self.fails(Mishap::RecordUnsyncedAndDies);
        let unsynced = self.fails(Mishap::RecordUnsynced);
        let committed = self.world.disk.committed.reads.as_ref().map(|committed| committed.generation);
        if self.world.published == Published::Revoked
            && ![committed, Some(self.world.past.recorded)].contains(&Some(generation))
        {
            self.world.breaks(property::REVOKED, format!("generation {generation} is committed"));
        }
        self.world.past.recorded = generation;
        let disk = self.world.disk();
        let term = match term {
            RecordTerm::Held(term) => term,
            RecordTerm::Above(found) => {
                disk.numbers.term = disk.numbers.term.max(found) + 1;
                disk.numbers.term
            }
        };
        if unwritten {
            return Some(Stored::NotRecorded(String::new()));
        }
        disk.committed.reads = Some(Committed { release, generation, term });
        if dies {
            self.kill_supervisor(false);
            return None;
        }
        if unsynced {
            return Some(Stored::NotRecorded(String::new()));
        }
        disk.committed.sync();
        Some(Stored::Recorded(term))
    }

    fn write_journal(&mut self, change: impl FnOnce(&mut Journal)) -> Alive {
        self.met.journal = true;
        let unwritten = self.fails(Mishap::JournalUnwritten);
        let unsynced = self.fails(Mishap::JournalUnsynced);
        let Some(running) = self.world.running_mut() else { return Alive::No };
        change(&mut running.journal);
        running.written = !unwritten && !unsynced;
        let journal = running.journal.clone();
        let file = &mut self.world.disk().journal;
        if unsynced {
            file.reads = journal;
        } else if !unwritten {
            *file = Twofold::of(journal);
        }
        Alive::Yes
    }

    fn tell(&mut self, who: Instance, command: Command) {
        let Some(running) = self.world.running() else { return };
        let incarnation = running.incarnation;
        if !running.handles.get(&who).is_some_and(|handle| handle.open) {
            return;
        }
        if let Some(process) = self.world.process(who)
            && process.control == Control::Open
        {
            process.orders.push_back(Order { incarnation, command });
        }
    }

    fn kill(&mut self, who: Instance) {
        if self.world.running().is_some_and(|running| running.handles.contains_key(&who))
            && let Some(process) = self.world.process(who)
        {
            process.doomed = true;
        }
    }

    fn pair(&mut self, serving: &Worker, new: &Worker) {
        let known =
            |who: Instance| self.world.running().is_some_and(|running| running.handles.contains_key(&who));
        if !known(serving.instance) || !known(new.instance) {
            return self.kill(new.instance);
        }
        let command = |peer: &Worker| Command::Pair {
            peer: peer.instance,
            peer_tag: peer.tag,
            peer_generation: peer.generation,
        };
        self.tell(new.instance, command(serving));
        self.tell(serving.instance, command(new));
    }
}

impl Starting {
    fn nobody() -> Starting {
        Starting {
            incarnation: 0,
            committed: None,
            journal: Journal::default(),
            expected: Default::default(),
            survivors: vec![],
            handles: Default::default(),
            sockets: false,
        }
    }
}

fn start(worker: &Worker, origin: Origin) -> Command {
    Command::Start(Box::new(Start {
        instance: worker.instance,
        secret: [0; 16],
        release: worker.release.clone(),
        state: String::new(),
        generation: worker.generation,
        origin,
        tag: worker.tag,
        listen: vec![],
        routing: RoutingKeys { reset: [0; 64], token: [0; 64], mac: [0; 32] },
        reconnect: String::new(),
        durability: Durability::Fsync,
        timing: Timing { heartbeat_ms: 0, canary_ms: 0, relay_ms: 0 },
    }))
}

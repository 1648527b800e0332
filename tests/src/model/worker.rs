//! A worker's process: the product's life, and around it what its edge does.
//!
//! One input is taken in at a time, with all that its actions bring about, in one step, as in the worker's
//! loop. What runs beside there (copying, hashing, persisting, draining, looking for a moment) is either
//! done at once, where it decides nothing and only its report could come later, which it can anyway; or
//! it is a step of its own.

use std::collections::VecDeque;

use bumpless_shared::control::{
    Command, Generation, Identity, Instance, Order, Origin, Report, RoutingKeys, Sequence, Start, Suspicion,
    Term, Trouble,
};
use bumpless_shared::digest::Digest;
use bumpless_shared::link::Note;
use bumpless_worker::lifecycle::state::Prepared;
use bumpless_worker::lifecycle::{self, Action, Books, Event, Life, Pairing, Peer, Unsent as NotSent};
use bumpless_worker::state::{Logbook, Position, Role, Route};

use super::disk::{Log, Replayed, Twofold, What, Write, recover};
use super::node::{Mishap, Node};
use super::plant::Plant;
use super::property;
use super::world::{Control, Ending, Unsent, Up, Wire};

/// A life that was started cold and holds.
pub fn holding(term: Term) -> Life {
    let start = Start {
        instance: 1,
        secret: [0; 16],
        release: super::world::release(0),
        state: String::new(),
        generation: 1,
        origin: Origin::Cold,
        tag: 1,
        listen: vec![],
        routing: RoutingKeys { reset: [0; 64], token: [0; 64], mac: [0; 32] },
        reconnect: String::new(),
        durability: bumpless_shared::control::Durability::Fsync,
        timing: bumpless_shared::control::Timing { heartbeat_ms: 0, canary_ms: 0, relay_ms: 0 },
    };
    let order = |command| Order { incarnation: 1, command };
    let ready =
        Report::Ready { sequence: 0, term: 0, replayed: 0, logs: vec![], generations: vec![], damage: None };
    let (life, _) = Life::default().order(order(Command::Start(Box::new(start))));
    let (life, _) = life.event(Event::Opened { ready, term: 0 });
    let (life, _) = life.order(order(Command::Go { term }));
    life
}

/// What a hash of these writes looks like.
fn hash(writes: &[Write], wrong: bool) -> Digest {
    let mut digest = [0; 32];
    for write in writes {
        digest[usize::from(*write) % 31] = 1;
    }
    digest[31] = u8::from(wrong);
    Digest(digest)
}

impl Node<'_> {
    /// Takes the next order in. Before it is looked at, the pidfds are.
    pub fn obey(&mut self, who: Instance, stale: bool) -> Option<()> {
        let process = self.world.process(who)?;
        let order = if stale { process.stale.pop_front()? } else { process.orders.pop_front()? };
        for peer in self.unnoticed_deaths(who) {
            self.find_dead(who, peer);
        }
        let process = self.world.process(who)?;
        let order = match stale {
            // The planted reader does not look whose orders they are.
            true => Order { incarnation: process.life.incarnation()?, ..order },
            false => order,
        };
        if let Command::Resume { .. } = order.command {
            process.told_to_resume = true;
        }
        let life = std::mem::take(&mut process.life);
        let (life, actions) = life.order(order);
        process.life = life;
        self.act_all(who, actions);
        Some(())
    }

    /// Deaths of others that a worker can see and has not heard of.
    pub fn unnoticed_deaths(&self, who: Instance) -> Vec<Instance> {
        let Some(process) = self.world.workers.get(&who) else { return vec![] };
        let dead = |wire: &&Wire| !wire.died && !self.world.workers.contains_key(&wire.peer.instance);
        process.wires.iter().filter(dead).map(|wire| wire.peer.instance).collect()
    }

    /// A pidfd is readable.
    pub fn find_dead(&mut self, who: Instance, peer: Instance) -> Option<()> {
        let process = self.world.process(who)?;
        process.wires.iter_mut().find(|wire| wire.peer.instance == peer)?.died = true;
        self.event(who, Event::PeerDied(peer));
        Some(())
    }

    /// A link is closed and read to its end.
    pub fn find_link_closed(&mut self, who: Instance, peer: Instance) -> Option<()> {
        let process = self.world.process(who)?;
        process.wires.iter_mut().find(|wire| wire.peer.instance == peer)?.closed = true;
        self.event(who, Event::LinkClosed(peer));
        Some(())
    }

    /// The control channel is closed. What is unread on it is dropped.
    pub fn find_control_closed(&mut self, who: Instance) -> Option<()> {
        let stale = self.plant == Some(Plant::StaleOrders);
        let process = self.world.process(who)?;
        let orders = std::mem::take(&mut process.orders);
        if stale {
            process.stale = orders;
        }
        process.control = Control::Lost;
        self.event(who, Event::ControlClosed);
        Some(())
    }

    /// A supervisor that has started accepts the connection.
    pub fn introduce(&mut self, who: Instance) -> Option<()> {
        let process = self.world.process(who)?;
        process.control = Control::Open;
        let worker = process.worker.clone();
        let super::world::Supervisor::Starting(starting) =
            std::sync::Arc::make_mut(&mut self.world.supervisor)
        else {
            return None;
        };
        let handle = super::world::Handle { worker, said: VecDeque::new(), open: true, closed: false };
        starting.handles.insert(who, handle);
        self.event(who, Event::Connected);
        Some(())
    }

    /// A note was read.
    pub fn read_note(&mut self, who: Instance, peer: Instance) -> Option<()> {
        let process = self.world.process(who)?;
        let wire = process.wires.iter_mut().find(|wire| wire.peer.instance == peer)?;
        match wire.notes.pop_front()? {
            Note::Yield { term, sequence, handshakes } => {
                self.event(who, Event::YieldCame { from: peer, term, sequence, handshakes });
            }
            Note::Took { term } => self.event(who, Event::TookCame { from: peer, term, gap_us: 0 }),
            Note::Opened { .. } | Note::Written { .. } | Note::Applied { .. } => {}
        }
        Some(())
    }

    /// Anything else that comes to a life.
    pub fn event(&mut self, who: Instance, event: Event) {
        let Some(process) = self.world.process(who) else { return };
        let life = std::mem::take(&mut process.life);
        let (life, actions) = life.event(event);
        process.life = life;
        self.act_all(who, actions);
    }

    /// Carries actions out, and what their events bring about before what comes after them.
    fn act_all(&mut self, who: Instance, actions: Vec<Action>) {
        let mut queue = VecDeque::from(actions);
        while let Some(action) = queue.pop_front() {
            let Some(event) = self.act(who, action) else { continue };
            let Some(process) = self.world.process(who) else { return };
            let life = std::mem::take(&mut process.life);
            let (life, more) = life.event(event);
            process.life = life;
            for action in more.into_iter().rev() {
                queue.push_front(action);
            }
        }
        self.authority(who);
    }

    /// Looks at who holds after a worker has acted.
    fn authority(&mut self, who: Instance) {
        let Some(process) = self.world.workers.get(&who) else { return };
        let Some(Role::Holding { term, .. }) = process.role else { return };
        let (forwent, (last, by)) = (process.forwent, self.world.past.held);
        if forwent {
            self.world
                .breaks(property::FORGONE, format!("worker {who} yielded for good and holds term {term}"));
        }
        if (term, who) == (last, by) {
            return;
        }
        if term <= last {
            let how = format!("worker {who} holds term {term}, worker {by} held {last}");
            return self.world.breaks(property::TERMS, how);
        }
        self.world.past.held = (term, who);
    }

    fn report(&mut self, who: Instance, report: Report) {
        let open = self.world.workers.get(&who).is_some_and(|process| process.control == Control::Open);
        if open && let Some(handle) = self.world.handle_mut(who) {
            handle.said.push_back(Up::Report(report));
        }
    }

    fn trouble(&mut self, who: Instance, kind: Trouble) {
        self.report(who, Report::Trouble { kind, text: String::new() });
    }

    fn act(&mut self, who: Instance, action: Action) -> Option<Event> {
        match action {
            Action::Report(report) => self.report(who, wordless(report)),
            Action::Start(start) => return Some(self.open(who, &start)),
            Action::Hold { term } => return self.hold(who, term),
            Action::Raise { term } => return self.raise(who, term),
            Action::Unadopt { tag } => {
                self.world.process(who)?.adopted.remove(&tag);
            }
            Action::Adopt { tag } => {
                self.world.process(who)?.adopted.insert(tag);
            }
            Action::Feed { peer, .. } | Action::Receive { peer } => self.wire(who, peer),
            Action::Mark { id } => self.mark(who, id),
            Action::Prepare { term, reserve } => return Some(self.prepare(who, term, reserve.is_some())),
            Action::AwaitMoment { .. } => self.world.process(who)?.moment = true,
            Action::CancelMoment => self.world.process(who)?.moment = false,
            Action::Yield { cut } => return self.give(who, cut),
            Action::Relay | Action::Probe | Action::StopProbing | Action::Release => {}
            Action::Follow { term } => {
                let process = self.world.process(who)?;
                let wired = process.peer().is_some_and(|peer| process.wire(peer.instance).is_some());
                if wired && process.role.is_some() {
                    process.following = Some(term);
                }
            }
            Action::TakeOver { term, sequence, books, .. } => {
                return Some(self.take_over(who, term, sequence, books));
            }
            Action::Resume { term, read } => return Some(self.resume(who, term, read)),
            Action::DropLogbook => self.drop_logbook(who),
            Action::Forget { instance } => {
                self.world.process(who)?.wires.retain(|wire| wire.peer.instance != instance);
            }
            Action::KillPeer => {
                let peer = self.world.process(who)?.peer()?.instance;
                if let Some(other) = self.world.process(peer) {
                    other.doomed = true;
                }
            }
            Action::Persist => self.persist(who),
            Action::Commit { term } => return self.commit(who, term),
            Action::Drain { .. } => {
                let process = self.world.process(who)?;
                process.following = None;
                process.ending = Ending::Drain;
            }
            Action::Remove { logs, generations } => self.remove(who, logs, generations),
            Action::Stop { .. } => self.world.process(who)?.ending = Ending::Stop,
            // The old end is closed already.
            Action::Reconnect => {}
            Action::Identify => return self.identify(who),
            Action::Exit { .. } => self.world.die(who, Unsent::default()),
        }
        None
    }

    fn generation(&self, who: Instance) -> Option<Generation> {
        self.world.workers.get(&who).map(|process| process.worker.generation)
    }

    fn position(&self, who: Instance) -> Position {
        let database =
            self.generation(who).and_then(|generation| self.world.disk.generations.get(&generation));
        database.map_or(Position::default(), |database| database.reads.position)
    }

    fn broken(kind: Trouble) -> Event {
        Event::Broken { kind, reason: String::new() }
    }

    /// Locks, then opens or makes its state.
    fn open(&mut self, who: Instance, start: &Start) -> Event {
        let cannot = Node::broken(Trouble::CannotStart);
        let own = start.generation;
        let taken = self.world.workers.values().any(|other| other.opened && other.worker.generation == own);
        let Some(process) = self.world.process(who) else { return cannot };
        process.locked = true;
        if process.control != Control::Open || taken {
            return cannot;
        }
        process.opened = true;
        let disk = self.world.disk();
        let logs: Vec<Term> = disk.logs.keys().copied().collect();
        let mut damage = None;
        match start.origin {
            Origin::Genesis | Origin::Candidate => {
                if disk.generations.contains_key(&own) {
                    return cannot;
                }
                disk.generations.insert(own, Twofold::default());
            }
            Origin::Cold => {
                let Some(database) = disk.generations.get_mut(&own) else { return cannot };
                let recovered =
                    recover(&mut database.reads, disk.logs.iter().map(|(term, log)| (*term, log)));
                database.persist();
                if recovered.gap {
                    return cannot;
                }
                if recovered.refused {
                    self.world.breaks(property::ONCE, format!("worker {who} refused a record at its start"));
                }
                damage = recovered.damaged.then(String::new);
            }
        }
        let position = self.position(who);
        let term = logs.last().copied().unwrap_or(0).max(position.term);
        let generations = self.world.disk.generations.keys().copied().collect();
        let ready =
            Report::Ready { sequence: position.sequence, term, replayed: 0, logs, generations, damage };
        Event::Opened { ready, term }
    }

    /// Makes everything durable, and with it that this term has begun.
    fn begin_term(&mut self, who: Instance, term: Term, role: Role) {
        let sequence = self.position(who).sequence;
        if let Some(database) = self.generation(who).and_then(|own| self.world.database(own)) {
            database.commit(Position { term, sequence }, None, true);
        }
        if let Some(process) = self.world.process(who) {
            process.role = Some(role);
        }
    }

    fn hold(&mut self, who: Instance, term: Term) -> Option<Event> {
        match Role::Following.resume(term, self.position(who)) {
            Ok(role) => {
                self.begin_term(who, term, role);
                None
            }
            Err(_) => Some(Node::broken(Trouble::CannotStart)),
        }
    }

    fn raise(&mut self, who: Instance, term: Term) -> Option<Event> {
        let position = self.position(who);
        let raised = (self.world.process(who)?.role?)
            .open_logbook()
            .and_then(|role| role.freeze(position.sequence))
            .and_then(|frozen| {
                let role = Role::Frozen { term: frozen.term, sequence: frozen.sequence };
                Ok((frozen.term, role.resume(term, position)?))
            });
        match raised {
            Ok((before, role)) => {
                self.begin_term(who, term, role);
                self.world.disk().logs.remove(&before);
                None
            }
            Err(_) => Some(Node::broken(Trouble::Poisoned)),
        }
    }

    fn wire(&mut self, who: Instance, peer: Peer) {
        if let Some(process) = self.world.process(who) {
            process.wires.retain(|wire| wire.peer.instance != peer.instance);
            process.wires.push(Wire {
                peer,
                up: false,
                cut: false,
                notes: VecDeque::new(),
                closed: false,
                died: false,
            });
        }
    }

    /// Both ends of a link have greeted. The holder of a candidate opens a logbook, and the candidate takes
    /// in what the holder has then.
    pub fn link(&mut self, who: Instance, peer: Instance) -> Option<()> {
        for (one, other) in [(who, peer), (peer, who)] {
            let process = self.world.process(one)?;
            process.wires.iter_mut().find(|wire| wire.peer.instance == other)?.up = true;
        }
        let process = self.world.workers.get(&who)?;
        let lifecycle::State::Holding(holding) = process.life.state() else { return Some(()) };
        if !matches!(holding.pairing, Pairing::Feeding(fed) if fed.instance == peer) {
            return Some(());
        }
        let term = match process.role? {
            Role::Holding { term, .. } => term,
            Role::Frozen { .. } | Role::Following | Role::Poisoned => return Some(()),
        };
        let Ok(role) = process.role?.open_logbook() else {
            self.trouble(who, Trouble::SyncFailed);
            return Some(());
        };
        let own = self.generation(who)?;
        let sequence = self.position(who).sequence;
        if self.world.disk.logs.contains_key(&term) {
            self.world.database(own)?.persist();
        }
        self.world.disk().logs.insert(term, Log::new(false, sequence + 1));
        self.world.process(who)?.role = Some(role);
        let snapshot = self.world.disk.generations.get(&own)?.reads.clone();
        let theirs = self.generation(peer)?;
        let mut taken = Twofold::of(snapshot);
        taken.persist();
        self.world.disk().generations.insert(theirs, taken);
        let wrong = self.fails(Mishap::TakenInWrongly);
        let candidate = self.world.process(peer)?;
        candidate.role = Some(Role::Following);
        candidate.following = Some(term);
        candidate.awaited = true;
        candidate.wrong = wrong;
        Some(())
    }

    /// Applies what is in the logbook that it follows.
    pub fn apply(&mut self, who: Instance) -> Option<()> {
        let term = self.world.workers.get(&who)?.following?;
        self.catch_up(who, term)?;
        if std::mem::take(&mut self.world.process(who)?.awaited) {
            self.report(who, Report::Level { sequence: self.position(who).sequence });
        }
        Some(())
    }

    fn catch_up(&mut self, who: Instance, term: Term) -> Option<Replayed> {
        self.world.workers.get(&who)?.role?.follows().ok()?;
        let own = self.generation(who)?;
        let next = self.position(who).sequence + 1;
        let Some(log) = self.world.disk.logs.get(&term).cloned() else { return Some(Replayed::default()) };
        if log.records.last().is_none_or(|last| last.sequence < next) {
            return Some(Replayed::default());
        }
        let replayed = self.world.database(own)?.reads.replay(term, &log, next);
        if replayed.refused {
            self.world.breaks(property::ONCE, format!("worker {who} refused a record of term {term}"));
        }
        let wrong = self.world.workers.get(&who)?.wrong;
        for (id, writes) in replayed.marks.clone() {
            let sequence = self.position(who).sequence;
            self.report(who, Report::StateHash { id, sequence, hash: hash(&writes, wrong) });
        }
        Some(replayed)
    }

    fn mark(&mut self, who: Instance, id: u64) {
        let marks = self.world.workers.get(&who).and_then(|process| process.role).map(Role::marks);
        let sequence = self.position(who).sequence + 1;
        if marks != Some(Ok(())) || self.write(who, What::Mark(id)) == Wrote::Not {
            let refused = Report::Refused { order: "Mark".to_owned(), reason: String::new() };
            return self.report(who, refused);
        }
        let Some(own) = self.generation(who) else { return };
        let Some(database) = self.world.disk.generations.get(&own) else { return };
        let wrong = self.world.workers.get(&who).is_some_and(|process| process.wrong);
        let hash = hash(&database.reads.writes(), wrong);
        self.report(who, Report::StateHash { id, sequence, hash });
    }

    /// Writes a record where it belongs now.
    fn write(&mut self, who: Instance, what: What) -> Wrote {
        let Some(own) = self.generation(who) else { return Wrote::Not };
        let Some(Role::Holding { term, .. }) = self.world.workers.get(&who).and_then(|process| process.role)
        else {
            return Wrote::Not;
        };
        let role = Role::Holding { term, logbook: self.logbook(who) };
        let before = self.position(who);
        let position = Position { term, sequence: before.sequence + 1 };
        if term < before.term {
            let how = format!("worker {who} writes in term {term} behind term {}", before.term);
            self.world.breaks(property::TERMS, how);
        }
        let dies = self.fails(Mishap::WriterDies);
        match role.route() {
            Ok(route @ (Route::Database | Route::DatabaseThenLogbook)) => {
                if self.fails(Mishap::DatabaseFails) {
                    return self.poison(who);
                }
                if let Some(database) = self.world.database(own) {
                    database.commit(position, Some(what), !dies);
                }
                if dies {
                    return Wrote::AndDied;
                }
                if route == Route::DatabaseThenLogbook {
                    if self.fails(Mishap::LogbookUnwritten) {
                        self.set_logbook(who, Logbook::None);
                        self.event(who, Event::LogbookDropped { reason: String::new() });
                    } else if let Some(log) = self.world.disk().logs.get_mut(&term) {
                        log.append(position.sequence, what);
                    }
                }
                Wrote::Durably
            }
            Ok(Route::LogbookThenDatabase) => {
                let unwritten = self.fails(Mishap::LogbookUnwritten);
                let unsynced = self.fails(Mishap::LogbookUnsynced);
                if let Some(log) = self.world.disk().logs.get_mut(&term).filter(|_| !unwritten) {
                    log.append(position.sequence, what);
                    if !unsynced && !dies {
                        log.sync();
                    }
                }
                if dies {
                    return Wrote::AndDied;
                }
                if unwritten || unsynced {
                    self.set_logbook(who, Logbook::Failed);
                    self.event(who, Event::Poisoned { reason: String::new() });
                    return Wrote::Not;
                }
                if self.fails(Mishap::DatabaseFails) {
                    return self.poison(who);
                }
                if let Some(database) = self.world.database(own) {
                    database.commit(position, Some(what), false);
                }
                Wrote::Durably
            }
            Err(_) => Wrote::Not,
        }
    }

    /// The planted mistake: a record goes once one side has applied it durably.
    fn trim(&mut self, own: Generation) {
        let up_to = self.world.disk.generations.get(&own).map_or(0, |database| database.durable.floor);
        for log in self.world.disk().logs.values_mut().filter(|log| log.lasting) {
            let keep: Vec<_> = log.records.iter().filter(|record| record.sequence > up_to).copied().collect();
            let gone = log.records.len() - keep.len();
            log.synced = log.synced.saturating_sub(gone);
            log.next = log.next.max(up_to + 1);
            log.records = keep;
        }
    }

    fn poison(&mut self, who: Instance) -> Wrote {
        if let Some(process) = self.world.process(who) {
            process.role = Some(Role::Poisoned);
        }
        self.event(who, Event::Poisoned { reason: String::new() });
        Wrote::Not
    }

    fn logbook(&self, who: Instance) -> Logbook {
        match self.world.workers.get(&who).and_then(|process| process.role) {
            Some(Role::Holding { logbook, .. }) => logbook,
            Some(Role::Frozen { .. } | Role::Following | Role::Poisoned) | None => Logbook::None,
        }
    }

    fn set_logbook(&mut self, who: Instance, logbook: Logbook) {
        if let Some(process) = self.world.process(who)
            && let Some(Role::Holding { term, .. }) = process.role
        {
            process.role = Some(Role::Holding { term, logbook });
        }
    }

    /// A client's write comes to the holder, for the first time or again.
    pub fn client_writes(&mut self, who: Instance, write: Write) -> Option<()> {
        let own = self.generation(who)?;
        self.world.workers.get(&who)?.role?.route().ok()?;
        let there = self.world.disk.generations.get(&own)?.reads.sequence_of(write);
        let sequence = match there {
            Some(sequence) => sequence,
            None => match self.write(who, What::Write(write)) {
                Wrote::Durably => self.position(who).sequence,
                Wrote::Not => return Some(()),
                Wrote::AndDied => {
                    self.world.die(who, Unsent::default());
                    return Some(());
                }
            },
        };
        self.world.past.acked.push((write, sequence));
        self.world.past.acked.sort_unstable();
        Some(())
    }

    /// Gets ready for a coming term.
    fn prepare(&mut self, who: Instance, term: Term, logbook: bool) -> Event {
        let not = Event::NotPrepared { reason: String::new() };
        let failed = self.fails(Mishap::NotPrepared);
        let Some(own) = self.generation(who) else { return not };
        let Some(process) = self.world.process(who) else { return not };
        if process.role.is_none() || failed {
            return not;
        }
        if !logbook {
            if let Some(database) = self.world.database(own) {
                database.persist();
            }
            return Event::Prepared { prepared: Prepared { term, books: Books::Database } };
        }
        let up = process.peer().and_then(|peer| process.wire(peer.instance)).is_some_and(|wire| wire.up);
        if !up {
            return not;
        }
        process.prepared = None;
        let next = self.position(who).sequence + 1;
        let logs = &mut self.world.disk().logs;
        if logs.contains_key(&term) {
            return not;
        }
        logs.insert(term, Log::new(true, next));
        if let Some(process) = self.world.process(who) {
            process.prepared = Some(term);
        }
        Event::Prepared { prepared: Prepared { term, books: Books::Logbook } }
    }

    /// Freezes and sends `Yield`.
    fn give(&mut self, who: Instance, cut: lifecycle::Cut) -> Option<Event> {
        let backed_out = Some(Event::BackedOut { reason: String::new() });
        let sequence = self.position(who).sequence;
        let process = self.world.process(who)?;
        process.moment = false;
        let (Some(peer), Some(role)) = (process.peer(), process.role) else { return backed_out };
        if !process.wire(peer.instance).is_some_and(|wire| wire.up) {
            return backed_out;
        }
        let Ok(frozen) = role.freeze(sequence) else { return backed_out };
        process.role = Some(Role::Frozen { term: frozen.term, sequence: frozen.sequence });
        let note = Note::Yield { term: cut.term, sequence: frozen.sequence, handshakes: vec![] };
        if !self.note(who, peer.instance, note) {
            match cut.unsent() {
                NotSent::HoldOn(term) => {
                    let position = self.position(who);
                    let role = Role::Frozen { term: frozen.term, sequence: frozen.sequence };
                    return Some(match role.resume(term, position) {
                        Ok(role) => {
                            self.begin_term(who, term, role);
                            Event::Thawed { term, sequence, reason: String::new() }
                        }
                        Err(_) => Node::broken(Trouble::Poisoned),
                    });
                }
                NotSent::Frozen => {}
            }
        }
        self.world.process(who)?.forwent = cut.resume == 0;
        Some(Event::Yielded { sequence: frozen.sequence })
    }

    fn take_over(&mut self, who: Instance, term: Term, sequence: Sequence, books: Books) -> Event {
        let not = Event::NotTaken { kind: Trouble::SyncFailed, reason: String::new() };
        if self.fails(Mishap::NotTaken) {
            return not;
        }
        let Some(following) = self.world.workers.get(&who).and_then(|process| process.following) else {
            return not;
        };
        let Some(replayed) = self.catch_up(who, following) else { return not };
        let position = self.position(who);
        if replayed.gap || replayed.refused || replayed.damaged || position.sequence < sequence {
            return not;
        }
        let Some(process) = self.world.process(who) else { return not };
        let (Some(role), prepared) = (process.role, process.prepared.take()) else { return not };
        match books {
            Books::Logbook => {
                if prepared != Some(term) {
                    return not;
                }
                let Ok(role) = role.take(term, sequence, position) else { return not };
                process.role = Some(role);
                if let Some(log) = self.world.disk().logs.get_mut(&term) {
                    log.next = sequence + 1;
                }
            }
            Books::Database => {
                let Ok(role) = role.resume(term, position) else { return not };
                self.begin_term(who, term, role);
            }
        }
        if let Some(process) = self.world.process(who) {
            process.following = None;
            if let Some(peer) = process.peer() {
                self.note(who, peer.instance, Note::Took { term });
            }
        }
        Event::TookOver { sequence }
    }

    fn resume(&mut self, who: Instance, term: Term, read: Term) -> Event {
        let broken = Node::broken(Trouble::CannotStart);
        let Some(process) = self.world.process(who) else { return broken };
        process.following = None;
        let retired = matches!(
            process.life.state(),
            lifecycle::State::Frozen(lifecycle::Frozen { oath: lifecycle::Oath::Retired, .. })
        );
        let (told, peer) = (process.told_to_resume, process.peer());
        if retired && !told {
            self.world.breaks(property::FORGONE, format!("worker {who} is retired and resumes by itself"));
        }
        if peer.is_some_and(|peer| self.world.workers.contains_key(&peer.instance)) {
            self.world.breaks(property::ALONE, format!("worker {who} resumes beside its living peer"));
        }
        let Some(replayed) = self.catch_up(who, read) else { return broken };
        if replayed.gap {
            return broken;
        }
        let position = self.position(who);
        let Some(role) = self.world.workers.get(&who).and_then(|process| process.role) else { return broken };
        match role.resume(term, position) {
            Ok(role) => {
                self.begin_term(who, term, role);
                Event::Resumed { term, sequence: position.sequence, gap_us: 0 }
            }
            Err(_) => broken,
        }
    }

    fn drop_logbook(&mut self, who: Instance) {
        let Some(process) = self.world.process(who) else { return };
        let lifecycle::State::Holding(holding) = process.life.state() else { return };
        let term = holding.term;
        match process.role.map(Role::drop_logbook) {
            Some(Ok(role)) => {
                process.role = Some(role);
                self.world.disk().logs.remove(&term);
            }
            Some(Err(_)) => self.trouble(who, Trouble::Housekeeping),
            None => {}
        }
    }

    fn persist(&mut self, who: Instance) {
        let Some(own) = self.generation(who) else { return };
        match self.world.workers.get(&who).and_then(|process| process.role) {
            None => {
                let order = "Persist".to_owned();
                self.report(who, Report::Refused { order, reason: String::new() });
            }
            Some(Role::Poisoned) => self.trouble(who, Trouble::Poisoned),
            Some(Role::Holding { .. } | Role::Frozen { .. } | Role::Following) => {
                if let Some(database) = self.world.database(own) {
                    database.persist();
                }
                if self.plant == Some(Plant::TrimmedByOne) {
                    self.trim(own);
                }
                self.report(who, Report::Persisted { sequence: self.position(who).sequence });
            }
        }
    }

    fn commit(&mut self, who: Instance, term: Term) -> Option<Event> {
        let own = self.generation(who)?;
        let role = self.world.workers.get(&who)?.role?;
        let Ok(ended) = role.end_logbook() else {
            self.trouble(who, Trouble::Poisoned);
            return None;
        };
        if ended != role {
            let Role::Holding { term: held, .. } = ended else { return None };
            let attempted = self.world.disk.logs.get(&held).and_then(|log| log.records.last());
            let sequence = attempted.map_or(0, |last| last.sequence).max(self.position(who).sequence);
            if self.plant == Some(Plant::EndedBeforePersisted) {
                self.world.disk().logs.remove(&held);
            } else {
                self.world.database(own)?.commit(Position { term: held, sequence }, None, true);
            }
            self.world.process(who)?.role = Some(ended);
        }
        Some(Event::Committed { term })
    }

    fn remove(&mut self, who: Instance, logs: Vec<Term>, generations: Vec<Generation>) {
        let Some(own) = self.generation(who) else { return };
        let Some(role) = self.world.workers.get(&who).and_then(|process| process.role) else { return };
        if role == Role::Poisoned || generations.contains(&own) {
            return self.trouble(who, Trouble::Housekeeping);
        }
        if let Some(database) = self.world.database(own) {
            database.persist();
        }
        for generation in &generations {
            let used = self
                .world
                .workers
                .values()
                .find(|other| other.opened && other.worker.generation == *generation)
                .map(|other| other.worker.instance);
            if let Some(user) = used {
                let how = format!("generation {generation} is removed, worker {user} has it open");
                self.world.breaks(property::REMOVED, how);
            }
            self.world.disk().generations.remove(generation);
        }
        for term in &logs {
            let used = self.world.workers.values().find(|other| {
                other.following == Some(*term)
                    || matches!(other.life.state(), lifecycle::State::Frozen(frozen)
                        if frozen.term == *term && frozen.resume != 0)
            });
            if let Some(user) = used.map(|user| user.worker.instance) {
                let how = format!("logbook {term} is removed, worker {user} may have to read it");
                self.world.breaks(property::REMOVED, how);
            }
            self.world.disk().logs.remove(term);
        }
        self.report(who, Report::Removed { logs, generations });
    }

    fn identify(&mut self, who: Instance) -> Option<Event> {
        let process = self.world.process(who)?;
        let Some(role) = process.life.role() else { return Some(Event::ControlClosed) };
        let identity = Identity {
            instance: who,
            secret: [0; 16],
            release: process.worker.release.clone(),
            generation: process.worker.generation,
            tag: process.worker.tag,
            role,
            sequence: 0,
            peer: None,
            listen: vec![],
        };
        self.report(who, Report::Identity(Box::new(identity)));
        None
    }

    /// What it finished before its end is done.
    pub fn end(&mut self, who: Instance) -> Option<()> {
        let process = self.world.process(who)?;
        match process.ending {
            Ending::No => None,
            Ending::Drain => {
                self.event(who, Event::Drained { moved: 0, cut_off: 0 });
                Some(())
            }
            Ending::Stop => {
                if process.role.is_some_and(|role| role != Role::Poisoned) {
                    let own = process.worker.generation;
                    if let Some(database) = self.world.database(own) {
                        database.persist();
                    }
                }
                self.event(who, Event::Stopped);
                Some(())
            }
        }
    }

    /// It suspects the worker that it yielded to.
    pub fn suspect(&mut self, who: Instance, kind: Suspicion) {
        self.event(who, Event::Suspicious { kind, reason: String::new() });
    }
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrote {
    /// It may be acknowledged.
    Durably,
    /// It may not.
    Not,
    /// Nor is there anybody who could.
    AndDied,
}

/// Without what only people read.
fn wordless(report: Report) -> Report {
    match report {
        Report::Refused { order, .. } => Report::Refused { order, reason: String::new() },
        Report::Trouble { kind, .. } => Report::Trouble { kind, text: String::new() },
        Report::Suspect { kind, .. } => Report::Suspect { kind, reason: String::new() },
        other => other,
    }
}

//! The thread: what each order does, in which state.

use std::collections::HashMap;

use bumpless_shared::control::{Durability, Sequence, Term};
use bumpless_shared::digest::Digest;
use bumpless_shared::operation::Operation;
use tokio::sync::{mpsc, watch};

use super::super::content::Content;
use super::super::log_writer::{LogError, LogWriter, Made, Prepared, SEGMENT};
use super::super::replay::{FollowError, Followed, Marked, Step, follow};
use super::super::store::{Commit, Position, Writer};
use super::super::store_error::StoreError;
use super::refusal::{OrderError, PutRefused};
use super::{
    Command, Done, Event, Frozen, GROUP, Logbook, Opened, Role, Route, Status, Stored, Unfit, What, Write,
};

pub(super) enum State {
    Holding { term: Term, log: Log },
    Frozen(Frozen),
    Following,
    Poisoned { cause: String },
}

pub(super) enum Log {
    None,
    Expendable(LogWriter),
    Durable(LogWriter),
    /// `attempted`: numbers up to here may be in the file, so they are not used again.
    Failed {
        attempted: Sequence,
    },
}

impl State {
    pub(super) fn role(&self) -> Role {
        match self {
            State::Holding { term, log } => Role::Holding {
                term: *term,
                logbook: match log {
                    Log::None => Logbook::None,
                    Log::Expendable(_) => Logbook::Expendable,
                    Log::Durable(_) => Logbook::Durable,
                    Log::Failed { .. } => Logbook::Failed,
                },
            },
            State::Frozen(Frozen { term, sequence }) => Role::Frozen { term: *term, sequence: *sequence },
            State::Following => Role::Following,
            State::Poisoned { .. } => Role::Poisoned,
        }
    }
}

/// The version of the contract that brought appends.
const APPENDS: u16 = 2;

/// The operations of a group of writes that nobody has made before.
#[derive(Default)]
struct Batch {
    fresh: Vec<Operation>,
    /// Where in `fresh` a name's put is.
    names: HashMap<Digest, usize>,
    /// What was found for an append's id.
    appends: HashMap<Digest, Found>,
    /// Lengths of the logs that are appended to, with these appends.
    lengths: HashMap<Digest, u64>,
}

impl Batch {
    fn push(&mut self, operation: Operation) -> usize {
        self.fresh.push(operation);
        self.fresh.len() - 1
    }
}

/// What there is of a write.
#[derive(Clone, Copy)]
struct Found {
    /// Its place in the batch; none if it was made before.
    place: Option<usize>,
    /// An append's; 0 for a put.
    index: u64,
}

/// A write that is durable.
struct Outcome {
    found: Found,
    /// The record's number, if this write made it.
    sequence: Option<Sequence>,
}

impl Write {
    /// Whoever asked may have gone; what is stored is stored all the same.
    fn answer(self, outcome: Result<Outcome, PutRefused>) {
        match self.what {
            What::Put { done, .. } => drop(done.send(outcome.map(|outcome| match outcome.sequence {
                Some(sequence) => Stored::New { sequence },
                None => Stored::Already,
            }))),
            What::Append { done, .. } => drop(done.send(outcome.map(|outcome| outcome.found.index))),
        }
    }
}

#[derive(PartialEq)]
enum Flow {
    Go,
    Stop,
}

pub(super) struct Thread {
    pub(super) writer: Writer,
    pub(super) state: State,
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) status: watch::Sender<Status>,
}

impl Thread {
    pub(super) fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        while let Some(command) = commands.blocking_recv() {
            let mut after = None;
            match command {
                Command::Write(first) => {
                    let mut group = vec![first];
                    while group.len() < GROUP {
                        match commands.try_recv() {
                            Ok(Command::Write(write)) => group.push(write),
                            Ok(other) => {
                                after = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.writes(group);
                }
                other => after = Some(other),
            }
            if let Some(command) = after
                && self.order(command) == Flow::Stop
            {
                return;
            }
        }
    }

    /// Carries an order out. Status first, answer second: whoever got the answer sees the status.
    fn order(&mut self, command: Command) -> Flow {
        match command {
            Command::Write(write) => self.writes(vec![write]),
            Command::OpenLogbook { version, done } => {
                self.answer(done, |thread| thread.open_logbook(version))
            }
            Command::DropLogbook(done) => self.answer(done, Thread::drop_logbook),
            Command::Mark { id, done } => self.answer(done, |thread| thread.mark(id)),
            Command::Freeze(done) => self.answer(done, Thread::freeze),
            Command::Take { prepared, at, done } => self.answer(done, |thread| thread.take(prepared, at)),
            Command::Follow { steps, done } => self.answer(done, |thread| thread.follow(&steps)),
            Command::Resume { term, done } => self.answer(done, |thread| thread.resume(term)),
            Command::EndLogbook(done) => self.answer(done, Thread::end_logbook),
            Command::Trim { up_to, done } => self.answer(done, |thread| thread.trim(up_to)),
            Command::Snapshot(done) => self.answer(done, |thread| Ok(thread.writer.snapshot())),
            Command::Persist(done) => self.answer(done, Thread::persist),
            Command::Stop(done) => {
                self.answer(done, Thread::persist);
                return Flow::Stop;
            }
        }
        Flow::Go
    }

    fn answer<T>(&mut self, done: Done<T>, act: impl FnOnce(&mut Thread) -> Result<T, OrderError>) {
        let result = act(self);
        self.tell();
        // Whoever asked may have gone.
        let _ = done.send(result);
    }

    fn tell(&self) {
        let now = Status { role: self.state.role(), position: self.writer.store().position() };
        self.status.send_if_modified(|status| {
            let changed = *status != now;
            *status = now;
            changed
        });
    }

    fn poison(&mut self, error: StoreError) -> OrderError {
        let cause = error.to_string();
        self.state = State::Poisoned { cause: cause.clone() };
        // Nobody listens to a worker that is stopping.
        let _ = self.events.send(Event::Poisoned { cause: cause.clone() });
        OrderError::Poisoned { cause }
    }

    fn wrong_role<T>(&self, order: &'static str) -> Result<T, OrderError> {
        Err(self.unfit(order, Unfit::Role, Position::default()))
    }

    /// Why the role does not allow an order, with what was asked for.
    fn unfit(&self, order: &'static str, unfit: Unfit, wanted: Position) -> OrderError {
        let position = self.writer.store().position();
        match (unfit, &self.state) {
            (Unfit::Role, State::Poisoned { cause }) => OrderError::Poisoned { cause: cause.clone() },
            (Unfit::Role, state) => OrderError::WrongRole { order, role: state.role() },
            (Unfit::OldTerm, _) => OrderError::OldTerm { term: wanted.term, position },
            (Unfit::NotThere, _) => OrderError::NotThere { wanted: wanted.sequence, position },
        }
    }

    fn open_logbook(&mut self, version: u16) -> Result<Opened, OrderError> {
        let State::Holding { term, .. } = self.state else {
            return self.wrong_role("open a logbook");
        };
        if let Err(unfit) = self.state.role().open_logbook() {
            return Err(self.unfit("open a logbook", unfit, Position::default()));
        }
        let store = self.writer.store().clone();
        let version = version.min(store.options().version);
        if version < APPENDS && store.has_appends().map_err(OrderError::Read)? {
            let appends = store.totals().appends;
            return Err(OrderError::Inexpressible { version, needs: APPENDS, appends });
        }
        if store.state().log(term).exists() {
            // Everything in it came from this very database; once that is durable, it is worth nothing.
            self.persist()?;
            store.state().remove_log(term).map_err(OrderError::Remove)?;
        }
        let first = store.position().sequence + 1;
        let prepared = Prepared::make_with(
            store.state(),
            term,
            store.generation(),
            first,
            SEGMENT,
            version,
            Made::Buffered,
        )
        .map_err(OrderError::Log)?;
        self.state = State::Holding { term, log: Log::Expendable(prepared.begin(first)) };
        Ok(Opened { term, snapshot: self.writer.snapshot() })
    }

    fn drop_logbook(&mut self) -> Result<(), OrderError> {
        match (self.state.role().drop_logbook(), &self.state) {
            (Ok(_), State::Holding { term, .. }) => {
                self.state = State::Holding { term: *term, log: Log::None };
                Ok(())
            }
            (Ok(_) | Err(_), _) => self.wrong_role("drop the logbook"),
        }
    }

    fn mark(&mut self, id: u64) -> Result<Marked, OrderError> {
        if self.state.role().marks().is_err() {
            return self.wrong_role("append a mark");
        }
        let sequence = self.record(&[Operation::Mark { id }]).map_err(|cause| match &self.state {
            State::Poisoned { .. } => OrderError::Poisoned { cause },
            State::Holding { .. } | State::Frozen(_) | State::Following => {
                OrderError::Log(LogError::Poisoned { cause })
            }
        })?;
        // An expendable logbook may have been dropped over it.
        if let State::Holding { log: Log::None, .. } = self.state {
            return self.wrong_role("append a mark");
        }
        Ok(Marked { id, sequence, snapshot: self.writer.snapshot() })
    }

    fn freeze(&mut self) -> Result<Frozen, OrderError> {
        let sequence = self.writer.store().position().sequence;
        let frozen = self.state.role().freeze(sequence).or_else(|_| self.wrong_role("freeze"))?;
        self.state = State::Frozen(frozen);
        Ok(frozen)
    }

    fn take(&mut self, prepared: Prepared, at: Sequence) -> Result<Sequence, OrderError> {
        let (term, position) = (prepared.term(), self.writer.store().position());
        if let Err(unfit) = self.state.role().take(term, at, position) {
            return Err(self.unfit("take the authority", unfit, Position { term, sequence: at }));
        }
        self.state = State::Holding { term, log: Log::Durable(prepared.begin(at + 1)) };
        Ok(at + 1)
    }

    fn follow(&mut self, steps: &[Step]) -> Result<Followed, OrderError> {
        if self.state.role().follows().is_err() {
            return self.wrong_role("follow a logbook");
        }
        match follow(&mut self.writer, steps) {
            Ok(followed) => Ok(followed),
            Err(FollowError::Store(error @ StoreError::Database { .. })) => Err(self.poison(error)),
            Err(error) => Err(OrderError::Follow(error)),
        }
    }

    fn resume(&mut self, term: Term) -> Result<Position, OrderError> {
        let position = self.writer.store().position();
        let role = self.state.role();
        match role.resume(term, position) {
            Ok(resumed) if resumed == role => return Ok(position),
            Ok(_) => {}
            Err(unfit) => {
                return Err(self.unfit("resume", unfit, Position { term, ..position }));
            }
        }
        begin_term(&mut self.writer, term).map_err(|error| self.poison(error))?;
        self.state = State::Holding { term, log: Log::None };
        Ok(self.writer.store().position())
    }

    fn end_logbook(&mut self) -> Result<Position, OrderError> {
        if self.state.role().end_logbook().is_err() {
            return self.wrong_role("end the logbook");
        }
        let (term, attempted) = match &self.state {
            State::Holding { term, log: Log::Durable(log) } => (*term, log.last()),
            State::Holding { term, log: Log::Failed { attempted } } => (*term, *attempted),
            State::Holding { log: Log::None | Log::Expendable(_), .. }
            | State::Frozen(_)
            | State::Following
            | State::Poisoned { .. } => return Ok(self.writer.store().position()),
        };
        let result = self
            .writer
            .sync()
            .and_then(|()| self.writer.commit(&[], Position { term, sequence: attempted }, Commit::Synced))
            .and_then(|()| self.writer.persist());
        result.map_err(|error| self.poison(error))?;
        self.state = State::Holding { term, log: Log::None };
        Ok(self.writer.store().position())
    }

    fn trim(&mut self, up_to: Sequence) -> Result<(), OrderError> {
        match &mut self.state {
            State::Holding { log: Log::Expendable(log) | Log::Durable(log), .. } => {
                log.trim(up_to).map_err(OrderError::Log)
            }
            State::Holding { .. } | State::Frozen(_) | State::Following | State::Poisoned { .. } => {
                self.wrong_role("trim the logbook")
            }
        }
    }

    fn persist(&mut self) -> Result<Position, OrderError> {
        if let State::Poisoned { cause } = &self.state {
            return Err(OrderError::Poisoned { cause: cause.clone() });
        }
        self.writer.persist().map_err(|error| self.poison(error))?;
        Ok(self.writer.store().position())
    }

    /// The version of the contract that everybody knows who may have to read what is written now.
    fn version(&self) -> u16 {
        match &self.state {
            State::Holding { log: Log::Expendable(log) | Log::Durable(log), .. } => log.format(),
            State::Holding { log: Log::None | Log::Failed { .. }, .. }
            | State::Frozen(_)
            | State::Following
            | State::Poisoned { .. } => self.writer.store().options().version,
        }
    }

    /// Carries out a group of puts and appends and answers each.
    fn writes(&mut self, group: Vec<Write>) {
        if let Err(refused) = self.state.role().route() {
            for write in group {
                write.answer(Err(refused.clone()));
            }
            return;
        }
        let mut batch = Batch::default();
        let found: Vec<Result<Found, PutRefused>> =
            group.iter().map(|write| self.find(&write.what, &mut batch)).collect();
        let fresh = batch.fresh;
        let outcome = match fresh.is_empty() {
            true => Ok(self.writer.store().position().sequence),
            false => self
                .room(&fresh)
                .and_then(|()| self.record(&fresh).map_err(|cause| PutRefused::Failed { cause })),
        };
        self.tell();
        for (write, found) in group.into_iter().zip(found) {
            write.answer(found.and_then(|found| match found.place {
                None => Ok(Outcome { found, sequence: None }),
                Some(place) => outcome.clone().map(|last| {
                    let sequence = last + 1 + place as u64 - fresh.len() as u64;
                    Outcome { found, sequence: Some(sequence) }
                }),
            }));
        }
    }

    /// Looks for what was done before, in the state and in the batch; otherwise adds it to the batch.
    fn find(&self, what: &What, batch: &mut Batch) -> Result<Found, PutRefused> {
        let unreadable = |error: StoreError| PutRefused::Unreadable { cause: error.to_string() };
        let store = self.writer.store();
        match what {
            What::Put { content, .. } => {
                let name = content.name();
                let place = match batch.names.get(&name) {
                    Some(place) => Some(*place),
                    None if store.holds(name).map_err(unreadable)? => None,
                    None => {
                        let place = batch.push(operation(content));
                        batch.names.insert(name, place);
                        Some(place)
                    }
                };
                Ok(Found { place, index: 0 })
            }
            What::Append { append, .. } => {
                if let Some(found) = batch.appends.get(&append.id()) {
                    return Ok(*found);
                }
                if let Some(index) = store.index_of(append.id()).map_err(unreadable)? {
                    return Ok(Found { place: None, index });
                }
                let keeps = self.version();
                if keeps < APPENDS {
                    return Err(PutRefused::Later { needs: APPENDS, keeps });
                }
                let index = match batch.lengths.get(&append.log()) {
                    Some(length) => *length,
                    None => store.log_length(append.log()).map_err(unreadable)?,
                };
                batch.lengths.insert(append.log(), index + 1);
                let found = Found { place: Some(batch.push(append.at(index))), index };
                batch.appends.insert(append.id(), found);
                Ok(found)
            }
        }
    }

    fn room(&self, fresh: &[Operation]) -> Result<(), PutRefused> {
        let store = self.writer.store();
        let needed = fresh.iter().map(|operation| match operation {
            Operation::Store { content, .. } => content.len() as u64 + 64,
            Operation::Append { content, .. } => content.len() as u64 + 256,
            Operation::Link { .. } | Operation::Mark { .. } => 64,
        });
        let needed = needed.sum();
        let free = store.free().map_err(|error| PutRefused::Unreadable { cause: error.to_string() })?;
        if free.saturating_sub(store.options().keep_free) < needed {
            return Err(PutRefused::NoRoom { needed, free });
        }
        Ok(())
    }

    /// Numbers the operations, makes them durable and the state's. Returns the last number; on failure,
    /// what failed, and the state has moved on accordingly.
    fn record(&mut self, fresh: &[Operation]) -> Result<Sequence, String> {
        let State::Holding { term, .. } = self.state else {
            return Err("this worker has no authority".to_owned());
        };
        let sequence = self.writer.store().position().sequence + fresh.len() as u64;
        let position = Position { term, sequence };
        match self.state.role().route() {
            Ok(Route::Database) => self.commit(fresh, position, Commit::Synced),
            Ok(Route::DatabaseThenLogbook) => {
                self.commit(fresh, position, Commit::Synced)?;
                self.append_expendable(term, fresh);
                Ok(sequence)
            }
            Ok(Route::LogbookThenDatabase) => {
                self.append_durable(fresh, position)?;
                self.commit(fresh, position, Commit::Buffered)
            }
            Err(refused) => Err(refused.to_string()),
        }
    }

    fn append_durable(&mut self, fresh: &[Operation], last: Position) -> Result<(), String> {
        let durability = self.writer.store().options().durability;
        let State::Holding { log: Log::Durable(log), .. } = &mut self.state else {
            return Err("this worker has no logbook".to_owned());
        };
        let written = encode(fresh, log.format()).and_then(|payloads| {
            log.append(&payloads)?;
            match durability {
                Durability::Fsync => log.sync(),
                Durability::Os => Ok(()),
            }
        });
        written.map_err(|error| {
            let cause = error.to_string();
            let log = Log::Failed { attempted: last.sequence };
            self.state = State::Holding { term: last.term, log };
            // Nobody listens to a worker that is stopping.
            let _ = self.events.send(Event::LogbookFailed { cause: cause.clone() });
            cause
        })
    }

    fn commit(
        &mut self,
        fresh: &[Operation],
        position: Position,
        commit: Commit,
    ) -> Result<Sequence, String> {
        match self.writer.commit(fresh, position, commit) {
            Ok(()) => Ok(position.sequence),
            Err(error) => Err(self.poison(error).to_string()),
        }
    }

    fn append_expendable(&mut self, term: Term, fresh: &[Operation]) {
        let State::Holding { log: Log::Expendable(log), .. } = &mut self.state else { return };
        let appended = encode(fresh, log.format()).and_then(|payloads| log.append(&payloads));
        if let Err(error) = appended {
            self.state = State::Holding { term, log: Log::None };
            // Nobody listens to a worker that is stopping.
            let _ = self.events.send(Event::LogbookDropped { cause: error.to_string() });
        }
    }
}

fn operation(content: &Content) -> Operation {
    let name = content.name();
    if content.is_record() {
        Operation::Store { name, content: content.bytes().to_vec() }
    } else {
        Operation::Link { name, length: content.bytes().len() as u32 }
    }
}

fn encode(operations: &[Operation], version: u16) -> Result<Vec<Vec<u8>>, LogError> {
    operations.iter().map(|operation| operation.encode(version).map_err(LogError::Operation)).collect()
}

/// Makes everything durable, and with it that this term has begun.
pub(super) fn begin_term(writer: &mut Writer, term: Term) -> Result<(), StoreError> {
    writer.sync()?;
    let sequence = writer.store().position().sequence;
    writer.commit(&[], Position { term, sequence }, Commit::Synced)
}

//! The one writer of a worker: a thread that owns the database's writing side and the logbook.
//!
//! Everything that changes the state goes through its queue, so there is one order, and "from here
//! on" is a place in the queue. Puts and appends that wait are taken together and made durable at once.
//!
//! ```text
//!                     open_logbook                        freeze
//!   Holding, no logbook ───────▶ Holding, expendable ───────────▶ Frozen
//!      ▲   ▲       ◀─────────── drop_logbook, or it failed          │ follow …
//!      │   └──────────────────────── resume ────────────────────────┤
//!      │ end_logbook                                                │
//!   Holding, durable ◀──────────────── take ────────────────── Following
//!      │   └───── freeze ─────▶ Frozen
//!      └─ write failed ─▶ Holding, failed ── freeze, end_logbook ─▶ …
//! ```
//!
//! **What an acknowledgement waits for.** Without a logbook, and with an expendable one (before the
//! cut, for the standby to follow): a synced batch in the database; the logbook gets the records
//! afterwards, unsynced. With a durable one (after the cut): the synced logbook; the database gets
//! the rows afterwards, buffered. With `Durability::Os` nothing is synced.
//!
//! **Freezing** closes the sequencer, not the reading: when it returns, everything that was
//! acknowledged is in the logbook's file at or below the sequence it names, nothing will be appended
//! any more, and every later put is refused, to be executed by the next holder.
//!
//! **An expendable logbook that cannot be written** is dropped; the node serves on, and an event says
//! that the standby can no longer follow. **A durable one** is left as it is: nothing more is
//! acknowledged until the authority goes back ([`Sequencer::freeze`]) or, after the commit, the
//! database takes over ([`Sequencer::end_logbook`]). **A database that cannot be written** ends all
//! writing for good; reading goes on.

mod refusal;
mod role;
mod thread;

use std::fmt;
use std::sync::Arc;

use bumpless_os::background;
use bumpless_shared::control::{Generation, Sequence, Term};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

pub use self::refusal::{OrderError, PutRefused};
pub use self::role::{Logbook, Role, Route, Unfit};
use self::thread::{Log, State, Thread, begin_term};
use super::append::Append;
use super::chunks::ChunkError;
use super::content::Content;
use super::directory::FileError;
use super::log_writer::Prepared;
use super::replay::{Followed, Marked, Step};
use super::snapshot::Snapshot;
use super::store::{Position, Store, Writer};
use super::store_error::{ReadError, StoreError};

/// Writes that are made durable together: enough that a sync's time divides to little, few enough that
/// the first does not wait long for the last (a megabyte of records).
const GROUP: usize = 256;

/// Writes that may wait in the queue; more wait at their callers'.
const WAITING: usize = 1024;

/// What the sequencer begins as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With authority, under a term that was reserved for it.
    Holding {
        /// The term; higher than any in the database and the logbooks.
        term: Term,
    },
    /// Without: a candidate, its snapshot complete.
    Following,
}

/// What can be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its role.
    pub role: Role,
    /// How far the state has come. With a logbook: everything up to here can be read from it.
    pub position: Position,
}

/// What happens without having been asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The expendable logbook could not be written and was dropped. The node serves on; the standby
    /// cannot follow any further.
    LogbookDropped {
        /// What failed.
        cause: String,
    },
    /// The durable logbook failed: this term acknowledges nothing more.
    LogbookFailed {
        /// What failed.
        cause: String,
    },
    /// The database failed: this process writes nothing more.
    Poisoned {
        /// What failed.
        cause: String,
    },
}

/// A put that was acknowledged; the content is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// By this put.
    New {
        /// The record's number.
        sequence: Sequence,
    },
    /// It was there already.
    Already,
}

/// A logbook was opened: all at or below the snapshot's position is in the snapshot, all above is
/// and will be in the logbook.
#[derive(Debug)]
pub struct Opened {
    /// The logbook's term.
    pub term: Term,
    /// The state where it begins.
    pub snapshot: Snapshot,
}

/// The authority of a term was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frozen {
    /// The term.
    pub term: Term,
    /// Its last sequence; everything up to it can be read from its logbook.
    pub sequence: Sequence,
}

type Answer<T> = oneshot::Sender<T>;
type Done<T> = Answer<Result<T, OrderError>>;

enum Command {
    Write(Write),
    OpenLogbook { version: u16, done: Done<Opened> },
    DropLogbook(Done<()>),
    Mark { id: u64, done: Done<Marked> },
    Freeze(Done<Frozen>),
    Take { prepared: Prepared, at: Sequence, done: Done<Sequence> },
    Follow { steps: Vec<Step>, done: Done<Followed> },
    Resume { term: Term, done: Done<Position> },
    EndLogbook(Done<Position>),
    Trim { up_to: Sequence, done: Done<()> },
    Snapshot(Done<Snapshot>),
    Persist(Done<Position>),
    Stop(Done<Position>),
}

/// What a client wants changed.
struct Write {
    what: What,
    _place: tokio::sync::OwnedSemaphorePermit,
}

enum What {
    Put { content: Arc<Content>, done: Answer<Result<Stored, PutRefused>> },
    Append { append: Arc<Append>, done: Answer<Result<u64, PutRefused>> },
}

/// The handle: cheap to clone, usable from any task. The thread ends after [`Sequencer::stop`], or
/// when the last handle is gone; the database is closed with the last [`Store`].
#[derive(Clone)]
pub struct Sequencer {
    queue: mpsc::UnboundedSender<Command>,
    places: Arc<Semaphore>,
    status: watch::Receiver<Status>,
    store: Store,
}

impl fmt::Debug for Sequencer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequencer").field("status", &*self.status.borrow()).finish()
    }
}

impl Sequencer {
    /// Starts the thread. A holder's term is durable in the database before this returns, so that no
    /// logbook of an earlier term can add to the state from here on.
    pub fn start(
        mut writer: Writer,
        start: Start,
    ) -> Result<(Sequencer, mpsc::UnboundedReceiver<Event>), OrderError> {
        let store = writer.store().clone();
        let state = match start {
            Start::Holding { term } => {
                let position = store.position();
                if Role::Following.resume(term, position).is_err() {
                    return Err(OrderError::OldTerm { term, position });
                }
                begin_term(&mut writer, term).map_err(poisoned)?;
                State::Holding { term, log: Log::None }
            }
            Start::Following => State::Following,
        };
        let (queue, commands) = mpsc::unbounded_channel();
        let (events, event_receiver) = mpsc::unbounded_channel();
        let (status_sender, status) =
            watch::channel(Status { role: state.role(), position: store.position() });
        let thread = Thread { writer, state, events, status: status_sender };
        std::thread::Builder::new()
            .name("sequencer".to_owned())
            .spawn(move || thread.run(commands))
            .map_err(|error| OrderError::Poisoned {
                cause: format!("cannot start the sequencer: {error}"),
            })?;
        let sequencer = Sequencer { queue, places: Arc::new(Semaphore::new(WAITING)), status, store };
        Ok((sequencer, event_receiver))
    }

    /// The reading side of the state.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Role and position, now and whenever they change.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Stores content, durably before it returns. Content that is there already is not stored again.
    /// The caller keeps the content, to relay it if it is refused as [`PutRefused::Frozen`].
    pub async fn put(&self, content: &Arc<Content>) -> Result<Stored, PutRefused> {
        let place = self.place().await?;
        if !content.is_record() {
            let (store, content) = (self.store.clone(), content.clone());
            tokio::task::spawn_blocking(move || stage(&store, &content))
                .await
                .map_err(|error| PutRefused::Unreadable { cause: error.to_string() })??;
        }
        let (done, answer) = oneshot::channel();
        let what = What::Put { content: content.clone(), done };
        self.queue.send(Command::Write(Write { what, _place: place })).map_err(|_| PutRefused::Stopped)?;
        answer.await.map_err(|_| PutRefused::Stopped)?
    }

    /// Appends to a log, durably before it returns the entry's index. An append that is there already is
    /// not made again: it gets the index that it has.
    pub async fn append(&self, append: &Arc<Append>) -> Result<u64, PutRefused> {
        let place = self.place().await?;
        let (done, answer) = oneshot::channel();
        let what = What::Append { append: append.clone(), done };
        self.queue.send(Command::Write(Write { what, _place: place })).map_err(|_| PutRefused::Stopped)?;
        answer.await.map_err(|_| PutRefused::Stopped)?
    }

    /// A place in the queue for something that is not refused whatever it is.
    async fn place(&self) -> Result<tokio::sync::OwnedSemaphorePermit, PutRefused> {
        let place = self.places.clone().acquire_owned().await.map_err(|_| PutRefused::Stopped)?;
        let role = self.status.borrow().role;
        role.route().map(|_| place)
    }

    /// Opens an expendable logbook for a standby. A logbook of this term that an earlier standby left
    /// behind is removed first; the database has everything in it. From here on until the logbook is
    /// dropped nothing is done that this version of the contract, the standby's, cannot express; where the
    /// state holds such a thing already, it is [`OrderError::Inexpressible`].
    pub async fn open_logbook(&self, version: u16) -> Result<Opened, OrderError> {
        self.order(|done| Command::OpenLogbook { version, done }).await
    }

    /// Closes the expendable logbook; its files stay. Without one nothing happens.
    pub async fn drop_logbook(&self) -> Result<(), OrderError> {
        self.order(Command::DropLogbook).await
    }

    /// Appends a mark. The snapshot is the state exactly there.
    pub async fn mark(&self, id: u64) -> Result<Marked, OrderError> {
        self.order(|done| Command::Mark { id, done }).await
    }

    /// Gives the authority up. Asked again, it answers the same.
    pub async fn freeze(&self) -> Result<Frozen, OrderError> {
        self.order(Command::Freeze).await
    }

    /// Takes the authority of the prepared logbook's term; the state has to stand exactly at `at`, the
    /// last sequence of the term before. Returns the first sequence of the term. Touches no disk.
    pub async fn take(&self, prepared: Prepared, at: Sequence) -> Result<Sequence, OrderError> {
        self.order(|done| Command::Take { prepared, at, done }).await
    }

    /// Applies what a reader found, in order. For [`super::Follower`], which reads.
    pub async fn follow(&self, steps: Vec<Step>) -> Result<Followed, OrderError> {
        self.order(|done| Command::Follow { steps, done }).await
    }

    pub(super) fn follow_blocking(&self, steps: Vec<Step>) -> Result<Followed, OrderError> {
        let (done, answer) = oneshot::channel();
        self.queue.send(Command::Follow { steps, done }).map_err(|_| OrderError::Stopped)?;
        answer.blocking_recv().map_err(|_| OrderError::Stopped)?
    }

    /// Holds again, without a logbook, after the other's was followed to its end. Everything is
    /// durable in the database when it returns. Asked again with the same term it answers the same.
    pub async fn resume(&self, term: Term) -> Result<Position, OrderError> {
        self.order(|done| Command::Resume { term, done }).await
    }

    /// After the commit: the database is made durable and takes over from the durable logbook, whose
    /// files stay. Without a logbook nothing happens.
    pub async fn end_logbook(&self) -> Result<Position, OrderError> {
        self.order(Command::EndLogbook).await
    }

    /// Removes whole segments of the own logbook at or below this sequence.
    pub async fn trim(&self, up_to: Sequence) -> Result<(), OrderError> {
        self.order(|done| Command::Trim { up_to, done }).await
    }

    /// The state after everything that was acknowledged so far.
    pub async fn snapshot(&self) -> Result<Snapshot, OrderError> {
        self.order(Command::Snapshot).await
    }

    /// Makes database and chunk directory durable and says up to where.
    pub async fn persist(&self) -> Result<Position, OrderError> {
        self.order(Command::Persist).await
    }

    /// Removes logbooks and other generations, which must not be in use: this state is made durable
    /// first, so that nothing goes that only they hold.
    pub async fn remove(&self, logs: Vec<Term>, generations: Vec<Generation>) -> Result<(), OrderError> {
        self.persist().await?;
        let (state, own) = (self.store.state().clone(), self.store.generation());
        let no_thread =
            FileError::at("start a thread that removes what is not needed in", state.path().to_owned());
        // Gigabytes of tables and thousands of names: it can wait for whoever is served.
        let removing = background::spawn("remove", move || {
            logs.iter().try_for_each(|term| state.remove_log(*term))?;
            generations.iter().try_for_each(|generation| state.remove_generation(*generation, own))
        });
        let removing = removing.map_err(|error| OrderError::Remove(no_thread(error).into()))?;
        removing.await.map_err(|_| OrderError::Stopped)?.map_err(OrderError::Remove)
    }

    /// Finishes what is in the queue, makes everything durable and ends the thread.
    pub async fn stop(&self) -> Result<Position, OrderError> {
        self.order(Command::Stop).await
    }

    async fn order<T>(&self, command: impl FnOnce(Done<T>) -> Command) -> Result<T, OrderError> {
        let (done, answer) = oneshot::channel();
        self.queue.send(command(done)).map_err(|_| OrderError::Stopped)?;
        answer.await.map_err(|_| OrderError::Stopped)?
    }
}

/// The chunk file is durable before its record is queued.
fn stage(store: &Store, content: &Content) -> Result<(), PutRefused> {
    match store.contains(content.name()) {
        Ok(true) => return Ok(()),
        Ok(false) => {}
        Err(error) => return Err(unreadable(error)),
    }
    store.stage_chunk(content).map_err(|error| match error {
        ChunkError::NoRoom { needed, free } => PutRefused::NoRoom { needed, free },
        ChunkError::Missing { .. }
        | ChunkError::Length { .. }
        | ChunkError::Content { .. }
        | ChunkError::File(_) => PutRefused::Unreadable { cause: error.to_string() },
    })
}

fn unreadable(error: ReadError) -> PutRefused {
    PutRefused::Unreadable { cause: error.to_string() }
}

fn poisoned(error: StoreError) -> OrderError {
    OrderError::Poisoned { cause: error.to_string() }
}

//! The beginning: lock, identity, state, sockets; and taking authority over a state that nobody has.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bumpless_os::lock;
use bumpless_shared::cid::Tag;
use bumpless_shared::control::{Origin, Report, Start, Term, Trouble};
use bumpless_shared::digest::Digest;
use tokio::task::AbortHandle;

use super::pairing::Following;
use super::{Input, Worker, broken};
use crate::handover::snapshot::room;
use crate::heartbeat::{Vitals, beat};
use crate::identity::{self, IdentityFailure};
use crate::lifecycle::Event;
use crate::net::{Config, GroupFds, Limits, Node, StartError};
use crate::serve::{After, Mode, Serving};
use crate::stamp::Stamp;
use crate::state::{
    self, FileError, Prepared, RecoverError, Recovered, Sequencer, StateDir, StoreError, StoreOptions,
    Writer, recover,
};

/// Everything that a started worker has.
pub struct Open {
    pub start: Start,
    /// Its lock says that this process lives; closing any descriptor of the file would give it up.
    _alive: OwnedFd,
    /// Copies of all sockets, for a supervisor that lost its own.
    pub sockets: Vec<OwnedFd>,
    pub pin: Digest,
    pub node: Node,
    pub serving: Arc<Serving>,
    pub directory: StateDir,
    pub vitals: Arc<Vitals>,
    /// Until somebody may write: at `Go`, or once the snapshot is taken in.
    pub writer: Option<Writer>,
    pub sequencer: Option<Sequencer>,
    pub prepared: Option<Prepared>,
    pub following: Option<Following>,
    pub canary: Option<AbortHandle>,
}

/// Why a worker cannot start.
#[derive(Debug)]
enum CannotStart {
    Lock(io::Error),
    Locked,
    Abandoned,
    Descriptors { got: usize, addresses: usize },
    Tag(u8),
    Identity(IdentityFailure),
    State(StoreError),
    Recover(RecoverError),
    List(FileError),
    NotEmpty { path: PathBuf },
    Sockets(io::Error),
    Node(StartError),
    Stopping,
}

impl fmt::Display for CannotStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CannotStart::Lock(error) => write!(f, "the alive file cannot be locked: {error}"),
            CannotStart::Locked => f.write_str("the alive file is locked by another process"),
            CannotStart::Abandoned => f.write_str("the supervisor that started it is gone"),
            CannotStart::Descriptors { got, addresses } => {
                write!(f, "{got} sockets came for {addresses} addresses; each has 4")
            }
            CannotStart::Tag(tag) => write!(f, "slot {tag}: there are 1, 2 and 3"),
            CannotStart::Identity(error) => error.fmt(f),
            CannotStart::State(error) => error.fmt(f),
            CannotStart::Recover(error) => error.fmt(f),
            CannotStart::List(error) => error.fmt(f),
            CannotStart::NotEmpty { path } => write!(
                f,
                "this is to be the first start of the node, and {} holds data already. Nothing was changed; give the \
                 node an empty state folder, or restore the supervisor's records that belong to this one",
                path.display()
            ),
            CannotStart::Sockets(error) => write!(f, "the sockets cannot be copied: {error}"),
            CannotStart::Node(error) => error.fmt(f),
            CannotStart::Stopping => f.write_str("the worker is stopping"),
        }
    }
}

/// What opening the state brought.
struct State {
    identity: crate::net::Identity,
    writer: Writer,
    recovered: Recovered,
}

impl Worker {
    pub(super) async fn start(&mut self, start: Start) -> Event {
        let descriptors = std::mem::take(&mut self.descriptors);
        match self.try_start(start, descriptors).await {
            Ok(event) => event,
            Err(error) => broken(Trouble::CannotStart, format!("cannot start: {error}")),
        }
    }

    async fn try_start(&mut self, start: Start, descriptors: Vec<OwnedFd>) -> Result<Event, CannotStart> {
        let addresses = start.listen.len();
        let wrong = CannotStart::Descriptors { got: descriptors.len().saturating_sub(1), addresses };
        let mut descriptors = descriptors.into_iter();
        // First of all: from here on everybody can see that this process lives.
        let Some(alive) = descriptors.next() else { return Err(wrong) };
        if !lock::try_lock(&alive).map_err(CannotStart::Lock)? {
            return Err(CannotStart::Locked);
        }
        // A supervisor that starts hears or ends whoever has such a lock by then. If ours is gone, the next
        // one may have looked before: for it this worker does not exist, so it must not touch anything.
        if self.reports.cut_off() {
            return Err(CannotStart::Abandoned);
        }
        let given: Vec<OwnedFd> = descriptors.collect();
        if given.len() != 4 * addresses {
            return Err(wrong);
        }
        let tag = Tag::new(start.tag).ok_or(CannotStart::Tag(start.tag))?;
        let copies: io::Result<Vec<_>> = given.iter().map(OwnedFd::try_clone).collect();
        let sockets = copies.map_err(CannotStart::Sockets)?;
        let groups = GroupFds::all(given).map_err(|_| wrong)?;

        let directory = StateDir::new(&start.state);
        let opening = (directory.clone(), start.clone(), self.stamp.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let (directory, start, stamp) = opening;
            open(&directory, &start, &stamp)
        });
        let State { identity, writer, recovered } = opened.await.map_err(|_| CannotStart::Stopping)??;

        let patience = Duration::from_millis(start.timing.relay_ms.max(1));
        let inbox = self.inbox.clone();
        let judge = Box::new(move |kind, reason| inbox.suspect(kind, reason));
        let release = start.release.version.to_string();
        let inbox = self.inbox.clone();
        let heed = Box::new(move |promise| inbox.send(Input::Promised(promise)));
        let serving = Arc::new(Serving::new(release, self.stamp.clone(), patience, judge, heed));
        let pin = identity.pin();
        let node = Node::start(Config {
            tag,
            groups,
            keys: start.routing.clone(),
            identity,
            handler: serving.clone(),
            limits: Limits::default(),
            spoken: self.stamp.speaks,
        })
        .map_err(CannotStart::Node)?;
        let vitals = Arc::new(Vitals::default());
        vitals.sequence.store(recovered.position.sequence, Ordering::Relaxed);
        let every = Duration::from_millis(start.timing.heartbeat_ms);
        tokio::spawn(beat(every, node.clone(), vitals.clone(), directory.logs(), self.reports.clone()));
        let term = recovered.highest_term;
        let ready = Report::Ready {
            sequence: recovered.position.sequence,
            term,
            replayed: recovered.replayed,
            logs: recovered.logs,
            generations: recovered.generations,
            damage: words(&recovered.damage, &recovered.refused),
        };
        self.open = Some(Open {
            start,
            _alive: alive,
            sockets,
            pin,
            node,
            serving,
            directory,
            vitals,
            writer: Some(writer),
            sequencer: None,
            prepared: None,
            following: None,
            canary: None,
        });
        Ok(Event::Opened { ready, term })
    }

    /// Takes authority over what was opened, under a term that nobody had.
    pub(super) async fn hold(&mut self, term: Term) -> Option<Event> {
        let Some(writer) = self.open.as_mut().and_then(|open| open.writer.take()) else {
            return Some(broken(Trouble::CannotStart, "there is no state to hold"));
        };
        let holding =
            tokio::task::spawn_blocking(move || Sequencer::start(writer, state::Start::Holding { term }));
        let started = match holding.await {
            Ok(Ok(started)) => started,
            Ok(Err(error)) => {
                return Some(broken(Trouble::CannotStart, format!("cannot hold term {term}: {error}")));
            }
            Err(_) => return Some(broken(Trouble::CannotStart, CannotStart::Stopping)),
        };
        let sequencer = self.sequence(started)?;
        let open = self.open.as_mut()?;
        open.sequencer = Some(sequencer);
        open.serving.set(Mode::Execute { term, after: After::Start });
        match open.node.listen(Vec::new()) {
            Ok(()) => None,
            Err(error) => Some(broken(Trouble::CannotStart, format!("cannot read new connections: {error}"))),
        }
    }

    /// Serves from the state that was started, and hears what happens to it.
    pub(super) fn sequence(
        &self,
        (sequencer, mut events): (Sequencer, tokio::sync::mpsc::UnboundedReceiver<state::Event>),
    ) -> Option<Sequencer> {
        let open = self.open.as_ref()?;
        open.serving.open(sequencer.clone());
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            loop {
                let event = events.recv().await;
                let ended = event.is_none();
                inbox.send(Input::State(event));
                if ended {
                    return;
                }
            }
        });
        let (mut status, vitals, store) =
            (sequencer.status(), open.vitals.clone(), sequencer.store().clone());
        tokio::spawn(async move {
            loop {
                let sequence = status.borrow_and_update().position.sequence;
                vitals.sequence.store(sequence, Ordering::Relaxed);
                vitals.standby_room.store(room(&store.totals()), Ordering::Relaxed);
                if status.changed().await.is_err() {
                    return;
                }
            }
        });
        Some(sequencer)
    }
}

fn open(directory: &StateDir, start: &Start, stamp: &Stamp) -> Result<State, CannotStart> {
    let (path, layout) = (Path::new(&start.state), stamp.layout);
    let options = StoreOptions {
        durability: start.durability,
        keep_free: StoreOptions::KEEP_FREE,
        version: stamp.speaks.max,
    };
    match start.origin {
        Origin::Genesis => {
            bumpless_os::durable::create_dirs(path).map_err(|error| {
                CannotStart::Identity(IdentityFailure::File { path: path.to_owned(), error })
            })?;
            let identity = identity::make(path).map_err(CannotStart::Identity)?;
            let (writer, recovered) = match Writer::create(directory, start.generation, layout, options) {
                Ok(writer) => (writer, listed(directory)?),
                // An earlier first start came this far; nothing was ever acknowledged from it.
                Err(StoreError::Exists { path }) => {
                    let (writer, recovered) =
                        recover(directory, start.generation, options).map_err(CannotStart::Recover)?;
                    if recovered.position.sequence != 0 {
                        return Err(CannotStart::NotEmpty { path });
                    }
                    (writer, recovered)
                }
                Err(error) => return Err(CannotStart::State(error)),
            };
            Ok(State { identity, writer, recovered })
        }
        Origin::Cold => {
            let identity = identity::read(path).map_err(CannotStart::Identity)?;
            let (writer, recovered) =
                recover(directory, start.generation, options).map_err(CannotStart::Recover)?;
            Ok(State { identity, writer, recovered })
        }
        Origin::Candidate => {
            let identity = identity::read(path).map_err(CannotStart::Identity)?;
            let writer =
                Writer::create(directory, start.generation, layout, options).map_err(CannotStart::State)?;
            Ok(State { identity, writer, recovered: listed(directory)? })
        }
    }
}

/// What is on the disk beside a generation that is empty.
fn listed(directory: &StateDir) -> Result<Recovered, CannotStart> {
    let logs = directory.list_remains().map_err(CannotStart::List)?;
    let generations = directory.list_generations().map_err(CannotStart::List)?;
    let highest_term = logs.iter().copied().max().unwrap_or(0);
    Ok(Recovered { logs, generations, highest_term, ..Recovered::default() })
}

/// Damage in words, a few of each kind.
fn words(damage: &[state::Damage], refused: &[state::Refusal]) -> Option<String> {
    const SHOWN: usize = 5;
    let all: Vec<String> = damage
        .iter()
        .map(ToString::to_string)
        .take(SHOWN)
        .chain(refused.iter().map(ToString::to_string).take(SHOWN))
        .collect();
    let count = damage.len() + refused.len();
    (count > 0).then(|| format!("{count} records of the logbooks were not applied: {}", all.join("; ")))
}

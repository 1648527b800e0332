//! The edge: the only code that starts and kills processes, hands descriptors about and writes the
//! records that the sequence reasons with. Each effect is done when [`Edge::perform`] returns, or its
//! outcome comes later as news ([`worker::News`], [`Done`]).

pub mod journal;
pub mod worker;

use std::collections::HashMap;
use std::io::{Read, Seek, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use bumpless_os::channel;
use bumpless_os::child::User;
use bumpless_os::process::Process;
use bumpless_shared::control::{
    Command, Generation, Incarnation, Instance, Origin, RoutingKeys, Start, Tag, Term,
};
use bumpless_shared::digest::Digest;
use bumpless_shared::release::Release;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc::UnboundedSender;

use crate::alive::{Alive, Files};
use crate::config::Config;
use crate::launch;
use crate::records::committed::{self, Committed};
use crate::records::file::{Kept, RecordFile};
use crate::records::numbers::{Highest, Numbers};
use crate::records::paths::Paths;
use crate::records::routing;
use crate::releases::Releases;
use crate::sockets::Groups;
use crate::upgrade::recovery::Intent;
use crate::upgrade::{Attempt, Effect, Event, Launched, RecordTerm, State, Stored, Terms, Verdict, Worker};
use journal::Journal;
use worker::{Handle, Link, News};

pub use bumpless_os::clock::unix_now;

/// The outcome of an effect that took a while.
#[derive(Debug)]
pub enum Done {
    /// The binary was verified and cannot be changed any more: ready to be executed.
    Verified(Planned, Result<OwnedFd, Verdict>),
}

/// A process that is about to be started.
#[derive(Clone, Debug)]
pub struct Planned {
    /// What it will be.
    pub worker: Worker,
}

/// Everything that effects need.
#[derive(Debug)]
pub struct Edge {
    /// From the file.
    pub config: Config,
    /// Where everything lies.
    pub paths: Paths,
    /// Highest numbers handed out.
    pub numbers: Numbers,
    /// What is under way.
    pub journal: Kept<Journal>,
    /// What starts.
    pub committed: Option<Committed>,
    /// What is installed.
    pub releases: Rc<Releases>,
    /// Who is locked.
    pub alive: Alive,
    /// The sockets, once bound or taken back.
    pub groups: Option<Groups>,
    /// Living workers.
    pub handles: HashMap<Instance, Handle>,
    /// Ours.
    pub incarnation: Incarnation,
    /// As whom workers run; `None`: as we do. That of the living ones, whatever the configuration says by now.
    pub user: Option<User>,
    record: RecordFile<Committed>,
    routing: RoutingKeys,
    news: UnboundedSender<News>,
    done: UnboundedSender<Done>,
    starting: HashMap<Instance, (Files, [u8; 16])>,
    /// Planned last; what was planned before it is not executed any more.
    newest: Instance,
}

/// What [`Edge::new`] is made of.
#[derive(Debug)]
pub struct Parts {
    /// From the file.
    pub config: Config,
    /// Where everything lies.
    pub paths: Paths,
    /// Highest numbers handed out.
    pub numbers: Numbers,
    /// What is under way.
    pub journal: Kept<Journal>,
    /// What starts.
    pub committed: Option<Committed>,
    /// What is installed.
    pub releases: Rc<Releases>,
    /// Shared by all workers of this node.
    pub routing: RoutingKeys,
    /// Ours.
    pub incarnation: Incarnation,
    /// As whom workers run; `None`: as we do.
    pub user: Option<User>,
    /// Where workers' tasks send.
    pub news: UnboundedSender<News>,
    /// Where slow effects send.
    pub done: UnboundedSender<Done>,
}

impl Edge {
    /// Nothing runs yet.
    pub fn new(parts: Parts) -> Edge {
        let Parts {
            config,
            paths,
            numbers,
            journal,
            committed,
            releases,
            routing,
            incarnation,
            user,
            news,
            done,
        } = parts;
        Edge {
            record: committed::file(&paths),
            alive: Alive::new(&paths),
            groups: None,
            handles: HashMap::new(),
            starting: HashMap::new(),
            newest: 0,
            config,
            paths,
            numbers,
            journal,
            committed,
            releases,
            incarnation,
            user,
            routing,
            news,
            done,
        }
    }

    /// Performs one effect. What it leads to at once is returned. Fetching, installing and the ledger's
    /// effects are the driver's.
    pub fn perform(&mut self, effect: Effect, state: &State) -> Option<Event> {
        match effect {
            Effect::Spawn { release, generation, origin, tag } => {
                self.spawn(release, generation, origin, tag, state)
            }
            Effect::Start(worker, origin) => self.start(&worker, origin),
            Effect::Pair { serving, new } => self.pair(&serving, &new),
            Effect::Tell(instance, command) => {
                self.tell(instance, command, vec![]);
                None
            }
            Effect::Kill(instance) => {
                self.kill(instance);
                None
            }
            Effect::Reserve { attempt, generation, held } => {
                Some(Event::Stored(self.reserve(attempt, generation, held)))
            }
            Effect::Record { release, generation, term } => {
                Some(Event::Stored(match self.commit(release, generation, term) {
                    Ok(term) => Stored::Recorded(term),
                    Err(why) => Stored::NotRecorded(why),
                }))
            }
            Effect::Discard { logs, generations } => {
                if !logs.is_empty() || !generations.is_empty() {
                    self.write_journal(|journal| journal.discard(logs, generations));
                }
                None
            }
            Effect::Fetch(_) | Effect::CancelAcquire | Effect::Install(_) => None,
            Effect::Conclude { .. } | Effect::Alarm(_) | Effect::Rehearsed { .. } => None,
        }
    }

    /// Changes the journal. It is in memory at once, and on disk, or `false`; then it is tried again
    /// ([`Edge::retry_journal`]), and forward steps that need it on disk are not taken.
    pub fn write_journal(&mut self, change: impl FnOnce(&mut Journal)) -> bool {
        match self.journal.change(change) {
            Ok(()) => true,
            Err(error) => {
                eprintln!("bumplessd: {error}");
                false
            }
        }
    }

    /// Writes the journal again if the last write failed.
    pub fn retry_journal(&mut self) {
        if !self.journal.is_written()
            && let Err(error) = self.journal.retry()
        {
            eprintln!("bumplessd: {error}");
        }
    }

    /// Sends an order with descriptors.
    pub fn tell(&self, instance: Instance, command: Command, descriptors: Vec<OwnedFd>) {
        match self.handles.get(&instance) {
            Some(handle) => {
                if let Command::Drain { .. } | Command::Stop { .. } = command {
                    handle.expect_end();
                }
                handle.tell(command, descriptors);
            }
            None => eprintln!("bumplessd: an order was meant for worker {instance}, which is gone"),
        }
    }

    fn kill(&self, instance: Instance) {
        if let Some(handle) = self.handles.get(&instance) {
            handle.expect_end();
            if let Err(error) = handle.kill() {
                eprintln!("bumplessd: worker {instance} cannot be killed: {error}");
            }
        }
    }

    /// The sockets, bound now if they are not yet.
    ///
    /// # Errors
    /// In words for the operator: an address in use, no permission.
    pub fn bind(&mut self) -> Result<&Groups, String> {
        if self.groups.is_none() {
            let wanted = addresses(&self.config.listen, self.committed.as_ref().map(|c| c.listen.as_slice()));
            self.groups = Some(Groups::bind(&wanted).map_err(|error| error.to_string())?);
        }
        self.groups.as_ref().ok_or_else(|| "no sockets".to_owned())
    }

    fn spawn(
        &mut self,
        release: Release,
        generation: Option<Generation>,
        origin: Origin,
        tag: Tag,
        state: &State,
    ) -> Option<Event> {
        let planned = self.plan(release, generation, origin, tag, state);
        let planned = match planned {
            Ok(planned) => planned,
            Err(why) => return Some(Event::Launched(Launched::Failed(Verdict::Unknown(why)))),
        };
        self.newest = planned.worker.instance;
        let (releases, done, user) = (self.releases.clone(), self.done.clone(), self.user);
        tokio::task::spawn_local(async move {
            let release = planned.worker.release.clone();
            let binary = releases.launchable(&release, user).await.map_err(|error| error.verdict());
            let _ = done.send(Done::Verified(planned, binary));
        });
        None
    }

    /// Numbers, sockets and the journal, all before a process exists.
    fn plan(
        &mut self,
        release: Release,
        generation: Option<Generation>,
        origin: Origin,
        tag: Tag,
        state: &State,
    ) -> Result<Planned, String> {
        self.bind()?;
        let instance = self.numbers.next_instance().map_err(|error| error.to_string())?;
        let generation = match generation {
            Some(generation) => generation,
            None => self.numbers.next_generation().map_err(|error| error.to_string())?,
        };
        if let (Origin::Genesis | Origin::Candidate, Some(intent)) =
            (origin, Intent::begun(state, generation))
            && !self.write_journal(|journal| journal.intent = Some(intent))
        {
            return Err("the journal cannot be written, so no upgrade is begun; see the log".into());
        }
        Ok(Planned { worker: Worker { instance, generation, release, tag } })
    }

    /// Whether no other start was planned after this one.
    pub fn is_newest(&self, planned: &Planned) -> bool {
        self.newest == planned.worker.instance
    }

    /// Goes on with a start once the binary is verified.
    pub fn launch(&mut self, planned: Planned, binary: Result<OwnedFd, Verdict>) -> Event {
        let binary = match binary {
            Ok(binary) => binary,
            Err(verdict) => return Event::Launched(Launched::Failed(verdict)),
        };
        match self.execute(&planned.worker, binary) {
            Ok(()) => Event::Launched(Launched::Running(planned.worker)),
            Err(why) => Event::Launched(Launched::Failed(Verdict::Unknown(why))),
        }
    }

    fn execute(&mut self, worker: &Worker, binary: OwnedFd) -> Result<(), String> {
        let instance = worker.instance;
        let mut files = self.alive.create(instance).map_err(|error| error.to_string())?;
        let secret = routing::secret().map_err(|error| format!("no random bytes: {error}"))?;
        files
            .alive
            .write_all(&secret)
            .map_err(|error| format!("the alive file cannot be written: {error}"))?;
        let (ours, theirs) = channel::pair().map_err(|error| format!("no socket pair: {error}"))?;
        let channel = channel::Channel::new(ours).map_err(|error| format!("no control channel: {error}"))?;
        let launched = launch::launch(binary.as_fd(), theirs, &files.output, self.user)
            .map_err(|error| error.to_string())?;
        let link = Link { channel, incarnation: self.incarnation, version: None };
        let output = self.alive.output(instance);
        let (process, pid) = (launched.process, launched.pid);
        let handle = Handle::new(worker.clone(), process, pid, unix_now(), output, link, self.news.clone())
            .map_err(|error| format!("its process cannot be watched: {error}"))?;
        self.handles.insert(instance, handle);
        self.starting.insert(instance, (files, secret));
        Ok(())
    }

    fn start(&mut self, worker: &Worker, origin: Origin) -> Option<Event> {
        let instance = worker.instance;
        let (files, secret) = self.starting.remove(&instance)?;
        let Some(groups) = &self.groups else { return None };
        let start = Start {
            instance,
            secret,
            release: worker.release.clone(),
            state: self.paths.state().to_string_lossy().into_owned(),
            generation: worker.generation,
            origin,
            tag: worker.tag,
            listen: groups.addresses(),
            routing: self.routing.clone(),
            reconnect: self.paths.reconnect_socket().to_string_lossy().into_owned(),
            durability: self.config.worker.durability,
            timing: self.config.timing(),
        };
        let sockets: std::io::Result<Vec<OwnedFd>> =
            groups.fds().into_iter().map(|fd| fd.try_clone_to_owned()).collect();
        match sockets {
            Ok(sockets) => {
                let descriptors = std::iter::once(OwnedFd::from(files.alive)).chain(sockets).collect();
                self.tell(instance, Command::Start(Box::new(start)), descriptors);
            }
            Err(error) => {
                eprintln!("bumplessd: no descriptors left for worker {instance}: {error}");
                self.kill(instance);
            }
        }
        None
    }

    fn pair(&mut self, serving: &Worker, new: &Worker) -> Option<Event> {
        if let Err(error) = self.join(serving, new) {
            eprintln!("bumplessd: the two workers cannot be joined: {error}");
            self.kill(new.instance);
        }
        None
    }

    /// Gives both their ends and keeps none.
    fn join(&self, serving: &Worker, new: &Worker) -> std::io::Result<()> {
        let gone = || std::io::Error::other("one of them is gone");
        let (a, b) = (
            self.handles.get(&serving.instance).ok_or_else(gone)?,
            self.handles.get(&new.instance).ok_or_else(gone)?,
        );
        let (link_a, link_b) = channel::pair()?;
        let (stream_a, stream_b) = channel::stream_pair()?;
        let (stray_a, stray_b) = channel::datagram_pair()?;
        let command = |peer: &Worker| Command::Pair {
            peer: peer.instance,
            peer_tag: peer.tag,
            peer_generation: peer.generation,
        };
        let (pidfd_a, pidfd_b) = (a.pidfd()?, b.pidfd()?);
        b.tell(command(serving), vec![link_b, stream_b, stray_b, pidfd_a]);
        a.tell(command(new), vec![link_a, stream_a, stray_a, pidfd_b]);
        Ok(())
    }

    fn reserve(
        &mut self,
        attempt: Attempt,
        generation: Generation,
        (old_generation, held): (Generation, Term),
    ) -> Stored {
        let highest = Highest { term: held, ..Highest::default() };
        let take = match self.numbers.raise(highest).and_then(|()| self.numbers.reserve_terms(2)) {
            Ok(take) => take,
            Err(error) => return Stored::NotReserved(error.to_string()),
        };
        let terms = Terms::reserved(held, take);
        let intent = Intent { attempt, generation, old_generation, terms: Some(terms) };
        match self.write_journal(|journal| journal.intent = Some(intent)) {
            true => Stored::Reserved(terms),
            false => Stored::NotReserved("see the log".into()),
        }
    }

    fn commit(&mut self, release: Release, generation: Generation, term: RecordTerm) -> Result<Term, String> {
        let term = match term {
            RecordTerm::Held(term) => term,
            RecordTerm::Above(found) => {
                let highest = Highest { term: found, ..Highest::default() };
                self.numbers
                    .raise(highest)
                    .and_then(|()| self.numbers.reserve_terms(1))
                    .map_err(|error| error.to_string())?
            }
        };
        let listen = self.groups.as_ref().map(Groups::addresses).unwrap_or_default();
        let record = Committed { release, generation, term, listen };
        self.record.store(&record).map_err(|error| error.to_string())?;
        self.committed = Some(record);
        Ok(term)
    }

    /// Takes back a worker that outlived the supervisor before this one.
    ///
    /// # Errors
    /// Where its pidfd cannot be watched.
    pub fn take_back(
        &mut self,
        worker: Worker,
        process: Process,
        pid: i32,
        link: Link,
    ) -> std::io::Result<()> {
        let (instance, output) = (worker.instance, self.alive.output(worker.instance));
        let handle = Handle::new(worker, process, pid, unix_now(), output, link, self.news.clone())?;
        self.handles.insert(instance, handle);
        Ok(())
    }

    /// The secret that an instance was started with, from its alive file.
    ///
    /// # Errors
    /// Those of reading it.
    pub fn secret_of(&self, instance: Instance) -> std::io::Result<[u8; 16]> {
        let mut file = std::fs::File::open(self.paths.alive().join(instance.to_string()))?;
        let mut secret = [0; 16];
        file.rewind()?;
        file.read_exact(&mut secret)?;
        Ok(secret)
    }

    /// What tells this machine from others, the same for its whole life: derived from a key that is made
    /// once and never leaves it.
    pub fn machine_id(&self) -> Digest {
        let mut hash = Sha256::new();
        hash.update(b"bumpless/machine/1");
        hash.update(self.routing.mac);
        Digest(hash.finalize().into())
    }

    /// Forgets a worker that has ended; its last words remain readable until the next is buried.
    pub fn bury(&mut self, instance: Instance) -> Option<String> {
        let handle = self.handles.remove(&instance)?;
        self.starting.remove(&instance);
        let words = handle.output.tail();
        if let Err(error) = self.alive.remove(instance) {
            eprintln!("bumplessd: {error}");
        }
        Some(words)
    }
}

/// Which addresses to bind: those of the configuration; a port that was left to the kernel is the one
/// that the committed record has for the same address.
fn addresses(configured: &[SocketAddr], committed: Option<&[SocketAddr]>) -> Vec<SocketAddr> {
    let known = committed.unwrap_or_default();
    configured
        .iter()
        .enumerate()
        .map(|(index, address)| match known.get(index) {
            Some(before) if address.port() == 0 && before.ip() == address.ip() => *before,
            Some(_) | None => *address,
        })
        .collect()
}

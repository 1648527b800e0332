//! The worker process: one loop that hears orders, events and the other worker, asks
//! [`crate::lifecycle`] what to do, and does it.
//!
//! ```text
//!   orders ──┐                                     ┌─▶ opening    start: lock, state, sockets
//!   events ──┼─▶ one queue ─▶ Life ─▶ actions ─────┼─▶ pairing    snapshot, logbook, level
//!   notes  ──┘        ▲                 │          ├─▶ cut        prepare, yield, take over, resume
//!                     └──── events ◀────┘          └─▶ keeping    persist, commit, remove, drain, stop
//! ```
//!
//! Actions that change who holds are done one after the other, each to its end, before anything else is
//! heard; what takes long and decides nothing (copying, hashing, persisting, probing) runs beside and
//! comes back as an event. Requests, heartbeats and the storage have tasks and threads of their own.
//!
//! Before an order is looked at, the pidfds are: a supervisor that has confirmed a death may refer to it
//! in its next order, and this worker must not be behind.

mod cut;
mod deeds;
mod keeping;
mod opening;
mod pairing;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bumpless_os::channel::Channel;
use bumpless_shared::control::{Identity, Instance, Order, Report, Suspicion, Term, Trouble};
use bumpless_shared::link::Note;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::faults::lever::Lever;
use crate::faults::{Deed, Script, Step};
use crate::handover::link::LinkError;
use crate::handover::snapshot::SnapshotError;
use crate::handover::wires::{Happening, Wires};
use crate::lifecycle::{Action, Event, Life, State};
use crate::serve::{Mode, Promise};
use crate::stamp::Stamp;
use crate::state::{self, FollowEvent, Writer};
use crate::supervisor::{ConnectError, Connection, Reports, reconnect};

use opening::Open;
use pairing::Receiving;

/// Everything that the loop hears.
enum Input {
    Order(Order, Vec<OwnedFd>),
    Event(Event),
    From(Instance, Happening),
    TakenIn(Instance, Result<Writer, SnapshotError>),
    Followed(Term, FollowEvent),
    State(Option<state::Event>),
    Connected(Connection),
    Promised(Promise),
    Deed(Deed),
}

/// Where tasks leave what the loop is to hear.
#[derive(Clone)]
struct Inbox(mpsc::UnboundedSender<Input>);

impl Inbox {
    fn send(&self, input: Input) {
        // The loop ends with the process.
        let _ = self.0.send(input);
    }

    fn event(&self, event: Event) {
        self.send(Input::Event(event));
    }

    fn suspect(&self, kind: Suspicion, reason: String) {
        self.event(Event::Suspicious { kind, reason });
    }
}

struct Worker {
    life: Life,
    stamp: Stamp,
    inbox: Inbox,
    reports: Reports,
    /// From `Start` on.
    open: Option<Open>,
    /// Those that came with the order that is being carried out.
    descriptors: Vec<OwnedFd>,
    wires: Vec<Wires>,
    receiving: Option<Receiving>,
    moment: Option<AbortHandle>,
    /// Becomes suspicious while `Took` does not come.
    impatience: Option<AbortHandle>,
    frozen_at: Option<Instant>,
    died_at: Option<Instant>,
    /// A new supervisor's, until it was told who this is.
    introduced: Option<Connection>,
    /// Whether a promise of the other worker is being looked for in its logbook: one at a time.
    holding_to: Arc<AtomicBool>,
    /// What is to go wrong; nothing in a sound release.
    script: Script,
}

/// Runs the worker that the supervisor started. Does not return: the process ends when its life does.
///
/// # Errors
/// There is no supervisor that it could talk to.
pub async fn run(end: OwnedFd, stamp: Stamp) -> Result<std::convert::Infallible, ConnectError> {
    let channel = Channel::new(end).map_err(ConnectError::Io)?;
    let connection = Arc::new(Connection::greet(channel, stamp.greets()).await?);
    let (sender, mut inputs) = mpsc::unbounded_channel();
    let inbox = Inbox(sender);
    listen_to(connection.clone(), inbox.clone());
    let lever = Lever::grasp(stamp.faults.lever.as_deref(), &stamp.release).await;
    let (script, mut deeds) = Script::new(&stamp.faults, lever);
    tokio::spawn(script.clone().obey());
    let left = inbox.clone();
    tokio::spawn(async move {
        while let Some(deed) = deeds.recv().await {
            left.send(Input::Deed(deed));
        }
    });
    let mut worker = Worker {
        life: Life::default(),
        stamp,
        inbox,
        reports: Reports::start(connection, script.clone()),
        open: None,
        descriptors: Vec::new(),
        wires: Vec::new(),
        receiving: None,
        moment: None,
        impatience: None,
        frozen_at: None,
        died_at: None,
        introduced: None,
        holding_to: Arc::default(),
        script,
    };
    loop {
        // The worker has a sender itself, so the queue never ends.
        if let Some(input) = inputs.recv().await {
            worker.hear(input).await;
        }
    }
}

/// Reads orders from a channel until it is closed.
fn listen_to(connection: Arc<Connection>, inbox: Inbox) {
    tokio::spawn(async move {
        loop {
            match connection.order().await {
                Ok(Some((order, descriptors))) => inbox.send(Input::Order(order, descriptors)),
                Ok(None) => return inbox.event(Event::ControlClosed),
                Err(error) => {
                    eprintln!("bumpless-node: the supervisor sent something that is no order: {error}")
                }
            }
        }
    });
}

impl Worker {
    async fn hear(&mut self, input: Input) {
        match input {
            Input::Order(order, descriptors) => {
                self.before_order(&order).await;
                self.look_for_deaths().await;
                self.descriptors = descriptors;
                let life = std::mem::take(&mut self.life);
                let (life, actions) = life.order(order);
                self.life = life;
                self.perform(actions).await;
                self.descriptors.clear();
            }
            Input::Event(event) => self.event(event).await,
            Input::From(instance, happening) => self.happened(instance, happening).await,
            Input::TakenIn(instance, result) => self.taken_in(instance, result).await,
            Input::Followed(term, event) => self.followed(term, event).await,
            Input::State(event) => self.state_event(event).await,
            Input::Connected(connection) => {
                self.introduced = Some(connection);
                self.event(Event::Connected).await;
            }
            Input::Promised(promise) => self.hold_to(promise),
            Input::Deed(deed) => self.deed(deed).await,
        }
    }

    async fn event(&mut self, event: Event) {
        if let Event::ControlClosed = event {
            self.reports.through(None);
        }
        let life = std::mem::take(&mut self.life);
        let (life, actions) = life.event(event);
        self.life = life;
        self.perform(actions).await;
    }

    async fn look_for_deaths(&mut self) {
        let dead: Vec<Instance> = self
            .wires
            .iter()
            .filter(|wires| wires.process.has_ended().unwrap_or(false))
            .map(|wires| wires.peer.instance)
            .collect();
        for instance in dead {
            self.died_at.get_or_insert_with(Instant::now);
            self.event(Event::PeerDied(instance)).await;
        }
    }

    async fn happened(&mut self, instance: Instance, happening: Happening) {
        match happening {
            Happening::Note(Note::Yield { term, sequence, handshakes }) => {
                self.before(Step::Take).await;
                self.event(Event::YieldCame { from: instance, term, sequence, handshakes }).await;
            }
            Happening::Note(Note::Took { term }) => {
                self.before(Step::Resign).await;
                self.be_patient();
                let gap_us = self.frozen_at.map_or(0, |at| at.elapsed().as_micros() as u64);
                self.event(Event::TookCame { from: instance, term, gap_us }).await;
            }
            Happening::Up(version) => self.linked(instance, version).await,
            Happening::Note(note @ Note::Opened { .. }) => self.snapshot_announced(instance, &note),
            Happening::Note(Note::Written { .. } | Note::Applied { .. }) => {}
            Happening::Closed(error) => {
                match error {
                    LinkError::Closed => {}
                    LinkError::Io(_) | LinkError::Version(_) | LinkError::Full | LinkError::NotUp => {
                        eprintln!("bumpless-node: link to worker {instance}: {error}");
                    }
                    // More than silence: what is wrong is told before that.
                    LinkError::Frame(_) | LinkError::Operation(_) | LinkError::Unexpected(_) => {
                        eprintln!("bumpless-node: link to worker {instance}: {error}");
                        let kind = Suspicion::Failing;
                        self.event(Event::Suspicious { kind, reason: error.to_string() }).await;
                    }
                }
                self.event(Event::LinkClosed(instance)).await;
            }
            Happening::Died => {
                self.died_at.get_or_insert_with(Instant::now);
                self.event(Event::PeerDied(instance)).await;
            }
        }
    }

    async fn state_event(&mut self, event: Option<state::Event>) {
        self.event(match event {
            Some(state::Event::LogbookDropped { cause }) => Event::LogbookDropped {
                reason: format!("the logbook for the new release could not be written and was dropped: {cause}. The \
                     running release serves on; free disk space or repair the disk, then try the upgrade again"),
            },
            Some(state::Event::LogbookFailed { cause }) => Event::Poisoned {
                reason: format!("the logbook of this term cannot be written: {cause}. Nothing more is acknowledged \
                     here, reading still works"),
            },
            Some(state::Event::Poisoned { cause }) => Event::Poisoned {
                reason: format!("the database cannot be written: {cause}. Nothing more is acknowledged here, reading \
                     still works; repair the disk and restart the node"),
            },
            None => Event::Broken {
                kind: Trouble::Poisoned,
                reason: "the storage thread ended; the worker ends with it and is to be started anew".to_owned(),
            },
        })
        .await;
    }

    /// Carries actions out, and what their events bring about before what comes after them.
    async fn perform(&mut self, actions: Vec<Action>) {
        let mut queue = VecDeque::from(actions);
        while let Some(action) = queue.pop_front() {
            if let Some(event) = self.act(action).await {
                let life = std::mem::take(&mut self.life);
                let (life, more) = life.event(event);
                self.life = life;
                for action in more.into_iter().rev() {
                    queue.push_front(action);
                }
            }
        }
    }

    async fn act(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Report(report) => {
                if let Report::Trouble { text, .. } = &report {
                    eprintln!("bumpless-node: {text}");
                }
                self.reports.send(report);
                None
            }
            Action::Start(start) => Some(self.start(*start).await),
            Action::Hold { term } => self.hold(term).await,
            Action::Raise { term } => self.raise(term).await,
            Action::Unadopt { tag } => self.unadopt(tag),
            Action::Adopt { tag } => self.adopt(tag),
            Action::Feed { peer, term: _ } => self.feed(peer),
            Action::Receive { peer } => self.receive(peer),
            Action::Mark { id } => self.mark(id).await,
            Action::Prepare { term, reserve } => Some(self.prepare(term, reserve).await),
            Action::AwaitMoment { window_ms } => {
                self.await_moment(window_ms);
                None
            }
            Action::CancelMoment => {
                self.cancel_moment();
                None
            }
            Action::Yield { cut } => {
                self.before(Step::Yield).await;
                Some(self.give(cut).await)
            }
            Action::Relay => {
                self.relay();
                None
            }
            Action::Follow { term } => self.follow_peer(term),
            Action::Probe => {
                self.probe();
                None
            }
            Action::StopProbing => {
                self.stop_probing();
                None
            }
            Action::TakeOver { term, sequence, books, handshakes } => {
                Some(self.take_over(term, sequence, books, handshakes).await)
            }
            Action::Resume { term, read } => Some(self.resume(term, read).await),
            Action::DropLogbook => {
                self.drop_logbook().await;
                None
            }
            Action::Forget { instance } => {
                self.forget(instance);
                None
            }
            Action::KillPeer => {
                self.kill_peer();
                None
            }
            Action::Release => {
                self.serve(Mode::Release);
                None
            }
            Action::Persist => {
                self.persist();
                None
            }
            Action::Commit { term } => self.commit(term).await,
            Action::Drain { stagger_ms, deadline_ms } => {
                self.drain(stagger_ms, deadline_ms);
                None
            }
            Action::Remove { logs, generations } => {
                self.remove(logs, generations);
                None
            }
            Action::Stop { deadline_ms } => {
                self.stop(deadline_ms);
                None
            }
            Action::Reconnect => {
                self.reconnect();
                None
            }
            Action::Identify => self.identify().await,
            Action::Exit { code } => {
                self.reports.flush().await;
                std::process::exit(code)
            }
        }
    }

    fn reconnect(&mut self) {
        self.reports.through(None);
        self.introduced = None;
        let Some(open) = &self.open else { return };
        let path = open.start.reconnect.clone().into();
        let (spoken, inbox) = (self.stamp.greets(), self.inbox.clone());
        tokio::spawn(async move {
            let connection = reconnect(path, spoken).await;
            inbox.send(Input::Connected(connection));
        });
    }

    /// Tells a new supervisor who this is and hands it the sockets; then listens to it.
    async fn identify(&mut self) -> Option<Event> {
        let (Some(connection), Some(open), Some(role)) =
            (self.introduced.take(), &self.open, self.life.role())
        else {
            return Some(Event::ControlClosed);
        };
        let identity = Identity {
            instance: open.start.instance,
            secret: open.start.secret,
            release: open.start.release.clone(),
            generation: open.start.generation,
            tag: open.start.tag,
            role,
            sequence: open.vitals.sequence.load(Ordering::Relaxed),
            peer: match self.life.state() {
                State::Holding(holding) => holding.pairing.peer().or(holding.draining),
                State::Frozen(frozen) => Some(frozen.peer),
                State::Draining { peer, .. } => Some(*peer),
                State::Born
                | State::Opening { .. }
                | State::Ready { .. }
                | State::Standby(_)
                | State::Ended => None,
            }
            .map(|peer| peer.instance),
            listen: open.start.listen.clone(),
        };
        if connection.send(&Report::Identity(Box::new(identity)), &open.sockets).await.is_err() {
            return Some(Event::ControlClosed);
        }
        let connection = Arc::new(connection);
        self.reports.through(Some(connection.clone()));
        listen_to(connection, self.inbox.clone());
        None
    }

    /// Changes who executes requests.
    fn serve(&self, mode: Mode) {
        if let Some(open) = &self.open {
            open.serving.set(mode);
        }
    }

    fn wires_to(&self, instance: Instance) -> Option<&Wires> {
        self.wires.iter().find(|wires| wires.peer.instance == instance)
    }

    /// The wires to the worker that the present state is about.
    fn peer_wires(&self) -> Option<&Wires> {
        let peer = match self.life.state() {
            State::Standby(standby) => standby.peer,
            State::Holding(holding) => holding.pairing.peer(),
            State::Frozen(frozen) => Some(frozen.peer),
            State::Draining { peer, .. } => Some(*peer),
            State::Born | State::Opening { .. } | State::Ready { .. } | State::Ended => None,
        };
        self.wires_to(peer?.instance)
    }
}

/// Something failed without which this worker cannot go on.
fn broken(kind: Trouble, reason: impl std::fmt::Display) -> Event {
    Event::Broken { kind, reason: reason.to_string() }
}

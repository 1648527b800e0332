//! Getting level with the other worker, from both ends, and staying so.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bumpless_os::background;
use bumpless_os::process::Process;
use bumpless_shared::control::{Instance, Report, Sequence, Suspicion, Tag, Term, Trouble};
use bumpless_shared::link::{Note, Part};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

use super::{Input, Worker, broken};
use crate::faults::Step;
use crate::handover::snapshot::{self, Announced, Progress, SnapshotError};
use crate::handover::wires::{Ends, Talk, Wires};
use crate::lifecycle::{Event, Frozen, Oath, Pairing, Peer, State};
use crate::serve::Promise;
use crate::state::{FollowEvent, Follower, Marked, OrderError, Role, Sequencer, Start, Status, Writer};

/// Between two reports of progress.
const PROGRESS: Duration = Duration::from_millis(200);

/// Between two looks at whether segments of the logbook can go.
const TRIM: Duration = Duration::from_secs(1);

/// A snapshot that is being taken in.
pub struct Receiving {
    parts: Option<mpsc::Receiver<Part>>,
    announced: Option<Announced>,
    progress: Arc<Progress>,
    /// Tells the supervisor, until level.
    telling: Option<AbortHandle>,
}

impl Worker {
    /// Opens the wires with the descriptors of the order under way.
    fn connect(&mut self, peer: Peer, snapshot: Option<mpsc::Sender<Part>>) -> Result<(), String> {
        let descriptors = std::mem::take(&mut self.descriptors);
        let Ok([link, stream, strays, pidfd]) = <[_; 4]>::try_from(descriptors) else {
            return Err("a pair needs four descriptors: link, stream, stray packets, process".to_owned());
        };
        let Some(open) = &self.open else { return Err("it is not started".to_owned()) };
        let Some(tag) = bumpless_shared::cid::Tag::new(peer.tag) else {
            return Err(format!("slot {}: there are 1, 2 and 3", peer.tag));
        };
        open.node.peer(tag, strays).map_err(|error| format!("the socket for stray packets: {error}"))?;
        self.script.wired(link.as_fd(), stream.as_fd());
        let ends = Ends { link, stream, process: Process::from_pidfd(pidfd), spoken: self.stamp.speaks };
        let (inbox, instance) = (self.inbox.clone(), peer.instance);
        let overdue = {
            let inbox = inbox.clone();
            Box::new(move |waited: Duration| {
                let reason = format!("a relayed request has no answer after {} ms", waited.as_millis());
                inbox.suspect(Suspicion::Silent, reason);
            })
        };
        let happen = move |happening| inbox.send(Input::From(instance, happening));
        let within = Duration::from_millis(open.start.timing.relay_ms.max(1));
        let wires = Wires::open(peer, ends, open.serving.clone(), within, snapshot, overdue, happen)
            .map_err(|error| format!("the other worker's process: {error}"))?;
        self.wires.retain(|wires| wires.peer.instance != instance);
        self.wires.push(wires);
        Ok(())
    }

    /// As the holder: greets. Once the version is known that both speak, the state goes over.
    pub(super) fn feed(&mut self, peer: Peer) -> Option<Event> {
        self.died_at = None;
        if let Err(reason) = self.connect(peer, None) {
            self.trouble(
                Trouble::SyncFailed,
                format!("the new worker cannot be fed: {reason}; this one serves on"),
            );
        }
        None
    }

    /// The greetings are exchanged. The holder of a candidate opens the logbook and streams the snapshot.
    pub(super) async fn linked(&mut self, instance: Instance, version: u16) {
        let State::Holding(holding) = self.life.state() else { return };
        match &holding.pairing {
            Pairing::Feeding(peer) if peer.instance == instance => {}
            Pairing::Feeding(_) | Pairing::Alone | Pairing::Watched(_) | Pairing::Cutting { .. } => return,
        }
        if self.send_state(instance, version).await.is_none() {
            eprintln!("bumpless-node: worker {instance} left before it was fed");
        }
    }

    async fn send_state(&self, instance: Instance, version: u16) -> Option<()> {
        let sequencer = self.sequencer()?;
        let opened = match sequencer.open_logbook(version).await {
            Ok(opened) => opened,
            Err(error @ OrderError::Inexpressible { .. }) => {
                let text = format!("{error}. Nothing was changed, and this one serves on");
                self.trouble(Trouble::SyncFailed, text);
                return Some(());
            }
            Err(error) => {
                let text =
                    format!("no logbook can be opened for the new worker: {error}; this one serves on");
                self.trouble(Trouble::SyncFailed, text);
                return Some(());
            }
        };
        let open = self.open.as_ref()?;
        let (generation, requests) = (open.start.generation, open.node.in_flight());
        let (reports, wires) = (self.reports.clone(), self.wires_to(instance)?);
        let talk = wires.talk();
        wires.spawn(async move {
            if let Err(error) = snapshot::send(talk, opened, generation, requests).await {
                let text = format!("{error}; the running release serves on");
                reports.send(Report::Trouble { kind: Trouble::SyncFailed, text });
            }
        });
        wires.spawn(tell_written(sequencer.clone(), wires.talk()));
        wires.spawn(trim(sequencer, wires.talk()));
        Some(())
    }

    /// As the candidate: waits for the announcement.
    pub(super) fn receive(&mut self, peer: Peer) -> Option<Event> {
        let (sender, parts) = mpsc::channel(1);
        if let Err(reason) = self.connect(peer, Some(sender)) {
            self.trouble(Trouble::SyncFailed, format!("the serving worker cannot be reached: {reason}"));
            return None;
        }
        let progress = Arc::new(Progress::default());
        self.receiving = Some(Receiving { parts: Some(parts), announced: None, progress, telling: None });
        None
    }

    /// The holder says what it will send: take it in, on a thread.
    pub(super) fn snapshot_announced(&mut self, instance: Instance, note: &Note) {
        let (Some(receiving), Some(open), Some(announced)) =
            (&mut self.receiving, &mut self.open, Announced::from_note(note))
        else {
            return;
        };
        let (Some(parts), Some(writer)) = (receiving.parts.take(), open.writer.take()) else { return };
        receiving.announced = Some(announced);
        let (inbox, faults, script) = (self.inbox.clone(), self.stamp.faults.clone(), self.script.clone());
        let (progress, runtime) = (receiving.progress.clone(), tokio::runtime::Handle::current());
        receiving.telling = Some(
            tokio::spawn(tell_progress(
                receiving.progress.clone(),
                open.vitals.clone(),
                self.reports.clone(),
            ))
            .abort_handle(),
        );
        let taking = inbox.clone();
        let started = background::spawn("ingest", move || {
            let taken = snapshot::take_in(writer, announced, parts, &progress, (&faults, &script), &runtime);
            taking.send(Input::TakenIn(instance, taken));
        });
        if let Err(error) = started {
            inbox.send(Input::TakenIn(instance, Err(SnapshotError::Thread(error))));
        }
    }

    /// The snapshot is in: follow the logbook from there.
    pub(super) async fn taken_in(&mut self, instance: Instance, taken: Result<Writer, SnapshotError>) {
        self.before(Step::Level).await;
        let receiving = self.receiving.take();
        let started = match taken {
            Ok(writer) => {
                let start =
                    tokio::task::spawn_blocking(move || Sequencer::start(writer, Start::Following)).await;
                match start {
                    Ok(Ok(started)) => started,
                    Ok(Err(error)) => return self.trouble(Trouble::SyncFailed, error.to_string()),
                    Err(_) => return,
                }
            }
            Err(error) => {
                if let Some(telling) = receiving.and_then(|receiving| receiving.telling) {
                    telling.abort();
                }
                return self.trouble(Trouble::SyncFailed, error.to_string());
            }
        };
        let Some(Receiving { announced: Some(announced), telling, .. }) = receiving else { return };
        let Some(sequencer) = self.sequence(started) else { return };
        if let Some(open) = &mut self.open {
            open.sequencer = Some(sequencer);
        }
        let level = Level::Awaited { reports: self.reports.clone(), telling };
        if let Err(error) = self.follow(announced.position.term, instance, level) {
            self.trouble(Trouble::SyncFailed, format!("the logbook cannot be followed: {error}"));
        }
    }

    /// Follows the logbook of the worker that took over.
    pub(super) fn follow_peer(&mut self, term: Term) -> Option<Event> {
        let instance = self.peer_wires()?.peer.instance;
        if let Err(error) = self.follow(term, instance, Level::NotAwaited) {
            let text = format!("the new worker's logbook is not followed: {error}; it is read when needed");
            self.trouble(Trouble::Housekeeping, text);
        }
        None
    }

    fn follow(&mut self, term: Term, instance: Instance, level: Level) -> std::io::Result<()> {
        let Some(sequencer) = self.sequencer() else { return Ok(()) };
        let follower = Arc::new(self.start_follower(sequencer, term)?);
        let wires = self.wires.iter().find(|wires| wires.peer.instance == instance);
        let (Some(open), Some(wires)) = (&mut self.open, wires) else { return Ok(()) };
        open.vitals.written.store(0, Ordering::Relaxed);
        open.vitals.applied.store(0, Ordering::Relaxed);
        let (talk, vitals, follows) = (wires.talk(), open.vitals.clone(), follower.clone());
        let task = wires.spawn(async move {
            let (mut level, mut written, mut applied) = (level, talk.written(), follows.applied());
            loop {
                let there = *written.borrow_and_update();
                let here = *applied.borrow_and_update();
                vitals.written.store(there.unwrap_or(0), Ordering::Relaxed);
                vitals.applied.store(here, Ordering::Relaxed);
                talk.progress(Note::Applied { sequence: here });
                if there.is_some_and(|there| here >= there) {
                    level = level.reached(here);
                }
                let alive = tokio::select! {
                    changed = written.changed() => {
                        follows.nudge();
                        changed.is_ok()
                    }
                    changed = applied.changed() => changed.is_ok(),
                };
                if !alive {
                    return;
                }
            }
        });
        open.following = Some(Following { follower, task });
        Ok(())
    }

    /// Starts the thread that reads; what it meets comes to the loop.
    pub(super) fn start_follower(&self, sequencer: Sequencer, term: Term) -> std::io::Result<Follower> {
        let (follower, mut events) = Follower::start(sequencer, term)?;
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                inbox.send(Input::Followed(term, event));
            }
        });
        Ok(follower)
    }

    pub(super) async fn followed(&mut self, term: Term, event: FollowEvent) {
        // What a holder writes wrongly after the cut is judged; before it, the candidate is.
        let frozen = matches!(self.life.state(), State::Frozen(_));
        match event {
            FollowEvent::Marked(marked) => {
                self.before(Step::Mark).await;
                self.hash(marked);
            }
            FollowEvent::Refused(refusal) => {
                self.trouble(Trouble::RecordRefused, refusal.to_string());
                if frozen {
                    self.event(Event::Suspicious { kind: Suspicion::Wrong, reason: refusal.to_string() })
                        .await;
                }
            }
            FollowEvent::Damaged(damage) => {
                let text =
                    format!("the logbook of term {term} is damaged: {damage}; reading went on behind it");
                self.trouble(Trouble::Damage, text);
            }
            FollowEvent::Failed(cause) if frozen => {
                let text = format!("the logbook of term {term} is not followed any further: {cause}");
                self.trouble(Trouble::Housekeeping, text);
            }
            FollowEvent::Failed(cause) => {
                let text = format!("the logbook cannot be followed: {cause}; the running release serves on");
                self.trouble(Trouble::SyncFailed, text);
            }
        }
    }

    /// What the holder acknowledged stands in its logbook by now, and so it can be found here once that is
    /// read: otherwise it keeps less than it says, and after it nobody has what it acknowledged. One
    /// promise at a time; those that come meanwhile are believed.
    pub(super) fn hold_to(&self, promise: Promise) {
        let follower = self.open.as_ref().and_then(|open| open.following.as_ref());
        // Once this one is retired the holder may end its logbook.
        let (State::Frozen(Frozen { term, oath: Oath::Free, .. }), Some(following), Some(sequencer)) =
            (self.life.state(), follower, self.sequencer())
        else {
            return;
        };
        let (term, follower) = (*term, following.follower.clone());
        if follower.term() != term || self.holding_to.swap(true, Ordering::AcqRel) {
            return;
        }
        let (busy, inbox) = (self.holding_to.clone(), self.inbox.clone());
        tokio::spawn(async move {
            if follower.catch_up().await.is_ok() {
                let looking = tokio::task::spawn_blocking(move || match promise {
                    Promise::Content(name) => sequencer.store().contains(name),
                    Promise::Append(id, index) => sequencer.store().has_append(id, index),
                });
                if let Ok(Ok(false)) = looking.await {
                    let reason = format!("it acknowledged {promise}, and that is not in its logbook");
                    inbox.suspect(Suspicion::Wrong, reason);
                }
            }
            busy.store(false, Ordering::Release);
        });
    }

    /// Appends a mark and hashes the state there.
    pub(super) async fn mark(&mut self, id: u64) -> Option<Event> {
        let sequencer = self.sequencer()?;
        match sequencer.mark(id).await {
            Ok(marked) => self.hash(marked),
            Err(error) => {
                self.reports.send(Report::Refused { order: "Mark".to_owned(), reason: error.to_string() })
            }
        }
        None
    }

    fn hash(&self, marked: Marked) {
        let reports = self.reports.clone();
        let hashing = background::spawn("hash", move || {
            let Marked { id, sequence, snapshot } = marked;
            reports.send(match snapshot.hash() {
                Ok(hash) => Report::StateHash { id, sequence, hash: hash.digest() },
                Err(error) => {
                    let text = format!("the state cannot be hashed: {error}");
                    Report::Trouble { kind: Trouble::Housekeeping, text }
                }
            });
        });
        if let Err(error) = hashing {
            self.trouble(Trouble::Housekeeping, format!("no thread for hashing the state: {error}"));
        }
    }

    pub(super) fn unadopt(&self, tag: Tag) -> Option<Event> {
        let open = self.open.as_ref()?;
        open.node.unadopt(bumpless_shared::cid::Tag::new(tag)?);
        None
    }

    pub(super) fn adopt(&self, tag: Tag) -> Option<Event> {
        let open = self.open.as_ref()?;
        if let Err(error) = open.node.adopt(bumpless_shared::cid::Tag::new(tag)?) {
            let text = format!("connections of a worker that ended are not reset at once: {error}");
            self.trouble(Trouble::Housekeeping, text);
        }
        None
    }

    pub(super) fn forget(&mut self, instance: Instance) {
        self.wires.retain(|wires| wires.peer.instance != instance);
        if self.wires.is_empty() {
            self.script.unwired();
            if let Some(open) = &self.open {
                open.node.no_peer();
            }
        }
    }

    /// Closes the logbook that nobody follows any more, and removes it.
    pub(super) async fn drop_logbook(&mut self) {
        let (Some(sequencer), Some(open)) = (self.sequencer(), &self.open) else { return };
        let State::Holding(holding) = self.life.state() else { return };
        let (directory, term) = (open.directory.clone(), holding.term);
        if let Err(error) = sequencer.drop_logbook().await {
            return self.trouble(Trouble::Housekeeping, format!("the logbook was not dropped: {error}"));
        }
        // Not while another is opened: its folder has the same name.
        let removing = tokio::task::spawn_blocking(move || directory.remove_log(term));
        if let Ok(Err(error)) = removing.await {
            self.trouble(Trouble::Housekeeping, error.to_string());
        }
    }

    pub(super) fn sequencer(&self) -> Option<Sequencer> {
        self.open.as_ref()?.sequencer.clone()
    }

    pub(super) fn trouble(&self, kind: Trouble, text: String) {
        eprintln!("bumpless-node: {text}");
        self.reports.send(Report::Trouble { kind, text });
    }

    pub(super) fn needs_state(&self) -> Result<Sequencer, Event> {
        self.sequencer().ok_or_else(|| broken(Trouble::SyncFailed, "there is no state yet"))
    }
}

/// The other worker's logbook, followed. Dropped, it is not followed any more.
pub struct Following {
    pub follower: Arc<Follower>,
    task: AbortHandle,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether somebody waits to hear that this worker is level.
enum Level {
    NotAwaited,
    Awaited { reports: crate::supervisor::Reports, telling: Option<AbortHandle> },
}

impl Level {
    fn reached(self, sequence: Sequence) -> Level {
        match self {
            Level::NotAwaited => {}
            Level::Awaited { reports, telling } => {
                if let Some(telling) = telling {
                    telling.abort();
                }
                reports.send(Report::Level { sequence });
            }
        }
        Level::NotAwaited
    }
}

/// Tells the follower how far the logbook has come, whenever it has.
pub(super) async fn tell_written(sequencer: Sequencer, talk: Talk) {
    let mut status = sequencer.status();
    loop {
        let Status { role, position } = *status.borrow_and_update();
        // What it applies once it is frozen, the other one wrote.
        match role {
            Role::Holding { .. } => talk.progress(Note::Written { sequence: position.sequence }),
            Role::Frozen { .. } | Role::Following | Role::Poisoned => return,
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}

/// Before the cut a segment goes once the follower is past it. After the cut the sequencer has another
/// role and refuses, and this ends.
async fn trim(sequencer: Sequencer, talk: Talk) {
    let (mut applied, mut last) = (talk.applied(), Instant::now());
    while applied.changed().await.is_ok() {
        let Some(up_to) = *applied.borrow_and_update() else { continue };
        if last.elapsed() < TRIM {
            continue;
        }
        last = Instant::now();
        if sequencer.trim(up_to).await.is_err() {
            return;
        }
    }
}

async fn tell_progress(
    progress: Arc<Progress>,
    vitals: Arc<crate::heartbeat::Vitals>,
    reports: crate::supervisor::Reports,
) {
    let mut clock = tokio::time::interval(PROGRESS);
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        clock.tick().await;
        let (done, total) = (progress.done.load(Ordering::Relaxed), progress.total.load(Ordering::Relaxed));
        reports.send(Report::Syncing { done, total, lag: vitals.lag() });
    }
}

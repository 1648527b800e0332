//! The living connection with the other worker: link, stream, and the other's process.
//!
//! ```text
//!   link    ◀── notes ──▶   progress is overwritten by newer progress, never queued
//!   stream  ◀── parts ──▶   answers and requests before snapshot parts; always read
//!   pidfd   ─── readable: it is dead
//! ```
//!
//! One task owns both ends and greets; whatever ends it is one [`Happening::Closed`]. Dropping
//! [`Wires`] closes everything.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bumpless_os::process::Process;
use bumpless_shared::control::Sequence;
use bumpless_shared::link::{Note, Part};
use bumpless_shared::version::Range;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::link::{Link, LinkError};
use super::relay::{Expected, Granted, Overdue, Relay};
use super::stream::{self, Incoming, Outgoing};
use crate::lifecycle::Peer;
use crate::serve::Serving;

/// Parts of the snapshot that wait to be sent or to be taken in; each is at most about a megabyte.
const BULK: usize = 4;

/// Notes that need a decision, of one peer: it opens once, and each of a pair yields and takes twice at
/// most. Who sends more would fill the memory of the one who is to decide.
const DECISIONS: u32 = 16;

/// How long the note of a cut may wait for room before the cut is called off.
const NOTE_WITHIN: Duration = Duration::from_secs(1);

/// What comes from the other worker and needs a decision.
#[derive(Debug)]
pub enum Happening {
    /// The greetings are exchanged; this version of the contract is spoken.
    Up(u16),
    /// A note that is no mere progress.
    Note(Note),
    /// Link or stream are closed or broken.
    Closed(LinkError),
    /// Its pidfd is readable.
    Died,
}

/// The descriptors of a pair.
#[derive(Debug)]
pub struct Ends {
    /// SEQPACKET.
    pub link: OwnedFd,
    /// Byte stream.
    pub stream: OwnedFd,
    /// The other process.
    pub process: Process,
    /// What to greet with.
    pub spoken: Range,
}

/// A connection with the other worker.
#[derive(Debug)]
pub struct Wires {
    /// Who.
    pub peer: Peer,
    /// Its process.
    pub process: Process,
    /// For requests that it is to execute.
    pub relay: Arc<Relay>,
    shared: Arc<Shared>,
    bulk: mpsc::Sender<Part>,
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Debug)]
struct Shared {
    link: OnceLock<Link>,
    up: Notify,
    /// How far the other one says that it wrote.
    written: watch::Sender<Option<Sequence>>,
    /// How far the other one says that it applied.
    applied: watch::Sender<Option<Sequence>>,
    /// The newest progress to be told.
    progress: watch::Sender<Option<Note>>,
}

impl Wires {
    /// Begins. `snapshot` takes the parts of a snapshot, if one is expected.
    pub fn open(
        peer: Peer,
        ends: Ends,
        serving: Arc<Serving>,
        relay_within: Duration,
        snapshot: Option<mpsc::Sender<Part>>,
        overdue: Overdue,
        happen: impl Fn(Happening) + Clone + Send + Sync + 'static,
    ) -> std::io::Result<Wires> {
        let Ends { link, stream, process, spoken } = ends;
        let (out, parts) = mpsc::unbounded_channel();
        let (bulk, bulk_parts) = mpsc::channel(BULK);
        let relay = Relay::new(out.clone(), relay_within, overdue);
        let shared = Arc::new(Shared {
            link: OnceLock::new(),
            up: Notify::new(),
            written: watch::Sender::new(None),
            applied: watch::Sender::new(None),
            progress: watch::Sender::new(None),
        });
        let mut tasks = JoinSet::new();
        let watched = process.try_clone()?;
        let died = happen.clone();
        tasks.spawn(async move {
            if watched.ended().await.is_ok() {
                died(Happening::Died);
            }
        });
        let traffic = Traffic { shared: shared.clone(), relay: relay.clone(), serving, out, snapshot };
        tasks.spawn(async move {
            let ends = (link, stream);
            let ended = traffic.run(ends, spoken, parts, bulk_parts, happen.clone()).await;
            happen(Happening::Closed(ended));
        });
        Ok(Wires { peer, process, relay, shared, bulk, tasks: Mutex::new(tasks) })
    }

    /// Runs beside, for as long as this connection lives.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(task)
    }

    /// Sends a note that must arrive.
    ///
    /// # Errors
    /// It was not sent: the link is not up, closed, or there was no room for a second.
    pub async fn note(&self, note: &Note) -> Result<(), LinkError> {
        let link = self.shared.link.get().ok_or(LinkError::NotUp)?;
        match tokio::time::timeout(NOTE_WITHIN, link.send(note)).await {
            Ok(sent) => sent,
            Err(_) => Err(LinkError::Full),
        }
    }

    /// What another task needs to talk on these wires.
    pub fn talk(&self) -> Talk {
        Talk { shared: self.shared.clone(), bulk: self.bulk.clone() }
    }

    /// The version of the contract that is spoken; `None` while no notes can be sent.
    pub fn version(&self) -> Option<u16> {
        self.shared.link.get().map(Link::version)
    }
}

/// A task's side of the wires.
#[derive(Clone, Debug)]
pub struct Talk {
    shared: Arc<Shared>,
    /// For the snapshot.
    pub bulk: mpsc::Sender<Part>,
}

impl Talk {
    /// Sends a note once the link is up.
    ///
    /// # Errors
    /// The link is closed.
    pub async fn note(&self, note: &Note) -> Result<(), LinkError> {
        loop {
            let up = self.shared.up.notified();
            if let Some(link) = self.shared.link.get() {
                return link.send(note).await;
            }
            up.await;
        }
    }

    /// Tells how far we have come; replaces what was not sent yet.
    pub fn progress(&self, note: Note) {
        self.shared.progress.send_replace(Some(note));
    }

    /// How far the other one says that it wrote.
    pub fn written(&self) -> watch::Receiver<Option<Sequence>> {
        self.shared.written.subscribe()
    }

    /// How far the other one says that it applied.
    pub fn applied(&self) -> watch::Receiver<Option<Sequence>> {
        self.shared.applied.subscribe()
    }
}

/// What the task behind the wires works with.
struct Traffic {
    shared: Arc<Shared>,
    relay: Arc<Relay>,
    serving: Arc<Serving>,
    out: mpsc::UnboundedSender<Part>,
    snapshot: Option<mpsc::Sender<Part>>,
}

impl Traffic {
    async fn run(
        self,
        (link, stream): (OwnedFd, OwnedFd),
        spoken: Range,
        parts: mpsc::UnboundedReceiver<Part>,
        bulk: mpsc::Receiver<Part>,
        happen: impl Fn(Happening),
    ) -> LinkError {
        let opening = async { tokio::try_join!(Link::open(link, spoken), stream::open(stream, spoken)) };
        let (link, (incoming, outgoing)) = match opening.await {
            Ok(open) => open,
            Err(error) => return error,
        };
        let link = self.shared.link.get_or_init(|| link);
        happen(Happening::Up(link.version()));
        self.shared.up.notify_waiters();
        let granted = Arc::new(Granted::default());
        // The stream is gone once its writer is: nothing can be sent, so nobody need be asked.
        let _ = self.out.send(granted.begin());
        tokio::select! {
            error = self.notes(link, happen) => error,
            error = self.tell_progress(link) => error,
            error = self.read(incoming, granted) => error,
            error = write(outgoing, parts, bulk) => error,
        }
    }

    async fn notes(&self, link: &Link, happen: impl Fn(Happening)) -> LinkError {
        let mut decisions = 0;
        loop {
            match link.receive().await {
                Ok(Note::Written { sequence }) => drop(self.shared.written.send_replace(Some(sequence))),
                Ok(Note::Applied { sequence }) => drop(self.shared.applied.send_replace(Some(sequence))),
                Ok(Note::Opened { .. } | Note::Yield { .. } | Note::Took { .. })
                    if decisions == DECISIONS =>
                {
                    return LinkError::Unexpected("more notes of a hand-over than it has");
                }
                Ok(note @ (Note::Opened { .. } | Note::Yield { .. } | Note::Took { .. })) => {
                    decisions += 1;
                    happen(Happening::Note(note));
                }
                Err(error) => return error,
            }
        }
    }

    async fn tell_progress(&self, link: &Link) -> LinkError {
        let mut progress = self.shared.progress.subscribe();
        loop {
            let newest = progress.borrow_and_update().clone();
            if let Some(note) = newest
                && let Err(error) = link.send(&note).await
            {
                return error;
            }
            if progress.changed().await.is_err() {
                return LinkError::Closed;
            }
        }
    }

    async fn read(&self, mut incoming: Incoming, granted: Arc<Granted>) -> LinkError {
        loop {
            let part = match incoming.receive().await {
                Ok(part) => part,
                Err(error) => return error,
            };
            match part {
                Part::Entries(_) | Part::End { .. } => match &self.snapshot {
                    // Whoever takes the snapshot in may have given up; then it is read and dropped.
                    Some(snapshot) => drop(snapshot.send(part).await),
                    None => return LinkError::Unexpected("a snapshot"),
                },
                Part::Credit { requests } => match self.relay.granted(requests) {
                    Expected::Yes => {}
                    Expected::No => return LinkError::Unexpected("credit without end"),
                },
                Part::Answer { id, answer } => match self.relay.answered(id, answer) {
                    Expected::Yes => {}
                    Expected::No => return LinkError::Unexpected("an answer that nobody asked for"),
                },
                Part::Request { id, request } => {
                    if !granted.spend() {
                        return LinkError::Unexpected("more requests than it was granted");
                    }
                    let (serving, out, granted) = (self.serving.clone(), self.out.clone(), granted.clone());
                    tokio::spawn(async move {
                        let answer = serving.answer_relayed(&request).await;
                        // Without a stream there is nobody to be answered.
                        let _ = out.send(Part::Answer { id, answer });
                        let _ = out.send(granted.renew());
                    });
                }
            }
        }
    }
}

/// Requests and answers go before parts of the snapshot, which are many.
async fn write(
    mut outgoing: Outgoing,
    mut parts: mpsc::UnboundedReceiver<Part>,
    mut bulk: mpsc::Receiver<Part>,
) -> LinkError {
    let mut streaming = true;
    loop {
        let next = tokio::select! {
            biased;
            Some(part) = parts.recv() => Some(part),
            part = bulk.recv(), if streaming => {
                streaming = part.is_some();
                part
            }
            else => return LinkError::Closed,
        };
        let sent = match next {
            Some(part) => outgoing.send(&part).await,
            None => Ok(()),
        };
        let flushed = match sent {
            Ok(()) if parts.is_empty() && bulk.is_empty() => outgoing.flush().await,
            other => other,
        };
        if let Err(error) = flushed {
            return error;
        }
    }
}

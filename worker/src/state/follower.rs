//! Reading the other worker's logbook and keeping the own state level with it.
//!
//! ```text
//! nudge ─▶ thread: read until caught up ─▶ sequencer: apply ─▶ applied, events
//! ```
//!
//! The thread never looks by itself: whoever hears that the other wrote something nudges it. When the
//! other is known to be dead ([`Follower::finish`]) or frozen ([`Follower::finish_at`]), the rest is
//! read once more, to the end.

use std::fmt;
use std::sync::mpsc;

use bumpless_shared::control::{Sequence, Term};
use tokio::sync::{mpsc as events, oneshot, watch};

use super::log_reader::{Damage, Item, LogReader, ReadLogError};
use super::recovery::BATCH;
use super::replay::{Followed, Marked, Refusal, Step};
use super::sequencer::{OrderError, Sequencer};

/// Records refused or damaged that are told one by one; of more, the count is enough.
const TOLD: usize = 16;

/// What a follower meets.
#[derive(Debug)]
pub enum FollowEvent {
    /// A mark; the state exactly there.
    Marked(Marked),
    /// A record was not accepted.
    Refused(Refusal),
    /// Records are lost.
    Damaged(Damage),
    /// It follows no further; [`Follower::finish`] says the same.
    Failed(String),
}

/// The logbook was followed to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The last sequence of the state.
    pub sequence: Sequence,
    /// How many records were refused since the start.
    pub refused: usize,
    /// How many times records were lost since the start.
    pub damaged: usize,
}

/// Why a logbook was not followed to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinishError {
    /// It ends too early.
    Short {
        /// Where it should end.
        wanted: Sequence,
        /// Where it ends.
        applied: Sequence,
    },
    /// It could not be read or applied.
    Failed {
        /// The logbook's term.
        term: Term,
        /// In words.
        cause: String,
    },
    /// The follower or the sequencer has ended.
    Stopped,
}

impl fmt::Display for FinishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FinishError::Short { wanted, applied } => {
                write!(f, "the logbook ends at {applied}, records up to {wanted} were announced")
            }
            FinishError::Failed { term, cause } => {
                write!(f, "cannot follow the logbook of term {term}: {cause}")
            }
            FinishError::Stopped => f.write_str("the worker is stopping"),
        }
    }
}

impl std::error::Error for FinishError {}

enum Order {
    Nudge,
    Finish { at: Option<Sequence>, done: oneshot::Sender<Result<Finished, FinishError>> },
}

/// A thread that follows one term's logbook. It ends when this is dropped.
#[derive(Debug)]
pub struct Follower {
    orders: mpsc::Sender<Order>,
    applied: watch::Receiver<Sequence>,
    term: Term,
}

impl Follower {
    /// Follows the logbook of a term, which may not exist yet, from where the state stands. Reads
    /// what is there at once.
    pub fn start(
        sequencer: Sequencer,
        term: Term,
    ) -> std::io::Result<(Follower, events::UnboundedReceiver<FollowEvent>)> {
        let position = sequencer.store().position();
        let reader = LogReader::new(sequencer.store().state(), term, position.sequence + 1);
        let (orders, inbox) = mpsc::channel();
        let (applied_sender, applied) = watch::channel(position.sequence);
        let (event_sender, event_receiver) = events::unbounded_channel();
        let thread = Thread {
            sequencer,
            reader,
            applied: applied_sender,
            events: event_sender,
            refused: 0,
            damaged: 0,
            failed: None,
        };
        std::thread::Builder::new().name("follower".to_owned()).spawn(move || thread.run(&inbox))?;
        let follower = Follower { orders, applied, term };
        follower.nudge();
        Ok((follower, event_receiver))
    }

    /// The logbook's term.
    pub fn term(&self) -> Term {
        self.term
    }

    /// There may be more to read.
    pub fn nudge(&self) {
        // A thread that ended says so when it is asked to finish.
        let _ = self.orders.send(Order::Nudge);
    }

    /// The last sequence that was applied, now and whenever it rises.
    pub fn applied(&self) -> watch::Receiver<Sequence> {
        self.applied.clone()
    }

    /// Reads to the end. The writer must be known to be dead: what it was writing when it died counts
    /// as not written.
    pub async fn finish(&self) -> Result<Finished, FinishError> {
        self.ask(None).await
    }

    /// Reads up to the sequence at which the writer is frozen, which is in the file already.
    pub async fn finish_at(&self, sequence: Sequence) -> Result<Finished, FinishError> {
        self.ask(Some(sequence)).await
    }

    /// Reads all that is there now.
    pub async fn catch_up(&self) -> Result<Finished, FinishError> {
        self.ask(None).await
    }

    async fn ask(&self, at: Option<Sequence>) -> Result<Finished, FinishError> {
        let (done, answer) = oneshot::channel();
        self.orders.send(Order::Finish { at, done }).map_err(|_| FinishError::Stopped)?;
        answer.await.map_err(|_| FinishError::Stopped)?
    }
}

enum Failed {
    Log(ReadLogError),
    Order(OrderError),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failed::Log(error) => error.fmt(f),
            Failed::Order(error) => error.fmt(f),
        }
    }
}

struct Thread {
    sequencer: Sequencer,
    reader: LogReader,
    applied: watch::Sender<Sequence>,
    events: events::UnboundedSender<FollowEvent>,
    refused: usize,
    damaged: usize,
    failed: Option<String>,
}

impl Thread {
    fn run(mut self, inbox: &mpsc::Receiver<Order>) {
        while let Ok(order) = inbox.recv() {
            // Nudges that piled up meanwhile are one.
            let mut finish = Vec::new();
            for order in std::iter::once(order).chain(inbox.try_iter()) {
                match order {
                    Order::Nudge => {}
                    Order::Finish { at, done } => finish.push((at, done)),
                }
            }
            if self.failed.is_none()
                && let Err(error) = self.catch_up()
            {
                self.failed = Some(error.to_string());
                self.tell(FollowEvent::Failed(error.to_string()));
            }
            for (at, done) in finish {
                // Whoever asked may have gone.
                let _ = done.send(self.finished(at));
            }
        }
    }

    fn finished(&self, at: Option<Sequence>) -> Result<Finished, FinishError> {
        if let Some(cause) = &self.failed {
            return Err(FinishError::Failed { term: self.reader.term(), cause: cause.clone() });
        }
        let applied = *self.applied.borrow();
        match at {
            Some(wanted) if applied < wanted => Err(FinishError::Short { wanted, applied }),
            Some(_) | None => {
                Ok(Finished { sequence: applied, refused: self.refused, damaged: self.damaged })
            }
        }
    }

    fn catch_up(&mut self) -> Result<(), Failed> {
        let mut steps = Vec::new();
        loop {
            let item = self.reader.next().map_err(Failed::Log)?;
            let end = item == Item::CaughtUp;
            match item {
                Item::Record(record) => steps.push(Step::Record(record)),
                Item::Damaged(damage) => steps.push(Step::Damage(damage)),
                Item::CaughtUp => {}
            }
            if steps.len() >= BATCH || (end && !steps.is_empty()) {
                let followed =
                    self.sequencer.follow_blocking(std::mem::take(&mut steps)).map_err(Failed::Order)?;
                self.followed(followed);
            }
            if end {
                return Ok(());
            }
        }
    }

    fn followed(&mut self, followed: Followed) {
        let Followed { position, applied: _, marks, refused, damage } = followed;
        let left = |told: usize| TOLD.saturating_sub(told);
        let (more_refused, more_damaged) = (left(self.refused), left(self.damaged));
        self.refused += refused.len();
        self.damaged += damage.len();
        refused.into_iter().take(more_refused).for_each(|refusal| self.tell(FollowEvent::Refused(refusal)));
        damage.into_iter().take(more_damaged).for_each(|damage| self.tell(FollowEvent::Damaged(damage)));
        marks.into_iter().for_each(|marked| self.tell(FollowEvent::Marked(marked)));
        self.applied.send_replace(position.sequence);
    }

    fn tell(&self, event: FollowEvent) {
        // Nobody listens to a worker that is stopping.
        let _ = self.events.send(event);
    }
}

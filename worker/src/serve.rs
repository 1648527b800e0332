//! What a request means, depending on who holds.
//!
//! ```text
//!              ┌─ Execute ─▶ on the own state ──┐
//!   request ───┼─ Relay ───▶ by the holder ─────┼─▶ answer
//!              └─ Wait ─ ─ ─ until that changes ┘
//! ```
//!
//! A request lives in one future from its arrival to its answer, and the future looks at the mode again
//! whenever it changes. So there is no list of requests to be handed around: a put that the frozen
//! sequencer gives back waits and is relayed; a relayed request whose holder died is executed here as
//! soon as this worker holds again, and answered from what is stored if it was executed before.
//! Between freeze and `Took` requests wait; no request is answered with an error because of an upgrade.
//!
//! What the holder answers to a relayed get is held against the name before it goes to a client. A
//! wrong or refused one is reported, and the request waits: most likely somebody else holds soon. What it
//! acknowledges goes to the client at once, and is then looked for in its logbook ([`Promise`]).

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bumpless_shared::control::{Suspicion, Term};
use bumpless_shared::digest::Digest;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::handover::relay::Relay;
use crate::net::{Answering, Handler};
use crate::stamp::Stamp;
use crate::state::{Append, Content, LogPage, PutRefused, Sequencer, append_id, name_of};
use crate::wire::{Answer, Ask, Request};

/// Who executes.
#[derive(Clone, Debug)]
pub enum Mode {
    /// Nobody just now, or it is not known yet.
    Wait,
    /// This worker.
    Execute {
        /// Its term.
        term: Term,
        /// How it came to hold.
        after: After,
    },
    /// The other one.
    Relay(Arc<Relay>),
    /// The other one did, and is dead; clients find the next one by themselves.
    Release,
}

/// How a worker came to hold; its planned faults depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It was started to hold, or resumed.
    Start,
    /// It took over as a candidate.
    Cut,
}

/// Told what the holder answers wrongly.
pub type Judge = Box<dyn Fn(Suspicion, String) + Send + Sync>;

/// What the holder acknowledged to a relayed write, and so has in its logbook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Content of this name.
    Content(Digest),
    /// An append with this id, at this place of its log.
    Append(Digest, u64),
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Promise::Content(name) => write!(f, "a put of {}", name.short()),
            Promise::Append(id, index) => write!(f, "append {} as entry {index}", id.short()),
        }
    }
}

/// Told what the holder acknowledges.
pub type Heed = Box<dyn Fn(Promise) + Send + Sync>;

/// The handler of all requests, the clients' and the other worker's.
pub struct Serving {
    mode: watch::Sender<Mode>,
    state: OnceLock<Sequencer>,
    release: String,
    stamp: Stamp,
    patience: Duration,
    judge: Judge,
    heed: Heed,
    /// When something failing and something wrong was last reported.
    judged: [Mutex<Option<Instant>>; 2],
}

/// Between two reports of the same kind: a holder that answers everything wrongly is one finding.
const BETWEEN: Duration = Duration::from_millis(200);

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serving({:?})", *self.mode.borrow())
    }
}

impl Handler for Serving {
    fn handle(&self, request: Request) -> Answering<'_> {
        Box::pin(self.answer(request))
    }
}

/// What came of executing a request here.
enum Outcome {
    Done(Answer),
    /// Somebody else holds, or will: look at the mode again once it changes.
    Elsewhere,
}

impl Serving {
    /// In mode [`Mode::Wait`], without a state. `patience` bounds how long a bad answer is kept back.
    pub fn new(release: String, stamp: Stamp, patience: Duration, judge: Judge, heed: Heed) -> Serving {
        let (mode, _) = watch::channel(Mode::Wait);
        let judged = Default::default();
        Serving { mode, state: OnceLock::new(), release, stamp, patience, judge, heed, judged }
    }

    /// Gives it the state to execute on. A second one is ignored.
    pub fn open(&self, state: Sequencer) {
        let _ = self.state.set(state);
    }

    /// Changes the mode; every waiting request looks again.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// The answer to a request, whoever executes it.
    pub async fn answer(&self, request: Request) -> Answer {
        let (request, content) = match request {
            Request { id, ask: Ask::Put { content } } => match hash(content).await {
                Ok(content) => (Request { id, ask: Ask::Put { content: Vec::new() } }, Some(content)),
                Err(answer) => return answer,
            },
            other => (other, None),
        };
        let mut mode = self.mode.subscribe();
        loop {
            let now = mode.borrow_and_update().clone();
            match now {
                Mode::Wait => {}
                Mode::Execute { term, after } => {
                    match self.execute(&request, content.as_ref(), term, after).await {
                        Outcome::Done(answer) => return answer,
                        Outcome::Elsewhere => {}
                    }
                }
                Mode::Relay(relay) => {
                    let bytes = whole(&request, content.as_deref()).encode();
                    let answer = tokio::select! {
                        answer = relay.ask(bytes) => answer,
                        changed = mode.changed() => match changed {
                            Ok(()) => continue,
                            Err(_) => return stopping(),
                        },
                    };
                    match self.judged(&request, content.as_deref(), &answer) {
                        Ok(answer) => return answer,
                        Err(kept_back) => match timeout(self.patience, mode.changed()).await {
                            Ok(Ok(())) => continue,
                            Ok(Err(_)) => return stopping(),
                            Err(_) => return kept_back,
                        },
                    }
                }
                Mode::Release => {
                    let reason = "the worker of this connection is leaving; connect anew".to_owned();
                    return Answer::Retry { after_ms: 50, reason };
                }
            }
            if mode.changed().await.is_err() {
                return stopping();
            }
        }
    }

    async fn execute(
        &self,
        request: &Request,
        content: Option<&Arc<Content>>,
        term: Term,
        after: After,
    ) -> Outcome {
        let Some(state) = self.state.get() else { return Outcome::Elsewhere };
        if let (After::Cut, Some(answer)) = (after, self.stamp.faults.at_write(&request.ask, content)) {
            return Outcome::Done(answer);
        }
        Outcome::Done(match (&request.ask, content) {
            (Ask::Ping, _) => Answer::Pong { term, release: self.release.clone() },
            (Ask::Get { name }, _) => {
                let answer = read(state, *name).await;
                match after {
                    After::Start => answer,
                    After::Cut => self.stamp.faults.at_answer(answer),
                }
            }
            (Ask::Put { .. }, Some(content)) => match state.put(content).await {
                Ok(_) => Answer::Stored { name: content.name() },
                Err(refused) => return refusal(&refused),
            },
            (Ask::Append { log, nonce, content }, _) => match Append::new(*log, *nonce, content.clone()) {
                Ok(append) => match state.append(&Arc::new(append)).await {
                    Ok(index) => Answer::Appended { id: append_id(log, nonce, content), index },
                    Err(refused) => return refusal(&refused),
                },
                Err(long) => Answer::TooLarge { limit: long.limit as u32 },
            },
            (Ask::ReadLog { log, from }, _) => read_log(state, *log, *from).await,
            (Ask::Put { .. }, None) => Answer::Malformed { reason: "a put without content".to_owned() },
        })
    }

    /// The holder's answer if it may go to the client; otherwise what to say if nothing better comes.
    fn judged(&self, request: &Request, content: Option<&Content>, bytes: &[u8]) -> Result<Answer, Answer> {
        let answer = match Answer::decode(bytes) {
            Ok(answer) => answer,
            Err(error) => {
                self.tell(
                    Suspicion::Failing,
                    format!("its answer to a relayed request cannot be read: {error}"),
                );
                return Err(Answer::Retry { after_ms: 200, reason: error.to_string() });
            }
        };
        match (&request.ask, &answer) {
            (Ask::Get { name }, Answer::Content { content }) if name_of(content) != *name => {
                let reason = format!("its answer to a relayed get of {} has other content", name.short());
                self.tell(Suspicion::Wrong, reason.clone());
                Err(Answer::Retry { after_ms: 200, reason })
            }
            (Ask::Get { name }, Answer::Refused { reason }) => {
                self.tell(
                    Suspicion::Failing,
                    format!("it refuses a relayed get of {}: {reason}", name.short()),
                );
                Err(answer)
            }
            (Ask::Append { log, nonce, content }, Answer::Appended { id, .. })
                if append_id(log, nonce, content) != *id =>
            {
                let reason = format!("its answer to a relayed append to {} is for another", log.short());
                self.tell(Suspicion::Wrong, reason.clone());
                Err(Answer::Retry { after_ms: 200, reason })
            }
            (Ask::ReadLog { log, .. }, Answer::Refused { reason }) => {
                let reason = format!("it refuses to read log {}: {reason}", log.short());
                self.tell(Suspicion::Failing, reason);
                Err(answer)
            }
            (Ask::Put { .. }, Answer::Stored { name }) if content.is_none_or(|it| it.name() != *name) => {
                let reason = format!("its answer to a relayed put is for {}, which is another", name.short());
                self.tell(Suspicion::Wrong, reason.clone());
                Err(Answer::Retry { after_ms: 200, reason })
            }
            (Ask::Put { .. }, Answer::Stored { name }) => {
                (self.heed)(Promise::Content(*name));
                Ok(answer)
            }
            (Ask::Append { .. }, Answer::Appended { id, index }) => {
                (self.heed)(Promise::Append(*id, *index));
                Ok(answer)
            }
            _ => Ok(answer),
        }
    }

    fn tell(&self, kind: Suspicion, reason: String) {
        let [failing, wrong] = &self.judged;
        let last = match kind {
            Suspicion::Silent | Suspicion::Failing => failing,
            Suspicion::Wrong => wrong,
        };
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= BETWEEN) {
            *last = Some(Instant::now());
            drop(last);
            (self.judge)(kind, reason);
        }
    }

    /// The answer to a request that the other worker relayed, in bytes.
    pub async fn answer_relayed(&self, request: &[u8]) -> Vec<u8> {
        match Request::decode(request, self.stamp.speaks) {
            Ok(request) => self.answer(request).await.encode(),
            Err(answer) => answer.encode(),
        }
    }
}

/// What a write that was not acknowledged is answered with, if it is answered here.
fn refusal(refused: &PutRefused) -> Outcome {
    let reason = refused.to_string();
    Outcome::Done(match refused {
        PutRefused::Frozen { .. } | PutRefused::NotHolder => return Outcome::Elsewhere,
        PutRefused::Failed { .. } | PutRefused::Stopped => Answer::Retry { after_ms: 200, reason },
        PutRefused::NoRoom { .. } | PutRefused::Unreadable { .. } => Answer::Refused { reason },
        PutRefused::Later { .. } => Answer::NotYet { reason },
    })
}

async fn hash(content: Vec<u8>) -> Result<Arc<Content>, Answer> {
    let hashed = if content.len() <= bumpless_shared::operation::LONGEST_RECORD {
        Content::new(content)
    } else {
        match tokio::task::spawn_blocking(move || Content::new(content)).await {
            Ok(hashed) => hashed,
            Err(_) => return Err(stopping()),
        }
    };
    hashed
        .map(Arc::new)
        .map_err(|_| Answer::TooLarge { limit: bumpless_shared::operation::LONGEST_CONTENT as u32 })
}

async fn read(state: &Sequencer, name: Digest) -> Answer {
    let store = state.store().clone();
    match tokio::task::spawn_blocking(move || store.get(name)).await {
        Ok(Ok(Some(content))) => Answer::Content { content },
        Ok(Ok(None)) => Answer::NotFound,
        Ok(Err(error)) => Answer::Refused { reason: error.to_string() },
        Err(_) => stopping(),
    }
}

async fn read_log(state: &Sequencer, log: Digest, from: u64) -> Answer {
    let store = state.store().clone();
    match tokio::task::spawn_blocking(move || store.read_log(log, from)).await {
        Ok(Ok(LogPage { length, entries })) => Answer::Log { length, entries },
        Ok(Err(error)) => Answer::Refused { reason: error.to_string() },
        Err(_) => stopping(),
    }
}

/// The request as it came.
fn whole(request: &Request, content: Option<&Content>) -> Request {
    match content {
        Some(content) => Request { id: request.id, ask: Ask::Put { content: content.bytes().to_vec() } },
        None => request.clone(),
    }
}

fn stopping() -> Answer {
    Answer::Retry { after_ms: 200, reason: "the worker is stopping".to_owned() }
}

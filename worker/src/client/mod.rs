//! The client: stores and fetches contents, appends to logs and reads them, and does not let its caller notice that workers change.
//!
//! ```text
//!   put/get ─▶ request with an id ─▶ connection ─▶ node        one answer per request,
//!                 ▲                      │                     or one error at the deadline
//!                 └── again, same id ────┘ lost, not now, wrong content
//! ```
//!
//! An append has a nonce, made once, so that all its retries are one append: see [`Client::append`].
//!
//! Good path: one connection to a node that is known by the SHA-256 of its certificate, a stream per
//! request. When the node says GOAWAY the client makes a second connection, which reaches the new worker,
//! sends new requests there, and closes the first when its last answer has come: *moved*.
//!
//! Bad paths:
//!
//! - **The connection is lost** (reset, silence for [`Options::idle`], closed by the node): *dropped*. The
//!   request goes out again, with its id, on a new connection. A stateless reset is only sent in answer
//!   to a packet; the keep-alive makes sure that there is one even while the client waits.
//! - **Not now** ([`Answer::Retry`]): again after the time that the node names.
//! - **A wrong answer**: content whose SHA3-256 is not the name asked for, or a name that is not the
//!   content's. Asked again; a node that goes on lying is an error at the deadline.
//! - **Another node** behind the address: refused in the handshake.
//! - **No answer by [`Options::deadline`]**: *failed*, with the last trouble in the error.
//!
//! [`Counters`] keeps these apart. Larger things than a content, [`files`], are built on top.

pub mod command;
mod counters;
pub mod files;
mod link;
pub mod manifest;
mod pin;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bumpless_shared::digest::Digest;
use bumpless_shared::operation::LONGEST_RECORD;
use sha3::{Digest as _, Sha3_256};
use tokio::time::{Instant, sleep, timeout_at};

pub use self::counters::{Counters, Dropped};
use self::link::{Home, Link, Trouble, Use};
pub use crate::state::LogPage;
use crate::state::append_id;
use crate::wire::{self, Answer, Ask, CHUNK, Request, RequestId, WireError};

/// Which node is meant.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where it can be reached; tried in order.
    pub addresses: Vec<SocketAddr>,
    /// SHA-256 of its certificate's DER: see [`crate::net::pin`].
    pub pin: Digest,
}

/// How patient a client is.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// For one request, with all its retries.
    pub deadline: Duration,
    /// Between signs of life on a connection; bounds how late a dead worker is noticed.
    pub keep_alive: Duration,
    /// A connection on which nothing arrives for so long is lost.
    pub idle: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            deadline: Duration::from_secs(10),
            keep_alive: Duration::from_millis(500),
            idle: Duration::from_secs(10),
        }
    }
}

/// One connection to a node, renewed as needed. Clones share it.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    home: Arc<Home>,
    current: Mutex<Option<Arc<Link>>>,
    /// Held by whoever makes a connection, so that many requests make one.
    connecting: tokio::sync::Mutex<()>,
}

/// Who answered a ping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pong {
    /// The holder's term.
    pub term: u64,
    /// The version that the holder runs.
    pub release: String,
}

/// The name of a content: its SHA3-256.
pub fn name_of(content: &[u8]) -> Digest {
    Digest(Sha3_256::digest(content).into())
}

impl Client {
    /// A client with its first connection made. To be called within a runtime.
    ///
    /// # Errors
    /// No connection until the deadline, another node, or no socket.
    pub async fn connect(target: Target, options: Options) -> Result<Client, RequestError> {
        let client = Client::lazy(target, options)?;
        let deadline = Instant::now() + options.deadline;
        let mut pause = Pause::default();
        let mut last = None;
        let connected = timeout_at(deadline, async {
            loop {
                match client.inner.link().await {
                    Ok(_) => return Ok(()),
                    Err(trouble) => match trouble.into_final() {
                        Ok(error) => return Err(error),
                        Err(text) => last = Some(text),
                    },
                }
                sleep(pause.next()).await;
            }
        });
        match connected.await {
            Ok(result) => result.map(|()| client),
            Err(_) => Err(RequestError::Unreachable { after: options.deadline, last }),
        }
    }

    /// A client that connects with its first request. To be called within a runtime.
    ///
    /// # Errors
    /// No address was given, or there is no socket to be had.
    pub fn lazy(target: Target, options: Options) -> Result<Client, RequestError> {
        Ok(Client::of(Arc::new(Home::new(target, options)?)))
    }

    /// A client whose connections all begin with this id of its own, instead of a random one.
    #[cfg(test)]
    pub(crate) fn lazy_with_first_flight(
        target: Target,
        options: Options,
        id: [u8; 20],
    ) -> Result<Client, RequestError> {
        let provider = Arc::new(move || quinn::ConnectionId::new(&id));
        let home = Home::with(target, options, |config| {
            config.initial_dst_cid_provider(provider);
        })?;
        Ok(Client::of(Arc::new(home)))
    }

    /// Another client of the same node with a connection of its own, made with its first request and
    /// closed when the client is dropped. Shares the UDP socket and the counters.
    pub fn fresh(&self) -> Client {
        Client::of(self.inner.home.clone())
    }

    fn of(home: Arc<Home>) -> Client {
        Client {
            inner: Arc::new(Inner {
                home,
                current: Mutex::new(None),
                connecting: tokio::sync::Mutex::new(()),
            }),
        }
    }

    /// Stores a content of at most [`CHUNK`] bytes and returns its name; durable when this returns.
    ///
    /// # Errors
    /// Not acknowledged. After [`RequestError::Deadline`] it may be stored even so.
    pub async fn put(&self, content: &[u8]) -> Result<Digest, RequestError> {
        let name = name_of(content);
        if content.len() > CHUNK {
            self.inner.home.counters.refused();
            return Err(RequestError::TooLarge { size: content.len(), limit: CHUNK });
        }
        let bytes = wire::encode_put(new_id(), content);
        self.request(&bytes, |answer| match answer {
            Answer::Stored { name: stored } if stored == name => Step::Done(name),
            Answer::Stored { name: stored } => {
                Step::again(format!("the node acknowledged {} for content {}", stored.short(), name.short()))
            }
            other => Step::of(other, content.len()),
        })
        .await
    }

    /// Fetches a content; `None` if the node says that none is stored under this name.
    ///
    /// # Errors
    /// No right answer; what is returned is always what the name says.
    pub async fn get(&self, name: Digest) -> Result<Option<Vec<u8>>, RequestError> {
        let bytes = Request { id: new_id(), ask: Ask::Get { name } }.encode();
        self.request(&bytes, |answer| match answer {
            Answer::Content { content } if name_of(&content) == name => Step::Done(Some(content)),
            Answer::Content { .. } => {
                Step::again(format!("the node answered with other content than {}", name.short()))
            }
            Answer::NotFound => Step::Done(None),
            other => Step::of(other, 0),
        })
        .await
    }

    /// Appends a content of at most [`LONGEST_RECORD`] bytes to a log and returns its index there; durable
    /// when this returns, and appended once, however often it had to be sent.
    ///
    /// # Errors
    /// Not acknowledged. After [`RequestError::Deadline`] it may be appended even so; a second call would
    /// be a second append. [`RequestError::NotYet`]: an upgrade is under way from a release that does not
    /// know logs.
    pub async fn append(&self, log: Digest, content: &[u8]) -> Result<u64, RequestError> {
        if content.len() > LONGEST_RECORD {
            self.inner.home.counters.refused();
            return Err(RequestError::TooLarge { size: content.len(), limit: LONGEST_RECORD });
        }
        let nonce = rand::random();
        let expected = append_id(&log, &nonce, content);
        let ask = Ask::Append { log, nonce, content: content.to_vec() };
        let bytes = Request { id: new_id(), ask }.encode();
        self.request(&bytes, |answer| match answer {
            Answer::Appended { id, index } if id == expected => Step::Done(index),
            Answer::Appended { .. } => Step::again("the node acknowledged another append".to_owned()),
            other => Step::of(other, content.len()),
        })
        .await
    }

    /// Fetches some entries of a log, from this index on, and the log's length. There are no entries only
    /// where the index is at the log's end or behind it. A log that was never appended to is empty.
    ///
    /// # Errors
    /// No answer.
    pub async fn read_log(&self, log: Digest, from: u64) -> Result<LogPage, RequestError> {
        let bytes = Request { id: new_id(), ask: Ask::ReadLog { log, from } }.encode();
        self.request(&bytes, |answer| match answer {
            Answer::Log { length, entries } => Step::Done(LogPage { length, entries }),
            other => Step::of(other, 0),
        })
        .await
    }

    /// Asks who holds authority.
    ///
    /// # Errors
    /// No answer.
    pub async fn ping(&self) -> Result<Pong, RequestError> {
        let bytes = Request { id: new_id(), ask: Ask::Ping }.encode();
        self.request(&bytes, |answer| match answer {
            Answer::Pong { term, release } => Step::Done(Pong { term, release }),
            other => Step::of(other, 0),
        })
        .await
    }

    /// Totals of this client, of the one it came from and of all that came from either by [`fresh`](Self::fresh).
    pub fn counters(&self) -> Counters {
        self.inner.home.counters.now()
    }

    /// The connections that were dropped since this was last called, at most the newest 100,000.
    pub fn take_drops(&self) -> Vec<Dropped> {
        self.inner.home.counters.take_drops()
    }

    /// When the present connection was made; `None` without one.
    pub fn connected_at(&self) -> Option<SystemTime> {
        self.inner.alive().map(|link| link.made_at)
    }

    /// Closes the connection and waits, at most a second, until the node is told. The next request makes a
    /// new one.
    pub async fn close(&self) {
        let link = self.inner.current().take();
        if let Some(link) = link {
            link.close();
            self.inner.home.flushed().await;
        }
    }

    async fn request<T>(
        &self,
        bytes: &[u8],
        mut judge: impl FnMut(Answer) -> Step<T>,
    ) -> Result<T, RequestError> {
        let home = &self.inner.home;
        home.counters.asked();
        let patience = home.options.deadline;
        let mut pause = Pause::default();
        let mut connected = false;
        let mut last = None;
        let attempts = async {
            loop {
                let (after, text) = match self.attempt(bytes, &mut connected).await.map(&mut judge) {
                    Ok(Step::Done(value)) => return Ok(value),
                    Ok(Step::Fail(error)) => return Err(error),
                    Ok(Step::Again { after, reason }) => (after, reason),
                    Err(trouble) => (Duration::ZERO, trouble.into_final().map_or_else(Ok, Err)?),
                };
                last = Some(text);
                sleep(after.max(pause.next())).await;
                home.counters.retried();
            }
        };
        let result = timeout_at(Instant::now() + patience, attempts).await.unwrap_or_else(|_| {
            Err(if connected {
                RequestError::Deadline { after: patience, last }
            } else {
                RequestError::Unreachable { after: patience, last }
            })
        });
        if result.is_err() {
            home.counters.failed();
        }
        result
    }

    async fn attempt(&self, bytes: &[u8], connected: &mut bool) -> Result<Answer, Trouble> {
        let link = self.inner.link().await?;
        *connected = true;
        link.exchange(bytes).await
    }
}

impl Inner {
    fn current(&self) -> MutexGuard<'_, Option<Arc<Link>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present connection, held for one request. Taken under the lock under which a connection is replaced,
    /// so that one that was replaced gets no further request and can be closed after its last.
    fn alive(&self) -> Option<Use> {
        self.current().as_ref().filter(|link| link.is_open()).map(Link::hold)
    }

    async fn link(self: &Arc<Self>) -> Result<Use, Trouble> {
        if let Some(link) = self.alive() {
            return Ok(link);
        }
        let _one_at_a_time = self.connecting.lock().await;
        if let Some(link) = self.alive() {
            return Ok(link);
        }
        let link = self.home.connect().await?;
        let held = link.hold();
        self.install(link);
        Ok(held)
    }

    /// Makes a link the present one.
    fn install(self: &Arc<Self>, link: Arc<Link>) {
        tokio::spawn(link::attend(link.clone(), Arc::downgrade(self)));
        if let Some(before) = self.current().replace(link) {
            before.note_end();
            if before.followed_goaway() {
                self.home.counters.moved();
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(link) = self.current().take() {
            link.close();
        }
    }
}

/// What to do after an answer.
enum Step<T> {
    Done(T),
    Again { after: Duration, reason: String },
    Fail(RequestError),
}

impl<T> Step<T> {
    fn again(reason: String) -> Self {
        Step::Again { after: Duration::ZERO, reason }
    }

    /// For every answer that is none to the question.
    fn of(answer: Answer, size: usize) -> Self {
        let protocol = |reason| Step::Fail(RequestError::Protocol { reason });
        match answer {
            Answer::Retry { after_ms, reason } => {
                Step::Again { after: Duration::from_millis(after_ms.into()), reason }
            }
            Answer::Refused { reason } => Step::Fail(RequestError::Refused { reason }),
            Answer::NotYet { reason } => Step::Fail(RequestError::NotYet { reason }),
            Answer::TooLarge { limit } => Step::Fail(RequestError::TooLarge { size, limit: limit as usize }),
            Answer::Unsupported { spoken } => protocol(format!(
                "the node speaks version {spoken} of the client protocol, which lacks this request; this client \
                 speaks {}",
                wire::SPOKEN
            )),
            Answer::Malformed { reason } => protocol(format!("the node cannot read the request: {reason}")),
            Answer::Stored { .. }
            | Answer::Content { .. }
            | Answer::NotFound
            | Answer::Pong { .. }
            | Answer::Appended { .. }
            | Answer::Log { .. } => Step::again("the node answered another question".to_owned()),
        }
    }
}

/// Waits between attempts: none before the first repetition, then 5 ms, doubled up to half a second,
/// each cut short at random so that many clients do not come at once.
#[derive(Default)]
struct Pause(u32);

impl Pause {
    fn next(&mut self) -> Duration {
        let step = self.0;
        self.0 += 1;
        match step {
            0 => Duration::ZERO,
            step => Duration::from_millis(5 << (step - 1).min(7))
                .min(Duration::from_millis(500))
                .mul_f64(rand::random_range(0.5..1.0)),
        }
    }
}

fn new_id() -> RequestId {
    RequestId(rand::random())
}

/// Why a request has no right answer.
#[derive(Debug)]
pub enum RequestError {
    /// No address to connect to.
    NoAddress,
    /// No UDP socket.
    Socket(io::Error),
    /// No connection until the deadline.
    Unreachable {
        /// The deadline.
        after: Duration,
        /// The last trouble, if it got so far.
        last: Option<String>,
    },
    /// A connection, but no right answer until the deadline.
    Deadline {
        /// The deadline.
        after: Duration,
        /// The last trouble; none if the first attempt was still waiting.
        last: Option<String>,
    },
    /// The node will not do it.
    Refused {
        /// Its reason.
        reason: String,
    },
    /// The node will do it once the upgrade that is under way has ended.
    NotYet {
        /// Its reason.
        reason: String,
    },
    /// More than one content may have.
    TooLarge {
        /// Bytes.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A node with another certificate.
    WrongNode {
        /// The pin that was given.
        expected: Digest,
        /// The pin of the certificate that was shown.
        found: Digest,
    },
    /// The two do not understand each other.
    Protocol {
        /// Why.
        reason: String,
    },
}

impl From<WireError> for RequestError {
    fn from(error: WireError) -> Self {
        RequestError::Protocol { reason: format!("the node's answer cannot be read: {error}") }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let because =
            |last: &Option<String>| last.as_ref().map(|last| format!(" (last: {last})")).unwrap_or_default();
        match self {
            RequestError::NoAddress => f.write_str("no node to connect to; name one with its address"),
            RequestError::Socket(error) => write!(f, "cannot make a UDP socket: {error}"),
            RequestError::Unreachable { after, last } => write!(
                f,
                "no node answered within {after:?}{}; is it running, and does a firewall let UDP through?",
                because(last)
            ),
            RequestError::Deadline { after, last } => write!(
                f,
                "no right answer within {after:?}{}; nothing is known to be lost, try again",
                because(last)
            ),
            RequestError::Refused { reason } => write!(f, "the node refused: {reason}"),
            RequestError::NotYet { reason } => write!(f, "not yet: {reason}"),
            RequestError::TooLarge { size, limit } => {
                write!(f, "a content of {size} bytes is too large, {limit} are allowed; store it as a file")
            }
            RequestError::WrongNode { expected, found } => write!(
                f,
                "the node at this address is another one: its certificate is {found}, expected was {expected}. \
                 Nothing was sent to it; check the address and the pin"
            ),
            RequestError::Protocol { reason } => f.write_str(reason),
        }
    }
}

impl std::error::Error for RequestError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RequestError::Socket(error) => Some(error),
            RequestError::NoAddress
            | RequestError::Unreachable { .. }
            | RequestError::Deadline { .. }
            | RequestError::Refused { .. }
            | RequestError::NotYet { .. }
            | RequestError::TooLarge { .. }
            | RequestError::WrongNode { .. }
            | RequestError::Protocol { .. } => None,
        }
    }
}

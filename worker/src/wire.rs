//! The client protocol: what a client and a node say over one QUIC connection. Frozen.
//!
//! ```text
//!   client                                             node
//!     │ ── handshake, ALPN "bumpless/1" ────────────────▶ │
//!     │ ── uni stream: Hello{min, max} ─────────────────▶ │   neither waits for the other's
//!     │ ◀──────────────── uni stream: Hello{min, max} ─── │
//!     │ ── bidi stream: request header, body, FIN ──────▶ │   one request, one stream
//!     │ ◀─────────── same stream: answer header, body ─── │
//!     │ ◀──────────────────────── uni stream: Goaway ──── │   connect anew, move, close this one
//! ```
//!
//! Each request names the version it is written in, so no request waits for the greeting: the lowest that
//! has its kind, so that a node of an earlier release understands all that it can. A node
//! that does not speak it answers [`Answer::Unsupported`] with its range; where the greetings have no
//! version in common at all, the connection is closed with [`CLOSE_NO_COMMON_VERSION`] and a text with
//! both ranges.
//!
//! ```text
//!   request   version u16 │ kind u8 │ 0 │ body length u32 │ request id, 16 bytes │ body
//!   answer    version u16 │ kind u8 │ 0 │ body length u32 │ body
//!   signal    kind u8 │ body                              (a uni stream is one signal)
//! ```
//!
//! Integers are big-endian. The header is read first, and its length held against the limit of the
//! kind, before a byte of the body is read or memory is taken for it. QUIC has checked every byte by
//! then, so there is no checksum here. A worker relays requests and answers to the other one in these
//! same bytes ([`Request::encode`], [`Answer::encode`]).

use std::fmt;

use bumpless_shared::digest::Digest;
use bumpless_shared::operation::{LONGEST_RECORD, NONCE};
use bumpless_shared::version::Range;

/// The protocol's name in the TLS handshake.
pub const ALPN: &[u8] = b"bumpless/1";
/// Versions that this build speaks.
pub const SPOKEN: Range = Range { min: 1, max: 2 };
/// Most bytes of one content: a chunk.
pub const CHUNK: usize = 1 << 20;
/// Bytes of a request before its body.
pub const REQUEST_HEADER: usize = 24;
/// Bytes of an answer before its body.
pub const ANSWER_HEADER: usize = 8;
/// Most bytes of a reason or of a release's name.
pub const TEXT: usize = 512;
/// Most bytes of a signal.
pub const SIGNAL: usize = 64;

/// Connection closed by whoever is done with it.
pub const CLOSE_DONE: u32 = 0;
/// Connection closed by a node that sent a [`Signal::Goaway`] and waited for its deadline.
pub const CLOSE_DRAINED: u32 = 1;
/// Connection closed by a node that ends for good.
pub const CLOSE_SHUTDOWN: u32 = 2;
/// Connection closed because the greetings have no version in common.
pub const CLOSE_NO_COMMON_VERSION: u32 = 3;
/// Stream stopped by a node that will not read the rest of a request.
pub const STOP_UNREAD: u32 = 4;

/// Chosen by the client, at random, once per request: a retry has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(pub [u8; 16]);

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Names the request over all its retries.
    pub id: RequestId,
    /// What it asks.
    pub ask: Ask,
}

/// The kinds of request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Store this content, at most [`CHUNK`] bytes; answered by [`Answer::Stored`].
    Put {
        /// The bytes.
        content: Vec<u8>,
    },
    /// Fetch a content; answered by [`Answer::Content`] or [`Answer::NotFound`].
    Get {
        /// SHA3-256 of the content.
        name: Digest,
    },
    /// Who holds authority; answered by [`Answer::Pong`].
    Ping,
    /// Append this content, at most [`LONGEST_RECORD`] bytes, to a log; answered by [`Answer::Appended`] or
    /// [`Answer::NotYet`]. Since version 2.
    Append {
        /// The log.
        log: Digest,
        /// Chosen at random, once: with log and content it names the append over all retries.
        nonce: [u8; NONCE],
        /// The bytes.
        content: Vec<u8>,
    },
    /// Entries of a log; answered by [`Answer::Log`]. Since version 2.
    ReadLog {
        /// The log.
        log: Digest,
        /// The index of the first entry wanted.
        from: u64,
    },
}

/// What a node answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Stored, durably, under this name: the SHA3-256 of the content.
    Stored {
        /// The name.
        name: Digest,
    },
    /// The content asked for.
    Content {
        /// The bytes.
        content: Vec<u8>,
    },
    /// Nothing is stored under the name.
    NotFound,
    /// From the holder.
    Pong {
        /// Its term.
        term: u64,
        /// The version of the release it runs.
        release: String,
    },
    /// Not now; the same request may succeed later.
    Retry {
        /// Wait at least so long, in milliseconds.
        after_ms: u32,
        /// Why.
        reason: String,
    },
    /// Not at all; a retry will not help.
    Refused {
        /// Why.
        reason: String,
    },
    /// The body is longer than its kind allows; it was not read.
    TooLarge {
        /// Most bytes of such a body.
        limit: u32,
    },
    /// The version or the kind of the request is unknown here.
    Unsupported {
        /// Versions that the node speaks.
        spoken: Range,
    },
    /// The bytes are no request.
    Malformed {
        /// Why.
        reason: String,
    },
    /// Appended, durably, or appended before. Since version 2.
    Appended {
        /// The append's id: see [`crate::state::append_id`].
        id: Digest,
        /// The entry's index in its log.
        index: u64,
    },
    /// Entries of a log from the index asked for on, in order. Since version 2.
    Log {
        /// How many entries the log has.
        length: u64,
        /// As many as fit; none only if the index asked for is at or behind the log's end.
        entries: Vec<Vec<u8>>,
    },
    /// The node knows this kind of request and does not carry it out before an upgrade has ended: a worker
    /// that may have to go on with its state is of a release that does not know the kind. Since version 2.
    NotYet {
        /// Why.
        reason: String,
    },
}

/// What one side tells the other on a uni stream. A signal of an unknown kind is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The first: versions that the sender speaks.
    Hello(Range),
    /// From a node: finish what is under way here, and continue on a new connection.
    Goaway,
}

mod kind {
    pub const PUT: u8 = 1;
    pub const GET: u8 = 2;
    pub const PING: u8 = 3;
    pub const APPEND: u8 = 4;
    pub const READ_LOG: u8 = 5;

    pub const STORED: u8 = 1;
    pub const CONTENT: u8 = 2;
    pub const NOT_FOUND: u8 = 3;
    pub const PONG: u8 = 4;
    pub const APPENDED: u8 = 5;
    pub const LOG: u8 = 6;
    pub const RETRY: u8 = 16;
    pub const REFUSED: u8 = 17;
    pub const TOO_LARGE: u8 = 18;
    pub const UNSUPPORTED: u8 = 19;
    pub const MALFORMED: u8 = 20;
    pub const NOT_YET: u8 = 21;

    pub const HELLO: u8 = 1;
    pub const GOAWAY: u8 = 2;
}

/// A request's header, checked: its body may be read now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead {
    id: RequestId,
    kind: RequestKind,
    /// Bytes of the body; within the limit of the kind.
    pub length: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestKind {
    Put,
    Get,
    Ping,
    Append,
    ReadLog,
}

impl RequestKind {
    const ALL: [RequestKind; 5] =
        [RequestKind::Put, RequestKind::Get, RequestKind::Ping, RequestKind::Append, RequestKind::ReadLog];

    /// The number in the header.
    fn number(self) -> u8 {
        match self {
            RequestKind::Put => kind::PUT,
            RequestKind::Get => kind::GET,
            RequestKind::Ping => kind::PING,
            RequestKind::Append => kind::APPEND,
            RequestKind::ReadLog => kind::READ_LOG,
        }
    }

    /// The version that brought it.
    fn since(self) -> u16 {
        match self {
            RequestKind::Put | RequestKind::Get | RequestKind::Ping => 1,
            RequestKind::Append | RequestKind::ReadLog => 2,
        }
    }

    /// Most bytes of its body.
    fn limit(self) -> usize {
        match self {
            RequestKind::Put => CHUNK,
            RequestKind::Get => 32,
            RequestKind::Ping => 0,
            RequestKind::Append => 32 + NONCE + LONGEST_RECORD,
            RequestKind::ReadLog => 32 + 8,
        }
    }
}

impl RequestHead {
    /// Reads a header, as a node does that speaks these versions.
    ///
    /// # Errors
    /// The answer that the client gets instead.
    pub fn decode(bytes: &[u8; REQUEST_HEADER], spoken: Range) -> Result<RequestHead, Answer> {
        let (head, id) = bytes.split_at(ANSWER_HEADER);
        let Head { version, kind, length } = Head::decode(head).map_err(WireError::into_answer)?;
        let known = RequestKind::ALL
            .into_iter()
            .find(|known| known.number() == kind && known.since() <= version && spoken.contains(version));
        let Some(kind) = known else {
            return Err(Answer::Unsupported { spoken });
        };
        let limit = kind.limit();
        if length > limit {
            return Err(Answer::TooLarge { limit: limit as u32 });
        }
        let mut request_id = [0; 16];
        request_id.copy_from_slice(id);
        Ok(RequestHead { id: RequestId(request_id), kind, length })
    }

    /// Makes the request of its body.
    ///
    /// # Errors
    /// The answer that the client gets instead.
    pub fn with_body(self, body: Vec<u8>) -> Result<Request, Answer> {
        if body.len() != self.length {
            return Err(WireError::Length { announced: self.length, got: body.len() }.into_answer());
        }
        let ask = self.ask(body).map_err(WireError::into_answer)?;
        Ok(Request { id: self.id, ask })
    }

    fn ask(self, body: Vec<u8>) -> Result<Ask, WireError> {
        let mut fields = Fields(&body);
        Ok(match self.kind {
            RequestKind::Put => Ask::Put { content: body },
            RequestKind::Get => Ask::Get { name: fields.digest()? },
            RequestKind::Ping => Ask::Ping,
            RequestKind::Append => {
                let (log, nonce) = (fields.digest()?, fields.take()?);
                Ask::Append { log, nonce, content: fields.rest().to_vec() }
            }
            RequestKind::ReadLog => {
                let (log, from) = (fields.digest()?, fields.u64()?);
                fields.end(Ask::ReadLog { log, from })?
            }
        })
    }
}

impl Request {
    /// The bytes, header and body.
    pub fn encode(&self) -> Vec<u8> {
        match &self.ask {
            Ask::Put { content } => encode_put(self.id, content),
            Ask::Get { name } => encode_request(self.id, RequestKind::Get, &name.0),
            Ask::Ping => encode_request(self.id, RequestKind::Ping, &[]),
            Ask::Append { log, nonce, content } => {
                encode_request(self.id, RequestKind::Append, &[&log.0[..], nonce, content].concat())
            }
            Ask::ReadLog { log, from } => {
                let body = [&log.0[..], &from.to_be_bytes()].concat();
                encode_request(self.id, RequestKind::ReadLog, &body)
            }
        }
    }

    /// Reads bytes that are exactly one request, as a node does that speaks these versions.
    ///
    /// # Errors
    /// The answer that its sender gets instead.
    pub fn decode(bytes: &[u8], spoken: Range) -> Result<Request, Answer> {
        let Some((head, body)) = bytes.split_first_chunk() else {
            return Err(WireError::Length { announced: REQUEST_HEADER, got: bytes.len() }.into_answer());
        };
        RequestHead::decode(head, spoken)?.with_body(body.to_vec())
    }
}

/// The bytes of a put of `content`, which is not copied beforehand.
pub fn encode_put(id: RequestId, content: &[u8]) -> Vec<u8> {
    encode_request(id, RequestKind::Put, content)
}

fn encode_request(id: RequestId, kind: RequestKind, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(REQUEST_HEADER + body.len());
    Head { version: kind.since(), kind: kind.number(), length: body.len() }.encode(&mut bytes);
    bytes.extend(id.0);
    bytes.extend(body);
    bytes
}

/// An answer's header, checked: its body may be read now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerHead {
    kind: u8,
    /// Bytes of the body; within the limit of the kind.
    pub length: usize,
}

impl AnswerHead {
    /// Reads a header.
    ///
    /// # Errors
    /// A version or kind unknown here, or a body longer than its kind allows.
    pub fn decode(bytes: &[u8; ANSWER_HEADER]) -> Result<AnswerHead, WireError> {
        let Head { version, kind, length } = Head::decode(bytes)?;
        if !SPOKEN.contains(version) {
            return Err(WireError::Version { got: version });
        }
        let limit = match kind {
            kind::STORED => 32,
            kind::CONTENT => CHUNK,
            kind::NOT_FOUND => 0,
            kind::PONG => 8 + TEXT,
            kind::RETRY => 4 + TEXT,
            kind::REFUSED | kind::MALFORMED | kind::NOT_YET => TEXT,
            kind::APPENDED => 32 + 8,
            kind::LOG => 8 + CHUNK,
            kind::TOO_LARGE | kind::UNSUPPORTED => 4,
            got => return Err(WireError::Kind { got }),
        };
        if length > limit {
            return Err(WireError::TooLong { length, limit });
        }
        Ok(AnswerHead { kind, length })
    }

    /// Makes the answer of its body.
    ///
    /// # Errors
    /// The body is not what its kind says.
    pub fn with_body(self, body: Vec<u8>) -> Result<Answer, WireError> {
        if body.len() != self.length {
            return Err(WireError::Length { announced: self.length, got: body.len() });
        }
        let mut fields = Fields(&body);
        let answer = match self.kind {
            kind::CONTENT => return Ok(Answer::Content { content: body }),
            kind::STORED => Answer::Stored { name: fields.digest()? },
            kind::NOT_FOUND => Answer::NotFound,
            kind::PONG => Answer::Pong { term: fields.u64()?, release: fields.text() },
            kind::RETRY => Answer::Retry { after_ms: fields.u32()?, reason: fields.text() },
            kind::REFUSED => Answer::Refused { reason: fields.text() },
            kind::TOO_LARGE => Answer::TooLarge { limit: fields.u32()? },
            kind::UNSUPPORTED => {
                Answer::Unsupported { spoken: Range { min: fields.u16()?, max: fields.u16()? } }
            }
            kind::MALFORMED => Answer::Malformed { reason: fields.text() },
            kind::APPENDED => Answer::Appended { id: fields.digest()?, index: fields.u64()? },
            kind::LOG => Answer::Log { length: fields.u64()?, entries: fields.contents()? },
            kind::NOT_YET => Answer::NotYet { reason: fields.text() },
            got => return Err(WireError::Kind { got }),
        };
        fields.end(answer)
    }
}

impl Answer {
    /// The bytes, header and body. A reason is cut at [`TEXT`] bytes.
    pub fn encode(&self) -> Vec<u8> {
        let number: [u8; 4];
        let mut body = Vec::new();
        let (kind, body): (u8, &[u8]) = match self {
            Answer::Stored { name } => (kind::STORED, &name.0),
            Answer::Content { content } => (kind::CONTENT, content),
            Answer::NotFound => (kind::NOT_FOUND, &[]),
            Answer::Pong { term, release } => {
                body.extend(term.to_be_bytes());
                body.extend(cut(release));
                (kind::PONG, &body)
            }
            Answer::Retry { after_ms, reason } => {
                body.extend(after_ms.to_be_bytes());
                body.extend(cut(reason));
                (kind::RETRY, &body)
            }
            Answer::Refused { reason } => (kind::REFUSED, cut(reason)),
            Answer::TooLarge { limit } => {
                number = limit.to_be_bytes();
                (kind::TOO_LARGE, &number)
            }
            Answer::Unsupported { spoken } => {
                body.extend(spoken.min.to_be_bytes());
                body.extend(spoken.max.to_be_bytes());
                (kind::UNSUPPORTED, &body)
            }
            Answer::Malformed { reason } => (kind::MALFORMED, cut(reason)),
            Answer::Appended { id, index } => {
                body.extend(id.0);
                body.extend(index.to_be_bytes());
                (kind::APPENDED, &body)
            }
            Answer::Log { length, entries } => {
                body.extend(length.to_be_bytes());
                for content in entries {
                    body.extend((content.len() as u32).to_be_bytes());
                    body.extend(content);
                }
                (kind::LOG, &body)
            }
            Answer::NotYet { reason } => (kind::NOT_YET, cut(reason)),
        };
        let mut bytes = Vec::with_capacity(ANSWER_HEADER + body.len());
        Head { version: self.since(), kind, length: body.len() }.encode(&mut bytes);
        bytes.extend(body);
        bytes
    }

    /// Reads bytes that are exactly one answer.
    ///
    /// # Errors
    /// They are not.
    pub fn decode(bytes: &[u8]) -> Result<Answer, WireError> {
        let (head, body) = bytes
            .split_first_chunk()
            .ok_or(WireError::Length { announced: ANSWER_HEADER, got: bytes.len() })?;
        AnswerHead::decode(head)?.with_body(body.to_vec())
    }

    /// The version that brought it. A request of a version is answered by nothing later.
    fn since(&self) -> u16 {
        match self {
            Answer::Stored { .. }
            | Answer::Content { .. }
            | Answer::NotFound
            | Answer::Pong { .. }
            | Answer::Retry { .. }
            | Answer::Refused { .. }
            | Answer::TooLarge { .. }
            | Answer::Unsupported { .. }
            | Answer::Malformed { .. } => 1,
            Answer::Appended { .. } | Answer::Log { .. } | Answer::NotYet { .. } => 2,
        }
    }

    /// Whether the node failed the client. What the client did wrong is not the node's failure, and
    /// neither is a name that is not stored, nor a feature that has to wait for an upgrade's end.
    pub fn is_failure(&self) -> bool {
        match self {
            Answer::Retry { .. } | Answer::Refused { .. } => true,
            Answer::Stored { .. }
            | Answer::Content { .. }
            | Answer::NotFound
            | Answer::Pong { .. }
            | Answer::TooLarge { .. }
            | Answer::Unsupported { .. }
            | Answer::Malformed { .. }
            | Answer::Appended { .. }
            | Answer::Log { .. }
            | Answer::NotYet { .. } => false,
        }
    }
}

impl Signal {
    /// The bytes: all of a uni stream.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Signal::Hello(range) => {
                let mut bytes = vec![kind::HELLO];
                bytes.extend(range.min.to_be_bytes());
                bytes.extend(range.max.to_be_bytes());
                bytes
            }
            Signal::Goaway => vec![kind::GOAWAY],
        }
    }

    /// Reads a uni stream; `None` for a kind that is unknown here. Bytes behind those that are known
    /// belong to a later version and are ignored.
    ///
    /// # Errors
    /// Too few bytes for the kind.
    pub fn decode(bytes: &[u8]) -> Result<Option<Signal>, WireError> {
        let mut fields = Fields(bytes);
        Ok(match fields.take::<1>()? {
            [kind::HELLO] => Some(Signal::Hello(Range { min: fields.u16()?, max: fields.u16()? })),
            [kind::GOAWAY] => Some(Signal::Goaway),
            _ => None,
        })
    }
}

/// What the headers of requests and answers have in common.
struct Head {
    version: u16,
    kind: u8,
    length: usize,
}

impl Head {
    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.version.to_be_bytes());
        bytes.extend([self.kind, 0]);
        bytes.extend((self.length as u32).to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Head, WireError> {
        let mut fields = Fields(bytes);
        let version = fields.u16()?;
        let [kind, _] = fields.take()?;
        Ok(Head { version, kind, length: fields.u32()? as usize })
    }
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let short = WireError::Length { announced: N, got: self.0.len() };
        let (field, rest) = self.0.split_first_chunk().ok_or(short)?;
        self.0 = rest;
        Ok(*field)
    }

    fn u16(&mut self) -> Result<u16, WireError> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        self.take().map(u64::from_be_bytes)
    }

    fn digest(&mut self) -> Result<Digest, WireError> {
        self.take().map(Digest)
    }

    fn rest(&mut self) -> &[u8] {
        std::mem::take(&mut self.0)
    }

    fn text(&mut self) -> String {
        String::from_utf8_lossy(self.rest()).into_owned()
    }

    /// All that is left: contents, each with its length in front.
    fn contents(&mut self) -> Result<Vec<Vec<u8>>, WireError> {
        let mut contents = Vec::new();
        while !self.0.is_empty() {
            let length = self.u32()? as usize;
            let short = WireError::Length { announced: length, got: self.0.len() };
            let (content, rest) = self.0.split_at_checked(length).ok_or(short)?;
            contents.push(content.to_vec());
            self.0 = rest;
        }
        Ok(contents)
    }

    fn end<T>(&self, value: T) -> Result<T, WireError> {
        if self.0.is_empty() { Ok(value) } else { Err(WireError::Length { announced: 0, got: self.0.len() }) }
    }
}

/// The text's bytes, at most [`TEXT`], whole characters.
fn cut(text: &str) -> &[u8] {
    &text.as_bytes()[..text.floor_char_boundary(TEXT)]
}

/// Why bytes are no message of this protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WireError {
    /// A version that is not spoken here.
    Version {
        /// In the header.
        got: u16,
    },
    /// A kind that is unknown here.
    Kind {
        /// In the header.
        got: u8,
    },
    /// A body longer than its kind allows.
    TooLong {
        /// Announced.
        length: usize,
        /// Allowed.
        limit: usize,
    },
    /// Other bytes than announced.
    Length {
        /// Announced.
        announced: usize,
        /// There.
        got: usize,
    },
}

impl WireError {
    fn into_answer(self) -> Answer {
        Answer::Malformed { reason: self.to_string() }
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireError::Version { got } => {
                write!(
                    f,
                    "the message is of version {got} of the client protocol; this build speaks {SPOKEN}"
                )
            }
            WireError::Kind { got } => {
                write!(f, "a message of kind {got} is unknown to version {SPOKEN} of the client protocol")
            }
            WireError::TooLong { length, limit } => {
                write!(f, "a body of {length} bytes where {limit} are allowed")
            }
            WireError::Length { announced, got } => write!(f, "{announced} bytes announced, {got} there"),
        }
    }
}

impl std::error::Error for WireError {}

#[cfg(test)]
mod tests;

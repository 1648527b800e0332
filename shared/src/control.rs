//! Orders and reports between the supervisor and one worker.
//!
//! The channel is a `SOCK_SEQPACKET` socketpair (the standard input of a worker that was just started) or,
//! after the supervisor was replaced, a connection to its named socket. Descriptors travel with the
//! message that names them. Both sides send a greeting first ([`crate::frame::greeting`]).
//!
//! ```text
//!   supervisor              worker A (holds T)            worker B (new)
//!       │ ── Start(Candidate) ────────────────────────────────▶ │  lock taken, database made
//!       │ ◀────────────────────────────────────────────── Ready │
//!       │ ── Go ──────────────────────────────────────────────▶ │
//!       │ ── Pair ──────────────▶ │ opens logbook T             │
//!       │ ── Pair ────────────────────────────────────────────▶ │
//!       │                         │ ══ snapshot, logbook T ═══▶ │
//!       │ ◀───────────────────────────────────── Syncing, Level │
//!       │ ── Mark ──────────────▶ │                             │
//!       │ ◀─────────── StateHash ─┴─ StateHash ───────────────▶ │  equal, or no cut
//!       │ ── Prepare(T+1) ────────────────────────────────────▶ │  logbook of T+1, reserve: durable
//!       │ ◀─────────────────────────────────────────── Prepared │
//!       │ ── Cut(T+1, T+2) ─────▶ │ waits for its moment        │
//!       │ ◀────────────── Yielded │ ══ Yield ═════════════════▶ │
//!       │ ◀───────────── Resigned │ ◀═══════════════════ Took ═ │ ── Took ──▶ supervisor
//!       │          (probation: A follows logbook T+1, relays, probes B through the real socket)
//! good: │ ── Mark ────────────────────────────────────────────▶ │  hashes equal again
//!       │ ── Persist ─────────────────────────────────────────▶ │
//!       │ ── Retire ────────────▶ │ Retired                     │
//!       │    (committed record durable: the commit point)       │
//!       │ ── Commit ──────────────────────────────────────────▶ │  ends T+1, persists past its end
//!       │ ── Drain ─────────────▶ │ GOAWAY, drains, exits       │
//!       │ ── PeerGone, Remove ────────────────────────────────▶ │
//! bad:  │    (kill -9 B, confirmed)                             ✗
//!       │ ── Resume(T+2) ───────▶ │ reads T+1 to its end        │
//!       │ ◀────────────── Resumed │                             │
//!       │ ── Remove ────────────▶ │ (after it has persisted)    │
//! ```
//!
//! A graceful way back (the operator's `rollback` in probation) is the same cut the other way round,
//! and a drain, so that no connection is dropped:
//!
//! ```text
//!       │ ── Prepare(T+2) ──────▶ │ database durable            │
//!       │ ◀────────────── Prepared│                             │
//!       │ ── Cut(T+2, 0) ─────────────────────────────────────▶ │  never holds again
//!       │                         │ ◀════════════════════ Yield │
//!       │ ◀────────────────── Took│ ═ Took ═══════════════════▶ │ ── Resigned ──▶ supervisor
//!       │ ── Drain ───────────────────────────────────────────▶ │  relays to A, GOAWAY, drains, exits
//!       │ ── PeerGone ──────────▶ │ answers for B's tag         ✗
//!       │ ── Persist, Remove ───▶ │
//! ```
//!
//! Each order carries the incarnation of the supervisor that gave it; a worker ignores those of
//! another one. Each message of authority carries its term; a worker ignores a lower one than it has
//! seen.

use bincode::{Decode, Encode};

use crate::digest::Digest;
use crate::release::Release;
use crate::version::Range;

/// A number that orders supervisors: each start takes the next. Orders of another incarnation than
/// the one that last greeted are ignored.
pub type Incarnation = u64;

/// A worker process; never reused.
pub type Instance = u64;

/// A state directory `gen-<n>`; never reused.
pub type Generation = u64;

/// A period of authority; one holder each, only rising, never reused once reserved.
pub type Term = u64;

/// Number of an operation in the one order of all operations; continues over terms.
pub type Sequence = u64;

/// Of which slot of the socket groups a worker is the owner: 1, 2 or 3.
pub type Tag = u8;

/// Supervisor to worker.
#[derive(Clone, Debug, PartialEq, Hash, Encode, Decode)]
pub struct Order {
    /// Who says it.
    pub incarnation: Incarnation,
    /// What to do.
    pub command: Command,
}

/// What a supervisor can order.
#[derive(Clone, Debug, PartialEq, Hash, Encode, Decode)]
pub enum Command {
    /// The first order of a worker's life. The worker locks the alive file, opens or makes its
    /// database, replays logbooks (unless a candidate) and answers [`Report::Ready`].
    ///
    /// Descriptors: the alive file, then for each address in order LISTEN and slots 1, 2, 3.
    Start(Box<Start>),
    /// Journal and store are written; act. A worker that was started to hold takes authority with
    /// this term and answers [`Report::Going`]. A candidate may begin to sync (the term is then the
    /// holder's). To a worker that reconnected it says: taken back; carry on in your role.
    Go {
        /// Reserved durably before this is sent.
        term: Term,
    },
    /// Hand over or take over with this other worker.
    ///
    /// Descriptors: link (SEQPACKET), stream, datagram socket for stray packets, pidfd of the other.
    /// The holder opens its logbook and streams its snapshot; the candidate ingests and follows.
    Pair {
        /// The other worker.
        peer: Instance,
        /// Its tag; if it was marked dead before, it is alive again from here on.
        peer_tag: Tag,
        /// Its generation.
        peer_generation: Generation,
    },
    /// To the holder: append a mark; both sides snapshot exactly there, hash what is stored and
    /// answer [`Report::StateHash`] with this id.
    Mark {
        /// Chosen by the supervisor, never reused.
        id: u64,
    },
    /// To the side that will take over: be ready for this term. Answered by [`Report::Prepared`].
    Prepare {
        /// The term of the coming `Yield`.
        term: Term,
        /// `Some(bytes)`: make the logbook of that term durable with this much disk reserved.
        /// `None`: the database itself is the durable copy (the way back).
        reserve: Option<u64>,
    },
    /// To the holder: at a suitable moment, at the latest after the window, freeze and yield.
    Cut {
        /// Reserved; the taker's.
        term: Term,
        /// Reserved; the yielder's if it has to resume. 0 in a reverse cut: it never holds again.
        resume: Term,
        /// Milliseconds to wait for a moment with no request under way.
        window_ms: u64,
    },
    /// To a frozen worker whose peer is confirmed dead: read that peer's logbook to its end, hold
    /// again. Answered by [`Report::Resumed`]. Ordered twice it is answered twice; a worker that holds
    /// already (it never yielded, or it took back in a reverse cut) goes on with this term and says so.
    Resume {
        /// Reserved; higher than the dead peer's.
        term: Term,
    },
    /// The peer is confirmed dead (or has drained and exited): forget the pair, adopt its slots.
    /// Before the cut the holder drops its logbook; after it, it keeps the one that it writes.
    PeerGone {
        /// The peer's tag, dead from now on.
        tag: Tag,
    },
    /// Make everything applied so far durable in the database. Answered by [`Report::Persisted`].
    Persist,
    /// To a frozen worker, before the commit point: never hold again unless ordered to.
    /// Answered by [`Report::Retired`], and again when asked again; a holder refuses it.
    Retire {
        /// The term that is to be committed.
        term: Term,
    },
    /// To the holder, after the commit point: end the logbook, persist past its end, go on with the
    /// database alone. Answered by [`Report::Committed`].
    Commit {
        /// The committed term.
        term: Term,
    },
    /// To the retired worker, or to one that yielded for good: send connections away, wait for them, exit.
    /// What they ask meanwhile the holder executes. Answered by [`Report::Drained`]; then it exits.
    Drain {
        /// GOAWAYs are spread over this many milliseconds.
        stagger_ms: u64,
        /// After this many milliseconds what is left is closed.
        deadline_ms: u64,
    },
    /// To the holder: remove these logbooks and generations if they are there. Never its own
    /// generation. Answered by [`Report::Removed`].
    Remove {
        /// Terms.
        logs: Vec<Term>,
        /// Generations.
        generations: Vec<Generation>,
    },
    /// End in good order: stop reading, finish what is under way, persist, exit with 0.
    Stop {
        /// Milliseconds until it is killed.
        deadline_ms: u64,
    },
}

/// What a worker needs to know to begin.
#[derive(Clone, Debug, PartialEq, Hash, Encode, Decode)]
pub struct Start {
    /// This worker.
    pub instance: Instance,
    /// Proves to a later supervisor that a reconnecting process is this worker.
    pub secret: [u8; 16],
    /// What was verified and started, so that a worker can say who it is.
    pub release: Release,
    /// The `state/` directory.
    pub state: String,
    /// The worker's own generation.
    pub generation: Generation,
    /// Whether it exists.
    pub origin: Origin,
    /// The worker's slot.
    pub tag: Tag,
    /// Addresses, one per group, ports resolved.
    pub listen: Vec<std::net::SocketAddr>,
    /// Keys that all workers of this node share.
    pub routing: RoutingKeys,
    /// The named socket by which the worker comes back to a supervisor that was replaced.
    pub reconnect: String,
    /// What an acknowledgement waits for.
    pub durability: Durability,
    /// Intervals and deadlines.
    pub timing: Timing,
}

/// Where a worker's state comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Origin {
    /// The very first start of this node: make `identity/` and the generation; both must be absent
    /// or have been left unfinished by an earlier try.
    Genesis,
    /// Open the generation; replay logbooks above its position. It must exist.
    Cold,
    /// Make the generation, empty; what is in it comes from the holder. Remains of an earlier
    /// candidate in the same directory are an error: generations are never reused.
    Candidate,
}

/// What an acknowledgement waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Durability {
    /// A sync to the disk, grouped.
    Fsync,
    /// The write alone; survives a kill, not a power loss.
    Os,
}

/// Keys that every worker of a node shares, so that one can speak for another that died.
#[derive(Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub struct RoutingKeys {
    /// Stateless reset tokens.
    pub reset: [u8; 64],
    /// Address validation tokens.
    pub token: [u8; 64],
    /// Authenticates connection ids.
    pub mac: [u8; 32],
}

impl std::fmt::Debug for RoutingKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RoutingKeys(secret)")
    }
}

/// Intervals and deadlines in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Timing {
    /// Between heartbeats.
    pub heartbeat_ms: u64,
    /// Between canary requests of a frozen worker.
    pub canary_ms: u64,
    /// How long a relayed request or a canary request may take before it is suspicious.
    pub relay_ms: u64,
}

/// Worker to supervisor.
#[derive(Clone, Debug, PartialEq, Hash, Encode, Decode)]
pub enum Report {
    /// First report on a reconnection, in place of `Start`; see [`Identity`].
    ///
    /// Descriptors: for each address in order LISTEN and slots 1, 2, 3.
    Identity(Box<Identity>),
    /// Started: locked, opened, replayed.
    Ready {
        /// Last sequence that its database holds.
        sequence: Sequence,
        /// Highest term found in database or logbooks.
        term: Term,
        /// Records replayed from logbooks.
        replayed: u64,
        /// Logbooks on disk (terms).
        logs: Vec<Term>,
        /// Generations on disk.
        generations: Vec<Generation>,
        /// Damage found while replaying, in words; what could be read was applied.
        damage: Option<String>,
    },
    /// It has authority and reads new connections.
    Going {
        /// The order's.
        term: Term,
    },
    /// From the candidate, a few times a second.
    Syncing {
        /// Bytes of snapshot ingested.
        done: u64,
        /// Bytes of snapshot in all, as announced.
        total: u64,
        /// Records of the logbook that are written and not applied.
        lag: u64,
    },
    /// From the candidate: ingested, and the logbook applied to where it was written.
    Level {
        /// Applied.
        sequence: Sequence,
    },
    /// Ready for the `Yield` of this term.
    Prepared {
        /// The order's.
        term: Term,
    },
    /// The hash of all that is stored, at a mark.
    StateHash {
        /// The order's.
        id: u64,
        /// The mark's.
        sequence: Sequence,
        /// See the state hash's definition in the worker.
        hash: Digest,
    },
    /// From the yielder: frozen, nothing more is written or signed; `Yield` is sent.
    Yielded {
        /// The taker's.
        term: Term,
        /// Last of the term that ended.
        sequence: Sequence,
    },
    /// From the taker: it holds.
    Took {
        /// Its.
        term: Term,
    },
    /// From the yielder: the taker said `Took`.
    Resigned {
        /// The taker's.
        term: Term,
        /// Microseconds from the freeze to `Took`.
        gap_us: u64,
    },
    /// It holds again.
    Resumed {
        /// The order's, or the one reserved for it if it had to act alone.
        term: Term,
        /// Last of the dead peer's logbook.
        sequence: Sequence,
        /// Microseconds from the peer's confirmed death to the first read of new connections.
        gap_us: u64,
    },
    /// It never holds again unless ordered to.
    Retired {
        /// The order's.
        term: Term,
    },
    /// The database holds durably everything up to here.
    Persisted {
        /// Last.
        sequence: Sequence,
    },
    /// The logbook is ended and the database holds it durably.
    Committed {
        /// The order's.
        term: Term,
    },
    /// Drained; the process ends next.
    Drained {
        /// Connections that their clients closed after the GOAWAY.
        moved: u64,
        /// Connections that were closed at the deadline.
        cut_off: u64,
    },
    /// Done, or was not there.
    Removed {
        /// As ordered.
        logs: Vec<Term>,
        /// As ordered.
        generations: Vec<Generation>,
    },
    /// At the interval of [`Timing::heartbeat_ms`].
    Heartbeat(Heartbeat),
    /// From a frozen worker: the holder looks dead or wrong; please kill it.
    Suspect {
        /// Whether it was wrong (never acceptable) or only silent.
        kind: Suspicion,
        /// In words.
        reason: String,
    },
    /// Something failed; see [`Trouble`].
    Trouble {
        /// Which kind.
        kind: Trouble,
        /// What failed, what still works, what to do.
        text: String,
    },
    /// The order makes no sense in the worker's role; nothing was done.
    Refused {
        /// The order's name.
        order: String,
        /// Why.
        reason: String,
    },
}

/// What a frozen worker suspects the holder of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Suspicion {
    /// Link closed, relay or canary unanswered.
    Silent,
    /// Canary or relay answered with an error.
    Failing,
    /// Wrong data: a canary's content, a record that does not verify.
    Wrong,
}

/// What can fail in a worker without ending it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Trouble {
    /// Cannot start: state unreadable, unknown layout, identity missing, a port or permission.
    CannotStart,
    /// Before the cut: the sync cannot go on (no room, stream broken). The holder serves on.
    SyncFailed,
    /// Before the cut: the holder dropped its logbook. It serves on; the upgrade cannot go on.
    LogbookDropped,
    /// After the cut: the logbook cannot be written; nothing is acknowledged any more.
    Poisoned,
    /// A record or chunk that the follower could not accept; kept in `refused/`.
    RecordRefused,
    /// A logbook is damaged below its durable mark; reading went on behind it.
    Damage,
    /// A removal or another piece of housekeeping failed; it may be ordered again.
    Housekeeping,
}

/// How a worker is.
#[derive(Clone, Debug, Default, PartialEq, Hash, Encode, Decode)]
pub struct Heartbeat {
    /// Last sequence written or applied.
    pub sequence: Sequence,
    /// Requests answered since the last heartbeat.
    pub requests: u64,
    /// Of these, answered with an error that is the node's fault.
    pub errors: u64,
    /// Median of the time from a request's arrival to its answer, microseconds; 0 without requests.
    pub p50_us: u64,
    /// The same, 99th percentile.
    pub p99_us: u64,
    /// Resident memory, bytes.
    pub rss: u64,
    /// Open connections of clients.
    pub connections: u64,
    /// Records that the follower has yet to apply.
    pub lag: u64,
    /// Bytes in logbooks.
    pub logbook: u64,
    /// Bytes of disk that a standby of this state would need beside it.
    pub standby_room: u64,
    /// Canary requests answered rightly since the last heartbeat.
    pub canary_ok: u64,
    /// Canary requests failed since the last heartbeat.
    pub canary_failed: u64,
}

/// Who a worker is that comes back to a supervisor after the one before has gone.
#[derive(Clone, Debug, PartialEq, Hash, Encode, Decode)]
pub struct Identity {
    /// Its number.
    pub instance: Instance,
    /// From its `Start`.
    pub secret: [u8; 16],
    /// What it runs.
    pub release: Release,
    /// Its generation.
    pub generation: Generation,
    /// Its slot.
    pub tag: Tag,
    /// What it does.
    pub role: Role,
    /// Last sequence written or applied.
    pub sequence: Sequence,
    /// The other of the pair, if it has one.
    pub peer: Option<Instance>,
    /// The addresses of the sockets that come with this.
    pub listen: Vec<std::net::SocketAddr>,
}

/// What a worker does, as it tells a new supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Role {
    /// It holds.
    Holding {
        /// Its term.
        term: Term,
    },
    /// It yielded; `Took` may or may not have come.
    Frozen {
        /// The taker's term.
        term: Term,
        /// Reserved for it to resume; 0 if it must never hold again.
        resume: Term,
    },
    /// Frozen, and `Retired` was answered.
    Retired {
        /// The committed term.
        term: Term,
    },
    /// It sends its connections away.
    Draining,
}

/// The alive file's name for an instance; the lock on it is held for the worker's whole life.
pub fn alive_file(instance: Instance) -> String {
    instance.to_string()
}

/// The state directory's name for a generation.
pub fn generation_dir(generation: Generation) -> String {
    format!("gen-{generation}")
}

/// What `worker --describe` prints: from the binary itself, for the publisher's index.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// The release's name.
    pub release: crate::release::Version,
    /// Of this contract.
    pub contract: Range,
    /// Of the protocol between nodes.
    pub protocol: Range,
    /// Of the logical state stream.
    pub state: StateRange,
}

/// Which versions of the logical state stream a release reads and writes.
///
/// A release writes the highest version that the reader understands, so it can hand its state to every
/// release that reads one of `read_min..=write`, an older one too; unless what is stored needs a later
/// version, which only the release knows, and says when it is asked to hand over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateRange {
    /// Lowest read.
    pub read_min: u16,
    /// Highest read.
    pub read_max: u16,
    /// Highest written.
    pub write: u16,
}

impl StateRange {
    /// Whether a release of this range can take over the state of one of that range.
    pub fn reads(&self, writer: &StateRange) -> bool {
        self.read_min <= writer.write && writer.read_min <= self.read_max
    }
}

impl std::fmt::Display for StateRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {}", self.read_min, self.read_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_handed_over_in_any_version_that_one_writes_and_the_other_reads() {
        let range = |read_min, read_max| StateRange { read_min, read_max, write: read_max };
        for (reader, writer, can) in [
            (range(1, 1), range(1, 1), true),
            (range(1, 2), range(1, 1), true),
            (range(1, 1), range(1, 2), true),
            (range(2, 3), range(1, 1), false),
            (range(1, 1), range(2, 3), false),
        ] {
            assert_eq!(reader.reads(&writer), can, "{reader} of {writer}");
        }
        // It reads what it does not write yet.
        let careful = StateRange { read_min: 1, read_max: 2, write: 1 };
        assert!(!range(2, 2).reads(&careful) && careful.reads(&range(2, 2)));
    }
}

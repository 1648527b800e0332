//! What two workers say to each other while one hands over to the other.
//!
//! Two channels, so that the cut never waits behind bulk:
//!
//! - the **link** (`SOCK_SEQPACKET`), [`Note`]s: the cut, and how far the logbook has come;
//! - the **stream** (`SOCK_STREAM`), [`Part`]s, framed: first the snapshot, then relayed requests.
//!
//! Both begin with a greeting both ways. On the stream each side always reads; requests are sent only
//! against credit that the receiver granted, so that neither can drown the other.

use bincode::{Decode, Encode};

use crate::control::{Generation, Sequence, Term};
use crate::operation::Operation;

/// On the link.
#[derive(Clone, Debug, PartialEq, Hash, Encode, Decode)]
pub enum Note {
    /// From the holder: the logbook of this term is open at this sequence, the snapshot follows on
    /// the stream.
    Opened {
        /// The holder's term.
        term: Term,
        /// All up to here is in the snapshot, all above in the logbook.
        sequence: Sequence,
        /// Where the holder's chunk files lie.
        generation: Generation,
        /// Logical entries in the snapshot.
        entries: u64,
        /// Bytes of those entries.
        bytes: u64,
        /// Bytes that the other database takes for itself: records and entries of logs; chunk files are
        /// linked.
        copied: u64,
    },
    /// From the holder: the logbook is written up to here. May be left out when the channel is full:
    /// a later one says more.
    Written {
        /// Last in the file.
        sequence: Sequence,
    },
    /// From the follower: applied up to here.
    Applied {
        /// Last in the follower's database.
        sequence: Sequence,
    },
    /// From the holder, which is frozen: nothing was or will be written above this sequence in the
    /// old term. Consumes its authority.
    Yield {
        /// The taker's.
        term: Term,
        /// Last of the old term.
        sequence: Sequence,
        /// Hashes of the connection ids of handshakes that the yielder began lately: packets that
        /// bear them go on to the yielder.
        handshakes: Vec<u64>,
    },
    /// From the taker: it holds.
    Took {
        /// Its.
        term: Term,
    },
}

/// On the stream.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Part {
    /// Some entries of the snapshot, in any order.
    Entries(Vec<Operation>),
    /// The snapshot is complete.
    End {
        /// So many were sent.
        entries: u64,
    },
    /// The receiver of this may send so many more requests.
    Credit {
        /// Requests.
        requests: u32,
    },
    /// A client's request, whole, to be executed by the holder.
    Request {
        /// Of this relay, unique on this stream.
        id: u64,
        /// As it came from the client.
        request: Vec<u8>,
    },
    /// The answer, for the client.
    Answer {
        /// The request's.
        id: u64,
        /// As it goes to the client.
        answer: Vec<u8>,
    },
}

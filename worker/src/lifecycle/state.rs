//! The states of a worker's life. What belongs to a state lives in its variant.

use bumpless_shared::control::{Origin, Sequence, Term};

use super::input::Peer;

/// What a worker is.
#[derive(Clone, Debug, PartialEq, Hash)]
pub enum State {
    /// It knows nothing yet.
    Born,
    /// It opens its state.
    Opening {
        /// As ordered.
        origin: Origin,
    },
    /// Opened; it waits for `Go`.
    Ready {
        /// As ordered.
        origin: Origin,
    },
    /// It follows the holder, or waits to be paired with it.
    Standby(Standby),
    /// It has authority.
    Holding(Holding),
    /// It had authority and sent `Yield`.
    Frozen(Frozen),
    /// Its old connections are sent away; then it ends.
    Draining {
        /// The holder's: the committed one, or that of the way back.
        term: Term,
        /// Who holds.
        peer: Peer,
    },
    /// Nothing more is decided.
    Ended,
}

/// Not yet a holder.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Standby {
    /// The holder, once paired.
    pub peer: Option<Peer>,
    /// The term whose `Yield` it will accept.
    pub prepared: Option<Prepared>,
}

/// Ready for one term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prepared {
    /// Which.
    pub term: Term,
    /// Where it will write.
    pub books: Books,
}

/// Where a holder writes what survives a power loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Books {
    /// Into its database alone.
    Database,
    /// Into the logbook of its term, until commit.
    Logbook,
}

/// It has authority.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Holding {
    /// Which term.
    pub term: Term,
    /// The last sequence before it held, and how long nobody did (microseconds).
    pub taken: Taken,
    /// Where its writes are durable.
    pub books: Books,
    /// The other worker.
    pub pairing: Pairing,
    /// A worker that it replaced, still sending its last connections away.
    pub draining: Option<Peer>,
}

/// How a holder began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Taken {
    /// Last of the term before.
    pub sequence: Sequence,
    /// From the peer's death to the first read of new connections; 0 where nobody died.
    pub gap_us: u64,
}

/// The other worker, seen from the holder.
#[derive(Clone, Debug, PartialEq, Hash)]
pub enum Pairing {
    /// There is none.
    Alone,
    /// A candidate gets the snapshot or follows.
    Feeding(Peer),
    /// It yielded to us and follows: probation.
    Watched(Peer),
    /// We are about to yield to it.
    Cutting {
        /// To whom.
        peer: Peer,
        /// What it was before, should the cut be called off.
        from: Before,
        /// The order.
        cut: Cut,
    },
}

/// What a peer was before a cut to it was ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Before {
    /// A candidate.
    Feeding,
    /// The frozen one: this cut is the way back.
    Watched,
}

/// A cut as ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cut {
    /// The taker's term.
    pub term: Term,
    /// Ours, if we resume; 0 for never.
    pub resume: Term,
}

/// What becomes of a holder that froze and whose `Yield` was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsent {
    /// Nobody else can hold: it goes on, with the term that was reserved for it.
    HoldOn(Term),
    /// On the way back its own logbook is closed now; the old worker reads it once this one is dead.
    Frozen,
}

impl Cut {
    /// What follows if it could not be told to the taker.
    pub fn unsent(self) -> Unsent {
        match self.resume {
            0 => Unsent::Frozen,
            term => Unsent::HoldOn(term),
        }
    }
}

/// It sent `Yield`.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Frozen {
    /// The taker's term.
    pub term: Term,
    /// Reserved for it, should it have to act alone; 0: it never holds again.
    pub resume: Term,
    /// Last of its own term.
    pub sequence: Sequence,
    /// Microseconds from freeze to `Took`, once that came.
    pub took: Option<u64>,
    /// The taker.
    pub peer: Peer,
    /// What is known of the taker.
    pub fate: Fate,
    /// Whether it swore not to hold again on its own.
    pub oath: Oath,
    /// A way back that it is ready for.
    pub prepared: Option<Prepared>,
    /// A `Resume` that waits for the taker's death to be certain.
    pub ordered: Option<Term>,
}

/// What a frozen worker knows of the taker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Nothing bad.
    Alive,
    /// Its link is closed.
    Suspicious,
    /// Its pidfd is readable.
    Dead,
}

/// Whether a frozen worker may act alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Oath {
    /// It may.
    Free,
    /// It answered `Retired`: only by order.
    Retired,
}

impl Frozen {
    /// The term with which it may resume without an order, if it may.
    pub fn may_act_alone(&self) -> Option<Term> {
        match self.oath {
            Oath::Free if self.resume != 0 => Some(self.resume),
            Oath::Free | Oath::Retired => None,
        }
    }
}

impl Pairing {
    /// A cut that did not come: the pair is what it was before it was ordered.
    pub fn call_off(&mut self) {
        if let Pairing::Cutting { peer, from, .. } = *self {
            *self = match from {
                Before::Feeding => Pairing::Feeding(peer),
                Before::Watched => Pairing::Watched(peer),
            };
        }
    }

    /// The other worker, if there is one.
    pub fn peer(&self) -> Option<Peer> {
        match self {
            Pairing::Alone => None,
            Pairing::Feeding(peer) | Pairing::Watched(peer) | Pairing::Cutting { peer, .. } => Some(*peer),
        }
    }
}

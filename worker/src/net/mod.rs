//! The serving edge: QUIC on the supervisor's sockets, in a process that shares them with another.
//!
//! ```text
//!            LISTEN ──(only while told)──┐
//!   own slot of each address ────────────┤
//!   slots of a worker that died ─────────┼─▶ one endpoint ─▶ connection ─▶ request ─▶ Handler
//!   stray packets from the other worker ─┘        │
//!                                                 └─▶ sent through the own slot of the peer's family
//! ```
//!
//! Connection ids carry the tag of the worker's slot ([`bumpless_shared::cid`]), so the kernel brings
//! every packet of a connection to the worker that has it, and only first flights arrive at LISTEN.
//! Nothing here knows of storage, terms or roles: the [`Handler`] decides what a request means.
//!
//! Good path of a hand-over, seen from both workers:
//!
//! 1. Both know each other: [`Node::peer`].
//! 2. The old one stops reading LISTEN, [`Node::unlisten`], and says which first flights it has seen
//!    lately; the new one begins, [`Node::listen`], with that list. Packets wait in the kernel
//!    meanwhile. A retransmission of a listed first flight is passed on to the old worker: were both to
//!    answer one handshake, the client would give up.
//! 3. The old one keeps its connections until its successor is good; then it sends them away,
//!    [`Node::goaway`], spread over some time, and waits until they are gone, [`Node::drain`].
//!
//! Bad paths:
//!
//! - **The other worker dies.** The survivor reads its slots too and answers every packet there with
//!   a stateless reset, which is valid as both share the reset key: [`Node::adopt`]. Clients come back
//!   within milliseconds. A worker never answers for the *living* other one, for a reset would
//!   kill a connection that is well: the id generator knows only the own tag and those marked dead, and
//!   a dead tag is alive again as soon as [`Node::peer`] names it or [`Node::unadopt`] frees it.
//! - **The hand-over is taken back after a GOAWAY.** [`Node::cancel_goaway`], or clients would be sent
//!   away again by each connection that they make.
//! - **The kernel merges packets of two workers into one batch** (GRO, when a client moves). The batch
//!   goes to one socket whole, so every packet is looked at, and strays go to the other worker.
//! - **The channel for strays is full or gone**: the packet is dropped, counted, and repaired by
//!   QUIC as loss.
//! - **A client announces much and sends little, or does not read**: bodies are only taken into a bounded
//!   budget of memory, and both directions have a deadline.
//!
//! Not here: 0-RTT, whose data one of two workers would have to refuse, and session tickets.

mod figures;
mod flights;
mod identity;
mod ids;
mod node;
#[cfg(test)]
pub(crate) mod rig;
mod serve;
mod socket;
pub mod stray;
#[cfg(test)]
mod tests;

pub use figures::{Figures, Histogram};
pub use flights::MOST as MOST_HANDED_OVER;
pub(crate) use identity::NAME;
pub use identity::{Identity, IdentityError, pin};
pub use node::{Config, Drained, GroupFds, Node, StartError};
pub use serve::{Answering, Handler, Limits};

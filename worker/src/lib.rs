//! The storage node: what a release of the network's software is, and how it hands over to the next one
//! without a bump.
//!
//! ```text
//!   clients ═QUIC═▶ net ──▶ serve ──▶ state           (this worker holds)
//!                             └─────▶ handover::relay ═▶ the other worker   (the other one holds)
//!   supervisor ◀─orders, reports─▶ node ──▶ lifecycle: what to do;  node/*: doing it
//! ```
//!
//! - [`lifecycle`]: who holds and what may happen next; pure.
//! - [`node`]: the process. - [`supervisor`], [`heartbeat`]: its side of the control channel.
//! - [`handover`]: everything between two workers. - [`canary`]: the old one's look at the new one.
//! - [`serve`]: requests. - [`state`]: what is stored. - [`net`], [`wire`]: how clients reach it.
//! - [`client`]: the library that clients use. - [`identity`]: who the node is.
//! - [`stamp`], [`faults`]: which release a file is, and what goes wrong in it for a test's sake.

// Its `eprintln!` is that of every module: one that cannot be written ends nobody.
#[macro_use]
extern crate bumpless_os;

pub mod canary;
pub mod client;
pub mod command;
pub mod faults;
pub mod handover;
pub mod heartbeat;
pub mod identity;
pub mod lifecycle;
pub mod net;
pub mod node;
pub mod serve;
pub mod stamp;
pub mod state;
pub mod supervisor;
pub mod wire;

//! A feed that lies: what a client has to stand, made on demand.
//!
//! ```text
//!   forge ── root, index, timestamp, signed as told ──▶ simulator ── http, path by path as told ──▶ client
//!                                                          └▶ every request that was made, in order
//! ```
//!
//! A [`forge`] makes and signs the files of a feed, honestly or not; a [`server`] hands them out, or
//! [`answer`]s with anything else that a server may do, and remembers what it was asked for.

pub mod answer;
pub mod forge;
pub mod server;

pub use answer::{Act, Answer};
pub use forge::{Forge, Keyring};
pub use server::{Asked, Simulator};

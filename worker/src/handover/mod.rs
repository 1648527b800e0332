//! Both ends of giving and taking over: what runs between two workers.
//!
//! - [`link`]: notes about the cut. - [`stream`]: bulk, in frames.
//! - [`wires`]: both of them and the other's process, as one living connection.
//! - [`moment`]: when to cut.
//! - [`relay`]: requests of old connections, executed by the holder.
//! - [`snapshot`]: sending and taking in the state.

pub mod link;
pub mod moment;
pub mod relay;
pub mod snapshot;
pub mod stream;
pub mod wires;

//! The publisher: makes and signs feeds.
//!
//! ```text
//!   DIR/keys/<role>.key, .pub   secret and public keys, in the minisign tool's own format
//!   DIR/draft.json              the next index, unsigned
//!   DIR/feed/                   what any static file server may serve:
//!       root/<N>.json  index/<V>.json  timestamp.json  (each with .sigs)  blob/<sha256>
//! ```
//!
//! A client may read while a new state is published. So files appear by renaming, in the order blob, index,
//! timestamp: whatever a timestamp names is there already. A timestamp and its signatures are two files,
//! and cannot be replaced in one step; therefore the signatures come first, and keep those of the timestamps
//! before: whichever of the two a client gets first, the pair verifies.
//!
//! Secret keys never leave `keys/`. Signing code is linked into this tool only, never into the supervisor.
//!
//! - [`publisher`]: a feed and its keys. - [`key`]: a secret key and its signatures.
//! - [`check`]: a whole client run against a folder, explained. - [`server`]: a loopback server to try it out.
//! - [`command`]: the command line.

pub mod check;
pub mod command;
pub mod file;
pub mod key;
pub mod publisher;
pub mod server;

pub use publisher::{Addition, Options, PublishError, Publisher};
pub use server::Server;

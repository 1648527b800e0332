//! The publisher: makes and signs feeds.
//!
//! ```text
//!   DIR/keys/<holder>.pub       public keys, in the minisign tool's own format; each file's name is a holder's
//!   DIR/keys/<holder>.key       the secret ones at hand: all of them in a lab, else only the timestamp's
//!   DIR/draft.json              the next index, unsigned; of a channel other than stable: draft-beta.json
//!   DIR/sign/                   what waits for signatures, and those that it has
//!   DIR/feed/                   what any static file server may serve:
//!       root/<N>.json  index/<V>.json  timestamp.json  build/<sha256>  (each with .sigs)  blob/<sha256>
//!       channel/beta/index/<V>.json  channel/beta/timestamp.json       of a channel other than stable
//! ```
//!
//! A change is made to the draft and published in one step where the keys at hand are enough. Where they are
//! not, exactly what is to be signed waits in `sign/`, each holder signs it on a machine of their own, and the
//! signatures are merged; nothing is published before enough of them are there, and it is said whose are
//! missing.
//!
//! A client may read while a new state is published. So files appear by renaming, in the order blob, index,
//! timestamp: whatever a timestamp names is there already. A timestamp and its signatures are two files,
//! and cannot be replaced in one step; therefore the signatures come first, and keep those of the timestamps
//! before: whichever of the two a client gets first, the pair verifies.
//!
//! Secret keys never leave where they lie. Signing code is linked into this tool only, never into the
//! supervisor.
//!
//! - [`publisher`]: a feed and its changes; [`channels`]: those of one feed; [`publish`]: from the drafts to the
//!   feed; [`rotation`]: the next root. - [`desk`]: what waits for signatures; [`ceremony`]: signing elsewhere, and bringing signatures
//!   together; [`changes`]: what is signed, in words; [`attest`]: what a builder signs.
//! - [`key`], [`keyring`], [`password`]: keys. - [`document`], [`signer`], [`published`]: the signed files, who
//!   signs them, and which there are already.
//! - [`declare`](mod@declare): what lies beside a worker in a package of the system, without any feed.
//! - [`check`]: a whole client run against a folder, explained. - [`server`]: a loopback server to try it out.
//! - [`command`]: the command line.

mod artifact;
pub mod attest;
pub mod ceremony;
pub mod changes;
pub mod channels;
pub mod check;
pub mod command;
pub mod declare;
pub mod desk;
pub mod document;
mod draft;
pub mod error;
pub mod file;
pub mod key;
pub mod keyring;
pub mod password;
pub mod publish;
pub mod published;
pub mod publisher;
pub mod rotation;
pub mod server;
pub mod signer;

pub use ceremony::Request;
pub use channels::NotPromoted;
pub use declare::{Terms, declare};
pub use error::PublishError;
pub use publisher::{Addition, Holders, Options, PublicKeys, Publisher, Spread};
pub use rotation::KeyChange;
pub use server::Server;
pub use signer::Signer;

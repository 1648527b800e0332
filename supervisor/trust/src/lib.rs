//! Which release may run here: the verification core. It opens nothing, knows no clock and no network;
//! bytes and the time go in, decisions come out.
//!
//! ```text
//!   start time fixed
//!     └▶ root N+1, N+2, … until "not found"   k signatures of N and k of N+1     ▶ kept
//!          └▶ root's expiry
//!               └▶ timestamp   size, signatures, then parse; type, spec, network, channel,
//!                    │         version, expiry                                   ▶ kept
//!                    └▶ index  size and SHA-256 as the timestamp says, signatures, parse,
//!                         │    network, channel, version, expiry                 ▶ kept
//!                         └▶ choose   target, supervisor, contract, protocol, state, stage,
//!                                     not revoked, not below the floor, not quarantined
//! ```
//!
//! This is the client workflow of The Update Framework, specification 1.0.34, section 5, on minisign
//! signatures. Departures: the index is snapshot and targets in one, so that there is nothing to mix and
//! match (5.5, 5.6 become one step); there is no delegation and no canonical JSON, because the exact
//! bytes of the file are signed; a signature's trusted comment names role and version, so that only
//! bytes whose signer meant this role are ever parsed.
//!
//! Only verified bytes are handed out for keeping ([`Keep::Put`]), each before the next file is asked for;
//! after a crash between any two of these steps [`Trusted::load`] verifies everything again, repeats what
//! was left half done and goes on. The bad paths:
//!
//! - A file is unsigned, edited, too large, for another network or channel: [`Refused`] says which and why.
//! - Metadata goes back, or changes under the same version: refused; the highest version per role stays.
//! - A root rotates a role's keys: that role's kept file and its version are forgotten (5.3.11), so that an
//!   attacker who once published version 2⁶⁴-1 cannot lock the machine out for ever.
//! - Anything expires, or the clock stands before what was already verified: no new release is chosen.
//!
//! In none of these cases is a running worker stopped: that is not this crate's decision to make.

pub mod choice;
pub mod document;
pub mod keys;
pub mod refresh;
pub mod refused;
pub mod root;
pub mod signature;
pub mod time;

pub use choice::{Choice, Forbidden, Machine, Request, Running, WhyNot};
pub use document::Role;
pub use refresh::{Answer, Damage, Keep, Refresh, Signed, Stored, Trusted, Want};
pub use refused::Refused;

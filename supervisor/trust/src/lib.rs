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
//!                         ├▶ builds  where the root names builders: SHA-256 as the index says,
//!                         │          signatures, parse, network
//!                         └▶ choose  pin, stage, target, not revoked, not below the floor, not
//!                                    quarantined, supervisor, contract, protocol, state, built alike
//! ```
//!
//! # The steps, and where they come from
//!
//! This is the client workflow of The Update Framework, specification 1.0.34, section 5, with minisign
//! signatures. The root is its root, the timestamp its timestamp; the index is its snapshot and its
//! top-level targets in one file.
//!
//! | Specification | Here |
//! |---|---|
//! | 5.1 record the start time | [`Refresh::begin`] takes it; every expiry is compared with it |
//! | 5.2 load the trusted root | [`Trusted::load`]: from what is kept, or the administrator's |
//! | 5.3.2, 5.3.3 try root N+1, W bytes, Y files | [`Want::Root`], [`document::MAX_DOCUMENT`], [`refresh::MAX_ROOTS`] |
//! | 5.3.4 signed by N's keys and by its own | the old root's first, before anything is parsed |
//! | 5.3.5 exactly N+1 | [`Refused::RootVersion`] |
//! | 5.3.6 an intermediate root may be expired | only 5.3.10 looks |
//! | 5.3.7, 5.3.8 trust it, persist it | [`Keep::Put`], durable before the next question |
//! | 5.3.9 repeat | until "not found" |
//! | 5.3.10 the last root is not expired | [`Refused::Expired`] |
//! | 5.3.11 forget what rotated keys had signed | [`Keep::Forget`], at every step of the chain |
//! | 5.4.1, 5.4.2 timestamp: size, signatures | then it is parsed |
//! | 5.4.3 no rollback of it, nor of what it names | [`Refused::Older`], [`Refused::Changed`] |
//! | 5.4.4, 5.4.5 not expired; persist | also not from the future, not valid for longer than the root allows |
//! | 5.5.1 to 5.5.4, 5.6.1 to 5.6.4 size, hash, signatures, version | the index, once; size and hash from the timestamp |
//! | 5.5.5 no rollback | checked with the timestamp, before the index is fetched |
//! | 5.5.6, 5.5.7, 5.6.5, 5.6.6 not expired; persist | once |
//! | 5.7.1, 5.7.2 find the target | [`Trusted::choose`] |
//! | 5.7.3 fetch and compare size and hash | the caller, by [`Choice::artifact`] |
//!
//! Departures:
//!
//! - One index instead of snapshot and targets: there is nothing to mix and match, and nothing to list.
//! - No delegations (5.6.7) and no consistent-snapshot switch (5.3.12): every name but that of a
//!   channel's timestamp has a version or a hash in it.
//! - No canonical JSON: the exact bytes of the file are signed, and only verified bytes are parsed. So a
//!   signature's trusted comment has to name role and version, `bumpless/1 <role> <version>`.
//! - 5.3.5 lets an equal version pass quietly; here root N+1 has version N+1 or the refresh ends.
//! - 5.3.3 goes on after Y roots; here the refresh ends, and the next one goes on from there.
//! - 5.4.3.1 ends quietly at an equal version; here the bytes have to be equal too, and the index that it
//!   names is asked for again if it never arrived.
//! - 5.3.11 concerns keys; here also a threshold that has risen above what is kept: what is signed by too few
//!   now is forgotten.
//! - 5.3.10, 5.4.4, 5.5.6 and 5.6.5 can be waived for one refresh and the choice after it, all four together and
//!   nothing else ([`Expiry`]): an administrator vouches for media that lay in a drawer. Whoever froze that
//!   media can freeze the machine at it, no more: what is kept of it rises as ever, and keeps its expiry.
//! - Additions: network and channel in every file, a clock that cannot stand before what was verified, and
//!   gates behind the choice: independent builders ([`build`]) and the network's elders.
//!
//! Only verified bytes are handed out for keeping ([`Keep::Put`]), each before the next file is asked for;
//! after a crash between any two of these steps [`Trusted::load`] verifies everything again, repeats what
//! was left half done and goes on. The bad paths:
//!
//! - A file is unsigned, edited, too large, for another network or channel: [`Refused`] says which and why.
//! - Metadata goes back, or changes under the same version: refused; the highest version per role stays.
//! - A root rotates a role's keys: that role's kept file and its version are forgotten (5.3.11), so that an
//!   attacker who once published version 2⁶⁴-1 cannot lock the machine out for ever.
//! - Builders are asked for, and too few of them have signed what would run here: it is not chosen.
//! - Anything expires, or the clock stands before what was already verified: no new release is chosen.
//! - A kept root is damaged: the best of the others, or the administrator's, takes its place, with an alarm.
//!   Until the roots after it are fetched again, keys that they had taken away speak as before.
//!
//! In none of these cases is a running worker stopped: that is not this crate's decision to make.
//!
//! Beside the publisher there is a second authority, the machine's administrator: [`package`].

pub mod build;
pub mod choice;
pub mod document;
pub mod keys;
pub mod name;
pub mod outlook;
pub mod package;
pub mod pin;
pub mod refresh;
pub mod refused;
pub mod root;
pub mod signature;
pub mod time;

pub use choice::{Choice, Forbidden, Machine, Origin, Request, Running, WhyNot};
pub use document::Role;
pub use outlook::Outlook;
pub use package::Package;
pub use pin::Pin;
pub use refresh::{Answer, Damage, Evidence, Keep, Refresh, Signed, Stored, Trusted, Want};
pub use refused::Refused;
pub use time::{At, Expiry};

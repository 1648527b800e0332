//! The contract: everything that one process of a node says to another.
//!
//! ```text
//!   supervisor ── control channel (SEQPACKET: orders down, reports up) ── worker
//!   worker ────── link (SEQPACKET: the cut) and stream (snapshot, relay) ── worker
//!   worker ────── logbook and chunk files, on disk ───────────────────── worker
//! ```
//!
//! This crate lives longer than any release: a supervisor of last year starts the worker of next
//! year, and two workers of different releases share a logbook. So every message begins with a
//! version that can be read before the rest ([`frame`]), both sides say first which versions they
//! speak ([`version`]), and what is here is pure: it opens nothing and knows no clock.
//!
//! - [`control`]: orders and reports between the supervisor and a worker.
//! - [`link`]: what two workers say to each other while they hand over.
//! - [`operation`], [`logbook`]: the outcome of a write, and its record on disk.
//! - [`cid`]: connection ids, by which the kernel routes a packet to its worker.
//! - [`digest`], [`release`]: hashes, and which release is meant.

pub mod cid;
pub mod control;
pub mod digest;
pub mod frame;
pub mod link;
pub mod logbook;
pub mod operation;
pub mod release;
pub mod version;

//! The supervisor: finds, verifies, installs, starts, watches and decides. It never reads traffic.
//!
//! ```text
//!   operators ── control socket ─┐                       ┌─ upgrade/   the sequence: pure
//!   workers ──── channels ───────┼──▶ driver ── events ──┤
//!   fetcher ──── feed/ ──────────┘       ▲               └─▶ effects ──▶ effects/   processes, sockets,
//!                                        └──── outcomes ◀──────────────           records
//! ```
//!
//! - [`upgrade`]: the upgrade sequence and the recovery of a restarted supervisor, as pure functions.
//! - [`driver`]: waits, steps, performs. [`effects`]: the edge that acts.
//! - [`start`]: from a configuration file to a running driver, taking living workers back.
//! - [`feed`], [`releases`]: from a feed to a verified, installed release; `bumpless_trust` decides.
//!   [`packages`]: workers that the system's packages brought. [`bans`]: what the publisher forbids, also while
//!   the feed cannot be asked. [`looks`]: when it is asked.
//! - [`records`]: what is durable. [`ledger`]: what is remembered for people.
//! - [`windows`]: when an upgrade may begin by itself.
//! - [`sockets`]: the groups of UDP sockets that workers share. [`launch`], [`alive`]: processes.
//! - [`user`]: as whom workers run. [`exposure`], [`ownership`]: what they cannot change then, and what is theirs.
//! - [`control_socket`], [`status`]: the operator's side.
//!
//! A restart of the supervisor ends no worker: they serve on, come back by a named socket and hand the
//! UDP sockets back.

// Its `eprintln!` is that of every module: one that cannot be written ends nobody.
#[macro_use]
extern crate bumpless_os;

pub mod alive;
pub mod bans;
pub mod config;
pub mod control_socket;
pub mod driver;
pub mod effects;
pub mod exposure;
pub mod feed;
pub mod launch;
pub mod ledger;
pub mod looks;
pub mod ownership;
pub mod pace;
pub mod packages;
#[cfg(test)]
mod power;
pub mod records;
pub mod releases;
pub mod sockets;
pub mod start;
pub mod status;
pub mod upgrade;
pub mod user;
pub mod windows;

pub use start::run;

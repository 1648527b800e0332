//! What the operator's command and the supervisor say to each other: types alone, no I/O.
//!
//! ```text
//!   bumpless ──── one request, one line of JSON ────▶ <run_dir>/control.sock ──▶ bumplessd
//!            ◀─── progress, any number of lines ─────
//!            ◀─── outcome, one line; then the end ───
//! ```
//!
//! Each line is an object that begins with `"schema":1`. People's scripts read these objects through
//! `bumpless --json`, so what stands here is kept: fields are added, never renamed, removed or given
//! another meaning. A reader ignores fields that it does not know; a word that it does not know (a
//! phase, an event) is shown as it came. The supervisor is stricter about requests than that: what it
//! does not know, it refuses. Times are unix seconds, sizes bytes, gaps milliseconds.
//!
//! - [`request`]: what can be asked, and who may ask it.
//! - [`reply`]: progress and outcome, and the exit code that belongs to each outcome.
//! - [`status`]: what runs, what is going on, what comes next and why not now.
//! - [`dry_run`]: what an upgrade would do.
//! - [`history`]: one line per thing that happened.
//! - [`trust`]: what is believed about releases, and on whose word.

pub mod dry_run;
pub mod history;
pub mod reply;
pub mod request;
pub mod schema;
pub mod status;
pub mod trust;
mod word;

pub use bumpless_shared::digest::Digest;
pub use bumpless_shared::release::{Release, Version};

/// Seconds since 1970-01-01 00:00 UTC.
pub type Unix = u64;

/// Most bytes of a request's line, its end of line included.
pub const REQUEST_LIMIT: usize = 4096;

/// Most bytes of a reply's line, its end of line included.
pub const REPLY_LIMIT: usize = 4 * 1024 * 1024;

/// Microseconds as the milliseconds that replies and history carry.
pub fn gap_ms(microseconds: u64) -> f64 {
    microseconds as f64 / 1000.0
}

#[cfg(test)]
mod tests;

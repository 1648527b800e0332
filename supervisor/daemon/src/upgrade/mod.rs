//! The upgrade sequence: one pure function, `(state, event, now) → (state, effects)`, in `step.rs`.
//!
//! ```text
//!  Steady ─ release chosen ─▶ Fetching ▶ Installing ▶ Starting ▶ Syncing ▶ Level
//!     ▲                          │            │           │         │        │ hashes equal, terms reserved
//!     │                          ▼            ▼           ▼         ▼        ▼
//!     │◀───────────────────── BackingOut: kill -9 the new one;  ◀──────── Cutting
//!     │                       the old one never noticed                      │ Took
//!     │                                                                      ▼
//!     │◀── Committing: hash, persist, retire, record, seal, drain ◀─────  Probation
//!     │                                                                      │ anything bad
//!     │◀── RollingBack: kill -9 the new one, the old one resumes ◀───────────┤
//!     └◀── Reversing: the graceful way back, a cut the other way round; ◀────┘
//!          then the new one drains
//! ```
//!
//! The good path runs along the top. Each way down is one of five:
//!
//! - **Before the cut** the new worker is killed; once its death is certain the old one forgets it.
//! - **From the order to cut until the commit point** the new worker is killed; once its death is
//!   certain the old one reads its logbook to the end and resumes under a term reserved for it.
//! - **An operator takes it back in probation**: nothing is wrong with the new worker, so nobody need
//!   notice. It yields for good (no term is reserved for it), relays what its connections ask to the
//!   old one, sends them away and exits; then the old one makes its database durable and the new
//!   one's files go. If the new one fails on that way it is killed, and from its yield on the old one
//!   simply goes on. If the old one does, the new one is killed too: who yielded for good never holds
//!   again, and the committed pair starts cold.
//! - **The old worker dies before `Took`**: nobody knows who holds; the new one is killed too, and the
//!   committed pair starts cold ([`State::Clearing`], [`State::Cold`]).
//! - **The old worker dies after `Took`**: the new one goes on alone and is judged on its own figures;
//!   the way back is now a cold start of the committed pair with its logbooks.
//!
//! The commit point is the durable `committed` record. Once its replacement has begun the only way is
//! forward: until it is durable nothing is sealed, and if the new worker dies meanwhile the record is
//! made durable first and the new pair started cold from it.
//!
//! **The publisher forbids a release** ([`Rules::forbidden`]): it is not started as a candidate, and one that
//! is under way goes as if it had failed, up to the commit point. What serves goes on serving, and who
//! yielded may resume; but [`Rules::revoked`] may keep what is committed from starting with nothing beside it.
//!
//! **A rehearsal** makes three hand-overs before the real probation: the cut, watched for a moment; the
//! graceful way back; and, since the instance that yielded never holds again, a second one is started
//! and cut over to under terms of its own. [`Rehearsal`] in the attempt says which of the three it is
//! about, and so what is different: how long the watch is, what follows it, and that a gap above the
//! limit, one failed canary request or one connection closed at a drain's deadline is enough for a
//! verdict. The third cut's gap ends the rehearsal; from there on it is an upgrade like any other.
//!
//! Nothing here reads a clock, a file or a socket. Deadlines are moments that come back with
//! [`Event::Tick`]; the one wait without a bound is that for the confirmed death of a killed process,
//! and it raises an alarm.

mod cold;
pub mod effect;
pub mod event;
pub mod judge;
pub mod recovery;
pub mod retry;
pub mod rules;
pub mod state;
mod step;
mod view;

#[cfg(test)]
mod tests;

pub use effect::{Effect, RecordTerm};
pub use event::{Acquired, Ask, Event, Launched, Said, Stored};
pub use rules::Rules;
pub use state::{Attempt, Moment, Rehearsal, State, Terms, Verdict, Worker};

//! What the supervisor knows about itself and its node, on disk.
//!
//! ```text
//!   /var/lib/bumpless/
//!     lock           held by the supervisor for life              lock
//!     committed      what a start opens: release, generation, term committed
//!     numbers{,.2}   highest numbers ever handed out              numbers
//!     routing        keys that all workers of the node share      routing
//!     quarantine     releases that failed here                    quarantine
//!     attempts       tries of a release that failed               attempts
//!     hold           an operator's "not now"                      hold
//!     history.jsonl  one line per thing that happened             history
//! ```
//!
//! Good path: a record is replaced whole and atomically, framed with a version and a checksum, and
//! durable when the call returns ([`file::RecordFile`]). A start syncs each file, and the directory that
//! names it, before it acts on what it read: what was read but was not yet durable when the machine
//! lost power would otherwise be acted on now and be gone later.
//!
//! What can go wrong:
//! - A record cannot be written. The old one stands. Where a decision depends on it (`committed`,
//!   `numbers`) the step does not happen; where it records a judgement (quarantine, attempts, hold) the
//!   judgement holds in memory and is written later ([`file::Kept`]).
//! - A record is damaged. It is never taken for an empty one: the error names the file. Numbers are kept
//!   twice, because a number that was given out twice would break everything that rests on them.
//! - Two supervisors: the second one does not get the lock and is told who has it.

pub mod attempts;
pub mod committed;
pub mod file;
pub mod history;
pub mod hold;
pub mod lock;
pub mod numbers;
pub mod paths;
pub mod quarantine;
pub mod routing;

//! What the worker keeps, and how it is handed on.
//!
//! ```text
//!  put ─▶ Sequencer ──▶ Writer (fjall, chunk files)      one thread, one order
//!             │    └──▶ logbook of the term              while another worker follows
//!             │
//!             └─ snapshot ─▶ the other worker's Ingest; then its Follower reads the logbook
//! ```
//!
//! **The good path of an upgrade.** The holder opens a logbook and takes a snapshot at one place in
//! its queue ([`Sequencer::open_logbook`]): everything at or below the snapshot's position is in it,
//! everything above is in the logbook. The candidate makes a generation of its own layout, fills it
//! ([`Writer::ingest`]) and only then follows the logbook ([`Follower`]). At marks both hash what they
//! have stored and compare. For the cut the candidate has the next term's logbook ready
//! ([`Prepared`]); the holder freezes, the candidate reads to the announced sequence and takes. Now it
//! writes, durably, into its logbook, and the old one follows. At the commit the new one's database
//! takes over from the logbook ([`Sequencer::end_logbook`]), and the old generation goes
//! ([`StateDir::remove_generation`]).
//!
//! **The new worker dies**: what it acknowledged is in its logbook and in chunk files. The old one
//! reads to the end ([`Follower::finish`]) and holds again ([`Sequencer::resume`]). **The old one
//! dies**: the new one goes on. **Both die, or the power fails**: [`recover`] opens the committed
//! generation and replays every logbook.
//!
//! **A disk that fails** never makes two truths: what could not be synced was not acknowledged, and
//! the file that failed is not written again. **Damaged or wrong records** are reported, kept aside
//! and passed over; wrong content is never an answer to a read.
//!
//! **Two versions.** While a logbook is written, the holder keeps to the version of the contract that
//! everybody understands who may have to read it: to the standby's before the cut, after it to the frozen
//! worker's, until the commit, also when that one dies, because its release may have to start cold. What
//! that version cannot express is refused meanwhile ([`PutRefused::Later`]), and a state that holds such
//! things already is not handed over at all ([`OrderError::Inexpressible`]).
//!
//! Sequences are global: the logbook of a term begins where the one before ended. What a lower term
//! wrote beyond the sequence at which a higher one began never counts.

mod append;
mod chunks;
mod content;
mod directory;
mod follower;
mod ingest;
mod layout;
mod log_reader;
mod log_writer;
mod recovery;
mod replay;
mod runs;
mod sequencer;
mod snapshot;
mod store;
mod store_error;

#[cfg(test)]
mod tests;

pub use append::{Append, append_id};
pub use chunks::{Check, ChunkError};
pub use content::{Content, TooLong, name_of};
pub use directory::{FileError, RemoveError, StateDir};
pub use follower::{FinishError, Finished, FollowEvent, Follower};
pub use ingest::Ingest;
pub use layout::Layout;
pub use log_reader::{Damage, Item, LogReader, Missing, ReadLogError, Record, missing};
pub use log_writer::{LogError, LogWriter, Prepared, SEGMENT};
pub use recovery::{RecoverError, Recovered, recover};
pub use replay::{FollowError, Followed, Marked, Place, Refusal, Step, place};
pub use sequencer::{
    Event, Frozen, Logbook, Opened, OrderError, PutRefused, Role, Route, Sequencer, Start, Status, Stored,
    Unfit,
};
pub use snapshot::{Snapshot, StateHash};
pub use store::{LogPage, PAGE_BYTES, PAGE_ENTRIES, Position, Store, StoreOptions, Totals, Writer};
pub use store_error::{ReadError, StoreError};

//! The state, from the holder to a candidate: sent as logical entries, taken in sorted by the
//! candidate for its own layout. So the sync is the migration, and the holder's database is not touched.
//!
//! ```text
//!   holder:     snapshot ─▶ batches of entries ─▶ stream
//!   candidate:  Opened ─▶ is there room? ─▶ entries: records copied, chunk files linked
//!               End ─▶ counted, synced ─▶ the logbook is followed from the snapshot's sequence on
//! ```
//!
//! Both threads give way to all others: the sync takes what the traffic leaves.
//!
//! Bad paths, all of them the candidate's end and nothing to the holder: no room (asked before anything
//! is written), an entry that does not verify, a stream that ends early, a count that differs.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bumpless_os::background::{self, Pace};
use bumpless_shared::control::{Generation, Sequence, Term};
use bumpless_shared::link::{Note, Part};
use bumpless_shared::operation::Operation;
use tokio::sync::{mpsc, watch};

use super::link::LinkError;
use super::wires::Talk;
use crate::faults::{Faults, Place, Script, Step};
use crate::state::{Opened, Position, StoreError, StoreOptions, Totals, Writer};

/// A batch is sent when it has so many bytes of records, or so many entries.
const BATCH_BYTES: usize = 256 * 1024;
const BATCH_ENTRIES: usize = 1024;

/// Bytes of disk that an entry costs beside its content: key, index, the sorting and merging.
const ENTRY: u64 = 200;

/// Why a snapshot did not arrive.
#[derive(Debug)]
pub enum SnapshotError {
    /// Too little disk; nothing was written.
    NoRoom {
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
        /// On which disk.
        place: String,
    },
    /// The other worker.
    Link(LinkError),
    /// The stream ended before the snapshot did.
    Cut {
        /// Entries that came.
        got: u64,
        /// Entries announced.
        expected: u64,
    },
    /// The state could not be read or written, or an entry does not verify.
    Store(StoreError),
    /// There is no thread for it.
    Thread(std::io::Error),
    /// The worker is ending.
    Stopping,
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotError::NoRoom { needed, free, place } => write!(
                f,
                "the copy of the state needs {}, {place} has {}; nothing was changed and the old release serves on. \
                 Free some space and try again",
                Size(*needed),
                Size(*free)
            ),
            SnapshotError::Link(error) => write!(f, "the state did not come over: {error}"),
            SnapshotError::Cut { got, expected } => {
                write!(f, "the state did not come over whole: {got} entries of {expected}")
            }
            SnapshotError::Store(error) => write!(f, "the state could not be copied: {error}"),
            SnapshotError::Thread(error) => write!(f, "no thread for copying the state: {error}"),
            SnapshotError::Stopping => f.write_str("the worker is stopping"),
        }
    }
}

impl std::error::Error for SnapshotError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SnapshotError::Link(error) => Some(error),
            SnapshotError::Store(error) => Some(error),
            SnapshotError::Thread(error) => Some(error),
            SnapshotError::NoRoom { .. } | SnapshotError::Cut { .. } | SnapshotError::Stopping => None,
        }
    }
}

impl From<StoreError> for SnapshotError {
    fn from(error: StoreError) -> SnapshotError {
        SnapshotError::Store(error)
    }
}

/// Bytes, for people: `3.1 GB`.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes @ 0..1_000 => write!(f, "{bytes} bytes"),
            bytes @ 1_000..1_000_000 => write!(f, "{:.1} kB", bytes as f64 / 1e3),
            bytes @ 1_000_000..1_000_000_000 => write!(f, "{:.1} MB", bytes as f64 / 1e6),
            bytes => write!(f, "{:.1} GB", bytes as f64 / 1e9),
        }
    }
}

/// What [`Note::Opened`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The snapshot's term and sequence.
    pub position: Position,
    /// Where the holder's chunk files are.
    pub generation: Generation,
    /// Entries.
    pub entries: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Bytes of it that are copied.
    pub copied: u64,
}

/// How far the taking in has come; read by whoever reports.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of content taken in.
    pub done: AtomicU64,
    /// Bytes announced.
    pub total: AtomicU64,
}

/// Sends it: the announcement, then everything. `requests` changes with each request that is served.
///
/// # Errors
/// The link is closed, or the state cannot be read.
pub async fn send(
    talk: Talk,
    opened: Opened,
    generation: Generation,
    requests: watch::Receiver<usize>,
) -> Result<(), SnapshotError> {
    let totals = opened.snapshot.totals();
    let note = Note::Opened {
        term: opened.term,
        sequence: opened.snapshot.position().sequence,
        generation,
        entries: totals.entries(),
        bytes: totals.bytes(),
        copied: totals.copied(),
    };
    talk.note(&note).await.map_err(SnapshotError::Link)?;
    let sending = background::spawn("snapshot", move || stream(&talk.bulk, &opened, requests));
    sending.map_err(SnapshotError::Thread)?.await.map_err(|_| SnapshotError::Stopping)?
}

/// While clients are served, it rests most of the time, and with it all who wait for what it sends: the
/// other worker, which takes in and sorts, cannot know of them.
fn stream(
    bulk: &mpsc::Sender<Part>,
    opened: &Opened,
    mut requests: watch::Receiver<usize>,
) -> Result<(), SnapshotError> {
    let closed = |_| SnapshotError::Link(LinkError::Closed);
    let (mut batch, mut size, mut entries, mut pace) = (Vec::new(), 0, 0, Pace::default());
    for entry in opened.snapshot.entries() {
        let entry = entry?;
        size += match &entry {
            Operation::Store { content, .. } | Operation::Append { content, .. } => content.len(),
            Operation::Link { .. } | Operation::Mark { .. } => 0,
        };
        batch.push(entry);
        entries += 1;
        if size >= BATCH_BYTES || batch.len() >= BATCH_ENTRIES {
            size = 0;
            // An error: nobody is served any more.
            if requests.has_changed().unwrap_or(false) {
                requests.mark_unchanged();
                pace.rest();
            }
            bulk.blocking_send(Part::Entries(std::mem::take(&mut batch))).map_err(closed)?;
        }
    }
    if !batch.is_empty() {
        bulk.blocking_send(Part::Entries(batch)).map_err(closed)?;
    }
    bulk.blocking_send(Part::End { entries }).map_err(closed)
}

/// Takes it in, on a thread that may block. The generation is then durable and stands at the snapshot.
///
/// # Errors
/// Any [`SnapshotError`]; the generation is then good for nothing.
pub fn take_in(
    mut writer: Writer,
    announced: Announced,
    mut parts: mpsc::Receiver<Part>,
    progress: &Arc<Progress>,
    (faults, script): (&Faults, &Script),
    runtime: &tokio::runtime::Handle,
) -> Result<Writer, SnapshotError> {
    progress.total.store(announced.bytes, Ordering::Relaxed);
    let needed = room_for(announced.copied, announced.entries);
    let store = writer.store().clone();
    let free = store.free().map_err(|error| SnapshotError::Store(error.into()))?;
    if free < needed {
        let place = store.state().path().display().to_string();
        return Err(SnapshotError::NoRoom { needed, free, place });
    }
    let mut ingest = writer.ingest()?;
    loop {
        let part = parts.blocking_recv();
        runtime.block_on(async {
            faults.at_sync().await;
            script.pass(Step::Sync, Place::Before).await;
        });
        match part {
            Some(Part::Entries(entries)) => {
                for entry in &entries {
                    ingest.push(entry, announced.generation)?;
                    let bytes = match entry {
                        Operation::Store { content, .. } | Operation::Append { content, .. } => {
                            content.len() as u64
                        }
                        Operation::Link { length, .. } => u64::from(*length),
                        Operation::Mark { .. } => 0,
                    };
                    progress.done.fetch_add(bytes, Ordering::Relaxed);
                }
            }
            // What was announced is an estimate of the holder's, for room and progress.
            Some(Part::End { entries }) if entries == ingest.received() => break,
            Some(Part::End { .. } | Part::Credit { .. } | Part::Request { .. } | Part::Answer { .. })
            | None => {
                return Err(SnapshotError::Cut { got: ingest.received(), expected: announced.entries });
            }
        }
    }
    let received = ingest.received();
    let totals = ingest.finish(announced.position)?;
    if totals.entries() != received {
        return Err(SnapshotError::Cut { got: totals.entries(), expected: received });
    }
    Ok(writer)
}

/// Bytes of disk that taking a state in needs: records and entries of logs are copied, chunk files linked.
pub fn room(totals: &Totals) -> u64 {
    room_for(totals.copied(), totals.entries())
}

/// What is copied lies there twice while it is being sorted.
fn room_for(copied: u64, entries: u64) -> u64 {
    copied
        .saturating_mul(2)
        .saturating_add(entries.saturating_mul(ENTRY))
        .saturating_add(StoreOptions::KEEP_FREE)
}

impl Announced {
    /// What the note says, if it is the announcement.
    pub fn from_note(note: &Note) -> Option<Announced> {
        match *note {
            Note::Opened { term, sequence, generation, entries, bytes, copied } => {
                let position = position(term, sequence);
                Some(Announced { position, generation, entries, bytes, copied })
            }
            Note::Written { .. } | Note::Applied { .. } | Note::Yield { .. } | Note::Took { .. } => None,
        }
    }
}

fn position(term: Term, sequence: Sequence) -> Position {
    Position { term, sequence }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn what_is_missing_is_said_in_both_figures() {
        let text = SnapshotError::NoRoom { needed: 3_100_000_000, free: 1_200_000, place: "/state".into() }
            .to_string();
        assert!(text.contains("needs 3.1 GB") && text.contains("has 1.2 MB"), "{text}");
    }
}

//! Filling an empty generation with a snapshot, from entries in any order, in bounded memory.
//!
//! ```text
//! entries ──link──▶ sorted runs (at most twice 16 MiB in memory, the rest in files)
//! finish: the runs merged into one table after the other ▶ everything synced ▶ the position is written
//! ```
//!
//! The rows are sorted for this generation's own layout, because the sender may have another; an entry
//! that comes twice counts once. They go into the database in one piece: in many pieces it would merge
//! them itself, with threads that compete with the traffic, and make its writer wait when there are too
//! many. The position is written last: a generation whose filling was interrupted says sequence 0.
//! Nothing may be applied from a logbook before `finish`: rows that are ingested count as newer than
//! rows that were written before it.

use std::panic::resume_unwind;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::{fs, thread};

use bumpless_os::background::Pace;
use bumpless_os::{background, disk};
use bumpless_shared::control::Generation;
use bumpless_shared::operation::Operation;
use fjall::PersistMode;

use super::chunks::Check;
use super::directory::{FileError, remove_tree};
use super::runs::{Rows, Runs};
use super::store::{Head, Position, Totals, Writer};
use super::store_error::StoreError;

/// Memory for rows that wait to be sorted, in bytes; and as much for those that are being sorted.
const RUN: usize = 16 << 20;

/// So many bytes of rows go into the database before their writing to the disk is begun.
const BEHIND: usize = 1 << 20;

/// Rows that are handed from merging to writing at once.
const BATCH: usize = 256;

/// Batches that merging may be ahead of writing.
const AHEAD: usize = 8;

/// So many rows are written between two looks at whether others want the processor.
const PACED: usize = 64;

/// A generation that is being filled.
pub struct Ingest<'a> {
    writer: &'a mut Writer,
    /// One for each keyspace.
    runs: Vec<Runs>,
    received: u64,
}

impl<'a> Ingest<'a> {
    pub(super) fn new(writer: &'a mut Writer) -> Result<Ingest<'a>, FileError> {
        let store = writer.store();
        let folder = store.state().runs(store.generation());
        disk::create_dir(&folder).map_err(FileError::at("make", &folder))?;
        let places = 0..store.shelves().all().len();
        let runs = places.map(|place| Runs::new(folder.join(place.to_string()))).collect();
        Ok(Ingest { writer, runs, received: 0 })
    }

    /// Takes one entry of the snapshot of generation `from`; a chunk file is linked. Anything malformed
    /// is an error, and the generation is then good for nothing but removal.
    ///
    /// Contents are not held against their names here: the state hashes are about what is stored on
    /// both sides, reading looks at each content, and a link is the very file that the sender has. So a
    /// node with terabytes need not read them to be upgraded, and a content that is damaged is no more
    /// and no less than damaged afterwards.
    pub fn push(&mut self, entry: &Operation, from: Generation) -> Result<(), StoreError> {
        entry.check().map_err(|error| StoreError::BadEntry { reason: error.to_string() })?;
        match entry {
            Operation::Store { .. } => {}
            Operation::Link { name, length } => {
                self.writer.store().link_chunk(from, *name, *length, Check::Length)?;
            }
            // Its name follows from what it is; that indexes fit together the state hash shows.
            Operation::Append { .. } => {}
            Operation::Mark { .. } => {
                return Err(StoreError::BadEntry { reason: "a mark in a snapshot".to_owned() });
            }
        }
        self.received += 1;
        for (place, key, value) in self.writer.store().shelves().rows_for(entry) {
            self.runs[place].push(&key, &value)?;
        }
        if self.runs.iter().map(Runs::size).sum::<usize>() >= RUN {
            for runs in &mut self.runs {
                runs.spill()?;
            }
        }
        Ok(())
    }

    /// Entries taken so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Ends the filling: everything is durable when it returns, and the state stands at the
    /// snapshot's position. Returns what went in.
    pub fn finish(self, position: Position) -> Result<Totals, StoreError> {
        let Ingest { writer, runs, .. } = self;
        let mut totals = Totals::default();
        for (place, runs) in runs.into_iter().enumerate() {
            fill(writer, place, runs, &mut totals)?;
        }
        let store = writer.store();
        remove_tree(&store.state().runs(store.generation()))?;
        writer.commit_head(&[], Head { position, floor: 0, totals }, PersistMode::SyncAll)?;
        writer.persist()?;
        Ok(totals)
    }
}

/// Merging and writing go side by side, each on a processor if nobody else wants them: nobody is served by
/// this worker meanwhile, but by the one beside it.
fn fill(writer: &Writer, place: usize, runs: Runs, totals: &mut Totals) -> Result<(), StoreError> {
    let (batches, rows) = mpsc::sync_channel(AHEAD);
    // Written ones come back: memory that one thread asks for and another one gives back has both wait.
    let (written, spent) = mpsc::channel::<Rows>();
    thread::scope(|scope| {
        let merging = scope.spawn(move || {
            let (mut merged, mut pace) = (runs.merge()?, Pace::default());
            loop {
                pace.give_way();
                let mut batch = spent.try_recv().unwrap_or_default();
                batch.clear();
                merged.take(BATCH, &mut batch)?;
                // Nobody takes them any more when writing failed, which says why.
                if batch.is_empty() || batches.send(batch).is_err() {
                    return Ok::<(), FileError>(());
                }
            }
        });
        // When merging fails, what came before goes in, and the error out: the generation is then good
        // for nothing but removal.
        let done = write(writer, place, &rows, &written, totals);
        drop(rows);
        let merged = merging.join().unwrap_or_else(|panic| resume_unwind(panic));
        done.and(merged.map_err(StoreError::from))
    })
}

fn write(
    writer: &Writer,
    place: usize,
    batches: &Receiver<Rows>,
    written: &Sender<Rows>,
    totals: &mut Totals,
) -> Result<(), StoreError> {
    let failed = |source| StoreError::Database { doing: "take a snapshot in", source };
    let Ok(mut batch) = batches.recv() else { return Ok(()) };
    let shelves = writer.store().shelves();
    let keyspace = shelves.all()[place];
    let tables = keyspace.path().join("tables");
    let mut ingestion = keyspace.start_ingestion().map_err(failed)?;
    let (mut behind, mut pace) = (0, Pace::default());
    loop {
        for (number, (key, value)) in batch.iter().enumerate() {
            if number.is_multiple_of(PACED) {
                pace.give_way();
            }
            behind += key.len() + value.len();
            if behind >= BEHIND {
                behind = 0;
                write_behind(&tables);
            }
            let counted = shelves.tally(place, value);
            totals.add(counted.map_err(|bad| writer.store().explain_row("take a snapshot in", bad.into()))?);
            // The database panics on a key that does not rise; these do.
            ingestion.write(key, value).map_err(failed)?;
        }
        // Merging may have ended meanwhile, and needs none any more.
        let _ = written.send(batch);
        let Ok(next) = batches.recv() else { break };
        batch = next;
    }
    ingestion.finish().map_err(failed)
}

/// The database syncs each table of 64 MB when it is whole, and whoever syncs an acknowledgement then
/// would wait for all of it.
fn write_behind(tables: &Path) {
    let Ok(entries) = fs::read_dir(tables) else { return };
    let number = |entry: &fs::DirEntry| entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
    let newest = entries.flatten().filter_map(|entry| Some((number(&entry)?, entry.path()))).max();
    if let Some((_, path)) = newest {
        // It would only have been the smoother for it.
        let _ = background::write_behind(&path);
    }
}

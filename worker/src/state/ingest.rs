//! Filling an empty generation with a snapshot, from entries in any order, in bounded memory.
//!
//! ```text
//! entries ──check, link──▶ a run in memory (at most 16 MiB) ──sort──▶ one table in the database
//!                          … run after run …
//! finish: everything synced ▶ what is stored is counted ▶ the position is written
//! ```
//!
//! Each run is sorted for this generation's own layout, because the sender may have another; an entry
//! that comes twice counts once. The position is written last: a generation whose filling was
//! interrupted says sequence 0. Nothing may be applied from a logbook before `finish`: rows that are
//! ingested count as newer than rows that were written while the run was open.

use bumpless_shared::control::Generation;
use bumpless_shared::operation::Operation;
use fjall::{PersistMode, UserKey, UserValue};

use super::chunks::Check;
use super::content::name_of;
use super::store::{Head, Position, Totals, Writer};
use super::store_error::StoreError;

/// Memory for rows that wait to be sorted, in bytes.
const RUN: usize = 16 << 20;

/// What a row costs in memory beside its key and value.
const ROW: usize = 96;

/// A generation that is being filled.
pub struct Ingest<'a> {
    writer: &'a mut Writer,
    runs: Vec<Vec<(UserKey, UserValue)>>,
    size: usize,
    received: u64,
}

impl<'a> Ingest<'a> {
    pub(super) fn new(writer: &'a mut Writer) -> Ingest<'a> {
        let runs = writer.store().shelves().all().iter().map(|_| Vec::new()).collect();
        Ingest { writer, runs, size: 0, received: 0 }
    }

    /// Takes one entry of the snapshot of generation `from`: a record's content is held against its
    /// name, a chunk file is linked. Anything malformed is an error, and the generation is then good
    /// for nothing but removal.
    pub fn push(&mut self, entry: &Operation, from: Generation, check: Check) -> Result<(), StoreError> {
        entry.check().map_err(|error| StoreError::BadEntry { reason: error.to_string() })?;
        match entry {
            Operation::Store { name, content } => {
                let found = name_of(content);
                if found != *name {
                    return Err(StoreError::BadEntry {
                        reason: format!("content that came as {name} hashes to {found}"),
                    });
                }
            }
            Operation::Link { name, length } => {
                self.writer.store().link_chunk(from, *name, *length, check)?;
            }
            Operation::Mark { .. } => {
                return Err(StoreError::BadEntry { reason: "a mark in a snapshot".to_owned() });
            }
        }
        self.received += 1;
        if let Some((place, key, value)) = self.writer.store().shelves().row(entry) {
            self.size += key.len() + value.len() + ROW;
            self.runs[place].push((key, value));
        }
        if self.size >= RUN { self.write_runs() } else { Ok(()) }
    }

    /// Entries taken so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Ends the filling: everything is durable when it returns, and the state stands at the
    /// snapshot's position. Returns what is stored, counted from what is stored.
    pub fn finish(mut self, position: Position) -> Result<Totals, StoreError> {
        self.write_runs()?;
        let mut totals = Totals::default();
        for entry in self.writer.snapshot().entries() {
            totals.count(&entry?);
        }
        self.writer.commit_head(&[], Head { position, floor: 0, totals }, PersistMode::SyncAll)?;
        self.writer.persist()?;
        Ok(totals)
    }

    fn write_runs(&mut self) -> Result<(), StoreError> {
        self.size = 0;
        for (keyspace, run) in self.writer.store().shelves().all().into_iter().zip(&mut self.runs) {
            let mut rows = std::mem::take(run);
            if rows.is_empty() {
                continue;
            }
            rows.sort_by(|(one, _), (two, _)| one.cmp(two));
            // The database panics on a key that does not rise.
            rows.dedup_by(|(one, _), (two, _)| one == two);
            let ingested = keyspace.start_ingestion().and_then(|mut ingestion| {
                for (key, value) in rows {
                    ingestion.write(key, value)?;
                }
                ingestion.finish()
            });
            ingested.map_err(|source| StoreError::Database { doing: "take a snapshot in", source })?;
        }
        Ok(())
    }
}

//! What the storage alone does, without a network: puts with and without a logbook, and links.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bumpless_shared::control::Durability;
use bumpless_shared::operation::Operation;
use bumpless_shared::version::CURRENT;
use bumpless_worker::state::{
    Content, Layout, Position, Prepared, Sequencer, Start, StateDir, StoreOptions, Writer,
};
use serde::Serialize;

use super::figures::Spread;
use crate::content::Contents;
use crate::display::Display;
use crate::world::Result;

/// Writers that wait for their acknowledgement before they write again.
const WRITERS: usize = 64;
/// Bytes of a record.
const RECORD: usize = 200;
/// Each mode is measured for so long, so often.
const TURN: Duration = Duration::from_millis(1500);
const TURNS: u32 = 7;
/// Disk reserved for a logbook, as in the default configuration.
const RESERVE: u64 = 64 << 20;

/// Acknowledged puts per second.
#[derive(Clone, Debug, Serialize)]
pub struct Throughput {
    /// The database alone: steady state.
    pub steady: Spread,
    /// With a logbook for a standby: while syncing.
    pub sync: Spread,
    /// With the logbook as the durable copy: in probation.
    pub probation: Spread,
    /// Sync over steady, of the same turn.
    pub sync_ratio: Spread,
    /// Probation over steady, of the same turn.
    pub probation_ratio: Spread,
}

/// How long chunk files take to be linked into a new generation.
#[derive(Clone, Debug, Serialize)]
pub struct Links {
    /// Files.
    pub files: u64,
    /// Seconds, from the first to the durable end.
    pub seconds: f64,
}

#[derive(Clone, Copy)]
enum Mode {
    Steady,
    Sync,
    Probation,
}

/// Measures the three modes in turn.
///
/// # Errors
/// The disk.
pub async fn throughput(display: &mut Display) -> Result<Throughput> {
    let (mut steady, mut sync, mut probation) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..TURNS {
        display.update(&format!("turn {} of {TURNS}", turn + 1));
        for (mode, rates) in
            [(Mode::Steady, &mut steady), (Mode::Sync, &mut sync), (Mode::Probation, &mut probation)]
        {
            rates.push(rate(mode, u64::from(turn)).await?);
        }
    }
    let ratios = |rates: &[f64]| {
        let ratios = rates.iter().zip(&steady).map(|(rate, steady)| rate / steady);
        Spread::of(ratios.collect())
    };
    Ok(Throughput {
        sync_ratio: ratios(&sync),
        probation_ratio: ratios(&probation),
        steady: Spread::of(steady),
        sync: Spread::of(sync),
        probation: Spread::of(probation),
    })
}

async fn rate(mode: Mode, seed: u64) -> Result<f64> {
    let folder = folder()?;
    let directory = StateDir::new(folder.path());
    let writer = Writer::create(&directory, 1, Layout::ByName, options(Durability::Fsync))?;
    let sequencer = match mode {
        Mode::Steady | Mode::Sync => Sequencer::start(writer, Start::Holding { term: 1 })?.0,
        Mode::Probation => Sequencer::start(writer, Start::Following)?.0,
    };
    match mode {
        Mode::Steady => {}
        Mode::Sync => drop(sequencer.open_logbook(CURRENT).await?),
        Mode::Probation => {
            let prepared = Prepared::make(&directory, 1, 1, 1, RESERVE, CURRENT)?;
            sequencer.take(prepared, 0).await?;
        }
    }
    let (contents, next) = (Contents::of_length(seed, RECORD), Arc::new(AtomicU64::new(0)));
    let begun = Instant::now();
    let writers = (0..WRITERS).map(|_| {
        let (sequencer, next) = (sequencer.clone(), Arc::clone(&next));
        tokio::spawn(async move {
            let mut done = 0u64;
            while begun.elapsed() < TURN {
                let content = contents.get(next.fetch_add(1, Ordering::Relaxed));
                let content = Content::new(content).map_err(|error| error.to_string())?;
                sequencer.put(&Arc::new(content)).await.map_err(|error| error.to_string())?;
                done += 1;
            }
            Ok::<u64, String>(done)
        })
    });
    let mut done = 0;
    for writer in writers.collect::<Vec<_>>() {
        done += writer.await??;
    }
    let rate = done as f64 / begun.elapsed().as_secs_f64();
    sequencer.stop().await?;
    Ok(rate.round())
}

/// Links these numbers of chunk files from one generation into another.
///
/// # Errors
/// The disk.
pub fn links(display: &mut Display, counts: &[u64]) -> Result<Vec<Links>> {
    counts.iter().map(|files| link(display, *files)).collect()
}

fn link(display: &mut Display, files: u64) -> Result<Links> {
    let folder = folder()?;
    let directory = StateDir::new(folder.path());
    // How they came to be is not measured, so nobody waits for the disk.
    let from = Writer::create(&directory, 1, Layout::ByName, options(Durability::Os))?;
    let contents = Contents::of_length(files, 4097);
    let mut names = Vec::new();
    for number in 0..files {
        let content = Content::new(contents.get(number))?;
        from.store().stage_chunk(&content)?;
        names.push(content.name());
        if number.is_multiple_of(1000) {
            display.update(&format!("{number} of {files} files are made"));
        }
    }
    display.update(&format!("{files} files are linked"));
    let mut to = Writer::create(&directory, 2, Layout::ByKind, options(Durability::Fsync))?;
    let begun = Instant::now();
    let mut ingest = to.ingest()?;
    for name in names {
        ingest.push(&Operation::Link { name, length: 4097 }, 1)?;
    }
    ingest.finish(Position { term: 1, sequence: files })?;
    Ok(Links { files, seconds: (begun.elapsed().as_secs_f64() * 1e4).round() / 1e4 })
}

fn folder() -> std::io::Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix("bumpless-storage-").tempdir()
}

fn options(durability: Durability) -> StoreOptions {
    StoreOptions { durability, keep_free: StoreOptions::KEEP_FREE, version: CURRENT }
}

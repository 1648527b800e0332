//! Filling a node before it is measured: records in bulk, into the database of a node that is stopped,
//! because a million puts would take many minutes; chunk files as a client stores them.

use std::path::Path;

use bumpless_shared::control::Durability;
use bumpless_shared::operation::Operation;
use bumpless_shared::version::CURRENT;
use bumpless_worker::client::Client;
use bumpless_worker::state::{Content, Layout, Position, StateDir, StoreOptions, Writer};
use tokio::task::JoinSet;

use crate::content::Contents;
use crate::display::Display;
use crate::world::Result;

/// Chunk files that are stored at a time.
const AT_ONCE: usize = 8;
/// Bytes of a chunk file.
pub const CHUNK: usize = 500_000;

/// Makes the node's generation anew, with the first `count` contents in it as records.
///
/// # Errors
/// The state is not that of a node that was started once and stopped.
pub fn records(state_dir: &Path, contents: Contents, count: u64, display: &mut Display) -> Result<()> {
    let directory = StateDir::new(state_dir.join("state"));
    let options =
        StoreOptions { durability: Durability::Fsync, keep_free: StoreOptions::KEEP_FREE, version: CURRENT };
    let generations = directory.list_generations()?;
    let [generation] = generations[..] else {
        return Err(format!("one generation was expected: {generations:?}").into());
    };
    let before = Writer::open(&directory, generation, options)?.store().position();
    std::fs::remove_dir_all(directory.generation(generation))?;
    let mut writer = Writer::create(&directory, generation, Layout::ByName, options)?;
    let mut ingest = writer.ingest()?;
    for number in 0..count {
        let content = Content::new(contents.get(number))?;
        let entry = Operation::Store { name: content.name(), content: content.into_bytes() };
        ingest.push(&entry, generation)?;
        if number.is_multiple_of(10_000) {
            display.update(&format!("{number} of {count} records"));
        }
    }
    ingest.finish(Position { term: before.term, sequence: before.sequence + count })?;
    Ok(())
}

/// Stores so many megabytes of chunk files.
///
/// # Errors
/// A put that was not acknowledged.
pub async fn chunks(client: &Client, seed: u64, megabytes: u64, display: &mut Display) -> Result<()> {
    let contents = Contents::of_length(seed, CHUNK);
    let count = megabytes * 1_000_000 / CHUNK as u64;
    let mut puts = JoinSet::new();
    for number in 0..count {
        if puts.len() >= AT_ONCE
            && let Some(done) = puts.join_next().await
        {
            done??;
        }
        let client = client.clone();
        puts.spawn(async move { client.put(&contents.get(number)).await.map(|_| ()) });
        display.amount(number * CHUNK as u64, Some(count * CHUNK as u64));
    }
    while let Some(done) = puts.join_next().await {
        done??;
    }
    Ok(())
}

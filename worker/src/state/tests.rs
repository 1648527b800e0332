//! The storage as a whole, on real files.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod appends;
mod full_disk;
mod logbook;
mod pair;
mod power;
mod recovery;
mod sequencer;
mod store;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bumpless_shared::control::{Durability, Sequence};
use bumpless_shared::operation::Operation;
use bumpless_shared::version::CURRENT;
use tempfile::TempDir;

use super::*;

const OPTIONS: StoreOptions = StoreOptions { durability: Durability::Fsync, keep_free: 0, version: CURRENT };

fn state() -> (TempDir, StateDir) {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::new(directory.path().join("state"));
    (directory, state)
}

/// Content of `length` bytes that no other number has.
fn content(number: u64, length: usize) -> Arc<Content> {
    let bytes = number.to_le_bytes().into_iter().cycle().take(length.max(8)).collect();
    Arc::new(Content::new(bytes).unwrap())
}

fn store_operation(content: &Content) -> Operation {
    Operation::Store { name: content.name(), content: content.bytes().to_vec() }
}

/// A holder of term 1 on a new generation.
fn holder(state: &StateDir, generation: u64, layout: Layout) -> Sequencer {
    let writer = Writer::create(state, generation, layout, OPTIONS).unwrap();
    Sequencer::start(writer, Start::Holding { term: 1 }).unwrap().0
}

/// The other one: another generation, another layout, filled from the snapshot, following nothing yet.
fn candidate(state: &StateDir, generation: u64, layout: Layout, snapshot: &Snapshot, from: u64) -> Sequencer {
    let mut writer = Writer::create(state, generation, layout, OPTIONS).unwrap();
    let mut ingest = writer.ingest().unwrap();
    for entry in snapshot.entries() {
        ingest.push(&entry.unwrap(), from).unwrap();
    }
    assert_eq!(ingest.finish(snapshot.position()).unwrap(), snapshot.totals());
    Sequencer::start(writer, Start::Following).unwrap().0
}

async fn hash(sequencer: &Sequencer) -> StateHash {
    sequencer.snapshot().await.unwrap().hash().unwrap()
}

/// Everything in a logbook, read as its operations, up to where it is caught up.
fn operations(state: &StateDir, term: u64, next: Sequence) -> Vec<(Sequence, Operation)> {
    let mut reader = LogReader::new(state, term, next);
    let mut operations = Vec::new();
    loop {
        match reader.next().unwrap() {
            Item::Record(record) => {
                operations
                    .push((record.sequence, Operation::decode(record.payload(), record.format).unwrap()));
            }
            Item::CaughtUp => return operations,
            Item::Damaged(damage) => panic!("{damage}"),
        }
    }
}

/// The files as another process would find them if this one were killed now.
fn image(state: &StateDir) -> (TempDir, StateDir) {
    let directory = tempfile::tempdir().unwrap();
    let copy = StateDir::new(directory.path().join("state"));
    copy_tree(state.path(), copy.path());
    (directory, copy)
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

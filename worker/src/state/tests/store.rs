use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::*;

/// Records of all lengths and a few chunk files, as a snapshot's entries, in a holder of generation 1.
async fn filled(state: &StateDir, layout: Layout, records: u64) -> Sequencer {
    let sequencer = holder(state, 1, layout);
    for number in 0..records {
        sequencer.put(&content(number, (number as usize * 37) % 4096)).await.unwrap();
    }
    for number in 0..5 {
        sequencer.put(&content(1 << 40 | number, 5000 + number as usize)).await.unwrap();
    }
    sequencer
}

#[tokio::test]
async fn two_layouts_hold_the_same_content_in_another_order_and_hash_the_same() {
    let (_directory, state) = state();
    let first = filled(&state, Layout::ByName, 200).await;
    let snapshot = first.snapshot().await.unwrap();
    let second = candidate(&state, 2, Layout::ByKind, &snapshot, 1);
    let third = candidate(&state, 3, Layout::ByName, &second.snapshot().await.unwrap(), 2);
    assert_ne!(hash(&first).await, StateHash::EMPTY);
    assert_eq!(hash(&first).await, hash(&second).await);
    assert_eq!(hash(&first).await, hash(&third).await);
    assert_eq!(first.store().totals(), second.store().totals());
    assert_eq!(first.store().totals().entries(), 205);
    let names = |snapshot: &Snapshot| -> Vec<Operation> { snapshot.entries().map(Result::unwrap).collect() };
    let (mut one, mut two) = (names(&snapshot), names(&second.snapshot().await.unwrap()));
    assert_ne!(one, two, "the orders differ");
    let key = |operation: &Operation| format!("{operation:?}");
    one.sort_by_key(key);
    two.sort_by_key(key);
    assert_eq!(one, two);
    for entry in one {
        let (Operation::Store { name, .. } | Operation::Link { name, .. }) = entry else { panic!() };
        let bytes = first.store().get(name).unwrap().unwrap();
        assert_eq!(second.store().get(name).unwrap().unwrap(), bytes);
        assert_eq!(third.store().get(name).unwrap().unwrap(), bytes);
    }
    assert_eq!(first.store().get(name_of(b"never stored")).unwrap(), None);
}

#[test]
fn entries_in_any_order_and_more_than_once_fill_a_generation_in_several_runs() {
    let (_directory, state) = state();
    // More than one run of 16 MiB.
    let mut entries: Vec<Operation> =
        (0..6000).map(|number| store_operation(&content(number, 4096))).collect();
    let mut writer = Writer::create(&state, 1, Layout::ByName, OPTIONS).unwrap();
    let mut ingest = writer.ingest().unwrap();
    entries.iter().for_each(|entry| ingest.push(entry, 9).unwrap());
    let totals = ingest.finish(Position { term: 3, sequence: 70 }).unwrap();
    let sorted = writer.snapshot().hash().unwrap();

    entries.extend_from_slice(&entries.clone()[..3000]);
    entries.shuffle(&mut StdRng::seed_from_u64(7));
    let mut writer = Writer::create(&state, 2, Layout::ByKind, OPTIONS).unwrap();
    let mut ingest = writer.ingest().unwrap();
    entries.iter().for_each(|entry| ingest.push(entry, 9).unwrap());
    assert_eq!(ingest.received(), 9000);
    assert_eq!(ingest.finish(Position { term: 3, sequence: 70 }).unwrap(), totals);
    assert_eq!(totals.entries(), 6000);
    assert_eq!(writer.snapshot().hash().unwrap(), sorted);

    // All of it is there for the next process, too, and what is written afterwards is newer.
    drop(writer);
    let mut writer = Writer::open(&state, 2, OPTIONS).unwrap();
    assert_eq!(writer.store().position(), Position { term: 3, sequence: 70 });
    assert_eq!((writer.store().totals(), writer.store().floor()), (totals, 70));
    assert_eq!(writer.snapshot().hash().unwrap(), sorted);
    assert!(matches!(writer.ingest().map(drop), Err(StoreError::NotEmpty { generation: 2 })));
}

#[test]
fn an_entry_that_is_not_what_it_says_ends_the_filling() {
    let (_directory, state) = state();
    let mut writer = Writer::create(&state, 1, Layout::ByName, OPTIONS).unwrap();
    let mut ingest = writer.ingest().unwrap();
    let one = content(1, 10);
    for entry in [
        Operation::Store { name: one.name(), content: vec![0; 5000] },
        Operation::Link { name: one.name(), length: 10 },
        Operation::Link { name: one.name(), length: 5000 },
        Operation::Mark { id: 1 },
    ] {
        assert!(ingest.push(&entry, 1).is_err(), "{entry:?}");
    }
}

#[test]
fn content_that_is_not_what_its_name_says_is_found_by_the_state_hashes() {
    let (_directory, state) = state();
    let (one, two) = (content(1, 10), content(2, 10));
    let hash_of = |generation, bytes: &[u8]| {
        let mut writer = Writer::create(&state, generation, Layout::ByName, OPTIONS).unwrap();
        let mut ingest = writer.ingest().unwrap();
        ingest.push(&Operation::Store { name: one.name(), content: bytes.to_vec() }, 9).unwrap();
        ingest.finish(Position { term: 1, sequence: 1 }).unwrap();
        let hash = writer.snapshot().hash().unwrap();
        (hash, writer.store().get(one.name()).ok().flatten())
    };
    let right = hash_of(1, one.bytes());
    assert_eq!(right.1.as_deref(), Some(one.bytes()));
    let wrong = hash_of(2, two.bytes());
    assert_ne!(wrong.0, right.0);
    assert_eq!(wrong.1, None, "it is never served");
}

#[test]
fn a_generation_is_made_once_and_opened_only_whole() {
    let (_directory, state) = state();
    // Remains of a try that ended half-way do not matter.
    fs::create_dir_all(state.path().join("gen-1.making/db")).unwrap();
    let writer = Writer::create(&state, 1, Layout::ByName, OPTIONS).unwrap();
    assert!(matches!(Writer::create(&state, 1, Layout::ByName, OPTIONS), Err(StoreError::Exists { .. })));
    assert!(matches!(Writer::open(&state, 1, OPTIONS), Err(StoreError::Locked { generation: 1 })));
    drop(writer);
    assert!(matches!(Writer::open(&state, 2, OPTIONS), Err(StoreError::Missing { .. })));

    let marker = state.generation(1).join("generation");
    let says = fs::read_to_string(&marker).unwrap();
    assert_eq!(says, "bumpless generation 1\nlayout 1\n");
    fs::write(&marker, "bumpless generation 1\nlayout 3\n").unwrap();
    assert!(matches!(Writer::open(&state, 1, OPTIONS), Err(StoreError::UnknownLayout { generation: 1, .. })));
    // Saying another layout than it has does not turn it into one.
    fs::write(&marker, "bumpless generation 1\nlayout 2\n").unwrap();
    assert!(matches!(Writer::open(&state, 1, OPTIONS), Err(StoreError::Damaged { .. })));
    fs::write(&marker, says).unwrap();
    drop(Writer::open(&state, 1, OPTIONS).unwrap());
    fs::rename(state.generation(1).join("db"), state.path().join("elsewhere")).unwrap();
    assert!(matches!(Writer::open(&state, 1, OPTIONS), Err(StoreError::Missing { .. })));
    assert!(!state.generation(1).join("db").exists(), "no new database in its place");
}

#[tokio::test]
async fn wrong_content_is_an_error_and_other_names_are_not_affected() {
    let (_directory, state) = state();
    for layout in [Layout::ByName, Layout::ByKind] {
        let generation = u64::from(layout.number());
        let mut writer = Writer::create(&state, generation, layout, OPTIONS).unwrap();
        let (one, two) = (content(1, 10), content(2, 10));
        let wrong = Operation::Store { name: one.name(), content: two.bytes().to_vec() };
        let position = Position { term: 1, sequence: 2 };
        writer
            .commit(&[wrong, store_operation(&two)], position, super::super::store::Commit::Synced)
            .unwrap();
        let sequencer = Sequencer::start(writer, Start::Holding { term: 2 }).unwrap().0;
        let long = content(3, 6000);
        sequencer.put(&long).await.unwrap();
        let file = state.chunks(generation).join(long.name().to_string());
        fs::remove_file(&file).unwrap();
        let store = sequencer.store();
        assert!(matches!(store.get(long.name()), Err(ReadError::Chunk { .. })));
        fs::write(&file, vec![0; 6000]).unwrap();
        assert!(matches!(store.get(long.name()), Err(ReadError::WrongContent { .. })));
        assert!(
            matches!(store.get(one.name()), Err(ReadError::WrongContent { found, .. }) if found == two.name())
        );
        assert_eq!(store.get(two.name()).unwrap().unwrap(), two.bytes());
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    for layout in [Layout::ByName, Layout::ByKind] {
        let (_directory, state) = state();
        let sequencer = filled(&state, layout, 300).await;
        let (_copy, killed) = image(&state);
        let (writer, recovered) = recover(&killed, 1, OPTIONS).unwrap();
        assert_eq!(recovered.position, Position { term: 1, sequence: 305 });
        assert_eq!(writer.store().totals(), sequencer.store().totals());
        assert_eq!(writer.snapshot().hash().unwrap(), hash(&sequencer).await);
    }
}

#[tokio::test]
async fn a_snapshot_does_not_see_what_is_written_after_it() {
    let (_directory, state) = state();
    let sequencer = filled(&state, Layout::ByKind, 50).await;
    let snapshot = sequencer.snapshot().await.unwrap();
    let before = snapshot.hash().unwrap();
    for number in 1000..2000 {
        sequencer.put(&content(number, 100)).await.unwrap();
    }
    assert_eq!(snapshot.hash().unwrap(), before);
    assert_eq!(snapshot.entries().count() as u64, snapshot.totals().entries());
    assert_ne!(hash(&sequencer).await, before);
}

//! Logs that are appended to: once each, in one order, whatever happens.

use bumpless_shared::digest::Digest;
use bumpless_shared::operation::NONCE;

use super::super::store::{Commit, PAGE_BYTES, PAGE_ENTRIES};
use super::*;

const LAYOUTS: [Layout; 2] = [Layout::ByName, Layout::ByKind];

/// What is known to a release that knows nothing of appends.
const EARLIER: StoreOptions = StoreOptions { version: 1, ..OPTIONS };

fn log(number: u8) -> Digest {
    Digest([number; 32])
}

fn nonce(number: u64) -> [u8; NONCE] {
    let mut nonce = [0; NONCE];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    nonce
}

fn append(to: u8, number: u64) -> Arc<Append> {
    Arc::new(Append::new(log(to), nonce(number), number.to_le_bytes().to_vec()).unwrap())
}

fn operation(to: u8, number: u64, index: u64) -> Operation {
    Operation::Append { log: log(to), nonce: nonce(number), index, content: number.to_le_bytes().to_vec() }
}

fn numbers(store: &Store, to: u8) -> Vec<u64> {
    let page = store.read_log(log(to), 0).unwrap();
    assert_eq!(page.length, page.entries.len() as u64);
    page.entries.iter().map(|entry| u64::from_le_bytes(entry[..].try_into().unwrap())).collect()
}

/// Ten entries in each of three logs, among records.
async fn filled(state: &StateDir, layout: Layout) -> Sequencer {
    let sequencer = holder(state, 1, layout);
    for number in 0..30 {
        sequencer.put(&content(number, 100)).await.unwrap();
        assert_eq!(sequencer.append(&append((number % 3) as u8, number)).await, Ok(number / 3));
    }
    sequencer
}

#[tokio::test]
async fn a_retry_gets_the_first_answer_and_another_append_of_the_same_content_the_next_index() {
    for layout in LAYOUTS {
        let (_directory, state) = state();
        let sequencer = holder(&state, 1, layout);
        for _ in 0..2 {
            assert_eq!(sequencer.append(&append(1, 7)).await, Ok(0));
        }
        let same_content = Append::new(log(1), nonce(8), 7u64.to_le_bytes().to_vec()).unwrap();
        assert_eq!(sequencer.append(&Arc::new(same_content)).await, Ok(1));
        assert_eq!(sequencer.append(&append(2, 7)).await, Ok(0), "another log");
        // Those that wait together, too.
        let tasks: Vec<_> = (0..300)
            .map(|number| {
                let sequencer = sequencer.clone();
                tokio::spawn(
                    async move { (number / 3, sequencer.append(&append(3, number / 3)).await.unwrap()) },
                )
            })
            .collect();
        let mut indexes = vec![None; 100];
        for task in tasks {
            let (number, index) = task.await.unwrap();
            assert!(indexes[number as usize].is_none_or(|known| known == index));
            indexes[number as usize] = Some(index);
        }
        let read = numbers(sequencer.store(), 3);
        assert_eq!(read.len(), 100);
        assert!(
            indexes.iter().enumerate().all(|(number, index)| read[index.unwrap() as usize] == number as u64)
        );
        // And after a kill.
        let (_copy, killed) = image(&state);
        let (writer, _) = recover(&killed, 1, OPTIONS).unwrap();
        assert_eq!(writer.store().totals(), sequencer.store().totals());
        assert_eq!(writer.snapshot().hash().unwrap(), hash(&sequencer).await);
        let again = Sequencer::start(writer, Start::Holding { term: 2 }).unwrap().0;
        assert_eq!(again.append(&append(1, 7)).await, Ok(0));
        assert_eq!(again.append(&append(1, 9)).await, Ok(2));
    }
}

#[tokio::test]
async fn a_put_of_the_bytes_that_an_appends_id_is_made_of_is_not_that_append() {
    let (_directory, state) = state();
    let sequencer = holder(&state, 1, Layout::ByKind);
    // So many that some wait together, in either order.
    let tasks: Vec<_> = (0..100)
        .map(|number| {
            let twin = [b"bumpless/append/1", &log(1).0[..], &nonce(number), &number.to_le_bytes()].concat();
            let twin = Arc::new(Content::new(twin).unwrap());
            let append = append(1, number);
            assert_eq!(twin.name(), append.id());
            let sequencer = sequencer.clone();
            tokio::spawn(async move {
                let (put, appended) = match number % 2 {
                    0 => tokio::join!(sequencer.put(&twin), sequencer.append(&append)),
                    _ => {
                        let (appended, put) = tokio::join!(sequencer.append(&append), sequencer.put(&twin));
                        (put, appended)
                    }
                };
                assert!(matches!(put, Ok(Stored::New { .. })), "{put:?}");
                appended.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(sequencer.store().position().sequence, 200);
    let mut there = numbers(sequencer.store(), 1);
    there.sort_unstable();
    assert_eq!(there, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_page_has_a_bound_and_the_next_one_goes_on_behind_it() {
    for layout in LAYOUTS {
        let (_directory, state) = state();
        let sequencer = holder(&state, 1, layout);
        for number in 0..100 {
            let long = Append::new(log(1), nonce(number), vec![number as u8; 4096]).unwrap();
            assert_eq!(sequencer.append(&Arc::new(long)).await, Ok(number));
        }
        // Neighbours in the order of the keys.
        sequencer.append(&append(0, 1)).await.unwrap();
        sequencer.append(&append(2, 1)).await.unwrap();
        let mut read = Vec::new();
        let mut pages = 0;
        loop {
            let page = sequencer.store().read_log(log(1), read.len() as u64).unwrap();
            assert_eq!(page.length, 100);
            assert!(page.entries.len() * 4100 <= PAGE_BYTES);
            if page.entries.is_empty() {
                break;
            }
            pages += 1;
            read.extend(page.entries);
        }
        assert!(pages > 1);
        assert!(
            read.len() == 100 && read.iter().enumerate().all(|(at, entry)| *entry == vec![at as u8; 4096])
        );
        assert_eq!(
            sequencer.store().read_log(log(1), 5000).unwrap(),
            LogPage { length: 100, entries: vec![] }
        );
        assert_eq!(sequencer.store().read_log(log(9), 0).unwrap(), LogPage::default());
        for number in 0..PAGE_ENTRIES as u64 + 1 {
            sequencer.append(&append(5, number)).await.unwrap();
        }
        let page = sequencer.store().read_log(log(5), 0).unwrap();
        assert_eq!((page.length as usize, page.entries.len()), (PAGE_ENTRIES + 1, PAGE_ENTRIES));
    }
}

#[tokio::test]
async fn logs_come_over_whole_into_the_other_layout_and_back_and_hash_the_same() {
    let (_directory, state) = state();
    let first = filled(&state, Layout::ByName).await;
    let opened = first.open_logbook(CURRENT).await.unwrap();
    let second = candidate(&state, 2, Layout::ByKind, &opened.snapshot, 1);
    let third = candidate(&state, 3, Layout::ByName, &second.snapshot().await.unwrap(), 2);
    assert_eq!(hash(&first).await, hash(&second).await);
    assert_eq!(hash(&first).await, hash(&third).await);
    let Totals { records, appends, append_bytes, .. } = third.store().totals();
    assert_eq!((records, appends, append_bytes), (30, 30, 240));
    for store in [first.store(), second.store(), third.store()] {
        for to in 0..3 {
            assert_eq!(numbers(store, to), (0..10).map(|at| at * 3 + u64::from(to)).collect::<Vec<_>>());
        }
    }
    // What the ids are for came over, too: an append that was made is made nowhere again.
    let (follower, _events) = Follower::start(second.clone(), 1).unwrap();
    let prepared = Prepared::make(&state, 2, 2, 1, 4096, CURRENT).unwrap();
    let frozen = first.freeze().await.unwrap();
    follower.finish_at(frozen.sequence).await.unwrap();
    second.take(prepared, frozen.sequence).await.unwrap();
    assert_eq!(second.append(&append(0, 3)).await, Ok(1));
    assert_eq!(second.append(&append(0, 30)).await, Ok(10));
    // One index changed is another state.
    let before = hash(&third).await;
    drop(third);
    let mut writer = Writer::open(&state, 3, OPTIONS).unwrap();
    let position = Position { sequence: 100, ..writer.store().position() };
    writer.commit(&[operation(7, 1, 0)], position, Commit::Synced).unwrap();
    let one = writer.snapshot().hash().unwrap();
    assert_ne!(one, before);
}

/// Steps of a logbook of term 1 with these operations, from sequence 1 on.
fn steps(state: &StateDir, term: u64, operations: &[Operation]) -> Vec<Step> {
    let mut log = Prepared::make(state, term, 9, 1, 1 << 16, CURRENT).unwrap().begin(1);
    let payloads: Vec<_> = operations.iter().map(|operation| operation.encode(CURRENT).unwrap()).collect();
    log.append(&payloads).unwrap();
    let mut reader = LogReader::new(state, term, 1);
    std::iter::from_fn(|| match reader.next().unwrap() {
        Item::Record(record) => Some(Step::Record(record)),
        Item::CaughtUp | Item::Damaged(_) => None,
    })
    .collect()
}

#[test]
fn following_appends_twice_changes_nothing_and_a_wrong_index_is_refused() {
    for layout in LAYOUTS {
        let (_directory, state) = state();
        fs::create_dir_all(state.path()).unwrap();
        let mut writer = Writer::create(&state, 1, layout, OPTIONS).unwrap();
        let good = [operation(1, 10, 0), operation(1, 11, 1), operation(2, 10, 0), operation(1, 10, 0)];
        let good = steps(&state, 1, &good);
        let followed = super::super::replay::follow(&mut writer, &good).unwrap();
        assert_eq!((followed.applied, followed.refused.len()), (3, 0), "the fourth is the first again");
        let before = (writer.snapshot().hash().unwrap(), writer.store().totals());
        // The same records under later numbers, in a batch of their own and one by one.
        let mut again = steps(&state, 2, &vec![Operation::Mark { id: 1 }; 4]);
        again.extend(steps(&state, 3, &[operation(1, 10, 0), operation(1, 11, 1), operation(2, 10, 0)]));
        for (place, step) in again.iter_mut().enumerate().skip(4) {
            let Step::Record(record) = step else { panic!() };
            record.sequence = place as u64 + 1;
        }
        let followed = super::super::replay::follow(&mut writer, &again[4..]).unwrap();
        assert_eq!((followed.applied, followed.refused.len(), followed.position.sequence), (0, 0, 7));
        assert_eq!((writer.snapshot().hash().unwrap(), writer.store().totals()), before);

        let bad = [
            operation(1, 10, 2), // is there as entry 0
            operation(1, 12, 1), // the place of another
            operation(1, 12, 3), // leaves one out
            operation(1, 13, 2), // right
            operation(1, 14, 2), // the place of the one before, which is not stored yet
            operation(1, 13, 3), // is there as entry 2, which is not stored yet
            operation(1, 14, 3), // right
        ];
        let mut bad = steps(&state, 4, &bad);
        for (place, step) in bad.iter_mut().enumerate() {
            let Step::Record(record) = step else { panic!() };
            record.sequence = place as u64 + 8;
        }
        let followed = super::super::replay::follow(&mut writer, &bad).unwrap();
        let refused: Vec<_> = followed.refused.iter().map(|refusal| refusal.sequence).collect();
        assert_eq!((followed.applied, refused), (2, vec![8, 9, 10, 12, 13]), "{:?}", followed.refused);
        assert_eq!(numbers(writer.store(), 1), [10, 11, 13, 14]);
    }
}

#[test]
fn whichever_rows_of_an_append_a_power_loss_took_the_logbook_brings_them_back() {
    for layout in LAYOUTS {
        for lost in [[0..6, 6..6], [3..6, 6..6], [6..6, 2..6], [4..6, 2..6], [0..6, 0..6]] {
            let (_directory, state) = state();
            fs::create_dir_all(state.path()).unwrap();
            let mut writer = Writer::create(&state, 1, layout, OPTIONS).unwrap();
            let all: Vec<_> = (0..6).map(|number| operation(1, number, number)).collect();
            let steps = steps(&state, 1, &all);
            super::super::replay::follow(&mut writer, &steps).unwrap();
            let whole = writer.snapshot().hash().unwrap();
            assert_eq!((writer.store().position().sequence, writer.store().floor()), (6, 0));
            // The tables of the two keyspaces came to the disk differently far.
            for (which, numbers) in lost.iter().enumerate() {
                for number in numbers.clone() {
                    let shelves = writer.store().shelves();
                    let (place, key, _) = shelves.rows_for(&all[number as usize]).nth(which).unwrap();
                    shelves.all()[place].remove(key).unwrap();
                }
            }
            assert!(writer.snapshot().hash().map_or(true, |hash| hash != whole));
            let followed = super::super::replay::follow(&mut writer, &steps).unwrap();
            assert_eq!(followed.refused, [], "{layout:?} without {lost:?}");
            assert_eq!(writer.snapshot().hash().unwrap(), whole);
            assert_eq!(numbers(writer.store(), 1), (0..6).collect::<Vec<_>>());
        }
    }
}

#[tokio::test]
async fn while_the_other_one_reads_version_1_appends_are_refused_and_the_logbook_is_of_version_1() {
    let (_directory, state) = state();
    let old = {
        let writer = Writer::create(&state, 1, Layout::ByName, EARLIER).unwrap();
        Sequencer::start(writer, Start::Holding { term: 1 }).unwrap().0
    };
    let refused = Err(PutRefused::Later { needs: 2, keeps: 1 });
    assert_eq!(old.append(&append(1, 1)).await, refused, "an earlier release knows none");
    old.put(&content(1, 100)).await.unwrap();
    let opened = old.open_logbook(1).await.unwrap();
    let new = candidate(&state, 2, Layout::ByKind, &opened.snapshot, 1);
    let (follower, _events) = Follower::start(new.clone(), 1).unwrap();
    let prepared = Prepared::make(&state, 2, 2, 2, 4096, 1).unwrap();
    let frozen = old.freeze().await.unwrap();
    follower.finish_at(frozen.sequence).await.unwrap();
    new.take(prepared, frozen.sequence).await.unwrap();
    // Probation, whether the old one lives or not: it may have to start cold and read this.
    assert_eq!(new.append(&append(1, 1)).await, refused);
    new.put(&content(2, 100)).await.unwrap();
    {
        let (_copy, killed) = image(&state);
        let (writer, recovered) = recover(&killed, 1, EARLIER).unwrap();
        assert_eq!((recovered.replayed, recovered.refused), (1, vec![]));
        assert!(writer.store().contains(content(2, 100).name()).unwrap());
    }
    // After the commit they are on, and stay on with a standby that knows them.
    new.end_logbook().await.unwrap();
    assert_eq!(new.append(&append(1, 1)).await, Ok(0));
    for term in [1, 2] {
        state.remove_log(term).unwrap();
    }
    // Now the state cannot be handed to version 1 any more, and nothing has changed by the try.
    let inexpressible = new.open_logbook(1).await.map(drop).unwrap_err();
    assert!(
        matches!(inexpressible, OrderError::Inexpressible { version: 1, needs: 2, appends: 1 }),
        "{inexpressible}"
    );
    assert!(!state.log(2).exists());
    assert_eq!(new.append(&append(1, 2)).await, Ok(1));
    new.open_logbook(2).await.unwrap();
    assert_eq!(new.append(&append(1, 3)).await, Ok(2));
    assert_eq!(new.append(&append(1, 1)).await, Ok(0));
}

#[tokio::test]
async fn a_standby_of_version_1_turns_appends_off_and_its_end_turns_them_on_again() {
    let (_directory, state) = state();
    let holder = holder(&state, 1, Layout::ByKind);
    holder.open_logbook(1).await.unwrap();
    let refused = holder.append(&append(1, 1)).await;
    assert_eq!(refused, Err(PutRefused::Later { needs: 2, keeps: 1 }));
    holder.put(&content(1, 100)).await.unwrap();
    assert_eq!(holder.store().position().sequence, 1, "what was refused has no number");
    holder.drop_logbook().await.unwrap();
    assert_eq!(holder.append(&append(1, 1)).await, Ok(0));
}

#[test]
fn a_release_that_reads_version_1_refuses_records_of_version_2_and_keeps_them_aside() {
    let (_directory, state) = state();
    fs::create_dir_all(state.path()).unwrap();
    let steps = steps(&state, 1, &[operation(1, 1, 0), store_operation(&content(1, 10))]);
    let mut writer = Writer::create(&state, 1, Layout::ByName, EARLIER).unwrap();
    let followed = super::super::replay::follow(&mut writer, &steps).unwrap();
    assert_eq!((followed.applied, followed.refused.len()), (0, 2));
    assert!(state.refused().join("1-1").exists());
    // In a logbook of version 1 an append is refused by everybody.
    let mut old: Vec<_> = steps.clone();
    for step in &mut old {
        let Step::Record(record) = step else { panic!() };
        record.format = 1;
        record.sequence += 2;
    }
    let mut writer = Writer::create(&state, 2, Layout::ByName, OPTIONS).unwrap();
    writer.commit(&[], Position { term: 1, sequence: 2 }, Commit::Synced).unwrap();
    let followed = super::super::replay::follow(&mut writer, &old).unwrap();
    assert_eq!((followed.applied, followed.refused.len()), (1, 1));
}

#[test]
fn a_generation_of_an_earlier_build_gets_what_it_lacks_when_it_is_opened() {
    for layout in LAYOUTS {
        let (_directory, state) = state();
        let mut writer = Writer::create(&state, 1, layout, OPTIONS).unwrap();
        writer
            .commit(&[store_operation(&content(1, 10))], Position { term: 1, sequence: 1 }, Commit::Synced)
            .unwrap();
        let before = (writer.snapshot().hash().unwrap(), writer.store().totals());
        drop(writer);
        let later = match layout {
            Layout::ByName => ["logs", "log-ids"],
            Layout::ByKind => ["appends", "log-order"],
        };
        let database = fjall::Database::builder(state.generation(1).join("db")).open().unwrap();
        for name in later {
            let keyspace = database.keyspace(name, fjall::KeyspaceCreateOptions::default).unwrap();
            database.delete_keyspace(keyspace).unwrap();
        }
        drop(database);
        let mut writer = Writer::open(&state, 1, OPTIONS).unwrap();
        assert_eq!((writer.snapshot().hash().unwrap(), writer.store().totals()), before);
        writer.commit(&[operation(1, 1, 0)], Position { term: 1, sequence: 2 }, Commit::Synced).unwrap();
        drop(writer);
        let writer = Writer::open(&state, 1, OPTIONS).unwrap();
        assert_eq!((numbers(writer.store(), 1), writer.store().totals().appends), (vec![1], 1));
    }
}

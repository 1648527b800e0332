//! Cold starts after everything died at once.

use bumpless_shared::logbook::segment_name;

use fjall::PersistMode;

use super::super::store::Commit;
use super::*;

/// Generation 1 at sequence 3, and a logbook of term 2 written by generation 2, from 4 on.
fn probation(records: u64) -> (TempDir, StateDir, Vec<Arc<Content>>) {
    let (directory, state) = state();
    let mut writer = Writer::create(&state, 1, Layout::ByName, OPTIONS).unwrap();
    let before: Vec<_> = (0..3).map(|number| store_operation(&content(number, 20))).collect();
    writer.commit(&before, Position { term: 1, sequence: 3 }, Commit::Synced).unwrap();
    drop(writer);
    let new = Writer::create(&state, 2, Layout::ByKind, OPTIONS).unwrap();
    let mut log = Prepared::make(&state, 2, 2, 4, 1 << 20, CURRENT).unwrap().begin(4);
    let mut written = Vec::new();
    for number in 0..records {
        let content = content(1000 + number, if number % 4 == 3 { 5000 } else { 30 });
        let operation = if content.is_record() {
            store_operation(&content)
        } else {
            new.store().stage_chunk(&content).unwrap();
            Operation::Link { name: content.name(), length: 5000 }
        };
        log.append(&[operation.encode(CURRENT).unwrap()]).unwrap();
        log.sync().unwrap();
        written.push(content);
    }
    (directory, state, written)
}

fn found(writer: &Writer, written: &[Arc<Content>]) -> Vec<bool> {
    written
        .iter()
        .map(|content| match writer.store().get(content.name()).unwrap() {
            Some(bytes) => bytes == content.bytes(),
            None => false,
        })
        .collect()
}

#[test]
fn whatever_of_the_logbook_reached_the_disk_is_replayed_and_nothing_else() {
    let (_directory, state, written) = probation(8);
    let segment = state.log(2).join(segment_name(4));
    let whole = fs::read(&segment).unwrap();
    let ends: Vec<usize> = {
        let mut reader = LogReader::new(&state, 2, 4);
        let mut end = 64;
        std::iter::from_fn(|| match reader.next().unwrap() {
            Item::Record(record) => {
                end += record.bytes.len();
                Some(end)
            }
            Item::CaughtUp | Item::Damaged(_) => None,
        })
        .collect()
    };
    assert_eq!((ends.len(), ends[7]), (8, whole.len()));
    // Each byte of the last record and of the header; elsewhere a few.
    let cuts = (0..64).step_by(9).chain((64..ends[6]).step_by(23)).chain(ends[6]..=whole.len());
    for cut in cuts {
        let (_copy, killed) = image(&state);
        fs::write(killed.log(2).join(segment_name(4)), &whole[..cut]).unwrap();
        let (writer, recovered) = recover(&killed, 1, OPTIONS).unwrap();
        let expected = ends.iter().filter(|end| **end <= cut).count();
        assert_eq!(recovered.replayed, expected as u64, "cut at {cut}");
        assert_eq!((recovered.damage, recovered.refused), (vec![], vec![]), "cut at {cut}");
        assert_eq!(recovered.position.sequence, 3 + expected as u64);
        assert_eq!(recovered.highest_term, 2);
        let there: Vec<bool> = (0..8).map(|number| number < expected).collect();
        assert_eq!(found(&writer, &written), there, "cut at {cut}");
        assert_eq!(writer.store().floor(), recovered.position.sequence);
    }
}

#[test]
fn a_second_start_finds_everything_without_the_logbook() {
    let (_directory, state, written) = probation(8);
    let (writer, recovered) = recover(&state, 1, OPTIONS).unwrap();
    assert_eq!((recovered.replayed, recovered.logs, recovered.generations), (8, vec![2], vec![1, 2]));
    drop(writer);
    let (writer, recovered) = recover(&state, 1, OPTIONS).unwrap();
    assert_eq!((recovered.replayed, recovered.position.sequence), (0, 11));
    drop(writer);
    state.remove_log(2).unwrap();
    state.remove_generation(2, 1).unwrap();
    let (writer, recovered) = recover(&state, 1, OPTIONS).unwrap();
    assert_eq!((recovered.replayed, recovered.logs, recovered.highest_term), (0, vec![], 2));
    assert!(found(&writer, &written).into_iter().all(|found| found));
}

#[test]
fn a_head_that_reached_the_disk_before_its_rows_hides_no_record() {
    let (_directory, state, written) = probation(8);
    let (_copy, killed) = image(&state);
    // The table with the head was written, the ones with the rows and the journal were not.
    let mut writer = Writer::open(&killed, 1, OPTIONS).unwrap();
    let mut head = writer.store().head();
    head.position = Position { term: 2, sequence: 11 };
    for content in &written {
        match content.is_record() {
            true => head.totals.count(&store_operation(content)),
            false => head.totals.count(&Operation::Link { name: content.name(), length: 5000 }),
        }
    }
    writer.commit_head(&[], head, PersistMode::Buffer).unwrap();
    assert_eq!(writer.store().floor(), 3);
    drop(writer);
    let (writer, recovered) = recover(&killed, 1, OPTIONS).unwrap();
    assert_eq!((recovered.replayed, recovered.position.sequence), (8, 11));
    assert!(found(&writer, &written).into_iter().all(|found| found));
    // What was counted with the head is not counted again with its rows.
    assert_eq!(writer.store().totals(), head.totals);
    assert_eq!(writer.snapshot().entries().count() as u64, head.totals.entries());
}

#[test]
fn damage_below_the_position_does_not_stop_what_lies_behind_it_from_being_looked_at() {
    let (_directory, state, written) = probation(8);
    let (_copy, killed) = image(&state);
    let mut writer = Writer::open(&killed, 1, OPTIONS).unwrap();
    writer.commit(&[], Position { term: 2, sequence: 11 }, Commit::Buffered).unwrap();
    drop(writer);
    let segment = killed.log(2).join(segment_name(4));
    let mut bytes = fs::read(&segment).unwrap();
    bytes[64 + 50] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let (writer, recovered) = recover(&killed, 1, OPTIONS).unwrap();
    assert_eq!(recovered.damage, [Damage { term: 2, first: 4, last: Some(4) }]);
    assert_eq!((recovered.replayed, recovered.position.sequence), (7, 11));
    assert_eq!(found(&writer, &written).into_iter().filter(|found| *found).count(), 7);
}

#[test]
fn damage_below_the_durable_mark_is_reported_and_everything_else_replayed() {
    let (_directory, state, written) = probation(8);
    let segment = state.log(2).join(segment_name(4));
    let mut bytes = fs::read(&segment).unwrap();
    bytes[64 + 50] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let (writer, recovered) = recover(&state, 1, OPTIONS).unwrap();
    assert_eq!(recovered.damage, [Damage { term: 2, first: 4, last: Some(4) }]);
    assert_eq!((recovered.replayed, recovered.position.sequence), (7, 11));
    assert_eq!(found(&writer, &written).into_iter().filter(|found| *found).count(), 7);
}

#[tokio::test]
async fn what_a_lower_term_wrote_beyond_the_beginning_of_a_higher_one_never_counts() {
    let (_directory, state, written) = probation(8);
    let segment = state.log(2).join(segment_name(4));
    let whole = fs::read(&segment).unwrap();
    // At the first start the last record cannot be read, so term 3 begins without it.
    fs::write(&segment, &whole[..whole.len() - 1]).unwrap();
    let (writer, recovered) = recover(&state, 1, OPTIONS).unwrap();
    assert_eq!(recovered.position, Position { term: 2, sequence: 10 });
    let sequencer = Sequencer::start(writer, Start::Holding { term: 3 }).unwrap().0;
    // At the second it can. Nothing was written in term 3, and yet it is too late.
    fs::write(&segment, &whole).unwrap();
    let (_copy, killed) = image(&state);
    let (writer, recovered) = recover(&killed, 1, OPTIONS).unwrap();
    assert_eq!((recovered.position, recovered.replayed), (Position { term: 3, sequence: 10 }, 0));
    assert!(!found(&writer, &written)[7]);
    drop(sequencer);
}

use bumpless_shared::logbook::{HEADER, RECORD_HEAD, segment_name};

use super::*;

/// A logbook of term 5 from sequence 10 on, with a first segment of so many bytes.
fn logbook(state: &StateDir, reserve: u64) -> LogWriter {
    fs::create_dir_all(state.path()).unwrap();
    Prepared::make(state, 5, 1, 8, reserve, CURRENT).unwrap().begin(10)
}

fn payload(number: u64) -> Vec<u8> {
    Operation::Mark { id: number }.encode(CURRENT).unwrap()
}

fn segment(state: &StateDir) -> std::path::PathBuf {
    state.log(5).join(segment_name(8))
}

/// What a fresh reader finds: sequences, `!first-last` for damage.
fn found(state: &StateDir) -> String {
    let mut reader = LogReader::new(state, 5, 10);
    let mut words = Vec::new();
    loop {
        words.push(match reader.next().unwrap() {
            Item::Record(record) => {
                assert_eq!(record.payload(), payload(record.sequence));
                assert_eq!((record.term, record.generation), (5, 1));
                record.sequence.to_string()
            }
            Item::Damaged(Damage { first, last: Some(last), .. }) => format!("!{first}-{last}"),
            Item::Damaged(Damage { first, last: None, .. }) => format!("!{first}-"),
            Item::CaughtUp => return words.join(" "),
        });
    }
}

/// Records 10 to 14, each synced by itself: each says that the one before is durable.
fn five_synced(state: &StateDir) -> Vec<u8> {
    let mut writer = logbook(state, 1 << 16);
    for number in 10..15 {
        assert_eq!(writer.append(&[payload(number)]).unwrap(), number);
        writer.sync().unwrap();
    }
    fs::read(segment(state)).unwrap()
}

const RECORD: usize = RECORD_HEAD + 2;

#[test]
fn a_reader_follows_a_writer_across_segments() {
    let (_directory, state) = state();
    let mut reader = LogReader::new(&state, 5, 10);
    assert_eq!(reader.next().unwrap(), Item::CaughtUp);
    // Room for three records in the first segment.
    let mut writer = logbook(&state, (HEADER + 3 * RECORD) as u64);
    assert_eq!((writer.term(), writer.last()), (5, 9));
    for number in (10..30).step_by(2) {
        assert_eq!(reader.next().unwrap(), Item::CaughtUp);
        assert_eq!(writer.append(&[payload(number), payload(number + 1)]).unwrap(), number + 1);
        for number in [number, number + 1] {
            let Item::Record(record) = reader.next().unwrap() else { panic!("{number}") };
            assert_eq!((record.sequence, record.payload()), (number, &payload(number)[..]));
        }
    }
    assert_eq!(fs::read_dir(state.log(5)).unwrap().count(), 2);
    assert_eq!(reader.expected(), 30);

    // Only closed segments whose last record is named go.
    writer.trim(10).unwrap();
    assert_eq!(fs::read_dir(state.log(5)).unwrap().count(), 2);
    writer.trim(1000).unwrap();
    assert_eq!(fs::read_dir(state.log(5)).unwrap().count(), 1);
    writer.append(&[payload(30)]).unwrap();
    assert!(matches!(reader.next().unwrap(), Item::Record(record) if record.sequence == 30));
}

#[test]
fn many_segments_read_back_whole() {
    let (_directory, state) = state();
    let mut writer = logbook(&state, SEGMENT);
    let long: Vec<Vec<u8>> =
        (0..9000).map(|number| store_operation(&content(number, 4096)).encode(CURRENT).unwrap()).collect();
    for group in long.chunks(200) {
        writer.append(group).unwrap();
    }
    assert_eq!(fs::read_dir(state.log(5)).unwrap().count(), 3);
    let read = operations(&state, 5, 10);
    assert_eq!(read.len(), 9000);
    for (number, (sequence, operation)) in read.into_iter().enumerate() {
        assert_eq!(sequence, 10 + number as u64);
        assert_eq!(operation, store_operation(&content(number as u64, 4096)));
    }
}

#[test]
fn a_torn_tail_is_not_damage() {
    let (_directory, state) = state();
    let whole = five_synced(&state);
    let last = whole.len() - RECORD;
    for end in last..whole.len() {
        // Cut off; or the rest never written, in a file that was extended before; or old bytes there.
        let mut zeros = whole[..end].to_vec();
        zeros.resize(whole.len() + 500, 0);
        let mut noise = whole[..end].to_vec();
        noise.resize(whole.len() + 500, 0xa5);
        for bytes in [&whole[..end], &zeros, &noise] {
            fs::write(segment(&state), bytes).unwrap();
            assert_eq!(found(&state), "10 11 12 13", "cut at {end}");
        }
    }
    fs::write(segment(&state), &whole).unwrap();
    assert_eq!(found(&state), "10 11 12 13 14");
}

#[test]
fn no_flipped_bit_of_a_durable_record_goes_unnoticed_and_reading_goes_on_behind_it() {
    let (_directory, state) = state();
    let whole = five_synced(&state);
    let second = HEADER + RECORD;
    for bit in second * 8..(second + RECORD) * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(segment(&state), bytes).unwrap();
        assert_eq!(found(&state), "10 !11-11 12 13 14", "bit {bit}");
    }
    // The first, and several in a row.
    let mut bytes = whole.clone();
    bytes[HEADER + 9] ^= 1;
    fs::write(segment(&state), &bytes).unwrap();
    assert_eq!(found(&state), "!10-10 11 12 13 14");
    bytes[second..second + RECORD + 3].fill(0);
    fs::write(segment(&state), &bytes).unwrap();
    assert_eq!(found(&state), "!10-12 13 14");
    // The one before the last is what the last one says is durable; nobody says it of the last.
    let mut bytes = whole.clone();
    bytes[HEADER + 3 * RECORD + 5] ^= 1;
    fs::write(segment(&state), &bytes).unwrap();
    assert_eq!(found(&state), "10 11 12 !13-13 14");
    bytes[HEADER + 4 * RECORD + 5] ^= 1;
    fs::write(segment(&state), &bytes).unwrap();
    assert_eq!(found(&state), "10 11 12");
}

#[test]
fn a_hole_in_what_was_never_synced_is_the_end() {
    let (_directory, state) = state();
    let mut writer = logbook(&state, 1 << 16);
    writer.append(&[payload(10)]).unwrap();
    writer.sync().unwrap();
    writer.append(&[payload(11), payload(12), payload(13)]).unwrap();
    let mut bytes = fs::read(segment(&state)).unwrap();
    bytes[HEADER + RECORD..HEADER + 2 * RECORD].fill(0);
    fs::write(segment(&state), bytes).unwrap();
    assert_eq!(found(&state), "10");
}

#[test]
fn a_lost_segment_is_damage_and_an_unreadable_last_one_has_no_end() {
    let (_directory, state) = state();
    let mut writer = logbook(&state, (HEADER + 2 * RECORD) as u64);
    for number in 10..16 {
        writer.append(&[payload(number)]).unwrap();
        writer.sync().unwrap();
    }
    assert_eq!(found(&state), "10 11 12 13 14 15");
    let first = fs::read(segment(&state)).unwrap();
    let mut unreadable = first.clone();
    unreadable[20] ^= 1;
    fs::write(segment(&state), unreadable).unwrap();
    assert_eq!(found(&state), "!10-11 12 13 14 15");
    fs::remove_file(segment(&state)).unwrap();
    assert_eq!(found(&state), "!10-11 12 13 14 15");
    fs::write(segment(&state), first).unwrap();

    let second = state.log(5).join(segment_name(12));
    let mut bytes = fs::read(&second).unwrap();
    bytes[50] ^= 1;
    fs::write(&second, &bytes).unwrap();
    assert_eq!(found(&state), "10 11 !12-");
    bytes[8] = 9;
    fs::write(&second, &bytes).unwrap();
    let mut reader = LogReader::new(&state, 5, 12);
    assert!(matches!(reader.next().unwrap(), Item::Record(_)));
    assert!(matches!(reader.next().unwrap(), Item::Record(_)));
    assert!(matches!(reader.next(), Err(ReadLogError::Format { found: 9, .. })));
}

#[test]
fn damage_larger_than_what_is_read_at_once_is_passed_over() {
    let (_directory, state) = state();
    let mut writer = logbook(&state, 8 << 20);
    for number in 10..1010 {
        writer.append(&[store_operation(&content(number, 4096)).encode(CURRENT).unwrap()]).unwrap();
    }
    writer.sync().unwrap();
    writer.append(&[payload(1010)]).unwrap();
    let mut bytes = fs::read(segment(&state)).unwrap();
    let from = HEADER + 20;
    let to = bytes.len() - 5000;
    for (at, byte) in bytes[from..to].iter_mut().enumerate() {
        *byte = (at * 31) as u8;
    }
    fs::write(segment(&state), bytes).unwrap();
    let mut reader = LogReader::new(&state, 5, 10);
    assert!(matches!(reader.next().unwrap(), Item::Damaged(Damage { first: 10, last: Some(1008), .. })));
    assert!(matches!(reader.next().unwrap(), Item::Record(record) if record.sequence == 1009));
    assert!(matches!(reader.next().unwrap(), Item::Record(record) if record.sequence == 1010));
    assert_eq!(reader.next().unwrap(), Item::CaughtUp);
}

#[test]
fn a_logbook_is_made_once_and_poisoned_by_its_first_failure() {
    let (_directory, state) = state();
    let mut writer = logbook(&state, (HEADER + RECORD) as u64);
    assert!(matches!(Prepared::make(&state, 5, 1, 8, 1 << 16, CURRENT), Err(LogError::Exists { .. })));
    writer.append(&[payload(10)]).unwrap();
    // The next segment cannot be made.
    let away = state.path().join("away");
    fs::rename(state.log(5), &away).unwrap();
    assert!(matches!(writer.append(&[payload(11)]), Err(LogError::File(_))));
    fs::rename(&away, state.log(5)).unwrap();
    assert!(matches!(writer.append(&[payload(11)]), Err(LogError::Poisoned { .. })));
    assert!(matches!(writer.sync(), Err(LogError::Poisoned { .. })));
    assert_eq!(found(&state), "10");
}

#[test]
fn preparing_reserves_the_disk_and_beginning_makes_no_file() {
    use std::os::unix::fs::MetadataExt;
    let (_directory, state) = state();
    fs::create_dir_all(state.path()).unwrap();
    let prepared = Prepared::make(&state, 5, 1, 8, 4 << 20, CURRENT).unwrap();
    let metadata = fs::metadata(segment(&state)).unwrap();
    assert_eq!(metadata.len(), HEADER as u64);
    assert!(metadata.blocks() * 512 >= 4 << 20, "{} blocks", metadata.blocks());
    let mut writer = prepared.begin(10);
    writer.append(&[payload(10)]).unwrap();
    assert_eq!(found(&state), "10");
    assert_eq!(fs::read_dir(state.log(5)).unwrap().count(), 1);
}

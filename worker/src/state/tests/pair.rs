//! Two workers' states, as in an upgrade.

use bumpless_shared::digest::Digest;

use super::*;

/// A holder of term 1 with some content and an open logbook, and a candidate that follows it.
struct Pair {
    _directory: TempDir,
    state: StateDir,
    old: Sequencer,
    new: Sequencer,
    follower: Follower,
    events: tokio::sync::mpsc::UnboundedReceiver<FollowEvent>,
}

async fn pair() -> Pair {
    let (_directory, state) = state();
    let old = holder(&state, 1, Layout::ByName);
    for number in 0..50 {
        old.put(&content(number, if number % 10 == 0 { 5000 } else { 100 })).await.unwrap();
    }
    let opened = old.open_logbook(CURRENT).await.unwrap();
    old.put(&content(50, 100)).await.unwrap();
    let new = candidate(&state, 2, Layout::ByKind, &opened.snapshot, 1);
    let (follower, events) = Follower::start(new.clone(), opened.term).unwrap();
    Pair { _directory, state, old, new, follower, events }
}

async fn applied(follower: &Follower, sequence: Sequence) {
    follower.nudge();
    follower.applied().wait_for(|applied| *applied >= sequence).await.unwrap();
}

async fn next_mark(events: &mut tokio::sync::mpsc::UnboundedReceiver<FollowEvent>) -> Marked {
    match events.recv().await.unwrap() {
        FollowEvent::Marked(marked) => marked,
        other => panic!("{other:?}"),
    }
}

/// The cut: the old one freezes, the new one takes term 2.
async fn cut(pair: &Pair) -> Frozen {
    let prepared =
        Prepared::make(&pair.state, 2, 2, pair.new.store().position().sequence + 1, 1 << 20, CURRENT)
            .unwrap();
    let frozen = pair.old.freeze().await.unwrap();
    pair.follower.finish_at(frozen.sequence).await.unwrap();
    assert_eq!(pair.new.take(prepared, frozen.sequence).await.unwrap(), frozen.sequence + 1);
    frozen
}

fn everything_is_in(sequencer: &Sequencer, numbers: impl Iterator<Item = u64>, length: usize) {
    for number in numbers {
        let content = content(number, length);
        assert_eq!(
            sequencer.store().get(content.name()).unwrap().as_deref(),
            Some(content.bytes()),
            "{number}"
        );
    }
}

#[tokio::test]
async fn a_follower_is_level_and_has_the_same_hash_at_a_mark() {
    let mut pair = pair().await;
    let content = content(60, 7000);
    pair.old.put(&content).await.unwrap();
    let here = pair.old.mark(77).await.unwrap();
    // What comes after the mark is in neither snapshot.
    pair.old.put(&super::content(61, 10)).await.unwrap();
    applied(&pair.follower, here.sequence + 1).await;
    let there = next_mark(&mut pair.events).await;
    assert_eq!((there.id, there.sequence), (77, here.sequence));
    assert_eq!(there.snapshot.hash().unwrap(), here.snapshot.hash().unwrap());
    assert_eq!(there.snapshot.totals(), here.snapshot.totals());
    assert_ne!(hash(&pair.new).await, here.snapshot.hash().unwrap());
    assert_eq!(hash(&pair.new).await, hash(&pair.old).await);
    // A hard link, not a copy.
    use std::os::unix::fs::MetadataExt;
    let file = pair.state.chunks(2).join(content.name().to_string());
    assert_eq!(fs::metadata(file).unwrap().nlink(), 2);
}

#[tokio::test]
async fn the_old_one_resumes_with_everything_that_the_dead_new_one_acknowledged() {
    let pair = pair().await;
    let frozen = cut(&pair).await;
    let (follower, _events) = Follower::start(pair.old.clone(), 2).unwrap();
    for number in 100..200 {
        pair.new.put(&content(number, if number % 10 == 0 { 6000 } else { 90 })).await.unwrap();
    }
    let marked = pair.new.mark(5).await.unwrap();
    let new_hash = marked.snapshot.hash().unwrap();
    // The new one dies, nobody nudged. Its generation may even be gone... but for its chunk files.
    let finished = follower.finish().await.unwrap();
    assert_eq!(finished, Finished { sequence: marked.sequence, refused: 0, damaged: 0 });
    assert_eq!(finished.sequence, frozen.sequence + 101);
    let position = pair.old.resume(3).await.unwrap();
    assert_eq!(position, Position { term: 3, sequence: finished.sequence });
    assert_eq!(pair.old.resume(3).await.unwrap(), position);
    assert_eq!(hash(&pair.old).await, new_hash);
    // It serves on, and its own database is the durable copy: the logbooks and the generation go.
    assert_eq!(pair.old.put(&content(150, 90 + 5910)).await.unwrap(), Stored::Already);
    pair.old.put(&content(201, 10)).await.unwrap();
    let old_hash = hash(&pair.old).await;
    let state = pair.state.clone();
    pair.new.stop().await.unwrap();
    for term in [1, 2] {
        state.remove_log(term).unwrap();
    }
    state.remove_generation(2, 1).unwrap();
    let (_copy, killed) = image(&state);
    let (writer, recovered) = recover(&killed, 1, OPTIONS).unwrap();
    assert_eq!(recovered.generations, [1]);
    assert_eq!(recovered.position, Position { term: 3, sequence: finished.sequence + 1 });
    assert_eq!(writer.snapshot().hash().unwrap(), old_hash);
}

#[tokio::test]
async fn after_the_commit_the_new_generation_is_whole_without_the_old_one() {
    let pair = pair().await;
    cut(&pair).await;
    for number in 100..150 {
        pair.new.put(&content(number, 6000)).await.unwrap();
    }
    pair.new.persist().await.unwrap();
    pair.new.put(&content(150, 10)).await.unwrap();
    let position = pair.new.end_logbook().await.unwrap();
    assert_eq!(pair.new.end_logbook().await.unwrap(), position);
    assert_eq!(pair.new.store().floor(), position.sequence);
    pair.new.put(&content(151, 10)).await.unwrap();
    let new_hash = hash(&pair.new).await;
    for term in [1, 2] {
        pair.state.remove_log(term).unwrap();
    }
    pair.state.remove_generation(1, 2).unwrap();
    everything_is_in(&pair.new, 100..150, 6000);
    let (_copy, killed) = image(&pair.state);
    let (writer, recovered) = recover(&killed, 2, OPTIONS).unwrap();
    assert_eq!(recovered.position, Position { term: 2, sequence: position.sequence + 1 });
    assert_eq!(writer.snapshot().hash().unwrap(), new_hash);
}

#[tokio::test]
async fn the_authority_goes_back_in_good_order() {
    let pair = pair().await;
    cut(&pair).await;
    let (back, _events) = Follower::start(pair.old.clone(), 2).unwrap();
    for number in 100..120 {
        pair.new.put(&content(number, 100)).await.unwrap();
    }
    let frozen = pair.new.freeze().await.unwrap();
    assert_eq!(pair.new.put(&content(120, 10)).await, Err(PutRefused::Frozen { term: 2 }));
    back.finish_at(frozen.sequence).await.unwrap();
    pair.old.resume(3).await.unwrap();
    everything_is_in(&pair.old, 100..120, 100);
    assert_eq!(pair.old.put(&content(120, 10)).await.unwrap(), Stored::New { sequence: frozen.sequence + 1 });
}

#[tokio::test]
async fn following_twice_changes_nothing() {
    let pair = pair().await;
    for number in 100..130 {
        pair.old.put(&content(number, if number % 10 == 0 { 5000 } else { 10 })).await.unwrap();
    }
    let frozen = pair.old.freeze().await.unwrap();
    pair.follower.finish_at(frozen.sequence).await.unwrap();
    let before = (hash(&pair.new).await, pair.new.store().position(), pair.new.store().totals());
    let mut reader = LogReader::new(&pair.state, 1, 51);
    let mut steps = Vec::new();
    while let Item::Record(record) = reader.next().unwrap() {
        steps.push(Step::Record(record));
    }
    assert!(steps.len() >= 31);
    let followed = pair.new.follow(steps).await.unwrap();
    assert_eq!((followed.applied, followed.refused.len()), (0, 0));
    assert_eq!((hash(&pair.new).await, pair.new.store().position(), pair.new.store().totals()), before);
}

#[tokio::test]
async fn a_record_that_is_not_what_it_says_is_kept_aside_byte_for_byte_and_passed_over() {
    let (_directory, state) = state();
    fs::create_dir_all(state.chunks(9)).unwrap();
    let mut log = Prepared::make(&state, 4, 9, 1, 1 << 16, CURRENT).unwrap().begin(1);
    let (good, other, long) = (content(1, 10), content(2, 10), content(3, 5000));
    fs::write(state.chunks(9).join(long.name().to_string()), vec![1; 5000]).unwrap();
    let link = |name: Digest| Operation::Link { name, length: 5000 }.encode(CURRENT).unwrap();
    let bad = [
        Operation::Store { name: good.name(), content: other.bytes().to_vec() }.encode(CURRENT).unwrap(),
        link(long.name()),
        link(other.name()),
        vec![200, 1, 2, 3],
    ];
    log.append(&bad).unwrap();
    log.append(&[store_operation(&good).encode(CURRENT).unwrap()]).unwrap();

    let writer = Writer::create(&state, 1, Layout::ByName, OPTIONS).unwrap();
    let sequencer = Sequencer::start(writer, Start::Following).unwrap().0;
    let (follower, mut events) = Follower::start(sequencer.clone(), 4).unwrap();
    let finished = follower.finish().await.unwrap();
    assert_eq!(finished, Finished { sequence: 5, refused: 4, damaged: 0 });
    for (sequence, payload) in (1..).zip(&bad) {
        let Some(FollowEvent::Refused(refusal)) = events.recv().await else { panic!() };
        assert_eq!((refusal.term, refusal.sequence), (4, sequence));
        let kept = fs::read(state.refused().join(format!("4-{sequence}"))).unwrap();
        assert!(kept.ends_with(payload));
    }
    assert_eq!(sequencer.store().totals().entries(), 1);
    assert!(sequencer.store().contains(good.name()).unwrap());
}

#[tokio::test]
async fn a_logbook_that_ends_too_early_is_no_reason_to_take_over() {
    let pair = pair().await;
    let frozen = pair.old.freeze().await.unwrap();
    let result = pair.follower.finish_at(frozen.sequence + 1).await;
    assert_eq!(result, Err(FinishError::Short { wanted: frozen.sequence + 1, applied: frozen.sequence }));
    let prepared = Prepared::make(&pair.state, 2, 2, 1, 4096, CURRENT).unwrap();
    assert!(matches!(pair.new.take(prepared, frozen.sequence + 1).await, Err(OrderError::NotThere { .. })));
    assert_eq!(pair.new.status().borrow().role, Role::Following);
}

#[tokio::test]
async fn a_disk_that_fails_the_follower_is_not_the_records_fault() {
    let (_directory, state) = state();
    let mut log = Prepared::make_in_new(&state);
    log.append(&[vec![200]]).unwrap();
    // The refused record cannot be kept: a file stands where the directory should be.
    fs::write(state.refused(), "").unwrap();
    let writer = Writer::create(&state, 1, Layout::ByName, OPTIONS).unwrap();
    let sequencer = Sequencer::start(writer, Start::Following).unwrap().0;
    let (follower, mut events) = Follower::start(sequencer.clone(), 4).unwrap();
    assert!(matches!(events.recv().await.unwrap(), FollowEvent::Failed(_)));
    assert!(matches!(follower.finish().await, Err(FinishError::Failed { term: 4, .. })));
    assert_eq!(sequencer.store().position(), Position::default());
}

impl Prepared {
    fn make_in_new(state: &StateDir) -> LogWriter {
        fs::create_dir_all(state.path()).unwrap();
        Prepared::make(state, 4, 9, 1, 1 << 16, CURRENT).unwrap().begin(1)
    }
}

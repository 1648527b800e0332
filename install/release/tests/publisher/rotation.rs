//! The next root: who must sign it, and what becomes of machines that knew the last.
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::follower::Follower;
use crate::{NOW, People, add, channel, publisher, waits};
use bumpless_release::check::check;
use bumpless_release::key::Key;
use bumpless_release::{Holders, KeyChange, Options, PublishError, Publisher, Request, Signer};
use bumpless_trust::document::{IndexDocument, IndexPin, TimestampDocument};
use bumpless_trust::refresh::sha256;
use bumpless_trust::{Refused, Role};

fn threshold(signer: Signer, number: u8) -> KeyChange {
    KeyChange::Threshold(signer, number.try_into().unwrap())
}

fn signs(people: &People<'_>, publisher: &mut Publisher, who: &str, name: &str, role: Signer) {
    let copy = people.dir.join(who).join(name);
    std::fs::copy(people.dir.join("net/sign").join(name), &copy).unwrap();
    let request = Request::read(&copy, role, Some(&publisher.feed())).unwrap();
    request.sign(&people.secret(who), &people.key(who)).unwrap();
    publisher.merge(&people.dir.join(who).join(format!("{name}.sigs"))).unwrap();
}

#[test]
fn the_next_root_needs_enough_of_the_old_keys_and_enough_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let people = People::new(dir.path(), &["a", "b", "c", "d"]);
    let root = Some(people.keys(2, &["a", "b", "c"]));
    let options = Options { holders: Holders { root, ..Holders::default() }, ..Options::new(channel(), NOW) };
    let mut publisher = Publisher::init(&dir.path().join("net"), &options).unwrap();
    for who in ["a", "b"] {
        signs(&people, &mut publisher, who, "root-1.json", Signer::Root);
    }
    publisher.publish(NOW).unwrap();
    let mut machine = Follower::default();
    machine.look(&publisher.feed(), NOW).unwrap();

    // C is lost; D comes instead, and from now on all three must sign.
    let changes = [
        KeyChange::Remove(Signer::Root, people.public("c")),
        KeyChange::Add(Signer::Root, people.public("d")),
        threshold(Signer::Root, 3),
    ];
    publisher.rotate(&changes, NOW).unwrap();
    // By the old root two are missing, by its own three.
    assert_eq!(waits(publisher.publish(NOW)), [("root-2.json".to_owned(), vec![2, 3])]);
    assert!(matches!(publisher.rotate(&[], NOW), Err(PublishError::RootWaits(_))));
    for (who, missing) in [("d", vec![2, 2]), ("a", vec![1, 1])] {
        signs(&people, &mut publisher, who, "root-2.json", Signer::Root);
        assert_eq!(waits(publisher.publish(NOW)), [("root-2.json".to_owned(), missing)]);
        assert_eq!(machine.look(&publisher.feed(), NOW).unwrap().root().version(), 1);
    }
    // The old root alone would do with C; its own needs B.
    let file = dir.path().join("net/sign/root-2.json");
    let sigs = people.secret("c").sign(Role::Root, 2, &std::fs::read(&file).unwrap()).unwrap();
    std::fs::write(dir.path().join("root-2.json.sigs"), sigs).unwrap();
    publisher.merge(&dir.path().join("root-2.json.sigs")).unwrap();
    assert_eq!(waits(publisher.publish(NOW)), [("root-2.json".to_owned(), vec![0, 1])]);
    signs(&people, &mut publisher, "b", "root-2.json", Signer::Root);
    publisher.publish(NOW).unwrap();
    assert_eq!(machine.look(&publisher.feed(), NOW).unwrap().root().version(), 2);
    let new = check(&publisher.feed(), &publisher.first_root(), &channel(), NOW, |_| {}).unwrap();
    assert_eq!(new.root().version(), 2);
}

#[test]
fn keys_of_every_role_are_added_replaced_and_removed_and_thresholds_go_up_and_down() {
    let dir = tempfile::tempdir().unwrap();
    let people = People::new(dir.path(), &["x"]);
    let mut publisher = publisher(&dir.path().join("net"));
    add(&mut publisher, dir.path(), "1.0.0", b"one").unwrap();
    publisher.publish(NOW).unwrap();
    let mut machine = Follower::default();
    let mut version = 1;
    for signer in [Signer::Root, Signer::Release, Signer::Timestamp] {
        let public = people.dir.join(format!("{signer}-more/{signer}-more.pub"));
        let more = People::new(dir.path(), &[&format!("{signer}-more")]);
        // Its secret half lies where the publisher finds it.
        let secret = dir.path().join(format!("net/keys/{signer}-more.key"));
        std::fs::copy(more.key(&format!("{signer}-more")), secret).unwrap();
        let first = dir.path().join(format!("net/keys/{signer}.pub"));
        for changes in [
            vec![KeyChange::Add(signer, public.clone())],
            vec![threshold(signer, 2)],
            vec![threshold(signer, 1)],
            vec![KeyChange::Remove(signer, first)],
            vec![KeyChange::New(signer)],
            vec![],
        ] {
            publisher.rotate(&changes, NOW).unwrap();
            publisher.publish(NOW).unwrap();
            version += 1;
            let trusted = machine.look(&publisher.feed(), NOW).unwrap();
            assert_eq!(trusted.root().version(), version, "{changes:?}");
            let new = check(&publisher.feed(), &publisher.first_root(), &channel(), NOW, |_| {}).unwrap();
            assert_eq!(new.index().unwrap().version, trusted.index().unwrap().version, "{changes:?}");
        }
    }
    for wrong in [
        vec![threshold(Signer::Release, 2)],
        vec![threshold(Signer::Builders, 1)],
        vec![KeyChange::Remove(Signer::Release, people.public("x"))],
        vec![
            KeyChange::Add(Signer::Release, people.public("x")),
            KeyChange::Add(Signer::Timestamp, people.public("x")),
        ],
    ] {
        assert!(matches!(publisher.rotate(&wrong, NOW), Err(PublishError::Value(_))), "{wrong:?}");
    }
    assert_eq!(machine.look(&publisher.feed(), NOW).unwrap().root().version(), version);
}

#[test]
fn a_machine_that_looks_while_keys_are_rotated_always_sees_a_whole_feed() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = publisher(&dir.path().join("net"));
    publisher.publish(NOW).unwrap();
    let (feed, first, done) = (publisher.feed(), publisher.first_root(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for signer in [Signer::Timestamp, Signer::Release, Signer::Root].into_iter().cycle().take(15) {
                publisher.rotate(&[KeyChange::New(signer)], NOW).unwrap();
                publisher.publish(NOW).unwrap();
            }
            done.store(true, Ordering::Release);
        });
        let (mut looks, mut machine) = (0, Follower::default());
        while !done.load(Ordering::Acquire) {
            machine.look(&feed, NOW).unwrap();
            check(&feed, &first, &channel(), NOW, |_| {}).unwrap();
            looks += 1;
        }
        assert!(looks > 0);
    });
}

#[test]
fn new_release_keys_sign_the_index_again_before_the_root_that_names_them_goes_out() {
    let dir = tempfile::tempdir().unwrap();
    let people = People::new(dir.path(), &["old", "new"]);
    let release = Some(people.keys(1, &["old"]));
    let options =
        Options { holders: Holders { release, ..Holders::default() }, ..Options::new(channel(), NOW) };
    let mut publisher = Publisher::init(&dir.path().join("net"), &options).unwrap();
    assert_eq!(waits(publisher.publish(NOW)), [("index-1.json".to_owned(), vec![1])]);
    signs(&people, &mut publisher, "old", "index-1.json", Signer::Release);
    publisher.publish(NOW).unwrap();
    let mut machine = Follower::default();
    machine.look(&publisher.feed(), NOW).unwrap();

    let changes = [
        KeyChange::Remove(Signer::Release, people.public("old")),
        KeyChange::Add(Signer::Release, people.public("new")),
    ];
    publisher.rotate(&changes, NOW).unwrap();
    assert_eq!(waits(publisher.publish(NOW)), [("index-2.json".to_owned(), vec![1])]);
    assert_eq!(
        machine.look(&publisher.feed(), NOW).unwrap().root().version(),
        1,
        "the feed is whole meanwhile"
    );
    // The holder of the old key does not count any more.
    let bytes = std::fs::read(dir.path().join("net/sign/index-2.json")).unwrap();
    std::fs::write(
        dir.path().join("index-2.json.sigs"),
        people.secret("old").sign(Role::Release, 2, &bytes).unwrap(),
    )
    .unwrap();
    publisher.merge(&dir.path().join("index-2.json.sigs")).unwrap();
    assert_eq!(waits(publisher.publish(NOW)), [("index-2.json".to_owned(), vec![1])]);
    let new = people.secret("new").sign(Role::Release, 2, &bytes).unwrap();
    std::fs::write(dir.path().join("index-2.json.sigs"), new).unwrap();
    publisher.merge(&dir.path().join("index-2.json.sigs")).unwrap();
    publisher.publish(NOW).unwrap();
    let trusted = machine.look(&publisher.feed(), NOW).unwrap();
    assert_eq!((trusted.root().version(), trusted.index().unwrap().version), (2, 2));
}

/// What a thief of the release and timestamp keys does to a machine: the highest versions there are.
fn drive_to_the_end(publisher: &Publisher, keys: &Path) {
    let feed = publisher.feed();
    let key = |name: &str| Key::read(&keys.join(name), None).unwrap();
    let bytes = std::fs::read(feed.join("index/1.json")).unwrap();
    let mut index = IndexDocument::parse(&bytes).unwrap();
    index.version = u64::MAX;
    let bytes = serde_json::to_vec(&index).unwrap();
    let put = |name: &str, bytes: &[u8], sigs: String| {
        std::fs::write(feed.join(name), bytes).unwrap();
        std::fs::write(feed.join(format!("{name}.sigs")), sigs).unwrap();
    };
    let sigs = key("release.key").sign(Role::Release, u64::MAX, &bytes).unwrap();
    put(&format!("index/{}.json", u64::MAX), &bytes, sigs);
    let mut timestamp: TimestampDocument =
        serde_json::from_slice(&std::fs::read(feed.join("timestamp.json")).unwrap()).unwrap();
    timestamp.version = u64::MAX;
    timestamp.index = IndexPin { version: u64::MAX, size: bytes.len() as u64, sha256: sha256(&bytes) };
    let bytes = serde_json::to_vec(&timestamp).unwrap();
    put("timestamp.json", &bytes, key("timestamp.key").sign(Role::Timestamp, u64::MAX, &bytes).unwrap());
}

#[test]
fn machines_that_a_thief_has_driven_to_the_highest_version_come_back_with_a_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = publisher(&dir.path().join("net"));
    publisher.publish(NOW).unwrap();
    let mut machine = Follower::default();
    drive_to_the_end(&publisher, &dir.path().join("net/keys"));
    assert_eq!(machine.look(&publisher.feed(), NOW).unwrap().index().unwrap().version, u64::MAX);
    publisher.publish(NOW).unwrap();
    assert!(matches!(machine.look(&publisher.feed(), NOW), Err(Refused::Older { .. })));
    publisher.rotate(&[KeyChange::New(Signer::Release)], NOW).unwrap();
    publisher.publish(NOW).unwrap();
    let why = machine.clone().look(&publisher.feed(), NOW).unwrap_err();
    assert!(
        matches!(why, Refused::Older { role: Role::Timestamp, .. }),
        "one of the two is not enough: {why}"
    );
    publisher.rotate(&[KeyChange::New(Signer::Timestamp)], NOW).unwrap();
    publisher.publish(NOW).unwrap();
    let trusted = machine.look(&publisher.feed(), NOW).unwrap();
    assert_eq!((trusted.root().version(), trusted.index().unwrap().version), (3, 2));
}

#[test]
fn a_feed_whose_roots_a_client_would_not_follow_is_not_published_to() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = publisher(&dir.path().join("net"));
    publisher.publish(NOW).unwrap();
    let first = std::fs::read(publisher.first_root()).unwrap();
    std::fs::write(publisher.feed().join("root/2.json"), &first).unwrap();
    let why = publisher.publish(NOW).unwrap_err();
    assert!(matches!(why, PublishError::Feed(_, Refused::Signatures(Role::Root, _))), "{why}");
    assert!(matches!(publisher.timestamp(NOW), Err(PublishError::Feed(..))));
}

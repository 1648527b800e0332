//! Several channels on one feed, and a release that goes from one to another.
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::follower::Follower;
use crate::{NOW, People, add, channel, publisher, waits};
use bumpless_release::check::check;
use bumpless_release::{
    Holders, KeyChange, NotPromoted, Options, PublishError, Publisher, Request, Signer, Spread,
};
use bumpless_trust::document::{Channel, IndexDocument, Stage};
use bumpless_trust::{Refused, Want};

fn beta() -> Channel {
    "beta".parse().unwrap()
}

fn names(index: &IndexDocument) -> Vec<&str> {
    index.releases.iter().map(|entry| entry.release.as_str()).collect()
}

/// A lab with 1.0.0 in stable and 1.1.0 in beta, both published; it works on stable.
fn lab(dir: &Path) -> Publisher {
    let mut publisher = publisher(&dir.join("net"));
    add(&mut publisher, dir, "1.0.0", b"one").unwrap();
    add(publisher.begin(&beta()).unwrap(), dir, "1.1.0", b"two").unwrap();
    publisher.publish(NOW).unwrap();
    publisher.turn_to(&channel()).unwrap();
    publisher
}

fn index(publisher: &Publisher, channel: &Channel) -> IndexDocument {
    let trusted = check(&publisher.feed(), &publisher.first_root(), channel, NOW, |_| {}).unwrap();
    trusted.index().unwrap().clone()
}

fn at_once() -> Spread {
    Spread { stages: vec![Stage { after: 0, permille: 1000 }], ..Spread::default() }
}

/// Every file below a folder.
fn files(folder: &Path) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            all.extend(files(&path).iter().map(|below| format!("{name}/{below}")));
        } else {
            all.insert(name.to_owned());
        }
    }
    all
}

#[test]
fn a_channel_has_names_of_its_own_and_those_of_stable_are_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = publisher(&dir.path().join("net"));
    publisher.publish(NOW).unwrap();
    let before = files(&publisher.feed());
    publisher.begin(&beta()).unwrap();
    publisher.publish(NOW).unwrap();
    let after = files(&publisher.feed());
    let new: Vec<&str> = after.difference(&before).map(String::as_str).collect();
    let index = "channel/beta/index/1.json";
    let timestamp = "channel/beta/timestamp.json";
    assert_eq!(new, [index, &format!("{index}.sigs"), timestamp, &format!("{timestamp}.sigs")]);
    assert!(before.is_subset(&after));
    drop(publisher);
    let publisher = Publisher::open(&dir.path().join("net")).unwrap();
    assert_eq!((publisher.channels(), publisher.channel()), (vec![beta(), channel()], &channel()));
}

#[test]
fn a_feed_may_begin_with_another_channel_than_stable_and_have_that_later_or_never() {
    let dir = tempfile::tempdir().unwrap();
    let net = dir.path().join("net");
    let mut publisher = Publisher::init(&net, &Options::new(beta(), NOW)).unwrap();
    add(&mut publisher, dir.path(), "1.0.0", b"one").unwrap();
    publisher.publish(NOW).unwrap();
    assert_eq!(names(&index(&publisher, &beta())), ["1.0.0"]);
    assert!(!publisher.feed().join("timestamp.json").exists() && !net.join("draft.json").exists());
    let why = Follower::default().look(&publisher.feed(), NOW).unwrap_err();
    assert_eq!(why, Refused::Missing(Want::Timestamp, channel()));
    drop(publisher);
    let mut publisher = Publisher::open(&net).unwrap();
    publisher.begin(&channel()).unwrap().promote(&"1.0.0".parse().unwrap(), at_once()).unwrap();
    publisher.publish(NOW).unwrap();
    assert_eq!(names(&index(&publisher, &channel())), ["1.0.0"]);
}

#[test]
fn what_was_tried_in_beta_goes_to_stable_with_the_same_bytes_and_number_and_a_rollout_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = lab(dir.path());
    assert_eq!(names(&index(&publisher, &channel())), ["1.0.0"]);
    let tried = index(&publisher, &beta());
    assert_eq!(names(&tried), ["1.1.0"]);
    assert_eq!(tried.releases[0].counter, 100, "there is one order for all channels");
    let blobs = files(&publisher.feed().join("blob"));

    let stages = vec![Stage { after: 0, permille: 10 }, Stage { after: 86_400, permille: 1000 }];
    let spread = Spread { start: NOW + 60, stages: stages.clone(), ..Spread::default() };
    assert_eq!(publisher.promote(&"1.1.0".parse().unwrap(), spread).unwrap(), Some(beta()));
    publisher.publish_only(&publisher.touched(), NOW).unwrap();
    let stable = index(&publisher, &channel());
    assert_eq!(names(&stable), ["1.0.0", "1.1.0"]);
    let (mut there, here) = (tried.releases[0].clone(), &stable.releases[1]);
    assert_eq!((here.rollout.start, &here.rollout.stages), (NOW + 60, &stages));
    assert_ne!(here.rollout.salt, there.rollout.salt, "or the same machines would be first again");
    there.rollout = here.rollout.clone();
    assert_eq!(there, *here);
    assert_eq!(files(&publisher.feed().join("blob")), blobs);
    assert_eq!(index(&publisher, &beta()), tried);

    // Once it is there, its rollout is changed as ever.
    assert_eq!(publisher.promote(&"1.1.0".parse().unwrap(), at_once()).unwrap(), None);
    assert_eq!(publisher.index().releases[1].rollout.salt, stable.releases[1].rollout.salt);
}

#[test]
fn stable_has_room_for_fixes_that_come_before_what_beta_tries() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = lab(dir.path());
    add(&mut publisher, dir.path(), "1.0.1", b"a fix").unwrap();
    publisher.promote(&"1.1.0".parse().unwrap(), at_once()).unwrap();
    add(&mut publisher, dir.path(), "1.1.1", b"another fix").unwrap();
    add(publisher.turn_to(&beta()).unwrap(), dir.path(), "1.2.0", b"three").unwrap();
    publisher.publish(NOW).unwrap();
    let order = |channel: &Channel| -> Vec<(String, u64)> {
        let index = index(&publisher, channel);
        index.releases.iter().map(|entry| (entry.release.to_string(), entry.counter)).collect()
    };
    let expected = |order: &[(&str, u64)]| -> Vec<(String, u64)> {
        order.iter().map(|(release, counter)| ((*release).to_owned(), *counter)).collect()
    };
    assert_eq!(order(&channel()), expected(&[("1.0.0", 1), ("1.0.1", 2), ("1.1.0", 100), ("1.1.1", 101)]));
    assert_eq!(order(&beta()), expected(&[("1.1.0", 100), ("1.2.0", 200)]));
}

#[test]
fn what_cannot_be_taken_over_is_refused_with_the_reason_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = lab(dir.path());
    let why = |publisher: &mut Publisher, version: &str| {
        let before = publisher.index().clone();
        let error = publisher.promote(&version.parse().unwrap(), at_once()).unwrap_err();
        assert_eq!(*publisher.index(), before);
        match error {
            PublishError::NotPromoted { why, .. } => why,
            other => panic!("{other}"),
        }
    };
    let unknown = publisher.promote(&"9.9.9".parse().unwrap(), at_once()).unwrap_err();
    assert!(matches!(unknown, PublishError::Unknown(_)), "{unknown}");

    // In beta's draft alone; and then published there without an artifact that the draft has.
    add(publisher.turn_to(&beta()).unwrap(), dir.path(), "1.2.0", b"three").unwrap();
    publisher.turn_to(&channel()).unwrap();
    assert_eq!(why(&mut publisher, "1.2.0"), NotPromoted::Unpublished { from: beta() });
    publisher.publish(NOW).unwrap();
    let path = dir.path().join("artifact");
    let arm = bumpless_release::Addition {
        target: Some("aarch64-unknown-linux-musl".into()),
        ..crate::addition("1.2.0")
    };
    publisher.turn_to(&beta()).unwrap().add(&path, &"1.2.0".parse().unwrap(), arm).unwrap();
    publisher.turn_to(&channel()).unwrap();
    assert_eq!(why(&mut publisher, "1.2.0"), NotPromoted::Unpublished { from: beta() });
    publisher.publish(NOW).unwrap();

    publisher.set_floor(101).unwrap();
    assert_eq!(why(&mut publisher, "1.1.0"), NotPromoted::BelowFloor { counter: 100, floor: 101 });
    publisher.set_floor(0).unwrap();
    publisher.promote(&"1.2.0".parse().unwrap(), at_once()).unwrap();
    let older = NotPromoted::Older { counter: 100, newest: "1.2.0".parse().unwrap(), number: 200 };
    assert_eq!(why(&mut publisher, "1.1.0"), older);
    publisher.drop_release(&"1.2.0".parse().unwrap()).unwrap();
    publisher.revoke(&"1.1.0".parse().unwrap()).unwrap();
    assert_eq!(why(&mut publisher, "1.1.0"), NotPromoted::Revoked);
}

#[test]
fn a_release_is_the_same_in_every_channel_that_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = lab(dir.path());
    // Not built anew for another channel, nor beside it under its number.
    let why = add(&mut publisher, dir.path(), "1.1.0", b"other").unwrap_err();
    assert!(matches!(&why, PublishError::Elsewhere(_, from) if *from == beta()), "{why}");
    assert!(why.to_string().contains("`bumpless-release promote 1.1.0`"), "{why}");
    let taken = bumpless_release::Addition { counter: Some(100), ..crate::addition("1.0.1") };
    let why = publisher.add(&dir.path().join("artifact"), &"1.0.1".parse().unwrap(), taken).unwrap_err();
    assert!(matches!(why, PublishError::Taken(_, 100)), "{why}");
    // What is added to it is added in all.
    publisher.promote(&"1.1.0".parse().unwrap(), at_once()).unwrap();
    let arm = bumpless_release::Addition {
        target: Some("aarch64-unknown-linux-musl".into()),
        ..crate::addition("1.1.0")
    };
    publisher.add(&dir.path().join("artifact"), &"1.1.0".parse().unwrap(), arm).unwrap();
    assert_eq!(publisher.touched(), [beta(), channel()]);
    publisher.publish_only(&publisher.touched(), NOW).unwrap();
    let (stable, beta) = (index(&publisher, &channel()), index(&publisher, &beta()));
    assert_eq!(stable.releases[1].artifacts, beta.releases[0].artifacts);
    assert_eq!(stable.releases[1].artifacts.len(), 2);
}

#[test]
fn what_is_revoked_is_revoked_in_every_channel_also_in_one_that_begins_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = lab(dir.path());
    publisher.revoke(&"1.1.0".parse().unwrap()).unwrap();
    publisher.set_floor(1).unwrap();
    publisher.pause(true).unwrap();
    publisher.begin(&"edge".parse().unwrap()).unwrap();
    publisher.publish(NOW).unwrap();
    let two = bumpless_trust::refresh::sha256(b"two");
    for (name, floor, paused) in [("stable", 1, true), ("beta", 0, false), ("edge", 0, false)] {
        let index = index(&publisher, &name.parse().unwrap());
        assert_eq!(index.revoked, [two], "{name}");
        assert_eq!((index.min_release_counter, index.paused), (floor, paused), "{name}");
    }
}

#[test]
fn a_change_of_one_channel_does_not_publish_what_is_drafted_in_another() {
    let dir = tempfile::tempdir().unwrap();
    let net = dir.path().join("net");
    let mut publisher = lab(dir.path());
    publisher.pause(true).unwrap();
    drop(publisher);
    let mut publisher = Publisher::open(&net).unwrap();
    add(publisher.turn_to(&beta()).unwrap(), dir.path(), "1.2.0", b"three").unwrap();
    assert_eq!(publisher.touched(), [beta()]);
    publisher.publish_only(&publisher.touched(), NOW).unwrap();
    assert_eq!(names(&index(&publisher, &beta())), ["1.1.0", "1.2.0"]);
    assert!(!index(&publisher, &channel()).paused);
    publisher.publish(NOW).unwrap();
    assert!(index(&publisher, &channel()).paused);

    let typo = "bata".parse().unwrap();
    let why = publisher.turn_to(&typo).unwrap_err().to_string();
    assert!(why.contains("no channel bata; it has beta, stable. `bumpless-release channel bata`"), "{why}");
    assert!(publisher.begin(&beta()).unwrap_err().to_string().contains("has channel beta already"));
    // A copy of a draft would give out versions twice.
    std::fs::copy(net.join("draft.json"), net.join("draft-edge.json")).unwrap();
    drop(publisher);
    let why = Publisher::open(&net).unwrap_err().to_string();
    assert!(why.contains("draft-edge.json is of channel stable"), "{why}");
}

fn signs(people: &People<'_>, publisher: &mut Publisher, who: &str, name: &str, role: Signer) {
    let copy = people.dir.join(who).join(name);
    std::fs::copy(people.dir.join("net/sign").join(name), &copy).unwrap();
    let _ = std::fs::remove_file(people.dir.join(who).join(format!("{name}.sigs")));
    let request = Request::read(&copy, role, Some(&publisher.feed())).unwrap();
    request.sign(&people.secret(who), &people.key(who)).unwrap();
    publisher.merge(&people.dir.join(who).join(format!("{name}.sigs"))).unwrap();
}

/// What the holder of a key does that only the next root names.
fn vouches(people: &People<'_>, publisher: &mut Publisher, who: (&str, Signer), name: &str, number: u64) {
    let (who, signer) = who;
    let bytes = std::fs::read(people.dir.join("net/sign").join(name)).unwrap();
    let path = people.dir.join(format!("{name}.sigs"));
    std::fs::write(&path, people.secret(who).sign(signer, number, &bytes).unwrap()).unwrap();
    publisher.merge(&path).unwrap();
}

#[test]
fn what_waits_for_signatures_in_one_channel_is_not_displaced_by_another() {
    let dir = tempfile::tempdir().unwrap();
    let people = People::new(dir.path(), &["anna", "berta"]);
    let release = Some(people.keys(2, &["anna", "berta"]));
    let options =
        Options { holders: Holders { release, ..Holders::default() }, ..Options::new(channel(), NOW) };
    let mut publisher = Publisher::init(&dir.path().join("net"), &options).unwrap();
    publisher.begin(&beta()).unwrap();
    let (stable, both) = ("index-1.json".to_owned(), "index-beta-1.json".to_owned());
    assert_eq!(waits(publisher.publish(NOW)), [(both.clone(), vec![2]), (stable.clone(), vec![2])]);
    for name in [&stable, &both] {
        signs(&people, &mut publisher, "anna", name, Signer::Release);
    }
    assert_eq!(waits(publisher.publish(NOW)), [(both.clone(), vec![1]), (stable.clone(), vec![1])]);
    // A change in one gets the next number there; what waits in the other keeps what it has.
    publisher.pause(true).unwrap();
    let next = ("index-beta-2.json".to_owned(), vec![2]);
    assert_eq!(waits(publisher.publish(NOW)), [next.clone(), (stable.clone(), vec![1])]);
    signs(&people, &mut publisher, "berta", &stable, Signer::Release);
    assert_eq!(waits(publisher.publish(NOW)), [next]);
    assert_eq!(index(&publisher, &channel()).version, 1, "stable does not wait for beta");
    for who in ["anna", "berta"] {
        signs(&people, &mut publisher, who, "index-beta-2.json", Signer::Release);
    }
    publisher.publish(NOW).unwrap();
    assert_eq!(index(&publisher, &beta()).version, 2);
}

#[test]
fn what_builders_attested_once_counts_in_every_channel_and_what_they_are_asked_is_asked_once() {
    let dir = tempfile::tempdir().unwrap();
    let people = People::new(dir.path(), &["one", "two"]);
    let builders = Some(people.keys(2, &["one", "two"]));
    let options =
        Options { holders: Holders { builders, ..Holders::default() }, ..Options::new(channel(), NOW) };
    let mut publisher = Publisher::init(&dir.path().join("net"), &options).unwrap();
    let name = "build-1.0.0.json".to_owned();
    add(publisher.begin(&beta()).unwrap(), dir.path(), "1.0.0", b"one").unwrap();
    assert_eq!(waits(publisher.publish(NOW)), [(name.clone(), vec![2])]);
    for who in ["one", "two"] {
        signs(&people, &mut publisher, who, &name, Signer::Builders);
    }
    publisher.publish(NOW).unwrap();
    publisher.turn_to(&channel()).unwrap().promote(&"1.0.0".parse().unwrap(), at_once()).unwrap();
    publisher.publish(NOW).unwrap();
    assert_eq!(names(&index(&publisher, &channel())), ["1.0.0"]);

    // Both wait for another target, and go out with the same signatures.
    let arm = bumpless_release::Addition {
        target: Some("aarch64-unknown-linux-musl".into()),
        ..crate::addition("1.0.0")
    };
    publisher.add(&dir.path().join("artifact"), &"1.0.0".parse().unwrap(), arm).unwrap();
    assert_eq!(waits(publisher.publish(NOW)), [(name.clone(), vec![2])]);
    signs(&people, &mut publisher, "one", &name, Signer::Builders);
    assert_eq!(waits(publisher.publish(NOW)), [(name.clone(), vec![1])]);
    signs(&people, &mut publisher, "two", &name, Signer::Builders);
    publisher.publish(NOW).unwrap();
    for channel in [channel(), beta()] {
        assert_eq!(index(&publisher, &channel).releases[0].artifacts.len(), 2);
    }
}

#[test]
fn the_timestamp_of_every_channel_is_renewed_and_one_that_cannot_be_does_not_keep_the_others_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = lab(dir.path());
    publisher.begin(&"edge".parse().unwrap()).unwrap();
    let versions = |publisher: &Publisher| {
        [channel(), beta()].map(|channel| {
            let feed = check(&publisher.feed(), &publisher.first_root(), &channel, NOW, |_| {}).unwrap();
            feed.timestamp().unwrap().version
        })
    };
    assert_eq!(versions(&publisher), [1, 1]);
    publisher.timestamp(NOW).unwrap();
    assert_eq!(versions(&publisher), [2, 2], "one that has published nothing yet is left out");
    publisher.timestamp_only(&[beta()], NOW).unwrap();
    assert_eq!(versions(&publisher), [2, 3]);
    for broken in ["index/1.json", "channel/beta/index/1.json"] {
        let path = publisher.feed().join(broken);
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, "{}").unwrap();
        let why = publisher.timestamp(NOW).unwrap_err().to_string();
        assert!(why.contains("is not as it was published"), "{why}");
        std::fs::write(&path, good).unwrap();
    }
    assert_eq!(versions(&publisher), [3, 4]);
    let why = publisher.timestamp_only(&["edge".parse().unwrap()], NOW).unwrap_err().to_string();
    assert!(why.contains("no index was published yet"), "{why}");
}

#[test]
fn machines_of_every_channel_always_see_a_whole_feed_while_keys_are_rotated() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = lab(dir.path());
    let (feed, done) = (publisher.feed(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for signer in [Signer::Timestamp, Signer::Release, Signer::Root].into_iter().cycle().take(9) {
                publisher.rotate(&[KeyChange::New(signer)], NOW).unwrap();
                publisher.publish_only(&publisher.touched(), NOW).unwrap();
            }
            done.store(true, Ordering::Release);
        });
        let mut machines = [channel(), beta()].map(Follower::of);
        while !done.load(Ordering::Acquire) {
            for machine in &mut machines {
                machine.look(&feed, NOW).unwrap();
            }
        }
        for machine in &mut machines {
            assert_eq!(machine.look(&feed, NOW).unwrap().root().version(), 10);
        }
    });
}

#[test]
fn a_next_root_waits_for_all_channels_and_each_of_them_lives_on_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let people = People::new(dir.path(), &["old", "new"]);
    let release = Some(people.keys(1, &["old"]));
    let options =
        Options { holders: Holders { release, ..Holders::default() }, ..Options::new(channel(), NOW) };
    let mut publisher = Publisher::init(&dir.path().join("net"), &options).unwrap();
    publisher.begin(&beta()).unwrap();
    waits(publisher.publish(NOW));
    for name in ["index-1.json", "index-beta-1.json"] {
        signs(&people, &mut publisher, "old", name, Signer::Release);
    }
    publisher.publish(NOW).unwrap();
    // Nobody follows it yet, so that nothing waits for it.
    publisher.begin(&"edge".parse().unwrap()).unwrap();
    publisher.turn_to(&channel()).unwrap();
    let mut machines = [channel(), beta()].map(Follower::of);
    let mut stand = |publisher: &Publisher, root: u64, indexes: [u64; 2], now: u64| {
        for (machine, index) in machines.iter_mut().zip(indexes) {
            let trusted = machine.look(&publisher.feed(), now).unwrap();
            assert_eq!((trusted.root().version(), trusted.index().unwrap().version), (root, index));
        }
    };
    stand(&publisher, 1, [1, 1], NOW);

    let changes = [
        KeyChange::Remove(Signer::Release, people.public("old")),
        KeyChange::Add(Signer::Release, people.public("new")),
        KeyChange::New(Signer::Timestamp),
    ];
    publisher.rotate(&changes, NOW).unwrap();
    let (stable, both) = ("index-2.json".to_owned(), "index-beta-2.json".to_owned());
    let only = [channel()];
    assert_eq!(
        waits(publisher.publish_only(&only, NOW)),
        [(stable.clone(), vec![1]), (both.clone(), vec![1])]
    );
    let sign = |publisher: &mut Publisher, name: &str| {
        vouches(&people, publisher, ("new", Signer::Release), name, 2);
    };
    sign(&mut publisher, &stable);
    assert_eq!(waits(publisher.publish_only(&only, NOW)), [(both.clone(), vec![1])]);
    // Stable's new index counts under the next root alone: it is not there, and what is there is renewed.
    publisher.timestamp(NOW + 3600).unwrap();
    stand(&publisher, 1, [1, 1], NOW + 3600);
    sign(&mut publisher, &both);
    publisher.publish_only(&only, NOW + 3600).unwrap();
    stand(&publisher, 2, [2, 2], NOW + 3600);
    publisher.timestamp(NOW + 7200).unwrap();
    stand(&publisher, 2, [2, 2], NOW + 7200);
}

#[test]
fn while_a_next_root_with_other_builders_waits_for_a_channel_no_machine_meets_what_they_alone_have_built() {
    let dir = tempfile::tempdir().unwrap();
    let people = People::new(dir.path(), &["one", "two"]);
    let builders = Some(people.keys(1, &["one"]));
    let options =
        Options { holders: Holders { builders, ..Holders::default() }, ..Options::new(channel(), NOW) };
    let mut publisher = Publisher::init(&dir.path().join("net"), &options).unwrap();
    add(&mut publisher, dir.path(), "1.0.0", b"one").unwrap();
    add(publisher.begin(&beta()).unwrap(), dir.path(), "1.1.0", b"two").unwrap();
    waits(publisher.publish(NOW));
    for release in ["1.0.0", "1.1.0"] {
        signs(&people, &mut publisher, "one", &format!("build-{release}.json"), Signer::Builders);
    }
    publisher.publish(NOW).unwrap();
    let mut machine = Follower::of(channel());
    assert_eq!(names(machine.look(&publisher.feed(), NOW).unwrap().index().unwrap()), ["1.0.0"]);

    let changes = [
        KeyChange::Add(Signer::Builders, people.public("two")),
        KeyChange::Remove(Signer::Builders, people.public("one")),
    ];
    publisher.rotate(&changes, NOW).unwrap();
    add(publisher.turn_to(&channel()).unwrap(), dir.path(), "1.0.1", b"three").unwrap();
    assert_eq!(waits(publisher.publish(NOW)).len(), 3);
    for (release, number) in [("1.0.0", 1), ("1.0.1", 2)] {
        let name = format!("build-{release}.json");
        vouches(&people, &mut publisher, ("two", Signer::Builders), &name, number);
    }
    assert_eq!(waits(publisher.publish(NOW)), [("build-1.1.0.json".to_owned(), vec![1])]);
    let trusted = machine.look(&publisher.feed(), NOW).unwrap();
    assert_eq!((trusted.root().version(), names(trusted.index().unwrap())), (1, vec!["1.0.0"]));
    vouches(&people, &mut publisher, ("two", Signer::Builders), "build-1.1.0.json", 100);
    publisher.publish(NOW).unwrap();
    let trusted = machine.look(&publisher.feed(), NOW).unwrap();
    assert_eq!((trusted.root().version(), names(trusted.index().unwrap())), (2, vec!["1.0.0", "1.0.1"]));
}

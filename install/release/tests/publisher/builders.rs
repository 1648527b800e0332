//! Independent builders, from their machines to the machines that ask for them.
use std::path::Path;
use std::process::Command;

use crate::follower::Follower;
use crate::{NOW, People, add, alone_with_programs, channel, publisher, waits};
use bumpless_release::attest::{Attestation, attest};
use bumpless_release::check::{Faulty, check};
use bumpless_release::{Holders, KeyChange, Options, PublishError, Publisher, Signer};
use bumpless_trust::build::BadBuild;
use bumpless_trust::refresh::sha256;
use bumpless_trust::signature::BadSignatures;
use bumpless_trust::{Refused, WhyNot};

const TARGET: &str = "riscv64gc-unknown-linux-gnu";

/// Two of three builders are asked for.
fn with_builders(dir: &Path) -> (People<'_>, Publisher) {
    let people = People::new(dir, &["one", "two", "three", "stranger"]);
    let builders = Some(people.keys(2, &["one", "two", "three"]));
    let options =
        Options { holders: Holders { builders, ..Holders::default() }, ..Options::new(channel(), NOW) };
    let publisher = Publisher::init(&dir.join("net"), &options).unwrap();
    (people, publisher)
}

/// A builder builds these bytes and says so.
fn builds(people: &People<'_>, publisher: &Publisher, who: &str, bytes: &[u8]) -> Result<(), PublishError> {
    let folder = people.dir.join(who);
    std::fs::write(folder.join("node"), bytes).unwrap();
    let attestation = Attestation {
        release: "1.0.0".parse().unwrap(),
        counter: 1,
        commit: "5f1c0de".into(),
        artifacts: vec![(TARGET.into(), folder.join("node"))],
    };
    let key = people.secret(who);
    attest(&folder, &publisher.first_root(), &attestation, (&key, &people.key(who))).map(|_| ())
}

fn merge(people: &People<'_>, publisher: &mut Publisher, who: &str) -> Result<(), PublishError> {
    publisher.merge(&people.dir.join(who).join("build-1.0.0.json.sigs")).map(|_| ())
}

fn add_for_target(publisher: &mut Publisher, dir: &Path, bytes: &[u8]) {
    std::fs::write(dir.join("artifact"), bytes).unwrap();
    let addition = bumpless_release::Addition {
        target: Some(TARGET.into()),
        commit: "5f1c0de".into(),
        ..crate::addition("1.0.0")
    };
    publisher.add(&dir.join("artifact"), &"1.0.0".parse().unwrap(), addition).unwrap();
}

fn accepted(publisher: &Publisher) -> Result<Vec<String>, Faulty> {
    let mut said = Vec::new();
    check(&publisher.feed(), &publisher.first_root(), &channel(), NOW, |line| said.push(line)).map(|_| said)
}

#[test]
fn a_release_goes_out_when_two_builders_have_signed_the_same_and_one_of_them_is_refused_by_all() {
    let dir = tempfile::tempdir().unwrap();
    let (people, mut publisher) = with_builders(dir.path());
    add_for_target(&mut publisher, dir.path(), b"node");
    assert_eq!(waits(publisher.publish(NOW)), [("build-1.0.0.json".to_owned(), vec![2])]);
    for _ in 0..2 {
        builds(&people, &publisher, "one", b"node").unwrap();
    }
    let sigs = std::fs::read_to_string(dir.path().join("one/build-1.0.0.json.sigs")).unwrap();
    assert_eq!(sigs.lines().count(), 4, "signed again");
    merge(&people, &mut publisher, "one").unwrap();
    assert_eq!(waits(publisher.publish(NOW)), [("build-1.0.0.json".to_owned(), vec![1])]);
    assert!(!publisher.feed().join("timestamp.json").exists());
    builds(&people, &publisher, "three", b"node").unwrap();
    merge(&people, &mut publisher, "three").unwrap();
    publisher.publish(NOW).unwrap();
    let said = accepted(&publisher).unwrap().join("\n");
    assert!(
        said.contains("release 1.0.0 consists of is signed by 2 of 3 keys (2 needed) of its builders"),
        "{said}"
    );

    // Somebody else's publisher, or a thief with every key but theirs, publishes with one of them.
    let name = publisher.index().releases[0].build.sums_sha256.unwrap();
    let sigs = publisher.feed().join(format!("build/{name}.sigs"));
    let both = std::fs::read_to_string(&sigs).unwrap();
    let one: String = both.lines().take(4).map(|line| format!("{line}\n")).collect();
    std::fs::write(&sigs, one).unwrap();
    let too_few = BadBuild::Signatures(BadSignatures::TooFew { have: 1, need: 2 });
    match accepted(&publisher) {
        Err(Faulty::Refused(why)) => assert_eq!(why, Refused::Build(name, too_few)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_builder_to_whom_something_else_came_out_is_told_apart_with_the_difference() {
    let dir = tempfile::tempdir().unwrap();
    let (people, mut publisher) = with_builders(dir.path());
    add_for_target(&mut publisher, dir.path(), b"node");
    waits(publisher.publish(NOW));
    builds(&people, &publisher, "two", b"another").unwrap();
    let why = merge(&people, &mut publisher, "two").unwrap_err().to_string();
    let found = bumpless_trust::refresh::sha256(b"another").to_string();
    assert!(
        why.contains("another result than ours") && why.contains(TARGET) && why.contains(&found),
        "{why}"
    );
    // It does not sign two results under one name either.
    let why = builds(&people, &publisher, "two", b"node").unwrap_err().to_string();
    assert!(why.contains("is there already, and says something else"), "{why}");
    assert!(matches!(builds(&people, &publisher, "stranger", b"node"), Err(PublishError::NotAKeyOf(..))));
}

#[test]
fn another_target_of_a_release_asks_its_builders_again() {
    let dir = tempfile::tempdir().unwrap();
    let (people, mut publisher) = with_builders(dir.path());
    add_for_target(&mut publisher, dir.path(), b"node");
    waits(publisher.publish(NOW));
    for who in ["one", "two"] {
        builds(&people, &publisher, who, b"node").unwrap();
        merge(&people, &mut publisher, who).unwrap();
    }
    publisher.publish(NOW).unwrap();
    add(&mut publisher, dir.path(), "1.0.0", b"for this machine").unwrap();
    assert_eq!(waits(publisher.publish(NOW)), [("build-1.0.0.json".to_owned(), vec![2])]);
    assert!(accepted(&publisher).is_ok(), "the feed is whole meanwhile");
}

#[test]
fn a_root_that_begins_to_ask_builders_leaves_older_releases_where_they_are_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let people = People::new(dir.path(), &["one"]);
    let mut publisher = publisher(&dir.path().join("net"));
    add_for_target(&mut publisher, dir.path(), b"node");
    publisher.publish(NOW).unwrap();
    publisher.rotate(&[KeyChange::Add(Signer::Builders, people.public("one"))], NOW).unwrap();
    publisher.publish(NOW).unwrap();
    let said = accepted(&publisher).unwrap().join("\n");
    assert!(said.contains("release 1.0.0 is not newly installed anywhere"), "{said}");
    // Added once more, its builders are asked.
    add_for_target(&mut publisher, dir.path(), b"node");
    assert_eq!(waits(publisher.publish(NOW)), [("build-1.0.0.json".to_owned(), vec![1])]);
    let root = publisher.feed().join("root/2.json");
    let attestation = Attestation {
        release: "1.0.0".parse().unwrap(),
        counter: 1,
        commit: "5f1c0de".into(),
        artifacts: vec![(TARGET.into(), dir.path().join("artifact"))],
    };
    let out = dir.path().join("one");
    attest(&out, &root, &attestation, (&people.secret("one"), &people.key("one"))).unwrap();
    publisher.merge(&out.join("build-1.0.0.json.sigs")).unwrap();
    publisher.publish(NOW).unwrap();
    let trusted = Follower::default().look(&publisher.feed(), NOW).unwrap();
    let machine = bumpless_trust::Machine {
        targets: vec![TARGET.to_owned()],
        supervisor: [0, 1, 0],
        contract: bumpless_shared::version::Range { min: 1, max: 1 },
        state: None,
        id: sha256(b"machine"),
        group: None,
        pin: None,
    };
    let choice = trusted.choose(&machine, None, &bumpless_trust::Request::Newest, |_| None, NOW, 0);
    assert!(choice.is_ok(), "{:?}", choice.err().map(|why: WhyNot| why.to_string()));
    // And nobody is asked any more.
    publisher.rotate(&[KeyChange::NoBuilders], NOW).unwrap();
    publisher.publish(NOW).unwrap();
    assert!(!accepted(&publisher).unwrap().join("\n").contains("builders"));
}

#[test]
fn a_builder_attests_from_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let (people, mut publisher) = with_builders(dir.path());
    add_for_target(&mut publisher, dir.path(), b"node");
    waits(publisher.publish(NOW));
    for who in ["one", "two"] {
        std::fs::write(dir.path().join(who).join("node"), b"node").unwrap();
        let _alone = alone_with_programs();
        let output = Command::new(env!("CARGO_BIN_EXE_bumpless-release"))
            .current_dir(dir.path().join(who))
            .args(["attest", &format!("{TARGET}=node"), "--root", "../net/feed/root/1.json"])
            .args(["--release", "1.0.0", "--counter", "1", "--commit", "5f1c0de"])
            .args(["--key", people.key(who).to_str().unwrap()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "./build-1.0.0.json\n");
    }
    for who in ["one", "two"] {
        merge(&people, &mut publisher, who).unwrap();
    }
    publisher.publish(NOW).unwrap();
    assert!(accepted(&publisher).is_ok());
}

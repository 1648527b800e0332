//! What is published is what a client accepts, at every moment.
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{NOW, add, addition, channel, publisher};
use bumpless_release::check::{Faulty, check};
use bumpless_release::{Options, PublishError, Publisher, Server, Spread};
use bumpless_trust::document::{MAX_TIMESTAMP_VALID, Stage};
use bumpless_trust::{Refused, Role, Trusted};

fn accepted(publisher: &Publisher) -> Result<Trusted, Faulty> {
    check(&publisher.feed(), &publisher.first_root(), &channel(), NOW, |_| {})
}

#[test]
fn a_published_feed_passes_a_whole_client_run_that_names_every_step() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = publisher(dir.path());
    add(&mut publisher, dir.path(), "1.0.0", &vec![7; 3_000_000]).unwrap();
    publisher.publish(NOW).unwrap();
    let mut said = Vec::new();
    let trusted =
        check(&publisher.feed(), &publisher.first_root(), &channel(), NOW, |line| said.push(line)).unwrap();
    assert_eq!(trusted.index().unwrap().releases[0].artifacts[0].raw_size, 3_000_000);
    for (line, begin) in said.iter().zip([
        "root 1 is",
        "there is no root 2",
        "timestamp 1 names",
        "index 1 is",
        "release 1.0.0 for",
    ]) {
        assert!(line.starts_with(begin), "{line}");
    }
    assert_eq!(said.len(), 5);
}

#[test]
fn adding_the_same_again_changes_nothing_and_other_bytes_under_the_same_version_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = publisher(dir.path());
    add(&mut publisher, dir.path(), "1.0.0", b"one").unwrap();
    let before = publisher.index().clone();
    add(&mut publisher, dir.path(), "1.0.0", b"one").unwrap();
    assert_eq!(*publisher.index(), before);
    let why = add(&mut publisher, dir.path(), "1.0.0", b"other").unwrap_err();
    assert!(matches!(why, PublishError::Taken(..)), "{why}");
    let mut wrong = addition("1.0.1");
    wrong.description.as_mut().unwrap().release = "1.0.2".parse().unwrap();
    let why = publisher.add(&dir.path().join("artifact"), &"1.0.1".parse().unwrap(), wrong).unwrap_err();
    assert!(matches!(why, PublishError::OtherRelease { .. }), "{why}");
}

#[test]
fn a_publisher_goes_on_where_the_last_one_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = publisher(dir.path());
    add(&mut first, dir.path(), "1.0.0", b"one").unwrap();
    first.publish(NOW).unwrap();
    assert!(matches!(
        Publisher::init(dir.path(), &Options::new(channel(), NOW)),
        Err(PublishError::Exists(_))
    ));
    drop(first);
    let mut second = Publisher::open(dir.path()).unwrap();
    add(&mut second, dir.path(), "1.1.0", b"two").unwrap();
    second.publish(NOW).unwrap();
    let trusted = accepted(&second).unwrap();
    let index = trusted.index().unwrap();
    assert_eq!((index.version, index.releases.len(), index.releases[1].counter), (2, 2, 2));
    second.timestamp(NOW).unwrap();
    assert_eq!(accepted(&second).unwrap().timestamp().unwrap().version, 3);
}

#[test]
fn promoting_pausing_and_revoking_reach_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = publisher(dir.path());
    add(&mut publisher, dir.path(), "1.0.0", b"one").unwrap();
    let version = "1.0.0".parse().unwrap();
    let stages = vec![Stage { after: 0, permille: 10 }, Stage { after: 60, permille: 1000 }];
    let canaries = vec!["canary".parse().unwrap()];
    let group = Some("eu".parse().unwrap());
    let spread = Spread { start: NOW, group, canaries, stages: stages.clone() };
    publisher.promote(&version, spread.clone()).unwrap();
    publisher.pause(true).unwrap();
    publisher.revoke(&version).unwrap();
    publisher.set_floor(2).unwrap();
    publisher.publish(NOW).unwrap();
    let trusted = accepted(&publisher).unwrap();
    let index = trusted.index().unwrap();
    let rollout = &index.releases[0].rollout;
    assert_eq!(
        (&rollout.stages, &rollout.group, &rollout.canaries),
        (&stages, &spread.group, &spread.canaries)
    );
    assert!(index.paused);
    assert_eq!((index.revoked.len(), index.min_release_counter), (1, 2));
    assert!(matches!(publisher.revoke(&"9.9.9".parse().unwrap()), Err(PublishError::Unknown(_))));
    let falling = vec![Stage { after: 0, permille: 1000 }, Stage { after: 60, permille: 10 }];
    let spread = Spread { stages: falling, ..spread };
    assert!(matches!(publisher.promote(&version, spread), Err(PublishError::Value(_))));
}

#[test]
fn a_lab_feed_is_valid_for_thirty_days_and_an_ordinary_one_for_three() {
    for (valid, days) in [(MAX_TIMESTAMP_VALID, 30), (Options::new(channel(), NOW).timestamp_valid, 3)] {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { timestamp_valid: valid, ..Options::new(channel(), NOW) };
        let mut publisher = Publisher::init(dir.path(), &options).unwrap();
        publisher.publish(NOW).unwrap();
        let at = |now| check(&publisher.feed(), &publisher.first_root(), &channel(), now, |_| {});
        assert!(at(NOW + days * 86_400 - 1).is_ok());
        assert!(matches!(
            at(NOW + days * 86_400),
            Err(Faulty::Refused(Refused::Expired(Role::Timestamp, _)))
        ));
    }
}

#[test]
fn an_index_is_renewed_when_half_of_its_time_is_over_and_what_expires_is_told_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = publisher(dir.path());
    publisher.publish(NOW).unwrap();
    for (days, index, told) in [(44, 1, 0), (46, 2, 0), (46 + 44, 2, 0), (46 + 61, 2, 1)] {
        let now = NOW + days * 86_400;
        let renew = days != 46 + 61;
        if renew {
            publisher.publish(now).unwrap()
        } else {
            publisher.timestamp(now).unwrap()
        }
        assert_eq!(publisher.index().version, index, "after {days} days");
        assert_eq!(publisher.expiring(now).unwrap().len(), told, "after {days} days");
    }
    let said = publisher.expiring(NOW + 700 * 86_400).unwrap().join("; ");
    assert!(
        said.contains("index 2 of channel stable expires on 2027-")
            && said.contains("root 1 expires on 2029-"),
        "{said}"
    );
}

#[test]
fn a_timestamp_is_not_renewed_over_an_index_that_somebody_has_changed() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = publisher(dir.path());
    publisher.publish(NOW).unwrap();
    let path = publisher.feed().join("index/1.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"paused\":false", "\"paused\":true")).unwrap();
    let before = std::fs::read(publisher.feed().join("timestamp.json")).unwrap();
    let why = publisher.timestamp(NOW + 60).unwrap_err().to_string();
    assert!(
        why.contains("index 1 of channel stable in ") && why.contains("is not as it was published"),
        "{why}"
    );
    assert_eq!(std::fs::read(publisher.feed().join("timestamp.json")).unwrap(), before);
    std::fs::write(&path, text).unwrap();
    publisher.timestamp(NOW + 60).unwrap();
    assert!(accepted(&publisher).is_ok());
}

#[test]
fn a_damaged_blob_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = publisher(dir.path());
    add(&mut publisher, dir.path(), "1.0.0", b"one").unwrap();
    publisher.publish(NOW).unwrap();
    let blob = publisher.feed().join(publisher.index().releases[0].artifacts[0].path());
    let mut bytes = std::fs::read(&blob).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    assert!(matches!(accepted(&publisher), Err(Faulty::Blob(..))));
}

#[test]
fn a_client_that_reads_while_others_are_published_always_sees_a_whole_feed() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = publisher(dir.path());
    add(&mut publisher, dir.path(), "1.0.0", b"one").unwrap();
    publisher.publish(NOW).unwrap();
    let (feed, first) = (publisher.feed(), publisher.first_root());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=40 {
                publisher.pause(round % 2 == 0).unwrap();
                publisher.publish(NOW).unwrap();
            }
            done.store(true, Ordering::Release);
        });
        let mut runs = 0;
        while !done.load(Ordering::Acquire) {
            check(&feed, &first, &channel(), NOW, |_| {}).unwrap();
            runs += 1;
        }
        assert!(runs > 0);
    });
}

#[test]
fn the_server_answers_whole_files_ranges_and_unknown_names_and_is_gone_when_dropped() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), b"0123456789").unwrap();
    let server = Server::start(dir.path()).unwrap();
    let address = server.address();
    let ask = |path: &str, headers: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(ask("/file", "").ends_with("\r\n\r\n0123456789"));
    let part = ask("/file", "Range: bytes=3-5\r\n");
    assert!(part.starts_with("HTTP/1.1 206") && part.ends_with("\r\n\r\n345"), "{part}");
    assert!(ask("/none", "").starts_with("HTTP/1.1 404"));
    assert!(!ask("/../file", "").starts_with("HTTP/1.1 200"));
    // A connection that stays open does not keep the server alive.
    let open = TcpStream::connect(address).unwrap();
    drop(server);
    assert!(TcpStream::connect(address).is_err());
    drop(open);
    let elsewhere = Server::start_on(dir.path(), "0.0.0.0:0".parse().unwrap());
    assert_eq!(elsewhere.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
}

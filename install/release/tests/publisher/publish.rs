//! What is published is what a client accepts, at every moment.
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use bumpless_release::check::{Faulty, check};
use bumpless_release::key::Key;
use bumpless_release::{Addition, Options, PublishError, Publisher, Server};
use bumpless_shared::control::{Description, StateRange};
use bumpless_shared::version::Range;
use bumpless_trust::document::{Channel, MAX_TIMESTAMP_VALID, Stage};
use bumpless_trust::{Refused, Role, Trusted};

const NOW: u64 = 1_800_000_000;

fn channel() -> Channel {
    "stable".parse().unwrap()
}

fn addition(version: &str) -> Addition {
    let description = Description {
        release: version.parse().unwrap(),
        contract: Range { min: 1, max: 1 },
        protocol: Range { min: 1, max: 1 },
        state: StateRange { read_min: 1, read_max: 1, write: 1 },
    };
    Addition { description: Some(description), ..Addition::default() }
}

fn publisher(dir: &Path) -> Publisher {
    Publisher::init(dir, &Options::new(channel(), NOW)).unwrap()
}

fn add(publisher: &mut Publisher, dir: &Path, version: &str, bytes: &[u8]) -> Result<(), PublishError> {
    let path = dir.join("artifact");
    std::fs::write(&path, bytes).unwrap();
    publisher.add(&path, &version.parse().unwrap(), addition(version)).map(|_| ())
}

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
    let mut second = Publisher::open(dir.path(), None).unwrap();
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
    publisher.promote(&version, NOW, stages.clone()).unwrap();
    publisher.pause(true).unwrap();
    publisher.revoke(&version).unwrap();
    publisher.set_floor(2).unwrap();
    publisher.publish(NOW).unwrap();
    let trusted = accepted(&publisher).unwrap();
    let index = trusted.index().unwrap();
    assert_eq!(index.releases[0].rollout.stages, stages);
    assert!(index.paused);
    assert_eq!((index.revoked.len(), index.min_release_counter), (1, 2));
    assert!(matches!(publisher.revoke(&"9.9.9".parse().unwrap()), Err(PublishError::Unknown(_))));
    let falling = vec![Stage { after: 0, permille: 1000 }, Stage { after: 60, permille: 10 }];
    assert!(matches!(publisher.promote(&version, NOW, falling), Err(PublishError::Value(_))));
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

/// Whether the minisign tool is here; where it has to be, it is.
fn minisign_tool() -> bool {
    let _alone = crate::alone_with_programs();
    let here = Command::new("minisign").arg("-v").output().is_ok();
    if !here {
        assert!(std::env::var_os("BUMPLESS_REQUIRE_ALL").is_none(), "the minisign tool is not installed");
        eprintln!("left out: the minisign tool is not installed");
    }
    here
}

fn minisign(arguments: &[&str]) {
    let _alone = crate::alone_with_programs();
    let output = Command::new("minisign").args(arguments).output().unwrap();
    assert!(output.status.success(), "minisign {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_we_sign_verifies_with_the_minisign_tool() {
    if !minisign_tool() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = publisher(dir.path());
    publisher.publish(NOW).unwrap();
    for (name, key) in [("root/1.json", "root"), ("index/1.json", "release"), ("timestamp.json", "timestamp")]
    {
        let file = publisher.feed().join(name);
        let public = dir.path().join(format!("keys/{key}.pub"));
        let sigs = format!("{}.sigs", file.display());
        minisign(&["-V", "-H", "-p", public.to_str().unwrap(), "-x", &sigs, "-m", file.to_str().unwrap()]);
    }
}

#[test]
fn what_the_minisign_tool_signs_is_accepted_and_its_keys_can_be_used_here() {
    if !minisign_tool() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    minisign(&["-G", "-W", "-p", &path("tool.pub"), "-s", &path("tool.key")]);

    // The tool's keys, our feed.
    let mut publisher = publisher(&dir.path().join("feed"));
    publisher.publish(NOW).unwrap();
    let key = Key::read(Path::new(&path("tool.key")), None).unwrap();
    let root = std::fs::read_to_string(publisher.first_root()).unwrap();
    let ours = std::fs::read_to_string(dir.path().join("feed/keys/timestamp.pub")).unwrap();
    let root = root.replace(ours.lines().nth(1).unwrap(), &key.public());
    std::fs::write(publisher.first_root(), &root).unwrap();
    let root_key = Key::read(&dir.path().join("feed/keys/root.key"), None).unwrap();
    let sigs = root_key.sign(Role::Root, 1, root.as_bytes()).unwrap();
    std::fs::write(format!("{}.sigs", publisher.first_root().display()), sigs).unwrap();
    assert!(matches!(accepted(&publisher), Err(Faulty::Refused(Refused::Signatures(Role::Timestamp, _)))));

    // The tool signs the timestamp.
    let file = publisher.feed().join("timestamp.json");
    let sigs = format!("{}.sigs", file.display());
    let (key, comment) = (path("tool.key"), "bumpless/1 timestamp 1");
    minisign(&["-S", "-s", &key, "-x", &sigs, "-t", comment, "-m", file.to_str().unwrap()]);
    accepted(&publisher).unwrap();
    minisign(&["-S", "-l", "-s", &key, "-x", &sigs, "-t", comment, "-m", file.to_str().unwrap()]);
    assert!(accepted(&publisher).is_err(), "a signature in the legacy format");
}

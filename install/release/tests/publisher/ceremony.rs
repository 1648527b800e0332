//! Several holders, none of whom can publish alone.
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{NOW, People, add, alone_with_programs, channel, waits};
use bumpless_release::check::check;
use bumpless_release::{Holders, Options, PublishError, Publisher, Request, Signer};
use bumpless_trust::Role;

const EVERYONE: [&str; 6] = ["anna", "berta", "carla", "root-1", "root-2", "root-3"];

/// Two of three for releases, two of three for the root; the timestamp's key is at hand.
fn shared(dir: &Path) -> (People<'_>, Publisher) {
    let people = People::new(dir, &EVERYONE);
    let holders = Holders {
        root: Some(people.keys(2, &["root-1", "root-2", "root-3"])),
        release: Some(people.keys(2, &["anna", "berta", "carla"])),
        ..Holders::default()
    };
    let options = Options { holders, ..Options::new(channel(), NOW) };
    let publisher = Publisher::init(&dir.join("net"), &options).unwrap();
    (people, publisher)
}

/// What a holder does: takes a copy of the file, signs it, and sends the `.sigs` back.
fn signs(people: &People<'_>, publisher: &mut Publisher, who: &str, name: &str, role: Signer) {
    let copy = people.dir.join(who).join(name);
    std::fs::copy(people.dir.join("net/sign").join(name), &copy).unwrap();
    let request = Request::read(&copy, role, Some(&publisher.feed())).unwrap();
    request.sign(&people.secret(who), &people.key(who)).unwrap();
    let sigs = people.dir.join(who).join(format!("{name}.sigs"));
    assert_eq!(publisher.merge(&sigs).unwrap().new, [who]);
}

/// The same feed with its first root and first index published.
fn published(dir: &Path) -> (People<'_>, Publisher) {
    let (people, mut publisher) = shared(dir);
    for who in ["root-1", "root-3"] {
        signs(&people, &mut publisher, who, "root-1.json", Signer::Root);
    }
    add(&mut publisher, dir, "1.0.0", b"one").unwrap();
    assert_eq!(waits(publisher.publish(NOW)), [("index-1.json".to_owned(), vec![2])]);
    for who in ["anna", "carla"] {
        signs(&people, &mut publisher, who, "index-1.json", Signer::Release);
    }
    publisher.publish(NOW).unwrap();
    (people, publisher)
}

fn accepted(publisher: &Publisher) -> u64 {
    let trusted = check(&publisher.feed(), &publisher.first_root(), &channel(), NOW, |_| {}).unwrap();
    trusted.index().unwrap().version
}

#[test]
fn nothing_is_published_before_enough_holders_have_signed_and_it_is_said_whose_signatures_are_missing() {
    let dir = tempfile::tempdir().unwrap();
    let (people, mut publisher) = shared(dir.path());
    let fingerprint = publisher.fingerprint().unwrap();
    assert!(!publisher.first_root().exists());
    assert_eq!(waits(publisher.publish(NOW)), [("root-1.json".to_owned(), vec![2])]);
    signs(&people, &mut publisher, "root-2", "root-1.json", Signer::Root);
    let why = publisher.publish(NOW).unwrap_err().to_string();
    assert!(
        why.contains("root-1.json has 1 of 2 signatures as root of root 1; signed by root-2; 1 missing, of root-1, root-3"),
        "{why}"
    );
    assert!(!publisher.first_root().exists());
    signs(&people, &mut publisher, "root-1", "root-1.json", Signer::Root);
    // The root is there now; the first index waits in its turn, and so does the timestamp for it.
    assert_eq!(waits(publisher.publish(NOW)), [("index-1.json".to_owned(), vec![2])]);
    assert!(publisher.first_root().exists() && !publisher.feed().join("timestamp.json").exists());
    assert_eq!(publisher.fingerprint().unwrap(), fingerprint, "it was known before anyone signed");
    assert!(matches!(publisher.timestamp(NOW), Err(PublishError::Value(_))));
    signs(&people, &mut publisher, "berta", "index-1.json", Signer::Release);
    assert_eq!(waits(publisher.publish(NOW)), [("index-1.json".to_owned(), vec![1])]);
    signs(&people, &mut publisher, "carla", "index-1.json", Signer::Release);
    publisher.publish(NOW).unwrap();
    assert_eq!(accepted(&publisher), 1);
    assert_eq!(std::fs::read_dir(dir.path().join("net/sign")).unwrap().count(), 0, "nothing waits any more");
}

#[test]
fn a_feed_that_cannot_be_made_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let people = People::new(dir.path(), &["anna"]);
    let net = dir.path().join("net");
    let init = |threshold, names: &[&str]| {
        let holders = Holders { release: Some(people.keys(threshold, names)), ..Holders::default() };
        Publisher::init(&net, &Options { holders, ..Options::new(channel(), NOW) })
    };
    assert!(matches!(init(1, &["anna", "nobody"]), Err(PublishError::Key(_))));
    let why = init(2, &["anna"]).unwrap_err().to_string();
    assert!(why.contains("2 signatures are required of 1 distinct keys"), "{why}");
    assert!(!net.exists());
    assert!(init(1, &["anna"]).is_ok());
}

#[test]
fn what_waits_survives_the_process_and_a_change_meanwhile_gets_a_version_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (people, mut publisher) = published(dir.path());
    publisher.pause(true).unwrap();
    assert_eq!(waits(publisher.publish(NOW)), [("index-2.json".to_owned(), vec![2])]);
    signs(&people, &mut publisher, "anna", "index-2.json", Signer::Release);
    let second = std::fs::read(dir.path().join("net/sign/index-2.json")).unwrap();
    drop(publisher);
    let mut publisher = Publisher::open(&dir.path().join("net")).unwrap();
    assert_eq!(waits(publisher.publish(NOW + 60)), [("index-2.json".to_owned(), vec![1])]);
    assert_eq!(std::fs::read(dir.path().join("net/sign/index-2.json")).unwrap(), second);
    // The feed lives on meanwhile.
    publisher.timestamp(NOW + 60).unwrap();
    assert_eq!(accepted(&publisher), 1);

    publisher.set_floor(1).unwrap();
    assert_eq!(waits(publisher.publish(NOW)), [("index-3.json".to_owned(), vec![2])]);
    assert!(!dir.path().join("net/sign/index-2.json").exists());
    let late = dir.path().join("anna/index-2.json.sigs");
    assert!(publisher.merge(&late).unwrap_err().to_string().contains("nothing waits for these signatures"));
    for who in ["anna", "berta"] {
        signs(&people, &mut publisher, who, "index-3.json", Signer::Release);
    }
    publisher.publish(NOW).unwrap();
    assert_eq!(accepted(&publisher), 3);
}

#[test]
fn a_timestamp_of_several_holders_waits_like_everything_else() {
    let dir = tempfile::tempdir().unwrap();
    let people = People::new(dir.path(), &EVERYONE);
    let timestamp = Some(people.keys(2, &["anna", "berta"]));
    let options =
        Options { holders: Holders { timestamp, ..Holders::default() }, ..Options::new(channel(), NOW) };
    let mut publisher = Publisher::init(&dir.path().join("net"), &options).unwrap();
    assert_eq!(waits(publisher.publish(NOW)), [("timestamp-1.json".to_owned(), vec![2])]);
    signs(&people, &mut publisher, "anna", "timestamp-1.json", Signer::Timestamp);
    assert_eq!(waits(publisher.timestamp(NOW + 3600)), [("timestamp-1.json".to_owned(), vec![1])]);
    signs(&people, &mut publisher, "berta", "timestamp-1.json", Signer::Timestamp);
    publisher.timestamp(NOW + 3600).unwrap();
    assert_eq!(accepted(&publisher), 1);
    // One that waited until half of its time is over is not worth signing any more.
    assert_eq!(waits(publisher.timestamp(NOW)), [("timestamp-2.json".to_owned(), vec![2])]);
    assert_eq!(waits(publisher.timestamp(NOW + 40 * 3600)), [("timestamp-3.json".to_owned(), vec![2])]);
}

#[test]
fn a_holder_is_shown_everything_that_a_file_says_and_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (_people, mut publisher) = published(dir.path());
    add(&mut publisher, dir.path(), "1.1.0", b"two").unwrap();
    publisher.revoke(&"1.0.0".parse().unwrap()).unwrap();
    publisher.pause(true).unwrap();
    publisher.set_floor(2).unwrap();
    waits(publisher.publish(NOW));
    let file = dir.path().join("net/sign/index-2.json");
    let shown = |feed: Option<&Path>| Request::read(&file, Signer::Release, feed).unwrap().words().join("\n");
    let words = shown(Some(&publisher.feed()));
    let two = bumpless_trust::refresh::sha256(b"two").to_string();
    for what in [
        "index 2 of channel stable, valid until 2027-",
        "it has release 1.1.0, number 2",
        &two,
        "Compared with root 1 of the feed, reached from its first root, SHA-256 ",
        &publisher.fingerprint().unwrap().to_string(),
        "index 1 is published; this one",
        "adds release 1.1.0",
        "revokes ",
        "(1.0.0)",
        "pauses the channel",
        "forbids releases below number 2; it was 0",
    ] {
        assert!(words.contains(what), "{what:?} is not in:\n{words}");
    }
    assert!(shown(None).contains("compared with nothing"));

    // The other way round: what was there before can be changed only in plain sight.
    let mut text = std::fs::read_to_string(publisher.feed().join("index/1.json")).unwrap();
    let one = bumpless_trust::refresh::sha256(b"one").to_string();
    assert!(text.contains(&one));
    text = text.replace(&one, &two).replacen("\"version\":1", "\"version\":2", 1);
    std::fs::write(&file, text).unwrap();
    let words = shown(Some(&publisher.feed()));
    assert!(words.contains("CHANGES 1.0.0 from") && words.contains(&one) && words.contains(&two), "{words}");
}

#[test]
fn nobody_signs_what_cannot_be_shown_or_is_not_the_next_file_of_this_feed_in_this_role() {
    let dir = tempfile::tempdir().unwrap();
    let (people, mut publisher) = published(dir.path());
    publisher.pause(true).unwrap();
    waits(publisher.publish(NOW));
    let (file, feed) = (dir.path().join("net/sign/index-2.json"), publisher.feed());
    let good = std::fs::read_to_string(&file).unwrap();
    let refused = |text: &str, role| {
        std::fs::write(&file, text).unwrap();
        Request::read(&file, role, Some(&feed)).unwrap_err().to_string()
    };
    let unknown = "\"artifacts\":[{\"kind\":\"wasm-judge\"},";
    let cannot_show = "does not know and cannot show you";
    assert!(refused(&good.replace("\"artifacts\":[", unknown), Signer::Release).contains(cannot_show));
    assert!(refused(&format!("{good}\n"), Signer::Release).contains(cannot_show));
    assert!(
        refused(&good.replace("\"x\":{}", "\"x\":{},\"y\":1"), Signer::Release).contains("unknown field")
    );
    assert!(refused("{\"type\":\"letter\"}", Signer::Release).contains("its type is \"letter\""));
    assert!(refused(&good, Signer::Root).contains("signed as release, not as root"));
    let network = publisher.index().network.to_string();
    let other = good
        .replace(&network, &network.replace(&network[..2], if &network[..2] == "00" { "11" } else { "00" }));
    assert!(refused(&other, Signer::Release).contains("the feed is of network"));
    // A channel that the feed does not have is told as what it is.
    std::fs::write(&file, good.replace("\"stable\"", "\"beta\"")).unwrap();
    let words = Request::read(&file, Signer::Release, Some(&feed)).unwrap().words().join("\n");
    assert!(words.contains("no index of channel beta is published: it begins with this one"), "{words}");
    let older = good.replacen("\"version\":2", "\"version\":1", 1);
    assert!(refused(&older, Signer::Release).contains("index 1 is not newer than index 1"));

    std::fs::write(&file, &good).unwrap();
    let sign = |who: &str| {
        Request::read(&file, Signer::Release, Some(&feed))
            .unwrap()
            .sign(&people.secret(who), &people.key(who))
    };
    assert!(matches!(sign("root-1"), Err(PublishError::NotAKeyOf(_, Signer::Release))));
    sign("berta").unwrap();
    assert!(sign("berta").unwrap_err().to_string().contains("has signed it already"));
    let sigs = file.with_extension("json.sigs");
    let berta = std::fs::read_to_string(&sigs).unwrap();
    std::fs::write(&sigs, format!("{berta}and a line\n")).unwrap();
    assert!(matches!(publisher.publish(NOW), Err(PublishError::NotMerged(..))));
    std::fs::write(&sigs, berta).unwrap();
    sign("anna").unwrap();
    publisher.publish(NOW).unwrap();
    assert_eq!(accepted(&publisher), 2);
}

#[test]
fn signatures_that_do_not_count_are_not_merged_and_those_that_do_only_once() {
    let dir = tempfile::tempdir().unwrap();
    let (people, mut publisher) = published(dir.path());
    publisher.pause(true).unwrap();
    waits(publisher.publish(NOW));
    let bytes = std::fs::read(dir.path().join("net/sign/index-2.json")).unwrap();
    let sigs = dir.path().join("index-2.json.sigs");
    let anna = people.secret("anna");
    let good = anna.sign(Role::Release, 2, &bytes).unwrap();
    for wrong in [
        anna.sign(Role::Release, 2, b"other bytes").unwrap(),
        anna.sign(Role::Release, 3, &bytes).unwrap(),
        anna.sign(Role::Timestamp, 2, &bytes).unwrap(),
        people.secret("root-1").sign(Role::Release, 2, &bytes).unwrap(),
        "no signature\n".to_owned(),
    ] {
        for text in [wrong.clone(), format!("{good}{wrong}")] {
            std::fs::write(&sigs, text).unwrap();
            assert!(matches!(publisher.merge(&sigs), Err(PublishError::NotMerged(..))));
        }
    }
    assert_eq!(waits(publisher.publish(NOW)), [("index-2.json".to_owned(), vec![2])]);
    std::fs::write(&sigs, format!("{good}{}", anna.sign(Role::Release, 2, &bytes).unwrap())).unwrap();
    assert_eq!(publisher.merge(&sigs).unwrap().new, ["anna"]);
    assert_eq!(publisher.merge(&sigs).unwrap().new, Vec::<String>::new());
    assert_eq!(waits(publisher.publish(NOW)), [("index-2.json".to_owned(), vec![1])]);
}

#[test]
fn a_second_process_waits_until_the_first_has_finished() {
    let dir = tempfile::tempdir().unwrap();
    let net = dir.path().join("net");
    let mut first = Publisher::init(&net, &Options::new(channel(), NOW)).unwrap();
    first.publish(NOW).unwrap();
    let alone = alone_with_programs();
    let mut second = Command::new(env!("CARGO_BIN_EXE_bumpless-release"))
        .arg("timestamp")
        .arg(&net)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(alone);
    let mut said = String::new();
    BufReader::new(second.stderr.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.contains("waits for another one"), "{said}");
    first.timestamp(NOW).unwrap();
    drop(first);
    assert!(second.wait().unwrap().success());
    let timestamp = std::fs::read_to_string(net.join("feed/timestamp.json")).unwrap();
    assert!(timestamp.contains("\"version\":3"), "{timestamp}");
}

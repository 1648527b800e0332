//! Releases that independent builders must have built alike.
use std::rc::Rc;

use crate::feed::*;
use bumpless_trust::build::{BadBuild, BuildDocument, MAX_BUILDS, Unattested};
use bumpless_trust::document::{BadDocument, Channel, KeysDocument};
use bumpless_trust::refresh::sha256;
use bumpless_trust::signature::BadSignatures;
use bumpless_trust::{Refused, Request, Trusted, Want, WhyNot};
use minisign::KeyPair;

/// A feed whose root asks for two of three builders.
fn feed() -> (Feed, Vec<Rc<KeyPair>>) {
    let mut feed = Feed::new();
    let builders = vec![pair(), pair(), pair()];
    feed.root.builders = Some(keys(2, &builders));
    feed.publish_root(&feed.roots.clone());
    (feed, builders)
}

/// Publishes, refreshes, and says what is chosen from whatever was verified.
fn chosen(feed: &mut Feed) -> (Result<(), Refused>, Result<String, WhyNot>) {
    feed.next();
    let mut client = Client::new(feed);
    let refreshed = client.refresh(feed).map(|_| ());
    let trusted = match &refreshed {
        Ok(()) => client.refresh(feed).unwrap().unwrap(),
        Err(_) => client.load().unwrap(),
    };
    (refreshed, choose(&trusted))
}

fn choose(trusted: &Trusted) -> Result<String, WhyNot> {
    let choice = trusted.choose(&machine(), None, &Request::Newest, |_| None, NOW, 0);
    choice.map(|choice| choice.release().version.to_string())
}

fn unattested(why: Unattested) -> Result<String, WhyNot> {
    Err(WhyNot::Unattested { version: "1.0.0".parse().unwrap(), why })
}

#[test]
fn what_two_builders_signed_is_chosen_and_one_of_them_is_not_enough_however_often_it_signs() {
    let (mut feed, builders) = feed();
    feed.attest(0, &builders[..2], |_| {});
    assert_eq!(chosen(&mut feed), (Ok(()), Ok("1.0.0".to_owned())));

    for by in [&builders[..1], &[builders[0].clone(), builders[0].clone()]] {
        let name = feed.attest(0, by, |_| {});
        let too_few = BadBuild::Signatures(BadSignatures::TooFew { have: 1, need: 2 });
        assert_eq!(
            chosen(&mut feed),
            (Err(Refused::Build(name, too_few)), unattested(Unattested::Unknown(name)))
        );
    }
}

#[test]
fn a_release_of_which_the_index_names_no_builders_work_is_not_chosen_although_its_index_is_good() {
    let (mut feed, _) = feed();
    assert_eq!(chosen(&mut feed), (Ok(()), unattested(Unattested::Unnamed)));
    assert_eq!(
        chosen(&mut feed).1.unwrap_err().to_string(),
        "1.0.0 needs independent builders who agree: the index names nothing that they signed"
    );
}

#[test]
fn builders_who_signed_another_artifact_release_or_place_in_the_order_have_not_signed_this_one() {
    let (mut feed, builders) = feed();
    let changes: [fn(&mut BuildDocument); 4] = [
        |build| build.artifacts[0].raw_sha256 = sha256(b"other"),
        |build| build.artifacts[0].target = "riscv64gc-unknown-linux-gnu".to_owned(),
        |build| build.release = "0.9.0".parse().unwrap(),
        |build| build.counter = 7,
    ];
    for change in changes {
        let name = feed.attest(0, &builders, change);
        assert_eq!(chosen(&mut feed), (Ok(()), unattested(Unattested::Other(name))));
    }
}

#[test]
fn what_builders_signed_counts_only_whole_for_this_network_and_under_its_own_name() {
    let (mut feed, builders) = feed();
    let name = feed.attest(0, &builders, |build| build.network = sha256(b"another"));
    let refused = Refused::Build(name, BadBuild::Network(sha256(b"another")));
    assert_eq!(chosen(&mut feed), (Err(refused), unattested(Unattested::Unknown(name))));

    let name = feed.attest(0, &builders, |_| {});
    feed.files.get_mut(&format!("build/{name}")).unwrap().bytes.push(b' ');
    let (refreshed, chose) = chosen(&mut feed);
    assert!(matches!(refreshed, Err(Refused::Build(_, BadBuild::Bytes(_)))), "{refreshed:?}");
    assert_eq!(chose, unattested(Unattested::Unknown(name)));

    feed.files.remove(&format!("build/{name}"));
    let missing = Refused::Missing(Want::Build(name), Channel::default());
    assert_eq!(chosen(&mut feed), (Err(missing), unattested(Unattested::Unknown(name))));

    // Signed as the release's number 7, by builders who were told that it is number 1.
    let name = feed.attest(0, &builders, |_| {});
    let bytes = feed.files[&format!("build/{name}")].bytes.clone();
    feed.put(&format!("build/{name}"), sign(bytes.clone(), "bumpless/1 builders 7", &builders));
    assert_eq!(chosen(&mut feed).0, Err(Refused::Build(name, BadBuild::Counter(7, 1))));
    feed.put(&format!("build/{name}"), sign(bytes, "bumpless/1 release 1", &builders));
    let none = BadBuild::Signatures(BadSignatures::TooFew { have: 0, need: 2 });
    assert_eq!(chosen(&mut feed).0, Err(Refused::Build(name, none)));
}

#[test]
fn a_builders_key_signs_nothing_else_and_no_other_key_counts_as_a_builder() {
    let (mut feed, builders) = feed();
    let name = feed.attest(0, &[builders[0].clone(), feed.releases[0].clone()], |_| {});
    let too_few = BadBuild::Signatures(BadSignatures::TooFew { have: 1, need: 2 });
    assert_eq!(chosen(&mut feed).0, Err(Refused::Build(name, too_few)));

    let KeysDocument { threshold, .. } = feed.root.release.clone();
    feed.root.builders = Some(KeysDocument { threshold, keys: feed.root.release.keys.clone() });
    feed.publish_root(&feed.roots.clone());
    let why = Client::new(&feed).refresh(&feed).unwrap_err();
    assert_eq!(
        why.to_string(),
        "the root is refused: roles release and builders share a key; one key, one role"
    );
}

#[test]
fn a_root_with_other_builders_or_more_of_them_asks_again() {
    let (mut feed, builders) = feed();
    feed.attest(0, &builders[..2], |_| {});
    feed.next();
    let mut client = Client::new(&feed);
    let trusted = client.refresh(&feed).unwrap().unwrap();
    assert!(choose(&trusted).is_ok());
    // In one process: what counted under the last root is not carried over.
    for threshold in [3, 2] {
        feed.rotate(|feed| feed.root.builders = Some(keys(threshold, &builders)));
    }
    let mut refresh = bumpless_trust::Refresh::begin(trusted, NOW, 0).unwrap();
    let mut asked = Vec::new();
    while let Some((name, _)) = refresh.file() {
        let name = name.to_str().unwrap().to_owned();
        let answer = feed
            .files
            .get(&name)
            .map_or(bumpless_trust::Answer::Missing, |signed| bumpless_trust::Answer::Found(signed.clone()));
        asked.push(name);
        refresh.answer(answer).unwrap();
        if asked.len() == 2 {
            let why = choose(refresh.trusted()).unwrap_err();
            assert!(matches!(why, WhyNot::Unattested { why: Unattested::Unknown(_), .. }), "{why}");
        }
    }
    assert!(asked.last().unwrap().starts_with("build/"), "{asked:?}");
    assert!(choose(refresh.trusted()).is_ok());
}

#[test]
fn builders_are_asked_about_the_newest_releases_once_and_about_no_more_than_a_bounded_number() {
    let (mut feed, builders) = feed();
    feed.index.releases = (0..20).map(|number| release(&format!("1.0.{number}"), number)).collect();
    for at in 0..20 {
        feed.attest(at, &builders, |_| {});
    }
    feed.next();
    let mut client = Client::new(&feed);
    let trusted = client.refresh(&feed).unwrap().unwrap();
    let asked = client.asked.iter().filter(|name| name.starts_with("build/")).count();
    assert_eq!(asked, MAX_BUILDS);
    assert_eq!(choose(&trusted), Ok("1.0.19".to_owned()));
    let oldest = Request::Version("1.0.0".parse().unwrap());
    let why = trusted.choose(&machine(), None, &oldest, |_| None, NOW, 0).unwrap_err();
    assert!(matches!(why, WhyNot::Unattested { why: Unattested::Unknown(_), .. }), "{why}");
    // Known already: the next refresh of the same process does not ask again.
    let mut refresh = bumpless_trust::Refresh::begin(trusted, NOW, 0).unwrap();
    refresh.answer(bumpless_trust::Answer::Missing).unwrap();
    refresh.answer(bumpless_trust::Answer::Found(feed.files["timestamp.json"].clone())).unwrap();
    assert_eq!(refresh.want(), Want::Nothing);
}

#[test]
fn without_builders_in_the_root_nobody_is_asked() {
    let mut feed = Feed::new();
    feed.attest(0, &[pair()], |_| {});
    feed.next();
    let mut client = Client::new(&feed);
    let trusted = client.refresh(&feed).unwrap().unwrap();
    assert_eq!(client.asked, ["root/2.json", "timestamp.json", "index/2.json"]);
    assert!(choose(&trusted).is_ok());
}

#[test]
fn a_builders_file_is_read_as_strictly_as_an_index() {
    let (feed, _) = feed();
    let good = serde_json::to_string(&BuildDocument::of(feed.root.network, &feed.index.releases[0])).unwrap();
    assert!(BuildDocument::parse(good.as_bytes()).is_ok());
    let unknown = "\"artifacts\":[{\"kind\":\"wasm-judge\",\"anything\":[1.5]},";
    let skipped = good.replace("\"artifacts\":[", unknown);
    assert_eq!(BuildDocument::parse(skipped.as_bytes()).unwrap().artifacts.len(), 1);
    for edit in [
        ("\"counter\":1", "\"counter\":1,\"path\":\"/bin/sh\""),
        ("\"raw_size\":9", "\"raw_size\":9,\"y\":1"),
        ("\"counter\":1", "\"counter\":1,\"counter\":2"),
        ("{\"type\"", " {\"type\""),
    ] {
        let text = good.replacen(edit.0, edit.1, 1);
        assert_ne!(text, good);
        let result = BuildDocument::parse(text.as_bytes());
        assert!(matches!(result, Err(BadDocument::Shape(_))), "{edit:?}: {result:?}");
    }
    let text = good.replace(TARGET, "../../etc");
    assert!(matches!(BuildDocument::parse(text.as_bytes()), Err(BadDocument::Value(_))));
}

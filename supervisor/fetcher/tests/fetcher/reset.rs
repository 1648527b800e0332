//! A new beginning: all of the old trust or all of the new one, wherever it is cut.
use std::path::{Path, PathBuf};

use crate::lab::{Lab, NOW, choose};
use bumpless_os::disk::recorder::Recorder;
use bumpless_release::KeyChange;
use bumpless_release::Signer;
use bumpless_trust::document::{Role, root_path};
use bumpless_trust::refresh::sha256;
use bumpless_trust::signature::BadSignatures;
use bumpless_trust::{Refused, WhyNot};
use bumplessd::feed::{Feed, FeedError, FirstRoot, Notice, Settings};

const BYTES: &[u8] = b"these bytes are the node";
const UID: u32 = 4711;

/// Settings that name no first root: what is kept decides.
fn rootless(lab: &Lab) -> Settings {
    Settings { root: None, ..lab.settings(&[]) }
}

fn root(lab: &Lab, version: u64) -> PathBuf {
    lab.publisher.feed().join(root_path(version))
}

#[tokio::test]
async fn a_reset_forgets_everything_and_begins_with_the_given_root() {
    let (lab, new) = (Lab::new(BYTES), Lab::new(BYTES));
    lab.choice(&mut lab.feed()).await;
    let file = root(&new, 1);
    let (version, fingerprint) = Feed::reset(&rootless(&lab), &file, UID).unwrap();
    assert_eq!((version, fingerprint), (1, new.publisher.fingerprint().unwrap()));
    let (mut feed, notices) = Feed::open(rootless(&lab)).unwrap();
    let [Notice::Reset { by: UID, version: 1, sha256 }] = notices[..] else { panic!("{notices:?}") };
    assert_eq!((sha256, feed.trusted().root_fingerprint()), (fingerprint, fingerprint));
    assert!(matches!(choose(&feed), Err(WhyNot::NoIndex(_))), "nothing of what was verified counts");
    // It happens once, and the new network is followed from there.
    let (_, notices) = Feed::open(rootless(&lab)).unwrap();
    assert!(notices.is_empty(), "{notices:?}");
    let place = |lab: &Lab| vec![lab.publisher.feed().to_str().unwrap().to_owned()];
    feed.refresh_at(place(&new), NOW, bumpless_trust::Expiry::Counts).await.unwrap();
    choose(&feed).unwrap();
    let error = feed.refresh_at(place(&lab), NOW, bumpless_trust::Expiry::Counts).await.unwrap_err();
    assert!(matches!(error, FeedError::Refused(_)), "the old one's: {error}");
}

#[tokio::test]
async fn a_reset_goes_back_to_an_older_root_if_that_is_what_is_given() {
    let mut lab = Lab::new(BYTES);
    lab.publisher.rotate(&[KeyChange::New(Signer::Root)], NOW).unwrap();
    lab.publisher.publish(NOW).unwrap();
    let mut feed = lab.feed();
    feed.refresh(NOW).await.unwrap();
    assert_eq!(feed.trusted().root().version(), 2);
    Feed::reset(&rootless(&lab), &root(&lab, 1), UID).unwrap();
    let (feed, _) = Feed::open(rootless(&lab)).unwrap();
    assert_eq!(feed.trusted().root().version(), 1);
    assert_eq!(std::fs::read_dir(lab.dir.path().join("trust/root")).unwrap().count(), 2, "it and its .sigs");
}

#[tokio::test]
async fn a_root_that_may_not_be_trusted_resets_nothing() {
    let (lab, new) = (Lab::new(BYTES), Lab::new(BYTES));
    lab.choice(&mut lab.feed()).await;
    let before = lab.feed().trusted().root_fingerprint();
    let file = lab.dir.path().join("root.json");
    let sigs = lab.dir.path().join("root.json.sigs");
    let refused = |settings: &Settings| Feed::reset(settings, &file, UID).unwrap_err();

    let error = refused(&rootless(&lab));
    assert!(matches!(error, FeedError::NewRoot { .. }) && error.to_string().contains("root.json"), "{error}");
    std::fs::copy(root(&new, 1), &file).unwrap();
    std::fs::write(&sigs, b"").unwrap();
    let unsigned = Refused::Signatures(Role::Root, BadSignatures::None);
    let error = refused(&rootless(&lab));
    assert!(matches!(&error, FeedError::Refused(why) if *why == unsigned), "{error}");
    // Signed by another network's keys.
    std::fs::copy(format!("{}.sigs", root(&lab, 1).display()), &sigs).unwrap();
    let error = refused(&rootless(&lab));
    let strange = Refused::Signatures(Role::Root, BadSignatures::TooFew { have: 0, need: 1 });
    assert!(matches!(&error, FeedError::Refused(why) if *why == strange), "{error}");
    // A key under which anyone can sign.
    let weak = format!("RWQA{}", "A".repeat(52));
    let mut document: serde_json::Value =
        serde_json::from_slice(&std::fs::read(root(&new, 1)).unwrap()).unwrap();
    document["root"]["keys"] = serde_json::json!([weak]);
    std::fs::write(&file, document.to_string()).unwrap();
    let error = refused(&rootless(&lab));
    assert!(error.to_string().contains("small-order"), "{error}");

    let (feed, notices) = Feed::open(rootless(&lab)).unwrap();
    assert!(notices.is_empty(), "{notices:?}");
    assert_eq!(feed.trusted().root_fingerprint(), before);
    choose(&feed).unwrap();
}

#[tokio::test]
async fn a_reset_that_the_configuration_would_contradict_at_the_next_start_is_refused() {
    let (lab, new) = (Lab::new(BYTES), Lab::new(BYTES));
    lab.choice(&mut lab.feed()).await;
    let file = root(&new, 1);
    let with = |root: FirstRoot| Settings { root: Some(root), ..lab.settings(&[]) };
    let shipped = |lab: &Lab| FirstRoot::Shipped(lab.publisher.index().network, "/nonexistent".into());
    for first in [
        FirstRoot::File(root(&lab, 1)),
        FirstRoot::Sha256(lab.publisher.fingerprint().unwrap()),
        shipped(&lab),
    ] {
        let error = Feed::reset(&with(first), &file, UID).unwrap_err();
        assert!(matches!(error, FeedError::Contradiction { .. }), "{error}");
        assert!(error.to_string().starts_with("feed."), "{error}");
    }
    assert_eq!(lab.feed().trusted().root_fingerprint(), lab.publisher.fingerprint().unwrap());
    for first in [
        FirstRoot::File(file.clone()),
        FirstRoot::File("/nonexistent".into()),
        FirstRoot::Sha256(new.publisher.fingerprint().unwrap()),
        shipped(&new),
    ] {
        Feed::reset(&with(first.clone()), &file, UID).unwrap();
        let (feed, _) = Feed::open(with(first)).unwrap();
        assert_eq!(feed.trusted().root_fingerprint(), new.publisher.fingerprint().unwrap());
    }
}

#[tokio::test]
async fn a_configured_root_that_is_newer_than_the_given_one_would_take_its_place_and_is_refused() {
    let mut lab = Lab::new(BYTES);
    lab.publisher.rotate(&[KeyChange::New(Signer::Root)], NOW).unwrap();
    lab.publisher.publish(NOW).unwrap();
    let settings = Settings { root: Some(FirstRoot::File(root(&lab, 2))), ..lab.settings(&[]) };
    let error = Feed::reset(&settings, &root(&lab, 1), UID).unwrap_err();
    assert!(matches!(error, FeedError::Contradiction { .. }), "{error}");
}

/// What is kept, by its bytes.
fn kept(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for part in ["root", "timestamp/stable", "index/stable"] {
        for entry in std::fs::read_dir(dir.join(part)).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|end| end == "json") {
                files.push((path.strip_prefix(dir).unwrap().to_owned(), std::fs::read(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Known,
    Begun,
    Finished,
}

#[tokio::test]
async fn whenever_the_power_fails_in_a_reset_the_old_trust_stands_or_the_new_one_and_never_a_mixture() {
    let (lab, new) = (Lab::new(BYTES), Lab::new(b"other bytes"));
    let memory = Path::new("/dev/shm");
    let folder =
        if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() };
    let [trust, copies, images] = ["trust", "copies", "images"].map(|name| folder.path().join(name));
    for path in [&trust, &copies, &images] {
        std::fs::create_dir(path).unwrap();
    }
    let settings = |dir: &Path| Settings { trust_dir: dir.to_owned(), ..rootless(&lab) };
    let recorder = Recorder::install(&trust, &copies);
    let with_root = Settings { trust_dir: trust.clone(), ..lab.settings(&[]) };
    let (mut feed, _) = Feed::open(with_root).unwrap();
    let place = vec![lab.publisher.feed().to_str().unwrap().to_owned()];
    feed.refresh_at(place, NOW, bumpless_trust::Expiry::Counts).await.unwrap();
    recorder.mark(Mark::Known);
    let old = kept(&trust);
    assert_eq!(old.len(), 3);
    Feed::reset(&settings(&trust), &root(&new, 1), UID).unwrap();
    recorder.mark(Mark::Begun);
    assert_eq!(kept(&trust), old);
    Feed::open(settings(&trust)).unwrap();
    recorder.mark(Mark::Finished);
    let after = vec![(PathBuf::from("root/1.json"), std::fs::read(root(&new, 1)).unwrap())];
    assert_eq!(kept(&trust), after);

    let life = recorder.finish();
    let known =
        (0..=life.steps()).find(|step| life.marks(&life.killed(*step)).any(|mark| *mark == Mark::Known));
    let crashes = life.crashes(known.unwrap(), 5000, 7, |marks| marks.len() as u64);
    let (mut stood, mut anew) = (0, 0);
    for (number, crash) in crashes.iter().enumerate() {
        let image = images.join(number.to_string());
        life.write(crash, &image).unwrap();
        let begun = life.marks(crash).any(|mark| *mark != Mark::Known);
        let (feed, notices) = Feed::open(settings(&image)).unwrap();
        let found = kept(&image);
        let explained = || life.explain(crash);
        if found == old {
            stood += 1;
            assert!(!begun, "the reset was answered and is lost: {}", explained());
            assert!(notices.is_empty(), "{notices:?}: {}", explained());
            assert!(choose(&feed).is_ok(), "{}", explained());
        } else {
            anew += 1;
            assert_eq!(found, after, "{}", explained());
            assert!(matches!(notices[..], [] | [Notice::Reset { by: UID, .. }]), "{}", explained());
            assert_eq!(feed.trusted().root_fingerprint(), sha256(&after[0].1), "{}", explained());
        }
        let (_, notices) = Feed::open(settings(&image)).unwrap();
        assert!(notices.is_empty() && kept(&image) == found, "{notices:?}: {}", explained());
    }
    eprintln!("{} states of the disk: {stood} with the old trust, {anew} with the new one", crashes.len());
    assert!(stood >= 5 && anew >= 15, "{stood} and {anew}");
}

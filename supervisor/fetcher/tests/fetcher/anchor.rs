//! Where a machine's trust begins: a file, a fingerprint, a package; and that it is not lost.
use std::path::{Path, PathBuf};

use crate::lab::{Lab, NOW, choose};
use bumpless_release::KeyChange;
use bumpless_release::Signer;
use bumpless_shared::digest::Digest;
use bumpless_trust::document::{Channel, Role};
use bumpless_trust::refresh::sha256;
use bumpless_trust::signature::BadSignatures;
use bumpless_trust::{Damage, Refused};
use bumplessd::feed::{Feed, FeedError, FirstRoot, Notice, Settings};

const BYTES: &[u8] = b"these bytes are the node";

fn fingerprint(lab: &Lab) -> Digest {
    lab.publisher.fingerprint().unwrap()
}

fn by_fingerprint(lab: &Lab, sha256: Digest, places: &[&str]) -> Settings {
    Settings { root: Some(FirstRoot::Sha256(sha256)), ..lab.settings(places) }
}

fn kept(lab: &Lab, name: &str) -> PathBuf {
    lab.dir.path().join("trust").join(name)
}

fn truncate(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

#[tokio::test]
async fn the_first_roots_file_may_be_gone_once_a_root_is_kept_and_that_is_an_alarm() {
    let lab = Lab::new(BYTES);
    let mut settings = lab.settings(&[lab.publisher.feed().to_str().unwrap()]);
    settings.root = Some(FirstRoot::File("/nonexistent/root.json".into()));
    let error = Feed::open(settings.clone()).unwrap_err();
    assert!(matches!(error, FeedError::Root { .. }), "needed as long as none is kept: {error}");
    lab.choice(&mut lab.feed()).await;
    let (mut feed, notices) = Feed::open(settings).unwrap();
    assert!(matches!(notices[..], [Notice::Anchor(FeedError::Root { .. })]), "{notices:?}");
    assert!(notices[0].to_string().contains("/nonexistent/root.json"), "{}", notices[0]);
    feed.refresh(NOW).await.unwrap();
    choose(&feed).unwrap();
}

#[tokio::test]
async fn a_damaged_root_is_replaced_by_the_configured_one_with_an_alarm() {
    let lab = Lab::new(BYTES);
    lab.choice(&mut lab.feed()).await;
    truncate(&kept(&lab, "root/1.json"));
    let mut without = lab.settings(&[]);
    without.root = None;
    assert!(matches!(Feed::open(without), Err(FeedError::Refused(Refused::Root(_)))));
    let (feed, notices) = Feed::open(lab.settings(&[])).unwrap();
    assert!(matches!(notices[..], [Notice::Damage(Damage::Kept(Role::Root, _))]), "{notices:?}");
    choose(&feed).unwrap();
    choose(&lab.feed()).unwrap();
}

#[tokio::test]
async fn a_root_is_fetched_and_believed_if_its_fingerprint_is_the_configured_one() {
    let lab = Lab::new(BYTES);
    let server = lab.server();
    for place in [lab.publisher.feed().to_str().unwrap().to_owned(), server.url()] {
        let settings = by_fingerprint(&lab, fingerprint(&lab), &["/nonexistent", &place]);
        let error = Feed::open(settings.clone()).unwrap_err();
        assert!(matches!(error, FeedError::Rootless(Refused::NoRoot)), "{error}");
        let (mut feed, notices) = Feed::establish(settings.clone()).await.unwrap();
        assert!(notices.is_empty(), "{notices:?}");
        assert_eq!(feed.trusted().root_fingerprint(), fingerprint(&lab));
        // Kept from then on, and fetched no more.
        assert!(kept(&lab, "root/1.json").exists());
        Feed::open(by_fingerprint(&lab, fingerprint(&lab), &[])).unwrap();
        feed.refresh(NOW).await.unwrap();
        choose(&feed).unwrap();
        // Damaged later, it is fetched again.
        truncate(&kept(&lab, "root/1.json"));
        let (feed, notices) = Feed::establish(settings).await.unwrap();
        assert!(matches!(notices[..], [Notice::Damage(Damage::Kept(Role::Root, _))]), "{notices:?}");
        choose(&feed).unwrap();
        std::fs::remove_dir_all(kept(&lab, "root")).unwrap();
    }
}

#[tokio::test]
async fn a_root_with_another_fingerprint_is_never_believed_whoever_signed_it() {
    let lab = Lab::new(BYTES);
    let stranger = Lab::new(BYTES);
    let place = lab.publisher.feed().to_str().unwrap().to_owned();
    let settings = by_fingerprint(&lab, fingerprint(&stranger), &[&place]);
    let error = Feed::establish(settings).await.unwrap_err();
    let (expected, found) = (fingerprint(&stranger), fingerprint(&lab));
    assert!(
        matches!(error, FeedError::Fingerprint { expected: e, found: f } if (e, f) == (expected, found)),
        "{error}"
    );
    assert!(!kept(&lab, "root").exists());
    // The next place may have the right one.
    let right = stranger.publisher.feed().to_str().unwrap().to_owned();
    let settings = by_fingerprint(&lab, fingerprint(&stranger), &[&place, &right]);
    let (feed, _) = Feed::establish(settings).await.unwrap();
    assert_eq!(feed.trusted().root_fingerprint(), expected);
    // A fingerprint that is changed afterwards does not take the kept root's place.
    let error = Feed::open(by_fingerprint(&lab, found, &[])).unwrap_err();
    assert!(error.to_string().contains("bumpless trust reset"), "{error}");
    assert!(matches!(error, FeedError::Contradiction { .. }), "{error}");
}

#[tokio::test]
async fn the_right_fingerprint_does_not_make_an_unsigned_root_good() {
    let lab = Lab::new(BYTES);
    let feed = lab.publisher.feed();
    std::fs::remove_file(feed.join("root/1.json.sigs")).unwrap();
    let settings = by_fingerprint(&lab, fingerprint(&lab), &[feed.to_str().unwrap()]);
    let error = Feed::establish(settings.clone()).await.unwrap_err();
    let unsigned = Refused::Signatures(Role::Root, BadSignatures::None);
    assert!(matches!(&error, FeedError::Refused(why) if *why == unsigned), "{error}");
    std::fs::remove_file(feed.join("root/1.json")).unwrap();
    let error = Feed::establish(settings).await.unwrap_err();
    assert!(matches!(error, FeedError::Refused(Refused::Missing(..))), "{error}");
    assert!(!kept(&lab, "root").exists());
}

/// A folder in which a package puts this root.
fn ship(lab: &Lab, root: u64) -> FirstRoot {
    let network = lab.publisher.index().network;
    let path = lab.dir.path().join(format!("{network}.json"));
    for end in ["", ".sigs"] {
        let from = lab.publisher.feed().join(format!("root/{root}.json{end}"));
        std::fs::copy(from, format!("{}{end}", path.display())).unwrap();
    }
    FirstRoot::Shipped(network, path)
}

#[tokio::test]
async fn a_root_that_a_package_ships_counts_for_its_network_and_never_lowers_the_kept_one() {
    let mut lab = Lab::new(BYTES);
    let place = lab.publisher.feed().to_str().unwrap().to_owned();
    let with = |lab: &Lab, root: FirstRoot| Settings { root: Some(root), ..lab.settings(&[&place]) };
    let (mut feed, _) = Feed::open(with(&lab, ship(&lab, 1))).unwrap();
    lab.choice(&mut feed).await;
    lab.publisher.rotate(&[KeyChange::New(Signer::Timestamp)], NOW).unwrap();
    lab.publisher.publish(NOW).unwrap();
    feed.refresh(NOW).await.unwrap();
    assert_eq!(feed.trusted().root().version(), 2);
    let (feed, notices) = Feed::open(with(&lab, ship(&lab, 1))).unwrap();
    assert_eq!((feed.trusted().root().version(), notices.len()), (2, 0));

    // A newer one is taken up.
    std::fs::remove_dir_all(kept(&lab, "")).unwrap();
    std::fs::create_dir(kept(&lab, "")).unwrap();
    Feed::open(with(&lab, ship(&lab, 1))).unwrap();
    let (feed, _) = Feed::open(with(&lab, ship(&lab, 2))).unwrap();
    assert_eq!(feed.trusted().root().version(), 2);

    // A file under another network's name.
    let FirstRoot::Shipped(_, path) = ship(&lab, 2) else { unreachable!() };
    let error = Feed::open(with(&lab, FirstRoot::Shipped(sha256(b"another"), path))).unwrap_err();
    assert!(matches!(error, FeedError::Contradiction { .. }), "{error}");
    let network = lab.publisher.index().network;
    let shipped = format!("/usr/share/bumpless/networks/{network}.json");
    assert_eq!(FirstRoot::shipped(network), FirstRoot::Shipped(network, shipped.into()));
}

#[tokio::test]
async fn a_channel_that_is_come_back_to_cannot_be_set_back() {
    let lab = Lab::new(BYTES);
    let (stable, beta) = (Channel::default(), "beta".parse::<Channel>().unwrap());
    let to_beta = |index: &mut bumpless_trust::document::IndexDocument,
                   timestamp: &mut bumpless_trust::document::TimestampDocument| {
        index.channel = beta.clone();
        timestamp.channel = index.channel.clone();
    };
    let (older, newer) = (lab.copy("older"), lab.copy("newer"));
    lab.forge_in(&older, &stable, to_beta);
    lab.forge_in(&newer, &stable, to_beta);
    lab.forge_in(&newer, &beta, |_, _| ());
    let open = |channel: &Channel, place: &Path| {
        let mut settings = lab.settings(&[place.to_str().unwrap()]);
        settings.channel = channel.clone();
        let (feed, notices) = Feed::open(settings).unwrap();
        assert!(notices.is_empty(), "a change of channel is no damage: {notices:?}");
        feed
    };
    open(&beta, &newer).refresh(NOW).await.unwrap();
    let mut stable = open(&stable, &newer);
    stable.refresh(NOW).await.unwrap();
    assert_eq!(stable.trusted().index().unwrap().version, 1);
    let mut beta = open(&beta, &older);
    assert_eq!(beta.trusted().index().unwrap().version, 3);
    let error = beta.refresh(NOW).await.unwrap_err();
    assert!(matches!(error, FeedError::Refused(Refused::Older { role: Role::Timestamp, .. })), "{error}");
}

#[tokio::test]
async fn a_channel_that_the_feed_does_not_have_is_refused_by_name_and_another_ones_files_in_its_place_too() {
    let lab = Lab::new(BYTES);
    let feed = lab.publisher.feed();
    let follow = async |place: &str| {
        let settings = Settings { channel: "beta".parse().unwrap(), ..lab.settings(&[place]) };
        Feed::open(settings).unwrap().0.refresh(NOW).await.unwrap_err().to_string()
    };
    let server = lab.server();
    for place in [server.url(), feed.to_str().unwrap().to_owned()] {
        let said = follow(&place).await;
        let no_beta = "the feed has no channel/beta/timestamp.json, so it does not have channel beta";
        assert!(said.starts_with(no_beta), "{said}");
        crate::lab::copy(&feed.join("index"), &feed.join("channel/beta/index"));
        for name in ["timestamp.json", "timestamp.json.sigs"] {
            std::fs::copy(feed.join(name), feed.join("channel/beta").join(name)).unwrap();
        }
        let said = follow(&place).await;
        assert!(said.starts_with("the timestamp is for channel stable, this machine follows beta"), "{said}");
        std::fs::remove_dir_all(feed.join("channel")).unwrap();
    }
}

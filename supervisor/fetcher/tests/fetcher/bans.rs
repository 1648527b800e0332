//! What the publisher forbids is known from what is kept, whatever becomes of the feed.

use crate::lab::{Lab, NOW};
use bumpless_shared::digest::Digest;
use bumpless_shared::release::Release;
use bumplessd::bans::Bans;
use bumplessd::feed::{self, Feed, FirstRoot};

const BYTES: &[u8] = b"these bytes are the node";

/// As a start learns it that cannot open its feed.
fn kept(lab: &Lab) -> Bans {
    let trusted = feed::kept(&lab.dir.path().join("trust"), "stable".parse().unwrap()).unwrap();
    trusted.map_or(Bans::NoFeed, |trusted| Bans::of(&trusted))
}

fn has(why: Option<String>, part: &str) -> bool {
    why.is_some_and(|why| why.contains(part))
}

async fn refreshed(lab: &mut Lab) -> Feed {
    lab.publisher.publish(NOW).unwrap();
    let mut feed = lab.feed();
    feed.refresh(NOW).await.unwrap();
    feed
}

#[tokio::test]
async fn what_is_revoked_is_forbidden_also_where_the_feed_cannot_be_opened() {
    let mut lab = Lab::new(BYTES);
    let bad = lab.release("1.1.0", b"and these have a hole");
    let good = lab.choice(&mut lab.feed()).await.release();
    assert_eq!(good, bad, "not revoked yet");
    lab.publisher.revoke(&bad.version).unwrap();
    let trusted = refreshed(&mut lab).await.trusted().clone();
    let mut settings = lab.settings(&[]);
    settings.root = Some(FirstRoot::Sha256(Digest([0; 32])));
    assert!(Feed::open(settings).is_err());
    for bans in [Bans::of(&trusted), kept(&lab)] {
        // Its hash is enough, whether or not its record can be read.
        for counter in [Some(2), None] {
            assert!(has(bans.forbids((&bad, counter)), "revoked by the publisher"));
            assert!(has(bans.doubts((&bad, counter)), "revoked by the publisher"));
        }
        let first = first(&lab);
        assert_eq!((bans.forbids((&first, Some(1))), bans.doubts((&first, None))), (None, None));
        let forbidden = bans.forbidden(Some((&first, Some(1))), Some((&bad, Some(2))));
        assert_eq!((forbidden.why(&first), forbidden.why(&bad)), (None, Some("is revoked by the publisher")));
    }
}

fn first(lab: &Lab) -> Release {
    let entry = &lab.publisher.index().releases[0];
    Release { version: entry.release.clone(), sha256: entry.artifacts[0].raw_sha256 }
}

#[tokio::test]
async fn below_the_floor_a_number_that_is_not_known_is_a_doubt_about_what_is_committed_alone() {
    let mut lab = Lab::new(BYTES);
    lab.publisher.set_floor(2).unwrap();
    let bans = Bans::of(refreshed(&mut lab).await.trusted());
    let release = first(&lab);
    assert!(has(bans.forbids((&release, Some(1))), "number 2"));
    assert_eq!(bans.doubts((&release, Some(2))), None);
    assert_eq!(bans.forbids((&release, None)), None);
    assert!(has(bans.doubts((&release, None)), "record cannot be read"));
    assert!(bans.forbidden(Some((&release, None)), None).why(&release).is_some());
    assert_eq!(bans.forbidden(None, Some((&release, None))).why(&release), None);
}

#[tokio::test]
async fn without_an_index_what_is_committed_may_be_revoked_and_without_a_root_nothing_is_forbidden() {
    let lab = Lab::new(BYTES);
    let release = first(&lab);
    assert!(matches!(kept(&lab), Bans::NoFeed));
    assert_eq!(Bans::NoFeed.doubts((&release, None)), None);
    lab.choice(&mut lab.feed()).await;
    assert!(matches!(kept(&lab), Bans::Index(_)));
    std::fs::write(lab.dir.path().join("trust/index/stable/1.json"), b"{").unwrap();
    let bans = kept(&lab);
    assert_eq!(bans.forbids((&release, Some(1))), None);
    assert!(has(bans.doubts((&release, Some(1))), "may be revoked"));
    assert!(bans.forbidden(Some((&release, Some(1))), None).why(&release).is_some());
    assert_eq!(bans.forbidden(None, Some((&release, Some(1)))).why(&release), None);
}

#[tokio::test]
async fn what_an_index_forbade_stays_forbidden_until_another_one_is_verified() {
    let mut lab = Lab::new(BYTES);
    let release = first(&lab);
    let nothing_yet = lab.feed().trusted().clone();
    let before = lab.feed();
    lab.publisher.revoke(&release.version).unwrap();
    let mut bans = Bans::of(refreshed(&mut lab).await.trusted());
    bans.learn(&nothing_yet);
    assert!(has(bans.forbids((&release, Some(1))), "revoked"));
    let mut other = Bans::of(before.trusted());
    assert!(matches!(other, Bans::Unknown(_)));
    other.learn(lab.feed().trusted());
    assert!(has(other.forbids((&release, Some(1))), "revoked"));
}

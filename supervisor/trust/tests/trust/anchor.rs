//! Roots: the administrator's, the kept one, and what is made of damaged ones.
use crate::feed::*;
use bumpless_trust::document::Role;
use bumpless_trust::refresh::sha256;
use bumpless_trust::signature::BadSignatures;
use bumpless_trust::{Damage, Refused, Signed};

/// A client that knows the feed's two roots, and the feed.
fn with_two_roots() -> (Feed, Client) {
    let mut feed = Feed::new();
    feed.rotate(|feed| feed.timestamps = vec![pair()]);
    feed.publish_timestamp();
    let mut client = Client::new(&feed);
    client.refresh(&feed).unwrap();
    assert_eq!(client.versions(Role::Root), [2]);
    (feed, client)
}

fn damage(client: &mut Client, role: Role, version: u64, how: fn(&mut Signed)) {
    let kept = client.kept.iter_mut().find(|(r, v, _)| (*r, *v) == (role, version));
    how(&mut kept.unwrap().2);
}

fn harms() -> [fn(&mut Signed); 4] {
    [
        |signed| signed.bytes.clear(),
        |signed| signed.bytes.truncate(signed.bytes.len() / 2),
        |signed| signed.signatures.clear(),
        |signed| signed.bytes.push(b' '),
    ]
}

#[test]
fn a_damaged_root_is_replaced_by_the_administrators_with_an_alarm_and_the_chain_is_walked_again() {
    for harm in harms() {
        let (feed, mut client) = with_two_roots();
        damage(&mut client, Role::Root, 2, harm);
        let (trusted, damage) = client.load_damaged().unwrap();
        assert_eq!(trusted.root().version(), 1);
        assert!(matches!(damage[0], Damage::Kept(Role::Root, _)), "{damage:?}");
        assert!(damage[0].to_string().contains("damaged"), "{}", damage[0]);
        assert_eq!(client.versions(Role::Root), [1], "what is damaged is gone");
        client.refresh(&feed).unwrap();
        assert_eq!(client.versions(Role::Root), [2]);
        assert_eq!(client.load().unwrap().root_fingerprint(), sha256(&feed.files["root/2.json"].bytes));
    }
}

#[test]
fn a_damaged_root_that_is_the_administrators_too_costs_nothing_that_was_seen() {
    for harm in harms() {
        let feed = Feed::new();
        let mut client = Client::new(&feed);
        client.refresh(&feed).unwrap();
        damage(&mut client, Role::Root, 1, harm);
        let (trusted, damage) = client.load_damaged().unwrap();
        assert_eq!(damage.len(), 1, "{damage:?}");
        assert!(trusted.timestamp().is_some() && trusted.index().is_some());
        client.load().unwrap();
    }
}

#[test]
fn a_good_root_beside_a_damaged_one_is_used_however_often_the_power_fails_meanwhile() {
    let (feed, whole) = with_two_roots();
    for anchor in [None, Some(feed.anchor())] {
        for dies_after in 0.. {
            let mut client = whole.clone();
            client.anchor = anchor.clone();
            client.kept.push((Role::Root, 3, Signed { bytes: b"{".to_vec(), signatures: vec![] }));
            client.dies_after = Some(dies_after);
            let (trusted, damage) = client.load_damaged().unwrap();
            assert_eq!((trusted.root().version(), damage.len()), (2, 1));
            let lived = client.dies_after.unwrap() > 0;
            client.dies_after = None;
            let (trusted, _) = client.load_damaged().unwrap();
            assert_eq!(trusted.root().version(), 2, "after {dies_after}");
            assert_eq!(client.versions(Role::Root), [2], "after {dies_after}");
            assert!(client.load().unwrap().index().is_some());
            if lived {
                assert!(dies_after >= 2);
                break;
            }
        }
    }
}

#[test]
fn where_every_root_is_damaged_nothing_is_believed() {
    let (_, mut client) = with_two_roots();
    client.anchor = None;
    damage(&mut client, Role::Root, 2, |signed| signed.signatures.clear());
    let before = client.kept.clone();
    let why = client.load_damaged().unwrap_err();
    assert_eq!(why, Refused::Signatures(Role::Root, BadSignatures::None));
    assert_eq!(client.kept, before);
}

#[test]
fn an_administrators_root_that_cannot_be_used_is_an_alarm_where_one_is_kept_and_the_end_where_none_is() {
    let (feed, mut client) = with_two_roots();
    let mut bad = feed.anchor();
    bad.signatures.clear();
    client.anchor = Some(bad);
    let (trusted, damage) = client.load_damaged().unwrap();
    assert_eq!(trusted.root().version(), 2);
    let none = Refused::Signatures(Role::Root, BadSignatures::None);
    assert_eq!(damage, [Damage::Anchor(none.clone())]);
    client.kept.clear();
    assert_eq!(client.load_damaged().unwrap_err(), none);
}

#[test]
fn an_administrators_root_of_another_network_is_never_mixed_in() {
    let (_, mut client) = with_two_roots();
    let mut stranger = Feed::new();
    stranger.root.network = sha256(b"another");
    stranger.publish_root(&stranger.roots.clone());
    client.anchor = Some(stranger.anchor());
    let why = client.load_damaged().unwrap_err();
    assert!(matches!(why, Refused::Network { role: Role::Root, .. }), "{why}");
}

#[test]
fn a_channel_that_is_come_back_to_has_its_highest_versions_and_a_rotation_forgets_on_every_channel() {
    let mut stable = Feed::new();
    let mut beta = stable.clone();
    beta.index.channel = "beta".parse().unwrap();
    beta.timestamp.channel = beta.index.channel.clone();
    beta.place = beta.index.channel.clone();
    beta.next();
    let old = beta.clone();
    beta.next();
    let mut client = Client::new(&beta);
    client.follow("beta");
    client.refresh(&beta).unwrap();
    client.follow("stable");
    client.refresh(&stable).unwrap();
    // What is damaged on one channel is nobody else's loss.
    damage(&mut client, Role::Timestamp, 1, |signed| signed.signatures.clear());
    let (_, found) = client.load_damaged().unwrap();
    assert_eq!(found.len(), 1);
    client.refresh(&stable).unwrap();
    client.follow("beta");
    let why = client.refresh(&old).unwrap_err();
    assert!(matches!(why, Refused::Older { role: Role::Timestamp, .. }), "{why}");

    // Keys that are taken away while another channel is followed take their versions with them.
    client.follow("stable");
    stable.rotate(|feed| (feed.timestamps, feed.releases) = (vec![pair()], vec![pair()]));
    stable.publish();
    client.refresh(&stable).unwrap();
    client.follow("beta");
    let trusted = client.load().unwrap();
    assert!(trusted.timestamp().is_none() && trusted.index().is_none());
}

#[test]
fn what_cannot_be_read_beside_a_good_file_is_told_of_once_however_often_the_power_fails_meanwhile() {
    let (feed, mut whole) = with_two_roots();
    whole.refresh(&feed).unwrap();
    for role in [Role::Timestamp, Role::Release] {
        let good = whole.versions(role)[0];
        // Above and below the good one, and the good one under a wrong name beside a damaged one under its own.
        for (name, stray) in [(good, good + 5), (good, good - 1), (good + 5, good)] {
            for dies_after in 0.. {
                let mut client = whole.clone();
                for kept in client.kept.iter_mut().filter(|(r, _, _)| *r == role) {
                    kept.1 = name;
                }
                client.kept.push((role, stray, Signed { bytes: b"{".to_vec(), signatures: vec![] }));
                client.dies_after = Some(dies_after);
                let (_, damage) = client.load_damaged().unwrap();
                assert_eq!(damage.len(), 1);
                let lived = client.dies_after.unwrap() > 0;
                client.dies_after = None;
                client.load_damaged().unwrap();
                let trusted = client.load().unwrap();
                assert!(
                    trusted.timestamp().is_some() && trusted.index().is_some(),
                    "{role:?} after {dies_after}"
                );
                assert_eq!(client.versions(role), [good], "after {dies_after}");
                if lived {
                    break;
                }
            }
        }
    }
}

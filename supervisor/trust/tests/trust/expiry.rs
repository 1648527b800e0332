//! Media that lay in a drawer: what [`Expiry::Waived`] waives, and that nothing else is.
use crate::feed::*;
use bumpless_shared::release::Release;
use bumpless_trust::document::{Elders, Role, Stage};
use bumpless_trust::refresh::sha256;
use bumpless_trust::signature::{BadSignatures, trusted_comment};
use bumpless_trust::{
    At, Choice, Expiry, Forbidden, Machine, Refused, Request, Running, Trusted, Want, WhyNot,
};

/// A feed of which everything has expired by [`NOW`], after `change`.
fn stale(change: impl FnOnce(&mut Feed)) -> Feed {
    let mut feed = Feed::new();
    feed.root.expires = NOW - 1;
    (feed.index.issued, feed.index.expires) = (NOW - 30 * DAY, NOW - 1);
    (feed.timestamp.issued, feed.timestamp.expires) = (NOW - 3 * DAY, NOW - DAY);
    change(&mut feed);
    feed.publish_root(&feed.roots.clone());
    feed.publish();
    feed
}

fn waiving(feed: &Feed) -> Client {
    Client { expiry: Expiry::Waived, ..Client::new(feed) }
}

fn choose(trusted: &Trusted, machine: &Machine, expiry: Expiry) -> Result<Choice, WhyNot> {
    let at = At { expiry, ..At::new(NOW, 0) };
    trusted.choose_at(machine, None, &Request::Newest, |_| None, at)
}

#[test]
fn what_has_expired_is_refused_unless_that_is_waived() {
    for role in [Role::Root, Role::Timestamp, Role::Release] {
        let mut feed = Feed::new();
        match role {
            Role::Root => feed.root.expires = NOW,
            Role::Timestamp => (feed.timestamp.issued, feed.timestamp.expires) = (NOW - DAY, NOW),
            Role::Release => feed.index.expires = NOW,
        }
        feed.publish_root(&feed.roots.clone());
        feed.publish();
        let expired = Refused::Expired(role, NOW);
        assert_eq!(Client::new(&feed).refresh(&feed).unwrap_err(), expired);
        let trusted = waiving(&feed).refresh(&feed).unwrap().unwrap();
        assert!(choose(&trusted, &machine(), Expiry::Waived).is_ok());
        let why = choose(&trusted, &machine(), Expiry::Counts).unwrap_err();
        assert_eq!(why, WhyNot::Stale(expired));
    }
}

#[test]
fn all_of_it_may_have_expired_at_once() {
    let feed = stale(|_| ());
    let trusted = waiving(&feed).refresh(&feed).unwrap().unwrap();
    assert_eq!(choose(&trusted, &machine(), Expiry::Waived).unwrap().release().version.as_str(), "1.0.0");
}

#[test]
fn what_was_taken_from_stale_media_binds_later_looks_and_does_not_make_them_laxer() {
    let mut feed = stale(|_| ());
    let older = feed.clone();
    feed.next();
    let mut client = waiving(&feed);
    client.refresh(&feed).unwrap().unwrap();
    client.expiry = Expiry::Counts;
    let kept = client.load().unwrap();
    let expired = Refused::Expired(Role::Root, NOW - 1);
    assert_eq!(choose(&kept, &machine(), Expiry::Counts).unwrap_err(), WhyNot::Stale(expired.clone()));
    assert_eq!(client.refresh(&feed).unwrap_err(), expired, "the same media without the waiver");
    client.expiry = Expiry::Waived;
    let why = client.refresh(&older).unwrap_err();
    assert!(matches!(why, Refused::Older { role: Role::Timestamp, .. }), "{why}");

    // A fresh feed is followed from there, by the roots' chain.
    feed.rotate(|feed| feed.root.expires = NOW + DAY);
    (feed.index.issued, feed.index.expires) = (NOW, NOW + DAY);
    (feed.timestamp.issued, feed.timestamp.expires) = (NOW, NOW + DAY);
    feed.next();
    client.expiry = Expiry::Counts;
    let fresh = client.refresh(&feed).unwrap().unwrap();
    assert!(choose(&fresh, &machine(), Expiry::Counts).is_ok());
}

type Spoil = fn(&mut Feed, &mut Client);

/// A case, what is spoilt, and whether that is what is said.
type Refusal = (&'static str, Spoil, fn(&Refused) -> bool);

#[test]
fn every_other_check_of_a_refresh_stays() {
    let cases: [Refusal; 17] = [
        (
            "an unsigned timestamp",
            |feed, _| feed.files.get_mut("timestamp.json").unwrap().signatures.clear(),
            |why| *why == Refused::Signatures(Role::Timestamp, BadSignatures::None),
        ),
        (
            "an edited timestamp",
            |feed, _| feed.files.get_mut("timestamp.json").unwrap().bytes.push(b' '),
            |why| matches!(why, Refused::Signatures(Role::Timestamp, BadSignatures::TooFew { have: 0, .. })),
        ),
        (
            "too few signatures",
            |feed, _| {
                feed.rotate(|feed| {
                    feed.timestamps.push(pair());
                    feed.root.timestamp = keys(2, &feed.timestamps);
                });
                feed.timestamps.truncate(1);
                feed.publish_timestamp();
            },
            |why| {
                let too_few = BadSignatures::TooFew { have: 1, need: 2 };
                *why == Refused::Signatures(Role::Timestamp, too_few)
            },
        ),
        (
            "an older timestamp",
            |feed, _| {
                feed.timestamp.version = 0;
                feed.publish_timestamp();
            },
            |why| *why == Refused::Older { role: Role::Timestamp, seen: 2, offered: 1 },
        ),
        (
            "another timestamp of the same version",
            |feed, _| {
                feed.timestamp.expires -= 1;
                feed.resign_timestamp();
            },
            |why| *why == Refused::Changed(Role::Timestamp, 2),
        ),
        (
            "an older index",
            |feed, _| {
                feed.index.version = 0;
                feed.publish();
            },
            |why| *why == Refused::Older { role: Role::Release, seen: 1, offered: 0 },
        ),
        (
            "another index of the same version",
            |feed, _| {
                feed.index.paused = true;
                feed.publish();
            },
            |why| *why == Refused::Changed(Role::Release, 1),
        ),
        (
            "another network",
            |feed, _| {
                feed.timestamp.network = sha256(b"another");
                feed.publish_timestamp();
            },
            |why| matches!(why, Refused::Network { role: Role::Timestamp, .. }),
        ),
        (
            "another channel",
            |feed, _| {
                feed.timestamp.channel = "beta".parse().unwrap();
                feed.publish_timestamp();
            },
            |why| matches!(why, Refused::Channel { role: Role::Timestamp, .. }),
        ),
        (
            "a timestamp that was valid for too long",
            |feed, _| {
                feed.timestamp.issued = NOW - 10 * DAY;
                feed.publish_timestamp();
            },
            |why| *why == Refused::ValidTooLong(9 * DAY, 3 * DAY),
        ),
        (
            "a timestamp from the future",
            |feed, _| {
                (feed.timestamp.issued, feed.timestamp.expires) = (NOW + 601, NOW + DAY);
                feed.publish_timestamp();
            },
            |why| *why == Refused::FromTheFuture(Role::Timestamp, NOW + 601, NOW),
        ),
        (
            "a clock that went back",
            |_, client| client.now = NOW - 60 * DAY,
            |why| *why == Refused::Clock { now: NOW - 60 * DAY, past: NOW - 3 * DAY },
        ),
        (
            "another index than the one that is named",
            |feed, _| {
                feed.next();
                feed.files.get_mut("index/2.json").unwrap().bytes.push(b' ');
            },
            |why| matches!(why, Refused::Pin { .. }),
        ),
        (
            "no index where one is named",
            |feed, _| {
                feed.next();
                feed.files.remove("index/2.json");
            },
            |why| matches!(why, Refused::Missing(Want::Index(_), _)),
        ),
        (
            "a root that skips a version",
            |feed, _| {
                feed.root.version = 3;
                feed.publish_root(&feed.roots.clone());
                let root = feed.files.remove("root/3.json").unwrap();
                feed.put("root/2.json", root);
            },
            |why| *why == Refused::RootVersion { expected: 2, found: 3 },
        ),
        (
            "a root of strangers",
            |feed, _| {
                feed.root.version = 2;
                feed.publish_root(&[pair()]);
            },
            |why| *why == Refused::Signatures(Role::Root, BadSignatures::TooFew { have: 0, need: 1 }),
        ),
        (
            "a larger timestamp than allowed",
            |feed, _| {
                let (bytes, comment) = (vec![b' '; 256 * 1024 + 1], trusted_comment(Role::Timestamp, 9));
                let signed = sign(bytes, &comment, &feed.timestamps.clone());
                feed.put("timestamp.json", signed);
            },
            |why| *why == Refused::TooLarge(Role::Timestamp, 256 * 1024 + 1),
        ),
    ];
    for (what, spoil, expected) in cases {
        let mut feed = stale(|_| ());
        let mut client = waiving(&feed);
        client.refresh(&feed).unwrap();
        spoil(&mut feed, &mut client);
        let before = client.kept.clone();
        let why = client.refresh(&feed).unwrap_err();
        assert!(expected(&why), "{what}: {why}");
        let signed_later = |(role, _, _): &&(Role, u64, _)| match role {
            // A good root, and a timestamp whose index is missing or another, were good.
            Role::Root | Role::Timestamp => false,
            Role::Release => true,
        };
        for kept in client.kept.iter().filter(signed_later) {
            assert!(before.contains(kept), "{what}: something unverified was kept");
        }
    }
}

#[test]
fn every_other_check_of_a_choice_stays() {
    let running = Release { version: "0.9.0".parse().unwrap(), sha256: sha256(b"0.9.0") };
    let plain = |feed: Feed, machine: &Machine| {
        let trusted = waiving(&feed).refresh(&feed).unwrap().unwrap();
        choose(&trusted, machine, Expiry::Waived).unwrap_err()
    };
    let why = plain(stale(|feed| feed.index.paused = true), &machine());
    assert!(matches!(why, WhyNot::Paused(_)), "{why}");
    let why = plain(stale(|feed| feed.index.min_release_counter = 2), &machine());
    assert!(matches!(why, WhyNot::Forbidden(_, Forbidden::BelowFloor { .. })), "{why}");
    let why = plain(stale(|feed| feed.index.revoked = vec![sha256(b"1.0.0")]), &machine());
    assert!(matches!(why, WhyNot::Forbidden(_, Forbidden::Revoked)), "{why}");
    let elsewhere = Machine { targets: vec!["riscv64-unknown-linux-gnu".into()], ..machine() };
    let why = plain(stale(|_| ()), &elsewhere);
    assert!(matches!(why, WhyNot::Target { .. }), "{why}");
    let why = plain(stale(|feed| feed.index.releases[0].min_supervisor = [9, 0, 0]), &machine());
    assert!(matches!(why, WhyNot::Supervisor { .. }), "{why}");
    let why = plain(stale(|feed| feed.root.elders = Elders::Required), &machine());
    assert!(matches!(why, WhyNot::Gate(_)), "{why}");
    let why = plain(stale(|feed| feed.root.builders = Some(keys(1, &[pair()]))), &machine());
    assert!(matches!(why, WhyNot::Unattested { .. }), "{why}");
    let later = |feed: &mut Feed| {
        feed.index.releases[0].rollout.stages = vec![Stage { after: NOW + DAY, permille: 1000 }];
    };
    let why = plain(stale(later), &machine());
    assert!(matches!(why, WhyNot::NotYet { .. }), "{why}");

    let feed = stale(|_| ());
    let trusted = waiving(&feed).refresh(&feed).unwrap().unwrap();
    let waived = At { expiry: Expiry::Waived, ..At::new(NOW, 0) };
    let failed = |_: &_| Some("it died".to_owned());
    let why = trusted.choose_at(&machine(), None, &Request::Newest, failed, waived).unwrap_err();
    assert!(matches!(why, WhyNot::Quarantined { .. }), "{why}");
    let newer = Some(Running { release: &running, counter: 5 });
    let request = Request::Version("1.0.0".parse().unwrap());
    let why = trusted.choose_at(&machine(), newer, &request, |_| None, waived).unwrap_err();
    assert!(matches!(why, WhyNot::Older { .. }), "{why}");
    let early = At { now: NOW - 60 * DAY, ..waived };
    let why = trusted.choose_at(&machine(), None, &Request::Newest, |_| None, early).unwrap_err();
    assert!(matches!(why, WhyNot::Stale(Refused::Clock { .. })), "{why}");

    // A newer index is named, and was not there.
    let mut feed = stale(|_| ());
    let mut client = waiving(&feed);
    client.refresh(&feed).unwrap();
    feed.next();
    feed.files.remove("index/2.json");
    client.refresh(&feed).unwrap_err();
    let why = choose(&client.load().unwrap(), &machine(), Expiry::Waived).unwrap_err();
    assert!(matches!(why, WhyNot::Stale(Refused::Missing(..))), "{why}");
}

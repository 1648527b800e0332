//! The client's order against honest and dishonest feeds.
use crate::feed::*;
use bumpless_trust::document::{BadDocument, Channel, Role};
use bumpless_trust::keys::BadKeys;
use bumpless_trust::refresh::sha256;
use bumpless_trust::root::BadRoot;
use bumpless_trust::signature::{BadSignatures, trusted_comment};
use bumpless_trust::{Answer, Refresh, Refused, Want};

/// Refreshes once in order to know the feed as it was, then returns the client.
fn acquainted(feed: &Feed) -> Client {
    let mut client = Client::new(feed);
    client.refresh(feed).unwrap();
    client
}

fn refused(client: &mut Client, feed: &Feed) -> Refused {
    let before = client.kept.clone();
    let why = client.refresh(feed).unwrap_err();
    assert_eq!(client.kept, before, "something unverified was kept");
    why
}

#[test]
fn a_first_refresh_asks_in_the_clients_order_and_the_second_only_for_news() {
    let mut feed = Feed::new();
    let mut client = Client::new(&feed);
    let trusted = client.refresh(&feed).unwrap().unwrap();
    assert_eq!(client.asked, ["root/2.json", "timestamp.json", "index/1.json"]);
    assert_eq!(trusted.index().unwrap().releases.len(), 1);
    client.refresh(&feed).unwrap();
    assert_eq!(client.asked, ["root/2.json", "timestamp.json"]);
    feed.next();
    client.refresh(&feed).unwrap();
    assert_eq!(client.asked, ["root/2.json", "timestamp.json", "index/2.json"]);
    assert_eq!(client.versions(Role::Release), [2]);
}

#[test]
fn what_expires_first_of_all_that_was_verified_is_known() {
    let mut feed = Feed::new();
    let mut client = Client::new(&feed);
    assert_eq!(client.load().unwrap().expires(), (Role::Root, NOW + 365 * DAY));
    let expires = |client: &mut Client, feed: &Feed| client.refresh(feed).unwrap().unwrap().expires();
    assert_eq!(expires(&mut client, &feed), (Role::Timestamp, NOW + DAY));
    feed.index.expires = NOW + 7200;
    feed.next();
    assert_eq!(expires(&mut client, &feed), (Role::Release, NOW + 7200));
    feed.timestamp.expires = NOW + 3600;
    feed.publish_timestamp();
    assert_eq!(expires(&mut client, &feed), (Role::Timestamp, NOW + 3600));
    feed.rotate(|feed| feed.root.expires = NOW + 1800);
    assert_eq!(expires(&mut client, &feed), (Role::Root, NOW + 1800));
    assert_eq!(client.load().unwrap().expires(), (Role::Root, NOW + 1800), "also of what is only kept");
}

#[test]
fn the_first_root_is_never_taken_from_the_feed() {
    let feed = Feed::new();
    let mut client = Client::new(&feed);
    client.anchor = None;
    assert_eq!(refused(&mut client, &feed), Refused::NoRoot);
    assert_eq!(client.asked, Vec::<String>::new());
}

#[test]
fn an_older_first_root_does_not_lower_the_kept_one_and_a_newer_one_raises_it() {
    let mut feed = Feed::new();
    let mut client = acquainted(&feed);
    feed.rotate(|feed| feed.timestamps = vec![pair()]);
    feed.next();
    client.refresh(&feed).unwrap();
    client.refresh(&feed).unwrap();
    assert_eq!(client.versions(Role::Root), [2]);

    let mut rooted = Client::new(&feed);
    rooted.load().unwrap();
    assert_eq!(rooted.versions(Role::Root), [1]);
    rooted.anchor = Some(feed.files["root/2.json"].clone());
    rooted.refresh(&feed).unwrap();
    assert_eq!(rooted.versions(Role::Root), [2]);

    let stranger = Feed::new();
    rooted.anchor = Some(stranger.anchor());
    rooted.refresh(&feed).unwrap();
    let mut forged = stranger.clone();
    forged.root.version = 2;
    forged.publish_root(&forged.roots.clone());
    rooted.anchor = Some(forged.files["root/2.json"].clone());
    assert_eq!(refused(&mut rooted, &feed), Refused::Changed(Role::Root, 2));
}

#[test]
fn any_file_edited_after_signing_is_refused_and_nothing_of_it_is_kept() {
    let feed = Feed::new();
    for (name, role) in [("timestamp.json", Role::Timestamp), ("index/1.json", Role::Release)] {
        let mut edited = feed.clone();
        edited.files.get_mut(name).unwrap().bytes.push(b' ');
        let mut client = Client::new(&feed);
        let why = client.refresh(&edited).unwrap_err();
        match role {
            Role::Timestamp => {
                assert_eq!(why, Refused::Signatures(role, BadSignatures::TooFew { have: 0, need: 1 }))
            }
            Role::Release => assert!(matches!(why, Refused::Pin { .. }), "{why}"),
            Role::Root => unreachable!(),
        }
        assert!(client.versions(role).is_empty());
    }
}

#[test]
fn an_unsigned_file_is_refused() {
    let mut feed = Feed::new();
    feed.files.get_mut("timestamp.json").unwrap().signatures.clear();
    let why = Client::new(&feed).refresh(&feed).unwrap_err();
    assert_eq!(why, Refused::Signatures(Role::Timestamp, BadSignatures::None));
}

#[test]
fn what_is_not_signed_is_never_parsed() {
    let mut feed = Feed::new();
    feed.files.get_mut("timestamp.json").unwrap().bytes = b"not even json".to_vec();
    let why = Client::new(&feed).refresh(&feed).unwrap_err();
    assert!(matches!(why, Refused::Signatures(Role::Timestamp, _)), "{why}");
}

#[test]
fn a_timestamp_that_goes_back_is_refused() {
    let mut feed = Feed::new();
    let old = feed.files["timestamp.json"].clone();
    feed.next();
    let mut client = acquainted(&feed);
    feed.put("timestamp.json", old);
    let why = refused(&mut client, &feed);
    assert_eq!(why, Refused::Older { role: Role::Timestamp, seen: 2, offered: 1 });
}

#[test]
fn the_same_version_with_other_bytes_is_refused() {
    let mut feed = Feed::new();
    let mut client = acquainted(&feed);
    feed.timestamp.expires += 1;
    feed.resign_timestamp();
    assert_eq!(refused(&mut client, &feed), Refused::Changed(Role::Timestamp, 1));

    feed.timestamp.expires -= 1;
    feed.index.paused = true;
    feed.publish();
    assert_eq!(refused(&mut client, &feed), Refused::Changed(Role::Release, 1));
}

#[test]
fn a_newer_timestamp_that_names_an_older_index_is_refused() {
    let mut feed = Feed::new();
    feed.next();
    let mut client = acquainted(&feed);
    feed.index.version = 1;
    feed.publish();
    let why = refused(&mut client, &feed);
    assert_eq!(why, Refused::Older { role: Role::Release, seen: 2, offered: 1 });
}

#[test]
fn an_index_that_was_once_named_binds_even_if_it_could_not_be_fetched() {
    let mut feed = Feed::new();
    let mut client = acquainted(&feed);
    feed.next();
    feed.files.remove("index/2.json");
    assert!(matches!(client.refresh(&feed), Err(Refused::Missing(Want::Index(_), _))));
    feed.timestamp.index.version = 1;
    feed.timestamp.index.sha256 = sha256(&feed.files["index/1.json"].bytes);
    feed.publish_timestamp();
    let why = refused(&mut client, &feed);
    assert_eq!(why, Refused::Older { role: Role::Release, seen: 2, offered: 1 });
}

#[test]
fn a_frozen_feed_is_noticed_when_its_timestamp_expires() {
    let feed = Feed::new();
    let mut client = acquainted(&feed);
    client.now = feed.timestamp.expires - 1;
    client.refresh(&feed).unwrap();
    client.now += 1;
    assert_eq!(refused(&mut client, &feed), Refused::Expired(Role::Timestamp, feed.timestamp.expires));
}

#[test]
fn an_expired_root_or_index_is_refused() {
    let mut feed = Feed::new();
    feed.root.expires = NOW;
    feed.publish_root(&feed.roots.clone());
    assert_eq!(Client::new(&feed).refresh(&feed).unwrap_err(), Refused::Expired(Role::Root, NOW));

    let mut feed = Feed::new();
    feed.index.expires = NOW;
    feed.publish();
    assert_eq!(Client::new(&feed).refresh(&feed).unwrap_err(), Refused::Expired(Role::Release, NOW));
}

#[test]
fn a_renewed_timestamp_does_not_renew_its_index() {
    let mut feed = Feed::new();
    let mut client = acquainted(&feed);
    client.now = feed.index.expires;
    (feed.timestamp.issued, feed.timestamp.expires) = (client.now, client.now + DAY);
    feed.publish_timestamp();
    assert_eq!(client.refresh(&feed).unwrap_err(), Refused::Expired(Role::Release, client.now));
    // It was verified, and the one before it is not accepted any more.
    assert_eq!(client.versions(Role::Timestamp), [feed.timestamp.version]);
}

#[test]
fn an_expired_root_is_left_by_way_of_its_successor() {
    let mut feed = Feed::new();
    feed.root.expires = NOW;
    feed.publish_root(&feed.roots.clone());
    let mut client = Client::new(&feed);
    feed.rotate(|feed| feed.root.expires = NOW + DAY);
    assert!(client.refresh(&feed).unwrap().is_some());
}

#[test]
fn a_timestamp_may_be_valid_for_three_days_unless_the_root_allows_more() {
    let mut feed = Feed::new();
    feed.timestamp.expires = NOW + 3 * DAY + 1;
    feed.publish_timestamp();
    let why = Client::new(&feed).refresh(&feed).unwrap_err();
    assert_eq!(why, Refused::ValidTooLong(3 * DAY + 1, 3 * DAY));

    feed.root.timestamp_valid = Some(30 * DAY);
    feed.publish_root(&feed.roots.clone());
    feed.timestamp.expires = NOW + 30 * DAY;
    feed.publish_timestamp();
    assert!(Client::new(&feed).refresh(&feed).is_ok());

    feed.root.timestamp_valid = Some(30 * DAY + 1);
    feed.publish_root(&feed.roots.clone());
    let why = Client::new(&feed).refresh(&feed).unwrap_err();
    assert_eq!(why, Refused::Root(BadRoot::TimestampValid(30 * DAY + 1)));
}

#[test]
fn a_clock_that_went_back_stops_installing_and_one_that_is_a_little_off_does_not() {
    let feed = Feed::new();
    let mut client = acquainted(&feed);
    client.now = NOW - 601;
    assert_eq!(refused(&mut client, &feed), Refused::Clock { now: NOW - 601, past: NOW });
    client.now = NOW - 600;
    assert!(client.refresh(&feed).is_ok());
    let mut fresh = Client::new(&feed);
    fresh.now = NOW - 366 * DAY;
    assert!(matches!(fresh.refresh(&feed), Err(Refused::Clock { .. })), "before this supervisor was built");
    fresh.now = NOW - DAY;
    let why = fresh.refresh(&feed).unwrap_err();
    assert_eq!(why, Refused::FromTheFuture(Role::Timestamp, NOW, NOW - DAY));
}

#[test]
fn files_of_other_releases_of_the_feed_cannot_be_mixed() {
    let mut feed = Feed::new();
    let first = feed.files["index/1.json"].clone();
    feed.next();
    feed.put("index/2.json", first);
    assert!(matches!(Client::new(&feed).refresh(&feed), Err(Refused::Pin { .. })));
}

#[test]
fn an_older_index_under_a_newer_name_is_refused() {
    let mut feed = Feed::new();
    feed.put("index/2.json", feed.files["index/1.json"].clone());
    feed.timestamp.index.version = 2;
    feed.publish_timestamp();
    assert_eq!(Client::new(&feed).refresh(&feed).unwrap_err(), Refused::SignedVersion(Role::Release, 2, 1));
}

#[test]
fn an_index_from_the_future_is_refused() {
    let mut feed = Feed::new();
    feed.index.issued = NOW + 601;
    feed.publish();
    let why = Client::new(&feed).refresh(&feed).unwrap_err();
    assert_eq!(why, Refused::FromTheFuture(Role::Release, NOW + 601, NOW));
}

#[test]
fn a_root_that_leads_into_another_network_is_refused() {
    let mut feed = Feed::new();
    feed.rotate(|feed| feed.root.network = sha256(b"another"));
    let why = Client::new(&feed).refresh(&feed).unwrap_err();
    assert!(matches!(why, Refused::Network { role: Role::Root, .. }), "{why}");
}

#[test]
fn a_file_of_another_network_channel_or_type_is_refused_although_its_signature_is_good() {
    let mut feed = Feed::new();
    feed.timestamp.network = sha256(b"another");
    feed.publish_timestamp();
    assert!(matches!(Client::new(&feed).refresh(&feed), Err(Refused::Network { role: Role::Timestamp, .. })));

    let mut feed = Feed::new();
    feed.timestamp.channel = "beta".parse().unwrap();
    feed.publish_timestamp();
    assert!(matches!(Client::new(&feed).refresh(&feed), Err(Refused::Channel { role: Role::Timestamp, .. })));

    let mut feed = Feed::new();
    let index = feed.files["index/1.json"].bytes.clone();
    let signed = sign(index, &trusted_comment(Role::Timestamp, 1), &feed.timestamps.clone());
    feed.put("timestamp.json", signed);
    let why = Client::new(&feed).refresh(&feed).unwrap_err();
    assert_eq!(why, Refused::Document(Role::Timestamp, BadDocument::Type("index".to_owned())));
}

#[test]
fn a_key_of_one_role_does_not_speak_for_another() {
    let mut feed = Feed::new();
    feed.timestamps = feed.releases.clone();
    feed.publish_timestamp();
    let why = Client::new(&feed).refresh(&feed).unwrap_err();
    assert_eq!(why, Refused::Signatures(Role::Timestamp, BadSignatures::TooFew { have: 0, need: 1 }));

    let mut feed = Feed::new();
    feed.root.timestamp = feed.root.release.clone();
    feed.publish_root(&feed.roots.clone());
    let why = Client::new(&feed).refresh(&feed).unwrap_err();
    assert_eq!(why, Refused::Root(BadRoot::Shared("release", "timestamp")));
}

#[test]
fn the_signed_version_is_the_files_version() {
    let mut feed = Feed::new();
    let bytes = feed.files["timestamp.json"].bytes.clone();
    let signed = sign(bytes, &trusted_comment(Role::Timestamp, 2), &feed.timestamps.clone());
    feed.put("timestamp.json", signed);
    let why = Client::new(&feed).refresh(&feed).unwrap_err();
    assert_eq!(why, Refused::SignedVersion(Role::Timestamp, 2, 1));
}

#[test]
fn the_threshold_counts_distinct_keys_and_cannot_be_zero_or_out_of_reach() {
    let mut feed = Feed::new();
    feed.timestamps.push(pair());
    feed.root.timestamp = keys(2, &feed.timestamps);
    feed.publish_root(&feed.roots.clone());
    feed.publish();
    assert!(Client::new(&feed).refresh(&feed).is_ok());
    let twice = vec![feed.timestamps[0].clone(), feed.timestamps[0].clone()];
    feed.timestamps = twice;
    feed.publish_timestamp();
    let why = Client::new(&feed).refresh(&feed).unwrap_err();
    assert_eq!(why, Refused::Signatures(Role::Timestamp, BadSignatures::TooFew { have: 1, need: 2 }));

    feed.root.timestamp.keys.truncate(1);
    feed.publish_root(&feed.roots.clone());
    let why = Client::new(&feed).refresh(&feed).unwrap_err();
    assert_eq!(
        why,
        Refused::Root(BadRoot::Keys("timestamp", BadKeys::Threshold { threshold: 2, distinct: 1 }))
    );

    let text = String::from_utf8(feed.anchor().bytes).unwrap().replace("\"threshold\":2", "\"threshold\":0");
    let signed = sign(text.into_bytes(), &trusted_comment(Role::Root, 1), &feed.roots.clone());
    feed.put("root/1.json", signed);
    let why = Client::new(&feed).refresh(&feed).unwrap_err();
    assert!(matches!(why, Refused::Root(BadRoot::Document(BadDocument::Shape(_)))), "{why}");
}

#[test]
fn a_new_root_needs_the_old_keys_and_its_own() {
    let honest = Feed::new();
    for (who, good) in [("old", false), ("new", false), ("both", true)] {
        let mut feed = honest.clone();
        let new = pair();
        feed.root.version = 2;
        feed.root.root = keys(1, std::slice::from_ref(&new));
        let by = match who {
            "old" => vec![feed.roots[0].clone()],
            "new" => vec![new],
            _ => vec![new, feed.roots[0].clone()],
        };
        feed.publish_root(&by);
        let mut client = Client::new(&feed);
        let result = client.refresh(&feed);
        assert_eq!(result.is_ok(), good, "signed by {who}: {result:?}");
        assert_eq!(client.versions(Role::Root), [if good { 2 } else { 1 }]);
    }
}

#[test]
fn roots_are_followed_one_by_one_and_at_most_sixty_four() {
    let mut feed = Feed::new();
    for _ in 0..64 {
        feed.rotate(|feed| feed.roots = vec![pair()]);
    }
    let mut client = Client::new(&feed);
    assert!(client.refresh(&feed).is_ok());
    assert_eq!(client.versions(Role::Root), [65]);
    feed.rotate(|_| {});
    let mut late = Client::new(&feed);
    assert_eq!(late.refresh(&feed).unwrap_err(), Refused::TooManyRoots);
    assert!(late.refresh(&feed).is_ok(), "the next check goes on where this one stopped");

    let mut skipped = Feed::new();
    skipped.root.version = 3;
    let bytes = serde_json::to_vec(&skipped.root).unwrap();
    let signed = sign(bytes, &trusted_comment(Role::Root, 3), &skipped.roots.clone());
    skipped.put("root/2.json", signed);
    let why = Client::new(&skipped).refresh(&skipped).unwrap_err();
    assert_eq!(why, Refused::RootVersion { expected: 2, found: 3 });
}

#[test]
fn a_version_driven_to_the_end_is_forgotten_when_its_keys_are_rotated() {
    let mut feed = Feed::new();
    feed.timestamp.version = u64::MAX - 1;
    feed.index.version = u64::MAX;
    feed.publish();
    let mut client = acquainted(&feed);
    feed.timestamp.version = 1;
    feed.index.version = 2;
    let mut only_timestamps = feed.clone();
    only_timestamps.rotate(|feed| feed.timestamps = vec![pair()]);
    only_timestamps.publish();
    let why = client.clone().refresh(&only_timestamps).unwrap_err();
    assert_eq!(why, Refused::Older { role: Role::Release, seen: u64::MAX, offered: 2 });

    feed.rotate(|feed| (feed.timestamps, feed.releases) = (vec![pair()], vec![pair()]));
    feed.publish();
    client.refresh(&feed).unwrap();
    assert_eq!((client.versions(Role::Timestamp), client.versions(Role::Release)), (vec![2], vec![2]));
}

#[test]
fn a_rotation_of_the_release_keys_alone_keeps_the_timestamps_version() {
    let mut feed = Feed::new();
    feed.index.version = u64::MAX;
    feed.publish();
    let mut client = acquainted(&feed);
    let stale = feed.files["timestamp.json"].clone();
    feed.rotate(|feed| feed.releases = vec![pair()]);
    feed.index.version = 2;
    feed.publish();
    client.refresh(&feed).unwrap();
    feed.put("timestamp.json", stale);
    assert!(matches!(client.refresh(&feed), Err(Refused::Older { role: Role::Timestamp, .. })));
}

#[test]
fn killed_between_any_two_kept_changes_the_next_refresh_recovers() {
    let mut feed = Feed::new();
    let acquainted = acquainted(&feed);
    feed.rotate(|feed| (feed.timestamps, feed.releases) = (vec![pair()], vec![pair()]));
    feed.rotate(|feed| feed.roots = vec![pair()]);
    feed.next();
    for start in [Client::new(&feed), acquainted] {
        for dies_after in 0.. {
            let mut client = start.clone();
            client.dies_after = Some(dies_after);
            let lived = client.refresh(&feed).unwrap().is_some();
            client.dies_after = None;
            client.refresh(&feed).unwrap().unwrap();
            assert_eq!(client.versions(Role::Root), [3], "killed after {dies_after}");
            assert_eq!(client.versions(Role::Timestamp), [2], "killed after {dies_after}");
            assert_eq!(client.versions(Role::Release), [2], "killed after {dies_after}");
            if lived {
                assert!(dies_after > 6, "only {dies_after} steps");
                break;
            }
        }
    }
}

#[test]
fn a_rotation_that_a_kill_cut_short_is_completed_even_if_the_old_files_would_still_verify() {
    let mut feed = Feed::new();
    let mut client = acquainted(&feed);
    // The old keys stay, so that what they signed still counts; it is forgotten all the same.
    feed.rotate(|feed| {
        feed.timestamps.push(pair());
        feed.releases.push(pair());
    });
    client.dies_after = Some(1);
    assert!(client.refresh(&feed).unwrap().is_none());
    assert_eq!(client.versions(Role::Root), [1, 2]);
    client.dies_after = None;
    let trusted = client.load().unwrap();
    assert!(trusted.timestamp().is_none() && trusted.index().is_none());
    assert_eq!(client.versions(Role::Root), [2]);
    assert!(client.versions(Role::Timestamp).is_empty() && client.versions(Role::Release).is_empty());
}

#[test]
fn a_larger_file_than_allowed_is_not_even_verified() {
    let mut feed = Feed::new();
    let bytes = vec![b' '; 256 * 1024 + 1];
    let signed = sign(bytes, &trusted_comment(Role::Timestamp, 2), &feed.timestamps.clone());
    feed.put("timestamp.json", signed);
    assert_eq!(
        Client::new(&feed).refresh(&feed).unwrap_err(),
        Refused::TooLarge(Role::Timestamp, 256 * 1024 + 1)
    );

    let mut feed = Feed::new();
    feed.timestamp.index.size = 256 * 1024 + 1;
    feed.publish_timestamp();
    assert_eq!(
        Client::new(&feed).refresh(&feed).unwrap_err(),
        Refused::TooLarge(Role::Release, 256 * 1024 + 1)
    );
}

#[test]
fn a_missing_timestamp_or_index_is_an_error_and_a_missing_root_is_none() {
    let mut feed = Feed::new();
    feed.files.remove("index/1.json");
    let pin = feed.timestamp.index;
    let missing = |want| Refused::Missing(want, Channel::default());
    assert_eq!(Client::new(&feed).refresh(&feed).unwrap_err(), missing(Want::Index(pin)));
    feed.files.remove("timestamp.json");
    assert_eq!(Client::new(&feed).refresh(&feed).unwrap_err(), missing(Want::Timestamp));
}

#[test]
fn an_answer_that_nobody_asked_for_is_refused() {
    let feed = Feed::new();
    let mut client = Client::new(&feed);
    let trusted = client.refresh(&feed).unwrap().unwrap();
    let mut refresh = Refresh::begin(trusted, NOW, 0).unwrap();
    refresh.answer(Answer::Missing).unwrap();
    refresh.answer(Answer::Found(feed.files["timestamp.json"].clone())).unwrap();
    assert_eq!(refresh.want(), Want::Nothing);
    assert_eq!(refresh.answer(Answer::Missing), Err(Refused::NotAsked));
}

#[test]
fn a_threshold_that_rises_forgets_what_is_signed_by_too_few_and_keeps_what_is_signed_by_enough() {
    let mut feed = Feed::new();
    feed.releases.push(pair());
    feed.root.release = keys(1, &feed.releases);
    feed.publish_root(&feed.roots.clone());
    let both = feed.releases.clone();
    for (by, forgotten) in [(&both[..1], true), (&both[..], false)] {
        let mut feed = feed.clone();
        feed.releases = by.to_vec();
        feed.publish();
        let mut client = acquainted(&feed);
        feed.releases = both.clone();
        feed.rotate(|feed| feed.root.release = keys(2, &both));
        // The timestamp still names the same index.
        let result = client.refresh(&feed);
        assert_eq!(client.versions(Role::Timestamp), [2]);
        assert_eq!(client.asked.contains(&"index/1.json".to_owned()), forgotten);
        if forgotten {
            let too_few = BadSignatures::TooFew { have: 1, need: 2 };
            assert_eq!(result.unwrap_err(), Refused::Signatures(Role::Release, too_few));
            assert!(client.versions(Role::Release).is_empty());
            assert!(client.load().unwrap().index().is_none(), "an index signed by too few is in force");
        } else {
            assert!(result.unwrap().unwrap().index().is_some());
            assert_eq!(client.versions(Role::Release), [1]);
        }
        // A kill between the root and the forgetting is no damage: `load` would say so.
        let mut cut_short = acquainted_before(&feed, by);
        cut_short.dies_after = Some(1);
        assert!(cut_short.refresh(&feed).unwrap().is_none());
        cut_short.dies_after = None;
        assert_eq!(cut_short.load().unwrap().index().is_none(), forgotten);
        assert_eq!(cut_short.versions(Role::Release).is_empty(), forgotten);
    }
}

/// A client that knows this feed as it was before its second root, its index signed by these.
fn acquainted_before(feed: &Feed, by: &[std::rc::Rc<minisign::KeyPair>]) -> Client {
    let mut before = feed.clone();
    before.files.remove("root/2.json");
    before.releases = by.to_vec();
    before.publish_index();
    acquainted(&before)
}

#[test]
fn a_threshold_that_falls_forgets_nothing() {
    let mut feed = Feed::new();
    feed.timestamps.push(pair());
    feed.root.timestamp = keys(2, &feed.timestamps);
    feed.publish_root(&feed.roots.clone());
    feed.publish();
    let mut client = acquainted(&feed);
    let old = feed.files["timestamp.json"].clone();
    feed.rotate(|feed| feed.root.timestamp = keys(1, &feed.timestamps));
    feed.publish_timestamp();
    client.refresh(&feed).unwrap();
    feed.put("timestamp.json", old);
    assert_eq!(refused(&mut client, &feed), Refused::Older { role: Role::Timestamp, seen: 3, offered: 2 });
}

#[test]
fn the_root_keys_threshold_counts_in_the_old_and_in_the_new_root() {
    for (before, after, by, good) in [
        (1, 2, 1, false),
        (1, 2, 2, true),
        (2, 1, 1, false),
        (2, 1, 2, true),
        (2, 3, 2, false),
        (2, 3, 3, true),
    ] {
        let mut feed = Feed::new();
        feed.roots = vec![pair(), pair(), pair()];
        feed.root.root = keys(before, &feed.roots);
        feed.publish_root(&feed.roots.clone());
        let mut client = Client::new(&feed);
        feed.root.version = 2;
        feed.root.root = keys(after, &feed.roots);
        let signers: Vec<_> = feed.roots.iter().take(by).cloned().collect();
        feed.publish_root(&signers);
        // The anchor has to be good in itself; the second root is the one in question.
        let result = client.refresh(&feed);
        assert_eq!(result.is_ok(), good, "{before} then {after}, signed by {by}: {result:?}");
    }
}

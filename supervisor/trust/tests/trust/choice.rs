//! Which release a machine takes, and the reasons for taking none.
use crate::feed::*;
use bumpless_shared::control::StateRange;
use bumpless_shared::release::Release;
use bumpless_shared::version::Range;
use bumpless_trust::document::{Elders, ReleaseDocument, Stage};
use bumpless_trust::refresh::sha256;
use bumpless_trust::{Choice, Forbidden, Machine, Origin, Refused, Request, Role, Running, Trusted, WhyNot};

fn published(change: impl FnOnce(&mut Feed)) -> Trusted {
    let mut feed = Feed::new();
    feed.index.releases = vec![release("1.1.0", 2), release("1.0.0", 1)];
    change(&mut feed);
    feed.publish();
    Client::new(&feed).refresh(&feed).unwrap().unwrap()
}

fn old() -> Release {
    Release { version: "1.0.0".parse().unwrap(), sha256: sha256(b"1.0.0") }
}

fn choose_on(trusted: &Trusted, machine: &Machine, request: &Request) -> Result<Choice, WhyNot> {
    let old = old();
    let running = Running { release: &old, counter: 1 };
    trusted.choose(machine, Some(running), request, |_| None, NOW, 0)
}

fn newest(change: impl FnOnce(&mut Feed)) -> Result<String, WhyNot> {
    choose_on(&published(change), &machine(), &Request::Newest)
        .map(|choice| choice.release().version.to_string())
}

fn version(text: &str) -> bumpless_shared::release::Version {
    text.parse().unwrap()
}

#[test]
fn the_highest_counter_is_the_newest_whatever_the_versions_say() {
    assert_eq!(newest(|_| {}).unwrap(), "1.1.0");
    assert_eq!(newest(|feed| feed.index.releases.push(release("0.9.0", 3))).unwrap(), "0.9.0");
    let trusted = published(|_| {});
    let choice = trusted.choose(&machine(), None, &Request::Newest, |_| None, NOW, 0).unwrap();
    assert_eq!(choice.release().sha256, sha256(b"1.1.0"));
    assert_eq!(choice.counter(), 2);
    assert!(matches!(choice.origin(), Origin::Index(evidence) if evidence.version == 1));
}

#[test]
fn an_urgent_release_is_found_behind_a_newer_one_that_is_not_and_nothing_else_is() {
    let trusted = published(|feed| {
        feed.index.releases.push(release("1.2.0", 3));
        feed.index.releases[0].urgent = true;
    });
    let chosen = |request: &Request| choose_on(&trusted, &machine(), request).unwrap();
    let (newest, urgent) = (chosen(&Request::Newest), chosen(&Request::Urgent));
    assert_eq!((newest.release().version, newest.urgent()), (version("1.2.0"), false));
    assert_eq!((urgent.release().version, urgent.urgent()), (version("1.1.0"), true));
    // What runs is urgent no more, and what is older never was.
    for released in [vec![], vec!["1.0.0"]] {
        let trusted = published(|feed| {
            for entry in &mut feed.index.releases {
                entry.urgent = released.contains(&entry.release.as_str());
            }
        });
        let why = choose_on(&trusted, &machine(), &Request::Urgent).unwrap_err();
        assert!(matches!(why, WhyNot::NothingNewer { .. }), "{why}");
    }
    // It has to fit like any other.
    let trusted = published(|feed| {
        feed.index.releases[0].urgent = true;
        feed.index.revoked = vec![sha256(b"1.1.0")];
    });
    let why = choose_on(&trusted, &machine(), &Request::Urgent).unwrap_err();
    assert!(matches!(why, WhyNot::Forbidden(..)), "{why}");
}

#[test]
fn where_nothing_is_newer_the_reason_names_release_and_channel() {
    let why = newest(|feed| feed.index.releases.truncate(0)).unwrap_err();
    assert_eq!(why.to_string(), "nothing newer than 1.0.0 on channel stable");
    let why = newest(|feed| feed.index.releases[0].artifacts[0].raw_sha256 = sha256(b"1.0.0")).unwrap_err();
    assert_eq!(why.to_string(), "nothing newer than 1.0.0 on channel stable");
}

#[test]
fn what_does_not_fit_this_machine_is_refused_with_both_sides_of_the_mismatch() {
    let refused = |change: fn(&mut ReleaseDocument), text: &str| {
        let why = newest(|feed| change(&mut feed.index.releases[0])).unwrap_err();
        assert_eq!(why.to_string(), text);
    };
    refused(
        |r| r.artifacts[0].target = "aarch64-unknown-linux-gnu".to_owned(),
        "1.1.0 has no artifact for this machine (x86_64-unknown-linux-gnu); it has aarch64-unknown-linux-gnu",
    );
    refused(
        |r| r.artifacts.clear(),
        "1.1.0 has no artifact for this machine (x86_64-unknown-linux-gnu); it has none",
    );
    refused(
        |r| r.min_supervisor = [0, 2, 0],
        "1.1.0 needs supervisor 0.2.0 or newer, this is 0.1.0; upgrade bumplessd first",
    );
    refused(
        |r| r.contract = Range { min: 2, max: 3 },
        "1.1.0 speaks versions 2 to 3 of the contract with the supervisor, this supervisor 1 to 1; upgrade bumplessd first",
    );
    refused(
        |r| r.state = StateRange { read_min: 2, read_max: 3, write: 3 },
        "1.1.0 reads state versions 2 to 3, and what runs here writes 1 to 1; take a release between the two first",
    );
    let why = newest(|feed| feed.index.protocol_revoked = vec![1]).unwrap_err();
    assert!(matches!(why, WhyNot::Protocol { .. }), "{why}");
    let why = newest(|feed| feed.index.protocol_min = 2).unwrap_err();
    assert!(matches!(why, WhyNot::Protocol { .. }), "{why}");
}

#[test]
fn a_release_that_reads_only_an_earlier_version_is_taken_from_one_that_still_writes_it() {
    let serving = |read_min, write| Machine {
        state: Some(StateRange { read_min, read_max: write, write }),
        contract: Range { min: 1, max: 2 },
        ..machine()
    };
    let trusted = published(|_| {});
    assert!(choose_on(&trusted, &serving(1, 2), &Request::Newest).is_ok());
    let why = choose_on(&trusted, &serving(2, 3), &Request::Newest).unwrap_err();
    assert_eq!(
        why.to_string(),
        "1.1.0 reads state versions 1 to 1, and what runs here writes 2 to 3; take a release between the two first"
    );
    let later = published(|feed| {
        feed.index.releases[0].state = StateRange { read_min: 1, read_max: 2, write: 2 };
    });
    assert!(choose_on(&later, &machine(), &Request::Newest).is_ok());
}

#[test]
fn an_older_release_that_fits_is_taken_when_the_newest_does_not_and_both_are_newer_than_what_runs() {
    let taken = newest(|feed| {
        feed.index.releases.push(release("1.2.0", 3));
        feed.index.releases[2].artifacts.clear();
    });
    assert_eq!(taken.unwrap(), "1.1.0");
}

#[test]
fn nothing_starts_while_the_channel_is_paused() {
    assert_eq!(
        newest(|feed| feed.index.paused = true).unwrap_err().to_string(),
        "the publisher has paused channel stable"
    );
}

#[test]
fn a_revoked_release_is_neither_chosen_nor_gone_back_to() {
    let revoke = |feed: &mut Feed| feed.index.revoked = vec![sha256(b"1.1.0")];
    assert_eq!(newest(revoke), Err(WhyNot::Forbidden(version("1.1.0"), Forbidden::Revoked)));
    let trusted = published(revoke);
    assert_eq!(trusted.forbids(&sha256(b"1.1.0"), 2), Some(Forbidden::Revoked));
    assert_eq!(trusted.forbids(&sha256(b"1.0.0"), 1), None);
}

#[test]
fn a_release_below_the_floor_is_neither_chosen_nor_gone_back_to() {
    let raise = |feed: &mut Feed| feed.index.min_release_counter = 3;
    let below = Forbidden::BelowFloor { counter: 2, floor: 3 };
    assert_eq!(newest(raise), Err(WhyNot::Forbidden(version("1.1.0"), below.clone())));
    assert_eq!(published(raise).forbids(&sha256(b"1.1.0"), 2), Some(below));
}

#[test]
fn where_what_runs_is_forbidden_an_urgent_release_comes_before_its_turn_and_any_other_one_waits() {
    let later = |change: &dyn Fn(&mut Feed)| {
        newest(|feed| {
            let rollout = &mut feed.index.releases[0].rollout;
            (rollout.start, rollout.stages) = (NOW, vec![Stage { after: DAY, permille: 1000 }]);
            change(feed);
        })
    };
    let urgent = |feed: &mut Feed| feed.index.releases[0].urgent = true;
    let revoked = |feed: &mut Feed| feed.index.revoked = vec![sha256(b"1.0.0")];
    let waits = |found| matches!(found, Err(WhyNot::NotYet { at: Some(_), .. }));
    assert!(waits(later(&|_| ())) && waits(later(&urgent)) && waits(later(&revoked)));
    let both = |feed: &mut Feed| {
        urgent(feed);
        revoked(feed);
    };
    assert_eq!(later(&both).unwrap(), "1.1.0");
    let below_the_floor = |feed: &mut Feed| {
        urgent(feed);
        feed.index.min_release_counter = 2;
    };
    assert_eq!(later(&below_the_floor).unwrap(), "1.1.0");
    // It neither begins a rollout nor widens it.
    let tomorrow = |feed: &mut Feed| {
        both(feed);
        feed.index.releases[0].rollout.start = NOW + DAY;
    };
    assert!(waits(later(&tomorrow)));
    let nobody = |feed: &mut Feed| {
        both(feed);
        feed.index.releases[0].rollout.stages = vec![Stage { after: 0, permille: 0 }];
    };
    assert!(matches!(later(&nobody), Err(WhyNot::NotYet { at: None, .. })));
}

#[test]
fn what_failed_here_is_not_tried_again_not_even_by_name() {
    let trusted = published(|feed| feed.index.releases[0].urgent = true);
    let failed = |hash: &_| (*hash == sha256(b"1.1.0")).then(|| "died 2 s after the cut".to_owned());
    for request in [Request::Newest, Request::Urgent, Request::Version(version("1.1.0"))] {
        let why = trusted.choose(&machine(), None, &request, failed, NOW, 0);
        match request {
            Request::Newest => assert_eq!(why.unwrap().release().version, version("1.0.0")),
            Request::Urgent | Request::Version(_) => {
                assert_eq!(why.unwrap_err().to_string(), "1.1.0 is quarantined here: died 2 s after the cut");
            }
        }
    }
}

#[test]
fn a_release_can_be_asked_for_by_name_but_not_backwards() {
    let trusted = published(|feed| feed.index.releases.push(release("0.9.0", 0)));
    let ask = |text: &str| choose_on(&trusted, &machine(), &Request::Version(version(text)));
    assert_eq!(ask("1.1.0").unwrap().release().version, version("1.1.0"));
    assert_eq!(ask("1.0.0"), Err(WhyNot::Running(version("1.0.0"))));
    assert_eq!(ask("0.9.0"), Err(WhyNot::Older { version: version("0.9.0"), running: version("1.0.0") }));
    assert_eq!(
        ask("2.0.0").unwrap_err().to_string(),
        "channel stable has no release 2.0.0; it has 1.1.0, 1.0.0, 0.9.0"
    );
}

#[test]
fn expired_metadata_chooses_nothing() {
    let trusted = published(|_| {});
    let choose = |now| trusted.choose(&machine(), None, &Request::Newest, |_| None, now, 0);
    assert!(choose(NOW + DAY - 1).is_ok());
    assert_eq!(choose(NOW + DAY), Err(WhyNot::Stale(Refused::Expired(Role::Timestamp, NOW + DAY))));
    assert!(matches!(choose(NOW - DAY), Err(WhyNot::Stale(Refused::Clock { .. }))));
}

#[test]
fn each_of_the_three_files_has_its_own_expiry() {
    let with = |root: u64, index: u64| {
        published(|feed| {
            feed.root.timestamp_valid = Some(30 * DAY);
            feed.root.expires = NOW + root * DAY;
            feed.publish_root(&feed.roots.clone());
            feed.timestamp.expires = NOW + 30 * DAY;
            feed.index.expires = NOW + index * DAY;
        })
    };
    let choose =
        |trusted: Trusted| trusted.choose(&machine(), None, &Request::Newest, |_| None, NOW + 5 * DAY, 0);
    assert!(choose(with(9, 9)).is_ok());
    assert_eq!(choose(with(5, 9)), Err(WhyNot::Stale(Refused::Expired(Role::Root, NOW + 5 * DAY))));
    assert_eq!(choose(with(9, 5)), Err(WhyNot::Stale(Refused::Expired(Role::Release, NOW + 5 * DAY))));
}

#[test]
fn nothing_is_chosen_from_an_index_whose_successor_is_known_but_was_not_fetched() {
    let mut feed = Feed::new();
    let mut client = Client::new(&feed);
    client.refresh(&feed).unwrap();
    feed.index.revoked = vec![sha256(b"1.0.0")];
    feed.next();
    feed.files.remove("index/2.json");
    client.refresh(&feed).unwrap_err();
    let trusted = client.load().unwrap();
    let why = trusted.choose(&machine(), None, &Request::Newest, |_| None, NOW, 0).unwrap_err();
    assert_eq!(why.to_string(), "the feed has no index 2, which its timestamp names");
}

#[test]
fn a_gate_that_cannot_be_checked_stays_shut() {
    let why = newest(|feed| {
        feed.root.elders = Elders::Required;
        feed.publish_root(&feed.roots.clone());
    });
    assert!(matches!(why, Err(WhyNot::Gate(_))), "{why:?}");
}

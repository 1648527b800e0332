//! What is foreseen for each release, what a pin keeps out, and what a choice rests on.
use crate::feed::*;
use bumpless_shared::release::{Release, Version};
use bumpless_trust::choice::Standing;
use bumpless_trust::document::Stage;
use bumpless_trust::refresh::sha256;
use bumpless_trust::{Forbidden, Machine, Origin, Outlook, Request, Running, Trusted, WhyNot};

/// 1.9.0, 1.8.1 and 1.8.0, of which the last runs.
fn published(change: impl FnOnce(&mut Feed)) -> Trusted {
    let mut feed = Feed::new();
    feed.index.releases = vec![release("1.8.0", 1), release("1.8.1", 2), release("1.9.0", 3)];
    change(&mut feed);
    feed.publish();
    Client::new(&feed).refresh(&feed).unwrap().unwrap()
}

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn pinned(pin: &str) -> Machine {
    Machine { pin: Some(pin.parse().unwrap()), ..machine() }
}

fn outlook_at(trusted: &Trusted, machine: &Machine, request: &Request, now: u64) -> Outlook {
    let runs = Release { version: version("1.8.0"), sha256: sha256(b"1.8.0") };
    let running = Some(Running { release: &runs, counter: 1 });
    let outlook = trusted.outlook(machine, running, request, |_| None, now, 0).unwrap();
    let chosen = trusted.choose(machine, running, request, |_| None, now, 0);
    assert_eq!(outlook.chosen, chosen, "what is foreseen is not what happens");
    outlook
}

fn newest(trusted: &Trusted, machine: &Machine) -> Result<Version, WhyNot> {
    outlook_at(trusted, machine, &Request::Newest, NOW).chosen.map(|choice| choice.release().version)
}

#[test]
fn each_release_of_the_index_is_judged_by_itself_and_the_newest_that_fits_is_chosen() {
    let trusted = published(|feed| {
        feed.index.releases.push(release("1.9.1", 4));
        feed.index.revoked = vec![sha256(b"1.9.1")];
        feed.index.releases.push(release("1.7.0", 0));
    });
    let outlook = outlook_at(&trusted, &machine(), &Request::Newest, NOW);
    let seen: Vec<_> = outlook
        .releases
        .iter()
        .map(|one| (one.version.as_str(), one.standing.clone(), one.unasked.clone().err()))
        .collect();
    let older = Standing::Older { running: version("1.8.0") };
    assert_eq!(
        seen,
        [
            ("1.9.1", Standing::Newer, Some(WhyNot::Forbidden(version("1.9.1"), Forbidden::Revoked))),
            ("1.9.0", Standing::Newer, None),
            ("1.8.1", Standing::Newer, None),
            ("1.8.0", Standing::Runs, Some(WhyNot::Running(version("1.8.0")))),
            ("1.7.0", older, Some(WhyNot::Older { version: version("1.7.0"), running: version("1.8.0") })),
        ]
    );
    assert_eq!(outlook.chosen.clone().unwrap().release().version, version("1.9.0"));
    assert_eq!(outlook.coming().unwrap().version, version("1.9.0"));
    // Nothing is chosen while the channel is paused; what each release is by itself stays visible.
    let trusted = published(|feed| feed.index.paused = true);
    let outlook = outlook_at(&trusted, &machine(), &Request::Newest, NOW);
    assert!(matches!(outlook.chosen, Err(WhyNot::Paused(_))));
    assert!(outlook.releases[0].unasked.is_ok());
}

#[test]
fn a_release_of_the_same_place_in_the_order_and_other_bytes_is_no_news_and_can_be_named() {
    let trusted = published(|feed| {
        feed.index.releases = vec![release("1.8.0", 1)];
        feed.index.releases[0].artifacts[0].raw_sha256 = sha256(b"other bytes");
    });
    let outlook = outlook_at(&trusted, &machine(), &Request::Newest, NOW);
    assert_eq!(outlook.releases[0].standing, Standing::Beside);
    assert!(matches!(outlook.chosen, Err(WhyNot::NothingNewer { .. })));
    let named = outlook_at(&trusted, &machine(), &Request::Version(version("1.8.0")), NOW);
    assert_eq!(named.chosen.unwrap().release().sha256, sha256(b"other bytes"));
}

#[test]
fn the_next_opening_is_the_earliest_of_the_stages_that_will_reach_this_machine() {
    let later = |after| vec![Stage { after: 0, permille: 0 }, Stage { after, permille: 1000 }];
    let trusted = published(|feed| {
        for (at, after) in [(1, 3600), (2, 60)] {
            feed.index.releases[at].rollout.start = NOW;
            feed.index.releases[at].rollout.stages = later(after);
        }
        // Never reaches it.
        let never = vec![Stage { after: 0, permille: 0 }];
        let mut canaries = release("2.0.0", 4);
        canaries.rollout.stages = never;
        feed.index.releases.push(canaries);
    });
    let at = |now| outlook_at(&trusted, &machine(), &Request::Newest, now);
    assert_eq!(at(NOW).opens_at(), Some(NOW + 60));
    assert_eq!(at(NOW + 59).opens_at(), Some(NOW + 60));
    assert!(at(NOW + 59).chosen.is_err());
    assert_eq!(at(NOW + 60).chosen.unwrap().release().version, version("1.9.0"));
    // The other one still waits; it is older, but the newer one may yet fail.
    assert_eq!(at(NOW + 60).opens_at(), Some(NOW + 3600));
    assert_eq!(at(NOW + 3600).opens_at(), None);
    // What a pin keeps out opens nothing here.
    let inside = outlook_at(&trusted, &pinned("1.8"), &Request::Newest, NOW);
    assert_eq!(inside.opens_at(), Some(NOW + 3600));
}

#[test]
fn the_next_release_is_the_newest_that_is_taken_or_else_the_newest_inside_of_the_pin() {
    let trusted = published(|feed| {
        feed.index.releases[1].rollout.start = NOW + 60;
        feed.index.releases[2].rollout.start = NOW + 60;
    });
    let coming = |machine: &Machine| {
        outlook_at(&trusted, machine, &Request::Newest, NOW).coming().map(|one| one.version.to_string())
    };
    assert_eq!(coming(&machine()).as_deref(), Some("1.9.0"));
    assert_eq!(coming(&pinned("1.8")).as_deref(), Some("1.8.1"));
    assert_eq!(coming(&pinned("3")).as_deref(), Some("1.9.0"));
    let trusted = published(|feed| feed.index.releases.truncate(1));
    let runs = outlook_at(&trusted, &machine(), &Request::Newest, NOW);
    assert_eq!(runs.coming().map(|one| one.standing.clone()), Some(Standing::Runs));
}

#[test]
fn a_pinned_machine_takes_the_newest_inside_of_its_pin() {
    let trusted = published(|_| {});
    assert_eq!(newest(&trusted, &machine()), Ok(version("1.9.0")));
    assert_eq!(newest(&trusted, &pinned("1.8")), Ok(version("1.8.1")));
    assert_eq!(newest(&trusted, &pinned("1")), Ok(version("1.9.0")));
}

#[test]
fn an_operator_who_names_a_release_outside_of_the_pin_is_told_what_to_change() {
    let trusted = published(|_| {});
    let ask = |text| outlook_at(&trusted, &pinned("1.8"), &Request::Version(version(text)), NOW).chosen;
    let why = ask("1.9.0").unwrap_err();
    assert_eq!(why, WhyNot::Pinned { version: version("1.9.0"), pin: "1.8".parse().unwrap() });
    assert_eq!(
        why.to_string(),
        "1.9.0 is outside of this machine's pin 1.8; to let it in, change rollout.pin in config.toml and restart \
         the supervisor"
    );
    assert!(ask("1.8.1").is_ok());
}

#[test]
fn where_the_pin_leaves_nothing_the_reason_is_about_what_is_inside_if_anything_newer_is() {
    let trusted = published(|feed| feed.index.releases[1].rollout.start = NOW + 60);
    let why = newest(&trusted, &pinned("1.8")).unwrap_err();
    assert!(matches!(&why, WhyNot::NotYet { at: Some(at), .. } if *at == NOW + 60), "{why}");
    let why = newest(&trusted, &pinned("1.7")).unwrap_err();
    assert!(matches!(&why, WhyNot::Pinned { version, .. } if version.as_str() == "1.9.0"), "{why}");
}

#[test]
fn a_choice_rests_on_the_exact_bytes_of_its_index_and_on_the_keys_that_signed_them() {
    let mut feed = Feed::new();
    feed.releases = vec![pair(), pair(), pair()];
    feed.root.release = keys(2, &feed.releases);
    feed.publish_root(&feed.roots.clone());
    // The third key holder was away.
    let away = feed.releases.pop().unwrap();
    feed.index.version = 7;
    feed.publish();
    let mut client = Client::new(&feed);
    let fetched = client.refresh(&feed).unwrap().unwrap();
    // And the same from what was kept, after a restart.
    for trusted in [fetched, client.load().unwrap()] {
        let choice = trusted.choose(&machine(), None, &Request::Newest, |_| None, NOW, 0).unwrap();
        let Origin::Index(evidence) = choice.origin() else { panic!("{choice:?}") };
        assert_eq!(evidence.version, 7);
        assert_eq!(evidence.sha256, sha256(&feed.files["index/7.json"].bytes));
        let mut expected: Vec<_> = feed.releases.iter().map(|pair| pair.pk.to_base64()).collect();
        let mut found = evidence.keys.clone();
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
        assert!(!found.contains(&away.pk.to_base64()));
        assert_eq!(trusted.index_evidence(), Some(evidence));
    }
}

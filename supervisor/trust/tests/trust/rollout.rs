//! When a release reaches which machine.
//!
//! The machines are simulated, ten thousand of them. A bucket is a hash, so a share of p machines out of N
//! is binomial: its mean is Np, its variance Np(1-p). A count further than five standard deviations from
//! its mean comes up by chance less than once in a hundred thousand times even where the counts are small
//! (mean 10), once in a million elsewhere. Nothing here is drawn anew, so these tests either always pass or
//! never; the bounds only say what would be no accident.
use crate::feed::*;
use bumpless_shared::digest::Digest;
use bumpless_trust::choice::{bucket, eligible_at};
use bumpless_trust::document::{Group, Rollout, Stage};
use bumpless_trust::refresh::sha256;
use bumpless_trust::{Machine, Request, WhyNot};

const NODES: u32 = 10_000;
/// The stages of an ordinary rollout, and what lies at the edges.
const PERMILLE: [u16; 9] = [1, 10, 50, 100, 250, 500, 900, 990, 999];

fn rollout(salt: &str, stages: &[(u64, u16)]) -> Rollout {
    let stages =
        stages.iter().map(|(after, permille)| Stage { after: *after, permille: *permille }).collect();
    Rollout { start: NOW, salt: salt.to_owned(), group: None, canaries: vec![], stages }
}

fn group(name: &str) -> Group {
    name.parse().unwrap()
}

/// Ids as machines have them, and ids that hardly differ.
fn ids() -> [(&'static str, Vec<Digest>); 2] {
    let random = (0..NODES).map(|node| sha256(&node.to_le_bytes())).collect();
    let alike = (0..NODES)
        .map(|node| {
            let mut id = [0; 32];
            id[28..].copy_from_slice(&node.to_be_bytes());
            Digest(id)
        })
        .collect();
    [("random ids", random), ("ids that hardly differ", alike)]
}

fn buckets(ids: &[Digest], salt: &str) -> Vec<u16> {
    let rollout = rollout(salt, &[]);
    ids.iter().map(|id| bucket(&rollout, id)).collect()
}

#[track_caller]
fn is_near(count: usize, share: f64, what: &str) {
    is_near_of(NODES, count, share, what);
}

#[track_caller]
fn is_near_of(nodes: u32, count: usize, share: f64, what: &str) {
    let n = f64::from(nodes);
    let (mean, deviation) = (n * share, (n * share * (1.0 - share)).sqrt());
    assert!((count as f64 - mean).abs() <= 5.0 * deviation, "{what}: {count} instead of {mean}");
}

#[test]
fn each_stage_reaches_its_share_of_the_machines_and_no_bucket_is_crowded() {
    let mut all = [0usize; 1000];
    for (kind, ids) in ids() {
        for salt in ["a", "1.8.2", "5e1f77aa"] {
            let mut count = [0usize; 1000];
            buckets(&ids, salt).into_iter().for_each(|bucket| count[usize::from(bucket)] += 1);
            for permille in PERMILLE {
                let reached = count[..usize::from(permille)].iter().sum();
                is_near(
                    reached,
                    f64::from(permille) / 1000.0,
                    &format!("{kind}, {salt}, {permille} permille"),
                );
                // On both sides of the stage's edge, and at both ends.
                for edge in [0, permille - 1, permille, 999] {
                    is_near(count[usize::from(edge)], 0.001, &format!("{kind}, {salt}, bucket {edge}"));
                }
            }
            // All buckets together: chi-square with 999 degrees of freedom, mean 999, variance 1998.
            let square: f64 = count.iter().map(|count| (*count as f64 - 10.0).powi(2) / 10.0).sum();
            assert!((square - 999.0).abs() < 5.0 * 1998f64.sqrt(), "{kind}, {salt}: chi-square {square}");
            all.iter_mut().zip(count).for_each(|(all, count)| *all += count);
        }
    }
    // One bucket of ten machines may be empty by chance; with sixty it may not.
    for (bucket, count) in all.into_iter().enumerate() {
        is_near_of(6 * NODES, count, 0.001, &format!("bucket {bucket} in all six rollouts"));
    }
}

#[test]
fn another_salt_puts_other_machines_first() {
    let [(_, ids), _] = ids();
    let (one, other) = (buckets(&ids, "one"), buckets(&ids, "other"));
    let first_twice = one.iter().zip(&other).filter(|(one, other)| **one < 100 && **other < 100).count();
    is_near(first_twice, 0.01, "among the first tenth twice");
    let same = one.iter().zip(&other).filter(|(one, other)| one == other).count();
    is_near(same, 0.001, "in the same bucket twice");
}

#[test]
fn a_machines_bucket_is_frozen() {
    // A restart, another release of the supervisor, another machine's architecture: the same.
    let frozen = [("", 0u8, 308), ("1.8.2", 7, 324), ("5e1f77aa", 255, 974)];
    let found = frozen.map(|(salt, id, _)| (salt, id, bucket(&rollout(salt, &[]), &Digest([id; 32]))));
    assert_eq!(found, frozen);
}

#[test]
fn a_rollout_reaches_each_machine_at_its_own_signed_moment_and_never_leaves_it_again() {
    let rollout = rollout("s", &[(0, 10), (DAY, 250), (3 * DAY, 1000)]);
    for (bucket, at) in [(0, 0), (9, 0), (10, DAY), (249, DAY), (250, 3 * DAY), (999, 3 * DAY)] {
        assert_eq!(eligible_at(&rollout, bucket, None), Some(NOW + at), "bucket {bucket}");
    }
    let [(_, ids), _] = ids();
    let mut before = 0;
    for (after, permille) in [(0, 10), (DAY - 1, 10), (DAY, 250), (3 * DAY - 1, 250), (3 * DAY, 1000)] {
        let reached = |id: &&Digest| {
            eligible_at(&rollout, bucket(&rollout, id), None).is_some_and(|at| at <= NOW + after)
        };
        let count = ids.iter().filter(reached).count();
        is_near(count, f64::from(permille) / 1000.0, &format!("after {after} s"));
        assert!(count >= before, "after {after} s some machines were no longer reached");
        before = count;
    }
    assert_eq!(before, ids.len());
}

/// What a machine of this group and this bucket at least says to the newest release.
fn chosen(rollout: &Rollout, at_least: u16, group: Option<&str>, request: &Request) -> Result<(), WhyNot> {
    let mut feed = Feed::new();
    feed.index.releases[0].rollout = rollout.clone();
    feed.publish();
    let trusted = Client::new(&feed).refresh(&feed).unwrap().unwrap();
    let mut one = Machine { group: group.map(|name| name.parse().unwrap()), ..machine() };
    while bucket(rollout, &one.id) < at_least {
        one.id = sha256(&one.id.0);
    }
    trusted.choose(&one, None, request, |_| None, NOW, 0).map(|_| ())
}

#[test]
fn an_operator_who_names_a_release_does_not_wait_for_its_rollout() {
    let rollout = rollout("s", &[(0, 10), (DAY, 250), (3 * DAY, 1000)]);
    let why = chosen(&rollout, 250, None, &Request::Newest).unwrap_err();
    assert!(matches!(why, WhyNot::NotYet { at: Some(at), .. } if at == NOW + 3 * DAY), "{why}");
    assert_eq!(chosen(&rollout, 250, None, &Request::Version("1.0.0".parse().unwrap())), Ok(()));
}

#[test]
fn at_nought_permille_nobody_but_the_canaries_takes_a_release() {
    let nobody = rollout("s", &[(0, 0)]);
    let canaries = Rollout { canaries: vec![group("canary"), group("lab")], ..nobody.clone() };
    for bucket in [0, 500] {
        for other in [None, Some("eu")] {
            let why = chosen(&canaries, bucket, other, &Request::Newest).unwrap_err();
            assert!(matches!(why, WhyNot::NotYet { at: None, .. }), "{why}");
        }
        for canary in ["canary", "lab"] {
            assert_eq!(chosen(&canaries, bucket, Some(canary), &Request::Newest), Ok(()));
            assert!(chosen(&nobody, bucket, Some(canary), &Request::Newest).is_err(), "no canary there");
        }
    }
}

#[test]
fn a_canary_waits_for_no_stage_but_for_the_start() {
    let mut later = Rollout { canaries: vec![group("canary")], ..rollout("s", &[(DAY, 1000)]) };
    assert_eq!(chosen(&later, 0, Some("canary"), &Request::Newest), Ok(()));
    assert!(chosen(&later, 0, None, &Request::Newest).is_err());
    later.start = NOW + 60;
    let why = chosen(&later, 0, Some("canary"), &Request::Newest).unwrap_err();
    assert!(matches!(why, WhyNot::NotYet { at: Some(at), .. } if at == NOW + 60), "{why}");
}

#[test]
fn a_rollout_for_a_group_reaches_that_group_and_its_canaries() {
    let eu =
        Rollout { group: Some(group("eu")), canaries: vec![group("canary")], ..rollout("s", &[(0, 1000)]) };
    assert_eq!(chosen(&eu, 0, Some("eu"), &Request::Newest), Ok(()));
    assert_eq!(chosen(&eu, 0, Some("canary"), &Request::Newest), Ok(()));
    let why = chosen(&eu, 0, Some("us"), &Request::Newest).unwrap_err();
    assert_eq!(why.to_string(), "1.0.0 is rolled out to other groups of machines than us");
    let why = chosen(&eu, 0, None, &Request::Newest).unwrap_err();
    assert!(why.to_string().contains("this one belongs to none; rollout.group puts it into one"), "{why}");
    assert_eq!(chosen(&eu, 0, Some("us"), &Request::Version("1.0.0".parse().unwrap())), Ok(()));
    // Its stages count for that group as for everyone else.
    let staged = Rollout { stages: vec![Stage { after: DAY, permille: 1000 }], ..eu };
    let why = chosen(&staged, 0, Some("eu"), &Request::Newest).unwrap_err();
    assert!(matches!(why, WhyNot::NotYet { at: Some(at), .. } if at == NOW + DAY), "{why}");
}

//! The share of the model that runs each time: one fault of any sort, two of some, and every planted
//! mistake. The rest is `cargo model`.

use bumpless_tests::model::moves::Kind;
use bumpless_tests::model::plant::Plant;
use bumpless_tests::model::world::Left;
use bumpless_tests::model::{Found, Run, explore};

fn run(plant: Option<Plant>, faults: u8, kinds: &[Kind]) -> Found {
    let left = Left { faults, upgrades: 1, writes: 1 };
    // A counterexample is to be a shortest one; without one all threads find the same.
    let threads = if plant.is_some() { 1 } else { 2 };
    let found = explore(Run { plant, left, kinds: kinds.to_vec(), states: None, threads });
    println!("{} states, depth {}, {:.1} s", found.states, found.depth, found.took.as_secs_f64());
    found
}

fn all_is_well(found: &Found) {
    let told = found.broken.iter().map(|broken| {
        let steps = [broken.steps.join("\n"), broken.then.join("\n")].join("\nwithout further faults:\n");
        format!("{}: {}\n{steps}", broken.property, broken.how)
    });
    assert!(found.broken.is_empty(), "{}", told.collect::<Vec<_>>().join("\n\n"));
    assert!(found.complete);
}

fn missed(found: &Found) -> Vec<&str> {
    found.phases.iter().filter(|(_, count)| **count == 0).map(|(phase, _)| *phase).collect()
}

/// Where starts of a supervisor went on.
fn went_on(found: &Found) -> Vec<&str> {
    found.recoveries.iter().filter(|(_, count)| **count > 0).map(|(way, _)| *way).collect()
}

#[test]
fn whatever_goes_wrong_once_every_invariant_holds_and_it_ends_steady() {
    let found = run(None, 1, &[]);
    all_is_well(&found);
    assert_eq!(missed(&found), ["Clearing for the record"], "it takes two faults");
    let ways =
        ["Cold Spawning", "Committing Sealing", "Probation", "RollingBack Resuming", "Steady", "Vacant"];
    assert_eq!(went_on(&found), ways, "where a start goes on after one fault");
}

#[test]
fn whoever_dies_beside_the_supervisor_a_start_goes_on_where_things_stand() {
    let found = run(None, 2, &[Kind::Supervisor, Kind::Kill]);
    all_is_well(&found);
    let ways = went_on(&found);
    for way in ["Clearing for a cold start", "Cold Waiting", "Probation alone"] {
        assert!(ways.contains(&way), "no start went on with {way}: {ways:?}");
    }
}

#[test]
fn whoever_dies_and_whatever_record_fails_beside_it_every_invariant_holds_and_it_ends_steady() {
    let found = run(None, 2, &[Kind::Kill, Kind::Record]);
    all_is_well(&found);
    assert!(!missed(&found).contains(&"Clearing for the record"));
}

#[test]
fn every_mistake_that_is_planted_is_found() {
    for plant in Plant::ALL {
        println!("{}", plant.name());
        let found = run(Some(plant), plant.faults(), plant.kinds());
        assert!(!found.broken.is_empty(), "{} was not found", plant.name());
    }
}

//! What a run found, in words.

use bumpless_shared::control::Command;
use serde_json::json;

use super::arguments::Arguments;
use super::moves::{Fault, Move};
use super::plant::Plant;
use super::time;
use super::world::{Left, Supervisor, Up, World};
use super::{Broken, Found, Run, explore, property};

/// A path, a line for each step: what happened, and where that left everybody.
pub fn steps(path: &[(World, Option<Move>)]) -> Vec<String> {
    let mut lines = vec![];
    for pair in path.windows(2) {
        let [(before, Some(step)), (after, _)] = pair else {
            continue;
        };
        lines.push(format!("{:<64} {}", words(before, *step), standing(after)));
    }
    lines
}

fn words(world: &World, step: Move) -> String {
    let order = |who| {
        let process = world.workers.get(&who);
        let order = process.and_then(|process| process.orders.front()).map(|order| &order.command);
        match order {
            Some(Command::Start(_)) => "Start".to_owned(),
            Some(order) => format!("{order:?}"),
            None => "an order".to_owned(),
        }
    };
    match step {
        Move::Obeys(who) => format!("worker {who} obeys {}", order(who)),
        Move::ObeysStale(who) => format!("worker {who} obeys an order of an old channel"),
        Move::Hears(who) => {
            let handle = world.handle(who);
            let said = handle.and_then(|handle| handle.said.front());
            match said {
                Some(Up::Greeting) => format!("the supervisor hears the greeting of worker {who}"),
                Some(Up::Report(report)) => format!("the supervisor hears worker {who}: {report:?}"),
                None if world.workers.contains_key(&who) => {
                    format!("the supervisor finds the channel of worker {who} closed")
                }
                None => format!("the supervisor hears that worker {who} is dead"),
            }
        }
        Move::Does => match world.running().and_then(|running| running.own.front()) {
            Some(own) => format!("the supervisor has done {own:?}"),
            None => "the supervisor has done something".to_owned(),
        },
        Move::ReadsNote(who, peer) => {
            let note = world.workers.get(&who).and_then(|process| process.wire(peer)?.notes.front());
            format!("worker {who} reads {note:?} of worker {peer}")
        }
        Move::Fault(Fault::Within(inner, mishap)) => {
            format!("FAULT {mishap:?} when {}", words(world, inner.as_move()))
        }
        Move::Fault(fault) => format!("FAULT {fault:?}"),
        step => format!("{step:?}"),
    }
}

/// Everybody in a few characters.
fn standing(world: &World) -> String {
    let supervisor = match &*world.supervisor {
        Supervisor::Absent => "no supervisor".to_owned(),
        Supervisor::Starting(_) => "supervisor starting".to_owned(),
        Supervisor::Running(running) => time::phase(&running.state).to_owned(),
    };
    let mut words = vec![supervisor];
    for (who, process) in &world.workers {
        let state = format!("{:?}", process.life.state());
        let state = state.split([' ', '(']).next().unwrap_or_default().to_owned();
        let held = match process.role {
            Some(bumpless_worker::state::Role::Holding { term, .. }) => format!(" T{term}"),
            _ => String::new(),
        };
        let stopped = if process.stopped { " stopped" } else { "" };
        let doomed = if process.doomed { " killed" } else { "" };
        words.push(format!("{who}:{state}{held}{stopped}{doomed}"));
    }
    if let Some(committed) = &world.disk.committed.reads {
        words.push(format!("committed {}", committed.generation));
    }
    words.join(", ")
}

fn left(arguments: &Arguments) -> Left {
    Left { faults: arguments.faults, upgrades: arguments.upgrades, writes: arguments.writes }
}

/// Explores the product as it is, and says what was found; whether all is well.
pub fn whole(arguments: &Arguments) -> bool {
    let run = Run {
        plant: None,
        left: left(arguments),
        kinds: arguments.only.clone(),
        states: arguments.states,
        threads: arguments.threads,
    };
    let found = explore(run);
    if arguments.json {
        println!("{:#}", as_json(&found));
    } else {
        print(&found);
    }
    found.broken.is_empty()
}

fn as_json(found: &Found) -> serde_json::Value {
    let broken: Vec<_> = found
        .broken
        .iter()
        .map(|broken| {
            let (how, steps, then) = (&broken.how, &broken.steps, &broken.then);
            json!({"property": broken.property, "how": how, "steps": steps, "then": then})
        })
        .collect();
    json!({
        "states": found.states,
        "generated": found.generated,
        "depth": found.depth,
        "seconds": found.took.as_secs_f64(),
        "complete": found.complete,
        "phases": found.phases,
        "recoveries": found.recoveries,
        "properties": property::ALL,
        "broken": broken,
    })
}

fn print(found: &Found) {
    println!(
        "{} states ({} generated), depth {}, {:.1} s{}",
        found.states,
        found.generated,
        found.depth,
        found.took.as_secs_f64(),
        if found.complete { "" } else { ", not all of them" }
    );
    println!("\nphases:");
    for (phase, count) in &found.phases {
        println!("  {count:>10}  {phase}");
    }
    println!("\nwhere a start went on:");
    for (phase, count) in found.recoveries.iter().filter(|(_, count)| **count > 0) {
        println!("  {count:>10}  {phase}");
    }
    println!("\nproperties:");
    for name in property::ALL {
        let broken = found.broken.iter().find(|broken| broken.property == name);
        println!("  {}  {name}", if broken.is_some() { "BROKEN" } else { "holds " });
    }
    for broken in &found.broken {
        println!("\n{}: {}", broken.property, broken.how);
        print_steps(broken);
    }
}

fn print_steps(broken: &Broken) {
    for (index, step) in broken.steps.iter().enumerate() {
        println!("{:>4}  {step}", index + 1);
    }
    if !broken.then.is_empty() {
        println!("      without further faults:");
    }
    for step in &broken.then {
        println!("      {step}");
    }
}

/// Plants mistakes and says which were found; whether all were.
pub fn planted(arguments: &Arguments, plants: &[Plant]) -> bool {
    let mut all = true;
    let mut results = vec![];
    for plant in plants {
        let faults = plant.faults();
        let left = Left { faults, ..left(arguments) };
        let (states, kinds) = (arguments.states, plant.kinds().to_vec());
        let found = explore(Run { plant: Some(*plant), left, kinds, states, threads: 1 });
        let first = found.broken.first();
        all &= first.is_some();
        if arguments.json {
            results.push(json!({
                "plant": plant.name(),
                "found": first.is_some(),
                "property": first.map(|broken| broken.property),
                "steps": first.map(|broken| broken.steps.len()),
                "faults": faults,
                "states": found.states,
                "seconds": found.took.as_secs_f64(),
            }));
            continue;
        }
        match first {
            Some(broken) => {
                println!(
                    "{}: found in {} steps ({} states, {:.1} s): {}: {}",
                    plant.name(),
                    broken.steps.len(),
                    found.states,
                    found.took.as_secs_f64(),
                    broken.property,
                    broken.how
                );
                print_steps(broken);
            }
            None => println!("{}: NOT FOUND among {} states", plant.name(), found.states),
        }
    }
    if arguments.json {
        println!("{:#}", json!(results));
    }
    all
}

//! `kill -9` of the supervisor in each phase of an upgrade: the node serves on, no acknowledged write
//! is lost, there are never two holders, the next start carries on, and the upgrade after it works.

use std::time::Duration;

use bumpless_control::request::Request;
use bumpless_control::status::{Phase, Status};
use bumpless_os::process::Process;
use bumpless_tests::configuration::Settings;
use bumpless_tests::leftovers;
use bumpless_tests::tap::Flow;
use bumpless_tests::world::{Result, faulty, release};
use bumpless_worker::faults::{AfterCut, Faults, InSync};
use bumpless_worker::stamp::Stamp;
use bumpless_worker::state::Layout;

use crate::under_load::{Clients, UPGRADE, UnderLoad};

fn settings() -> Settings {
    Settings {
        start_deadline: Duration::from_secs(5),
        sync_stall: Duration::from_secs(3),
        ..Settings::default()
    }
}

fn sound() -> Result<Stamp> {
    release("1.1.0", Layout::ByKind)
}

/// Asks for an upgrade and kills the supervisor as soon as it says that this phase has begun.
async fn kill_in(node: &mut UnderLoad, phase: Phase, stamp: &Stamp) -> Result<()> {
    let release = node.world.publish(stamp)?;
    let supervisor = Process::open(node.world.supervisor()?.pid() as i32)?;
    let request = Request::Upgrade { version: Some(release.version), wait: true, rehearse: false };
    let mut seen = Vec::new();
    let control = node.world.control();
    let asked = control.ask(&request, |_, progress| {
        if seen.last() != Some(&progress.phase) {
            seen.push(progress.phase.clone());
        }
        if progress.phase == phase {
            supervisor.kill().unwrap();
        }
    });
    let answer = tokio::time::timeout(UPGRADE, asked).await.map_err(|_| "no answer, no end")?;
    assert!(seen.contains(&phase), "{phase:?} was never seen: {seen:?}, then {answer:?}");
    node.world.kill_supervisor()?;
    Ok(())
}

/// Kills in a phase; then everything that has to hold whatever the phase was.
async fn carries_on(phase: Phase, stamp: &Stamp, flow: Flow, clients: Clients) -> Result<()> {
    let mut node = UnderLoad::start(settings()).await?;
    node.world.turn_tap(flow);
    kill_in(&mut node, phase, stamp).await?;
    // Without a supervisor the node serves on, whatever it was in.
    node.more_writes(30).await?;
    node.world.turn_tap(Flow::Open);
    node.world.start_supervisor()?;
    node.world.serving().await?;
    node.more_writes(10).await?;
    node.upgrade_well("1.9.0").await?;
    node.finish(clients).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_fetches() -> Result<()> {
    carries_on(Phase::Fetching, &sound()?, Flow::Throttled(2_000_000), Clients::NoticedNothing).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_new_worker_starts() -> Result<()> {
    carries_on(Phase::Starting, &sound()?, Flow::Open, Clients::NoticedNothing).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_new_worker_syncs() -> Result<()> {
    let stalls = faulty("1.1.0", Faults { sync: Some(InSync::Stall), ..Faults::default() })?;
    carries_on(Phase::Syncing, &stalls, Flow::Open, Clients::NoticedNothing).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_cut() -> Result<()> {
    carries_on(Phase::Cutting, &sound()?, Flow::Open, Clients::NoticedNothing).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_probation() -> Result<()> {
    carries_on(Phase::Probation, &sound()?, Flow::Open, Clients::NoticedNothing).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_probation_of_a_release_that_then_dies() -> Result<()> {
    // It dies while there is no supervisor: the old worker takes over by itself.
    let dies = faulty("1.1.0", Faults { after_cut: Some(AfterCut::Die(700)), ..Faults::default() })?;
    carries_on(Phase::Probation, &dies, Flow::Open, Clients::WereServed).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_rolls_back() -> Result<()> {
    let dies = faulty("1.1.0", Faults { after_cut: Some(AfterCut::Die(700)), ..Faults::default() })?;
    carries_on(Phase::RollingBack, &dies, Flow::Open, Clients::WereServed).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_goes_back_at_an_operators_word() -> Result<()> {
    let mut node = UnderLoad::start(Settings { probation: Duration::from_secs(10), ..settings() }).await?;
    let release = node.world.publish(&sound()?)?;
    let control = node.world.control();
    let request = Request::Upgrade { version: Some(release.version), wait: false, rehearse: false };
    control.ask(&request, |_, _| ()).await?;
    let in_phase = |phase: Phase| {
        move |status: &Status| status.upgrade.as_ref().is_some_and(|upgrade| upgrade.phase == phase)
    };
    control.until("probation", UPGRADE, in_phase(Phase::Probation)).await?;
    node.more_writes(20).await?;
    control.ask(&Request::Rollback { wait: false }, |_, _| ()).await?;
    control.until("the drain", UPGRADE, |status| status.draining.is_some()).await?;
    node.world.kill_supervisor()?;
    node.more_writes(30).await?;
    node.world.start_supervisor()?;
    assert_eq!(node.world.serving().await?.serving.ok_or("nobody serves")?.release.as_str(), "1.0.0");
    node.more_writes(10).await?;
    node.upgrade_well("1.9.0").await?;
    node.finish(Clients::NoticedNothing).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_verifies_and_installs() -> Result<()> {
    carries_on(Phase::Verifying, &sound()?, Flow::Open, Clients::NoticedNothing).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_new_worker_is_level() -> Result<()> {
    carries_on(Phase::Level, &sound()?, Flow::Open, Clients::NoticedNothing).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_backs_out() -> Result<()> {
    let stalls = faulty("1.1.0", Faults { sync: Some(InSync::Stall), ..Faults::default() })?;
    carries_on(Phase::BackingOut, &stalls, Flow::Open, Clients::NoticedNothing).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_old_worker_drains() -> Result<()> {
    carries_on(Phase::Draining, &sound()?, Flow::Open, Clients::NoticedNothing).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_commits() -> Result<()> {
    carries_on(Phase::Committing, &sound()?, Flow::Open, Clients::NoticedNothing).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn together_with_both_workers_in_probation() -> Result<()> {
    let mut node = UnderLoad::start(settings()).await?;
    kill_in(&mut node, Phase::Probation, &sound()?).await?;
    node.more_writes(20).await?;
    leftovers::kill(node.world.folder())?;
    // A cold start of what was committed, with everything that both terms acknowledged.
    node.world.start_supervisor()?;
    let status = node.world.serving().await?;
    assert_eq!(status.serving.ok_or("nobody serves")?.release.as_str(), "1.0.0");
    node.more_writes(10).await?;
    node.upgrade_well("1.9.0").await?;
    node.finish(Clients::WereServed).await?;
    Ok(())
}

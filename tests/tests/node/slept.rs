//! A supervisor that was stopped for a while: nothing that took place meanwhile was late.

use std::time::Duration;

use bumpless_control::reply::Outcome;
use bumpless_control::request::Request;
use bumpless_os::process::Process;
use bumpless_tests::configuration::Settings;
use bumpless_tests::levers::Levers;
use bumpless_tests::world::{Result, World, faulty};
use bumpless_worker::faults::Faults;
use nix::sys::signal::Signal;

use crate::under_load::UPGRADE;

/// For everything from level to the order to cut.
const LEVEL: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_that_passed_in_its_sleep_is_nobodys_delay() -> Result<()> {
    let more = format!("[upgrade]\nlevel_deadline = \"{}s\"\n", LEVEL.as_secs());
    let mut world = World::start(Settings { more, ..Settings::default() }).await?;
    let levers = Levers::listen(&world.folder().join("lever"))?;
    let lever = Faults { lever: Some(levers.path().to_owned()), ..Faults::default() };
    let new = world.publish(&faulty("1.1.0", lever)?)?;
    levers.hold(&new.version, "Mark Before", 1);
    let request = Request::Upgrade { version: Some(new.version.clone()), wait: true, rehearse: false };
    let control = world.control();
    let asked = tokio::spawn(async move { control.ask(&request, |_, _| ()).await });
    tokio::time::timeout(UPGRADE, levers.until(|worker| worker.at.is_some())).await?;
    let supervisor = Process::open(world.supervisor()?.pid().cast_signed())?;
    supervisor.signal(Signal::SIGSTOP)?;
    levers.free();
    tokio::time::sleep(LEVEL + Duration::from_millis(500)).await;
    supervisor.signal(Signal::SIGCONT)?;
    let outcome = tokio::time::timeout(UPGRADE, asked).await???;
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    Ok(())
}

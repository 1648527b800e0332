//! What nobody needs any more goes soon, also where whoever was to remove it has died.

use std::time::{Duration, Instant};

use bumpless_control::request::Request;
use bumpless_control::status::Phase;
use bumpless_os::process::Process;
use bumpless_tests::configuration::Settings;
use bumpless_tests::levers::Levers;
use bumpless_tests::world::{Result, World, faulty, release};
use bumpless_worker::faults::Faults;
use bumpless_worker::state::Layout;

use crate::under_load::UPGRADE;

/// Well below the time after which a supervisor tries again what it could not do.
const SOON: Duration = Duration::from_secs(5);

/// Looks at the names in a folder of the state folder until there are so many.
async fn until(world: &World, folder: &str, prefix: &str, count: usize) -> Result<()> {
    let begun = Instant::now();
    loop {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(world.state_dir().join(folder))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.retain(|name| name.starts_with(prefix));
        if names.len() == count {
            return Ok(());
        }
        if begun.elapsed() > SOON {
            return Err(format!("{names:?} after {SOON:?}, {count} were expected").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_holder_did_not_remove_before_it_died_the_next_one_removes_at_once() -> Result<()> {
    let mut world = World::start(Settings::default()).await?;
    let levers = Levers::listen(&world.folder().join("lever"))?;
    let lever = Faults { lever: Some(levers.path().to_owned()), ..Faults::default() };
    let new = world.publish(&faulty("1.1.0", lever)?)?;
    levers.hold(&new.version, "Remove Before", 1);
    let request = Request::Upgrade { version: Some(new.version.clone()), wait: false, rehearse: false };
    world.control().ask(&request, |_, _| ()).await?;
    let held = levers.until(|worker| worker.at.is_some());
    let held = tokio::time::timeout(UPGRADE, held).await?;
    until(&world, "state", "gen-", 2).await?;
    Process::open(held.pid)?.kill()?;
    levers.free();
    until(&world, "state", "gen-", 1).await?;
    world.serving().await?;
    Ok(())
}

/// Renamed, and not yet gone, when whoever removed it was killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logbook_that_was_half_removed_is_removed_by_the_next_worker_that_starts() -> Result<()> {
    let mut world = World::start(Settings::default()).await?;
    for term in [7, 8] {
        let logs = world.state_dir().join(format!("state/log/{term}.going"));
        std::fs::create_dir_all(&logs)?;
        std::fs::write(logs.join("00000000000000000001.seg"), "what nobody reads")?;
    }
    // By one that starts because the holder has died, and by the one that an upgrade brings.
    let serving = world.serving().await?.serving.ok_or("nobody serves")?;
    Process::open(serving.pid)?.kill()?;
    until(&world, "state/log", "", 0).await?;
    world.serving().await?;
    std::fs::create_dir_all(world.state_dir().join("state/log/9.going"))?;
    let new = world.publish(&release("1.1.0", Layout::ByKind)?)?;
    let request = Request::Upgrade { version: Some(new.version), wait: true, rehearse: false };
    let outcome = world.control().ask(&request, |_, _| ()).await?;
    assert_eq!(outcome.exit_code(), 0, "{outcome:?}");
    until(&world, "state/log", "", 0).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installation_that_was_given_up_leaves_no_release_behind() -> Result<()> {
    let mut world = World::start(Settings::default()).await?;
    let new = world.publish(&release("1.1.0", Layout::ByKind)?)?;
    let serving = world.serving().await?.serving.ok_or("nobody serves")?;
    let process = Process::open(serving.pid)?;
    let request = Request::Upgrade { version: Some(new.version), wait: true, rehearse: false };
    let mut killed = false;
    let control = world.control();
    let asked = control.ask(&request, |_, progress| {
        if progress.phase == Phase::Verifying {
            killed = process.kill().is_ok();
        }
    });
    tokio::time::timeout(UPGRADE, asked).await??;
    assert!(killed, "it was never verified");
    world.serving().await?;
    until(&world, "releases", "", 1).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_supervisor_had_half_installed_the_next_one_removes() -> Result<()> {
    let mut world = World::start(Settings::default()).await?;
    // As after `kill -9` between the binary and its record.
    let half = world.state_dir().join(format!("releases/1.1.0-{}", "ab".repeat(32)));
    std::fs::create_dir(&half)?;
    std::fs::write(half.join("worker"), b"the first half")?;
    world.kill_supervisor()?;
    world.start_supervisor()?;
    world.serving().await?;
    until(&world, "releases", "", 1).await
}

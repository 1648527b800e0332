//! A disk that is really full, in each part of a node's files and at each moment where it matters: the
//! node answers on, says what is wrong, and goes on by itself once there is room.

use std::time::Duration;

use bumpless_control::status::{Ending, Phase, Status};
use bumpless_tests::configuration::Settings;
use bumpless_tests::gate::Gate;
use bumpless_tests::left_out::left_out;
use bumpless_tests::small_disk::{Part, SmallDisk};
use bumpless_tests::world::{Result, World, faulty, release};
use bumpless_worker::faults::{Deed, Does, Faults, Flood, Place, Step, Wire};
use bumpless_worker::state::Layout;

use crate::under_load::{Clients, PLAN, UPGRADE, UnderLoad};

/// Longest way from one step to the next.
const SOON: Duration = Duration::from_secs(20);

fn quick() -> Settings {
    Settings { probation: Duration::from_secs(1), ..Settings::default() }
}

/// A node under load with these files on a disk of so many bytes.
async fn on_a_small_disk(
    test: &str,
    settings: Settings,
    part: Part,
    bytes: u64,
) -> Result<Option<(UnderLoad, SmallDisk)>> {
    let mut world = World::prepare(settings).await?;
    let Some(disk) = SmallDisk::mount(&mut world, part, bytes)? else {
        left_out(test, "needs a small file system: root, or user namespaces");
        return Ok(None);
    };
    world.publish(&release("1.0.0", Layout::ByName)?)?;
    world.start_supervisor()?;
    world.first_install().await?;
    Ok(Some((UnderLoad::of(world, PLAN).await?, disk)))
}

/// Begins an upgrade whose new worker stands at this step now.
async fn held_at(node: &mut UnderLoad, version: &str, step: Step, place: Place) -> Result<Gate> {
    let mut gate = Gate::new(node.world.folder(), &version.replace('.', "-"))?;
    node.begin(&faulty(version, Faults::default().at(step, place, gate.holds()))?).await?;
    gate.reached(SOON).await?;
    Ok(gate)
}

/// Waits for something that the status says.
async fn until(node: &UnderLoad, what: &str, wanted: impl Fn(&Status) -> bool) -> Result<Status> {
    Ok(node.world.control().until(what, UPGRADE, wanted).await?)
}

fn says(status: &Status, words: &str) -> bool {
    status.alarms.iter().any(|alarm| alarm.text.contains(words))
        || status.you_need_to_do.as_ref().is_some_and(|todo| todo.contains(words))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_state_while_a_new_worker_syncs_reads_go_on_and_writes_are_refused_with_the_reason()
-> Result<()> {
    const TEST: &str = "a disk of the state that is full during the sync";
    let Some((mut node, disk)) = on_a_small_disk(TEST, quick(), Part::State, 400 << 20).await? else {
        return Ok(());
    };
    let before = node.serving().await?;
    let gate = held_at(&mut node, "1.1.0", Step::Level, Place::Before).await?;
    disk.fill()?;
    assert!(disk.is_full()?);
    let client = node.world.client().await?;
    let refused = client.put(b"there is no room for this").await.map(drop).unwrap_err().to_string();
    assert!(refused.contains("no room") && refused.contains("reading still works"), "{refused}");
    let number = node.load.oracle().pick(0).ok_or("nothing was stored")?;
    let content = node.load.oracle().content(number);
    assert_eq!(client.get(bumpless_worker::client::name_of(&content)).await?, Some(content));
    gate.open()?;
    drop(gate);
    disk.free()?;
    node.more_writes(20).await?;
    let status = until(&node, "the end", |status| status.upgrade.is_none()).await?;
    let after = status.serving.ok_or("nobody serves")?;
    let last = status.last.ok_or("no last upgrade")?;
    match last.result {
        // Nothing had to be written while there was no room.
        Ending::Committed => assert_eq!(after.release.as_str(), "1.1.0"),
        _ => assert_eq!((after.pid, after.term), (before.pid, before.term), "{last:?}"),
    }
    node.upgrade_well("1.9.0").await?;
    node.finish(Clients::WereRefused).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_records_before_the_cut_nothing_is_cut_and_the_old_worker_serves_on() -> Result<()> {
    const TEST: &str = "a disk of the records that is full before the cut";
    let Some((mut node, disk)) = on_a_small_disk(TEST, quick(), Part::Records, 400 << 20).await? else {
        return Ok(());
    };
    let before = node.serving().await?;
    let gate = held_at(&mut node, "1.1.0", Step::Level, Place::After).await?;
    disk.fill()?;
    gate.open()?;
    let status = until(&node, "the end", |status| status.upgrade.is_none()).await?;
    let last = status.last.ok_or("no last upgrade")?;
    assert_eq!(last.result, Ending::Undecided, "{last:?}");
    assert!(last.reason.as_ref().is_some_and(|why| why.contains("No space left")), "{last:?}");
    let after = node.serving().await?;
    assert_eq!((after.pid, after.term), (before.pid, before.term));
    node.more_writes(20).await?;
    // Nothing is begun as long as it could not be written down.
    let said = node.world.operator().run(&["upgrade", "1.1.0"]).await?;
    assert_ne!(said.code, 0, "{}", said.all());
    disk.free()?;
    node.upgrade_well("1.9.0").await?;
    node.finish(Clients::NoticedNothing).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_records_at_the_commit_the_new_worker_serves_on_and_is_committed_once_there_is_room()
-> Result<()> {
    const TEST: &str = "a disk of the records that is full at the commit";
    let Some((mut node, disk)) = on_a_small_disk(TEST, quick(), Part::Records, 400 << 20).await? else {
        return Ok(());
    };
    let gate = held_at(&mut node, "1.1.0", Step::Persist, Place::After).await?;
    disk.fill()?;
    gate.open()?;
    let status = until(&node, "an alarm", |status| says(status, "committed")).await?;
    assert_eq!(status.upgrade.map(|upgrade| upgrade.phase), Some(Phase::Committing));
    node.more_writes(20).await?;
    disk.free()?;
    let status =
        until(&node, "the end", |status| status.upgrade.is_none() && status.draining.is_none()).await?;
    assert_eq!(status.last.map(|last| last.result), Some(Ending::Committed));
    assert_eq!(node.serving().await?.release.as_str(), "1.1.0");
    node.upgrade_well("1.9.0").await?;
    node.finish(Clients::NoticedNothing).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_records_in_probation_a_way_back_needs_no_room() -> Result<()> {
    const TEST: &str = "a disk of the records that is full on probation";
    let Some((mut node, disk)) = on_a_small_disk(TEST, quick(), Part::Records, 400 << 20).await? else {
        return Ok(());
    };
    let before = node.serving().await?;
    let mut gate = Gate::new(node.world.folder(), "probation")?;
    let plan = Faults::default().at(Step::Take, Place::After, gate.holds()).at(
        Step::Take,
        Place::After,
        Does::Do(Deed::Exit),
    );
    let release = node.begin(&faulty("1.1.0", plan)?).await?;
    gate.reached(SOON).await?;
    disk.fill()?;
    gate.open()?;
    let last = node.ended(&release).await?;
    assert_eq!(last.result, Ending::RolledBack, "{last:?}");
    assert_eq!(node.serving().await?.pid, before.pid);
    node.more_writes(20).await?;
    // What could not be written down holds all the same.
    assert!(node.status().await?.quarantined.iter().any(|it| it.sha256 == release.sha256));
    disk.free()?;
    node.upgrade_well("1.9.0").await?;
    assert!(node.status().await?.quarantined.iter().any(|it| it.sha256 == release.sha256));
    node.finish(Clients::WereServed).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_logbook_in_probation_the_cut_is_reversed_and_nothing_acknowledged_is_lost() -> Result<()> {
    const TEST: &str = "a disk of the logbooks that is full on probation";
    let settings = Settings {
        probation: Duration::from_secs(15),
        more: "[upgrade]\nreserve = \"1MiB\"\n".to_owned(),
        ..Settings::default()
    };
    let Some((mut node, disk)) = on_a_small_disk(TEST, settings, Part::Logbooks, 40 << 20).await? else {
        return Ok(());
    };
    let before = node.serving().await?;
    // More than was reserved, so that there has to be another segment.
    let records = Deed::Flood(Flood::Records);
    let mut gate = Gate::new(node.world.folder(), "probation")?;
    let plan = Faults::default().at(Step::Take, Place::After, gate.holds()).at(
        Step::Take,
        Place::After,
        Does::Do(records),
    );
    let release = node.begin(&faulty("1.1.0", plan)?).await?;
    gate.reached(SOON).await?;
    disk.fill()?;
    gate.open()?;
    let last = node.ended(&release).await?;
    assert_eq!(last.result, Ending::RolledBack, "{last:?}");
    assert!(last.reason.as_ref().is_some_and(|why| why.contains("logbook")), "{last:?}");
    assert!(node.status().await?.quarantined.is_empty(), "the release is not to blame");
    assert_eq!(node.serving().await?.pid, before.pid);
    node.more_writes(20).await?;
    // As long as there is no room for a logbook there is no upgrade, and the reason is told.
    disk.fill()?;
    let said = node.world.operator().run(&["upgrade", "1.1.0"]).await?;
    assert_ne!(said.code, 0, "{}", said.all());
    node.more_writes(20).await?;
    disk.free()?;
    node.upgrade_well("1.9.0").await?;
    node.finish(Clients::WereServed).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_state_after_the_commit_point_the_way_is_forward() -> Result<()> {
    const TEST: &str = "a disk of the state that is full after the commit point";
    let Some((mut node, disk)) = on_a_small_disk(TEST, quick(), Part::State, 400 << 20).await? else {
        return Ok(());
    };
    let gate = held_at(&mut node, "1.1.0", Step::Commit, Place::Before).await?;
    disk.fill()?;
    gate.open()?;
    let target = node.world.target()?;
    let client = bumpless_worker::client::Client::connect(target, Default::default()).await?;
    client.ping().await?;
    let status =
        until(&node, "the end", |status| status.upgrade.is_none() && status.draining.is_none()).await?;
    assert_eq!(status.last.map(|last| last.result), Some(Ending::Committed));
    assert_eq!(node.serving().await?.release.as_str(), "1.1.0");
    disk.free()?;
    node.more_writes(20).await?;
    node.upgrade_well("1.9.0").await?;
    node.finish(Clients::WereRefused).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_records_a_line_that_cannot_be_written_ends_nobody() -> Result<()> {
    const TEST: &str = "a disk of the records that is full when something is to be printed";
    let Some((mut node, disk)) = on_a_small_disk(TEST, quick(), Part::Records, 400 << 20).await? else {
        return Ok(());
    };
    let before = node.serving().await?;
    let mut gate = Gate::new(node.world.folder(), "level")?;
    // The old worker has something to say about what it is sent.
    let plan = Faults::default().at(Step::Level, Place::Before, gate.holds()).at(
        Step::Level,
        Place::Before,
        Does::Do(Deed::Garbage(Wire::Link)),
    );
    let release = node.begin(&faulty("1.1.0", plan)?).await?;
    gate.reached(SOON).await?;
    disk.fill()?;
    gate.open()?;
    node.ended(&release).await?;
    assert_eq!(node.serving().await?.pid, before.pid);
    node.more_writes(20).await?;
    disk.free()?;
    // The supervisor neither: it ends as it would with an output that takes what is said.
    let ends = |output: &str| {
        let output = std::fs::File::options().write(true).open(output)?;
        let mut command = std::process::Command::new(&node.world.binaries().bumplessd);
        command.args(["--config", "/nowhere"]).stdout(output.try_clone()?).stderr(output).status()
    };
    assert_eq!(ends("/dev/full")?.code(), ends("/dev/null")?.code());
    node.upgrade_well("1.9.0").await?;
    node.finish(Clients::NoticedNothing).await?;
    Ok(())
}

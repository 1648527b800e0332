//! The life of a node without faults: first start, files in and out, stop, start.

use std::net::Ipv6Addr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bumpless_control::reply::Outcome;
use bumpless_control::request::Request;
use bumpless_control::status::Phase;
use bumpless_tests::configuration::Settings;
use bumpless_tests::left_out::left_out;
use bumpless_tests::leftovers;
use bumpless_tests::load::{Load, Plan, read_back};
use bumpless_tests::oracle::Oracle;
use bumpless_tests::world::{Result, World, faulty, free_address, release};
use bumpless_worker::client::Target;
use bumpless_worker::faults::{AfterCut, Faults};
use bumpless_worker::state::Layout;
use rand::RngCore;

/// Within this time after an upgrade everything that it has left behind is gone.
const SETTLED: Duration = Duration::from_secs(15);

/// Runs `bumpless-client` against the world's node and returns what it printed.
async fn client(world: &World, arguments: &[&str]) -> Result<String> {
    let node = world.target()?.addresses[0].to_string();
    let mut command = tokio::process::Command::new(&world.binaries().client);
    command.args(["--node", &node, "--identity"]).arg(world.certificate()).args(arguments);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

async fn upgrade(world: &mut World, version: &str) -> Result<()> {
    let request = Request::Upgrade { version: Some(version.parse()?), wait: true, rehearse: false };
    let outcome = world.control().ask(&request, |_, _| ()).await?;
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    world.serving().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_every_size_come_back_whole_from_every_release() -> Result<()> {
    let mut world = World::start(Settings::default()).await?;
    let folder = world.folder().join("files");
    std::fs::create_dir(&folder)?;
    let mut names = Vec::new();
    // Nothing, a record, exactly one chunk, one byte more, and many chunks.
    for length in [0, 100, 1 << 20, (1 << 20) + 1, 5_300_000] {
        let mut content = vec![0; length];
        rand::rng().fill_bytes(&mut content);
        let path = folder.join(length.to_string());
        std::fs::write(&path, content)?;
        let path = path.to_str().ok_or("the folder's name is no text")?;
        let printed = client(&world, &["put", path]).await?;
        let name = printed.split_whitespace().next().ok_or("no name printed")?.to_owned();
        names.push((name, path.to_owned()));
    }
    let check = async |world: &World, serving: &str| -> Result<()> {
        for (name, original) in &names {
            let out = folder.join(format!("from-{serving}"));
            std::fs::create_dir_all(&out)?;
            client(world, &["get", name, "-o", out.to_str().ok_or("no text")?]).await?;
            let files = std::fs::read_dir(&out)?.collect::<std::io::Result<Vec<_>>>()?;
            assert_eq!(files.len(), 1, "{files:?}");
            assert!(same(&files[0].path(), Path::new(original))?, "{original} differs from {serving}");
            std::fs::remove_dir_all(&out)?;
        }
        Ok(())
    };
    check(&world, "1.0.0").await?;
    // Another layout of the database, and back again: what one release wrote, the other reads.
    world.publish(&release("1.1.0", Layout::ByKind)?)?;
    upgrade(&mut world, "1.1.0").await?;
    check(&world, "1.1.0").await?;
    world.publish(&release("1.2.0", Layout::ByName)?)?;
    upgrade(&mut world, "1.2.0").await?;
    check(&world, "1.2.0").await?;
    Ok(())
}

fn same(one: &Path, other: &Path) -> Result<bool> {
    Ok(std::fs::read(one)? == std::fs::read(other)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_stops_the_workers_and_a_start_has_everything() -> Result<()> {
    let mut world = World::start(Settings::default()).await?;
    let name = world.client().await?.put(b"before the stop").await?;
    let ended = world.supervisor()?.stop(Duration::from_secs(30)).await?;
    assert!(ended.success(), "{ended}");
    assert_eq!(leftovers::of(world.folder())?, [0i32; 0]);
    world.start_supervisor()?;
    world.serving().await?;
    assert_eq!(world.client().await?.get(name).await?.as_deref(), Some(&b"before the stop"[..]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_processes_nor_generations_nor_logbooks_grow_with_upgrades() -> Result<()> {
    let settings = Settings { probation: Duration::from_secs(1), ..Settings::default() };
    let mut world = World::start(settings).await?;
    let name = world.client().await?.put(&[7; 10_000]).await?;
    for (version, layout) in [("1.1.0", Layout::ByKind), ("1.2.0", Layout::ByName), ("1.3.0", Layout::ByKind)]
    {
        world.publish(&release(version, layout)?)?;
        upgrade(&mut world, version).await?;
    }
    let here = |name: &str| -> Result<Vec<String>> {
        let entries = std::fs::read_dir(world.state_dir().join(name))?;
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    // What is not needed any more goes once it is quiet: nobody waits for that, so we look.
    let mut look = tokio::time::interval(Duration::from_millis(50));
    let begun = std::time::Instant::now();
    loop {
        look.tick().await;
        let (state, logs, releases) = (here("state")?, here("state/log")?, here("releases")?);
        let generations = state.iter().filter(|name| name.starts_with("gen-")).count();
        // The supervisor and one worker.
        let processes = leftovers::of(world.folder())?.len();
        if (generations, logs.len(), processes) == (1, 0, 2) && releases.len() <= 2 {
            break;
        }
        assert!(begun.elapsed() < SETTLED, "{processes} processes, {state:?}, logs {logs:?}, {releases:?}");
    }
    assert_eq!(world.client().await?.get(name).await?.map(|content| content.len()), Some(10_000));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_is_unnoticed_over_both_families_and_a_killed_one_costs_no_older_connection() -> Result<()>
{
    let Ok(six) = free_address(Ipv6Addr::LOCALHOST.into()) else {
        left_out("both families", "this machine has no IPv6 loopback");
        return Ok(());
    };
    let mut world = World::prepare(Settings::default()).await?;
    world.places().listen.push(six);
    world.configure()?;
    world.publish(&release("1.0.0", Layout::ByName)?)?;
    world.start_supervisor()?;
    world.first_install().await?;
    let Target { addresses, pin } = world.target()?;
    assert_eq!(addresses.len(), 2);
    let plan = Plan {
        rate: 80,
        connections: 6,
        fresh: 4,
        puts_permille: 400,
        appends_permille: 0,
        pings: 0,
        deadline: Duration::from_secs(15),
    };
    let mut loads = Vec::new();
    for address in addresses {
        let target = Target { addresses: vec![address], pin };
        let oracle = Arc::new(Oracle::new(rand::random()));
        loads.push(Load::start(target, plan, oracle).await?);
    }
    world.publish(&release("1.1.0", Layout::ByKind)?)?;
    upgrade(&mut world, "1.1.0").await?;
    let good = loads.iter().map(Load::now).collect::<Vec<_>>();

    let dies = Faults { after_cut: Some(AfterCut::Die(700)), ..Faults::default() };
    let bad = world.publish(&faulty("1.2.0", dies)?)?;
    let request = Request::Upgrade { version: Some(bad.version), wait: true, rehearse: false };
    let mut cut = None;
    let control = world.control();
    let outcome = control.ask(&request, |at, step| {
        if step.phase == Phase::Cutting {
            cut.get_or_insert(at);
        }
    });
    let outcome = outcome.await?;
    assert!(matches!(outcome, Outcome::RolledBack { .. }), "{outcome:?}");
    let cut = cut.ok_or("there was no cut")?;
    tokio::time::sleep(Duration::from_secs(1)).await;

    let client = world.client().await?;
    for (load, good) in loads.into_iter().zip(good) {
        let (oracle, cut) = (Arc::clone(load.oracle()), load.when(cut));
        let seen = load.stop().await;
        assert_eq!(seen.failed(), 0, "{:#?}", seen.failures);
        let unexpected: Vec<_> =
            seen.drops.iter().filter(|drop| drop.dropped < good || drop.made < cut).collect();
        assert!(unexpected.is_empty(), "{unexpected:#?}");
        assert!(oracle.count() > 50);
        let lost = read_back(&client, &oracle).await;
        assert!(lost.is_empty(), "{lost:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_supervisor_is_small_in_memory() -> Result<()> {
    let mut world = World::start(Settings::default()).await?;
    let resident = world.supervisor()?.resident()?;
    assert!(resident < 10_000_000, "{resident} bytes");
    Ok(())
}

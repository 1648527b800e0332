//! Bad input: each has a clear error, and the serving worker never notices.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use bumpless_control::reply::Outcome;
use bumpless_release::Addition;
use bumpless_tests::configuration::Settings;
use bumpless_tests::left_out::left_out;
use bumpless_tests::small_disk::{Part, SmallDisk};
use bumpless_tests::supervisor::Supervisor;
use bumpless_tests::tap::Flow;
use bumpless_tests::world::{Result, World, release};
use bumpless_worker::state::Layout;

use crate::under_load::{Clients, UnderLoad};

/// The newest index of the feed.
fn index(world: &World) -> Result<PathBuf> {
    let entries = fs::read_dir(world.feed().join("index"))?.collect::<std::io::Result<Vec<_>>>()?;
    let number = |path: &PathBuf| path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
    let indexes = entries
        .iter()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|it| it == "json"));
    Ok(indexes.max_by_key(number).ok_or("the feed has no index")?)
}

/// The blob that the newest release is fetched from.
fn newest_blob(world: &mut World) -> Result<PathBuf> {
    let index = world.publisher().index();
    let newest = index.releases.iter().max_by_key(|release| release.counter).ok_or("no release")?;
    let path = newest.artifacts.first().ok_or("no artifact")?.path();
    Ok(world.feed().join(path))
}

/// Asks for the newest and expects that it is not begun, or not done, for a reason with these words;
/// they stand in the status as well.
async fn refused(node: &UnderLoad, words: &[&str]) -> Result<()> {
    let before = node.serving().await?;
    let said = node.world.operator().run(&["upgrade"]).await?;
    assert!([3, 4, 5].contains(&said.code), "{}: {}", said.code, said.all());
    let status = node.world.operator().run(&["status"]).await?;
    for text in [said.all(), status.all()] {
        let plain = text.to_lowercase();
        let there = words.iter().any(|word| plain.contains(word));
        assert!(there, "none of {words:?} in:\n{text}");
    }
    let after = node.serving().await?;
    assert_eq!((before.pid, before.term), (after.pid, after.term));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_was_tampered_with_or_is_gone_changes_nothing() -> Result<()> {
    let mut node = UnderLoad::start(Settings::default()).await?;
    let good = node.world.publish(&release("1.1.0", Layout::ByKind)?)?;
    let index = index(&node.world)?;
    let signatures = index.with_extension("json.sigs");
    let (index_bytes, signature_bytes) = (fs::read(&index)?, fs::read(&signatures)?);

    let mut edited = index_bytes.clone();
    let place = edited.windows(5).position(|bytes| bytes == b"1.1.0").ok_or("no 1.1.0 in the index")?;
    edited[place..place + 5].copy_from_slice(b"1.1.1");
    fs::write(&index, edited)?;
    refused(&node, &["index"]).await?;
    fs::write(&index, &index_bytes)?;

    fs::write(&signatures, b"")?;
    refused(&node, &["signature", "signed"]).await?;
    fs::write(&signatures, &signature_bytes)?;

    node.world.turn_tap(Flow::Closed);
    refused(&node, &["feed", "127.0.0.1"]).await?;
    node.world.turn_tap(Flow::Open);

    let blob = newest_blob(&mut node.world)?;
    let bytes = fs::read(&blob)?;
    let mut other = bytes.clone();
    let middle = other.len() / 2;
    other[middle] ^= 1;
    // Replaced, not written into: the feed's files may be hard links.
    fs::remove_file(&blob)?;
    fs::write(&blob, &other)?;
    refused(&node, &["hash", "sha256", "sha-256"]).await?;
    fs::write(&blob, &bytes[..middle])?;
    refused(&node, &["bytes", "short", "truncated", "size", "hash"]).await?;
    fs::write(&blob, &bytes)?;

    let outcome = node.upgrade_to(&good).await?;
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    node.finish(Clients::NoticedNothing).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_for_another_machine_is_passed_over_with_the_reason() -> Result<()> {
    let mut node = UnderLoad::start(Settings::default()).await?;
    let stamp = release("1.1.0", Layout::ByKind)?;
    let addition = Addition {
        target: Some("riscv64gc-unknown-linux-gnu".to_owned()),
        description: Some(stamp.description()),
        ..Addition::default()
    };
    node.world.publish_with(&stamp, addition)?;
    refused(&node, &["riscv64gc-unknown-linux-gnu"]).await?;
    node.upgrade_well("1.2.0").await?;
    node.finish(Clients::NoticedNothing).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_configuration_is_named_and_the_worker_serves_on() -> Result<()> {
    let mut node = UnderLoad::start(Settings::default()).await?;
    let before = node.serving().await?;
    node.world.kill_supervisor()?;
    let wrong = node.world.configuration().with_file_name("config.d").join("zz-wrong.toml");
    fs::write(&wrong, "[upgrade]\nprobatoin = \"3s\"\n")?;
    node.world.start_supervisor()?;
    let supervisor = node.world.supervisor()?;
    let ended = supervisor.ended(Duration::from_secs(10)).await?;
    assert!(!ended.success());
    let log = supervisor.log();
    for part in ["zz-wrong.toml", "probatoin", "`probation`"] {
        assert!(log.contains(part), "{part} is not in:\n{log}");
    }
    node.more_writes(20).await?;
    fs::remove_file(wrong)?;
    node.world.start_supervisor()?;
    let after = node.world.serving().await?.serving.ok_or("nobody serves")?;
    assert_eq!((before.pid, before.instance), (after.pid, after.instance));
    node.finish(Clients::NoticedNothing).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_is_named() -> Result<()> {
    let mut world = World::prepare(Settings::default()).await?;
    world.publish(&release("1.0.0", Layout::ByName)?)?;
    let address = world.places().listen[0];
    let taken = UdpSocket::bind(address)?;
    world.start_supervisor()?;
    let said = match world.first_install().await {
        Ok(_) => return Err("it serves on a port that somebody else has".into()),
        Err(error) => error.to_string(),
    };
    let status = world.operator().run(&["status"]).await?;
    for text in [&said, &status.all(), &world.supervisor()?.log()] {
        assert!(text.contains(&address.to_string()) && text.contains("in use"), "{text}");
    }
    drop(taken);
    world.first_install().await?;
    world.client().await?.ping().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_folder_without_permission_is_named() -> Result<()> {
    const NOBODY: u32 = 65534;
    let mut world = World::prepare(Settings::default()).await?;
    let state = world.state_dir().to_owned();
    let mut command = world.supervisor_command();
    if nix::unistd::geteuid().is_root() {
        // Root may do everything, so somebody else tries; the rest of the world is open to him.
        for path in [world.folder().to_owned(), world.folder().join("run"), world.folder().join("etc")] {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
        }
        let readable =
            Command::new(&world.binaries().bumplessd).uid(NOBODY).gid(NOBODY).arg("--help").output();
        if !readable.is_ok_and(|output| output.status.success()) {
            left_out(
                "a_state_folder_without_permission_is_named",
                "the build folder is closed to other users",
            );
            return Ok(());
        }
        fs::set_permissions(&state, fs::Permissions::from_mode(0o700))?;
        command.uid(NOBODY).gid(NOBODY);
    } else {
        fs::set_permissions(&state, fs::Permissions::from_mode(0o500))?;
    }
    let mut supervisor = Supervisor::start(command, &world.folder().join("log"))?;
    let ended = supervisor.ended(Duration::from_secs(10)).await?;
    let log = supervisor.log();
    assert!(!ended.success(), "{log}");
    assert!(log.contains(&state.display().to_string()), "{log}");
    assert!(log.to_lowercase().contains("permission"), "{log}");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700))?;
    world.end()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_for_the_fetch_nothing_is_fetched_and_both_figures_are_named() -> Result<()> {
    let mut world = World::prepare(Settings::default()).await?;
    world.publish(&release("1.0.0", Layout::ByName)?)?;
    let packed = fs::metadata(newest_blob(&mut world)?)?.len();
    let raw = fs::metadata(&world.binaries().node)?.len();
    // Room for one release and the node's own files, not for a second release.
    if SmallDisk::mount(&mut world, Part::All, 2 * raw + packed / 2)?.is_none() {
        left_out("without_room_for_the_fetch", "needs a small file system: root, or user namespaces");
        return Ok(());
    }
    world.start_supervisor()?;
    let before = world.first_install().await?.serving.ok_or("nobody serves")?;
    world.publish(&release("1.1.0", Layout::ByKind)?)?;
    let said = world.operator().run(&["upgrade"]).await?;
    assert!([3, 5].contains(&said.code), "{}", said.all());
    for part in ["needs", "has", "nothing was changed"] {
        assert!(said.all().contains(part), "{part:?} is not in:\n{}", said.all());
    }
    let status = world.operator().run(&["status"]).await?;
    assert!(status.all().contains("nothing was changed"), "{}", status.all());
    let foreseen = world.operator().run(&["upgrade", "--dry-run"]).await?;
    assert!(foreseen.output.contains("No room on the disk: needs"), "{}", foreseen.all());
    let after = world.serving().await?.serving.ok_or("nobody serves")?;
    assert_eq!(before.pid, after.pid);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_for_the_sync_the_old_worker_serves_on_and_both_figures_are_named() -> Result<()> {
    let mut world = World::prepare(Settings::default()).await?;
    world.publish(&release("1.0.0", Layout::ByName)?)?;
    let packed = fs::metadata(newest_blob(&mut world)?)?.len();
    let raw = fs::metadata(&world.binaries().node)?.len();
    let Some(disk) = SmallDisk::mount(&mut world, Part::All, 4 * raw + 200_000_000)? else {
        left_out("without_room_for_the_sync", "needs a small file system: root, or user namespaces");
        return Ok(());
    };
    world.start_supervisor()?;
    let before = world.first_install().await?.serving.ok_or("nobody serves")?;
    // Until a release can be fetched and installed, and hardly more.
    disk.fill_but(packed + raw + 16_000_000)?;
    world.publish(&release("1.1.0", Layout::ByKind)?)?;
    let said = world.operator().run(&["upgrade"]).await?;
    assert_eq!(said.code, 5, "{}", said.all());
    for part in ["needs", "has"] {
        assert!(said.all().contains(part), "{part:?} is not in:\n{}", said.all());
    }
    let after = world.serving().await?.serving.ok_or("nobody serves")?;
    assert_eq!((before.pid, before.term), (after.pid, after.term));
    world.client().await?.ping().await?;
    // With room, the next release goes through.
    disk.free()?;
    world.publish(&release("1.2.0", Layout::ByKind)?)?;
    let said = world.operator().run(&["upgrade"]).await?;
    assert_eq!(said.code, 0, "{}", said.all());
    Ok(())
}

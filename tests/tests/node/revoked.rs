//! What the publisher revokes is not started anew, not gone back to and not committed; what serves goes on.

use std::fs;
use std::time::{Duration, Instant};

use bumpless_control::status::{Ending, Phase, Status};
use bumpless_os::process::Process;
use bumpless_shared::release::Version;
use bumpless_tests::configuration::Settings;
use bumpless_tests::leftovers;
use bumpless_tests::operator::Operator;
use bumpless_tests::tap::Flow;
use bumpless_tests::world::{Result, World, release, unix_now};
use bumpless_worker::state::Layout;

use crate::under_load::{Clients, UnderLoad};

/// Longest that a supervisor may take to notice something.
const SOON: Duration = Duration::from_secs(30);

fn revoke(world: &mut World, version: &str) -> Result<()> {
    let version: Version = version.parse()?;
    tokio::task::block_in_place(|| {
        world.publisher().revoke(&version)?;
        world.publisher().publish(unix_now())?;
        Ok(())
    })
}

/// Runs a verb and expects this exit code.
async fn expect(operator: &Operator, arguments: &[&str], code: i32) -> Result<String> {
    let said = operator.run(arguments).await?;
    assert_eq!(said.code, code, "bumpless {}: {}", arguments.join(" "), said.all());
    Ok(said.all())
}

/// What an alarm says of a revoked release.
fn alarm(status: &Status) -> Option<&str> {
    status
        .alarms
        .iter()
        .map(|alarm| alarm.text.as_str())
        .find(|text| text.contains("revoked by the publisher"))
}

fn says(status: &Status, parts: &[&str]) {
    let alarm = alarm(status).unwrap_or_default();
    for part in parts {
        assert!(alarm.contains(part), "{part:?} is not in {alarm:?} of {status:#?}");
    }
}

fn to_do(status: &Status, part: &str) -> bool {
    status.you_need_to_do.as_ref().is_some_and(|text| text.contains(part))
}

/// Stops the node and starts it with this policy.
async fn restart(world: &mut World, policy: &str) -> Result<()> {
    let ended = world.supervisor()?.stop(SOON).await?;
    assert!(ended.success(), "{ended}");
    world.settings().more = format!("revoked = \"{policy}\"\n");
    world.configure()?;
    world.start_supervisor()?;
    Ok(())
}

/// Nothing serves, and the status says why and what to do.
async fn is_down(world: &World, version: &str) -> Result<()> {
    let down = |status: &Status| status.serving.is_none() && to_do(status, "revoked = \"run\"");
    let status = world.control().until("nothing that serves", SOON, down).await?;
    says(&status, &[version, "Nothing serves"]);
    let operator = world.operator();
    for verb in ["upgrade", "rollback"] {
        let text = expect(&operator, &[verb], 3).await?;
        assert!(text.contains("revoked"), "{text}");
    }
    let text = expect(&operator, &["status"], 0).await?;
    assert!(text.contains("revoked by the publisher") && text.contains("revoked = \"run\""), "{text}");
    // The supervisor alone, once it has looked at the feed.
    let begun = Instant::now();
    while leftovers::of(world.folder())?.len() != 1 {
        assert!(begun.elapsed() < SOON, "{:?}", leftovers::of(world.folder())?);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_what_is_committed_is_revoked_run_starts_it_with_an_alarm_and_stop_does_not() -> Result<()> {
    let mut world = World::start(Settings::default()).await?;
    let operator = world.operator();
    let name = world.client().await?.put(b"before it was revoked").await?;
    let before = world.serving().await?.serving.ok_or("nobody serves")?;
    revoke(&mut world, "1.0.0")?;
    expect(&operator, &["check"], 0).await?;
    let status = world.control().status().await?;
    assert_eq!(status.serving.as_ref().map(|worker| worker.pid), Some(before.pid));
    says(&status, &["1.0.0", "goes on serving", "starts again"]);
    assert!(to_do(&status, "bumpless versions"), "{:?}", status.you_need_to_do);

    // From here on only what is kept says so.
    world.turn_tap(Flow::Closed);
    restart(&mut world, "run").await?;
    says(&world.serving().await?, &["1.0.0", "goes on serving"]);
    let kept = world.client().await?.get(name).await?;
    assert_eq!(kept.as_deref(), Some(&b"before it was revoked"[..]));

    restart(&mut world, "stop").await?;
    is_down(&world, "1.0.0").await?;
    world.kill_supervisor()?;
    world.start_supervisor()?;
    is_down(&world, "1.0.0").await?;

    // The way out that the status names.
    world.turn_tap(Flow::Open);
    world.publish(&release("1.1.0", Layout::ByKind)?)?;
    restart(&mut world, "run").await?;
    world.serving().await?;
    let offered = |status: &Status| to_do(status, "1.1.0");
    let status = world.control().until("a release that may run", SOON, offered).await?;
    says(&status, &["1.0.0"]);
    expect(&operator, &["upgrade"], 0).await?;
    let status = world.serving().await?;
    assert_eq!((alarm(&status), &status.you_need_to_do), (None, &None));

    // What may run starts; what is revoked while it serves goes on, and is not started when it has died.
    restart(&mut world, "stop").await?;
    let serving = world.serving().await?.serving.ok_or("nobody serves")?;
    assert_eq!(serving.release.as_str(), "1.1.0");
    revoke(&mut world, "1.1.0")?;
    expect(&operator, &["check"], 0).await?;
    let status = world.control().status().await?;
    assert_eq!(status.serving.as_ref().map(|worker| worker.pid), Some(serving.pid));
    says(&status, &["1.1.0", "goes on serving", "does not start again"]);
    assert_eq!(world.client().await?.get(name).await?.as_deref(), Some(&b"before it was revoked"[..]));
    Process::open(serving.pid)?.kill()?;
    is_down(&world, "1.1.0").await?;
    Ok(())
}

/// Whether a fetcher asks the world's feed at this moment.
fn is_asking(world: &World) -> Result<bool> {
    for entry in fs::read_dir("/proc")? {
        let Ok(words) = fs::read(entry?.path().join("cmdline")) else { continue };
        let words = String::from_utf8_lossy(&words);
        if words.contains("bumpless-fetch") && words.contains(world.feed_url()) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_is_refused_to_a_revoked_release_and_where_a_record_cannot_be_read() -> Result<()> {
    let mut world = World::start(Settings::default()).await?;
    let operator = world.operator();
    world.publish(&release("1.1.0", Layout::ByKind)?)?;
    expect(&operator, &["upgrade"], 0).await?;
    let serving = world.serving().await?.serving.ok_or("nobody serves")?;

    for (link, damage) in [("current", Some(b"{")), ("current", None), ("previous", Some(b"{"))] {
        let record = world.state_dir().join(link).join("release.json");
        let sound = fs::read(&record)?;
        fs::remove_file(&record)?;
        if let Some(damage) = damage {
            fs::write(&record, damage)?;
        }
        let text = expect(&operator, &["rollback"], 3).await?;
        assert!(text.contains("release.json"), "{link} {damage:?}: {text}");
        // Nor is anything taken that might be older than what runs.
        if link == "current" {
            let text = expect(&operator, &["versions"], 0).await?;
            assert!(text.contains("cannot be read"), "{link} {damage:?}: {text}");
        }
        let _ = fs::remove_file(&record);
        fs::write(&record, &sound)?;
    }

    revoke(&mut world, "1.0.0")?;
    expect(&operator, &["check"], 0).await?;
    let text = expect(&operator, &["rollback"], 3).await?;
    assert!(text.contains("1.0.0 is revoked by the publisher"), "{text}");
    // The feed is away while it is asked.
    world.turn_tap(Flow::Throttled(20));
    let check = tokio::spawn({
        let operator = operator.clone();
        async move { operator.run(&["check"]).await }
    });
    let mut look = tokio::time::interval(Duration::from_millis(10));
    let asking = async {
        while !is_asking(&world)? {
            look.tick().await;
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    };
    tokio::time::timeout(SOON, asking).await??;
    let text = expect(&operator, &["rollback"], 3).await?;
    assert!(text.contains("1.0.0 is revoked by the publisher"), "{text}");
    assert!(!check.is_finished(), "it was refused after the look, not in it");
    world.turn_tap(Flow::Open);
    check.await??;
    let after = world.serving().await?.serving.ok_or("nobody serves")?;
    assert_eq!((after.pid, after.release.as_str()), (serving.pid, "1.1.0"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_is_revoked_on_probation_is_taken_back_and_nothing_is_lost() -> Result<()> {
    let settings = Settings {
        probation: Duration::from_secs(20),
        check_every: Duration::from_secs(1),
        ..Settings::default()
    };
    let mut node = UnderLoad::start(settings).await?;
    let before = node.serving().await?;
    let release = node.begin(&release("1.1.0", Layout::ByKind)?).await?;
    let on_probation =
        |status: &Status| status.upgrade.as_ref().is_some_and(|upgrade| upgrade.phase == Phase::Probation);
    node.world.control().until("probation", SOON, on_probation).await?;
    node.more_writes(20).await?;
    // Nobody asks: the supervisor looks by itself.
    revoke(&mut node.world, "1.1.0")?;
    let last = node.ended(&release).await?;
    assert_eq!(last.result, Ending::RolledBack);
    assert_eq!(last.reason.as_deref(), Some("1.1.0 is revoked by the publisher"));
    let status = node.status().await?;
    let after = status.serving.ok_or("nobody serves")?;
    assert_eq!((after.pid, after.instance, after.release.as_str()), (before.pid, before.instance, "1.0.0"));
    assert!(status.quarantined.is_empty(), "it did not fail here: {:?}", status.quarantined);
    node.more_writes(20).await?;
    node.upgrade_well("1.2.0").await?;
    node.finish(Clients::WereServed).await?;
    Ok(())
}

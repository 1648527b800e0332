//! What an operator sees: exit codes, JSON, and status in words.

use std::time::Duration;

use bumpless_control::status::Phase;
use bumpless_tests::configuration::Settings;
use bumpless_tests::operator::Operator;
use bumpless_tests::world::{Result, World, faulty, release};
use bumpless_worker::faults::{AfterCut, Faults};
use bumpless_worker::state::Layout;

use crate::under_load::{Clients, UnderLoad};

/// Runs a verb and expects this exit code.
async fn expect(operator: &Operator, arguments: &[&str], code: i32) -> Result<String> {
    let said = operator.run(arguments).await?;
    assert_eq!(said.code, code, "bumpless {}: {}", arguments.join(" "), said.all());
    Ok(said.all())
}

/// Runs a verb that is not to begin anything: refused, or nothing to do.
async fn expect_nothing(operator: &Operator, arguments: &[&str]) -> Result<String> {
    let said = operator.run(arguments).await?;
    assert!([3, 4].contains(&said.code), "bumpless {}: {}: {}", arguments.join(" "), said.code, said.all());
    Ok(said.all())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_supervisor_the_exit_code_is_7_and_a_wrong_command_line_is_2() -> Result<()> {
    let world = World::prepare(Settings::default()).await?;
    let operator = world.operator();
    expect(&operator, &["status"], 7).await?;
    expect(&operator, &["upgrade"], 7).await?;
    expect(&operator, &["frobnicate"], 2).await?;
    expect(&operator, &["hold"], 2).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verb_says_by_its_exit_code_what_came_of_it() -> Result<()> {
    let mut world = World::start(Settings::default()).await?;
    let operator = world.operator();
    let text = expect(&operator, &["status"], 0).await?;
    assert!(text.contains("1.0.0") && text.contains("You need to do: nothing"), "{text}");
    expect(&operator, &["check"], 0).await?;
    expect(&operator, &["upgrade"], 4).await?;
    expect(&operator, &["unhold"], 4).await?;
    expect(&operator, &["hold", "--reason", "the auditors are here"], 0).await?;
    let text = expect(&operator, &["status"], 0).await?;
    assert!(text.contains("the auditors are here"), "{text}");
    world.publish(&release("1.1.0", Layout::ByKind)?)?;
    let text = expect(&operator, &["upgrade"], 3).await?;
    assert!(text.contains("the auditors are here"), "{text}");
    expect(&operator, &["unhold"], 0).await?;
    expect_nothing(&operator, &["upgrade", "7.7.7"]).await?;
    expect(&operator, &["upgrade", "1.1.0"], 0).await?;
    let text = expect(&operator, &["versions"], 0).await?;
    assert!(text.contains("1.0.0") && text.contains("1.1.0"), "{text}");
    let text = expect(&operator, &["history"], 0).await?;
    assert!(text.contains("1.1.0") && text.contains("auditors"), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verb_has_json_that_begins_with_its_schema() -> Result<()> {
    let world = World::start(Settings::default()).await?;
    let operator = world.operator();
    for arguments in [
        &["status", "--json"][..],
        &["check", "--json"],
        &["upgrade", "--json"],
        &["hold", "--reason", "x", "--json"],
        &["unhold", "--json"],
        &["history", "--json"],
        &["versions", "--json"],
        &["trust", "show", "--json"],
        &["rollback", "--json"],
    ] {
        let said = operator.run(arguments).await?;
        let json = said.json().ok_or_else(|| format!("{arguments:?} is no JSON: {}", said.all()))?;
        assert_eq!(json.get("schema"), Some(&1.into()), "{arguments:?}: {json}");
    }
    let status = operator.run(&["status", "--json"]).await?.json().ok_or("no JSON")?;
    for path in [
        "/supervisor/version",
        "/supervisor/pid",
        "/supervisor/since",
        "/serving/release",
        "/serving/term",
        "/serving/instance",
        "/serving/pid",
        "/serving/since",
        "/standby",
        "/upgrade",
        "/next_check",
        "/held",
        "/quarantined",
        "/last",
    ] {
        assert!(status.pointer(path).is_some(), "{path} in {status}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_alone_tells_what_happened_after_a_failed_upgrade() -> Result<()> {
    let mut world = World::start(Settings::default()).await?;
    let operator = world.operator();
    world.publish(&faulty("1.1.0", Faults { after_cut: Some(AfterCut::Die(500)), ..Faults::default() })?)?;
    expect(&operator, &["upgrade"], 6).await?;
    let text = expect(&operator, &["status"], 0).await?;
    for part in ["1.0.0", "1.1.0", "quarantine", "made to die 500 ms after it took over", "You need to do:"] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    let last = text.trim_end().lines().last().unwrap_or_default();
    assert!(
        last.contains("You need to do:") || text.contains("You need to do:\n"),
        "it ends with what to do:\n{text}"
    );
    // What failed is not tried again.
    let text = expect_nothing(&operator, &["upgrade"]).await?;
    assert!(text.contains("quarantine"), "{text}");
    Ok(())
}

/// On whatever machine this runs: the log, which has it from the fetchers, knows what it should be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_tells_what_this_machine_lacks_of_the_sandbox_that_the_log_tells_of_once() -> Result<()> {
    let mut world = World::start(Settings::default()).await?;
    let told: Vec<String> = world
        .supervisor()?
        .log()
        .lines()
        .filter_map(|line| {
            line.strip_prefix("bumplessd: the fetcher's sandbox lacks ")?.split_once(", if it were")
        })
        .map(|(lack, _)| lack.to_owned())
        .collect();
    let feed = world.control().status().await?.feed.ok_or("no feed")?;
    assert_eq!(feed.sandbox_lacks, told);
    let text = expect(&world.operator(), &["status"], 0).await?;
    assert_eq!(text.matches("The sandbox of what fetches lacks").count(), told.len(), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_in_probation_is_graceful() -> Result<()> {
    let mut node =
        UnderLoad::start(Settings { probation: Duration::from_secs(30), ..Settings::default() }).await?;
    let before = node.serving().await?;
    node.world.publish(&release("1.1.0", Layout::ByKind)?)?;
    let operator = node.world.operator();
    let upgrade = tokio::spawn({
        let operator = operator.clone();
        async move { operator.run(&["upgrade"]).await }
    });
    let in_probation = |status: &bumpless_control::status::Status| {
        status.upgrade.as_ref().is_some_and(|upgrade| upgrade.phase == Phase::Probation)
    };
    node.world.control().until("probation", Duration::from_secs(30), in_probation).await?;
    node.more_writes(20).await?;
    // Made in probation: only the new worker knows these connections.
    let mut young = Vec::new();
    for _ in 0..8 {
        let client = node.world.client().await?;
        assert_eq!(client.ping().await?.release, "1.1.0");
        young.push(client);
    }
    expect(&operator, &["rollback"], 0).await?;
    for client in &young {
        assert_eq!(client.ping().await?.release, "1.0.0");
        let counters = client.counters();
        assert!(counters.dropped == 0 && counters.failed == 0 && counters.moved == 1, "{counters:?}");
    }
    assert_eq!(upgrade.await??.code, 6, "whoever waits for the upgrade is told");
    let after = node.world.serving().await?.serving.ok_or("nobody serves")?;
    assert_eq!((after.pid, after.release.as_str()), (before.pid, "1.0.0"));
    node.more_writes(20).await?;
    node.upgrade_well("1.2.0").await?;
    node.finish(Clients::NoticedNothing).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_after_the_commit_is_an_upgrade_to_the_release_before() -> Result<()> {
    let mut node = UnderLoad::start(Settings::default()).await?;
    node.upgrade_well("1.1.0").await?;
    let operator = node.world.operator();
    expect(&operator, &["rollback"], 0).await?;
    let serving = node.world.serving().await?.serving.ok_or("nobody serves")?;
    assert_eq!(serving.release.as_str(), "1.0.0");
    node.more_writes(20).await?;
    node.finish(Clients::NoticedNothing).await?;
    Ok(())
}

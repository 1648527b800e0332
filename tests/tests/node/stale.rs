//! A machine without a network is upgraded from a folder, which may have lain in a drawer.

use std::collections::BTreeMap;
use std::path::Path;

use bumpless_control::history::Event;
use bumpless_tests::configuration::Settings;
use bumpless_tests::files::below;
use bumpless_tests::left_out::left_out;
use bumpless_tests::operator::Operator;
use bumpless_tests::world::{Result, World, release, unix_now};
use bumpless_worker::state::Layout;
use serde_json::{Value, json};

const DAY: u64 = 86_400;

async fn expect(operator: &Operator, arguments: &[&str], code: i32) -> Result<String> {
    let said = operator.run(arguments).await?;
    assert_eq!(said.code, code, "bumpless {}: {}", arguments.join(" "), said.all());
    Ok(said.all())
}

/// A node that has no feed but knows its network's root, and the publisher's folder with a first release.
async fn islander() -> Result<World> {
    let mut world = World::prepare(Settings::default()).await?;
    let text = world.configuration_text();
    let feed = format!("urls = [\"{}\"]", world.feed_url());
    assert!(text.contains(&feed), "{text}");
    std::fs::write(world.configuration(), text.replace(&feed, "urls = []"))?;
    world.publish(&release("1.0.0", Layout::ByName)?)?;
    world.start_supervisor()?;
    world.control().until("an answer", bumpless_tests::world::START, |_| true).await?;
    Ok(world)
}

fn text(path: &Path) -> Result<String> {
    Ok(path.to_str().ok_or("the folder's name is no text")?.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_feed_is_installed_and_upgraded_from_a_folder() -> Result<()> {
    let mut world = islander().await?;
    let (operator, folder) = (world.operator(), text(&world.feed())?);
    let said = expect(&operator, &["upgrade"], 5).await?;
    assert!(said.contains("feed.urls"), "{said}");
    expect(&operator, &["upgrade", "--from", "/nonexistent"], 5).await?;
    expect(&operator, &["upgrade", "--from", &folder], 0).await?;
    assert_eq!(world.serving().await?.serving.ok_or("nobody serves")?.release.as_str(), "1.0.0");
    expect(&operator, &["upgrade", "--from", &folder], 4).await?;
    world.publish(&release("1.1.0", Layout::ByKind)?)?;
    expect(&operator, &["hold", "--reason", "racks"], 0).await?;
    let said = expect(&operator, &["upgrade", "--from", &folder], 3).await?;
    assert!(said.contains("racks"), "{said}");
    expect(&operator, &["unhold"], 0).await?;
    expect(&operator, &["upgrade", "--from", &folder, "7.7.7"], 3).await?;
    expect(&operator, &["upgrade", "--from", &folder, "1.1.0"], 0).await?;
    assert_eq!(world.serving().await?.serving.ok_or("nobody serves")?.release.as_str(), "1.1.0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_of_a_folder_says_what_an_upgrade_from_it_would_do_and_keeps_nothing_of_it() -> Result<()> {
    let mut world = islander().await?;
    let (operator, folder) = (world.operator(), text(&world.feed())?);
    let kept = |world: &World| -> Result<_> {
        let mut kept = BTreeMap::new();
        for name in ["trust", "staging", "releases"] {
            let dir = world.state_dir().join(name);
            if dir.is_dir() {
                kept.extend(below(&dir)?.into_iter().map(|(path, bytes)| (format!("{name}/{path}"), bytes)));
            }
        }
        Ok(kept)
    };
    let dry_run = async |operator: &Operator, version: &[&str]| -> Result<Value> {
        let arguments = ["upgrade", "--json", "--dry-run", "--from", folder.as_str()];
        let said = operator.run(&[&arguments[..], version].concat()).await?;
        assert_eq!(said.code, 0, "{}", said.all());
        Ok(said.json().ok_or("no JSON")?["dry_run"].clone())
    };
    let before = kept(&world)?;
    let foreseen = dry_run(&operator, &[]).await?;
    assert_eq!((&foreseen["from"], &foreseen["to"]), (&Value::Null, &json!("1.0.0")));
    assert_eq!(kept(&world)?, before);
    expect(&operator, &["upgrade", "--from", &folder], 0).await?;

    world.publish(&release("1.1.0", Layout::ByKind)?)?;
    world.publisher().revoke(&"1.0.0".parse()?)?;
    world.publisher().publish(unix_now())?;
    let (before, history) = (kept(&world)?, world.control().history(100).await?.len());
    let foreseen = dry_run(&operator, &[]).await?;
    assert_eq!((&foreseen["from"], &foreseen["to"]), (&json!("1.0.0"), &json!("1.1.0")));
    assert_eq!((&foreseen["folder"], &foreseen["obstacles"]), (&json!(folder), &json!([])));
    assert_eq!(foreseen["index"]["version"], world.publisher().index().version);
    let foreseen = dry_run(&operator, &["1.0.0"]).await?;
    assert_eq!(foreseen["to"], Value::Null);
    expect(&operator, &["hold", "--reason", "racks"], 0).await?;
    let said = expect(&operator, &["upgrade", "--dry-run", "--from", &folder], 0).await?;
    assert!(said.contains("would be refused now") && said.contains("racks"), "{said}");
    expect(&operator, &["unhold"], 0).await?;
    let said = expect(&operator, &["upgrade", "--dry-run", "--from", "/nonexistent"], 5).await?;
    assert!(said.contains("Nothing was changed"), "{said}");
    if let Some(stranger) = world.stranger()? {
        // It would have the supervisor read what the stranger may not.
        expect(&stranger, &["upgrade", "--dry-run", "--from", &folder], 3).await?;
    } else {
        left_out("a stranger's dry run of a folder is refused", "this is not root");
    }

    // Nor is what it brings believed: 1.0.0 is not revoked here yet.
    assert!(world.control().status().await?.alarms.is_empty());
    assert_eq!(kept(&world)?, before);
    // Hold and unhold.
    assert_eq!(world.control().history(100).await?.len(), history + 2);

    // An expired folder is refused as the upgrade would be.
    world.publisher().publish(unix_now() - 10 * DAY)?;
    let said = expect(&operator, &["upgrade", "--dry-run", "--from", &folder], 3).await?;
    assert!(said.contains("the timestamp expired"), "{said}");
    assert_eq!(kept(&world)?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_folder_is_refused_and_root_alone_may_accept_it_and_history_has_that() -> Result<()> {
    let mut world = islander().await?;
    let (operator, folder) = (world.operator(), text(&world.feed())?);
    expect(&operator, &["upgrade", "--from", &folder], 0).await?;
    let before = world.serving().await?.serving.ok_or("nobody serves")?;
    world.publish(&release("1.1.0", Layout::ByKind)?)?;
    // Signed ten days ago, and valid for three.
    world.publisher().publish(unix_now() - 10 * DAY)?;

    let said = expect(&operator, &["upgrade", "--from", &folder], 3).await?;
    assert!(said.contains("the timestamp expired") && said.contains("--accept-stale"), "{said}");
    let accept = ["upgrade", "--from", folder.as_str(), "--accept-stale", "--reason", "from the drawer"];
    let stranger = world.stranger()?;
    let refused = stranger.as_ref().unwrap_or(&operator);
    let said = expect(refused, &accept, 3).await?;
    assert!(said.contains("Only root may"), "{said}");
    let status = world.serving().await?;
    let serving = status.serving.ok_or("nobody serves")?;
    assert_eq!((serving.release.as_str(), serving.pid), ("1.0.0", before.pid));
    let accepted = async |world: &World| -> Result<Vec<_>> {
        let history = world.control().history(100).await?;
        Ok(history.into_iter().filter(|entry| entry.event == Event::StaleAccepted).collect())
    };
    assert!(accepted(&world).await?.is_empty());
    if stranger.is_none() {
        left_out("stale media are accepted by root", "this is not root");
        return Ok(());
    }

    expect(&operator, &accept, 0).await?;
    assert_eq!(world.serving().await?.serving.ok_or("nobody serves")?.release.as_str(), "1.1.0");
    let [entry] = &accepted(&world).await?[..] else { return Err("it is not in the history once".into()) };
    assert_eq!((entry.actor, entry.reason.clone()), (Some(0), Some(format!("{folder}: from the drawer"))));
    let said = expect(&operator, &["history"], 0).await?;
    assert!(said.contains("expired media accepted, by user 0"), "{said}");
    // It was for that once.
    let said = expect(&operator, &["upgrade", "--from", &folder], 3).await?;
    assert!(said.contains("the timestamp expired"), "{said}");
    Ok(())
}

//! Several channels on one feed: which machines take what, a release that goes from beta to stable, and a machine
//! that changes from one to the other and back.

use std::path::Path;

use bumpless_control::status::Status;
use bumpless_release::Spread;
use bumpless_tests::configuration::Settings;
use bumpless_tests::operator::Operator;
use bumpless_tests::world::{Result, World, release, unix_now};
use bumpless_trust::document::{Channel, Stage};
use bumpless_worker::state::Layout;

use crate::under_load::UPGRADE;

async fn said(operator: &Operator, arguments: &[&str], code: i32) -> Result<String> {
    let said = operator.run(arguments).await?;
    assert_eq!(said.code, code, "bumpless {}: {}", arguments.join(" "), said.all());
    Ok(said.all())
}

fn beta() -> Result<Channel> {
    Ok("beta".parse()?)
}

/// What a machine of this channel has in its configuration beside the rest.
fn follows(channel: &str) -> String {
    format!("[feed]\nchannel = \"{channel}\"\n")
}

fn serves(version: &'static str) -> impl Fn(&Status) -> bool {
    move |status| {
        let serving = status.serving.as_ref().is_some_and(|worker| worker.release.as_str() == version);
        serving && status.upgrade.is_none() && status.draining.is_none()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_machines_of_beta_have_tried_is_promoted_and_comes_to_those_of_stable() -> Result<()> {
    let mut stable = World::start(Settings { automatic: true, ..Settings::default() }).await?;
    let mut tester =
        World::prepare(Settings { automatic: true, more: follows("beta"), ..Settings::default() }).await?;
    // On the same feed, with the same root.
    tester.places().feed = stable.feed_url().to_owned();
    tester.places().root = stable.publisher().first_root();
    tester.configure()?;
    stable.publisher().begin(&beta()?)?;
    let tried = stable.publish(&release("1.1.0", Layout::ByKind)?)?;
    tester.start_supervisor()?;
    let serving = tester.first_install().await?.serving.ok_or("nobody serves")?;
    assert_eq!((serving.release.as_str(), serving.sha256), ("1.1.0", tried.sha256));
    let text = said(&tester.operator(), &["status"], 0).await?;
    assert!(text.contains("Feed, channel beta: last seen"), "{text}");
    let text = said(&stable.operator(), &["check"], 0).await?;
    assert!(text.contains("nothing newer than 1.0.0 on channel stable"), "{text}");

    let stages = vec![Stage { after: 0, permille: 1000 }];
    let publisher = stable.publisher().turn_to(&Channel::default())?;
    publisher.promote(&tried.version, Spread { stages, ..Spread::default() })?;
    publisher.publish(unix_now())?;
    said(&stable.operator(), &["check"], 0).await?;
    let status = stable.control().until("the upgrade", UPGRADE, serves("1.1.0")).await?;
    assert_eq!(status.serving.map(|worker| worker.sha256), Some(tried.sha256), "the same bytes");
    let text = said(&tester.operator(), &["check"], 0).await?;
    assert!(text.contains("nothing newer than 1.1.0 on channel beta"), "{text}");

    // Bytes that must not run must not run anywhere.
    stable.publisher().revoke(&tried.version)?;
    stable.publisher().publish(unix_now())?;
    for world in [&stable, &tester] {
        said(&world.operator(), &["check"], 0).await?;
        let text = said(&world.operator(), &["status"], 0).await?;
        assert!(text.contains("1.1.0 is revoked by the publisher"), "{text}");
    }
    Ok(())
}

/// Puts the supervisor of this world on another channel; the worker serves on.
async fn turn_to(world: &mut World, channel: &str) -> Result<()> {
    let before = world.serving().await?.serving.ok_or("nobody serves")?;
    world.settings().more = follows(channel);
    world.configure()?;
    world.kill_supervisor()?;
    world.start_supervisor()?;
    let after = world.serving().await?.serving.ok_or("nobody serves")?;
    assert_eq!((after.pid, after.release), (before.pid, before.release));
    Ok(())
}

/// A channel's timestamp as it is now, to be put there again later.
struct Kept(Vec<(std::path::PathBuf, Vec<u8>)>);

impl Kept {
    fn of(feed: &Path, channel: &Channel) -> Result<Kept> {
        let timestamp = feed.join(channel.folder()).join("timestamp.json");
        let sigs = timestamp.with_extension("json.sigs");
        Ok(Kept(vec![(timestamp.clone(), std::fs::read(&timestamp)?), (sigs.clone(), std::fs::read(&sigs)?)]))
    }

    fn put_back(&self) -> Result<()> {
        Ok(self.0.iter().try_for_each(|(path, bytes)| std::fs::write(path, bytes))?)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_changes_channels_is_set_back_on_none_of_them() -> Result<()> {
    let mut world = World::start(Settings::default()).await?;
    let (operator, feed) = (world.operator(), world.feed());
    world.publisher().begin(&beta()?)?;
    world.publish(&release("1.1.0", Layout::ByKind)?)?;
    let old = [Kept::of(&feed, &Channel::default())?, Kept::of(&feed, &beta()?)?];
    world.publisher().publish(unix_now())?;
    let new = [Kept::of(&feed, &Channel::default())?, Kept::of(&feed, &beta()?)?];

    said(&operator, &["check"], 0).await?;
    turn_to(&mut world, "beta").await?;
    let text = said(&operator, &["upgrade"], 0).await?;
    assert!(text.contains("from 1.0.0 to 1.1.0"), "{text}");
    assert!(world.serving().await?.alarms.is_empty());

    // Both channels are set back while the machine is on beta, and on stable.
    for kept in &old {
        kept.put_back()?;
    }
    for (channel, newer) in [("beta", &new[1]), ("stable", &new[0]), ("beta", &new[1])] {
        turn_to(&mut world, channel).await?;
        let text = said(&operator, &["check"], 5).await?;
        assert!(text.contains("the feed was set back"), "{channel}: {text}");
        let text = said(&operator, &["status"], 0).await?;
        assert!(text.contains(&format!("Feed, channel {channel}: ")), "{text}");
        newer.put_back()?;
        let text = said(&operator, &["check"], 0).await?;
        // Stable has nothing with a higher number, and nobody goes back to what it has.
        assert!(text.contains(&format!("nothing newer than 1.1.0 on channel {channel}")), "{text}");
        let older = if channel == "beta" { &old[1] } else { &old[0] };
        older.put_back()?;
    }

    // One that the feed does not have: told by name, and the node serves on.
    turn_to(&mut world, "bata").await?;
    let text = said(&operator, &["check"], 5).await?;
    assert!(text.contains("it does not have channel bata"), "{text}");
    assert_eq!(world.serving().await?.serving.ok_or("nobody serves")?.release.as_str(), "1.1.0");
    Ok(())
}

//! Maintenance windows: what begins by itself waits for one; what is urgent, or asked for, does not.

use std::time::Duration;

use bumpless_control::history::Event;
use bumpless_control::status::{Ending, Next, Status};
use bumpless_release::Addition;
use bumpless_shared::release::Release;
use bumpless_tests::configuration::Settings;
use bumpless_tests::world::{Result, release, unix_now};
use bumpless_worker::state::Layout;

use crate::under_load::{Clients, UPGRADE, UnderLoad};

const HOUR: u64 = 3600;

/// A node with a window of an hour that opens in six, and when it opens.
async fn long_before_the_window(automatic: bool) -> Result<(UnderLoad, u64)> {
    let opens = unix_now() / 60 * 60 + 6 * HOUR;
    let start = format!("{:02}:{:02}", opens % (24 * HOUR) / HOUR, opens % HOUR / 60);
    let more = format!("[[upgrade.windows]]\nstart = \"{start}\"\nlength = \"1h\"\nzone = \"UTC\"\n");
    let probation = Duration::from_secs(1);
    // That the first release is installed shows that a node on which nothing runs does not wait.
    Ok((UnderLoad::start(Settings { automatic, probation, more, ..Settings::default() }).await?, opens))
}

/// Publishes a release that does not wait for a window.
fn publish_urgent(node: &mut UnderLoad, version: &str) -> Result<Release> {
    let addition = Addition { urgent: true, ..Addition::default() };
    node.world.publish_with(&release(version, Layout::ByKind)?, addition)
}

/// What the node says that it does next.
async fn next(node: &UnderLoad) -> Result<Next> {
    Ok(node.status().await?.next.ok_or("nothing comes next")?)
}

/// Makes the supervisor look at the feed by itself, and waits until it has decided.
async fn has_looked_by_itself(node: &UnderLoad, clock: i64) -> Result<()> {
    let checked_at = |status: &Status| status.feed.as_ref().and_then(|feed| feed.checked_at);
    let before = checked_at(&node.status().await?).ok_or("never checked")?;
    // Looks are told apart by their second.
    node.world.injected().step_clock(clock)?;
    let operator = node.world.operator();
    assert_eq!(operator.run(&["hold", "--reason", "for a moment"]).await?.code, 0);
    assert_eq!(operator.run(&["unhold"]).await?.code, 0);
    let later = |status: &Status| checked_at(status).is_some_and(|at| at > before + 1);
    node.world.control().until("a look at the feed", UPGRADE, later).await?;
    Ok(())
}

async fn was_begun(node: &UnderLoad, release: &Release) -> Result<bool> {
    let entries = node.world.control().history(100).await?;
    let of_it = |to: &Release| to.sha256 == release.sha256;
    Ok(entries.iter().any(|it| it.event == Event::UpgradeStarted && it.to.as_ref().is_some_and(of_it)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outside_of_the_window_nothing_begins_and_status_says_when_and_its_opening_wakes_the_supervisor()
-> Result<()> {
    let (mut node, opens) = long_before_the_window(true).await?;
    let release = node.world.publish(&release("1.1.0", Layout::ByKind)?)?;
    let said = node.world.operator().run(&["check"]).await?;
    assert!(said.code == 0 && said.all().contains("maintenance window"), "{}", said.all());
    has_looked_by_itself(&node, 10).await?;
    assert!(!was_begun(&node, &release).await?);
    let next = next(&node).await?;
    assert_eq!((next.what.as_str(), next.at), ("upgrade to 1.1.0", Some(opens)));
    let why = next.why_not.ok_or("no reason")?;
    assert!(why.contains("only in a maintenance window") && why.contains("opens on 20"), "{why}");
    let said = node.world.operator().run(&["status"]).await?;
    assert!(said.all().contains("Not now, because upgrades begin by themselves only in a"), "{}", said.all());
    let said = node.world.operator().run(&["upgrade", "--dry-run", "--json"]).await?;
    let foreseen = said.json().ok_or("no JSON")?;
    let obstacle = &foreseen["dry_run"]["obstacles"][0];
    assert_eq!((&obstacle["kind"], &obstacle["stops"]), (&"time".into(), &"supervisor".into()), "{foreseen}");

    // The feed is looked at every hour, so it is the opening that it is looked at for.
    node.world.injected().step_clock(i64::try_from(opens - unix_now())? + 10)?;
    let last = node.ended(&release).await?;
    assert_eq!(last.result, Ending::Committed, "{last:?}");
    node.finish(Clients::NoticedNothing).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_urgent_release_waits_for_no_window_but_for_a_hold_and_what_is_asked_for_goes_at_once()
-> Result<()> {
    let (mut node, opens) = long_before_the_window(true).await?;
    let operator = node.world.operator();
    assert_eq!(operator.run(&["hold", "--reason", "an audit"]).await?.code, 0);
    let urgent = publish_urgent(&mut node, "1.1.0")?;
    let said = operator.run(&["check"]).await?;
    assert!(said.code == 0 && said.all().contains("held: an audit"), "{}", said.all());
    assert!(!was_begun(&node, &urgent).await?);
    // Something newer that may wait does not hold it up.
    let newer = node.world.publish(&release("1.2.0", Layout::ByKind)?)?;
    assert_eq!(operator.run(&["unhold"]).await?.code, 0);
    let last = node.ended(&urgent).await?;
    assert_eq!(last.result, Ending::Committed, "{last:?}");
    has_looked_by_itself(&node, 10).await?;
    assert!(!was_begun(&node, &newer).await?);
    let next = next(&node).await?;
    assert_eq!((next.what.as_str(), next.at), ("upgrade to 1.2.0", Some(opens)));
    let said = operator.run(&["upgrade"]).await?;
    assert_eq!(said.code, 0, "{}", said.all());
    assert_eq!(node.serving().await?.release.as_str(), "1.2.0");
    node.finish(Clients::NoticedNothing).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_upgrades_are_begun_by_hand_an_urgent_one_is_too() -> Result<()> {
    let (mut node, _) = long_before_the_window(false).await?;
    let urgent = publish_urgent(&mut node, "1.1.0")?;
    has_looked_by_itself(&node, 10).await?;
    assert!(!was_begun(&node, &urgent).await?);
    let next = next(&node).await?;
    assert!(next.what == "upgrade to 1.1.0" && next.why_not.is_some_and(|why| why.contains("manual")));
    assert_eq!(node.world.operator().run(&["upgrade"]).await?.code, 0);
    node.finish(Clients::NoticedNothing).await?;
    Ok(())
}

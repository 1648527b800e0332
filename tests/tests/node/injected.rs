//! Syncs that fail and a clock that jumps, injected below the product.

use std::time::Duration;

use bumpless_control::history::Event;
use bumpless_control::status::{Ending, Status};
use bumpless_tests::configuration::Settings;
use bumpless_tests::gate::Gate;
use bumpless_tests::world::{Result, faulty};
use bumpless_worker::faults::{AtStart, Faults, Place, Step};

use crate::under_load::{Clients, UPGRADE, UnderLoad};

/// Longest way from one step to the next.
const SOON: Duration = Duration::from_secs(20);

const DAY: i64 = 24 * 3600;

fn watched() -> Settings {
    Settings { probation: Duration::from_secs(2), ..Settings::default() }
}

fn was_injected(node: &mut UnderLoad) -> Result<bool> {
    Ok(node.world.supervisor()?.log().contains("injected"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_of_the_new_logbook_that_fails_reverses_the_cut_and_loses_nothing() -> Result<()> {
    let mut node = UnderLoad::start(watched()).await?;
    let before = node.serving().await?;
    let mut gate = Gate::new(node.world.folder(), "probation")?;
    let release =
        node.begin(&faulty("1.1.0", Faults::default().at(Step::Take, Place::After, gate.holds()))?).await?;
    gate.reached(SOON).await?;
    let term = before.term.ok_or("no term")? + 1;
    node.world.injected().fail_sync(&format!("/log/{term}/"), 3)?;
    gate.open()?;
    let last = node.ended(&release).await?;
    assert_eq!(last.result, Ending::RolledBack, "{last:?}");
    assert!(last.reason.as_ref().is_some_and(|why| why.contains("logbook")), "{last:?}");
    assert!(node.status().await?.quarantined.is_empty(), "the release is not to blame");
    assert_eq!(node.serving().await?.pid, before.pid);
    node.upgrade_well("1.9.0").await?;
    node.finish(Clients::WereServed).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_of_the_new_database_that_fails_at_the_commit_reverses_the_cut() -> Result<()> {
    let mut node = UnderLoad::start(watched()).await?;
    let before = node.serving().await?;
    let mut gate = Gate::new(node.world.folder(), "persist")?;
    let release = node
        .begin(&faulty("1.1.0", Faults::default().at(Step::Persist, Place::Before, gate.holds()))?)
        .await?;
    gate.reached(SOON).await?;
    // Its generation: the first one is 1.
    node.world.injected().fail_sync("gen-2/db", 1)?;
    gate.open()?;
    let last = node.ended(&release).await?;
    assert_eq!(last.result, Ending::RolledBack, "{last:?}");
    assert_eq!(node.serving().await?.pid, before.pid);
    node.upgrade_well("1.9.0").await?;
    node.finish(Clients::WereServed).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_of_the_new_database_that_fails_after_the_commit_point_has_the_new_pair_start_again()
-> Result<()> {
    let mut node = UnderLoad::start(watched()).await?;
    let mut gate = Gate::new(node.world.folder(), "commit")?;
    let plan = Faults::default().at(Step::Commit, Place::Before, gate.holds());
    let release = node.begin(&faulty("1.1.0", plan)?).await?;
    gate.reached(SOON).await?;
    node.world.injected().fail_sync("gen-2/db", 1)?;
    gate.open()?;
    let last = node.ended(&release).await?;
    // Another process would find the same fault again.
    node.world.injected().cease()?;
    assert_eq!(last.result, Ending::Committed, "{last:?}");
    let status = node.world.serving().await?;
    assert_eq!(status.serving.ok_or("nobody serves")?.release.as_str(), "1.1.0");
    node.more_writes(20).await?;
    node.upgrade_well("1.9.0").await?;
    node.finish(Clients::WereServed).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_cannot_be_synced_holds_up_the_cut_and_one_that_can_again_lets_the_next_one_through()
-> Result<()> {
    let mut node = UnderLoad::start(watched()).await?;
    let before = node.serving().await?;
    let mut gate = Gate::new(node.world.folder(), "level")?;
    let release =
        node.begin(&faulty("1.1.0", Faults::default().at(Step::Level, Place::After, gate.holds()))?).await?;
    gate.reached(SOON).await?;
    node.world.injected().fail_sync("/journal", 1)?;
    gate.open()?;
    let last = node.ended(&release).await?;
    assert!(was_injected(&mut node)?);
    assert_eq!(last.result, Ending::Undecided, "{last:?}");
    assert!(last.reason.as_ref().is_some_and(|why| why.contains("journal")), "{last:?}");
    let after = node.serving().await?;
    assert_eq!((after.pid, after.term), (before.pid, before.term));
    node.upgrade_well("1.9.0").await?;
    node.finish(Clients::NoticedNothing).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_the_committed_record_is_being_replaced_a_sync_that_fails_only_delays_the_commit() -> Result<()>
{
    let mut node = UnderLoad::start(watched()).await?;
    // The record's own bytes, and the folder that it is renamed in: then nobody knows which of the two
    // records a power loss would show.
    let folder = node.world.state_dir().display().to_string();
    for (version, part) in [("1.1.0", "/committed".to_owned()), ("1.2.0", format!("={folder}"))] {
        let mut gate = Gate::new(node.world.folder(), &version.replace('.', "-"))?;
        let plan = Faults::default().at(Step::Persist, Place::After, gate.holds());
        let release = node.begin(&faulty(version, plan)?).await?;
        gate.reached(SOON).await?;
        node.world.injected().fail_sync(&part, 1)?;
        gate.open()?;
        let last = node.ended(&release).await?;
        assert!(was_injected(&mut node)?);
        assert_eq!(last.result, Ending::Committed, "{last:?}");
        assert_eq!(node.serving().await?.release.as_str(), version);
        let alarm = |entry: &bumpless_control::history::Entry| {
            entry.event == Event::Alarm && entry.reason.as_ref().is_some_and(|why| why.contains("committed"))
        };
        assert!(node.world.control().history(100).await?.iter().any(alarm));
        node.world.injected().cease()?;
    }
    node.finish(Clients::NoticedNothing).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_neither_hurries_a_retry_nor_puts_it_off() -> Result<()> {
    let settings = Settings {
        attempts: 9,
        automatic: true,
        check_every: Duration::from_secs(1),
        more: "[upgrade]\nretry_after = [\"2s\", \"1h\"]\n".to_owned(),
        ..watched()
    };
    let mut node = UnderLoad::start(settings).await?;
    let control = node.world.control();
    let dies = Faults { at_start: Some(AtStart::Die), ..Faults::default() };
    let bad = node.world.publish(&faulty("1.1.0", dies)?)?;
    let failed = |status: &Status| {
        status.last.as_ref().is_some_and(|last| last.to == bad.version) && status.upgrade.is_none()
    };
    let tries = async || -> Result<usize> {
        let entries = control.history(100).await?;
        let of_it = entries.iter().filter(|it| it.to.as_ref().is_some_and(|to| to.sha256 == bad.sha256));
        Ok(of_it.filter(|it| it.event == Event::UpgradeStarted).count())
    };
    control.until("the first try", UPGRADE, failed).await?;
    // Back, by as much as the feed bears with: the next try comes when it should, not so much later.
    node.world.injected().step_clock(-500)?;
    let begun = std::time::Instant::now();
    while tries().await? < 2 {
        assert!(begun.elapsed() < Duration::from_secs(15), "no second try: {:?}", control.status().await?);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    control.until("the second try", UPGRADE, failed).await?;
    // On by more than an hour: the third is due in an hour, and the feed is looked at every second.
    node.world.injected().step_clock(4000)?;
    let checked = control.status().await?.feed.and_then(|feed| feed.checked_at).ok_or("never checked")?;
    let again = |status: &Status| {
        let feed = status.feed.as_ref();
        feed.is_some_and(|feed| feed.error.is_none() && feed.checked_at.is_some_and(|at| at > checked + 4502))
    };
    control.until("two more looks at the feed", UPGRADE, again).await?;
    assert_eq!(tries().await?, 2);
    // By a day back, what the feed says lies in the future: that is told, and the node takes no notice.
    node.world.injected().step_clock(-DAY)?;
    let told = |status: &Status| {
        status.feed.as_ref().and_then(|feed| feed.error.as_ref()).is_some_and(|why| why.contains("clock"))
    };
    control.until("the clock to be named", UPGRADE, told).await?;
    node.more_writes(20).await?;
    node.world.injected().cease()?;
    node.upgrade_well("1.9.0").await?;
    node.finish(Clients::NoticedNothing).await?;
    Ok(())
}

//! An upgrade that is rehearsed: it hands over three times before anything is at stake.

use std::time::Duration;

use bumpless_control::history::{Entry, Event};
use bumpless_control::reply::Outcome;
use bumpless_control::request::Request;
use bumpless_control::status::{Ending, Phase, Status};
use bumpless_shared::release::Release;
use bumpless_tests::configuration::Settings;
use bumpless_tests::world::{Result, faulty, release};
use bumpless_worker::faults::{AfterCut, Faults};
use bumpless_worker::stamp::Stamp;
use bumpless_worker::state::Layout;

use crate::under_load::{Clients, UPGRADE, UnderLoad};

fn settings(rehearse: bool) -> Settings {
    let more = format!("[upgrade]\nrehearse = {rehearse}\nrehearsal = \"2s\"\nrehearsal_gap = \"1s\"\n");
    Settings { more, ..Settings::default() }
}

/// Of an upgrade: its outcome, and the phases with the parts of a rehearsal that its operator was shown.
async fn upgrade(
    node: &mut UnderLoad,
    stamp: &Stamp,
    rehearse: bool,
) -> Result<(Release, Outcome, Vec<(Phase, Option<u8>)>)> {
    let release = node.world.publish(stamp)?;
    let request = Request::Upgrade { version: Some(release.version.clone()), wait: true, rehearse };
    let mut seen = Vec::new();
    let control = node.world.control();
    let asked = control.ask(&request, |_, progress| {
        let now = (progress.phase.clone(), progress.rehearsal);
        if seen.last() != Some(&now) {
            seen.push(now);
        }
    });
    let outcome = tokio::time::timeout(UPGRADE, asked).await.map_err(|_| "no outcome")??;
    node.world.serving().await?;
    Ok((release, outcome, seen))
}

async fn history(node: &UnderLoad, event: Event) -> Result<Vec<Entry>> {
    let entries = node.world.control().history(1000).await?;
    Ok(entries.into_iter().filter(|entry| entry.event == event).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rehearsed_upgrade_hands_over_three_times_and_nobody_notices() -> Result<()> {
    let mut node = UnderLoad::start(settings(false)).await?;
    let (new, outcome, seen) = upgrade(&mut node, &release("1.1.0", Layout::ByKind)?, true).await?;
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    for part in [
        (Phase::Probation, Some(1)),
        (Phase::GoingBack, Some(2)),
        (Phase::Syncing, Some(3)),
        (Phase::Probation, None),
    ] {
        assert!(seen.contains(&part), "{part:?} in {seen:?}");
    }
    let cuts = history(&node, Event::Cut).await?;
    let to: Vec<_> = cuts.iter().map(|cut| cut.to.as_ref().map(|to| to.version.to_string())).collect();
    assert_eq!(to, [Some("1.1.0".into()), Some("1.0.0".into()), Some("1.1.0".into())], "{cuts:?}");
    for (cut, part) in cuts.iter().zip(["rehearsal 1 of 3", "rehearsal 2 of 3", "rehearsal 3 of 3"]) {
        assert!(cut.reason.as_ref().is_some_and(|reason| reason.starts_with(part)), "{cut:?}");
    }
    assert_eq!(history(&node, Event::Rehearsed).await?.len(), 1);
    let serving = node.serving().await?;
    assert_eq!((serving.sha256, serving.release.as_str()), (new.sha256, "1.1.0"));
    // What was left by the first instance goes, and the next upgrade, not rehearsed, works.
    node.upgrade_well("1.2.0").await?;
    assert_eq!(history(&node, Event::Cut).await?.len(), 4);
    let tidy = |_: &Status| {
        let names = std::fs::read_dir(node.world.state_dir().join("state")).into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name.starts_with("gen-")).count() == 1
    };
    node.world.control().until("one generation", Duration::from_secs(20), tidy).await?;
    node.finish(Clients::NoticedNothing).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_fails_some_time_after_its_first_cut_never_reaches_probation() -> Result<()> {
    // Rehearsed because the configuration says so.
    let mut node = UnderLoad::start(settings(true)).await?;
    let before = node.serving().await?;
    let old: Vec<_> = {
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(node.world.client().await?);
        }
        clients
    };
    let dies = faulty("1.1.0", Faults { after_cut: Some(AfterCut::Die(1000)), ..Faults::default() })?;
    let (bad, outcome, seen) = upgrade(&mut node, &dies, false).await?;
    let Outcome::RolledBack { reason, .. } = outcome else { return Err(format!("{outcome:?}").into()) };
    assert!(reason.starts_with("rehearsal 1 of 3: cut: exited with status 70"), "{reason}");
    assert!(!seen.contains(&(Phase::Probation, None)), "{seen:?}");
    let status = node.status().await?;
    let after = status.serving.ok_or("nobody serves")?;
    assert_eq!((after.pid, after.instance), (before.pid, before.instance));
    assert_eq!(status.last.ok_or("no last upgrade")?.result, Ending::RolledBack);
    assert!(status.quarantined.iter().any(|it| it.sha256 == bad.sha256), "{:?}", status.quarantined);
    for client in &old {
        assert_eq!(client.ping().await?.release, "1.0.0");
        assert_eq!(client.counters().dropped, 0, "a connection from before the cut");
    }
    node.upgrade_well("1.2.0").await?;
    node.finish(Clients::WereServed).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_that_takes_too_long_fails_the_rehearsal_and_drops_nobody() -> Result<()> {
    // Nothing is as fast as that.
    let more = "[upgrade]\nrehearsal = \"2s\"\nrehearsal_gap = \"0ms\"\n".to_owned();
    let mut node = UnderLoad::start(Settings { more, ..Settings::default() }).await?;
    let (_, outcome, _) = upgrade(&mut node, &release("1.1.0", Layout::ByKind)?, true).await?;
    let Outcome::RolledBack { reason, .. } = outcome else { return Err(format!("{outcome:?}").into()) };
    assert!(reason.starts_with("rehearsal 1 of 3: cut: nothing was served for "), "{reason}");
    assert!(reason.ends_with(" ms, 0 are allowed"), "{reason}");
    assert_eq!(node.serving().await?.release.as_str(), "1.0.0");
    node.upgrade_well("1.2.0").await?;
    node.finish(Clients::NoticedNothing).await?;
    Ok(())
}

/// Kills the supervisor in this part of a rehearsal: the node serves on, the next supervisor ends it without
/// a verdict, and the upgrade after it, rehearsed as well, works.
async fn killed_in(phase: Phase, part: u8) -> Result<()> {
    let mut node = UnderLoad::start(settings(true)).await?;
    let release = node.world.publish(&release("1.1.0", Layout::ByKind)?)?;
    let request = Request::Upgrade { version: Some(release.version), wait: false, rehearse: false };
    node.world.control().ask(&request, |_, _| ()).await?;
    let there = |status: &Status| {
        status.upgrade.as_ref().is_some_and(|it| it.phase == phase && it.rehearsal == Some(part))
    };
    node.world.control().until("that part of the rehearsal", UPGRADE, there).await?;
    node.world.kill_supervisor()?;
    node.more_writes(30).await?;
    node.world.start_supervisor()?;
    let status = node.world.serving().await?;
    assert_eq!(status.serving.ok_or("nobody serves")?.release.as_str(), "1.0.0");
    let last = status.last.ok_or("it did not end")?;
    assert!(status.quarantined.is_empty(), "it was not to blame: {:?}", status.quarantined);
    let reason = last.reason.unwrap_or_default();
    assert!(reason.contains("rehearsal") && reason.contains("supervisor was replaced"), "{reason}");
    node.more_writes(10).await?;
    node.upgrade_well("1.9.0").await?;
    node.finish(Clients::NoticedNothing).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_supervisor_killed_between_the_cut_and_the_way_back_ends_it_without_a_verdict() -> Result<()> {
    killed_in(Phase::Probation, 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_supervisor_killed_on_the_way_back_ends_it_without_a_verdict() -> Result<()> {
    killed_in(Phase::GoingBack, 2).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_supervisor_killed_before_the_third_cut_ends_it_without_a_verdict() -> Result<()> {
    killed_in(Phase::Starting, 3).await
}

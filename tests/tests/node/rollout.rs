//! Which release comes to which machine and when, with the real programs: groups, pins, stages, and what the
//! history keeps of a decision.

use std::time::Duration;

use bumpless_control::history::{Event, Index};
use bumpless_control::status::Status;
use bumpless_release::Addition;
use bumpless_tests::configuration::Settings;
use bumpless_tests::operator::Operator;
use bumpless_tests::world::{Result, START, World, release, unix_now};
use bumpless_trust::document::{Rollout, RootDocument, Stage};
use bumpless_trust::refresh::sha256;
use bumpless_worker::state::Layout;
use serde_json::Value;

use crate::under_load::UPGRADE;

/// From this moment on to so many of a thousand machines, and to these groups whatever their buckets are.
fn spread(start: u64, permille: u16, canaries: &[&str]) -> Result<Addition> {
    let canaries = canaries.iter().map(|name| name.parse()).collect::<std::result::Result<_, _>>()?;
    let stages = vec![Stage { after: 0, permille }];
    let rollout = Rollout { start, salt: "salt".into(), group: None, canaries, stages };
    Ok(Addition { rollout: Some(rollout), ..Addition::default() })
}

fn publish(world: &mut World, version: &str, addition: Addition) -> Result<()> {
    world.publish_with(&release(version, Layout::ByKind)?, addition)?;
    Ok(())
}

fn serves(version: &'static str) -> impl Fn(&Status) -> bool {
    move |status| {
        let serving = status.serving.as_ref().is_some_and(|worker| worker.release.as_str() == version);
        serving && status.upgrade.is_none()
    }
}

async fn said(operator: &Operator, arguments: &[&str], code: i32) -> Result<String> {
    let said = operator.run(arguments).await?;
    assert_eq!(said.code, code, "bumpless {}: {}", arguments.join(" "), said.all());
    Ok(said.all())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_nought_permille_a_machine_of_the_canary_group_follows_and_another_does_not() -> Result<()> {
    let mut world = World::start(Settings { automatic: true, ..Settings::default() }).await?;
    let (operator, control) = (world.operator(), world.control());
    publish(&mut world, "1.1.0", spread(0, 0, &["canary"])?)?;
    let text = said(&operator, &["check"], 0).await?;
    assert!(text.contains("1.1.0 is not rolled out to this machine yet"), "{text}");
    let status = control.status().await?;
    assert_eq!(status.serving.as_ref().map(|worker| worker.release.as_str()), Some("1.0.0"));
    let rollout = status.rollout.ok_or("no rollout")?;
    assert_eq!((rollout.release.as_str(), rollout.group, rollout.eligible_at), ("1.1.0", None, None));
    assert!(rollout.blocks.is_some_and(|why| why.contains("not rolled out to this machine")));

    world.settings().more = "[rollout]\ngroup = \"canary\"\n".into();
    world.configure()?;
    world.kill_supervisor()?;
    world.start_supervisor()?;
    let status = control.until("1.1.0", UPGRADE, serves("1.1.0")).await?;
    let rollout = status.rollout.ok_or("no rollout")?;
    assert_eq!(
        (rollout.group.as_deref(), rollout.eligible_at, rollout.blocks),
        (Some("canary"), Some(0), None)
    );
    let text = said(&operator, &["status"], 0).await?;
    assert!(text.contains("group canary; open to this machine"), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pin_lets_in_what_is_inside_of_it_and_an_operator_is_told_what_is_not() -> Result<()> {
    let more = "[rollout]\npin = \"1\"\n".into();
    let mut world = World::start(Settings { more, ..Settings::default() }).await?;
    let operator = world.operator();
    publish(&mut world, "1.1.0", Addition::default())?;
    publish(&mut world, "2.0.0", Addition::default())?;
    let text = said(&operator, &["upgrade", "2.0.0"], 3).await?;
    assert!(
        text.contains("2.0.0 is outside of this machine's pin 1; to let it in, change rollout.pin"),
        "{text}"
    );
    said(&operator, &["upgrade"], 0).await?;
    let text = said(&operator, &["status"], 0).await?;
    assert!(text.contains("Release 1.1.0 is serving") && text.contains("pin 1"), "{text}");
    let text = said(&operator, &["upgrade"], 4).await?;
    assert!(text.contains("2.0.0 is outside of this machine's pin 1"), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_opens_between_two_looks_is_acted_on_and_a_restart_moves_neither_bucket_nor_moment()
-> Result<()> {
    // The next look would come in an hour.
    let mut world = World::start(Settings { automatic: true, ..Settings::default() }).await?;
    let (operator, control) = (world.operator(), world.control());
    let opens = unix_now() + 12;
    publish(&mut world, "1.1.0", spread(opens, 1000, &[])?)?;
    said(&operator, &["check"], 0).await?;
    let status = control.status().await?;
    let before = status.rollout.ok_or("no rollout")?;
    assert_eq!((before.release.as_str(), before.eligible_at), ("1.1.0", Some(opens)));
    assert!(before.blocks.is_some_and(|why| why.contains("1.1.0 is not eligible before")));
    assert!(status.next_check.is_some_and(|at| at <= opens + 1), "{:?}, opens {opens}", status.next_check);

    world.kill_supervisor()?;
    world.start_supervisor()?;
    let of_it =
        |status: &Status| status.rollout.as_ref().is_some_and(|rollout| rollout.release.as_str() == "1.1.0");
    let after = control.until("its rollout", START, of_it).await?.rollout.ok_or("no rollout")?;
    assert_eq!((after.bucket, after.eligible_at), (before.bucket, before.eligible_at));

    control.until("1.1.0", Duration::from_secs(12) + UPGRADE, serves("1.1.0")).await?;
    let history = control.history(50).await?;
    let begun = history.iter().rfind(|entry| entry.event == Event::UpgradeStarted).ok_or("none began")?;
    assert!(begun.at >= opens && begun.actor.is_none(), "{begun:?}, opens {opens}");
    let ran = control.status().await?.rollout.ok_or("no rollout")?;
    assert_eq!((ran.bucket, ran.eligible_at, ran.blocks), (before.bucket, Some(opens), None));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_keeps_the_index_and_the_keys_that_an_upgrade_was_decided_on() -> Result<()> {
    let mut world = World::start(Settings::default()).await?;
    let operator = world.operator();
    let first = world.publisher().index().version;
    publish(&mut world, "1.1.0", Addition::default())?;
    said(&operator, &["upgrade"], 0).await?;
    let root: RootDocument = serde_json::from_slice(&std::fs::read(world.publisher().first_root())?)?;
    let index = |world: &World, version: u64| -> Result<Value> {
        let sha256 = sha256(&std::fs::read(world.feed().join(format!("index/{version}.json")))?);
        Ok(serde_json::to_value(Index { version, sha256, keys: root.release.keys.clone() })?)
    };
    let second = world.publisher().index().version;
    assert!(second > first);
    let history = operator.run(&["history", "--json", "-n", "100"]).await?.json().ok_or("no JSON")?;
    let kept = |event: &str, version: &str| -> Vec<Value> {
        let entries = history["history"].as_array().cloned().unwrap_or_default();
        let of_it =
            entries.into_iter().filter(|entry| entry["event"] == event && entry["to"]["version"] == version);
        of_it.map(|entry| entry["index"].clone()).collect()
    };
    for (version, number) in [("1.0.0", first), ("1.1.0", second)] {
        for event in ["upgrade_started", "committed"] {
            assert_eq!(kept(event, version), [index(&world, number)?], "{event} {version}: {history}");
        }
    }
    // A way back was decided on by an operator; what it goes back to has the index that it came with.
    said(&operator, &["rollback"], 0).await?;
    let history = world.control().history(10).await?;
    let back = history.iter().rfind(|entry| entry.event == Event::Committed).ok_or("none committed")?;
    assert_eq!(serde_json::to_value(&back.index)?, index(&world, first)?);
    Ok(())
}

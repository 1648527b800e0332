//! Which release comes to which machine and when, with the real programs: groups, pins, stages, what the
//! history keeps of a decision, and what is foreseen.

use std::time::Duration;

use bumpless_control::history::{Event, Index};
use bumpless_control::status::Status;
use bumpless_release::Addition;
use bumpless_tests::configuration::Settings;
use bumpless_tests::operator::Operator;
use bumpless_tests::tap::Flow;
use bumpless_tests::world::{Result, START, World, release, unix_now};
use bumpless_trust::document::{Rollout, RootDocument, Stage};
use bumpless_trust::refresh::sha256;
use bumpless_worker::state::Layout;
use serde_json::{Value, json};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_says_what_becomes_of_each_release_and_changes_nothing() -> Result<()> {
    let mut world = World::start(Settings::default()).await?;
    let (operator, control) = (world.operator(), world.control());
    publish(&mut world, "1.1.0", Addition::default())?;
    publish(&mut world, "1.2.0", spread(0, 0, &["canary"])?)?;
    publish(&mut world, "1.3.0", Addition::default())?;
    world.publisher().revoke(&"1.3.0".parse()?)?;
    world.publisher().publish(unix_now())?;
    said(&operator, &["check"], 0).await?;
    said(&operator, &["hold", "--reason", "moving racks"], 0).await?;
    let index = world.publisher().index().version;
    // Nobody can be asked.
    world.turn_tap(Flow::Closed);
    let seen = async || -> Result<(Status, String, Vec<_>)> {
        let mut status = control.status().await?;
        // The last heartbeat is another one each time, and times to come are rounded.
        status.serving.as_mut().ok_or("nobody serves")?.figures = None;
        status.next_check = None;
        status.next.as_mut().ok_or("nothing is next")?.at = None;
        let history = said(&operator, &["history", "--json"], 0).await?;
        let mut files: Vec<_> = ["releases", "staging", "trust"]
            .iter()
            .flat_map(|name| std::fs::read_dir(world.state_dir().join(name)).into_iter().flatten())
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        files.sort();
        Ok((status, history, files))
    };
    let before = seen().await?;
    let dry_run = async |arguments: &[&str]| -> Result<Value> {
        let said = operator.run(&[&["upgrade", "--dry-run", "--json"][..], arguments].concat()).await?;
        assert_eq!(said.code, 0, "{}", said.all());
        Ok(said.json().ok_or("no JSON")?["dry_run"].clone())
    };
    let why_not = |foreseen: &Value| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let releases = foreseen["releases"].as_array().cloned().unwrap_or_default();
        releases.iter().map(|one| (text(&one["release"]), text(&one["why_not"]))).collect()
    };
    let foreseen = dry_run(&[]).await?;
    assert_eq!((&foreseen["from"], &foreseen["to"]), (&json!("1.0.0"), &json!("1.1.0")));
    let said_of = why_not(&foreseen);
    let versions: Vec<&str> = said_of.iter().map(|(version, _)| version.as_str()).collect();
    assert_eq!(versions, ["1.3.0", "1.2.0", "1.1.0", "1.0.0"]);
    for (at, part) in [(0, "revoked"), (1, "not rolled out to this machine"), (2, ""), (3, "runs already")] {
        assert!(said_of[at].1.contains(part), "{said_of:?}");
    }
    assert_eq!(foreseen["releases"][2]["chosen"], true);
    assert_eq!(said_of[2].1, "");
    let kinds = |foreseen: &Value| -> Vec<Value> {
        let all = foreseen["obstacles"].as_array().cloned().unwrap_or_default();
        all.iter().map(|one| json!([one["kind"], one["stops"]])).collect()
    };
    assert_eq!(kinds(&foreseen), [json!(["hold", "everybody"]), json!(["manual", "supervisor"])]);
    assert_eq!(foreseen["obstacles"][0]["text"], "moving racks");
    assert_eq!(foreseen["index"]["version"], index);
    assert!(foreseen["checked_at"].is_u64() && foreseen["signed_at"].is_u64(), "{foreseen}");
    // Whoever names a release waits for no stage; a revoked one nobody gets.
    let foreseen = dry_run(&["1.2.0"]).await?;
    assert_eq!((&foreseen["asked"], &foreseen["to"]), (&json!("1.2.0"), &json!("1.2.0")));
    assert_eq!(why_not(&foreseen)[2], ("1.1.0".into(), "1.2.0 is asked for".into()));
    let foreseen = dry_run(&["1.3.0"]).await?;
    assert_eq!(
        (&foreseen["to"], &foreseen["why_not"]),
        (&Value::Null, &json!("1.3.0 is revoked by the publisher"))
    );
    assert!(kinds(&foreseen).is_empty(), "{foreseen}");
    let text = said(&operator, &["upgrade", "--dry-run"], 0).await?;
    for part in ["bumpless upgrade would be refused now", "Upgrades are HELD", "1.3.0", "chosen"] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    assert_eq!(seen().await?, before, "a dry run has changed something");

    // And then it comes as it was said.
    world.turn_tap(Flow::Open);
    said(&operator, &["unhold"], 0).await?;
    let text = said(&operator, &["upgrade", "--no-wait"], 0).await?;
    assert!(text.contains("from 1.0.0 to 1.1.0"), "{text}");
    assert_eq!(kinds(&dry_run(&[]).await?)[0], json!(["busy", "everybody"]));
    control.until("1.1.0", UPGRADE, serves("1.1.0")).await?;
    Ok(())
}

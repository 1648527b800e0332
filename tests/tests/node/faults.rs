//! Every kind of faulty release ends as it should, and the upgrade after it works.
//!
//! | fault | end | clients |
//! |---|---|---|
//! | dies or hangs at its start, speaks another contract, stalls the sync | failed | notice nothing |
//! | dies, hangs or answers wrongly after the cut | rolled back | are served |
//! | refuses reads after the cut | rolled back | were refused for a moment |

use std::time::Duration;

use bumpless_control::reply::Outcome;
use bumpless_control::status::Ending;
use bumpless_shared::version::Range;
use bumpless_tests::configuration::Settings;
use bumpless_tests::world::{Result, faulty};
use bumpless_worker::faults::{AfterCut, Answers, AtStart, Faults, InSync};

use crate::under_load::{Clients, UnderLoad};

fn impatient() -> Settings {
    Settings {
        start_deadline: Duration::from_secs(3),
        sync_stall: Duration::from_secs(2),
        ..Settings::default()
    }
}

/// Fails before the cut: the old worker is the same process as before, on the same term.
async fn fails_before_the_cut(node: &mut UnderLoad, version: &str, faults: Faults) -> Result<()> {
    let before = node.serving().await?;
    let (release, outcome) = node.upgrade(&faulty(version, faults)?).await?;
    assert!(matches!(outcome, Outcome::Failed { .. }), "{outcome:?}");
    let status = node.status().await?;
    let after = status.serving.ok_or("nobody serves")?;
    assert_eq!((after.pid, after.instance, after.term), (before.pid, before.instance, before.term));
    assert_eq!(status.standby, None);
    let last = status.last.ok_or("no last upgrade")?;
    assert_eq!((last.result, last.to.as_str()), (Ending::Failed, version));
    assert!(last.reason.is_some_and(|reason| !reason.is_empty()));
    let quarantined = status.quarantined.iter().find(|it| it.sha256 == release.sha256);
    assert!(quarantined.is_some_and(|it| !it.reason.is_empty()), "{:?}", status.quarantined);
    Ok(())
}

/// Fails after the cut: the old worker is the same process, on a higher term.
async fn fails_after_the_cut(node: &mut UnderLoad, version: &str, faults: Faults) -> Result<()> {
    let before = node.serving().await?;
    let (release, outcome) = node.upgrade(&faulty(version, faults)?).await?;
    assert!(matches!(outcome, Outcome::RolledBack { .. }), "{outcome:?}");
    let status = node.status().await?;
    let after = status.serving.ok_or("nobody serves")?;
    assert_eq!((after.pid, after.instance), (before.pid, before.instance));
    assert!(after.term > before.term, "{:?} after {:?}", after.term, before.term);
    assert_eq!(status.standby, None);
    let last = status.last.ok_or("no last upgrade")?;
    assert_eq!((last.result, last.to.as_str()), (Ending::RolledBack, version));
    assert!(status.quarantined.iter().any(|it| it.sha256 == release.sha256), "{:?}", status.quarantined);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_dies_or_hangs_at_its_start_is_never_noticed() -> Result<()> {
    let mut node = UnderLoad::start(impatient()).await?;
    let dies = Faults { at_start: Some(AtStart::Die), ..Faults::default() };
    fails_before_the_cut(&mut node, "1.1.0", dies).await?;
    let output = node.status().await?.quarantined.remove(0).output;
    assert!(output.contains("made to die at its start"), "its last words: {output:?}");
    let hangs = Faults { at_start: Some(AtStart::Hang), ..Faults::default() };
    fails_before_the_cut(&mut node, "1.2.0", hangs).await?;
    node.upgrade_well("1.3.0").await?;
    node.finish(Clients::NoticedNothing).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_cannot_talk_or_never_gets_level_is_never_noticed() -> Result<()> {
    let mut node = UnderLoad::start(impatient()).await?;
    let stranger = Faults { contract: Some(Range { min: 900, max: 901 }), ..Faults::default() };
    fails_before_the_cut(&mut node, "1.1.0", stranger).await?;
    let reason = node.status().await?.quarantined.remove(0).reason;
    assert!(reason.contains("900") && reason.contains('1'), "both ranges are named: {reason}");
    let stalls = Faults { sync: Some(InSync::Stall), ..Faults::default() };
    fails_before_the_cut(&mut node, "1.2.0", stalls).await?;
    node.upgrade_well("1.3.0").await?;
    node.finish(Clients::NoticedNothing).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_dies_or_hangs_after_the_cut_is_rolled_back_without_a_loss() -> Result<()> {
    let mut node = UnderLoad::start(impatient()).await?;
    let dies = Faults { after_cut: Some(AfterCut::Die(1000)), ..Faults::default() };
    fails_after_the_cut(&mut node, "1.1.0", dies).await?;
    let output = node.status().await?.quarantined.remove(0).output;
    assert!(output.contains("made to die"), "its last words: {output:?}");
    node.more_writes(20).await?;
    let hangs = Faults { after_cut: Some(AfterCut::Hang(1000)), ..Faults::default() };
    fails_after_the_cut(&mut node, "1.2.0", hangs).await?;
    node.upgrade_well("1.3.0").await?;
    node.finish(Clients::WereServed).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_answers_wrongly_is_rolled_back_and_quarantined_at_once() -> Result<()> {
    // Three tries are allowed, but not for wrong data.
    let mut node = UnderLoad::start(Settings { attempts: 3, ..impatient() }).await?;
    let wrong = Faults { answers: Some(Answers::Wrong), ..Faults::default() };
    fails_after_the_cut(&mut node, "1.1.0", wrong).await?;
    node.upgrade_well("1.2.0").await?;
    node.finish(Clients::WereServed).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_refuses_reads_is_rolled_back() -> Result<()> {
    let mut node = UnderLoad::start(impatient()).await?;
    let refuses = Faults { answers: Some(Answers::Refuse), ..Faults::default() };
    fails_after_the_cut(&mut node, "1.1.0", refuses).await?;
    node.upgrade_well("1.2.0").await?;
    node.finish(Clients::WereRefused).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_release_is_tried_as_often_as_configured_and_never_again() -> Result<()> {
    let settings = Settings {
        attempts: 2,
        automatic: true,
        check_every: Duration::from_secs(1),
        more: "[upgrade]\nretry_after = [\"500ms\"]\n".to_owned(),
        ..impatient()
    };
    let mut node = UnderLoad::start(settings).await?;
    let dies = Faults { at_start: Some(AtStart::Die), ..Faults::default() };
    let bad = node.world.publish(&faulty("1.1.0", dies)?)?;
    let control = node.world.control();
    let quarantined = |status: &bumpless_control::status::Status| {
        status.quarantined.iter().any(|it| it.sha256 == bad.sha256) && status.upgrade.is_none()
    };
    control.until("the quarantine", Duration::from_secs(30), quarantined).await?;
    // The next look at the feed passes it over for the same reason, in words.
    let checked = node.world.operator().run(&["check"]).await?;
    assert!(checked.all().contains("quarantined"), "{}", checked.all());
    let starts = |entries: &[bumpless_control::history::Entry]| {
        let of_bad =
            entries.iter().filter(|entry| entry.to.as_ref().is_some_and(|to| to.sha256 == bad.sha256));
        of_bad.filter(|entry| entry.event == bumpless_control::history::Event::UpgradeStarted).count()
    };
    assert_eq!(starts(&control.history(100).await?), 2);
    // A later release is taken without being asked for.
    let good = node
        .world
        .publish(&bumpless_tests::world::release("1.2.0", bumpless_worker::state::Layout::ByKind)?)?;
    let committed = |status: &bumpless_control::status::Status| {
        status.serving.as_ref().is_some_and(|it| it.sha256 == good.sha256) && status.upgrade.is_none()
    };
    control.until("1.2.0", Duration::from_secs(30), committed).await?;
    assert_eq!(starts(&control.history(100).await?), 2);
    node.finish(Clients::NoticedNothing).await?;
    Ok(())
}

//! Releases that do what no sound one does: the old worker serves on, memory stays bounded, the reason is
//! told, and the next upgrade works.
//!
//! | what it does | end |
//! |---|---|
//! | acknowledges and stores nothing | rolled back, never tried again; what it alone acknowledged is lost |
//! | messages without end, or none that can be read, on link and control channel | bad |
//! | lays hands on the old worker's files | README says what holds then |

use std::collections::BTreeSet;
use std::time::Duration;

use bumpless_control::history::Event;
use bumpless_control::status::{Ending, Last};
use bumpless_shared::operation::LONGEST_RECORD;
use bumpless_tests::configuration::Settings;
use bumpless_tests::load::{read_back, read_back_these};
use bumpless_tests::process::peak_resident;
use bumpless_tests::world::{Result, faulty};
use bumpless_worker::faults::{Deed, Does, Faults, Files, Flood, Harm, Keeps, Place, Step, Wire};

use crate::under_load::{Clients, UnderLoad};

/// Long enough that whoever is bad on probation is judged, not committed.
fn watched() -> Settings {
    Settings { probation: Duration::from_secs(4), ..Settings::default() }
}

/// Memory that nobody may grow by, whoever floods him.
const GROWTH: u64 = 40 << 20;

/// What an operator is told has these words.
async fn says(node: &UnderLoad, words: &str) -> Result<()> {
    let entries = node.world.control().history(50).await?;
    let told =
        entries.iter().filter(|entry| entry.event == Event::Alarm).filter_map(|entry| entry.reason.as_ref());
    let told: Vec<&String> = told.collect();
    assert!(told.iter().any(|alarm| alarm.contains(words)), "{words:?} is not in {told:?}");
    Ok(())
}

/// Upgrades to a release that does this at that moment.
async fn upgrade_to(node: &mut UnderLoad, version: &str, at: (Step, Place), does: Does) -> Result<Last> {
    let release = node.begin(&faulty(version, Faults::default().at(at.0, at.1, does))?).await?;
    node.ended(&release).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_acknowledges_and_does_not_store_is_found_out_and_never_tried_again() -> Result<()> {
    let mut node = UnderLoad::start(Settings { attempts: 3, ..watched() }).await?;
    let before: BTreeSet<u64> = node.load.oracle().all().into_iter().collect();
    let keeps_nothing = Faults { keeps: Some(Keeps::Nothing), ..Faults::default() };
    let release = node.begin(&faulty("1.1.0", keeps_nothing)?).await?;
    let last = node.ended(&release).await?;
    assert_eq!(last.result, Ending::RolledBack, "{last:?}");
    let reason = last.reason.unwrap_or_default();
    assert!(reason.contains("acknowledged") && reason.contains("logbook"), "{reason}");
    assert!(node.status().await?.quarantined.iter().any(|it| it.sha256 == release.sha256));
    let until: BTreeSet<u64> = node.load.oracle().all().into_iter().collect();
    node.more_writes(20).await?;
    node.upgrade_well("1.2.0").await?;
    // What was acknowledged before and after is there; in between it was its word alone.
    let client = node.world.client().await?;
    let all = node.load.oracle().all();
    let held: Vec<u64> =
        all.into_iter().filter(|number| before.contains(number) || !until.contains(number)).collect();
    assert!(held.len() >= before.len() + 20);
    let lost = read_back_these(&client, node.load.oracle(), held).await;
    assert!(lost.is_empty(), "{lost:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_floods_the_link_after_the_cut_is_judged_bad_and_fills_nobodys_memory() -> Result<()> {
    let mut node = UnderLoad::start(watched()).await?;
    let old = node.serving().await?.pid as u32;
    let before = peak_resident(old)?;
    for (version, flood) in [("1.1.0", Flood::Notes), ("1.2.0", Flood::Answers), ("1.3.0", Flood::Credit)] {
        let at = (Step::Take, Place::After);
        let last = upgrade_to(&mut node, version, at, Does::Do(Deed::Flood(flood))).await?;
        assert_eq!(last.result, Ending::RolledBack, "{flood:?}: {last:?}");
        assert!(last.reason.as_ref().is_some_and(|why| why.contains("out of turn")), "{flood:?}: {last:?}");
        assert_eq!(node.serving().await?.pid as u32, old);
    }
    let grown = peak_resident(old)?.saturating_sub(before);
    assert!(grown < GROWTH, "the old worker grew by {grown} bytes");
    node.upgrade_well("1.9.0").await?;
    node.finish(Clients::WereServed).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_floods_before_the_cut_is_never_noticed() -> Result<()> {
    let mut node = UnderLoad::start(watched()).await?;
    let (old, supervisor) = (node.serving().await?.pid as u32, node.world.supervisor()?.pid());
    let before = [peak_resident(old)?, peak_resident(supervisor)?];
    for (version, flood) in [
        ("1.1.0", Flood::Notes),
        ("1.2.0", Flood::Answers),
        ("1.3.0", Flood::Credit),
        ("1.4.0", Flood::Reports),
    ] {
        let faults = match flood {
            // It does not get level meanwhile: who does is found out after the cut, by the same rule.
            Flood::Reports => Faults::default()
                .at(Step::Sync, Place::Before, Does::Do(Deed::Flood(flood)))
                .at(Step::Level, Place::Before, Does::Pause(60_000)),
            Flood::Notes | Flood::Answers | Flood::Credit | Flood::Records => {
                Faults::default().at(Step::Level, Place::Before, Does::Do(Deed::Flood(flood)))
            }
        };
        let release = node.begin(&faulty(version, faults)?).await?;
        let last = node.ended(&release).await?;
        assert_eq!(last.result, Ending::Failed, "{flood:?}: {last:?}");
        let why = match flood {
            Flood::Reports => "closed its control channel",
            Flood::Notes | Flood::Answers | Flood::Credit | Flood::Records => "out of turn",
        };
        assert!(last.reason.as_ref().is_some_and(|reason| reason.contains(why)), "{flood:?}: {last:?}");
        assert_eq!(node.serving().await?.pid as u32, old);
    }
    says(&node, "reports without a pause").await?;
    for (pid, before) in [old, supervisor].into_iter().zip(before) {
        let grown = peak_resident(pid)?.saturating_sub(before);
        assert!(grown < GROWTH, "process {pid} grew by {grown} bytes");
    }
    node.upgrade_well("1.9.0").await?;
    node.finish(Clients::NoticedNothing).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_floods_the_supervisor_on_probation_is_judged_bad_and_operators_are_answered() -> Result<()> {
    let mut node = UnderLoad::start(watched()).await?;
    let (old, supervisor) = (node.serving().await?.pid, node.world.supervisor()?.pid());
    let before = peak_resident(supervisor)?;
    let at = (Step::Take, Place::After);
    let last = upgrade_to(&mut node, "1.1.0", at, Does::Do(Deed::Flood(Flood::Reports))).await?;
    assert_eq!(last.result, Ending::RolledBack, "{last:?}");
    assert_eq!(node.serving().await?.pid, old);
    let grown = peak_resident(supervisor)?.saturating_sub(before);
    assert!(grown < GROWTH, "the supervisor grew by {grown} bytes");
    node.upgrade_well("1.9.0").await?;
    node.finish(Clients::WereServed).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_writes_records_without_end_is_taken_back_when_the_logbook_has_grown_too_far() -> Result<()> {
    let more = "[upgrade]\nreserve = \"1MiB\"\nmax_logbook = \"8MiB\"\n".to_owned();
    let mut node = UnderLoad::start(Settings { more, ..watched() }).await?;
    let at = (Step::Take, Place::After);
    let last = upgrade_to(&mut node, "1.1.0", at, Does::Do(Deed::Flood(Flood::Records))).await?;
    assert_eq!(last.result, Ending::RolledBack, "{last:?}");
    assert!(last.reason.as_ref().is_some_and(|why| why.contains("logbook")), "{last:?}");
    node.upgrade_well("1.9.0").await?;
    node.finish(Clients::WereServed).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_what_is_no_message_is_judged_bad_wherever_it_sends_it() -> Result<()> {
    let mut node = UnderLoad::start(watched()).await?;
    let old = node.serving().await?.pid;
    for (version, at, wire) in [
        ("1.1.0", (Step::Level, Place::Before), Wire::Link),
        ("1.2.0", (Step::Level, Place::Before), Wire::Control),
        ("1.3.0", (Step::Take, Place::After), Wire::Link),
        ("1.4.0", (Step::Take, Place::After), Wire::Stream),
        ("1.5.0", (Step::Take, Place::After), Wire::Control),
    ] {
        let last = upgrade_to(&mut node, version, at, Does::Do(Deed::Garbage(wire))).await?;
        let ended = match at.0 {
            Step::Take => Ending::RolledBack,
            _ => Ending::Failed,
        };
        assert_eq!(last.result, ended, "{wire:?} {at:?}: {last:?}");
        match wire {
            Wire::Control => says(&node, "no report").await?,
            Wire::Link | Wire::Stream => {
                let why = last.reason.unwrap_or_default();
                assert!(why.contains("sent something wrong"), "{wire:?} {at:?}: {why}");
            }
        }
        assert_eq!(node.serving().await?.pid, old, "{wire:?} {at:?}");
        node.more_writes(5).await?;
    }
    node.upgrade_well("1.9.0").await?;
    node.finish(Clients::WereServed).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_harms_the_old_workers_logbook_harms_nobody() -> Result<()> {
    let mut node = UnderLoad::start(watched()).await?;
    let old = node.serving().await?.pid;
    for (version, harm) in [("1.1.0", Harm::Scribble), ("1.2.0", Harm::Truncate), ("1.3.0", Harm::Delete)] {
        // After the cut nobody needs it: the old worker's database has all that is in it.
        let plan = Faults::default()
            .at(Step::Take, Place::After, Does::Do(Deed::Harm(Files::Logbook, harm)))
            .at(Step::Take, Place::After, Does::Later(500, Deed::Exit));
        let release = node.begin(&faulty(version, plan)?).await?;
        let last = node.ended(&release).await?;
        assert_eq!(last.result, Ending::RolledBack, "{harm:?}: {last:?}");
        assert_eq!(node.serving().await?.pid, old);
        node.more_writes(5).await?;
    }
    node.upgrade_well("1.9.0").await?;
    node.finish(Clients::WereServed).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_damages_chunk_files_that_both_share_is_judged_bad_and_no_client_gets_wrong_content() -> Result<()>
{
    for harm in [Harm::Scribble, Harm::Truncate] {
        let mut node = UnderLoad::start(watched()).await?;
        let old = node.serving().await?.pid;
        let at = (Step::Take, Place::After);
        let last = upgrade_to(&mut node, "1.1.0", at, Does::Do(Deed::Harm(Files::Chunks, harm))).await?;
        assert_eq!(last.result, Ending::RolledBack, "{harm:?}: {last:?}");
        assert!(last.reason.as_ref().is_some_and(|why| why.contains("get of")), "{harm:?}: {last:?}");
        assert_eq!(node.serving().await?.pid, old);
        node.more_writes(20).await?;
        // What was in the damaged files cannot be read, and the rest can: no byte of it is another.
        let (client, oracle) = (node.world.client().await?, node.load.oracle());
        let lost = read_back(&client, oracle).await;
        assert!(!lost.is_empty(), "nothing was damaged");
        for (number, why) in lost {
            let long = oracle.content(number).len() > LONGEST_RECORD;
            assert!(long && why.contains("the node refused"), "{number}: {why}");
        }
    }
    Ok(())
}

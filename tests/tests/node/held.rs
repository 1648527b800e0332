//! Every step of a hand-over held open from outside, and what a worker does that goes no further.

use std::time::Duration;

use bumpless_control::status::Ending;
use bumpless_tests::configuration::Settings;
use bumpless_tests::gate::Gate;
use bumpless_tests::world::{Result, faulty};
use bumpless_worker::faults::Place::{After, Before};
use bumpless_worker::faults::Role::{New, Old};
use bumpless_worker::faults::{AfterCut, Deed, Does, Faults, Place, Role, Step};

use crate::under_load::{Clients, UnderLoad};

/// Longest way from one step to the next.
const SOON: Duration = Duration::from_secs(20);

fn quick() -> Settings {
    Settings { probation: Duration::from_secs(1), ..Settings::default() }
}

/// A plan with a gate at each of these places, and the gates.
fn gates(
    node: &UnderLoad,
    plan: Faults,
    role: Role,
    places: &[(Step, Place)],
) -> Result<(Faults, Vec<(String, Gate)>)> {
    let mut gates = Vec::new();
    let mut all = plan;
    for (step, place) in places {
        let name = format!("{role:?}-{step:?}-{place:?}");
        let gate = Gate::new(node.world.folder(), &name)?;
        all = all.at_as(role, *step, *place, gate.holds());
        gates.push((name, gate));
    }
    Ok((all, gates))
}

/// Walks through gates in this order.
async fn walk(gates: &mut [(String, Gate)]) -> Result<()> {
    for (name, gate) in gates {
        gate.reached(SOON).await.map_err(|error| format!("{name}: {error}"))?;
        gate.open()?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_of_the_new_and_of_the_old_worker_can_be_held_open_and_goes_on() -> Result<()> {
    let mut node = UnderLoad::start(quick()).await?;
    let new = [
        (Step::Start, Before),
        (Step::Start, After),
        (Step::Go, Before),
        (Step::Pair, Before),
        (Step::Level, Before),
        (Step::Level, After),
        (Step::Mark, Before),
        (Step::Mark, After),
        (Step::Prepare, Before),
        (Step::Prepare, After),
        (Step::Take, Before),
        (Step::Take, After),
        (Step::Persist, Before),
        (Step::Persist, After),
        (Step::Commit, Before),
        (Step::Commit, After),
    ];
    let handing_over = [
        (Step::Pair, Before),
        (Step::Mark, Before),
        (Step::Mark, After),
        (Step::Cut, Before),
        (Step::Yield, Before),
        (Step::Yield, After),
        (Step::Resign, Before),
        (Step::Resign, After),
    ];
    let taking_back = [
        (Step::Resume, Before),
        (Step::Resume, After),
        (Step::Persist, Before),
        (Step::Persist, After),
        (Step::Remove, Before),
        (Step::Remove, After),
    ];
    let leaving =
        [(Step::Retire, Before), (Step::Retire, After), (Step::Drain, Before), (Step::Drain, After)];
    let (plan, mut as_new) = gates(&node, Faults::default(), New, &new)?;
    let (plan, mut first) = gates(&node, plan, Old, &handing_over)?;
    let (plan, mut back) = gates(&node, plan, Old, &taking_back)?;
    let (plan, mut last) = gates(&node, plan, Old, &leaving)?;

    let release = node.begin(&faulty("1.1.0", plan)?).await?;
    walk(&mut as_new).await?;
    // Its first order as a holder that was committed; the tidying after the upgrade is one.
    back[2].1.reached(SOON).await?;
    back[2].1.open()?;
    for (_, gate) in &mut back[3..] {
        gate.reached(SOON).await?;
        gate.open()?;
    }
    assert_eq!(node.ended(&release).await?.result, Ending::Committed);

    let dies = Faults { after_cut: Some(AfterCut::Die(300)), ..Faults::default() };
    let release = node.begin(&faulty("1.2.0", dies)?).await?;
    walk(&mut first).await?;
    walk(&mut back[..2]).await?;
    assert_eq!(node.ended(&release).await?.result, Ending::RolledBack);

    let release = node.begin(&faulty("1.3.0", Faults::default())?).await?;
    walk(&mut last).await?;
    assert_eq!(node.ended(&release).await?.result, Ending::Committed);
    node.finish(Clients::WereServed).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_worker_that_stops_or_ends_at_a_step_is_taken_back_and_nothing_is_lost() -> Result<()> {
    let mut node = UnderLoad::start(quick()).await?;
    for (version, step, place, deed, result) in [
        ("1.1.0", Step::Level, Before, Deed::Exit, Ending::Failed),
        ("1.2.0", Step::Take, Before, Deed::Stop, Ending::RolledBack),
        ("1.3.0", Step::Take, After, Deed::Exit, Ending::RolledBack),
        ("1.4.0", Step::Persist, After, Deed::Stop, Ending::RolledBack),
    ] {
        let release =
            node.begin(&faulty(version, Faults::default().at(step, place, Does::Do(deed)))?).await?;
        let last = node.ended(&release).await?;
        assert_eq!(last.result, result, "{deed:?} {place:?} {step:?}: {:?}", last.reason);
        node.more_writes(10).await?;
    }
    node.upgrade_well("1.9.0").await?;
    node.finish(Clients::WereServed).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_closes_while_both_live_ends_the_upgrade_and_nothing_else() -> Result<()> {
    let mut node = UnderLoad::start(quick()).await?;
    for (version, step, place, does, result) in [
        ("1.1.0", Step::Level, Before, Does::Do(Deed::CloseLink), &[Ending::Undecided][..]),
        // The order to cut and the news of it may cross.
        ("1.2.0", Step::Prepare, After, Does::Do(Deed::CloseLink), &[Ending::Undecided, Ending::RolledBack]),
        ("1.3.0", Step::Take, After, Does::Later(100, Deed::CloseLink), &[Ending::RolledBack]),
    ] {
        let before = node.serving().await?;
        let release = node.begin(&faulty(version, Faults::default().at(step, place, does))?).await?;
        let last = node.ended(&release).await?;
        assert!(result.contains(&last.result), "{place:?} {step:?}: {last:?}");
        assert!(last.reason.as_ref().is_some_and(|why| why.contains("link")), "{:?}", last.reason);
        assert_eq!(node.serving().await?.pid, before.pid);
        node.more_writes(10).await?;
    }
    node.upgrade_well("1.9.0").await?;
    node.finish(Clients::WereServed).await?;
    Ok(())
}

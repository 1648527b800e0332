//! A release of version 1 of contract and state, and one of version 2, under one supervisor.

use std::time::Duration;

use bumpless_control::reply::Outcome;
use bumpless_control::request::Request;
use bumpless_control::status::Ending;
use bumpless_tests::configuration::Settings;
use bumpless_tests::load::Plan;
use bumpless_tests::world::{Result, earlier, release};
use bumpless_worker::client::{RequestError, name_of};
use bumpless_worker::state::Layout;

use crate::under_load::{Clients, PLAN, UPGRADE, UnderLoad};

/// What both versions know.
const BOTH: Plan = Plan { appends_permille: 0, ..PLAN };

/// To the release before, to the end of everything that belongs to it.
async fn go_back(node: &mut UnderLoad) -> Result<Outcome> {
    let control = node.world.control();
    let asked = control.ask(&Request::Rollback { wait: true }, |_, _| ());
    let outcome = tokio::time::timeout(UPGRADE, asked).await??;
    node.world.serving().await?;
    Ok(outcome)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_way_back_after_the_commit_leads_over_both_layouts_and_both_versions_until_version_2_is_used()
-> Result<()> {
    let settings = Settings { probation: Duration::from_secs(1), ..Settings::default() };
    let first = earlier("1.0.0", Layout::ByName)?;
    let mut node = UnderLoad::start_with(settings, &first, BOTH).await?;
    let log = name_of(b"diary");
    let unknown = node.world.client().await?.append(log, b"too early").await;
    assert!(matches!(unknown, Err(RequestError::Protocol { .. })), "{unknown:?}");

    node.upgrade_well("1.1.0").await?;
    node.more_writes(20).await?;
    for expected in ["1.0.0", "1.1.0"] {
        let outcome = go_back(&mut node).await?;
        assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
        assert_eq!(node.serving().await?.release.as_str(), expected);
        node.more_writes(20).await?;
    }

    // From here on version 2 is needed.
    let client = node.world.client().await?;
    for index in 0..3 {
        assert_eq!(client.append(log, b"an entry").await?, index);
    }
    let before = node.serving().await?;
    let outcome = go_back(&mut node).await?;
    let Outcome::Failed { reason } = &outcome else { panic!("{outcome:?}") };
    for part in ["3 appends", "version 2", "version 1"] {
        assert!(reason.contains(part), "{part:?} is not in {reason:?}");
    }
    let status = node.status().await?;
    let after = status.serving.ok_or("nobody serves")?;
    assert_eq!((after.pid, after.instance, after.term), (before.pid, before.instance, before.term));
    let last = status.last.ok_or("no last upgrade")?;
    assert!(last.result != Ending::Committed && last.reason.is_some_and(|why| why.contains("3 appends")));
    assert_eq!(client.append(log, b"an entry").await?, 3);

    let (_, outcome) = node.upgrade(&release("1.2.0", Layout::ByName)?).await?;
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    let page = node.world.client().await?.read_log(log, 0).await?;
    assert_eq!((page.length, page.entries), (4, vec![b"an entry".to_vec(); 4]));
    assert_eq!(client.counters().dropped, 0);
    node.finish(Clients::NoticedNothing).await?;
    Ok(())
}

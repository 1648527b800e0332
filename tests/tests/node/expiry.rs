//! What was verified expires: an alarm, until something newer is verified. The worker takes no notice.

use std::time::Duration;

use bumpless_control::history::Event;
use bumpless_control::status::Status;
use bumpless_tests::configuration::Settings;
use bumpless_tests::tap::Flow;
use bumpless_tests::world::{Result, unix_now};

use crate::under_load::{Clients, UnderLoad};

const DAY: u64 = 24 * 3600;

/// Much less than until the next look after one that failed, which is a minute, or went well, an hour.
const AT_ONCE: Duration = Duration::from_secs(30);

fn of_expiry(text: &str) -> bool {
    text.contains("the timestamp expired")
}

fn alarms(status: &Status) -> usize {
    status.alarms.iter().filter(|alarm| of_expiry(&alarm.text)).count()
}

/// How often it was told.
async fn told(node: &UnderLoad) -> Result<usize> {
    let entries = node.world.control().history(1000).await?;
    let alarms = entries.iter().filter(|entry| entry.event == Event::Alarm);
    Ok(alarms.filter(|entry| entry.reason.as_deref().is_some_and(of_expiry)).count())
}

/// The supervisor's clock is so many days ahead from now on. Timestamps are valid for three.
fn days_on(node: &UnderLoad, days: u64) -> Result<()> {
    Ok(node.world.injected().step_clock(i64::try_from(days * DAY)?)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timestamp_that_expires_while_the_feed_is_silent_is_an_alarm_until_a_fresh_one_is_verified()
-> Result<()> {
    let mut node = UnderLoad::start(Settings::default()).await?;
    node.upgrade_well("1.1.0").await?;
    let before = node.serving().await?;
    node.world.turn_tap(Flow::Closed);
    days_on(&node, 4)?;
    let control = node.world.control();
    let status = control.until("the alarm", AT_ONCE, |status| alarms(status) > 0).await?;
    assert!(status.feed.is_some_and(|feed| feed.error.is_some()), "it was asked once more before that");
    let text =
        status.alarms.into_iter().map(|alarm| alarm.text).find(|text| of_expiry(text)).ok_or("none")?;
    assert!(text.contains("1.1.0 serves on. Nothing new is installed until"), "{text}");
    assert_eq!(node.serving().await?.pid, before.pid);
    node.more_writes(20).await?;

    // An upgrade that goes well ends alarms, and not this one. What is installed needs no feed.
    let operator = node.world.operator();
    assert_eq!(operator.run(&["check"]).await?.code, 5);
    assert_eq!(operator.run(&["rollback"]).await?.code, 0);
    assert_eq!(alarms(&node.status().await?), 1);
    assert_eq!(told(&node).await?, 1);

    node.world.turn_tap(Flow::Open);
    node.world.publisher().timestamp(unix_now() + 4 * DAY)?;
    assert_eq!(operator.run(&["check"]).await?.code, 0);
    assert_eq!(alarms(&node.status().await?), 0);
    node.finish(Clients::NoticedNothing).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timestamp_that_expires_between_two_looks_is_no_alarm_if_the_feed_has_a_fresh_one_and_one_if_not()
-> Result<()> {
    let mut node = UnderLoad::start(Settings::default()).await?;
    let control = node.world.control();
    let looked_after = |at: u64| {
        move |status: &Status| {
            status.feed.as_ref().is_some_and(|feed| feed.checked_at.is_some_and(|checked| checked > at))
        }
    };
    node.world.publisher().timestamp(unix_now() + 2 * DAY)?;
    days_on(&node, 4)?;
    let status = control.until("a look", AT_ONCE, looked_after(unix_now() + 3 * DAY)).await?;
    assert_eq!(status.feed.and_then(|feed| feed.error), None);
    assert_eq!((alarms(&node.status().await?), told(&node).await?), (0, 0));

    // Nobody renews it, and the feed answers with what it has.
    days_on(&node, 10)?;
    let status = control.until("the alarm", AT_ONCE, |status| alarms(status) > 0).await?;
    assert!(status.feed.and_then(|feed| feed.error).is_some_and(|why| of_expiry(&why)));
    assert_eq!((alarms(&node.status().await?), told(&node).await?), (1, 1));
    node.more_writes(20).await?;

    // A supervisor that starts with something expired looks first; if nothing answers, it says so again.
    node.world.turn_tap(Flow::Closed);
    node.world.kill_supervisor()?;
    node.world.start_supervisor()?;
    control.until("the alarm of the new one", AT_ONCE, |status| alarms(status) > 0).await?;
    node.world.turn_tap(Flow::Open);
    node.world.publisher().timestamp(unix_now() + 10 * DAY)?;
    node.world.kill_supervisor()?;
    node.world.start_supervisor()?;
    control.until("a look that goes through", AT_ONCE, looked_after(unix_now() + 9 * DAY)).await?;
    assert_eq!((alarms(&node.status().await?), told(&node).await?), (0, 2));
    node.finish(Clients::NoticedNothing).await?;
    Ok(())
}

//! `cargo handover`: what clients notice of an upgrade, measured.
//!
//! ```text
//!   storage alone ▸ a node with so many records ▸ syncs without load ▸ chunk files
//!     ▸ rounds (upgrade, reverse, kill, restart, under an open-loop load) ▸ the supervisor at rest
//! ```
//!
//! Everything is real: the release is signed, fetched, verified and installed for each upgrade, the
//! clients are QUIC clients on the loopback, and every write that was acknowledged is read back.
//! Latency counts from the moment at which a request was meant to be sent.

pub mod arguments;
pub mod figures;
pub mod preload;
pub mod report;
pub mod round;
pub mod row;
pub mod storage;
pub mod story;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bumpless_control::status::Phase;
use bumpless_worker::client::{Client, Options};
use clap::Parser;

use self::arguments::Arguments;
use self::figures::Spread;
use self::report::{Report, Rest, Sync};
use self::round::{Bench, Rounds};
use self::story::Story;
use crate::configuration::Settings;
use crate::content::Contents;
use crate::display::{Display, thousands};
use crate::leftovers;
use crate::oracle::Oracle;
use crate::process;
use crate::world::{Result, World};

/// Bytes of a record.
const RECORD: usize = 200;
/// The supervisor is watched at rest for so long.
const REST: Duration = Duration::from_secs(10);
/// Longest that a supervisor may take to stop.
const STOP: Duration = Duration::from_secs(40);

/// The program.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no runtime: {error}")),
    };
    let told = runtime.block_on(async {
        tokio::select! {
            told = run(&arguments) => Some(told),
            _ = tokio::signal::ctrl_c() => None,
        }
    });
    match told {
        None => fail("interrupted; every process that the benchmark had started was ended"),
        Some(Err(error)) => fail(&error.to_string()),
        Some(Ok(report)) => {
            if arguments.json {
                println!("{}", report.json());
            } else {
                report.table().iter().for_each(|line| println!("{line}"));
            }
            match report.broken() {
                None => ExitCode::SUCCESS,
                Some(why) => fail(&why),
            }
        }
    }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("\ncargo handover: {why}");
    ExitCode::FAILURE
}

/// Runs the benchmark.
///
/// # Errors
/// It could not be run to its end.
pub async fn run(arguments: &Arguments) -> Result<Report> {
    let mut display = Display::new();
    display.heading("bumpless: what clients notice of an upgrade (nothing else should run meanwhile)");
    if let Some(upgrades) = arguments.row {
        let row = row::run(upgrades, arguments.rate, &mut display).await?;
        return Ok(Report { row: Some(row), ..Report::default() });
    }
    let (throughput, links) = match arguments.no_storage {
        true => (None, Vec::new()),
        false => storage(&mut display).await.map(|(throughput, links)| (Some(throughput), links))?,
    };
    let mut report = Report {
        throughput,
        links,
        records: arguments.records,
        chunks_mb: arguments.chunks,
        rate: arguments.rate,
        ..Report::default()
    };
    if arguments.storage {
        return Ok(report);
    }
    let (mut bench, idle) = prepare(arguments, &mut display).await?;
    let told = measured(arguments, &mut bench, idle, &mut report, &mut display).await;
    if told.is_err() {
        let log = bench.world.supervisor().map(|supervisor| supervisor.log()).unwrap_or_default();
        display.say(&format!("\nThe supervisor's log:\n{log}"));
    }
    told.map(|()| report)
}

async fn storage(display: &mut Display) -> Result<(storage::Throughput, Vec<storage::Links>)> {
    display.heading("the storage alone");
    display.begin("puts");
    let throughput = storage::throughput(display).await?;
    display.done(&format!(
        "{} a second; with a logbook for a standby {:.0} %, in probation {:.0} %",
        thousands(throughput.steady.median as u64),
        throughput.sync_ratio.median * 100.0,
        throughput.probation_ratio.median * 100.0
    ));
    display.begin("links");
    let links = storage::links(display, &[1_000, 10_000, 100_000])?;
    let text = links.iter().map(|links| format!("{} in {:.2} s", thousands(links.files), links.seconds));
    display.done(&format!("chunk files: {}", text.collect::<Vec<_>>().join(", ")));
    Ok((throughput, links))
}

/// What an operator would have, except for a short probation and a look at the feed on request alone.
fn settings() -> Settings {
    Settings {
        probation: Duration::from_secs(4),
        attempts: 1,
        start_deadline: Duration::from_secs(60),
        sync_stall: Duration::from_secs(60),
        drain: Duration::from_secs(30),
        goaway_stagger: Duration::from_secs(2),
        heartbeat: Duration::from_secs(1),
        missed: 3,
        automatic: false,
        check_every: Duration::from_secs(3600),
        more: String::new(),
    }
}

/// A node that serves the records, and the resident bytes of a worker that has nothing to do.
async fn prepare(arguments: &Arguments, display: &mut Display) -> Result<(Bench, u64)> {
    display.heading("the node");
    display.begin("1.1.0");
    let seed = rand::random();
    let contents = Contents::of_length(seed, RECORD);
    let mut bench = Bench {
        world: World::prepare(settings()).await?,
        oracle: Arc::new(Oracle::of(contents)),
        preloaded: arguments.records,
        rate: arguments.rate,
        releases: 0,
        published: Vec::new(),
        noisy: 0,
    };
    bench.publish(1)?;
    bench.next_release()?;
    bench.world.start_supervisor()?;
    let status = bench.world.first_install().await?;
    let pid = status.serving.ok_or("nobody serves")?.pid;
    // Its first heartbeats, so that it has done all that it ever does while it is idle.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let idle = process::resident(pid.cast_unsigned())?;
    display.done(&format!("installed; the worker has {:.1} MB", mb(idle)));
    display.begin("records");
    bench.world.supervisor()?.stop(STOP).await?;
    preload::records(bench.world.state_dir(), contents, arguments.records, display)?;
    bench.oracle.stored(arguments.records);
    bench.world.start_supervisor()?;
    bench.world.serving().await?;
    display.done(&format!("{} of {RECORD} bytes", thousands(arguments.records)));
    Ok((bench, idle))
}

async fn measured(
    arguments: &Arguments,
    bench: &mut Bench,
    idle: u64,
    report: &mut Report,
    display: &mut Display,
) -> Result<()> {
    if arguments.syncs > 0 {
        report.sync = Some(syncs(arguments, bench, idle, display).await?);
    }
    display.begin("chunk files");
    let client = Client::connect(bench.world.target()?, Options::default()).await?;
    preload::chunks(&client, rand::random(), arguments.chunks, display).await?;
    drop(client);
    display.done(&format!("{} MB stored by a client", arguments.chunks));

    display.heading("under load");
    let mut rounds = Rounds::default();
    for round in 1..=arguments.rounds {
        display.begin(&format!("round {round} of {}", arguments.rounds));
        display.update("publishing");
        bench.publish(3)?;
        display.update("upgrade");
        bench.upgrade(&mut rounds, display).await?;
        display.update("reverse");
        bench.reverse(&mut rounds, display).await?;
        display.update("kill");
        bench.kill(&mut rounds, display).await?;
        display.update("restart");
        bench.restart(&mut rounds, display).await?;
        display.done(&report::round(&rounds));
    }
    report.rounds = arguments.rounds;
    report.noisy = bench.noisy;
    report.take(&rounds);

    display.heading("at rest");
    display.begin("supervisor");
    let pid = bench.world.supervisor()?.pid();
    let (woken, begun) = (process::wake_ups(pid)?, std::time::Instant::now());
    tokio::time::sleep(REST).await;
    let woken = process::woken(&woken, &process::wake_ups(pid)?) as f64 / begun.elapsed().as_secs_f64();
    let rest = Rest { rss_mb: mb(process::resident(pid)?), wake_ups_per_s: (woken * 10.0).round() / 10.0 };
    display.done(&format!("{:.1} MB resident, woken {:.1} times a second", rest.rss_mb, rest.wake_ups_per_s));
    report.supervisor = Some(rest);
    Ok(())
}

/// Upgrades of a node without load and with records alone.
async fn syncs(arguments: &Arguments, bench: &mut Bench, idle: u64, display: &mut Display) -> Result<Sync> {
    display.begin("sync");
    let (mut rates, mut extra) = (Vec::new(), Vec::new());
    bench.publish(arguments.syncs)?;
    for _ in 0..arguments.syncs {
        let release = bench.next_release()?;
        let before = leftovers::of(bench.world.folder())?;
        let mut story = Story::begin(bench.world.control(), &release);
        let from = story.until(Phase::Syncing).await?;
        let to = story.until(Phase::Level).await?;
        let new: Vec<i32> =
            leftovers::of(bench.world.folder())?.into_iter().filter(|pid| !before.contains(pid)).collect();
        let [new] = new[..] else { return Err(format!("one new worker was expected: {new:?}").into()) };
        let peak = process::peak_resident(new.cast_unsigned())?;
        rates.push((arguments.records as f64 / (to.at - from.at).as_secs_f64()).round());
        extra.push(mb(peak.saturating_sub(idle)));
        let outcome = story.outcome().await?;
        if !matches!(outcome, bumpless_control::reply::Outcome::Done { .. }) {
            return Err(format!("an upgrade without load was not committed: {outcome:?}").into());
        }
        bench.world.serving().await?;
    }
    let sync =
        Sync { records_per_s: Spread::of(rates), standby_extra_mb: Spread::of(extra), idle_mb: mb(idle) };
    display.done(&format!(
        "without load: {} records a second, {:.0} MB above an idle worker",
        thousands(sync.records_per_s.median as u64),
        sync.standby_extra_mb.median
    ));
    Ok(sync)
}

fn mb(bytes: u64) -> f64 {
    (bytes as f64 / 1e5).round() / 10.0
}

//! `cargo demo`: one node, two upgrades under load, everything read back.
//!
//! ```text
//!   build ▸ feed ▸ 1.0.0 starts ▸ files are stored ▸ load begins
//!     ▸ 1.1.0 is published: fetched, verified, installed, synced, cut over, watched, committed
//!     ▸ 1.2.0 is published: the same until two seconds after the cut; then it dies, 1.1.0 resumes
//!   ▸ load ends ▸ everything is read back ▸ table and picture
//! ```
//!
//! Moments (the cut, the death, the commit) come from the supervisor, as lines of its answer to
//! `upgrade`; latencies and drops from the clients. Nothing is inferred from how long something should
//! have taken.

pub mod arguments;
pub mod data;
pub mod episode;
pub mod report;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bumpless_shared::digest::Digest;
use bumpless_worker::client::{Client, Options};
use bumpless_worker::faults::{AfterCut, Faults};
use bumpless_worker::state::Layout;
use clap::Parser;
use tokio::task::JoinSet;

use crate::binaries::Binaries;
use crate::configuration::{Settings, in_short};
use crate::display::{Display, bytes, thousands};
use crate::latency::{self, due, milliseconds};
use crate::load::{Load, Plan, Seen, read_back};
use crate::oracle::Oracle;
use crate::picture::{Mark, Mood, Phase, Picture, Reign, svg, terminal};
use crate::world::{Result, World, faulty, release};
use arguments::Arguments;
use data::DataFile;
use episode::Episode;
use report::{Report, RollbackReport, UpgradeReport};

/// What the load asks for: more than a small node gets, less than two cores can do beside two workers,
/// a supervisor and all clients.
const PLAN: Plan = Plan {
    rate: 300,
    connections: 24,
    fresh: 12,
    puts_permille: 330,
    appends_permille: 0,
    pings: 0,
    deadline: Duration::from_secs(10),
};

/// The load runs so long before the first upgrade, for the figures that it is compared with.
const BASELINE: Duration = Duration::from_secs(6);
/// Between the two upgrades.
const CALM: Duration = Duration::from_secs(2);
/// After the second.
const TAIL: Duration = Duration::from_secs(5);
/// The third release dies so many milliseconds after its cut.
const DIES_AFTER_MS: u64 = 2000;
/// Files that are stored or read back at a time.
const FILES_AT_ONCE: usize = 4;
/// Columns of the picture in the terminal.
const COLUMNS: usize = 100;

/// The program: runs the demo and prints what it found.
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
        None => fail("interrupted; every process that the demo had started was ended"),
        Some(Err(error)) => fail(&error.to_string()),
        Some(Ok(report)) => {
            if arguments.json {
                println!("{}", serde_json::json!(report));
            }
            if report.is_good() {
                ExitCode::SUCCESS
            } else {
                fail("the promise was broken: see the figures above")
            }
        }
    }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("\ncargo demo: {why}");
    ExitCode::FAILURE
}

/// Runs the demo; the report says whether the promise was kept.
///
/// # Errors
/// The demo could not be run to its end.
pub async fn run(arguments: &Arguments) -> Result<Report> {
    let mut display = Display::new();
    display.heading("bumpless: a storage node is upgraded under load, twice: once well, once badly");
    build(&mut display)?;
    let begun = Instant::now();
    let files = choose_files(arguments)?;
    let mut world = prepare(&mut display).await?;
    let told = tell(&mut world, &mut display, arguments, &files, begun).await;
    if told.is_err() {
        display.say(&format!(
            "\nThe supervisor's log:\n{}",
            world.supervisor().map(|it| it.log()).unwrap_or_default()
        ));
    }
    if arguments.keep {
        display.say(&format!("\n  kept: {}", world.keep()?.display()));
    }
    told
}

fn build(display: &mut Display) -> Result<()> {
    display.begin("build");
    let built = tokio::task::block_in_place(Binaries::build).map_err(|error| error.to_string())?;
    display.done(&format!("programs in {}", built.node.parent().unwrap_or(Path::new(".")).display()));
    Ok(())
}

fn choose_files(arguments: &Arguments) -> Result<Vec<DataFile>> {
    Ok(match &arguments.data {
        Some(folder) => data::files(folder, None)?,
        None => data::files(&data::toolchain_library()?, Some(data::DEFAULT_LIMIT))?,
    })
}

fn settings() -> Settings {
    Settings {
        probation: Duration::from_secs(5),
        attempts: 1,
        start_deadline: Duration::from_secs(20),
        sync_stall: Duration::from_secs(10),
        drain: Duration::from_secs(10),
        goaway_stagger: Duration::from_secs(1),
        heartbeat: Duration::from_millis(500),
        missed: 4,
        automatic: true,
        check_every: Duration::from_secs(3600),
        // Latency is judged, too, but a short probation on two cores that also run the load has few
        // samples and a busy scheduler.
        more: "[upgrade]\np99_floor = \"500ms\"\n".to_owned(),
    }
}

async fn prepare(display: &mut Display) -> Result<World> {
    display.begin("feed");
    let mut world = World::prepare(settings()).await?;
    world.publish(&release("1.0.0", Layout::ByName)?)?;
    display.done(&format!("1.0.0 signed and published on {}", world.feed_url()));
    let place = world.configuration();
    display.say(&format!("    configuration ({}), otherwise the defaults:", place.display()));
    for line in in_short(&world.configuration_text()).into_iter().chain(in_short(&world.settings().more)) {
        display.say(&format!("      {line}"));
    }
    display.begin("1.0.0");
    display.update("fetching, verifying, installing, starting");
    world.start_supervisor()?;
    let status = world.first_install().await?;
    let pid = status.serving.map_or(0, |worker| worker.pid);
    display.done(&format!("installed and started by bumplessd: process {pid}"));
    Ok(world)
}

async fn tell(
    world: &mut World,
    display: &mut Display,
    arguments: &Arguments,
    files: &[DataFile],
    begun: Instant,
) -> Result<Report> {
    let target = world.target()?;
    let files_client = Client::connect(target.clone(), Options::default()).await?;
    let stored = store(display, &files_client, files).await?;
    let stored_bytes = files.iter().map(|file| file.length).sum();

    display.heading("under load");
    display.begin("load");
    let oracle = Arc::new(Oracle::new(rand::random()));
    let load = Load::start(target, PLAN, oracle).await?;
    let text = format!(
        "{} requests/s, a third of them writes, {} long-lived connections, {} new ones each second",
        PLAN.rate, PLAN.connections, PLAN.fresh
    );
    display.update(&text);
    tokio::time::sleep(BASELINE).await;
    display.done(&text);

    let good = release("1.1.0", Layout::ByKind)?;
    display.heading("1.1.0: another layout of the database");
    let upgrade = Episode::run(world, display, &load, &good).await?;
    tokio::time::sleep(CALM).await;

    let bad = faulty("1.2.0", Faults { after_cut: Some(AfterCut::Die(DIES_AFTER_MS)), ..Faults::default() })?;
    display.heading("1.2.0: works until two seconds after the cut, then dies");
    let rollback = Episode::run(world, display, &load, &bad).await?;
    tokio::time::sleep(TAIL).await;

    display.heading("afterwards");
    let length = load.now();
    let oracle = Arc::clone(load.oracle());
    display.begin("load");
    let seen = load.stop().await;
    display.done(&format!("{} requests, {} failed", thousands(seen.samples.len() as u64), seen.failed()));
    for failure in &seen.failures {
        display.say(&format!("      {failure}"));
    }

    let lost_files = check_files(display, &files_client, files, &stored).await;
    display.begin("writes");
    let lost = read_back(&files_client, &oracle).await;
    let text = format!("{} acknowledged writes read back, {} lost", thousands(oracle.count()), lost.len());
    if lost.is_empty() {
        display.done(&text)
    } else {
        display.bad(&text)
    }

    let supervisor_rss = world.supervisor()?.resident()?;
    let mut report = Report {
        stored_files: files.len() as u64,
        stored_bytes,
        requests: seen.samples.len() as u64,
        failed: seen.failed(),
        lost: (lost.len() + lost_files) as u64,
        upgrade: upgrade_report(&upgrade, &seen),
        rollback: rollback_report(&rollback, &seen, &lost),
        acknowledged: oracle.count(),
        supervisor_rss,
        seconds: (begun.elapsed().as_secs_f64() * 10.0).round() / 10.0,
        picture: String::new(),
    };
    let picture = picture(&upgrade, &rollback, &seen, length, &report);
    let file = arguments.picture();
    std::fs::write(&file, svg::draw(&picture))
        .map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    report.picture = file.canonicalize()?.display().to_string();
    upgrade.require_committed()?;
    rollback.require_rolled_back()?;
    if !arguments.json {
        let mut out = String::from("\n");
        for line in terminal::draw(&picture, COLUMNS).into_iter().chain([String::new()]).chain(report.table())
        {
            out.push_str(&line);
            out.push('\n');
        }
        println!("{out}\n  picture: {}", report.picture);
    }
    Ok(report)
}

async fn store(display: &mut Display, client: &Client, files: &[DataFile]) -> Result<Vec<Digest>> {
    display.begin("store");
    let total: u64 = files.iter().map(|file| file.length).sum();
    let mut done = 0;
    let mut names = vec![None; files.len()];
    let mut left = files.iter().enumerate();
    let mut under_way = JoinSet::new();
    loop {
        while under_way.len() < FILES_AT_ONCE
            && let Some((index, file)) = left.next()
        {
            let (client, path) = (client.clone(), file.path.clone());
            under_way.spawn(async move { (index, client.put_file(&path, |_, _| ()).await) });
        }
        let Some(finished) = under_way.join_next().await else { break };
        let (index, name) = finished?;
        names[index] = Some(name?);
        done += files[index].length;
        display.amount(done, Some(total));
    }
    display.done(&format!("{} real files, {}", thousands(files.len() as u64), bytes(total)));
    Ok(names.into_iter().flatten().collect())
}

/// Reads every stored file back and compares it with the original; the number that differ.
async fn check_files(display: &mut Display, client: &Client, files: &[DataFile], names: &[Digest]) -> usize {
    display.begin("files");
    let total: u64 = files.iter().map(|file| file.length).sum();
    let (mut done, mut lost) = (0, Vec::new());
    let mut left = files.iter().zip(names);
    let mut under_way = JoinSet::new();
    loop {
        while under_way.len() < FILES_AT_ONCE
            && let Some((file, name)) = left.next()
        {
            let (client, file, name) = (client.clone(), file.clone(), *name);
            under_way.spawn(async move {
                let same = data::same(&client, name, &file).await;
                (file, same)
            });
        }
        match under_way.join_next().await {
            Some(Ok((file, Ok(())))) => done += file.length,
            Some(Ok((file, Err(why)))) => lost.push(format!("{}: {why}", file.path.display())),
            Some(Err(error)) => lost.push(error.to_string()),
            None => break,
        }
        display.amount(done, Some(total));
    }
    let text = format!("{} files, {} read back and compared, {} lost", files.len(), bytes(total), lost.len());
    if lost.is_empty() {
        display.done(&text)
    } else {
        display.bad(&text)
    }
    for why in &lost {
        display.say(&format!("      {why}"));
    }
    lost.len()
}

fn upgrade_report(upgrade: &Episode, seen: &Seen) -> UpgradeReport {
    let before = due(&seen.samples, Duration::ZERO, upgrade.begun);
    let during = due(&seen.samples, upgrade.begun, upgrade.ended);
    let p99 = |samples: &[latency::Sample]| latency::quantile(samples, 990).map_or(0.0, milliseconds);
    let (from, to) = upgrade.gap_window();
    UpgradeReport {
        from: upgrade.from.clone(),
        to: upgrade.to.clone(),
        sync_ms: upgrade.sync().map_or(0.0, milliseconds),
        gap_ms: milliseconds(latency::longest_silence(&seen.samples, from, to)),
        handover_ms: upgrade.handover_ms(),
        p99_before_ms: p99(&before),
        p99_during_ms: p99(&during),
        dropped: seen
            .drops
            .iter()
            .filter(|drop| (upgrade.begun..upgrade.ended).contains(&drop.dropped))
            .count() as u64,
        moved: upgrade.after.moved - upgrade.before.moved,
    }
}

fn rollback_report(rollback: &Episode, seen: &Seen, lost: &[(u64, String)]) -> RollbackReport {
    let (from, to) = rollback.back_window();
    let cut = rollback.cut().unwrap_or(rollback.ended);
    // Until the load's end: a connection to the dead worker may be noticed late.
    let drops = || seen.drops.iter().filter(|drop| drop.dropped >= rollback.begun);
    RollbackReport {
        from: rollback.to.clone(),
        to: rollback.from.clone(),
        cause: rollback.cause().to_owned(),
        gap_ms: milliseconds(latency::longest_silence(&seen.samples, from, to)),
        lost: lost.iter().filter(|(number, _)| rollback.writes.contains(number)).count() as u64,
        dropped_old: drops().filter(|drop| drop.made < cut).count() as u64,
        dropped_new: drops().filter(|drop| drop.made >= cut).count() as u64,
        retried: rollback.after.retried - rollback.before.retried,
    }
}

fn picture(upgrade: &Episode, rollback: &Episode, seen: &Seen, length: Duration, report: &Report) -> Picture {
    let cuts = [upgrade.took(), rollback.took(), rollback.resumed()].map(|moment| moment.unwrap_or(length));
    let reign = |release: &str, from, to| Reign { release: release.to_owned(), from, to };
    let mark = |at: Option<Duration>, text: String, mood| at.map(|at| Mark { at, text, mood });
    let marks = [
        mark(upgrade.cut(), format!("{} takes over", upgrade.to), Mood::Good),
        mark(upgrade.committed(), "committed".to_owned(), Mood::Good),
        mark(rollback.cut(), format!("{} takes over", rollback.to), Mood::Good),
        mark(rollback.died(), format!("{} dies", rollback.to), Mood::Bad),
        mark(rollback.resumed(), format!("{} holds again", rollback.from), Mood::Good),
    ];
    let phases = upgrade.phases().chain(rollback.phases());
    Picture {
        title: "Request latency while a node is upgraded, and rolled back, under load".to_owned(),
        subtitle: report.line(),
        samples: seen.samples.clone(),
        length,
        reigns: vec![
            reign(&upgrade.from, Duration::ZERO, cuts[0]),
            reign(&upgrade.to, cuts[0], cuts[1]),
            reign(&rollback.to, cuts[1], cuts[2]),
            reign(&rollback.from, cuts[2], length),
        ],
        phases: phases.map(|(name, from, to)| Phase { name, from, to }).collect(),
        marks: marks.into_iter().flatten().collect(),
    }
}

//! Many upgrades in a row under load: afterwards everything is where it was.

use std::sync::Arc;
use std::time::Duration;

use bumpless_control::reply::Outcome;
use bumpless_worker::state::Layout;
use serde::Serialize;

use super::story::Story;
use crate::configuration::Settings;
use crate::display::{Display, thousands};
use crate::leftovers;
use crate::load::{Load, Plan, read_back};
use crate::oracle::Oracle;
use crate::process;
use crate::world::{Result, World, release};

/// What is there at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct There {
    /// Upgrades so far.
    pub upgrades: u32,
    /// Processes of the node.
    pub processes: usize,
    /// Descriptors of the supervisor.
    pub supervisor_descriptors: usize,
    /// Resident memory of the supervisor, megabytes.
    pub supervisor_mb: f64,
    /// Descriptors of the worker.
    pub worker_descriptors: usize,
    /// Resident memory of the worker, megabytes.
    pub worker_mb: f64,
    /// Files and folders in the state folder, but for the database's own and the chunk files, which
    /// the load adds to.
    pub files: usize,
}

/// What many upgrades left.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Every tenth or so.
    pub there: Vec<There>,
    /// Requests.
    pub requests: u64,
    /// Without a right answer.
    pub failed: u64,
    /// Connections dropped.
    pub dropped: u64,
    /// Acknowledged writes that could not be read back.
    pub lost: u64,
}

/// So many looks are taken each time, so far apart.
const LOOKS: u32 = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// How much the memory of a process may have grown by the end, megabytes.
const SPREAD_MB: f64 = 16.0;

impl Row {
    /// What grew or broke, if anything did. The first look is after some upgrades: by then every
    /// process has had its full course once.
    pub fn broken(&self) -> Option<String> {
        if (self.failed, self.dropped, self.lost) != (0, 0, 0) {
            return Some(format!(
                "{} requests failed, {} connections were dropped, {} writes lost",
                self.failed, self.dropped, self.lost
            ));
        }
        let (first, last) = (self.there.first()?, self.there.last()?);
        let counts = |there: &There| (there.processes, there.supervisor_descriptors, there.files);
        if counts(first) != counts(last) {
            return Some(format!("something grew: {first:?} became {last:?}"));
        }
        let grown = |first: f64, last: f64| last > first + SPREAD_MB;
        let memory = grown(first.supervisor_mb, last.supervisor_mb) || grown(first.worker_mb, last.worker_mb);
        memory.then(|| format!("memory grew: {first:?} became {last:?}"))
    }

    /// The table.
    pub fn table(&self) -> Vec<String> {
        let mut lines = vec![
            String::new(),
            format!(
                "  {} requests: {} failed, {} connections dropped, {} writes lost",
                thousands(self.requests),
                self.failed,
                self.dropped,
                self.lost
            ),
            String::new(),
            "  upgrades  processes  files   supervisor          worker".to_owned(),
        ];
        for it in &self.there {
            lines.push(format!(
                "  {:>8}  {:>9}  {:>5}   {:>3} fd {:>6.1} MB    {:>3} fd {:>6.1} MB",
                it.upgrades,
                it.processes,
                it.files,
                it.supervisor_descriptors,
                it.supervisor_mb,
                it.worker_descriptors,
                it.worker_mb
            ));
        }
        lines
    }
}

/// Runs so many upgrades in a row.
///
/// # Errors
/// One of them was not committed.
pub async fn run(upgrades: u32, rate: u32, display: &mut Display) -> Result<Row> {
    let settings = Settings {
        probation: Duration::from_secs(1),
        goaway_stagger: Duration::from_millis(200),
        start_deadline: Duration::from_secs(30),
        sync_stall: Duration::from_secs(30),
        drain: Duration::from_secs(10),
        ..Settings::default()
    };
    display.begin("1.0.0");
    let mut world = World::start(settings).await?;
    display.done("serves");
    let plan = Plan {
        rate,
        connections: 32,
        fresh: 20.min(rate),
        puts_permille: 250,
        appends_permille: 0,
        pings: 0,
        deadline: Duration::from_secs(10),
    };
    let load = Load::start(world.target()?, plan, Arc::new(Oracle::new(rand::random()))).await?;
    let look_every = (upgrades / 10).max(1);
    let mut there = Vec::new();
    display.begin("upgrades");
    for number in 1..=upgrades {
        let layout = if number.is_multiple_of(2) { Layout::ByName } else { Layout::ByKind };
        let release = world.publish(&release(&format!("1.{number}.0"), layout)?)?;
        let outcome = Story::begin(world.control(), &release).outcome().await?;
        if !matches!(outcome, Outcome::Done { .. }) {
            return Err(format!("upgrade {number} was not committed: {outcome:?}").into());
        }
        world.serving().await?;
        if number.is_multiple_of(look_every) || number == upgrades {
            there.push(look(&mut world, number).await?);
        }
        display.update(&format!("{number} of {upgrades}"));
    }
    display.done(&format!("{upgrades} committed"));
    let oracle = Arc::clone(load.oracle());
    let seen = load.stop().await;
    let lost = read_back(&world.client().await?, &oracle).await;
    for failure in seen.failures.iter().chain(lost.iter().map(|(_, why)| why)).take(10) {
        display.say(&format!("      {failure}"));
    }
    Ok(Row {
        there,
        requests: seen.samples.len() as u64,
        failed: seen.failed(),
        dropped: seen.drops.len() as u64,
        lost: lost.len() as u64,
    })
}

/// The least of several looks: the old worker has gone, but what it left is removed a moment later, and a
/// connection to the control socket is a descriptor.
async fn look(world: &mut World, upgrades: u32) -> Result<There> {
    let mut least: Option<There> = None;
    for _ in 0..LOOKS {
        let status = world.control().status().await?;
        let worker = status.serving.ok_or("nobody serves")?.pid.cast_unsigned();
        let supervisor = world.supervisor()?.pid();
        let there = There {
            upgrades,
            processes: leftovers::of(world.folder())?.len(),
            supervisor_descriptors: process::descriptors(supervisor)?,
            supervisor_mb: super::mb(process::resident(supervisor)?),
            worker_descriptors: process::descriptors(worker)?,
            worker_mb: super::mb(process::resident(worker)?),
            files: files(world.state_dir())?,
        };
        least = Some(match least {
            None => there,
            Some(least) => There {
                upgrades,
                processes: least.processes.min(there.processes),
                supervisor_descriptors: least.supervisor_descriptors.min(there.supervisor_descriptors),
                supervisor_mb: least.supervisor_mb.min(there.supervisor_mb),
                worker_descriptors: least.worker_descriptors.min(there.worker_descriptors),
                worker_mb: least.worker_mb.min(there.worker_mb),
                files: least.files.min(there.files),
            },
        });
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
    least.ok_or_else(|| "no look was taken".into())
}

/// Files and folders, without what is in databases and chunk folders.
fn files(folder: &std::path::Path) -> std::io::Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        count += 1;
        let inner = entry.file_name();
        if entry.file_type()?.is_dir() && inner != "db" && inner != "chunks" {
            count += files(&entry.path())?;
        }
    }
    Ok(count)
}

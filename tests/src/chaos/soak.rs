//! The soak: no case, no order, no pause. A node is upgraded, taken back, killed, stopped and restarted at
//! random for as long as is asked for, under load; at the end it has what it had at the beginning, and what
//! was stored meanwhile.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use bumpless_control::reply::Outcome;
use bumpless_control::request::Request;
use bumpless_os::process::Process;
use nix::sys::signal::Signal;
use rand::Rng;
use rand::rngs::SmallRng;
use serde::Serialize;
use tokio::time::{sleep, timeout};

use super::rig::{Broken, Disks, Rig, SETTLE};
use crate::display::{Display, bytes, thousands};
use crate::handover::story::Story;
use crate::load::{Load, Plan};
use crate::process;
use crate::world::Result;

/// Fewer writes than in a case: what is stored is copied by every upgrade.
const PLAN: Plan = Plan {
    rate: 150,
    connections: 6,
    fresh: 10,
    puts_permille: 60,
    appends_permille: 60,
    pings: 50,
    deadline: Duration::from_secs(10),
};

/// How long a process is stopped, at most, and how far into an upgrade something strikes.
const SOON: Duration = Duration::from_millis(700);
/// A supervisor that is asked to stop.
const STOP: Duration = Duration::from_secs(10);
/// What memory may differ by from one look to another: allocators keep some.
const SPREAD: u64 = 16 << 20;
/// The same for a supervisor.
const SUPERVISOR_SPREAD: u64 = 2 << 20;
/// Descriptors that a look may meet and that are about to close: a control connection or two.
const PASSING: usize = 2;
/// So much disk for each byte stored: the database keeps what is overwritten for a while.
const DISK_PER_BYTE: u64 = 4;
/// And so much in any case.
const DISK_SPREAD: u64 = 64 << 20;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Upgrade,
    TakeBack,
    Rollback,
    Kill(Whom),
    Halt(Whom),
    KillAll,
    Restart,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whom {
    New,
    Old,
    Supervisor,
}

/// Counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Done {
    /// Upgrades begun.
    pub upgrades: u64,
    /// Of them, committed.
    pub committed: u64,
    /// Ways back that were asked for.
    pub rollbacks: u64,
    /// Processes killed.
    pub kills: u64,
    /// Processes stopped.
    pub stops: u64,
    /// Stops and starts of the supervisor.
    pub restarts: u64,
}

/// What there was after a minute.
#[derive(Clone, Debug, Serialize)]
pub struct Minute {
    /// Since the beginning.
    pub done: Done,
    /// Requests of this minute.
    pub requests: u64,
    /// Without a right answer.
    pub failed: u64,
    /// Acknowledged operations that are not there.
    pub lost: u64,
    /// Resident, bytes.
    pub supervisor: u64,
    /// Resident, bytes.
    pub worker: u64,
    /// Descriptors.
    pub supervisor_descriptors: usize,
    /// Descriptors that are no files.
    pub worker_descriptors: usize,
    /// Files and folders in the state folder, without those of databases and chunks, and without the older half
    /// of the history, which is there from its first megabyte on.
    pub files: usize,
    /// Bytes in the state folder.
    pub disk: u64,
    /// Bytes that clients have stored so far.
    pub stored: u64,
}

/// The whole soak.
#[derive(Clone, Debug, Serialize)]
pub struct Soak {
    /// What chance followed from.
    pub seed: u64,
    /// One after the other.
    pub minutes: Vec<Minute>,
    /// What went wrong, in words.
    pub violations: Vec<String>,
}

impl fmt::Display for Minute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Done { upgrades, committed, rollbacks, kills, stops, restarts } = self.done;
        write!(
            f,
            "{upgrades} upgrades ({committed} committed), {rollbacks} rollbacks, {kills} kills, {stops} stops, \
             {restarts} restarts; {} requests, {} failed, {} lost; supervisor {} {} fd, worker {} {} fd; {} files, \
             {} ({} stored)",
            thousands(self.requests),
            self.failed,
            self.lost,
            bytes(self.supervisor),
            self.supervisor_descriptors,
            bytes(self.worker),
            self.worker_descriptors,
            self.files,
            bytes(self.disk),
            bytes(self.stored),
        )
    }
}

/// What is counted of a minute.
type Count = fn(&Minute) -> usize;

impl Soak {
    /// What grew from the first minute to the last, beyond what was stored. Of what is counted, the least that
    /// was seen in either half: a look may meet a connection that is about to close, and what leaks stays.
    fn grown(&self) -> Vec<String> {
        let [first, .., last] = &self.minutes[..] else { return Vec::new() };
        let mut grown = Vec::new();
        let mut more = |what: &str, was: u64, is: u64, allowed: u64| {
            if is > was + allowed {
                grown.push(format!("{what} grew from {was} to {is}, {allowed} more are allowed"));
            }
        };
        let stored = last.stored - first.stored;
        more("the supervisor's memory", first.supervisor, last.supervisor, SUPERVISOR_SPREAD);
        more("the worker's memory", first.worker, last.worker, SPREAD + stored);
        let half = self.minutes.len() / 2;
        let (before, after) = (&self.minutes[..half], &self.minutes[self.minutes.len() - half..]);
        let mut counted = |what: &str, count: Count| {
            let least = |minutes: &[Minute]| minutes.iter().map(count).min().unwrap_or(0) as u64;
            more(what, least(before), least(after), 0);
        };
        let (supervisors, workers): (Count, Count) =
            (|minute| minute.supervisor_descriptors, |minute| minute.worker_descriptors);
        let descriptors =
            [("the supervisor's descriptors", supervisors), ("the worker's descriptors", workers)];
        for (what, count) in descriptors {
            counted(what, count);
        }
        counted("files", |minute| minute.files);
        more("the disk", first.disk, last.disk, DISK_SPREAD + stored * DISK_PER_BYTE);
        // One that leaks is killed, too, and begins anew with few.
        for (what, count) in descriptors {
            let counts = || self.minutes.iter().map(count);
            if let (Some(least), Some(most)) = (counts().min(), counts().max())
                && most > least + PASSING
            {
                grown.push(format!("{what} are {least} at one time and {most} at another"));
            }
        }
        grown
    }

    /// As one JSON object.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!(self)
    }
}

/// Soaks a node for so long.
///
/// # Errors
/// There is no node.
pub async fn run(minutes: f64, seed: u64, random: &mut SmallRng, display: &mut Display) -> Result<Soak> {
    let mut soak = Soak { seed, minutes: Vec::new(), violations: Vec::new() };
    let rig = Rig::start(random.random(), Disks::Plain).await?;
    let mut rig = rig.ok_or("no world")?;
    let end = Instant::now() + Duration::from_secs_f64(minutes.max(0.0) * 60.0);
    let mut done = Done::default();
    while Instant::now() < end {
        let number = soak.minutes.len() + 1;
        display.begin(&format!("minute {number}"));
        let begun = Instant::now();
        let minute = match minute(&mut rig, random, &mut done, end.min(begun + Duration::from_secs(60))).await
        {
            Ok(minute) => minute,
            Err(what) => {
                let kept = rig.keep(&what.join("\n"))?;
                soak.violations.extend(what);
                soak.violations.push(format!("kept: {}", kept.display()));
                return Ok(soak);
            }
        };
        display.done(&minute.to_string());
        soak.minutes.push(minute);
    }
    soak.violations = soak.grown();
    if !soak.violations.is_empty() {
        let kept = rig.keep(&soak.violations.join("\n"))?;
        soak.violations.push(format!("kept: {}", kept.display()));
    }
    Ok(soak)
}

/// A minute under a load of its own, everything of which is read back.
async fn minute(
    rig: &mut Rig,
    random: &mut SmallRng,
    done: &mut Done,
    until: Instant,
) -> std::result::Result<Minute, Vec<String>> {
    let said = |error: String| vec![error];
    let load = rig.load(PLAN).await.map_err(|error| said(error.to_string()))?;
    let mut broken = Broken::default();
    while Instant::now() < until && broken.what.is_empty() {
        let deed = deed(random);
        if let Err(error) = act(rig, deed, &load, random, done).await {
            broken.what.push(format!("{deed:?}: {error}"));
        }
    }
    let (requests, failures) = rig.read_back(load, random, &mut broken).await;
    if let Some(first) = failures.first() {
        broken.what.push(format!("{} requests failed, such as {first}", failures.len()));
    }
    if !broken.what.is_empty() {
        return Err(broken.what);
    }
    look(rig, *done, requests, failures.len() as u64, broken.lost)
        .await
        .map_err(|error| said(error.to_string()))
}

fn deed(random: &mut SmallRng) -> Deed {
    match random.random_range(0..100) {
        0..40 => Deed::Upgrade,
        40..50 => Deed::TakeBack,
        50..60 => Deed::Rollback,
        60..70 => Deed::Kill(Whom::New),
        70..76 => Deed::Kill(Whom::Old),
        76..85 => Deed::Kill(Whom::Supervisor),
        85..88 => Deed::Halt(Whom::New),
        88..90 => Deed::Halt(Whom::Old),
        90..93 => Deed::Halt(Whom::Supervisor),
        93..96 => Deed::KillAll,
        _ => Deed::Restart,
    }
}

async fn act(rig: &mut Rig, deed: Deed, load: &Load, random: &mut SmallRng, done: &mut Done) -> Result<()> {
    let control = rig.world.control();
    let old = control.status().await?.serving.ok_or("nobody serves")?;
    let soon = SOON.mul_f64(random.random());
    let mut story = match deed {
        Deed::Rollback => {
            done.rollbacks += 1;
            let asked = timeout(SETTLE, control.ask(&Request::Rollback { wait: true }, |_, _| ())).await;
            asked.map_err(|_| "the rollback did not end")??;
            None
        }
        // The supervisor goes in the middle of an upgrade, or with nothing under way.
        Deed::Restart | Deed::KillAll | Deed::Kill(Whom::Supervisor | Whom::Old)
            if random.random_bool(0.5) =>
        {
            None
        }
        Deed::Upgrade | Deed::TakeBack | Deed::Kill(_) | Deed::Halt(_) | Deed::KillAll | Deed::Restart => {
            done.upgrades += 1;
            let new = rig.fresh(None).await?;
            Some(Story::begin(control.clone(), &new))
        }
    };
    if !matches!(deed, Deed::Upgrade | Deed::Rollback) {
        sleep(soon).await;
    }
    let connected = rig.levers.connected();
    let new = connected.iter().find(|it| it.release != old.release).map(|it| it.pid);
    match deed {
        Deed::Upgrade | Deed::Rollback => {}
        Deed::TakeBack => {
            done.rollbacks += 1;
            // It may have ended already; then this is refused, or the way back to the release before it.
            drop(timeout(SETTLE, control.ask(&Request::Rollback { wait: false }, |_, _| ())).await);
        }
        Deed::Kill(Whom::New) => {
            if let Some(new) = new {
                done.kills += 1;
                signal(new, Signal::SIGKILL)?;
            }
        }
        Deed::Kill(Whom::Old) => {
            done.kills += 1;
            signal(old.pid, Signal::SIGKILL)?;
        }
        Deed::Kill(Whom::Supervisor) => {
            done.kills += 1;
            rig.world.kill_supervisor()?;
            sleep(SOON.mul_f64(random.random())).await;
            rig.world.start_supervisor()?;
        }
        Deed::KillAll => {
            done.kills += 2 + u64::from(new.is_some());
            rig.world.kill_supervisor()?;
            for pid in new.into_iter().chain([old.pid]) {
                signal(pid, Signal::SIGKILL)?;
            }
            rig.world.start_supervisor()?;
        }
        Deed::Halt(whom) => {
            let pid = match whom {
                Whom::New => new,
                Whom::Old => Some(old.pid),
                Whom::Supervisor => Some(rig.world.supervisor()?.pid().cast_signed()),
            };
            if let Some(process) = pid.and_then(|pid| Process::open(pid).ok()) {
                done.stops += 1;
                process.signal(Signal::SIGSTOP)?;
                sleep(2 * SOON.mul_f64(random.random())).await;
                process.signal(Signal::SIGCONT)?;
            }
        }
        Deed::Restart => {
            done.restarts += 1;
            rig.world.supervisor()?.stop(STOP).await?;
            rig.world.start_supervisor()?;
        }
    }
    if let Some(story) = &mut story {
        let ended = timeout(SETTLE, story.ended()).await;
        if let Some(Outcome::Done { .. }) = ended.map_err(|_| "an upgrade did not end")? {
            done.committed += 1;
        }
    }
    rig.settled(load).await?;
    Ok(())
}

/// A process that has ended by itself meanwhile needs no signal.
fn signal(pid: i32, signal: Signal) -> Result<()> {
    if let Ok(process) = Process::open(pid) {
        process.signal(signal)?;
    }
    Ok(())
}

async fn look(rig: &mut Rig, done: Done, requests: u64, failed: u64, lost: u64) -> Result<Minute> {
    let left = rig.tidy(None).await?;
    let worker = rig.world.control().status().await?.serving.ok_or("nobody serves")?.pid.cast_unsigned();
    let supervisor = rig.world.supervisor()?.pid();
    let mut disk = Disk::default();
    disk.add(&rig.world.seen(rig.world.state_dir()), true)?;
    Ok(Minute {
        done,
        requests,
        failed,
        lost,
        supervisor: process::resident(supervisor)?,
        worker: process::resident(worker)?,
        supervisor_descriptors: left.supervisor,
        worker_descriptors: left.worker,
        files: disk.files,
        disk: disk.bytes,
        stored: rig.stored(),
    })
}

#[derive(Default)]
struct Disk {
    files: usize,
    bytes: u64,
}

impl Disk {
    fn add(&mut self, folder: &Path, counts: bool) -> std::io::Result<()> {
        use std::os::unix::fs::MetadataExt;
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            // What is removed meanwhile is not there.
            let Ok(metadata) = entry.metadata() else { continue };
            let own = entry.file_name();
            self.files += usize::from(counts && own != "history.jsonl.1");
            self.bytes += metadata.blocks() * 512;
            if metadata.is_dir() {
                self.add(&entry.path(), counts && own != "db" && own != "chunks")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn minute() -> Minute {
        Minute {
            done: Done::default(),
            requests: 1,
            failed: 0,
            lost: 0,
            supervisor: 8 << 20,
            worker: 60 << 20,
            supervisor_descriptors: 20,
            worker_descriptors: 30,
            files: 40,
            disk: 100 << 20,
            stored: 10 << 20,
        }
    }

    fn grown(minutes: impl IntoIterator<Item = Minute>) -> Vec<String> {
        Soak { seed: 0, minutes: minutes.into_iter().collect(), violations: Vec::new() }.grown()
    }

    #[test]
    fn what_grows_beyond_what_was_stored_is_noticed_and_nothing_else_is() {
        let with = |change: &dyn Fn(&mut Minute)| {
            let mut last = minute();
            last.stored += 50 << 20;
            change(&mut last);
            grown([minute(), minute(), last])
        };
        assert_eq!(with(&|last| last.disk += 150 << 20), Vec::<String>::new());
        assert!(with(&|last| last.disk += 300 << 20)[0].contains("disk"));
        assert!(with(&|last| last.supervisor_descriptors += 1)[0].contains("the supervisor's descriptors"));
        assert!(with(&|last| last.worker_descriptors += 1)[0].contains("the worker's descriptors"));
        assert!(with(&|last| last.files += 1)[0].contains("files"));
        assert!(with(&|last| last.supervisor += 3 << 20)[0].contains("memory"));
    }

    #[test]
    fn a_descriptor_that_a_look_meets_is_no_leak_and_one_more_each_hour_is() {
        let with = |descriptors| Minute { supervisor_descriptors: descriptors, ..minute() };
        assert_eq!(grown((0..60).map(|number| with(20 + number % 3 / 2))), Vec::<String>::new());
        assert!(grown((0..60).map(|number| with(20 + number / 30)))[0].contains("from 20 to 21"));
        // A supervisor that leaks and is killed now and then.
        assert!(
            grown((0..60).map(|number| with(20 + number % 4)))[0]
                .contains("20 at one time and 23 at another")
        );
    }
}

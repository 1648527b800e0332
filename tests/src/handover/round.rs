//! One round: the scenarios, each under a load of its own.
//!
//! ```text
//!   upgrade:  load ▸ 3 quiet seconds (steady) ▸ sync ▸ cut (upgrade) ▸ probation ▸ commit ▸ read back
//!   reverse:  load ▸ 3 quiet seconds ▸ sync ▸ cut ▸ probation ▸ the operator's way back ▸ read back
//!   kill:     load ▸ 3 quiet seconds ▸ sync ▸ cut ▸ probation ▸ kill -9 of the new worker ▸ read back
//!   restart:  load ▸ 3 quiet seconds ▸ the supervisor is stopped and started again ▸ read back
//! ```
//!
//! A window runs from the intent (the order to cut, to go back, the kill, the stop) to 0.3 s after the
//! node serves again, and has at least a second; those of the steady load, the control, have a second
//! each. A trigger waits until the load itself was punctual for three seconds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bumpless_control::reply::Outcome;
use bumpless_control::request::Request;
use bumpless_control::status::Phase;
use bumpless_os::process::Process;
use bumpless_shared::release::Release;
use bumpless_worker::client::Client;
use bumpless_worker::state::Layout;

use super::figures::{Mark, Measure, measure};
use super::story::Story;
use crate::display::Display;
use crate::latency::{lateness, milliseconds};
use crate::load::{Load, Plan, Seen, read_back_these};
use crate::oracle::Oracle;
use crate::world::{Result, World, release};

/// Windows go on so long after the node serves again.
const AFTER: Duration = Duration::from_millis(300);
/// The least length of a window.
const WINDOW: Duration = Duration::from_secs(1);
/// So many windows of the steady load before a trigger are looked at.
const CONTROL: u32 = 3;
/// A load that is less punctual than this, at its 99th percentile, measures the machine.
const PUNCTUAL: Duration = Duration::from_millis(2);
/// So often a noisy time before a trigger is waited out.
const NOISY: u32 = 40;
/// The load runs so long before anything is looked at.
const SETTLE: Duration = Duration::from_secs(1);
/// From the cut until something is done to the new worker.
const IN_PROBATION: Duration = Duration::from_millis(1000);
/// Longest that a supervisor may take to stop.
const STOP: Duration = Duration::from_secs(40);
/// Of the records that were there before the first round, so many are read back after each.
const SAMPLED: u64 = 1000;
/// Connections that are made after a cut to be watched when the new worker is killed, and their
/// requests per second.
const LATER: (usize, u32) = (16, 400);

/// A node, its releases, and what it holds.
pub struct Bench {
    /// Everything around the node.
    pub world: World,
    /// What was acknowledged, preloaded records included.
    pub oracle: Arc<Oracle>,
    /// So many of these were preloaded.
    pub preloaded: u64,
    /// Requests per second.
    pub rate: u32,
    /// How many releases there were.
    pub releases: u32,
    /// What was published and not gone to yet: publishing takes the processor.
    pub published: Vec<Release>,
    /// Times that a trigger had to be put off because the machine was not quiet.
    pub noisy: u32,
}

/// What the rounds brought.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    /// Windows of the steady load.
    pub steady: Vec<Measure>,
    /// While the new worker takes the state in.
    pub sync: Vec<Measure>,
    /// Around the cut.
    pub upgrade: Vec<Measure>,
    /// From the verdict until the old worker has gone.
    pub commit: Vec<Measure>,
    /// The operator's way back.
    pub reverse: Vec<Measure>,
    /// The way back after the new worker was killed.
    pub kill: Vec<Measure>,
    /// Of connections made after the cut: the longest time, milliseconds, from the kill to the answer of
    /// a request that was due then or soon after.
    pub back_ms: Vec<f64>,
    /// Stop and start.
    pub restart: Vec<Measure>,
    /// From the freeze to `Took` as the node measured it, milliseconds.
    pub handover_ms: Vec<f64>,
    /// How long the sync took, under load, seconds.
    pub sync_s: Vec<f64>,
}

impl Bench {
    fn plan(&self) -> Plan {
        Plan {
            rate: self.rate,
            connections: 64,
            fresh: 50.min(self.rate),
            puts_permille: 250,
            appends_permille: 0,
            pings: 0,
            deadline: Duration::from_secs(10),
        }
    }

    /// Publishes the releases of the coming rounds.
    ///
    /// # Errors
    /// Those of the publisher.
    pub fn publish(&mut self, count: u32) -> Result<()> {
        for _ in 0..count {
            self.releases += 1;
            // Really another layout each time, so that every sync is a migration.
            let layout = if self.releases.is_multiple_of(2) { Layout::ByKind } else { Layout::ByName };
            let stamp = release(&format!("1.{}.0", self.releases), layout)?;
            self.published.insert(0, self.world.publish(&stamp)?);
        }
        Ok(())
    }

    /// The next release that was published.
    ///
    /// # Errors
    /// There is none.
    pub fn next_release(&mut self) -> Result<Release> {
        self.published.pop().ok_or_else(|| "no release was published for this".into())
    }

    /// A load that has settled.
    ///
    /// # Errors
    /// The node does not answer.
    pub async fn load(&self) -> Result<Load> {
        let load = Load::start(self.world.target()?, self.plan(), Arc::clone(&self.oracle)).await?;
        tokio::time::sleep(SETTLE).await;
        Ok(load)
    }

    /// Waits for three punctual seconds of the load, and says when they were over.
    async fn quiet(&mut self, load: &Load) -> Result<Mark> {
        for _ in 0..NOISY {
            let from = load.now();
            tokio::time::sleep(WINDOW * CONTROL).await;
            let late = lateness(&load.due(from, from + WINDOW * CONTROL), 990);
            if late.is_some_and(|late| late <= PUNCTUAL) {
                return Ok(mark(load));
            }
            self.noisy += 1;
        }
        Err(format!("the machine is never quiet: the load itself was late {NOISY} times").into())
    }

    /// Ends the load and reads back what was written under it, and some of what was there before.
    async fn ended(&self, load: Load, display: &mut Display) -> Result<(Seen, Vec<u64>)> {
        let first = load.first_write();
        let seen = load.stop().await;
        for failure in &seen.failures {
            display.say(&format!("      {failure}"));
        }
        let mut numbers = self.oracle.among(first..u64::MAX);
        let step = (self.preloaded / SAMPLED).max(1) as usize;
        numbers.extend((0..self.preloaded).step_by(step));
        let client: Client = self.world.client().await?;
        let lost = read_back_these(&client, &self.oracle, numbers).await;
        for (number, why) in lost.iter().take(5) {
            display.say(&format!("      write {number} is lost: {why}"));
        }
        Ok((seen, lost.into_iter().map(|(number, _)| number).collect()))
    }

    /// An upgrade that is committed: the scenarios steady, sync, upgrade and commit.
    ///
    /// # Errors
    /// It was not committed.
    pub async fn upgrade(&mut self, rounds: &mut Rounds, display: &mut Display) -> Result<()> {
        let release = self.next_release()?;
        let load = self.load().await?;
        let trigger = self.quiet(&load).await?;
        let mut story = Story::begin(self.world.control(), &release);
        let syncing = story.until(Phase::Syncing).await?;
        let level = story.until(Phase::Level).await?;
        let cutting = story.until(Phase::Cutting).await?;
        let cut = mark_at(&load, cutting.at);
        let took = story.until(Phase::Probation).await?;
        let committing = story.until(Phase::Committing).await?;
        let commit = mark_at(&load, committing.at);
        let outcome = story.outcome().await?;
        let Outcome::Done { answer: bumpless_control::reply::Answer::Upgraded(moved) } = &outcome else {
            return Err(format!("the upgrade was not committed: {outcome:?}").into());
        };
        rounds.handover_ms.extend(moved.gap_ms);
        self.world.serving().await?;
        let gone = load.now();
        tokio::time::sleep(AFTER).await;
        let end = mark(&load);
        let start = Mark { at: Duration::ZERO, retried: 0, writes: load.first_write() };
        let [syncing, level, took] = [syncing.at, level.at, took.at].map(|at| load.when(at));
        let (seen, lost) = self.ended(load, display).await?;
        for window in 0..CONTROL {
            let (from, to) = (trigger.at - WINDOW * (window + 1), trigger.at - WINDOW * window);
            // What is counted over the whole steady time is counted once.
            let from_mark = if window == 0 { start } else { trigger };
            rounds.steady.push(measure(&seen, &lost, (from_mark, trigger), (from, to), None));
        }
        rounds.sync.push(measure(&seen, &lost, (trigger, cut), (syncing, level.max(syncing + WINDOW)), None));
        rounds.sync_s.push((level - syncing).as_secs_f64());
        let window = (cut.at, (took + AFTER).max(cut.at + WINDOW));
        rounds.upgrade.push(measure(&seen, &lost, (cut, commit), window, None));
        let window = (commit.at, (gone + AFTER).max(commit.at + WINDOW));
        rounds.commit.push(measure(&seen, &lost, (commit, end), window, None));
        Ok(())
    }

    /// An upgrade that the operator takes back in probation.
    ///
    /// # Errors
    /// It did not go back.
    pub async fn reverse(&mut self, rounds: &mut Rounds, display: &mut Display) -> Result<()> {
        let release = self.next_release()?;
        let load = self.load().await?;
        self.quiet(&load).await?;
        let mut story = Story::begin(self.world.control(), &release);
        let cutting = story.until(Phase::Cutting).await?;
        let cut = load.when(cutting.at);
        story.until(Phase::Probation).await?;
        tokio::time::sleep(IN_PROBATION).await;
        let back = mark(&load);
        let asked = self.world.control().ask(&Request::Rollback { wait: true }, |_, _| ()).await?;
        let again = load.now();
        if !matches!(asked, Outcome::Done { .. }) {
            return Err(format!("the upgrade was not taken back: {asked:?}").into());
        }
        drop(story.outcome().await?);
        self.world.serving().await?;
        tokio::time::sleep(AFTER).await;
        let end = mark(&load);
        let (seen, lost) = self.ended(load, display).await?;
        let window = (back.at, (again + AFTER).max(back.at + WINDOW));
        rounds.reverse.push(measure(&seen, &lost, (back, end), window, Some(cut)));
        Ok(())
    }

    /// An upgrade whose new worker is killed in probation.
    ///
    /// # Errors
    /// It was not rolled back.
    pub async fn kill(&mut self, rounds: &mut Rounds, display: &mut Display) -> Result<()> {
        let release = self.next_release()?;
        let load = self.load().await?;
        self.quiet(&load).await?;
        let mut story = Story::begin(self.world.control(), &release);
        let cutting = story.until(Phase::Cutting).await?;
        let cut = load.when(cutting.at);
        story.until(Phase::Probation).await?;
        let (connections, rate) = LATER;
        let plan = Plan { rate, connections, fresh: 0, ..self.plan() };
        let later = Load::start(self.world.target()?, plan, Arc::clone(&self.oracle)).await?;
        tokio::time::sleep(IN_PROBATION).await;
        let status = self.world.control().status().await?;
        let new = status.serving.ok_or("nobody serves in probation")?;
        if new.release != release.version {
            return Err(format!("{} serves in probation of {release}", new.release).into());
        }
        let process = Process::open(new.pid)?;
        let killed = mark(&load);
        let moment = Instant::now();
        process.kill()?;
        let outcome = story.outcome().await?;
        if !matches!(outcome, Outcome::RolledBack { .. }) {
            return Err(format!("the upgrade was not rolled back: {outcome:?}").into());
        }
        self.world.serving().await?;
        tokio::time::sleep(WINDOW).await;
        let end = mark(&load);
        let at_kill = later.when(moment);
        let (later_seen, later_lost) = self.ended(later, display).await?;
        let (seen, lost) = self.ended(load, display).await?;
        let window = (killed.at, killed.at + WINDOW);
        let mut found = measure(&seen, &lost, (killed, end), window, Some(cut));
        found.failed += later_seen.failed();
        found.lost += later_lost.len() as u64;
        found.retried += later_seen.counters.retried;
        found.dropped += later_seen.drops.len() as u64;
        rounds.kill.push(found);
        let just = Duration::from_millis(20);
        let waited = later_seen.samples.iter().filter(|sample| {
            (at_kill.saturating_sub(just)..at_kill + WINDOW / 2).contains(&sample.intended)
                && sample.ended() > at_kill
        });
        let back = waited.map(|sample| sample.ended() - at_kill.max(sample.intended)).max();
        rounds.back_ms.extend(back.map(milliseconds));
        Ok(())
    }

    /// The plain way: the node is stopped and started.
    ///
    /// # Errors
    /// It does not stop or start.
    pub async fn restart(&mut self, rounds: &mut Rounds, display: &mut Display) -> Result<()> {
        let load = self.load().await?;
        self.quiet(&load).await?;
        let stop = mark(&load);
        self.world.supervisor()?.stop(STOP).await?;
        self.world.start_supervisor()?;
        self.world.serving().await?;
        let again = load.now();
        tokio::time::sleep(WINDOW).await;
        let end = mark(&load);
        let (seen, lost) = self.ended(load, display).await?;
        let window = (stop.at, (again + AFTER).max(stop.at + WINDOW));
        rounds.restart.push(measure(&seen, &lost, (stop, end), window, None));
        Ok(())
    }
}

fn mark(load: &Load) -> Mark {
    mark_at(load, Instant::now())
}

/// Counts as they are now, at a moment that was just told.
fn mark_at(load: &Load, at: Instant) -> Mark {
    Mark { at: load.when(at), retried: load.counters().retried, writes: load.oracle().begun() }
}

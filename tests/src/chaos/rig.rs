//! A world that many cases are played in, one after the other.
//!
//! ```text
//!   load on ─▶ the step is reached ─▶ strike, operator ─▶ whoever was held goes on ─▶ the operator starts
//!   what is gone ─▶ one worker serves ─▶ nothing is left over ─▶ the next upgrade ─▶ nothing is left over
//!   ─▶ load off ─▶ everything is read back
//! ```
//!
//! What a case leaves (a generation, a descriptor, a lost write) would be found at the latest in the case
//! after it; a world in which something was found is kept as it is, and the next case gets a new one.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bumpless_control::reply::Outcome;
use bumpless_control::request::Request;
use bumpless_control::status::{Phase, Status};
use bumpless_os::process::Process;
use bumpless_shared::release::{Release, Version};
use bumpless_worker::client::Client;
use bumpless_worker::faults::{Deed, Faults, Keeps};
use bumpless_worker::stamp::Stamp;
use bumpless_worker::state::Layout;
use nix::sys::signal::Signal;
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::time::{sleep, timeout};

use super::case::{Beside, Case};
use super::fault::{FULL, Fault, File, HALT, HANG, JUMP, Side};
use super::left::Left;
use super::step::{Role, Sign, Step, Way};
use crate::authority::two_holders;
use crate::configuration::Settings;
use crate::content::Contents;
use crate::control::{AskError, Control};
use crate::handover::story::Story;
use crate::levers::Levers;
use crate::load::{Load, Plan, read_back_these};
use crate::oracle::Oracle;
use crate::process;
use crate::small_disk::{Part, SmallDisk};
use crate::tap::Flow;
use crate::world::{Result, World, release};

/// Small, and enough that something is always under way.
const PLAN: Plan = Plan {
    rate: 120,
    connections: 6,
    fresh: 10,
    puts_permille: 400,
    appends_permille: 200,
    pings: 50,
    deadline: Duration::from_secs(8),
};

/// A step that has not come by then does not come.
const REACH: Duration = Duration::from_secs(5);
/// One worker serves again within this time; what a configured deadline may take is far below.
pub const SETTLE: Duration = Duration::from_secs(8);
/// So many releases are offered at a time.
const OFFERED: usize = 30;
/// What is left over is removed within this time.
const TIDY: Duration = Duration::from_secs(3);
/// Between two looks at what can only be looked at.
const LOOK: Duration = Duration::from_millis(10);
/// The same where it takes no time to speak of.
const SOON: Duration = Duration::from_millis(1);
/// So many acknowledged requests show that it is served.
const SERVED: u64 = 5;
/// Of what was stored in earlier cases, so many contents are read back.
const SAMPLED: usize = 50;
/// The feed's speed while it is to be seen fetching, bytes a second.
const SLOW_FEED: u32 = 2_000_000;
/// A record is written about so long after the last answer that it waits for.
const RECORDING_WITHIN: Duration = Duration::from_millis(3);

/// A world, and what is remembered of it from case to case.
#[derive(Debug)]
pub struct Rig {
    /// The world.
    pub world: World,
    /// Holds its workers.
    pub levers: Levers,
    oracle: Arc<Oracle>,
    published: Vec<Release>,
    /// What a node at rest has, seen after its first upgrade.
    rest: Option<Left>,
    /// Cases played in it.
    pub cases: u32,
    parts: Vec<(&'static str, Instant)>,
    disks: Vec<(Part, SmallDisk)>,
    /// What somebody acknowledged whose word is worth nothing.
    excused: HashSet<u64>,
}

/// What a world's files lie on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disks {
    /// Where everything else lies.
    Plain,
    /// Small file systems of their own, which can be filled up.
    Small,
}

/// Their sizes.
const SMALL: [(Part, u64); 3] =
    [(Part::Records, 200 << 20), (Part::State, 400 << 20), (Part::Logbooks, 64 << 20)];

/// A case that went as it should.
#[derive(Clone, Debug, Default)]
pub struct Passed {
    /// How long it took.
    pub took: Duration,
    /// Requests of its load.
    pub requests: u64,
    /// When each part of it was over.
    pub parts: Vec<(&'static str, Duration)>,
}

/// A case that did not.
#[derive(Clone, Debug, Default)]
pub struct Broken {
    /// What is wrong, in words.
    pub what: Vec<String>,
    /// Acknowledged operations that are not there.
    pub lost: u64,
}

impl From<String> for Broken {
    fn from(what: String) -> Broken {
        Broken { what: vec![what], lost: 0 }
    }
}

/// Who may serve in the end.
type Allowed = Vec<Version>;

fn settings() -> Settings {
    Settings {
        probation: Duration::from_millis(150),
        // No verdict of "bad" ends a release for good; those of "wrong" and an operator's do.
        attempts: 100,
        start_deadline: Duration::from_millis(2500),
        sync_stall: Duration::from_millis(1500),
        drain: Duration::from_secs(1),
        goaway_stagger: Duration::from_millis(50),
        heartbeat: Duration::from_millis(100),
        missed: 8,
        automatic: false,
        check_every: Duration::from_secs(3600),
        more: MORE.to_owned(),
    }
}

/// Deadlines that are reached in a case, and figures of speed that say nothing here.
const MORE: &str = "\
[worker]
canary = \"100ms\"
relay = \"2s\"

[upgrade]
retry_after = [\"100ms\"]
level_deadline = \"1500ms\"
window = \"50ms\"
cut_deadline = \"1s\"
resume_deadline = \"2s\"
persist_deadline = \"1500ms\"
retire_deadline = \"800ms\"
kill_alarm = \"1s\"
stop_deadline = \"3s\"
reserve = \"1MiB\"
p99_floor = \"60s\"
";

impl Rig {
    /// Release 1.0.0 serves, and one upgrade has been made. `None` where the kernel does not let us mount
    /// such disks.
    ///
    /// # Errors
    /// It does not come so far.
    pub async fn start(seed: u64, on: Disks) -> Result<Option<Rig>> {
        let mut world = World::prepare(settings()).await?;
        world.strip()?;
        let mut disks = Vec::new();
        if on == Disks::Small {
            for (part, bytes) in SMALL {
                let Some(disk) = SmallDisk::mount(&mut world, part, bytes)? else { return Ok(None) };
                disks.push((part, disk));
            }
        }
        let levers = Levers::listen(&world.folder().join("lever"))?;
        let mut rig = Rig {
            world,
            levers,
            oracle: Arc::new(Oracle::of(Contents::small(seed))),
            published: Vec::new(),
            rest: None,
            cases: 0,
            parts: Vec::new(),
            disks,
            excused: HashSet::new(),
        };
        rig.publish(None)?;
        rig.world.start_supervisor()?;
        rig.world.first_install().await?;
        let next = rig.publish(None)?;
        rig.upgrade_well(&next).await?;
        rig.world.serving().await?;
        rig.rest = Some(rig.tidy(None).await?);
        Ok(Some(rig))
    }

    /// The next release; layouts take turns.
    fn publish(&mut self, keeps: Option<Keeps>) -> Result<Release> {
        let number = self.published.len();
        let layout = if number.is_multiple_of(2) { Layout::ByName } else { Layout::ByKind };
        let faults = Faults { lever: Some(self.levers.path().to_owned()), keeps, ..Faults::default() };
        let stamp = Stamp { faults, ..release(&format!("1.{number}.0"), layout)? };
        if let Some(long_ago) = number.checked_sub(OFFERED) {
            self.world.withdraw(&self.published[long_ago].version)?;
        }
        let release = self.world.publish(&stamp)?;
        self.published.push(release.clone());
        Ok(release)
    }

    /// A release above what serves and above `behind` that may run; published if there is none.
    pub(super) async fn fresh(&mut self, behind: Option<&Release>) -> Result<Release> {
        let status = self.world.control().status().await?;
        let serving = status.serving.ok_or("nobody serves")?;
        let place = |version: &Version| self.published.iter().position(|it| it.version == *version);
        let from =
            behind.and_then(|it| place(&it.version)).max(place(&serving.release)).map_or(0, |at| at + 1);
        let sound = |it: &&Release| !status.quarantined.iter().any(|bad| bad.sha256 == it.sha256);
        if let Some(found) = self.published.iter().skip(from).find(sound) {
            return Ok(found.clone());
        }
        self.publish(None)
    }

    /// Plays a case.
    ///
    /// # Errors
    /// What was found.
    pub async fn play(&mut self, case: Case, random: &mut SmallRng) -> std::result::Result<Passed, Broken> {
        self.cases += 1;
        self.excused.clear();
        self.parts.clear();
        let begun = Instant::now();
        let plan = match case.fault {
            // Of logs it cannot be said afterwards which entries were only its word.
            Fault::KeepsNothing => Plan { appends_permille: 0, ..PLAN },
            _ => PLAN,
        };
        let load = self.load(plan).await.map_err(said)?;
        let mut broken = Broken::default();
        if let Err(error) = self.strike_and_settle(case, &load, random).await {
            broken.what.push(error.to_string());
        }
        let (requests, failures) = self.read_back(load, random, &mut broken).await;
        let refused = |why: &String| why.contains("refused") && case.fault.refuses();
        if !failures.iter().all(refused) {
            broken.what.push(format!("{} requests failed, such as {failures:?}", failures.len()));
        }
        if !broken.what.is_empty() {
            return Err(broken);
        }
        self.parts.push(("read back", Instant::now()));
        let mut from = begun;
        let parts =
            self.parts.drain(..).map(|(name, at)| (name, at - std::mem::replace(&mut from, at))).collect();
        Ok(Passed { took: begun.elapsed(), requests, parts })
    }

    async fn strike_and_settle(&mut self, case: Case, load: &Load, random: &mut SmallRng) -> Result<()> {
        served(load, SETTLE).await?;
        let old = self.world.control().status().await?.serving.ok_or("nobody serves")?;
        let new = match case.fault {
            Fault::KeepsNothing => self.publish(Some(Keeps::Nothing))?,
            _ => self.fresh(None).await?,
        };
        let before = self.oracle.begun();
        let other = self.fresh(Some(&new)).await?;
        let mut cast = Cast { old: old.release, old_pid: old.pid, new, other };
        self.parts.push(("begin", Instant::now()));
        let mut story = self.reach(case.step, &mut cast, random).await?;
        self.parts.push(("reach", Instant::now()));
        let widened = self.strike(case, &cast, load, random).await?;
        self.parts.push(("strike", Instant::now()));
        let settled = self.settled(load).await?;
        self.parts.push(("settle", Instant::now()));
        if case.fault == Fault::KeepsNothing {
            self.excused = self.oracle.among(before..u64::MAX).into_iter().collect();
        }
        let outcome = match &mut story {
            Some(story) => {
                timeout(SETTLE, story.ended()).await.map_err(|_| "nobody was told how it ended")?
            }
            None => None,
        };
        let serving = settled.serving.ok_or("nobody serves")?.release;
        let allowed = allowed(case, &cast, &widened, outcome.as_ref());
        if !allowed.contains(&serving) {
            let words: Vec<&str> = allowed.iter().map(Version::as_str).collect();
            let cast = format!("{} served, {} was upgraded to", cast.old, cast.new.version);
            return Err(format!("{serving} serves; {words:?} may ({cast}; outcome {outcome:?})").into());
        }
        self.tidy(None).await?;
        let next = match case.fault {
            // It is quarantined, and a sound one has to be above it.
            Fault::KeepsNothing => self.fresh(Some(&cast.new)).await?,
            _ => self.fresh(None).await?,
        };
        self.parts.push(("tidy", Instant::now()));
        self.upgrade_well(&next).await?;
        self.settled(load).await?;
        self.parts.push(("next", Instant::now()));
        self.tidy(self.rest.clone().as_ref()).await?;
        self.parts.push(("tidy again", Instant::now()));
        Ok(())
    }

    /// Brings the step about.
    async fn reach(&mut self, step: Step, cast: &mut Cast, random: &mut SmallRng) -> Result<Option<Story>> {
        let control = self.world.control();
        let sign = step.sign();
        if let Sign::Held(role, point, nth) = sign {
            self.levers.hold(cast.release(role), point, nth);
        }
        if step.way() == Way::BackOut {
            self.levers.hold(&cast.old, "Mark Before", 1);
        }
        if step == Step::Fetching {
            self.world.turn_tap(Flow::Throttled(SLOW_FEED));
        }
        let mut story = match step.way() {
            Way::Stay => None,
            Way::Cold => {
                Process::open(cast.old_pid)?.kill()?;
                None
            }
            Way::Forward | Way::BackOut | Way::RollBack | Way::Reverse => {
                Some(Story::begin(control.clone(), &cast.new))
            }
        };
        let reaching = async {
            match step.way() {
                Way::Stay | Way::Cold | Way::Forward => {}
                Way::BackOut => {
                    self.held(&cast.old, "Mark Before", story.as_mut()).await?;
                    control.ask(&Request::Rollback { wait: false }, |_, _| ()).await?;
                }
                Way::RollBack => {
                    on_probation(story.as_mut()).await?;
                    self.victim(Role::New, cast)?.process.kill()?;
                }
                Way::Reverse => {
                    on_probation(story.as_mut()).await?;
                    control.ask(&Request::Rollback { wait: false }, |_, _| ()).await?;
                }
            }
            match &sign {
                Sign::Now => {}
                Sign::Told(phase) => {
                    let story = story.as_mut().ok_or("there is nobody to tell it")?;
                    story.until(phase.clone()).await?;
                }
                Sign::Held(role, point, _) => {
                    let release = cast.release(*role).clone();
                    let held = self.held(&release, point, story.as_mut()).await?;
                    if *role == Role::Old {
                        cast.old_pid = held;
                    }
                }
            }
            Result::Ok(())
        };
        let reached = timeout(REACH, reaching).await;
        reached.map_err(|_| format!("the step did not come within {REACH:?}"))??;
        if step == Step::Recording {
            self.levers.free();
            sleep(RECORDING_WITHIN.mul_f64(random.random())).await;
        }
        Ok(story)
    }

    /// Waits until a worker of this release is held there, or the upgrade ends without that.
    async fn held(&self, release: &Version, point: &str, story: Option<&mut Story>) -> Result<i32> {
        let held = self.levers.until(|it| it.release == *release && it.at.as_deref() == Some(point));
        let Some(story) = story else { return Ok(held.await.pid) };
        let ended = async {
            while story.next().await.is_some() {}
            story.ended().await
        };
        tokio::select! {
            biased;
            held = held => Ok(held.pid),
            outcome = ended => Err(format!("the upgrade ended before {point}: {outcome:?}").into()),
        }
    }

    fn victim(&self, role: Role, cast: &Cast) -> Result<Victim> {
        let pid = match role {
            Role::Old => cast.old_pid,
            Role::New => {
                let mut connected = self.levers.connected().into_iter();
                let new = connected.rfind(|it| it.release == cast.new.version);
                new.ok_or("there is no new worker")?.pid
            }
        };
        Victim::open(pid)
    }

    /// The fault and the operator, in either order; then everybody goes on who can. Returns what the
    /// operator's word may have changed.
    async fn strike(
        &mut self,
        case: Case,
        cast: &Cast,
        load: &Load,
        random: &mut SmallRng,
    ) -> Result<Allowed> {
        let operator_first = random.random_bool(0.3);
        let asked = if operator_first { Some(self.ask(case.beside, cast).await?) } else { None };
        let mut stopped = Vec::new();
        let mut supervisor = Supervisor::Runs;
        // Where it is being ended anyway it may have gone by now.
        let (old, new) = (self.victim(Role::Old, cast)?, self.victim(Role::New, cast).ok());
        match case.fault {
            Fault::KillNew => kill(new).await?,
            Fault::KillOld => kill(Some(old)).await?,
            Fault::KillBoth => {
                old.process.kill()?;
                kill(new).await?;
                kill(Some(old)).await?;
            }
            Fault::KillSupervisor => {
                self.world.kill_supervisor()?;
                supervisor = Supervisor::Killed;
            }
            Fault::KillAll => {
                self.world.kill_supervisor()?;
                old.process.kill()?;
                kill(new).await?;
                kill(Some(old)).await?;
                supervisor = Supervisor::Gone;
            }
            Fault::HaltNew | Fault::HangNew => {
                if let Some(new) = new {
                    stopped.push(new.stop().await?);
                }
            }
            Fault::HaltOld | Fault::HangOld => stopped.push(old.stop().await?),
            Fault::HaltSupervisor | Fault::HangSupervisor => {
                let victim = Victim::open(self.world.supervisor()?.pid().cast_signed())?;
                stopped.push(victim.stop().await?);
                supervisor = Supervisor::Stopped;
            }
            Fault::CloseLink => self.levers.make(&cast.new.version, Deed::CloseLink),
            Fault::Does(deed) => self.levers.make(&cast.new.version, deed),
            Fault::KeepsNothing => {}
            Fault::Full(part) => self.disk(part)?.fill()?,
            Fault::Sync(file) => self.world.injected().fail_sync(&self.part(file)?, 1)?,
            Fault::ClockOn => self.world.injected().step_clock(JUMP)?,
            Fault::ClockBack => self.world.injected().step_clock(-JUMP)?,
        }
        let asked = match (asked, supervisor) {
            (Some(asked), _) => Asked::Answered(asked),
            (None, Supervisor::Runs) => Asked::Answered(self.ask(case.beside, cast).await?),
            // It is asked as soon as it can hear.
            (None, Supervisor::Killed | Supervisor::Gone | Supervisor::Stopped) => {
                Asked::Later(tokio::spawn(keep_asking(self.world.control(), request(case.beside, cast))))
            }
        };
        self.levers.free();
        self.world.turn_tap(Flow::Open);
        match (case.fault, supervisor) {
            (Fault::HangSupervisor, _) => {
                sleep(HANG).await;
                self.world.kill_supervisor()?;
                self.world.start_supervisor()?;
            }
            (Fault::Full(part), _) => {
                sleep(FULL).await;
                self.disk(part)?.free()?;
            }
            (Fault::Sync(File::Database), _) if case.step == Step::Draining => {
                // Nobody else can serve any more: it reads on, writes nothing and says what to do, and that is
                // what an operator does.
                let told = |status: &Status| {
                    status
                        .alarms
                        .iter()
                        .any(|alarm| alarm.text.contains("repair the disk and restart the node"))
                };
                self.world.control().until("an alarm about the database", SETTLE, told).await?;
                self.world.injected().cease()?;
                self.world.supervisor()?.stop(SETTLE).await?;
                self.world.start_supervisor()?;
            }
            (Fault::Sync(_) | Fault::ClockOn | Fault::ClockBack, _) => {
                sleep(FULL).await;
                self.world.injected().cease()?;
            }
            (Fault::HaltNew | Fault::HaltOld | Fault::HaltSupervisor, _) => {
                sleep(HALT).await;
                for process in stopped {
                    if !process.has_ended()? {
                        process.signal(Signal::SIGCONT)?;
                    }
                }
            }
            (_, Supervisor::Killed) => {
                if case.step.serves_alone() {
                    served(load, SETTLE).await.map_err(|error| format!("without a supervisor {error}"))?;
                }
                self.world.start_supervisor()?;
            }
            (_, Supervisor::Gone) => drop(self.world.start_supervisor()?),
            (_, Supervisor::Runs | Supervisor::Stopped) => {}
        }
        let outcome = match asked {
            Asked::Answered(outcome) => outcome,
            Asked::Later(asking) => asking.await?,
        };
        Ok(match (case.beside, outcome) {
            (Beside::Nothing, _) | (_, Some(Outcome::Refused { .. } | Outcome::NothingToDo { .. })) => vec![],
            (Beside::Rollback, _) => {
                let all = self.published.iter().map(|it| it.version.clone());
                let before = all.take_while(|it| *it != cast.old).chain([cast.old.clone()]);
                before.collect()
            }
            (Beside::Upgrade, _) => vec![cast.other.version.clone(), cast.old.clone()],
        })
    }

    fn disk(&self, part: Part) -> Result<&SmallDisk> {
        let found = self.disks.iter().find(|(it, _)| *it == part).map(|(_, disk)| disk);
        found.ok_or_else(|| "this world has no such disk".into())
    }

    /// What the path of a file contains whose sync is to fail.
    fn part(&self, file: File) -> Result<String> {
        if file != File::Database {
            return Ok(file.part().to_owned());
        }
        let mut newest = 0;
        for entry in std::fs::read_dir(self.world.seen(self.world.state_dir()).join("state"))? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("gen-")?.parse::<u64>().ok());
            newest = newest.max(number.unwrap_or(0));
        }
        Ok(format!("gen-{newest}{}", file.part()))
    }

    /// Asks a supervisor that can hear; not for the end.
    async fn ask(&self, beside: Beside, cast: &Cast) -> Result<Option<Outcome>> {
        let Some(request) = request(beside, cast) else { return Ok(None) };
        let control = self.world.control();
        let asked = timeout(SETTLE, control.ask(&request, |_, _| ())).await;
        Ok(asked.map_err(|_| "the supervisor does not answer an operator").map(|outcome| outcome.ok())?)
    }

    /// Waits until one worker serves, clients notice, and nothing is under way.
    pub(super) async fn settled(&self, load: &Load) -> Result<Status> {
        let control = self.world.control();
        let settling = async {
            loop {
                let quiet = |status: &Status| {
                    status.serving.is_some() && status.upgrade.is_none() && status.draining.is_none()
                };
                let first = control.until("one worker that serves alone", SETTLE, quiet).await?;
                served(load, SETTLE).await?;
                let second = control.status().await?;
                let pid = |status: &Status| status.serving.as_ref().map(|serving| serving.pid);
                if quiet(&second) && pid(&first) == pid(&second) {
                    return Ok(second);
                }
            }
        };
        timeout(SETTLE, settling).await.map_err(|_| format!("it did not settle within {SETTLE:?}"))?
    }

    /// Waits until nothing is left over.
    pub(super) async fn tidy(&mut self, rest: Option<&Left>) -> Result<Left> {
        let begun = Instant::now();
        loop {
            let status = self.world.control().status().await?;
            let left = Left::look(&mut self.world, &status)?;
            match left.too_much(rest) {
                None => return Ok(left),
                Some(what) if begun.elapsed() > TIDY => return Err(format!("left over: {what}").into()),
                Some(_) => sleep(LOOK).await,
            }
        }
    }

    async fn upgrade_well(&mut self, release: &Release) -> Result<()> {
        let mut story = Story::begin(self.world.control(), release);
        let ended = timeout(SETTLE, story.ended()).await;
        match ended.map_err(|_| format!("the next upgrade did not end within {SETTLE:?}"))? {
            Some(Outcome::Done { .. }) => Ok(()),
            other => Err(format!("the next upgrade failed: {other:?}").into()),
        }
    }

    /// A load of what this world remembers.
    pub(super) async fn load(&self, plan: Plan) -> Result<Load> {
        Ok(Load::start(self.world.target()?, plan, Arc::clone(&self.oracle)).await?)
    }

    /// Bytes that were acknowledged so far, appends left out.
    pub(super) fn stored(&self) -> u64 {
        self.oracle.all().into_iter().map(|number| self.oracle.content(number).len() as u64).sum()
    }

    /// Ends the load, and looks for what was acknowledged. Returns how many requests there were, and what
    /// became of those that failed.
    pub(super) async fn read_back(
        &mut self,
        load: Load,
        random: &mut SmallRng,
        broken: &mut Broken,
    ) -> (u64, Vec<String>) {
        let (first, appends) = (load.first_write(), Arc::clone(load.appends()));
        let seen = load.stop().await;
        if let Some((one, other)) = two_holders(&seen.sightings) {
            broken.what.push(format!("two holders: {one:?} and {other:?}"));
        }
        let mut numbers = self.oracle.among(first..u64::MAX);
        numbers.extend((0..SAMPLED).filter_map(|_| self.oracle.pick(random.random_range(0..first.max(1)))));
        match self.world.client().await {
            Ok(client) => self.compare(&client, numbers, &appends, broken).await,
            Err(error) => broken.what.push(format!("nothing can be read back: {error}")),
        }
        let failures = if seen.failed() > 0 { seen.failures } else { Vec::new() };
        (seen.samples.len() as u64, failures)
    }

    async fn compare(
        &self,
        client: &Client,
        numbers: Vec<u64>,
        appends: &crate::appends::Appends,
        broken: &mut Broken,
    ) {
        let mut lost = read_back_these(client, &self.oracle, numbers).await;
        let mut words = Vec::new();
        lost.retain(|(number, _)| {
            let excused = self.excused.contains(number);
            words.extend(excused.then_some(*number));
            !excused
        });
        self.oracle.forget(&words);
        let wrong = appends.check(client).await;
        broken.lost += (lost.len() + wrong.len()) as u64;
        if let Some((number, why)) = lost.first() {
            broken.what.push(format!("{} acknowledged writes are lost, such as {number}: {why}", lost.len()));
        }
        if let Some(first) = wrong.first() {
            broken.what.push(format!("{} appends are wrong: {first}", wrong.len()));
        }
    }

    /// Ends everything and keeps the folder, with what was found in it.
    ///
    /// # Errors
    /// A process cannot be ended.
    pub fn keep(self, what: &str) -> Result<PathBuf> {
        let Rig { world, levers, .. } = self;
        drop(levers);
        std::fs::write(world.folder().join("found"), what)?;
        world.keep()
    }
}

/// Who plays.
struct Cast {
    old: Version,
    old_pid: i32,
    new: Release,
    other: Release,
}

impl Cast {
    fn release(&self, role: Role) -> &Version {
        match role {
            Role::Old => &self.old,
            Role::New => &self.new.version,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Supervisor {
    Runs,
    /// Nobody else was touched.
    Killed,
    /// With both workers.
    Gone,
    Stopped,
}

enum Asked {
    Answered(Option<Outcome>),
    Later(tokio::task::JoinHandle<Option<Outcome>>),
}

fn request(beside: Beside, cast: &Cast) -> Option<Request> {
    match beside {
        Beside::Nothing => None,
        Beside::Rollback => Some(Request::Rollback { wait: false }),
        Beside::Upgrade => {
            Some(Request::Upgrade { version: Some(cast.other.version.clone()), wait: false, rehearse: false })
        }
    }
}

async fn on_probation(story: Option<&mut Story>) -> Result<()> {
    story.ok_or("there is no upgrade")?.until(Phase::Probation).await?;
    Ok(())
}

/// As an operator does whose supervisor is not there: again, until there is an answer.
async fn keep_asking(control: Control, request: Option<Request>) -> Option<Outcome> {
    let request = request?;
    let asking = async {
        loop {
            match control.ask(&request, |_, _| ()).await {
                Ok(outcome) => return Some(outcome),
                Err(AskError::Socket(_)) => sleep(LOOK).await,
                Err(_) => return None,
            }
        }
    };
    timeout(SETTLE, asking).await.ok().flatten()
}

/// A process that something is done to.
struct Victim {
    pid: u32,
    process: Process,
}

impl Victim {
    fn open(pid: i32) -> Result<Victim> {
        Ok(Victim { pid: pid.cast_unsigned(), process: Process::open(pid)? })
    }

    /// SIGSTOP, until it stands still.
    async fn stop(self) -> Result<Process> {
        self.process.signal(Signal::SIGSTOP)?;
        while !self.process.has_ended()? && !process::is_stopped(self.pid).unwrap_or(false) {
            sleep(SOON).await;
        }
        Ok(self.process)
    }
}

/// SIGKILL, until it is dead.
async fn kill(victim: Option<Victim>) -> Result<()> {
    if let Some(Victim { process, .. }) = victim {
        process.kill()?;
        process.ended().await?;
    }
    Ok(())
}

/// Who may serve in the end: as the step and the fault leave it, and as what was asked for may change it;
/// what the supervisor said about the end is what has to be.
fn allowed(case: Case, cast: &Cast, widened: &[Version], outcome: Option<&Outcome>) -> Allowed {
    let (old, new) = (cast.old.clone(), cast.new.version.clone());
    let mut allowed = match case.fault.leaves(case.step) {
        Side::Old => vec![old.clone()],
        Side::New => vec![new.clone()],
        Side::Either => vec![old.clone(), new.clone()],
    };
    if widened.is_empty() {
        match outcome {
            Some(Outcome::Done { answer: bumpless_control::reply::Answer::Upgraded(_) }) => {
                allowed.retain(|it| *it == new)
            }
            Some(Outcome::Failed { .. } | Outcome::RolledBack { .. } | Outcome::Done { .. }) => {
                allowed.retain(|it| *it == old)
            }
            Some(Outcome::Refused { .. } | Outcome::NothingToDo { .. }) | None => {}
        }
    }
    allowed.extend(widened.iter().cloned());
    allowed
}

/// Waits until so many more requests are answered.
async fn served(load: &Load, within: Duration) -> Result<()> {
    let count = || load.oracle().count() + load.appends().count();
    let target = count() + SERVED;
    let waiting = async {
        while count() < target {
            sleep(LOOK).await;
        }
    };
    timeout(within, waiting).await.map_err(|_| format!("no write is acknowledged within {within:?}").into())
}

fn said(error: impl std::fmt::Display) -> Broken {
    Broken::from(error.to_string())
}

//! `cargo chaos`: everything that can die, hang or be cut off, at every step of an upgrade.
//!
//! A [`case`] is a [`step`], a [`fault`] and what the operator does beside it. The cases are played one
//! after the other in the same world ([`rig`]): real processes, real sockets, an open-loop load. After each
//!
//! - exactly one worker serves within a bound, and it runs a release that may serve in this case;
//! - every acknowledged write is there, every append exactly once and in order;
//! - there never were two holders;
//! - nothing is left over: processes, generations, logbooks, descriptors, releases, mounts ([`left`]);
//! - the next upgrade works.
//!
//! [`soak`] does all that in no order, for as long as is asked for.
//!
//! A step is not waited for by time: a worker is held at its point of it ([`crate::levers`]), or the
//! supervisor says that it has come.

pub mod arguments;
pub mod case;
pub mod fault;
pub mod left;
pub mod report;
pub mod rig;
pub mod soak;
pub mod step;

use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Parser;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use self::arguments::Arguments;
use self::case::Case;
use self::report::{Played, Report};
use self::rig::{Broken, Disks, Passed, Rig};
use crate::binaries::Binaries;
use crate::display::Display;
use crate::left_out::left_out;
use crate::world::Result;

/// So many cases are played in a world; its feed has two more releases after each.
const CASES: u32 = 40;
/// Without any other word, cases are played for so many minutes.
const MINUTES: f64 = 3.0;

/// The program.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        let all = Case::all();
        all.iter().for_each(|case| println!("{case}"));
        println!("{} cases", all.len());
        return ExitCode::SUCCESS;
    }
    let seed = arguments.seed.unwrap_or_else(rand::random);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no runtime: {error}")),
    };
    let told = runtime.block_on(async {
        tokio::select! {
            told = told(&arguments, seed) => Some(told),
            _ = tokio::signal::ctrl_c() => None,
        }
    });
    match told {
        None => fail("interrupted; every process that it had started was ended"),
        Some(Err(error)) => fail(&error.to_string()),
        Some(Ok(Told { json, lines, broken })) => {
            if arguments.json {
                println!("{json}");
            } else {
                lines.iter().for_each(|line| println!("{line}"));
            }
            broken.map_or(ExitCode::SUCCESS, |why| fail(&why))
        }
    }
}

/// What is said at the end.
struct Told {
    json: serde_json::Value,
    lines: Vec<String>,
    broken: Option<String>,
}

async fn told(arguments: &Arguments, seed: u64) -> Result<Told> {
    let mut display = Display::new();
    display.heading(&format!("bumpless: faults at every step of an upgrade (seed {seed})"));
    display.begin("build");
    tokio::task::block_in_place(Binaries::build).map_err(|error| error.to_string())?;
    display.done("programs");
    if let Some(minutes) = arguments.soak {
        let mut random = SmallRng::seed_from_u64(seed);
        let soak = soak::run(minutes, seed, &mut random, &mut display).await?;
        let broken = (!soak.violations.is_empty()).then(|| soak.violations.join("\n"));
        return Ok(Told { json: soak.json(), lines: Vec::new(), broken });
    }
    let report = run(arguments, seed, display).await?;
    let broken = match report.violations() {
        0 => None,
        count => Some(format!("the promise was broken in {count} cases: see above")),
    };
    Ok(Told { json: report.json(), lines: report.table(), broken })
}

fn fail(why: &str) -> ExitCode {
    eprintln!("\ncargo chaos: {why}");
    ExitCode::FAILURE
}

/// Plays what is asked for.
///
/// # Errors
/// Nothing can be played.
pub async fn run(arguments: &Arguments, seed: u64, display: Display) -> Result<Report> {
    let begun = Instant::now();
    let matrix = Case::all();
    let hand = Hand::new(&matrix, arguments, seed)?;
    let table = Arc::new(Table {
        begun,
        hand: Mutex::new(hand),
        seen: Mutex::new((display, Report::new(seed))),
        seed,
    });
    let mut players = tokio::task::JoinSet::new();
    for _ in 0..arguments.worlds {
        players.spawn(play(table.clone()));
    }
    while let Some(ended) = players.join_next().await {
        ended??;
    }
    let mut seen = table.seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.1.seconds = begun.elapsed().as_secs_f64();
    Ok(seen.1.clone())
}

/// What players share.
struct Table {
    begun: Instant,
    hand: Mutex<Hand>,
    seen: Mutex<(Display, Report)>,
    seed: u64,
}

/// The cases that are still to be played.
struct Hand {
    dealt: u64,
    total: Option<usize>,
    until: Option<Instant>,
    /// In this order; empty: at random for ever.
    cases: VecDeque<Case>,
    matrix: Vec<Case>,
    random: SmallRng,
}

impl Hand {
    fn new(matrix: &[Case], arguments: &Arguments, seed: u64) -> Result<Hand> {
        let mut random = SmallRng::seed_from_u64(seed);
        let any = |random: &mut SmallRng| matrix[random.random_range(0..matrix.len())];
        let mut cases: VecDeque<Case> = VecDeque::new();
        if arguments.all {
            cases.extend(matrix);
        }
        for number in &arguments.case {
            cases.push_back(
                *matrix.get(*number).ok_or_else(|| format!("there is no case {number}; see --list"))?,
            );
        }
        if let Some(runs) = arguments.runs {
            cases.extend((0..runs).map(|_| any(&mut random)));
        }
        let minutes = arguments.minutes.or(cases.is_empty().then_some(MINUTES));
        let until = minutes.map(|minutes| Instant::now() + Duration::from_secs_f64(minutes.max(0.0) * 60.0));
        let total = (!cases.is_empty()).then_some(cases.len());
        Ok(Hand { dealt: 0, total, until, cases, matrix: matrix.to_vec(), random })
    }

    fn deal(&mut self) -> Option<(u64, Case)> {
        if self.until.is_some_and(|until| Instant::now() >= until) {
            return None;
        }
        let case = match self.total {
            Some(_) => self.cases.pop_front()?,
            None => self.matrix[self.random.random_range(0..self.matrix.len())],
        };
        self.dealt += 1;
        Some((self.dealt, case))
    }
}

/// Plays until there are no more cases.
async fn play(table: Arc<Table>) -> Result<()> {
    let (mut plain, mut small) = (None, None);
    loop {
        let dealt = table.hand.lock().unwrap_or_else(PoisonError::into_inner).deal();
        let Some((turn, case)) = dealt else { return Ok(()) };
        let mut random = SmallRng::seed_from_u64(table.seed ^ (case.number as u64).rotate_left(32) ^ turn);
        let (rig, on) = match case.fault.needs_small_disk() {
            true => (&mut small, Disks::Small),
            false => (&mut plain, Disks::Plain),
        };
        let playing = match rig.take().filter(|rig: &Rig| rig.cases < CASES) {
            Some(rig) => Some(rig),
            None => Rig::start(random.random(), on).await?,
        };
        let Some(mut playing) = playing else {
            left_out(&case.to_string(), "needs a small file system: root, or user namespaces");
            continue;
        };
        let result = playing.play(case, &mut random).await;
        let folder = match &result {
            Ok(Passed { .. }) => {
                *rig = Some(playing);
                None
            }
            Err(Broken { what, .. }) => Some(playing.keep(&format!("{case}\n{}\n", what.join("\n")))?),
        };
        table.note(Played { case, result, folder });
    }
}

impl Table {
    fn note(&self, played: Played) {
        let hand = self.hand.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, until) = (hand.total, hand.until);
        drop(hand);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (display, report) = &mut *seen;
        for line in report.note(played) {
            display.say(&line);
        }
        let progress = match (total, until) {
            (Some(total), _) => format!("{} of {total} cases", report.runs()),
            (None, Some(until)) => {
                let left = until.saturating_duration_since(Instant::now()).as_secs();
                format!("{} cases, {left} s left", report.runs())
            }
            (None, None) => format!("{} cases", report.runs()),
        };
        display.live(&format!(
            "{progress}, {} violations, {:.0} s; {}",
            report.violations(),
            self.begun.elapsed().as_secs_f64(),
            report.last()
        ));
    }
}

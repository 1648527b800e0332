//! A steady open-loop load: each request is due at its own moment, whatever happened to those before
//! it, and its latency counts from that moment.
//!
//! Requests go over long-lived connections in turn, and some over connections made for them alone.
//! Puts store contents that were never stored before and are acknowledged to the [`Oracle`]; gets ask
//! for something that was acknowledged and compare every byte.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bumpless_worker::client::{Client, Counters, Options, RequestError, Target, name_of};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::appends::Appends;
use crate::authority::Sighting;
use crate::latency::{self, Outcome, Sample};
use crate::oracle::Oracle;

/// What to ask for.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Requests per second.
    pub rate: u32,
    /// Long-lived connections.
    pub connections: usize,
    /// Of the requests of a second, so many go over a connection of their own, and a second later one
    /// more.
    pub fresh: u32,
    /// Of a thousand requests, so many are puts.
    pub puts_permille: u64,
    /// Of a thousand requests, so many are appends to logs, beside the puts. With any, [`Load::appends`] is
    /// to be asked at the end.
    pub appends_permille: u64,
    /// Questions per second for who holds, over the long-lived connections; not counted as requests.
    pub pings: u32,
    /// A request fails without a right answer within this time.
    pub deadline: Duration,
}

/// A connection of its own is kept open so long after its first request, for a second one; then its client
/// closes it.
const LINGER: Duration = Duration::from_secs(1);
/// UDP sockets over which the long-lived connections spread.
const SOCKETS: usize = 4;
/// More failures than these are counted, not described.
const DESCRIBED: usize = 20;

/// A running load.
pub struct Load {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    driver: JoinHandle<()>,
}

struct Shared {
    begun: Instant,
    began_at: SystemTime,
    first_write: u64,
    /// One for each socket; the other clients are their fresh ones and share their counters.
    roots: Vec<Client>,
    clients: Vec<Client>,
    oracle: Arc<Oracle>,
    appends: Arc<Appends>,
    samples: Mutex<Vec<Sample>>,
    sightings: Mutex<Vec<Sighting>>,
    failures: Mutex<Vec<String>>,
    drops: Mutex<Vec<DroppedConnection>>,
}

/// A connection that was ended by neither its client nor a GOAWAY; times since the load began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedConnection {
    /// When the connection was made.
    pub made: Duration,
    /// When it was gone.
    pub dropped: Duration,
    /// What the client saw.
    pub cause: String,
}

/// What a load has seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Every request.
    pub samples: Vec<Sample>,
    /// Every answer to the question who holds.
    pub sightings: Vec<Sighting>,
    /// The first failures, in words.
    pub failures: Vec<String>,
    /// Every connection dropped.
    pub drops: Vec<DroppedConnection>,
    /// The clients' own counts.
    pub counters: Counters,
}

impl Seen {
    /// Requests without a right answer.
    pub fn failed(&self) -> u64 {
        self.samples.iter().filter(|sample| sample.outcome == Outcome::Failed).count() as u64
    }
}

impl Load {
    /// Connects, then begins.
    ///
    /// # Errors
    /// Where a connection cannot be made within the plan's deadline.
    pub async fn start(target: Target, plan: Plan, oracle: Arc<Oracle>) -> Result<Load, RequestError> {
        let options = Options { deadline: plan.deadline, ..Options::default() };
        let mut roots = Vec::new();
        for _ in 0..SOCKETS.min(plan.connections.max(1)) {
            roots.push(Client::connect(target.clone(), options).await?);
        }
        let mut clients = roots.clone();
        while clients.len() < plan.connections {
            let client = roots[clients.len() % roots.len()].fresh();
            client.ping().await?;
            clients.push(client);
        }
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            began_at: SystemTime::now(),
            first_write: oracle.begun(),
            roots,
            clients,
            oracle,
            appends: Arc::new(Appends::new(rand::random())),
            samples: Mutex::default(),
            sightings: Mutex::default(),
            failures: Mutex::default(),
            drops: Mutex::default(),
        });
        let (stop, stopped) = watch::channel(false);
        let driver = tokio::spawn(drive(Arc::clone(&shared), plan, stopped));
        Ok(Load { shared, stop, driver })
    }

    /// Time since it began.
    pub fn now(&self) -> Duration {
        self.shared.begun.elapsed()
    }

    /// A moment as time since it began.
    pub fn when(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.shared.begun)
    }

    /// The clients' counts so far.
    pub fn counters(&self) -> Counters {
        self.shared.counters()
    }

    /// The number of the first content that it could write.
    pub fn first_write(&self) -> u64 {
        self.shared.first_write
    }

    /// The requests so far that were due in this time.
    pub fn due(&self, from: Duration, to: Duration) -> Vec<Sample> {
        latency::due(&lock(&self.shared.samples), from, to)
    }

    /// What was acknowledged.
    pub fn oracle(&self) -> &Arc<Oracle> {
        &self.shared.oracle
    }

    /// What was appended.
    pub fn appends(&self) -> &Arc<Appends> {
        &self.shared.appends
    }

    /// Ends it: nothing more is sent, everything under way is waited for, and what was seen comes back.
    pub async fn stop(self) -> Seen {
        self.stop.send_replace(true);
        // The driver ends when its requests have, and each of them has its deadline.
        if let Err(error) = self.driver.await {
            self.shared.describe(format!("the load itself failed: {error}"));
        }
        self.shared.collect_drops();
        let take = |failures: &Mutex<Vec<String>>| std::mem::take(&mut *lock(failures));
        Seen {
            samples: std::mem::take(&mut *lock(&self.shared.samples)),
            sightings: std::mem::take(&mut *lock(&self.shared.sightings)),
            failures: take(&self.shared.failures),
            drops: std::mem::take(&mut *lock(&self.shared.drops)),
            counters: self.shared.counters(),
        }
    }
}

async fn drive(shared: Arc<Shared>, plan: Plan, mut stopped: watch::Receiver<bool>) {
    let mut requests = JoinSet::new();
    let step = Duration::from_secs(1) / plan.rate.max(1);
    let mut pace = pace(shared.begun, step);
    let fresh_every = plan.rate.checked_div(plan.fresh).map(u64::from);
    let ping_every = plan.rate.checked_div(plan.pings).map(u64::from);
    loop {
        let (number, due) = tokio::select! {
            Some(next) = pace.recv() => next,
            _ = stopped.changed() => break,
        };
        while requests.try_join_next().is_some() {}
        let long_lived = &shared.clients[number as usize % shared.clients.len()];
        if ping_every.is_some_and(|every| number.is_multiple_of(every)) {
            requests.spawn(ping(Arc::clone(&shared), long_lived.clone()));
        }
        match fresh_every {
            Some(every) if number.is_multiple_of(every) => {
                let root = &shared.roots[(number / every) as usize % shared.roots.len()];
                let stopped = stopped.clone();
                requests.spawn(twice(Arc::clone(&shared), root.fresh(), number, due, plan, stopped));
            }
            Some(_) | None => {
                requests.spawn(request(Arc::clone(&shared), long_lived.clone(), number, due, plan));
            }
        }
    }
    requests.join_all().await;
}

/// Each request's number and when it is due, at that moment. From a thread: the runtime's own clock
/// ticks in milliseconds.
fn pace(begun: Instant, step: Duration) -> mpsc::UnboundedReceiver<(u64, Duration)> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for number in 0u64.. {
            let due = step.saturating_mul(u32::try_from(number).unwrap_or(u32::MAX));
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
            if sender.send((number, due)).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Two requests over a connection that is made for them; the second is not sent any more after the end.
async fn twice(
    shared: Arc<Shared>,
    client: Client,
    number: u64,
    due: Duration,
    plan: Plan,
    mut stopped: watch::Receiver<bool>,
) {
    request(Arc::clone(&shared), client.clone(), number, due, plan).await;
    let again = due + LINGER;
    tokio::select! {
        () = tokio::time::sleep_until(tokio::time::Instant::from_std(shared.begun) + again) => {}
        _ = stopped.changed() => return,
    }
    request(shared, client, number.rotate_right(8), again, plan).await;
}

async fn request(shared: Arc<Shared>, client: Client, number: u64, due: Duration, plan: Plan) {
    let late = shared.begun.elapsed().saturating_sub(due);
    // Spread evenly and the same in every run.
    let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    let kind = random % 1000;
    if kind >= 1000u64.saturating_sub(plan.appends_permille) {
        let result = append(&shared.appends, &client).await;
        return shared.note(due, late, result);
    }
    let known =
        shared.oracle.pick(random % shared.oracle.count().max(1)).filter(|_| kind >= plan.puts_permille);
    let result = match known {
        Some(number) => get(&client, &shared.oracle.content(number)).await,
        None => {
            let (number, content) = shared.oracle.invent();
            let result = client.put(&content).await;
            if result.is_ok() {
                shared.oracle.acknowledge(number);
            }
            result.map(|_| ()).map_err(|error| error.to_string())
        }
    };
    shared.note(due, late, result);
}

async fn append(appends: &Appends, client: &Client) -> Result<(), String> {
    let begun = appends.begin();
    let index = client.append(begun.log, &begun.content).await.map_err(|error| error.to_string())?;
    appends.acknowledge(begun, index);
    Ok(())
}

async fn get(client: &Client, expected: &[u8]) -> Result<(), String> {
    match client.get(name_of(expected)).await {
        Ok(Some(content)) if content == expected => Ok(()),
        Ok(Some(_)) => Err("other content than was stored".to_owned()),
        Ok(None) => Err("an acknowledged write is not there".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

async fn ping(shared: Arc<Shared>, client: Client) {
    let asked = shared.begun.elapsed();
    match client.ping().await {
        Ok(pong) => {
            let answered = shared.begun.elapsed();
            lock(&shared.sightings).push(Sighting {
                asked,
                answered,
                term: pong.term,
                release: pong.release,
            });
        }
        Err(error) => shared.describe(format!("ping at {:.3} s: {error}", asked.as_secs_f64())),
    }
}

impl Shared {
    fn note(&self, due: Duration, late: Duration, result: Result<(), String>) {
        let outcome = match result {
            Ok(()) => Outcome::Answered,
            Err(why) => {
                self.describe(format!("request due at {:.3} s: {why}", due.as_secs_f64()));
                Outcome::Failed
            }
        };
        let latency = self.begun.elapsed().saturating_sub(due);
        lock(&self.samples).push(Sample { intended: due, late, latency, outcome });
    }

    fn describe(&self, failure: String) {
        let mut failures = lock(&self.failures);
        if failures.len() < DESCRIBED {
            failures.push(failure);
        }
    }

    fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for root in &self.roots {
            let Counters { requests, failed, retried, dropped, moved, connections } = root.counters();
            sum.requests += requests;
            sum.failed += failed;
            sum.retried += retried;
            sum.dropped += dropped;
            sum.moved += moved;
            sum.connections += connections;
        }
        sum
    }

    fn collect_drops(&self) {
        let since = |moment: SystemTime| moment.duration_since(self.began_at).unwrap_or_default();
        let mut drops = lock(&self.drops);
        for drop in self.roots.iter().flat_map(Client::take_drops) {
            drops.push(DroppedConnection {
                made: since(drop.made_at),
                dropped: since(drop.dropped_at),
                cause: drop.cause,
            });
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many reads of [`read_back`] are under way at a time.
const READERS: usize = 16;

/// Reads back every acknowledged write and returns the numbers of those that are not there byte for
/// byte, with the reason.
pub async fn read_back(client: &Client, oracle: &Oracle) -> Vec<(u64, String)> {
    read_back_these(client, oracle, oracle.all()).await
}

/// The same for these of them alone.
pub async fn read_back_these(client: &Client, oracle: &Oracle, numbers: Vec<u64>) -> Vec<(u64, String)> {
    let mut left: VecDeque<u64> = numbers.into();
    let mut reads = JoinSet::new();
    let mut lost = Vec::new();
    loop {
        while reads.len() < READERS
            && let Some(number) = left.pop_front()
        {
            let (client, expected) = (client.clone(), oracle.content(number));
            reads.spawn(async move { (number, get(&client, &expected).await) });
        }
        match reads.join_next().await {
            Some(Ok((_, Ok(())))) => {}
            Some(Ok((number, Err(why)))) => lost.push((number, why)),
            Some(Err(error)) => lost.push((u64::MAX, error.to_string())),
            None => return lost,
        }
    }
}

//! Releases of version 1 and 2 beside each other, in both directions, and what version 1 cannot express:
//! appends to logs.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bumpless_shared::control::{Command, Origin, Report, Trouble};
use bumpless_shared::digest::Digest;
use bumpless_worker::client::{Client, RequestError};
use bumpless_worker::faults::Faults;
use bumpless_worker::state::Layout;
use tokio::task::JoinHandle;

use crate::load::{Load, check, store};
use crate::supervisor::{Node, ONE, Supervisor, earlier, release};

const LOGS: u8 = 3;

fn log(number: u8) -> Digest {
    Digest([number; 32])
}

/// Appends from one task: its own number, then a running one, to every log in turn.
struct Appending {
    stop: Arc<AtomicBool>,
    running: JoinHandle<Vec<(Digest, u64, Vec<u8>)>>,
    progress: tokio::sync::watch::Receiver<usize>,
}

impl Appending {
    fn start(client: Client, task: u64) -> Appending {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, progress) = tokio::sync::watch::channel(0);
        let stopping = stop.clone();
        let running = tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for number in 0u64.. {
                if stopping.load(Ordering::Relaxed) {
                    break;
                }
                let log = log((number % u64::from(LOGS)) as u8);
                let content = [task.to_le_bytes(), number.to_le_bytes()].concat();
                let index = client.append(log, &content).await.unwrap();
                acknowledged.push((log, index, content));
                told.send_replace(acknowledged.len());
            }
            acknowledged
        });
        Appending { stop, running, progress }
    }

    async fn went_on(&mut self, more: usize) {
        let until = *self.progress.borrow() + more;
        let waiting = self.progress.wait_for(|count| *count >= until);
        tokio::time::timeout(std::time::Duration::from_secs(30), waiting).await.unwrap().unwrap();
    }

    async fn stop(self) -> Vec<(Digest, u64, Vec<u8>)> {
        self.stop.store(true, Ordering::Relaxed);
        self.running.await.unwrap()
    }
}

async fn entries(client: &Client, log: Digest) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    loop {
        let page = client.read_log(log, entries.len() as u64).await.unwrap();
        if page.entries.is_empty() {
            assert_eq!(page.length, entries.len() as u64);
            return entries;
        }
        entries.extend(page.entries);
    }
}

/// Each acknowledged append is where it was said to be, nothing is there twice, and what one task
/// appended to a log is there in the order in which it did. `acknowledged`: of each task, in order.
async fn exactly_once(client: &Client, acknowledged: &[Vec<(Digest, u64, Vec<u8>)>]) {
    let mut logs = HashMap::new();
    for number in 0..LOGS {
        let entries = entries(client, log(number)).await;
        let mut seen: Vec<_> = entries.clone();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), entries.len(), "an append is there twice");
        logs.insert(log(number), entries);
    }
    let mut count = 0;
    for task in acknowledged {
        let mut last: HashMap<Digest, u64> = HashMap::new();
        for (log, index, content) in task {
            assert_eq!(logs[log].get(*index as usize), Some(content), "entry {index} of {log}");
            assert!(last.insert(*log, *index).is_none_or(|last| last < *index), "the order changed");
            count += 1;
        }
    }
    // All were acknowledged in the end, so there is nothing else.
    assert_eq!(logs.values().map(Vec::len).sum::<usize>(), count);
}

fn is_not_yet(result: &Result<u64, RequestError>) -> bool {
    matches!(result, Err(RequestError::NotYet { reason }) if reason.contains("until the upgrade"))
}

/// Unknown to the worker that the connection is with.
fn is_unknown(result: &Result<u64, RequestError>) -> bool {
    matches!(result, Err(RequestError::Protocol { reason }) if reason.contains("lacks this request"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_stay_off_until_the_upgrade_from_version_1_is_committed() {
    let mut supervisor = Supervisor::new();
    let mut old = supervisor.genesis(&earlier("1.0.0", Layout::ByName)).await;
    let client = supervisor.client().await;
    let stored = store(&client, 0..40).await;
    let mut load = Load::start(client.fresh(), 1_000_000);
    assert!(is_unknown(&client.append(log(0), b"before").await), "the old release knows no appends");
    let mut new =
        supervisor.pair(&mut old, &release("1.1.0", Layout::ByKind, Faults::default()), 2, 2, 1).await;
    supervisor.level(&mut old, &mut new).await;
    supervisor.cut(&mut old, &mut new, 2, 3).await;
    let young = supervisor.client().await;
    let refused = young.append(log(0), b"in probation").await;
    assert!(is_not_yet(&refused), "{refused:?}");
    assert!(
        is_unknown(&client.append(log(0), b"in probation").await),
        "an old connection is the old worker's"
    );
    assert_eq!(young.read_log(log(0), 0).await.unwrap().length, 0);
    load.went_on(5).await;
    supervisor.commit(&mut old, &mut new, 2).await;
    assert_eq!(young.append(log(0), b"after the commit").await.unwrap(), 0);
    supervisor.drain(&mut old, &mut new, vec![1, 2]).await;
    assert_eq!(client.append(log(0), b"moved").await.unwrap(), 1);
    assert!(!old.said(|report| matches!(report, Report::Suspect { .. } | Report::Trouble { .. })));
    check(&young, &stored).await;
    check(&young, &load.stop().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_stay_off_after_the_version_1_worker_died_in_probation_for_its_release_may_start_cold() {
    let mut supervisor = Supervisor::new();
    let first = earlier("1.0.0", Layout::ByName);
    let mut old = supervisor.genesis(&first).await;
    let mut stored = store(&supervisor.client().await, 0..10).await;
    let mut new =
        supervisor.pair(&mut old, &release("1.1.0", Layout::ByKind, Faults::default()), 2, 2, 1).await;
    supervisor.level(&mut old, &mut new).await;
    supervisor.cut(&mut old, &mut new, 2, 3).await;
    old.kill().await;
    supervisor.order(&new, Command::PeerGone { tag: 1 }).await;
    let client = supervisor.client().await;
    stored.extend(store(&client, 10..20).await);
    let refused = client.append(log(0), b"alone").await;
    assert!(is_not_yet(&refused), "{refused:?}");
    // And so it does: everything that was acknowledged is readable to version 1.
    new.kill().await;
    let mut again = supervisor.start(&first, Origin::Cold, 1, 1).await;
    supervisor.go(&mut again, 4).await;
    check(&supervisor.client().await, &stored).await;
    assert!(!supervisor.state().join("refused").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_worker_that_is_killed_under_appends_loses_none_and_none_is_made_twice() {
    let mut supervisor = Supervisor::new();
    let mut old = supervisor.genesis(&release("1.1.0", Layout::ByName, Faults::default())).await;
    let mut before = Appending::start(supervisor.client().await, 1);
    before.went_on(30).await;
    let mut new =
        supervisor.pair(&mut old, &release("1.2.0", Layout::ByKind, Faults::default()), 2, 2, 1).await;
    supervisor.level(&mut old, &mut new).await;
    supervisor.cut(&mut old, &mut new, 2, 3).await;
    // On connections of the new worker, which its death breaks in the middle of requests.
    let mut young = Vec::new();
    for task in 2..10 {
        young.push(Appending::start(supervisor.client().await, task));
    }
    for appending in &mut young {
        appending.went_on(20).await;
    }
    before.went_on(5).await;
    new.kill().await;
    supervisor.order(&old, Command::Resume { term: 3 }).await;
    old.wait("Resumed", |report| matches!(report, Report::Resumed { .. }).then_some(())).await;
    before.went_on(10).await;
    let mut acknowledged = Vec::new();
    for mut appending in young {
        appending.went_on(10).await;
        acknowledged.push(appending.stop().await);
    }
    acknowledged.push(before.stop().await);
    exactly_once(&supervisor.client().await, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_flow_through_a_cut_between_two_layouts_each_once_and_in_order() {
    let mut supervisor = Supervisor::new();
    let mut old = supervisor.genesis(&release("1.1.0", Layout::ByName, Faults::default())).await;
    let client = supervisor.client().await;
    let mut all: Vec<_> = (1..5).map(|task| Appending::start(client.fresh(), task)).collect();
    for appending in &mut all {
        appending.went_on(20).await;
    }
    let mut new =
        supervisor.pair(&mut old, &release("1.2.0", Layout::ByKind, Faults::default()), 2, 2, 1).await;
    supervisor.level(&mut old, &mut new).await;
    supervisor.cut(&mut old, &mut new, 2, 3).await;
    all.push(Appending::start(supervisor.client().await, 5));
    for appending in &mut all {
        appending.went_on(20).await;
    }
    supervisor.commit(&mut old, &mut new, 2).await;
    supervisor.drain(&mut old, &mut new, vec![1, 2]).await;
    let mut acknowledged = Vec::new();
    for mut appending in all {
        appending.went_on(10).await;
        acknowledged.push(appending.stop().await);
    }
    assert_eq!(client.counters().dropped, 0);
    exactly_once(&supervisor.client().await, &acknowledged).await;
    // And from the files alone.
    new.kill().await;
    let mut again =
        supervisor.start(&release("1.2.0", Layout::ByKind, Faults::default()), Origin::Cold, 2, 3).await;
    supervisor.go(&mut again, 3).await;
    exactly_once(&supervisor.client().await, &acknowledged).await;
}

async fn sync_fails(holder: &mut Node) -> String {
    let trouble = |report: &Report| match report {
        Report::Trouble { kind: Trouble::SyncFailed, text } => Some(text.clone()),
        _ => None,
    };
    holder.wait("Trouble", trouble).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_way_back_to_version_1_is_open_until_something_is_appended_and_then_it_says_why_not() {
    let (first, second) =
        (earlier("1.0.0", Layout::ByName), release("1.1.0", Layout::ByKind, Faults::default()));
    let mut supervisor = Supervisor::new();
    let mut old = supervisor.genesis(&first).await;
    let mut load = Load::start(supervisor.client().await, 1_000_000);
    let stored = store(&supervisor.client().await, 0..20).await;
    // 1 to 2, back to 1, and to 2 again, each through its commit.
    let mut generation = 1;
    for (term, stamp) in [(2, &second), (4, &first), (6, &second)] {
        generation += 1;
        let tag = old.tag % 3 + 1;
        let held = if term == 2 { 1 } else { term - 2 };
        let mut new = supervisor.pair(&mut old, stamp, generation, tag, held).await;
        supervisor.level(&mut old, &mut new).await;
        supervisor.cut(&mut old, &mut new, term, term + 1).await;
        load.went_on(5).await;
        let off = supervisor.client().await.append(log(0), b"between the two").await;
        assert!(is_not_yet(&off) || is_unknown(&off), "term {term}: {off:?}");
        supervisor.commit(&mut old, &mut new, term).await;
        supervisor.drain(&mut old, &mut new, vec![held, term]).await;
        old = new;
    }
    let client = supervisor.client().await;
    assert_eq!(client.append(log(0), b"one").await.unwrap(), 0);
    assert_eq!(client.append(log(0), b"two").await.unwrap(), 1);

    let mut refused = supervisor.pair(&mut old, &first, 10, 2, 6).await;
    let text = sync_fails(&mut old).await;
    for part in ["2 appends", "version 2", "version 1", "serves on"] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    refused.kill().await;
    supervisor.order(&old, Command::PeerGone { tag: 2 }).await;
    load.went_on(5).await;
    assert_eq!(client.append(log(0), b"three").await.unwrap(), 2, "it serves on undisturbed");
    assert_eq!(client.counters().dropped, 0);
    assert_eq!(load.client.counters().dropped, 0);

    // The next upgrade, to a release that knows appends, works.
    let mut next =
        supervisor.pair(&mut old, &release("1.2.0", Layout::ByName, Faults::default()), 11, 2, 6).await;
    supervisor.level(&mut old, &mut next).await;
    supervisor.cut(&mut old, &mut next, 8, 9).await;
    assert_eq!(supervisor.client().await.append(log(0), b"four").await.unwrap(), 3);
    let expected: Vec<Vec<u8>> = ["one", "two", "three", "four"].map(|text| text.into()).to_vec();
    assert_eq!(entries(&supervisor.client().await, log(0)).await, expected);
    check(&client, &stored).await;
    check(&client, &load.stop().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_probation_the_way_back_from_version_1_to_2_turns_appends_on_again() {
    let mut supervisor = Supervisor::new();
    let mut old = supervisor.genesis(&release("1.1.0", Layout::ByKind, Faults::default())).await;
    let client = supervisor.client().await;
    let mut new = supervisor.pair(&mut old, &earlier("1.0.0", Layout::ByName), 2, 2, 1).await;
    supervisor.level(&mut old, &mut new).await;
    let refused = client.append(log(0), b"beside version 1").await;
    assert!(is_not_yet(&refused), "{refused:?}");
    supervisor.cut(&mut old, &mut new, 2, 3).await;
    let refused = client.append(log(0), b"relayed to version 1").await;
    assert!(is_unknown(&refused), "{refused:?}");
    supervisor.cut(&mut new, &mut old, 3, 0).await;
    assert_eq!(client.append(log(0), b"back").await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_supervisor_of_version_1_upgrades_workers_that_speak_2_between_them() {
    let mut supervisor = Supervisor::new();
    supervisor.speaks = ONE;
    let mut old = supervisor.genesis(&release("1.1.0", Layout::ByName, Faults::default())).await;
    let client = supervisor.client().await;
    assert_eq!(client.append(log(0), b"one").await.unwrap(), 0);
    let mut new =
        supervisor.pair(&mut old, &release("1.2.0", Layout::ByKind, Faults::default()), 2, 2, 1).await;
    supervisor.level(&mut old, &mut new).await;
    supervisor.cut(&mut old, &mut new, 2, 3).await;
    assert_eq!(supervisor.client().await.append(log(0), b"two").await.unwrap(), 1);
    supervisor.commit(&mut old, &mut new, 2).await;
    supervisor.drain(&mut old, &mut new, vec![1, 2]).await;
    assert_eq!(entries(&client, log(0)).await, [b"one".to_vec(), b"two".to_vec()]);
}

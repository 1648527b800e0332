//! What was appended to logs, and whether it is there exactly once and in order.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bumpless_shared::digest::Digest;
use bumpless_worker::client::{Client, name_of};

/// Logs that are appended to in turn.
const LOGS: u64 = 4;

/// Remembers every append, acknowledged or not.
#[derive(Debug)]
pub struct Appends {
    seed: u64,
    next: AtomicU64,
    acknowledged: Mutex<Acknowledged>,
}

#[derive(Debug, Default)]
struct Acknowledged {
    all: Vec<(Digest, u64, u64)>,
    /// Of each log, the highest index acknowledged.
    last: HashMap<Digest, u64>,
    /// What no index can be right about.
    wrong: Vec<String>,
}

/// An append that was begun.
#[derive(Debug)]
pub struct Begun {
    /// To this log.
    pub log: Digest,
    /// What no other append has.
    pub content: Vec<u8>,
    number: u64,
    /// The highest index of the log that was acknowledged before this began.
    behind: Option<u64>,
}

impl Appends {
    /// Nothing was appended yet. Loads of different seeds append to different logs.
    pub fn new(seed: u64) -> Appends {
        Appends { seed, next: AtomicU64::new(0), acknowledged: Mutex::default() }
    }

    /// The next one.
    pub fn begin(&self) -> Begun {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let log = self.log(number % LOGS);
        let behind = self.lock().last.get(&log).copied();
        Begun { log, content: self.content(number), number, behind }
    }

    /// The node said that it has this index.
    pub fn acknowledge(&self, begun: Begun, index: u64) {
        let Begun { log, number, behind, .. } = begun;
        let mut all = self.lock();
        if behind.is_some_and(|behind| index <= behind) {
            let text = format!("append {number} got index {index}, behind {behind:?} of an earlier one");
            all.wrong.push(text);
        }
        all.all.push((log, index, number));
        let last = all.last.entry(log).or_default();
        *last = (*last).max(index);
    }

    /// How many were acknowledged.
    pub fn count(&self) -> u64 {
        self.lock().all.len() as u64
    }

    /// How many were begun.
    pub fn begun(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Reads all logs and returns what is wrong with them: an acknowledged append that is not at its
    /// index, one that is there twice, something that nobody appended, an order that was turned round.
    pub async fn check(&self, client: &Client) -> Vec<String> {
        let mut logs = HashMap::new();
        for log in (0..LOGS).map(|number| self.log(number)) {
            match entries(client, log).await {
                Ok(entries) => drop(logs.insert(log, entries)),
                Err(error) => return vec![format!("log {} cannot be read: {error}", log.short())],
            }
        }
        self.judge(&logs)
    }

    fn judge(&self, logs: &HashMap<Digest, Vec<Vec<u8>>>) -> Vec<String> {
        let acknowledged = self.lock();
        let mut wrong = acknowledged.wrong.clone();
        let begun: HashSet<(Digest, Vec<u8>)> =
            (0..self.begun()).map(|number| (self.log(number % LOGS), self.content(number))).collect();
        for (log, entries) in logs {
            let mut seen = HashSet::new();
            for (index, entry) in entries.iter().enumerate() {
                if !begun.contains(&(*log, entry.clone())) {
                    wrong.push(format!("entry {index} of log {} was never appended", log.short()));
                } else if !seen.insert(entry) {
                    wrong.push(format!("entry {index} of log {} is there twice", log.short()));
                }
            }
        }
        for (log, index, number) in &acknowledged.all {
            let there = logs.get(log).and_then(|entries| entries.get(*index as usize));
            if there != Some(&self.content(*number)) {
                wrong.push(format!("append {number} is not entry {index} of log {}", log.short()));
            }
        }
        wrong
    }

    fn log(&self, number: u64) -> Digest {
        name_of(&[self.seed.to_le_bytes(), number.to_le_bytes()].concat())
    }

    fn content(&self, number: u64) -> Vec<u8> {
        let mut content = number.to_le_bytes().to_vec();
        content.resize(8 + number as usize * 7 % 200, number as u8);
        content
    }

    fn lock(&self) -> MutexGuard<'_, Acknowledged> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A log from its beginning to its end.
///
/// # Errors
/// In words.
pub async fn entries(client: &Client, log: Digest) -> Result<Vec<Vec<u8>>, String> {
    let mut entries = Vec::new();
    loop {
        let page = client.read_log(log, entries.len() as u64).await.map_err(|error| error.to_string())?;
        if page.entries.is_empty() {
            return match page.length == entries.len() as u64 {
                true => Ok(entries),
                false => Err(format!("{} entries of {}", entries.len(), page.length)),
            };
        }
        entries.extend(page.entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight appends of which the last was never acknowledged, and the logs that they make.
    fn appended() -> (Appends, HashMap<Digest, Vec<Vec<u8>>>) {
        let appends = Appends::new(7);
        let mut logs: HashMap<Digest, Vec<Vec<u8>>> = HashMap::new();
        for number in 0..8 {
            let begun = appends.begin();
            let entries = logs.entry(begun.log).or_default();
            entries.push(begun.content.clone());
            let index = entries.len() as u64 - 1;
            if number < 7 {
                appends.acknowledge(begun, index);
            }
        }
        (appends, logs)
    }

    #[test]
    fn everything_once_and_in_place_is_right_whether_the_last_one_arrived_or_not() {
        let (appends, mut logs) = appended();
        assert_eq!((appends.judge(&logs), appends.count()), (Vec::new(), 7));
        logs.entry(appends.log(3)).or_default().truncate(1);
        assert_eq!(appends.judge(&logs), Vec::<String>::new());
    }

    #[test]
    fn what_is_lost_or_twice_or_strange_or_behind_an_earlier_one_is_noticed() {
        let first = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
            let (appends, mut logs) = appended();
            change(logs.entry(appends.log(0)).or_default());
            appends.judge(&logs)
        };
        assert!(first(&|entries| drop(entries.pop()))[0].contains("append 4 is not entry 1"));
        assert!(first(&|entries| entries.swap(0, 1))[0].contains("append 0 is not entry 0"));
        assert!(first(&|entries| entries.push(entries[0].clone()))[0].contains("twice"));
        assert!(first(&|entries| entries.push(vec![9]))[0].contains("never appended"));
        let (appends, logs) = appended();
        let late = appends.begin();
        appends.acknowledge(late, 1);
        assert!(appends.judge(&logs)[0].contains("behind"));
    }
}

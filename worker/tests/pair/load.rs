//! Clients that write and read without a pause, and remember every write that was acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bumpless_shared::digest::Digest;
use bumpless_worker::client::{Client, RequestError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Content that nobody has to keep: made again from its number.
pub fn content(number: u64) -> Vec<u8> {
    let length = match number % 10 {
        0 => 300_000 + number as usize % 100_000,
        1 | 2 => 5_000 + number as usize % 20_000,
        _ => 20 + number as usize % 3_000,
    };
    let mut bytes = number.to_le_bytes().repeat(length / 8 + 1);
    bytes.truncate(length.max(8));
    bytes
}

/// Stores these numbers.
pub async fn store(client: &Client, numbers: std::ops::Range<u64>) -> Vec<(u64, Digest)> {
    let mut stored = Vec::new();
    for number in numbers {
        stored.push((number, client.put(&content(number)).await.unwrap()));
    }
    stored
}

/// Everything is there, as it was stored.
pub async fn check(client: &Client, stored: &[(u64, Digest)]) {
    for (number, name) in stored {
        let found = client.get(*name).await.unwrap_or_else(|error| panic!("number {number}: {error}"));
        assert_eq!(found.as_deref(), Some(&content(*number)[..]), "number {number} of {}", stored.len());
    }
}

/// Load on one connection.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    progress: watch::Receiver<u64>,
    running: JoinHandle<Vec<(u64, Digest)>>,
    pub client: Client,
}

impl Load {
    /// Writes numbers from `first` on and reads each back.
    pub fn start(client: Client, first: u64) -> Load {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, progress) = watch::channel(0);
        let (stopping, counting, working) = (stop.clone(), done.clone(), client.clone());
        let running = tokio::spawn(async move {
            let mut stored = Vec::new();
            for number in first.. {
                if stopping.load(Ordering::Relaxed) {
                    break;
                }
                let name = working
                    .put(&content(number))
                    .await
                    .unwrap_or_else(|error| panic!("put {number}: {error}"));
                stored.push((number, name));
                match working.get(name).await {
                    Ok(Some(found)) if found == content(number) => {}
                    Ok(other) => panic!("get {number}: {:?} bytes", other.map(|found| found.len())),
                    Err(error @ RequestError::Deadline { .. }) => panic!("get {number}: {error}"),
                    Err(error) => panic!("get {number}: {error}"),
                }
                told.send_replace(counting.fetch_add(1, Ordering::Relaxed) + 1);
            }
            stored
        });
        Load { stop, done, progress, running, client }
    }

    /// Returns once so many more writes were acknowledged and read back.
    pub async fn went_on(&mut self, more: u64) {
        let until = self.done.load(Ordering::Relaxed) + more;
        let waiting = self.progress.wait_for(|done| *done >= until);
        let waited = tokio::time::timeout(std::time::Duration::from_secs(30), waiting).await;
        assert!(waited.expect("the load stands still").is_ok(), "the load ended");
    }

    /// Ends it: what was acknowledged.
    pub async fn stop(self) -> Vec<(u64, Digest)> {
        self.stop.store(true, Ordering::Relaxed);
        self.running.await.unwrap()
    }
}

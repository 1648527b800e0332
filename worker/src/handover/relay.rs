//! Requests of old connections, executed by the worker that holds.
//!
//! ```text
//!   frozen worker                                 holder
//!     │ ◀──────────────────── Credit{256} ─────── │   both grant, right after the greeting
//!     │ ── Request{id, bytes} ──────────────────▶ │   costs one credit
//!     │ ◀──────────── Answer{id, bytes}, Credit{1}│
//! ```
//!
//! Good path: a request waits for credit, is sent, and its answer comes back. A request without
//! credit waits in its handler, so the client's stream is not read any further; nothing piles up here.
//!
//! Bad paths:
//!
//! - **Silence.** An answer that takes longer than the deadline is reported as suspicious, once per
//!   deadline whatever the number of requests, and waited for all the same.
//! - **The stream is closed, the holder dead.** [`Relay::ask`] never ends then. It is not its place to
//!   decide: whoever asked drops it as soon as somebody holds again, and executes the request itself or
//!   asks the new holder. So no request is lost, and none is answered with an error.
//! - **More requests than were granted** end the connection; the sender is broken. So do more answers than
//!   there were requests, and credit that comes without end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bumpless_shared::link::Part;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Requests that each side lets the other have under way, of at most 1 MiB each: as many as a slow sync of
/// the disk may hold up before those wait, too, that need no disk.
pub const CREDIT: u32 = 256;

/// Grants that may come beside those that come with answers: the first one, and some that a later release
/// may have reasons for.
const SPARE_GRANTS: u64 = 256;

/// Whether the other one could have a reason to send this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It could.
    Yes,
    /// It is broken.
    No,
}

impl From<bool> for Expected {
    fn from(expected: bool) -> Expected {
        if expected { Expected::Yes } else { Expected::No }
    }
}

/// Told when an answer is overdue.
pub type Overdue = Box<dyn Fn(Duration) + Send + Sync>;

/// The side that asks.
pub struct Relay {
    out: mpsc::UnboundedSender<Part>,
    credit: Semaphore,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Vec<u8>>>>,
    answers: AtomicU64,
    grants: AtomicU64,
    deadline: Duration,
    overdue: Overdue,
    /// When silence was last reported, so that a thousand silent requests are one report.
    reported: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Relay({} waiting)", lock(&self.waiting).len())
    }
}

/// Forgets a request whose asker has gone.
struct Asked<'a> {
    relay: &'a Relay,
    id: u64,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        lock(&self.relay.waiting).remove(&self.id);
    }
}

impl Relay {
    /// A relay that sends through `out`; without credit at first.
    pub fn new(out: mpsc::UnboundedSender<Part>, deadline: Duration, overdue: Overdue) -> Arc<Relay> {
        Arc::new(Relay {
            out,
            credit: Semaphore::new(0),
            next: AtomicU64::new(0),
            waiting: Mutex::default(),
            answers: AtomicU64::new(0),
            grants: AtomicU64::new(0),
            deadline,
            overdue,
            reported: Mutex::new(None),
        })
    }

    /// The holder's answer to a request; see the module for why this may never end. Dropping it is fine.
    pub async fn ask(&self, request: Vec<u8>) -> Vec<u8> {
        let began = Instant::now();
        let credit = self.in_time(began, self.credit.acquire()).await;
        let Ok(credit) = credit else { return std::future::pending().await };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        lock(&self.waiting).insert(id, sender);
        let _asked = Asked { relay: self, id };
        if self.out.send(Part::Request { id, request }).is_err() {
            return std::future::pending().await;
        }
        credit.forget();
        match self.in_time(began, receiver).await {
            Ok(answer) => answer,
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits, and reports each deadline that passes meanwhile.
    async fn in_time<T>(&self, began: Instant, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        loop {
            match tokio::time::timeout(self.deadline, &mut future).await {
                Ok(value) => return value,
                Err(_) => self.report(began.elapsed()),
            }
        }
    }

    fn report(&self, waited: Duration) {
        let mut reported = lock(&self.reported);
        if reported.is_none_or(|last| last.elapsed() >= self.deadline) {
            *reported = Some(Instant::now());
            drop(reported);
            (self.overdue)(waited);
        }
    }

    /// An answer came.
    pub fn answered(&self, id: u64, answer: Vec<u8>) -> Expected {
        if id >= self.asked() {
            return Expected::No;
        }
        if let Some(asker) = lock(&self.waiting).remove(&id) {
            // Whoever asked may have gone meanwhile.
            let _ = asker.send(answer);
        }
        let answers = self.answers.fetch_add(1, Ordering::Relaxed) + 1;
        (answers <= self.asked()).into()
    }

    /// Credit came. More than a sane peer grants is as good as that.
    pub fn granted(&self, requests: u32) -> Expected {
        let room = (Semaphore::MAX_PERMITS / 2).saturating_sub(self.credit.available_permits());
        self.credit.add_permits((requests as usize).min(room));
        let grants = self.grants.fetch_add(1, Ordering::Relaxed) + 1;
        (grants <= self.asked() + SPARE_GRANTS).into()
    }

    /// Requests sent so far.
    fn asked(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is whole after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one side lets the other have under way.
#[derive(Debug, Default)]
pub struct Granted(AtomicU64);

impl Granted {
    /// To be sent first of all.
    pub fn begin(&self) -> Part {
        self.0.store(u64::from(CREDIT), Ordering::Relaxed);
        Part::Credit { requests: CREDIT }
    }

    /// A request came; `false` where it was not granted.
    pub fn spend(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    /// Its answer goes; this goes with it.
    pub fn renew(&self) -> Part {
        self.0.fetch_add(1, Ordering::Relaxed);
        Part::Credit { requests: 1 }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn relay(
        deadline: Duration,
    ) -> (Arc<Relay>, mpsc::UnboundedReceiver<Part>, mpsc::UnboundedReceiver<Duration>) {
        let (out, parts) = mpsc::unbounded_channel();
        let (overdue, reports) = mpsc::unbounded_channel();
        let relay =
            Relay::new(out, deadline, Box::new(move |waited| overdue.send(waited).unwrap_or_default()));
        (relay, parts, reports)
    }

    #[tokio::test]
    async fn a_request_waits_for_credit_and_its_answer_finds_it() {
        let (relay, mut parts, _) = relay(Duration::from_secs(60));
        let asking = tokio::spawn({
            let relay = relay.clone();
            async move { relay.ask(vec![1]).await }
        });
        tokio::task::yield_now().await;
        assert!(parts.try_recv().is_err(), "nothing is sent without credit");
        relay.granted(1);
        let Part::Request { id, request } = parts.recv().await.unwrap() else { panic!() };
        assert_eq!(request, [1]);
        assert_eq!(relay.answered(id + 1, vec![9]), Expected::No, "there was no such request");
        assert_eq!(relay.answered(id, vec![2]), Expected::Yes);
        assert_eq!(relay.answered(id, vec![2]), Expected::No, "there was one request");
        assert_eq!(asking.await.unwrap(), [2]);
        assert_eq!(relay.credit.available_permits(), 0);
    }

    #[tokio::test]
    async fn a_thousand_silent_requests_are_one_suspicion_per_deadline() {
        let (relay, _parts, mut reports) = relay(Duration::from_secs(60));
        relay.granted(500);
        // What each of them does when its deadline passes.
        for _ in 0..1000 {
            relay.report(Duration::from_secs(60));
        }
        reports.recv().await.unwrap();
        assert!(reports.try_recv().is_err());
    }

    #[tokio::test]
    async fn silence_is_reported_and_waited_out() {
        let (relay, mut parts, mut reports) = relay(Duration::from_millis(1));
        let asking = tokio::spawn({
            let relay = relay.clone();
            async move { relay.ask(Vec::new()).await }
        });
        reports.recv().await.unwrap();
        relay.granted(1);
        let Part::Request { id, .. } = parts.recv().await.unwrap() else { panic!() };
        reports.recv().await.unwrap();
        relay.answered(id, vec![7]);
        assert_eq!(asking.await.unwrap(), [7]);
    }

    #[tokio::test]
    async fn a_request_whose_asker_has_gone_is_forgotten() {
        let (relay, mut parts, _) = relay(Duration::from_secs(60));
        relay.granted(1);
        tokio::select! {
            biased;
            _ = relay.ask(Vec::new()) => panic!("nobody answered"),
            _ = parts.recv() => {}
        }
        assert!(lock(&relay.waiting).is_empty());
    }

    #[tokio::test]
    async fn credit_that_never_ends_is_unexpected() {
        let (relay, _parts, _) = relay(Duration::from_secs(60));
        assert!((0..SPARE_GRANTS).all(|_| relay.granted(1) == Expected::Yes));
        assert_eq!(relay.granted(1), Expected::No);
    }

    #[test]
    fn no_more_is_taken_than_was_granted() {
        let granted = Granted::default();
        granted.begin();
        assert!((0..CREDIT).all(|_| granted.spend()));
        assert!(!granted.spend());
        granted.renew();
        assert!(granted.spend());
    }
}

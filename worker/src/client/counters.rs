//! What a client counts, so that a loss, a delay and a move are never mistaken for each other.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Most drops that are remembered one by one.
const MOST_DROPS: usize = 100_000;

/// Totals since the client was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests begun.
    pub requests: u64,
    /// Requests without a right answer by the deadline, retries included.
    pub failed: u64,
    /// Repetitions of requests.
    pub retried: u64,
    /// Connections ended by neither this client nor a GOAWAY.
    pub dropped: u64,
    /// Connections left because of a GOAWAY.
    pub moved: u64,
    /// Connections made: handshakes completed.
    pub connections: u64,
}

/// A connection that was ended by neither this client nor a GOAWAY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// When its handshake was complete.
    pub made_at: SystemTime,
    /// When the client noticed.
    pub dropped_at: SystemTime,
    /// What ended it.
    pub cause: String,
}

/// The counters themselves.
#[derive(Debug, Default)]
pub struct Tally {
    requests: AtomicU64,
    failed: AtomicU64,
    retried: AtomicU64,
    dropped: AtomicU64,
    moved: AtomicU64,
    connections: AtomicU64,
    drops: Mutex<VecDeque<Dropped>>,
}

impl Tally {
    /// A request begins.
    pub fn asked(&self) {
        add(&self.requests);
    }

    /// A request ends without a right answer.
    pub fn failed(&self) {
        add(&self.failed);
    }

    /// A request that was not even sent.
    pub fn refused(&self) {
        self.asked();
        self.failed();
    }

    /// A request is repeated.
    pub fn retried(&self) {
        add(&self.retried);
    }

    /// A connection was replaced because of a GOAWAY.
    pub fn moved(&self) {
        add(&self.moved);
    }

    /// A handshake is complete.
    pub fn connected(&self) {
        add(&self.connections);
    }

    /// A connection was lost.
    pub fn dropped(&self, drop: Dropped) {
        add(&self.dropped);
        let mut drops = self.drops.lock().unwrap_or_else(PoisonError::into_inner);
        if drops.len() == MOST_DROPS {
            drops.pop_front();
        }
        drops.push_back(drop);
    }

    /// The drops remembered, which are forgotten here.
    pub fn take_drops(&self) -> Vec<Dropped> {
        self.drops.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }

    /// All totals.
    pub fn now(&self) -> Counters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        Counters {
            requests: get(&self.requests),
            failed: get(&self.failed),
            retried: get(&self.retried),
            dropped: get(&self.dropped),
            moved: get(&self.moved),
            connections: get(&self.connections),
        }
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::AcqRel);
}

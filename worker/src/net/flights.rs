//! Which first flights a listener has seen, and which belong to the listener before it.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

/// Most first flights that are handed over at a cut: 2048 of 9 bytes fit into one packet of the link,
/// and are the new connections of four seconds at 500 a second.
pub const MOST: usize = 2048;

/// How long a client may go on retransmitting its first flight: one, two and four probe timeouts
/// of the half second that a path of unknown length is given.
const LATELY: Duration = Duration::from_secs(4);

/// Both lists of one listener. Bounded: a flood of new connections pushes the oldest out, and what
/// that costs is the repair of one handshake by its client.
#[derive(Debug, Default)]
pub struct Flights {
    /// In the order of arrival, repetitions included, so that the newest is always at the end.
    seen: VecDeque<(u64, Instant)>,
    theirs: HashSet<u64>,
}

impl Flights {
    /// A first flight arrived at this worker, which answers it.
    pub fn saw(&mut self, flight: u64, now: Instant) {
        while self.seen.front().is_some_and(|(_, at)| now.duration_since(*at) > LATELY)
            || self.seen.len() >= MOST
        {
            self.seen.pop_front();
        }
        self.seen.push_back((flight, now));
    }

    /// Whether the other worker has answered this one already.
    pub fn is_theirs(&self, flight: u64) -> bool {
        self.theirs.contains(&flight)
    }

    /// From now on these are the other worker's.
    pub fn inherit(&mut self, flights: Vec<u64>) {
        self.theirs = flights.into_iter().take(MOST).collect();
    }

    /// What was seen lately, without repetitions; forgotten here, as a later cut is another matter.
    pub fn hand_over(&mut self, now: Instant) -> Vec<u64> {
        let lately = self.seen.drain(..).filter(|(_, at)| now.duration_since(*at) <= LATELY);
        let unique: HashSet<u64> = lately.map(|(flight, _)| flight).collect();
        self.theirs.clear();
        unique.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_lately_is_handed_over_once_and_without_repetitions() {
        let start = Instant::now();
        let mut flights = Flights::default();
        flights.saw(1, start);
        flights.saw(2, start + Duration::from_secs(3));
        flights.saw(2, start + Duration::from_secs(4));
        flights.saw(3, start + Duration::from_secs(5));
        let mut handed = flights.hand_over(start + Duration::from_secs(6));
        handed.sort();
        assert_eq!(handed, [2, 3]);
        assert!(flights.hand_over(start + Duration::from_secs(6)).is_empty());
    }

    #[test]
    fn a_flood_leaves_the_newest() {
        let now = Instant::now();
        let mut flights = Flights::default();
        (0..3 * MOST as u64).for_each(|flight| flights.saw(flight, now));
        let mut handed = flights.hand_over(now);
        handed.sort();
        assert_eq!(handed, (2 * MOST as u64..3 * MOST as u64).collect::<Vec<_>>());
        flights.inherit((0..2 * MOST as u64).collect());
        assert!(flights.is_theirs(MOST as u64 - 1) && !flights.is_theirs(MOST as u64));
    }
}

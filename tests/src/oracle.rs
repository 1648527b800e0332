//! What was acknowledged, and nothing else: a bit for each content of a [`Contents`] row. Names and
//! bytes follow from the number, so an hour of writes costs a few kilobytes to remember.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::content::Contents;

/// Remembers every acknowledged write.
#[derive(Debug)]
pub struct Oracle {
    contents: Contents,
    next: AtomicU64,
    acknowledged: Mutex<Acknowledged>,
}

#[derive(Debug, Default)]
struct Acknowledged {
    bits: Vec<u64>,
    count: u64,
}

impl Oracle {
    /// Nothing was acknowledged yet.
    pub fn new(seed: u64) -> Oracle {
        Oracle::of(Contents::new(seed))
    }

    /// The same, of these contents.
    pub fn of(contents: Contents) -> Oracle {
        Oracle { contents, next: AtomicU64::new(0), acknowledged: Mutex::default() }
    }

    /// The first so many contents of the row are stored already.
    pub fn stored(&self, count: u64) {
        self.next.fetch_max(count, Ordering::Relaxed);
        (0..count).for_each(|number| self.acknowledge(number));
    }

    /// A content that was not written before, with its number.
    pub fn invent(&self) -> (u64, Vec<u8>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number, self.contents.get(number))
    }

    /// How many were invented: the number of the next one.
    pub fn begun(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// The content with this number.
    pub fn content(&self, number: u64) -> Vec<u8> {
        self.contents.get(number)
    }

    /// The node said that it has stored this one.
    pub fn acknowledge(&self, number: u64) {
        let (word, bit) = (number as usize / 64, 1 << (number % 64));
        let mut all = self.lock();
        if all.bits.len() <= word {
            all.bits.resize(word + 1, 0);
        }
        if all.bits[word] & bit == 0 {
            all.bits[word] |= bit;
            all.count += 1;
        }
    }

    /// These were acknowledged by somebody whose word is worth nothing.
    pub fn forget(&self, numbers: &[u64]) {
        let mut all = self.lock();
        for number in numbers {
            let (word, bit) = (*number as usize / 64, 1 << (number % 64));
            if all.bits.get(word).is_some_and(|bits| bits & bit != 0) {
                all.bits[word] &= !bit;
                all.count -= 1;
            }
        }
    }

    /// How many were acknowledged.
    pub fn count(&self) -> u64 {
        self.lock().count
    }

    /// An acknowledged number at or after `near`, going round; `None` while there is none.
    pub fn pick(&self, near: u64) -> Option<u64> {
        let all = self.lock();
        let words = all.bits.len();
        let start = (near as usize / 64).checked_rem(words)?;
        let first = (all.bits[start] >> (near % 64)) << (near % 64);
        let candidates = std::iter::once((start, first))
            .chain((start + 1..words).chain(0..words).map(|word| (word, all.bits[word])));
        candidates
            .filter(|(_, bits)| *bits != 0)
            .map(|(word, bits)| word as u64 * 64 + u64::from(bits.trailing_zeros()))
            .next()
    }

    /// All of them, in order.
    pub fn all(&self) -> Vec<u64> {
        self.among(0..u64::MAX)
    }

    /// Those of them that have such a number, in order.
    pub fn among(&self, numbers: Range<u64>) -> Vec<u64> {
        let all = self.lock();
        let end = numbers.end.min(all.bits.len() as u64 * 64);
        let numbers =
            (numbers.start..end).filter(|number| all.bits[*number as usize / 64] >> (number % 64) & 1 == 1);
        numbers.collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Acknowledged> {
        self.acknowledged.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_acknowledged_is_remembered() {
        let oracle = Oracle::new(1);
        assert_eq!((oracle.pick(5), oracle.all()), (None, Vec::new()));
        for _ in 0..200 {
            oracle.invent();
        }
        for number in [3, 64, 130, 130] {
            oracle.acknowledge(number);
        }
        oracle.acknowledge(5);
        oracle.forget(&[5, 6, 9999]);
        assert_eq!((oracle.count(), oracle.all()), (3, vec![3, 64, 130]));
        let picked: Vec<Option<u64>> = [0, 4, 65, 131, 9999].map(|near| oracle.pick(near)).to_vec();
        assert_eq!(picked[..4], [Some(3), Some(64), Some(130), Some(3)]);
        assert!(picked[4].is_some());
        assert_eq!(oracle.invent().0, 200);
    }
}

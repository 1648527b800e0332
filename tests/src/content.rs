//! Contents that need not be remembered: each follows from a seed and its number.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// An endless row of different contents.
#[derive(Clone, Copy, Debug)]
pub struct Contents {
    seed: u64,
    lengths: Lengths,
}

/// How long the contents of a row are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lengths {
    /// Seven of ten fit a record (4 KiB), a quarter makes a small chunk file, the rest one of up to
    /// 128 KiB.
    Mixed,
    /// Eight of ten fit a record and are small, the rest makes chunk files of up to 12 KiB.
    Small,
    /// All have so many bytes; at least 16.
    Each(usize),
}

impl Contents {
    /// The row of this seed, of mixed lengths.
    pub fn new(seed: u64) -> Contents {
        Contents { seed, lengths: Lengths::Mixed }
    }

    /// The row of this seed, of small lengths.
    pub fn small(seed: u64) -> Contents {
        Contents { seed, lengths: Lengths::Small }
    }

    /// The row of this seed, each content with so many bytes (at least 16).
    pub fn of_length(seed: u64, length: usize) -> Contents {
        Contents { seed, lengths: Lengths::Each(length.max(16)) }
    }

    /// The content with this number.
    pub fn get(self, number: u64) -> Vec<u8> {
        let mut random = SmallRng::seed_from_u64(self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let length = match self.lengths {
            Lengths::Each(length) => length,
            Lengths::Small => match random.random_range(0..10) {
                0..8 => random.random_range(64..=1024),
                _ => random.random_range(4097..=12 * 1024),
            },
            Lengths::Mixed => match random.random_range(0..100) {
                0..70 => random.random_range(64..=4096),
                70..95 => random.random_range(4097..=32 * 1024),
                _ => random.random_range(32 * 1024..=128 * 1024),
            },
        };
        let mut bytes = vec![0; length];
        random.fill(&mut bytes[16..]);
        // Different for certain, not only in all likelihood.
        bytes[..8].copy_from_slice(&self.seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&number.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_follows_from_its_number() {
        let contents = Contents::new(7);
        assert_eq!(contents.get(3), contents.get(3));
        assert_ne!(contents.get(3), contents.get(4));
        assert_ne!(contents.get(3), Contents::new(8).get(3));
        let lengths: Vec<usize> = (0..400).map(|number| contents.get(number).len()).collect();
        assert!(lengths.iter().any(|length| *length <= 4096));
        assert!(lengths.iter().any(|length| *length > 32 * 1024));
        let even = Contents::of_length(7, 200);
        assert!((0..100).all(|number| even.get(number).len() == 200));
        assert_ne!(even.get(3), even.get(4));
    }
}

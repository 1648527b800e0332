//! Which version of the contract two processes speak.
//!
//! The first message both ways is a [`Range`]: lowest and highest version that the sender speaks.
//! Both then speak the highest common one; where there is none, neither says anything else.
//!
//! One number counts for everything in this crate: the messages between processes, the logical stream
//! of the state (snapshot and operations), and the format of the logbook.
//!
//! | version | what came with it |
//! |---|---|
//! | 1 | everything but the following |
//! | 2 | [`Operation::Append`](crate::operation::Operation::Append): logs that are appended to |
//!
//! What a version brought stays unused between two processes of which one does not know it.

use std::fmt;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// The contract's version that this source tree speaks.
pub const CURRENT: u16 = 2;

/// What this build speaks.
pub const SPOKEN: Range = Range { min: 1, max: CURRENT };

/// Lowest and highest version spoken, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// Lowest.
    pub min: u16,
    /// Highest.
    pub max: u16,
}

impl Range {
    /// Whether a version is spoken.
    pub fn contains(self, version: u16) -> bool {
        self.min <= version && version <= self.max
    }

    /// The highest version that both speak.
    ///
    /// # Errors
    /// Both ranges, where they do not overlap or one of them is empty.
    pub fn common(self, other: Range) -> Result<u16, NoCommonVersion> {
        let (low, high) = (self.min.max(other.min), self.max.min(other.max));
        if low <= high { Ok(high) } else { Err(NoCommonVersion { ours: self, theirs: other }) }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

/// The two have no version in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoCommonVersion {
    /// What this process speaks.
    pub ours: Range,
    /// What the other one said.
    pub theirs: Range,
}

impl fmt::Display for NoCommonVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no common version of the contract: here {}, there {}", self.ours, self.theirs)
    }
}

impl std::error::Error for NoCommonVersion {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processes_speak_the_highest_version_that_both_know_or_none() {
        let range = |min, max| Range { min, max };
        for (ours, theirs, common) in [
            (range(1, 1), range(1, 1), Some(1)),
            (range(1, 3), range(2, 5), Some(3)),
            (range(2, 5), range(1, 3), Some(3)),
            (range(1, 1), range(2, 2), None),
            (range(3, 2), range(1, 9), None),
        ] {
            assert_eq!(ours.common(theirs).ok(), common, "{ours} and {theirs}");
        }
    }
}

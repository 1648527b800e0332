//! What a worker does to its state, as the other worker must be able to repeat it.
//!
//! An [`Operation`] is an outcome, never a request: applying it needs no clock, no chance and no
//! admission check, and applying it twice changes nothing. Whoever holds authority writes
//! operations into its logbook; a standby, a resuming worker and a cold start apply them.
//!
//! The encoding is frozen: bincode's standard configuration, the variant's number first. A later
//! feature adds a variant at the end. An old reader refuses a variant that it does not know, so a
//! new one stays unused until no old reader is left.

use std::fmt;

use bincode::{Decode, Encode};

use crate::digest::Digest;

/// Longest content, in bytes, that is kept in the database itself. Longer content is a chunk file.
pub const LONGEST_RECORD: usize = 4096;

/// Longest content of one name, in bytes.
pub const LONGEST_CONTENT: usize = 1 << 20;

/// Longest encoded operation, in bytes: a record with its name, and room for what comes later.
pub const LONGEST_OPERATION: usize = 64 << 10;

const CODEC: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<LONGEST_OPERATION>,
> = bincode::config::standard().with_limit::<LONGEST_OPERATION>();

/// One change of state, with everything that is needed to make it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Operation {
    /// Keep this content, of at most [`LONGEST_RECORD`] bytes, in the database.
    Store {
        /// SHA3-256 of the content.
        name: Digest,
        /// The content itself.
        content: Vec<u8>,
    },
    /// A chunk file of this name is durably in the writer's `chunks/`: have it too.
    Link {
        /// SHA3-256 of the file's content.
        name: Digest,
        /// Its length in bytes, above [`LONGEST_RECORD`] and at most [`LONGEST_CONTENT`].
        length: u32,
    },
    /// No change: both sides take a snapshot exactly here and compare their state hashes.
    Mark {
        /// Chosen by whoever asked for the mark, to tell marks apart.
        id: u64,
    },
}

impl Operation {
    /// The operation's bytes. Errors if it is malformed (see [`Operation::check`]).
    pub fn encode(&self) -> Result<Vec<u8>, OperationError> {
        self.check()?;
        bincode::encode_to_vec(self, CODEC).map_err(|error| OperationError::Codec(error.to_string()))
    }

    /// Reads exactly the bytes of one well-formed operation.
    pub fn decode(bytes: &[u8]) -> Result<Operation, OperationError> {
        let (operation, used): (Operation, usize) = bincode::decode_from_slice(bytes, CODEC)
            .map_err(|error| OperationError::Codec(error.to_string()))?;
        if used != bytes.len() {
            return Err(OperationError::Trailing { bytes: bytes.len() - used });
        }
        operation.check()?;
        Ok(operation)
    }

    /// Holds the lengths against their limits. That a name belongs to its content is checked where
    /// the content is at hand.
    pub fn check(&self) -> Result<(), OperationError> {
        match self {
            Operation::Store { content, .. } if content.len() > LONGEST_RECORD => {
                Err(OperationError::RecordLength { length: content.len() })
            }
            Operation::Link { length, .. }
                if *length as usize <= LONGEST_RECORD || *length as usize > LONGEST_CONTENT =>
            {
                Err(OperationError::ChunkLength { length: *length })
            }
            Operation::Store { .. } | Operation::Link { .. } | Operation::Mark { .. } => Ok(()),
        }
    }
}

/// Bytes that are no operation, or an operation that breaks the limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationError {
    /// The codec's own words: truncated, too long, or a variant of a later version.
    Codec(String),
    /// Bytes follow the operation.
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// The content is too long for a record.
    RecordLength {
        /// Its length in bytes.
        length: usize,
    },
    /// The length is none of a chunk file.
    ChunkLength {
        /// The length in bytes that was given.
        length: u32,
    },
}

impl fmt::Display for OperationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OperationError::Codec(words) => write!(f, "not an operation that this version knows: {words}"),
            OperationError::Trailing { bytes } => write!(f, "{bytes} bytes follow the operation"),
            OperationError::RecordLength { length } => {
                write!(f, "a record of {length} bytes; the limit is {LONGEST_RECORD}")
            }
            OperationError::ChunkLength { length } => write!(
                f,
                "a chunk file of {length} bytes; it must have more than {LONGEST_RECORD} and at most {LONGEST_CONTENT}"
            ),
        }
    }
}

impl std::error::Error for OperationError {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const NAME: Digest = Digest([7; 32]);

    #[test]
    fn the_encoding_of_every_operation_is_frozen() {
        let name = "07".repeat(32);
        for (operation, golden) in [
            (Operation::Store { name: NAME, content: b"abc".to_vec() }, format!("00{name}03616263")),
            (Operation::Store { name: NAME, content: vec![] }, format!("00{name}00")),
            (Operation::Link { name: NAME, length: 0x0001_0203 }, format!("01{name}fc03020100")),
            (Operation::Mark { id: 5 }, "0205".to_owned()),
            (Operation::Mark { id: u64::MAX }, "02fdffffffffffffffff".to_owned()),
        ] {
            let bytes = operation.encode().unwrap();
            let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(text, golden, "{operation:?}");
            assert_eq!(Operation::decode(&bytes).unwrap(), operation);
        }
    }

    #[test]
    fn an_operation_that_is_cut_short_or_followed_by_bytes_is_refused() {
        let bytes = Operation::Store { name: NAME, content: vec![1; 300] }.encode().unwrap();
        for length in 0..bytes.len() {
            assert!(Operation::decode(&bytes[..length]).is_err(), "{length}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Operation::decode(&longer), Err(OperationError::Trailing { bytes: 1 }));
    }

    #[test]
    fn a_length_outside_the_limits_is_refused_on_both_sides() {
        let long = Operation::Store { name: NAME, content: vec![0; LONGEST_RECORD + 1] };
        assert!(long.encode().is_err());
        for length in [0, LONGEST_RECORD, LONGEST_CONTENT + 1] {
            assert!(Operation::Link { name: NAME, length: length as u32 }.encode().is_err(), "{length}");
        }
        for length in [LONGEST_RECORD + 1, LONGEST_CONTENT] {
            assert!(Operation::Link { name: NAME, length: length as u32 }.encode().is_ok(), "{length}");
        }
        // A length that promises far more than there is must not allocate for it.
        let greedy = [&[0][..], &[7; 32], &[0xfd], &u64::MAX.to_le_bytes()].concat();
        assert!(matches!(Operation::decode(&greedy), Err(OperationError::Codec(_))));
    }

    #[test]
    fn a_variant_of_a_later_version_is_refused() {
        assert!(matches!(Operation::decode(&[3, 0]), Err(OperationError::Codec(_))));
    }
}

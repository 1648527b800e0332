//! What a worker does to its state, as the other worker must be able to repeat it.
//!
//! An [`Operation`] is an outcome, never a request: applying it needs no clock, no chance and no
//! admission check, and applying it twice changes nothing. Whoever holds authority writes
//! operations into its logbook; a standby, a resuming worker and a cold start apply them.
//!
//! The encoding is frozen: bincode's standard configuration, the variant's number first. A later
//! feature adds a variant at the end, and each variant knows the version of the contract that it came
//! with ([`Operation::since`]). Whoever encodes or decodes says in which version: a later variant is
//! refused on both sides, so a new one stays unused until no old reader is left.

use std::fmt;

use bincode::{Decode, Encode};

use crate::digest::Digest;

/// Longest content, in bytes, that is kept in the database itself. Longer content is a chunk file.
pub const LONGEST_RECORD: usize = 4096;

/// Longest content of one name, in bytes.
pub const LONGEST_CONTENT: usize = 1 << 20;

/// Bytes of an append's nonce.
pub const NONCE: usize = 16;

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
    /// This content is the entry number `index` of a log. Since version 2.
    ///
    /// What was asked for is named by log, nonce and content together; the index is the outcome. The
    /// same log, nonce and content are the same append, however often they come, and have one index.
    Append {
        /// Which log.
        log: Digest,
        /// Chosen by the client, at random, once per append: two appends of the same content differ.
        nonce: [u8; NONCE],
        /// The entry's number in its log. The first has 0, and none is left out.
        index: u64,
        /// The content itself, of at most [`LONGEST_RECORD`] bytes.
        content: Vec<u8>,
    },
}

impl Operation {
    /// The version of the contract that brought this kind of operation.
    pub fn since(&self) -> u16 {
        match self {
            Operation::Store { .. } | Operation::Link { .. } | Operation::Mark { .. } => 1,
            Operation::Append { .. } => 2,
        }
    }

    /// Whether this version of the contract has this kind of operation.
    ///
    /// # Errors
    /// [`OperationError::Later`].
    pub fn check_version(&self, version: u16) -> Result<(), OperationError> {
        match self.since() {
            needs if needs > version => Err(OperationError::Later { needs, version }),
            _ => Ok(()),
        }
    }

    /// The operation's bytes, for readers of this version.
    ///
    /// # Errors
    /// It is malformed (see [`Operation::check`]), or of a later version.
    pub fn encode(&self, version: u16) -> Result<Vec<u8>, OperationError> {
        self.check_version(version)?;
        self.check()?;
        bincode::encode_to_vec(self, CODEC).map_err(|error| OperationError::Codec(error.to_string()))
    }

    /// Reads exactly the bytes of one well-formed operation, as a reader of this version does.
    ///
    /// # Errors
    /// The bytes are something else, or an operation of a later version.
    pub fn decode(bytes: &[u8], version: u16) -> Result<Operation, OperationError> {
        let (operation, used): (Operation, usize) = bincode::decode_from_slice(bytes, CODEC)
            .map_err(|error| OperationError::Codec(error.to_string()))?;
        if used != bytes.len() {
            return Err(OperationError::Trailing { bytes: bytes.len() - used });
        }
        operation.check_version(version)?;
        operation.check()?;
        Ok(operation)
    }

    /// Holds the lengths against their limits. That a name belongs to its content is checked where
    /// the content is at hand.
    pub fn check(&self) -> Result<(), OperationError> {
        match self {
            Operation::Store { content, .. } | Operation::Append { content, .. }
                if content.len() > LONGEST_RECORD =>
            {
                Err(OperationError::RecordLength { length: content.len() })
            }
            Operation::Link { length, .. }
                if *length as usize <= LONGEST_RECORD || *length as usize > LONGEST_CONTENT =>
            {
                Err(OperationError::ChunkLength { length: *length })
            }
            Operation::Store { .. }
            | Operation::Link { .. }
            | Operation::Mark { .. }
            | Operation::Append { .. } => Ok(()),
        }
    }
}

/// Bytes that are no operation, or an operation that breaks the limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationError {
    /// The codec's own words: truncated, too long, or a variant that this build does not know.
    Codec(String),
    /// A kind of operation that the version lacks.
    Later {
        /// The version that has it.
        needs: u16,
        /// The version that was to be written or read.
        version: u16,
    },
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
            OperationError::Later { needs, version } => {
                write!(f, "an operation of version {needs} of the contract in version {version}")
            }
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

    use crate::version::CURRENT;

    const NAME: Digest = Digest([7; 32]);

    fn append(index: u64, content: &[u8]) -> Operation {
        Operation::Append { log: NAME, nonce: [9; NONCE], index, content: content.to_vec() }
    }

    #[test]
    fn the_encoding_of_every_operation_is_frozen() {
        let name = "07".repeat(32);
        for (operation, golden) in [
            (Operation::Store { name: NAME, content: b"abc".to_vec() }, format!("00{name}03616263")),
            (Operation::Store { name: NAME, content: vec![] }, format!("00{name}00")),
            (Operation::Link { name: NAME, length: 0x0001_0203 }, format!("01{name}fc03020100")),
            (Operation::Mark { id: 5 }, "0205".to_owned()),
            (Operation::Mark { id: u64::MAX }, "02fdffffffffffffffff".to_owned()),
            (append(300, b"abc"), format!("03{name}{}fb2c0103616263", "09".repeat(16))),
        ] {
            let bytes = operation.encode(CURRENT).unwrap();
            let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(text, golden, "{operation:?}");
            assert_eq!(Operation::decode(&bytes, CURRENT).unwrap(), operation);
        }
    }

    #[test]
    fn an_operation_that_is_cut_short_or_followed_by_bytes_is_refused() {
        let bytes = Operation::Store { name: NAME, content: vec![1; 300] }.encode(CURRENT).unwrap();
        for length in 0..bytes.len() {
            assert!(Operation::decode(&bytes[..length], CURRENT).is_err(), "{length}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Operation::decode(&longer, CURRENT), Err(OperationError::Trailing { bytes: 1 }));
    }

    #[test]
    fn a_length_outside_the_limits_is_refused_on_both_sides() {
        let long = Operation::Store { name: NAME, content: vec![0; LONGEST_RECORD + 1] };
        assert!(long.encode(CURRENT).is_err());
        assert!(append(0, &[0; LONGEST_RECORD + 1]).encode(CURRENT).is_err());
        assert!(append(u64::MAX, &[0; LONGEST_RECORD]).encode(CURRENT).is_ok());
        for length in [0, LONGEST_RECORD, LONGEST_CONTENT + 1] {
            assert!(
                Operation::Link { name: NAME, length: length as u32 }.encode(CURRENT).is_err(),
                "{length}"
            );
        }
        for length in [LONGEST_RECORD + 1, LONGEST_CONTENT] {
            assert!(
                Operation::Link { name: NAME, length: length as u32 }.encode(CURRENT).is_ok(),
                "{length}"
            );
        }
        // A length that promises far more than there is must not allocate for it.
        let greedy = [&[0][..], &[7; 32], &[0xfd], &u64::MAX.to_le_bytes()].concat();
        assert!(matches!(Operation::decode(&greedy, CURRENT), Err(OperationError::Codec(_))));
    }

    #[test]
    fn a_variant_that_no_version_here_has_is_refused() {
        assert!(matches!(Operation::decode(&[4, 0], CURRENT), Err(OperationError::Codec(_))));
    }

    #[test]
    fn an_operation_of_a_later_version_is_neither_written_nor_read_in_an_earlier_one() {
        let later = OperationError::Later { needs: 2, version: 1 };
        assert_eq!(append(0, b"abc").encode(1), Err(later.clone()));
        let bytes = append(0, b"abc").encode(2).unwrap();
        assert_eq!(Operation::decode(&bytes, 1), Err(later));
        assert_eq!(Operation::decode(&bytes, 2), Ok(append(0, b"abc")));
        for operation in [
            Operation::Store { name: NAME, content: vec![1] },
            Operation::Link { name: NAME, length: 5000 },
            Operation::Mark { id: 1 },
        ] {
            assert_eq!(operation.encode(1), operation.encode(2), "what both have, both write alike");
            assert_eq!(Operation::decode(&operation.encode(2).unwrap(), 1), Ok(operation));
        }
    }
}

//! Content and its name.

use std::fmt;

use bumpless_shared::digest::Digest;
use bumpless_shared::operation::{LONGEST_CONTENT, LONGEST_RECORD};
use sha3::{Digest as _, Sha3_256};

/// The name of content: its SHA3-256.
pub fn name_of(bytes: &[u8]) -> Digest {
    Digest(Sha3_256::digest(bytes).into())
}

/// Bytes together with the name that they were found to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    name: Digest,
    bytes: Vec<u8>,
}

/// Content above its limit; it has to be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// Its length in bytes.
    pub length: usize,
    /// The limit.
    pub limit: usize,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "content of {} bytes, at most {} are allowed", self.length, self.limit)
    }
}

impl std::error::Error for TooLong {}

impl Content {
    /// Hashes the bytes (about 2 ms for the longest content).
    pub fn new(bytes: Vec<u8>) -> Result<Content, TooLong> {
        if bytes.len() > LONGEST_CONTENT {
            return Err(TooLong { length: bytes.len(), limit: LONGEST_CONTENT });
        }
        Ok(Content { name: name_of(&bytes), bytes })
    }

    /// SHA3-256 of the bytes.
    pub fn name(&self) -> Digest {
        self.name
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives the bytes up.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Whether it is short enough to be kept in the database itself.
    pub fn is_record(&self) -> bool {
        self.bytes.len() <= LONGEST_RECORD
    }
}

//! The state as it was at one sequence, and the hash by which two workers compare it.

use std::fmt;

use bumpless_shared::digest::Digest;
use bumpless_shared::operation::Operation;
use sha3::{Digest as _, Sha3_256};

use super::layout::Value;
use super::store::{Position, Store, Totals};
use super::store_error::StoreError;

/// A view that does not change, whatever is written meanwhile. Cheap to take and to hold for minutes;
/// while it is held the database keeps the rows that it sees.
pub struct Snapshot {
    pub(super) store: Store,
    pub(super) view: fjall::Snapshot,
    pub(super) position: Position,
    pub(super) totals: Totals,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("position", &self.position).field("totals", &self.totals).finish()
    }
}

impl Snapshot {
    /// Everything at or below this is in it, and nothing above.
    pub fn position(&self) -> Position {
        self.position
    }

    /// How much there is in it.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Everything in it, each name once, in the order of this generation's layout: records as
    /// [`Operation::Store`], chunk files as [`Operation::Link`].
    pub fn entries(&self) -> impl Iterator<Item = Result<Operation, StoreError>> + Send + use<> {
        let store = self.store.clone();
        self.store.shelves().rows(&self.view).map(move |row| {
            let (name, value) = row.map_err(|error| store.explain_row("read a snapshot", error))?;
            Ok(match value {
                Value::Record(content) => Operation::Store { name, content },
                Value::Chunk(length) => Operation::Link { name, length },
            })
        })
    }

    /// Reads everything that is stored and hashes it. Takes seconds for gigabytes of records; chunk
    /// files are not opened.
    pub fn hash(&self) -> Result<StateHash, StoreError> {
        let mut hash = StateHash::EMPTY;
        for row in self.store.shelves().rows(&self.view) {
            let (name, value) = row.map_err(|error| self.store.explain_row("hash a snapshot", error))?;
            match &value {
                Value::Record(content) => hash.add_record(name, content),
                Value::Chunk(length) => hash.add_chunk(name, *length),
            }
        }
        Ok(hash)
    }
}

/// The hash of a state's logical content. Frozen: two versions must come to the same one.
///
/// It is the sum, modulo 2^256 and with the first byte the least, of one SHA3-256 for each name:
///
/// ```text
/// SHA3-256( "bumpless/state/1"  name (32 bytes)  kind (1 byte)  length (8 bytes, little-endian)  content )
/// ```
///
/// where kind is 0 for a record and 1 for a chunk file, and content is there for records only. An
/// empty state has the hash 0. A sum needs no order, so that layouts with different keys agree, and
/// no memory.
///
/// What it tells: that two workers hold the same names with the same lengths, and the same bytes in
/// the database. What it does not tell: whether the bytes belong to the names (reading checks that),
/// and whether chunk files are sound (linking and reading hash them). It is made to find faults, not
/// forgers: sums of hashes can be made to collide by somebody who may choose the names, with much
/// less work than a plain hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateHash([u8; 32]);

impl StateHash {
    /// The hash of an empty state.
    pub const EMPTY: StateHash = StateHash([0; 32]);

    /// For messages.
    pub fn digest(&self) -> Digest {
        Digest(self.0)
    }

    fn add_record(&mut self, name: Digest, content: &[u8]) {
        self.add(name, 0, content.len() as u64, content);
    }

    fn add_chunk(&mut self, name: Digest, length: u32) {
        self.add(name, 1, u64::from(length), &[]);
    }

    fn add(&mut self, name: Digest, kind: u8, length: u64, content: &[u8]) {
        let hash = Sha3_256::new()
            .chain_update(b"bumpless/state/1")
            .chain_update(name.0)
            .chain_update([kind])
            .chain_update(length.to_le_bytes())
            .chain_update(content)
            .finalize();
        let mut carry = 0;
        for (sum, byte) in self.0.iter_mut().zip(hash) {
            let added = u16::from(*sum) + u16::from(byte) + carry;
            *sum = added as u8;
            carry = added >> 8;
        }
    }
}

impl fmt::Display for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.digest().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_state_hash_is_frozen() {
        let mut hash = StateHash::EMPTY;
        assert_eq!(hash.to_string(), "00".repeat(32));
        hash.add_record(Digest([1; 32]), b"abc");
        assert_eq!(hash.to_string(), "919c0310f74df0a53d5c638854e1d72686c01b09a49cb135023e4ef26a071aec");
        hash.add_chunk(Digest([2; 32]), 5000);
        assert_eq!(hash.to_string(), "01e4fba57721b7cba68429a727b6d6f8968cd1bbe4e74761a63d4a63286659ce");
    }

    #[test]
    fn the_state_hash_does_not_depend_on_the_order() {
        let (mut one, mut two) = (StateHash::EMPTY, StateHash::EMPTY);
        for byte in 0..50 {
            one.add_record(Digest([byte; 32]), &[byte]);
        }
        for byte in (0..50).rev() {
            two.add_record(Digest([byte; 32]), &[byte]);
        }
        assert_eq!(one, two);
        two.add_record(Digest([50; 32]), &[50]);
        assert_ne!(one, two);
    }
}

//! The state as it was at one sequence, and the hash by which two workers compare it.

use std::fmt;

use bumpless_os::background::Pace;
use bumpless_shared::digest::Digest;
use bumpless_shared::operation::Operation;
use sha3::{Digest as _, Sha3_256};

use super::append::append_id;
use super::layout::{BadRow, RowError};
use super::store::{Position, Store, Totals};
use super::store_error::StoreError;

/// So many rows are hashed between two looks at the clock: a tenth of a millisecond.
const PACED: usize = 64;

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

    /// Everything in it, each once, in the order of this generation's layout: records as
    /// [`Operation::Store`], chunk files as [`Operation::Link`], entries of logs as
    /// [`Operation::Append`].
    pub fn entries(&self) -> impl Iterator<Item = Result<Operation, StoreError>> + Send + use<> {
        let store = self.store.clone();
        self.store
            .shelves()
            .rows(&self.view)
            .map(move |row| row.map_err(|error| store.explain_row("read a snapshot", error)))
    }

    /// Reads everything that is stored and hashes it, at a third of a processor's time: seconds for a
    /// million records. Chunk files are not opened.
    pub fn hash(&self) -> Result<StateHash, StoreError> {
        let failed = |error| self.store.explain_row("hash a snapshot", error);
        let (mut hash, mut pace) = (StateHash::EMPTY, Pace::default());
        for (number, row) in self.store.shelves().rows(&self.view).enumerate() {
            let operation = row.map_err(failed)?;
            if number.is_multiple_of(PACED) {
                pace.rest();
            }
            self.check(&operation).map_err(failed)?;
            hash.add(&operation);
        }
        Ok(hash)
    }

    /// An append that is found in one way only would be answered for, or read, and not the other.
    fn check(&self, operation: &Operation) -> Result<(), RowError> {
        match operation {
            Operation::Append { log, nonce, index, content } => {
                let id = append_id(log, nonce, content);
                match self.store.shelves().finds(&self.view, &id, log, *index)? {
                    true => Ok(()),
                    false => Err(RowError::Bad(BadRow)),
                }
            }
            Operation::Store { .. } | Operation::Link { .. } | Operation::Mark { .. } => Ok(()),
        }
    }
}

/// The hash of a state's logical content. Frozen: two versions must come to the same one.
///
/// It is the sum, modulo 2^256 and with the first byte the least, of one SHA3-256 for each name and each
/// entry of a log:
///
/// ```text
/// SHA3-256( "bumpless/state/1"  name (32 bytes)  kind (1 byte)  length (8 bytes, little-endian)  content )
/// ```
///
/// where kind is 0 for a record and 1 for a chunk file, and content is there for records only. An entry of
/// a log has kind 2: its name is the append's id, its length that of its content, and in the content's
/// place stand log (32 bytes), index (8 bytes, little-endian), nonce (16 bytes) and content. An empty
/// state has the hash 0. A sum needs no order, so that layouts with different keys agree, and
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

    fn add(&mut self, operation: &Operation) {
        match operation {
            Operation::Store { name, content } => self.add_one(*name, 0, content.len() as u64, &[content]),
            Operation::Link { name, length } => self.add_one(*name, 1, u64::from(*length), &[]),
            Operation::Append { log, nonce, index, content } => {
                let id = append_id(log, nonce, content);
                let parts: [&[u8]; 4] = [&log.0, &index.to_le_bytes(), nonce, content];
                self.add_one(id, 2, content.len() as u64, &parts);
            }
            Operation::Mark { .. } => {}
        }
    }

    fn add_one(&mut self, name: Digest, kind: u8, length: u64, content: &[&[u8]]) {
        let mut hash = Sha3_256::new()
            .chain_update(b"bumpless/state/1")
            .chain_update(name.0)
            .chain_update([kind])
            .chain_update(length.to_le_bytes());
        content.iter().for_each(|part| hash.update(part));
        let mut carry = 0;
        for (sum, byte) in self.0.iter_mut().zip(hash.finalize()) {
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

    fn record(name: [u8; 32], content: &[u8]) -> Operation {
        Operation::Store { name: Digest(name), content: content.to_vec() }
    }

    #[test]
    fn the_definition_of_the_state_hash_is_frozen() {
        let mut hash = StateHash::EMPTY;
        assert_eq!(hash.to_string(), "00".repeat(32));
        hash.add(&record([1; 32], b"abc"));
        assert_eq!(hash.to_string(), "919c0310f74df0a53d5c638854e1d72686c01b09a49cb135023e4ef26a071aec");
        hash.add(&Operation::Link { name: Digest([2; 32]), length: 5000 });
        assert_eq!(hash.to_string(), "01e4fba57721b7cba68429a727b6d6f8968cd1bbe4e74761a63d4a63286659ce");
        hash.add(&Operation::Append {
            log: Digest([3; 32]),
            nonce: [4; 16],
            index: 300,
            content: b"abc".to_vec(),
        });
        assert_eq!(hash.to_string(), "a9f15b6af79714115b8bcee7b6a1e4ee7a5e663414c2d5a4a4774b7d57715a2d");
    }

    #[test]
    fn the_state_hash_does_not_depend_on_the_order() {
        let (mut one, mut two) = (StateHash::EMPTY, StateHash::EMPTY);
        for byte in 0..50 {
            one.add(&record([byte; 32], &[byte]));
        }
        for byte in (0..50).rev() {
            two.add(&record([byte; 32], &[byte]));
        }
        assert_eq!(one, two);
        two.add(&record([50; 32], &[50]));
        assert_ne!(one, two);
    }
}

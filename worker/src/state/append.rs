//! An append to a log: what a client asks for, and its name.

use bumpless_shared::digest::Digest;
use bumpless_shared::operation::{LONGEST_RECORD, NONCE, Operation};
use sha3::{Digest as _, Sha3_256};

use super::content::TooLong;

/// The id of an append. Frozen: a retry that another release receives has to find the first answer.
///
/// ```text
/// SHA3-256( "bumpless/append/1"  log (32 bytes)  nonce (16 bytes)  content )
/// ```
pub fn append_id(log: &Digest, nonce: &[u8; NONCE], content: &[u8]) -> Digest {
    let hash = Sha3_256::new()
        .chain_update(b"bumpless/append/1")
        .chain_update(log.0)
        .chain_update(nonce)
        .chain_update(content);
    Digest(hash.finalize().into())
}

/// What is to be appended, together with its id. The holder decides on the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    id: Digest,
    log: Digest,
    nonce: [u8; NONCE],
    content: Vec<u8>,
}

impl Append {
    /// Hashes it. At most [`LONGEST_RECORD`] bytes.
    ///
    /// # Errors
    /// The content is longer.
    pub fn new(log: Digest, nonce: [u8; NONCE], content: Vec<u8>) -> Result<Append, TooLong> {
        if content.len() > LONGEST_RECORD {
            return Err(TooLong { length: content.len(), limit: LONGEST_RECORD });
        }
        Ok(Append { id: append_id(&log, &nonce, &content), log, nonce, content })
    }

    /// Its id.
    pub fn id(&self) -> Digest {
        self.id
    }

    /// The log.
    pub fn log(&self) -> Digest {
        self.log
    }

    /// The outcome: it got this index.
    pub(super) fn at(&self, index: u64) -> Operation {
        Operation::Append { log: self.log, nonce: self.nonce, index, content: self.content.clone() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_definition_of_an_appends_id_is_frozen() {
        let append = Append::new(Digest([1; 32]), [2; NONCE], b"abc".to_vec()).unwrap();
        assert_eq!(
            append.id().to_string(),
            "ae11e416092bbbe9978853c315cb52fac83e266097e2cc6c872aea73370909cd"
        );
        for other in [
            Append::new(Digest([2; 32]), [2; NONCE], b"abc".to_vec()),
            Append::new(Digest([1; 32]), [3; NONCE], b"abc".to_vec()),
            Append::new(Digest([1; 32]), [2; NONCE], b"abd".to_vec()),
        ] {
            assert_ne!(other.unwrap().id(), append.id());
        }
        assert!(Append::new(Digest([1; 32]), [2; NONCE], vec![0; LONGEST_RECORD + 1]).is_err());
    }
}

//! The public keys of a role, and how many of them must have signed.

use std::fmt;
use std::num::NonZeroU8;

use minisign_verify::PublicKey;

use crate::document::KeysDocument;

/// More keys than this in one role are refused: every signature may have to be tried against each.
pub const MAX_KEYS: usize = 16;

/// One Ed25519 public key. Two keys are the same if their 32 bytes are, whatever their text and key id.
#[derive(Clone, Debug)]
pub struct Key {
    bytes: [u8; 32],
    text: String,
    minisign: PublicKey,
}

/// A public key's text is not a key, or not one that may be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadKey {
    /// Not 56 characters of base64 that hold `Ed`, a key id and 32 bytes.
    NotMinisign,
    /// A small-order point: signatures under it can be made by anyone.
    Weak,
}

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadKey::NotMinisign => "is not a minisign public key (56 characters, beginning with RW)",
            BadKey::Weak => "is a small-order point, under which anyone can make signatures",
        })
    }
}

impl Key {
    /// Reads the second line of a minisign `.pub` file.
    ///
    /// # Errors
    /// The text is no key, or the key is weak.
    pub fn parse(text: &str) -> Result<Self, BadKey> {
        let decoded = decode(text).ok_or(BadKey::NotMinisign)?;
        let bytes: [u8; 32] = decoded[10..].try_into().map_err(|_| BadKey::NotMinisign)?;
        if &decoded[..2] != b"Ed" {
            return Err(BadKey::NotMinisign);
        }
        if is_weak(&bytes) {
            return Err(BadKey::Weak);
        }
        let minisign = PublicKey::from_base64(text).map_err(|_| BadKey::NotMinisign)?;
        Ok(Key { bytes, text: text.to_owned(), minisign })
    }

    /// The 32 bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// The text that it was read from.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn minisign(&self) -> &PublicKey {
        &self.minisign
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Key {}

/// 56 characters of base64, which hold exactly 42 bytes without padding or spare bits.
fn decode(text: &str) -> Option<[u8; 42]> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'a'..=b'z' => Some(c - b'a' + 26),
        b'0'..=b'9' => Some(c - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (groups, rest) = text.as_bytes().as_chunks::<4>();
    if groups.len() != 14 || !rest.is_empty() {
        return None;
    }
    let mut out = [0; 42];
    for (three, four) in out.as_chunks_mut::<3>().0.iter_mut().zip(groups) {
        let mut bits = 0u32;
        for c in four {
            bits = bits << 6 | u32::from(value(*c)?);
        }
        let [_, high, middle, low] = bits.to_be_bytes();
        *three = [high, middle, low];
    }
    Some(out)
}

/// The y coordinates of the eight points of small order, in every encoding that a decoder may accept:
/// 0, 1, the two of order eight, p-1, p and p+1. With both signs these are fourteen encodings.
const SMALL_ORDER: [[u8; 32]; 7] = {
    let mut table = [[0; 32]; 7];
    table[1][0] = 1;
    table[2] = [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5,
        0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ];
    table[3] = [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a,
        0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ];
    let mut row = 4;
    while row < 7 {
        table[row] = [0xff; 32];
        table[row][0] = 0xec + (row as u8 - 4);
        table[row][31] = 0x7f;
        row += 1;
    }
    table
};

fn is_weak(key: &[u8; 32]) -> bool {
    let mut y = *key;
    y[31] &= 0x7f;
    SMALL_ORDER.contains(&y)
}

/// A role's distinct keys and its threshold, with 1 ≤ threshold ≤ number of distinct keys.
#[derive(Clone, Debug)]
pub struct Keys {
    threshold: NonZeroU8,
    keys: Vec<Key>,
}

/// A role's keys cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadKeys {
    /// One of them, by its place (from 1).
    Key(usize, BadKey),
    /// More keys than [`MAX_KEYS`].
    TooMany(usize),
    /// More signatures needed than there are distinct keys.
    Threshold {
        /// Signatures needed.
        threshold: u8,
        /// Distinct keys.
        distinct: usize,
    },
}

impl fmt::Display for BadKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadKeys::Key(place, why) => write!(f, "key {place} {why}"),
            BadKeys::TooMany(count) => write!(f, "{count} keys, at most {MAX_KEYS} are allowed"),
            BadKeys::Threshold { threshold, distinct } => {
                write!(f, "{threshold} signatures are required of {distinct} distinct keys")
            }
        }
    }
}

impl Keys {
    /// Checks what a root says about one role. A key that is listed twice counts once.
    ///
    /// # Errors
    /// A key is no key, there are too many, or the threshold cannot be reached.
    pub fn parse(document: &KeysDocument) -> Result<Self, BadKeys> {
        if document.keys.len() > MAX_KEYS {
            return Err(BadKeys::TooMany(document.keys.len()));
        }
        let mut keys: Vec<Key> = Vec::new();
        for (at, text) in document.keys.iter().enumerate() {
            let key = Key::parse(text).map_err(|why| BadKeys::Key(at + 1, why))?;
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        if usize::from(document.threshold.get()) > keys.len() {
            return Err(BadKeys::Threshold { threshold: document.threshold.get(), distinct: keys.len() });
        }
        Ok(Keys { threshold: document.threshold, keys })
    }

    /// Signatures of distinct keys that are needed.
    pub fn threshold(&self) -> usize {
        usize::from(self.threshold.get())
    }

    /// The distinct keys.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Whether both hold the same set of keys; the threshold does not matter.
    pub fn same_keys(&self, other: &Keys) -> bool {
        self.keys.len() == other.keys.len() && self.keys.iter().all(|key| other.keys.contains(key))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use minisign_verify::Signature;

    fn encode(bytes: &[u8]) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for group in bytes.chunks(3) {
            let mut padded = [0; 3];
            padded[..group.len()].copy_from_slice(group);
            let bits = u32::from_be_bytes([0, padded[0], padded[1], padded[2]]);
            for place in 0..4 {
                let letter = ALPHABET[(bits >> (18 - 6 * place) & 63) as usize] as char;
                text.push(if place > group.len() { '=' } else { letter });
            }
        }
        text
    }

    fn text_of(key: &[u8; 32]) -> String {
        let mut bytes = b"Ed\x01\x02\x03\x04\x05\x06\x07\x08".to_vec();
        bytes.extend_from_slice(key);
        encode(&bytes)
    }

    fn fresh() -> String {
        minisign::KeyPair::generate_unencrypted_keypair().unwrap().pk.to_base64()
    }

    #[test]
    fn all_fourteen_encodings_of_small_order_are_refused() {
        let mut refused = 0;
        for mut key in SMALL_ORDER {
            for sign in [0, 0x80] {
                key[31] = key[31] & 0x7f | sign;
                assert_eq!(Key::parse(&text_of(&key)), Err(BadKey::Weak));
                refused += 1;
            }
        }
        assert_eq!(refused, 14);
    }

    /// Why the table exists: under the point of order two a signature by nobody verifies about every
    /// second time, so that a forger only needs to try a few comments.
    #[test]
    fn a_forged_signature_that_the_library_accepts_is_stopped_by_the_refusal_of_its_key() {
        let mut order_two = [0xff; 32];
        (order_two[0], order_two[31]) = (0xec, 0x7f);
        let text = text_of(&order_two);
        let key = PublicKey::from_base64(&text).unwrap();
        // R is the neutral element, S is zero: valid whenever the challenge is even.
        let mut forged = [0; 64];
        forged[0] = 1;
        let mut bytes = b"ED\x01\x02\x03\x04\x05\x06\x07\x08".to_vec();
        bytes.extend_from_slice(&forged);
        let accepted = (0..64u32).flat_map(|a| (0..4u32).map(move |b| (a, b))).any(|(message, comment)| {
            let block = format!(
                "untrusted comment: \n{}\ntrusted comment: {comment}\n{}\n",
                encode(&bytes),
                encode(&forged)
            );
            key.verify(&message.to_le_bytes(), &Signature::decode(&block).unwrap(), false).is_ok()
        });
        assert!(accepted, "the forgery no longer works: the library may have learnt to refuse such keys");
        assert_eq!(Key::parse(&text), Err(BadKey::Weak));
    }

    #[test]
    fn a_key_is_exactly_a_minisign_public_key() {
        let good = fresh();
        assert!(Key::parse(&good).is_ok());
        for wrong in [
            "",
            "RW",
            &good[..55],
            &format!("{good}="),
            &good.replacen('R', "S", 1),
            &format!(" {}", &good[1..]),
        ] {
            assert_eq!(Key::parse(wrong), Err(BadKey::NotMinisign), "{wrong}");
        }
    }

    #[test]
    fn a_key_listed_twice_under_two_key_ids_counts_once() {
        let text = fresh();
        let mut bytes = decode(&text).unwrap();
        bytes[2] ^= 1;
        let keys = vec![text.clone(), text, encode(&bytes)];
        let document =
            |threshold| KeysDocument { threshold: NonZeroU8::new(threshold).unwrap(), keys: keys.clone() };
        assert_eq!(Keys::parse(&document(1)).unwrap().keys().len(), 1);
        assert_eq!(Keys::parse(&document(2)).unwrap_err(), BadKeys::Threshold { threshold: 2, distinct: 1 });
    }
}

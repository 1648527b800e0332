//! A `.sigs` file: up to 16 minisign signatures of four lines each, and the count of keys that signed.

use std::fmt;

use minisign_verify::Signature;

use crate::document::MAX_SIGNATURES;
use crate::keys::{Key, Keys};

/// Signatures in one file.
pub const MAX_BLOCKS: usize = 16;

/// The signatures of one file, well-formed but not yet verified.
pub struct Signatures(Vec<Signature>);

/// A `.sigs` file is not what it has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadSignatures {
    /// No signature at all, or no file.
    None,
    /// More bytes than [`MAX_SIGNATURES`].
    TooLarge(usize),
    /// More than [`MAX_BLOCKS`].
    TooMany(usize),
    /// The number of lines is no multiple of four.
    Remainder(usize),
    /// A block (from 1) is no minisign signature.
    Block(usize),
    /// Fewer distinct keys of the role have signed than its threshold.
    TooFew {
        /// Distinct keys that have.
        have: usize,
        /// The threshold.
        need: usize,
    },
}

impl fmt::Display for BadSignatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadSignatures::None => f.write_str("it has no signatures"),
            BadSignatures::TooLarge(size) => {
                write!(f, "its signatures are {size} bytes long, at most {MAX_SIGNATURES} are read")
            }
            BadSignatures::TooMany(count) => {
                write!(f, "it has {count} signatures, at most {MAX_BLOCKS} are read")
            }
            BadSignatures::Remainder(lines) => {
                write!(f, "its signatures have {lines} lines, which is no multiple of four")
            }
            BadSignatures::Block(place) => write!(f, "its signature {place} is no minisign signature"),
            BadSignatures::TooFew { have, need } => {
                write!(f, "it is signed by {have} of the keys that count, and needs {need}")
            }
        }
    }
}

impl Signatures {
    /// Splits and decodes; verifies nothing yet.
    ///
    /// # Errors
    /// Every variant of [`BadSignatures`] but the last.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadSignatures> {
        if bytes.len() as u64 > MAX_SIGNATURES {
            return Err(BadSignatures::TooLarge(bytes.len()));
        }
        if bytes.is_empty() {
            return Err(BadSignatures::None);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| BadSignatures::Block(1))?;
        let lines: Vec<&str> = text.strip_suffix('\n').unwrap_or(text).split('\n').collect();
        let (blocks, rest) = lines.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(BadSignatures::Remainder(lines.len()));
        }
        if blocks.len() > MAX_BLOCKS {
            return Err(BadSignatures::TooMany(blocks.len()));
        }
        let decode = |(at, block): (usize, &[&str; 4])| {
            let whole =
                !block.iter().any(|line| line.contains('\r')) && block[0].starts_with("untrusted comment: ");
            let signature = if whole { Signature::decode(&block.join("\n")).ok() } else { None };
            signature.ok_or(BadSignatures::Block(at + 1))
        };
        Ok(Signatures(blocks.iter().enumerate().map(decode).collect::<Result<_, _>>()?))
    }

    /// The version for which enough distinct keys have signed `bytes` as `role`. What the trusted comment
    /// says counts only in a signature that verified; only prehashed signatures do.
    ///
    /// # Errors
    /// [`BadSignatures::TooFew`].
    pub fn verify(&self, keys: &Keys, role: impl fmt::Display, bytes: &[u8]) -> Result<u64, BadSignatures> {
        let signed = self.signed(keys, &role, bytes);
        let count = |version: u64| signed.iter().filter(|(signed, _)| *signed == version).count();
        let best = signed.iter().map(|(version, _)| (count(*version), *version)).max();
        match best {
            Some((have, version)) if have >= keys.threshold() => Ok(version),
            Some((have, _)) => Err(BadSignatures::TooFew { have, need: keys.threshold() }),
            None => Err(BadSignatures::TooFew { have: 0, need: keys.threshold() }),
        }
    }

    /// Which keys have signed `bytes` as `role` at `version`: for a publisher that asks who is missing.
    pub fn signers<'a>(
        &self,
        keys: &'a Keys,
        role: impl fmt::Display,
        version: u64,
        bytes: &[u8],
    ) -> Vec<&'a Key> {
        let signed = self.signed(keys, &role, bytes);
        signed.into_iter().filter(|(signed, _)| *signed == version).map(|(_, key)| key).collect()
    }

    /// Each version that was signed with each distinct key that signed it.
    fn signed<'a>(&self, keys: &'a Keys, role: &dyn fmt::Display, bytes: &[u8]) -> Vec<(u64, &'a Key)> {
        let mut signed: Vec<(u64, &Key)> = Vec::new();
        for signature in &self.0 {
            let signer =
                keys.keys().iter().find(|key| key.minisign().verify(bytes, signature, false).is_ok());
            let Some(signer) = signer else { continue };
            let Some(version) = version_in(signature.trusted_comment(), role) else { continue };
            if !signed.contains(&(version, signer)) {
                signed.push((version, signer));
            }
        }
        signed
    }
}

/// The trusted comment that a signature must have.
pub fn trusted_comment(role: impl fmt::Display, version: u64) -> String {
    format!("bumpless/1 {role} {version}")
}

fn version_in(comment: &str, role: &dyn fmt::Display) -> Option<u64> {
    let version = comment.rsplit(' ').next()?.parse().ok()?;
    // Written again and compared whole: no leading zero, no sign, no second space.
    (comment == trusted_comment(role, version)).then_some(version)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::document::{KeysDocument, Role};
    use minisign::KeyPair;
    use std::num::NonZeroU8;

    fn sign(pair: &KeyPair, bytes: &[u8], comment: &str) -> String {
        minisign::sign(Some(&pair.pk), &pair.sk, bytes, Some(comment), Some("a test")).unwrap().into_string()
    }

    fn pair() -> KeyPair {
        KeyPair::generate_unencrypted_keypair().unwrap()
    }

    fn keys(threshold: u8, pairs: &[&KeyPair]) -> Keys {
        let keys = pairs.iter().map(|pair| pair.pk.to_base64()).collect();
        Keys::parse(&KeysDocument { threshold: NonZeroU8::new(threshold).unwrap(), keys }).unwrap()
    }

    fn check(keys: &Keys, bytes: &[u8], sigs: &str) -> Result<u64, BadSignatures> {
        Signatures::parse(sigs.as_bytes())?.verify(keys, Role::Timestamp, bytes)
    }

    #[test]
    fn one_key_that_signs_twice_is_one_signature() {
        let (a, b) = (pair(), pair());
        let keys = keys(2, &[&a, &b]);
        let one = sign(&a, b"bytes", "bumpless/1 timestamp 7");
        let other = sign(&b, b"bytes", "bumpless/1 timestamp 7");
        let again = one.replace("a test", "another");
        assert_eq!(
            check(&keys, b"bytes", &format!("{one}{again}")),
            Err(BadSignatures::TooFew { have: 1, need: 2 })
        );
        assert_eq!(check(&keys, b"bytes", &format!("{one}{other}")), Ok(7));
    }

    #[test]
    fn a_signature_counts_only_for_its_bytes_its_role_its_version_and_a_key_of_the_role() {
        let (a, stranger) = (pair(), pair());
        let keys = keys(1, &[&a]);
        let none = Err(BadSignatures::TooFew { have: 0, need: 1 });
        assert_eq!(check(&keys, b"bytes", &sign(&a, b"bytes", "bumpless/1 timestamp 7")), Ok(7));
        assert_eq!(check(&keys, b"edited", &sign(&a, b"bytes", "bumpless/1 timestamp 7")), none);
        assert_eq!(check(&keys, b"bytes", &sign(&stranger, b"bytes", "bumpless/1 timestamp 7")), none);
        for comment in [
            "bumpless/1 root 7",
            "bumpless/2 timestamp 7",
            "bumpless/1 timestamp 07",
            "bumpless/1 timestamp +7",
            "bumpless/1 timestamp",
            "bumpless/1 timestamp 7 ",
            "x bumpless/1 timestamp 7",
        ] {
            assert_eq!(check(&keys, b"bytes", &sign(&a, b"bytes", comment)), none, "{comment:?}");
        }
        let edited = sign(&a, b"bytes", "bumpless/1 timestamp 7").replace("timestamp 7", "timestamp 8");
        assert_eq!(check(&keys, b"bytes", &edited), none);
    }

    #[test]
    fn signatures_for_two_versions_do_not_add_up() {
        let (a, b) = (pair(), pair());
        let keys = keys(2, &[&a, &b]);
        let seven = sign(&a, b"bytes", "bumpless/1 timestamp 7");
        let eight = sign(&b, b"bytes", "bumpless/1 timestamp 8");
        assert_eq!(
            check(&keys, b"bytes", &format!("{seven}{eight}")),
            Err(BadSignatures::TooFew { have: 1, need: 2 })
        );
    }

    #[test]
    fn a_signature_over_the_bytes_themselves_instead_of_their_hash_does_not_count() {
        // Made by the minisign tool with `-l`, which signs as algorithm `Ed` instead of `ED`.
        let key = "RWRQoWrlabyRDCOCEQAIvGxL2Wy6xSTfNCI0sg+Sr1V4NxIDSwOc6rHv";
        let legacy = "untrusted comment: a test\n\
            RWRQoWrlabyRDAFi9bQnPbjtefZvAYdxCDN3Yr0/rZDxq3XD30nRAE6YNU+6qgsrX3PQyVN4c9Jtm57VKaKUiEt1guAPXR/NiQc=\n\
            trusted comment: bumpless/1 timestamp 7\n\
            sfGOgpre6bGm71bdoteYF0MEIjSs36HBKCvq4iHUoiRtAJnqxDCiJJAihkKtyNod31A8Adfz3t4H0oNYW/4iBw==\n";
        let public = minisign_verify::PublicKey::from_base64(key).unwrap();
        assert!(public.verify(b"bytes", &Signature::decode(legacy).unwrap(), true).is_ok());
        let document = KeysDocument { threshold: NonZeroU8::MIN, keys: vec![key.to_owned()] };
        let keys = Keys::parse(&document).unwrap();
        assert_eq!(check(&keys, b"bytes", legacy), Err(BadSignatures::TooFew { have: 0, need: 1 }));
    }

    #[test]
    fn a_sigs_file_is_whole_blocks_of_four_lines_and_nothing_else() {
        let a = pair();
        let one = sign(&a, b"bytes", "bumpless/1 timestamp 7");
        let parse = |text: &str| Signatures::parse(text.as_bytes()).map(|_| ()).unwrap_err();
        assert_eq!(parse(""), BadSignatures::None);
        assert_eq!(parse(&format!("{one}x\n")), BadSignatures::Remainder(5));
        assert_eq!(parse(&format!("{one}\n")), BadSignatures::Remainder(5));
        assert_eq!(parse(&one.replace('\n', "\r\n")), BadSignatures::Block(1));
        assert_eq!(parse(&format!("{one}a\nb\nc\nd\n")), BadSignatures::Block(2));
        assert_eq!(parse(&one.repeat(17)), BadSignatures::TooMany(17));
        assert_eq!(parse(&"x".repeat(16 * 1024 + 1)), BadSignatures::TooLarge(16 * 1024 + 1));
        assert!(Signatures::parse(one.repeat(16).as_bytes()).is_ok());
        assert!(Signatures::parse(b"\xff\xfe").is_err());
    }
}

//! How a file larger than a content is stored: its chunks, and lists of their names.
//!
//! ```text
//!   level 2           manifest ──┬──────────────────┐           only for more than 32 GiB
//!   level 1               manifest ──┬────┐      manifest ──┐
//!   contents                       chunk chunk …          chunk …    1 MiB each, the last one shorter
//! ```
//!
//! A manifest is a content like any other, under its SHA3-256:
//!
//! ```text
//!   magic, 16 bytes │ version u8 │ level u8 │ 0 u16 │ count u32 │ total length u64 │ count names of 32 bytes
//! ```
//!
//! Integers are big-endian. The total is the file's bytes below this manifest. A file that fits into one content
//! is stored as it is, unless it begins with the magic: then it gets a manifest, too. So what a file's name
//! leads to is a manifest if and only if it begins with the magic, whatever the file contains.

use bumpless_shared::digest::Digest;

use crate::wire::CHUNK;

const MAGIC: [u8; 16] = *b"\x89bumpless-list\n\x00";
const VERSION: u8 = 1;
const HEADER: usize = 32;
/// Names in a full manifest.
pub const FAN: usize = (CHUNK - HEADER) / 32;
/// Levels above which nobody can have stored a file.
const DEEPEST: u8 = 4;

/// A list of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// 1: of chunks; above: of manifests of the level below.
    pub level: u8,
    /// Bytes of the file below it.
    pub total: u64,
    /// In the file's order; never empty.
    pub names: Vec<Digest>,
}

/// Whether a content that a file's name leads to is a manifest.
pub fn is_manifest(content: &[u8]) -> bool {
    content.starts_with(&MAGIC)
}

impl Manifest {
    /// The content to store.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + 32 * self.names.len());
        bytes.extend(MAGIC);
        bytes.extend([VERSION, self.level, 0, 0]);
        bytes.extend((self.names.len() as u32).to_be_bytes());
        bytes.extend(self.total.to_be_bytes());
        self.names.iter().for_each(|name| bytes.extend(name.0));
        bytes
    }

    /// Reads a content that begins with the magic.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn decode(content: &[u8]) -> Result<Manifest, String> {
        let short = || format!("it has {} bytes, fewer than a header", content.len());
        let (header, names) = content.split_first_chunk::<HEADER>().ok_or_else(short)?;
        let (magic, fields) = header.split_at(MAGIC.len());
        let [version, level, _, _, c0, c1, c2, c3, total @ ..] = fields else { return Err(short()) };
        if magic != MAGIC {
            return Err("it does not begin as a manifest".to_owned());
        }
        if *version != VERSION {
            return Err(format!("it is of version {version}; this client reads version {VERSION}"));
        }
        let count = u32::from_be_bytes([*c0, *c1, *c2, *c3]) as usize;
        let total = total.first_chunk().copied().map(u64::from_be_bytes).ok_or_else(short)?;
        let (names, rest) = names.as_chunks::<32>();
        if names.len() != count || !rest.is_empty() || names.is_empty() {
            return Err(format!(
                "it announces {count} names and has {} bytes of them",
                content.len() - HEADER
            ));
        }
        let fits = match level {
            1 => total.div_ceil(CHUNK as u64) == count as u64,
            2..=DEEPEST => total > count as u64,
            _ => false,
        };
        if !fits {
            return Err(format!("{count} names at level {level} cannot be {total} bytes"));
        }
        Ok(Manifest { level: *level, total, names: names.iter().map(|name| Digest(*name)).collect() })
    }

    /// Bytes of the chunk at this place of a level-1 manifest.
    pub fn chunk_length(&self, place: usize) -> u64 {
        (self.total - (place * CHUNK) as u64).min(CHUNK as u64)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn manifest(level: u8, total: u64, count: u8) -> Manifest {
        Manifest { level, total, names: (0..count).map(|byte| Digest([byte; 32])).collect() }
    }

    #[test]
    fn a_manifest_reads_back_from_its_bytes_which_were_published() {
        let two = manifest(1, (1 << 20) + 5, 2);
        let bytes = two.encode();
        let hex: String = bytes[..HEADER].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "8962756d706c6573732d6c6973740a0001010000000000020000000000100005");
        assert!(is_manifest(&bytes));
        assert_eq!(Manifest::decode(&bytes), Ok(two.clone()));
        assert_eq!((two.chunk_length(0), two.chunk_length(1)), (1 << 20, 5));
        let full = Manifest { level: 1, total: (FAN * CHUNK) as u64, names: vec![Digest([1; 32]); FAN] };
        assert!(full.encode().len() <= CHUNK);
    }

    #[test]
    fn a_manifest_that_contradicts_itself_is_refused() {
        let good = manifest(1, (1 << 20) + 5, 2).encode();
        for length in 0..good.len() {
            assert!(Manifest::decode(&good[..length]).is_err());
        }
        for (byte, wrong) in [(0, 0), (16, 2), (17, 0), (17, 5), (23, 3), (24, 1), (29, 0)] {
            let mut bad = good.clone();
            bad[byte] = wrong;
            assert!(Manifest::decode(&bad).is_err(), "byte {byte} = {wrong}");
        }
        assert!(Manifest::decode(&manifest(1, 0, 0).encode()).is_err(), "an empty list");
    }
}

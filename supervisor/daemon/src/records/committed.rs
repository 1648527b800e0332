//! The pair that belongs together: the one thing that a start opens.

use std::net::SocketAddr;

use bincode::{Decode, Encode};
use bumpless_shared::control::{Generation, Term};
use bumpless_shared::release::Release;

use super::file::RecordFile;
use super::paths::Paths;

/// A complete release and a complete generation that belong together. Replacing this record is the
/// commit point of an upgrade; nothing else changes its generation.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Committed {
    /// What runs.
    pub release: Release,
    /// On which state directory.
    pub generation: Generation,
    /// The highest term known to have been held on it when this was written.
    pub term: Term,
    /// The node's addresses, ports resolved.
    pub listen: Vec<SocketAddr>,
}

/// Its file.
pub fn file(paths: &Paths) -> RecordFile<Committed> {
    RecordFile::new(paths.committed(), "committed record", 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bumpless_shared::digest::Digest;

    #[test]
    fn the_committed_record_reads_back_and_its_bytes_are_frozen() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(&Paths::new(dir.path(), dir.path()));
        let committed = Committed {
            release: Release { version: "1.8.2".parse().unwrap(), sha256: Digest([7; 32]) },
            generation: 3,
            term: 300,
            listen: vec!["127.0.0.1:4433".parse().unwrap(), "[::1]:4433".parse().unwrap()],
        };
        file.store(&committed).unwrap();
        assert_eq!(file.load().unwrap(), Some(committed));
        let bytes = std::fs::read(file.path()).unwrap();
        let hex: String = bytes[12..].iter().map(|byte| format!("{byte:02x}")).collect();
        let release = format!("05312e382e32{}", "07".repeat(32));
        assert_eq!(hex, format!("{release}03fb2c0102007f000001fb511101{}fb5111", "00".repeat(15) + "01"));
    }
}

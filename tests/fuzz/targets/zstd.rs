//! The way from a fetched blob to an artifact: never more bytes than were signed, and no window above the cap.
#![no_main]

use std::io::Write;

use bumpless_shared::digest::Digest;
use bumpless_trust::document::{Artifact, Encoding, Kind};
use bumplessd::releases::unpack::unpack;
use libfuzzer_sys::fuzz_target;

/// Signed.
const RAW: u64 = 4096;

/// Counts, and holds against the bound while it is written to.
struct Bounded(u64);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        assert!(self.0 <= RAW, "{} bytes were written", self.0);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut blob) = tempfile::tempfile() else { return };
    if blob.write_all(bytes).is_err() {
        return;
    }
    for encoding in [Encoding::Zstd, Encoding::Plain] {
        let artifact = Artifact {
            kind: Kind::Worker,
            target: String::new(),
            encoding,
            size: bytes.len() as u64,
            sha256: Digest([0; 32]),
            raw_size: RAW,
            raw_sha256: Digest([0; 32]),
        };
        let Ok(blob) = blob.try_clone() else { return };
        let mut out = Bounded(0);
        if unpack(blob, &artifact, &mut out).is_ok() {
            assert_eq!(out.0, RAW);
        }
    }
});

//! An artifact on its way to the feed: what it says about itself, and its blob.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use bumpless_shared::control::Description;
use bumpless_shared::digest::Digest;
use bumpless_trust::document::{Artifact, Encoding, Kind};
use sha2::{Digest as _, Sha256};

use crate::error::PublishError;
use crate::file::{Aside, Readers};

/// The largest zstd window: what a supervisor is willing to hold in memory while it unpacks (8 MiB).
const WINDOW_LOG: u32 = 23;

/// What the artifact prints when it is run with `--describe`.
pub(crate) fn describe(artifact: &Path) -> Result<Description, PublishError> {
    let failed = |why: String| PublishError::Describe(artifact.to_owned(), why);
    let path = artifact.canonicalize().map_err(|error| failed(error.to_string()))?;
    let output = Command::new(path).arg("--describe").stdin(Stdio::null()).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(format!("`--describe` ended with {}", output.status)));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
}

/// Packs an artifact into the folder `blob`, at this zstd level; memory does not grow with its size.
pub(crate) fn pack(path: &Path, target: String, blob: &Path, level: i32) -> Result<Artifact, PublishError> {
    let write = |error| PublishError::File("write into", blob.to_owned(), error);
    let aside = Aside::begin(blob, Readers::All).map_err(write)?;
    let mut packed = zstd::Encoder::new(Hashed::new(aside), level).map_err(write)?;
    packed.window_log(WINDOW_LOG.min(20 + level.unsigned_abs() / 5)).map_err(write)?;
    let (raw_size, raw_sha256) = copy(path, &mut packed, write)?;
    if raw_size == 0 {
        return Err(PublishError::Value(format!("{} is empty", path.display())));
    }
    let Hashed { inner, sha256, size } = packed.finish().map_err(write)?;
    let sha256 = Digest(sha256.finalize().into());
    inner.publish(&blob.join(sha256.to_string())).map_err(write)?;
    let (kind, encoding) = (Kind::Worker, Encoding::Zstd);
    Ok(Artifact { kind, target, encoding, size, sha256, raw_size, raw_sha256 })
}

/// Size and SHA-256 of a file.
pub(crate) fn measure(path: &Path) -> Result<(u64, Digest), PublishError> {
    copy(path, &mut io::sink(), |error| PublishError::File("read", path.to_owned(), error))
}

fn copy(
    path: &Path,
    to: &mut impl Write,
    write: impl Fn(io::Error) -> PublishError,
) -> Result<(u64, Digest), PublishError> {
    let read = |error| PublishError::File("read", path.to_owned(), error);
    let mut source = File::open(path).map_err(read)?;
    let (mut sha256, mut size) = (Sha256::new(), 0u64);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match source.read(&mut buffer).map_err(read)? {
            0 => return Ok((size, Digest(sha256.finalize().into()))),
            read => {
                sha256.update(&buffer[..read]);
                size += read as u64;
                to.write_all(&buffer[..read]).map_err(&write)?;
            }
        }
    }
}

/// Counts and hashes what passes through.
struct Hashed<W> {
    inner: W,
    sha256: Sha256,
    size: u64,
}

impl<W> Hashed<W> {
    fn new(inner: W) -> Self {
        Hashed { inner, sha256: Sha256::new(), size: 0 }
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sha256.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

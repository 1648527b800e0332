//! A fetched file without a name: gone when it is closed, whatever happens.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use bumpless_shared::digest::Digest;
use bumpless_trust::document::Artifact;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use sha2::{Digest as _, Sha256};

use super::error::FeedError;

/// A blob whose size and SHA-256 are the signed ones, or for a package's worker the declared ones. Nobody else can
/// reach the file: it has no name.
#[derive(Debug)]
pub struct Staged {
    file: File,
}

impl Staged {
    pub(crate) fn verify(mut file: File, artifact: &Artifact) -> Result<Staged, FeedError> {
        let failed = |source| FeedError::Staging { path: "staging".into(), source };
        let found = file.metadata().map_err(failed)?.len();
        if found != artifact.size {
            return Err(FeedError::BlobSize { expected: artifact.size, found });
        }
        file.rewind().map_err(failed)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match file.read(&mut buffer).map_err(failed)? {
                0 => break,
                read => hash.update(&buffer[..read]),
            }
        }
        let found = Digest(hash.finalize().into());
        if found != artifact.sha256 {
            return Err(FeedError::BlobHash { expected: artifact.sha256, found });
        }
        Ok(Staged { file })
    }

    /// The file; where its position stands is not said.
    pub fn into_file(self) -> File {
        self.file
    }
}

/// An empty file without a name in `dir`.
pub(crate) fn unnamed(dir: &Path) -> Result<File, FeedError> {
    let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let opened = open(dir, flags, Mode::S_IRUSR | Mode::S_IWUSR);
    opened.map(File::from).map_err(|error| FeedError::Staging { path: dir.to_owned(), source: error.into() })
}

/// Another descriptor of the same open file.
pub(super) fn again(file: &File) -> Result<File, FeedError> {
    file.try_clone().map_err(|source| FeedError::Staging { path: "staging".into(), source })
}

/// All of a small file, and at most one byte more than allowed.
pub(super) fn read(mut file: File, limit: u64) -> Result<Vec<u8>, FeedError> {
    let failed = |source| FeedError::Staging { path: "staging".into(), source };
    let mut bytes = Vec::new();
    file.rewind().map_err(failed)?;
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Runs bulk work beside the runtime's only thread, which has a worker to watch meanwhile.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FeedError> + Send + 'static,
) -> Result<T, FeedError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => Err(FeedError::Helper("panicked".to_owned())),
        Err(_) => Err(FeedError::Helper("was cancelled".to_owned())),
    }
}

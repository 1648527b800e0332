//! What has come of a blob so far, under a name: the next try goes on behind it, also after the supervisor
//! was killed or the machine was off.
//!
//! ```text
//!   staging/<sha256>.part ─ more bytes, from whichever place has them ─ all there ▶ name taken away ▶ verified
//! ```
//!
//! Nothing is known about these bytes until all of them are there and their hash is right. If it is not,
//! whoever sent the earlier ones may be to blame, so the last place gets one chance to send all of them.
//! One blob at a time is kept: beginning another one removes it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bumpless_trust::document::Artifact;
use nix::fcntl::OFlag;

use super::error::FeedError;
use super::staged::{self, Staged};

/// Bytes that are there of this blob, without touching them.
pub(super) fn there(dir: &Path, artifact: &Artifact) -> u64 {
    fs::metadata(dir.join(name(artifact))).map_or(0, |file| file.len())
}

fn name(artifact: &Artifact) -> String {
    format!("{}.part", artifact.sha256)
}

/// A blob that is being fetched.
#[derive(Debug)]
pub(super) struct Partial {
    file: File,
    path: PathBuf,
}

impl Partial {
    /// What is there of this blob; every other blob's beginning is removed.
    pub(super) fn open(dir: &Path, artifact: &Artifact) -> Result<Partial, FeedError> {
        let failed = |source| FeedError::Staging { path: dir.to_owned(), source };
        let name = name(artifact);
        for entry in fs::read_dir(dir).map_err(failed)? {
            let other = entry.map_err(failed)?;
            if other.file_name() != *name && other.path().extension().is_some_and(|it| it == "part") {
                fs::remove_file(other.path()).map_err(failed)?;
            }
        }
        let path = dir.join(name);
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags.bits());
        let file = options.open(&path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(failed(io::Error::other(format!("{} is no regular file", path.display()))));
        }
        let partial = Partial { file, path };
        if partial.len()? > artifact.size {
            partial.clear()?;
        }
        Ok(partial)
    }

    /// Bytes that are there.
    pub(super) fn len(&self) -> Result<u64, FeedError> {
        Ok(self.file.metadata().map_err(self.failed())?.len())
    }

    /// To write the rest to: another descriptor of the same open file, which stands at its end.
    pub(super) fn end(&self) -> Result<File, FeedError> {
        (&self.file).seek(SeekFrom::End(0)).map_err(self.failed())?;
        staged::again(&self.file)
    }

    /// Forgets what is there.
    pub(super) fn clear(&self) -> Result<(), FeedError> {
        self.file.set_len(0).map_err(self.failed())
    }

    /// Takes the name away. What was opened stays until it is closed.
    pub(super) fn unname(&self) -> Result<(), FeedError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed()(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Verifies that all of it is there and is what was signed.
    pub(super) async fn verify(&self, artifact: &Artifact) -> Result<Staged, FeedError> {
        let (file, artifact) = (staged::again(&self.file)?, artifact.clone());
        staged::blocking(move || Staged::verify(file, &artifact)).await
    }

    fn failed(&self) -> impl FnOnce(io::Error) -> FeedError + use<> {
        let path = self.path.clone();
        move |source| FeedError::Staging { path, source }
    }
}

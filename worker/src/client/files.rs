//! Files of any size, as contents of at most [`CHUNK`] bytes; see the manifest's layout in this folder.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bumpless_shared::digest::Digest;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use super::manifest::{FAN, Manifest, is_manifest};
use super::{Client, RequestError};
use crate::wire::CHUNK;

/// Chunks on their way at a time, for one file.
const WINDOW: usize = 8;

impl Client {
    /// Stores a file and returns the name by which [`get_file`](Self::get_file) brings it back whole; durable
    /// when this returns. `progress` gets the bytes stored and the bytes that the file had at first.
    ///
    /// # Errors
    /// The file cannot be read, or a part was not acknowledged; parts stored before stay stored.
    pub async fn put_file(&self, path: &Path, progress: impl FnMut(u64, u64)) -> Result<Digest, FileError> {
        self.put_file_in(path, FAN, progress).await
    }

    pub(super) async fn put_file_in(
        &self,
        path: &Path,
        fan: usize,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Digest, FileError> {
        let unreadable = |source| FileError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        let announced = file.metadata().map_err(unreadable)?.len();
        let (file, mut chunk) = next_chunk(file).await.map_err(unreadable)?;
        let (mut file, mut ahead) = next_chunk(file).await.map_err(unreadable)?;
        if ahead.is_empty() && !is_manifest(&chunk) {
            let name = self.put(&chunk).await.map_err(FileError::Request)?;
            progress(chunk.len() as u64, announced);
            return Ok(name);
        }
        let (mut under_way, mut names, mut done) = (Ordered::new(), Vec::new(), 0);
        let mut one_done = |(name, length)| {
            names.push(name);
            done += length;
            progress(done, announced.max(done));
        };
        while !chunk.is_empty() {
            let (client, content) = (self.clone(), chunk);
            under_way
                .push(async move { client.put(&content).await.map(|name| (name, content.len() as u64)) });
            if under_way.len() == WINDOW
                && let Some(stored) = under_way.next().await
            {
                one_done(stored?.map_err(FileError::Request)?);
            }
            chunk = ahead;
            (file, ahead) = next_chunk(file).await.map_err(unreadable)?;
        }
        while let Some(stored) = under_way.next().await {
            one_done(stored?.map_err(FileError::Request)?);
        }
        self.put_lists(names, done, fan).await
    }

    /// Stores the lists over these chunks, level by level, and returns the name of the topmost.
    async fn put_lists(&self, chunks: Vec<Digest>, total: u64, fan: usize) -> Result<Digest, FileError> {
        let (mut level, mut span, mut names) = (1, CHUNK as u64, chunks);
        loop {
            let mut above = Vec::with_capacity(names.len().div_ceil(fan));
            let covered = span.saturating_mul(fan as u64);
            for (place, part) in names.chunks(fan).enumerate() {
                let below = (total - place as u64 * covered).min(covered);
                let manifest = Manifest { level, total: below, names: part.to_vec() };
                above.push(self.put(&manifest.encode()).await.map_err(FileError::Request)?);
            }
            if let [top] = above[..] {
                return Ok(top);
            }
            (level, span, names) = (level + 1, covered, above);
        }
    }

    /// Fetches a file whole and writes it in order; returns its bytes. `progress` gets the bytes written and the
    /// bytes in all.
    ///
    /// # Errors
    /// A part is missing or cannot be had, or `into` cannot be written; what was written so far is the file's
    /// beginning.
    pub async fn get_file(
        &self,
        name: Digest,
        into: &mut impl Write,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<u64, FileError> {
        let content = self.part(name).await?;
        if !is_manifest(&content) {
            into.write_all(&content).map_err(FileError::Write)?;
            progress(content.len() as u64, content.len() as u64);
            return Ok(content.len() as u64);
        }
        let top = read_manifest(name, &content)?;
        let total = top.total;
        let mut done = 0;
        // Manifests that are still to be read, the next one last.
        let mut open = vec![top];
        while let Some(manifest) = open.pop() {
            if manifest.level == 1 {
                self.write_chunks(&manifest, into, |length| {
                    done += length;
                    progress(done, total);
                })
                .await?;
                continue;
            }
            let mut below = Vec::with_capacity(manifest.names.len());
            for name in &manifest.names {
                let child = read_manifest(*name, &self.part(*name).await?)?;
                if child.level + 1 != manifest.level {
                    let reason = format!("it is of level {} below level {}", child.level, manifest.level);
                    return Err(FileError::Manifest { name: *name, reason });
                }
                below.push(child);
            }
            let sum = below.iter().try_fold(0, |sum: u64, child| sum.checked_add(child.total));
            if sum != Some(manifest.total) {
                let reason = format!("its parts are not the {} bytes that it announces", manifest.total);
                return Err(FileError::Manifest { name, reason });
            }
            open.extend(below.into_iter().rev());
        }
        Ok(done)
    }

    async fn write_chunks(
        &self,
        manifest: &Manifest,
        into: &mut impl Write,
        mut written: impl FnMut(u64),
    ) -> Result<(), FileError> {
        let mut under_way = Ordered::new();
        let mut names = manifest.names.iter();
        for (place, name) in manifest.names.iter().enumerate() {
            while under_way.len() < WINDOW
                && let Some(ahead) = names.next()
            {
                let (client, ahead) = (self.clone(), *ahead);
                under_way.push(async move { client.part(ahead).await });
            }
            let Some(chunk) = under_way.next().await else { break };
            let chunk = chunk??;
            if chunk.len() as u64 != manifest.chunk_length(place) {
                let reason = format!(
                    "it is a chunk of {} bytes where {} belong",
                    chunk.len(),
                    manifest.chunk_length(place)
                );
                return Err(FileError::Manifest { name: *name, reason });
            }
            into.write_all(&chunk).map_err(FileError::Write)?;
            written(chunk.len() as u64);
        }
        Ok(())
    }

    async fn part(&self, name: Digest) -> Result<Vec<u8>, FileError> {
        self.get(name).await.map_err(FileError::Request)?.ok_or(FileError::Missing { name })
    }
}

fn read_manifest(name: Digest, content: &[u8]) -> Result<Manifest, FileError> {
    Manifest::decode(content).map_err(|reason| FileError::Manifest { name, reason })
}

/// The next [`CHUNK`] bytes, fewer at the end of the file.
async fn next_chunk(mut file: File) -> io::Result<(File, Vec<u8>)> {
    spawn_blocking(move || {
        let mut chunk = Vec::new();
        (&mut file).take(CHUNK as u64).read_to_end(&mut chunk)?;
        Ok((file, chunk))
    })
    .await?
}

/// Tasks whose results are taken in the order in which they began; those left are stopped when dropped.
struct Ordered<T>(VecDeque<JoinHandle<T>>);

impl<T: Send + 'static> Ordered<T> {
    fn new() -> Self {
        Ordered(VecDeque::new())
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn push(&mut self, task: impl Future<Output = T> + Send + 'static) {
        self.0.push_back(tokio::spawn(task));
    }

    /// The oldest task's result; `None` without one. The task is stopped with the others if this is dropped.
    async fn next(&mut self) -> Option<Result<T, FileError>> {
        let result = self.0.front_mut()?.await;
        self.0.pop_front();
        Some(result.map_err(FileError::Task))
    }
}

impl<T> Drop for Ordered<T> {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// Why a file could not be stored or fetched.
#[derive(Debug)]
pub enum FileError {
    /// The file cannot be read.
    Read {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What was fetched cannot be written.
    Write(io::Error),
    /// A request for a part failed.
    Request(RequestError),
    /// A part is not stored.
    Missing {
        /// Which.
        name: Digest,
    },
    /// A part is not what it must be.
    Manifest {
        /// Which.
        name: Digest,
        /// Why.
        reason: String,
    },
    /// A task of this process ended early.
    Task(JoinError),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileError::Read { path, source } => write!(f, "cannot read {}: {source}", path.display()),
            FileError::Write(source) => write!(f, "cannot write what was fetched: {source}"),
            FileError::Request(error) => write!(f, "{error}"),
            FileError::Missing { name } => write!(f, "nothing is stored under {name}"),
            FileError::Manifest { name, reason } => {
                write!(f, "{name} is no list of a file's parts that this client can follow: {reason}")
            }
            FileError::Task(error) => write!(f, "a transfer was stopped: {error}"),
        }
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            FileError::Read { source, .. } | FileError::Write(source) => Some(source),
            FileError::Request(error) => Some(error),
            FileError::Task(error) => Some(error),
            FileError::Missing { .. } | FileError::Manifest { .. } => None,
        }
    }
}

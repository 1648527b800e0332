//! The chunk files of one generation: `chunks/<name>`, immutable, mode 0444.
//!
//! A file appears here whole or not at all: written aside, synced, renamed, the directory synced.
//! It is never opened for writing again, so generations can share it by hard links. What a process
//! left aside when it ended goes when the generation is opened next.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use bumpless_os::disk::{self, File};
use bumpless_shared::control::Durability;
use bumpless_shared::digest::Digest;

use super::content::{Content, name_of};
use super::directory::FileError;

const ASIDE: &str = "aside-";

/// What a link is held against before it is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The length and the hash of the content.
    Content,
    /// The length alone; the content is hashed when it is read.
    Length,
}

/// Why a chunk file could not be kept, taken over or read.
#[derive(Debug)]
pub enum ChunkError {
    /// The disk has no room for it. Nothing was changed.
    NoRoom {
        /// Bytes that it needs.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// There is no such file.
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The file is not as long as its record says.
    Length {
        /// Which file.
        path: PathBuf,
        /// Bytes by the record.
        expected: u32,
        /// Bytes found.
        found: u64,
    },
    /// The content has another hash than its name.
    Content {
        /// Which file.
        path: PathBuf,
        /// What its content is really named.
        found: Digest,
    },
    /// The system refused.
    File(FileError),
}

impl ChunkError {
    /// Whether the file itself is to blame, and not this machine: such a record is refused for good.
    pub fn is_bad_file(&self) -> bool {
        match self {
            ChunkError::Missing { .. } | ChunkError::Length { .. } | ChunkError::Content { .. } => true,
            ChunkError::NoRoom { .. } | ChunkError::File(_) => false,
        }
    }
}

impl From<FileError> for ChunkError {
    fn from(error: FileError) -> Self {
        ChunkError::File(error)
    }
}

impl fmt::Display for ChunkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChunkError::NoRoom { needed, free } => {
                write!(f, "a chunk file needs {needed} bytes, {free} are free; nothing was changed")
            }
            ChunkError::Missing { path } => write!(f, "the chunk file {} is missing", path.display()),
            ChunkError::Length { path, expected, found } => {
                write!(f, "the chunk file {} has {found} bytes instead of {expected}", path.display())
            }
            ChunkError::Content { path, found } => {
                write!(f, "the chunk file {} holds other content, named {found}", path.display())
            }
            ChunkError::File(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ChunkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ChunkError::File(error) => Some(error),
            ChunkError::NoRoom { .. }
            | ChunkError::Missing { .. }
            | ChunkError::Length { .. }
            | ChunkError::Content { .. } => None,
        }
    }
}

/// The directory, shared by everyone who reads or stages.
#[derive(Debug)]
pub(super) struct Chunks {
    path: PathBuf,
    directory: GroupSync,
    durability: Durability,
    aside: AtomicU64,
}

impl Chunks {
    /// Opens an existing directory and clears what was left aside. The caller holds the generation's
    /// lock, so nothing there can be somebody's work under way.
    pub(super) fn open(path: PathBuf, durability: Durability) -> Result<Chunks, FileError> {
        for entry in fs::read_dir(&path).map_err(FileError::at("list", &path))? {
            let entry = entry.map_err(FileError::at("list", &path))?;
            if entry.file_name().to_string_lossy().starts_with(ASIDE) {
                disk::remove_file(&entry.path()).map_err(FileError::at("remove", entry.path()))?;
            }
        }
        let directory = File::open(&path).map_err(FileError::at("open", &path))?;
        Ok(Chunks { path, directory: GroupSync::new(directory), durability, aside: AtomicU64::new(0) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn file(&self, name: Digest) -> PathBuf {
        self.path.join(name.to_string())
    }

    fn aside(&self) -> PathBuf {
        self.path.join(format!("{ASIDE}{}", self.aside.fetch_add(1, Ordering::Relaxed)))
    }

    /// Keeps the content as a chunk file, durably. Twice is once.
    pub(super) fn stage(&self, content: &Content) -> Result<(), ChunkError> {
        let path = self.file(content.name());
        let length = content.bytes().len() as u64;
        // A file of an earlier try whose record was never written is as good as a new one, once its
        // content has been looked at; anything else in its place is replaced.
        let kept = match read_whole(&path, length) {
            Ok(bytes) => name_of(&bytes) == content.name(),
            Err(ChunkError::Missing { .. } | ChunkError::Length { .. } | ChunkError::Content { .. }) => false,
            Err(error @ (ChunkError::NoRoom { .. } | ChunkError::File(_))) => return Err(error),
        };
        if !kept {
            let aside = self.aside();
            if let Err(error) = self
                .write_aside(&aside, content.bytes())
                .and_then(|()| disk::rename(&aside, &path).map_err(FileError::at("rename", &aside)))
            {
                // What is left aside also goes at the next opening.
                let _ = disk::remove_file(&aside);
                return Err(self.explain(error, length));
            }
        }
        match self.durability {
            Durability::Fsync => {
                self.directory.sync().map_err(FileError::at("sync", &self.path)).map_err(ChunkError::from)
            }
            Durability::Os => Ok(()),
        }
    }

    fn write_aside(&self, aside: &Path, bytes: &[u8]) -> Result<(), FileError> {
        let mut file = File::create_new(aside, 0o444).map_err(FileError::at("create", aside))?;
        // The process's umask may have taken bits away that the other worker needs.
        file.set_mode(0o444).map_err(FileError::at("set the mode of", aside))?;
        file.write_all(bytes).map_err(FileError::at("write", aside))?;
        match self.durability {
            Durability::Fsync => file.sync_all().map_err(FileError::at("sync", aside)),
            Durability::Os => Ok(()),
        }
    }

    fn explain(&self, error: FileError, needed: u64) -> ChunkError {
        if error.is_no_room() {
            return ChunkError::NoRoom { needed, free: free_space(&self.path).unwrap_or(0) };
        }
        ChunkError::File(error)
    }

    /// Has the file of that name from another generation's directory here too, by a hard link. The
    /// name becomes durable with [`Chunks::persist`]. Twice is once.
    pub(super) fn link(
        &self,
        from: &Path,
        name: Digest,
        length: u32,
        check: Check,
    ) -> Result<(), ChunkError> {
        let target = self.file(name);
        let source = from.join(name.to_string());
        let here = metadata(&target)?;
        let there = metadata(&source)?;
        match (&here, &there) {
            // Nothing to link from, or a link already: what is here has to be right.
            (Some(_), None) => return verify(&target, name, length, check),
            (Some(here), Some(there)) if here.ino() == there.ino() && here.dev() == there.dev() => {
                return verify(&target, name, length, check);
            }
            (Some(_), Some(_)) if verify(&target, name, length, Check::Content).is_ok() => return Ok(()),
            (None, None) => return Err(ChunkError::Missing { path: source }),
            (Some(_) | None, Some(_)) => {}
        }
        verify(&source, name, length, check)?;
        let aside = self.aside();
        let linked = match disk::hard_link(&source, &aside) {
            Ok(()) => Ok(()),
            // Another file system, or too many links: a copy is as good.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::CrossesDevices | io::ErrorKind::TooManyLinks) =>
            {
                read_whole(&source, u64::from(length)).and_then(|bytes| match name_of(&bytes) {
                    found if found == name => self
                        .write_aside(&aside, &bytes)
                        .map_err(|error| self.explain(error, u64::from(length))),
                    found => Err(ChunkError::Content { path: source.clone(), found }),
                })
            }
            Err(error) => Err(self.explain(FileError::at("link", &source)(error), 0)),
        };
        linked
            .and_then(|()| Ok(disk::rename(&aside, &target).map_err(FileError::at("rename", &aside))?))
            .inspect_err(|_| {
                // What is left aside also goes at the next opening.
                let _ = disk::remove_file(&aside);
            })
    }

    /// Whether a file of that name is here, whatever is in it.
    pub(super) fn has(&self, name: Digest) -> Result<bool, FileError> {
        Ok(metadata(&self.file(name))?.is_some())
    }

    /// The content of a chunk file, hashed.
    pub(super) fn read(&self, name: Digest, length: u32) -> Result<Vec<u8>, ChunkError> {
        let path = self.file(name);
        let bytes = read_whole(&path, u64::from(length))?;
        match name_of(&bytes) {
            found if found == name => Ok(bytes),
            found => Err(ChunkError::Content { path, found }),
        }
    }

    /// Makes all names in the directory durable, whatever the durability setting.
    pub(super) fn persist(&self) -> Result<(), FileError> {
        self.directory.sync().map_err(FileError::at("sync", &self.path))
    }
}

/// Bytes that this process may still write on the file system of `path`.
pub(super) fn free_space(path: &Path) -> io::Result<u64> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    #[allow(clippy::useless_conversion, reason = "the types differ between platforms")]
    Ok(u64::from(stat.blocks_available()) * u64::from(stat.fragment_size()))
}

fn metadata(path: &Path) -> Result<Option<fs::Metadata>, FileError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::at("look at", path)(error)),
    }
}

/// Reads a file whose length is known, and no more of it than that.
fn read_whole(path: &Path, length: u64) -> Result<Vec<u8>, ChunkError> {
    let file = match OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ChunkError::Missing { path: path.to_owned() });
        }
        Err(error) => return Err(FileError::at("open", path)(error).into()),
    };
    let found = file.metadata().map_err(FileError::at("look at", path))?.len();
    let mut bytes = Vec::with_capacity(if found == length { length as usize } else { 0 });
    if found == length {
        file.take(length).read_to_end(&mut bytes).map_err(FileError::at("read", path))?;
    }
    if bytes.len() as u64 != length {
        let expected = u32::try_from(length).unwrap_or(u32::MAX);
        return Err(ChunkError::Length { path: path.to_owned(), expected, found });
    }
    Ok(bytes)
}

fn verify(path: &Path, name: Digest, length: u32, check: Check) -> Result<(), ChunkError> {
    match check {
        Check::Content => {
            let bytes = read_whole(path, u64::from(length))?;
            match name_of(&bytes) {
                found if found == name => Ok(()),
                found => Err(ChunkError::Content { path: path.to_owned(), found }),
            }
        }
        Check::Length => match metadata(path)? {
            None => Err(ChunkError::Missing { path: path.to_owned() }),
            Some(metadata) if metadata.is_file() && metadata.len() == u64::from(length) => Ok(()),
            Some(metadata) => {
                Err(ChunkError::Length { path: path.to_owned(), expected: length, found: metadata.len() })
            }
        },
    }
}

/// One sync for everyone who waits for one. After a failed sync nobody knows what reached the disk,
/// and the next one may well claim success: from then on every call fails.
#[derive(Debug)]
struct GroupSync {
    directory: File,
    state: Mutex<SyncState>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct SyncState {
    asked: u64,
    synced: u64,
    running: bool,
    failed: Option<(io::ErrorKind, String)>,
}

impl GroupSync {
    fn new(directory: File) -> GroupSync {
        GroupSync { directory, state: Mutex::default(), done: Condvar::new() }
    }

    /// Returns when a sync that began after this call is complete.
    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked += 1;
        let mine = state.asked;
        loop {
            if let Some((kind, words)) = &state.failed {
                return Err(io::Error::new(*kind, words.clone()));
            }
            if state.synced >= mine {
                return Ok(());
            }
            if state.running {
                state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.running = true;
            let covers = state.asked;
            drop(state);
            let result = self.directory.sync_all();
            state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.running = false;
            match result {
                Ok(()) => state.synced = covers,
                Err(error) => state.failed = Some((error.kind(), error.to_string())),
            }
            self.done.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn chunks(path: &Path) -> Chunks {
        fs::create_dir_all(path).unwrap();
        Chunks::open(path.to_owned(), Durability::Fsync).unwrap()
    }

    fn content(byte: u8) -> Content {
        Content::new(vec![byte; 5000]).unwrap()
    }

    #[test]
    fn a_staged_file_is_read_only_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let chunks = chunks(dir.path());
        let content = content(1);
        chunks.stage(&content).unwrap();
        chunks.stage(&content).unwrap();
        assert_eq!(chunks.read(content.name(), 5000).unwrap(), content.bytes());
        let mode = fs::metadata(chunks.file(content.name())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o444);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn wrong_content_is_an_error_and_never_an_answer() {
        let dir = tempfile::tempdir().unwrap();
        let chunks = chunks(dir.path());
        let content = content(1);
        assert!(matches!(chunks.read(content.name(), 5000), Err(ChunkError::Missing { .. })));
        fs::write(chunks.file(content.name()), vec![2; 5000]).unwrap();
        assert!(matches!(chunks.read(content.name(), 5000), Err(ChunkError::Content { .. })));
        assert!(matches!(chunks.read(content.name(), 5001), Err(ChunkError::Length { found: 5000, .. })));
        // Staging looks at what is there, and repairs it.
        chunks.stage(&content).unwrap();
        assert_eq!(chunks.read(content.name(), 5000).unwrap(), content.bytes());
    }

    #[test]
    fn a_link_is_taken_only_with_the_right_content() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (chunks(&dir.path().join("a")), chunks(&dir.path().join("b")));
        let (good, bad, short, gone) = (content(1), content(2), content(3), content(4));
        theirs.stage(&good).unwrap();
        fs::write(theirs.file(bad.name()), vec![9; 5000]).unwrap();
        fs::write(theirs.file(short.name()), vec![3; 4999]).unwrap();
        let link = |content: &Content, check| ours.link(theirs.path(), content.name(), 5000, check);
        link(&good, Check::Content).unwrap();
        link(&good, Check::Content).unwrap();
        assert!(matches!(link(&bad, Check::Content), Err(ChunkError::Content { .. })));
        assert!(matches!(link(&short, Check::Length), Err(ChunkError::Length { .. })));
        assert!(matches!(link(&gone, Check::Length), Err(ChunkError::Missing { .. })));
        assert_eq!(fs::read_dir(ours.path()).unwrap().count(), 1);
        // Linked, not copied; and independent of the source from then on.
        assert_eq!(fs::metadata(ours.file(good.name())).unwrap().nlink(), 2);
        fs::remove_file(theirs.file(good.name())).unwrap();
        link(&good, Check::Content).unwrap();
        assert_eq!(ours.read(good.name(), 5000).unwrap(), good.bytes());
        // A file of that name which is wrong here is replaced by the right one.
        theirs.stage(&good).unwrap();
        fs::remove_file(ours.file(good.name())).unwrap();
        fs::write(ours.file(good.name()), vec![0; 5000]).unwrap();
        link(&good, Check::Content).unwrap();
        assert_eq!(ours.read(good.name(), 5000).unwrap(), good.bytes());
    }

    #[test]
    fn what_was_left_aside_goes_at_the_next_opening() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("aside-17"), "half").unwrap();
        let chunks = chunks(dir.path());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        chunks.persist().unwrap();
    }

    #[test]
    fn everyone_who_asks_for_a_sync_gets_one() {
        let dir = tempfile::tempdir().unwrap();
        let chunks = chunks(dir.path());
        std::thread::scope(|scope| {
            for byte in 0..16 {
                let chunks = &chunks;
                scope.spawn(move || chunks.stage(&content(byte)).unwrap());
            }
        });
        let state = chunks.directory.state.lock().unwrap();
        assert_eq!((state.asked, state.synced, state.running), (16, 16, false));
    }
}

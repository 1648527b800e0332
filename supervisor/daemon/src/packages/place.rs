//! A folder in which only root can have put what is there.
//!
//! ```text
//!   /  ▶  usr  ▶  lib  ▶  bumpless  ▶  workers      opened one after the other, no link followed; each is root's,
//!                                        └▶ file    and none but root may write it
//! ```
//!
//! Each step begins at the descriptor of the folder before, so that what was looked at is what is gone on with.
//! A folder on the way may be open to everybody if it is sticky, as `/tmp` is: there nobody can put another folder
//! in the place of root's. The last one may not: a sticky folder does not keep others from adding to it.
//!
//! A file's access list needs no look of its own: where it lets anybody write, the group's bit is set, too.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, fstat};

/// Write permission of group and others.
const OTHERS_WRITE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Why what lies there is not believed.
#[derive(Debug)]
pub enum Unsafe {
    /// It cannot be opened or read.
    File(PathBuf, io::Error),
    /// It is a link, or something else than it should be.
    Kind(PathBuf),
    /// It is another user's than root's.
    Owner(PathBuf, u32),
    /// Others than root may write it; its mode.
    Writable(PathBuf, u32),
}

impl fmt::Display for Unsafe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unsafe::File(path, error) => write!(f, "{} cannot be read: {error}", path.display()),
            Unsafe::Kind(path) => {
                write!(
                    f,
                    "{} is a link, which is not followed, or no regular file or folder; put the file itself there",
                    path.display()
                )
            }
            Unsafe::Owner(path, uid) => write!(
                f,
                "{path} belongs to user {uid}, who could have what they like run here; only root may own it: \
                 chown root {path}",
                path = path.display()
            ),
            Unsafe::Writable(path, mode) => write!(
                f,
                "{path} (mode {mode:04o}) may be written by others than root, who could have what they like run here: \
                 chmod go-w {path}",
                path = path.display()
            ),
        }
    }
}

impl std::error::Error for Unsafe {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Unsafe::File(_, source) => Some(source),
            Unsafe::Kind(_) | Unsafe::Owner(..) | Unsafe::Writable(..) => None,
        }
    }
}

/// Such a folder, open.
#[derive(Debug)]
pub struct Place {
    folder: OwnedFd,
    path: PathBuf,
}

impl Place {
    /// The folder at this absolute path; nothing where there is none.
    ///
    /// # Errors
    /// Somebody else than root could write there, or it cannot be told.
    pub fn open(path: &Path) -> Result<Option<Place>, Unsafe> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut at = PathBuf::from("/");
        let mut folder = open(&at, flags, Mode::empty()).map_err(|error| failed(&at, error))?;
        let mut way = Vec::new();
        for part in path.components() {
            let name = match part {
                Component::Normal(name) => name,
                Component::ParentDir => OsStr::new(".."),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
            };
            way.push((at.clone(), fstat(&folder).map_err(|error| failed(&at, error))?));
            at.push(name);
            folder = match openat(&folder, name, flags, Mode::empty()) {
                // What is not there is nobody's, whoever could make it.
                Err(Errno::ENOENT) => return Ok(None),
                opened => opened.map_err(|error| failed(&at, error))?,
            };
        }
        for (path, stat) in way {
            let mode = if stat.st_mode & STICKY == 0 { stat.st_mode } else { stat.st_mode & !OTHERS_WRITE };
            is_roots(&path, stat.st_uid, mode)?;
        }
        let stat = fstat(&folder).map_err(|error| failed(&at, error))?;
        is_roots(&at, stat.st_uid, stat.st_mode)?;
        Ok(Some(Place { folder, path: at }))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of what is in it, in their order.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn names(&self) -> Result<Vec<OsString>, Unsafe> {
        let names = || -> io::Result<Vec<OsString>> {
            let entries = fs::read_dir(format!("/proc/self/fd/{}", self.folder.as_raw_fd()))?;
            entries.map(|entry| Ok(entry?.file_name())).collect()
        };
        let mut names = names().map_err(|error| Unsafe::File(self.path.clone(), error))?;
        names.sort_unstable();
        Ok(names)
    }

    /// A regular file in it, open for reading.
    ///
    /// # Errors
    /// Somebody else than root could write it, or it cannot be opened.
    pub fn file(&self, name: &OsStr) -> Result<File, Unsafe> {
        let path = self.path.join(name);
        // Opening must not hang on a named pipe.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = openat(&self.folder, name, flags, Mode::empty()).map_err(|error| failed(&path, error))?;
        let file = File::from(file);
        let found = file.metadata().map_err(|error| Unsafe::File(path.clone(), error))?;
        if !found.is_file() {
            return Err(Unsafe::Kind(path));
        }
        is_roots(&path, found.uid(), found.mode())?;
        Ok(file)
    }
}

fn failed(path: &Path, error: Errno) -> Unsafe {
    match error {
        Errno::ELOOP | Errno::ENOTDIR => Unsafe::Kind(path.to_owned()),
        error => Unsafe::File(path.to_owned(), error.into()),
    }
}

/// Whether nobody but root can have written what has this owner and mode.
fn is_roots(path: &Path, uid: u32, mode: u32) -> Result<(), Unsafe> {
    if uid != 0 {
        return Err(Unsafe::Owner(path.to_owned(), uid));
    }
    if mode & OTHERS_WRITE != 0 {
        return Err(Unsafe::Writable(path.to_owned(), mode & 0o7777));
    }
    Ok(())
}

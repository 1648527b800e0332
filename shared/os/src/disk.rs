//! The one way to what has to survive a power loss.
//!
//! Every file of ours that must still be there afterwards is made, written, synced, named and removed
//! through these functions: the supervisor's records and releases, the worker's logbooks, chunk files,
//! markers and identity. What is only read, and what may be lost (sockets, locks, outputs), is not.
//!
//! Two things become durable apart, and nothing else does:
//!
//! | what | by |
//! |---|---|
//! | a file's bytes and length | [`File::sync_data`] or [`File::sync_all`] of it |
//! | a file's mode | [`File::sync_all`] of it |
//! | a name: made, linked, renamed, removed | [`sync_dir`] of its directory (of both, for a rename between two) |
//!
//! In the product each of these is its system call and no more. With the feature `recorder`, which only
//! tests switch on, `recorder::Recorder` can be installed for a directory tree: it then notes every
//! step below it, and makes of them every state of the disk that a power loss could leave. Where none
//! is installed, the feature costs a look at one number.

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::{AT_FDCWD, AtFlags, FallocateFlags, OFlag};

#[cfg(any(test, feature = "recorder"))]
mod image;
#[cfg(any(test, feature = "recorder"))]
mod model;
#[cfg(any(test, feature = "recorder"))]
pub mod recorder;
#[cfg(not(any(test, feature = "recorder")))]
mod silent;

#[cfg(any(test, feature = "recorder"))]
use recorder as trace;
#[cfg(not(any(test, feature = "recorder")))]
use silent as trace;

use trace::Trace;

use crate::injected;

/// One change, or one sync, of what a directory tree holds; for a recorder.
#[cfg_attr(not(any(test, feature = "recorder")), expect(dead_code, reason = "nobody listens in the product"))]
enum Step<'a> {
    Make { path: &'a Path, kind: Kind<'a> },
    Link { from: &'a Path, to: &'a Path },
    Name { file: &'a Trace, path: &'a Path },
    Rename { from: &'a Path, to: &'a Path },
    Remove { path: &'a Path },
    Empty { file: &'a Trace },
    Write { file: &'a Trace, at: u64, bytes: &'a [u8] },
    Mode { file: &'a Trace, mode: u32 },
    Sync { file: &'a Trace, what: Synced },
    SyncDir { path: &'a Path },
    Foreign { path: &'a Path, state: Foreign },
}

#[cfg_attr(not(any(test, feature = "recorder")), expect(dead_code, reason = "nobody listens in the product"))]
enum Kind<'a> {
    File { mode: u32 },
    Directory,
    Symlink { target: &'a Path },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Synced {
    Content,
    All,
}

/// How a change that another library made to its own files stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// Everything in the directory is on the disk.
    Durable,
    /// It is with the operating system.
    Written,
}

/// An open file that has to survive, or a directory to be synced. Reading is [`File::std`]'s.
#[derive(Debug)]
pub struct File {
    file: fs::File,
    trace: Trace,
}

impl File {
    /// Makes a file that is not there yet, for writing. Its name is durable with its directory.
    ///
    /// # Errors
    /// `AlreadyExists`, and those of opening.
    pub fn create_new(path: &Path, mode: u32) -> io::Result<File> {
        let kind = Kind::File { mode };
        let file = trace::around(Step::Make { path, kind }, || {
            fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
        })?;
        Ok(File { file, trace: Trace::of(path) })
    }

    /// Makes a file, or empties the one that is there, for writing.
    ///
    /// # Errors
    /// Those of opening.
    pub fn create(path: &Path, mode: u32) -> io::Result<File> {
        match File::create_new(path, mode) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made,
        }
        let file = fs::OpenOptions::new().write(true).open(path)?;
        let file = File { file, trace: Trace::of(path) };
        trace::around(Step::Empty { file: &file.trace }, || file.file.set_len(0))?;
        Ok(file)
    }

    /// Opens a file for reading and for writing at its end, whatever its length is then; makes it where
    /// there is none.
    ///
    /// # Errors
    /// Those of opening.
    pub fn append(path: &Path, mode: u32) -> io::Result<File> {
        match File::create_new(path, mode) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(_) | Err(_) => {}
        }
        let file = fs::OpenOptions::new().read(true).append(true).open(path)?;
        Ok(File { file, trace: Trace::of(path) })
    }

    /// Opens a file or directory for reading, and for syncing what was read.
    ///
    /// # Errors
    /// Those of opening.
    pub fn open(path: &Path) -> io::Result<File> {
        let file = fs::File::open(path)?;
        Ok(File { file, trace: Trace::of(path) })
    }

    /// A file in a directory's file system that has no name: gone when it is closed, unless
    /// [`File::name`] gives it one.
    ///
    /// # Errors
    /// Those of opening; the file system may not have such files.
    pub fn unnamed(dir: &Path, mode: u32) -> io::Result<File> {
        let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let mode_of = nix::sys::stat::Mode::from_bits_truncate(mode as nix::sys::stat::mode_t);
        let file = fs::File::from(nix::fcntl::open(dir, flags, mode_of)?);
        Ok(File { file, trace: Trace::unnamed(dir, mode) })
    }

    /// Gives a file without a name this one, which nobody may have yet.
    ///
    /// # Errors
    /// Those of `linkat`.
    pub fn name(&self, path: &Path) -> io::Result<()> {
        let unnamed = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        trace::around(Step::Name { file: &self.trace, path }, || {
            Ok(nix::unistd::linkat(AT_FDCWD, unnamed.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)?)
        })
    }

    /// The file itself, for reading; what is written to it here is written past this module.
    pub fn std(&self) -> &fs::File {
        &self.file
    }

    /// Writes all bytes at this offset.
    ///
    /// # Errors
    /// Those of writing; some of the bytes may be in the file then.
    pub fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        trace::around(Step::Write { file: &self.trace, at, bytes }, || self.file.write_all_at(bytes, at))
    }

    /// Sets the mode, whatever the umask is.
    ///
    /// # Errors
    /// Those of `fchmod`.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        trace::around(Step::Mode { file: &self.trace, mode }, || {
            self.file.set_permissions(fs::Permissions::from_mode(mode))
        })
    }

    /// Reserves disk for so many bytes from the beginning. The length stays what was written. Changes
    /// nothing on a file system that cannot reserve: a full disk is then found when it is written to.
    ///
    /// # Errors
    /// No room, and others of `fallocate`.
    pub fn reserve(&self, bytes: u64) -> io::Result<()> {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        match nix::fcntl::fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, bytes) {
            Ok(()) | Err(nix::errno::Errno::EOPNOTSUPP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes bytes and length durable.
    ///
    /// # Errors
    /// Those of `fdatasync`. What reached the disk is not known then, and a second call may well claim
    /// success.
    pub fn sync_data(&self) -> io::Result<()> {
        trace::around(Step::Sync { file: &self.trace, what: Synced::Content }, || {
            injected::sync(&self.file, || self.file.sync_data())
        })
    }

    /// Makes bytes, length and mode durable; of a directory, its names.
    ///
    /// # Errors
    /// As for [`File::sync_data`].
    pub fn sync_all(&self) -> io::Result<()> {
        trace::around(Step::Sync { file: &self.trace, what: Synced::All }, || {
            injected::sync(&self.file, || self.file.sync_all())
        })
    }
}

/// At the file's own position, or at its end if it was opened so.
impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        trace::written(&self.trace, &self.file, bytes, || (&self.file).write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes the names that were added to or removed from a directory durable.
///
/// # Errors
/// Those of opening and syncing it.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    trace::around(Step::SyncDir { path }, || {
        let dir = fs::File::open(path)?;
        injected::sync(&dir, || dir.sync_all())
    })
}

/// Makes a directory.
///
/// # Errors
/// `AlreadyExists`, and those of `mkdir`.
pub fn create_dir(path: &Path) -> io::Result<()> {
    trace::around(Step::Make { path, kind: Kind::Directory }, || fs::create_dir(path))
}

/// Makes a symbolic link.
///
/// # Errors
/// Those of `symlink`.
pub fn symlink(target: &Path, path: &Path) -> io::Result<()> {
    trace::around(Step::Make { path, kind: Kind::Symlink { target } }, || {
        std::os::unix::fs::symlink(target, path)
    })
}

/// Gives a file a second name.
///
/// # Errors
/// Those of `link`.
pub fn hard_link(from: &Path, to: &Path) -> io::Result<()> {
    trace::around(Step::Link { from, to }, || fs::hard_link(from, to))
}

/// Renames, over what may be there.
///
/// # Errors
/// Those of `rename`.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    trace::around(Step::Rename { from, to }, || fs::rename(from, to))
}

/// Removes a file's name.
///
/// # Errors
/// Those of `unlink`.
pub fn remove_file(path: &Path) -> io::Result<()> {
    trace::around(Step::Remove { path }, || fs::remove_file(path))
}

/// Removes a directory with everything in it.
///
/// # Errors
/// Those of removing; a part may be gone then.
pub fn remove_dir_all(path: &Path) -> io::Result<()> {
    trace::remove_dir_all(path)
}

/// Another library keeps its files in this directory and is about to make them durable by itself. Does
/// nothing in the product; a test may have it fail.
///
/// # Errors
/// None in the product.
#[inline]
pub fn foreign_sync(path: &Path) -> io::Result<()> {
    injected::foreign_sync(path)
}

/// Another library keeps its files in this directory and changed them by itself: that is how they stand
/// now. Does nothing in the product; a recorder takes the whole directory as one thing, as it is.
#[inline]
pub fn foreign(path: &Path, state: Foreign) {
    trace::foreign(path, state);
}

//! To whom `state/` belongs, and how it comes to belong to somebody else.
//!
//! `state/` belongs to the user that workers run as. Where the configuration names another one than it did
//! (`worker.user`), everything in it is handed over, at a start at which no worker lives:
//!
//! ```text
//!   state.handover  made, durable: from here on a start knows that it has to be done, whatever it finds
//!     1  every folder, from the top downwards, becomes ours, and writable by nobody else
//!     2  every file becomes theirs, and each folder once everything in it is
//!   everything durable, state.handover removed
//! ```
//!
//! A start that finds `state.handover` does all of it again, to whom the configuration names then: a folder or
//! file that is where it should be is left alone, so that a power loss at any point costs a second walk and
//! nothing else. No worker is started before the end.
//!
//! **A worker that was hostile cannot turn this against others.** What it left behind may still run, with folders
//! open. No folder is listed before it is ours, and none becomes theirs before all in it is done, so that nothing
//! can be put into the place of what was looked at; each name is opened once, without following a link, and what
//! was opened is looked at and given. What is neither folder nor regular file is not handed over. Neither is a
//! file that has a name outside of `state/`: a hard link to what was never the worker's. That is certain, because
//! its links are counted while all folders that were walked are ours: names can be added where we have not been,
//! and are counted there, or outside, and then there are too many.
//!
//! What it does not keep out: such a leftover may still write to files that it has open. Whoever suspects that
//! restarts the machine before the start. And what a hostile worker wrote into its own files stays there.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bumpless_os::child::{self, User};
use bumpless_os::disk::{self, sync_dir};
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Uid, fchown, fchownat, getegid, geteuid, syncfs};

use crate::exposure::{self, Exposed};
use crate::records::paths::Paths;

/// Why `state/` does not belong to whom it should.
#[derive(Debug)]
pub enum OwnershipError {
    /// Something could not be done with a file or folder.
    File {
        /// What, as in "cannot … ".
        doing: &'static str,
        /// With which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is nothing that a worker keeps, or nothing that is the worker's alone.
    Foreign {
        /// Which.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// Somebody else could put another one in its place.
    Exposed(Exposed),
    /// The user does not reach it.
    OutOfReach {
        /// Who.
        user: User,
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl fmt::Display for OwnershipError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OwnershipError::File { doing, path, source } => {
                write!(
                    f,
                    "cannot {doing} {}: {source}. No worker is started before the state folder belongs to the user that \
                     worker.user names; what is missing is done at the next start",
                    path.display()
                )?;
                match source.kind() {
                    io::ErrorKind::PermissionDenied => f.write_str(", as root"),
                    _ => Ok(()),
                }
            }
            OwnershipError::Foreign { path, why } => write!(
                f,
                "{} {why}, and is not handed over to the user that worker.user names. No worker is started before \
                 that. Move it away, or set worker.user as it was before",
                path.display()
            ),
            OwnershipError::Exposed(error) => error.fmt(f),
            OwnershipError::OutOfReach { user, path, source } => write!(
                f,
                "user {} (worker.user) does not reach {}: {source}. Every folder that leads there has to let it pass: \
                 chmod o+x",
                user.uid,
                path.display()
            ),
        }
    }
}

impl std::error::Error for OwnershipError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OwnershipError::File { source, .. } | OwnershipError::OutOfReach { source, .. } => Some(source),
            OwnershipError::Exposed(error) => Some(error),
            OwnershipError::Foreign { .. } => None,
        }
    }
}

fn failed(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> OwnershipError {
    let path = path.to_owned();
    move |source| OwnershipError::File { doing, path: path.clone(), source }
}

/// Has `state/` belong to `user` (`None`: to us) with all that is in it; says whether anything had to be done.
/// To be called while no worker lives.
///
/// # Errors
/// It does not, and no worker may be started.
pub fn settle(paths: &Paths, user: Option<User>) -> Result<bool, OwnershipError> {
    let to = user.unwrap_or_else(ours);
    let (path, mark) = (paths.state(), paths.handover());
    let marked = mark.try_exists().map_err(failed("look for", &mark))?;
    if !marked && owner(paths)? == to.uid {
        return Ok(false);
    }
    // In between nobody may put another folder in its place.
    let above = exposure::folder(paths.state_dir()).map_err(OwnershipError::Exposed)?;
    let state = Folder::open(above, &path, path.file_name().unwrap_or_default().as_ref())?;
    if !marked {
        disk::File::create_new(&mark, 0o600).map_err(failed("make", &mark))?;
        sync_dir(paths.state_dir()).map_err(failed("sync", paths.state_dir()))?;
    }
    let mut links = Links::default();
    take(&state, &mut links)?;
    give(&state, None, to, &links)?;
    disk::remove_file(&mark).map_err(failed("remove", &mark))?;
    sync_dir(paths.state_dir()).map_err(failed("sync", paths.state_dir()))?;
    Ok(true)
}

/// To whom `state/` belongs.
///
/// # Errors
/// Those of looking at it.
pub fn owner(paths: &Paths) -> Result<u32, OwnershipError> {
    let path = paths.state();
    Ok(fs::metadata(&path).map_err(failed("look at", &path))?.uid())
}

/// Gives a socket to whom `state/` belongs: who lives of the workers comes back by it. Its folder is ours alone.
///
/// # Errors
/// Those of giving it.
pub fn give_socket(path: &Path, uid: u32) -> Result<(), OwnershipError> {
    let given = fchownat(AT_FDCWD, path, Some(Uid::from_raw(uid)), None, AtFlags::AT_SYMLINK_NOFOLLOW);
    given.map_err(|errno| failed("give away", path)(errno.into()))
}

/// Whether a user gets to what has this path, by the kernel's own word.
///
/// # Errors
/// He does not.
pub fn reaches(user: User, path: &Path) -> Result<(), OwnershipError> {
    let looked = child::with_files_as(user, || fs::metadata(path).map(drop));
    let out_of_reach = |source| OwnershipError::OutOfReach { user, path: path.to_owned(), source };
    looked.and_then(|looked| looked).map_err(out_of_reach)
}

fn ours() -> User {
    User { uid: geteuid().as_raw(), gid: getegid().as_raw() }
}

/// Of each file with several names: how many of them were found, by device and number.
#[derive(Debug, Default)]
struct Links(HashMap<(u64, u64), u64>);

/// A folder that is open.
#[derive(Debug)]
struct Folder {
    fd: File,
    path: PathBuf,
    device: u64,
}

/// What a folder has under a name, held by a descriptor that can only be looked at and given.
struct Entry {
    held: File,
    found: fs::Metadata,
    path: PathBuf,
    name: PathBuf,
}

impl Folder {
    /// Opens what is in `above` under this name, if it is a folder and no link.
    fn open(above: impl AsFd, path: &Path, name: &Path) -> Result<Folder, OwnershipError> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = openat(above, name, flags, Mode::empty());
        let fd = File::from(opened.map_err(|errno| failed("open", path)(errno.into()))?);
        let device = fd.metadata().map_err(failed("look at", path))?.dev();
        Ok(Folder { fd, path: path.to_owned(), device })
    }

    fn inner(&self, entry: &Entry) -> Result<Folder, OwnershipError> {
        Folder::open(&self.fd, &entry.path, &entry.name)
    }

    /// Everything in it, one by one.
    fn entries(&self) -> Result<impl Iterator<Item = Result<Entry, OwnershipError>> + '_, OwnershipError> {
        // The same folder, whatever its path leads to by now.
        let listed = fs::read_dir(format!("/proc/self/fd/{}", self.fd.as_raw_fd()));
        let listed = listed.map_err(failed("list", &self.path))?;
        Ok(listed.map(|entry| {
            let name = PathBuf::from(entry.map_err(failed("list", &self.path))?.file_name());
            let path = self.path.join(&name);
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let opened = openat(&self.fd, &name, flags, Mode::empty());
            let held = File::from(opened.map_err(|errno| failed("open", &path)(errno.into()))?);
            let found = held.metadata().map_err(failed("look at", &path))?;
            Ok(Entry { held, found, path, name })
        }))
    }

    fn become_theirs(&self, to: User) -> Result<(), OwnershipError> {
        let (uid, gid) = (Uid::from_raw(to.uid), Gid::from_raw(to.gid));
        fchown(&self.fd, Some(uid), Some(gid)).map_err(|errno| failed("give away", &self.path)(errno.into()))
    }
}

/// From the top downwards: every folder becomes ours, before it is listed.
fn take(folder: &Folder, links: &mut Links) -> Result<(), OwnershipError> {
    folder.become_theirs(ours())?;
    // Whatever its permissions were, also those of an access list, which these bound.
    let mode = folder.fd.metadata().map_err(failed("look at", &folder.path))?.mode() & 0o7755;
    let mode = Mode::from_bits_truncate(mode as nix::sys::stat::mode_t);
    fchmod(&folder.fd, mode).map_err(|errno| failed("set the mode of", &folder.path)(errno.into()))?;
    for entry in folder.entries()? {
        let entry = entry?;
        if entry.found.is_dir() {
            take(&folder.inner(&entry)?, links)?;
        } else if entry.found.is_file() && entry.found.nlink() > 1 {
            *links.0.entry((entry.found.dev(), entry.found.ino())).or_default() += 1;
        }
    }
    Ok(())
}

/// From the bottom upwards: what is in a folder becomes theirs, then the folder.
fn give(folder: &Folder, above: Option<&Folder>, to: User, links: &Links) -> Result<(), OwnershipError> {
    for entry in folder.entries()? {
        let entry = entry?;
        let (found, path) = (&entry.found, &entry.path);
        if found.is_dir() {
            give(&folder.inner(&entry)?, Some(folder), to, links)?;
            continue;
        }
        if found.uid() == to.uid {
            continue;
        }
        let foreign = |why| Err(OwnershipError::Foreign { path: path.clone(), why });
        if !found.is_file() {
            return foreign("is neither a folder nor a regular file");
        }
        let inside = links.0.get(&(found.dev(), found.ino())).copied().unwrap_or(1);
        if found.nlink() > inside {
            return foreign("has another name outside of the state folder");
        }
        let (uid, gid) = (Uid::from_raw(to.uid), Gid::from_raw(to.gid));
        let given = fchownat(&entry.held, "", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH);
        given.map_err(|errno| failed("give away", path)(errno.into()))?;
    }
    folder.become_theirs(to)?;
    if above.is_none_or(|above| above.device != folder.device) {
        syncfs(&folder.fd).map_err(|errno| failed("sync", &folder.path)(errno.into()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

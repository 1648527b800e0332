//! Whether somebody else could change what the supervisor relies on: its releases, its records, and the folders
//! that lead to them. Asked where workers have a user of their own.
//!
//! ```text
//!   /            belongs to root or to us, and nobody else may write, or only in the way of /tmp (sticky:
//!   /var           everybody may add names, and nobody touch those of others)
//!   /var/lib     ─┘
//!   state_dir    ┐
//!   releases/    ├ belongs to root or to us, and nobody else may write at all
//!   <release>/   │
//!   worker       ┘
//! ```
//!
//! From the root downwards, one name after the other, so that each folder is looked at before what is in it is
//! relied on; a link is followed where it leads, and both its folder and its target's are looked at. From
//! `state_dir` on no link is followed, and what was looked at is held open: the next name is opened in it. Write
//! permission for a group counts as exposed whoever is in the group, and so access lists, which show there.
//!
//! What this does not see: root itself, and a descriptor that was opened for writing before the file was ours.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::geteuid;

/// Links on one path; as many as the kernel follows.
const LINKS: u32 = 40;

/// Write permission for the group and for others.
const WRITABLE: u32 = 0o022;
/// In such a folder only a name's owner may touch it.
const STICKY: u32 = 0o1000;

/// Why something cannot be relied on.
#[derive(Debug)]
pub enum Exposed {
    /// It belongs to somebody else.
    Owner {
        /// What.
        path: PathBuf,
        /// To whom.
        uid: u32,
    },
    /// Somebody else may write to it.
    Mode {
        /// What.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It cannot be opened, is no plain file or folder, or a link where none is followed.
    File {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exposed::Owner { path, uid } => {
                let path = path.display();
                write!(
                    f,
                    "{path} belongs to user {uid}, who could change what is to run. With worker.user it has to belong to \
                     the supervisor's user: chown {} {path}",
                    geteuid()
                )
            }
            Exposed::Mode { path, mode } => {
                let path = path.display();
                write!(
                    f,
                    "others may write to {path} (mode {mode:04o}), and could change what is to run. With worker.user \
                     only the supervisor's user may: chmod go-w {path}"
                )
            }
            Exposed::File { path, source } => write!(f, "{}: {source}", path.display()),
        }
    }
}

impl std::error::Error for Exposed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Exposed::File { source, .. } => Some(source),
            Exposed::Owner { .. } | Exposed::Mode { .. } => None,
        }
    }
}

/// Opens a folder that nobody else can change or put another one in the place of.
///
/// # Errors
/// Somebody could.
pub fn folder(path: &Path) -> Result<File, Exposed> {
    let real = lead_to(path)?;
    let failed = |source: Errno| Exposed::File { path: real.clone(), source: source.into() };
    let opened = openat(AT_FDCWD, &real, OFlag::O_DIRECTORY | FLAGS, Mode::empty()).map_err(failed)?;
    kept(opened.into(), &real)
}

/// Opens what has this name in such a folder, whose path is for errors; `kind` is `O_DIRECTORY` for a folder.
/// A link is not followed.
///
/// # Errors
/// Somebody else could change it; it is not there, or something else.
pub fn within(folder: impl AsFd, path: &Path, name: &OsStr, kind: OFlag) -> Result<File, Exposed> {
    let path = path.join(name);
    let failed = |source: io::Error| Exposed::File { path: path.clone(), source };
    let file: File =
        openat(folder, name, kind | FLAGS, Mode::empty()).map_err(|errno| failed(errno.into()))?.into();
    let found = file.metadata().map_err(&failed)?;
    if !found.is_file() && kind != OFlag::O_DIRECTORY {
        return Err(failed(io::Error::other("it is no regular file")));
    }
    kept(file, &path)
}

/// Not blocking: in the place of a file there may be a pipe.
const FLAGS: OFlag = OFlag::O_NOFOLLOW.union(OFlag::O_NONBLOCK).union(OFlag::O_CLOEXEC);

fn kept(file: File, path: &Path) -> Result<File, Exposed> {
    let metadata = file.metadata().map_err(|source| Exposed::File { path: path.to_owned(), source })?;
    judge(path, &metadata, 0)?;
    Ok(file)
}

/// `excuse`: permission bits, one of which makes up for write permission.
fn judge(path: &Path, metadata: &Metadata, excuse: u32) -> Result<(), Exposed> {
    let (uid, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if uid != 0 && uid != geteuid().as_raw() {
        return Err(Exposed::Owner { path: path.to_owned(), uid });
    }
    if mode & WRITABLE != 0 && mode & excuse == 0 {
        return Err(Exposed::Mode { path: path.to_owned(), mode });
    }
    Ok(())
}

/// The path without links, if nobody else can have it lead elsewhere. What it leads to is not looked at.
fn lead_to(path: &Path) -> Result<PathBuf, Exposed> {
    let mut real = PathBuf::from("/");
    let mut names: Vec<OsString> = names(path);
    let mut links = 0;
    while let Some(name) = names.pop() {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Exposed::File { path, source }
        };
        judge(&real, &fs::metadata(&real).map_err(failed(&real))?, STICKY)?;
        let next = real.join(&name);
        if name == ".." {
            real.pop();
        } else if !fs::symlink_metadata(&next).map_err(failed(&next))?.is_symlink() {
            real = next;
        } else if links == LINKS {
            return Err(failed(&next)(Errno::ELOOP.into()));
        } else {
            links += 1;
            let target = fs::read_link(&next).map_err(failed(&next))?;
            if target.is_absolute() {
                real = PathBuf::from("/");
            }
            names.extend(self::names(&target));
        }
    }
    Ok(real)
}

/// The names on a path, the last one first.
fn names(path: &Path) -> Vec<OsString> {
    let names =
        path.components().rev().filter(|name| matches!(name, Component::Normal(_) | Component::ParentDir));
    names.map(|name| name.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::user::tests::other;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// `<dir>/above/state`, as it should be.
    fn tree(dir: &Path) -> PathBuf {
        let above = dir.join("above");
        fs::create_dir_all(above.join("state")).unwrap();
        fs::write(above.join("state/file"), "").unwrap();
        for path in [&above, &above.join("state"), &above.join("state/file")] {
            mode(path, 0o755);
        }
        above
    }

    fn file(state: &Path) -> Result<File, Exposed> {
        within(folder(state)?, state, OsStr::new("file"), OFlag::empty())
    }

    #[test]
    fn what_others_may_write_to_is_exposed_wherever_on_the_path_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let above = tree(dir.path());
        let state = above.join("state");
        file(&state).unwrap();
        for path in [&above, &state, &state.join("file")] {
            for open in [0o775, 0o757] {
                mode(path, open);
                let error = file(&state).unwrap_err();
                assert!(matches!(&error, Exposed::Mode { path: exposed, .. } if exposed == path), "{error}");
                assert!(error.to_string().contains("chmod go-w"), "{error}");
            }
            mode(path, 0o755);
        }
        // Sticky is enough above, and not where absent names matter.
        mode(&above, 0o1777);
        file(&state).unwrap();
        mode(&state, 0o1777);
        assert!(matches!(file(&state), Err(Exposed::Mode { .. })));
    }

    #[test]
    fn what_belongs_to_somebody_else_is_exposed_wherever_on_the_path_it_is() {
        let Some(user) = other("what_belongs_to_somebody_else_is_exposed") else { return };
        let dir = tempfile::tempdir().unwrap();
        let above = tree(dir.path());
        let state = above.join("state");
        for path in [&above, &state, &state.join("file")] {
            chown(path, Some(user.uid), None).unwrap();
            let error = file(&state).unwrap_err();
            let Exposed::Owner { path: exposed, uid } = &error else { panic!("{error}") };
            assert_eq!((exposed, *uid), (path, user.uid));
            chown(path, Some(geteuid().as_raw()), None).unwrap();
        }
        file(&state).unwrap();
    }

    #[test]
    fn a_link_is_followed_above_as_long_as_nobody_else_can_turn_it() {
        let dir = tempfile::tempdir().unwrap();
        let above = tree(dir.path());
        let (links, link) = (dir.path().join("links"), dir.path().join("links/state"));
        fs::create_dir(&links).unwrap();
        mode(&links, 0o755);
        symlink("../links/../above/./state", &link).unwrap();
        file(&link).unwrap();
        symlink(&link, links.join("again")).unwrap();
        file(&links.join("again")).unwrap();
        mode(&links, 0o777);
        assert!(matches!(file(&link), Err(Exposed::Mode { path, .. }) if path == links));
        mode(&links, 0o755);
        mode(&above, 0o777);
        assert!(matches!(file(&link), Err(Exposed::Mode { path, .. }) if path == above));
        mode(&above, 0o755);
        fs::remove_file(&link).unwrap();
        symlink("state", &link).unwrap();
        assert!(matches!(file(&link), Err(Exposed::File { .. })), "it leads to itself");
    }

    #[test]
    fn below_no_link_is_followed_and_nothing_else_is_taken_for_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let state = tree(dir.path()).join("state");
        fs::rename(state.join("file"), state.join("real")).unwrap();
        assert!(matches!(file(&state), Err(Exposed::File { .. })), "it is not there");
        symlink("real", state.join("file")).unwrap();
        assert!(matches!(file(&state), Err(Exposed::File { .. })), "it is a link");
        fs::remove_file(state.join("file")).unwrap();
        nix::unistd::mkfifo(&state.join("file"), Mode::from_bits_truncate(0o600)).unwrap();
        assert!(matches!(file(&state), Err(Exposed::File { .. })), "it is a pipe, and nobody waits for it");
    }
}

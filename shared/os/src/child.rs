//! What a parent imposes on a child before its program runs, whatever program that is.
//!
//! ```text
//!   fork ─ descriptors ─ limits ─ no capabilities ─ its own user ─ no new privileges ─ dies with us ─ exec
//!          kept to 0 1 2                            (if it has one)
//! ```
//!
//! The order to die with the parent is the kernel's own: SIGKILL when the *thread* that started the child
//! ends, so children are started from a thread that lives as long as the process, as a current-thread
//! runtime's does. A parent that is gone before the order is given is noticed, and nothing is executed. It
//! does not pass to children of the child: those are for whoever ends the child's group.
//!
//! A child that is to outlive its parent takes less of that ([`part`]):
//!
//! ```text
//!   fork ─ descriptors ─ no capabilities ─ its own user ─ no new privileges ─ exec
//!                        └──────── if it has one ───────┘
//! ```
//!
//! Between fork and exec the child has what the parent has in memory. No other process of the new user can look
//! into it: a change of the user forbids that (it is not dumpable), until the execution has replaced all of it.
//!
//! If one of the steps is refused, the program is not executed, and the error is that of starting it.

use std::io;
use std::process::Command;

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

use crate::raw;

/// A user and its group, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// Its group; there are no others.
    pub gid: u32,
}

/// What a child may be and take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// As whom it runs; `None`: as its parent's user, though without capabilities.
    pub user: Option<User>,
    /// The length that a file may have when it writes to it; one byte more ends it by `SIGXFSZ`.
    pub file_bytes: u64,
    /// Its address space, most of which is never touched.
    pub memory_bytes: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Processes and threads of its user. They are counted for the user, not for this child, so that the
    /// limit is imposed only on a user of its own.
    pub processes: u64,
}

/// Has whatever is started by `command` accept `bounds` first. To be called once, by the process that
/// starts it.
pub fn confine(command: &mut Command, bounds: Bounds) {
    raw::confine(command, bounds);
}

/// Has whatever is started by `command` keep no descriptor of this process but its three, and be `user` for
/// good, if there is one, without a capability and without a way to gain a privilege. It outlives this process.
/// To be called once, by the process that starts it.
pub fn part(command: &mut Command, user: Option<User>) {
    raw::part(command, user);
}

/// What this process lacks of the rights to start programs as another user, to give them files and to end
/// them, by the kernel's names for them.
///
/// # Errors
/// What the system says.
pub fn lacks_for_others() -> io::Result<Vec<&'static str>> {
    // Of <linux/capability.h>.
    const NEEDED: [(u32, &str); 4] =
        [(0, "CAP_CHOWN"), (5, "CAP_KILL"), (6, "CAP_SETGID"), (7, "CAP_SETUID")];
    let has = raw::capabilities()?;
    Ok(NEEDED.iter().filter(|(number, _)| has >> number & 1 == 0).map(|(_, name)| *name).collect())
}

/// Does something with files as this user would, in a thread that ends with it. The kernel then takes this process
/// for one that has changed its user: it leaves no core.
///
/// # Errors
/// Without the right to be that user; then it is not done.
pub fn with_files_as<T: Send>(user: User, act: impl FnOnce() -> T + Send) -> io::Result<T> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let as_user = || {
        raw::drop_groups_of_this_thread()?;
        setfsgid(gid);
        setfsuid(uid);
        // They say only what was before.
        if (setfsuid(uid), setfsgid(gid)) != (uid, gid) {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied));
        }
        Ok(act())
    };
    std::thread::scope(|scope| scope.spawn(as_user).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn what_is_done_with_files_as_another_user_is_done_as_that_one_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (folder, file) = (folder.path(), folder.path().join("file"));
        let user = User { uid: 4_000_001, gid: 4_000_002 };
        let make = || fs::write(&file, b"").map_err(|error| error.kind());
        let Ok(made) = with_files_as(user, make) else {
            // Not as root: it says so, and did nothing.
            assert!(!file.exists() && !nix::unistd::geteuid().is_root());
            return;
        };
        assert_eq!(made, Err(io::ErrorKind::PermissionDenied));
        // Our groups are not that user's.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o770)).unwrap();
        assert_eq!(with_files_as(user, make).unwrap(), Err(io::ErrorKind::PermissionDenied));
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(with_files_as(user, make).unwrap(), Ok(()));
        let made = fs::metadata(&file).unwrap();
        assert_eq!((made.uid(), made.gid()), (user.uid, user.gid));
        // And here we are who we were.
        fs::write(folder.join("ours"), b"").unwrap();
        assert_eq!(fs::metadata(folder.join("ours")).unwrap().uid(), nix::unistd::geteuid().as_raw());
    }
}

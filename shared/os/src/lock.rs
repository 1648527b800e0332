//! The alive lock: a record lock that a worker takes before it says hello and that the kernel takes
//! back when the process ends, however it ends. Unlike `flock` and open-file-description locks it
//! names its holder and does not pass to children.
//!
//! Closing *any* descriptor of the file gives the lock up, so a worker keeps the one it was handed
//! and opens no other.

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

fn whole_file(kind: i32) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}

/// Takes the lock for this process; `false` where another process has it.
///
/// # Errors
/// A descriptor that is not open for writing; `ENOLCK`.
pub fn try_lock(file: impl AsFd) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_SETLK(&whole_file(libc::F_WRLCK))) {
        Ok(_) => Ok(true),
        Err(Errno::EACCES | Errno::EAGAIN) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Which *other* process has the lock.
///
/// # Errors
/// What `fcntl` says.
pub fn holder(file: impl AsFd) -> io::Result<Option<i32>> {
    let mut lock = whole_file(libc::F_WRLCK);
    fcntl(file, FcntlArg::F_GETLK(&mut lock))?;
    Ok((lock.l_type != libc::F_UNLCK as i16).then_some(lock.l_pid))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    #[test]
    fn the_kernel_names_the_holder_until_it_dies() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let code = "import fcntl,sys; f=open(sys.argv[1],'r+'); fcntl.lockf(f,fcntl.LOCK_EX); print('x',flush=True); sys.stdin.read()";
        let spawned = Command::new("python3")
            .args(["-c", code])
            .arg(file.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut child) = spawned else {
            assert!(std::env::var_os("BUMPLESS_REQUIRE_ALL").is_none(), "python3 is needed to hold a lock");
            writeln!(std::io::stderr(), "left out: the_kernel_names_the_holder_until_it_dies needs python3")
                .unwrap();
            return;
        };
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        assert_eq!(holder(file.as_file()).unwrap(), Some(child.id() as i32));
        assert!(!try_lock(file.as_file()).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(holder(file.as_file()).unwrap(), None);
        assert!(try_lock(file.as_file()).unwrap());
    }
}

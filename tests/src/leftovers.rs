//! Processes that a world has left behind: workers outlive their supervisor, that is the point of
//! them, so somebody has to end them.
//!
//! A process belongs to a world if its standard output or error is a file in the world's folder, which
//! holds for every worker from its first instruction on, also for one that hangs before it has locked
//! anything. (The supervisor never looks into `/proc`; a harness may.)

use std::io;
use std::path::{Path, PathBuf};

use bumpless_os::process::Process;

/// The process ids of all that belong to the world in this folder.
///
/// # Errors
/// Where `/proc` cannot be read.
pub fn of(folder: &Path) -> io::Result<Vec<i32>> {
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if belongs(pid, folder) {
            pids.push(pid);
        }
    }
    Ok(pids)
}

/// Kills them all, again and again until there is none: one that is being killed may just have started
/// another.
///
/// # Errors
/// Where `/proc` cannot be read or a process may not be killed.
pub fn kill(folder: &Path) -> io::Result<()> {
    loop {
        let pids = of(folder)?;
        if pids.is_empty() {
            return Ok(());
        }
        for pid in pids {
            // Opened first and looked at again: the number cannot have passed to a stranger.
            let Ok(process) = Process::open(pid) else { continue };
            if belongs(pid, folder) {
                process.kill()?;
                wait(&process)?;
            }
        }
    }
}

fn belongs(pid: i32, folder: &Path) -> bool {
    [1, 2].into_iter().any(|fd| {
        let target = std::fs::read_link(format!("/proc/{pid}/fd/{fd}"));
        target.is_ok_and(|target: PathBuf| target.starts_with(folder))
    })
}

fn wait(process: &Process) -> io::Result<()> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    loop {
        match poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(_) => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs::File;
    use std::process::Command;

    #[test]
    fn a_process_is_found_by_where_it_writes_and_killed() {
        let folder = tempfile::tempdir().unwrap();
        let output = File::create(folder.path().join("1.out")).unwrap();
        let mut child = Command::new("sleep").arg("600").stdout(output).spawn().unwrap();
        assert_eq!(of(folder.path()).unwrap(), [child.id() as i32]);
        kill(folder.path()).unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(of(folder.path()).unwrap().is_empty());
    }
}

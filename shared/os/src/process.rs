//! A process, held by a descriptor: a number may come to mean somebody else, a pidfd never.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use tokio::io::Interest;

use crate::raw;

/// A process. Dropping it neither ends nor waits for the process.
#[derive(Debug)]
pub struct Process(OwnedFd);

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With this exit status.
    Exited(i32),
    /// By this signal (its number).
    Signaled(i32),
    /// It was not our child, so nobody tells us.
    Unknown,
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ending::Exited(code) => write!(f, "exited with status {code}"),
            Ending::Signaled(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "was ended by {signal}"),
                Err(_) => write!(f, "was ended by signal {number}"),
            },
            Ending::Unknown => f.write_str("ended"),
        }
    }
}

impl Process {
    /// Holds the process with this number. Certain only where the caller knows that the number still
    /// means the one that it has in mind: its own child not yet waited for, or the holder of a lock
    /// looked up again afterwards.
    ///
    /// # Errors
    /// `ESRCH` where there is none.
    pub fn open(pid: i32) -> io::Result<Process> {
        raw::pidfd_open(pid).map(Process)
    }

    /// Holds the process that somebody else's pidfd refers to.
    pub fn from_pidfd(pidfd: OwnedFd) -> Process {
        Process(pidfd)
    }

    /// Another descriptor of the same process.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn try_clone(&self) -> io::Result<Process> {
        self.0.try_clone().map(Process)
    }

    /// Sends SIGKILL. A process that has ended already counts as killed.
    ///
    /// # Errors
    /// `EPERM`.
    pub fn kill(&self) -> io::Result<()> {
        self.signal(Signal::SIGKILL)
    }

    /// Sends a signal. A process that has ended already is no error.
    ///
    /// # Errors
    /// `EPERM`.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match raw::pidfd_send_signal(self.0.as_fd(), signal as i32) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other,
        }
    }

    /// Whether it has ended, now.
    ///
    /// # Errors
    /// What `poll` says; never for a pidfd in practice.
    pub fn has_ended(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut fds, PollTimeout::ZERO) {
                Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(ready) => return Ok(ready > 0),
            }
        }
    }

    /// Waits until it has ended: death is a readable pidfd and nothing else.
    ///
    /// # Errors
    /// Where the descriptor cannot be watched.
    pub async fn ended(&self) -> io::Result<()> {
        let watched = raw::watch(self.0.try_clone()?, Interest::READABLE)?;
        watched.readable().await?.retain_ready();
        Ok(())
    }

    /// Collects a child that has ended, so that it leaves no zombie. `None` while it lives.
    ///
    /// # Errors
    /// What `waitid` says, except "not a child", which is [`Ending::Unknown`].
    pub fn reap(&self) -> io::Result<Option<Ending>> {
        match waitid(Id::PIDFd(self.0.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG) {
            Ok(WaitStatus::Exited(_, code)) => Ok(Some(Ending::Exited(code))),
            Ok(WaitStatus::Signaled(_, signal, _)) => Ok(Some(Ending::Signaled(signal as i32))),
            Ok(_) => Ok(None),
            Err(nix::errno::Errno::ECHILD) => Ok(self.has_ended()?.then_some(Ending::Unknown)),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    #[expect(clippy::zombie_processes, reason = "it is collected through its pidfd, which is what is tested")]
    async fn a_killed_child_is_seen_to_end_and_is_collected_once() {
        let child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::open(child.id() as i32).unwrap();
        assert!(!process.has_ended().unwrap());
        assert_eq!(process.reap().unwrap(), None);
        process.kill().unwrap();
        process.ended().await.unwrap();
        assert!(process.has_ended().unwrap());
        assert_eq!(process.reap().unwrap(), Some(Ending::Signaled(9)));
        process.kill().unwrap();
        assert_eq!(process.reap().unwrap(), Some(Ending::Unknown));
    }
}

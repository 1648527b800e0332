//! The supervisor's process.

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use bumpless_os::process::Process;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use tokio::signal::unix::{SignalKind, signal};

/// A running `bumplessd`. Dropping it kills it; its workers live on.
#[derive(Debug)]
pub struct Supervisor {
    child: Child,
    process: Process,
    log: PathBuf,
}

/// It did not end within the time.
#[derive(Debug)]
pub struct StillRuns(Duration);

impl fmt::Display for StillRuns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the supervisor still runs after {:?}", self.0)
    }
}

impl std::error::Error for StillRuns {}

impl Supervisor {
    /// Starts it with this command, its output at the end of `log`.
    ///
    /// # Errors
    /// Those of opening the log and of starting.
    pub fn start(mut command: Command, log: &Path) -> io::Result<Supervisor> {
        let output = OpenOptions::new().append(true).create(true).open(log)?;
        let child = command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn()?;
        let process = Process::open(child.id() as i32)?;
        Ok(Supervisor { child, process, log: log.to_owned() })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its resident memory, bytes.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn resident(&self) -> io::Result<u64> {
        crate::process::resident(self.pid())
    }

    /// SIGKILL, and waits for the end.
    ///
    /// # Errors
    /// Those of `kill` and `wait`.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        self.process.kill()?;
        self.child.wait()
    }

    /// SIGTERM, and waits for the end: the workers are stopped too.
    ///
    /// # Errors
    /// It does not end in time.
    pub async fn stop(&mut self, limit: Duration) -> crate::world::Result<ExitStatus> {
        self.process.signal(Signal::SIGTERM)?;
        self.ended(limit).await
    }

    /// Waits for it to end by itself.
    ///
    /// # Errors
    /// It does not.
    pub async fn ended(&mut self, limit: Duration) -> crate::world::Result<ExitStatus> {
        tokio::time::timeout(limit, self.process.ended()).await.map_err(|_| StillRuns(limit))??;
        Ok(self.child.wait()?)
    }

    /// Waits for it to stop itself, as an injected fault has it do. Each stop is told of once.
    ///
    /// # Errors
    /// It ends first.
    pub async fn stopped(&self) -> io::Result<()> {
        // The kernel tells a parent of that by a signal; listened to before the first look, none is missed.
        let mut changes = signal(SignalKind::child())?;
        loop {
            let id = Id::PIDFd(self.process.as_fd());
            match waitid(id, WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG)? {
                WaitStatus::Stopped(..) => return Ok(()),
                _ if self.process.has_ended()? => {
                    return Err(io::Error::other("it ended instead of stopping"));
                }
                _ => changes.recv().await,
            };
        }
    }

    /// All that it has written so far, with what earlier ones wrote to the same log.
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

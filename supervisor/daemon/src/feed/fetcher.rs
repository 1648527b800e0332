//! `bumpless-fetch` as a child: bounded in what it may be and take, and in time; killed when nobody waits for
//! it any more, when the supervisor dies, and with everything of its group that it leaves behind.
//!
//! The bounds hold for whatever program is in its place. What the fetcher gives up by itself, it says only
//! where something of it is missing on this machine; that is told once.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bumpless_os::child::{Bounds, User, confine};
use bumpless_os::process::{Ending, Process};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, geteuid};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::{Instant, timeout_at};

use super::error::FeedError;
use super::exit::Exit;
use super::proxy::Proxy;
use super::staged;

/// What one transfer may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes.
    pub max_bytes: u64,
    /// For the connection to stand.
    pub connect_timeout: Duration,
    /// For everything.
    pub total_timeout: Duration,
    /// Bytes per second.
    pub min_rate: u64,
}

/// Time that a fetcher has beyond its own deadline, to start and to end.
const GRACE: Duration = Duration::from_secs(5);
/// Of a line that is not understood, more than this is not kept.
const MAX_LINE: usize = 1024;

/// The fetcher's address space, bytes. It needs some 20 MB, and each thread that looks a name up reserves
/// 66 MB more without touching them.
const MEMORY: u64 = 512 << 20;
/// Its descriptors: three, the runtime's, a connection or two, what a resolver opens. It needs about 15.
const DESCRIPTORS: u64 = 64;
/// Processes and threads of its user, if it has one of its own: of every fetcher of every supervisor here.
const PROCESSES: u64 = 64;
/// Of things that a fetcher says it lacks, more than these are not heard.
const MAX_LACKS: usize = 8;

/// The fetcher's user where none is configured and the supervisor is root, if there is such a user.
pub const USER: &str = "bumpless-fetch";

/// The user with this name, or where none is configured the one that is usual; `None`: our own.
fn user(wanted: Option<&str>) -> Result<Option<User>, FeedError> {
    let own = geteuid();
    if wanted.is_none() && !own.is_root() {
        return Ok(None);
    }
    match (nix::unistd::User::from_name(wanted.unwrap_or(USER)), wanted) {
        (Ok(Some(user)), _) if user.uid == own => Ok(None),
        (Ok(Some(user)), _) => Ok(Some(User { uid: user.uid.as_raw(), gid: user.gid.as_raw() })),
        (Ok(None) | Err(_), None) => Ok(None),
        (Ok(None), Some(name)) => Err(FeedError::NoUser { name: name.to_owned(), source: None }),
        (Err(error), Some(name)) => {
            Err(FeedError::NoUser { name: name.to_owned(), source: Some(error.into()) })
        }
    }
}

/// The program and what it is always told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetcher<'a> {
    pub(super) program: Option<&'a Path>,
    pub(super) user: Option<&'a str>,
    pub(super) ca_file: Option<&'a Path>,
    pub(super) allow_http_loopback: bool,
    pub(super) proxy: Option<&'a Proxy>,
}

impl Fetcher<'_> {
    /// Fetches `url` into `file`, which has the first `from` bytes already. Only what the file holds
    /// afterwards counts; it is bounded here again by its size.
    pub(super) async fn fetch(
        self,
        url: &str,
        limits: &Limits,
        file: &File,
        from: u64,
        progress: &mut (dyn FnMut(u64, Option<u64>) + Send),
    ) -> Result<(), FeedError> {
        let deadline = Instant::now() + limits.total_timeout + GRACE;
        let program = self.program()?;
        let failed = |source| FeedError::Fetcher { program: program.clone(), source };
        let mut command = Command::new(&program);
        command
            .args([OsStr::new("--url"), url.as_ref()])
            .arg("--max-bytes")
            .arg(limits.max_bytes.to_string())
            .arg("--connect-timeout-ms")
            .arg(limits.connect_timeout.as_millis().to_string())
            .arg("--total-timeout-ms")
            .arg(limits.total_timeout.as_millis().to_string())
            .arg("--min-rate")
            .arg(limits.min_rate.to_string())
            .arg("--from")
            .arg(from.to_string());
        if let Some(ca_file) = self.ca_file {
            command.arg("--ca-file").arg(ca_file);
        }
        if self.allow_http_loopback {
            command.arg("--allow-http-loopback");
        }
        command.env_clear().current_dir("/").process_group(0);
        if let Some(Proxy { address, except }) = self.proxy {
            // Everybody can read a command line, and there may be a password in it.
            command.arg("--proxy").env("BUMPLESS_PROXY", address.with_password());
            command.env("BUMPLESS_NO_PROXY", except);
        }
        command.stdin(Stdio::null()).stdout(staged::again(file)?).stderr(Stdio::piped());
        // The list of users may lie on another machine.
        let wanted = self.user.map(str::to_owned);
        let found = timeout_at(deadline, staged::blocking(move || user(wanted.as_deref()))).await;
        let too_long = |_| FeedError::NoUser {
            name: self.user.unwrap_or(USER).to_owned(),
            source: Some(io::ErrorKind::TimedOut.into()),
        };
        let bounds = Bounds {
            user: found.map_err(too_long)??,
            // One byte more than allowed, so that too large is seen as such.
            file_bytes: limits.max_bytes.saturating_add(1),
            memory_bytes: MEMORY,
            descriptors: DESCRIPTORS,
            processes: PROCESSES,
        };
        confine(&mut command, bounds);
        let mut child = command.spawn().map_err(failed)?;
        // Not waited for yet, so that its number certainly still means it.
        let group = Pid::from_raw(child.id() as i32);
        let running = match Process::open(group.as_raw()) {
            Ok(process) => Running { process: Some(process), group },
            Err(source) => {
                let _ = killpg(group, Signal::SIGKILL);
                let _ = child.wait();
                return Err(failed(source));
            }
        };
        let stderr = child.stderr.take().ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
        let mut lines = Lines::new(stderr.into()).map_err(failed)?;

        let ended = timeout_at(deadline, async {
            loop {
                tokio::select! {
                    // Lines before the end: the last of them say why it ended.
                    biased;
                    line = lines.next() => match line {
                        Some(line) => report(&line, progress),
                        None => return running.ended().await,
                    },
                    ended = running.ended() => return ended,
                }
            }
        });
        match ended.await {
            Err(_) => return Err(FeedError::Deadline { url: url.to_owned() }),
            Ok(ended) => ended.map_err(failed)?,
        }
        let ending = running.reap().map_err(failed)?;
        lines.drain(progress);
        let exit = match ending {
            Some(Ending::Exited(code)) => Exit::of(code),
            Some(Ending::Signaled(_) | Ending::Unknown) | None => None,
        };
        match exit {
            Some(Exit::Done) => Ok(()),
            Some(exit) => Err(FeedError::Fetch { url: url.to_owned(), exit, text: lines.error }),
            None => {
                let how =
                    ending.map_or_else(|| "ended without a status".to_owned(), |ending| ending.to_string());
                Err(FeedError::FetcherDied { url: url.to_owned(), how })
            }
        }
    }

    fn program(self) -> Result<PathBuf, FeedError> {
        if let Some(program) = self.program {
            return Ok(program.to_owned());
        }
        let name = Path::new("bumpless-fetch");
        let ours = std::env::current_exe();
        let ours = ours.map_err(|source| FeedError::Fetcher { program: name.to_owned(), source })?;
        Ok(ours.with_file_name(name))
    }
}

fn report(line: &str, progress: &mut (dyn FnMut(u64, Option<u64>) + Send)) {
    if let Some(lack) = line.strip_prefix("lacks ") {
        return noted(lack);
    }
    let mut words = line.split(' ');
    if words.next() == Some("progress")
        && let Some(done) = words.next().and_then(|word| word.parse().ok())
    {
        progress(done, words.next().and_then(|word| word.parse().ok()));
    }
}

/// A machine does not change while it runs, and there is a fetcher for every file.
static LACKS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// What the machine does not have of a fetcher's sandbox, as fetchers have said so far.
pub fn lacks() -> Vec<String> {
    LACKS.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
}

/// Told once.
fn noted(lack: &str) {
    let mut lacks = LACKS.lock().unwrap_or_else(PoisonError::into_inner);
    if lacks.len() < MAX_LACKS && lacks.insert(lack.to_owned()) {
        eprintln!(
            "bumplessd: the fetcher's sandbox lacks {lack}, if it were taken over by what it reads. What it \
             fetches is verified all the same"
        );
    }
}

/// A child that is killed and collected when this is dropped, and its group with it.
struct Running {
    process: Option<Process>,
    /// The number of its group. It is nobody else's as long as the child is not collected.
    group: Pid,
}

impl Running {
    async fn ended(&self) -> io::Result<()> {
        match &self.process {
            Some(process) => process.ended().await,
            None => Ok(()),
        }
    }

    /// Collects it once it has ended. What it left behind ends before.
    fn reap(mut self) -> io::Result<Option<Ending>> {
        self.kill_group();
        self.process.take().map_or(Ok(None), |process| process.reap())
    }

    fn kill_group(&self) {
        // Refused only to a supervisor that may start programs as another user and not end them; then the
        // fetcher ends at its own deadline.
        let _ = killpg(self.group, Signal::SIGKILL);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.process.is_none() {
            return;
        }
        self.kill_group();
        let Some(process) = self.process.take() else { return };
        // Without a runtime this process is ending too, and its children with a new parent are collected there.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if process.ended().await.is_ok() {
                    let _ = process.reap();
                }
            });
        }
    }
}

/// The fetcher's standard error, line by line.
struct Lines {
    pipe: pipe::Receiver,
    pending: Vec<u8>,
    buffer: Vec<u8>,
    /// The last `error` line, without that word.
    error: String,
}

impl Lines {
    fn new(fd: OwnedFd) -> io::Result<Lines> {
        let pipe = pipe::Receiver::from_owned_fd(fd)?;
        Ok(Lines { pipe, pending: Vec::new(), buffer: vec![0; 4096], error: String::new() })
    }

    /// The next line; `None` once there will be no more. Cancelled, it has lost nothing.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(line) = self.take() {
                return Some(line);
            }
            match self.pipe.read(&mut self.buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.push(read),
            }
        }
    }

    /// What is left after its end, without waiting: a grandchild that left the group may hold the pipe open.
    fn drain(&mut self, progress: &mut (dyn FnMut(u64, Option<u64>) + Send)) {
        // A pipe holds at most 1 MiB; more than that was not there when it ended.
        for _ in 0..256 {
            while let Some(line) = self.take() {
                report(&line, progress);
            }
            match self.pipe.try_read(&mut self.buffer) {
                Ok(0) | Err(_) => return,
                Ok(read) => self.push(read),
            }
        }
    }

    fn push(&mut self, read: usize) {
        self.pending.extend_from_slice(&self.buffer[..read]);
    }

    fn take(&mut self) -> Option<String> {
        let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') else {
            // Whoever writes lines without end is not our fetcher.
            self.pending.truncate(MAX_LINE);
            return None;
        };
        let line: Vec<u8> = self.pending.drain(..=end).collect();
        let line: String =
            String::from_utf8_lossy(&line).chars().filter(|c| !c.is_control()).take(MAX_LINE).collect();
        if let Some(text) = line.strip_prefix("error ") {
            text.clone_into(&mut self.error);
        }
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_user_who_is_not_there_is_an_error_and_ones_own_is_no_change() {
        let error = user(Some("nobody-of-that-name")).unwrap_err().to_string();
        assert!(error.contains("nobody-of-that-name") && error.contains("fetch.user"), "{error}");
        let own = nix::unistd::User::from_uid(geteuid()).unwrap().unwrap();
        assert_eq!(user(Some(&own.name)).unwrap(), None);
        let other = if geteuid().is_root() { "nobody" } else { "root" };
        let found = nix::unistd::User::from_name(other).unwrap().unwrap();
        let wanted = User { uid: found.uid.as_raw(), gid: found.gid.as_raw() };
        assert_eq!(user(Some(other)).unwrap(), Some(wanted));
        if !geteuid().is_root() {
            assert_eq!(user(None).unwrap(), None);
        }
    }
}

//! `bumpless-fetch` as a child: bounded in time, killed when nobody waits for it any more.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bumpless_os::process::{Ending, Process};
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

/// The program and what it is always told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetcher<'a> {
    pub(super) program: Option<&'a Path>,
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
        let mut child = command.spawn().map_err(failed)?;
        // Not waited for yet, so that its number certainly still means it.
        let child_process = Process::open(child.id() as i32).map_err(failed)?;
        let running = Running { process: Some(child_process) };
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
    let mut words = line.split(' ');
    if words.next() == Some("progress")
        && let Some(done) = words.next().and_then(|word| word.parse().ok())
    {
        progress(done, words.next().and_then(|word| word.parse().ok()));
    }
}

/// A child that is killed and collected when this is dropped.
struct Running {
    process: Option<Process>,
}

impl Running {
    async fn ended(&self) -> io::Result<()> {
        match &self.process {
            Some(process) => process.ended().await,
            None => Ok(()),
        }
    }

    fn reap(mut self) -> io::Result<Option<Ending>> {
        self.process.take().map_or(Ok(None), |process| process.reap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(process) = self.process.take() else { return };
        // It runs under our own uid, so this cannot be refused.
        let _ = process.kill();
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

    /// What is left after its end, without waiting: a grandchild may hold the pipe open.
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

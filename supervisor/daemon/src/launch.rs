//! Starting a worker: exactly these bytes, one descriptor, nothing else.
//!
//! ```text
//!   sealed memfd ── executed through its descriptor: what was hashed is what runs
//!   0            ── the worker's end of the control channel; everything else comes over it
//!   1, 2         ── alive/<instance>.out, appended to: a worker outlives its supervisor, and a pipe to
//!                   a supervisor that is gone would break
//!   the rest     ── closed
//!   environment  ── empty
//!   group        ── its own: a Ctrl-C on the supervisor's terminal is not meant for it
//! ```
//!
//! The parent's death is no signal to the worker (no `PDEATHSIG`): it serves on and waits for the next
//! supervisor. Descriptors that this process was itself started with, and that are not close-on-exec,
//! are closed by number.

use std::ffi::{CStr, CString};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bumpless_os::process::Process;
use nix::errno::Errno;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

/// Standard input, output and error: all that a worker has open when it begins.
const STANDARD: std::ops::RangeInclusive<RawFd> = 0..=2;

/// What a process list shows.
const NAME: &CStr = c"bumpless-node";

/// A worker that was started.
#[derive(Debug)]
pub struct Launched {
    /// Its process.
    pub process: Process,
    /// The same as a number, to show.
    pub pid: i32,
}

/// Why a worker could not be started. No process is left behind.
#[derive(Debug)]
pub enum LaunchError {
    /// Its output file cannot be opened.
    Output {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something that it should have been given could not be prepared.
    Prepare {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The kernel did not execute it.
    Execute {
        /// Why.
        source: io::Error,
    },
    /// It was started, but could not be watched, and was ended again.
    Watch {
        /// Why.
        source: io::Error,
    },
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LaunchError::Output { path, source } => {
                write!(f, "cannot start a worker: its output file {}: {source}", path.display())
            }
            LaunchError::Prepare { what, source } => write!(f, "cannot start a worker: {what}: {source}"),
            LaunchError::Execute { source } => match source.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ENOEXEC) => {
                    write!(f, "cannot start a worker: its file is no executable of this machine")
                }
                Some(Errno::EACCES | Errno::EPERM) => write!(
                    f,
                    "cannot start a worker: {source}. Executing from memory may be forbidden here (vm.memfd_noexec, \
                     or a policy of the security module)"
                ),
                Some(_) | None => write!(f, "cannot start a worker: {source}"),
            },
            LaunchError::Watch { source } => {
                write!(f, "a worker was started, could not be watched ({source}) and was ended again")
            }
        }
    }
}

impl std::error::Error for LaunchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LaunchError::Output { source, .. }
            | LaunchError::Prepare { source, .. }
            | LaunchError::Execute { source }
            | LaunchError::Watch { source } => Some(source),
        }
    }
}

/// Starts the executable that `binary` refers to, with `control_end` as its standard input. `control_end`
/// is closed here, so that the channel ends when the worker does.
///
/// To be called from one thread at a time.
///
/// # Errors
/// It does not run.
pub fn launch(
    binary: BorrowedFd<'_>,
    control_end: OwnedFd,
    output: &Output,
) -> Result<Launched, LaunchError> {
    start(binary, control_end, output, &[NAME])
}

fn start(
    binary: BorrowedFd<'_>,
    control_end: OwnedFd,
    output: &Output,
    arguments: &[&CStr],
) -> Result<Launched, LaunchError> {
    let prepare = |what| move |source: io::Error| LaunchError::Prepare { what, source };
    let spawn = |errno: Errno| LaunchError::Prepare { what: "what it is started with", source: errno.into() };

    let out = output.open().map_err(|source| LaunchError::Output { path: output.path.clone(), source })?;
    // None of them may have a number that is overwritten before it is read.
    let binary = above_standard(binary).map_err(prepare("its file"))?;
    let out = above_standard(out.as_fd()).map_err(prepare("its output file"))?;
    let control_end = above_standard(control_end.as_fd()).map_err(prepare("its control channel"))?;

    let mut actions = PosixSpawnFileActions::init().map_err(spawn)?;
    for (from, to) in [(control_end.as_raw_fd(), 0), (out.as_raw_fd(), 1), (out.as_raw_fd(), 2)] {
        actions.add_dup2(from, to).map_err(spawn)?;
    }
    for number in open_descriptors().map_err(prepare("/proc/self/fd"))? {
        // The binary's own is close-on-exec, and is needed until then.
        if !STANDARD.contains(&number) && number != binary.as_raw_fd() {
            actions.add_close(number).map_err(spawn)?;
        }
    }
    let mut attributes = PosixSpawnAttr::init().map_err(spawn)?;
    attributes
        .set_flags(
            PosixSpawnFlags::POSIX_SPAWN_SETPGROUP
                | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
                | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK,
        )
        .map_err(spawn)?;
    attributes.set_pgroup(Pid::from_raw(0)).map_err(spawn)?;
    attributes.set_sigmask(&SigSet::empty()).map_err(spawn)?;
    // Ignored signals stay ignored over an execution, and Rust ignores this one.
    attributes.set_sigdefault(&SigSet::from_iter([Signal::SIGPIPE])).map_err(spawn)?;

    let path = CString::new(format!("/proc/self/fd/{}", binary.as_raw_fd()))
        .map_err(|error| LaunchError::Prepare { what: "its path", source: error.into() })?;
    let environment = bumpless_os::injected::environment();
    let pid = posix_spawn(path.as_c_str(), &actions, &attributes, arguments, &environment)
        .map_err(|errno| LaunchError::Execute { source: errno.into() })?;
    // Our own child, not yet waited for: the number cannot mean anybody else.
    match Process::open(pid.as_raw()) {
        Ok(process) => Ok(Launched { process, pid: pid.as_raw() }),
        Err(source) => {
            // Both can fail only where there is no such child any more.
            let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
            let _ = waitpid(pid, None);
            Err(LaunchError::Watch { source })
        }
    }
}

/// The same file under a number that the new process does not use for something else.
fn above_standard(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut low = Vec::new();
    loop {
        let copy = fd.try_clone_to_owned()?;
        if !STANDARD.contains(&copy.as_raw_fd()) {
            return Ok(copy);
        }
        low.push(copy);
    }
}

fn open_descriptors() -> io::Result<Vec<RawFd>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    Ok(numbers)
}

/// What a worker writes to stdout and stderr, in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    path: PathBuf,
}

/// Most bytes that [`Output::tail`] returns.
pub const TAIL: usize = 4096;

/// Bytes above which [`Output::trim`] shortens the file.
pub const OUTPUT_LIMIT: u64 = 1024 * 1024;

impl Output {
    /// The file; see [`Alive::output`](crate::alive::Alive::output).
    pub fn new(path: PathBuf) -> Output {
        Output { path }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self) -> io::Result<File> {
        OpenOptions::new().append(true).create(true).mode(0o640).open(&self.path)
    }

    /// Its end, at most [`TAIL`] bytes: invalid UTF-8 replaced, control characters except the end of
    /// line written out, so that nothing a worker writes can act on a terminal. Empty where there is
    /// nothing or it cannot be read.
    pub fn tail(&self) -> String {
        shown(&self.last().unwrap_or_default())
    }

    /// Shortens a file that has grown above [`OUTPUT_LIMIT`] to its last few lines. A line that the
    /// worker writes in this moment may be lost.
    ///
    /// # Errors
    /// It cannot be shortened; it goes on growing.
    pub fn trim(&self) -> io::Result<()> {
        match std::fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
            Ok(file) if file.len() <= OUTPUT_LIMIT => return Ok(()),
            Ok(_) => {}
        }
        let last = self.last()?;
        let mut file = self.open()?;
        // The worker appends, so it goes on at the new end.
        file.set_len(0)?;
        file.write_all(b"(earlier output was dropped)\n")?;
        file.write_all(&last)
    }

    fn last(&self) -> io::Result<Vec<u8>> {
        let mut file = File::open(&self.path)?;
        let from = file.metadata()?.len().saturating_sub(TAIL as u64);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(TAIL as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

fn shown(bytes: &[u8]) -> String {
    let mut text = String::new();
    for c in String::from_utf8_lossy(bytes).trim_end().chars() {
        match c {
            '\n' => text.push('\n'),
            '\t' => text.push(' '),
            // Of the characters without a shape, those that turn the direction of what follows.
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                text.extend(c.escape_unicode())
            }
            c if c.is_control() => text.extend(c.escape_default()),
            c => text.push(c),
        }
    }
    let cut = text.len().saturating_sub(TAIL);
    let cut = (cut..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    text.split_off(cut)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bumpless_os::process::Ending;
    use std::io::BufRead;
    use std::os::unix::net::UnixStream;

    fn shell() -> File {
        File::open("/bin/sh").unwrap()
    }

    /// Runs a shell script as a worker and waits for its end.
    fn run(script: &str, output: &Output) -> Ending {
        let (near, far) = UnixStream::pair().unwrap();
        let script = CString::new(script).unwrap();
        let launched = start(shell().as_fd(), far.into(), output, &[c"sh", c"-c", &script]).unwrap();
        // The other end closes with the worker: nothing else has it.
        io::BufReader::new(near).lines().for_each(|line| drop(line.unwrap()));
        let mut fds = [nix::poll::PollFd::new(launched.process.as_fd(), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, nix::poll::PollTimeout::NONE).unwrap();
        launched.process.reap().unwrap().unwrap()
    }

    fn output(dir: &Path) -> Output {
        Output::new(dir.join("7.out"))
    }

    #[test]
    fn a_worker_has_its_control_end_its_output_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let output = output(dir.path());
        // Not close-on-exec, as from a careless parent.
        let careless = nix::unistd::pipe().unwrap();
        let ending =
            run("echo out; echo err >&2; ls /proc/self/fd; env; test -S /proc/self/fd/0; echo $?", &output);
        drop(careless);
        assert_eq!(ending, Ending::Exited(0));
        // 3 is the listing's own; PWD is the shell's.
        let lines: Vec<String> =
            output.tail().lines().filter(|line| !line.contains('=')).map(str::to_owned).collect();
        assert_eq!(lines, ["out", "err", "0", "1", "2", "3", "0"]);
    }

    #[test]
    fn a_worker_is_the_leader_of_its_own_group_with_default_signals() {
        let dir = tempfile::tempdir().unwrap();
        let output = output(dir.path());
        assert_eq!(
            run("test $(cut -d' ' -f5 /proc/$$/stat) = $$ || exit 9; kill -PIPE $$", &output),
            Ending::Signaled(13)
        );
    }

    #[test]
    fn what_is_no_executable_is_an_error_and_leaves_no_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("text");
        std::fs::write(&path, b"not a program").unwrap();
        let file = File::open(&path).unwrap();
        let (_near, far) = UnixStream::pair().unwrap();
        let error = launch(file.as_fd(), far.into(), &output(dir.path())).unwrap_err();
        assert!(matches!(error, LaunchError::Execute { .. }), "{error}");
        assert!(error.to_string().starts_with("cannot start a worker: "), "{error}");
    }

    #[test]
    fn output_is_bounded_and_cannot_act_on_a_terminal() {
        let dir = tempfile::tempdir().unwrap();
        let output = output(dir.path());
        assert_eq!(output.tail(), "");
        std::fs::write(output.path(), b"one\n\x1b[2Jtwo\r\xff\x07\xe2\x80\xae\n").unwrap();
        assert_eq!(output.tail(), "one\n\\u{1b}[2Jtwo\\r\u{fffd}\\u{7}\\u{202e}");
        std::fs::write(output.path(), [b"\x01".repeat(9000), b"end\n".to_vec()].concat()).unwrap();
        assert!(output.tail().len() <= TAIL && output.tail().ends_with("end"));
    }

    #[test]
    fn a_file_that_grew_too_large_keeps_its_end_and_goes_on_growing() {
        let dir = tempfile::tempdir().unwrap();
        let output = output(dir.path());
        let mut worker = output.open().unwrap();
        output.trim().unwrap();
        worker.write_all(&b"line\n".repeat(OUTPUT_LIMIT as usize / 5 + 1)).unwrap();
        output.trim().unwrap();
        worker.write_all(b"after\n").unwrap();
        let text = std::fs::read_to_string(output.path()).unwrap();
        assert!(text.starts_with("(earlier output was dropped)\n") && text.ends_with("line\nafter\n"));
        assert!(text.len() < 2 * TAIL);
    }
}

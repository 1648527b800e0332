//! Starting a worker: exactly these bytes, one descriptor, nothing else.
//!
//! ```text
//!   the binary   ── executed through the descriptor that was hashed (see [`crate::releases`])
//!   0            ── the worker's end of the control channel; everything else comes over it
//!   1, 2         ── alive/<instance>.out, appended to: a worker outlives its supervisor, and a pipe to
//!                   a supervisor that is gone would break
//!   the rest     ── closed
//!   environment  ── empty
//!   group        ── its own: a Ctrl-C on the supervisor's terminal is not meant for it
//!   user         ── its own where there is one (`worker.user`), with that user's primary group, no other
//!                   groups, no capabilities and no way to gain a privilege; otherwise the supervisor's
//! ```
//!
//! The parent's death is no signal to the worker (no `PDEATHSIG`): it serves on and waits for the next
//! supervisor. Limits are the supervisor's own. The UDP sockets are bound by the supervisor and passed, so that
//! a worker without privileges serves a port below 1024, and a process of its user cannot join their group.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use bumpless_os::child::{self, User};
use bumpless_os::process::Process;
use nix::errno::Errno;

/// Standard input, output and error: all that a worker has open when it begins.
const STANDARD: std::ops::RangeInclusive<RawFd> = 0..=2;

/// What a process list shows.
const NAME: &str = "bumpless-node";

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
    /// The kernel did not execute it, or not as this user.
    Execute {
        /// As whom; `None`: as the supervisor's.
        user: Option<User>,
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
            LaunchError::Execute { user, source } => {
                match (source.raw_os_error().map(Errno::from_raw), user) {
                    (Some(Errno::ENOEXEC), _) => {
                        write!(f, "cannot start a worker: its file is no executable of this machine")
                    }
                    (Some(Errno::EACCES | Errno::EPERM), None) => write!(
                        f,
                        "cannot start a worker: {source}. Executing from memory may be forbidden here \
                         (vm.memfd_noexec, or a policy of the security module)"
                    ),
                    (Some(Errno::EACCES | Errno::EPERM), Some(user)) => write!(
                        f,
                        "cannot start a worker as user {}: {source}. Becoming that user may be forbidden here, or \
                         executing what lies in state_dir (its file system is mounted noexec, or a policy of the \
                         security module)",
                        user.uid
                    ),
                    (Some(_) | None, _) => write!(f, "cannot start a worker: {source}"),
                }
            }
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
            | LaunchError::Execute { source, .. }
            | LaunchError::Watch { source } => Some(source),
        }
    }
}

/// Starts the executable that `binary` refers to, with `control_end` as its standard input and as `user`, if
/// there is one. `control_end` is closed here, so that the channel ends when the worker does.
///
/// To be called from one thread at a time.
///
/// # Errors
/// It does not run.
pub fn launch(
    binary: BorrowedFd<'_>,
    control_end: OwnedFd,
    output: &Output,
    user: Option<User>,
) -> Result<Launched, LaunchError> {
    start(binary, control_end, output, user, &[])
}

fn start(
    binary: BorrowedFd<'_>,
    control_end: OwnedFd,
    output: &Output,
    user: Option<User>,
    arguments: &[&OsStr],
) -> Result<Launched, LaunchError> {
    let prepare = |what| move |source: io::Error| LaunchError::Prepare { what, source };
    let out = output.open().map_err(|source| LaunchError::Output { path: output.path.clone(), source })?;
    let errors = out.try_clone().map_err(prepare("its output file"))?;
    // Its number may not be given to something else before it is executed. Close-on-exec, it is closed then.
    let binary = above_standard(binary).map_err(prepare("its file"))?;

    let mut command = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()));
    command.arg0(NAME).args(arguments).env_clear().envs(bumpless_os::injected::environment());
    command.current_dir("/").process_group(0).stdin(control_end).stdout(out).stderr(errors);
    child::part(&mut command, user);
    let mut child = command.spawn().map_err(|source| LaunchError::Execute { user, source })?;
    let pid = child.id() as i32;
    // Our own child, not yet waited for: the number cannot mean anybody else.
    match Process::open(pid) {
        Ok(process) => Ok(Launched { process, pid }),
        Err(source) => {
            // Both can fail only where there is no such child any more.
            let _ = child.kill();
            let _ = child.wait();
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
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    fn shell() -> File {
        File::open("/bin/sh").unwrap()
    }

    /// Runs a shell script as a worker and waits for its end.
    fn run(script: &str, output: &Output) -> Ending {
        run_as(None, script, output)
    }

    fn run_as(user: Option<User>, script: &str, output: &Output) -> Ending {
        let (near, far) = UnixStream::pair().unwrap();
        let arguments = ["-c", script].map(OsStr::new);
        let launched = start(shell().as_fd(), far.into(), output, user, &arguments).unwrap();
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
    fn a_worker_with_a_user_of_its_own_is_that_user_alone_and_has_no_privilege() {
        let test = "a_worker_with_a_user_of_its_own_is_that_user_alone";
        let Some(user) = crate::user::tests::other(test) else { return };
        let dir = tempfile::tempdir().unwrap();
        let output = output(dir.path());
        let script = "id -u; id -g; id -G; kill -0 $PPID 2>/dev/null; echo $?; \
                      sed -n 's/^\\(Cap[A-Za-z]*\\|NoNewPrivs\\|Groups\\):[^0-9a-f]*//p' /proc/self/status; \
                      ls /proc/self/fd | tr '\\n' ' '";
        assert_eq!(run_as(Some(user), script, &output), Ending::Exited(0));
        let (uid, gid, none) = (user.uid.to_string(), user.gid.to_string(), "0000000000000000");
        let lines = output.tail();
        let lines: Vec<&str> = lines.lines().map(str::trim).collect();
        assert_eq!(lines, [&uid, &gid, &gid, "1", "", none, none, none, none, none, "1", "0 1 2 3"]);
        // Its output is its supervisor's: it writes to it, and cannot open it again.
        assert_ne!(run_as(Some(user), "echo x >>/proc/self/fd/1", &output), Ending::Exited(0));
    }

    #[test]
    fn while_a_worker_runs_nobody_opens_its_file_for_writing() {
        let Some(user) = crate::user::tests::other("while_a_worker_runs_nobody_opens_its_file") else {
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sh");
        // By another process: a child of ours that another test is starting would have it open for writing, too.
        assert!(Command::new("cp").arg("/bin/sh").arg(&path).status().unwrap().success());
        let (near, far) = UnixStream::pair().unwrap();
        let arguments = ["-c", "read end"].map(OsStr::new);
        let file = File::open(&path).unwrap();
        let launched = start(file.as_fd(), far.into(), &output(dir.path()), Some(user), &arguments).unwrap();
        let error = OpenOptions::new().write(true).open(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ExecutableFileBusy);
        drop(near);
        let mut fds = [nix::poll::PollFd::new(launched.process.as_fd(), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, nix::poll::PollTimeout::NONE).unwrap();
        launched.process.reap().unwrap();
        OpenOptions::new().write(true).open(&path).unwrap();
    }

    #[test]
    fn a_user_that_cannot_be_become_is_an_error_and_nothing_runs() {
        let dir = tempfile::tempdir().unwrap();
        let (_near, far) = UnixStream::pair().unwrap();
        // No user has this number: asked for it, the kernel leaves everything as it is.
        let nobody = User { uid: u32::MAX, gid: u32::MAX };
        let error = start(shell().as_fd(), far.into(), &output(dir.path()), Some(nobody), &[]).unwrap_err();
        // (Without the right to change the user it fails earlier.)
        assert!(matches!(error, LaunchError::Execute { .. }), "{error}");
        assert!(error.to_string().starts_with("cannot start a worker"), "{error}");
        assert_eq!(output(dir.path()).tail(), "");
    }

    #[test]
    fn what_is_no_executable_is_an_error_and_leaves_no_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("text");
        std::fs::write(&path, b"not a program").unwrap();
        let file = File::open(&path).unwrap();
        let (_near, far) = UnixStream::pair().unwrap();
        let error = launch(file.as_fd(), far.into(), &output(dir.path()), None).unwrap_err();
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

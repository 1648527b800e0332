//! One supervisor per state directory: a record lock held for life. The kernel names its holder and
//! takes it back when the process ends, and it stays with the process when it executes a new binary.
//! No process number is ever written down.
//!
//! Closing any descriptor of the file gives the lock up, so nothing else opens it.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use bumpless_os::lock::{holder, try_lock};

use super::paths::Paths;

/// The lock; to be kept until the process ends.
#[derive(Debug)]
pub struct SupervisorLock(#[expect(dead_code, reason = "open for as long as the lock is held")] File);

/// Why there is no lock.
#[derive(Debug)]
pub enum LockError {
    /// Another supervisor has it.
    Taken {
        /// The lock.
        path: PathBuf,
        /// Its process; `None` where it ended in this moment or is outside of what we may see.
        pid: Option<i32>,
    },
    /// The file cannot be opened or locked.
    Io {
        /// The lock.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Taken { path, pid } => {
                let who = pid.map_or(String::new(), |pid| format!(" (process {pid})"));
                let dir = path.parent().unwrap_or(path).display();
                write!(
                    f,
                    "another supervisor{who} runs on {dir}; it goes on. Stop it first, or use another state_dir"
                )
            }
            LockError::Io { path, source } => write!(
                f,
                "cannot lock {}: {source}. The supervisor's user needs a state_dir that it may write to",
                path.display()
            ),
        }
    }
}

impl std::error::Error for LockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LockError::Taken { .. } => None,
            LockError::Io { source, .. } => Some(source),
        }
    }
}

impl SupervisorLock {
    /// Takes it. The state directory must be there.
    ///
    /// # Errors
    /// Another process has it; the file cannot be opened.
    pub fn take(paths: &Paths) -> Result<SupervisorLock, LockError> {
        let path = paths.lock();
        let io = |source| LockError::Io { path: path.clone(), source };
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io)?;
        if try_lock(&file).map_err(io)? {
            return Ok(SupervisorLock(file));
        }
        let pid = holder(&file).map_err(io)?.filter(|pid| *pid > 0);
        Err(LockError::Taken { path, pid })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    #[test]
    fn a_second_supervisor_is_told_who_has_the_lock_until_that_one_ends() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), dir.path());
        let code = "import fcntl,sys; f=open(sys.argv[1],'w+'); fcntl.lockf(f,fcntl.LOCK_EX); print('x',flush=True); sys.stdin.read()";
        let mut python = Command::new("python3");
        python.args(["-c", code]).arg(paths.lock()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let Ok(mut child) = python.spawn() else {
            assert!(std::env::var_os("BUMPLESS_REQUIRE_ALL").is_none(), "python3 is needed to hold a lock");
            writeln!(io::stderr(), "left out: a test that needs python3 to hold a lock").unwrap();
            return;
        };
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let text = SupervisorLock::take(&paths).unwrap_err().to_string();
        assert!(text.contains(&format!("(process {})", child.id())), "{text}");
        child.kill().unwrap();
        child.wait().unwrap();
        SupervisorLock::take(&paths).unwrap();
    }

    #[test]
    fn a_state_directory_that_is_not_there_is_an_error_with_a_hint() {
        let text = SupervisorLock::take(&Paths::new("/nowhere", "/nowhere")).unwrap_err().to_string();
        assert!(text.starts_with("cannot lock /nowhere/lock: ") && text.contains("state_dir"), "{text}");
    }
}

//! A view of the file system of one's own: what is mounted in it nobody else sees, and nothing of it is
//! left when its processes have ended.
//!
//! A process that does nothing keeps it while supervisors come and go. It ends with whoever made it,
//! however that one ends: its standard input is closed then.

use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A mount namespace. Dropping it ends the process that keeps it; others in it live on.
#[derive(Debug)]
pub struct Namespace {
    keeper: Child,
    root: bool,
}

impl Namespace {
    /// Makes one; `None` where the kernel does not let us.
    ///
    /// # Errors
    /// Those of starting a process.
    pub fn make() -> io::Result<Option<Namespace>> {
        let root = nix::unistd::geteuid().is_root();
        let mut command = Command::new("unshare");
        command.arg("--mount");
        if !root {
            command.arg("--map-root-user");
        }
        command.args(["sh", "-c", "echo here; read end"]);
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut keeper = match started {
            Ok(keeper) => keeper,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut said = String::new();
        if let Some(output) = keeper.stdout.take() {
            BufReader::new(output).read_line(&mut said)?;
        }
        if said.trim() != "here" {
            keeper.wait()?;
            return Ok(None);
        }
        Ok(Some(Namespace { keeper, root }))
    }

    /// What is put in front of a command that is to run in it.
    pub fn entrance(&self) -> Vec<String> {
        let mut words = vec!["nsenter".to_owned(), "--mount".to_owned()];
        if !self.root {
            words.extend(["--user", "--preserve-credentials"].map(str::to_owned));
        }
        words.extend(["--target".to_owned(), self.keeper.id().to_string(), "--".to_owned()]);
        words
    }

    /// A path in it, as it is reached from outside.
    pub fn seen(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.keeper.id()));
        root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Runs a command in it, to its end.
    ///
    /// # Errors
    /// It cannot be started, or fails; then with what it said.
    pub fn run(&self, words: &[&str]) -> io::Result<()> {
        let entrance = self.entrance();
        let mut command = Command::new(&entrance[0]);
        let output = command.args(&entrance[1..]).args(words).stdin(Stdio::null()).output()?;
        match output.status.success() {
            true => Ok(()),
            false => {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                Err(io::Error::other(format!("{}: {said}", words.join(" "))))
            }
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

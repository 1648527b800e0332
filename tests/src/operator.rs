//! Runs the operator's command as a person would and keeps what it said.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

/// `bumpless` with the socket of one supervisor.
#[derive(Clone, Debug)]
pub struct Operator {
    program: PathBuf,
    socket: PathBuf,
    /// As whom it runs; absent: as we do.
    uid: Option<u32>,
}

/// What it said.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its exit code; -1 where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub output: String,
    /// The error stream.
    pub errors: String,
}

impl Operator {
    /// The program, and the socket that it is told.
    pub fn new(program: PathBuf, socket: PathBuf) -> Operator {
        Operator { program, socket, uid: None }
    }

    /// The same, run as another user; only root can. `program` is one that this user can reach.
    pub fn as_user(&self, uid: u32, program: PathBuf) -> Operator {
        Operator { program, uid: Some(uid), ..self.clone() }
    }

    /// Runs it to its end with these arguments.
    ///
    /// # Errors
    /// Those of starting it.
    pub async fn run(&self, arguments: &[&str]) -> io::Result<Said> {
        let mut command = Command::new(&self.program);
        command.arg("--socket").arg(&self.socket).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        let output = command.output().await?;
        Ok(Said {
            code: output.status.code().unwrap_or(-1),
            output: String::from_utf8_lossy(&output.stdout).into_owned(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

impl Said {
    /// The last line of standard output as JSON.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_str(&self.output)
            .ok()
            .or_else(|| serde_json::from_str(self.output.lines().last()?).ok())
    }

    /// Both streams.
    pub fn all(&self) -> String {
        format!("{}{}", self.output, self.errors)
    }
}

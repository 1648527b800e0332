//! Holding a worker at a step, from outside, without a clock: the worker says that it has come there and
//! waits; it goes on when it is told to, or when nobody holds the gate any more.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bumpless_worker::faults::Does;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::{OpenOptions, Receiver, Sender};

/// A gate, shut. Dropping it opens it for good.
#[derive(Debug)]
pub struct Gate {
    path: PathBuf,
    reached: Receiver,
    open: Sender,
}

/// Nobody came to the gate within the time.
#[derive(Debug)]
pub struct NotReached {
    gate: PathBuf,
    within: Duration,
}

impl fmt::Display for NotReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nobody came to the gate {} within {:?}", self.gate.display(), self.within)
    }
}

impl std::error::Error for NotReached {}

impl Gate {
    /// Makes the gate in a folder, under a name that no other has there. Needs a runtime.
    ///
    /// # Errors
    /// Those of making the pipes.
    pub fn new(folder: &Path, name: &str) -> io::Result<Gate> {
        let path = folder.join(format!("gate-{name}"));
        let [reached, open] = ["reached", "open"].map(|end| path.with_extension(end));
        for pipe in [&reached, &open] {
            mkfifo(pipe, Mode::from_bits_truncate(0o666))?;
        }
        // Both ends of each are held here, so that the worker never waits for somebody to open the other.
        let both = OpenOptions::new().read_write(true).clone();
        Ok(Gate { path, reached: both.open_receiver(reached)?, open: both.open_sender(open)? })
    }

    /// What a plan says of this gate.
    pub fn holds(&self) -> Does {
        Does::Wait(self.path.clone())
    }

    /// Waits until a worker stands there; each that comes is told once.
    ///
    /// # Errors
    /// [`NotReached`].
    pub async fn reached(&mut self, within: Duration) -> crate::world::Result<()> {
        match tokio::time::timeout(within, self.reached.read_exact(&mut [0])).await {
            Ok(read) => Ok(read.map(drop)?),
            Err(_) => Err(NotReached { gate: self.path.clone(), within }.into()),
        }
    }

    /// Lets one worker pass: the one that stands there, or else the next that comes.
    ///
    /// # Errors
    /// More were let pass than the pipe holds.
    pub fn open(&self) -> io::Result<()> {
        self.open.try_write(&[0]).map(drop)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        for end in ["reached", "open"] {
            let _ = std::fs::remove_file(self.path.with_extension(end));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bumpless_worker::faults::lever::Lever;
    use bumpless_worker::faults::{Faults, Place, Script, Step};

    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn who_comes_to_a_gate_waits_until_it_is_opened_or_gone() {
        let folder = tempfile::tempdir().unwrap();
        let [mut one, mut two, three] = ["1", "2", "3"].map(|name| Gate::new(folder.path(), name).unwrap());
        let plan = [&one, &two, &three]
            .into_iter()
            .fold(Faults::default(), |plan, gate| plan.at(Step::Cut, Place::Before, gate.holds()));
        drop(three);
        let (script, _deeds) = Script::new(&plan, Lever::default());
        let walking = tokio::spawn(async move { script.reach(Step::Cut, Place::Before).await });
        one.reached(SOON).await.unwrap();
        assert!(two.reached(Duration::from_millis(50)).await.is_err(), "the first gate is still shut");
        one.open().unwrap();
        two.reached(SOON).await.unwrap();
        assert!(!walking.is_finished());
        drop(two);
        assert!(walking.await.unwrap().is_empty());
    }
}

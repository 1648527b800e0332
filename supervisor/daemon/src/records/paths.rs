//! Where everything lies.

use std::path::{Path, PathBuf};

use bumpless_os::durable::create_dirs;

use super::file::RecordError;

/// The supervisor's two directories and the names in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    state_dir: PathBuf,
    run_dir: PathBuf,
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $dir:ident / $file:literal,)*) => {
        $($(#[$doc])* pub fn $name(&self) -> PathBuf { self.$dir.join($file) })*
    };
}

impl Paths {
    /// Names below these two.
    pub fn new(state_dir: impl Into<PathBuf>, run_dir: impl Into<PathBuf>) -> Paths {
        Paths { state_dir: state_dir.into(), run_dir: run_dir.into() }
    }

    /// What has to survive.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Sockets.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    names! {
        /// Held by the supervisor for life.
        lock = state_dir / "lock",
        /// The pair that a start opens.
        committed = state_dir / "committed",
        /// Installed releases.
        releases = state_dir / "releases",
        /// Link to the committed release's directory.
        current = state_dir / "current",
        /// Link to the directory of the one before.
        previous = state_dir / "previous",
        /// What the supervisor is in the middle of.
        journal = state_dir / "journal",
        /// One line per thing that happened.
        history = state_dir / "history.jsonl",
        /// Releases that failed here.
        quarantine = state_dir / "quarantine",
        /// Tries that failed.
        attempts = state_dir / "attempts",
        /// An operator's "not now".
        hold = state_dir / "hold",
        /// Highest numbers handed out.
        numbers = state_dir / "numbers",
        /// The same again.
        numbers_twin = state_dir / "numbers.2",
        /// Keys that all workers share.
        routing = state_dir / "routing",
        /// Verified metadata.
        trust = state_dir / "trust",
        /// What is being fetched; on the same file system as `releases`.
        staging = state_dir / "staging",
        /// A lock and an output file for each worker.
        alive = state_dir / "alive",
        /// The workers' own; the supervisor makes it, has it belong to their user, and does nothing else below it.
        state = state_dir / "state",
        /// There while `state` is being handed over to another user.
        handover = state_dir / "state.handover",
        /// The operator's command connects here.
        control_socket = run_dir / "control.sock",
        /// Workers come back here after the supervisor was replaced.
        reconnect_socket = run_dir / "workers.sock",
    }

    /// Makes the directories that are not there.
    ///
    /// # Errors
    /// The first one that cannot be made.
    pub fn create(&self) -> Result<(), RecordError> {
        let dirs = [
            self.state_dir.clone(),
            self.run_dir.clone(),
            self.releases(),
            self.trust(),
            self.staging(),
            self.alive(),
            self.state(),
        ];
        for path in dirs {
            create_dirs(&path).map_err(|source| RecordError::Write { what: "directory", path, source })?;
        }
        Ok(())
    }
}

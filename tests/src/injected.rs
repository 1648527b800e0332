//! Faults that the kernel does not make for us on demand: a sync that fails, a wall clock that jumps.
//!
//! They are injected below the product, in `bumpless_os::faults`, which only this package's feature
//! switches on; a world's programs look at one file for what is to go wrong.

use std::io;
use std::path::{Path, PathBuf};

use bumpless_os::durable;

/// A world's file of injected faults.
#[derive(Clone, Debug)]
pub struct Injected {
    path: PathBuf,
}

impl Injected {
    /// The environment variable that names the file.
    pub const VARIABLE: &str = "BUMPLESS_INJECTED";

    /// With its file in this folder; nothing goes wrong until something is asked for.
    pub(crate) fn below(folder: &Path) -> Injected {
        Injected { path: folder.join("injected") }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From now on, the `nth` sync in each process of a path that contains `part` (or, after a `=`, is it)
    /// fails, and what it was to make durable is lost. Later ones succeed.
    ///
    /// # Errors
    /// Those of writing.
    pub fn fail_sync(&self, part: &str, nth: u64) -> io::Result<()> {
        self.add(&format!("sync {nth} {part}"))
    }

    /// From now on, each process stops itself before its `nth` sync of a path that contains `part`.
    ///
    /// # Errors
    /// Those of writing.
    pub fn stop_at_sync(&self, part: &str, nth: u64) -> io::Result<()> {
        self.add(&format!("stop {nth} {part}"))
    }

    /// The supervisor's wall clock is so many seconds ahead of the machine's from now on.
    ///
    /// # Errors
    /// Those of writing.
    pub fn step_clock(&self, seconds: i64) -> io::Result<()> {
        self.add(&format!("clock {seconds}"))
    }

    /// Nothing goes wrong any more.
    ///
    /// # Errors
    /// Those of writing.
    pub fn cease(&self) -> io::Result<()> {
        durable::replace(&self.path, b"", 0o644)
    }

    fn add(&self, line: &str) -> io::Result<()> {
        let mut text = std::fs::read_to_string(&self.path).unwrap_or_default();
        // A number that no other line has: the same fault asked for again is another one.
        let number = text.lines().count();
        text.push_str(&format!("{number} {line}\n"));
        durable::replace(&self.path, text.as_bytes(), 0o644)
    }
}

//! The `state/` directory: where things are, and how whole things go away.
//!
//! ```text
//! state/
//!   gen-<n>/          one generation: `generation` (says which layout), `db/`, `chunks/`
//!   gen-<n>.making/   one that was being made when its maker ended; never used, wiped
//!   log/<term>/       logbook segments
//!   log/<term>.going/ one that was being removed when its remover ended; never read, removed again
//!   refused/          records that a follower could not accept, byte for byte
//! ```
//!
//! A generation comes into being by one rename and is opened only with its `generation` file, which
//! is the first thing to go when it is removed. A logbook goes by one rename, too. So a half-made or
//! half-removed one is never taken for a whole one.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bumpless_os::disk;
use bumpless_shared::control::{Generation, Term};

/// The file that makes a generation one.
pub(super) const MARKER: &str = "generation";

/// Behind the term of a logbook that is being removed.
const GOING: &str = ".going";

/// Something that was to be done to a file or directory and failed.
#[derive(Debug)]
pub struct FileError {
    /// What was being done, as in "cannot … ".
    pub doing: &'static str,
    /// To what.
    pub path: PathBuf,
    /// The system's answer.
    pub source: io::Error,
}

impl FileError {
    /// For `map_err`.
    pub fn at(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> FileError {
        let path = path.into();
        move |source| FileError { doing, path, source }
    }

    /// Whether the disk (or a quota) is full.
    pub fn is_no_room(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.doing, self.path.display(), self.source)
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Why something was not removed.
#[derive(Debug)]
pub enum RemoveError {
    /// It is the generation of the worker that was asked.
    OwnGeneration {
        /// Its number.
        generation: Generation,
    },
    /// The system refused.
    File(FileError),
}

impl From<FileError> for RemoveError {
    fn from(error: FileError) -> Self {
        RemoveError::File(error)
    }
}

impl fmt::Display for RemoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RemoveError::OwnGeneration { generation } => {
                write!(f, "generation {generation} is in use by this worker and was not removed")
            }
            RemoveError::File(error) => write!(f, "{error}; nothing that is in use was touched, try again"),
        }
    }
}

impl std::error::Error for RemoveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RemoveError::OwnGeneration { .. } => None,
            RemoveError::File(error) => Some(error),
        }
    }
}

/// The path of `state/`; all the names in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// Names a directory; it need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> StateDir {
        StateDir(path.into())
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// One generation.
    pub fn generation(&self, generation: Generation) -> PathBuf {
        self.0.join(format!("gen-{generation}"))
    }

    /// The chunk files of one generation.
    pub fn chunks(&self, generation: Generation) -> PathBuf {
        self.generation(generation).join("chunks")
    }

    /// What is being sorted for a generation that is being filled.
    pub(super) fn runs(&self, generation: Generation) -> PathBuf {
        self.generation(generation).join("runs")
    }

    /// All logbooks.
    pub fn logs(&self) -> PathBuf {
        self.0.join("log")
    }

    /// The segments of one term.
    pub fn log(&self, term: Term) -> PathBuf {
        self.logs().join(term.to_string())
    }

    /// Records that could not be accepted.
    pub fn refused(&self) -> PathBuf {
        self.0.join("refused")
    }

    /// Where a generation is made before it is renamed into place.
    pub(super) fn making(&self, generation: Generation) -> PathBuf {
        self.0.join(format!("gen-{generation}.making"))
    }

    /// The numbers of the generations on the disk, rising; also those that are half removed.
    pub fn list_generations(&self) -> Result<Vec<Generation>, FileError> {
        numbers(&self.0, |name| name.strip_prefix("gen-"))
    }

    /// The terms of which something is to be removed, rising: those of the logbooks on the disk, and of what is
    /// left of others whose remover was killed.
    pub fn list_remains(&self) -> Result<Vec<Term>, FileError> {
        let mut terms = numbers(&self.logs(), |name| Some(name.strip_suffix(GOING).unwrap_or(name)))?;
        terms.dedup();
        Ok(terms)
    }

    /// The terms whose logbooks are on the disk, rising.
    pub fn list_logs(&self) -> Result<Vec<Term>, FileError> {
        numbers(&self.logs(), |name| Some(name))
    }

    /// Removes the logbook of one term. Removing what is not there is no error.
    pub fn remove_log(&self, term: Term) -> Result<(), RemoveError> {
        let logs = self.logs();
        let going = logs.join(format!("{term}{GOING}"));
        match disk::rename(&self.log(term), &going) {
            Ok(()) => sync_directory(&logs)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Remains of an earlier removal stand in the way: they go first, then this one.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                remove_tree(&going)?;
                disk::rename(&self.log(term), &going).map_err(FileError::at("remove", self.log(term)))?;
            }
            Err(error) => return Err(FileError::at("remove", self.log(term))(error).into()),
        }
        remove_tree(&going)?;
        match sync_directory(&logs) {
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(RemoveError::from),
        }
    }

    /// Removes a generation that is not `own`. Removing what is not there is no error.
    pub fn remove_generation(&self, generation: Generation, own: Generation) -> Result<(), RemoveError> {
        if generation == own {
            return Err(RemoveError::OwnGeneration { generation });
        }
        let path = self.generation(generation);
        let marker = path.join(MARKER);
        match disk::remove_file(&marker) {
            Ok(()) => sync_directory(&path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(FileError::at("remove", marker)(error).into()),
        }
        remove_tree(&path)?;
        remove_tree(&self.making(generation))?;
        sync_directory(&self.0)?;
        Ok(())
    }
}

fn numbers(directory: &Path, number: impl Fn(&str) -> Option<&str>) -> Result<Vec<u64>, FileError> {
    let failed = || FileError::at("list", directory);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed()(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed())?;
        // Only the canonical form counts: what we would not write is not ours.
        if let Some(digits) = entry.file_name().to_str().and_then(&number)
            && let Ok(value) = digits.parse::<u64>()
            && value.to_string() == digits
        {
            found.push(value);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Makes what was created, renamed or removed in a directory durable.
pub(super) fn sync_directory(path: &Path) -> Result<(), FileError> {
    disk::sync_dir(path).map_err(FileError::at("sync", path))
}

/// Makes a directory unless it is there, and its name durable.
pub(super) fn make_directory(path: &Path) -> Result<(), FileError> {
    match disk::create_dir(path) {
        Ok(()) => path.parent().map_or(Ok(()), sync_directory),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(FileError::at("make", path)(error)),
    }
}

pub(super) fn remove_tree(path: &Path) -> Result<(), FileError> {
    match disk::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(FileError::at("remove", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn only_names_that_we_would_write_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        assert_eq!(state.list_logs().unwrap(), Vec::<u64>::new());
        for name in
            ["gen-2", "gen-10", "gen-010", "gen-x", "gen-3.making", "log", "log/7", "log/8.going", "log/+9"]
        {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        assert_eq!(state.list_generations().unwrap(), [2, 10]);
        assert_eq!(state.list_logs().unwrap(), [7]);
        fs::create_dir(dir.path().join("log/7.going")).unwrap();
        assert_eq!(state.list_remains().unwrap(), [7, 8]);
    }

    #[test]
    fn removing_twice_is_removing_once_and_the_own_generation_stays() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        for sub in ["gen-1/chunks", "gen-2", "log/5"] {
            fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        fs::write(dir.path().join("gen-1").join(MARKER), "").unwrap();
        fs::write(dir.path().join("log/5/x"), "").unwrap();
        // An earlier removal of the same logbook ended half-way.
        fs::create_dir_all(dir.path().join("log/5.going/y")).unwrap();
        for _ in 0..2 {
            state.remove_log(5).unwrap();
            state.remove_generation(1, 2).unwrap();
            assert_eq!(state.list_logs().unwrap(), Vec::<u64>::new());
            assert_eq!(state.list_generations().unwrap(), [2]);
        }
        assert!(matches!(state.remove_generation(2, 2), Err(RemoveError::OwnGeneration { generation: 2 })));
        assert!(state.generation(2).exists());
        assert!(!dir.path().join("log/5.going").exists());
    }
}

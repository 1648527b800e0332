//! What a node has at rest, and what it has too much of.

use std::fs;
use std::path::{Path, PathBuf};

use bumpless_control::status::Status;

use crate::leftovers;
use crate::process;
use crate::world::{Result, World};

/// One look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Of the node, with what they are.
    pub processes: Vec<i32>,
    /// Those that should be there: supervisor and worker.
    pub expected: Vec<i32>,
    /// `gen-*` folders.
    pub generations: Vec<String>,
    /// Logbooks.
    pub logbooks: Vec<String>,
    /// Records that were refused.
    pub refused: Vec<String>,
    /// Installed releases.
    pub releases: Vec<String>,
    /// Files below `alive/`.
    pub alive: Vec<String>,
    /// Downloads that were interrupted: the last one is kept, to be gone on with.
    pub interrupted: Vec<String>,
    /// What else there is of what was being fetched.
    pub staging: Vec<String>,
    /// Descriptors of the supervisor.
    pub supervisor: usize,
    /// Descriptors of the worker that are no files: files are its database's, which change.
    pub worker: usize,
    /// Descriptors of the worker to files that a node at rest does not have.
    pub strange: Vec<String>,
    /// Mounts that this process sees.
    pub mounts: usize,
}

impl Left {
    /// Looks.
    ///
    /// # Errors
    /// A process that should be there has ended, or a folder is not there.
    pub fn look(world: &mut World, status: &Status) -> Result<Left> {
        let serving = status.serving.as_ref().ok_or("nobody serves")?.pid;
        let supervisor = world.supervisor()?.pid();
        let mut expected = vec![serving, supervisor.cast_signed()];
        expected.sort_unstable();
        let mut processes = leftovers::of(world.folder())?;
        processes.sort_unstable();
        let state = world.seen(world.state_dir());
        let workers = state.join("state");
        let (files, others) = descriptors(serving)?;
        let (interrupted, staging) =
            names(&state.join("staging"))?.into_iter().partition(|name| name.ends_with(".part"));
        let strange =
            files.into_iter().filter(|path| path.starts_with(world.state_dir().join("state/log"))).map(shown);
        Ok(Left {
            processes,
            expected,
            generations: names(&workers)?.into_iter().filter(|name| name.starts_with("gen-")).collect(),
            logbooks: names(&workers.join("log"))?,
            refused: names(&workers.join("refused"))?,
            releases: names(&state.join("releases"))?,
            alive: names(&state.join("alive"))?,
            interrupted,
            staging,
            supervisor: process::descriptors(supervisor)?,
            worker: others,
            strange: strange.collect(),
            mounts: fs::read_to_string("/proc/self/mounts")?.lines().count(),
        })
    }

    /// What there is too much of; descriptors are held against those of an earlier rest.
    pub fn too_much(&self, rest: Option<&Left>) -> Option<String> {
        let one = |what: &str, names: &[String], limit: usize| {
            (names.len() > limit).then(|| format!("{} {what}: {}", names.len(), names.join(", ")))
        };
        if self.processes != self.expected {
            let (are, should) = (&self.processes, &self.expected);
            return Some(format!("processes {are:?}, which should be {should:?}"));
        }
        // A worker has a file that it locks and one that it writes to.
        let lists = one("generations", &self.generations, 1)
            .or_else(|| one("logbooks", &self.logbooks, 0))
            .or_else(|| one("refused records", &self.refused, 0))
            .or_else(|| one("releases", &self.releases, 2))
            .or_else(|| one("files in alive/", &self.alive, 2))
            .or_else(|| one("interrupted downloads", &self.interrupted, 1))
            .or_else(|| one("files in staging/", &self.staging, 0))
            .or_else(|| one("open logbooks", &self.strange, 0));
        let Some(rest) = rest else { return lists };
        let more =
            |what: &str, is: usize, was: usize| (is > was).then(|| format!("{is} {what}, there were {was}"));
        lists
            .or_else(|| more("descriptors of the supervisor", self.supervisor, rest.supervisor))
            .or_else(|| more("descriptors of the worker that are no files", self.worker, rest.worker))
            .or_else(|| more("mounts", self.mounts, rest.mounts))
    }
}

/// The files that a process has open, and how many descriptors it has beside them.
fn descriptors(pid: i32) -> Result<(Vec<PathBuf>, usize)> {
    let (mut files, mut others) = (Vec::new(), 0);
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // One that is closed meanwhile is none.
        match fs::read_link(entry?.path()) {
            Ok(path) if path.is_absolute() => files.push(path),
            Ok(_) => others += 1,
            Err(_) => {}
        }
    }
    Ok((files, others))
}

/// Names in a folder, sorted; a folder that is not there has none.
fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn shown(path: PathBuf) -> String {
    path.display().to_string()
}

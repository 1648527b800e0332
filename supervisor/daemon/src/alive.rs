//! Who lives: one file per worker, on which the worker holds a record lock from before its hello until
//! its end.
//!
//! ```text
//!   alive/7       locked by instance 7 for life; the kernel names the holder and frees it at its end
//!   alive/7.out   what instance 7 writes to stdout and stderr
//! ```
//!
//! A supervisor that starts asks here, not in a list of process numbers, whom it has to hear or to end.
//! A number is turned into a [`Process`] by two looks: the lock's holder, a pidfd of that number, and
//! the lock's holder again. Had the process ended in between and its number been given to somebody
//! else, the lock would be free or somebody else's at the second look.
//!
//! A worker that was started and has not locked yet shows as nobody. It has not had its first order
//! then, and ends when it finds its control channel closed.
//!
//! The supervisor locks none of these files itself, so that it may open and close them as it likes.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bumpless_os::lock;
use bumpless_os::process::Process;
use bumpless_shared::control::{Instance, alive_file};

use crate::launch::Output;
use crate::records::paths::Paths;

/// Looks at a lock whose holder changes each time; more is no coincidence.
const LOOKS: usize = 16;

/// The directory.
#[derive(Clone, Debug)]
pub struct Alive {
    dir: PathBuf,
}

/// A worker that lives, for certain.
#[derive(Debug)]
pub struct Holder {
    /// Its number.
    pub instance: Instance,
    /// Its process, as a number to show.
    pub pid: i32,
    /// Its process.
    pub process: Process,
}

/// What a worker to be started needs from here.
#[derive(Debug)]
pub struct Files {
    /// To be handed to it with its first order; it takes the lock.
    pub alive: File,
    /// Where it writes.
    pub output: Output,
}

/// Why it cannot be said who lives.
#[derive(Debug)]
pub enum AliveError {
    /// A file or the directory.
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The lock is held by a process that has no number here (another container shares the directory).
    Nameless {
        /// The file.
        path: PathBuf,
    },
    /// The lock went from process to process while it was looked at.
    Restless {
        /// The file.
        path: PathBuf,
    },
}

impl fmt::Display for AliveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AliveError::Io { path, source } => {
                write!(
                    f,
                    "cannot tell which workers live: {}: {source}; none is started meanwhile",
                    path.display()
                )
            }
            AliveError::Nameless { path } => write!(
                f,
                "{} is locked by a process outside of what this supervisor can see; no worker is started beside it. \
                 End it where it runs, or give this supervisor a state_dir of its own",
                path.display()
            ),
            AliveError::Restless { path } => {
                write!(f, "{} changes its holder all the time; it is looked at again", path.display())
            }
        }
    }
}

impl std::error::Error for AliveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            AliveError::Io { source, .. } => Some(source),
            AliveError::Nameless { .. } | AliveError::Restless { .. } => None,
        }
    }
}

impl Alive {
    /// The directory of this node; [`Paths::create`] makes it.
    pub fn new(paths: &Paths) -> Alive {
        Alive { dir: paths.alive() }
    }

    /// Files for a worker that is to be started.
    ///
    /// # Errors
    /// The file cannot be made, or is there: instances are never used twice.
    pub fn create(&self, instance: Instance) -> Result<Files, AliveError> {
        let path = self.path(instance);
        let mut options = OpenOptions::new();
        let alive =
            options.read(true).write(true).create_new(true).mode(0o600).open(&path).map_err(io(&path))?;
        Ok(Files { alive, output: self.output(instance) })
    }

    /// What a worker wrote.
    pub fn output(&self, instance: Instance) -> Output {
        Output::new(self.dir.join(format!("{}.out", alive_file(instance))))
    }

    /// Every worker that has a file here, living or not, by number.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn instances(&self) -> Result<Vec<Instance>, AliveError> {
        let mut instances = Vec::new();
        for entry in std::fs::read_dir(&self.dir).map_err(io(&self.dir))? {
            let name = entry.map_err(io(&self.dir))?.file_name();
            let number: Option<Instance> =
                name.to_str().and_then(|name| name.strip_suffix(".out").unwrap_or(name).parse().ok());
            instances.extend(number);
        }
        instances.sort_unstable();
        instances.dedup();
        Ok(instances)
    }

    /// Every worker that lives, by number.
    ///
    /// # Errors
    /// As for [`holder`](Self::holder), and the directory cannot be read.
    pub fn holders(&self) -> Result<Vec<Holder>, AliveError> {
        self.instances()?.into_iter().filter_map(|instance| self.holder(instance).transpose()).collect()
    }

    /// Whether a worker lives.
    ///
    /// # Errors
    /// It cannot be said: no worker may be started that relies on this one being dead.
    pub fn holder(&self, instance: Instance) -> Result<Option<Holder>, AliveError> {
        let path = self.path(instance);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(AliveError::Io { path, source }),
        };
        for _ in 0..LOOKS {
            let Some(pid) = lock::holder(&file).map_err(io(&path))? else { return Ok(None) };
            if pid <= 0 {
                return Err(AliveError::Nameless { path });
            }
            let process = match Process::open(pid) {
                Ok(process) => process,
                Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ESRCH as i32) => continue,
                Err(source) => return Err(AliveError::Io { path, source }),
            };
            if lock::holder(&file).map_err(io(&path))? == Some(pid) {
                return Ok(Some(Holder { instance, pid, process }));
            }
        }
        Err(AliveError::Restless { path })
    }

    /// Removes the files of a worker that does not live; `false` where it does.
    ///
    /// # Errors
    /// It cannot be said, or a file cannot be removed.
    pub fn remove(&self, instance: Instance) -> Result<bool, AliveError> {
        if self.holder(instance)?.is_some() {
            return Ok(false);
        }
        for path in [self.output(instance).path().to_owned(), self.path(instance)] {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(io(&path))?,
            }
        }
        Ok(true)
    }

    /// Removes the files of all workers that do not live, except of those in `keep` (just started, or
    /// their output is still wanted).
    ///
    /// # Errors
    /// As for [`remove`](Self::remove), at the first.
    pub fn remove_dead(&self, keep: &[Instance]) -> Result<(), AliveError> {
        for instance in self.instances()? {
            if !keep.contains(&instance) {
                self.remove(instance)?;
            }
        }
        Ok(())
    }

    fn path(&self, instance: Instance) -> PathBuf {
        self.dir.join(alive_file(instance))
    }
}

fn io(path: &Path) -> impl Fn(io::Error) -> AliveError {
    let path = path.to_owned();
    move |source| AliveError::Io { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::{Read, Write};
    use std::process::{Child, Command, Stdio};

    fn alive(dir: &Path) -> Alive {
        let paths = Paths::new(dir, dir.join("run"));
        paths.create().unwrap();
        Alive::new(&paths)
    }

    /// A process that holds the lock; `None` where nothing here can do that.
    fn lock_elsewhere(path: &Path) -> Option<Child> {
        let code = "import fcntl,sys; f=open(sys.argv[1],'r+'); fcntl.lockf(f,fcntl.LOCK_EX); print('x',flush=True); sys.stdin.read()";
        let spawned = Command::new("python3")
            .args(["-c", code])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut child) = spawned else {
            assert!(std::env::var_os("BUMPLESS_REQUIRE_ALL").is_none(), "python3 is needed to hold a lock");
            writeln!(io::stderr(), "left out: a test that needs python3 to hold a lock").unwrap();
            return None;
        };
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        Some(child)
    }

    #[test]
    fn a_worker_lives_as_long_as_its_lock_is_held_and_its_files_stay_so_long() {
        let dir = tempfile::tempdir().unwrap();
        let alive = alive(dir.path());
        let files = alive.create(7).unwrap();
        std::fs::write(files.output.path(), b"hello").unwrap();
        assert!(alive.holder(7).unwrap().is_none());
        let Some(mut child) = lock_elsewhere(&dir.path().join("alive/7")) else { return };
        let [holder] = <[Holder; 1]>::try_from(alive.holders().unwrap()).unwrap();
        assert_eq!((holder.instance, holder.pid), (7, child.id() as i32));
        assert!(!alive.remove(7).unwrap());
        alive.remove_dead(&[]).unwrap();
        assert_eq!(alive.output(7).tail(), "hello");
        holder.process.kill().unwrap();
        child.wait().unwrap();
        assert!(alive.holders().unwrap().is_empty());
        alive.remove_dead(&[7]).unwrap();
        assert_eq!(alive.instances().unwrap(), [7]);
        alive.remove_dead(&[]).unwrap();
        assert_eq!(std::fs::read_dir(dir.path().join("alive")).unwrap().count(), 0);
    }

    #[test]
    fn an_instance_is_never_used_twice() {
        let dir = tempfile::tempdir().unwrap();
        let alive = alive(dir.path());
        alive.create(7).unwrap();
        assert!(matches!(alive.create(7), Err(AliveError::Io { .. })));
    }

    #[test]
    fn a_strangers_file_is_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let alive = alive(dir.path());
        std::fs::write(dir.path().join("alive/notes.txt"), b"").unwrap();
        assert!(alive.instances().unwrap().is_empty() && alive.holders().unwrap().is_empty());
        assert!(alive.holder(8).unwrap().is_none() && alive.remove(8).unwrap());
    }
}

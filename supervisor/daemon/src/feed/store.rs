//! `trust/`: verified metadata, byte for byte.
//!
//! ```text
//!   trust/<root|timestamp|index>/<version>.json        the file; its being there is what counts
//!   trust/<root|timestamp|index>/<version>.json.sigs   written before it, removed after it
//! ```
//!
//! A kill between any two steps, or a power loss, leaves either a `.sigs` that nothing refers to, or two
//! versions of one role; a load verifies all that it finds and repeats what was left undone.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bumpless_os::disk::{self, sync_dir};
use bumpless_os::durable::{create_dirs, replace};
use bumpless_trust::document::{MAX_DOCUMENT, MAX_SIGNATURES};
use bumpless_trust::{Keep, Role, Signed, Stored};

use super::error::FeedError;

#[derive(Clone, Debug)]
pub(super) struct Store {
    dir: PathBuf,
}

const MODE: u32 = 0o644;
const FILE: &str = ".json";
const SIGNATURES: &str = ".json.sigs";

/// The administrator's root and the `.sigs` beside it.
pub(super) fn anchor(path: &Path) -> Result<Signed, FeedError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| FeedError::Root { path, source }
    };
    let sigs = sigs(path);
    let bytes = read(path, MAX_DOCUMENT).map_err(failed(path))?;
    let signatures = read(&sigs, MAX_SIGNATURES).map_err(failed(&sigs))?;
    Ok(Signed { bytes, signatures })
}

impl Store {
    pub(super) fn new(dir: &Path) -> Store {
        Store { dir: dir.to_owned() }
    }

    pub(super) fn load(&self) -> Result<Stored, FeedError> {
        Ok(Stored {
            roots: self.all(Role::Root)?,
            timestamps: self.all(Role::Timestamp)?,
            indexes: self.all(Role::Release)?,
        })
    }

    /// Makes one change durable. Made again, it changes nothing.
    pub(super) fn keep(&self, change: Keep) -> Result<(), FeedError> {
        match change {
            Keep::Put(role, version, signed) => {
                let dir = self.role(role);
                create_dirs(&dir).map_err(failed(&dir))?;
                let path = file(&dir, version);
                let sigs = sigs(&path);
                replace(&sigs, &signed.signatures, MODE).map_err(failed(&sigs))?;
                replace(&path, &signed.bytes, MODE).map_err(failed(&path))
            }
            Keep::Forget(role) => self.remove(role, |_| true),
            Keep::DropOlder(role, kept) => self.remove(role, |version| version < kept),
        }
    }

    fn role(&self, role: Role) -> PathBuf {
        self.dir.join(role.file())
    }

    /// The versions of which there is a file with this ending, lowest first.
    fn versions(&self, role: Role, ending: &str) -> Result<Vec<u64>, FeedError> {
        let dir = self.role(role);
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(&dir)(error)),
        };
        let mut versions = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed(&dir))?.file_name();
            // Everything else is a step that was never finished, and is written over one day.
            let version = name.to_str().and_then(|name| name.strip_suffix(ending)?.parse::<u64>().ok());
            versions.extend(version);
        }
        versions.sort_unstable();
        Ok(versions)
    }

    fn all(&self, role: Role) -> Result<Vec<Signed>, FeedError> {
        let dir = self.role(role);
        let mut all = Vec::new();
        for version in self.versions(role, FILE)? {
            let path = file(&dir, version);
            let sigs = sigs(&path);
            let bytes = read(&path, MAX_DOCUMENT).map_err(failed(&path))?;
            let signatures = match read(&sigs, MAX_SIGNATURES) {
                Ok(signatures) => signatures,
                // Without signatures it is not verified, and said to be damaged.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                Err(error) => return Err(failed(&sigs)(error)),
            };
            all.push(Signed { bytes, signatures });
        }
        Ok(all)
    }

    fn remove(&self, role: Role, which: impl Fn(u64) -> bool) -> Result<(), FeedError> {
        let dir = self.role(role);
        // The files first, durably: one whose signatures alone are gone would be taken for damaged.
        for ending in [FILE, SIGNATURES] {
            for version in self.versions(role, ending)?.into_iter().filter(|version| which(*version)) {
                let path = dir.join(format!("{version}{ending}"));
                match disk::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(failed(&path)(error));
                    }
                    Ok(()) | Err(_) => {}
                }
            }
            match sync_dir(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&dir)(error)),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

fn file(dir: &Path, version: u64) -> PathBuf {
    dir.join(format!("{version}{FILE}"))
}

fn sigs(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sigs");
    name.into()
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> FeedError + use<> {
    let path = path.to_owned();
    move |source| FeedError::Store { path, source }
}

/// At most one byte more than allowed.
fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

//! `trust/`: verified metadata, byte for byte.
//!
//! ```text
//!   trust/root/<version>.json                          the file; its being there is what counts
//!   trust/<timestamp|index>/<channel>/<version>.json   each channel's apart: one that is come back to
//!                                                      still has the highest versions that were seen
//!   …/<version>.json.sigs                              written before it, removed after it
//!   trust/reset                                        an administrator's new beginning: what it says is
//!                                                      done before anything else is read
//! ```
//!
//! A kill between any two steps, or a power loss, leaves either a `.sigs` that nothing refers to, or two
//! versions of one role; a load verifies all that it finds and repeats what was left undone. A reset is one
//! small file until everything before it is forgotten and its root is kept: the old trust stands whole before
//! that file is there, the new one from then on.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bincode::{Decode, Encode};
use bumpless_os::disk::{self, sync_dir};
use bumpless_os::durable::{create_dirs, replace};
use bumpless_trust::document::{Channel, MAX_DOCUMENT, MAX_SIGNATURES};
use bumpless_trust::{Keep, Role, Signed, Stored};
use nix::fcntl::OFlag;

use super::error::FeedError;
use crate::records::file::{RecordError, RecordFile};

#[derive(Clone, Debug)]
pub(super) struct Store {
    dir: PathBuf,
    channel: Channel,
}

/// An administrator's new beginning. Its root was verified before it was written.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Reset {
    /// User id of who asked for it.
    pub(super) by: u32,
    /// Of the root.
    pub(super) version: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) signatures: Vec<u8>,
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
    pub(super) fn new(dir: &Path, channel: &Channel) -> Store {
        Store { dir: dir.to_owned(), channel: channel.clone() }
    }

    /// Writes down a new beginning, durably: from then on the next [`Store::finish_reset`] makes it so.
    pub(super) fn begin_reset(&self, reset: &Reset) -> Result<(), FeedError> {
        create_dirs(&self.dir).map_err(failed(&self.dir))?;
        match self.reset().store(reset) {
            // It is there; whoever finishes it makes sure first that it stays.
            Ok(()) | Err(RecordError::Unsynced { .. }) => Ok(()),
            Err(
                error @ (RecordError::Read { .. } | RecordError::Write { .. } | RecordError::Damaged { .. }),
            ) => Err(FeedError::Reset(error)),
        }
    }

    /// Whether one was written down, and is not finished.
    pub(super) fn is_resetting(&self) -> Result<bool, FeedError> {
        Ok(self.begun()?.is_some())
    }

    fn begun(&self) -> Result<Option<Reset>, FeedError> {
        // Where nothing was ever kept there is nothing to begin anew.
        if self.dir.is_dir() { self.reset().load().map_err(FeedError::Reset) } else { Ok(None) }
    }

    /// Does what a reset that was written down says. Interrupted anywhere, it is done again from its start.
    pub(super) fn finish_reset(&self) -> Result<Option<Reset>, FeedError> {
        let Some(reset) = self.begun()? else { return Ok(None) };
        let root = Signed { bytes: reset.bytes.clone(), signatures: reset.signatures.clone() };
        self.keep(Keep::Forget(Role::Timestamp))?;
        self.keep(Keep::Forget(Role::Release))?;
        self.keep(Keep::Put(Role::Root, reset.version, root))?;
        self.keep(Keep::DropOthers(Role::Root, Some(reset.version)))?;
        self.reset().remove().map_err(FeedError::Reset)?;
        Ok(Some(reset))
    }

    fn reset(&self) -> RecordFile<Reset> {
        RecordFile::new(self.dir.join("reset"), "trust reset", 1)
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
                let dir = self.folder(role);
                create_dirs(&dir).map_err(failed(&dir))?;
                let path = file(&dir, version);
                let sigs = sigs(&path);
                replace(&sigs, &signed.signatures, MODE).map_err(failed(&sigs))?;
                replace(&path, &signed.bytes, MODE).map_err(failed(&path))
            }
            Keep::Forget(role) => self.folders(role)?.iter().try_for_each(|folder| remove(folder, |_| true)),
            Keep::DropOlder(role, kept) => remove(&self.folder(role), |version| version < kept),
            Keep::DropOthers(role, kept) => remove(&self.folder(role), |version| Some(version) != kept),
        }
    }

    /// Where the files of this role lie that count: those of the channel that is followed.
    fn folder(&self, role: Role) -> PathBuf {
        let dir = self.dir.join(role.file());
        match role {
            Role::Root => dir,
            Role::Timestamp | Role::Release => dir.join(self.channel.to_string()),
        }
    }

    /// Where files of this role lie, of whatever channel.
    fn folders(&self, role: Role) -> Result<Vec<PathBuf>, FeedError> {
        let dir = self.dir.join(role.file());
        match role {
            Role::Root => Ok(vec![dir]),
            Role::Timestamp | Role::Release => {
                let mut folders: Vec<_> = names(&dir)?.iter().map(|name| dir.join(name)).collect();
                folders.retain(|folder| folder.is_dir());
                Ok(folders)
            }
        }
    }

    fn all(&self, role: Role) -> Result<Vec<Signed>, FeedError> {
        let dir = self.folder(role);
        let mut all = Vec::new();
        for version in versions(&dir, FILE)? {
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
}

/// The names in a folder, in their order; none where there is no folder.
fn names(dir: &Path) -> Result<Vec<OsString>, FeedError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(dir)(error)),
    };
    let names: io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.file_name())).collect();
    let mut names = names.map_err(failed(dir))?;
    names.sort_unstable();
    Ok(names)
}

/// The versions of which there is a file with this ending, lowest first.
fn versions(dir: &Path, ending: &str) -> Result<Vec<u64>, FeedError> {
    // Everything else is a step that was never finished, and is written over one day.
    let version = |name: &OsString| name.to_str()?.strip_suffix(ending)?.parse::<u64>().ok();
    let mut versions: Vec<_> = names(dir)?.iter().filter_map(version).collect();
    versions.sort_unstable();
    Ok(versions)
}

fn remove(dir: &Path, which: impl Fn(u64) -> bool) -> Result<(), FeedError> {
    // The files first, durably: one whose signatures alone are gone would be taken for damaged.
    for ending in [FILE, SIGNATURES] {
        for version in versions(dir, ending)?.into_iter().filter(|version| which(*version)) {
            let path = dir.join(format!("{version}{ending}"));
            match disk::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(&path)(error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        match sync_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(dir)(error)),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
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

/// At most one byte more than allowed. A named pipe in a file's place must not hang the supervisor.
fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    file.take(limit + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

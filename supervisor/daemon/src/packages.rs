//! Workers that the system's packages brought: the second authority, the machine's administrator.
//!
//! ```text
//!   /usr/lib/bumpless/workers/NAME.json   the declaration: which release, which bytes, which ranges
//!                             NAME        the worker
//!
//!   look ──▶ folder, declaration and worker: only root can have written them ─ size and SHA-256 as declared
//!              ├▶ Package, for the choice                                      (bumpless_trust::package)
//!              └▶ Refusal, with the reason; the other declarations count
//!   stage ─▶ opened and looked at once more ─ copied into a file without a name, hashed there: a Staged,
//!            which is installed as what came from a feed is
//! ```
//!
//! A declaration is not signed. It is believed because workers cannot have written it, and that is certain of what
//! is root's alone ([`place`]). What belongs to the supervisor's own user does not count, also where that is not
//! root: supervisor and workers are then the same user.
//!
//! The worker is run from its copy under `releases/`, which is verified at every start, and never from here. So
//! what becomes of the package later concerns no release that is installed: the system's packages are upgraded and
//! removed for reasons of their own (the next one replaces this one's files, to begin with), and a release that
//! ran goes on, starts again after a crash, and is there for the way back. What must not run any more is forbidden
//! by a feed, or taken back with `bumpless rollback`, which quarantines it.
//!
//! The bad paths: a declaration that others could have written, that is none, or whose worker is missing or
//! another one, is refused and said to be, once; it is looked at again at each look. A worker that changes between
//! look and copy is not installed, and says nothing against the release: a package may just be in replacement.

pub mod place;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bumpless_control::status;
use bumpless_shared::digest::Digest;
use bumpless_shared::release::Version;
use bumpless_trust::Package;
use bumpless_trust::document::{Artifact, BadDocument};
use bumpless_trust::package::MAX_DECLARATION;

use crate::feed::{self, FeedError, Staged};
use crate::releases;
use place::{Place, Unsafe};

/// Declarations that are looked at; a system has one or two.
const MAX_DECLARATIONS: usize = 64;

/// What the packages declare, by one look.
#[derive(Debug)]
pub struct Packages {
    folder: PathBuf,
    is_there: bool,
    declared: Vec<Declared>,
    refused: Vec<Refusal>,
    /// What was hashed, so that the next look need not do it again.
    hashed: Vec<(Stamp, Digest)>,
}

/// A declaration that is believed.
#[derive(Debug)]
struct Declared {
    /// Of its file.
    name: OsString,
    package: Package,
}

/// Tells whether a file was changed: device, inode, size, and the times of its last changes. Only whoever owns it
/// can feign that it was not, and what is installed is hashed in any case.
type Stamp = [i64; 7];

/// A declaration, or all of them, that are not believed.
#[derive(Debug)]
pub struct Refusal {
    /// The declaration; or the folder.
    file: PathBuf,
    why: Why,
}

/// Why not.
#[derive(Debug)]
pub enum Why {
    /// Somebody could have written it, or it cannot be read.
    Unsafe(Unsafe),
    /// It is too large to be one.
    TooLarge,
    /// It is none.
    Declaration(BadDocument),
    /// The worker beside it has another size.
    Size {
        /// The worker.
        worker: PathBuf,
        /// Declared.
        declared: u64,
        /// Found.
        found: u64,
    },
    /// The worker beside it has other bytes.
    Hash {
        /// The worker.
        worker: PathBuf,
        /// Declared.
        declared: Digest,
        /// Found.
        found: Digest,
    },
    /// Another one declares the same place in the order for the same target.
    Twice {
        /// That one.
        other: PathBuf,
        /// The place.
        counter: u64,
    },
    /// So many are more than are looked at.
    TooMany(usize),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        let again = "install the package again";
        match &self.why {
            Why::Unsafe(why) => why.fmt(f),
            Why::TooLarge => {
                write!(f, "{file} is larger than the {MAX_DECLARATION} bytes that a declaration may have")
            }
            Why::Declaration(why) => write!(f, "{file} is no declaration: {why}"),
            Why::Size { worker, declared, found } => write!(
                f,
                "{} has {found} bytes instead of the {declared} that {file} declares; {again}",
                worker.display()
            ),
            Why::Hash { worker, declared, found } => write!(
                f,
                "{} has SHA-256 {found} instead of {declared}, which {file} declares; {again}",
                worker.display()
            ),
            Why::Twice { other, counter } => write!(
                f,
                "{file} declares number {counter} for the same target as {}; remove one of the two packages",
                other.display()
            ),
            Why::TooMany(count) => write!(
                f,
                "{file} has {count} declarations; only the first {MAX_DECLARATIONS} by name are looked at"
            ),
        }
    }
}

impl std::error::Error for Refusal {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.why {
            Why::Unsafe(source) => Some(source),
            Why::TooLarge | Why::Declaration(_) | Why::Size { .. } | Why::Hash { .. } => None,
            Why::Twice { .. } | Why::TooMany(_) => None,
        }
    }
}

/// Why a declared worker was not copied. Nothing was changed.
#[derive(Debug)]
pub enum StageError {
    /// The package is not there any more.
    Gone(PathBuf, Version),
    /// It is not what it was at the look.
    Refused(Refusal),
    /// Its copy, and the room for it.
    Staging(FeedError),
}

impl fmt::Display for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StageError::Gone(folder, version) => {
                write!(f, "no package in {} declares {version} any more", folder.display())
            }
            StageError::Refused(why) => why.fmt(f),
            StageError::Staging(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for StageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StageError::Gone(..) => None,
            StageError::Refused(why) => Some(why),
            StageError::Staging(why) => Some(why),
        }
    }
}

impl Packages {
    /// Before the first look.
    pub fn unseen(folder: &Path) -> Packages {
        let folder = folder.to_owned();
        Packages { folder, is_there: false, declared: vec![], refused: vec![], hashed: vec![] }
    }

    /// Looks anew, beside the runtime's thread. What is wrong is in [`Packages::refused`]; if the helper thread
    /// fails, what was seen before stands.
    pub async fn look(self: Arc<Packages>) -> Arc<Packages> {
        let before = Arc::clone(&self);
        tokio::task::spawn_blocking(move || Arc::new(before.look_now())).await.unwrap_or(self)
    }

    /// The same on this thread.
    pub fn look_now(&self) -> Packages {
        let mut seen = Packages::unseen(&self.folder);
        if let Err(why) = self.look_into(&mut seen) {
            seen.is_there = true;
            seen.refused.push(Refusal { file: self.folder.clone(), why: Why::Unsafe(why) });
        }
        seen
    }

    fn look_into(&self, seen: &mut Packages) -> Result<(), Unsafe> {
        let Some(place) = Place::open(&self.folder)? else { return Ok(()) };
        seen.is_there = true;
        let mut names = place.names()?;
        names.retain(|name| Path::new(name).extension().is_some_and(|ending| ending == "json"));
        if names.len() > MAX_DECLARATIONS {
            seen.refused.push(Refusal { file: self.folder.clone(), why: Why::TooMany(names.len()) });
            names.truncate(MAX_DECLARATIONS);
        }
        for name in names {
            let read = self.declared(&place, &name, &mut seen.hashed);
            match read.and_then(|package| seen.alone(package)) {
                Ok(package) => seen.declared.push(Declared { name, package }),
                Err(why) => seen.refused.push(Refusal { file: self.folder.join(name), why }),
            }
        }
        Ok(())
    }

    /// One declaration, whose worker is there and the declared one.
    fn declared(
        &self,
        place: &Place,
        name: &OsStr,
        hashed: &mut Vec<(Stamp, Digest)>,
    ) -> Result<Package, Why> {
        let cannot_be_read = |name: &OsStr| {
            let path = place.path().join(name);
            move |error| Why::Unsafe(Unsafe::File(path, error))
        };
        let mut bytes = Vec::new();
        let declaration = place.file(name).map_err(Why::Unsafe)?;
        declaration.take(MAX_DECLARATION + 1).read_to_end(&mut bytes).map_err(cannot_be_read(name))?;
        if bytes.len() as u64 > MAX_DECLARATION {
            return Err(Why::TooLarge);
        }
        let package = Package::parse(&bytes).map_err(Why::Declaration)?;
        let name = worker_of(name);
        let file = place.file(name).map_err(Why::Unsafe)?;
        let Artifact { raw_size: declared, raw_sha256, .. } = *package.artifact();
        let metadata = file.metadata().map_err(cannot_be_read(name))?;
        let worker = || place.path().join(name);
        if metadata.len() != declared {
            return Err(Why::Size { worker: worker(), declared, found: metadata.len() });
        }
        let stamp = stamp(&metadata);
        let known = self.hashed.iter().find(|(seen, _)| *seen == stamp).map(|(_, sha256)| *sha256);
        let found = match known {
            Some(sha256) => sha256,
            None => releases::hash(&file).map_err(cannot_be_read(name))?,
        };
        hashed.push((stamp, found));
        if found != raw_sha256 {
            return Err(Why::Hash { worker: worker(), declared: raw_sha256, found });
        }
        Ok(package)
    }

    /// Whether nobody before it has its place in the order.
    fn alone(&self, package: Package) -> Result<Package, Why> {
        let place = |package: &Package| (package.counter(), package.artifact().target.clone());
        match self.declared.iter().find(|other| place(&other.package) == place(&package)) {
            Some(other) => {
                Err(Why::Twice { other: self.folder.join(&other.name), counter: package.counter() })
            }
            None => Ok(package),
        }
    }

    /// Where they lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether there is such a folder, with or without anything in it that is believed.
    pub fn is_there(&self) -> bool {
        self.is_there
    }

    /// Whether nothing is declared, believed or not.
    pub fn is_empty(&self) -> bool {
        self.declared.is_empty() && self.refused.is_empty()
    }

    /// What is declared and believed.
    pub fn all(&self) -> Vec<Package> {
        self.declared.iter().map(|declared| declared.package.clone()).collect()
    }

    /// What is not believed, for people.
    pub fn refused(&self) -> Vec<status::Refused> {
        let shown =
            |it: &Refusal| status::Refused { file: it.file.display().to_string(), why: it.to_string() };
        self.refused.iter().map(shown).collect()
    }

    /// An alarm about that, if there is anything.
    pub fn alarm(&self) -> Option<String> {
        let texts: Vec<_> = self.refused.iter().map(Refusal::to_string).collect();
        (!texts.is_empty()).then(|| {
            format!(
                "what a package declares is refused: {}. Nothing that runs and no other package is concerned; \
                 `bumpless check` looks again",
                texts.join("; ")
            )
        })
    }

    /// Copies the worker that was chosen into a file without a name in `staging`, if there is room for it, and
    /// hashes the copy; beside the runtime's thread.
    ///
    /// # Errors
    /// The package is gone or another one by now, or the copy cannot be written.
    pub async fn stage(
        self: Arc<Packages>,
        version: Version,
        artifact: Artifact,
        staging: PathBuf,
    ) -> Result<Staged, StageError> {
        let work = move || self.stage_now(version, &artifact, &staging);
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
            Err(StageError::Staging(FeedError::Helper("that copied a package's worker failed".into())))
        })
    }

    /// The same on this thread.
    fn stage_now(&self, version: Version, artifact: &Artifact, staging: &Path) -> Result<Staged, StageError> {
        let chosen = self.declared.iter().find(|declared| declared.package.artifact() == artifact);
        let Some(Declared { name, .. }) = chosen else {
            return Err(StageError::Gone(self.folder.clone(), version));
        };
        let refused = |why| StageError::Refused(Refusal { file: self.folder.join(name), why });
        let place = Place::open(&self.folder).map_err(|why| refused(Why::Unsafe(why)))?;
        let place = place.ok_or_else(|| StageError::Gone(self.folder.clone(), version))?;
        let from = place.file(worker_of(name)).map_err(|why| refused(Why::Unsafe(why)))?;
        feed::has_room(staging, artifact).map_err(StageError::Staging)?;
        let worker = || place.path().join(worker_of(name));
        let copy = feed::unnamed(staging).map_err(StageError::Staging)?;
        copy_of(&from, artifact.size, &copy).map_err(|error| match error {
            Failed::Read(error) => refused(Why::Unsafe(Unsafe::File(worker(), error))),
            Failed::Write(source) => {
                StageError::Staging(FeedError::Staging { path: staging.to_owned(), source })
            }
        })?;
        Staged::verify(copy, artifact).map_err(|error| match error {
            FeedError::BlobSize { expected: declared, found } => {
                refused(Why::Size { worker: worker(), declared, found })
            }
            FeedError::BlobHash { expected: declared, found } => {
                refused(Why::Hash { worker: worker(), declared, found })
            }
            other => StageError::Staging(other),
        })
    }
}

/// The worker that a declaration is about lies beside it, with the same name but for the ending.
fn worker_of(declaration: &OsStr) -> &OsStr {
    Path::new(declaration).file_stem().unwrap_or(declaration)
}

fn stamp(metadata: &std::fs::Metadata) -> Stamp {
    let number = |value: u64| value.cast_signed();
    [
        number(metadata.dev()),
        number(metadata.ino()),
        number(metadata.len()),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ]
}

enum Failed {
    Read(io::Error),
    Write(io::Error),
}

/// At most one byte more than expected, which is enough to be refused for it.
fn copy_of(from: &File, expected: u64, mut to: &File) -> Result<(), Failed> {
    let mut from = from.take(expected.saturating_add(1));
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match from.read(&mut buffer).map_err(Failed::Read)? {
            0 => return Ok(()),
            read => to.write_all(&buffer[..read]).map_err(Failed::Write)?,
        }
    }
}

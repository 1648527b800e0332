//! Installed releases, and the exact bytes that run.
//!
//! ```text
//!   Staged ─ unpack ─▶ file without a name ─ exact size and SHA-256, read back from that file
//!                        └ mode 0555, synced, linked as releases/<version>-<hash>/worker
//!                             └ release.json, synced: now it is installed
//!
//!   at every start, where workers share our user:
//!     worker ─ opened once ─▶ memory file ─ sealed ─ SHA-256 of what is in it ─▶ run that
//!   where they have one of their own (`worker.user`):
//!     worker, and every folder that leads to it: only we may change them? ─ opened once ─ SHA-256 ─▶ run that
//! ```
//!
//! What is in a releases directory is never changed. A directory without `release.json` is one that a crash
//! left half-made: it is no release, and installing completes it. What has other bytes than its name says is
//! never run, wherever it comes from. Who would change it between the check and the start:
//!
//! | who, and how | workers share our user | workers have their own |
//! |---|---|---|
//! | puts another file, link or folder in its place | what was opened is what runs | the same; and a worker may not |
//! | a worker writes into the file | the copy is sealed before it is hashed | it is not the worker's, nor writable for it |
//! | a process of our own user, or root, writes into the file | the same | **not kept out**: it could as well be us |
//! | a worker that traces the supervisor, or writes its records | **not kept out** | another user is not let |
//!
//! While it runs, the file cannot be opened for writing at all (`ETXTBSY`), whoever wants to; some kernels of 2024
//! let root. A file that a worker's user could write to once, and that was made ours since, may be open for writing
//! still where something of that user runs on: remove such a release and have it installed anew. And between two
//! workers of one user nothing is kept: each may look into the other.
//!
//! The bad paths: a blob that is no single zstd frame, wants a large window, or unpacks to more, fewer or
//! other bytes than signed, is refused with nothing left behind; no room and no permission are said as such;
//! in each case the releases that are there stay as they are.

pub mod unpack;

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bumpless_control::history::{self, Index};
use bumpless_os::child::User;
use bumpless_os::disk::{self, sync_dir};
use bumpless_os::durable::{self, create_dirs, replace};
use bumpless_shared::control::StateRange;
use bumpless_shared::digest::Digest;
use bumpless_shared::release::{Release, Version};
use bumpless_shared::version::Range;
use bumpless_trust::document::Artifact;
use bumpless_trust::{Choice, Origin};
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::exposure::{self, Exposed};
use crate::feed::Staged;
use crate::upgrade::Verdict;

/// What is read at a time; memory does not grow with an artifact's size.
const CHUNK: usize = 256 * 1024;
/// `release.json` of this form.
const SCHEMA: u32 = 1;

/// `release.json`: what the index, or a package, said when the release was installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// 1.
    pub schema: u32,
    /// Its name.
    pub release: Version,
    /// SHA-256 of `worker`.
    pub sha256: Digest,
    /// Bytes of `worker`.
    pub size: u64,
    /// Its place in the order.
    pub counter: u64,
    /// Versions of the contract that it speaks.
    pub contract: Range,
    /// Versions of the protocol between nodes that it speaks.
    pub protocol: Range,
    /// Versions of the logical state stream that it reads and writes.
    pub state: StateRange,
    /// The index that offered it; absent where a package did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_version: Option<u64>,
    /// SHA-256 of that index; absent in what was installed before this was kept, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_sha256: Option<Digest>,
    /// The public keys that had signed it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub index_keys: Vec<String>,
    /// Who vouches for it.
    pub source: Source,
}

/// Who vouches for a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A signed index.
    Feed,
    /// The machine's administrator, by a package of the distribution.
    Package,
}

impl From<Source> for history::Source {
    fn from(source: Source) -> history::Source {
        match source {
            Source::Feed => history::Source::Feed,
            Source::Package => history::Source::Package,
        }
    }
}

impl Record {
    fn of(choice: &Choice) -> Record {
        let Release { version, sha256 } = choice.release();
        let (source, index) = match choice.origin() {
            Origin::Index(evidence) => (Source::Feed, Some(evidence)),
            Origin::Package => (Source::Package, None),
        };
        Record {
            schema: SCHEMA,
            release: version,
            sha256,
            size: choice.artifact().raw_size,
            counter: choice.counter(),
            contract: choice.contract(),
            protocol: choice.protocol(),
            state: choice.state(),
            index_version: index.map(|index| index.version),
            index_sha256: index.map(|index| index.sha256),
            index_keys: index.map(|index| index.keys.clone()).unwrap_or_default(),
            source,
        }
    }

    /// The index that it was installed on, as far as that was kept.
    pub fn index(&self) -> Option<Index> {
        let (version, sha256) = self.index_version.zip(self.index_sha256)?;
        Some(Index { version, sha256, keys: self.index_keys.clone() })
    }

    /// Which release it is about.
    pub fn release(&self) -> Release {
        Release { version: self.release.clone(), sha256: self.sha256 }
    }
}

/// The releases directory, and the links to two of its entries.
#[derive(Clone, Debug)]
pub struct Releases {
    dir: PathBuf,
    current: PathBuf,
    previous: PathBuf,
}

/// Why a release was not installed. What was installed before is as it was.
#[derive(Debug)]
pub enum InstallError {
    /// The blob is not what the index says.
    Blob(Version, unpack::Bad),
    /// A file or directory; `None` where it has no name yet.
    File {
        /// What was being done.
        what: &'static str,
        /// With which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The helper thread ended without a result.
    Helper(Release),
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InstallError::Blob(version, why) => write!(
                f,
                "cannot install release {}: {why}. Nothing was changed; the feed has to be repaired by its publisher",
                version
            ),
            InstallError::File { what, path, source } => write!(
                f,
                "cannot {what} {}: {source}. Nothing that runs is concerned; check owner, mode and free space",
                path.display()
            ),
            InstallError::Helper(release) => {
                write!(f, "cannot install release {}: the thread that unpacked it failed", release.version)
            }
        }
    }
}

impl std::error::Error for InstallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            InstallError::File { source, .. } => Some(source),
            InstallError::Blob(..) | InstallError::Helper(_) => None,
        }
    }
}

/// Why an installed release is not started.
#[derive(Debug)]
pub enum VerifyError {
    /// Its file.
    File {
        /// Which release.
        release: Release,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its bytes are not those that were signed.
    Hash {
        /// Which release; its hash is the one that was signed.
        release: Release,
        /// SHA-256 of what is there.
        found: Digest,
    },
    /// No memory file, or it could not be sealed.
    Memory {
        /// Which release.
        release: Release,
        /// Why.
        source: io::Error,
    },
    /// Workers have a user of their own, and others than the supervisor could change it.
    Exposed {
        /// Which release.
        release: Release,
        /// What.
        source: Exposed,
    },
    /// The helper thread ended without a result.
    Helper(Release),
}

impl VerifyError {
    /// What it says of the release.
    pub fn verdict(&self) -> Verdict {
        match self {
            VerifyError::File { .. }
            | VerifyError::Hash { .. }
            | VerifyError::Memory { .. }
            | VerifyError::Helper(_) => Verdict::Bad(self.to_string()),
            // Whoever set those permissions is to blame.
            VerifyError::Exposed { .. } => Verdict::Unknown(self.to_string()),
        }
    }
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let again = "remove its directory and run `bumpless upgrade` to have it installed again";
        match self {
            VerifyError::File { release, path, source } => {
                write!(f, "cannot start release {}: {}: {source}; {again}", release.version, path.display())
            }
            VerifyError::Hash { release, found } => write!(
                f,
                "cannot start release {}: its SHA-256 is {found}, signed is {}. It is not run; {again}",
                release.version, release.sha256
            ),
            VerifyError::Memory { release, source } => write!(
                f,
                "cannot start release {}: no sealed copy in memory: {source}. It is tried again; check free memory",
                release.version
            ),
            VerifyError::Exposed { release, source } => {
                write!(f, "cannot start release {}: {source}", release.version)
            }
            VerifyError::Helper(release) => {
                write!(f, "cannot start release {}: the thread that verified it failed", release.version)
            }
        }
    }
}

impl std::error::Error for VerifyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            VerifyError::File { source, .. } | VerifyError::Memory { source, .. } => Some(source),
            VerifyError::Exposed { source, .. } => Some(source),
            VerifyError::Hash { .. } | VerifyError::Helper(_) => None,
        }
    }
}

impl Releases {
    /// Under the state directory: `releases/`, `current`, `previous`.
    pub fn new(state_dir: &Path) -> Releases {
        Releases {
            dir: state_dir.join("releases"),
            current: state_dir.join("current"),
            previous: state_dir.join("previous"),
        }
    }

    fn folder(&self, release: &Release) -> PathBuf {
        self.dir.join(release.directory())
    }

    /// Unpacks and installs what was fetched. Done twice it changes nothing; what a crash left half-made, or
    /// what has been damaged since, is made again. The work is done beside the runtime's thread.
    ///
    /// # Errors
    /// The blob is not what was signed, or the file system refuses.
    pub async fn install(&self, staged: Staged, choice: &Choice) -> Result<Release, InstallError> {
        let (record, artifact) = (Record::of(choice), choice.artifact().clone());
        let (release, folder) = (choice.release(), self.folder(&choice.release()));
        let work =
            move || install(staged.into_file(), &record, &artifact, &folder).map(|()| record.release());
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(InstallError::Helper(release)))
    }

    /// Whether a release is installed; its bytes are verified when it is started.
    ///
    /// # Errors
    /// Its record cannot be read.
    pub fn find(&self, release: &Release) -> io::Result<Option<Record>> {
        record(&self.folder(release), release.sha256)
    }

    /// Every installed release, the highest counter first. Half-made ones are none.
    ///
    /// # Errors
    /// The directory, or a record in it, cannot be read.
    pub fn list(&self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for release in self.folders()? {
            records.extend(record(&self.folder(&release), release.sha256)?);
        }
        records.sort_by_key(|record| std::cmp::Reverse(record.counter));
        Ok(records)
    }

    /// Those whose installation did not come to its end, or is under way.
    ///
    /// # Errors
    /// The directory, or a record in it, cannot be read.
    pub fn half_made(&self) -> io::Result<Vec<Release>> {
        let mut releases = self.folders()?;
        for installed in self.list()? {
            releases.retain(|release| *release != installed.release());
        }
        Ok(releases)
    }

    /// By name.
    fn folders(&self) -> io::Result<Vec<Release>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut releases = Vec::new();
        for entry in entries {
            releases.extend(named(&entry?.file_name()));
        }
        Ok(releases)
    }

    /// The release that ran here before, if it is still installed.
    ///
    /// # Errors
    /// The link, or its record, cannot be read.
    pub fn previous(&self) -> io::Result<Option<Record>> {
        let target = match fs::read_link(&self.previous) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            target => target?,
        };
        let release = target.file_name().and_then(named);
        release.map_or(Ok(None), |release| self.find(&release))
    }

    /// A release's place in the order, if its record can be read.
    pub fn counter(&self, release: &Release) -> Option<u64> {
        self.find(release).ok().flatten().map(|record| record.counter)
    }

    /// The bytes of a release, verified: run exactly this descriptor, as this user (`None`: our own). The work is
    /// done beside the runtime's thread.
    ///
    /// # Errors
    /// It is not there, not what was signed, or could still be changed.
    pub async fn launchable(&self, release: &Release, user: Option<User>) -> Result<OwnedFd, VerifyError> {
        let (dir, wanted) = (self.dir.clone(), release.clone());
        let work = move || match user {
            None => sealed(&dir.join(wanted.directory()).join("worker"), &wanted),
            Some(_) => owned(&dir, &wanted),
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|_| Err(VerifyError::Helper(release.clone())))
    }

    /// Removes a release. One that is not there is removed already. Who may be removed is the caller's
    /// decision; a worker that runs keeps what it runs.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn remove(&self, release: &Release) -> io::Result<()> {
        let folder = self.folder(release);
        let gone = |result: io::Result<()>| match result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        };
        // The record first: without it this is no release any more.
        gone(disk::remove_file(&folder.join("release.json")))?;
        gone(sync_dir(&folder))?;
        gone(disk::remove_dir_all(&folder))?;
        gone(sync_dir(&self.dir))
    }

    /// Lets `current` point to a release, in one step.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn link_current(&self, release: &Release) -> io::Result<()> {
        link(&self.current, release)
    }

    /// Lets `previous` point to a release, in one step.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn link_previous(&self, release: &Release) -> io::Result<()> {
        link(&self.previous, release)
    }
}

/// The release that a directory of this name is for.
fn named(directory: &OsStr) -> Option<Release> {
    let (version, hash) = directory.to_str()?.rsplit_once('-')?;
    Some(Release { version: version.parse().ok()?, sha256: hash.parse().ok()? })
}

/// A relative link, made aside and renamed over the old one.
fn link(link: &Path, release: &Release) -> io::Result<()> {
    let target = Path::new("releases").join(release.directory());
    if fs::read_link(link).is_ok_and(|there| there == target) {
        return Ok(());
    }
    let aside = durable::aside(link);
    match disk::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    disk::symlink(&target, &aside)?;
    disk::rename(&aside, link)?;
    sync_dir(durable::parent(link))
}

/// The record in `folder`, if it is a whole release.
fn record(folder: &Path, sha256: Digest) -> io::Result<Option<Record>> {
    let path = folder.join("release.json");
    let named = |why: String| io::Error::other(format!("{}: {why}", path.display()));
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(named(error.to_string())),
    };
    let record: Record = serde_json::from_slice(&text).map_err(|error| named(error.to_string()))?;
    if record.schema != SCHEMA {
        return Err(named(format!("its schema is {}, this supervisor reads {SCHEMA}", record.schema)));
    }
    if record.sha256 != sha256 || folder.file_name().is_none_or(|name| *name != *record.release().directory())
    {
        return Err(named("it is about another release than its directory".to_owned()));
    }
    Ok(Some(record))
}

fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

/// SHA-256 of a whole file, wherever its position is.
pub(crate) fn hash(file: &File) -> io::Result<Digest> {
    let (mut hash, mut buffer, mut at) = (Sha256::new(), vec![0; CHUNK], 0);
    loop {
        match file.read_at(&mut buffer, at)? {
            0 => return Ok(Digest(hash.finalize().into())),
            read => {
                hash.update(&buffer[..read]);
                at += read as u64;
            }
        }
    }
}

pub(crate) fn install(
    blob: File,
    record: &Record,
    artifact: &Artifact,
    folder: &Path,
) -> Result<(), InstallError> {
    let failed = |what, path: &Path| {
        let path = path.to_owned();
        move |source| InstallError::File { what, path, source }
    };
    create_dirs(folder).map_err(failed("create", folder))?;
    let path = folder.join("worker");
    let there = open(&path).and_then(|file| hash(&file)).is_ok_and(|found| found == artifact.raw_sha256);
    if !there {
        let mut file = disk::File::unnamed(folder, 0o600).map_err(failed("create a file in", folder))?;
        unpack::unpack(blob, artifact, &mut file).map_err(|error| match error {
            unpack::Failed::Bad(why) => InstallError::Blob(record.release.clone(), why),
            unpack::Failed::Read(source) => failed("read what was fetched for", folder)(source),
            unpack::Failed::Write(source) => failed("write into", folder)(source),
        })?;
        file.set_mode(0o555).map_err(failed("protect a file in", folder))?;
        file.sync_all().map_err(failed("sync a file in", folder))?;
        let found = hash(file.std()).map_err(failed("read back a file in", folder))?;
        if found != artifact.raw_sha256 {
            let why = unpack::Bad::Hash { expected: artifact.raw_sha256, found };
            return Err(InstallError::Blob(record.release.clone(), why));
        }
        // What stands there instead has other bytes than its name says.
        match disk::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("replace", &path)(error));
            }
            Ok(()) | Err(_) => {}
        }
        file.name(&path).map_err(failed("link", &path))?;
        sync_dir(folder).map_err(failed("sync", folder))?;
    }
    let json = folder.join("release.json");
    // An index that offers the same release again may carry a higher version; the first one is kept.
    if self::record(folder, record.sha256).ok().flatten().is_none() {
        let text = serde_json::to_vec(record).map_err(|error| failed("write", &json)(error.into()))?;
        replace(&json, &text, 0o444).map_err(failed("write", &json))?;
    }
    Ok(())
}

/// Whatever starts may be committed, and whoever installed it may have been killed before its names were durable.
fn sync_names(path: &Path) -> io::Result<()> {
    let folder = durable::parent(path);
    sync_dir(folder).and_then(|()| sync_dir(durable::parent(folder)))
}

/// From the releases directory `dir`, by a descriptor of what nobody but us can change.
fn owned(dir: &Path, release: &Release) -> Result<OwnedFd, VerifyError> {
    let (name, folder) = (release.directory(), dir.join(release.directory()));
    let path = folder.join("worker");
    let failed = |error| match error {
        Exposed::File { path, source } => VerifyError::File { release: release.clone(), path, source },
        source @ (Exposed::Owner { .. } | Exposed::Mode { .. }) => {
            VerifyError::Exposed { release: release.clone(), source }
        }
    };
    let (above, releases) = (durable::parent(dir), dir.file_name().unwrap_or_default());
    let opened = exposure::folder(above)
        .and_then(|state_dir| exposure::within(state_dir, above, releases, OFlag::O_DIRECTORY))
        .and_then(|releases| exposure::within(releases, dir, name.as_ref(), OFlag::O_DIRECTORY))
        .and_then(|release| exposure::within(release, &folder, "worker".as_ref(), OFlag::empty()));
    let file = opened.map_err(failed)?;
    let unread = |source| VerifyError::File { release: release.clone(), path: path.clone(), source };
    sync_names(&path).map_err(unread)?;
    let found = hash(&file).map_err(unread)?;
    if found != release.sha256 {
        return Err(VerifyError::Hash { release: release.clone(), found });
    }
    Ok(file.into())
}

/// From this path, by a copy that nobody can change any more.
fn sealed(path: &Path, release: &Release) -> Result<OwnedFd, VerifyError> {
    let file = |source| VerifyError::File { release: release.clone(), path: path.to_owned(), source };
    let memory = |source| VerifyError::Memory { release: release.clone(), source };
    let mut from = open(path).map_err(file)?;
    sync_names(path).map_err(file)?;
    let mut copy = File::from(executable_memory().map_err(memory)?);
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer).map_err(file)? {
            0 => break,
            read => copy.write_all(&buffer[..read]).map_err(memory)?,
        }
    }
    let seals =
        SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals)).map_err(|error| memory(error.into()))?;
    // Hashed after the seal: these bytes, and no others, are what the descriptor will ever hold.
    let found = hash(&copy).map_err(memory)?;
    if found != release.sha256 {
        return Err(VerifyError::Hash { release: release.clone(), found });
    }
    Ok(copy.into())
}

/// A file in memory that may be executed, whatever `vm.memfd_noexec` has as its default.
fn executable_memory() -> io::Result<OwnedFd> {
    // Of <linux/memfd.h>; kernels before 6.3 do not know it, and need no such word.
    const MFD_EXEC: MFdFlags = MFdFlags::from_bits_retain(0x10);
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    match memfd_create(c"bumpless-node", flags | MFD_EXEC) {
        Err(nix::errno::Errno::EINVAL) => Ok(memfd_create(c"bumpless-node", flags)?),
        made => Ok(made?),
    }
}

//! A feed, its keys and its next index.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bumpless_shared::control::Description;
use bumpless_shared::digest::Digest;
use bumpless_shared::release::{Release, Version};
use bumpless_trust::Role;
use bumpless_trust::document::{
    Artifact, Build, Channel, Elders, Encoding, Extra, IndexDocument, IndexPin, IndexType, KeysDocument,
    Kind, ReleaseDocument, Rollout, RootDocument, RootType, SPEC, Stage, TIMESTAMP_VALID, TimestampDocument,
    TimestampType,
};
use bumpless_trust::refresh::sha256;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::file::{self, Aside, Readers};
use crate::key::{Key, KeyError};

/// How long an index is valid: long enough that only the timestamp has to be renewed by a machine.
const INDEX_VALID: u64 = 90 * 86_400;
/// How long a root is valid.
const ROOT_VALID: u64 = 2 * 365 * 86_400;
/// Signatures of this many timestamps are kept in one `.sigs`, for clients that are reading right now.
const TIMESTAMPS_KEPT: usize = 3;
/// The largest zstd window: what a supervisor is willing to hold in memory while it unpacks (8 MiB).
const WINDOW_LOG: u32 = 23;

/// What a new feed is.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which network; a random one if absent.
    pub network: Option<Digest>,
    /// Which channel.
    pub channel: Channel,
    /// Seconds that a timestamp is valid, at most 30 days.
    pub timestamp_valid: u64,
    /// zstd level, 1 (fast) to 19 (small).
    pub level: i32,
    /// Unix seconds.
    pub now: u64,
}

impl Options {
    /// A feed of this channel, with timestamps of 72 hours and fast compression.
    pub fn new(channel: Channel, now: u64) -> Self {
        Options { network: None, channel, timestamp_valid: TIMESTAMP_VALID, level: 1, now }
    }
}

/// What to say about a release beside its bytes.
#[derive(Clone, Debug, Default)]
pub struct Addition {
    /// What the artifact says about itself; absent: it is run with `--describe`.
    pub description: Option<Description>,
    /// For which machine; absent: machines like this one.
    pub target: Option<String>,
    /// Its place in the order; absent: one more than the highest.
    pub counter: Option<u64>,
    /// The lowest supervisor that can run it; absent: 0.1.0.
    pub min_supervisor: Option<[u32; 3]>,
    /// When it reaches how many machines; absent: all at once.
    pub rollout: Option<Rollout>,
    /// It does not wait for a maintenance window.
    pub urgent: bool,
    /// Source revision, for people.
    pub commit: String,
}

/// What is kept between two runs of the publisher, beside the keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Draft {
    /// The index as it was published last, with the changes made since.
    index: IndexDocument,
    /// Whether there are any.
    changed: bool,
    timestamp_version: u64,
    timestamp_valid: u64,
    level: i32,
}

/// A feed that can be changed and signed.
#[derive(Debug)]
pub struct Publisher {
    folder: PathBuf,
    draft: Draft,
    release: Key,
    timestamp: Key,
}

/// A feed cannot be made or changed.
#[derive(Debug)]
pub enum PublishError {
    /// A file or folder, and what was done with it.
    File(&'static str, PathBuf, io::Error),
    /// The folder holds a feed already.
    Exists(PathBuf),
    /// The folder holds no feed of ours.
    NoFeed(PathBuf),
    /// A key.
    Key(KeyError),
    /// A file of ours does not parse.
    Draft(PathBuf, serde_json::Error),
    /// An artifact does not describe itself.
    Describe(PathBuf, String),
    /// The artifact says that it is another release than the one asked for.
    OtherRelease {
        /// What was asked for.
        asked: Version,
        /// What the artifact says.
        says: Version,
    },
    /// The channel has that release, or its counter, already.
    Taken(Version, u64),
    /// The channel has no such release.
    Unknown(Version),
    /// A value that no client would accept.
    Value(String),
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishError::File(what, path, error) => {
                write!(f, "cannot {what} {}: {error}. The published feed is as it was.", path.display())
            }
            PublishError::Exists(path) => write!(f, "{} holds a feed already", path.display()),
            PublishError::NoFeed(path) => {
                write!(f, "{} holds no feed; make one with `bumpless-release init {0}`", path.display())
            }
            PublishError::Key(error) => error.fmt(f),
            PublishError::Draft(path, error) => write!(f, "{} is damaged: {error}", path.display()),
            PublishError::Describe(path, why) => write!(
                f,
                "{} does not describe itself: {why}. If it cannot run here, pass what it prints with --describe-file.",
                path.display()
            ),
            PublishError::OtherRelease { asked, says } => {
                write!(f, "the artifact says that it is release {says}, not {asked}")
            }
            PublishError::Taken(version, counter) => {
                write!(
                    f,
                    "release {version} or its counter {counter} is in the channel already, with other contents"
                )
            }
            PublishError::Unknown(version) => write!(f, "the channel has no release {version}"),
            PublishError::Value(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for PublishError {}

impl From<KeyError> for PublishError {
    fn from(error: KeyError) -> Self {
        PublishError::Key(error)
    }
}

impl Publisher {
    /// Makes a feed in `folder`: one key per role, and the first root. Nothing is published yet but the root.
    ///
    /// # Errors
    /// There is one already, or a file cannot be written.
    pub fn init(folder: &Path, options: &Options) -> Result<Self, PublishError> {
        let draft_file = folder.join("draft.json");
        if draft_file.exists() || folder.join("keys").exists() {
            return Err(PublishError::Exists(folder.to_owned()));
        }
        for part in ["keys", "feed/root", "feed/index", "feed/blob"] {
            let path = folder.join(part);
            fs::create_dir_all(&path).map_err(|error| PublishError::File("create", path, error))?;
        }
        let root = Key::generate(&folder.join("keys/root.key"))?;
        let release = Key::generate(&folder.join("keys/release.key"))?;
        let timestamp = Key::generate(&folder.join("keys/timestamp.key"))?;
        let network = match options.network {
            Some(network) => network,
            None => random()?,
        };
        let one = |key: &Key| KeysDocument { threshold: std::num::NonZeroU8::MIN, keys: vec![key.public()] };
        let document = RootDocument {
            kind: RootType::Root,
            spec: SPEC,
            network,
            version: 1,
            expires: options.now + ROOT_VALID,
            root: one(&root),
            release: one(&release),
            timestamp: one(&timestamp),
            timestamp_valid: (options.timestamp_valid != TIMESTAMP_VALID).then_some(options.timestamp_valid),
            builders: None,
            elders: Elders::Off,
            x: Extra::default(),
        };
        let bytes = json(&document);
        bumpless_trust::root::Root::parse(&bytes).map_err(|why| PublishError::Value(why.to_string()))?;
        let index = IndexDocument {
            kind: IndexType::Index,
            spec: SPEC,
            network,
            channel: options.channel.clone(),
            version: 0,
            issued: options.now,
            expires: options.now + INDEX_VALID,
            min_release_counter: 0,
            revoked: Vec::new(),
            paused: false,
            protocol_min: 0,
            protocol_revoked: Vec::new(),
            x: Extra::default(),
            releases: Vec::new(),
        };
        let (timestamp_valid, level) = (options.timestamp_valid, options.level.clamp(1, 19));
        let draft = Draft { index, changed: true, timestamp_version: 0, timestamp_valid, level };
        let publisher = Publisher { folder: folder.to_owned(), draft, release, timestamp };
        publisher.put(&Role::Root.path(1), &bytes, &root.sign(Role::Root, 1, &bytes)?)?;
        publisher.save()?;
        Ok(publisher)
    }

    /// Opens a feed that [`Publisher::init`] made. `password` is for encrypted keys; absent, they ask.
    ///
    /// # Errors
    /// There is none, or a key cannot be read.
    pub fn open(folder: &Path, password: Option<String>) -> Result<Self, PublishError> {
        let path = folder.join("draft.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(PublishError::NoFeed(folder.to_owned()));
            }
            Err(error) => return Err(PublishError::File("read", path, error)),
        };
        let draft = serde_json::from_slice(&text).map_err(|error| PublishError::Draft(path, error))?;
        let release = Key::read(&folder.join("keys/release.key"), password.clone())?;
        let timestamp = Key::read(&folder.join("keys/timestamp.key"), password)?;
        Ok(Publisher { folder: folder.to_owned(), draft, release, timestamp })
    }

    /// The folder that may be served.
    pub fn feed(&self) -> PathBuf {
        self.folder.join("feed")
    }

    /// The first root: what a machine is given to begin with, together with the `.sigs` beside it.
    pub fn first_root(&self) -> PathBuf {
        self.feed().join(Role::Root.path(1))
    }

    /// The next index, as it stands.
    pub fn index(&self) -> &IndexDocument {
        &self.draft.index
    }

    /// Adds an artifact to a release, and the release to the next index if it is new. Adding the same bytes
    /// for the same target again changes nothing.
    ///
    /// # Errors
    /// The artifact cannot be read or does not describe itself, or the release is there with other contents.
    pub fn add(
        &mut self,
        artifact: &Path,
        version: &Version,
        addition: Addition,
    ) -> Result<Release, PublishError> {
        let description = match addition.description {
            Some(description) => description,
            None => describe(artifact)?,
        };
        if description.release != *version {
            return Err(PublishError::OtherRelease { asked: version.clone(), says: description.release });
        }
        let target = match addition.target {
            Some(target) => target,
            None => bumpless_trust::choice::targets().swap_remove(0),
        };
        let artifact = self.store(artifact, target)?;
        let release = Release { version: version.clone(), sha256: artifact.raw_sha256 };
        let highest = self.draft.index.releases.iter().map(|entry| entry.counter).max().unwrap_or(0);
        let there = self.draft.index.releases.iter_mut().find(|entry| entry.release == *version);
        if let Some(entry) = there {
            let same_ranges = (entry.contract, entry.protocol, entry.state)
                == (description.contract, description.protocol, description.state);
            let others = entry.artifacts.iter().find(|other| other.target == artifact.target);
            return match others {
                Some(other) if *other == artifact && same_ranges => Ok(release),
                None if same_ranges => {
                    entry.artifacts.push(artifact);
                    self.draft.changed = true;
                    self.save()?;
                    Ok(release)
                }
                Some(_) | None => Err(PublishError::Taken(version.clone(), entry.counter)),
            };
        }
        let counter = addition.counter.unwrap_or(highest + 1);
        if self.draft.index.releases.iter().any(|entry| entry.counter == counter) {
            return Err(PublishError::Taken(version.clone(), counter));
        }
        let everyone = Stage { after: 0, permille: 1000 };
        let rollout = match addition.rollout {
            Some(rollout) => rollout,
            None => {
                let (group, canaries, stages) = (None, Vec::new(), vec![everyone]);
                Rollout { start: 0, salt: random()?.short(), group, canaries, stages }
            }
        };
        self.draft.index.releases.push(ReleaseDocument {
            release: version.clone(),
            counter,
            urgent: addition.urgent,
            min_supervisor: addition.min_supervisor.unwrap_or([0, 1, 0]),
            contract: description.contract,
            protocol: description.protocol,
            state: description.state,
            rollout,
            build: Build { sums_sha256: None, commit: addition.commit },
            artifacts: vec![artifact],
            x: Extra::default(),
        });
        self.draft.changed = true;
        self.save()?;
        Ok(release)
    }

    /// Lets a release spread by these stages, the first of which begins at `start`.
    ///
    /// # Errors
    /// There is no such release, or the stages do not rise.
    pub fn promote(&mut self, version: &Version, start: u64, stages: Vec<Stage>) -> Result<(), PublishError> {
        self.change(|index| {
            let entry = entry(index, version)?;
            entry.rollout.start = start;
            entry.rollout.stages = stages;
            Ok(())
        })
    }

    /// Forbids a release: no machine starts any artifact of it again.
    ///
    /// # Errors
    /// There is no such release.
    pub fn revoke(&mut self, version: &Version) -> Result<(), PublishError> {
        self.change(|index| {
            let hashes: Vec<Digest> = entry(index, version)?.artifacts.iter().map(|a| a.raw_sha256).collect();
            index.revoked.extend(hashes);
            index.revoked.sort_unstable();
            index.revoked.dedup();
            Ok(())
        })
    }

    /// Forbids every release below this counter.
    ///
    /// # Errors
    /// The draft cannot be saved.
    pub fn set_floor(&mut self, counter: u64) -> Result<(), PublishError> {
        self.change(|index| {
            index.min_release_counter = counter;
            Ok(())
        })
    }

    /// Stops new installations on the whole channel, or lets them go on.
    ///
    /// # Errors
    /// The draft cannot be saved.
    pub fn pause(&mut self, paused: bool) -> Result<(), PublishError> {
        self.change(|index| {
            index.paused = paused;
            Ok(())
        })
    }

    fn change(
        &mut self,
        change: impl FnOnce(&mut IndexDocument) -> Result<(), PublishError>,
    ) -> Result<(), PublishError> {
        let mut index = self.draft.index.clone();
        change(&mut index)?;
        IndexDocument::parse(&json(&index)).map_err(|why| PublishError::Value(why.to_string()))?;
        self.draft.index = index;
        self.draft.changed = true;
        self.save()
    }

    /// Signs and publishes what has changed, and a new timestamp in any case.
    ///
    /// # Errors
    /// A file cannot be written. Clients then see what was published before, whole.
    pub fn publish(&mut self, now: u64) -> Result<(), PublishError> {
        if self.draft.changed {
            // Also above what an interrupted run may have left there: no version is ever signed twice.
            let version = self.draft.index.version.max(newest_index(&self.feed())?.unwrap_or(0)) + 1;
            let index = IndexDocument {
                version,
                issued: now,
                expires: now + INDEX_VALID,
                ..self.draft.index.clone()
            };
            let bytes = json(&index);
            IndexDocument::parse(&bytes).map_err(|why| PublishError::Value(why.to_string()))?;
            let signature = self.release.sign(Role::Release, index.version, &bytes)?;
            self.put(&Role::Release.path(index.version), &bytes, &signature)?;
            self.draft.index = index;
            self.draft.changed = false;
            self.save()?;
        }
        self.timestamp(now)
    }

    /// Renews the timestamp over the index that is published; nothing else changes.
    ///
    /// # Errors
    /// A file cannot be written, or no index was ever published.
    pub fn timestamp(&mut self, now: u64) -> Result<(), PublishError> {
        let feed = self.feed();
        let nothing = || PublishError::Value("no index was published yet; add a release first".to_owned());
        let newest = newest_index(&feed)?.ok_or_else(nothing)?;
        let path = feed.join(Role::Release.path(newest));
        let index = fs::read(&path).map_err(|error| PublishError::File("read", path, error))?;
        let version = self.draft.timestamp_version + 1;
        // Kept first: a version that was once signed is never signed again over other bytes.
        self.draft.timestamp_version = version;
        self.save()?;
        let document = TimestampDocument {
            kind: TimestampType::Timestamp,
            spec: SPEC,
            network: self.draft.index.network,
            channel: self.draft.index.channel.clone(),
            version,
            issued: now,
            expires: now + self.draft.timestamp_valid,
            index: IndexPin { version: newest, size: index.len() as u64, sha256: sha256(&index) },
            x: Extra::default(),
        };
        let bytes = json(&document);
        let mut signatures = self.timestamp.sign(Role::Timestamp, version, &bytes)?;
        let path = feed.join("timestamp.json.sigs");
        match fs::read_to_string(&path) {
            Ok(before) => {
                for line in before.lines().take(4 * (TIMESTAMPS_KEPT - 1)) {
                    signatures.push_str(line);
                    signatures.push('\n');
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(PublishError::File("read", path, error)),
        }
        self.put(&Role::Timestamp.path(version), &bytes, &signatures)
    }

    /// Packs an artifact into `blob/`; memory does not grow with its size.
    fn store(&self, path: &Path, target: String) -> Result<Artifact, PublishError> {
        let read = |error| PublishError::File("read", path.to_owned(), error);
        let folder = self.feed().join("blob");
        let write = |error| PublishError::File("write into", folder.clone(), error);
        let mut source = File::open(path).map_err(read)?;
        let sink = Hashed {
            inner: Aside::begin(&folder, Readers::All).map_err(write)?,
            sha256: Sha256::new(),
            size: 0,
        };
        let mut packed = zstd::Encoder::new(sink, self.draft.level).map_err(write)?;
        packed.window_log(WINDOW_LOG.min(20 + self.draft.level.unsigned_abs() / 5)).map_err(write)?;
        let (mut raw, mut raw_size) = (Sha256::new(), 0u64);
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let read = source.read(&mut buffer).map_err(read)?;
            if read == 0 {
                break;
            }
            raw.update(&buffer[..read]);
            raw_size += read as u64;
            packed.write_all(&buffer[..read]).map_err(write)?;
        }
        if raw_size == 0 {
            return Err(PublishError::Value(format!("{} is empty", path.display())));
        }
        let blob = packed.finish().map_err(write)?;
        let hash = Digest(blob.sha256.finalize().into());
        blob.inner.publish(&folder.join(hash.to_string())).map_err(write)?;
        Ok(Artifact {
            kind: Kind::Worker,
            target,
            encoding: Encoding::Zstd,
            size: blob.size,
            sha256: hash,
            raw_size,
            raw_sha256: Digest(raw.finalize().into()),
        })
    }

    /// Puts a signed file on the feed: its signatures first, so that no client meets it without them.
    fn put(&self, name: &Path, bytes: &[u8], signatures: &str) -> Result<(), PublishError> {
        let path = self.feed().join(name);
        let mut sigs = path.clone().into_os_string();
        sigs.push(".sigs");
        for (path, bytes) in [(PathBuf::from(sigs), signatures.as_bytes()), (path, bytes)] {
            file::write(&path, bytes, Readers::All)
                .map_err(|error| PublishError::File("write", path, error))?;
        }
        Ok(())
    }

    fn save(&self) -> Result<(), PublishError> {
        let path = self.folder.join("draft.json");
        file::write(&path, &json(&self.draft), Readers::Owner)
            .map_err(|error| PublishError::File("write", path, error))
    }
}

fn entry<'a>(
    index: &'a mut IndexDocument,
    version: &Version,
) -> Result<&'a mut ReleaseDocument, PublishError> {
    let found = index.releases.iter_mut().find(|entry| entry.release == *version);
    found.ok_or_else(|| PublishError::Unknown(version.clone()))
}

/// The highest index on the feed, which is the one to name: it is written before the draft that counts it.
fn newest_index(feed: &Path) -> Result<Option<u64>, PublishError> {
    let folder = feed.join("index");
    let list = |error| PublishError::File("list", folder.clone(), error);
    let mut newest = None;
    for entry in fs::read_dir(&folder).map_err(list)? {
        let name = entry.map_err(list)?.file_name();
        let version =
            name.to_str().and_then(|name| name.strip_suffix(".json")).and_then(|name| name.parse().ok());
        newest = newest.max(version);
    }
    Ok(newest)
}

/// What the artifact prints when it is run with `--describe`.
fn describe(artifact: &Path) -> Result<Description, PublishError> {
    let failed = |why: String| PublishError::Describe(artifact.to_owned(), why);
    let path = artifact.canonicalize().map_err(|error| failed(error.to_string()))?;
    let output = Command::new(path).arg("--describe").stdin(Stdio::null()).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(format!("`--describe` ended with {}", output.status)));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
}

/// Our own types, which serde_json can always write.
fn json<T: Serialize>(document: &T) -> Vec<u8> {
    serde_json::to_vec(document).unwrap_or_default()
}

fn random() -> Result<Digest, PublishError> {
    let mut bytes = [0; 32];
    let path = Path::new("/dev/urandom");
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| PublishError::File("read", path.to_owned(), error))?;
    Ok(Digest(bytes))
}

/// Counts and hashes what passes through.
struct Hashed<W> {
    inner: W,
    sha256: Sha256,
    size: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sha256.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

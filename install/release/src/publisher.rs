//! A feed, the next index of each of its channels, and how they get there.
//!
//! A change is made to the draft. [`Publisher::publish`] writes down exactly what is to be signed, signs with
//! the keys at hand, and puts on the feed what enough keys have signed; the rest waits on the [`Desk`].

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};

use bumpless_shared::control::Description;
use bumpless_shared::digest::Digest;
use bumpless_shared::release::{Release, Version};
use bumpless_trust::build::BuildDocument;
use bumpless_trust::document::{
    Build, Channel, Elders, Extra, Group, IndexDocument, IndexType, KeysDocument, ReleaseDocument, Rollout,
    RootDocument, RootType, SPEC, Stage, TIMESTAMP_VALID, root_path,
};
use bumpless_trust::keys::Keys;
use bumpless_trust::refresh::sha256;
use bumpless_trust::signature::Signatures;

use crate::artifact::{describe, pack};
use crate::channels::find;
use crate::desk::{Desk, NotMerged, Pending, Tally, Waiting, sigs_of};
use crate::document::{Document, json, root_name};
use crate::draft::Draft;
use crate::error::PublishError;
use crate::file::{self, Readers};
use crate::key::KeyError;
use crate::keyring::{Keyring, public};
use crate::password::Passwords;
use crate::published::newest_root;
use crate::signer::{Signer, Standing};

/// How long an index is valid: long enough that only the timestamp has to be renewed by a machine.
pub(crate) const INDEX_VALID: u64 = 90 * 86_400;
/// How long a root is valid.
pub(crate) const ROOT_VALID: u64 = 2 * 365 * 86_400;

/// What a new feed is.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which network; a random one if absent.
    pub network: Option<Digest>,
    /// Its first channel.
    pub channel: Channel,
    /// Seconds that a timestamp is valid, at most 30 days.
    pub timestamp_valid: u64,
    /// zstd level, 1 (fast) to 19 (small).
    pub level: i32,
    /// Unix seconds.
    pub now: u64,
    /// Whose keys speak for which role.
    pub holders: Holders,
}

/// Whose keys speak for which role. A new key is made in `keys/` for a role that nobody holds; builders may be
/// nobody at all.
#[derive(Clone, Debug, Default)]
pub struct Holders {
    /// Of the root.
    pub root: Option<PublicKeys>,
    /// Of releases.
    pub release: Option<PublicKeys>,
    /// Of timestamps.
    pub timestamp: Option<PublicKeys>,
    /// Independent builders.
    pub builders: Option<PublicKeys>,
}

/// Public keys that were made elsewhere.
#[derive(Clone, Debug)]
pub struct PublicKeys {
    /// minisign `.pub` files; a file's name is what its holder is called.
    pub files: Vec<PathBuf>,
    /// How many of them must have signed.
    pub threshold: NonZeroU8,
}

impl Options {
    /// A feed of this channel, with one new key for each role, timestamps of 72 hours and fast compression.
    pub fn new(channel: Channel, now: u64) -> Self {
        let (timestamp_valid, holders) = (TIMESTAMP_VALID, Holders::default());
        Options { network: None, channel, timestamp_valid, level: 1, now, holders }
    }
}

/// What to say about a release beside its bytes.
#[derive(Clone, Debug, Default)]
pub struct Addition {
    /// What the artifact says about itself; absent: it is run with `--describe`.
    pub description: Option<Description>,
    /// For which machine; absent: machines like this one.
    pub target: Option<String>,
    /// Its place in the order; absent: one more than the highest of the channel, or where that is not `stable` and
    /// there are several the next full hundred.
    pub counter: Option<u64>,
    /// The lowest supervisor that can run it; absent: 0.1.0.
    pub min_supervisor: Option<[u32; 3]>,
    /// When it reaches how many machines; absent: all at once.
    pub rollout: Option<Rollout>,
    /// It does not wait for a maintenance window nor, where what runs is revoked, for its stage.
    pub urgent: bool,
    /// Source revision, for people and builders.
    pub commit: String,
}

/// How a release spreads over the machines.
#[derive(Clone, Debug, Default)]
pub struct Spread {
    /// When the first stage can begin, unix seconds.
    pub start: u64,
    /// Only machines of this group; absent: any.
    pub group: Option<Group>,
    /// Groups that wait for no stage.
    pub canaries: Vec<Group>,
    /// In rising order.
    pub stages: Vec<Stage>,
}

/// A feed that can be changed and signed. While it is open, no other process can open it. It works on one of its
/// channels at a time, at first on `stable` if it has that.
#[derive(Debug)]
pub struct Publisher {
    pub(crate) folder: PathBuf,
    /// Of the channel that is worked on.
    pub(crate) draft: Draft,
    /// Of the others.
    pub(crate) others: Vec<Draft>,
    pub(crate) touched: BTreeSet<Channel>,
    pub(crate) ring: Keyring,
    pub(crate) desk: Desk,
    _lock: File,
}

impl Publisher {
    /// Makes a feed in `folder`: keys for the roles that nobody holds, and the first root, which is published
    /// if the keys at hand are enough for it.
    ///
    /// # Errors
    /// There is one already, a key cannot be used, or a file cannot be written.
    pub fn init(folder: &Path, options: &Options) -> Result<Self, PublishError> {
        if Draft::load_all(folder).is_ok() || folder.join("keys").exists() {
            return Err(PublishError::Exists(folder.to_owned()));
        }
        let Holders { root, release, timestamp, builders } = &options.holders;
        // Before anything is made: what was mistyped should not have to be cleared away.
        for PublicKeys { files, threshold } in [root, release, timestamp, builders].into_iter().flatten() {
            let texts = files.iter().map(|path| Ok(public(path)?.text().to_owned()));
            let keys = KeysDocument { threshold: *threshold, keys: texts.collect::<Result<_, KeyError>>()? };
            Keys::parse(&keys).map_err(|why| PublishError::Value(why.to_string()))?;
        }
        let index = Path::new("feed").join(options.channel.folder()).join("index");
        for part in
            [Path::new("keys"), "feed/root".as_ref(), "feed/build".as_ref(), "feed/blob".as_ref(), &index]
        {
            let path = folder.join(part);
            fs::create_dir_all(&path).map_err(|error| PublishError::File("create", path, error))?;
        }
        let lock = lock(folder)?;
        let mut ring = Keyring::open(&folder.join("keys"), Vec::new(), Passwords::default())?;
        let document = RootDocument {
            kind: RootType::Root,
            spec: SPEC,
            network: options.network.map_or_else(random, Ok)?,
            version: 1,
            expires: options.now + ROOT_VALID,
            root: seats(&mut ring, Signer::Root, root.as_ref())?,
            release: seats(&mut ring, Signer::Release, release.as_ref())?,
            timestamp: seats(&mut ring, Signer::Timestamp, timestamp.as_ref())?,
            timestamp_valid: (options.timestamp_valid != TIMESTAMP_VALID).then_some(options.timestamp_valid),
            builders: builders
                .as_ref()
                .map(|keys| seats(&mut ring, Signer::Builders, Some(keys)))
                .transpose()?,
            elders: Elders::Off,
            x: Extra::default(),
        };
        let standing = Standing::new(document.clone()).map_err(|why| PublishError::Value(why.to_string()))?;
        let index = IndexDocument {
            kind: IndexType::Index,
            spec: SPEC,
            network: document.network,
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
        let level = options.level.clamp(1, 19);
        let draft = Draft { index, changed: true, published: 0, timestamp_version: 0, level };
        let desk = Desk::new(folder.join("sign"));
        let (others, touched, folder) = (Vec::new(), BTreeSet::new(), folder.to_owned());
        let mut publisher = Publisher { folder, draft, others, touched, ring, desk, _lock: lock };
        let mut first = Pending::new(Document::Root(document));
        if publisher.signed_by(&mut first, &[&standing])?.is_none() {
            publisher.put(&first, first.sigs())?;
        }
        // Last: with it the folder is a feed.
        publisher.save()?;
        Ok(publisher)
    }

    /// Opens a feed that [`Publisher::init`] made; waits for another process that has it open.
    ///
    /// # Errors
    /// There is none, or a public key cannot be read.
    pub fn open(folder: &Path) -> Result<Self, PublishError> {
        Self::open_with(folder, Vec::new(), Passwords::default())
    }

    /// The same with more secret keys than those in `keys/`, and the passwords of encrypted ones.
    ///
    /// # Errors
    /// As [`Publisher::open`].
    pub fn open_with(folder: &Path, keys: Vec<PathBuf>, passwords: Passwords) -> Result<Self, PublishError> {
        // Asked before the lock makes a file there.
        Draft::load_all(folder)?;
        let lock = lock(folder)?;
        let mut drafts = Draft::load_all(folder)?.into_iter();
        let draft = drafts.next().ok_or_else(|| PublishError::NoFeed(folder.to_owned()))?;
        let ring = Keyring::open(&folder.join("keys"), keys, passwords)?;
        let desk = Desk::new(folder.join("sign"));
        let (others, touched, folder) = (drafts.collect(), BTreeSet::new(), folder.to_owned());
        Ok(Publisher { folder, draft, others, touched, ring, desk, _lock: lock })
    }

    /// The folder that may be served.
    pub fn feed(&self) -> PathBuf {
        self.folder.join("feed")
    }

    /// The first root: what a machine is given to begin with, together with the `.sigs` beside it.
    pub fn first_root(&self) -> PathBuf {
        self.feed().join(root_path(1))
    }

    /// SHA-256 of the first root, whether it is published or waits for signatures: what a machine can be given
    /// instead of the file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn fingerprint(&self) -> Result<Digest, PublishError> {
        let waiting = self.desk.path(&root_name(1));
        let path = if waiting.exists() { waiting } else { self.first_root() };
        let bytes = fs::read(&path).map_err(|error| PublishError::File("read", path, error))?;
        Ok(sha256(&bytes))
    }

    /// The next index, as it stands.
    pub fn index(&self) -> &IndexDocument {
        &self.draft.index
    }

    /// Adds an artifact to a release, in every channel that has it, and the release to the next index if no
    /// channel has it. Adding the same bytes for the same target again changes nothing.
    ///
    /// # Errors
    /// The artifact cannot be read or does not describe itself, the release is there with other contents, or
    /// another channel has it, from which it is to be promoted.
    pub fn add(
        &mut self,
        artifact: &Path,
        version: &Version,
        addition: Addition,
    ) -> Result<Release, PublishError> {
        let has = |draft: &&Draft| find(&draft.index, version).is_some();
        if !has(&&self.draft)
            && let Some(other) = self.others.iter().find(has)
        {
            return Err(PublishError::Elsewhere(version.clone(), other.index.channel.clone()));
        }
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
        let artifact = pack(artifact, target, &self.feed().join("blob"), self.draft.level)?;
        let release = Release { version: version.clone(), sha256: artifact.raw_sha256 };
        let builders = self.asks_builders()?;
        let counter = addition.counter.unwrap_or_else(|| self.next_counter());
        let taken = self.counters().any(|other| other == counter);
        self.change(|index| {
            let network = index.network;
            if let Some(entry) = index.releases.iter_mut().find(|entry| entry.release == *version) {
                let same_ranges = (entry.contract, entry.protocol, entry.state)
                    == (description.contract, description.protocol, description.state);
                match entry.artifacts.iter().find(|other| other.target == artifact.target) {
                    Some(other) if *other == artifact && same_ranges => {}
                    None if same_ranges => entry.artifacts.push(artifact),
                    Some(_) | None => return Err(PublishError::Taken(version.clone(), entry.counter)),
                }
                if builders {
                    entry.build.sums_sha256 = Some(build_name(network, entry));
                }
                return Ok(());
            }
            if taken {
                return Err(PublishError::Taken(version.clone(), counter));
            }
            let rollout = match addition.rollout {
                Some(rollout) => rollout,
                None => Rollout {
                    start: 0,
                    salt: random()?.short(),
                    group: None,
                    canaries: Vec::new(),
                    stages: vec![Stage { after: 0, permille: 1000 }],
                },
            };
            let mut entry = ReleaseDocument {
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
            };
            if builders {
                entry.build.sums_sha256 = Some(build_name(network, &entry));
            }
            index.releases.push(entry);
            Ok(())
        })?;
        let ReleaseDocument { artifacts, build, .. } = entry(&mut self.draft.index, version)?.clone();
        self.each(|publisher| {
            publisher.change(|index| {
                if let Ok(entry) = entry(index, version) {
                    (entry.artifacts, entry.build) = (artifacts.clone(), build.clone());
                }
                Ok(())
            })
        })?;
        Ok(release)
    }

    /// Lets a release spread like this. If the channel does not have it, it is taken over from another one, which
    /// comes back.
    ///
    /// # Errors
    /// There is no such release, it cannot be taken over, or the stages do not rise.
    pub fn promote(&mut self, version: &Version, spread: Spread) -> Result<Option<Channel>, PublishError> {
        let (from, new) = match find(&self.draft.index, version) {
            Some(_) => (None, None),
            None => {
                let (from, mut entry) = self.taken_over(version)?;
                // Or the same machines would be first again.
                entry.rollout.salt = random()?.short();
                (Some(from), Some(entry))
            }
        };
        self.change(|index| {
            index.releases.extend(new);
            let rollout = &mut entry(index, version)?.rollout;
            let Spread { start, group, canaries, stages } = spread;
            *rollout = Rollout { start, salt: std::mem::take(&mut rollout.salt), group, canaries, stages };
            Ok(())
        })?;
        Ok(from)
    }

    /// Forbids a release in all channels: no machine starts any artifact of it again.
    ///
    /// # Errors
    /// No channel has such a release.
    pub fn revoke(&mut self, version: &Version) -> Result<(), PublishError> {
        let entries = self.drafts().filter_map(|draft| find(&draft.index, version));
        let hashes: Vec<Digest> =
            entries.flat_map(|entry| &entry.artifacts).map(|artifact| artifact.raw_sha256).collect();
        if hashes.is_empty() {
            return Err(PublishError::Unknown(version.clone()));
        }
        self.each(|publisher| {
            publisher.change(|index| {
                index.revoked.extend(&hashes);
                index.revoked.sort_unstable();
                index.revoked.dedup();
                Ok(())
            })
        })
    }

    /// Takes a release out of the next index, which has room for some hundreds. What runs it runs on; its
    /// blob is left to those who are reading the present index.
    ///
    /// # Errors
    /// There is no such release, or the draft cannot be saved.
    pub fn drop_release(&mut self, version: &Version) -> Result<(), PublishError> {
        entry(&mut self.draft.index, version)?;
        self.change(|index| {
            index.releases.retain(|entry| entry.release != *version);
            Ok(())
        })
    }

    /// Forbids every release below this counter on the channel.
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
        if index == self.draft.index {
            return Ok(());
        }
        self.draft.index = index;
        self.draft.changed = true;
        self.touched.insert(self.channel().clone());
        self.save()
    }

    /// Whether the root that is in force, or the one that waits, names builders.
    fn asks_builders(&self) -> Result<bool, PublishError> {
        let published = newest_root(&self.feed())?;
        let next = root_name(published.as_ref().map_or(1, |root| root.version() + 1));
        let waits = match self.desk.find(&next)? {
            Some(pending) => matches!(pending.document(), Document::Root(root) if root.builders.is_some()),
            None => false,
        };
        Ok(waits || published.is_some_and(|root| root.keys(Signer::Builders).is_some()))
    }

    /// Signs with the keys at hand. Where some are still missing under one of these roots, it lies on the desk
    /// and what is missing comes back.
    pub(crate) fn signed_by(
        &mut self,
        pending: &mut Pending,
        roots: &[&Standing],
    ) -> Result<Option<Waiting>, PublishError> {
        let signer = pending.document().signer();
        for keys in roots.iter().filter_map(|root| root.keys(signer)) {
            pending.sign_at_hand(keys, &mut self.ring)?;
        }
        let tallies = self.tallies(pending, roots);
        if tallies.iter().all(Tally::is_met) {
            return Ok(None);
        }
        let file = self.desk.put(pending)?;
        Ok(Some(Waiting { file, tallies }))
    }

    /// Whose signatures a file has and whose are missing, by each of these roots.
    pub(crate) fn tallies(&self, pending: &Pending, roots: &[&Standing]) -> Vec<Tally> {
        roots.iter().filter_map(|root| pending.tally(root, &self.ring)).collect()
    }

    /// Puts a signed file on the feed: its signatures first, so that no client meets it without them.
    pub(crate) fn put(&self, file: &Pending, sigs: &str) -> Result<(), PublishError> {
        let path = self.feed().join(file.document().path());
        // More than a machine reads, where very many keys signed.
        let bad = |why| PublishError::NotMerged(sigs_of(&path), NotMerged::Signatures(why));
        Signatures::parse(sigs.as_bytes()).map_err(bad)?;
        for (path, bytes) in [(sigs_of(&path), sigs.as_bytes()), (path, file.bytes())] {
            file::write(&path, bytes, Readers::All)
                .map_err(|error| PublishError::File("write", path, error))?;
        }
        self.desk.clear(&file.document().name())
    }

    pub(crate) fn save(&self) -> Result<(), PublishError> {
        self.draft.save(&self.folder)
    }
}

/// A role's keys: the holders', or a new one.
fn seats(
    ring: &mut Keyring,
    signer: Signer,
    holders: Option<&PublicKeys>,
) -> Result<KeysDocument, PublishError> {
    let Some(PublicKeys { files, threshold }) = holders else {
        let key = ring.make(&signer.to_string())?;
        return Ok(KeysDocument { threshold: NonZeroU8::MIN, keys: vec![key.text().to_owned()] });
    };
    let mut keys = Vec::new();
    for path in files {
        keys.push(ring.take(path)?.text().to_owned());
    }
    Ok(KeysDocument { threshold: *threshold, keys })
}

/// The name of what builders of a release sign.
fn build_name(network: Digest, entry: &ReleaseDocument) -> Digest {
    sha256(&json(&BuildDocument::of(network, entry)))
}

fn entry<'a>(
    index: &'a mut IndexDocument,
    version: &Version,
) -> Result<&'a mut ReleaseDocument, PublishError> {
    let found = index.releases.iter_mut().find(|entry| entry.release == *version);
    found.ok_or_else(|| PublishError::Unknown(version.clone()))
}

/// Two processes that publish at once would give out a version twice.
fn lock(folder: &Path) -> Result<File, PublishError> {
    let path = folder.join("lock");
    let locked = File::create(&path).and_then(|file| {
        if file.try_lock().is_err() {
            eprintln!("bumpless-release: waits for another one that has {} open", folder.display());
            file.lock()?;
        }
        Ok(file)
    });
    locked.map_err(|error| PublishError::File("lock", path, error))
}

fn random() -> Result<Digest, PublishError> {
    let mut bytes = [0; 32];
    let path = Path::new("/dev/urandom");
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| PublishError::File("read", path.to_owned(), error))?;
    Ok(Digest(bytes))
}

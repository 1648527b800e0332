//! A publisher in memory: makes and signs the files of a feed, honestly or not.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::num::NonZeroU8;
use std::rc::Rc;

use bumpless_shared::control::StateRange;
use bumpless_shared::digest::Digest;
use bumpless_shared::version::Range;
use bumpless_trust::build::{BUILDERS, BuildDocument};
use bumpless_trust::document::*;
use bumpless_trust::refresh::sha256;
use bumpless_trust::signature::trusted_comment;
use bumpless_trust::{
    Answer, At, Damage, Expiry, Keep, Machine, Refresh, Refused, Role, Signed, Stored, Trusted,
};
use minisign::KeyPair;

pub const NOW: u64 = 1_800_000_000;
pub const DAY: u64 = 86_400;
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

pub fn pair() -> Rc<KeyPair> {
    Rc::new(KeyPair::generate_unencrypted_keypair().unwrap())
}

pub fn keys(threshold: u8, pairs: &[Rc<KeyPair>]) -> KeysDocument {
    let keys = pairs.iter().map(|pair| pair.pk.to_base64()).collect();
    KeysDocument { threshold: NonZeroU8::new(threshold).unwrap(), keys }
}

pub fn sign(bytes: Vec<u8>, comment: &str, by: &[Rc<KeyPair>]) -> Signed {
    let one = |pair: &Rc<KeyPair>| {
        minisign::sign(Some(&pair.pk), &pair.sk, &bytes[..], Some(comment), Some("test"))
            .unwrap()
            .into_string()
    };
    let signatures = by.iter().map(one).collect::<String>().into_bytes();
    Signed { bytes, signatures }
}

pub fn release(version: &str, counter: u64) -> ReleaseDocument {
    let raw = sha256(version.as_bytes());
    ReleaseDocument {
        release: version.parse().unwrap(),
        counter,
        urgent: false,
        min_supervisor: [0, 1, 0],
        contract: Range { min: 1, max: 1 },
        protocol: Range { min: 1, max: 1 },
        state: StateRange { read_min: 1, read_max: 1, write: 1 },
        rollout: Rollout {
            start: 0,
            salt: version.to_owned(),
            group: None,
            canaries: vec![],
            stages: vec![Stage { after: 0, permille: 1000 }],
        },
        build: Build { sums_sha256: None, commit: String::new() },
        artifacts: vec![Artifact {
            kind: Kind::Worker,
            target: TARGET.to_owned(),
            encoding: Encoding::Zstd,
            size: 7,
            sha256: sha256(b"blob"),
            raw_size: 9,
            raw_sha256: raw,
        }],
        x: Extra::default(),
    }
}

pub fn machine() -> Machine {
    Machine {
        targets: vec![TARGET.to_owned()],
        supervisor: [0, 1, 0],
        contract: Range { min: 1, max: 1 },
        state: Some(StateRange { read_min: 1, read_max: 1, write: 1 }),
        id: Digest([7; 32]),
        group: None,
        pin: None,
    }
}

/// The publisher, its keys and its next files.
#[derive(Clone)]
pub struct Feed {
    pub roots: Vec<Rc<KeyPair>>,
    pub releases: Vec<Rc<KeyPair>>,
    pub timestamps: Vec<Rc<KeyPair>>,
    pub root: RootDocument,
    pub index: IndexDocument,
    pub timestamp: TimestampDocument,
    /// Whose names index and timestamp get, whatever they say.
    pub place: Channel,
    pub files: HashMap<String, Signed>,
}

impl Feed {
    pub fn new() -> Self {
        let network = sha256(b"network");
        let channel: Channel = "stable".parse().unwrap();
        let (roots, releases, timestamps) = (vec![pair()], vec![pair()], vec![pair()]);
        let root = RootDocument {
            kind: RootType::Root,
            spec: 1,
            network,
            version: 1,
            expires: NOW + 365 * DAY,
            root: keys(1, &roots),
            release: keys(1, &releases),
            timestamp: keys(1, &timestamps),
            timestamp_valid: None,
            builders: None,
            elders: Elders::Off,
            x: Extra::default(),
        };
        let index = IndexDocument {
            kind: IndexType::Index,
            spec: 1,
            network,
            channel: channel.clone(),
            version: 1,
            issued: NOW,
            expires: NOW + 30 * DAY,
            min_release_counter: 0,
            revoked: vec![],
            paused: false,
            protocol_min: 1,
            protocol_revoked: vec![],
            x: Extra::default(),
            releases: vec![release("1.0.0", 1)],
        };
        let pin = IndexPin { version: 0, size: 0, sha256: network };
        let timestamp = TimestampDocument {
            kind: TimestampType::Timestamp,
            spec: 1,
            network,
            channel,
            version: 0,
            issued: NOW,
            expires: NOW + DAY,
            index: pin,
            x: Extra::default(),
        };
        let (place, files) = (Channel::default(), HashMap::new());
        let mut feed = Feed { roots, releases, timestamps, root, index, timestamp, place, files };
        feed.publish_root(&feed.roots.clone());
        feed.publish();
        feed
    }

    pub fn put(&mut self, name: &str, signed: Signed) {
        self.files.insert(name.to_owned(), signed);
    }

    pub fn publish_root(&mut self, by: &[Rc<KeyPair>]) {
        let bytes = serde_json::to_vec(&self.root).unwrap();
        let version = self.root.version;
        let signed = sign(bytes, &trusted_comment(Role::Root, version), by);
        self.put(&format!("root/{version}.json"), signed);
    }

    pub fn publish_index(&mut self) {
        let bytes = serde_json::to_vec(&self.index).unwrap();
        self.publish_index_bytes(bytes);
    }

    pub fn publish_index_bytes(&mut self, bytes: Vec<u8>) {
        let version = self.index.version;
        self.timestamp.index = IndexPin { version, size: bytes.len() as u64, sha256: sha256(&bytes) };
        let signed = sign(bytes, &trusted_comment(Role::Release, version), &self.releases);
        self.put(Role::Release.path(&self.place, version).to_str().unwrap(), signed);
    }

    pub fn publish_timestamp(&mut self) {
        self.timestamp.version += 1;
        self.resign_timestamp();
    }

    pub fn resign_timestamp(&mut self) {
        let bytes = serde_json::to_vec(&self.timestamp).unwrap();
        let signed = sign(bytes, &trusted_comment(Role::Timestamp, self.timestamp.version), &self.timestamps);
        self.put(Role::Timestamp.path(&self.place, 0).to_str().unwrap(), signed);
    }

    pub fn publish(&mut self) {
        self.publish_index();
        self.publish_timestamp();
    }

    pub fn next(&mut self) {
        self.index.version += 1;
        self.publish();
    }

    /// Has these builders sign what the release at this place consists of, after `change`; the index names it.
    /// Nothing is published yet.
    pub fn attest(
        &mut self,
        at: usize,
        by: &[Rc<KeyPair>],
        change: impl FnOnce(&mut BuildDocument),
    ) -> Digest {
        let mut build = BuildDocument::of(self.root.network, &self.index.releases[at]);
        change(&mut build);
        let bytes = serde_json::to_vec(&build).unwrap();
        let name = sha256(&bytes);
        self.index.releases[at].build.sums_sha256 = Some(name);
        let signed = sign(bytes, &trusted_comment(BUILDERS, build.counter), by);
        self.put(&format!("build/{name}"), signed);
        name
    }

    /// The next root, after `change`, signed by both sets of root keys.
    pub fn rotate(&mut self, change: impl FnOnce(&mut Feed)) {
        let mut by = self.roots.clone();
        change(self);
        by.extend(
            self.roots
                .iter()
                .filter(|new| !by.iter().any(|old| Rc::ptr_eq(old, new)))
                .cloned()
                .collect::<Vec<_>>(),
        );
        self.root.version += 1;
        self.root.root.keys = keys(1, &self.roots).keys;
        self.root.release.keys = keys(1, &self.releases).keys;
        self.root.timestamp.keys = keys(1, &self.timestamps).keys;
        self.publish_root(&by);
    }

    pub fn anchor(&self) -> Signed {
        self.files["root/1.json"].clone()
    }
}

/// A client: what it keeps, and the names that it asked the feed for.
#[derive(Clone)]
pub struct Client {
    pub kept: Vec<(Role, u64, Signed)>,
    /// What was kept of channels that are not followed now.
    pub elsewhere: HashMap<Channel, Vec<(Role, u64, Signed)>>,
    pub asked: Vec<String>,
    pub anchor: Option<Signed>,
    pub channel: Channel,
    pub now: u64,
    pub expiry: Expiry,
    /// Keeps only so many changes, then dies.
    pub dies_after: Option<usize>,
}

impl Client {
    pub fn new(feed: &Feed) -> Self {
        Client {
            kept: vec![],
            elsewhere: HashMap::new(),
            asked: vec![],
            anchor: Some(feed.anchor()),
            channel: "stable".parse().unwrap(),
            now: NOW,
            expiry: Expiry::Counts,
            dies_after: None,
        }
    }

    /// Makes one change durable; false if the process died instead.
    pub fn keep(&mut self, change: Keep) -> bool {
        match &mut self.dies_after {
            Some(0) => return false,
            Some(left) => *left -= 1,
            None => {}
        }
        match change {
            Keep::Put(role, version, signed) => {
                self.kept.retain(|(r, v, _)| (*r, *v) != (role, version));
                self.kept.push((role, version, signed));
            }
            Keep::Forget(role) => {
                for kept in self.elsewhere.values_mut().chain([&mut self.kept]) {
                    kept.retain(|(r, _, _)| *r != role);
                }
            }
            Keep::DropOlder(role, version) => self.kept.retain(|(r, v, _)| *r != role || *v >= version),
            Keep::DropOthers(role, version) => {
                self.kept.retain(|(r, v, _)| *r != role || Some(*v) == version);
            }
        }
        true
    }

    /// Follows another channel from now on.
    pub fn follow(&mut self, channel: &str) {
        let (roots, others) = self.kept.drain(..).partition(|(role, _, _)| *role == Role::Root);
        self.kept = roots;
        self.elsewhere.insert(std::mem::replace(&mut self.channel, channel.parse().unwrap()), others);
        self.kept.extend(self.elsewhere.remove(&self.channel).unwrap_or_default());
    }

    pub fn load(&mut self) -> Result<Trusted, Refused> {
        let (trusted, damage) = self.load_damaged()?;
        assert_eq!(damage, []);
        Ok(trusted)
    }

    /// The same where something may be damaged.
    pub fn load_damaged(&mut self) -> Result<(Trusted, Vec<Damage>), Refused> {
        let of = |role: Role| {
            self.kept.iter().filter(|(r, _, _)| *r == role).map(|(_, _, signed)| signed.clone()).collect()
        };
        let stored =
            Stored { roots: of(Role::Root), timestamps: of(Role::Timestamp), indexes: of(Role::Release) };
        let (trusted, keep, damage) = Trusted::load(self.anchor.clone(), stored, self.channel.clone())?;
        for change in keep {
            self.keep(change);
        }
        Ok((trusted, damage))
    }

    /// A process's life: load, refresh, end. Nothing if it died on the way.
    pub fn refresh(&mut self, feed: &Feed) -> Result<Option<Trusted>, Refused> {
        self.asked.clear();
        let at = At { expiry: self.expiry, ..At::new(self.now, NOW - 365 * DAY) };
        let mut refresh = Refresh::begin_at(self.load()?, at)?;
        while let Some((path, _)) = refresh.file() {
            let name = path.to_str().unwrap();
            self.asked.push(name.to_owned());
            let answer = feed.files.get(name).map_or(Answer::Missing, |signed| Answer::Found(signed.clone()));
            for change in refresh.answer(answer)? {
                if !self.keep(change) {
                    return Ok(None);
                }
            }
        }
        Ok(Some(refresh.trusted().clone()))
    }

    pub fn versions(&self, role: Role) -> Vec<u64> {
        let mut versions: Vec<u64> =
            self.kept.iter().filter(|(r, _, _)| *r == role).map(|(_, v, _)| *v).collect();
        versions.sort_unstable();
        versions
    }
}

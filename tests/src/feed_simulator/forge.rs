//! A publisher in memory, for which nothing is impossible: it signs what it is told to.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is part of tests")]

use std::collections::BTreeMap;
use std::num::NonZeroU8;
use std::sync::Arc;

use bumpless_shared::digest::Digest;
use bumpless_trust::build::{BUILDERS, BuildDocument};
use bumpless_trust::document::{
    Elders, Extra, IndexDocument, IndexPin, IndexType, KeysDocument, ReleaseDocument, RootDocument, RootType,
    SPEC, TimestampDocument, TimestampType,
};
use bumpless_trust::refresh::sha256;
use bumpless_trust::signature::trusted_comment;
use bumpless_trust::{Role, Signed};
use minisign::KeyPair;

/// Secret keys that sign together.
pub type Keyring = Vec<Arc<KeyPair>>;

/// Seconds.
pub const DAY: u64 = 86_400;

/// A new key.
pub fn key() -> Arc<KeyPair> {
    Arc::new(KeyPair::generate_unencrypted_keypair().expect("there are random bytes"))
}

/// So many new keys.
pub fn new_keys(count: usize) -> Keyring {
    (0..count).map(|_| key()).collect()
}

/// How a root lists them.
pub fn listed(threshold: u8, ring: &[Arc<KeyPair>]) -> KeysDocument {
    let keys = ring.iter().map(|pair| pair.pk.to_base64()).collect();
    KeysDocument { threshold: NonZeroU8::new(threshold).expect("a threshold of 0 cannot be listed"), keys }
}

/// The text of a `.sigs` file: one signature by each.
pub fn signatures(bytes: &[u8], comment: &str, by: &[Arc<KeyPair>]) -> String {
    let one = |pair: &Arc<KeyPair>| {
        let signature = minisign::sign(Some(&pair.pk), &pair.sk, bytes, Some(comment), Some("forged"));
        signature.expect("an unencrypted key signs anything").into_string()
    };
    by.iter().map(one).collect()
}

/// These bytes with one signature by each.
pub fn signed(bytes: Vec<u8>, comment: &str, by: &[Arc<KeyPair>]) -> Signed {
    let signatures = signatures(&bytes, comment, by).into_bytes();
    Signed { bytes, signatures }
}

/// The publisher: its keys, what it will publish next, and what it has published.
#[derive(Clone, Debug)]
pub struct Forge {
    /// What it takes for the present, unix seconds.
    pub now: u64,
    /// Who signs roots.
    pub root_keys: Keyring,
    /// Who signs indexes.
    pub release_keys: Keyring,
    /// Who signs timestamps.
    pub timestamp_keys: Keyring,
    /// The newest root.
    pub root: RootDocument,
    /// The newest index.
    pub index: IndexDocument,
    /// The newest timestamp.
    pub timestamp: TimestampDocument,
    /// By name on the feed.
    pub files: BTreeMap<String, Signed>,
    running: ReleaseDocument,
}

impl Forge {
    /// A feed with a first root, a timestamp and an index that has this release, with one key for each role.
    pub fn new(now: u64, running: ReleaseDocument) -> Forge {
        let network = sha256(key().pk.to_base64().as_bytes());
        let channel: bumpless_trust::document::Channel = "stable".parse().expect("a channel");
        let (root_keys, release_keys, timestamp_keys) = (new_keys(1), new_keys(1), new_keys(1));
        let root = RootDocument {
            kind: RootType::Root,
            spec: SPEC,
            network,
            version: 1,
            expires: 0,
            root: listed(1, &root_keys),
            release: listed(1, &release_keys),
            timestamp: listed(1, &timestamp_keys),
            timestamp_valid: None,
            builders: None,
            elders: Elders::Off,
            x: Extra::default(),
        };
        let index = IndexDocument {
            kind: IndexType::Index,
            spec: SPEC,
            network,
            channel: channel.clone(),
            version: 1,
            issued: 0,
            expires: 0,
            min_release_counter: 0,
            revoked: vec![],
            paused: false,
            protocol_min: 1,
            protocol_revoked: vec![],
            x: Extra::default(),
            releases: vec![running.clone()],
        };
        let timestamp = TimestampDocument {
            kind: TimestampType::Timestamp,
            spec: SPEC,
            network,
            channel,
            version: 1,
            issued: 0,
            expires: 0,
            index: IndexPin { version: 1, size: 0, sha256: network },
            x: Extra::default(),
        };
        let files = BTreeMap::new();
        let mut forge =
            Forge { now, root_keys, release_keys, timestamp_keys, root, index, timestamp, files, running };
        forge.date();
        forge.publish_root(&forge.root_keys.clone());
        forge.publish();
        forge
    }

    /// Everything is valid from now on for as long as is usual.
    pub fn date(&mut self) {
        self.root.expires = self.now + 365 * DAY;
        (self.index.issued, self.index.expires) = (self.now, self.now + 30 * DAY);
        (self.timestamp.issued, self.timestamp.expires) = (self.now, self.now + DAY);
    }

    /// A new life: the next root replaces every key, so that timestamp and index begin again at version 1,
    /// and the index has the running release alone.
    pub fn renew(&mut self) {
        let by = [self.root_keys.clone(), new_keys(1)].concat();
        self.root_keys = by[by.len() - 1..].to_vec();
        (self.release_keys, self.timestamp_keys) = (new_keys(1), new_keys(1));
        let RootDocument { network, version, .. } = self.root;
        let running = self.running.clone();
        let fresh = Forge::new(self.now, running);
        self.root = RootDocument {
            network,
            version: version + 1,
            root: listed(1, &self.root_keys),
            release: listed(1, &self.release_keys),
            timestamp: listed(1, &self.timestamp_keys),
            ..fresh.root
        };
        self.index = IndexDocument { network, ..fresh.index };
        self.timestamp = TimestampDocument { network, ..fresh.timestamp };
        self.files.clear();
        self.publish_root(&by);
        self.publish();
    }

    /// Puts a file on the feed, whatever it is.
    pub fn put(&mut self, name: &str, signed: Signed) {
        self.files.insert(name.to_owned(), signed);
    }

    /// Signs the root as it is, and puts it in its place.
    pub fn publish_root(&mut self, by: &[Arc<KeyPair>]) {
        let bytes = serde_json::to_vec(&self.root).expect("a document is JSON");
        self.publish_root_bytes(bytes, by);
    }

    /// The same with these bytes, whatever they are.
    pub fn publish_root_bytes(&mut self, bytes: Vec<u8>, by: &[Arc<KeyPair>]) {
        let version = self.root.version;
        self.put(&format!("root/{version}.json"), signed(bytes, &trusted_comment(Role::Root, version), by));
    }

    /// The next root, after `change` of keys and of what else it says, signed by the root keys before it and
    /// by its own.
    pub fn rotate(&mut self, change: impl FnOnce(&mut Forge)) {
        let mut by = self.root_keys.clone();
        change(self);
        by.extend(
            self.root_keys
                .iter()
                .filter(|new| !by.iter().any(|old| Arc::ptr_eq(old, new)))
                .cloned()
                .collect::<Vec<_>>(),
        );
        self.root.version += 1;
        self.root.root.keys = listed(1, &self.root_keys).keys;
        self.root.release.keys = listed(1, &self.release_keys).keys;
        self.root.timestamp.keys = listed(1, &self.timestamp_keys).keys;
        self.publish_root(&by);
    }

    /// Signs the index as it is, puts it in its place, and has the next timestamp name it.
    pub fn publish_index(&mut self) {
        let bytes = serde_json::to_vec(&self.index).expect("a document is JSON");
        self.publish_index_bytes(bytes);
    }

    /// The same with these bytes, whatever they are.
    pub fn publish_index_bytes(&mut self, bytes: Vec<u8>) {
        let version = self.index.version;
        self.timestamp.index = IndexPin { version, size: bytes.len() as u64, sha256: sha256(&bytes) };
        let comment = trusted_comment(Role::Release, version);
        self.put(&format!("index/{version}.json"), signed(bytes, &comment, &self.release_keys));
    }

    /// Signs the timestamp as it is, and puts it in its place.
    pub fn publish_timestamp(&mut self) {
        let bytes = serde_json::to_vec(&self.timestamp).expect("a document is JSON");
        self.publish_timestamp_bytes(bytes);
    }

    /// The same with these bytes, whatever they are.
    pub fn publish_timestamp_bytes(&mut self, bytes: Vec<u8>) {
        let comment = trusted_comment(Role::Timestamp, self.timestamp.version);
        self.put("timestamp.json", signed(bytes, &comment, &self.timestamp_keys));
    }

    /// Index and timestamp as they are.
    pub fn publish(&mut self) {
        self.publish_index();
        self.publish_timestamp();
    }

    /// The next timestamp, which names the index that the last one named.
    pub fn tick(&mut self) {
        self.timestamp.version += 1;
        self.publish_timestamp();
    }

    /// The next index and the next timestamp.
    pub fn next(&mut self) {
        self.index.version += 1;
        self.publish_index();
        self.tick();
    }

    /// The next index with these bytes, whatever they are, and the next timestamp.
    pub fn next_bytes(&mut self, edit: impl FnOnce(String) -> String) {
        self.index.version += 1;
        let text = serde_json::to_string(&self.index).expect("a document is JSON");
        self.publish_index_bytes(edit(text).into_bytes());
        self.tick();
    }

    /// A release as the running one, under this name, in this place of the order, and of other bytes.
    pub fn release(&self, version: &str, counter: u64) -> ReleaseDocument {
        let mut release = self.running.clone();
        (release.release, release.counter) = (version.parse().expect("a version"), counter);
        let artifact = &mut release.artifacts[0];
        artifact.raw_sha256 = sha256(version.as_bytes());
        artifact.sha256 = sha256(&artifact.raw_sha256.0);
        release
    }

    /// The release that the machine runs.
    pub fn running(&self) -> &ReleaseDocument {
        &self.running
    }

    /// Has these builders sign what the index's release at this place consists of, after `change`; the index
    /// names it. It is not published yet.
    pub fn attest(
        &mut self,
        at: usize,
        by: &[Arc<KeyPair>],
        change: impl FnOnce(&mut BuildDocument),
    ) -> Digest {
        let mut build = BuildDocument::of(self.root.network, &self.index.releases[at]);
        change(&mut build);
        let bytes = serde_json::to_vec(&build).expect("a document is JSON");
        let name = sha256(&bytes);
        self.index.releases[at].build.sums_sha256 = Some(name);
        self.put(&format!("build/{name}"), signed(bytes, &trusted_comment(BUILDERS, build.counter), by));
        name
    }
}

//! A publisher, its server and one machine that follows it, in a temporary folder.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use bumpless_release::key::Key;
use bumpless_release::{Addition, Options, Publisher, Server};
use bumpless_shared::control::{Description, StateRange};
use bumpless_shared::digest::Digest;
use bumpless_shared::release::Release;
use bumpless_shared::version::Range;
use bumpless_trust::document::{Channel, Encoding, IndexDocument, IndexPin, Role, TimestampDocument};
use bumpless_trust::refresh::sha256;
use bumpless_trust::{At, Choice, Expiry, Machine, Request, WhyNot};
use bumplessd::feed::{Feed, FirstRoot, Settings, WRITTEN};
use bumplessd::releases::Releases;
use tempfile::TempDir;

/// Within the validity of everything that is published here.
pub const NOW: u64 = 1_800_000_000;

pub struct Lab {
    pub dir: TempDir,
    pub publisher: Publisher,
}

impl Lab {
    /// A feed with one release of these bytes.
    pub fn new(bytes: &[u8]) -> Lab {
        let dir = tempfile::tempdir().unwrap();
        for part in ["trust", "staging"] {
            std::fs::create_dir(dir.path().join(part)).unwrap();
        }
        let options = Options::new("stable".parse().unwrap(), NOW);
        let publisher = Publisher::init(&dir.path().join("publisher"), &options).unwrap();
        let mut lab = Lab { dir, publisher };
        lab.release("1.0.0", bytes);
        lab
    }

    pub fn release(&mut self, version: &str, bytes: &[u8]) -> Release {
        let path = self.dir.path().join("artifact");
        std::fs::write(&path, bytes).unwrap();
        let description = Description {
            release: version.parse().unwrap(),
            contract: Range { min: 1, max: 1 },
            protocol: Range { min: 1, max: 1 },
            state: StateRange { read_min: 1, read_max: 1, write: 1 },
        };
        let addition = Addition { description: Some(description), ..Addition::default() };
        let release = self.publisher.add(&path, &version.parse().unwrap(), addition).unwrap();
        self.publisher.publish(NOW).unwrap();
        release
    }

    /// Publishes the last index again, after `change`, under the next version, whatever it says.
    pub fn forge(&mut self, change: impl FnOnce(&mut IndexDocument)) {
        self.forge_in(&self.publisher.feed(), &Channel::default(), |index, _| change(index));
    }

    /// The same of a channel in a copy of the feed, and its timestamp, too; they go where the channel that they
    /// say has its files.
    pub fn forge_in(
        &self,
        feed: &Path,
        channel: &Channel,
        change: impl FnOnce(&mut IndexDocument, &mut TimestampDocument),
    ) {
        let key = |name: &str| Key::read(&self.dir.path().join("publisher/keys").join(name), None).unwrap();
        let mut timestamp: TimestampDocument =
            serde_json::from_slice(&std::fs::read(feed.join(Role::Timestamp.path(channel, 0))).unwrap())
                .unwrap();
        let old = feed.join(Role::Release.path(channel, timestamp.index.version));
        let mut index: IndexDocument = serde_json::from_slice(&std::fs::read(old).unwrap()).unwrap();
        index.version += 1;
        timestamp.version += 1;
        change(&mut index, &mut timestamp);
        let bytes = serde_json::to_vec(&index).unwrap();
        let put = |role: Role, version: u64, bytes: &[u8], key: Key| {
            let path = feed.join(role.path(&index.channel, version));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, bytes).unwrap();
            let signature = key.sign(role, version, bytes).unwrap();
            std::fs::write(format!("{}.sigs", path.display()), signature).unwrap();
        };
        put(Role::Release, index.version, &bytes, key("release.key"));
        timestamp.index =
            IndexPin { version: index.version, size: bytes.len() as u64, sha256: sha256(&bytes) };
        let bytes = serde_json::to_vec(&timestamp).unwrap();
        put(Role::Timestamp, timestamp.version, &bytes, key("timestamp.key"));
    }

    /// A copy of the feed as it is now.
    pub fn copy(&self, name: &str) -> PathBuf {
        let to = self.dir.path().join(name);
        copy(&self.publisher.feed(), &to);
        to
    }

    /// Lets the newest release have this blob, and claim to unpack to `raw`.
    pub fn forge_blob(&mut self, encoding: Encoding, blob: &[u8], raw: &[u8]) {
        let folder = self.publisher.feed().join("blob");
        std::fs::write(folder.join(sha256(blob).to_string()), blob).unwrap();
        self.forge(|index| {
            let artifact = &mut index.releases.last_mut().unwrap().artifacts[0];
            artifact.encoding = encoding;
            (artifact.size, artifact.sha256) = (blob.len() as u64, sha256(blob));
            (artifact.raw_size, artifact.raw_sha256) = (raw.len() as u64, sha256(raw));
        });
    }

    pub fn blob(&self) -> PathBuf {
        let releases = &self.publisher.index().releases;
        self.publisher.feed().join(releases.last().unwrap().artifacts[0].path())
    }

    pub fn server(&self) -> Server {
        Server::start(&self.publisher.feed()).unwrap()
    }

    pub fn settings(&self, places: &[&str]) -> Settings {
        Settings {
            places: places.iter().map(|place| (*place).to_owned()).collect(),
            channel: "stable".parse().unwrap(),
            root: Some(FirstRoot::File(self.publisher.first_root())),
            fetcher: Some(env!("CARGO_BIN_EXE_bumpless-fetch").into()),
            user: None,
            ca_file: None,
            allow_http_loopback: true,
            proxy: None,
            connect_timeout: Duration::from_secs(10),
            metadata_timeout: Duration::from_secs(10),
            blob_timeout: Duration::from_secs(60),
            min_rate: 1,
            trust_dir: self.dir.path().join("trust"),
            staging_dir: self.dir.path().join("staging"),
        }
    }

    /// The machine, following the feed's folder.
    pub fn feed(&self) -> Feed {
        self.feed_at(&[self.publisher.feed().to_str().unwrap()])
    }

    pub fn feed_at(&self, places: &[&str]) -> Feed {
        let (feed, notices) = Feed::open(self.settings(places)).unwrap();
        assert!(notices.is_empty(), "{notices:?}");
        feed
    }

    pub fn releases(&self) -> Releases {
        Releases::new(self.dir.path())
    }

    pub fn state_dir(&self) -> &Path {
        self.dir.path()
    }

    /// Refreshes and chooses the newest, as the first start of a machine does.
    pub async fn choice(&self, feed: &mut Feed) -> Choice {
        feed.refresh(NOW).await.unwrap();
        choose(feed).unwrap()
    }
}

/// A folder with everything in it.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let from = entry.unwrap().path();
        let to = to.join(from.file_name().unwrap());
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(&from, &to).unwrap();
        }
    }
}

pub fn choose(feed: &Feed) -> Result<Choice, WhyNot> {
    choose_at(feed, NOW, Expiry::Counts)
}

pub fn choose_at(feed: &Feed, now: u64, expiry: Expiry) -> Result<Choice, WhyNot> {
    let machine = Machine {
        targets: bumpless_trust::choice::targets(),
        supervisor: [0, 1, 0],
        contract: Range { min: 1, max: 1 },
        state: None,
        id: Digest([1; 32]),
        group: None,
        pin: None,
    };
    let at = At { now, built: WRITTEN, expiry };
    feed.trusted().choose_at(&machine, None, &Request::Newest, |_| None, at)
}

//! The signed files, field by field, exactly as they stand on a feed.
//!
//! | Name on the feed | Role | What it says |
//! |---|---|---|
//! | `root/<N>.json` | root | which keys speak for which role, in every channel |
//! | `timestamp.json` | timestamp | which index is the newest, renewed often |
//! | `index/<V>.json` | release | every release of one channel and which of them may run |
//! | `channel/<name>/timestamp.json`, `channel/<name>/index/<V>.json` | the same | the same of a channel other than `stable` |
//! | `build/<sha256>` | builders | what a release consists of, as its builders found; reached like a blob |
//! | `blob/<sha256>` | none | an artifact; reached only through its hash in the index |
//!
//! Each signed file has `<name>.sigs` beside it. Times are unix seconds, sizes are bytes. One feed may hold
//! several channels: each says in its own signed files which one it is, so that a file in another one's place is
//! refused. What a release consists of does not depend on the channel that it is in, nor does its counter: there
//! is one order for all.
//!
//! The formats can evolve without a flag day: the object `x` may hold anything and is ignored; an artifact of
//! an unknown `kind` is skipped whole; a new `spec` is published beside this one under names of its own
//! (`2/root/<N>.json` and so on, for as long as there are machines that read only this one). Every other
//! unknown field is refused, so that nothing which an author thought important is ever ignored.

use std::fmt;
use std::num::NonZeroU8;
use std::path::PathBuf;

use bumpless_shared::control::StateRange;
use bumpless_shared::digest::Digest;
use bumpless_shared::release::Version;
use bumpless_shared::version::Range;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

pub use crate::name::{Channel, Group, NotAChannel, NotAGroup};

/// The only `spec` that this crate reads.
pub const SPEC: u32 = 1;
/// Bytes of a root, timestamp or index; a larger one is refused unread.
pub const MAX_DOCUMENT: u64 = 256 * 1024;
/// Bytes of a file under `build/`: one line for each target.
pub const MAX_BUILD: u64 = 16 * 1024;
/// Bytes of a `.sigs` file.
pub const MAX_SIGNATURES: u64 = 16 * 1024;

/// For whom a set of keys speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Names the keys of every role, its own too.
    Root,
    /// Says which index is the newest.
    Timestamp,
    /// Signs the index.
    Release,
}

impl Role {
    /// The file of this role in a channel at `version`, relative to the feed's address. Roots belong to all
    /// channels.
    pub fn path(self, channel: &Channel, version: u64) -> PathBuf {
        match self {
            Role::Root => root_path(version),
            Role::Timestamp => channel.folder().join("timestamp.json"),
            Role::Release => channel.folder().join(format!("index/{version}.json")),
        }
    }

    /// What the file of this role is called in messages.
    pub fn file(self) -> &'static str {
        match self {
            Role::Root => "root",
            Role::Timestamp => "timestamp",
            Role::Release => "index",
        }
    }
}

/// The root of this version, relative to the feed's address.
pub fn root_path(version: u64) -> PathBuf {
    format!("root/{version}.json").into()
}

impl fmt::Display for Role {
    /// As in trusted comments.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Root => "root",
            Role::Timestamp => "timestamp",
            Role::Release => "release",
        })
    }
}

/// The object that may hold anything and is ignored.
pub type Extra = serde_json::Map<String, serde_json::Value>;

/// `root/<N>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootDocument {
    /// `root`.
    #[serde(rename = "type")]
    pub kind: RootType,
    /// [`SPEC`].
    pub spec: u32,
    /// Which network; the same in every file of a feed.
    pub network: Digest,
    /// Rises by exactly one.
    pub version: u64,
    /// From this second on it is expired.
    pub expires: u64,
    /// Who may sign the next root.
    pub root: KeysDocument,
    /// Who may sign an index.
    pub release: KeysDocument,
    /// Who may sign a timestamp.
    pub timestamp: KeysDocument,
    /// Seconds that a timestamp may be valid, at most [`MAX_TIMESTAMP_VALID`]; absent:
    /// [`TIMESTAMP_VALID`]. A root for a lab, where nobody re-signs every day, may allow more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp_valid: Option<u64>,
    /// Who must have built the same bytes; null: nobody else is asked.
    pub builders: Option<KeysDocument>,
    /// Whether the network's elders must have seen the same index.
    pub elders: Elders,
    /// Ignored.
    #[serde(default, skip_serializing_if = "Extra::is_empty")]
    pub x: Extra,
}

/// 72 hours: what a timestamp may be valid unless the root says otherwise.
pub const TIMESTAMP_VALID: u64 = 72 * 3600;
/// 30 days: what a root may allow.
pub const MAX_TIMESTAMP_VALID: u64 = 30 * 86_400;

/// A role in a root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysDocument {
    /// Distinct keys that must have signed.
    pub threshold: NonZeroU8,
    /// The second lines of minisign `.pub` files.
    pub keys: Vec<String>,
}

/// Whether the network's elders must have seen the same index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Elders {
    /// They are not asked.
    Off,
    /// They must have.
    Required,
}

/// `timestamp.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimestampDocument {
    /// `timestamp`.
    #[serde(rename = "type")]
    pub kind: TimestampType,
    /// [`SPEC`].
    pub spec: u32,
    /// Which network.
    pub network: Digest,
    /// Which channel.
    pub channel: Channel,
    /// Rises with every signing.
    pub version: u64,
    /// When it was signed.
    pub issued: u64,
    /// From this second on it is expired.
    pub expires: u64,
    /// The newest index.
    pub index: IndexPin,
    /// Ignored.
    #[serde(default, skip_serializing_if = "Extra::is_empty")]
    pub x: Extra,
}

/// One index, exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexPin {
    /// Its version.
    pub version: u64,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of its bytes.
    pub sha256: Digest,
}

/// `index/<V>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexDocument {
    /// `index`.
    #[serde(rename = "type")]
    pub kind: IndexType,
    /// [`SPEC`].
    pub spec: u32,
    /// Which network.
    pub network: Digest,
    /// Which channel.
    pub channel: Channel,
    /// Rises with every change.
    pub version: u64,
    /// When it was signed.
    pub issued: u64,
    /// From this second on it is expired.
    pub expires: u64,
    /// A release with a lower counter is neither installed nor gone back to.
    pub min_release_counter: u64,
    /// SHA-256 of uncompressed artifacts that must not be started.
    pub revoked: Vec<Digest>,
    /// Nothing new is installed while this is true.
    pub paused: bool,
    /// The lowest version of the protocol between nodes that the network still speaks.
    pub protocol_min: u16,
    /// Versions of that protocol that must not be spoken.
    pub protocol_revoked: Vec<u16>,
    /// Ignored.
    pub x: Extra,
    /// Every release of the channel.
    pub releases: Vec<ReleaseDocument>,
}

/// One release in an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseDocument {
    /// Its name, for people.
    pub release: Version,
    /// Its place in the order; no two releases share one.
    pub counter: u64,
    /// Does not wait for a maintenance window nor, where what runs is forbidden, for its turn in the rollout.
    pub urgent: bool,
    /// The lowest supervisor that can run it.
    pub min_supervisor: [u32; 3],
    /// Versions of the contract with the supervisor that it speaks.
    pub contract: Range,
    /// Versions of the protocol between nodes that it speaks.
    pub protocol: Range,
    /// Versions of the logical state stream that it reads and writes.
    pub state: StateRange,
    /// How it spreads over the machines.
    pub rollout: Rollout,
    /// Where it comes from.
    pub build: Build,
    /// What there is to run, by kind and target; unknown kinds are already left out.
    #[serde(deserialize_with = "known_artifacts")]
    pub artifacts: Vec<Artifact>,
    /// Ignored.
    #[serde(default, skip_serializing_if = "Extra::is_empty")]
    pub x: Extra,
}

/// How a release spreads: from `start` on, every canary may take it; from `start + after` on, machines whose
/// bucket is below `permille`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// When the first stage can begin.
    pub start: u64,
    /// Mixed with the machine's id, so that not always the same machines come first.
    pub salt: String,
    /// The stages reach only machines of this group; absent: any machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
    /// Groups that wait for no stage: with the only stage at 0 ‰, nobody but they take the release.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub canaries: Vec<Group>,
    /// In rising order.
    pub stages: Vec<Stage>,
}

/// One stage of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Seconds after the rollout's start.
    pub after: u64,
    /// Share of the machines, 0 to 1000.
    pub permille: u16,
}

/// Where a release comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// SHA-256 of the [`crate::build::BuildDocument`] that independent builders attest; null: none.
    pub sums_sha256: Option<Digest>,
    /// Source revision, for people.
    pub commit: String,
}

/// One file that can be installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// What it is.
    pub kind: Kind,
    /// For which machine, such as `x86_64-unknown-linux-musl`.
    pub target: String,
    /// How the blob holds it.
    pub encoding: Encoding,
    /// Bytes of the blob.
    pub size: u64,
    /// SHA-256 of the blob, and its name on the feed.
    pub sha256: Digest,
    /// Bytes of the artifact itself.
    pub raw_size: u64,
    /// SHA-256 of the artifact itself.
    pub raw_sha256: Digest,
}

impl Artifact {
    /// The blob's name on the feed.
    pub fn path(&self) -> PathBuf {
        format!("blob/{}", self.sha256).into()
    }
}

/// The kinds of artifacts that this supervisor understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The node.
    Worker,
}

/// How a blob holds its artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// As it is.
    Plain,
    /// One zstd frame.
    Zstd,
}

/// Reads artifacts of known kinds strictly, and no others at all.
pub(crate) fn known_artifacts<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    #[derive(Deserialize)]
    struct Peek {
        kind: String,
    }
    let mut known = Vec::new();
    for raw in Vec::<Box<RawValue>>::deserialize(deserializer)? {
        let peek: Peek = serde_json::from_str(raw.get()).map_err(serde::de::Error::custom)?;
        if peek.kind == "worker" {
            known.push(serde_json::from_str(raw.get()).map_err(serde::de::Error::custom)?);
        }
    }
    Ok(known)
}

macro_rules! literal_type {
    ($name:ident, $variant:ident) => {
        #[doc = concat!("The only `type` that this file may have: ", stringify!($variant), " in lower case.")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name {
            #[doc = "That one."]
            $variant,
        }
    };
}

literal_type!(RootType, Root);
literal_type!(TimestampType, Timestamp);
literal_type!(IndexType, Index);
literal_type!(BuildType, Build);
literal_type!(PackageType, Package);

/// Verified bytes are not the file that they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadDocument {
    /// No JSON object of the right shape; the parser's words.
    Shape(String),
    /// A file of another type.
    Type(String),
    /// A newer format, which is published beside this one under other names.
    Spec(u32),
    /// A field's value cannot be meant.
    Value(String),
}

impl fmt::Display for BadDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadDocument::Shape(text) => write!(f, "it is not of the expected shape: {text}"),
            BadDocument::Type(found) => write!(f, "its type is {found:?}"),
            BadDocument::Spec(found) => write!(f, "its spec is {found}, this supervisor reads {SPEC}"),
            BadDocument::Value(text) => f.write_str(text),
        }
    }
}

/// Parses a file of type `expected`. A client calls this with verified bytes only, a publisher with its own.
///
/// # Errors
/// The bytes are not exactly such a file.
pub fn parse<T: DeserializeOwned>(bytes: &[u8], expected: &str) -> Result<T, BadDocument> {
    #[derive(Deserialize)]
    struct Head {
        #[serde(rename = "type")]
        kind: String,
        spec: u32,
    }
    if bytes.first() != Some(&b'{') {
        return Err(BadDocument::Shape("the first byte is not {".to_owned()));
    }
    let shape = |error: serde_json::Error| BadDocument::Shape(error.to_string());
    let head: Head = serde_json::from_slice(bytes).map_err(shape)?;
    if head.kind != expected {
        return Err(BadDocument::Type(head.kind.chars().take(40).collect()));
    }
    if head.spec != SPEC {
        return Err(BadDocument::Spec(head.spec));
    }
    serde_json::from_slice(bytes).map_err(shape)
}

impl IndexDocument {
    /// Parses an index and checks what no type can: unique counters, names and targets, ranges that hold
    /// something, stages that rise.
    ///
    /// # Errors
    /// The bytes are not exactly an index, or a value in it cannot be meant.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadDocument> {
        let index: IndexDocument = parse(bytes, "index")?;
        index.releases.iter().try_for_each(ReleaseDocument::check)?;
        for (at, release) in index.releases.iter().enumerate() {
            let others = &index.releases[..at];
            if others.iter().any(|other| other.counter == release.counter || other.release == release.release)
            {
                let text =
                    format!("release {} or its counter {} is listed twice", release.release, release.counter);
                return Err(BadDocument::Value(text));
            }
        }
        Ok(index)
    }
}

impl ReleaseDocument {
    pub(crate) fn check(&self) -> Result<(), BadDocument> {
        let bad = |what: &str| Err(BadDocument::Value(format!("release {}: {what}", self.release)));
        let filled = |range: Range| range.min <= range.max;
        if !filled(self.contract) || !filled(self.protocol) {
            return bad("a range of versions is empty");
        }
        if !(self.state.read_min..=self.state.read_max).contains(&self.state.write) {
            return bad("it could not read the state that it writes");
        }
        let stages = &self.rollout.stages;
        let rising =
            stages.windows(2).all(|two| two[0].after < two[1].after && two[0].permille <= two[1].permille);
        if !rising || stages.iter().any(|stage| stage.permille > 1000) {
            return bad("the stages of its rollout do not rise from 0 to 1000");
        }
        for (at, artifact) in self.artifacts.iter().enumerate() {
            if !is_target(&artifact.target) {
                return bad("a target is not 1 to 64 of a-z 0-9 _ - .");
            }
            let same = |other: &Artifact| (other.kind, &other.target) == (artifact.kind, &artifact.target);
            if self.artifacts[..at].iter().any(same) {
                return bad("two artifacts are of the same kind for the same target");
            }
            let plain = (artifact.size, artifact.sha256) == (artifact.raw_size, artifact.raw_sha256);
            if artifact.size == 0
                || artifact.raw_size == 0
                || (artifact.encoding == Encoding::Plain && !plain)
            {
                return bad("the sizes or hashes of an artifact contradict each other");
            }
        }
        Ok(())
    }
}

/// Whether this can be a target: 1 to 64 of `a-z 0-9 _ - .`.
pub(crate) fn is_target(text: &str) -> bool {
    let allowed = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.');
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

//! Independent builders: each builds the same source on a machine of its own and signs what came out.
//!
//! ```json
//! {"type":"build","spec":1,"network":"…","release":"1.8.2","counter":41,"commit":"…",
//!  "artifacts":[{"kind":"worker","target":"x86_64-unknown-linux-musl","raw_size":0,"raw_sha256":"…"}]}
//! ```
//!
//! The file lies at `build/<sha256 of its bytes>`, where the index finds it, and its trusted comment is
//! `bumpless/1 builders <counter>`. Builders who agree write the same bytes, so that their signatures add up;
//! one who built something else signs another file, which counts for nothing.
//!
//! Where a root names builders, a release is chosen only if so many of them have signed exactly the artifact
//! that would run here. Name and counter are among what they sign: whoever steals the release keys can
//! neither make builders agree to something new nor give something old, which they agreed to once, a new
//! place in the order.

use std::fmt;

use bumpless_shared::digest::Digest;
use bumpless_shared::release::Version;
use serde::{Deserialize, Serialize};

use crate::document::{
    Artifact, BadDocument, BuildType, Extra, Kind, MAX_BUILD, ReleaseDocument, SPEC, is_target,
    known_artifacts, parse,
};
use crate::refresh::{Signed, sha256};
use crate::root::Root;
use crate::signature::{BadSignatures, Signatures};

/// The builders' role, as in trusted comments.
pub const BUILDERS: &str = "builders";
/// Of how many releases, the newest, what their builders say is fetched.
pub const MAX_BUILDS: usize = 16;

/// `build/<sha256>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildDocument {
    /// `build`.
    #[serde(rename = "type")]
    pub kind: BuildType,
    /// [`SPEC`].
    pub spec: u32,
    /// Which network.
    pub network: Digest,
    /// Which release.
    pub release: Version,
    /// Its place in the order.
    pub counter: u64,
    /// The source that was built.
    pub commit: String,
    /// What came out, by target; unknown kinds are already left out.
    #[serde(deserialize_with = "known_artifacts")]
    pub artifacts: Vec<Built>,
    /// Ignored.
    #[serde(default, skip_serializing_if = "Extra::is_empty")]
    pub x: Extra,
}

/// One artifact as it runs: how a feed packs it is no builder's business.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Built {
    /// What it is.
    pub kind: Kind,
    /// For which machine.
    pub target: String,
    /// Bytes.
    pub raw_size: u64,
    /// Their SHA-256.
    pub raw_sha256: Digest,
}

impl Built {
    /// What builders say about an artifact of an index.
    pub fn of(artifact: &Artifact) -> Self {
        let Artifact { kind, target, raw_size, raw_sha256, .. } = artifact;
        Built { kind: *kind, target: target.clone(), raw_size: *raw_size, raw_sha256: *raw_sha256 }
    }
}

impl BuildDocument {
    /// What builders of this release have to have signed; in the order of its targets, so that everyone
    /// writes the same bytes.
    pub fn of(network: Digest, entry: &ReleaseDocument) -> Self {
        let artifacts = entry.artifacts.iter().map(Built::of).collect();
        let (release, commit) = (entry.release.clone(), entry.build.commit.clone());
        Self::new(network, release, entry.counter, commit, artifacts)
    }

    /// The same from what a builder has at hand.
    pub fn new(
        network: Digest,
        release: Version,
        counter: u64,
        commit: String,
        mut artifacts: Vec<Built>,
    ) -> Self {
        artifacts.sort_unstable();
        let (kind, x) = (BuildType::Build, Extra::default());
        BuildDocument { kind, spec: SPEC, network, release, counter, commit, artifacts, x }
    }

    /// Parses what builders signed. A client calls this with verified bytes only.
    ///
    /// # Errors
    /// The bytes are not exactly such a file.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadDocument> {
        let build: BuildDocument = parse(bytes, "build")?;
        if build.artifacts.iter().any(|built| !is_target(&built.target)) {
            return Err(BadDocument::Value("a target is not 1 to 64 of a-z 0-9 _ - .".to_owned()));
        }
        Ok(build)
    }

    /// Whether it is about this artifact of this release.
    pub fn is_about(&self, entry: &ReleaseDocument, artifact: &Artifact) -> bool {
        (&self.release, self.counter) == (&entry.release, entry.counter)
            && self.artifacts.contains(&Built::of(artifact))
    }
}

/// A file under `build/` does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadBuild {
    /// It is larger than [`MAX_BUILD`].
    TooLarge(u64),
    /// It has another hash than its name says.
    Bytes(Digest),
    /// The root names no builders.
    NoBuilders,
    /// Its signatures.
    Signatures(BadSignatures),
    /// Its contents.
    Document(BadDocument),
    /// It is signed for another place in the order (first) than it says (second).
    Counter(u64, u64),
    /// It is for another network.
    Network(Digest),
}

impl fmt::Display for BadBuild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadBuild::TooLarge(size) => write!(f, "it is {size} bytes long, at most {MAX_BUILD} are read"),
            BadBuild::Bytes(found) => write!(f, "its SHA-256 is {found}"),
            BadBuild::NoBuilders => f.write_str("the root names no builders"),
            BadBuild::Signatures(why) => why.fmt(f),
            BadBuild::Document(why) => why.fmt(f),
            BadBuild::Counter(signed, says) => {
                write!(f, "it is signed for release number {signed} and says it is about number {says}")
            }
            BadBuild::Network(theirs) => write!(f, "it is for network {theirs}"),
        }
    }
}

/// Hash, signatures, then parse: as for everything that is signed.
pub(crate) fn verified(root: &Root, expected: Digest, signed: &Signed) -> Result<BuildDocument, BadBuild> {
    let size = signed.bytes.len() as u64;
    if size > MAX_BUILD {
        return Err(BadBuild::TooLarge(size));
    }
    let found = sha256(&signed.bytes);
    if found != expected {
        return Err(BadBuild::Bytes(found));
    }
    let builders = root.builders().ok_or(BadBuild::NoBuilders)?;
    let signatures = Signatures::parse(&signed.signatures).map_err(BadBuild::Signatures)?;
    let counter = signatures.verify(builders, BUILDERS, &signed.bytes).map_err(BadBuild::Signatures)?;
    let build = BuildDocument::parse(&signed.bytes).map_err(BadBuild::Document)?;
    if build.network != root.network() {
        return Err(BadBuild::Network(build.network));
    }
    if build.counter != counter {
        return Err(BadBuild::Counter(counter, build.counter));
    }
    Ok(build)
}

/// Why a release does not count as built by independent builders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unattested {
    /// The index names nothing that builders signed.
    Unnamed,
    /// What it names was not fetched, or did not count.
    Unknown(Digest),
    /// What they signed is not this artifact of this release.
    Other(Digest),
}

impl fmt::Display for Unattested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unattested::Unnamed => f.write_str("the index names nothing that they signed"),
            Unattested::Unknown(sha256) => write!(f, "no build/{sha256} with enough signatures was fetched"),
            Unattested::Other(sha256) => {
                write!(f, "what they signed, build/{sha256}, is not the artifact for this machine")
            }
        }
    }
}

//! A file that is signed, whichever it is.

use std::fmt;
use std::path::PathBuf;

use bumpless_shared::digest::Digest;
use bumpless_trust::Role;
use bumpless_trust::build::BuildDocument;
use bumpless_trust::document::{
    BadDocument, Channel, IndexDocument, RootDocument, TimestampDocument, parse, root_path,
};
use bumpless_trust::refresh::sha256;
use bumpless_trust::root::{BadRoot, Root};
use serde::{Deserialize, Serialize};

use crate::signer::Signer;

/// One of the files that are signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// Which keys speak for which role.
    Root(RootDocument),
    /// Which index is the newest.
    Timestamp(TimestampDocument),
    /// Which releases there are.
    Index(IndexDocument),
    /// What a release consists of, as its builders found.
    Build(BuildDocument),
}

/// Bytes that nobody should sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotSignable {
    /// They are no file that is signed at all.
    Shape(String),
    /// It is one, of this type, but no client would take it.
    Document(&'static str, BadDocument),
    /// A root that no client would take.
    Root(BadRoot),
    /// It holds something that cannot be shown to who signs it, such as an artifact of unknown kind, or is
    /// not written as this program writes it.
    NotAsShown,
}

impl fmt::Display for NotSignable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotSignable::Shape(why) => write!(f, "it is no root, index, timestamp or build: {why}"),
            NotSignable::Document(kind, why) => write!(f, "no machine would take this {kind}: {why}"),
            NotSignable::Root(why) => write!(f, "no machine would take this root: {why}"),
            NotSignable::NotAsShown => f.write_str(
                "it holds something that this version of bumpless-release does not know and cannot show you",
            ),
        }
    }
}

impl std::error::Error for NotSignable {}

/// Our own types, which serde_json can always write.
pub(crate) fn json<T: Serialize>(document: &T) -> Vec<u8> {
    serde_json::to_vec(document).unwrap_or_default()
}

impl Document {
    /// Reads what is to be signed. Whoever signs has to have been shown all of it: what this program would not
    /// write in exactly these bytes is refused.
    ///
    /// # Errors
    /// Why nobody should sign this.
    pub fn parse(bytes: &[u8]) -> Result<Self, NotSignable> {
        #[derive(Deserialize)]
        struct Head {
            #[serde(rename = "type")]
            kind: String,
        }
        let head: Head =
            serde_json::from_slice(bytes).map_err(|error| NotSignable::Shape(error.to_string()))?;
        let bad = |kind| move |why| NotSignable::Document(kind, why);
        let document = match head.kind.as_str() {
            "root" => {
                Root::parse(bytes).map_err(NotSignable::Root)?;
                Document::Root(parse(bytes, "root").map_err(bad("root"))?)
            }
            "timestamp" => Document::Timestamp(parse(bytes, "timestamp").map_err(bad("timestamp"))?),
            "index" => Document::Index(IndexDocument::parse(bytes).map_err(bad("index"))?),
            "build" => Document::Build(BuildDocument::parse(bytes).map_err(bad("build"))?),
            other => return Err(NotSignable::Shape(format!("its type is {other:?}"))),
        };
        if document.bytes() == bytes { Ok(document) } else { Err(NotSignable::NotAsShown) }
    }

    /// What is signed.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Document::Root(root) => json(root),
            Document::Timestamp(timestamp) => json(timestamp),
            Document::Index(index) => json(index),
            Document::Build(build) => json(build),
        }
    }

    /// Who signs it.
    pub fn signer(&self) -> Signer {
        match self {
            Document::Root(_) => Signer::Root,
            Document::Timestamp(_) => Signer::Timestamp,
            Document::Index(_) => Signer::Release,
            Document::Build(_) => Signer::Builders,
        }
    }

    /// The number in its trusted comment: its version; of a build the release's place in the order.
    pub fn version(&self) -> u64 {
        match self {
            Document::Root(root) => root.version,
            Document::Timestamp(timestamp) => timestamp.version,
            Document::Index(index) => index.version,
            Document::Build(build) => build.counter,
        }
    }

    /// Which network.
    pub fn network(&self) -> Digest {
        match self {
            Document::Root(root) => root.network,
            Document::Timestamp(timestamp) => timestamp.network,
            Document::Index(index) => index.network,
            Document::Build(build) => build.network,
        }
    }

    /// Its name while it waits for signatures, such as `index-412.json` or, in a channel other than
    /// `stable`, `index-beta-412.json`.
    pub fn name(&self) -> String {
        match self {
            Document::Root(root) => root_name(root.version),
            Document::Timestamp(timestamp) => timestamp_name(&timestamp.channel, timestamp.version),
            Document::Index(index) => index_name(&index.channel, index.version),
            Document::Build(build) => format!("build-{}.json", build.release),
        }
    }

    /// Its name on the feed.
    pub fn path(&self) -> PathBuf {
        match self {
            Document::Root(root) => root_path(root.version),
            Document::Timestamp(timestamp) => Role::Timestamp.path(&timestamp.channel, 0),
            Document::Index(index) => Role::Release.path(&index.channel, index.version),
            Document::Build(_) => build_path(&sha256(&self.bytes())),
        }
    }
}

pub(crate) fn root_name(version: u64) -> String {
    format!("root-{version}.json")
}

pub(crate) fn index_name(channel: &Channel, version: u64) -> String {
    format!("index{}-{version}.json", of(channel))
}

pub(crate) fn timestamp_name(channel: &Channel, version: u64) -> String {
    format!("timestamp{}-{version}.json", of(channel))
}

/// What tells a channel's files from those of `stable`, which were there before there were channels.
pub(crate) fn of(channel: &Channel) -> String {
    if *channel == Channel::default() { String::new() } else { format!("-{channel}") }
}

pub(crate) fn build_path(name: &Digest) -> PathBuf {
    format!("build/{name}").into()
}

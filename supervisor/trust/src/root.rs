//! A root that passed every check: which keys speak for which role.

use std::fmt;

use bumpless_shared::digest::Digest;

use crate::document::{BadDocument, Elders, MAX_TIMESTAMP_VALID, Role, RootDocument, TIMESTAMP_VALID, parse};
use crate::keys::{BadKeys, Keys};

/// A root whose keys are usable and distinct between roles.
#[derive(Clone, Debug)]
pub struct Root {
    network: Digest,
    version: u64,
    expires: u64,
    root: Keys,
    release: Keys,
    timestamp: Keys,
    builders: Option<Keys>,
    timestamp_valid: u64,
    elders: Elders,
}

/// A root cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadRoot {
    /// Its text.
    Document(BadDocument),
    /// The keys of the role with this name.
    Keys(&'static str, BadKeys),
    /// One key stands in two roles.
    Shared(&'static str, &'static str),
    /// It would let a timestamp live for this many seconds.
    TimestampValid(u64),
}

impl fmt::Display for BadRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadRoot::Document(why) => why.fmt(f),
            BadRoot::Keys(role, why) => write!(f, "role {role}: {why}"),
            BadRoot::Shared(one, other) => {
                write!(f, "roles {one} and {other} share a key; one key, one role")
            }
            BadRoot::TimestampValid(seconds) => {
                write!(
                    f,
                    "it lets a timestamp be valid for {seconds} s; 1 to {MAX_TIMESTAMP_VALID} are allowed"
                )
            }
        }
    }
}

impl Root {
    /// Parses and checks; whether anyone signed it is the caller's question.
    ///
    /// # Errors
    /// The bytes are not exactly a root, or its keys cannot be used.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadRoot> {
        let document: RootDocument = parse(bytes, "root").map_err(BadRoot::Document)?;
        let keys = |role, keys| Keys::parse(keys).map_err(|why| BadRoot::Keys(role, why));
        let root = keys("root", &document.root)?;
        let release = keys("release", &document.release)?;
        let timestamp = keys("timestamp", &document.timestamp)?;
        let builders = document.builders.as_ref().map(|builders| keys("builders", builders)).transpose()?;

        let mut roles = vec![("root", &root), ("release", &release), ("timestamp", &timestamp)];
        roles.extend(builders.iter().map(|keys| ("builders", keys)));
        for (at, (name, keys)) in roles.iter().enumerate() {
            for (other_name, other) in &roles[..at] {
                if keys.keys().iter().any(|key| other.keys().contains(key)) {
                    return Err(BadRoot::Shared(other_name, name));
                }
            }
        }
        let timestamp_valid = document.timestamp_valid.unwrap_or(TIMESTAMP_VALID);
        if !(1..=MAX_TIMESTAMP_VALID).contains(&timestamp_valid) {
            return Err(BadRoot::TimestampValid(timestamp_valid));
        }
        Ok(Root {
            network: document.network,
            version: document.version,
            expires: document.expires,
            root,
            release,
            timestamp,
            builders,
            timestamp_valid,
            elders: document.elders,
        })
    }

    /// The keys that speak for `role`.
    pub fn keys(&self, role: Role) -> &Keys {
        match role {
            Role::Root => &self.root,
            Role::Timestamp => &self.timestamp,
            Role::Release => &self.release,
        }
    }

    /// Which network.
    pub fn network(&self) -> Digest {
        self.network
    }

    /// Its version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// From this unix second on it is expired.
    pub fn expires(&self) -> u64 {
        self.expires
    }

    /// Seconds that a timestamp may be valid.
    pub fn timestamp_valid(&self) -> u64 {
        self.timestamp_valid
    }

    /// Who must have built the same bytes before a release may be installed; none if nobody is asked.
    pub fn builders(&self) -> Option<&Keys> {
        self.builders.as_ref()
    }

    /// Whether the network's elders must have seen the same index.
    pub fn elders(&self) -> Elders {
        self.elders
    }
}

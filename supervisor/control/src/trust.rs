//! What a machine believes about releases, and on whose word.

use bumpless_shared::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::Unix;

/// All that was verified and is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// The network that it belongs to, 64 hexadecimal digits.
    pub network: Digest,
    /// Which releases it follows.
    pub channel: String,
    /// The root in force.
    pub root: RootShown,
    /// The newest timestamp; `None` before the first one was fetched.
    pub timestamp: Option<Kept>,
    /// The newest index; `None` before the first one was fetched.
    pub index: Option<Kept>,
    /// Who has to sign what, as the root says.
    pub roles: Vec<Signers>,
}

/// A root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootShown {
    /// Its version.
    pub version: u64,
    /// Its fingerprint, 64 hexadecimal digits: what two people compare.
    pub sha256: Digest,
    /// From when on it does not count any more.
    pub expires: Unix,
}

/// A timestamp or an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its version.
    pub version: u64,
    /// When it was signed.
    pub issued: Unix,
    /// From when on it does not count any more.
    pub expires: Unix,
}

/// A role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signers {
    /// `root`, `release`, `timestamp` or `builders`.
    pub role: String,
    /// So many of them have to sign.
    pub threshold: u32,
    /// Their public keys, as in minisign's `.pub` files.
    pub keys: Vec<String>,
}

//! Which release is meant: its name for people, its hash for every decision.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// The version as people write it, such as `1.8.2`: 1 to 32 characters of `0-9 a-z . + -`, beginning
/// with a digit. Display text and part of a directory's name; order is given by the index's counter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(String);

impl Version {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is not a release version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAVersion(String);

impl fmt::Display for NotAVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a release version (such as 1.8.2: a digit, then at most 31 of 0-9 a-z . + -)",
            self.0
        )
    }
}

impl std::error::Error for NotAVersion {}

impl FromStr for Version {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let allowed = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'z' | b'.' | b'+' | b'-');
        let good =
            text.len() <= 32 && text.bytes().all(allowed) && text.starts_with(|c: char| c.is_ascii_digit());
        if good { Ok(Version(text.to_owned())) } else { Err(NotAVersion(text.chars().take(40).collect())) }
    }
}

impl TryFrom<String> for Version {
    type Error = NotAVersion;

    fn try_from(text: String) -> Result<Self, NotAVersion> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> String {
        version.0
    }
}

/// A release on this machine: what it is called and the SHA-256 of the exact bytes that run.
/// Two releases are the same if and only if their hashes are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// For people.
    pub version: Version,
    /// SHA-256 of the uncompressed worker binary.
    pub sha256: Digest,
}

impl Release {
    /// The name of its directory under `releases/`: `<version>-<64 hex digits>`.
    pub fn directory(&self) -> String {
        format!("{}-{}", self.version, self.sha256)
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.version, self.sha256.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_can_be_no_path_and_no_option() {
        for good in ["1", "1.8.2", "2.0.0-rc.1+build7"] {
            assert!(good.parse::<Version>().is_ok(), "{good}");
        }
        for wrong in ["", "..", "-1", "v1", "1/2", "1 2", "1\n", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0", "1A"] {
            assert!(wrong.parse::<Version>().is_err(), "{wrong:?}");
        }
    }
}

//! Why something was not believed, in words for an operator.

use std::fmt;

use bumpless_shared::digest::Digest;

use crate::build::BadBuild;
use crate::document::{BadDocument, Channel, IndexPin, MAX_DOCUMENT, Role};
use crate::refresh::{MAX_ROOTS, Want};
use crate::root::BadRoot;
use crate::signature::BadSignatures;
use crate::time::Utc;

/// Why something was not believed. The running worker is not concerned in any of these cases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no root at all; the first one is never taken from the feed.
    NoRoot,
    /// A file is larger than what may be read.
    TooLarge(Role, u64),
    /// The signatures of a file.
    Signatures(Role, BadSignatures),
    /// A root's contents.
    Root(BadRoot),
    /// The contents of a timestamp or an index.
    Document(Role, BadDocument),
    /// The signatures are for another version than the file says.
    SignedVersion(Role, u64, u64),
    /// A file of another network.
    Network {
        /// Which file.
        role: Role,
        /// Ours.
        ours: Digest,
        /// Its.
        theirs: Digest,
    },
    /// A file of another channel.
    Channel {
        /// Which file.
        role: Role,
        /// Ours.
        ours: Channel,
        /// Its.
        theirs: Channel,
    },
    /// The next root is not the next one.
    RootVersion {
        /// Exactly one more than the last.
        expected: u64,
        /// What it says.
        found: u64,
    },
    /// More than [`MAX_ROOTS`] new roots.
    TooManyRoots,
    /// An older file than one that was seen already.
    Older {
        /// Which file.
        role: Role,
        /// The highest version seen.
        seen: u64,
        /// What was offered.
        offered: u64,
    },
    /// The same version with other bytes: someone signed two.
    Changed(Role, u64),
    /// A file is expired: either it is not renewed, or someone holds the newer one back.
    Expired(Role, u64),
    /// A timestamp would be valid for longer (first) than the root allows (second).
    ValidTooLong(u64, u64),
    /// The file was issued (first) after the present moment (second) of this machine.
    FromTheFuture(Role, u64, u64),
    /// This machine's clock stands before a moment that is certainly past.
    Clock {
        /// What it shows.
        now: u64,
        /// What is past.
        past: u64,
    },
    /// The index is not the one that the timestamp names.
    Pin {
        /// What the timestamp says.
        pin: IndexPin,
        /// Bytes of what was offered.
        size: u64,
        /// Its SHA-256.
        sha256: Digest,
    },
    /// What builders signed, under this name.
    Build(Digest, BadBuild),
    /// The feed has no such file, for who follows this channel.
    Missing(Want, Channel),
    /// An answer to a question that was not asked.
    NotAsked,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::NoRoot => f.write_str(
                "there is no root to begin with; set feed.root to the root file, or feed.root_sha256 to the fingerprint, \
                 that your network's operator gave you",
            ),
            Refused::TooLarge(role, size) => {
                write!(f, "the {} is {size} bytes long, at most {MAX_DOCUMENT} are read", role.file())
            }
            Refused::Signatures(role, why) => write!(f, "the {} is refused: {why}", role.file()),
            Refused::Root(why) => write!(f, "the root is refused: {why}"),
            Refused::Document(role, why) => write!(f, "the {} is refused: {why}", role.file()),
            Refused::SignedVersion(role, signed, says) => {
                write!(f, "the {} is signed as version {signed} and says it is version {says}", role.file())
            }
            Refused::Network { role, ours, theirs } => {
                write!(f, "the {} is for network {theirs}, this machine belongs to {ours}", role.file())
            }
            Refused::Channel { role, ours, theirs } => {
                write!(f, "the {} is for channel {theirs}, this machine follows {ours}", role.file())
            }
            Refused::RootVersion { expected, found } => {
                write!(f, "the next root has version {found} instead of {expected}")
            }
            Refused::TooManyRoots => write!(f, "the feed has more than {MAX_ROOTS} new roots; the next check goes on"),
            Refused::Older { role, seen, offered } => write!(
                f,
                "the feed offers {} {offered}, but {seen} was seen already: the feed was set back",
                role.file()
            ),
            Refused::Changed(role, version) => write!(
                f,
                "{} {version} has changed since it was first seen: two of it were signed; ask the publisher",
                role.file()
            ),
            Refused::Expired(role, at) => write!(
                f,
                "the {} expired on {}: the publisher has stopped renewing it, or someone holds newer files back",
                role.file(),
                Utc(*at)
            ),
            Refused::ValidTooLong(seconds, allowed) => {
                write!(f, "the timestamp would be valid for {seconds} s, the root allows {allowed} s")
            }
            Refused::FromTheFuture(role, issued, now) => write!(
                f,
                "the {} was signed on {}, but this machine's clock shows {}; check the clock",
                role.file(),
                Utc(*issued),
                Utc(*now)
            ),
            Refused::Clock { now, past } => write!(
                f,
                "this machine's clock shows {}, which is before {}, a moment that is certainly past; set the clock",
                Utc(*now),
                Utc(*past)
            ),
            Refused::Pin { pin, size, sha256 } => write!(
                f,
                "index {} is not the one that the timestamp names: {size} bytes with SHA-256 {sha256} instead of {} bytes with {}",
                pin.version, pin.size, pin.sha256
            ),
            Refused::Build(name, why) => write!(f, "build/{name} is refused: {why}"),
            Refused::Missing(want, channel) => match want {
                Want::Root(version) => write!(f, "the feed has no root {version}"),
                Want::Timestamp => {
                    let path = Role::Timestamp.path(channel, 0);
                    write!(f, "the feed has no {}, so it does not have channel {channel}", path.display())
                }
                Want::Index(pin) => write!(f, "the feed has no index {}, which its timestamp names", pin.version),
                Want::Build(name) => write!(f, "the feed has no build/{name}, which its index names"),
                Want::Nothing => f.write_str("nothing was asked for"),
            },
            Refused::NotAsked => f.write_str("an answer came that nothing had been asked for"),
        }
    }
}

impl std::error::Error for Refused {}

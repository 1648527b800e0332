//! Why a feed cannot be made or changed.

use std::fmt;
use std::io;
use std::path::PathBuf;

use bumpless_shared::release::Version;
use bumpless_trust::Refused;
use bumpless_trust::document::Channel;

use crate::channels::NotPromoted;
use crate::desk::{NotMerged, Waiting};
use crate::document::NotSignable;
use crate::key::KeyError;
use crate::signer::Signer;

/// A feed cannot be made or changed, or not yet.
#[derive(Debug)]
pub enum PublishError {
    /// A file or folder, and what was done with it.
    File(&'static str, PathBuf, io::Error),
    /// The folder holds a feed already.
    Exists(PathBuf),
    /// The folder holds no feed of ours.
    NoFeed(PathBuf),
    /// A key.
    Key(KeyError),
    /// A file of ours does not parse.
    Draft(PathBuf, serde_json::Error),
    /// An artifact does not describe itself.
    Describe(PathBuf, String),
    /// The artifact says that it is another release than the one asked for.
    OtherRelease {
        /// What was asked for.
        asked: Version,
        /// What the artifact says.
        says: Version,
    },
    /// A channel has that release, or its counter, already.
    Taken(Version, u64),
    /// There is no such release.
    Unknown(Version),
    /// The feed has no such channel, but these.
    NoChannel(Channel, Vec<Channel>),
    /// Another channel has that release.
    Elsewhere(Version, Channel),
    /// A release of another channel cannot be taken over.
    NotPromoted {
        /// Which.
        version: Version,
        /// The channel that it is for.
        to: Channel,
        /// Why.
        why: NotPromoted,
    },
    /// A value that no client would accept.
    Value(String),
    /// What is on the feed already would be refused by a client.
    Feed(PathBuf, Refused),
    /// A file that nobody should sign.
    NotSignable(PathBuf, NotSignable),
    /// Signatures that are not taken over.
    NotMerged(PathBuf, NotMerged),
    /// These files wait for signatures; the rest is published.
    Waits(Vec<Waiting>),
    /// The next root waits already.
    RootWaits(PathBuf),
    /// The key is none of those that sign this.
    NotAKeyOf(PathBuf, Signer),
    /// It would not be signed in the role that was asked for.
    OtherRole {
        /// What was asked for.
        asked: Signer,
        /// Who signs such a file.
        signs: Signer,
    },
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishError::File(what, path, error) => {
                write!(f, "cannot {what} {}: {error}. The published feed is as it was.", path.display())
            }
            PublishError::Exists(path) => write!(f, "{} holds a feed already", path.display()),
            PublishError::NoFeed(path) => {
                write!(f, "{} holds no feed; make one with `bumpless-release init {0}`", path.display())
            }
            PublishError::Key(error) => error.fmt(f),
            PublishError::Draft(path, error) => write!(f, "{} is damaged: {error}", path.display()),
            PublishError::Describe(path, why) => write!(
                f,
                "{} does not describe itself: {why}. If it cannot run here, pass what it prints with --describe-file.",
                path.display()
            ),
            PublishError::OtherRelease { asked, says } => {
                write!(f, "the artifact says that it is release {says}, not {asked}")
            }
            PublishError::Taken(version, counter) => {
                write!(
                    f,
                    "release {version} or its counter {counter} is on the feed already, with other contents"
                )
            }
            PublishError::Unknown(version) => write!(f, "there is no release {version}"),
            PublishError::NoChannel(channel, has) => {
                let has: Vec<String> = has.iter().map(ToString::to_string).collect();
                let has = has.join(", ");
                write!(
                    f,
                    "the feed has no channel {channel}; it has {has}. `bumpless-release channel {channel}` begins one"
                )
            }
            PublishError::Elsewhere(version, channel) => write!(
                f,
                "channel {channel} has release {version} already; `bumpless-release promote {version}` takes it over \
                 from there, with the same bytes"
            ),
            PublishError::NotPromoted { version, to, why } => {
                write!(f, "release {version} cannot go to channel {to}: {why}; nothing was changed")
            }
            PublishError::Value(why) => f.write_str(why),
            PublishError::Feed(path, why) => {
                write!(f, "no machine would follow the feed in {}: {why}", path.display())
            }
            PublishError::NotSignable(path, why) => {
                write!(f, "{} is not to be signed: {why}", path.display())
            }
            PublishError::NotMerged(path, why) => {
                write!(f, "nothing of {} was taken over: {why}", path.display())
            }
            PublishError::Waits(waiting) => {
                f.write_str("not published, signatures are missing")?;
                waiting.iter().try_for_each(|waiting| write!(f, "\n  {waiting}"))?;
                f.write_str(
                    "\nHave each file signed where its keys are (bumpless-release sign FILE --key KEY --role ROLE), \
                     merge the .sigs, and publish again.",
                )
            }
            PublishError::RootWaits(path) => write!(
                f,
                "{} waits for signatures already; publish it first, or remove it and its .sigs if nobody signed it",
                path.display()
            ),
            PublishError::NotAKeyOf(path, signer) => write!(
                f,
                "{} is none of the keys that sign this as {signer}; nothing was signed",
                path.display()
            ),
            PublishError::OtherRole { asked, signs } => {
                write!(f, "this file is signed as {signs}, not as {asked}; nothing was signed")
            }
        }
    }
}

impl std::error::Error for PublishError {}

impl From<KeyError> for PublishError {
    fn from(error: KeyError) -> Self {
        PublishError::Key(error)
    }
}

//! What can go wrong between a feed and this machine. In each case what runs goes on running.

use std::fmt;
use std::io;
use std::path::PathBuf;

use bumpless_shared::digest::Digest;
use bumpless_trust::Refused;

use super::exit::Exit;
use crate::records::file::RecordError;

/// Why there is no news, or no artifact. The texts do not name the running release: who shows them does.
#[derive(Debug)]
pub enum FeedError {
    /// No place is configured.
    NoPlace,
    /// The administrator's root file, or the `.sigs` beside it.
    Root {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The first root is known by its fingerprint alone, and was not fetched yet.
    Rootless(Refused),
    /// What the feed has as its first root is another one than the fingerprint says.
    Fingerprint {
        /// As configured.
        expected: Digest,
        /// Fetched.
        found: Digest,
    },
    /// The configuration and a root that is kept, or is to be, begin with different trust.
    Contradiction {
        /// The key in the configuration, and what it says.
        configured: String,
        /// SHA-256 of the other root.
        other: Digest,
    },
    /// The root of a reset, or the `.sigs` beside it.
    NewRoot {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The record of a reset.
    Reset(RecordError),
    /// A reset was written down, and could not be finished yet.
    Unfinished,
    /// Something that was kept or fetched is not believed.
    Refused(Refused),
    /// The fetcher cannot be run or watched.
    Fetcher {
        /// Which.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The user that it should run as is not there, or cannot be looked up.
    NoUser {
        /// Its name.
        name: String,
        /// Why it cannot be looked up.
        source: Option<io::Error>,
    },
    /// The fetcher ended without the file.
    Fetch {
        /// From where.
        url: String,
        /// What its exit code says.
        exit: Exit,
        /// Its words.
        text: String,
    },
    /// The fetcher ended in a way that it never should.
    FetcherDied {
        /// From where it should have fetched.
        url: String,
        /// How.
        how: String,
    },
    /// The fetcher did not end in time, and was killed.
    Deadline {
        /// From where.
        url: String,
    },
    /// A folder that serves as a feed.
    Folder {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The staging folder.
    Staging {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The store of verified metadata.
    Store {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not enough room for blob and artifact; found out before anything was fetched.
    NoRoom {
        /// Where.
        path: PathBuf,
        /// Bytes.
        needs: u64,
        /// Bytes.
        has: u64,
    },
    /// The blob has another size than signed.
    BlobSize {
        /// Signed.
        expected: u64,
        /// Fetched, or read until it was certainly too large.
        found: u64,
    },
    /// The blob has another SHA-256 than signed.
    BlobHash {
        /// Signed.
        expected: Digest,
        /// Fetched.
        found: Digest,
    },
    /// A helper thread ended without a result.
    Helper(String),
    /// Every place that is configured failed.
    Every(Vec<(String, FeedError)>),
}

/// What kind of error it is: what to do next depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// The feed does not answer, or too slowly: try again later.
    Unreachable,
    /// Something on this machine: room, permissions, a missing program.
    Local,
    /// The feed has nothing that is still valid: an alarm, until something newer is verified.
    Expired,
    /// The feed has something that must not be believed: worth an alarm.
    Refused,
}

impl FeedError {
    pub(super) fn every(mut errors: Vec<(String, FeedError)>) -> FeedError {
        match errors.len() {
            0 => FeedError::NoPlace,
            1 => errors.swap_remove(0).1,
            _ => FeedError::Every(errors),
        }
    }

    /// What kind of error it is; of several the gravest.
    pub fn trouble(&self) -> Trouble {
        match self {
            FeedError::Refused(Refused::Expired(..)) => Trouble::Expired,
            FeedError::Refused(_)
            | FeedError::Fingerprint { .. }
            | FeedError::BlobSize { .. }
            | FeedError::BlobHash { .. } => Trouble::Refused,
            FeedError::NoPlace
            | FeedError::Root { .. }
            | FeedError::Rootless(_)
            | FeedError::Contradiction { .. }
            | FeedError::NewRoot { .. }
            | FeedError::Reset(_)
            | FeedError::Unfinished
            | FeedError::Fetcher { .. }
            | FeedError::NoUser { .. }
            | FeedError::FetcherDied { .. }
            | FeedError::Staging { .. }
            | FeedError::Store { .. }
            | FeedError::NoRoom { .. }
            | FeedError::Helper(_) => Trouble::Local,
            FeedError::Folder { .. } | FeedError::Deadline { .. } => Trouble::Unreachable,
            FeedError::Fetch { exit, .. } => match exit {
                Exit::Done | Exit::Failed | Exit::Usage | Exit::NotWritten => Trouble::Local,
                Exit::TooLarge => Trouble::Refused,
                Exit::NotFound
                | Exit::Unreachable
                | Exit::TimedOut
                | Exit::TooSlow
                | Exit::Redirected
                | Exit::Status
                | Exit::Broken => Trouble::Unreachable,
            },
            FeedError::Every(errors) => {
                errors.iter().map(|(_, error)| error.trouble()).max().unwrap_or(Trouble::Local)
            }
        }
    }
}

/// Bytes for people: three digits at most before the unit, one after the point.
pub(super) fn bytes(count: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let (mut unit, mut scale) = (0, 1u64);
    while unit + 1 < units.len() && count / scale >= 1000 {
        scale *= 1000;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ => format!("{}.{} {}", count / scale, count % scale / (scale / 10), units[unit]),
    }
}

impl fmt::Display for FeedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FeedError::NoPlace => {
                f.write_str("no feed is configured, so nothing new is looked for; set feed.urls to have one")
            }
            FeedError::Root { path, source } => write!(
                f,
                "cannot read the first root {}: {source}. Nothing new is installed; put the root file and its .sigs \
                 there, or correct feed.root",
                path.display()
            ),
            FeedError::Rootless(why) => write!(
                f,
                "the root with the configured fingerprint (feed.root_sha256) is still to be fetched from the feed: {why}"
            ),
            FeedError::Fingerprint { expected, found } => write!(
                f,
                "the feed's first root has SHA-256 {found} instead of {expected}, which feed.root_sha256 says. Nothing of \
                 it is believed; compare the fingerprint with what your network's operator gave you"
            ),
            FeedError::Contradiction { configured, other } => write!(
                f,
                "{configured} in the configuration and root {other} do not belong together, and at every start they would \
                 be compared. Nothing was changed; correct the configuration and restart the supervisor, or begin anew \
                 with the root that it names: bumpless trust reset --root FILE"
            ),
            FeedError::NewRoot { path, source } => write!(
                f,
                "the supervisor cannot read the root {}: {source}. Nothing was changed; it needs that file and the \
                 .sigs beside it",
                path.display()
            ),
            FeedError::Reset(error) => {
                write!(f, "{error}. Trust is what it was before, or will be once that is mended")
            }
            FeedError::Unfinished => {
                f.write_str("trust begins anew with another root, and that could not be finished yet")
            }
            FeedError::Refused(why) => {
                write!(f, "{why}. Nothing of it was kept; what was verified before stays in force")
            }
            FeedError::Fetcher { program, source } => {
                let hint = match source.kind() {
                    io::ErrorKind::PermissionDenied => {
                        "let the fetcher's user execute it, and the supervisor run programs as that user (fetch.user)"
                    }
                    _ => "install bumpless-fetch there, or set fetch.program",
                };
                write!(
                    f,
                    "cannot run the fetcher {}: {source}. Nothing new is installed; {hint}",
                    program.display()
                )
            }
            FeedError::NoUser { name, source: None } => write!(
                f,
                "there is no user {name} to run the fetcher. Nothing new is installed; create it, or correct fetch.user"
            ),
            FeedError::NoUser { name, source: Some(source) } => write!(
                f,
                "the user {name} (fetch.user) cannot be looked up to run the fetcher: {source}. It is tried again later"
            ),
            FeedError::Fetch { url, exit, text } => match exit {
                Exit::NotFound => write!(f, "{url}: the feed has no such file"),
                Exit::Usage | Exit::Failed | Exit::Done => {
                    write!(f, "{url}: the fetcher cannot fetch it: {text}")
                }
                Exit::TooLarge => write!(f, "{url}: {text}. It was not read further"),
                Exit::NotWritten => write!(f, "{url}: {text}. Make room or check the state directory"),
                Exit::Unreachable
                | Exit::TimedOut
                | Exit::TooSlow
                | Exit::Redirected
                | Exit::Status
                | Exit::Broken => write!(f, "{url}: {text}. It is tried again later"),
            },
            FeedError::FetcherDied { url, how } => {
                write!(
                    f,
                    "{url}: the fetcher {how}. Nothing of what it wrote is used; it is tried again later"
                )
            }
            FeedError::Deadline { url } => {
                write!(f, "{url}: the fetcher did not end in time and was killed. It is tried again later")
            }
            FeedError::Folder { path, source } => {
                write!(f, "cannot read {}: {source}. It is tried again later", path.display())
            }
            FeedError::Staging { path, source } => write!(
                f,
                "cannot write into {}: {source}. Nothing was changed; check its owner, its mode and the file system",
                path.display()
            ),
            FeedError::Store { path, source } => write!(
                f,
                "cannot keep verified metadata in {}: {source}. Nothing new is installed until it can; check owner, \
                 mode and free space",
                path.display()
            ),
            FeedError::NoRoom { path, needs, has } => {
                let (needs, has, path) = (bytes(*needs), bytes(*has), path.display());
                write!(
                    f,
                    "needs {needs}, has {has}; nothing was changed. Make room on the file system of {path}"
                )
            }
            FeedError::BlobSize { expected, found } => write!(
                f,
                "the artifact is {found} bytes long instead of the signed {expected}. It was thrown away; the feed has \
                 to be repaired by its publisher"
            ),
            FeedError::BlobHash { expected, found } => write!(
                f,
                "the artifact's SHA-256 is {found} instead of the signed {expected}. It was thrown away; the feed has \
                 to be repaired by its publisher"
            ),
            FeedError::Helper(how) => write!(f, "a helper thread {how}. It is tried again later"),
            FeedError::Every(errors) => {
                write!(f, "none of {} places has it", errors.len())?;
                errors.iter().try_for_each(|(place, error)| write!(f, "; {place}: {error}"))
            }
        }
    }
}

impl std::error::Error for FeedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            FeedError::Root { source, .. }
            | FeedError::NewRoot { source, .. }
            | FeedError::Fetcher { source, .. }
            | FeedError::Folder { source, .. }
            | FeedError::Staging { source, .. }
            | FeedError::Store { source, .. } => Some(source),
            FeedError::NoUser { source, .. } => source.as_ref().map(|source| source as _),
            FeedError::Refused(source) | FeedError::Rootless(source) => Some(source),
            FeedError::Reset(source) => Some(source),
            FeedError::NoPlace
            | FeedError::Fingerprint { .. }
            | FeedError::Contradiction { .. }
            | FeedError::Unfinished
            | FeedError::Fetch { .. }
            | FeedError::FetcherDied { .. }
            | FeedError::Deadline { .. }
            | FeedError::NoRoom { .. }
            | FeedError::BlobSize { .. }
            | FeedError::BlobHash { .. }
            | FeedError::Helper(_)
            | FeedError::Every(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_room_is_told_in_words_that_need_no_calculator() {
        let error = FeedError::NoRoom { path: "/var/lib".into(), needs: 3_100_000_000, has: 1_299_999_999 };
        assert!(error.to_string().starts_with("needs 3.1 GB, has 1.2 GB; nothing was changed"), "{error}");
        assert_eq!(
            (bytes(999), bytes(1000), bytes(u64::MAX)),
            ("999 B".into(), "1.0 kB".into(), "18.4 EB".into())
        );
    }
}

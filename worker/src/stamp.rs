//! What is appended to a worker's file: which release it is, how it lays its data out, which versions it
//! speaks, and, in releases made for tests, what goes wrong with it.
//!
//! ```text
//!   executable │ JSON │ length of the JSON, u32 little endian │ "bumpless"
//! ```
//!
//! So one build makes any number of releases, each with bytes and a hash of its own. A file without
//! the trailer is the release of its source tree.
//!
//! A release that speaks less than this source tree does stands for an older one: it greets with its own
//! range on every channel, describes itself by it, and knows nothing of what came later, neither in what
//! clients ask nor in what another worker writes. The trailer is read through `/proc/self/exe`, which
//! also works for a process that was started from memory.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bumpless_shared::control::{Description, StateRange};
use bumpless_shared::release::Version;
use bumpless_shared::version::{Range, SPOKEN};
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::faults::Faults;
use crate::state::Layout;

const MAGIC: [u8; 8] = *b"bumpless";
const TAIL: u64 = 12;
/// Longest JSON that is read.
const LONGEST: u32 = 64 * 1024;

/// A release's own description.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    /// Its name.
    pub release: Version,
    /// Its database layout, by number.
    #[serde(with = "number")]
    pub layout: Layout,
    /// The versions that it speaks, of the contract with the supervisor and with other workers, of the
    /// logical stream of the state, and of the client protocol, which were all numbered together so far.
    #[serde(default = "spoken", deserialize_with = "within_spoken")]
    pub speaks: Range,
    /// What goes wrong with it, for tests.
    #[serde(default)]
    pub faults: Faults,
}

impl Stamp {
    /// A release of this name and layout that speaks all that this source tree does, and in which nothing
    /// goes wrong.
    pub fn new(release: Version, layout: Layout) -> Stamp {
        Stamp { release, layout, speaks: SPOKEN, faults: Faults::default() }
    }

    /// What `--describe` prints.
    pub fn description(&self) -> Description {
        Description {
            release: self.release.clone(),
            contract: self.speaks,
            protocol: self.speaks,
            state: StateRange {
                read_min: self.speaks.min,
                read_max: self.speaks.max,
                write: self.speaks.max,
            },
        }
    }

    /// What it greets the supervisor with.
    pub fn greets(&self) -> Range {
        self.faults.contract.unwrap_or(self.speaks)
    }
}

fn spoken() -> Range {
    SPOKEN
}

/// A range of versions that this program has.
fn within_spoken<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Range, D::Error> {
    let range = Range::deserialize(deserializer)?;
    match range.min <= range.max && SPOKEN.contains(range.min) && SPOKEN.contains(range.max) {
        true => Ok(range),
        false => Err(de::Error::custom(format!("versions {range} cannot be spoken; there are {SPOKEN}"))),
    }
}

mod number {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use super::Layout;

    pub fn serialize<S: Serializer>(layout: &Layout, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(layout.number())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Layout, D::Error> {
        let number = u32::deserialize(deserializer)?;
        Layout::from_number(number).ok_or_else(|| de::Error::custom(format!("layout {number} is unknown")))
    }
}

/// Why a stamp cannot be read or written.
#[derive(Debug)]
pub enum StampError {
    /// The file.
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The trailer is there and makes no sense.
    Trailer {
        /// In which file.
        path: PathBuf,
        /// In words.
        reason: String,
    },
}

impl fmt::Display for StampError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StampError::File { path, error } => write!(f, "cannot read or write {}: {error}", path.display()),
            StampError::Trailer { path, reason } => {
                write!(f, "the release description at the end of {} is damaged: {reason}", path.display())
            }
        }
    }
}

impl std::error::Error for StampError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StampError::File { error, .. } => Some(error),
            StampError::Trailer { .. } => None,
        }
    }
}

/// The stamp of the running executable.
///
/// # Errors
/// The file cannot be read, or its trailer makes no sense.
pub fn own() -> Result<Stamp, StampError> {
    read(Path::new("/proc/self/exe"))
}

/// The stamp of an executable.
///
/// # Errors
/// The file cannot be read, or its trailer makes no sense.
pub fn read(path: &Path) -> Result<Stamp, StampError> {
    let failed = |error| StampError::File { path: path.to_owned(), error };
    let damaged = |reason: String| StampError::Trailer { path: path.to_owned(), reason };
    let mut file = File::open(path).map_err(failed)?;
    let Some((at, length)) = trailer(&mut file).map_err(failed)? else {
        let release = env!("CARGO_PKG_VERSION").parse().map_err(|error| damaged(format!("{error}")))?;
        return Ok(Stamp::new(release, Layout::ByName));
    };
    if length > LONGEST {
        return Err(damaged(format!("it is said to have {length} bytes")));
    }
    let mut text = vec![0; length as usize];
    file.seek(SeekFrom::Start(at)).map_err(failed)?;
    file.read_exact(&mut text).map_err(failed)?;
    serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))
}

/// Copies the executable `base`, without its own stamp, to `out` and appends this one.
///
/// # Errors
/// A file cannot be read or written.
pub fn write(base: &Path, out: &Path, stamp: &Stamp) -> Result<(), StampError> {
    let reading = |error| StampError::File { path: base.to_owned(), error };
    let writing = |error| StampError::File { path: out.to_owned(), error };
    let mut from = File::open(base).map_err(reading)?;
    let bare = match trailer(&mut from).map_err(reading)? {
        Some((at, _)) => at,
        None => from.seek(SeekFrom::End(0)).map_err(reading)?,
    };
    from.rewind().map_err(reading)?;
    let text = serde_json::to_vec(stamp).map_err(|error| writing(error.into()))?;
    let length = u32::try_from(text.len()).map_err(|error| writing(io::Error::other(error)))?;
    let mut to =
        File::options().write(true).create(true).truncate(true).mode(0o755).open(out).map_err(writing)?;
    io::copy(&mut from.take(bare), &mut to).map_err(writing)?;
    for part in [&text[..], &length.to_le_bytes(), &MAGIC] {
        to.write_all(part).map_err(writing)?;
    }
    Ok(())
}

/// Where the JSON begins and how long it is, if there is a trailer.
fn trailer(file: &mut File) -> io::Result<Option<(u64, u32)>> {
    let end = file.seek(SeekFrom::End(0))?;
    let Some(tail) = end.checked_sub(TAIL) else { return Ok(None) };
    file.seek(SeekFrom::Start(tail))?;
    let mut bytes = [0; TAIL as usize];
    file.read_exact(&mut bytes)?;
    let [l0, l1, l2, l3, magic @ ..] = bytes;
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    match tail.checked_sub(u64::from(length)) {
        Some(at) if magic == MAGIC => Ok(Some((at, length))),
        Some(_) | None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::faults::{AtStart, Faults};

    const ONE: Range = Range { min: 1, max: 1 };

    #[test]
    fn a_stamp_is_read_back_and_replaced_and_its_absence_is_the_source_trees_release() {
        let dir = tempfile::tempdir().unwrap();
        let [base, one, two] = ["base", "one", "two"].map(|name| dir.path().join(name));
        std::fs::write(&base, b"an executable").unwrap();
        assert_eq!(read(&base).unwrap().release.as_str(), env!("CARGO_PKG_VERSION"));
        let first = Stamp::new("1.0.0".parse().unwrap(), Layout::ByName);
        write(&base, &one, &first).unwrap();
        assert_eq!(read(&one).unwrap(), first);
        let faults = Faults { at_start: Some(AtStart::Hang), ..Faults::default() };
        let second = Stamp { release: "1.1.0".parse().unwrap(), layout: Layout::ByKind, speaks: ONE, faults };
        write(&one, &two, &second).unwrap();
        assert_eq!(read(&two).unwrap(), second);
        let bytes = std::fs::read(&two).unwrap();
        assert!(bytes.starts_with(b"an executable{"), "the old stamp is gone");
    }

    #[test]
    fn a_release_describes_itself_by_what_it_speaks_and_can_speak_nothing_that_is_not_there() {
        let stamp = Stamp { speaks: ONE, ..Stamp::new("1.0.0".parse().unwrap(), Layout::ByName) };
        let description = stamp.description();
        assert_eq!((description.contract, description.protocol, stamp.greets()), (ONE, ONE, ONE));
        assert_eq!(description.state, StateRange { read_min: 1, read_max: 1, write: 1 });
        let now = Stamp::new("1.1.0".parse().unwrap(), Layout::ByName);
        assert_eq!(now.description().state, StateRange { read_min: 1, read_max: 2, write: 2 });
        let read =
            |speaks: &str| serde_json::from_str::<Stamp>(&format!(r#"{{"release":"1","layout":1{speaks}}}"#));
        assert_eq!(read("").unwrap().speaks, SPOKEN, "a stamp of before there was a choice");
        assert_eq!(read(r#","speaks":{"min":1,"max":1}"#).unwrap().speaks, ONE);
        for wrong in [(0, 1), (1, SPOKEN.max + 1), (2, 1)] {
            assert!(
                read(&format!(r#","speaks":{{"min":{},"max":{}}}"#, wrong.0, wrong.1)).is_err(),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn a_damaged_trailer_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("worker");
        std::fs::write(&path, b"an executable{}\x02\0\0\0bumpless").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("worker"));
    }
}

//! From a blob to an artifact, in bounded memory and bounded output.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};

use bumpless_shared::digest::Digest;
use bumpless_trust::document::{Artifact, Encoding};
use ruzstd::decoding::StreamingDecoder;

/// The largest zstd window: what is held in memory while unpacking (8 MiB, all that the publisher uses).
const MAX_WINDOW: u64 = 8 << 20;

/// The blob is not what the index says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bad {
    /// It does not begin with a zstd frame, or uses a dictionary.
    NoFrame,
    /// It wants a larger window than allowed, in bytes.
    Window(u64),
    /// It cannot be decoded: the decoder's words.
    Broken(String),
    /// Something follows its only frame.
    Trailing,
    /// It unpacks to another number of bytes; never more than one too many is unpacked.
    Size {
        /// Signed.
        expected: u64,
        /// Unpacked.
        found: u64,
    },
    /// It unpacks to other bytes.
    Hash {
        /// Signed.
        expected: Digest,
        /// Unpacked.
        found: Digest,
    },
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bad::NoFrame => f.write_str("what was fetched does not begin with a zstd frame"),
            Bad::Window(size) => {
                write!(
                    f,
                    "unpacking it would take a window of {size} bytes, at most {MAX_WINDOW} are allowed"
                )
            }
            Bad::Broken(why) => write!(f, "it cannot be unpacked: {why}"),
            Bad::Trailing => f.write_str("something follows the end of its only zstd frame"),
            Bad::Size { expected, found } if found > expected => {
                write!(f, "it unpacks to more than the signed {expected} bytes")
            }
            Bad::Size { expected, found } => {
                write!(f, "it unpacks to {found} bytes instead of the signed {expected}")
            }
            Bad::Hash { expected, found } => {
                write!(f, "unpacked, its SHA-256 is {found} instead of the signed {expected}")
            }
        }
    }
}

/// Why there is no artifact.
#[derive(Debug)]
pub enum Failed {
    /// The blob is not what was signed.
    Bad(Bad),
    /// It cannot be read.
    Read(io::Error),
    /// What comes out of it cannot be written.
    Write(io::Error),
}

/// Writes the artifact, of exactly its signed size; its hash is for the caller to read back.
///
/// # Errors
/// [`Failed`]; what was written until then is of no use.
pub fn unpack(mut blob: File, artifact: &Artifact, to: &mut impl Write) -> Result<(), Failed> {
    blob.rewind().map_err(Failed::Read)?;
    match artifact.encoding {
        Encoding::Plain => copy(&mut blob, artifact.raw_size, to, Failed::Read),
        Encoding::Zstd => {
            check_frame(&blob)?;
            let broken = |why: String| Failed::Bad(Bad::Broken(why));
            let mut decoder =
                StreamingDecoder::new(BufReader::new(blob)).map_err(|error| broken(error.to_string()))?;
            copy(&mut decoder, artifact.raw_size, to, |error| broken(error.to_string()))?;
            // The frame is at its end; so must be the blob.
            match decoder.into_inner().read(&mut [0]).map_err(Failed::Read)? {
                0 => Ok(()),
                _ => Err(Failed::Bad(Bad::Trailing)),
            }
        }
    }
}

fn size(expected: u64, found: u64) -> Failed {
    Failed::Bad(Bad::Size { expected, found })
}

/// Exactly `expected` bytes; of more than that, one.
fn copy(
    from: &mut impl Read,
    expected: u64,
    to: &mut impl Write,
    failed: impl Fn(io::Error) -> Failed,
) -> Result<(), Failed> {
    let mut buffer = vec![0; super::CHUNK];
    let mut found = 0u64;
    loop {
        let most = usize::try_from(expected.saturating_add(1).saturating_sub(found)).unwrap_or(usize::MAX);
        let part = &mut buffer[..most.min(super::CHUNK)];
        match from.read(part).map_err(&failed)? {
            0 if found == expected => return Ok(()),
            0 => return Err(size(expected, found)),
            read => {
                found += read as u64;
                if found > expected {
                    return Err(size(expected, found));
                }
                to.write_all(&part[..read]).map_err(Failed::Write)?;
            }
        }
    }
}

/// Reads the frame's header (RFC 8878, 3.1.1.1) before the decoder does, which at its first frame would
/// reserve whatever window the header asks for.
fn check_frame(blob: &File) -> Result<(), Failed> {
    use std::os::unix::fs::FileExt;
    let mut header = [0; 18];
    let mut have = 0;
    while have < header.len() {
        match blob.read_at(&mut header[have..], have as u64).map_err(Failed::Read)? {
            0 => break,
            read => have += read,
        }
    }
    match window(&header[..have]) {
        None => Err(Failed::Bad(Bad::NoFrame)),
        Some(size) if size > MAX_WINDOW => Err(Failed::Bad(Bad::Window(size))),
        Some(_) => Ok(()),
    }
}

/// The window that a frame without dictionary asks for.
fn window(header: &[u8]) -> Option<u64> {
    let rest = header.strip_prefix(&[0x28, 0xb5, 0x2f, 0xfd])?;
    let (descriptor, rest) = rest.split_first()?;
    let single_segment = descriptor & 0x20 != 0;
    // A dictionary, or the reserved bit.
    if descriptor & 0x03 != 0 || descriptor & 0x08 != 0 {
        return None;
    }
    if !single_segment {
        let window = rest.first()?;
        let base = 1u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // Without a window descriptor the whole content is the window.
    let content = match descriptor >> 6 {
        0 => u64::from(*rest.first()?),
        1 => u64::from(u16::from_le_bytes(*rest.first_chunk()?)) + 256,
        2 => u64::from(u32::from_le_bytes(*rest.first_chunk()?)),
        _ => u64::from_le_bytes(*rest.first_chunk()?),
    };
    Some(content)
}

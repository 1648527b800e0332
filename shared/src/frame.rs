//! Bytes to messages and back, for every channel of the contract.
//!
//! ```text
//!   "bp" | version u16 | length u32 | crc32 u32 | payload (bincode, little endian, varint)
//! ```
//!
//! Integers of the header are little endian. The header is never going to change: version and length
//! are read, and the length is held against a limit and the checksum against the payload, before
//! anything is decoded. Version 0 is the greeting alone: a [`Range`] as two
//! plain little-endian `u16`, so that any two versions can at least refuse each other in words.

use std::fmt;

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::{Decode, Encode};

use crate::version::Range;

/// Bytes before the payload.
pub const HEADER: usize = 12;

/// Most bytes of payload in one message of a packet channel (control, link): they must fit into a
/// socket buffer of the kernel's default size.
pub const PACKET_LIMIT: usize = 64 * 1024;

/// Most bytes of payload in one message of the stream: a chunk of 1 MiB and what belongs to it.
pub const STREAM_LIMIT: usize = 1024 * 1024 + 64 * 1024;

const MAGIC: [u8; 2] = *b"bp";
const GREETING: u16 = 0;

/// Decoding allocates at most this much, whatever a length field inside the payload says.
type Codec = Configuration<LittleEndian, Varint, Limit<{ 2 * STREAM_LIMIT }>>;

const fn codec() -> Codec {
    bincode::config::standard().with_limit::<{ 2 * STREAM_LIMIT }>()
}

/// Why bytes are not a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Fewer bytes than a header, or than the header announces.
    Short {
        /// Bytes needed.
        needed: usize,
        /// Bytes there are.
        got: usize,
    },
    /// The first two bytes are not ours.
    Magic,
    /// The header announces more than the channel allows.
    TooLong {
        /// Announced payload bytes.
        length: usize,
        /// Allowed payload bytes.
        limit: usize,
    },
    /// The payload is not what was sent.
    Checksum,
    /// A version that was not agreed on.
    Version {
        /// In the header.
        got: u16,
        /// Agreed.
        expected: u16,
    },
    /// The payload's bytes are no message of this version.
    Payload(String),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Short { needed, got } => write!(f, "message cut short: {got} bytes of {needed}"),
            FrameError::Magic => f.write_str("not a message of this contract: wrong first bytes"),
            FrameError::TooLong { length, limit } => {
                write!(f, "message of {length} bytes, at most {limit} are allowed")
            }
            FrameError::Checksum => f.write_str("message damaged: checksum differs"),
            FrameError::Version { got, expected } => {
                write!(f, "message of contract version {got}, agreed was {expected}")
            }
            FrameError::Payload(why) => write!(f, "message not understood: {why}"),
        }
    }
}

impl std::error::Error for FrameError {}

/// The header of a message, read before its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    version: u16,
    length: usize,
    crc: u32,
}

impl Header {
    /// Reads a header and holds its length against `limit` (payload bytes).
    ///
    /// # Errors
    /// [`FrameError::Magic`], [`FrameError::TooLong`].
    pub fn read(bytes: &[u8; HEADER], limit: usize) -> Result<Header, FrameError> {
        let [m0, m1, v0, v1, l0, l1, l2, l3, c0, c1, c2, c3] = *bytes;
        if [m0, m1] != MAGIC {
            return Err(FrameError::Magic);
        }
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if length > limit {
            return Err(FrameError::TooLong { length, limit });
        }
        Ok(Header {
            version: u16::from_le_bytes([v0, v1]),
            length,
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
        })
    }

    /// Payload bytes that follow.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Checks and decodes the payload that followed this header.
    ///
    /// # Errors
    /// Every [`FrameError`] but [`FrameError::Magic`] and [`FrameError::TooLong`].
    pub fn decode<T: Decode<()>>(&self, payload: &[u8], version: u16) -> Result<T, FrameError> {
        self.check(payload, version)?;
        match bincode::decode_from_slice(payload, codec()) {
            Ok((message, read)) if read == payload.len() => Ok(message),
            Ok((_, read)) => Err(FrameError::Payload(format!("{} bytes too many", payload.len() - read))),
            Err(error) => Err(FrameError::Payload(error.to_string())),
        }
    }

    fn check(&self, payload: &[u8], version: u16) -> Result<(), FrameError> {
        if payload.len() != self.length {
            return Err(FrameError::Short { needed: self.length, got: payload.len() });
        }
        if crc32fast::hash(payload) != self.crc {
            return Err(FrameError::Checksum);
        }
        if self.version != version {
            return Err(FrameError::Version { got: self.version, expected: version });
        }
        Ok(())
    }
}

fn assemble(version: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend(MAGIC);
    bytes.extend(version.to_le_bytes());
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.extend(crc32fast::hash(payload).to_le_bytes());
    bytes.extend(payload);
    bytes
}

/// A whole message.
///
/// # Errors
/// [`FrameError::TooLong`] where the payload exceeds `limit`: the sender's mistake, found before the
/// receiver finds it.
pub fn encode<T: Encode>(message: &T, version: u16, limit: usize) -> Result<Vec<u8>, FrameError> {
    let payload =
        bincode::encode_to_vec(message, codec()).map_err(|error| FrameError::Payload(error.to_string()))?;
    if payload.len() > limit {
        return Err(FrameError::TooLong { length: payload.len(), limit });
    }
    Ok(assemble(version, &payload))
}

fn split(bytes: &[u8], limit: usize) -> Result<(Header, &[u8]), FrameError> {
    let (header, payload) =
        bytes.split_first_chunk::<HEADER>().ok_or(FrameError::Short { needed: HEADER, got: bytes.len() })?;
    Ok((Header::read(header, limit)?, payload))
}

/// A message from exactly `bytes`, as a packet channel delivers them.
///
/// # Errors
/// Any [`FrameError`].
pub fn decode<T: Decode<()>>(bytes: &[u8], version: u16, limit: usize) -> Result<T, FrameError> {
    let (header, payload) = split(bytes, limit)?;
    header.decode(payload, version)
}

/// The greeting: the first message both ways, of version 0 for ever.
pub fn greeting(spoken: Range) -> Vec<u8> {
    let ([a, b], [c, d]) = (spoken.min.to_le_bytes(), spoken.max.to_le_bytes());
    assemble(GREETING, &[a, b, c, d])
}

/// Reads a greeting.
///
/// # Errors
/// Any [`FrameError`]; a greeting of other length than four bytes is [`FrameError::Payload`].
pub fn read_greeting(bytes: &[u8]) -> Result<Range, FrameError> {
    let (header, payload) = split(bytes, PACKET_LIMIT)?;
    header.check(payload, GREETING)?;
    match *payload {
        [a, b, c, d] => Ok(Range { min: u16::from_le_bytes([a, b]), max: u16::from_le_bytes([c, d]) }),
        _ => Err(FrameError::Payload(format!("a greeting has 4 bytes, not {}", payload.len()))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn message() -> (u64, String, Vec<u8>) {
        (7, "level".into(), vec![1, 2, 3])
    }

    #[test]
    fn a_message_reads_back_and_any_flipped_bit_is_noticed() {
        let bytes = encode(&message(), 1, PACKET_LIMIT).unwrap();
        assert_eq!(decode::<(u64, String, Vec<u8>)>(&bytes, 1, PACKET_LIMIT).unwrap(), message());
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode::<(u64, String, Vec<u8>)>(&damaged, 1, PACKET_LIMIT).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(decode::<(u64, String, Vec<u8>)>(&bytes[..length], 1, PACKET_LIMIT).is_err(), "{length}");
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_the_payload_is_looked_at() {
        let bytes = encode(&vec![0_u8; 100], 1, 200).unwrap();
        assert_eq!(decode::<Vec<u8>>(&bytes, 1, 99), Err(FrameError::TooLong { length: 101, limit: 99 }));
        assert!(matches!(encode(&vec![0_u8; 100], 1, 99), Err(FrameError::TooLong { .. })));
    }

    #[test]
    fn a_message_of_another_version_is_refused_with_both_numbers() {
        let bytes = encode(&7_u64, 2, PACKET_LIMIT).unwrap();
        assert_eq!(decode::<u64>(&bytes, 1, PACKET_LIMIT), Err(FrameError::Version { got: 2, expected: 1 }));
    }

    #[test]
    fn the_greeting_is_the_same_sixteen_bytes_for_ever() {
        let bytes = greeting(Range { min: 1, max: 3 });
        assert_eq!(bytes, [98, 112, 0, 0, 4, 0, 0, 0, 186, 235, 213, 178, 1, 0, 3, 0]);
        assert_eq!(read_greeting(&bytes), Ok(Range { min: 1, max: 3 }));
    }
}

//! The logbook's bytes: what one worker writes and another, perhaps of another version, reads.
//!
//! ```text
//! log/<term>/<floor, 20 digits>.seg      no record in it has a sequence below the floor
//!
//! segment   header (64 bytes), record, record, …, then nothing or zeros (reserved space)
//!
//! header     0  "bmplslog"      16  term          56  zero
//!            8  format  u16     24  floor         60  crc32 of bytes 0..60
//!           10  length  u16     32  generation
//!           12  zero    u32     40  salt, 16 bytes
//!
//! record     0  "bRec"          12  term          36  payload: one operation
//!            4  length  u32     20  sequence
//!            8  crc32   u32     28  durable
//! ```
//!
//! Integers are little-endian and, where not said otherwise, of 64 bits. The format number stands
//! before everything that may change with it: it is the version of the contract whose operations may
//! stand in the segment, and the writer takes the highest that everybody knows who may have to read it.
//! A record's length counts the payload alone; its
//! checksum covers the segment's salt and everything in the record but the checksum and the marker
//! in front. The salt is random: neither bytes left on the disk by a deleted segment, nor content
//! that a client made to look like a record, can pass for one.
//!
//! `generation` is the writer's: the chunk files that the records speak of are in
//! `gen-<generation>/chunks`. `durable` is the highest sequence that was known to be on the disk
//! when the record was written. It tells damage from a torn tail: an unreadable record at or below
//! the highest `durable` that can be read anywhere was once safe and is damage; what lies above was
//! never acknowledged.
//!
//! This module opens nothing.

use std::fmt;

use crate::operation::LONGEST_OPERATION;
use crate::version::SPOKEN;

/// Bytes of a segment's header.
pub const HEADER: usize = 64;

/// Bytes of a record before its payload.
pub const RECORD_HEAD: usize = 36;

/// Longest record in bytes, head included.
pub const LONGEST_RECORD: usize = RECORD_HEAD + LONGEST_OPERATION;

/// The four bytes in front of each record, by which a reader finds the next one behind damage.
pub const RECORD_MARKER: [u8; 4] = *b"bRec";

const HEADER_MARKER: [u8; 8] = *b"bmplslog";

/// What stands at the beginning of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The version of the contract whose operations may stand in it.
    pub format: u16,
    /// The term whose holder writes it.
    pub term: u64,
    /// No record in the segment has a lower sequence. For all but a prepared first segment it is
    /// the sequence of the first record.
    pub floor: u64,
    /// The writer's generation.
    pub generation: u64,
    /// Random, part of each record's checksum.
    pub salt: [u8; 16],
}

/// Bytes that are not (yet) the header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// Fewer bytes than a header, or zeros: it has not been written yet.
    NotYet,
    /// Something else than a logbook segment.
    Foreign,
    /// Written by another version of the format.
    Format {
        /// The number found.
        found: u16,
    },
    /// The checksum is wrong.
    Damaged,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderError::NotYet => f.write_str("no segment header has been written yet"),
            HeaderError::Foreign => f.write_str("not a logbook segment"),
            HeaderError::Format { found } => {
                write!(f, "a logbook segment of format {found}; this release reads formats {SPOKEN}")
            }
            HeaderError::Damaged => f.write_str("the segment's header does not match its checksum"),
        }
    }
}

impl std::error::Error for HeaderError {}

impl SegmentHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0..8].copy_from_slice(&HEADER_MARKER);
        bytes[8..10].copy_from_slice(&self.format.to_le_bytes());
        bytes[10..12].copy_from_slice(&(HEADER as u16).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.term.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.floor.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.generation.to_le_bytes());
        bytes[40..56].copy_from_slice(&self.salt);
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header from the beginning of a segment.
    pub fn decode(bytes: &[u8]) -> Result<SegmentHeader, HeaderError> {
        let Some(bytes) = bytes.first_chunk::<HEADER>() else {
            return Err(HeaderError::NotYet);
        };
        if bytes.iter().all(|&byte| byte == 0) {
            return Err(HeaderError::NotYet);
        }
        if bytes[..8] != HEADER_MARKER {
            return Err(HeaderError::Foreign);
        }
        let format = u16::from_le_bytes([bytes[8], bytes[9]]);
        if !SPOKEN.contains(format) {
            return Err(HeaderError::Format { found: format });
        }
        if crc32fast::hash(&bytes[..60]) != u32_at(bytes, 60) {
            return Err(HeaderError::Damaged);
        }
        let mut salt = [0; 16];
        salt.copy_from_slice(&bytes[40..56]);
        Ok(SegmentHeader {
            format,
            term: u64_at(bytes, 16),
            floor: u64_at(bytes, 24),
            generation: u64_at(bytes, 32),
            salt,
        })
    }
}

/// The file name of the segment with this floor. Names sort as their floors do.
pub fn segment_name(floor: u64) -> String {
    format!("{floor:020}.seg")
}

/// The floor in a segment's file name; `None` for any other name.
pub fn segment_floor(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// What stands in front of a record's payload, apart from its length and checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHead {
    /// The writer's term.
    pub term: u64,
    /// The record's number. Numbers are global and never start again.
    pub sequence: u64,
    /// The highest sequence known to be on the disk when this record was written.
    pub durable: u64,
}

/// The payload is longer than [`LONGEST_OPERATION`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadTooLong {
    /// Its length in bytes.
    pub length: usize,
}

impl fmt::Display for PayloadTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a logbook record of {} bytes; the limit is {LONGEST_OPERATION}", self.length)
    }
}

impl std::error::Error for PayloadTooLong {}

/// Appends one record to `out`.
pub fn encode_record(
    out: &mut Vec<u8>,
    salt: &[u8; 16],
    head: RecordHead,
    payload: &[u8],
) -> Result<(), PayloadTooLong> {
    if payload.len() > LONGEST_OPERATION {
        return Err(PayloadTooLong { length: payload.len() });
    }
    let start = out.len();
    out.extend_from_slice(&RECORD_MARKER);
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&head.term.to_le_bytes());
    out.extend_from_slice(&head.sequence.to_le_bytes());
    out.extend_from_slice(&head.durable.to_le_bytes());
    out.extend_from_slice(payload);
    let crc = checksum(salt, &out[start..]);
    out[start + 8..start + 12].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// What the bytes at a place where a record may begin are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// Nothing, or zeros as far as a head would reach: the end, as far as it can be told.
    End,
    /// Perhaps the beginning of a record; so many bytes are needed to tell.
    NeedsBytes(usize),
    /// No record begins here.
    Unreadable,
    /// A whole record.
    Record {
        /// What stands in front of the payload.
        head: RecordHead,
        /// The operation's bytes.
        payload: &'a [u8],
        /// Bytes from here to where the next record begins.
        size: usize,
    },
}

/// Reads the record at the beginning of `bytes`: length first, then the checksum, then the rest.
pub fn parse_record<'a>(bytes: &'a [u8], header: &SegmentHeader) -> Parsed<'a> {
    let head = &bytes[..bytes.len().min(RECORD_HEAD)];
    if head.iter().all(|&byte| byte == 0) {
        return Parsed::End;
    }
    if head.len() < RECORD_HEAD {
        return Parsed::NeedsBytes(RECORD_HEAD);
    }
    let length = u32_at(head, 4) as usize;
    if head[..4] != RECORD_MARKER || length > LONGEST_OPERATION || u64_at(head, 12) != header.term {
        return Parsed::Unreadable;
    }
    let size = RECORD_HEAD + length;
    let Some(record) = bytes.get(..size) else {
        return Parsed::NeedsBytes(size);
    };
    if checksum(&header.salt, record) != u32_at(record, 8) {
        return Parsed::Unreadable;
    }
    let head = RecordHead { term: u64_at(head, 12), sequence: u64_at(head, 20), durable: u64_at(head, 28) };
    if head.sequence < header.floor {
        return Parsed::Unreadable;
    }
    Parsed::Record { head, payload: &record[RECORD_HEAD..], size }
}

fn checksum(salt: &[u8; 16], record: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(salt);
    crc.update(&record[4..8]);
    crc.update(&record[12..]);
    crc.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const SEGMENT: SegmentHeader =
        SegmentHeader { format: 1, term: 3, floor: 41, generation: 2, salt: [9; 16] };
    const HEAD: RecordHead = RecordHead { term: 3, sequence: 42, durable: 40 };

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_bytes_of_header_and_record_are_frozen() {
        assert_eq!(
            hex(&SEGMENT.encode()),
            "626d706c736c6f67010040000000000003000000000000002900000000000000\
             02000000000000000909090909090909090909090909090900000000b0cb7117"
        );
        assert_eq!(SegmentHeader::decode(&SEGMENT.encode()), Ok(SEGMENT));
        let second = SegmentHeader { format: 2, ..SEGMENT };
        assert_eq!(
            hex(&second.encode()),
            "626d706c736c6f67020040000000000003000000000000002900000000000000\
             02000000000000000909090909090909090909090909090900000000a7cf24ad"
        );
        assert_eq!(SegmentHeader::decode(&second.encode()), Ok(second));
        let mut record = Vec::new();
        encode_record(&mut record, &SEGMENT.salt, HEAD, b"payload").unwrap();
        assert_eq!(
            hex(&record),
            "6252656307000000005422fb03000000000000002a0000000000000028000000000000007061796c6f6164"
        );
        assert_eq!(segment_name(41), "00000000000000000041.seg");
        assert_eq!(segment_floor("00000000000000000041.seg"), Some(41));
        for other in
            ["41.seg", "+0000000000000000041.seg", "00000000000000000041", "99999999999999999999.seg"]
        {
            assert_eq!(segment_floor(other), None, "{other}");
        }
    }

    #[test]
    fn no_flipped_bit_of_a_header_or_record_passes() {
        let header = SEGMENT.encode();
        for bit in 0..header.len() * 8 {
            let mut bytes = header;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bytes).is_err(), "header bit {bit}");
        }
        let mut record = Vec::new();
        encode_record(&mut record, &SEGMENT.salt, HEAD, b"payload").unwrap();
        for bit in 0..record.len() * 8 {
            let mut bytes = record.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(parse_record(&bytes, &SEGMENT), Parsed::Record { .. }), "record bit {bit}");
        }
    }

    #[test]
    fn a_record_cut_short_asks_for_more_and_zeros_are_the_end() {
        let mut record = Vec::new();
        encode_record(&mut record, &SEGMENT.salt, HEAD, b"payload").unwrap();
        assert_eq!(parse_record(&[], &SEGMENT), Parsed::End);
        assert_eq!(parse_record(&[0; 500], &SEGMENT), Parsed::End);
        for length in 1..record.len() {
            let needed = if length < RECORD_HEAD { RECORD_HEAD } else { record.len() };
            assert_eq!(parse_record(&record[..length], &SEGMENT), Parsed::NeedsBytes(needed), "{length}");
        }
        let size = record.len();
        record.extend_from_slice(&[0; 100]);
        assert_eq!(parse_record(&record, &SEGMENT), Parsed::Record { head: HEAD, payload: b"payload", size });
    }

    #[test]
    fn a_record_of_another_segment_or_term_is_unreadable_here() {
        let mut record = Vec::new();
        encode_record(&mut record, &SEGMENT.salt, HEAD, b"payload").unwrap();
        for other in [
            SegmentHeader { salt: [8; 16], ..SEGMENT },
            SegmentHeader { term: 4, ..SEGMENT },
            SegmentHeader { floor: 43, ..SEGMENT },
        ] {
            assert_eq!(parse_record(&record, &other), Parsed::Unreadable, "{other:?}");
        }
    }

    #[test]
    fn another_format_is_named_before_anything_else_is_read() {
        let mut bytes = SEGMENT.encode();
        for found in [0, SPOKEN.max + 1] {
            bytes[8..10].copy_from_slice(&found.to_le_bytes());
            bytes[20..].fill(0xff);
            assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Format { found }));
        }
        assert_eq!(SegmentHeader::decode(&bytes[..10]), Err(HeaderError::NotYet));
        assert_eq!(SegmentHeader::decode(&[0; 64]), Err(HeaderError::NotYet));
        assert_eq!(SegmentHeader::decode(&[1; 64]), Err(HeaderError::Foreign));
    }

    #[test]
    fn a_payload_above_the_limit_is_refused_on_both_sides() {
        let mut out = Vec::new();
        let long = vec![0; LONGEST_OPERATION + 1];
        assert_eq!(
            encode_record(&mut out, &SEGMENT.salt, HEAD, &long),
            Err(PayloadTooLong { length: long.len() })
        );
        assert!(out.is_empty());
        encode_record(&mut out, &SEGMENT.salt, HEAD, b"payload").unwrap();
        out[4..8].copy_from_slice(&(LONGEST_OPERATION as u32 + 1).to_le_bytes());
        assert_eq!(parse_record(&out, &SEGMENT), Parsed::Unreadable);
    }
}

//! Messages of the contract, of every version: what can be read is written as it was read.
//!
//! The first byte says which message and version is expected. The payload is tried as it is, and framed with a
//! length and a checksum that are right, which chance does not find.
#![no_main]

use std::fmt::Debug;

use bincode::{Decode, Encode};
use bumpless_shared::control::{Order, Report};
use bumpless_shared::frame::{self, HEADER, PACKET_LIMIT, STREAM_LIMIT};
use bumpless_shared::link::{Note, Part};
use bumpless_shared::version::SPOKEN;
use libfuzzer_sys::fuzz_target;

fn message<T: Encode + Decode<()> + PartialEq + Debug>(bytes: &[u8], version: u16, limit: usize) {
    let Ok(read) = frame::decode::<T>(bytes, version, limit) else { return };
    let again = frame::encode(&read, version, 2 * limit).expect("what was read can be written");
    let back = frame::decode::<T>(&again, version, 2 * limit).expect("what was written can be read");
    assert_eq!(back, read);
}

fn every(which: u8, bytes: &[u8], version: u16) {
    match which {
        0 => message::<Order>(bytes, version, PACKET_LIMIT),
        1 => message::<Report>(bytes, version, PACKET_LIMIT),
        2 => message::<Note>(bytes, version, PACKET_LIMIT),
        3 => message::<Part>(bytes, version, STREAM_LIMIT),
        _ => {
            if let Ok(range) = frame::read_greeting(bytes) {
                assert_eq!(frame::greeting(range), bytes);
            }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((which, payload)) = input.split_first() else { return };
    let version = if which & 0x80 == 0 { SPOKEN.min } else { SPOKEN.max };
    let which = which & 0x7f;
    every(which % 5, payload, version);
    let stamped = if which % 5 == 4 { 0 } else { version };
    let mut framed = Vec::with_capacity(HEADER + payload.len());
    framed.extend(*b"bp");
    framed.extend(stamped.to_le_bytes());
    framed.extend((payload.len() as u32).to_le_bytes());
    framed.extend(crc32fast::hash(payload).to_le_bytes());
    framed.extend(payload);
    every(which % 5, &framed, version);
});

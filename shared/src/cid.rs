//! How a packet finds its worker: the layout of the connection ids that our workers give out.
//!
//! ```text
//!  byte   0        1 ‥ 7       8 ‥ 11
//!       ┌─────┬─────────────┬─────────────┐
//!       │ tag │ random      │ MAC, cut    │   12 bytes
//!       └─────┴─────────────┴─────────────┘
//! ```
//!
//! The tag names the slot, and with it the worker, that the connection belongs to. The kernel reads
//! it (the program [`ROUTES`], attached once to the group of sockets and never replaced) and so does a
//! worker ([`tag_of`]); both follow the same rule, and a test holds them together. Everything without a
//! tag is a first flight, on an id that the client made up, and goes to LISTEN.
//!
//! The MAC is the first 4 bytes of HMAC-SHA-256 over the first 8, under a key that all workers of
//! one node share. It is made and checked in the worker, not here.
//!
//! Twelve bytes are part of the routing: clients begin with 20 random bytes (8 at the least), so that
//! a first flight is not mistaken for one of ours. A foreign client that picks 12 bytes may land in a
//! slot; there the packet is seen as untagged by its MAC or as a new connection, and nothing breaks.
//!
//! All of this outlives any single worker: two versions of the worker read each other's ids.

use std::fmt;

/// Length of every connection id that a worker gives out, in bytes.
pub const LENGTH: usize = 12;
/// Bytes that the MAC covers: the tag and the random part.
pub const COVERED: usize = 8;
/// Bytes of the MAC that an id carries.
pub const MAC: usize = LENGTH - COVERED;
/// Slots of a group beside LISTEN: the worker that drains, the one that serves, the candidate.
pub const SLOTS: usize = 3;

/// The slot that a worker owns: 1, 2 or 3, the same number in the groups of all addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(u8);

impl Tag {
    /// Every tag, in the order of the slots.
    pub const ALL: [Tag; SLOTS] = [Tag(1), Tag(2), Tag(3)];

    /// The tag of this number, if there is one.
    pub const fn new(number: u8) -> Option<Tag> {
        match number {
            1..=3 => Some(Tag(number)),
            _ => None,
        }
    }

    /// 1, 2 or 3: also the socket's index in its group, LISTEN being 0.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// 0, 1 or 2: where it stands among the slots.
    pub const fn index(self) -> usize {
        self.0 as usize - 1
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The program that the kernel runs on the first bytes of each UDP payload, as classic BPF:
/// code, jump if true, jump if false, operand. It returns the index of the socket in its group.
/// A load behind the end of the packet makes it return 0, which is LISTEN.
pub const ROUTES: [(u16, u8, u8, u32); 14] = [
    (LOAD_BYTE, 0, 0, 0),
    (JUMP_IF_ANY, 0, 4, 0x80),
    // A long header: version in 1 to 4, length of the destination id in 5, the id from 6 on.
    (LOAD_BYTE, 0, 0, 5),
    (JUMP_IF_EQUAL, 0, 6, LENGTH as u32),
    (LOAD_BYTE, 0, 0, 6),
    (JUMP, 0, 0, 1),
    // A short header: the id begins in byte 1.
    (LOAD_BYTE, 0, 0, 1),
    (JUMP_IF_EQUAL, 3, 0, 1),
    (JUMP_IF_EQUAL, 3, 0, 2),
    (JUMP_IF_EQUAL, 3, 0, 3),
    (RETURN, 0, 0, 0),
    (RETURN, 0, 0, 1),
    (RETURN, 0, 0, 2),
    (RETURN, 0, 0, 3),
];

const LOAD_BYTE: u16 = 0x30;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_ANY: u16 = 0x45;
const RETURN: u16 = 0x06;

/// The tag that a packet carries, or `None` for one that belongs to whoever reads LISTEN.
/// Says nothing about the MAC.
pub fn tag_of(packet: &[u8]) -> Option<Tag> {
    let first = *packet.first()?;
    let number = if first & 0x80 == 0 {
        packet.get(1)
    } else if usize::from(*packet.get(5)?) == LENGTH {
        packet.get(6)
    } else {
        None
    };
    Tag::new(*number?)
}

/// What names a first flight among its retransmissions: the first 8 bytes, big-endian, of the
/// destination id that the client made up. `None` for a packet that is no first flight.
///
/// After a cut the worker that takes LISTEN over gets the keys that the other has seen lately, and
/// passes such packets on: were both to answer one handshake, the client could not go on.
pub fn first_flight(packet: &[u8]) -> Option<u64> {
    if packet.first()? & 0x80 == 0 || tag_of(packet).is_some() {
        return None;
    }
    let length = usize::from(*packet.get(5)?);
    if !(8..=20).contains(&length) || packet.len() < 6 + length {
        return None;
    }
    Some(u64::from_be_bytes(*packet[6..].first_chunk::<8>()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// What the kernel does with the program.
    fn routed(packet: &[u8]) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let (code, yes, no, k) = ROUTES[at];
            at += 1;
            match code {
                LOAD_BYTE => match packet.get(k as usize) {
                    Some(byte) => accumulator = u32::from(*byte),
                    None => return 0,
                },
                JUMP => at += k as usize,
                JUMP_IF_EQUAL => at += usize::from(if accumulator == k { yes } else { no }),
                JUMP_IF_ANY => at += usize::from(if accumulator & k != 0 { yes } else { no }),
                RETURN => return k,
                other => panic!("no such instruction: {other:#x}"),
            }
        }
    }

    #[test]
    fn the_kernel_and_the_worker_read_the_same_tag_from_every_packet() {
        for length in 0..30 {
            for first in [0x00, 0x40, 0x5f, 0x80, 0xc0, 0xff] {
                for id_length in [0, 8, 11, 12, 13, 20] {
                    for tag in [0, 1, 2, 3, 4, 12, 255] {
                        let mut packet = vec![0x77; length];
                        let mut put = |at: usize, byte| {
                            if let Some(place) = packet.get_mut(at) {
                                *place = byte
                            }
                        };
                        put(0, first);
                        put(1, tag);
                        put(5, id_length);
                        put(6, tag);
                        let ours = tag_of(&packet).map_or(0, |tag| u32::from(tag.number()));
                        assert_eq!(ours, routed(&packet), "{packet:02x?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_first_flight_is_named_by_the_id_that_the_client_made_up_and_nothing_else_is() {
        let mut initial = vec![0xc3, 0, 0, 0, 1, 20];
        initial.extend(1..=40);
        assert_eq!(first_flight(&initial), Some(0x0102_0304_0506_0708));
        assert_eq!(first_flight(&initial[..20]), None, "cut off inside the id");
        let mut ours = initial.clone();
        ours[5] = 12;
        ours[6] = 2;
        assert_eq!(first_flight(&ours), None, "one of our ids");
        let mut short = initial.clone();
        short[0] = 0x43;
        assert_eq!(first_flight(&short), None, "a short header");
        initial[5] = 7;
        assert_eq!(first_flight(&initial), None, "shorter than a client may choose");
    }

    #[test]
    fn the_layout_is_the_one_that_was_published_first() {
        assert_eq!((LENGTH, COVERED, MAC, SLOTS), (12, 8, 4, 3));
        assert_eq!(Tag::ALL.map(Tag::number), [1, 2, 3]);
        assert_eq!(Tag::new(0), None);
        assert_eq!(Tag::new(4), None);
    }
}

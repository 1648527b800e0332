//! A logbook segment as another process, or a crash, left it; and the operations in it.
//!
//! The input is read as a segment as it is, and once more with the checksums of its header and of the record
//! at each place put right, which chance does not find.
#![no_main]

use bumpless_shared::logbook::{
    HEADER, Parsed, RecordHead, SegmentHeader, encode_record, parse_record, segment_floor, segment_name,
};
use bumpless_shared::operation::Operation;
use bumpless_shared::version::SPOKEN;
use libfuzzer_sys::fuzz_target;

fn operation(payload: &[u8]) {
    for version in SPOKEN.min..=SPOKEN.max {
        let Ok(operation) = Operation::decode(payload, version) else { continue };
        let again = operation.encode(version).expect("what was read can be written");
        assert_eq!(Operation::decode(&again, version).as_ref(), Ok(&operation));
    }
}

/// Every record of a segment, as a reader goes over it.
fn segment(bytes: &[u8], header: &SegmentHeader) {
    let mut rest = bytes;
    while let Parsed::Record { head, payload, size } = parse_record(rest, header) {
        assert!(size > payload.len() && size <= rest.len());
        assert!(head.sequence >= header.floor && head.term == header.term);
        let mut again = Vec::new();
        encode_record(&mut again, &header.salt, head, payload).expect("what was read can be written");
        assert_eq!(again, &rest[..size]);
        operation(payload);
        rest = &rest[size..];
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(header) = SegmentHeader::decode(bytes) {
        // Its reserved bytes are not kept.
        assert_eq!(SegmentHeader::decode(&header.encode()).as_ref(), Ok(&header));
        segment(&bytes[HEADER..], &header);
    }
    operation(bytes);
    if let Ok(name) = std::str::from_utf8(bytes)
        && let Some(floor) = segment_floor(name)
    {
        assert_eq!(segment_name(floor), name);
    }
    let Some((head, payload)) = bytes.split_first_chunk::<24>() else { return };
    let field = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| head[at + byte]));
    let head = RecordHead { term: field(0), sequence: field(8), durable: field(16) };
    let header = SegmentHeader { format: SPOKEN.max, term: head.term, floor: head.sequence / 2, generation: 1, salt: [7; 16] };
    let mut framed = Vec::new();
    if encode_record(&mut framed, &header.salt, head, payload).is_ok() {
        let size = framed.len();
        framed.extend(payload);
        assert_eq!(parse_record(&framed, &header), Parsed::Record { head, payload: &framed[size - payload.len()..size], size });
        segment(&framed, &header);
    }
});

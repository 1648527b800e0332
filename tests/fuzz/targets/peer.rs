//! What one worker sends to another beside the framed messages: stray packets, and relayed requests within
//! parts of the stream.
#![no_main]

use bumpless_worker::net::stray;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((meta, packet)) = stray::decode(bytes) else { return };
    assert_eq!((meta.len, meta.stride), (packet.len(), packet.len()));
    assert!(!packet.is_empty());
    let again = stray::encode(&meta, packet);
    let (back, same) = stray::decode(&again).expect("what was written can be read");
    assert_eq!((back.addr, back.ecn, back.dst_ip, same), (meta.addr, meta.ecn, meta.dst_ip, packet));
});

//! A `.sigs` file, and the count of keys that signed with it: strangers' signatures never count.
#![no_main]

use std::sync::LazyLock;

use bumpless_trust::document::Role;
use bumpless_trust::root::Root;
use bumpless_trust::signature::{MAX_BLOCKS, Signatures};
use libfuzzer_sys::fuzz_target;

const ROOT: &[u8] = include_bytes!("../../../supervisor/trust/tests/trust/golden/1/root/1.json");
const TIMESTAMP: &[u8] = include_bytes!("../../../supervisor/trust/tests/trust/golden/1/timestamp.json");

static KEYS: LazyLock<Root> = LazyLock::new(|| Root::parse(ROOT).expect("a published root"));

fuzz_target!(|bytes: &[u8]| {
    let Ok(signatures) = Signatures::parse(bytes) else { return };
    let lines = bytes.split(|byte| *byte == b'\n').count();
    assert!(lines <= 4 * MAX_BLOCKS + 1, "{lines} lines");
    // Of this file nobody has a signature by these keys: they changed with the second root.
    for role in [Role::Root, Role::Timestamp, Role::Release] {
        assert!(signatures.verify(KEYS.keys(role), "forged", TIMESTAMP).is_err());
    }
});

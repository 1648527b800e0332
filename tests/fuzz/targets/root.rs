//! A root of trust: whatever it says, no threshold of nought, no key twice, no key in two roles.
#![no_main]

use bumpless_trust::document::{MAX_TIMESTAMP_VALID, Role, RootDocument, parse};
use bumpless_trust::root::Root;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    bumpless_fuzz::reads_back::<RootDocument>(bytes, |bytes| parse(bytes, "root").ok());
    let Ok(root) = Root::parse(bytes) else { return };
    assert_eq!(bytes[0], b'{');
    assert!((1..=MAX_TIMESTAMP_VALID).contains(&root.timestamp_valid()));
    let mut seen = Vec::new();
    let roles = [Role::Root, Role::Timestamp, Role::Release].map(|role| root.keys(role));
    for keys in roles.into_iter().chain(root.builders()) {
        assert!(keys.threshold() >= 1 && keys.threshold() <= keys.keys().len());
        for key in keys.keys() {
            assert!(!seen.contains(key.bytes()), "a key counts twice");
            seen.push(*key.bytes());
        }
    }
});

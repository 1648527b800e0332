//! What several targets ask for.

use std::fmt::Debug;

use serde::Serialize;

/// When the feed in golden bytes was valid, in unix seconds.
pub const PUBLISHED: u64 = 1_800_000_000;

/// What is read from bytes is written so that it reads the same.
///
/// # Panics
/// It does not: a finding.
pub fn reads_back<T: Serialize + PartialEq + Debug>(bytes: &[u8], parse: impl Fn(&[u8]) -> Option<T>) {
    let Some(read) = parse(bytes) else { return };
    let again = serde_json::to_vec(&read).expect("what was read can be written");
    assert_eq!(parse(&again).as_ref(), Some(&read));
}

//! A timestamp.
#![no_main]

use bumpless_trust::document::{TimestampDocument, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    bumpless_fuzz::reads_back::<TimestampDocument>(bytes, |bytes| parse(bytes, "timestamp").ok());
});

//! What builders signed.
#![no_main]

use bumpless_trust::build::BuildDocument;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    bumpless_fuzz::reads_back::<BuildDocument>(bytes, |bytes| BuildDocument::parse(bytes).ok());
});

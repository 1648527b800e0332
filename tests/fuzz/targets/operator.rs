//! A line on the control socket: any local user may send one.
#![no_main]

use bumpless_control::request::Request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| {
    let Ok(request) = Request::parse(line) else { return };
    let again = request.line();
    assert_eq!(Request::parse(again.as_bytes()).as_ref(), Ok(&request));
});

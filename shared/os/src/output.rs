//! A line for whoever reads the output.

use std::fmt;
use std::io::{Write, stderr};

/// Writes a line to the error stream, as a whole. Where it cannot be written it is lost: `eprintln!` would
/// panic, and a full disk under an output file must not end who serves from another one.
pub fn say(line: fmt::Arguments<'_>) {
    let _ = stderr().lock().write_all(format!("{line}\n").as_bytes());
}

/// In place of the standard library's in a crate that has it from its root on; see [`say`].
#[macro_export]
macro_rules! eprintln {
    ($($line:tt)*) => { $crate::say(format_args!($($line)*)) };
}

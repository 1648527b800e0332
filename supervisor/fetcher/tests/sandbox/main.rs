//! A fetcher gone bad: what it tries fails, and is seen to work where nothing holds it.
//!
//! ```text
//!   this program ── tests ──▶ this program as `gone-bad`: enters the real fetcher's sandbox, does one deed
//!                    │
//!                    ├──────▶ the supervisor's own code, with any program in the fetcher's place
//!                    └──────▶ this program as `supervise`: a supervisor that is killed
//! ```
//!
//! Each of its processes has to be single-threaded from its start, as the fetcher is: hence a `main` of its
//! own instead of the usual one, with the same names and the same filter on the command line.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bad;
mod imposed;
#[path = "../fetcher/lab.rs"]
mod lab;
mod own;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("gone-bad") => return bad::main(&arguments[1..]),
        Some("supervise") => return imposed::supervise(&arguments[1..]),
        Some(_) | None => {}
    }
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let list = arguments.iter().any(|argument| argument == "--list");
    let (mut ran, mut failed) = (0, Vec::new());
    for (name, test) in own::TESTS.iter().chain(imposed::TESTS) {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        if list {
            println!("{name}: test");
            continue;
        }
        ran += 1;
        // What it says of the panic is on the error stream already.
        let passed = std::panic::catch_unwind(test).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        if !passed {
            failed.push(*name);
        }
    }
    println!("\ntest result: {} passed; {} failed {failed:?}", ran - failed.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

/// Says that a test was left out and why; where everything has to be tested, that is a failure.
fn left_out(name: &str, why: &str) {
    eprintln!("left out: {name}: {why}");
    let required = std::env::var_os("BUMPLESS_REQUIRE_ALL").is_some_and(|value| value == "1");
    assert!(!required, "{name} was left out, and BUMPLESS_REQUIRE_ALL=1 allows no test to be: {why}");
}

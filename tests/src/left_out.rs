//! Tests that cannot run here are named, never silently passed.

use std::io::Write;
use std::sync::Mutex;

static LEFT_OUT: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Says that a test was left out and why, and sums up what was left out so far. The text goes to the
/// error stream itself, past the capture of the test harness.
///
/// # Panics
/// With `BUMPLESS_REQUIRE_ALL=1`: where everything has to be tested, leaving out is failing.
pub fn left_out(name: &str, why: &str) {
    let summary = {
        let mut all = LEFT_OUT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.push(name.to_owned());
        format!("left out: {name}: {why}\nleft out so far: {} ({})", all.len(), all.join(", "))
    };
    let _ = writeln!(std::io::stderr(), "{summary}");
    let required = std::env::var_os("BUMPLESS_REQUIRE_ALL").is_some_and(|value| value == "1");
    assert!(!required, "{name} was left out, and BUMPLESS_REQUIRE_ALL=1 allows no test to be: {why}");
}

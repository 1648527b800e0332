//! Fetches one bounded file over HTTPS, and ends.
//!
//! ```text
//!   supervisor ── spawns ──▶ bumpless-fetch --url URL --max-bytes N …
//!                              0  /dev/null
//!                              1  the file, opened by the supervisor: the only thing it can write;
//!                                 with --from N it holds the first N bytes already
//!                              2  lines:  progress <bytes> <total or ->
//!                                         error <what failed>
//!                              exit code  see exit.rs
//! ```
//!
//! All of TLS, HTTP and URLs is in this process and none of it in the supervisor. It has no secrets and
//! decides nothing: the supervisor hashes and verifies what it finds in the file, whatever this process
//! says. What a hostile server can do is bounded here, and what a hostile fetcher can do is bounded there:
//!
//! - https only; plain http to a loopback address, and only if told so. No redirects, no proxy unless
//!   given and then for https alone, no decoding of contents.
//! - Every byte is counted while it streams; a Content-Length is believed only where it refuses.
//! - Connecting, everything together, and each window of the transfer have their deadlines; a server
//!   that sends a byte now and then is too slow.

pub mod arguments;
pub mod exit;
pub mod transfer;

use std::io::Write;
use std::process::ExitCode;

use crate::arguments::Arguments;
use crate::exit::Exit;

/// The whole program.
pub fn run() -> ExitCode {
    match attempt() {
        Ok(()) => ExitCode::from(Exit::Done.code()),
        Err((exit, text)) => {
            // One line, whatever the text holds. If nobody reads it, the exit code still speaks.
            let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let _ = writeln!(std::io::stderr(), "error {line}");
            ExitCode::from(exit.code())
        }
    }
}

fn attempt() -> Result<(), (Exit, String)> {
    let failed = |what: &str, error: &dyn std::error::Error| (Exit::Failed, format!("{what}: {error}"));
    nix::sys::prctl::set_no_new_privs().map_err(|error| failed("cannot give up privileges", &error))?;
    let arguments = Arguments::parse(std::env::args().skip(1), |name| std::env::var(name).ok());
    let arguments = arguments.map_err(|error| (Exit::Usage, error.to_string()))?;
    // A second installation, which cannot be, would not matter: both are ring.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = runtime.map_err(|error| failed("cannot start", &error))?;
    let file = nix::unistd::dup(std::io::stdout()).map_err(|error| (Exit::NotWritten, error.to_string()))?;
    let result =
        runtime.block_on(transfer::transfer(&arguments, &mut std::fs::File::from(file), |done, total| {
            let total = total.map_or("-".to_owned(), |total| total.to_string());
            // Progress that nobody reads is no reason to stop.
            let _ = writeln!(std::io::stderr(), "progress {done} {total}");
        }));
    // A name that is still being looked up must not delay the end.
    runtime.shutdown_background();
    result.map_err(|error| (error.exit(), error.to_string()))
}

//! Fetches one bounded file over HTTPS, and ends.
//!
//! ```text
//!   supervisor ── spawns ──▶ bumpless-fetch --url URL --max-bytes N …
//!                              0  /dev/null
//!                              1  the file, opened by the supervisor: the only thing it can write;
//!                                 with --from N it holds the first N bytes already
//!                              2  lines:  lacks <what of its sandbox this machine does not have>
//!                                         progress <bytes> <total or ->
//!                                         error <what failed>
//!                              exit code  see exit.rs
//!
//!   bumpless-fetch --describe-sandbox      goes into the sandbox, and prints what of it is in force here
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
//!
//! Two parties bound a fetcher gone bad. This process gives up, before it hears anything from the network,
//! what it does not need ([`sandbox`]); that holds for a fetcher which was sound when it started and was
//! taken over by what it read. The supervisor imposes the rest before this program even runs (its user,
//! its limits, no capabilities, that it dies with the supervisor: [`bumpless_os::child`]); that holds for
//! any program in its place.

pub mod arguments;
pub mod exit;
pub mod sandbox;
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
    let mut line: Vec<String> = std::env::args().skip(1).collect();
    let describe = line == ["--describe-sandbox"];
    if describe {
        // Nothing is fetched from there.
        line = "--allow-http-loopback --url http://127.0.0.1/ --max-bytes 0"
            .split(' ')
            .map(str::to_owned)
            .collect();
    }
    let arguments = Arguments::parse(line, |name| std::env::var(name).ok());
    let arguments = arguments.map_err(|error| (Exit::Usage, error.to_string()))?;
    // A second installation, which cannot be, would not matter: both are ring.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = runtime.map_err(|error| failed("cannot start", &error))?;
    let file = nix::unistd::dup(std::io::stdout()).map_err(|error| (Exit::NotWritten, error.to_string()))?;
    let mut file = std::fs::File::from(file);
    let client = transfer::client(&arguments).map_err(|error| (error.exit(), error.to_string()))?;

    let entered = sandbox::enter(&arguments)
        .map_err(|error| failed("cannot shut itself in; nothing was fetched", &error))?;
    if describe {
        return writeln!(file, "{entered}").map_err(|error| (Exit::NotWritten, error.to_string()));
    }
    for lack in entered.lacks() {
        // Whoever does not read this is not told.
        let _ = writeln!(std::io::stderr(), "lacks {lack}");
    }
    let result = runtime.block_on(transfer::transfer(&client, &arguments, &mut file, |done, total| {
        let total = total.map_or("-".to_owned(), |total| total.to_string());
        // Progress that nobody reads is no reason to stop.
        let _ = writeln!(std::io::stderr(), "progress {done} {total}");
    }));
    // A name that is still being looked up must not delay the end.
    runtime.shutdown_background();
    result.map_err(|error| (error.exit(), error.to_string()))
}

//! The command line of `bumpless-node`, which has next to nothing on it: a worker is started by the
//! supervisor, through a channel in place of its standard input.

use std::io::Write;
use std::process::ExitCode;

use bumpless_os::channel;

use crate::{node, stamp};

const HELP: &str = "\
bumpless-node: a storage node's worker. It is started by bumplessd, not by hand.

  bumpless-node              run, with the supervisor's control channel as standard input
  bumpless-node --describe   print what this release is and which versions it speaks, as JSON
  bumpless-node --version    print its name
  bumpless-node --help       print this

To run a node, start bumplessd; `bumpless status` says what it does.
";

/// Threads of the runtime: the machine's cores belong to whoever answers requests, and there are two
/// workers on it during an upgrade.
const THREADS: usize = 2;

/// Threads for reading and hashing.
const BLOCKING_THREADS: usize = 64;

/// Runs what the arguments say.
pub fn main(arguments: impl Iterator<Item = String>) -> ExitCode {
    let arguments: Vec<String> = arguments.skip(1).collect();
    let stamp = match stamp::own() {
        Ok(stamp) => stamp,
        Err(error) => return failed(&error),
    };
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => run(stamp),
        ["--describe"] => match serde_json::to_string(&stamp.description()) {
            Ok(text) => print(&format!("{text}\n")),
            Err(error) => failed(&error),
        },
        ["--version"] => print(&format!("bumpless-node {}\n", stamp.release)),
        ["--help" | "-h"] => print(HELP),
        _ => {
            eprintln!("bumpless-node: unknown arguments: {}\n\n{HELP}", arguments.join(" "));
            ExitCode::from(2)
        }
    }
}

fn run(stamp: stamp::Stamp) -> ExitCode {
    // Executed through a descriptor, it would be called by that one's number in process lists.
    let _ = nix::sys::prctl::set_name(c"bumpless-node");
    let end = match channel::from_supervisor() {
        Ok(end) => end,
        Err(error) => {
            eprintln!("bumpless-node: no supervisor's channel as standard input ({error}).\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    stamp.faults.at_start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    match runtime.block_on(async { tokio::spawn(node::run(end, stamp)).await }) {
        Ok(Ok(never)) => match never {},
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    }
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("bumpless-node: {error}");
    ExitCode::FAILURE
}

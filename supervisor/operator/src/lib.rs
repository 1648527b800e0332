//! `bumpless`, the operator's command: one request to the supervisor, its answer in words or as JSON; and the first
//! configuration, before there is a supervisor.
//!
//! ```text
//!   arguments ─┬▶ Request ─▶ control socket ─▶ progress (stderr) … outcome (stdout) ─▶ exit code
//!              └▶ init ─▶ feed ─▶ configuration and root
//! ```
//!
//! Good path: the outcome goes to stdout, progress to stderr: on a terminal as one line that is written
//! over, otherwise as a line per phase. With `--json` stdout gets exactly one object, whatever happens,
//! and stderr nothing. Exit codes: 0 done, 2 usage, 3 refused, 4 nothing to do, 5 failed, 6 rolled back,
//! 7 no supervisor.
//!
//! What can go wrong: no supervisor answers, or it goes away half-way. The worker serves on in either
//! case and an upgrade may too; the text says so. A verb that does not wait has 30 seconds.
//!
//! - [`arguments`]: the command line.
//! - [`connection`]: the socket.
//! - [`init`]: the first configuration.
//! - [`report`]: a [`Status`](bumpless_control::status::Status) in words: a pure function.
//! - [`listing`]: history, versions and outcomes in words.
//! - [`dry_run`]: what an upgrade would do, in words.
//! - [`live`]: progress while an upgrade is waited for.
//! - [`words`]: times, durations and sizes as people read them.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use bumpless_control::reply::{EXIT_NO_SUPERVISOR, EXIT_USAGE, Outcome, Reply};
use bumpless_control::schema::SCHEMA;
use clap::Parser;

pub mod arguments;
pub mod connection;
pub mod dry_run;
pub mod init;
pub mod listing;
pub mod live;
pub mod report;
pub mod words;

use arguments::{Arguments, Question, Verb};
use connection::{Connection, ConnectionError};
use live::{Live, Screen};

/// The whole command, on this process's arguments, environment and streams.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let screen = if std::io::stderr().is_terminal() { Screen::Terminal } else { Screen::Lines };
    run(&arguments, screen, &mut std::io::stdout().lock(), &mut std::io::stderr().lock()).into()
}

/// Asks and prints; the exit code.
pub fn run(arguments: &Arguments, screen: Screen, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let question = match &arguments.verb {
        Verb::Init(wanted) => return init::run(wanted, arguments.json, now, out, err),
        Verb::Ask(question) => question,
    };
    match ask(arguments, question, screen, err) {
        Ok(outcome) if arguments.json => {
            print(out, &outcome.object().to_string());
            outcome.exit_code()
        }
        Ok(outcome) => {
            let text = listing::outcome(&outcome, now);
            match &outcome {
                Outcome::Done { .. } | Outcome::NothingToDo { .. } => print(out, &text),
                Outcome::Refused { .. } | Outcome::Failed { .. } | Outcome::RolledBack { .. } => {
                    print(err, &text)
                }
            }
            outcome.exit_code()
        }
        Err(error) => {
            let (result, code) = match &error {
                ConnectionError::TooLong { .. } => ("usage", EXIT_USAGE),
                ConnectionError::None { .. }
                | ConnectionError::Lost { .. }
                | ConnectionError::Silent { .. }
                | ConnectionError::Garbled { .. } => ("no_supervisor", EXIT_NO_SUPERVISOR),
            };
            if arguments.json {
                let object =
                    serde_json::json!({"schema": SCHEMA, "result": result, "reason": error.to_string()});
                print(out, &object.to_string());
            } else {
                print(err, &error.to_string());
            }
            code
        }
    }
}

fn ask(
    arguments: &Arguments,
    question: &Question,
    screen: Screen,
    err: &mut dyn Write,
) -> Result<Outcome, ConnectionError> {
    let request = question.request();
    let mut connection = Connection::open(&arguments.socket())?;
    connection.send(&request)?;
    let mut live = Live::new(if arguments.json { Screen::Nothing } else { screen });
    loop {
        match connection.reply()? {
            Reply::Progress(progress) => print_part(err, &live.show(&progress)),
            Reply::Outcome(outcome) => {
                print_part(err, &live.end());
                return Ok(outcome);
            }
        }
    }
}

fn print(to: &mut dyn Write, text: &str) {
    print_part(to, text.trim_end());
    print_part(to, "\n");
}

fn print_part(to: &mut dyn Write, text: &str) {
    // A reader that has gone (`bumpless status | head -1`) is no failure of what was asked.
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}

#[cfg(test)]
mod tests;

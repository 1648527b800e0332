//! Asks the supervisor over its control socket, as the operator's command does, with the moment at
//! which each line of the answer came.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bumpless_control::history::Entry;
use bumpless_control::reply::{Answer, Outcome, Progress, Reply};
use bumpless_control::request::Request;
use bumpless_control::status::Status;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Where a supervisor listens.
#[derive(Clone, Debug)]
pub struct Control {
    socket: PathBuf,
}

/// No answer.
#[derive(Debug)]
pub enum AskError {
    /// Nobody listens, or the supervisor went away.
    Socket(std::io::Error),
    /// It went away before it had answered.
    Ended,
    /// The line is none of the protocol.
    Line(serde_json::Error),
    /// Another answer than this request has.
    Unexpected(Box<Outcome>),
    /// It did not come to this within the time.
    Late(String, Duration),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AskError::Socket(error) => write!(f, "the supervisor does not answer: {error}"),
            AskError::Ended => f.write_str("the supervisor went away while it was asked"),
            AskError::Line(error) => write!(f, "the supervisor said something that is no answer: {error}"),
            AskError::Unexpected(outcome) => write!(f, "unexpected answer: {outcome:?}"),
            AskError::Late(what, limit) => write!(f, "waited {limit:?} for {what}"),
        }
    }
}

impl std::error::Error for AskError {}

impl From<std::io::Error> for AskError {
    fn from(error: std::io::Error) -> AskError {
        AskError::Socket(error)
    }
}

impl Control {
    /// Of the supervisor whose control socket this is.
    pub fn new(socket: &Path) -> Control {
        Control { socket: socket.to_owned() }
    }

    /// The socket's path.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks; each progress line goes to `progress` with the moment at which it came.
    ///
    /// # Errors
    /// No supervisor, or one that goes away.
    pub async fn ask(
        &self,
        request: &Request,
        mut progress: impl FnMut(Instant, Progress),
    ) -> Result<Outcome, AskError> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        stream.write_all(format!("{}\n", request.line()).as_bytes()).await?;
        let mut lines = BufReader::new(stream).lines();
        while let Some(line) = lines.next_line().await? {
            match Reply::parse(line.as_bytes()).map_err(AskError::Line)? {
                Reply::Progress(step) => progress(Instant::now(), step),
                Reply::Outcome(outcome) => return Ok(outcome),
            }
        }
        Err(AskError::Ended)
    }

    /// The status.
    ///
    /// # Errors
    /// As [`Control::ask`].
    pub async fn status(&self) -> Result<Status, AskError> {
        match self.ask(&Request::Status, |_, _| ()).await? {
            Outcome::Done { answer: Answer::Status(status) } => Ok(*status),
            other => Err(AskError::Unexpected(Box::new(other))),
        }
    }

    /// The newest entries of the history, oldest first.
    ///
    /// # Errors
    /// As [`Control::ask`].
    pub async fn history(&self, limit: u32) -> Result<Vec<Entry>, AskError> {
        match self.ask(&Request::History { limit }, |_, _| ()).await? {
            Outcome::Done { answer: Answer::History(entries) } => Ok(entries),
            other => Err(AskError::Unexpected(Box::new(other))),
        }
    }

    /// Looks at the status until it is as wanted; a supervisor that is not there yet is waited for too.
    /// There is no event to wait for from outside, hence the looking; `what` names it if it never comes.
    ///
    /// # Errors
    /// [`AskError::Late`] with the last status.
    pub async fn until(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Status) -> bool,
    ) -> Result<Status, AskError> {
        let begun = Instant::now();
        let mut look = tokio::time::interval(Duration::from_millis(20));
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let seen = match self.status().await {
                Ok(status) if wanted(&status) => return Ok(status),
                Ok(status) => serde_json::to_string(&status).unwrap_or_default(),
                Err(error @ (AskError::Socket(_) | AskError::Ended)) => error.to_string(),
                Err(error) => return Err(error),
            };
            if begun.elapsed() > limit {
                return Err(AskError::Late(format!("{what}; last seen: {seen}"), limit));
            }
        }
    }
}

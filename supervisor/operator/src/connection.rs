//! One request and its replies over the control socket.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bumpless_control::reply::Reply;
use bumpless_control::request::Request;
use bumpless_control::{REPLY_LIMIT, REQUEST_LIMIT};
use interprocess::local_socket::prelude::*;
use interprocess::local_socket::{GenericFilePath, Stream};

/// How long an answer may take that does not wait for the end of an upgrade. `check` waits for a feed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to the supervisor.
#[derive(Debug)]
pub struct Connection {
    path: PathBuf,
    reader: BufReader<Stream>,
}

/// Why there is no outcome.
#[derive(Debug)]
pub enum ConnectionError {
    /// Nobody listens.
    None {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The supervisor went away before the outcome.
    Lost {
        /// Where.
        path: PathBuf,
        /// Why; `None`: it closed the connection.
        source: Option<io::Error>,
    },
    /// It did not answer in time.
    Silent {
        /// Where.
        path: PathBuf,
    },
    /// It answered what this command does not understand.
    Garbled {
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The request is too long to be sent.
    TooLong {
        /// Bytes.
        length: usize,
    },
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectionError::None { path, source } => {
                write!(
                    f,
                    "No supervisor answers at {} ({source}).\n\
                     A node that was serving serves on without it, but nothing is upgraded or watched.\n\n",
                    path.display()
                )?;
                match source.kind() {
                    io::ErrorKind::PermissionDenied => {
                        write!(f, "You need to do: let your user reach that socket, or use sudo")
                    }
                    _ => write!(
                        f,
                        "You need to do: start the supervisor, bumplessd; if it runs elsewhere, name its socket with --socket"
                    ),
                }
            }
            ConnectionError::Lost { path, source } => {
                write!(f, "The supervisor at {} went away before it had answered", path.display())?;
                if let Some(source) = source {
                    write!(f, " ({source})")?;
                }
                write!(
                    f,
                    ".\nWorkers serve on without it; the next supervisor finds out how far an upgrade came.\n\n\
                     You need to do: bumpless status"
                )
            }
            ConnectionError::Silent { path } => write!(
                f,
                "The supervisor at {} did not answer within {} s; it may be stuck on a disk.\n\
                 Workers serve on without it.\n\nYou need to do: bumpless status",
                path.display(),
                PATIENCE.as_secs()
            ),
            ConnectionError::Garbled { path, reason } => write!(
                f,
                "What answers at {} is not understood: {reason}.\n\n\
                 You need to do: use the bumpless that came with this bumplessd",
                path.display()
            ),
            ConnectionError::TooLong { length } => {
                write!(
                    f,
                    "a request of {length} bytes is too long, at most {REQUEST_LIMIT} are allowed; nothing was sent"
                )
            }
        }
    }
}

impl std::error::Error for ConnectionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ConnectionError::None { source, .. } | ConnectionError::Lost { source: Some(source), .. } => {
                Some(source)
            }
            ConnectionError::Lost { source: None, .. }
            | ConnectionError::Silent { .. }
            | ConnectionError::Garbled { .. }
            | ConnectionError::TooLong { .. } => None,
        }
    }
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// [`ConnectionError::None`].
    pub fn open(path: &Path) -> Result<Connection, ConnectionError> {
        let none = |source| ConnectionError::None { path: path.to_owned(), source };
        let name = path.to_fs_name::<GenericFilePath>().map_err(none)?;
        let stream = Stream::connect(name).map_err(none)?;
        stream.set_send_timeout(Some(PATIENCE)).map_err(none)?;
        Ok(Connection { path: path.to_owned(), reader: BufReader::new(stream) })
    }

    /// Sends the one request.
    ///
    /// # Errors
    /// [`ConnectionError::TooLong`], [`ConnectionError::Lost`].
    pub fn send(&mut self, request: &Request) -> Result<(), ConnectionError> {
        let mut line = request.line();
        line.push('\n');
        if line.len() > REQUEST_LIMIT {
            return Err(ConnectionError::TooLong { length: line.len() });
        }
        let waits = match request {
            Request::Upgrade { wait, .. }
            | Request::UpgradeFrom { wait, .. }
            | Request::Rollback { wait } => *wait,
            Request::Check | Request::DryRun { folder: Some(_), .. } => true,
            Request::Status
            | Request::DryRun { folder: None, .. }
            | Request::Hold { .. }
            | Request::Unhold
            | Request::History { .. }
            | Request::Versions
            | Request::Trust
            | Request::TrustReset { .. } => false,
        };
        let stream = self.reader.get_mut();
        let sent = stream
            .set_recv_timeout((!waits).then_some(PATIENCE))
            .and_then(|()| stream.write_all(line.as_bytes()));
        // A supervisor that has no place for us answers and closes without reading; its answer is there.
        match sent {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(self.lost(Some(error))),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The next line of the reply.
    ///
    /// # Errors
    /// Every one but [`ConnectionError::None`] and [`ConnectionError::TooLong`].
    pub fn reply(&mut self) -> Result<Reply, ConnectionError> {
        let mut line = Vec::new();
        let read = Read::by_ref(&mut self.reader).take(REPLY_LIMIT as u64).read_until(b'\n', &mut line);
        match read {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Err(ConnectionError::Silent { path: self.path.clone() })
            }
            Err(error) => Err(self.lost(Some(error))),
            Ok(_) if !line.ends_with(b"\n") && line.len() < REPLY_LIMIT => Err(self.lost(None)),
            Ok(_) => Reply::parse(&line).map_err(|error| ConnectionError::Garbled {
                path: self.path.clone(),
                reason: error.to_string(),
            }),
        }
    }

    fn lost(&self, source: Option<io::Error>) -> ConnectionError {
        ConnectionError::Lost { path: self.path.clone(), source }
    }
}

//! The channel to the supervisor, first the inherited one, later whatever was connected.
//!
//! Reports go out in order from one task, so that nobody else waits for a supervisor that does not
//! read; heartbeats are sent past the queue, or left out where there is no room. With no channel
//! reports are dropped: whoever comes next is told the present state, not the past.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bumpless_os::channel::Channel;
use bumpless_shared::control::{Order, Report};
use bumpless_shared::frame::{self, FrameError, PACKET_LIMIT};
use bumpless_shared::version::{NoCommonVersion, Range};
use tokio::sync::{mpsc, oneshot};

use crate::faults::{GARBAGE, Script};

/// Between two tries to reach the named socket: a supervisor that starts is found within a moment.
const RETRY: Duration = Duration::from_millis(100);

/// How long reports may take to get out before the process ends.
const FLUSH: Duration = Duration::from_secs(1);

/// A connection, greeted.
#[derive(Debug)]
pub struct Connection {
    channel: Channel,
    version: u16,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    /// What the system says.
    Io(io::Error),
    /// The other side closed before it greeted.
    Closed,
    /// The other side sent no greeting.
    Frame(FrameError),
    /// No common version.
    Version(NoCommonVersion),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Io(error) => write!(f, "no connection to the supervisor: {error}"),
            ConnectError::Closed => f.write_str("the supervisor closed the channel before its greeting"),
            ConnectError::Frame(error) => write!(f, "the supervisor's greeting is none: {error}"),
            ConnectError::Version(error) => write!(f, "the supervisor and this worker cannot talk: {error}"),
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ConnectError::Io(error) => Some(error),
            ConnectError::Closed => None,
            ConnectError::Frame(error) => Some(error),
            ConnectError::Version(error) => Some(error),
        }
    }
}

impl Connection {
    /// Greets and waits for the greeting.
    ///
    /// # Errors
    /// Any [`ConnectError`].
    pub async fn greet(channel: Channel, spoken: Range) -> Result<Connection, ConnectError> {
        channel.send(&frame::greeting(spoken), &[]).await.map_err(ConnectError::Io)?;
        let packet = channel.receive().await.map_err(ConnectError::Io)?.ok_or(ConnectError::Closed)?;
        let theirs = frame::read_greeting(&packet.bytes).map_err(ConnectError::Frame)?;
        let version = spoken.common(theirs).map_err(ConnectError::Version)?;
        Ok(Connection { channel, version })
    }

    /// Sends a report with descriptors, waiting for room.
    ///
    /// # Errors
    /// The channel is closed, or the report is too long.
    pub async fn send(&self, report: &Report, descriptors: &[OwnedFd]) -> io::Result<()> {
        let bytes = frame::encode(report, self.version, PACKET_LIMIT).map_err(io::Error::other)?;
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        self.channel.send(&bytes, &borrowed).await
    }

    /// The next order; `None` once the channel is closed.
    ///
    /// # Errors
    /// The message is no order. The next may be one.
    pub async fn order(&self) -> Result<Option<(Order, Vec<OwnedFd>)>, FrameError> {
        match self.channel.receive().await {
            Ok(Some(packet)) => {
                let order = frame::decode(&packet.bytes, self.version, PACKET_LIMIT)?;
                Ok(Some((order, packet.descriptors)))
            }
            Ok(None) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(FrameError::Payload(error.to_string()))
            }
            Err(_) => Ok(None),
        }
    }
}

/// Tries until it is there. Not found, refused, another version: all of it may pass.
pub async fn reconnect(path: PathBuf, spoken: Range) -> Connection {
    loop {
        if let Ok(channel) = Channel::connect(&path)
            && let Ok(connection) = Connection::greet(channel, spoken).await
        {
            return connection;
        }
        tokio::time::sleep(RETRY).await;
    }
}

enum Outgoing {
    Report(Report),
    Flush(oneshot::Sender<()>),
}

/// Where reports go. Cheap to clone.
#[derive(Clone)]
pub struct Reports {
    queue: mpsc::UnboundedSender<Outgoing>,
    current: Arc<Mutex<Option<Arc<Connection>>>>,
}

impl fmt::Debug for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reports")
    }
}

impl Reports {
    /// Begins to send.
    pub fn start(connection: Arc<Connection>, script: Script) -> Reports {
        let (queue, mut outgoing) = mpsc::unbounded_channel();
        let current = Arc::new(Mutex::new(Some(connection)));
        let reports = Reports { queue, current };
        let sender = reports.clone();
        tokio::spawn(async move {
            while let Some(next) = outgoing.recv().await {
                match next {
                    Outgoing::Report(report) => {
                        script.before_report(&report).await;
                        // A closed channel is seen by whoever reads it.
                        if let Some(connection) = sender.connection()
                            && let Err(error) = connection.send(&report, &[]).await
                            && error.kind() == io::ErrorKind::Other
                        {
                            eprintln!("bumpless-node: a report was not sent: {error}");
                        }
                    }
                    // Whoever waited may have stopped waiting.
                    Outgoing::Flush(done) => drop(done.send(())),
                }
            }
        });
        reports
    }

    fn connection(&self) -> Option<Arc<Connection>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether nobody hears reports any more.
    pub fn cut_off(&self) -> bool {
        self.connection().is_none_or(|connection| connection.channel.is_closed().unwrap_or(true))
    }

    /// Reports go here from now on; `None`: nowhere.
    pub fn through(&self, connection: Option<Arc<Connection>>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = connection;
    }

    /// Sends, in order, without waiting.
    pub fn send(&self, report: Report) {
        // The task ends with the process.
        let _ = self.queue.send(Outgoing::Report(report));
    }

    /// Sends at once or not at all.
    pub fn send_now(&self, report: &Report) {
        if let Some(connection) = self.connection()
            && let Ok(bytes) = frame::encode(report, connection.version, PACKET_LIMIT)
        {
            // No room or no channel: the next one says more.
            let _ = connection.channel.try_send(&bytes, &[]);
        }
    }

    /// Sends past the queue, waiting for room; for a release that was made to flood.
    ///
    /// # Errors
    /// There is no channel, or it is closed.
    pub async fn deliver(&self, report: &Report) -> io::Result<()> {
        let connection = self.connection().ok_or(io::ErrorKind::NotConnected)?;
        connection.send(report, &[]).await
    }

    /// Sends what is no report; for a release that was made to.
    ///
    /// # Errors
    /// There is no channel, or it is closed.
    pub async fn garbage(&self) -> io::Result<()> {
        let connection = self.connection().ok_or(io::ErrorKind::NotConnected)?;
        connection.channel.send(GARBAGE, &[]).await
    }

    /// Waits until everything sent so far is out, a second at most.
    pub async fn flush(&self) {
        let (done, sent) = oneshot::channel();
        if self.queue.send(Outgoing::Flush(done)).is_ok() {
            let _ = tokio::time::timeout(FLUSH, sent).await;
        }
    }
}

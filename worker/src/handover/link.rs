//! The link: small notes between the two workers, which never wait behind bulk.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use bumpless_os::channel::Channel;
use bumpless_shared::frame::{self, FrameError, PACKET_LIMIT};
use bumpless_shared::link::Note;
use bumpless_shared::operation::OperationError;
use bumpless_shared::version::{NoCommonVersion, Range};

/// What went wrong on link or stream.
#[derive(Debug)]
pub enum LinkError {
    /// The other end is closed.
    Closed,
    /// What the system says.
    Io(io::Error),
    /// The other side sent something that is no message.
    Frame(FrameError),
    /// The two speak no common version.
    Version(NoCommonVersion),
    /// The other side takes no more notes.
    Full,
    /// The greetings are not exchanged yet.
    NotUp,
    /// A message that has no place here.
    Unexpected(&'static str),
    /// An operation that the version lacks which both speak.
    Operation(OperationError),
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkError::Closed => f.write_str("the other worker closed its end"),
            LinkError::Io(error) => write!(f, "the connection to the other worker failed: {error}"),
            LinkError::Frame(error) => write!(f, "the other worker sent something wrong: {error}"),
            LinkError::Version(error) => write!(f, "the other worker cannot be understood: {error}"),
            LinkError::Full => f.write_str("the other worker does not read what it is told"),
            LinkError::NotUp => f.write_str("the other worker has not answered the greeting yet"),
            LinkError::Unexpected(what) => write!(f, "the other worker sent {what} out of turn"),
            LinkError::Operation(error) => write!(f, "the two workers cannot hand this over: {error}"),
        }
    }
}

impl std::error::Error for LinkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LinkError::Io(error) => Some(error),
            LinkError::Frame(error) => Some(error),
            LinkError::Version(error) => Some(error),
            LinkError::Operation(error) => Some(error),
            LinkError::Closed | LinkError::Full | LinkError::NotUp | LinkError::Unexpected(_) => None,
        }
    }
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> LinkError {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
                LinkError::Closed
            }
            _ => LinkError::Io(error),
        }
    }
}

impl From<FrameError> for LinkError {
    fn from(error: FrameError) -> LinkError {
        LinkError::Frame(error)
    }
}

/// One end of the link, after the greetings.
#[derive(Debug)]
pub struct Link {
    channel: Channel,
    version: u16,
}

impl Link {
    /// Greets and waits for the other one's greeting.
    ///
    /// # Errors
    /// Any [`LinkError`] but [`LinkError::Unexpected`].
    pub async fn open(end: OwnedFd, spoken: Range) -> Result<Link, LinkError> {
        let channel = Channel::new(end)?;
        channel.send(&frame::greeting(spoken), &[]).await?;
        let packet = channel.receive().await?.ok_or(LinkError::Closed)?;
        let version = spoken.common(frame::read_greeting(&packet.bytes)?).map_err(LinkError::Version)?;
        Ok(Link { channel, version })
    }

    /// The version that both speak.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// Sends, waiting for room.
    ///
    /// # Errors
    /// [`LinkError::Closed`] and [`LinkError::Io`]: it was not sent.
    pub async fn send(&self, note: &Note) -> Result<(), LinkError> {
        let bytes = frame::encode(note, self.version, PACKET_LIMIT)?;
        Ok(self.channel.send(&bytes, &[]).await?)
    }

    /// The next note.
    ///
    /// # Errors
    /// Any [`LinkError`].
    pub async fn receive(&self) -> Result<Note, LinkError> {
        let packet = self.channel.receive().await?.ok_or(LinkError::Closed)?;
        Ok(frame::decode(&packet.bytes, self.version, PACKET_LIMIT)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    use bumpless_shared::version::SPOKEN;

    #[tokio::test]
    async fn the_highest_version_that_both_speak_is_spoken_and_without_one_nothing_is() {
        let ranges = [(1, 2), (1, 1), (2, 3), (3, 4)].map(|(min, max)| Range { min, max });
        for (one, other, common) in [
            (ranges[0], ranges[0], Some(2)),
            (ranges[0], ranges[1], Some(1)),
            (ranges[0], ranges[2], Some(2)),
            (ranges[0], ranges[3], None),
        ] {
            let (a, b) = bumpless_os::channel::pair().unwrap();
            let (a, b) = tokio::join!(Link::open(a, one), Link::open(b, other));
            assert_eq!(a.map(|link| link.version()).ok(), common, "{one} and {other}");
            assert_eq!(b.map(|link| link.version()).ok(), common, "{one} and {other}");
        }
    }

    #[tokio::test]
    async fn a_note_arrives_and_then_the_end() {
        let (a, b) = bumpless_os::channel::pair().unwrap();
        let (a, b) = tokio::join!(Link::open(a, SPOKEN), Link::open(b, SPOKEN));
        let (a, b) = (a.unwrap(), b.unwrap());
        a.send(&Note::Took { term: 4 }).await.unwrap();
        drop(a);
        assert_eq!(b.receive().await.unwrap(), Note::Took { term: 4 });
        assert!(matches!(b.receive().await, Err(LinkError::Closed)));
        assert!(matches!(b.send(&Note::Took { term: 4 }).await, Err(LinkError::Closed)));
    }
}

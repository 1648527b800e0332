//! The stream: bulk between the two workers, in frames. First the snapshot, then relayed requests.

use std::os::fd::OwnedFd;

use bumpless_shared::frame::{self, HEADER, Header, STREAM_LIMIT};
use bumpless_shared::link::Part;
use bumpless_shared::version::SPOKEN;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::link::LinkError;

const GREETING: usize = HEADER + 4;

/// The half that is read.
#[derive(Debug)]
pub struct Incoming {
    half: BufReader<OwnedReadHalf>,
    version: u16,
}

/// The half that is written.
#[derive(Debug)]
pub struct Outgoing {
    half: BufWriter<OwnedWriteHalf>,
    version: u16,
}

/// Greets and waits for the other one's greeting.
///
/// # Errors
/// Any [`LinkError`] but [`LinkError::Unexpected`].
pub async fn open(end: OwnedFd) -> Result<(Incoming, Outgoing), LinkError> {
    let stream = std::os::unix::net::UnixStream::from(end);
    stream.set_nonblocking(true)?;
    let (read, write) = UnixStream::from_std(stream)?.into_split();
    let (mut read, mut write) = (BufReader::new(read), BufWriter::with_capacity(64 * 1024, write));
    write.write_all(&frame::greeting(SPOKEN)).await?;
    write.flush().await?;
    let mut greeting = [0; GREETING];
    read.read_exact(&mut greeting).await?;
    let version = SPOKEN.common(frame::read_greeting(&greeting)?).map_err(LinkError::Version)?;
    Ok((Incoming { half: read, version }, Outgoing { half: write, version }))
}

impl Incoming {
    /// The next part.
    ///
    /// # Errors
    /// Any [`LinkError`].
    pub async fn receive(&mut self) -> Result<Part, LinkError> {
        let mut header = [0; HEADER];
        self.half.read_exact(&mut header).await?;
        let header = Header::read(&header, STREAM_LIMIT)?;
        let mut payload = vec![0; header.length()];
        self.half.read_exact(&mut payload).await?;
        Ok(header.decode(&payload, self.version)?)
    }
}

impl Outgoing {
    /// Takes a part; it is on its way at the latest after [`Outgoing::flush`].
    ///
    /// # Errors
    /// The stream is closed, or the part exceeds the limit of a frame.
    pub async fn send(&mut self, part: &Part) -> Result<(), LinkError> {
        let bytes = frame::encode(part, self.version, STREAM_LIMIT)?;
        Ok(self.half.write_all(&bytes).await?)
    }

    /// Sends what was taken.
    ///
    /// # Errors
    /// The stream is closed.
    pub async fn flush(&mut self) -> Result<(), LinkError> {
        Ok(self.half.flush().await?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[tokio::test]
    async fn parts_of_any_size_arrive_in_order_and_a_torn_one_is_an_error() {
        let (a, b) = bumpless_os::channel::stream_pair().unwrap();
        let (a, b) = tokio::join!(open(a), open(b));
        let ((_, mut out), (mut incoming, _)) = (a.unwrap(), b.unwrap());
        let parts = [
            Part::Credit { requests: 3 },
            Part::Request { id: 1, request: vec![7; 1 << 20] },
            Part::Answer { id: 1, answer: Vec::new() },
        ];
        let sent = parts.clone();
        let sender = tokio::spawn(async move {
            for part in &sent {
                out.send(part).await.unwrap();
            }
            out.half.write_all(b"bp\x01\0\xff\0\0\0torn").await.unwrap();
            out.flush().await.unwrap();
        });
        for part in parts {
            assert_eq!(incoming.receive().await.unwrap(), part);
        }
        sender.await.unwrap();
        assert!(matches!(incoming.receive().await, Err(LinkError::Closed)));
    }
}

//! The stream: bulk between the two workers, in frames. First the snapshot, then relayed requests.

use std::os::fd::OwnedFd;

use bumpless_shared::frame::{self, HEADER, Header, STREAM_LIMIT};
use bumpless_shared::link::Part;
use bumpless_shared::version::Range;
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
pub async fn open(end: OwnedFd, spoken: Range) -> Result<(Incoming, Outgoing), LinkError> {
    let stream = std::os::unix::net::UnixStream::from(end);
    stream.set_nonblocking(true)?;
    let (read, write) = UnixStream::from_std(stream)?.into_split();
    let (mut read, mut write) = (BufReader::new(read), BufWriter::with_capacity(64 * 1024, write));
    write.write_all(&frame::greeting(spoken)).await?;
    write.flush().await?;
    let mut greeting = [0; GREETING];
    read.read_exact(&mut greeting).await?;
    let version = spoken.common(frame::read_greeting(&greeting)?).map_err(LinkError::Version)?;
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
        let part = header.decode(&payload, self.version)?;
        check(&part, self.version)?;
        Ok(part)
    }
}

impl Outgoing {
    /// Takes a part; it is on its way at the latest after [`Outgoing::flush`].
    ///
    /// # Errors
    /// The stream is closed, the part exceeds the limit of a frame, or the version lacks what is in it.
    pub async fn send(&mut self, part: &Part) -> Result<(), LinkError> {
        check(part, self.version)?;
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

/// Nothing goes over in a version that does not have it.
fn check(part: &Part, version: u16) -> Result<(), LinkError> {
    match part {
        Part::Entries(entries) => {
            entries.iter().try_for_each(|entry| entry.check_version(version)).map_err(LinkError::Operation)
        }
        Part::End { .. } | Part::Credit { .. } | Part::Request { .. } | Part::Answer { .. } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use bumpless_shared::digest::Digest;
    use bumpless_shared::operation::Operation;
    use bumpless_shared::version::SPOKEN;

    use super::*;

    #[tokio::test]
    async fn an_entry_of_a_later_version_is_neither_sent_nor_taken() {
        let one = Range { min: 1, max: 1 };
        let append = Operation::Append { log: Digest([1; 32]), nonce: [2; 16], index: 0, content: vec![3] };
        let part = Part::Entries(vec![append]);
        let pair = bumpless_os::channel::stream_pair().unwrap();
        let (a, b) = tokio::join!(open(pair.0, SPOKEN), open(pair.1, one));
        let ((_, mut out), (mut incoming, _)) = (a.unwrap(), b.unwrap());
        assert!(matches!(out.send(&part).await, Err(LinkError::Operation(_))));
        // What a broken sender would send.
        let bytes = frame::encode(&part, 1, STREAM_LIMIT).unwrap();
        out.half.write_all(&bytes).await.unwrap();
        out.flush().await.unwrap();
        assert!(matches!(incoming.receive().await, Err(LinkError::Operation(_))));
    }

    #[tokio::test]
    async fn parts_of_any_size_arrive_in_order_and_a_torn_one_is_an_error() {
        let (a, b) = bumpless_os::channel::stream_pair().unwrap();
        let (a, b) = tokio::join!(open(a, SPOKEN), open(b, SPOKEN));
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
            out.half.write_all(b"bp\x02\0\xff\0\0\0torn").await.unwrap();
            out.flush().await.unwrap();
        });
        for part in parts {
            assert_eq!(incoming.receive().await.unwrap(), part);
        }
        sender.await.unwrap();
        assert!(matches!(incoming.receive().await, Err(LinkError::Closed)));
    }
}

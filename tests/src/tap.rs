//! A tap in front of the feed: closed (the feed is gone), open, or throttled, so that a fetch takes as
//! long as a test needs.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How much the tap lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// As fast as it goes.
    Open,
    /// So many bytes a second towards the client.
    Throttled(u32),
    /// Connections are closed as soon as they are made.
    Closed,
}

/// Forwards connections to a server until it is dropped.
#[derive(Debug)]
pub struct Tap {
    address: SocketAddr,
    flow: Arc<watch::Sender<Flow>>,
    task: JoinHandle<()>,
}

impl Tap {
    /// Listens on a free port of the loopback; open.
    ///
    /// # Errors
    /// Those of binding.
    pub async fn start(server: SocketAddr) -> io::Result<Tap> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let flow = Arc::new(watch::Sender::new(Flow::Open));
        let shared = Arc::clone(&flow);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let flow = shared.subscribe();
                if *flow.borrow() != Flow::Closed {
                    tokio::spawn(async move {
                        let _ = forward(client, server, flow).await;
                    });
                }
            }
        });
        Ok(Tap { address, flow, task })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Turns the tap, also for connections that are open.
    pub fn turn(&self, flow: Flow) {
        self.flow.send_replace(flow);
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.turn(Flow::Closed);
        self.task.abort();
    }
}

async fn forward(client: TcpStream, server: SocketAddr, mut flow: watch::Receiver<Flow>) -> io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = TcpStream::connect(server).await?.into_split();
    let up = async move {
        tokio::io::copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await
    };
    let down = async move {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let now = *flow.borrow_and_update();
            let (most, pause) = match now {
                Flow::Closed => return Ok(()),
                Flow::Open => (buffer.len(), None),
                // Twenty small steps a second.
                Flow::Throttled(rate) => {
                    ((rate as usize / 20).clamp(1, buffer.len()), Some(Duration::from_millis(50)))
                }
            };
            let read = from_server.read(&mut buffer[..most]).await?;
            if read == 0 {
                return to_client.shutdown().await;
            }
            to_client.write_all(&buffer[..read]).await?;
            if let Some(pause) = pause {
                // A turn of the tap ends the pause.
                let _ = tokio::time::timeout(pause, flow.changed()).await;
            }
        }
    };
    tokio::select! {
        ended = down => ended,
        // The client may close its side of a request early; the answer still runs.
        Err(error) = up => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_closed_tap_lets_nothing_through_and_an_open_one_everything() {
        let server = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let tap = Tap::start(server.local_addr().unwrap()).await.unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = server.accept().await {
                stream.write_all(&[7; 300_000]).await.unwrap();
            }
        });
        let read = async || {
            let mut bytes = Vec::new();
            let mut stream = TcpStream::connect(tap.address()).await.unwrap();
            let _ = stream.read_to_end(&mut bytes).await;
            bytes.len()
        };
        assert_eq!(read().await, 300_000);
        tap.turn(Flow::Throttled(3_000_000));
        assert_eq!(read().await, 300_000);
        tap.turn(Flow::Closed);
        assert_eq!(read().await, 0);
    }
}

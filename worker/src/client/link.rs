//! One connection, and what all connections of a client have in common.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use nix::sys::socket::{setsockopt, sockopt};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ApplicationClose, ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, RecvStream,
    SendStream, TokioRuntime, TransportConfig, VarInt, WriteError,
};
use rustls::client::Resumption;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::counters::{Dropped, Tally};
use super::pin::Pinned;
use super::{Inner, Options, Pause, RequestError, Target};
use crate::net::NAME;
use crate::wire::{self, ANSWER_HEADER, Answer, AnswerHead, SIGNAL, SPOKEN, Signal, WireError};

/// How long a handshake may take before it is begun anew, from the first try to the last. A handshake with a
/// worker that died in the middle of it gets no reset; only time tells.
const PATIENCE: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// For the first round trips, before the path is measured: a lost first packet costs 0.3 s, not 1 s.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// Receive and send buffer of the UDP socket, in bytes: two contents in full flight.
const BUFFER: usize = 2 << 20;

/// For the news of a close to reach the node.
const CLOSING: Duration = Duration::from_secs(1);

/// Where to connect and how; one UDP socket per address family.
pub struct Home {
    target: Target,
    pub options: Options,
    v4: Option<Endpoint>,
    v6: Option<Endpoint>,
    pinned: Arc<Pinned>,
    pub counters: Tally,
}

impl Home {
    pub fn new(target: Target, options: Options) -> Result<Home, RequestError> {
        Home::with(target, options, |_| ())
    }

    /// With the QUIC configuration adjusted.
    pub fn with(
        target: Target,
        options: Options,
        adjust: impl FnOnce(&mut ClientConfig),
    ) -> Result<Home, RequestError> {
        if target.addresses.is_empty() {
            return Err(RequestError::NoAddress);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let pinned = Arc::new(Pinned::new(target.pin, provider.clone()));
        let tls = |error: &dyn std::fmt::Display| RequestError::Protocol {
            reason: format!("cannot set TLS up: {error}"),
        };
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| tls(&error))?
            .dangerous()
            .with_custom_certificate_verifier(pinned.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![wire::ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        let crypto = QuicClientConfig::try_from(config).map_err(|error| tls(&error))?;
        let mut transport = TransportConfig::default();
        transport
            .keep_alive_interval(Some(options.keep_alive))
            .max_idle_timeout(Some(options.idle.try_into().map_err(|error| tls(&error))?))
            .initial_rtt(INITIAL_RTT)
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .max_concurrent_uni_streams(VarInt::from_u32(8));
        let mut client = ClientConfig::new(Arc::new(crypto));
        client.transport_config(Arc::new(transport));
        adjust(&mut client);

        let endpoint = |wanted: bool, any: IpAddr| -> Result<Option<Endpoint>, RequestError> {
            if !wanted {
                return Ok(None);
            }
            let socket = UdpSocket::bind(SocketAddr::new(any, 0)).map_err(RequestError::Socket)?;
            // Best effort: with less, a burst is repaired as loss.
            let _ = setsockopt(&socket, sockopt::RcvBuf, &BUFFER);
            let _ = setsockopt(&socket, sockopt::SndBuf, &BUFFER);
            let mut endpoint = Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))
                .map_err(RequestError::Socket)?;
            endpoint.set_default_client_config(client.clone());
            Ok(Some(endpoint))
        };
        let v4 = endpoint(target.addresses.iter().any(SocketAddr::is_ipv4), Ipv4Addr::UNSPECIFIED.into())?;
        let v6 = endpoint(target.addresses.iter().any(SocketAddr::is_ipv6), Ipv6Addr::UNSPECIFIED.into())?;
        Ok(Home { target, options, v4, v6, pinned, counters: Tally::default() })
    }

    /// A new connection to the first address that answers.
    pub async fn connect(self: &Arc<Self>) -> Result<Arc<Link>, Trouble> {
        let mut last = Trouble::Lost("no address".to_owned());
        for patience in PATIENCE {
            let mut waited = false;
            for address in &self.target.addresses {
                let endpoint = if address.is_ipv4() { &self.v4 } else { &self.v6 };
                let Some(endpoint) = endpoint else { continue };
                let connecting = match endpoint.connect(*address, NAME) {
                    Ok(connecting) => connecting,
                    Err(error) => {
                        last = Trouble::Lost(format!("cannot connect to {address}: {error}"));
                        continue;
                    }
                };
                last = match timeout(patience, connecting).await {
                    Ok(Ok(connection)) => {
                        self.counters.connected();
                        return Ok(Arc::new(Link::new(connection, self.clone())));
                    }
                    Ok(Err(error)) => self.handshake_trouble(*address, error),
                    Err(_) => {
                        waited = true;
                        Trouble::Lost(format!("{address} does not answer"))
                    }
                };
            }
            // A refusal comes at once, and the caller pauses before the next try.
            if !waited {
                break;
            }
        }
        Err(last)
    }

    fn handshake_trouble(&self, address: SocketAddr, error: ConnectionError) -> Trouble {
        match self.pinned.take_stranger() {
            Some(found) => Trouble::Final(RequestError::WrongNode { expected: self.pinned.pin(), found }),
            None => Trouble::of(error, |text| format!("no connection to {address}: {text}")),
        }
    }

    /// Ends when every connection is closed and the nodes are told, or after [`CLOSING`].
    pub async fn flushed(&self) {
        for endpoint in [&self.v4, &self.v6].into_iter().flatten() {
            let _ = timeout(CLOSING, endpoint.wait_idle()).await;
        }
    }
}

/// Why an attempt gave no answer.
pub enum Trouble {
    /// Another attempt may.
    Lost(String),
    /// No attempt will.
    Final(RequestError),
}

impl Trouble {
    /// The error, or else what to say about it.
    pub fn into_final(self) -> Result<RequestError, String> {
        match self {
            Trouble::Final(error) => Ok(error),
            Trouble::Lost(text) => Err(text),
        }
    }

    fn of(error: ConnectionError, say: impl Fn(String) -> String) -> Trouble {
        match error {
            ConnectionError::ApplicationClosed(ApplicationClose { error_code, reason })
                if error_code == VarInt::from_u32(wire::CLOSE_NO_COMMON_VERSION) =>
            {
                Trouble::Final(RequestError::Protocol {
                    reason: String::from_utf8_lossy(&reason).into_owned(),
                })
            }
            other => Trouble::Lost(say(other.to_string())),
        }
    }
}

/// A connection.
pub struct Link {
    connection: Connection,
    home: Arc<Home>,
    pub made_at: SystemTime,
    /// A GOAWAY came.
    leaving: AtomicBool,
    /// Its end was counted, if there was something to count.
    noted: AtomicBool,
    under_way: watch::Sender<usize>,
}

/// A link held for one request.
pub struct Use(Arc<Link>);

impl Deref for Use {
    type Target = Link;

    fn deref(&self) -> &Link {
        &self.0
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        self.under_way.send_modify(|count| *count -= 1);
    }
}

impl Link {
    fn new(connection: Connection, home: Arc<Home>) -> Link {
        let under_way = watch::Sender::new(0);
        let (leaving, noted) = (AtomicBool::new(false), AtomicBool::new(false));
        Link { connection, home, made_at: SystemTime::now(), leaving, noted, under_way }
    }

    pub fn hold(self: &Arc<Self>) -> Use {
        self.under_way.send_modify(|count| *count += 1);
        Use(self.clone())
    }

    pub fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    pub fn close(&self) {
        self.connection.close(VarInt::from_u32(wire::CLOSE_DONE), b"done");
    }

    #[cfg(test)]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Whether this connection ends because the node sent the client away, and for no other reason.
    pub fn followed_goaway(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
            && self.connection.close_reason().is_none_or(|reason| is_drained(&reason))
    }

    /// Once the connection has ended, counts what ended it; whoever notices first does, so that a
    /// request that was repeated never succeeds before the drop is counted.
    pub fn note_end(&self) {
        let Some(reason) = self.connection.close_reason() else { return };
        let closed_here = matches!(reason, ConnectionError::LocallyClosed);
        let sent_away = self.leaving.load(Ordering::Acquire) && is_drained(&reason);
        if !self.noted.swap(true, Ordering::AcqRel) && !closed_here && !sent_away {
            let (made_at, dropped_at) = (self.made_at, SystemTime::now());
            self.home.counters.dropped(Dropped { made_at, dropped_at, cause: reason.to_string() });
        }
    }

    /// Sends a request and reads its answer.
    pub async fn exchange(&self, request: &[u8]) -> Result<Answer, Trouble> {
        let (send, receive) = self.connection.open_bi().await.map_err(|error| Trouble::of(error, lost))?;
        write(send, request).await.map_err(|text| self.trouble(text))?;
        match read(receive).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Trouble::Final(error.into())),
            Err(text) => Err(self.trouble(text)),
        }
    }

    /// What ended the connection says more than what ended the stream.
    fn trouble(&self, text: String) -> Trouble {
        match self.connection.close_reason() {
            Some(reason) => Trouble::of(reason, lost),
            None => Trouble::Lost(text),
        }
    }
}

fn lost(text: String) -> String {
    format!("connection lost: {text}")
}

fn is_drained(reason: &ConnectionError) -> bool {
    matches!(reason, ConnectionError::ApplicationClosed(close) if close.error_code == VarInt::from_u32(wire::CLOSE_DRAINED))
}

async fn write(mut send: SendStream, request: &[u8]) -> Result<(), String> {
    match send.write_all(request).await {
        // The node does not want the rest; it says why in its answer.
        Err(WriteError::Stopped(_)) => return Ok(()),
        Err(error) => return Err(error.to_string()),
        Ok(()) => {}
    }
    // Fails only if the node has stopped the stream, which is the case above.
    let _ = send.finish();
    Ok(())
}

/// The outer error is the connection's, the inner one the answer's.
async fn read(mut receive: RecvStream) -> Result<Result<Answer, WireError>, String> {
    let mut head = [0; ANSWER_HEADER];
    receive.read_exact(&mut head).await.map_err(|error| error.to_string())?;
    let head = match AnswerHead::decode(&head) {
        Ok(head) => head,
        Err(error) => return Ok(Err(error)),
    };
    let mut body = vec![0; head.length];
    receive.read_exact(&mut body).await.map_err(|error| error.to_string())?;
    Ok(head.with_body(body))
}

/// Greets the node, follows its signals, and says at the end what ended the connection.
pub async fn attend(link: Arc<Link>, owner: Weak<Inner>) {
    if let Ok(mut stream) = link.connection.open_uni().await {
        // A connection that cannot take the greeting is ending, which is noticed below.
        let _ = stream.write_all(&Signal::Hello(SPOKEN).encode()).await;
        let _ = stream.finish();
    }
    while let Ok(mut stream) = link.connection.accept_uni().await {
        let Ok(bytes) = stream.read_to_end(SIGNAL).await else { continue };
        match Signal::decode(&bytes) {
            Ok(Some(Signal::Goaway)) => {
                if !link.leaving.swap(true, Ordering::AcqRel) {
                    tokio::spawn(leave(link.clone(), owner.clone()));
                }
            }
            // Whether the versions fit is for the node to say, in its answers.
            Ok(Some(Signal::Hello(_)) | None) | Err(_) => {}
        }
    }
    link.connection.closed().await;
    link.note_end();
}

/// Moves to a new connection, and closes this one when its last request is answered.
async fn leave(link: Arc<Link>, owner: Weak<Inner>) {
    let mut pause = Pause::default();
    loop {
        let new = link.home.connect().await.ok();
        let Some(owner) = owner.upgrade() else {
            new.into_iter().for_each(|new| new.close());
            return;
        };
        // A request may have noticed that this link is gone, and have made another already.
        let present = owner.current().as_ref().is_some_and(|current| Arc::ptr_eq(current, &link));
        match new {
            Some(new) if present => {
                owner.install(new);
                break;
            }
            Some(new) => {
                new.close();
                return;
            }
            None if !present || !link.is_open() => return,
            None => {}
        }
        drop(owner);
        sleep(pause.next()).await;
    }
    drop(owner);
    // Fails only if the sender is gone, which `link` keeps.
    let _ = link.under_way.subscribe().wait_for(|count| *count == 0).await;
    link.close();
}

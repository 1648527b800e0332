//! The handle by which the rest of the worker rules its sockets.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bumpless_shared::cid::{SLOTS, Tag};
use bumpless_shared::control::RoutingKeys;
use bumpless_shared::version::Range;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt};
use ring::{hkdf, hmac};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

use super::figures::{Counters, Figures};
use super::identity::Identity;
use super::ids::{Dead, Ids};
use super::serve::{Desk, Farewell, Handler, Limits};
use super::socket::{Peer, Port, Sockets};
use crate::wire;

/// The sockets of one address, as the supervisor passes them: all four of its group, though only some are read.
#[derive(Debug)]
pub struct GroupFds {
    /// First in the group: packets without a tag.
    pub listen: OwnedFd,
    /// Slots 1, 2 and 3.
    pub slots: [OwnedFd; SLOTS],
}

impl GroupFds {
    /// From descriptors in the contract's order: for each address LISTEN, slot 1, slot 2, slot 3.
    ///
    /// # Errors
    /// Their number, if it is no whole number of groups, or none.
    pub fn all(fds: Vec<OwnedFd>) -> Result<Vec<GroupFds>, usize> {
        let count = fds.len();
        let mut fds = fds.into_iter();
        let mut groups = Vec::with_capacity(count / (1 + SLOTS));
        while let Some(listen) = fds.next() {
            let slots = fds.by_ref().take(SLOTS).collect::<Vec<_>>().try_into().map_err(|_| count)?;
            groups.push(GroupFds { listen, slots });
        }
        if groups.is_empty() { Err(count) } else { Ok(groups) }
    }

    fn slot(&self, tag: Tag) -> BorrowedFd<'_> {
        self.slots[tag.index()].as_fd()
    }
}

/// What a node is made of.
pub struct Config {
    /// The worker's slot in every group.
    pub tag: Tag,
    /// One per address, in the contract's order.
    pub groups: Vec<GroupFds>,
    /// Shared by all workers of this node.
    pub keys: RoutingKeys,
    /// Shared by all workers of this node.
    pub identity: Identity,
    /// Answers requests.
    pub handler: Arc<dyn Handler>,
    /// What clients may take.
    pub limits: Limits,
    /// Versions of the client protocol.
    pub spoken: Range,
}

/// A worker's QUIC endpoint. Cheap to clone; all clones are one node.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    tag: Tag,
    groups: Vec<GroupFds>,
    runtime: Handle,
    dead: Arc<Dead>,
    sockets: Arc<Sockets>,
    desk: Arc<Desk>,
    endpoint: Endpoint,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that ended before the deadline: moved, closed or lost.
    pub closed_by_client: u64,
    /// Connections that were closed at the deadline.
    pub cut_off: u64,
}

impl Node {
    /// Starts serving the own slots. LISTEN is not read before [`listen`](Self::listen), so no new
    /// connection arrives yet. To be called within a runtime, which then runs the node.
    ///
    /// # Errors
    /// The identity is unusable, or a socket cannot be registered.
    pub fn start(config: Config) -> Result<Node, StartError> {
        let Config { tag, groups, keys, identity, handler, limits, spoken } = config;
        let server = server_config(&keys, identity, limits)?;
        let dead = Arc::new(Dead::default());
        let counters = Arc::new(Counters::default());
        let own = ports(groups.iter().map(|group| group.slot(tag))).map_err(StartError::Socket)?;
        let sockets = Arc::new(Sockets::new(tag, own, dead.clone(), counters.clone()));

        let mut endpoint = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &keys.reset)));
        let (key, marks) = (hmac::Key::new(hmac::HMAC_SHA256, &keys.mac), dead.clone());
        endpoint.cid_generator(move || Box::new(Ids::new(tag, key.clone(), marks.clone())));
        // The clients of a dead worker all ask at once, and each must be answered. The generator
        // bounds what may be answered otherwise.
        endpoint.min_reset_interval(Duration::ZERO);
        let endpoint = Endpoint::new_with_abstract_socket(
            endpoint,
            Some(server),
            sockets.clone(),
            Arc::new(TokioRuntime),
        )
        .map_err(StartError::Socket)?;

        let desk = Arc::new(Desk::new(handler, limits, spoken, counters));
        tokio::spawn(desk.clone().accept(endpoint.clone()));
        let runtime = Handle::current();
        Ok(Node { inner: Arc::new(Inner { tag, groups, runtime, dead, sockets, desk, endpoint }) })
    }

    /// Takes new connections from now on, but leaves the first flights `handed_over` to the peer. Called
    /// again it only replaces that list. Takes some ten microseconds.
    ///
    /// # Errors
    /// A socket cannot be registered (no descriptors or no memory left); nothing has changed.
    pub fn listen(&self, handed_over: Vec<u64>) -> io::Result<()> {
        let _runtime = self.inner.runtime.enter();
        let ports = ports(self.inner.groups.iter().map(|group| group.listen.as_fd()))?;
        self.inner.sockets.listen(ports, handed_over);
        Ok(())
    }

    /// Takes no new connection any more: from its return on no packet is read from LISTEN. Those whose
    /// first flight is here go on. Returns what to pass to the next listener's
    /// [`listen`](Self::listen): at most [`MOST_HANDED_OVER`](super::MOST_HANDED_OVER) numbers.
    pub fn unlisten(&self) -> Vec<u64> {
        self.inner.sockets.unlisten()
    }

    /// Names the other worker, which is alive, and the datagram socket on which the two pass each other's
    /// packets on. Clears the mark that [`adopt`](Self::adopt) may have set.
    ///
    /// # Errors
    /// The socket cannot be registered; nothing has changed.
    pub fn peer(&self, tag: Tag, channel: OwnedFd) -> io::Result<()> {
        let _runtime = self.inner.runtime.enter();
        let peer = Peer::new(tag, channel)?;
        self.inner.dead.set(tag, false);
        self.inner.sockets.disown(tag);
        self.inner.sockets.set_peer(Some(peer));
        Ok(())
    }

    /// There is no other worker, or it is of no use for stray packets.
    pub fn no_peer(&self) {
        self.inner.sockets.set_peer(None);
    }

    /// The owner of this tag is confirmed dead: reads its slots and answers what arrives there with stateless
    /// resets. The own tag is ignored.
    ///
    /// # Errors
    /// A socket cannot be registered. The tag is marked dead even so; it can be tried again.
    pub fn adopt(&self, tag: Tag) -> io::Result<()> {
        if tag == self.inner.tag {
            return Ok(());
        }
        let _runtime = self.inner.runtime.enter();
        self.inner.dead.set(tag, true);
        let ports = ports(self.inner.groups.iter().map(|group| group.slot(tag)))?;
        self.inner.sockets.adopt(tag, ports);
        Ok(())
    }

    /// The tag is going to get a new owner, which has not started: clears the mark, reads its slots
    /// no more, and empties them.
    pub fn unadopt(&self, tag: Tag) {
        if tag == self.inner.tag {
            return;
        }
        self.inner.dead.set(tag, false);
        self.inner.sockets.disown(tag);
        for group in &self.inner.groups {
            empty(group.slot(tag));
        }
    }

    /// Tells every connection, now open or yet to come, to continue elsewhere; each at a random
    /// moment within `stagger`, so that not all shake hands at once.
    pub fn goaway(&self, stagger: Duration) {
        self.inner.desk.farewell.send_replace(Some(Farewell { until: Instant::now() + stagger }));
    }

    /// Sends nobody away any more. Connections that were told go nevertheless.
    pub fn cancel_goaway(&self) {
        self.inner.desk.farewell.send_replace(None);
    }

    /// Waits until all connections are gone, at most for `deadline`, then closes what is left with
    /// [`wire::CLOSE_DRAINED`]. The node is of no use afterwards.
    pub async fn drain(&self, deadline: Duration) -> Drained {
        let ended = || self.inner.desk.ended.load(Ordering::Acquire);
        let before = ended();
        let _ = timeout(deadline, self.inner.endpoint.wait_idle()).await;
        let cut_off = self.open_connections() as u64;
        let closed_by_client = ended() - before;
        self.close(wire::CLOSE_DRAINED, "drained").await;
        Drained { closed_by_client, cut_off }
    }

    /// Closes all connections with [`wire::CLOSE_SHUTDOWN`] and waits, at most a second, until they are told.
    /// The node is of no use afterwards.
    pub async fn shutdown(&self) {
        self.inner.sockets.unlisten();
        self.close(wire::CLOSE_SHUTDOWN, "the node stops").await;
    }

    async fn close(&self, code: u32, reason: &str) {
        self.inner.endpoint.close(VarInt::from_u32(code), reason.as_bytes());
        let _ = timeout(CLOSING, self.inner.endpoint.wait_idle()).await;
    }

    /// Requests between their complete arrival and the moment their answer is written.
    pub fn in_flight(&self) -> watch::Receiver<usize> {
        self.inner.desk.under_way.subscribe()
    }

    /// Connections whose handshake is complete.
    pub fn open_connections(&self) -> usize {
        self.inner.desk.open.load(Ordering::Acquire)
    }

    /// What was counted since this was last called.
    pub fn figures(&self) -> Figures {
        self.inner.desk.counters.take(self.open_connections())
    }

    /// The addresses of the groups, in order.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let address = |group: &GroupFds| std::net::UdpSocket::from(group.listen.try_clone()?).local_addr();
        self.inner.groups.iter().map(address).collect()
    }
}

/// For the news of a close to reach the clients.
const CLOSING: Duration = Duration::from_secs(1);

/// Packets that are thrown away at most when a slot is emptied: more than its buffer can hold.
const MOST_QUEUED: usize = 100_000;

fn ports<'a>(fds: impl Iterator<Item = BorrowedFd<'a>>) -> io::Result<Vec<Port>> {
    fds.map(Port::new).collect()
}

fn empty(slot: BorrowedFd<'_>) {
    let Ok(copy) = slot.try_clone_to_owned() else { return };
    let socket = std::net::UdpSocket::from(copy);
    let mut byte = [0];
    // All members of a group are non-blocking, so this ends when the slot is empty.
    if socket.set_nonblocking(true).is_ok() {
        let _ = (0..MOST_QUEUED).try_for_each(|_| socket.recv(&mut byte).map(drop));
    }
}

fn server_config(keys: &RoutingKeys, identity: Identity, limits: Limits) -> Result<ServerConfig, StartError> {
    let certificate = CertificateDer::from(identity.certificate);
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key));
    let mut tls =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate], key))
            .map_err(StartError::Identity)?;
    tls.alpn_protocols = vec![wire::ALPN.to_vec()];
    // A ticket of one worker is worth nothing at the other.
    tls.send_tls13_tickets = 0;
    let crypto = QuicServerConfig::try_from(tls).map_err(|_| StartError::Cipher)?;
    let token = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&keys.token);
    let mut server = ServerConfig::new(Arc::new(crypto), Arc::new(token));
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(limits.idle.try_into().map_err(|_| StartError::Idle(limits.idle))?))
        .max_concurrent_bidi_streams(VarInt::from_u32(limits.streams))
        .max_concurrent_uni_streams(VarInt::from_u32(8))
        .receive_window(VarInt::from_u32(16 << 20));
    server.transport_config(Arc::new(transport));
    Ok(server)
}

/// Why a node cannot start.
#[derive(Debug)]
pub enum StartError {
    /// Certificate and key are not usable, or do not belong together.
    Identity(rustls::Error),
    /// The TLS library lacks the cipher that QUIC begins with.
    Cipher,
    /// An idle time that QUIC cannot express.
    Idle(Duration),
    /// A socket cannot be used or registered.
    Socket(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Identity(error) => write!(
                f,
                "the node's TLS identity is unusable: {error}. Certificate and key in the identity folder must be the \
                 pair that was made at the first start; restore both from a backup"
            ),
            StartError::Cipher => {
                f.write_str("TLS offers no cipher that QUIC can begin with; this build is broken")
            }
            StartError::Idle(idle) => write!(f, "an idle time of {idle:?} is longer than QUIC can express"),
            StartError::Socket(error) => {
                write!(
                    f,
                    "cannot use the sockets that the supervisor passed: {error}. Raise the limit of open files if it is reached"
                )
            }
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartError::Identity(error) => Some(error),
            StartError::Socket(error) => Some(error),
            StartError::Cipher | StartError::Idle(_) => None,
        }
    }
}

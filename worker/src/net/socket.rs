//! Several UDP sockets that QUIC takes for one.
//!
//! Everything that changes while packets flow stands behind one lock, which is held while a batch is
//! read. So whoever has changed something knows, when the call returns, that no packet is read the old way
//! any more; that is what the cut rests on.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bumpless_shared::cid::{Tag, first_flight, tag_of};
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::io::{Interest, ReadBuf};
use tokio::net::{UdpSocket, UnixDatagram};

use super::figures::{Counters, count};
use super::flights::Flights;
use super::ids::Dead;
use super::stray;

/// One socket of a group, registered with the runtime for as long as this value lives.
#[derive(Debug)]
pub struct Port {
    io: UdpSocket,
    state: UdpSocketState,
    address: SocketAddr,
}

impl Port {
    /// Registers a duplicate of the descriptor; within a runtime.
    pub fn new(fd: BorrowedFd<'_>) -> io::Result<Port> {
        let socket = std::net::UdpSocket::from(fd.try_clone_to_owned()?);
        let state = UdpSocketState::new((&socket).into())?;
        let address = socket.local_addr()?;
        Ok(Port { io: UdpSocket::from_std(socket)?, state, address })
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.io.poll_recv_ready(cx))?;
            match self.io.try_io(Interest::READABLE, || self.state.recv((&self.io).into(), buffers, metas)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

/// The other worker, to which strays go and from which they come.
#[derive(Debug)]
pub struct Peer {
    tag: Tag,
    socket: UnixDatagram,
}

impl Peer {
    /// Registers the channel; within a runtime.
    pub fn new(tag: Tag, channel: OwnedFd) -> io::Result<Peer> {
        let socket = StdDatagram::from(channel);
        socket.set_nonblocking(true)?;
        Ok(Peer { tag, socket: UnixDatagram::from_std(socket)? })
    }
}

/// What is read besides the own slots.
#[derive(Debug, Default)]
struct Sources {
    /// One per group, or none while the other worker reads LISTEN.
    listen: Vec<Port>,
    adopted: Vec<(Tag, Port)>,
    peer: Option<Peer>,
    flights: Flights,
    /// Where the next read begins, so that no socket starves another.
    next: usize,
    /// Of the endpoint's driver, to be woken when a source is added.
    waker: Option<Waker>,
    /// For one stray datagram.
    buffer: Vec<u8>,
}

/// All sockets of one worker.
#[derive(Debug)]
pub struct Sockets {
    tag: Tag,
    /// The own slot of each group.
    own: Arc<[Port]>,
    dead: Arc<Dead>,
    counters: Arc<Counters>,
    sources: Mutex<Sources>,
}

/// Where a packet that was read belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Belongs {
    Here,
    Peer,
}

impl Sockets {
    /// Reads the own slots only.
    pub fn new(tag: Tag, own: Vec<Port>, dead: Arc<Dead>, counters: Arc<Counters>) -> Sockets {
        let sources =
            Sources { buffer: vec![0; stray::HEADER + usize::from(u16::MAX)], ..Sources::default() };
        Sockets { tag, own: own.into(), dead, counters, sources: Mutex::new(sources) }
    }

    /// Reads LISTEN too. First flights in `theirs` go to the other worker.
    pub fn listen(&self, ports: Vec<Port>, theirs: Vec<u64>) {
        self.change(|sources| {
            sources.flights.inherit(theirs);
            std::mem::replace(&mut sources.listen, ports)
        });
    }

    /// From the return on nothing is read from LISTEN. Returns the first flights seen lately.
    pub fn unlisten(&self) -> Vec<u64> {
        let mut seen = Vec::new();
        self.change(|sources| {
            seen = sources.flights.hand_over(Instant::now());
            std::mem::take(&mut sources.listen)
        });
        seen
    }

    /// Names the other worker, or that there is none; then no first flight is anybody else's.
    pub fn set_peer(&self, peer: Option<Peer>) {
        self.change(|sources| {
            if peer.is_none() {
                sources.flights.inherit(Vec::new());
            }
            std::mem::replace(&mut sources.peer, peer)
        });
    }

    /// Reads the slots of a tag that is dead.
    pub fn adopt(&self, tag: Tag, ports: Vec<Port>) {
        self.change(|sources| {
            let before = sources.disown(tag);
            sources.adopted.extend(ports.into_iter().map(|port| (tag, port)));
            before
        });
    }

    /// Reads them no more.
    pub fn disown(&self, tag: Tag) {
        self.change(|sources| sources.disown(tag));
    }

    /// Changes the sources; what they no longer hold is dropped, and with it its registration, after the lock.
    fn change<T>(&self, change: impl FnOnce(&mut Sources) -> T) {
        let mut sources = self.sources();
        let before = change(&mut sources);
        let waker = sources.waker.take();
        drop(sources);
        drop(before);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn sources(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The socket whose address a packet to this destination must come from.
    fn port_for(&self, transmit: &Transmit<'_>) -> Option<&Port> {
        let same_family =
            || self.own.iter().filter(|port| port.address.is_ipv4() == transmit.destination.is_ipv4());
        same_family()
            .find(|port| Some(port.address.ip()) == transmit.src_ip)
            .or_else(|| same_family().find(|port| port.address.ip().is_unspecified()))
            .or_else(|| same_family().next())
    }

    /// Looks at each packet of a batch: those of the other worker are passed on and taken out.
    fn sort(&self, sources: &mut Sources, buffer: &mut [u8], meta: &mut RecvMeta) {
        let (length, stride) = (meta.len, meta.stride.max(1));
        let mut kept = 0;
        let mut from = 0;
        while from < length {
            let to = (from + stride).min(length);
            match self.belongs(sources, &buffer[from..to]) {
                Belongs::Here => {
                    if kept != from {
                        buffer.copy_within(from..to, kept);
                    }
                    kept += to - from;
                }
                Belongs::Peer => self.pass_on(sources, meta, &buffer[from..to]),
            }
            from = to;
        }
        meta.len = kept;
    }

    fn belongs(&self, sources: &mut Sources, packet: &[u8]) -> Belongs {
        let peer = sources.peer.as_ref().map(|peer| peer.tag);
        let listening = !sources.listen.is_empty();
        match tag_of(packet) {
            Some(tag) if tag == self.tag || self.dead.has(tag) => Belongs::Here,
            Some(tag) if peer == Some(tag) => Belongs::Peer,
            // Of a worker that is neither dead nor the peer: QUIC drops it for want of a valid id.
            Some(_) => Belongs::Here,
            // Came in one batch behind a packet of ours, but new connections are the other's now.
            None if !listening && peer.is_some() => Belongs::Peer,
            None => match first_flight(packet) {
                Some(flight) if peer.is_some() && sources.flights.is_theirs(flight) => Belongs::Peer,
                Some(flight) if listening => {
                    sources.flights.saw(flight, Instant::now());
                    Belongs::Here
                }
                Some(_) | None => Belongs::Here,
            },
        }
    }

    fn pass_on(&self, sources: &Sources, meta: &RecvMeta, packet: &[u8]) {
        let sent = match &sources.peer {
            Some(peer) => peer.socket.try_send(&stray::encode(meta, packet)).is_ok(),
            None => false,
        };
        count(if sent { &self.counters.strays_sent } else { &self.counters.strays_dropped });
    }

    /// The next stray from the other worker. It is never passed on again, so none can go in circles.
    fn poll_stray(
        &self,
        sources: &mut Sources,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<usize> {
        let Sources { peer, buffer, flights, listen, .. } = sources;
        loop {
            let Some(channel) = peer else { return Poll::Pending };
            let mut datagram = ReadBuf::new(buffer);
            match ready!(channel.socket.poll_recv(cx, &mut datagram)) {
                Ok(()) if !datagram.filled().is_empty() => {}
                // The other end is closed. Who is dead is not for this channel to say.
                Ok(()) | Err(_) => {
                    *peer = None;
                    return Poll::Pending;
                }
            }
            let (Some((meta, packet)), Some(place), Some(slot)) =
                (stray::decode(datagram.filled()), buffers.first_mut(), metas.first_mut())
            else {
                continue;
            };
            let Some(place) = place.get_mut(..packet.len()) else { continue };
            place.copy_from_slice(packet);
            *slot = meta;
            if let Some(flight) = first_flight(packet).filter(|_| !listen.is_empty()) {
                flights.saw(flight, Instant::now());
            }
            count(&self.counters.strays_received);
            return Poll::Ready(1);
        }
    }
}

impl Sources {
    fn disown(&mut self, tag: Tag) -> Vec<(Tag, Port)> {
        self.adopted.extract_if(.., |(adopted, _)| *adopted == tag).collect()
    }
}

impl AsyncUdpSocket for Sockets {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable { own: self.own.clone(), waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match self.port_for(transmit) {
            Some(port) => port.io.try_io(Interest::WRITABLE, || port.state.send((&port.io).into(), transmit)),
            // No socket of that family: nobody can have sent us a packet from there.
            None => Ok(()),
        }
    }

    /// Never fails: an error here would end the endpoint, and with it every connection.
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut guard = self.sources();
        let sources = &mut *guard;
        if !sources.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            sources.waker = Some(cx.waker().clone());
        }
        if let Poll::Ready(received) = self.poll_stray(sources, cx, buffers, metas) {
            return Poll::Ready(Ok(received));
        }
        let total = self.own.len() + sources.listen.len() + sources.adopted.len();
        for index in (0..total).map(|step| (sources.next + step) % total) {
            let others = index.checked_sub(self.own.len());
            let port = match others {
                None => &self.own[index],
                Some(other) => match other.checked_sub(sources.listen.len()) {
                    None => &sources.listen[other],
                    Some(adopted) => &sources.adopted[adopted].1,
                },
            };
            match port.poll_recv(cx, buffers, metas) {
                Poll::Ready(Ok(received)) => {
                    sources.next = (index + 1) % total;
                    for (buffer, meta) in buffers.iter_mut().zip(metas.iter_mut()).take(received) {
                        self.sort(sources, buffer, meta);
                    }
                    return Poll::Ready(Ok(received));
                }
                Poll::Ready(Err(_)) => {
                    count(&self.counters.socket_errors);
                    // The socket stays readable and would not wake anybody again.
                    cx.waker().wake_by_ref();
                }
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    /// Only its family is looked at, and only for outgoing connections.
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.own.first().map(|port| port.address).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn max_transmit_segments(&self) -> usize {
        self.own.iter().map(|port| port.state.max_gso_segments()).min().unwrap_or(1)
    }

    fn max_receive_segments(&self) -> usize {
        self.own.iter().map(|port| port.state.gro_segments()).max().unwrap_or(1)
    }

    fn may_fragment(&self) -> bool {
        self.own.iter().any(|port| port.state.may_fragment())
    }
}

/// Waits until all own slots can be written. Only those that refused a packet have to be waited for; for the
/// others the kernel's answer is still "writable".
struct Writable {
    own: Arc<[Port]>,
    waiting: Option<Waiting>,
}

type Waiting = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let own = self.own.clone();
        let waiting = self.waiting.get_or_insert_with(|| {
            Box::pin(async move {
                for port in own.iter() {
                    port.io.writable().await?;
                }
                Ok(())
            })
        });
        let result = ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(result)
    }
}

impl fmt::Debug for Writable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writable").field("waiting", &self.waiting.is_some()).finish_non_exhaustive()
    }
}

//! Workers on shared sockets within one process, for tests: each has a runtime of its own, so that
//! it can die without a word.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bumpless_os::reuseport;
use bumpless_shared::cid::{ROUTES, Tag};
use bumpless_shared::control::RoutingKeys;
use bumpless_shared::digest::Digest;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use super::*;
use crate::client::{Client, Options, Target, name_of};
use crate::state::append_id;
use crate::wire::{Answer, Ask, Request, RequestId};

/// The tag of this number.
pub fn tag(number: u8) -> Tag {
    Tag::new(number).unwrap()
}

/// Sockets, keys and contents that all workers share.
pub struct Rig {
    groups: Vec<Vec<OwnedFd>>,
    pub addresses: Vec<SocketAddr>,
    keys: RoutingKeys,
    pub identity: Identity,
    pub shelf: Arc<Shelf>,
}

/// The shared contents, and a gate before which puts can be held.
pub struct Shelf {
    contents: Mutex<HashMap<Digest, Vec<u8>>>,
    logs: Mutex<HashMap<Digest, Vec<Entry>>>,
    pub asked: Mutex<Vec<RequestId>>,
    pub gate: watch::Sender<bool>,
}

/// An append's id and its content.
type Entry = (Digest, Vec<u8>);

/// Contents that begin so wait at the gate before they are stored.
pub const HELD: &[u8] = b"held";

struct Clerk {
    tag: Tag,
    shelf: Arc<Shelf>,
}

impl Handler for Clerk {
    fn handle(&self, request: Request) -> Answering<'_> {
        Box::pin(async move {
            self.shelf.asked.lock().unwrap().push(request.id);
            match request.ask {
                Ask::Put { content } => {
                    if content.starts_with(HELD) {
                        self.shelf.gate.subscribe().wait_for(|open| *open).await.unwrap();
                    }
                    let name = name_of(&content);
                    self.shelf.contents.lock().unwrap().insert(name, content);
                    Answer::Stored { name }
                }
                Ask::Get { name } => match self.shelf.contents.lock().unwrap().get(&name) {
                    Some(content) => Answer::Content { content: content.clone() },
                    None => Answer::NotFound,
                },
                Ask::Append { log, nonce, content } => {
                    let id = append_id(&log, &nonce, &content);
                    let mut logs = self.shelf.logs.lock().unwrap();
                    let entries = logs.entry(log).or_default();
                    let known = entries.iter().position(|(known, _)| *known == id);
                    let index = known.unwrap_or_else(|| {
                        entries.push((id, content));
                        entries.len() - 1
                    });
                    Answer::Appended { id, index: index as u64 }
                }
                Ask::ReadLog { log, from } => {
                    let logs = self.shelf.logs.lock().unwrap();
                    let entries = logs.get(&log).map(Vec::as_slice).unwrap_or_default();
                    // Two to a page, so that a reader has to ask again.
                    let page = entries.iter().skip(from as usize).take(2).map(|(_, content)| content.clone());
                    Answer::Log { length: entries.len() as u64, entries: page.collect() }
                }
                // The term tells the test which worker answered.
                Ask::Ping => Answer::Pong { term: self.tag.number().into(), release: "1.0.0".to_owned() },
            }
        })
    }
}

impl Shelf {
    pub fn remove(&self, name: Digest) {
        self.contents.lock().unwrap().remove(&name).unwrap();
    }

    pub fn holds(&self, name: Digest) -> bool {
        self.contents.lock().unwrap().contains_key(&name)
    }
}

/// One worker, alive until it is dropped.
pub struct Worker {
    pub node: Node,
    runtime: Option<Runtime>,
}

impl Worker {
    /// The process is gone: nothing is closed, nobody is told.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let runtime = self.runtime.take().unwrap();
        // Returns when no task of it runs any more; a runtime must not be waited for within another.
        std::thread::spawn(move || drop(runtime)).join().unwrap();
    }
}

impl Rig {
    pub fn new(addresses: &[&str]) -> Rig {
        Rig::with_buffers(addresses, 4 << 20)
    }

    /// With room for so many bytes in each socket, of which the system gives the double.
    pub fn with_buffers(addresses: &[&str], bytes: usize) -> Rig {
        let groups: Vec<Vec<OwnedFd>> =
            addresses.iter().map(|address| group(address.parse().unwrap(), bytes)).collect();
        let addresses = groups.iter().map(|group| local(&group[0])).collect();
        let keys = RoutingKeys { reset: [1; 64], token: [2; 64], mac: [3; 32] };
        let shelf = Shelf {
            contents: Mutex::default(),
            logs: Mutex::default(),
            asked: Mutex::default(),
            gate: watch::Sender::new(false),
        };
        Rig { groups, addresses, keys, identity: Identity::generate().unwrap(), shelf: Arc::new(shelf) }
    }

    /// A duplicate of a socket: 0 is LISTEN.
    pub fn socket(&self, group: usize, index: usize) -> OwnedFd {
        self.groups[group][index].try_clone().unwrap()
    }

    pub fn worker(&self, number: u8) -> Worker {
        self.worker_with(number, Arc::new(Clerk { tag: tag(number), shelf: self.shelf.clone() }))
    }

    pub fn worker_with(&self, number: u8, handler: Arc<dyn Handler>) -> Worker {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let fds = self.groups.iter().flatten().map(|fd| fd.try_clone().unwrap()).collect();
        let config = Config {
            tag: tag(number),
            groups: GroupFds::all(fds).unwrap(),
            keys: self.keys.clone(),
            identity: self.identity.clone(),
            handler,
            limits: Limits::default(),
            spoken: crate::wire::SPOKEN,
        };
        let node = {
            let _inside = runtime.enter();
            Node::start(config).unwrap()
        };
        Worker { node, runtime: Some(runtime) }
    }

    /// Workers 1 and 2, who know each other; the first one listens.
    pub fn pair(&self) -> (Worker, Worker) {
        let (one, two) = (self.worker(1), self.worker(2));
        let (a, b) = UnixDatagram::pair().unwrap();
        one.node.peer(tag(2), a.into()).unwrap();
        two.node.peer(tag(1), b.into()).unwrap();
        one.node.listen(Vec::new()).unwrap();
        (one, two)
    }

    pub fn target(&self) -> Target {
        Target { addresses: self.addresses.clone(), pin: self.identity.pin() }
    }

    pub async fn client(&self) -> Client {
        self.client_with(Duration::from_secs(30)).await
    }

    pub async fn client_with(&self, deadline: Duration) -> Client {
        Client::connect(self.target(), Options { deadline, ..Options::default() }).await.unwrap()
    }
}

fn group(wanted: SocketAddr, buffer: usize) -> Vec<OwnedFd> {
    let mut address = wanted;
    (0..4)
        .map(|index| {
            let family = if wanted.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let fd = socket(family, SockType::Datagram, flags, None).unwrap();
            setsockopt(&fd, sockopt::ReusePort, &true).unwrap();
            setsockopt(&fd, sockopt::RcvBuf, &buffer).unwrap();
            setsockopt(&fd, sockopt::SndBuf, &buffer).unwrap();
            if wanted.is_ipv6() {
                setsockopt(&fd, sockopt::Ipv6V6Only, &true).unwrap();
            }
            if index == 0 {
                let program: Vec<reuseport::Instruction> = ROUTES.into_iter().map(Into::into).collect();
                reuseport::attach(fd.as_fd(), &program).unwrap();
            }
            bind(fd.as_raw_fd(), &SockaddrStorage::from(address)).unwrap();
            address = local(&fd);
            fd
        })
        .collect()
}

fn local(fd: &OwnedFd) -> SocketAddr {
    std::net::UdpSocket::from(fd.try_clone().unwrap()).local_addr().unwrap()
}

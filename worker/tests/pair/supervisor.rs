//! A stand-in for the supervisor: starts real workers, gives orders, hears reports. It decides nothing.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use bumpless_os::channel::{self, Channel};
use bumpless_os::process::Process;
use bumpless_os::reuseport::{self, Instruction};
use bumpless_shared::cid::ROUTES;
use bumpless_shared::control::{
    Command, Durability, Identity, Order, Origin, Report, RoutingKeys, Start, Term, Timing, alive_file,
};
use bumpless_shared::digest::Digest;
use bumpless_shared::frame::{self, PACKET_LIMIT};
use bumpless_shared::release::Release;
use bumpless_shared::version::{Range, SPOKEN};
use bumpless_worker::client::{Client, Options, Target};
use bumpless_worker::faults::Faults;
use bumpless_worker::stamp::{self, Stamp};
use bumpless_worker::state::Layout;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, setsockopt, socket, sockopt,
};
use tempfile::TempDir;

/// How long anything may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Supervisor {
    pub folder: TempDir,
    pub address: SocketAddr,
    sockets: Vec<OwnedFd>,
    pub incarnation: u64,
    instances: u64,
    marks: u64,
    pub timing: Timing,
    /// Versions of the contract; those of an older supervisor are fewer.
    pub speaks: Range,
}

pub struct Node {
    pub instance: u64,
    pub tag: u8,
    pub generation: u64,
    pub process: Process,
    child: Child,
    channel: Option<Channel>,
    /// Of the contract, as agreed on with it.
    version: u16,
    /// Reports that nobody asked for yet.
    heard: Vec<Report>,
    output: PathBuf,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!(
                "--- worker {}: {}",
                self.instance,
                std::fs::read_to_string(&self.output).unwrap_or_default()
            );
            eprintln!("--- unheard: {:?}", self.heard);
        }
    }
}

/// A release made from the one worker binary.
pub fn release(version: &str, layout: Layout, faults: Faults) -> Stamp {
    Stamp { faults, ..Stamp::new(version.parse().unwrap(), layout) }
}

/// What a release speaks that knows nothing of version 2.
pub const ONE: Range = Range { min: 1, max: 1 };

/// A release of before version 2, made from the one worker binary.
pub fn earlier(version: &str, layout: Layout) -> Stamp {
    Stamp { speaks: ONE, ..release(version, layout, Faults::default()) }
}

/// To be held while a program is written and while any process is started: what is open for writing
/// somewhere cannot be executed, and a process that is just being started has, for a moment, open
/// whatever its parent had.
pub fn alone_with_programs() -> std::sync::MutexGuard<'static, ()> {
    static PROGRAMS: std::sync::Mutex<()> = std::sync::Mutex::new(());
    PROGRAMS.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Supervisor {
    pub fn new() -> Supervisor {
        let folder = tempfile::tempdir().unwrap();
        for name in ["alive", "state"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let (sockets, address) = group();
        let timing = Timing { heartbeat_ms: 100, canary_ms: 50, relay_ms: 1000 };
        Supervisor {
            folder,
            address,
            sockets,
            incarnation: 1,
            instances: 0,
            marks: 0,
            timing,
            speaks: SPOKEN,
        }
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn reconnect(&self) -> PathBuf {
        self.folder.path().join("workers.sock")
    }

    /// Starts a worker up to its `Ready`.
    pub async fn start(&mut self, stamp: &Stamp, origin: Origin, generation: u64, tag: u8) -> Node {
        let mut node = self.spawn(stamp, generation, tag).await;
        self.begin(&mut node, stamp, origin).await;
        node.wait("Ready", |report| matches!(report, Report::Ready { .. }).then_some(())).await;
        node
    }

    /// Starts the process, up to the greetings.
    pub async fn spawn(&mut self, stamp: &Stamp, generation: u64, tag: u8) -> Node {
        self.instances += 1;
        let instance = self.instances;
        let program = self.folder.path().join(format!("worker-{instance}"));
        let (ours, theirs) = channel::pair().unwrap();
        let output = self.folder.path().join(format!("worker-{instance}.out"));
        let child = {
            let _alone = alone_with_programs();
            stamp::write(Path::new(env!("CARGO_BIN_EXE_bumpless-node")), &program, stamp).unwrap();
            std::process::Command::new(&program)
                .stdin(Stdio::from(theirs))
                .stderr(File::create(&output).unwrap())
                .spawn()
                .unwrap()
        };
        let process = Process::open(child.id() as i32).unwrap();
        let channel = Channel::new(ours).unwrap();
        channel.send(&frame::greeting(self.speaks), &[]).await.unwrap();
        let packet = tokio::time::timeout(PATIENCE, channel.receive()).await.unwrap().unwrap().unwrap();
        let greeting = frame::read_greeting(&packet.bytes).unwrap();
        assert_eq!(greeting, stamp.speaks);
        let version = self.speaks.common(greeting).unwrap();
        let channel = Some(channel);
        Node { instance, tag, generation, process, child, channel, version, heard: Vec::new(), output }
    }

    /// Orders `Start`.
    pub async fn begin(&self, node: &mut Node, stamp: &Stamp, origin: Origin) {
        let alive = self.folder.path().join("alive").join(alive_file(node.instance));
        let alive = File::options().read(true).write(true).create_new(true).open(alive).unwrap();
        let start = Start {
            instance: node.instance,
            secret: [node.instance as u8; 16],
            release: Release { version: stamp.release.clone(), sha256: Digest([1; 32]) },
            state: self.state().to_str().unwrap().to_owned(),
            generation: node.generation,
            origin,
            tag: node.tag,
            listen: vec![self.address],
            routing: RoutingKeys { reset: [1; 64], token: [2; 64], mac: [3; 32] },
            reconnect: self.reconnect().to_str().unwrap().to_owned(),
            durability: Durability::Fsync,
            timing: self.timing,
        };
        let mut descriptors = vec![alive.as_fd()];
        descriptors.extend(self.sockets.iter().map(AsFd::as_fd));
        self.order_with(node, Command::Start(Box::new(start)), &descriptors).await;
    }

    pub async fn order(&self, node: &Node, command: Command) {
        self.order_with(node, command, &[]).await;
    }

    async fn order_with(&self, node: &Node, command: Command, descriptors: &[BorrowedFd<'_>]) {
        let order = Order { incarnation: self.incarnation, command };
        let bytes = frame::encode(&order, node.version, PACKET_LIMIT).unwrap();
        node.channel.as_ref().unwrap().send(&bytes, descriptors).await.unwrap();
    }

    /// The first start of a node, up to `Going`.
    pub async fn genesis(&mut self, stamp: &Stamp) -> Node {
        let mut node = self.start(stamp, Origin::Genesis, 1, 1).await;
        self.go(&mut node, 1).await;
        node
    }

    pub async fn go(&self, node: &mut Node, term: Term) {
        self.order(node, Command::Go { term }).await;
        node.wait("Going", |report| matches!(report, Report::Going { .. }).then_some(())).await;
    }

    /// A candidate, let in and paired.
    pub async fn pair(
        &mut self,
        old: &mut Node,
        stamp: &Stamp,
        generation: u64,
        tag: u8,
        term: Term,
    ) -> Node {
        let new = self.start(stamp, Origin::Candidate, generation, tag).await;
        self.order(&new, Command::Go { term }).await;
        let (link_a, link_b) = channel::pair().unwrap();
        let (stream_a, stream_b) = channel::stream_pair().unwrap();
        let (strays_a, strays_b) = channel::datagram_pair().unwrap();
        for (node, peer, link, stream, strays) in
            [(&*old, &new, link_a, stream_a, strays_a), (&new, &*old, link_b, stream_b, strays_b)]
        {
            let command =
                Command::Pair { peer: peer.instance, peer_tag: peer.tag, peer_generation: peer.generation };
            let descriptors = [link.as_fd(), stream.as_fd(), strays.as_fd(), peer.process.as_fd()];
            self.order_with(node, command, &descriptors).await;
        }
        new
    }

    /// Up to two equal state hashes.
    pub async fn level(&mut self, old: &mut Node, new: &mut Node) {
        new.wait("Level", |report| matches!(report, Report::Level { .. }).then_some(())).await;
        self.compare(old, new).await;
    }

    /// A mark by the holder, and the hashes of both.
    pub async fn compare(&mut self, holder: &mut Node, follower: &mut Node) {
        self.marks += 1;
        let mark = self.marks;
        self.order(holder, Command::Mark { id: mark }).await;
        let hash = move |report: &Report| match report {
            Report::StateHash { id, sequence, hash } if *id == mark => Some((*sequence, *hash)),
            _ => None,
        };
        assert_eq!(holder.wait("StateHash", hash).await, follower.wait("StateHash", hash).await);
    }

    /// The cut, up to the yielder's last word.
    pub async fn cut(&self, old: &mut Node, new: &mut Node, term: Term, resume: Term) {
        let reserve = (resume != 0).then_some(1 << 20);
        self.order(new, Command::Prepare { term, reserve }).await;
        new.wait("Prepared", |report| (*report == Report::Prepared { term }).then_some(())).await;
        self.order(old, Command::Cut { term, resume, window_ms: 50 }).await;
        old.wait("Yielded", |report| matches!(report, Report::Yielded { .. }).then_some(())).await;
        new.wait("Took", |report| (*report == Report::Took { term }).then_some(())).await;
        let gap = old
            .wait("Resigned", |report| match report {
                Report::Resigned { gap_us, .. } => Some(*gap_us),
                _ => None,
            })
            .await;
        eprintln!("term {term}: gap {gap} µs");
    }

    /// From equal hashes to the end of the old one: what a commit is to two workers.
    pub async fn commit(&mut self, old: &mut Node, new: &mut Node, term: Term) {
        self.compare(new, old).await;
        self.order(new, Command::Persist).await;
        new.wait("Persisted", |report| matches!(report, Report::Persisted { .. }).then_some(())).await;
        self.order(old, Command::Retire { term }).await;
        old.wait("Retired", |report| (*report == Report::Retired { term }).then_some(())).await;
        self.order(new, Command::Commit { term }).await;
        new.wait("Committed", |report| (*report == Report::Committed { term }).then_some(())).await;
    }

    /// The old one leaves, and what was its own with it.
    pub async fn drain(&mut self, old: &mut Node, new: &mut Node, logs: Vec<Term>) {
        self.order(old, Command::Drain { stagger_ms: 20, deadline_ms: 10_000 }).await;
        old.wait("Drained", |report| matches!(report, Report::Drained { .. }).then_some(())).await;
        old.ended().await;
        self.order(new, Command::PeerGone { tag: old.tag }).await;
        self.order(new, Command::Remove { logs, generations: vec![old.generation] }).await;
        new.wait("Removed", |report| matches!(report, Report::Removed { .. }).then_some(())).await;
    }

    pub async fn client(&self) -> Client {
        let certificate = std::fs::read(self.state().join("identity/node.crt")).unwrap();
        let target = Target { addresses: vec![self.address], pin: bumpless_worker::net::pin(&certificate) };
        Client::connect(target, Options::default()).await.unwrap()
    }
}

impl Node {
    /// The first report of this kind, now or later; heartbeats between are not kept.
    pub async fn wait<T>(&mut self, what: &str, wanted: impl Fn(&Report) -> Option<T>) -> T {
        if let Some(at) = self.heard.iter().position(|report| wanted(report).is_some()) {
            return wanted(&self.heard.remove(at)).unwrap();
        }
        // For all of it: heartbeats come whatever happens.
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let next = tokio::time::timeout_at(deadline, self.next()).await;
            let report = match next {
                Ok(Some(report)) => report,
                Ok(None) => panic!("worker {} closed its channel instead of {what}", self.instance),
                Err(_) => panic!("worker {}: no {what} within {PATIENCE:?}", self.instance),
            };
            match wanted(&report) {
                Some(found) => return found,
                None if matches!(report, Report::Heartbeat(_) | Report::Syncing { .. }) => {}
                None => self.heard.push(report),
            }
        }
    }

    async fn next(&mut self) -> Option<Report> {
        let packet = self.channel.as_ref().unwrap().receive().await.unwrap()?;
        Some(frame::decode(&packet.bytes, self.version, PACKET_LIMIT).unwrap())
    }

    /// Whether it said this, of what was heard so far.
    pub fn said(&self, wanted: impl Fn(&Report) -> bool) -> bool {
        self.heard.iter().any(wanted)
    }

    /// SIGKILL, confirmed.
    pub async fn kill(&mut self) {
        self.process.kill().unwrap();
        self.ended().await;
    }

    pub async fn ended(&mut self) -> std::process::ExitStatus {
        tokio::time::timeout(PATIENCE, self.process.ended()).await.unwrap().unwrap();
        self.child.wait().unwrap()
    }

    /// As if the supervisor had died.
    pub fn abandon(&mut self) {
        self.channel = None;
    }

    /// Takes it back on the named socket: what it says of itself, and how many sockets it brings.
    pub async fn take_back(&mut self, listener: &channel::Listener) -> (Identity, usize) {
        let channel = tokio::time::timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        channel.send(&frame::greeting(SPOKEN), &[]).await.unwrap();
        frame::read_greeting(&channel.receive().await.unwrap().unwrap().bytes).unwrap();
        let packet = channel.receive().await.unwrap().unwrap();
        let Report::Identity(identity) = frame::decode(&packet.bytes, self.version, PACKET_LIMIT).unwrap()
        else {
            panic!("something else before who it is");
        };
        self.channel = Some(channel);
        (*identity, packet.descriptors.len())
    }

    /// Exchanges what was heard and will be heard with another one.
    pub fn swap_channels(&mut self, other: &mut Node) {
        std::mem::swap(&mut self.channel, &mut other.channel);
    }

    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap()
    }
}

/// LISTEN and three slots on one free port.
fn group() -> (Vec<OwnedFd>, SocketAddr) {
    let program: Vec<Instruction> = ROUTES.iter().copied().map(Instruction::from).collect();
    let mut port = 0;
    let sockets = (0..4)
        .map(|index| {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let fd = socket(AddressFamily::Inet, SockType::Datagram, flags, None).unwrap();
            setsockopt(&fd, sockopt::ReusePort, &true).unwrap();
            if index == 0 {
                reuseport::attach(fd.as_fd(), &program).unwrap();
            }
            bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrIn::new(127, 0, 0, 1, port)).unwrap();
            port = getsockname::<SockaddrIn>(std::os::fd::AsRawFd::as_raw_fd(&fd)).unwrap().port();
            fd
        })
        .collect();
    (sockets, SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

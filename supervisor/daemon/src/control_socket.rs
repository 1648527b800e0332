//! The operator's door: requests come in, one per connection; progress and one outcome go out.
//!
//! ```text
//!   client ── line ─▶ task of this connection ── Asked ─▶ driver
//!          ◀─ lines ─      bounded queue       ◀─ Replies ─┘
//! ```
//!
//! Good path: a connection is taken, its line read, its sender's right to ask that checked by the
//! credentials that the kernel gives, and the driver gets an [`Asked`]. What the driver answers never
//! waits: progress goes into a short queue and is dropped where that is full.
//!
//! What can go wrong:
//! - A client says nothing, or reads nothing: it has ten seconds, then its connection is closed.
//! - Too many clients: further ones get an outcome that says so. Root and the supervisor's own user have
//!   places of their own, so that strangers cannot keep them out.
//! - A line that is too long, or no request: refused, with what is wrong with it.
//! - A stranger asks for a change: refused here; the driver never hears of it. So is the workers' own user,
//!   whatever group it is in: a worker has no say over its supervisor.
//! - The driver drops an answer: the client gets an outcome that says so, not silence.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bumpless_control::REQUEST_LIMIT;
use bumpless_control::reply::{Outcome, Progress, Reply};
use bumpless_control::request::{Access, Request};
use bumpless_os::child;
use interprocess::local_socket::tokio::prelude::*;
use interprocess::local_socket::tokio::{Listener, Stream};
use interprocess::local_socket::{GenericFilePath, ListenerOptions};
use nix::unistd::{Gid, Group, Uid, User, geteuid};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};

/// Members may ask for changes.
const GROUP: &str = "bumpless";

/// Connections at a time, for root and the supervisor's user and for everybody else.
const PLACES: usize = 16;

/// How long a client may take to send its line, or to read one.
const PATIENCE: Duration = Duration::from_secs(10);

/// Lines of progress that wait for one client.
const QUEUE: usize = 16;

/// A request, and where its answer goes.
#[derive(Debug)]
pub struct Asked {
    /// What is asked. Its sender may ask it.
    pub request: Request,
    /// Who asks, by the kernel's word.
    pub uid: u32,
    /// Where the answer goes.
    pub replies: Replies,
}

/// The way back to one client. Nothing here waits. Dropped without an outcome, the client is told so.
#[derive(Debug)]
pub struct Replies {
    progress: mpsc::Sender<Progress>,
    outcome: oneshot::Sender<Outcome>,
}

impl Replies {
    /// Tells where it stands. Lost where the client is slow.
    pub fn progress(&self, progress: Progress) {
        // A full queue is a slow client, a closed one a client that has gone: neither is our business.
        let _ = self.progress.try_send(progress);
    }

    /// Ends it.
    pub fn finish(self, outcome: Outcome) {
        let _ = self.outcome.send(outcome);
    }

    /// Whether the client is known to have gone.
    pub fn is_gone(&self) -> bool {
        self.outcome.is_closed()
    }

    /// The way back, and what comes out at its end: for tests of those who answer.
    pub fn channel() -> (Replies, mpsc::Receiver<Progress>, oneshot::Receiver<Outcome>) {
        let (progress, lines) = mpsc::channel(QUEUE);
        let (outcome, end) = oneshot::channel();
        (Replies { progress, outcome }, lines, end)
    }
}

/// The socket cannot be made.
#[derive(Debug)]
pub struct BindError {
    /// Its path.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot open the control socket {}: {}. The supervisor's user must own run_dir, and a socket's path has \
             at most 107 bytes",
            self.path.display(),
            self.source
        )
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// The socket.
#[derive(Debug)]
pub struct ControlSocket {
    listener: Listener,
    ruled_out: Option<u32>,
}

impl ControlSocket {
    /// Makes it, in place of one that a supervisor which is gone left behind: the caller holds the lock
    /// that makes it the only supervisor. To be called within a runtime.
    ///
    /// # Errors
    /// Permission, a directory that is not there, a path that is too long.
    pub fn bind(path: &Path) -> Result<ControlSocket, BindError> {
        bind(path).map_err(|source| BindError { path: path.to_owned(), source })
    }

    /// This user, if there is one, may change nothing.
    pub fn ruled_out(self, user: Option<child::User>) -> ControlSocket {
        ControlSocket { ruled_out: user.map(|user| user.uid), ..self }
    }

    /// Takes connections in the current runtime until the receiver is dropped.
    pub fn serve(self) -> mpsc::Receiver<Asked> {
        let (asked, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(accept(self, asked));
        receiver
    }
}

fn bind(path: &Path) -> io::Result<ControlSocket> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = ListenerOptions::new().name(path.to_fs_name::<GenericFilePath>()?).create_tokio()?;
    // Everybody may connect; who may ask what is decided for each request. Set on the name itself,
    // because a mode given before the bind would be narrowed by the umask.
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
    Ok(ControlSocket { listener, ruled_out: None })
}

async fn accept(socket: ControlSocket, asked: mpsc::Sender<Asked>) {
    let (ours, theirs) = (Arc::new(Semaphore::new(PLACES)), Arc::new(Semaphore::new(PLACES)));
    loop {
        let accepted = tokio::select! {
            accepted = socket.listener.accept() => accepted,
            () = asked.closed() => return,
        };
        let Ok(stream) = accepted else {
            // Out of descriptors, for instance. The next try comes soon, without burning the processor.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Some(peer) = Peer::of(&stream, socket.ruled_out) else { continue };
        let places = if peer.is_ours() { &ours } else { &theirs };
        let place = places.clone().try_acquire_owned().ok();
        tokio::spawn(client(stream, peer, place, asked.clone()));
    }
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
struct Peer {
    uid: u32,
    gid: u32,
    is_ruled_out: bool,
}

impl Peer {
    fn of(stream: &Stream, ruled_out: Option<u32>) -> Option<Peer> {
        let credentials = stream.peer_creds().ok()?;
        let (uid, gid) = (credentials.euid()?, credentials.egid()?);
        Some(Peer { uid, gid, is_ruled_out: ruled_out == Some(uid) })
    }

    fn is_ours(self) -> bool {
        self.uid == 0 || self.uid == geteuid().as_raw()
    }

    async fn may(self, access: Access) -> bool {
        match access {
            Access::Everybody => true,
            Access::Root | Access::Operators if self.is_ruled_out => false,
            Access::Root => self.uid == 0,
            Access::Operators if self.is_ours() => true,
            // The list of users may lie on another machine.
            Access::Operators => tokio::task::spawn_blocking(move || self.is_member()).await.unwrap_or(false),
        }
    }

    fn is_member(self) -> bool {
        let Ok(Some(group)) = Group::from_name(GROUP) else { return false };
        if group.gid == Gid::from_raw(self.gid) {
            return true;
        }
        match User::from_uid(Uid::from_raw(self.uid)) {
            Ok(Some(user)) => user.gid == group.gid || group.mem.contains(&user.name),
            Ok(None) | Err(_) => false,
        }
    }
}

async fn client(stream: Stream, peer: Peer, place: Option<OwnedSemaphorePermit>, asked: mpsc::Sender<Asked>) {
    let outcome = match request(&stream, peer, place.is_some()).await {
        Err(outcome) => outcome,
        Ok(request) => {
            let (replies, lines, end) = Replies::channel();
            match asked.try_send(Asked { request, uid: peer.uid, replies }) {
                Ok(()) => match relay(&stream, lines, end).await {
                    Ok(outcome) => outcome,
                    // The client is gone.
                    Err(_) => return,
                },
                Err(mpsc::error::TrySendError::Full(_)) => busy(),
                Err(mpsc::error::TrySendError::Closed(_)) => stopping(),
            }
        }
    };
    // A client that has gone does not need it.
    let _ = write(&stream, &Reply::Outcome(outcome)).await;
}

fn busy() -> Outcome {
    Outcome::Failed {
        reason: "the supervisor has too many requests at once; nothing was changed. Ask again".into(),
    }
}

fn stopping() -> Outcome {
    Outcome::Failed { reason: "the supervisor stopped before it could answer. Ask again once it runs".into() }
}

async fn request(stream: &Stream, peer: Peer, has_place: bool) -> Result<Request, Outcome> {
    if !has_place {
        return Err(busy());
    }
    let refused = |reason: String| Outcome::Refused { reason };
    let mut line = Vec::new();
    let mut reader = BufReader::new(stream.take(REQUEST_LIMIT as u64));
    match timeout(PATIENCE, reader.read_until(b'\n', &mut line)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(refused(format!("the request could not be read: {error}"))),
        Err(_) => return Err(refused(format!("no request came within {PATIENCE:?}"))),
    }
    if line.len() >= REQUEST_LIMIT && !line.ends_with(b"\n") {
        return Err(refused(format!("a request has at most {REQUEST_LIMIT} bytes; nothing was changed")));
    }
    let request = Request::parse(&line).map_err(|error| refused(error.to_string()))?;
    let access = request.access();
    if !peer.may(access).await {
        let who = match access {
            Access::Root => "Only root may".to_owned(),
            Access::Operators | Access::Everybody => format!("Root and members of the group {GROUP} may"),
        };
        let words = request.words();
        return Err(refused(format!(
            "user {} may not {words}; nothing was changed. {who}: sudo bumpless {words}",
            peer.uid
        )));
    }
    Ok(request)
}

/// Passes progress on until the outcome is there.
async fn relay(
    stream: &Stream,
    mut lines: mpsc::Receiver<Progress>,
    mut end: oneshot::Receiver<Outcome>,
) -> io::Result<Outcome> {
    loop {
        tokio::select! {
            // In this order: what was said before the end is passed on before the end.
            biased;
            Some(progress) = lines.recv() => write(stream, &Reply::Progress(progress)).await?,
            outcome = &mut end => return Ok(outcome.unwrap_or_else(|_| stopping())),
        }
    }
}

async fn write(mut stream: &Stream, reply: &Reply) -> io::Result<()> {
    let mut line = reply.line();
    line.push('\n');
    match timeout(PATIENCE, stream.write_all(line.as_bytes())).await {
        Ok(written) => written,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bumpless_control::reply::Answer;
    use bumpless_control::status::Phase;
    use tokio::net::UnixStream;

    fn progress(done: u64) -> Progress {
        Progress {
            phase: Phase::Syncing,
            from: None,
            to: "1.1.0".parse().unwrap(),
            done: Some(done),
            total: None,
            deadline: None,
            text: None,
            rehearsal: None,
            rate: None,
            left: None,
        }
    }

    async fn ask(path: &Path, line: &[u8]) -> BufReader<UnixStream> {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(line).await.unwrap();
        BufReader::new(stream)
    }

    async fn reply(reader: &mut BufReader<UnixStream>) -> Option<Reply> {
        let mut line = String::new();
        reader.read_line(&mut line).await.unwrap();
        (!line.is_empty()).then(|| Reply::parse(line.as_bytes()).unwrap())
    }

    fn reason(reply: Option<Reply>) -> String {
        match reply {
            Some(Reply::Outcome(Outcome::Refused { reason } | Outcome::Failed { reason })) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_request_gets_its_progress_and_then_one_outcome() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        std::fs::write(&path, b"left behind").unwrap();
        let mut asked = ControlSocket::bind(&path).unwrap().serve();
        let mut client =
            ask(&path, b"{\"schema\":1,\"verb\":\"upgrade\",\"version\":null,\"wait\":true}\n").await;
        let Asked { request, uid, replies } = asked.recv().await.unwrap();
        assert_eq!(
            (request, uid),
            (Request::Upgrade { version: None, wait: true, rehearse: false }, geteuid().as_raw())
        );
        replies.progress(progress(1));
        assert_eq!(reply(&mut client).await, Some(Reply::Progress(progress(1))));
        replies.progress(progress(2));
        replies.finish(Outcome::Done { answer: Answer::Unheld });
        assert_eq!(reply(&mut client).await, Some(Reply::Progress(progress(2))));
        assert_eq!(reply(&mut client).await, Some(Reply::Outcome(Outcome::Done { answer: Answer::Unheld })));
        assert_eq!(reply(&mut client).await, None);
    }

    #[tokio::test]
    async fn what_is_no_request_is_refused_with_what_is_wrong_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let _asked = ControlSocket::bind(&path).unwrap().serve();
        for (line, wrong) in [
            (&b"nonsense\n"[..], "expected"),
            (b"{\"schema\":2,\"verb\":\"status\"}\n", "schema 2, this build speaks 1"),
            (b"{\"schema\":1,\"verb\":\"explode\"}\n", "unknown variant `explode`"),
            (b"{\"schema\":1,\"verb\":\"hold\",\"reason\":\"x\",\"for\":1}\n", "unknown field `for`"),
            (&[b'x'; REQUEST_LIMIT], "at most 4096 bytes"),
        ] {
            let text = reason(reply(&mut ask(&path, line).await).await);
            assert!(text.contains(wrong) && text.contains("nothing was changed"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let mut asked = ControlSocket::bind(&path).unwrap().serve();
        let _slow = ask(&path, b"{\"schema\":1,\"verb\":\"rollback\",\"wait\":true}\n").await;
        let replies = asked.recv().await.unwrap().replies;
        (0..100_000).for_each(|done| replies.progress(progress(done)));
        let mut other = ask(&path, b"{\"schema\":1,\"verb\":\"unhold\"}\n").await;
        asked.recv().await.unwrap().replies.finish(Outcome::Done { answer: Answer::Unheld });
        assert!(reply(&mut other).await.is_some());
    }

    #[tokio::test]
    async fn further_clients_are_told_that_there_is_no_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let mut asked = ControlSocket::bind(&path).unwrap().serve();
        let mut waiting = Vec::new();
        for _ in 0..PLACES {
            let client = ask(&path, b"{\"schema\":1,\"verb\":\"status\"}\n").await;
            waiting.push((client, asked.recv().await.unwrap()));
        }
        let text = reason(reply(&mut ask(&path, b"{\"schema\":1,\"verb\":\"status\"}\n").await).await);
        assert!(text.contains("too many requests"), "{text}");
    }

    #[tokio::test]
    async fn an_answer_that_is_dropped_is_an_outcome_and_not_silence() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let mut asked = ControlSocket::bind(&path).unwrap().serve();
        let mut client = ask(&path, b"{\"schema\":1,\"verb\":\"status\"}\n").await;
        drop(asked.recv().await.unwrap());
        assert!(reason(reply(&mut client).await).contains("stopped before it could answer"));
    }

    #[tokio::test]
    async fn strangers_may_read_and_may_not_change() {
        let peer = |uid, gid| Peer { uid, gid, is_ruled_out: false };
        let stranger = peer(4_000_000, 4_000_000);
        assert!(stranger.may(Access::Everybody).await);
        assert!(!stranger.may(Access::Operators).await);
        assert!(!stranger.may(Access::Root).await);
        assert!(peer(0, 0).may(Access::Root).await);
        // The supervisor's own user is an operator, and is root only if it is.
        let ours = peer(geteuid().as_raw(), 4_000_000);
        assert_eq!(ours.may(Access::Root).await, geteuid().is_root());
        assert!(peer(0, 0).may(Access::Operators).await);
        assert!(ours.may(Access::Operators).await);
    }

    #[tokio::test]
    async fn the_workers_user_may_read_and_may_not_change_whoever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let own = child::User { uid: geteuid().as_raw(), gid: 0 };
        let mut asked = ControlSocket::bind(&path).unwrap().ruled_out(Some(own)).serve();
        let mut client = ask(&path, b"{\"schema\":1,\"verb\":\"unhold\"}\n").await;
        let text = tokio::select! {
            reply = reply(&mut client) => reason(reply),
            asked = asked.recv() => panic!("{asked:?}"),
        };
        assert!(text.contains("may not unhold") && text.contains("nothing was changed"), "{text}");
        let mut client = ask(&path, b"{\"schema\":1,\"verb\":\"status\"}\n").await;
        asked.recv().await.unwrap().replies.finish(Outcome::Done { answer: Answer::Unheld });
        assert!(reply(&mut client).await.is_some());
    }

    #[tokio::test]
    async fn everybody_may_connect_and_a_bad_path_is_an_error_with_a_hint() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let socket = ControlSocket::bind(&path).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o666);
        drop(socket);
        let text = ControlSocket::bind(&dir.path().join("not/there.sock")).unwrap_err().to_string();
        assert!(text.contains("must own run_dir"), "{text}");
    }
}

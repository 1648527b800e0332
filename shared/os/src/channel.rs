//! Messages with descriptors over `SOCK_SEQPACKET`: what is sent together arrives together.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    accept4, bind, connect, getsockopt, listen, recvmsg, sendmsg, socket, socketpair, sockopt,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::child::User;
use crate::raw;

/// Most bytes in one message: a frame of the contract with its header.
pub const MESSAGE_LIMIT: usize = 64 * 1024 + 64;

/// Most descriptors in one message (the kernel allows 253).
pub const DESCRIPTOR_LIMIT: usize = 64;

/// One end of a channel.
#[derive(Debug)]
pub struct Channel(AsyncFd<OwnedFd>);

/// One message.
#[derive(Debug)]
pub struct Packet {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The descriptors that came with it, close-on-exec.
    pub descriptors: Vec<OwnedFd>,
}

/// Two connected ends, close-on-exec, to be given away or made into [`Channel`]s.
///
/// # Errors
/// `EMFILE`.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Two connected ends of a byte stream, close-on-exec.
///
/// # Errors
/// `EMFILE`.
pub fn stream_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Two connected datagram ends, close-on-exec, with room for a burst of packets.
///
/// # Errors
/// `EMFILE`.
pub fn datagram_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Takes the channel by which a worker was started: its standard input, which becomes `/dev/null`.
/// To be called once, first thing in `main`.
///
/// # Errors
/// Where standard input is no such socket: the process was not started by a supervisor.
pub fn from_supervisor() -> io::Result<OwnedFd> {
    let stdin = io::stdin();
    match getsockopt(&stdin, sockopt::SockType) {
        Ok(SockType::SeqPacket) => {}
        Ok(_) => return Err(io::Error::from(io::ErrorKind::InvalidInput)),
        Err(errno) => return Err(errno.into()),
    }
    let channel = stdin.as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(channel)
}

impl Channel {
    /// Watches an end within the current runtime.
    ///
    /// # Errors
    /// Where it cannot be made non-blocking or watched.
    pub fn new(end: OwnedFd) -> io::Result<Channel> {
        set_nonblocking(&end)?;
        raw::watch(end, Interest::READABLE | Interest::WRITABLE).map(Channel)
    }

    /// Connects to a supervisor's named socket.
    ///
    /// # Errors
    /// `ENOENT` or `ECONNREFUSED` while there is no supervisor.
    pub fn connect(path: &Path) -> io::Result<Channel> {
        let end = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        connect(end.as_raw_fd(), &UnixAddr::new(path)?)?;
        Channel::new(end)
    }

    /// Sends without waiting; `false` where the channel is full.
    ///
    /// # Errors
    /// `EPIPE` where the other end is closed; `EMSGSIZE`.
    pub fn try_send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<bool> {
        match self.0.try_io(Interest::WRITABLE, |fd| send_now(fd, bytes, descriptors)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends, waiting for room. Cancel-safe: it is sent whole or not at all.
    ///
    /// # Errors
    /// `EPIPE` where the other end is closed; `EMSGSIZE`.
    pub async fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.0.async_io(Interest::WRITABLE, |fd| send_now(fd, bytes, descriptors)).await
    }

    /// The next message; `None` once the other end is closed. Cancel-safe.
    ///
    /// # Errors
    /// `InvalidData` for a message over the limits; otherwise what `recvmsg` says.
    pub async fn receive(&self) -> io::Result<Option<Packet>> {
        self.0.async_io(Interest::READABLE, receive_now).await
    }

    /// Whether the other end is closed by now, whatever is still unread.
    ///
    /// # Errors
    /// What `poll` says.
    pub fn is_closed(&self) -> io::Result<bool> {
        let mut look = [PollFd::new(self.0.get_ref().as_fd(), PollFlags::empty())];
        poll(&mut look, PollTimeout::ZERO)?;
        Ok(look[0].revents().is_some_and(|found| found.contains(PollFlags::POLLHUP)))
    }

    /// Effective user and group of the process that made the other end.
    ///
    /// # Errors
    /// What `getsockopt` says.
    pub fn peer_user(&self) -> io::Result<User> {
        let credentials = getsockopt(self.0.get_ref(), sockopt::PeerCredentials)?;
        Ok(User { uid: credentials.uid(), gid: credentials.gid() })
    }

    /// Number of the process that connected the other end; meaningful for a connection to a named
    /// socket alone.
    ///
    /// # Errors
    /// What `getsockopt` says.
    pub fn peer_pid(&self) -> io::Result<i32> {
        Ok(getsockopt(self.0.get_ref(), sockopt::PeerCredentials)?.pid())
    }
}

/// A named socket that workers come back to.
#[derive(Debug)]
pub struct Listener(AsyncFd<OwnedFd>);

impl Listener {
    /// Binds. What a supervisor that is gone left under the name is removed first: the caller holds
    /// the lock that makes it the only supervisor.
    ///
    /// # Errors
    /// Permission, a path longer than 107 bytes, a directory that is not there.
    pub fn bind(path: &Path) -> io::Result<Listener> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let end = socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            None,
        )?;
        bind(end.as_raw_fd(), &UnixAddr::new(path)?)?;
        listen(&end, Backlog::new(16)?)?;
        raw::watch(end, Interest::READABLE).map(Listener)
    }

    /// The next connection. Cancel-safe.
    ///
    /// # Errors
    /// `EMFILE` and the like.
    pub async fn accept(&self) -> io::Result<Channel> {
        let end = self
            .0
            .async_io(Interest::READABLE, |fd| {
                let accepted = accept4(fd.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
                Ok(raw::own(accepted))
            })
            .await?;
        Channel::new(end)
    }
}

fn set_nonblocking(end: &OwnedFd) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(end, FcntlArg::F_GETFL)?);
    fcntl(end, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

fn send_now(fd: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &rights[..0] } else { &rights[..] };
    loop {
        match sendmsg::<()>(fd.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(_) => return Ok(()),
        }
    }
}

fn receive_now(fd: &OwnedFd) -> io::Result<Option<Packet>> {
    let mut bytes = vec![0; MESSAGE_LIMIT];
    let mut space = nix::cmsg_space!([RawFd; DESCRIPTOR_LIMIT]);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let message = loop {
        match recvmsg::<()>(fd.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(Errno::EINTR) => {}
            // The other end was closed with messages of ours unread: as final as its end of file.
            Err(Errno::ECONNRESET) => return Ok(None),
            Err(errno) => return Err(errno.into()),
            Ok(message) => break message,
        }
    };
    let mut descriptors = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            descriptors.extend(numbers.into_iter().map(raw::own));
        }
    }
    if message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message over the channel's limits"));
    }
    let length = message.bytes;
    if length == 0 {
        return Ok(None);
    }
    bytes.truncate(length);
    Ok(Some(Packet { bytes, descriptors }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Read;

    #[tokio::test]
    async fn a_message_arrives_with_its_descriptors_and_then_the_end() {
        let (a, b) = pair().unwrap();
        let (a, b) = (Channel::new(a).unwrap(), Channel::new(b).unwrap());
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, b"inside").unwrap();
        a.send(b"first", &[file.as_fd(), file.as_fd()]).await.unwrap();
        assert!(a.try_send(b"second", &[]).unwrap());
        drop(a);
        let first = b.receive().await.unwrap().unwrap();
        assert_eq!((first.bytes.as_slice(), first.descriptors.len()), (&b"first"[..], 2));
        let mut text = String::new();
        let mut same = std::fs::File::from(first.descriptors.into_iter().next().unwrap());
        std::io::Seek::rewind(&mut same).unwrap();
        same.read_to_string(&mut text).unwrap();
        assert_eq!(text, "inside");
        assert_eq!(b.receive().await.unwrap().unwrap().bytes, b"second");
        assert!(b.receive().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_closed_channel_is_known_to_be_closed_before_it_is_read_to_its_end() {
        let (a, b) = pair().unwrap();
        let (a, b) = (Channel::new(a).unwrap(), Channel::new(b).unwrap());
        a.send(b"unread", &[]).await.unwrap();
        assert!(!b.is_closed().unwrap());
        drop(a);
        assert!(b.is_closed().unwrap());
        assert_eq!(b.receive().await.unwrap().unwrap().bytes, b"unread");
    }

    #[tokio::test]
    async fn a_full_channel_says_so_and_a_closed_one_is_an_error() {
        let (a, b) = pair().unwrap();
        let a = Channel::new(a).unwrap();
        let message = vec![7; 32 * 1024];
        while a.try_send(&message, &[]).unwrap() {}
        drop(b);
        assert!(a.send(&message, &[]).await.is_err());
    }

    #[tokio::test]
    async fn a_named_socket_tells_who_connected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("workers.sock");
        let listener = Listener::bind(&path).unwrap();
        let near = Channel::connect(&path).unwrap();
        let far = listener.accept().await.unwrap();
        near.send(b"hello", &[]).await.unwrap();
        assert_eq!(far.receive().await.unwrap().unwrap().bytes, b"hello");
        assert_eq!(far.peer_pid().unwrap(), std::process::id() as i32);
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        assert_eq!(far.peer_user().unwrap(), User { uid, gid });
        Listener::bind(&path).unwrap();
    }
}

//! The sockets that the node is reached on. The supervisor makes them once and keeps them for life;
//! it hands duplicates to the workers and never reads a packet itself.
//!
//! ```text
//!                        ┌─ 0  LISTEN   untagged: new connections; read by one worker at a time
//!   one UDP address ──▶  ├─ 1  slot 1 ┐
//!   (SO_REUSEPORT group, ├─ 2  slot 2 ├ packets of the connections of the worker with that tag
//!    routed by a tag)    └─ 3  slot 3 ┘
//! ```
//!
//! Good path: per address a socket gets the routing program ([`bumpless_shared::cid::ROUTES`]), then
//! its address, and is LISTEN; three more are bound behind it, in order, and are the slots. The order
//! of binding is the number that the program returns. From then on nothing about the group changes:
//! at a cut only the right to read LISTEN goes from one worker to the other.
//!
//! What can go wrong:
//! - The address is taken: the program is attached before the bind, so a group that exists already,
//!   even one of our own that a living worker still holds, refuses the bind. It is never joined by
//!   accident. A supervisor that lost its sockets gets them back from a worker ([`Groups::from_fds`]).
//! - A member of the group closes: the kernel moves the last one into the hole, and packets go to the
//!   wrong worker. So all members stay open here as long as this value lives.
//! - Buffers smaller than asked for (`net.core.rmem_max`): packets that wait during a cut may be
//!   dropped and are repaired as loss; [`Groups::receive_buffer`] says what was granted.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use bumpless_os::reuseport;
use bumpless_shared::cid::{ROUTES, SLOTS};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, getsockname, getsockopt, setsockopt, socket,
    sockopt,
};

/// Sockets of one group: LISTEN and the slots.
pub const PER_GROUP: usize = 1 + SLOTS;

/// Receive and send buffer that each socket asks for, in bytes; the kernel may grant less.
/// Source: 2 to 4 MB held every packet of a one-millisecond cut under the heaviest measured load.
const BUFFER: usize = 4 << 20;

/// The groups of all addresses, in the order in which the addresses were given.
#[derive(Debug)]
pub struct Groups {
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    address: SocketAddr,
    /// LISTEN, slot 1, slot 2, slot 3: the order of binding.
    members: [OwnedFd; PER_GROUP],
}

impl Groups {
    /// Binds one group per address. Port 0 is resolved by the kernel, once; see
    /// [`addresses`](Self::addresses). IPv6 groups take IPv6 only.
    ///
    /// # Errors
    /// The first address that cannot be had, and why; nothing stays bound.
    pub fn bind(addresses: &[SocketAddr]) -> Result<Groups, SocketError> {
        if addresses.is_empty() {
            return Err(SocketError::NoAddress);
        }
        for (index, address) in addresses.iter().enumerate() {
            if addresses[..index].iter().any(|earlier| earlier.ip() == address.ip()) {
                return Err(SocketError::Repeated { ip: address.ip() });
            }
        }
        let groups = addresses.iter().map(|address| Group::bind(*address)).collect::<Result<_, _>>()?;
        Ok(Groups { groups })
    }

    /// Takes groups over that exist already, in the order of [`fds`](Self::fds), as a worker or the
    /// service manager hands them back.
    ///
    /// # Errors
    /// The descriptors are not whole groups of UDP sockets on one address each.
    pub fn from_fds(fds: Vec<OwnedFd>) -> Result<Groups, SocketError> {
        let count = fds.len();
        let mut fds = fds.into_iter();
        let mut groups = Vec::with_capacity(count / PER_GROUP);
        loop {
            let members: Vec<OwnedFd> = fds.by_ref().take(PER_GROUP).collect();
            if members.is_empty() && !groups.is_empty() {
                return Ok(Groups { groups });
            }
            let members =
                <[OwnedFd; PER_GROUP]>::try_from(members).map_err(|_| SocketError::NotGroups { count })?;
            let address = local_address(&members[0])?;
            for member in &members {
                let kind = getsockopt(member, sockopt::SockType).map_err(SocketError::io(address))?;
                let other = local_address(member)?;
                let grouped = getsockopt(member, sockopt::ReusePort).map_err(SocketError::io(address))?;
                if kind != SockType::Datagram || !grouped || other != address {
                    return Err(SocketError::Mixed { address, other });
                }
            }
            groups.push(Group { address, members });
        }
    }

    /// The addresses, with the ports that were resolved.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.groups.iter().map(|group| group.address).collect()
    }

    /// All sockets, to be duplicated for a worker: for each group, in the order of the addresses,
    /// LISTEN, slot 1, slot 2, slot 3.
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.groups.iter().flat_map(|group| &group.members).map(AsFd::as_fd).collect()
    }

    /// The smallest receive buffer among the sockets, in bytes as the kernel counts them (twice what
    /// was granted).
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn receive_buffer(&self) -> Result<usize, SocketError> {
        let mut smallest = usize::MAX;
        for group in &self.groups {
            for member in &group.members {
                let size = getsockopt(member, sockopt::RcvBuf).map_err(SocketError::io(group.address))?;
                smallest = smallest.min(size);
            }
        }
        Ok(smallest)
    }
}

impl Group {
    fn bind(wanted: SocketAddr) -> Result<Group, SocketError> {
        let listen = member(wanted)?;
        let program: Vec<reuseport::Instruction> = ROUTES.into_iter().map(Into::into).collect();
        reuseport::attach(listen.as_fd(), &program).map_err(|source| SocketError::Program { source })?;
        bind(listen.as_raw_fd(), &SockaddrStorage::from(wanted)).map_err(SocketError::bind(wanted))?;
        let address = local_address(&listen)?;
        let slot = || {
            let slot = member(address)?;
            bind(slot.as_raw_fd(), &SockaddrStorage::from(address)).map_err(SocketError::bind(address))?;
            Ok(slot)
        };
        Ok(Group { address, members: [listen, slot()?, slot()?, slot()?] })
    }
}

/// A socket that may join a group on `address`, not bound yet.
fn member(address: SocketAddr) -> Result<OwnedFd, SocketError> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Datagram, flags, None).map_err(SocketError::io(address))?;
    setsockopt(&fd, sockopt::ReusePort, &true).map_err(SocketError::io(address))?;
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true).map_err(SocketError::io(address))?;
    }
    // Best effort: with less the cut still holds, it only repairs more.
    let _ = setsockopt(&fd, sockopt::RcvBuf, &BUFFER);
    let _ = setsockopt(&fd, sockopt::SndBuf, &BUFFER);
    Ok(fd)
}

fn local_address(fd: &OwnedFd) -> Result<SocketAddr, SocketError> {
    let unknown = |source| SocketError::NotUdp { source };
    let address: SockaddrStorage = getsockname(fd.as_raw_fd()).map_err(|errno| unknown(errno.into()))?;
    match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => Ok(SocketAddr::V4((*v4).into())),
        (None, Some(v6)) => Ok(SocketAddr::V6((*v6).into())),
        (None, None) => Err(unknown(io::ErrorKind::Unsupported.into())),
    }
}

/// Why the node cannot be reached on an address.
#[derive(Debug)]
pub enum SocketError {
    /// No address was configured.
    NoAddress,
    /// One IP address was given twice; answers could leave from the wrong port.
    Repeated {
        /// The address.
        ip: IpAddr,
    },
    /// The address is in use.
    Taken {
        /// The address.
        address: SocketAddr,
    },
    /// The machine does not have this address.
    NotHere {
        /// The address.
        address: SocketAddr,
    },
    /// Not allowed, as for a port below 1024.
    NotAllowed {
        /// The address.
        address: SocketAddr,
    },
    /// The kernel does not accept the routing program.
    Program {
        /// What it says.
        source: io::Error,
    },
    /// Sockets handed back are not a whole number of groups.
    NotGroups {
        /// How many there were.
        count: usize,
    },
    /// A socket handed back does not belong to its group.
    Mixed {
        /// The group's address.
        address: SocketAddr,
        /// The socket's.
        other: SocketAddr,
    },
    /// A descriptor handed back is no UDP socket.
    NotUdp {
        /// What the kernel says.
        source: io::Error,
    },
    /// Anything else that the kernel refused.
    Io {
        /// The address.
        address: SocketAddr,
        /// What it says.
        source: io::Error,
    },
}

impl SocketError {
    fn io(address: SocketAddr) -> impl Fn(Errno) -> SocketError {
        move |errno| SocketError::Io { address, source: errno.into() }
    }

    fn bind(address: SocketAddr) -> impl Fn(Errno) -> SocketError {
        move |errno| match errno {
            Errno::EADDRINUSE => SocketError::Taken { address },
            Errno::EADDRNOTAVAIL => SocketError::NotHere { address },
            Errno::EACCES => SocketError::NotAllowed { address },
            other => SocketError::Io { address, source: other.into() },
        }
    }
}

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketError::NoAddress => {
                f.write_str("no address to listen on; name at least one in the configuration")
            }
            SocketError::Repeated { ip } => {
                write!(
                    f,
                    "{ip} is configured twice; give each IP address one port, or its answers leave from the wrong one"
                )
            }
            SocketError::Taken { address } => write!(
                f,
                "UDP {address} is in use: by another program, or by a worker of an earlier bumplessd that still runs. \
                 `ss -ulpn 'sport = :{}'` names it; stop it, or configure another port",
                address.port()
            ),
            SocketError::NotHere { address } => {
                write!(
                    f,
                    "this machine has no address {}; configure one that `ip address` lists",
                    address.ip()
                )
            }
            SocketError::NotAllowed { address } => {
                write!(
                    f,
                    "not allowed to listen on UDP {address}; choose a port from 1024 on, or grant CAP_NET_BIND_SERVICE"
                )
            }
            SocketError::Program { source } => write!(
                f,
                "the kernel refuses the program that routes packets between workers ({source}); \
                 SO_ATTACH_REUSEPORT_CBPF is needed (Linux 4.5), and a sandbox must allow it"
            ),
            SocketError::NotGroups { count } => write!(
                f,
                "{count} sockets were handed back, which is no whole number of groups of {PER_GROUP}; they are not used"
            ),
            SocketError::Mixed { address, other } => write!(
                f,
                "a socket handed back for {address} is not a member of that group (it is bound to {other}); it is not used"
            ),
            SocketError::NotUdp { source } => {
                write!(f, "a descriptor that was handed back is no UDP socket ({source}); it is not used")
            }
            SocketError::Io { address, source } => {
                write!(f, "cannot make the sockets for UDP {address}: {source}")
            }
        }
    }
}

impl std::error::Error for SocketError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SocketError::Program { source }
            | SocketError::NotUdp { source }
            | SocketError::Io { source, .. } => Some(source),
            SocketError::NoAddress
            | SocketError::Repeated { .. }
            | SocketError::Taken { .. }
            | SocketError::NotHere { .. }
            | SocketError::NotAllowed { .. }
            | SocketError::NotGroups { .. }
            | SocketError::Mixed { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;

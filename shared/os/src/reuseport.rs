//! Attaching a program to a group of sockets that share one address.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// One instruction of classic BPF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// Instructions to skip if a comparison holds.
    pub jump_true: u8,
    /// Instructions to skip if it does not.
    pub jump_false: u8,
    /// The operand.
    pub operand: u32,
}

impl From<(u16, u8, u8, u32)> for Instruction {
    fn from((code, jump_true, jump_false, operand): (u16, u8, u8, u32)) -> Self {
        Instruction { code, jump_true, jump_false, operand }
    }
}

/// Attaches `program` to the reuseport group of `socket`. It sees the payload of each packet and
/// returns the index, in the order of binding, of the socket that gets the packet.
///
/// Needs no privilege, and `SO_REUSEPORT` set first. Done before `bind`, the program belongs to the
/// group from its first packet on, and the `bind` fails with `EADDRINUSE` if the group exists
/// already. It is never called on a bound group: kernels before 2026 free a replaced program while
/// packets still run through it.
///
/// # Errors
/// What the kernel says: `EINVAL` for a program that it does not accept, `EPERM` for a locked socket.
pub fn attach(socket: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    let mut filter: Vec<libc::sock_filter> = program
        .iter()
        .map(|step| libc::sock_filter {
            code: step.code,
            jt: step.jump_true,
            jf: step.jump_false,
            k: step.operand,
        })
        .collect();
    let len = u16::try_from(filter.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    // SAFETY: the option takes a `sock_fprog` of exactly this size, whose pointer is valid for `len`
    // instructions; the kernel copies both during the call and keeps neither, and `filter` lives
    // until the end of this function. The descriptor is borrowed, so it is open.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
    use std::os::fd::AsFd;

    #[test]
    fn a_program_is_attached_before_the_socket_is_bound_and_nonsense_is_refused() {
        let new = || socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
        let fd = new();
        setsockopt(&fd, sockopt::ReusePort, &true).unwrap();
        attach(fd.as_fd(), &[(0x06, 0, 0, 0).into()]).unwrap();
        let other = new();
        setsockopt(&other, sockopt::ReusePort, &true).unwrap();
        assert_eq!(
            attach(other.as_fd(), &[(0xffff, 0, 0, 0).into()]).unwrap_err().raw_os_error(),
            Some(libc::EINVAL)
        );
    }
}

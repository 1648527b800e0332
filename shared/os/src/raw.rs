//! The calls that have no safe wrapper in the crates we use.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor that refers to a process, close-on-exec.
///
/// # Errors
/// `ESRCH` where there is no such process; `EMFILE`.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sends a signal to exactly the process that the descriptor refers to.
///
/// # Errors
/// `ESRCH` where it has ended and been waited for.
pub fn pidfd_send_signal(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: no siginfo is passed (null is allowed), so the kernel reads no memory of ours.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes ownership of a descriptor that a control message has just brought.
pub fn own(received: RawFd) -> OwnedFd {
    // SAFETY: called once for each number in an SCM_RIGHTS message; the kernel made it for us.
    unsafe { OwnedFd::from_raw_fd(received) }
}

/// Watches a descriptor that the result owns for as long as it is watched.
///
/// # Errors
/// What the kernel's polling says, and being called outside a runtime.
pub fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: `OwnedFd` returns the same open descriptor each time until it is dropped, and `AsyncFd`
    // owns it and deregisters before it drops it.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(io::Error::from)
}

/// Makes the calling thread one that runs only where no other wants to, and that gives way at once.
///
/// # Errors
/// What the system says.
pub fn schedule_idle() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // Not the C library's function: one of them refuses, because it knows no scheduling by thread.
    // SAFETY: 0 is the calling thread, and the kernel reads one `sched_param`, which outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_IDLE, &parameters) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Tells the C library's allocator, where it can be told, to ask the system for every buffer of this
/// size and above, and to give it back when it is freed.
pub fn always_map_above(bytes: libc::c_int) {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number of the allocator's, under its own lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, bytes);
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = bytes;
}

/// Has the system begin to write what is not yet on the disk of a file, and does not wait for it.
///
/// # Errors
/// What the system says.
pub fn start_writeback(file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes integers and touches no memory of ours.
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

//! The calls that have no safe wrapper in the crates we use.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::child::{Bounds, User};

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

/// Has a child accept `bounds` between its start and the execution of its program.
pub fn confine(command: &mut Command, bounds: Bounds) {
    let parent = std::process::id();
    // SAFETY: between fork and exec of a process with threads only what is async-signal-safe may happen:
    // `accept` makes system calls, by wrappers that neither allocate nor wait for a lock of another
    // thread, and reads values that were copied into the closure.
    unsafe { command.pre_exec(move || accept(bounds, parent)) };
}

/// Has a child be `user`, if there is one, and keep nothing of this process but what it is given, between its
/// start and the execution of its program.
pub fn part(command: &mut Command, user: Option<User>) {
    // SAFETY: as for `confine`; `leave` does no more than `accept`.
    unsafe { command.pre_exec(move || leave(user)) };
}

/// Runs in the child.
fn leave(user: Option<User>) -> io::Result<()> {
    close_others_on_execution();
    if let Some(user) = user {
        drop_capabilities()?;
        become_user(user)?;
        no_new_privileges()?;
    }
    Ok(())
}

/// Runs in the child. The order matters: what takes a privilege stands before the user that has none,
/// and a change of the user would take the order to die with the parent back.
fn accept(bounds: Bounds, parent: u32) -> io::Result<()> {
    close_others_on_execution();

    lower(libc::RLIMIT_CORE.into(), 0)?;
    lower(libc::RLIMIT_FSIZE.into(), bounds.file_bytes)?;
    lower(libc::RLIMIT_AS.into(), bounds.memory_bytes)?;
    lower(libc::RLIMIT_NOFILE.into(), bounds.descriptors)?;

    drop_capabilities()?;
    if let Some(user) = bounds.user {
        become_user(user)?;
        lower(libc::RLIMIT_NPROC.into(), bounds.processes)?;
    }
    no_new_privileges()?;
    control(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)?;
    // A parent that died before that has sent nothing, and is no longer the parent.
    // SAFETY: takes and touches nothing.
    if unsafe { libc::getppid() }.cast_unsigned() == parent {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::ESRCH))
    }
}

/// Whatever this process was itself started with, and is not meant for others, does not pass to the program.
fn close_others_on_execution() {
    // SAFETY: takes integers and touches no memory of ours.
    let marked = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if marked < 0 {
        mark_one_by_one();
    }
}

/// The same for kernels before 5.11.
fn mark_one_by_one() {
    let numbers = limit(libc::RLIMIT_NOFILE.into()).map_or(1024, |[soft, _]| soft);
    for number in 3..RawFd::try_from(numbers).unwrap_or(RawFd::MAX) {
        // SAFETY: sets a mark of this process's, and touches no memory of ours; what is not open is an error.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Not even as root has the program a capability: none to be gained by executing it, none inherited. Those that
/// a change of the user needs are there until then, or until the execution.
fn drop_capabilities() -> io::Result<()> {
    // Who has not the right to drop them has none to be gained.
    let _ = (0..64).all(|capability| control(libc::PR_CAPBSET_DROP, capability).is_ok());
    let mut sets = capability_sets()?;
    // Those that are inherited.
    (sets[0][2], sets[1][2]) = (0, 0);
    let mut header = [CAPABILITIES_VERSION_3, 0];
    // SAFETY: this version of the call reads a header of two words and two times three words, and writes at
    // most the header.
    done(unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), sets.as_ptr()) })
}

/// For good: no other user or group is left to go back to.
fn become_user(user: User) -> io::Result<()> {
    // The kernel takes these for "as it is", and does as it is told.
    if user.uid == u32::MAX || user.gid == u32::MAX {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: an empty list of groups has no memory; the others take integers.
    unsafe {
        done(libc::setgroups(0, std::ptr::null()).into())?;
        done(libc::setresgid(user.gid, user.gid, user.gid).into())?;
        done(libc::setresuid(user.uid, user.uid, user.uid).into())
    }
}

/// Has the calling thread, and no other of this process, be in no group but its own.
///
/// # Errors
/// What the system says.
pub fn drop_groups_of_this_thread() -> io::Result<()> {
    let none = std::ptr::null::<libc::gid_t>();
    // Not the C library's function: that one has all threads do it.
    // SAFETY: an empty list has no memory.
    done(unsafe { libc::syscall(libc::SYS_setgroups, 0usize, none) })
}

/// Effective, permitted, inheritable; low words, high words.
fn capability_sets() -> io::Result<[[u32; 3]; 2]> {
    let mut header = [CAPABILITIES_VERSION_3, 0];
    let mut sets = [[0; 3]; 2];
    // SAFETY: this version of the call reads a header of two words and fills two times three words.
    done(unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()) })?;
    Ok(sets)
}

/// The capabilities that this process can use, by the numbers of <linux/capability.h>, as bits.
///
/// # Errors
/// None in practice.
pub fn capabilities() -> io::Result<u64> {
    let [[low, ..], [high, ..]] = capability_sets()?;
    Ok(u64::from(high) << 32 | u64::from(low))
}

/// `_LINUX_CAPABILITY_VERSION_3` of <linux/capability.h>.
const CAPABILITIES_VERSION_3: u32 = 0x2008_0522;

/// A limit of this process, soft and hard: the kernel's own `rlimit64`.
fn limit(resource: i64) -> io::Result<[u64; 2]> {
    let mut limit = [0; 2];
    let none = std::ptr::null::<u64>();
    // SAFETY: 0 is this process; nothing is read, and two numbers are filled, which outlive the call.
    done(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, none, limit.as_mut_ptr()) })?;
    Ok(limit)
}

/// Lowers a limit, soft and hard; one that is lower already stays.
fn lower(resource: i64, most: u64) -> io::Result<()> {
    let lowered = [limit(resource)?[1].min(most); 2];
    let none = std::ptr::null::<u64>();
    // SAFETY: two numbers are read, which outlive the call, and nothing is written.
    done(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, lowered.as_ptr(), none) })
}

/// Of the calling process or thread.
fn control(option: libc::c_int, value: libc::c_ulong) -> io::Result<()> {
    const NONE: libc::c_ulong = 0;
    // SAFETY: the options that are set here take integers and touch no memory of ours.
    done(unsafe { libc::prctl(option, value, NONE, NONE, NONE) }.into())
}

fn done(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The version of Landlock that the kernel has.
///
/// # Errors
/// `ENOSYS` or `EOPNOTSUPP` where it has none.
pub fn landlock_version() -> io::Result<u32> {
    /// `LANDLOCK_CREATE_RULESET_VERSION` of <linux/landlock.h>.
    const VERSION: u32 = 1;
    let nothing = std::ptr::null::<u64>();
    // SAFETY: asked for the version, the call takes no memory: null, of no length.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0usize, VERSION) };
    u32::try_from(version).map_err(|_| io::Error::last_os_error())
}

/// A set of rules that forbids everything of these kinds: of files, of the network, of other processes, as
/// far as the kernel's version knows them.
///
/// # Errors
/// What the kernel says; `E2BIG` and `EINVAL` for kinds that it does not know.
pub fn landlock_ruleset(forbidden: &[u64]) -> io::Result<OwnedFd> {
    // SAFETY: `landlock_ruleset_attr` is a row of 64-bit words that grew with the versions, and its length
    // in bytes is passed; the kernel reads that much during the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            forbidden.as_ptr(),
            std::mem::size_of_val(forbidden),
            0u32,
        )
    };
    done(fd)?;
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Allows something with a file, or with a directory and all below it.
///
/// # Errors
/// What the kernel says; `EINVAL` for what makes no sense with a file.
pub fn landlock_allow_path(rules: BorrowedFd<'_>, allowed: u64, path: BorrowedFd<'_>) -> io::Result<()> {
    /// `LANDLOCK_RULE_PATH_BENEATH`.
    const PATH_BENEATH: u32 = 1;
    #[repr(C, packed)]
    struct PathBeneath {
        allowed_access: u64,
        parent_fd: i32,
    }
    let rule = PathBeneath { allowed_access: allowed, parent_fd: path.as_raw_fd() };
    add_rule(rules, PATH_BENEATH, (&raw const rule).cast())
}

/// Allows something with a TCP port.
///
/// # Errors
/// What the kernel says; `EINVAL` where its version knows no ports.
pub fn landlock_allow_port(rules: BorrowedFd<'_>, allowed: u64, port: u16) -> io::Result<()> {
    /// `LANDLOCK_RULE_NET_PORT`.
    const NET_PORT: u32 = 2;
    // `landlock_net_port_attr`: what is allowed, and the port, in the machine's own byte order.
    let rule = [allowed, u64::from(port)];
    add_rule(rules, NET_PORT, (&raw const rule).cast())
}

/// `rule` points to what a rule of this kind is, which outlives the call.
fn add_rule(rules: BorrowedFd<'_>, kind: u32, rule: *const libc::c_void) -> io::Result<()> {
    // SAFETY: both callers pass the structure that the kernel reads for this kind, on their own stack; it
    // keeps no pointer, and the descriptors are borrowed, so they are open.
    done(unsafe { libc::syscall(libc::SYS_landlock_add_rule, rules.as_raw_fd(), kind, rule, 0u32) })
}

/// Puts the calling thread, and whatever it starts from now on, under these rules for good. Needs
/// [`no_new_privileges`].
///
/// # Errors
/// What the kernel says.
pub fn landlock_restrict(rules: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes integers and touches no memory of ours.
    done(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0u32) })
}

/// Nothing that this process executes from now on has more privileges than it has.
///
/// # Errors
/// What the kernel says; none since 3.5.
pub fn no_new_privileges() -> io::Result<()> {
    control(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// Has every system call of this process, in all its threads, go through this program for good. Needs
/// [`no_new_privileges`].
///
/// # Errors
/// `EINVAL` and `ENOSYS` where the kernel has no such filters; `ESRCH` where a thread cannot be put
/// under it.
pub fn filter_system_calls(program: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    let all_threads = libc::SECCOMP_FILTER_FLAG_TSYNC;
    // SAFETY: the kernel copies `len` instructions during the call and writes none; they outlive it.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, all_threads, &raw const program)
    };
    // A positive number is that of a thread with another filter of its own.
    if result > 0 { Err(io::Error::from_raw_os_error(libc::ESRCH)) } else { done(result) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_descriptor_of_a_careless_parent_is_closed_on_execution_on_an_old_kernel_too() {
        use nix::fcntl::{FcntlArg, FdFlag, fcntl};
        // Not close-on-exec.
        let (careless, _) = nix::unistd::pipe().unwrap();
        let marked = || FdFlag::from_bits_retain(fcntl(careless.as_fd(), FcntlArg::F_GETFD).unwrap());
        assert!(!marked().contains(FdFlag::FD_CLOEXEC));
        mark_one_by_one();
        assert!(marked().contains(FdFlag::FD_CLOEXEC));
    }
}

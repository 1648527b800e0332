//! The system calls that a client of the network needs, as a program that the kernel runs before each.
//!
//! ```text
//!   another processor's calls ─▶ the process ends
//!   one that is always allowed ─▶ allowed
//!   one with conditions ─▶ one of its ways holds ─▶ allowed
//!                       └▶ none ─▶ EPERM
//!   any other, known or not ─▶ ENOSYS: a C library that tries a newer call goes on with the older one
//! ```
//!
//! A list of what is allowed, so that a call that comes with a kernel of next year is refused. Not in it,
//! among others: execve, fork, kill, ptrace, process_vm_*, mount, unshare, bpf, keyctl, io_uring,
//! userfaultfd, bind, listen, and every call that makes, changes or removes a file by its name.

use libc::{c_long, sock_filter};

use super::Datagrams;

/// Neither of them can reach beyond what the process has already.
const ALWAYS: &[c_long] = &[
    // What is open.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_lseek,
    libc::SYS_ftruncate,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fstat,
    libc::SYS_getdents64,
    // What there is; reading it is `openat`'s.
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getcwd,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    // Time, chance, itself.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getcpu,
    libc::SYS_sched_getaffinity,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_membarrier,
    // Its own threads and signal handlers.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Sockets that it has; which it can make is `socket`'s.
    libc::SYS_connect,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
];

/// The same under the names that older processors have for them as well.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_wait,
    libc::SYS_dup2,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

/// `AUDIT_ARCH_*` of <linux/audit.h>.
const PROCESSOR: u32 = if cfg!(target_arch = "x86_64") {
    0xc000_003e
} else if cfg!(target_arch = "aarch64") {
    0xc000_00b7
} else {
    // riscv64: there are no others, see where this module is declared.
    0xc000_00f3
};

/// Where `seccomp_data` has the number of the call, and the processor.
const CALL: u32 = 0;
const ARCH: u32 = 4;

/// `FIONBIO`, `FIONREAD`, `FIOCLEX` of <asm-generic/ioctls.h>: non-blocking, how much there is, close on
/// execution. Those that make a process get signals, or write into a terminal, are others.
const CONTROLS: [u32; 3] = [0x5421, 0x541b, 0x5451];

/// Flags and copies of a descriptor. Locks are not needed, and whom a descriptor signals is not to be set:
/// it is a way to kill.
const DESCRIPTORS: [i32; 6] =
    [libc::F_DUPFD, libc::F_DUPFD_CLOEXEC, libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_SETFL];

/// Bits of an argument's lower word (or its upper one) that have to have this value.
#[derive(Clone, Copy)]
struct Test {
    at: u32,
    bits: u32,
    value: u32,
}

const fn lower(argument: u32, bits: u32, value: u32) -> Test {
    Test { at: 16 + 8 * argument, bits, value }
}

const fn upper(argument: u32, bits: u32, value: u32) -> Test {
    Test { at: 20 + 8 * argument, bits, value }
}

/// An `int` that has this value.
const fn is(argument: u32, value: u32) -> Test {
    lower(argument, u32::MAX, value)
}

/// The program for the process with this number.
pub(super) fn program(datagrams: Datagrams, process: u32) -> Vec<sock_filter> {
    let mut program =
        vec![load(ARCH), unless(PROCESSOR, 1, 0), end(libc::SECCOMP_RET_KILL_PROCESS), load(CALL)];
    for call in ALWAYS.iter().chain(OLDER) {
        program.extend([unless(*call as u32, 0, 1), end(libc::SECCOMP_RET_ALLOW)]);
    }
    let mut when = |call: c_long, ways: &[&[Test]]| program.extend(conditional(call as u32, ways));

    when(libc::SYS_openat, &[&[only_read(2)]]);
    #[cfg(target_arch = "x86_64")]
    when(libc::SYS_open, &[&[only_read(1)]]);
    let controls = CONTROLS.map(|control| [is(1, control)]);
    when(libc::SYS_ioctl, &controls.each_ref().map(|way| &way[..]));
    let commands = DESCRIPTORS.map(|command| [is(1, command as u32)]);
    when(libc::SYS_fcntl, &commands.each_ref().map(|way| &way[..]));
    when(libc::SYS_prctl, &[&[is(0, libc::PR_SET_NAME as u32)]]);
    // Its own limits can be read.
    when(libc::SYS_prlimit64, &[&[is(0, 0), is(2, 0), upper(2, u32::MAX, 0)]]);
    // Threads, no processes. Of clone3 a filter sees nothing, and the C library goes on with this one.
    let thread = libc::CLONE_THREAD as u32;
    when(libc::SYS_clone, &[&[lower(0, thread, thread)]]);
    // How `abort` ends it.
    when(libc::SYS_tgkill, &[&[is(0, process)]]);
    // TCP Fast Open connects past Landlock.
    let plainly = |flags| lower(flags, libc::MSG_FASTOPEN as u32, 0);
    when(libc::SYS_sendto, &[&[plainly(3)]]);
    when(libc::SYS_sendmsg, &[&[plainly(2)]]);
    when(libc::SYS_sendmmsg, &[&[plainly(3)]]);
    let sockets = sockets(datagrams);
    when(libc::SYS_socket, &sockets.iter().map(|way| &way[..]).collect::<Vec<_>>());

    program.push(end(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32));
    program
}

/// `open`'s flags: for reading, what is there.
const fn only_read(flags: u32) -> Test {
    lower(flags, (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u32, libc::O_RDONLY as u32)
}

/// IPv4 and IPv6; TCP, and UDP where it is allowed. By number, because there are other protocols with
/// streams (Multipath TCP), which Landlock's rules for TCP do not meet. No Unix sockets: behind them is
/// everything else that runs here. A resolver that is only to be reached by one (nscd, systemd's) is done
/// without: the C library goes on to ask the servers in resolv.conf.
fn sockets(datagrams: Datagrams) -> Vec<[Test; 3]> {
    /// `SOCK_TYPE_MASK`: above it are SOCK_CLOEXEC and SOCK_NONBLOCK.
    const KIND: u32 = 0xf;
    let stream = (libc::SOCK_STREAM, libc::IPPROTO_TCP);
    let datagram = (libc::SOCK_DGRAM, libc::IPPROTO_UDP);
    let kinds = match datagrams {
        Datagrams::Allowed => vec![stream, datagram],
        Datagrams::Refused => vec![stream],
    };
    let mut ways = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        for (kind, protocol) in &kinds {
            for protocol in [0, *protocol] {
                ways.push([is(0, family as u32), lower(1, KIND, *kind as u32), is(2, protocol as u32)]);
            }
        }
    }
    ways
}

/// If it is this call, everything is decided here: allowed if all tests of one of the ways hold.
fn conditional(call: u32, ways: &[&[Test]]) -> Vec<sock_filter> {
    let mut decision = Vec::new();
    for way in ways {
        for (before, test) in way.iter().enumerate() {
            // Three instructions a test and one that allows, then the next way.
            let rest = 3 * (way.len() - before - 1) + 1;
            decision.extend([load(test.at), and(test.bits), unless(test.value, 0, rest as u8)]);
        }
        decision.push(end(libc::SECCOMP_RET_ALLOW));
    }
    decision.push(end(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32));
    // A jump reaches 255 instructions; the longest decision, on sockets, has 81.
    decision.insert(0, unless(call, 0, decision.len() as u8));
    decision
}

const fn load(at: u32) -> sock_filter {
    sock_filter { code: 0x20, jt: 0, jf: 0, k: at }
}

const fn and(bits: u32) -> sock_filter {
    sock_filter { code: 0x54, jt: 0, jf: 0, k: bits }
}

/// Skips `held` instructions if the value is this one, and `failed` if it is another.
const fn unless(value: u32, held: u8, failed: u8) -> sock_filter {
    sock_filter { code: 0x15, jt: held, jf: failed, k: value }
}

const fn end(result: u32) -> sock_filter {
    sock_filter { code: 0x06, jt: 0, jf: 0, k: result }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;
    const NOT_SO: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    const NONE: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    const PROCESS: u32 = 4711;

    /// What the kernel would decide.
    fn decide(program: &[sock_filter], arch: u32, call: c_long, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::from((call as u32).to_le_bytes());
        data.extend(arch.to_le_bytes());
        data.extend(0u64.to_le_bytes());
        data.extend(arguments.iter().flat_map(|argument| argument.to_le_bytes()));
        let (mut value, mut at) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            match step.code {
                0x20 => {
                    let from = step.k as usize;
                    value = u32::from_le_bytes([data[from], data[from + 1], data[from + 2], data[from + 3]]);
                }
                0x54 => value &= step.k,
                0x15 => at += usize::from(if value == step.k { step.jt } else { step.jf }),
                0x06 => return step.k,
                code => panic!("{code:#x} is no instruction of ours"),
            }
        }
    }

    fn with(datagrams: Datagrams, call: c_long, arguments: &[u64]) -> u32 {
        let mut all = [0; 6];
        all[..arguments.len()].copy_from_slice(arguments);
        decide(&program(datagrams, PROCESS), PROCESSOR, call, all)
    }

    fn decided(call: c_long, arguments: &[u64]) -> u32 {
        with(Datagrams::Allowed, call, arguments)
    }

    #[test]
    fn calls_that_reach_beyond_the_process_are_refused_whatever_their_arguments() {
        for call in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_clone3,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_kill,
            libc::SYS_tkill,
            libc::SYS_rt_sigqueueinfo,
            libc::SYS_rt_tgsigqueueinfo,
            libc::SYS_pidfd_open,
            libc::SYS_pidfd_getfd,
            libc::SYS_pidfd_send_signal,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_process_madvise,
            libc::SYS_kcmp,
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_move_mount,
            libc::SYS_open_tree,
            libc::SYS_fsopen,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_add_key,
            libc::SYS_request_key,
            libc::SYS_keyctl,
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
            libc::SYS_userfaultfd,
            libc::SYS_memfd_create,
            libc::SYS_openat2,
            libc::SYS_open_by_handle_at,
            libc::SYS_mknodat,
            libc::SYS_mkdirat,
            libc::SYS_unlinkat,
            libc::SYS_renameat2,
            libc::SYS_linkat,
            libc::SYS_symlinkat,
            libc::SYS_truncate,
            libc::SYS_fallocate,
            libc::SYS_fchmod,
            libc::SYS_fchmodat,
            libc::SYS_fchown,
            libc::SYS_fchownat,
            libc::SYS_fsetxattr,
            libc::SYS_bind,
            libc::SYS_listen,
            libc::SYS_accept4,
            libc::SYS_socketpair,
            libc::SYS_setsid,
            libc::SYS_setpgid,
            libc::SYS_setuid,
            libc::SYS_setresuid,
            libc::SYS_capset,
            libc::SYS_setpriority,
            libc::SYS_sched_setaffinity,
            libc::SYS_sched_setscheduler,
            libc::SYS_seccomp,
            libc::SYS_init_module,
            libc::SYS_kexec_load,
            libc::SYS_reboot,
            libc::SYS_quotactl,
            libc::SYS_acct,
            libc::SYS_swapon,
            libc::SYS_shmget,
            libc::SYS_msgget,
            libc::SYS_mq_open,
            libc::SYS_timer_create,
            // Of next year.
            100_000,
        ] {
            assert_eq!(decided(call, &[]), NONE, "{call}");
            assert_eq!(decided(call, &[u64::MAX; 6]), NONE, "{call}");
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_same_calls_under_their_older_names_are_refused_too() {
        for call in [
            libc::SYS_fork,
            libc::SYS_vfork,
            libc::SYS_creat,
            libc::SYS_mkdir,
            libc::SYS_rmdir,
            libc::SYS_unlink,
            libc::SYS_rename,
            libc::SYS_link,
            libc::SYS_symlink,
            libc::SYS_chmod,
            libc::SYS_chown,
            libc::SYS_mknod,
            libc::SYS_pipe,
            libc::SYS_ioperm,
            libc::SYS_iopl,
            // x32, whose numbers are the same with this bit.
            libc::SYS_read | 0x4000_0000,
            libc::SYS_execve | 0x4000_0000,
        ] {
            assert_eq!(decided(call, &[]), NONE, "{call}");
        }
        assert_eq!(decided(libc::SYS_open, &[0, libc::O_CLOEXEC as u64]), ALLOWED);
        assert_eq!(decided(libc::SYS_open, &[0, libc::O_RDWR as u64]), NOT_SO);
    }

    #[test]
    fn another_processors_calls_end_the_process() {
        let program = program(Datagrams::Allowed, PROCESS);
        // 32-bit x86: its number 11 is execve.
        let decision = decide(&program, 0x4000_0003, 11, [0; 6]);
        assert_eq!(decision, libc::SECCOMP_RET_KILL_PROCESS);
    }

    #[test]
    fn a_file_is_opened_only_for_reading_what_is_there() {
        let opened = |flags: i32| decided(libc::SYS_openat, &[0, 0, flags as u64, 0o666]);
        assert_eq!(opened(libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NOFOLLOW), ALLOWED);
        assert_eq!(opened(libc::O_RDONLY | libc::O_DIRECTORY), ALLOWED);
        for flags in [
            libc::O_WRONLY,
            libc::O_RDWR,
            libc::O_ACCMODE,
            libc::O_CREAT,
            libc::O_TRUNC,
            libc::O_WRONLY | libc::O_APPEND,
            libc::O_TMPFILE | libc::O_RDWR,
            libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC,
        ] {
            assert_eq!(opened(flags), NOT_SO, "{flags:o}");
        }
    }

    #[test]
    fn sockets_are_tcp_and_where_names_are_looked_up_udp() {
        let flags = (libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) as u64;
        let socket = |datagrams, family: i32, kind: i32, protocol: i32| {
            with(datagrams, libc::SYS_socket, &[family as u64, kind as u64 | flags, protocol as u64])
        };
        for family in [libc::AF_INET, libc::AF_INET6] {
            for protocol in [0, libc::IPPROTO_TCP] {
                for datagrams in [Datagrams::Allowed, Datagrams::Refused] {
                    assert_eq!(socket(datagrams, family, libc::SOCK_STREAM, protocol), ALLOWED);
                }
            }
            for protocol in [0, libc::IPPROTO_UDP] {
                assert_eq!(socket(Datagrams::Allowed, family, libc::SOCK_DGRAM, protocol), ALLOWED);
                assert_eq!(socket(Datagrams::Refused, family, libc::SOCK_DGRAM, protocol), NOT_SO);
            }
            for (kind, protocol) in [
                (libc::SOCK_STREAM, libc::IPPROTO_MPTCP),
                (libc::SOCK_STREAM, libc::IPPROTO_SCTP),
                (libc::SOCK_SEQPACKET, libc::IPPROTO_SCTP),
                (libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
                (libc::SOCK_DGRAM, libc::IPPROTO_TCP),
                (libc::SOCK_RAW, libc::IPPROTO_RAW),
                (libc::SOCK_RAW, 0),
            ] {
                assert_eq!(socket(Datagrams::Allowed, family, kind, protocol), NOT_SO, "{kind} {protocol}");
            }
        }
        for family in
            [libc::AF_UNIX, libc::AF_NETLINK, libc::AF_PACKET, libc::AF_ALG, libc::AF_VSOCK, libc::AF_KEY]
        {
            for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_RAW, libc::SOCK_SEQPACKET] {
                assert_eq!(socket(Datagrams::Allowed, family, kind, 0), NOT_SO, "{family} {kind}");
            }
        }
    }

    #[test]
    fn nothing_is_connected_past_landlock() {
        let fast = libc::MSG_FASTOPEN as u64;
        let quiet = libc::MSG_NOSIGNAL as u64;
        for (call, flags) in [(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)] {
            let mut arguments = [7; 6];
            arguments[flags] = quiet;
            assert_eq!(decided(call, &arguments), ALLOWED, "{call}");
            arguments[flags] = quiet | fast;
            assert_eq!(decided(call, &arguments), NOT_SO, "{call}");
        }
    }

    #[test]
    fn there_are_threads_and_no_processes() {
        let thread = libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_THREAD | libc::CLONE_SETTLS;
        assert_eq!(decided(libc::SYS_clone, &[thread as u64]), ALLOWED);
        for flags in [libc::SIGCHLD, libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD] {
            assert_eq!(decided(libc::SYS_clone, &[flags as u64]), NOT_SO, "{flags:x}");
        }
    }

    #[test]
    fn nobody_else_is_signalled_not_even_through_a_descriptor() {
        assert_eq!(decided(libc::SYS_tgkill, &[u64::from(PROCESS), 1, 6]), ALLOWED);
        assert_eq!(decided(libc::SYS_tgkill, &[1, 1, 6]), NOT_SO);
        // The last two are F_SETSIG and F_SETOWN_EX.
        for command in [libc::F_SETOWN, libc::F_SETLK, libc::F_SETLEASE, 10, 15] {
            assert_eq!(decided(libc::SYS_fcntl, &[1, command as u64, 1]), NOT_SO, "{command}");
        }
        assert_eq!(decided(libc::SYS_fcntl, &[1, libc::F_DUPFD_CLOEXEC as u64, 3]), ALLOWED);
        // FIOSETOWN, SIOCSPGRP, TIOCSTI, TIOCLINUX.
        for control in [0x8901, 0x8902, 0x5412, 0x541c] {
            assert_eq!(decided(libc::SYS_ioctl, &[1, control, 0]), NOT_SO, "{control:x}");
        }
        assert_eq!(decided(libc::SYS_ioctl, &[1, 0x5421, 0]), ALLOWED);
    }

    #[test]
    fn what_the_parent_imposed_is_not_taken_back() {
        for option in [libc::PR_SET_PDEATHSIG, libc::PR_SET_DUMPABLE, libc::PR_SET_PTRACER] {
            assert_eq!(decided(libc::SYS_prctl, &[option as u64, 0]), NOT_SO, "{option}");
        }
        assert_eq!(decided(libc::SYS_prctl, &[libc::PR_SET_NAME as u64, 4096]), ALLOWED);
        assert_eq!(decided(libc::SYS_prlimit64, &[0, 7, 0, 4096]), ALLOWED);
        for new in [4096, 1 << 32] {
            assert_eq!(decided(libc::SYS_prlimit64, &[0, 7, new, 0]), NOT_SO, "{new}");
        }
        assert_eq!(decided(libc::SYS_prlimit64, &[1, 7, 0, 4096]), NOT_SO);
    }
}

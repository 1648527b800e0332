//! What a process gives up for good, before it reads what others wrote.
//!
//! ```text
//!   enter ─ no new privileges ─ Landlock ────────────── seccomp ──────────────▶ Entered: what is in force
//!                               files: read these,      system calls: only those that a client
//!                               write and execute none  of the network needs; no file is opened for
//!                               TCP: connect to these   writing, nothing executed, no process made or
//!                               ports, listen on none   signalled; see `calls`
//! ```
//!
//! This protects from a process that was sound when it entered and is taken over later, by what it reads.
//! What it has open keeps working. To be entered before there are other threads: the filter covers every
//! thread, Landlock only the one that enters and those that it starts.
//!
//! A kernel without Landlock, or with an early version, is no error: [`Entered::lacks`] says what is open
//! then. A kernel that refuses the filter is one. What stays open in any case: whatever is connected to or
//! readable, and with [`Datagrams::Allowed`] any host that takes UDP packets (Landlock has no rules for
//! them yet). Ports are bounded, hosts are not: a filter cannot look at an address.

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::raw;

#[cfg(all(
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")
))]
mod calls;

/// What stays allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Files, and directories with all below them, that can be opened for reading. What is not there is
    /// left out; a link counts for what it points to now.
    pub readable: Vec<PathBuf>,
    /// TCP ports that can be connected to.
    pub ports: Vec<u16>,
    /// Whether there is UDP.
    pub datagrams: Datagrams,
}

/// Whether there is UDP: looking names up needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagrams {
    /// To any host and port.
    Allowed,
    /// No such sockets.
    Refused,
}

/// What is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered {
    calls: Calls,
    landlock: Landlock,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Calls {
    Filtered,
    /// Their numbers are not known here.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Landlock {
    Version(u32),
    Absent,
}

/// The version of Landlock that knows ports (Linux 6.7).
const WITH_PORTS: u32 = 4;
/// The version that knows signals and abstract sockets (Linux 6.12).
const WITH_SCOPES: u32 = 6;

impl Entered {
    /// What is missing on this machine and what a process gone bad could do for that reason, a line each.
    pub fn lacks(&self) -> Vec<&'static str> {
        let calls = match self.calls {
            Calls::Filtered => None,
            Calls::Unknown => Some(
                "the filter of system calls, which is not known for this processor: it could execute \
                 programs and signal processes of its user",
            ),
        };
        let landlock = match self.landlock {
            Landlock::Absent => Some(
                "Landlock, which this kernel does not have or not enable (lsm=landlock,…): it could read \
                 what its user can read, and connect to any TCP port",
            ),
            Landlock::Version(..WITH_PORTS) => Some(
                "Landlock's rules for the network (Linux 6.7 and later): it could connect to any TCP port",
            ),
            Landlock::Version(WITH_PORTS..) => None,
        };
        calls.into_iter().chain(landlock).collect()
    }
}

/// What is in force, and then what is not, a line each.
impl fmt::Display for Entered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("in force: no new privileges")?;
        match self.calls {
            Calls::Filtered => f.write_str("; a filter of system calls")?,
            Calls::Unknown => {}
        }
        match self.landlock {
            Landlock::Version(version @ ..WITH_PORTS) => write!(f, "; Landlock {version} for files")?,
            Landlock::Version(version) => write!(f, "; Landlock {version} for files and TCP ports")?,
            Landlock::Absent => {}
        }
        self.lacks().into_iter().try_for_each(|lack| write!(f, "\nlacks: {lack}"))
    }
}

/// It was not entered, or not whole: the process must end.
#[derive(Debug)]
pub struct SandboxError {
    what: &'static str,
    source: io::Error,
}

impl fmt::Display for SandboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.what, self.source)
    }
}

impl std::error::Error for SandboxError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> SandboxError {
    move |source| SandboxError { what, source }
}

/// Gives up everything else, for good.
///
/// # Errors
/// The kernel refuses; some of it may be given up then.
pub fn enter(bounds: &Bounds) -> Result<Entered, SandboxError> {
    raw::no_new_privileges().map_err(failed("give up privileges"))?;
    let landlock = match raw::landlock_version() {
        Ok(version) => restrict(bounds, version)?,
        // The last is what a container's own filter says of calls that it does not know.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EOPNOTSUPP | libc::EPERM)) => {
            Landlock::Absent
        }
        Err(error) => return Err(failed("ask for Landlock")(error)),
    };
    Ok(Entered { calls: filter(bounds)?, landlock })
}

/// Everything that a version of Landlock can forbid with files: the kinds are bits, and each version has
/// added to them.
const fn every_file_access(version: u32) -> u64 {
    let kinds = match version {
        0 | 1 => 13,
        2 => 14,
        3 | 4 => 15,
        5.. => 16,
    };
    (1 << kinds) - 1
}

/// `LANDLOCK_ACCESS_FS_READ_FILE`, `…_READ_DIR`; `LANDLOCK_ACCESS_NET_BIND_TCP`, `…_CONNECT_TCP`;
/// `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET` and `…_SIGNAL`.
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const BIND: u64 = 1 << 0;
const CONNECT: u64 = 1 << 1;
const SCOPES: u64 = 0b11;

fn restrict(bounds: &Bounds, version: u32) -> Result<Landlock, SandboxError> {
    let forbidden = [every_file_access(version), BIND | CONNECT, SCOPES];
    let known = match version {
        ..WITH_PORTS => 1,
        WITH_PORTS..WITH_SCOPES => 2,
        WITH_SCOPES.. => 3,
    };
    let rules = raw::landlock_ruleset(&forbidden[..known]).map_err(failed("make rules of Landlock"))?;
    for path in &bounds.readable {
        allow(rules.as_fd(), path).map_err(failed("allow a file by Landlock"))?;
    }
    if version >= WITH_PORTS {
        for port in &bounds.ports {
            let allowed = raw::landlock_allow_port(rules.as_fd(), CONNECT, *port);
            allowed.map_err(failed("allow a port by Landlock"))?;
        }
    }
    raw::landlock_restrict(rules.as_fd()).map_err(failed("go under the rules of Landlock"))?;
    Ok(Landlock::Version(version))
}

fn allow(rules: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    // What cannot even be opened needs no permission.
    let Ok(file) = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path) else {
        return Ok(());
    };
    let allowed = if file.metadata()?.is_dir() { READ_FILE | READ_DIR } else { READ_FILE };
    raw::landlock_allow_path(rules, allowed, file.as_fd())
}

fn filter(bounds: &Bounds) -> Result<Calls, SandboxError> {
    let Some(program) = program(bounds) else { return Ok(Calls::Unknown) };
    raw::filter_system_calls(&program).map_err(failed("have its system calls filtered"))?;
    Ok(Calls::Filtered)
}

#[cfg(all(
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")
))]
fn program(bounds: &Bounds) -> Option<Vec<libc::sock_filter>> {
    Some(calls::program(bounds.datagrams, std::process::id()))
}

#[cfg(not(all(
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")
)))]
fn program(_: &Bounds) -> Option<Vec<libc::sock_filter>> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_machine_lacks_is_told_with_what_it_leaves_open() {
        let entered = |landlock| Entered { calls: Calls::Filtered, landlock };
        assert_eq!(entered(Landlock::Version(WITH_PORTS)).lacks(), [""; 0]);
        let [early] = entered(Landlock::Version(WITH_PORTS - 1)).lacks()[..] else { panic!("not one") };
        assert!(early.contains("any TCP port") && !early.contains("read"), "{early}");
        let [absent] = entered(Landlock::Absent).lacks()[..] else { panic!("not one") };
        assert!(absent.contains("any TCP port") && absent.contains("read what its user can"), "{absent}");
        let bare = Entered { calls: Calls::Unknown, landlock: Landlock::Absent };
        assert_eq!(bare.lacks().len(), 2);
        assert!(bare.to_string().starts_with("in force: no new privileges\nlacks: the filter"), "{bare}");
        assert_eq!(
            entered(Landlock::Version(7)).to_string(),
            "in force: no new privileges; a filter of system calls; Landlock 7 for files and TCP ports"
        );
    }
}

//! What a parent imposes on a child before its program runs, whatever program that is.
//!
//! ```text
//!   fork ─ descriptors ─ limits ─ no capabilities ─ its own user ─ no new privileges ─ dies with us ─ exec
//!          kept to 0 1 2                            (if it has one)
//! ```
//!
//! The order to die with the parent is the kernel's own: SIGKILL when the *thread* that started the child
//! ends, so children are started from a thread that lives as long as the process, as a current-thread
//! runtime's does. A parent that is gone before the order is given is noticed, and nothing is executed. It
//! does not pass to children of the child: those are for whoever ends the child's group.
//!
//! If one of the steps is refused, the program is not executed, and the error is that of starting it.

use std::process::Command;

use crate::raw;

/// A user and its group, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// Its group; there are no others.
    pub gid: u32,
}

/// What a child may be and take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// As whom it runs; `None`: as its parent's user, though without capabilities.
    pub user: Option<User>,
    /// The length that a file may have when it writes to it; one byte more ends it by `SIGXFSZ`.
    pub file_bytes: u64,
    /// Its address space, most of which is never touched.
    pub memory_bytes: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Processes and threads of its user. They are counted for the user, not for this child, so that the
    /// limit is imposed only on a user of its own.
    pub processes: u64,
}

/// Has whatever is started by `command` accept `bounds` first. To be called once, by the process that
/// starts it.
pub fn confine(command: &mut Command, bounds: Bounds) {
    raw::confine(command, bounds);
}

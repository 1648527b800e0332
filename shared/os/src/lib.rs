//! What both processes ask of the kernel, each in a few safe functions: who is alive ([`process`],
//! [`lock`]), messages with descriptors ([`channel`]), what survives a power loss ([`disk`], [`durable`]),
//! work that gives way to other work ([`background`]), memory that is not kept ([`memory`]), and the
//! routing program of a socket group ([`reuseport`]).
//!
//! All `unsafe` of the project stands in the modules `raw` and [`reuseport`].

pub mod background;
pub mod channel;
pub mod disk;
pub mod durable;
pub mod lock;
pub mod memory;
pub mod process;
#[allow(unsafe_code)]
mod raw;
#[allow(unsafe_code)]
pub mod reuseport;

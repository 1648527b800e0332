//! What both processes ask of the kernel, each in a few safe functions: who is alive ([`process`],
//! [`lock`]), messages with descriptors ([`channel`]), what survives a power loss ([`disk`], [`durable`]),
//! work that gives way to other work ([`background`]), memory that is not kept ([`memory`]), the time of day
//! ([`clock`]), what is said to whoever reads the output ([`say`]), what a program may do that its parent
//! does not trust ([`child`]) or that does not trust itself ([`sandbox`]), and the routing program of a
//! socket group ([`reuseport`]).
//!
//! All `unsafe` of the project stands in the modules `raw` and [`reuseport`].

pub mod background;
pub mod channel;
pub mod child;
pub mod clock;
pub mod disk;
pub mod durable;
pub mod injected;
pub mod lock;
pub mod memory;
mod output;
pub mod process;
#[allow(unsafe_code)]
mod raw;
#[allow(unsafe_code)]
pub mod reuseport;
pub mod sandbox;

pub use output::say;

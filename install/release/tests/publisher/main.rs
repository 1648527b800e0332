//! The publisher: its command, its files, and the minisign tool.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod command;
mod publish;

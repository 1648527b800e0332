//! The fetcher, and what the supervisor makes of what it fetches, against real servers and files.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod anchor;
mod bans;
mod feed;
mod fetch;
mod flaky;
mod lab;
mod proxy;
mod releases;
mod reset;
mod stale;
mod tls;

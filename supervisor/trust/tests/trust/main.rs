//! The rules of trust, one by one, on signatures made here.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod anchor;
mod builders;
mod choice;
mod evolution;
mod expiry;
mod feed;
mod golden;
mod outlook;
mod package;
mod refresh;
mod rollout;

//! The rules of trust, one by one, on signatures made here.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod builders;
mod choice;
mod evolution;
mod feed;
mod golden;
mod outlook;
mod refresh;
mod rollout;

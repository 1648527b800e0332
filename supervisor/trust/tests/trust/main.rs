//! The rules of trust, one by one, on signatures made here.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod choice;
mod feed;
mod refresh;

//! A node with real processes: supervisor, workers, fetcher, operator's command, clients.
//!
//! Every test has a world of its own (folder, ports, processes), so they run beside each other.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bad_input;
mod channels;
mod conformance;
mod expiry;
mod faults;
mod full_disk;
mod held;
mod hostile;
mod init;
mod injected;
mod leftovers;
mod life;
mod operator;
mod own_user;
mod packages;
mod proxy;
mod publisher;
mod rehearsal;
mod revoked;
mod rollout;
mod slept;
mod stale;
mod supervisor_killed;
mod trust;
mod under_load;
mod versions;
mod windows;

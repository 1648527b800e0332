//! How the worker is, told at a fixed interval from a task of its own.
//!
//! Nothing here waits for the storage: what it knows of it are numbers that others leave here. A worker
//! whose disk hangs still beats; whether it answers is what requests show.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bumpless_shared::control::{Heartbeat, Report};
use tokio::time::MissedTickBehavior;

use crate::net::Node;
use crate::supervisor::Reports;

/// Numbers that others leave.
#[derive(Debug, Default)]
pub struct Vitals {
    /// Last sequence written or applied.
    pub sequence: AtomicU64,
    /// Last sequence that the other worker says that it wrote.
    pub written: AtomicU64,
    /// Last sequence applied from the other worker.
    pub applied: AtomicU64,
    /// Bytes in logbooks.
    pub logbook: AtomicU64,
    /// Bytes of disk that a standby would need.
    pub standby_room: AtomicU64,
    /// Canary requests answered rightly.
    pub canary_ok: AtomicU64,
    /// Canary requests failed.
    pub canary_failed: AtomicU64,
}

impl Vitals {
    /// Records of the other worker that are not applied yet.
    pub fn lag(&self) -> u64 {
        self.written.load(Ordering::Relaxed).saturating_sub(self.applied.load(Ordering::Relaxed))
    }
}

/// Beats until it is dropped.
pub async fn beat(every: Duration, node: Node, vitals: Arc<Vitals>, logs: PathBuf, reports: Reports) {
    let mut clock = tokio::time::interval(every.max(Duration::from_millis(1)));
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let measuring = Arc::new(AtomicBool::new(false));
    loop {
        clock.tick().await;
        let figures = node.figures();
        let micros = |quantile| figures.latency.quantile(quantile).map_or(0, |time| time.as_micros() as u64);
        let some = figures.latency.count() > 0;
        reports.send_now(&Report::Heartbeat(Heartbeat {
            sequence: vitals.sequence.load(Ordering::Relaxed),
            requests: figures.requests,
            errors: figures.errors,
            p50_us: if some { micros(0.5) } else { 0 },
            p99_us: if some { micros(0.99) } else { 0 },
            rss: resident(),
            connections: figures.open_connections as u64,
            lag: vitals.lag(),
            logbook: vitals.logbook.load(Ordering::Relaxed),
            standby_room: vitals.standby_room.load(Ordering::Relaxed),
            canary_ok: vitals.canary_ok.swap(0, Ordering::Relaxed),
            canary_failed: vitals.canary_failed.swap(0, Ordering::Relaxed),
        }));
        // Not waited for, and never twice at once: a slow disk makes the figure old, not the beat late.
        if !measuring.swap(true, Ordering::AcqRel) {
            let (vitals, logs, measuring) = (vitals.clone(), logs.clone(), measuring.clone());
            tokio::task::spawn_blocking(move || {
                vitals.logbook.store(size_of(&logs), Ordering::Relaxed);
                measuring.store(false, Ordering::Release);
            });
        }
    }
}

/// Resident memory of this process in bytes; 0 where it is not known.
fn resident() -> u64 {
    let Ok(text) = std::fs::read_to_string("/proc/self/statm") else { return 0 };
    let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * page_size()
}

fn page_size() -> u64 {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|size| u64::try_from(size).ok())
        .unwrap_or(4096)
}

/// Bytes in all files below a folder; what vanishes meanwhile counts nothing.
fn size_of(folder: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_its_memory() {
        assert!(resident() > 100_000);
    }
}

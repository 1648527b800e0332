//! `cargo verify`: how long a release takes from its blob to a descriptor that may be run, and what memory.
//!
//! ```text
//!   fetch    a folder's blob into staging, its SHA-256          (+ install: unpacked, hashed, synced, linked)
//!   launch   into sealed memory, its SHA-256: at every start    (+ the baseline: SHA-256 alone, in memory)
//! ```
//!
//! The product's own feed and releases do the work, on a feed that the publisher made. Each size has a process
//! of its own, so that its peak of resident memory is its own, too. The sealed copy that a worker runs from is
//! memory as well, shared with that worker and as large as the artifact: it is told apart.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bumpless_release::{Addition, Options, Publisher};
use bumpless_shared::control::{Description, StateRange};
use bumpless_shared::digest::Digest;
use bumpless_shared::version::Range;
use bumpless_tests::handover::figures::Spread;
use bumpless_trust::refresh::sha256;
use bumpless_trust::{Machine, Request};
use bumplessd::feed::{Feed, FirstRoot, Settings};
use bumplessd::releases::Releases;
use serde::{Deserialize, Serialize};

const NOW: u64 = 1_800_000_000;
const MB: usize = 1_000_000;
const SIZES: [usize; 3] = [5 * MB, 50 * MB, 200 * MB];
const ROUNDS: usize = 10;

/// One round, in milliseconds; memory in bytes.
#[derive(Debug, Serialize, Deserialize)]
struct Round {
    fetch: f64,
    install: f64,
    launch: f64,
    baseline: f64,
    peak: u64,
    blob: u64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, child, publisher, size] = &arguments[..]
        && child == "--round"
    {
        let round = round(Path::new(publisher), size.parse().unwrap());
        return println!("{}", serde_json::to_string(&round).unwrap());
    }
    let json = arguments.iter().any(|argument| argument == "--json");
    let mut results = Vec::new();
    for size in SIZES {
        let dir = tempfile::tempdir().unwrap();
        publish(dir.path(), size);
        let rounds: Vec<Round> = (0..ROUNDS).map(|_| in_a_process(dir.path(), size)).collect();
        let of = |value: fn(&Round) -> f64| Spread::of(rounds.iter().map(value).collect());
        results.push(serde_json::json!({
            "artifact_bytes": size,
            "blob_bytes": rounds[0].blob,
            "rounds": ROUNDS,
            "fetch_ms": of(|round| round.fetch),
            "install_ms": of(|round| round.install),
            "launch_ms": of(|round| round.launch),
            "sha256_alone_ms": of(|round| round.baseline),
            "launch_over_sha256": of(|round| round.launch / round.baseline),
            "peak_resident_mb": of(|round| round.peak as f64 / 1e6),
            "sealed_copy_mb": size as f64 / 1e6,
        }));
    }
    if json {
        return println!("{:#}", serde_json::json!(results));
    }
    println!("{ROUNDS} rounds each, median (least to most)");
    println!(
        "{:>9} {:>22} {:>22} {:>22} {:>14} {:>22}",
        "artifact",
        "fetch and hash, ms",
        "unpack, install, ms",
        "verify at start, ms",
        "/ SHA-256",
        "peak resident, MB"
    );
    for result in &results {
        let cell = |name: &str| {
            let value = |part: &str| result[name][part].as_f64().unwrap();
            format!("{:.1} ({:.1} to {:.1})", value("median"), value("min"), value("max"))
        };
        println!(
            "{:>6} MB {:>22} {:>22} {:>22} {:>14} {:>22}",
            result["artifact_bytes"].as_u64().unwrap() / MB as u64,
            cell("fetch_ms"),
            cell("install_ms"),
            cell("launch_ms"),
            format!("{:.2}", result["launch_over_sha256"]["median"].as_f64().unwrap()),
            cell("peak_resident_mb"),
        );
    }
}

/// Packs about two to one, as machine code does.
fn artifact(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let letter = |state: &mut u64| {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        b'a' + (*state >> 60) as u8
    };
    (0..size).map(|_| letter(&mut state)).collect()
}

fn publish(dir: &Path, size: usize) {
    let folder = dir.join("publisher");
    let mut publisher = Publisher::init(&folder, &Options::new("stable".parse().unwrap(), NOW)).unwrap();
    let path = dir.join("artifact");
    std::fs::write(&path, artifact(size)).unwrap();
    let range = Range { min: 1, max: 1 };
    let description = Description {
        release: "1.0.0".parse().unwrap(),
        contract: range,
        protocol: range,
        state: StateRange { read_min: 1, read_max: 1, write: 1 },
    };
    let addition = Addition { description: Some(description), ..Addition::default() };
    publisher.add(&path, &"1.0.0".parse().unwrap(), addition).unwrap();
    publisher.publish(NOW).unwrap();
}

fn in_a_process(dir: &Path, size: usize) -> Round {
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).arg("--round").arg(dir).arg(size.to_string()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn round(dir: &Path, size: usize) -> Round {
    let state = tempfile::tempdir_in(dir).unwrap();
    for part in ["trust", "staging"] {
        std::fs::create_dir(state.path().join(part)).unwrap();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let round = runtime.block_on(measured(dir, state.path()));
    let peak = peak();
    // The baseline has the whole artifact in memory: after the peak was read.
    let bytes = std::fs::read(dir.join("artifact")).unwrap();
    assert_eq!(bytes.len(), size);
    let begun = Instant::now();
    std::hint::black_box(sha256(&bytes));
    Round { peak, baseline: ms(begun), ..round }
}

async fn measured(dir: &Path, state: &Path) -> Round {
    let publisher = Publisher::open(&dir.join("publisher")).unwrap();
    let settings = Settings {
        places: vec![publisher.feed().display().to_string()],
        channel: "stable".parse().unwrap(),
        root: Some(FirstRoot::File(publisher.first_root())),
        fetcher: None,
        user: None,
        ca_file: None,
        allow_http_loopback: false,
        proxy: None,
        connect_timeout: Duration::from_secs(10),
        metadata_timeout: Duration::from_secs(10),
        blob_timeout: Duration::from_secs(60),
        min_rate: 1,
        trust_dir: state.join("trust"),
        staging_dir: state.join("staging"),
    };
    let (mut feed, _) = Feed::open(settings).unwrap();
    feed.refresh(NOW).await.unwrap();
    let machine = Machine {
        targets: bumpless_trust::choice::targets(),
        supervisor: [0, 1, 0],
        contract: Range { min: 1, max: 1 },
        state: None,
        id: Digest([1; 32]),
        group: None,
        pin: None,
    };
    let choice = feed.trusted().choose(&machine, None, &Request::Newest, |_| None, NOW, NOW).unwrap();
    let begun = Instant::now();
    let staged = feed.fetch(&choice, |_, _| {}).await.unwrap();
    let fetch = ms(begun);
    let releases = Releases::new(state);
    let begun = Instant::now();
    let release = releases.install(staged, &choice).await.unwrap();
    let install = ms(begun);
    let begun = Instant::now();
    releases.launchable(&release, None).await.unwrap();
    let launch = ms(begun);
    Round { fetch, install, launch, baseline: 0.0, peak: 0, blob: choice.artifact().size }
}

/// Most bytes that were resident at once so far.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}

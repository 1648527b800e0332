//! Somebody swaps a release while it is verified and started: the wrong bytes never run.
//!
//! ```text
//!   racer    good ─▶ bad ─▶ good ─▶ bad ─▶ …     the file, a link in its place, its directory, or its bytes
//!   here     launchable() ─▶ wait for the next swap ─▶ launch() ─▶ what does it print?
//! ```
//!
//! The good program prints A and the bad one B. For each kind of swap it is counted how often the
//! verification met the bad one, or something half-way, and how often a swap came between verification and
//! start: where one of these is 0, nothing was tested.

#![allow(clippy::unwrap_used)]

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bumpless_os::process::Ending;
use bumpless_shared::digest::Digest;
use bumpless_shared::release::Release;
use bumplessd::launch::{Output, launch};
use bumplessd::releases::{Releases, VerifyError};
use sha2::{Digest as _, Sha256};

const TRIES: u32 = 200;

/// More than is read at a time, so that a swap can come in the middle.
const SIZE: usize = 700_000;

/// A program for Linux on this processor that prints a letter and a line's end; its bytes, and nothing else.
/// `None`: it is not written for this processor.
fn program(letter: u8) -> Option<Vec<u8>> {
    if !cfg!(all(target_arch = "x86_64", target_pointer_width = "64")) {
        return None;
    }
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let mut bytes = Vec::new();
    // ELF, 64 bits, little-endian; executable, x86-64.
    bytes.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0");
    for number in [BASE + HEADERS, 64, 0] {
        bytes.extend(number.to_le_bytes());
    }
    // No flags; 64 bytes of this header, one entry of 56 bytes, no sections.
    bytes.extend(b"\0\0\0\0\x40\0\x38\0\x01\0\0\0\0\0\0\0");
    // One segment to load, readable and executable: the whole file.
    bytes.extend(b"\x01\0\0\0\x05\0\0\0");
    for number in [0, BASE, BASE, SIZE as u64, SIZE as u64, 0x1000] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(b"\xb8\x01\0\0\0"); //              mov  eax, 1 (write)
    bytes.extend(b"\xbf\x01\0\0\0"); //              mov  edi, 1
    bytes.extend(b"\x48\x8d\x35\x10\0\0\0"); //      lea  rsi, [rip + 16]: the letter
    bytes.extend(b"\xba\x02\0\0\0"); //              mov  edx, 2
    bytes.extend(b"\x0f\x05"); //                    syscall
    bytes.extend(b"\xb8\x3c\0\0\0\x31\xff\x0f\x05"); // exit(0)
    bytes.extend([letter, b'\n']);
    // All of it differs, so that any mixture has another hash.
    bytes.resize(SIZE, letter);
    Some(bytes)
}

struct Stage {
    dir: tempfile::TempDir,
    releases: Releases,
    release: Release,
    good: Vec<u8>,
    bad: Vec<u8>,
}

impl Stage {
    fn new() -> Option<Stage> {
        let (good, bad) = (program(b'A')?, program(b'B')?);
        let dir = tempfile::tempdir().unwrap();
        let sha256 = Digest(Sha256::digest(&good).into());
        let release = Release { version: "1.0.0".parse().unwrap(), sha256 };
        let stage = Stage { releases: Releases::new(dir.path()), dir, release, good, bad };
        put(&stage.folder(), &stage.good);
        Some(stage)
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("releases").join(self.release.directory())
    }

    fn worker(&self) -> PathBuf {
        self.folder().join("worker")
    }

    fn aside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn put(folder: &Path, bytes: &[u8]) {
    fs::create_dir_all(folder).unwrap();
    let path = folder.join("worker");
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

/// What came of the tries.
#[derive(Debug, Default)]
struct Seen {
    /// The verification refused what it found.
    refused: u32,
    /// It was verified, then swapped, then started.
    overtaken: u32,
}

/// What the two threads tell each other.
#[derive(Debug, Default)]
struct Signals {
    /// Swaps so far.
    swaps: AtomicU64,
    /// No swap for now, please; and there is none.
    quiet: AtomicBool,
    still: AtomicBool,
    over: AtomicBool,
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}: the other thread does nothing");
        std::thread::yield_now();
    }
}

/// Swaps as fast as it goes, with `to_bad` and `to_good`, while a release is verified and started again and
/// again.
fn race(name: &str, stage: &Stage, to_bad: impl Fn() + Sync, to_good: impl Fn() + Sync) {
    let signals = Signals::default();
    let seen = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !signals.over.load(SeqCst) {
                if signals.quiet.load(SeqCst) {
                    signals.still.store(true, SeqCst);
                    std::thread::yield_now();
                    continue;
                }
                signals.still.store(false, SeqCst);
                to_bad();
                signals.swaps.fetch_add(1, SeqCst);
                to_good();
            }
        });
        let seen = std::panic::catch_unwind(AssertUnwindSafe(|| starts(stage, &signals)));
        signals.over.store(true, SeqCst);
        seen
    });
    let seen = seen.unwrap_or_else(|why| std::panic::resume_unwind(why));
    eprintln!("{name}: {} swaps, {seen:?}", signals.swaps.into_inner());
    assert!(seen.refused > 0, "{name}: the verification never met a swap: {seen:?}");
    assert!(seen.overtaken >= TRIES / 2, "{name}: no swap between verification and start: {seen:?}");
}

fn starts(stage: &Stage, signals: &Signals) -> Seen {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut seen = Seen::default();
    for number in 0..TRIES {
        // Every other time the verification is left alone, so that it certainly comes to a start.
        if number % 2 == 0 {
            signals.quiet.store(true, SeqCst);
            until("quiet", || signals.still.load(SeqCst));
        }
        let verified = runtime.block_on(stage.releases.launchable(&stage.release));
        signals.quiet.store(false, SeqCst);
        let binary = match verified {
            Ok(binary) => binary,
            Err(VerifyError::Hash { .. } | VerifyError::File { .. }) if number % 2 == 1 => {
                seen.refused += 1;
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        // Verified; and now comes the swap.
        let before = signals.swaps.load(SeqCst);
        until("a swap", || signals.swaps.load(SeqCst) != before);
        seen.overtaken += 1;
        let output = Output::new(stage.aside(&format!("{number}.out")));
        let (_near, far) = UnixStream::pair().unwrap();
        let launched = launch(binary.as_fd(), far.into(), &output).unwrap();
        runtime.block_on(launched.process.ended()).unwrap();
        assert_eq!(launched.process.reap().unwrap(), Some(Ending::Exited(0)));
        assert_eq!(output.tail(), "A", "what ran is not what was verified");
    }
    seen
}

fn stage(test: &str) -> Option<Stage> {
    let stage = Stage::new();
    if stage.is_none() {
        // Past the capture of the harness.
        let _ = writeln!(std::io::stderr(), "left out: {test}: the small program is for x86-64 alone");
        let required = std::env::var_os("BUMPLESS_REQUIRE_ALL").is_some_and(|value| value == "1");
        assert!(!required, "{test} was left out, and BUMPLESS_REQUIRE_ALL=1 allows no test to be");
    }
    stage
}

#[test]
fn the_small_programs_run_and_say_which_they_are() {
    let Some(stage) = stage("the_small_programs_run") else { return };
    for (bytes, letter) in [(&stage.good, "A\n"), (&stage.bad, "B\n")] {
        put(&stage.aside("try"), bytes);
        let output = std::process::Command::new(stage.aside("try").join("worker")).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), letter);
    }
}

#[test]
fn a_file_that_is_swapped_during_the_start_never_runs() {
    let Some(stage) = stage("a_file_that_is_swapped") else { return };
    let (good, bad) = (stage.aside("good"), stage.aside("bad"));
    put(&good, &stage.good);
    put(&bad, &stage.bad);
    let over = |from: &Path| {
        let link = stage.aside("link");
        fs::hard_link(from.join("worker"), &link).unwrap();
        fs::rename(&link, stage.worker()).unwrap();
    };
    race("file", &stage, || over(&bad), || over(&good));
}

#[test]
fn a_link_that_is_put_in_its_place_during_the_start_is_not_followed() {
    let Some(stage) = stage("a_link_that_is_put_in_its_place") else { return };
    let (good, bad) = (stage.aside("good"), stage.aside("bad"));
    put(&good, &stage.good);
    put(&bad, &stage.bad);
    let to_bad = || {
        let link = stage.aside("link");
        symlink(bad.join("worker"), &link).unwrap();
        fs::rename(&link, stage.worker()).unwrap();
    };
    let to_good = || {
        let link = stage.aside("link");
        fs::hard_link(good.join("worker"), &link).unwrap();
        fs::rename(&link, stage.worker()).unwrap();
    };
    race("link", &stage, to_bad, to_good);
}

#[test]
fn a_directory_that_is_swapped_during_the_start_is_of_no_use() {
    let Some(stage) = stage("a_directory_that_is_swapped") else { return };
    let (good, bad, folder) = (stage.aside("good"), stage.aside("bad"), stage.folder());
    put(&bad, &stage.bad);
    let to_bad = || {
        fs::rename(&folder, &good).unwrap();
        fs::rename(&bad, &folder).unwrap();
    };
    let to_good = || {
        fs::rename(&folder, &bad).unwrap();
        fs::rename(&good, &folder).unwrap();
    };
    race("directory", &stage, to_bad, to_good);
}

#[test]
fn bytes_that_are_written_in_place_during_the_start_never_run() {
    let Some(stage) = stage("bytes_that_are_written_in_place") else { return };
    let write = |bytes: &[u8]| {
        let mut file = OpenOptions::new().write(true).open(stage.worker()).unwrap();
        file.write_all(bytes).unwrap();
    };
    race("in place", &stage, || write(&stage.bad), || write(&stage.good));
}

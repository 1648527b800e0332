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
//!
//! Where workers share the supervisor's user the racer is one of that user, and everything succeeds that it tries.
//! Where they have a user of their own there are two racers: one of the supervisor's user, who swaps what he likes
//! (what was opened is what runs), and one of the workers' user, who tries the same and more, and is refused each
//! time.

#![allow(clippy::unwrap_used)]

use std::fs::{self, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bumpless_os::child::{User, with_files_as};
use bumpless_os::process::Ending;
use bumpless_shared::digest::Digest;
use bumpless_shared::release::Release;
use bumplessd::launch::{Output, launch};
use bumplessd::releases::{Releases, VerifyError};
use bumplessd::upgrade::Verdict;
use nix::unistd::geteuid;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Runtime;

const TRIES: u32 = 200;

/// Fewer swaps during all tries together are no race.
const SWAPS: u64 = 1000;

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
    /// As whom it is started; `None`: as us.
    user: Option<User>,
    /// A file that is open for writing in a child that another test is just starting cannot be executed.
    _alone: MutexGuard<'static, ()>,
}

impl Stage {
    fn new(user: Option<User>) -> Option<Stage> {
        static ALONE: Mutex<()> = Mutex::new(());
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (good, bad) = (program(b'A')?, program(b'B')?);
        let dir = tempfile::tempdir().unwrap();
        // Where every user gets to.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let sha256 = Digest(Sha256::digest(&good).into());
        let release = Release { version: "1.0.0".parse().unwrap(), sha256 };
        let releases = Releases::new(dir.path());
        let stage = Stage { releases, dir, release, good, bad, user, _alone };
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
    let swaps = signals.swaps.into_inner();
    eprintln!("{name}: {swaps} swaps, {seen:?}");
    assert!(swaps >= SWAPS, "{name}: only {swaps} swaps");
    assert!(seen.refused > 0, "{name}: the verification never met a swap: {seen:?}");
    assert!(seen.overtaken >= TRIES / 2, "{name}: no swap between verification and start: {seen:?}");
}

fn starts(stage: &Stage, signals: &Signals) -> Seen {
    let runtime = runtime();
    let mut seen = Seen::default();
    for number in 0..TRIES {
        // Every other time the verification is left alone, so that it certainly comes to a start.
        if number % 2 == 0 {
            signals.quiet.store(true, SeqCst);
            until("quiet", || signals.still.load(SeqCst));
        }
        let verified = runtime.block_on(stage.releases.launchable(&stage.release, stage.user));
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
        assert_eq!(runs(stage, &runtime, binary.as_fd()), "A", "what ran is not what was verified");
    }
    seen
}

/// What it prints, started.
fn runs(stage: &Stage, runtime: &Runtime, binary: BorrowedFd<'_>) -> String {
    let output = Output::new(stage.aside("out"));
    let (_near, far) = UnixStream::pair().unwrap();
    let launched = launch(binary, far.into(), &output, stage.user).unwrap();
    runtime.block_on(launched.process.ended()).unwrap();
    assert_eq!(launched.process.reap().unwrap(), Some(Ending::Exited(0)));
    let printed = output.tail();
    fs::remove_file(output.path()).unwrap();
    printed
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn left_out(test: &str, why: &str) {
    // Past the capture of the harness.
    let _ = writeln!(std::io::stderr(), "left out: {test}: {why}");
    let required = std::env::var_os("BUMPLESS_REQUIRE_ALL").is_some_and(|value| value == "1");
    assert!(!required, "{test} was left out, and BUMPLESS_REQUIRE_ALL=1 allows no test to be");
}

fn stage(test: &str, user: Option<User>) -> Option<Stage> {
    let stage = Stage::new(user);
    if stage.is_none() {
        left_out(test, "the small program is for x86-64 alone");
    }
    stage
}

/// A user of workers' own; `None` where nobody else can be become.
fn own(test: &str) -> Option<User> {
    if !geteuid().is_root() {
        left_out(test, "only root can run it as another user");
        return None;
    }
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    Some(User { uid: nobody.uid.as_raw(), gid: nobody.gid.as_raw() })
}

#[test]
fn the_small_programs_run_and_say_which_they_are() {
    let Some(stage) = stage("the_small_programs_run", None) else { return };
    for (bytes, letter) in [(&stage.good, "A\n"), (&stage.bad, "B\n")] {
        put(&stage.aside("try"), bytes);
        let output = std::process::Command::new(stage.aside("try").join("worker")).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), letter);
    }
}

fn swap_the_file(stage: &Stage) {
    let (good, bad) = (stage.aside("good"), stage.aside("bad"));
    put(&good, &stage.good);
    put(&bad, &stage.bad);
    let over = |from: &Path| {
        let link = stage.aside("link");
        fs::hard_link(from.join("worker"), &link).unwrap();
        fs::rename(&link, stage.worker()).unwrap();
    };
    race("file", stage, || over(&bad), || over(&good));
}

fn swap_a_link(stage: &Stage) {
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
    race("link", stage, to_bad, to_good);
}

fn swap_the_directory(stage: &Stage) {
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
    race("directory", stage, to_bad, to_good);
}

#[test]
fn a_file_that_is_swapped_during_the_start_never_runs() {
    let Some(stage) = stage("a_file_that_is_swapped", None) else { return };
    swap_the_file(&stage);
}

#[test]
fn a_link_that_is_put_in_its_place_during_the_start_is_not_followed() {
    let Some(stage) = stage("a_link_that_is_put_in_its_place", None) else { return };
    swap_a_link(&stage);
}

#[test]
fn a_directory_that_is_swapped_during_the_start_is_of_no_use() {
    let Some(stage) = stage("a_directory_that_is_swapped", None) else { return };
    swap_the_directory(&stage);
}

#[test]
fn bytes_that_are_written_in_place_during_the_start_never_run() {
    let Some(stage) = stage("bytes_that_are_written_in_place", None) else { return };
    let write = |bytes: &[u8]| {
        let mut file = OpenOptions::new().write(true).open(stage.worker()).unwrap();
        file.write_all(bytes).unwrap();
    };
    race("in place", &stage, || write(&stage.bad), || write(&stage.good));
}

#[test]
fn where_workers_have_their_own_user_what_was_opened_is_what_runs_too() {
    let Some(user) = own("where_workers_have_their_own_user") else { return };
    for swap in [swap_the_file, swap_a_link, swap_the_directory] {
        let Some(stage) = stage("where_workers_have_their_own_user", Some(user)) else { return };
        swap(&stage);
    }
}

/// The workers' user tries all of it, as fast as it goes, with programs of its own at hand.
#[test]
fn the_workers_user_can_change_nothing_of_what_is_verified_and_started() {
    let Some(user) = own("the_workers_user_can_change_nothing") else { return };
    let Some(stage) = stage("the_workers_user_can_change_nothing", Some(user)) else { return };
    let (theirs, worker, folder) = (stage.aside("theirs"), stage.worker(), stage.folder());
    put(&theirs, &stage.bad);
    for path in [&theirs, &theirs.join("worker")] {
        std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid)).unwrap();
    }
    let releases = folder.parent().unwrap();
    let attempts = || {
        let over = theirs.join("over");
        let _ = fs::remove_file(&over);
        let put_over = |made: std::io::Result<()>| made.map(|()| fs::rename(&over, &worker));
        [
            // The file, and its mode and owner.
            put_over(fs::copy(theirs.join("worker"), &over).map(drop)).unwrap(),
            fs::remove_file(&worker),
            fs::set_permissions(&worker, Permissions::from_mode(0o777)),
            std::os::unix::fs::chown(&worker, Some(user.uid), None),
            // A link in its place.
            put_over(fs::remove_file(&over).and_then(|()| symlink(theirs.join("worker"), &over))).unwrap(),
            // The directories.
            fs::rename(&theirs, &folder),
            fs::rename(&folder, stage.aside("aside")),
            fs::rename(releases, stage.aside("aside")),
            // The bytes.
            OpenOptions::new().write(true).open(&worker).and_then(|mut file| file.write_all(&stage.bad)),
            OpenOptions::new().append(true).open(&worker).and_then(|mut file| file.write_all(b"more")),
            OpenOptions::new().write(true).truncate(true).open(&worker).map(drop),
        ]
    };
    let (over, tried) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let racer = scope.spawn(|| {
            with_files_as(user, || {
                while !over.load(SeqCst) {
                    for (number, done) in attempts().into_iter().enumerate() {
                        let refused = done.map_err(|error| error.kind());
                        assert_eq!(refused, Err(ErrorKind::PermissionDenied), "attempt {number}");
                        tried.fetch_add(1, SeqCst);
                    }
                }
            })
            .unwrap();
        });
        let runtime = runtime();
        let starts = std::panic::catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..TRIES {
                let binary = runtime.block_on(stage.releases.launchable(&stage.release, stage.user)).unwrap();
                let before = tried.load(SeqCst);
                until("an attempt", || tried.load(SeqCst) > before + 11 || racer.is_finished());
                assert_eq!(runs(&stage, &runtime, binary.as_fd()), "A");
            }
        }));
        over.store(true, SeqCst);
        starts.unwrap_or_else(|why| std::panic::resume_unwind(why));
    });
    let tried = tried.into_inner();
    eprintln!("the workers' user: {tried} attempts");
    assert!(tried >= SWAPS, "only {tried} attempts");
}

#[test]
fn what_others_could_change_is_not_started_and_the_release_is_not_to_blame() {
    let Some(user) = own("what_others_could_change_is_not_started") else { return };
    let Some(stage) = stage("what_others_could_change_is_not_started", Some(user)) else { return };
    let runtime = runtime();
    let verified = |as_whom| runtime.block_on(stage.releases.launchable(&stage.release, as_whom));
    let (worker, folder) = (stage.worker(), stage.folder());
    let owns = |path: &Path, uid| std::os::unix::fs::chown(path, Some(uid), None).unwrap();
    let modes = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    for path in [&worker, &folder, folder.parent().unwrap(), stage.dir.path()] {
        let refused = |what: &str| {
            let error = verified(Some(user)).unwrap_err();
            assert!(matches!(error, VerifyError::Exposed { .. }), "{what} of {}: {error}", path.display());
            assert!(matches!(error.verdict(), Verdict::Unknown(_)), "{error}");
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
            // A worker that shares our user gets a copy in any case.
            verified(None).unwrap();
        };
        owns(path, user.uid);
        refused("owner");
        owns(path, 0);
        for mode in [0o775, 0o757] {
            modes(path, mode);
            refused("mode");
        }
        modes(path, 0o755);
    }
    assert_eq!(runs(&stage, &runtime, verified(Some(user)).unwrap().as_fd()), "A");
}

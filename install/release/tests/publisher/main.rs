//! The publisher: its command, its files, and the minisign tool.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod builders;
mod ceremony;
mod channels;
mod command;
mod declare;
mod follower;
mod keys;
mod publish;
mod rotation;
mod units;
mod walkthrough;

use std::path::{Path, PathBuf};
use std::process::Command;

use bumpless_release::key::Key;
use bumpless_release::{Addition, Options, PublicKeys, PublishError, Publisher};
use bumpless_shared::control::{Description, StateRange};
use bumpless_shared::version::Range;
use bumpless_trust::document::Channel;

/// Within the validity of everything that is published here.
const NOW: u64 = 1_800_000_000;

/// To be held while a program is written and while any process is started: what is open for writing
/// somewhere cannot be executed, and a process that is just being started has, for a moment, open
/// whatever its parent had.
fn alone_with_programs() -> std::sync::MutexGuard<'static, ()> {
    static PROGRAMS: std::sync::Mutex<()> = std::sync::Mutex::new(());
    PROGRAMS.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Whether a tool is here; where everything has to be tested, it is.
fn tool(name: &str, version: &str) -> bool {
    let _alone = alone_with_programs();
    let here = Command::new(name).arg(version).output().is_ok();
    if !here {
        assert!(std::env::var_os("BUMPLESS_REQUIRE_ALL").is_none(), "{name} is not installed");
        eprintln!("left out: {name} is not installed");
    }
    here
}

fn channel() -> Channel {
    "stable".parse().unwrap()
}

fn description(version: &str) -> Description {
    Description {
        release: version.parse().unwrap(),
        contract: Range { min: 1, max: 1 },
        protocol: Range { min: 1, max: 1 },
        state: StateRange { read_min: 1, read_max: 1, write: 1 },
    }
}

fn addition(version: &str) -> Addition {
    Addition { description: Some(description(version)), ..Addition::default() }
}

/// A lab's publisher: every key is at hand.
fn publisher(dir: &Path) -> Publisher {
    Publisher::init(dir, &Options::new(channel(), NOW)).unwrap()
}

fn add(publisher: &mut Publisher, dir: &Path, version: &str, bytes: &[u8]) -> Result<(), PublishError> {
    let path = dir.join("artifact");
    std::fs::write(&path, bytes).unwrap();
    publisher.add(&path, &version.parse().unwrap(), addition(version)).map(|_| ())
}

/// Holders of keys, each with a folder of their own: `<name>.key` and `<name>.pub`.
struct People<'a> {
    dir: &'a Path,
}

impl People<'_> {
    fn new<'a>(dir: &'a Path, names: &[&str]) -> People<'a> {
        let people = People { dir };
        for name in names {
            std::fs::create_dir_all(dir.join(name)).unwrap();
            Key::generate(&people.key(name)).unwrap();
        }
        people
    }

    fn key(&self, name: &str) -> PathBuf {
        self.dir.join(name).join(format!("{name}.key"))
    }

    fn secret(&self, name: &str) -> Key {
        Key::read(&self.key(name), None).unwrap()
    }

    fn public(&self, name: &str) -> PathBuf {
        self.dir.join(name).join(format!("{name}.pub"))
    }

    fn keys(&self, threshold: u8, names: &[&str]) -> PublicKeys {
        let files = names.iter().map(|name| self.public(name)).collect();
        PublicKeys { files, threshold: threshold.try_into().unwrap() }
    }
}

/// The files that wait, by name, each with `missing` for each root that still needs signatures.
fn waits(result: Result<(), PublishError>) -> Vec<(String, Vec<usize>)> {
    let Err(PublishError::Waits(waiting)) = result else { panic!("nothing waits: {result:?}") };
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let missing = |tally: &bumpless_release::desk::Tally| tally.need.saturating_sub(tally.signed.len());
    waiting.iter().map(|one| (name(&one.file), one.tallies.iter().map(missing).collect())).collect()
}

//! Power loss at every step of what the supervisor writes, and what a start reads then.
//!
//! The records are written in the order in which the upgrade sequence writes them, under a recorder
//! (`bumpless_os::disk::recorder`). From each state of the disk that a power loss could have left the
//! records are read as a start reads them ([`Known::read`]). What must hold is in [`Start::obeys`].
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use bumpless_control::history::{Entry, Event as Happening};
use bumpless_os::disk::recorder::{Crash, Recorder, Recording};
use bumpless_shared::control::StateRange;
use bumpless_shared::digest::Digest;
use bumpless_shared::release::Release;
use bumpless_shared::version::Range;
use bumpless_trust::document::{Artifact, Encoding, Kind};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::effects::journal::{self, Journal};
use crate::records::attempts::Attempts;
use crate::records::committed::{self, Committed};
use crate::records::file::{Kept, RecordError};
use crate::records::history::History;
use crate::records::hold::{Hold, HoldFile};
use crate::records::numbers::{Highest, Numbers};
use crate::records::paths::Paths;
use crate::records::quarantine::{Quarantine, Quarantined};
use crate::releases::{self, Releases, Source};
use crate::start::Known;
use crate::upgrade::recovery::Intent;
use crate::upgrade::{Attempt, Rehearsal, Terms};

/// What the supervisor, or somebody whom it told, goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mark {
    /// A record is being replaced by this value …
    Writing(&'static str, String),
    /// … and the call has returned.
    Written(&'static str),
    /// These numbers were handed out.
    Given(Highest),
    /// A line of the history.
    Told(u64),
}

struct Lab {
    _folder: TempDir,
    root: PathBuf,
    copies: PathBuf,
    images: PathBuf,
}

fn lab() -> Lab {
    let memory = Path::new("/dev/shm");
    let folder =
        if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() };
    let [root, copies, images] = ["root", "copies", "images"].map(|name| folder.path().join(name));
    for path in [&root, &copies, &images] {
        std::fs::create_dir(path).unwrap();
    }
    Lab { _folder: folder, root, copies, images }
}

fn paths_in(root: &Path) -> Paths {
    Paths::new(root.join("lib"), root.join("run"))
}

fn bytes_of(number: u8) -> Vec<u8> {
    vec![number; 3000]
}

fn release(number: u8) -> Release {
    let sha256 = Digest(Sha256::digest(bytes_of(number)).into());
    Release { version: format!("1.0.{number}").parse().unwrap(), sha256 }
}

fn install(paths: &Paths, number: u8) {
    let Release { version, sha256 } = release(number);
    let record = releases::Record {
        schema: 1,
        release: version,
        sha256,
        size: 3000,
        counter: u64::from(number),
        contract: Range { min: 1, max: 1 },
        protocol: Range { min: 1, max: 1 },
        state: StateRange { read_min: 1, read_max: 1, write: 1 },
        index_version: Some(1),
        index_sha256: None,
        index_keys: vec![],
        source: Source::Feed,
    };
    let artifact = Artifact {
        kind: Kind::Worker,
        target: "any".into(),
        encoding: Encoding::Plain,
        size: 3000,
        sha256,
        raw_size: 3000,
        raw_sha256: sha256,
    };
    let mut blob = tempfile::tempfile().unwrap();
    blob.write_all(&bytes_of(number)).unwrap();
    releases::install(blob, &record, &artifact, &paths.releases().join(record.release().directory()))
        .unwrap();
}

/// A supervisor's life while it is recorded.
struct Life<'a> {
    paths: Paths,
    recorder: &'a Recorder<Mark>,
    numbers: Numbers,
    journal: Kept<Journal>,
    history: u64,
}

impl Life<'_> {
    fn writes(&self, what: &'static str, value: &impl std::fmt::Debug, write: impl FnOnce()) {
        self.recorder.mark(Mark::Writing(what, format!("{value:?}")));
        write();
        self.recorder.mark(Mark::Written(what));
    }

    fn gives(&mut self, give: impl FnOnce(&mut Numbers) -> Result<u64, RecordError>) -> u64 {
        let given = give(&mut self.numbers).unwrap();
        self.recorder.mark(Mark::Given(self.numbers.highest()));
        given
    }

    fn journal(&mut self, change: impl FnOnce(&mut Journal)) {
        let mut next = self.journal.get().clone();
        change(&mut next);
        self.recorder.mark(Mark::Writing("journal", format!("{next:?}")));
        self.journal.change(|journal| *journal = next).unwrap();
        self.recorder.mark(Mark::Written("journal"));
    }

    fn commit(&self, number: u8, generation: u64, term: u64) {
        let listen = vec!["127.0.0.1:4433".parse().unwrap()];
        let record = Committed { release: release(number), generation, term, listen };
        self.writes("committed", &Some(&record), || committed::file(&self.paths).store(&record).unwrap());
    }

    fn tells(&mut self, what: Happening) {
        self.history += 1;
        self.recorder.mark(Mark::Told(self.history));
        History::open(&self.paths).append(&Entry::new(self.history, what)).unwrap();
    }

    /// From one release to another: the records in the order of the sequence, up to the verdict.
    fn tries(&mut self, from: (u8, u64, u64), to: u8) -> (u64, Terms) {
        self.tells(Happening::UpgradeStarted);
        install(&self.paths, to);
        let attempt =
            Attempt { from: Some(release(from.0)), to: release(to), by: None, rehearsal: Rehearsal::Off };
        self.gives(Numbers::next_instance);
        let generation = self.gives(Numbers::next_generation);
        let mut intent = Intent { attempt, generation, old_generation: from.1, terms: None };
        self.journal(|journal| journal.intent = Some(intent.clone()));
        self.gives(Numbers::next_mark);
        let take = self.gives(|numbers| numbers.reserve_terms(2));
        let terms = Terms { held: from.2, take, resume: take + 1 };
        intent.terms = Some(terms);
        self.journal(|journal| journal.intent = Some(intent));
        self.tells(Happening::Cut);
        (generation, terms)
    }
}

/// A first release, an upgrade, one that fails, and another.
fn live(lab: &Lab) -> Recording<Mark> {
    let recorder = Recorder::install(&lab.root, &lab.copies);
    let paths = paths_in(&lab.root);
    paths.create().unwrap();
    let Known { journal, numbers, .. } = Known::read(&paths).unwrap();
    recorder.mark(Mark::Given(numbers.highest()));
    let mut life = Life { paths: paths.clone(), recorder: &recorder, numbers, journal, history: 0 };
    let releases = Releases::new(paths.state_dir());
    // The first release.
    install(&paths, 1);
    life.gives(Numbers::next_instance);
    let first = life.gives(Numbers::next_generation);
    let term = life.gives(|numbers| numbers.reserve_terms(1));
    life.commit(1, first, term);
    releases.link_current(&release(1)).unwrap();
    // An upgrade that is good.
    let (second, terms) = life.tries((1, first, term), 2);
    life.commit(2, second, terms.take);
    life.journal(|journal| journal.discard(vec![terms.held, terms.take], vec![first]));
    life.journal(|journal| journal.intent = None);
    releases.link_current(&release(2)).unwrap();
    releases.link_previous(&release(1)).unwrap();
    life.journal(|journal| journal.removed(&[terms.held, terms.take], &[first]));
    life.tells(Happening::Committed);
    // One that fails, is tried no more, and for which somebody wants to have a look.
    let (third, bad) = life.tries((2, second, terms.take), 3);
    let failed = release(3).sha256;
    let mut attempts = Attempts::open(&paths).0;
    let mut after = attempts.tries(&failed);
    after.bad.push(77);
    life.writes("attempts", &after, || attempts.failed(&failed, 77).unwrap());
    let mut quarantine = Quarantine::open(&paths).0;
    let entry = Quarantined { release: release(3), reason: "died".into(), at: 5, output: "x".repeat(2000) };
    life.writes("quarantine", &[&entry], || quarantine.add(entry.clone()).unwrap());
    life.journal(|journal| journal.discard(vec![bad.held, bad.take], vec![third]));
    life.journal(|journal| journal.intent = None);
    life.commit(2, second, bad.resume);
    let mut hold = HoldFile::open(&paths).0;
    let pin = Hold { reason: "looking".into(), at: 9, by: Some(1000) };
    life.writes("hold", &Some(&pin), || hold.set(pin.clone()).unwrap());
    life.writes("hold", &None::<Hold>, || assert!(hold.clear().unwrap()));
    life.writes("quarantine", &[(); 0], || assert!(quarantine.lift(&failed).unwrap()));
    releases.remove(&release(3)).unwrap();
    // And another; what is neither running nor the way back goes.
    let (fourth, terms) = life.tries((2, second, bad.resume), 4);
    life.commit(4, fourth, terms.take);
    releases.link_current(&release(4)).unwrap();
    releases.link_previous(&release(2)).unwrap();
    releases.remove(&release(1)).unwrap();
    life.tells(Happening::Committed);
    drop(life);
    recorder.finish()
}

/// What a start reads, record by record.
struct Start {
    values: BTreeMap<&'static str, String>,
    given: Highest,
    told: Vec<u64>,
    routing: Vec<u8>,
}

impl Start {
    /// Reads it as a start does; whatever cannot be read is a failure.
    fn read(paths: &Paths) -> Start {
        paths.create().unwrap();
        let Known { ledger, committed, journal, numbers, incarnation, routing } = Known::read(paths).unwrap();
        assert!(ledger.alarms().is_empty(), "{:?}", ledger.alarms());
        assert_eq!(incarnation, numbers.highest().incarnation);
        if let Some(committed) = &committed {
            complete(paths, &committed.release);
        }
        // What is half-made is none.
        for record in Releases::new(paths.state_dir()).list().unwrap() {
            complete(paths, &record.release());
        }
        let values = BTreeMap::from([
            ("committed", format!("{committed:?}")),
            ("journal", format!("{:?}", journal.get())),
            ("quarantine", format!("{:?}", Quarantine::open(paths).0.all())),
            ("attempts", format!("{:?}", Attempts::open(paths).0.tries(&release(3).sha256))),
            ("hold", format!("{:?}", HoldFile::open(paths).0.get())),
        ]);
        let told = ledger.newest(1000).unwrap().iter().map(|entry| entry.at).collect();
        Start { values, given: numbers.highest(), told, routing: routing.mac.to_vec() }
    }

    /// Each record is wholly what it was or what it was to become, and nothing that was handed out is
    /// handed out again.
    fn obeys<'a>(&self, marks: impl Iterator<Item = &'a Mark>, fresh: &Start) {
        let mut may: BTreeMap<&str, Vec<&String>> =
            fresh.values.iter().map(|(what, value)| (*what, vec![value])).collect();
        let (mut given, mut told) = (Highest::default(), Vec::new());
        for mark in marks {
            match mark {
                Mark::Writing(what, value) => may.get_mut(what).unwrap().push(value),
                Mark::Written(what) => {
                    let may = may.get_mut(what).unwrap();
                    may.drain(..may.len() - 1);
                }
                Mark::Given(highest) => given = given.max(*highest),
                Mark::Told(at) => told.push(*at),
            }
        }
        for (what, value) in &self.values {
            assert!(may[what].contains(&value), "{what} is {value}\nand may be {:?}", may[what]);
        }
        // Reading gave out an incarnation; of the others none that is in use can come next.
        assert!(self.given.incarnation > given.incarnation, "{given:?} {:?}", self.given);
        assert_eq!(self.given.max(given), self.given);
        // The history may lack lines at its end or anywhere, but has none that nobody wrote.
        assert!(self.told.is_sorted() && self.told.iter().all(|at| told.contains(at)), "{:?}", self.told);
    }
}

/// A release that can be started: its record and its bytes.
fn complete(paths: &Paths, release: &Release) {
    let releases = Releases::new(paths.state_dir());
    assert!(releases.find(release).unwrap().is_some(), "{release} is not installed");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(releases.launchable(release, None)).unwrap();
}

fn explained(life: &Recording<Mark>, crash: &Crash, check: impl FnOnce()) {
    if let Err(cause) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)) {
        eprintln!("{}", life.explain(crash));
        std::panic::resume_unwind(cause);
    }
}

fn fresh(lab: &Lab) -> Start {
    let root = lab.images.join("fresh");
    std::fs::create_dir(&root).unwrap();
    Start::read(&paths_in(&root))
}

#[test]
fn whenever_the_power_fails_a_start_reads_whole_records_and_hands_out_no_number_twice() {
    let lab = lab();
    let (life, fresh) = (live(&lab), fresh(&lab));
    let most =
        std::env::var("BUMPLESS_POWER_IMAGES").ok().and_then(|count| count.parse().ok()).unwrap_or(3000);
    let crashes = life.crashes(0, most, 7, |_| 0);
    eprintln!("{} steps, {} states of the disk", life.steps(), crashes.len());
    for crash in &crashes {
        let folder = tempfile::tempdir_in(&lab.images).unwrap();
        let root = folder.path().join("root");
        explained(&life, crash, || {
            life.write(crash, &root).unwrap();
            Start::read(&paths_in(&root)).obeys(life.marks(crash), &fresh);
        });
    }
}

#[test]
fn what_a_start_read_after_a_kill_is_still_there_after_a_power_loss() {
    let lab = lab();
    let life = live(&lab);
    let owing: Vec<usize> = (0..=life.steps()).filter(|after| life.owes(*after)).collect();
    eprintln!("{} starts", owing.len());
    for after in owing {
        let folder = tempfile::tempdir_in(&lab.images).unwrap();
        let [root, copies, image] = ["root", "copies", "image"].map(|name| folder.path().join(name));
        std::fs::create_dir(&copies).unwrap();
        let recorder = life.go_on(after, &root, &copies).unwrap();
        let paths = paths_in(&root);
        let read = Start::read(&paths);
        // Any of the releases may be the next; one that is there is not installed again.
        for number in 1..=4 {
            if Releases::new(paths.state_dir()).find(&release(number)).unwrap().is_none() {
                install(&paths, number);
            }
            complete(&paths, &release(number));
        }
        let again = recorder.finish();
        let crash = again.durable(again.steps());
        explained(&again, &crash, || {
            again.write(&crash, &image).unwrap();
            let found = Start::read(&paths_in(&image));
            (1..=4).for_each(|number| complete(&paths_in(&image), &release(number)));
            assert_eq!(found.values, read.values);
            assert_eq!(found.routing, read.routing, "clients would be reset with other keys");
            assert!(found.given.incarnation > read.given.incarnation);
            assert_eq!(found.given.max(read.given), found.given);
        });
    }
}

#[test]
fn a_record_that_was_read_is_durable_before_anything_else_is_written() {
    let lab = lab();
    let life = live(&lab);
    for after in (0..=life.steps()).filter(|after| life.owes(*after)) {
        let folder = tempfile::tempdir_in(&lab.images).unwrap();
        let [root, copies, image] = ["root", "copies", "image"].map(|name| folder.path().join(name));
        std::fs::create_dir(&copies).unwrap();
        let recorder = life.go_on(after, &root, &copies).unwrap();
        if !paths_in(&root).state_dir().is_dir() {
            continue;
        }
        let read = |root: &Path| {
            let committed = committed::file(&paths_in(root)).load().unwrap();
            (committed, journal::file(&paths_in(root)).load().unwrap())
        };
        let before = read(&root);
        let again = recorder.finish();
        let crash = again.durable(again.steps());
        again.write(&crash, &image).unwrap();
        // The directory itself is made durable by the start, ahead of any record.
        if paths_in(&image).state_dir().is_dir() {
            explained(&again, &crash, || assert_eq!(read(&image), before));
        }
    }
}

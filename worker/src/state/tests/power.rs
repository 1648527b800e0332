//! Power loss at every step of a pair's life, and what a start makes of it.
//!
//! The life is recorded (`bumpless_os::disk::recorder`); each state of the disk that a power loss could
//! have left is then started from, as the supervisor would: the committed generation is recovered, or,
//! before there is one, the first start is tried again. What must hold is in [`Image::obeys`].

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use bumpless_os::disk::recorder::{Crash, Recorder, Recording};
use bumpless_os::durable::create_dirs;
use bumpless_shared::control::{Generation, Term};

use super::*;
use crate::identity;

/// What somebody outside knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// A client was told that `content(number, length)` is stored, under this sequence.
    Acknowledged { number: u64, length: usize, sequence: Sequence },
    /// No term up to here is given to anybody from now on.
    Reserved(Term),
    /// The supervisor's record is being replaced by one that names this generation …
    Committing(Generation),
    /// … and it is durable.
    Committed(Generation),
    /// A start has read everything.
    Recovered,
    /// The database took over from the logbook.
    Ended,
}

impl Mark {
    fn reserved(&self) -> Term {
        match self {
            Mark::Reserved(term) => *term,
            Mark::Acknowledged { .. }
            | Mark::Committing(_)
            | Mark::Committed(_)
            | Mark::Recovered
            | Mark::Ended => 0,
        }
    }
}

/// How the upgrade ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Commit,
    /// The new worker dies in probation.
    Death,
    /// The authority goes back in good order.
    Return,
}

/// A node under a recorder. The folder is in memory where that can be: what a sync is worth is the
/// recorder's affair here.
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
        fs::create_dir(path).unwrap();
    }
    Lab { _folder: folder, root, copies, images }
}

fn state_in(root: &Path) -> StateDir {
    StateDir::new(root.join("state"))
}

/// A node's life while it is recorded.
struct Life {
    state: StateDir,
    options: StoreOptions,
    recorder: Recorder<Mark>,
    number: u64,
}

impl Life {
    fn mark(&self, mark: Mark) {
        self.recorder.mark(mark);
    }

    /// Puts new content: two records and a chunk file.
    async fn puts(&mut self, holder: &Sequencer) {
        for length in [40, 5000, 300] {
            self.put(holder, length).await;
        }
    }

    async fn put(&mut self, holder: &Sequencer, length: usize) {
        self.number += 1;
        let number = self.number;
        match holder.put(&content(number, length)).await.unwrap() {
            Stored::New { sequence } => self.mark(Mark::Acknowledged { number, length, sequence }),
            Stored::Already => panic!("nobody else puts this"),
        }
    }

    /// Another worker takes the authority and has one more write in its logbook.
    fn is_cut(&mut self, holder: &Sequencer, term: Term) {
        let sequence = holder.store().position().sequence + 1;
        let mut log = Prepared::make(&self.state, term, 9, sequence, 0, CURRENT).unwrap().begin(sequence);
        self.number += 1;
        let (number, length) = (self.number, 100);
        log.append(&[store_operation(&content(number, length)).encode(CURRENT).unwrap()]).unwrap();
        log.sync().unwrap();
        self.mark(Mark::Acknowledged { number, length, sequence });
    }

    fn commit(&self, generation: Generation) {
        self.mark(Mark::Committing(generation));
        self.mark(Mark::Committed(generation));
    }

    async fn level(&self, follower: &Follower, holder: &Sequencer) {
        let sequence = holder.status().borrow().position.sequence;
        follower.nudge();
        assert_eq!(follower.finish_at(sequence).await.unwrap().refused, 0);
    }

    fn candidate(
        &self,
        generation: Generation,
        layout: Layout,
        from: Generation,
        opened: &Opened,
    ) -> Sequencer {
        let mut writer = Writer::create(&self.state, generation, layout, self.options).unwrap();
        let mut ingest = writer.ingest().unwrap();
        for entry in opened.snapshot.entries() {
            ingest.push(&entry.unwrap(), from).unwrap();
        }
        ingest.finish(opened.snapshot.position()).unwrap();
        Sequencer::start(writer, Start::Following).unwrap().0
    }
}

/// From the first start to the end of an upgrade and a bit beyond.
async fn live(lab: &Lab, ending: Ending, options: StoreOptions) -> Recording<Mark> {
    let recorder = Recorder::install(&lab.root, &lab.copies);
    let mut life = Life { state: state_in(&lab.root), options, recorder, number: 0 };
    // The first start.
    let writer = first_start(&life.state, options);
    life.mark(Mark::Reserved(1));
    life.commit(1);
    let old = Sequencer::start(writer, Start::Holding { term: 1 }).unwrap().0;
    life.puts(&old).await;
    // A standby that came to nothing left a logbook of this term behind.
    old.open_logbook(CURRENT).await.unwrap();
    life.put(&old, 50).await;
    old.drop_logbook().await.unwrap();
    // The candidate is filled and follows.
    let opened = old.open_logbook(CURRENT).await.unwrap();
    life.puts(&old).await;
    let new = life.candidate(2, Layout::ByKind, 1, &opened);
    let (follower, _events) = Follower::start(new.clone(), 1).unwrap();
    life.level(&follower, &old).await;
    life.puts(&old).await;
    life.level(&follower, &old).await;
    // The cut.
    life.mark(Mark::Reserved(3));
    let floor = new.store().position().sequence + 1;
    // So little is reserved that the logbook needs a second segment.
    let prepared = Prepared::make(&life.state, 2, 2, floor, 700, CURRENT).unwrap();
    life.put(&old, 60).await;
    let frozen = old.freeze().await.unwrap();
    assert_eq!(follower.finish_at(frozen.sequence).await.unwrap().refused, 0);
    new.take(prepared, frozen.sequence).await.unwrap();
    // Probation: at first nobody follows, then the old one does.
    life.puts(&new).await;
    let (back, _events) = Follower::start(old.clone(), 2).unwrap();
    life.level(&back, &new).await;
    life.puts(&new).await;
    let holder = match ending {
        Ending::Commit => {
            new.persist().await.unwrap();
            life.put(&new, 70).await;
            life.commit(2);
            life.puts(&new).await;
            drop((back, old));
            new.remove(vec![1], vec![1]).await.unwrap();
            life.puts(&new).await;
            new.end_logbook().await.unwrap();
            life.mark(Mark::Ended);
            life.put(&new, 80).await;
            new
        }
        Ending::Death => {
            drop((follower, new));
            back.finish().await.unwrap();
            old.resume(3).await.unwrap();
            life.put(&old, 70).await;
            old.remove(vec![1], vec![2]).await.unwrap();
            old
        }
        Ending::Return => {
            life.level(&back, &new).await;
            old.persist().await.unwrap();
            let frozen = new.freeze().await.unwrap();
            assert_eq!(back.finish_at(frozen.sequence).await.unwrap().refused, 0);
            old.resume(3).await.unwrap();
            life.puts(&old).await;
            drop((follower, new));
            old.remove(vec![1], vec![2]).await.unwrap();
            old
        }
    };
    holder.remove(vec![2], vec![]).await.unwrap();
    life.puts(&holder).await;
    holder.stop().await.unwrap();
    drop(holder);
    life.recorder.finish()
}

/// The first start of a node, also when an earlier one was cut off.
fn first_start(state: &StateDir, options: StoreOptions) -> Writer {
    create_dirs(state.path()).unwrap();
    identity::make(state.path()).unwrap();
    match Writer::create(state, 1, Layout::ByName, options) {
        Ok(writer) => writer,
        Err(StoreError::Exists { .. }) => {
            let (writer, recovered) = recover(state, 1, options).unwrap();
            assert_eq!(recovered.position.sequence, 0);
            writer
        }
        Err(error) => panic!("{error}"),
    }
}

/// Which generations the supervisor's record may name; none: there is no record.
fn committed(marks: &[&Mark]) -> Vec<Option<Generation>> {
    let mut named = vec![None];
    for mark in marks {
        match mark {
            Mark::Committing(generation) => named.push(Some(*generation)),
            Mark::Committed(generation) => named = vec![Some(*generation)],
            Mark::Acknowledged { .. } | Mark::Reserved(_) | Mark::Recovered | Mark::Ended => {}
        }
    }
    named
}

/// One state of the disk.
struct Image<'a> {
    marks: Vec<&'a Mark>,
    options: StoreOptions,
    /// Whether all that was acknowledged has to be there.
    whole: bool,
}

impl Image<'_> {
    /// What a start owes. `root` is used up.
    fn obeys(&self, root: &Path, generation: Option<Generation>) {
        let state = state_in(root);
        let writer = match generation {
            None => first_start(&state, self.options),
            Some(generation) => {
                identity::read(state.path()).unwrap();
                let (writer, recovered) = recover(&state, generation, self.options).unwrap();
                // A power loss is no damage, and nothing that we wrote is refused.
                if self.whole {
                    assert_eq!(recovered.damage, []);
                    assert_eq!(recovered.refused, []);
                }
                assert!(recovered.highest_term <= self.reserved(), "a term that nobody was given");
                self.serves(&writer);
                drop(writer);
                // What was recovered needs no logbook and no other generation any more.
                for term in recovered.logs {
                    state.remove_log(term).unwrap();
                }
                for other in recovered.generations.into_iter().filter(|other| *other != generation) {
                    state.remove_generation(other, generation).unwrap();
                }
                let (writer, again) = recover(&state, generation, self.options).unwrap();
                assert_eq!((again.replayed, again.position), (0, recovered.position));
                writer
            }
        };
        self.serves(&writer);
        self.goes_on(writer);
    }

    fn reserved(&self) -> Term {
        self.marks.iter().map(|mark| mark.reserved()).max().unwrap_or(0)
    }

    /// Everything acknowledged is there, byte for byte.
    fn serves(&self, writer: &Writer) {
        let store = writer.store();
        for mark in &self.marks {
            let Mark::Acknowledged { number, length, sequence } = **mark else { continue };
            let content = content(number, length);
            match store.get(content.name()) {
                Ok(Some(bytes)) => assert_eq!(bytes, content.bytes()),
                // Without syncs it may be lost; it is never something else.
                Ok(None) | Err(_) if !self.whole => continue,
                Ok(None) => panic!("{number} was acknowledged as {sequence} and is gone"),
                Err(error) => panic!("{number} was acknowledged as {sequence}: {error}"),
            }
            if self.whole {
                assert!(store.position().sequence >= sequence, "sequence {sequence} would be used again");
            }
        }
    }

    /// The next term begins, and the next upgrade can: there is nothing in the way of its logbook.
    fn goes_on(&self, writer: Writer) {
        let term = self.reserved() + 1;
        let sequencer = Sequencer::start(writer, Start::Holding { term }).unwrap().0;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let new = content(1 << 40, 30);
            let Stored::New { sequence } = sequencer.put(&new).await.unwrap() else { panic!("it is new") };
            Prepared::make(sequencer.store().state(), term + 1, 9, sequence + 1, 0, CURRENT).unwrap();
            assert_eq!(sequencer.store().get(new.name()).unwrap().as_deref(), Some(new.bytes()));
        });
    }
}

/// Starts from each of these. Fails with the story of the first that does not obey.
fn start_from(lab: &Lab, life: &Recording<Mark>, crashes: &[Crash], options: StoreOptions, whole: bool) {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(crash) = crashes.get(next.fetch_add(1, Ordering::Relaxed)) {
            let marks: Vec<&Mark> = life.marks(crash).collect();
            for generation in committed(&marks) {
                let folder = tempfile::tempdir_in(&lab.images).unwrap();
                let root = folder.path().join("root");
                life.write(crash, &root).unwrap();
                let image = Image { marks: marks.clone(), options, whole };
                let obeyed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    image.obeys(&root, generation);
                }));
                if let Err(cause) = obeyed {
                    eprintln!("generation {generation:?} was started\n{}", life.explain(crash));
                    std::panic::resume_unwind(cause);
                }
            }
        }
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..2).map(|_| scope.spawn(work)).collect();
        work();
        for other in others {
            other.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause));
        }
    });
}

/// Images beside those that are always looked at. More: `BUMPLESS_POWER_IMAGES`.
fn others() -> usize {
    std::env::var("BUMPLESS_POWER_IMAGES").ok().and_then(|count| count.parse().ok()).unwrap_or(300)
}

fn phase(marks: &[&Mark]) -> u64 {
    marks.iter().filter(|mark| matches!(mark, Mark::Committing(_) | Mark::Committed(_))).count() as u64
}

/// Lives in a runtime of its own.
fn record(lab: &Lab, ending: Ending, options: StoreOptions) -> Recording<Mark> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    runtime.block_on(live(lab, ending, options))
}

fn survives(ending: Ending) {
    let lab = lab();
    let life = record(&lab, ending, OPTIONS);
    let crashes = life.crashes(0, others(), 7, phase);
    eprintln!("{ending:?}: {} steps, {} states of the disk", life.steps(), crashes.len());
    start_from(&lab, &life, &crashes, OPTIONS, true);
}

/// Where a start was possible, it was from what was not only written: everything died, a start took
/// over, and then the power failed.
fn survives_a_start(ending: Ending) {
    let lab = lab();
    let life = record(&lab, ending, OPTIONS);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut count = 0;
    // Where nothing is owed a kill is as good as a power loss.
    for after in (0..=life.steps()).filter(|after| life.owes(*after)) {
        let folder = tempfile::tempdir_in(&lab.images).unwrap();
        let [root, copies, image] = ["root", "copies", "image"].map(|name| folder.path().join(name));
        fs::create_dir(&copies).unwrap();
        let killed = life.killed(after);
        let marks: Vec<&Mark> = life.marks(&killed).collect();
        let Some(generation) = committed(&marks).pop() else { panic!("at least one") };
        let recorder = life.go_on(after, &root, &copies).unwrap();
        let state = state_in(&root);
        let writer = match generation {
            None => first_start(&state, OPTIONS),
            Some(generation) => recover(&state, generation, OPTIONS).unwrap().0,
        };
        let term = marks.iter().map(|mark| mark.reserved()).max().unwrap_or(0) + 1;
        recorder.mark(Mark::Reserved(term + 1));
        recorder.mark(Mark::Committed(generation.unwrap_or(1)));
        recorder.mark(Mark::Recovered);
        let sequencer = Sequencer::start(writer, Start::Holding { term }).unwrap().0;
        let mut life = Life { state, options: OPTIONS, recorder, number: 1 << 32 };
        runtime.block_on(life.put(&sequencer, 5000));
        life.is_cut(&sequencer, term + 1);
        let again = life.recorder.finish();
        drop(sequencer);
        // What was recovered needs no logbook any more; what came then does.
        let recovered = again.words().position(|step| step == "mark Recovered").unwrap() + 1;
        for (place, logbooks) in [(recovered, false), (again.steps(), true)] {
            let crash = again.durable(place);
            again.write(&crash, &image).unwrap();
            if !logbooks {
                let _ = fs::remove_dir_all(state_in(&image).logs());
            }
            let marks = again.marks(&crash).collect();
            let obeys =
                || Image { marks, options: OPTIONS, whole: true }.obeys(&image, generation.or(Some(1)));
            if let Err(cause) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(obeys)) {
                eprintln!("everything died after step {after}\n{}", again.explain(&crash));
                std::panic::resume_unwind(cause);
            }
            fs::remove_dir_all(&image).unwrap();
        }
        count += 1;
    }
    eprintln!("{ending:?}: {count} starts");
}

#[test]
fn what_a_start_found_after_a_kill_survives_a_power_loss_from_then_on() {
    thread::scope(|scope| {
        let other = scope.spawn(|| survives_a_start(Ending::Commit));
        survives_a_start(Ending::Death);
        other.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause));
    });
}

#[test]
fn whenever_the_power_fails_in_an_upgrade_that_is_committed_a_start_has_every_acknowledged_write() {
    survives(Ending::Commit);
}

#[test]
fn whenever_the_power_fails_around_the_new_workers_death_a_start_has_every_acknowledged_write() {
    survives(Ending::Death);
}

#[test]
fn whenever_the_power_fails_while_the_authority_goes_back_a_start_has_every_acknowledged_write() {
    survives(Ending::Return);
}

#[test]
fn without_syncs_a_kill_loses_nothing_and_a_power_loss_leaves_a_node_that_starts_and_serves_nothing_wrong() {
    const OPTIONS: StoreOptions = StoreOptions { durability: Durability::Os, keep_free: 0, version: CURRENT };
    let lab = lab();
    let life = record(&lab, Ending::Commit, OPTIONS);
    let killed: Vec<Crash> = (0..=life.steps()).map(|after| life.killed(after)).collect();
    start_from(&lab, &life, &killed, OPTIONS, true);
    let crashes = life.crashes(0, others(), 7, phase);
    eprintln!("without syncs: {} steps, {} states of the disk", life.steps(), crashes.len());
    start_from(&lab, &life, &crashes, OPTIONS, false);
}

#[test]
fn nothing_goes_before_the_committed_generation_has_durably_what_was_acknowledged_from_it() {
    let [first, second] = ["rename state/log/1 to", "rename state/log/2 to"];
    let going = [first, "remove state/gen-1/generation", "mark Ended", second];
    let back = [first, "remove state/gen-2/generation", second];
    let endings: [(Ending, &[&str]); 3] =
        [(Ending::Commit, &going), (Ending::Death, &back), (Ending::Return, &back)];
    for (ending, removals) in endings {
        let lab = lab();
        let life = record(&lab, ending, OPTIONS);
        let (mut committed, mut begun, mut mark) = (0, 0, 0);
        let mut durable = [0; 3];
        let mut removed = Vec::new();
        for (place, step) in life.words().enumerate() {
            if let Some(number) = step.strip_prefix("mark Committed(") {
                committed = number.trim_end_matches(')').parse().unwrap();
            }
            for generation in [1, 2] {
                if step == format!("state/gen-{generation}/db is Durable") {
                    durable[generation] = place;
                }
            }
            if step.starts_with("mark ") {
                // The write that is acknowledged here began behind the mark before this one.
                begun = if step.starts_with("mark Acknowledged") { mark } else { begun };
                mark = place;
            }
            if let Some(removal) = removals.iter().find(|removal| step.starts_with(**removal)) {
                let story = life.words().take(place + 1).skip(place.saturating_sub(20)).collect::<Vec<_>>();
                assert!(durable[committed] > begun, "{ending:?}: {story:#?}");
                removed.push(*removal);
            }
        }
        // The first one: what a standby that came to nothing had left behind.
        assert_eq!(removed, [&[first], removals].concat());
    }
}

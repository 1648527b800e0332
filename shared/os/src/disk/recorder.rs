//! Power loss, made.
//!
//! ```text
//! Recorder::install(folder) ── the product runs in it, marks are put ──▶ finish ▶ Recording
//!                                                                              │ crashes
//!      what a start makes of it  ◀── write_to(another folder) ── Crash ◀───────┘
//! ```
//!
//! Every step through [`disk`](super) below the folder is noted in its order; bytes and names are durable
//! or not by the table there. A [`Crash`] is the disk after some first steps, of which those that were
//! not durable had one of these fates:
//!
//! - none reached the disk; all did; all but one did; only one did
//! - one write was torn, or only its length reached the disk, beside all or none of the others. It is
//!   torn in the middle; where later writes to the file reached the disk, it is torn where two sectors
//!   meet, because a disk writes a sector whole
//! - some did and some did not, by a seed
//!
//! Names change atomically one by one, and any order among those of one directory is taken to be
//! possible: this is more than file systems do.
//!
//! Files of another library ([`foreign`](super::foreign)) are copied whole, as they are then: its promise
//! about what is durable is taken as given.
//!
//! What is written past the recorder would not be found missing, so [`Recorder::finish`] holds the
//! folder against what was noted.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is part of tests")]

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Seek};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::image;
use super::model::{Fate, Ino, Log, Node, Op, ROOT};
use super::{Foreign, Kind, Step, Synced};

/// How many recorders there are: what everyone else pays for them.
static INSTALLED: AtomicUsize = AtomicUsize::new(0);
static RECORDERS: RwLock<Vec<Arc<Shared>>> = RwLock::new(Vec::new());

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    copies: PathBuf,
    log: Mutex<Log>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn below<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.root).unwrap_or(Path::new(""))
    }
}

/// The recorder of an open file and which file it is; nothing where nobody records.
#[derive(Debug)]
pub(super) struct Trace(Option<(Arc<Shared>, Ino)>);

fn recorder_of(path: &Path) -> Option<Arc<Shared>> {
    if INSTALLED.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let recorders = RECORDERS.read().unwrap_or_else(PoisonError::into_inner);
    recorders.iter().find(|shared| path.starts_with(&shared.root)).cloned()
}

impl Trace {
    pub(super) fn of(path: &Path) -> Trace {
        let Some(shared) = recorder_of(path) else { return Trace(None) };
        let mut log = shared.lock();
        let found = log.find(shared.below(path));
        if found.is_none() {
            log.strange.push(format!("{} was opened and never made", path.display()));
        }
        drop(log);
        Trace(found.map(|ino| (shared, ino)))
    }

    pub(super) fn unnamed(dir: &Path, mode: u32) -> Trace {
        let Some(shared) = recorder_of(dir) else { return Trace(None) };
        let ino = shared.lock().node(Node::File { mode });
        Trace(Some((shared, ino)))
    }
}

/// Acts, and notes what was done, as one: the order of the steps is the order of the notes.
pub(super) fn around<T>(step: Step<'_>, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let shared = match &step {
        Step::Make { path, .. }
        | Step::Link { to: path, .. }
        | Step::Rename { to: path, .. }
        | Step::Remove { path }
        | Step::SyncDir { path }
        | Step::Foreign { path, .. } => recorder_of(path),
        Step::Name { file, .. }
        | Step::Empty { file }
        | Step::Write { file, .. }
        | Step::Mode { file, .. }
        | Step::Sync { file, .. } => file.0.as_ref().map(|(shared, _)| shared.clone()),
    };
    let Some(shared) = shared else { return act() };
    let mut log = shared.lock();
    let done = act()?;
    if let Err(path) = note(&mut log, &shared, &step) {
        log.strange.push(format!("{} was changed past the recorder", path.display()));
    }
    Ok(done)
}

pub(super) fn written(
    trace: &Trace,
    mut file: &fs::File,
    bytes: &[u8],
    act: impl FnOnce() -> io::Result<usize>,
) -> io::Result<usize> {
    if trace.0.is_none() {
        return act();
    }
    let flags = nix::fcntl::fcntl(file, nix::fcntl::FcntlArg::F_GETFL)?;
    let appends = nix::fcntl::OFlag::from_bits_truncate(flags).contains(nix::fcntl::OFlag::O_APPEND);
    let at = if appends { file.metadata()?.len() } else { file.stream_position()? };
    // All of it or an error, so that what is noted is what was done.
    let step = Step::Write { file: trace, at, bytes };
    around(step, || {
        let count = act()?;
        if count == bytes.len() { Ok(count) } else { Err(io::Error::other("a short write")) }
    })
}

/// Name by name, so that each of them can be the last.
pub(super) fn remove_dir_all(path: &Path) -> io::Result<()> {
    let Some(shared) = recorder_of(path) else { return fs::remove_dir_all(path) };
    let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let ino = shared.lock().find(shared.below(&path));
        let node = ino.map(|ino| shared.lock().nodes[ino].clone());
        match node {
            Some(Node::Foreign) => around(Step::Remove { path: &path }, || fs::remove_dir_all(&path))?,
            Some(Node::Directory) => remove_dir_all(&path)?,
            Some(Node::File { .. } | Node::Symlink { .. }) | None => super::remove_file(&path)?,
        }
    }
    around(Step::Remove { path }, || fs::remove_dir(path))
}

pub(super) fn foreign(path: &Path, state: Foreign) {
    around(Step::Foreign { path, state }, || Ok(())).expect("nothing was done that can fail");
}

/// Notes a step; the path that the recorder does not know is the error.
fn note(log: &mut Log, shared: &Shared, step: &Step<'_>) -> Result<(), PathBuf> {
    let below = |path: &Path| shared.below(path).to_owned();
    let show = |path: &Path| below(path).display().to_string();
    let place = |log: &Log, path: &Path| {
        let (dir, name) = log.place(shared.below(path)).ok_or_else(|| path.to_owned())?;
        Ok::<_, PathBuf>((dir, name.to_owned()))
    };
    let find = |log: &Log, path: &Path| log.find(&below(path)).ok_or_else(|| path.to_owned());
    let ino_of = |trace: &Trace| trace.0.as_ref().map(|(_, ino)| *ino).unwrap_or(ROOT);
    let (op, says) = match step {
        Step::Make { path, kind } => {
            let (dir, name) = place(log, path)?;
            let (node, what) = match kind {
                Kind::File { mode } => (Node::File { mode: *mode }, "file"),
                Kind::Directory => (Node::Directory, "directory"),
                Kind::Symlink { target } => (Node::Symlink { target: (*target).to_owned() }, "link"),
            };
            let ino = log.node(node);
            (Op::Name { dir, name, ino }, format!("make {what} {} ({ino})", show(path)))
        }
        Step::Link { from, to } => {
            let (ino, (dir, name)) = (find(log, from)?, place(log, to)?);
            (Op::Name { dir, name, ino }, format!("link {} as {}", show(from), show(to)))
        }
        Step::Name { file, path } => {
            let (dir, name) = place(log, path)?;
            (Op::Name { dir, name, ino: ino_of(file) }, format!("name {} {}", ino_of(file), show(path)))
        }
        Step::Rename { from, to } => {
            let ino = find(log, from)?;
            let op = Op::Rename { from: place(log, from)?, to: place(log, to)?, ino };
            (op, format!("rename {} to {}", show(from), show(to)))
        }
        Step::Remove { path } => {
            find(log, path)?;
            let (dir, name) = place(log, path)?;
            (Op::Unname { dir, name }, format!("remove {}", show(path)))
        }
        Step::Empty { file } => (Op::Empty { ino: ino_of(file) }, format!("empty {}", ino_of(file))),
        Step::Write { file, at, bytes } => {
            let (ino, at, bytes) = (ino_of(file), *at, bytes.to_vec());
            let says = format!("write {} bytes at {at} to {ino}", bytes.len());
            (Op::Write { ino, at, bytes }, says)
        }
        Step::Mode { file, mode } => {
            let (ino, mode) = (ino_of(file), *mode);
            (Op::Mode { ino, mode }, format!("set the mode of {ino} to {mode:o}"))
        }
        Step::Sync { file, what } => {
            (Op::Sync { ino: ino_of(file), what: *what }, format!("sync {}", ino_of(file)))
        }
        Step::SyncDir { path } => {
            (Op::Sync { ino: find(log, path)?, what: Synced::All }, format!("sync directory {}", show(path)))
        }
        Step::Foreign { path, state } => {
            let ino = match log.find(&below(path)) {
                Some(ino) => ino,
                None => {
                    let (dir, name) = place(log, path)?;
                    let ino = log.node(Node::Foreign);
                    log.push(Op::Name { dir, name, ino }, format!("make {}", show(path)));
                    ino
                }
            };
            let copy = shared.copies.join(log.ops.len().to_string());
            image::copy_at_rest(path, &copy).expect("the other library's files can be copied");
            (Op::Foreign { ino, copy, state: *state }, format!("{} is {state:?}", show(path)))
        }
    };
    log.push(op, says);
    Ok(())
}

/// Notes everything that happens below one folder, until it is finished or dropped. `M`: what a mark
/// says.
#[derive(Debug)]
pub struct Recorder<M> {
    shared: Arc<Shared>,
    marks: Mutex<Vec<(usize, M)>>,
}

impl<M: Clone + Debug> Recorder<M> {
    /// Begins, below an empty folder. Copies of what other libraries keep go to `copies`, which must be
    /// there for as long as the recording is used.
    pub fn install(root: &Path, copies: &Path) -> Recorder<M> {
        assert_eq!(
            fs::read_dir(root).expect("the folder is there").count(),
            0,
            "{} is empty",
            root.display()
        );
        Recorder::begin(root, copies, Log::new(), Vec::new())
    }

    fn begin(root: &Path, copies: &Path, log: Log, marks: Vec<(usize, M)>) -> Recorder<M> {
        let shared =
            Arc::new(Shared { root: root.to_owned(), copies: copies.to_owned(), log: Mutex::new(log) });
        RECORDERS.write().unwrap_or_else(PoisonError::into_inner).push(shared.clone());
        INSTALLED.fetch_add(1, Ordering::Relaxed);
        Recorder { shared, marks: Mutex::new(marks) }
    }

    /// Something became true here: a write was acknowledged, an order was answered.
    pub fn mark(&self, mark: M) {
        let mut log = self.shared.lock();
        log.push(Op::Mark, format!("mark {mark:?}"));
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).push((log.ops.len(), mark));
    }

    /// Ends it.
    ///
    /// # Panics
    /// The folder is not as recorded: something was written past [`disk`](super).
    pub fn finish(self) -> Recording<M> {
        let log = self.shared.lock().clone();
        let mut found = log.strange.clone();
        image::differences(&log, ROOT, &self.shared.root, &mut found).expect("the folder can be read");
        assert!(found.is_empty(), "written past the recorder: {found:#?}");
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Recording { log, marks }
    }
}

impl<M> Drop for Recorder<M> {
    fn drop(&mut self) {
        INSTALLED.fetch_sub(1, Ordering::Relaxed);
        RECORDERS
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|shared| !Arc::ptr_eq(shared, &self.shared));
    }
}

/// Everything that happened.
#[derive(Clone, Debug)]
pub struct Recording<M> {
    log: Log,
    /// After how many steps each mark stands.
    marks: Vec<(usize, M)>,
}

/// A state of the disk after a power loss.
#[derive(Clone, Debug)]
pub struct Crash {
    after: usize,
    fates: BTreeMap<usize, Fate>,
}

impl Crash {
    /// After how many steps the power failed.
    pub fn after(&self) -> usize {
        self.after
    }
}

impl<M> Recording<M> {
    /// Steps, marks included.
    pub fn steps(&self) -> usize {
        self.log.ops.len()
    }

    /// What was true when the power failed, oldest first.
    pub fn marks(&self, crash: &Crash) -> impl DoubleEndedIterator<Item = &M> {
        self.before(crash.after)
    }

    fn before(&self, after: usize) -> impl DoubleEndedIterator<Item = &M> {
        self.marks.iter().filter(move |(place, _)| *place <= after).map(|(_, mark)| mark)
    }

    /// What happened shortly before, and what was lost of it, for people.
    pub fn explain(&self, crash: &Crash) -> String {
        let mut lines = vec![format!("the power failed after step {}:", crash.after)];
        let first =
            crash.fates.keys().next().copied().unwrap_or(crash.after).min(crash.after.saturating_sub(25));
        for (index, (_, says)) in self.log.ops.iter().enumerate().take(crash.after).skip(first) {
            let fate = match crash.fates.get(&index) {
                None | Some(Fate::Whole) => "",
                Some(Fate::Dropped) => "  LOST",
                Some(Fate::Torn { .. }) => "  TORN",
                Some(Fate::Zeroed) => "  ZEROS",
            };
            lines.push(format!("{:5}  {says}{fate}", index + 1));
        }
        lines.join("\n")
    }

    /// The steps in words, for a test of their order.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.log.ops.iter().map(|(_, says)| says.as_str())
    }

    /// Makes the state of the disk at `root`, which must not be there yet.
    ///
    /// # Errors
    /// Those of writing it.
    pub fn write(&self, crash: &Crash, root: &Path) -> io::Result<()> {
        image::write(&self.log, &self.log.tree(crash.after, &crash.fates), root)
    }

    /// Nothing was lost after so many steps: everything died, and the power stayed.
    pub fn killed(&self, after: usize) -> Crash {
        Crash { after, fates: BTreeMap::new() }
    }

    /// Nothing that was not durable after so many steps is there.
    pub fn durable(&self, after: usize) -> Crash {
        Crash {
            after,
            fates: self.log.pending(after).into_iter().map(|index| (index, Fate::Dropped)).collect(),
        }
    }

    /// Whether a power loss after so many steps could undo any of them.
    pub fn owes(&self, after: usize) -> bool {
        !self.log.pending(after).is_empty()
    }

    /// Goes on at `root`, which must not be there yet, after everything died and the power stayed: all
    /// that was written is there, and what was not durable still is not.
    ///
    /// # Errors
    /// Those of writing it.
    pub fn go_on(&self, after: usize, root: &Path, copies: &Path) -> io::Result<Recorder<M>>
    where
        M: Clone + Debug,
    {
        self.write(&self.killed(after), root)?;
        let marks = self.marks.iter().take_while(|(place, _)| *place <= after).cloned().collect();
        Ok(Recorder::begin(root, copies, self.log.prefix(after), marks))
    }

    /// States of the disk after a power loss behind step `from` or later, each once: for each number of
    /// steps the durable and the written ones, and of the others (see the module) `others` by the seed.
    /// Of states that are the same on disk the latest counts, because most is expected of it, as long
    /// as `phase` (of the marks so far) is the same.
    pub fn crashes(&self, from: usize, others: usize, seed: u64, phase: impl Fn(&[&M]) -> u64) -> Vec<Crash> {
        let (mut always, mut sometimes) = (Vec::new(), Vec::new());
        let mut random = Random(seed);
        for after in from..=self.log.ops.len() {
            let pending = self.log.pending(after);
            let fated = |fate: &dyn Fn(usize) -> Fate| Crash {
                after,
                fates: pending.iter().map(|index| (*index, fate(*index))).collect(),
            };
            always.push(fated(&|_| Fate::Dropped));
            always.push(fated(&|_| Fate::Whole));
            for this in &pending {
                let alone = |one: Fate, rest: Fate| fated(&|index| if index == *this { one } else { rest });
                sometimes.push(alone(Fate::Dropped, Fate::Whole));
                sometimes.push(alone(Fate::Whole, Fate::Dropped));
                if let Op::Write { ino, at, bytes } = &self.log.ops[*this].0 {
                    let middle = bytes.len() / 2;
                    let later = &self.log.ops[*this + 1..after];
                    let last = !later
                        .iter()
                        .any(|(op, _)| matches!(op, Op::Write { ino: other, .. } if other == ino));
                    let beside = if last { Some(middle) } else { sector(*at, bytes.len()) };
                    sometimes.push(alone(Fate::Torn { kept: middle }, Fate::Dropped));
                    sometimes.extend(beside.map(|kept| alone(Fate::Torn { kept }, Fate::Whole)));
                    sometimes.push(alone(Fate::Zeroed, Fate::Whole));
                    sometimes.push(alone(Fate::Zeroed, Fate::Dropped));
                }
            }
            if pending.len() > 2 {
                let some: BTreeMap<usize, Fate> = pending
                    .iter()
                    .map(|index| (*index, if random.below(2) == 0 { Fate::Dropped } else { Fate::Whole }))
                    .collect();
                sometimes.push(Crash { after, fates: some });
            }
        }
        for place in (1..sometimes.len()).rev() {
            sometimes.swap(place, random.below(place + 1));
        }
        let mut known: HashMap<(u64, u64), Crash> = HashMap::new();
        let mut keep = |crash: Crash, most: usize| {
            let mut hash = DefaultHasher::new();
            self.log.tree(crash.after, &crash.fates).fingerprint(ROOT, &mut hash);
            let phase = phase(&self.before(crash.after).collect::<Vec<_>>());
            let full = known.len() >= most;
            match known.entry((phase, hash.finish())) {
                std::collections::hash_map::Entry::Occupied(mut entry) => {
                    if entry.get().after < crash.after {
                        entry.insert(crash);
                    }
                }
                std::collections::hash_map::Entry::Vacant(entry) if !full => {
                    entry.insert(crash);
                }
                std::collections::hash_map::Entry::Vacant(_) => {}
            }
            known.len()
        };
        let mut count = 0;
        for crash in always {
            count = keep(crash, usize::MAX);
        }
        let most = count + others;
        for crash in sometimes {
            keep(crash, most);
        }
        let mut crashes: Vec<Crash> = known.into_values().collect();
        crashes.sort_by_key(|crash| crash.after);
        crashes
    }
}

/// How many bytes of a write go before the place nearest to its middle where two sectors meet.
fn sector(at: u64, length: usize) -> Option<usize> {
    const SECTOR: u64 = 512;
    let middle = at + length as u64 / 2;
    let below = middle / SECTOR * SECTOR;
    let meets =
        [below, below + SECTOR].into_iter().filter(|place| *place > at && *place < at + length as u64);
    meets.min_by_key(|place| place.abs_diff(middle)).map(|place| (place - at) as usize)
}

/// A sequence of numbers that is the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % end.max(1) as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::super::{File, create_dir, hard_link, remove_dir_all, remove_file, rename, sync_dir};
    use super::*;
    use std::collections::BTreeSet;
    use std::io::Write;

    struct Lab {
        _dir: tempfile::TempDir,
        root: PathBuf,
        images: PathBuf,
        recorder: Recorder<u32>,
    }

    fn lab() -> Lab {
        let dir = tempfile::tempdir().unwrap();
        let [root, copies, images] = ["root", "copies", "images"].map(|name| dir.path().join(name));
        for path in [&root, &copies, &images] {
            fs::create_dir(path).unwrap();
        }
        let recorder = Recorder::install(&root, &copies);
        Lab { _dir: dir, root, images, recorder }
    }

    fn put(path: &Path, bytes: &[u8]) -> File {
        let mut file = File::create_new(path, 0o644).unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    /// What all images have under a name after the last step, as text; `-` where there is none.
    fn states(recorder: Recorder<u32>, images: &Path, name: &str) -> BTreeSet<String> {
        let recording = recorder.finish();
        let crashes = recording.crashes(recording.steps(), 1000, 1, |_| 0);
        let read = |(place, crash): (usize, &Crash)| {
            let root = images.join(place.to_string());
            recording.write(crash, &root).unwrap();
            fs::read(root.join(name)).map_or("-".to_owned(), |bytes| bytes.escape_ascii().to_string())
        };
        crashes.iter().enumerate().map(read).collect()
    }

    fn set(states: &[&str]) -> BTreeSet<String> {
        states.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn bytes_need_the_sync_of_their_file_and_a_name_that_of_its_directory() {
        let Lab { root, images, recorder, _dir } = lab();
        put(&root.join("a"), b"abcd");
        assert_eq!(states(recorder, &images, "a"), set(&["-", "", "ab", r"\x00\x00\x00\x00", "abcd"]));

        let Lab { root, images, recorder, _dir } = lab();
        put(&root.join("a"), b"abcd").sync_data().unwrap();
        assert_eq!(states(recorder, &images, "a"), set(&["-", "abcd"]));

        let Lab { root, images, recorder, _dir } = lab();
        put(&root.join("a"), b"abcd");
        sync_dir(&root).unwrap();
        assert_eq!(states(recorder, &images, "a"), set(&["", "ab", r"\x00\x00\x00\x00", "abcd"]));

        let Lab { root, images, recorder, _dir } = lab();
        let file = put(&root.join("a"), b"abcd");
        file.sync_data().unwrap();
        sync_dir(&root).unwrap();
        file.write_all_at(b"ef", 4).unwrap();
        assert_eq!(states(recorder, &images, "a"), set(&["abcd", "abcde", r"abcd\x00\x00", "abcdef"]));
    }

    #[test]
    fn a_sync_covers_what_was_written_before_it_and_nothing_later() {
        let Lab { root, images, recorder, _dir } = lab();
        let file = put(&root.join("a"), b"ab");
        sync_dir(&root).unwrap();
        file.sync_data().unwrap();
        file.write_all_at(b"yz", 0).unwrap();
        assert_eq!(states(recorder, &images, "a"), set(&["ab", "yb", "yz", r"\x00\x00"]));
    }

    #[test]
    fn a_rename_is_there_or_not_and_takes_the_bytes_as_they_are() {
        let Lab { root, images, recorder, _dir } = lab();
        put(&root.join("a"), b"old").sync_all().unwrap();
        sync_dir(&root).unwrap();
        put(&root.join("b"), b"new").sync_all().unwrap();
        rename(&root.join("b"), &root.join("a")).unwrap();
        assert_eq!(states(recorder, &images, "a"), set(&["old", "new"]));

        let Lab { root, images, recorder, _dir } = lab();
        put(&root.join("a"), b"old").sync_all().unwrap();
        sync_dir(&root).unwrap();
        put(&root.join("b"), b"xy");
        rename(&root.join("b"), &root.join("a")).unwrap();
        assert_eq!(states(recorder, &images, "a"), set(&["old", "", "x", r"\x00\x00", "xy"]));
    }

    #[test]
    fn a_directory_has_its_names_only_where_it_has_its_own() {
        let Lab { root, images, recorder, _dir } = lab();
        create_dir(&root.join("d")).unwrap();
        put(&root.join("d/a"), b"a").sync_all().unwrap();
        sync_dir(&root.join("d")).unwrap();
        assert_eq!(states(recorder, &images, "d/a"), set(&["-", "a"]));

        let Lab { root, images, recorder, _dir } = lab();
        create_dir(&root.join("d")).unwrap();
        put(&root.join("d/a"), b"a").sync_all().unwrap();
        sync_dir(&root.join("d")).unwrap();
        sync_dir(&root).unwrap();
        assert_eq!(states(recorder, &images, "d/a"), set(&["a"]));
    }

    #[test]
    fn links_share_their_bytes_and_removed_names_may_come_back() {
        let Lab { root, images, recorder, _dir } = lab();
        let file = put(&root.join("a"), b"a");
        hard_link(&root.join("a"), &root.join("b")).unwrap();
        file.sync_all().unwrap();
        sync_dir(&root).unwrap();
        remove_file(&root.join("a")).unwrap();
        assert_eq!(fs::read(root.join("b")).unwrap(), b"a");
        assert_eq!(states(recorder, &images, "a"), set(&["-", "a"]));
        assert_eq!(fs::read(images.join("0/b")).unwrap(), b"a");

        let Lab { root, images, recorder, _dir } = lab();
        create_dir(&root.join("d")).unwrap();
        for name in ["a", "b"] {
            put(&root.join("d").join(name), b"x").sync_all().unwrap();
        }
        sync_dir(&root.join("d")).unwrap();
        sync_dir(&root).unwrap();
        remove_dir_all(&root.join("d")).unwrap();
        assert_eq!(states(recorder, &images, "d/b"), set(&["-", "x"]));
    }

    #[test]
    fn what_another_library_keeps_is_as_it_was_last_durable_or_as_it_is() {
        let Lab { root, images, recorder, _dir } = lab();
        fs::create_dir(root.join("db")).unwrap();
        for (bytes, state) in [("1", Foreign::Durable), ("2", Foreign::Durable), ("3", Foreign::Written)] {
            fs::write(root.join("db/x"), bytes).unwrap();
            super::super::foreign(&root.join("db"), state);
            sync_dir(&root).unwrap();
        }
        assert_eq!(states(recorder, &images, "db/x"), set(&["2", "3"]));
    }

    #[test]
    fn a_start_after_a_kill_finds_everything_and_owes_the_syncs() {
        let Lab { root, images, recorder, _dir } = lab();
        put(&root.join("a"), b"a").sync_all().unwrap();
        recorder.mark(1);
        let recording = recorder.finish();
        for (synced, expected) in [(false, set(&["-", "a"])), (true, set(&["a"]))] {
            let [root, images] = ["again", "images"].map(|name| images.join(format!("{name}-{synced}")));
            let copies = images.join("copies");
            fs::create_dir_all(&copies).unwrap();
            let recorder = recording.go_on(recording.steps(), &root, &copies).unwrap();
            assert_eq!(fs::read(root.join("a")).unwrap(), b"a");
            if synced {
                sync_dir(&root).unwrap();
            }
            assert_eq!(states(recorder, &images, "a"), expected);
        }
    }

    #[test]
    fn marks_stand_where_they_were_put() {
        let Lab { root, recorder, _dir, .. } = lab();
        recorder.mark(1);
        put(&root.join("a"), b"a");
        recorder.mark(2);
        let recording = recorder.finish();
        let marks = |after| recording.marks(&recording.killed(after)).copied().collect::<Vec<_>>();
        assert_eq!((marks(0), marks(1), marks(3), marks(4)), (vec![], vec![1], vec![1], vec![1, 2]));
    }

    #[test]
    #[should_panic(expected = "written past the recorder")]
    fn what_is_written_past_the_recorder_is_found() {
        let Lab { root, recorder, _dir, .. } = lab();
        put(&root.join("a"), b"a");
        fs::write(root.join("a"), b"b").unwrap();
        recorder.finish();
    }

    #[test]
    fn nothing_is_noted_outside_of_the_folder_or_after_the_end() {
        let Lab { root, images, recorder, _dir } = lab();
        put(&images.join("a"), b"a");
        let recording = recorder.finish();
        assert_eq!(recording.steps(), 0);
        put(&root.join("a"), b"a");
    }
}

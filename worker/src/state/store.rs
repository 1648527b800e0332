//! One generation: a fjall database and its chunk files, in one directory.
//!
//! ```text
//! gen-<n>/generation    "bumpless generation 1\nlayout 2\n"; written last when a generation is made
//! gen-<n>/db/           keyspaces of the layout, and `meta` with the head
//! gen-<n>/chunks/       immutable files
//! ```
//!
//! There is one [`Writer`] and any number of [`Store`]s, which read. Every batch of rows carries the
//! **head** with it: the position (term and sequence) of the last operation in it, the totals, and
//! the **floor**, the highest sequence up to which everything here is known to be on the disk. A
//! batch that is synced is its own floor, because the database's journal is one file after the other.
//! A batch that is only buffered leaves the floor where it was: after a power loss the database may
//! hold a later head than rows (it writes its tables keyspace by keyspace). So whoever replays a
//! logbook starts at the floor, not at the position, and looks at what is there.
//!
//! Content is hashed on every read.

use std::fmt;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bumpless_os::disk::{self, Foreign};
use bumpless_shared::control::{Durability, Generation, Sequence, Term};
use bumpless_shared::digest::Digest;
use bumpless_shared::operation::Operation;
use fjall::{Database, Keyspace, PersistMode};

use super::append::append_id;
use super::chunks::{Check, ChunkError, Chunks, free_space};
use super::content::{Content, name_of};
use super::directory::{FileError, MARKER, StateDir, make_directory, remove_tree, sync_directory};
use super::ingest::Ingest;
use super::layout::{BadRow, Entry, Layout, RowError, Shelves, Tally, Value, options};
use super::snapshot::Snapshot;
use super::store_error::{ReadError, StoreError};

const MARKER_FORMAT: u32 = 1;

/// How far a state has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The term of the last operation, or a later one that began without any.
    pub term: Term,
    /// The last operation's number.
    pub sequence: Sequence,
}

/// How much a state holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Records in the database.
    pub records: u64,
    /// Bytes of their contents.
    pub record_bytes: u64,
    /// Chunk files.
    pub chunks: u64,
    /// Bytes in them.
    pub chunk_bytes: u64,
    /// Entries of logs.
    pub appends: u64,
    /// Bytes of their contents.
    pub append_bytes: u64,
}

/// Bytes that an append has in the database beside its content: two rows, with id, log, index and nonce.
const APPEND_ROWS: u64 = 192;

impl Totals {
    /// Names and entries of logs.
    pub fn entries(&self) -> u64 {
        self.records + self.chunks + self.appends
    }

    /// Bytes of content.
    pub fn bytes(&self) -> u64 {
        self.record_bytes + self.chunk_bytes + self.append_bytes
    }

    /// Bytes that another generation needs for itself: those of records and appends, not of chunk files,
    /// which are linked.
    pub fn copied(&self) -> u64 {
        self.record_bytes + self.append_bytes + self.appends * APPEND_ROWS
    }

    pub(super) fn count(&mut self, operation: &Operation) {
        match operation {
            Operation::Store { content, .. } => self.add(Tally::Record { length: content.len() }),
            Operation::Link { length, .. } => self.add(Tally::Chunk { length: *length }),
            Operation::Append { content, .. } => self.add(Tally::Append { length: content.len() }),
            Operation::Mark { .. } => {}
        }
    }

    pub(super) fn add(&mut self, tally: Tally) {
        match tally {
            Tally::Record { length } => {
                self.records += 1;
                self.record_bytes += length as u64;
            }
            Tally::Chunk { length } => {
                self.chunks += 1;
                self.chunk_bytes += u64::from(length);
            }
            Tally::Append { length } => {
                self.appends += 1;
                self.append_bytes += length as u64;
            }
            Tally::Counted => {}
        }
    }
}

/// What a generation is opened with.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// Whether acknowledged writes are synced.
    pub durability: Durability,
    /// Bytes of disk that writes leave free: room for the database to merge its tables, and for a
    /// logbook, on a disk that is otherwise full.
    pub keep_free: u64,
    /// The highest version of the logical state that this release knows.
    pub version: u16,
}

impl StoreOptions {
    /// 64 MiB: the database's journal (at most 64 MiB before it is replaced) is what grows first.
    pub const KEEP_FREE: u64 = 64 << 20;
}

/// Whether a batch is on the disk when it is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Commit {
    /// On the disk, if the durability setting asks for it.
    Synced,
    /// With the operating system; something else (a logbook) is the durable copy.
    Buffered,
}

/// What every batch carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) position: Position,
    pub(super) floor: Sequence,
    pub(super) totals: Totals,
}

const HEAD_KEY: &str = "head";

/// The head's format without appends; it is written as long as there are none.
const HEAD_FORMAT: u8 = 1;

/// The same, and the two numbers about appends.
const HEAD_WITH_APPENDS: u8 = 2;

impl Head {
    fn encode(&self) -> Vec<u8> {
        let Head { position, floor, totals } = self;
        let numbers = [
            position.term,
            position.sequence,
            *floor,
            totals.records,
            totals.record_bytes,
            totals.chunks,
            totals.chunk_bytes,
            totals.appends,
            totals.append_bytes,
        ];
        let (format, count) = match totals.appends {
            0 => (HEAD_FORMAT, 7),
            _ => (HEAD_WITH_APPENDS, 9),
        };
        let mut bytes = vec![format];
        numbers[..count].iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Head, BadRow> {
        let (&format, numbers) = bytes.split_first().ok_or(BadRow)?;
        let (numbers, []) = numbers.as_chunks::<8>() else {
            return Err(BadRow);
        };
        let (numbers, later) = match (format, numbers) {
            (HEAD_FORMAT, numbers) => (numbers, [[0; 8]; 2]),
            (HEAD_WITH_APPENDS, [numbers @ .., appends, bytes]) => (numbers, [*appends, *bytes]),
            _ => return Err(BadRow),
        };
        let &[term, sequence, floor, records, record_bytes, chunks, chunk_bytes] = numbers else {
            return Err(BadRow);
        };
        let [appends, append_bytes] = later.map(u64::from_le_bytes);
        let number = u64::from_le_bytes;
        Ok(Head {
            position: Position { term: number(term), sequence: number(sequence) },
            floor: number(floor),
            totals: Totals {
                records: number(records),
                record_bytes: number(record_bytes),
                chunks: number(chunks),
                chunk_bytes: number(chunk_bytes),
                appends,
                append_bytes,
            },
        })
    }
}

/// Most bytes of content in one [`LogPage`], each entry counted with four bytes more.
pub const PAGE_BYTES: usize = 256 << 10;

/// Most entries in one [`LogPage`].
pub const PAGE_ENTRIES: usize = 1024;

/// Some entries of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPage {
    /// How many entries the log has.
    pub length: u64,
    /// Contents of the entries from the index asked for on, in order; empty only at the end of the log.
    pub entries: Vec<Vec<u8>>,
}

/// The reading side of an open generation. Cheap to clone; usable from any thread. All calls read
/// the disk and block for that long.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    // Dropped in this order: the keyspaces before the database that waits for its threads.
    shelves: Shelves,
    meta: Keyspace,
    database: Database,
    database_path: PathBuf,
    chunks: Chunks,
    head: Mutex<Head>,
    state: StateDir,
    generation: Generation,
    layout: Layout,
    options: StoreOptions,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("generation", &self.0.generation)
            .field("layout", &self.0.layout)
            .finish()
    }
}

impl Store {
    /// The content of that name, hashed and found right; `None` if there is none.
    pub fn get(&self, name: Digest) -> Result<Option<Vec<u8>>, ReadError> {
        let value = self
            .0
            .shelves
            .get(&name)
            .map_err(|error| ReadError::Store(self.explain_row("read content", error)))?;
        match value {
            None => Ok(None),
            Some(Value::Record(content)) => match name_of(&content) {
                found if found == name => Ok(Some(content)),
                found => Err(ReadError::WrongContent { name, found }),
            },
            Some(Value::Chunk(length)) => match self.0.chunks.read(name, length) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(ChunkError::Content { found, .. }) => Err(ReadError::WrongContent { name, found }),
                Err(source) => Err(ReadError::Chunk { name, source }),
            },
        }
    }

    /// The entries of a log from an index on, as many as fit a page, each hashed and found right. A log
    /// that was never appended to is empty.
    pub fn read_log(&self, log: Digest, from: u64) -> Result<LogPage, ReadError> {
        let failed = |error| ReadError::Store(self.explain_row("read a log", error));
        let view = self.0.database.snapshot();
        let length = self.0.shelves.length(&view, &log).map_err(failed)?;
        let mut page = LogPage { length, entries: Vec::new() };
        let mut size = 0;
        for row in self.0.shelves.entries_from(&view, &log, from) {
            let (index, Entry { id, nonce, content }) = row.map_err(failed)?;
            let found = append_id(&log, &nonce, &content);
            if found != id {
                return Err(ReadError::WrongContent { name: id, found });
            }
            if index != from + page.entries.len() as u64 {
                return Err(failed(RowError::Bad(BadRow)));
            }
            size += content.len() + 4;
            if page.entries.len() == PAGE_ENTRIES || size > PAGE_BYTES {
                break;
            }
            page.entries.push(content);
        }
        Ok(page)
    }

    /// Whether there is content of that name (unread).
    pub fn contains(&self, name: Digest) -> Result<bool, ReadError> {
        self.holds(name).map_err(ReadError::Store)
    }

    /// Whether the append with this id is here, as this entry of its log (unread).
    pub fn has_append(&self, id: Digest, index: u64) -> Result<bool, ReadError> {
        Ok(self.index_of(id).map_err(ReadError::Store)? == Some(index))
    }

    /// Keeps long content as a chunk file, durably, ahead of the record that speaks of it. Twice is
    /// once. May run in any number of threads.
    pub fn stage_chunk(&self, content: &Content) -> Result<(), ChunkError> {
        let needed = content.bytes().len() as u64;
        match self.free().map(|free| (free, free.saturating_sub(self.0.options.keep_free))) {
            Ok((free, usable)) if usable < needed => Err(ChunkError::NoRoom { needed, free }),
            Ok(_) => self.0.chunks.stage(content),
            Err(error) => Err(ChunkError::File(error)),
        }
    }

    /// Has another generation's chunk file here too. Its name is durable after
    /// [`Writer::persist`]. Twice is once.
    pub fn link_chunk(
        &self,
        from: Generation,
        name: Digest,
        length: u32,
        check: Check,
    ) -> Result<(), ChunkError> {
        self.0.chunks.link(&self.0.state.chunks(from), name, length, check)
    }

    /// How far it has come.
    pub fn position(&self) -> Position {
        self.head().position
    }

    /// Up to here everything is on the disk.
    pub fn floor(&self) -> Sequence {
        self.head().floor
    }

    /// How much it holds.
    pub fn totals(&self) -> Totals {
        self.head().totals
    }

    /// Its generation.
    pub fn generation(&self) -> Generation {
        self.0.generation
    }

    /// Its layout.
    pub fn layout(&self) -> Layout {
        self.0.layout
    }

    /// The `state/` directory that it is in.
    pub fn state(&self) -> &StateDir {
        &self.0.state
    }

    /// What it was opened with.
    pub fn options(&self) -> StoreOptions {
        self.0.options
    }

    /// Bytes that are free on its disk.
    pub fn free(&self) -> Result<u64, FileError> {
        free_space(self.0.chunks.path()).map_err(FileError::at("ask for free space at", self.0.chunks.path()))
    }

    pub(super) fn holds(&self, name: Digest) -> Result<bool, StoreError> {
        self.0.shelves.holds(&name).map_err(StoreError::database("look a name up"))
    }

    /// The index that the append with this id got, if it is here.
    pub(super) fn index_of(&self, id: Digest) -> Result<Option<u64>, StoreError> {
        self.0.shelves.index_of(&id).map_err(|error| self.explain_row("look an append up", error))
    }

    /// The append at this place of a log, if there is one.
    pub(super) fn id_at(&self, log: Digest, index: u64) -> Result<Option<Digest>, StoreError> {
        self.0.shelves.id_at(&log, index).map_err(|error| self.explain_row("look into a log", error))
    }

    /// The index of a log's next entry.
    pub(super) fn log_length(&self, log: Digest) -> Result<u64, StoreError> {
        let view = self.0.database.snapshot();
        self.0.shelves.length(&view, &log).map_err(|error| self.explain_row("look into a log", error))
    }

    /// Whether any log has an entry. Looks at what is stored, not at the totals.
    pub(super) fn has_appends(&self) -> Result<bool, StoreError> {
        self.0.shelves.has_appends().map_err(StoreError::database("look for appends"))
    }

    pub(super) fn has_chunk(&self, name: Digest) -> Result<bool, FileError> {
        self.0.chunks.has(name)
    }

    pub(super) fn shelves(&self) -> &Shelves {
        &self.0.shelves
    }

    pub(super) fn head(&self) -> Head {
        *self.0.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn explain_row(&self, doing: &'static str, error: RowError) -> StoreError {
        match error {
            RowError::Database(source) => StoreError::Database { doing, source },
            RowError::Bad(BadRow) => {
                StoreError::Damaged { doing, found: "a row that does not fit its layout" }
            }
        }
    }

    /// The database keeps its files itself; a test of power loss hears how they stand.
    fn database_is(&self, state: Foreign) {
        disk::foreign(&self.0.database_path, state);
    }

    fn snapshot_at(&self, head: Head) -> Snapshot {
        Snapshot {
            store: self.clone(),
            view: self.0.database.snapshot(),
            position: head.position,
            totals: head.totals,
        }
    }
}

/// The writing side of an open generation: there is one.
#[derive(Debug)]
pub struct Writer(Store);

impl Writer {
    /// Makes a generation, empty, and opens it. What an earlier try left behind before the generation
    /// was one is wiped; a generation that is there is an error.
    pub fn create(
        state: &StateDir,
        generation: Generation,
        layout: Layout,
        options: StoreOptions,
    ) -> Result<Writer, StoreError> {
        let path = state.generation(generation);
        if path.exists() {
            return Err(StoreError::Exists { path });
        }
        make_directory(state.path())?;
        let making = state.making(generation);
        remove_tree(&making)?;
        disk::create_dir(&making).map_err(FileError::at("make", &making))?;
        disk::create_dir(&making.join("chunks")).map_err(FileError::at("make", making.join("chunks")))?;
        {
            let database = open_database(making.join("db"), generation)?;
            let made = StoreError::database("make a keyspace");
            database
                .keyspace("meta", self::options)
                .and_then(|_| Shelves::open(layout, &database))
                .map_err(made)?;
            database.persist(PersistMode::SyncAll).map_err(StoreError::database("sync a new database"))?;
        }
        disk::foreign(&making.join("db"), Foreign::Durable);
        let marker = making.join(MARKER);
        let says = format!("bumpless generation {MARKER_FORMAT}\nlayout {}\n", layout.number());
        disk::File::create_new(&marker, 0o644)
            .and_then(|mut file| {
                file.write_all(says.as_bytes())?;
                file.sync_all()
            })
            .map_err(FileError::at("write", &marker))?;
        sync_directory(&making)?;
        disk::rename(&making, &path).map_err(FileError::at("rename", &making))?;
        sync_directory(state.path())?;
        Writer::open(state, generation, options)
    }

    /// Opens a generation that is there. Which layout it has is its own affair.
    pub fn open(
        state: &StateDir,
        generation: Generation,
        options: StoreOptions,
    ) -> Result<Writer, StoreError> {
        let path = state.generation(generation);
        let layout = read_marker(state, generation)?;
        // The database would make a new one where it finds none, and that would look like loss.
        for part in ["db/version", "chunks"] {
            if !path.join(part).exists() {
                return Err(StoreError::Missing { path: path.join(part) });
            }
        }
        let database = open_database(path.join("db"), generation)?;
        if !database.keyspace_exists("meta") || Shelves::lacking(layout, &database).is_some() {
            return Err(StoreError::Damaged {
                doing: "open the database",
                found: "fewer keyspaces than its layout has",
            });
        }
        let opened = StoreError::database("open a keyspace");
        let (meta, shelves) = database
            .keyspace("meta", self::options)
            .and_then(|meta| Ok((meta, Shelves::open(layout, &database)?)))
            .map_err(opened)?;
        let head = match meta.get(HEAD_KEY).map_err(StoreError::database("read the head"))? {
            None => Head::default(),
            Some(bytes) => Head::decode(&bytes).map_err(|BadRow| StoreError::Damaged {
                doing: "read the head",
                found: "a head that this version does not write",
            })?,
        };
        let chunks = Chunks::open(path.join("chunks"), options.durability)?;
        Ok(Writer(Store(Arc::new(Inner {
            shelves,
            meta,
            database,
            database_path: path.join("db"),
            chunks,
            head: Mutex::new(head),
            state: state.clone(),
            generation,
            layout,
            options,
        }))))
    }

    /// The reading side.
    pub fn store(&self) -> &Store {
        &self.0
    }

    /// The state as it is now.
    pub fn snapshot(&self) -> Snapshot {
        self.0.snapshot_at(self.0.head())
    }

    /// Begins to fill an empty generation with a snapshot's entries.
    pub fn ingest(&mut self) -> Result<Ingest<'_>, StoreError> {
        if self.0.head() != Head::default() {
            return Err(StoreError::NotEmpty { generation: self.0.generation() });
        }
        Ok(Ingest::new(self)?)
    }

    /// Makes everything here durable, whatever the durability setting, and then the floor that says
    /// so: a start that found an old one would look for records that nobody keeps any more.
    pub fn persist(&mut self) -> Result<(), StoreError> {
        self.sync()?;
        let mut head = self.0.head();
        if head.floor != head.position.sequence {
            head.floor = head.position.sequence;
            self.commit_head(&[], head, PersistMode::SyncData)?;
        }
        Ok(())
    }

    /// Makes everything here durable and leaves the floor for what is committed next: chunk files'
    /// names first, so that no row outlives its file.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        self.0.0.chunks.persist()?;
        disk::foreign_sync(&self.0.0.database_path)
            .map_err(fjall::Error::from)
            .and_then(|()| self.0.0.database.persist(PersistMode::SyncAll))
            .map_err(StoreError::database("sync the database"))?;
        self.0.database_is(Foreign::Durable);
        Ok(())
    }

    /// Stores these operations, whose names are all new here and whose chunk files are here, and
    /// moves to the position, all at once.
    pub(super) fn commit(
        &mut self,
        fresh: &[Operation],
        position: Position,
        commit: Commit,
    ) -> Result<(), StoreError> {
        self.commit_repaired(fresh, &[], position, commit)
    }

    /// The same with rows that the totals count already, because a head came to the disk before them.
    pub(super) fn commit_repaired(
        &mut self,
        fresh: &[Operation],
        repaired: &[Operation],
        position: Position,
        commit: Commit,
    ) -> Result<(), StoreError> {
        let mut head = self.0.head();
        head.position = position;
        fresh.iter().for_each(|operation| head.totals.count(operation));
        let mode = match (commit, self.0.0.options.durability) {
            (Commit::Synced, Durability::Fsync) => PersistMode::SyncData,
            (Commit::Synced, Durability::Os) | (Commit::Buffered, _) => PersistMode::Buffer,
        };
        // Who chose not to sync took the risk; a kill alone loses nothing of what was buffered.
        if commit == Commit::Synced {
            head.floor = position.sequence;
        }
        self.commit_head(fresh.iter().chain(repaired), head, mode)
    }

    pub(super) fn commit_head<'a>(
        &mut self,
        rows: impl IntoIterator<Item = &'a Operation>,
        head: Head,
        mode: PersistMode,
    ) -> Result<(), StoreError> {
        let inner = &self.0.0;
        // Without a mode a batch may stay in this process's memory, and a kill would lose it.
        let mut batch = inner.database.batch().durability(Some(mode));
        rows.into_iter().for_each(|operation| inner.shelves.insert(&mut batch, operation));
        batch.insert(&inner.meta, HEAD_KEY, head.encode());
        let synced = match mode {
            PersistMode::SyncData | PersistMode::SyncAll => disk::foreign_sync(&inner.database_path),
            PersistMode::Buffer => Ok(()),
        };
        synced
            .map_err(fjall::Error::from)
            .and_then(|()| batch.commit())
            .map_err(StoreError::database("write to the database"))?;
        self.0.database_is(match mode {
            PersistMode::SyncData | PersistMode::SyncAll => Foreign::Durable,
            PersistMode::Buffer => Foreign::Written,
        });
        *inner.head.lock().unwrap_or_else(PoisonError::into_inner) = head;
        Ok(())
    }
}

fn read_marker(state: &StateDir, generation: Generation) -> Result<Layout, StoreError> {
    let path = state.generation(generation).join(MARKER);
    let says = match fs::read_to_string(&path) {
        Ok(says) => says,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(StoreError::Missing { path });
        }
        Err(error) => return Err(FileError::at("read", path)(error).into()),
    };
    says.strip_prefix(&format!("bumpless generation {MARKER_FORMAT}\nlayout "))
        .and_then(|rest| rest.strip_suffix('\n'))
        .and_then(|number| number.parse().ok())
        .and_then(Layout::from_number)
        .ok_or_else(|| StoreError::UnknownLayout { generation, says: says.chars().take(200).collect() })
}

/// Opens the database with bounds that keep an idle worker small.
fn open_database(path: PathBuf, generation: Generation) -> Result<Database, StoreError> {
    Database::builder(path)
        .cache_size(8 << 20)
        .worker_threads(2)
        .max_journaling_size(64 << 20)
        .open()
        .map_err(|error| match error {
            fjall::Error::Locked => StoreError::Locked { generation },
            source => StoreError::Database { doing: "open the database", source },
        })
}

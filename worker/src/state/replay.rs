//! Applying what is read from a logbook, by whoever reads it: a standby, a worker that resumes, a
//! cold start.
//!
//! Applying is idempotent, and it believes nothing: a record must decode, its content must have its
//! name, its chunk file must be there and have the right content, an append must be at the next place of
//! its log and at no other. A record that fails is **refused**:
//! kept byte for byte under `refused/`, reported, and passed over. A failure of this machine (disk
//! full, I/O error) is not the record's fault and ends the replay.
//!
//! Records at or below the position but above the floor are looked at, too: after a power loss the
//! database may have come further than its rows or its chunk files' names (see [`Store`](super::store::Store)).

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::Write;

use bumpless_os::disk;
use bumpless_shared::control::{Sequence, Term};
use bumpless_shared::digest::Digest;
use bumpless_shared::operation::{NONCE, Operation};

use super::append::append_id;
use super::chunks::Check;
use super::content::name_of;
use super::directory::{FileError, make_directory};
use super::log_reader::{Damage, Record};
use super::snapshot::Snapshot;
use super::store::{Commit, Position, Writer};
use super::store_error::StoreError;

/// What a reader hands over: a record, or the knowledge that some are lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next record.
    Record(Record),
    /// Records that cannot be read; the position moves past them.
    Damage(Damage),
}

/// A mark was reached.
#[derive(Debug)]
pub struct Marked {
    /// The mark's id.
    pub id: u64,
    /// Its record's number.
    pub sequence: Sequence,
    /// The state exactly there.
    pub snapshot: Snapshot,
}

/// A record that was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its term.
    pub term: Term,
    /// Its number.
    pub sequence: Sequence,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal { term, sequence, reason } = self;
        write!(f, "record {sequence} of term {term} was refused and kept aside: {reason}")
    }
}

/// What came of some steps.
#[derive(Debug, Default)]
pub struct Followed {
    /// How far the state has come.
    pub position: Position,
    /// Records that changed it.
    pub applied: u64,
    /// Marks, in order.
    pub marks: Vec<Marked>,
    /// Records that were not accepted.
    pub refused: Vec<Refusal>,
    /// Records that were lost.
    pub damage: Vec<Damage>,
}

/// Why following ended, for good.
#[derive(Debug)]
pub enum FollowError {
    /// A record is missing that the reader should have reported; nothing behind it was applied.
    Gap {
        /// The record that should have come.
        expected: Sequence,
        /// The one that came.
        found: Sequence,
    },
    /// The state could not be written.
    Store(StoreError),
    /// A refused record could not be kept.
    File(FileError),
}

impl From<StoreError> for FollowError {
    fn from(error: StoreError) -> Self {
        FollowError::Store(error)
    }
}

impl From<FileError> for FollowError {
    fn from(error: FileError) -> Self {
        FollowError::File(error)
    }
}

impl fmt::Display for FollowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FollowError::Gap { expected, found } => {
                write!(f, "record {found} came where {expected} was expected")
            }
            FollowError::Store(error) => error.fmt(f),
            FollowError::File(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for FollowError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            FollowError::Gap { .. } => None,
            FollowError::Store(error) => Some(error),
            FollowError::File(error) => Some(error),
        }
    }
}

/// Why one record is not applied.
enum Unfit {
    /// Its own fault.
    Refused(String),
    /// This machine's.
    Failed(StoreError),
}

impl From<StoreError> for Unfit {
    fn from(error: StoreError) -> Self {
        Unfit::Failed(error)
    }
}

/// Applies the steps in order. Nothing is synced: the logbook is the durable copy until
/// [`Writer::persist`].
pub(super) fn follow(writer: &mut Writer, steps: &[Step]) -> Result<Followed, FollowError> {
    let mut replay = Replay {
        position: writer.store().position(),
        fresh: Vec::new(),
        repaired: Vec::new(),
        names: HashSet::new(),
        appends: HashMap::new(),
        lengths: HashMap::new(),
        writer,
    };
    let mut followed = Followed::default();
    for step in steps {
        match step {
            Step::Record(record) => replay.record(record, &mut followed)?,
            Step::Damage(damage) => {
                followed.damage.push(*damage);
                replay.pass(*damage);
            }
        }
    }
    replay.flush()?;
    followed.position = replay.position;
    Ok(followed)
}

struct Replay<'a> {
    writer: &'a mut Writer,
    /// Of the last step, whether it is committed or not.
    position: Position,
    /// Not committed yet.
    fresh: Vec<Operation>,
    /// The same, but counted in the totals already: the head had come to the disk before its rows.
    repaired: Vec<Operation>,
    names: HashSet<[u8; 32]>,
    /// Of these, the appends' indexes by id.
    appends: HashMap<[u8; 32], u64>,
    /// With these, the lengths of logs that are appended to.
    lengths: HashMap<[u8; 32], u64>,
}

/// What a record of a logbook is to a state that comes upon it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is here for certain.
    Known,
    /// The position is past it; whether it is here has to be looked at.
    Repair,
    /// A later term has begun: what its predecessor wrote beyond that never happened.
    Outdated,
    /// It is the next.
    Next,
    /// One before it is missing.
    Gap,
}

/// Where a record belongs. `floor`: up to there everything here is on the disk.
pub fn place(position: Position, floor: Sequence, record: Position) -> Place {
    let Position { term, sequence } = position;
    if record.sequence <= sequence {
        return if record.sequence <= floor { Place::Known } else { Place::Repair };
    }
    if record.term < term {
        return Place::Outdated;
    }
    if record.sequence == sequence + 1 { Place::Next } else { Place::Gap }
}

impl Replay<'_> {
    fn record(&mut self, record: &Record, followed: &mut Followed) -> Result<(), FollowError> {
        let found = Position { term: record.term, sequence: record.sequence };
        let repair = match place(self.position, self.writer.store().floor(), found) {
            Place::Known | Place::Outdated => return Ok(()),
            Place::Repair => true,
            Place::Next => false,
            Place::Gap => {
                return Err(FollowError::Gap {
                    expected: self.position.sequence + 1,
                    found: record.sequence,
                });
            }
        };
        match self.examine(record) {
            Ok(Some(operation)) => {
                followed.applied += 1;
                let kind = if repair { &mut self.repaired } else { &mut self.fresh };
                kind.push(operation);
            }
            Ok(None) => {}
            Err(Unfit::Failed(error)) => return Err(error.into()),
            Err(Unfit::Refused(reason)) => {
                self.keep(record)?;
                let Record { term, sequence, .. } = *record;
                followed.refused.push(Refusal { term, sequence, reason });
            }
        }
        if repair {
            return Ok(());
        }
        self.position = Position { term: record.term, sequence: record.sequence };
        if let Ok(Operation::Mark { id }) = self.decode(record) {
            self.flush()?;
            followed.marks.push(Marked { id, sequence: record.sequence, snapshot: self.writer.snapshot() });
        }
        Ok(())
    }

    /// The operation, if it is right and changes anything.
    fn examine(&mut self, record: &Record) -> Result<Option<Operation>, Unfit> {
        let operation = self.decode(record).map_err(Unfit::Refused)?;
        let store = self.writer.store();
        match &operation {
            Operation::Mark { .. } => return Ok(None),
            Operation::Append { log, nonce, index, content } => {
                let fresh = self.examine_append(log, nonce, *index, content)?;
                return Ok(fresh.then_some(operation));
            }
            Operation::Store { name, content } => {
                let found = name_of(content);
                if found != *name {
                    return Err(Unfit::Refused(format!("the content of {name} hashes to {found}")));
                }
            }
            Operation::Link { name, length } => {
                let known = store.holds(*name)?;
                if known && store.has_chunk(*name).map_err(StoreError::File)? {
                    return Ok(None);
                }
                store.link_chunk(record.generation, *name, *length, Check::Content).map_err(|error| {
                    if error.is_bad_file() {
                        Unfit::Refused(error.to_string())
                    } else {
                        Unfit::Failed(StoreError::Chunk(error))
                    }
                })?;
            }
        }
        let (Operation::Store { name, .. } | Operation::Link { name, .. }) = &operation else {
            return Ok(None);
        };
        if store.holds(*name)? || !self.names.insert(name.0) {
            return Ok(None);
        }
        Ok(Some(operation))
    }

    /// Whether the append changes anything. What is there of it may be one row of two: after a power loss
    /// the tables of the database may have come to the disk differently far.
    fn examine_append(
        &mut self,
        log: &Digest,
        nonce: &[u8; NONCE],
        index: u64,
        content: &[u8],
    ) -> Result<bool, Unfit> {
        let id = append_id(log, nonce, content);
        let store = self.writer.store();
        let known = match self.appends.get(&id.0) {
            Some(known) => Some(*known),
            None => store.index_of(id)?,
        };
        if let Some(known) = known
            && known != index
        {
            let reason = format!("append {id} comes as entry {index} of log {log}, it is entry {known}");
            return Err(Unfit::Refused(reason));
        }
        if self.appends.contains_key(&id.0) {
            return Ok(false);
        }
        let next = match self.lengths.get(&log.0) {
            Some(next) => *next,
            None => store.log_length(*log)?,
        };
        match (store.id_at(*log, index)?, known) {
            (Some(there), _) if there != id => {
                let reason = format!("append {id} comes as entry {index} of log {log}, which is {there}");
                return Err(Unfit::Refused(reason));
            }
            (Some(_), Some(_)) => return Ok(false),
            (None, None) if index != next => {
                let reason = format!("append {id} comes as entry {index} of log {log}, the next is {next}");
                return Err(Unfit::Refused(reason));
            }
            (Some(_), None) | (None, Some(_)) | (None, None) => {}
        }
        self.lengths.insert(log.0, next.max(index.saturating_add(1)));
        self.appends.insert(id.0, index);
        Ok(true)
    }

    /// The operation, if this release and the record's segment have its kind.
    fn decode(&self, record: &Record) -> Result<Operation, String> {
        let reads = self.writer.store().options().version;
        if record.format > reads {
            return Err(format!("it is of version {}, this release reads up to {reads}", record.format));
        }
        Operation::decode(record.payload(), record.format).map_err(|error| error.to_string())
    }

    fn pass(&mut self, damage: Damage) {
        // Without an end nothing is known to be behind it; in an outdated term nothing counts.
        if let Some(last) = damage.last
            && last > self.position.sequence
            && damage.term >= self.position.term
        {
            self.position = Position { term: damage.term, sequence: last };
        }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.names.clear();
        self.appends.clear();
        self.lengths.clear();
        let (fresh, repaired) = (std::mem::take(&mut self.fresh), std::mem::take(&mut self.repaired));
        if fresh.is_empty() && repaired.is_empty() && self.position == self.writer.store().position() {
            return Ok(());
        }
        self.writer.commit_repaired(&fresh, &repaired, self.position, Commit::Buffered)
    }

    fn keep(&self, record: &Record) -> Result<(), FileError> {
        let refused = self.writer.store().state().refused();
        make_directory(&refused)?;
        let path = refused.join(format!("{}-{}", record.term, record.sequence));
        disk::File::create(&path, 0o644)
            .and_then(|mut file| file.write_all(&record.bytes))
            .map_err(FileError::at("keep", path))
    }
}

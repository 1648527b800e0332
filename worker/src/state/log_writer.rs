//! Writing a term's logbook.
//!
//! A logbook is a chain of segments. Each is made with its header and its reserve of disk before a
//! record goes in, and closed when the next one is made. A batch of records is one write; nothing is
//! acknowledged before the caller had it synced, if the logbook is the durable copy.
//!
//! A write or sync that fails **poisons** the logbook: nobody knows what reached the disk, and a
//! second sync may well claim success. Nothing is tried on it again.
//!
//! The logbook of a coming term is **prepared** ahead: its first segment, with header and directory
//! entries, is on the disk, and its reserve is allocated. [`Prepared::begin`] then needs no system
//! call, so that nothing in the cut waits for the disk. The first sequence is not known when the
//! header is written; the header's floor is a lower bound.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use bumpless_os::disk::{self, File};
use bumpless_shared::control::{Generation, Sequence, Term};
use bumpless_shared::logbook::{
    HEADER, PayloadTooLong, RecordHead, SegmentHeader, encode_record, segment_name,
};
use bumpless_shared::operation::OperationError;

use super::directory::{FileError, StateDir, make_directory, sync_directory};

/// Size of a segment before the next one is begun, in bytes: a follower that is behind reads at most
/// this much of what could have been removed, and a new file is made every few thousand records.
pub const SEGMENT: u64 = 16 << 20;

/// Whether making a logbook waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// Header, directory entries and reserve are on the disk.
    Durable,
    /// They are with the operating system.
    Buffered,
}

/// Why a logbook could not be made or written.
#[derive(Debug)]
pub enum LogError {
    /// There is a logbook of that term already.
    Exists {
        /// Its directory.
        path: PathBuf,
    },
    /// An operation that no reader would accept.
    Operation(OperationError),
    /// A record too long for any reader.
    TooLong(PayloadTooLong),
    /// An earlier write or sync failed; the logbook is not written again.
    Poisoned {
        /// What failed.
        cause: String,
    },
    /// The system refused.
    File(FileError),
}

impl From<FileError> for LogError {
    fn from(error: FileError) -> Self {
        LogError::File(error)
    }
}

impl From<PayloadTooLong> for LogError {
    fn from(error: PayloadTooLong) -> Self {
        LogError::TooLong(error)
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogError::Exists { path } => {
                write!(f, "the logbook {} is there already; a term is never used twice", path.display())
            }
            LogError::Operation(error) => error.fmt(f),
            LogError::TooLong(error) => error.fmt(f),
            LogError::Poisoned { cause } => {
                write!(f, "the logbook is closed for good: {cause}; what was acknowledged is safe")
            }
            LogError::File(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LogError::Operation(error) => Some(error),
            LogError::TooLong(error) => Some(error),
            LogError::File(error) => Some(error),
            LogError::Exists { .. } | LogError::Poisoned { .. } => None,
        }
    }
}

/// A logbook that is ready and has no record yet.
#[derive(Debug)]
pub struct Prepared {
    segment: Segment,
    directory: PathBuf,
    made: Made,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    file: File,
    header: SegmentHeader,
    capacity: u64,
}

impl Prepared {
    /// Makes the logbook of a coming term durably, with so many bytes of disk reserved for its first
    /// segment. `floor`: no record in it will have a lower sequence. `format`: the version of the
    /// contract that everybody knows who may have to read it.
    pub fn make(
        state: &StateDir,
        term: Term,
        generation: Generation,
        floor: Sequence,
        reserve: u64,
        format: u16,
    ) -> Result<Prepared, LogError> {
        Prepared::make_with(state, term, generation, floor, reserve, format, Made::Durable)
    }

    pub(super) fn make_with(
        state: &StateDir,
        term: Term,
        generation: Generation,
        floor: Sequence,
        reserve: u64,
        format: u16,
        made: Made,
    ) -> Result<Prepared, LogError> {
        make_directory(&state.logs())?;
        let directory = state.log(term);
        match disk::create_dir(&directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(LogError::Exists { path: directory });
            }
            Err(error) => return Err(FileError::at("make", directory)(error).into()),
        }
        let header = SegmentHeader { format, term, floor, generation, salt: rand::random() };
        let segment = Segment::make(&directory, header, reserve.max(HEADER as u64), made)?;
        match made {
            Made::Durable => sync_directory(&state.logs())?,
            Made::Buffered => {}
        }
        Ok(Prepared { segment, directory, made })
    }

    /// The term that it is for.
    pub fn term(&self) -> Term {
        self.segment.header.term
    }

    /// The version of the contract whose operations may stand in it.
    pub fn format(&self) -> u16 {
        self.segment.header.format
    }

    /// Begins: the first record will have this sequence. No system call.
    pub fn begin(self, first: Sequence) -> LogWriter {
        LogWriter {
            directory: self.directory,
            segment: self.segment,
            end: HEADER as u64,
            next: first,
            durable: first.saturating_sub(1),
            closed: Vec::new(),
            made: self.made,
            poison: None,
        }
    }
}

impl Segment {
    fn make(
        directory: &Path,
        header: SegmentHeader,
        capacity: u64,
        made: Made,
    ) -> Result<Segment, FileError> {
        let path = directory.join(segment_name(header.floor));
        let file = File::create_new(&path, 0o644).map_err(FileError::at("make", &path))?;
        // The size stays what was written, so that a reader sees the end as the end of the file.
        file.reserve(capacity).map_err(FileError::at("reserve disk for", &path))?;
        file.write_all_at(&header.encode(), 0).map_err(FileError::at("write", &path))?;
        match made {
            Made::Durable => {
                file.sync_all().map_err(FileError::at("sync", &path))?;
                sync_directory(directory)?;
            }
            Made::Buffered => {}
        }
        Ok(Segment { path, file, header, capacity })
    }
}

/// A logbook that is being written, by the one holder of its term.
#[derive(Debug)]
pub struct LogWriter {
    directory: PathBuf,
    segment: Segment,
    /// Where the next record goes.
    end: u64,
    next: Sequence,
    durable: Sequence,
    closed: Vec<(PathBuf, Sequence)>,
    made: Made,
    poison: Option<String>,
}

impl LogWriter {
    /// Its term.
    pub fn term(&self) -> Term {
        self.segment.header.term
    }

    /// The version of the contract whose operations may stand in it.
    pub fn format(&self) -> u16 {
        self.segment.header.format
    }

    /// The sequence of the last record, whether it is durable or not; before the first record, the
    /// one before it.
    pub fn last(&self) -> Sequence {
        self.next - 1
    }

    /// Appends a batch in one write and returns the sequence of its last record. Readers see it at
    /// once; it is on the disk after [`LogWriter::sync`]. On failure the logbook is poisoned; some of
    /// the batch may be readable.
    pub fn append(&mut self, payloads: &[Vec<u8>]) -> Result<Sequence, LogError> {
        if let Some(cause) = &self.poison {
            return Err(LogError::Poisoned { cause: cause.clone() });
        }
        let result = self.try_append(payloads);
        self.note(result)
    }

    /// Waits until every record appended so far is on the disk. On failure the logbook is poisoned.
    /// A logbook that was not prepared durably has nothing to wait for and claims nothing.
    pub fn sync(&mut self) -> Result<(), LogError> {
        if let Some(cause) = &self.poison {
            return Err(LogError::Poisoned { cause: cause.clone() });
        }
        match self.made {
            Made::Durable => {}
            Made::Buffered => return Ok(()),
        }
        let result = self
            .segment
            .file
            .sync_data()
            .map_err(FileError::at("sync", &self.segment.path))
            .map_err(LogError::from);
        self.note(result)?;
        self.durable = self.last();
        Ok(())
    }

    /// Removes closed segments in which every record is at or below this sequence. The caller knows
    /// that nobody needs them any more.
    pub fn trim(&mut self, up_to: Sequence) -> Result<(), LogError> {
        while let Some((path, last)) = self.closed.first()
            && *last <= up_to
        {
            match disk::remove_file(path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(FileError::at("remove", path)(error).into()),
            }
            self.closed.remove(0);
        }
        Ok(())
    }

    fn note<T>(&mut self, result: Result<T, LogError>) -> Result<T, LogError> {
        result.inspect_err(|error| self.poison = Some(error.to_string()))
    }

    fn try_append(&mut self, payloads: &[Vec<u8>]) -> Result<Sequence, LogError> {
        let mut bytes = self.encode(payloads)?;
        if self.end > HEADER as u64 && self.end + bytes.len() as u64 > self.segment.capacity {
            self.begin_segment()?;
            // Another segment, another salt.
            bytes = self.encode(payloads)?;
        }
        self.segment
            .file
            .write_all_at(&bytes, self.end)
            .map_err(FileError::at("write", &self.segment.path))?;
        self.end += bytes.len() as u64;
        self.next += payloads.len() as u64;
        Ok(self.last())
    }

    fn encode(&self, payloads: &[Vec<u8>]) -> Result<Vec<u8>, LogError> {
        let mut bytes = Vec::new();
        for (sequence, payload) in (self.next..).zip(payloads) {
            let head = RecordHead { term: self.term(), sequence, durable: self.durable };
            encode_record(&mut bytes, &self.segment.header.salt, head, payload)?;
        }
        Ok(bytes)
    }

    /// In a durable logbook the new segment's header and name are on the disk before a record is in
    /// it, and the closed segment too: one sync is then enough for everything before it.
    fn begin_segment(&mut self) -> Result<(), LogError> {
        self.sync()?;
        let header = SegmentHeader { floor: self.next, salt: rand::random(), ..self.segment.header };
        let segment = Segment::make(&self.directory, header, SEGMENT, self.made)?;
        let closed = std::mem::replace(&mut self.segment, segment);
        self.closed.push((closed.path, self.last()));
        self.end = HEADER as u64;
        Ok(())
    }
}

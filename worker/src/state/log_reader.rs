//! Reading a term's logbook, also while it is being written.
//!
//! ```text
//! Record      the next one
//! CaughtUp    nothing more can be read now: the end, a record that is being written, or a torn tail
//! Damaged     records that were once durable cannot be read; reading goes on behind them
//! ```
//!
//! **The good path**: record after record, segment after segment, without a gap in the sequences.
//!
//! **A torn tail**: a write was cut short by a kill or a power loss. What lies above the highest
//! sequence that any readable record calls durable was never acknowledged. It is as if it had not
//! been written: the reader stays `CaughtUp` there for ever.
//!
//! **Damage**: where a record should be there is none, or another one, and some record further on
//! says that this one was durable. The reader looks for the next readable record, through all later
//! segments, reports what is between, and goes on from there.
//!
//! **An unreadable header**: no record of that segment can be told from noise. The reader goes to the
//! next segment; if there is none, it reports damage without an end, once.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bumpless_shared::control::{Generation, Sequence, Term};
use bumpless_shared::logbook::{
    HEADER, HeaderError, LONGEST_RECORD, Parsed, RECORD_HEAD, RECORD_MARKER, RecordHead, SegmentHeader,
    parse_record, segment_floor, segment_name,
};

use super::directory::{FileError, StateDir};

/// How much is read at once.
const WINDOW: usize = 256 << 10;

/// One record, not yet decoded: its length and checksum are right, nothing else is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The version of the contract whose operations may stand in its segment.
    pub format: u16,
    /// Its term.
    pub term: Term,
    /// Its number.
    pub sequence: Sequence,
    /// Whose `chunks/` it speaks of.
    pub generation: Generation,
    /// Head and payload, as in the file.
    pub bytes: Vec<u8>,
}

impl Record {
    /// The operation's bytes.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[RECORD_HEAD..]
    }
}

/// Records that were durable once and cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The logbook's term.
    pub term: Term,
    /// The first of them.
    pub first: Sequence,
    /// The last of them; `None` if it cannot be told, because nothing readable follows.
    pub last: Option<Sequence>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage { term, first, last } = self;
        match last {
            Some(last) => write!(f, "records {first} to {last} in the logbook of term {term} are damaged"),
            None => write!(f, "the logbook of term {term} is damaged from record {first} on"),
        }
    }
}

/// What comes next in a logbook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The next record.
    Record(Record),
    /// Nothing more can be read now.
    CaughtUp,
    /// These records are lost; the next item is behind them.
    Damaged(Damage),
}

/// What it means that a record is not where it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It was never acknowledged, nor was anything behind it: this is the end.
    Torn,
    /// It was on the disk once: it is lost, and reading goes on behind it.
    Damaged,
}

/// Tells them apart. `durable`: the highest sequence that any readable record calls durable.
pub fn missing(expected: Sequence, durable: Sequence) -> Missing {
    if durable >= expected { Missing::Damaged } else { Missing::Torn }
}

/// Why a logbook could not be read.
#[derive(Debug)]
pub enum ReadLogError {
    /// It was written in another format.
    Format {
        /// Which segment.
        path: PathBuf,
        /// The format's number.
        found: u16,
    },
    /// The system refused.
    File(FileError),
}

impl From<FileError> for ReadLogError {
    fn from(error: FileError) -> Self {
        ReadLogError::File(error)
    }
}

impl fmt::Display for ReadLogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadLogError::Format { path, found } => {
                write!(f, "{}: {}", path.display(), HeaderError::Format { found: *found })
            }
            ReadLogError::File(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReadLogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ReadLogError::Format { .. } => None,
            ReadLogError::File(error) => Some(error),
        }
    }
}

/// Reads one term's logbook from its beginning.
#[derive(Debug)]
pub struct LogReader {
    directory: PathBuf,
    term: Term,
    /// The record that has to come next; lower ones are handed out, too, if they are there.
    expected: Sequence,
    segment: Option<Segment>,
    /// Damage without an end: found, and whether it was reported already.
    endless: Endless,
}

#[derive(Debug)]
struct Segment {
    floor: Sequence,
    path: PathBuf,
    file: File,
    header: SegmentHeader,
    /// Where the next record begins.
    at: u64,
    /// What was read, from `at` on.
    window: Vec<u8>,
    /// Where in the window `at` is.
    used: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endless {
    NotFound,
    Found,
    Reported,
}

enum Opened {
    Segment(Segment),
    NotYet,
    Unreadable,
}

enum Next {
    Record(Record),
    /// The end of what was written, as it seems.
    End,
    /// Bytes that are no record.
    Unreadable,
}

/// A place where reading can go on.
struct Place {
    segment: Segment,
    head: RecordHead,
}

impl LogReader {
    /// Reads the logbook of a term, which need not exist yet. `next`: the first record that is
    /// needed; if it is not there but a later one is, it was lost.
    pub fn new(state: &StateDir, term: Term, next: Sequence) -> LogReader {
        LogReader {
            directory: state.log(term),
            term,
            expected: next,
            segment: None,
            endless: Endless::NotFound,
        }
    }

    /// Its term.
    pub fn term(&self) -> Term {
        self.term
    }

    /// The record that has to come next.
    pub fn expected(&self) -> Sequence {
        self.expected
    }

    /// What comes next. After `CaughtUp` it may be asked again, when more was written.
    #[allow(clippy::should_implement_trait, reason = "an iterator that ends may not go on")]
    pub fn next(&mut self) -> Result<Item, ReadLogError> {
        loop {
            if self.segment.is_none() && !self.open_next(None)? {
                return Ok(self.at_the_end());
            }
            let Some(segment) = &mut self.segment else {
                return Ok(Item::CaughtUp);
            };
            match segment.next()? {
                Next::Record(record) if record.sequence <= self.expected => {
                    if record.sequence == self.expected {
                        self.expected += 1;
                    }
                    return Ok(Item::Record(record));
                }
                // Something is missing in front of this record.
                Next::Record(record) => {
                    segment.step_back(&record);
                    return self.look_beyond();
                }
                Next::End => {
                    // Look for a successor first: once there is one, this segment is complete, and
                    // what it got between the two looks is read before moving on.
                    let floor = segment.floor;
                    let Some(_) = later_floor(&self.directory, Some(floor))? else {
                        return if segment.has_more()? { self.look_beyond() } else { Ok(Item::CaughtUp) };
                    };
                    if let Next::Record(record) = segment.next()? {
                        segment.step_back(&record);
                        continue;
                    }
                    if segment.has_more()? {
                        return self.look_beyond();
                    }
                    if !self.open_next(Some(floor))? {
                        return Ok(self.at_the_end());
                    }
                }
                Next::Unreadable => return self.look_beyond(),
            }
        }
    }

    /// Opens the first readable segment above `floor`. False if there is none yet.
    fn open_next(&mut self, mut floor: Option<Sequence>) -> Result<bool, ReadLogError> {
        let mut unreadable = false;
        while let Some(next) = later_floor(&self.directory, floor)? {
            match Segment::open(&self.directory, self.term, next)? {
                Opened::Segment(segment) => {
                    self.segment = Some(segment);
                    return Ok(true);
                }
                Opened::NotYet => {}
                Opened::Unreadable => unreadable = true,
            }
            floor = Some(next);
        }
        if unreadable && self.endless == Endless::NotFound {
            self.endless = Endless::Found;
        }
        Ok(false)
    }

    fn at_the_end(&mut self) -> Item {
        match self.endless {
            Endless::Found => {
                self.endless = Endless::Reported;
                Item::Damaged(Damage { term: self.term, first: self.expected, last: None })
            }
            Endless::NotFound | Endless::Reported => Item::CaughtUp,
        }
    }

    /// Nothing readable is here, or not what should be here. If anything further on says that it was
    /// durable, it is damage and reading goes on behind it; otherwise it is the end.
    fn look_beyond(&mut self) -> Result<Item, ReadLogError> {
        let Some(segment) = &self.segment else {
            return Ok(Item::CaughtUp);
        };
        let mut durable = 0;
        let mut place = None;
        let mut floor = segment.floor;
        let mut at = segment.at;
        let mut scanned = Segment::open(&self.directory, self.term, floor)?;
        loop {
            if let Opened::Segment(segment) = scanned {
                segment.scan(at, self.expected, &mut durable, &mut place)?;
            }
            if missing(self.expected, durable) == Missing::Damaged {
                break;
            }
            let Some(next) = later_floor(&self.directory, Some(floor))? else { break };
            floor = next;
            at = HEADER as u64;
            scanned = Segment::open(&self.directory, self.term, floor)?;
        }
        match place {
            Some(Place { segment, head }) if missing(self.expected, durable) == Missing::Damaged => {
                let damage = Damage { term: self.term, first: self.expected, last: Some(head.sequence - 1) };
                self.segment = Some(segment);
                self.expected = head.sequence;
                // A gap of nothing: bytes that are no record between two records in order.
                if damage.first == head.sequence { self.next() } else { Ok(Item::Damaged(damage)) }
            }
            Some(_) | None => Ok(Item::CaughtUp),
        }
    }
}

impl Segment {
    fn open(directory: &Path, term: Term, floor: Sequence) -> Result<Opened, ReadLogError> {
        let path = directory.join(segment_name(floor));
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Opened::NotYet),
            Err(error) => return Err(FileError::at("open", path)(error).into()),
        };
        let bytes = read_at_most(&file, 0, HEADER).map_err(FileError::at("read", &path))?;
        match SegmentHeader::decode(&bytes) {
            Ok(header) if header.term == term && header.floor == floor => Ok(Opened::Segment(Segment {
                floor,
                path,
                file,
                header,
                at: HEADER as u64,
                window: Vec::new(),
                used: 0,
            })),
            Err(HeaderError::NotYet) => Ok(Opened::NotYet),
            Err(HeaderError::Format { found }) => Err(ReadLogError::Format { path, found }),
            Ok(_) | Err(HeaderError::Foreign | HeaderError::Damaged) => Ok(Opened::Unreadable),
        }
    }

    fn next(&mut self) -> Result<Next, FileError> {
        let mut fresh = false;
        loop {
            match parse_record(&self.window[self.used..], &self.header) {
                Parsed::Record { head, payload, size } => {
                    let size_in_window = RECORD_HEAD + payload.len();
                    let record = Record {
                        format: self.header.format,
                        term: head.term,
                        sequence: head.sequence,
                        generation: self.header.generation,
                        bytes: self.window[self.used..self.used + size_in_window].to_vec(),
                    };
                    self.used += size;
                    self.at += size as u64;
                    return Ok(Next::Record(record));
                }
                // What the window holds may be older than the file.
                Parsed::End | Parsed::NeedsBytes(_) | Parsed::Unreadable if !fresh => {
                    self.window = read_at_most(&self.file, self.at, WINDOW.max(LONGEST_RECORD))
                        .map_err(FileError::at("read", &self.path))?;
                    self.used = 0;
                    fresh = true;
                }
                Parsed::End => return Ok(Next::End),
                Parsed::NeedsBytes(_) | Parsed::Unreadable => return Ok(Next::Unreadable),
            }
        }
    }

    /// Undoes the last `next`.
    fn step_back(&mut self, record: &Record) {
        self.at -= record.bytes.len() as u64;
        self.used -= record.bytes.len();
    }

    /// Whether the file goes on behind the place where the next record should be.
    fn has_more(&self) -> Result<bool, FileError> {
        let length = self.file.metadata().map_err(FileError::at("look at", &self.path))?.len();
        Ok(length > self.at)
    }

    /// Looks at every record from `at` on: raises `durable` to the highest mark, and notes the first
    /// record at or above `wanted` unless one is noted already. Stops when the mark covers `wanted`.
    fn scan(
        self,
        at: u64,
        wanted: Sequence,
        durable: &mut Sequence,
        place: &mut Option<Place>,
    ) -> Result<(), FileError> {
        let mut start = at;
        loop {
            let window = read_at_most(&self.file, start, WINDOW + LONGEST_RECORD)
                .map_err(FileError::at("read", &self.path))?;
            let mut here = 0;
            while here < window.len().min(WINDOW) {
                let rest = &window[here..];
                match parse_record(rest, &self.header) {
                    Parsed::Record { head, size, .. } => {
                        *durable = head.durable.max(*durable);
                        if place.is_none() && head.sequence >= wanted {
                            let segment = Segment {
                                floor: self.floor,
                                path: self.path.clone(),
                                file: self.file.try_clone().map_err(FileError::at("read", &self.path))?,
                                header: self.header,
                                at: start + here as u64,
                                window: Vec::new(),
                                used: 0,
                            };
                            *place = Some(Place { segment, head });
                        }
                        if place.is_some() && *durable >= wanted {
                            return Ok(());
                        }
                        here += size;
                    }
                    Parsed::End | Parsed::NeedsBytes(_) | Parsed::Unreadable => {
                        here += 1 + rest[1..]
                            .windows(RECORD_MARKER.len())
                            .position(|bytes| bytes == RECORD_MARKER)
                            .unwrap_or(rest.len());
                    }
                }
            }
            if window.len() < WINDOW + LONGEST_RECORD {
                return Ok(());
            }
            // A marker may begin in the last bytes of the window.
            start += here.min(window.len() + 1 - RECORD_MARKER.len()) as u64;
        }
    }
}

/// The lowest floor above `floor` of a segment in the directory.
fn later_floor(directory: &Path, floor: Option<Sequence>) -> Result<Option<Sequence>, FileError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FileError::at("list", directory)(error)),
    };
    let mut lowest = None;
    for entry in entries {
        let entry = entry.map_err(FileError::at("list", directory))?;
        if let Some(found) = entry.file_name().to_str().and_then(segment_floor)
            && floor.is_none_or(|floor| found > floor)
            && lowest.is_none_or(|lowest| found < lowest)
        {
            lowest = Some(found);
        }
    }
    Ok(lowest)
}

fn read_at_most(file: &File, at: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut read = 0;
    while read < length {
        match file.read_at(&mut bytes[read..], at + read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(read);
    Ok(bytes)
}

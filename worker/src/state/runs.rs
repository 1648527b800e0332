//! Rows in any order, more than fit in memory, given back in the order of their keys, each key once.
//!
//! ```text
//! push ─▶ rows in memory (16 MiB) ─sort─▶ a run, in a file beside the database    (on another thread)
//! merge: all runs, read in step ─▶ rows that rise
//! ```
//!
//! While one run is sorted and written, the next is filled: memory for two, which is used again and
//! again. The files are of no use to anybody else: they are never synced, and the folder that they lie
//! in is gone when the rows are, or with the generation.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use super::directory::FileError;
use bumpless_os::background::{self, Pace};
use bumpless_os::disk;

/// How much of a run is read or written at once.
const BUFFER: usize = 128 << 10;

/// So many bytes of a run are written before the system is told to bring them to the disk.
const BEHIND: u64 = 1 << 20;

/// Rows in memory, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Rows {
    bytes: Vec<u8>,
    places: Vec<Place>,
}

/// Where a row lies.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// How its key begins: most comparisons need no more, and a row is far away in memory.
    head: u64,
    at: usize,
    key: u32,
    value: u32,
}

impl Rows {
    /// These are the lengths of key and value.
    fn push(&mut self, key: &[u8], value: &[u8], lengths: (u32, u32)) {
        let mut head = [0; 8];
        head.iter_mut().zip(key).for_each(|(head, byte)| *head = *byte);
        let (at, head) = (self.bytes.len(), u64::from_be_bytes(head));
        self.places.push(Place { head, at, key: lengths.0, value: lengths.1 });
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
    }

    fn size(&self) -> usize {
        self.bytes.len() + self.places.len() * size_of::<Place>()
    }

    /// Keeps the memory, for the next ones.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.places.clear();
    }

    fn sort(&mut self) {
        let Rows { bytes, places } = self;
        let key = |place: &Place| &bytes[place.at..place.at + place.key as usize];
        places.sort_unstable_by(|one, two| one.head.cmp(&two.head).then_with(|| key(one).cmp(key(two))));
    }

    fn get(&self, place: &Place) -> (&[u8], &[u8]) {
        let row = &self.bytes[place.at..][..(place.key + place.value) as usize];
        row.split_at(place.key as usize)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Key and value of each.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.places.iter().map(|place| self.get(place))
    }
}

/// Takes rows.
pub(super) struct Runs {
    /// With the beginning of the files' names.
    path: PathBuf,
    rows: Rows,
    /// Gives the memory back.
    writing: Option<JoinHandle<Result<Rows, FileError>>>,
    files: Vec<PathBuf>,
}

impl Runs {
    /// Files will be called like this, with a number behind it.
    pub(super) fn new(path: PathBuf) -> Runs {
        Runs { path, rows: Rows::default(), writing: None, files: Vec::new() }
    }

    pub(super) fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), FileError> {
        let length = |part: &[u8]| {
            let bad = || FileError::at("write", &self.path)(io::ErrorKind::InvalidInput.into());
            u32::try_from(part.len()).map_err(|_| bad())
        };
        let lengths = (length(key)?, length(value)?);
        self.rows.push(key, value, lengths);
        Ok(())
    }

    /// Memory that the rows need which are in no file yet, bytes.
    pub(super) fn size(&self) -> usize {
        self.rows.size()
    }

    /// Moves what is in memory to a file. That the one before could not be written is said here.
    pub(super) fn spill(&mut self) -> Result<(), FileError> {
        let empty = self.written()?;
        if self.rows.is_empty() {
            return Ok(());
        }
        let path = self.path.with_extension(self.files.len().to_string());
        self.files.push(path.clone());
        let mut rows = std::mem::replace(&mut self.rows, empty);
        // It gives way to others like the thread that it comes from.
        let writing = thread::Builder::new().name("runs".to_owned()).spawn({
            let path = path.clone();
            move || {
                rows.sort();
                write(&path, &rows).map_err(FileError::at("write", &path))?;
                rows.clear();
                Ok(rows)
            }
        });
        self.writing = Some(writing.map_err(FileError::at("write", &path))?);
        Ok(())
    }

    /// Waits until the last run is in its file, and has its memory back.
    fn written(&mut self) -> Result<Rows, FileError> {
        match self.writing.take() {
            None => Ok(Rows::default()),
            Some(writing) => writing.join().unwrap_or_else(|panic| resume_unwind(panic)),
        }
    }

    /// All rows. Where a key came more than once, any one of its rows.
    pub(super) fn merge(mut self) -> Result<Merged, FileError> {
        drop(self.written()?);
        let mut sources = Vec::new();
        for path in &self.files {
            let file = File::open(path).map_err(FileError::at("open", path))?;
            // Nobody else needs the name, and so nothing is left behind.
            disk::remove_file(path).map_err(FileError::at("remove", path))?;
            sources.push(Source::File(BufReader::with_capacity(BUFFER, file), path.clone()));
        }
        self.rows.sort();
        sources.push(Source::Memory(self.rows, 0));
        let mut heads = BinaryHeap::with_capacity(sources.len());
        for (source, rows) in sources.iter_mut().enumerate() {
            let mut head = Head { row: Vec::new(), lengths: (0, 0), source };
            if rows.next(&mut head)? {
                heads.push(Reverse(head));
            }
        }
        Ok(Merged { heads, sources, last: None })
    }
}

/// Nobody waits for it to be on the disk; but if much of it went there at once, those would wait who sync an
/// acknowledgement meanwhile. So the system is told of it bit by bit, and others go first.
fn write(path: &Path, rows: &Rows) -> io::Result<()> {
    let file = disk::File::create_new(path, 0o600)?;
    let (mut bytes, mut at) = (Vec::with_capacity(2 * BUFFER), 0);
    let (mut behind, mut pace) = (0, Pace::default());
    for place in &rows.places {
        let (key, value) = rows.get(place);
        bytes.extend_from_slice(&place.key.to_le_bytes());
        bytes.extend_from_slice(&place.value.to_le_bytes());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        if bytes.len() >= BUFFER {
            file.write_all_at(&bytes, at)?;
            at += bytes.len() as u64;
            bytes.clear();
            if at - behind >= BEHIND {
                behind = at;
                // Where the system does not do it, nothing is lost.
                let _ = background::write_behind(path);
            }
            pace.give_way();
        }
    }
    file.write_all_at(&bytes, at)?;
    let _ = background::write_behind(path);
    Ok(())
}

enum Source {
    File(BufReader<File>, PathBuf),
    /// Sorted, and how many of them were taken.
    Memory(Rows, usize),
}

impl Source {
    /// Puts the next row into the head; false at the end.
    fn next(&mut self, head: &mut Head) -> Result<bool, FileError> {
        match self {
            Source::Memory(rows, taken) => {
                let Some(place) = rows.places.get(*taken) else { return Ok(false) };
                *taken += 1;
                let (key, value) = rows.get(place);
                head.lengths = (place.key, place.value);
                head.row.clear();
                head.row.extend_from_slice(key);
                head.row.extend_from_slice(value);
                Ok(true)
            }
            Source::File(file, path) => {
                read(file, head).map_err(|error| FileError::at("read", path.as_path())(error))
            }
        }
    }
}

fn read(file: &mut BufReader<File>, head: &mut Head) -> io::Result<bool> {
    if file.fill_buf()?.is_empty() {
        return Ok(false);
    }
    let mut lengths = [0; 8];
    file.read_exact(&mut lengths)?;
    let [a, b, c, d, e, f, g, h] = lengths;
    let [key, value] = [[a, b, c, d], [e, f, g, h]].map(u32::from_le_bytes);
    head.lengths = (key, value);
    head.row.resize(key as usize + value as usize, 0);
    file.read_exact(&mut head.row)?;
    Ok(true)
}

/// Of each source the next row; the lowest comes first.
struct Head {
    /// Key and value. Its memory is used for one row after the other.
    row: Vec<u8>,
    /// Bytes of either.
    lengths: (u32, u32),
    source: usize,
}

impl Head {
    fn key(&self) -> &[u8] {
        &self.row[..self.lengths.0 as usize]
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Head) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Head) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Head) -> std::cmp::Ordering {
        (self.key(), self.source).cmp(&(other.key(), other.source))
    }
}

/// Gives rows, in order.
pub(super) struct Merged {
    heads: BinaryHeap<Reverse<Head>>,
    sources: Vec<Source>,
    /// The key that was given last.
    last: Option<Vec<u8>>,
}

impl Merged {
    /// Appends the next rows, as many as this; fewer only at the end. Each key is higher than the one before.
    pub(super) fn take(&mut self, count: usize, rows: &mut Rows) -> Result<(), FileError> {
        let mut taken = 0;
        while taken < count {
            let Some(mut lowest) = self.heads.peek_mut() else { break };
            let Head { row, lengths, source } = &lowest.0;
            let (key, value) = row.split_at(lengths.0 as usize);
            let source = &mut self.sources[*source];
            if self.last.as_deref() != Some(key) {
                rows.push(key, value, *lengths);
                let last = self.last.get_or_insert_default();
                last.clear();
                last.extend_from_slice(key);
                taken += 1;
            }
            if !source.next(&mut lowest.0)? {
                PeekMut::pop(lowest);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    type Row = (Vec<u8>, Vec<u8>);

    /// What is left.
    fn all(mut merged: Merged) -> Result<Vec<Row>, FileError> {
        let (mut all, mut batch) = (Vec::new(), Rows::default());
        loop {
            batch.clear();
            merged.take(7, &mut batch)?;
            if batch.is_empty() {
                return Ok(all);
            }
            all.extend(batch.iter().map(|(key, value)| (key.to_vec(), value.to_vec())));
        }
    }

    #[test]
    fn rows_of_many_runs_come_back_in_order_and_each_key_once_and_no_file_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let mut runs = Runs::new(folder.path().join("run"));
        // Short ones and long ones that begin alike.
        let key = |number: u32| {
            let scattered = number.wrapping_mul(0x9e37_79b9).to_be_bytes();
            [if number.is_multiple_of(2) { &b""[..] } else { b"all of them" }, &scattered].concat()
        };
        for number in (0..1000).chain(300..700) {
            runs.push(&key(number), &vec![7; number as usize % 50]).unwrap();
            if number % 130 == 0 {
                runs.spill().unwrap();
            }
        }
        assert!(runs.size() > 0);
        drop(runs.written().unwrap());
        assert!(fs::read_dir(folder.path()).unwrap().count() > 8);
        let merged = runs.merge().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut expected: Vec<Row> =
            (0..1000).map(|number| (key(number), vec![7; number as usize % 50])).collect();
        expected.sort();
        assert_eq!(all(merged).unwrap(), expected);
    }

    #[test]
    fn nothing_and_a_run_that_is_cut_short() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        assert!(all(Runs::new(path.clone()).merge().unwrap()).unwrap().is_empty());
        let mut runs = Runs::new(path.clone());
        runs.push(&[1], &[2; 20]).unwrap();
        runs.spill().unwrap();
        drop(runs.written().unwrap());
        let file = path.with_extension("0");
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[..whole.len() - 1]).unwrap();
        assert!(runs.merge().is_err());
    }
}

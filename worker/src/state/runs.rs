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

use bumpless_os::{background, disk};
use fjall::{UserKey, UserValue};

use super::directory::FileError;

/// How much of a run is read or written at once.
const BUFFER: usize = 128 << 10;

pub(super) type Row = (UserKey, UserValue);

/// Rows in memory, one behind the other.
#[derive(Debug, Default)]
struct Rows {
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
    fn push(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let length = |part: &[u8]| u32::try_from(part.len()).map_err(|_| io::ErrorKind::InvalidInput);
        let mut head = [0; 8];
        head.iter_mut().zip(key).for_each(|(head, byte)| *head = *byte);
        let (at, head) = (self.bytes.len(), u64::from_be_bytes(head));
        self.places.push(Place { head, at, key: length(key)?, value: length(value)? });
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        Ok(())
    }

    fn size(&self) -> usize {
        self.bytes.len() + self.places.len() * size_of::<Place>()
    }

    fn clear(&mut self) {
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
        self.rows.push(key, value).map_err(FileError::at("write", &self.path))
    }

    /// Memory that the rows need which are in no file yet, bytes.
    pub(super) fn size(&self) -> usize {
        self.rows.size()
    }

    /// Moves what is in memory to a file. That the one before could not be written is said here.
    pub(super) fn spill(&mut self) -> Result<(), FileError> {
        let empty = self.written()?;
        if self.rows.places.is_empty() {
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
        let mut merged = Merged { heads: BinaryHeap::new(), sources, bytes: Vec::new(), last: None };
        for source in 0..merged.sources.len() {
            if let Some((key, value)) = merged.sources[source].next(&mut merged.bytes)? {
                merged.heads.push(Reverse(Head { key, value, source }));
            }
        }
        Ok(merged)
    }
}

fn write(path: &Path, rows: &Rows) -> io::Result<()> {
    let file = disk::File::create_new(path, 0o600)?;
    let (mut bytes, mut at) = (Vec::with_capacity(2 * BUFFER), 0);
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
        }
    }
    file.write_all_at(&bytes, at)?;
    // Nobody waits for it to be on the disk; but if much of it had to go there at once, those would wait
    // who sync an acknowledgement meanwhile. Where the system does not do it, nothing is lost.
    let _ = background::write_behind(path);
    Ok(())
}

enum Source {
    File(BufReader<File>, PathBuf),
    /// Sorted, and how many of them were taken.
    Memory(Rows, usize),
}

impl Source {
    /// The next row; `bytes` is room to read it in.
    fn next(&mut self, bytes: &mut Vec<u8>) -> Result<Option<Row>, FileError> {
        match self {
            Source::Memory(rows, taken) => {
                let row = rows.places.get(*taken).map(|place| rows.get(place));
                *taken += 1;
                Ok(row.map(|(key, value)| (key.into(), value.into())))
            }
            Source::File(file, path) => read(file, bytes).map_err(FileError::at("read", path.as_path())),
        }
    }
}

fn read(file: &mut BufReader<File>, bytes: &mut Vec<u8>) -> io::Result<Option<Row>> {
    if file.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut lengths = [0; 8];
    file.read_exact(&mut lengths)?;
    let [a, b, c, d, e, f, g, h] = lengths;
    let [key, value] = [[a, b, c, d], [e, f, g, h]].map(|length| u32::from_le_bytes(length) as usize);
    bytes.resize(key + value, 0);
    file.read_exact(bytes)?;
    Ok(Some((bytes[..key].into(), bytes[key..].into())))
}

/// Of each source the next row; the lowest comes first.
struct Head {
    key: UserKey,
    value: UserValue,
    source: usize,
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
        (&self.key, self.source).cmp(&(&other.key, other.source))
    }
}

/// Gives rows, in order.
pub(super) struct Merged {
    heads: BinaryHeap<Reverse<Head>>,
    sources: Vec<Source>,
    bytes: Vec<u8>,
    last: Option<UserKey>,
}

impl Merged {
    /// The next row; its key is higher than the one before.
    fn next(&mut self) -> Result<Option<Row>, FileError> {
        loop {
            let Some(mut lowest) = self.heads.peek_mut() else { return Ok(None) };
            let source = lowest.0.source;
            let Head { key, value, .. } = match self.sources[source].next(&mut self.bytes)? {
                Some((key, value)) => std::mem::replace(&mut lowest.0, Head { key, value, source }),
                None => PeekMut::pop(lowest).0,
            };
            if self.last.as_ref() != Some(&key) {
                self.last = Some(key.clone());
                return Ok(Some((key, value)));
            }
        }
    }

    /// The next rows, as many as this; fewer only at the end.
    pub(super) fn take(&mut self, count: usize) -> Result<Vec<Row>, FileError> {
        let mut rows = Vec::with_capacity(count);
        while rows.len() < count {
            let Some(row) = self.next()? else { break };
            rows.push(row);
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

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
        let mut merged = runs.merge().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut expected: Vec<(Vec<u8>, usize)> =
            (0..1000).map(|number| (key(number), number as usize % 50)).collect();
        expected.sort();
        for (key, length) in expected {
            let (found, value) = merged.next().unwrap().unwrap();
            assert_eq!((found.to_vec(), value.len()), (key, length));
        }
        assert!(merged.next().unwrap().is_none());
    }

    #[test]
    fn nothing_and_a_run_that_is_cut_short() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        assert!(Runs::new(path.clone()).merge().unwrap().next().unwrap().is_none());
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

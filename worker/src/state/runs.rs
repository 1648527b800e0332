//! Rows in any order, more than fit in memory, given back in the order of their keys, each key once.
//!
//! ```text
//! push ─▶ rows in memory (16 MiB) ─sort─▶ a run, in a file beside the database
//! merge: all runs, read in step ─▶ rows that rise
//! ```
//!
//! The files are of no use to anybody else: they are never synced, and the folder that they lie in is
//! gone when the rows are, or with the generation.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use bumpless_os::disk;
use fjall::{UserKey, UserValue};

use super::directory::FileError;

/// What a row costs in memory beside its key and value.
const ROW: usize = 96;

/// How much of a run is read or written at once.
const BUFFER: usize = 128 << 10;

type Row = (UserKey, UserValue);

/// Takes rows.
pub(super) struct Runs {
    /// With the beginning of the files' names.
    path: PathBuf,
    rows: Vec<Row>,
    size: usize,
    files: Vec<PathBuf>,
}

impl Runs {
    /// Files will be called like this, with a number behind it.
    pub(super) fn new(path: PathBuf) -> Runs {
        Runs { path, rows: Vec::new(), size: 0, files: Vec::new() }
    }

    pub(super) fn push(&mut self, key: UserKey, value: UserValue) {
        self.size += key.len() + value.len() + ROW;
        self.rows.push((key, value));
    }

    /// Memory that the rows need which are in no file yet, bytes.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Moves what is in memory to a file.
    pub(super) fn spill(&mut self) -> Result<(), FileError> {
        let rows = self.sorted();
        if rows.is_empty() {
            return Ok(());
        }
        let path = self.path.with_extension(self.files.len().to_string());
        write(&path, &rows).map_err(FileError::at("write", &path))?;
        self.files.push(path);
        Ok(())
    }

    /// All rows. Where a key came more than once, any one of its rows.
    pub(super) fn merge(mut self) -> Result<Merged, FileError> {
        let mut sources = Vec::new();
        for path in &self.files {
            let file = File::open(path).map_err(FileError::at("open", path))?;
            // Nobody else needs the name, and so nothing is left behind.
            disk::remove_file(path).map_err(FileError::at("remove", path))?;
            sources.push(Source::File(BufReader::with_capacity(BUFFER, file), path.clone()));
        }
        sources.push(Source::Memory(self.sorted().into_iter()));
        let mut merged = Merged { heads: BinaryHeap::new(), sources, bytes: Vec::new(), last: None };
        for source in 0..merged.sources.len() {
            merged.refill(source)?;
        }
        Ok(merged)
    }

    fn sorted(&mut self) -> Vec<Row> {
        self.size = 0;
        let mut rows = std::mem::take(&mut self.rows);
        rows.sort_unstable_by(|(one, _), (two, _)| one.cmp(two));
        rows
    }
}

fn write(path: &Path, rows: &[Row]) -> io::Result<()> {
    let file = disk::File::create_new(path, 0o600)?;
    let (mut bytes, mut at) = (Vec::with_capacity(2 * BUFFER), 0);
    for (key, value) in rows {
        for part in [key.as_ref(), value.as_ref()] {
            let length = u32::try_from(part.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
            bytes.extend_from_slice(&length.to_le_bytes());
        }
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        if bytes.len() >= BUFFER {
            file.write_all_at(&bytes, at)?;
            at += bytes.len() as u64;
            bytes.clear();
        }
    }
    file.write_all_at(&bytes, at)
}

enum Source {
    File(BufReader<File>, PathBuf),
    Memory(std::vec::IntoIter<Row>),
}

impl Source {
    /// The next row; `bytes` is room to read it in.
    fn next(&mut self, bytes: &mut Vec<u8>) -> Result<Option<Row>, FileError> {
        match self {
            Source::Memory(rows) => Ok(rows.next()),
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
    pub(super) fn next(&mut self) -> Result<Option<Row>, FileError> {
        while let Some(Reverse(Head { key, value, source })) = self.heads.pop() {
            self.refill(source)?;
            if self.last.as_ref() != Some(&key) {
                self.last = Some(key.clone());
                return Ok(Some((key, value)));
            }
        }
        Ok(None)
    }

    fn refill(&mut self, source: usize) -> Result<(), FileError> {
        if let Some((key, value)) = self.sources[source].next(&mut self.bytes)? {
            self.heads.push(Reverse(Head { key, value, source }));
        }
        Ok(())
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
        let key = |number: u32| (number.wrapping_mul(0x9e37_79b9)).to_be_bytes();
        for number in (0..1000).chain(300..700) {
            runs.push(key(number).into(), vec![7; number as usize % 50].into());
            if number % 130 == 0 {
                runs.spill().unwrap();
            }
        }
        assert!(runs.size() > 0);
        assert!(fs::read_dir(folder.path()).unwrap().count() > 8);
        let mut merged = runs.merge().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut expected: Vec<(Vec<u8>, usize)> =
            (0..1000).map(|number| (key(number).to_vec(), number as usize % 50)).collect();
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
        runs.push([1].into(), [2; 20].into());
        runs.spill().unwrap();
        let file = path.with_extension("0");
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[..whole.len() - 1]).unwrap();
        assert!(runs.merge().is_err());
    }
}

//! `history.jsonl`: one line of JSON per thing that happened.
//!
//! It tells and decides nothing, so it is appended without a sync and a line lost with the power is no
//! damage. A line that was torn is skipped by readers and closed by the next writer. Above
//! a megabyte the file becomes `history.jsonl.1`, over the one before.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use bumpless_control::history::Entry;
use bumpless_os::disk;

use super::file::RecordError;
use super::paths::Paths;

/// Size at which a file is full: some four thousand things that happened.
const ROTATE: u64 = 1024 * 1024;

/// The files.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    rotate: u64,
}

impl History {
    /// Opens nothing yet.
    pub fn open(paths: &Paths) -> History {
        History { path: paths.history(), rotate: ROTATE }
    }

    /// Adds a line.
    ///
    /// # Errors
    /// It cannot be written; nothing depends on it.
    pub fn append(&self, entry: &Entry) -> Result<(), RecordError> {
        self.write(entry).map_err(|source| RecordError::Write {
            what: "history",
            path: self.path.clone(),
            source,
        })
    }

    fn write(&self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry).map_err(io::Error::other)?;
        line.push(b'\n');
        if std::fs::metadata(&self.path).is_ok_and(|file| file.len() + line.len() as u64 > self.rotate) {
            disk::rename(&self.path, &self.old())?;
        }
        let mut file = disk::File::append(&self.path, 0o644)?;
        let length = file.std().metadata()?.len();
        if length > 0 {
            let mut last = [b'\n'];
            file.std().read_exact_at(&mut last, length - 1)?;
            if last != *b"\n" {
                line.insert(0, b'\n');
            }
        }
        file.write_all(&line)
    }

    /// The newest `count` entries, oldest first. Lines that are no entries are left out.
    ///
    /// # Errors
    /// A file that is there and cannot be read.
    pub fn newest(&self, count: usize) -> Result<Vec<Entry>, RecordError> {
        let mut entries = Vec::new();
        for path in [self.path.clone(), self.old()] {
            if entries.len() >= count {
                break;
            }
            let bytes =
                self.read(&path).map_err(|source| RecordError::Read { what: "history", path, source })?;
            let lines = bytes.split(|byte| *byte == b'\n').rev();
            let read = lines.filter_map(|line| serde_json::from_slice::<Entry>(line).ok());
            entries.extend(read.take(count - entries.len()));
        }
        entries.reverse();
        Ok(entries)
    }

    fn read(&self, path: &std::path::Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            // Somebody else may have made it longer than we ever do.
            Ok(mut file) => {
                let from = file.metadata()?.len().saturating_sub(2 * self.rotate);
                file.seek(SeekFrom::Start(from))?;
                file.take(2 * self.rotate).read_to_end(&mut bytes)?;
            }
        }
        Ok(bytes)
    }

    fn old(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".1");
        name.into()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bumpless_control::history::Event;
    use std::fs::OpenOptions;

    fn history(dir: &std::path::Path, rotate: u64) -> History {
        History { rotate, ..History::open(&Paths::new(dir, dir)) }
    }

    fn times(entries: &[Entry]) -> Vec<u64> {
        entries.iter().map(|entry| entry.at).collect()
    }

    #[test]
    fn the_newest_come_back_in_their_order_over_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let history = history(dir.path(), 200);
        assert!(history.newest(5).unwrap().is_empty());
        for at in 0..50 {
            history.append(&Entry::new(at, Event::Held)).unwrap();
        }
        assert_eq!(times(&history.newest(3).unwrap()), [47, 48, 49]);
        let all = times(&history.newest(1000).unwrap());
        assert!(all.len() >= 4 && all.is_sorted() && all.ends_with(&[48, 49]), "{all:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        let size = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(size("history.jsonl") <= 200 && size("history.jsonl.1") <= 200);
    }

    #[test]
    fn a_torn_line_is_skipped_and_does_not_spoil_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let history = history(dir.path(), ROTATE);
        history.append(&Entry::new(1, Event::Cut)).unwrap();
        let mut file = OpenOptions::new().append(true).open(dir.path().join("history.jsonl")).unwrap();
        file.write_all(b"{\"schema\":1,\"at\":2,\"ev").unwrap();
        assert_eq!(times(&history.newest(9).unwrap()), [1]);
        history.append(&Entry::new(3, Event::Committed)).unwrap();
        assert_eq!(times(&history.newest(9).unwrap()), [1, 3]);
    }
}

//! The files that the demo stores: real ones that every machine with a Rust toolchain has.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use bumpless_shared::digest::Digest;
use bumpless_worker::client::Client;

/// Most bytes that are taken where no folder was named.
pub const DEFAULT_LIMIT: u64 = 300_000_000;

/// A file to store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its bytes.
    pub length: u64,
}

/// There is nothing to store.
#[derive(Debug)]
pub enum DataError {
    /// The toolchain does not say where it is.
    NoToolchain(String),
    /// The folder cannot be read.
    Read(PathBuf, io::Error),
    /// It holds no file.
    Empty(PathBuf),
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DataError::NoToolchain(why) => {
                write!(
                    f,
                    "cannot find the Rust toolchain's library folder ({why}): name a folder with --data DIR"
                )
            }
            DataError::Read(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            DataError::Empty(path) => write!(f, "{} holds no file to store", path.display()),
        }
    }
}

impl std::error::Error for DataError {}

/// The library folder of the running toolchain.
///
/// # Errors
/// [`DataError::NoToolchain`].
pub fn toolchain_library() -> Result<PathBuf, DataError> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(["--print", "sysroot"]).output();
    let output = output.map_err(|error| DataError::NoToolchain(error.to_string()))?;
    if !output.status.success() {
        return Err(DataError::NoToolchain(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()).join("lib"))
}

/// The folder's files in name order. With a limit, a file that would go beyond it is passed over, and
/// smaller ones after it still come.
///
/// # Errors
/// A folder that cannot be read, or that holds no file.
pub fn files(folder: &Path, limit: Option<u64>) -> Result<Vec<DataFile>, DataError> {
    let mut all = Vec::new();
    walk(folder, &mut all)?;
    let mut left = limit.unwrap_or(u64::MAX);
    all.retain(|file: &DataFile| {
        let fits = file.length <= left;
        left -= if fits { file.length } else { 0 };
        fits
    });
    if all.is_empty() { Err(DataError::Empty(folder.to_owned())) } else { Ok(all) }
}

/// Reads a stored file back and compares it with the original, piece by piece.
///
/// # Errors
/// In words: it cannot be read, or differs.
pub async fn same(client: &Client, name: Digest, file: &DataFile) -> Result<(), String> {
    let original = File::open(&file.path).map_err(|error| format!("the original cannot be read: {error}"))?;
    let mut compared = Compared { original, differs: false };
    let length = client.get_file(name, &mut compared, |_, _| ()).await.map_err(|error| error.to_string())?;
    if compared.differs || length != file.length {
        Err("other content than was stored".to_owned())
    } else {
        Ok(())
    }
}

/// Takes bytes and compares them with a file's, so that neither is ever whole in memory.
struct Compared {
    original: File,
    differs: bool,
}

impl Write for Compared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut original = vec![0; bytes.len()];
        self.differs |= self.original.read_exact(&mut original).is_err() || original != bytes;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn walk(folder: &Path, all: &mut Vec<DataFile>) -> Result<(), DataError> {
    let failed = |error| DataError::Read(folder.to_owned(), error);
    let entries = std::fs::read_dir(folder).map_err(failed)?;
    let mut entries = entries.collect::<io::Result<Vec<_>>>().map_err(failed)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            walk(&entry.path(), all)?;
        } else if kind.is_file() {
            all.push(DataFile { path: entry.path(), length: entry.metadata().map_err(failed)?.len() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn files_come_in_name_order_and_as_many_as_fit() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("b")).unwrap();
        for (name, length) in [("c", 5), ("a", 4), ("b/x", 100)] {
            std::fs::write(folder.path().join(name), vec![0; length]).unwrap();
        }
        let names = |limit| -> Vec<u64> {
            files(folder.path(), limit).unwrap().iter().map(|file| file.length).collect()
        };
        assert_eq!(names(None), [4, 100, 5]);
        assert_eq!(names(Some(10)), [4, 5]);
        assert!(matches!(files(folder.path(), Some(1)), Err(DataError::Empty(_))));
        assert!(matches!(files(&folder.path().join("none"), None), Err(DataError::Read(..))));
    }
}

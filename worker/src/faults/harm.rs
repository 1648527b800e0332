//! A worker that lays hands on another one's files.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Whose files they are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Files {
    /// The database of the other worker's generation.
    Database,
    /// The chunk files of the other worker's generation; most are hard links of its own.
    Chunks,
    /// The logbooks of other terms than its own.
    Logbook,
}

/// What is done to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Harm {
    /// In the place of every page's beginning stands something else.
    Scribble,
    /// Half of each is gone.
    Truncate,
    /// They are gone.
    Delete,
}

/// Between two places that are scribbled on.
const PAGE: u64 = 4096;

impl Harm {
    /// Does it to every file below a folder; returns to how many.
    ///
    /// # Errors
    /// Those of the first file that withstood.
    pub(crate) fn below(self, folder: &Path) -> io::Result<usize> {
        let mut count = 0;
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                count += self.below(&path)?;
            } else {
                self.done_to(&path)?;
                count += 1;
            }
        }
        Ok(count)
    }

    fn done_to(self, path: &Path) -> io::Result<()> {
        if self == Harm::Delete {
            return fs::remove_file(path);
        }
        // Read-only is no hindrance to the owner.
        fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
        let file = fs::OpenOptions::new().write(true).open(path)?;
        let length = file.metadata()?.len();
        match self {
            Harm::Scribble => {
                let mut at = 0;
                while at < length {
                    let place = b"scribbled".len().min((length - at) as usize);
                    file.write_all_at(&b"scribbled"[..place], at)?;
                    at += PAGE;
                }
            }
            Harm::Truncate => file.set_len(length / 2)?,
            Harm::Delete => {}
        }
        (&file).flush()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn every_file_below_is_harmed_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("sub/two"));
        fs::create_dir(dir.path().join("sub")).unwrap();
        for path in [&one, &two] {
            fs::write(path, vec![0; 5000]).unwrap();
        }
        fs::set_permissions(&two, fs::Permissions::from_mode(0o444)).unwrap();
        assert_eq!(Harm::Scribble.below(dir.path()).unwrap(), 2);
        let bytes = fs::read(&two).unwrap();
        assert_eq!(
            (bytes.len(), &bytes[..9], &bytes[4096..4105]),
            (5000, &b"scribbled"[..], &b"scribbled"[..])
        );
        assert_eq!(Harm::Truncate.below(dir.path()).unwrap(), 2);
        assert_eq!(fs::metadata(&one).unwrap().len(), 2500);
        assert_eq!(Harm::Delete.below(dir.path()).unwrap(), 2);
        assert!(!one.exists() && !two.exists());
    }
}

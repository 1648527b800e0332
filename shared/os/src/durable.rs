//! Files that are there after a power loss, whole or not at all.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

use crate::disk::{self, sync_dir};

/// Replaces a file's content: after a crash at any point the old or the new content is there, whole.
/// When this returns, the new one is.
///
/// # Errors
/// Those of writing, syncing and renaming. Until the rename the old content stands; an error of the
/// last step, syncing the directory, leaves open which of the two a power loss would show.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let aside = aside(path);
    let mut file = disk::File::create(&aside, mode)?;
    file.write_all(content)?;
    file.sync_all()?;
    disk::rename(&aside, path)?;
    sync_dir(parent(path))
}

/// Makes a file that is not there yet: after a crash at any point it is there, whole, or not at all. When this
/// returns, it is.
///
/// # Errors
/// `AlreadyExists`, and what is there is as it was; those of writing, syncing and linking.
pub fn create(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let aside = aside(path);
    let mut file = disk::File::create(&aside, mode)?;
    file.write_all(content)?;
    file.sync_all()?;
    let linked = disk::hard_link(&aside, path);
    disk::remove_file(&aside)?;
    linked?;
    sync_dir(parent(path))
}

/// The name that [`create`] and [`replace`] write under before the file gets its own.
pub fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

/// A path's directory; `.` for a bare name.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        Some(_) | None => Path::new("."),
    }
}

/// Makes a directory and its missing parents, each entry durable. One that is there may have been made
/// by a process that died before it could sync the entry.
///
/// # Errors
/// Those of making and syncing directories.
pub fn create_dirs(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return sync_found(parent(dir));
    }
    create_dirs(parent(dir))?;
    match disk::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    sync_dir(parent(dir))
}

/// Syncs a directory that may be another's: where we may not read, or where nothing can be written, no
/// entry is ours.
fn sync_found(dir: &Path) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem};
    match sync_dir(dir) {
        Err(error) if matches!(error.kind(), PermissionDenied | InvalidInput | ReadOnlyFilesystem) => Ok(()),
        other => other,
    }
}

/// Bytes that an unprivileged process may still write to the file system that holds `path`.
///
/// # Errors
/// Those of `statvfs`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = statvfs(path)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_replaced_file_has_the_new_content_and_nothing_is_left_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("committed");
        replace(&path, b"one", 0o600).unwrap();
        replace(&path, b"two", 0o600).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_there_is_not_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root.json");
        create(&path, b"one", 0o644).unwrap();
        assert_eq!(create(&path, b"two", 0o644).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_replacement_that_fails_leaves_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("committed");
        replace(&path, b"one", 0o600).unwrap();
        std::fs::create_dir(aside(&path)).unwrap();
        assert!(replace(&path, b"two", 0o600).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
    }
}

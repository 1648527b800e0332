//! A folder as a feed: the same names below a path. As little trusted as any server.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

use super::error::FeedError;

/// A regular file. Opening must not hang on a named pipe that someone put there.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

/// At most `limit` bytes of this file of a feed; `None` if there is no such file, in a folder that has roots, as
/// every feed does: a stick that was pulled out has not said "not found" to anything.
pub(super) fn read(feed: &Path, name: &Path, limit: u64) -> Result<Option<Vec<u8>>, FeedError> {
    let path = feed.join(name);
    let failed = |source| FeedError::Folder { path: path.clone(), source };
    let file = match open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound && feed.join("root").is_dir() => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    // One byte more than allowed is enough to be refused for it.
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(bytes))
}

/// Copies what is behind the first `from` bytes; of the whole file at most `limit` bytes and one.
pub(super) fn copy(path: &Path, from: u64, limit: u64, to: &mut File) -> Result<(), FeedError> {
    let failed = |source| FeedError::Folder { path: path.to_owned(), source };
    let mut file = open(path).map_err(failed)?;
    file.seek(SeekFrom::Start(from)).map_err(failed)?;
    let mut from = file.take(limit.saturating_sub(from).saturating_add(1));
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match from.read(&mut buffer).map_err(failed)? {
            0 => return Ok(()),
            read => to
                .write_all(&buffer[..read])
                .map_err(|source| FeedError::Staging { path: path.to_owned(), source })?,
        }
    }
}

//! Files that appear whole or not at all.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Everyone: it is published.
    All,
    /// Its owner: it is secret.
    Owner,
}

impl Readers {
    fn mode(self) -> u32 {
        match self {
            Readers::All => 0o644,
            Readers::Owner => 0o600,
        }
    }
}

/// The folder that a file lies in: for a bare name, the current one.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

/// A file that is not there until [`Aside::publish`]; dropped before that, it is removed.
#[derive(Debug)]
pub struct Aside {
    file: File,
    path: PathBuf,
    published: bool,
}

impl Aside {
    /// Begins a file in `folder`, which must be the one it will end in.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn begin(folder: &Path, readers: Readers) -> io::Result<Self> {
        for number in 0u32.. {
            let path = folder.join(format!(".{}-{number}.aside", std::process::id()));
            match OpenOptions::new().read(true).write(true).create_new(true).mode(readers.mode()).open(&path)
            {
                Ok(file) => {
                    // The mode at creation is subject to the umask; this one is not.
                    file.set_permissions(Permissions::from_mode(readers.mode()))?;
                    return Ok(Aside { file, path, published: false });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Makes it durable under its name, replacing what was there.
    ///
    /// # Errors
    /// It cannot be synced or renamed; then nothing is there that was not before.
    pub fn publish(mut self, path: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, path)?;
        self.published = true;
        File::open(folder(path))?.sync_all()
    }
}

impl Write for Aside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.published {
            // What stays behind is a hidden file that nothing refers to.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Writes a whole file.
///
/// # Errors
/// As [`Aside`].
pub fn write(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<()> {
    let mut aside = Aside::begin(folder(path), readers)?;
    aside.write_all(bytes)?;
    aside.publish(path)
}

//! A disk that can be really full, at any moment, and have room again.
//!
//! A part of a world's files lies on a file system in memory of limited size, which only the world's
//! processes see; they find it full because it is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::world::{Result, World};

/// Which files lie on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All.
    All,
    /// The supervisor's: records, releases, what workers print; not the workers' state.
    Records,
    /// The workers' state.
    State,
    /// Their logbooks alone.
    Logbooks,
}

/// A file system of limited size.
#[derive(Clone, Debug)]
pub struct SmallDisk {
    folder: PathBuf,
}

/// What takes the room away.
const BALLAST: &str = "ballast";

impl SmallDisk {
    /// Has this part of the world's files lie on one of so many bytes. To be called before the
    /// supervisor is first started, once for each part. `None` where the kernel does not let us.
    ///
    /// # Errors
    /// Those of mounting.
    pub fn mount(world: &mut World, part: Part, bytes: u64) -> Result<Option<SmallDisk>> {
        let state = world.state_dir().to_owned();
        let aside = world.folder().join("aside");
        let Some(namespace) = world.namespace()? else { return Ok(None) };
        let at = match part {
            Part::All | Part::Records => state,
            Part::State => state.join("state"),
            Part::Logbooks => state.join("state/log"),
        };
        fs::create_dir_all(namespace.seen(&at))?;
        let (path, options) = (at.display().to_string(), format!("size={bytes},mode=0755"));
        namespace.run(&["mount", "-t", "tmpfs", "-o", &options, "tmpfs", &path])?;
        let folder = namespace.seen(&at);
        if part == Part::Records {
            fs::create_dir_all(&aside)?;
            fs::create_dir_all(folder.join("state"))?;
            let inside = at.join("state").display().to_string();
            namespace.run(&["mount", "--bind", &aside.display().to_string(), &inside])?;
        }
        Ok(Some(SmallDisk { folder }))
    }

    /// Its folder, as it is seen from here.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes all of its room.
    ///
    /// # Errors
    /// Those of writing, other than that there is no room.
    pub fn fill(&self) -> io::Result<()> {
        self.fill_but(0)
    }

    /// Takes all of its room but so many bytes.
    ///
    /// # Errors
    /// Those of writing, other than that there is no room.
    pub fn fill_but(&self, keep: u64) -> io::Result<()> {
        let mut ballast = OpenOptions::new().append(true).create(true).open(self.folder.join(BALLAST))?;
        let page = vec![0; 64 * 1024];
        loop {
            let left = self.room()?.saturating_sub(keep);
            let part = page.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match ballast.write(&page[..part]) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives the room back.
    ///
    /// # Errors
    /// Those of removing.
    pub fn free(&self) -> io::Result<()> {
        match fs::remove_file(self.folder.join(BALLAST)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Bytes that are free.
    ///
    /// # Errors
    /// Those of asking.
    pub fn room(&self) -> io::Result<u64> {
        bumpless_os::durable::free_bytes(&self.folder)
    }

    /// Whether it is as full as it says: not one byte more can be written.
    ///
    /// # Errors
    /// Those of writing, other than that there is no room.
    pub fn is_full(&self) -> io::Result<bool> {
        let path = self.folder.join("probe");
        let full = match File::create(&path).and_then(|mut file| file.write_all(&[0])) {
            Ok(()) => false,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => true,
            Err(error) => return Err(error),
        };
        fs::remove_file(path).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        Ok(full)
    }
}

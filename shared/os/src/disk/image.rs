//! Trees on a real disk: written there, copied from there, held against what is there.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use super::model::{Ino, Log, Node, Op, ROOT, Tree};

/// Makes the tree at `root`, which must not be there yet.
pub(super) fn write(log: &Log, tree: &Tree, root: &Path) -> io::Result<()> {
    fs::create_dir(root)?;
    directory(log, tree, ROOT, root, &mut BTreeMap::new())
}

fn directory(
    log: &Log,
    tree: &Tree,
    dir: Ino,
    path: &Path,
    named: &mut BTreeMap<Ino, PathBuf>,
) -> io::Result<()> {
    for (name, ino) in tree.dirs.get(&dir).into_iter().flatten() {
        let path = path.join(name);
        match &log.nodes[*ino] {
            Node::Directory => {
                fs::create_dir(&path)?;
                directory(log, tree, *ino, &path, named)?;
            }
            Node::Symlink { target } => symlink(target, &path)?,
            Node::Foreign => match tree.foreign.get(ino).map(|index| &log.ops[*index].0) {
                Some(Op::Foreign { copy, .. }) => self::copy(copy, &path)?,
                Some(_) | None => fs::create_dir(&path)?,
            },
            Node::File { mode } => {
                if let Some(known) = named.get(ino) {
                    fs::hard_link(known, &path)?;
                    continue;
                }
                fs::write(&path, tree.content(*ino, &log.ops))?;
                let mode = tree.modes.get(ino).unwrap_or(mode);
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode))?;
                named.insert(*ino, path);
            }
        }
    }
    Ok(())
}

/// Where what is at `root` differs from what was recorded, in words.
pub(super) fn differences(log: &Log, dir: Ino, path: &Path, found: &mut Vec<String>) -> io::Result<()> {
    let names = log.now.dirs.get(&dir).cloned().unwrap_or_default();
    let mut real = Vec::new();
    for entry in fs::read_dir(path)? {
        real.push(entry?.file_name());
    }
    for name in &real {
        if !names.contains_key(name) {
            found.push(format!("{} is there", path.join(name).display()));
        }
    }
    for (name, ino) in names {
        let path = path.join(&name);
        if !real.contains(&name) {
            found.push(format!("{} is not there", path.display()));
            continue;
        }
        match &log.nodes[ino] {
            Node::Directory => differences(log, ino, &path, found)?,
            Node::Foreign => {}
            Node::Symlink { target } => {
                if fs::read_link(&path)? != *target {
                    found.push(format!("{} points elsewhere", path.display()));
                }
            }
            Node::File { .. } => {
                if fs::read(&path)? != log.now.content(ino, &log.ops) {
                    found.push(format!("{} has other bytes", path.display()));
                }
            }
        }
    }
    Ok(())
}

/// Copies a directory that its library's own threads may be changing: a copy counts if nothing changed
/// while it was made.
pub(super) fn copy_at_rest(from: &Path, to: &Path) -> io::Result<()> {
    const TRIES: usize = 1000;
    for _ in 0..TRIES {
        let copied = files(from).and_then(|before| {
            copy(from, to)?;
            Ok(files(from)? == before)
        });
        match copied {
            Ok(true) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(false) | Err(_) => match fs::remove_dir_all(to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            },
        }
    }
    Err(io::Error::other(format!("{} does not come to rest", from.display())))
}

/// Everything by which a change of a file shows.
fn files(dir: &Path) -> io::Result<BTreeMap<PathBuf, (u64, u64, i64, i64)>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let about = fs::symlink_metadata(&path)?;
        if about.is_dir() {
            found.extend(files(&path)?);
        }
        found.insert(path, (about.ino(), about.len(), about.ctime(), about.ctime_nsec()));
    }
    Ok(found)
}

/// Copies a directory with everything in it; holes stay holes.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            copy_file(&entry.path(), &target)?;
        }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let (source, target) = (fs::File::open(from)?, fs::File::create_new(to)?);
    target.set_len(source.metadata()?.len())?;
    let mut end = 0;
    loop {
        let begin = match lseek(&source, end, Whence::SeekData) {
            Ok(begin) => begin,
            Err(Errno::ENXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        end = lseek(&source, begin, Whence::SeekHole)?;
        let (at, length) = (begin.cast_unsigned(), (end - begin).cast_unsigned());
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        source.read_exact_at(&mut bytes, at)?;
        target.write_all_at(&bytes, at)?;
    }
}

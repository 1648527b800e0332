//! What was done to a directory tree, step by step, and what of it is durable where.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use super::{Foreign, Synced};

/// A file or directory, whatever its names are.
pub(super) type Ino = usize;

pub(super) const ROOT: Ino = 0;

#[derive(Clone, Debug)]
pub(super) enum Node {
    File {
        mode: u32,
    },
    Directory,
    Symlink {
        target: PathBuf,
    },
    /// A directory that another library keeps; its copies are in the steps.
    Foreign,
}

#[derive(Clone, Debug)]
pub(super) enum Op {
    Name { dir: Ino, name: OsString, ino: Ino },
    Unname { dir: Ino, name: OsString },
    Rename { from: (Ino, OsString), to: (Ino, OsString), ino: Ino },
    Write { ino: Ino, at: u64, bytes: Vec<u8> },
    Empty { ino: Ino },
    Mode { ino: Ino, mode: u32 },
    Sync { ino: Ino, what: Synced },
    Foreign { ino: Ino, copy: PathBuf, state: Foreign },
    Mark,
}

/// What becomes of a step that was not durable when the power failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fate {
    /// It reached the disk.
    Whole,
    /// It did not.
    Dropped,
    /// Some of the bytes did, from the first on.
    Torn { kept: usize },
    /// The length did, the bytes did not.
    Zeroed,
}

/// The steps in their order, with words for people, and the nodes that they speak of.
#[derive(Clone, Debug)]
pub(super) struct Log {
    pub(super) nodes: Vec<Node>,
    pub(super) ops: Vec<(Op, String)>,
    /// Everything applied.
    pub(super) now: Tree,
    /// What was done past the recorder.
    pub(super) strange: Vec<String>,
}

impl Log {
    pub(super) fn new() -> Log {
        let nodes = vec![Node::Directory];
        Log { now: Tree::new(&nodes), nodes, ops: Vec::new(), strange: Vec::new() }
    }

    pub(super) fn node(&mut self, node: Node) -> Ino {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    pub(super) fn push(&mut self, op: Op, says: String) {
        self.now.apply(self.ops.len(), &op, Fate::Whole, &self.nodes);
        self.ops.push((op, says));
    }

    /// The first steps again, up to here.
    pub(super) fn prefix(&self, after: usize) -> Log {
        let mut log = Log { nodes: self.nodes.clone(), ..Log::new() };
        log.now = Tree::new(&log.nodes);
        for (op, says) in &self.ops[..after] {
            log.push(op.clone(), says.clone());
        }
        log
    }

    /// What is at a path below the root.
    pub(super) fn find(&self, path: &Path) -> Option<Ino> {
        let mut ino = ROOT;
        for part in path.components() {
            let Component::Normal(name) = part else { return None };
            ino = *self.now.dirs.get(&ino)?.get(name)?;
        }
        Some(ino)
    }

    /// The directory of a path below the root, and the name in it.
    pub(super) fn place<'a>(&self, path: &'a Path) -> Option<(Ino, &'a OsStr)> {
        Some((self.find(path.parent()?)?, path.file_name()?))
    }

    /// The steps before `after` that a power loss could undo.
    pub(super) fn pending(&self, after: usize) -> Vec<usize> {
        let mut content = vec![None; self.nodes.len()];
        let mut all = vec![None; self.nodes.len()];
        for (index, (op, _)) in self.ops[..after].iter().enumerate() {
            match op {
                Op::Sync { ino, what: Synced::Content } => content[*ino] = Some(index),
                Op::Sync { ino, what: Synced::All } => {
                    content[*ino] = Some(index);
                    all[*ino] = Some(index);
                }
                Op::Foreign { ino, state: Foreign::Durable, .. } => all[*ino] = Some(index + 1),
                Op::Foreign { state: Foreign::Written, .. }
                | Op::Name { .. }
                | Op::Unname { .. }
                | Op::Rename { .. }
                | Op::Write { .. }
                | Op::Empty { .. }
                | Op::Mode { .. }
                | Op::Mark => {}
            }
        }
        let open = |index: usize, synced: Option<usize>| synced.is_none_or(|synced| synced <= index);
        (0..after)
            .filter(|index| match &self.ops[*index].0 {
                Op::Name { dir, .. } | Op::Unname { dir, .. } => open(*index, all[*dir]),
                Op::Rename { from, to, .. } => open(*index, all[from.0]) || open(*index, all[to.0]),
                Op::Write { ino, .. } | Op::Empty { ino } => open(*index, content[*ino]),
                Op::Mode { ino, .. } | Op::Foreign { ino, .. } => open(*index, all[*ino]),
                Op::Sync { .. } | Op::Mark => false,
            })
            .collect()
    }

    /// The tree after the first steps, some of which had another fate than to be there as a whole.
    pub(super) fn tree(&self, after: usize, fates: &BTreeMap<usize, Fate>) -> Tree {
        let mut tree = Tree::new(&self.nodes);
        for (index, (op, _)) in self.ops[..after].iter().enumerate() {
            let fate = fates.get(&index).copied().unwrap_or(Fate::Whole);
            tree.apply(index, op, fate, &self.nodes);
        }
        tree
    }
}

/// A state of the disk. Bytes are named by the steps that wrote them.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    pub(super) dirs: BTreeMap<Ino, BTreeMap<OsString, Ino>>,
    pub(super) files: BTreeMap<Ino, Vec<(usize, Fate)>>,
    pub(super) modes: BTreeMap<Ino, u32>,
    pub(super) foreign: BTreeMap<Ino, usize>,
}

impl Tree {
    fn new(nodes: &[Node]) -> Tree {
        let mut tree = Tree::default();
        for (ino, node) in nodes.iter().enumerate() {
            if let Node::Directory = node {
                tree.dirs.insert(ino, BTreeMap::new());
            }
        }
        tree
    }

    fn apply(&mut self, index: usize, op: &Op, fate: Fate, nodes: &[Node]) {
        if fate == Fate::Dropped {
            return;
        }
        match op {
            Op::Name { dir, name, ino } => {
                if let Node::Directory = nodes[*ino] {
                    self.dirs.entry(*ino).or_default();
                }
                self.dirs.entry(*dir).or_default().insert(name.clone(), *ino);
            }
            Op::Unname { dir, name } => {
                self.dirs.entry(*dir).or_default().remove(name);
            }
            Op::Rename { from, to, ino } => {
                let names = self.dirs.entry(from.0).or_default();
                // What has this name by now may be something else, where earlier steps were dropped.
                if names.get(&from.1) == Some(ino) {
                    names.remove(&from.1);
                }
                self.dirs.entry(to.0).or_default().insert(to.1.clone(), *ino);
            }
            Op::Write { ino, .. } => self.files.entry(*ino).or_default().push((index, fate)),
            Op::Empty { ino } => {
                self.files.remove(ino);
            }
            Op::Mode { ino, mode } => {
                self.modes.insert(*ino, *mode);
            }
            Op::Foreign { ino, .. } => {
                self.foreign.insert(*ino, index);
            }
            Op::Sync { .. } | Op::Mark => {}
        }
    }

    /// Everything that can be told apart from the root, and nothing else.
    pub(super) fn fingerprint(&self, dir: Ino, hash: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        for (name, ino) in self.dirs.get(&dir).into_iter().flatten() {
            name.hash(hash);
            ino.hash(hash);
            self.files.get(ino).hash(hash);
            self.modes.get(ino).hash(hash);
            self.foreign.get(ino).hash(hash);
            self.fingerprint(*ino, hash);
        }
        u64::MAX.hash(hash);
    }

    /// A file's bytes.
    pub(super) fn content(&self, ino: Ino, ops: &[(Op, String)]) -> Vec<u8> {
        let mut content = Vec::new();
        for (index, fate) in self.files.get(&ino).into_iter().flatten() {
            let Op::Write { at, bytes, .. } = &ops[*index].0 else { continue };
            let bytes: &[u8] = match fate {
                Fate::Whole => bytes,
                Fate::Torn { kept } => &bytes[..*kept],
                Fate::Zeroed => &vec![0; bytes.len()],
                Fate::Dropped => continue,
            };
            let at = usize::try_from(*at).unwrap_or(usize::MAX);
            let end = at + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[at..end].copy_from_slice(bytes);
        }
        content
    }
}

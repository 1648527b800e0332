//! How a generation lays its content out in the database.
//!
//! Two layouts that differ in everything but what they hold: an upgrade from one to the other has to
//! rebuild the database, and the logical content (names, lengths, bytes) comes out the same.
//!
//! | | [`Layout::ByName`] (1) | [`Layout::ByKind`] (2) |
//! |---|---|---|
//! | keyspaces | `contents` | `records`, `chunks` |
//! | key | the name | the name's bytes in reverse, so another order |
//! | value of a record | `0`, content | content |
//! | value of a chunk file | `1`, length (little-endian) | length (big-endian) |

use bumpless_shared::digest::Digest;
use bumpless_shared::operation::Operation;
use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, Readable, Snapshot, UserKey, UserValue,
};

/// A layout that this version can read and write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Number 1: one keyspace, keys are names.
    ByName,
    /// Number 2: a keyspace for each kind, keys are reversed names.
    ByKind,
}

impl Layout {
    /// The number in a generation's file.
    pub fn number(self) -> u32 {
        match self {
            Layout::ByName => 1,
            Layout::ByKind => 2,
        }
    }

    /// The layout of that number, if this version knows it.
    pub fn from_number(number: u32) -> Option<Layout> {
        match number {
            1 => Some(Layout::ByName),
            2 => Some(Layout::ByKind),
            _ => None,
        }
    }

    fn keyspaces(self) -> &'static [&'static str] {
        match self {
            Layout::ByName => &["contents"],
            Layout::ByKind => &["records", "chunks"],
        }
    }
}

/// What the database holds for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// The content itself.
    Record(Vec<u8>),
    /// The length of the chunk file.
    Chunk(u32),
}

/// What a row counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tally {
    /// A content in the database, with so many bytes.
    Record { length: usize },
    /// A chunk file, with so many bytes.
    Chunk { length: u32 },
}

/// A row that no version of this layout writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadRow;

/// Why a row could not be read.
pub(super) enum RowError {
    Database(fjall::Error),
    Bad(BadRow),
}

impl From<fjall::Error> for RowError {
    fn from(error: fjall::Error) -> Self {
        RowError::Database(error)
    }
}

impl From<BadRow> for RowError {
    fn from(bad: BadRow) -> Self {
        RowError::Bad(bad)
    }
}

/// The open keyspaces of a layout.
#[derive(Clone)]
pub(super) enum Shelves {
    ByName { contents: Keyspace },
    ByKind { records: Keyspace, chunks: Keyspace },
}

/// Memory for rows that are not in tables yet, per keyspace. Small, so that the idle worker is.
const MEMTABLE: u64 = 8 << 20;

pub(super) fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE)
}

impl Shelves {
    /// Opens the layout's keyspaces; makes them in a fresh database.
    pub(super) fn open(layout: Layout, database: &Database) -> fjall::Result<Shelves> {
        let open = |name: &str| database.keyspace(name, options);
        Ok(match layout {
            Layout::ByName => Shelves::ByName { contents: open("contents")? },
            Layout::ByKind => Shelves::ByKind { records: open("records")?, chunks: open("chunks")? },
        })
    }

    /// The name of a keyspace that an existing database of this layout lacks.
    pub(super) fn lacking(layout: Layout, database: &Database) -> Option<&'static str> {
        layout.keyspaces().iter().find(|name| !database.keyspace_exists(name)).copied()
    }

    /// All keyspaces, in the order in which [`Shelves::row`] counts them.
    pub(super) fn all(&self) -> Vec<&Keyspace> {
        match self {
            Shelves::ByName { contents } => vec![contents],
            Shelves::ByKind { records, chunks } => vec![records, chunks],
        }
    }

    /// The row for an operation: which keyspace (by its place in [`Shelves::all`]), key, value.
    /// `None` for an operation that stores nothing.
    pub(super) fn row(&self, operation: &Operation) -> Option<(usize, UserKey, UserValue)> {
        let key = |name: &Digest| self.key(name);
        match (self, operation) {
            (_, Operation::Mark { .. }) => None,
            (Shelves::ByName { .. }, Operation::Store { name, content }) => {
                let mut value = Vec::with_capacity(1 + content.len());
                value.push(0);
                value.extend_from_slice(content);
                Some((0, key(name), value.into()))
            }
            (Shelves::ByName { .. }, Operation::Link { name, length }) => {
                let [a, b, c, d] = length.to_le_bytes();
                Some((0, key(name), [1, a, b, c, d].into()))
            }
            (Shelves::ByKind { .. }, Operation::Store { name, content }) => {
                Some((0, key(name), content.as_slice().into()))
            }
            (Shelves::ByKind { .. }, Operation::Link { name, length }) => {
                Some((1, key(name), length.to_be_bytes().into()))
            }
        }
    }

    /// What a value in the keyspace at this place counts for.
    pub(super) fn tally(&self, place: usize, value: &[u8]) -> Result<Tally, BadRow> {
        match (self, place) {
            (Shelves::ByName { .. }, _) => match value.split_first() {
                Some((0, content)) => Ok(Tally::Record { length: content.len() }),
                Some((1, length)) => Ok(Tally::Chunk { length: by_name_length(length)? }),
                Some(_) | None => Err(BadRow),
            },
            (Shelves::ByKind { .. }, 0) => Ok(Tally::Record { length: value.len() }),
            (Shelves::ByKind { .. }, _) => Ok(Tally::Chunk { length: by_kind_length(value)? }),
        }
    }

    /// Adds an operation's row to a batch.
    pub(super) fn insert(&self, batch: &mut OwnedWriteBatch, operation: &Operation) {
        if let Some((place, key, value)) = self.row(operation) {
            batch.insert(self.all()[place], key, value);
        }
    }

    /// Whether there is anything of that name.
    pub(super) fn holds(&self, name: &Digest) -> fjall::Result<bool> {
        let key = self.key(name);
        match self {
            Shelves::ByName { contents } => contents.contains_key(key),
            Shelves::ByKind { records, chunks } => {
                Ok(records.contains_key(&key)? || chunks.contains_key(&key)?)
            }
        }
    }

    /// What there is of that name now.
    pub(super) fn get(&self, name: &Digest) -> Result<Option<Value>, RowError> {
        let key = self.key(name);
        match self {
            Shelves::ByName { contents } => {
                Ok(contents.get(key)?.map(|value| by_name_value(&value)).transpose()?)
            }
            Shelves::ByKind { records, chunks } => match records.get(&key)? {
                Some(content) => Ok(Some(Value::Record(content.to_vec()))),
                None => {
                    Ok(chunks.get(&key)?.map(|value| by_kind_length(&value)).transpose()?.map(Value::Chunk))
                }
            },
        }
    }

    /// Everything in a snapshot, in the layout's own order.
    pub(super) fn rows(
        &self,
        snapshot: &Snapshot,
    ) -> Box<dyn Iterator<Item = Result<(Digest, Value), RowError>> + Send> {
        match self {
            Shelves::ByName { contents } => Box::new(snapshot.iter(contents).map(|row| {
                let (key, value) = row.into_inner()?;
                Ok((Digest((*key).try_into().map_err(|_| BadRow)?), by_name_value(&value)?))
            })),
            Shelves::ByKind { records, chunks } => {
                let records = snapshot.iter(records).map(|row| {
                    let (key, value) = row.into_inner()?;
                    Ok((reversed(&key)?, Value::Record(value.to_vec())))
                });
                let chunks = snapshot.iter(chunks).map(|row| {
                    let (key, value) = row.into_inner()?;
                    Ok((reversed(&key)?, Value::Chunk(by_kind_length(&value)?)))
                });
                Box::new(records.chain(chunks))
            }
        }
    }

    fn key(&self, name: &Digest) -> UserKey {
        match self {
            Shelves::ByName { .. } => name.0.into(),
            Shelves::ByKind { .. } => {
                let mut key = name.0;
                key.reverse();
                key.into()
            }
        }
    }
}

fn by_name_value(value: &[u8]) -> Result<Value, BadRow> {
    match value.split_first() {
        Some((0, content)) => Ok(Value::Record(content.to_vec())),
        Some((1, length)) => Ok(Value::Chunk(by_name_length(length)?)),
        Some(_) | None => Err(BadRow),
    }
}

fn by_name_length(value: &[u8]) -> Result<u32, BadRow> {
    Ok(u32::from_le_bytes(value.try_into().map_err(|_| BadRow)?))
}

fn by_kind_length(value: &[u8]) -> Result<u32, BadRow> {
    Ok(u32::from_be_bytes(value.try_into().map_err(|_| BadRow)?))
}

fn reversed(key: &[u8]) -> Result<Digest, BadRow> {
    let mut name: [u8; 32] = key.try_into().map_err(|_| BadRow)?;
    name.reverse();
    Ok(Digest(name))
}

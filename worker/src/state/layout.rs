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
//! | **appends**: the content is found by | place: `logs` | id: `appends` |
//! | its key | log, index (big-endian): from the oldest on | the id's bytes in reverse |
//! | its value | id, nonce, content | index (big-endian), log, nonce, content |
//! | and the other way round by | id: `log-ids` | place: `log-order` |
//! | its key | the id | the log's bytes in reverse, the index's complement: from the newest on |
//! | its value | index (little-endian) | id |
//!
//! The keyspaces of appends came later than the layouts: a generation that lacks them gets them, empty,
//! when it is opened.

use bumpless_shared::digest::Digest;
use bumpless_shared::operation::{NONCE, Operation};
use fjall::config::PartitioningPolicy;
use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, Readable, Snapshot, UserKey, UserValue,
};

use super::append::append_id;

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

    /// Those without which a database is none of this layout.
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
    /// An entry of a log, with so many bytes.
    Append { length: usize },
    /// The second row of something that is counted by its first.
    Counted,
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
    ByName { contents: Keyspace, logs: Keyspace, ids: Keyspace },
    ByKind { records: Keyspace, chunks: Keyspace, appends: Keyspace, order: Keyspace },
}

/// A key and its value in one of the keyspaces, which is given by its place in [`Shelves::all`].
pub(super) type Row = (usize, UserKey, UserValue);

/// An entry of a log as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: Digest,
    pub(super) nonce: [u8; NONCE],
    pub(super) content: Vec<u8>,
}

/// Memory for rows that are not in tables yet, per keyspace. Small, so that the idle worker is.
const MEMTABLE: u64 = 8 << 20;

/// Filters and indexes of tables in parts of a few KiB on every level: by default the upper ones are whole, which
/// is hundreds of KiB for each read as soon as they do not all fit into the cache, and then every read is slower
/// the more there is.
pub(super) fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMTABLE)
        .filter_block_partitioning_policy(PartitioningPolicy::all(true))
        .index_block_partitioning_policy(PartitioningPolicy::all(true))
}

impl Shelves {
    /// Opens the layout's keyspaces; makes those that are not there.
    pub(super) fn open(layout: Layout, database: &Database) -> fjall::Result<Shelves> {
        let open = |name: &str| database.keyspace(name, options);
        Ok(match layout {
            Layout::ByName => {
                Shelves::ByName { contents: open("contents")?, logs: open("logs")?, ids: open("log-ids")? }
            }
            Layout::ByKind => Shelves::ByKind {
                records: open("records")?,
                chunks: open("chunks")?,
                appends: open("appends")?,
                order: open("log-order")?,
            },
        })
    }

    /// The name of a keyspace that an existing database of this layout lacks.
    pub(super) fn lacking(layout: Layout, database: &Database) -> Option<&'static str> {
        layout.keyspaces().iter().find(|name| !database.keyspace_exists(name)).copied()
    }

    /// All keyspaces, in the order in which [`Row`] counts them.
    pub(super) fn all(&self) -> Vec<&Keyspace> {
        match self {
            Shelves::ByName { contents, logs, ids } => vec![contents, logs, ids],
            Shelves::ByKind { records, chunks, appends, order } => vec![records, chunks, appends, order],
        }
    }

    /// The rows for an operation; none for one that stores nothing.
    pub(super) fn rows_for(&self, operation: &Operation) -> impl Iterator<Item = Row> + use<> {
        let key = |name: &Digest| self.key(name);
        let rows: [Option<Row>; 2] = match (self, operation) {
            (_, Operation::Mark { .. }) => [None, None],
            (Shelves::ByName { .. }, Operation::Store { name, content }) => {
                let mut value = Vec::with_capacity(1 + content.len());
                value.push(0);
                value.extend_from_slice(content);
                [Some((0, key(name), value.into())), None]
            }
            (Shelves::ByName { .. }, Operation::Link { name, length }) => {
                let [a, b, c, d] = length.to_le_bytes();
                [Some((0, key(name), [1, a, b, c, d].into())), None]
            }
            (Shelves::ByKind { .. }, Operation::Store { name, content }) => {
                [Some((0, key(name), content.as_slice().into())), None]
            }
            (Shelves::ByKind { .. }, Operation::Link { name, length }) => {
                [Some((1, key(name), length.to_be_bytes().into())), None]
            }
            (Shelves::ByName { .. }, Operation::Append { log, nonce, index, content }) => {
                let id = append_id(log, nonce, content);
                let value = [&id.0[..], nonce, content].concat();
                let index_value = index.to_le_bytes().into();
                [Some((1, self.place(log, *index), value.into())), Some((2, key(&id), index_value))]
            }
            (Shelves::ByKind { .. }, Operation::Append { log, nonce, index, content }) => {
                let id = append_id(log, nonce, content);
                let value = [&index.to_be_bytes()[..], &log.0, nonce, content].concat();
                [Some((2, key(&id), value.into())), Some((3, self.place(log, *index), id.0.into()))]
            }
        };
        rows.into_iter().flatten()
    }

    /// What a value in the keyspace at this place counts for. An append has two rows and counts once.
    pub(super) fn tally(&self, place: usize, value: &[u8]) -> Result<Tally, BadRow> {
        let append = |head: usize| match value.len().checked_sub(head) {
            Some(length) => Ok(Tally::Append { length }),
            None => Err(BadRow),
        };
        match (self, place) {
            (Shelves::ByName { .. }, 0) => match value.split_first() {
                Some((0, content)) => Ok(Tally::Record { length: content.len() }),
                Some((1, length)) => Ok(Tally::Chunk { length: by_name_length(length)? }),
                Some(_) | None => Err(BadRow),
            },
            (Shelves::ByName { .. }, 1) => append(32 + NONCE),
            (Shelves::ByKind { .. }, 0) => Ok(Tally::Record { length: value.len() }),
            (Shelves::ByKind { .. }, 1) => Ok(Tally::Chunk { length: by_kind_length(value)? }),
            (Shelves::ByKind { .. }, 2) => append(8 + 32 + NONCE),
            (Shelves::ByName { .. } | Shelves::ByKind { .. }, _) => Ok(Tally::Counted),
        }
    }

    /// Adds an operation's rows to a batch.
    pub(super) fn insert(&self, batch: &mut OwnedWriteBatch, operation: &Operation) {
        for (place, key, value) in self.rows_for(operation) {
            batch.insert(self.all()[place], key, value);
        }
    }

    /// Whether there is anything of that name.
    pub(super) fn holds(&self, name: &Digest) -> fjall::Result<bool> {
        let key = self.key(name);
        match self {
            Shelves::ByName { contents, .. } => contents.contains_key(key),
            Shelves::ByKind { records, chunks, .. } => {
                Ok(records.contains_key(&key)? || chunks.contains_key(&key)?)
            }
        }
    }

    /// What there is of that name now.
    pub(super) fn get(&self, name: &Digest) -> Result<Option<Value>, RowError> {
        let key = self.key(name);
        match self {
            Shelves::ByName { contents, .. } => {
                Ok(contents.get(key)?.map(|value| by_name_value(&value)).transpose()?)
            }
            Shelves::ByKind { records, chunks, .. } => match records.get(&key)? {
                Some(content) => Ok(Some(Value::Record(content.to_vec()))),
                None => {
                    Ok(chunks.get(&key)?.map(|value| by_kind_length(&value)).transpose()?.map(Value::Chunk))
                }
            },
        }
    }

    /// The index of the append with this id, if it is there.
    pub(super) fn index_of(&self, id: &Digest) -> Result<Option<u64>, RowError> {
        let key = self.key(id);
        Ok(match self {
            Shelves::ByName { ids, .. } => ids.get(key)?.map(|value| by_name_index(&value)).transpose()?,
            Shelves::ByKind { appends, .. } => {
                appends.get(key)?.map(|value| Ok::<_, BadRow>(by_kind_append(&value)?.index)).transpose()?
            }
        })
    }

    /// The id of the append that is at this place of a log, if there is one.
    pub(super) fn id_at(&self, log: &Digest, index: u64) -> Result<Option<Digest>, RowError> {
        let key = self.place(log, index);
        Ok(match self {
            Shelves::ByName { logs, .. } => {
                logs.get(key)?.map(|value| Ok::<_, BadRow>(by_name_entry(&value)?.id)).transpose()?
            }
            Shelves::ByKind { order, .. } => order.get(key)?.map(|value| digest(&value)).transpose()?,
        })
    }

    /// How many entries a log has in a snapshot: the index of the next one.
    pub(super) fn length(&self, snapshot: &Snapshot, log: &Digest) -> Result<u64, RowError> {
        let last = match self {
            Shelves::ByName { logs, .. } => snapshot.range(logs, self.places(log, 0)).next_back(),
            Shelves::ByKind { order, .. } => snapshot.range(order, self.places(log, 0)).next(),
        };
        match last {
            None => Ok(0),
            Some(row) => Ok(self.place_of(&row.key()?)?.1.checked_add(1).ok_or(BadRow)?),
        }
    }

    /// The entries of a log in a snapshot, from this index on, in order.
    pub(super) fn entries_from(
        &self,
        snapshot: &Snapshot,
        log: &Digest,
        from: u64,
    ) -> Box<dyn Iterator<Item = Result<(u64, Entry), RowError>>> {
        let shelves = self.clone();
        match self {
            Shelves::ByName { logs, .. } => {
                Box::new(snapshot.range(logs, self.places(log, from)).map(move |row| {
                    let (key, value) = row.into_inner()?;
                    Ok((shelves.place_of(&key)?.1, by_name_entry(&value)?))
                }))
            }
            Shelves::ByKind { appends, order, .. } => {
                let (snapshot, appends) = (snapshot.clone(), appends.clone());
                Box::new(snapshot.range(order, self.places(log, from)).rev().map(move |row| {
                    let (key, value) = row.into_inner()?;
                    let (id, index) = (digest(&value)?, shelves.place_of(&key)?.1);
                    let value = snapshot.get(&appends, shelves.key(&id))?.ok_or(BadRow)?;
                    let ByKindAppend { nonce, content, .. } = by_kind_append(&value)?;
                    Ok((index, Entry { id, nonce, content: content.to_vec() }))
                }))
            }
        }
    }

    /// Whether there is any append.
    pub(super) fn has_appends(&self) -> fjall::Result<bool> {
        Ok(!match self {
            Shelves::ByName { logs, ids, .. } => logs.is_empty()? && ids.is_empty()?,
            Shelves::ByKind { appends, order, .. } => appends.is_empty()? && order.is_empty()?,
        })
    }

    /// Whether a snapshot finds this append by its id and by its place.
    pub(super) fn finds(
        &self,
        snapshot: &Snapshot,
        id: &Digest,
        log: &Digest,
        index: u64,
    ) -> Result<bool, RowError> {
        Ok(match self {
            // The other half is the row that the append was read from.
            Shelves::ByName { ids, .. } => match snapshot.get(ids, self.key(id))? {
                Some(value) => by_name_index(&value)? == index,
                None => false,
            },
            Shelves::ByKind { order, .. } => match snapshot.get(order, self.place(log, index))? {
                Some(value) => digest(&value)? == *id,
                None => false,
            },
        })
    }

    /// Everything in a snapshot, in the layout's own order, as the operations that made it.
    pub(super) fn rows(
        &self,
        snapshot: &Snapshot,
    ) -> Box<dyn Iterator<Item = Result<Operation, RowError>> + Send> {
        match self {
            Shelves::ByName { contents, logs, .. } => {
                let contents = snapshot.iter(contents).map(|row| {
                    let (key, value) = row.into_inner()?;
                    let name = digest(&key)?;
                    Ok(match by_name_value(&value)? {
                        Value::Record(content) => Operation::Store { name, content },
                        Value::Chunk(length) => Operation::Link { name, length },
                    })
                });
                let shelves = self.clone();
                let logs = snapshot.iter(logs).map(move |row| {
                    let (key, value) = row.into_inner()?;
                    let (log, index) = shelves.place_of(&key)?;
                    let Entry { id: _, nonce, content } = by_name_entry(&value)?;
                    Ok(Operation::Append { log, nonce, index, content })
                });
                Box::new(contents.chain(logs))
            }
            Shelves::ByKind { records, chunks, appends, .. } => {
                let records = snapshot.iter(records).map(|row| {
                    let (key, value) = row.into_inner()?;
                    Ok(Operation::Store { name: reversed(digest(&key)?), content: value.to_vec() })
                });
                let chunks = snapshot.iter(chunks).map(|row| {
                    let (key, value) = row.into_inner()?;
                    Ok(Operation::Link { name: reversed(digest(&key)?), length: by_kind_length(&value)? })
                });
                let appends = snapshot.iter(appends).map(|row| {
                    let (_, value) = row.into_inner()?;
                    let ByKindAppend { index, log, nonce, content } = by_kind_append(&value)?;
                    Ok(Operation::Append { log, nonce, index, content: content.to_vec() })
                });
                Box::new(records.chain(chunks).chain(appends))
            }
        }
    }

    /// The key of a place in a log.
    fn place(&self, log: &Digest, index: u64) -> UserKey {
        let (log, index) = match self {
            Shelves::ByName { .. } => (*log, index),
            Shelves::ByKind { .. } => (reversed(*log), !index),
        };
        [&log.0[..], &index.to_be_bytes()].concat().into()
    }

    /// The keys of a log's places from this index on.
    fn places(&self, log: &Digest, from: u64) -> std::ops::RangeInclusive<UserKey> {
        match self {
            Shelves::ByName { .. } => self.place(log, from)..=self.place(log, u64::MAX),
            Shelves::ByKind { .. } => self.place(log, u64::MAX)..=self.place(log, from),
        }
    }

    /// The place that a key stands for.
    fn place_of(&self, key: &[u8]) -> Result<(Digest, u64), BadRow> {
        let (log, index) = key.split_first_chunk::<32>().ok_or(BadRow)?;
        let index = u64::from_be_bytes(index.try_into().map_err(|_| BadRow)?);
        Ok(match self {
            Shelves::ByName { .. } => (Digest(*log), index),
            Shelves::ByKind { .. } => (reversed(Digest(*log)), !index),
        })
    }

    fn key(&self, name: &Digest) -> UserKey {
        match self {
            Shelves::ByName { .. } => name.0.into(),
            Shelves::ByKind { .. } => reversed(*name).0.into(),
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

fn by_name_entry(value: &[u8]) -> Result<Entry, BadRow> {
    let (id, rest) = value.split_first_chunk().ok_or(BadRow)?;
    let (nonce, content) = rest.split_first_chunk().ok_or(BadRow)?;
    Ok(Entry { id: Digest(*id), nonce: *nonce, content: content.to_vec() })
}

fn by_name_index(value: &[u8]) -> Result<u64, BadRow> {
    Ok(u64::from_le_bytes(value.try_into().map_err(|_| BadRow)?))
}

/// A row of `appends`.
struct ByKindAppend<'a> {
    index: u64,
    log: Digest,
    nonce: [u8; NONCE],
    content: &'a [u8],
}

fn by_kind_append(value: &[u8]) -> Result<ByKindAppend<'_>, BadRow> {
    let (index, rest) = value.split_first_chunk().ok_or(BadRow)?;
    let (log, rest) = rest.split_first_chunk().ok_or(BadRow)?;
    let (nonce, content) = rest.split_first_chunk().ok_or(BadRow)?;
    Ok(ByKindAppend { index: u64::from_be_bytes(*index), log: Digest(*log), nonce: *nonce, content })
}

fn digest(bytes: &[u8]) -> Result<Digest, BadRow> {
    Ok(Digest(bytes.try_into().map_err(|_| BadRow)?))
}

fn reversed(mut name: Digest) -> Digest {
    name.0.reverse();
    name
}

//! A cold start: opening the committed generation and catching up.
//!
//! ```text
//! open gen-<n> ▶ every logbook, in the order of the terms, from the floor on ▶ persist
//! ```
//!
//! Chunk files are linked from the generation that each segment's header names. Damage and refused
//! records do not stop a start: what can be read is applied, the rest is reported.

use std::fmt;

use bumpless_shared::control::{Generation, Sequence, Term};

use super::directory::{FileError, StateDir, sync_directory};
use super::log_reader::{Damage, Item, LogReader, ReadLogError};
use super::replay::{FollowError, Refusal, Step, follow};
use super::store::{Position, StoreOptions, Writer};
use super::store_error::StoreError;

/// Records that are applied at once.
pub(super) const BATCH: usize = 256;

/// What a cold start found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Where the state stands; durable.
    pub position: Position,
    /// The highest term in the database and among the logbooks.
    pub highest_term: Term,
    /// Records that were applied.
    pub replayed: u64,
    /// Logbooks on the disk.
    pub logs: Vec<Term>,
    /// Generations on the disk.
    pub generations: Vec<Generation>,
    /// Records that are lost.
    pub damage: Vec<Damage>,
    /// Records that were not accepted.
    pub refused: Vec<Refusal>,
}

/// Why a cold start is not possible.
#[derive(Debug)]
pub enum RecoverError {
    /// The generation.
    Store(StoreError),
    /// A logbook could not be applied.
    Follow {
        /// Its term.
        term: Term,
        /// Why.
        source: FollowError,
    },
    /// A logbook could not be read.
    Log {
        /// Its term.
        term: Term,
        /// Why.
        source: ReadLogError,
    },
    /// The system refused.
    File(FileError),
}

impl From<StoreError> for RecoverError {
    fn from(error: StoreError) -> Self {
        RecoverError::Store(error)
    }
}

impl From<FileError> for RecoverError {
    fn from(error: FileError) -> Self {
        RecoverError::File(error)
    }
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecoverError::Store(error) => error.fmt(f),
            RecoverError::Follow { term, source } => {
                write!(
                    f,
                    "cannot apply the logbook of term {term}: {source}; it was left as it is, try again"
                )
            }
            RecoverError::Log { term, source } => {
                write!(f, "cannot read the logbook of term {term}: {source}; it was left as it is")
            }
            RecoverError::File(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RecoverError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RecoverError::Store(error) => Some(error),
            RecoverError::Follow { source, .. } => Some(source),
            RecoverError::Log { source, .. } => Some(source),
            RecoverError::File(error) => Some(error),
        }
    }
}

/// Opens a generation and replays every logbook on the disk into it.
pub fn recover(
    state: &StateDir,
    generation: Generation,
    options: StoreOptions,
) -> Result<(Writer, Recovered), RecoverError> {
    // Whoever made what is here may have been killed before its name was durable.
    sync_directory(state.path())?;
    let mut writer = Writer::open(state, generation, options)?;
    let mut recovered = Recovered {
        logs: state.list_remains()?,
        generations: state.list_generations()?,
        ..Recovered::default()
    };
    let mut next = writer.store().floor() + 1;
    for term in state.list_logs()? {
        next = replay_log(&mut writer, LogReader::new(state, term, next), &mut recovered)?;
    }
    writer.persist()?;
    recovered.position = writer.store().position();
    recovered.highest_term = recovered.logs.last().copied().unwrap_or(0).max(recovered.position.term);
    Ok((writer, recovered))
}

/// Returns the record that the next term's logbook has to begin with.
fn replay_log(
    writer: &mut Writer,
    mut reader: LogReader,
    recovered: &mut Recovered,
) -> Result<Sequence, RecoverError> {
    let term = reader.term();
    let mut steps = Vec::new();
    loop {
        let item = reader.next().map_err(|source| RecoverError::Log { term, source })?;
        let end = item == Item::CaughtUp;
        match item {
            Item::Record(record) => steps.push(Step::Record(record)),
            Item::Damaged(damage) => steps.push(Step::Damage(damage)),
            Item::CaughtUp => {}
        }
        if end || steps.len() >= BATCH {
            let followed = follow(writer, &steps).map_err(|source| RecoverError::Follow { term, source })?;
            steps.clear();
            recovered.replayed += followed.applied;
            recovered.refused.extend(followed.refused);
            recovered.damage.extend(followed.damage);
        }
        if end {
            return Ok(reader.expected());
        }
    }
}

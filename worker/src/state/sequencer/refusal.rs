//! Why the sequencer says no.

use std::fmt;

use bumpless_shared::control::{Sequence, Term};

use super::super::directory::RemoveError;
use super::super::log_writer::LogError;
use super::super::replay::FollowError;
use super::super::store::Position;
use super::super::store_error::StoreError;
use super::Role;

/// Why a put or an append was not acknowledged. Except for [`PutRefused::Failed`] it has not happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutRefused {
    /// The authority of this term went to another worker, which will execute it.
    Frozen {
        /// The term that ended.
        term: Term,
    },
    /// This worker has no authority.
    NotHolder,
    /// There is no room on the disk.
    NoRoom {
        /// Bytes that the content needs.
        needed: u64,
        /// Bytes that are free, of which some are kept so.
        free: u64,
    },
    /// What is stored could not be read or written for this one.
    Unreadable {
        /// In words.
        cause: String,
    },
    /// Writing it failed; whether it will be found after a restart is not known. It may be tried again
    /// with whoever holds the authority next.
    Failed {
        /// What failed.
        cause: String,
    },
    /// It needs a later version of the contract than the one that the node keeps to at present.
    Later {
        /// The version that has it.
        needs: u16,
        /// The version kept to: the highest that everybody understands who may have to read the state.
        keeps: u16,
    },
    /// The worker is stopping.
    Stopped,
}

impl fmt::Display for PutRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PutRefused::Frozen { term } => write!(f, "term {term} has ended; the next holder executes this"),
            PutRefused::NotHolder => f.write_str("this worker has no authority"),
            PutRefused::NoRoom { needed, free } => write!(
                f,
                "no room: {needed} bytes are needed, {free} are free and some are kept free; reading still works"
            ),
            PutRefused::Unreadable { cause } => write!(f, "not stored: {cause}"),
            PutRefused::Failed { cause } => write!(f, "not acknowledged: {cause}; reading still works"),
            PutRefused::Later { needs, keeps } => write!(
                f,
                "this needs version {needs} of the node's state; during an upgrade the node keeps to version {keeps}, \
                 which both releases understand, until the upgrade is committed or has ended. Try again then"
            ),
            PutRefused::Stopped => f.write_str("the worker is stopping"),
        }
    }
}

impl std::error::Error for PutRefused {}

/// Why an order was not carried out. Nothing was changed, except where the error itself says so.
#[derive(Debug)]
pub enum OrderError {
    /// It does not fit the role.
    WrongRole {
        /// What was ordered.
        order: &'static str,
        /// What the sequencer is.
        role: Role,
    },
    /// The term is not above the state's.
    OldTerm {
        /// The term given.
        term: Term,
        /// The state's.
        position: Position,
    },
    /// The state does not stand where it should.
    NotThere {
        /// Where it should stand.
        wanted: Sequence,
        /// Where it stands.
        position: Position,
    },
    /// The state holds what the version of the contract cannot express that a standby reads.
    Inexpressible {
        /// The standby's version.
        version: u16,
        /// The version that can express everything that is stored.
        needs: u16,
        /// How many entries of logs there are, of which it knows nothing.
        appends: u64,
    },
    /// The database failed, now or earlier; this process writes nothing more.
    Poisoned {
        /// What failed.
        cause: String,
    },
    /// The database could not be read.
    Read(StoreError),
    /// The logbook.
    Log(LogError),
    /// A logbook or generation that was to go.
    Remove(RemoveError),
    /// Following.
    Follow(FollowError),
    /// The sequencer has ended.
    Stopped,
}

impl fmt::Display for OrderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OrderError::WrongRole { order, role } => {
                write!(f, "cannot {order} as {role:?}; nothing was changed")
            }
            OrderError::OldTerm { term, position } => {
                write!(f, "term {term} is not above term {}, which this state has seen", position.term)
            }
            OrderError::NotThere { wanted, position } => {
                write!(f, "the state stands at sequence {}, not at {wanted}", position.sequence)
            }
            OrderError::Inexpressible { version, needs, appends } => write!(
                f,
                "{appends} appends to logs are stored, which version {needs} of the state brought; the other release \
                 reads version {version}, so it cannot take this state over"
            ),
            OrderError::Poisoned { cause } => {
                write!(f, "this worker writes nothing more, reading still works: {cause}")
            }
            OrderError::Read(error) => error.fmt(f),
            OrderError::Log(error) => error.fmt(f),
            OrderError::Remove(error) => error.fmt(f),
            OrderError::Follow(error) => error.fmt(f),
            OrderError::Stopped => f.write_str("the worker is stopping"),
        }
    }
}

impl std::error::Error for OrderError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OrderError::Read(error) => Some(error),
            OrderError::Log(error) => Some(error),
            OrderError::Remove(error) => Some(error),
            OrderError::Follow(error) => Some(error),
            OrderError::WrongRole { .. }
            | OrderError::Inexpressible { .. }
            | OrderError::OldTerm { .. }
            | OrderError::NotThere { .. }
            | OrderError::Poisoned { .. }
            | OrderError::Stopped => None,
        }
    }
}

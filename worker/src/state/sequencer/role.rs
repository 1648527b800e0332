//! What the sequencer is, and what may be asked of it then. Pure: the thread asks here first and acts
//! afterwards, and so does a model of the whole node.

use bumpless_shared::control::{Sequence, Term};

use super::super::store::Position;
use super::{Frozen, PutRefused};

/// What the sequencer is, for those who watch it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It executes.
    Holding {
        /// Its term.
        term: Term,
        /// Where its operations go beside the database.
        logbook: Logbook,
    },
    /// It held this term and gave it up.
    Frozen {
        /// The term.
        term: Term,
        /// Its last sequence.
        sequence: Sequence,
    },
    /// It never held.
    Following,
    /// The database failed; it only reads.
    Poisoned,
}

/// The holder's logbook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Logbook {
    /// There is none.
    None,
    /// The database is the durable copy, the logbook is for the standby.
    Expendable,
    /// The logbook is the durable copy.
    Durable,
    /// The logbook was the durable copy and failed: nothing more is acknowledged in this term.
    Failed,
}

/// Why an order does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It is for another role.
    Role,
    /// The term is not above the state's.
    OldTerm,
    /// The state stands elsewhere.
    NotThere,
}

/// Where a record goes, in this order. Once the first has it on the disk it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Into the database.
    Database,
    /// Then, unsynced, into the logbook; if that fails the logbook is dropped.
    DatabaseThenLogbook,
    /// Then, unsynced, into the database. If the first fails, nothing more is acknowledged.
    LogbookThenDatabase,
}

impl Role {
    /// Where a record goes now; or why none does.
    pub fn route(self) -> Result<Route, PutRefused> {
        match self {
            Role::Holding { logbook: Logbook::None, .. } => Ok(Route::Database),
            Role::Holding { logbook: Logbook::Expendable, .. } => Ok(Route::DatabaseThenLogbook),
            Role::Holding { logbook: Logbook::Durable, .. } => Ok(Route::LogbookThenDatabase),
            Role::Holding { logbook: Logbook::Failed, .. } => {
                Err(PutRefused::Failed { cause: "the logbook of this term failed earlier".to_owned() })
            }
            Role::Frozen { term, .. } => Err(PutRefused::Frozen { term }),
            Role::Following => Err(PutRefused::NotHolder),
            Role::Poisoned => Err(PutRefused::Failed { cause: "the database failed earlier".to_owned() }),
        }
    }

    /// With an expendable logbook, from now on; without one before.
    pub fn open_logbook(self) -> Result<Role, Unfit> {
        match self {
            Role::Holding { term, logbook: Logbook::None } => {
                Ok(Role::Holding { term, logbook: Logbook::Expendable })
            }
            Role::Holding { logbook: Logbook::Expendable | Logbook::Durable | Logbook::Failed, .. }
            | Role::Frozen { .. }
            | Role::Following
            | Role::Poisoned => Err(Unfit::Role),
        }
    }

    /// Without a logbook, which must not be the durable copy.
    pub fn drop_logbook(self) -> Result<Role, Unfit> {
        match self {
            Role::Holding { term, logbook: Logbook::None | Logbook::Expendable } => {
                Ok(Role::Holding { term, logbook: Logbook::None })
            }
            Role::Holding { logbook: Logbook::Durable | Logbook::Failed, .. }
            | Role::Frozen { .. }
            | Role::Following
            | Role::Poisoned => Err(Unfit::Role),
        }
    }

    /// Whether a mark can be appended, to be met by a follower.
    pub fn marks(self) -> Result<(), Unfit> {
        match self {
            Role::Holding { logbook: Logbook::Expendable | Logbook::Durable, .. } => Ok(()),
            Role::Holding { logbook: Logbook::None | Logbook::Failed, .. }
            | Role::Frozen { .. }
            | Role::Following
            | Role::Poisoned => Err(Unfit::Role),
        }
    }

    /// The authority given up at the sequence at which the state stands; given up before, as it was then.
    /// Without a logbook nobody could follow.
    pub fn freeze(self, sequence: Sequence) -> Result<Frozen, Unfit> {
        match self {
            Role::Frozen { term, sequence } => Ok(Frozen { term, sequence }),
            Role::Holding { term, logbook: Logbook::Expendable | Logbook::Durable | Logbook::Failed } => {
                Ok(Frozen { term, sequence })
            }
            Role::Holding { logbook: Logbook::None, .. } | Role::Following | Role::Poisoned => {
                Err(Unfit::Role)
            }
        }
    }

    /// The authority of a term whose logbook is prepared, taken where the one before gave it up.
    pub fn take(self, term: Term, at: Sequence, position: Position) -> Result<Role, Unfit> {
        match self {
            Role::Following if position.sequence != at => Err(Unfit::NotThere),
            Role::Following if term <= position.term => Err(Unfit::OldTerm),
            Role::Following => Ok(Role::Holding { term, logbook: Logbook::Durable }),
            Role::Holding { .. } | Role::Frozen { .. } | Role::Poisoned => Err(Unfit::Role),
        }
    }

    /// Whether it applies what another worker wrote.
    pub fn follows(self) -> Result<(), Unfit> {
        match self {
            Role::Frozen { .. } | Role::Following => Ok(()),
            Role::Holding { .. } | Role::Poisoned => Err(Unfit::Role),
        }
    }

    /// Holding, without a logbook; the same if it holds that term already.
    pub fn resume(self, term: Term, position: Position) -> Result<Role, Unfit> {
        match self {
            Role::Holding { term: held, .. } if held == term => Ok(self),
            Role::Frozen { .. } | Role::Following if term <= position.term => Err(Unfit::OldTerm),
            Role::Frozen { .. } | Role::Following => Ok(Role::Holding { term, logbook: Logbook::None }),
            Role::Holding { .. } | Role::Poisoned => Err(Unfit::Role),
        }
    }

    /// With the database for the durable copy again; it has to have everything by then.
    pub fn end_logbook(self) -> Result<Role, Unfit> {
        match self {
            Role::Holding { term, logbook: Logbook::None | Logbook::Durable | Logbook::Failed } => {
                Ok(Role::Holding { term, logbook: Logbook::None })
            }
            Role::Holding { logbook: Logbook::Expendable, .. }
            | Role::Frozen { .. }
            | Role::Following
            | Role::Poisoned => Err(Unfit::Role),
        }
    }
}

//! The readings of the design that are too loose, to be planted one by one: the model has to find each.
//!
//! None of them is a switch of the product. Each turns what the product decided, or what the model of its
//! surroundings does, the way in which somebody might have read the design.

use bumpless_shared::control::{Command, Role};
use bumplessd::upgrade::judge::{Baseline, Judge};
use bumplessd::upgrade::recovery::Found;
use bumplessd::upgrade::state::{Back, Commit, Old, Reverse};
use bumplessd::upgrade::{Effect, Event, Moment, RecordTerm, Rules, State, Stored, Verdict};

use super::moves::Kind;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Plant {
    /// A start corrects `committed` to the generation of the worker that it finds holding.
    CommittedCorrected,
    /// A start lets a frozen worker resume that is not on the committed generation.
    ResumesAnyFrozen,
    /// The new worker goes on alone when the old one dies while a reverse cut is ordered.
    GoesOnAlone,
    /// The old one's death commits, without another look at the new one.
    CommitsOnDeath,
    /// A record of the logbook goes once one of the two has applied it durably.
    TrimmedByOne,
    /// The logbook is ended before the database has what is in it.
    EndedBeforePersisted,
    /// A start acts on a record that it read and did not sync.
    UnsyncedRecord,
    /// A record that was replaced and could not be synced is taken for one that was not written, and the
    /// old worker resumes.
    GoesBackAfterSync,
    /// A worker that came back to a new supervisor still reads what the old channel held.
    StaleOrders,
}

impl Plant {
    /// Each.
    pub const ALL: [Plant; 9] = [
        Plant::CommittedCorrected,
        Plant::ResumesAnyFrozen,
        Plant::GoesOnAlone,
        Plant::CommitsOnDeath,
        Plant::TrimmedByOne,
        Plant::EndedBeforePersisted,
        Plant::UnsyncedRecord,
        Plant::GoesBackAfterSync,
        Plant::StaleOrders,
    ];

    /// As it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Plant::CommittedCorrected => "committed-corrected",
            Plant::ResumesAnyFrozen => "resumes-any-frozen",
            Plant::GoesOnAlone => "goes-on-alone",
            Plant::CommitsOnDeath => "commits-on-death",
            Plant::TrimmedByOne => "trimmed-by-one",
            Plant::EndedBeforePersisted => "ended-before-persisted",
            Plant::UnsyncedRecord => "unsynced-record",
            Plant::GoesBackAfterSync => "goes-back-after-sync",
            Plant::StaleOrders => "stale-orders",
        }
    }

    /// What it is.
    pub fn words(self) -> &'static str {
        match self {
            Plant::CommittedCorrected => "a start corrects `committed` to a survivor's generation",
            Plant::ResumesAnyFrozen => "a frozen worker resumes that is not on the committed generation",
            Plant::GoesOnAlone => "the new worker goes on alone while a reverse cut runs",
            Plant::CommitsOnDeath => "the old one's death commits without another look at the new one",
            Plant::TrimmedByOne => "what only one side has durably goes from the logbook",
            Plant::EndedBeforePersisted => "the logbook is ended before the database is durable",
            Plant::UnsyncedRecord => "a start acts on a record that is read but not synced",
            Plant::GoesBackAfterSync => "after a failed sync of the record the old worker resumes",
            Plant::StaleOrders => "orders left unread on an old channel are obeyed",
        }
    }

    /// How many faults it takes to show.
    pub fn faults(self) -> u8 {
        match self {
            Plant::TrimmedByOne | Plant::EndedBeforePersisted => 0,
            Plant::CommittedCorrected | Plant::UnsyncedRecord | Plant::GoesBackAfterSync => 1,
            Plant::ResumesAnyFrozen | Plant::GoesOnAlone | Plant::StaleOrders | Plant::CommitsOnDeath => 2,
        }
    }

    /// Of which sorts; it shows with others too, later.
    pub fn kinds(self) -> &'static [Kind] {
        match self {
            Plant::TrimmedByOne | Plant::EndedBeforePersisted => &[],
            Plant::CommittedCorrected => &[Kind::Supervisor],
            Plant::UnsyncedRecord => &[Kind::Supervisor],
            Plant::GoesBackAfterSync => &[Kind::Record],
            Plant::ResumesAnyFrozen => &[Kind::Supervisor, Kind::Kill],
            Plant::GoesOnAlone => &[Kind::Operator, Kind::Kill],
            Plant::StaleOrders => &[Kind::Supervisor, Kind::Operator],
            Plant::CommitsOnDeath => &[Kind::Channel, Kind::Kill],
        }
    }

    /// The one with this name.
    pub fn named(name: &str) -> Option<Plant> {
        Plant::ALL.into_iter().find(|plant| plant.name() == name)
    }
}

/// The product's decision on a start, unless one is planted instead.
pub fn recover(
    plant: Option<Plant>,
    mut found: Found,
    decide: fn(Found, Moment, &Rules) -> (State, Vec<Effect>),
    rules: &Rules,
) -> (State, Vec<Effect>) {
    let holder = found.alive.iter().find_map(|survivor| match survivor.role {
        Role::Holding { term } => Some((survivor.worker.clone(), term)),
        Role::Frozen { .. } | Role::Retired { .. } | Role::Draining => None,
    });
    match plant {
        Some(Plant::CommittedCorrected) => {
            if let Some((worker, term)) = holder
                && found.committed.as_ref().is_some_and(|(_, committed)| *committed != worker.generation)
            {
                let record = Effect::Record {
                    release: worker.release,
                    generation: worker.generation,
                    term: RecordTerm::Held(term),
                };
                let (state, mut effects) = decide(found, super::time::NOW, rules);
                effects.insert(0, record);
                return (state, effects);
            }
        }
        Some(Plant::ResumesAnyFrozen) => {
            let frozen = found.alive.iter().find(|survivor| match survivor.role {
                Role::Frozen { resume, .. } => resume != 0,
                Role::Retired { .. } => true,
                Role::Holding { .. } | Role::Draining => false,
            });
            if let (None, Some(survivor)) = (holder, frozen) {
                found.committed = Some((survivor.worker.release.clone(), survivor.worker.generation));
            }
        }
        Some(
            Plant::GoesOnAlone
            | Plant::CommitsOnDeath
            | Plant::TrimmedByOne
            | Plant::EndedBeforePersisted
            | Plant::UnsyncedRecord
            | Plant::GoesBackAfterSync
            | Plant::StaleOrders,
        )
        | None => {}
    }
    decide(found, super::time::NOW, rules)
}

/// The product's next state, unless one is planted instead.
pub fn step(
    plant: Option<Plant>,
    state: State,
    event: Event,
    now: Moment,
    rules: &Rules,
) -> (State, Vec<Effect>) {
    match (plant, state, event) {
        (
            Some(Plant::GoesOnAlone),
            State::Reversing {
                old,
                new,
                attempt,
                terms,
                step: Reverse::Preparing | Reverse::Cutting,
                gap_us,
                ..
            },
            Event::Ended(who, _),
        ) if who == old.instance => {
            let tell = Effect::Tell(new.instance, Command::PeerGone { tag: old.tag });
            let judge = Judge::new(Baseline::default(), now);
            let until = now + rules.probation;
            let old = Old::Gone(old);
            (State::Probation { old, new, attempt, terms, gap_us, judge, until }, vec![tell])
        }
        (
            Some(Plant::CommitsOnDeath),
            State::Committing {
                old: Old::Warm(old, _),
                new,
                attempt,
                terms,
                gap_us,
                step: Commit::Retiring,
                deadline,
                heard,
            },
            Event::Ended(who, _),
        ) if who == old.instance => {
            let record = Effect::Record {
                release: new.release.clone(),
                generation: new.generation,
                term: RecordTerm::Held(terms.take),
            };
            let (old, step) = (Old::Gone(old), Commit::Recording);
            (State::Committing { old, new, attempt, terms, gap_us, step, deadline, heard }, vec![record])
        }
        (
            Some(Plant::GoesBackAfterSync),
            State::Committing {
                old: Old::Warm(old, _),
                new,
                attempt,
                terms,
                step: Commit::Recording,
                deadline,
                ..
            },
            Event::Stored(Stored::NotRecorded(why)),
        ) => {
            let kill = Effect::Kill(new.instance);
            let (step, verdict) = (Back::Killing, Verdict::Unknown(why));
            let state =
                State::RollingBack { old, new, attempt, terms, step, verdict, gap_us: None, deadline };
            (state, vec![kill])
        }
        (_, state, event) => state.step(event, now, rules),
    }
}

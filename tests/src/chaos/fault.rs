//! What goes wrong.

use std::time::Duration;

use bumpless_worker::faults::{Deed, Files, Flood, Harm, Wire};

use super::step::{Step, Zone};
use crate::small_disk::Part;

/// A stopped process goes on after this long: well beyond the silence that the settings allow, so that it
/// has been given up by then where silence counts.
pub const HALT: Duration = Duration::from_millis(1500);
/// A disk stays full for so long.
pub const FULL: Duration = Duration::from_millis(700);
/// A clock jumps by so much.
pub const JUMP: i64 = 24 * 3600;
/// A supervisor that is stopped for good is killed and started again by the operator after this long.
pub const HANG: Duration = Duration::from_millis(700);

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL.
    KillNew,
    /// SIGKILL.
    KillOld,
    /// SIGKILL; the operator starts it again.
    KillSupervisor,
    /// SIGKILL to both workers.
    KillBoth,
    /// SIGKILL to all three; the operator starts the supervisor again.
    KillAll,
    /// SIGSTOP, and SIGCONT after [`HALT`].
    HaltNew,
    /// The same.
    HaltOld,
    /// The same.
    HaltSupervisor,
    /// SIGSTOP for good.
    HangNew,
    /// The same.
    HangOld,
    /// The same; the operator kills it and starts it again after [`HANG`].
    HangSupervisor,
    /// Link and stream between the two are closed while both live.
    CloseLink,
    /// A file system is really full, and after [`FULL`] it is not any more.
    Full(Part),
    /// The next sync of this file fails; injected.
    Sync(File),
    /// The supervisor's wall clock is a day ahead; injected.
    ClockOn,
    /// It is a day behind; injected.
    ClockBack,
    /// The new worker does what no sound one does.
    Does(Deed),
    /// The new worker acknowledges and stores nothing.
    KeepsNothing,
}

/// What a sync that fails was to make durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// The logbook of a term.
    Logbook,
    /// The supervisor's journal.
    Journal,
    /// The committed record.
    Committed,
    /// The new worker's database.
    Database,
}

impl File {
    /// What its path contains.
    pub fn part(self) -> &'static str {
        match self {
            File::Logbook => "/log/",
            File::Journal => "/journal",
            File::Committed => "/committed",
            File::Database => "/db",
        }
    }
}

/// Which release may serve in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that served when the case began.
    Old,
    /// The one that was upgraded to.
    New,
    /// Both are right.
    Either,
}

impl Fault {
    /// All there are.
    pub const ALL: [Fault; 32] = [
        Fault::KillNew,
        Fault::KillOld,
        Fault::KillSupervisor,
        Fault::KillBoth,
        Fault::KillAll,
        Fault::HaltNew,
        Fault::HaltOld,
        Fault::HaltSupervisor,
        Fault::HangNew,
        Fault::HangOld,
        Fault::HangSupervisor,
        Fault::CloseLink,
        Fault::Full(Part::State),
        Fault::Full(Part::Records),
        Fault::Full(Part::Logbooks),
        Fault::Sync(File::Logbook),
        Fault::Sync(File::Journal),
        Fault::Sync(File::Committed),
        Fault::Sync(File::Database),
        Fault::ClockOn,
        Fault::ClockBack,
        Fault::Does(Deed::Harm(Files::Logbook, Harm::Scribble)),
        Fault::Does(Deed::Harm(Files::Logbook, Harm::Truncate)),
        Fault::Does(Deed::Harm(Files::Logbook, Harm::Delete)),
        Fault::Does(Deed::Flood(Flood::Notes)),
        Fault::Does(Deed::Flood(Flood::Answers)),
        Fault::Does(Deed::Flood(Flood::Credit)),
        Fault::Does(Deed::Flood(Flood::Reports)),
        Fault::Does(Deed::Garbage(Wire::Link)),
        Fault::Does(Deed::Garbage(Wire::Stream)),
        Fault::Does(Deed::Garbage(Wire::Control)),
        Fault::KeepsNothing,
    ];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Fault::KillNew => "kill -9 of the new worker",
            Fault::KillOld => "kill -9 of the old worker",
            Fault::KillSupervisor => "kill -9 of the supervisor",
            Fault::KillBoth => "kill -9 of both workers",
            Fault::KillAll => "kill -9 of all three",
            Fault::HaltNew => "the new worker is stopped for a while",
            Fault::HaltOld => "the old worker is stopped for a while",
            Fault::HaltSupervisor => "the supervisor is stopped for a while",
            Fault::HangNew => "the new worker is stopped for good",
            Fault::HangOld => "the old worker is stopped for good",
            Fault::HangSupervisor => "the supervisor is stopped for good",
            Fault::CloseLink => "the link is closed",
            Fault::Full(Part::All | Part::State) => "the state's disk is full",
            Fault::Full(Part::Records) => "the journal's disk is full",
            Fault::Full(Part::Logbooks) => "the logbooks' disk is full",
            Fault::Sync(File::Logbook) => "a sync of the logbook fails (injected)",
            Fault::Sync(File::Journal) => "a sync of the journal fails (injected)",
            Fault::Sync(File::Committed) => "a sync of the record fails (injected)",
            Fault::Sync(File::Database) => "a sync of the new database fails (injected)",
            Fault::ClockOn => "the clock jumps a day on (injected)",
            Fault::ClockBack => "the clock jumps a day back (injected)",
            Fault::Does(Deed::Harm(_, Harm::Scribble)) => "the new worker scribbles over old logbooks",
            Fault::Does(Deed::Harm(_, Harm::Truncate)) => "the new worker truncates old logbooks",
            Fault::Does(Deed::Harm(_, Harm::Delete)) => "the new worker deletes old logbooks",
            Fault::Does(Deed::Flood(Flood::Notes)) => "the new worker floods with notes",
            Fault::Does(Deed::Flood(Flood::Answers)) => "the new worker floods with answers",
            Fault::Does(Deed::Flood(Flood::Credit)) => "the new worker floods with credit",
            Fault::Does(Deed::Flood(Flood::Reports)) => "the new worker floods the supervisor",
            Fault::Does(Deed::Flood(Flood::Records)) => "the new worker floods its logbook",
            Fault::Does(Deed::Garbage(Wire::Link)) => "the new worker sends garbage notes",
            Fault::Does(Deed::Garbage(Wire::Stream)) => "the new worker sends garbage parts",
            Fault::Does(Deed::Garbage(Wire::Control)) => "the new worker sends garbage reports",
            Fault::Does(Deed::Stop | Deed::Exit | Deed::CloseLink) => "the new worker ends",
            Fault::KeepsNothing => "the new worker acknowledges and stores nothing",
        }
    }

    /// Whether it can happen in this step.
    pub fn strikes_in(self, step: Step) -> bool {
        match self {
            Fault::KillNew | Fault::HaltNew | Fault::HangNew | Fault::KillBoth => step.has_new(),
            Fault::CloseLink => step.has_link(),
            Fault::KillOld | Fault::HaltOld | Fault::HangOld => true,
            Fault::KillSupervisor | Fault::HaltSupervisor | Fault::HangSupervisor | Fault::KillAll => true,
            Fault::Full(_) => true,
            Fault::Sync(File::Logbook) => step.has_link() && !matches!(step.zone(), Zone::After),
            Fault::Sync(File::Journal) => true,
            Fault::Sync(File::Committed) => {
                matches!(step.zone(), Zone::Probation | Zone::Recording) || step == Step::ColdStarting
            }
            Fault::Sync(File::Database) => {
                matches!(step, Step::Syncing | Step::CommitPersisting | Step::Sealing | Step::Draining)
            }
            Fault::ClockOn | Fault::ClockBack => matches!(
                step,
                Step::Steady
                    | Step::Fetching
                    | Step::Syncing
                    | Step::Probation
                    | Step::Retired
                    | Step::Draining
            ),
            // Before the cut they are what it reads itself.
            Fault::Does(Deed::Harm(..)) => {
                matches!(step, Step::Taken | Step::Probation | Step::CommitPersisting | Step::Draining)
            }
            Fault::Does(_) => matches!(
                step,
                Step::Syncing
                    | Step::Prepared
                    | Step::Taken
                    | Step::Probation
                    | Step::CommitPersisting
                    | Step::Draining
            ),
            Fault::KeepsNothing => step == Step::Probation,
        }
    }

    /// Whether what an operator does beside it is tried, too: where what goes wrong is over in a moment, or
    /// goes wrong with the release itself, that is a case of its own already.
    pub fn with_operator(self) -> bool {
        match self {
            Fault::KillNew | Fault::KillOld | Fault::KillSupervisor | Fault::KillBoth | Fault::KillAll => {
                true
            }
            Fault::HaltNew | Fault::HaltOld | Fault::HaltSupervisor => true,
            Fault::HangNew | Fault::HangOld | Fault::HangSupervisor | Fault::CloseLink => true,
            Fault::Full(_) | Fault::Sync(_) | Fault::ClockOn | Fault::ClockBack => false,
            Fault::Does(_) | Fault::KeepsNothing => false,
        }
    }

    /// Whether requests may be refused while it lasts.
    pub fn refuses(self) -> bool {
        matches!(self, Fault::Full(_) | Fault::Sync(_))
    }

    /// Whether it needs a file system of its own.
    pub fn needs_small_disk(self) -> bool {
        matches!(self, Fault::Full(_))
    }

    /// Who may serve in the end, whom it strikes in this step, if nobody asks for anything.
    pub fn leaves(self, step: Step) -> Side {
        let zone = step.zone();
        match zone {
            // Nothing else was ever asked for, or it is being taken back for certain.
            Zone::None | Zone::Back | Zone::Reversed => return Side::Old,
            Zone::After => return Side::New,
            Zone::Acquiring | Zone::Before | Zone::Cut | Zone::Probation => {}
            Zone::Recording | Zone::Reversing => {}
        }
        match (self, zone) {
            // Nobody takes its absence for the fault of others.
            (Fault::HaltSupervisor, Zone::Reversing) => Side::Old,
            (Fault::HaltSupervisor, _) => Side::New,
            (Fault::KillSupervisor | Fault::HangSupervisor, Zone::Acquiring | Zone::Before) => Side::Old,
            // Who holds is found out by the next one; and an operator's word that was not carried out yet
            // is forgotten.
            (Fault::KillSupervisor | Fault::HangSupervisor, Zone::Cut | Zone::Reversing) => Side::Either,
            (Fault::KillSupervisor | Fault::HangSupervisor, _) => Side::New,
            (Fault::KillOld | Fault::HangOld, Zone::Recording) => Side::New,
            (_, Zone::Recording) => Side::Either,
            (Fault::KillNew | Fault::HangNew | Fault::CloseLink, _) => Side::Old,
            (Fault::KillBoth | Fault::KillAll, _) => Side::Old,
            (Fault::KillOld | Fault::HangOld, Zone::Acquiring | Zone::Before | Zone::Reversing) => Side::Old,
            // Whether the supervisor hears first of the death or of `Took`.
            (Fault::KillOld | Fault::HangOld, Zone::Cut) => Side::Either,
            (Fault::KillOld | Fault::HangOld, _) => Side::New,
            (Fault::HaltOld, Zone::Acquiring | Zone::Before | Zone::Reversing) => Side::Old,
            (Fault::HaltNew, Zone::Reversing | Zone::Probation) => Side::Old,
            (Fault::HaltNew | Fault::HaltOld, _) => Side::Either,
            (Fault::KeepsNothing, _) => Side::Old,
            // What it says about a release differs from case to case; that nobody is harmed does not.
            (Fault::Full(_) | Fault::Sync(_) | Fault::ClockOn | Fault::ClockBack | Fault::Does(_), _) => {
                Side::Either
            }
        }
    }
}

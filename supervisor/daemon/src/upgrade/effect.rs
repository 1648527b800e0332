//! What the sequence wants done. Performed in `effects/`, in order, at once; what has a result comes
//! back as an event.

use bumpless_shared::control::{Command, Generation, Instance, Origin, Tag, Term};
use bumpless_shared::release::Release;

use super::state::{Attempt, Verdict, Worker};

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Fetch the blob. Answered by `Fetched` or `AcquireFailed`.
    Fetch(Release),
    /// Stop fetching or installing.
    CancelAcquire,
    /// Unpack, verify, install. Answered by `Installed` or `AcquireFailed`.
    Install(Release),
    /// Verify the binary and start it. A candidate's or genesis' generation is numbered here, and
    /// named in the journal before the process exists. Answered by `Spawned` or `SpawnFailed`, then
    /// by `Greeted` or `GreetingFailed`.
    Spawn {
        /// What.
        release: Release,
        /// On what; `None`: a new one.
        generation: Option<Generation>,
        /// What it is for.
        origin: Origin,
        /// Its slot.
        tag: Tag,
    },
    /// Send `Command::Start` with the alive file and the sockets.
    Start(Worker, Origin),
    /// Make the channels between the two, give both their ends, keep none.
    Pair {
        /// Holds.
        serving: Worker,
        /// New.
        new: Worker,
    },
    /// Send this order.
    Tell(Instance, Command),
    /// SIGKILL through the pidfd. `Ended` tells when it is dead.
    Kill(Instance),
    /// Reserve two terms and write the journal's intent, durably. Answered by `Reserved` or
    /// `ReserveFailed`.
    Reserve {
        /// The upgrade.
        attempt: Attempt,
        /// The candidate's.
        generation: Generation,
        /// The holder's, and the term it holds.
        held: (Generation, Term),
    },
    /// Write the committed record. Answered by `Recorded` or `RecordFailed`.
    Record {
        /// The pair.
        release: Release,
        /// The pair.
        generation: Generation,
        /// Its term, or how high a newly reserved one has to be at least.
        term: RecordTerm,
    },
    /// These lie on disk for nobody: name them in the journal; the driver has the holder remove them.
    Discard {
        /// Logbooks.
        logs: Vec<Term>,
        /// Generations.
        generations: Vec<Generation>,
    },
    /// The upgrade has ended: history, attempts, quarantine, the journal, whoever waits for it.
    Conclude {
        /// Which.
        attempt: Attempt,
        /// How.
        verdict: Verdict,
        /// Microseconds without a holder, where there was a cut.
        gap_us: Option<u64>,
    },
    /// Something that an operator should see, in the history and in status.
    Alarm(String),
    /// The first two hand-overs of a rehearsal are done and nothing bumped: a line for the history.
    Rehearsed {
        /// The upgrade.
        attempt: Attempt,
        /// Microseconds without a holder at the cut.
        cut_us: u64,
        /// The same on the way back.
        back_us: Option<u64>,
    },
}

impl Effect {
    /// The end of an upgrade. What went wrong in a rehearsal says in which part of it.
    pub(super) fn conclude(attempt: Attempt, verdict: Verdict, gap_us: Option<u64>) -> Effect {
        let told = |why: String| match attempt.rehearsal.words() {
            Some(part) => format!("{part}: {why}"),
            None => why,
        };
        let verdict = match verdict {
            Verdict::Good => Verdict::Good,
            Verdict::Bad(why) => Verdict::Bad(told(why)),
            Verdict::Wrong(why) => Verdict::Wrong(told(why)),
            Verdict::Unknown(why) => Verdict::Unknown(told(why)),
            Verdict::RolledBack(why) => Verdict::RolledBack(why),
            Verdict::Withdrawn(why) => Verdict::Withdrawn(told(why)),
        };
        Effect::Conclude { attempt, verdict, gap_us }
    }
}

/// The term of a committed record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordTerm {
    /// This one; it holds already.
    Held(Term),
    /// A newly reserved one, above this.
    Above(Term),
}

//! Where an upgrade stands. Each variant owns exactly the workers that live in it.

use std::time::Duration;

use bincode::{Decode, Encode};
use bumpless_shared::control::{Generation, Heartbeat, Instance, Tag, Term};
use bumpless_shared::digest::Digest;
use bumpless_shared::release::Release;

use super::judge::{Baseline, Judge};

/// A moment of the supervisor's life: time since it started, from a clock that no one can set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Moment(pub Duration);

impl std::ops::Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, later: Duration) -> Moment {
        Moment(self.0 + later)
    }
}

/// A worker process, as far as decisions need it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Worker {
    /// Its number.
    pub instance: Instance,
    /// Its state directory.
    pub generation: Generation,
    /// What it runs.
    pub release: Release,
    /// Its slot.
    pub tag: Tag,
}

/// Why this upgrade: from what, to what, at whose word.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Attempt {
    /// What ran when it began; `None` for a node's very first release.
    pub from: Option<Release>,
    /// What is to run.
    pub to: Release,
    /// The operator's uid, if it was asked for.
    pub by: Option<u32>,
    /// Whether it is rehearsed, and how far that is.
    pub rehearsal: Rehearsal,
}

/// Which of the three hand-overs of a rehearsal an upgrade is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Rehearsal {
    /// None: it is not rehearsed, or the rehearsal is over.
    #[default]
    Off,
    /// The first: a cut that is taken back after a short watch.
    Cut,
    /// The second: the graceful way back.
    Back,
    /// The third: the cut to a second instance, whose probation is then the real one.
    Again,
}

impl Rehearsal {
    /// Of three; `None` outside of a rehearsal.
    pub fn number(self) -> Option<u8> {
        match self {
            Rehearsal::Off => None,
            Rehearsal::Cut => Some(1),
            Rehearsal::Back => Some(2),
            Rehearsal::Again => Some(3),
        }
    }

    /// In words; `None` outside of a rehearsal.
    pub fn words(self) -> Option<&'static str> {
        match self {
            Rehearsal::Off => None,
            Rehearsal::Cut => Some("rehearsal 1 of 3: cut"),
            Rehearsal::Back => Some("rehearsal 2 of 3: way back"),
            Rehearsal::Again => Some("rehearsal 3 of 3: cut"),
        }
    }
}

/// How an upgrade ended. What follows from it (try again, quarantine) is in [`super::retry`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Committed.
    Good,
    /// The release failed here; it may be tried again a few times.
    Bad(String),
    /// The release gave or kept wrong data; it is never tried again.
    Wrong(String),
    /// Something else was in the way; the release is not to blame.
    Unknown(String),
    /// The operator took it back.
    RolledBack(String),
    /// The publisher has forbidden it meanwhile. It did not fail here: allowed again, it is tried again.
    Withdrawn(String),
}

impl Verdict {
    /// In words.
    pub fn reason(&self) -> &str {
        match self {
            Verdict::Good => "good",
            Verdict::Bad(why) | Verdict::Wrong(why) | Verdict::Unknown(why) => why,
            Verdict::RolledBack(why) | Verdict::Withdrawn(why) => why,
        }
    }
}

/// The terms of a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Terms {
    /// T, the old worker's until it yields.
    pub held: Term,
    /// T+1, reserved for the new worker.
    pub take: Term,
    /// T+2, reserved for the old worker if it has to resume.
    pub resume: Term,
}

impl Terms {
    /// Of a cut by the holder of this term, with two terms in a row that were reserved for it.
    pub fn reserved(held: Term, first: Term) -> Terms {
        Terms { held, take: first, resume: first + 1 }
    }
}

/// The worker that has authority, alone.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Serving {
    /// It.
    pub worker: Worker,
    /// Its term.
    pub term: Term,
    /// When it was last heard.
    pub heard: Moment,
    /// Its last heartbeats, newest last: probation's baseline.
    pub beats: Vec<Heartbeat>,
}

/// How many heartbeats make a baseline.
const BASELINE_BEATS: usize = 5;

impl Serving {
    /// It has just begun to serve.
    pub fn new(worker: Worker, term: Term, now: Moment) -> Serving {
        Serving { worker, term, heard: now, beats: Vec::new() }
    }

    /// It was heard.
    pub fn beat(&mut self, beat: &Heartbeat, now: Moment) {
        self.heard = now;
        if self.beats.len() == BASELINE_BEATS {
            self.beats.remove(0);
        }
        self.beats.push(beat.clone());
    }

    /// How it did lately.
    pub fn baseline(&self) -> Baseline {
        let (requests, errors) =
            self.beats.iter().fold((0, 0), |(r, e), beat| (r + beat.requests, e + beat.errors));
        Baseline {
            p99_us: self.beats.iter().map(|beat| beat.p99_us).max().unwrap_or(0),
            error_permille: errors.saturating_mul(1000) / requests.max(1),
        }
    }
}

/// The worker that yielded.
#[derive(Clone, Debug, PartialEq, Hash)]
pub enum Old {
    /// Frozen, following, ready to resume. Since when it was not heard.
    Warm(Worker, Moment),
    /// Dead, confirmed.
    Gone(Worker),
}

impl Old {
    /// Who it is or was.
    pub fn worker(&self) -> &Worker {
        match self {
            Old::Warm(worker, _) | Old::Gone(worker) => worker,
        }
    }

    /// It, if it lives.
    pub fn warm(&self) -> Option<&Worker> {
        match self {
            Old::Warm(worker, _) => Some(worker),
            Old::Gone(_) => None,
        }
    }
}

/// Which two state hashes are in: the holder's and the follower's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hashes {
    /// The mark's number.
    pub mark: u64,
    /// By instance, as they came.
    pub seen: Vec<(Instance, Digest)>,
}

/// What starts cold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pair {
    /// The node's very first release; its generation is made.
    Genesis(Attempt),
    /// What `committed` names.
    Committed(Release, Generation),
}

impl Pair {
    /// What runs.
    pub fn release(&self) -> &Release {
        match self {
            Pair::Genesis(attempt) => &attempt.to,
            Pair::Committed(release, _) => release,
        }
    }
}

/// What a cold start is waiting for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cold {
    /// The binary is verified and started.
    Spawning,
    /// It has been started and opens its state.
    Opening(Worker),
    /// The committed record with a newly reserved term becomes durable.
    /// (At the node's very first start, with the upgrade that is thereby done.)
    Recording(Worker, Option<Attempt>),
    /// It was told to go.
    Going(Worker, Term),
    /// It failed; it is killed and its death awaited.
    Failing(Worker, String),
    /// The next try comes at the deadline.
    Waiting(String),
    /// It must not run, for this reason, and the configuration wants that obeyed. Nothing is started until
    /// one of the two is otherwise.
    Forbidden(String),
}

/// What is being made level.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Levelling {
    /// Both hash what they store.
    Hashing(Hashes),
    /// The new worker makes the logbook of T+1.
    Preparing(Terms),
}

/// How far a commit has come; the order is what makes it safe.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Commit {
    /// (1) State hashes at one sequence of T+1. Left out if the old worker is dead: the equality that
    /// was found before the cut stands.
    Hashing(Hashes),
    /// (2) The new worker makes its database durable. If the old one died after (1) began, this is
    /// done once more: the answer shows that the new one outlived it. So many answers are to come; one that
    /// was on its way before that death shows nothing.
    Persisting(u32),
    /// (3) The old worker gives up its claim.
    Retiring,
    /// (4) The committed record becomes durable. From here on the only way is forward.
    Recording,
    /// (5) The new worker ends its logbook and makes the database durable past its end.
    Sealing,
    /// (6) The old worker sends its connections away and exits.
    Draining,
}

/// Where the way back stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Back {
    /// The new worker is killed; nothing happens before its death is certain.
    Killing,
    /// The old worker reads the dead one's logbook and takes authority.
    Resuming,
    /// It serves; its database becomes durable, so that the logbook may go. When it was last heard.
    Persisting(Moment),
}

/// Where the graceful way back stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reverse {
    /// The old worker gets ready for T+2.
    Preparing,
    /// The new worker was told to yield.
    Cutting,
    /// The old worker holds; the new one relays to it, sends its connections away and exits. When the
    /// holder was last heard.
    Draining(Moment),
}

/// What the graceful way back is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Return {
    /// The upgrade ends with this verdict.
    Ends(Verdict),
    /// It is rehearsed and nothing has bumped so far; a second instance follows.
    Rehearsed {
        /// The gap of the cut before it, microseconds.
        cut_us: u64,
        /// Whether all connections of the new worker are known to have moved.
        moved: bool,
    },
}

impl Return {
    /// How the upgrade ends if the way back does not go as it should.
    pub(super) fn or(self, verdict: Verdict) -> Verdict {
        match self {
            Return::Ends(verdict) => verdict,
            Return::Rehearsed { .. } => verdict,
        }
    }
}

/// What follows once every process that has to die is dead.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum After {
    /// The committed pair starts cold.
    Cold(Release, Generation),
    /// The record of this worker's pair has to become durable first (the commit point may be behind
    /// us); then that pair starts cold.
    Record {
        /// Whose pair.
        worker: Worker,
        /// The generation that is then nobody's.
        old: Generation,
        /// The upgrade, which is then done.
        attempt: Attempt,
        /// Of its cut.
        terms: Terms,
        /// The cut's gap.
        gap_us: Option<u64>,
    },
}

/// The supervisor's whole state, as far as decisions need it. Only in `Vacant`, `Cold`, `Clearing`
/// and once it is stopped does no worker serve.
#[derive(Clone, Debug, PartialEq, Hash)]
pub enum State {
    /// Nothing was ever installed here.
    Vacant,
    /// A pair starts with nothing beside it.
    Cold {
        /// Which.
        pair: Pair,
        /// Where it stands.
        step: Cold,
        /// For the step.
        deadline: Moment,
        /// Failed tries in a row.
        tries: u32,
    },
    /// One worker serves and nothing is going on.
    Steady(Serving),
    /// A release is fetched.
    Fetching {
        /// `None` before the first release.
        serving: Option<Serving>,
        /// The upgrade.
        attempt: Attempt,
        /// Then it is given up.
        deadline: Moment,
    },
    /// What was fetched is unpacked, hashed and put in its directory.
    Installing {
        /// `None` before the first release.
        serving: Option<Serving>,
        /// The upgrade.
        attempt: Attempt,
        /// Then it is given up.
        deadline: Moment,
    },
    /// The new worker starts, idle.
    Starting {
        /// Serves.
        serving: Serving,
        /// The upgrade.
        attempt: Attempt,
        /// The new worker, once it runs.
        new: Option<Worker>,
        /// Then it is killed.
        deadline: Moment,
    },
    /// It ingests the snapshot and follows the logbook.
    Syncing {
        /// Serves.
        serving: Serving,
        /// The upgrade.
        attempt: Attempt,
        /// The new worker.
        new: Worker,
        /// Least that was ever left to do; progress means that this shrinks.
        left: u64,
        /// Without progress until then it is killed.
        deadline: Moment,
    },
    /// It is level; hashes are compared and the cut is made ready.
    Level {
        /// Serves.
        serving: Serving,
        /// The upgrade.
        attempt: Attempt,
        /// The new worker.
        new: Worker,
        /// What is waited for.
        step: Levelling,
        /// Then the upgrade is backed out.
        deadline: Moment,
    },
    /// The cut was ordered: who holds is between the two of them.
    Cutting {
        /// The yielder.
        old: Worker,
        /// The taker.
        new: Worker,
        /// The upgrade.
        attempt: Attempt,
        /// Of this cut.
        terms: Terms,
        /// How the yielder did lately.
        baseline: Baseline,
        /// What the yielder measured from freeze to `Took`, if it has said so.
        gap_us: Option<u64>,
        /// Then the new worker is killed and the old one resumes.
        deadline: Moment,
    },
    /// The new worker holds, the old one watches.
    Probation {
        /// Yielded.
        old: Old,
        /// Holds.
        new: Worker,
        /// The upgrade.
        attempt: Attempt,
        /// Of the cut.
        terms: Terms,
        /// The cut's gap.
        gap_us: Option<u64>,
        /// What speaks for and against the new one.
        judge: Judge,
        /// Good, if nothing bad is found until then.
        until: Moment,
    },
    /// The verdict is good and is made durable.
    Committing {
        /// Yielded.
        old: Old,
        /// Holds.
        new: Worker,
        /// The upgrade.
        attempt: Attempt,
        /// Of the cut.
        terms: Terms,
        /// The cut's gap.
        gap_us: Option<u64>,
        /// How far.
        step: Commit,
        /// For the step.
        deadline: Moment,
        /// When the holder was last heard.
        heard: Moment,
    },
    /// An operator takes it back in probation, or it is rehearsed: the same cut the other way round.
    Reversing {
        /// Will hold.
        old: Worker,
        /// Holds, yields, drains, exits.
        new: Worker,
        /// The upgrade.
        attempt: Attempt,
        /// Of the cut; the way back takes the resume term.
        terms: Terms,
        /// Where it stands.
        step: Reverse,
        /// Why.
        why: Return,
        /// What the new one measured from its freeze to the old one's `Took`.
        gap_us: Option<u64>,
        /// Then the new one is killed; the old one resumes, or goes on where it holds already.
        deadline: Moment,
    },
    /// The new worker failed after the order to cut, or had to go: kill it, let the old one resume.
    RollingBack {
        /// Resumes.
        old: Worker,
        /// Killed.
        new: Worker,
        /// The upgrade.
        attempt: Attempt,
        /// Of the cut.
        terms: Terms,
        /// Where it stands.
        step: Back,
        /// Why.
        verdict: Verdict,
        /// What was measured without a holder.
        gap_us: Option<u64>,
        /// For the step.
        deadline: Moment,
    },
    /// The new worker has to go before the cut; the old one never notices.
    BackingOut {
        /// Serves.
        serving: Serving,
        /// The upgrade.
        attempt: Attempt,
        /// Killed; its death is awaited.
        new: Worker,
        /// Why.
        verdict: Verdict,
        /// Then an alarm is raised; the wait itself has no bound.
        alarm: Moment,
    },
    /// Whoever is left is killed and confirmed; then a pair starts cold.
    Clearing {
        /// Still to die.
        dying: Vec<Worker>,
        /// What follows.
        after: After,
        /// Then an alarm is raised; the wait itself has no bound.
        alarm: Moment,
    },
    /// A real stop: workers end in good order.
    Stopping {
        /// Still alive.
        left: Vec<Worker>,
        /// Then they are killed.
        deadline: Moment,
    },
    /// Everything has ended.
    Stopped,
}

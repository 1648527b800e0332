//! Where in the sequence a fault strikes, and how a run gets there without waiting for luck.

use bumpless_control::status::Phase;

/// A step of an upgrade, of a way back or of a cold start that can be told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Nothing is under way.
    Steady,
    /// The artifact comes from the feed.
    Fetching,
    /// It is unpacked and hashed.
    Verifying,
    /// The new worker was told to start.
    Starting,
    /// It has started and not said so yet.
    Started,
    /// The two were told of each other.
    Pairing,
    /// The snapshot is taken in.
    Syncing,
    /// Both hash what they store.
    Hashing,
    /// The new worker is to make its logbook.
    Preparing,
    /// It has made it and not said so yet.
    Prepared,
    /// The old worker was told to cut and has not frozen yet.
    Cutting,
    /// It has yielded; the new one has not taken over yet.
    Yielded,
    /// The new one holds; the supervisor does not know yet.
    Taken,
    /// It is watched.
    Probation,
    /// Both hash once more.
    CommitHashing,
    /// The new worker is to make its database durable.
    CommitPersisting,
    /// The old one is to give up its claim.
    Retiring,
    /// It has and did not say so yet.
    Retired,
    /// The committed record is being written, give or take a millisecond.
    Recording,
    /// The new worker is to end its logbook.
    Sealing,
    /// It has and did not say so yet.
    Sealed,
    /// The old worker is to send its connections away.
    Draining,
    /// It has and did not say so yet.
    Drained,
    /// The operator took it back before the cut.
    BackingOut,
    /// The new worker was killed on probation; the old one is to resume.
    Resuming,
    /// It holds and did not say so yet.
    Resumed,
    /// It is to make its database durable.
    BackPersisting,
    /// The operator took it back on probation; the old worker is to get ready.
    ReversePreparing,
    /// The new one was told to yield and has not frozen yet.
    ReverseCutting,
    /// It has yielded; the old one has not taken over yet.
    ReverseYielded,
    /// The old one holds; the supervisor does not know yet.
    ReverseTaken,
    /// The new one is to send its connections away.
    ReverseDraining,
    /// The committed pair starts with nothing beside it: it was told to open its state.
    ColdStarting,
    /// It was told to go.
    ColdGoing,
}

/// What has to be done for a step to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Nothing.
    Stay,
    /// An upgrade begins.
    Forward,
    /// It is taken back when the new worker is level.
    BackOut,
    /// The new worker is killed on probation.
    RollBack,
    /// It is taken back on probation.
    Reverse,
    /// The serving worker is killed.
    Cold,
}

/// How it is known that a step has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It is there already.
    Now,
    /// The supervisor says so.
    Told(Phase),
    /// A worker is held at this point, when it comes there this many times.
    Held(Role, &'static str, u32),
}

/// One of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Served when the case began.
    Old,
    /// Is upgraded to.
    New,
}

/// What steps have in common, as far as it decides who may serve in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// There is no upgrade.
    None,
    /// The old one serves, and there is no new one yet.
    Acquiring,
    /// Before the order to cut.
    Before,
    /// It was ordered, and nobody can know who holds.
    Cut,
    /// The new one holds; the record is not written.
    Probation,
    /// The record is being written.
    Recording,
    /// It is durable.
    After,
    /// It is being taken back, by way of the new one's death.
    Back,
    /// It is being taken back by a cut the other way round, which is not certain to be carried out yet.
    Reversing,
    /// The same, and the new one has yielded.
    Reversed,
}

impl Step {
    /// In the order in which they come.
    pub const ALL: [Step; 34] = [
        Step::Steady,
        Step::Fetching,
        Step::Verifying,
        Step::Starting,
        Step::Started,
        Step::Pairing,
        Step::Syncing,
        Step::Hashing,
        Step::Preparing,
        Step::Prepared,
        Step::Cutting,
        Step::Yielded,
        Step::Taken,
        Step::Probation,
        Step::CommitHashing,
        Step::CommitPersisting,
        Step::Retiring,
        Step::Retired,
        Step::Recording,
        Step::Sealing,
        Step::Sealed,
        Step::Draining,
        Step::Drained,
        Step::BackingOut,
        Step::Resuming,
        Step::Resumed,
        Step::BackPersisting,
        Step::ReversePreparing,
        Step::ReverseCutting,
        Step::ReverseYielded,
        Step::ReverseTaken,
        Step::ReverseDraining,
        Step::ColdStarting,
        Step::ColdGoing,
    ];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Step::Steady => "steady",
            Step::Fetching => "fetching",
            Step::Verifying => "verifying",
            Step::Starting => "starting",
            Step::Started => "started",
            Step::Pairing => "pairing",
            Step::Syncing => "syncing",
            Step::Hashing => "level: hashing",
            Step::Preparing => "level: preparing",
            Step::Prepared => "level: prepared",
            Step::Cutting => "cut: before Yield",
            Step::Yielded => "cut: after Yield",
            Step::Taken => "cut: after Took",
            Step::Probation => "probation",
            Step::CommitHashing => "commit: hashing",
            Step::CommitPersisting => "commit: persisting",
            Step::Retiring => "commit: retiring",
            Step::Retired => "commit: retired",
            Step::Recording => "commit: recording",
            Step::Sealing => "commit: sealing",
            Step::Sealed => "commit: sealed",
            Step::Draining => "draining",
            Step::Drained => "drained",
            Step::BackingOut => "backing out",
            Step::Resuming => "roll-back: resuming",
            Step::Resumed => "roll-back: resumed",
            Step::BackPersisting => "roll-back: persisting",
            Step::ReversePreparing => "way back: preparing",
            Step::ReverseCutting => "way back: before Yield",
            Step::ReverseYielded => "way back: after Yield",
            Step::ReverseTaken => "way back: after Took",
            Step::ReverseDraining => "way back: draining",
            Step::ColdStarting => "cold start: opening",
            Step::ColdGoing => "cold start: going",
        }
    }

    /// How it comes about.
    pub fn way(self) -> Way {
        match self {
            Step::Steady => Way::Stay,
            Step::Fetching | Step::Verifying | Step::Starting | Step::Started | Step::Pairing => Way::Forward,
            Step::Syncing | Step::Hashing | Step::Preparing | Step::Prepared => Way::Forward,
            Step::Cutting | Step::Yielded | Step::Taken | Step::Probation => Way::Forward,
            Step::CommitHashing | Step::CommitPersisting | Step::Retiring | Step::Retired => Way::Forward,
            Step::Recording | Step::Sealing | Step::Sealed | Step::Draining | Step::Drained => Way::Forward,
            Step::BackingOut => Way::BackOut,
            Step::Resuming | Step::Resumed | Step::BackPersisting => Way::RollBack,
            Step::ReversePreparing | Step::ReverseCutting | Step::ReverseYielded => Way::Reverse,
            Step::ReverseTaken | Step::ReverseDraining => Way::Reverse,
            Step::ColdStarting | Step::ColdGoing => Way::Cold,
        }
    }

    /// How it is known to have come.
    pub fn sign(self) -> Sign {
        let (old, new) = (|point| Sign::Held(Role::Old, point, 1), |point| Sign::Held(Role::New, point, 1));
        match self {
            Step::Steady => Sign::Now,
            Step::Fetching => Sign::Told(Phase::Fetching),
            Step::Verifying => Sign::Told(Phase::Verifying),
            Step::Starting => new("Start Before"),
            Step::Started => new("Start After"),
            Step::Pairing => new("Pair Before"),
            Step::Syncing => new("Sync Before"),
            Step::Hashing => old("Mark Before"),
            Step::Preparing => new("Prepare Before"),
            Step::Prepared => new("Prepare After"),
            Step::Cutting => old("Yield Before"),
            Step::Yielded => new("Take Before"),
            Step::Taken => new("Take After"),
            Step::Probation => Sign::Told(Phase::Probation),
            // The first time is before the cut.
            Step::CommitHashing => Sign::Held(Role::New, "Mark Before", 2),
            Step::CommitPersisting => new("Persist Before"),
            Step::Retiring => old("Retire Before"),
            Step::Retired | Step::Recording => old("Retire After"),
            Step::Sealing => new("Commit Before"),
            Step::Sealed => new("Commit After"),
            Step::Draining => old("Drain Before"),
            Step::Drained => old("Drain After"),
            Step::BackingOut => Sign::Told(Phase::BackingOut),
            Step::Resuming => old("Resume Before"),
            Step::Resumed => old("Resume After"),
            Step::BackPersisting => old("Persist Before"),
            Step::ReversePreparing => old("Prepare Before"),
            Step::ReverseCutting => new("Yield Before"),
            Step::ReverseYielded => old("Take Before"),
            Step::ReverseTaken => old("Take After"),
            Step::ReverseDraining => new("Drain Before"),
            Step::ColdStarting => old("Start Before"),
            Step::ColdGoing => old("Go Before"),
        }
    }

    /// What it has in common with others.
    pub fn zone(self) -> Zone {
        match self {
            Step::Steady | Step::ColdStarting | Step::ColdGoing => Zone::None,
            Step::Fetching | Step::Verifying => Zone::Acquiring,
            Step::Starting | Step::Started | Step::Pairing | Step::Syncing => Zone::Before,
            Step::Hashing | Step::Preparing | Step::Prepared => Zone::Before,
            Step::Cutting | Step::Yielded | Step::Taken => Zone::Cut,
            Step::Probation | Step::CommitHashing | Step::CommitPersisting => Zone::Probation,
            // The old one's word is out as soon as anybody may go on, and the record is what follows it.
            Step::Retiring | Step::Retired | Step::Recording => Zone::Recording,
            Step::Sealing | Step::Sealed | Step::Draining | Step::Drained => Zone::After,
            Step::BackingOut | Step::Resuming | Step::Resumed | Step::BackPersisting => Zone::Back,
            Step::ReversePreparing | Step::ReverseCutting => Zone::Reversing,
            Step::ReverseYielded | Step::ReverseTaken | Step::ReverseDraining => Zone::Reversed,
        }
    }

    /// Whether there is a new worker that lives.
    pub fn has_new(self) -> bool {
        match self.zone() {
            Zone::None | Zone::Acquiring => false,
            Zone::Back => self == Step::BackingOut,
            Zone::Before | Zone::Cut | Zone::Probation | Zone::Recording => true,
            Zone::After | Zone::Reversing | Zone::Reversed => true,
        }
    }

    /// Whether the two workers are linked.
    pub fn has_link(self) -> bool {
        match self {
            Step::Starting | Step::Started | Step::Pairing | Step::BackingOut => false,
            _ => self.has_new(),
        }
    }

    /// Whether somebody serves in it who does not depend on the supervisor.
    pub fn serves_alone(self) -> bool {
        self.way() != Way::Cold
    }
}

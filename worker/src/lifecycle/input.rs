//! What a life is told, and what it wants done.

use bumpless_shared::control::{
    Generation, Instance, Report, Sequence, Start, Suspicion, Tag, Term, Trouble,
};

/// The other worker of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Its number.
    pub instance: Instance,
    /// Its slot.
    pub tag: Tag,
    /// Its generation.
    pub generation: Generation,
}

/// Something happened that is no order.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// [`Action::Start`] succeeded.
    Opened {
        /// The answer.
        ready: Report,
        /// Highest term on disk.
        term: Term,
    },
    /// The control channel is closed.
    ControlClosed,
    /// A new supervisor accepted the connection and its greeting.
    Connected,
    /// A peer's pidfd is readable.
    PeerDied(Instance),
    /// The link or the stream to a peer is closed.
    LinkClosed(Instance),
    /// A peer is silent, failing or wrong, in words.
    Suspicious {
        /// Which.
        kind: Suspicion,
        /// In words.
        reason: String,
    },
    /// The peer says `Yield`.
    YieldCame {
        /// Who.
        from: Instance,
        /// Ours from now on.
        term: Term,
        /// Last of the peer's term.
        sequence: Sequence,
        /// For the packets of handshakes under way.
        handshakes: Vec<u64>,
    },
    /// The peer says `Took`.
    TookCame {
        /// Who.
        from: Instance,
        /// Its term.
        term: Term,
        /// Microseconds since the freeze.
        gap_us: u64,
    },
    /// A suitable moment, or the end of the window.
    Moment,
    /// [`Action::Yield`] is done: frozen and sent.
    Yielded {
        /// Last of our term.
        sequence: Sequence,
    },
    /// [`Action::Yield`] failed before anything was sent; the worker holds as before.
    BackedOut {
        /// In words.
        reason: String,
    },
    /// [`Action::Yield`] froze and could not send; the worker holds on, with the term reserved for that.
    Thawed {
        /// Ours now.
        term: Term,
        /// Last of our term before.
        sequence: Sequence,
        /// In words.
        reason: String,
    },
    /// [`Action::Prepare`] is done.
    Prepared {
        /// The order's.
        prepared: super::state::Prepared,
    },
    /// [`Action::Prepare`] failed.
    NotPrepared {
        /// In words.
        reason: String,
    },
    /// [`Action::TakeOver`] is done.
    TookOver {
        /// Last of the peer's term.
        sequence: Sequence,
    },
    /// [`Action::TakeOver`] failed; nothing was taken.
    NotTaken {
        /// Which kind.
        kind: Trouble,
        /// In words.
        reason: String,
    },
    /// [`Action::Resume`] is done.
    Resumed {
        /// As told.
        term: Term,
        /// Last of the dead peer's logbook.
        sequence: Sequence,
        /// Microseconds from the certain death to the first read of new connections.
        gap_us: u64,
    },
    /// [`Action::Commit`] is done.
    Committed {
        /// The order's.
        term: Term,
    },
    /// [`Action::Drain`] is done.
    Drained {
        /// Connections that went by themselves.
        moved: u64,
        /// Connections that were closed.
        cut_off: u64,
    },
    /// The holder's expendable logbook could not be written and was dropped.
    LogbookDropped {
        /// In words.
        reason: String,
    },
    /// The holder's durable logbook could not be written.
    Poisoned {
        /// In words.
        reason: String,
    },
    /// [`Action::Stop`] is done.
    Stopped,
    /// Something without which this worker cannot go on failed.
    Broken {
        /// Which kind.
        kind: Trouble,
        /// In words.
        reason: String,
    },
}

/// What is to be done, in order; each is finished before the next begins unless it says otherwise.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send this.
    Report(Report),
    /// Lock the alive file, open or make the state. Ends in [`Event::Opened`] or [`Event::Broken`].
    Start(Box<Start>),
    /// Take authority over a state that nobody else has; read new connections.
    Hold {
        /// Ours.
        term: Term,
    },
    /// Go on holding under a higher term, with the database alone.
    Raise {
        /// Ours from now on.
        term: Term,
    },
    /// The tag belongs to a living worker again: do not answer for it.
    Unadopt {
        /// Which.
        tag: Tag,
    },
    /// The tag's owner is dead: answer its packets with resets.
    Adopt {
        /// Which.
        tag: Tag,
    },
    /// Open a logbook and stream the snapshot. Runs on beside.
    Feed {
        /// To whom.
        peer: Peer,
        /// Our term.
        term: Term,
    },
    /// Ingest what the holder streams, then follow. Runs on beside.
    Receive {
        /// From whom.
        peer: Peer,
    },
    /// Append a mark; both hash there. Runs on beside.
    Mark {
        /// Which.
        id: u64,
    },
    /// Be ready to write as this term. Ends in [`Event::Prepared`] or [`Event::NotPrepared`].
    Prepare {
        /// Which.
        term: Term,
        /// Bytes for its logbook, if it gets one.
        reserve: Option<u64>,
    },
    /// Look for a suitable moment. Runs on beside; ends in [`Event::Moment`].
    AwaitMoment {
        /// Milliseconds.
        window_ms: u64,
    },
    /// Stop looking.
    CancelMoment,
    /// Stop reading new connections, freeze, send `Yield`. Ends in [`Event::Yielded`],
    /// [`Event::BackedOut`] or [`Event::Thawed`].
    Yield {
        /// The order.
        cut: super::state::Cut,
    },
    /// Relay requests to the peer, which holds.
    Relay,
    /// Follow the logbook of this term, which the peer writes. Runs on beside.
    Follow {
        /// Which.
        term: Term,
    },
    /// Send requests of our own through the real socket and judge the answers. Runs on beside.
    Probe,
    /// Stop that.
    StopProbing,
    /// Apply what the peer wrote up to here, take authority, read new connections, say `Took`.
    /// Ends in [`Event::TookOver`] or [`Event::NotTaken`].
    TakeOver {
        /// Ours.
        term: Term,
        /// Last of the peer's.
        sequence: Sequence,
        /// Where to write.
        books: super::state::Books,
        /// For the packets of handshakes under way.
        handshakes: Vec<u64>,
    },
    /// Read the dead peer's logbook to its end, take authority, read new connections.
    /// Ends in [`Event::Resumed`] or [`Event::Broken`].
    Resume {
        /// Ours.
        term: Term,
        /// The peer's.
        read: Term,
    },
    /// The expendable logbook is not needed any more.
    DropLogbook,
    /// Close link and stream to this worker.
    Forget {
        /// Which.
        instance: Instance,
    },
    /// SIGKILL through our pidfd. Its death comes as [`Event::PeerDied`].
    KillPeer,
    /// Requests that wait for the peer are sent back to their clients: nobody will answer them here.
    Release,
    /// Make the database durable and say so. Runs on beside.
    Persist,
    /// End the logbook, persist past its end. Ends in [`Event::Committed`] or a report of trouble.
    Commit {
        /// Which.
        term: Term,
    },
    /// Send connections away and wait for them. Runs on beside; ends in [`Event::Drained`].
    Drain {
        /// Milliseconds.
        stagger_ms: u64,
        /// Milliseconds.
        deadline_ms: u64,
    },
    /// Remove logbooks and generations and say so. Runs on beside.
    Remove {
        /// Terms.
        logs: Vec<Term>,
        /// Generations.
        generations: Vec<Generation>,
    },
    /// Finish what is under way, persist. Runs on beside; ends in [`Event::Stopped`].
    Stop {
        /// Milliseconds.
        deadline_ms: u64,
    },
    /// Close the control channel, drop what is unread on it, and connect to the named socket. Runs on
    /// beside; ends in [`Event::Connected`].
    Reconnect,
    /// Tell the new supervisor who this is.
    Identify,
    /// End the process.
    Exit {
        /// Status.
        code: i32,
    },
}

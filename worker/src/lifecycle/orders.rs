//! Every order in every state.

use bumpless_shared::control::{Command, Origin, Report, Tag, Term};

use super::input::{Action, Peer};
use super::state::{Before, Books, Cut, Fate, Frozen, Holding, Oath, Pairing, Standby, State, Taken};
use super::{Control, Life};

impl Life {
    pub(super) fn obey(self, command: Command) -> (Life, Vec<Action>) {
        match command {
            Command::Start(start) => match self.state {
                State::Born => {
                    let state = State::Opening { origin: start.origin };
                    (Life { state, ..self }, vec![Action::Start(start)])
                }
                State::Opening { .. }
                | State::Ready { .. }
                | State::Standby(_)
                | State::Holding(_)
                | State::Frozen(_)
                | State::Draining { .. }
                | State::Ended => self.refuse("Start", "it was started before"),
            },
            Command::Go { term } => self.go(term),
            Command::Pair { peer, peer_tag, peer_generation } => {
                self.pair(Peer { instance: peer, tag: peer_tag, generation: peer_generation })
            }
            Command::Mark { id } => match self.state {
                State::Holding(_) => (self, vec![Action::Mark { id }]),
                State::Born
                | State::Opening { .. }
                | State::Ready { .. }
                | State::Standby(_)
                | State::Frozen(_)
                | State::Draining { .. }
                | State::Ended => self.refuse("Mark", "only the holder appends to the logbook"),
            },
            Command::Prepare { term, reserve } => self.prepare(term, reserve),
            Command::Cut { term, resume, window_ms } => self.cut(Cut { term, resume }, window_ms),
            Command::Resume { term } => self.resume(term),
            Command::PeerGone { tag } => self.peer_gone(tag),
            Command::Persist => match self.state {
                State::Standby(_) | State::Holding(_) | State::Frozen(_) => (self, vec![Action::Persist]),
                State::Born | State::Opening { .. } | State::Ready { .. } => {
                    self.refuse("Persist", "nothing was applied yet")
                }
                State::Draining { .. } | State::Ended => self.refuse("Persist", "the database is closed"),
            },
            Command::Retire { term } => self.retire(term),
            Command::Commit { term } => self.commit(term),
            Command::Drain { stagger_ms, deadline_ms } => match self.state {
                State::Frozen(Frozen { oath: Oath::Retired, term, peer, .. })
                | State::Frozen(Frozen { resume: 0, term, peer, .. }) => {
                    let state = State::Draining { term, peer };
                    (
                        Life { state, ..self },
                        vec![Action::StopProbing, Action::Drain { stagger_ms, deadline_ms }],
                    )
                }
                State::Draining { .. } | State::Ended => (self, Vec::new()),
                State::Frozen(_) => self.refuse("Drain", "it may have to resume; it was not retired"),
                State::Born
                | State::Opening { .. }
                | State::Ready { .. }
                | State::Standby(_)
                | State::Holding(_) => self.refuse("Drain", "it did not yield"),
            },
            Command::Remove { logs, generations } => self.remove(logs, generations),
            Command::Stop { deadline_ms } => match self.state {
                State::Born | State::Opening { .. } | State::Ready { .. } | State::Standby(_) => {
                    (Life { state: State::Ended, ..self }, vec![Action::Exit { code: 0 }])
                }
                State::Holding(_) | State::Frozen(_) | State::Draining { .. } => (
                    Life { state: State::Ended, ..self },
                    vec![Action::StopProbing, Action::Stop { deadline_ms }],
                ),
                State::Ended => (self, Vec::new()),
            },
        }
    }

    pub(super) fn refuse(self, order: &str, reason: &str) -> (Life, Vec<Action>) {
        (self, vec![refusal(order, reason)])
    }

    /// Refuses a term below the highest seen.
    fn stale(&self, order: &str, term: Term) -> Option<Action> {
        (term < self.seen).then(|| {
            refusal(order, &format!("its term {term} is below {}, which was seen before", self.seen))
        })
    }

    fn go(mut self, term: Term) -> (Life, Vec<Action>) {
        match self.state {
            State::Ready { origin: Origin::Genesis | Origin::Cold } => {
                if let Some(refused) = self.stale("Go", term) {
                    return (self, vec![refused]);
                }
                self.see(term);
                self.state = State::Holding(Holding {
                    term,
                    taken: Taken { sequence: 0, gap_us: 0 },
                    books: Books::Database,
                    pairing: Pairing::Alone,
                    draining: None,
                });
                (self, vec![Action::Hold { term }, Action::Report(Report::Going { term })])
            }
            State::Ready { origin: Origin::Candidate } => {
                self.state = State::Standby(Standby { peer: None, prepared: None });
                (self, Vec::new())
            }
            State::Holding(Holding { term, .. }) => (self, vec![Action::Report(Report::Going { term })]),
            State::Standby(_) | State::Frozen(_) | State::Draining { .. } | State::Ended => {
                (self, Vec::new())
            }
            State::Born | State::Opening { .. } => self.refuse("Go", "its state is not open yet"),
        }
    }

    fn pair(mut self, peer: Peer) -> (Life, Vec<Action>) {
        match &mut self.state {
            State::Standby(standby) => match standby.peer {
                None => {
                    standby.peer = Some(peer);
                    (self, vec![Action::Receive { peer }])
                }
                Some(known) if known == peer => (self, Vec::new()),
                Some(_) => self.refuse("Pair", "it is paired with another worker"),
            },
            State::Holding(holding) => {
                let term = holding.term;
                match (&holding.pairing, holding.books) {
                    (Pairing::Alone, Books::Database) => {
                        holding.pairing = Pairing::Feeding(peer);
                        (self, vec![Action::Unadopt { tag: peer.tag }, Action::Feed { peer, term }])
                    }
                    (Pairing::Feeding(known), _) if *known == peer => (self, Vec::new()),
                    (Pairing::Feeding(Peer { instance, .. }), _) => {
                        let forget = Action::Forget { instance: *instance };
                        holding.pairing = Pairing::Feeding(peer);
                        let unadopt = Action::Unadopt { tag: peer.tag };
                        (self, vec![Action::DropLogbook, forget, unadopt, Action::Feed { peer, term }])
                    }
                    (Pairing::Alone, Books::Logbook) => {
                        self.refuse("Pair", "its own term is not committed; its logbook is the durable copy")
                    }
                    (Pairing::Watched(_), _) => {
                        self.refuse("Pair", "it is on probation, the old worker is its peer")
                    }
                    (Pairing::Cutting { .. }, _) => self.refuse("Pair", "a cut is under way"),
                }
            }
            State::Born | State::Opening { .. } | State::Ready { .. } => {
                self.refuse("Pair", "it was not let in yet")
            }
            State::Frozen(_) | State::Draining { .. } | State::Ended => {
                self.refuse("Pair", "it yielded to another worker")
            }
        }
    }

    fn prepare(mut self, term: Term, reserve: Option<u64>) -> (Life, Vec<Action>) {
        let (prepared, above) = match &self.state {
            State::Standby(Standby { peer: Some(_), prepared }) => (*prepared, 0),
            State::Frozen(Frozen { resume: 0, .. }) => {
                return self.refuse("Prepare", "it yielded for good");
            }
            State::Frozen(Frozen { oath: Oath::Retired, .. }) => {
                return self.refuse("Prepare", "it is retired");
            }
            State::Frozen(Frozen { ordered: Some(_), .. }) => {
                return self.refuse("Prepare", "it is resuming");
            }
            State::Frozen(Frozen { prepared, term, .. }) => (*prepared, *term),
            State::Standby(Standby { peer: None, .. })
            | State::Born
            | State::Opening { .. }
            | State::Ready { .. }
            | State::Holding(_)
            | State::Draining { .. }
            | State::Ended => return self.refuse("Prepare", "nobody could yield to it"),
        };
        if prepared.is_some_and(|prepared| prepared.term == term) {
            return (self, vec![Action::Report(Report::Prepared { term })]);
        }
        if let Some(refused) = self.stale("Prepare", term) {
            return (self, vec![refused]);
        }
        if term <= above {
            return self.refuse("Prepare", "its term is not above the peer's");
        }
        self.see(term);
        (self, vec![Action::Prepare { term, reserve }])
    }

    fn cut(mut self, cut: Cut, window_ms: u64) -> (Life, Vec<Action>) {
        if let State::Frozen(frozen) = &self.state
            && frozen.term == cut.term
        {
            let mut again =
                vec![Action::Report(Report::Yielded { term: cut.term, sequence: frozen.sequence })];
            if let Some(gap_us) = frozen.took {
                again.push(Action::Report(Report::Resigned { term: cut.term, gap_us }));
            }
            return (self, again);
        }
        if let Some(refused) = self.stale("Cut", cut.term) {
            return (self, vec![refused]);
        }
        match &mut self.state {
            State::Holding(holding) => {
                let (peer, from) = match &holding.pairing {
                    Pairing::Feeding(peer) => (*peer, Before::Feeding),
                    Pairing::Watched(peer) => (*peer, Before::Watched),
                    Pairing::Cutting { cut: known, .. } if *known == cut => return (self, Vec::new()),
                    Pairing::Cutting { .. } => return self.refuse("Cut", "another cut is under way"),
                    Pairing::Alone => return self.refuse("Cut", "there is nobody to yield to"),
                };
                // The one that yielded to us may hold a term in reserve; ours would have to be above it.
                if from == Before::Watched && cut.resume != 0 {
                    return self.refuse("Cut", "on the way back there is no term to resume with");
                }
                if cut.term <= holding.term || (cut.resume != 0 && cut.resume <= cut.term) {
                    return self.refuse("Cut", "the terms do not rise");
                }
                holding.pairing = Pairing::Cutting { peer, from, cut };
                self.see(cut.term);
                (self, vec![Action::AwaitMoment { window_ms }])
            }
            State::Born
            | State::Opening { .. }
            | State::Ready { .. }
            | State::Standby(_)
            | State::Frozen(_)
            | State::Draining { .. }
            | State::Ended => self.refuse("Cut", "it does not hold"),
        }
    }

    fn resume(mut self, term: Term) -> (Life, Vec<Action>) {
        if let Some(refused) = self.stale("Resume", term) {
            return (self, vec![refused]);
        }
        match &mut self.state {
            State::Frozen(Frozen { resume: 0, .. }) => self.refuse("Resume", "it yielded for good"),
            State::Frozen(frozen) if term <= frozen.term => {
                self.refuse("Resume", "its term is not above the dead worker's")
            }
            State::Frozen(frozen) => {
                frozen.ordered = Some(term);
                let read = frozen.term;
                let actions = match frozen.fate {
                    Fate::Dead => vec![Action::StopProbing, Action::Resume { term, read }],
                    Fate::Alive | Fate::Suspicious => Vec::new(),
                };
                self.see(term);
                (self, actions)
            }
            State::Holding(holding) if holding.term == term => {
                let Taken { sequence, gap_us } = holding.taken;
                (self, vec![Action::Report(Report::Resumed { term, sequence, gap_us })])
            }
            State::Holding(Holding { books: Books::Logbook, .. }) => {
                self.refuse("Resume", "it holds, and its logbook is the durable copy of another term")
            }
            // The old worker lives and may have a term in reserve: only its death makes this safe.
            State::Holding(Holding {
                pairing: Pairing::Watched(_) | Pairing::Cutting { from: Before::Watched, .. },
                ..
            })
            | State::Holding(Holding { draining: Some(_), .. }) => {
                self.refuse("Resume", "it holds, and the worker that yielded to it lives")
            }
            // It never yielded, or took back: its authority goes on, under the term just reserved.
            State::Holding(holding) => {
                let mut actions = holding.lose_peer("the worker was ordered to go on alone");
                holding.term = term;
                holding.taken.gap_us = 0;
                let sequence = holding.taken.sequence;
                actions.push(Action::Raise { term });
                actions.push(Action::Report(Report::Resumed { term, sequence, gap_us: 0 }));
                self.see(term);
                (self, actions)
            }
            State::Born
            | State::Opening { .. }
            | State::Ready { .. }
            | State::Standby(_)
            | State::Draining { .. }
            | State::Ended => self.refuse("Resume", "it is not frozen"),
        }
    }

    /// Death is believed to a pidfd alone, and those are looked at before any order is. A peer that is
    /// still known here lives, and answering for its connections would end them.
    fn peer_gone(self, tag: Tag) -> (Life, Vec<Action>) {
        match &self.state {
            State::Holding(Holding { pairing, draining, .. }) => {
                if pairing.peer().into_iter().chain(*draining).any(|peer| peer.tag == tag) {
                    return self.refuse("PeerGone", "the process of that worker lives");
                }
                (self, vec![Action::Adopt { tag }])
            }
            State::Frozen(Frozen { peer, fate: Fate::Alive | Fate::Suspicious, .. }) if peer.tag == tag => {
                self.refuse("PeerGone", "the process of that worker lives")
            }
            State::Frozen(Frozen { peer, .. }) if peer.tag == tag => (self, vec![Action::Adopt { tag }]),
            State::Frozen(_)
            | State::Born
            | State::Opening { .. }
            | State::Ready { .. }
            | State::Standby(_)
            | State::Draining { .. }
            | State::Ended => (self, Vec::new()),
        }
    }

    fn retire(mut self, term: Term) -> (Life, Vec<Action>) {
        match &mut self.state {
            State::Frozen(frozen) if frozen.term != term => {
                self.refuse("Retire", "it is frozen for another term")
            }
            State::Frozen(Frozen { ordered: Some(_), .. }) => self.refuse("Retire", "it is resuming"),
            State::Frozen(frozen) => {
                frozen.oath = Oath::Retired;
                self.see(term);
                (self, vec![Action::StopProbing, Action::Report(Report::Retired { term })])
            }
            State::Draining { term: committed, .. } if *committed == term => {
                (self, vec![Action::Report(Report::Retired { term })])
            }
            State::Holding(_) => self.refuse("Retire", "it holds"),
            State::Draining { .. } => self.refuse("Retire", "it was retired for another term"),
            State::Born | State::Opening { .. } | State::Ready { .. } | State::Standby(_) | State::Ended => {
                self.refuse("Retire", "it never held")
            }
        }
    }

    fn commit(self, term: Term) -> (Life, Vec<Action>) {
        match &self.state {
            State::Holding(holding) if holding.term != term => {
                self.refuse("Commit", "it holds with another term")
            }
            State::Holding(Holding { pairing: Pairing::Cutting { .. }, .. }) => {
                self.refuse("Commit", "a cut is under way")
            }
            State::Holding(Holding { books: Books::Database, .. }) => {
                (self, vec![Action::Report(Report::Committed { term })])
            }
            State::Holding(Holding { books: Books::Logbook, .. }) => (self, vec![Action::Commit { term }]),
            State::Born
            | State::Opening { .. }
            | State::Ready { .. }
            | State::Standby(_)
            | State::Frozen(_)
            | State::Draining { .. }
            | State::Ended => self.refuse("Commit", "it does not hold"),
        }
    }

    fn remove(self, logs: Vec<Term>, generations: Vec<u64>) -> (Life, Vec<Action>) {
        match &self.state {
            State::Holding(holding) => {
                let writes = holding.books == Books::Logbook || holding.pairing != Pairing::Alone;
                if writes && logs.contains(&holding.term) {
                    return self.refuse("Remove", "it writes the logbook of that term");
                }
                (self, vec![Action::Remove { logs, generations }])
            }
            State::Born
            | State::Opening { .. }
            | State::Ready { .. }
            | State::Standby(_)
            | State::Frozen(_)
            | State::Draining { .. }
            | State::Ended => self.refuse("Remove", "only the holder tidies up"),
        }
    }
}

impl Holding {
    /// The other one of the pair is dead or gone. A cut to it is called off, which the supervisor is
    /// told; a logbook that was written for a candidate is dropped, one that is the durable copy stays.
    pub(super) fn lose_peer(&mut self, why: &str) -> Vec<Action> {
        let mut actions = Vec::new();
        match std::mem::replace(&mut self.pairing, Pairing::Alone) {
            Pairing::Alone => {}
            Pairing::Feeding(peer) => {
                actions.push(Action::DropLogbook);
                actions.push(Action::Forget { instance: peer.instance });
            }
            Pairing::Watched(peer) => actions.push(Action::Forget { instance: peer.instance }),
            Pairing::Cutting { peer, from, .. } => {
                actions.push(Action::CancelMoment);
                match from {
                    Before::Feeding => actions.push(Action::DropLogbook),
                    Before::Watched => {}
                }
                actions.push(Action::Forget { instance: peer.instance });
                actions.push(refusal("Cut", why));
            }
        }
        actions
    }
}

/// A report that an order was not carried out.
pub(super) fn refusal(order: &str, reason: &str) -> Action {
    Action::Report(Report::Refused { order: order.to_owned(), reason: reason.to_owned() })
}

impl Life {
    /// Whether reports reach anybody.
    pub(super) fn heard(&self) -> bool {
        match self.control {
            Control::Open | Control::Introduced => true,
            Control::Closed => false,
        }
    }
}

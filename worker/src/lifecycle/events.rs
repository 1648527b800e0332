//! Every event in every state.

use bumpless_shared::control::{Report, Suspicion, Term, Trouble};

use super::input::{Action, Event};
use super::orders::refusal;
use super::state::{Before, Books, Cut, Fate, Frozen, Holding, Oath, Pairing, Standby, State, Taken};
use super::{Control, Life};

impl Life {
    /// Something happened that is no order.
    pub fn event(self, event: Event) -> (Life, Vec<Action>) {
        match event {
            Event::Opened { ready, term } => self.opened(ready, term),
            Event::ControlClosed => self.control_closed(),
            Event::Connected => match self.state {
                State::Holding(_) | State::Frozen(_) | State::Draining { .. } => {
                    (Life { control: Control::Introduced, ..self }, vec![Action::Identify])
                }
                State::Born
                | State::Opening { .. }
                | State::Ready { .. }
                | State::Standby(_)
                | State::Ended => (self, Vec::new()),
            },
            Event::PeerDied(instance) => self.peer_died(instance),
            Event::LinkClosed(instance) => self.link_closed(instance),
            Event::Suspicious { kind, reason } => self.suspicious(kind, reason),
            Event::YieldCame { from, term, sequence, handshakes } => {
                let prepared = match &self.state {
                    State::Standby(Standby { peer: Some(peer), prepared }) if peer.instance == from => {
                        *prepared
                    }
                    State::Frozen(Frozen { peer, prepared, oath: Oath::Free, ordered: None, .. })
                        if peer.instance == from =>
                    {
                        *prepared
                    }
                    State::Born
                    | State::Opening { .. }
                    | State::Ready { .. }
                    | State::Standby(_)
                    | State::Holding(_)
                    | State::Frozen(_)
                    | State::Draining { .. }
                    | State::Ended => None,
                };
                match prepared {
                    Some(prepared) if prepared.term == term => {
                        let books = prepared.books;
                        (self, vec![Action::TakeOver { term, sequence, books, handshakes }])
                    }
                    Some(_) | None => self.refuse("Yield", &format!("it is not prepared for term {term}")),
                }
            }
            Event::TookCame { from, term, gap_us } => self.took_came(from, term, gap_us),
            Event::Moment => match &self.state {
                State::Holding(Holding { pairing: Pairing::Cutting { cut, .. }, .. }) => {
                    let cut = *cut;
                    (self, vec![Action::Yield { cut }])
                }
                State::Born
                | State::Opening { .. }
                | State::Ready { .. }
                | State::Standby(_)
                | State::Holding(_)
                | State::Frozen(_)
                | State::Draining { .. }
                | State::Ended => (self, Vec::new()),
            },
            Event::Yielded { sequence } => self.yielded(sequence),
            Event::BackedOut { reason } => self.backed_out(&reason),
            Event::Thawed { term, sequence, reason } => self.thawed(term, sequence, &reason),
            Event::Prepared { prepared } => self.prepared(prepared),
            Event::NotPrepared { reason } => self.refuse("Prepare", &reason),
            Event::TookOver { sequence } => self.took_over(sequence),
            Event::NotTaken { kind, reason } => {
                let report = Action::Report(Report::Trouble { kind, text: reason });
                match self.state {
                    // The old worker must not wait for a deadline: this one's end tells it at once.
                    State::Standby(_) => {
                        (Life { state: State::Ended, ..self }, vec![report, Action::Exit { code: 1 }])
                    }
                    State::Born
                    | State::Opening { .. }
                    | State::Ready { .. }
                    | State::Holding(_)
                    | State::Frozen(_)
                    | State::Draining { .. }
                    | State::Ended => (self, vec![report]),
                }
            }
            Event::Resumed { term, sequence, gap_us } => self.resumed(term, Taken { sequence, gap_us }),
            Event::Committed { term } => self.committed(term),
            Event::Drained { moved, cut_off } => {
                let report = Action::Report(Report::Drained { moved, cut_off });
                (Life { state: State::Ended, ..self }, vec![report, Action::Exit { code: 0 }])
            }
            Event::LogbookDropped { reason } => self.logbook_dropped(reason),
            Event::Poisoned { reason } => {
                let report = Report::Trouble { kind: Trouble::Poisoned, text: reason };
                (self, vec![Action::Report(report)])
            }
            Event::Stopped => (Life { state: State::Ended, ..self }, vec![Action::Exit { code: 0 }]),
            // A worker that stops closes what others would miss.
            Event::Broken { .. } if self.state == State::Ended => (self, Vec::new()),
            Event::Broken { kind, reason } => {
                let report = Action::Report(Report::Trouble { kind, text: reason });
                (Life { state: State::Ended, ..self }, vec![report, Action::Exit { code: 1 }])
            }
        }
    }

    fn opened(mut self, ready: Report, term: Term) -> (Life, Vec<Action>) {
        match self.state {
            State::Opening { origin } => {
                self.see(term);
                self.state = State::Ready { origin };
                (self, vec![Action::Report(ready)])
            }
            State::Born
            | State::Ready { .. }
            | State::Standby(_)
            | State::Holding(_)
            | State::Frozen(_)
            | State::Draining { .. }
            | State::Ended => (self, Vec::new()),
        }
    }

    fn control_closed(mut self) -> (Life, Vec<Action>) {
        self.control = Control::Closed;
        match &mut self.state {
            State::Born | State::Opening { .. } | State::Ready { .. } | State::Standby(_) => {
                (Life { state: State::Ended, ..self }, vec![Action::Exit { code: 0 }])
            }
            // A cut that it still looks for a moment for goes with the supervisor that ordered it: the next
            // one is told that this worker holds, and relies on that.
            State::Holding(Holding { pairing: pairing @ Pairing::Cutting { .. }, .. }) => {
                pairing.call_off();
                (self, vec![Action::CancelMoment, Action::Reconnect])
            }
            State::Holding(_) | State::Draining { .. } => (self, vec![Action::Reconnect]),
            State::Frozen(_) => {
                let (life, mut actions) = self.act_alone();
                actions.push(Action::Reconnect);
                (life, actions)
            }
            State::Ended => (self, Vec::new()),
        }
    }

    /// The exception to "the supervisor alone decides": it is gone, and the holder is dead or silent.
    /// A `Resume` that it ordered before it went still counts.
    fn act_alone(mut self) -> (Life, Vec<Action>) {
        match (&self.state, self.control) {
            (State::Frozen(frozen), Control::Closed) => {
                match (frozen.fate, frozen.ordered, frozen.may_act_alone()) {
                    // Under way already: it was ordered when the death was certain, or begun by itself.
                    (Fate::Dead, Some(_), _) => (self, Vec::new()),
                    (Fate::Dead, None, Some(term)) => {
                        let read = frozen.term;
                        self.order_resume(term);
                        (self, vec![Action::StopProbing, Action::Resume { term, read }])
                    }
                    (Fate::Suspicious, _, Some(_)) => (self, vec![Action::KillPeer]),
                    (Fate::Suspicious | Fate::Dead, _, None) | (Fate::Alive, _, _) => (self, Vec::new()),
                }
            }
            (
                State::Born
                | State::Opening { .. }
                | State::Ready { .. }
                | State::Standby(_)
                | State::Holding(_)
                | State::Frozen(_)
                | State::Draining { .. }
                | State::Ended,
                Control::Open | Control::Introduced | Control::Closed,
            ) => (self, Vec::new()),
        }
    }

    fn order_resume(&mut self, term: Term) {
        self.see(term);
        if let State::Frozen(frozen) = &mut self.state {
            frozen.ordered = Some(term);
        }
    }

    fn peer_died(mut self, instance: u64) -> (Life, Vec<Action>) {
        match &mut self.state {
            State::Holding(holding) => {
                let mut actions = Vec::new();
                let watched = matches!(holding.pairing, Pairing::Watched(_) | Pairing::Cutting { .. });
                if let Some(peer) = holding.pairing.peer()
                    && peer.instance == instance
                {
                    actions = holding.lose_peer("the other worker died");
                    if watched {
                        actions.push(Action::Adopt { tag: peer.tag });
                    }
                }
                if let Some(peer) = holding.draining.take_if(|peer| peer.instance == instance) {
                    actions.push(Action::Forget { instance });
                    actions.push(Action::Adopt { tag: peer.tag });
                }
                (self, actions)
            }
            State::Frozen(frozen) if frozen.peer.instance == instance && frozen.fate != Fate::Dead => {
                frozen.fate = Fate::Dead;
                match frozen.ordered {
                    Some(term) => {
                        let read = frozen.term;
                        (self, vec![Action::StopProbing, Action::Resume { term, read }])
                    }
                    None => self.act_alone(),
                }
            }
            State::Draining { peer, .. } if peer.instance == instance => (self, vec![Action::Release]),
            State::Frozen(_)
            | State::Draining { .. }
            | State::Born
            | State::Opening { .. }
            | State::Ready { .. }
            | State::Standby(_)
            | State::Ended => (self, Vec::new()),
        }
    }

    fn link_closed(mut self, instance: u64) -> (Life, Vec<Action>) {
        match &mut self.state {
            State::Frozen(frozen) if frozen.peer.instance == instance && frozen.fate == Fate::Alive => {
                frozen.fate = Fate::Suspicious;
                if self.heard() {
                    let reason = "the serving worker closed its link to the frozen one".to_owned();
                    let report = Report::Suspect { kind: Suspicion::Silent, reason };
                    (self, vec![Action::Report(report)])
                } else {
                    self.act_alone()
                }
            }
            State::Standby(standby) if standby.peer.is_some_and(|peer| peer.instance == instance) => {
                let text =
                    "the link to the serving worker is closed; nothing more can be copied from it".to_owned();
                (self, vec![Action::Report(Report::Trouble { kind: Trouble::SyncFailed, text })])
            }
            State::Frozen(_)
            | State::Standby(_)
            | State::Born
            | State::Opening { .. }
            | State::Ready { .. }
            | State::Holding(_)
            | State::Draining { .. }
            | State::Ended => (self, Vec::new()),
        }
    }

    fn suspicious(self, kind: Suspicion, reason: String) -> (Life, Vec<Action>) {
        match &self.state {
            State::Frozen(frozen) if frozen.fate != Fate::Dead => {
                if self.heard() {
                    return (self, vec![Action::Report(Report::Suspect { kind, reason })]);
                }
                match (kind, frozen.may_act_alone()) {
                    (Suspicion::Silent, Some(_)) => (self, vec![Action::KillPeer]),
                    // Without the supervisor nobody judges answers; silence alone is beyond doubt.
                    (Suspicion::Silent, None) | (Suspicion::Failing | Suspicion::Wrong, _) => {
                        (self, Vec::new())
                    }
                }
            }
            // A candidate; without the supervisor it ends by itself.
            State::Holding(Holding { pairing: Pairing::Feeding(_), .. }) => {
                (self, vec![Action::Report(Report::Suspect { kind, reason })])
            }
            State::Born
            | State::Opening { .. }
            | State::Ready { .. }
            | State::Standby(_)
            | State::Holding(_)
            | State::Frozen(_)
            | State::Draining { .. }
            | State::Ended => (self, Vec::new()),
        }
    }

    fn took_came(mut self, from: u64, term: Term, gap_us: u64) -> (Life, Vec<Action>) {
        match &mut self.state {
            State::Frozen(frozen)
                if frozen.peer.instance == from && frozen.term == term && frozen.took.is_none() =>
            {
                frozen.took = Some(gap_us);
                let mut actions = vec![Action::Relay, Action::Report(Report::Resigned { term, gap_us })];
                if frozen.resume != 0 {
                    actions.extend([Action::Follow { term }, Action::Probe]);
                }
                (self, actions)
            }
            // Told to drain by a supervisor that had it from the taker: its connections still have to be
            // answered.
            State::Draining { term: taken, peer } if peer.instance == from && *taken == term => {
                (self, vec![Action::Relay])
            }
            State::Born
            | State::Opening { .. }
            | State::Ready { .. }
            | State::Standby(_)
            | State::Holding(_)
            | State::Frozen(_)
            | State::Draining { .. }
            | State::Ended => (self, Vec::new()),
        }
    }

    fn yielded(mut self, sequence: u64) -> (Life, Vec<Action>) {
        match self.state {
            State::Holding(Holding {
                pairing: Pairing::Cutting { peer, cut: Cut { term, resume }, .. },
                ..
            }) => {
                self.state = State::Frozen(Frozen {
                    term,
                    resume,
                    sequence,
                    took: None,
                    peer,
                    fate: Fate::Alive,
                    oath: Oath::Free,
                    prepared: None,
                    ordered: None,
                });
                (self, vec![Action::Report(Report::Yielded { term, sequence })])
            }
            State::Born
            | State::Opening { .. }
            | State::Ready { .. }
            | State::Standby(_)
            | State::Holding(_)
            | State::Frozen(_)
            | State::Draining { .. }
            | State::Ended => (self, Vec::new()),
        }
    }

    fn backed_out(mut self, reason: &str) -> (Life, Vec<Action>) {
        match &mut self.state {
            State::Holding(holding) => {
                holding.pairing.call_off();
                self.refuse("Cut", reason)
            }
            State::Born
            | State::Opening { .. }
            | State::Ready { .. }
            | State::Standby(_)
            | State::Frozen(_)
            | State::Draining { .. }
            | State::Ended => (self, Vec::new()),
        }
    }

    fn thawed(mut self, term: Term, sequence: u64, reason: &str) -> (Life, Vec<Action>) {
        match &mut self.state {
            State::Holding(holding) => {
                let peer = holding.pairing.peer();
                holding.term = term;
                holding.taken = Taken { sequence, gap_us: 0 };
                holding.books = Books::Database;
                holding.pairing = Pairing::Alone;
                let mut actions: Vec<_> =
                    peer.into_iter().map(|peer| Action::Forget { instance: peer.instance }).collect();
                actions.push(refusal("Cut", reason));
                actions.push(Action::Report(Report::Resumed { term, sequence, gap_us: 0 }));
                self.see(term);
                (self, actions)
            }
            State::Born
            | State::Opening { .. }
            | State::Ready { .. }
            | State::Standby(_)
            | State::Frozen(_)
            | State::Draining { .. }
            | State::Ended => (self, Vec::new()),
        }
    }

    fn prepared(mut self, prepared: super::state::Prepared) -> (Life, Vec<Action>) {
        let place = match &mut self.state {
            State::Standby(standby) => &mut standby.prepared,
            State::Frozen(frozen) => &mut frozen.prepared,
            State::Born
            | State::Opening { .. }
            | State::Ready { .. }
            | State::Holding(_)
            | State::Draining { .. }
            | State::Ended => return (self, Vec::new()),
        };
        *place = Some(prepared);
        (self, vec![Action::Report(Report::Prepared { term: prepared.term })])
    }

    fn took_over(mut self, sequence: u64) -> (Life, Vec<Action>) {
        let (peer, prepared) = match &self.state {
            State::Standby(Standby { peer: Some(peer), prepared: Some(prepared) })
            | State::Frozen(Frozen { peer, prepared: Some(prepared), .. }) => (*peer, *prepared),
            State::Standby(_)
            | State::Frozen(_)
            | State::Born
            | State::Opening { .. }
            | State::Ready { .. }
            | State::Holding(_)
            | State::Draining { .. }
            | State::Ended => return (self, Vec::new()),
        };
        self.state = State::Holding(Holding {
            term: prepared.term,
            taken: Taken { sequence, gap_us: 0 },
            books: prepared.books,
            pairing: Pairing::Watched(peer),
            draining: None,
        });
        (self, vec![Action::StopProbing, Action::Report(Report::Took { term: prepared.term })])
    }

    fn resumed(mut self, term: Term, taken: Taken) -> (Life, Vec<Action>) {
        match self.state {
            State::Frozen(Frozen { peer, .. }) => {
                self.state = State::Holding(Holding {
                    term,
                    taken,
                    books: Books::Database,
                    pairing: Pairing::Alone,
                    draining: None,
                });
                let Taken { sequence, gap_us } = taken;
                let report = Action::Report(Report::Resumed { term, sequence, gap_us });
                (
                    self,
                    vec![Action::Adopt { tag: peer.tag }, Action::Forget { instance: peer.instance }, report],
                )
            }
            State::Born
            | State::Opening { .. }
            | State::Ready { .. }
            | State::Standby(_)
            | State::Holding(_)
            | State::Draining { .. }
            | State::Ended => (self, Vec::new()),
        }
    }

    fn committed(mut self, term: Term) -> (Life, Vec<Action>) {
        match &mut self.state {
            State::Holding(holding) if holding.term == term => {
                holding.books = Books::Database;
                holding.pairing = match holding.pairing.clone() {
                    Pairing::Watched(peer) => {
                        holding.draining = Some(peer);
                        Pairing::Alone
                    }
                    other @ (Pairing::Alone | Pairing::Feeding(_) | Pairing::Cutting { .. }) => other,
                };
                (self, vec![Action::Report(Report::Committed { term })])
            }
            State::Born
            | State::Opening { .. }
            | State::Ready { .. }
            | State::Standby(_)
            | State::Holding(_)
            | State::Frozen(_)
            | State::Draining { .. }
            | State::Ended => (self, Vec::new()),
        }
    }

    fn logbook_dropped(mut self, text: String) -> (Life, Vec<Action>) {
        match &mut self.state {
            State::Holding(holding) => {
                let report = Action::Report(Report::Trouble { kind: Trouble::LogbookDropped, text });
                let mut actions = match &holding.pairing {
                    Pairing::Feeding(_) | Pairing::Cutting { from: Before::Feeding, .. } => {
                        holding.lose_peer("the logbook that the other worker follows could not be written")
                    }
                    Pairing::Alone | Pairing::Watched(_) | Pairing::Cutting { from: Before::Watched, .. } => {
                        Vec::new()
                    }
                };
                actions.push(report);
                (self, actions)
            }
            State::Born
            | State::Opening { .. }
            | State::Ready { .. }
            | State::Standby(_)
            | State::Frozen(_)
            | State::Draining { .. }
            | State::Ended => (self, Vec::new()),
        }
    }
}

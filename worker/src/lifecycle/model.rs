//! The rules, as tests: directed ones, and a world of two workers under random orders and kills.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, VecDeque};

use bumpless_shared::control::{
    Command, Durability, Order, Origin, Report, RoutingKeys, Start, Suspicion, Term, Timing,
};
use bumpless_shared::digest::Digest;
use bumpless_shared::release::Release;

use super::state::Prepared;
use super::{Action, Books, Event, Fate, Life, Peer, State};

fn start(origin: Origin) -> Command {
    Command::Start(Box::new(Start {
        instance: 1,
        secret: [0; 16],
        release: Release { version: "1.0.0".parse().unwrap(), sha256: Digest([0; 32]) },
        state: "state".into(),
        generation: 1,
        origin,
        tag: 1,
        listen: Vec::new(),
        routing: RoutingKeys { reset: [0; 64], token: [0; 64], mac: [0; 32] },
        reconnect: "workers.sock".into(),
        durability: Durability::Fsync,
        timing: Timing { heartbeat_ms: 1000, canary_ms: 500, relay_ms: 1000 },
    }))
}

fn ready() -> Event {
    let ready = Report::Ready {
        sequence: 0,
        term: 0,
        replayed: 0,
        logs: Vec::new(),
        generations: Vec::new(),
        damage: None,
    };
    Event::Opened { ready, term: 0 }
}

fn by(incarnation: u64, command: Command) -> Order {
    Order { incarnation, command }
}

/// A life after these inputs, and what the last of them brought about.
fn after(mut life: Life, inputs: impl IntoIterator<Item = Input>) -> (Life, Vec<Action>) {
    let mut last = Vec::new();
    for input in inputs {
        (life, last) = match input {
            Input::Order(command) => life.order(by(1, command)),
            Input::Event(event) => life.event(event),
        };
    }
    (life, last)
}

enum Input {
    Order(Command),
    Event(Event),
}
use Input::{Event as E, Order as O};

const OLD: Peer = Peer { instance: 1, tag: 1, generation: 1 };
const NEW: Peer = Peer { instance: 2, tag: 2, generation: 2 };

fn pair_with(peer: Peer) -> Input {
    O(Command::Pair { peer: peer.instance, peer_tag: peer.tag, peer_generation: peer.generation })
}

fn holding() -> Life {
    after(Life::default(), [O(start(Origin::Cold)), E(ready()), O(Command::Go { term: 5 })]).0
}

fn feeding() -> Life {
    after(holding(), [pair_with(NEW)]).0
}

fn frozen_with(resume: Term) -> Life {
    let inputs = [
        O(Command::Cut { term: 6, resume, window_ms: 1 }),
        E(Event::Moment),
        E(Event::Yielded { sequence: 9 }),
    ];
    after(feeding(), inputs).0
}

fn frozen() -> Life {
    frozen_with(7)
}

fn standby() -> Life {
    let inputs = [O(start(Origin::Candidate)), E(ready()), O(Command::Go { term: 5 }), pair_with(OLD)];
    after(Life::default(), inputs).0
}

fn on_probation() -> Life {
    let prepared = Prepared { term: 6, books: Books::Logbook };
    let inputs = [
        O(Command::Prepare { term: 6, reserve: Some(1) }),
        E(Event::Prepared { prepared }),
        E(Event::YieldCame { from: 1, term: 6, sequence: 9, handshakes: Vec::new() }),
        E(Event::TookOver { sequence: 9 }),
    ];
    after(standby(), inputs).0
}

fn refused(actions: &[Action]) -> bool {
    matches!(actions, [Action::Report(Report::Refused { .. })])
}

#[test]
fn a_holder_refuses_to_retire_and_to_drain() {
    for life in [holding(), feeding(), on_probation()] {
        assert!(refused(&after(life.clone(), [O(Command::Retire { term: 6 })]).1));
        assert!(refused(&after(life, [O(Command::Drain { stagger_ms: 0, deadline_ms: 0 })]).1));
    }
}

#[test]
fn a_frozen_worker_retires_for_its_own_term_and_says_so_each_time() {
    assert!(refused(&after(frozen(), [O(Command::Retire { term: 7 })]).1));
    let (life, first) = after(frozen(), [O(Command::Retire { term: 6 })]);
    let retired = Action::Report(Report::Retired { term: 6 });
    assert_eq!(first, [Action::StopProbing, retired.clone()]);
    let (life, again) = after(life, [O(Command::Retire { term: 6 })]);
    assert!(again.contains(&retired));
    let (_, draining) =
        after(life, [O(Command::Drain { stagger_ms: 0, deadline_ms: 0 }), O(Command::Retire { term: 6 })]);
    assert_eq!(draining, [retired]);
}

#[test]
fn a_retired_worker_resumes_by_order_alone() {
    let (life, _) = after(frozen(), [O(Command::Retire { term: 6 }), E(Event::ControlClosed)]);
    let (life, alone) = after(life, [E(Event::PeerDied(2))]);
    assert_eq!(alone, []);
    let (life, _) = life.event(Event::Connected);
    let (life, _) = life.order(by(2, Command::Go { term: 7 }));
    let (_, actions) = life.order(by(2, Command::Resume { term: 7 }));
    assert_eq!(actions, [Action::StopProbing, Action::Resume { term: 7, read: 6 }]);
}

#[test]
fn resuming_waits_for_the_peers_death_whatever_is_ordered() {
    let (life, ordered) = after(frozen(), [O(Command::Resume { term: 7 })]);
    assert_eq!(ordered, []);
    let (_, dead) = after(life, [E(Event::LinkClosed(2)), E(Event::PeerDied(2))]);
    assert_eq!(dead, [Action::StopProbing, Action::Resume { term: 7, read: 6 }]);
}

#[test]
fn a_frozen_worker_whose_supervisor_is_gone_kills_a_silent_holder_and_resumes_alone() {
    let (life, _) = after(frozen(), [E(Event::ControlClosed)]);
    let silent = Event::Suspicious { kind: Suspicion::Silent, reason: "no answer".into() };
    let (life, actions) = after(life, [E(silent)]);
    assert_eq!(actions, [Action::KillPeer]);
    let (life, actions) = after(life, [E(Event::PeerDied(2))]);
    assert_eq!(actions, [Action::StopProbing, Action::Resume { term: 7, read: 6 }]);
    let (life, _) = after(life, [E(Event::Resumed { term: 7, sequence: 12, gap_us: 3 })]);
    assert_eq!(life.role(), Some(bumpless_shared::control::Role::Holding { term: 7 }));
}

#[test]
fn a_frozen_worker_with_a_supervisor_only_tells_it_what_it_suspects() {
    let silent = Event::Suspicious { kind: Suspicion::Silent, reason: "no answer".into() };
    let (_, actions) = after(frozen(), [E(silent)]);
    assert!(matches!(actions[..], [Action::Report(Report::Suspect { kind: Suspicion::Silent, .. })]));
}

#[test]
fn a_death_before_the_channel_closed_is_acted_on_when_it_closes() {
    let (life, actions) = after(frozen(), [E(Event::PeerDied(2))]);
    assert_eq!(actions, []);
    let (_, actions) = after(life, [E(Event::ControlClosed)]);
    assert_eq!(actions, [Action::StopProbing, Action::Resume { term: 7, read: 6 }, Action::Reconnect]);
}

#[test]
fn who_yielded_for_good_never_holds_again() {
    let life = frozen_with(0);
    assert!(refused(&after(life.clone(), [O(Command::Prepare { term: 9, reserve: None })]).1));
    let (life, _) = after(life, [E(Event::PeerDied(2))]);
    assert!(refused(&after(life.clone(), [O(Command::Resume { term: 9 })]).1));
    assert_eq!(after(life, [E(Event::ControlClosed)]).1, [Action::Reconnect]);
}

#[test]
fn connections_of_a_living_worker_are_not_answered_for_whatever_is_ordered() {
    assert!(refused(&after(feeding(), [O(Command::PeerGone { tag: 2 })]).1));
    assert!(refused(&after(on_probation(), [O(Command::PeerGone { tag: 1 })]).1));
    assert!(refused(&after(frozen(), [O(Command::PeerGone { tag: 2 })]).1));
    let gone = [E(Event::PeerDied(2)), O(Command::PeerGone { tag: 2 })];
    assert_eq!(after(frozen(), gone).1, [Action::Adopt { tag: 2 }]);
}

#[test]
fn on_the_way_back_no_term_is_kept_in_reserve() {
    assert!(refused(&after(on_probation(), [O(Command::Cut { term: 7, resume: 8, window_ms: 1 })]).1));
}

#[test]
fn a_yield_that_could_not_be_sent_leaves_a_holder_under_the_reserved_term() {
    let inputs = [
        O(Command::Cut { term: 6, resume: 7, window_ms: 1 }),
        E(Event::Moment),
        E(Event::Thawed { term: 7, sequence: 9, reason: "the link is closed".into() }),
    ];
    let (life, actions) = after(feeding(), inputs);
    assert!(actions.contains(&Action::Report(Report::Resumed { term: 7, sequence: 9, gap_us: 0 })));
    assert_eq!(life.role(), Some(bumpless_shared::control::Role::Holding { term: 7 }));
}

#[test]
fn a_candidate_takes_only_the_term_that_it_prepared() {
    let yielded = |term| E(Event::YieldCame { from: 1, term, sequence: 9, handshakes: Vec::new() });
    assert!(refused(&after(standby(), [yielded(6)]).1));
    let prepared = Prepared { term: 6, books: Books::Logbook };
    let (life, _) = after(
        standby(),
        [O(Command::Prepare { term: 6, reserve: Some(1) }), E(Event::Prepared { prepared })],
    );
    assert!(refused(&after(life.clone(), [yielded(8)]).1));
    assert!(matches!(after(life, [yielded(6)]).1[..], [Action::TakeOver { term: 6, sequence: 9, .. }]));
}

#[test]
fn a_candidate_exits_with_its_supervisor_and_everybody_else_serves_on() {
    for life in [Life::default(), standby()] {
        assert_eq!(after(life, [E(Event::ControlClosed)]).1, [Action::Exit { code: 0 }]);
    }
    for life in [holding(), feeding(), frozen(), on_probation()] {
        assert_eq!(after(life, [E(Event::ControlClosed)]).1, [Action::Reconnect]);
    }
}

#[test]
fn orders_of_another_incarnation_and_lower_terms_change_nothing() {
    let (life, actions) = holding().order(by(2, Command::Stop { deadline_ms: 0 }));
    assert_eq!((life, actions), (holding(), Vec::new()));
    assert!(refused(&after(feeding(), [O(Command::Cut { term: 4, resume: 9, window_ms: 0 })]).1));
    assert!(refused(&after(frozen(), [O(Command::Resume { term: 6 })]).1));
}

#[test]
fn a_new_supervisor_is_obeyed_from_its_go_on_and_an_older_one_never() {
    let (life, _) = after(holding(), [E(Event::ControlClosed), E(Event::Connected)]);
    let (life, actions) = life.order(by(2, Command::Persist));
    assert_eq!(actions, []);
    let (life, actions) = life.order(by(0, Command::Go { term: 5 }));
    assert_eq!(actions, []);
    let (life, actions) = life.order(by(2, Command::Go { term: 5 }));
    assert_eq!(actions, [Action::Report(Report::Going { term: 5 })]);
    assert_eq!(life.order(by(2, Command::Persist)).1, [Action::Persist]);
}

#[test]
fn a_dead_candidate_costs_the_holder_its_logbook_and_nothing_else() {
    let (life, actions) = after(feeding(), [E(Event::PeerDied(2))]);
    assert_eq!(actions, [Action::DropLogbook, Action::Forget { instance: 2 }]);
    assert_eq!(life.state(), holding().state());
    let cutting = after(feeding(), [O(Command::Cut { term: 6, resume: 7, window_ms: 1 })]).0;
    let (life, actions) = after(cutting, [E(Event::PeerDied(2))]);
    assert!(actions.contains(&Action::CancelMoment));
    assert_eq!(life.state(), holding().state());
    assert_eq!(after(life, [E(Event::Moment)]).1, [], "a moment that comes too late is nobody's");
}

#[test]
fn a_holder_whose_old_worker_dies_goes_on_with_its_logbook_until_commit() {
    let (life, actions) = after(on_probation(), [E(Event::PeerDied(1))]);
    assert_eq!(actions, [Action::Forget { instance: 1 }, Action::Adopt { tag: 1 }]);
    assert!(refused(&after(life.clone(), [pair_with(NEW)]).1), "its logbook is the durable copy");
    let (life, actions) = after(life, [O(Command::Commit { term: 6 })]);
    assert_eq!(actions, [Action::Commit { term: 6 }]);
    let (life, _) = after(life, [E(Event::Committed { term: 6 })]);
    assert!(matches!(after(life, [pair_with(NEW)]).1[..], [Action::Unadopt { tag: 2 }, Action::Feed { .. }]));
}

#[test]
fn a_cut_that_fails_before_the_yield_leaves_the_holder_as_it_was() {
    let inputs = [
        O(Command::Cut { term: 6, resume: 7, window_ms: 1 }),
        E(Event::Moment),
        E(Event::BackedOut { reason: "the link is closed".into() }),
    ];
    let (life, actions) = after(feeding(), inputs);
    assert!(refused(&actions));
    assert_eq!(life.state(), feeding().state());
}

#[test]
fn a_cut_that_waits_for_its_moment_goes_with_the_supervisor_that_ordered_it() {
    for (life, term, resume) in [(feeding(), 6, 7), (on_probation(), 7, 0)] {
        let cutting = after(life.clone(), [O(Command::Cut { term, resume, window_ms: 1 })]).0;
        let (cutting, actions) = after(cutting, [E(Event::ControlClosed)]);
        assert_eq!(actions, [Action::CancelMoment, Action::Reconnect]);
        assert_eq!(cutting.state(), life.state());
        assert_eq!(after(cutting, [E(Event::Moment)]).1, [], "it has told the next one that it holds");
    }
}

#[test]
fn what_was_done_is_answered_again() {
    let (life, _) = after(frozen(), [E(Event::TookCame { from: 2, term: 6, gap_us: 700 })]);
    let again = after(life, [O(Command::Cut { term: 6, resume: 7, window_ms: 1 })]).1;
    let yielded = Action::Report(Report::Yielded { term: 6, sequence: 9 });
    assert_eq!(again, [yielded, Action::Report(Report::Resigned { term: 6, gap_us: 700 })]);
    let (life, _) = after(frozen(), [E(Event::PeerDied(2)), O(Command::Resume { term: 7 })]);
    let (life, first) = after(life, [E(Event::Resumed { term: 7, sequence: 12, gap_us: 3 })]);
    let resumed = Action::Report(Report::Resumed { term: 7, sequence: 12, gap_us: 3 });
    assert!(first.contains(&resumed));
    assert_eq!(after(life, [O(Command::Resume { term: 7 })]).1, [resumed]);
}

#[test]
fn a_holder_that_is_told_to_resume_goes_on_alone_under_the_new_term() {
    let (life, actions) = after(feeding(), [O(Command::Resume { term: 7 })]);
    let resumed = Action::Report(Report::Resumed { term: 7, sequence: 0, gap_us: 0 });
    let forget = Action::Forget { instance: 2 };
    assert_eq!(actions, [Action::DropLogbook, forget, Action::Raise { term: 7 }, resumed.clone()]);
    assert_eq!(after(life, [O(Command::Resume { term: 7 })]).1, [resumed]);
    assert!(refused(&after(on_probation(), [O(Command::Resume { term: 7 })]).1));
}

#[test]
fn the_way_back_is_the_same_cut_with_the_roles_swapped() {
    let prepared = Prepared { term: 7, books: Books::Database };
    let inputs = [
        E(Event::TookCame { from: 2, term: 6, gap_us: 1 }),
        O(Command::Prepare { term: 7, reserve: None }),
        E(Event::Prepared { prepared }),
        E(Event::YieldCame { from: 2, term: 7, sequence: 20, handshakes: Vec::new() }),
        E(Event::TookOver { sequence: 20 }),
    ];
    let (old, _) = after(frozen(), inputs);
    assert_eq!(old.role(), Some(bumpless_shared::control::Role::Holding { term: 7 }));
    let inputs = [
        O(Command::Cut { term: 7, resume: 0, window_ms: 1 }),
        E(Event::Moment),
        E(Event::Yielded { sequence: 20 }),
        E(Event::TookCame { from: 1, term: 7, gap_us: 1 }),
        O(Command::Drain { stagger_ms: 1, deadline_ms: 1 }),
    ];
    let (_, actions) = after(on_probation(), inputs);
    assert_eq!(actions, [Action::StopProbing, Action::Drain { stagger_ms: 1, deadline_ms: 1 }]);
}

#[test]
fn one_that_is_sent_away_before_it_heard_from_the_taker_relays_as_soon_as_it_does() {
    let drain = || O(Command::Drain { stagger_ms: 1, deadline_ms: 1 });
    let took = |from, term| E(Event::TookCame { from, term, gap_us: 1 });
    let (life, _) = after(frozen_with(0), [drain()]);
    assert_eq!(after(life.clone(), [took(2, 5)]).1, []);
    assert_eq!(after(life, [took(2, 6)]).1, [Action::Relay]);
    let (life, _) = after(frozen(), [O(Command::Retire { term: 6 }), drain()]);
    assert_eq!(after(life, [took(2, 6)]).1, [Action::Relay]);
}

/// xorshift: the same seed gives the same world.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Two workers, what is under way between them, and no sense at all in what they are ordered.
struct World {
    lives: [Option<Life>; 2],
    notes: [VecDeque<Event>; 2],
    later: [VecDeque<Event>; 2],
    incarnation: u64,
    held: BTreeMap<Term, usize>,
    chance: Chance,
}

impl World {
    fn new(seed: u64) -> World {
        let mut world = World {
            lives: [Some(Life::default()), Some(Life::default())],
            notes: Default::default(),
            later: Default::default(),
            incarnation: 1,
            held: BTreeMap::new(),
            chance: Chance(seed),
        };
        for (index, origin) in [Origin::Cold, Origin::Candidate].into_iter().enumerate() {
            world.order(index, start(origin));
            world.order(index, Command::Go { term: 1 });
        }
        let [old, new] = [OLD, NEW].map(|peer| Command::Pair {
            peer: peer.instance,
            peer_tag: peer.tag,
            peer_generation: peer.generation,
        });
        world.order(0, new);
        world.order(1, old);
        world
    }

    fn order(&mut self, index: usize, command: Command) {
        let order = by(self.incarnation, command);
        self.step(index, |life| life.order(order));
    }

    fn event(&mut self, index: usize, event: Event) {
        self.step(index, |life| life.event(event));
    }

    fn step(&mut self, index: usize, step: impl FnOnce(Life) -> (Life, Vec<Action>)) {
        let Some(life) = self.lives[index].take() else { return };
        let (life, actions) = step(life);
        self.lives[index] = Some(life);
        self.check();
        for action in actions {
            self.perform(index, action);
        }
    }

    fn check(&mut self) {
        let mut holders = 0;
        for (index, life) in self.lives.iter().enumerate() {
            let Some(State::Holding(holding)) = life.as_ref().map(Life::state) else { continue };
            holders += 1;
            assert_eq!(*self.held.entry(holding.term).or_insert(index), index, "one holder per term");
            assert!(
                self.held.last_key_value().is_some_and(|(last, _)| *last == holding.term),
                "terms only rise"
            );
        }
        assert!(holders <= 1, "two workers hold: {:?}", self.lives);
    }

    fn kill(&mut self, index: usize) {
        if self.lives[index].take().is_some() {
            let other = 1 - index;
            self.later[index].clear();
            self.later[other].push_back(Event::LinkClosed(index as u64 + 1));
            self.later[other].push_back(Event::PeerDied(index as u64 + 1));
        }
    }

    fn perform(&mut self, index: usize, action: Action) {
        if self.lives[index].is_none() {
            return;
        }
        let (other, myself) = (1 - index, index as u64 + 1);
        let fails = self.chance.below(8) == 0;
        match action {
            Action::Start(_) => self.event(index, ready()),
            Action::Prepare { .. } if fails => {
                self.event(index, Event::NotPrepared { reason: String::new() })
            }
            Action::Prepare { term, reserve } => {
                let books = if reserve.is_some() { Books::Logbook } else { Books::Database };
                self.event(index, Event::Prepared { prepared: Prepared { term, books } });
            }
            Action::AwaitMoment { .. } => self.later[index].push_back(Event::Moment),
            Action::Yield { cut } if cut.resume != 0 && self.chance.below(8) == 0 => {
                let reason = String::new();
                self.event(index, Event::Thawed { term: cut.resume, sequence: 1, reason });
            }
            Action::Yield { .. } if fails || self.lives[other].is_none() => {
                self.event(index, Event::BackedOut { reason: String::new() });
            }
            Action::Yield { cut } => {
                let handshakes = Vec::new();
                let note = Event::YieldCame { from: myself, term: cut.term, sequence: 1, handshakes };
                self.notes[other].push_back(note);
                self.event(index, Event::Yielded { sequence: 1 });
            }
            Action::TakeOver { .. } if fails => {
                let kind = bumpless_shared::control::Trouble::Damage;
                self.event(index, Event::NotTaken { kind, reason: String::new() });
            }
            Action::TakeOver { term, .. } => {
                self.event(index, Event::TookOver { sequence: 1 });
                self.notes[other].push_back(Event::TookCame { from: myself, term, gap_us: 1 });
            }
            Action::Resume { term, .. } => {
                assert!(self.lives[other].is_none(), "resumed beside a living peer");
                self.event(index, Event::Resumed { term, sequence: 1, gap_us: 1 });
            }
            Action::KillPeer => self.kill(other),
            Action::Commit { term } => self.event(index, Event::Committed { term }),
            Action::Drain { .. } => self.later[index].push_back(Event::Drained { moved: 0, cut_off: 0 }),
            Action::Reconnect => self.later[index].push_back(Event::Connected),
            Action::Identify => {
                self.incarnation += 1;
                self.order(index, Command::Go { term: 1 });
            }
            Action::Exit { .. } => self.kill(index),
            Action::Stop { .. } => self.later[index].push_back(Event::Stopped),
            Action::Report(_)
            | Action::Hold { .. }
            | Action::Raise { .. }
            | Action::Unadopt { .. }
            | Action::Adopt { .. }
            | Action::Feed { .. }
            | Action::Receive { .. }
            | Action::Mark { .. }
            | Action::CancelMoment
            | Action::Relay
            | Action::Follow { .. }
            | Action::Probe
            | Action::StopProbing
            | Action::DropLogbook
            | Action::Forget { .. }
            | Action::Release
            | Action::Persist
            | Action::Remove { .. } => {}
        }
    }

    fn random_order(&mut self) -> Command {
        let last = self.held.last_key_value().map_or(1, |(term, _)| *term);
        let term = last.saturating_sub(1) + self.chance.below(4);
        match self.chance.below(12) {
            0 | 1 => Command::Prepare { term, reserve: (self.chance.below(2) == 0).then_some(1) },
            2 | 3 => {
                let resume = if self.chance.below(3) == 0 { 0 } else { term + 1 };
                Command::Cut { term, resume, window_ms: 1 }
            }
            4 | 5 => Command::Resume { term },
            6 => Command::PeerGone { tag: 1 + self.chance.below(2) as u8 },
            7 => Command::Persist,
            8 => Command::Retire { term },
            9 => Command::Commit { term },
            10 => Command::Go { term },
            _ => match self.chance.below(6) {
                0 => Command::Drain { stagger_ms: 0, deadline_ms: 0 },
                1 => Command::Stop { deadline_ms: 0 },
                2 => Command::Pair { peer: 2, peer_tag: 2, peer_generation: 2 },
                3 => Command::Remove { logs: vec![term], generations: vec![1] },
                _ => Command::Mark { id: 1 },
            },
        }
    }

    fn turn(&mut self) {
        let index = self.chance.below(2) as usize;
        match self.chance.below(40) {
            0 => self.kill(index),
            1 | 2 => self.event(index, Event::ControlClosed),
            3 => {
                let kind = Suspicion::Silent;
                self.event(index, Event::Suspicious { kind, reason: String::new() });
            }
            4..=11 => {
                if let Some(event) = self.later[index].pop_front() {
                    self.event(index, event);
                }
            }
            12..=19 => {
                if let Some(note) = self.notes[index].pop_front() {
                    self.event(index, note);
                }
            }
            // What belongs together, now and then, so that chance gets far.
            20..=23 => {
                let next = self.held.last_key_value().map_or(1, |(term, _)| *term) + 1;
                let holder = self.held.last_key_value().map_or(0, |(_, index)| *index);
                self.order(1 - holder, Command::Prepare { term: next, reserve: Some(1) });
                let resume = if self.chance.below(2) == 0 { 0 } else { next + 1 };
                self.order(holder, Command::Cut { term: next, resume, window_ms: 1 });
            }
            _ => {
                let command = self.random_order();
                self.order(index, command);
            }
        }
    }
}

#[test]
fn two_never_hold_whatever_is_ordered_and_whoever_dies() {
    let mut reached = [0_u32; 3];
    for seed in 1..4000_u64 {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            for _ in 0..120 {
                world.turn();
            }
            world.held.len()
        });
        match outcome {
            Ok(terms) => reached[terms.min(3).saturating_sub(1)] += 1,
            Err(panic) => {
                eprintln!("seed {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    assert!(reached.iter().all(|times| *times > 50), "worlds with one, two, more terms: {reached:?}");
}

#[test]
fn a_frozen_worker_forgets_no_death() {
    let (life, _) = after(frozen(), [E(Event::PeerDied(2)), E(Event::LinkClosed(2))]);
    let State::Frozen(frozen) = life.state() else { panic!("{life:?}") };
    assert_eq!(frozen.fate, Fate::Dead);
}

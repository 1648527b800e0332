//! The sequence's rules, each as a sentence, and a small world with faults that looks for two holders.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::time::Duration;

use bumpless_os::process::Ending;
use bumpless_shared::control::{Command, Heartbeat, Instance, Origin, Suspicion, Trouble};
use bumpless_shared::digest::Digest;
use bumpless_shared::release::Release;

use super::judge::Limits;
use super::recovery::{Found, Intent, Survivor, recover};
use super::rules::Forbidden;
use super::state::{Back, Cold, Commit, Hashes, Levelling, Old, Pair, Return, Serving};
use super::*;
use crate::config::Revoked;
use bumpless_shared::control::Role;

fn rules() -> Rules {
    let seconds = Duration::from_secs;
    Rules {
        fetch: seconds(100),
        install: seconds(100),
        start: seconds(60),
        stall: seconds(30),
        level: seconds(40),
        window: seconds(1),
        cut: seconds(5),
        probation: seconds(60),
        rehearsal: seconds(5),
        rehearsal_gap: Duration::from_millis(100),
        persist: seconds(20),
        retire: seconds(20),
        resume: seconds(20),
        drain: seconds(30),
        stagger: seconds(1),
        kill_alarm: seconds(10),
        stop: seconds(60),
        reserve: 1 << 20,
        limits: Limits {
            silence: seconds(4),
            memory: 1 << 30,
            lag: 1000,
            logbook: 1 << 30,
            error_permille: 10,
            p99_factor: 5,
            p99_floor: Duration::from_millis(50),
            min_sample: 50,
        },
        forbidden: Forbidden::default(),
        revoked: Revoked::Run,
    }
}

fn at(seconds: u64) -> Moment {
    Moment(Duration::from_secs(seconds))
}

fn release(number: u8) -> Release {
    Release { version: format!("1.{number}.0").parse().unwrap(), sha256: Digest([number; 32]) }
}

const KILLED: Ending = Ending::Signaled(9);

fn worker(instance: Instance, number: u8) -> Worker {
    Worker { instance, generation: instance, release: release(number), tag: (instance % 3) as u8 + 1 }
}

fn attempt() -> Attempt {
    Attempt { from: Some(release(0)), to: release(1), by: None, rehearsal: Rehearsal::Off }
}

const TERMS: Terms = Terms { held: 1, take: 2, resume: 3 };

fn serving() -> Serving {
    Serving::new(worker(1, 0), 1, at(0))
}

fn probation() -> State {
    State::Probation {
        old: Old::Warm(worker(1, 0), at(0)),
        new: worker(2, 1),
        attempt: attempt(),
        terms: TERMS,
        gap_us: Some(700),
        judge: judge::Judge::new(judge::Baseline::default(), at(0)),
        until: at(60),
    }
}

fn has(effects: &[Effect], wanted: &Effect) -> bool {
    effects.contains(wanted)
}

fn step(state: State, event: Event, seconds: u64) -> (State, Vec<Effect>) {
    state.step(event, at(seconds), &rules())
}

#[test]
fn a_late_candidate_is_killed_and_the_old_worker_keeps_serving() {
    let state =
        State::Starting { serving: serving(), attempt: attempt(), new: Some(worker(2, 1)), deadline: at(3) };
    let (state, effects) = step(state, Event::Tick, 3);
    assert_eq!(effects, [Effect::Kill(2)]);
    let (state, effects) = step(state, Event::Ended(2, KILLED), 3);
    assert!(matches!(&state, State::Steady(serving) if serving.worker.instance == 1));
    assert!(has(&effects, &Effect::Tell(1, Command::PeerGone { tag: worker(2, 1).tag })));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Conclude { verdict: Verdict::Bad(_), .. })));
}

#[test]
fn what_the_holder_finds_wrong_with_a_candidate_counts_for_more_than_what_that_one_says() {
    let complaint = || Event::Said(2, Said::Trouble(Trouble::SyncFailed, "the link is closed".into()));
    let finding = || Event::Said(1, Said::Suspects(Suspicion::Failing, "notes without end".into()));
    for events in [[complaint(), finding()], [finding(), complaint()]] {
        let state = State::Syncing {
            serving: serving(),
            attempt: attempt(),
            new: worker(2, 1),
            left: 9,
            deadline: at(30),
        };
        let (state, effects) = events.into_iter().fold((state, vec![]), |(state, mut all), event| {
            let (state, effects) = step(state, event, 1);
            all.extend(effects);
            (state, all)
        });
        assert_eq!(effects, [Effect::Kill(2)]);
        let (_, effects) = step(state, Event::Ended(2, KILLED), 1);
        assert_eq!(conclusion(&effects), Some(&Verdict::Bad("notes without end".into())));
    }
}

#[test]
fn different_hashes_end_the_upgrade_for_ever() {
    let step_of = super::state::Levelling::Hashing(super::state::Hashes { mark: 7, seen: vec![] });
    let state = State::Level {
        serving: serving(),
        attempt: attempt(),
        new: worker(2, 1),
        step: step_of,
        deadline: at(40),
    };
    let (state, effects) = step(state, Event::Said(1, Said::Hash(7, Digest([1; 32]))), 1);
    assert!(effects.is_empty());
    let (state, effects) = step(state, Event::Said(2, Said::Hash(7, Digest([2; 32]))), 1);
    assert_eq!(effects, [Effect::Kill(2)]);
    assert!(matches!(state, State::BackingOut { verdict: Verdict::Wrong(_), .. }));
}

#[test]
fn the_old_worker_resumes_only_after_the_new_ones_confirmed_death() {
    let (state, effects) =
        step(probation(), Event::Said(1, Said::Suspects(Suspicion::Silent, "no answer".into())), 5);
    assert_eq!(effects, [Effect::Kill(2)]);
    let (state, effects) = step(state, Event::Said(1, Said::Heartbeat(Heartbeat::default())), 6);
    assert!(effects.is_empty());
    let (state, effects) = step(state, Event::Ended(2, KILLED), 7);
    assert_eq!(effects[0], Effect::Tell(1, Command::Resume { term: 3 }));
    assert!(matches!(state, State::RollingBack { step: Back::Resuming, .. }));
}

#[test]
fn a_worker_that_died_by_itself_is_not_said_to_have_been_silent() {
    let (state, _) =
        step(probation(), Event::Said(1, Said::Suspects(Suspicion::Silent, "closed its link".into())), 5);
    let (state, _) = step(state, Event::Ended(2, Ending::Exited(70)), 5);
    let wanted = Verdict::Bad("exited with status 70 after it took over".into());
    assert!(matches!(state, State::RollingBack { verdict, .. } if verdict == wanted));
}

#[test]
fn a_wrong_answer_on_probation_is_not_only_bad() {
    let (state, _) = step(probation(), Event::Said(1, Said::Suspects(Suspicion::Wrong, "content".into())), 5);
    assert!(matches!(state, State::RollingBack { verdict: Verdict::Wrong(_), .. }));
}

#[test]
fn a_disk_error_takes_the_cut_back_without_blaming_the_release() {
    let (state, _) = step(probation(), Event::Said(2, Said::Trouble(Trouble::Poisoned, "disk".into())), 5);
    assert!(matches!(state, State::RollingBack { verdict: Verdict::Unknown(_), .. }));
}

#[test]
fn silence_of_the_old_worker_never_counts_against_the_new_one() {
    let (state, effects) = step(probation(), Event::Said(2, Said::Heartbeat(Heartbeat::default())), 4);
    assert!(effects.is_empty());
    let (state, effects) = step(state, Event::Tick, 5);
    assert_eq!(effects, [Effect::Kill(1)]);
    let (state, effects) = step(state, Event::Ended(1, KILLED), 5);
    assert!(matches!(&state, State::Probation { old: Old::Gone(_), .. }));
    assert_eq!(effects[0], Effect::Tell(2, Command::PeerGone { tag: worker(1, 0).tag }));
}

#[test]
fn a_commit_follows_its_order_and_records_only_after_the_old_one_has_given_up() {
    let tell = |who, command| Effect::Tell(who, command);
    let (state, _) = step(probation(), Event::Said(2, Said::Heartbeat(Heartbeat::default())), 59);
    let (state, _) = step(state, Event::Said(1, Said::Heartbeat(Heartbeat::default())), 59);
    let (state, effects) = step(state, Event::Tick, 60);
    assert_eq!(effects, [tell(2, Command::Mark { id: 5 })]);
    let (state, _) = step(state, Event::Said(2, Said::Hash(5, Digest([9; 32]))), 60);
    let (state, effects) = step(state, Event::Said(1, Said::Hash(5, Digest([9; 32]))), 60);
    assert_eq!(effects, [tell(2, Command::Persist)]);
    let (state, effects) = step(state, Event::Said(2, Said::Persisted), 61);
    assert_eq!(effects, [tell(1, Command::Retire { term: 2 })]);
    let (state, effects) = step(state, Event::Said(1, Said::Retired(2)), 61);
    let record = Effect::Record { release: release(1), generation: 2, term: RecordTerm::Held(2) };
    assert_eq!(effects, std::slice::from_ref(&record));
    let (state, _) = step(state, Event::Stored(Stored::NotRecorded("full".into())), 61);
    let (state, _) = step(state, Event::Said(2, Said::Heartbeat(Heartbeat::default())), 62);
    let (state, effects) = step(state, Event::Tick, 62);
    assert_eq!(effects, [record]);
    let (state, effects) = step(state, Event::Stored(Stored::Recorded(2)), 62);
    assert_eq!(effects, [tell(2, Command::Commit { term: 2 })]);
    let (state, effects) = step(state, Event::Said(2, Said::Sealed(2)), 62);
    assert_eq!(effects, [tell(1, Command::Drain { stagger_ms: 1000, deadline_ms: 30000 })]);
    let (state, effects) = step(state, Event::Ended(1, Ending::Exited(0)), 63);
    assert!(matches!(&state, State::Steady(serving) if serving.worker.instance == 2 && serving.term == 2));
    assert!(has(&effects, &Effect::Discard { logs: vec![1, 2], generations: vec![1] }));
}

#[test]
fn if_the_old_one_dies_before_the_commit_point_the_new_one_is_looked_at_once_more() {
    let state = State::Committing {
        old: Old::Warm(worker(1, 0), at(0)),
        new: worker(2, 1),
        attempt: attempt(),
        terms: TERMS,
        gap_us: None,
        step: Commit::Retiring,
        deadline: at(20),
        heard: at(0),
    };
    let (state, effects) = step(state, Event::Ended(1, Ending::Signaled(11)), 1);
    assert!(has(&effects, &Effect::Tell(2, Command::Persist)));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Record { .. })));
    let (_, effects) = step(state, Event::Said(2, Said::Persisted), 1);
    assert!(matches!(effects.as_slice(), [Effect::Record { .. }]));
}

#[test]
fn behind_the_commit_point_a_worker_that_can_write_no_more_starts_again_on_its_own_pair() {
    let state = State::Committing {
        old: Old::Warm(worker(1, 0), at(0)),
        new: worker(2, 1),
        attempt: attempt(),
        terms: TERMS,
        gap_us: None,
        step: Commit::Sealing,
        deadline: at(60),
        heard: at(1),
    };
    let failed = Said::Trouble(Trouble::Poisoned, "the database cannot be synced".into());
    let (state, effects) = step(state, Event::Said(2, failed), 1);
    assert_eq!(effects, [Effect::Kill(2)]);
    let (state, effects) = step(state, Event::Ended(2, KILLED), 1);
    assert!(has(&effects, &Effect::Kill(1)) && conclusion(&effects) == Some(&Verdict::Good), "{effects:?}");
    let (state, effects) = step(state, Event::Ended(1, KILLED), 1);
    assert!(matches!(state, State::Cold { pair: Pair::Committed(_, 2), .. }), "{state:?}");
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Spawn { generation: Some(2), .. })));
}

#[test]
fn what_the_new_one_said_before_the_old_ones_death_does_not_show_that_it_outlived_it() {
    let state = State::Committing {
        old: Old::Warm(worker(1, 0), at(0)),
        new: worker(2, 1),
        attempt: attempt(),
        terms: TERMS,
        gap_us: None,
        step: Commit::Persisting(1),
        deadline: at(20),
        heard: at(0),
    };
    let (state, effects) = step(state, Event::Ended(1, KILLED), 1);
    assert!(has(&effects, &Effect::Tell(2, Command::Persist)));
    let (state, effects) = step(state, Event::Said(2, Said::Persisted), 1);
    assert_eq!(effects, [], "the answer to the first order");
    let (_, effects) = step(state, Event::Said(2, Said::Persisted), 1);
    assert!(matches!(effects.as_slice(), [Effect::Record { .. }]));
}

#[test]
fn a_stop_while_the_record_is_replaced_leaves_it_to_the_next_start_to_say_how_the_upgrade_ended() {
    let state = State::Committing {
        old: Old::Warm(worker(1, 0), at(0)),
        new: worker(2, 1),
        attempt: attempt(),
        terms: TERMS,
        gap_us: None,
        step: Commit::Recording,
        deadline: at(20),
        heard: at(0),
    };
    let (_, effects) = step(state, Event::Asked(Ask::Stop), 1);
    assert_eq!(conclusion(&effects), None);
    let found = |generation, number| Found {
        committed: Some((release(number), generation)),
        intent: Some(Intent { attempt: attempt(), generation: 2, old_generation: 1, terms: Some(TERMS) }),
        alive: vec![],
    };
    let logs = vec![1, 2];
    let (_, effects) = recover(found(2, 1), at(0), &rules());
    assert_eq!(conclusion(&effects), Some(&Verdict::Good));
    assert!(has(&effects, &Effect::Discard { logs: logs.clone(), generations: vec![1] }));
    let (_, effects) = recover(found(1, 0), at(0), &rules());
    assert!(matches!(conclusion(&effects), Some(Verdict::Unknown(_))));
    assert!(has(&effects, &Effect::Discard { logs, generations: vec![2] }));
}

#[test]
fn a_holder_that_a_start_finds_on_the_committed_generation_ends_its_logbook_even_if_no_journal_says_so() {
    let found = Found {
        committed: Some((release(1), 2)),
        intent: None,
        alive: vec![Survivor { worker: worker(2, 1), role: Role::Holding { term: 2 } }],
    };
    let (state, effects) = recover(found, at(0), &rules());
    assert!(matches!(state, State::Steady(_)));
    assert!(has(&effects, &Effect::Tell(2, Command::Commit { term: 2 })));
}

#[test]
fn a_start_has_the_connections_answered_for_of_the_worker_that_died_and_of_no_other() {
    // A candidate gets the slot behind its holder's; the holder is dead.
    for (dead, tag) in [(1, 2), (2, 3), (3, 1)] {
        let new = Worker { tag, ..worker(2, 1) };
        let found = Found {
            committed: Some((release(0), 1)),
            intent: Some(Intent { attempt: attempt(), generation: 2, old_generation: 1, terms: Some(TERMS) }),
            alive: vec![Survivor { worker: new, role: Role::Holding { term: 2 } }],
        };
        let (state, effects) = recover(found, at(0), &rules());
        assert!(matches!(state, State::Probation { old: Old::Gone(_), .. }));
        assert!(has(&effects, &Effect::Tell(2, Command::PeerGone { tag: dead })), "{effects:?}");
    }
}

#[test]
fn behind_the_commit_point_a_death_restarts_the_new_pair() {
    let state = State::Committing {
        old: Old::Gone(worker(1, 0)),
        new: worker(2, 1),
        attempt: attempt(),
        terms: TERMS,
        gap_us: None,
        step: Commit::Sealing,
        deadline: at(20),
        heard: at(0),
    };
    let (_, effects) = step(state, Event::Ended(2, Ending::Signaled(11)), 1);
    let spawn = Effect::Spawn { release: release(1), generation: Some(2), origin: Origin::Cold, tag: 1 };
    assert!(has(&effects, &spawn));
}

#[test]
fn a_restarted_supervisor_judges_on_and_never_touches_the_committed_generation() {
    let found = Found {
        committed: Some((release(0), 1)),
        intent: Some(Intent { attempt: attempt(), generation: 2, old_generation: 1, terms: Some(TERMS) }),
        alive: vec![
            Survivor { worker: worker(1, 0), role: Role::Frozen { term: 2, resume: 3 } },
            Survivor { worker: worker(2, 1), role: Role::Holding { term: 2 } },
        ],
    };
    let (state, effects) = recover(found, at(0), &rules());
    assert!(matches!(state, State::Probation { old: Old::Warm(..), .. }));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Record { .. } | Effect::Kill(_))));
}

#[test]
fn a_restarted_supervisor_lets_a_frozen_worker_resume_only_on_the_committed_generation() {
    let alive = |generation| {
        let mut frozen = worker(1, 0);
        frozen.generation = generation;
        vec![Survivor { worker: frozen, role: Role::Frozen { term: 2, resume: 3 } }]
    };
    let intent = Some(Intent { attempt: attempt(), generation: 2, old_generation: 1, terms: Some(TERMS) });
    let found = |generation| Found {
        committed: Some((release(0), 1)),
        intent: intent.clone(),
        alive: alive(generation),
    };
    let (_, effects) = recover(found(1), at(0), &rules());
    assert!(has(&effects, &Effect::Tell(1, Command::Resume { term: 3 })));
    let (state, effects) = recover(found(9), at(0), &rules());
    assert!(has(&effects, &Effect::Kill(1)));
    assert!(matches!(state, State::Clearing { .. }));
}

#[test]
fn if_everybody_died_behind_the_commit_point_the_next_start_knows_that_it_was_committed() {
    let found = |committed| Found {
        committed: Some(committed),
        intent: Some(Intent { attempt: attempt(), generation: 2, old_generation: 1, terms: Some(TERMS) }),
        alive: vec![],
    };
    let discard = |generation| Effect::Discard { logs: vec![1, 2], generations: vec![generation] };
    let (_, effects) = recover(found((release(1), 2)), at(0), &rules());
    assert_eq!(conclusion(&effects), Some(&Verdict::Good));
    assert!(has(&effects, &discard(1)), "the old generation is nobody's: {effects:?}");
    let (_, effects) = recover(found((release(0), 1)), at(0), &rules());
    assert!(matches!(conclusion(&effects), Some(Verdict::Unknown(_))));
    assert!(has(&effects, &discard(2)), "the candidate's generation is nobody's: {effects:?}");
}

fn conclusion(effects: &[Effect]) -> Option<&Verdict> {
    effects.iter().find_map(|effect| match effect {
        Effect::Conclude { verdict, .. } => Some(verdict),
        _ => None,
    })
}

/// Taken back by its operator in probation, up to the moment when the old worker holds again.
/// The publisher has revoked these.
fn revoked(policy: Revoked, numbers: &[u8]) -> Rules {
    let why = |number: &u8| (release(*number).sha256, "is revoked by the publisher".to_owned());
    Rules { forbidden: numbers.iter().map(why).collect(), revoked: policy, ..rules() }
}

fn reconsidered(state: State, rules: &Rules) -> (State, Vec<Effect>) {
    state.step(Event::Asked(Ask::Reconsider), at(1), rules)
}

fn withdrawn() -> Verdict {
    Verdict::Withdrawn("1.1.0 is revoked by the publisher".into())
}

fn spawns(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Spawn { .. }))
}

fn committing(step: Commit) -> State {
    State::Committing {
        old: Old::Warm(worker(1, 0), at(0)),
        new: worker(2, 1),
        attempt: attempt(),
        terms: TERMS,
        gap_us: None,
        step,
        deadline: at(20),
        heard: at(0),
    }
}

#[test]
fn a_release_that_is_revoked_before_its_process_exists_is_given_up_and_never_started() {
    let rules = revoked(Revoked::Run, &[1]);
    let (serving, attempt, deadline) = (Some(serving()), attempt(), at(100));
    let fetching = State::Fetching { serving: serving.clone(), attempt: attempt.clone(), deadline };
    let installing = State::Installing { serving: serving.clone(), attempt: attempt.clone(), deadline };
    for state in [fetching, installing.clone()] {
        let (state, effects) = reconsidered(state, &rules);
        assert!(matches!(state, State::Steady(_)), "{state:?}");
        assert_eq!((conclusion(&effects), effects.len()), (Some(&withdrawn()), 2));
        assert_eq!(effects[0], Effect::CancelAcquire);
    }
    // It was known before, and whatever would start it does not.
    let installed = Event::Asked(Ask::Upgrade { attempt: attempt.clone(), installed: true });
    let steady = || State::Steady(serving.clone().unwrap());
    let ways = [
        (installing, Event::Acquired(Acquired::Installed)),
        (steady(), installed.clone()),
        (State::Vacant, installed),
    ];
    for (state, event) in ways {
        let (state, effects) = state.step(event, at(1), &rules);
        assert!(matches!(state, State::Steady(_) | State::Vacant), "{state:?}");
        assert_eq!((conclusion(&effects), spawns(&effects)), (Some(&withdrawn()), false));
    }
    let new = None;
    let starting = State::Starting { serving: serving.clone().unwrap(), attempt, new, deadline };
    let (state, effects) = reconsidered(starting, &rules);
    assert_eq!((&state, conclusion(&effects)), (&steady(), Some(&withdrawn())));
    // The process that comes all the same is killed.
    let (state, effects) = state.step(Event::Launched(Launched::Running(worker(2, 1))), at(1), &rules);
    assert_eq!((state, &effects[0]), (steady(), &Effect::Kill(2)));
}

#[test]
fn a_process_of_another_release_than_the_one_that_is_waited_for_is_killed() {
    // Release 1 was given up while its binary was verified, and release 2 begun since.
    let attempt = Attempt { to: release(2), ..attempt() };
    let starting = State::Starting { serving: serving(), attempt, new: None, deadline: at(60) };
    let cold = State::Cold {
        pair: Pair::Committed(release(0), 1),
        step: Cold::Spawning,
        deadline: at(60),
        tries: 0,
    };
    for (state, its) in [(starting, worker(3, 2)), (cold, worker(1, 0))] {
        let late = Event::Launched(Launched::Running(worker(2, 1)));
        let (after, effects) = step(state.clone(), late, 1);
        assert_eq!((&after, &effects[0]), (&state, &Effect::Kill(2)));
        let (_, effects) = step(after, Event::Launched(Launched::Running(its)), 1);
        assert_eq!(effects, []);
    }
}

#[test]
fn a_candidate_that_is_revoked_before_the_cut_is_backed_out_with_that_reason() {
    let (serving, attempt, new, deadline) = (serving(), attempt(), worker(2, 1), at(100));
    let level = |step| State::Level {
        serving: serving.clone(),
        attempt: attempt.clone(),
        new: new.clone(),
        step,
        deadline,
    };
    let states = [
        State::Starting {
            serving: serving.clone(),
            attempt: attempt.clone(),
            new: Some(new.clone()),
            deadline,
        },
        State::Syncing {
            serving: serving.clone(),
            attempt: attempt.clone(),
            new: new.clone(),
            left: 9,
            deadline,
        },
        level(Levelling::Hashing(Hashes::default())),
        level(Levelling::Preparing(TERMS)),
    ];
    for state in states {
        let (state, effects) = reconsidered(state, &revoked(Revoked::Run, &[1]));
        assert_eq!(effects, [Effect::Kill(2)]);
        // What the holder complains of when the link breaks does not put the blame on the release.
        let (state, _) = step(state, Event::Said(1, Said::Suspects(Suspicion::Failing, "link".into())), 2);
        let (state, effects) = step(state, Event::Ended(2, KILLED), 2);
        assert!(matches!(state, State::Steady(_)), "{state:?}");
        assert_eq!(conclusion(&effects), Some(&withdrawn()));
    }
}

#[test]
fn a_candidate_that_is_revoked_between_the_cut_and_the_commit_point_is_killed_and_the_old_one_resumes() {
    let states = [
        cutting(Rehearsal::Off),
        probation(),
        committing(Commit::Hashing(Hashes::default())),
        committing(Commit::Persisting(1)),
        committing(Commit::Retiring),
    ];
    for state in states {
        // The old one runs already: what is said of its release keeps nobody from resuming.
        let rules = revoked(Revoked::Stop, &[0, 1]);
        let (state, effects) = reconsidered(state, &rules);
        assert_eq!(effects, [Effect::Kill(2)]);
        let (state, effects) = state.step(Event::Ended(2, KILLED), at(2), &rules);
        assert_eq!(effects[0], Effect::Tell(1, Command::Resume { term: 3 }));
        let (state, _) = state.step(Event::Said(1, Said::Resumed(3, 900)), at(2), &rules);
        let (state, effects) = state.step(Event::Said(1, Said::Persisted), at(2), &rules);
        assert!(matches!(state, State::Steady(_)), "{state:?}");
        assert_eq!(conclusion(&effects), Some(&withdrawn()));
    }
}

#[test]
fn behind_the_commit_point_a_revoked_release_goes_on() {
    for step in [Commit::Recording, Commit::Sealing, Commit::Draining] {
        let state = committing(step);
        assert_eq!(reconsidered(state.clone(), &revoked(Revoked::Stop, &[0, 1])), (state, vec![]));
    }
    let state = State::Steady(serving());
    assert_eq!(reconsidered(state.clone(), &revoked(Revoked::Stop, &[0])), (state, vec![]));
}

#[test]
fn a_candidate_that_may_run_is_not_touched_by_what_is_said_of_others() {
    for state in [probation(), committing(Commit::Retiring), cutting(Rehearsal::Off)] {
        assert_eq!(reconsidered(state.clone(), &revoked(Revoked::Stop, &[0, 2])), (state, vec![]));
    }
}

#[test]
fn a_rehearsal_of_a_revoked_release_ends_with_its_way_back() {
    let rules = revoked(Revoked::Run, &[1]);
    let (state, effects) = reconsidered(to_hand_back(), &rules);
    assert!(effects.is_empty());
    assert!(matches!(&state, State::Reversing { why: Return::Ends(verdict), .. } if *verdict == withdrawn()));
}

#[test]
fn a_first_release_that_is_revoked_while_it_opens_its_state_is_killed_and_not_committed() {
    let attempt = Attempt { from: None, ..attempt() };
    let pair = Pair::Genesis(attempt);
    let rules = revoked(Revoked::Run, &[1]);
    let cold = |step| State::Cold { pair: pair.clone(), step, deadline: at(60), tries: 0 };
    let (state, effects) = reconsidered(cold(Cold::Spawning), &rules);
    assert_eq!((state, conclusion(&effects)), (State::Vacant, Some(&withdrawn())));
    let (state, effects) = reconsidered(cold(Cold::Opening(worker(1, 1))), &rules);
    assert_eq!(effects, [Effect::Kill(1)]);
    let (state, effects) = state.step(Event::Said(1, Said::Ready(0)), at(1), &rules);
    assert!(effects.is_empty(), "{effects:?}");
    let (state, effects) = state.step(Event::Ended(1, KILLED), at(1), &rules);
    assert!(state == State::Vacant && conclusion(&effects).is_some(), "{state:?} {effects:?}");
}

/// Everything by which what is committed is started with nothing beside it.
fn cold_starts() -> Vec<(&'static str, State, Event)> {
    let waiting = State::Cold {
        pair: Pair::Committed(release(0), 1),
        step: Cold::Waiting("it exited".into()),
        deadline: at(1),
        tries: 3,
    };
    let dead =
        State::Clearing { dying: vec![worker(1, 0)], after: state::After::Cold(release(0), 1), alarm: at(9) };
    vec![
        ("the worker that serves has crashed", State::Steady(serving()), Event::Ended(1, KILLED)),
        ("a worker that had to die is dead", dead, Event::Ended(1, KILLED)),
        ("the next try has come", waiting, Event::Tick),
    ]
}

fn found() -> Found {
    Found { committed: Some((release(0), 1)), intent: None, alive: vec![] }
}

#[test]
fn where_revoked_is_stop_what_is_committed_and_revoked_does_not_start_anew_in_any_way() {
    let rules = revoked(Revoked::Stop, &[0]);
    let down = |state: &State| {
        let State::Cold { pair: Pair::Committed(_, 1), step: Cold::Forbidden(why), .. } = state else {
            panic!("{state:?}")
        };
        assert_eq!(why, "is revoked by the publisher");
        assert_eq!((state.next_tick(&rules), state.workers()), (None, vec![]));
    };
    let (state, effects) = recover(found(), at(0), &rules);
    down(&state);
    assert!(!spawns(&effects));
    for (how, before, event) in cold_starts() {
        let (state, effects) = before.step(event, at(1), &rules);
        down(&state);
        assert!(!spawns(&effects), "{how}");
    }
    // Nothing but the publisher's word, or a configuration that is read anew, changes that.
    let attempt = Attempt { from: Some(release(0)), ..attempt() };
    for event in [
        Event::Tick,
        Event::Asked(Ask::Reconsider),
        Event::Asked(Ask::Upgrade { attempt, installed: true }),
        Event::Asked(Ask::Rollback { uid: 0 }),
    ] {
        assert_eq!(state.clone().step(event, at(9), &rules), (state.clone(), vec![]));
    }
    let (state, effects) = reconsidered(state, &revoked(Revoked::Stop, &[]));
    assert!(matches!(state, State::Cold { step: Cold::Spawning, .. }) && spawns(&effects));
}

#[test]
fn a_stop_ends_a_node_that_is_kept_down() {
    let (state, _) = recover(found(), at(0), &revoked(Revoked::Stop, &[0]));
    assert!(matches!(state, State::Cold { step: Cold::Forbidden(_), .. }), "{state:?}");
    let (state, effects) = step(state, Event::Asked(Ask::Stop), 1);
    assert_eq!((state, effects), (State::Stopped, vec![]));
}

#[test]
fn where_revoked_is_run_what_is_committed_starts_whatever_is_said_of_it() {
    let rules = revoked(Revoked::Run, &[0]);
    let (state, effects) = recover(found(), at(0), &rules);
    assert!(matches!(state, State::Cold { step: Cold::Spawning, .. }) && spawns(&effects));
    for (how, before, event) in cold_starts() {
        let (_, effects) = before.step(event, at(1), &rules);
        assert!(spawns(&effects), "{how}");
    }
}

fn handed_back() -> State {
    let (state, effects) = step(probation(), Event::Asked(Ask::Rollback { uid: 7 }), 1);
    assert_eq!(effects, [Effect::Tell(1, Command::Prepare { term: 3, reserve: None })]);
    let (state, effects) = step(state, Event::Said(1, Said::Prepared(3)), 1);
    assert_eq!(effects, [Effect::Tell(2, Command::Cut { term: 3, resume: 0, window_ms: 1000 })]);
    let (state, effects) = step(state, Event::Said(2, Said::Yielded(3)), 1);
    assert_eq!(effects, []);
    let (state, effects) = step(state, Event::Said(2, Said::Resigned(900)), 1);
    assert_eq!(effects, [Effect::Tell(2, Command::Drain { stagger_ms: 1000, deadline_ms: 30000 })]);
    state
}

fn heard(state: State, who: Instance, seconds: u64) -> State {
    step(state, Event::Said(who, Said::Heartbeat(Heartbeat::default())), seconds).0
}

#[test]
fn a_graceful_way_back_ends_when_the_connections_of_the_new_worker_have_moved() {
    let (state, effects) = step(handed_back(), Event::Said(2, Said::Drained(0)), 3);
    assert_eq!(effects, []);
    let (state, effects) = step(state, Event::Ended(2, Ending::Exited(0)), 3);
    let gone = Effect::Tell(1, Command::PeerGone { tag: worker(2, 1).tag });
    assert_eq!(effects, [gone, Effect::Tell(1, Command::Persist)]);
    let (state, effects) = step(state, Event::Said(1, Said::Persisted), 4);
    assert!(matches!(&state, State::Steady(serving) if serving.worker.instance == 1 && serving.term == 3));
    assert_eq!(effects[0], Effect::Discard { logs: vec![1, 2], generations: vec![2] });
    assert!(matches!(
        &effects[1],
        Effect::Conclude { verdict: Verdict::RolledBack(_), gap_us: Some(900), .. }
    ));
}

#[test]
fn on_the_way_back_a_worker_that_does_not_go_is_killed_at_the_deadline_and_the_holder_goes_on() {
    let state = heard(handed_back(), 1, 38);
    let (state, effects) = step(state, Event::Tick, 40);
    assert_eq!(effects, []);
    let (state, effects) = step(state, Event::Tick, 41);
    assert!(matches!(effects.as_slice(), [Effect::Kill(2), Effect::Alarm(_)]));
    let (state, effects) = step(state, Event::Ended(2, KILLED), 41);
    assert!(has(&effects, &Effect::Tell(1, Command::PeerGone { tag: worker(2, 1).tag })));
    assert!(!has(&effects, &Effect::Tell(1, Command::Resume { term: 3 })), "it holds already");
    let (state, _) = step(state, Event::Said(1, Said::Persisted), 42);
    assert!(matches!(&state, State::Steady(serving) if serving.worker.instance == 1));
}

#[test]
fn if_the_holder_fails_on_the_way_back_the_one_that_yielded_for_good_is_killed_and_the_pair_starts_cold() {
    let (state, effects) = step(heard(handed_back(), 1, 10), Event::Tick, 14);
    assert_eq!(effects, [Effect::Kill(1)]);
    let (state, effects) = step(state, Event::Ended(1, KILLED), 14);
    assert!(has(&effects, &Effect::Kill(2)));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Tell(2, _))));
    assert!(matches!(conclusion(&effects), Some(Verdict::RolledBack(_))));
    let (_, effects) = step(state, Event::Ended(2, KILLED), 14);
    let spawn = Effect::Spawn { release: release(0), generation: Some(1), origin: Origin::Cold, tag: 1 };
    assert!(has(&effects, &spawn));
}

#[test]
fn a_stop_on_the_way_back_does_not_forget_why_it_was_taken_back() {
    let (state, effects) = step(handed_back(), Event::Asked(Ask::Stop), 3);
    assert!(matches!(&state, State::Stopping { left, .. } if left.len() == 2));
    assert!(matches!(conclusion(&effects), Some(Verdict::RolledBack(_))));
}

#[test]
fn a_stop_after_the_record_was_replaced_is_the_end_of_an_upgrade_that_went_well() {
    let concluded = |step_| {
        let state = State::Committing {
            old: Old::Warm(worker(1, 0), at(0)),
            new: worker(2, 1),
            attempt: attempt(),
            terms: TERMS,
            gap_us: Some(700),
            step: step_,
            deadline: at(20),
            heard: at(0),
        };
        let (_, effects) = step(state, Event::Asked(Ask::Stop), 1);
        conclusion(&effects).cloned()
    };
    assert!(matches!(concluded(Commit::Retiring), Some(Verdict::Unknown(_))));
    assert_eq!(concluded(Commit::Sealing), Some(Verdict::Good));
    assert_eq!(concluded(Commit::Draining), Some(Verdict::Good));
}

#[test]
fn a_stop_leaves_nothing_of_an_upgrade_behind_for_ever() {
    let discarded = |state| {
        let (_, effects) = step(state, Event::Asked(Ask::Stop), 3);
        effects.into_iter().find_map(|effect| match effect {
            Effect::Discard { logs, generations } => Some((logs, generations)),
            _ => None,
        })
    };
    let (new, deadline) = (worker(2, 1), at(60));
    let syncing =
        State::Syncing { serving: serving(), attempt: attempt(), new: new.clone(), left: 5, deadline };
    assert_eq!(discarded(syncing), Some((vec![1], vec![2])));
    assert_eq!(discarded(probation()), Some((vec![1, 2], vec![2])));
    assert_eq!(discarded(handed_back()), Some((vec![1, 2], vec![2])));
    let committing = |step| State::Committing {
        old: Old::Warm(worker(1, 0), at(0)),
        new: new.clone(),
        attempt: attempt(),
        terms: TERMS,
        gap_us: None,
        step,
        deadline,
        heard: at(0),
    };
    assert_eq!(discarded(committing(Commit::Retiring)), Some((vec![1, 2], vec![2])));
    // The record that says which of the two is nobody's is being replaced.
    assert_eq!(discarded(committing(Commit::Recording)), None);
    assert_eq!(discarded(committing(Commit::Draining)), Some((vec![1, 2], vec![1])));
    assert_eq!(discarded(State::Steady(serving())), None);
}

#[test]
fn a_way_back_that_an_earlier_supervisor_ordered_is_carried_to_its_end() {
    let (state, effects) = step(probation(), Event::Said(2, Said::Resigned(900)), 1);
    assert!(matches!(
        state,
        State::Reversing { why: Return::Ends(Verdict::Unknown(_)), gap_us: Some(900), .. }
    ));
    assert!(matches!(effects.as_slice(), [Effect::Tell(2, Command::Drain { .. })]));
}

#[test]
fn a_restarted_supervisor_lets_the_one_that_yielded_for_good_drain_and_never_calls_that_a_commit() {
    for role in [Role::Frozen { term: 3, resume: 0 }, Role::Draining] {
        let found = Found {
            committed: Some((release(0), 1)),
            intent: Some(Intent { attempt: attempt(), generation: 2, old_generation: 1, terms: Some(TERMS) }),
            alive: vec![
                Survivor { worker: worker(1, 0), role: Role::Holding { term: 3 } },
                Survivor { worker: worker(2, 1), role },
            ],
        };
        let (state, effects) = recover(found, at(0), &rules());
        assert!(has(&effects, &Effect::Tell(2, Command::Drain { stagger_ms: 1000, deadline_ms: 30000 })));
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Kill(_))));
        let (state, _) = step(state, Event::Ended(2, Ending::Exited(0)), 1);
        let (_, effects) = step(state, Event::Said(1, Said::Persisted), 1);
        assert!(matches!(conclusion(&effects), Some(Verdict::Unknown(_))), "{effects:?}");
        assert!(has(&effects, &Effect::Discard { logs: vec![1, 2], generations: vec![2] }));
    }
}

// ----------------------------------------------------------------------------------------- rehearsal

fn rehearsed(rehearsal: Rehearsal) -> Attempt {
    Attempt { rehearsal, ..attempt() }
}

/// The cut to a candidate was ordered, in this part of a rehearsal.
fn cutting(rehearsal: Rehearsal) -> State {
    State::Cutting {
        old: worker(1, 0),
        new: worker(2, 1),
        attempt: rehearsed(rehearsal),
        terms: TERMS,
        baseline: judge::Baseline::default(),
        gap_us: None,
        deadline: at(6),
    }
}

/// Its first cut was made at second 0 and took this many microseconds.
fn first_cut(gap_us: u64) -> (State, Vec<Effect>) {
    let (state, _) = step(cutting(Rehearsal::Cut), Event::Said(2, Said::Took(2)), 0);
    step(state, Event::Said(1, Said::Resigned(gap_us)), 0)
}

/// The first cut was watched to its end, and the way back was ordered.
fn to_hand_back() -> State {
    let (state, _) = first_cut(700);
    let (state, effects) = step(heard(heard(state, 1, 4), 2, 4), Event::Tick, 5);
    assert_eq!(effects, [Effect::Tell(1, Command::Prepare { term: 3, reserve: None })]);
    let (state, effects) = step(state, Event::Said(1, Said::Prepared(3)), 5);
    assert_eq!(effects, [Effect::Tell(2, Command::Cut { term: 3, resume: 0, window_ms: 1000 })]);
    state
}

/// And went like this.
fn back_in_rehearsal(gap_us: u64, cut_off: Option<u64>) -> (State, Vec<Effect>) {
    let (state, effects) = step(to_hand_back(), Event::Said(2, Said::Resigned(gap_us)), 5);
    assert_eq!(effects, [Effect::Tell(2, Command::Drain { stagger_ms: 1000, deadline_ms: 30000 })]);
    let state = match cut_off {
        Some(cut_off) => step(state, Event::Said(2, Said::Drained(cut_off)), 6).0,
        None => state,
    };
    step(state, Event::Ended(2, Ending::Exited(0)), 6)
}

/// The verdict of an upgrade whose old worker holds again and only has to make its database durable.
fn verdict_after(state: State) -> Verdict {
    assert!(matches!(&state, State::RollingBack { step: Back::Persisting(_), .. }), "{state:?}");
    let (state, effects) = step(state, Event::Said(1, Said::Persisted), 7);
    assert!(matches!(&state, State::Steady(serving) if serving.worker.instance == 1));
    conclusion(&effects).cloned().unwrap()
}

fn is_bad(verdict: &Verdict, parts: [&str; 2]) {
    let Verdict::Bad(reason) = verdict else { panic!("{verdict:?}") };
    assert!(parts.iter().all(|part| reason.contains(part)), "{reason}");
}

#[test]
fn a_rehearsal_is_a_cut_a_way_back_and_a_cut_to_a_second_instance_and_then_an_ordinary_probation() {
    let (state, effects) = back_in_rehearsal(900, Some(0));
    let again = rehearsed(Rehearsal::Again);
    let gone = Effect::Tell(1, Command::PeerGone { tag: worker(2, 1).tag });
    let discard = Effect::Discard { logs: vec![1, 2], generations: vec![2] };
    let done = Effect::Rehearsed { attempt: rehearsed(Rehearsal::Back), cut_us: 700, back_us: Some(900) };
    let spawn = Effect::Spawn { release: release(1), generation: None, origin: Origin::Candidate, tag: 3 };
    assert_eq!(effects, [gone, discard, done, spawn]);
    assert!(matches!(&state, State::Starting { serving, attempt, new: None, .. }
        if serving.worker.instance == 1 && serving.term == 3 && *attempt == again));

    let (state, _) = step(cutting(Rehearsal::Again), Event::Said(1, Said::Resigned(800)), 20);
    let (state, effects) = step(state, Event::Said(2, Said::Took(2)), 20);
    assert_eq!(effects, []);
    assert!(matches!(&state, State::Probation { attempt, until, gap_us: Some(800), .. }
        if attempt.rehearsal == Rehearsal::Off && *until == at(80)));
}

#[test]
fn a_gap_above_the_limit_at_any_of_the_three_hand_overs_is_a_bump_and_no_connection_pays_for_it() {
    let prepare = Effect::Tell(1, Command::Prepare { term: 3, reserve: None });
    // At each cut, whether the yielder's word comes before or after the taker's.
    for (stage, part) in
        [(Rehearsal::Cut, "rehearsal 1 of 3: cut"), (Rehearsal::Again, "rehearsal 3 of 3: cut")]
    {
        for gap_first in [true, false] {
            let mut said = [(2, Said::Took(2)), (1, Said::Resigned(100_001))];
            if gap_first {
                said.reverse();
            }
            let mut last = (cutting(stage), vec![]);
            for (who, said) in said {
                last = step(last.0, Event::Said(who, said), 0);
            }
            let (state, effects) = last;
            assert_eq!(effects, std::slice::from_ref(&prepare), "handed back, not killed");
            let (state, _) = step(state, Event::Said(1, Said::Prepared(3)), 0);
            let (state, _) = step(state, Event::Said(2, Said::Resigned(500)), 0);
            let (state, _) = step(state, Event::Ended(2, Ending::Exited(0)), 1);
            is_bad(&verdict_after(state), [part, "100.001 ms, 100 are allowed"]);
        }
    }
    // On the way back.
    let (state, _) = back_in_rehearsal(250_000, Some(0));
    is_bad(&verdict_after(state), ["rehearsal 2 of 3: way back", "250 ms, 100 are allowed"]);
    // Exactly the limit is none, and outside of a rehearsal nothing is.
    assert!(matches!(first_cut(100_000).0, State::Probation { .. }));
    let (state, _) = step(cutting(Rehearsal::Off), Event::Said(1, Said::Resigned(9_000_000)), 0);
    assert!(matches!(step(state, Event::Said(2, Said::Took(2)), 0).0, State::Probation { .. }));
}

#[test]
fn a_connection_that_did_not_move_in_time_is_a_bump() {
    let (state, _) = back_in_rehearsal(900, Some(3));
    is_bad(&verdict_after(state), ["rehearsal 2 of 3: way back", "3 connections had not moved after 30 s"]);
}

#[test]
fn an_instance_that_ends_before_its_connections_have_moved_is_a_bump() {
    let (state, _) = back_in_rehearsal(900, None);
    is_bad(&verdict_after(state), ["rehearsal 2 of 3: way back", "before its connections had moved"]);
}

#[test]
fn a_single_failed_canary_request_is_a_bump_in_a_rehearsal_and_chance_on_probation() {
    let beat = || Event::Said(1, Said::Heartbeat(Heartbeat { canary_failed: 1, ..Heartbeat::default() }));
    let (state, effects) = step(probation(), beat(), 1);
    assert!(matches!((&state, effects.as_slice()), (State::Probation { .. }, [])));
    let (state, _) = step(first_cut(700).0, beat(), 1);
    let why = Return::Ends(Verdict::Bad("1 canary requests failed".into()));
    assert!(matches!(&state, State::Reversing { why: found, .. } if *found == why), "{state:?}");
    let (state, _) = step(to_hand_back(), beat(), 5);
    assert!(matches!(&state, State::Reversing { why: found, .. } if *found == why), "{state:?}");
}

#[test]
fn what_is_bad_on_probation_is_bad_in_a_rehearsal_and_says_in_which_part() {
    let bad_beat = Heartbeat { requests: 100, errors: 100, ..Heartbeat::default() };
    let (state, effects) = step(first_cut(700).0, Event::Said(2, Said::Heartbeat(bad_beat)), 1);
    assert_eq!(effects, [Effect::Kill(2)]);
    let (state, _) = step(state, Event::Ended(2, KILLED), 1);
    let (state, _) = step(state, Event::Said(1, Said::Resumed(3, 900)), 1);
    is_bad(&verdict_after(state), ["rehearsal 1 of 3: cut", "100 of 100 requests failed"]);

    let (state, _) = step(first_cut(700).0, Event::Ended(2, Ending::Exited(70)), 1);
    let (state, _) = step(state, Event::Said(1, Said::Resumed(3, 900)), 1);
    is_bad(&verdict_after(state), ["rehearsal 1 of 3: cut", "exited with status 70"]);

    let (state, _) = step(to_hand_back(), Event::Ended(2, Ending::Exited(70)), 5);
    let (state, _) = step(state, Event::Said(1, Said::Resumed(3, 900)), 5);
    is_bad(&verdict_after(state), ["rehearsal 2 of 3: way back", "exited with status 70"]);
}

#[test]
fn an_operator_can_take_a_rehearsal_back_in_each_of_its_parts() {
    let rollback = || Event::Asked(Ask::Rollback { uid: 7 });
    for state in [first_cut(700).0, to_hand_back()] {
        let (state, effects) = step(state, rollback(), 5);
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Kill(_))));
        let why = |state: &State| match state {
            State::Reversing { why, .. } => why.clone(),
            _ => panic!("{state:?}"),
        };
        assert!(matches!(why(&state), Return::Ends(Verdict::RolledBack(_))));
        // What comes later does not make it a bump.
        let (state, _) = step(state, Event::Said(1, Said::Prepared(3)), 5);
        let (state, _) = step(state, Event::Said(2, Said::Resigned(900_000)), 5);
        assert!(matches!(why(&state), Return::Ends(Verdict::RolledBack(_))));
    }
}

#[test]
fn if_the_old_worker_dies_in_a_rehearsal_the_new_one_serves_on_and_is_watched_in_earnest() {
    let (state, effects) = step(first_cut(700).0, Event::Ended(1, KILLED), 3);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Kill(_))));
    assert!(matches!(&state, State::Probation { attempt, until, old: Old::Gone(_), .. }
        if attempt.rehearsal == Rehearsal::Off && *until == at(63)));
}

#[test]
fn a_supervisor_that_starts_in_a_rehearsal_hands_back_what_it_did_not_measure_without_a_verdict() {
    let found = Found {
        committed: Some((release(0), 1)),
        intent: Some(Intent {
            attempt: rehearsed(Rehearsal::Cut),
            generation: 2,
            old_generation: 1,
            terms: Some(TERMS),
        }),
        alive: vec![
            Survivor { worker: worker(1, 0), role: Role::Frozen { term: 2, resume: 3 } },
            Survivor { worker: worker(2, 1), role: Role::Holding { term: 2 } },
        ],
    };
    let (state, effects) = recover(found, at(0), &rules());
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Kill(_))));
    let (state, effects) = step(heard(heard(state, 1, 4), 2, 4), Event::Tick, 5);
    assert_eq!(effects, [Effect::Tell(1, Command::Prepare { term: 3, reserve: None })]);
    assert!(matches!(state, State::Reversing { why: Return::Ends(Verdict::Unknown(_)), .. }));
}

// ------------------------------------------------------------------------------- a world with faults

/// A worker as the world knows it.
#[derive(Clone, Debug)]
struct Sim {
    worker: Worker,
    role: SimRole,
    hung: bool,
    prepared: Option<u64>,
    peer: Option<Instance>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum SimRole {
    Idle,
    Holding(u64),
    /// It yielded to this term; this one is reserved for it.
    Frozen(u64, u64),
    Retired(u64),
    Draining,
}

/// How often chance got so far.
#[derive(Clone, Copy, Debug, Default)]
struct Reached {
    /// Upgrades that were good.
    committed: u32,
    /// Workers that yielded for good and were sent away.
    sent_away: u32,
    /// Rehearsals of which two hand-overs went without a bump.
    rehearsed: u32,
    /// Rehearsals that failed in their first, second, third part.
    bumped: [u32; 3],
}

/// Everything outside the pure function, with faults drawn from a seed.
struct World {
    seed: u64,
    faults: bool,
    /// So many times rarer than usual are its faults: a long way is not gone among too many.
    rarity: u64,
    living: BTreeMap<Instance, Sim>,
    committed: Option<(Release, u64, u64)>,
    intent: Option<Intent>,
    attempt: Option<Attempt>,
    next_instance: Instance,
    next_term: u64,
    reached: Reached,
    /// Rehearsals that had been passed when this upgrade began.
    rehearsed_before: u32,
    /// Cuts that wait for their moment.
    later: BTreeMap<Instance, (u64, u64)>,
    queues: BTreeMap<Instance, VecDeque<Event>>,
    own: VecDeque<Event>,
    trace: Vec<String>,
}

impl World {
    fn draw(&mut self, below: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed % below
    }

    fn fails(&mut self, one_in: u64) -> bool {
        self.faults && self.draw(one_in * self.rarity) == 0
    }

    fn say(&mut self, from: Instance, said: Said) {
        if self.living.get(&from).is_some_and(|sim| !sim.hung) {
            self.queues.entry(from).or_default().push_back(Event::Said(from, said));
        }
    }

    fn die(&mut self, who: Instance, how: Ending) {
        if self.living.remove(&who).is_some() {
            self.queues.entry(who).or_default().push_back(Event::Ended(who, how));
        }
    }

    fn holders(&self) -> Vec<Instance> {
        let holds = |sim: &&Sim| matches!(sim.role, SimRole::Holding(_));
        self.living.values().filter(holds).map(|sim| sim.worker.instance).collect()
    }

    fn hold(&mut self, who: Instance, term: u64) {
        if let Some(sim) = self.living.get_mut(&who) {
            sim.role = SimRole::Holding(term);
        }
        assert!(self.holders().len() <= 1, "two holders: {:?}\n{}", self.holders(), self.trace.join("\n"));
    }

    fn perform(&mut self, effect: Effect) {
        self.trace.push(format!("{effect:?}"));
        match effect {
            Effect::Fetch(_) => self.own.push_back(Event::Acquired(Acquired::Fetched)),
            Effect::Install(_) => self.own.push_back(Event::Acquired(Acquired::Installed)),
            Effect::Spawn { release, generation, tag, .. } => {
                self.next_instance += 1;
                let instance = self.next_instance;
                if let (None, Some(mut attempt)) = (generation, self.attempt.clone()) {
                    if self.reached.rehearsed > self.rehearsed_before {
                        attempt.rehearsal = Rehearsal::Again;
                    }
                    let old_generation = self.committed.as_ref().map_or(0, |(_, generation, _)| *generation);
                    self.intent = Some(Intent { attempt, generation: instance, old_generation, terms: None });
                }
                let worker = Worker { instance, generation: generation.unwrap_or(instance), release, tag };
                if self.fails(20) {
                    let failed = Launched::Failed(Verdict::Unknown("no process".into()));
                    self.own.push_back(Event::Launched(failed));
                    return;
                }
                let sim = Sim {
                    worker: worker.clone(),
                    role: SimRole::Idle,
                    hung: false,
                    prepared: None,
                    peer: None,
                };
                self.living.insert(instance, sim);
                self.own.push_back(Event::Launched(Launched::Running(worker)));
                self.say(instance, Said::Greeting);
            }
            Effect::Start(worker, _) => self.say(worker.instance, Said::Ready(self.next_term)),
            Effect::Pair { serving, new } => {
                for (one, other) in [(&serving, &new), (&new, &serving)] {
                    if let Some(sim) = self.living.get_mut(&one.instance) {
                        sim.peer = Some(other.instance);
                    }
                }
                self.say(new.instance, Said::Left(10));
                self.say(new.instance, Said::Level);
            }
            Effect::Tell(who, command) => self.order(who, command),
            Effect::Kill(who) => self.die(who, KILLED),
            Effect::Reserve { .. } if self.fails(10) => {
                self.own.push_back(Event::Stored(Stored::NotReserved("full".into())));
            }
            Effect::Reserve { held: (_, held), .. } => {
                let terms = Terms { held, take: self.next_term + 1, resume: self.next_term + 2 };
                self.next_term += 2;
                if let Some(intent) = &mut self.intent {
                    intent.terms = Some(terms);
                }
                self.own.push_back(Event::Stored(Stored::Reserved(terms)));
            }
            Effect::Record { .. } if self.fails(4) => {
                self.own.push_back(Event::Stored(Stored::NotRecorded("full".into())));
            }
            Effect::Record { release, generation, term } => {
                let term = match term {
                    RecordTerm::Held(term) => term,
                    RecordTerm::Above(_) => {
                        self.next_term += 1;
                        self.next_term
                    }
                };
                self.committed = Some((release, generation, term));
                self.own.push_back(Event::Stored(Stored::Recorded(term)));
            }
            Effect::Discard { generations, .. } => {
                let committed = self.committed.as_ref().map(|(_, generation, _)| *generation);
                assert!(
                    !generations.iter().any(|generation| Some(*generation) == committed),
                    "the committed generation is discarded\n{}",
                    self.trace.join("\n")
                );
            }
            Effect::Conclude { attempt, verdict, .. } => {
                let committed = self.committed.as_ref().is_some_and(|(release, ..)| *release == attempt.to);
                assert!(
                    verdict != Verdict::Good || committed,
                    "good, and not committed\n{}",
                    self.trace.join("\n")
                );
                match (verdict, attempt.rehearsal) {
                    (Verdict::Good, _) => self.reached.committed += 1,
                    (Verdict::Bad(_) | Verdict::Wrong(_), Rehearsal::Cut) => self.reached.bumped[0] += 1,
                    (Verdict::Bad(_) | Verdict::Wrong(_), Rehearsal::Back) => self.reached.bumped[1] += 1,
                    (Verdict::Bad(_) | Verdict::Wrong(_), Rehearsal::Again) => self.reached.bumped[2] += 1,
                    (Verdict::Bad(_) | Verdict::Wrong(_) | Verdict::Unknown(_), _) => {}
                    (Verdict::RolledBack(_) | Verdict::Withdrawn(_), _) => {}
                }
                self.attempt = None;
                self.intent = None;
            }
            Effect::Rehearsed { .. } => self.reached.rehearsed += 1,
            Effect::CancelAcquire | Effect::Alarm(_) => {}
        }
    }

    fn order(&mut self, who: Instance, command: Command) {
        let Some(sim) = self.living.get(&who).cloned() else { return };
        if sim.hung {
            return;
        }
        match command {
            Command::Go { term } if sim.role == SimRole::Idle && sim.peer.is_none() => {
                // A candidate is told to go before it is paired; only the committed pair takes authority.
                let committed = self
                    .committed
                    .as_ref()
                    .is_some_and(|(_, generation, _)| *generation == sim.worker.generation);
                if committed {
                    self.hold(who, term);
                    self.say(who, Said::Going);
                }
            }
            Command::Mark { id } if matches!(sim.role, SimRole::Holding(_)) => {
                self.say(who, Said::Hash(id, Digest([7; 32])));
                if let Some(peer) = sim.peer {
                    self.say(peer, Said::Hash(id, Digest([7; 32])));
                }
            }
            Command::Prepare { term, .. } => {
                if let Some(sim) = self.living.get_mut(&who) {
                    sim.prepared = Some(term);
                }
                self.say(who, Said::Prepared(term));
            }
            // Sometimes the moment takes long to come.
            Command::Cut { term, resume, .. } if self.fails(3) => {
                self.later.insert(who, (term, resume));
            }
            Command::Cut { term, resume, .. } => self.cut(&sim, term, resume),
            Command::Resume { term } => match sim.role {
                SimRole::Frozen(..) | SimRole::Retired(_) | SimRole::Holding(_) => {
                    let peer_lives = sim.peer.is_some_and(|peer| self.living.contains_key(&peer));
                    // One that took back holds already, and only says so.
                    let holds = sim.role == SimRole::Holding(term);
                    assert!(holds || !peer_lives, "resumed beside a living peer\n{}", self.trace.join("\n"));
                    self.later.remove(&who);
                    self.hold(who, term);
                    self.say(who, Said::Resumed(term, 900));
                }
                SimRole::Idle | SimRole::Draining => {
                    self.say(who, Said::Refused("Resume".into(), "idle".into()))
                }
            },
            Command::PeerGone { tag } => {
                let lives = self.living.values().any(|sim| sim.worker.tag == tag);
                assert!(!lives, "a living worker's connections are reset\n{}", self.trace.join("\n"));
                if let Some(sim) = self.living.get_mut(&who) {
                    sim.peer = None;
                }
            }
            Command::Persist => self.say(who, Said::Persisted),
            Command::Retire { term } => {
                if let Some(sim) = self.living.get_mut(&who) {
                    assert!(
                        matches!(sim.role, SimRole::Frozen(..) | SimRole::Retired(_)),
                        "a holder was told to retire"
                    );
                    sim.role = SimRole::Retired(term);
                }
                self.say(who, Said::Retired(term));
            }
            Command::Commit { term } => self.say(who, Said::Sealed(term)),
            Command::Drain { .. } => {
                if let Some(sim) = self.living.get_mut(&who) {
                    assert!(
                        matches!(sim.role, SimRole::Retired(_) | SimRole::Frozen(_, 0) | SimRole::Draining),
                        "one that may have to hold is sent away\n{}",
                        self.trace.join("\n")
                    );
                    if let SimRole::Frozen(..) = sim.role {
                        self.reached.sent_away += 1;
                    }
                    sim.role = SimRole::Draining;
                }
                let cut_off = u64::from(self.fails(6));
                self.say(who, Said::Drained(cut_off));
                // Sometimes it takes so long that something happens meanwhile.
                if !self.fails(3) {
                    self.die(who, Ending::Exited(0));
                }
            }
            Command::Stop { .. } => self.die(who, Ending::Exited(0)),
            Command::Mark { .. } => self.say(who, Said::Refused("Mark".into(), "it does not hold".into())),
            Command::Go { .. } | Command::Start(_) | Command::Pair { .. } | Command::Remove { .. } => {}
        }
    }

    /// The moment of a cut that waits for it has come, whoever supervises by now.
    fn moment(&mut self) {
        let Some((who, (term, resume))) = self.later.pop_first() else { return };
        let Some(sim) = self.living.get(&who).cloned() else { return };
        let peer_lives = sim.peer.is_some_and(|peer| self.living.contains_key(&peer));
        if sim.hung || !peer_lives || !matches!(sim.role, SimRole::Holding(held) if held < term) {
            return;
        }
        self.trace.push(format!("worker {who} cuts now, to term {term}"));
        self.cut(&sim, term, resume);
    }

    /// The freeze, and then the taker's half, unless a fault comes between.
    fn cut(&mut self, old: &Sim, term: u64, resume: u64) {
        let (id, peer) = (old.worker.instance, old.peer);
        if self.fails(8) {
            return self.say(id, Said::Refused("Cut".into(), "the link is closed".into()));
        }
        if let Some(sim) = self.living.get_mut(&id) {
            sim.role = SimRole::Frozen(term, resume);
        }
        self.say(id, Said::Yielded(term));
        if self.fails(6) {
            return self.die(id, KILLED);
        }
        let Some(taker) = peer.and_then(|peer| self.living.get(&peer)).cloned() else { return };
        if taker.hung || taker.prepared != Some(term) {
            return;
        }
        self.hold(taker.worker.instance, term);
        self.say(taker.worker.instance, Said::Took(term));
        let gap_us = if self.fails(8) { 800_000 } else { 800 };
        self.say(id, Said::Resigned(gap_us));
    }

    /// The supervisor is killed and started again. Whoever hangs is fenced, a candidate goes with its
    /// control channel, and a frozen worker whose peer is dead may have resumed meanwhile.
    fn restart(&mut self, now: u64) -> (State, Vec<Effect>) {
        self.trace.push("the supervisor is killed and started again".into());
        self.own.clear();
        self.queues.clear();
        let gone = |sim: &Sim| sim.hung || sim.role == SimRole::Idle;
        let dying: Vec<Instance> =
            self.living.values().filter(|sim| gone(sim)).map(|sim| sim.worker.instance).collect();
        for who in dying {
            self.living.remove(&who);
        }
        for who in self.living.keys().copied().collect::<Vec<_>>() {
            let sim = &self.living[&who];
            let alone = !sim.peer.is_some_and(|peer| self.living.contains_key(&peer));
            if let (SimRole::Frozen(_, resume), true) = (sim.role, alone)
                && resume != 0
                && self.draw(2) == 0
            {
                self.hold(who, resume);
            }
        }
        self.queues.clear();
        let role = |role| match role {
            SimRole::Holding(term) => Role::Holding { term },
            SimRole::Frozen(term, resume) => Role::Frozen { term, resume },
            SimRole::Retired(term) => Role::Retired { term },
            SimRole::Draining | SimRole::Idle => Role::Draining,
        };
        let alive: Vec<Survivor> = self
            .living
            .values()
            .map(|sim| Survivor { worker: sim.worker.clone(), role: role(sim.role) })
            .collect();
        let committed =
            self.committed.as_ref().map(|(release, generation, _)| (release.clone(), *generation));
        let found = Found { committed, intent: self.intent.clone(), alive };
        self.trace.push(format!("{found:?}"));
        recover(found, at(now), &rules())
    }

    /// The next event: from a random worker's queue, our own, or time.
    fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.own.pop_front() {
            return Some(event);
        }
        let waiting: Vec<Instance> =
            self.queues.iter().filter(|(_, queue)| !queue.is_empty()).map(|(id, _)| *id).collect();
        if waiting.is_empty() {
            return None;
        }
        let index = self.draw(waiting.len() as u64) as usize;
        self.queues.get_mut(&waiting[index]).and_then(VecDeque::pop_front)
    }

    fn fault(&mut self) {
        let ids: Vec<Instance> = self.living.keys().copied().collect();
        if ids.is_empty() || !self.fails(12) {
            return;
        }
        let who = ids[self.draw(ids.len() as u64) as usize];
        match self.draw(3) {
            0 => self.die(who, Ending::Signaled(11)),
            1 => {
                if let Some(sim) = self.living.get_mut(&who) {
                    sim.hung = true;
                }
            }
            _ => self.queues.entry(who).or_default().push_back(Event::Closed(who)),
        }
    }
}

/// One life: upgrades (in half of the lives rehearsed), rollbacks and faults for a while, then quiet.
/// Returns whether it ended Steady, and how far it got.
fn live(seed: u64) -> (bool, Reached, Vec<String>) {
    let mut world = World {
        seed: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
        faults: true,
        rarity: if seed.is_multiple_of(4) { 4 } else { 1 },
        living: BTreeMap::new(),
        committed: None,
        intent: None,
        attempt: None,
        next_instance: 0,
        next_term: 0,
        reached: Reached::default(),
        rehearsed_before: 0,
        later: BTreeMap::new(),
        queues: BTreeMap::new(),
        own: VecDeque::new(),
        trace: vec![format!("seed {seed}")],
    };
    let rules = rules();
    let mut state = State::Vacant;
    let mut now = 0;
    let mut number = 0;
    for round in 0..600 {
        world.faults = round < 400;
        if world.fails(60) {
            let (next, effects) = world.restart(now);
            state = next;
            effects.into_iter().for_each(|effect| world.perform(effect));
        }
        let event = match world.draw(10) {
            0 if matches!(state, State::Steady(_) | State::Vacant) && round < 500 => {
                number += 1;
                let from = world.committed.as_ref().map(|(release, ..)| release.clone());
                let rehearsal = if seed.is_multiple_of(2) { Rehearsal::Cut } else { Rehearsal::Off };
                world.rehearsed_before = world.reached.rehearsed;
                let attempt = Attempt { from, to: release(number), by: None, rehearsal };
                world.attempt = Some(attempt.clone());
                let installed = world.draw(2) == 0;
                Event::Asked(Ask::Upgrade { attempt, installed })
            }
            1 if world.faults && world.draw(6) == 0 => Event::Asked(Ask::Rollback { uid: 0 }),
            _ => match world.next() {
                Some(event) => event,
                None => {
                    // Nothing is waiting: whoever lives and does not hang is heard, then time passes.
                    now += 3;
                    let well: Vec<Instance> =
                        world.living.iter().filter(|(_, sim)| !sim.hung).map(|(id, _)| *id).collect();
                    for who in well {
                        let beat = Event::Said(who, Said::Heartbeat(Heartbeat::default()));
                        let (next, effects) = state.step(beat, at(now), &rules);
                        state = next;
                        effects.into_iter().for_each(|effect| world.perform(effect));
                    }
                    world.fault();
                    Event::Tick
                }
            },
        };
        world.trace.push(format!("{now}: {event:?}"));
        let (next, effects) = state.step(event, at(now), &rules);
        state = next;
        effects.into_iter().for_each(|effect| world.perform(effect));
        if world.draw(4) == 0 {
            world.moment();
        }
        world.fault();
    }
    let steady = match &state {
        State::Steady(serving) => world.holders() == [serving.worker.instance] && world.living.len() == 1,
        State::Vacant => world.living.is_empty(),
        _ => false,
    };
    world.trace.push(format!("{state:?}"));
    (steady, world.reached, world.trace)
}

#[test]
fn whatever_dies_hangs_fills_up_or_restarts_there_is_never_a_second_holder_and_it_ends_steady() {
    let mut all = Reached::default();
    for seed in 0..3000 {
        let (steady, reached, trace) = live(seed);
        assert!(steady, "did not end steady\n{}", trace.join("\n"));
        all.committed += reached.committed;
        all.sent_away += reached.sent_away;
        all.rehearsed += reached.rehearsed;
        for (all, reached) in all.bumped.iter_mut().zip(reached.bumped) {
            *all += reached;
        }
    }
    let [cut, back, again] = all.bumped;
    let least = [all.committed, all.sent_away, all.rehearsed, cut, back, again].into_iter().min();
    assert!(least > Some(100), "chance did not get far: {all:?}");
}

#[test]
fn a_deadline_that_has_passed_is_followed_by_a_later_one() {
    // Otherwise the supervisor would spin.
    let waiting = |step| State::Cold {
        pair: super::state::Pair::Committed(release(0), 1),
        step,
        deadline: at(1),
        tries: 0,
    };
    let cold = [
        super::state::Cold::Spawning,
        super::state::Cold::Opening(worker(1, 0)),
        super::state::Cold::Recording(worker(1, 0), None),
        super::state::Cold::Going(worker(1, 0), 1),
        super::state::Cold::Failing(worker(1, 0), "why".into()),
        super::state::Cold::Waiting("why".into()),
    ];
    let commits =
        [Commit::Persisting(1), Commit::Retiring, Commit::Recording, Commit::Sealing, Commit::Draining].map(
            |step| State::Committing {
                old: Old::Warm(worker(1, 0), at(0)),
                new: worker(2, 1),
                attempt: attempt(),
                terms: TERMS,
                gap_us: None,
                step,
                deadline: at(1),
                heard: at(99),
            },
        );
    let back = heard(handed_back(), 1, 99);
    for state in cold.map(waiting).into_iter().chain(commits).chain([probation(), back]) {
        let text = format!("{state:?}");
        let (state, _) = step(state, Event::Tick, 100);
        assert!(state.next_tick(&rules()).is_none_or(|next| next > at(100)), "{text}");
    }
}

/// It holds by an order alone from then on, which a supervisor that dies after the kill of the new one never gives.
#[test]
fn no_operator_takes_back_an_upgrade_whose_old_worker_was_told_to_retire() {
    for step in [Commit::Retiring, Commit::Recording, Commit::Sealing, Commit::Draining] {
        assert!(committing(step.clone()).is_ending(), "{step:?}");
    }
    assert!(!committing(Commit::Persisting(1)).is_ending());
    assert!(!probation().is_ending());
}

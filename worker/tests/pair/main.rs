//! Two real worker processes, a stand-in for their supervisor, and clients that never pause.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod load;
mod supervisor;
mod versions;

use bumpless_os::channel::Listener;
use bumpless_shared::control::{Command, Origin, Report, Role, Suspicion, Trouble};
use bumpless_worker::faults::{AfterCut, Answers, AtStart, Faults, InSync};
use bumpless_worker::stamp::Stamp;
use bumpless_worker::state::Layout;
use load::{Load, check, store};
use supervisor::{Node, Supervisor, release};

fn old_release() -> Stamp {
    release("1.0.0", Layout::ByName, Faults::default())
}

fn new_release() -> Stamp {
    release("1.1.0", Layout::ByKind, Faults::default())
}

fn faulty(faults: Faults) -> Stamp {
    release("1.2.0", Layout::ByKind, faults)
}

/// A node with data, load on a connection of its own, and a candidate that is on probation with term 2.
async fn on_probation(
    stamp: &Stamp,
) -> (Supervisor, Node, Node, Load, Vec<(u64, bumpless_shared::digest::Digest)>) {
    let mut supervisor = Supervisor::new();
    let mut old = supervisor.genesis(&old_release()).await;
    let client = supervisor.client().await;
    let stored = store(&client, 0..60).await;
    let mut load = Load::start(client.fresh(), 1_000_000);
    load.went_on(5).await;
    let mut new = supervisor.pair(&mut old, stamp, 2, 2, 1).await;
    supervisor.level(&mut old, &mut new).await;
    supervisor.cut(&mut old, &mut new, 2, 3).await;
    (supervisor, old, new, load, stored)
}

async fn nothing_lost(
    supervisor: &Supervisor,
    mut stored: Vec<(u64, bumpless_shared::digest::Digest)>,
    load: Load,
) {
    let client = load.client.clone();
    stored.extend(load.stop().await);
    check(&supervisor.client().await, &stored).await;
    check(&client, &stored).await;
    assert_eq!(client.counters().failed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_committed_upgrade_loses_nothing_and_drops_no_connection() {
    let (mut supervisor, mut old, mut new, mut load, stored) = on_probation(&new_release()).await;
    load.went_on(20).await;
    let fresh = supervisor.client().await;
    assert_eq!(fresh.ping().await.unwrap().release, "1.1.0");
    assert_eq!(load.client.ping().await.unwrap().term, 2, "an old connection is answered by the holder");
    supervisor.compare(&mut new, &mut old).await;
    supervisor.order(&new, Command::Persist).await;
    new.wait("Persisted", |report| matches!(report, Report::Persisted { .. }).then_some(())).await;
    supervisor.order(&new, Command::Retire { term: 2 }).await;
    new.wait("Refused", |report| matches!(report, Report::Refused { .. }).then_some(())).await;
    for _ in 0..2 {
        supervisor.order(&old, Command::Retire { term: 2 }).await;
        old.wait("Retired", |report| (*report == Report::Retired { term: 2 }).then_some(())).await;
    }
    supervisor.order(&new, Command::Commit { term: 2 }).await;
    new.wait("Committed", |report| (*report == Report::Committed { term: 2 }).then_some(())).await;
    load.went_on(5).await;
    supervisor.order(&old, Command::Drain { stagger_ms: 50, deadline_ms: 10_000 }).await;
    old.wait("Drained", |report| matches!(report, Report::Drained { cut_off: 0, .. }).then_some(())).await;
    assert!(old.ended().await.success());
    supervisor.order(&new, Command::PeerGone { tag: 1 }).await;
    supervisor.order(&new, Command::Remove { logs: vec![1, 2], generations: vec![1] }).await;
    new.wait("Removed", |report| matches!(report, Report::Removed { .. }).then_some(())).await;
    assert!(!supervisor.state().join("gen-1").exists());
    assert_eq!(std::fs::read_dir(supervisor.state().join("log")).unwrap().count(), 0);
    load.went_on(20).await;
    assert_eq!(load.client.counters().dropped, 0);
    assert!(load.client.counters().moved >= 1);
    assert!(!old.said(|report| matches!(report, Report::Suspect { .. } | Report::Trouble { .. })));
    nothing_lost(&supervisor, stored.clone(), load).await;

    // And from the files alone.
    supervisor.order(&new, Command::Stop { deadline_ms: 5_000 }).await;
    assert!(new.ended().await.success());
    let mut again = supervisor.start(&new_release(), Origin::Cold, 2, 3).await;
    supervisor.go(&mut again, 3).await;
    check(&supervisor.client().await, &stored).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_worker_that_is_killed_costs_its_own_connections_and_no_write() {
    let (mut supervisor, mut old, mut new, mut load, stored) = on_probation(&new_release()).await;
    let mut young = Load::start(supervisor.client().await, 2_000_000);
    young.went_on(20).await;
    load.went_on(5).await;
    new.kill().await;
    supervisor.order(&old, Command::Resume { term: 3 }).await;
    for _ in 0..2 {
        let resumed = |report: &Report| match report {
            Report::Resumed { term: 3, gap_us, .. } => Some(*gap_us),
            _ => None,
        };
        let gap = old.wait("Resumed", resumed).await;
        eprintln!("resumed after {gap} µs");
        supervisor.order(&old, Command::Resume { term: 3 }).await;
    }
    load.went_on(20).await;
    young.went_on(20).await;
    assert_eq!(young.client.counters().dropped, 1);
    assert_eq!(load.client.ping().await.unwrap().term, 3);
    supervisor.order(&old, Command::Persist).await;
    old.wait("Persisted", |report| matches!(report, Report::Persisted { .. }).then_some(())).await;
    supervisor.order(&old, Command::Remove { logs: vec![1, 2], generations: vec![2] }).await;
    old.wait("Removed", |report| matches!(report, Report::Removed { .. }).then_some(())).await;
    let mut all = stored;
    all.extend(young.stop().await);
    assert_eq!(load.client.counters().dropped, 0);

    // The next upgrade works, in the slot that was left.
    let mut next = supervisor.pair(&mut old, &new_release(), 3, 2, 3).await;
    supervisor.level(&mut old, &mut next).await;
    supervisor.cut(&mut old, &mut next, 4, 5).await;
    load.went_on(5).await;
    nothing_lost(&supervisor, all, load).await;
}

/// Loads on connections that were made since the cut.
async fn young_loads<const N: usize>(supervisor: &Supervisor) -> [Load; N] {
    let mut loads = Vec::new();
    for number in 0..N as u64 {
        loads.push(Load::start(supervisor.client().await, 2_000_000 + number * 100_000));
    }
    for load in &mut loads {
        load.went_on(5).await;
    }
    loads.try_into().unwrap_or_else(|_| unreachable!("as many as were made"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_way_back_is_a_cut_and_loses_and_drops_nothing() {
    let (mut supervisor, mut old, mut new, mut load, stored) = on_probation(&new_release()).await;
    let mut young = young_loads::<6>(&supervisor).await;
    load.went_on(5).await;
    supervisor.cut(&mut new, &mut old, 3, 0).await;
    load.went_on(5).await;
    // Made since the cut, answered by the old worker over the new one, which never holds again.
    for young in &mut young {
        young.went_on(5).await;
        assert_eq!(young.client.ping().await.unwrap().term, 3);
    }
    assert_eq!(supervisor.client().await.ping().await.unwrap().release, "1.0.0");
    supervisor.order(&new, Command::Resume { term: 4 }).await;
    new.wait("Refused", |report| matches!(report, Report::Refused { .. }).then_some(())).await;
    supervisor.order(&new, Command::Drain { stagger_ms: 300, deadline_ms: 10_000 }).await;
    for young in &mut young {
        young.went_on(5).await;
    }
    new.wait("Drained", |report| matches!(report, Report::Drained { cut_off: 0, .. }).then_some(())).await;
    assert!(new.ended().await.success());
    supervisor.order(&old, Command::PeerGone { tag: 2 }).await;
    let mut all = stored;
    for mut young in young {
        young.went_on(5).await;
        let counters = young.client.counters();
        assert!(counters.dropped == 0 && counters.failed == 0 && counters.moved >= 1, "{counters:?}");
        all.extend(young.stop().await);
    }
    assert_eq!(load.client.counters().dropped, 0);
    assert!(!new.said(|report| matches!(report, Report::Suspect { .. } | Report::Trouble { .. })));
    supervisor.order(&old, Command::Persist).await;
    old.wait("Persisted", |report| matches!(report, Report::Persisted { .. }).then_some(())).await;
    supervisor.order(&old, Command::Remove { logs: vec![1, 2], generations: vec![2] }).await;
    old.wait("Removed", |report| matches!(report, Report::Removed { .. }).then_some(())).await;

    // The next upgrade works.
    let mut next = supervisor.pair(&mut old, &new_release(), 3, 2, 3).await;
    supervisor.level(&mut old, &mut next).await;
    supervisor.cut(&mut old, &mut next, 4, 5).await;
    load.went_on(5).await;
    nothing_lost(&supervisor, all, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_request_that_is_under_way_on_the_way_back_has_not_failed() {
    let mut supervisor = Supervisor::new();
    // So often that one always is.
    supervisor.timing.canary_ms = 1;
    let mut old = supervisor.genesis(&old_release()).await;
    let stored = store(&supervisor.client().await, 0..20).await;
    let mut load = Load::start(supervisor.client().await, 1_000_000);
    let mut new = supervisor.pair(&mut old, &new_release(), 2, 2, 1).await;
    supervisor.level(&mut old, &mut new).await;
    supervisor.cut(&mut old, &mut new, 2, 3).await;
    load.went_on(20).await;
    supervisor.cut(&mut new, &mut old, 3, 0).await;
    for _ in 0..3 {
        let canaries = |report: &Report| match report {
            Report::Heartbeat(beat) => Some((beat.canary_failed, beat.canary_ok)),
            _ => None,
        };
        let (failed, right) = old.wait("Heartbeat", canaries).await;
        assert_eq!(failed, 0, "of {}", failed + right);
    }
    nothing_lost(&supervisor, stored, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_way_back_the_death_of_the_one_that_drains_costs_its_connections_and_no_write() {
    let (supervisor, mut old, mut new, mut load, stored) = on_probation(&new_release()).await;
    let [mut young] = young_loads(&supervisor).await;
    supervisor.cut(&mut new, &mut old, 3, 0).await;
    // Nobody is told to go before it dies.
    supervisor.order(&new, Command::Drain { stagger_ms: 600_000, deadline_ms: 600_000 }).await;
    young.went_on(5).await;
    new.kill().await;
    supervisor.order(&old, Command::PeerGone { tag: 2 }).await;
    young.went_on(20).await;
    load.went_on(5).await;
    assert_eq!((load.client.counters().dropped, young.client.counters().dropped), (0, 1));
    assert_eq!(young.client.ping().await.unwrap().term, 3);
    let mut all = stored;
    all.extend(young.stop().await);
    nothing_lost(&supervisor, all, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_way_back_the_death_of_the_holder_loses_no_write() {
    let (mut supervisor, mut old, mut new, load, mut stored) = on_probation(&new_release()).await;
    let [mut young] = young_loads(&supervisor).await;
    supervisor.cut(&mut new, &mut old, 3, 0).await;
    supervisor.order(&new, Command::Drain { stagger_ms: 600_000, deadline_ms: 600_000 }).await;
    young.went_on(5).await;
    old.kill().await;
    supervisor.order(&new, Command::Resume { term: 4 }).await;
    new.wait("Refused", |report| matches!(report, Report::Refused { .. }).then_some(())).await;
    new.kill().await;
    // Both loads wait meanwhile: nobody is left who could acknowledge anything.
    let mut again = supervisor.start(&old_release(), Origin::Cold, 1, 3).await;
    supervisor.go(&mut again, 4).await;
    for tag in [1, 2] {
        supervisor.order(&again, Command::PeerGone { tag }).await;
    }
    young.went_on(5).await;
    stored.extend(young.stop().await);
    nothing_lost(&supervisor, stored, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_supervisor_the_old_worker_kills_a_hanging_new_one_and_resumes_alone() {
    let hangs = faulty(Faults { after_cut: Some(AfterCut::Hang(300)), ..Faults::default() });
    let (mut supervisor, mut old, mut new, mut load, stored) = on_probation(&hangs).await;
    old.abandon();
    new.abandon();
    assert!(!new.ended().await.success());
    load.went_on(5).await;
    let listener = Listener::bind(&supervisor.reconnect()).unwrap();
    let (identity, sockets) = old.take_back(&listener).await;
    assert_eq!((identity.role, identity.secret, sockets), (Role::Holding { term: 3 }, [1; 16], 4));
    supervisor.incarnation = 2;
    supervisor.order(&old, Command::Persist).await;
    supervisor.go(&mut old, 3).await;
    assert!(!old.said(|report| matches!(report, Report::Persisted { .. })), "an order before its Go");
    load.went_on(5).await;
    assert_eq!(load.client.counters().dropped, 0);
    nothing_lost(&supervisor, stored, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_supervisor_takes_both_back_in_probation_and_goes_on() {
    let (mut supervisor, mut old, mut new, mut load, stored) = on_probation(&new_release()).await;
    old.abandon();
    new.abandon();
    load.went_on(5).await;
    let listener = Listener::bind(&supervisor.reconnect()).unwrap();
    supervisor.incarnation = 2;
    let mut roles = Vec::new();
    // They come in any order; each is known by what it says of itself.
    let (first, _) = old.take_back(&listener).await;
    let (second, _) = new.take_back(&listener).await;
    if first.instance == new.instance {
        old.swap_channels(&mut new);
    }
    for identity in [first, second] {
        roles.push((identity.instance, identity.role, identity.peer));
    }
    roles.sort_by_key(|(instance, ..)| *instance);
    assert_eq!(
        roles,
        [(1, Role::Frozen { term: 2, resume: 3 }, Some(2)), (2, Role::Holding { term: 2 }, Some(1))]
    );
    supervisor.order(&old, Command::Go { term: 2 }).await;
    supervisor.go(&mut new, 2).await;
    supervisor.compare(&mut new, &mut old).await;
    nothing_lost(&supervisor, stored, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_worker_notices_wrong_answers_and_refusals_and_silence() {
    for (faults, expected) in [
        (Faults { answers: Some(Answers::Wrong), ..Faults::default() }, Suspicion::Wrong),
        (Faults { answers: Some(Answers::Refuse), ..Faults::default() }, Suspicion::Failing),
        (Faults { after_cut: Some(AfterCut::Hang(1)), ..Faults::default() }, Suspicion::Silent),
    ] {
        let (supervisor, mut old, mut new, mut load, stored) = on_probation(&faulty(faults)).await;
        let reason = old
            .wait("Suspect", |report| match report {
                Report::Suspect { kind, reason } if *kind == expected => Some(reason.clone()),
                _ => None,
            })
            .await;
        eprintln!("{expected:?}: {reason}");
        new.kill().await;
        supervisor.order(&old, Command::Resume { term: 3 }).await;
        old.wait("Resumed", |report| matches!(report, Report::Resumed { .. }).then_some(())).await;
        load.went_on(5).await;
        nothing_lost(&supervisor, stored, load).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_cut_a_candidate_that_dies_or_stalls_is_never_noticed() {
    let mut supervisor = Supervisor::new();
    let mut old = supervisor.genesis(&old_release()).await;
    let client = supervisor.client().await;
    let stored = store(&client, 0..40).await;
    let mut load = Load::start(client.fresh(), 1_000_000);
    let stalls = faulty(Faults { sync: Some(InSync::Stall), ..Faults::default() });
    let mut stalled = supervisor.pair(&mut old, &stalls, 2, 2, 1).await;
    for _ in 0..5 {
        let done = |report: &Report| match report {
            Report::Syncing { done, .. } => Some(*done),
            _ => None,
        };
        assert_eq!(stalled.wait("Syncing", done).await, 0);
    }
    load.went_on(5).await;
    stalled.kill().await;
    supervisor.order(&old, Command::PeerGone { tag: 2 }).await;

    let mut gone = supervisor.pair(&mut old, &new_release(), 3, 2, 1).await;
    supervisor.level(&mut old, &mut gone).await;
    gone.kill().await;
    supervisor.order(&old, Command::Cut { term: 2, resume: 3, window_ms: 1 }).await;
    old.wait("Refused", |report| matches!(report, Report::Refused { .. }).then_some(())).await;
    supervisor.order(&old, Command::PeerGone { tag: 2 }).await;
    load.went_on(5).await;

    let mut abandoned = supervisor.pair(&mut old, &new_release(), 4, 2, 1).await;
    supervisor.level(&mut old, &mut abandoned).await;
    abandoned.abandon();
    assert!(abandoned.ended().await.success(), "a candidate ends with its supervisor");

    let mut new = supervisor.pair(&mut old, &new_release(), 5, 3, 1).await;
    supervisor.level(&mut old, &mut new).await;
    supervisor.cut(&mut old, &mut new, 4, 5).await;
    assert_eq!(load.client.counters().dropped, 0);
    assert!(!old.said(|report| matches!(report, Report::Trouble { .. })));
    nothing_lost(&supervisor, stored, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_dies_some_time_after_the_cut_is_gone_and_nothing_with_it() {
    let dies = faulty(Faults { after_cut: Some(AfterCut::Die(200)), ..Faults::default() });
    let (supervisor, mut old, mut new, mut load, stored) = on_probation(&dies).await;
    assert_eq!(new.ended().await.code(), Some(70));
    assert!(new.output().contains("made to die"));
    supervisor.order(&old, Command::Resume { term: 3 }).await;
    old.wait("Resumed", |report| matches!(report, Report::Resumed { .. }).then_some(())).await;
    load.went_on(5).await;
    assert_eq!(load.client.counters().dropped, 0);
    nothing_lost(&supervisor, stored, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_hangs_instead_of_taking_over_is_suspected_and_requests_only_wait() {
    let mut supervisor = Supervisor::new();
    let mut old = supervisor.genesis(&old_release()).await;
    let client = supervisor.client().await;
    let stored = store(&client, 0..20).await;
    let mut load = Load::start(client.fresh(), 1_000_000);
    let mut new = supervisor.pair(&mut old, &new_release(), 2, 2, 1).await;
    supervisor.level(&mut old, &mut new).await;
    supervisor.order(&new, Command::Prepare { term: 2, reserve: Some(1 << 20) }).await;
    new.wait("Prepared", |report| matches!(report, Report::Prepared { .. }).then_some(())).await;
    new.process.signal(nix::sys::signal::Signal::SIGSTOP).unwrap();
    supervisor.order(&old, Command::Cut { term: 2, resume: 3, window_ms: 10 }).await;
    old.wait("Yielded", |report| matches!(report, Report::Yielded { .. }).then_some(())).await;
    let silent =
        |report: &Report| matches!(report, Report::Suspect { kind: Suspicion::Silent, .. }).then_some(());
    old.wait("Suspect", silent).await;
    // Ordered before the death is certain: it waits for it.
    supervisor.order(&old, Command::Resume { term: 3 }).await;
    old.wait("Suspect", silent).await;
    assert!(!old.said(|report| matches!(report, Report::Resumed { .. })));
    new.kill().await;
    old.wait("Resumed", |report| matches!(report, Report::Resumed { .. }).then_some(())).await;
    load.went_on(5).await;
    assert_eq!(load.client.counters().dropped, 0);
    nothing_lost(&supervisor, stored, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_is_told_to_resume_goes_on_under_the_new_term() {
    let mut supervisor = Supervisor::new();
    let mut old = supervisor.genesis(&old_release()).await;
    let client = supervisor.client().await;
    let mut load = Load::start(client.fresh(), 1_000_000);
    let mut new = supervisor.pair(&mut old, &new_release(), 2, 2, 1).await;
    supervisor.level(&mut old, &mut new).await;
    new.kill().await;
    supervisor.order(&old, Command::Resume { term: 3 }).await;
    old.wait("Resumed", |report| matches!(report, Report::Resumed { term: 3, .. }).then_some(())).await;
    supervisor.order(&old, Command::PeerGone { tag: 2 }).await;
    load.went_on(5).await;
    assert_eq!(client.ping().await.unwrap().term, 3);
    assert_eq!(std::fs::read_dir(supervisor.state().join("log")).unwrap().count(), 0);
    let mut new = supervisor.pair(&mut old, &new_release(), 3, 2, 3).await;
    supervisor.level(&mut old, &mut new).await;
    supervisor.cut(&mut old, &mut new, 4, 5).await;
    nothing_lost(&supervisor, Vec::new(), load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_starts_again_from_its_files_with_every_acknowledged_write() {
    let (mut supervisor, mut old, mut new, load, mut stored) = on_probation(&new_release()).await;
    let client = supervisor.client().await;
    stored.extend(store(&client, 500..520).await);
    drop(load);
    // Both die in probation: the committed pair is still the old one, and the logbook has the rest.
    new.kill().await;
    old.kill().await;
    let mut again = supervisor.start(&old_release(), Origin::Cold, 1, 1).await;
    supervisor.go(&mut again, 4).await;
    check(&supervisor.client().await, &stored).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_start_says_why_and_ends() {
    let mut supervisor = Supervisor::new();
    let mut node = supervisor.spawn(&old_release(), 1, 1).await;
    supervisor.begin(&mut node, &old_release(), Origin::Cold).await;
    let text = node
        .wait("Trouble", |report| match report {
            Report::Trouble { kind: Trouble::CannotStart, text } => Some(text.clone()),
            _ => None,
        })
        .await;
    assert!(text.contains("identity is missing"), "{text}");
    assert_eq!(node.ended().await.code(), Some(1));

    let dies = faulty(Faults { at_start: Some(AtStart::Die), ..Faults::default() });
    let program = supervisor.folder.path().join("dies");
    let base = std::path::Path::new(env!("CARGO_BIN_EXE_bumpless-node"));
    let _alone = supervisor::alone_with_programs();
    bumpless_worker::stamp::write(base, &program, &dies).unwrap();
    let described = std::process::Command::new(&program).arg("--describe").output().unwrap();
    let text = String::from_utf8(described.stdout).unwrap();
    assert!(text.starts_with(r#"{"release":"1.2.0","contract":{"min":1,"max":2}"#), "{text}");
    let alone = std::process::Command::new(&program).stdin(std::process::Stdio::null()).output().unwrap();
    assert_eq!(alone.status.code(), Some(2));
    assert!(String::from_utf8(alone.stderr).unwrap().contains("bumplessd"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_supervisor_is_gone_before_it_has_its_lock_makes_nothing() {
    let mut supervisor = Supervisor::new();
    let _old = supervisor.genesis(&old_release()).await;
    let mut new = supervisor.spawn(&new_release(), 2, 2).await;
    new.process.signal(nix::sys::signal::Signal::SIGSTOP).unwrap();
    supervisor.begin(&mut new, &new_release(), Origin::Candidate).await;
    new.abandon();
    new.process.signal(nix::sys::signal::Signal::SIGCONT).unwrap();
    assert!(!new.ended().await.success());
    assert!(new.output().contains("the supervisor that started it is gone"), "{}", new.output());
    assert!(!supervisor.state().join("gen-2").exists());
}

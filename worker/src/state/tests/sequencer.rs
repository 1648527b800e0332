use super::*;

#[tokio::test]
async fn a_put_is_found_and_a_second_one_of_the_same_content_makes_no_second_record() {
    let (_directory, state) = state();
    let sequencer = holder(&state, 1, Layout::ByName);
    sequencer.open_logbook(CURRENT).await.unwrap();
    let (short, long) = (content(1, 100), content(2, 9000));
    assert_eq!(sequencer.put(&short).await.unwrap(), Stored::New { sequence: 1 });
    assert_eq!(sequencer.put(&long).await.unwrap(), Stored::New { sequence: 2 });
    assert_eq!(sequencer.put(&short).await.unwrap(), Stored::Already);
    assert_eq!(sequencer.put(&long).await.unwrap(), Stored::Already);
    let both = tokio::join!(sequencer.put(&short), sequencer.put(&long));
    assert_eq!(both, (Ok(Stored::Already), Ok(Stored::Already)));
    let store = sequencer.store();
    assert_eq!(store.get(short.name()).unwrap().unwrap(), short.bytes());
    assert_eq!(store.get(long.name()).unwrap().unwrap(), long.bytes());
    let link = Operation::Link { name: long.name(), length: 9000 };
    assert_eq!(operations(&state, 1, 1), [(1, store_operation(&short)), (2, link)]);
    assert_eq!(
        store.totals(),
        Totals { records: 1, record_bytes: 100, chunks: 1, chunk_bytes: 9000, ..Totals::default() }
    );
}

#[tokio::test]
async fn puts_of_the_same_content_that_wait_together_are_one_record() {
    let (_directory, state) = state();
    let sequencer = holder(&state, 1, Layout::ByKind);
    let puts: Vec<_> = (0..300)
        .map(|number| {
            let sequencer = sequencer.clone();
            tokio::spawn(async move { sequencer.put(&content(number / 3, 50)).await.unwrap() })
        })
        .collect();
    for put in puts {
        put.await.unwrap();
    }
    assert_eq!(sequencer.store().position().sequence, 100);
    assert_eq!(sequencer.store().totals().records, 100);
}

/// What a task had acknowledged before it was refused, what was refused, and why.
type PutTask = tokio::task::JoinHandle<(Vec<(Arc<Content>, Sequence)>, Arc<Content>, PutRefused)>;

/// Many tasks that put new content until they are refused.
fn putting(sequencer: &Sequencer, tasks: u64) -> Vec<PutTask> {
    (0..tasks)
        .map(|task| {
            let sequencer = sequencer.clone();
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for number in 0.. {
                    let content = content(task << 32 | number, if number % 50 == 7 { 5000 } else { 64 });
                    match sequencer.put(&content).await {
                        Ok(Stored::New { sequence }) => acknowledged.push((content, sequence)),
                        Ok(Stored::Already) => panic!("nobody else puts this"),
                        Err(refused) => return (acknowledged, content, refused),
                    }
                }
                unreachable!()
            })
        })
        .collect()
}

async fn reaches(sequencer: &Sequencer, sequence: Sequence) {
    sequencer.status().wait_for(|status| status.position.sequence >= sequence).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_is_acknowledged_and_in_the_logbook_or_comes_back_as_if_it_had_not_happened() {
    let (_directory, state) = state();
    let sequencer = holder(&state, 1, Layout::ByName);
    let tasks = putting(&sequencer, 40);
    reaches(&sequencer, 500).await;
    // From the snapshot's position on everything is in the logbook.
    let opened = sequencer.open_logbook(CURRENT).await.unwrap();
    let begin = opened.snapshot.position().sequence;
    reaches(&sequencer, begin + 2000).await;
    let frozen = sequencer.freeze().await.unwrap();
    // The file is complete at this moment.
    let logged = operations(&state, 1, begin + 1);
    assert_eq!(logged.last().unwrap().0, frozen.sequence);
    assert_eq!(sequencer.freeze().await.unwrap(), frozen);
    assert_eq!(sequencer.status().borrow().role, Role::Frozen { term: 1, sequence: frozen.sequence });

    let mut seen = 0;
    for task in tasks {
        let (acknowledged, refused, why) = task.await.unwrap();
        assert_eq!(why, PutRefused::Frozen { term: 1 });
        assert!(!sequencer.store().contains(refused.name()).unwrap());
        for (content, sequence) in acknowledged {
            assert!(sequence <= frozen.sequence);
            if sequence > begin {
                let (logged, operation) = &logged[(sequence - begin - 1) as usize];
                let (Operation::Store { name, .. } | Operation::Link { name, .. }) = operation else {
                    panic!()
                };
                assert_eq!((*logged, *name), (sequence, content.name()));
                seen += 1;
            } else {
                assert!(opened.snapshot.entries().any(|entry| match entry.unwrap() {
                    Operation::Store { name, .. } | Operation::Link { name, .. } => name == content.name(),
                    Operation::Append { .. } | Operation::Mark { .. } => false,
                }));
            }
        }
    }
    assert_eq!(seen, frozen.sequence - begin);
}

#[tokio::test]
async fn orders_that_do_not_fit_the_role_change_nothing() {
    let (_directory, state) = state();
    let holding = holder(&state, 1, Layout::ByName);
    let wrong = |result: Result<(), OrderError>| assert!(matches!(result, Err(OrderError::WrongRole { .. })));
    let prepared = || Prepared::make(&state, 9, 1, 1, 4096, CURRENT).unwrap();
    wrong(holding.freeze().await.map(drop));
    wrong(holding.mark(1).await.map(drop));
    wrong(holding.follow(vec![]).await.map(drop));
    wrong(holding.resume(7).await.map(drop));
    wrong(holding.take(prepared(), 0).await.map(drop));
    state.remove_log(9).unwrap();
    holding.drop_logbook().await.unwrap();
    holding.end_logbook().await.unwrap();
    holding.resume(1).await.unwrap();
    holding.open_logbook(CURRENT).await.unwrap();
    wrong(holding.open_logbook(CURRENT).await.map(drop));
    wrong(holding.end_logbook().await.map(drop));
    assert!(holding.put(&content(1, 10)).await.is_ok());

    let writer = Writer::create(&state, 2, Layout::ByKind, OPTIONS).unwrap();
    let following = Sequencer::start(writer, Start::Following).unwrap().0;
    assert_eq!(following.put(&content(1, 10)).await, Err(PutRefused::NotHolder));
    wrong(following.freeze().await.map(drop));
    wrong(following.open_logbook(CURRENT).await.map(drop));
    wrong(following.end_logbook().await.map(drop));
    wrong(following.drop_logbook().await);
    assert!(matches!(following.take(prepared(), 5).await, Err(OrderError::NotThere { wanted: 5, .. })));
    assert!(matches!(following.resume(0).await, Err(OrderError::OldTerm { .. })));
    assert_eq!(following.status().borrow().role, Role::Following);
}

#[tokio::test]
async fn a_term_that_the_state_has_seen_never_begins_again() {
    let (_directory, state) = state();
    let sequencer = holder(&state, 1, Layout::ByName);
    sequencer.stop().await.unwrap();
    assert!(matches!(sequencer.persist().await, Err(OrderError::Stopped)));
    assert_eq!(sequencer.put(&content(1, 10)).await, Err(PutRefused::Stopped));
    drop(sequencer);
    let (writer, recovered) = recover(&state, 1, OPTIONS).unwrap();
    assert_eq!((recovered.highest_term, recovered.replayed), (1, 0));
    assert!(matches!(Sequencer::start(writer, Start::Holding { term: 1 }), Err(OrderError::OldTerm { .. })));
    let (writer, _) = recover(&state, 1, OPTIONS).unwrap();
    Sequencer::start(writer, Start::Holding { term: 2 }).unwrap();
}

#[tokio::test]
async fn an_expendable_logbook_that_fails_is_dropped_and_the_node_serves_on() {
    let (_directory, state) = state();
    let writer = Writer::create(&state, 1, Layout::ByName, OPTIONS).unwrap();
    let (sequencer, mut events) = Sequencer::start(writer, Start::Holding { term: 1 }).unwrap();
    sequencer.open_logbook(CURRENT).await.unwrap();
    // No further segment can be made.
    fs::remove_dir_all(state.log(1)).unwrap();
    let mut number = 0;
    while events.is_empty() {
        let puts: Vec<_> = (0..500)
            .map(|_| {
                number += 1;
                let (sequencer, content) = (sequencer.clone(), content(number, 4096));
                tokio::spawn(async move { sequencer.put(&content).await.unwrap() })
            })
            .collect();
        for put in puts {
            put.await.unwrap();
        }
        assert!(number < 10_000);
    }
    assert!(matches!(events.recv().await.unwrap(), Event::LogbookDropped { .. }));
    let role = sequencer.status().borrow().role;
    assert_eq!(role, Role::Holding { term: 1, logbook: Logbook::None });
    assert_eq!(sequencer.store().totals().records, number);
    // The next upgrade begins afresh.
    let opened = sequencer.open_logbook(CURRENT).await.unwrap();
    assert_eq!(opened.snapshot.position().sequence, number);
    sequencer.put(&content(1 << 50, 10)).await.unwrap();
    assert_eq!(operations(&state, 1, number + 1).len(), 1);
}

#[tokio::test]
async fn a_second_upgrade_in_the_same_term_finds_no_record_of_the_first() {
    let (_directory, state) = state();
    let sequencer = holder(&state, 1, Layout::ByName);
    for round in 0..3 {
        let opened = sequencer.open_logbook(CURRENT).await.unwrap();
        let begin = opened.snapshot.position().sequence;
        sequencer.put(&content(round, 10)).await.unwrap();
        assert_eq!(operations(&state, 1, begin + 1), [(begin + 1, store_operation(&content(round, 10)))]);
        sequencer.drop_logbook().await.unwrap();
        sequencer.put(&content(100 + round, 10)).await.unwrap();
    }
}

/// A holder of term 2 whose durable logbook has room for hardly anything.
async fn durable(state: &StateDir) -> (Sequencer, tokio::sync::mpsc::UnboundedReceiver<Event>) {
    let writer = Writer::create(state, 1, Layout::ByName, OPTIONS).unwrap();
    let (sequencer, events) = Sequencer::start(writer, Start::Following).unwrap();
    let prepared = Prepared::make(state, 2, 1, 1, 300, CURRENT).unwrap();
    assert_eq!(sequencer.take(prepared, 0).await.unwrap(), 1);
    (sequencer, events)
}

#[tokio::test]
async fn after_its_durable_logbook_failed_a_term_acknowledges_nothing_more() {
    let (_directory, state) = state();
    let (sequencer, mut events) = durable(&state).await;
    sequencer.put(&content(1, 64)).await.unwrap();
    let away = state.path().join("away");
    fs::rename(state.log(2), &away).unwrap();
    let lost = content(2, 200);
    assert!(matches!(sequencer.put(&lost).await, Err(PutRefused::Failed { .. })));
    assert!(matches!(events.recv().await.unwrap(), Event::LogbookFailed { .. }));
    fs::rename(&away, state.log(2)).unwrap();
    assert!(matches!(sequencer.put(&content(3, 10)).await, Err(PutRefused::Failed { .. })));
    assert!(!sequencer.store().contains(lost.name()).unwrap());
    assert!(matches!(sequencer.mark(1).await, Err(OrderError::WrongRole { .. })));
    // The way back is open: everything acknowledged is in the file.
    assert_eq!(sequencer.freeze().await.unwrap(), Frozen { term: 2, sequence: 1 });
    assert_eq!(operations(&state, 2, 1), [(1, store_operation(&content(1, 64)))]);
}

#[tokio::test]
async fn after_the_commit_the_database_takes_over_from_a_failed_logbook() {
    let (_directory, state) = state();
    let (sequencer, _events) = durable(&state).await;
    sequencer.put(&content(1, 64)).await.unwrap();
    fs::remove_dir_all(state.log(2)).unwrap();
    assert!(sequencer.put(&content(2, 200)).await.is_err());
    // The number of what failed is not used again.
    assert_eq!(sequencer.end_logbook().await.unwrap(), Position { term: 2, sequence: 2 });
    assert_eq!(sequencer.put(&content(2, 200)).await.unwrap(), Stored::New { sequence: 3 });
    let (_copy, killed) = image(&state);
    let (writer, recovered) = recover(&killed, 1, OPTIONS).unwrap();
    assert_eq!((recovered.position.sequence, recovered.damage), (3, vec![]));
    assert_eq!(writer.store().totals().records, 2);
}

#[tokio::test]
async fn without_room_a_put_is_refused_with_figures_and_reading_goes_on() {
    let (_directory, state) = state();
    let options = StoreOptions { keep_free: u64::MAX, ..OPTIONS };
    let writer = Writer::create(&state, 1, Layout::ByName, options).unwrap();
    let sequencer = Sequencer::start(writer, Start::Holding { term: 1 }).unwrap().0;
    for length in [10, 5000] {
        let refused = sequencer.put(&content(1, length)).await.unwrap_err();
        assert!(
            matches!(refused, PutRefused::NoRoom { needed, free } if needed >= 10 && free > 0),
            "{refused}"
        );
    }
    assert_eq!(sequencer.store().position().sequence, 0);
    assert_eq!(sequencer.store().get(content(1, 10).name()).unwrap(), None);
}

#[tokio::test]
async fn durability_os_skips_the_syncs_and_loses_nothing_to_a_kill() {
    let (_directory, state) = state();
    let options = StoreOptions { durability: Durability::Os, ..OPTIONS };
    let writer = Writer::create(&state, 1, Layout::ByKind, options).unwrap();
    let sequencer = Sequencer::start(writer, Start::Holding { term: 1 }).unwrap().0;
    for number in 0..100 {
        sequencer.put(&content(number, if number % 10 == 0 { 5000 } else { 50 })).await.unwrap();
    }
    let (_copy, killed) = image(&state);
    let (writer, recovered) = recover(&killed, 1, options).unwrap();
    assert_eq!((recovered.position.sequence, recovered.damage), (100, vec![]));
    assert_eq!(writer.snapshot().hash().unwrap(), hash(&sequencer).await);
}

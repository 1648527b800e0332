//! Golden lines: what is written here once is written and read like this for ever.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::dry_run::{Considered, DryRun, Hurdle, Obstacle, Stops};
use crate::history::{Entry, Event, Index, Source};
use crate::reply::{Answer, Checked, Listed, Move, Outcome, Progress, Reply};
use crate::request::{Access, Request};
use crate::schema::Schema;
use crate::status::*;
use crate::trust::{Kept, RootShown, Signers, Trust};

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn hash(byte: u8) -> String {
    Digest([byte; 32]).to_string()
}

fn from_folder(accept_stale: Option<String>) -> Request {
    let (folder, version) = ("/d".into(), None);
    Request::UpgradeFrom { folder, version, wait: true, rehearse: false, accept_stale }
}

#[test]
fn requests_are_written_and_read_like_this() {
    for (request, line) in [
        (Request::Status, r#"{"schema":1,"verb":"status"}"#),
        (Request::Check, r#"{"schema":1,"verb":"check"}"#),
        (
            Request::Upgrade { version: Some(version("1.1.0")), wait: true, rehearse: false },
            r#"{"schema":1,"verb":"upgrade","version":"1.1.0","wait":true}"#,
        ),
        (
            Request::Upgrade { version: None, wait: true, rehearse: true },
            r#"{"schema":1,"verb":"upgrade","version":null,"wait":true,"rehearse":true}"#,
        ),
        (
            Request::Upgrade { version: None, wait: false, rehearse: false },
            r#"{"schema":1,"verb":"upgrade","version":null,"wait":false}"#,
        ),
        (
            Request::DryRun { version: Some(version("1.1.0")), folder: None },
            r#"{"schema":1,"verb":"dry_run","version":"1.1.0"}"#,
        ),
        (Request::DryRun { version: None, folder: None }, r#"{"schema":1,"verb":"dry_run","version":null}"#),
        (
            Request::DryRun { version: None, folder: Some("/d".into()) },
            r#"{"schema":1,"verb":"dry_run","version":null,"folder":"/d"}"#,
        ),
        (Request::Rollback { wait: true }, r#"{"schema":1,"verb":"rollback","wait":true}"#),
        (Request::Hold { reason: "r\n".into() }, r#"{"schema":1,"verb":"hold","reason":"r\n"}"#),
        (Request::Unhold, r#"{"schema":1,"verb":"unhold"}"#),
        (Request::History { limit: 20 }, r#"{"schema":1,"verb":"history","limit":20}"#),
        (Request::Versions, r#"{"schema":1,"verb":"versions"}"#),
        (from_folder(None), r#"{"schema":1,"verb":"upgrade_from","folder":"/d","version":null,"wait":true}"#),
        (
            Request::UpgradeFrom {
                folder: "/d".into(),
                version: Some(version("1.1.0")),
                wait: false,
                rehearse: true,
                accept_stale: Some("why".into()),
            },
            r#"{"schema":1,"verb":"upgrade_from","folder":"/d","version":"1.1.0","wait":false,"rehearse":true,"accept_stale":"why"}"#,
        ),
        (Request::Trust, r#"{"schema":1,"verb":"trust"}"#),
        (Request::TrustReset { root: "/r".into() }, r#"{"schema":1,"verb":"trust_reset","root":"/r"}"#),
    ] {
        assert_eq!(request.line(), line);
        assert_eq!(Request::parse(line.as_bytes()).unwrap(), request);
        assert!(line.contains(&format!("\"{}\"", request.verb())));
    }
}

#[test]
fn a_request_that_is_not_wholly_understood_is_not_one() {
    for (line, wrong) in [
        ("", "EOF"),
        ("[]", "invalid type"),
        (r#"{"verb":"status"}"#, "invalid type: null"),
        (r#"{"schema":2,"verb":"status"}"#, "schema 2, this build speaks 1"),
        (r#"{"schema":1,"verb":"dance"}"#, "unknown variant `dance`"),
        (r#"{"schema":1,"verb":"upgrade","wait":true,"force":true}"#, "unknown field `force`"),
        (r#"{"schema":1,"verb":"upgrade","version":"../x","wait":true}"#, "not a release version"),
    ] {
        let text = Request::parse(line.as_bytes()).unwrap_err().to_string();
        assert!(text.contains(wrong) && text.ends_with("nothing was changed"), "{text}");
    }
}

#[test]
fn reading_is_for_everybody_and_changing_for_operators() {
    let dry_run = Request::DryRun { version: None, folder: None };
    for request in
        [Request::Status, Request::History { limit: 1 }, Request::Versions, Request::Trust, dry_run]
    {
        assert_eq!(request.access(), Access::Everybody);
    }
    for request in [
        Request::Check,
        Request::DryRun { version: None, folder: Some("/d".into()) },
        Request::Upgrade { version: None, wait: false, rehearse: false },
        Request::Rollback { wait: false },
        Request::Hold { reason: String::new() },
        Request::Unhold,
        from_folder(None),
    ] {
        assert_eq!(request.access(), Access::Operators);
    }
}

#[test]
fn what_weakens_or_replaces_trust_is_for_root_alone() {
    for request in [from_folder(Some("why".into())), Request::TrustReset { root: "/r".into() }] {
        assert_eq!(request.access(), Access::Root);
    }
}

#[test]
fn what_is_trusted_is_written_and_read_like_this() {
    let trust = Trust {
        network: Digest([1; 32]),
        channel: "stable".into(),
        root: RootShown { version: 2, sha256: Digest([2; 32]), expires: 3 },
        timestamp: Some(Kept { version: 4, issued: 5, expires: 6 }),
        index: None,
        roles: vec![Signers { role: "root".into(), threshold: 1, keys: vec!["RW".into()] }],
    };
    let root = trust.root;
    let shown = format!(
        r#"{{"schema":1,"outcome":{{"result":"done","answer":{{"trust":{{"network":"{}","channel":"stable","root":{{"version":2,"sha256":"{}","expires":3}},"timestamp":{{"version":4,"issued":5,"expires":6}},"index":null,"roles":[{{"role":"root","threshold":1,"keys":["RW"]}}]}}}}}}}}"#,
        hash(1),
        hash(2)
    );
    let reset = format!(
        r#"{{"schema":1,"outcome":{{"result":"done","answer":{{"trust_reset":{{"version":2,"sha256":"{}","expires":3}}}}}}}}"#,
        hash(2)
    );
    for (answer, line) in [(Answer::Trust(Box::new(trust)), shown), (Answer::TrustReset(root), reset)] {
        let reply = Reply::Outcome(Outcome::Done { answer });
        assert_eq!(reply.line(), line);
        assert_eq!(Reply::parse(line.as_bytes()).unwrap(), reply);
    }
}

#[test]
fn replies_are_written_and_read_like_this() {
    let progress = Progress {
        phase: Phase::Syncing,
        from: Some(version("1.0.0")),
        to: version("1.1.0"),
        done: Some(1),
        total: Some(2),
        deadline: None,
        text: None,
        rehearsal: None,
        rate: None,
        left: None,
    };
    let rehearsed = Progress { phase: Phase::GoingBack, rehearsal: Some(2), ..progress.clone() };
    let moving = Progress { phase: Phase::Fetching, rate: Some(3), left: Some(4), ..progress.clone() };
    let step = || Move { from: Some(version("1.0.0")), to: version("1.1.0"), gap_ms: Some(0.8) };
    let listed = Listed {
        release: version("1.1.0"),
        sha256: Digest([1; 32]),
        serving: false,
        installed: true,
        offered: true,
        packaged: false,
        why_not: Some("held".into()),
    };
    let packaged = Listed { offered: false, packaged: true, why_not: None, ..listed.clone() };
    let reason = || "because".to_owned();
    let done = |answer| Reply::Outcome(Outcome::Done { answer });
    let listed_line = format!(
        r#"{{"schema":1,"outcome":{{"result":"done","answer":{{"versions":[{{"release":"1.1.0","sha256":"{}","serving":false,"installed":true,"offered":true,"why_not":"held"}}]}}}}}}"#,
        hash(1)
    );
    let packaged_line = format!(
        r#"{{"schema":1,"outcome":{{"result":"done","answer":{{"versions":[{{"release":"1.1.0","sha256":"{}","serving":false,"installed":true,"offered":false,"packaged":true,"why_not":null}}]}}}}}}"#,
        hash(1)
    );
    for (reply, line) in [
        (
            Reply::Progress(progress),
            r#"{"schema":1,"progress":{"phase":"syncing","from":"1.0.0","to":"1.1.0","done":1,"total":2,"deadline":null,"text":null}}"#,
        ),
        (
            Reply::Progress(rehearsed),
            r#"{"schema":1,"progress":{"phase":"going_back","from":"1.0.0","to":"1.1.0","done":1,"total":2,"deadline":null,"text":null,"rehearsal":2}}"#,
        ),
        (
            Reply::Progress(moving),
            r#"{"schema":1,"progress":{"phase":"fetching","from":"1.0.0","to":"1.1.0","done":1,"total":2,"deadline":null,"text":null,"rate":3,"left":4}}"#,
        ),
        (
            done(Answer::Checked(Checked { found: None, text: "t".into() })),
            r#"{"schema":1,"outcome":{"result":"done","answer":{"checked":{"found":null,"text":"t"}}}}"#,
        ),
        (
            done(Answer::Started(Move { from: None, to: version("1.0.0"), gap_ms: None })),
            r#"{"schema":1,"outcome":{"result":"done","answer":{"started":{"from":null,"to":"1.0.0","gap_ms":null}}}}"#,
        ),
        (
            done(Answer::Upgraded(step())),
            r#"{"schema":1,"outcome":{"result":"done","answer":{"upgraded":{"from":"1.0.0","to":"1.1.0","gap_ms":0.8}}}}"#,
        ),
        (
            done(Answer::WentBack(step())),
            r#"{"schema":1,"outcome":{"result":"done","answer":{"went_back":{"from":"1.0.0","to":"1.1.0","gap_ms":0.8}}}}"#,
        ),
        (
            done(Answer::Held { reason: reason() }),
            r#"{"schema":1,"outcome":{"result":"done","answer":{"held":{"reason":"because"}}}}"#,
        ),
        (done(Answer::Unheld), r#"{"schema":1,"outcome":{"result":"done","answer":"unheld"}}"#),
        (
            done(Answer::History(vec![Entry::new(5, Event::Cut)])),
            r#"{"schema":1,"outcome":{"result":"done","answer":{"history":[{"schema":1,"at":5,"event":"cut"}]}}}"#,
        ),
        (done(Answer::Versions(vec![listed])), &listed_line),
        (done(Answer::Versions(vec![packaged])), &packaged_line),
        (
            Reply::Outcome(Outcome::Refused { reason: reason() }),
            r#"{"schema":1,"outcome":{"result":"refused","reason":"because"}}"#,
        ),
        (
            Reply::Outcome(Outcome::NothingToDo { reason: reason() }),
            r#"{"schema":1,"outcome":{"result":"nothing_to_do","reason":"because"}}"#,
        ),
        (
            Reply::Outcome(Outcome::Failed { reason: reason() }),
            r#"{"schema":1,"outcome":{"result":"failed","reason":"because"}}"#,
        ),
        (
            Reply::Outcome(Outcome::RolledBack {
                from: version("1.0.0"),
                to: version("1.1.0"),
                gap_ms: None,
                reason: reason(),
            }),
            r#"{"schema":1,"outcome":{"result":"rolled_back","from":"1.0.0","to":"1.1.0","gap_ms":null,"reason":"because"}}"#,
        ),
    ] {
        assert_eq!(reply.line(), line);
        assert_eq!(Reply::parse(line.as_bytes()).unwrap(), reply);
    }
}

#[test]
fn a_dry_run_is_written_and_read_like_this() {
    let considered = |release, chosen, eligible_at, why_not| Considered {
        release: version(release),
        source: None,
        chosen,
        bucket: 7,
        eligible_at,
        why_not,
    };
    let dry_run = DryRun {
        asked: None,
        folder: None,
        from: Some(version("1.0.0")),
        to: Some(version("1.1.0")),
        why_not: None,
        obstacles: vec![Obstacle { kind: Hurdle::Hold, stops: Stops::Everybody, text: "racks".into() }],
        releases: vec![
            considered("1.2.0", false, None, Some("later".into())),
            considered("1.1.0", true, Some(3), None),
        ],
        refused: vec![],
        index: Some(Index { version: 412, sha256: Digest([1; 32]), keys: vec!["RWkey".into()] }),
        signed_at: Some(4),
        checked_at: Some(5),
        feed_error: None,
    };
    let json = format!(
        concat!(
            r#"{{"schema":1,"outcome":{{"result":"done","answer":{{"dry_run":{{"asked":null,"from":"1.0.0","to":"1.1.0","#,
            r#""why_not":null,"obstacles":[{{"kind":"hold","stops":"everybody","text":"racks"}}],"releases":["#,
            r#"{{"release":"1.2.0","chosen":false,"bucket":7,"eligible_at":null,"why_not":"later"}},"#,
            r#"{{"release":"1.1.0","chosen":true,"bucket":7,"eligible_at":3,"why_not":null}}],"#,
            r#""index":{{"version":412,"sha256":"{}","keys":["RWkey"]}},"signed_at":4,"checked_at":5,"feed_error":null}}}}}}}}"#,
        ),
        hash(1)
    );
    let packaged = DryRun {
        obstacles: vec![],
        releases: vec![Considered {
            source: Some(Source::Package),
            bucket: 0,
            ..considered("1.1.0", true, Some(0), None)
        }],
        refused: vec![Refused { file: "/w/node.json".into(), why: "unknown field".into() }],
        index: None,
        signed_at: None,
        checked_at: None,
        ..dry_run.clone()
    };
    let outcome = Outcome::Done { answer: Answer::DryRun(Box::new(dry_run)) };
    assert_eq!(outcome.object()["dry_run"]["to"], "1.1.0");
    let reply = Reply::Outcome(outcome);
    assert_eq!(reply.line(), json);
    assert_eq!(Reply::parse(json.as_bytes()).unwrap(), reply);

    // Where packages alone offer something there is no index.
    let json = concat!(
        r#"{"schema":1,"outcome":{"result":"done","answer":{"dry_run":{"asked":null,"from":"1.0.0","to":"1.1.0","#,
        r#""why_not":null,"obstacles":[],"releases":["#,
        r#"{"release":"1.1.0","source":"package","chosen":true,"bucket":0,"eligible_at":0,"why_not":null}],"#,
        r#""refused":[{"file":"/w/node.json","why":"unknown field"}],"#,
        r#""index":null,"signed_at":null,"checked_at":null,"feed_error":null}}}}"#,
    );
    let reply = Reply::Outcome(Outcome::Done { answer: Answer::DryRun(Box::new(packaged.clone())) });
    assert_eq!(reply.line(), json);
    assert_eq!(Reply::parse(json.as_bytes()).unwrap(), reply);

    let from_a_folder = DryRun { folder: Some("/media/stick".into()), ..packaged };
    let reply = Reply::Outcome(Outcome::Done { answer: Answer::DryRun(Box::new(from_a_folder)) });
    let json = json.replace(r#""from":"#, r#""folder":"/media/stick","from":"#);
    assert_eq!(reply.line(), json);
    assert_eq!(Reply::parse(json.as_bytes()).unwrap(), reply);
}

#[test]
fn exit_codes_are_frozen() {
    let reason = String::new;
    let back = Outcome::RolledBack { from: version("1"), to: version("2"), gap_ms: None, reason: reason() };
    let codes = [
        Outcome::Done { answer: Answer::Unheld },
        Outcome::Refused { reason: reason() },
        Outcome::NothingToDo { reason: reason() },
        Outcome::Failed { reason: reason() },
        back,
    ]
    .map(|outcome| outcome.exit_code());
    assert_eq!((codes, reply::EXIT_USAGE, reply::EXIT_NO_SUPERVISOR), ([0, 3, 4, 5, 6], 2, 7));
}

fn worker(byte: u8, term: Option<u64>, figures: Option<Figures>) -> Worker {
    Worker {
        release: version("1.0.0"),
        sha256: Digest([byte; 32]),
        source: None,
        term,
        instance: 3,
        pid: 1003,
        since: 10,
        figures,
    }
}

#[test]
fn a_full_status_is_written_and_read_like_this() {
    let figures = Figures {
        memory: 1,
        connections: 2,
        lag: 3,
        logbook: 4,
        requests_per_second: 5,
        errors_permille: 6,
        p99_us: 7,
        at: 8,
    };
    let status = Status {
        schema: Schema,
        supervisor: Supervisor { version: "0.1.0".into(), pid: 812, since: 9 },
        serving: Some(worker(1, Some(4), Some(figures))),
        standby: Some(Worker { source: Some(Source::Package), ..worker(2, None, None) }),
        draining: None,
        upgrade: Some(Upgrade {
            phase: Phase::Syncing,
            from: Some(version("1.0.0")),
            to: version("1.1.0"),
            since: 11,
            attempt: 1,
            attempts: 3,
            progress: Some(Amount { done: 1, total: Some(2), rate: None, left: None }),
            deadline: Some(12),
            text: None,
            rehearsal: Some(1),
        }),
        next_check: Some(13),
        next: Some(Next { what: "upgrade".into(), at: Some(14), why_not: Some("later".into()) }),
        rollout: Some(Rollout {
            release: version("1.3.0"),
            bucket: 412,
            group: Some("canary".into()),
            pin: None,
            eligible_at: Some(20),
            blocks: Some("held".into()),
        }),
        held: Some(Held { reason: "racks".into(), at: 15, by: Some(0) }),
        quarantined: vec![Quarantined {
            release: version("1.2.0"),
            sha256: Digest([3; 32]),
            reason: "died".into(),
            at: 16,
            output: "oh".into(),
        }],
        last: Some(Last {
            result: Ending::RolledBack,
            from: Some(version("1.0.0")),
            to: version("1.2.0"),
            at: 17,
            gap_ms: Some(gap_ms(1400)),
            reason: Some("died".into()),
        }),
        feed: Some(Feed {
            channel: "stable".into(),
            urls: vec!["https://x".into()],
            checked_at: Some(18),
            error: None,
            sandbox_lacks: vec!["Landlock".into()],
        }),
        packages: Some(Packages {
            folder: "/w".into(),
            declared: vec![version("1.4.0")],
            refused: vec![Refused { file: "/w/x.json".into(), why: "a link".into() }],
        }),
        alarms: vec![Alarm { at: 19, text: "disk".into() }],
        you_need_to_do: Some("bumpless unhold".into()),
    };
    let json = format!(
        concat!(
            r#"{{"schema":1,"supervisor":{{"version":"0.1.0","pid":812,"since":9}},"#,
            r#""serving":{{"release":"1.0.0","sha256":"{}","term":4,"instance":3,"pid":1003,"since":10,"#,
            r#""figures":{{"memory":1,"connections":2,"lag":3,"logbook":4,"requests_per_second":5,"errors_permille":6,"p99_us":7,"at":8}}}},"#,
            r#""standby":{{"release":"1.0.0","sha256":"{}","source":"package","term":null,"instance":3,"pid":1003,"since":10,"figures":null}},"#,
            r#""draining":null,"#,
            r#""upgrade":{{"phase":"syncing","from":"1.0.0","to":"1.1.0","since":11,"attempt":1,"attempts":3,"#,
            r#""progress":{{"done":1,"total":2}},"deadline":12,"text":null,"rehearsal":1}},"#,
            r#""next_check":13,"next":{{"what":"upgrade","at":14,"why_not":"later"}},"#,
            r#""rollout":{{"release":"1.3.0","bucket":412,"group":"canary","pin":null,"eligible_at":20,"blocks":"held"}},"#,
            r#""held":{{"reason":"racks","at":15,"by":0}},"#,
            r#""quarantined":[{{"release":"1.2.0","sha256":"{}","reason":"died","at":16,"output":"oh"}}],"#,
            r#""last":{{"result":"rolled_back","from":"1.0.0","to":"1.2.0","at":17,"gap_ms":1.4,"reason":"died"}},"#,
            r#""feed":{{"channel":"stable","urls":["https://x"],"checked_at":18,"error":null,"sandbox_lacks":["Landlock"]}},"#,
            r#""packages":{{"folder":"/w","declared":["1.4.0"],"refused":[{{"file":"/w/x.json","why":"a link"}}]}},"#,
            r#""alarms":[{{"at":19,"text":"disk"}}],"you_need_to_do":"bumpless unhold"}}"#,
        ),
        hash(1),
        hash(2),
        hash(3)
    );
    assert_eq!(serde_json::to_string(&status).unwrap(), json);
    assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
    let reply = Reply::Outcome(Outcome::Done { answer: Answer::Status(Box::new(status)) });
    assert_eq!(Reply::parse(reply.line().as_bytes()).unwrap(), reply);
}

#[test]
fn an_empty_status_has_every_key() {
    let status = Status {
        schema: Schema,
        supervisor: Supervisor { version: "0.1.0".into(), pid: 1, since: 2 },
        serving: None,
        standby: None,
        draining: None,
        upgrade: None,
        next_check: None,
        next: None,
        rollout: None,
        held: None,
        quarantined: Vec::new(),
        last: None,
        feed: None,
        packages: None,
        alarms: Vec::new(),
        you_need_to_do: None,
    };
    let json = concat!(
        r#"{"schema":1,"supervisor":{"version":"0.1.0","pid":1,"since":2},"serving":null,"standby":null,"#,
        r#""draining":null,"upgrade":null,"next_check":null,"next":null,"held":null,"quarantined":[],"last":null,"#,
        r#""feed":null,"alarms":[],"you_need_to_do":null}"#,
    );
    assert_eq!(serde_json::to_string(&status).unwrap(), json);
    assert_eq!(serde_json::from_str::<Status>(json).unwrap(), status);
}

#[test]
fn words_and_fields_of_a_newer_supervisor_do_not_hinder_an_older_reader() {
    let line = r#"{"schema":1,"progress":{"phase":"dreaming","from":null,"to":"2","done":null,"total":null,"deadline":null,"text":null,"colour":"red"}}"#;
    let Reply::Progress(progress) = Reply::parse(line.as_bytes()).unwrap() else { unreachable!("{line}") };
    assert_eq!(progress.phase, Phase::Other("dreaming".into()));
    assert_eq!(serde_json::to_string(&progress.phase).unwrap(), "\"dreaming\"");
}

#[test]
fn a_history_line_has_what_applies_and_nothing_else() {
    let release = |text: &str, byte| Release { version: version(text), sha256: Digest([byte; 32]) };
    let entry = Entry {
        actor: Some(0),
        from: Some(release("1.0.0", 1)),
        to: Some(release("1.1.0", 2)),
        reason: Some("why".into()),
        gap_ms: Some(0.5),
        index: Some(Index { version: 412, sha256: Digest([3; 32]), keys: vec!["RWkey".into()] }),
        source: Some(Source::Feed),
        ..Entry::new(5, Event::Committed)
    };
    let json = format!(
        r#"{{"schema":1,"at":5,"event":"committed","actor":0,"from":{{"version":"1.0.0","sha256":"{}"}},"to":{{"version":"1.1.0","sha256":"{}"}},"reason":"why","gap_ms":0.5,"index":{{"version":412,"sha256":"{}","keys":["RWkey"]}},"source":"feed"}}"#,
        hash(1),
        hash(2),
        hash(3)
    );
    assert_eq!(serde_json::to_string(&entry).unwrap(), json);
    assert_eq!(serde_json::from_str::<Entry>(&json).unwrap(), entry);
    assert_eq!(
        serde_json::from_str::<Entry>(r#"{"schema":1,"at":5,"event":"cut"}"#).unwrap(),
        Entry::new(5, Event::Cut)
    );
}

#[test]
fn every_word_is_its_own_and_reads_back() {
    let words = [
        "fetching",
        "verifying",
        "installing",
        "starting",
        "syncing",
        "level",
        "cutting",
        "probation",
        "committing",
        "draining",
        "backing_out",
        "rolling_back",
        "recovering",
    ];
    for word in words {
        assert!(!matches!(Phase::from(word.to_owned()), Phase::Other(_)), "{word}");
        assert_eq!(Phase::from(word.to_owned()).as_str(), word);
    }
    for word in ["busy", "hold", "room", "manual", "retry", "time"] {
        assert!(!matches!(Hurdle::from(word.to_owned()), Hurdle::Other(_)), "{word}");
    }
    for word in ["feed", "package"] {
        assert!(!matches!(Source::from(word.to_owned()), Source::Other(_)), "{word}");
    }
    for word in ["everybody", "supervisor"] {
        assert!(!matches!(Stops::from(word.to_owned()), Stops::Other(_)), "{word}");
    }
    for word in ["committed", "rolled_back", "failed", "undecided"] {
        assert!(!matches!(Ending::from(word.to_owned()), Ending::Other(_)), "{word}");
    }
    for word in [
        "supervisor_started",
        "supervisor_stopped",
        "worker_started",
        "worker_died",
        "worker_taken_back",
        "installed",
        "upgrade_started",
        "cut",
        "committed",
        "rolled_back",
        "failed",
        "undecided",
        "quarantined",
        "held",
        "unheld",
        "stale_accepted",
        "trust_reset",
        "feed_failed",
        "feed_well",
        "alarm",
    ] {
        assert!(!matches!(Event::from(word.to_owned()), Event::Other(_)), "{word}");
    }
}

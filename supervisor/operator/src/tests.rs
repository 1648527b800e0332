#![allow(clippy::unwrap_used)]
use super::*;
use bumpless_control::dry_run::{Considered, DryRun, Hurdle, Obstacle, Stops};
use bumpless_control::history::{Entry, Event, Index, Source};
use bumpless_control::reply::{Answer, Move, Progress};
use bumpless_control::status::*;
use bumpless_control::{Digest, schema::Schema};
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// 2026-11-20 11:21:00 UTC.
const NOW: u64 = 1_795_173_660;

fn worker(release: &str, byte: u8, instance: u64, term: Option<u64>) -> Worker {
    Worker {
        release: release.parse().unwrap(),
        sha256: Digest([byte; 32]),
        source: None,
        term,
        instance,
        pid: 1000 + instance as i32,
        since: NOW - 8640,
        figures: None,
    }
}

fn figures() -> Figures {
    Figures {
        memory: 84_000_000,
        connections: 512,
        lag: 0,
        logbook: 0,
        requests_per_second: 340,
        errors_permille: 0,
        p99_us: 1200,
        at: NOW - 1,
    }
}

fn steady() -> Status {
    Status {
        schema: Schema,
        supervisor: Supervisor { version: "0.1.0".into(), pid: 812, since: NOW - 3 * 86_400 },
        serving: Some(Worker { figures: Some(figures()), ..worker("1.1.0", 0x9c, 4, Some(5)) }),
        standby: None,
        draining: None,
        upgrade: None,
        next_check: Some(NOW + 2460),
        next: None,
        rollout: None,
        held: None,
        quarantined: Vec::new(),
        last: Some(Last {
            result: Ending::Committed,
            from: Some("1.0.0".parse().unwrap()),
            to: "1.1.0".parse().unwrap(),
            at: NOW - 8640,
            gap_ms: Some(0.84),
            reason: None,
        }),
        feed: Some(Feed {
            channel: "stable".into(),
            urls: vec!["https://releases.example.org".into()],
            checked_at: Some(NOW - 1140),
            error: None,
            sandbox_lacks: Vec::new(),
        }),
        packages: None,
        alarms: Vec::new(),
        you_need_to_do: None,
    }
}

fn upgrading(phase: Phase) -> Upgrade {
    Upgrade {
        phase,
        from: Some("1.0.0".parse().unwrap()),
        to: "1.1.0".parse().unwrap(),
        since: NOW - 12,
        attempt: 1,
        attempts: 3,
        progress: None,
        deadline: Some(NOW + 48),
        text: None,
        rehearsal: None,
    }
}

fn after_a_failure() -> Status {
    Status {
        last: Some(Last {
            result: Ending::RolledBack,
            from: Some("1.1.0".parse().unwrap()),
            to: "1.2.0".parse().unwrap(),
            at: NOW - 185,
            gap_ms: Some(1.4),
            reason: Some("the new worker died 2.0 s after the cut (exited with status 101)".into()),
        }),
        quarantined: vec![Quarantined {
            release: "1.2.0".parse().unwrap(),
            sha256: Digest([0x5e; 32]),
            reason:
                "it failed 3 of 3 times; at last the worker died 2.0 s after the cut (exited with status 101)"
                    .into(),
            at: NOW - 185,
            output:
                "bumpless-node 1.2.0: took over in term 6\nthread 'main' panicked: planned fault\u{1b}[0m\n"
                    .into(),
        }],
        next: Some(Next {
            what: "upgrade to a release newer than 1.2.0".into(),
            at: None,
            why_not: Some("the feed offers none".into()),
        }),
        ..steady()
    }
}

#[test]
fn steady_in_words() {
    assert_eq!(
        report::report(&steady(), NOW),
        "\
Release 1.1.0 is serving, since 2026-11-20 08:57:00 UTC (2 h 24 min ago).
    worker 4, process 1004, term 5, release hash 9c9c9c9c
    512 connections, 340 requests per second, 99 % answered within 1.2 ms, memory 84.0 MB

No upgrade is under way.
The last upgrade went well: from 1.0.0 to 1.1.0, 2026-11-20 08:57:00 UTC (2 h 24 min ago).
    During the cut nothing was served for 0.8 ms.

Feed, channel stable: last seen 19 min ago, looked at again in 41 min.
Supervisor: bumplessd 0.1.0, process 812, since 2026-11-17 11:21:00 UTC (3 days ago).

You need to do: nothing
"
    );
}

#[test]
fn syncing_in_words() {
    let status = Status {
        serving: Some(worker("1.0.0", 0x11, 3, Some(4))),
        standby: Some(Worker {
            since: NOW - 9,
            figures: Some(Figures { connections: 0, requests_per_second: 0, lag: 120, ..figures() }),
            ..worker("1.1.0", 0x9c, 4, None)
        }),
        upgrade: Some(Upgrade {
            attempt: 2,
            progress: Some(Amount {
                done: 150_000_000,
                total: Some(300_000_000),
                rate: Some(5_000_000),
                left: Some(30),
            }),
            ..upgrading(Phase::Syncing)
        }),
        last: None,
        ..steady()
    };
    assert_eq!(
        report::report(&status, NOW),
        "\
Release 1.0.0 is serving, since 2026-11-20 08:57:00 UTC (2 h 24 min ago).
    worker 3, process 1003, term 4, release hash 11111111
Standing by: release 1.1.0
    worker 4, process 1004, release hash 9c9c9c9c
    0 connections, 120 records behind, memory 84.0 MB

An upgrade from 1.0.0 to 1.1.0 is under way, for 12 s, try 2 of 3.
    Now: the new worker takes over a copy of the state; the old one serves.
    Progress: 150.0 MB of 300.0 MB (50 %), 5.0 MB/s, 30 s left
    Given up if that is not done by 2026-11-20 11:21:48 UTC (in 48 s).

Feed, channel stable: last seen 19 min ago, looked at again in 41 min.
Supervisor: bumplessd 0.1.0, process 812, since 2026-11-17 11:21:00 UTC (3 days ago).

You need to do: nothing
"
    );
}

#[test]
fn probation_in_words() {
    let status = Status {
        serving: Some(Worker { since: NOW - 5, ..worker("1.1.0", 0x9c, 4, Some(5)) }),
        standby: Some(worker("1.0.0", 0x11, 3, Some(4))),
        upgrade: Some(upgrading(Phase::Probation)),
        last: None,
        feed: None,
        next_check: None,
        ..steady()
    };
    assert_eq!(
        report::report(&status, NOW),
        "\
Release 1.1.0 is serving, since 2026-11-20 11:20:55 UTC (5 s ago).
    worker 4, process 1004, term 5, release hash 9c9c9c9c
Standing by: release 1.0.0
    worker 3, process 1003, term 4, release hash 11111111

An upgrade from 1.0.0 to 1.1.0 is under way, for 12 s.
    Now: the new worker serves and is watched; the old one is ready to take over again.
    The verdict is due at 2026-11-20 11:21:48 UTC (in 48 s).

No feed is configured, so no new release is ever found (feed.urls in config.toml).
Supervisor: bumplessd 0.1.0, process 812, since 2026-11-17 11:21:00 UTC (3 days ago).

You need to do: nothing
"
    );
}

#[test]
fn a_rehearsal_in_words() {
    let upgrade = Upgrade {
        text: Some("rehearsal 1 of 3: cut".into()),
        rehearsal: Some(1),
        ..upgrading(Phase::Probation)
    };
    let text = report::report(&Status { upgrade: Some(upgrade), last: None, ..steady() }, NOW);
    let part = "\
An upgrade from 1.0.0 to 1.1.0 is under way, for 12 s.
    Now: the new worker serves and is watched; the old one is ready to take over again.
    rehearsal 1 of 3: cut
    It hands back, for practice, at 2026-11-20 11:21:48 UTC (in 48 s).
";
    assert!(text.contains(part), "{text}");
}

#[test]
fn after_a_failed_upgrade_in_words() {
    assert_eq!(
        report::report(&after_a_failure(), NOW),
        "\
Release 1.1.0 is serving, since 2026-11-20 08:57:00 UTC (2 h 24 min ago).
    worker 4, process 1004, term 5, release hash 9c9c9c9c
    512 connections, 340 requests per second, 99 % answered within 1.2 ms, memory 84.0 MB

No upgrade is under way.
The last upgrade FAILED and was taken back: from 1.1.0 to 1.2.0, 2026-11-20 11:17:55 UTC (3 min ago).
    Why: the new worker died 2.0 s after the cut (exited with status 101).
    1.1.0 took over again with everything that had been stored; in between nothing was served for 1.4 ms.

Not tried again on this node:
  1.2.0 (hash 5e5e5e5e), since 2026-11-20 11:17:55 UTC (3 min ago):
    it failed 3 of 3 times; at last the worker died 2.0 s after the cut (exited with status 101).
    The last that its worker wrote:
        bumpless-node 1.2.0: took over in term 6
        thread 'main' panicked: planned fault\\u{1b}[0m

Next: upgrade to a release newer than 1.2.0.
    Not now, because the feed offers none.
Feed, channel stable: last seen 19 min ago, looked at again in 41 min.
Supervisor: bumplessd 0.1.0, process 812, since 2026-11-17 11:21:00 UTC (3 days ago).

You need to do: nothing
"
    );
}

#[test]
fn held_in_words() {
    let status = Status {
        held: Some(Held { reason: "moving racks.".into(), at: NOW - 600, by: Some(1000) }),
        next: Some(Next {
            what: "upgrade to 1.2.0".into(),
            at: None,
            why_not: Some("upgrades are held".into()),
        }),
        you_need_to_do: Some("bumpless unhold, once the reason is gone".into()),
        ..steady()
    };
    let text = report::report(&status, NOW);
    let end = text.split("\n\n").skip(2).collect::<Vec<_>>().join("\n\n");
    assert_eq!(
        end,
        "\
Upgrades are HELD by user 1000, since 2026-11-20 11:11:00 UTC (10 min ago): moving racks.
    None begins until somebody says: bumpless unhold
Next: upgrade to 1.2.0.
    Not now, because upgrades are held.
Feed, channel stable: last seen 19 min ago, looked at again in 41 min.
Supervisor: bumplessd 0.1.0, process 812, since 2026-11-17 11:21:00 UTC (3 days ago).

You need to do: bumpless unhold, once the reason is gone
"
    );
}

/// The paragraph that begins with what comes next.
fn coming(rollout: Rollout, why_not: Option<&str>) -> String {
    let next = why_not.map(|why| Next { what: "ask the feed".into(), at: None, why_not: Some(why.into()) });
    let text = report::report(&Status { rollout: Some(rollout), next, ..steady() }, NOW);
    text.split("\n\n")
        .nth(2)
        .unwrap()
        .lines()
        .take_while(|line| !line.starts_with("Feed"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn rollout() -> Rollout {
    Rollout {
        release: "1.2.0".parse().unwrap(),
        bucket: 412,
        group: None,
        pin: None,
        eligible_at: Some(NOW + 7200),
        blocks: Some("1.2.0 is not eligible yet".into()),
    }
}

#[test]
fn a_rollout_in_words() {
    assert_eq!(
        coming(rollout(), None),
        "\
Rollout of 1.2.0: bucket 412 of 1000; it opens to this machine at 2026-11-20 13:21:00 UTC (in 2 h).
    Not now, because 1.2.0 is not eligible yet."
    );
    // The same reason is not given twice.
    assert_eq!(
        coming(rollout(), Some("1.2.0 is not eligible yet")),
        "\
Next: ask the feed.
    Not now, because 1.2.0 is not eligible yet.
Rollout of 1.2.0: bucket 412 of 1000; it opens to this machine at 2026-11-20 13:21:00 UTC (in 2 h)."
    );
    let group = Rollout {
        group: Some("canary".into()),
        pin: Some("1.2".into()),
        eligible_at: Some(NOW - 7200),
        blocks: None,
        ..rollout()
    };
    assert_eq!(
        coming(group, None),
        "Rollout of 1.2.0: bucket 412 of 1000, group canary, pin 1.2; open to this machine since \
         2026-11-20 09:21:00 UTC (2 h ago)."
    );
    assert_eq!(
        coming(Rollout { eligible_at: None, blocks: None, ..rollout() }, None),
        "Rollout of 1.2.0: bucket 412 of 1000; no stage that is announced reaches this machine."
    );
    // Of what serves it is worth a line only where something was configured.
    let serves =
        Rollout { release: "1.1.0".parse().unwrap(), eligible_at: Some(0), blocks: None, ..rollout() };
    assert_eq!(coming(serves.clone(), None), "");
    assert_eq!(
        coming(Rollout { group: Some("eu".into()), ..serves }, None),
        "Rollout of 1.1.0: bucket 412 of 1000, group eu; open to this machine."
    );
}

fn foreseen() -> DryRun {
    let considered = |release: &str, chosen, eligible_at, why_not: Option<&str>| Considered {
        release: release.parse().unwrap(),
        source: None,
        chosen,
        bucket: 412,
        eligible_at,
        why_not: why_not.map(str::to_owned),
    };
    DryRun {
        asked: None,
        folder: None,
        from: Some("1.0.0".parse().unwrap()),
        to: Some("1.1.0".parse().unwrap()),
        why_not: None,
        obstacles: vec![],
        releases: vec![
            considered("2.0.0", false, None, Some("2.0.0 is revoked by the publisher")),
            considered("1.2.0", false, Some(NOW + 7200), Some("1.2.0 is not eligible yet")),
            considered("1.1.0", true, Some(0), None),
        ],
        refused: vec![],
        index: Some(Index { version: 7, sha256: Digest([7; 32]), keys: vec![] }),
        signed_at: Some(NOW - 7200),
        checked_at: Some(NOW - 600),
        feed_error: None,
    }
}

#[test]
fn a_dry_run_in_words() {
    let releases = "
Releases in index 7, verified 10 min ago, signed 2026-11-20 09:21:00 UTC (2 h ago):
  2.0.0        not chosen: 2.0.0 is revoked by the publisher
               bucket 412 of 1000, reaches this machine by no stage
  1.2.0        not chosen: 1.2.0 is not eligible yet
               bucket 412 of 1000, opens to this machine in 2 h
  1.1.0        chosen
               bucket 412 of 1000, open to this machine
";
    assert_eq!(
        dry_run::dry_run(&foreseen(), NOW),
        format!(
            "\
Nothing was changed, and the feed was not asked.
bumpless upgrade would go from 1.0.0 to 1.1.0.
    Nothing stands before its start; the supervisor begins it by itself at its next look.
{releases}"
        )
    );
    let obstacle = |kind, stops, text: &str| Obstacle { kind, stops, text: text.into() };
    let manual = obstacle(Hurdle::Manual, Stops::Supervisor, "upgrades wait for `bumpless upgrade`");
    assert_eq!(
        dry_run::dry_run(&DryRun { obstacles: vec![manual.clone()], ..foreseen() }, NOW),
        format!(
            "\
Nothing was changed, and the feed was not asked.
bumpless upgrade would go from 1.0.0 to 1.1.0.
    The supervisor does not begin it by itself: upgrades wait for `bumpless upgrade`.
{releases}"
        )
    );
    let obstacles = vec![
        obstacle(Hurdle::Busy, Stops::Everybody, "an upgrade to 1.1.0 is under way (syncing); one at a time"),
        obstacle(Hurdle::Hold, Stops::Everybody, "moving racks."),
        obstacle(Hurdle::Room, Stops::Everybody, "needs 3.1 GB, has 1.2 GB"),
        manual,
        obstacle(Hurdle::Retry, Stops::Supervisor, "it failed before"),
        obstacle(Hurdle::Other("moon".into()), Stops::Everybody, "it is full"),
    ];
    let asked = Some("1.1.0".parse().unwrap());
    let text = dry_run::dry_run(&DryRun { obstacles, asked, ..foreseen() }, NOW);
    assert_eq!(
        text.split("\n\n").next().unwrap(),
        "\
Nothing was changed, and the feed was not asked.
bumpless upgrade 1.1.0 would be refused now; it leads from 1.0.0 to 1.1.0.
    Not now: an upgrade to 1.1.0 is under way (syncing); one at a time.
    Upgrades are HELD (bumpless unhold frees them): moving racks.
    No room on the disk: needs 3.1 GB, has 1.2 GB.
    The supervisor does not begin it by itself: upgrades wait for `bumpless upgrade`.
    The supervisor does not begin it by itself: it failed before.
    moon: it is full."
    );
    let nothing = DryRun {
        to: None,
        why_not: Some("the publisher has paused channel stable".into()),
        releases: vec![],
        checked_at: None,
        feed_error: Some("connection refused".into()),
        ..foreseen()
    };
    assert_eq!(
        dry_run::dry_run(&nothing, NOW),
        "\
Nothing was changed, and the feed was not asked.
bumpless upgrade would begin nothing: the publisher has paused channel stable.

Releases in index 7, not looked for since the supervisor's start, signed 2026-11-20 09:21:00 UTC (2 h ago):
    (The last look FAILED: connection refused.)
    none
"
    );
}

#[test]
fn a_dry_run_of_a_folder_in_words() {
    let of_a_folder = DryRun {
        folder: Some("/media/stick".into()),
        asked: Some("1.1.0".parse().unwrap()),
        checked_at: None,
        releases: vec![],
        ..foreseen()
    };
    assert_eq!(
        dry_run::dry_run(&of_a_folder, NOW),
        "\
Nothing was changed; /media/stick was looked into, and nothing of it is kept.
bumpless upgrade --from /media/stick 1.1.0 would go from 1.0.0 to 1.1.0.
    Nothing stands before its start.

Releases in index 7, which /media/stick has, signed 2026-11-20 09:21:00 UTC (2 h ago):
    none
"
    );
}

/// A declaration that somebody else could have written.
fn refused() -> Refused {
    let file = "/usr/lib/bumpless/workers/node.json";
    Refused { file: file.into(), why: format!("{file} belongs to user 1000; chown root {file}") }
}

const REFUSED: &str = "    REFUSED: /usr/lib/bumpless/workers/node.json belongs to user 1000; chown root \
                       /usr/lib/bumpless/workers/node.json.\n";

#[test]
fn a_dry_run_with_packages_in_words() {
    let packaged = Considered { source: Some(Source::Package), ..foreseen().releases.remove(2) };
    let beside = DryRun { releases: vec![packaged.clone()], refused: vec![refused()], ..foreseen() };
    let text = dry_run::dry_run(&beside, NOW);
    let (_, releases) = text.split_once("\n\n").unwrap();
    let index =
        "Releases in index 7, verified 10 min ago, signed 2026-11-20 09:21:00 UTC (2 h ago):\n    none\n";
    let packages = format!("Releases of this system's packages:\n  1.1.0        chosen\n{REFUSED}");
    assert_eq!(releases, format!("{index}\n{packages}"));
    // Without a feed there is no index to speak of.
    let alone = DryRun { index: None, signed_at: None, checked_at: None, ..beside };
    let text = dry_run::dry_run(&alone, NOW);
    assert_eq!(text.split_once("\n\n").unwrap().1, packages);
}

#[test]
fn packages_in_words() {
    let status = Status {
        serving: Some(Worker {
            source: Some(Source::Package),
            figures: None,
            ..worker("1.1.0", 0x9c, 4, Some(5))
        }),
        feed: None,
        packages: Some(Packages {
            folder: "/usr/lib/bumpless/workers".into(),
            declared: vec!["1.1.0".parse().unwrap(), "1.0.0".parse().unwrap()],
            refused: vec![refused()],
        }),
        ..steady()
    };
    let text = report::report(&status, NOW);
    for part in [
        "worker 4, process 1004, term 5, release hash 9c9c9c9c, source: package\n",
        "No feed is configured: releases come from this system's packages, looked at again in 41 min.\n",
        &format!("Packages in /usr/lib/bumpless/workers: 1.1.0, 1.0.0.\n{REFUSED}"),
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn a_history_line_names_what_an_upgrade_was_decided_on() {
    let index = Some(Index { version: 7, sha256: Digest([7; 32]), keys: vec![] });
    for (index, source, said) in [
        (index.clone(), None, "decided on index 7"),
        (index, Some(Source::Feed), "decided on index 7, source: feed"),
        (None, Some(Source::Package), "source: package"),
    ] {
        let entry = Entry { index, source, ..Entry::new(NOW, Event::Committed) };
        let text = listing::outcome(&Outcome::Done { answer: Answer::History(vec![entry]) }, NOW);
        assert_eq!(text, format!("2026-11-20 11:21:00 UTC  upgrade committed, {said}\n"));
    }
}

#[test]
fn nothing_serving_and_no_feed_in_words() {
    let status = Status {
        serving: None,
        next_check: None,
        last: None,
        feed: None,
        alarms: vec![Alarm { at: NOW - 60, text: "no release was ever installed here".into() }],
        you_need_to_do: Some("set feed.urls and feed.root in /etc/bumpless/config.toml".into()),
        ..steady()
    };
    assert_eq!(
        report::report(&status, NOW),
        "\
ALARM, since 2026-11-20 11:20:00 UTC (60 s ago):
    no release was ever installed here
NOTHING IS SERVING.

No upgrade is under way.

No feed is configured, so no new release is ever found (feed.urls in config.toml).
Supervisor: bumplessd 0.1.0, process 812, since 2026-11-17 11:21:00 UTC (3 days ago).

You need to do: set feed.urls and feed.root in /etc/bumpless/config.toml
"
    );
}

#[test]
fn a_feed_that_is_gone_in_words() {
    let mut status = steady();
    status.feed.as_mut().unwrap().error =
        Some("releases.example.org: connection refused. 1.1.0 serves on.".into());
    assert!(report::report(&status, NOW).contains(
        "Feed, channel stable: last seen 19 min ago, looked at again in 41 min.\n    \
         The last look FAILED: releases.example.org: connection refused. 1.1.0 serves on.\n"
    ));
}

#[test]
fn what_is_wanting_of_the_sandbox_in_words() {
    let mut status = steady();
    status.feed.as_mut().unwrap().sandbox_lacks =
        vec!["Landlock, which this kernel does not have: it could read any file".into()];
    assert!(report::report(&status, NOW).contains(
        "looked at again in 41 min.\n    The sandbox of what fetches lacks Landlock, which this kernel does not \
         have: it could read any file.\n"
    ));
}

#[test]
fn every_phase_and_every_ending_has_words() {
    for phase in [
        Phase::Fetching,
        Phase::Verifying,
        Phase::Installing,
        Phase::Starting,
        Phase::Syncing,
        Phase::Level,
        Phase::Cutting,
        Phase::Probation,
        Phase::Committing,
        Phase::Draining,
        Phase::BackingOut,
        Phase::GoingBack,
        Phase::RollingBack,
        Phase::Recovering,
        Phase::Other("dreaming".into()),
    ] {
        let word = phase.as_str().to_owned();
        let status = Status { upgrade: Some(upgrading(phase)), ..steady() };
        let text = report::report(&status, NOW);
        assert!(
            text.contains("    Now: ") && text.ends_with("\nYou need to do: nothing\n"),
            "{word}: {text}"
        );
    }
    for ending in [
        Ending::Committed,
        Ending::RolledBack,
        Ending::Failed,
        Ending::Undecided,
        Ending::Other("odd".into()),
    ] {
        let mut status = after_a_failure();
        status.last.as_mut().unwrap().result = ending;
        assert!(report::report(&status, NOW).contains("The last upgrade"));
    }
}

/// A supervisor that answers one request with these lines, and says what it was asked.
fn supervisor(path: &Path, replies: Vec<Reply>) -> std::thread::JoinHandle<String> {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
        for reply in replies {
            stream.write_all((reply.line() + "\n").as_bytes()).unwrap();
        }
        line
    })
}

fn bumpless(path: &Path, line: &str) -> (u8, String, String) {
    let line = format!("bumpless --socket {} {line}", path.display());
    let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = run(&arguments, Screen::Lines, &mut out, &mut err);
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

fn progress(phase: Phase) -> Reply {
    Reply::Progress(Progress {
        phase,
        from: Some("1.0.0".parse().unwrap()),
        to: "1.1.0".parse().unwrap(),
        done: None,
        total: None,
        deadline: None,
        text: None,
        rehearsal: None,
        rate: None,
        left: None,
    })
}

#[test]
fn an_upgrade_is_waited_for_and_its_progress_stays_out_of_stdout() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let step = Move { from: Some("1.0.0".parse().unwrap()), to: "1.1.0".parse().unwrap(), gap_ms: Some(0.8) };
    let done = Reply::Outcome(Outcome::Done { answer: Answer::Upgraded(step) });
    let asked = supervisor(&path, vec![progress(Phase::Starting), progress(Phase::Syncing), done]);
    let (code, out, err) = bumpless(&path, "upgrade 1.1.0");
    assert_eq!(
        asked.join().unwrap(),
        "{\"schema\":1,\"verb\":\"upgrade\",\"version\":\"1.1.0\",\"wait\":true}\n"
    );
    assert_eq!(code, 0);
    assert_eq!(out, "Done: from 1.0.0 to 1.1.0; 1.1.0 serves. Nothing was served for 0.8 ms.\n");
    assert_eq!(err, "from 1.0.0 to 1.1.0: starting\nfrom 1.0.0 to 1.1.0: taking over the state\n");
}

#[test]
fn each_outcome_has_its_exit_code_and_its_object() {
    let reason = || "because".to_owned();
    let back = Outcome::RolledBack {
        from: "1.0.0".parse().unwrap(),
        to: "1.1.0".parse().unwrap(),
        gap_ms: Some(1.5),
        reason: reason(),
    };
    for (outcome, code, object) in [
        (
            Outcome::Done { answer: Answer::Unheld },
            0,
            "{\"answer\":\"unheld\",\"result\":\"done\",\"schema\":1}\n",
        ),
        (
            Outcome::Refused { reason: reason() },
            3,
            "{\"reason\":\"because\",\"result\":\"refused\",\"schema\":1}\n",
        ),
        (
            Outcome::NothingToDo { reason: reason() },
            4,
            "{\"reason\":\"because\",\"result\":\"nothing_to_do\",\"schema\":1}\n",
        ),
        (
            Outcome::Failed { reason: reason() },
            5,
            "{\"reason\":\"because\",\"result\":\"failed\",\"schema\":1}\n",
        ),
        (
            back,
            6,
            "{\"from\":\"1.0.0\",\"gap_ms\":1.5,\"reason\":\"because\",\"result\":\"rolled_back\",\"schema\":1,\"to\":\"1.1.0\"}\n",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        supervisor(&path, vec![progress(Phase::Starting), Reply::Outcome(outcome.clone())]);
        assert_eq!(bumpless(&path, "upgrade --json"), (code, object.into(), String::new()));
        assert!(!listing::outcome(&outcome, NOW).is_empty());
    }
}

#[test]
fn a_supervisor_that_is_gone_is_exit_code_7_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let (code, out, err) = bumpless(&path, "status");
    assert_eq!((code, out.as_str()), (7, ""));
    assert_eq!(
        err.replace(path.to_str().unwrap(), "/run/bumpless/control.sock"),
        "\
No supervisor answers at /run/bumpless/control.sock (No such file or directory (os error 2)).
A node that was serving serves on without it, but nothing is upgraded or watched.

You need to do: start the supervisor, bumplessd; if it runs elsewhere, name its socket with --socket
"
    );
    let (code, out, err) = bumpless(&path, "status --json");
    assert_eq!((code, err.as_str()), (7, ""));
    assert!(out.starts_with("{\"reason\":\"No supervisor answers at "), "{out}");
    assert!(out.ends_with("\"result\":\"no_supervisor\",\"schema\":1}\n"), "{out}");
}

#[test]
fn a_supervisor_that_goes_away_half_way_is_exit_code_7() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    supervisor(&path, vec![progress(Phase::Syncing)]);
    let (code, _, err) = bumpless(&path, "upgrade");
    assert_eq!(code, 7);
    assert!(
        err.contains("went away before it had answered")
            && err.ends_with("You need to do: bumpless status\n"),
        "{err}"
    );
}

#[test]
fn a_request_that_is_too_long_is_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let (code, _, err) = bumpless(&path, &format!("hold --reason {}", "x".repeat(5000)));
    assert_eq!(code, 2);
    assert!(err.contains("at most 4096"), "{err}");
}

#[test]
fn status_history_and_versions_as_objects_are_what_was_asked_for() {
    let object = Outcome::Done { answer: Answer::Status(Box::new(steady())) }.object();
    assert_eq!(object["schema"], 1);
    assert_eq!(object["serving"]["release"], "1.1.0");
    assert_eq!(
        Outcome::Done { answer: Answer::History(vec![]) }.object().to_string(),
        "{\"history\":[],\"schema\":1}"
    );
    assert_eq!(
        Outcome::Done { answer: Answer::Versions(vec![]) }.object().to_string(),
        "{\"schema\":1,\"versions\":[]}"
    );
}

#[test]
fn what_is_trusted_in_words() {
    use bumpless_control::trust::{Kept, RootShown, Signers, Trust};
    let keys = |count: u8| (1..=count).map(|key| format!("RW{key}")).collect::<Vec<_>>();
    let trust = Trust {
        network: Digest([0x11; 32]),
        channel: "stable".into(),
        root: RootShown { version: 2, sha256: Digest([0x9c; 32]), expires: NOW + 86_400 * 30 },
        timestamp: Some(Kept { version: 9001, issued: NOW - 8640, expires: NOW - 60 }),
        index: None,
        roles: vec![
            Signers { role: "root".into(), threshold: 2, keys: keys(3) },
            Signers { role: "release".into(), threshold: 1, keys: vec!["RW\u{1b}[0m".into()] },
        ],
    };
    let text = listing::outcome(&Outcome::Done { answer: Answer::Trust(Box::new(trust)) }, NOW);
    assert_eq!(
        text,
        "\
Network 1111111111111111111111111111111111111111111111111111111111111111, channel stable.
Root 2, valid until 2026-12-20 11:21:00 UTC (in 30 days).
    fingerprint 9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c
Timestamp 9001, signed 2026-11-20 08:57:00 UTC, EXPIRED on 2026-11-20 11:20:00 UTC (60 s ago).
Index: none was verified yet.
Who has to sign:
    root: 2 of 3
        RW1
        RW2
        RW3
    release: 1 of 1
        RW\\u{1b}[0m
"
    );
    let root = RootShown { version: 1, sha256: Digest([0x9c; 32]), expires: NOW };
    let text = listing::outcome(&Outcome::Done { answer: Answer::TrustReset(root) }, NOW);
    assert!(text.contains("begins anew with root 1") && text.contains("9c9c9c9c9c9c"), "{text}");
}

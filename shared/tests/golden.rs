//! Every message of the contract, byte for byte as it was published, one file for each version. A
//! worker of last year and a supervisor of next year meet in these bytes: a line of `golden/` is never
//! changed and never removed; a new message gets a new version, and a line in its file.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::fmt::Debug;

use bincode::{Decode, Encode};
use bumpless_shared::control::{
    Command, Durability, Heartbeat, Identity, Order, Origin, Report, Role, RoutingKeys, Start, Suspicion,
    Timing, Trouble,
};
use bumpless_shared::digest::Digest;
use bumpless_shared::frame::{self, PACKET_LIMIT, STREAM_LIMIT};
use bumpless_shared::link::{Note, Part};
use bumpless_shared::operation::Operation;
use bumpless_shared::release::Release;
use bumpless_shared::version::{Range, SPOKEN};

/// Each version with its published lines.
const PUBLISHED: [(u16, &str); 2] = [(1, include_str!("golden/v1.txt")), (2, include_str!("golden/v2.txt"))];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// The published lines, and what this source makes of the same messages.
struct Golden {
    version: u16,
    published: BTreeMap<&'static str, &'static str>,
    lines: Vec<String>,
}

impl Golden {
    fn message<T: Encode + Decode<()> + PartialEq + Debug>(&mut self, name: &str, message: &T, limit: usize) {
        let bytes = frame::encode(message, self.version, limit).unwrap();
        self.lines.push(format!("{name} {}", hex(&bytes)));
        if let Some(published) = self.published.get(name) {
            let read: T = frame::decode(&unhex(published), self.version, limit).unwrap();
            assert_eq!(&read, message, "{name} is read differently from what was published");
        }
    }
}

fn release() -> Release {
    Release { version: "1.8.2".parse().unwrap(), sha256: Digest([7; 32]) }
}

fn orders() -> Vec<(&'static str, Command)> {
    let start = Start {
        instance: 3,
        secret: [1; 16],
        release: release(),
        state: "/var/lib/bumpless/state".into(),
        generation: 4,
        origin: Origin::Candidate,
        tag: 2,
        listen: vec!["192.0.2.1:4433".parse().unwrap(), "[2001:db8::1]:4433".parse().unwrap()],
        routing: RoutingKeys { reset: [2; 64], token: [3; 64], mac: [4; 32] },
        reconnect: "/run/bumpless/workers.sock".into(),
        durability: Durability::Os,
        timing: Timing { heartbeat_ms: 1000, canary_ms: 500, relay_ms: 5000 },
    };
    let genesis = Start { origin: Origin::Genesis, durability: Durability::Fsync, ..start.clone() };
    let cold = Start { origin: Origin::Cold, ..start.clone() };
    vec![
        ("start-candidate", Command::Start(Box::new(start))),
        ("start-genesis", Command::Start(Box::new(genesis))),
        ("start-cold", Command::Start(Box::new(cold))),
        ("go", Command::Go { term: 5 }),
        ("pair", Command::Pair { peer: 2, peer_tag: 1, peer_generation: 1 }),
        ("mark", Command::Mark { id: 9 }),
        ("prepare-logbook", Command::Prepare { term: 6, reserve: Some(1 << 26) }),
        ("prepare-database", Command::Prepare { term: 6, reserve: None }),
        ("cut", Command::Cut { term: 6, resume: 7, window_ms: 500 }),
        ("resume", Command::Resume { term: 7 }),
        ("peer-gone", Command::PeerGone { tag: 3 }),
        ("persist", Command::Persist),
        ("retire", Command::Retire { term: 6 }),
        ("commit", Command::Commit { term: 6 }),
        ("drain", Command::Drain { stagger_ms: 2000, deadline_ms: 30_000 }),
        ("remove", Command::Remove { logs: vec![5, 6], generations: vec![1] }),
        ("stop", Command::Stop { deadline_ms: 10_000 }),
    ]
}

fn reports() -> Vec<(&'static str, Report)> {
    let identity = |role| Identity {
        instance: 3,
        secret: [1; 16],
        release: release(),
        generation: 4,
        tag: 2,
        role,
        sequence: 1000,
        peer: Some(2),
        listen: vec!["192.0.2.1:4433".parse().unwrap()],
    };
    let heartbeat = Heartbeat {
        sequence: 1,
        requests: 2,
        errors: 3,
        p50_us: 4,
        p99_us: 5,
        rss: 6,
        connections: 7,
        lag: 8,
        logbook: 9,
        standby_room: 12,
        canary_ok: 10,
        canary_failed: 11,
    };
    let trouble = |kind| Report::Trouble { kind, text: "what failed".into() };
    let suspect = |kind| Report::Suspect { kind, reason: "why".into() };
    vec![
        ("identity-holding", Report::Identity(Box::new(identity(Role::Holding { term: 6 })))),
        ("identity-frozen", Report::Identity(Box::new(identity(Role::Frozen { term: 6, resume: 7 })))),
        ("identity-retired", Report::Identity(Box::new(identity(Role::Retired { term: 6 })))),
        ("identity-draining", Report::Identity(Box::new(identity(Role::Draining)))),
        (
            "ready",
            Report::Ready {
                sequence: 1000,
                term: 6,
                replayed: 12,
                logs: vec![5, 6],
                generations: vec![1, 4],
                damage: Some("a hole".into()),
            },
        ),
        ("going", Report::Going { term: 5 }),
        ("syncing", Report::Syncing { done: 1, total: 300, lag: 2 }),
        ("level", Report::Level { sequence: 1000 }),
        ("prepared", Report::Prepared { term: 6 }),
        ("state-hash", Report::StateHash { id: 9, sequence: 1000, hash: Digest([8; 32]) }),
        ("yielded", Report::Yielded { term: 6, sequence: 1000 }),
        ("took", Report::Took { term: 6 }),
        ("resigned", Report::Resigned { term: 6, gap_us: 800 }),
        ("resumed", Report::Resumed { term: 7, sequence: 1001, gap_us: 900 }),
        ("retired", Report::Retired { term: 6 }),
        ("persisted", Report::Persisted { sequence: 1002 }),
        ("committed", Report::Committed { term: 6 }),
        ("drained", Report::Drained { moved: 24, cut_off: 1 }),
        ("removed", Report::Removed { logs: vec![5, 6], generations: vec![1] }),
        ("heartbeat", Report::Heartbeat(heartbeat)),
        ("suspect-silent", suspect(Suspicion::Silent)),
        ("suspect-failing", suspect(Suspicion::Failing)),
        ("suspect-wrong", suspect(Suspicion::Wrong)),
        ("trouble-cannot-start", trouble(Trouble::CannotStart)),
        ("trouble-sync-failed", trouble(Trouble::SyncFailed)),
        ("trouble-logbook-dropped", trouble(Trouble::LogbookDropped)),
        ("trouble-poisoned", trouble(Trouble::Poisoned)),
        ("trouble-record-refused", trouble(Trouble::RecordRefused)),
        ("trouble-damage", trouble(Trouble::Damage)),
        ("trouble-housekeeping", trouble(Trouble::Housekeeping)),
        ("refused", Report::Refused { order: "Cut".into(), reason: "why".into() }),
    ]
}

fn operations() -> Vec<Operation> {
    vec![
        Operation::Store { name: Digest([1; 32]), content: vec![1, 2, 3] },
        Operation::Link { name: Digest([2; 32]), length: 5000 },
        Operation::Mark { id: 9 },
    ]
}

fn between_workers(golden: &mut Golden) {
    let opened = Note::Opened { term: 5, sequence: 1000, generation: 1, entries: 3, bytes: 5003, copied: 3 };
    let notes = [
        ("opened", opened),
        ("written", Note::Written { sequence: 1001 }),
        ("applied", Note::Applied { sequence: 1001 }),
        ("yield", Note::Yield { term: 6, sequence: 1001, handshakes: vec![1, u64::MAX] }),
        ("took", Note::Took { term: 6 }),
    ];
    for (name, note) in notes {
        golden.message(&format!("note/{name}"), &note, PACKET_LIMIT);
    }
    let parts = [
        ("entries", Part::Entries(operations())),
        ("end", Part::End { entries: 3 }),
        ("credit", Part::Credit { requests: 64 }),
        ("request", Part::Request { id: 1, request: vec![1, 2] }),
        ("answer", Part::Answer { id: 1, answer: vec![3] }),
    ];
    for (name, part) in parts {
        golden.message(&format!("part/{name}"), &part, STREAM_LIMIT);
    }
    if golden.version >= 2 {
        let append =
            Operation::Append { log: Digest([3; 32]), nonce: [4; 16], index: 300, content: vec![1, 2, 3] };
        golden.message("part/entries-append", &Part::Entries(vec![append]), STREAM_LIMIT);
    }
}

#[test]
fn every_message_has_the_bytes_that_were_published() {
    for (version, text) in PUBLISHED {
        let published = text.lines().filter_map(|line| line.split_once(' ')).collect();
        // What a build greets with of which this was the latest version.
        let greeting = hex(&frame::greeting(Range { min: 1, max: version }));
        let mut golden = Golden { version, published, lines: vec![format!("greeting {greeting}")] };
        for (name, command) in orders() {
            golden.message(&format!("order/{name}"), &Order { incarnation: 11, command }, PACKET_LIMIT);
        }
        for (name, report) in reports() {
            golden.message(&format!("report/{name}"), &report, PACKET_LIMIT);
        }
        between_workers(&mut golden);
        let lines = golden.lines.join("\n") + "\n";
        assert_eq!(lines, text, "version {version}: the published bytes are on the right");
    }
}

#[test]
fn every_version_that_is_spoken_has_published_bytes() {
    let versions: Vec<u16> = PUBLISHED.iter().map(|(version, _)| *version).collect();
    assert_eq!(versions, (SPOKEN.min..=SPOKEN.max).collect::<Vec<_>>());
}

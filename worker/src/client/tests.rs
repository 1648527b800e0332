#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use bumpless_shared::version::Range;
use quinn::VarInt;

use super::manifest::{Manifest, is_manifest};
use super::*;
use crate::client::files::FileError;
use crate::net::rig::Rig;
use crate::net::{Answering, Handler, Identity};
use crate::wire::{RequestId, Signal};

const LOCAL: &str = "127.0.0.1:0";

/// Gives the prepared answers one after the other, then the last one for ever.
struct Script {
    answers: Vec<Answer>,
    asked: Arc<Mutex<Vec<RequestId>>>,
}

impl Handler for Script {
    fn handle(&self, request: Request) -> Answering<'_> {
        Box::pin(async move {
            let mut asked = self.asked.lock().unwrap();
            asked.push(request.id);
            self.answers[(asked.len() - 1).min(self.answers.len() - 1)].clone()
        })
    }
}

/// A node that answers by the script, and the ids that it was asked with.
fn scripted(rig: &Rig, answers: Vec<Answer>) -> (crate::net::rig::Worker, Arc<Mutex<Vec<RequestId>>>) {
    let asked = Arc::new(Mutex::default());
    let worker = rig.worker_with(1, Arc::new(Script { answers, asked: asked.clone() }));
    worker.node.listen(Vec::new()).unwrap();
    (worker, asked)
}

fn listening(rig: &Rig) -> crate::net::rig::Worker {
    let worker = rig.worker(1);
    worker.node.listen(Vec::new()).unwrap();
    worker
}

fn text() -> String {
    "why".to_owned()
}

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let folder = std::env::temp_dir().join(format!("bumpless-client-{:016x}", rand::random::<u64>()));
        fs::create_dir(&folder).unwrap();
        Folder(folder)
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = length as u64 | 1;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_answered_now_or_is_answered_wrongly_is_asked_again_with_the_same_id() {
    let rig = Rig::new(&[LOCAL]);
    let name = name_of(b"right");
    let (_worker, asked) = scripted(
        &rig,
        vec![
            Answer::Retry { after_ms: 1, reason: text() },
            Answer::Content { content: b"wrong".to_vec() },
            Answer::Pong { term: 1, release: text() },
            Answer::Content { content: b"right".to_vec() },
        ],
    );
    let client = rig.client().await;
    assert_eq!(client.get(name).await.unwrap(), Some(b"right".to_vec()));
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 4);
    assert!(asked.iter().all(|id| *id == asked[0]));
    let counters = client.counters();
    assert_eq!((counters.requests, counters.failed, counters.retried), (1, 0, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_is_the_same_one_over_all_its_retries_and_two_calls_are_two() {
    let rig = Rig::new(&[LOCAL]);
    let _worker = listening(&rig);
    let client = rig.client().await;
    let log = name_of(b"diary");
    assert_eq!(client.read_log(log, 0).await.unwrap(), LogPage::default());
    let link = client.inner.link().await.ok().unwrap();
    let ask = Ask::Append { log, nonce: [1; 16], content: b"same".to_vec() };
    let bytes = Request { id: RequestId([1; 16]), ask }.encode();
    for _ in 0..3 {
        let answer = link.exchange(&bytes).await.ok().unwrap();
        assert!(matches!(answer, Answer::Appended { index: 0, .. }), "{answer:?}");
    }
    assert_eq!(client.append(log, b"same").await.unwrap(), 1);
    assert_eq!(client.append(log, b"same").await.unwrap(), 2);
    let page = client.read_log(log, 1).await.unwrap();
    assert_eq!((page.length, page.entries), (3, vec![b"same".to_vec(); 2]));
    let error = client.append(log, &[0; 4097]).await.unwrap_err();
    assert!(matches!(error, RequestError::TooLarge { size: 4097, limit: 4096 }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_to_another_append_is_none() {
    let rig = Rig::new(&[LOCAL]);
    let (_worker, asked) = scripted(&rig, vec![Answer::Appended { id: Digest([0; 32]), index: 5 }]);
    let client = rig.client_with(Duration::from_secs(1)).await;
    let error = client.append(name_of(b"diary"), b"entry").await.unwrap_err();
    assert!(error.to_string().contains("another append"), "{error}");
    assert!(asked.lock().unwrap().len() > 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_goes_on_lying_is_an_error_at_the_deadline_that_says_so() {
    let rig = Rig::new(&[LOCAL]);
    let (_worker, _) = scripted(&rig, vec![Answer::Stored { name: Digest([0; 32]) }]);
    let client = rig.client_with(Duration::from_secs(1)).await;
    let error = client.put(b"content").await.unwrap_err();
    assert!(matches!(&error, RequestError::Deadline { last: Some(_), .. }), "{error}");
    assert!(error.to_string().contains("acknowledged 00000000"), "{error}");
    assert_eq!(client.counters().failed, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_final_and_keeps_its_reason() {
    for (answer, part, failures) in [
        (Answer::Refused { reason: text() }, "refused: why", 1),
        (Answer::NotYet { reason: text() }, "not yet: why", 0),
        (Answer::TooLarge { limit: 5 }, "5 are allowed", 0),
        (Answer::Unsupported { spoken: Range { min: 7, max: 9 } }, "version 7 to 9", 0),
        (Answer::Malformed { reason: text() }, "cannot read the request: why", 0),
    ] {
        let rig = Rig::new(&[LOCAL]);
        let (worker, asked) = scripted(&rig, vec![answer]);
        let client = rig.client().await;
        let error = client.get(Digest([1; 32])).await.unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(asked.lock().unwrap().len(), 1);
        assert_eq!(worker.node.figures().errors, failures);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_stored_is_an_answer_and_no_failure() {
    let rig = Rig::new(&[LOCAL]);
    let _worker = listening(&rig);
    let client = rig.client().await;
    assert_eq!(client.get(Digest([9; 32])).await.unwrap(), None);
    assert_eq!(client.counters().failed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_content_may_be_as_large_as_a_chunk_and_no_larger() {
    let rig = Rig::new(&[LOCAL]);
    let _worker = listening(&rig);
    let client = rig.client().await;
    for length in [0, 1, CHUNK] {
        let content = noise(length);
        let name = client.put(&content).await.unwrap();
        assert_eq!(client.get(name).await.unwrap(), Some(content));
    }
    let error = client.put(&noise(CHUNK + 1)).await.unwrap_err();
    assert!(matches!(error, RequestError::TooLarge { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_answers_bad_requests_in_words_and_serves_on() {
    let rig = Rig::new(&[LOCAL]);
    let worker = listening(&rig);
    let client = rig.client().await;
    let link = client.inner.link().await.ok().unwrap();
    let good = Request { id: RequestId([1; 16]), ask: Ask::Ping }.encode();
    let altered = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let large = [&[0, 1, 1, 0, 0, 0x20, 0, 0][..], &[0; 16], &noise(2 << 20)].concat();
    for (bytes, expected) in [
        (altered(1, 3), "Unsupported"),
        (altered(2, 99), "Unsupported"),
        (large, "TooLarge"),
        ([&good[..], b"more"].concat(), "Malformed"),
    ] {
        let answer = link.exchange(&bytes).await.ok().unwrap();
        assert!(format!("{answer:?}").starts_with(expected), "{answer:?}");
    }
    assert!(link.exchange(&good[..10]).await.is_err(), "cut off inside the header: nothing to answer to");
    client.ping().await.unwrap();
    let figures = worker.node.figures();
    assert_eq!((figures.rejected, figures.requests, figures.errors), (5, 1, 0));
    assert_eq!(client.counters().dropped, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_a_common_version_is_told_both_ranges() {
    let rig = Rig::new(&[LOCAL]);
    let _worker = listening(&rig);
    let client = rig.client().await;
    let link = client.inner.link().await.ok().unwrap();
    link.say(Signal::Hello(Range { min: 5, max: 9 })).await;
    let reason = link.ended().await;
    assert!(reason.contains("node 1 to 2, client 5 to 9"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_behind_the_address_is_refused_in_the_handshake_by_both_pins() {
    let rig = Rig::new(&[LOCAL]);
    let worker = listening(&rig);
    let pin = Identity::generate().unwrap().pin();
    let target = Target { pin, ..rig.target() };
    let Err(error) = Client::connect(target.clone(), Options::default()).await else { panic!("connected") };
    let expected = |error: &RequestError| matches!(error, RequestError::WrongNode { expected, found } if *expected == pin && *found == rig.identity.pin());
    assert!(expected(&error), "{error}");
    let error = Client::lazy(target, Options::default()).unwrap().put(b"secret").await.unwrap_err();
    assert!(expected(&error), "{error}");
    assert_eq!(worker.node.figures().requests, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_node_the_deadline_ends_the_wait_in_words() {
    let rig = Rig::new(&[LOCAL]);
    let options = Options { deadline: Duration::from_millis(50), ..Options::default() };
    let Err(error) = Client::connect(rig.target(), options).await else { panic!("connected") };
    assert!(matches!(error, RequestError::Unreachable { .. }), "{error}");
    let client = Client::lazy(rig.target(), options).unwrap();
    assert!(matches!(client.ping().await.unwrap_err(), RequestError::Unreachable { .. }));
    assert_eq!(client.counters().failed, 1);
    let nowhere = Target { addresses: Vec::new(), ..rig.target() };
    assert!(matches!(Client::lazy(nowhere, options), Err(RequestError::NoAddress)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_address_is_tried_if_one_does_not_work() {
    let rig = Rig::new(&[LOCAL]);
    let _worker = listening(&rig);
    let mut target = rig.target();
    target.addresses.insert(0, "127.0.0.1:0".parse().unwrap());
    Client::connect(target, Options::default()).await.unwrap().ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_drops_its_connections_and_one_that_is_left_does_not() {
    let rig = Rig::new(&[LOCAL]);
    let worker = listening(&rig);
    let client = rig.client().await;
    let fresh = client.fresh();
    fresh.ping().await.unwrap();
    drop(fresh);
    let closed = client.fresh();
    closed.ping().await.unwrap();
    closed.close().await;
    assert_eq!(client.counters().dropped, 0);
    let link = client.inner.link().await.ok().unwrap();
    worker.node.shutdown().await;
    assert!(link.ended().await.contains("the node stops"));
    let again = rig.worker(2);
    again.node.listen(Vec::new()).unwrap();
    client.ping().await.unwrap();
    let counters = client.counters();
    assert_eq!((counters.dropped, counters.connections, counters.failed), (1, 4, 0), "{counters:?}");
    let drops = client.take_drops();
    assert!(drops[0].cause.contains("the node stops") && drops[0].made_at <= drops[0].dropped_at);
    assert!(client.take_drops().is_empty());
    assert!(client.connected_at().unwrap() >= drops[0].dropped_at);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_every_size_come_back_whole() {
    let rig = Rig::new(&[LOCAL]);
    let _worker = listening(&rig);
    let client = rig.client().await;
    let folder = Folder::new();
    for length in [0, 1, 4096, CHUNK - 1, CHUNK, CHUNK + 1, 5_000_000] {
        let content = noise(length);
        let path = folder.file("file", &content);
        let mut last = (0, 0);
        let name = client.put_file(&path, |done, total| last = (done, total)).await.unwrap();
        assert_eq!(last, (length as u64, length as u64));
        assert_eq!(client.put_file(&path, |_, _| ()).await.unwrap(), name, "the same file has the same name");
        let mut back = Vec::new();
        let got = client.get_file(name, &mut back, |done, total| last = (done, total)).await.unwrap();
        assert_eq!((got, last), (length as u64, (length as u64, length as u64)));
        assert!(back == content, "{length} bytes");
        assert_eq!(name == name_of(&content), length <= CHUNK, "a file that fits is stored as it is");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_nested_when_one_does_not_hold_all_names() {
    let rig = Rig::new(&[LOCAL]);
    let _worker = listening(&rig);
    let client = rig.client().await;
    let folder = Folder::new();
    for (chunks, level) in [(2, 1), (3, 2), (4, 2), (5, 3), (9, 4)] {
        let content = noise(chunks * CHUNK - 7);
        let path = folder.file("file", &content);
        let name = client.put_file_in(&path, 2, |_, _| ()).await.unwrap();
        let top = Manifest::decode(&client.get(name).await.unwrap().unwrap()).unwrap();
        assert_eq!((top.level, top.total), (level, content.len() as u64));
        let mut back = Vec::new();
        client.get_file(name, &mut back, |_, _| ()).await.unwrap();
        assert!(back == content, "{chunks} chunks");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_looks_like_a_list_comes_back_as_the_file_that_it_is() {
    let rig = Rig::new(&[LOCAL]);
    let _worker = listening(&rig);
    let client = rig.client().await;
    let folder = Folder::new();
    let list = Manifest { level: 1, total: 5, names: vec![Digest([1; 32])] }.encode();
    for content in [list.clone(), [list, noise(3 * CHUNK)].concat()] {
        assert!(is_manifest(&content));
        let name = client.put_file(&folder.file("file", &content), |_, _| ()).await.unwrap();
        let mut back = Vec::new();
        client.get_file(name, &mut back, |_, _| ()).await.unwrap();
        assert!(back == content);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_or_contradicting_part_is_an_error_that_names_it() {
    let rig = Rig::new(&[LOCAL]);
    let _worker = listening(&rig);
    let client = rig.client().await;
    let folder = Folder::new();
    let content = noise(3 * CHUNK);
    let name = client.put_file(&folder.file("file", &content), |_, _| ()).await.unwrap();
    let second = name_of(&content[CHUNK..2 * CHUNK]);
    assert!(rig.shelf.holds(second));
    rig.shelf.remove(second);
    let mut back = Vec::new();
    let error = client.get_file(name, &mut back, |_, _| ()).await.unwrap_err();
    assert!(matches!(error, FileError::Missing { name } if name == second), "{error}");
    assert!(back == content[..CHUNK], "what came before was written");

    let first = name_of(&content[..CHUNK]);
    for (level, total, names) in
        [(1, CHUNK as u64 + 5, vec![first, first]), (2, 3 * CHUNK as u64, vec![name]), (3, 2, vec![name])]
    {
        let lying = client.put(&Manifest { level, total, names }.encode()).await.unwrap();
        let error = client.get_file(lying, &mut Vec::new(), |_, _| ()).await.unwrap_err();
        match level {
            2 => assert!(matches!(error, FileError::Missing { .. }), "{error}"),
            _ => assert!(matches!(error, FileError::Manifest { .. }), "{error}"),
        }
    }
    let nowhere = client.put_file(&folder.0.join("none"), |_, _| ()).await.unwrap_err();
    assert!(nowhere.to_string().contains("none"), "{nowhere}");
}

impl Link {
    /// Sends a signal as this client would not.
    async fn say(&self, signal: Signal) {
        let mut stream = self.connection().open_uni().await.unwrap();
        stream.write_all(&signal.encode()).await.unwrap();
        stream.finish().unwrap();
    }

    /// What ended the connection.
    async fn ended(&self) -> String {
        self.connection().closed().await.to_string()
    }
}

#[test]
fn the_close_codes_are_those_that_were_published() {
    let codes = [
        wire::CLOSE_DONE,
        wire::CLOSE_DRAINED,
        wire::CLOSE_SHUTDOWN,
        wire::CLOSE_NO_COMMON_VERSION,
        wire::STOP_UNREAD,
    ];
    assert_eq!(codes.map(VarInt::from_u32), [0u32, 1, 2, 3, 4].map(VarInt::from));
}

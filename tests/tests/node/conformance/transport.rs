//! What servers do to those who ask them: everything is bounded, nothing is followed, nothing is decoded.

use std::time::Duration;

use bumpless_tests::feed_simulator::forge::new_keys;
use bumpless_tests::feed_simulator::{Act, Answer, Simulator};
use bumpless_tests::world::Result;

use super::bench::{Bench, Says, news, same, timestamp};

/// A case, and how these bytes are answered.
type Framed = (&'static str, fn(&[u8]) -> Answer);

const NOTHING_NEW: Says<'_> = Says::Well("nothing newer than 1.0.0");
const BROKEN: Says<'_> = Says::Failed("the answer broke off");

/// For a whole file of metadata: each case of a server that is too slow takes as long.
const PATIENCE: &str = "\n[fetch]\nmetadata_timeout = \"3s\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_misbehaves_costs_bounded_time_and_bytes_and_is_asked_again_later() -> Result<()> {
    let mut bench = Bench::start_with("transport", PATIENCE).await?;
    statuses(&mut bench).await?;
    redirects(&mut bench).await?;
    lengths(&mut bench).await?;
    encodings(&mut bench).await?;
    slowness(&mut bench).await?;
    plaintext(&mut bench).await?;
    bench.finish()
}

async fn statuses(bench: &mut Bench) -> Result<()> {
    bench.fresh().await?;
    bench.forge.next();
    for status in [
        "400 Bad Request",
        "403 Forbidden",
        "451 Unavailable",
        "500 Oh",
        "502 Bad Gateway",
        "206 Partial Content",
    ] {
        let text = format!("the server answers {}", &status[..3]);
        bench.answer_once("timestamp.json", Answer::Status(status));
        bench.look(&format!("timestamp: {status}"), Says::Failed(&text), "root/+1 timestamp", same).await?;
    }
    bench.answer_once("timestamp.json.sigs", Answer::Status("403 Forbidden"));
    let says = Says::Failed("the server answers 403");
    bench.look("signatures: 403", says, "root/+1 timestamp*", same).await?;
    bench.answer_once("index/2.json", Answer::Status("500 Oh"));
    let says = Says::Failed("the server answers 500");
    bench.look("index: 500", says, "root/+1 timestamp* index/2", timestamp).await?;
    bench.answer_once("index/2.json.sigs", Answer::Status("500 Oh"));
    bench.look("an index's signatures: 500", says, "root/+1 timestamp* index/2*", same).await?;
    bench
        .look("well again", NOTHING_NEW, "root/+1 timestamp* index/2*", |shelf, forge| shelf.index(forge))
        .await
}

async fn redirects(bench: &mut Bench) -> Result<()> {
    bench.fresh().await?;
    let elsewhere = Simulator::start().await?;
    elsewhere.offer(&bench.forge.files);
    let there = format!("{}/timestamp.json", elsewhere.url());
    let here = format!("{}/moved/timestamp.json", bench.simulator.url());
    let moved = bench.forge.files["timestamp.json"].clone();
    bench.forge.put("moved/timestamp.json", moved);
    let says = Says::Failed("redirects are not followed");
    for status in [
        "301 Moved",
        "302 Found",
        "303 See Other",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
        "300 Choices",
    ] {
        bench.answer_once("timestamp.json", Answer::Redirect(status, there.clone()));
        bench.look(&format!("to another server: {status}"), says, "root/+1 timestamp", same).await?;
    }
    for to in [
        here.as_str(),
        "/moved/timestamp.json",
        "https://127.0.0.1:1/timestamp.json",
        "file:///etc/passwd",
        "\t",
    ] {
        bench.answer_once("timestamp.json", Answer::Redirect("302 Found", to.to_owned()));
        bench.look(&format!("to {to:?}"), says, "root/+1 timestamp", same).await?;
    }
    let next = format!("root/{}.json", bench.forge.root.version + 1);
    bench.answer_once(&next, Answer::Redirect("302 Found", there.clone()));
    bench.look("the next root, to another server", says, "root/+1", same).await?;
    bench.forge.next();
    bench.answer_once("index/2.json", Answer::Redirect("302 Found", there));
    bench.look("an index, to another server", says, "root/+1 timestamp* index/2", timestamp).await?;
    assert!(elsewhere.take_asked().is_empty(), "a redirect was followed");
    Ok(())
}

/// What is said about the length counts only where it refuses.
async fn lengths(bench: &mut Bench) -> Result<()> {
    bench.fresh().await?;
    bench.forge.tick();
    let bytes = bench.forge.files["timestamp.json"].bytes.clone();
    let (length, half) = (bytes.len() as u64, &bytes[..bytes.len() / 2]);
    let too_large = Says::Refused("larger than the 262144 bytes that are allowed");
    let flood =
        |head: &str| Answer::Wire(vec![Act::Send(head.as_bytes().to_vec()), Act::Flood(vec![b' '; 4096])]);
    let close = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
    for (name, answer, says) in [
        ("cut short", Answer::of_length(length, half), BROKEN),
        ("a byte less than is said", Answer::of_length(length + 1, &bytes), BROKEN),
        ("a length that is refused at once", Answer::of_length(1 << 40, &bytes), too_large),
        ("a length that is no number of ours", Answer::of_length(u64::MAX, &bytes), BROKEN),
        ("a negative length", Answer::with(&["Content-Length: -1"], &bytes), BROKEN),
        ("two lengths", Answer::with(&["Content-Length: 5", "Content-Length: 7"], &bytes), BROKEN),
        ("chunks without end", Answer::endless(), too_large),
        (
            "a chunk without end",
            flood("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n"),
            too_large,
        ),
        (
            "a chunk that is none",
            Answer::with(&["Transfer-Encoding: chunked"], b"zz\r\n{}\r\n0\r\n\r\n"),
            BROKEN,
        ),
        ("chunks without their end", Answer::with(&["Transfer-Encoding: chunked"], b"2\r\n{}\r\n"), BROKEN),
        ("no length and no end", flood(close), too_large),
        (
            "a head without end",
            Answer::Wire(vec![
                Act::Send(b"HTTP/1.1 200 OK\r\n".to_vec()),
                Act::Flood(b"X-More: and more\r\n".to_vec()),
            ]),
            BROKEN,
        ),
        ("a line of the head without end", flood("HTTP/1.1 200 OK\r\nX-More: "), BROKEN),
        ("another protocol", Answer::Wire(vec![Act::Send(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec())]), BROKEN),
        ("nothing", Answer::Wire(vec![]), BROKEN),
    ] {
        bench.answer_once("timestamp.json", answer);
        bench.look(&format!("a timestamp with {name}"), says, "root/+1 timestamp", same).await?;
    }
    bench.answer_once("timestamp.json", Answer::of_length(length / 2, &bytes));
    let says = Says::Refused("the timestamp is refused: it is signed by 0 of the keys that count");
    bench.look("more than is said", says, "root/+1 timestamp*", same).await?;
    bench.answer_once("timestamp.json.sigs", Answer::endless());
    let says = Says::Refused("larger than the 16384 bytes that are allowed");
    bench.look("signatures without end", says, "root/+1 timestamp*", same).await?;
    bench.forge.next();
    bench.answer_once("index/2.json", Answer::endless());
    let text = format!("larger than the {} bytes that are allowed", bench.forge.timestamp.index.size);
    bench.look("an index without end", Says::Refused(&text), "root/+1 timestamp* index/2", timestamp).await
}

/// Bytes count as they are, whatever is said about them; how they are framed is HTTP's business.
async fn encodings(bench: &mut Bench) -> Result<()> {
    bench.fresh().await?;
    for encoding in ["gzip", "deflate", "br", "zstd"] {
        bench.forge.tick();
        let bytes = bench.forge.files["timestamp.json"].bytes.clone();
        let lines = [format!("Content-Length: {}", bytes.len()), format!("Content-Encoding: {encoding}")];
        bench.answer_once("timestamp.json", Answer::with(&[&lines[0], &lines[1]], &bytes));
        let case = format!("said to be encoded: {encoding}");
        bench.look(&case, NOTHING_NEW, "root/+1 timestamp*", timestamp).await?;
    }
    let framings: [Framed; 4] = [
        ("in chunks", |bytes| {
            let (one, two) = bytes.split_at(7);
            let body = [
                &b"7\r\n"[..],
                one,
                b"\r\n",
                format!("{:x};x=y\r\n", two.len()).as_bytes(),
                two,
                b"\r\n0\r\nX: y\r\n\r\n",
            ]
            .concat();
            Answer::with(&["Transfer-Encoding: chunked"], &body)
        }),
        ("until the connection is closed", |bytes| Answer::with(&[], bytes)),
        ("in the old protocol", |bytes| {
            Answer::Wire(vec![Act::Send([&b"HTTP/1.0 200 OK\r\n\r\n"[..], bytes].concat())])
        }),
        ("after a word to go on", |bytes| {
            let head = format!(
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                bytes.len()
            );
            Answer::Wire(vec![Act::Send([head.as_bytes(), bytes].concat())])
        }),
    ];
    for (name, framed) in framings {
        bench.forge.tick();
        bench.answer_once("timestamp.json", framed(&bench.forge.files["timestamp.json"].bytes));
        bench.look(&format!("sent {name}"), NOTHING_NEW, "root/+1 timestamp*", timestamp).await?;
    }
    bench.forge.next();
    bench.look("an index as usual", NOTHING_NEW, "root/+1 timestamp* index/2*", news).await
}

async fn slowness(bench: &mut Bench) -> Result<()> {
    bench.fresh().await?;
    bench.forge.next();
    let late = Says::Failed("took too long");
    let bytes = bench.forge.files["timestamp.json"].bytes.clone();
    let slowly = Duration::from_millis(150);
    let head = format!("HTTP/1.1 200 OK\r\nX-Slow: {}\r\n", "y".repeat(1000)).into_bytes();
    for (name, answer) in [
        ("no answer", Answer::Wire(vec![Act::Hang])),
        ("a byte now and then", Answer::then(bytes.len(), [Act::Drip(bytes.clone(), slowly)])),
        ("half, and then nothing", Answer::then(bytes.len(), [Act::Send(bytes[..50].to_vec()), Act::Hang])),
        ("a head that comes byte by byte", Answer::Wire(vec![Act::Drip(head, slowly)])),
    ] {
        bench.answer_once("timestamp.json", answer);
        bench.look(&format!("a timestamp with {name}"), late, "root/+1 timestamp", same).await?;
    }
    bench.answer_once("index/2.json.sigs", Answer::Wire(vec![Act::Hang]));
    bench
        .look("an index whose signatures never come", late, "root/+1 timestamp* index/2*", timestamp)
        .await?;
    bench
        .look("in time", NOTHING_NEW, "root/+1 timestamp* index/2*", |shelf, forge| shelf.index(forge))
        .await?;

    // An artifact may take long, but not for ever.
    let mut release = bench.forge.release("2.0.0", 1_000_000);
    release.artifacts[0].size = 1_000_000;
    let path = release.artifacts[0].path().display().to_string();
    bench.forge.index.releases.push(release);
    bench.forge.next();
    bench.answer_once(&path, Answer::then(1_000_000, [Act::Drip(vec![b' '; 1000], slowly)]));
    let asked = format!("root/+1 timestamp* index/3* {path}");
    bench.upgrade_fails("an artifact that comes byte by byte", "bytes in a window", &asked).await?;
    bench.forge.rotate(|forge| forge.root_keys = new_keys(1));
    let says = Says::Well("2.0.0 is there");
    bench.look("after all that", says, "root/+1* root/+2 timestamp*", super::bench::root).await
}

/// Plain HTTP is for this machine alone, and a name could lead anywhere.
async fn plaintext(bench: &mut Bench) -> Result<()> {
    let here = bench.world.places().feed.clone();
    for place in ["http://192.0.2.1:1", "http://localhost:1"] {
        place.clone_into(&mut bench.world.places().feed);
        bench.world.configure()?;
        let says = Says::Failed("is not https; plain http is only for loopback addresses");
        bench.restart(&format!("a feed at {place}"), says, "", same).await?;
    }
    bench.world.places().feed = here;
    bench.world.configure()?;
    bench.restart("a feed on this machine", Says::Well(""), "root/+1 timestamp*", same).await
}

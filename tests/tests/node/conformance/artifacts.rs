//! What is to run here: blobs, what builders say about them, and what the index forbids.

use bumpless_shared::digest::Digest;
use bumpless_tests::feed_simulator::forge::{listed, new_keys, signed};
use bumpless_tests::feed_simulator::{Answer, Forge};
use bumpless_tests::files::below;
use bumpless_tests::world::Result;
use bumpless_trust::document::{Elders, Encoding, Stage};
use bumpless_trust::refresh::sha256;

use super::bench::{Bench, Says, all, news, root, same};

/// A case, what is changed, and what is said.
type Changed = (&'static str, fn(&mut Forge), &'static str);

/// A case, what is answered instead of these bytes, and what is said.
type Answered = (&'static str, fn(&[u8]) -> Answer, &'static str);

const NOTHING_NEW: Says<'_> = Says::Well("nothing newer than 1.0.0");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_installed_but_the_signed_bytes_of_a_release_that_may_run_here() -> Result<()> {
    let mut bench = Bench::start("artifacts").await?;
    may_not_run(&mut bench).await?;
    builders(&mut bench).await?;
    blobs(&mut bench).await?;
    bench.finish()
}

/// Release 2.0.0 alone beside the running one, after `change`.
fn offers(forge: &mut Forge, change: impl FnOnce(&mut Forge)) {
    let release = forge.release("2.0.0", 1_000_000);
    forge.index.releases = vec![forge.running().clone(), release];
    change(forge);
    forge.next();
}

async fn may_not_run(bench: &mut Bench) -> Result<()> {
    bench.fresh().await?;
    let index = bench.forge.index.clone();
    let cases: [Changed; 9] = [
        ("a release", |_| {}, "2.0.0 is there"),
        (
            "the running bytes under a new name",
            |forge| {
                let running = forge.running().artifacts.clone();
                forge.index.releases[1].artifacts = running;
            },
            "nothing newer than 1.0.0",
        ),
        (
            "a revoked release",
            |forge| {
                let revoked = forge.index.releases[1].artifacts[0].raw_sha256;
                forge.index.revoked = vec![revoked];
            },
            "2.0.0 is revoked by the publisher",
        ),
        (
            "a release below the floor",
            |forge| forge.index.min_release_counter = 1_000_001,
            "(number 1000000) is older than the oldest that the publisher still allows",
        ),
        (
            "a channel that is paused",
            |forge| forge.index.paused = true,
            "the publisher has paused channel stable",
        ),
        (
            "a release for a later supervisor",
            |forge| forge.index.releases[1].min_supervisor = [99, 0, 0],
            "2.0.0 needs supervisor 99.0.0 or newer",
        ),
        (
            "a release for another machine",
            |forge| forge.index.releases[1].artifacts[0].target = "riscv64gc-unknown-linux-gnu".to_owned(),
            "2.0.0 has no artifact for this machine",
        ),
        (
            "a protocol that is spoken no more",
            |forge| forge.index.protocol_min = u16::MAX,
            "2.0.0 speaks versions",
        ),
        (
            "a rollout that reaches nobody yet",
            |forge| forge.index.releases[1].rollout.stages = vec![Stage { after: 0, permille: 0 }],
            "2.0.0 is not",
        ),
    ];
    for (name, change, words) in cases {
        let version = bench.forge.index.version;
        bench.forge.index = index.clone();
        bench.forge.index.version = version;
        offers(&mut bench.forge, change);
        let asked = format!("root/+1 timestamp* index/{}*", bench.forge.index.version);
        bench.look(name, Says::Well(words), &asked, news).await?;
    }
    bench.forge.rotate(|forge| forge.root.elders = Elders::Required);
    let says = Says::Well("this network's root requires the elders' agreement");
    bench.look("a gate that nobody here can open", says, "root/+1* root/+2 timestamp*", root).await
}

async fn builders(bench: &mut Bench) -> Result<()> {
    bench.fresh().await?;
    let ring = new_keys(3);
    let two = ring[..2].to_vec();
    bench.forge.rotate(|forge| forge.root.builders = Some(listed(2, &ring)));
    offers(&mut bench.forge, |_| {});
    let says =
        Says::Well("2.0.0 needs independent builders who agree: the index names nothing that they signed");
    bench.look("builders who were not asked", says, "root/+1* root/+2 timestamp* index/2*", all).await?;

    // Each attests a release of its own: what once counted need not be asked for again.
    let mut version = 2;
    let mut next = |forge: &mut Forge| {
        version += 1;
        let release = forge.release(&format!("2.0.{version}"), 1_000_000 + version);
        forge.index.releases = vec![forge.running().clone(), release];
    };
    let publish = |forge: &mut Forge, name: Digest| {
        forge.next();
        format!("root/+1 timestamp* index/{}* build/{name}", forge.index.version)
    };
    let one_of_two = Says::Refused("is refused: it is signed by 1 of the keys that count, and needs 2");

    next(&mut bench.forge);
    let name = bench.forge.attest(1, &ring[..1], |_| {});
    let asked = publish(&mut bench.forge, name) + "*";
    bench.look("one builder of two", one_of_two, &asked, news).await?;
    let asked = format!("root/+1 timestamp* build/{name}*");
    bench.look("one builder of two, still", one_of_two, &asked, same).await?;
    bench.forge.attest(1, &[ring[0].clone(), ring[0].clone()], |_| {});
    bench.look("one builder who signs twice", one_of_two, &asked, same).await?;
    let release_key = bench.forge.release_keys[0].clone();
    bench.forge.attest(1, &[ring[0].clone(), release_key], |_| {});
    bench.look("one builder and the release key", one_of_two, &asked, same).await?;
    bench.forge.attest(1, &two, |_| {});
    bench.look("two builders", Says::Well("2.0.3 is there"), &asked, same).await?;
    bench
        .look("two builders, who are known", Says::Well("2.0.3 is there"), "root/+1 timestamp*", same)
        .await?;

    next(&mut bench.forge);
    let name = bench.forge.attest(1, &two, |build| build.artifacts[0].raw_sha256 = sha256(b"other"));
    let asked = publish(&mut bench.forge, name) + "*";
    let says = Says::Well("is not the artifact for this machine");
    bench.look("builders who built something else", says, &asked, news).await?;

    next(&mut bench.forge);
    let name = bench.forge.attest(1, &two, |_| {});
    bench.forge.files.remove(&format!("build/{name}"));
    let asked = publish(&mut bench.forge, name);
    bench
        .look("a builders' file that is not there", Says::Refused("the feed has no build/"), &asked, news)
        .await?;
    bench.answer_once(&format!("build/{name}"), Answer::File(vec![b' '; 16 * 1024 + 1]));
    let says = Says::Refused("larger than the 16384 bytes that are allowed");
    bench.look("one that is too large", says, &format!("root/+1 timestamp* build/{name}"), same).await?;
    bench.forge.attest(1, &two, |_| {});
    let asked = format!("root/+1 timestamp* build/{name}*");
    let mut edited = bench.forge.files[&format!("build/{name}")].clone();
    let good = edited.clone();
    edited.bytes.push(b' ');
    bench.forge.put(&format!("build/{name}"), edited);
    bench.look("one that was edited", Says::Refused("its SHA-256 is"), &asked, same).await?;
    for (comment, says) in [
        ("bumpless/1 builders 7".to_owned(), Says::Refused("it is signed for release number 7 and says")),
        ("bumpless/1 release 1000005".to_owned(), Says::Refused("it is signed by 0 of the keys that count")),
    ] {
        bench.forge.put(&format!("build/{name}"), signed(good.bytes.clone(), &comment, &two));
        bench.look(&format!("one signed as {comment:?}"), says, &asked, same).await?;
    }

    next(&mut bench.forge);
    let name = bench.forge.attest(1, &two, |build| build.network = sha256(b"another"));
    let asked = publish(&mut bench.forge, name) + "*";
    bench.look("one of another network", Says::Refused("it is for network"), &asked, news).await?;

    let good = bench.forge.clone();
    bench.forge.rotate(|forge| forge.root.builders = Some(listed(1, &forge.release_keys)));
    let says = Says::Refused("roles release and builders share a key; one key, one role");
    bench.look("a release key that builds", says, "root/+1*", same).await?;
    bench.forge = good;
    bench.forge.rotate(|forge| forge.root.builders = None);
    let says = Says::Well("2.0.6 is there");
    bench.look("a root that asks no builders", says, "root/+1* root/+2 timestamp*", root).await
}

/// A zstd frame of zeros: this window descriptor, and blocks that repeat one byte so often each.
fn zeros(window: u8, blocks: &[u32]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, window];
    for (at, size) in blocks.iter().enumerate() {
        let last = u32::from(at + 1 == blocks.len());
        frame.extend_from_slice(&(last | 1 << 1 | size << 3).to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

/// A window of 1 MiB.
const WINDOW: u8 = 0x50;

/// The index offers another release each time, whose blob should be `blob`, and hold so many bytes of that
/// SHA-256.
fn offers_blob(forge: &mut Forge, number: u64, blob: &[u8], raw: (u64, Digest)) -> String {
    let mut release = forge.release(&format!("2.1.{number}"), 2_000_000 + number);
    let artifact = &mut release.artifacts[0];
    artifact.encoding = Encoding::Zstd;
    (artifact.size, artifact.sha256) = (blob.len() as u64, sha256(blob));
    (artifact.raw_size, artifact.raw_sha256) = raw;
    let path = artifact.path().display().to_string();
    forge.index.releases = vec![forge.running().clone(), release];
    forge.next();
    path
}

async fn blobs(bench: &mut Bench) -> Result<()> {
    bench.fresh().await?;
    // Each has bytes of its own: nothing of another can be taken for it.
    let blob = |number: u64| [zeros(WINDOW, &[1000]), number.to_le_bytes().to_vec()].concat();
    let cases: [Answered; 9] = [
        ("that is not there", |_| Answer::Status("404 Not Found"), "the feed has no such file"),
        ("that cannot be had", |_| Answer::Status("500 Oh"), "the server answers 500"),
        (
            "that is elsewhere",
            |_| Answer::Redirect("302 Found", "http://127.0.0.1:1/".into()),
            "redirects are not followed",
        ),
        ("of other bytes", |blob| Answer::File(vec![7; blob.len()]), "the artifact's SHA-256 is"),
        ("of a byte more", |blob| Answer::File([blob, &[0]].concat()), "bytes that are allowed"),
        ("of a byte less", |blob| Answer::File(blob[1..].to_vec()), "bytes long instead of the signed"),
        ("without end", |_| Answer::endless(), "bytes that are allowed"),
        ("that breaks off", |blob| Answer::of_length(blob.len() as u64, &blob[1..]), "the answer broke off"),
        (
            "that is an index",
            |_| Answer::File(b"{\"type\":\"index\"}".to_vec()),
            "bytes long instead of the signed",
        ),
    ];
    for (number, (name, answer, words)) in (0..).zip(cases) {
        let blob = blob(number);
        let path = offers_blob(&mut bench.forge, number, &blob, (1000, sha256(&number.to_le_bytes())));
        bench.answer_once(&path, answer(&blob));
        let asked = format!("root/+1 timestamp* index/{}* {path}", bench.forge.index.version);
        bench.upgrade_fails(&format!("a blob {name}"), words, &asked).await?;
    }

    // Signed, every one of them, and no artifact.
    let good = zeros(WINDOW, &[1000]);
    let bomb = zeros(WINDOW, &[128 * 1024; 512]);
    let mut dictionary = good.clone();
    dictionary[4] = 0x01;
    let cases = [
        ("unpacks to 64 MiB", bomb, 1000, "it unpacks to more than the signed 1000 bytes"),
        ("unpacks to a byte more", good.clone(), 999, "it unpacks to more than the signed 999 bytes"),
        ("unpacks to a byte less", good.clone(), 1001, "it unpacks to 1000 bytes instead of the signed 1001"),
        ("unpacks to other bytes", good.clone(), 1000, "unpacked, its SHA-256 is"),
        ("is not packed", b"#!/bin/sh\nreboot\n".to_vec(), 1000, "does not begin with a zstd frame"),
        ("is an archive", b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec(), 1000, "does not begin with a zstd frame"),
        ("needs a dictionary", dictionary, 1000, "does not begin with a zstd frame"),
        ("wants a window of 16 MiB", zeros(0x70, &[1000]), 1000, "a window of 16777216 bytes"),
        ("wants a window of 2 TiB", zeros(0xff, &[1000]), 1000, "unpacking it would take a window of"),
        (
            "is two",
            [good.clone(), zeros(WINDOW, &[1])].concat(),
            1000,
            "something follows the end of its only zstd frame",
        ),
        ("ends in the middle", good[..good.len() - 1].to_vec(), 1000, "cannot install release"),
    ];
    for (number, (name, blob, size, words)) in (100..).zip(cases) {
        // Of a release that failed here no other is taken, whatever it is called; so each is another.
        let path = offers_blob(&mut bench.forge, number, &blob, (size, sha256(name.as_bytes())));
        bench.answer_once(&path, Answer::File(blob));
        let asked = format!("root/+1 timestamp* index/{}* {path}", bench.forge.index.version);
        bench.upgrade_fails(&format!("a blob that {name}"), words, &asked).await?;
    }
    let left = below(&bench.world.state_dir().join("staging"))?;
    assert!(left.is_empty(), "left in staging: {:?}", left.keys());
    bench.forge.index.releases.truncate(1);
    bench.forge.next();
    let asked = format!("root/+1 timestamp* index/{}*", bench.forge.index.version);
    bench.look("none of them any more", NOTHING_NEW, &asked, news).await
}

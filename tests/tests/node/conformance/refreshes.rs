//! What a good feed has, what it lacks, what has expired, and what is still to come.

use bumpless_tests::feed_simulator::forge::{DAY, new_keys, signed};
use bumpless_tests::feed_simulator::{Answer, Forge};
use bumpless_tests::world::Result;
use bumpless_trust::Role;
use bumpless_trust::document::{Artifact, TIMESTAMP_VALID};
use bumpless_trust::signature::trusted_comment;

use super::bench::{Bench, Says, Shelf, all, news, root, same, timestamp};

const NOTHING_NEW: Says<'_> = Says::Well("nothing newer than 1.0.0");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn news_is_taken_up_step_by_step_and_what_is_expired_missing_or_from_the_future_is_not() -> Result<()> {
    let mut bench = Bench::start("refreshes").await?;
    a_good_feed(&mut bench).await?;
    a_feed_with_gaps(&mut bench).await?;
    expiry(&mut bench).await?;
    validity(&mut bench).await?;
    evolution(&mut bench).await?;
    // Last: the clock only goes forward.
    time_passes(&mut bench).await?;
    bench.finish()
}

async fn a_good_feed(bench: &mut Bench) -> Result<()> {
    bench.fresh().await?;
    bench.look("no news", NOTHING_NEW, "root/+1 timestamp*", same).await?;
    bench.forge.tick();
    bench.look("a timestamp that was renewed", NOTHING_NEW, "root/+1 timestamp*", timestamp).await?;
    bench.forge.next();
    bench.look("the next index", NOTHING_NEW, "root/+1 timestamp* index/2*", news).await?;
    (bench.forge.index.version, bench.forge.timestamp.version) = (7, 70);
    bench.forge.publish();
    bench.look("versions that were never seen", NOTHING_NEW, "root/+1 timestamp* index/7*", news).await?;
    let newer = bench.forge.release("2.0.0", 1_000_000);
    bench.forge.index.releases.push(newer);
    bench.forge.next();
    bench.look("a release", Says::Well("2.0.0 is there"), "root/+1 timestamp* index/8*", news).await?;
    bench.look("the same release", Says::Well("2.0.0 is there"), "root/+1 timestamp*", same).await?;
    bench.forge.index.releases.pop();
    bench.forge.next();
    bench.look("a release that is withdrawn", NOTHING_NEW, "root/+1 timestamp* index/9*", news).await?;
    // Byte for byte the same, with a signature more: the newer signatures are kept.
    let by = [bench.forge.timestamp_keys.clone(), new_keys(1)].concat();
    let bytes = bench.forge.files["timestamp.json"].bytes.clone();
    let comment = trusted_comment(Role::Timestamp, bench.forge.timestamp.version);
    bench.forge.put("timestamp.json", signed(bytes, &comment, &by));
    bench.look("a timestamp that was signed twice", NOTHING_NEW, "root/+1 timestamp*", timestamp).await
}

async fn a_feed_with_gaps(bench: &mut Bench) -> Result<()> {
    bench.fresh().await?;
    bench.answer_once("timestamp.json", Answer::Status("404 Not Found"));
    let asked = "root/+1 timestamp";
    bench.look("no timestamp", Says::Refused("the feed has no timestamp.json"), asked, same).await?;
    bench.forge.tick();
    bench.answer_once("timestamp.json.sigs", Answer::Status("404 Not Found"));
    let says = Says::Refused("the timestamp is refused: it has no signatures");
    bench.look("a timestamp without .sigs", says, "root/+1 timestamp*", same).await?;
    bench.forge.next();
    bench.answer_once("index/2.json", Answer::Status("404 Not Found"));
    let says = Says::Refused("the feed has no index 2, which its timestamp names");
    bench.look("no index", says, "root/+1 timestamp* index/2", timestamp).await?;
    bench.answer_once("index/2.json.sigs", Answer::Status("404 Not Found"));
    let says = Says::Refused("the index is refused: it has no signatures");
    bench.look("an index without .sigs", says, "root/+1 timestamp* index/2*", same).await?;
    let keeps_the_index = |shelf: Shelf, forge: &Forge| shelf.index(forge);
    bench.look("the index at last", NOTHING_NEW, "root/+1 timestamp* index/2*", keeps_the_index).await?;
    // What is kept already is not asked for again, so what a mirror makes of it does not matter.
    bench.forge.put("index/2.json", signed(b"edited".to_vec(), "", &[]));
    bench.look("an index that is known", NOTHING_NEW, "root/+1 timestamp*", same).await?;
    let next = bench.forge.root.version + 1;
    bench.answer_once(&format!("root/{next}.json"), Answer::Status("410 Gone"));
    bench.look("a root that is gone for good", NOTHING_NEW, "root/+1 timestamp*", same).await
}

async fn expiry(bench: &mut Bench) -> Result<()> {
    bench.fresh().await?;
    let now = bench.forge.now;
    bench.forge.timestamp.expires = now - 1;
    bench.forge.tick();
    bench
        .look(
            "a timestamp that is expired",
            Says::Refused("the timestamp expired on"),
            "root/+1 timestamp*",
            same,
        )
        .await?;
    bench.forge.date();
    bench.forge.index.expires = now - 1;
    bench.forge.next();
    let asked = "root/+1 timestamp* index/2*";
    bench.look("an index that is expired", Says::Refused("the index expired on"), asked, timestamp).await?;
    bench.forge.date();
    bench.forge.next();
    bench.look("the next one is not", NOTHING_NEW, "root/+1 timestamp* index/3*", news).await?;
    bench.forge.rotate(|forge| forge.root.expires = now - 1);
    bench.forge.next();
    bench
        .look("a root that is expired", Says::Refused("the root expired on"), "root/+1* root/+2", root)
        .await?;
    bench.forge.rotate(|forge| forge.root.expires = now + DAY);
    bench.look("the root after it", NOTHING_NEW, "root/+1* root/+2 timestamp* index/4*", all).await?;
    bench.forge.rotate(|forge| forge.root.expires = now - 1);
    bench.forge.rotate(|forge| forge.root.expires = now - 2);
    bench.forge.rotate(|forge| forge.root.expires = now + DAY);
    let asked = "root/+1* root/+2* root/+3* root/+4 timestamp*";
    bench.look("expired roots on the way to one that is not", NOTHING_NEW, asked, root).await
}

async fn validity(bench: &mut Bench) -> Result<()> {
    bench.fresh().await?;
    let now = bench.forge.now;
    bench.forge.timestamp.expires = now + TIMESTAMP_VALID + 1;
    bench.forge.tick();
    let says = Says::Refused("the timestamp would be valid for 259201 s, the root allows 259200 s");
    bench.look("a timestamp that is valid for too long", says, "root/+1 timestamp*", same).await?;
    bench.forge.timestamp.expires = now + TIMESTAMP_VALID;
    bench.forge.publish_timestamp();
    bench.look("for as long as is allowed", NOTHING_NEW, "root/+1 timestamp*", timestamp).await?;
    let good = bench.forge.clone();
    bench.forge.rotate(|forge| forge.root.timestamp_valid = Some(30 * DAY + 1));
    let says = Says::Refused("it lets a timestamp be valid for 2592001 s");
    bench.look("a root that allows more than is allowed", says, "root/+1*", same).await?;
    bench.forge = good;
    bench.forge.rotate(|forge| forge.root.timestamp_valid = Some(30 * DAY));
    bench.forge.timestamp.expires = now + 30 * DAY;
    bench.forge.tick();
    let root_and_timestamp = |shelf: Shelf, forge: &Forge| shelf.root(forge).timestamp(forge);
    bench.look("a root for a lab", NOTHING_NEW, "root/+1* root/+2 timestamp*", root_and_timestamp).await?;
    (bench.forge.timestamp.issued, bench.forge.timestamp.expires) = (now + 3600, now + DAY);
    bench.forge.tick();
    let says = Says::Refused("the timestamp was signed on");
    bench.look("a timestamp from the future", says, "root/+1 timestamp*", same).await?;
    bench.forge.timestamp.issued = now + 300;
    bench.forge.publish_timestamp();
    bench.look("as far ahead as clocks may differ", NOTHING_NEW, "root/+1 timestamp*", timestamp).await?;
    bench.forge.index.issued = now + 3600;
    bench.forge.next();
    let asked = "root/+1 timestamp* index/2*";
    bench
        .look("an index from the future", Says::Refused("the index was signed on"), asked, timestamp)
        .await?;
    bench.forge.index.issued = now;
    bench.forge.next();
    bench.look("an index of today", NOTHING_NEW, "root/+1 timestamp* index/3*", news).await
}

async fn evolution(bench: &mut Bench) -> Result<()> {
    bench.fresh().await?;
    // The next spec, under names of its own, signed by the same keys; it goes its own way.
    for (name, role, keys) in [
        ("root/2.json", Role::Root, bench.forge.root_keys.clone()),
        ("timestamp.json", Role::Timestamp, bench.forge.timestamp_keys.clone()),
        ("index/2.json", Role::Release, bench.forge.release_keys.clone()),
    ] {
        let text = format!("{{\"type\":\"{}\",\"spec\":2,\"version\":2,\"all\":[\"new\"]}}", role.file());
        let signed = signed(text.into_bytes(), &trusted_comment(role, 2), &keys);
        bench.forge.put(&format!("2/{name}"), signed);
    }
    bench.forge.next();
    bench.look("beside a feed of the next spec", NOTHING_NEW, "root/+1 timestamp* index/2*", news).await?;

    // In our place each of them is refused by its number.
    let good = bench.forge.clone();
    let next_spec = |text: String| text.replacen("\"spec\":1", "\"spec\":2,\"unheard_of\":true", 1);
    bench.forge.timestamp.version += 1;
    let text = serde_json::to_string(&bench.forge.timestamp)?;
    bench.forge.publish_timestamp_bytes(next_spec(text).into_bytes());
    let says = Says::Refused("the timestamp is refused: its spec is 2, this supervisor reads 1");
    bench.look("a timestamp of the next spec in our place", says, "root/+1 timestamp*", same).await?;
    bench.forge = good.clone();
    bench.forge.root.version += 1;
    let text = next_spec(serde_json::to_string(&bench.forge.root)?);
    bench.forge.publish_root_bytes(text.into_bytes(), &good.root_keys);
    let says = Says::Refused("the root is refused: its spec is 2, this supervisor reads 1");
    bench.look("a root of the next spec in our place", says, "root/+1*", same).await?;
    bench.forge = good;
    bench.forge.next_bytes(next_spec);
    let says = Says::Refused("the index is refused: its spec is 2, this supervisor reads 1");
    bench
        .look("an index of the next spec in our place", says, "root/+1 timestamp* index/3*", timestamp)
        .await?;

    let anything = serde_json::json!({"a": [1.5, {"b": null}], "version": -1});
    let serde_json::Value::Object(anything) = anything else { unreachable!() };
    bench.forge.timestamp.x = anything.clone();
    bench.forge.index.x = anything.clone();
    bench.forge.index.releases[0].x = anything.clone();
    bench.forge.rotate(|forge| forge.root.x = anything);
    bench.forge.next();
    bench.look("anything in x", NOTHING_NEW, "root/+1* root/+2 timestamp* index/4*", all).await?;

    let unknown = "\"artifacts\":[{\"kind\":\"wasm-judge\",\"anything\":{\"goes\":[1.5]}},";
    bench.forge.next_bytes(|text| text.replacen("\"artifacts\":[", unknown, 1));
    bench.look("an artifact of an unknown kind", NOTHING_NEW, "root/+1 timestamp* index/5*", news).await?;
    let mut judge = bench.forge.release("2.0.0", 1_000_000);
    let artifact: Artifact = judge.artifacts.remove(0);
    bench.forge.index.releases.push(judge);
    let text = format!("\"artifacts\":[{}]", serde_json::to_string(&artifact)?);
    let text = text.replacen("\"worker\"", "\"wasm-judge\"", 1);
    bench.forge.next_bytes(|index| index.replacen("\"artifacts\":[]", &text, 1));
    let says = Says::Well("2.0.0 has no artifact for this machine");
    bench.look("a release of nothing else", says, "root/+1 timestamp* index/6*", news).await
}

/// What is kept may be expired; it is still what the next file is measured by.
async fn time_passes(bench: &mut Bench) -> Result<()> {
    bench.fresh().await?;
    bench.set_clock(-2 * DAY as i64)?;
    bench.look("a clock before what was verified", Says::Refused("set the clock"), "", same).await?;
    bench.set_clock(0)?;
    bench.look("a clock that was set right", NOTHING_NEW, "root/+1 timestamp*", same).await?;

    let says = Says::Refused("the timestamp expired on");
    bench.time_passes("a feed that is frozen", 4 * DAY, |_| {}, says, "root/+1 timestamp*", same).await?;
    let index = bench.forge.index.clone();
    bench.forge.date();
    bench.forge.index = index;
    bench.forge.tick();
    bench.look("from an expired timestamp to the next", NOTHING_NEW, "root/+1 timestamp*", timestamp).await?;

    let a_new_timestamp = |forge: &mut Forge| {
        (forge.timestamp.issued, forge.timestamp.expires) = (forge.now, forge.now + DAY);
        forge.tick();
    };
    let says = Says::Refused("the index expired on");
    let (case, asked) = ("an index that is known and expired", "root/+1 timestamp* index/1*");
    bench.time_passes(case, 40 * DAY, a_new_timestamp, says, asked, timestamp).await?;
    bench.forge.date();
    bench.forge.next();
    bench.look("from an expired index to the next", NOTHING_NEW, "root/+1 timestamp* index/2*", news).await?;

    let all_but_a_root = |forge: &mut Forge| {
        forge.date();
        forge.next();
    };
    let (case, says) = ("a root that has expired here", Says::Refused("the root expired on"));
    bench.time_passes(case, 400 * DAY, all_but_a_root, says, "root/+1", same).await?;
    bench.forge.rotate(|_| {});
    bench
        .look("from an expired root to the next", NOTHING_NEW, "root/+1* root/+2 timestamp* index/3*", all)
        .await
}

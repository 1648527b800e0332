//! What was seen once is not taken back: rollback, the same version with other bytes, an index that is not
//! the one that is named; and how a network recovers that somebody has led ahead.

use bumpless_tests::feed_simulator::forge::{listed, new_keys, signed};
use bumpless_tests::feed_simulator::{Answer, Forge};
use bumpless_tests::world::Result;
use bumpless_trust::Role;
use bumpless_trust::refresh::sha256;
use bumpless_trust::signature::trusted_comment;

use super::bench::{Bench, Says, Shelf, all, news, root, same, timestamp};

const NOTHING_NEW: Says<'_> = Says::Well("nothing newer than 1.0.0");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_is_never_followed_back_and_new_keys_undo_what_stolen_ones_have_led_ahead() -> Result<()> {
    let mut bench = Bench::start("versions").await?;
    rollback(&mut bench).await?;
    mix_and_match(&mut bench).await?;
    fast_forward(&mut bench).await?;
    rotated_roles(&mut bench).await?;
    bench.finish()
}

async fn rollback(bench: &mut Bench) -> Result<()> {
    bench.fresh().await?;
    let first = bench.forge.clone();
    bench.forge.next();
    bench.look("the second of each", NOTHING_NEW, "root/+1 timestamp* index/2*", news).await?;
    let second = bench.forge.clone();

    bench.forge = first.clone();
    let says = Says::Refused("the feed offers timestamp 1, but 2 was seen already: the feed was set back");
    bench.look("a feed that was set back", says, "root/+1 timestamp*", same).await?;

    bench.forge = second.clone();
    bench.forge.timestamp.expires += 1;
    bench.forge.publish_timestamp();
    let says = Says::Refused("timestamp 2 has changed since it was first seen");
    bench.look("another timestamp of this version", says, "root/+1 timestamp*", same).await?;

    bench.forge = second.clone();
    bench.forge.timestamp.index = first.timestamp.index;
    bench.forge.tick();
    let says = Says::Refused("the feed offers index 1, but 2 was seen already: the feed was set back");
    bench.look("a new timestamp that names an old index", says, "root/+1 timestamp*", same).await?;

    bench.forge = second.clone();
    bench.forge.index.expires += 1;
    bench.forge.publish_index();
    bench.forge.tick();
    let says = Says::Refused("index 2 has changed since it was first seen");
    bench.look("another index of this version", says, "root/+1 timestamp*", same).await?;

    // A role's version is its own: a root that changes no key of a role takes nothing back for it.
    bench.forge = second.clone();
    bench.forge.rotate(|forge| forge.root_keys = new_keys(1));
    let rotated = bench.forge.clone();
    bench.forge.put("timestamp.json", first.files["timestamp.json"].clone());
    let says = Says::Refused("the feed offers timestamp 1, but 2 was seen already");
    bench.look("set back, with a new root key", says, "root/+1* root/+2 timestamp*", root).await?;
    bench.forge = rotated;
    bench.look("the second of each, once more", NOTHING_NEW, "root/+1 timestamp*", same).await
}

async fn mix_and_match(bench: &mut Bench) -> Result<()> {
    bench.fresh().await?;
    let first = bench.forge.files["index/1.json"].clone();
    let asked = "root/+1 timestamp* index/2*";
    bench.forge.next();
    let second = bench.forge.files["index/2.json"].clone();

    bench.forge.put("index/2.json", first.clone());
    let not_it = Says::Refused("index 2 is not the one that the timestamp names");
    bench.look("another index under its name", not_it, asked, timestamp).await?;

    let mut edited = second.clone();
    let last = edited.bytes.len() - 1;
    edited.bytes[last] = b' ';
    bench.forge.put("index/2.json", edited);
    bench.look("an index that was edited", not_it, asked, same).await?;

    bench.forge.put("index/2.json", second.clone());
    let good = bench.forge.timestamp.index;
    bench.forge.timestamp.index.sha256 = sha256(b"another");
    bench.forge.tick();
    bench.look("a timestamp that names another hash", not_it, asked, timestamp).await?;
    bench.forge.timestamp.index = good;
    bench.forge.timestamp.index.size += 1;
    bench.forge.tick();
    bench.look("a timestamp that names a byte more", not_it, asked, timestamp).await?;
    bench.forge.timestamp.index.size -= 2;
    bench.forge.tick();
    let text = format!("larger than the {} bytes that are allowed", good.size - 1);
    let says = Says::Refused(&text);
    bench.look("a timestamp that names a byte less", says, "root/+1 timestamp* index/2", timestamp).await?;
    bench.forge.timestamp.index.size = 256 * 1024 + 1;
    bench.forge.tick();
    let says = Says::Refused("the index is 262145 bytes long, at most 262144 are read");
    bench.look("a timestamp that names too large an index", says, "root/+1 timestamp*", same).await?;

    // The right bytes in the wrong place: signed as version 2, named as version 3.
    bench.forge.timestamp.index = good;
    bench.forge.timestamp.index.version = 3;
    bench.forge.put("index/3.json", second);
    bench.forge.tick();
    let says = Says::Refused("says it is version 2");
    bench.look("an old index as the next one", says, "root/+1 timestamp* index/3*", timestamp).await?;
    bench.forge.index.version = 3;
    let bytes = serde_json::to_vec(&bench.forge.index)?;
    bench.forge.publish_index_bytes(bytes.clone());
    let comment = trusted_comment(Role::Release, 4);
    let signed_as_another = signed(bytes, &comment, &bench.forge.release_keys);
    bench.forge.put("index/3.json", signed_as_another);
    bench.forge.tick();
    let says = Says::Refused("the index is signed as version 4 and says it is version 3");
    bench.look("an index signed as another", says, "root/+1 timestamp* index/3*", timestamp).await?;
    bench.forge.next();
    bench.look("the index that is named", NOTHING_NEW, "root/+1 timestamp* index/4*", news).await
}

async fn fast_forward(bench: &mut Bench) -> Result<()> {
    bench.fresh().await?;
    let honest = bench.forge.clone();
    let rotates_timestamps = |forge: &mut Forge| forge.timestamp_keys = new_keys(1);
    let rotates_releases = |forge: &mut Forge| forge.release_keys = new_keys(1);
    let root_and_timestamp = |shelf: Shelf, forge: &Forge| shelf.root(forge).timestamp(forge);

    bench.forge.timestamp.version = u64::MAX;
    bench.forge.publish_timestamp();
    bench.look("the last timestamp that there can be", NOTHING_NEW, "root/+1 timestamp*", timestamp).await?;
    bench.forge = honest;
    bench.forge.tick();
    let says = Says::Refused("the feed offers timestamp 2, but 18446744073709551615 was seen already");
    bench.look("an honest one behind it", says, "root/+1 timestamp*", same).await?;
    bench.forge.rotate(rotates_timestamps);
    bench.forge.timestamp.version = 0;
    bench.forge.tick();
    let asked = "root/+1* root/+2 timestamp*";
    bench.look("new keys for timestamps", NOTHING_NEW, asked, root_and_timestamp).await?;

    let honest = bench.forge.clone();
    bench.forge.index.version = u64::MAX;
    bench.forge.publish_index();
    bench.forge.tick();
    let asked = "root/+1 timestamp* index/18446744073709551615*";
    bench.look("the last index that there can be", NOTHING_NEW, asked, news).await?;
    bench.forge = honest;
    bench.forge.next();
    bench.forge.tick();
    let says = Says::Refused("the feed offers index 2, but 18446744073709551615 was seen already");
    bench.look("an honest one behind it", says, "root/+1 timestamp*", same).await?;
    bench.forge.rotate(rotates_releases);
    bench.forge.publish_index();
    bench.forge.tick();
    let asked = "root/+1* root/+2 timestamp* index/2*";
    bench.look("new keys for indexes", NOTHING_NEW, asked, all).await?;

    // With stolen timestamp keys alone: an index is named that nobody can have signed.
    let honest = bench.forge.clone();
    bench.forge.timestamp.index.version = u64::MAX;
    bench.forge.tick();
    let (asked, says) =
        ("root/+1 timestamp* index/18446744073709551615", Says::Refused("the feed has no index"));
    bench.look("an index that is only named", says, asked, timestamp).await?;
    bench.forge = honest;
    bench.forge.next();
    bench.forge.tick();
    let says = Says::Refused("the feed offers index 3, but 18446744073709551615 was seen already");
    bench.look("an honest one behind it", says, "root/+1 timestamp*", same).await?;
    bench.forge.rotate(rotates_timestamps);
    bench.forge.publish_timestamp();
    let asked = "root/+1* root/+2 timestamp* index/3*";
    bench.look("new keys for timestamps are enough", NOTHING_NEW, asked, all).await
}

async fn rotated_roles(bench: &mut Bench) -> Result<()> {
    bench.fresh().await?;
    for _ in 0..2 {
        bench.forge.next();
    }
    bench.look("the third of each", NOTHING_NEW, "root/+1 timestamp* index/3*", news).await?;

    // Forgotten at each step of the chain, even if the last root has the first one's keys again.
    let (timestamps, releases) = (bench.forge.timestamp_keys.clone(), bench.forge.release_keys.clone());
    bench.forge.rotate(|forge| (forge.timestamp_keys, forge.release_keys) = (new_keys(1), new_keys(1)));
    bench.forge.rotate(|forge| (forge.timestamp_keys, forge.release_keys) = (timestamps, releases));
    (bench.forge.timestamp.version, bench.forge.index.version) = (1, 1);
    bench.forge.publish();
    let asked = "root/+1* root/+2* root/+3 timestamp* index/1*";
    bench.look("other keys and the same again", NOTHING_NEW, asked, all).await?;

    // Forgotten even if nothing new can be had: what rotated keys have signed does not count.
    bench.forge.rotate(|forge| (forge.timestamp_keys, forge.release_keys) = (new_keys(1), new_keys(1)));
    bench.forge.publish();
    bench.answer_once("timestamp.json", Answer::Status("500 Internal Server Error"));
    let forgotten =
        |shelf: Shelf, forge: &Forge| shelf.root(forge).without(Role::Timestamp).without(Role::Release);
    let says = Says::Failed("the server answers 500");
    bench.look("new keys, and nothing signed by them", says, "root/+1* root/+2 timestamp", forgotten).await?;
    bench.look("what they sign", NOTHING_NEW, "root/+1 timestamp* index/1*", news).await?;

    // A threshold that rises above what is kept: it was signed by too few.
    bench.forge.rotate(|forge| {
        forge.timestamp_keys.extend(new_keys(1));
        forge.release_keys.extend(new_keys(1));
    });
    bench.forge.publish();
    let asked = "root/+1* root/+2 timestamp* index/1*";
    bench.look("a key more for each role", NOTHING_NEW, asked, all).await?;
    let both = (bench.forge.timestamp_keys.clone(), bench.forge.release_keys.clone());
    (bench.forge.timestamp_keys, bench.forge.release_keys) = (both.0[..1].to_vec(), both.1[..1].to_vec());
    bench.forge.next();
    bench.look("signed by one of two", NOTHING_NEW, "root/+1 timestamp* index/2*", news).await?;
    (bench.forge.timestamp_keys, bench.forge.release_keys) = both;
    bench.forge.rotate(|forge| {
        forge.root.timestamp = listed(2, &forge.timestamp_keys);
        forge.root.release = listed(2, &forge.release_keys);
    });
    let says =
        Says::Refused("the timestamp is refused: it is signed by 1 of the keys that count, and needs 2");
    bench.look("both are needed now", says, "root/+1* root/+2 timestamp*", forgotten).await?;
    bench.forge.publish();
    bench.look("signed by both", NOTHING_NEW, "root/+1 timestamp* index/2*", news).await?;
    // And falls again: what is kept has enough.
    bench.forge.rotate(|forge| {
        forge.root.timestamp = listed(1, &forge.timestamp_keys);
        forge.root.release = listed(1, &forge.release_keys);
    });
    bench.look("one is enough again", NOTHING_NEW, "root/+1* root/+2 timestamp*", root).await
}

//! From one root to the next: who has to have signed, what may be left out (nothing), and what no root may
//! say.

use std::sync::Arc;

use bumpless_tests::feed_simulator::forge::{DAY, key, listed, new_keys, signatures, signed};
use bumpless_tests::feed_simulator::{Answer, Forge, Keyring};
use bumpless_tests::world::Result;
use bumpless_trust::signature::trusted_comment;
use bumpless_trust::{Role, Signed};

use super::bench::{Bench, Says, Shelf, root, same};

const NOTHING_NEW: Says<'_> = Says::Well("nothing newer than 1.0.0");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_is_followed_only_by_the_next_one_signed_by_both_and_fit_for_use() -> Result<()> {
    let mut bench = Bench::start("roots").await?;
    rotations(&mut bench).await?;
    steps(&mut bench).await?;
    errors(&mut bench).await?;
    contents(&mut bench).await?;
    many(&mut bench).await?;
    bench.finish()
}

/// A root: which of ten keys it lists, how many of them have to sign the next, and which have signed it.
struct Step(&'static [usize], u8, &'static [usize]);

struct Rotation {
    name: &'static str,
    /// The first is trusted already.
    steps: &'static [Step],
    /// How many signatures the last one has and needs, where it is refused for them.
    refused: Option<(usize, usize)>,
}

const fn good(name: &'static str, steps: &'static [Step]) -> Rotation {
    Rotation { name, steps, refused: None }
}

const fn bad(name: &'static str, steps: &'static [Step], have: usize, need: usize) -> Rotation {
    Rotation { name, steps, refused: Some((have, need)) }
}

const ALL: &[usize] = &[0, 1, 2, 3, 4];

const ROTATIONS: [Rotation; 20] = [
    good("one key for another", &[Step(&[1], 1, &[1]), Step(&[2], 1, &[2, 1]), Step(&[2], 1, &[2])]),
    good(
        "with signatures that count for nothing",
        &[Step(&[1], 1, &[3, 1, 4]), Step(&[2], 1, &[3, 2, 1, 4]), Step(&[2], 1, &[3, 2, 4])],
    ),
    good(
        "three of five, other ones each time",
        &[
            Step(ALL, 3, &[0, 2, 4]),
            Step(ALL, 3, &[0, 4, 1]),
            Step(ALL, 3, &[0, 1, 3]),
            Step(ALL, 3, &[0, 1, 3]),
        ],
    ),
    good("three of five, one replaced", &[Step(ALL, 3, &[0, 2, 4]), Step(&[0, 1, 3, 4, 5], 3, &[0, 4, 1])]),
    good(
        "three of five, one replaced, signed by three of each",
        &[
            Step(ALL, 3, &[0, 2, 4]),
            Step(&[0, 1, 3, 4, 5], 3, &[0, 2, 4, 5]),
            Step(&[0, 1, 3, 4, 5], 3, &[0, 4, 5]),
        ],
    ),
    good(
        "three of five, all replaced",
        &[
            Step(ALL, 3, &[0, 2, 4]),
            Step(&[5, 6, 7, 8, 9], 3, &[0, 2, 4, 5, 6, 7]),
            Step(&[5, 6, 7, 8, 9], 3, &[5, 6, 7]),
        ],
    ),
    good("threshold raised", &[Step(&[1, 2, 3], 1, &[1]), Step(&[1, 2, 3], 2, &[1, 2])]),
    good(
        "threshold lowered",
        &[Step(&[1, 2, 3], 2, &[1, 2]), Step(&[1, 2, 3], 1, &[1, 2]), Step(&[1, 2, 3], 1, &[1])],
    ),
    good("threshold raised with a key more", &[Step(&[1], 1, &[1]), Step(&[1, 2], 2, &[1, 2])]),
    good("a key less", &[Step(&[1, 2], 1, &[1, 2]), Step(&[1], 1, &[1])]),
    good("away and back", &[Step(&[1], 1, &[1]), Step(&[2], 1, &[1, 2]), Step(&[1], 1, &[1, 2])]),
    bad("not signed by the old key", &[Step(&[1], 1, &[1]), Step(&[2], 1, &[2, 3, 4])], 0, 1),
    bad("not signed by the new key", &[Step(&[1], 1, &[1]), Step(&[2], 1, &[1, 3, 4])], 0, 1),
    bad("signed by strangers", &[Step(&[1], 1, &[1]), Step(&[1], 1, &[3, 4])], 0, 1),
    bad("not by three of the new", &[Step(ALL, 3, &[0, 2, 4]), Step(&[0, 1, 3, 4, 5], 3, &[0, 2, 4])], 2, 3),
    bad("not by three of the old", &[Step(ALL, 3, &[0, 2, 4]), Step(&[0, 1, 3, 4, 5], 3, &[0, 4, 5])], 2, 3),
    bad("not by as many as the new one needs", &[Step(&[1, 2, 3], 1, &[1]), Step(&[1, 2, 3], 2, &[2])], 1, 2),
    bad(
        "not by as many as the old one needs",
        &[Step(&[1, 2, 3], 2, &[1, 2]), Step(&[1, 2, 3], 1, &[1])],
        1,
        2,
    ),
    bad("one key that signs twice", &[Step(&[1, 2], 2, &[1, 2]), Step(&[1, 2], 2, &[1, 1])], 1, 2),
    bad(
        "in the second of two steps",
        &[Step(&[1], 1, &[1]), Step(&[2], 1, &[1, 2]), Step(&[3], 1, &[1, 3])],
        0,
        1,
    ),
];

async fn rotations(bench: &mut Bench) -> Result<()> {
    bench.fresh().await?;
    let ten = new_keys(10);
    for Rotation { name, steps, refused } in ROTATIONS {
        // To the first of them from wherever the case before has ended.
        let everybody = [bench.forge.root_keys.clone(), ten.clone()].concat();
        step(&mut bench.forge, &steps[0], &ten, &everybody);
        bench.look(&format!("{name}: the first"), NOTHING_NEW, "root/+1* root/+2 timestamp*", root).await?;
        let mut believed = bench.forge.clone();
        for (at, next) in steps.iter().enumerate().skip(1) {
            let by: Keyring = next.2.iter().map(|number| Arc::clone(&ten[*number])).collect();
            step(&mut bench.forge, next, &ten, &by);
            if refused.is_none() || at + 1 < steps.len() {
                believed = bench.forge.clone();
            }
        }
        let mut asked: String = (1..steps.len()).map(|more| format!("root/+{more}* ")).collect();
        let text = refused.map(|(have, need)| {
            format!("the root is refused: it is signed by {have} of the keys that count, and needs {need}")
        });
        let says = match &text {
            None => {
                asked.push_str(&format!("root/+{} timestamp*", steps.len()));
                NOTHING_NEW
            }
            Some(text) => Says::Refused(text),
        };
        let version = believed.root.version;
        bench.look(name, says, &asked, |shelf, forge| shelf.root_at(forge, version)).await?;
        bench.forge = believed;
        bench.forge.root_keys.clear();
    }
    bench.forge.root_keys = ten;
    Ok(())
}

fn step(forge: &mut Forge, Step(keys, threshold, _): &Step, ten: &Keyring, by: &Keyring) {
    forge.root.version += 1;
    forge.root.root = listed(*threshold, &keys.iter().map(|key| Arc::clone(&ten[*key])).collect::<Keyring>());
    forge.publish_root(by);
}

/// Exactly the next version, and nothing else.
async fn steps(bench: &mut Bench) -> Result<()> {
    bench.fresh().await?;
    let good = bench.forge.clone();
    let (version, by) = (good.root.version, good.root_keys.clone());
    let place = format!("root/{}.json", version + 1);
    for (name, says_version) in
        [("the one after the next", version + 2), ("the same", version), ("the one before", version - 1)]
    {
        bench.forge.root.version = says_version;
        let bytes = serde_json::to_vec(&bench.forge.root)?;
        let as_it_says = signed(bytes.clone(), &trusted_comment(Role::Root, says_version), &by);
        bench.forge.put(&place, as_it_says);
        let text = format!("the next root has version {says_version} instead of {}", version + 1);
        let case = format!("in the place of the next root, {name}");
        bench.look(&case, Says::Refused(&text), "root/+1*", same).await?;
        bench.forge.put(&place, signed(bytes, &trusted_comment(Role::Root, version + 1), &by));
        let text =
            format!("the root is signed as version {} and says it is version {says_version}", version + 1);
        bench.look(&format!("{case}, signed as the next"), Says::Refused(&text), "root/+1*", same).await?;
        bench.forge = good.clone();
    }
    bench.forge.put(&place, good.files[&format!("root/{version}.json")].clone());
    let text = format!("the next root has version {version} instead of {}", version + 1);
    bench.look("the root that is in force, once more", Says::Refused(&text), "root/+1*", same).await?;
    bench.forge = good.clone();
    bench.forge.rotate(|_| {});
    bench.forge.rotate(|_| {});
    let gap = bench.forge.files.remove(&place).ok_or("no such root")?;
    bench.look("a root that is missing before another", NOTHING_NEW, "root/+1 timestamp*", same).await?;
    bench.forge.put(&place, gap);
    bench.look("no gap", NOTHING_NEW, "root/+1* root/+2* root/+3 timestamp*", root).await?;
    // A second one of a version that is in force is never asked for.
    let forge = &mut bench.forge;
    forge.root.expires += DAY;
    forge.publish_root(&forge.root_keys.clone());
    bench.look("another root of this version", NOTHING_NEW, "root/+1 timestamp*", same).await
}

/// Only "not found" is the end of the chain.
async fn errors(bench: &mut Bench) -> Result<()> {
    bench.fresh().await?;
    let next = format!("root/{}.json", bench.forge.root.version + 1);
    for (status, says) in [
        ("400 Bad Request", Says::Failed("the server answers 400")),
        ("401 Unauthorized", Says::Failed("the server answers 401")),
        ("403 Forbidden", Says::Failed("the server answers 403")),
        ("429 Too Many Requests", Says::Failed("the server answers 429")),
        ("500 Internal Server Error", Says::Failed("the server answers 500")),
        ("503 Service Unavailable", Says::Failed("the server answers 503")),
        ("204 No Content", Says::Failed("the server answers 204")),
        ("304 Not Modified", Says::Failed("redirects are not followed")),
    ] {
        bench.answer_once(&next, Answer::Status(status));
        bench.look(&format!("the next root: {status}"), says, "root/+1", same).await?;
    }
    bench.answer_once(&next, Answer::File(vec![b' '; 256 * 1024 + 1]));
    let says = Says::Refused("larger than the 262144 bytes that are allowed");
    bench.look("the next root: too large", says, "root/+1", same).await?;
    bench.answer_once(&next, Answer::File(b"what is not signed is not read".to_vec()));
    let says = Says::Refused("the root is refused: it has no signatures");
    bench.look("the next root: unsigned", says, "root/+1*", same).await?;
    bench.forge.rotate(|_| {});
    bench.answer_once(&format!("{next}.sigs"), Answer::Status("500 Internal Server Error"));
    bench.look("its signatures: 500", Says::Failed("the server answers 500"), "root/+1*", same).await?;
    bench.answer_once(&format!("{next}.sigs"), Answer::Status("404 Not Found"));
    let says = Says::Refused("the root is refused: it has no signatures");
    bench.look("its signatures: 404", says, "root/+1*", same).await?;
    let after = format!("root/{}.json", bench.forge.root.version + 1);
    bench.answer_once(&after, Answer::Status("500 Internal Server Error"));
    bench
        .look("the one after it: 500", Says::Failed("the server answers 500"), "root/+1* root/+2", root)
        .await?;
    bench.look("and it is the last", NOTHING_NEW, "root/+1 timestamp*", same).await
}

/// What no root may say, however well it is signed.
async fn contents(bench: &mut Bench) -> Result<()> {
    bench.fresh().await?;
    let good = bench.forge.clone();
    let timestamp_key = good.root.timestamp.keys[0].clone();
    let quoted = |key: &str| format!("\"{key}\"");
    let (root_key, release_key) = (good.root.root.keys[0].clone(), good.root.release.keys[0].clone());
    let many: Vec<String> = new_keys(17).iter().map(|pair| quoted(&pair.pk.to_base64())).collect();
    let twice = format!("{0},{0}", quoted(&timestamp_key));
    // The same key under another key id: the second to ninth byte.
    let other_id =
        format!("RW{}{}", if timestamp_key.as_bytes()[2] == b'Q' { 'R' } else { 'Q' }, &timestamp_key[3..]);
    let two_ids = format!("{},{}", quoted(&timestamp_key), quoted(&other_id));
    let weak = "RWQBAgMEBQYHCOz///////////////////////////////////////9/";
    let keys = |list: &str| format!("\"timestamp\":{{\"threshold\":1,\"keys\":[{list}]");
    let one = keys(&quoted(&timestamp_key));
    let edits: [(&str, String, String, &str); 22] = [
        ("a threshold of 0", one.clone(), one.replace(":1,", ":0,"), "it is not of the expected shape"),
        ("a threshold of -1", one.clone(), one.replace(":1,", ":-1,"), "it is not of the expected shape"),
        ("a threshold of 1.0", one.clone(), one.replace(":1,", ":1.0,"), "it is not of the expected shape"),
        (
            "a threshold that cannot be reached",
            one.clone(),
            one.replace(":1,", ":2,"),
            "2 signatures are required of 1 distinct keys",
        ),
        ("no keys", one.clone(), keys(""), "1 signatures are required of 0 distinct keys"),
        (
            "one key twice for two",
            one.clone(),
            keys(&twice).replace(":1,", ":2,"),
            "2 signatures are required of 1 distinct keys",
        ),
        (
            "one key under two ids for two",
            one.clone(),
            keys(&two_ids).replace(":1,", ":2,"),
            "2 signatures are required of 1 distinct keys",
        ),
        ("more keys than are read", one.clone(), keys(&many.join(",")), "17 keys, at most 16 are allowed"),
        ("a weak key", one.clone(), keys(&quoted(weak)), "is a small-order point"),
        ("what is no key", one.clone(), keys("\"../../etc/passwd\""), "is not a minisign public key"),
        (
            "a key for two roles",
            one.clone(),
            keys(&quoted(&release_key)),
            "roles release and timestamp share a key",
        ),
        (
            "a root key for timestamps",
            one.clone(),
            keys(&quoted(&root_key)),
            "roles root and timestamp share a key",
        ),
        ("another network", good.root.network.to_string(), "ab".repeat(32), "the root is for network abab"),
        ("another type", "\"type\":\"root\"".into(), "\"type\":\"index\"".into(), "its type is \"index\""),
        ("no type", "\"type\":\"root\",".into(), String::new(), "it is not of the expected shape"),
        (
            "no version",
            format!("\"version\":{},", good.root.version + 1),
            String::new(),
            "it is not of the expected shape",
        ),
        ("an unknown field", "\"spec\":1".into(), "\"spec\":1,\"y\":1".into(), "unknown field `y`"),
        ("a field twice", "\"spec\":1".into(), "\"spec\":1,\"spec\":1".into(), "duplicate field"),
        (
            "an unknown field of a role",
            "{\"threshold\"".into(),
            "{\"y\":1,\"threshold\"".into(),
            "unknown field `y`",
        ),
        ("an unknown gate", "\"off\"".into(), "\"sometimes\"".into(), "unknown variant `sometimes`"),
        ("a byte before it", "{\"type\"".into(), " {\"type\"".into(), "the first byte is not {"),
        (
            "something behind it",
            "\"elders\":\"off\"}".into(),
            "\"elders\":\"off\"}{}".into(),
            "it is not of the expected shape",
        ),
    ];
    for (name, from, to, words) in edits {
        bench.forge.root.version += 1;
        let text = serde_json::to_string(&bench.forge.root)?;
        let edited = text.replacen(&from, &to, 1);
        assert_ne!(text, edited, "{name}");
        bench.forge.publish_root_bytes(edited.into_bytes(), &good.root_keys);
        bench.look(&format!("a root with {name}"), Says::Refused(words), "root/+1*", same).await?;
        bench.forge = good.clone();
    }
    // Good signatures by the right keys, which say something else.
    bench.forge.root.version += 1;
    let (version, bytes) = (bench.forge.root.version, serde_json::to_vec(&bench.forge.root)?);
    for comment in [
        trusted_comment(Role::Timestamp, version),
        trusted_comment(Role::Release, version),
        format!("bumpless/2 root {version}"),
        format!("bumpless/1 root 0{version}"),
    ] {
        let place = format!("root/{version}.json");
        let signatures = signatures(&bytes, &comment, &good.root_keys).into_bytes();
        bench.forge.put(&place, Signed { bytes: bytes.clone(), signatures });
        let says = Says::Refused("it is signed by 0 of the keys that count, and needs 1");
        bench.look(&format!("a root signed as {comment:?}"), says, "root/+1*", same).await?;
    }
    bench.forge = good.clone();
    bench.forge.root.version += 1;
    bench.forge.publish_root(&[good.timestamp_keys.clone(), good.release_keys.clone(), vec![key()]].concat());
    let says = Says::Refused("it is signed by 0 of the keys that count, and needs 1");
    bench.look("a root signed by every other role", says, "root/+1*", same).await?;
    bench.forge = good;
    bench.look("nothing of all this is kept", NOTHING_NEW, "root/+1 timestamp*", same).await
}

/// Sixty-four in one look; the rest in the next.
async fn many(bench: &mut Bench) -> Result<()> {
    bench.fresh().await?;
    let first = bench.forge.root.version;
    (0..66).for_each(|_| bench.forge.rotate(|_| {}));
    let asked: String = (1..=65).map(|more| format!("root/+{more}* ")).collect();
    let says = Says::Refused("the feed has more than 64 new roots; the next check goes on");
    let keeps = |shelf: Shelf, forge: &Forge| shelf.root_at(forge, first + 64);
    bench.look("more than 64 new roots", says, &asked, keeps).await?;
    bench.look("the rest of them", NOTHING_NEW, "root/+1* root/+2* root/+3 timestamp*", root).await
}

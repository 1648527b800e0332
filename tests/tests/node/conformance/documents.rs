//! What is signed well and says what no file may say: it is read strictly, to the last byte.

use bumpless_tests::feed_simulator::Forge;
use bumpless_tests::feed_simulator::forge::signed;
use bumpless_tests::world::Result;
use bumpless_trust::Role;
use bumpless_trust::signature::trusted_comment;

use super::bench::{Bench, Says, news, same, timestamp};

/// A case, what is changed, and what is said.
type Changed<'a> = (&'a str, fn(&mut Forge), &'a str);

const NOTHING_NEW: Says<'_> = Says::Well("nothing newer than 1.0.0");
const SHAPE: &str = "it is not of the expected shape";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_file_is_exactly_what_it_should_be_or_it_is_refused() -> Result<()> {
    let mut bench = Bench::start("documents").await?;
    indexes(&mut bench).await?;
    timestamps(&mut bench).await?;
    in_each_others_place(&mut bench).await?;
    sizes(&mut bench).await?;
    bench.finish()
}

/// Once in the text, `from` becomes `to`.
fn edited(text: String, from: &str, to: &str) -> String {
    let edited = text.replacen(from, to, 1);
    assert_ne!(text, edited, "{from} is not in {text}");
    edited
}

async fn indexes(bench: &mut Bench) -> Result<()> {
    bench.fresh().await?;
    let deep = format!("\"x\":{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200));
    let (paused, x, worker) = ("\"paused\":false", "\"x\":{}", "\"kind\":\"worker\"");
    let cases = [
        ("an unknown field", x, "\"x\":{},\"y\":1", "unknown field `y`"),
        (
            "an unknown field of a release",
            "\"urgent\":false",
            "\"urgent\":false,\"y\":1",
            "unknown field `y`",
        ),
        ("an unknown field of an artifact", worker, "\"kind\":\"worker\",\"y\":1", "unknown field `y`"),
        ("a path to run", "\"commit\":", "\"path\":\"/bin/sh\",\"commit\":", "unknown field `path`"),
        ("an unknown field of a rollout", "\"salt\":", "\"y\":1,\"salt\":", "unknown field `y`"),
        ("an unknown field of a range", "\"read_min\":", "\"y\":1,\"read_min\":", "unknown field `y`"),
        ("x that is no object", x, "\"x\":1", SHAPE),
        ("x without end", x, deep.as_str(), SHAPE),
        ("a field twice", paused, "\"paused\":false,\"paused\":true", "duplicate field `paused`"),
        ("x twice", x, "\"x\":{},\"x\":{}", "duplicate field `x`"),
        (
            "a type twice",
            "\"type\":\"index\"",
            "\"type\":\"index\",\"type\":\"index\"",
            "duplicate field `type`",
        ),
        ("a kind twice", worker, "\"kind\":\"worker\",\"kind\":\"wasm-judge\"", "duplicate field `kind`"),
        (
            "the same kind twice, once known",
            worker,
            "\"kind\":\"wasm-judge\",\"kind\":\"worker\"",
            "duplicate field `kind`",
        ),
        ("a size twice", "\"raw_size\":", "\"raw_size\":1,\"raw_size\":", "duplicate field `raw_size`"),
        ("a field in another case", paused, "\"Paused\":false", "unknown field `Paused`"),
        (
            "a field written otherwise, twice",
            paused,
            "\"paused\":false,\"\\u0070aused\":true",
            "duplicate field `paused`",
        ),
        ("a field less", "\"paused\":false,", "", "missing field `paused`"),
        ("nothing for a value", paused, "\"paused\":null", SHAPE),
        ("a number for a word", paused, "\"paused\":0", SHAPE),
        ("a word for a number", "\"min_release_counter\":0", "\"min_release_counter\":\"0\"", SHAPE),
        ("a fraction", "\"min_release_counter\":0", "\"min_release_counter\":0.0", SHAPE),
        ("an exponent", "\"min_release_counter\":0", "\"min_release_counter\":1e3", SHAPE),
        ("a negative number", "\"min_release_counter\":0", "\"min_release_counter\":-1", SHAPE),
        (
            "a number of 65 bits",
            "\"min_release_counter\":0",
            "\"min_release_counter\":18446744073709551616",
            SHAPE,
        ),
        ("a number with a zero in front", "\"min_release_counter\":0", "\"min_release_counter\":00", SHAPE),
        ("a space before it", "{\"type\"", " {\"type\"", "the first byte is not {"),
        ("a byte order mark before it", "{\"type\"", "\u{feff}{\"type\"", "the first byte is not {"),
        ("a list around it", "{\"type\"", "[{\"type\"", "the first byte is not {"),
        ("a comment", "{\"type\"", "{/**/\"type\"", SHAPE),
        ("another type", "\"type\":\"index\"", "\"type\":\"timestamp\"", "its type is \"timestamp\""),
        ("spec 0", "\"spec\":1", "\"spec\":0", "its spec is 0, this supervisor reads 1"),
        (
            "another channel",
            "\"channel\":\"stable\"",
            "\"channel\":\"beta\"",
            "the index is for channel beta, this machine follows stable",
        ),
        ("a channel that is a path", "\"channel\":\"stable\"", "\"channel\":\"../stable\"", SHAPE),
        ("a release that is a path", "\"release\":\"1.0.0\"", "\"release\":\"../../bin\"", SHAPE),
        ("a release that is a command", "\"release\":\"1.0.0\"", "\"release\":\"1.0.0;reboot\"", SHAPE),
        (
            "a release that moves the cursor",
            "\"release\":\"1.0.0\"",
            "\"release\":\"1.0.0\\u001b[2J\"",
            SHAPE,
        ),
        ("a release without a name", "\"release\":\"1.0.0\"", "\"release\":\"\"", SHAPE),
        ("a target that is a path", "\"target\":\"", "\"target\":\"../", "a target is not 1 to 64 of"),
        ("a hash that is a path", "\"sha256\":\"", "\"sha256\":\"../", SHAPE),
        ("a hash in capitals and short", "\"raw_sha256\":\"", "\"raw_sha256\":\"AB\",\"was\":\"", SHAPE),
        (
            "a stage above all machines",
            "\"permille\":1000",
            "\"permille\":1001",
            "do not rise from 0 to 1000",
        ),
    ];
    for (name, from, to, words) in cases {
        bench.forge.next_bytes(|text| edited(text, from, to));
        let asked = format!("root/+1 timestamp* index/{}*", bench.forge.index.version);
        bench.look(&format!("an index with {name}"), Says::Refused(words), &asked, timestamp).await?;
    }
    let behind: [fn(String) -> String; 3] =
        [|text| format!("{text}{{}}"), |text| format!("{text}\0"), |text| text[..text.len() - 1].to_owned()];
    for (at, edit) in behind.into_iter().enumerate() {
        bench.forge.next_bytes(edit);
        let asked = format!("root/+1 timestamp* index/{}*", bench.forge.index.version);
        bench
            .look(&format!("an index with another end ({at})"), Says::Refused(SHAPE), &asked, timestamp)
            .await?;
    }
    // What no type can see.
    let twice = |text: &str| format!("release {text} is listed twice");
    let (named, counted) = (twice("1.0.0 or its counter 5"), bench.forge.running().counter);
    let counted = twice(&format!("2.0.0 or its counter {counted}"));
    let contents: [Changed<'_>; 7] = [
        (
            "a name twice",
            |forge| {
                let it = forge.release("1.0.0", 5);
                forge.index.releases.push(it);
            },
            &named,
        ),
        (
            "a place in the order twice",
            |forge| {
                let it = forge.release("2.0.0", forge.running().counter);
                forge.index.releases.push(it);
            },
            &counted,
        ),
        (
            "a protocol that nobody can speak",
            |forge| (forge.index.releases[0].protocol.min, forge.index.releases[0].protocol.max) = (9, 8),
            "a range of versions is empty",
        ),
        (
            "a contract that nobody can speak",
            |forge| (forge.index.releases[0].contract.min, forge.index.releases[0].contract.max) = (9, 8),
            "a range of versions is empty",
        ),
        (
            "a state that it could not read itself",
            |forge| forge.index.releases[0].state.write = 99,
            "it could not read the state that it writes",
        ),
        (
            "two artifacts for one machine",
            |forge| {
                let it = forge.index.releases[0].artifacts[0].clone();
                forge.index.releases[0].artifacts.push(it);
            },
            "two artifacts are of the same kind for the same target",
        ),
        (
            "an artifact of no bytes",
            |forge| forge.index.releases[0].artifacts[0].size = 0,
            "the sizes or hashes of an artifact contradict each other",
        ),
    ];
    for (name, change, words) in contents {
        let index = bench.forge.index.clone();
        change(&mut bench.forge);
        bench.forge.next();
        let asked = format!("root/+1 timestamp* index/{}*", bench.forge.index.version);
        bench.look(&format!("an index with {name}"), Says::Refused(words), &asked, timestamp).await?;
        let version = bench.forge.index.version;
        bench.forge.index = index;
        bench.forge.index.version = version;
    }
    // Text for people may be anything; it is never read by a shell, a terminal or a file system.
    bench.forge.index.releases[0].build.commit =
        "\"; reboot\n\u{1b}[2J'$(reboot)`reboot`\0../../etc".to_owned();
    bench.forge.index.releases[0].rollout.salt = "'; drop table \"x\"\u{202e}".to_owned();
    bench.forge.next();
    let asked = format!("root/+1 timestamp* index/{}*", bench.forge.index.version);
    bench.look("quotes, lines and commands in its texts", NOTHING_NEW, &asked, news).await?;
    bench.forge.next_bytes(|text| text.replace(',', " ,\n\t"));
    let asked = format!("root/+1 timestamp* index/{}*", bench.forge.index.version);
    bench.look("other spaces, signed as they are", NOTHING_NEW, &asked, news).await
}

async fn timestamps(bench: &mut Bench) -> Result<()> {
    bench.fresh().await?;
    let cases = [
        ("an unknown field", "\"spec\":1", "\"spec\":1,\"y\":1", "unknown field `y`"),
        ("an unknown field of what it names", "\"size\":", "\"y\":1,\"size\":", "unknown field `y`"),
        (
            "an address for what it names",
            "\"size\":",
            "\"url\":\"http://127.0.0.1/\",\"size\":",
            "unknown field `url`",
        ),
        ("a field twice", "\"spec\":1", "\"spec\":1,\"spec\":1", "duplicate field `spec`"),
        ("a version twice", "\"version\":", "\"version\":1,\"version\":", "duplicate field `version`"),
        ("a field less", "\"channel\":\"stable\",", "", "missing field `channel`"),
        ("a negative size", "\"size\":", "\"size\":-", SHAPE),
        ("a name instead of a hash", "\"sha256\":\"", "\"sha256\":\"../../root/", SHAPE),
        ("another type", "\"type\":\"timestamp\"", "\"type\":\"root\"", "its type is \"root\""),
        (
            "another channel",
            "\"channel\":\"stable\"",
            "\"channel\":\"beta\"",
            "the timestamp is for channel beta, this machine follows stable",
        ),
        ("a channel that is a path", "\"channel\":\"stable\"", "\"channel\":\"sta/ble\"", SHAPE),
        ("a byte before it", "{\"type\"", "\n{\"type\"", "the first byte is not {"),
        ("a byte order mark before it", "{\"type\"", "\u{feff}{\"type\"", "the first byte is not {"),
        ("something behind it", "}}", "}}null", SHAPE),
        ("no number for a version", "\"version\":", "\"version\":\"latest\",\"was\":", SHAPE),
        ("a list for what it names", "\"index\":{", "\"index\":[],\"was\":{", SHAPE),
    ];
    for (name, from, to, words) in cases {
        bench.forge.timestamp.version += 1;
        let text = serde_json::to_string(&bench.forge.timestamp)?;
        bench.forge.publish_timestamp_bytes(edited(text, from, to).into_bytes());
        bench
            .look(&format!("a timestamp with {name}"), Says::Refused(words), "root/+1 timestamp*", same)
            .await?;
    }
    let network = bench.forge.root.network.to_string();
    bench.forge.timestamp.version += 1;
    let text = serde_json::to_string(&bench.forge.timestamp)?;
    bench.forge.publish_timestamp_bytes(edited(text, &network, &"cd".repeat(32)).into_bytes());
    let says = Says::Refused("the timestamp is for network cdcd");
    bench.look("a timestamp of another network", says, "root/+1 timestamp*", same).await?;
    bench.forge.next_bytes(|text| edited(text, &network, &"cd".repeat(32)));
    let says = Says::Refused("the index is for network cdcd");
    bench.look("an index of another network", says, "root/+1 timestamp* index/2*", timestamp).await?;
    // For another version than it says.
    bench.forge.timestamp.version += 1;
    let bytes = serde_json::to_vec(&bench.forge.timestamp)?;
    let version = bench.forge.timestamp.version + 1;
    let by = bench.forge.timestamp_keys.clone();
    bench.forge.put("timestamp.json", signed(bytes, &trusted_comment(Role::Timestamp, version), &by));
    let text = format!("the timestamp is signed as version {version} and says it is version {}", version - 1);
    bench.look("a timestamp signed as another", Says::Refused(&text), "root/+1 timestamp*", same).await
}

/// Each file where another belongs: the signatures are of another role, and would be even if the keys were
/// the same.
async fn in_each_others_place(bench: &mut Bench) -> Result<()> {
    bench.fresh().await?;
    let good = bench.forge.clone();
    let (root, index) =
        (good.files[&format!("root/{}.json", good.root.version)].clone(), good.files["index/1.json"].clone());
    let none = "it is signed by 0 of the keys that count, and needs 1";
    for (name, file) in [("an index", index.clone()), ("a root", root.clone())] {
        bench.forge.put("timestamp.json", file);
        bench
            .look(&format!("{name} for a timestamp"), Says::Refused(none), "root/+1 timestamp*", same)
            .await?;
    }
    let next = format!("root/{}.json", good.root.version + 1);
    for (name, file) in [("an index", index), ("a timestamp", good.files["timestamp.json"].clone())] {
        bench.forge = good.clone();
        bench.forge.put(&next, file);
        bench.look(&format!("{name} for a root"), Says::Refused(none), "root/+1*", same).await?;
    }
    // Signed by the right keys as the right role, and still another file.
    bench.forge = good.clone();
    bench.forge.timestamp.version += 1;
    bench.forge.publish_timestamp_bytes(good.files["index/1.json"].bytes.clone());
    let says = Says::Refused("the timestamp is refused: its type is \"index\"");
    bench.look("an index signed as a timestamp", says, "root/+1 timestamp*", same).await?;
    bench.forge = good.clone();
    bench.forge.next_bytes(|_| String::from_utf8_lossy(&root.bytes).into_owned());
    let says = Says::Refused("the index is refused: its type is \"root\"");
    bench.look("a root signed as an index", says, "root/+1 timestamp* index/2*", timestamp).await?;
    let timestamp_keys = bench.forge.timestamp_keys.clone();
    let releases = std::mem::replace(&mut bench.forge.release_keys, timestamp_keys);
    bench.forge.next();
    let says = Says::Refused("the index is refused: it is signed by 0 of the keys that count, and needs 1");
    bench
        .look("an index signed by the timestamp's key", says, "root/+1 timestamp* index/3*", timestamp)
        .await?;
    bench.forge.release_keys = releases.clone();
    let timestamps = std::mem::replace(&mut bench.forge.timestamp_keys, releases);
    bench.forge.next();
    let says =
        Says::Refused("the timestamp is refused: it is signed by 0 of the keys that count, and needs 1");
    bench.look("a timestamp signed by the index's key", says, "root/+1 timestamp*", same).await?;
    bench.forge.timestamp_keys = timestamps;
    bench.forge.next();
    bench.look("each by its own", NOTHING_NEW, "root/+1 timestamp* index/5*", news).await
}

/// 256 KiB, and not a byte more.
async fn sizes(bench: &mut Bench) -> Result<()> {
    const MOST: usize = 256 * 1024;
    bench.fresh().await?;
    let padded = |text: String, size: usize| {
        let pad = "p".repeat(size - text.len() - "\"pad\":\"\"".len());
        edited(text, "\"x\":{}", &format!("\"x\":{{\"pad\":\"{pad}\"}}"))
    };
    bench.forge.next_bytes(|text| padded(text, MOST));
    assert_eq!(bench.forge.files["index/2.json"].bytes.len(), MOST);
    bench.look("the largest index", NOTHING_NEW, "root/+1 timestamp* index/2*", news).await?;
    bench.forge.next_bytes(|text| padded(text, MOST + 1));
    let says = Says::Refused("the index is 262145 bytes long, at most 262144 are read");
    bench.look("a byte more", says, "root/+1 timestamp*", same).await?;
    // Said to be smaller than it is.
    bench.forge.timestamp.index.size = MOST as u64;
    bench.forge.tick();
    let says = Says::Refused("larger than the 262144 bytes that are allowed");
    bench.look("a byte more than is said", says, "root/+1 timestamp* index/3", timestamp).await?;
    let text = serde_json::to_string(&bench.forge.timestamp)?;
    let pad = format!("}},\"x\":{{\"pad\":\"{}\"}}}}", "p".repeat(MOST));
    bench.forge.timestamp.version += 1;
    bench.forge.publish_timestamp_bytes(edited(text, "}}", &pad).into_bytes());
    bench.look("a timestamp without end", says, "root/+1 timestamp", same).await?;
    bench.forge.next();
    bench.look("a feed of the usual size", NOTHING_NEW, "root/+1 timestamp* index/4*", news).await
}

//! Who has to have signed, as what, how often, and in what form.

use std::process::{Command, Stdio};
use std::sync::Arc;

use bumpless_tests::feed_simulator::forge::{key, listed, new_keys, signatures};
use bumpless_tests::feed_simulator::{Answer, Forge, Keyring};
use bumpless_tests::left_out::left_out;
use bumpless_tests::world::Result;
use bumpless_trust::signature::trusted_comment;
use bumpless_trust::{Role, Signed};
use minisign::KeyPair;

use super::bench::{Bench, Says, Shelf, all, news, same, timestamp};

const NOTHING_NEW: Says<'_> = Says::Well("nothing newer than 1.0.0");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_counts_when_enough_distinct_keys_of_its_role_have_signed_it_as_what_it_is() -> Result<()> {
    let mut bench = Bench::start("signatures").await?;
    combinations(&mut bench).await?;
    counting(&mut bench).await?;
    form(&mut bench).await?;
    bench.finish()
}

/// Keys of a role, the threshold, who signs, and how many of them count if that is too few.
type Combination = (&'static str, &'static [usize], u8, &'static [usize], Option<usize>);

const COMBINATIONS: [Combination; 10] = [
    ("one new key", &[2], 1, &[2], None),
    ("one key, and signatures that count for nothing", &[1], 1, &[3, 1, 4], None),
    ("the key before, and strangers", &[2], 1, &[1, 3, 4], Some(0)),
    ("three of five, one of them a stranger", &[0, 1, 3, 4, 5], 3, &[0, 2, 4], Some(2)),
    ("two where three are needed", &[0, 1, 3, 4, 5], 3, &[0, 4], Some(2)),
    ("three of five", &[0, 1, 2, 3, 4], 3, &[0, 2, 4], None),
    ("three others", &[0, 1, 2, 3, 4], 3, &[0, 4, 1], None),
    ("the last three", &[0, 1, 2, 3, 4], 3, &[2, 3, 4], None),
    ("all five", &[0, 1, 2, 3, 4], 5, &[4, 3, 2, 1, 0], None),
    ("one where two are needed", &[1, 2], 2, &[2], Some(1)),
];

/// Each for both roles: first the timestamp's keys, then the index's.
async fn combinations(bench: &mut Bench) -> Result<()> {
    let ten = new_keys(10);
    let ring = |numbers: &[usize]| numbers.iter().map(|key| Arc::clone(&ten[*key])).collect::<Keyring>();
    for (name, keys, threshold, by, too_few) in COMBINATIONS {
        for role in [Role::Timestamp, Role::Release] {
            bench.fresh().await?;
            let good = bench.forge.clone();
            bench.forge.root.version += 1;
            match role {
                Role::Timestamp => {
                    bench.forge.root.timestamp = listed(threshold, &ring(keys));
                    bench.forge.timestamp_keys = ring(by);
                }
                Role::Release => {
                    bench.forge.root.release = listed(threshold, &ring(keys));
                    bench.forge.release_keys = ring(by);
                }
                Role::Root => {}
            }
            bench.forge.publish_root(&good.root_keys);
            bench.forge.publish();
            let text = too_few.map(|have| {
                let file = role.file();
                format!("the {file} is refused: it is signed by {have} of the keys that count, and needs {threshold}")
            });
            let case = format!("{name}: {}", role.file());
            let says = text.as_deref().map_or(NOTHING_NEW, Says::Refused);
            match (role, too_few) {
                (Role::Timestamp, None) => {
                    let keeps = |shelf: Shelf, forge: &Forge| shelf.root(forge).timestamp(forge);
                    bench.look(&case, says, "root/+1* root/+2 timestamp*", keeps).await?;
                }
                (Role::Timestamp, Some(_)) => {
                    let keeps = |shelf: Shelf, forge: &Forge| shelf.root(forge).without(role);
                    bench.look(&case, says, "root/+1* root/+2 timestamp*", keeps).await?;
                }
                (Role::Release | Role::Root, None) => {
                    bench.look(&case, says, "root/+1* root/+2 timestamp* index/1*", all).await?;
                }
                (Role::Release | Role::Root, Some(_)) => {
                    let keeps =
                        |shelf: Shelf, forge: &Forge| shelf.root(forge).timestamp(forge).without(role);
                    bench.look(&case, says, "root/+1* root/+2 timestamp* index/1*", keeps).await?;
                }
            }
        }
    }
    Ok(())
}

/// A signature by the minisign tool in its old format: over the bytes themselves instead of their hash. `None`, and
/// said, where there is no such tool.
fn legacy(bytes: &[u8], comment: &str, by: &KeyPair) -> Result<Option<String>> {
    let dir = tempfile::tempdir()?;
    let [file, secret, signature] = ["file", "key", "signature"].map(|name| dir.path().join(name));
    std::fs::write(&file, bytes)?;
    std::fs::write(&secret, by.sk.to_box(None)?.to_string())?;
    let mut tool = Command::new("minisign");
    tool.args(["-S", "-l", "-t", comment])
        .arg("-s")
        .arg(&secret)
        .arg("-x")
        .arg(&signature)
        .arg("-m")
        .arg(&file);
    match tool.stdin(Stdio::null()).output() {
        Ok(said) if said.status.success() => Ok(Some(std::fs::read_to_string(&signature)?)),
        Ok(said) => Err(String::from_utf8_lossy(&said.stderr).into()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            left_out("a signature in the old format counts for nothing", "minisign is not installed");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Two of three have to sign the timestamp. What is tried is always its next version.
async fn counting(bench: &mut Bench) -> Result<()> {
    bench.fresh().await?;
    let ring = new_keys(3);
    let (a, b, c) = (ring[0].clone(), ring[1].clone(), ring[2].clone());
    bench.forge.rotate(|forge| {
        forge.timestamp_keys = ring.clone();
        forge.root.timestamp = listed(2, &ring);
    });
    bench.forge.publish();
    let keeps = |shelf: Shelf, forge: &Forge| shelf.root(forge).timestamp(forge);
    bench.look("all three", NOTHING_NEW, "root/+1* root/+2 timestamp*", keeps).await?;

    let release = bench.forge.release_keys[0].clone();
    let root = bench.forge.root_keys[0].clone();
    let stranger = key();
    bench.forge.timestamp.version += 1;
    let version = bench.forge.timestamp.version;
    let bytes = serde_json::to_vec(&bench.forge.timestamp)?;
    let comment = trusted_comment(Role::Timestamp, version);
    let sign = |by: &[&Arc<KeyPair>], comment: &str| {
        signatures(&bytes, comment, &by.iter().map(|key| Arc::clone(key)).collect::<Keyring>())
    };
    let own = |by: &[&Arc<KeyPair>]| sign(by, &comment);
    let as_role = |role: Role| sign(&[&b], &trusted_comment(role, version));
    let one = own(&[&a]);
    // The same signature under another untrusted comment, which nothing protects.
    let retitled = one.replacen("forged", "another", 1);
    // Said to be of the algorithm that signs the bytes themselves instead of their hash.
    let relabelled = own(&[&b]).replacen("\nRU", "\nRW", 1);
    assert_ne!(relabelled, own(&[&b]));
    let recommented = own(&[&b]).replace("bumpless/1 timestamp", "bumpless/1 timestamp ");
    let too_few = |text: String| (text, 1);
    let mut cases = vec![
        ("one of them", too_few(one.clone())),
        ("nobody who counts", (own(&[&stranger, &release, &root]), 0)),
        ("one of them twice", too_few(own(&[&a, &a]))),
        ("one of them four times", too_few(own(&[&a, &a, &a, &a]))),
        ("one of them under two titles", too_few(format!("{one}{retitled}"))),
        ("one of them and a stranger", too_few(own(&[&a, &stranger]))),
        ("one of them and the release key", too_few(own(&[&a, &release]))),
        ("one of them and the root key", too_few(own(&[&a, &root]))),
        ("the second as an index", too_few(format!("{one}{}", as_role(Role::Release)))),
        ("the second as a root", too_few(format!("{one}{}", as_role(Role::Root)))),
        (
            "the second for the version before",
            too_few(format!("{one}{}", sign(&[&b], &trusted_comment(Role::Timestamp, version - 1)))),
        ),
        (
            "the second for the version after",
            too_few(format!("{one}{}", sign(&[&b], &trusted_comment(Role::Timestamp, version + 1)))),
        ),
        (
            "the second for another spec",
            too_few(format!("{one}{}", sign(&[&b], &format!("bumpless/2 timestamp {version}")))),
        ),
        (
            "the second with a zero in front",
            too_few(format!("{one}{}", sign(&[&b], &format!("bumpless/1 timestamp 0{version}")))),
        ),
        (
            "the second with a plus in front",
            too_few(format!("{one}{}", sign(&[&b], &format!("bumpless/1 timestamp +{version}")))),
        ),
        (
            "the second with something behind",
            too_few(format!("{one}{}", sign(&[&b], &format!("{comment} ")))),
        ),
        ("the second without a version", too_few(format!("{one}{}", sign(&[&b], "bumpless/1 timestamp")))),
        ("the second with an edited comment", too_few(format!("{one}{recommented}"))),
        ("the second in another algorithm", too_few(format!("{one}{relabelled}"))),
    ];
    if let Some(legacy) = legacy(&bytes, &comment, &b)? {
        // It is a good one for whoever takes such.
        let decoded = minisign_verify::Signature::decode(&legacy)?;
        minisign_verify::PublicKey::from_base64(&b.pk.to_base64())?.verify(&bytes, &decoded, true)?;
        cases.push(("the second over the bytes themselves", too_few(format!("{one}{legacy}"))));
    }
    for (name, (text, have)) in cases {
        let signed = Signed { bytes: bytes.clone(), signatures: text.into_bytes() };
        bench.forge.put("timestamp.json", signed);
        let text =
            format!("the timestamp is refused: it is signed by {have} of the keys that count, and needs 2");
        bench.look(&format!("signed by {name}"), Says::Refused(&text), "root/+1 timestamp*", same).await?;
    }
    let mut edited = bytes.clone();
    edited.push(b' ');
    bench.forge.put("timestamp.json", Signed { bytes: edited, signatures: own(&[&a, &b, &c]).into_bytes() });
    let says =
        Says::Refused("the timestamp is refused: it is signed by 0 of the keys that count, and needs 2");
    bench.look("a byte more than was signed", says, "root/+1 timestamp*", same).await?;
    let unread = b"\0 this is never read as JSON".to_vec();
    bench.forge.put("timestamp.json", Signed { bytes: unread, signatures: own(&[&a, &b]).into_bytes() });
    bench.look("garbage beside good signatures", says, "root/+1 timestamp*", same).await?;

    for (name, text) in [
        ("two of them", own(&[&a, &c])),
        ("two others", own(&[&c, &b])),
        ("two, one of them twice", own(&[&a, &a, &b])),
        ("two among much that does not count", own(&[&stranger, &a, &release, &root, &b, &stranger])),
    ] {
        let signed = Signed { bytes: bytes.clone(), signatures: text.into_bytes() };
        bench.forge.put("timestamp.json", signed);
        bench.look(&format!("signed by {name}"), NOTHING_NEW, "root/+1 timestamp*", timestamp).await?;
    }
    Ok(())
}

/// A `.sigs` file is whole blocks of four lines, at most sixteen of them.
async fn form(bench: &mut Bench) -> Result<()> {
    bench.fresh().await?;
    bench.forge.next();
    let good = bench.forge.files["index/2.json"].clone();
    let text = String::from_utf8(good.signatures.clone())?;
    let strangers = |count: usize| {
        let comment = trusted_comment(Role::Release, 2);
        signatures(&good.bytes, &comment, &new_keys(count))
    };
    let cases = [
        ("no signature", vec![], "it has no signatures"),
        ("an empty line", b"\n".to_vec(), "have 1 lines, which is no multiple of four"),
        ("a line more", format!("{text}\n").into_bytes(), "have 5 lines, which is no multiple of four"),
        (
            "half a block more",
            format!("{text}untrusted comment: x\nRUQ\n").into_bytes(),
            "have 6 lines, which is no multiple of four",
        ),
        (
            "a line less",
            text.lines().take(3).collect::<Vec<_>>().join("\n").into_bytes(),
            "have 3 lines, which is no multiple of four",
        ),
        (
            "lines that end as on another system",
            text.replace('\n', "\r\n").into_bytes(),
            "its signature 1 is no minisign signature",
        ),
        (
            "a byte order mark",
            format!("\u{feff}{text}").into_bytes(),
            "its signature 1 is no minisign signature",
        ),
        (
            "a block that is none",
            format!("{text}a\nb\nc\nd\n").into_bytes(),
            "its signature 2 is no minisign signature",
        ),
        ("bytes that are no text", vec![0xff, 0xfe, b'\n'], "its signature 1 is no minisign signature"),
        ("an index instead", good.bytes.clone(), "have 1 lines, which is no multiple of four"),
        (
            "seventeen signatures",
            format!("{text}{}", strangers(16)).into_bytes(),
            "it has 17 signatures, at most 16 are read",
        ),
    ];
    let mut keeps: fn(Shelf, &Forge) -> Shelf = timestamp;
    for (name, signatures, words) in cases {
        bench.answer_once("index/2.json.sigs", Answer::File(signatures));
        let text = format!(
            "the index is refused: {}{words}",
            if words.starts_with("have") { "its signatures " } else { "" }
        );
        bench
            .look(&format!("signatures: {name}"), Says::Refused(&text), "root/+1 timestamp* index/2*", keeps)
            .await?;
        keeps = same;
    }
    bench.answer_once("index/2.json.sigs", Answer::File(vec![b'\n'; 16 * 1024 + 1]));
    let says = Says::Refused("larger than the 16384 bytes that are allowed");
    bench.look("signatures: too large a file", says, "root/+1 timestamp* index/2*", same).await?;
    let sixteen = format!("{}{text}", strangers(15)).into_bytes();
    bench.forge.put("index/2.json", Signed { bytes: good.bytes.clone(), signatures: sixteen });
    let keeps = |shelf: Shelf, forge: &Forge| shelf.index(forge);
    bench
        .look(
            "signatures: sixteen, the last of which counts",
            NOTHING_NEW,
            "root/+1 timestamp* index/2*",
            keeps,
        )
        .await?;
    // The last line may have no end.
    bench.forge.next();
    let mut signed = bench.forge.files["index/3.json"].clone();
    assert_eq!(signed.signatures.pop(), Some(b'\n'));
    bench.forge.put("index/3.json", signed);
    bench.look("signatures: no end of the last line", NOTHING_NEW, "root/+1 timestamp* index/3*", news).await
}

//! Feeds as they once were published, the roots that a machine begins with, and what a disk does to what is
//! kept.

use std::collections::BTreeMap;
use std::path::Path;

use bumpless_control::reply::Outcome;
use bumpless_control::request::Request;
use bumpless_control::status::Status;
use bumpless_tests::feed_simulator::Forge;
use bumpless_tests::files::below;
use bumpless_tests::world::{Result, START, unix_now};
use bumpless_trust::document::{IndexDocument, TimestampDocument};
use bumpless_trust::{Role, Signed};

use super::bench::{Bench, Says, Shelf, all, path, root, same, write_signed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_begins_with_a_root_that_it_was_given_and_follows_every_format_that_was_ever_published()
-> Result<()> {
    let mut bench = Bench::start("published").await?;
    damage(&mut bench).await?;
    first_roots(&mut bench).await?;
    // Last: it is another network.
    published_formats(&mut bench).await?;
    bench.finish()
}

/// What is kept and is not what was verified is forgotten, told, and fetched again.
async fn damage(bench: &mut Bench) -> Result<()> {
    let good = bench.shelf.clone();
    let trust = bench.trust();
    let damaged = |bytes: &[u8]| bytes[1..].to_vec();
    for (role, asked) in
        [(Role::Timestamp, "root/2 timestamp*"), (Role::Release, "root/2 timestamp* index/1*")]
    {
        for (name, file) in [("", path(role, 1)), ("'s signatures", path(role, 1) + ".sigs")] {
            bench.world.kill_supervisor()?;
            std::fs::write(trust.join(&file), damaged(&good.files()[&file]))?;
            let case = format!("a damaged {}{name}", role.file());
            bench.start_again(&case, Says::Well(""), asked, same).await?;
            let alarms = bench.world.control().status().await?.alarms;
            let told =
                alarms.iter().any(|alarm| alarm.text.contains("was forgotten and will be fetched again"));
            assert!(told, "{case}: {alarms:?}");
        }
    }
    // What somebody puts there is verified like anything else.
    bench.world.kill_supervisor()?;
    let stranger = Forge::new(unix_now(), bench.forge.running().clone());
    write_signed(&trust.join(path(Role::Release, 0)), &stranger.files["index/1.json"])?;
    bench.start_again("an index of strangers", Says::Well(""), "root/2 timestamp*", same).await?;
    // A machine begins anew with the root that it was given.
    bench.world.kill_supervisor()?;
    std::fs::write(trust.join(path(Role::Root, 1)), damaged(&good.files()[&path(Role::Root, 1)]))?;
    bench.start_again("a damaged root", Says::Well(""), "root/2 timestamp*", same).await?;
    let alarms = bench.world.control().status().await?.alarms;
    assert!(alarms.iter().any(|alarm| alarm.text.contains("a root kept on this machine")), "{alarms:?}");
    // Where that one is gone, too, it has nothing to go by, until one of them is there again.
    let anchor = bench.world.places().root.clone();
    let given = std::fs::read(&anchor)?;
    bench.world.kill_supervisor()?;
    std::fs::write(trust.join(path(Role::Root, 1)), damaged(&good.files()[&path(Role::Root, 1)]))?;
    std::fs::remove_file(&anchor)?;
    cannot_begin(bench, "a damaged root and no other", "the root is refused").await?;
    bench.world.kill_supervisor()?;
    std::fs::write(trust.join(path(Role::Root, 1)), &good.files()[&path(Role::Root, 1)])?;
    bench.start_again("the root again, and no other", Says::Well(""), "root/2 timestamp*", same).await?;
    let alarms = bench.world.control().status().await?.alarms;
    assert!(alarms.iter().any(|alarm| alarm.text.contains("cannot read the first root")), "{alarms:?}");
    bench.world.kill_supervisor()?;
    std::fs::write(&anchor, given)?;
    bench.start_again("both roots again", Says::Well(""), "root/2 timestamp*", same).await
}

/// A supervisor that starts now does not ask the feed for anything, and says why; the worker serves on.
async fn cannot_begin(bench: &mut Bench, case: &str, words: &str) -> Result<()> {
    bench.simulator.take_asked();
    let kept = below(&bench.trust())?;
    bench.world.start_supervisor()?;
    let served = |status: &Status| status.serving.is_some();
    let status = bench.world.control().until("a start", START, served).await?;
    let error = status.feed.and_then(|feed| feed.error).ok_or_else(|| format!("{case}: it has begun"))?;
    assert!(error.contains(words), "{case}: {words:?} is not in: {error}");
    let outcome = bench.world.control().ask(&Request::Check, |_, _| ()).await?;
    assert_eq!(outcome, Outcome::Failed { reason: error }, "{case}");
    assert_eq!(outcome.exit_code(), 5);
    assert!(bench.simulator.take_asked().is_empty(), "{case}: the feed was asked");
    assert_eq!(below(&bench.trust())?, kept, "{case}");
    bench.one_more_case(case).await
}

fn forget(bench: &mut Bench) -> Result<()> {
    bench.world.kill_supervisor()?;
    for role in [Role::Root, Role::Timestamp, Role::Release] {
        let _ = std::fs::remove_dir_all(bench.trust().join(role.file()));
    }
    bench.shelf = Shelf::default();
    Ok(())
}

async fn first_roots(bench: &mut Bench) -> Result<()> {
    let anchor = bench.world.places().root.clone();
    let good = bench.forge.files["root/1.json"].clone();
    let stranger = Forge::new(unix_now(), bench.forge.running().clone());
    let with =
        |bytes: &[u8], signatures: &[u8]| Signed { bytes: bytes.to_vec(), signatures: signatures.to_vec() };
    let edited = [&good.bytes[..], b" "].concat();
    for (name, signed, words) in [
        ("edited", with(&edited, &good.signatures), "the root is refused: it is signed by 0"),
        ("unsigned", with(&good.bytes, b""), "the root is refused: it has no signatures"),
        (
            "signed by strangers",
            with(&good.bytes, &stranger.files["root/1.json"].signatures),
            "the root is refused: it is signed by 0",
        ),
        (
            "a timestamp",
            bench.forge.files["timestamp.json"].clone(),
            "the root is refused: its type is \"timestamp\"",
        ),
        ("empty", with(b"", b""), "the root is refused"),
    ] {
        forget(bench)?;
        write_signed(&anchor, &signed)?;
        cannot_begin(bench, &format!("a first root that is {name}"), words).await?;
    }
    forget(bench)?;
    std::fs::remove_file(&anchor)?;
    cannot_begin(bench, "a first root that is not there", "cannot read the first root").await?;

    forget(bench)?;
    write_signed(&anchor, &good)?;
    // 2020: long before this program was written. Nothing is verified yet that would tell.
    bench.set_clock(1_580_000_000 - unix_now() as i64)?;
    let says = Says::Refused("set the clock");
    bench.start_again("a clock before this program was written", says, "", root).await?;
    bench.set_clock(0)?;
    bench.restart("a clock that was set right", Says::Well(""), "root/2 timestamp* index/1*", all).await?;

    bench.forge.rotate(|_| {});
    let second = bench.forge.files.remove("root/2.json").ok_or("no second root")?;
    write_signed(&anchor, &second)?;
    let kept = second.clone();
    let keeps = |shelf: Shelf, forge: &Forge| {
        let mut forge = forge.clone();
        forge.put("root/2.json", kept);
        shelf.root(&forge)
    };
    bench.restart("a newer first root than what is kept", Says::Well(""), "root/3 timestamp*", keeps).await?;
    write_signed(&anchor, &good)?;
    bench.restart("an older first root than what is kept", Says::Well(""), "root/3 timestamp*", same).await?;
    bench.world.kill_supervisor()?;
    write_signed(&anchor, &stranger.files["root/1.json"])?;
    cannot_begin(bench, "a first root of another network", "the root is for network").await
}

/// Every format that was ever published is followed over HTTP, from its first root, at its time.
async fn published_formats(bench: &mut Bench) -> Result<()> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../supervisor/trust/tests/trust/golden");
    let anchor = bench.world.places().root.clone();
    let mut formats = 0;
    for format in std::fs::read_dir(golden)? {
        let folder = format?.path();
        let files = published(&folder)?;
        let timestamp: TimestampDocument = serde_json::from_slice(&files["timestamp.json"].bytes)?;
        let index_name = format!("index/{}.json", timestamp.index.version);
        let index: IndexDocument = serde_json::from_slice(&files[&index_name].bytes)?;
        let roots = files.keys().filter(|name| name.starts_with("root/")).count() as u64;
        let newest = index.releases.iter().max_by_key(|release| release.counter).ok_or("no release")?;

        forget(bench)?;
        write_signed(&anchor, &files["root/1.json"])?;
        bench.set_clock(i64::try_from(timestamp.issued)? + 1 - unix_now() as i64)?;
        bench.forge.files = files.clone();
        let mut asked: String = (2..=roots).map(|root| format!("root/{root}* ")).collect();
        asked.push_str(&format!("root/{} timestamp* index/{}*", roots + 1, timestamp.index.version));
        for release in &index.releases {
            asked.extend(release.build.sums_sha256.map(|name| format!(" build/{name}*")));
        }
        let shelf = Shelf::of(
            (roots, &files[&format!("root/{roots}.json")]),
            (timestamp.version, &files["timestamp.json"]),
            (index.version, &files[&index_name]),
        );
        let case = format!("format {}", folder.file_name().unwrap_or_default().display());
        bench.start_again(&case, Says::Well(""), &asked, |_, _| shelf).await?;
        let asked = format!("root/{} timestamp*", roots + 1);
        bench.look(&format!("{case}, again"), Says::Well(newest.release.as_str()), &asked, same).await?;
        formats += 1;
    }
    assert!(formats > 0, "there is no published format");
    Ok(())
}

/// The signed files of a feed that lies in a folder, by their names on it.
fn published(folder: &Path) -> Result<BTreeMap<String, Signed>> {
    let files = below(folder)?;
    let signed = files.iter().filter_map(|(name, bytes)| {
        let signatures = files.get(&format!("{name}.sigs"))?.clone();
        Some((name.clone(), Signed { bytes: bytes.clone(), signatures }))
    });
    Ok(signed.collect())
}

//! Workers that the system's packages bring, with and without a feed beside them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::Duration;

use bumpless_control::history::{Event, Source};
use bumpless_control::request::Request;
use bumpless_control::status::{Phase, Status, Worker};
use bumpless_os::process::Process;
use bumpless_release::Addition;
use bumpless_shared::release::Version;
use bumpless_tests::configuration::Settings;
use bumpless_tests::left_out::left_out;
use bumpless_tests::operator::Operator;
use bumpless_tests::tap::Flow;
use bumpless_tests::world::{Result, START, World, release, unix_now};
use bumpless_worker::state::Layout;
use bumplessd::packages::Packages;

use crate::under_load::UPGRADE;

/// Longest that a supervisor may take to notice something.
const SOON: Duration = Duration::from_secs(30);

/// Whether packages can be tried at all: what they bring is root's.
fn is_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        left_out(test, "only root can install packages");
    }
    root
}

/// A node that knows no feed and no publisher.
async fn without_feed(settings: Settings) -> Result<World> {
    let mut world = World::prepare(settings).await?;
    let text = world.configuration_text();
    let feed = format!("urls = [\"{}\"]", world.feed_url());
    let root = format!("root = \"{}\"\n", world.places().root.display());
    assert!(text.contains(&feed) && text.contains(&root), "{text}");
    fs::write(world.configuration(), text.replace(&feed, "urls = []").replace(&root, ""))?;
    Ok(world)
}

async fn expect(operator: &Operator, arguments: &[&str], code: i32) -> Result<String> {
    let said = operator.run(arguments).await?;
    assert_eq!(said.code, code, "bumpless {}: {}", arguments.join(" "), said.all());
    Ok(said.all())
}

/// Waits until this release serves, nothing else is under way, and says on whose word it does.
async fn serves(world: &World, version: &str) -> Result<Option<Source>> {
    let serves = |status: &Status| {
        status.serving.as_ref().is_some_and(|worker| worker.release.as_str() == version)
            && status.upgrade.is_none()
            && status.draining.is_none()
    };
    let status = world.control().until(version, UPGRADE, serves).await?;
    Ok(status.serving.and_then(|worker| worker.source))
}

/// A node without a feed that runs 1.0.0, from a package; and its worker.
async fn packaged() -> Result<(World, Worker)> {
    let mut world = without_feed(Settings::default()).await?;
    world.package(&release("1.0.0", Layout::ByName)?, 1)?;
    world.start_supervisor()?;
    answers(&world).await?;
    let operator = world.operator();
    expect(&operator, &["check"], 0).await?;
    let said = expect(&operator, &["status"], 0).await?;
    assert!(said.contains("Next: upgrade to 1.0.0") && said.contains("bumpless upgrade"), "{said}");
    expect(&operator, &["upgrade"], 0).await?;
    let serving = world.serving().await?.serving.ok_or("nobody serves")?;
    Ok((world, serving))
}

async fn answers(world: &World) -> Result<()> {
    world.control().until("an answer", START, |_| true).await?;
    Ok(())
}

fn revoke(world: &mut World, version: &str) -> Result<()> {
    let version: Version = version.parse()?;
    tokio::task::block_in_place(|| {
        world.publisher().revoke(&version)?;
        world.publisher().publish(unix_now())?;
        Ok(())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_feed_is_installed_upgraded_and_taken_back_by_packages_alone() -> Result<()> {
    if !is_root("a node without a feed is installed by packages") {
        return Ok(());
    }
    let mut world = without_feed(Settings { automatic: true, ..Settings::default() }).await?;
    let operator = world.operator();
    world.start_supervisor()?;
    answers(&world).await?;
    // There is nothing yet, and that is no alarm.
    let said = expect(&operator, &["check"], 5).await?;
    assert!(said.contains("feed.urls") && said.contains("no package declares a release"), "{said}");
    assert!(world.control().status().await?.alarms.is_empty());

    let first = world.package(&release("1.0.0", Layout::ByName)?, 1)?;
    let said = expect(&operator, &["check"], 0).await?;
    assert!(said.contains("1.0.0 is there and will be installed"), "{said}");
    assert_eq!(serves(&world, "1.0.0").await?, Some(Source::Package));
    let name = world.client().await?.put(b"before the upgrade").await?;
    let said = expect(&operator, &["check"], 0).await?;
    assert!(said.contains("no package declares anything newer than 1.0.0"), "{said}");

    let second = world.package(&release("1.1.0", Layout::ByKind)?, 2)?;
    expect(&operator, &["check"], 0).await?;
    assert_eq!(serves(&world, "1.1.0").await?, Some(Source::Package));
    assert_eq!(world.client().await?.get(name).await?.as_deref(), Some(&b"before the upgrade"[..]));
    let said = expect(&operator, &["status"], 0).await?;
    for part in ["source: package", "No feed is configured: releases come from this system's packages"] {
        assert!(said.contains(part), "{said}");
    }
    let said = expect(&operator, &["versions"], 0).await?;
    assert!(said.contains("serving, installed, declared by a package"), "{said}");
    let history = world.control().history(100).await?;
    for event in [Event::UpgradeStarted, Event::Committed] {
        let entry = history.iter().rfind(|entry| entry.event == event).ok_or("it is not in the history")?;
        assert_eq!((&entry.to, &entry.index), (&Some(second.clone()), &None));
        assert_eq!(entry.source, Some(Source::Package));
    }
    let said = expect(&operator, &["history"], 0).await?;
    assert!(said.contains("upgrade committed, 1.0.0 to 1.1.0, source: package"), "{said}");

    // The package of the release before was replaced: its copy here is still the way back.
    expect(&operator, &["rollback"], 0).await?;
    assert_eq!(serves(&world, "1.0.0").await?, Some(Source::Package));
    expect(&operator, &["check"], 0).await?;
    assert_eq!(world.control().status().await?.serving.map(|worker| worker.sha256), Some(first.sha256));

    // And what runs starts again, where no package is left at all.
    fs::remove_dir_all(world.places().packages.clone())?;
    let ended = world.supervisor()?.stop(SOON).await?;
    assert!(ended.success(), "{ended}");
    world.start_supervisor()?;
    world.serving().await?;
    assert_eq!(serves(&world, "1.0.0").await?, Some(Source::Package));
    assert_eq!(world.client().await?.get(name).await?.as_deref(), Some(&b"before the upgrade"[..]));
    // Not the copy, if it is another one by now.
    let copy = world.state_dir().join("releases").join(first.directory()).join("worker");
    fs::remove_file(&copy)?;
    fs::write(&copy, b"something else")?;
    let serving = world.control().status().await?.serving.ok_or("nobody serves")?;
    Process::open(serving.pid)?.kill()?;
    let down = |status: &Status| {
        let to_do = status.you_need_to_do.as_deref().unwrap_or_default();
        status.serving.is_none() && to_do.contains("look at the reason above")
    };
    world.control().until("nothing that serves", SOON, down).await?;
    let said = expect(&operator, &["status"], 0).await?;
    assert!(said.contains("its SHA-256 is"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_and_packages_give_the_highest_number_and_what_the_feed_revokes_runs_from_neither()
-> Result<()> {
    if !is_root("a feed and packages give the highest number") {
        return Ok(());
    }
    let mut world = World::prepare(Settings::default()).await?;
    let operator = world.operator();
    // The feed does not answer, and is not needed.
    world.turn_tap(Flow::Closed);
    let first = world.package(&release("1.0.0", Layout::ByName)?, 1)?;
    world.start_supervisor()?;
    answers(&world).await?;
    expect(&operator, &["upgrade"], 0).await?;
    assert_eq!(serves(&world, "1.0.0").await?, Some(Source::Package));
    let said = expect(&operator, &["upgrade"], 5).await?;
    assert!(said.contains("tried again later"), "{said}");

    world.turn_tap(Flow::Open);
    assert_eq!(world.publish(&release("1.0.0", Layout::ByName)?)?, first);
    let revoked = world.publish(&release("1.1.0", Layout::ByKind)?)?;
    assert_eq!(world.package(&release("1.1.0", Layout::ByKind)?, 2)?, revoked);
    revoke(&mut world, "1.0.0")?;
    revoke(&mut world, "1.1.0")?;
    let said = expect(&operator, &["upgrade"], 4).await?;
    assert!(said.contains("of this system's packages: 1.1.0 is revoked by the publisher"), "{said}");
    let alarmed = |status: &Status| {
        status
            .alarms
            .iter()
            .any(|alarm| alarm.text.contains("1.0.0") && alarm.text.contains("revoked by the publisher"))
    };
    assert!(alarmed(&world.control().status().await?));

    // Honoured at a start as for any other release; from here on only what is kept says so.
    world.turn_tap(Flow::Closed);
    for (policy, runs) in [("stop", false), ("run", true)] {
        let ended = world.supervisor()?.stop(SOON).await?;
        assert!(ended.success(), "{ended}");
        world.settings().more = format!("revoked = \"{policy}\"\n");
        world.configure()?;
        world.start_supervisor()?;
        let said_so = |status: &Status| alarmed(status) && status.serving.is_some() == runs;
        world.control().until("what the policy says", START, said_so).await?;
    }

    // What is not revoked takes its place, from the feed or from a package: the higher number.
    world.turn_tap(Flow::Open);
    world.publish(&release("1.2.0", Layout::ByKind)?)?;
    world.package(&release("1.3.0", Layout::ByKind)?, 4)?;
    expect(&operator, &["upgrade"], 0).await?;
    assert_eq!(serves(&world, "1.3.0").await?, Some(Source::Package));
    let addition = Addition { counter: Some(5), ..Addition::default() };
    world.publish_with(&release("1.4.0", Layout::ByKind)?, addition)?;
    expect(&operator, &["upgrade"], 0).await?;
    assert_eq!(serves(&world, "1.4.0").await?, Some(Source::Feed));
    let history = world.control().history(100).await?;
    let entry = history.iter().rfind(|entry| entry.event == Event::Committed).ok_or("no commit")?;
    assert!(entry.source == Some(Source::Feed) && entry.index.is_some(), "{entry:?}");
    let alarms = world.control().status().await?.alarms;
    assert!(alarms.is_empty(), "{alarms:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_declaration_disturbs_nobody_is_told_once_and_explained() -> Result<()> {
    if !is_root("a refused declaration disturbs nobody") {
        return Ok(());
    }
    let (mut world, before) = packaged().await?;
    let operator = world.operator();

    // A good one beside it that is older, and itself with one byte that is another one.
    let folder = world.places().packages.clone();
    world.package(&release("1.1.0", Layout::ByKind)?, 2)?;
    for name in ["node", "node.json"] {
        fs::rename(folder.join(name), folder.join(name.replace("node", "other")))?;
    }
    world.package(&release("1.2.0", Layout::ByKind)?, 3)?;
    let mut bytes = fs::read(folder.join("node"))?;
    *bytes.last_mut().ok_or("it is empty")? ^= 1;
    fs::write(folder.join("node"), bytes)?;
    for _ in 0..3 {
        let said = expect(&operator, &["check"], 0).await?;
        assert!(said.contains("1.1.0 is there"), "{said}");
    }
    let status = world.serving().await?;
    assert_eq!(status.serving.as_ref().map(|worker| worker.pid), Some(before.pid));
    let told = |text: &str| text.contains("node has SHA-256") && text.contains("install the package again");
    assert_eq!(status.alarms.iter().filter(|alarm| told(&alarm.text)).count(), 1, "{:?}", status.alarms);
    let history = world.control().history(100).await?;
    let alarms = history.iter().filter(|entry| entry.event == Event::Alarm);
    assert_eq!(alarms.count(), 1, "{history:?}");

    let said = expect(&operator, &["upgrade", "--dry-run"], 0).await?;
    assert!(
        said.contains("REFUSED") && told(&said) && said.contains("would go from 1.0.0 to 1.1.0"),
        "{said}"
    );
    let said = operator.run(&["--json", "upgrade", "--dry-run"]).await?.json().ok_or("no JSON")?;
    let foreseen = &said["dry_run"];
    assert_eq!((&foreseen["to"], &foreseen["index"]), (&"1.1.0".into(), &serde_json::Value::Null));
    assert_eq!(foreseen["releases"][0]["source"], "package");
    let file = folder.join("node.json").display().to_string();
    assert_eq!(foreseen["refused"][0]["file"], file.as_str());

    expect(&operator, &["hold", "--reason", "racks"], 0).await?;
    let said = expect(&operator, &["upgrade"], 3).await?;
    assert!(said.contains("racks"), "{said}");
    expect(&operator, &["unhold"], 0).await?;
    expect(&operator, &["upgrade"], 0).await?;
    assert_eq!(serves(&world, "1.1.0").await?, Some(Source::Package));
    let said = expect(&operator, &["upgrade"], 4).await?;
    assert!(told(&said), "{said}");
    // Mended, it is taken, and nothing is left to tell.
    world.package(&release("1.2.0", Layout::ByKind)?, 3)?;
    expect(&operator, &["upgrade"], 0).await?;
    let status = world.serving().await?;
    assert_eq!(serves(&world, "1.2.0").await?, Some(Source::Package));
    assert!(status.alarms.is_empty(), "{:?}", status.alarms);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_supervisor_that_is_killed_while_it_installs_a_package_leaves_nothing_and_does_it_again()
-> Result<()> {
    if !is_root("a supervisor is killed while it installs a package") {
        return Ok(());
    }
    let (mut world, before) = packaged().await?;
    let operator = world.operator();
    world.package(&release("1.1.0", Layout::ByKind)?, 2)?;
    let (releases, staging) = (world.state_dir().join("releases"), world.state_dir().join("staging"));
    let goes_on = async |world: &mut World, case: &str| -> Result<()> {
        world.kill_supervisor()?;
        assert_eq!(fs::read_dir(&staging)?.count(), 0, "{case}");
        world.start_supervisor()?;
        let serving = world.serving().await?.serving.ok_or("nobody serves")?;
        assert_eq!((serving.pid, serving.release.as_str()), (before.pid, "1.0.0"), "{case}");
        Ok(())
    };

    // In the copy: the phase is told of before its work is done.
    let supervisor = Process::open(world.supervisor()?.pid() as i32)?;
    let request = Request::Upgrade { version: None, wait: true, rehearse: false };
    let control = world.control();
    let mut seen = false;
    let asked = control.ask(&request, |_, progress| {
        if progress.phase == Phase::Fetching {
            seen = supervisor.kill().is_ok();
        }
    });
    let answer = tokio::time::timeout(UPGRADE, asked).await.map_err(|_| "no answer, no end")?;
    assert!(seen, "it was never fetched: {answer:?}");
    goes_on(&mut world, "in the copy").await?;

    // Before each sync that makes it a release: of the file, its name, its record, and the record's name.
    for sync in 1..=4 {
        world.injected().stop_at_sync("/releases/1.1.0-", sync)?;
        world
            .control()
            .ask(&Request::Upgrade { version: None, wait: false, rehearse: false }, |_, _| ())
            .await?;
        let stopped = world.supervisor()?.stopped();
        tokio::time::timeout(SOON, stopped).await.map_err(|_| format!("no sync {sync}"))??;
        world.injected().cease()?;
        goes_on(&mut world, &format!("before sync {sync}")).await?;
    }

    expect(&operator, &["upgrade"], 0).await?;
    assert_eq!(serves(&world, "1.1.0").await?, Some(Source::Package));
    assert_eq!(fs::read_dir(&releases)?.count(), 2);
    Ok(())
}

/// A folder with one good package, `node`.
fn folder() -> Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    let folder = dir.path().join("workers");
    fs::create_dir(&folder)?;
    fs::set_permissions(&folder, Permissions::from_mode(0o755))?;
    put(&folder, "node", b"the node", "1.0.0", 1)?;
    Ok(dir)
}

fn put(folder: &Path, name: &str, bytes: &[u8], version: &str, counter: u64) -> Result<()> {
    let path = folder.join(name);
    fs::write(&path, bytes)?;
    let description = Some(release(version, Layout::ByName)?.description());
    let terms = bumpless_release::Terms { counter, description, ..Default::default() };
    bumpless_release::declare::write(&path, &bumpless_release::declare(&path, terms)?)?;
    Ok(())
}

/// What is declared, and what is refused.
fn seen(folder: &Path) -> (Vec<String>, String) {
    let seen = Packages::unseen(folder).look_now();
    let declared = seen.all().iter().map(|package| package.release().version.to_string()).collect();
    (declared, seen.refused().into_iter().map(|it| it.why).collect::<Vec<_>>().join("; "))
}

#[test]
fn what_others_than_root_could_have_written_is_no_declaration() -> Result<()> {
    if !is_root("what others could have written is refused") {
        return Ok(());
    }
    const NOBODY: u32 = 65_534;
    type Case = (&'static str, fn(&Path) -> std::io::Result<()>, &'static str);
    let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
    let cases: [Case; 13] = [
        (
            "a declaration",
            |it| chown(it.join("node.json"), Some(NOBODY), None),
            "node.json belongs to user 65534",
        ),
        ("a worker", |it| chown(it.join("node"), Some(NOBODY), None), "node belongs to user 65534"),
        ("the folder", |it| chown(it, Some(NOBODY), None), "workers belongs to user 65534"),
        (
            "a folder on the way",
            |it| chown(it.parent().ok_or(std::io::ErrorKind::NotFound)?, Some(NOBODY), None),
            " belongs to user 65534",
        ),
        (
            "a declaration that the group may write",
            |it| fs::set_permissions(it.join("node.json"), Permissions::from_mode(0o664)),
            "node.json (mode 0664) may be written by others",
        ),
        (
            "a worker that everybody may write",
            |it| fs::set_permissions(it.join("node"), Permissions::from_mode(0o757)),
            "node (mode 0757) may be written by others",
        ),
        (
            "a folder that everybody may write",
            |it| fs::set_permissions(it, Permissions::from_mode(0o777)),
            "workers (mode 0777) may be written by others",
        ),
        (
            // Nobody can take anything away there, and everybody can add to it.
            "a folder that everybody may add to",
            |it| fs::set_permissions(it, Permissions::from_mode(0o1777)),
            "workers (mode 1777) may be written by others",
        ),
        (
            "a link to a declaration",
            |it| {
                fs::rename(it.join("node.json"), it.join("x"))
                    .and_then(|()| symlink("x", it.join("node.json")))
            },
            "node.json is a link",
        ),
        (
            "a link to a worker",
            |it| fs::rename(it.join("node"), it.join("x")).and_then(|()| symlink("x", it.join("node"))),
            "node is a link",
        ),
        (
            "a link to the folder",
            |it| fs::rename(it, it.with_file_name("x")).and_then(|()| symlink("x", it)),
            "workers is a link",
        ),
        (
            "a folder for a worker",
            |it| fs::remove_file(it.join("node")).and_then(|()| fs::create_dir(it.join("node"))),
            "no regular file",
        ),
        ("a worker that is not there", |it| fs::remove_file(it.join("node")), "node cannot be read"),
    ];
    for (case, spoil, why) in cases {
        let dir = folder()?;
        let folder = dir.path().join("workers");
        assert_eq!(seen(&folder), (vec!["1.0.0".to_owned()], String::new()), "{case}");
        spoil(&folder)?;
        let (declared, refused) = seen(&folder);
        assert!(declared.is_empty() && refused.contains(why), "{case}: {declared:?}, {refused}");
    }
    // As `/tmp` is: there nobody can put another folder in the place of root's.
    let dir = folder()?;
    mode(dir.path(), 0o1777)?;
    assert_eq!(seen(&dir.path().join("workers")), (vec!["1.0.0".to_owned()], String::new()));
    mode(dir.path(), 0o777)?;
    assert!(seen(&dir.path().join("workers")).1.contains("(mode 0777)"));
    // Where there is no folder, nothing is wrong, whatever lies above.
    assert_eq!(seen(&dir.path().join("nothing/at/all")), (vec![], String::new()));
    Ok(())
}

#[test]
fn each_declaration_is_looked_at_by_itself_and_has_to_be_about_the_worker_beside_it() -> Result<()> {
    if !is_root("each declaration is looked at by itself") {
        return Ok(());
    }
    let dir = folder()?;
    let folder = dir.path().join("workers");
    put(&folder, "longer", b"the node", "1.1.0", 2)?;
    fs::write(folder.join("longer"), b"the node and more")?;
    put(&folder, "other", b"the node", "1.2.0", 3)?;
    fs::write(folder.join("other"), b"the edon")?;
    put(&folder, "twin", b"another node", "1.0.1", 1)?;
    fs::write(folder.join("large.json"), vec![b'{'; 20_000])?;
    fs::write(
        folder.join("unknown.json"),
        fs::read_to_string(folder.join("node.json"))?.replace("urgent", "haste"),
    )?;
    fs::write(folder.join("README"), "no declaration")?;
    put(&folder, "good", b"a good node", "1.3.0", 4)?;
    let (declared, refused) = seen(&folder);
    assert_eq!(declared, ["1.3.0", "1.0.0"]);
    for why in [
        "large.json is larger than the 16384 bytes",
        "longer has 17 bytes instead of the 8",
        "other has SHA-256",
        "twin.json declares number 1 for the same target as",
        "unknown.json is no declaration: it is not of the expected shape: unknown field `haste`",
    ] {
        assert!(refused.contains(why), "{why:?} is not in {refused}");
    }

    // Hashed once, and again when it was changed.
    let before = Packages::unseen(&folder).look_now();
    assert_eq!(before.refused().len(), 5, "{refused}");
    assert_eq!(before.look_now().all(), before.all());
    fs::write(folder.join("good"), b"a evil node")?;
    assert!(before.look_now().refused().iter().any(|it| it.why.contains("good has SHA-256")));

    for number in 0..70 {
        fs::write(folder.join(format!("z{number}.json")), "{}")?;
    }
    let refused = seen(&folder).1;
    assert!(refused.contains("has 77 declarations; only the first 64"), "{refused}");
    Ok(())
}

//! Workers with a user of their own (`worker.user`): everything works as it does without, and what is the
//! supervisor's is out of a worker's reach. A node goes over to it and back, with all that it has.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bumpless_control::status::Ending;
use bumpless_os::child::{User, with_files_as};
use bumpless_tests::configuration::Settings;
use bumpless_tests::left_out::left_out;
use bumpless_tests::load::read_back;
use bumpless_tests::oracle::Oracle;
use bumpless_tests::supervisor::Supervisor;
use bumpless_tests::world::{Result, World, faulty, release};
use bumpless_worker::faults::{AfterCut, Faults};
use bumpless_worker::state::Layout;

use crate::under_load::{Clients, PLAN, UnderLoad};

/// Longest that a supervisor may take to stop, or to notice something.
const SOON: Duration = Duration::from_secs(30);

/// On every machine, and nothing of ours runs as it.
const NAME: &str = "nobody";

/// That user; `None`, and said, where only root could have workers run as another one.
fn own(test: &str) -> Result<Option<User>> {
    if !nix::unistd::geteuid().is_root() {
        left_out(test, "only root can have workers run as another user");
        return Ok(None);
    }
    let user = nix::unistd::User::from_name(NAME)?.ok_or("there is no user nobody")?;
    Ok(Some(User { uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
}

/// A port that nobody has, and that no worker of its own could bind.
fn privileged_address() -> Result<SocketAddr> {
    let free = |port: &u16| UdpSocket::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let port = (600..1000).find(free).ok_or("no free port below 1024")?;
    Ok((Ipv4Addr::LOCALHOST, port).into())
}

/// What is set for workers to run as this user; `None`: as the supervisor's.
fn runs_as(name: Option<&str>) -> String {
    name.map(|name| format!("[worker]\nuser = \"{name}\"\n")).unwrap_or_default()
}

fn settings(name: Option<&str>) -> Settings {
    Settings { more: runs_as(name), ..Settings::default() }
}

/// The worker that serves is this user's, has no other group and no privilege, and is what was installed.
async fn serves_as(world: &mut World, user: User) -> Result<i32> {
    let worker = world.serving().await?.serving.ok_or("nobody serves")?;
    let status = fs::read_to_string(format!("/proc/{}/status", worker.pid))?;
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().map(str::to_owned).collect::<Vec<String>>()
    };
    assert_eq!(line("Uid:"), vec![user.uid.to_string(); 4], "{status}");
    assert_eq!(line("Gid:"), vec![user.gid.to_string(); 4], "{status}");
    if user.uid != 0 {
        assert!(line("Groups:").is_empty(), "{status}");
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(line(set), ["0000000000000000"], "{status}");
        }
        assert_eq!(line("NoNewPrivs:"), ["1"], "{status}");
        let runs = fs::read_link(format!("/proc/{}/exe", worker.pid))?;
        assert!(runs.starts_with(world.state_dir().join("releases")), "{}", runs.display());
    }
    Ok(worker.pid)
}

/// Everything below the workers' part of the state is this user's.
fn state_belongs_to(world: &World, uid: u32) -> Result<()> {
    let mut paths = vec![world.state_dir().join("state")];
    while let Some(path) = paths.pop() {
        match fs::symlink_metadata(&path) {
            // A node that runs removes what it needs no more.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            found => assert_eq!(found?.uid(), uid, "{}", path.display()),
        }
        for entry in fs::read_dir(&path).into_iter().flatten() {
            paths.push(entry?.path());
        }
    }
    Ok(())
}

/// Stops the node, and starts it with workers that run as this user.
async fn restart_as(world: &mut World, name: Option<&str>) -> Result<()> {
    stop(world).await?;
    world.settings().more = runs_as(name);
    world.configure()?;
    world.start_supervisor()?;
    world.serving().await?;
    Ok(())
}

async fn stop(world: &mut World) -> Result<()> {
    let ended = world.supervisor()?.stop(SOON).await?;
    assert!(ended.success(), "{ended}: {}", world.supervisor()?.log());
    Ok(())
}

/// Everything that was ever acknowledged is there.
async fn nothing_is_lost(world: &World, oracles: &[Arc<Oracle>]) -> Result<()> {
    let client = world.client().await?;
    for oracle in oracles {
        let lost = read_back(&client, oracle).await;
        assert!(lost.is_empty(), "{} of {}: {:?}", lost.len(), oracle.count(), lost.first());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_workers_have_their_own_user_is_upgraded_and_taken_back_and_goes_back() -> Result<()> {
    let Some(user) = own("a_node_whose_workers_have_their_own_user")? else { return Ok(()) };
    let mut world = World::prepare(settings(Some(NAME))).await?;
    world.places().listen = vec![privileged_address()?];
    world.configure()?;
    world.publish(&release("1.0.0", Layout::ByName)?)?;
    world.start_supervisor()?;
    world.first_install().await?;
    let mut node = UnderLoad::of(world, PLAN).await?;
    serves_as(&mut node.world, user).await?;
    node.upgrade_well("1.1.0").await?;
    let old = serves_as(&mut node.world, user).await?;

    // One that dies on probation is seen to, and one that hangs is killed.
    for (version, after_cut) in [("1.2.0", AfterCut::Die(700)), ("1.3.0", AfterCut::Hang(700))] {
        let bad = Faults { after_cut: Some(after_cut), ..Faults::default() };
        let release = node.begin(&faulty(version, bad)?).await?;
        assert_eq!(node.ended(&release).await?.result, Ending::RolledBack);
        assert_eq!(serves_as(&mut node.world, user).await?, old);
    }

    // A supervisor that is killed takes the same worker back.
    node.world.kill_supervisor()?;
    node.more_writes(20).await?;
    node.world.start_supervisor()?;
    assert_eq!(serves_as(&mut node.world, user).await?, old);

    node.upgrade_well("1.4.0").await?;
    let said = node.world.operator().run(&["rollback"]).await?;
    assert_eq!(said.code, 0, "{}", said.all());
    serves_as(&mut node.world, user).await?;
    assert_eq!(node.serving().await?.release.as_str(), "1.1.0");
    state_belongs_to(&node.world, user.uid)?;
    node.finish(Clients::WereServed).await?;
    Ok(())
}

/// Everything in the supervisor's own part of its folder.
fn of_the_supervisor(world: &World) -> Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![world.state_dir().to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path == world.state_dir().join("state") {
                continue;
            }
            if path.is_dir() && !path.is_symlink() {
                folders.push(path.clone());
            }
            found.push(path);
        }
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_the_supervisors_is_out_of_a_workers_reach() -> Result<()> {
    let test = "what_is_the_supervisors_is_out_of_a_workers_reach";
    let Some(user) = own(test)? else { return Ok(()) };
    let mut node = UnderLoad::start(settings(Some(NAME))).await?;
    node.upgrade_well("1.1.0").await?;
    let world = &node.world;
    let all = of_the_supervisor(world)?;
    let (state_dir, run_dir) = (world.state_dir(), world.folder().join("run"));
    let named = |path: &Path| path.strip_prefix(state_dir).unwrap().display().to_string();

    let refused = |what: &str, done: std::io::Result<()>| {
        assert_eq!(done.map_err(|error| error.kind()), Err(ErrorKind::PermissionDenied), "{what}");
    };
    let readable = with_files_as(user, || {
        let mut readable = BTreeSet::new();
        for path in &all {
            let what = path.display().to_string();
            let (folder, link) = (path.is_dir(), path.is_symlink());
            if folder && !link {
                refused(&what, fs::write(path.join("new"), ""));
            } else if !link {
                refused(&what, fs::File::options().write(true).open(path).map(drop));
                refused(&what, fs::set_permissions(path, Permissions::from_mode(0o777)));
                if fs::File::open(path).is_ok() {
                    readable.insert(named(path));
                }
            }
            refused(&what, fs::rename(path, state_dir.join("state/taken")));
        }
        for path in [state_dir, &run_dir] {
            refused("a new name", fs::write(path.join("new"), ""));
        }
        refused("the socket", fs::remove_file(run_dir.join("control.sock")));
        readable
    })?;
    // What anybody may read: what is installed, what the publisher signed, what happened. No key, no record.
    let public = |name: &String| {
        name.starts_with("releases/") || name.starts_with("trust/") || name.starts_with("history.jsonl")
    };
    let secret: Vec<&String> = readable.iter().filter(|name| !public(name)).collect();
    assert!(secret.is_empty(), "{secret:?}");
    assert!(all.iter().any(|path| named(path) == "routing") && all.len() > 15, "{all:?}");
    // Its own key is its own.
    let key = state_dir.join("state/identity/node.key");
    with_files_as(user, || fs::read(&key))??;

    let worker = world.stranger()?.ok_or("this is root")?;
    assert_eq!(worker.run(&["status"]).await?.code, 0);
    let said = worker.run(&["hold", "--reason", "of my own"]).await?;
    assert_eq!(said.code, 3, "{}", said.all());
    assert!(said.all().contains("may not"), "{}", said.all());
    node.finish(Clients::NoticedNothing).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_goes_over_to_workers_with_their_own_user_and_back_with_all_that_it_has() -> Result<()> {
    let Some(user) = own("a_node_goes_over_to_workers_with_their_own_user")? else { return Ok(()) };
    let ours = User { uid: 0, gid: 0 };
    let node = UnderLoad::start(settings(None)).await?;
    let mut oracles = vec![Arc::clone(node.load.oracle())];
    let (mut world, _) = node.finish(Clients::NoticedNothing).await?;
    let certificate = fs::read(world.certificate())?;

    for (name, user, version) in
        [(Some(NAME), user, "1.1.0"), (None, ours, "1.2.0"), (Some(NAME), user, "1.3.0")]
    {
        restart_as(&mut world, name).await?;
        serves_as(&mut world, user).await?;
        state_belongs_to(&world, user.uid)?;
        nothing_is_lost(&world, &oracles).await?;
        let mut node = UnderLoad::of(world, PLAN).await?;
        node.upgrade_well(version).await?;
        serves_as(&mut node.world, user).await?;
        oracles.push(Arc::clone(node.load.oracle()));
        (world, _) = node.finish(Clients::NoticedNothing).await?;
    }

    // The power went while it was handed over: parts of it are whose they were.
    stop(&mut world).await?;
    let state = world.state_dir().join("state");
    for part in [&state, &state.join("identity"), &state.join("identity/node.key")] {
        chown(part, Some(0), Some(0))?;
    }
    fs::write(world.state_dir().join("state.handover"), "")?;
    world.start_supervisor()?;
    serves_as(&mut world, user).await?;
    state_belongs_to(&world, user.uid)?;
    nothing_is_lost(&world, &oracles).await?;
    assert_eq!(fs::read(world.certificate())?, certificate);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_worker_lives_its_user_stays_until_the_node_was_stopped() -> Result<()> {
    let Some(user) = own("where_a_worker_lives_its_user_stays")? else { return Ok(()) };
    let ours = User { uid: 0, gid: 0 };
    let mut node = UnderLoad::start(settings(None)).await?;
    let old = serves_as(&mut node.world, ours).await?;
    node.world.kill_supervisor()?;
    node.world.settings().more = runs_as(Some(NAME));
    node.world.configure()?;
    node.world.start_supervisor()?;
    assert_eq!(serves_as(&mut node.world, ours).await?, old);
    let status = node.status().await?;
    let told = status.alarms.iter().any(|alarm| {
        alarm.text.contains("worker.user says user") && alarm.text.contains("systemctl restart bumplessd")
    });
    assert!(told, "{status:#?}");
    // Whatever is started beside it has to share its files.
    node.upgrade_well("1.1.0").await?;
    serves_as(&mut node.world, ours).await?;
    let oracle = Arc::clone(node.load.oracle());
    let (mut world, _) = node.finish(Clients::NoticedNothing).await?;
    restart_as(&mut world, Some(NAME)).await?;
    serves_as(&mut world, user).await?;
    nothing_is_lost(&world, &[oracle]).await?;

    // And the other way round.
    let mut node = UnderLoad::of(world, PLAN).await?;
    node.world.kill_supervisor()?;
    node.world.settings().more = runs_as(None);
    node.world.configure()?;
    node.world.start_supervisor()?;
    serves_as(&mut node.world, user).await?;
    node.upgrade_well("1.2.0").await?;
    serves_as(&mut node.world, user).await?;
    node.finish(Clients::NoticedNothing).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_others_could_change_is_not_started_and_is_not_to_blame() -> Result<()> {
    let Some(user) = own("a_release_that_others_could_change_is_not_started")? else { return Ok(()) };
    let mut node = UnderLoad::start(settings(Some(NAME))).await?;
    let old = serves_as(&mut node.world, user).await?;
    let releases = node.world.state_dir().join("releases");
    fs::set_permissions(&releases, Permissions::from_mode(0o777))?;
    node.world.publish(&release("1.1.0", Layout::ByKind)?)?;
    let said = node.world.operator().run(&["upgrade"]).await?;
    assert_eq!(said.code, 5, "{}", said.all());
    let told = format!("chmod go-w {}", releases.display());
    assert!(said.all().contains(&told), "{}", said.all());
    assert_eq!(serves_as(&mut node.world, user).await?, old);
    // One bad try would have been enough.
    assert!(node.status().await?.quarantined.is_empty());
    fs::set_permissions(&releases, Permissions::from_mode(0o755))?;
    let said = node.world.operator().run(&["upgrade"]).await?;
    assert_eq!(said.code, 0, "{}", said.all());
    node.finish(Clients::NoticedNothing).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_could_not_keep_workers_out_is_refused_with_what_to_do() -> Result<()> {
    let Some(user) = own("a_start_that_could_not_keep_workers_out")? else { return Ok(()) };
    let mut world = World::start(settings(Some(NAME))).await?;
    stop(&mut world).await?;
    let (folder, state_dir) = (world.folder().to_owned(), world.state_dir().to_owned());
    let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
    type Change<'a> = &'a dyn Fn() -> std::io::Result<()>;
    let refused: [(&str, Change, Change, &str); 5] = [
        ("nobody-of-that-name", &|| Ok(()), &|| Ok(()), "useradd"),
        ("root", &|| Ok(()), &|| Ok(()), "administrator"),
        (NAME, &|| mode(&state_dir, 0o775), &|| mode(&state_dir, 0o755), "chmod go-w"),
        (NAME, &|| chown(&state_dir, Some(user.uid), None), &|| chown(&state_dir, Some(0), None), "chown 0"),
        (NAME, &|| mode(&folder, 0o750), &|| mode(&folder, 0o755), "chmod o+x"),
    ];
    for (name, harm, mend, says) in refused {
        harm()?;
        world.settings().more = runs_as(Some(name));
        world.configure()?;
        let supervisor = world.start_supervisor()?;
        let ended = supervisor.ended(SOON).await?;
        let log = supervisor.log();
        assert_eq!(ended.code(), Some(1), "{name}: {log}");
        let last = log.lines().last().unwrap_or_default();
        assert!(last.contains("worker.user") && last.contains(says), "{name}, {says}: {log}");
        mend()?;
    }
    world.settings().more = runs_as(Some(NAME));
    world.configure()?;
    world.start_supervisor()?;
    serves_as(&mut world, user).await?;
    Ok(())
}

/// The command that starts the supervisor as a user who is not root, with these capabilities.
fn with_capabilities(world: &World, user: User, capabilities: &str) -> Command {
    let plain = world.supervisor_command();
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={}", user.uid))
        .arg(format!("--regid={}", user.gid))
        // Such as may read what its log collector reads; no worker has them.
        .arg("--groups=4000007,4000008")
        .arg(format!("--inh-caps=-all,{capabilities}"))
        .arg(format!("--ambient-caps=-all,{capabilities}"))
        .arg(plain.get_program())
        .args(plain.get_args());
    for (name, value) in plain.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_supervisor_that_is_not_root_needs_four_capabilities_for_it_and_no_more() -> Result<()> {
    let Some(user) = own("a_supervisor_that_is_not_root_needs_four_capabilities")? else { return Ok(()) };
    let supervisors = User { uid: 4_000_005, gid: 4_000_006 };
    let mut world = World::prepare(settings(Some(NAME))).await?;
    for folder in [world.state_dir().to_owned(), world.folder().join("run")] {
        chown(folder, Some(supervisors.uid), Some(supervisors.gid))?;
    }
    let log = world.folder().join("log");
    const ALL: &str = "+chown,+kill,+setgid,+setuid";
    for (by, capabilities, says) in [
        (supervisors, "+chown,+setgid,+setuid", "without CAP_KILL. Start bumplessd as root"),
        // Which would contain nobody.
        (user, ALL, "is also the user of the supervisor"),
    ] {
        let command = with_capabilities(&world, by, capabilities);
        let ended = Supervisor::start(command, &log)?.ended(SOON).await?;
        let said = fs::read_to_string(&log)?;
        assert_eq!(ended.code(), Some(1), "{said}");
        assert!(said.contains(says), "{says:?}: {said}");
    }

    world.publish(&release("1.0.0", Layout::ByName)?)?;
    let has = with_capabilities(&world, supervisors, ALL);
    let mut supervisor = Supervisor::start(has, &log)?;
    world.first_install().await?;
    let mut node = UnderLoad::of(world, PLAN).await?;
    let old = serves_as(&mut node.world, user).await?;
    // It is killed, not asked.
    let hangs = Faults { after_cut: Some(AfterCut::Hang(700)), ..Faults::default() };
    let release = node.begin(&faulty("1.1.0", hangs)?).await?;
    assert_eq!(node.ended(&release).await?.result, Ending::RolledBack);
    assert_eq!(serves_as(&mut node.world, user).await?, old);
    node.upgrade_well("1.2.0").await?;
    serves_as(&mut node.world, user).await?;
    state_belongs_to(&node.world, user.uid)?;
    let (_world, _) = node.finish(Clients::WereServed).await?;
    assert!(supervisor.stop(SOON).await?.success(), "{}", supervisor.log());
    Ok(())
}

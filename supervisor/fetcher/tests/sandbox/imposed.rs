//! What the supervisor imposes on whatever program it finds in the fetcher's place.

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use bumpless_os::process::Process;
use bumplessd::feed::{Feed, FeedError, FirstRoot, Settings};
use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::{geteuid, mkfifo};

use crate::lab::{Lab, NOW, choose};
use crate::left_out;

pub const TESTS: &[(&str, fn())] = &[
    ("imposed::more_than_its_bound_is_not_written", more_than_its_bound_is_not_written),
    ("imposed::it_has_no_capabilities_no_other_groups_and_small_limits", it_has_small_limits),
    ("imposed::as_its_own_user_it_still_fetches", as_its_own_user_it_still_fetches),
    ("imposed::what_it_leaves_behind_ends_with_it", what_it_leaves_behind_ends_with_it),
    ("imposed::its_children_end_with_a_fetch_that_is_given_up", its_children_end_with_a_fetch),
    ("imposed::it_does_not_outlive_a_killed_supervisor", it_does_not_outlive_a_killed_supervisor),
];

/// For what was killed already to be gone; a hang is a failure, not a slow machine.
const SOON: Duration = Duration::from_secs(30);

const BYTES: &[u8] = b"these bytes are the node";

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// A script in the place of the fetcher, in a folder that every user can enter.
fn script(lab: &Lab, body: &str) -> PathBuf {
    fs::set_permissions(lab.dir.path(), Permissions::from_mode(0o755)).unwrap();
    let path = lab.dir.path().join("fetcher");
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

/// To hear from a script: its lines come as they are written.
fn fifo(lab: &Lab) -> PathBuf {
    let path = lab.dir.path().join("fifo");
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    path
}

/// Waits for whoever writes numbers of processes, and holds those; `None` is gone already.
fn named_in(fifo: &Path) -> Vec<Option<Process>> {
    let mut text = String::new();
    File::open(fifo).unwrap().read_to_string(&mut text).unwrap();
    let held = |pid: &str| match Process::open(pid.parse().unwrap()) {
        Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => None,
        process => Some(process.unwrap()),
    };
    text.split_whitespace().map(held).collect()
}

fn all_end_soon(processes: &[Option<Process>]) {
    assert!(!processes.is_empty());
    run(async {
        for process in processes.iter().flatten() {
            tokio::time::timeout(SOON, process.ended()).await.expect("it lives on").unwrap();
        }
    });
}

/// And ends them.
fn all_live_on(processes: &[Option<Process>]) {
    assert!(!processes.is_empty());
    for process in processes {
        let process = process.as_ref().expect("it lives");
        assert!(!process.has_ended().unwrap());
        process.kill().unwrap();
    }
}

fn settings(lab: &Lab, fetcher: &Path, user: Option<&str>) -> Settings {
    let mut settings = lab.settings(&["https://feed.example"]);
    (settings.fetcher, settings.user) = (Some(fetcher.to_owned()), user.map(str::to_owned));
    settings
}

fn refresh(settings: Settings) -> FeedError {
    run(async { Feed::open(settings).unwrap().0.refresh(NOW).await.unwrap_err() })
}

fn more_than_its_bound_is_not_written() {
    let lab = Lab::new(BYTES);
    let flood = script(&lab, "exec head -c 5000000 /dev/zero");
    run(async {
        let choice = lab.choice(&mut lab.feed()).await;
        let (feed, _) = Feed::open(settings(&lab, &flood, None)).unwrap();
        let error = feed.fetch(&choose(&feed).unwrap(), |_, _| {}).await.unwrap_err();
        assert!(matches!(&error, FeedError::FetcherDied { how, .. } if how.contains("SIGXFSZ")), "{error}");
        let part = lab.dir.path().join("staging").join(format!("{}.part", choice.artifact().sha256));
        // One more than allowed, so that it is seen to be too much.
        assert_eq!(fs::metadata(part).unwrap().len(), choice.artifact().size + 1);
    });
    let file = tempfile::tempfile().unwrap();
    let status = Command::new(flood).stdout(file.try_clone().unwrap()).status().unwrap();
    assert!(status.success() && file.metadata().unwrap().len() == 5_000_000, "nothing else holds it");
}

/// What a program in the fetcher's place finds out about itself: user and groups, size of a core, descriptors,
/// sets of capabilities, whether it could gain privileges.
fn found(user: Option<&str>) -> Vec<String> {
    let lab = Lab::new(BYTES);
    let asks = script(
        &lab,
        "caps=$(sed -n 's/^\\(CapInh\\|CapPrm\\|CapEff\\|CapAmb\\|CapBnd\\|NoNewPrivs\\):[^0-9a-f]*//p' /proc/self/status)\n\
         echo error $(id -u):$(id -g):$(id -G | tr ' ' ,) $(ulimit -c) $(ulimit -n) $caps >&2; exit 17",
    );
    match refresh(settings(&lab, &asks, user)) {
        FeedError::Fetch { text, .. } => text.split(' ').map(str::to_owned).collect(),
        error => panic!("{error}"),
    }
}

const NO_CAPABILITIES: &str = "0000000000000000";

fn it_has_small_limits() {
    let own = found(None);
    assert_eq!(own.len(), 9, "{own:?}");
    assert_eq!(own[0].split(':').next().unwrap(), geteuid().to_string());
    assert_eq!(own[1..6], ["0", "64", NO_CAPABILITIES, NO_CAPABILITIES, NO_CAPABILITIES]);
    assert_eq!(own[8], "1", "it cannot gain privileges: {own:?}");
    if !geteuid().is_root() {
        return left_out("it_has_no_capabilities_no_other_groups", "only root can run it as another user");
    }
    // The bounding and the ambient set, in the order of the kernel.
    assert_eq!(own[6..8], [NO_CAPABILITIES, NO_CAPABILITIES]);
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let other = found(Some("nobody"));
    assert_eq!(other[0], format!("{}:{}:{}", nobody.uid, nobody.gid, nobody.gid));
    assert_eq!(other[1..], own[1..]);
}

fn as_its_own_user_it_still_fetches() {
    if !geteuid().is_root() {
        return left_out("as_its_own_user_it_still_fetches", "only root can run it as another user");
    }
    let lab = Lab::new(BYTES);
    // Where that user can execute it.
    let fetcher = script(&lab, "");
    fs::remove_file(&fetcher).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_bumpless-fetch"), &fetcher).unwrap();
    let server = lab.server();
    let mut settings = settings(&lab, &fetcher, Some("nobody"));
    settings.places = vec![server.url()];
    run(async {
        let (mut feed, _) = Feed::open(settings.clone()).unwrap();
        let choice = lab.choice(&mut feed).await;
        feed.fetch(&choice, |_, _| {}).await.unwrap();
    });
    // And where it cannot, that is told.
    fs::set_permissions(&fetcher, Permissions::from_mode(0o700)).unwrap();
    let error = refresh(settings).to_string();
    assert!(error.contains("Permission denied") && error.contains("fetch.user"), "{error}");
}

fn what_it_leaves_behind_ends_with_it() {
    let lab = Lab::new(BYTES);
    let fifo = fifo(&lab);
    let leaves = script(&lab, &format!("sleep 600 & echo $! >{}; exit 17", fifo.display()));
    let settings = settings(&lab, &leaves, None);
    let fetch = std::thread::spawn(move || refresh(settings));
    let left = named_in(&fifo);
    assert!(matches!(fetch.join().unwrap(), FeedError::Fetch { .. }));
    all_end_soon(&left);

    let mut free = Command::new(leaves).process_group(0).spawn().unwrap();
    let left = named_in(&fifo);
    assert_eq!(free.wait().unwrap().code(), Some(17));
    all_live_on(&left);
}

fn its_children_end_with_a_fetch() {
    let lab = Lab::new(BYTES);
    let fifo = fifo(&lab);
    let waits = script(&lab, &format!("trap '' HUP TERM; sleep 600 & echo $$ $! >{}; wait", fifo.display()));
    let settings = settings(&lab, &waits, None);
    let processes = run(async {
        let (mut feed, _) = Feed::open(settings).unwrap();
        let heard = tokio::task::spawn_blocking(move || named_in(&fifo));
        tokio::select! {
            result = feed.refresh(NOW) => panic!("{result:?}"),
            heard = heard => heard.unwrap(),
        }
    });
    assert_eq!(processes.len(), 2);
    all_end_soon(&processes);
}

/// A supervisor as far as its fetcher sees one: `<fetcher> <first root> <folder> <user or ->`.
pub fn supervise(arguments: &[String]) -> ExitCode {
    let [fetcher, root, dir, name] = arguments else { panic!("{arguments:?}") };
    let settings = Settings {
        places: vec!["https://feed.example".to_owned()],
        channel: "stable".parse().unwrap(),
        root: Some(FirstRoot::File(root.into())),
        fetcher: Some(fetcher.into()),
        user: Some(name).filter(|name| *name != "-").cloned(),
        ca_file: None,
        allow_http_loopback: false,
        proxy: None,
        connect_timeout: SOON,
        metadata_timeout: Duration::from_secs(600),
        blob_timeout: SOON,
        min_rate: 1,
        trust_dir: Path::new(dir).join("trust"),
        staging_dir: Path::new(dir).join("staging"),
    };
    let error = refresh(settings);
    panic!("{error}");
}

fn it_does_not_outlive_a_killed_supervisor() {
    let lab = Lab::new(BYTES);
    let fifo = fifo(&lab);
    // It ignores what can be ignored, and asks nobody whether its parent lives.
    let stays = script(&lab, &format!("trap '' HUP TERM PIPE; echo $$ >{}; exec sleep 600", fifo.display()));
    let supervised = |user: &str| {
        let mut supervisor = Command::new(std::env::current_exe().unwrap());
        supervisor.arg("supervise").arg(&stays).arg(lab.publisher.first_root()).arg(lab.dir.path()).arg(user);
        supervisor
    };
    let mut free = Command::new("/bin/sh");
    free.args(["-c", "\"$0\" & wait"]).arg(&stays);
    let outlives = |mut supervisor: Command| {
        let mut supervisor = supervisor.stdin(Stdio::null()).spawn().unwrap();
        let fetcher = named_in(&fifo);
        assert!(!fetcher[0].as_ref().unwrap().has_ended().unwrap());
        supervisor.kill().unwrap();
        supervisor.wait().unwrap();
        fetcher
    };
    all_end_soon(&outlives(supervised("-")));
    all_live_on(&outlives(free));
    if geteuid().is_root() {
        all_end_soon(&outlives(supervised("nobody")));
    } else {
        left_out("it_does_not_outlive_a_killed_supervisor", "as another user: only root can start it so");
    }
}

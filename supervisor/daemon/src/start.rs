//! From the command line to a running driver.
//!
//! A start first becomes the only supervisor (the lock), then reads its records, then hears or fences
//! every worker that may be left: each file under `alive/` that is locked names a living process. Those
//! come back by the named socket, say what they do and bring the UDP sockets; whoever stays silent is
//! killed, and its death confirmed. Only then is anything decided ([`crate::upgrade::recovery`]).
//!
//! As whom workers run is decided here, too. Where none lives it is what the configuration says, and the state
//! folder is handed over if it belonged to another user ([`crate::ownership`]). Where one lives, whatever is started
//! beside it runs as that one does: two that share files have to be of one user.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bumpless_control::history::{Entry, Event as Happening};
use bumpless_os::channel::{Channel, Listener};
use bumpless_os::child::User;
use bumpless_shared::control::{Identity, Incarnation, Instance, Report, RoutingKeys};
use bumpless_shared::frame::{self, PACKET_LIMIT};
use bumpless_trust::Refused;
use nix::unistd::geteuid;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::alive::{Alive, Holder};
use crate::bans::Bans;
use crate::config::{self, Config, ConfigError};
use crate::control_socket::ControlSocket;
use crate::driver::{Beginning, Driver, Inputs, trust};
use crate::effects::journal::{self, Journal};
use crate::effects::worker::{Link, Unmet, greet};
use crate::effects::{Edge, Parts, unix_now};
use crate::exposure::{self, Exposed};
use crate::feed::proxy::Proxy;
use crate::feed::{self, Feed, FeedError, FirstRoot};
use crate::ledger::Ledger;
use crate::ownership;
use crate::records::committed;
use crate::records::file::{Kept, RecordError};
use crate::records::lock::SupervisorLock;
use crate::records::numbers::{Highest, Numbers};
use crate::records::paths::Paths;
use crate::records::routing;
use crate::releases::Releases;
use crate::sockets::Groups;
use crate::upgrade::judge::Limits;
use crate::upgrade::recovery::{Found, Survivor, recover};
use crate::upgrade::rules::Forbidden;
use crate::upgrade::{Moment, Rules, Worker};
use crate::user;

const USAGE: &str = "\
bumplessd: the supervisor of a bumpless node

Usage: bumplessd [--config FILE] [--check-config]

  --config FILE    the configuration (default /etc/bumpless/config.toml); files of the folder
                   config.d beside it are read after it, in the order of their names
  --check-config   read the configuration, say what is wrong with it, and do nothing else
  --version        print the version
  --help           print this

It stops on SIGTERM or SIGINT, and with it the node. If it is killed, the node serves on, and the
next start takes it back. `bumpless status` tells how the node is.
";

/// Where the configuration is looked for.
pub const CONFIG: &str = "/etc/bumpless/config.toml";

/// How long a living worker may take to come back to a new supervisor; longer than several of its tries.
const RETURN_WITHIN: Duration = Duration::from_secs(5);

/// What the command line asks for.
enum Command {
    Run(PathBuf),
    Check(PathBuf),
    Print(String),
    Wrong(String),
}

fn parse(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> Command {
    let (mut config, mut check) = (PathBuf::from(CONFIG), false);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--config") => match arguments.next() {
                Some(path) => config = path.into(),
                None => return Command::Wrong("--config needs a file".into()),
            },
            Some("--check-config") => check = true,
            Some("--version") => return Command::Print(format!("bumplessd {}\n", env!("CARGO_PKG_VERSION"))),
            Some("--help" | "-h") => return Command::Print(USAGE.into()),
            Some(_) | None => return Command::Wrong(format!("unknown argument {}", argument.display())),
        }
    }
    if check { Command::Check(config) } else { Command::Run(config) }
}

/// The whole program. Exit codes: 0 stopped in good order, 1 cannot run, 2 wrong usage or configuration.
pub fn run() -> ExitCode {
    // Unpacking and hashing a release takes some megabytes, once in weeks.
    bumpless_os::memory::keep_nothing_large();
    match parse(std::env::args_os().skip(1)) {
        Command::Print(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Command::Wrong(why) => {
            eprint!("bumplessd: {why}\n\n{USAGE}");
            ExitCode::from(2)
        }
        Command::Check(path) => match Config::load(&path) {
            Ok(_) => {
                println!("{}: good", path.display());
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("bumplessd: {error}");
                ExitCode::from(2)
            }
        },
        Command::Run(path) => match supervise(&path) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("bumplessd: {error}");
                match error {
                    StartError::Config(_) => ExitCode::from(2),
                    StartError::Other(_) => ExitCode::FAILURE,
                }
            }
        },
    }
}

/// Why the supervisor does not run. Workers that are left serve on.
#[derive(Debug)]
pub enum StartError {
    /// The configuration.
    Config(ConfigError),
    /// Anything else, in words.
    Other(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Config(error) => error.fmt(f),
            StartError::Other(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for StartError {}

fn other(error: impl fmt::Display) -> StartError {
    StartError::Other(error.to_string())
}

fn supervise(path: &Path) -> Result<(), StartError> {
    let config = Config::load(path).map_err(StartError::Config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(other)?;
    tokio::task::LocalSet::new().block_on(&runtime, take_charge(config))
}

async fn take_charge(config: Config) -> Result<(), StartError> {
    let born = Instant::now();
    let user = user::of_workers(&config).map_err(other)?;
    let paths = Paths::new(&config.state_dir, &config.run_dir);
    paths.create().map_err(other)?;
    let _lock = SupervisorLock::take(&paths).map_err(other)?;
    let stop = signals().map_err(other)?;

    let Known { mut ledger, committed, journal, numbers, incarnation, routing } =
        Known::read(&paths).map_err(other)?;
    let releases = Rc::new(Releases::new(paths.state_dir()));
    let settings = feed_settings(&config, &paths);
    let feed = open_feed(settings.as_ref(), &mut ledger);
    let bans = bans(&feed, &config, &paths);
    let mut rules = rules(&config);

    let (news_out, news) = unbounded_channel();
    let (done_out, done) = unbounded_channel();
    let (fed_out, fed) = unbounded_channel();
    let parts = Parts {
        config,
        paths: paths.clone(),
        numbers,
        journal,
        committed,
        releases,
        routing,
        incarnation,
        user,
        news: news_out,
        done: done_out,
    };
    let mut edge = Edge::new(parts);
    let listener = Listener::bind(&paths.reconnect_socket())
        .map_err(|error| other(format!("{} cannot be bound: {error}", paths.reconnect_socket().display())))?;
    let owner = ownership::owner(&paths).map_err(other)?;
    if owner != geteuid().as_raw() {
        ownership::give_socket(&paths.reconnect_socket(), owner).map_err(other)?;
    }
    let alive = hear_or_fence(&mut edge, &listener, &mut ledger).await?;
    if alive.is_empty() {
        edge.user = user;
        settle(user, &paths)?;
    } else {
        tell_of_user(user, &edge, &mut ledger);
    }
    tokio::task::spawn_local(turn_away(listener));

    let found = Found {
        committed: edge.committed.as_ref().map(|committed| (committed.release.clone(), committed.generation)),
        intent: edge.journal.get().intent.clone(),
        alive,
    };
    let committed = edge.committed.as_ref().map(|committed| &committed.release);
    let committed = committed.map(|release| (release, edge.releases.counter(release)));
    rules.forbidden = bans.forbidden(committed, None);
    let (state, effects) = recover(found, Moment(born.elapsed()), &rules);
    let control = ControlSocket::bind(&paths.control_socket()).map_err(other)?.ruled_out(edge.user);
    let inputs = Inputs { news, done, fed, asked: control.serve(), stop };
    let beginning =
        Beginning { edge, rules, ledger, feed, bans, settings: settings.ok(), fed: fed_out, born };
    Driver::new(beginning, state).run(effects, inputs).await;
    Ok(())
}

/// Has everything belong to whom it should before the first worker is started; as `user`, if there is one.
fn settle(user: Option<User>, paths: &Paths) -> Result<(), StartError> {
    if user.is_some() {
        kept_from_workers(paths).map_err(other)?;
    }
    if ownership::settle(paths, user).map_err(other)? {
        eprintln!("bumplessd: {} was handed over to {}", paths.state().display(), named(user));
    }
    if let Some(user) = user {
        for path in [paths.state(), paths.reconnect_socket()] {
            ownership::reaches(user, &path).map_err(other)?;
        }
    }
    Ok(())
}

/// Whether nobody but us can change what is ours; each release is looked at again whenever it is started.
fn kept_from_workers(paths: &Paths) -> Result<(), Exposed> {
    exposure::folder(paths.run_dir())?;
    exposure::folder(paths.state_dir())?;
    for path in [paths.releases(), paths.trust(), paths.staging(), paths.alive()] {
        exposure::folder(&path)?;
    }
    Ok(())
}

/// What is not as the configuration says, or not safe, while a worker lives on.
fn tell_of_user(configured: Option<User>, edge: &Edge, ledger: &mut Ledger) {
    if configured != edge.user {
        let text = format!(
            "worker.user says {}, and the worker that lives runs as {}; so does whatever is started beside it. Stop and \
             start the node to change that: systemctl restart bumplessd",
            named(configured),
            named(edge.user)
        );
        ledger.alarm(text, unix_now());
    }
    if edge.user.is_some()
        && let Err(exposed) = kept_from_workers(&edge.paths)
    {
        ledger.alarm(exposed.to_string(), unix_now());
    }
}

fn named(user: Option<User>) -> String {
    user.map_or_else(|| "the supervisor's user".to_owned(), |user| format!("user {}", user.uid))
}

/// What a start knows from its own records; each of them is durable as it was read.
pub(crate) struct Known {
    pub(crate) ledger: Ledger,
    pub(crate) committed: Option<committed::Committed>,
    pub(crate) journal: Kept<Journal>,
    pub(crate) numbers: Numbers,
    /// Of the supervisor that starts.
    pub(crate) incarnation: Incarnation,
    pub(crate) routing: RoutingKeys,
}

impl Known {
    pub(crate) fn read(paths: &Paths) -> Result<Known, RecordError> {
        let mut ledger = Ledger::open(paths, unix_now());
        let committed = committed::file(paths).load()?;
        let (journal, damage) = Kept::open(journal::file(paths), |_| Journal::default());
        if let Some(damage) = damage {
            ledger.alarm(damage.to_string(), unix_now());
        }
        let (mut numbers, damage) = Numbers::open(paths, seen(&committed, journal.get(), paths))?;
        if let Some(damage) = damage {
            ledger.alarm(damage.to_string(), unix_now());
        }
        let incarnation = numbers.next_incarnation()?;
        let routing = routing::load_or_create(paths)?;
        Ok(Known { ledger, committed, journal, numbers, incarnation, routing })
    }
}

/// Where releases come from.
///
/// # Errors
/// In words why that cannot be said.
pub fn feed_settings(config: &Config, paths: &Paths) -> Result<feed::Settings, String> {
    let (sha256, network) = (config.feed.root_sha256, config.feed.network);
    let root = config.feed.root.clone().map(FirstRoot::File).or(sha256.map(FirstRoot::Sha256));
    let proxy = match &config.fetch.proxy {
        None => None,
        Some(config::Proxy::Address(address)) => {
            Some(Proxy { address: address.clone(), except: String::new() })
        }
        Some(config::Proxy::Environment) => {
            let proxy = Proxy::of_environment(|name| std::env::var_os(name));
            proxy.map_err(|error| format!("fetch.proxy: {error}. Nothing new is looked for without it"))?
        }
    };
    Ok(feed::Settings {
        places: config.feed.urls.clone(),
        channel: config.feed.channel.clone(),
        root: root.or(network.map(FirstRoot::shipped)),
        fetcher: config.fetch.program.clone(),
        user: config.fetch.user.clone(),
        ca_file: config.feed.ca_file.clone(),
        allow_http_loopback: config.feed.allow_http_loopback,
        proxy,
        connect_timeout: config.fetch.connect_timeout,
        metadata_timeout: config.fetch.metadata_timeout,
        blob_timeout: config.upgrade.fetch_deadline,
        min_rate: config.fetch.min_rate,
        trust_dir: paths.trust(),
        staging_dir: paths.staging(),
    })
}

/// The feed, or in words why there is none. One without a place is for what an operator brings on a stick.
fn open_feed(settings: Result<&feed::Settings, &String>, ledger: &mut Ledger) -> Result<Feed, String> {
    let settings = settings.map_err(String::clone)?;
    let (feed, notices) = match Feed::open(settings.clone()) {
        Err(FeedError::Refused(Refused::NoRoot)) if settings.places.is_empty() => {
            return Err("no feed is configured (feed.urls); what runs goes on running".into());
        }
        opened => opened.map_err(|error| error.to_string())?,
    };
    trust::tell(notices, ledger);
    Ok(feed)
}

/// What the publisher forbids: from what is kept, whether or not the feed could be opened.
fn bans(feed: &Result<Feed, String>, config: &Config, paths: &Paths) -> Bans {
    if let Ok(feed) = feed {
        return Bans::of(feed.trusted());
    }
    match feed::kept(&paths.trust(), config.feed.channel.clone()) {
        Ok(Some(trusted)) => Bans::of(&trusted),
        Ok(None) => Bans::NoFeed,
        Err(error) => Bans::Unknown(error.to_string()),
    }
}

/// Numbers that are in use, whatever the numbers' own record says.
fn seen(committed: &Option<committed::Committed>, journal: &Journal, paths: &Paths) -> Highest {
    let instance = Alive::new(paths).instances().unwrap_or_default().into_iter().max().unwrap_or(0);
    let mut highest = Highest { instance, ..Highest::default() };
    if let Some(committed) = committed {
        highest.generation = committed.generation;
        highest.term = committed.term;
    }
    if let Some(intent) = &journal.intent {
        highest.generation = highest.generation.max(intent.generation);
        highest.term = highest.term.max(intent.terms.map_or(0, |terms| terms.resume));
    }
    highest
}

/// SIGTERM and SIGINT, as messages.
fn signals() -> std::io::Result<UnboundedReceiver<()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (out, stop) = unbounded_channel();
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signal = signal(kind)?;
        let out: UnboundedSender<()> = out.clone();
        tokio::task::spawn_local(async move {
            while signal.recv().await.is_some() {
                let _ = out.send(());
            }
        });
    }
    Ok(stop)
}

/// The sequence's settings.
fn rules(config: &Config) -> Rules {
    let (upgrade, worker) = (&config.upgrade, &config.worker);
    Rules {
        fetch: upgrade.fetch_deadline,
        install: upgrade.install_deadline,
        start: upgrade.start_deadline,
        stall: upgrade.sync_stall,
        level: upgrade.level_deadline,
        window: upgrade.window,
        cut: upgrade.cut_deadline,
        probation: upgrade.probation,
        rehearsal: upgrade.rehearsal,
        rehearsal_gap: upgrade.rehearsal_gap,
        persist: upgrade.persist_deadline,
        retire: upgrade.retire_deadline,
        resume: upgrade.resume_deadline,
        drain: upgrade.drain,
        stagger: upgrade.goaway_stagger,
        kill_alarm: upgrade.kill_alarm,
        stop: upgrade.stop_deadline,
        reserve: upgrade.reserve,
        limits: Limits {
            silence: worker.heartbeat * (worker.missed + 1),
            memory: worker.memory_max,
            lag: upgrade.max_lag,
            logbook: upgrade.max_logbook,
            error_permille: u64::from(upgrade.max_error_permille),
            p99_factor: u64::from(upgrade.p99_factor),
            p99_floor: upgrade.p99_floor,
            min_sample: upgrade.min_sample,
        },
        // Looked up before the first decision is taken.
        forbidden: Forbidden::default(),
        revoked: config.revoked,
    }
}

// ------------------------------------------------------------------------------ taking workers back

/// A worker that came back and proved who it is.
struct Returned {
    identity: Identity,
    channel: Channel,
    version: u16,
    sockets: Vec<std::os::fd::OwnedFd>,
    pid: i32,
    user: User,
}

/// Hears every living worker, or makes sure that it is dead.
async fn hear_or_fence(
    edge: &mut Edge,
    listener: &Listener,
    ledger: &mut Ledger,
) -> Result<Vec<Survivor>, StartError> {
    let mut holders: HashMap<Instance, Holder> =
        edge.alive.holders().map_err(other)?.into_iter().map(|holder| (holder.instance, holder)).collect();
    let deadline = tokio::time::Instant::now() + RETURN_WITHIN;
    let (out, mut returned) = unbounded_channel();
    let mut survivors = vec![];
    while !holders.is_empty() {
        let ended = async {
            let waits = holders.values().map(|holder| Box::pin(holder.process.ended()));
            first_of(waits.collect()).await;
        };
        tokio::select! {
            Some(worker) = returned.recv() => {
                if let Some(survivor) = take_back(edge, &mut holders, worker) {
                    let reason = format!("worker {}", survivor.worker.instance);
                    let (to, at) = (Some(survivor.worker.release.clone()), unix_now());
                    ledger.append(&Entry { to, reason: Some(reason), ..Entry::new(at, Happening::WorkerTakenBack) });
                    survivors.push(survivor);
                }
            }
            accepted = listener.accept() => match accepted {
                Ok(channel) => {
                    let out = out.clone();
                    tokio::task::spawn_local(async move {
                        if let Ok(Some(worker)) = tokio::time::timeout(RETURN_WITHIN, hear(channel)).await {
                            let _ = out.send(worker);
                        }
                    });
                }
                Err(error) => return Err(other(format!("workers cannot come back: {error}"))),
            },
            () = ended => {
                holders.retain(|_, holder| !holder.process.has_ended().unwrap_or(false));
            }
            () = tokio::time::sleep_until(deadline) => break,
        }
    }
    for (instance, holder) in holders {
        ledger.alarm(
            format!("worker {instance} (process {}) did not come back and is killed", holder.pid),
            unix_now(),
        );
        holder.process.kill().map_err(other)?;
        while tokio::time::timeout(edge.config.upgrade.kill_alarm, holder.process.ended()).await.is_err() {
            ledger.alarm(format!("worker {instance} was killed and is not dead yet; waiting"), unix_now());
        }
    }
    let keep: Vec<Instance> = survivors.iter().map(|survivor| survivor.worker.instance).collect();
    edge.alive.remove_dead(&keep).map_err(other)?;
    Ok(survivors)
}

async fn first_of<F: Future<Output = T> + Unpin, T>(mut futures: Vec<F>) {
    std::future::poll_fn(|context| {
        let ready = futures.iter_mut().any(|future| std::pin::Pin::new(future).poll(context).is_ready());
        if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// Greets a connection and hears who it is; `None` where it is nobody of ours.
async fn hear(channel: Channel) -> Option<Returned> {
    let version = match greet(&channel).await {
        Ok(version) => version,
        Err(Unmet::Closed) => return None,
        Err(Unmet::Refused(why)) => {
            eprintln!("bumplessd: a worker that came back was not understood: {why}");
            return None;
        }
    };
    let (pid, user) = (channel.peer_pid().ok()?, channel.peer_user().ok()?);
    let packet = channel.receive().await.ok()??;
    match frame::decode(&packet.bytes, version, PACKET_LIMIT) {
        Ok(Report::Identity(identity)) => {
            Some(Returned { identity: *identity, channel, version, sockets: packet.descriptors, pid, user })
        }
        Ok(_) | Err(_) => None,
    }
}

/// Checks that it is the process that holds its instance's lock and knows its secret, and takes its
/// channel and, from the first, the sockets.
fn take_back(edge: &mut Edge, holders: &mut HashMap<Instance, Holder>, worker: Returned) -> Option<Survivor> {
    let Returned { identity, channel, version, sockets, pid, user } = worker;
    let instance = identity.instance;
    let known = holders.get(&instance).is_some_and(|holder| holder.pid == pid);
    if !known || edge.secret_of(instance).ok() != Some(identity.secret) {
        eprintln!("bumplessd: process {pid} says that it is worker {instance}; it is not");
        return None;
    }
    let holder = holders.remove(&instance)?;
    edge.user = (user.uid != geteuid().as_raw()).then_some(user);
    if edge.groups.is_none() {
        match Groups::from_fds(sockets) {
            Ok(groups) => edge.groups = Some(groups),
            Err(error) => eprintln!("bumplessd: the sockets of worker {instance} cannot be used: {error}"),
        }
    }
    let worker =
        Worker { instance, generation: identity.generation, release: identity.release, tag: identity.tag };
    let link = Link { channel, incarnation: edge.incarnation, version: Some(version) };
    match edge.take_back(worker.clone(), holder.process, pid, link) {
        Ok(()) => Some(Survivor { worker, role: identity.role }),
        Err(error) => {
            eprintln!("bumplessd: worker {instance} cannot be watched: {error}");
            None
        }
    }
}

/// After the start nobody is expected; a connection is closed at once.
async fn turn_away(listener: Listener) {
    while listener.accept().await.is_ok() {}
}

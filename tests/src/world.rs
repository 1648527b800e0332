//! One node with everything around it, in a temporary folder and on ports of its own:
//!
//! ```text
//!   <folder>/publisher/   keys and feed, served over HTTP through a tap
//!   <folder>/artifacts/   stamped worker binaries
//!   <folder>/packages/    workers that the system's packages brought, once one did
//!   <folder>/etc/         config.toml, config.d/
//!   <folder>/state/       the supervisor's state folder
//!   <folder>/run/         its sockets
//!   <folder>/log          what the supervisor wrote
//! ```
//!
//! Dropping a world ends every process of it and removes the folder.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bumpless_control::reply::Outcome;
use bumpless_control::request::Request;
use bumpless_control::status::Status;
use bumpless_release::{Addition, Options as FeedOptions, Publisher, Server, Terms, declare};
use bumpless_shared::release::{Release, Version};
use bumpless_shared::version::Range;
use bumpless_worker::client::{Client, Options, Target};
use bumpless_worker::faults::Faults;
use bumpless_worker::stamp::{self, Stamp};
use bumpless_worker::state::Layout;
use rand::Rng;
use tempfile::TempDir;

use crate::binaries::Binaries;
use crate::configuration::{Places, Settings};
use crate::control::Control;
use crate::injected::Injected;
use crate::leftovers;
use crate::namespace::Namespace;
use crate::operator::Operator;
use crate::supervisor::Supervisor;
use crate::tap::{Flow, Tap};

/// Any error: the harness only ever shows it.
pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// How long a supervisor may take until a worker serves.
pub const START: Duration = Duration::from_secs(40);

/// One node with its feed, its supervisor and its operator.
#[derive(Debug)]
pub struct World {
    folder: TempDir,
    binaries: &'static Binaries,
    node: PathBuf,
    publisher: Publisher,
    tap: Tap,
    // Held for its drop alone.
    _server: Server,
    settings: Settings,
    places: Places,
    supervisor: Option<Supervisor>,
    namespace: Option<Namespace>,
}

impl World {
    /// Builds the programs, makes a signed feed without releases and serves it, and writes the
    /// configuration. Nothing of the node runs yet. Needs a runtime of several threads.
    ///
    /// # Errors
    /// Whatever stands in the way.
    pub async fn prepare(settings: Settings) -> Result<World> {
        let binaries = tokio::task::block_in_place(Binaries::build).map_err(|error| error.to_string())?;
        // Names of sockets are short, so the folder's is, too.
        let folder = tempfile::Builder::new().prefix("bumpless-").tempdir()?;
        // Its processes may be of several users.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
        let at = |name: &str| folder.path().join(name);
        for name in ["artifacts", "etc", "etc/config.d", "state", "run", "publisher"] {
            std::fs::create_dir_all(at(name))?;
        }
        let publisher = Publisher::init(&at("publisher"), &FeedOptions::new("stable".parse()?, unix_now()))?;
        let server = Server::start(&publisher.feed())?;
        let tap = Tap::start(server.address()).await?;
        let places = Places {
            state_dir: at("state"),
            run_dir: at("run"),
            listen: vec![free_address(Ipv4Addr::LOCALHOST.into())?],
            feed: format!("http://{}", tap.address()),
            root: publisher.first_root(),
            fetch: binaries.fetch.clone(),
            packages: at("packages"),
        };
        let world = World {
            folder,
            binaries,
            node: binaries.node.clone(),
            publisher,
            tap,
            _server: server,
            settings,
            places,
            supervisor: None,
            namespace: None,
        };
        world.configure()?;
        Ok(world)
    }

    /// [`World::prepare`], release 1.0.0 published, and started until it serves.
    ///
    /// # Errors
    /// Whatever stands in the way.
    pub async fn start(settings: Settings) -> Result<World> {
        World::start_with(settings, &release("1.0.0", Layout::ByName)?).await
    }

    /// The same with another first release.
    ///
    /// # Errors
    /// Whatever stands in the way.
    pub async fn start_with(settings: Settings, first: &Stamp) -> Result<World> {
        let mut world = World::prepare(settings).await?;
        world.publish(first)?;
        world.start_supervisor()?;
        world.first_install().await?;
        Ok(world)
    }

    /// Waits for the first release to serve: a supervisor that begins by itself has begun, another one
    /// is asked to.
    ///
    /// # Errors
    /// It does not serve in the end.
    pub async fn first_install(&mut self) -> Result<Status> {
        if !self.settings.automatic {
            self.until("an answer", |_| true).await?;
            let request = Request::Upgrade { version: None, wait: true, rehearse: false };
            let outcome = self.control().ask(&request, |_, _| ()).await?;
            if !matches!(outcome, Outcome::Done { .. }) {
                return Err(format!("the first release was not installed: {outcome:?}").into());
            }
        }
        self.serving().await
    }

    /// Writes the configuration anew.
    ///
    /// # Errors
    /// Those of writing.
    pub fn configure(&self) -> Result<()> {
        std::fs::write(self.configuration(), self.settings.text(&self.places))?;
        let more = self.etc().join("config.d/more.toml");
        if self.settings.more.is_empty() {
            let _ = std::fs::remove_file(more);
        } else {
            std::fs::write(more, &self.settings.more)?;
        }
        Ok(())
    }

    /// The settings, to be changed before [`World::configure`].
    pub fn settings(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// The places, to be changed before [`World::configure`].
    pub fn places(&mut self) -> &mut Places {
        &mut self.places
    }

    /// The world's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the programs are.
    pub fn binaries(&self) -> &'static Binaries {
        self.binaries
    }

    /// The main configuration file.
    pub fn configuration(&self) -> PathBuf {
        self.etc().join("config.toml")
    }

    fn etc(&self) -> PathBuf {
        self.folder.path().join("etc")
    }

    /// The configuration's text.
    pub fn configuration_text(&self) -> String {
        self.settings.text(&self.places)
    }

    /// The supervisor's state folder.
    pub fn state_dir(&self) -> &Path {
        &self.places.state_dir
    }

    /// The folder that is served as the feed.
    pub fn feed(&self) -> PathBuf {
        self.publisher.feed()
    }

    /// The feed's address, tap included.
    pub fn feed_url(&self) -> &str {
        &self.places.feed
    }

    /// The publisher, for what [`World::publish`] cannot do.
    pub fn publisher(&mut self) -> &mut Publisher {
        &mut self.publisher
    }

    /// Opens, throttles or closes the way to the feed.
    pub fn turn_tap(&self, flow: Flow) {
        self.tap.turn(flow);
    }

    /// Stamps the node's binary and publishes it as this release.
    ///
    /// # Errors
    /// Those of the publisher.
    pub fn publish(&mut self, stamp: &Stamp) -> Result<Release> {
        // Described from here: the publisher would run the file that was just written, and while another
        // thread of this process is starting a program, that program has the file open for writing, too.
        let description = Some(stamp.description());
        self.publish_with(stamp, Addition { description, ..Addition::default() })
    }

    /// The same with something else to say about it.
    ///
    /// # Errors
    /// Those of the publisher.
    pub fn publish_with(&mut self, stamp: &Stamp, mut addition: Addition) -> Result<Release> {
        // Not asked of the artifact itself: a process that another test starts at this moment may hold the
        // freshly written file open for writing until it executes, and then it cannot be run ("text file
        // busy").
        addition.description.get_or_insert_with(|| stamp.description());
        tokio::task::block_in_place(|| {
            let artifact = self.folder.path().join("artifacts").join(stamp.release.as_str());
            stamp::write(&self.node, &artifact, stamp)?;
            let release = self.publisher.add(&artifact, &stamp.release, addition)?;
            self.publisher.publish(unix_now())?;
            std::fs::remove_file(&artifact)?;
            Ok(release)
        })
    }

    /// Installs the node's binary with this stamp as a package of the system: `node` and `node.json` in the
    /// packages' folder, each replaced at once, as package managers do.
    ///
    /// # Errors
    /// Those of writing.
    pub fn package(&self, stamp: &Stamp, counter: u64) -> Result<Release> {
        let artifact = self.folder.path().join("artifacts").join(stamp.release.as_str());
        let folder = &self.places.packages;
        if !folder.exists() {
            std::fs::create_dir(folder)?;
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
        }
        stamp::write(&self.node, &artifact, stamp)?;
        std::fs::set_permissions(&artifact, std::fs::Permissions::from_mode(0o755))?;
        let terms = Terms { counter, description: Some(stamp.description()), ..Terms::default() };
        let declaration = declare(&artifact, terms)?;
        let release = Release { version: declaration.release.clone(), sha256: declaration.sha256 };
        let aside = folder.join("node.json.new");
        std::fs::write(&aside, serde_json::to_vec(&declaration)?)?;
        std::fs::set_permissions(&aside, std::fs::Permissions::from_mode(0o644))?;
        std::fs::rename(&artifact, folder.join("node"))?;
        std::fs::rename(&aside, folder.join("node.json"))?;
        Ok(release)
    }

    /// What is published from now on is as small as it gets: where many releases are, they are the work.
    ///
    /// # Errors
    /// Those of `strip`, which comes with the linker.
    pub fn strip(&mut self) -> Result<()> {
        let bare = self.folder.path().join("node");
        let stripped = Command::new("strip").arg("-o").arg(&bare).arg(&self.binaries.node).status()?;
        if !stripped.success() {
            return Err(format!("the node cannot be stripped: {stripped}").into());
        }
        self.node = bare;
        Ok(())
    }

    /// Takes a release out of what will be published next, and its blob from the feed.
    ///
    /// # Errors
    /// Those of the publisher.
    pub fn withdraw(&mut self, version: &Version) -> Result<()> {
        let release = self.publisher.index().releases.iter().find(|entry| entry.release == *version);
        let artifacts = release.ok_or("there is no such release")?.artifacts.clone();
        self.publisher.drop_release(version)?;
        for artifact in artifacts {
            std::fs::remove_file(self.feed().join(artifact.path()))?;
        }
        Ok(())
    }

    /// A view of the file system of this world's own, in which its supervisors are started from now on;
    /// `None` where the kernel does not let us have one.
    ///
    /// # Errors
    /// Those of starting a process.
    pub fn namespace(&mut self) -> Result<Option<&Namespace>> {
        if self.namespace.is_none() {
            self.namespace = Namespace::make()?;
        }
        Ok(self.namespace.as_ref())
    }

    /// What is to go wrong with its programs below them.
    pub fn injected(&self) -> Injected {
        Injected::below(self.folder.path())
    }

    /// The command that starts the supervisor.
    pub fn supervisor_command(&self) -> Command {
        let entrance = self.namespace.as_ref().map(Namespace::entrance).unwrap_or_default();
        let mut words = entrance.iter();
        let mut command = match words.next() {
            Some(program) => {
                let mut command = Command::new(program);
                command.args(words).arg(&self.binaries.bumplessd);
                command
            }
            None => Command::new(&self.binaries.bumplessd),
        };
        command.arg("--config").arg(self.configuration()).env(Injected::VARIABLE, self.injected().path());
        command
    }

    /// Starts the supervisor.
    ///
    /// # Errors
    /// Those of starting a process.
    pub fn start_supervisor(&mut self) -> Result<&mut Supervisor> {
        let supervisor = Supervisor::start(self.supervisor_command(), &self.folder.path().join("log"))?;
        Ok(self.supervisor.insert(supervisor))
    }

    /// The running supervisor.
    ///
    /// # Errors
    /// There is none.
    pub fn supervisor(&mut self) -> Result<&mut Supervisor> {
        self.supervisor.as_mut().ok_or_else(|| "the supervisor does not run".into())
    }

    /// Kills the supervisor with SIGKILL; its workers live on.
    ///
    /// # Errors
    /// There is none.
    pub fn kill_supervisor(&mut self) -> Result<()> {
        self.supervisor()?.kill()?;
        self.supervisor = None;
        Ok(())
    }

    /// Its control socket.
    pub fn control(&self) -> Control {
        Control::new(&self.places.run_dir.join("control.sock"))
    }

    /// The operator's command for it.
    pub fn operator(&self) -> Operator {
        Operator::new(self.binaries.bumpless.clone(), self.places.run_dir.join("control.sock"))
    }

    /// The operator's command as a user who is nobody; `None` where we are not root and cannot become one.
    ///
    /// # Errors
    /// Those of making the command reachable for everybody.
    pub fn stranger(&self) -> Result<Option<Operator>> {
        const NOBODY: u32 = 65_534;
        if !nix::unistd::geteuid().is_root() {
            return Ok(None);
        }
        let program = self.folder().join("bumpless");
        // By another process: while one of ours has it open for writing, a child that another test starts
        // has it, too, and it cannot be executed.
        let copied = Command::new("cp").arg(&self.binaries.bumpless).arg(&program).status()?;
        if !copied.success() {
            return Err(format!("the operator's command cannot be copied: {copied}").into());
        }
        Ok(Some(self.operator().as_user(NOBODY, program)))
    }

    /// Waits until a worker serves and nothing is under way.
    ///
    /// # Errors
    /// None does within [`START`].
    pub async fn serving(&mut self) -> Result<Status> {
        self.until("a worker that serves", |status| {
            status.serving.is_some() && status.upgrade.is_none() && status.draining.is_none()
        })
        .await
    }

    /// Waits for a status, for as long as the supervisor lives.
    async fn until(&mut self, what: &str, wanted: impl Fn(&Status) -> bool) -> Result<Status> {
        let control = self.control();
        let ended = async {
            match &mut self.supervisor {
                // Only the end that comes by itself: nobody else can kill it while we borrow it.
                Some(supervisor) => supervisor.ended(START).await.ok(),
                None => None,
            }
        };
        tokio::select! {
            biased;
            status = control.until(what, START, wanted) => Ok(status?),
            Some(status) = ended => {
                let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                Err(format!("the supervisor ended ({status}) before there was {what}. Its log:\n{log}").into())
            }
        }
    }

    /// The node, for a client.
    ///
    /// # Errors
    /// It has no certificate yet.
    pub fn target(&self) -> Result<Target> {
        let certificate = std::fs::read(self.certificate())?;
        Ok(Target { addresses: self.places.listen.clone(), pin: bumpless_worker::net::pin(&certificate) })
    }

    /// The node's certificate.
    pub fn certificate(&self) -> PathBuf {
        self.seen(&self.places.state_dir.join("state/identity/node.crt"))
    }

    /// A path of this world's programs, as it is reached from here.
    pub fn seen(&self, path: &Path) -> PathBuf {
        self.namespace.as_ref().map_or_else(|| path.to_owned(), |namespace| namespace.seen(path))
    }

    /// A client of the node.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn client(&self) -> Result<Client> {
        Ok(Client::connect(self.target()?, Options::default()).await?)
    }

    /// Ends every process of the world.
    ///
    /// # Errors
    /// Where that is not possible.
    pub fn end(&mut self) -> Result<()> {
        self.supervisor = None;
        leftovers::kill(self.folder.path())?;
        Ok(())
    }

    /// Ends every process and leaves the folder, whose name it returns.
    ///
    /// # Errors
    /// Where a process cannot be ended.
    pub fn keep(mut self) -> Result<PathBuf> {
        self.end()?;
        self.folder.disable_cleanup(true);
        Ok(self.folder.path().to_owned())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(log) = std::fs::read(self.folder.path().join("log"))
        {
            eprintln!("--- the supervisor's log ---\n{}---", String::from_utf8_lossy(&log));
        }
        if let Err(error) = self.end() {
            eprintln!("a process of {} may be left: {error}", self.folder.path().display());
        }
    }
}

/// A sound release of this name, with this layout of its database.
///
/// # Errors
/// It is no release's name.
pub fn release(version: &str, layout: Layout) -> Result<Stamp> {
    Ok(Stamp::new(version.parse()?, layout))
}

/// A sound release of before version 2 of contract and state: it knows no appends.
///
/// # Errors
/// It is no release's name.
pub fn earlier(version: &str, layout: Layout) -> Result<Stamp> {
    Ok(Stamp { speaks: Range { min: 1, max: 1 }, ..release(version, layout)? })
}

/// A release of this name, with the later layout and this plan of what goes wrong.
///
/// # Errors
/// It is no release's name.
pub fn faulty(version: &str, faults: Faults) -> Result<Stamp> {
    Ok(Stamp { faults, ..release(version, Layout::ByKind)? })
}

/// Seconds since 1970.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A port of this loopback address that nobody has, below those that the kernel gives to clients: such a
/// client could take it while the node is between two starts.
///
/// # Errors
/// There is none.
pub fn free_address(ip: IpAddr) -> Result<SocketAddr> {
    for _ in 0..200 {
        let address = SocketAddr::from((ip, rand::rng().random_range(20_000..32_000)));
        if UdpSocket::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err("no free port".into())
}

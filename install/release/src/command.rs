//! The command line: `bumpless-release <verb>`.

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use bumpless_shared::control::Description;
use bumpless_shared::digest::Digest;
use bumpless_shared::release::Version;
use bumpless_trust::choice::targets;
use bumpless_trust::document::{Channel, Group, MAX_TIMESTAMP_VALID, Stage, root_path};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::attest::{Attestation, attest};
use crate::ceremony::Request;
use crate::check::check;
use crate::declare::{self, Terms, declare};
use crate::error::PublishError;
use crate::key::Key;
use crate::password::Passwords;
use crate::published::channels;
use crate::publisher::{Addition, Holders, Options, PublicKeys, Publisher, Spread};
use crate::rotation::KeyChange;
use crate::server::Server;
use crate::signer::Signer;

/// Makes, signs, checks and serves feeds of releases.
#[derive(Parser)]
#[command(name = "bumpless-release", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a new feed: its network, its keys and its first root
    Init {
        /// Folder for the feed and its keys
        dir: PathBuf,
        /// Network id, 64 hexadecimal digits; random if absent
        #[arg(long)]
        network: Option<Digest>,
        /// Its first channel; `bumpless-release channel` begins more
        #[arg(long, value_name = "NAME", default_value_t)]
        channel: Channel,
        /// A timestamp is valid for 30 days instead of 72 hours: for a lab where nobody renews it
        #[arg(long)]
        lab: bool,
        /// zstd level, 1 (fast) to 19 (small)
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=19))]
        level: i32,
        #[command(flatten)]
        holders: HolderArguments,
    },
    /// Make a key without a password: FILE (secret) and FILE with the ending .pub; `minisign -G` makes one
    /// with a password
    Keygen {
        /// Where the secret key goes
        file: PathBuf,
    },
    /// Begin another channel of the feed, with the same keys; it is published with its first release
    Channel {
        /// Such as beta: 1 to 32 of a-z 0-9 -; machines follow it with feed.channel
        name: Channel,
        /// Folder of the feed
        #[arg(long, default_value = ".")]
        dir: PathBuf,
    },
    /// Add artifacts of a release, and publish
    Add {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        of: Of,
        /// The executables, each as TARGET=FILE or, for machines like this one, FILE
        #[arg(required = true)]
        artifacts: Vec<String>,
        /// Their release
        #[arg(long)]
        release: Version,
        /// For which machines, if there is one artifact
        #[arg(long)]
        target: Option<String>,
        /// What an artifact prints with --describe, where none runs here
        #[arg(long)]
        describe_file: Option<PathBuf>,
        /// Place in the order; if absent one more than the highest, or in a channel other than stable the next full
        /// hundred, so that stable has room for what it needs before it
        #[arg(long)]
        counter: Option<u64>,
        /// It does not wait for a maintenance window nor, where what runs is revoked, for its stage
        #[arg(long)]
        urgent: bool,
        /// Source revision, for people and builders
        #[arg(long, default_value = "")]
        commit: String,
    },
    /// Let a release spread in stages, and publish; a channel that does not have it takes it over from another one
    /// in which it is published, with the same bytes and the same place in the order
    Promote {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        of: Of,
        /// Its release
        release: Version,
        /// When the first stage begins, unix seconds; now if absent
        #[arg(long)]
        start: Option<u64>,
        /// SECONDS:PERMILLE, rising, such as 0:10,86400:250,259200:1000; 0:0 is nobody but the canaries
        #[arg(long, default_value = "0:1000", value_delimiter = ',', value_parser = stage)]
        stages: Vec<Stage>,
        /// The stages reach only machines of this group
        #[arg(long)]
        group: Option<Group>,
        /// Machines of this group wait for no stage
        #[arg(long = "canary", value_name = "GROUP", value_delimiter = ',')]
        canaries: Vec<Group>,
    },
    /// Forbid a release in every channel, or in one every release below a counter, and publish
    Revoke {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        of: Of,
        /// The release
        #[arg(required_unless_present = "below")]
        release: Option<Version>,
        /// Forbid what has a lower counter, in the channel of --channel alone
        #[arg(long, value_name = "COUNTER")]
        below: Option<u64>,
    },
    /// Stop new installations on the channel, or let them go on, and publish
    Pause {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        of: Of,
        /// What to do
        #[arg(default_value = "on")]
        state: Pause,
    },
    /// Publish what has changed and has enough signatures, with a new timestamp of each channel
    Publish {
        /// Folder of the feed
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// This channel alone, unless the next root takes all of them with it
        #[arg(long, value_name = "NAME")]
        channel: Option<Channel>,
        #[command(flatten)]
        keys: KeyArguments,
    },
    /// Renew the timestamp of each channel
    Timestamp {
        /// Folder of the feed
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// Of this channel alone
        #[arg(long, value_name = "NAME")]
        channel: Option<Channel>,
        #[command(flatten)]
        keys: KeyArguments,
    },
    /// Write the next root of all channels, with other keys or thresholds; `publish` publishes it
    Rotate {
        #[command(flatten)]
        at: At,
        /// One more key of a role
        #[arg(long, value_name = "ROLE=FILE.pub", value_parser = role_and::<PathBuf>)]
        add: Vec<(Signer, PathBuf)>,
        /// No key of a role any more
        #[arg(long, value_name = "ROLE=FILE.pub", value_parser = role_and::<PathBuf>)]
        remove: Vec<(Signer, PathBuf)>,
        /// So many keys of a role must sign
        #[arg(long, value_name = "ROLE=NUMBER", value_parser = role_and::<NonZeroU8>)]
        threshold: Vec<(Signer, NonZeroU8)>,
        /// A new key, made in keys/, in place of all keys of a role
        #[arg(long, value_name = "ROLE")]
        new: Vec<Signer>,
        /// Nobody has to have built the same any more
        #[arg(long)]
        no_builders: bool,
    },
    /// Sign a file that waits, on the machine of whoever holds the key, after showing what it says
    Sign {
        /// The file; its signatures go to FILE.sigs
        file: PathBuf,
        /// The secret key
        #[arg(long)]
        key: PathBuf,
        /// The role in which it is signed
        #[arg(long)]
        role: Signer,
        /// A copy of the feed, to compare with; the one beside FILE's folder if there is one
        #[arg(long)]
        feed: Option<PathBuf>,
        /// Sign without asking
        #[arg(long)]
        yes: bool,
        /// Read the key's password from this file descriptor
        #[arg(long, value_name = "N")]
        password_fd: Option<u32>,
    },
    /// Take over signatures that were made elsewhere, of files in sign/
    Merge {
        /// Folder of the feed
        #[arg(long, default_value = ".")]
        dir: PathBuf,
        /// Such as index-7.json.sigs or index-7.json.minisig
        #[arg(required = true)]
        sigs: Vec<PathBuf>,
    },
    /// As an independent builder: sign what came out of the source
    Attest {
        /// The executables, each as TARGET=FILE or, for machines like this one, FILE
        #[arg(required = true)]
        artifacts: Vec<String>,
        /// The network's newest root
        #[arg(long)]
        root: PathBuf,
        /// Their release
        #[arg(long)]
        release: Version,
        /// Its place in the order, which the publisher says
        #[arg(long)]
        counter: u64,
        /// The source that was built
        #[arg(long, default_value = "")]
        commit: String,
        /// The builder's secret key
        #[arg(long)]
        key: PathBuf,
        /// Where build-RELEASE.json and its .sigs go
        #[arg(long, default_value = ".")]
        out: PathBuf,
        /// Read the key's password from this file descriptor
        #[arg(long, value_name = "N")]
        password_fd: Option<u32>,
    },
    /// Write what lies beside a worker in a package of the system: FILE.json, without any feed or key
    Declare {
        /// The executable, under the name that it has in the package
        file: PathBuf,
        /// Place in the order; where the release is on a feed, too, the feed's number
        #[arg(long)]
        counter: u64,
        /// For which machines; those like this one if absent
        #[arg(long)]
        target: Option<String>,
        /// What the executable prints with --describe, where it does not run here
        #[arg(long)]
        describe_file: Option<PathBuf>,
        /// It does not wait for a maintenance window
        #[arg(long)]
        urgent: bool,
    },
    /// Check a feed as a client would, and explain each check
    Verify {
        /// Folder of the feed
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// The root to begin with; the feed's first if absent, which proves nothing about the feed's origin
        #[arg(long)]
        root: Option<PathBuf>,
        /// This channel alone; each that the feed has if absent
        #[arg(long, value_name = "NAME")]
        channel: Option<Channel>,
    },
    /// Serve a feed on loopback, for trying out
    Serve {
        /// Folder of the feed
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// Loopback address; port 0 takes a free one
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
}

/// Where a feed is, and what signs it.
#[derive(Args)]
struct At {
    /// Folder of the feed
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Change the draft only; `publish` publishes all changes in one index
    #[arg(long)]
    later: bool,
    #[command(flatten)]
    keys: KeyArguments,
}

/// Of what is changed.
#[derive(Args)]
struct Of {
    /// The channel
    #[arg(long, value_name = "NAME", default_value_t)]
    channel: Channel,
}

#[derive(Args)]
struct KeyArguments {
    /// A secret key that does not lie in the feed's keys/
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// Read passwords from this file descriptor, one line for each encrypted key
    #[arg(long, value_name = "N")]
    password_fd: Option<u32>,
}

/// Whose public keys speak for which role; a new key is made for a role that is not named.
#[derive(Args)]
struct HolderArguments {
    /// Keys of the root, made elsewhere
    #[arg(long, value_name = "FILE.pub", value_delimiter = ',')]
    root_keys: Vec<PathBuf>,
    /// So many of them must sign
    #[arg(long, requires = "root_keys")]
    root_threshold: Option<NonZeroU8>,
    /// Keys of releases
    #[arg(long, value_name = "FILE.pub", value_delimiter = ',')]
    release_keys: Vec<PathBuf>,
    /// So many of them must sign
    #[arg(long, requires = "release_keys")]
    release_threshold: Option<NonZeroU8>,
    /// Keys of timestamps
    #[arg(long, value_name = "FILE.pub", value_delimiter = ',')]
    timestamp_keys: Vec<PathBuf>,
    /// So many of them must sign
    #[arg(long, requires = "timestamp_keys")]
    timestamp_threshold: Option<NonZeroU8>,
    /// Keys of independent builders
    #[arg(long, value_name = "FILE.pub", value_delimiter = ',')]
    builders_keys: Vec<PathBuf>,
    /// So many of them must have built the same
    #[arg(long, requires = "builders_keys")]
    builders_threshold: Option<NonZeroU8>,
}

impl HolderArguments {
    fn holders(self) -> Result<Holders, PublishError> {
        let of = |signer: Signer, files: Vec<PathBuf>, threshold: Option<NonZeroU8>| match (
            files.len(),
            threshold,
        ) {
            (0, _) => Ok(None),
            (_, Some(threshold)) => Ok(Some(PublicKeys { files, threshold })),
            (1, None) => Ok(Some(PublicKeys { files, threshold: NonZeroU8::MIN })),
            (count, None) => {
                let why =
                    format!("how many of the {count} {signer} keys must sign? Say --{signer}-threshold");
                Err(PublishError::Value(why))
            }
        };
        Ok(Holders {
            root: of(Signer::Root, self.root_keys, self.root_threshold)?,
            release: of(Signer::Release, self.release_keys, self.release_threshold)?,
            timestamp: of(Signer::Timestamp, self.timestamp_keys, self.timestamp_threshold)?,
            builders: of(Signer::Builders, self.builders_keys, self.builders_threshold)?,
        })
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Pause {
    On,
    Off,
}

fn stage(text: &str) -> Result<Stage, String> {
    let parts = text
        .split_once(':')
        .and_then(|(after, permille)| Some((after.parse().ok()?, permille.parse().ok()?)));
    let (after, permille) = parts.ok_or("expected SECONDS:PERMILLE")?;
    Ok(Stage { after, permille })
}

fn role_and<T: std::str::FromStr>(text: &str) -> Result<(Signer, T), String> {
    let (role, value) = text.split_once('=').ok_or("expected ROLE=…, such as root=anna.pub")?;
    let role = Signer::from_str(role, false)?;
    Ok((role, value.parse().map_err(|_| format!("{value:?} cannot be meant"))?))
}

/// `TARGET=FILE`, or `FILE` for machines like this one.
fn artifact(text: &str) -> (String, PathBuf) {
    match text.split_once('=') {
        Some((target, file)) => (target.to_owned(), file.into()),
        None => (targets().swap_remove(0), text.into()),
    }
}

/// Runs the command line of this process. Exit codes: 0 done, 1 failed, 2 usage, 3 not published because
/// signatures are missing.
pub fn run() -> ExitCode {
    match perform(Arguments::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bumpless-release: {error}");
            match error.downcast_ref() {
                Some(PublishError::Waits(_)) => ExitCode::from(3),
                Some(_) | None => ExitCode::FAILURE,
            }
        }
    }
}

/// Seconds since 1970; 0 on a machine whose clock stands before that.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// `DIR/feed` where DIR was made by `init`, otherwise DIR itself.
fn feed_in(dir: &Path) -> PathBuf {
    let inner = dir.join("feed");
    if inner.is_dir() { inner } else { dir.to_owned() }
}

fn passwords(descriptor: Option<u32>) -> io::Result<Passwords> {
    descriptor.map_or_else(|| Ok(Passwords::default()), Passwords::from_descriptor)
}

fn open(dir: &Path, keys: KeyArguments) -> Result<Publisher, Box<dyn Error>> {
    Ok(Publisher::open_with(dir, keys.keys, passwords(keys.password_fd)?)?)
}

/// Makes a change to a channel, and publishes it if the keys at hand are enough, and whatever else is drafted in the
/// channels that it concerns. Where they are not, the change is made all the same, and what it waits for is said.
fn change(
    at: At,
    Of { channel }: Of,
    change: impl FnOnce(&mut Publisher) -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let mut publisher = open(&at.dir, at.keys)?;
    change(publisher.turn_to(&channel)?)?;
    if at.later {
        return Ok(());
    }
    unless_it_waits(publisher.publish_only(&publisher.touched(), now()))
}

fn unless_it_waits(published: Result<(), PublishError>) -> Result<(), Box<dyn Error>> {
    match published {
        Err(waits @ PublishError::Waits(_)) => println!("{waits}"),
        other => other?,
    }
    Ok(())
}

/// The channel that was named, or all of the feed's.
fn one_or_all(publisher: &mut Publisher, named: Option<Channel>) -> Result<Vec<Channel>, PublishError> {
    match named {
        Some(channel) => Ok(vec![publisher.turn_to(&channel)?.channel().clone()]),
        None => Ok(publisher.channels()),
    }
}

fn list(channels: &[Channel]) -> String {
    channels.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn perform(verb: Verb) -> Result<(), Box<dyn Error>> {
    match verb {
        Verb::Init { dir, network, channel, lab, level, holders } => {
            let mut options = Options { network, level, ..Options::new(channel, now()) };
            options.holders = holders.holders()?;
            if lab {
                options.timestamp_valid = MAX_TIMESTAMP_VALID;
            }
            let made_here = options.holders.release.is_none() && options.holders.timestamp.is_none();
            let publisher = Publisher::init(&dir, &options)?;
            println!("network {}", publisher.index().network);
            println!("first root {}", publisher.first_root().display());
            println!("its SHA-256 {}", publisher.fingerprint()?);
            if let Some(waits) = publisher.first_root_waits()? {
                println!("{waits}");
            }
            if made_here {
                println!(
                    "one key per role: whoever steals keys/release.key and keys/timestamp.key can run code on every machine"
                );
            }
        }
        Verb::Keygen { file } => println!("{}", Key::generate(&file)?.public()),
        Verb::Channel { name, dir } => {
            Publisher::open(&dir)?.begin(&name)?;
            println!("channel {name}: machines follow it with channel = \"{name}\" in the section [feed]");
        }
        Verb::Add { at, of, artifacts, release, target, describe_file, counter, urgent, commit } => {
            let description = describe_file.as_deref().map(described).transpose()?;
            let artifacts = match (target, &artifacts[..]) {
                (Some(target), [one]) => vec![(target, one.into())],
                (Some(_), _) => return Err("--target is for one artifact; say TARGET=FILE for each".into()),
                (None, several) => several.iter().map(|text| artifact(text)).collect(),
            };
            change(at, of, |publisher| {
                let added = add(publisher, &release, artifacts, |target| Addition {
                    description: description.clone(),
                    target: Some(target),
                    counter,
                    urgent,
                    commit: commit.clone(),
                    ..Addition::default()
                });
                added.map_err(Into::into)
            })?;
        }
        Verb::Promote { at, of, release, start, stages, group, canaries } => {
            let spread = Spread { start: start.unwrap_or_else(now), group, canaries, stages };
            change(at, of, |publisher| {
                if let Some(from) = publisher.promote(&release, spread)? {
                    println!("channel {} takes {release} over from channel {from}", publisher.channel());
                }
                Ok(())
            })?;
        }
        Verb::Revoke { at, of, release, below } => change(at, of, |publisher| {
            if let Some(release) = release {
                publisher.revoke(&release)?;
                println!("{release} is revoked in channels: {}", list(&publisher.channels()));
            }
            if let Some(counter) = below {
                publisher.set_floor(counter)?;
            }
            Ok(())
        })?,
        Verb::Pause { at, of, state } => {
            change(at, of, |publisher| Ok(publisher.pause(matches!(state, Pause::On))?))?;
        }
        Verb::Publish { dir, channel, keys } => {
            let mut publisher = open(&dir, keys)?;
            let channels = one_or_all(&mut publisher, channel)?;
            publisher.publish_only(&channels, now())?;
        }
        Verb::Timestamp { dir, channel, keys } => {
            let mut publisher = open(&dir, keys)?;
            let channels = one_or_all(&mut publisher, channel)?;
            publisher.timestamp_only(&channels, now())?;
            publisher.expiring(now())?.iter().for_each(|warning| eprintln!("bumpless-release: {warning}"));
        }
        Verb::Rotate { at, add, remove, threshold, new, no_builders } => {
            let with = |change: fn(Signer, PathBuf) -> KeyChange| move |(role, path)| change(role, path);
            let mut changes: Vec<KeyChange> = new.into_iter().map(KeyChange::New).collect();
            changes.extend(add.into_iter().map(with(KeyChange::Add)));
            changes.extend(remove.into_iter().map(with(KeyChange::Remove)));
            changes.extend(threshold.into_iter().map(|(role, number)| KeyChange::Threshold(role, number)));
            changes.extend(no_builders.then_some(KeyChange::NoBuilders));
            let mut publisher = open(&at.dir, at.keys)?;
            publisher.rotate(&changes, now())?;
            if !at.later {
                unless_it_waits(publisher.publish(now()))?;
            }
        }
        Verb::Sign { file, key, role, feed, yes, password_fd } => {
            let beside =
                file.canonicalize().ok().and_then(|path| Some(path.parent()?.parent()?.join("feed")));
            let feed = feed.map(|dir| feed_in(&dir)).or(beside.filter(|feed| feed.is_dir()));
            let request = Request::read(&file, role, feed.as_deref())?;
            request.words().iter().for_each(|line| println!("{line}"));
            if !yes && !asked(&format!("Sign this as {role}? [y/N] "))? {
                return Err("nothing was signed".into());
            }
            let secret = Key::read_with(&key, &mut passwords(password_fd)?)?;
            request.sign(&secret, &key)?;
        }
        Verb::Merge { dir, sigs } => {
            let mut publisher = Publisher::open(&dir)?;
            for sigs in sigs {
                let merged = publisher.merge(&sigs)?;
                let new = if merged.new.is_empty() { "nobody new".into() } else { merged.new.join(", ") };
                println!("{}: signed by {new}", merged.file.display());
                merged.tallies.iter().for_each(|tally| println!("  it has {tally}"));
            }
        }
        Verb::Attest { artifacts, root, release, counter, commit, key, out, password_fd } => {
            let artifacts = artifacts.iter().map(|text| artifact(text)).collect();
            let secret = Key::read_with(&key, &mut passwords(password_fd)?)?;
            let attestation = Attestation { release, counter, commit, artifacts };
            println!("{}", attest(&out, &root, &attestation, (&secret, &key))?.display());
        }
        Verb::Declare { file, counter, target, describe_file, urgent } => {
            let description = describe_file.as_deref().map(described).transpose()?;
            let declaration = declare(&file, Terms { counter, description, target, urgent })?;
            let written = declare::write(&file, &declaration)?;
            println!("{} {}", declaration.release, declaration.sha256);
            println!("{}", written.display());
        }
        Verb::Verify { dir, root, channel } => {
            let feed = feed_in(&dir);
            let first = root.unwrap_or_else(|| feed.join(root_path(1)));
            let channels = channel.map_or_else(|| channels(&feed), |one| Ok(vec![one]))?;
            let channels = if channels.is_empty() { vec![Channel::default()] } else { channels };
            for channel in &channels {
                if channels.len() > 1 {
                    println!("channel {channel}:");
                }
                check(&feed, &first, channel, now(), |line| println!("ok: {line}"))?;
            }
        }
        Verb::Serve { dir, listen } => {
            let server = Server::start_on(&feed_in(&dir), listen)?;
            println!("{}", server.url());
            server.wait();
        }
    }
    Ok(())
}

/// What an artifact printed with `--describe`, from a file.
fn described(path: &Path) -> Result<Description, Box<dyn Error>> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

/// Adds the artifacts of one release. What the first that runs here says of itself holds for all.
fn add(
    publisher: &mut Publisher,
    release: &Version,
    mut artifacts: Vec<(String, PathBuf)>,
    with: impl Fn(String) -> Addition,
) -> Result<(), PublishError> {
    let here = targets();
    artifacts.sort_by_key(|(target, _)| !here.contains(target));
    let mut described = None;
    for (target, path) in artifacts {
        let mut addition = with(target);
        let runs_here = addition.target.as_ref().is_some_and(|target| here.contains(target));
        if addition.description.is_none() && !runs_here {
            addition.description = described.clone();
        }
        let added = publisher.add(&path, release, addition)?;
        let entry = publisher.index().releases.iter().find(|entry| entry.release == *release);
        described = entry.map(|entry| Description {
            release: release.clone(),
            contract: entry.contract,
            protocol: entry.protocol,
            state: entry.state,
        });
        println!("{} {}", added.version, added.sha256);
    }
    Ok(())
}

fn asked(question: &str) -> io::Result<bool> {
    print!("{question}");
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "yes"))
}

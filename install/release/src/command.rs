//! The command line: `bumpless-release <verb>`.

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use bumpless_shared::digest::Digest;
use bumpless_shared::release::Version;
use bumpless_trust::document::{Channel, MAX_TIMESTAMP_VALID, Stage};
use clap::{Parser, Subcommand, ValueEnum};

use crate::check::check;
use crate::key::Key;
use crate::publisher::{Addition, Options, Publisher};
use crate::server::Server;

/// Makes, signs, checks and serves feeds of releases.
#[derive(Parser)]
#[command(name = "bumpless-release", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a new feed: its network, its keys (one per role) and its first root
    Init {
        /// Folder for the feed and its keys
        dir: PathBuf,
        /// Network id, 64 hexadecimal digits; random if absent
        #[arg(long)]
        network: Option<Digest>,
        /// Channel
        #[arg(long, default_value = "stable")]
        channel: Channel,
        /// A timestamp is valid for 30 days instead of 72 hours: for a lab where nobody renews it
        #[arg(long)]
        lab: bool,
        /// zstd level, 1 (fast) to 19 (small)
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=19))]
        level: i32,
    },
    /// Make a key: FILE (secret) and FILE with the ending .pub
    Keygen {
        /// Where the secret key goes
        file: PathBuf,
    },
    /// Add an artifact, and publish
    Add {
        /// Folder of the feed
        #[arg(long, default_value = ".")]
        dir: PathBuf,
        /// The executable
        artifact: PathBuf,
        /// Its release
        #[arg(long)]
        release: Version,
        /// For which machines; like this one if absent
        #[arg(long)]
        target: Option<String>,
        /// What the artifact prints with --describe, for one that does not run here
        #[arg(long)]
        describe_file: Option<PathBuf>,
        /// Place in the order; one more than the highest if absent
        #[arg(long)]
        counter: Option<u64>,
        /// It does not wait for a maintenance window
        #[arg(long)]
        urgent: bool,
        /// Source revision, for people
        #[arg(long, default_value = "")]
        commit: String,
    },
    /// Let a release spread in stages, and publish
    Promote {
        /// Folder of the feed
        #[arg(long, default_value = ".")]
        dir: PathBuf,
        /// Its release
        release: Version,
        /// When the first stage begins, unix seconds; now if absent
        #[arg(long)]
        start: Option<u64>,
        /// SECONDS:PERMILLE, rising, such as 0:10,86400:250,259200:1000
        #[arg(long, default_value = "0:1000", value_delimiter = ',', value_parser = stage)]
        stages: Vec<Stage>,
    },
    /// Forbid a release, or every release below a counter, and publish
    Revoke {
        /// Folder of the feed
        #[arg(long, default_value = ".")]
        dir: PathBuf,
        /// The release
        #[arg(required_unless_present = "below")]
        release: Option<Version>,
        /// Forbid what has a lower counter
        #[arg(long, value_name = "COUNTER")]
        below: Option<u64>,
    },
    /// Stop new installations on the channel, or let them go on, and publish
    Pause {
        /// Folder of the feed
        #[arg(long, default_value = ".")]
        dir: PathBuf,
        /// What to do
        #[arg(default_value = "on")]
        state: Pause,
    },
    /// Renew the timestamp
    Timestamp {
        /// Folder of the feed
        #[arg(default_value = ".")]
        dir: PathBuf,
    },
    /// Check a feed as a client would, and explain each check
    Verify {
        /// Folder of the feed
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// The root to begin with; the feed's first if absent, which proves nothing about the feed's origin
        #[arg(long)]
        root: Option<PathBuf>,
        /// Channel
        #[arg(long, default_value = "stable")]
        channel: Channel,
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

/// Runs the command line of this process. Exit codes: 0 done, 1 failed, 2 usage.
pub fn run() -> ExitCode {
    match perform(Arguments::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bumpless-release: {error}");
            ExitCode::FAILURE
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

fn perform(verb: Verb) -> Result<(), Box<dyn Error>> {
    match verb {
        Verb::Init { dir, network, channel, lab, level } => {
            let mut options = Options { network, level, ..Options::new(channel, now()) };
            if lab {
                options.timestamp_valid = MAX_TIMESTAMP_VALID;
            }
            let publisher = Publisher::init(&dir, &options)?;
            println!("network {}", publisher.index().network);
            println!("first root {}", publisher.first_root().display());
            println!(
                "one key per role: whoever steals keys/release.key and keys/timestamp.key can run code on every machine"
            );
        }
        Verb::Keygen { file } => println!("{}", Key::generate(&file)?.public()),
        Verb::Add { dir, artifact, release, target, describe_file, counter, urgent, commit } => {
            let description = match describe_file {
                Some(path) => Some(serde_json::from_slice(&std::fs::read(path)?)?),
                None => None,
            };
            let mut publisher = Publisher::open(&dir, None)?;
            let addition = Addition {
                description,
                target,
                counter,
                urgent,
                commit,
                min_supervisor: None,
                rollout: None,
            };
            let release = publisher.add(&artifact, &release, addition)?;
            publisher.publish(now())?;
            println!("{} {}", release.version, release.sha256);
        }
        Verb::Promote { dir, release, start, stages } => {
            let mut publisher = Publisher::open(&dir, None)?;
            publisher.promote(&release, start.unwrap_or_else(now), stages)?;
            publisher.publish(now())?;
        }
        Verb::Revoke { dir, release, below } => {
            let mut publisher = Publisher::open(&dir, None)?;
            if let Some(release) = release {
                publisher.revoke(&release)?;
            }
            if let Some(counter) = below {
                publisher.set_floor(counter)?;
            }
            publisher.publish(now())?;
        }
        Verb::Pause { dir, state } => {
            let mut publisher = Publisher::open(&dir, None)?;
            publisher.pause(matches!(state, Pause::On))?;
            publisher.publish(now())?;
        }
        Verb::Timestamp { dir } => Publisher::open(&dir, None)?.timestamp(now())?,
        Verb::Verify { dir, root, channel } => {
            let feed = feed_in(&dir);
            let first = root.unwrap_or_else(|| feed.join("root/1.json"));
            check(&feed, &first, &channel, now(), |line| println!("ok: {line}"))?;
        }
        Verb::Serve { dir, listen } => {
            let server = Server::start_on(&feed_in(&dir), listen)?;
            println!("{}", server.url());
            server.wait();
        }
    }
    Ok(())
}

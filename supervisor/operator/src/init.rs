//! A first configuration, and the root that trust begins with.
//!
//! ```text
//!   nothing is there yet ─▶ the root: as a file, or fetched and compared with its fingerprint
//!        ─▶ the feed, verified from that root, has the channel ─▶ root.json, then config.toml
//! ```
//!
//! A root is never believed because the feed has it. The text is that of the sample configuration with what was asked
//! for in its place; it is read, and the feed verified, by the supervisor's own code and its fetcher, with everything
//! below a folder that is gone afterwards. What is verified is not kept here: the supervisor begins with the root.
//!
//! A sample configuration that nobody has touched, as a package installs it, is no configuration yet, and is replaced.
//!
//! What can go wrong: there is a configuration already, or another root; no root is named; it is another one than the
//! fingerprint says, or nobody signed it; the feed has something that is not believed, or not the channel. Then
//! nothing is written. A feed that cannot be reached just now is told of and no more, where the root is known
//! without it. Killed between two files, it can be run again: a root that is there and is the right one stays.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bumpless_control::reply::Outcome;
use bumpless_control::schema::SCHEMA;
use bumpless_control::trust::RootShown;
use bumpless_control::{Digest, Unix, Version};
use bumpless_os::durable::{create, create_dirs, parent, replace};
use bumpless_trust::{Signed, Trusted};
use bumplessd::config::{Config, ConfigError};
use bumplessd::feed::{Feed, FeedError, FirstRoot, Settings, Trouble};
use bumplessd::records::paths::Paths;
use bumplessd::start::{CONFIG, feed_settings};

use crate::arguments::{Init, Root};
use crate::print;
use crate::words::{clause, date, safe};

/// The sample configuration, which is the text of every first one.
const SAMPLE: &str = include_str!("../../../install/bumpless.toml");

/// Everybody may read it; a password for a proxy is not asked for here.
const MODE: u32 = 0o644;

/// Why nothing was written, or not all of it.
#[derive(Debug)]
pub enum InitError {
    /// There is something in the place of the configuration, or another root in that of the root.
    Exists(PathBuf),
    /// Nobody said which root is the right one; the networks whose roots this system has.
    Rootless(Vec<Digest>),
    /// The configuration would not be read.
    Config(String),
    /// The feed, or the root.
    Feed(FeedError),
    /// A file or folder of this machine.
    File(PathBuf, io::Error),
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InitError::Exists(path) => write!(
                f,
                "{} is there already, and is not written over; nothing was changed. Edit it, or move it away first",
                path.display()
            ),
            InitError::Rootless(shipped) => {
                f.write_str(
                    "a root is not believed because the feed has it: whoever stands between this machine and the feed \
                     could have put their own there. Say which is the right one: --root SHA256, the fingerprint that \
                     the network's operator gives out (bumpless-release init printed it), or --root FILE, the root \
                     itself with its .sigs beside it",
                )?;
                match shipped.split_first() {
                    None => {}
                    Some((first, [])) => {
                        write!(f, ", or --network {first}, whose root came with this system's packages")?;
                    }
                    Some((first, more)) => {
                        write!(
                            f,
                            ", or --network with one whose root came with this system's packages: {first}"
                        )?;
                        more.iter().try_for_each(|network| write!(f, ", {network}"))?;
                    }
                }
                f.write_str("; nothing was changed")
            }
            InitError::Config(why) => write!(f, "{why}; nothing was changed"),
            InitError::Feed(why) => write!(f, "{why}; nothing was changed"),
            InitError::File(path, why) => write!(f, "{}: {why}", path.display()),
        }
    }
}

impl std::error::Error for InitError {}

/// What was written, and what stands in it.
#[derive(Debug)]
pub struct Written {
    config: PathBuf,
    /// The root's file, where this command put it.
    root_file: Option<PathBuf>,
    network: Digest,
    channel: String,
    root: RootShown,
    /// The index that the channel has and its newest release; or why the feed could not be asked.
    index: Result<(u64, Option<Version>), String>,
}

/// The whole verb; the exit code.
pub fn run(wanted: &Init, json: bool, now: Unix, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    match init(wanted, now) {
        Ok(written) if json => {
            print(out, &object(&written).to_string());
            0
        }
        Ok(written) => {
            print(out, &words(&written));
            0
        }
        Err(error) => {
            let reason = error.to_string();
            let (outcome, word) = match &error {
                InitError::Feed(error)
                    if matches!(error.trouble(), Trouble::Unreachable | Trouble::Local) =>
                {
                    (Outcome::Failed { reason }, "FAILED")
                }
                InitError::File(..) => (Outcome::Failed { reason }, "FAILED"),
                InitError::Exists(_) | InitError::Rootless(_) | InitError::Config(_) | InitError::Feed(_) => {
                    (Outcome::Refused { reason }, "Refused")
                }
            };
            if json {
                print(out, &outcome.object().to_string());
            } else {
                print(err, &format!("{word}: {}.", clause(&error.to_string())));
            }
            outcome.exit_code()
        }
    }
}

/// What was done, and what is to be done.
fn words(written: &Written) -> String {
    let Written { config, root_file, network, channel, root, index } = written;
    let RootShown { version, sha256, expires } = root;
    let mut text = format!(
        "Trust begins with root {version} of network {network}, valid until {}.\n    SHA-256 {sha256}\n",
        date(*expires)
    );
    text += &match index {
        Ok((index, Some(release))) => {
            format!("The feed has channel {channel}: index {index}, the newest release is {release}.\n")
        }
        Ok((index, None)) => {
            format!("The feed has channel {channel}: index {index}, without a release so far.\n")
        }
        Err(why) => format!(
            "The feed could not be asked just now: {}. The supervisor asks it again; whether it has channel {channel} \
             is not known yet.\n",
            clause(why)
        ),
    };
    for path in root_file.iter().map(|path| path.display()).chain([config.display()]) {
        text += &format!("Written: {}\n", safe(&path.to_string()));
    }
    let command = if *config == Path::new(CONFIG) {
        "bumplessd".to_owned()
    } else {
        safe(&format!("bumplessd --config {}", config.display()))
    };
    text + &format!(
        "\nYou need to do: start the supervisor, {command}; how the node is then: bumpless status\n"
    )
}

fn object(written: &Written) -> serde_json::Value {
    let Written { config, root_file, network, channel, root, index } = written;
    let (index, release, error) = match index {
        Ok((index, release)) => (Some(index), release.as_ref(), None),
        Err(why) => (None, None, Some(why)),
    };
    serde_json::json!({
        "schema": SCHEMA,
        "result": "done",
        "config": config,
        "root_file": root_file,
        "network": network,
        "channel": channel,
        "root": root,
        "index": index,
        "release": release,
        "feed_error": error,
    })
}

/// Verifies, then writes.
///
/// # Errors
/// Before anything is written, but for [`InitError::File`].
pub fn init(wanted: &Init, now: Unix) -> Result<Written, InitError> {
    let config = absolute(&wanted.config)?;
    if config.symlink_metadata().is_ok() && !is_sample(&config) {
        return Err(InitError::Exists(config));
    }
    let root_file = parent(&config).join("root.json");
    let first = match (&wanted.root, wanted.network) {
        (Some(Root::Sha256(sha256)), _) => FirstRoot::Sha256(*sha256),
        (Some(Root::File(path)), _) => FirstRoot::File(path.clone()),
        (None, Some(network)) => FirstRoot::shipped(network),
        (None, None) => return Err(InitError::Rootless(FirstRoot::networks())),
    };
    let stays = match &first {
        FirstRoot::Shipped(network, _) => Stays::Shipped(*network),
        FirstRoot::File(_) | FirstRoot::Sha256(_) => Stays::Here(root_file.clone()),
    };
    let text = text(wanted, &stays);
    let scratch = tempfile::tempdir().map_err(|error| InitError::File(std::env::temp_dir(), error))?;
    let settings = Settings { root: Some(first), ..settings(&text, scratch.path(), wanted)? };

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| InitError::File(scratch.path().to_owned(), error))?;
    let (root, trusted, asked) = runtime.block_on(verified(settings, now))?;
    let index = match asked {
        Ok(()) => Ok(trusted.index().map_or((0, None), |index| {
            let newest = index.releases.iter().max_by_key(|entry| entry.counter);
            (index.version, newest.map(|entry| entry.release.clone()))
        })),
        Err(error) => Err(error.to_string()),
    };

    create_dirs(parent(&config)).map_err(|error| InitError::File(parent(&config).to_owned(), error))?;
    let root_file = match stays {
        Stays::Here(path) => {
            let files = [(sigs(&path), &root.signatures), (path.clone(), &root.bytes)];
            for (path, content) in &files {
                is_free(path, content)?;
            }
            for (path, content) in &files {
                put(path, content)?;
            }
            Some(path)
        }
        Stays::Shipped(_) => None,
    };
    if is_sample(&config) {
        replace(&config, text.as_bytes(), MODE).map_err(|error| InitError::File(config.clone(), error))?;
    } else {
        put(&config, text.as_bytes())?;
    }
    let root = RootShown {
        version: trusted.root().version(),
        sha256: trusted.root_fingerprint(),
        expires: trusted.root().expires(),
    };
    let channel = trusted.channel().to_string();
    Ok(Written { config, root_file, network: trusted.root().network(), channel, root, index })
}

/// Where the configuration says that the root is.
enum Stays {
    Here(PathBuf),
    Shipped(Digest),
}

/// The root; what is verified from it; and whether the feed was asked, or why it could not be reached.
async fn verified(
    settings: Settings,
    now: Unix,
) -> Result<(Signed, Trusted, Result<(), FeedError>), InitError> {
    let (mut feed, _) = Feed::establish(settings).await.map_err(InitError::Feed)?;
    let root = feed.root().map_err(InitError::Feed)?;
    let asked = match feed.refresh(now).await {
        Ok(_) => Ok(()),
        Err(error) => match error.trouble() {
            Trouble::Unreachable => Err(error),
            Trouble::Local | Trouble::Expired | Trouble::Refused => return Err(InitError::Feed(error)),
        },
    };
    Ok((root, feed.trusted().clone(), asked))
}

/// The sample's text with what was asked for in its place.
fn text(wanted: &Init, stays: &Stays) -> String {
    let urls: Vec<String> = wanted.feeds.iter().map(|url| quoted(url)).collect();
    let (root_key, root) = match stays {
        Stays::Here(path) => ("#= root", format!("root = {}", quoted(&path.display().to_string()))),
        Stays::Shipped(network) => ("#= network", format!("network = \"{network}\"")),
    };
    let mut text = String::new();
    for line in SAMPLE.lines() {
        let (key, _) = line.split_once(" = ").unwrap_or((line, ""));
        let set = match key {
            "urls" => Some(format!("urls = [{}]", urls.join(", "))),
            "channel" => Some(format!("channel = \"{}\"", wanted.channel)),
            "allow_http_loopback" => {
                wanted.allow_http_loopback.then(|| "allow_http_loopback = true".to_owned())
            }
            "#= ca_file" => wanted.ca_file.as_ref().map(|path| format!("ca_file = {}", quoted(path))),
            "#= proxy" => wanted.proxy.as_ref().map(|proxy| format!("proxy = {}", quoted(proxy))),
            key => (key == root_key).then(|| root.clone()),
        };
        text += set.as_deref().unwrap_or(line);
        text.push('\n');
    }
    text
}

/// A TOML string. A character that has no place in an address or a path is found when the text is read back.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The text as the supervisor will read it, but with everything that it keeps in this folder.
fn settings(text: &str, scratch: &Path, wanted: &Init) -> Result<Settings, InitError> {
    let file = scratch.join("config.toml");
    let failed = |error| InitError::File(file.clone(), error);
    std::fs::write(&file, text).map_err(failed)?;
    std::fs::create_dir(scratch.join("staging")).map_err(failed)?;
    let config = Config::load(&file).map_err(|error| match error {
        // Which is nobody's file yet.
        ConfigError::Value { key, message, .. } => InitError::Config(format!("{key}: {message}")),
        ConfigError::Text { text, message, .. } => InitError::Config(format!("{text}: {message}")),
        error @ (ConfigError::Read { .. } | ConfigError::UnknownFile { .. }) => {
            InitError::Config(error.to_string())
        }
    })?;
    if (&config.feed.urls, &config.feed.channel) != (&wanted.feeds, &wanted.channel) {
        let why = format!("{:?} cannot be written into a configuration", wanted.feeds);
        return Err(InitError::Config(why));
    }
    feed_settings(&config, &Paths::new(scratch, scratch)).map_err(InitError::Config)
}

/// Whether this is the sample as a package installs it: nobody has written anything there.
fn is_sample(path: &Path) -> bool {
    std::fs::read(path).is_ok_and(|there| there == SAMPLE.as_bytes())
}

/// Whether a file with this content may be written: it is not there, or is the same.
fn is_free(path: &Path, content: &[u8]) -> Result<(), InitError> {
    match std::fs::read(path) {
        Ok(there) if there == content => Ok(()),
        Ok(_) => Err(InitError::Exists(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(InitError::File(path.to_owned(), error)),
    }
}

/// Writes a file that is not there; one that is the same stays.
fn put(path: &Path, content: &[u8]) -> Result<(), InitError> {
    match create(path, content, MODE) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => is_free(path, content),
        written => written.map_err(|error| InitError::File(path.to_owned(), error)),
    }
}

fn sigs(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sigs");
    name.into()
}

fn absolute(path: &Path) -> Result<PathBuf, InitError> {
    std::path::absolute(path).map_err(|error| InitError::File(path.to_owned(), error))
}

#[cfg(test)]
mod tests;

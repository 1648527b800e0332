//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use bumpless_control::request::Request;
use bumpless_control::{Digest, Version};
use bumpless_trust::document::Channel;
use bumplessd::start::CONFIG;
use clap::{Args, Parser, Subcommand};

/// Where the supervisor listens unless it is told otherwise.
pub const SOCKET: &str = "/run/bumpless/control.sock";

/// Names another socket, where `--socket` does not.
pub const SOCKET_VARIABLE: &str = "BUMPLESS_SOCKET";

/// Shows and steers a node that is upgraded while it serves.
///
/// Exit codes: 0 done, 2 wrong usage, 3 refused, 4 nothing to do, 5 failed, 6 rolled back, 7 no supervisor
/// answers.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(name = "bumpless", version)]
pub struct Arguments {
    /// Print one JSON object ("schema":1, times in unix seconds) instead of words
    #[arg(long, global = true)]
    pub json: bool,

    /// The supervisor's control socket [default: $BUMPLESS_SOCKET, or /run/bumpless/control.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Verb {
    /// Write a first configuration, for a feed whose first root you know; no supervisor has to run
    ///
    /// The root is fetched from the feed, and believed if it has the SHA-256 that you give, or read from the file
    /// that you give; the feed is verified from there, and has to have the channel. Then the root goes beside the
    /// configuration, and the configuration says where both are; everything else in it is at its default, with a
    /// comment. What is there already is not written over, but for a sample configuration that nobody has touched.
    Init(Init),
    /// Ask the supervisor.
    #[command(flatten)]
    Ask(Question),
}

/// The first configuration.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Init {
    /// Where releases come from: https://…, or a folder; several are tried in order
    #[arg(long = "feed", value_name = "URL", required = true, value_parser = place)]
    pub feeds: Vec<String>,
    /// The network's first root, by its SHA-256; or the file itself, its .sigs beside it
    #[arg(long, value_name = "SHA256|FILE")]
    pub root: Option<Root>,
    /// The network whose first root came with this system's packages
    #[arg(long, value_name = "ID", conflicts_with = "root")]
    pub network: Option<Digest>,
    /// Which of the feed's channels to follow
    #[arg(long, value_name = "NAME", default_value_t)]
    pub channel: Channel,
    /// Where the configuration goes
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    pub config: PathBuf,
    /// The feed is on this machine, without https
    #[arg(long)]
    pub allow_http_loopback: bool,
    /// Who may vouch for the feed's servers (PEM), instead of the system's authorities
    #[arg(long, value_name = "FILE", value_parser = absolute)]
    pub ca_file: Option<String>,
    /// The proxy that the feed is reached through: http://host:port, or `environment` for what HTTPS_PROXY or
    /// ALL_PROXY, and NO_PROXY, say, here and later in the supervisor's environment
    #[arg(long, value_name = "URL", value_parser = proxy)]
    pub proxy: Option<String>,
}

/// A first root, as one can know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// By its fingerprint.
    Sha256(Digest),
    /// As a file.
    File(PathBuf),
}

impl FromStr for Root {
    type Err = std::io::Error;

    /// A fingerprint in either case; anything else is a file, such as `./0a…` for one with such a name.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().parse() {
            Ok(sha256) => Ok(Root::Sha256(sha256)),
            Err(_) => Ok(Root::File(std::path::absolute(text)?)),
        }
    }
}

/// What to ask the supervisor, or to ask of it.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Question {
    /// What runs, what is going on, what comes next and why not now
    Status,
    /// Look at the feed and the system's packages now
    Check,
    /// Upgrade to the newest release that may run here, or to VERSION, and wait for the end
    ///
    /// Ending this command does not end the upgrade. It goes at once: maintenance windows (upgrade.windows in
    /// config.toml) are for upgrades that begin by themselves.
    ///
    /// With --dry-run nothing is changed: it says for every release of the feed and of the system's packages
    /// whether it would be chosen and why not, which declarations of packages are refused and what to do, and what
    /// stands before the start. It goes by what was verified last, without asking the feed (`bumpless check` asks
    /// it).
    ///
    /// With --rehearse it hands over three times before the real probation: it cuts over, serves for a
    /// moment (upgrade.rehearsal in config.toml), hands back, and cuts over again to a second instance. If
    /// any of that bumps (a failure, a connection that is cut off, a gap above upgrade.rehearsal_gap), the
    /// upgrade fails and says in which of the three.
    ///
    /// With --from DIR that folder, a stick for instance, is the feed for this one upgrade: the supervisor has
    /// to be able to read it, and verifies everything in it as ever. Media that lay in a drawer have expired;
    /// root can accept that with --accept-stale, which waives expiry and nothing else, and stands in the history.
    ///
    /// --dry-run says what would happen and why, and changes nothing. Every local user may ask that; with --from
    /// DIR those who may upgrade.
    Upgrade {
        /// Such as 1.8.2
        version: Option<Version>,
        /// The folder that is the feed for this one upgrade
        #[arg(long, value_name = "DIR", value_parser = absolute)]
        from: Option<String>,
        /// Accept what has expired, this once; for root
        #[arg(long, requires = "from", requires = "reason")]
        accept_stale: bool,
        /// Why, for the history
        #[arg(long, value_name = "TEXT", requires = "accept_stale")]
        reason: Option<String>,
        /// Cut over, hand back and cut over again before the real probation; fail if any of it bumps
        #[arg(long)]
        rehearse: bool,
        /// Return as soon as it has begun
        #[arg(long)]
        no_wait: bool,
        /// Say what would happen and why, and change nothing
        #[arg(long, conflicts_with_all = ["rehearse", "no_wait", "accept_stale"])]
        dry_run: bool,
    },
    /// Go back to the release before, and wait for the end
    ///
    /// While the new release is still on probation this is immediate; later it is an upgrade to the
    /// previous release.
    Rollback {
        /// Return as soon as it has begun
        #[arg(long)]
        no_wait: bool,
    },
    /// Begin no upgrade until `bumpless unhold`
    Hold {
        /// For the next person who looks
        #[arg(long)]
        reason: String,
    },
    /// Let upgrades begin again
    Unhold,
    /// What happened here, oldest first
    History {
        /// At most so many entries, the newest
        #[arg(short = 'n', long, default_value_t = 20)]
        limit: u32,
    },
    /// Releases that are installed here, offered by the feed or declared by packages
    Versions,
    /// What this machine believes about releases, and on whose word
    Trust {
        /// What about it.
        #[command(subcommand)]
        verb: TrustVerb,
    },
}

/// What to do about trust.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum TrustVerb {
    /// The root that stands, its fingerprint, and who has to sign what
    Show,
    /// Forget everything that was verified and begin anew with another root; for root
    ///
    /// For a network whose keys are lost, or another network. What runs goes on running. Where the configuration
    /// names a first root (feed.root, feed.root_sha256, feed.network), correct that first.
    Reset {
        /// The root file, its .sigs beside it; the supervisor has to be able to read both
        #[arg(long, value_name = "FILE", value_parser = absolute)]
        root: String,
    },
}

/// An address as it is, a folder as the supervisor, which stands elsewhere, can use it.
fn place(text: &str) -> Result<String, String> {
    if text.contains("://") { Ok(text.to_owned()) } else { absolute(text) }
}

/// Everybody can read a command line, and the configuration that is written.
fn proxy(text: &str) -> Result<String, String> {
    match text.contains('@') {
        true => Err("a proxy's password belongs into a configuration that only the supervisor can read: set the \
                     variable HTTPS_PROXY and write `--proxy environment`, or leave the proxy out here and set \
                     fetch.proxy"
            .to_owned()),
        false => Ok(text.to_owned()),
    }
}

/// A path as the supervisor, which stands elsewhere, can use it.
fn absolute(path: &str) -> Result<String, String> {
    let absolute = std::path::absolute(path).map_err(|error| error.to_string())?;
    absolute.into_os_string().into_string().map_err(|_| "the path is no UTF-8 text".to_owned())
}

impl Arguments {
    /// The socket to ask.
    pub fn socket(&self) -> PathBuf {
        let variable = || std::env::var_os(SOCKET_VARIABLE).map(PathBuf::from);
        self.socket.clone().or_else(variable).unwrap_or_else(|| PathBuf::from(SOCKET))
    }
}

impl Question {
    /// What it asks.
    pub fn request(&self) -> Request {
        match self {
            Question::Status => Request::Status,
            Question::Check => Request::Check,
            Question::Upgrade { version, from, dry_run: true, .. } => {
                Request::DryRun { version: version.clone(), folder: from.clone() }
            }
            Question::Upgrade { version, from: None, rehearse, no_wait, .. } => {
                Request::Upgrade { version: version.clone(), wait: !no_wait, rehearse: *rehearse }
            }
            // Clap has seen to it that there is a reason if and only if what is stale is accepted.
            Question::Upgrade { version, from: Some(folder), reason, rehearse, no_wait, .. } => {
                Request::UpgradeFrom {
                    folder: folder.clone(),
                    version: version.clone(),
                    wait: !no_wait,
                    rehearse: *rehearse,
                    accept_stale: reason.clone(),
                }
            }
            Question::Rollback { no_wait } => Request::Rollback { wait: !no_wait },
            Question::Hold { reason } => Request::Hold { reason: reason.clone() },
            Question::Unhold => Request::Unhold,
            Question::History { limit } => Request::History { limit: *limit },
            Question::Versions => Request::Versions,
            Question::Trust { verb: TrustVerb::Show } => Request::Trust,
            Question::Trust { verb: TrustVerb::Reset { root } } => Request::TrustReset { root: root.clone() },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn request(line: &str) -> Request {
        match Arguments::try_parse_from(line.split(' ')).unwrap().verb {
            Verb::Ask(question) => question.request(),
            Verb::Init(init) => panic!("{init:?} asks nobody"),
        }
    }

    #[test]
    fn each_verb_asks_what_it_says_and_upgrades_are_waited_for() {
        assert_eq!(request("bumpless status"), Request::Status);
        assert_eq!(
            request("bumpless upgrade"),
            Request::Upgrade { version: None, wait: true, rehearse: false }
        );
        let rehearsed = Request::Upgrade { version: None, wait: true, rehearse: true };
        assert_eq!(request("bumpless upgrade --rehearse"), rehearsed);
        let version = Some("1.1.0".parse().unwrap());
        let asked = Request::Upgrade { version, wait: false, rehearse: false };
        assert_eq!(request("bumpless upgrade 1.1.0 --no-wait"), asked);
        let version = Some("1.1.0".parse().unwrap());
        assert_eq!(request("bumpless upgrade 1.1.0 --dry-run"), Request::DryRun { version, folder: None });
        assert_eq!(request("bumpless upgrade --dry-run"), Request::DryRun { version: None, folder: None });
        let folder = Some("/media/stick".to_owned());
        assert_eq!(
            request("bumpless upgrade --dry-run --from /media/stick"),
            Request::DryRun { version: None, folder }
        );
        let from_folder = |folder: &str, accept_stale: Option<&str>| Request::UpgradeFrom {
            folder: folder.into(),
            version: None,
            wait: true,
            rehearse: false,
            accept_stale: accept_stale.map(str::to_owned),
        };
        assert_eq!(request("bumpless upgrade --from /media/stick"), from_folder("/media/stick", None));
        let here = std::env::current_dir().unwrap().join("stick");
        assert_eq!(request("bumpless upgrade --from stick"), from_folder(here.to_str().unwrap(), None));
        assert_eq!(
            request("bumpless upgrade --from /d --accept-stale --reason drawer"),
            from_folder("/d", Some("drawer"))
        );
        assert_eq!(request("bumpless trust show"), Request::Trust);
        assert_eq!(request("bumpless trust reset --root /r"), Request::TrustReset { root: "/r".into() });
        assert_eq!(request("bumpless rollback"), Request::Rollback { wait: true });
        assert_eq!(request("bumpless hold --reason racks"), Request::Hold { reason: "racks".into() });
        assert_eq!(request("bumpless history -n 3"), Request::History { limit: 3 });
    }

    #[test]
    fn a_wrong_command_line_is_exit_code_2() {
        for line in [
            "bumpless",
            "bumpless explode",
            "bumpless hold",
            "bumpless upgrade ../x",
            "bumpless upgrade --dry-run --rehearse",
            "bumpless upgrade --dry-run --no-wait",
            "bumpless upgrade --dry-run --from /d --accept-stale --reason x",
            "bumpless status --x",
            "bumpless upgrade --accept-stale --reason x",
            "bumpless upgrade --from /d --accept-stale",
            "bumpless upgrade --from /d --reason x",
            "bumpless upgrade --reason x",
            "bumpless trust",
            "bumpless trust reset",
            "bumpless init",
            "bumpless init --feed https://x --channel ../x",
            "bumpless init --feed https://x --channel -x",
            "bumpless init --feed https://x --network 1",
        ] {
            assert_eq!(Arguments::try_parse_from(line.split(' ')).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn a_first_root_is_a_fingerprint_or_a_file_and_a_feed_an_address_or_a_folder() {
        let init = |line: &str| match Arguments::try_parse_from(line.split(' ')).unwrap().verb {
            Verb::Init(init) => init,
            Verb::Ask(question) => panic!("{question:?}"),
        };
        let hash = "aB".repeat(32);
        let here = std::env::current_dir().unwrap();
        let given = init(&format!("bumpless init --feed https://x/y --feed stick --root {hash}"));
        assert_eq!(given.feeds, ["https://x/y".to_owned(), here.join("stick").to_str().unwrap().to_owned()]);
        assert_eq!(given.root, Some(Root::Sha256(hash.to_lowercase().parse().unwrap())));
        assert_eq!((given.channel, given.config), (Channel::default(), CONFIG.into()));
        for file in ["root.json".to_owned(), format!("./{hash}"), hash[1..].to_owned()] {
            let given = init(&format!("bumpless init --feed /f --root {file} --channel beta"));
            assert_eq!(given.root, Some(Root::File(std::path::absolute(file).unwrap())));
            assert_eq!(given.channel.to_string(), "beta");
        }
        let given = init("bumpless init --feed https://x --ca-file ca.pem --proxy http://p:1");
        assert_eq!(given.ca_file, Some(here.join("ca.pem").to_str().unwrap().to_owned()));
        assert_eq!(given.proxy.as_deref(), Some("http://p:1"));
        let line = "bumpless init --feed https://x --proxy http://user:s3cret@p:1";
        let why = Arguments::try_parse_from(line.split(' ')).unwrap_err().to_string();
        assert!(why.contains("--proxy environment"), "{why}");
    }

    #[test]
    fn the_socket_can_stand_before_or_behind_the_verb() {
        for line in ["bumpless --socket /s --json status", "bumpless status --json --socket /s"] {
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            assert_eq!((arguments.socket(), arguments.json), (PathBuf::from("/s"), true));
        }
    }
}

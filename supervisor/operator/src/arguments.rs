//! The command line.

use std::path::PathBuf;

use bumpless_control::Version;
use bumpless_control::request::Request;
use clap::{Parser, Subcommand};

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
    /// What runs, what is going on, what comes next and why not now
    Status,
    /// Look at the feed now
    Check,
    /// Upgrade to the newest release that may run here, or to VERSION, and wait for the end
    ///
    /// Ending this command does not end the upgrade. It goes at once: maintenance windows (upgrade.windows in
    /// config.toml) are for upgrades that begin by themselves.
    ///
    /// With --dry-run nothing is changed: it says for every release of the feed whether it would be chosen and
    /// why not, and what stands before the start. It goes by what was verified last, without asking the feed
    /// (`bumpless check` asks it).
    ///
    /// With --rehearse it hands over three times before the real probation: it cuts over, serves for a
    /// moment (upgrade.rehearsal in config.toml), hands back, and cuts over again to a second instance. If
    /// any of that bumps (a failure, a connection that is cut off, a gap above upgrade.rehearsal_gap), the
    /// upgrade fails and says in which of the three.
    ///
    /// With --from DIR that folder, a stick for instance, is the feed for this one upgrade: the supervisor has
    /// to be able to read it, and verifies everything in it as ever. Media that lay in a drawer have expired;
    /// root can accept that with --accept-stale, which waives expiry and nothing else, and stands in the history.
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
        /// Say what would happen and why, and change nothing; every local user may
        #[arg(long, conflicts_with_all = ["rehearse", "no_wait", "from"])]
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
    /// Releases that are installed here or offered by the feed
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

impl Verb {
    /// What it asks.
    pub fn request(&self) -> Request {
        match self {
            Verb::Status => Request::Status,
            Verb::Check => Request::Check,
            Verb::Upgrade { version, dry_run: true, .. } => Request::DryRun { version: version.clone() },
            Verb::Upgrade { version, from: None, rehearse, no_wait, .. } => {
                Request::Upgrade { version: version.clone(), wait: !no_wait, rehearse: *rehearse }
            }
            // Clap has seen to it that there is a reason if and only if what is stale is accepted.
            Verb::Upgrade { version, from: Some(folder), reason, rehearse, no_wait, .. } => {
                Request::UpgradeFrom {
                    folder: folder.clone(),
                    version: version.clone(),
                    wait: !no_wait,
                    rehearse: *rehearse,
                    accept_stale: reason.clone(),
                }
            }
            Verb::Rollback { no_wait } => Request::Rollback { wait: !no_wait },
            Verb::Hold { reason } => Request::Hold { reason: reason.clone() },
            Verb::Unhold => Request::Unhold,
            Verb::History { limit } => Request::History { limit: *limit },
            Verb::Versions => Request::Versions,
            Verb::Trust { verb: TrustVerb::Show } => Request::Trust,
            Verb::Trust { verb: TrustVerb::Reset { root } } => Request::TrustReset { root: root.clone() },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn request(line: &str) -> Request {
        Arguments::try_parse_from(line.split(' ')).unwrap().verb.request()
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
        assert_eq!(request("bumpless upgrade 1.1.0 --dry-run"), Request::DryRun { version });
        assert_eq!(request("bumpless upgrade --dry-run"), Request::DryRun { version: None });
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
            "bumpless upgrade --dry-run --from /d",
            "bumpless status --x",
            "bumpless upgrade --accept-stale --reason x",
            "bumpless upgrade --from /d --accept-stale",
            "bumpless upgrade --from /d --reason x",
            "bumpless upgrade --reason x",
            "bumpless trust",
            "bumpless trust reset",
        ] {
            assert_eq!(Arguments::try_parse_from(line.split(' ')).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn the_socket_can_stand_before_or_behind_the_verb() {
        for line in ["bumpless --socket /s --json status", "bumpless status --json --socket /s"] {
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            assert_eq!((arguments.socket(), arguments.json), (PathBuf::from("/s"), true));
        }
    }
}

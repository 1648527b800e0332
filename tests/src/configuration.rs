//! A configuration of the supervisor for one machine and a short patience.
//!
//! Everything that is set here is an ordinary value of the configuration file: the product has no
//! branch for tests.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a world may want to have otherwise.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a new worker is watched before it is committed.
    pub probation: Duration,
    /// Bad tries until a release is quarantined.
    pub attempts: u32,
    /// How long the new worker may take to say hello and be ready.
    pub start_deadline: Duration,
    /// How long a sync may stand still.
    pub sync_stall: Duration,
    /// How long the old worker may take to get rid of its connections after a commit.
    pub drain: Duration,
    /// Over which time the old worker sends its connections away.
    pub goaway_stagger: Duration,
    /// How often a worker says that it is well.
    pub heartbeat: Duration,
    /// So many times it may miss.
    pub missed: u32,
    /// Whether the supervisor looks for releases by itself.
    pub automatic: bool,
    /// How often it looks at the feed.
    pub check_every: Duration,
    /// A second file, in `config.d`, for everything else.
    pub more: String,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            probation: Duration::from_secs(3),
            attempts: 1,
            start_deadline: Duration::from_secs(5),
            sync_stall: Duration::from_secs(3),
            drain: Duration::from_secs(5),
            goaway_stagger: Duration::from_millis(500),
            heartbeat: Duration::from_millis(250),
            missed: 4,
            automatic: false,
            check_every: Duration::from_secs(3600),
            more: String::new(),
        }
    }
}

/// Where one world's things are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The supervisor's state.
    pub state_dir: PathBuf,
    /// Its sockets.
    pub run_dir: PathBuf,
    /// Where the node listens.
    pub listen: Vec<SocketAddr>,
    /// Where the feed is.
    pub feed: String,
    /// The feed's first root.
    pub root: PathBuf,
    /// The fetcher.
    pub fetch: PathBuf,
    /// Where packages put workers.
    pub packages: PathBuf,
}

impl Settings {
    /// The file's text.
    pub fn text(&self, places: &Places) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "{name} = {value}");
        };
        line("state_dir", path(&places.state_dir));
        line("run_dir", path(&places.run_dir));
        let listen: Vec<String> = places.listen.iter().map(|address| quoted(&address.to_string())).collect();
        line("listen", format!("[{}]", listen.join(", ")));
        line("\n[feed]\nurls", format!("[{}]", quoted(&places.feed)));
        line("root", path(&places.root));
        line("channel", quoted("stable"));
        line("check_every", duration(self.check_every));
        line("jitter", duration(Duration::ZERO));
        line("allow_http_loopback", "true".to_owned());
        line("\n[fetch]\nprogram", path(&places.fetch));
        line("\n[packages]\nfolder", path(&places.packages));
        line("\n[worker]\nheartbeat", duration(self.heartbeat));
        line("missed", self.missed.to_string());
        line("\n[upgrade]\nmode", quoted(if self.automatic { "auto" } else { "manual" }));
        line("probation", duration(self.probation));
        line("attempts", self.attempts.to_string());
        line("start_deadline", duration(self.start_deadline));
        line("sync_stall", duration(self.sync_stall));
        line("drain", duration(self.drain));
        line("goaway_stagger", duration(self.goaway_stagger));
        text
    }
}

fn path(path: &Path) -> String {
    quoted(&path.display().to_string())
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn duration(time: Duration) -> String {
    let millis = time.as_millis();
    if millis.is_multiple_of(1000) {
        quoted(&format!("{}s", millis / 1000))
    } else {
        quoted(&format!("{millis}ms"))
    }
}

/// A configuration's text with each section on one line, for showing it.
pub fn in_short(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for line in text.lines().filter(|line| !line.is_empty()) {
        match lines.last_mut() {
            Some(last) if !line.starts_with('[') => {
                let heading =
                    last.is_empty() || last.starts_with('[') && last.ends_with(']') && !last.contains('=');
                let separator = if heading { " " } else { ", " };
                last.push_str(separator);
                last.push_str(line);
            }
            Some(_) | None => lines.push(line.to_owned()),
        }
    }
    lines.iter().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_shown_with_one_line_for_each_section() {
        let text = "a = 1\nb = [\"x\"]\n\n[upgrade]\nprobation = \"5s\"\nattempts = 1\n";
        assert_eq!(in_short(text), ["a = 1, b = [\"x\"]", "[upgrade] probation = \"5s\", attempts = 1"]);
    }

    #[test]
    fn a_duration_is_written_in_seconds_where_it_has_whole_ones() {
        assert_eq!(duration(Duration::from_secs(5)), "\"5s\"");
        assert_eq!(duration(Duration::from_millis(250)), "\"250ms\"");
    }
}

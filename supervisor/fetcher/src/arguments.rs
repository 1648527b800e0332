//! The command line. It is written by the supervisor, not by people, and refused if it is not understood.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

/// What to fetch, and how much of it in what time.
#[derive(Clone, Debug)]
pub struct Arguments {
    /// `--url`
    pub url: Url,
    /// `--max-bytes`, of the whole file.
    pub max_bytes: u64,
    /// `--from`: so many bytes of it are in the file already.
    pub from: u64,
    /// `--ca-file`: certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// `--proxy`: the one of [`PROXY`] and [`NO_PROXY`]; without it there is none, whatever the environment says.
    pub proxy: Option<Proxy>,
    /// `--connect-timeout-ms`
    pub connect_timeout: Duration,
    /// `--total-timeout-ms`
    pub total_timeout: Duration,
    /// `--min-rate`, bytes per second over each window.
    pub min_rate: u64,
    /// `--rate-window-ms`; also how long the first byte may take.
    pub rate_window: Duration,
}

/// The variable with the proxy's address. Not on the command line: that is for everybody to read, and the
/// address may hold a password.
pub const PROXY: &str = "BUMPLESS_PROXY";

/// The variable with the hosts that are reached without it, separated by commas.
pub const NO_PROXY: &str = "BUMPLESS_NO_PROXY";

/// A proxy for HTTPS: it is asked for a connection to the server, and hears nothing of what is said there.
#[derive(Clone)]
pub struct Proxy {
    /// `http://[user:password@]host:port`
    pub url: Url,
    /// Hosts that are reached without it.
    pub except: String,
}

/// Without user and password.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{:?}", self.url.host_str().unwrap_or_default(), self.url.port_or_known_default())
    }
}

/// The command line cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadArguments {
    /// No such option.
    Unknown(String),
    /// An option without its value, or with one that is none.
    Value(String),
    /// A required option is missing.
    Missing(&'static str),
    /// The address is neither https nor, where that is allowed, http to a loopback address.
    Insecure(String),
}

impl fmt::Display for BadArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadArguments::Unknown(option) => write!(f, "unknown option {option}"),
            BadArguments::Value(option) => write!(f, "{option} needs a value that can be used"),
            BadArguments::Missing(option) => write!(f, "{option} is missing"),
            BadArguments::Insecure(url) => write!(
                f,
                "{url} is not https; plain http is only for loopback addresses, and only with feed.allow_http_loopback"
            ),
        }
    }
}

impl std::error::Error for BadArguments {}

impl Arguments {
    /// Reads the command line, without the program's name, and what it refers to of the environment.
    ///
    /// # Errors
    /// The first thing that is not understood.
    pub fn parse(
        arguments: impl IntoIterator<Item = String>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, BadArguments> {
        let mut arguments = arguments.into_iter();
        let (mut url, mut max_bytes, mut from, mut loopback) = (None, None, 0, false);
        let (mut ca_file, mut proxy) = (None, None);
        let mut connect_timeout = Duration::from_secs(10);
        let mut total_timeout = Duration::from_secs(3600);
        let mut min_rate = 1024;
        let mut rate_window = Duration::from_secs(10);
        while let Some(option) = arguments.next() {
            if option == "--allow-http-loopback" {
                loopback = true;
                continue;
            }
            if option == "--proxy" {
                let text = variable(PROXY).ok_or(BadArguments::Missing(PROXY))?;
                let url = Url::parse(&text).ok().filter(|url| url.scheme() == "http" && url.has_host());
                let url = url.ok_or_else(|| BadArguments::Value(PROXY.to_owned()))?;
                proxy = Some(Proxy { url, except: variable(NO_PROXY).unwrap_or_default() });
                continue;
            }
            let bad = || BadArguments::Value(option.clone());
            let mut value = || arguments.next().ok_or_else(bad);
            let milliseconds = |text: String| text.parse().map(Duration::from_millis).map_err(|_| bad());
            match option.as_str() {
                "--url" => url = Some(Url::parse(&value()?).map_err(|_| bad())?),
                "--max-bytes" => max_bytes = Some(value()?.parse().map_err(|_| bad())?),
                "--from" => from = value()?.parse().map_err(|_| bad())?,
                "--ca-file" => ca_file = Some(PathBuf::from(value()?)),
                "--connect-timeout-ms" => connect_timeout = milliseconds(value()?)?,
                "--total-timeout-ms" => total_timeout = milliseconds(value()?)?,
                "--min-rate" => min_rate = value()?.parse().map_err(|_| bad())?,
                "--rate-window-ms" => rate_window = milliseconds(value()?)?,
                _ => return Err(BadArguments::Unknown(option)),
            }
        }
        let url = url.ok_or(BadArguments::Missing("--url"))?;
        let max_bytes = max_bytes.ok_or(BadArguments::Missing("--max-bytes"))?;
        if rate_window.is_zero() {
            return Err(BadArguments::Value("--rate-window-ms".to_owned()));
        }
        if !(url.scheme() == "https" || loopback && url.scheme() == "http" && is_loopback(&url)) {
            return Err(BadArguments::Insecure(url.to_string()));
        }
        Ok(Arguments {
            url,
            max_bytes,
            from,
            ca_file,
            proxy,
            connect_timeout,
            total_timeout,
            min_rate,
            rate_window,
        })
    }
}

/// An address of this machine written as a number: a name could lead anywhere.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(line: &str) -> Result<Arguments, BadArguments> {
        with_proxy(line, None)
    }

    fn with_proxy(line: &str, address: Option<&str>) -> Result<Arguments, BadArguments> {
        let address = |name: &str| address.filter(|_| name == PROXY).map(str::to_owned);
        Arguments::parse(line.split_whitespace().map(str::to_owned), address)
    }

    #[test]
    fn a_proxy_comes_from_its_variable_if_the_command_line_says_so_and_is_http() {
        let line = "--max-bytes 1 --url https://feed.example/x";
        let address = Some("http://user:s3cret@proxy.example:3128");
        assert!(with_proxy(line, address).unwrap().proxy.is_none());
        let line = format!("{line} --proxy");
        let proxy = with_proxy(&line, address).unwrap().proxy.unwrap();
        assert_eq!(proxy.url.password(), Some("s3cret"));
        assert!(!format!("{proxy:?}").contains("s3cret"), "{proxy:?}");
        assert_eq!(parse(&line).unwrap_err(), BadArguments::Missing(PROXY));
        for bad in ["socks5://user:s3cret@proxy.example:1080", "user:s3cret@proxy.example:3128", "s3cret", ""]
        {
            let why = with_proxy(&line, Some(bad)).unwrap_err();
            assert_eq!(why, BadArguments::Value(PROXY.to_owned()));
        }
    }

    #[test]
    fn plain_http_is_for_loopback_and_only_if_told() {
        assert!(parse("--max-bytes 1 --url https://feed.example/x").is_ok());
        for allowed in ["http://127.0.0.1:80/x", "http://[::1]:80/x"] {
            assert!(
                parse(&format!("--max-bytes 1 --allow-http-loopback --url {allowed}")).is_ok(),
                "{allowed}"
            );
            let why = parse(&format!("--max-bytes 1 --url {allowed}")).unwrap_err();
            assert!(matches!(why, BadArguments::Insecure(_)), "{why}");
        }
        for refused in
            ["http://feed.example/x", "http://localhost/x", "file:///etc/passwd", "ftp://127.0.0.1/x"]
        {
            let why = parse(&format!("--max-bytes 1 --allow-http-loopback --url {refused}")).unwrap_err();
            assert!(matches!(why, BadArguments::Insecure(_)), "{refused}: {why}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert_eq!(parse("--url https://x/").unwrap_err(), BadArguments::Missing("--max-bytes"));
        assert_eq!(parse("--max-bytes 1").unwrap_err(), BadArguments::Missing("--url"));
        assert_eq!(parse("--max-bytes").unwrap_err(), BadArguments::Value("--max-bytes".to_owned()));
        assert_eq!(parse("--max-bytes -1").unwrap_err(), BadArguments::Value("--max-bytes".to_owned()));
        assert_eq!(parse("--follow").unwrap_err(), BadArguments::Unknown("--follow".to_owned()));
    }
}

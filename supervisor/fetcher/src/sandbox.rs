//! What the fetcher gives up before it hears anything from the network.
//!
//! Everything local is done by then: the command line is parsed, the certificates are read, the file to
//! write to is open. What is left to do is to connect to one port, and to look a name up first unless the
//! address is a number.

use std::net::IpAddr;
use std::path::PathBuf;

use bumpless_os::sandbox::{Bounds, Datagrams, Entered, SandboxError};
use reqwest::Url;

use crate::arguments::Arguments;

/// Asked over TCP where an answer is too long for a datagram.
const DNS: u16 = 53;

/// What the C library reads to look a name up: whom to ask and how, and the modules that do it. None of it
/// is secret. A module that cannot be loaded is gone without.
const RESOLVER: [&str; 11] = [
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/ld.so.cache",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
];

/// Gives up everything that fetching what `arguments` say does not need, for good. To be called from the
/// only thread, with everything local done.
///
/// # Errors
/// The kernel refuses; the process must end then.
pub fn enter(arguments: &Arguments) -> Result<Entered, SandboxError> {
    bumpless_os::sandbox::enter(&bounds(arguments))
}

fn bounds(arguments: &Arguments) -> Bounds {
    let peers = peers(arguments);
    let mut ports: Vec<u16> = peers.iter().filter_map(|peer| peer.port_or_known_default()).collect();
    if !peers.iter().any(|peer| has_name(peer)) {
        return Bounds { readable: Vec::new(), ports, datagrams: Datagrams::Refused };
    }
    ports.push(DNS);
    Bounds { readable: RESOLVER.iter().map(PathBuf::from).collect(), ports, datagrams: Datagrams::Allowed }
}

/// Whom it may have to connect to: the proxy, if there is one, and the server, if it may be one of the
/// exceptions. A proxy looks up for itself what it is to reach, and plain http goes through none.
fn peers(arguments: &Arguments) -> Vec<&Url> {
    match &arguments.proxy {
        Some(proxy) if arguments.url.scheme() == "https" => {
            let exception = Some(&arguments.url).filter(|_| !proxy.except.is_empty());
            [&proxy.url].into_iter().chain(exception).collect()
        }
        Some(_) | None => vec![&arguments.url],
    }
}

fn has_name(peer: &Url) -> bool {
    let host = peer.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host.parse::<IpAddr>().is_err()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::arguments::PROXY;

    fn of(line: &str, proxy: Option<(&str, &str)>) -> Bounds {
        let line = format!("--max-bytes 1 --allow-http-loopback {line}");
        let mut line: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        line.extend(proxy.map(|_| "--proxy".to_owned()));
        let variable = |name: &str| {
            let (address, except) = proxy?;
            Some(if name == PROXY { address } else { except }.to_owned())
        };
        bounds(&Arguments::parse(line, variable).unwrap())
    }

    #[test]
    fn one_port_is_open_and_what_looking_up_a_name_needs_only_where_there_is_one() {
        const NUMBER: &str = "--url https://192.0.2.1/x";
        const NAME: &str = "--url https://feed.example/x";
        const HTTP: &str = "--url http://127.0.0.1:81/x";
        for (line, proxy, ports) in [
            (NUMBER, None, vec![443]),
            ("--url https://[2001:db8::1]:8443/x", None, vec![8443]),
            (HTTP, None, vec![81]),
            (NAME, Some(("http://192.0.2.1:3128", "")), vec![3128]),
            (NUMBER, Some(("http://user:word@192.0.2.1:3128", "192.0.2.0/24")), vec![3128, 443]),
            (HTTP, Some(("http://proxy.example:3128", "")), vec![81]),
        ] {
            let wanted = Bounds { readable: vec![], ports, datagrams: Datagrams::Refused };
            assert_eq!(of(line, proxy), wanted, "{line}");
        }
        for (line, proxy, ports) in [
            (NAME, None, vec![443, 53]),
            ("--url https://feed.example:8443/x", None, vec![8443, 53]),
            (NUMBER, Some(("http://proxy.example:3128", "")), vec![3128, 53]),
            (NAME, Some(("http://192.0.2.1:3128", "feed.example")), vec![3128, 443, 53]),
        ] {
            let found = of(line, proxy);
            assert_eq!((found.ports, found.datagrams), (ports, Datagrams::Allowed), "{line}");
            assert!(found.readable.contains(&"/etc/resolv.conf".into()), "{line}");
        }
    }
}

//! The proxy that the feed is reached through, if one is configured. Its address may hold a password.
//!
//! The fetcher is told by its environment, which only its own user can read, never by its command line,
//! which everybody can; and nothing here shows the password: not `Debug`, not an error.

use std::ffi::OsString;
use std::fmt;
use std::net::Ipv6Addr;

/// `http://host:port` or `http://user:password@host:port`, as it was written.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(String);

/// Why something is no proxy's address. Does not repeat it: a password may be in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadAddress {
    /// Not `http://`.
    Scheme,
    /// No host, or one with a character that none has.
    Host,
    /// No port, or no number of one.
    Port,
    /// Something behind the port.
    Path,
    /// Name or password with a character that has to be written otherwise.
    User,
}

impl fmt::Display for BadAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadAddress::Scheme => "it does not begin with http://, and other proxies are not supported",
            BadAddress::Host => "its host is no name and no address (of IPv6 in brackets)",
            BadAddress::Port => "its port is missing or no number from 1 to 65535",
            BadAddress::Path => "something stands behind its port",
            BadAddress::User => {
                "its user or password has a character that must be written as % and two hexadecimal digits"
            }
        })?;
        f.write_str("; write http://host:port, or http://user:password@host:port")
    }
}

impl std::error::Error for BadAddress {}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Address, BadAddress> {
        let rest = text.strip_prefix("http://").ok_or(BadAddress::Scheme)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, place) = rest.rsplit_once('@').map_or((None, rest), |(user, place)| (Some(user), place));
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:%".contains(c);
        if user.is_some_and(|user| !user.chars().all(plain) || !escaped(user)) {
            return Err(BadAddress::User);
        }
        if place.contains(['/', '?', '#']) {
            return Err(BadAddress::Path);
        }
        let (host, port) = match place.strip_prefix('[') {
            Some(place) => {
                let (host, port) = place.split_once(']').ok_or(BadAddress::Host)?;
                host.parse::<Ipv6Addr>().map_err(|_| BadAddress::Host)?;
                (host, port.strip_prefix(':'))
            }
            None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
        };
        if host.is_empty() || !host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c)) {
            return Err(BadAddress::Host);
        }
        let digits = port.filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
        match digits.and_then(|port| port.parse::<u16>().ok()) {
            None | Some(0) => Err(BadAddress::Port),
            Some(_) => Ok(Address(text.to_owned())),
        }
    }

    /// All of it, for the fetcher alone.
    pub(super) fn with_password(&self) -> &str {
        &self.0
    }
}

/// Whether two hexadecimal digits follow each `%`.
fn escaped(text: &str) -> bool {
    text.split('%').skip(1).all(|part| {
        let mut digits = part.bytes();
        (0..2).all(|_| digits.next().is_some_and(|byte| byte.is_ascii_hexdigit()))
    })
}

/// Without user and password.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.0.rsplit(['@', '/']).find(|part| !part.is_empty()).unwrap_or_default();
        write!(f, "http://{place}")
    }
}

/// The way to the feed: through this proxy, but not to these hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Which.
    pub address: Address,
    /// Names, domains, addresses and networks that are reached without it, separated by commas, as `NO_PROXY`
    /// has them.
    pub except: String,
}

/// An environment variable that should name a proxy does not, or is no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadVariable {
    name: &'static str,
    why: Option<BadAddress>,
}

impl fmt::Display for BadVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name;
        match &self.why {
            Some(why) => write!(f, "the environment's {name} names no proxy that can be used: {why}"),
            None => write!(f, "the environment's {name} is no text"),
        }
    }
}

impl std::error::Error for BadVariable {}

/// The first of these that is set and not empty counts.
const VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// The same for the exceptions.
const EXCEPTIONS: [&str; 2] = ["NO_PROXY", "no_proxy"];

impl Proxy {
    /// The proxy that an environment names, if it does; without `http://` in front it is meant.
    ///
    /// # Errors
    /// The variable that counts cannot be used. Nothing is fetched past a proxy that is meant.
    pub fn of_environment(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<Proxy>, BadVariable> {
        let first = |names: &[&'static str]| -> Result<Option<(&'static str, String)>, BadVariable> {
            let mut set = names.iter().filter_map(|name| Some((*name, variable(name)?)));
            let Some((name, value)) = set.find(|(_, value)| !value.is_empty()) else { return Ok(None) };
            let text = value.into_string().map_err(|_| BadVariable { name, why: None })?;
            Ok(Some((name, text)))
        };
        let Some((name, text)) = first(&VARIABLES)? else { return Ok(None) };
        let text = if text.contains("://") { text } else { format!("http://{text}") };
        let address = Address::parse(&text).map_err(|why| BadVariable { name, why: Some(why) })?;
        let except = first(&EXCEPTIONS)?.map(|(_, text)| text).unwrap_or_default();
        Ok(Some(Proxy { address, except }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port_and_may_have_a_user() {
        for good in [
            "http://proxy:3128",
            "http://proxy.example:1/",
            "http://10.0.0.1:65535",
            "http://[2001:db8::1]:3128",
            "http://user@proxy:3128",
            "http://user:s3cr%40t!@proxy:3128",
        ] {
            assert_eq!(Address::parse(good).unwrap().with_password(), good);
        }
        for (bad, why) in [
            ("proxy:3128", BadAddress::Scheme),
            ("https://proxy:3128", BadAddress::Scheme),
            ("socks5://proxy:1080", BadAddress::Scheme),
            ("", BadAddress::Scheme),
            ("http://", BadAddress::Host),
            ("http://:3128", BadAddress::Host),
            ("http://pro xy:3128", BadAddress::Host),
            ("http://2001:db8::1:3128", BadAddress::Port),
            ("http://[2001:db8::1:3128", BadAddress::Host),
            ("http://[proxy]:3128", BadAddress::Host),
            ("http://proxy", BadAddress::Port),
            ("http://proxy:", BadAddress::Port),
            ("http://proxy:0", BadAddress::Port),
            ("http://proxy:65536", BadAddress::Port),
            ("http://proxy:+80", BadAddress::Port),
            ("http://proxy:3128/pac", BadAddress::Path),
            ("http://proxy:3128?x", BadAddress::Path),
            ("http://us er:x@proxy:3128", BadAddress::User),
            ("http://user:a/b@proxy:3128", BadAddress::User),
            ("http://user:a@b@proxy:3128", BadAddress::User),
            ("http://user:100%@proxy:3128", BadAddress::User),
            ("http://user:%4@proxy:3128", BadAddress::User),
        ] {
            assert_eq!(Address::parse(bad), Err(why), "{bad}");
        }
    }

    #[test]
    fn neither_an_address_nor_an_error_about_one_shows_a_password() {
        let address = Address::parse("http://user:s3cret@proxy.example:3128/").unwrap();
        let proxy = Proxy { address, except: String::new() };
        assert_eq!(format!("{proxy:?}"), "Proxy { address: http://proxy.example:3128, except: \"\" }");
        for bad in ["ftp://user:s3cret@proxy:1", "http://user:s3cret@proxy", "http://user:s3cret /@proxy:1"] {
            let why = Address::parse(bad).unwrap_err();
            assert!(!format!("{why} {why:?}").contains("s3cret"), "{why}");
            let why = Proxy::of_environment(|_| Some(bad.into())).unwrap_err();
            assert!(!format!("{why} {why:?}").contains("s3cret"), "{why}");
        }
    }

    #[test]
    fn of_the_environment_the_first_variable_that_is_set_counts_and_a_bad_one_is_an_error() {
        let of = |set: &[(&str, &str)]| {
            let set: Vec<(String, OsString)> =
                set.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
            Proxy::of_environment(move |name| Some(set.iter().find(|(known, _)| known == name)?.1.clone()))
        };
        let proxy = |address: &str, except: &str| {
            let address = Address::parse(address).unwrap();
            Ok(Some(Proxy { address, except: except.to_owned() }))
        };
        assert_eq!(of(&[]), Ok(None));
        // Plain HTTP is for this machine alone, and its variable is nobody's business here.
        assert_eq!(of(&[("http_proxy", "http://a:1"), ("NO_PROXY", "*")]), Ok(None));
        assert_eq!(of(&[("all_proxy", "http://a:1"), ("ALL_PROXY", "http://b:1")]), proxy("http://b:1", ""));
        assert_eq!(of(&[("ALL_PROXY", "http://a:1"), ("https_proxy", "b:1")]), proxy("http://b:1", ""));
        assert_eq!(of(&[("https_proxy", "http://a:1"), ("HTTPS_PROXY", "")]), proxy("http://a:1", ""));
        assert_eq!(
            of(&[("HTTPS_PROXY", "http://a:1"), ("no_proxy", "feed.example,10.0.0.0/8")]),
            proxy("http://a:1", "feed.example,10.0.0.0/8")
        );
        let why = of(&[("HTTPS_PROXY", "socks5://a:1"), ("ALL_PROXY", "http://b:1")]).unwrap_err();
        assert!(why.to_string().starts_with("the environment's HTTPS_PROXY names no proxy"), "{why}");
    }
}

//! The user that workers run as: one of their own (`worker.user`), or the supervisor's.
//!
//! It is looked up once, at the start of the supervisor, before anything is touched. A user that cannot be had
//! is an error then and not a quiet return to the supervisor's own: who has set it relies on it.

use std::fmt;
use std::io;

use bumpless_os::child::{self, User};
use nix::unistd::{Uid, geteuid};

use crate::config::Config;
use crate::feed::FETCHER;

/// Why workers cannot run as the user that is configured.
#[derive(Debug)]
pub enum UserError {
    /// There is no such user.
    Unknown {
        /// As configured.
        name: String,
    },
    /// It cannot be looked up.
    Lookup {
        /// As configured.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// Somebody else runs as this user, and could do what the worker can, or the worker what he can.
    Shared {
        /// As configured.
        name: String,
        /// Who.
        with: &'static str,
    },
    /// This supervisor has not the right to start and to end processes of others.
    Lacks {
        /// As configured.
        name: String,
        /// By the kernel's names.
        lacks: Vec<&'static str>,
    },
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UserError::Unknown { name } => write!(
                f,
                "worker.user: there is no user {name:?} on this machine. Create it (useradd --system {name}), or leave \
                 worker.user out to have workers run as the supervisor's own user"
            ),
            UserError::Lookup { name, source } => {
                write!(
                    f,
                    "worker.user: the user {name:?} cannot be looked up: {source}. Start again once it can"
                )
            }
            UserError::Shared { name, with } => write!(
                f,
                "worker.user: {name:?} is also the user of {with}, and would protect nothing from a worker. Give \
                 workers a user that nothing else runs as, or leave worker.user out"
            ),
            UserError::Lacks { name, lacks } => write!(
                f,
                "worker.user: workers cannot be started as {name:?} without {}. Start bumplessd as root or with these \
                 capabilities, or leave worker.user out to have workers run as the supervisor's own user",
                lacks.join(", ")
            ),
        }
    }
}

impl std::error::Error for UserError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            UserError::Lookup { source, .. } => Some(source),
            UserError::Unknown { .. } | UserError::Shared { .. } | UserError::Lacks { .. } => None,
        }
    }
}

/// The user that the configuration gives to workers; `None`: the supervisor's own.
///
/// # Errors
/// It cannot be had, or is not theirs alone.
pub fn of_workers(config: &Config) -> Result<Option<User>, UserError> {
    let Some(name) = &config.worker.user else { return Ok(None) };
    let look_up =
        |name: &str| found(name).map_err(|source| UserError::Lookup { name: name.to_owned(), source });
    let user = look_up(name)?.ok_or_else(|| UserError::Unknown { name: name.clone() })?;
    let shared = |with| Err(UserError::Shared { name: name.clone(), with });
    if user.uid == 0 {
        return shared("the machine's administrator");
    }
    if user.uid == geteuid().as_raw() {
        return shared("the supervisor");
    }
    let fetcher = look_up(config.fetch.user.as_deref().unwrap_or(FETCHER))?;
    if fetcher.is_some_and(|fetcher| fetcher.uid == user.uid) {
        return shared("the fetcher (fetch.user)");
    }
    match child::lacks_for_others() {
        Ok(lacks) if lacks.is_empty() => Ok(Some(user)),
        Ok(lacks) => Err(UserError::Lacks { name: name.clone(), lacks }),
        Err(source) => Err(UserError::Lookup { name: name.clone(), source }),
    }
}

/// A user by name or by number, with its primary group.
fn found(name: &str) -> io::Result<Option<User>> {
    let by_name = nix::unistd::User::from_name(name)?;
    let user = match (by_name, name.parse()) {
        (None, Ok(number)) => nix::unistd::User::from_uid(Uid::from_raw(number))?,
        (user, _) => user,
    };
    Ok(user.map(|user| User { uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write;

    /// A user that is not ours, and that we can become; `None`, and said, where only root could.
    pub fn other(test: &str) -> Option<User> {
        if geteuid().is_root() {
            return found("nobody").unwrap();
        }
        // Past the capture of the harness.
        let _ = writeln!(io::stderr(), "left out: {test}: only root can run it as another user");
        let required = std::env::var_os("BUMPLESS_REQUIRE_ALL").is_some_and(|value| value == "1");
        assert!(!required, "{test} was left out, and BUMPLESS_REQUIRE_ALL=1 allows no test to be");
        None
    }

    fn configured(name: &str) -> Config {
        let mut config = Config::default();
        config.worker.user = Some(name.to_owned());
        config
    }

    #[test]
    fn a_user_of_workers_is_theirs_alone_or_an_error_that_says_what_to_do() {
        assert_eq!(of_workers(&Config::default()).unwrap(), None);
        let own = nix::unistd::User::from_uid(geteuid()).unwrap().unwrap().name;
        let mut fetches = configured("daemon");
        fetches.fetch.user = Some("daemon".to_owned());
        for (config, says) in [
            (configured("nobody-of-that-name"), "useradd"),
            (configured("4000000000"), "there is no user"),
            (configured("root"), "administrator"),
            (configured("0"), "administrator"),
            (configured(&own), if geteuid().is_root() { "administrator" } else { "the supervisor" }),
            (fetches, "fetch.user"),
        ] {
            let text = of_workers(&config).unwrap_err().to_string();
            assert!(text.starts_with("worker.user: ") && text.contains(says), "{text}");
        }
    }

    #[test]
    fn a_user_has_a_name_or_a_number_and_cannot_be_had_without_the_right_to() {
        let nobody = found("nobody").unwrap().unwrap();
        assert_eq!(found(&nobody.uid.to_string()).unwrap(), Some(nobody));
        if geteuid().is_root() {
            assert_eq!(of_workers(&configured("nobody")).unwrap(), Some(nobody));
        } else {
            let text = of_workers(&configured("nobody")).unwrap_err().to_string();
            assert!(text.contains("CAP_SETUID") && text.contains("as root"), "{text}");
        }
    }
}

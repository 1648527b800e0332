//! Names that a publisher and an administrator agree on: of a channel, of a group of machines.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $(#[$error_doc:meta])* $error:ident, $is_none:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        $(#[$error_doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $error(String);

        impl fmt::Display for $error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{:?} is ", $is_none, ": 1 to 32 of a-z 0-9 -, the first no -)"), self.0)
            }
        }

        impl std::error::Error for $error {}

        impl TryFrom<String> for $name {
            type Error = $error;

            fn try_from(text: String) -> Result<Self, $error> {
                if is_name(&text) { Ok($name(text)) } else { Err($error(text.chars().take(40).collect())) }
            }
        }

        impl std::str::FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                text.to_owned().try_into()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A channel's name: 1 to 32 characters of `a-z 0-9 -`, the first no `-`. One that is followed where nothing
    /// else is said is `stable`.
    Channel,
    /// The text is no channel's name.
    NotAChannel,
    "not a channel (such as stable"
}

name! {
    /// A group of machines, such as `canary` or `eu`: 1 to 32 characters of `a-z 0-9 -`, the first no `-`. A
    /// machine belongs to the one that its configuration names, or to none.
    Group,
    /// The text is no group's name.
    NotAGroup,
    "not a group of machines (such as canary"
}

impl Default for Channel {
    fn default() -> Channel {
        Channel("stable".to_owned())
    }
}

impl Channel {
    /// The folder of a feed, relative to its address, in which the channel's own files lie: `channel/<name>`; the
    /// feed itself for `stable`, which was the only one there could be.
    pub fn folder(&self) -> PathBuf {
        if *self == Channel::default() { PathBuf::new() } else { format!("channel/{self}").into() }
    }
}

/// Nothing that could be a path, an option or two words.
fn is_name(text: &str) -> bool {
    let allowed = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-');
    (1..=32).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_be_no_path_and_no_option() {
        for good in ["stable", "eu-1", "0"] {
            assert!(good.parse::<Channel>().is_ok() && good.parse::<Group>().is_ok(), "{good}");
        }
        let long = "a".repeat(33);
        for wrong in ["", "-a", "..", "a/b", "a b", "A", "é", &long] {
            assert!(wrong.parse::<Channel>().is_err() && wrong.parse::<Group>().is_err(), "{wrong:?}");
        }
        assert_eq!(
            "A".parse::<Group>().map_err(|why| why.to_string()),
            Err("\"A\" is not a group of machines (such as canary: 1 to 32 of a-z 0-9 -, the first no -)"
                .to_owned())
        );
    }
    #[test]
    fn a_channels_files_lie_in_its_own_folder_and_those_of_stable_in_the_feed_itself() {
        for (name, folder) in [("stable", ""), ("beta", "channel/beta"), ("index", "channel/index")] {
            assert_eq!(name.parse().map(|name: Channel| name.folder()), Ok(folder.into()));
        }
        assert_eq!("stable".parse(), Ok(Channel::default()));
    }
}

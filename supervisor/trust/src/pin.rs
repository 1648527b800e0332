//! A machine's pin: which versions its administrator lets onto it.
//!
//! ```text
//!   pin 1.8    1.8   1.8.3   1.8.0-rc1   are admitted
//!              1.80  1.9.0   1.8-rc1     are not
//! ```
//!
//! A pin is the beginning of versions, in whole parts; a part is what stands between two dots. What is not
//! plainly inside is outside: a pin is there to keep things out.

use std::fmt;
use std::str::FromStr;

use bumpless_shared::release::Version;
use serde::Deserialize;

/// The parts that a version must begin with: one or more, none of them empty, such as `1.8`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Pin(Version);

/// The text is no pin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAPin(String);

impl fmt::Display for NotAPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a pin (the first parts of a version, such as 1.8, without a dot at the end)",
            self.0
        )
    }
}

impl std::error::Error for NotAPin {}

impl Pin {
    /// Whether a release of this name may come here.
    pub fn admits(&self, version: &Version) -> bool {
        let rest = version.as_str().strip_prefix(self.0.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Pin {
    type Err = NotAPin;

    fn from_str(text: &str) -> Result<Self, NotAPin> {
        let no_pin = || NotAPin(text.chars().take(40).collect());
        let version: Version = text.parse().map_err(|_| no_pin())?;
        if text.split('.').any(str::is_empty) { Err(no_pin()) } else { Ok(Pin(version)) }
    }
}

impl TryFrom<String> for Pin {
    type Error = NotAPin;

    fn try_from(text: String) -> Result<Self, NotAPin> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_pin_admits_what_begins_with_all_of_its_parts() {
        for (pin, version, admitted) in [
            ("1.8", "1.8", true),
            ("1.8", "1.8.0", true),
            ("1.8", "1.8.12.1", true),
            ("1.8", "1.8.0-rc1", true),
            ("1.8", "1.80", false),
            ("1.8", "1.80.1", false),
            ("1.8", "1.8-rc1", false),
            ("1.8", "1.9.0", false),
            ("1.8", "1", false),
            ("1.8", "11.8.0", false),
            ("1", "1.9.0", true),
            ("1", "10.0.0", false),
            ("1.8.2", "1.8.2", true),
            ("1.8.2", "1.8.20", false),
        ] {
            let (pin, version): (Pin, Version) = (pin.parse().unwrap(), version.parse().unwrap());
            assert_eq!(pin.admits(&version), admitted, "pin {pin}, version {version}");
        }
    }

    #[test]
    fn what_is_no_pin_is_refused_with_what_one_looks_like() {
        for wrong in ["", "1.", ".8", "1..8", "1.*", "^1.8", "v1", "1 8"] {
            let text = wrong.parse::<Pin>().unwrap_err().to_string();
            assert!(text.contains("such as 1.8"), "{text}");
        }
    }
}

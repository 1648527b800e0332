//! Maintenance windows as people write them; zones are looked up in the machine's database.

use std::fmt;
use std::time::Duration;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use serde::de::{Error, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::units::duration;
use crate::windows::{Days, Window, Windows};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default = "every_day", deserialize_with = "days")]
    days: Days,
    #[serde(deserialize_with = "start")]
    start: Time,
    #[serde(deserialize_with = "duration")]
    length: Duration,
    /// Absent: this machine's own.
    #[serde(default, deserialize_with = "zone")]
    zone: Option<TimeZone>,
}

pub(super) fn windows<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Windows, D::Error> {
    let windows = Vec::<Written>::deserialize(deserializer)?.into_iter().map(|written| {
        let Written { days, start, length, zone } = written;
        let zone = zone.map_or_else(local, Ok).map_err(D::Error::custom)?;
        Ok(Window { days, start, length, zone })
    });
    windows.collect::<Result<_, _>>().map(Windows)
}

fn every_day() -> Days {
    Days::ALL
}

fn days<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Days, D::Error> {
    struct Named;
    impl<'de> Visitor<'de> for Named {
        type Value = Days;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "\"all\" or a list of {}", Days::NAMES.join(", "))
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Days, E> {
            match text {
                "all" => Ok(Days::ALL),
                other => Err(E::invalid_value(Unexpected::Str(other), &self)),
            }
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Days, A::Error> {
            let mut days = Days::NONE;
            while let Some(name) = names.next_element::<String>()? {
                let wrong = || A::Error::invalid_value(Unexpected::Str(&name), &self);
                days = days.with(&name).ok_or_else(wrong)?;
            }
            if days == Days::NONE { Err(A::Error::invalid_length(0, &self)) } else { Ok(days) }
        }
    }
    deserializer.deserialize_any(Named)
}

fn start<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
    let text = String::deserialize(deserializer)?;
    let number = |text: &str| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        if digits { text.parse::<i8>().ok() } else { None }
    };
    let time =
        text.split_once(':').and_then(|(hour, minute)| Time::new(number(hour)?, number(minute)?, 0, 0).ok());
    let wrong = || {
        D::Error::custom(format_args!("{text:?} is no time of day; write hour and minute, such as \"02:00\""))
    };
    time.ok_or_else(wrong)
}

fn zone<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<TimeZone>, D::Error> {
    let name = String::deserialize(deserializer)?;
    match name.as_str() {
        "local" => local().map(Some).map_err(D::Error::custom),
        "UTC" => Ok(Some(TimeZone::UTC)),
        other => TimeZone::get(other).map(Some).map_err(|_| {
            D::Error::custom(format_args!(
                "{other:?} is no time zone that this machine knows; write \"local\", \"UTC\", or a name such as \
                 \"Europe/Berlin\" (they come with the system's package tzdata)"
            ))
        }),
    }
}

fn local() -> Result<TimeZone, String> {
    TimeZone::try_system().map_err(|error| {
        format!("zone \"local\": this machine does not say which time zone it is in ({error}); write \"UTC\" or a name")
    })
}

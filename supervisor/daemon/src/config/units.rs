//! Durations and sizes as people write them, a number and its unit; and what else stands in one word.

use std::time::Duration;

use bumpless_shared::control::Durability;
use serde::{Deserialize, Deserializer, de::Error};

use super::Proxy;
use crate::feed::proxy::Address;

/// `"500ms"`, `"60s"`, `"10min"`, `"1h"`, `"2d"`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("{text:?} is no duration; write a whole number and ms, s, min, h or d, such as \"500ms\"");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(ms).map(Duration::from_millis).ok_or_else(wrong)
}

/// `"8KiB"`, `"64MiB"`, `"2GiB"`, `"100B"`.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("{text:?} is no size; write a whole number and B, KiB, MiB or GiB, such as \"64MiB\"");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let factor = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor).ok_or_else(wrong)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim_start()))
}

pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

pub(super) fn durations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Duration>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| parse_duration(text)).collect::<Result<_, _>>().map_err(D::Error::custom)
}

pub(super) fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    parse_bytes(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

pub(super) fn durability<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Durability, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "fsync" => Ok(Durability::Fsync),
        "os" => Ok(Durability::Os),
        other => Err(D::Error::custom(format_args!("{other:?} is not known; write \"fsync\" or \"os\""))),
    }
}

pub(super) fn proxy<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Proxy>, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "environment" => Ok(Some(Proxy::Environment)),
        address => match Address::parse(address) {
            Ok(address) => Ok(Some(Proxy::Address(address))),
            Err(why) => {
                Err(D::Error::custom(format_args!("neither \"environment\" nor a proxy's address: {why}")))
            }
        },
    }
}

//! The number in front of every object.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What this build speaks.
pub const SCHEMA: u64 = 1;

/// Written as [`SCHEMA`]; reading another number is an error that names both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schema;

impl Serialize for Schema {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(SCHEMA)
    }
}

impl<'de> Deserialize<'de> for Schema {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            SCHEMA => Ok(Schema),
            other => Err(serde::de::Error::custom(format_args!(
                "schema {other}, this build speaks {SCHEMA}: bumpless and bumplessd must come from one package"
            ))),
        }
    }
}

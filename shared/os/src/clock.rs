//! The time of day: what people and signed metadata go by, and anyone can set. Whatever has to be waited
//! for goes by [`std::time::Instant`].

use std::time::{SystemTime, UNIX_EPOCH};

use crate::injected;

/// Seconds since 1970; 0 for a clock that is set to before.
pub fn unix_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    now.saturating_add_signed(injected::clock())
}

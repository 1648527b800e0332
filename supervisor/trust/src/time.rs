//! The moment at which something is decided, and moments for people: `2026-11-20 11:14:26 UTC`.

use std::fmt;

use crate::document::Role;
use crate::refused::Refused;

/// Whether what has expired is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// It is: someone may hold newer files back.
    Counts,
    /// It is not, and every other check stays: an administrator vouches for media that lay in a drawer.
    Waived,
}

/// The moment at which something is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Unix seconds.
    pub now: u64,
    /// Unix seconds; a moment after which this supervisor was built.
    pub built: u64,
    /// Whether what has expired by `now` is refused.
    pub expiry: Expiry,
}

impl At {
    /// That moment, with every expiry counting.
    pub fn new(now: u64, built: u64) -> At {
        At { now, built, expiry: Expiry::Counts }
    }

    pub(crate) fn not_expired(self, role: Role, expires: u64) -> Result<(), Refused> {
        match self.expiry {
            Expiry::Counts if self.now >= expires => Err(Refused::Expired(role, expires)),
            Expiry::Counts | Expiry::Waived => Ok(()),
        }
    }
}

/// Unix seconds, written as a date in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Utc(pub u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Days since 0000-03-01, so that a leap day is the last day of its year (Hinnant, "days from civil").
        let days = u128::from(self.0 / 86_400) + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = era * 400 + year_of_era + u128::from(month <= 2);
        let second = self.0 % 86_400;
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_seconds_are_written_as_the_date_they_mean() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_795_173_266, "2026-11-20 11:14:26 UTC"),
        ] {
            assert_eq!(Utc(seconds).to_string(), text);
        }
        assert!(Utc(u64::MAX).to_string().ends_with("UTC"));
    }
}

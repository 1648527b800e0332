//! Maintenance windows: when an upgrade may begin by itself. Pure: no clock, no files.
//!
//! ```text
//!    start = "02:00", length = "3h"      a day of the window            the next one
//!   ────────────────────────────────┬────────────────────────┬───────────────────────┬────▶
//!                                 02:00                    05:00                   02:00
//!     Closed, and when it opens     │   Open, until when     │   Closed
//! ```
//!
//! A window opens at its local time of day on each of its days and stays open for its length, over midnight
//! if need be. Windows that overlap or touch are one. What begins in a window is not stopped at its end.
//!
//! Where clocks are changed, three things could be asked:
//!
//! - The time of day does not exist, because it is skipped: the window opens as much later as is skipped, as
//!   long after midnight as on any other day.
//! - It comes twice: the window opens at the first of the two, once.
//! - The change is inside of the window: the length is time that passes, not what a clock on the wall shows.

use std::time::Duration;

use bumpless_control::Unix;
use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;

/// Longest window: a week is always open.
pub const MAX_LENGTH: Duration = Duration::from_secs(7 * 86_400);

/// So many days before and after today are looked at: further than any window is long, and than a week, even
/// where a zone leaves out a whole day.
const HORIZON: usize = 9;

/// Days of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Days([bool; 7]);

impl Days {
    /// What they are called, from Monday on.
    pub const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    /// Every day.
    pub const ALL: Days = Days([true; 7]);
    /// No day.
    pub const NONE: Days = Days([false; 7]);

    /// With the day of this name, too; `None` if there is none.
    pub fn with(self, name: &str) -> Option<Days> {
        let day = Days::NAMES.iter().position(|known| *known == name)?;
        let Days(mut days) = self;
        *days.get_mut(day)? = true;
        Some(Days(days))
    }

    fn has(self, date: Date) -> bool {
        let Days(days) = self;
        usize::try_from(date.weekday().to_monday_zero_offset()).is_ok_and(|day| days.get(day) == Some(&true))
    }
}

/// One window, as the configuration has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The days that it opens on.
    pub days: Days,
    /// The time of day at which it opens.
    pub start: Time,
    /// How long it is open.
    pub length: Duration,
    /// Whose days and time of day these are.
    pub zone: TimeZone,
}

/// All of them; none is no restriction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Windows(pub Vec<Window>);

/// A time in which windows are open, without a break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The first second.
    pub opens: Unix,
    /// The first second that is not in it any more.
    pub until: Unix,
}

/// Whether an upgrade may begin by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// There is no window: at any time.
    Always,
    /// One is open.
    Open(Span),
    /// None is open. The next that opens; `None` where the clock shows a year that no calendar has.
    Closed(Option<Span>),
}

impl Windows {
    /// How it is at this moment.
    pub fn at(&self, now: Unix) -> Gate {
        if self.0.is_empty() {
            return Gate::Always;
        }
        match self.spans(now).into_iter().find(|span| span.opens <= now && now < span.until) {
            Some(span) => Gate::Open(span),
            None => Gate::Closed(self.next(now)),
        }
    }

    /// The next that opens after this moment.
    pub fn next(&self, now: Unix) -> Option<Span> {
        self.spans(now).into_iter().find(|span| span.opens > now)
    }

    /// Around this moment, in order, and with a break between one and the next.
    fn spans(&self, now: Unix) -> Vec<Span> {
        let mut spans: Vec<Span> = self.0.iter().flat_map(|window| window.around(now)).collect();
        spans.sort_unstable();
        let mut merged: Vec<Span> = vec![];
        for span in spans {
            match merged.last_mut() {
                Some(last) if span.opens <= last.until => last.until = last.until.max(span.until),
                Some(_) | None => merged.push(span),
            }
        }
        merged
    }
}

impl Window {
    fn around(&self, now: Unix) -> Vec<Span> {
        let mut date = self.date(now);
        for _ in 0..HORIZON {
            date = date.and_then(|date| date.yesterday().ok());
        }
        let mut spans = vec![];
        for _ in 0..=2 * HORIZON {
            let Some(day) = date else { break };
            if self.days.has(day) {
                spans.extend(self.on(day));
            }
            date = day.tomorrow().ok();
        }
        spans
    }

    /// The day in the window's zone.
    fn date(&self, now: Unix) -> Option<Date> {
        let now = Timestamp::from_second(i64::try_from(now).ok()?).ok()?;
        Some(self.zone.to_datetime(now).date())
    }

    fn on(&self, day: Date) -> Option<Span> {
        let opens = self.zone.to_ambiguous_timestamp(day.to_datetime(self.start)).compatible().ok()?;
        let opens = Unix::try_from(opens.as_second()).ok()?;
        Some(Span { opens, until: opens.saturating_add(self.length.as_secs()) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Berlin's rules of today, without its files.
    const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

    fn window(days: &[&str], (hour, minute): (i8, i8), hours: u64, zone: &str) -> Window {
        let days = days.iter().fold(Days::NONE, |days, name| days.with(name).unwrap());
        let zone = if zone == "UTC" { TimeZone::UTC } else { TimeZone::posix(zone).unwrap() };
        let length = Duration::from_secs(hours * 3600);
        Window { days, start: Time::new(hour, minute, 0, 0).unwrap(), length, zone }
    }

    fn all(start: (i8, i8), hours: u64, zone: &str) -> Windows {
        Windows(vec![Window { days: Days::ALL, ..window(&[], start, hours, zone) }])
    }

    /// `2026-11-28 02:00` in UTC.
    fn utc(text: &str) -> Unix {
        let text = format!("{}:00Z", text.replace(' ', "T"));
        Unix::try_from(text.parse::<Timestamp>().unwrap().as_second()).unwrap()
    }

    fn span(opens: &str, until: &str) -> Span {
        Span { opens: utc(opens), until: utc(until) }
    }

    #[test]
    fn without_a_window_it_is_never_closed() {
        assert_eq!(Windows::default().at(0), Gate::Always);
        assert_eq!(Windows::default().at(Unix::MAX), Gate::Always);
        assert_eq!(Windows::default().next(0), None);
    }

    #[test]
    fn a_window_is_open_from_its_first_second_to_before_its_end_and_then_the_next_day_of_it_counts() {
        // 2026-11-28 is a Saturday.
        let windows = Windows(vec![window(&["sat", "sun"], (2, 0), 3, "UTC")]);
        let saturday = span("2026-11-28 02:00", "2026-11-28 05:00");
        let sunday = span("2026-11-29 02:00", "2026-11-29 05:00");
        let next_saturday = span("2026-12-05 02:00", "2026-12-05 05:00");
        for (now, gate) in [
            (utc("2026-11-25 12:00"), Gate::Closed(Some(saturday))),
            (saturday.opens - 1, Gate::Closed(Some(saturday))),
            (saturday.opens, Gate::Open(saturday)),
            (saturday.until - 1, Gate::Open(saturday)),
            (saturday.until, Gate::Closed(Some(sunday))),
            (sunday.opens, Gate::Open(sunday)),
            (sunday.until, Gate::Closed(Some(next_saturday))),
        ] {
            assert_eq!(windows.at(now), gate, "at {now}");
        }
        // What opens next is told in a window, too: not the one that is open.
        assert_eq!(windows.next(saturday.opens), Some(sunday));
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_opens() {
        let windows = Windows(vec![window(&["sat"], (22, 0), 6, "UTC")]);
        let open = span("2026-11-28 22:00", "2026-11-29 04:00");
        assert_eq!(windows.at(utc("2026-11-29 03:59")), Gate::Open(open));
        assert_eq!(windows.at(utc("2026-11-28 03:00")), Gate::Closed(Some(open)), "not of Friday's");
        let week = Windows(vec![window(&["mon"], (0, 0), 7 * 24, "UTC")]);
        assert!(matches!(week.at(utc("2026-11-29 23:59")), Gate::Open(_)), "the longest that there is");
    }

    #[test]
    fn days_and_times_are_those_of_the_windows_own_zone() {
        let windows = Windows(vec![window(&["sat"], (0, 30), 1, BERLIN)]);
        let winter = span("2026-11-27 23:30", "2026-11-28 00:30");
        assert_eq!(windows.at(utc("2026-11-27 23:00")), Gate::Closed(Some(winter)));
        assert_eq!(windows.at(utc("2026-11-27 23:30")), Gate::Open(winter), "it is Saturday there");
        let summer = span("2026-07-03 22:30", "2026-07-03 23:30");
        assert_eq!(windows.at(utc("2026-07-03 23:00")), Gate::Open(summer));
        // As far east and west as there are people.
        for (zone, opens) in [("<+14>-14", "2026-11-27 10:30"), ("<-11>11", "2026-11-28 11:30")] {
            let windows = Windows(vec![window(&["sat"], (0, 30), 1, zone)]);
            assert!(matches!(windows.at(utc(opens)), Gate::Open(span) if span.opens == utc(opens)), "{zone}");
            assert!(matches!(windows.at(utc(opens) - 1), Gate::Closed(_)), "{zone}");
        }
    }

    #[test]
    fn a_time_of_day_that_is_skipped_comes_as_much_later_as_is_skipped() {
        // On 2026-03-29, 02:00 CET is 03:00 CEST.
        let windows = all((2, 30), 1, BERLIN);
        let skipped = span("2026-03-29 01:30", "2026-03-29 02:30");
        assert_eq!(windows.at(skipped.opens - 1), Gate::Closed(Some(skipped)));
        assert_eq!(windows.at(skipped.opens), Gate::Open(skipped));
        assert_eq!(windows.next(skipped.opens), Some(span("2026-03-30 00:30", "2026-03-30 01:30")));
        // And the length is time that passes: 01:00 CET to 05:00 CEST.
        let around = span("2026-03-29 00:00", "2026-03-29 03:00");
        assert_eq!(all((1, 0), 3, BERLIN).at(utc("2026-03-29 02:59")), Gate::Open(around));
    }

    #[test]
    fn a_time_of_day_that_comes_twice_opens_a_window_once_at_the_first_of_them() {
        // On 2026-10-25, 03:00 CEST is 02:00 CET.
        let windows = all((2, 30), 1, BERLIN);
        let first = span("2026-10-25 00:30", "2026-10-25 01:30");
        assert_eq!(windows.at(first.opens), Gate::Open(first));
        let next = span("2026-10-26 01:30", "2026-10-26 02:30");
        assert_eq!(windows.at(utc("2026-10-25 01:30")), Gate::Closed(Some(next)), "02:30 comes again");
        let around = span("2026-10-24 23:00", "2026-10-25 02:00");
        assert_eq!(all((1, 0), 3, BERLIN).at(utc("2026-10-25 01:59")), Gate::Open(around));
    }

    #[test]
    fn windows_that_overlap_or_touch_are_one_and_in_different_zones_too() {
        let night = window(&["sat"], (1, 0), 2, "UTC");
        let windows = Windows(vec![
            window(&["sat"], (5, 0), 1, BERLIN),
            night.clone(),
            window(&["sat"], (2, 0), 2, "UTC"),
            window(&["sat"], (12, 0), 1, "UTC"),
        ]);
        let all = span("2026-11-28 01:00", "2026-11-28 05:00");
        for now in [all.opens, utc("2026-11-28 03:30"), all.until - 1] {
            assert_eq!(windows.at(now), Gate::Open(all), "at {now}");
        }
        assert_eq!(windows.at(all.until), Gate::Closed(Some(span("2026-11-28 12:00", "2026-11-28 13:00"))));
        // One that lies inside of another does not shorten it.
        let windows = Windows(vec![night, window(&["sat"], (1, 30), 1, "UTC")]);
        assert_eq!(
            windows.at(utc("2026-11-28 02:45")),
            Gate::Open(span("2026-11-28 01:00", "2026-11-28 03:00"))
        );
    }

    #[test]
    fn every_moment_of_some_years_is_open_or_has_an_opening_within_eight_days() {
        for zone in [BERLIN, "UTC", "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0", "<-02>2<-01>,M3.5.0/-1,M10.5.0/0"]
        {
            let windows = Windows(vec![window(&["wed"], (2, 15), 1, zone)]);
            let (mut now, end, mut openings) = (utc("2026-01-01 00:00"), utc("2028-01-01 00:00"), 0);
            while now < end {
                let Gate::Closed(Some(next)) = windows.at(now) else { panic!("{zone}: at {now}") };
                assert!(next.opens > now && next.opens - now <= 8 * 86_400, "{zone}: at {now}");
                assert_eq!(windows.at(next.opens - 1), Gate::Closed(Some(next)), "{zone}");
                assert_eq!(windows.at(next.opens), Gate::Open(next), "{zone}");
                now = next.until;
                openings += 1;
            }
            assert!((104..=105).contains(&openings), "{zone}: {openings} Wednesdays in two years");
        }
    }

    #[test]
    fn a_clock_beyond_every_calendar_opens_nothing() {
        assert_eq!(all((2, 0), 3, "UTC").at(Unix::MAX), Gate::Closed(None));
        assert_eq!(all((2, 0), 3, "UTC").at(i64::MAX as Unix), Gate::Closed(None));
        assert!(matches!(all((2, 0), 3, BERLIN).at(0), Gate::Closed(Some(_))));
    }
}

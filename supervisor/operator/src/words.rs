//! Times, durations and sizes as people read them.

use bumpless_control::status::Amount;
use bumpless_control::{Unix, Version};

/// `2026-11-20 11:14:26 UTC`.
pub fn date(at: Unix) -> String {
    // Days since 0000-03-01, so that a leap day is the last day of its year (Hinnant, "days from civil").
    let days = u128::from(at / 86_400) + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u128::from(month <= 2);
    let second = at % 86_400;
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// `48 s`, `5 min`, `2 h 24 min`, `3 days`.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => match seconds / 60 % 60 {
            0 => format!("{} h", seconds / 3600),
            minutes => format!("{} h {minutes} min", seconds / 3600),
        },
        172_800.. => format!("{} days", seconds / 86_400),
    }
}

/// `2 h 24 min ago` or `in 48 s`.
pub fn relative(at: Unix, now: Unix) -> String {
    if at > now { format!("in {}", span(at - now)) } else { format!("{} ago", span(now - at)) }
}

/// Both: `2026-11-20 11:14:26 UTC (2 h 24 min ago)`.
pub fn when(at: Unix, now: Unix) -> String {
    format!("{} ({})", date(at), relative(at, now))
}

/// `512 B`, `84.0 MB`, `3.1 GB`; powers of 1000.
pub fn size(bytes: u64) -> String {
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    for unit in ["kB", "MB", "GB"] {
        // Not 1000: what would be rounded to 1000.0 belongs to the next unit.
        if value < 999.95 {
            return format!("{value:.1} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

/// `3.0 MB of 30.0 MB (10 %), 1.5 MB/s, 18 s left`, as far as that is known.
pub fn amount(amount: &Amount) -> String {
    let Amount { done, total, rate, left } = *amount;
    let mut text = match total {
        Some(total) => {
            let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100).min(100);
            format!("{} of {} ({percent} %)", size(done), size(total))
        }
        None => size(done),
    };
    if let Some(rate) = rate {
        text += &format!(", {}/s", size(rate));
    }
    if let Some(left) = left.filter(|_| total.is_none_or(|total| done < total)) {
        text += &format!(", {} left", span(left));
    }
    text
}

/// `0.8 ms`, `3.2 s`.
pub fn milliseconds(ms: f64) -> String {
    if ms < 1000.0 { format!("{ms:.1} ms") } else { format!("{:.1} s", ms / 1000.0) }
}

/// `from 1.0.0 to 1.1.0`, or `to 1.0.0` at the very first start.
pub fn course(from: Option<&Version>, to: &Version) -> String {
    from.map_or_else(|| format!("to {to}"), |from| format!("from {from} to {to}"))
}

/// Text that came from elsewhere, safe for a terminal: control characters except the end of line are
/// written out.
pub fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => safe.push(c),
            '\t' => safe.push(' '),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                safe.extend(c.escape_unicode())
            }
            c if c.is_control() => safe.extend(c.escape_default()),
            c => safe.push(c),
        }
    }
    safe
}

/// Each line with so many spaces in front.
pub fn indented(text: &str, spaces: usize) -> String {
    let space = " ".repeat(spaces);
    safe(text).trim_end().lines().map(|line| format!("{space}{line}\n")).collect()
}

/// A reason inside of a sentence: one line, without its own full stop.
pub fn clause(text: &str) -> String {
    let line = safe(text).split_whitespace().collect::<Vec<_>>().join(" ");
    line.strip_suffix('.').map_or(line.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_written_as_people_read_them() {
        assert_eq!(date(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(date(1_795_173_266), "2026-11-20 11:14:26 UTC");
        assert!(date(u64::MAX).ends_with("UTC"));
        for (seconds, text) in [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h")]
        {
            assert_eq!(span(seconds), text);
        }
        for (seconds, text) in [(8640, "2 h 24 min"), (172_799, "47 h 59 min"), (172_800, "2 days")] {
            assert_eq!(span(seconds), text);
        }
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (3_100_000_000, "3.1 GB"),
            (u64::MAX, "18446744.1 TB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!((milliseconds(0.84), milliseconds(3200.0)), ("0.8 ms".into(), "3.2 s".into()));
        assert_eq!((relative(10, 5), relative(5, 10)), ("in 5 s".into(), "5 s ago".into()));
    }

    #[test]
    fn foreign_text_cannot_act_on_a_terminal() {
        assert_eq!(indented("a\x1b[2J\nb\r\u{202e}\n\n", 2), "  a\\u{1b}[2J\n  b\\r\\u{202e}\n");
        assert_eq!(clause("it died.\nTry again."), "it died. Try again");
    }
}

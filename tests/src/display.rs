//! What a person sees while a demo or a benchmark runs: one line per step on the error stream; on a terminal the
//! line of the current step is rewritten in place, otherwise it is printed once when the step is done.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

const NAME_WIDTH: usize = 16;
/// No more than so many updates a second: the load is on the same cores.
const REFRESH: Duration = Duration::from_millis(80);
const MINUTE: Duration = Duration::from_secs(60);
const SPINNER: [char; 8] = ['⣾', '⣽', '⣻', '⢿', '⡿', '⣟', '⣯', '⣷'];

/// The running display.
#[derive(Debug)]
pub struct Display {
    terminal: bool,
    current: Option<Current>,
    drawn: Option<Instant>,
    frame: usize,
}

#[derive(Debug)]
struct Current {
    name: String,
    begun: Instant,
}

impl Display {
    /// On the error stream, so that standard output holds the result alone.
    pub fn new() -> Display {
        let terminal =
            std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Display { terminal, current: None, drawn: None, frame: 0 }
    }

    /// A line that is no step.
    pub fn say(&mut self, text: &str) {
        let clear = if self.terminal && self.current.is_some() { "\r\x1b[2K" } else { "" };
        self.write(&format!("{clear}{text}\n"));
    }

    /// A heading, set off by an empty line.
    pub fn heading(&mut self, text: &str) {
        let bold = if self.terminal { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() };
        self.write(&format!("\n{bold}\n"));
    }

    /// The next step begins.
    pub fn begin(&mut self, name: &str) {
        self.current = Some(Current { name: name.to_owned(), begun: Instant::now() });
        self.drawn = None;
        self.update("");
    }

    /// Where the current step stands, in words.
    pub fn update(&mut self, text: &str) {
        if !self.terminal || self.drawn.is_some_and(|drawn| drawn.elapsed() < REFRESH) {
            return;
        }
        self.drawn = Some(Instant::now());
        self.frame = (self.frame + 1) % SPINNER.len();
        if let Some(current) = &self.current {
            let line = format!("  {} {:<NAME_WIDTH$} {text}", SPINNER[self.frame], current.name);
            let cut: String = line.chars().take(110).collect();
            self.write(&format!("\r\x1b[2K{cut}"));
        }
    }

    /// Where the whole stands, where there are too many steps for a line each; without a terminal it is said
    /// once a minute. Lines that are said go above.
    pub fn live(&mut self, text: &str) {
        if !self.terminal {
            if self.drawn.is_none_or(|drawn| drawn.elapsed() >= MINUTE) {
                self.drawn = Some(Instant::now());
                self.say(&format!("    {text}"));
            }
            return;
        }
        if self.current.is_none() {
            self.begin("cases");
        }
        self.update(text);
    }

    /// Where the current step stands: a bar.
    pub fn amount(&mut self, done: u64, total: Option<u64>) {
        self.update(&amount(done, total));
    }

    /// The current step went well.
    pub fn done(&mut self, text: &str) {
        self.end(('✔', "32"), text);
    }

    /// The current step ended in a failure that belongs to the story.
    pub fn bad(&mut self, text: &str) {
        self.end(('✘', "31"), text);
    }

    fn end(&mut self, (sign, colour): (char, &str), text: &str) {
        let Some(Current { name, begun }) = self.current.take() else { return };
        let seconds = begun.elapsed().as_secs_f64();
        let (clear, sign) = if self.terminal {
            ("\r\x1b[2K", format!("\x1b[{colour}m{sign}\x1b[0m"))
        } else {
            ("", sign.to_string())
        };
        let body = format!("{name:<NAME_WIDTH$} {text}");
        self.write(&format!("{clear}  {sign} {body:<90} {seconds:>6.1} s\n"));
    }

    fn write(&self, text: &str) {
        let mut stream = std::io::stderr().lock();
        // Nobody looking is no reason to stop.
        let _ = stream.write_all(text.as_bytes());
        let _ = stream.flush();
    }
}

impl Default for Display {
    fn default() -> Display {
        Display::new()
    }
}

fn amount(done: u64, total: Option<u64>) -> String {
    match total {
        Some(total) if total > 0 => {
            let filled = (done.min(total) * 30 / total) as usize;
            let bar = "█".repeat(filled) + &"░".repeat(30 - filled);
            format!("{bar} {} of {}", bytes(done), bytes(total))
        }
        Some(_) | None => bytes(done),
    }
}

/// Bytes as people read them.
pub fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", count as f64 / 1e6),
        _ => format!("{:.2} GB", count as f64 / 1e9),
    }
}

/// A number with its thousands set apart.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([0, 999, 1000, 1234567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([5, 1500, 2_500_000].map(bytes), ["5 B", "1.5 kB", "2.5 MB"]);
        assert_eq!(amount(1, Some(2)), format!("{}{} 1 B of 2 B", "█".repeat(15), "░".repeat(15)));
        assert_eq!(amount(7, None), "7 B");
    }
}

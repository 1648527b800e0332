//! Where the passwords of encrypted keys come from.

use std::collections::VecDeque;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};

/// Asked for only when an encrypted key is really needed.
#[derive(Default)]
pub enum Passwords {
    /// A question on the terminal, for each key.
    #[default]
    Terminal,
    /// One line for each key, in the order in which they are needed; the last one serves for all that follow.
    Lines(VecDeque<String>),
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Passwords::Terminal => "Terminal",
            Passwords::Lines(_) => "Lines(…)",
        })
    }
}

impl Passwords {
    /// Reads a file descriptor that this process was started with to its end.
    ///
    /// # Errors
    /// There is no such descriptor, or what comes out of it is no text.
    pub fn from_descriptor(number: u32) -> io::Result<Self> {
        let text = std::fs::read_to_string(format!("/dev/fd/{number}"))?;
        Ok(Passwords::Lines(text.lines().map(str::to_owned).collect()))
    }

    /// The password of this key.
    ///
    /// # Errors
    /// There is no terminal to ask on, or no line.
    pub fn of(&mut self, key: &Path) -> io::Result<String> {
        match self {
            Passwords::Terminal => ask(&format!("Password of {}: ", key.display())),
            Passwords::Lines(lines) => {
                let last = lines.front().cloned().ok_or(io::ErrorKind::UnexpectedEof)?;
                if lines.len() > 1 {
                    lines.pop_front();
                }
                Ok(last)
            }
        }
    }
}

/// What Ctrl-C types.
const INTERRUPT: u8 = 3;

/// Asks on the terminal of this process. Silence comes before the question, so that nothing of an answer can
/// ever be seen.
fn ask(question: &str) -> io::Result<String> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    let mut line = Vec::new();
    {
        let _silent = Silent::begin(&terminal)?;
        (&terminal).write_all(question.as_bytes())?;
        for byte in BufReader::new(&terminal).bytes() {
            match byte? {
                b'\n' => break,
                INTERRUPT => {
                    return Err(io::Error::new(io::ErrorKind::Interrupted, "it was not typed to its end"));
                }
                byte => line.push(byte),
            }
        }
        (&terminal).write_all(b"\n")?;
    }
    String::from_utf8(line).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// A terminal without an echo; dropped, it is as it was.
struct Silent<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Silent<'a> {
    fn begin(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        // Ctrl-C ends the line instead of the process: who else would bring the echo back?
        silent.local_flags.remove(LocalFlags::ECHO | LocalFlags::ECHONL | LocalFlags::ISIG);
        silent.control_chars[SpecialCharacterIndices::VEOL as usize] = INTERRUPT;
        tcsetattr(terminal, SetArg::TCSAFLUSH, &silent)?;
        Ok(Silent { terminal, before })
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs no echo.
        let _ = tcsetattr(self.terminal, SetArg::TCSAFLUSH, &self.before);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_key_takes_a_line_and_the_last_line_serves_for_the_rest() {
        let mut lines = Passwords::Lines(["one".to_owned(), "two".to_owned()].into());
        let taken: Vec<String> = (0..3).map(|_| lines.of(Path::new("key")).unwrap()).collect();
        assert_eq!(taken, ["one", "two", "two"]);
        assert!(Passwords::Lines(VecDeque::new()).of(Path::new("key")).is_err());
        assert_eq!(format!("{lines:?}"), "Lines(…)");
    }
}

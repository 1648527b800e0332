//! How `bumpless-fetch` ends: its exit codes, which the supervisor reads.
//!
//! The supervisor compiles this file too, instead of linking the fetcher and everything that it brings.

/// Each of them says something different about what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The whole file was written.
    Done,
    /// Something that should not happen; standard error has the words.
    Failed,
    /// The command line cannot be meant, or its address may not be used.
    Usage,
    /// The server says that there is no such file (404 or 410): the only answer that means "not there".
    NotFound,
    /// The file is larger than allowed.
    TooLarge,
    /// No connection: no such host, nobody listens, no agreement on TLS.
    Unreachable,
    /// The time for connecting, or for everything, is over.
    TimedOut,
    /// Less than the minimum rate for a whole window.
    TooSlow,
    /// The server wants to send us elsewhere, and we do not go.
    Redirected,
    /// Any other answer than 200.
    Status,
    /// The answer broke off, or was none.
    Broken,
    /// The file could not be written.
    NotWritten,
}

impl Exit {
    /// Every one of them.
    pub const ALL: [Exit; 12] = [
        Exit::Done,
        Exit::Failed,
        Exit::Usage,
        Exit::NotFound,
        Exit::TooLarge,
        Exit::Unreachable,
        Exit::TimedOut,
        Exit::TooSlow,
        Exit::Redirected,
        Exit::Status,
        Exit::Broken,
        Exit::NotWritten,
    ];

    /// The exit code.
    pub const fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NotFound => 10,
            Exit::TooLarge => 11,
            Exit::Unreachable => 12,
            Exit::TimedOut => 13,
            Exit::TooSlow => 14,
            Exit::Redirected => 15,
            Exit::Status => 16,
            Exit::Broken => 17,
            Exit::NotWritten => 18,
        }
    }

    /// The one with this code.
    pub fn of(code: i32) -> Option<Exit> {
        Exit::ALL.into_iter().find(|exit| i32::from(exit.code()) == code)
    }
}

//! The publisher: its command, its files, and the minisign tool.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod command;
mod publish;

/// To be held while a program is written and while any process is started: what is open for writing
/// somewhere cannot be executed, and a process that is just being started has, for a moment, open
/// whatever its parent had.
fn alone_with_programs() -> std::sync::MutexGuard<'static, ()> {
    static PROGRAMS: std::sync::Mutex<()> = std::sync::Mutex::new(());
    PROGRAMS.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

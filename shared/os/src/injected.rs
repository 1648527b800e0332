//! Faults that nobody can make a kernel have on demand: a sync that fails, a wall clock that jumps.
//!
//! Nothing of this is in the product. With the feature `faults`, which only tests switch on, the
//! environment may name a file, and each line of it is a fault:
//!
//! ```text
//! <number> sync <n> <part>     in each process, the n-th sync of a path that contains the part fails
//! <number> stop <n> <part>     at that sync, before it, the process stops itself
//!                              (or, after a `=`, that is this)
//! <number> clock <seconds>     the wall clock is so far ahead; the last such line counts
//! ```
//!
//! The file is read anew each time. A sync that fails fails as on Linux: what was written since the last
//! one is lost, here at once, and the next sync succeeds.

#[cfg(feature = "faults")]
pub use made::environment;
#[cfg(feature = "faults")]
pub(crate) use made::{clock, foreign_sync, sync};
#[cfg(not(feature = "faults"))]
pub use none::environment;
#[cfg(not(feature = "faults"))]
pub(crate) use none::{clock, foreign_sync, sync};

#[cfg(not(feature = "faults"))]
mod none {
    use std::ffi::OsString;
    use std::fs::File;
    use std::io;
    use std::path::Path;

    /// What a worker's environment has to hold for the faults of this one to be its own: nothing.
    #[inline]
    pub fn environment() -> Option<(&'static str, OsString)> {
        None
    }

    #[inline]
    pub(crate) fn sync(_: &File, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        act()
    }

    #[inline]
    pub(crate) fn foreign_sync(_: &Path) -> io::Result<()> {
        Ok(())
    }

    #[inline]
    pub(crate) fn clock() -> i64 {
        0
    }
}

#[cfg(feature = "faults")]
mod made {
    use std::collections::HashMap;
    use std::ffi::OsString;
    use std::fs::{self, File};
    use std::io;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;
    use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

    use nix::errno::Errno;
    use nix::sys::signal::{Signal, raise};

    const NAME: &str = "BUMPLESS_INJECTED";

    static FILE: LazyLock<Option<OsString>> = LazyLock::new(|| std::env::var_os(NAME));

    static SEEN: LazyLock<Mutex<Seen>> = LazyLock::new(Mutex::default);

    #[derive(Default)]
    struct Seen {
        /// Syncs so far, by the line that they match.
        counts: HashMap<String, u64>,
        /// Lengths of files when they were last synced, by device and number.
        synced: HashMap<(u64, u64), u64>,
    }

    fn seen() -> MutexGuard<'static, Seen> {
        SEEN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a worker's environment has to hold for the faults of this one to be its own.
    pub fn environment() -> Option<(&'static str, OsString)> {
        FILE.clone().map(|file| (NAME, file))
    }

    fn lines() -> Option<Vec<String>> {
        let text = fs::read_to_string(FILE.as_ref()?).unwrap_or_default();
        Some(text.lines().map(str::to_owned).collect())
    }

    pub(crate) fn sync(file: &File, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match lines() {
            Some(lines) => sync_with(&lines, file, act),
            None => act(),
        }
    }

    fn sync_with(lines: &[String], file: &File, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        let metadata = file.metadata()?;
        let id = (metadata.dev(), metadata.ino());
        if due(lines, &path) != Some(Due::Fails) {
            act()?;
            seen().synced.insert(id, metadata.len());
            return Ok(());
        }
        let synced = seen().synced.get(&id).copied();
        if let Some(length) = synced.filter(|length| metadata.is_file() && *length < metadata.len()) {
            file.set_len(length)?;
        }
        Err(failure(&path))
    }

    pub(crate) fn foreign_sync(path: &Path) -> io::Result<()> {
        match lines() {
            Some(lines) if due(&lines, path) == Some(Due::Fails) => Err(failure(path)),
            Some(_) | None => Ok(()),
        }
    }

    /// What becomes of a sync.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Due {
        Fails,
        Stopped,
    }

    /// Counts a sync of this path, and stops here if that is due.
    fn due(lines: &[String], path: &Path) -> Option<Due> {
        let due = count(lines, path);
        if due == Some(Due::Stopped) {
            crate::say(format_args!("injected: stopped before the sync of {}", path.display()));
            // A process may always stop itself.
            let _ = raise(Signal::SIGSTOP);
        }
        due
    }

    fn count(lines: &[String], path: &Path) -> Option<Due> {
        let path = path.to_string_lossy();
        let mut due = None;
        for line in lines {
            let mut words = line.splitn(4, ' ').skip(1);
            let kind = match words.next() {
                Some("sync") => Due::Fails,
                Some("stop") => Due::Stopped,
                Some(_) | None => continue,
            };
            let (Some(nth), Some(part)) = (words.next(), words.next()) else { continue };
            let matches = part.strip_prefix('=').map_or_else(|| path.contains(part), |whole| path == whole);
            if matches {
                let mut seen = seen();
                let count = seen.counts.entry(line.clone()).or_default();
                *count += 1;
                if nth.parse() == Ok(*count) {
                    due = Some(kind);
                }
            }
        }
        due
    }

    fn failure(path: &Path) -> io::Error {
        crate::say(format_args!("injected: the sync of {} fails", path.display()));
        io::Error::from(Errno::EIO)
    }

    pub(crate) fn clock() -> i64 {
        let lines = lines().unwrap_or_default();
        let mut steps = lines.iter().rev().filter_map(|line| line.split_once(" clock ")?.1.parse().ok());
        steps.next().unwrap_or(0)
    }

    #[cfg(test)]
    mod tests {
        #![allow(clippy::unwrap_used)]
        use super::*;
        use std::io::Write;

        #[test]
        fn the_nth_sync_of_a_path_fails_and_the_others_do_not() {
            let lines =
                ["0 sync 2 log/5".to_owned(), "1 clock 9".to_owned(), "2 stop 1 the journal".to_owned()];
            let due = |path: &str| count(&lines, Path::new(path));
            assert_eq!(
                [due("/x/log/4/1"), due("/x/log/5/1"), due("/x/log/5/2"), due("/x/log/5/2")],
                [None, None, Some(Due::Fails), None]
            );
            assert_eq!(due("/x/the journal"), Some(Due::Stopped));
        }

        #[test]
        fn what_a_failed_sync_was_to_make_durable_is_lost_and_the_next_one_succeeds() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log");
            let mut file = File::create(&path).unwrap();
            let lines = [format!("0 sync 2 {}", path.display())];
            for (bytes, succeeds, left) in
                [(b"one", true, "one"), (b"two", false, "one"), (b"six", true, "one\0\0\0six")]
            {
                file.write_all(bytes).unwrap();
                let synced = sync_with(&lines, &file, || file.sync_data());
                assert_eq!(
                    synced.map_err(|error| error.raw_os_error()),
                    match succeeds {
                        true => Ok(()),
                        false => Err(Some(Errno::EIO as i32)),
                    }
                );
                assert_eq!(fs::read_to_string(&path).unwrap(), left);
            }
        }
    }
}

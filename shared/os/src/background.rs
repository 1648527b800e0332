//! Work that can wait: threads that give way to everything else on the machine.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::raw;

/// Does this on a thread of its own that runs only where no other thread wants to. The receiver has the
/// result; it is closed if the work panicked.
///
/// # Errors
/// The system makes no more threads.
pub fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<oneshot::Receiver<T>> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Where the system does not let it, it competes, and all is as right as before.
        let _ = raw::schedule_idle();
        // Nobody may be waiting any more.
        let _ = sender.send(work());
    })?;
    Ok(receiver)
}

/// Has the system begin to write what is not yet on the disk of a file, without waiting for it. Whoever
/// syncs much at once makes everybody else who syncs wait; written bit by bit, it is little.
///
/// # Errors
/// The file cannot be opened, or the system does not do that.
pub fn write_behind(path: &Path) -> io::Result<()> {
    raw::start_writeback(File::open(path)?.as_fd())
}

/// Keeps long work on a processor below its full use: where every processor is busy all the time, even
/// what has the right of way is held up now and then.
#[derive(Debug)]
pub struct Pace {
    begun: Instant,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { begun: Instant::now() }
    }
}

impl Pace {
    /// Works so long at a stretch, and then rests twice as long.
    const STRETCH: Duration = Duration::from_millis(2);

    /// To be called often. Rests where it is time to; never longer for having been held up by others,
    /// which was a rest already.
    pub fn rest(&mut self) {
        if self.begun.elapsed() >= Pace::STRETCH {
            std::thread::sleep(2 * Pace::STRETCH);
            self.begun = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn the_work_is_done_on_a_thread_that_gives_way_and_this_one_stays_as_it_was() {
        let policy = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            // The 41st field of proc(5); the second may hold spaces and ends with a parenthesis.
            let fields = stat.rsplit(") ").next().unwrap().to_owned();
            fields.split(' ').nth(38).unwrap().to_owned()
        };
        let theirs = spawn("test", policy).unwrap().await.unwrap();
        assert_eq!((theirs.as_str(), policy().as_str()), ("5", "0"), "SCHED_IDLE and SCHED_OTHER");
    }

    #[test]
    fn who_was_held_up_for_long_does_not_rest_for_long() {
        let held_up = Duration::from_millis(300);
        let mut pace = Pace { begun: Instant::now() - held_up };
        let begun = Instant::now();
        pace.rest();
        assert!((2 * Pace::STRETCH..held_up).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    }

    #[test]
    fn what_was_written_behind_is_as_it_was_and_a_file_that_is_not_there_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [7; 100_000]).unwrap();
        write_behind(file.path()).unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), [7; 100_000]);
        assert!(write_behind(&file.path().with_extension("not there")).is_err());
    }
}

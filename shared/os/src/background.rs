//! Work that can wait: threads that give way to everything else on the machine.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
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
    used: Option<Used>,
}

impl Default for Pace {
    /// For the thread that makes it.
    fn default() -> Pace {
        Pace { begun: Instant::now(), used: Used::so_far() }
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

    /// The same, but rests only after a stretch in which others wanted the processor again and again, as
    /// those do who serve: with the machine to itself, or beside other long work, it goes on at full speed.
    pub fn give_way(&mut self) {
        if self.begun.elapsed() < Pace::STRETCH {
            return;
        }
        let used = Used::so_far();
        if let (Some(before), Some(now)) = (self.used, used) {
            let (ran, held_up) =
                (now.ran.saturating_sub(before.ran), now.held_up.saturating_sub(before.held_up));
            if ran < Pace::STRETCH {
                // It waited for something else than a processor.
                self.begun = Instant::now();
                return;
            }
            if u128::from(held_up) >= ran.as_millis() {
                std::thread::sleep(2 * Pace::STRETCH);
            }
        }
        self.begun = Instant::now();
        self.used = used;
    }
}

/// What a thread had of the processors so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Used {
    ran: Duration,
    /// So many times another one took its processor away.
    held_up: u64,
}

impl Used {
    /// Of this thread, if the system tells.
    fn so_far() -> Option<Used> {
        let usage = getrusage(UsageWho::RUSAGE_THREAD).ok()?;
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        let held_up = u64::try_from(usage.involuntary_context_switches()).ok()?;
        Some(Used { ran: Duration::from_micros(u64::try_from(micros).ok()?), held_up })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

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
        let mut pace = Pace { begun: Instant::now() - held_up, used: None };
        let begun = Instant::now();
        pace.rest();
        assert!((2 * Pace::STRETCH..held_up).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    }

    /// Rests that work takes which gives way, in 60 ms of its own, beside so many who are woken up all the
    /// time and do a little.
    async fn rests(beside: usize) -> u32 {
        let done = Arc::new(AtomicBool::new(false));
        for _ in 0..beside {
            let done = done.clone();
            std::thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_micros(100));
                    let begun = Instant::now();
                    while begun.elapsed() < Duration::from_micros(50) {
                        std::hint::spin_loop();
                    }
                }
            });
        }
        let working = spawn("test", || {
            let (mut pace, mut rests) = (Pace::default(), 0);
            let begun = Used::so_far().unwrap();
            while Used::so_far().unwrap().ran - begun.ran < 30 * Pace::STRETCH {
                let before = Instant::now();
                pace.give_way();
                rests += u32::from(before.elapsed() >= 2 * Pace::STRETCH);
            }
            rests
        });
        let rests = working.unwrap().await.unwrap();
        done.store(true, Ordering::Relaxed);
        rests
    }

    #[tokio::test]
    async fn it_gives_way_to_those_who_serve_and_to_nobody_else() {
        let processors = std::thread::available_parallelism().unwrap().get();
        let beside = rests(2 * processors).await;
        assert!(beside >= 10, "{beside} rests in 30 stretches");
        // Other tests want processors, too, at times.
        let mut alone = u32::MAX;
        for _ in 0..50 {
            alone = alone.min(rests(0).await);
        }
        assert!(alone < 5, "{alone} rests with nobody beside it");
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

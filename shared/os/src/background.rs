//! Work that can wait: threads that give way to everything else on the machine.

use std::io;

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
}

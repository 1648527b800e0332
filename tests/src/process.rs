//! What the system says about a process.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;

use nix::errno::Errno;

/// Resident memory, bytes.
///
/// # Errors
/// It has ended.
pub fn resident(pid: u32) -> io::Result<u64> {
    kilobytes(pid, "VmRSS:")
}

/// The most that its resident memory ever was, bytes.
///
/// # Errors
/// It has ended.
pub fn peak_resident(pid: u32) -> io::Result<u64> {
    kilobytes(pid, "VmHWM:")
}

/// How often each of its threads, by number, has gone to sleep so far, and so has been woken up.
///
/// # Errors
/// It has ended.
pub fn wake_ups(pid: u32) -> io::Result<BTreeMap<OsString, u64>> {
    let each = each_thread(pid, "status")?;
    each.into_iter()
        .map(|(thread, status)| Ok((thread, number(&status, "voluntary_ctxt_switches:")?)))
        .collect()
}

/// This file of each of its threads. One that ends between two looks is none of them.
fn each_thread(pid: u32, file: &str) -> io::Result<BTreeMap<OsString, String>> {
    let mut each = BTreeMap::new();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?;
        match std::fs::read_to_string(thread.path().join(file)) {
            Ok(text) => _ = each.insert(thread.file_name(), text),
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    || error.raw_os_error() == Some(Errno::ESRCH as i32) => {}
            Err(error) => return Err(error),
        }
    }
    if each.is_empty() { Err(Errno::ESRCH.into()) } else { Ok(each) }
}

/// How many wake-ups there were between two looks, as far as threads are there that do the counting: what
/// one that has ended did is not known, and that it ended is one more.
pub fn woken(before: &BTreeMap<OsString, u64>, after: &BTreeMap<OsString, u64>) -> u64 {
    let since =
        after.iter().map(|(thread, count)| count.saturating_sub(before.get(thread).copied().unwrap_or(0)));
    let ended = before.keys().filter(|thread| !after.contains_key(*thread)).count();
    since.sum::<u64>() + ended as u64
}

/// How many descriptors it has open.
///
/// # Errors
/// It has ended.
pub fn descriptors(pid: u32) -> io::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Whether all its threads are stopped. SIGSTOP does that some time after it was sent: one thread has to run
/// for it, and the others may go on until then.
///
/// # Errors
/// It has ended.
pub fn is_stopped(pid: u32) -> io::Result<bool> {
    // Behind the name, which may have anything in it.
    let stopped =
        |stat: &String| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'));
    Ok(each_thread(pid, "stat")?.values().all(stopped))
}

fn kilobytes(pid: u32, name: &str) -> io::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(number(&status, name)? * 1024)
}

fn number(status: &str, name: &str) -> io::Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .ok_or_else(|| io::Error::other(format!("no {name} it has ended")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_thread_that_has_ended_takes_no_wake_up_of_others_away() {
        let look =
            |threads: &[(&str, u64)]| threads.iter().map(|(name, count)| (name.into(), *count)).collect();
        let before = look(&[("1", 10), ("2", 500)]);
        assert_eq!(woken(&before, &look(&[("1", 13)])), 4);
        assert_eq!(woken(&before, &look(&[("1", 13), ("2", 501), ("3", 2)])), 6);
    }

    #[test]
    fn this_process_has_memory_and_descriptors_and_was_woken_up() {
        let pid = std::process::id();
        assert!(resident(pid).unwrap() > 1 << 20);
        assert!(peak_resident(pid).unwrap() >= resident(pid).unwrap() / 2);
        assert!(descriptors(pid).unwrap() >= 3);
        let before = wake_ups(pid).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(woken(&before, &wake_ups(pid).unwrap()) > 0);
        assert!(!is_stopped(pid).unwrap());
        assert!(resident(u32::MAX).is_err());
        assert!(wake_ups(u32::MAX).is_err());
    }

    #[test]
    fn threads_that_end_while_they_are_looked_at_are_no_error() {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::thread::spawn(|| ()).join().unwrap();
                }
            });
            let looks: Vec<_> = (0..2000).map(|_| wake_ups(std::process::id())).collect();
            over.store(true, Ordering::Relaxed);
            assert!(looks.into_iter().all(|look| look.is_ok_and(|each| each.len() >= 2)));
        });
    }
}

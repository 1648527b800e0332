//! What the system says about a process.

use std::io;

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

/// How often its threads have gone to sleep so far, and so have been woken up.
///
/// # Errors
/// It has ended.
pub fn wake_ups(pid: u32) -> io::Result<u64> {
    let mut sum = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = std::fs::read_to_string(thread?.path().join("status"))?;
        sum += number(&status, "voluntary_ctxt_switches:")?;
    }
    Ok(sum)
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
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = std::fs::read_to_string(thread?.path().join("stat"))?;
        // Behind the name, which may have anything in it.
        if !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T')) {
            return Ok(false);
        }
    }
    Ok(true)
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
    use super::*;

    #[test]
    fn this_process_has_memory_and_descriptors_and_was_woken_up() {
        let pid = std::process::id();
        assert!(resident(pid).unwrap() > 1 << 20);
        assert!(peak_resident(pid).unwrap() >= resident(pid).unwrap() / 2);
        assert!(descriptors(pid).unwrap() >= 3);
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(wake_ups(pid).unwrap() > 0);
        assert!(!is_stopped(pid).unwrap());
        assert!(resident(u32::MAX).is_err());
    }
}

//! The memory that this process holds.

use crate::raw;

/// What counts as large, bytes: glibc's own first choice, which it would raise to the largest buffer
/// that was ever freed.
const LARGE: i32 = 128 << 10;

/// From now on every large buffer goes back to the system when it is freed. Otherwise the allocator keeps
/// it for a next time, and a process that works hard once in weeks stays as large as it then was. To be
/// called before there are threads.
pub fn keep_nothing_large() {
    raw::always_map_above(LARGE);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_large_buffer_that_a_thread_frees_goes_back_to_the_system() {
        let resident = || {
            let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
            pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
        };
        keep_nothing_large();
        let work = move || {
            drop(vec![1u8; 24 << 20]);
            drop(vec![1u8; 24 << 20]);
            resident()
        };
        let before = resident();
        let after = std::thread::spawn(work).join().unwrap();
        if cfg!(target_env = "gnu") {
            assert!(after < before + (12 << 20), "{after} after {before}");
        }
    }
}

//! Waiting until somebody outside says go on.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Says that this point is reached, then waits. Where nobody holds the gate, nothing is waited for.
pub(super) async fn wait(gate: PathBuf) {
    match tokio::task::spawn_blocking(move || pass(&gate)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => eprintln!("bumpless-node: there was no gate to wait at: {error}"),
        // The process is ending.
        Err(_) => {}
    }
}

fn pass(gate: &Path) -> io::Result<()> {
    let at_once = OFlag::O_NONBLOCK.bits();
    let mut open = OpenOptions::new().read(true).custom_flags(at_once).open(gate.with_extension("open"))?;
    let mut reached =
        OpenOptions::new().write(true).custom_flags(at_once).open(gate.with_extension("reached"))?;
    reached.write_all(&[0])?;
    loop {
        match open.read(&mut [0]) {
            // A byte, or the end: whoever held the gate has gone.
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(open.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

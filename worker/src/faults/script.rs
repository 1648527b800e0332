//! A plan while it is carried out.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bumpless_shared::control::Report;
use nix::sys::socket::{MsgFlags, Shutdown, send, shutdown};
use tokio::sync::mpsc;

use super::lever::Lever;
use super::plan::{Deed, Does, Place, Planned, Role, Step, Wire};
use super::{Faults, die, gate, stop};

/// What is still to come. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Script(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    left: Mutex<Vec<Planned>>,
    sound: bool,
    settled: AtomicBool,
    bare: Mutex<Option<Bare>>,
    deeds: mpsc::UnboundedSender<Deed>,
    lever: Lever,
}

impl Script {
    /// Of a plan, and of what a harness wants. Deeds that need the whole worker come out of the receiver.
    pub fn new(faults: &Faults, lever: Lever) -> (Script, mpsc::UnboundedReceiver<Deed>) {
        let (deeds, receiver) = mpsc::unbounded_channel();
        let shared = Shared {
            left: Mutex::new(faults.at.clone()),
            sound: faults.at.is_empty() && !lever.is_there(),
            settled: AtomicBool::new(false),
            bare: Mutex::new(None),
            deeds,
            lever,
        };
        (Script(Arc::new(shared)), receiver)
    }

    /// Does at once what the harness wants done at no step in particular, for as long as there is one.
    pub async fn obey(self) {
        while let Some(deed) = self.0.lever.wanted().await {
            if let Some(deed) = self.act(deed) {
                self.leave(deed);
            }
        }
    }

    /// The same as [`Script::reach`] for who is not the worker's loop.
    pub async fn pass(&self, step: Step, place: Place) {
        for deed in self.reach(step, place).await {
            self.leave(deed);
        }
    }

    /// From here on it is no candidate any more.
    pub fn settle(&self) {
        self.0.settled.store(true, Ordering::Relaxed);
    }

    /// There are wires to another worker. A sound worker keeps no second descriptors of them.
    pub fn wired(&self, link: BorrowedFd<'_>, stream: BorrowedFd<'_>) {
        if !self.0.sound {
            *self.bare() = Bare::of(link, stream).ok();
        }
    }

    /// There are none any more.
    pub fn unwired(&self) {
        *self.bare() = None;
    }

    /// Ends both connections to the other worker, for both sides; the processes live.
    pub fn close_link(&self) {
        if let Some(Err(error)) = self.bare().as_ref().map(Bare::close) {
            eprintln!("bumpless-node: the link was not closed: {error}");
        }
    }

    fn bare(&self) -> MutexGuard<'_, Option<Bare>> {
        self.0.bare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits here, stops here or ends here if that is planned; what else is planned and can only be done by
    /// the worker is returned. Every step comes through here.
    pub async fn reach(&self, step: Step, place: Place) -> Vec<Deed> {
        let mut deeds = Vec::new();
        self.0.lever.at(step, place).await;
        for does in self.due(step, place) {
            eprintln!("bumpless-node: this release was made to do this {place:?} {step:?}: {does:?}");
            match does {
                Does::Pause(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
                Does::Wait(path) => gate::wait(path).await,
                Does::Do(deed) => deeds.extend(self.act(deed)),
                Does::Later(ms, deed) => self.later(Duration::from_millis(ms), deed),
            }
        }
        deeds
    }

    /// A report is about to go to the supervisor.
    pub async fn before_report(&self, report: &Report) {
        let Some(step) = Step::of_report(report) else { return };
        self.pass(step, Place::After).await;
        if step == Step::Commit {
            self.settle();
        }
    }

    /// Leaves a deed to the worker.
    fn leave(&self, deed: Deed) {
        // The worker ends with the process.
        let _ = self.0.deeds.send(deed);
    }

    fn due(&self, step: Step, place: Place) -> Vec<Does> {
        if self.0.sound {
            return Vec::new();
        }
        let mut left = self.0.left.lock().unwrap_or_else(PoisonError::into_inner);
        let settled = self.0.settled.load(Ordering::Relaxed);
        let role_fits = |role| match role {
            Role::Any => true,
            Role::New => !settled,
            Role::Old => settled,
        };
        let due = left.extract_if(.., |planned| {
            planned.step == step && planned.place == place && role_fits(planned.role)
        });
        due.map(|planned| planned.does).collect()
    }

    fn later(&self, after: Duration, deed: Deed) {
        let script = self.clone();
        // A thread of its own: a fault is not delayed by what the runtime is busy with.
        std::thread::spawn(move || {
            std::thread::sleep(after);
            if let Some(deed) = script.act(deed) {
                script.leave(deed);
            }
        });
    }

    /// Does what needs no more than the process and its sockets; returns what does.
    fn act(&self, deed: Deed) -> Option<Deed> {
        let failed = |result: Option<io::Result<()>>| {
            if let Some(Err(error)) = result {
                eprintln!("bumpless-node: {deed:?} did not succeed: {error}");
            }
        };
        match deed {
            Deed::Stop => stop(),
            Deed::Exit => die("this release was made to end here"),
            Deed::CloseLink => self.close_link(),
            Deed::Garbage(Wire::Link) => failed(self.bare().as_ref().map(Bare::garbage_on_link)),
            Deed::Garbage(Wire::Stream) => failed(self.bare().as_ref().map(Bare::garbage_on_stream)),
            Deed::Garbage(Wire::Control) | Deed::Harm(..) | Deed::Flood(_) => return Some(deed),
        }
        None
    }
}

/// Second descriptors of the sockets to the other worker, to do with them what no sound worker does.
#[derive(Debug)]
struct Bare {
    link: OwnedFd,
    stream: OwnedFd,
}

impl Bare {
    fn of(link: BorrowedFd<'_>, stream: BorrowedFd<'_>) -> io::Result<Bare> {
        Ok(Bare { link: link.try_clone_to_owned()?, stream: stream.try_clone_to_owned()? })
    }

    fn close(&self) -> io::Result<()> {
        shutdown(self.link.as_raw_fd(), Shutdown::Both)?;
        Ok(shutdown(self.stream.as_raw_fd(), Shutdown::Both)?)
    }

    fn garbage_on_link(&self) -> io::Result<()> {
        Ok(send(self.link.as_raw_fd(), GARBAGE, MsgFlags::MSG_NOSIGNAL).map(drop)?)
    }

    fn garbage_on_stream(&self) -> io::Result<()> {
        Ok(send(self.stream.as_raw_fd(), GARBAGE, MsgFlags::MSG_NOSIGNAL).map(drop)?)
    }
}

/// Neither a frame nor the beginning of one.
pub const GARBAGE: &[u8] = b"this is no frame of any version";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::faults::{Files, Flood, Harm};

    #[tokio::test]
    async fn what_is_planned_happens_once_at_its_place_and_in_its_role() {
        let harm = Deed::Harm(Files::Chunks, Harm::Delete);
        let plan = Faults::default().at(Step::Mark, Place::After, Does::Do(harm)).at_as(
            Role::Old,
            Step::Mark,
            Place::After,
            Does::Do(Deed::Flood(Flood::Notes)),
        );
        let (script, _deeds) = Script::new(&plan, Lever::default());
        assert_eq!(script.reach(Step::Mark, Place::Before).await, []);
        assert_eq!(script.reach(Step::Persist, Place::After).await, []);
        assert_eq!(script.reach(Step::Mark, Place::After).await, [harm]);
        assert_eq!(script.reach(Step::Mark, Place::After).await, []);
        script.settle();
        assert_eq!(script.reach(Step::Mark, Place::After).await, [Deed::Flood(Flood::Notes)]);
    }

    #[tokio::test]
    async fn what_is_planned_for_later_does_not_hold_the_step_up() {
        let plan = Faults::default().at(Step::Take, Place::Before, Does::Later(1, Deed::Flood(Flood::Notes)));
        let (script, mut deeds) = Script::new(&plan, Lever::default());
        assert_eq!(script.reach(Step::Take, Place::Before).await, []);
        assert_eq!(deeds.recv().await, Some(Deed::Flood(Flood::Notes)));
    }
}

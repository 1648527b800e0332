//! The harness's end of the workers' levers ([`bumpless_worker::faults::lever`]): holds any worker of a world at
//! any step, knows which of them live, and makes them do what no sound worker does.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bumpless_shared::release::Version;
use bumpless_worker::faults::Deed;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// All levers of one world.
#[derive(Debug)]
pub struct Levers {
    path: PathBuf,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

/// A worker that is connected, and so lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// What it runs.
    pub release: Version,
    /// Its process.
    pub pid: i32,
    /// Where it is held, if it is.
    pub at: Option<String>,
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    /// Counts changes of who is there and who is held.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Where which release is to be held.
    holds: HashMap<Version, Vec<(String, u32)>>,
    workers: Vec<(Connected, mpsc::UnboundedSender<String>)>,
}

impl Levers {
    /// Listens at this path; what is stamped with it connects.
    ///
    /// # Errors
    /// Those of binding.
    pub fn listen(path: &Path) -> io::Result<Levers> {
        let listener = UnixListener::bind(path)?;
        let shared = Arc::new(Shared { inner: Mutex::default(), changes: watch::Sender::new(0) });
        let serving = shared.clone();
        let listening = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(serving.clone(), stream));
            }
        });
        Ok(Levers { path: path.to_owned(), shared, listening })
    }

    /// The socket's path, for stamps.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every worker that runs this release stops at this point when it comes there the n-th time from now on,
    /// and each time after it.
    pub fn hold(&self, release: &Version, point: &str, nth: u32) {
        let mut inner = self.shared.lock();
        inner.holds.entry(release.clone()).or_default().push((point.to_owned(), nth));
        for (_, say) in inner.workers.iter().filter(|(worker, _)| worker.release == *release) {
            // One that has ended is about to be forgotten.
            let _ = say.send(format!("hold {nth} {point}\n"));
        }
    }

    /// From now on nobody stops anywhere, and who is held goes on.
    pub fn free(&self) {
        let mut inner = self.shared.lock();
        inner.holds.clear();
        for (worker, say) in &mut inner.workers {
            worker.at = None;
            let _ = say.send("free\n".to_owned());
        }
    }

    /// Every worker that runs this release does this.
    pub fn make(&self, release: &Version, deed: Deed) {
        // A deed is a word, or an object with words.
        let deed = serde_json::to_string(&deed).unwrap_or_default();
        for (worker, say) in &self.shared.lock().workers {
            if worker.release == *release {
                let _ = say.send(format!("do {deed}\n"));
            }
        }
    }

    /// Who lives.
    pub fn connected(&self) -> Vec<Connected> {
        self.shared.lock().workers.iter().map(|(worker, _)| worker.clone()).collect()
    }

    /// Waits until a worker is as wanted.
    pub async fn until(&self, wanted: impl Fn(&Connected) -> bool) -> Connected {
        let mut changes = self.shared.changes.subscribe();
        loop {
            changes.borrow_and_update();
            if let Some(found) = self.connected().into_iter().find(&wanted) {
                return found;
            }
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

impl Drop for Levers {
    fn drop(&mut self) {
        self.listening.abort();
        self.free();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

async fn serve(shared: Arc<Shared>, stream: UnixStream) {
    let (hear, mut out) = stream.into_split();
    let mut lines = BufReader::new(hear).lines();
    let Ok(Some(hello)) = lines.next_line().await else { return };
    let Some((release, pid)) = parse_hello(&hello) else { return };
    let (say, mut said) = mpsc::unbounded_channel::<String>();
    {
        let mut inner = shared.lock();
        for (point, nth) in inner.holds.get(&release).into_iter().flatten() {
            let _ = say.send(format!("hold {nth} {point}\n"));
        }
        let _ = say.send("go\n".to_owned());
        inner.workers.push((Connected { release, pid, at: None }, say));
    }
    shared.changed();
    loop {
        tokio::select! {
            Some(line) = said.recv() => {
                // Its end is seen below.
                let _ = out.write_all(line.as_bytes()).await;
            }
            line = lines.next_line() => {
                let Ok(Some(line)) = line else { break };
                let Some(point) = line.strip_prefix("at ") else { continue };
                let mut inner = shared.lock();
                let wanted = inner.holds.values().flatten().any(|(held, _)| held == point);
                if let Some((worker, say)) = inner.workers.iter_mut().find(|(worker, _)| worker.pid == pid) {
                    match wanted {
                        true => worker.at = Some(point.to_owned()),
                        // It was let go while it said so.
                        false => drop(say.send("free\n".to_owned())),
                    }
                }
                drop(inner);
                shared.changed();
            }
        }
    }
    shared.lock().workers.retain(|(worker, _)| worker.pid != pid);
    shared.changed();
}

fn parse_hello(line: &str) -> Option<(Version, i32)> {
    let (release, pid) = line.strip_prefix("hello ")?.split_once(' ')?;
    Some((release.parse().ok()?, pid.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bumpless_worker::faults::lever::Lever;
    use bumpless_worker::faults::{Place, Step};

    #[tokio::test]
    async fn a_worker_is_held_where_it_is_told_to_and_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let levers = Levers::listen(&folder.path().join("lever")).unwrap();
        let release: Version = "1.0.0".parse().unwrap();
        levers.hold(&release, "Take Before", 1);
        let lever = Lever::grasp(Some(levers.path()), &release).await;
        levers.until(|worker| worker.pid == std::process::id() as i32).await;
        lever.at(Step::Take, Place::After).await;
        let held = tokio::spawn({
            let lever = lever.clone();
            async move { lever.at(Step::Take, Place::Before).await }
        });
        levers.until(|worker| worker.at.as_deref() == Some("Take Before")).await;
        assert!(!held.is_finished());
        levers.free();
        held.await.unwrap();
        lever.at(Step::Take, Place::Before).await;
        levers.make(&release, Deed::CloseLink);
        assert_eq!(lever.wanted().await, Some(Deed::CloseLink));
    }
}

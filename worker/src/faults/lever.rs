//! A harness outside that holds a worker at any step for as long as it likes, and makes it do what a plan
//! could (`plan`), as often as it likes and at any moment.
//!
//! A release that is stamped with a lever's socket connects there when it starts. Others have none and
//! pass every step without a look. One line each way:
//!
//! ```text
//!   worker   hello RELEASE PID      once, first; it waits for `go`
//!   harness  go                     it goes on
//!   harness  hold N STEP PLACE      it stops there at the N-th time from now on, and each time after it
//!   worker   at STEP PLACE          it stands there
//!   harness  free                   from now on it stops nowhere, and goes on where it stands
//!   harness  do DEED                at once, as JSON
//! ```
//!
//! A harness that goes away lets go of everything.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bumpless_shared::release::Version;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};

use super::plan::{Deed, Place, Step};

/// The worker's end. Cheap to clone; the default has nobody at the other end.
#[derive(Clone, Debug, Default)]
pub struct Lever(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    /// Where it stops, and the how manieth time.
    held: Mutex<HashMap<String, u32>>,
    /// Counts how often it was let go.
    freed: watch::Sender<u64>,
    deeds: tokio::sync::Mutex<mpsc::UnboundedReceiver<Deed>>,
    say: tokio::sync::Mutex<OwnedWriteHalf>,
}

impl Lever {
    /// Connects and waits until it may go on. Where nobody listens there is no lever.
    pub async fn grasp(path: Option<&Path>, release: &Version) -> Lever {
        let Some(path) = path else { return Lever::default() };
        let Ok(stream) = UnixStream::connect(path).await else { return Lever::default() };
        let (hear, say) = stream.into_split();
        let (wanted, deeds) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            held: Mutex::default(),
            freed: watch::Sender::new(0),
            deeds: tokio::sync::Mutex::new(deeds),
            say: tokio::sync::Mutex::new(say),
        });
        let mut freed = shared.freed.subscribe();
        tokio::spawn(shared.clone().obey(hear, wanted));
        shared.tell(&format!("hello {release} {}\n", std::process::id())).await;
        // The sender lives in what is returned.
        let _ = freed.changed().await;
        Lever(Some(shared))
    }

    /// Whether there is a harness, or was one.
    pub fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Stops here if that is wanted, until it may go on.
    pub async fn at(&self, step: Step, place: Place) {
        let Some(shared) = &self.0 else { return };
        let (mut freed, point) = (shared.freed.subscribe(), point(step, place));
        if shared.is_held(&point) {
            shared.tell(&format!("at {point}\n")).await;
            let _ = freed.changed().await;
        }
    }

    /// The next deed that is wanted at once; `None` where none can come any more.
    pub async fn wanted(&self) -> Option<Deed> {
        self.0.as_ref()?.deeds.lock().await.recv().await
    }
}

/// How a point is called.
pub fn point(step: Step, place: Place) -> String {
    format!("{step:?} {place:?}")
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_held(&self, point: &str) -> bool {
        match self.held().get_mut(point) {
            Some(0 | 1) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    fn hold(&self, at: &str) {
        match at.split_once(' ').map(|(nth, point)| (nth.parse(), point)) {
            Some((Ok(nth), point)) => drop(self.held().insert(point.to_owned(), nth)),
            Some((Err(_), _)) | None => eprintln!("bumpless-node: the harness holds at no point: {at:?}"),
        }
    }

    fn free(&self) {
        self.held().clear();
        self.freed.send_modify(|count| *count += 1);
    }

    async fn tell(&self, line: &str) {
        // A harness that is gone is seen by whoever reads.
        let _ = self.say.lock().await.write_all(line.as_bytes()).await;
    }

    async fn obey(self: Arc<Self>, hear: OwnedReadHalf, wanted: mpsc::UnboundedSender<Deed>) {
        let mut lines = BufReader::new(hear).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            match line.split_once(' ') {
                Some(("hold", at)) => self.hold(at),
                Some(("do", deed)) => match serde_json::from_str(deed) {
                    // Nobody takes it any more where the worker is ending.
                    Ok(deed) => drop(wanted.send(deed)),
                    Err(error) => eprintln!("bumpless-node: the harness wants what is no deed: {error}"),
                },
                None if line == "go" => self.freed.send_modify(|count| *count += 1),
                None if line == "free" => self.free(),
                Some(_) | None => eprintln!("bumpless-node: the harness says what is unknown: {line:?}"),
            }
        }
        self.free();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use tokio::net::UnixListener;

    #[tokio::test]
    async fn a_worker_stops_where_it_is_held_until_it_may_go_on_and_does_what_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lever");
        let release: Version = "1.0.0".parse().unwrap();
        let none = Lever::grasp(Some(&path), &release).await;
        none.at(Step::Take, Place::Before).await;
        assert!(!none.is_there() && none.wanted().await.is_none());

        let listener = UnixListener::bind(&path).unwrap();
        let grasping = tokio::spawn(async move { Lever::grasp(Some(&path), &release).await });
        let (stream, _) = listener.accept().await.unwrap();
        let (hear, mut say) = stream.into_split();
        let mut lines = BufReader::new(hear).lines();
        let hello = lines.next_line().await.unwrap().unwrap();
        assert_eq!(hello, format!("hello 1.0.0 {}", std::process::id()));
        say.write_all(b"hold 2 Take Before\ndo \"close_link\"\ngo\n").await.unwrap();
        let lever = grasping.await.unwrap();
        assert_eq!(lever.wanted().await, Some(Deed::CloseLink));

        let stands = || {
            let lever = lever.clone();
            tokio::spawn(async move { lever.at(Step::Take, Place::Before).await })
        };
        lever.at(Step::Take, Place::After).await;
        lever.at(Step::Take, Place::Before).await;
        let held = stands();
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "at Take Before");
        assert!(!held.is_finished());
        say.write_all(b"free\n").await.unwrap();
        held.await.unwrap();
        stands().await.unwrap();

        say.write_all(b"hold 1 Take Before\n").await.unwrap();
        while !lever.0.as_ref().unwrap().held().contains_key("Take Before") {
            tokio::task::yield_now().await;
        }
        let held = stands();
        lines.next_line().await.unwrap().unwrap();
        drop((lines, say));
        held.await.unwrap();
    }
}

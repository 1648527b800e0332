//! A worker as the supervisor holds it: a pidfd, a control channel served by a task of its own, and
//! what it said last.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use bumpless_os::channel::{Channel, Packet};
use bumpless_os::process::{Ending, Process};
use bumpless_shared::control::{Command, Heartbeat, Incarnation, Instance, Order, Report};
use bumpless_shared::frame::{self, PACKET_LIMIT};
use bumpless_shared::version::SPOKEN;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::launch::Output;
use crate::upgrade::Worker;

/// What a worker's task tells the driver.
#[derive(Debug)]
pub enum News {
    /// Both greeted; this version is spoken.
    Greeted(Instance, u16),
    /// No version in common, or no greeting that could be read.
    NotGreeted(Instance, String),
    /// It reported.
    Report(Instance, Report),
    /// It closed the channel, or does not take orders any more; it lives.
    Closed(Instance, String),
    /// It sent what no sound worker sends, and is not heard any more; it lives.
    Broke(Instance, String),
    /// It has ended; how.
    Ended(Instance, Ending),
}

/// A worker that lives, or whose death has not been taken in yet.
#[derive(Debug)]
pub struct Handle {
    /// For decisions.
    pub worker: Worker,
    /// Its process number, for people.
    pub pid: i32,
    /// Unix time of its start, or of its return.
    pub since: u64,
    /// What it printed.
    pub output: Output,
    /// Last heartbeat, and when (unix).
    pub heartbeat: Option<(Heartbeat, u64)>,
    process: Process,
    expected: Cell<bool>,
    outbox: UnboundedSender<(Command, Vec<OwnedFd>)>,
}

impl Handle {
    /// Begins to serve its channel, on the current `LocalSet`. `greet` is `false` for a worker that has
    /// come back and was greeted already, in that version.
    pub fn new(
        worker: Worker,
        process: Process,
        pid: i32,
        since: u64,
        output: Output,
        link: Link,
        news: UnboundedSender<News>,
    ) -> std::io::Result<Handle> {
        let (outbox, inbox) = unbounded_channel();
        let watched = process.try_clone()?;
        tokio::task::spawn_local(serve(worker.instance, watched, link, inbox, news));
        Ok(Handle {
            worker,
            pid,
            since,
            output,
            heartbeat: None,
            process,
            expected: Cell::new(false),
            outbox,
        })
    }

    /// Sends an order; if the worker is gone, its death says so.
    pub fn tell(&self, command: Command, descriptors: Vec<OwnedFd>) {
        let _gone = self.outbox.send((command, descriptors));
    }

    /// It is about to be ended, or to end, at our word: its death is no news for an operator.
    pub fn expect_end(&self) {
        self.expected.set(true);
    }

    /// Whether that was so.
    pub fn end_was_expected(&self) -> bool {
        self.expected.get()
    }

    /// SIGKILL. Its death is told by the news.
    ///
    /// # Errors
    /// `EPERM`, which no retry mends.
    pub fn kill(&self) -> std::io::Result<()> {
        self.process.kill()
    }

    /// A pidfd for its peer.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn pidfd(&self) -> std::io::Result<OwnedFd> {
        self.process.as_fd().try_clone_to_owned()
    }
}

/// The channel of a worker, and who speaks on it.
#[derive(Debug)]
pub struct Link {
    /// The channel.
    pub channel: Channel,
    /// Ours.
    pub incarnation: Incarnation,
    /// The agreed version, if both have greeted already.
    pub version: Option<u16>,
}

/// How long a closed channel may wait for its process's death: the kernel closes a dying process's
/// descriptors a moment before its pidfd becomes readable, and "it died" is the better news.
const DYING: Duration = Duration::from_millis(100);

async fn serve(
    instance: Instance,
    process: Process,
    link: Link,
    mut inbox: UnboundedReceiver<(Command, Vec<OwnedFd>)>,
    news: UnboundedSender<News>,
) {
    let unheard = match talk(instance, &link, &mut inbox, &news).await {
        TalkEnd::Closed(why) => {
            if tokio::time::timeout(DYING, process.ended()).await.is_err() {
                let _ = news.send(News::Closed(instance, why));
            }
            drop(link);
            None
        }
        // That is the better news, however it ends. It is killed for it: if it found its channel closed before
        // that, it might end by itself, and that would be told instead.
        TalkEnd::Broke(why) => {
            let _ = news.send(News::Broke(instance, why));
            Some(link)
        }
    };
    let ended = process.ended().await;
    drop(unheard);
    if let Err(error) = ended {
        let _ = news.send(News::Closed(instance, format!("its pidfd cannot be watched: {error}")));
        return;
    }
    let ending = match process.reap() {
        Ok(Some(ending)) => ending,
        Ok(None) | Err(_) => Ending::Unknown,
    };
    let _ = news.send(News::Ended(instance, ending));
}

/// How a talk ended, in words.
enum TalkEnd {
    Closed(String),
    Broke(String),
}

/// Talks until the channel ends; says why it did.
async fn talk(
    instance: Instance,
    link: &Link,
    inbox: &mut UnboundedReceiver<(Command, Vec<OwnedFd>)>,
    news: &UnboundedSender<News>,
) -> TalkEnd {
    let version = match link.version {
        Some(version) => version,
        None => match greet(&link.channel).await {
            Ok(version) => {
                let _ = news.send(News::Greeted(instance, version));
                version
            }
            Err(Unmet::Closed) => {
                return TalkEnd::Closed("closed its control channel before it greeted".into());
            }
            Err(Unmet::Refused(why)) => {
                let _ = news.send(News::NotGreeted(instance, why.clone()));
                return TalkEnd::Closed(why);
            }
        },
    };
    let hear = async {
        let mut patience = Patience::new();
        loop {
            match link.channel.receive().await {
                Ok(Some(_)) if !patience.lasts() => {
                    return TalkEnd::Broke(format!("sent more than {BURST} reports without a pause"));
                }
                Ok(Some(Packet { bytes, .. })) => match frame::decode(&bytes, version, PACKET_LIMIT) {
                    Ok(report) => {
                        let _ = news.send(News::Report(instance, report));
                    }
                    Err(error) => return TalkEnd::Broke(format!("sent what is no report: {error}")),
                },
                Ok(None) => return TalkEnd::Closed("closed its control channel".to_owned()),
                Err(error) => return TalkEnd::Broke(format!("cannot be heard: {error}")),
            }
        }
    };
    let say = async {
        while let Some((command, descriptors)) = inbox.recv().await {
            let order = Order { incarnation: link.incarnation, command };
            let bytes = match frame::encode(&order, version, PACKET_LIMIT) {
                Ok(bytes) => bytes,
                Err(error) => return TalkEnd::Closed(format!("an order cannot be sent: {error}")),
            };
            let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
            if let Err(error) = link.channel.send(&bytes, &descriptors).await {
                // What it still has to say is worth hearing; the end of that tells the rest.
                eprintln!("bumplessd: an order to worker {instance} was not delivered: {error}");
                break;
            }
        }
        std::future::pending::<TalkEnd>().await
    };
    tokio::select! {
        end = hear => end,
        end = say => end,
    }
}

/// Reports that a worker may send at once. A sound one sends a few in a second.
const BURST: u32 = 2000;

/// How long it takes until one more may come. Heartbeats, the most frequent of all, are 50 ms apart at least.
const PAUSE: Duration = Duration::from_millis(2);

/// How much a worker may still say: one that says more would be all that its supervisor hears.
#[derive(Debug)]
struct Patience {
    left: u32,
    since: Instant,
}

impl Patience {
    fn new() -> Patience {
        Patience { left: BURST, since: Instant::now() }
    }

    /// One more was said.
    fn lasts(&mut self) -> bool {
        let pauses = self.since.elapsed().as_nanos() / PAUSE.as_nanos();
        if pauses > 0 {
            let gained = u32::try_from(pauses).unwrap_or(BURST);
            self.left = self.left.saturating_add(gained).min(BURST);
            self.since = Instant::now();
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

/// Why two did not come to speak.
#[derive(Debug)]
pub enum Unmet {
    /// The other end is closed.
    Closed,
    /// In words.
    Refused(String),
}

/// Greets and is greeted.
///
/// # Errors
/// See [`Unmet`].
pub async fn greet(channel: &Channel) -> Result<u16, Unmet> {
    if channel.send(&frame::greeting(SPOKEN), &[]).await.is_err() {
        return Err(Unmet::Closed);
    }
    let packet = match channel.receive().await {
        Ok(Some(packet)) => packet,
        Ok(None) | Err(_) => return Err(Unmet::Closed),
    };
    let theirs = frame::read_greeting(&packet.bytes).map_err(|error| Unmet::Refused(error.to_string()))?;
    SPOKEN.common(theirs).map_err(|_| {
        Unmet::Refused(format!("it speaks versions {theirs} of the contract, this supervisor {SPOKEN}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_never_pauses_is_heard_no_more_and_who_does_always_is() {
        let mut patience = Patience::new();
        let heard = (0..100 * BURST).take_while(|_| patience.lasts()).count();
        assert!((BURST as usize..100 * BURST as usize).contains(&heard), "{heard}");
        patience.since = Instant::now().checked_sub(2 * PAUSE).unwrap_or(patience.since);
        assert!(patience.lasts() && patience.lasts());
    }
}

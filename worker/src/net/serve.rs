//! Connections and requests: from the handshake to the answer.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bumpless_shared::version::Range;
use quinn::{Connection, Endpoint, RecvStream, SendStream, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep_until, timeout};

use super::figures::{Counters, count};
use crate::wire::{self, Answer, REQUEST_HEADER, Request, RequestHead, SIGNAL, Signal};

/// An answer on its way.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// What a node does with a request.
pub trait Handler: Send + Sync + 'static {
    /// Called once per request that arrived whole, on a task of its own. The answer is sent when the
    /// future ends; it is not dropped before, even if the client has gone.
    fn handle(&self, request: Request) -> Answering<'_>;
}

/// What one client, and all of them together, may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A connection on which nothing arrives for so long is over. Clients send something every half
    /// second.
    pub idle: Duration,
    /// Requests at a time on one connection.
    pub streams: u32,
    /// Bytes of request bodies held in memory at a time, over all connections; bodies of a record's
    /// size are not counted. Beyond it no further body is read.
    pub memory: u32,
    /// For a body once its header has come, and for a client to take its answer.
    pub transfer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            idle: Duration::from_secs(10),
            streams: 256,
            memory: 64 << 20,
            transfer: Duration::from_secs(30),
        }
    }
}

/// Bodies up to this size do not wait for the budget, so that small requests pass large ones.
const FREE: usize = 4096;

/// When connections are to be told to go, if they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Farewell {
    /// Each is told at a moment of its own before this one.
    pub until: Instant,
}

/// What all tasks of the node share.
pub struct Desk {
    handler: Arc<dyn Handler>,
    limits: Limits,
    spoken: Range,
    memory: Arc<Semaphore>,
    pub counters: Arc<Counters>,
    pub under_way: watch::Sender<usize>,
    pub farewell: watch::Sender<Option<Farewell>>,
    pub open: AtomicUsize,
    /// Connections that ended since the node started.
    pub ended: AtomicU64,
}

impl Desk {
    pub fn new(handler: Arc<dyn Handler>, limits: Limits, spoken: Range, counters: Arc<Counters>) -> Desk {
        Desk {
            handler,
            limits,
            spoken,
            memory: Arc::new(Semaphore::new(limits.memory as usize)),
            counters,
            under_way: watch::Sender::new(0),
            farewell: watch::Sender::new(None),
            open: AtomicUsize::new(0),
            ended: AtomicU64::new(0),
        }
    }

    /// Takes connections until the endpoint is closed.
    pub async fn accept(self: Arc<Self>, endpoint: Endpoint) {
        while let Some(incoming) = endpoint.accept().await {
            let desk = self.clone();
            tokio::spawn(async move {
                if let Ok(connection) = incoming.await {
                    desk.serve(connection).await;
                }
            });
        }
    }

    async fn serve(self: Arc<Self>, connection: Connection) {
        let _open = Open::new(&self);
        let mut farewell = pin!(self.say_farewell(&connection));
        let mut said = false;
        let (greeting, spoken) = (connection.clone(), self.spoken);
        tokio::spawn(async move { tell(&greeting, Signal::Hello(spoken)).await });
        loop {
            tokio::select! {
                stream = connection.accept_bi() => match stream {
                    Ok((send, receive)) => drop(tokio::spawn(self.clone().answer(send, receive))),
                    Err(_) => return,
                },
                stream = connection.accept_uni() => match stream {
                    Ok(stream) => drop(tokio::spawn(listen_to(connection.clone(), stream, spoken))),
                    Err(_) => return,
                },
                () = &mut farewell, if !said => said = true,
            }
        }
    }

    /// Ends when the client is told to go. A farewell that is taken back before is not said.
    async fn say_farewell(&self, connection: &Connection) {
        let mut orders = self.farewell.subscribe();
        loop {
            let Ok(order) = orders.wait_for(Option::is_some).await.map(|order| *order) else { return };
            let Some(Farewell { until }) = order else { continue };
            let left = until.saturating_duration_since(Instant::now());
            let moment = Instant::now() + left.mul_f64(rand::random());
            tokio::select! {
                () = sleep_until(moment.into()) => {}
                _ = orders.wait_for(|now| *now != order) => continue,
            }
            return tell(connection, Signal::Goaway).await;
        }
    }

    async fn answer(self: Arc<Self>, mut send: SendStream, mut receive: RecvStream) {
        match self.request(&mut receive).await {
            Arrived::Whole(request, held) => {
                let _under_way = UnderWay::new(&self.under_way);
                let begun = Instant::now();
                let answer = self.handler.handle(request).await;
                drop(held);
                self.counters.answered(begun.elapsed(), answer.is_failure());
                self.write(&mut send, &answer).await;
            }
            Arrived::Wrong(answer) => {
                count(&self.counters.rejected);
                // It may be stopped already, or at its end: then there is nothing left to stop.
                let _ = receive.stop(VarInt::from_u32(wire::STOP_UNREAD));
                self.write(&mut send, &answer).await;
            }
            Arrived::CutOff => count(&self.counters.rejected),
        }
    }

    /// A client that is gone or does not read loses its answer, and asks again.
    async fn write(&self, send: &mut SendStream, answer: &Answer) {
        if let Ok(Ok(())) = timeout(self.limits.transfer, send.write_all(&answer.encode())).await {
            // Fails only if the client has stopped the stream.
            let _ = send.finish();
        }
    }

    async fn request(&self, receive: &mut RecvStream) -> Arrived {
        let mut head = [0; REQUEST_HEADER];
        match timeout(self.limits.transfer, receive.read_exact(&mut head)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Arrived::CutOff,
        }
        let head = match RequestHead::decode(&head, self.spoken) {
            Ok(head) => head,
            Err(answer) => return Arrived::Wrong(answer),
        };
        let held = match head.length {
            ..=FREE => None,
            // The budget is at least one body, so that this ends; it fails only when it is closed.
            length => {
                self.memory.clone().acquire_many_owned((length as u32).min(self.limits.memory)).await.ok()
            }
        };
        let mut body = vec![0; head.length];
        let rest = async {
            receive.read_exact(&mut body).await.ok()?;
            receive.read_to_end(0).await.ok()
        };
        match timeout(self.limits.transfer, rest).await {
            Ok(Some(_)) => match head.with_body(body) {
                Ok(request) => Arrived::Whole(request, held),
                Err(answer) => Arrived::Wrong(answer),
            },
            Ok(None) | Err(_) => {
                let reason = format!("the body is not the {} bytes that were announced", head.length);
                Arrived::Wrong(Answer::Malformed { reason })
            }
        }
    }
}

enum Arrived {
    /// The request, and its share of the memory budget.
    Whole(Request, Option<OwnedSemaphorePermit>),
    Wrong(Answer),
    CutOff,
}

/// Sends one signal; a connection that cannot take it is ending.
async fn tell(connection: &Connection, signal: Signal) {
    if let Ok(mut stream) = connection.open_uni().await
        && stream.write_all(&signal.encode()).await.is_ok()
        && stream.finish().is_ok()
    {
        // Until the client has it: a stream that is dropped sooner is still sent, so this only
        // keeps the order of what follows.
        let _ = stream.stopped().await;
    }
}

/// Reads one signal of the client.
async fn listen_to(connection: Connection, mut stream: RecvStream, spoken: Range) {
    let Ok(bytes) = stream.read_to_end(SIGNAL).await else { return };
    match Signal::decode(&bytes) {
        Ok(Some(Signal::Hello(theirs))) => {
            if let Err(none) = spoken.common(theirs) {
                let text = format!(
                    "no common version of the client protocol: node {}, client {}",
                    none.ours, none.theirs
                );
                connection.close(VarInt::from_u32(wire::CLOSE_NO_COMMON_VERSION), text.as_bytes());
            }
        }
        Ok(Some(Signal::Goaway) | None) | Err(_) => {}
    }
}

/// Counts a connection while it lives.
struct Open<'a>(&'a Desk);

impl<'a> Open<'a> {
    fn new(desk: &'a Desk) -> Self {
        desk.open.fetch_add(1, Ordering::AcqRel);
        Open(desk)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.ended.fetch_add(1, Ordering::AcqRel);
    }
}

/// Counts a request from its complete arrival until its answer is written.
struct UnderWay<'a>(&'a watch::Sender<usize>);

impl<'a> UnderWay<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        UnderWay(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

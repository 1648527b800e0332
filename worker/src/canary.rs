//! A frozen worker's own look at the holder: through the real socket, as a client, on a fresh connection
//! each time. What it gets is held against what it has itself.
//!
//! - No answer within the deadline: *silent*, reported at once; the client has tried more than once by then.
//! - The holder names an earlier term, or answers with an error: *failing*, reported after a few in a row.
//! - Content that is not what this worker has stored under the name: *wrong*, reported at once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bumpless_shared::control::{Suspicion, Term};
use bumpless_shared::digest::Digest;
use bumpless_shared::operation::Operation;
use tokio::time::MissedTickBehavior;

use crate::client::{Client, Options, RequestError, Target};
use crate::heartbeat::Vitals;
use crate::state::Sequencer;

/// Failures in a row that are reported: one may be chance, three are a pattern.
const FAILURES: u32 = 3;

/// Names that are asked for in turn.
const SAMPLE: usize = 64;

/// Whom to probe and how.
pub struct Canary {
    /// The node's addresses as configured.
    pub listen: Vec<SocketAddr>,
    /// The node's certificate.
    pub pin: Digest,
    /// The term that the holder must name; none but a later holder names a later one.
    pub term: Term,
    /// Between requests.
    pub every: Duration,
    /// For one request.
    pub within: Duration,
    /// What this worker has itself.
    pub state: Sequencer,
    /// Where results are counted.
    pub vitals: Arc<Vitals>,
}

/// What one probe found.
enum Finding {
    Right,
    Silent(String),
    Failing(String),
    Wrong(String),
}

impl Finding {
    fn of(asked: &str, error: &RequestError) -> Finding {
        let text = format!("{asked}: {error}");
        match error {
            RequestError::Unreachable { .. } | RequestError::Deadline { last: None, .. } => {
                Finding::Silent(text)
            }
            // The client itself holds content against its name and asks again; that is its last word.
            RequestError::Deadline { last: Some(last), .. } if last.contains("other content") => {
                Finding::Wrong(text)
            }
            RequestError::Deadline { .. }
            | RequestError::NoAddress
            | RequestError::Socket(_)
            | RequestError::Refused { .. }
            | RequestError::NotYet { .. }
            | RequestError::TooLarge { .. }
            | RequestError::WrongNode { .. }
            | RequestError::Protocol { .. } => Finding::Failing(text),
        }
    }
}

impl Canary {
    /// Probes until it is dropped; `suspect` is told what looks bad.
    pub async fn run(self, suspect: impl Fn(Suspicion, String)) {
        let sample = self.sample().await;
        let target =
            Target { addresses: self.listen.iter().copied().map(reachable).collect(), pin: self.pin };
        let options = Options { deadline: self.within, ..Options::default() };
        let client = match Client::lazy(target, options) {
            Ok(client) => client,
            Err(error) => {
                eprintln!("bumpless-node: no canary requests can be made: {error}");
                return;
            }
        };
        let mut clock = tokio::time::interval(self.every.max(Duration::from_millis(1)));
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failures = 0;
        for turn in 0_usize.. {
            clock.tick().await;
            let name = sample.get(turn % sample.len().max(1)).copied();
            match self.probe(&client.fresh(), name).await {
                Finding::Right => {
                    failures = 0;
                    self.vitals.canary_ok.fetch_add(1, Ordering::Relaxed);
                }
                Finding::Silent(reason) => {
                    self.vitals.canary_failed.fetch_add(1, Ordering::Relaxed);
                    suspect(Suspicion::Silent, format!("a canary request was not answered: {reason}"));
                }
                Finding::Failing(reason) => {
                    failures += 1;
                    self.vitals.canary_failed.fetch_add(1, Ordering::Relaxed);
                    if failures >= FAILURES {
                        suspect(
                            Suspicion::Failing,
                            format!("{failures} canary requests in a row failed: {reason}"),
                        );
                    }
                }
                Finding::Wrong(reason) => {
                    self.vitals.canary_failed.fetch_add(1, Ordering::Relaxed);
                    suspect(Suspicion::Wrong, reason);
                }
            }
        }
    }

    async fn probe(&self, client: &Client, name: Option<Digest>) -> Finding {
        match client.ping().await {
            // A later one: on the way back a request that waits out the hand-over is answered by this very
            // worker, before it has come to stop asking.
            Ok(pong) if pong.term >= self.term => {}
            Ok(pong) => return Finding::Failing(format!("it names term {}, not {}", pong.term, self.term)),
            Err(error) => return Finding::of("ping", &error),
        }
        let Some(name) = name else { return Finding::Right };
        let store = self.state.store().clone();
        let Ok(Ok(Some(own))) = tokio::task::spawn_blocking(move || store.get(name)).await else {
            return Finding::Right;
        };
        let short = name.short();
        match client.get(name).await {
            Ok(Some(content)) if content == own => Finding::Right,
            Ok(Some(_)) => {
                Finding::Wrong(format!("a canary's get of {short} was answered with other content"))
            }
            Ok(None) => Finding::Wrong(format!("a canary's get of {short}, which is stored, found nothing")),
            Err(error) => Finding::of(&format!("get of {short}"), &error),
        }
    }

    /// Some names that are stored here; names are hashes, so the first ones are as good as any.
    async fn sample(&self) -> Vec<Digest> {
        let Ok(snapshot) = self.state.snapshot().await else { return Vec::new() };
        let reading = tokio::task::spawn_blocking(move || {
            let names = snapshot.entries().flatten().filter_map(|entry| match entry {
                Operation::Store { name, .. } | Operation::Link { name, .. } => Some(name),
                Operation::Append { .. } | Operation::Mark { .. } => None,
            });
            names.take(SAMPLE).collect()
        });
        reading.await.unwrap_or_default()
    }
}

/// From this machine, a wildcard address is reached through loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_wildcard_address_is_reached_through_loopback() {
        for (configured, reached) in
            [("0.0.0.0:4433", "127.0.0.1:4433"), ("[::]:4433", "[::1]:4433"), ("10.1.2.3:1", "10.1.2.3:1")]
        {
            assert_eq!(reachable(configured.parse().unwrap()), reached.parse().unwrap());
        }
    }
}

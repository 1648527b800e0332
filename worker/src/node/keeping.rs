//! What follows a decision: durable, committed, tidied up, drained, stopped.

use std::time::Duration;

use bumpless_shared::control::{Generation, Report, Term, Trouble};

use super::Worker;
use crate::lifecycle::Event;
use crate::serve::Mode;

/// Of the time that a stop may take, this part waits for requests under way; the rest is for the disk.
const FINISHING: u32 = 2;

impl Worker {
    /// Makes everything applied durable. Runs beside.
    pub(super) fn persist(&self) {
        let Some(sequencer) = self.sequencer() else {
            let reason = "nothing was applied yet".to_owned();
            return self.reports.send(Report::Refused { order: "Persist".to_owned(), reason });
        };
        let reports = self.reports.clone();
        tokio::spawn(async move {
            reports.send(match sequencer.persist().await {
                Ok(position) => Report::Persisted { sequence: position.sequence },
                Err(error) => {
                    let text = format!("the database cannot be made durable: {error}");
                    Report::Trouble { kind: Trouble::Poisoned, text }
                }
            });
        });
    }

    /// Ends the logbook; from here on the database is the durable copy.
    pub(super) async fn commit(&mut self, term: Term) -> Option<Event> {
        match self.sequencer()?.end_logbook().await {
            Ok(_) => Some(Event::Committed { term }),
            Err(error) => {
                let text =
                    format!("the logbook of term {term} cannot be ended, it stays the durable copy: {error}");
                self.trouble(Trouble::Poisoned, text);
                None
            }
        }
    }

    /// Removes what is not needed any more, after what it held is durable here. Runs beside.
    pub(super) fn remove(&self, logs: Vec<Term>, generations: Vec<Generation>) {
        let Some(sequencer) = self.sequencer() else { return };
        let reports = self.reports.clone();
        tokio::spawn(async move {
            reports.send(match sequencer.remove(logs.clone(), generations.clone()).await {
                Ok(()) => Report::Removed { logs, generations },
                Err(error) => {
                    let text = format!("not everything was removed, it can be ordered again: {error}");
                    Report::Trouble { kind: Trouble::Housekeeping, text }
                }
            });
        });
    }

    /// Sends connections away and waits for them. Runs beside.
    pub(super) fn drain(&mut self, stagger_ms: u64, deadline_ms: u64) {
        let Some(open) = &mut self.open else { return };
        open.following = None;
        let (node, inbox) = (open.node.clone(), self.inbox.clone());
        tokio::spawn(async move {
            node.goaway(Duration::from_millis(stagger_ms));
            let drained = node.drain(Duration::from_millis(deadline_ms)).await;
            inbox.event(Event::Drained { moved: drained.closed_by_client, cut_off: drained.cut_off });
        });
    }

    /// Ends in good order. Runs beside.
    pub(super) fn stop(&mut self, deadline_ms: u64) {
        let Some(open) = &self.open else { return self.inbox.event(Event::Stopped) };
        let (node, serving, sequencer) = (open.node.clone(), open.serving.clone(), self.sequencer());
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            node.unlisten();
            let mut under_way = node.in_flight();
            let finishing = Duration::from_millis(deadline_ms) / FINISHING;
            // What is not done by then is not acknowledged; its client tries again.
            let _ = tokio::time::timeout(finishing, under_way.wait_for(|count| *count == 0)).await;
            serving.set(Mode::Wait);
            if let Some(sequencer) = sequencer
                && let Err(error) = sequencer.stop().await
            {
                eprintln!("bumpless-node: not everything was made durable at the stop: {error}");
            }
            node.shutdown().await;
            inbox.event(Event::Stopped);
        });
    }
}

//! What a release that was made to go wrong does ([`crate::faults`]); a sound one has no plan, and nothing
//! here happens in it.

use std::sync::Arc;

use bumpless_shared::control::{Command, Order, Origin, Report, Suspicion, Term};
use bumpless_shared::link::{Note, Part};

use super::Worker;
use crate::faults::{Deed, Files, Flood, Harm, Place, Step, Wire};
use crate::state::Content;

impl Worker {
    /// An order has come.
    pub(super) async fn before_order(&mut self, order: &Order) {
        if let Command::Start(start) = &order.command
            && start.origin != Origin::Candidate
        {
            self.script.settle();
        }
        if let Some(step) = Step::of_order(&order.command) {
            self.before(step).await;
        }
    }

    /// A step is about to be made.
    pub(super) async fn before(&mut self, step: Step) {
        for deed in self.script.reach(step, Place::Before).await {
            self.deed(deed).await;
        }
    }

    pub(super) async fn deed(&mut self, deed: Deed) {
        let done = match deed {
            Deed::Harm(files, harm) => self.harm(files, harm),
            Deed::Flood(flood) => {
                self.flood(flood);
                Ok(())
            }
            Deed::Garbage(Wire::Control) => self.reports.garbage().await,
            // Where they are planned they are done.
            Deed::Garbage(Wire::Link | Wire::Stream) | Deed::Stop | Deed::Exit | Deed::CloseLink => Ok(()),
        };
        if let Err(error) = done {
            eprintln!("bumpless-node: {deed:?} did not succeed: {error}");
        }
    }

    fn harm(&self, files: Files, harm: Harm) -> std::io::Result<()> {
        let (Some(open), Some(wires)) = (&self.open, self.wires.first()) else { return Ok(()) };
        let generation = wires.peer.generation;
        let folders = match files {
            Files::Database => vec![open.directory.generation(generation).join("db")],
            Files::Chunks => vec![open.directory.chunks(generation)],
            Files::Logbook => {
                let own: Option<Term> = match self.life.role() {
                    Some(bumpless_shared::control::Role::Holding { term }) => Some(term),
                    Some(_) | None => None,
                };
                let terms = open.directory.list_logs().map_err(std::io::Error::other)?;
                terms
                    .into_iter()
                    .filter(|term| Some(*term) != own)
                    .map(|term| open.directory.log(term))
                    .collect()
            }
        };
        let count = folders.iter().map(|folder| harm.below(folder)).sum::<std::io::Result<usize>>()?;
        eprintln!("bumpless-node: {harm:?}: {count} files of generation {generation} ({files:?})");
        Ok(())
    }

    /// Runs beside, without end.
    fn flood(&self, flood: Flood) {
        match flood {
            Flood::Notes => {
                let Some(wires) = self.wires.first() else { return };
                let talk = wires.talk();
                tokio::spawn(async move { while talk.note(&Note::Took { term: 0 }).await.is_ok() {} });
            }
            Flood::Answers | Flood::Credit => {
                let Some(wires) = self.wires.first() else { return };
                let parts = wires.talk().bulk;
                tokio::spawn(async move {
                    let part = |id| match flood {
                        Flood::Credit => Part::Credit { requests: 1 },
                        _ => Part::Answer { id, answer: vec![0; 10_000] },
                    };
                    let mut id = 0;
                    while parts.send(part(id)).await.is_ok() {
                        id += 1;
                    }
                });
            }
            Flood::Reports => {
                let reports = self.reports.clone();
                tokio::spawn(async move {
                    let reason = "nothing in particular; ".repeat(1000);
                    let report = Report::Suspect { kind: Suspicion::Failing, reason };
                    while reports.deliver(&report).await.is_ok() {}
                });
            }
            Flood::Records => {
                let Some(sequencer) = self.sequencer() else { return };
                // Many under one sync: a slow disk stops no flood.
                for _ in 0..64 {
                    let sequencer = sequencer.clone();
                    tokio::spawn(async move {
                        loop {
                            let Ok(content) = Content::new(rand::random::<[u8; 32]>().repeat(128)) else {
                                return;
                            };
                            if sequencer.put(&Arc::new(content)).await.is_err() {
                                return;
                            }
                        }
                    });
                }
            }
        }
    }
}

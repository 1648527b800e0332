//! What workers say, taken in: figures for status, then the event for the sequence.

use bumpless_control::gap_ms;
use bumpless_control::history::{Entry, Event as Happening};
use bumpless_shared::control::{Instance, Report, Term, Trouble};

use super::Driver;
use crate::effects::journal;
use crate::effects::unix_now;
use crate::effects::worker::News;
use crate::records::numbers::Highest;
use crate::upgrade::{Event, Said};

impl Driver {
    pub(super) fn news(&mut self, news: News) {
        match news {
            News::Greeted(from, _) => self.said(from, Said::Greeting),
            News::NotGreeted(from, why) => self.said(from, Said::NoCommonVersion(why)),
            News::Report(from, report) => self.report(from, report),
            News::Closed(from, why) => {
                eprintln!("bumplessd: worker {from}: {why}");
                self.feed_in([Event::Closed(from)].into());
            }
            News::Broke(from, why) => {
                self.ledger.alarm(format!("worker {from} {why}; it is not heard any more"), unix_now());
                self.feed_in([Event::Closed(from)].into());
            }
            News::Ended(from, how) => {
                let handle = self.edge.handles.get(&from).filter(|handle| !handle.end_was_expected());
                let unexpected = handle.map(|handle| handle.worker.release.clone());
                if let Some(words) = self.edge.bury(from) {
                    self.last_words = Some((from, words));
                }
                if unexpected.is_some() {
                    let reason = Some(format!("worker {from} {how}"));
                    let entry =
                        Entry { to: unexpected, reason, ..Entry::new(unix_now(), Happening::WorkerDied) };
                    self.ledger.append(&entry);
                }
                self.feed_in([Event::Ended(from, how)].into());
            }
        }
    }

    fn report(&mut self, from: Instance, report: Report) {
        self.note(from, &report);
        if let Some(said) = Said::of(report) {
            self.said(from, said);
        }
    }

    /// What of it is for the records and for people.
    fn note(&mut self, from: Instance, report: &Report) {
        match report {
            Report::Ready { term, replayed, generations, damage, .. } => {
                let generation = generations.iter().copied().max().unwrap_or(0);
                let highest = Highest { term: *term, generation, ..Highest::default() };
                if let Err(error) = self.edge.numbers.raise(highest) {
                    self.ledger.alarm(error.to_string(), unix_now());
                }
                if let Some(damage) = damage {
                    let text = format!(
                        "a logbook is damaged: {damage}. What could be read was applied; nothing was removed"
                    );
                    self.ledger.alarm(text, unix_now());
                }
                let logs = journal::replayed(&self.state, report);
                if !logs.is_empty() {
                    self.edge.write_journal(|journal| journal.discard(logs, vec![]));
                }
                if *replayed > 0 {
                    eprintln!("bumplessd: worker {from} replayed {replayed} records from logbooks");
                }
            }
            Report::Going { term } => {
                if let Some(handle) = self.edge.handles.get(&from) {
                    let (to, reason) =
                        (Some(handle.worker.release.clone()), format!("worker {from} serves, term {term}"));
                    self.ledger.append(&Entry {
                        to,
                        reason: Some(reason),
                        ..Entry::new(unix_now(), Happening::WorkerStarted)
                    });
                }
            }
            Report::Syncing { done, total, .. } => {
                self.progressed(*done, *total);
            }
            Report::Took { term } => {
                let entry = self.handed_over(from, *term);
                self.ledger.append(&entry);
            }
            Report::Resumed { term, gap_us, .. } => {
                eprintln!("bumplessd: worker {from} resumed in {} ms, term {term}", gap_ms(*gap_us));
            }
            Report::Persisted { .. } => self.persisted(from),
            Report::Drained { moved, cut_off } => eprintln!(
                "bumplessd: worker {from} drained: {moved} connections moved, {cut_off} closed at the deadline"
            ),
            Report::Removed { logs, generations } => {
                self.edge.write_journal(|journal| journal.removed(logs, generations));
            }
            Report::Heartbeat(beat) => {
                if let Some(handle) = self.edge.handles.get_mut(&from) {
                    handle.heartbeat = Some((beat.clone(), unix_now()));
                    if let Err(error) = handle.output.trim() {
                        eprintln!("bumplessd: the output of worker {from} cannot be shortened: {error}");
                    }
                }
            }
            Report::Trouble { kind, text } => match kind {
                Trouble::CannotStart | Trouble::SyncFailed | Trouble::LogbookDropped => {
                    eprintln!("bumplessd: worker {from}: {text}");
                }
                Trouble::Poisoned | Trouble::RecordRefused | Trouble::Damage | Trouble::Housekeeping => {
                    self.ledger.alarm(text.clone(), unix_now());
                }
            },
            Report::Refused { order, reason } => {
                eprintln!("bumplessd: worker {from} refused {order}: {reason}");
            }
            Report::Identity(_) | Report::Level { .. } | Report::Prepared { .. } => {}
            Report::StateHash { .. } | Report::Yielded { .. } | Report::Resigned { .. } => {}
            Report::Retired { .. } | Report::Committed { .. } | Report::Suspect { .. } => {}
        }
    }

    /// A hand-over, for the history: forth or back.
    fn handed_over(&self, taker: Instance, term: Term) -> Entry {
        let entry = Entry::new(unix_now(), Happening::Cut);
        let took = format!("worker {taker} took over, term {term}");
        let Some(attempt) = self.state.attempt() else { return Entry { reason: Some(took), ..entry } };
        let (old, new) = (attempt.from.clone(), Some(attempt.to.clone()));
        let handle = self.edge.handles.get(&taker);
        let back = handle.is_some_and(|handle| handle.worker.release != attempt.to);
        let (from, to) = if back { (new, old) } else { (old, new) };
        let reason = Some(match attempt.rehearsal.words() {
            Some(part) => format!("{part}, {took}"),
            None => took,
        });
        Entry { from, to, reason, ..entry }
    }
}

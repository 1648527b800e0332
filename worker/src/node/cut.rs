//! Authority: giving it away, taking it over, getting it back.
//!
//! What stands inside the gap, between the freeze and the first read of new connections by the taker:
//! one turn of the storage thread on each side, one note, two socket registrations. No disk is waited
//! for on the way there; on the way back (which has no prepared logbook) the database is synced.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bumpless_shared::control::{Sequence, Suspicion, Term, Trouble};
use bumpless_shared::link::Note;

use super::pairing::tell_written;
use super::{Worker, broken};
use crate::canary::Canary;
use crate::handover::moment;
use crate::lifecycle::state::Prepared as Ready;
use crate::lifecycle::{Books, Cut, Event, State, Unsent};
use crate::serve::{After, Mode};
use crate::state::{Finished, Follower, OrderError, Prepared};

impl Worker {
    /// Makes the logbook of a coming term, if it gets one.
    pub(super) async fn prepare(&mut self, term: Term, reserve: Option<u64>) -> Event {
        let sequencer = match self.needs_state() {
            Ok(sequencer) => sequencer,
            Err(_) => return Event::NotPrepared { reason: "it is not level yet".to_owned() },
        };
        let spoken = self.peer_wires().and_then(|wires| wires.version());
        let Some(open) = &mut self.open else {
            return Event::NotPrepared { reason: "it is not started".to_owned() };
        };
        let Some(reserve) = reserve else {
            // What was followed so far is synced now, so that the gap waits for little.
            if let Err(error) = sequencer.persist().await {
                return Event::NotPrepared {
                    reason: format!("its database cannot be made durable: {error}"),
                };
            }
            return Event::Prepared { prepared: Ready { term, books: Books::Database } };
        };
        // The old worker has to be able to read it, now and after a cold start.
        let Some(format) = spoken else {
            let reason = "the other worker has not answered on the link".to_owned();
            return Event::NotPrepared { reason };
        };
        // One that was prepared for a cut that did not come; its empty file is removed with its term.
        open.prepared = None;
        let (directory, generation) = (open.directory.clone(), open.start.generation);
        let floor = sequencer.store().position().sequence + 1;
        let making = tokio::task::spawn_blocking(move || {
            Prepared::make(&directory, term, generation, floor, reserve, format)
        });
        match making.await {
            Ok(Ok(prepared)) => {
                open.prepared = Some(prepared);
                Event::Prepared { prepared: Ready { term, books: Books::Logbook } }
            }
            Ok(Err(error)) => {
                let reason = format!(
                    "the logbook of term {term} cannot be made: {error}; the running release serves on"
                );
                Event::NotPrepared { reason }
            }
            Err(_) => Event::NotPrepared { reason: "the worker is stopping".to_owned() },
        }
    }

    pub(super) fn await_moment(&mut self, window_ms: u64) {
        self.cancel_moment();
        let Some(open) = &self.open else { return };
        let (under_way, inbox) = (open.node.in_flight(), self.inbox.clone());
        let waiting = tokio::spawn(async move {
            moment::suitable(under_way, Duration::from_millis(window_ms)).await;
            inbox.event(Event::Moment);
        });
        self.moment = Some(waiting.abort_handle());
    }

    pub(super) fn cancel_moment(&mut self) {
        if let Some(moment) = self.moment.take() {
            moment.abort();
        }
    }

    /// Stops reading new connections, freezes, sends `Yield`.
    pub(super) async fn give(&mut self, cut: Cut) -> Event {
        self.moment = None;
        let backed_out =
            |reason: &str| Event::BackedOut { reason: format!("{reason}; this worker serves on") };
        let State::Holding(holding) = self.life.state() else { return backed_out("it does not hold") };
        let (held, instance) = (holding.term, holding.pairing.peer().map(|peer| peer.instance));
        let (Some(open), Ok(sequencer), Some(wires)) =
            (&self.open, self.needs_state(), instance.and_then(|instance| self.wires_to(instance)))
        else {
            return backed_out("there is nobody to yield to");
        };
        if wires.version().is_none() {
            return backed_out("the other worker has not answered on the link");
        }
        let began = Instant::now();
        open.serving.set(Mode::Wait);
        let handshakes = open.node.unlisten();
        let frozen = match sequencer.freeze().await {
            Ok(frozen) => frozen,
            Err(error) => {
                self.hold_on(held);
                return backed_out(&format!("it cannot freeze: {error}"));
            }
        };
        let note = Note::Yield { term: cut.term, sequence: frozen.sequence, handshakes };
        match wires.note(&note).await {
            Ok(()) => {
                self.frozen_at = Some(began);
                self.died_at = None;
                self.be_impatient();
                Event::Yielded { sequence: frozen.sequence }
            }
            Err(error) => match cut.unsent() {
                Unsent::HoldOn(term) => match sequencer.resume(term).await {
                    Ok(position) => {
                        self.hold_on(term);
                        let reason = format!("the other worker was not told: {error}; this worker serves on");
                        Event::Thawed { term, sequence: position.sequence, reason }
                    }
                    Err(failed) => {
                        broken(Trouble::Poisoned, format!("{error}, and it cannot hold on: {failed}"))
                    }
                },
                Unsent::Frozen => Event::Yielded { sequence: frozen.sequence },
            },
        }
    }

    /// `Took` takes a millisecond. A taker that is silent for as long as a request may be is suspicious.
    fn be_impatient(&mut self) {
        let Some(open) = &self.open else { return };
        let within = Duration::from_millis(open.start.timing.relay_ms.max(1));
        let inbox = self.inbox.clone();
        let waiting = tokio::spawn(async move {
            loop {
                tokio::time::sleep(within).await;
                let reason =
                    format!("it was yielded to and did not take over within {} ms", within.as_millis());
                inbox.suspect(Suspicion::Silent, reason);
            }
        });
        self.impatience = Some(waiting.abort_handle());
    }

    pub(super) fn be_patient(&mut self) {
        if let Some(impatience) = self.impatience.take() {
            impatience.abort();
        }
    }

    /// Executes and reads new connections, again.
    fn hold_on(&self, term: Term) {
        let Some(open) = &self.open else { return };
        open.serving.set(Mode::Execute { term, after: After::Start });
        if let Err(error) = open.node.listen(Vec::new()) {
            self.trouble(Trouble::Housekeeping, format!("new connections are not read: {error}"));
        }
    }

    /// Sends requests to the peer, which holds.
    pub(super) fn relay(&mut self) {
        if let Some(wires) = self.peer_wires() {
            self.serve(Mode::Relay(wires.relay.clone()));
        }
    }

    pub(super) fn probe(&mut self) {
        let State::Frozen(frozen) = self.life.state() else { return };
        let term = frozen.term;
        let (Some(state), Some(open)) = (self.sequencer(), &mut self.open) else { return };
        let canary = Canary {
            listen: open.start.listen.clone(),
            pin: open.pin,
            term,
            every: Duration::from_millis(open.start.timing.canary_ms),
            within: Duration::from_millis(open.start.timing.relay_ms.max(1)),
            state,
            vitals: open.vitals.clone(),
        };
        let inbox = self.inbox.clone();
        let probing = tokio::spawn(canary.run(move |kind, reason| inbox.suspect(kind, reason)));
        open.canary = Some(probing.abort_handle());
    }

    pub(super) fn stop_probing(&mut self) {
        if let Some(canary) = self.open.as_mut().and_then(|open| open.canary.take()) {
            canary.abort();
        }
    }

    /// Takes the authority that the peer yielded.
    pub(super) async fn take_over(
        &mut self,
        term: Term,
        sequence: Sequence,
        books: Books,
        handshakes: Vec<u64>,
    ) -> Event {
        match self.try_take_over(term, sequence, books, handshakes).await {
            Ok(()) => Event::TookOver { sequence },
            Err((kind, reason)) => {
                let reason = format!("term {term} was not taken over: {reason}. The other worker resumes");
                Event::NotTaken { kind, reason }
            }
        }
    }

    async fn try_take_over(
        &mut self,
        term: Term,
        sequence: Sequence,
        books: Books,
        handshakes: Vec<u64>,
    ) -> Result<(), (Trouble, String)> {
        let failed = |reason: String| (Trouble::SyncFailed, reason);
        let sequencer = self.needs_state().map_err(|_| failed("there is no state yet".to_owned()))?;
        let open = self.open.as_mut().ok_or_else(|| failed("it is not started".to_owned()))?;
        let follower = match &open.following {
            Some(following) => following.follower.clone(),
            None => return Err(failed("it does not follow the logbook".to_owned())),
        };
        let Finished { refused, damaged, .. } =
            follower.finish_at(sequence).await.map_err(|error| failed(error.to_string()))?;
        if refused > 0 {
            return Err((Trouble::RecordRefused, format!("{refused} records of the logbook were refused")));
        }
        if damaged > 0 {
            return Err((Trouble::Damage, format!("the logbook is damaged in {damaged} places")));
        }
        let after = match (books, open.prepared.take()) {
            (Books::Logbook, Some(prepared)) => {
                sequencer.take(prepared, sequence).await.map_err(|error| failed(error.to_string()))?;
                After::Cut
            }
            (Books::Logbook, None) => return Err(failed("its logbook is not prepared".to_owned())),
            (Books::Database, _) => {
                sequencer.resume(term).await.map_err(|error| failed(error.to_string()))?;
                After::Start
            }
        };
        open.following = None;
        open.serving.set(Mode::Execute { term, after });
        open.node.cancel_goaway();
        // From here on it holds, whatever else fails.
        let listening = open.node.listen(handshakes);
        if let Err(error) = listening {
            self.trouble(Trouble::Housekeeping, format!("new connections are not read: {error}"));
        }
        if let Some(wires) = self.peer_wires() {
            // A link that is closed means that the other one is dying; it needs no news then.
            if let Err(error) = wires.note(&Note::Took { term }).await {
                eprintln!("bumpless-node: the other worker was not told of term {term}: {error}");
            }
            wires.spawn(tell_written(sequencer, wires.talk()));
        }
        match after {
            After::Cut => self.stamp.faults.at_cut(),
            After::Start => {}
        }
        Ok(())
    }

    /// Reads the dead peer's logbook to its end and holds again.
    pub(super) async fn resume(&mut self, term: Term, read: Term) -> Event {
        self.be_patient();
        let died_at = *self.died_at.get_or_insert_with(Instant::now);
        match self.try_resume(term, read).await {
            Ok(sequence) => Event::Resumed { term, sequence, gap_us: died_at.elapsed().as_micros() as u64 },
            Err(reason) => broken(
                Trouble::CannotStart,
                format!("term {term} cannot be resumed: {reason}. The node is to be started from its files"),
            ),
        }
    }

    async fn try_resume(&mut self, term: Term, read: Term) -> Result<Sequence, String> {
        let sequencer = self.needs_state().map_err(|_| "there is no state".to_owned())?;
        let following = self.open.as_mut().and_then(|open| open.following.take());
        let follower = match following.as_ref().map(|following| following.follower.clone()) {
            Some(follower) if follower.term() == read => follower,
            Some(_) | None => Arc::<Follower>::new(
                self.start_follower(sequencer.clone(), read).map_err(|error| error.to_string())?,
            ),
        };
        let Finished { sequence, .. } = follower.finish().await.map_err(|error| error.to_string())?;
        sequencer.resume(term).await.map_err(|error| error.to_string())?;
        if let Some(open) = &self.open {
            open.node.cancel_goaway();
        }
        self.hold_on(term);
        Ok(sequence)
    }

    /// Goes on holding under a higher term. The sequencer takes a term only from outside authority, so
    /// it is frozen for a moment; puts that are given back meanwhile wait and are executed.
    pub(super) async fn raise(&mut self, term: Term) -> Option<Event> {
        let (sequencer, directory) = (self.sequencer()?, self.open.as_ref()?.directory.clone());
        let raised = async {
            sequencer.open_logbook(self.stamp.speaks.max).await?;
            let frozen = sequencer.freeze().await?;
            sequencer.resume(term).await?;
            Ok::<_, OrderError>(frozen.term)
        };
        match raised.await {
            Ok(before) => {
                self.serve(Mode::Execute { term, after: After::Start });
                let removing = tokio::task::spawn_blocking(move || directory.remove_log(before));
                if let Ok(Err(error)) = removing.await {
                    self.trouble(Trouble::Housekeeping, error.to_string());
                }
                None
            }
            Err(error) => Some(broken(Trouble::Poisoned, format!("term {term} cannot be taken: {error}"))),
        }
    }

    /// SIGKILL, through the descriptor: it can hit nobody else.
    pub(super) fn kill_peer(&self) {
        let Some(wires) = self.peer_wires() else { return };
        eprintln!(
            "bumpless-node: the supervisor is gone and worker {} is silent: killing it",
            wires.peer.instance
        );
        if let Err(error) = wires.process.kill() {
            self.trouble(
                Trouble::Housekeeping,
                format!("worker {} cannot be killed: {error}", wires.peer.instance),
            );
        }
    }
}

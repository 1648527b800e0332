//! `(state, event, now) → (state, effects)`: the whole upgrade, in the order in which it happens.
//!
//! What can happen in every state to the worker that serves alone (a heartbeat, its death, its
//! silence) is decided first, in one place; then each state has a function of its own, in which every
//! kind of event is written out. What a worker says out of turn changes nothing.

use bumpless_os::process::Ending;
use bumpless_shared::control::{Command, Instance, Origin, Suspicion, Tag, Trouble};

use super::cold::{clear, clearing, cold, cold_kill, start_cold, stopping, vacant};
use super::effect::{Effect, RecordTerm};
use super::event::{Acquired, Ask, Event, Launched, Said, Stored};
use super::judge::{Baseline, Judge};
use super::rules::Rules;
use super::state::{
    After, Attempt, Back, Cold, Commit, Hashes, Levelling, Moment, Old, Pair, Rehearsal, Return, Reverse,
    Serving, State, Terms, Verdict, Worker,
};

pub(super) type Step = (State, Vec<Effect>);

impl State {
    /// The next state, and what is to be done, in order.
    pub fn step(mut self, event: Event, now: Moment, rules: &Rules) -> Step {
        if let Event::Asked(Ask::Stop) = event {
            return self.stop(now, rules);
        }
        if let Event::Asked(Ask::Reconsider) = event {
            return self.reconsider(now, rules);
        }
        if let Event::Launched(Launched::Running(worker)) = &event
            && !self.awaits(worker)
        {
            return self.too_late(worker.clone(), now, rules);
        }
        if let Some(serving) = self.serving_mut() {
            let id = serving.worker.instance;
            match &event {
                Event::Said(from, Said::Heartbeat(beat)) if *from == id => serving.beat(beat, now),
                Event::Ended(who, how) if *who == id => {
                    return self.lost_serving(false, &format!("the serving worker {how}"), now, rules);
                }
                Event::Closed(who) if *who == id => {
                    return self.lost_serving(
                        true,
                        "the serving worker closed its control channel",
                        now,
                        rules,
                    );
                }
                Event::Tick if now >= serving.heard + rules.limits.silence => {
                    return self.lost_serving(true, "the serving worker hangs", now, rules);
                }
                Event::Said(..) | Event::Ended(..) | Event::Closed(_) | Event::Tick => {}
                Event::Asked(_) | Event::Acquired(_) | Event::Launched(_) | Event::Stored(_) => {}
            }
        }
        match self {
            State::Vacant => vacant(event, now, rules),
            State::Cold { pair, step, deadline, tries } => {
                cold(pair, step, deadline, tries, event, now, rules)
            }
            State::Steady(serving) => steady(serving, event, now, rules),
            State::Fetching { serving, attempt, deadline } => {
                fetching(serving, attempt, deadline, event, now, rules)
            }
            State::Installing { serving, attempt, deadline } => {
                installing(serving, attempt, deadline, event, now, rules)
            }
            State::Starting { serving, attempt, new, deadline } => {
                starting(serving, attempt, new, deadline, event, now, rules)
            }
            State::Syncing { serving, attempt, new, left, deadline } => {
                syncing(Candidate { serving, attempt, new }, left, deadline, event, now, rules)
            }
            State::Level { serving, attempt, new, step, deadline } => {
                level(Candidate { serving, attempt, new }, step, deadline, event, now, rules)
            }
            State::Cutting { old, new, attempt, terms, baseline, gap_us, deadline } => {
                cutting(Cut { old, new, attempt, terms, gap_us }, baseline, deadline, event, now, rules)
            }
            State::Probation { old, new, attempt, terms, gap_us, judge, until } => {
                probation(Watch { old, new, attempt, terms, gap_us }, judge, until, event, now, rules)
            }
            State::Committing { old, new, attempt, terms, gap_us, step, deadline, heard } => committing(
                Watch { old, new, attempt, terms, gap_us },
                step,
                deadline,
                heard,
                event,
                now,
                rules,
            ),
            State::Reversing { old, new, attempt, terms, step, why, gap_us, deadline } => {
                reversing(Cut { old, new, attempt, terms, gap_us }, step, why, deadline, event, now, rules)
            }
            State::RollingBack { old, new, attempt, terms, step, verdict, gap_us, deadline } => rolling_back(
                Cut { old, new, attempt, terms, gap_us },
                step,
                verdict,
                deadline,
                event,
                now,
                rules,
            ),
            State::BackingOut { serving, attempt, new, verdict, alarm } => {
                backing_out(Candidate { serving, attempt, new }, verdict, alarm, event, now, rules)
            }
            State::Clearing { dying, after, alarm } => clearing(dying, after, alarm, event, now, rules),
            State::Stopping { left, deadline } => stopping(left, deadline, event, now, rules),
            State::Stopped => (State::Stopped, vec![]),
        }
    }

    /// A process has started that nobody waits for any more.
    fn too_late(mut self, worker: Worker, now: Moment, rules: &Rules) -> Step {
        let effects = vec![
            Effect::Kill(worker.instance),
            Effect::Discard {
                logs: vec![],
                generations: if self.workers().iter().any(|other| other.generation == worker.generation) {
                    vec![]
                } else {
                    vec![worker.generation]
                },
            },
        ];
        match &mut self {
            State::Clearing { dying: workers, .. } | State::Stopping { left: workers, .. } => {
                workers.push(worker)
            }
            State::Stopped => {
                self = State::Stopping { left: vec![worker], deadline: now + rules.kill_alarm };
            }
            State::Vacant | State::Cold { .. } | State::Steady(_) | State::Fetching { .. } => {}
            State::Installing { .. }
            | State::Starting { .. }
            | State::Syncing { .. }
            | State::Level { .. } => {}
            State::Cutting { .. } | State::Probation { .. } | State::Committing { .. } => {}
            State::Reversing { .. } | State::RollingBack { .. } | State::BackingOut { .. } => {}
        }
        (self, effects)
    }

    /// A real stop, from any state. What is durable is durable, so every worker may simply end: the
    /// next start is the committed pair with a complete logbook.
    fn stop(self, now: Moment, rules: &Rules) -> Step {
        if let State::Stopping { .. } | State::Stopped = self {
            return (self, vec![]);
        }
        let mut effects = vec![];
        if let State::Fetching { .. } | State::Installing { .. } = self {
            effects.push(Effect::CancelAcquire);
        }
        let deadline_ms = u64::try_from(rules.stop.as_millis()).unwrap_or(u64::MAX);
        let left = self.workers();
        for worker in &left {
            effects.push(Effect::Tell(worker.instance, Command::Stop { deadline_ms }));
        }
        effects.extend(self.stopped_short());
        effects.extend(self.left_behind());
        if left.is_empty() {
            return (State::Stopped, effects);
        }
        (State::Stopping { left, deadline: now + rules.stop }, effects)
    }

    /// How an upgrade ends that a stop ends.
    fn stopped_short(&self) -> Option<Effect> {
        let attempt = self.attempt()?.clone();
        if let State::Committing { step, gap_us, .. } = self {
            match step {
                // Nobody knows: the journal keeps it, and the next start sees what is committed.
                Commit::Recording => return None,
                // It is committed; what is cut short is only the farewell.
                Commit::Sealing | Commit::Draining => {
                    return Some(Effect::conclude(attempt, Verdict::Good, *gap_us));
                }
                Commit::Hashing(_) | Commit::Persisting(_) | Commit::Retiring => {}
            }
        }
        let stopped = || Verdict::Unknown("the supervisor was stopped".into());
        let verdict = self.verdict().cloned().unwrap_or_else(stopped);
        Some(Effect::conclude(attempt, verdict, None))
    }

    /// What an upgrade that ends with a stop leaves on the disk for nobody; the next start has it
    /// removed.
    fn left_behind(&self) -> Option<Effect> {
        let (logs, generation) = match self {
            State::Starting { serving, new: Some(new), .. }
            | State::Syncing { serving, new, .. }
            | State::Level { serving, new, .. }
            | State::BackingOut { serving, new, .. } => (vec![serving.term], new.generation),
            State::Cutting { new, terms, .. }
            | State::Probation { new, terms, .. }
            | State::Reversing { new, terms, .. }
            | State::RollingBack { new, terms, .. } => (vec![terms.held, terms.take], new.generation),
            State::Committing { old, new, terms, step, .. } => {
                let generation = match step {
                    Commit::Hashing(_) | Commit::Persisting(_) | Commit::Retiring => new.generation,
                    Commit::Recording => return None,
                    Commit::Sealing | Commit::Draining => old.worker().generation,
                };
                (vec![terms.held, terms.take], generation)
            }
            State::Vacant
            | State::Cold { .. }
            | State::Steady(_)
            | State::Fetching { .. }
            | State::Installing { .. }
            | State::Starting { new: None, .. }
            | State::Clearing { .. }
            | State::Stopping { .. }
            | State::Stopped => return None,
        };
        Some(Effect::Discard { logs, generations: vec![generation] })
    }

    /// The worker that served alone is dead or as good as dead: whoever else lives is killed, and the
    /// committed pair, which it ran, starts cold.
    fn lost_serving(self, alive: bool, why: &str, now: Moment, rules: &Rules) -> Step {
        let Some(serving) = self.serving().map(|serving| serving.worker.clone()) else {
            return (self, vec![]);
        };
        let again = if rules.keeps_down(&serving.release).is_none() { "starts" } else { "may not start" };
        let mut effects = vec![Effect::Alarm(format!("{why}; release {} {again} again", serving.release))];
        if let State::Fetching { .. } | State::Installing { .. } = self {
            effects.push(Effect::CancelAcquire);
        }
        let dying: Vec<Worker> =
            self.workers().into_iter().filter(|w| alive || w.instance != serving.instance).collect();
        effects.extend(dying.iter().map(|worker| Effect::Kill(worker.instance)));
        let others = self.workers().into_iter().filter(|worker| worker.instance != serving.instance);
        effects.push(Effect::Discard {
            logs: vec![],
            generations: others.map(|worker| worker.generation).collect(),
        });
        if let Some(attempt) = self.attempt() {
            let verdict = self.verdict().cloned().unwrap_or_else(|| Verdict::Unknown(why.into()));
            effects.push(Effect::conclude(attempt.clone(), verdict, None));
        }
        clear(dying, After::Cold(serving.release, serving.generation), effects, now, rules)
    }

    /// The publisher may have forbidden what is under way, or allowed what was not started.
    ///
    /// A release that must not run is not committed: before the cut it is backed out, from then on until the
    /// commit point it is taken back, killed like a bad one. The old worker resumes whatever is said of its
    /// own release: it runs already. Behind the commit point, and where one worker serves alone, nothing
    /// happens: what runs goes on.
    fn reconsider(self, now: Moment, rules: &Rules) -> Step {
        if let State::Cold { pair, step: Cold::Forbidden(_), tries, .. } = self {
            return start_cold(pair, tries, now, rules);
        }
        let verdict = self.attempt().and_then(|attempt| withdrawn(attempt, rules));
        let Some(verdict) = verdict else { return (self, vec![]) };
        match self {
            State::Fetching { serving, attempt, .. } | State::Installing { serving, attempt, .. } => {
                let effects = vec![Effect::CancelAcquire, Effect::conclude(attempt, verdict, None)];
                (serving.map_or(State::Vacant, State::Steady), effects)
            }
            State::Starting { serving, attempt, new: None, .. } => {
                (State::Steady(serving), vec![Effect::conclude(attempt, verdict, None)])
            }
            State::Starting { serving, attempt, new: Some(new), .. }
            | State::Syncing { serving, attempt, new, .. }
            | State::Level { serving, attempt, new, .. } => {
                back_out(Candidate { serving, attempt, new }, verdict, vec![], now, rules)
            }
            State::Cutting { old, new, attempt, terms, gap_us, .. } => {
                kill_new(Cut { old, new, attempt, terms, gap_us }, verdict, now, rules)
            }
            State::Probation { old, new, attempt, terms, gap_us, .. }
            | State::Committing {
                old,
                new,
                attempt,
                terms,
                gap_us,
                step: Commit::Hashing(_) | Commit::Persisting(_) | Commit::Retiring,
                ..
            } => condemned(Watch { old, new, attempt, terms, gap_us }, verdict, now, rules),
            // A rehearsal would go on with another instance.
            State::Reversing { old, new, attempt, terms, step, why, gap_us, deadline } => {
                let why = Return::Ends(why.or(verdict));
                (State::Reversing { old, new, attempt, terms, step, why, gap_us, deadline }, vec![])
            }
            State::Cold { pair: Pair::Genesis(attempt), step, deadline, tries } => match step {
                Cold::Spawning => (State::Vacant, vec![Effect::conclude(attempt, verdict, None)]),
                Cold::Opening(worker) => {
                    let why = verdict.reason().to_owned();
                    cold_kill(Pair::Genesis(attempt), worker, tries, why, now, rules)
                }
                Cold::Recording(..)
                | Cold::Going(..)
                | Cold::Failing(..)
                | Cold::Waiting(_)
                | Cold::Forbidden(_) => {
                    (State::Cold { pair: Pair::Genesis(attempt), step, deadline, tries }, vec![])
                }
            },
            state @ State::Committing {
                step: Commit::Recording | Commit::Sealing | Commit::Draining, ..
            } => (state, vec![]),
            state @ (State::RollingBack { .. } | State::BackingOut { .. }) => (state, vec![]),
            state @ (State::Vacant | State::Steady(_) | State::Cold { pair: Pair::Committed(..), .. }) => {
                (state, vec![])
            }
            state @ (State::Clearing { .. } | State::Stopping { .. } | State::Stopped) => (state, vec![]),
        }
    }
}

/// An upgrade before the cut.
struct Candidate {
    serving: Serving,
    attempt: Attempt,
    new: Worker,
}

/// An upgrade of which both workers live.
pub(super) struct Cut {
    pub(super) old: Worker,
    pub(super) new: Worker,
    pub(super) attempt: Attempt,
    pub(super) terms: Terms,
    pub(super) gap_us: Option<u64>,
}

/// An upgrade after the cut.
struct Watch {
    old: Old,
    new: Worker,
    attempt: Attempt,
    terms: Terms,
    gap_us: Option<u64>,
}

/// The slot of a candidate beside a holder with this one.
pub(super) fn other_tag(tag: Tag) -> Tag {
    tag % 3 + 1
}

/// The slot of the holder that this one was the candidate beside.
pub(super) fn tag_before(tag: Tag) -> Tag {
    other_tag(other_tag(tag))
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A worker that was to be killed and had ended by itself already: that tells more than the suspicion
/// that condemned it.
fn own_end(verdict: Verdict, how: Ending, when: &str) -> Verdict {
    match (verdict, how) {
        (Verdict::Bad(_), Ending::Exited(_)) => bad(format!("{how} {when}")),
        (Verdict::Bad(_), Ending::Signaled(signal)) if signal != SIGKILL => bad(format!("{how} {when}")),
        (verdict, Ending::Exited(_) | Ending::Signaled(_) | Ending::Unknown) => verdict,
    }
}

/// Ours, and the only signal that says nothing about its receiver.
const SIGKILL: i32 = 9;

pub(super) fn bad(reason: impl Into<String>) -> Verdict {
    Verdict::Bad(reason.into())
}

// ------------------------------------------------------------------------------- before the cut

fn steady(serving: Serving, event: Event, now: Moment, rules: &Rules) -> Step {
    match event {
        Event::Asked(Ask::Upgrade { attempt, installed }) => {
            begin(Some(serving), attempt, installed, now, rules)
        }
        Event::Asked(Ask::Rollback { .. } | Ask::Reconsider | Ask::Stop)
        | Event::Tick
        | Event::Acquired(_)
        | Event::Launched(_) => (State::Steady(serving), vec![]),
        Event::Stored(_) | Event::Said(..) | Event::Ended(..) | Event::Closed(_) => {
            (State::Steady(serving), vec![])
        }
    }
}

pub(super) fn begin(
    serving: Option<Serving>,
    attempt: Attempt,
    installed: bool,
    now: Moment,
    rules: &Rules,
) -> Step {
    if installed {
        return start_new(serving, attempt, now, rules);
    }
    let fetch = vec![Effect::Fetch(attempt.to.clone())];
    (State::Fetching { serving, attempt, deadline: now + rules.fetch }, fetch)
}

fn fetching(
    serving: Option<Serving>,
    attempt: Attempt,
    deadline: Moment,
    event: Event,
    now: Moment,
    rules: &Rules,
) -> Step {
    match event {
        Event::Acquired(Acquired::Fetched) => {
            let install = vec![Effect::Install(attempt.to.clone())];
            (State::Installing { serving, attempt, deadline: now + rules.install }, install)
        }
        event => acquiring(serving, attempt, deadline, event, now, |serving, attempt| State::Fetching {
            serving,
            attempt,
            deadline,
        }),
    }
}

fn installing(
    serving: Option<Serving>,
    attempt: Attempt,
    deadline: Moment,
    event: Event,
    now: Moment,
    rules: &Rules,
) -> Step {
    match event {
        Event::Acquired(Acquired::Installed) => start_new(serving, attempt, now, rules),
        event => acquiring(serving, attempt, deadline, event, now, |serving, attempt| State::Installing {
            serving,
            attempt,
            deadline,
        }),
    }
}

/// What fetching and installing have in common: how they end without a release.
fn acquiring(
    serving: Option<Serving>,
    attempt: Attempt,
    deadline: Moment,
    event: Event,
    now: Moment,
    stay: impl FnOnce(Option<Serving>, Attempt) -> State,
) -> Step {
    let end = |serving: Option<Serving>, attempt, verdict, mut effects: Vec<Effect>| {
        effects.push(Effect::conclude(attempt, verdict, None));
        (serving.map_or(State::Vacant, State::Steady), effects)
    };
    match event {
        Event::Acquired(Acquired::Failed(verdict)) => end(serving, attempt, verdict, vec![]),
        Event::Asked(Ask::Rollback { uid }) => {
            end(serving, attempt, asked_back(uid), vec![Effect::CancelAcquire])
        }
        Event::Tick if now >= deadline => {
            let verdict = Verdict::Unknown("fetching or installing took too long".into());
            end(serving, attempt, verdict, vec![Effect::CancelAcquire])
        }
        Event::Acquired(Acquired::Fetched | Acquired::Installed)
        | Event::Asked(Ask::Upgrade { .. } | Ask::Reconsider | Ask::Stop)
        | Event::Tick
        | Event::Launched(_)
        | Event::Stored(_)
        | Event::Said(..)
        | Event::Ended(..)
        | Event::Closed(_) => (stay(serving, attempt), vec![]),
    }
}

fn asked_back(uid: u32) -> Verdict {
    Verdict::RolledBack(format!("taken back by the operator (uid {uid})"))
}

/// How an upgrade to a release ends that must not run, if so.
fn withdrawn(attempt: &Attempt, rules: &Rules) -> Option<Verdict> {
    let why = rules.forbidden.why(&attempt.to)?;
    Some(Verdict::Withdrawn(format!("{} {why}", attempt.to.version)))
}

fn start_new(serving: Option<Serving>, attempt: Attempt, now: Moment, rules: &Rules) -> Step {
    if let Some(verdict) = withdrawn(&attempt, rules) {
        let conclude = Effect::conclude(attempt, verdict, None);
        return (serving.map_or(State::Vacant, State::Steady), vec![conclude]);
    }
    let Some(serving) = serving else {
        // There is nothing that a rehearsal could hand back to.
        let attempt = Attempt { rehearsal: Rehearsal::Off, ..attempt };
        return start_cold(Pair::Genesis(attempt), 0, now, rules);
    };
    let spawn = Effect::Spawn {
        release: attempt.to.clone(),
        generation: None,
        origin: Origin::Candidate,
        tag: other_tag(serving.worker.tag),
    };
    (State::Starting { serving, attempt, new: None, deadline: now + rules.start }, vec![spawn])
}

fn starting(
    serving: Serving,
    attempt: Attempt,
    new: Option<Worker>,
    deadline: Moment,
    event: Event,
    now: Moment,
    rules: &Rules,
) -> Step {
    let Some(new) = new else {
        return match event {
            Event::Launched(Launched::Running(worker)) => {
                (State::Starting { serving, attempt, new: Some(worker), deadline }, vec![])
            }
            Event::Launched(Launched::Failed(verdict)) => {
                let conclude = Effect::conclude(attempt, verdict, None);
                (State::Steady(serving), vec![conclude])
            }
            Event::Asked(Ask::Rollback { uid }) => {
                let conclude = Effect::conclude(attempt, asked_back(uid), None);
                (State::Steady(serving), vec![conclude])
            }
            Event::Tick if now >= deadline => {
                let verdict = Verdict::Unknown("verifying and starting it took too long".into());
                (State::Steady(serving), vec![Effect::conclude(attempt, verdict, None)])
            }
            Event::Tick
            | Event::Asked(Ask::Upgrade { .. } | Ask::Reconsider | Ask::Stop)
            | Event::Acquired(_)
            | Event::Stored(_)
            | Event::Said(..)
            | Event::Ended(..)
            | Event::Closed(_) => (State::Starting { serving, attempt, new: None, deadline }, vec![]),
        };
    };
    let id = new.instance;
    let candidate = Candidate { serving, attempt, new };
    match event {
        Event::Said(who, Said::Greeting) if who == id => {
            let start = Effect::Start(candidate.new.clone(), Origin::Candidate);
            let Candidate { serving, attempt, new } = candidate;
            (State::Starting { serving, attempt, new: Some(new), deadline }, vec![start])
        }
        Event::Said(who, Said::Ready(_)) if who == id => {
            let Candidate { serving, attempt, new } = candidate;
            let effects = vec![
                Effect::Tell(id, Command::Go { term: serving.term }),
                Effect::Pair { serving: serving.worker.clone(), new: new.clone() },
            ];
            (State::Syncing { serving, attempt, new, left: u64::MAX, deadline: now + rules.stall }, effects)
        }
        Event::Tick if now >= deadline => {
            let why = format!("was not ready within {} s of its start", rules.start.as_secs_f32());
            back_out(candidate, bad(why), vec![], now, rules)
        }
        event => candidate_fails(candidate, event, now, rules, |Candidate { serving, attempt, new }| {
            State::Starting { serving, attempt, new: Some(new), deadline }
        }),
    }
}

fn syncing(
    candidate: Candidate,
    left: u64,
    deadline: Moment,
    event: Event,
    now: Moment,
    rules: &Rules,
) -> Step {
    let id = candidate.new.instance;
    let stay = |left, deadline, Candidate { serving, attempt, new }: Candidate| State::Syncing {
        serving,
        attempt,
        new,
        left,
        deadline,
    };
    match event {
        Event::Said(who, Said::Left(now_left)) if who == id && now_left < left => {
            (stay(now_left, now + rules.stall, candidate), vec![])
        }
        Event::Said(who, Said::Level) if who == id => {
            let mark = mark_of(&candidate.new, false);
            let tell = vec![Effect::Tell(candidate.serving.worker.instance, Command::Mark { id: mark })];
            let Candidate { serving, attempt, new } = candidate;
            let step = Levelling::Hashing(Hashes { mark, seen: vec![] });
            (State::Level { serving, attempt, new, step, deadline: now + rules.level }, tell)
        }
        Event::Tick if now >= deadline => {
            let why = format!("its sync made no progress for {} s", rules.stall.as_secs_f32());
            back_out(candidate, bad(why), vec![], now, rules)
        }
        event => candidate_fails(candidate, event, now, rules, |candidate| stay(left, deadline, candidate)),
    }
}

/// A mark's number: instances are never reused, and each is asked twice at most.
fn mark_of(new: &Worker, after_cut: bool) -> u64 {
    new.instance * 2 + u64::from(after_cut)
}

fn level(
    candidate: Candidate,
    step: Levelling,
    deadline: Moment,
    event: Event,
    now: Moment,
    rules: &Rules,
) -> Step {
    let (holder, id) = (candidate.serving.worker.instance, candidate.new.instance);
    let stay = |step, Candidate { serving, attempt, new }: Candidate| State::Level {
        serving,
        attempt,
        new,
        step,
        deadline,
    };
    match (step, event) {
        (Levelling::Hashing(hashes), Event::Said(who, Said::Hash(mark, hash)))
            if who == holder || who == id =>
        {
            match hashes.with(mark, who, hash) {
                Compared::Waiting(hashes) => (stay(Levelling::Hashing(hashes), candidate), vec![]),
                Compared::Different => back_out(candidate, different(), vec![], now, rules),
                Compared::Equal => {
                    let reserve = Effect::Reserve {
                        attempt: candidate.attempt.clone(),
                        generation: candidate.new.generation,
                        held: (candidate.serving.worker.generation, candidate.serving.term),
                    };
                    (stay(Levelling::Hashing(Hashes::default()), candidate), vec![reserve])
                }
            }
        }
        (Levelling::Hashing(_), Event::Stored(Stored::Reserved(terms))) => {
            let prepare = Command::Prepare { term: terms.take, reserve: Some(rules.reserve) };
            (stay(Levelling::Preparing(terms), candidate), vec![Effect::Tell(id, prepare)])
        }
        (Levelling::Hashing(_), Event::Stored(Stored::NotReserved(why))) => {
            let verdict = Verdict::Unknown(format!("the journal cannot be written: {why}"));
            back_out(candidate, verdict, vec![], now, rules)
        }
        (Levelling::Preparing(terms), Event::Said(who, Said::Prepared(term)))
            if who == id && term == terms.take =>
        {
            let window_ms = millis(rules.window);
            let cut = Command::Cut { term: terms.take, resume: terms.resume, window_ms };
            let Candidate { serving, attempt, new } = candidate;
            let baseline = serving.baseline();
            let deadline = now + rules.window + rules.cut;
            let state =
                State::Cutting { old: serving.worker, new, attempt, terms, baseline, gap_us: None, deadline };
            (state, vec![Effect::Tell(holder, cut)])
        }
        (step, Event::Tick) if now >= deadline => {
            let verdict = match step {
                Levelling::Hashing(Hashes { seen, .. }) if seen.iter().any(|(who, _)| *who == id) => {
                    Verdict::Unknown("the serving worker did not hash its state in time".into())
                }
                Levelling::Hashing(_) => bad("did not hash its state in time"),
                Levelling::Preparing(_) => bad("did not prepare its logbook in time"),
            };
            back_out(candidate, verdict, vec![], now, rules)
        }
        (step, event) => candidate_fails(candidate, event, now, rules, |candidate| stay(step, candidate)),
    }
}

fn different() -> Verdict {
    Verdict::Wrong("its state differs from the serving worker's at the same sequence".into())
}

enum Compared {
    Waiting(Hashes),
    Equal,
    Different,
}

impl Hashes {
    fn with(mut self, mark: u64, who: Instance, hash: bumpless_shared::digest::Digest) -> Compared {
        if mark != self.mark || self.seen.iter().any(|(seen, _)| *seen == who) {
            return Compared::Waiting(self);
        }
        self.seen.push((who, hash));
        match self.seen.as_slice() {
            [(_, one), (_, other)] if one == other => Compared::Equal,
            [_, _] => Compared::Different,
            _ => Compared::Waiting(self),
        }
    }
}

/// What starting, syncing and levelling have in common: how they end early.
fn candidate_fails(
    candidate: Candidate,
    event: Event,
    now: Moment,
    rules: &Rules,
    stay: impl FnOnce(Candidate) -> State,
) -> Step {
    let (holder, id) = (candidate.serving.worker.instance, candidate.new.instance);
    match event {
        Event::Ended(who, how) if who == id => gone(candidate, bad(format!("{how} before the cut")), vec![]),
        Event::Closed(who) if who == id => {
            back_out(candidate, bad("closed its control channel"), vec![], now, rules)
        }
        Event::Asked(Ask::Rollback { uid }) => back_out(candidate, asked_back(uid), vec![], now, rules),
        Event::Said(who, said) if who == id => match said {
            Said::NoCommonVersion(why) | Said::Trouble(Trouble::CannotStart, why) => {
                back_out(candidate, bad(why), vec![], now, rules)
            }
            Said::Trouble(Trouble::RecordRefused, why) => back_out(candidate, bad(why), vec![], now, rules),
            Said::Trouble(Trouble::SyncFailed | Trouble::Damage | Trouble::Poisoned, why) => {
                back_out(candidate, Verdict::Unknown(why), vec![], now, rules)
            }
            Said::Refused(order, why) => {
                back_out(candidate, bad(format!("refused {order}: {why}")), vec![], now, rules)
            }
            Said::Trouble(Trouble::LogbookDropped | Trouble::Housekeeping, _)
            | Said::Greeting
            | Said::Ready(_)
            | Said::Going
            | Said::Left(_)
            | Said::Level
            | Said::Hash(..)
            | Said::Prepared(_)
            | Said::Yielded(_)
            | Said::Took(_)
            | Said::Resigned(_)
            | Said::Resumed(..)
            | Said::Retired(_)
            | Said::Persisted
            | Said::Sealed(_)
            | Said::Drained(_)
            | Said::Heartbeat(_)
            | Said::Suspects(..) => (stay(candidate), vec![]),
        },
        Event::Said(
            who,
            Said::Trouble(Trouble::LogbookDropped | Trouble::SyncFailed | Trouble::Poisoned, why),
        ) if who == holder => back_out(candidate, Verdict::Unknown(why), vec![], now, rules),
        Event::Said(who, Said::Suspects(kind, why)) if who == holder => {
            back_out(candidate, suspected(kind, why), vec![], now, rules)
        }
        Event::Said(who, Said::Refused(order, why)) if who == holder => {
            let verdict = Verdict::Unknown(format!("the serving worker refused {order}: {why}"));
            back_out(candidate, verdict, vec![], now, rules)
        }
        Event::Tick
        | Event::Asked(Ask::Upgrade { .. } | Ask::Reconsider | Ask::Stop)
        | Event::Acquired(_)
        | Event::Launched(_)
        | Event::Stored(_)
        | Event::Said(..)
        | Event::Ended(..)
        | Event::Closed(_) => (stay(candidate), vec![]),
    }
}

fn back_out(
    candidate: Candidate,
    verdict: Verdict,
    mut effects: Vec<Effect>,
    now: Moment,
    rules: &Rules,
) -> Step {
    let Candidate { serving, attempt, new } = candidate;
    effects.push(Effect::Kill(new.instance));
    (State::BackingOut { serving, attempt, new, verdict, alarm: now + rules.kill_alarm }, effects)
}

fn backing_out(
    candidate: Candidate,
    verdict: Verdict,
    alarm: Moment,
    event: Event,
    now: Moment,
    rules: &Rules,
) -> Step {
    let (holder, id) = (candidate.serving.worker.instance, candidate.new.instance);
    match event {
        // It breaks the link and complains of a broken link: what the holder found tells more.
        Event::Said(who, Said::Suspects(kind, why))
            if who == holder && matches!(verdict, Verdict::Unknown(_)) =>
        {
            let (Candidate { serving, attempt, new }, verdict) = (candidate, suspected(kind, why));
            (State::BackingOut { serving, attempt, new, verdict, alarm }, vec![])
        }
        Event::Ended(who, how) if who == id => {
            gone(candidate, own_end(verdict, how, "before the cut"), vec![])
        }
        Event::Tick if now >= alarm => {
            let effects = vec![not_dead(&candidate.new)];
            back_out(candidate, verdict, effects, now, rules)
        }
        Event::Tick
        | Event::Asked(_)
        | Event::Acquired(_)
        | Event::Launched(_)
        | Event::Stored(_)
        | Event::Said(..)
        | Event::Ended(..)
        | Event::Closed(_) => {
            let Candidate { serving, attempt, new } = candidate;
            (State::BackingOut { serving, attempt, new, verdict, alarm }, vec![])
        }
    }
}

pub(super) fn not_dead(worker: &Worker) -> Effect {
    Effect::Alarm(format!("worker {} was killed and is not dead yet; waiting", worker.instance))
}

/// The candidate is dead, and nothing depended on it.
fn gone(candidate: Candidate, verdict: Verdict, mut effects: Vec<Effect>) -> Step {
    let Candidate { serving, attempt, new } = candidate;
    effects.push(Effect::Tell(serving.worker.instance, Command::PeerGone { tag: new.tag }));
    effects.push(Effect::Discard { logs: vec![], generations: vec![new.generation] });
    effects.push(Effect::conclude(attempt, verdict, None));
    (State::Steady(serving), effects)
}

// -------------------------------------------------------------------------- the cut and probation

fn cutting(cut: Cut, baseline: Baseline, deadline: Moment, event: Event, now: Moment, rules: &Rules) -> Step {
    let (old, id) = (cut.old.instance, cut.new.instance);
    let take = cut.terms.take;
    let stay = |Cut { old, new, attempt, terms, gap_us }: Cut| State::Cutting {
        old,
        new,
        attempt,
        terms,
        baseline,
        gap_us,
        deadline,
    };
    match event {
        Event::Said(who, Said::Took(term)) if who == id && term == take => {
            let Cut { old, new, attempt, terms, gap_us } = cut;
            let until = now + attempt.rehearsal.watch(rules);
            let watch = Watch { old: Old::Warm(old, now), new, attempt, terms, gap_us };
            measured(watch, Judge::new(baseline, now), until, now, rules)
        }
        Event::Said(who, Said::Resigned(gap)) if who == old => {
            (stay(Cut { gap_us: Some(gap), ..cut }), vec![])
        }
        Event::Said(who, Said::Refused(order, why)) if who == old => {
            let verdict = Verdict::Unknown(format!("the serving worker refused {order}: {why}"));
            kill_new(cut, verdict, now, rules)
        }
        Event::Said(who, Said::Refused(order, why)) if who == id => {
            kill_new(cut, bad(format!("refused {order}: {why}")), now, rules)
        }
        Event::Said(who, Said::Suspects(kind, why)) if who == old => {
            kill_new(cut, suspected(kind, why), now, rules)
        }
        Event::Said(who, Said::Trouble(trouble, why)) if who == id || who == old => {
            match of_trouble(trouble, why) {
                Some(verdict) => kill_new(cut, verdict, now, rules),
                None => (stay(cut), vec![]),
            }
        }
        Event::Tick if now >= deadline => {
            kill_new(cut, bad("did not take over in time at the cut"), now, rules)
        }
        Event::Asked(Ask::Rollback { uid }) => kill_new(cut, asked_back(uid), now, rules),
        Event::Closed(who) if who == id => kill_new(cut, bad("closed its control channel"), now, rules),
        Event::Ended(who, how) if who == id => {
            resume_old(cut, bad(format!("{how} at the cut")), vec![], now, rules)
        }
        Event::Closed(who) if who == old => (stay(cut), vec![Effect::Kill(old)]),
        Event::Ended(who, how) if who == old => {
            let verdict = Verdict::Unknown(format!("the old worker {how} at the cut"));
            lost_old(cut, verdict, now, rules)
        }
        Event::Tick
        | Event::Asked(Ask::Upgrade { .. } | Ask::Reconsider | Ask::Stop)
        | Event::Acquired(_)
        | Event::Launched(_)
        | Event::Stored(_)
        | Event::Said(..)
        | Event::Ended(..)
        | Event::Closed(_) => (stay(cut), vec![]),
    }
}

fn suspected(kind: Suspicion, why: String) -> Verdict {
    match kind {
        Suspicion::Silent | Suspicion::Failing => Verdict::Bad(why),
        Suspicion::Wrong => Verdict::Wrong(why),
    }
}

/// What a trouble after the order to cut means for the new release, if anything.
fn of_trouble(trouble: Trouble, why: String) -> Option<Verdict> {
    match trouble {
        Trouble::Poisoned | Trouble::SyncFailed | Trouble::LogbookDropped => Some(Verdict::Unknown(why)),
        Trouble::RecordRefused => Some(Verdict::Wrong(why)),
        Trouble::Damage | Trouble::CannotStart => Some(Verdict::Bad(why)),
        Trouble::Housekeeping => None,
    }
}

/// The new worker must go and the old one lives.
fn kill_new(cut: Cut, verdict: Verdict, now: Moment, rules: &Rules) -> Step {
    let Cut { old, new, attempt, terms, gap_us } = cut;
    let kill = vec![Effect::Kill(new.instance)];
    let deadline = now + rules.kill_alarm;
    (State::RollingBack { old, new, attempt, terms, step: Back::Killing, verdict, gap_us, deadline }, kill)
}

/// The new worker is dead, confirmed; the old one takes authority back.
fn resume_old(cut: Cut, verdict: Verdict, mut effects: Vec<Effect>, now: Moment, rules: &Rules) -> Step {
    let Cut { old, new, attempt, terms, gap_us } = cut;
    effects.push(Effect::Tell(old.instance, Command::Resume { term: terms.resume }));
    effects.push(Effect::Tell(old.instance, Command::PeerGone { tag: new.tag }));
    let deadline = now + rules.resume;
    (
        State::RollingBack { old, new, attempt, terms, step: Back::Resuming, verdict, gap_us, deadline },
        effects,
    )
}

/// The old worker is dead before it was certain that the new one holds, or after the new one was told
/// to yield: nobody may hold but the committed pair, started anew.
fn lost_old(cut: Cut, verdict: Verdict, now: Moment, rules: &Rules) -> Step {
    let Cut { old, new, attempt, terms, gap_us } = cut;
    let effects = vec![
        Effect::Kill(new.instance),
        Effect::Discard { logs: vec![terms.held, terms.take], generations: vec![new.generation] },
        Effect::conclude(attempt, verdict, gap_us),
    ];
    clear(vec![new], After::Cold(old.release, old.generation), effects, now, rules)
}

impl Rehearsal {
    /// How long the new worker is watched.
    pub(super) fn watch(self, rules: &Rules) -> std::time::Duration {
        match self {
            Rehearsal::Cut | Rehearsal::Back => rules.rehearsal,
            Rehearsal::Off | Rehearsal::Again => rules.probation,
        }
    }

    /// A gap that a rehearsal does not let pass.
    fn bump(self, gap_us: u64, rules: &Rules) -> Option<Verdict> {
        let allowed = u64::try_from(rules.rehearsal_gap.as_micros()).unwrap_or(u64::MAX);
        match self {
            Rehearsal::Off => None,
            Rehearsal::Cut | Rehearsal::Back | Rehearsal::Again => (gap_us > allowed).then(|| {
                bad(format!(
                    "nothing was served for {} ms, {} are allowed",
                    gap_us as f64 / 1000.0,
                    allowed as f64 / 1000.0
                ))
            }),
        }
    }
}

/// The new worker holds. Once the gap of a cut is known, a rehearsal judges it; with that of the third
/// cut it is over.
fn measured(mut watch: Watch, judge: Judge, until: Moment, now: Moment, rules: &Rules) -> Step {
    if let Some(gap_us) = watch.gap_us {
        if let Some(verdict) = watch.attempt.rehearsal.bump(gap_us, rules) {
            return reverse(watch, Return::Ends(verdict), now, rules);
        }
        if watch.attempt.rehearsal == Rehearsal::Again {
            watch.attempt.rehearsal = Rehearsal::Off;
        }
    }
    let Watch { old, new, attempt, terms, gap_us } = watch;
    (State::Probation { old, new, attempt, terms, gap_us, judge, until }, vec![])
}

fn probation(
    watch: Watch,
    mut judge: Judge,
    until: Moment,
    event: Event,
    now: Moment,
    rules: &Rules,
) -> Step {
    let id = watch.new.instance;
    let warm = watch.old.warm().map(|worker| worker.instance);
    let stay = |Watch { old, new, attempt, terms, gap_us }: Watch, judge: Judge| State::Probation {
        old,
        new,
        attempt,
        terms,
        gap_us,
        judge,
        until,
    };
    match event {
        Event::Said(who, Said::Heartbeat(beat)) if who == id => {
            match judge.heartbeat(&beat, now, &rules.limits) {
                Some(verdict) => condemned(watch, verdict, now, rules),
                None => (stay(watch, judge), vec![]),
            }
        }
        Event::Said(who, Said::Heartbeat(beat)) if Some(who) == warm => {
            if beat.lag > rules.limits.lag {
                let why = format!(
                    "the old worker fell {} records behind, {} are allowed",
                    beat.lag, rules.limits.lag
                );
                return condemned(watch, Verdict::Unknown(why), now, rules);
            }
            let old = Old::Warm(watch.old.worker().clone(), now);
            let watch = Watch { old, ..watch };
            // In a rehearsal not even one may fail that would be chance otherwise.
            if watch.attempt.rehearsal == Rehearsal::Cut && beat.canary_failed > 0 {
                return reverse(watch, Return::Ends(canaries(beat.canary_failed)), now, rules);
            }
            (stay(watch, judge), vec![])
        }
        Event::Said(who, Said::Resigned(gap)) if Some(who) == warm => {
            measured(Watch { gap_us: Some(gap), ..watch }, judge, until, now, rules)
        }
        Event::Said(who, Said::Suspects(kind, why)) if Some(who) == warm => {
            condemned(watch, suspected(kind, why), now, rules)
        }
        Event::Said(who, Said::Trouble(trouble, why)) if who == id || Some(who) == warm => {
            match of_trouble(trouble, why) {
                Some(verdict) => condemned(watch, verdict, now, rules),
                None => (stay(watch, judge), vec![]),
            }
        }
        Event::Tick => {
            if let Some(verdict) = judge.tick(now, &rules.limits) {
                return condemned(watch, verdict, now, rules);
            }
            if let Old::Warm(worker, heard) = &watch.old
                && now >= *heard + rules.limits.silence
            {
                let kill = vec![Effect::Kill(worker.instance)];
                let old = Old::Warm(worker.clone(), now);
                return (stay(Watch { old, ..watch }, judge), kill);
            }
            if now < until {
                return (stay(watch, judge), vec![]);
            }
            match watch.attempt.rehearsal {
                Rehearsal::Off | Rehearsal::Again => begin_commit(watch, judge.heard(), now, rules),
                Rehearsal::Cut | Rehearsal::Back => rehearse_back(watch, now, rules),
            }
        }
        Event::Asked(Ask::Rollback { uid }) => reverse(watch, Return::Ends(asked_back(uid)), now, rules),
        // A supervisor before this one had ordered the way back, and its order was carried out just now.
        Event::Said(who, Said::Resigned(gap)) if who == id => match watch.old {
            Old::Warm(old, _) => {
                let Watch { new, attempt, terms, .. } = watch;
                let why = "it was taken back while the supervisor was replaced";
                let cut = Cut { old, new, attempt, terms, gap_us: Some(gap) };
                drain_new(cut, Return::Ends(Verdict::Unknown(why.into())), now, rules)
            }
            Old::Gone(_) => (stay(watch, judge), vec![]),
        },
        Event::Ended(who, how) if who == id => {
            new_died(watch, bad(format!("{how} on probation")), now, rules)
        }
        Event::Closed(who) if who == id => condemned(watch, bad("closed its control channel"), now, rules),
        Event::Closed(who) if Some(who) == warm => (stay(watch, judge), vec![Effect::Kill(who)]),
        Event::Ended(who, _) if Some(who) == warm => {
            let (old, effects) = bury_old(&watch);
            let mut watch = Watch { old, ..watch };
            if watch.attempt.rehearsal != Rehearsal::Cut {
                return (stay(watch, judge), effects);
            }
            // There is nothing to go back to, and nothing is wrong with the one that serves: ending it for
            // the rehearsal's sake would be the bump. It is watched as if there had been none.
            watch.attempt.rehearsal = Rehearsal::Off;
            let until = now + rules.probation;
            let Watch { old, new, attempt, terms, gap_us } = watch;
            (State::Probation { old, new, attempt, terms, gap_us, judge, until }, effects)
        }
        Event::Asked(Ask::Upgrade { .. } | Ask::Reconsider | Ask::Stop)
        | Event::Acquired(_)
        | Event::Launched(_)
        | Event::Stored(_)
        | Event::Said(..)
        | Event::Ended(..)
        | Event::Closed(_) => (stay(watch, judge), vec![]),
    }
}

/// The old worker died after `Took`: the new one goes on alone and answers for its tag.
fn bury_old(watch: &Watch) -> (Old, Vec<Effect>) {
    let worker = watch.old.worker().clone();
    let effects = vec![
        Effect::Tell(watch.new.instance, Command::PeerGone { tag: worker.tag }),
        Effect::Alarm(format!(
            "the old worker {} died while it watched; {} goes on alone",
            worker.instance, watch.attempt.to
        )),
    ];
    (Old::Gone(worker), effects)
}

/// The new worker is bad: kill it. If the old one is warm it resumes, otherwise its pair starts cold.
fn condemned(watch: Watch, verdict: Verdict, now: Moment, rules: &Rules) -> Step {
    let Watch { old, new, attempt, terms, gap_us: _ } = watch;
    match old {
        Old::Warm(old, _) => kill_new(Cut { old, new, attempt, terms, gap_us: None }, verdict, now, rules),
        Old::Gone(old) => lost_old(Cut { old, new, attempt, terms, gap_us: None }, verdict, now, rules),
    }
}

/// The new worker is dead, before the commit point.
fn new_died(watch: Watch, verdict: Verdict, now: Moment, rules: &Rules) -> Step {
    let Watch { old, new, attempt, terms, gap_us: _ } = watch;
    match old {
        Old::Warm(old, _) => {
            resume_old(Cut { old, new, attempt, terms, gap_us: None }, verdict, vec![], now, rules)
        }
        Old::Gone(old) => {
            let effects = vec![
                Effect::Discard { logs: vec![terms.held, terms.take], generations: vec![new.generation] },
                Effect::conclude(attempt, verdict, None),
            ];
            clear(vec![], After::Cold(old.release, old.generation), effects, now, rules)
        }
    }
}

// --------------------------------------------------------------------------------------- the commit

fn begin_commit(watch: Watch, heard: Moment, now: Moment, rules: &Rules) -> Step {
    let (step, order) = match watch.old {
        Old::Warm(..) => {
            let mark = mark_of(&watch.new, true);
            (Commit::Hashing(Hashes { mark, seen: vec![] }), Command::Mark { id: mark })
        }
        Old::Gone(_) => (Commit::Persisting(1), Command::Persist),
    };
    let effects = vec![Effect::Tell(watch.new.instance, order)];
    let deadline = match step {
        Commit::Hashing(_) => now + rules.level,
        Commit::Persisting(_) | Commit::Retiring | Commit::Recording | Commit::Sealing | Commit::Draining => {
            now + rules.persist
        }
    };
    (commit_at(watch, step, deadline, heard), effects)
}

pub(super) fn seal(
    old: Old,
    new: Worker,
    attempt: Attempt,
    terms: Terms,
    gap_us: Option<u64>,
    now: Moment,
    rules: &Rules,
) -> Step {
    let tell = vec![Effect::Tell(new.instance, Command::Commit { term: terms.take })];
    let watch = Watch { old, new, attempt, terms, gap_us };
    (commit_at(watch, Commit::Sealing, now + rules.persist, now), tell)
}

fn commit_at(watch: Watch, step: Commit, deadline: Moment, heard: Moment) -> State {
    let Watch { old, new, attempt, terms, gap_us } = watch;
    State::Committing { old, new, attempt, terms, gap_us, step, deadline, heard }
}

fn committing(
    watch: Watch,
    step: Commit,
    deadline: Moment,
    mut heard: Moment,
    event: Event,
    now: Moment,
    rules: &Rules,
) -> Step {
    let id = watch.new.instance;
    let warm = watch.old.warm().map(|worker| worker.instance);
    let before_point = match step {
        Commit::Hashing(_) | Commit::Persisting(_) | Commit::Retiring => true,
        Commit::Recording | Commit::Sealing | Commit::Draining => false,
    };
    let persist = || vec![Effect::Tell(id, Command::Persist)];
    let next = |watch, step, wait, effects| (commit_at(watch, step, now + wait, heard), effects);
    match (step, event) {
        (Commit::Hashing(hashes), Event::Said(who, Said::Hash(mark, hash)))
            if who == id || Some(who) == warm =>
        {
            match hashes.with(mark, who, hash) {
                Compared::Waiting(hashes) => {
                    (commit_at(watch, Commit::Hashing(hashes), deadline, heard), vec![])
                }
                Compared::Different => condemned(watch, different(), now, rules),
                Compared::Equal => next(watch, Commit::Persisting(1), rules.persist, persist()),
            }
        }
        (Commit::Persisting(answers), Event::Said(who, Said::Persisted)) if who == id && answers > 1 => {
            (commit_at(watch, Commit::Persisting(answers - 1), deadline, heard), vec![])
        }
        (Commit::Persisting(_), Event::Said(who, Said::Persisted)) if who == id => match warm {
            Some(old) => {
                let retire = vec![Effect::Tell(old, Command::Retire { term: watch.terms.take })];
                next(watch, Commit::Retiring, rules.retire, retire)
            }
            None => {
                let record = vec![record(&watch)];
                next(watch, Commit::Recording, rules.persist, record)
            }
        },
        (Commit::Retiring, Event::Said(who, Said::Retired(_))) if Some(who) == warm => {
            let record = vec![record(&watch)];
            next(watch, Commit::Recording, rules.persist, record)
        }
        (Commit::Recording, Event::Stored(Stored::Recorded(_))) => {
            let Watch { old, new, attempt, terms, gap_us } = watch;
            seal(old, new, attempt, terms, gap_us, now, rules)
        }
        (Commit::Recording, Event::Stored(Stored::NotRecorded(why))) => {
            let alarm =
                Effect::Alarm(format!("the committed record cannot be written: {why}. It is tried again"));
            (commit_at(watch, Commit::Recording, now + RECORD_AGAIN, heard), vec![alarm])
        }
        (Commit::Recording, Event::Tick) if now >= deadline => {
            let record = vec![record(&watch)];
            next(watch, Commit::Recording, rules.persist, record)
        }
        (Commit::Sealing, Event::Said(who, Said::Sealed(term))) if who == id && term == watch.terms.take => {
            match warm {
                Some(old) => {
                    let drain = Command::Drain {
                        stagger_ms: millis(rules.stagger),
                        deadline_ms: millis(rules.drain),
                    };
                    let tell = vec![Effect::Tell(old, drain)];
                    next(watch, Commit::Draining, rules.drain + rules.persist, tell)
                }
                None => committed(watch, heard),
            }
        }
        // It writes nothing more, and nobody else may: only a start reads the logbook that it could not end.
        (Commit::Sealing, Event::Said(who, Said::Trouble(Trouble::Poisoned, _))) if who == id => {
            (commit_at(watch, Commit::Sealing, deadline, heard), vec![Effect::Kill(id)])
        }
        (Commit::Sealing, Event::Tick) if now >= deadline => {
            let effects = vec![
                Effect::Tell(id, Command::Commit { term: watch.terms.take }),
                Effect::Alarm("the new worker has not ended its logbook yet; it serves on".into()),
            ];
            next(watch, Commit::Sealing, rules.persist, effects)
        }
        (Commit::Draining, Event::Ended(who, _)) if Some(who) == warm => committed(watch, heard),
        (Commit::Draining, Event::Tick) if now >= deadline => {
            let kill = warm.map(Effect::Kill).into_iter().collect();
            next(watch, Commit::Draining, rules.kill_alarm, kill)
        }
        // The old one does not answer: it is killed, and the new one is looked at once more after that.
        (step @ (Commit::Hashing(_) | Commit::Retiring), Event::Tick) if now >= deadline => {
            let new_is_silent =
                matches!(&step, Commit::Hashing(hashes) if !hashes.seen.iter().any(|(who, _)| *who == id));
            if new_is_silent {
                return condemned(watch, bad("did not hash its state in time"), now, rules);
            }
            let kill = warm.map(Effect::Kill).into_iter().collect();
            next(watch, step, rules.kill_alarm, kill)
        }
        (Commit::Persisting(_), Event::Tick) if now >= deadline => {
            let verdict = Verdict::Unknown("its database was not durable in time".into());
            condemned(watch, verdict, now, rules)
        }
        (step, Event::Ended(who, _)) if Some(who) == warm => {
            let (old, mut effects) = bury_old(&watch);
            let watch = Watch { old, ..watch };
            if before_point {
                effects.extend(persist());
                let outstanding = match step {
                    Commit::Persisting(answers) => answers,
                    Commit::Hashing(_) | Commit::Retiring => 0,
                    Commit::Recording | Commit::Sealing | Commit::Draining => 0,
                };
                return next(watch, Commit::Persisting(outstanding + 1), rules.persist, effects);
            }
            (commit_at(watch, step, deadline, heard), effects)
        }
        (step, Event::Closed(who)) if Some(who) == warm => {
            (commit_at(watch, step, deadline, heard), vec![Effect::Kill(who)])
        }
        (Commit::Retiring, Event::Said(who, Said::Refused(..))) if Some(who) == warm => {
            next(watch, Commit::Retiring, rules.kill_alarm, vec![Effect::Kill(who)])
        }
        (step, Event::Said(who, Said::Heartbeat(_))) if who == id => {
            heard = now;
            (commit_at(watch, step, deadline, heard), vec![])
        }
        (_, Event::Asked(Ask::Rollback { uid })) if before_point => {
            condemned(watch, asked_back(uid), now, rules)
        }
        (_, Event::Said(who, Said::Suspects(kind, why))) if before_point && Some(who) == warm => {
            condemned(watch, suspected(kind, why), now, rules)
        }
        (step, Event::Said(who, Said::Trouble(trouble, why)))
            if before_point && (who == id || Some(who) == warm) =>
        {
            match of_trouble(trouble, why) {
                Some(verdict) => condemned(watch, verdict, now, rules),
                None => (commit_at(watch, step, deadline, heard), vec![]),
            }
        }
        (step, Event::Tick) if now >= heard + rules.limits.silence => {
            if before_point {
                return condemned(watch, bad("hangs"), now, rules);
            }
            // Forward only: its death, which follows, restarts it on its own generation.
            (commit_at(watch, step, deadline, now), vec![Effect::Kill(id)])
        }
        (_, Event::Closed(who)) if who == id && before_point => {
            condemned(watch, bad("closed its control channel"), now, rules)
        }
        (step, Event::Closed(who)) if who == id => {
            (commit_at(watch, step, deadline, heard), vec![Effect::Kill(id)])
        }
        (_, Event::Ended(who, how)) if who == id && before_point => {
            new_died(watch, bad(format!("{how} before it was committed")), now, rules)
        }
        (step, Event::Ended(who, how)) if who == id => died_after_commit(watch, &step, how, now, rules),
        (
            step,
            Event::Tick
            | Event::Asked(_)
            | Event::Acquired(_)
            | Event::Launched(_)
            | Event::Stored(_)
            | Event::Said(..)
            | Event::Ended(..)
            | Event::Closed(_),
        ) => (commit_at(watch, step, deadline, heard), vec![]),
    }
}

/// How long after a failed write of the committed record it is written again.
pub(super) const RECORD_AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

fn record(watch: &Watch) -> Effect {
    Effect::Record {
        release: watch.new.release.clone(),
        generation: watch.new.generation,
        term: RecordTerm::Held(watch.terms.take),
    }
}

/// Behind the commit point there is no way back: the new pair is what starts.
fn died_after_commit(watch: Watch, step: &Commit, how: Ending, now: Moment, rules: &Rules) -> Step {
    let Watch { old, new, attempt, terms, gap_us } = watch;
    let mut effects =
        vec![Effect::Alarm(format!("release {} {how} while it was committed; it starts again", new.release))];
    let dying: Vec<Worker> = old.warm().into_iter().cloned().collect();
    effects.extend(dying.iter().map(|worker| Effect::Kill(worker.instance)));
    let old = old.worker().generation;
    let after = match step {
        Commit::Sealing | Commit::Draining => {
            effects.push(Effect::Discard { logs: vec![terms.held, terms.take], generations: vec![old] });
            effects.push(Effect::conclude(attempt, Verdict::Good, gap_us));
            After::Cold(new.release, new.generation)
        }
        Commit::Hashing(_) | Commit::Persisting(_) | Commit::Retiring | Commit::Recording => {
            After::Record { worker: new, old, attempt, terms, gap_us }
        }
    };
    clear(dying, after, effects, now, rules)
}

fn committed(watch: Watch, heard: Moment) -> Step {
    let Watch { old, new, attempt, terms, gap_us } = watch;
    let old = old.worker();
    let effects = vec![
        Effect::Tell(new.instance, Command::PeerGone { tag: old.tag }),
        Effect::Discard { logs: vec![terms.held, terms.take], generations: vec![old.generation] },
        Effect::conclude(attempt, Verdict::Good, gap_us),
    ];
    (State::Steady(Serving::new(new, terms.take, heard)), effects)
}

// -------------------------------------------------------------------------------------- the way back

fn canaries(failed: u64) -> Verdict {
    bad(format!("{failed} canary requests failed"))
}

/// The short watch of a rehearsal is over, and nothing bumped.
fn rehearse_back(mut watch: Watch, now: Moment, rules: &Rules) -> Step {
    let Some(cut_us) = watch.gap_us else {
        let why = "the supervisor was replaced in the middle of it, so it was not measured".to_owned();
        return reverse(watch, Return::Ends(Verdict::Unknown(why)), now, rules);
    };
    watch.attempt.rehearsal = Rehearsal::Back;
    reverse(watch, Return::Rehearsed { cut_us, moved: false }, now, rules)
}

/// Nothing is wrong with the new worker, or nothing for which its connections need to suffer: the same
/// cut the other way round. Without an old worker that could take over there is no such way.
fn reverse(watch: Watch, why: Return, now: Moment, rules: &Rules) -> Step {
    let Watch { old, new, attempt, terms, gap_us } = watch;
    let Old::Warm(old, _) = old else {
        let verdict = why.or(Verdict::Unknown("the old worker has died".into()));
        return condemned(Watch { old, new, attempt, terms, gap_us }, verdict, now, rules);
    };
    let prepare = Effect::Tell(old.instance, Command::Prepare { term: terms.resume, reserve: None });
    let (step, deadline) = (Reverse::Preparing, now + rules.retire);
    (State::Reversing { old, new, attempt, terms, step, why, gap_us: None, deadline }, vec![prepare])
}

/// The old worker holds again. The new one, which never will, relays to it and sends its connections
/// there; only when its process has ended does anybody answer for its tag.
pub(super) fn drain_new(cut: Cut, why: Return, now: Moment, rules: &Rules) -> Step {
    let Cut { old, new, attempt, terms, gap_us } = cut;
    let drain = Command::Drain { stagger_ms: millis(rules.stagger), deadline_ms: millis(rules.drain) };
    let tell = vec![Effect::Tell(new.instance, drain)];
    // It closes what is left at the end of the drain and then exits by itself.
    let (step, deadline) = (Reverse::Draining(now), now + rules.drain + rules.kill_alarm);
    (State::Reversing { old, new, attempt, terms, step, why, gap_us, deadline }, tell)
}

/// The new worker has ended and the old one holds, and answers for its tag.
fn handed_back(cut: Cut, why: Return, heard: Moment, how: Ending, now: Moment, rules: &Rules) -> Step {
    let Cut { old, new, attempt, terms, gap_us } = cut;
    let mut effects = vec![Effect::Tell(old.instance, Command::PeerGone { tag: new.tag })];
    match why {
        Return::Rehearsed { cut_us, moved: true } => {
            effects.push(Effect::Discard {
                logs: vec![terms.held, terms.take],
                generations: vec![new.generation],
            });
            effects.push(Effect::Rehearsed { attempt: attempt.clone(), cut_us, back_us: gap_us });
            let attempt = Attempt { rehearsal: Rehearsal::Again, ..attempt };
            let serving = Serving::new(old, terms.resume, heard);
            let (state, more) = start_new(Some(serving), attempt, now, rules);
            effects.extend(more);
            (state, effects)
        }
        why @ (Return::Ends(_) | Return::Rehearsed { moved: false, .. }) => {
            let verdict = why.or(bad(format!("{how} before its connections had moved")));
            effects.push(Effect::Tell(old.instance, Command::Persist));
            let (step, deadline) = (Back::Persisting(heard), now + rules.persist);
            (State::RollingBack { old, new, attempt, terms, step, verdict, gap_us, deadline }, effects)
        }
    }
}

fn reversing(
    cut: Cut,
    step: Reverse,
    why: Return,
    deadline: Moment,
    event: Event,
    now: Moment,
    rules: &Rules,
) -> Step {
    let (old, id, term) = (cut.old.instance, cut.new.instance, cut.terms.resume);
    let at = |Cut { old, new, attempt, terms, gap_us }: Cut, step, deadline, why| State::Reversing {
        old,
        new,
        attempt,
        terms,
        step,
        why,
        gap_us,
        deadline,
    };
    match (step, event) {
        (Reverse::Preparing, Event::Said(who, Said::Prepared(prepared)))
            if who == old && prepared == term =>
        {
            let order = Command::Cut { term, resume: 0, window_ms: millis(rules.window) };
            let deadline = now + rules.window + rules.cut;
            (at(cut, Reverse::Cutting, deadline, why), vec![Effect::Tell(id, order)])
        }
        // Said once it relays: before that, a drain would send its clients away unanswered.
        (Reverse::Preparing | Reverse::Cutting, Event::Said(who, Said::Resigned(gap))) if who == id => {
            let why = match (why, cut.attempt.rehearsal.bump(gap, rules)) {
                (Return::Rehearsed { .. }, Some(verdict)) => Return::Ends(verdict),
                (why, Some(_) | None) => why,
            };
            drain_new(Cut { gap_us: Some(gap), ..cut }, why, now, rules)
        }
        (Reverse::Preparing | Reverse::Cutting, Event::Said(who, Said::Refused(order, reason)))
            if who == id =>
        {
            kill_new(cut, why.or(bad(format!("refused {order}: {reason}"))), now, rules)
        }
        (Reverse::Preparing | Reverse::Cutting, Event::Said(who, Said::Refused(order, reason)))
            if who == old =>
        {
            let verdict = Verdict::Unknown(format!("the old worker refused {order}: {reason}"));
            kill_new(cut, why.or(verdict), now, rules)
        }
        (Reverse::Preparing | Reverse::Cutting, Event::Said(who, Said::Suspects(kind, reason)))
            if who == old =>
        {
            kill_new(cut, why.or(suspected(kind, reason)), now, rules)
        }
        (Reverse::Preparing | Reverse::Cutting, Event::Said(who, Said::Trouble(trouble, reason)))
            if who == id || who == old =>
        {
            match of_trouble(trouble, reason) {
                Some(verdict) => kill_new(cut, why.or(verdict), now, rules),
                None => (at(cut, step, deadline, why), vec![]),
            }
        }
        (Reverse::Preparing, Event::Tick) if now >= deadline => {
            let verdict = Verdict::Unknown("the old worker did not get ready in time".into());
            kill_new(cut, why.or(verdict), now, rules)
        }
        (Reverse::Cutting, Event::Tick) if now >= deadline => {
            kill_new(cut, why.or(bad("did not hand back in time")), now, rules)
        }
        (Reverse::Preparing | Reverse::Cutting, Event::Closed(who)) if who == id => {
            kill_new(cut, why.or(bad("closed its control channel")), now, rules)
        }
        (Reverse::Preparing | Reverse::Cutting, Event::Ended(who, how)) if who == id => {
            resume_old(cut, why.or(bad(format!("{how} on the way back"))), vec![], now, rules)
        }
        (Reverse::Draining(_), Event::Said(who, Said::Drained(cut_off))) if who == id => {
            let why = match (why, cut_off) {
                (Return::Rehearsed { cut_us, .. }, 0) => Return::Rehearsed { cut_us, moved: true },
                (Return::Rehearsed { .. }, _) => Return::Ends(bad(format!(
                    "{cut_off} connections had not moved after {} s and were closed",
                    rules.drain.as_secs_f32()
                ))),
                (Return::Ends(verdict), _) => Return::Ends(verdict),
            };
            (at(cut, step, deadline, why), vec![])
        }
        (Reverse::Draining(heard), Event::Ended(who, how)) if who == id => {
            handed_back(cut, why, heard, how, now, rules)
        }
        (Reverse::Draining(_), Event::Tick) if now >= deadline => {
            let text = format!("worker {id} was sent away and has not ended by itself; it is killed");
            let effects = vec![Effect::Kill(id), Effect::Alarm(text)];
            (at(cut, step, now + rules.kill_alarm, why), effects)
        }
        (Reverse::Draining(heard), Event::Tick) if now >= heard + rules.limits.silence => {
            (at(cut, Reverse::Draining(now), deadline, why), vec![Effect::Kill(old)])
        }
        (step, Event::Said(who, Said::Heartbeat(beat))) if who == old => {
            let step = match step {
                Reverse::Draining(_) => Reverse::Draining(now),
                Reverse::Preparing | Reverse::Cutting => step,
            };
            // What it asked before it took back.
            let why = match why {
                Return::Rehearsed { .. } if beat.canary_failed > 0 => {
                    Return::Ends(canaries(beat.canary_failed))
                }
                why => why,
            };
            (at(cut, step, deadline, why), vec![])
        }
        // A rehearsal would go on after this; the way back that is under way ends it instead.
        (step, Event::Asked(Ask::Rollback { uid })) => {
            let why = Return::Ends(why.or(asked_back(uid)));
            (at(cut, step, deadline, why), vec![])
        }
        (step, Event::Closed(who)) if who == old => (at(cut, step, deadline, why), vec![Effect::Kill(old)]),
        (_, Event::Ended(who, how)) if who == old => {
            let verdict = Verdict::Unknown(format!("the old worker {how} on the way back"));
            lost_old(cut, why.or(verdict), now, rules)
        }
        (
            step,
            Event::Tick
            | Event::Asked(Ask::Upgrade { .. } | Ask::Reconsider | Ask::Stop)
            | Event::Acquired(_)
            | Event::Launched(_)
            | Event::Stored(_)
            | Event::Said(..)
            | Event::Ended(..)
            | Event::Closed(_),
        ) => (at(cut, step, deadline, why), vec![]),
    }
}

fn rolling_back(
    cut: Cut,
    step: Back,
    verdict: Verdict,
    deadline: Moment,
    event: Event,
    now: Moment,
    rules: &Rules,
) -> Step {
    let (old, id) = (cut.old.instance, cut.new.instance);
    let at = |Cut { old, new, attempt, terms, gap_us }: Cut, step, deadline, verdict| State::RollingBack {
        old,
        new,
        attempt,
        terms,
        step,
        verdict,
        gap_us,
        deadline,
    };
    match (step, event) {
        (Back::Killing, Event::Ended(who, how)) if who == id => {
            resume_old(cut, own_end(verdict, how, "after it took over"), vec![], now, rules)
        }
        (Back::Killing, Event::Tick) if now >= deadline => {
            let effects = vec![Effect::Kill(id), not_dead(&cut.new)];
            (at(cut, step, now + rules.kill_alarm, verdict), effects)
        }
        (Back::Killing, Event::Ended(who, how)) if who == old => {
            let alarm = format!("the old worker {how} before it could resume; its pair starts cold");
            let (state, mut effects) = lost_old(cut, verdict, now, rules);
            effects.push(Effect::Alarm(alarm));
            (state, effects)
        }
        (Back::Resuming, Event::Said(who, Said::Resumed(_, gap))) if who == old => {
            let gap_us = cut.gap_us.or(Some(gap));
            let tell = vec![Effect::Tell(old, Command::Persist)];
            (at(Cut { gap_us, ..cut }, Back::Persisting(now), now + rules.persist, verdict), tell)
        }
        (Back::Persisting(_), Event::Said(who, Said::Persisted)) if who == old => {
            let Cut { old, new, attempt, terms, gap_us } = cut;
            let effects = vec![
                Effect::Discard { logs: vec![terms.held, terms.take], generations: vec![new.generation] },
                Effect::conclude(attempt, verdict, gap_us),
            ];
            (State::Steady(Serving::new(old, terms.resume, now)), effects)
        }
        (Back::Persisting(_), Event::Said(who, Said::Heartbeat(_))) if who == old => {
            (at(cut, Back::Persisting(now), deadline, verdict), vec![])
        }
        (Back::Persisting(heard), Event::Tick) if now >= heard + rules.limits.silence => {
            (at(cut, Back::Persisting(now), deadline, verdict), vec![Effect::Kill(old)])
        }
        (Back::Persisting(_), Event::Tick) if now >= deadline => {
            let effects = vec![
                Effect::Tell(old, Command::Persist),
                Effect::Alarm(
                    "the resumed worker serves, but its database is not durable yet; it is asked again"
                        .into(),
                ),
            ];
            (at(cut, step, now + rules.persist, verdict), effects)
        }
        (Back::Resuming, Event::Tick) if now >= deadline => {
            let Cut { old, new, attempt, terms, gap_us } = cut;
            let effects = vec![
                Effect::Kill(old.instance),
                Effect::Alarm("the old worker did not resume in time; its pair starts cold".into()),
                Effect::Discard { logs: vec![terms.held, terms.take], generations: vec![new.generation] },
                Effect::conclude(attempt, verdict, gap_us),
            ];
            let after = After::Cold(old.release.clone(), old.generation);
            clear(vec![old], after, effects, now, rules)
        }
        (Back::Resuming | Back::Persisting(_), Event::Ended(who, how)) if who == old => {
            let Cut { old, new, attempt, terms, gap_us } = cut;
            let effects = vec![
                Effect::Alarm(format!("the old worker {how} after the roll-back; its pair starts cold")),
                Effect::Discard { logs: vec![terms.held, terms.take], generations: vec![new.generation] },
                Effect::conclude(attempt, verdict, gap_us),
            ];
            clear(vec![], After::Cold(old.release, old.generation), effects, now, rules)
        }
        (step, Event::Closed(who)) if who == old => {
            (at(cut, step, deadline, verdict), vec![Effect::Kill(old)])
        }
        (
            step,
            Event::Tick
            | Event::Asked(_)
            | Event::Acquired(_)
            | Event::Launched(_)
            | Event::Stored(_)
            | Event::Said(..)
            | Event::Ended(..)
            | Event::Closed(_),
        ) => (at(cut, step, deadline, verdict), vec![]),
    }
}

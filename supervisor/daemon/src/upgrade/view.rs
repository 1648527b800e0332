//! What a state says about itself: who serves, who lives, what is under way, when to look again.

use super::rules::Rules;
use super::state::{
    Attempt, Back, Cold, Commit, Moment, Old, Pair, Return, Reverse, Serving, State, Verdict, Worker,
};

impl State {
    /// The worker that serves with nobody else having a claim.
    pub fn serving(&self) -> Option<&Serving> {
        match self {
            State::Steady(serving)
            | State::Starting { serving, .. }
            | State::Syncing { serving, .. }
            | State::Level { serving, .. }
            | State::BackingOut { serving, .. } => Some(serving),
            State::Fetching { serving, .. } | State::Installing { serving, .. } => serving.as_ref(),
            State::Vacant | State::Cold { .. } | State::Cutting { .. } | State::Probation { .. } => None,
            State::Committing { .. } | State::Reversing { .. } | State::RollingBack { .. } => None,
            State::Clearing { .. } | State::Stopping { .. } | State::Stopped => None,
        }
    }

    pub(super) fn serving_mut(&mut self) -> Option<&mut Serving> {
        match self {
            State::Steady(serving)
            | State::Starting { serving, .. }
            | State::Syncing { serving, .. }
            | State::Level { serving, .. }
            | State::BackingOut { serving, .. } => Some(serving),
            State::Fetching { serving, .. } | State::Installing { serving, .. } => serving.as_mut(),
            State::Vacant | State::Cold { .. } | State::Cutting { .. } | State::Probation { .. } => None,
            State::Committing { .. } | State::Reversing { .. } | State::RollingBack { .. } => None,
            State::Clearing { .. } | State::Stopping { .. } | State::Stopped => None,
        }
    }

    /// The upgrade under way.
    pub fn attempt(&self) -> Option<&Attempt> {
        match self {
            State::Fetching { attempt, .. }
            | State::Installing { attempt, .. }
            | State::Starting { attempt, .. }
            | State::Syncing { attempt, .. }
            | State::Level { attempt, .. }
            | State::Cutting { attempt, .. }
            | State::Probation { attempt, .. }
            | State::Committing { attempt, .. }
            | State::Reversing { attempt, .. }
            | State::RollingBack { attempt, .. }
            | State::BackingOut { attempt, .. }
            | State::Cold { pair: Pair::Genesis(attempt), .. } => Some(attempt),
            State::Cold { pair: Pair::Committed(..), .. } | State::Vacant | State::Steady(_) => None,
            State::Clearing { .. } | State::Stopping { .. } | State::Stopped => None,
        }
    }

    /// How the upgrade under way will end, where that is settled already.
    pub fn verdict(&self) -> Option<&Verdict> {
        match self {
            State::BackingOut { verdict, .. }
            | State::Reversing { why: Return::Ends(verdict), .. }
            | State::RollingBack { verdict, .. } => Some(verdict),
            State::Vacant | State::Cold { .. } | State::Steady(_) | State::Fetching { .. } => None,
            State::Installing { .. } | State::Starting { .. } | State::Syncing { .. } => None,
            State::Level { .. } | State::Cutting { .. } | State::Probation { .. } => None,
            State::Reversing { why: Return::Rehearsed { .. }, .. } => None,
            State::Committing { .. } | State::Clearing { .. } => None,
            State::Stopping { .. } | State::Stopped => None,
        }
    }

    /// Whether an upgrade is so near its end that no operator takes it back any more. Once the old worker was told
    /// to retire it holds by an order alone; with the new one killed, nobody would serve if this supervisor died
    /// before it gave that order.
    pub fn is_ending(&self) -> bool {
        match self {
            State::Committing { step, .. } => match step {
                Commit::Hashing(_) | Commit::Persisting(_) => false,
                Commit::Retiring | Commit::Recording | Commit::Sealing | Commit::Draining => true,
            },
            State::Vacant | State::Cold { .. } | State::Steady(_) | State::Fetching { .. } => false,
            State::Installing { .. } | State::Starting { .. } | State::Syncing { .. } => false,
            State::Level { .. } | State::Cutting { .. } | State::Probation { .. } => false,
            State::Reversing { .. } | State::RollingBack { .. } | State::BackingOut { .. } => {
                self.verdict().is_some()
            }
            State::Clearing { .. } | State::Stopping { .. } | State::Stopped => false,
        }
    }

    /// Every process that lives, as far as this state knows.
    pub fn workers(&self) -> Vec<Worker> {
        let alone = |serving: &Serving| vec![serving.worker.clone()];
        let both = |serving: &Serving, new: &Worker| vec![serving.worker.clone(), new.clone()];
        match self {
            State::Vacant | State::Stopped => vec![],
            State::Cold { step, .. } => step.worker().into_iter().cloned().collect(),
            State::Steady(serving) => alone(serving),
            State::Fetching { serving, .. } | State::Installing { serving, .. } => {
                serving.iter().map(|serving| serving.worker.clone()).collect()
            }
            State::Starting { serving, new: None, .. } => alone(serving),
            State::Starting { serving, new: Some(new), .. }
            | State::Syncing { serving, new, .. }
            | State::Level { serving, new, .. }
            | State::BackingOut { serving, new, .. } => both(serving, new),
            State::Cutting { old, new, .. } | State::Reversing { old, new, .. } => {
                vec![old.clone(), new.clone()]
            }
            State::Probation { old, new, .. } | State::Committing { old, new, .. } => {
                old.warm().into_iter().chain([new]).cloned().collect()
            }
            State::RollingBack { old, new, step: Back::Killing, .. } => vec![old.clone(), new.clone()],
            State::RollingBack { old, step: Back::Resuming | Back::Persisting(_), .. } => vec![old.clone()],
            State::Clearing { dying: workers, .. } | State::Stopping { left: workers, .. } => workers.clone(),
        }
    }

    /// When the next `Tick` is due: a deadline, or the silence of a worker that has to be heard.
    pub fn next_tick(&self, rules: &Rules) -> Option<Moment> {
        let silent = |heard: Moment| heard + rules.limits.silence;
        let serving = self.serving().map(|serving| silent(serving.heard));
        let deadline = match self {
            // Whatever comes of these comes as an event of its own, however long it takes.
            State::Cold { step: Cold::Spawning | Cold::Recording(..) | Cold::Forbidden(_), .. } => None,
            State::Cold { deadline, .. }
            | State::Fetching { deadline, .. }
            | State::Installing { deadline, .. }
            | State::Starting { deadline, .. }
            | State::Syncing { deadline, .. }
            | State::Level { deadline, .. }
            | State::Cutting { deadline, .. }
            | State::BackingOut { alarm: deadline, .. }
            | State::Clearing { alarm: deadline, .. }
            | State::Stopping { deadline, .. } => Some(*deadline),
            State::Reversing { deadline, step: Reverse::Draining(heard), .. }
            | State::RollingBack { deadline, step: Back::Persisting(heard), .. } => {
                Some((*deadline).min(silent(*heard)))
            }
            State::Reversing { deadline, step: Reverse::Preparing | Reverse::Cutting, .. } => Some(*deadline),
            State::RollingBack { deadline, step: Back::Killing | Back::Resuming, .. } => Some(*deadline),
            State::Probation { until, judge, old, .. } => {
                let old = match old {
                    Old::Warm(_, heard) => silent(*heard),
                    Old::Gone(_) => *until,
                };
                Some((*until).min(silent(judge.heard())).min(old))
            }
            State::Committing { deadline, heard, .. } => Some((*deadline).min(silent(*heard))),
            State::Vacant | State::Steady(_) | State::Stopped => None,
        };
        match (serving, deadline) {
            (Some(serving), Some(deadline)) => Some(serving.min(deadline)),
            (one, other) => one.or(other),
        }
    }

    /// Whether this process, which is about to run or has just begun to, is waited for. Verifying a binary takes
    /// a while, and what it was for may be over since, or something else have begun.
    pub fn awaits(&self, process: &Worker) -> bool {
        match self {
            State::Starting { new: None, attempt, .. } => attempt.to == process.release,
            State::Cold { pair, step: Cold::Spawning, .. } => match pair {
                Pair::Genesis(attempt) => attempt.to == process.release,
                Pair::Committed(release, generation) => {
                    *release == process.release && *generation == process.generation
                }
            },
            State::Starting { new: Some(_), .. } | State::Cold { .. } => false,
            State::Vacant | State::Steady(_) | State::Fetching { .. } | State::Installing { .. } => false,
            State::Syncing { .. } | State::Level { .. } | State::Cutting { .. } => false,
            State::Probation { .. } | State::Committing { .. } | State::Reversing { .. } => false,
            State::RollingBack { .. } | State::BackingOut { .. } | State::Clearing { .. } => false,
            State::Stopping { .. } | State::Stopped => false,
        }
    }
}

impl Cold {
    /// The process, if there is one.
    pub(super) fn worker(&self) -> Option<&Worker> {
        match self {
            Cold::Opening(worker)
            | Cold::Recording(worker, _)
            | Cold::Going(worker, _)
            | Cold::Failing(worker, _) => Some(worker),
            Cold::Spawning | Cold::Waiting(_) | Cold::Forbidden(_) => None,
        }
    }
}

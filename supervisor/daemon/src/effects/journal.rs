//! The journal: what the supervisor is in the middle of. It decides what is attempted next, never who
//! holds; and a generation or logbook that it does not name is never removed.

use bincode::{Decode, Encode};
use bumpless_shared::control::{Command, Generation, Instance, Report, Term};

use crate::records::file::RecordFile;
use crate::records::paths::Paths;
use crate::upgrade::State;
use crate::upgrade::recovery::Intent;

/// The record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Journal {
    /// The upgrade under way, from before its process exists until it is concluded.
    pub intent: Option<Intent>,
    /// Logbooks that nobody needs once the holder's database is durable.
    pub logs: Vec<Term>,
    /// Generations that nobody needs then.
    pub generations: Vec<Generation>,
}

/// Its file.
pub fn file(paths: &Paths) -> RecordFile<Journal> {
    RecordFile::new(paths.journal(), "the journal", 2)
}

impl Journal {
    /// Who may remove something now, and what.
    pub fn owed(&self, state: &State) -> Option<(Instance, Command)> {
        let serving = state.serving()?;
        // In an upgrade it writes a logbook of its own term, under the name that an old one had.
        let writes = (!matches!(state, State::Steady(_))).then_some(serving.term);
        let removal = self.removal(serving.worker.generation, writes)?;
        Some((serving.worker.instance, removal))
    }

    /// The upgrade has ended. A logbook may have been prepared for a cut that did not come.
    pub fn conclude(&mut self) {
        if let Some(terms) = self.intent.take().and_then(|intent| intent.terms) {
            self.discard(vec![terms.take], vec![]);
        }
    }

    /// What a holder of this generation may remove. It may be writing the logbook of this term just now.
    pub fn removal(&self, own: Generation, writes: Option<Term>) -> Option<Command> {
        let logs: Vec<Term> = self.logs.iter().copied().filter(|log| Some(*log) != writes).collect();
        let generations: Vec<Generation> =
            self.generations.iter().copied().filter(|generation| *generation != own).collect();
        (!logs.is_empty() || !generations.is_empty()).then_some(Command::Remove { logs, generations })
    }

    /// Names what lies on disk for nobody.
    pub fn discard(&mut self, logs: Vec<Term>, generations: Vec<Generation>) {
        for log in logs {
            if !self.logs.contains(&log) {
                self.logs.push(log);
            }
        }
        for generation in generations {
            if !self.generations.contains(&generation) {
                self.generations.push(generation);
            }
        }
    }

    /// Forgets what has been removed.
    pub fn removed(&mut self, logs: &[Term], generations: &[Generation]) {
        self.logs.retain(|log| !logs.contains(log));
        self.generations.retain(|generation| !generations.contains(generation));
    }
}

/// The logbooks that nobody needs any more by this report: a cold start has replayed all of them without
/// damage, and what they say is durable in its database.
pub fn replayed(state: &State, report: &Report) -> Vec<Term> {
    match (state, report) {
        (State::Cold { .. }, Report::Ready { logs, damage: None, .. }) => logs.clone(),
        _ => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_owed_stays_owed_until_it_was_removed_and_is_named_once() {
        let mut journal = Journal::default();
        journal.discard(vec![1, 2], vec![7]);
        journal.discard(vec![2], vec![7, 8]);
        assert_eq!((journal.logs.as_slice(), journal.generations.as_slice()), (&[1, 2][..], &[7, 8][..]));
        journal.removed(&[1, 2], &[7]);
        assert!(journal.removal(1, None).is_some());
        journal.removed(&[], &[8]);
        assert!(journal.removal(1, None).is_none());
    }

    #[test]
    fn a_holder_is_never_told_to_remove_what_it_uses() {
        let mut journal = Journal::default();
        journal.discard(vec![1, 2], vec![7, 8]);
        let all = Command::Remove { logs: vec![1, 2], generations: vec![7, 8] };
        assert_eq!(journal.removal(9, None), Some(all));
        let rest = Command::Remove { logs: vec![1], generations: vec![7] };
        assert_eq!(journal.removal(8, Some(2)), Some(rest));
        journal.removed(&[1], &[7]);
        assert_eq!(journal.removal(8, Some(2)), None);
    }
}

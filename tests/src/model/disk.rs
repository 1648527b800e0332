//! The disk as the model has it: every file twice, as it reads and as it would survive a power loss.
//!
//! What a record of a logbook means to a database is the product's decision ([`place`], [`missing`]); so
//! is where it is written ([`Role::route`](bumpless_worker::state::Role::route)). Here is only what bytes
//! do:
//!
//! - **A record of the supervisor** (`committed`, the journal) is replaced in two steps: then it reads as
//!   new, and once the directory is synced it is durable.
//! - **A database** is durable up to its last synced batch. Of what came after it anything may be there
//!   after a power loss: nothing, all, the new head without its rows, the rows without the head.
//! - **A logbook** that was made durably keeps what was synced; above that nothing, everything, or all but
//!   the first record, because pages are written in any order. One that was only buffered may be gone.
//! - The numbers are durable before they are handed out; removing a generation or a logbook is durable.

use std::collections::BTreeMap;

use bumpless_shared::control::{Generation, Incarnation, Instance, Sequence, Term};
use bumpless_shared::release::Release;
use bumpless_worker::state::{Missing, Place, Position, missing, place};
use bumplessd::effects::journal::Journal;

/// A client's write, by its number.
pub type Write = u8;

/// A file as it reads now, and as it would after a power loss.
#[derive(Clone, Debug, Default, PartialEq, Hash)]
pub struct Twofold<T> {
    /// Now.
    pub reads: T,
    /// After a power loss; it may also be what reads now.
    pub durable: T,
}

impl<T: Clone> Twofold<T> {
    /// On the disk.
    pub fn of(value: T) -> Twofold<T> {
        Twofold { reads: value.clone(), durable: value }
    }

    /// Makes what reads durable.
    pub fn sync(&mut self) {
        self.durable = self.reads.clone();
    }
}

/// The record of the committed pair.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Committed {
    /// What starts.
    pub release: Release,
    /// On what.
    pub generation: Generation,
    /// Its term.
    pub term: Term,
}

/// What a database holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Contents {
    /// Writes, each under the number of its record.
    pub rows: Vec<(Sequence, Write)>,
    /// The last record's.
    pub position: Position,
    /// Up to here everything is on the disk.
    pub floor: Sequence,
}

/// A generation.
pub type Database = Twofold<Contents>;

/// A record of a logbook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// Its number.
    pub sequence: Sequence,
    /// What it says; a mark's number is not needed again.
    pub what: What,
    /// What was known to be on the disk when it was written.
    pub durable: Sequence,
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// Both hash here.
    Mark(u64),
    /// A client's write.
    Write(Write),
}

/// A term's logbook.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Log {
    /// Whether header, name and what is synced survive a power loss.
    pub lasting: bool,
    /// In order.
    pub records: Vec<Record>,
    /// So many of them are on the disk.
    pub synced: usize,
    /// The first record's number, if there is one.
    pub next: Sequence,
}

impl Log {
    /// Without a record.
    pub fn new(lasting: bool, next: Sequence) -> Log {
        Log { lasting, records: vec![], synced: 0, next }
    }

    /// The highest number known to be on the disk.
    fn durable(&self) -> Sequence {
        match self.synced {
            0 => self.next - 1,
            synced => self.records[synced - 1].sequence,
        }
    }

    /// Appends one, unsynced.
    pub fn append(&mut self, sequence: Sequence, what: What) {
        let durable = self.durable();
        self.records.push(Record { sequence, what, durable });
    }

    /// Syncs what was appended.
    pub fn sync(&mut self) {
        if self.lasting {
            self.synced = self.records.len();
        }
    }

    /// What of it may be left by a power loss; `None`: nothing.
    fn after_power_loss(&self) -> Vec<Option<Log>> {
        let whole = |records: Vec<Record>| {
            let synced = records.len();
            Some(Log { records, synced, ..self.clone() })
        };
        let mut left = vec![whole(self.records.clone())];
        let mut add = |log| {
            if !left.contains(&log) {
                left.push(log);
            }
        };
        if !self.lasting {
            add(None);
        }
        add(whole(self.records[..self.synced].to_vec()));
        if self.records.len() > self.synced + 1 {
            let mut hole = self.records.clone();
            hole.remove(self.synced);
            add(whole(hole));
        }
        left
    }
}

/// What reading a logbook brought.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    /// The record that the next term's logbook has to begin with.
    pub next: Sequence,
    /// Marks that were met, with the writes that were there by then.
    pub marks: Vec<(u64, Vec<Write>)>,
    /// A record said something else than what is here under another number.
    pub refused: bool,
    /// Records that were durable once were missing.
    pub damaged: bool,
    /// A record was missing that nobody reported.
    pub gap: bool,
}

impl Contents {
    /// Whether a write is here.
    pub fn sequence_of(&self, write: Write) -> Option<Sequence> {
        self.rows.iter().find(|(_, there)| *there == write).map(|(sequence, _)| *sequence)
    }

    /// Every write that is here, rising.
    pub fn writes(&self) -> Vec<Write> {
        let mut writes: Vec<Write> = self.rows.iter().map(|(_, write)| *write).collect();
        writes.sort_unstable();
        writes
    }

    /// Puts a record in.
    pub fn put(&mut self, position: Position, what: What) {
        if let What::Write(write) = what
            && self.sequence_of(write).is_none()
        {
            self.rows.push((position.sequence, write));
            self.rows.sort_unstable();
        }
        self.position = self.position.max(position);
    }

    /// Reads the logbook of a term to its end, as a reader does that needs `next` first.
    pub fn replay(&mut self, term: Term, log: &Log, next: Sequence) -> Replayed {
        let mut replayed = Replayed { next, ..Replayed::default() };
        for (index, record) in log.records.iter().enumerate() {
            if record.sequence > replayed.next {
                let durable = log.records[index..].iter().map(|record| record.durable).max().unwrap_or(0);
                match missing(replayed.next, durable) {
                    Missing::Torn => return replayed,
                    Missing::Damaged => {
                        replayed.damaged = true;
                        let last = record.sequence - 1;
                        if last > self.position.sequence && term >= self.position.term {
                            self.position = Position { term, sequence: last };
                        }
                        replayed.next = record.sequence;
                    }
                }
            }
            if record.sequence == replayed.next {
                replayed.next += 1;
            }
            let found = Position { term, sequence: record.sequence };
            let moved = match place(self.position, self.floor, found) {
                Place::Known | Place::Outdated => continue,
                Place::Repair => false,
                Place::Next => true,
                Place::Gap => {
                    replayed.gap = true;
                    return replayed;
                }
            };
            if let What::Write(write) = record.what
                && self.sequence_of(write).is_some_and(|there| there != record.sequence)
            {
                replayed.refused = true;
            }
            let position = self.position;
            self.put(found, record.what);
            if !moved {
                self.position = position;
            } else if let What::Mark(mark) = record.what {
                replayed.marks.push((mark, self.writes()));
            }
        }
        replayed
    }
}

impl Database {
    /// Everything here is on the disk, and the floor says so.
    pub fn persist(&mut self) {
        self.reads.floor = self.reads.position.sequence;
        self.sync();
    }

    /// A batch.
    pub fn commit(&mut self, position: Position, what: Option<What>, synced: bool) {
        match what {
            Some(what) => self.reads.put(position, what),
            None => self.reads.position = position,
        }
        if synced {
            self.persist();
        }
    }

    fn after_power_loss(&self) -> Vec<Contents> {
        let (now, durable) = (&self.reads, &self.durable);
        let head_alone = Contents { rows: durable.rows.clone(), ..now.clone() };
        let rows_alone = Contents { rows: now.rows.clone(), ..durable.clone() };
        let mut left = vec![durable.clone()];
        for contents in [now.clone(), head_alone, rows_alone] {
            if !left.contains(&contents) {
                left.push(contents);
            }
        }
        left
    }
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Hash)]
pub struct Disk {
    /// What starts.
    pub committed: Twofold<Option<Committed>>,
    /// What is under way.
    pub journal: Twofold<Journal>,
    /// The highest that was handed out.
    pub numbers: Numbers,
    /// By number.
    pub generations: BTreeMap<Generation, Database>,
    /// By term.
    pub logs: BTreeMap<Term, Log>,
}

/// The highest numbers that were handed out; always durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Numbers {
    /// Of supervisors.
    pub incarnation: Incarnation,
    /// Of workers.
    pub instance: Instance,
    /// Of generations.
    pub generation: Generation,
    /// Of terms.
    pub term: Term,
}

/// How bad a power loss is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// Only what was synced is left.
    Unsynced,
    /// Everything is left.
    Nothing,
    /// Of databases the head is left and not the rows; of logbooks the last record and not the one
    /// before it.
    Scattered,
}

impl Loss {
    /// Each.
    pub const ALL: [Loss; 3] = [Loss::Unsynced, Loss::Nothing, Loss::Scattered];
}

/// What opening a generation and replaying every logbook brought.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// A record said something else than what is there under another number.
    pub refused: bool,
    /// Records that were durable once were missing.
    pub damaged: bool,
    /// A record was missing that nobody reported: it cannot be opened.
    pub gap: bool,
}

/// Replays every logbook into what a database holds, in the order of the terms, from the floor on.
pub fn recover<'a>(contents: &mut Contents, logs: impl Iterator<Item = (Term, &'a Log)>) -> Recovered {
    let mut recovered = Recovered::default();
    let mut next = contents.floor + 1;
    for (term, log) in logs {
        let replayed = contents.replay(term, log, next);
        next = replayed.next;
        recovered.refused |= replayed.refused;
        recovered.damaged |= replayed.damaged;
        recovered.gap |= replayed.gap;
    }
    recovered
}

impl Disk {
    /// The power fails now, this way. Both records may be found as they read or as they were.
    pub fn lose_power(&mut self, loss: Loss, replaced: bool) {
        for twofold in [&mut self.committed] {
            if replaced {
                twofold.sync();
            } else {
                twofold.reads = twofold.durable.clone();
            }
        }
        if replaced {
            self.journal.sync();
        } else {
            self.journal.reads = self.journal.durable.clone();
        }
        for database in self.generations.values_mut() {
            let now = database.reads.clone();
            match loss {
                Loss::Unsynced => database.reads = database.durable.clone(),
                Loss::Nothing => {}
                Loss::Scattered => database.reads = Contents { rows: database.durable.rows.clone(), ..now },
            }
            database.sync();
        }
        for (term, log) in std::mem::take(&mut self.logs) {
            let mut left = log.after_power_loss();
            let log = match loss {
                Loss::Nothing => left.swap_remove(0),
                Loss::Unsynced if log.lasting => {
                    Some(Log { records: log.records[..log.synced].to_vec(), ..log })
                }
                Loss::Unsynced => None,
                Loss::Scattered => left.pop().flatten(),
            };
            self.logs.extend(log.map(|log| (term, log)));
        }
    }

    /// Whether the committed pair would have all of these after a power loss, whatever that leaves. Says
    /// what it would lack.
    pub fn would_lose(&self, acked: &[(Write, Sequence)]) -> Option<String> {
        let mut starts = vec![self.committed.durable.clone()];
        if self.committed.reads != self.committed.durable {
            starts.push(self.committed.reads.clone());
        }
        for committed in starts {
            let Some(committed) = committed else {
                if acked.is_empty() {
                    continue;
                }
                return Some("there is no committed pair".to_owned());
            };
            let Some(database) = self.generations.get(&committed.generation) else {
                return Some(format!("generation {} is gone", committed.generation));
            };
            for contents in database.after_power_loss() {
                let mut logs: Vec<Vec<(Term, Log)>> = vec![vec![]];
                for (term, log) in &self.logs {
                    let variants = log.after_power_loss();
                    logs = logs
                        .iter()
                        .flat_map(|before| {
                            variants.iter().map(|log| {
                                let mut all = before.clone();
                                all.extend(log.clone().map(|log| (*term, log)));
                                all
                            })
                        })
                        .collect();
                }
                for logs in logs {
                    let mut found = contents.clone();
                    let recovered = recover(&mut found, logs.iter().map(|(term, log)| (*term, log)));
                    if recovered.gap {
                        return Some(format!("generation {} cannot be opened", committed.generation));
                    }
                    for (write, sequence) in acked {
                        if found.sequence_of(*write) != Some(*sequence) {
                            return Some(format!(
                                "write {write} (record {sequence}) would not be in generation {}",
                                committed.generation
                            ));
                        }
                    }
                }
            }
        }
        None
    }
}

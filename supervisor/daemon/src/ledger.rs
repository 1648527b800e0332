//! What the supervisor remembers for people and for its next decision: history, failed tries,
//! quarantine, hold, alarms. None of it can stop a kill or a resume: a record that cannot be written
//! holds in memory and is written later.

use bumpless_control::history::{Entry, Event as Happening, Index, Source};
use bumpless_control::status::{self, Alarm, Ending, Last};
use bumpless_control::{Unix, gap_ms};
use bumpless_shared::digest::Digest;
use bumpless_shared::release::Release;

use crate::config;
use crate::records::attempts::Attempts;
use crate::records::file::RecordError;
use crate::records::history::History;
use crate::records::hold::{Hold, HoldFile};
use crate::records::paths::Paths;
use crate::records::quarantine::{Quarantine, Quarantined};
use crate::upgrade::retry::{self, Next};
use crate::upgrade::{Attempt, Verdict};

/// Most alarms that status shows.
const ALARMS: usize = 8;

/// How far back the last upgrade is looked for when a supervisor starts.
const LOOK_BACK: usize = 1000;

/// All of it.
#[derive(Debug)]
pub struct Ledger {
    history: History,
    attempts: Attempts,
    quarantine: Quarantine,
    hold: HoldFile,
    alarms: Vec<(Cause, Alarm)>,
    last: Option<Last>,
    /// The release that an upgrade was begun to last, and what this was decided on.
    begun: Option<(Digest, Option<Index>, Option<Source>)>,
}

/// What an alarm is about, and so when it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Something that happened. An upgrade that goes well makes history of it.
    Happened,
    /// The feed offers what must not be believed. Over with a look that goes through.
    Feed,
    /// What was verified last is not valid any more. Over when something newer is verified.
    Expired,
    /// What is committed must not run. Over when something else is committed, or it may again.
    Revoked,
    /// What a package declares is refused. Over when a look finds nothing to refuse.
    Package,
}

impl Ledger {
    /// Opens the records; damaged ones are set aside, with an alarm.
    pub fn open(paths: &Paths, now: Unix) -> Ledger {
        let history = History::open(paths);
        let (attempts, one) = Attempts::open(paths);
        let (quarantine, two) = Quarantine::open(paths);
        let (hold, three) = HoldFile::open(paths);
        let newest = history.newest(LOOK_BACK).unwrap_or_default();
        let last = newest.iter().rev().find_map(last_of);
        // An upgrade that the supervisor before this one had begun may yet be concluded.
        let begun =
            newest.iter().rfind(|entry| entry.event == Happening::UpgradeStarted).and_then(decided_on);
        let mut ledger = Ledger { history, attempts, quarantine, hold, alarms: vec![], last, begun };
        for damage in [one, two, three].into_iter().flatten() {
            ledger.alarm(damage.to_string(), now);
        }
        ledger
    }

    /// One thing happened: a line for the history, and for the log.
    pub fn append(&mut self, entry: &Entry) {
        eprintln!("bumplessd: {}", line(entry));
        if entry.event == Happening::UpgradeStarted {
            self.begun = decided_on(entry);
        }
        if let Err(error) = self.history.append(entry) {
            eprintln!("bumplessd: {error}");
        }
    }

    /// Something that an operator should see has happened.
    pub fn alarm(&mut self, text: String, now: Unix) {
        self.alarm_about(Cause::Happened, text, now);
    }

    /// Something that an operator should see, until [`Ledger::over`] where it is a lasting cause.
    pub fn alarm_about(&mut self, cause: Cause, text: String, now: Unix) {
        self.append(&Entry { reason: Some(text.clone()), ..Entry::new(now, Happening::Alarm) });
        match self.alarms.iter_mut().find(|(about, alarm)| *about == cause && alarm.text == text) {
            Some((_, known)) => known.at = now,
            None => {
                if self.alarms.len() == ALARMS {
                    let oldest = self.alarms.iter().position(|(cause, _)| *cause == Cause::Happened);
                    self.alarms.remove(oldest.unwrap_or(0));
                }
                self.alarms.push((cause, Alarm { at: now, text }));
            }
        }
    }

    /// The alarm about this cause, or that it is over: as long as the words are the same, it is said once.
    pub fn lasting(&mut self, cause: Cause, text: Option<String>, now: Unix) {
        let same = |(about, alarm): &(Cause, Alarm)| *about == cause && text.as_ref() == Some(&alarm.text);
        if self.alarms.iter().any(same) {
            return;
        }
        self.over(cause);
        if let Some(text) = text {
            self.alarm_about(cause, text, now);
        }
    }

    /// Whether there is an alarm about this.
    pub fn is_alarmed(&self, cause: Cause) -> bool {
        self.alarms.iter().any(|(about, _)| *about == cause)
    }

    /// This cause is gone, and its alarms with it.
    pub fn over(&mut self, cause: Cause) {
        self.alarms.retain(|(about, _)| *about != cause);
    }

    /// Recent alarms, oldest first.
    pub fn alarms(&self) -> Vec<Alarm> {
        self.alarms.iter().map(|(_, alarm)| alarm.clone()).collect()
    }

    /// An upgrade went well: what happened before it is history, and what lasts lasts.
    pub fn all_well(&mut self) {
        self.over(Cause::Happened);
    }

    /// How the last upgrade ended.
    pub fn last(&self) -> Option<&Last> {
        self.last.as_ref()
    }

    /// Newest entries, oldest first.
    ///
    /// # Errors
    /// Those of reading the file.
    pub fn newest(&self, count: usize) -> Result<Vec<Entry>, RecordError> {
        self.history.newest(count)
    }

    /// Why the node is pinned, if it is.
    pub fn hold(&self) -> Option<&Hold> {
        self.hold.get()
    }

    /// Pins the node.
    ///
    /// # Errors
    /// Not written; it holds in memory until the supervisor ends.
    pub fn set_hold(&mut self, hold: Hold) -> Result<(), RecordError> {
        let (at, by, reason) = (hold.at, hold.by, hold.reason.clone());
        let written = self.hold.set(hold);
        self.append(&Entry { actor: by, reason: Some(reason), ..Entry::new(at, Happening::Held) });
        written
    }

    /// Frees the node; `false` if it was not pinned.
    ///
    /// # Errors
    /// Not written; it is free until the supervisor ends.
    pub fn clear_hold(&mut self, by: u32, now: Unix) -> Result<bool, RecordError> {
        let cleared = self.hold.clear()?;
        if cleared {
            self.append(&Entry { actor: Some(by), ..Entry::new(now, Happening::Unheld) });
        }
        Ok(cleared)
    }

    /// Why this release is never started again, if so.
    pub fn quarantined(&self, sha256: &Digest) -> Option<&str> {
        self.quarantine.find(sha256).map(|entry| entry.reason.as_str())
    }

    /// All of them, for status.
    pub fn quarantine(&self) -> Vec<status::Quarantined> {
        let shown = |entry: &Quarantined| status::Quarantined {
            release: entry.release.version.clone(),
            sha256: entry.release.sha256,
            reason: entry.reason.clone(),
            at: entry.at,
            output: entry.output.clone(),
        };
        self.quarantine.all().iter().map(shown).collect()
    }

    /// An operator sent it back, or it failed for good.
    pub fn put_in_quarantine(&mut self, release: &Release, reason: String, output: String, now: Unix) {
        let entry = Entry {
            to: Some(release.clone()),
            reason: Some(reason.clone()),
            ..Entry::new(now, Happening::Quarantined)
        };
        self.append(&entry);
        let entry = Quarantined { release: release.clone(), reason, at: now, output };
        if let Err(error) = self.quarantine.add(entry) {
            eprintln!("bumplessd: {error}. It holds in memory and is written again");
        }
    }

    /// When the next automatic try of this release is due, if it failed before.
    pub fn next_try(&self, sha256: &Digest, rules: &config::Upgrade) -> Option<Unix> {
        self.attempts.next_at(sha256, &rules.retry_after)
    }

    /// The clock says this, which may be earlier than what was written down.
    pub fn clock_says(&mut self, now: Unix) {
        if let Err(error) = self.attempts.clock_says(now) {
            eprintln!("bumplessd: {error}. It holds in memory and is written again");
        }
    }

    /// Which try of this release the next one is, from 1.
    pub fn attempt_number(&self, sha256: &Digest) -> u32 {
        u32::try_from(self.attempts.tries(sha256).bad.len()).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// An upgrade has ended: writes it down and says what follows for its release.
    pub fn conclude(
        &mut self,
        attempt: &Attempt,
        verdict: &Verdict,
        gap_us: Option<u64>,
        output: String,
        rules: &config::Upgrade,
        now: Unix,
    ) -> Next {
        let sha256 = attempt.to.sha256;
        let noted = match verdict {
            Verdict::Good => self.attempts.forget(&sha256),
            Verdict::Bad(_) | Verdict::Wrong(_) => self.attempts.failed(&sha256, now),
            Verdict::Unknown(_) => self.attempts.undecided(&sha256, now),
            Verdict::RolledBack(_) | Verdict::Withdrawn(_) => Ok(()),
        };
        if let Err(error) = noted {
            eprintln!("bumplessd: {error}");
        }
        let event = match (verdict, gap_us) {
            (Verdict::Good, _) => Happening::Committed,
            (Verdict::RolledBack(_), _) => Happening::RolledBack,
            (Verdict::Bad(_) | Verdict::Wrong(_) | Verdict::Unknown(_), Some(_)) => Happening::RolledBack,
            (Verdict::Withdrawn(_), Some(_)) => Happening::RolledBack,
            (Verdict::Bad(_) | Verdict::Wrong(_), None) => Happening::Failed,
            (Verdict::Unknown(_) | Verdict::Withdrawn(_), None) => Happening::Undecided,
        };
        let reason = match verdict {
            Verdict::Good => None,
            Verdict::Bad(_) | Verdict::Wrong(_) | Verdict::Unknown(_) => Some(verdict.reason().to_owned()),
            Verdict::RolledBack(_) | Verdict::Withdrawn(_) => Some(verdict.reason().to_owned()),
        };
        let begun = self.begun.clone().filter(|(begun, ..)| *begun == sha256);
        let (index, source) = begun.map(|(_, index, source)| (index, source)).unwrap_or_default();
        let entry = Entry {
            actor: attempt.by,
            from: attempt.from.clone(),
            to: Some(attempt.to.clone()),
            reason,
            gap_ms: gap_us.map(gap_ms),
            index,
            source,
            ..Entry::new(now, event)
        };
        self.append(&entry);
        self.last = last_of(&entry);
        let tries = self.attempts.tries(&sha256);
        let count = |times: &[Unix]| u32::try_from(times.len()).unwrap_or(u32::MAX);
        let next = retry::next(
            verdict,
            count(&tries.bad),
            count(&tries.undecided),
            rules.attempts,
            &rules.retry_after,
        );
        if let Next::Quarantine(reason) = &next {
            self.put_in_quarantine(&attempt.to, reason.clone(), output, now);
        }
        if *verdict == Verdict::Good {
            self.all_well();
        }
        next
    }

    /// Writes again what could not be written.
    pub fn retry(&mut self) {
        let failed = [
            self.attempts.is_written().then_some(()).map_or_else(|| self.attempts.retry(), Ok),
            self.quarantine.is_written().then_some(()).map_or_else(|| self.quarantine.retry(), Ok),
            self.hold.is_written().then_some(()).map_or_else(|| self.hold.retry(), Ok),
        ];
        for error in failed.into_iter().filter_map(Result::err) {
            eprintln!("bumplessd: {error}");
        }
    }

    /// Lifts a quarantine at an operator's word.
    pub fn lift(&mut self, sha256: &Digest) {
        if let Err(error) = self.quarantine.lift(sha256) {
            eprintln!("bumplessd: {error}");
        }
    }
}

/// An entry in one line; the log has the time from whoever collects it.
fn line(entry: &Entry) -> String {
    let mut line = entry.event.as_str().replace('_', " ");
    match (&entry.from, &entry.to) {
        (Some(from), Some(to)) => line += &format!(": {from} to {to}"),
        (None, Some(release)) | (Some(release), None) => line += &format!(": {release}"),
        (None, None) => {}
    }
    if let Some(gap) = entry.gap_ms {
        line += &format!(", {gap} ms without a holder");
    }
    if let Some(reason) = &entry.reason {
        line += &format!(": {reason}");
    }
    line
}

/// The release that an upgrade was begun to, and what that was decided on.
fn decided_on(entry: &Entry) -> Option<(Digest, Option<Index>, Option<Source>)> {
    Some((entry.to.as_ref()?.sha256, entry.index.clone(), entry.source.clone()))
}

fn last_of(entry: &Entry) -> Option<Last> {
    let result = match entry.event {
        Happening::Committed => Ending::Committed,
        Happening::RolledBack => Ending::RolledBack,
        Happening::Failed => Ending::Failed,
        Happening::Undecided => Ending::Undecided,
        Happening::SupervisorStarted | Happening::SupervisorStopped | Happening::WorkerStarted => {
            return None;
        }
        Happening::WorkerDied | Happening::WorkerTakenBack | Happening::Installed => return None,
        Happening::Rehearsed | Happening::StaleAccepted | Happening::TrustReset => return None,
        Happening::UpgradeStarted | Happening::Cut | Happening::Quarantined | Happening::Held => return None,
        Happening::Unheld | Happening::FeedFailed | Happening::FeedWell | Happening::Alarm => return None,
        Happening::Other(_) => return None,
    };
    Some(Last {
        result,
        from: entry.from.as_ref().map(|release| release.version.clone()),
        to: entry.to.as_ref()?.version.clone(),
        at: entry.at,
        gap_ms: entry.gap_ms,
        reason: entry.reason.clone(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::upgrade::Rehearsal;

    fn ledger(dir: &tempfile::TempDir) -> Ledger {
        let paths = Paths::new(dir.path().join("state"), dir.path().join("run"));
        paths.create().unwrap();
        Ledger::open(&paths, 1)
    }

    fn texts(ledger: &Ledger) -> Vec<String> {
        ledger.alarms().into_iter().map(|alarm| alarm.text).collect()
    }

    #[test]
    fn an_upgrade_that_went_well_ends_no_alarm_whose_cause_is_still_there() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = ledger(&dir);
        ledger.alarm("a worker was killed".into(), 2);
        ledger.alarm_about(Cause::Feed, "the index is unsigned".into(), 3);
        ledger.alarm_about(Cause::Expired, "the timestamp expired".into(), 4);
        ledger.all_well();
        assert_eq!(texts(&ledger), ["the index is unsigned", "the timestamp expired"]);
        ledger.over(Cause::Expired);
        assert_eq!(texts(&ledger), ["the index is unsigned"]);
        assert!(ledger.is_alarmed(Cause::Feed) && !ledger.is_alarmed(Cause::Expired));
        // In the history all of them are.
        let history = ledger.newest(10).unwrap();
        assert_eq!(history.iter().filter(|entry| entry.event == Happening::Alarm).count(), 3);
    }

    #[test]
    fn what_lasts_is_not_pushed_out_by_what_happens() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = ledger(&dir);
        ledger.alarm_about(Cause::Expired, "the timestamp expired".into(), 1);
        for count in 0..=ALARMS {
            ledger.alarm(format!("event {count}"), 2);
        }
        assert_eq!(ledger.alarms().len(), ALARMS);
        assert!(ledger.is_alarmed(Cause::Expired));
        assert_eq!(texts(&ledger).last().unwrap(), &format!("event {ALARMS}"));
        // Said again, it is the same one.
        ledger.alarm(format!("event {ALARMS}"), 9);
        assert_eq!((ledger.alarms().len(), ledger.alarms().last().unwrap().at), (ALARMS, 9));
    }

    #[test]
    fn an_alarm_about_what_lasts_stays_until_it_is_over_and_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = ledger(&dir);
        for now in 1..4 {
            ledger.lasting(Cause::Revoked, Some("1.0.0 is revoked".into()), now);
        }
        for count in 0..2 * ALARMS {
            ledger.alarm(format!("alarm {count}"), 5);
        }
        assert_eq!(ledger.alarms()[0], Alarm { at: 1, text: "1.0.0 is revoked".into() });
        ledger.all_well();
        assert_eq!(ledger.alarms().len(), 1);
        ledger.lasting(Cause::Revoked, Some("1.1.0 is revoked".into()), 6);
        assert_eq!(ledger.alarms(), [Alarm { at: 6, text: "1.1.0 is revoked".into() }]);
        ledger.lasting(Cause::Revoked, None, 7);
        assert_eq!(ledger.alarms(), []);
        let told = ledger.newest(100).unwrap();
        let told =
            told.iter().filter(|entry| entry.reason.as_ref().is_some_and(|why| why.contains("revoked")));
        assert_eq!(told.count(), 2);
    }

    fn release(byte: u8) -> Release {
        Release { version: format!("1.{byte}.0").parse().unwrap(), sha256: Digest([byte; 32]) }
    }

    fn index(version: u64) -> Option<Index> {
        Some(Index { version, sha256: Digest([9; 32]), keys: vec!["RWkey".into()] })
    }

    fn begins(ledger: &mut Ledger, to: u8, index: Option<Index>) {
        let source = Some(if index.is_some() { Source::Feed } else { Source::Package });
        let entry =
            Entry { to: Some(release(to)), index, source, ..Entry::new(1, Happening::UpgradeStarted) };
        ledger.append(&entry);
    }

    fn concludes(ledger: &mut Ledger, to: u8) -> Entry {
        let attempt = Attempt { from: None, to: release(to), by: None, rehearsal: Rehearsal::Off };
        let rules = config::Upgrade::default();
        ledger.conclude(&attempt, &Verdict::Good, None, String::new(), &rules, 2);
        ledger.newest(1).unwrap().remove(0)
    }

    #[test]
    fn the_end_of_an_upgrade_names_what_it_was_decided_on_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), dir.path());
        let mut ledger = Ledger::open(&paths, 0);
        begins(&mut ledger, 1, index(3));
        assert_eq!(concludes(&mut ledger, 1).index, index(3));
        begins(&mut ledger, 2, index(4));
        let mut ledger = Ledger::open(&paths, 0);
        assert_eq!(concludes(&mut ledger, 2).index, index(4));
        // Another release's index is not its own, and that of an earlier try is not that of a later one.
        assert_eq!(concludes(&mut ledger, 1).index, None);
        begins(&mut ledger, 2, None);
        for mut ledger in [ledger, Ledger::open(&paths, 0)] {
            let end = concludes(&mut ledger, 2);
            assert_eq!((end.index, end.source), (None, Some(Source::Package)));
        }
    }
}

//! What follows from a verdict: another try later, or quarantine.

use std::time::Duration;

use super::state::Verdict;

/// What to do with a release whose upgrade has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// It runs.
    Nothing,
    /// Try again after this long.
    Again(Duration),
    /// Never again: it failed this often, or kept wrong data, or the operator sent it back.
    Quarantine(String),
}

/// Decides.
///
/// `failed` counts tries of this release that ended bad, this one included; `unknown` those that
/// ended for another reason, in a row, this one included. `after` holds the waits between bad tries,
/// `attempts` how many of them there may be.
pub fn next(verdict: &Verdict, failed: u32, unknown: u32, attempts: u32, after: &[Duration]) -> Next {
    let wait = |n: u32| {
        let index = (n.max(1) as usize - 1).min(after.len().saturating_sub(1));
        after.get(index).copied().unwrap_or(Duration::from_secs(60))
    };
    match verdict {
        Verdict::Good => Next::Nothing,
        Verdict::Bad(reason) if failed >= attempts.max(1) => Next::Quarantine(reason.clone()),
        Verdict::Bad(_) => Next::Again(wait(failed)),
        Verdict::Wrong(reason) | Verdict::RolledBack(reason) => Next::Quarantine(reason.clone()),
        Verdict::Unknown(_) | Verdict::Withdrawn(_) => Next::Again(wait(unknown)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: [Duration; 3] =
        [Duration::from_secs(60), Duration::from_secs(600), Duration::from_secs(3600)];

    #[test]
    fn a_bad_release_is_tried_three_times_and_then_quarantined() {
        let bad = Verdict::Bad("died".into());
        assert_eq!(next(&bad, 1, 0, 3, &AFTER), Next::Again(AFTER[0]));
        assert_eq!(next(&bad, 2, 0, 3, &AFTER), Next::Again(AFTER[1]));
        assert_eq!(next(&bad, 3, 0, 3, &AFTER), Next::Quarantine("died".into()));
    }

    #[test]
    fn wrong_data_and_an_operators_word_need_no_second_try() {
        assert!(matches!(next(&Verdict::Wrong("hash".into()), 1, 0, 3, &AFTER), Next::Quarantine(_)));
        assert!(matches!(next(&Verdict::RolledBack("asked".into()), 0, 0, 3, &AFTER), Next::Quarantine(_)));
    }

    #[test]
    fn what_the_publisher_has_withdrawn_has_not_failed_here() {
        assert_eq!(next(&Verdict::Withdrawn("revoked".into()), 0, 0, 1, &AFTER), Next::Again(AFTER[0]));
    }

    #[test]
    fn what_the_release_is_not_to_blame_for_is_tried_for_ever_at_the_longest_wait() {
        let unknown = Verdict::Unknown("no network".into());
        assert_eq!(next(&unknown, 0, 1, 3, &AFTER), Next::Again(AFTER[0]));
        assert_eq!(next(&unknown, 0, 50, 3, &AFTER), Next::Again(AFTER[2]));
    }
}

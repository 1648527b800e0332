//! Who was seen to hold authority, and when: terms only rise.

use std::time::Duration;

/// One answer to the question who holds; times since the load began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// When it was asked.
    pub asked: Duration,
    /// When the answer came.
    pub answered: Duration,
    /// The term of the worker that answered.
    pub term: u64,
    /// The release that it runs.
    pub release: String,
}

/// Two sightings that cannot both be right: one was answered before the other was asked and has the
/// higher term, or one term was held by two releases. `None` where there never were two holders.
pub fn two_holders(sightings: &[Sighting]) -> Option<(Sighting, Sighting)> {
    let mut by_answer: Vec<&Sighting> = sightings.iter().collect();
    by_answer.sort_by_key(|sighting| sighting.answered);
    let mut by_question = by_answer.clone();
    by_question.sort_by_key(|sighting| sighting.asked);
    let mut answered = by_answer.into_iter().peekable();
    let mut highest: Option<&Sighting> = None;
    for later in by_question {
        while let Some(earlier) = answered.next_if(|earlier| earlier.answered < later.asked) {
            if highest.is_none_or(|highest| earlier.term > highest.term) {
                highest = Some(earlier);
            }
        }
        if let Some(earlier) = highest
            && earlier.term > later.term
        {
            return Some((earlier.clone(), later.clone()));
        }
    }
    let mut releases = std::collections::BTreeMap::new();
    for sighting in sightings {
        let first: &Sighting = releases.entry(sighting.term).or_insert(sighting);
        if first.release != sighting.release {
            return Some((first.clone(), sighting.clone()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sighting(asked: u64, answered: u64, term: u64, release: &str) -> Sighting {
        let ms = Duration::from_millis;
        Sighting { asked: ms(asked), answered: ms(answered), term, release: release.to_owned() }
    }

    #[test]
    fn terms_that_rise_are_one_holder_at_a_time() {
        let good = [
            sighting(0, 5, 1, "1.0.0"),
            sighting(10, 30, 2, "1.1.0"),
            // Asked before the other was answered: it may have been answered before the cut.
            sighting(12, 40, 1, "1.0.0"),
            sighting(41, 45, 2, "1.1.0"),
        ];
        assert_eq!(two_holders(&good), None);
    }

    #[test]
    fn an_old_term_after_a_new_one_is_two_holders() {
        let bad = [sighting(0, 5, 1, "1.0.0"), sighting(6, 7, 2, "1.1.0"), sighting(8, 9, 1, "1.0.0")];
        assert_eq!(two_holders(&bad), Some((bad[1].clone(), bad[2].clone())));
    }

    #[test]
    fn one_term_in_two_hands_is_two_holders() {
        let bad = [sighting(0, 5, 1, "1.0.0"), sighting(1, 5, 1, "1.1.0")];
        assert!(two_holders(&bad).is_some());
    }
}

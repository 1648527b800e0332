//! `bumpless upgrade --dry-run`: what would happen, from what is verified here and what packages declared at the
//! last look, and nothing else.
//!
//! The choice is the one that an upgrade makes ([`Driver::choose`]), each obstacle is found by the check that
//! the start itself makes. What an upgrade finds out only on its way is not foreseen: what a look at the feed
//! would bring, and how the new worker does.

use std::cmp::Reverse;

use bumpless_control::dry_run::{Considered, DryRun, Hurdle, Obstacle, Stops};
use bumpless_control::history::{Index, Source};
use bumpless_control::reply::{Answer, Outcome};
use bumpless_shared::release::Version;
use bumpless_trust::outlook::Prospect;
use bumpless_trust::{Choice, Evidence, Outlook, Request as Wanted, Trusted};

use super::Driver;
use super::packages::source;
use crate::config::Mode;
use crate::effects::unix_now;
use crate::feed::has_room;

impl Driver {
    /// Answers; changes nothing.
    pub(super) fn dry_run(&self, asked: Option<Version>) -> Outcome {
        let wanted = asked.clone().map_or(Wanted::Newest, Wanted::Version);
        let offered = self.outlook(&wanted);
        let unknown = offered.as_ref().err().cloned();
        if let Some(why) = unknown.as_ref().filter(|_| self.packages.is_empty()) {
            let last = self.feed_state.error.as_ref().filter(|error| *error != why);
            let last =
                last.map_or(String::new(), |error| format!("; the last look at the feed failed: {error}"));
            return Outcome::Failed { reason: format!("{why}{last}. Nothing was changed") };
        }
        let chosen = self.choose(&wanted);
        let prospects = |outlook: Result<Outlook, String>, source: Source| {
            let releases = outlook.map(|outlook| outlook.releases).unwrap_or_default();
            releases.into_iter().map(move |one| (one, source.clone()))
        };
        let mut all: Vec<_> = prospects(offered, Source::Feed).collect();
        all.extend(prospects(self.packaged(&wanted), Source::Package));
        all.sort_by_key(|(one, _)| Reverse(one.counter));
        let signed = self.trusted().ok().filter(|_| unknown.is_none());
        let index = signed.and_then(Trusted::index_evidence).cloned();
        let follows = !self.edge.config.feed.urls.is_empty();
        let answer = DryRun {
            from: self.edge.committed.as_ref().map(|committed| committed.release.version.clone()),
            to: chosen.as_ref().ok().map(|choice| choice.release().version),
            why_not: chosen.as_ref().err().cloned(),
            obstacles: chosen.as_ref().map_or_else(|_| vec![], |choice| self.obstacles(choice)),
            releases: all.iter().map(|(one, source)| considered(one, source, &chosen, &wanted)).collect(),
            refused: self.packages.refused(),
            index: index.map(|Evidence { version, sha256, keys }| Index { version, sha256, keys }),
            signed_at: signed.and_then(Trusted::timestamp).map(|timestamp| timestamp.issued),
            checked_at: self.feed_state.checked_at,
            feed_error: self.feed_error().cloned().or(unknown.filter(|_| follows)),
            asked,
        };
        Outcome::Done { answer: Answer::DryRun(Box::new(answer)) }
    }

    /// What stands before the start of an upgrade to this release.
    fn obstacles(&self, choice: &Choice) -> Vec<Obstacle> {
        let everybody = |kind| move |text| Obstacle { kind, stops: Stops::Everybody, text };
        let supervisor = |kind| move |text| Obstacle { kind, stops: Stops::Supervisor, text };
        let held = self.ledger.hold().map(|hold| hold.reason.clone());
        let manual = self.edge.config.upgrade.mode == Mode::Manual;
        let waits = self.automatic(choice, unix_now()).map_err(|waits| waits.why);
        let itself = match (waits, &held, manual) {
            (Err(why), None, true) => Some(supervisor(Hurdle::Manual)(why)),
            (Err(why), None, false) => Some(supervisor(Hurdle::Time)(why)),
            // Its reason is the hold's, which has been said.
            (Err(_), Some(_), true) => Some(supervisor(Hurdle::Manual)("upgrade.mode is \"manual\"".into())),
            (Err(_), Some(_), false) | (Ok(()), None | Some(_), true | false) => None,
        };
        [
            self.busy().map(everybody(Hurdle::Busy)),
            held.map(everybody(Hurdle::Hold)),
            self.lacks_room(choice).map(everybody(Hurdle::Room)),
            itself,
            self.tried_again(&choice.release()).map(supervisor(Hurdle::Retry)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Whether its fetch would end for want of room. What is installed already is not fetched.
    fn lacks_room(&self, choice: &Choice) -> Option<String> {
        if let Ok(Some(_)) = self.edge.releases.find(&choice.release()) {
            return None;
        }
        let staging = || has_room(&self.edge.paths.staging(), choice.artifact()).err();
        self.no_room(choice).or_else(staging).map(|short| short.to_string())
    }
}

/// One release among all of them.
fn considered(
    prospect: &Prospect,
    offers: &Source,
    chosen: &Result<Choice, String>,
    wanted: &Wanted,
) -> Considered {
    let Prospect { version, bucket, eligible_at, unasked, .. } = prospect;
    let named = matches!(wanted, Wanted::Version(named) if named == version);
    let is_it = |choice: &Choice| choice.release().version == *version && source(choice) == *offers;
    let why_not = match (chosen, unasked, wanted) {
        (Ok(choice), ..) if is_it(choice) => None,
        (Err(why), ..) if named => Some(why.clone()),
        (_, Err(why), _) => Some(why.to_string()),
        (Ok(choice), Ok(_), _) if choice.counter() == prospect.counter => {
            Some(format!("the same number is offered by the {}", source(choice).as_str()))
        }
        (_, Ok(_), Wanted::Version(named)) => Some(format!("{named} is asked for")),
        (Ok(choice), Ok(_), Wanted::Newest | Wanted::Urgent) => {
            Some(format!("{} is newer", choice.release().version))
        }
        (Err(why), Ok(_), Wanted::Newest | Wanted::Urgent) => Some(why.clone()),
    };
    Considered {
        release: version.clone(),
        source: Some(offers.clone()),
        chosen: why_not.is_none(),
        bucket: *bucket,
        eligible_at: *eligible_at,
        why_not,
    }
}

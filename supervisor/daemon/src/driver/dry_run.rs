//! `bumpless upgrade --dry-run`: what would happen, from what is verified here and what packages declared at the
//! last look, and nothing else; with `--from DIR`, from what is verified there, which is kept nowhere.
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
use bumpless_trust::{Choice, Evidence, Expiry, Outlook, Request as Wanted, Trusted};

use super::packages::source;
use super::trust::absolute;
use super::{Driver, Fed};
use crate::config::Mode;
use crate::control_socket::Replies;
use crate::effects::unix_now;
use crate::feed::{self, FeedError, Trouble, has_room};

/// `bumpless upgrade --dry-run --from DIR`.
#[derive(Debug)]
pub struct Foreseen {
    pub(super) folder: String,
    pub(super) version: Option<Version>,
    pub(super) replies: Replies,
}

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
            folder: None,
            index: index.map(|Evidence { version, sha256, keys }| Index { version, sha256, keys }),
            signed_at: signed.and_then(Trusted::timestamp).map(|timestamp| timestamp.issued),
            checked_at: self.feed_state.checked_at,
            feed_error: self.feed_error().cloned().or(unknown.filter(|_| follows)),
            asked,
        };
        Outcome::Done { answer: Answer::DryRun(Box::new(answer)) }
    }

    /// Looks into a folder, from what is trusted now, beside whatever else goes on.
    pub(super) fn foresee(&self, asked: Foreseen) {
        if let Err(reason) = absolute(&asked.folder) {
            return asked.replies.finish(Outcome::Refused { reason });
        }
        let known = match (self.settings.clone(), self.trusted()) {
            (Some(settings), Ok(trusted)) => Ok((settings, trusted.clone())),
            (Some(_) | None, Err(why)) => Err(why),
            (None, Ok(_)) => Err(self.feed_state.error.clone().unwrap_or_default()),
        };
        let (settings, trusted) = match known {
            Ok(known) => known,
            Err(why) => {
                let reason = format!(
                    "no root is trusted here yet, and only an upgrade begins with one: {why}. Nothing was changed"
                );
                return asked.replies.finish(Outcome::Failed { reason });
            }
        };
        let fed = self.fed.clone();
        tokio::task::spawn_local(async move {
            let foreseen = feed::foresee(&settings, trusted, &asked.folder, unix_now()).await;
            let _ = fed.send(Fed::Foreseen(Box::new(asked), foreseen.map(Box::new)));
        });
    }

    /// What was found there: answers.
    pub(super) fn foreseen(&self, asked: Foreseen, found: Result<Box<Trusted>, FeedError>) {
        let Foreseen { folder, version, replies } = asked;
        replies.finish(match found {
            Ok(trusted) => self.dry_run_from(folder, version, &trusted),
            Err(error) => {
                let reason = format!("{error}. Nothing was changed");
                match error.trouble() {
                    Trouble::Expired | Trouble::Refused => Outcome::Refused { reason },
                    Trouble::Unreachable | Trouble::Local => Outcome::Failed { reason },
                }
            }
        });
    }

    fn dry_run_from(&self, folder: String, asked: Option<Version>, trusted: &Trusted) -> Outcome {
        let wanted = asked.clone().map_or(Wanted::Newest, Wanted::Version);
        let releases = match self.outlook_of(trusted, &wanted) {
            Ok(outlook) => outlook.releases,
            Err(why) => return Outcome::Failed { reason: format!("{why}. Nothing was changed") },
        };
        let chosen = self.choose_of(trusted, &wanted, Expiry::Counts);
        let index = trusted.index_evidence().cloned();
        let answer = DryRun {
            folder: Some(folder),
            from: self.edge.committed.as_ref().map(|committed| committed.release.version.clone()),
            to: chosen.as_ref().ok().map(|choice| choice.release().version),
            why_not: chosen.as_ref().err().cloned(),
            obstacles: chosen.as_ref().map_or_else(|_| vec![], |choice| self.obstacles_for_everybody(choice)),
            releases: releases.iter().map(|one| considered(one, &Source::Feed, &chosen, &wanted)).collect(),
            refused: vec![],
            index: index.map(|Evidence { version, sha256, keys }| Index { version, sha256, keys }),
            signed_at: trusted.timestamp().map(|timestamp| timestamp.issued),
            checked_at: None,
            feed_error: None,
            asked,
        };
        Outcome::Done { answer: Answer::DryRun(Box::new(answer)) }
    }

    /// What stands before the start of an upgrade to this release, whoever asks for it.
    fn obstacles_for_everybody(&self, choice: &Choice) -> Vec<Obstacle> {
        let everybody = |kind| move |text| Obstacle { kind, stops: Stops::Everybody, text };
        let held = self.ledger.hold().map(|hold| hold.reason.clone());
        let found = [
            self.busy().map(everybody(Hurdle::Busy)),
            held.map(everybody(Hurdle::Hold)),
            self.lacks_room(choice).map(everybody(Hurdle::Room)),
        ];
        found.into_iter().flatten().collect()
    }

    /// The same and what keeps the supervisor from beginning it by itself.
    fn obstacles(&self, choice: &Choice) -> Vec<Obstacle> {
        let supervisor = |kind| move |text| Obstacle { kind, stops: Stops::Supervisor, text };
        let held = self.ledger.hold();
        let manual = self.edge.config.upgrade.mode == Mode::Manual;
        let waits = self.automatic(choice, unix_now()).map_err(|waits| waits.why);
        let itself = match (waits, held, manual) {
            (Err(why), None, true) => Some(supervisor(Hurdle::Manual)(why)),
            (Err(why), None, false) => Some(supervisor(Hurdle::Time)(why)),
            // Its reason is the hold's, which has been said.
            (Err(_), Some(_), true) => Some(supervisor(Hurdle::Manual)("upgrade.mode is \"manual\"".into())),
            (Err(_), Some(_), false) | (Ok(()), None | Some(_), true | false) => None,
        };
        let retry = self.tried_again(&choice.release()).map(supervisor(Hurdle::Retry));
        let mut obstacles = self.obstacles_for_everybody(choice);
        obstacles.extend(itself.into_iter().chain(retry));
        obstacles
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

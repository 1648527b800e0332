//! What the system's packages declare, beside what a feed offers.
//!
//! ```text
//!   a look ─▶ packages ─▶ feed, if there is one ─▶ of both, what is highest in the order and fits ─▶ begun
//! ```
//!
//! Both are looked at at the same times, the packages first, so that a look that fails at the feed is one at the
//! packages all the same. A package needs neither a feed nor a look that went through; what the newest verified
//! index forbids is not taken from a package either ([`crate::bans`]).

use std::sync::Arc;

use bumpless_control::history::Source;
use bumpless_control::status::Packages as Shown;
use bumpless_trust::package::outlook;
use bumpless_trust::{Choice, Origin, Outlook, Request as Wanted, WhyNot};

use super::{Driver, Fed};
use crate::effects::unix_now;
use crate::ledger::Cause;
use crate::looks::Look;
use crate::packages::Packages;
use crate::upgrade::Verdict;

/// On whose word a choice stands.
pub(super) fn source(choice: &Choice) -> Source {
    match choice.origin() {
        Origin::Index(_) => Source::Feed,
        Origin::Package => Source::Package,
    }
}

impl Driver {
    /// A look at the packages, for a task.
    pub(super) fn look_at_packages(&self) -> impl Future<Output = ()> + use<> {
        let (packages, fed) = (Arc::clone(&self.packages), self.fed.clone());
        async move {
            let _ = fed.send(Fed::Packages(packages.look().await));
        }
    }

    /// They were looked at. Where no feed is asked after them, that is the whole look.
    pub(super) fn packages_seen(&mut self, seen: Arc<Packages>) {
        self.packages = seen;
        self.ledger.lasting(Cause::Package, self.packages.alarm(), unix_now());
        if !self.has_places() {
            self.away = false;
            self.look_ended(Look::Well);
            for pending in std::mem::take(&mut self.pending) {
                if self.packages.is_empty() {
                    self.refuse_without_feed(pending);
                } else {
                    self.decide(pending);
                }
            }
            self.errand();
        }
    }

    /// What each package is to this machine now, and what is chosen of them.
    pub(super) fn packaged(&self, wanted: &Wanted) -> Result<Outlook, String> {
        self.judged(|machine, running, quarantined| {
            let packages = self.packages.all();
            Ok(outlook(&packages, self.bans.index(), machine, running, wanted, quarantined))
        })
    }

    /// What is chosen of them, or why nothing is; nothing to say where the feed's answer says it all.
    pub(super) fn choose_packaged(&self, wanted: &Wanted) -> Option<Result<Choice, String>> {
        if self.packages.is_empty() {
            return None;
        }
        let refused = self.packages.refused();
        let why = match self.packaged(wanted).map(|outlook| outlook.chosen) {
            Ok(Ok(choice)) => return Some(Ok(choice)),
            Ok(Err(WhyNot::NothingDeclared { .. } | WhyNot::Undeclared { .. }))
                if self.has_places() && refused.is_empty() =>
            {
                return None;
            }
            Ok(Err(why)) => why.to_string(),
            Err(why) => why,
        };
        let refused: String = refused.into_iter().map(|it| format!("; refused: {}", it.why)).collect();
        Some(Err(why + &refused))
    }

    /// Copies the chosen package's worker, as the fetcher does with a blob.
    pub(super) fn begin_copy(&mut self, choice: &Choice) {
        let (acquisition, fed) = (self.acquisition, self.fed.clone());
        let (version, artifact) = (choice.release().version, choice.artifact().clone());
        let staged = Arc::clone(&self.packages).stage(version, artifact, self.edge.paths.staging());
        self.acquiring = Some(tokio::task::spawn_local(async move {
            // What is wrong with a package says nothing about the release.
            let result = staged.await.map_err(|error| Verdict::Unknown(error.to_string()));
            let _ = fed.send(Fed::Fetched(acquisition, result));
        }));
    }

    /// For status.
    pub(super) fn packages_shown(&self) -> Option<Shown> {
        let declared = || self.packages.all().iter().map(|package| package.release().version).collect();
        self.packages.is_there().then(|| Shown {
            folder: self.packages.folder().display().to_string(),
            declared: declared(),
            refused: self.packages.refused(),
        })
    }
}

//! When the feed and the packages are looked at, and what comes of a look.
//!
//! ```text
//!   the interval, a window or stage that opens,     ┐
//!   expiry, an operator                             ├─▶ errand: packages, then the feed ─▶ refreshed ─▶ decide
//!   ...while the feed is away: waits for it         ┘                                        │ (each who waits)
//!                                                        history, alarms, the next look ◀────┘
//! ```
//!
//! One look at a time: the feed goes away with the task that asks it, and comes home with what it has verified.
//! Moments on the wall (an opening, an expiry) are worked out anew at each wake-up, since clocks are set.

use std::time::{Duration, Instant};

use bumpless_control::Unix;
use bumpless_control::history::{Entry, Event as Happening};
use bumpless_trust::{Refused, Role};

use super::operator::Pending;
use super::{Driver, Fed};
use crate::config::Mode;
use crate::effects::unix_now;
use crate::feed::{Feed, Trouble};
use crate::ledger::Cause;
use crate::looks::{self, Look};
use crate::upgrade::{Ask, Event};

impl Driver {
    /// Looks at the packages and asks the feed; what is found is decided in [`Self::refreshed`].
    pub(super) fn check(&mut self, who: Pending) {
        self.pending.push(who);
        self.errand();
    }

    /// Whether there is a place to look at without anybody's word.
    pub(super) fn has_places(&self) -> bool {
        self.settings.as_ref().is_some_and(|settings| !settings.places.is_empty())
    }

    /// Why the last look at the feed did not go through, if that is missed: packages need none.
    pub(super) fn feed_error(&self) -> Option<&String> {
        let follows = !self.edge.config.feed.urls.is_empty();
        self.feed_state.error.as_ref().filter(|_| follows || self.packages.is_empty())
    }

    /// Looks at the packages for those who wait and sends the feed, once it is at home, to its places, and then
    /// into operators' folders.
    pub(super) fn errand(&mut self) {
        if self.away {
            return;
        }
        if self.pending.is_empty() {
            return self.next_folder();
        }
        let (packages, fed) = (self.look_at_packages(), self.fed.clone());
        let Some(settings) = self.settings.clone().filter(|_| self.has_places()) else {
            self.away = true;
            tokio::task::spawn_local(packages);
            return;
        };
        match self.feed.take() {
            Some(mut feed) => {
                self.leaves(&feed);
                tokio::task::spawn_local(async move {
                    packages.await;
                    let result = feed.refresh(unix_now()).await;
                    let result = result.map(|_| ()).map_err(|error| (error.trouble(), error.to_string()));
                    let _ = fed.send(Fed::Refreshed(feed, result));
                });
            }
            None => {
                self.away = true;
                tokio::task::spawn_local(async move {
                    packages.await;
                    let opened = Feed::establish(settings).await;
                    let _ = fed.send(Fed::Opened(opened.map(|(feed, notices)| (Box::new(feed), notices))));
                });
            }
        }
    }

    pub(super) fn refreshed(&mut self, result: Result<(), (Trouble, String)>) {
        let now = unix_now();
        self.look_ended(if result.is_ok() { Look::Well } else { Look::Failed });
        match (&result, &self.feed_state.error) {
            (Ok(()), Some(_)) => self.ledger.append(&Entry::new(now, Happening::FeedWell)),
            (Err((trouble, why)), known) if known.as_ref() != Some(why) => match trouble {
                Trouble::Unreachable | Trouble::Local => {
                    let reason = Some(why.clone());
                    self.ledger.append(&Entry { reason, ..Entry::new(now, Happening::FeedFailed) });
                }
                // Told of what was verified here, if that is expired, too.
                Trouble::Expired if self.expiry().is_some_and(|(_, at)| at <= now) => {}
                Trouble::Expired => self.ledger.alarm_about(Cause::Expired, why.clone(), now),
                // Somebody offers what must not be believed.
                Trouble::Refused => self.ledger.alarm_about(Cause::Feed, why.clone(), now),
            },
            (Ok(()), None) | (Err(_), Some(_) | None) => {}
        }
        if result.is_ok() {
            self.feed_state.checked_at = Some(now);
            self.ledger.over(Cause::Feed);
        }
        self.feed_state.trouble = result.as_ref().err().map(|(trouble, _)| *trouble);
        self.feed_state.error = result.err().map(|(_, why)| why);
        self.watch_expiry(now);
        self.look_at_the_next_opening();
        self.reckon();
        self.feed_in([Event::Asked(Ask::Reconsider)].into());
        for pending in std::mem::take(&mut self.pending) {
            self.decide(pending);
        }
    }

    /// When to look again.
    pub(super) fn look_ended(&mut self, ended: Look) {
        self.looks += 1;
        let wait = looks::next(&self.edge.machine_id(), self.looks, ended, &self.edge.config.feed);
        self.next_check = Instant::now() + wait;
        self.window_check = self.next_opening(unix_now());
    }

    /// Spreads machines that wait for the same moment over so long.
    pub(super) fn jitter(&self, most: Duration) -> Duration {
        looks::jitter(&self.edge.machine_id(), self.looks, most)
    }

    /// When to look at the feed because a window opens, if upgrades begin by themselves. Not all machines with
    /// the same window at once, and yet in its first half.
    pub(super) fn next_opening(&self, now: Unix) -> Option<Unix> {
        let upgrade = &self.edge.config.upgrade;
        let next = upgrade.windows.next(now).filter(|_| upgrade.mode == Mode::Auto)?;
        let half = Duration::from_secs((next.until - next.opens) / 2);
        Some(next.opens + self.jitter(self.edge.config.feed.jitter.min(half)).as_secs())
    }

    /// What of what was verified expires first, and when.
    pub(super) fn expiry(&self) -> Option<(Role, Unix)> {
        Some(self.feed.as_ref()?.trusted().expires())
    }

    /// When there is something to do about that: a machine that was off for long first looks at the feed, and
    /// one that is in an upgrade, and has no reason to think ill of the feed, afterwards.
    pub(super) fn next_expiry(&self, now: Unix) -> Option<Unix> {
        let (_, at) = self.expiry()?;
        let asked = self.feed_state.checked_at.is_some() && self.may_begin();
        let due = at > now || self.feed_state.trouble.is_some() || asked;
        (due && !self.ledger.is_alarmed(Cause::Expired)).then_some(at)
    }

    /// Says that what was verified has expired, and that it has not any more.
    pub(super) fn watch_expiry(&mut self, now: Unix) {
        let Some((role, at)) = self.expiry() else { return };
        if now < at {
            // A feed that offers what is expired does so until it offers something else.
            if self.feed_state.trouble != Some(Trouble::Expired) {
                self.ledger.over(Cause::Expired);
            }
        } else if !self.ledger.is_alarmed(Cause::Expired) {
            let runs = self.edge.committed.as_ref().map(|committed| &committed.release.version);
            let on = runs.map_or(String::new(), |version| format!("{version} serves on. "));
            let text = format!(
                "{}. {on}Nothing new is installed until the feed answers with a newer one; look at it and at the \
                 way to it",
                Refused::Expired(role, at)
            );
            self.ledger.alarm_about(Cause::Expired, text, now);
        }
    }
}

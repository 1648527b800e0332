//! Which release comes to this machine, and when.
//!
//! A stage that opens between two looks at the feed makes the supervisor look, not begin: whoever publishes
//! may have paused or revoked the release since the last look, and a rollout has stages so that there is time
//! for that. If that look fails, what was verified last decides, as always.

use std::time::{Duration, Instant};

use bumpless_control::Unix;
use bumpless_control::history::Source;
use bumpless_control::status::Rollout;
use bumpless_shared::digest::Digest;
use bumpless_shared::release::Release;
use bumpless_trust::choice::Standing;
use bumpless_trust::time::Utc;
use bumpless_trust::{At, Choice, Expiry, Machine, Outlook, Request as Wanted, Running, Trusted, WhyNot};

use super::Driver;
use super::packages::source;
use crate::config::Mode;
use crate::effects::unix_now;
use crate::feed::WRITTEN;
use crate::records::hold::Hold;
use crate::releases::Record;
use crate::windows::Gate;

/// Why a release is not begun by itself now.
#[derive(Debug)]
pub(super) struct Waits {
    pub(super) why: String,
    /// Until when, if it is time that it waits for.
    pub(super) until: Option<Unix>,
}

impl Driver {
    /// Looks earlier, if a stage opens before the next look.
    pub(super) fn look_at_the_next_opening(&mut self) {
        let now = unix_now();
        let opens = self.outlook(&Wanted::Newest).ok().and_then(|outlook| outlook.opens_at());
        let Some(wait) = opens.map(|at| Duration::from_secs(at.saturating_sub(now))) else { return };
        let wait = wait.saturating_add(self.jitter(self.edge.config.feed.jitter));
        // What nobody will live to see needs no look.
        if let Some(opening) = Instant::now().checked_add(wait) {
            self.next_check = self.next_check.min(opening);
        }
    }

    /// What was verified last. While the feed is being asked that is what was verified before.
    pub(super) fn trusted(&self) -> Result<&Trusted, String> {
        let at_home = self.feed.as_ref().map(|feed| feed.trusted());
        at_home.or(self.left.as_deref()).ok_or_else(|| {
            let why = self.feed_state.error.clone();
            why.unwrap_or_else(|| "no feed is configured (feed.urls)".into())
        })
    }

    /// What is chosen now of what the feed offers and packages declare, or why nothing is.
    pub(super) fn choose(&self, wanted: &Wanted) -> Result<Choice, String> {
        let offered = self.choose_offered(wanted, Expiry::Counts);
        match (offered, self.choose_packaged(wanted)) {
            (offered, None) => offered,
            // What could be fetched from nowhere stands in nobody's way.
            (_, Some(packaged)) if !self.has_places() => packaged,
            (Ok(offered), Some(Ok(packaged))) => {
                Ok(if offered.counter() < packaged.counter() { packaged } else { offered })
            }
            (Ok(choice), Some(Err(_))) | (Err(_), Some(Ok(choice))) => Ok(choice),
            (Err(offered), Some(Err(packaged))) => {
                Err(format!("{offered}; of this system's packages: {packaged}"))
            }
        }
    }

    /// What is chosen of what the feed offers, where root may have waived expiry.
    pub(super) fn choose_offered(&self, wanted: &Wanted, expiry: Expiry) -> Result<Choice, String> {
        self.choose_of(self.trusted()?, wanted, expiry)
    }

    /// The same of what would be trusted.
    pub(super) fn choose_of(
        &self,
        trusted: &Trusted,
        wanted: &Wanted,
        expiry: Expiry,
    ) -> Result<Choice, String> {
        let at = At { now: unix_now(), built: WRITTEN, expiry };
        self.judged(|machine, running, quarantined| {
            trusted.choose_at(machine, running, wanted, quarantined, at)
        })
    }

    /// What each release of the index is to this machine now.
    pub(super) fn outlook(&self, wanted: &Wanted) -> Result<Outlook, String> {
        self.outlook_of(self.trusted()?, wanted)
    }

    /// The same of what would be trusted.
    pub(super) fn outlook_of(&self, trusted: &Trusted, wanted: &Wanted) -> Result<Outlook, String> {
        self.judged(|machine, running, quarantined| {
            trusted.outlook(machine, running, wanted, quarantined, unix_now(), WRITTEN)
        })
    }

    pub(super) fn judged<T>(
        &self,
        judge: impl FnOnce(&Machine, Option<Running<'_>>, &dyn Fn(&Digest) -> Option<String>) -> Result<T, WhyNot>,
    ) -> Result<T, String> {
        let rollout = &self.edge.config.rollout;
        let running = self.installed_now()?;
        let release = running.as_ref().map(Record::release);
        let machine = Machine {
            targets: bumpless_trust::choice::targets(),
            supervisor: version_numbers(),
            contract: bumpless_shared::version::SPOKEN,
            state: running.as_ref().map(|running| running.state),
            id: self.edge.machine_id(),
            group: rollout.group.clone(),
            pin: rollout.pin.clone(),
        };
        let running = running.as_ref().zip(release.as_ref());
        let running = running.map(|(record, release)| Running { release, counter: record.counter });
        let quarantined = |sha256: &Digest| self.ledger.quarantined(sha256).map(str::to_owned);
        judge(&machine, running, &quarantined).map_err(|why| why.to_string())
    }

    /// For status: how the next release spreads, and what blocks it here.
    pub(super) fn rollout(&self) -> Option<Rollout> {
        // What a package brings spreads by nobody's stages.
        if self.choose(&Wanted::Newest).is_ok_and(|choice| source(&choice) == Source::Package) {
            return None;
        }
        let outlook = self.outlook(&Wanted::Newest).ok()?;
        let next = outlook.coming()?;
        let blocks = match (&next.unasked, &outlook.chosen) {
            _ if next.standing == Standing::Runs => None,
            (Err(why), Ok(_) | Err(_)) | (Ok(_), Err(why)) => Some(why.to_string()),
            (Ok(choice), Ok(_)) => {
                let waits = self.automatic(choice, unix_now()).err();
                waits.map(|waits| waits.why).or_else(|| self.tried_again(&choice.release()))
            }
        };
        let config = &self.edge.config.rollout;
        Some(Rollout {
            release: next.version.clone(),
            bucket: next.bucket,
            group: config.group.clone().map(String::from),
            pin: config.pin.as_ref().map(ToString::to_string),
            eligible_at: next.eligible_at,
            blocks,
        })
    }

    /// Whether this release may be begun without an operator at this moment, and if not, why and until when.
    pub(super) fn automatic(&self, choice: &Choice, now: Unix) -> Result<(), Waits> {
        if let Some(Hold { reason, .. }) = self.ledger.hold() {
            return Err(Waits { why: format!("held: {reason}"), until: None });
        }
        if source(choice) == Source::Feed && !self.has_places() {
            let why =
                "no feed is configured (feed.urls); `bumpless upgrade --from DIR` takes it from a folder";
            return Err(Waits { why: why.into(), until: None });
        }
        match self.edge.config.upgrade.mode {
            Mode::Auto if choice.urgent() => Ok(()),
            Mode::Auto => self.in_window(now),
            Mode::Manual => {
                let why = "upgrades wait for `bumpless upgrade` (upgrade.mode = \"manual\")".into();
                Err(Waits { why, until: None })
            }
        }
    }

    /// Windows are for what clients use: where nothing runs yet, nothing waits for one.
    fn in_window(&self, now: Unix) -> Result<(), Waits> {
        if self.edge.committed.is_none() {
            return Ok(());
        }
        let next = match self.edge.config.upgrade.windows.at(now) {
            Gate::Always | Gate::Open(_) => return Ok(()),
            Gate::Closed(next) => next.map(|next| next.opens),
        };
        let opens = next.map_or("this machine's clock cannot be right".into(), |opens| {
            format!("the next one opens on {}", Utc(opens))
        });
        let why = format!(
            "upgrades begin by themselves only in a maintenance window (upgrade.windows), and {opens}; \
             `bumpless upgrade` does not wait for it"
        );
        Err(Waits { why, until: next })
    }

    /// Why a release that failed before is not tried at this moment, in words.
    pub(super) fn tried_again(&self, release: &Release) -> Option<String> {
        let due: Unix = self.ledger.next_try(&release.sha256, &self.edge.config.upgrade)?;
        (due > unix_now()).then(|| format!("it failed before and is tried again on {}", Utc(due)))
    }
}

/// This supervisor's version, as an index may ask for it.
fn version_numbers() -> [u32; 3] {
    let mut parts = env!("CARGO_PKG_VERSION").split('.').map(|part| part.parse().unwrap_or(0));
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

//! What every release of the index is to this machine, and what follows from all of them together.
//!
//! ```text
//!   each release, the newest first ─▶ Prospect: bucket, eligible at, taken unasked or why not
//!                                       ├▶ chosen     the first that is taken; or the version that was named
//!                                       ├▶ coming     the one that a person means by "the next release"
//!                                       └▶ opens_at   when a stage opens that could change that
//! ```
//!
//! [`Trusted::choose`] takes what stands here, so that whoever asks beforehand is told what will happen. While
//! nothing may be chosen at all (the channel is paused, something is expired) each release is still judged by
//! itself, and [`Outlook::chosen`] has the reason.

use std::cmp::Reverse;

use bumpless_shared::digest::Digest;
use bumpless_shared::release::Version;

use crate::choice::{Choice, Machine, Request, Running, Standing, WhyNot, bucket, standing, turn, withdrawn};
use crate::document::ReleaseDocument;
use crate::refresh::Trusted;
use crate::time::At;

/// One release, for one machine at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prospect {
    /// Its name.
    pub version: Version,
    /// Its place in the order.
    pub counter: u64,
    /// Whether it should not wait for a maintenance window.
    pub urgent: bool,
    /// This machine's place in its rollout, 0 to 999; 0 for a package, which has none.
    pub bucket: u16,
    /// From when on this machine may take it without anybody's word; nothing if no stage reaches it.
    pub eligible_at: Option<u64>,
    /// Where it stands beside what runs.
    pub standing: Standing,
    /// Whether the machine could take it without anybody's word, and if not, why.
    pub unasked: Result<Choice, WhyNot>,
}

/// The whole index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// What is chosen now, or why nothing is.
    pub chosen: Result<Choice, WhyNot>,
    /// Every release, the newest first.
    pub releases: Vec<Prospect>,
}

impl Outlook {
    /// The next release to come here, as far as that can be said: the newest that is taken, or else the newest
    /// that stands before this machine; if none is newer, the one that runs.
    pub fn coming(&self) -> Option<&Prospect> {
        let newer = || self.releases.iter().filter(|prospect| prospect.standing == Standing::Newer);
        let runs = || self.releases.iter().find(|prospect| prospect.standing == Standing::Runs);
        let taken = newer().find(|prospect| prospect.unasked.is_ok());
        let inside = || newer().find(|prospect| !is_pinned(&prospect.unasked));
        taken.or_else(inside).or_else(|| newer().next()).or_else(runs)
    }

    /// When the next stage opens that reaches this machine (unix seconds), of any release that could be taken
    /// then.
    pub fn opens_at(&self) -> Option<u64> {
        let waits = |prospect: &Prospect| match &prospect.unasked {
            Err(WhyNot::NotYet { at, .. }) => *at,
            Ok(_) | Err(_) => None,
        };
        self.releases.iter().filter_map(waits).min()
    }
}

/// The first that is taken without anybody's word, of those that are meant, the newest first; or why the newest
/// is not, if any is newer than what runs.
pub(crate) fn newest(releases: &[Prospect], request: &Request) -> Result<Choice, Option<WhyNot>> {
    let mut first = None;
    let mut outside = None;
    for Prospect { urgent, standing, unasked, .. } in releases {
        if *standing != Standing::Newer || !urgent && *request != Request::Newest {
            continue;
        }
        match unasked {
            Ok(choice) => return Ok(choice.clone()),
            // Who pinned a machine knows what is outside; what is inside has the better reason.
            Err(why @ WhyNot::Pinned { .. }) => outside = outside.or(Some(why)),
            Err(why) => first = first.or(Some(why)),
        }
    }
    Err(first.or(outside).cloned())
}

fn is_pinned(unasked: &Result<Choice, WhyNot>) -> bool {
    matches!(unasked, Err(WhyNot::Pinned { .. }))
}

impl Trusted {
    /// Looks at every release at `now` (unix seconds); the arguments are those of [`Trusted::choose`].
    ///
    /// # Errors
    /// [`WhyNot::NoIndex`]: there is nothing to look at.
    pub fn outlook(
        &self,
        machine: &Machine,
        running: Option<Running<'_>>,
        request: &Request,
        quarantined: impl Fn(&Digest) -> Option<String>,
        now: u64,
        built: u64,
    ) -> Result<Outlook, WhyNot> {
        self.outlook_at(machine, running, request, quarantined, At::new(now, built))
    }

    pub(crate) fn outlook_at(
        &self,
        machine: &Machine,
        running: Option<Running<'_>>,
        request: &Request,
        quarantined: impl Fn(&Digest) -> Option<String>,
        at: At,
    ) -> Result<Outlook, WhyNot> {
        let (timestamp, index) = self.newest()?;
        let withdrawn = withdrawn(&index.document, running);
        let prospect = |entry: &ReleaseDocument| Prospect {
            version: entry.release.clone(),
            counter: entry.counter,
            urgent: entry.urgent,
            bucket: bucket(&entry.rollout, &machine.id),
            eligible_at: turn(entry, machine, withdrawn.as_ref()),
            standing: standing(entry, running),
            unasked: self.unasked(entry, index, machine, running, &quarantined, at.now),
        };
        let mut releases: Vec<_> = index.document.releases.iter().map(prospect).collect();
        releases.sort_by_key(|prospect| Reverse(prospect.counter));
        let chosen = self.gate(timestamp, &index.document, at).and_then(|()| match request {
            Request::Version(version) => self.named(version, index, machine, running, &quarantined),
            Request::Newest | Request::Urgent => {
                newest(&releases, request).map_err(|why| why.unwrap_or_else(|| self.nothing_newer(running)))
            }
        });
        Ok(Outlook { chosen, releases })
    }
}

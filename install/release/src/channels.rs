//! The channels of one feed: which there are, which one is worked on, and how a release goes from one to another.
//!
//! ```text
//!   add --channel beta ──▶ beta ── published, tried by the machines that follow it
//!                           │
//!                           └── promote --channel stable ──▶ stable   the same bytes, the same place in the
//!                                                                     order, a rollout of its own
//! ```
//!
//! A release is the same in every channel that has it: its number, its artifacts, what it speaks, what its builders
//! signed. So a machine that changes from one channel to another knows what is newer, and what was attested once
//! counts in all of them. Its rollout, what is paused and the floor are each channel's own. What is revoked is
//! revoked in all: bytes that must not run must not run anywhere.
//!
//! There is one order for all channels, and what is tried in `beta` comes after what `stable` needs meanwhile. So a
//! release gets the next full hundred there, and `stable` counts on by ones:
//!
//! ```text
//!   beta                      100: 1.1.0 ──┐          200: 1.2.0
//!   stable   1: 1.0.0   2: 1.0.1 (a fix)   └▶ 100: 1.1.0   101: 1.1.1
//! ```

use std::fmt;
use std::fs;

use bumpless_shared::release::Version;
use bumpless_trust::document::{Channel, IndexDocument, ReleaseDocument};
use bumpless_trust::{Role, Signed};

use crate::draft::Draft;
use crate::error::PublishError;
use crate::published::signed;
use crate::publisher::Publisher;

/// A release of a channel other than `stable` gets a multiple of this as its place in the order.
const HUNDRED: u64 = 100;

/// Why a release cannot go to another channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotPromoted {
    /// No channel has published it as it is now.
    Unpublished {
        /// The channel that is to publish it first.
        from: Channel,
    },
    /// It is revoked.
    Revoked,
    /// The channel forbids releases with such a number.
    BelowFloor {
        /// The release's.
        counter: u64,
        /// The lowest allowed.
        floor: u64,
    },
    /// The channel has a newer one, from which no machine goes back.
    Older {
        /// The release's.
        counter: u64,
        /// The newest release of the channel.
        newest: Version,
        /// And its number.
        number: u64,
    },
}

impl fmt::Display for NotPromoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotPromoted::Unpublished { from } => {
                write!(
                    f,
                    "it is not published in channel {from} yet as it is drafted there; publish it first"
                )
            }
            NotPromoted::Revoked => f.write_str("it is revoked"),
            NotPromoted::BelowFloor { counter, floor } => {
                write!(f, "it is number {counter}, and the channel forbids what is below number {floor}")
            }
            NotPromoted::Older { counter, newest, number } => write!(
                f,
                "it is number {counter}, and the channel has {newest}, number {number}, from which no machine goes back"
            ),
        }
    }
}

impl Publisher {
    /// The channels of the feed.
    pub fn channels(&self) -> Vec<Channel> {
        let mut channels: Vec<_> = self.drafts().map(|draft| draft.index.channel.clone()).collect();
        channels.sort_unstable();
        channels
    }

    /// The one that is worked on: everything that is not said to be about all of them is about this one.
    pub fn channel(&self) -> &Channel {
        &self.draft.index.channel
    }

    /// The one that is worked on, and those that were changed since the feed was opened.
    pub fn touched(&self) -> Vec<Channel> {
        let touched = |channel: &Channel| channel == self.channel() || self.touched.contains(channel);
        self.channels().into_iter().filter(touched).collect()
    }

    /// Works on this channel from now on.
    ///
    /// # Errors
    /// There is no such channel.
    pub fn turn_to(&mut self, channel: &Channel) -> Result<&mut Self, PublishError> {
        if channel != self.channel() {
            let other = self.others.iter_mut().find(|draft| draft.index.channel == *channel);
            match other {
                Some(other) => std::mem::swap(&mut self.draft, other),
                None => return Err(PublishError::NoChannel(channel.clone(), self.channels())),
            }
        }
        Ok(self)
    }

    /// Begins a channel without releases, and turns to it. Machines can follow it once it is published. It forbids
    /// what every other one forbids, too.
    ///
    /// # Errors
    /// There is such a channel already, or a file cannot be written.
    pub fn begin(&mut self, channel: &Channel) -> Result<&mut Self, PublishError> {
        if self.channels().contains(channel) {
            return Err(PublishError::Value(format!("the feed has channel {channel} already")));
        }
        let mut revoked: Vec<_> = self.drafts().flat_map(|draft| draft.index.revoked.clone()).collect();
        revoked.sort_unstable();
        revoked.dedup();
        let min_release_counter =
            self.drafts().map(|draft| draft.index.min_release_counter).min().unwrap_or(0);
        let index = IndexDocument {
            channel: channel.clone(),
            version: 0,
            min_release_counter,
            revoked,
            paused: false,
            releases: Vec::new(),
            ..self.draft.index.clone()
        };
        let level = self.draft.level;
        let begun = Draft { index, changed: true, published: 0, timestamp_version: 0, level };
        let path = self.feed().join(channel.folder()).join("index");
        fs::create_dir_all(&path).map_err(|error| PublishError::File("create", path, error))?;
        begun.save(&self.folder)?;
        self.others.push(std::mem::replace(&mut self.draft, begun));
        self.touched.insert(channel.clone());
        Ok(self)
    }

    /// Does something in each channel, first in the one that is worked on, which it is again afterwards.
    pub(crate) fn each(
        &mut self,
        mut act: impl FnMut(&mut Self) -> Result<(), PublishError>,
    ) -> Result<(), PublishError> {
        act(self)?;
        for at in 0..self.others.len() {
            self.exchange(at);
            let done = act(self);
            self.exchange(at);
            done?;
        }
        Ok(())
    }

    fn exchange(&mut self, at: usize) {
        if let Some(other) = self.others.get_mut(at) {
            std::mem::swap(&mut self.draft, other);
        }
    }

    pub(crate) fn drafts(&self) -> impl Iterator<Item = &Draft> {
        std::iter::once(&self.draft).chain(&self.others)
    }

    /// The places in the order that are taken.
    pub(crate) fn counters(&self) -> impl Iterator<Item = u64> {
        self.drafts().flat_map(|draft| &draft.index.releases).map(|entry| entry.counter)
    }

    /// The place of a new release of the channel.
    pub(crate) fn next_counter(&self) -> u64 {
        if *self.channel() != Channel::default() && !self.others.is_empty() {
            return (self.counters().max().unwrap_or(0) / HUNDRED).saturating_add(1).saturating_mul(HUNDRED);
        }
        let own = self.draft.index.releases.iter().map(|entry| entry.counter).max().unwrap_or(0);
        let free = |counter: &u64| self.counters().all(|taken| taken != *counter);
        (own.saturating_add(1)..=u64::MAX).find(free).unwrap_or(u64::MAX)
    }

    /// A release that another channel has, for this one.
    pub(crate) fn taken_over(&self, version: &Version) -> Result<(Channel, ReleaseDocument), PublishError> {
        let has = self.others.iter().filter_map(|draft| Some((draft, find(&draft.index, version)?)));
        let (first, entry) = has.clone().next().ok_or_else(|| PublishError::Unknown(version.clone()))?;
        let refused = |why| {
            Err(PublishError::NotPromoted { version: version.clone(), to: self.channel().clone(), why })
        };
        let revoked = |draft: &Draft| {
            entry.artifacts.iter().any(|artifact| draft.index.revoked.contains(&artifact.raw_sha256))
        };
        if self.drafts().any(revoked) {
            return refused(NotPromoted::Revoked);
        }
        let (counter, floor) = (entry.counter, self.draft.index.min_release_counter);
        if counter < floor {
            return refused(NotPromoted::BelowFloor { counter, floor });
        }
        if let Some(newest) = self.draft.index.releases.iter().max_by_key(|other| other.counter)
            && newest.counter > counter
        {
            let (newest, number) = (newest.release.clone(), newest.counter);
            return refused(NotPromoted::Older { counter, newest, number });
        }
        for (draft, entry) in has {
            if self.has_published(draft, entry)? {
                return Ok((draft.index.channel.clone(), entry.clone()));
            }
        }
        refused(NotPromoted::Unpublished { from: first.index.channel.clone() })
    }

    /// Whether a channel's index on the feed has the release with these artifacts.
    fn has_published(&self, draft: &Draft, entry: &ReleaseDocument) -> Result<bool, PublishError> {
        let Some(file) = self.published_index_of(draft)? else { return Ok(false) };
        let index = IndexDocument::parse(&file.bytes).ok();
        let there = index.as_ref().and_then(|index| find(index, &entry.release));
        Ok(there.is_some_and(|there| (&there.artifacts, &there.build) == (&entry.artifacts, &entry.build)))
    }

    /// The index on the feed that timestamps of this channel name.
    pub(crate) fn published_index_of(&self, draft: &Draft) -> Result<Option<Signed>, PublishError> {
        match draft.published {
            0 => Ok(None),
            version => signed(&self.feed().join(Role::Release.path(&draft.index.channel, version))),
        }
    }
}

/// A channel's release of this name.
pub(crate) fn find<'a>(index: &'a IndexDocument, version: &Version) -> Option<&'a ReleaseDocument> {
    index.releases.iter().find(|entry| entry.release == *version)
}

//! What the publisher forbids to run, known whether or not the feed can be asked.
//!
//! ```text
//!   trust/ ── at a start ──▶ Bans ◀── after each refresh ── Feed
//!                             ├▶ Forbidden   for the sequence: what is not started, what is not committed
//!                             └▶ a refusal   for an operator who wants to go back
//! ```
//!
//! The feed is away while it is asked, and there is none where it cannot be opened; what its newest verified
//! index forbids stays here all that time. An index that is no longer kept (it was damaged, its keys were
//! rotated and no newer one has come) forbids on until another one is verified.
//!
//! The bad path: what is kept cannot be read, or has no index. Then nobody can tell what is forbidden, and
//! what is committed counts as forbidden: `revoked` in the configuration decides whether it starts.

use bumpless_shared::release::Release;
use bumpless_trust::Trusted;
use bumpless_trust::document::IndexDocument;

use crate::upgrade::rules::Forbidden;

/// A release and its place in the order, where that is known.
pub type Numbered<'a> = (&'a Release, Option<u64>);

/// What the publisher forbids.
#[derive(Clone, Debug)]
pub enum Bans {
    /// No feed was ever followed here: nobody has forbidden anything.
    NoFeed,
    /// What the newest verified index says.
    Index(Box<Trusted>),
    /// Nobody can tell, for this reason.
    Unknown(String),
}

impl Bans {
    /// Of what is verified.
    pub fn of(trusted: &Trusted) -> Bans {
        match trusted.index() {
            Some(_) => Bans::Index(Box::new(trusted.clone())),
            None => {
                Bans::Unknown(format!("no index of channel {} is kept on this machine", trusted.channel()))
            }
        }
    }

    /// Takes in what a refresh has verified.
    pub fn learn(&mut self, trusted: &Trusted) {
        if trusted.index().is_some() {
            *self = Bans::of(trusted);
        }
    }

    /// The index that says so, where there is one.
    pub fn index(&self) -> Option<&IndexDocument> {
        match self {
            Bans::NoFeed | Bans::Unknown(_) => None,
            Bans::Index(trusted) => trusted.index(),
        }
    }

    /// Why a release must not run, if that is certain.
    pub fn forbids(&self, (release, counter): Numbered<'_>) -> Option<String> {
        match self {
            Bans::NoFeed | Bans::Unknown(_) => None,
            // A revoked one needs no number.
            Bans::Index(trusted) => {
                let why = trusted.forbids(&release.sha256, counter.unwrap_or(u64::MAX));
                why.map(|why| why.to_string())
            }
        }
    }

    /// Why it cannot be said to be allowed: it is forbidden, or that is not known.
    pub fn doubts(&self, (release, counter): Numbered<'_>) -> Option<String> {
        if let Some(why) = self.forbids((release, counter)) {
            return Some(why);
        }
        match self {
            Bans::NoFeed => None,
            Bans::Unknown(why) => Some(format!("may be revoked: {why}")),
            Bans::Index(trusted) => {
                let floor = trusted.index().map_or(0, |index| index.min_release_counter);
                (counter.is_none() && floor > 0).then(|| {
                    format!(
                        "may be too old: its record cannot be read, and none below number {floor} is allowed"
                    )
                })
            }
        }
    }

    /// What the sequence has to know. What is committed may be all there is, so a doubt is told and its
    /// policy decides; a candidate was verified when it was chosen, and only what is certain speaks against it.
    pub fn forbidden(&self, committed: Option<Numbered<'_>>, candidate: Option<Numbered<'_>>) -> Forbidden {
        let named = |(release, _): Numbered<'_>, why| (release.sha256, why);
        let candidate = candidate.and_then(|it| Some(named(it, self.forbids(it)?)));
        let committed = committed.and_then(|it| Some(named(it, self.doubts(it)?)));
        candidate.into_iter().chain(committed).collect()
    }
}

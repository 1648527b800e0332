//! From the drafts to the feed.
//!
//! ```text
//!   root, if a next one waits ──────┐
//!   each channel:  builds ▶ index ──┼─ written, signed with the keys at hand ─┬▶ enough: on the feed
//!                  timestamp ───────┘                                         └▶ else: on the desk, and said
//! ```
//!
//! What is complete is published; what is not is told. Channels do not wait for each other, but for a next root,
//! which is everybody's: it goes out together with a timestamp and an index of every channel that machines follow,
//! all of which count under it, and those first that count under the old root, too. Then there is no moment at which
//! a client meets a root and files that do not belong together. Where the old keys cannot or must not sign any more,
//! a client that looks between two renames is refused once and comes again.

use bumpless_shared::digest::Digest;
use bumpless_trust::build::BuildDocument;
use bumpless_trust::document::{
    Channel, Extra, IndexDocument, IndexPin, SPEC, TimestampDocument, TimestampType,
};
use bumpless_trust::refresh::{Signed, sha256};
use bumpless_trust::time::Utc;

use crate::desk::{Pending, Waiting, blocks, sigs_of};
use crate::document::{Document, build_path, index_name, json, root_name, timestamp_name};
use crate::error::PublishError;
use crate::published::{is_signed, newest_root, signed, text};
use crate::publisher::{INDEX_VALID, Publisher, ROOT_VALID};
use crate::signer::{Signer, Standing};

/// Signatures of this many timestamps are kept in one `.sigs`, for clients that are reading right now.
const TIMESTAMPS_KEPT: usize = 3;

/// What a channel's machines will meet next, signed by enough keys.
struct Renewal {
    channel: Channel,
    /// The index that they can believe only under the next root.
    index: Option<Pending>,
    timestamp: Pending,
    /// Whether they believe both under the root that is published.
    counts_now: bool,
}

/// The roots that matter while something is published.
#[derive(Clone, Copy)]
struct Roots<'a> {
    /// On the feed.
    published: &'a Standing,
    /// Signed by enough keys, and to follow it.
    next: Option<&'a Standing>,
}

impl<'a> Roots<'a> {
    /// The one whose keys have to be enough.
    fn by(self) -> &'a Standing {
        self.next.unwrap_or(self.published)
    }
}

impl Publisher {
    /// Signs and publishes what has changed in every channel, and a new timestamp in any case.
    ///
    /// # Errors
    /// [`PublishError::Waits`] where signatures are missing; what has enough of them is published. A file
    /// cannot be written: clients then see what was published before, whole.
    pub fn publish(&mut self, now: u64) -> Result<(), PublishError> {
        self.publish_only(&self.channels(), now)
    }

    /// The same in these channels alone. A next root takes all of them with it.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub fn publish_only(&mut self, channels: &[Channel], now: u64) -> Result<(), PublishError> {
        let mut waiting = Vec::new();
        let mut published = newest_root(&self.feed())?;
        let mut next = None;
        if let Some((mut root, standing)) = self.waiting_root(published.as_ref())? {
            let roots: Vec<&Standing> = published.iter().chain([&standing]).collect();
            match self.signed_by(&mut root, &roots)? {
                Some(missing) => waiting.push(missing),
                None if published.is_none() => {
                    self.put(&root, root.sigs())?;
                    published = Some(standing);
                }
                None => next = Some((root, standing)),
            }
        }
        let Some(published) = published else { return Err(PublishError::Waits(waiting)) };
        let roots = Roots { published: &published, next: next.as_ref().map(|(_, standing)| standing) };

        let (mut renewals, mut complete) = (Vec::new(), true);
        self.each(|publisher| {
            let followed = publisher.draft.published > 0;
            if channels.contains(publisher.channel()) || followed && roots.next.is_some() {
                match publisher.renewal(roots, now, &mut waiting)? {
                    Some(renewal) => renewals.push(renewal),
                    // The next root would leave the channel without an index or a timestamp.
                    None => complete &= !followed,
                }
            }
            Ok(())
        })?;
        for renewal in renewals.iter().filter(|renewal| renewal.counts_now) {
            self.put_timestamp(&renewal.timestamp)?;
        }
        if let Some((root, _)) = next.as_ref().filter(|_| complete) {
            let news = |channel: &Channel| renewals.iter().find(|renewal| renewal.channel == *channel);
            self.each(|publisher| match news(publisher.channel()).and_then(|news| news.index.as_ref()) {
                Some(index) => publisher.put_index(index),
                None => Ok(()),
            })?;
            self.put(root, root.sigs())?;
        }
        for Renewal { timestamp, .. } in renewals.iter().filter(|renewal| !renewal.counts_now) {
            if complete {
                self.put_timestamp(timestamp)?;
            } else {
                // It waits for the other channels; nobody has to sign it again.
                self.desk.put(timestamp)?;
            }
        }
        if waiting.is_empty() { Ok(()) } else { Err(PublishError::Waits(waiting)) }
    }

    /// What the channel's machines will meet next; nothing where signatures are missing, which are added to
    /// `waiting`. What they can believe now, but for the timestamp, is published.
    fn renewal(
        &mut self,
        roots: Roots<'_>,
        now: u64,
        waiting: &mut Vec<Waiting>,
    ) -> Result<Option<Renewal>, PublishError> {
        let (by, published) = (roots.by(), roots.published);
        let (mut index, mut built) = (self.next_index(by, now)?, true);
        if index.is_some() || roots.next.is_some() {
            let (complete, missing) = self.builds(by, published)?;
            for build in &complete {
                self.put(build, build.sigs())?;
            }
            built = missing.is_empty();
            for one in missing {
                // Another channel may wait for the same.
                if !waiting.contains(&one) {
                    waiting.push(one);
                }
            }
        }
        // Otherwise what is built counts under one of the two roots, and the other's machines would refuse it.
        let alike = by.document.builders == published.document.builders;
        if let Some(new) = &mut index {
            match self.signed_also_by(new, by, published)? {
                Some(missing) => {
                    waiting.push(missing);
                    index = None;
                }
                None if built && alike && is_signed(&new.signed(), Signer::Release, published) => {
                    self.put_index(new)?;
                    index = None;
                }
                // It waits for the builders, or for the next root; nobody has to sign it again.
                None => {
                    self.desk.put(new)?;
                    index = index.filter(|_| built);
                }
            }
        }
        if roots.next.is_some() && !built {
            return Ok(None);
        }
        let named = match &index {
            Some(index) => Some((index.document().version(), index.signed())),
            None => self.published_index()?.map(|index| (self.draft.published, index)),
        };
        let Some((version, named)) = named.filter(|(_, named)| is_signed(named, Signer::Release, by)) else {
            return Ok(None);
        };
        let pin = IndexPin { version, size: named.bytes.len() as u64, sha256: sha256(&named.bytes) };
        let mut timestamp = self.next_timestamp(pin, &[by, published], now)?;
        if let Some(missing) = self.signed_also_by(&mut timestamp, by, published)? {
            waiting.push(missing);
            return Ok(None);
        }
        let counts_now = index.is_none()
            && is_signed(&timestamp.signed(), Signer::Timestamp, published)
            && is_signed(&named, Signer::Release, published);
        Ok(Some(Renewal { channel: self.channel().clone(), index, timestamp, counts_now }))
    }

    /// Renews the timestamp of each channel over the index that is published; nothing else changes. A channel that
    /// cannot be renewed does not keep the others from it.
    ///
    /// # Errors
    /// [`PublishError::Waits`] where signatures are missing. A file cannot be written, or no index was ever
    /// published.
    pub fn timestamp(&mut self, now: u64) -> Result<(), PublishError> {
        self.timestamp_only(&self.channels(), now)
    }

    /// The same in these channels alone.
    ///
    /// # Errors
    /// As [`Publisher::timestamp`].
    pub fn timestamp_only(&mut self, channels: &[Channel], now: u64) -> Result<(), PublishError> {
        let nothing = || PublishError::Value("no index was published yet; add a release first".to_owned());
        let root = newest_root(&self.feed())?.ok_or_else(nothing)?;
        let (mut renewed, mut waiting, mut failed) = (false, Vec::new(), None);
        self.each(|publisher| {
            if !channels.contains(publisher.channel()) || publisher.draft.published == 0 {
                return Ok(());
            }
            renewed = true;
            match publisher.renew_timestamp(&root, now) {
                Ok(missing) => waiting.extend(missing),
                Err(error) => failed = failed.take().or(Some(error)),
            }
            Ok(())
        })?;
        match failed {
            Some(error) => Err(error),
            None if !renewed => Err(nothing()),
            None if waiting.is_empty() => Ok(()),
            None => Err(PublishError::Waits(waiting)),
        }
    }

    fn renew_timestamp(&mut self, root: &Standing, now: u64) -> Result<Option<Waiting>, PublishError> {
        let version = self.draft.published;
        let index = self.published_index()?.filter(|index| is_signed(index, Signer::Release, root));
        let Some(index) = index else {
            let (channel, feed) = (self.channel(), self.feed());
            let why = format!(
                "index {version} of channel {channel} in {} is not as it was published; restore it",
                feed.display()
            );
            return Err(PublishError::Value(why));
        };
        let pin = IndexPin { version, size: index.bytes.len() as u64, sha256: sha256(&index.bytes) };
        let mut timestamp = self.next_timestamp(pin, &[root], now)?;
        let missing = self.signed_by(&mut timestamp, &[root])?;
        if missing.is_none() {
            self.put_timestamp(&timestamp)?;
        }
        Ok(missing)
    }

    /// What has to be signed anew before it expires, in words: no timer can renew an index or a root.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn expiring(&self, now: u64) -> Result<Vec<String>, PublishError> {
        let soon = |expires: u64, valid: u64| now >= expires.saturating_sub(valid / 3);
        let mut says = Vec::new();
        for draft in self.drafts() {
            let file = self.published_index_of(draft)?;
            if let Some(index) = file.and_then(|file| IndexDocument::parse(&file.bytes).ok())
                && soon(index.expires, INDEX_VALID)
            {
                let (version, channel, expires) = (index.version, index.channel, Utc(index.expires));
                says.push(format!(
                    "index {version} of channel {channel} expires on {expires}; `bumpless-release publish` renews it"
                ));
            }
        }
        if let Some(root) = newest_root(&self.feed())?
            && soon(root.document.expires, ROOT_VALID)
        {
            let (version, expires) = (root.version(), Utc(root.document.expires));
            says.push(format!("root {version} expires on {expires}; `bumpless-release rotate` renews it"));
        }
        Ok(says)
    }

    /// The root that waits to be the next, if one does.
    pub(crate) fn waiting_root(
        &self,
        published: Option<&Standing>,
    ) -> Result<Option<(Pending, Standing)>, PublishError> {
        let name = root_name(published.map_or(1, |root| root.version() + 1));
        let Some(pending) = self.desk.find(&name)? else { return Ok(None) };
        let Document::Root(document) = pending.document().clone() else {
            return Err(PublishError::Value(format!("{} is no root", self.desk.path(&name).display())));
        };
        let standing = Standing::new(document).map_err(|why| PublishError::Value(why.to_string()))?;
        Ok(Some((pending, standing)))
    }

    /// Signs with the keys at hand of two roots; only those of the first have to be enough.
    fn signed_also_by(
        &mut self,
        pending: &mut Pending,
        by: &Standing,
        also: &Standing,
    ) -> Result<Option<Waiting>, PublishError> {
        if let Some(keys) = also.keys(pending.document().signer()) {
            pending.sign_at_hand(keys, &mut self.ring)?;
        }
        self.signed_by(pending, &[by])
    }

    /// The index that is to be signed: the one that waits, or a new one if something has changed, the
    /// published one does not count under this root, or half of its time is over. Nothing otherwise.
    fn next_index(&mut self, by: &Standing, now: u64) -> Result<Option<Pending>, PublishError> {
        let before = self.draft.index.version;
        let unpublished = before > self.draft.published;
        let name = index_name(self.channel(), before);
        if unpublished && !self.draft.changed {
            if let Some(waiting) = self.desk.find(&name)? {
                return Ok(Some(waiting));
            }
        } else if !self.draft.changed
            && now < self.draft.index.expires.saturating_sub(INDEX_VALID / 2)
            && self.published_index()?.is_some_and(|index| is_signed(&index, Signer::Release, by))
        {
            return Ok(None);
        }
        let version = next(before, "index")?;
        let index =
            IndexDocument { version, issued: now, expires: now + INDEX_VALID, ..self.draft.index.clone() };
        IndexDocument::parse(&json(&index)).map_err(|why| PublishError::Value(why.to_string()))?;
        // Kept first: a version that was once signed is never signed again over other bytes.
        self.draft.index = index.clone();
        self.draft.changed = false;
        self.save()?;
        self.desk.clear(&name)?;
        Ok(Some(Pending::new(Document::Index(index))))
    }

    /// What builders have signed of the releases that name it: what is complete and not on the feed, and what
    /// is not complete.
    fn builds(
        &mut self,
        by: &Standing,
        also: &Standing,
    ) -> Result<(Vec<Pending>, Vec<Waiting>), PublishError> {
        let (mut complete, mut waiting) = (Vec::new(), Vec::new());
        let sets: Vec<_> = [by, also].iter().filter_map(|root| root.keys(Signer::Builders)).collect();
        if by.keys(Signer::Builders).is_none() {
            return Ok((complete, waiting));
        }
        let index = self.draft.index.clone();
        let named = index.releases.iter().filter(|entry| entry.counter >= index.min_release_counter);
        for entry in named {
            let Some(name) = entry.build.sums_sha256 else { continue };
            let path = self.feed().join(build_path(&name));
            if signed(&path)?.is_some_and(|there| is_signed(&there, Signer::Builders, by)) {
                continue;
            }
            let fresh = Pending::new(Document::Build(BuildDocument::of(index.network, entry)));
            if sha256(fresh.bytes()) != name {
                let why = format!("release {} has changed since its builders were asked", entry.release);
                return Err(PublishError::Value(why));
            }
            let on_desk = self.desk.find(&fresh.document().name())?;
            let mut build = on_desk.filter(|waits| waits.bytes() == fresh.bytes()).unwrap_or(fresh);
            for block in text(&sigs_of(&path))?.iter().flat_map(|sigs| blocks(sigs).unwrap_or_default()) {
                // What counts under neither root is left behind.
                let _ = build.merge(&block, &sets);
            }
            match self.signed_by(&mut build, &[by])? {
                Some(missing) => waiting.push(missing),
                None => complete.push(build),
            }
        }
        Ok((complete, waiting))
    }

    /// The index on the feed that the channel's timestamps name.
    fn published_index(&self) -> Result<Option<Signed>, PublishError> {
        self.published_index_of(&self.draft)
    }

    /// The timestamp that is to be signed: one that waits and is fresh enough to be worth it, or a new one.
    fn next_timestamp(
        &mut self,
        index: IndexPin,
        roots: &[&Standing],
        now: u64,
    ) -> Result<Pending, PublishError> {
        let name = timestamp_name(self.channel(), self.draft.timestamp_version);
        if let Some(waiting) = self.desk.find(&name)?
            && let Document::Timestamp(document) = waiting.document()
            && document.index == index
            && now < document.issued.saturating_add(document.expires.saturating_sub(document.issued) / 2)
        {
            return Ok(waiting);
        }
        let version = next(self.draft.timestamp_version, "timestamp")?;
        let valid = roots.iter().map(|root| root.timestamp_valid()).min().unwrap_or(0);
        // Kept first, as for the index.
        self.draft.timestamp_version = version;
        self.save()?;
        self.desk.clear(&name)?;
        Ok(Pending::new(Document::Timestamp(TimestampDocument {
            kind: TimestampType::Timestamp,
            spec: SPEC,
            network: self.network(),
            channel: self.channel().clone(),
            version,
            issued: now,
            expires: now + valid,
            index,
            x: Extra::default(),
        })))
    }

    /// Puts an index of the channel on the feed, where the next timestamp names it.
    fn put_index(&mut self, index: &Pending) -> Result<(), PublishError> {
        self.put(index, index.sigs())?;
        self.draft.published = index.document().version();
        self.save()
    }

    /// A timestamp keeps the signatures of those before it: whichever of the two files a client gets first,
    /// the pair verifies.
    fn put_timestamp(&self, timestamp: &Pending) -> Result<(), PublishError> {
        let before = text(&sigs_of(&self.feed().join(timestamp.document().path())))?.unwrap_or_default();
        let mut sigs = timestamp.sigs().to_owned();
        let (mut versions, mut count) = (Vec::new(), blocks(&sigs).map_or(0, |own| own.len()));
        for block in blocks(&before).unwrap_or_default() {
            let comment = block.lines().nth(2).unwrap_or_default().to_owned();
            if !versions.contains(&comment) {
                versions.push(comment);
            }
            count += 1;
            if versions.len() >= TIMESTAMPS_KEPT || count > bumpless_trust::signature::MAX_BLOCKS {
                break;
            }
            sigs.push_str(&block);
        }
        self.put(timestamp, &sigs)
    }

    fn network(&self) -> Digest {
        self.draft.index.network
    }
}

fn next(version: u64, what: &str) -> Result<u64, PublishError> {
    version
        .checked_add(1)
        .ok_or_else(|| PublishError::Value(format!("there is no version after this {what}")))
}

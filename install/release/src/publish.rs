//! From the draft to the feed.
//!
//! ```text
//!   root, if a next one waits ─┐
//!   builds ▶ index ────────────┼─ written, signed with the keys at hand ─┬▶ enough: on the feed
//!   timestamp ─────────────────┘                                         └▶ else: on the desk, and said
//! ```
//!
//! What is complete is published; what is not is told. A next root goes out together with a timestamp and an
//! index that count under it, and those first if they count under the old root, too: then there is no moment
//! at which a client meets a root and files that do not belong together. Where the old keys cannot or must
//! not sign any more, a client that looks between two renames is refused once and comes again.

use bumpless_shared::digest::Digest;
use bumpless_trust::Role;
use bumpless_trust::build::BuildDocument;
use bumpless_trust::document::{Extra, IndexDocument, IndexPin, SPEC, TimestampDocument, TimestampType};
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

impl Publisher {
    /// Signs and publishes what has changed, and a new timestamp in any case.
    ///
    /// # Errors
    /// [`PublishError::Waits`] where signatures are missing; what has enough of them is published. A file
    /// cannot be written: clients then see what was published before, whole.
    pub fn publish(&mut self, now: u64) -> Result<(), PublishError> {
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
        let standing = next.as_ref().map(|(_, standing)| standing);
        let by = standing.unwrap_or(&published);

        let index = self.next_index(by, now)?;
        if index.is_some() || next.is_some() {
            let (complete, missing) = self.builds(by, &published)?;
            for build in &complete {
                self.put(build, build.sigs())?;
            }
            let built = missing.is_empty();
            waiting.extend(missing);
            if let Some(mut index) = index {
                match self.signed_also_by(&mut index, by, &published)? {
                    Some(missing) => waiting.push(missing),
                    None if built => {
                        self.put(&index, index.sigs())?;
                        self.draft.published = index.document().version();
                        self.save()?;
                    }
                    // It waits for the builders; nobody has to sign it again.
                    None => drop(self.desk.put(&index)?),
                }
            }
            if next.is_some() && !built {
                return Err(PublishError::Waits(waiting));
            }
        }
        let Some(named) = self.published_index()? else { return Err(PublishError::Waits(waiting)) };
        if !is_signed(&named, Signer::Release, by) {
            // The next root would leave the feed without an index.
            return Err(PublishError::Waits(waiting));
        }
        let mut timestamp = self.next_timestamp(&named, &[by, &published], now)?;
        match self.signed_also_by(&mut timestamp, by, &published)? {
            Some(missing) => waiting.push(missing),
            None => {
                let file = Signed { bytes: timestamp.bytes().into(), signatures: timestamp.sigs().into() };
                let counts_before = is_signed(&file, Signer::Timestamp, &published)
                    && is_signed(&named, Signer::Release, &published);
                if counts_before {
                    self.put_timestamp(&timestamp)?;
                }
                if let Some((root, _)) = &next {
                    self.put(root, root.sigs())?;
                }
                if !counts_before {
                    self.put_timestamp(&timestamp)?;
                }
            }
        }
        if waiting.is_empty() { Ok(()) } else { Err(PublishError::Waits(waiting)) }
    }

    /// Renews the timestamp over the index that is published; nothing else changes.
    ///
    /// # Errors
    /// [`PublishError::Waits`] where signatures are missing. A file cannot be written, or no index was ever
    /// published.
    pub fn timestamp(&mut self, now: u64) -> Result<(), PublishError> {
        let nothing = || PublishError::Value("no index was published yet; add a release first".to_owned());
        let root = newest_root(&self.feed())?.ok_or_else(nothing)?;
        let index = self.published_index()?.ok_or_else(nothing)?;
        if !is_signed(&index, Signer::Release, &root) {
            let (version, feed) = (self.draft.published, self.feed());
            let why = format!("index {version} in {} is not as it was published; restore it", feed.display());
            return Err(PublishError::Value(why));
        }
        let mut timestamp = self.next_timestamp(&index, &[&root], now)?;
        match self.signed_by(&mut timestamp, &[&root])? {
            Some(missing) => Err(PublishError::Waits(vec![missing])),
            None => self.put_timestamp(&timestamp),
        }
    }

    /// What has to be signed anew before it expires, in words: no timer can renew an index or a root.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn expiring(&self, now: u64) -> Result<Vec<String>, PublishError> {
        let soon = |expires: u64, valid: u64| now >= expires.saturating_sub(valid / 3);
        let mut says = Vec::new();
        if let Some(index) = self.published_index()?.and_then(|file| IndexDocument::parse(&file.bytes).ok())
            && soon(index.expires, INDEX_VALID)
        {
            let (version, expires) = (index.version, Utc(index.expires));
            says.push(format!("index {version} expires on {expires}; `bumpless-release publish` renews it"));
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
        let name = index_name(before);
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

    /// The index on the feed that timestamps name.
    fn published_index(&self) -> Result<Option<Signed>, PublishError> {
        match self.draft.published {
            0 => Ok(None),
            version => signed(&self.feed().join(Role::Release.path(version))),
        }
    }

    /// The timestamp that is to be signed: one that waits and is fresh enough to be worth it, or a new one.
    fn next_timestamp(
        &mut self,
        index: &Signed,
        roots: &[&Standing],
        now: u64,
    ) -> Result<Pending, PublishError> {
        let (size, sha256) = (index.bytes.len() as u64, sha256(&index.bytes));
        let pin = IndexPin { version: self.draft.published, size, sha256 };
        let name = timestamp_name(self.draft.timestamp_version);
        if let Some(waiting) = self.desk.find(&name)?
            && let Document::Timestamp(document) = waiting.document()
            && document.index == pin
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
            channel: self.draft.index.channel.clone(),
            version,
            issued: now,
            expires: now + valid,
            index: pin,
            x: Extra::default(),
        })))
    }

    /// A timestamp keeps the signatures of those before it: whichever of the two files a client gets first,
    /// the pair verifies.
    fn put_timestamp(&self, timestamp: &Pending) -> Result<(), PublishError> {
        let before = text(&sigs_of(&self.feed().join(Role::Timestamp.path(0))))?.unwrap_or_default();
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

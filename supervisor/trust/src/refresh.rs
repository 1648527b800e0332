//! From what this machine trusts already to what is newest: one file after the other.
//!
//! The caller fetches what [`Refresh::file`] names, hands it to [`Refresh::answer`], and makes durable what
//! that returns, in order, before it fetches the next. It decides nothing itself.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use bumpless_shared::digest::Digest;
use sha2::{Digest as _, Sha256};

use crate::build::{self, BuildDocument, MAX_BUILDS};
use crate::document::{
    Channel, IndexDocument, IndexPin, MAX_BUILD, MAX_DOCUMENT, Role, TimestampDocument, parse, root_path,
};
use crate::refused::Refused;
use crate::root::Root;
use crate::signature::Signatures;
use crate::time::At;

/// Roots that one refresh follows (specification 5.3.3 asks for some bound).
pub const MAX_ROOTS: u32 = 64;
/// Seconds by which the clocks of a publisher and of this machine may differ unnoticed.
pub const CLOCK_SLACK: u64 = 600;

/// A file and its `.sigs`, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The file.
    pub bytes: Vec<u8>,
    /// The `.sigs` beside it; empty where there is none.
    pub signatures: Vec<u8>,
}

/// What was kept, in no particular order. A crash may have left several files of one role. Timestamps and
/// indexes are those of the channel that is followed; a caller keeps each channel's apart, so that a machine
/// which comes back to a channel still knows the highest versions that it saw there.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// Roots.
    pub roots: Vec<Signed>,
    /// Timestamps.
    pub timestamps: Vec<Signed>,
    /// Indexes.
    pub indexes: Vec<Signed>,
}

/// A change to what is kept. Each is made durable before the next; each may be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Keep this file of this role, under this version.
    Put(Role, u64, Signed),
    /// Forget every file of this role, of every channel: the keys that signed them do not speak any more.
    Forget(Role),
    /// Forget the files of this role that are older than this version; only of the channel that is followed.
    DropOlder(Role, u64),
    /// Forget the files of this role but the one of this version; only of the channel that is followed. With
    /// `None` all of them.
    DropOthers(Role, Option<u64>),
}

/// Something on this machine is not what it should be, and something else is used instead. Worth an alarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A kept file is not what was once verified. It is forgotten.
    Kept(Role, Refused),
    /// The administrator's root cannot be used. The kept one is.
    Anchor(Refused),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Kept(Role::Root, why) => write!(
                f,
                "a root kept on this machine is damaged and was forgotten; trust begins anew with the best one that \
                 is left, and the roots after it are fetched again: {why}"
            ),
            Damage::Kept(role @ (Role::Timestamp | Role::Release), why) => write!(
                f,
                "the {} kept on this machine was forgotten and will be fetched again: {why}",
                role.file()
            ),
            Damage::Anchor(why) => write!(
                f,
                "the configured first root cannot be used, and is not needed as long as a root is kept on this \
                 machine; put the right one there: {why}"
            ),
        }
    }
}

/// Which bytes were believed, and because of whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The file's version.
    pub version: u64,
    /// SHA-256 of its bytes.
    pub sha256: Digest,
    /// The keys of its role that had signed it when it was verified, as a root writes them.
    pub keys: Vec<String>,
}

impl Evidence {
    fn of(role: Role, by: &Root, version: u64, signed: &Signed) -> Evidence {
        let keys = by.keys(role);
        let signers = Signatures::parse(&signed.signatures)
            .map(|signatures| signatures.signers(keys, role, version, &signed.bytes))
            .unwrap_or_default();
        let keys = signers.into_iter().map(|key| key.text().to_owned()).collect();
        Evidence { version, sha256: sha256(&signed.bytes), keys }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Held<T> {
    pub(crate) document: T,
    pub(crate) evidence: Evidence,
    signed: Signed,
}

/// Everything that was verified: a root always, the rest once it was fetched.
#[derive(Clone, Debug)]
pub struct Trusted {
    pub(crate) channel: Channel,
    root: Root,
    root_bytes: Vec<u8>,
    pub(crate) timestamp: Option<Held<TimestampDocument>>,
    pub(crate) index: Option<Held<IndexDocument>>,
    /// What builders signed, of releases that the index names. Not kept: fetched again after a restart.
    pub(crate) builds: BTreeMap<Digest, BuildDocument>,
}

/// The file to fetch next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// The root of this version; it need not exist.
    Root(u64),
    /// The timestamp.
    Timestamp,
    /// Exactly this index.
    Index(IndexPin),
    /// What builders signed, by its SHA-256.
    Build(Digest),
    /// The refresh is complete.
    Nothing,
}

impl Want {
    /// The file's name on the feed, for who follows this channel, and how many of its bytes may be read.
    fn file(self, channel: &Channel) -> Option<(PathBuf, u64)> {
        match self {
            Want::Root(version) => Some((root_path(version), MAX_DOCUMENT)),
            Want::Timestamp => Some((Role::Timestamp.path(channel, 0), MAX_DOCUMENT)),
            Want::Index(pin) => Some((Role::Release.path(channel, pin.version), pin.size.min(MAX_DOCUMENT))),
            Want::Build(name) => Some((format!("build/{name}").into(), MAX_BUILD)),
            Want::Nothing => None,
        }
    }
}

/// What the feed had to say to a [`Want`]. An error that is not "not found" is neither: it ends the refresh.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The file, whatever it is worth.
    Found(Signed),
    /// There certainly is no such file.
    Missing,
}

/// SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// Size and signatures, before anything is parsed; the version that was signed.
fn verified(role: Role, by: &Root, signed: &Signed) -> Result<u64, Refused> {
    if signed.bytes.len() as u64 > MAX_DOCUMENT {
        return Err(Refused::TooLarge(role, signed.bytes.len() as u64));
    }
    let refused = |why| Refused::Signatures(role, why);
    let signatures = Signatures::parse(&signed.signatures).map_err(refused)?;
    signatures.verify(by.keys(role), role, &signed.bytes).map_err(refused)
}

fn same_version(role: Role, signed: u64, says: u64) -> Result<(), Refused> {
    if signed == says { Ok(()) } else { Err(Refused::SignedVersion(role, signed, says)) }
}

/// A root that its own keys signed: proof that it is whole, not that it may be trusted.
fn self_signed(signed: &Signed) -> Result<Root, Refused> {
    if signed.bytes.len() as u64 > MAX_DOCUMENT {
        return Err(Refused::TooLarge(Role::Root, signed.bytes.len() as u64));
    }
    let root = Root::parse(&signed.bytes).map_err(Refused::Root)?;
    same_version(Role::Root, verified(Role::Root, &root, signed)?, root.version())?;
    Ok(root)
}

fn timestamp(root: &Root, channel: &Channel, signed: Signed) -> Result<Held<TimestampDocument>, Refused> {
    let role = Role::Timestamp;
    let version = verified(role, root, &signed)?;
    let document: TimestampDocument =
        parse(&signed.bytes, "timestamp").map_err(|why| Refused::Document(role, why))?;
    belongs(role, root, channel, document.network, &document.channel)?;
    same_version(role, version, document.version)?;
    Ok(Held { document, evidence: Evidence::of(role, root, version, &signed), signed })
}

fn index(root: &Root, channel: &Channel, signed: Signed) -> Result<Held<IndexDocument>, Refused> {
    let role = Role::Release;
    let version = verified(role, root, &signed)?;
    let document = IndexDocument::parse(&signed.bytes).map_err(|why| Refused::Document(role, why))?;
    belongs(role, root, channel, document.network, &document.channel)?;
    same_version(role, version, document.version)?;
    Ok(Held { document, evidence: Evidence::of(role, root, version, &signed), signed })
}

fn belongs(
    role: Role,
    root: &Root,
    channel: &Channel,
    network: Digest,
    its: &Channel,
) -> Result<(), Refused> {
    if network != root.network() {
        return Err(Refused::Network { role, ours: root.network(), theirs: network });
    }
    if its != channel {
        return Err(Refused::Channel { role, ours: channel.clone(), theirs: its.clone() });
    }
    Ok(())
}

fn not_from_the_future(role: Role, issued: u64, now: u64) -> Result<(), Refused> {
    if issued > now.saturating_add(CLOCK_SLACK) {
        Err(Refused::FromTheFuture(role, issued, now))
    } else {
        Ok(())
    }
}

impl Trusted {
    /// Verifies what was kept, and takes up the administrator's root if it is newer, or if no kept one can be
    /// used. What has to change in what is kept comes back with it, and so does what was damaged.
    ///
    /// # Errors
    /// There is no root that can be used, or the administrator's contradicts the kept one.
    pub fn load(
        anchor: Option<Signed>,
        stored: Stored,
        channel: Channel,
    ) -> Result<(Trusted, Vec<Keep>, Vec<Damage>), Refused> {
        let (mut keep, mut damage, mut roots) = (Vec::new(), Vec::new(), Vec::new());
        for signed in stored.roots {
            match self_signed(&signed) {
                Ok(root) => roots.push((root, signed)),
                Err(why) => damage.push(Damage::Kept(Role::Root, why)),
            }
        }
        let damaged = !damage.is_empty();
        roots.sort_by_key(|(root, _)| root.version());
        let oldest = roots.first().map(|(root, _)| root.clone());
        let newest = roots.pop();
        let left_over = !roots.is_empty();
        let anchor = match anchor.map(|signed| self_signed(&signed).map(|root| (root, signed))).transpose() {
            Err(why) if newest.is_some() => {
                damage.push(Damage::Anchor(why));
                None
            }
            anchor => anchor?,
        };
        let (root, root_signed) = match (newest, anchor) {
            (None, None) => {
                return Err(match damage.into_iter().next() {
                    Some(Damage::Kept(_, why) | Damage::Anchor(why)) => why,
                    None => Refused::NoRoot,
                });
            }
            (Some(newest), None) => newest,
            (None, Some((root, signed))) => {
                keep.push(Keep::Put(Role::Root, root.version(), signed.clone()));
                (root, signed)
            }
            (Some((kept, kept_signed)), Some((root, signed))) => {
                if kept.network() != root.network() {
                    let (ours, theirs) = (kept.network(), root.network());
                    return Err(Refused::Network { role: Role::Root, ours, theirs });
                }
                match root.version().cmp(&kept.version()) {
                    std::cmp::Ordering::Less => (kept, kept_signed),
                    std::cmp::Ordering::Equal if signed.bytes == kept_signed.bytes => (kept, kept_signed),
                    std::cmp::Ordering::Equal => return Err(Refused::Changed(Role::Root, root.version())),
                    std::cmp::Ordering::Greater => {
                        keep.push(Keep::Put(Role::Root, root.version(), signed.clone()));
                        (root, signed)
                    }
                }
            }
        };
        let (mut timestamps, mut indexes) = (stored.timestamps, stored.indexes);
        if let Some(oldest) = &oldest {
            for role in rotated(oldest, &root) {
                keep.push(Keep::Forget(role));
                match role {
                    Role::Timestamp => timestamps.clear(),
                    Role::Release => indexes.clear(),
                    Role::Root => {}
                }
            }
            if left_over || oldest.version() < root.version() {
                keep.push(Keep::DropOlder(Role::Root, root.version()));
            }
        }
        if damaged {
            // The good one under its own name first: never is there none.
            keep.push(Keep::Put(Role::Root, root.version(), root_signed.clone()));
            keep.push(Keep::DropOthers(Role::Root, Some(root.version())));
        }
        let mut newest = Newest { root: &root, before: oldest.as_ref(), keep, damage };
        let timestamp = newest.of(Role::Timestamp, timestamps, |signed| timestamp(&root, &channel, signed));
        let index = newest.of(Role::Release, indexes, |signed| index(&root, &channel, signed));
        let Newest { keep, damage, .. } = newest;
        let (root_bytes, builds) = (root_signed.bytes, BTreeMap::new());
        let trusted = Trusted { channel, root, root_bytes, timestamp, index, builds };
        Ok((trusted, keep, damage))
    }

    /// The root in force.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// SHA-256 of the root in force: what an administrator compares.
    pub fn root_fingerprint(&self) -> Digest {
        sha256(&self.root_bytes)
    }

    /// The channel that is followed.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The newest verified index, if one was ever fetched.
    pub fn index(&self) -> Option<&IndexDocument> {
        self.index.as_ref().map(|held| &held.document)
    }

    /// The bytes of the newest verified index, and who signed them.
    pub fn index_evidence(&self) -> Option<&Evidence> {
        self.index.as_ref().map(|held| &held.evidence)
    }

    /// The newest verified timestamp, if one was ever fetched.
    pub fn timestamp(&self) -> Option<&TimestampDocument> {
        self.timestamp.as_ref().map(|held| &held.document)
    }

    /// A moment that is certainly past: the latest that a verified file was issued at, or `built`.
    pub fn past(&self, built: u64) -> u64 {
        let timestamp = self.timestamp().map_or(0, |timestamp| timestamp.issued);
        let index = self.index().map_or(0, |index| index.issued);
        built.max(timestamp).max(index)
    }

    /// What builders signed of the newest releases that is still to be fetched, if the root names builders.
    fn unattested(&self) -> Want {
        let (Some(index), Some(_)) = (self.index(), self.root.builders()) else { return Want::Nothing };
        let mut newest: Vec<_> = index.releases.iter().collect();
        newest.sort_by_key(|entry| std::cmp::Reverse(entry.counter));
        let names = newest.into_iter().take(MAX_BUILDS).filter_map(|entry| entry.build.sums_sha256);
        names.into_iter().find(|name| !self.builds.contains_key(name)).map_or(Want::Nothing, Want::Build)
    }

    /// What of all this expires first, and when (unix seconds): from then on nothing is chosen until something
    /// newer is verified.
    pub fn expires(&self) -> (Role, u64) {
        let timestamp = self.timestamp().map(|timestamp| (Role::Timestamp, timestamp.expires));
        let index = self.index().map(|index| (Role::Release, index.expires));
        let all = [timestamp, index].into_iter().flatten();
        all.fold((Role::Root, self.root.expires()), |first, next| if next.1 < first.1 { next } else { first })
    }

    /// Whether the clock can be right.
    ///
    /// # Errors
    /// [`Refused::Clock`].
    pub fn check_clock(&self, now: u64, built: u64) -> Result<(), Refused> {
        let past = self.past(built);
        if now.saturating_add(CLOCK_SLACK) < past { Err(Refused::Clock { now, past }) } else { Ok(()) }
    }
}

/// A kept file that has a version.
trait Versioned {
    fn version(&self) -> u64;
}

impl Versioned for TimestampDocument {
    fn version(&self) -> u64 {
        self.version
    }
}

impl Versioned for IndexDocument {
    fn version(&self) -> u64 {
        self.version
    }
}

/// Finds the newest file of a role among those that a crash may have left.
struct Newest<'a> {
    root: &'a Root,
    before: Option<&'a Root>,
    keep: Vec<Keep>,
    damage: Vec<Damage>,
}

impl Newest<'_> {
    fn of<T: Versioned>(
        &mut self,
        role: Role,
        files: Vec<Signed>,
        read: impl Fn(Signed) -> Result<Held<T>, Refused>,
    ) -> Option<Held<T>> {
        let (several, mut unread) = (files.len() > 1, false);
        let mut newest: Option<Held<T>> = None;
        for signed in files {
            match read(signed.clone()) {
                Ok(held) => {
                    let newer =
                        newest.as_ref().is_none_or(|best| best.document.version() < held.document.version());
                    if newer {
                        newest = Some(held);
                    }
                }
                Err(why) => {
                    unread = true;
                    let outdated =
                        self.before.is_some_and(|before| outdated(role, before, self.root, &signed));
                    if !outdated {
                        self.damage.push(Damage::Kept(role, why));
                    }
                }
            }
        }
        match &newest {
            // A file may be kept under any version, whatever it says: the good one under its own name first, and
            // then no other, or what cannot be read would be told of at every start.
            Some(held) if several || unread => {
                let version = held.document.version();
                self.keep.push(Keep::Put(role, version, held.signed.clone()));
                self.keep.push(Keep::DropOthers(role, Some(version)));
            }
            None if unread => self.keep.push(Keep::DropOthers(role, None)),
            Some(_) | None => {}
        }
        newest
    }
}

/// The roles, but root, whose keys differ between two roots.
fn rotated(from: &Root, to: &Root) -> Vec<Role> {
    let differs = |role: &Role| !from.keys(*role).same_keys(to.keys(*role));
    [Role::Timestamp, Role::Release].into_iter().filter(differs).collect()
}

/// Whether a kept file was signed by enough keys before, and is not any more: the threshold has risen.
fn outdated(role: Role, before: &Root, now: &Root, signed: &Signed) -> bool {
    verified(role, before, signed).is_ok() && verified(role, now, signed).is_err()
}

/// One run through the client's order, at one fixed moment.
#[derive(Debug)]
pub struct Refresh {
    trusted: Trusted,
    at: At,
    roots: u32,
    want: Want,
}

impl Refresh {
    /// Begins at `now` (unix seconds); `built` is a moment after which this supervisor was built. Every expiry
    /// counts.
    ///
    /// # Errors
    /// The clock stands before what is certainly past.
    pub fn begin(trusted: Trusted, now: u64, built: u64) -> Result<Self, Refused> {
        Refresh::begin_at(trusted, At::new(now, built))
    }

    /// The same where expiry may be waived. It is waived for this refresh alone: what it verifies is kept with
    /// its expiry, and the next one that does not waive it refuses it.
    ///
    /// # Errors
    /// The clock stands before what is certainly past.
    pub fn begin_at(trusted: Trusted, at: At) -> Result<Self, Refused> {
        trusted.check_clock(at.now, at.built)?;
        let want = Want::Root(trusted.root.version().saturating_add(1));
        Ok(Refresh { trusted, at, roots: 0, want })
    }

    /// What to fetch next.
    pub fn want(&self) -> Want {
        self.want
    }

    /// Its name on the feed and how many of its bytes may be read; the name of its signatures is this one with
    /// `.sigs` appended. Nothing once the refresh is complete.
    pub fn file(&self) -> Option<(PathBuf, u64)> {
        self.want.file(&self.trusted.channel)
    }

    /// What is verified by now.
    pub fn trusted(&self) -> &Trusted {
        &self.trusted
    }

    /// Takes the answer to [`Refresh::want`]. What comes back has to be durable before the next fetch. An
    /// error ends this refresh; what was verified before it stays verified.
    ///
    /// # Errors
    /// Why the answer is not believed.
    pub fn answer(&mut self, answer: Answer) -> Result<Vec<Keep>, Refused> {
        match (self.want, answer) {
            (Want::Root(version), Answer::Found(signed)) => self.next_root(version, signed),
            (Want::Root(_), Answer::Missing) => {
                self.at.not_expired(Role::Root, self.trusted.root.expires())?;
                self.want = Want::Timestamp;
                Ok(Vec::new())
            }
            (Want::Timestamp, Answer::Found(signed)) => self.next_timestamp(signed),
            (Want::Index(pin), Answer::Found(signed)) => self.next_index(pin, signed),
            (Want::Build(name), Answer::Found(signed)) => {
                let build = build::verified(&self.trusted.root, name, &signed)
                    .map_err(|why| Refused::Build(name, why))?;
                self.trusted.builds.insert(name, build);
                self.want = self.trusted.unattested();
                Ok(Vec::new())
            }
            (want @ (Want::Timestamp | Want::Index(_) | Want::Build(_)), Answer::Missing) => {
                Err(Refused::Missing(want, self.trusted.channel.clone()))
            }
            (Want::Nothing, Answer::Found(_) | Answer::Missing) => Err(Refused::NotAsked),
        }
    }

    /// Specification 5.3.4 to 5.3.8, and 5.3.11 at every step, so that a crash loses none of it.
    fn next_root(&mut self, expected: u64, signed: Signed) -> Result<Vec<Keep>, Refused> {
        if self.roots == MAX_ROOTS {
            return Err(Refused::TooManyRoots);
        }
        let old = &self.trusted.root;
        let version = verified(Role::Root, old, &signed)?;
        let new = self_signed(&signed)?;
        if new.network() != old.network() {
            return Err(Refused::Network { role: Role::Root, ours: old.network(), theirs: new.network() });
        }
        same_version(Role::Root, version, new.version())?;
        if new.version() != expected {
            return Err(Refused::RootVersion { expected, found: new.version() });
        }
        let mut keep = vec![Keep::Put(Role::Root, new.version(), signed.clone())];
        let rotated = rotated(old, &new);
        for role in [Role::Timestamp, Role::Release] {
            let held = match role {
                Role::Timestamp => self.trusted.timestamp.as_ref().map(|held| &held.signed),
                Role::Release => self.trusted.index.as_ref().map(|held| &held.signed),
                Role::Root => None,
            };
            let outdated = held.is_some_and(|signed| outdated(role, old, &new, signed));
            if rotated.contains(&role) || outdated {
                keep.push(if rotated.contains(&role) {
                    Keep::Forget(role)
                } else {
                    Keep::DropOthers(role, None)
                });
                match role {
                    Role::Timestamp => self.trusted.timestamp = None,
                    Role::Release => self.trusted.index = None,
                    Role::Root => {}
                }
            }
        }
        // They counted under the old root's builders and its threshold.
        self.trusted.builds.clear();
        keep.push(Keep::DropOlder(Role::Root, new.version()));
        self.trusted.root = new;
        self.trusted.root_bytes = signed.bytes;
        self.roots += 1;
        self.want = Want::Root(expected.saturating_add(1));
        Ok(keep)
    }

    /// Specification 5.4.
    fn next_timestamp(&mut self, signed: Signed) -> Result<Vec<Keep>, Refused> {
        let role = Role::Timestamp;
        let new = timestamp(&self.trusted.root, &self.trusted.channel, signed)?;
        let document = &new.document;
        let held_index = self.trusted.index.as_ref();
        if let Some(old) = &self.trusted.timestamp {
            let (seen, offered) = (old.document.version, document.version);
            if offered < seen {
                return Err(Refused::Older { role, seen, offered });
            }
            if offered == seen && old.signed.bytes != new.signed.bytes {
                return Err(Refused::Changed(role, seen));
            }
            // Without a kept index the release keys were rotated, or no index ever arrived: then the
            // version that an older timestamp named binds nobody.
            let (seen, offered) = (old.document.index.version, document.index.version);
            if held_index.is_some() && offered < seen {
                return Err(Refused::Older { role: Role::Release, seen, offered });
            }
        }
        let pin = document.index;
        if let Some(old) = held_index {
            let seen = old.document.version;
            if pin.version < seen {
                return Err(Refused::Older { role: Role::Release, seen, offered: pin.version });
            }
            if pin.version == seen && pin.sha256 != sha256(&old.signed.bytes) {
                return Err(Refused::Changed(Role::Release, seen));
            }
        }
        if pin.size > MAX_DOCUMENT {
            return Err(Refused::TooLarge(Role::Release, pin.size));
        }
        not_from_the_future(role, document.issued, self.at.now)?;
        self.at.not_expired(role, document.expires)?;
        let valid = document.expires.saturating_sub(document.issued);
        if valid > self.trusted.root.timestamp_valid() {
            return Err(Refused::ValidTooLong(valid, self.trusted.root.timestamp_valid()));
        }
        let version = document.version;
        let keep = vec![Keep::Put(role, version, new.signed.clone()), Keep::DropOlder(role, version)];
        let unchanged = self.trusted.timestamp.as_ref().is_some_and(|old| old.signed == new.signed);
        self.trusted.timestamp = Some(new);
        let index = self.trusted.index.as_ref().map(|held| &held.document);
        self.want = match index.filter(|index| index.version == pin.version) {
            Some(index) if self.at.not_expired(Role::Release, index.expires).is_ok() => {
                self.trusted.unattested()
            }
            // One that is expired ends the refresh when it comes once more: the timestamp is kept first.
            Some(_) | None => Want::Index(pin),
        };
        Ok(if unchanged { Vec::new() } else { keep })
    }

    /// Specification 5.5 and 5.6 in one.
    fn next_index(&mut self, pin: IndexPin, signed: Signed) -> Result<Vec<Keep>, Refused> {
        let role = Role::Release;
        let (size, hash) = (signed.bytes.len() as u64, sha256(&signed.bytes));
        if (size, hash) != (pin.size, pin.sha256) {
            return Err(Refused::Pin { pin, size, sha256: hash });
        }
        let new = index(&self.trusted.root, &self.trusted.channel, signed)?;
        same_version(role, pin.version, new.document.version)?;
        not_from_the_future(role, new.document.issued, self.at.now)?;
        self.at.not_expired(role, new.document.expires)?;
        let version = new.document.version;
        let keep = vec![Keep::Put(role, version, new.signed.clone()), Keep::DropOlder(role, version)];
        let named = |name: &Digest| {
            new.document.releases.iter().any(|entry| entry.build.sums_sha256.as_ref() == Some(name))
        };
        self.trusted.builds.retain(|name, _| named(name));
        self.trusted.index = Some(new);
        self.want = self.trusted.unattested();
        Ok(keep)
    }
}

//! Signing away from the feed: each holder on a machine of their own, and the signatures brought together.
//!
//! ```text
//!   publisher   sign/index-7.json ──▶ anna, berta, each with index-7.json and a copy of the feed
//!   holder      reads in words what it says and what it changes, and signs: index-7.json.sigs
//!   publisher   merges the .sigs of enough holders, and publishes
//! ```
//!
//! A holder need not trust the publisher's machine: what is signed was shown whole, and compared with what
//! enough keys have signed before. The minisign tool signs as well, where nothing needs to be shown:
//! `minisign -S -H -s KEY -t "bumpless/1 release 7" -x index-7.json.sigs -m index-7.json`.

use std::path::{Path, PathBuf};

use crate::changes;
use crate::desk::{NotMerged, Pending, Tally, Waiting, sigs_of};
use crate::document::Document;
use crate::error::PublishError;
use crate::file::{self, Readers};
use crate::key::Key;
use crate::published::{newest_index, newest_root, text};
use crate::publisher::Publisher;
use crate::signer::{Signer, Standing};

/// A file in front of a holder who is to sign it.
#[derive(Debug)]
pub struct Request {
    path: PathBuf,
    pending: Pending,
    /// The newest root of the feed that it was compared with.
    published: Option<Standing>,
    says: Vec<String>,
}

impl Request {
    /// Reads a file that is to be signed as `role`, and compares it with what is on `feed`, if one is given.
    ///
    /// # Errors
    /// Nobody should sign this: no client would take it, it is signed in another role, belongs to another
    /// network, or is older than what is published.
    pub fn read(path: &Path, role: Signer, feed: Option<&Path>) -> Result<Self, PublishError> {
        let pending = Pending::read(path)?;
        let document = pending.document();
        if document.signer() != role {
            return Err(PublishError::OtherRole { asked: role, signs: document.signer() });
        }
        let published = feed.map(newest_root).transpose()?.flatten();
        let mut says = changes::summary(document);
        match (feed, &published) {
            (None, _) => says.push(
                "It was compared with nothing: pass --feed, a copy of the feed, to see what it changes."
                    .into(),
            ),
            (Some(_), None) => says.push("The feed has no root yet: this is its beginning.".into()),
            (Some(feed), Some(root)) => {
                says.push(format!(
                    "Compared with root {} of the feed, reached from its first root, SHA-256 {}:",
                    root.version(),
                    changes::first_root(feed)?
                ));
                if document.network() != root.document.network {
                    let (theirs, ours) = (document.network(), root.document.network);
                    let why = format!("it is for network {theirs}, the feed is of network {ours}");
                    return Err(PublishError::Value(why));
                }
                says.extend(against(feed, root, document)?);
            }
        }
        Ok(Request { path: path.to_owned(), pending, published, says })
    }

    /// What it says and what it changes, in sentences.
    pub fn words(&self) -> &[String] {
        &self.says
    }

    /// Signs it: the signature is appended to the `.sigs` beside the file.
    ///
    /// # Errors
    /// The key does not sign such a file, or has signed it already; or the `.sigs` cannot be written.
    pub fn sign(mut self, key: &Key, key_file: &Path) -> Result<(), PublishError> {
        let signer = self.pending.document().signer();
        let own = match self.pending.document() {
            Document::Root(root) => Some(Standing::new(root.clone())),
            Document::Timestamp(_) | Document::Index(_) | Document::Build(_) => None,
        };
        let own = own.transpose().map_err(|why| PublishError::Value(why.to_string()))?;
        let roots: Vec<&Standing> = self.published.iter().chain(&own).collect();
        let counts = |root: &&Standing| {
            let keys = root.keys(signer).map_or(&[][..], |keys| keys.keys());
            keys.iter().any(|public| public.text() == key.public())
        };
        // Without a feed only a root says itself whose signatures count.
        if !roots.is_empty() && !roots.iter().any(counts) {
            return Err(PublishError::NotAKeyOf(key_file.to_owned(), signer));
        }
        let signed = |root: &&Standing| {
            let keys = root.keys(signer).map(|keys| self.pending.signers(keys)).unwrap_or_default();
            keys.iter().any(|public| public.text() == key.public())
        };
        if roots.iter().any(signed) {
            let why = format!("{} has signed it already; nothing was changed", key_file.display());
            return Err(PublishError::Value(why));
        }
        self.pending.sign(key)?;
        let sigs = sigs_of(&self.path);
        file::write(&sigs, self.pending.sigs().as_bytes(), Readers::All)
            .map_err(|error| PublishError::File("write", sigs, error))
    }
}

/// What a document changes against what is on the feed.
fn against(feed: &Path, root: &Standing, document: &Document) -> Result<Vec<String>, PublishError> {
    let newer = |what: &str, version: u64, published: u64| {
        if version > published {
            Ok(())
        } else {
            let why = format!("{what} {version} is not newer than {what} {published}, which is published");
            Err(PublishError::Value(why))
        }
    };
    match document {
        Document::Root(new) => {
            if new.version != root.version() + 1 {
                let (next, version) = (root.version() + 1, new.version);
                return Err(PublishError::Value(format!("the next root is {next}, not {version}")));
            }
            Ok(changes::of_root(&root.document, new))
        }
        Document::Index(new) => match newest_index(feed, &new.channel, root)? {
            None => {
                Ok(vec![format!("no index of channel {} is published: it begins with this one", new.channel)])
            }
            Some(old) if old.channel != new.channel => {
                let (theirs, ours) = (&new.channel, &old.channel);
                let why = format!("the feed has an index of channel {ours} in the place of channel {theirs}");
                Err(PublishError::Value(why))
            }
            Some(old) => {
                newer("index", new.version, old.version)?;
                Ok(changes::of_index(&old, new))
            }
        },
        Document::Timestamp(new) => match newest_index(feed, &new.channel, root)? {
            None => Ok(vec![format!("no index of channel {} is published under this root", new.channel)]),
            Some(old) => {
                if new.index.version < old.version {
                    newer("index", new.index.version, old.version)?;
                }
                Ok(vec![format!("the published timestamp names index {}", old.version)])
            }
        },
        Document::Build(_) => {
            Ok(vec!["sign it only if these are the SHA-256 of what you built yourself".into()])
        }
    }
}

/// With the difference in words, where a builder's own result lies beside the signatures.
fn not_merged(sigs: &Path, expected: &Pending, why: NotMerged) -> PublishError {
    let beside = Pending::read(&sigs.with_extension(""));
    if let (Document::Build(expected), Ok(found)) = (expected.document(), &beside)
        && let Document::Build(found) = found.document()
        && expected != found
    {
        let differs = changes::of_build(expected, found).join("; ");
        let why = format!("{} is of another result than ours: {differs}", sigs.display());
        return PublishError::Value(why);
    }
    PublishError::NotMerged(sigs.to_owned(), why)
}

/// What came of signatures that were brought together.
#[derive(Clone, Debug)]
pub struct Merged {
    /// The file that they are of.
    pub file: PathBuf,
    /// Who signed and was not there yet.
    pub new: Vec<String>,
    /// What it has now, by each root whose keys have to sign.
    pub tallies: Vec<Tally>,
}

impl Publisher {
    /// Takes over signatures of a file that waits: from `index-7.json.sigs`, or from the `.minisig` that the
    /// minisign tool writes by itself, of the file `sign/index-7.json`.
    ///
    /// # Errors
    /// No such file waits, or a signature does not count; then nothing of these signatures is taken over.
    pub fn merge(&mut self, sigs: &Path) -> Result<Merged, PublishError> {
        let name = sigs.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = name.strip_suffix(".sigs").or_else(|| name.strip_suffix(".minisig")).unwrap_or(name);
        let waits = self.desk.find(name)?;
        let mut pending = waits.ok_or_else(|| {
            let desk = self.desk.path(name);
            PublishError::Value(format!("nothing waits for these signatures: there is no {}", desk.display()))
        })?;
        let missing = |error| PublishError::File("read", sigs.to_owned(), error);
        let text = text(sigs)?.ok_or_else(|| missing(std::io::ErrorKind::NotFound.into()))?;
        let published = newest_root(&self.feed())?;
        let next = self.waiting_root(published.as_ref())?.map(|(_, standing)| standing);
        let signer = pending.document().signer();
        let all: Vec<&Standing> = published.iter().chain(&next).collect();
        let sets: Vec<_> = all.iter().filter_map(|root| root.keys(signer)).collect();
        let new = pending.merge(&text, &sets).map_err(|why| not_merged(sigs, &pending, why))?;
        let new = new.iter().map(|key| self.ring.name(key)).collect();
        let file = self.desk.put(&pending)?;
        // A root needs both; everything else the root in force, which is the old one while the next waits.
        let count = match signer {
            Signer::Root => &all[..],
            Signer::Release | Signer::Timestamp | Signer::Builders => &all[..all.len().min(1)],
        };
        Ok(Merged { file, new, tallies: self.tallies(&pending, count) })
    }

    /// What the first root has and lacks, while it waits for signatures.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn first_root_waits(&self) -> Result<Option<Waiting>, PublishError> {
        Ok(self.waiting_root(None)?.map(|(pending, standing)| Waiting {
            file: self.desk.path(&pending.document().name()),
            tallies: self.tallies(&pending, &[&standing]),
        }))
    }
}

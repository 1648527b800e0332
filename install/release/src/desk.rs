//! `sign/`: what waits for signatures; it goes to the feed when enough keys have signed.
//!
//! ```text
//!   sign/index-7.json        exactly what is to be signed; carried to who holds the keys
//!   sign/index-7.json.sigs   the signatures so far
//!   sign/index-beta-7.json   that of a channel other than stable
//!   sign/build-1.0.0.json    what builders sign of a release, which is the same in every channel
//! ```

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bumpless_trust::Signed;
use bumpless_trust::keys::{Key as PublicKey, Keys};
use bumpless_trust::signature::{BadSignatures, Signatures};

use crate::document::Document;
use crate::error::PublishError;
use crate::file::{self, Readers};
use crate::key::Key;
use crate::keyring::Keyring;
use crate::signer::{Signer, Standing};

/// A document and the signatures that it has so far.
#[derive(Clone, Debug)]
pub struct Pending {
    document: Document,
    bytes: Vec<u8>,
    sigs: String,
}

/// Whose signatures a document has and whose are missing, by one root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// The role.
    pub signer: Signer,
    /// The version of the root whose keys these are.
    pub root: u64,
    /// Signatures of distinct keys that are needed.
    pub need: usize,
    /// Who has signed.
    pub signed: Vec<String>,
    /// Who has not.
    pub unsigned: Vec<String>,
}

impl Tally {
    /// Whether enough keys have signed.
    pub fn is_met(&self) -> bool {
        self.signed.len() >= self.need
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (have, need) = (self.signed.len(), self.need);
        write!(f, "{have} of {need} signatures as {} of root {}", self.signer, self.root)?;
        if !self.signed.is_empty() {
            write!(f, "; signed by {}", self.signed.join(", "))?;
        }
        match need.saturating_sub(have) {
            0 => Ok(()),
            missing => write!(f, "; {missing} missing, of {}", self.unsigned.join(", ")),
        }
    }
}

/// A file that waits for more signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Where it lies.
    pub file: PathBuf,
    /// What is missing, by each root whose keys have to sign.
    pub tallies: Vec<Tally>,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has ", self.file.display())?;
        let mut between = "";
        for tally in self.tallies.iter().filter(|tally| !tally.is_met()) {
            write!(f, "{between}{tally}")?;
            between = "; and ";
        }
        Ok(())
    }
}

impl Pending {
    /// Nothing has signed it yet.
    pub fn new(document: Document) -> Self {
        let bytes = document.bytes();
        Pending { document, bytes, sigs: String::new() }
    }

    /// Reads a file and the `.sigs` beside it, if there are any.
    ///
    /// # Errors
    /// It cannot be read, or nobody should sign it.
    pub fn read(path: &Path) -> Result<Self, PublishError> {
        let failed = |error| PublishError::File("read", path.to_owned(), error);
        let bytes = fs::read(path).map_err(failed)?;
        let document =
            Document::parse(&bytes).map_err(|why| PublishError::NotSignable(path.to_owned(), why))?;
        let sigs = match fs::read_to_string(sigs_of(path)) {
            Ok(sigs) => sigs,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(PublishError::File("read", sigs_of(path), error)),
        };
        if !sigs.is_empty() {
            let bad = |why| PublishError::NotMerged(sigs_of(path), NotMerged::Signatures(why));
            Signatures::parse(sigs.as_bytes()).map_err(bad)?;
        }
        Ok(Pending { document, bytes, sigs })
    }

    /// What is signed.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// The same, as bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The signatures so far: the contents of the `.sigs`.
    pub fn sigs(&self) -> &str {
        &self.sigs
    }

    /// Both, as on a feed.
    pub fn signed(&self) -> Signed {
        Signed { bytes: self.bytes.clone(), signatures: self.sigs.clone().into_bytes() }
    }

    /// Which of these keys have signed.
    pub fn signers<'a>(&self, keys: &'a Keys) -> Vec<&'a PublicKey> {
        signers(&self.document, &self.bytes, &self.sigs, keys)
    }

    /// Whose signatures there are, by this root.
    pub fn tally(&self, by: &Standing, names: &Keyring) -> Option<Tally> {
        let signer = self.document.signer();
        let keys = by.keys(signer)?;
        let signed = self.signers(keys);
        let (have, not): (Vec<_>, Vec<_>) = keys.keys().iter().partition(|key| signed.contains(key));
        let named = |keys: Vec<&PublicKey>| keys.into_iter().map(|key| names.name(key)).collect();
        let (signed, unsigned) = (named(have), named(not));
        Some(Tally { signer, root: by.version(), need: keys.threshold(), signed, unsigned })
    }

    /// Signs with a key that has not signed yet.
    ///
    /// # Errors
    /// Those of the key.
    pub fn sign(&mut self, key: &Key) -> Result<(), PublishError> {
        let signature = key.sign(self.document.signer(), self.document.version(), &self.bytes)?;
        self.sigs.push_str(&signature);
        Ok(())
    }

    /// Signs with every key of these that is at hand and has not signed yet.
    ///
    /// # Errors
    /// A key that is at hand cannot be used.
    pub fn sign_at_hand(&mut self, keys: &Keys, ring: &mut Keyring) -> Result<(), PublishError> {
        let signed: Vec<PublicKey> = self.signers(keys).into_iter().cloned().collect();
        for public in keys.keys().iter().filter(|key| !signed.contains(key)) {
            if let Some(secret) = ring.secret(public)? {
                self.sign(secret)?;
            }
        }
        Ok(())
    }

    /// Takes over the signatures of `sigs` that count under one of these sets of keys, and are not there yet;
    /// returns the keys that made them.
    ///
    /// # Errors
    /// One of them does not count; then none is taken.
    pub fn merge(&mut self, sigs: &str, sets: &[&Keys]) -> Result<Vec<PublicKey>, NotMerged> {
        let mut new = Vec::new();
        let mut merged = self.sigs.clone();
        for (at, block) in blocks(sigs).map_err(NotMerged::Signatures)?.into_iter().enumerate() {
            let by = |keys| signers(&self.document, &self.bytes, &block, keys).first().copied();
            let Some(key) = sets.iter().find_map(|keys| by(keys)) else {
                return Err(NotMerged::DoesNotCount(at + 1));
            };
            let there =
                sets.iter().any(|keys| signers(&self.document, &self.bytes, &merged, keys).contains(&key));
            if !there {
                merged.push_str(&block);
                new.push(key.clone());
            }
        }
        self.sigs = merged;
        Ok(new)
    }
}

/// Why signatures are not taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotMerged {
    /// They are no signatures.
    Signatures(BadSignatures),
    /// One of them (from 1) is over other bytes, in another role or version, or by a key that does not count.
    DoesNotCount(usize),
}

impl fmt::Display for NotMerged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotMerged::Signatures(why) => why.fmt(f),
            NotMerged::DoesNotCount(at) => write!(
                f,
                "its signature {at} is of other bytes, another role or version, or by a key that the root does not name for it"
            ),
        }
    }
}

fn signers<'a>(document: &Document, bytes: &[u8], sigs: &str, keys: &'a Keys) -> Vec<&'a PublicKey> {
    // What does not parse counts for nobody.
    let Ok(signatures) = Signatures::parse(sigs.as_bytes()) else { return Vec::new() };
    signatures.signers(keys, document.signer(), document.version(), bytes)
}

/// The signatures of a `.sigs` file, four lines each.
pub(crate) fn blocks(sigs: &str) -> Result<Vec<String>, BadSignatures> {
    Signatures::parse(sigs.as_bytes())?;
    let lines: Vec<&str> = sigs.lines().collect();
    Ok(lines.chunks(4).map(|block| block.join("\n") + "\n").collect())
}

/// The name of a file's signatures.
pub fn sigs_of(path: &Path) -> PathBuf {
    let mut sigs = path.to_owned().into_os_string();
    sigs.push(".sigs");
    sigs.into()
}

/// The folder `sign/`.
#[derive(Clone, Debug)]
pub struct Desk {
    folder: PathBuf,
}

impl Desk {
    /// The folder need not be there.
    pub fn new(folder: PathBuf) -> Self {
        Desk { folder }
    }

    /// Where a file of this name lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A file that waits, if it does.
    ///
    /// # Errors
    /// It cannot be read, or was changed into something that nobody should sign.
    pub fn find(&self, name: &str) -> Result<Option<Pending>, PublishError> {
        let path = self.path(name);
        if path.exists() { Pending::read(&path).map(Some) } else { Ok(None) }
    }

    /// Lays a file and its signatures there.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put(&self, pending: &Pending) -> Result<PathBuf, PublishError> {
        let create = |error| PublishError::File("create", self.folder.clone(), error);
        fs::create_dir_all(&self.folder).map_err(create)?;
        let path = self.path(&pending.document.name());
        // Another document of this name goes first, so that no signature lies beside what it is not of.
        self.clear(&pending.document.name())?;
        if !pending.sigs.is_empty() {
            write(&sigs_of(&path), pending.sigs.as_bytes())?;
        }
        write(&path, &pending.bytes)?;
        Ok(path)
    }

    /// Clears a file away; one that is not there is no error.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn clear(&self, name: &str) -> Result<(), PublishError> {
        let path = self.path(name);
        // The document first: without it nobody asks for the signatures.
        for path in [path.clone(), sigs_of(&path)] {
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(PublishError::File("remove", path, error)),
            }
        }
        Ok(())
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), PublishError> {
    file::write(path, bytes, Readers::All)
        .map_err(|error| PublishError::File("write", path.to_owned(), error))
}

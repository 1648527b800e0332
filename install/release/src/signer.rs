//! Who signs: a role of a root.

use std::fmt;

use bumpless_trust::Role;
use bumpless_trust::build::BUILDERS;
use bumpless_trust::document::{KeysDocument, RootDocument};
use bumpless_trust::keys::Keys;
use bumpless_trust::root::{BadRoot, Root};
use clap::ValueEnum;

/// A role of a root, by the name that it has there and in trusted comments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Signer {
    /// Signs roots.
    Root,
    /// Signs indexes.
    Release,
    /// Signs timestamps.
    Timestamp,
    /// Sign what they built.
    Builders,
}

impl Signer {
    /// All of them.
    pub const ALL: [Signer; 4] = [Signer::Root, Signer::Release, Signer::Timestamp, Signer::Builders];
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Signer::Root => Role::Root.fmt(f),
            Signer::Release => Role::Release.fmt(f),
            Signer::Timestamp => Role::Timestamp.fmt(f),
            Signer::Builders => f.write_str(BUILDERS),
        }
    }
}

/// A root, as it is written and as it was checked.
#[derive(Clone, Debug)]
pub struct Standing {
    /// As it is written.
    pub document: RootDocument,
    root: Root,
}

impl Standing {
    /// Checks what a client checks in a root, but for its signatures.
    ///
    /// # Errors
    /// No client would take it.
    pub fn new(document: RootDocument) -> Result<Self, BadRoot> {
        let root = Root::parse(&crate::document::json(&document))?;
        Ok(Standing { document, root })
    }

    /// Its version.
    pub fn version(&self) -> u64 {
        self.root.version()
    }

    /// The keys of a role; only builders may have none.
    pub fn keys(&self, signer: Signer) -> Option<&Keys> {
        match signer {
            Signer::Root => Some(self.root.keys(Role::Root)),
            Signer::Release => Some(self.root.keys(Role::Release)),
            Signer::Timestamp => Some(self.root.keys(Role::Timestamp)),
            Signer::Builders => self.root.builders(),
        }
    }

    /// Seconds that a timestamp may be valid.
    pub fn timestamp_valid(&self) -> u64 {
        self.root.timestamp_valid()
    }
}

/// What a root says about a role.
pub fn keys_in(root: &RootDocument, signer: Signer) -> Option<&KeysDocument> {
    match signer {
        Signer::Root => Some(&root.root),
        Signer::Release => Some(&root.release),
        Signer::Timestamp => Some(&root.timestamp),
        Signer::Builders => root.builders.as_ref(),
    }
}

/// The same, to be changed.
pub fn keys_in_mut(root: &mut RootDocument, signer: Signer) -> Option<&mut KeysDocument> {
    match signer {
        Signer::Root => Some(&mut root.root),
        Signer::Release => Some(&mut root.release),
        Signer::Timestamp => Some(&mut root.timestamp),
        Signer::Builders => root.builders.as_mut(),
    }
}

//! The next root: other keys for a role, another threshold, or nothing but another two years.

use std::num::NonZeroU8;
use std::path::{Path, PathBuf};

use bumpless_trust::document::KeysDocument;
use bumpless_trust::keys::Key as PublicKey;

use crate::desk::Pending;
use crate::document::Document;
use crate::error::PublishError;
use crate::keyring::public;
use crate::published::newest_root;
use crate::publisher::{Publisher, ROOT_VALID};
use crate::signer::{Signer, Standing, keys_in_mut};

/// One change between two roots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyChange {
    /// A holder's public key, a `.pub` file, is one more key of this role.
    Add(Signer, PathBuf),
    /// This public key, a `.pub` file, is no key of this role any more.
    Remove(Signer, PathBuf),
    /// So many keys of this role have to sign.
    Threshold(Signer, NonZeroU8),
    /// A new key in `keys/` takes the place of all keys of this role.
    New(Signer),
    /// Nobody is asked to have built the same any more.
    NoBuilders,
}

impl Publisher {
    /// Writes the next root with these changes and signs it with the keys at hand. It is published by
    /// [`Publisher::publish`], when enough keys of the old root and enough of its own have signed.
    ///
    /// # Errors
    /// One waits already, there is none before it, or no client would take it.
    pub fn rotate(&mut self, changes: &[KeyChange], now: u64) -> Result<(), PublishError> {
        let nothing = || PublishError::Value("the first root is not published yet".to_owned());
        let old = newest_root(&self.feed())?.ok_or_else(nothing)?;
        if let Some((waits, _)) = self.waiting_root(Some(&old))? {
            // Two roots of one version, both signed, would split the network.
            return Err(PublishError::RootWaits(self.desk.path(&waits.document().name())));
        }
        let mut root = old.document.clone();
        root.version = old.version() + 1;
        root.expires = now + ROOT_VALID;
        for change in changes {
            match change {
                KeyChange::Add(signer, path) => {
                    let key = self.ring.take(path)?;
                    let text = key.text().to_owned();
                    match keys_in_mut(&mut root, *signer) {
                        Some(keys) => keys.keys.push(text),
                        None => {
                            let first = KeysDocument { threshold: NonZeroU8::MIN, keys: vec![text] };
                            root.builders = Some(first);
                        }
                    }
                }
                KeyChange::Remove(signer, path) => {
                    let key = public(path)?;
                    let keys = keys_in_mut(&mut root, *signer).map(|document| &mut document.keys);
                    let before = keys.as_ref().map_or(0, |keys| keys.len());
                    let after = keys.map_or(0, |keys| {
                        keys.retain(|text| PublicKey::parse(text).as_ref() != Ok(&key));
                        keys.len()
                    });
                    if before == after {
                        return Err(not_there(path, *signer));
                    }
                }
                KeyChange::Threshold(signer, threshold) => match keys_in_mut(&mut root, *signer) {
                    Some(keys) => keys.threshold = *threshold,
                    None => return Err(PublishError::Value(format!("the root names no {signer}"))),
                },
                KeyChange::New(signer) => {
                    let key = self.ring.make(&format!("{signer}-{}", root.version))?;
                    let only = KeysDocument { threshold: NonZeroU8::MIN, keys: vec![key.text().to_owned()] };
                    match keys_in_mut(&mut root, *signer) {
                        Some(keys) => *keys = only,
                        None => root.builders = Some(only),
                    }
                }
                KeyChange::NoBuilders => root.builders = None,
            }
        }
        let new = Standing::new(root.clone()).map_err(|why| PublishError::Value(why.to_string()))?;
        let mut pending = Pending::new(Document::Root(root));
        if self.signed_by(&mut pending, &[&old, &new])?.is_none() {
            self.desk.put(&pending)?;
        }
        Ok(())
    }
}

fn not_there(path: &Path, signer: Signer) -> PublishError {
    PublishError::Value(format!("{} is no key of {signer} in the newest root", path.display()))
}

//! The keys that a publisher has: public ones with the names of their holders, and secret ones at hand.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bumpless_trust::keys::Key as PublicKey;

use crate::file::{self, Readers};
use crate::key::{Key, KeyError};
use crate::password::Passwords;

/// `keys/`: `<holder>.pub`, and `<holder>.key` beside it where the secret key is at hand. A secret key is read
/// when it is needed, not before.
#[derive(Debug)]
pub struct Keyring {
    folder: PathBuf,
    /// Public keys in the folder, with the names of their files.
    known: Vec<(String, PublicKey)>,
    /// Secret keys that lie elsewhere and were not read yet.
    elsewhere: Vec<PathBuf>,
    passwords: Passwords,
    read: Vec<(PublicKey, Key)>,
}

impl Keyring {
    /// Reads the public keys of a folder. `elsewhere` names more secret keys.
    ///
    /// # Errors
    /// A file in it cannot be read, or is no public key.
    pub fn open(folder: &Path, elsewhere: Vec<PathBuf>, passwords: Passwords) -> Result<Self, KeyError> {
        let failed = |error| KeyError::File(folder.to_owned(), error);
        let mut known = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let stem = path.file_stem().and_then(|name| name.to_str());
            if let (Some(name), Some("pub")) = (stem, path.extension().and_then(|end| end.to_str())) {
                known.push((name.to_owned(), public(&path)?));
            }
        }
        known.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(Keyring { folder: folder.to_owned(), known, elsewhere, passwords, read: Vec::new() })
    }

    /// Copies a holder's public key into the folder, where its file's name is the holder's.
    ///
    /// # Errors
    /// It is no public key, or another one has that name.
    pub fn take(&mut self, path: &Path) -> Result<PublicKey, KeyError> {
        let key = public(path)?;
        if self.known.iter().any(|(_, known)| *known == key) {
            return Ok(key);
        }
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or("key").to_owned();
        let to = self.folder.join(format!("{name}.pub"));
        if to.exists() {
            return Err(KeyError::Exists(to));
        }
        let text = format!("untrusted comment: public key of {name}\n{}\n", key.text());
        file::write(&to, text.as_bytes(), Readers::All).map_err(|error| KeyError::File(to, error))?;
        self.known.push((name, key.clone()));
        Ok(key)
    }

    /// Makes a key with this name in the folder.
    ///
    /// # Errors
    /// There is one, or it cannot be written.
    pub fn make(&mut self, name: &str) -> Result<PublicKey, KeyError> {
        let path = self.folder.join(format!("{name}.key"));
        let key = Key::generate(&path)?;
        let public = parse(&path, &key.public())?;
        self.known.push((name.to_owned(), public.clone()));
        self.read.push((public.clone(), key));
        Ok(public)
    }

    /// What to call a key: its holder's name where that is known.
    pub fn name(&self, key: &PublicKey) -> String {
        match self.known.iter().find(|(_, known)| known == key) {
            Some((name, _)) => name.clone(),
            None => key.text().to_owned(),
        }
    }

    /// The secret half of a key, if it is at hand.
    ///
    /// # Errors
    /// It is there and cannot be read, or its password is wrong.
    pub fn secret(&mut self, key: &PublicKey) -> Result<Option<&Key>, KeyError> {
        if !self.read.iter().any(|(public, _)| public == key) {
            let here = self.known.iter().filter(|(_, known)| known == key);
            let path =
                here.map(|(name, _)| self.folder.join(format!("{name}.key"))).find(|path| path.exists());
            let paths = match path {
                Some(path) => vec![path],
                // Which key it is shows only when it is read.
                None => std::mem::take(&mut self.elsewhere),
            };
            for path in paths {
                let secret = Key::read_with(&path, &mut self.passwords)?;
                self.read.push((parse(&path, &secret.public())?, secret));
            }
        }
        Ok(self.read.iter().find(|(public, _)| public == key).map(|(_, secret)| secret))
    }
}

/// Reads a minisign `.pub` file.
///
/// # Errors
/// It cannot be read, or is no public key that a root may list.
pub fn public(path: &Path) -> Result<PublicKey, KeyError> {
    let text = fs::read_to_string(path).map_err(|error| KeyError::File(path.to_owned(), error))?;
    let line = text.lines().nth(1).ok_or_else(|| {
        KeyError::File(path.to_owned(), io::Error::new(io::ErrorKind::InvalidData, "it has no second line"))
    })?;
    parse(path, line.trim_end())
}

fn parse(path: &Path, text: &str) -> Result<PublicKey, KeyError> {
    PublicKey::parse(text).map_err(|why| KeyError::Public(path.to_owned(), why))
}

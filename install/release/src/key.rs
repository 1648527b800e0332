//! A secret key and the signatures that it makes.

use std::fmt;
use std::path::{Path, PathBuf};

use bumpless_trust::signature::trusted_comment;
use ct_codecs::{Base64, Decoder};
use minisign::{KeyPair, PublicKey, SecretKey, SecretKeyBox};

use crate::file::{self, Readers};
use crate::password::Passwords;

/// One role's secret key, ready to sign.
pub struct Key {
    secret: SecretKey,
    public: PublicKey,
}

/// A key cannot be made, read or used.
#[derive(Debug)]
pub enum KeyError {
    /// A file.
    File(PathBuf, std::io::Error),
    /// What minisign says, and about which file.
    Minisign(PathBuf, minisign::PError),
    /// A password is needed and there is none.
    Password(PathBuf, std::io::Error),
    /// A public key.
    Public(PathBuf, bumpless_trust::keys::BadKey),
    /// A file of this name is there already; a key is never replaced.
    Exists(PathBuf),
    /// Signing failed.
    Sign(minisign::PError),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyError::File(path, error) => write!(f, "cannot use the key file {}: {error}", path.display()),
            KeyError::Minisign(path, error) => write!(f, "{} is no usable key: {error}", path.display()),
            KeyError::Password(path, error) => write!(
                f,
                "no password for the encrypted key {}: {error}. Without a terminal, pass it with --password-fd.",
                path.display()
            ),
            KeyError::Public(path, why) => write!(f, "the key in {} {why}", path.display()),
            KeyError::Exists(path) => write!(f, "{} exists already; a key is never replaced", path.display()),
            KeyError::Sign(error) => write!(f, "cannot sign: {error}"),
        }
    }
}

impl std::error::Error for KeyError {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.public.to_base64())
    }
}

impl Key {
    /// Makes a key and writes `<path>` (secret, no password, readable by its owner) and `<path>` with the
    /// ending `.pub`, both as the minisign tool does.
    ///
    /// # Errors
    /// One of them exists or cannot be written.
    pub fn generate(path: &Path) -> Result<Self, KeyError> {
        let pub_path = path.with_extension("pub");
        if let Some(there) = [path, &pub_path].into_iter().find(|path| path.exists()) {
            return Err(KeyError::Exists(there.to_owned()));
        }
        let minisign = |error| KeyError::Minisign(path.to_owned(), error);
        let pair = KeyPair::generate_unencrypted_keypair().map_err(minisign)?;
        let secret = pair.sk.to_box(Some("bumpless-release secret key")).map_err(minisign)?;
        let public = pair.pk.to_box().map_err(minisign)?;
        let write = |path: &Path, text: String, readers| {
            file::write(path, text.as_bytes(), readers)
                .map_err(|error| KeyError::File(path.to_owned(), error))
        };
        write(path, secret.into_string(), Readers::Owner)?;
        write(&pub_path, public.into_string(), Readers::All)?;
        Ok(Key { secret: pair.sk, public: pair.pk })
    }

    /// Reads a secret key, made here or by the minisign tool. An encrypted one asks for its password at the
    /// terminal, unless it is given.
    ///
    /// # Errors
    /// The file cannot be read, or the password is wrong.
    pub fn read(path: &Path, password: Option<String>) -> Result<Self, KeyError> {
        let mut passwords = match password {
            Some(password) => Passwords::Lines([password].into()),
            None => Passwords::Terminal,
        };
        Self::read_with(path, &mut passwords)
    }

    /// The same, with the password from wherever passwords come from; only an encrypted key takes one.
    ///
    /// # Errors
    /// The file cannot be read, there is no password, or it is wrong.
    pub fn read_with(path: &Path, passwords: &mut Passwords) -> Result<Self, KeyError> {
        let text = std::fs::read_to_string(path).map_err(|error| KeyError::File(path.to_owned(), error))?;
        let minisign = |error| KeyError::Minisign(path.to_owned(), error);
        let secret = match plain(&text) {
            Some(secret) => secret,
            None => {
                let password =
                    passwords.of(path).map_err(|error| KeyError::Password(path.to_owned(), error))?;
                let boxed = SecretKeyBox::from_string(&text).map_err(minisign)?;
                boxed.into_secret_key(Some(password)).map_err(minisign)?
            }
        };
        let public = PublicKey::from_secret_key(&secret).map_err(minisign)?;
        Ok(Key { secret, public })
    }

    /// The public key as a root lists it.
    pub fn public(&self) -> String {
        self.public.to_base64()
    }

    /// Four lines: a prehashed signature of `bytes` as `role` at `version`.
    ///
    /// # Errors
    /// [`KeyError::Sign`].
    pub fn sign(&self, role: impl fmt::Display, version: u64, bytes: &[u8]) -> Result<String, KeyError> {
        let comment = trusted_comment(role, version);
        let signature =
            minisign::sign(Some(&self.public), &self.secret, bytes, Some(&comment), Some("bumpless-release"));
        Ok(signature.map_err(KeyError::Sign)?.into_string())
    }
}

/// A key without a password. The minisign tool (0.11, `-G -W`) writes no checksum into such a key, which
/// the crate takes for damage; one whose checksum is there has to be right.
fn plain(text: &str) -> Option<SecretKey> {
    const CHECKSUM: usize = 32;
    let bytes = Base64::decode_to_vec(text.lines().nth(1)?.trim_end(), None).ok()?;
    let none = bytes.len().checked_sub(CHECKSUM).is_some_and(|at| bytes[at..].iter().all(|byte| *byte == 0));
    let without_password = bytes.get(2..4) == Some(&[0, 0]);
    if none && without_password {
        return SecretKey::from_bytes(&bytes).ok();
    }
    SecretKeyBox::from_string(text).and_then(SecretKeyBox::into_unencrypted_secret_key).ok()
}

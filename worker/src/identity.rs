//! What never changes in the life of a node: `state/identity/`, made at the very first start and only
//! read after it. Releases, generations and supervisors come and go; clients know the node by this.
//!
//! ```text
//!   identity/node.crt   the certificate, DER: what clients pin
//!   identity/node.key   its private key, PKCS#8 DER, mode 0400
//! ```
//!
//! It is written aside and renamed, directory and all, so a first start that was cut off at any point
//! leaves nothing or everything.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bumpless_os::{disk, durable};

use crate::net::{Identity, IdentityError};

/// The folder within the state directory.
pub const FOLDER: &str = "identity";
/// The certificate within the folder.
pub const CERTIFICATE: &str = "node.crt";
/// The private key within the folder.
pub const KEY: &str = "node.key";

/// Why there is no identity.
#[derive(Debug)]
pub enum IdentityFailure {
    /// A file or folder of it.
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// No key could be made.
    Generate(IdentityError),
}

impl fmt::Display for IdentityFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdentityFailure::File { path, error } if error.kind() == io::ErrorKind::NotFound => write!(
                f,
                "the node's identity is missing: {} is not there. Restore it from a backup; clients would not know \
                 the node with another one",
                path.display()
            ),
            IdentityFailure::File { path, error } => {
                write!(f, "cannot read or make the node's identity at {}: {error}", path.display())
            }
            IdentityFailure::Generate(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for IdentityFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            IdentityFailure::File { error, .. } => Some(error),
            IdentityFailure::Generate(error) => Some(error),
        }
    }
}

/// Reads it.
///
/// # Errors
/// It is not there or cannot be read.
pub fn read(state: &Path) -> Result<Identity, IdentityFailure> {
    let folder = state.join(FOLDER);
    let file = |name: &str| {
        let path = folder.join(name);
        fs::read(&path).map_err(|error| IdentityFailure::File { path, error })
    };
    Ok(Identity { certificate: file(CERTIFICATE)?, key: file(KEY)? })
}

/// Makes it durably, or reads the one that an earlier try has made.
///
/// # Errors
/// It cannot be made, or the one that is there cannot be read.
pub fn make(state: &Path) -> Result<Identity, IdentityFailure> {
    let folder = state.join(FOLDER);
    if folder.exists() {
        return read(state);
    }
    let aside = durable::aside(&folder);
    let identity = Identity::generate().map_err(IdentityFailure::Generate)?;
    let made = || -> io::Result<()> {
        match disk::remove_dir_all(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        durable::create_dirs(&aside)?;
        for (name, bytes, mode) in [(CERTIFICATE, &identity.certificate, 0o444), (KEY, &identity.key, 0o400)]
        {
            let mut file = disk::File::create_new(&aside.join(name), mode)?;
            file.write_all(bytes)?;
            file.sync_all()?;
        }
        disk::sync_dir(&aside)?;
        disk::rename(&aside, &folder)?;
        disk::sync_dir(state)
    };
    made().map_err(|error| IdentityFailure::File { path: folder.clone(), error })?;
    Ok(identity)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_identity_is_made_once_even_where_a_first_try_was_cut_off() {
        let state = tempfile::tempdir().unwrap();
        assert!(read(state.path()).unwrap_err().to_string().contains("missing"));
        fs::create_dir(state.path().join("identity.new")).unwrap();
        fs::write(state.path().join("identity.new").join(KEY), b"half").unwrap();
        let made = make(state.path()).unwrap();
        assert_eq!(make(state.path()).unwrap().certificate, made.certificate);
        assert_eq!(read(state.path()).unwrap().key, made.key);
        let mode = fs::metadata(state.path().join(FOLDER).join(KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o400);
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 1);
    }
}

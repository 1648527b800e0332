//! Keys that every worker of this node shares, so that one can speak for another that died. Made once
//! in the node's life: connections of living workers depend on them.

use std::fs::File;
use std::io::{self, Read};

use bumpless_shared::control::RoutingKeys;

use super::file::{RecordError, RecordFile};
use super::paths::Paths;

/// The keys; made and durable, readable for the supervisor's user alone, where there are none yet.
///
/// # Errors
/// They can be neither read nor made. Damaged keys are not replaced here: workers that live use them.
pub fn load_or_create(paths: &Paths) -> Result<RoutingKeys, RecordError> {
    let file = file(paths);
    match file.load()? {
        Some(keys) => Ok(keys),
        None => create(paths),
    }
}

/// New keys, over what is there. Only where no worker lives; clients of one would wait for their idle
/// time-out once it has died.
///
/// # Errors
/// They cannot be made or written.
pub fn create(paths: &Paths) -> Result<RoutingKeys, RecordError> {
    let file = file(paths);
    let fail =
        |source| RecordError::Write { what: "set of routing keys", path: file.path().to_owned(), source };
    let keys = RoutingKeys {
        reset: random().map_err(fail)?,
        token: random().map_err(fail)?,
        mac: random().map_err(fail)?,
    };
    file.store(&keys)?;
    Ok(keys)
}

/// What a worker proves itself with when it comes back to a supervisor that was replaced.
///
/// # Errors
/// The kernel's source of chance cannot be read.
pub fn secret() -> io::Result<[u8; 16]> {
    random()
}

fn file(paths: &Paths) -> RecordFile<RoutingKeys> {
    RecordFile::new(paths.routing(), "set of routing keys", 1)
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_made_once_and_are_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), dir.path());
        let keys = load_or_create(&paths).unwrap();
        assert!(keys == load_or_create(&paths).unwrap());
        assert_ne!(keys.reset, keys.token);
        assert_eq!(std::fs::metadata(paths.routing()).unwrap().permissions().mode() & 0o777, 0o600);
        assert_ne!(secret().unwrap(), secret().unwrap());
    }

    #[test]
    fn damaged_keys_are_an_error_and_are_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), dir.path());
        std::fs::write(paths.routing(), b"").unwrap();
        assert!(matches!(load_or_create(&paths), Err(RecordError::Damaged { .. })));
        assert!(create(&paths).unwrap() == load_or_create(&paths).unwrap());
    }
}

//! A worker in a package of the system: what lies beside it.
//!
//! Nobody signs a declaration. A machine believes it because only root can put files where its packages put
//! workers; so whoever makes the package, and whoever its system's package manager trusts, is who is trusted.

use std::path::{Path, PathBuf};

use bumpless_shared::control::Description;
use bumpless_trust::Package;
use bumpless_trust::choice::targets;
use bumpless_trust::document::{Extra, PackageType, SPEC};
use bumpless_trust::package::Declaration;

use crate::artifact::{describe, measure};
use crate::document::json;
use crate::error::PublishError;
use crate::file::{self, Readers};

/// What to say about a worker beside its bytes.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Its place in the order: where the release is on a feed, too, the feed's number.
    pub counter: u64,
    /// What the worker says about itself; absent: it is run with `--describe`.
    pub description: Option<Description>,
    /// For which machine; absent: machines like this one.
    pub target: Option<String>,
    /// It does not wait for a maintenance window.
    pub urgent: bool,
}

/// The declaration of this worker.
///
/// # Errors
/// It cannot be read, does not describe itself, or no machine would believe what results.
pub fn declare(worker: &Path, terms: Terms) -> Result<Declaration, PublishError> {
    let Terms { counter, description, target, urgent } = terms;
    let Description { release, contract, protocol, state } = match description {
        Some(description) => description,
        None => describe(worker)?,
    };
    let target = target.unwrap_or_else(|| targets().swap_remove(0));
    let (size, sha256) = measure(worker)?;
    let declaration = Declaration {
        kind: PackageType::Package,
        spec: SPEC,
        release,
        counter,
        urgent,
        min_supervisor: [0, 1, 0],
        contract,
        protocol,
        state,
        target,
        size,
        sha256,
        x: Extra::default(),
    };
    let refused = |why| PublishError::Value(format!("{}: {why}", worker.display()));
    Package::parse(&json(&declaration)).map_err(refused)?;
    Ok(declaration)
}

/// Puts the declaration beside its worker, under its name with the ending `.json`. Where that is, comes back.
///
/// # Errors
/// It cannot be written.
pub fn write(worker: &Path, declaration: &Declaration) -> Result<PathBuf, PublishError> {
    let mut path = worker.as_os_str().to_owned();
    path.push(".json");
    let path = PathBuf::from(path);
    let written = file::write(&path, &json(declaration), Readers::All);
    written.map_err(|error| PublishError::File("write", path.clone(), error))?;
    Ok(path)
}

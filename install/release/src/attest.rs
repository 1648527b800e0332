//! A builder says what came out of the source.

use std::path::{Path, PathBuf};

use bumpless_shared::release::Version;
use bumpless_trust::build::{BuildDocument, Built};
use bumpless_trust::document::{Kind, RootDocument};

use crate::artifact::{describe, measure};
use crate::desk::{Pending, sigs_of};
use crate::document::Document;
use crate::error::PublishError;
use crate::file::{self, Readers};
use crate::key::Key;
use crate::signer::{Signer, Standing};

/// What a builder built.
#[derive(Clone, Debug)]
pub struct Attestation {
    /// Which release.
    pub release: Version,
    /// Its place in the order, as the publisher gave it.
    pub counter: u64,
    /// The source that was built.
    pub commit: String,
    /// Each artifact with the target that it is for.
    pub artifacts: Vec<(String, PathBuf)>,
}

/// Writes what a builder signs into `folder`, as `build-<release>.json`, and signs it. Builders who built the
/// same write the same bytes, so that their signatures can be brought together.
///
/// # Errors
/// An artifact cannot be read or says that it is another release, the key is none of the root's builders, or
/// another result lies there already.
pub fn attest(
    folder: &Path,
    root: &Path,
    attestation: &Attestation,
    key: (&Key, &Path),
) -> Result<PathBuf, PublishError> {
    let (key, key_file) = key;
    let document = match Pending::read(root)?.document() {
        Document::Root(document) => document.clone(),
        Document::Timestamp(_) | Document::Index(_) | Document::Build(_) => {
            return Err(PublishError::Value(format!("{} is no root", root.display())));
        }
    };
    let mut pending = Pending::new(Document::Build(built(&document, attestation)?));
    let standing = Standing::new(document).map_err(|why| PublishError::Value(why.to_string()))?;
    let builders = standing.keys(Signer::Builders).map_or(&[][..], |keys| keys.keys());
    if !builders.iter().any(|builder| builder.text() == key.public()) {
        return Err(PublishError::NotAKeyOf(key_file.to_owned(), Signer::Builders));
    }
    let path = folder.join(pending.document().name());
    if path.exists() {
        let there = Pending::read(&path)?;
        if there.bytes() != pending.bytes() {
            let why = format!("{} is there already, and says something else", path.display());
            return Err(PublishError::Value(why));
        }
        pending = there;
    }
    let signed = standing.keys(Signer::Builders).map(|keys| pending.signers(keys)).unwrap_or_default();
    if !signed.iter().any(|builder| builder.text() == key.public()) {
        pending.sign(key)?;
    }
    let write = |path: &Path, bytes: &[u8]| {
        file::write(path, bytes, Readers::All)
            .map_err(|error| PublishError::File("write", path.to_owned(), error))
    };
    write(&path, pending.bytes())?;
    write(&sigs_of(&path), pending.sigs().as_bytes())?;
    Ok(path)
}

fn built(root: &RootDocument, attestation: &Attestation) -> Result<BuildDocument, PublishError> {
    let Attestation { release, counter, commit, artifacts } = attestation;
    let here = bumpless_trust::choice::targets();
    let mut built = Vec::new();
    for (target, path) in artifacts {
        if here.contains(target) {
            let says = describe(path)?.release;
            if says != *release {
                return Err(PublishError::OtherRelease { asked: release.clone(), says });
            }
        }
        let (raw_size, raw_sha256) = measure(path)?;
        built.push(Built { kind: Kind::Worker, target: target.clone(), raw_size, raw_sha256 });
    }
    Ok(BuildDocument::new(root.network, release.clone(), *counter, commit.clone(), built))
}

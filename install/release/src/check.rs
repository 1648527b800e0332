//! A whole client run against a folder, with a word on each check.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bumpless_shared::digest::Digest;
use bumpless_trust::document::{Artifact, Channel, Encoding, MAX_DOCUMENT, MAX_SIGNATURES};
use bumpless_trust::time::Utc;
use bumpless_trust::{Answer, Refresh, Refused, Signed, Stored, Trusted, Want};
use sha2::{Digest as _, Sha256};

/// The feed would not be accepted.
#[derive(Debug)]
pub enum Faulty {
    /// A file cannot be read.
    File(PathBuf, io::Error),
    /// A client would refuse it.
    Refused(Refused),
    /// A blob is not what the index says.
    Blob(PathBuf, String),
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Faulty::File(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Faulty::Refused(why) => why.fmt(f),
            Faulty::Blob(path, why) => write!(f, "{} {why}", path.display()),
        }
    }
}

impl std::error::Error for Faulty {}

/// Runs the client's order over `feed` at `now`, beginning with the root file `first`, and hands each passed
/// check to `say` as a sentence.
///
/// # Errors
/// The first thing that a client would refuse.
pub fn check(
    feed: &Path,
    first: &Path,
    channel: &Channel,
    now: u64,
    mut say: impl FnMut(String),
) -> Result<Trusted, Faulty> {
    let first = signed(first, MAX_DOCUMENT)?.ok_or_else(|| missing(first))?;
    let (trusted, _, _) =
        Trusted::load(Some(first), Stored::default(), channel.clone()).map_err(Faulty::Refused)?;
    let fingerprint = trusted.root_fingerprint();
    say(format!("root {} is the beginning, its SHA-256 is {fingerprint}", trusted.root().version()));
    let mut refresh = Refresh::begin(trusted, now, 0).map_err(Faulty::Refused)?;
    while let Some((name, limit)) = refresh.want().file() {
        let want = refresh.want();
        let answer = signed(&feed.join(name), limit)?.map_or(Answer::Missing, Answer::Found);
        let found = matches!(answer, Answer::Found(_));
        refresh.answer(answer).map_err(Faulty::Refused)?;
        let trusted = refresh.trusted();
        match want {
            Want::Root(version) if found => {
                say(format!(
                    "root {version} is signed by enough keys of root {} and of its own",
                    version - 1
                ));
            }
            Want::Root(version) => {
                let expires = Utc(trusted.root().expires());
                say(format!("there is no root {version}; root {} is valid until {expires}", version - 1));
            }
            Want::Timestamp => {
                if let Some(timestamp) = trusted.timestamp() {
                    let (version, index) = (timestamp.version, timestamp.index.version);
                    say(format!(
                        "timestamp {version} names index {index}, valid until {}",
                        Utc(timestamp.expires)
                    ));
                }
            }
            Want::Index(_) => {
                if let Some(index) = trusted.index() {
                    say(format!("index {} is that one, valid until {}", index.version, Utc(index.expires)));
                }
            }
            Want::Build(name) => say(format!("build/{name} is signed by enough builders")),
            Want::Nothing => {}
        }
    }
    let trusted = refresh.trusted().clone();
    for entry in trusted.index().map_or(&[][..], |index| &index.releases) {
        for artifact in &entry.artifacts {
            blob(&feed.join(artifact.path()), artifact)?;
            let (version, target) = (&entry.release, &artifact.target);
            say(format!(
                "release {version} for {target} unpacks to {} bytes with its SHA-256",
                artifact.raw_size
            ));
        }
    }
    Ok(trusted)
}

fn missing(path: &Path) -> Faulty {
    Faulty::File(path.to_owned(), io::ErrorKind::NotFound.into())
}

fn signed(path: &Path, limit: u64) -> Result<Option<Signed>, Faulty> {
    let Some(bytes) = read(path, limit)? else { return Ok(None) };
    let mut sigs = path.to_owned().into_os_string();
    sigs.push(".sigs");
    let signatures = read(Path::new(&sigs), MAX_SIGNATURES)?.unwrap_or_default();
    Ok(Some(Signed { bytes, signatures }))
}

/// At most one byte more than allowed, which is enough to be refused.
fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Faulty> {
    let failed = |error| Faulty::File(path.to_owned(), error);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(bytes))
}

fn blob(path: &Path, artifact: &Artifact) -> Result<(), Faulty> {
    let failed = |error| Faulty::File(path.to_owned(), error);
    let (size, sha256) = hash(File::open(path).map_err(failed)?, artifact.size).map_err(failed)?;
    if (size, sha256) != (artifact.size, artifact.sha256) {
        return Err(Faulty::Blob(
            path.to_owned(),
            format!("has {size} bytes or more, SHA-256 {sha256}; not as signed"),
        ));
    }
    let file = File::open(path).map_err(failed)?;
    let (raw_size, raw_sha256) = match artifact.encoding {
        Encoding::Plain => (size, sha256),
        Encoding::Zstd => {
            let unpacked = zstd::Decoder::new(file).map_err(failed)?.single_frame();
            hash(unpacked, artifact.raw_size).map_err(failed)?
        }
    };
    if (raw_size, raw_sha256) != (artifact.raw_size, artifact.raw_sha256) {
        let text = format!("unpacks to {raw_size} bytes or more, SHA-256 {raw_sha256}; not as signed");
        return Err(Faulty::Blob(path.to_owned(), text));
    }
    Ok(())
}

/// Size and SHA-256, of at most one byte more than expected.
fn hash(source: impl Read, expected: u64) -> io::Result<(u64, Digest)> {
    let (mut source, mut hash, mut size) = (source.take(expected.saturating_add(1)), Sha256::new(), 0);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match source.read(&mut buffer)? {
            0 => return Ok((size, Digest(hash.finalize().into()))),
            read => {
                hash.update(&buffer[..read]);
                size += read as u64;
            }
        }
    }
}

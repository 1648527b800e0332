//! The programs under test, built once per process by a nested `cargo build` into the folder that this
//! program itself was built into, with the same profile.
//!
//! A test of one package may use only that package's programs, and there is no stable way to depend
//! on another package's; hence the nested build. It finds everything but the last link done, because
//! this package depends on the libraries of all programs.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Where each program is.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// The supervisor.
    pub bumplessd: PathBuf,
    /// The fetcher.
    pub fetch: PathBuf,
    /// The operator's command.
    pub bumpless: PathBuf,
    /// The node, as it was built: no release is stamped on it.
    pub node: PathBuf,
    /// The client's command.
    pub client: PathBuf,
    /// The publisher's command.
    pub release: PathBuf,
}

/// The programs could not be built.
#[derive(Debug)]
pub enum BuildError {
    /// This program lies in no folder that cargo builds into.
    Where(PathBuf),
    /// Cargo could not be started.
    Start(std::io::Error),
    /// Cargo said why, on its error stream.
    Failed(std::process::ExitStatus),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::Where(path) => {
                write!(f, "{} lies in no build folder: start this with cargo", path.display())
            }
            BuildError::Start(error) => {
                write!(f, "cannot start cargo: {error}. Is the Rust toolchain on PATH?")
            }
            BuildError::Failed(status) => write!(f, "cargo build failed ({status}); its messages are above"),
        }
    }
}

impl std::error::Error for BuildError {}

impl Binaries {
    /// Builds on the first call; cargo's own progress goes to the error stream.
    ///
    /// # Errors
    /// What stands in the way of building; the same on every later call.
    pub fn build() -> Result<&'static Binaries, &'static BuildError> {
        static BUILT: OnceLock<Result<Binaries, BuildError>> = OnceLock::new();
        BUILT.get_or_init(build).as_ref()
    }
}

fn build() -> Result<Binaries, BuildError> {
    let own = std::env::current_exe().map_err(BuildError::Start)?;
    let folder = build_folder(&own).ok_or_else(|| BuildError::Where(own.clone()))?;
    let target = folder.parent().ok_or_else(|| BuildError::Where(own.clone()))?;
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(other) => other,
        None => return Err(BuildError::Where(own.clone())),
    };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    // The whole workspace, this package too: another selection would unify features differently and
    // build half of the dependencies a second time.
    cargo.args(["build", "--workspace", "--bins", "--profile", profile]);
    cargo.arg("--manifest-path").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"));
    cargo.arg("--target-dir").arg(target);
    cargo.stdin(Stdio::null()).stdout(Stdio::null());
    // What the outer cargo says about *this* package: build scripts watch some of it, and would be run
    // again, with everything that depends on them.
    for (name, _) in std::env::vars_os() {
        let told = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_")
                || name.starts_with("CARGO_BIN_")
                || [
                    "CARGO_MANIFEST_DIR",
                    "CARGO_MANIFEST_PATH",
                    "CARGO_CRATE_NAME",
                    "CARGO_PRIMARY_PACKAGE",
                    "OUT_DIR",
                ]
                .contains(&name)
        });
        if told {
            cargo.env_remove(name);
        }
    }
    let status = cargo.status().map_err(BuildError::Start)?;
    if !status.success() {
        return Err(BuildError::Failed(status));
    }
    let at = |name: &str| folder.join(name);
    Ok(Binaries {
        bumplessd: at("bumplessd"),
        fetch: at("bumpless-fetch"),
        bumpless: at("bumpless"),
        node: at("bumpless-node"),
        client: at("bumpless-client"),
        release: at("bumpless-release"),
    })
}

/// `…/debug` for `…/debug/demo` and for `…/debug/deps/node-0123`.
fn build_folder(own: &Path) -> Option<PathBuf> {
    let folder = own.parent()?;
    let folder = if folder.ends_with("deps") { folder.parent()? } else { folder };
    Some(folder.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_and_the_demo_find_the_same_folder() {
        for own in ["/t/debug/demo", "/t/debug/deps/node-0123"] {
            assert_eq!(build_folder(Path::new(own)), Some(PathBuf::from("/t/debug")));
        }
    }
}

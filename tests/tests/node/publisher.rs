//! The publisher's command with the real node: what a supervisor runs is what the binary says of itself.

use std::path::Path;
use std::process::Command;

use bumpless_tests::binaries::Binaries;
use bumpless_tests::world::Result;

fn run(program: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output()?;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {said}");
    Ok(said)
}

#[test]
fn a_feed_made_of_the_node_as_it_was_built_passes_a_whole_client_run() -> Result<()> {
    let binaries = Binaries::build().map_err(|error| error.to_string())?;
    let folder = tempfile::tempdir()?;
    let dir = folder.path().to_str().ok_or("the folder's name is no text")?;
    let node = binaries.node.to_str().ok_or("the node's name is no text")?;
    let version = env!("CARGO_PKG_VERSION");
    run(&binaries.release, &["init", dir])?;
    run(&binaries.release, &["add", node, "--dir", dir, "--release", version])?;
    let said = run(&binaries.release, &["verify", dir])?;
    assert!(said.contains(version), "{said}");
    // It names itself; nobody else can.
    let other =
        Command::new(&binaries.release).args(["add", node, "--dir", dir, "--release", "9.9.9"]).output()?;
    assert!(!other.status.success());
    assert!(String::from_utf8_lossy(&other.stderr).contains(version), "{other:?}");
    Ok(())
}

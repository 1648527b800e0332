//! What lies beside a worker in a package of the system.
use std::path::PathBuf;

use bumpless_release::PublishError;
use bumpless_release::declare::{self, Terms, declare};
use bumpless_trust::Package;
use bumpless_trust::choice::targets;
use bumpless_trust::refresh::sha256;

use crate::description;

fn worker(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bumpless-node");
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

fn terms(counter: u64) -> Terms {
    Terms { counter, description: Some(description("1.8.2")), ..Terms::default() }
}

#[test]
fn what_is_written_beside_a_worker_is_what_a_machine_reads() {
    let (_dir, path) = worker(b"the node");
    let declaration = declare(&path, terms(41)).unwrap();
    let written = declare::write(&path, &declaration).unwrap();
    assert_eq!(written, path.with_file_name("bumpless-node.json"));
    let package = Package::parse(&std::fs::read(&written).unwrap()).unwrap();
    assert_eq!((package.release().version.as_str(), package.counter()), ("1.8.2", 41));
    let artifact = package.artifact();
    assert_eq!((artifact.raw_size, artifact.raw_sha256), (8, sha256(b"the node")));
    assert_eq!(artifact.target, targets()[0]);
    let other = Terms { target: Some("riscv64gc-unknown-linux-gnu".into()), urgent: true, ..terms(41) };
    let declaration = declare(&path, other).unwrap();
    assert_eq!((declaration.target.as_str(), declaration.urgent), ("riscv64gc-unknown-linux-gnu", true));
}

#[test]
fn what_no_machine_would_believe_is_not_written() {
    let (_dir, path) = worker(b"");
    assert!(matches!(declare(&path, terms(1)), Err(PublishError::Value(_))));
    let (_dir, path) = worker(b"the node");
    let nowhere = Terms { target: Some("../here".into()), ..terms(1) };
    let error = declare(&path, nowhere).unwrap_err().to_string();
    assert!(error.contains("a target is not"), "{error}");
}

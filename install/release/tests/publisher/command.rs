//! The command line, from an empty folder to a feed that a client accepts.
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

fn run(dir: &Path, arguments: &[&str]) -> Output {
    let _alone = crate::alone_with_programs();
    Command::new(env!("CARGO_BIN_EXE_bumpless-release")).current_dir(dir).args(arguments).output().unwrap()
}

fn done(dir: &Path, arguments: &[&str]) -> String {
    let output = run(dir, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_feed_is_made_filled_changed_and_checked_from_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let artifact = dir.join("node");
    let description = r#"{"release":"1.1.0","contract":{"min":1,"max":1},"protocol":{"min":1,"max":1},"state":{"read_min":1,"read_max":1,"write":1}}"#;
    let alone = crate::alone_with_programs();
    std::fs::write(&artifact, format!("#!/bin/sh\n[ \"$1\" = --describe ] && echo '{description}'\n"))
        .unwrap();
    drop(alone);
    std::fs::set_permissions(&artifact, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(dir.join("description"), description).unwrap();

    assert!(done(dir, &["init", "lab", "--lab"]).contains("one key per role"));
    assert_eq!(std::fs::metadata(dir.join("lab/keys/root.key")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(done(dir, &["add", "node", "--dir", "lab", "--release", "1.1.0"]).starts_with("1.1.0 "));
    let other =
        ["add", "node", "--dir", "lab", "--release", "1.1.0", "--target", "riscv64gc-unknown-linux-gnu"];
    done(dir, &[&other[..], &["--describe-file", "description"]].concat());
    done(dir, &["promote", "1.1.0", "--dir", "lab", "--stages", "0:10,86400:1000"]);
    done(dir, &["pause", "--dir", "lab"]);
    done(dir, &["pause", "off", "--dir", "lab"]);
    done(dir, &["timestamp", "lab"]);
    let said = done(dir, &["verify", "lab"]);
    assert_eq!(said.lines().filter(|line| line.starts_with("ok: release 1.1.0 for ")).count(), 2, "{said}");
    done(dir, &["channel", "beta", "--dir", "lab"]);
    done(dir, &["promote", "1.1.0", "--dir", "lab", "--channel", "beta"]);
    let said = done(dir, &["verify", "lab"]);
    let both: Vec<_> = said.lines().filter(|line| line.starts_with("channel ")).collect();
    assert_eq!(both, ["channel beta:", "channel stable:"]);
    let alone = done(dir, &["verify", "lab", "--channel", "beta"]);
    assert!(said.contains(&alone) && !alone.contains("channel"), "{alone}");
    done(dir, &["timestamp", "lab", "--channel", "beta"]);
    done(dir, &["publish", "lab", "--channel", "beta"]);
    assert!(done(dir, &["verify", "lab", "--channel", "beta"]).contains("ok: timestamp 3 names index 1"));
    done(dir, &["pause", "--dir", "lab", "--channel", "beta"]);
    let said = done(dir, &["revoke", "1.1.0", "--dir", "lab"]);
    assert_eq!(said, "1.1.0 is revoked in channels: beta, stable\n");
    let wrong = run(dir, &["pause", "--dir", "lab", "--channel", "bata"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("the feed has no channel bata"));
    assert_eq!(run(dir, &["channel", "../x", "--dir", "lab"]).status.code(), Some(2));

    let wrong = run(dir, &["add", "node", "--dir", "lab", "--release", "2.0.0"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("says that it is release 1.1.0, not 2.0.0"));
    assert_eq!(run(dir, &["promote"]).status.code(), Some(2));
    let nowhere = run(dir, &["timestamp", "nowhere"]);
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("bumpless-release init"));
}

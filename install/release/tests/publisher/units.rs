//! The units that renew a timestamp, as systemd reads them.
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::{alone_with_programs, tool};
use bumpless_trust::document::TIMESTAMP_VALID;

const NAMES: [&str; 2] = ["bumpless-timestamp.service", "bumpless-timestamp.timer"];

fn unit(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

fn analyze(arguments: &[&str]) -> (bool, String) {
    let _alone = alone_with_programs();
    let output = Command::new("systemd-analyze").args(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units_that_renew_a_timestamp() {
    if !tool("systemd-analyze", "--version") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // It looks whether the program is there; ours is not installed where tests run.
    let program = dir.path().join("bumpless-release");
    let alone = alone_with_programs();
    std::fs::write(&program, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    drop(alone);
    let paths = NAMES.map(|name| dir.path().join(name).to_str().unwrap().to_owned());
    for (name, path) in NAMES.iter().zip(&paths) {
        let text = unit(name).replace("/usr/bin/bumpless-release", program.to_str().unwrap());
        std::fs::write(path, text).unwrap();
    }
    let (good, said) = analyze(&["verify", &paths[0], &paths[1]]);
    // It may speak of other units of this machine.
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("bumpless-timestamp")).collect();
    assert!(good && ours.is_empty(), "{said}");
}

#[test]
fn a_timestamp_is_renewed_many_times_before_a_machine_stops_believing_it() {
    let timer = unit(NAMES[1]);
    let calendar = timer.lines().find_map(|line| line.strip_prefix("OnCalendar=")).unwrap();
    let hours = calendar.strip_prefix("*-*-* 00/").and_then(|rest| rest.strip_suffix(":00:00"));
    let hours: u64 = hours.expect("every so many hours").parse().unwrap();
    assert!(24 % hours == 0 && 10 * hours * 3600 < TIMESTAMP_VALID, "every {hours} hours");
    let service = unit(NAMES[0]);
    assert!(service.contains("ExecStart=/usr/bin/bumpless-release timestamp /srv/bumpless\n"));
}

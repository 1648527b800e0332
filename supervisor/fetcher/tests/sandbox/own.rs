//! What the fetcher gives up by itself.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Output};

use nix::errno::Errno;

use crate::bad::REFUSED;
use crate::left_out;

pub const TESTS: &[(&str, fn())] = &[
    ("own::no_file_is_written_made_changed_or_removed", no_file_is_written_made_changed_or_removed),
    ("own::nothing_is_executed_and_no_other_process_is_touched", nothing_is_executed),
    ("own::what_the_supervisor_imposed_stays", what_the_supervisor_imposed_stays),
    ("own::no_socket_is_made_but_to_a_server", no_socket_is_made_but_to_a_server),
    ("own::a_private_key_is_not_read", a_private_key_is_not_read),
    ("own::no_other_port_is_connected_to", no_other_port_is_connected_to),
    ("own::it_says_what_is_in_force_here", it_says_what_is_in_force_here),
];

/// Of a fetch from a server whose name has to be looked up: the widest of the sandboxes.
const BY_NAME: &str = "https://feed.example/x";
const BY_NUMBER: &str = "https://192.0.2.1/x";

fn does(where_it_is: &str, url: &str, deed: &str, with: &str) -> Output {
    let ours = std::env::current_exe().unwrap();
    Command::new(ours).args(["gone-bad", where_it_is, url, deed, with]).output().unwrap()
}

/// Refused with one of these errors in the sandbox. It is done without it, last, since that may change what
/// it was done to.
fn only_without_the_sandbox(url: &str, deed: &str, with: &str, refused: &[Errno]) {
    let output = does("shut-in", url, deed, with);
    assert_eq!(output.status.code(), Some(i32::from(REFUSED)), "{deed} in the sandbox: {output:?}");
    let number = String::from_utf8(output.stdout).unwrap().parse().unwrap();
    assert!(refused.contains(&Errno::from_raw(number)), "{deed}: {}", Errno::from_raw(number));
    let output = does("free", url, deed, with);
    assert!(output.status.success(), "{deed} without the sandbox: {output:?}");
}

fn works_in_the_sandbox(url: &str, deed: &str, with: &str) {
    let output = does("shut-in", url, deed, with);
    assert!(output.status.success(), "{deed}: {output:?}");
}

/// As a person is told it.
fn described() -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_bumpless-fetch")).arg("--describe-sandbox").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn no_file_is_written_made_changed_or_removed() {
    for (deed, refused) in [
        ("create", Errno::EPERM),
        ("overwrite", Errno::EPERM),
        ("append", Errno::EPERM),
        ("truncate", Errno::EPERM),
        ("make a folder", Errno::ENOSYS),
        ("remove", Errno::ENOSYS),
        ("rename", Errno::ENOSYS),
        ("link", Errno::ENOSYS),
        ("link by name", Errno::ENOSYS),
        ("change the mode", Errno::ENOSYS),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("record");
        std::fs::write(&file, b"of the supervisor").unwrap();
        only_without_the_sandbox(BY_NAME, deed, file.to_str().unwrap(), &[refused]);
    }
}

fn nothing_is_executed() {
    only_without_the_sandbox(BY_NAME, "execute", "", &[Errno::ENOSYS]);
    only_without_the_sandbox(BY_NAME, "have a child", "", &[Errno::ENOSYS, Errno::EPERM]);
    only_without_the_sandbox(BY_NAME, "signal its parent", "", &[Errno::ENOSYS]);
}

fn what_the_supervisor_imposed_stays() {
    only_without_the_sandbox(BY_NAME, "outlive its parent", "", &[Errno::EPERM]);
    only_without_the_sandbox(BY_NAME, "leave its group", "", &[Errno::ENOSYS]);
}

fn no_socket_is_made_but_to_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("service.sock");
    let _service = UnixListener::bind(&path).unwrap();
    only_without_the_sandbox(BY_NAME, "talk to a local service", path.to_str().unwrap(), &[Errno::EPERM]);
    only_without_the_sandbox(BY_NAME, "listen", "", &[Errno::ENOSYS]);
    // By name datagrams are there, to ask for it, and still none are awaited.
    only_without_the_sandbox(BY_NUMBER, "send datagrams", "", &[Errno::EPERM]);
    only_without_the_sandbox(BY_NAME, "send datagrams", "", &[Errno::ENOSYS]);
}

fn a_private_key_is_not_read() {
    if !described().contains("Landlock") {
        return left_out("a_private_key_is_not_read", "this kernel has no Landlock");
    }
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("release.key");
    std::fs::write(&key, b"secret").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    for url in [BY_NAME, BY_NUMBER] {
        only_without_the_sandbox(url, "read", key.to_str().unwrap(), &[Errno::EACCES]);
        only_without_the_sandbox(url, "list", dir.path().to_str().unwrap(), &[Errno::EACCES]);
        only_without_the_sandbox(url, "read", "/etc/passwd", &[Errno::EACCES]);
        only_without_the_sandbox(url, "read its parent's environment", "", &[Errno::EACCES]);
    }
    // What a name is looked up with.
    works_in_the_sandbox(BY_NAME, "read", "/etc/hosts");
    only_without_the_sandbox(BY_NUMBER, "read", "/etc/hosts", &[Errno::EACCES]);
}

fn no_other_port_is_connected_to() {
    if !described().contains("TCP ports\n") {
        return left_out(
            "no_other_port_is_connected_to",
            "this kernel has no Landlock that knows ports (Linux 6.7 and later)",
        );
    }
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (feed, other) = (listen(), listen());
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port().to_string();
    for url in [format!("http://127.0.0.1:{}/x", port(&feed)), format!("https://localhost:{}/x", port(&feed))]
    {
        works_in_the_sandbox(&url, "connect", &port(&feed));
        only_without_the_sandbox(&url, "connect", &port(&other), &[Errno::EACCES]);
    }
    let by_name = format!("https://localhost:{}/x", port(&feed));
    works_in_the_sandbox(&by_name, "connect by name", &port(&feed));
    only_without_the_sandbox(&by_name, "connect by name", &port(&other), &[Errno::EACCES]);
}

fn it_says_what_is_in_force_here() {
    let text = described();
    assert!(text.starts_with("in force: no new privileges; a filter of system calls"), "{text}");
    // Landlock is there, or is said not to be.
    assert!(text.contains("; Landlock ") != text.contains("\nlacks: Landlock, "), "{text}");
}

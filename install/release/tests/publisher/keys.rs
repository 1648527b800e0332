//! The minisign tool and this one: each uses the other's keys and signatures, with passwords and without.
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{NOW, add, alone_with_programs, channel, publisher, tool, waits};
use bumpless_release::check::{Faulty, check};
use bumpless_release::key::{Key, KeyError};
use bumpless_release::password::Passwords;
use bumpless_release::{Holders, Options, Publisher};
use bumpless_trust::{Refused, Role};

fn minisign_is_here() -> bool {
    tool("minisign", "-v")
}

fn minisign(arguments: &[&str], input: &str) {
    let alone = alone_with_programs();
    let mut child = Command::new("minisign")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(alone);
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "minisign {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn what_we_sign_verifies_with_the_minisign_tool() {
    if !minisign_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = publisher(dir.path());
    publisher.publish(NOW).unwrap();
    for (name, key) in [("root/1.json", "root"), ("index/1.json", "release"), ("timestamp.json", "timestamp")]
    {
        let file = publisher.feed().join(name);
        let public = dir.path().join(format!("keys/{key}.pub"));
        let sigs = format!("{}.sigs", file.display());
        minisign(&["-V", "-H", "-p", text(&public), "-x", &sigs, "-m", text(&file)], "");
    }
}

#[test]
fn what_the_minisign_tool_signs_is_merged_and_published_and_its_keys_can_be_used_here() {
    if !minisign_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["anna", "berta"] {
        minisign(
            &["-G", "-W", "-p", text(&at(&format!("{name}.pub"))), "-s", text(&at(&format!("{name}.key")))],
            "",
        );
    }
    let both = bumpless_release::PublicKeys {
        files: vec![at("anna.pub"), at("berta.pub")],
        threshold: 2.try_into().unwrap(),
    };
    let holders = Holders { release: Some(both), ..Holders::default() };
    let options = Options { holders, ..Options::new(channel(), NOW) };
    let mut publisher = Publisher::init(&at("net"), &options).unwrap();
    add(&mut publisher, dir.path(), "1.0.0", b"one").unwrap();
    assert_eq!(waits(publisher.publish(NOW)), [("index-1.json".to_owned(), vec![2])]);

    // Anna's key, our signature; Berta with her own tool.
    let file = at("net/sign/index-1.json");
    let sigs =
        Key::read(&at("anna.key"), None).unwrap().sign(Role::Release, 1, &std::fs::read(&file).unwrap());
    std::fs::write(at("index-1.json.sigs"), sigs.unwrap()).unwrap();
    let (key, minisig) = (at("berta.key"), at("index-1.json.minisig"));
    let comment = "bumpless/1 release 1";
    let legacy = ["-S", "-l", "-s", text(&key), "-x", text(&minisig), "-t", comment, "-m", text(&file)];
    minisign(&legacy, "");
    let why = publisher.merge(&minisig).unwrap_err();
    assert!(why.to_string().contains("nothing of"), "a signature in the legacy format: {why}");
    minisign(&["-S", "-H", "-s", text(&key), "-x", text(&minisig), "-t", comment, "-m", text(&file)], "");
    assert_eq!(publisher.merge(&at("index-1.json.sigs")).unwrap().new, ["anna"]);
    let merged = publisher.merge(&minisig).unwrap();
    assert_eq!(merged.new, ["berta"]);
    assert!(merged.tallies[0].is_met());
    publisher.publish(NOW).unwrap();
    check(&publisher.feed(), &publisher.first_root(), &channel(), NOW, |_| {}).unwrap();
}

#[test]
fn a_signature_in_the_legacy_format_counts_for_no_machine() {
    if !minisign_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = publisher(dir.path());
    publisher.publish(NOW).unwrap();
    let file = publisher.feed().join("timestamp.json");
    let (key, sigs) = (dir.path().join("keys/timestamp.key"), format!("{}.sigs", file.display()));
    let accepted = || check(&publisher.feed(), &publisher.first_root(), &channel(), NOW, |_| {});
    for (format, good) in [("-H", true), ("-l", false)] {
        let comment = "bumpless/1 timestamp 1";
        minisign(&["-S", format, "-s", text(&key), "-x", &sigs, "-t", comment, "-m", text(&file)], "");
        match accepted() {
            Ok(_) => assert!(good),
            Err(Faulty::Refused(Refused::Signatures(Role::Timestamp, _))) => assert!(!good),
            Err(why) => panic!("{format}: {why}"),
        }
    }
}

/// The tool's own key derivation takes a gigabyte for a moment, so one test does all that needs it.
#[test]
fn a_key_with_a_password_of_the_minisign_tool_signs_with_that_password_only() {
    if !minisign_is_here() || !tool("python3", "--version") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (key, public) = (dir.path().join("anna.key"), dir.path().join("anna.pub"));
    minisign(&["-G", "-p", text(&public), "-s", text(&key)], "a b\na b\n");
    let lines = |text: &str| Passwords::Lines([text.to_owned()].into());
    let why = Key::read_with(&key, &mut lines("wrong")).unwrap_err();
    assert!(why.to_string().contains("Wrong password"), "{why}");
    let why = Key::read_with(&key, &mut Passwords::Lines([].into())).unwrap_err();
    assert!(matches!(why, KeyError::Password(..)) && why.to_string().contains("--password-fd"), "{why}");

    let anna = bumpless_release::PublicKeys { files: vec![public.clone()], threshold: 1.try_into().unwrap() };
    let holders = Holders { timestamp: Some(anna), ..Holders::default() };
    let net = dir.path().join("net");
    let options = Options { holders, ..Options::new(channel(), bumpless_release::command::now()) };
    drop(Publisher::init(&net, &options).unwrap());
    let program = env!("CARGO_BIN_EXE_bumpless-release");

    // From a file descriptor; the timestamp's is the only key that asks.
    let alone = alone_with_programs();
    let mut child = Command::new("sh")
        .args([
            "-c",
            "\"$0\" publish \"$1\" --key \"$2\" --password-fd 3 3<&0",
            program,
            text(&net),
            text(&key),
        ])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    drop(alone);
    child.stdin.take().unwrap().write_all(b"a b\n").unwrap();
    assert!(child.wait().unwrap().success());
    check(&net.join("feed"), &net.join("feed/root/1.json"), &channel(), options.now, |_| {}).unwrap();

    // From a terminal, after the question and without an echo.
    let script = r#"
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[2], sys.argv[2:])
said = b""
while b"anna.key: " not in said:
    said += os.read(terminal, 1024)
os.write(terminal, sys.argv[1].encode())
try:
    while True:
        more = os.read(terminal, 1024)
        if not more:
            break
        said += more
except OSError:
    pass
sys.stdout.buffer.write(said)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;
    let on_terminal = |typed: &str| {
        let alone = alone_with_programs();
        let mut child = Command::new("python3")
            .args(["-c", script, typed, program, "timestamp", text(&net), "--key", text(&key)])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        drop(alone);
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        (child.wait().unwrap().success(), said)
    };
    let (done, said) = on_terminal("a b\n");
    assert!(done, "{said}");
    assert!(said.contains("Password of") && !said.contains("a b"), "{said}");
    // Ctrl-C in the middle: no signal, but an end, with the echo on again.
    let (done, said) = on_terminal("a b\u{3}");
    assert!(!done && said.contains("no password for the encrypted key") && !said.contains("a b"), "{said}");

    // Without either, it says what to do.
    let alone = alone_with_programs();
    let mut command = Command::new("setsid");
    command.args([program, "timestamp", text(&net), "--key", text(&key)]).stdin(Stdio::null());
    let output = command.output().unwrap();
    drop(alone);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("--password-fd"), "{said}");
}

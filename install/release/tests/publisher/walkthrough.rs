//! The walk-through in the README, copied line by line.
//!
//! Its `sh` blocks are run in one shell, one after the other; each line of a `text` block has to come up, in
//! order, in the output of the block before it, `…` standing for anything.
use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{alone_with_programs, description, tool};

/// A fenced block: its language and its lines.
struct Block {
    language: String,
    lines: Vec<String>,
}

fn blocks(text: &str) -> Vec<Block> {
    let (mut blocks, mut open) = (Vec::new(), None::<Block>);
    for line in text.lines() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(language), None) => open = Some(Block { language: language.to_owned(), lines: vec![] }),
            (Some(_), Some(block)) => blocks.push(block),
            (None, Some(mut block)) => {
                block.lines.push(line.to_owned());
                open = Some(block);
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block without an end");
    blocks
}

/// Whether `…` in `expected` can stand for something that makes it `line`.
fn matches(expected: &str, line: &str) -> bool {
    let mut parts = expected.split('…');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let mut last = "";
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        last = part;
    }
    rest.is_empty() || (expected.contains('…') && (last.is_empty() || line.ends_with(last)))
}

/// The README's own two programs, and nothing else that is not on every machine.
fn programs(folder: &Path) -> String {
    let description = serde_json::to_string(&description("0.1.0")).unwrap();
    let _alone = alone_with_programs();
    std::fs::create_dir(folder).unwrap();
    let node = folder.join("bumpless-node");
    std::fs::write(&node, format!("#!/bin/sh\n[ \"$1\" = --describe ] && echo '{description}'\n")).unwrap();
    std::fs::set_permissions(&node, std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = env!("CARGO_BIN_EXE_bumpless-release");
    std::os::unix::fs::symlink(program, folder.join("bumpless-release")).unwrap();
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap())
}

#[test]
fn the_walk_through_can_be_copied_line_by_line_and_says_what_comes_out() {
    if !tool("minisign", "-v") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = programs(&dir.path().join("bin"));
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let blocks = blocks(&text);
    let mut script = "exec 2>&1\nset -e\ntrap 'echo \"@failed: $BASH_COMMAND\"' ERR\n".to_owned();
    for (number, block) in blocks.iter().enumerate().filter(|(_, block)| block.language == "sh") {
        writeln!(script, "echo @block {number}").unwrap();
        block.lines.iter().for_each(|line| script.push_str(&format!("{line}\n")));
    }
    let alone = alone_with_programs();
    let child = Command::new("bash")
        .arg("-c")
        .arg(&script)
        .current_dir(dir.path())
        .env("PATH", path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(alone);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");

    let (mut number, mut expected) = (None, 0);
    for (at, block) in blocks.iter().enumerate() {
        match block.language.as_str() {
            "sh" => number = Some(at),
            "text" => {
                let begin = format!("@block {}\n", number.expect("output of nothing"));
                let after = said.split_once(&begin).expect("a block that did not run").1;
                let mut lines = after.lines().take_while(|line| !line.starts_with("@block "));
                for line in &block.lines {
                    assert!(
                        lines.any(|said| matches(line, said)),
                        "{line:?} does not come up in order in:\n{after}"
                    );
                    expected += 1;
                }
            }
            _ => {}
        }
    }
    assert!(expected > 40, "only {expected} lines were compared");
}

#[test]
fn a_wildcard_stands_for_anything_but_not_for_what_is_written_out() {
    assert!(matches("a … c …", "a b c d") && matches("a", "a") && matches("a…", "a") && matches("…c", "abc"));
    assert!(
        !matches("a … c", "a b cd") && !matches("a", "ab") && !matches("b…", "ab") && !matches("a…x", "abc")
    );
}

#[test]
fn every_verb_is_in_the_walk_through() {
    let alone = alone_with_programs();
    let output = Command::new(env!("CARGO_BIN_EXE_bumpless-release")).arg("--help").output().unwrap();
    drop(alone);
    let help = String::from_utf8(output.stdout).unwrap();
    let verbs =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let verbs: Vec<&str> = verbs
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(verbs.len() > 10, "{help}");
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    for verb in verbs.into_iter().filter(|verb| *verb != "help") {
        assert!(
            text.contains(&format!("`{verb}")) || text.contains(&format!("bumpless-release {verb}")),
            "{verb}"
        );
    }
}

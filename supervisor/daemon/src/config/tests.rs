#![allow(clippy::unwrap_used)]
use super::*;
use std::path::Path;

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let file = dir.join(name);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, text).unwrap();
    file
}

fn error(text: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "config.toml", text);
    let message = Config::load(&file).unwrap_err().to_string();
    message.replace(dir.path().to_str().unwrap(), "/etc/bumpless")
}

#[test]
fn an_empty_file_is_the_defaults_and_the_defaults_are_allowed() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Config::load(&write(dir.path(), "config.toml", "")).unwrap(), Config::default());
}

#[test]
fn the_sample_shows_every_key_with_its_default() {
    let sample = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../install/bumpless.toml"));
    let text = std::fs::read_to_string(sample).unwrap();
    // Keys that have no value by default stand there as comments.
    let active: String = text.lines().map(|line| line.strip_prefix("#= ").unwrap_or(line)).fold(
        String::new(),
        |mut all, line| {
            all.push_str(line);
            all.push('\n');
            all
        },
    );
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Config::load(&write(dir.path(), "config.toml", &text)).unwrap(), Config::default());
    let shown: toml::Table = active.parse().unwrap();
    toml::from_str::<Config>(&active).unwrap();
    let source = include_str!("../config.rs");
    let mut section = "";
    for line in source.lines() {
        if let Some(name) = line.strip_prefix("pub struct ") {
            section = name.trim_end_matches(" {");
        }
        let Some((key, _)) = line.strip_prefix("    pub ").and_then(|rest| rest.split_once(": ")) else {
            continue;
        };
        let there = match section {
            "Config" => shown.contains_key(key),
            name => shown[&name.to_lowercase()].as_table().unwrap().contains_key(key),
        };
        assert!(there, "install/bumpless.toml does not show {section}.{key}");
    }
}

#[test]
fn an_unknown_key_is_an_error_that_names_file_line_and_key() {
    let text = error("[worker]\nheartbeat = \"1s\"\nhartbeat = \"2s\"\n");
    assert!(
        text.starts_with("/etc/bumpless/config.toml, line 3: hartbeat = \"2s\": unknown field `hartbeat`"),
        "{text}"
    );
    assert!(text.contains("`heartbeat`"), "{text}");
    let text = error("statedir = \"/x\"\n");
    assert!(text.contains("line 1: statedir = \"/x\": unknown field `statedir`"), "{text}");
}

#[test]
fn a_value_of_the_wrong_kind_is_an_error_that_says_what_is_allowed() {
    for (text, allowed) in [
        ("[upgrade]\nprobation = \"1 fortnight\"\n", "such as \"500ms\""),
        ("[upgrade]\nprobation = 60\n", "expected a string"),
        ("[upgrade]\nreserve = \"64MB\"\n", "B, KiB, MiB or GiB"),
        ("[upgrade]\nmode = \"sometimes\"\n", "`auto` or `manual`"),
        ("[worker]\ndurability = \"maybe\"\n", "\"fsync\" or \"os\""),
        ("listen = [\"localhost\"]\n", "invalid socket address"),
        ("[upgrade\n", "line 1"),
    ] {
        let message = error(text);
        assert!(message.contains(allowed), "{message}");
    }
}

#[test]
fn a_value_out_of_its_limits_names_the_file_that_set_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "config.toml", "[worker]\nmissed = 5\n");
    write(dir.path(), "config.d/20-mine.toml", "[worker]\nmissed = 1\n");
    let message = Config::load(&file).unwrap_err().to_string();
    assert!(
        message.ends_with("config.d/20-mine.toml: worker.missed: 1 is not allowed; allowed is 2 to 100"),
        "{message}"
    );
}

#[test]
fn values_that_do_not_fit_each_other_are_refused() {
    for (text, key) in [
        ("[upgrade]\ngoaway_stagger = \"30s\"\n", "upgrade.goaway_stagger"),
        ("[upgrade]\nstop_deadline = \"78s\"\n", "upgrade.stop_deadline"),
        ("[upgrade]\nmax_logbook = \"64MiB\"\n", "upgrade.max_logbook"),
        ("[feed]\nurls = [\"http://127.0.0.1:1\"]\n", "feed.urls"),
        ("[feed]\nurls = [\"ftp://x\"]\n", "feed.urls"),
        ("listen = []\n", "listen"),
        ("state_dir = \"here\"\n", "state_dir"),
    ] {
        let message = error(text);
        assert!(message.starts_with(&format!("/etc/bumpless/config.toml: {key}: ")), "{message}");
    }
}

#[test]
fn later_files_win_key_by_key_in_the_order_of_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "config.toml", "[worker]\nmissed = 5\nheartbeat = \"2s\"\n");
    write(dir.path(), "config.d/b.toml", "[worker]\nmissed = 7\n[upgrade]\nmode = \"manual\"\n");
    write(dir.path(), "config.d/a.toml", "[worker]\nmissed = 6\nrelay = \"1min\"\n");
    let config = Config::load(&file).unwrap();
    assert_eq!((config.worker.missed, config.worker.heartbeat, config.worker.relay), (7, secs(2), secs(60)));
    assert_eq!(config.upgrade.mode, Mode::Manual);
    assert_eq!(config.timing(), Timing { heartbeat_ms: 2000, canary_ms: 500, relay_ms: 60_000 });
}

#[test]
fn a_file_in_config_d_that_nobody_would_read_is_an_error() {
    for name in ["config.d/10-mine.toml.bak", "config.d/README", "config.d/dir.toml/x"] {
        let dir = tempfile::tempdir().unwrap();
        let file = write(dir.path(), "config.toml", "");
        write(dir.path(), name, "");
        assert!(matches!(Config::load(&file).unwrap_err(), ConfigError::UnknownFile { .. }), "{name}");
    }
}

#[test]
fn a_missing_main_file_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let message = Config::load(&dir.path().join("config.toml")).unwrap_err().to_string();
    assert!(
        message.contains("cannot read the configuration") && message.contains("config.toml"),
        "{message}"
    );
}

#![allow(clippy::unwrap_used)]
use super::*;
use crate::windows::Days;
use jiff::tz::TimeZone;
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
        ("[feed]\nchannel = \"-beta\"\n", "\"-beta\" is not a channel (such as stable: 1 to 32 of a-z 0-9 -"),
        ("[feed]\nchannel = \"../stable\"\n", "is not a channel"),
        ("[feed]\nchannel = \"\"\n", "is not a channel"),
        ("[rollout]\ngroup = \"Canary 1\"\n", "not a group of machines (such as canary"),
        ("[rollout]\npin = \"1.8.*\"\n", "\"1.8.*\" is not a pin (the first parts of a version, such as 1.8"),
        ("listen = [\"localhost\"]\n", "invalid socket address"),
        (
            "[[upgrade.windows]]\ndays = \"weekend\"\n",
            "\"all\" or a list of mon, tue, wed, thu, fri, sat, sun",
        ),
        (
            "[[upgrade.windows]]\ndays = [\"sat\", \"Sun\"]\n",
            "string \"Sun\", expected \"all\" or a list of mon",
        ),
        ("[[upgrade.windows]]\ndays = []\n", "\"all\" or a list of mon"),
        ("[[upgrade.windows]]\nstart = \"24:00\"\n", "such as \"02:00\""),
        ("[[upgrade.windows]]\nstart = \"2:00\"\n", "such as \"02:00\""),
        ("[[upgrade.windows]]\nstart = \"02:00\"\n", "missing field `length`"),
        ("[[upgrade.windows]]\nend = \"02:00\"\n", "unknown field `end`"),
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
        ("[[upgrade.windows]]\nstart = \"02:00\"\nlength = \"59s\"\n", "upgrade.windows"),
        ("[[upgrade.windows]]\nstart = \"02:00\"\nlength = \"8d\"\n", "upgrade.windows"),
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
fn windows_have_the_days_the_time_and_the_zone_that_they_say_and_every_day_here_where_they_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let text = "\
        [[upgrade.windows]]\ndays = [\"sun\", \"sat\"]\nstart = \"22:30\"\nlength = \"6h\"\nzone = \"Europe/Berlin\"\n\
        [[upgrade.windows]]\ndays = \"all\"\nstart = \"02:00\"\nlength = \"90min\"\nzone = \"UTC\"\n\
        [[upgrade.windows]]\nstart = \"00:00\"\nlength = \"1min\"\n\
        [[upgrade.windows]]\nstart = \"23:59\"\nlength = \"1min\"\nzone = \"local\"\n";
    let file = write(dir.path(), "config.toml", text);
    let Windows(windows) = Config::load(&file).unwrap().upgrade.windows;
    let [berlin, utc, here, also_here] = &windows[..] else { panic!("{windows:?}") };
    let weekend = Days::NONE.with("sat").unwrap().with("sun").unwrap();
    assert_eq!((berlin.days, berlin.start.to_string().as_str()), (weekend, "22:30:00"));
    assert_eq!((berlin.zone.iana_name(), berlin.length), (Some("Europe/Berlin"), secs(6 * 3600)));
    assert_eq!((utc.days, &utc.zone, utc.length), (Days::ALL, &TimeZone::UTC, secs(5400)));
    assert_eq!((here.days, &here.zone), (Days::ALL, &also_here.zone));
    // A later file's windows are all that there are.
    write(dir.path(), "config.d/a.toml", "[[upgrade.windows]]\nstart = \"04:00\"\nlength = \"1h\"\n");
    assert_eq!(Config::load(&file).unwrap().upgrade.windows.0.len(), 1);
}

#[test]
fn a_time_zone_that_does_not_exist_is_an_error_that_names_it_and_its_line() {
    for name in ["Europe/Berlim", "CEST", "../../../etc/passwd", ""] {
        let text =
            error(&format!("[[upgrade.windows]]\nstart = \"02:00\"\nlength = \"1h\"\nzone = \"{name}\"\n"));
        let expected =
            format!("line 4: zone = \"{name}\": \"{name}\" is no time zone that this machine knows");
        assert!(text.contains(&expected), "{text}");
    }
}

#[test]
fn a_proxy_is_an_address_or_the_environments_and_an_error_about_it_shows_no_password() {
    let dir = tempfile::tempdir().unwrap();
    let load = |text: &str| Config::load(&write(dir.path(), "config.toml", text)).unwrap().fetch.proxy;
    assert_eq!(load("[fetch]\nproxy = \"environment\"\n"), Some(Proxy::Environment));
    let given = load("[fetch]\nproxy = \"http://user:s3cret@proxy.example:3128\"\n");
    assert_eq!(format!("{given:?}"), "Some(Address(http://proxy.example:3128))");
    for (line, why) in [
        ("proxy = \"http://user:s3cret@proxy.example\"", "its port is missing"),
        ("proxy = \"user:s3cret@proxy.example:3128\"", "does not begin with http://"),
        ("proxy = \"http://user:s3cret@proxy.example:3128", "invalid basic string"),
        ("proxy = [\"http://user:s3cret@proxy.example:3128\"]", "expected a string"),
        ("prxy = \"http://user:s3cret@p.example:3128\"", "unknown field `prxy`"),
    ] {
        let message = error(&format!("[fetch]\n{line}\n"));
        assert!(message.contains("line 2") && message.contains(why), "{message}");
        for message in [message, error(&format!("fetch = {{ {line} }}\n"))] {
            assert!(!message.contains("s3cret"), "{message}");
        }
    }
}

#[test]
fn trust_begins_in_one_place() {
    let hash = "a".repeat(64);
    let root = "root = \"/r\"".to_owned();
    let (sha256, network) = (format!("root_sha256 = \"{hash}\""), format!("network = \"{hash}\""));
    for (one, other, key) in [
        (&root, &sha256, "feed.root_sha256"),
        (&root, &network, "feed.network"),
        (&sha256, &network, "feed.network"),
    ] {
        let message = error(&format!("[feed]\n{one}\n{other}\n"));
        assert!(message.starts_with(&format!("/etc/bumpless/config.toml: {key}: ")), "{message}");
        let first = one.split(' ').next().unwrap();
        assert!(message.ends_with(&format!("feed.{first} is set, too")), "{message}");
    }
    for one in [root, sha256, network] {
        let dir = tempfile::tempdir().unwrap();
        Config::load(&write(dir.path(), "config.toml", &format!("[feed]\n{one}\n"))).unwrap();
    }
    let message = error("[feed]\nroot_sha256 = \"abc\"\n");
    assert!(message.contains("64 lower-case hexadecimal digits"), "{message}");
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
fn a_machine_has_the_group_and_the_pin_that_its_configuration_names_and_by_default_none() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "config.toml", "[rollout]\ngroup = \"canary\"\n");
    write(dir.path(), "config.d/pin.toml", "[rollout]\npin = \"1.8\"\n");
    let Rollout { group, pin } = Config::load(&file).unwrap().rollout;
    assert_eq!((group, pin), (Some("canary".parse().unwrap()), Some("1.8".parse().unwrap())));
    assert_eq!(Config::default().rollout, Rollout { group: None, pin: None });
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

#![allow(clippy::unwrap_used)]
use super::*;
use bumpless_release::{Options, Publisher};
use bumplessd::config::Proxy;

/// Within the validity of everything that is published here.
const NOW: Unix = 1_800_000_000;

/// A publisher with channels stable and beta, and a machine without a configuration.
struct Lab {
    dir: tempfile::TempDir,
    publisher: Publisher,
}

impl Lab {
    fn new() -> Lab {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new("stable".parse().unwrap(), NOW);
        let mut publisher = Publisher::init(&dir.path().join("net"), &options).unwrap();
        publisher.begin(&"beta".parse().unwrap()).unwrap();
        publisher.publish(NOW).unwrap();
        Lab { dir, publisher }
    }

    fn fingerprint(&self) -> Option<Root> {
        Some(Root::Sha256(self.publisher.fingerprint().unwrap()))
    }

    fn wanted(&self, root: Option<Root>) -> Init {
        Init {
            feeds: vec![self.publisher.feed().to_str().unwrap().to_owned()],
            root,
            network: None,
            channel: "stable".parse().unwrap(),
            config: self.at("config.toml"),
            allow_http_loopback: false,
            ca_file: None,
            proxy: None,
        }
    }

    /// A path of the machine.
    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join("etc/bumpless").join(name)
    }

    fn refused(&self, wanted: &Init) -> (u8, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(wanted, false, NOW, &mut out, &mut err);
        assert!(out.is_empty());
        (code, String::from_utf8(err).unwrap())
    }

    fn nothing_was_written(&self) {
        assert!(!self.at("").exists());
    }
}

#[test]
fn the_sample_has_each_line_once_that_a_first_configuration_sets() {
    for line in ["urls = []", "channel = \"stable\"", "allow_http_loopback = false"] {
        assert_eq!(SAMPLE.lines().filter(|other| *other == line).count(), 1, "{line}");
    }
    for begin in ["#= root = ", "#= network = ", "#= ca_file = ", "#= proxy = "] {
        assert_eq!(SAMPLE.lines().filter(|other| other.starts_with(begin)).count(), 1, "{begin}");
    }
}

#[test]
fn a_first_configuration_has_the_feed_the_channel_and_a_root_that_the_supervisor_begins_with() {
    let lab = Lab::new();
    let file = Some(Root::File(lab.publisher.first_root()));
    for (root, channel) in [(lab.fingerprint(), "beta"), (file, "stable")] {
        let wanted = Init { channel: channel.parse().unwrap(), ..lab.wanted(root) };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        assert_eq!(run(&wanted, false, NOW, &mut out, &mut err), 0, "{}", String::from_utf8_lossy(&err));
        let said = String::from_utf8(out).unwrap();
        let config = Config::load(&lab.at("config.toml")).unwrap();
        assert_eq!((&config.feed.urls, &config.feed.channel), (&wanted.feeds, &wanted.channel));
        assert_eq!(config.feed.root, Some(lab.at("root.json")));
        let feed = bumplessd::config::Feed { root: None, urls: vec![], ..config.feed.clone() };
        let channel_alone =
            bumplessd::config::Feed { channel: wanted.channel.clone(), ..Config::default().feed };
        assert_eq!(feed, channel_alone, "everything else is at its default");
        assert_eq!(Config { feed: Config::default().feed, ..config.clone() }, Config::default());
        for end in ["", ".sigs"] {
            let (here, there) = (lab.at(&format!("root.json{end}")), lab.publisher.first_root());
            let there = std::fs::read(format!("{}{end}", there.display())).unwrap();
            assert_eq!(std::fs::read(here).unwrap(), there);
        }
        for what in [
            lab.publisher.fingerprint().unwrap().to_string(),
            format!("The feed has channel {channel}: index 1, without a release so far."),
            format!("Written: {}", lab.at("root.json").display()),
            format!("Written: {}", lab.at("config.toml").display()),
            format!(
                "You need to do: start the supervisor, bumplessd --config {}",
                lab.at("config.toml").display()
            ),
        ] {
            assert!(said.contains(&what), "{what:?} is not in:\n{said}");
        }
        // The supervisor's own first step.
        std::fs::create_dir_all(lab.at("state/staging")).unwrap();
        let settings = feed_settings(&config, &Paths::new(lab.at("state"), lab.at("run"))).unwrap();
        let (feed, notices) = Feed::open(settings).unwrap();
        assert!(notices.is_empty(), "{notices:?}");
        assert_eq!(feed.trusted().root_fingerprint(), lab.publisher.fingerprint().unwrap());
        std::fs::remove_dir_all(lab.at("")).unwrap();
    }
}

#[test]
fn a_root_that_a_package_brought_stays_where_it_is_and_is_named_by_its_network() {
    let lab = Lab::new();
    let network = Digest([7; 32]);
    let text = text(&lab.wanted(None), &Stays::Shipped(network));
    std::fs::create_dir_all(lab.at("")).unwrap();
    std::fs::write(lab.at("config.toml"), text).unwrap();
    let feed = Config::load(&lab.at("config.toml")).unwrap().feed;
    assert_eq!((feed.network, feed.root, feed.root_sha256), (Some(network), None, None));
}

#[test]
fn without_a_root_it_refuses_and_says_why_and_where_one_gets_it() {
    let lab = Lab::new();
    let (code, said) = lab.refused(&lab.wanted(None));
    assert_eq!(code, 3);
    for what in
        ["not believed because the feed has it", "--root SHA256", "bumpless-release init", "--root FILE"]
    {
        assert!(said.contains(what), "{what:?} is not in: {said}");
    }
    lab.nothing_was_written();
    let shipped = InitError::Rootless(vec![Digest([1; 32])]).to_string();
    assert!(shipped.contains(&format!("--network {}", Digest([1; 32]))), "{shipped}");
}

#[test]
fn what_is_not_believed_is_refused_and_nothing_is_written() {
    let lab = Lab::new();
    let (code, said) = lab.refused(&lab.wanted(Some(Root::Sha256(Digest([1; 32])))));
    assert_eq!(code, 3);
    assert!(said.contains(&Digest([1; 32]).to_string()), "{said}");
    assert!(said.contains(&lab.publisher.fingerprint().unwrap().to_string()), "{said}");

    let bata = Init { channel: "bata".parse().unwrap(), ..lab.wanted(lab.fingerprint()) };
    let (code, said) = lab.refused(&bata);
    assert_eq!(code, 3);
    assert!(said.contains("does not have channel bata"), "{said}");

    // Another network's root, by a file; and the right fingerprint of what nobody signed.
    let stranger = Lab::new();
    let (code, said) = lab.refused(&lab.wanted(Some(Root::File(stranger.publisher.first_root()))));
    assert_eq!(code, 3, "{said}");
    std::fs::write(lab.publisher.feed().join("root/1.json.sigs"), "").unwrap();
    let (code, said) = lab.refused(&lab.wanted(lab.fingerprint()));
    assert_eq!(code, 3);
    assert!(said.contains("root is refused"), "{said}");

    // Not a matter of belief: not there, not allowed.
    let absent = lab.dir.path().join("absent.json");
    let (code, said) = lab.refused(&lab.wanted(Some(Root::File(absent.clone()))));
    assert_eq!(code, 5);
    assert!(said.contains(absent.to_str().unwrap()), "{said}");
    let plain = Init { feeds: vec!["http://127.0.0.1:1".into()], ..lab.wanted(lab.fingerprint()) };
    let (code, said) = lab.refused(&plain);
    assert_eq!(code, 3);
    assert!(said.starts_with("Refused: feed.urls: ") && said.contains("plain HTTP"), "{said}");
    let odd = Init { feeds: vec!["/a\nb".into()], ..lab.wanted(lab.fingerprint()) };
    assert_eq!(lab.refused(&odd).0, 3);
    lab.nothing_was_written();
}

#[test]
fn what_is_there_is_never_written_over_and_an_interrupted_beginning_can_be_repeated() {
    let lab = Lab::new();
    let wanted = lab.wanted(lab.fingerprint());
    std::fs::create_dir_all(lab.at("")).unwrap();
    for name in ["config.toml", "root.json", "root.json.sigs"] {
        std::fs::write(lab.at(name), "mine").unwrap();
        let (code, said) = lab.refused(&wanted);
        assert_eq!(code, 3);
        assert!(said.contains(&format!("{} is there already", lab.at(name).display())), "{said}");
        let names: Vec<_> =
            std::fs::read_dir(lab.at("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [name]);
        assert_eq!(std::fs::read(lab.at(name)).unwrap(), b"mine");
        std::fs::remove_file(lab.at(name)).unwrap();
    }
    // The sample as it is installed says nothing yet; one that somebody has touched does.
    std::fs::write(lab.at("config.toml"), format!("{SAMPLE}\n")).unwrap();
    assert!(matches!(init(&wanted, NOW), Err(InitError::Exists(path)) if path == lab.at("config.toml")));
    std::fs::write(lab.at("config.toml"), SAMPLE).unwrap();
    init(&wanted, NOW).unwrap();
    assert_eq!(Config::load(&lab.at("config.toml")).unwrap().feed.urls, wanted.feeds);
    for name in ["config.toml", "root.json", "root.json.sigs"] {
        std::fs::remove_file(lab.at(name)).unwrap();
    }
    // Killed after the root.
    init(&wanted, NOW).unwrap();
    std::fs::remove_file(lab.at("config.toml")).unwrap();
    init(&wanted, NOW).unwrap();
    assert!(matches!(init(&wanted, NOW), Err(InitError::Exists(path)) if path == lab.at("config.toml")));
}

#[test]
fn the_way_to_the_feed_is_the_same_for_this_command_and_for_the_supervisor() {
    let lab = Lab::new();
    let ca_file = Some(lab.at("ca.pem").to_str().unwrap().to_owned());
    let wanted = Init { ca_file, proxy: Some("http://p:1".into()), ..lab.wanted(lab.fingerprint()) };
    let scratch = tempfile::tempdir().unwrap();
    let text = text(&wanted, &Stays::Here(lab.at("root.json")));
    let settings = settings(&text, scratch.path(), &wanted).unwrap();
    assert_eq!(settings.ca_file, Some(lab.at("ca.pem")));
    assert_eq!(format!("{:?}", settings.proxy.unwrap().address), "http://p:1");
    init(&wanted, NOW).unwrap();
    let config = Config::load(&lab.at("config.toml")).unwrap();
    assert_eq!(config.feed.ca_file, Some(lab.at("ca.pem")));
    let Some(Proxy::Address(address)) = config.fetch.proxy else { panic!("{:?}", config.fetch.proxy) };
    assert_eq!(format!("{address:?}"), "http://p:1");
    let (code, said) =
        lab.refused(&Init { proxy: Some("socks5://p:1".into()), config: lab.at("other.toml"), ..wanted });
    assert!(code == 3 && said.contains("nor a proxy's address"), "{said}");
    assert!(!lab.at("other.toml").exists());
}

#[test]
fn a_feed_that_is_not_reached_is_told_of_where_the_root_is_known_without_it() {
    let lab = Lab::new();
    let nowhere = || vec!["/nonexistent/stick".to_owned()];
    let (code, said) = lab.refused(&Init { feeds: nowhere(), ..lab.wanted(lab.fingerprint()) });
    assert_eq!(code, 5);
    assert!(said.starts_with("FAILED: cannot read /nonexistent/stick/root/1.json"), "{said}");
    lab.nothing_was_written();
    let file = Some(Root::File(lab.publisher.first_root()));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    assert_eq!(run(&Init { feeds: nowhere(), ..lab.wanted(file) }, true, NOW, &mut out, &mut err), 0);
    let object: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!((&object["schema"], &object["result"]), (&1.into(), &"done".into()));
    assert_eq!(object["index"], serde_json::Value::Null);
    assert!(object["feed_error"].as_str().unwrap().contains("/nonexistent/stick"), "{object}");
    assert_eq!(object["root"]["sha256"], lab.publisher.fingerprint().unwrap().to_string());
    assert!(Config::load(&lab.at("config.toml")).is_ok());
}

//! Workers that the system's packages brought: what a declaration is, and which of them a machine takes.
use crate::feed::*;
use bumpless_shared::control::StateRange;
use bumpless_shared::digest::Digest;
use bumpless_shared::release::{Release, Version};
use bumpless_shared::version::Range;
use bumpless_trust::choice::Standing;
use bumpless_trust::document::{BadDocument, Elders, IndexDocument, PackageType};
use bumpless_trust::package::{Declaration, outlook};
use bumpless_trust::refresh::sha256;
use bumpless_trust::{Choice, Forbidden, Machine, Origin, Package, Request, Running, WhyNot};

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn declaration(text: &str, counter: u64) -> Declaration {
    Declaration {
        kind: PackageType::Package,
        spec: 1,
        release: version(text),
        counter,
        urgent: false,
        min_supervisor: [0, 1, 0],
        contract: Range { min: 1, max: 1 },
        protocol: Range { min: 1, max: 1 },
        state: StateRange { read_min: 1, read_max: 1, write: 1 },
        target: TARGET.to_owned(),
        size: 9,
        sha256: sha256(text.as_bytes()),
        x: Default::default(),
    }
}

fn package_of(declaration: &Declaration) -> Package {
    Package::parse(&serde_json::to_vec(declaration).unwrap()).unwrap()
}

fn changed(text: &str, counter: u64, change: impl FnOnce(&mut Declaration)) -> Package {
    let mut declaration = declaration(text, counter);
    change(&mut declaration);
    package_of(&declaration)
}

fn package(text: &str, counter: u64) -> Package {
    changed(text, counter, |_| {})
}

/// 1.0.0 runs, with number 1.
fn choose_with(
    packages: &[Package],
    index: Option<&IndexDocument>,
    machine: &Machine,
    request: &Request,
    quarantined: impl Fn(&Digest) -> Option<String>,
) -> Result<Choice, WhyNot> {
    let runs = Release { version: version("1.0.0"), sha256: sha256(b"1.0.0") };
    let running = Some(Running { release: &runs, counter: 1 });
    outlook(packages, index, machine, running, request, quarantined).chosen
}

fn choose(packages: &[Package], request: &Request) -> Result<String, WhyNot> {
    let chosen = choose_with(packages, None, &machine(), request, |_| None);
    chosen.map(|choice| choice.release().version.to_string())
}

#[test]
fn a_declaration_is_written_and_read_like_this() {
    let text = format!(
        concat!(
            r#"{{"type":"package","spec":1,"release":"1.8.2","counter":41,"urgent":false,"min_supervisor":[0,1,0],"#,
            r#""contract":{{"min":1,"max":1}},"protocol":{{"min":1,"max":1}},"#,
            r#""state":{{"read_min":1,"read_max":1,"write":1}},"target":"{}","size":9,"sha256":"{}"}}"#,
        ),
        TARGET,
        sha256(b"1.8.2")
    );
    assert_eq!(serde_json::to_string(&declaration("1.8.2", 41)).unwrap(), text);
    let package = Package::parse(text.as_bytes()).unwrap();
    assert_eq!(package.release(), Release { version: version("1.8.2"), sha256: sha256(b"1.8.2") });
    assert_eq!((package.counter(), package.artifact().raw_size), (41, 9));
    // What another format may need one day can stand there today.
    let extended = text.replace(r#""size":9"#, r#""size":9,"x":{"maintainer":["anna"]}"#);
    assert!(Package::parse(extended.as_bytes()).is_ok());
}

#[test]
fn what_is_not_exactly_a_declaration_is_refused_with_the_reason() {
    let good = serde_json::to_string(&declaration("1.8.2", 41)).unwrap();
    for (from, to, why) in [
        (r#""size":9"#, r#""size":9,"path":"/tmp/x""#, "unknown field `path`"),
        (r#""urgent":false,"#, "", "missing field `urgent`"),
        (r#""type":"package""#, r#""type":"index""#, "its type is \"index\""),
        (r#""spec":1"#, r#""spec":2"#, "its spec is 2"),
        (r#""release":"1.8.2""#, r#""release":"../x""#, "not a release version"),
        (r#""size":9"#, r#""size":0"#, "sizes or hashes"),
        (r#""size":9"#, r#""size":9.5"#, "floating point"),
        (r#""protocol":{"min":1"#, r#""protocol":{"min":2"#, "a range of versions is empty"),
        (r#""write":1"#, r#""write":2"#, "could not read the state that it writes"),
        (TARGET, "../x86", "a target is not 1 to 64"),
        ("{\"type\"", " {\"type\"", "the first byte is not {"),
    ] {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good);
        let error: BadDocument = Package::parse(text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(why), "{text}: {error}");
    }
}

#[test]
fn the_highest_counter_that_fits_is_taken_without_a_feed_and_without_stages() {
    let packages = [package("1.1.0", 2), package("1.2.0", 3), package("0.9.0", 0), package("1.0.0", 1)];
    let runs = Release { version: version("1.0.0"), sha256: sha256(b"1.0.0") };
    let running = Some(Running { release: &runs, counter: 1 });
    let seen = outlook(&packages, None, &machine(), running, &Request::Newest, |_| None);
    let standings: Vec<_> =
        seen.releases.iter().map(|one| (one.version.as_str(), one.standing.clone())).collect();
    let older = Standing::Older { running: version("1.0.0") };
    assert_eq!(
        standings,
        [("1.2.0", Standing::Newer), ("1.1.0", Standing::Newer), ("1.0.0", Standing::Runs), ("0.9.0", older)]
    );
    assert!(seen.releases.iter().all(|one| one.eligible_at == Some(0)));
    let choice = seen.chosen.unwrap();
    assert_eq!((choice.release().version, choice.origin()), (version("1.2.0"), &Origin::Package));
    // On a machine where nothing runs yet, too.
    let first = outlook(&packages, None, &machine(), None, &Request::Newest, |_| None);
    assert_eq!(first.chosen.unwrap().release().version, version("1.2.0"));
    let urgent = [package("1.2.0", 3), changed("1.1.0", 2, |it| it.urgent = true)];
    assert_eq!(choose(&urgent, &Request::Urgent), Ok("1.1.0".to_owned()));
}

#[test]
fn where_no_package_has_anything_to_take_the_reason_says_so() {
    for (packages, request, why) in [
        (vec![], Request::Newest, "no package declares anything newer than 1.0.0"),
        (vec![package("1.0.0", 1)], Request::Newest, "no package declares anything newer than 1.0.0"),
        (vec![package("1.1.0", 2)], Request::Urgent, "no package declares anything newer than 1.0.0"),
        (
            vec![package("1.1.0", 2)],
            Request::Version(version("7.7.7")),
            "no package declares 7.7.7; there is 1.1.0",
        ),
        (vec![package("0.9.0", 0)], Request::Version(version("0.9.0")), "0.9.0 is older than 1.0.0"),
        (vec![package("1.0.0", 1)], Request::Version(version("1.0.0")), "1.0.0 runs already"),
    ] {
        let error = choose(&packages, &request).unwrap_err().to_string();
        assert!(error.starts_with(why), "{error}");
    }
    let first = outlook(&[], None, &machine(), None, &Request::Newest, |_| None);
    assert_eq!(first.chosen.unwrap_err().to_string(), "no package declares a release");
}

#[test]
fn a_package_has_to_fit_this_machine_like_any_release() {
    let newer = |change: fn(&mut Declaration)| [changed("1.1.0", 2, change)];
    for (packages, why) in [
        (newer(|it| it.target = "aarch64-unknown-linux-gnu".into()), "it has aarch64-unknown-linux-gnu"),
        (newer(|it| it.min_supervisor = [0, 2, 0]), "needs supervisor 0.2.0"),
        (newer(|it| it.contract = Range { min: 8, max: 9 }), "of the contract with the supervisor"),
        (newer(|it| it.state = StateRange { read_min: 2, read_max: 2, write: 2 }), "reads state versions"),
    ] {
        let error = choose(&packages, &Request::Newest).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        // An older one that fits is taken instead.
        let both = [packages[0].clone(), changed("1.0.1", 2, |_| {})];
        assert_eq!(choose(&both, &Request::Newest), Ok("1.0.1".to_owned()));
    }
    let packages = [package("1.1.0", 2)];
    let pinned = Machine { pin: Some("1.0".parse().unwrap()), ..machine() };
    let why = choose_with(&packages, None, &pinned, &Request::Newest, |_| None).unwrap_err();
    assert!(matches!(why, WhyNot::Pinned { .. }), "{why}");
    let failed = |sha256: &Digest| (*sha256 == packages[0].release().sha256).then(|| "it died".to_owned());
    let why = choose_with(&packages, None, &machine(), &Request::Newest, failed).unwrap_err();
    assert!(matches!(why, WhyNot::Quarantined { .. }), "{why}");
}

#[test]
fn of_two_builds_of_one_release_the_preferred_target_is_taken() {
    let musl = "x86_64-unknown-linux-musl";
    let two = [
        changed("1.1.0", 2, |it| {
            (it.target, it.sha256) = (musl.into(), sha256(b"musl"));
        }),
        package("1.1.0", 2),
    ];
    for (targets, taken) in [([TARGET, musl], "1.1.0"), ([musl, TARGET], "musl")] {
        let machine = Machine { targets: targets.map(str::to_owned).to_vec(), ..machine() };
        for request in [Request::Newest, Request::Version(version("1.1.0"))] {
            let choice = choose_with(&two, None, &machine, &request, |_| None).unwrap();
            assert_eq!(choice.release().sha256, sha256(taken.as_bytes()));
        }
    }
}

#[test]
fn another_build_of_what_runs_is_no_news_and_can_be_named() {
    let rebuilt = [changed("1.0.0", 1, |it| it.sha256 = sha256(b"rebuilt"))];
    let why = choose(&rebuilt, &Request::Newest).unwrap_err();
    assert!(matches!(why, WhyNot::NothingDeclared { .. }), "{why}");
    assert_eq!(choose(&rebuilt, &Request::Version(version("1.0.0"))), Ok("1.0.0".to_owned()));
}

#[test]
fn a_feed_forbids_a_package_and_nothing_else_of_the_feed_concerns_it() {
    let index = |change: fn(&mut IndexDocument)| {
        let mut feed = Feed::new();
        change(&mut feed.index);
        feed.publish();
        let trusted = Client::new(&feed).refresh(&feed).unwrap().unwrap();
        trusted.index().unwrap().clone()
    };
    let packages = [package("1.1.0", 2)];
    let taken =
        |index: &IndexDocument| choose_with(&packages, Some(index), &machine(), &Request::Newest, |_| None);
    let why = taken(&index(|index| index.revoked = vec![sha256(b"1.1.0")])).unwrap_err();
    assert_eq!(why, WhyNot::Forbidden(version("1.1.0"), Forbidden::Revoked));
    let why = taken(&index(|index| index.min_release_counter = 3)).unwrap_err();
    let below = Forbidden::BelowFloor { counter: 2, floor: 3 };
    assert_eq!(why, WhyNot::Forbidden(version("1.1.0"), below));
    for spoken_no_more in [
        index(|index| index.protocol_min = 2),
        index(|index| {
            index.protocol_revoked = vec![1];
        }),
    ] {
        let why = taken(&spoken_no_more).unwrap_err();
        assert!(matches!(why, WhyNot::Protocol { .. }), "{why}");
    }
    // That the publisher publishes nothing new says nothing about what the administrator installs.
    assert!(taken(&index(|index| index.paused = true)).is_ok());
    let mut feed = Feed::new();
    feed.root.elders = Elders::Required;
    feed.publish_root(&feed.roots.clone());
    feed.publish();
    let trusted = Client::new(&feed).refresh(&feed).unwrap().unwrap();
    assert!(taken(trusted.index().unwrap()).is_ok());
}

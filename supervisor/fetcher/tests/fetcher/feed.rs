//! The supervisor's way to a release, over the real fetcher and the real publisher.
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::lab::{Lab, NOW, choose};
use bumpless_trust::document::{Encoding, Role};
use bumpless_trust::signature::BadSignatures;
use bumpless_trust::{Refused, WhyNot};
use bumplessd::feed::{Feed, FeedError, FirstRoot, Notice, Trouble};

const BYTES: &[u8] = b"these bytes are the node";

#[tokio::test]
async fn a_release_comes_over_http_with_progress_and_is_what_was_published() {
    let mut lab = Lab::new(BYTES);
    let mut state = 1u64;
    let mut noise = vec![0; 3_000_000];
    for byte in &mut noise {
        // Xorshift: nothing that zstd could make smaller.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state as u8;
    }
    lab.release("1.1.0", &noise);
    let server = lab.server();
    let mut feed = lab.feed_at(&[&server.url()]);
    let found = feed.refresh(NOW).await.unwrap();
    assert_eq!((found.index_version, found.news), (2, true));
    let choice = choose(&feed).unwrap();
    let mut seen = Vec::new();
    let staged = feed.fetch(&choice, |done, total| seen.push((done, total))).await.unwrap();
    let mut blob = Vec::new();
    let mut file = staged.into_file();
    std::io::Seek::rewind(&mut file).unwrap();
    file.read_to_end(&mut blob).unwrap();
    assert!(zstd::decode_all(&blob[..]).unwrap() == noise);
    let total = choice.artifact().size;
    assert_eq!((seen.first(), seen.last()), (Some(&(0, total)), Some(&(total, total))));
    assert!(seen.len() > 4 && seen.is_sorted(), "{seen:?}");
    assert_eq!(std::fs::read_dir(lab.dir.path().join("staging")).unwrap().count(), 0);
    assert!(!feed.refresh(NOW).await.unwrap().news);
}

#[tokio::test]
async fn a_folder_is_a_feed_like_any_other() {
    let lab = Lab::new(BYTES);
    let mut feed = lab.feed();
    let choice = lab.choice(&mut feed).await;
    feed.fetch(&choice, |_, _| {}).await.unwrap();
}

#[tokio::test]
async fn a_folder_that_is_gone_has_not_said_that_there_is_no_newer_root() {
    let lab = Lab::new(BYTES);
    let mut feed = lab.feed_at(&[lab.dir.path().join("unplugged").to_str().unwrap()]);
    let error = feed.refresh(NOW).await.unwrap_err();
    assert!(matches!(error, FeedError::Folder { .. }), "{error}");
    assert_eq!(error.trouble(), Trouble::Unreachable);
}

#[tokio::test]
async fn what_was_verified_is_kept_byte_for_byte_and_needs_no_first_root_any_more() {
    let lab = Lab::new(BYTES);
    lab.choice(&mut lab.feed()).await;
    let kept = |name: &str| std::fs::read(lab.dir.path().join("trust").join(name)).unwrap();
    let published = |name: &str| std::fs::read(lab.publisher.feed().join(name)).unwrap();
    for (kept_name, name) in [
        ("root/1.json", "root/1.json"),
        ("index/stable/1.json", "index/1.json"),
        ("timestamp/stable/1.json", "timestamp.json"),
        ("timestamp/stable/1.json.sigs", "timestamp.json.sigs"),
    ] {
        assert_eq!(kept(kept_name), published(name), "{name}");
    }
    let mut settings = lab.settings(&[]);
    settings.root = None;
    let (feed, _) = Feed::open(settings).unwrap();
    choose(&feed).unwrap();
}

#[tokio::test]
async fn without_a_root_nothing_is_believed() {
    let lab = Lab::new(BYTES);
    let mut settings = lab.settings(&[]);
    settings.root = None;
    let error = Feed::open(settings).unwrap_err();
    assert!(matches!(error, FeedError::Refused(Refused::NoRoot)), "{error}");
    let mut settings = lab.settings(&[]);
    settings.root = Some(FirstRoot::File("/nonexistent/root.json".into()));
    let error = Feed::open(settings).unwrap_err();
    assert!(matches!(error, FeedError::Root { .. }), "{error}");
}

#[tokio::test]
async fn kept_metadata_that_was_damaged_is_told_and_fetched_again() {
    for name in ["index/stable/1.json", "timestamp/stable/1.json", "index/stable/1.json.sigs"] {
        let lab = Lab::new(BYTES);
        lab.choice(&mut lab.feed()).await;
        let path = lab.dir.path().join("trust").join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.truncate(bytes.len() / 2);
        std::fs::write(&path, bytes).unwrap();
        let (mut feed, notices) =
            Feed::open(lab.settings(&[lab.publisher.feed().to_str().unwrap()])).unwrap();
        assert!(matches!(notices[..], [Notice::Damage(_)]), "{name}: {notices:?}");
        assert!(matches!(choose(&feed), Err(WhyNot::NoIndex(_))));
        lab.choice(&mut feed).await;
        lab.choice(&mut lab.feed()).await;
    }
}

#[tokio::test]
async fn what_a_kill_left_unfinished_in_the_store_does_not_count() {
    let lab = Lab::new(BYTES);
    lab.choice(&mut lab.feed()).await;
    let trust = lab.dir.path().join("trust");
    std::fs::write(trust.join("index/stable/2.json.new"), b"half").unwrap();
    std::fs::write(trust.join("index/stable/2.json.sigs"), b"half").unwrap();
    choose(&lab.feed()).unwrap();
}

#[tokio::test]
async fn a_feed_that_is_gone_leaves_what_was_verified_in_force_and_the_next_place_is_asked() {
    let mut lab = Lab::new(BYTES);
    let gone = lab.server().url();
    let mut feed = lab.feed_at(&[&gone]);
    let error = feed.refresh(NOW).await.unwrap_err();
    assert_eq!(error.trouble(), Trouble::Unreachable);
    assert!(error.to_string().ends_with("It is tried again later"), "{error}");

    let server = lab.server();
    let mut feed = lab.feed_at(&[&gone, &server.url()]);
    assert_eq!(feed.refresh(NOW).await.unwrap().place, server.url());
    let choice = choose(&feed).unwrap();
    feed.fetch(&choice, |_, _| {}).await.unwrap();
    drop(server);
    lab.release("1.1.0", b"unreachable");
    let error = feed.refresh(NOW).await.unwrap_err();
    assert!(matches!(&error, FeedError::Every(errors) if errors.len() == 2), "{error}");
    assert_eq!(choose(&feed).unwrap(), choice);
}

#[tokio::test]
async fn an_unsigned_or_edited_file_is_refused_and_what_was_verified_stays_in_force() {
    let mut lab = Lab::new(BYTES);
    let server = lab.server();
    let mut feed = lab.feed_at(&[&server.url()]);
    let before = lab.choice(&mut feed).await;
    lab.release("1.1.0", b"other");
    let timestamp = lab.publisher.feed().join("timestamp.json");
    let sigs = lab.publisher.feed().join("timestamp.json.sigs");
    let (good, good_sigs) = (std::fs::read(&timestamp).unwrap(), std::fs::read(&sigs).unwrap());

    let edited = String::from_utf8(good.clone()).unwrap().replace("stable", "stabil");
    std::fs::write(&timestamp, edited).unwrap();
    let error = feed.refresh(NOW).await.unwrap_err();
    let unsigned = Refused::Signatures(Role::Timestamp, BadSignatures::TooFew { have: 0, need: 1 });
    assert!(matches!(&error, FeedError::Refused(why) if *why == unsigned), "{error}");
    assert_eq!(error.trouble(), Trouble::Refused);
    std::fs::write(&timestamp, good).unwrap();

    std::fs::remove_file(&sigs).unwrap();
    let error = feed.refresh(NOW).await.unwrap_err();
    let none = Refused::Signatures(Role::Timestamp, BadSignatures::None);
    assert!(matches!(&error, FeedError::Refused(why) if *why == none), "{error}");
    std::fs::write(&sigs, good_sigs).unwrap();

    let index = lab.publisher.feed().join("index/2.json");
    let mut bytes = std::fs::read(&index).unwrap();
    bytes.push(b'\n');
    std::fs::write(&index, bytes).unwrap();
    let error = feed.refresh(NOW).await.unwrap_err();
    assert!(matches!(error, FeedError::Fetch { .. } | FeedError::Refused(Refused::Pin { .. })), "{error}");
    assert_eq!(error.trouble(), Trouble::Refused);
    // The timestamp names an index that nobody has: what was known before may lack a revocation.
    assert!(matches!(choose(&feed), Err(WhyNot::Stale(_))));
    assert_eq!(before.release().version.as_str(), "1.0.0");
}

#[tokio::test]
async fn a_truncated_or_exchanged_artifact_is_thrown_away() {
    let lab = Lab::new(BYTES);
    let server = lab.server();
    for place in [server.url(), lab.publisher.feed().to_str().unwrap().to_owned()] {
        let mut feed = lab.feed_at(&[&place]);
        let choice = lab.choice(&mut feed).await;
        let good = std::fs::read(lab.blob()).unwrap();

        std::fs::write(lab.blob(), &good[..good.len() - 1]).unwrap();
        let error = feed.fetch(&choice, |_, _| {}).await.unwrap_err();
        assert!(matches!(error, FeedError::BlobSize { .. }), "{error}");

        let mut other = good.clone();
        other[9] ^= 1;
        std::fs::write(lab.blob(), other).unwrap();
        let error = feed.fetch(&choice, |_, _| {}).await.unwrap_err();
        assert!(matches!(error, FeedError::BlobHash { .. }), "{error}");

        std::fs::write(lab.blob(), [&good[..], b"x"].concat()).unwrap();
        let error = feed.fetch(&choice, |_, _| {}).await.unwrap_err();
        assert_eq!(error.trouble(), Trouble::Refused, "{error}");
        std::fs::write(lab.blob(), good).unwrap();
        assert_eq!(std::fs::read_dir(lab.dir.path().join("staging")).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn missing_room_is_found_out_before_anything_is_fetched() {
    let mut lab = Lab::new(BYTES);
    lab.forge(|index| index.releases[0].artifacts[0].raw_size = 1 << 60);
    let server = lab.server();
    let mut feed = lab.feed_at(&[&server.url()]);
    let choice = lab.choice(&mut feed).await;
    drop(server);
    let error = feed.fetch(&choice, |_, _| panic!("it was fetched")).await.unwrap_err();
    assert!(error.to_string().starts_with("needs 1.1 EB, has "), "{error}");
    assert!(error.to_string().contains("; nothing was changed"), "{error}");
}

#[tokio::test]
async fn no_permission_on_the_staging_folder_is_told() {
    let lab = Lab::new(BYTES);
    let server = lab.server();
    let mut settings = lab.settings(&[&server.url()]);
    settings.staging_dir = lab.dir.path().join("nowhere");
    let (mut feed, _) = Feed::open(settings).unwrap();
    let error = feed.refresh(NOW).await.unwrap_err();
    assert!(matches!(error, FeedError::Staging { .. }), "{error}");
}

/// A script in the place of the fetcher.
fn script(lab: &Lab, body: &str) -> std::path::PathBuf {
    let path = lab.dir.path().join("fetcher");
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

async fn with_fetcher(lab: &Lab, fetcher: &Path) -> FeedError {
    let mut settings = lab.settings(&["https://feed.example"]);
    settings.fetcher = Some(fetcher.to_owned());
    let (mut feed, _) = Feed::open(settings).unwrap();
    loop {
        match feed.refresh(NOW).await.unwrap_err() {
            // Another test's fork held the script open for writing just then.
            FeedError::Fetcher { source, .. } if source.kind() == std::io::ErrorKind::ExecutableFileBusy => {}
            error => return error,
        }
    }
}

#[tokio::test]
async fn a_fetcher_gone_bad_can_only_deny_service() {
    let lab = Lab::new(BYTES);
    let error = with_fetcher(&lab, Path::new("/nonexistent/bumpless-fetch")).await;
    assert!(error.to_string().contains("/nonexistent/bumpless-fetch"), "{error}");
    let error = with_fetcher(&lab, &script(&lab, "kill -9 $$")).await;
    assert!(matches!(error, FeedError::FetcherDied { .. }), "{error}");
    let error = with_fetcher(&lab, &script(&lab, "exit 77")).await;
    assert!(matches!(error, FeedError::FetcherDied { .. }), "{error}");
    let error = with_fetcher(&lab, &script(&lab, "echo '{}'; exit 0")).await;
    assert!(matches!(error, FeedError::Refused(Refused::Signatures(..))), "{error}");
    let error = with_fetcher(&lab, &script(&lab, "head -c 1000000 /dev/zero; exit 0")).await;
    assert!(matches!(error, FeedError::Refused(Refused::TooLarge(..))), "{error}");
    let error =
        with_fetcher(&lab, &script(&lab, "head -c 1000000 /dev/zero >&2; echo error x >&2; exit 17")).await;
    assert!(matches!(error, FeedError::Fetch { .. }), "{error}");
}

#[tokio::test]
async fn a_fetch_that_nobody_waits_for_any_more_ends_its_fetcher() {
    let lab = Lab::new(BYTES);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (connected, on_connect) = tokio::sync::oneshot::channel();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx").unwrap();
        connected.send(()).unwrap();
        // Ends when the fetcher's end of the connection does.
        while stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {}
    });
    let mut feed = lab.feed_at(&[&url]);
    tokio::select! {
        result = feed.refresh(NOW) => panic!("{result:?}"),
        heard = on_connect => heard.unwrap(),
    }
    server.join().unwrap();
}

#[tokio::test]
async fn an_artifact_may_lie_on_the_feed_as_it_is() {
    let mut lab = Lab::new(BYTES);
    lab.forge_blob(Encoding::Plain, BYTES, BYTES);
    let mut feed = lab.feed();
    let choice = lab.choice(&mut feed).await;
    feed.fetch(&choice, |_, _| {}).await.unwrap();
}

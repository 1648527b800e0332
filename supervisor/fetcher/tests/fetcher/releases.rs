//! Installed releases, on real files, and the bytes that run.
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use crate::lab::{Lab, choose};
use bumpless_shared::release::Release;
use bumpless_trust::document::Encoding;
use bumpless_trust::{Choice, Origin};
use bumplessd::releases::unpack::Bad;
use bumplessd::releases::{InstallError, VerifyError};

const BYTES: &[u8] = b"these bytes are the node";

/// Fetches and installs the newest.
async fn install(lab: &Lab) -> Result<(Choice, Release), InstallError> {
    let mut feed = lab.feed();
    let choice = lab.choice(&mut feed).await;
    let staged = feed.fetch(&choice, |_, _| {}).await.unwrap();
    let release = lab.releases().install(staged, &choice).await?;
    Ok((choice, release))
}

fn worker(lab: &Lab, release: &Release) -> PathBuf {
    lab.state_dir().join("releases").join(release.directory()).join("worker")
}

fn contents(fd: OwnedFd) -> Vec<u8> {
    let (mut file, mut bytes) = (File::from(fd), Vec::new());
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn an_installed_executable_runs_from_its_sealed_copy() {
    let lab = Lab::new(&fs::read("/bin/true").unwrap());
    let (_, release) = install(&lab).await.unwrap();
    let fd = lab.releases().launchable(&release, None).await.unwrap();
    let status = Command::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).status().unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_release_is_its_bytes_read_only_and_what_the_index_said() {
    let lab = Lab::new(BYTES);
    let (choice, release) = install(&lab).await.unwrap();
    let path = worker(&lab, &release);
    assert_eq!(fs::read(&path).unwrap(), BYTES);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o555);
    let record = lab.releases().find(&release).unwrap().unwrap();
    assert_eq!((record.release(), record.size), (choice.release(), BYTES.len() as u64));
    assert_eq!((record.counter, record.index_version), (1, Some(1)));
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(path.with_file_name("release.json")).unwrap()).unwrap();
    let names = json.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(
        names,
        "contract counter index_keys index_sha256 index_version protocol release schema sha256 size source state"
    );
    let index = record.index().unwrap();
    let Origin::Index(evidence) = choice.origin() else { panic!("{choice:?}") };
    assert_eq!((index.version, index.sha256, &index.keys), (1, evidence.sha256, &evidence.keys));
    assert_eq!(index.keys.len(), 1);
}

#[tokio::test]
async fn a_record_from_before_the_index_was_kept_is_read_and_says_nothing_about_it() {
    let lab = Lab::new(BYTES);
    let (_, release) = install(&lab).await.unwrap();
    let path = worker(&lab, &release).with_file_name("release.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for key in ["index_sha256", "index_keys"] {
        json.as_object_mut().unwrap().remove(key).unwrap();
    }
    fs::remove_file(&path).unwrap();
    fs::write(&path, json.to_string()).unwrap();
    let record = lab.releases().find(&release).unwrap().unwrap();
    assert_eq!((record.index_version, record.index()), (Some(1), None));
    assert_eq!(json["source"], "feed");
}

#[tokio::test]
async fn installing_twice_changes_nothing() {
    let lab = Lab::new(BYTES);
    let (_, release) = install(&lab).await.unwrap();
    let seen = |name: &str| {
        let meta = fs::metadata(worker(&lab, &release).with_file_name(name)).unwrap();
        (meta.ino(), meta.mtime_nsec(), meta.ctime_nsec())
    };
    let before = (seen("worker"), seen("release.json"));
    install(&lab).await.unwrap();
    assert_eq!((seen("worker"), seen("release.json")), before);
    assert_eq!(fs::read_dir(worker(&lab, &release).parent().unwrap()).unwrap().count(), 2);
}

#[tokio::test]
async fn what_a_crash_left_half_made_is_no_release_and_is_completed() {
    let lab = Lab::new(BYTES);
    let (_, release) = install(&lab).await.unwrap();
    let path = worker(&lab, &release);
    for remains in [&["worker"][..], &["release.json"], &[]] {
        for name in ["worker", "release.json"] {
            if !remains.contains(&name) {
                fs::remove_file(path.with_file_name(name)).unwrap();
            }
        }
        if !remains.contains(&"release.json") {
            assert_eq!(lab.releases().list().unwrap(), []);
            assert_eq!(lab.releases().half_made().unwrap(), std::slice::from_ref(&release));
        }
        install(&lab).await.unwrap();
        assert_eq!(lab.releases().list().unwrap().len(), 1);
        assert_eq!(lab.releases().half_made().unwrap(), []);
        assert_eq!(fs::read(&path).unwrap(), BYTES);
    }
}

#[tokio::test]
async fn other_bytes_than_signed_are_never_run_and_are_replaced_by_installing_again() {
    let lab = Lab::new(BYTES);
    let (_, release) = install(&lab).await.unwrap();
    let path = worker(&lab, &release);
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"something else").unwrap();
    let error = lab.releases().launchable(&release, None).await.unwrap_err();
    let VerifyError::Hash { found, .. } = &error else { panic!("{error}") };
    let text = error.to_string();
    assert!(text.contains(&found.to_string()) && text.contains(&release.sha256.to_string()), "{text}");
    install(&lab).await.unwrap();
    lab.releases().launchable(&release, None).await.unwrap();
}

#[tokio::test]
async fn a_link_a_folder_or_nothing_in_the_place_of_the_worker_is_not_followed() {
    let lab = Lab::new(BYTES);
    let (_, release) = install(&lab).await.unwrap();
    let path = worker(&lab, &release);
    let elsewhere = lab.dir.path().join("elsewhere");
    fs::rename(&path, &elsewhere).unwrap();
    let refused =
        async || matches!(lab.releases().launchable(&release, None).await, Err(VerifyError::File { .. }));
    assert!(refused().await, "nothing is there");
    symlink(&elsewhere, &path).unwrap();
    assert!(refused().await, "a link to the right bytes");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(refused().await, "a folder");
}

#[tokio::test]
async fn what_was_verified_cannot_change_any_more() {
    let lab = Lab::new(BYTES);
    let (_, release) = install(&lab).await.unwrap();
    let fd = lab.releases().launchable(&release, None).await.unwrap();
    let path = worker(&lab, &release);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(&path, b"written in place after the check").unwrap();
    let mut file = File::from(fd.try_clone().unwrap());
    assert!(file.write_all(b"x").is_err());
    assert!(file.set_len(3).is_err());
    assert!(file.set_len(1000).is_err());
    assert_eq!(contents(fd), BYTES);
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

#[tokio::test]
async fn a_blob_that_is_not_exactly_one_frame_of_the_signed_bytes_leaves_nothing_behind() {
    let large = {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(BYTES).unwrap();
        encoder.finish().unwrap()
    };
    let mut one_segment = vec![0x28, 0xb5, 0x2f, 0xfd, 0xe0];
    one_segment.extend((1u64 << 40).to_le_bytes());
    let mut dictionary = packed(BYTES);
    dictionary[4] |= 1;
    let mut cut = packed(BYTES);
    cut.truncate(cut.len() - 3);
    let bomb = packed(&vec![0; 50_000_000]);
    type Case = (&'static str, Vec<u8>, Vec<u8>, fn(&Bad) -> bool);
    let cases: [Case; 11] = [
        ("a bomb", bomb, vec![0; 1000], |bad| matches!(bad, Bad::Size { expected: 1000, found: 1001 })),
        ("too few", packed(&BYTES[1..]), BYTES.to_vec(), |bad| matches!(bad, Bad::Size { .. })),
        ("other bytes", packed(&[b'x'; 24]), BYTES.to_vec(), |bad| matches!(bad, Bad::Hash { .. })),
        ("two frames", packed(BYTES).repeat(2), BYTES.to_vec(), |bad| *bad == Bad::Trailing),
        ("a byte more", [packed(BYTES), vec![0]].concat(), BYTES.to_vec(), |bad| *bad == Bad::Trailing),
        ("a large window", large, BYTES.to_vec(), |bad| *bad == Bad::Window(1 << 27)),
        ("one large segment", one_segment, BYTES.to_vec(), |bad| *bad == Bad::Window(1 << 40)),
        ("a dictionary", dictionary, BYTES.to_vec(), |bad| *bad == Bad::NoFrame),
        ("no frame", BYTES.to_vec(), BYTES.to_vec(), |bad| *bad == Bad::NoFrame),
        ("a frame cut short", cut, BYTES.to_vec(), |bad| matches!(bad, Bad::Broken(_))),
        (
            "a skippable frame",
            [vec![0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0], packed(BYTES)].concat(),
            BYTES.to_vec(),
            |bad| *bad == Bad::NoFrame,
        ),
    ];
    for (name, blob, raw, expected) in cases {
        let mut lab = Lab::new(b"an honest release");
        lab.forge_blob(Encoding::Zstd, &blob, &raw);
        match install(&lab).await {
            Err(InstallError::Blob(_, bad)) => assert!(expected(&bad), "{name}: {bad:?}"),
            other => panic!("{name}: {other:?}"),
        }
        assert_eq!(lab.releases().list().unwrap(), [], "{name}");
        let mut feed = lab.feed();
        let release = lab.choice(&mut feed).await.release();
        assert!(!worker(&lab, &release).exists(), "{name}");
    }
}

#[tokio::test]
async fn an_artifact_that_is_not_packed_is_installed_all_the_same() {
    let mut lab = Lab::new(b"an honest release");
    lab.forge_blob(Encoding::Plain, BYTES, BYTES);
    let (_, release) = install(&lab).await.unwrap();
    assert_eq!(contents(lab.releases().launchable(&release, None).await.unwrap()), BYTES);
}

#[tokio::test]
async fn releases_are_listed_linked_and_removed() {
    let mut lab = Lab::new(BYTES);
    let (_, first) = install(&lab).await.unwrap();
    lab.release("1.1.0", b"the next node");
    let (_, second) = install(&lab).await.unwrap();
    let releases = lab.releases();
    let listed: Vec<_> = releases.list().unwrap().iter().map(|record| record.release()).collect();
    assert_eq!(listed, [second.clone(), first.clone()]);

    let target = |name: &str| fs::read_link(lab.state_dir().join(name)).unwrap();
    releases.link_current(&first).unwrap();
    releases.link_current(&second).unwrap();
    releases.link_current(&second).unwrap();
    releases.link_previous(&first).unwrap();
    assert_eq!(target("current"), PathBuf::from("releases").join(second.directory()));
    assert_eq!(fs::read(lab.state_dir().join("previous/worker")).unwrap(), BYTES);

    releases.remove(&first).unwrap();
    releases.remove(&first).unwrap();
    assert_eq!(releases.list().unwrap().len(), 1);
    assert_eq!(releases.find(&first).unwrap(), None);
    assert!(!worker(&lab, &first).parent().unwrap().exists());
}

#[tokio::test]
async fn the_release_before_is_found_whatever_lies_beside_it_and_one_that_cannot_be_read_is_an_error() {
    let mut lab = Lab::new(BYTES);
    let (_, first) = install(&lab).await.unwrap();
    lab.release("1.1.0", b"the next node");
    let (_, second) = install(&lab).await.unwrap();
    let releases = lab.releases();
    assert_eq!(releases.previous().unwrap(), None);
    releases.link_previous(&first).unwrap();
    let damage = |release: &Release| {
        let json = worker(&lab, release).with_file_name("release.json");
        fs::remove_file(&json).unwrap();
        fs::write(json, b"{").unwrap();
    };
    damage(&second);
    assert_eq!(releases.previous().unwrap().map(|record| record.release()), Some(first.clone()));
    assert_eq!((releases.counter(&first), releases.counter(&second)), (Some(1), None));
    damage(&first);
    let error = releases.previous().unwrap_err();
    assert!(error.to_string().contains("release.json"), "{error}");
    releases.remove(&first).unwrap();
    assert_eq!(releases.previous().unwrap(), None);
}

#[tokio::test]
async fn a_release_in_anothers_directory_is_an_error_that_names_the_file() {
    let lab = Lab::new(BYTES);
    let (_, release) = install(&lab).await.unwrap();
    let json = worker(&lab, &release).with_file_name("release.json");
    let text = fs::read_to_string(&json).unwrap().replace("1.0.0", "9.9.9");
    fs::remove_file(&json).unwrap();
    fs::write(&json, text).unwrap();
    let error = lab.releases().list().unwrap_err();
    assert!(error.to_string().contains("release.json"), "{error}");
    let mut feed = lab.feed();
    feed.refresh(crate::lab::NOW).await.unwrap();
    choose(&feed).unwrap();
}

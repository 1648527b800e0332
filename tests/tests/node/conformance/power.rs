//! Power loss at every step of what is kept of a feed, and what a start and the next look make of it.
//!
//! The feed is a folder, followed by the supervisor's own code under a recorder
//! (`bumpless_os::disk::recorder`). From each state of the disk that a power loss could have left it is
//! opened and refreshed again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bumpless_os::disk::recorder::{Crash, Recorder, Recording};
use bumpless_tests::feed_simulator::Forge;
use bumpless_tests::feed_simulator::forge::new_keys;
use bumpless_tests::files::below;
use bumpless_trust::Signed;
use bumplessd::feed::{Feed, FirstRoot, Settings};

use super::bench::{Shelf, all, write_signed};

const NOW: u64 = 1_800_000_000;

/// One after the other, what the feed has.
struct Stage {
    folder: PathBuf,
    /// What is kept of it.
    shelf: Shelf,
    forge: Forge,
}

/// What the supervisor, or somebody whom it told, goes by: a number of a stage.
#[derive(Clone, Copy, Debug)]
enum Mark {
    /// The feed has this, and is looked at.
    Offered(usize),
    /// All of it is kept.
    Kept(usize),
}

fn stages(folder: &Path) -> Vec<Stage> {
    let mut forge = Forge::new(NOW, release());
    let changes: [fn(&mut Forge); 7] = [
        |_| {},
        Forge::next,
        // Every key, so that what is kept of timestamp and index is forgotten and they begin again.
        Forge::renew,
        Forge::tick,
        |forge| {
            forge.rotate(|forge| forge.timestamp_keys = new_keys(1));
            forge.timestamp.version = 1;
            forge.publish_timestamp();
        },
        // Two in one look.
        |forge| {
            forge.rotate(|forge| forge.release_keys = new_keys(1));
            forge.rotate(|forge| forge.root_keys = new_keys(1));
            forge.publish();
        },
        Forge::next,
    ];
    let mut shelf = Shelf::default();
    let staged = changes.iter().enumerate().map(|(number, change)| {
        change(&mut forge);
        let folder = folder.join(number.to_string());
        for (name, signed) in &forge.files {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            write_signed(&path, signed).unwrap();
        }
        shelf = all(shelf.clone(), &forge);
        Stage { folder, shelf: shelf.clone(), forge: forge.clone() }
    });
    staged.collect()
}

/// Any release: nothing is chosen here.
fn release() -> bumpless_trust::document::ReleaseDocument {
    let text = r#"{"release":"1.0.0","counter":1,"urgent":false,"min_supervisor":[0,1,0],"contract":{"min":1,"max":1},
        "protocol":{"min":1,"max":1},"state":{"read_min":1,"read_max":1,"write":1},
        "rollout":{"start":0,"salt":"","stages":[]},"build":{"sums_sha256":null,"commit":""},"artifacts":[]}"#;
    serde_json::from_str(text).unwrap()
}

fn open(root: &Path, anchor: &Path, place: &Path) -> Feed {
    let settings = Settings {
        places: vec![place.to_str().unwrap().to_owned()],
        channel: "stable".parse().unwrap(),
        root: Some(FirstRoot::File(anchor.to_owned())),
        fetcher: None,
        user: None,
        ca_file: None,
        allow_http_loopback: false,
        proxy: None,
        connect_timeout: Duration::from_secs(1),
        metadata_timeout: Duration::from_secs(1),
        blob_timeout: Duration::from_secs(1),
        min_rate: 1,
        trust_dir: root.join("trust"),
        staging_dir: root.join("staging"),
    };
    let (feed, notices) = Feed::open(settings).unwrap();
    assert!(notices.is_empty(), "{notices:?}");
    feed
}

fn refresh(feed: &mut Feed) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(feed.refresh(NOW)).unwrap();
}

/// Versions of root, timestamp and index, as far as they are verified.
fn versions(feed: &Feed) -> [Option<u64>; 3] {
    let trusted = feed.trusted();
    [
        Some(trusted.root().version()),
        trusted.timestamp().map(|timestamp| timestamp.version),
        trusted.index().map(|index| index.version),
    ]
}

/// The same as they stand on the feed.
fn offered(Stage { forge, .. }: &Stage) -> [u64; 3] {
    [forge.root.version, forge.timestamp.version, forge.index.version]
}

/// What is kept of the roles, without what a step that was cut off has left beside it.
fn kept(root: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut files = below(&root.join("trust")).unwrap();
    let files_of: Vec<String> = files.keys().filter(|name| name.ends_with(".json")).cloned().collect();
    files.retain(|name, _| files_of.iter().any(|file| name.strip_suffix(".sigs").unwrap_or(name) == file));
    files
}

/// Every look at every stage, recorded.
fn live(stages: &[Stage], anchor: &Path, root: &Path, copies: &Path) -> Recording<Mark> {
    let recorder = Recorder::install(root, copies);
    for (number, stage) in stages.iter().enumerate() {
        recorder.mark(Mark::Offered(number));
        // A supervisor of its own for each.
        let mut feed = open(root, anchor, &stage.folder);
        refresh(&mut feed);
        recorder.mark(Mark::Kept(number));
        assert_eq!(kept(root), stage.shelf.files());
    }
    recorder.finish()
}

fn obeys(stages: &[Stage], anchor: &Path, life: &Recording<Mark>, crash: &Crash, root: &Path) {
    let (mut now, mut before) = (0, None);
    for mark in life.marks(crash) {
        match mark {
            Mark::Offered(number) => now = *number,
            Mark::Kept(number) => before = Some(*number),
        }
    }
    life.write(crash, root).unwrap();
    let mut feed = open(root, anchor, &stages[now].folder);
    // What is verified is of now or, as long as its keys count, of before; and what was kept is not lost.
    let new = offered(&stages[now]);
    let old = before.map(|before| offered(&stages[before]));
    let found = versions(&feed);
    let root_found = found[0].unwrap();
    assert!(root_found <= new[0] && root_found >= old.map_or(1, |old| old[0]), "{found:?} {old:?} {new:?}");
    for at in [1, 2] {
        let may = match old {
            Some(old) if root_found == old[0] => vec![Some(old[at]), Some(new[at])],
            Some(old) => vec![Some(old[at]), Some(new[at]), None],
            None => vec![Some(new[at]), None],
        };
        assert!(may.contains(&found[at]), "{found:?} after {old:?} and {new:?}");
    }
    refresh(&mut feed);
    assert_eq!(kept(root), stages[now].shelf.files());
    drop(feed);
    let again = open(root, anchor, &stages[now].folder);
    assert_eq!(versions(&again), new.map(Some));
}

#[test]
fn whenever_the_power_fails_what_was_verified_is_still_there_and_the_next_look_gets_the_rest() {
    let memory = Path::new("/dev/shm");
    let folder =
        if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() };
    let [root, copies, images, feeds] =
        ["root", "copies", "images", "feeds"].map(|name| folder.path().join(name));
    for path in [&root, &copies, &images, &feeds] {
        std::fs::create_dir(path).unwrap();
    }
    let stages = stages(&feeds);
    let anchor = feeds.join("anchor.json");
    let first: &Signed = &stages[0].forge.files["root/1.json"];
    write_signed(&anchor, first).unwrap();
    let life = live(&stages, &anchor, &root, &copies);
    let crashes = life.crashes(0, 2000, 7, |_| 0);
    eprintln!("conformance, power: {} steps, {} states of the disk", life.steps(), crashes.len());
    assert!(crashes.len() > life.steps() / 2);
    for (number, crash) in crashes.iter().enumerate() {
        let image = images.join(number.to_string());
        let check = std::panic::AssertUnwindSafe(|| obeys(&stages, &anchor, &life, crash, &image));
        if let Err(cause) = std::panic::catch_unwind(check) {
            eprintln!("{}", life.explain(crash));
            std::panic::resume_unwind(cause);
        }
        std::fs::remove_dir_all(&image).unwrap();
    }
}

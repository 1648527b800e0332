#![allow(clippy::unwrap_used)]
use super::*;
use crate::user::tests::other;
use nix::fcntl::{RenameFlags, renameat2};
use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

/// Another user that nobody has a name for.
const NEXT: User = User { uid: 4_000_003, gid: 4_000_004 };

/// A node's folders as two generations leave them; the workers' part is ours.
struct Lab {
    dir: tempfile::TempDir,
    paths: Paths,
}

impl Lab {
    fn new() -> Lab {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let paths = Paths::new(dir.path().join("node"), dir.path().join("run"));
        paths.create().unwrap();
        let state = paths.state();
        for folder in ["identity", "gen-1/db", "gen-1/chunks", "gen-2/chunks", "log/7"] {
            fs::create_dir_all(state.join(folder)).unwrap();
        }
        for file in ["identity/node.key", "gen-1/db/1", "gen-1/chunks/a", "gen-1/chunks/b", "log/7/1"] {
            fs::write(state.join(file), file).unwrap();
        }
        fs::set_permissions(state.join("identity/node.key"), fs::Permissions::from_mode(0o400)).unwrap();
        fs::hard_link(state.join("gen-1/chunks/a"), state.join("gen-2/chunks/a")).unwrap();
        Lab { dir, paths }
    }

    fn state(&self) -> PathBuf {
        self.paths.state()
    }

    /// What is in `state/`, with it, and whose it is.
    fn owners(&self) -> BTreeMap<PathBuf, u32> {
        let mut owners = BTreeMap::new();
        let mut folders = vec![self.state()];
        while let Some(folder) = folders.pop() {
            owners.insert(folder.clone(), fs::symlink_metadata(&folder).unwrap().uid());
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let metadata = fs::symlink_metadata(&path).unwrap();
                owners.insert(path.clone(), metadata.uid());
                if metadata.is_dir() {
                    folders.push(path);
                }
            }
        }
        owners
    }

    fn all_belongs_to(&self, uid: u32) {
        let others: Vec<_> = self.owners().into_iter().filter(|(_, owner)| *owner != uid).collect();
        assert!(others.is_empty(), "not {uid}'s: {others:?}");
        assert!(!self.paths.handover().exists());
    }
}

#[test]
fn a_state_folder_is_handed_over_whole_and_back_and_only_where_it_has_to_be() {
    let Some(user) = other("a_state_folder_is_handed_over_whole_and_back") else { return };
    let lab = Lab::new();
    let key = lab.state().join("identity/node.key");
    assert!(!settle(&lab.paths, None).unwrap(), "it is ours");
    for to in [Some(user), Some(NEXT), None, Some(user)] {
        assert!(settle(&lab.paths, to).unwrap());
        lab.all_belongs_to(to.map_or(0, |user| user.uid));
        assert!(!settle(&lab.paths, to).unwrap(), "twice is once");
        let found = fs::metadata(&key).unwrap();
        assert_eq!((found.gid(), found.mode() & 0o7777), (to.map_or(0, |user| user.gid), 0o400));
    }
    // It can work there, and what is the supervisor's is out of its reach.
    child::with_files_as(user, || {
        assert_eq!(fs::read(&key).unwrap(), b"identity/node.key");
        fs::create_dir(lab.state().join("gen-3")).unwrap();
        fs::hard_link(lab.state().join("gen-1/chunks/b"), lab.state().join("gen-3/b")).unwrap();
        for denied in ["releases", "alive", "trust", "staging", "."] {
            fs::write(lab.paths.state_dir().join(denied).join("x"), "").unwrap_err();
        }
        fs::rename(lab.state(), lab.dir.path().join("elsewhere")).unwrap_err();
    })
    .unwrap();
}

#[test]
fn whatever_a_power_loss_leaves_of_a_hand_over_is_brought_to_its_end() {
    let Some(user) = other("whatever_a_power_loss_leaves_of_a_hand_over") else { return };
    let lab = Lab::new();
    let paths: Vec<PathBuf> = lab.owners().into_keys().collect();
    // Each part may have reached the disk or not, whatever the order was, in each direction.
    for seed in 0_u64..300 {
        let mut bits = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for path in &paths {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed);
            let uid = [geteuid().as_raw(), user.uid, NEXT.uid][(bits >> 60) as usize % 3];
            std::os::unix::fs::lchown(path, Some(uid), None).unwrap();
        }
        fs::write(lab.paths.handover(), "").unwrap();
        let to = [Some(user), Some(NEXT), None][seed as usize % 3];
        assert!(settle(&lab.paths, to).unwrap());
        lab.all_belongs_to(to.map_or(geteuid().as_raw(), |user| user.uid));
    }
    // Without the mark the folder's own owner tells; it is the last to change, and everything is durable by then.
    assert!(!settle(&lab.paths, None).unwrap());
}

#[test]
fn what_is_not_the_workers_alone_is_not_handed_over_and_the_old_setting_works_on() {
    let Some(user) = other("what_is_not_the_workers_alone_is_not_handed_over") else { return };
    let lab = Lab::new();
    settle(&lab.paths, Some(user)).unwrap();
    let (secret, planted) = (lab.dir.path().join("secret"), lab.state().join("gen-1/planted"));
    fs::write(&secret, "").unwrap();
    let owner_of = |path: &Path| fs::symlink_metadata(path).unwrap().uid();
    let plants: [(&dyn Fn() -> io::Result<()>, &str); 3] = [
        (&|| fs::hard_link(&secret, &planted), "has another name outside"),
        (&|| symlink(&secret, &planted), "is neither a folder nor a regular file"),
        (&|| Ok(nix::unistd::mkfifo(&planted, Mode::S_IRUSR)?), "is neither a folder nor a regular file"),
    ];
    for (plant, why) in plants {
        plant().unwrap();
        let error = settle(&lab.paths, Some(NEXT)).unwrap_err();
        assert!(matches!(&error, OwnershipError::Foreign { path, .. } if *path == planted), "{error}");
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!((owner_of(&secret), owner_of(&planted)), (0, 0));
        fs::remove_file(&planted).unwrap();
        settle(&lab.paths, Some(user)).unwrap();
        lab.all_belongs_to(user.uid);
    }
    // What was theirs already may be anything.
    symlink("nowhere", &planted).unwrap();
    std::os::unix::fs::lchown(&planted, Some(user.uid), None).unwrap();
    settle(&lab.paths, Some(NEXT)).unwrap_err();
    settle(&lab.paths, Some(user)).unwrap();
    lab.all_belongs_to(user.uid);
}

#[test]
fn a_folder_that_others_could_put_another_one_in_the_place_of_is_not_handed_over() {
    let Some(user) = other("a_folder_that_others_could_put_another_one_in_the_place_of") else { return };
    let lab = Lab::new();
    let before = lab.owners();
    fs::set_permissions(lab.paths.state_dir(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(settle(&lab.paths, Some(user)), Err(OwnershipError::Exposed(_))));
    fs::set_permissions(lab.paths.state_dir(), fs::Permissions::from_mode(0o755)).unwrap();
    // A link in its place, even one of our own, is not followed.
    let real = lab.paths.state_dir().join("real");
    fs::rename(lab.state(), &real).unwrap();
    symlink(&real, lab.state()).unwrap();
    assert!(matches!(settle(&lab.paths, Some(user)), Err(OwnershipError::File { .. })));
    fs::remove_file(lab.state()).unwrap();
    fs::rename(real, lab.state()).unwrap();
    assert_eq!(lab.owners(), before);
}

#[test]
fn a_user_that_does_not_reach_its_folder_is_told_where() {
    let Some(user) = other("a_user_that_does_not_reach_its_folder") else { return };
    let lab = Lab::new();
    settle(&lab.paths, Some(user)).unwrap();
    reaches(user, &lab.state()).unwrap();
    // Also where our own group is let through.
    fs::set_permissions(lab.dir.path(), fs::Permissions::from_mode(0o750)).unwrap();
    let error = reaches(user, &lab.state()).unwrap_err().to_string();
    assert!(error.contains("Permission denied") && error.contains("chmod o+x"), "{error}");
}

/// What a worker left behind, with folders open, swaps in them while they are handed over to somebody else.
#[test]
fn a_leftover_of_a_hostile_worker_has_nothing_handed_over_that_is_not_the_workers() {
    let Some(user) = other("a_leftover_of_a_hostile_worker") else { return };
    const ROUNDS: u32 = 100;
    let lab = Lab::new();
    settle(&lab.paths, Some(user)).unwrap();
    // Not the worker's: one that it may link to, because it may write to it, and a folder with one.
    let (shared, folder) = (lab.dir.path().join("shared"), lab.dir.path().join("folder"));
    fs::create_dir(&folder).unwrap();
    for file in [&shared, &folder.join("inner")] {
        fs::write(file, "").unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o666)).unwrap();
    }
    let victims = [shared.clone(), folder.clone(), folder.join("inner")];
    // What is put into the place of a file and of a folder: links to them.
    let theirs = lab.dir.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    chown(&theirs, Some(user.uid), None).unwrap();
    let (file, hard, soft) = (lab.state().join("gen-1/db/1"), theirs.join("hard"), theirs.join("soft"));
    let (chunks, aside) = (lab.state().join("gen-1/chunks"), theirs.join("chunks"));
    fs::hard_link(&shared, &hard).unwrap();
    symlink(&shared, &soft).unwrap();
    symlink(&folder, &aside).unwrap();
    let exchange =
        |one: &Path, other: &Path| renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE);
    let number = |path: &Path| fs::symlink_metadata(path).unwrap().ino();
    let (original, folder_of_chunks) = (number(&file), number(&chunks));
    let (over, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut handed, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        let race = || {
            while !over.load(SeqCst) {
                for (one, other) in [(&file, &hard), (&file, &soft), (&chunks, &aside)] {
                    for _ in 0..2 {
                        // Where the folder is not the worker's at that moment, it may not.
                        swaps.fetch_add(u64::from(exchange(one, other).is_ok()), SeqCst);
                    }
                }
            }
        };
        let racer = scope.spawn(move || child::with_files_as(user, race).unwrap());
        let rounds = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..ROUNDS {
                let before = swaps.load(SeqCst);
                while swaps.load(SeqCst) < before + 5 && !racer.is_finished() {
                    std::thread::yield_now();
                }
                match settle(&lab.paths, Some(NEXT)) {
                    Ok(_) => handed += 1,
                    Err(OwnershipError::Foreign { .. }) => refused += 1,
                    Err(error) => panic!("{error}"),
                }
                for victim in &victims {
                    assert_eq!(fs::metadata(victim).unwrap().uid(), 0, "{} was given away", victim.display());
                }
                // Back, as an administrator would: what is planted goes first.
                fs::write(lab.paths.handover(), "").unwrap();
                if number(&file) != original {
                    let there = if number(&hard) == original { &hard } else { &soft };
                    exchange(&file, there).unwrap();
                }
                if number(&chunks) != folder_of_chunks {
                    exchange(&chunks, &aside).unwrap();
                }
                settle(&lab.paths, Some(user)).unwrap();
            }
        }));
        over.store(true, SeqCst);
        rounds.unwrap_or_else(|why| std::panic::resume_unwind(why));
    });
    eprintln!("{} swaps, handed over {handed} times, refused {refused} times", swaps.into_inner());
    assert!(refused > 0 && handed > 0, "the race was never met: {handed} {refused}");
}

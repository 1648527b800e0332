//! kill -9 of the supervisor before each sync of what it keeps: what is there then was verified, and the
//! next start recovers.

use std::collections::BTreeSet;

use bumpless_control::request::Request;
use bumpless_tests::files::below;
use bumpless_tests::world::Result;
use bumpless_trust::Role;

use super::bench::{Bench, Says, all, path};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_step_of_keeping_a_rotation_a_supervisor_has_only_verified_files_and_the_next_recovers()
-> Result<()> {
    let mut bench = Bench::start("killed").await?;
    bench.cut_off = true;
    let mut kills = 0;
    while stopped_at(&mut bench, kills + 1).await? {
        bench.world.kill_supervisor()?;
        kills += 1;
        recovers(&mut bench, &format!("before sync {kills}")).await?;
    }
    // A file and its signatures are two syncs each, for three files; and two for each role that is forgotten.
    assert!(kills >= 18, "only {kills} syncs");
    bench.shelf = all(std::mem::take(&mut bench.shelf), &bench.forge);
    bench.is_kept("not killed at all")?;
    bench.one_more_case("not killed at all").await?;
    bench.finish()
}

/// Publishes a root that rotates every key, with a timestamp and an index by the new ones, and has the
/// supervisor look and stop before that sync; `false` if it got to the end.
async fn stopped_at(bench: &mut Bench, sync: u64) -> Result<bool> {
    bench.forge.renew();
    bench.simulator.offer(&bench.forge.files);
    bench.world.injected().stop_at_sync("state/trust", sync)?;
    let control = bench.world.control();
    let stopped = tokio::select! {
        outcome = control.ask(&Request::Check, |_, _| ()) => {
            assert_eq!(outcome?.exit_code(), 0);
            false
        }
        stopped = bench.world.supervisor()?.stopped() => {
            stopped?;
            true
        }
    };
    bench.world.injected().cease()?;
    Ok(stopped)
}

/// What is there is of before or of now, whatever name it has. The next start goes on from there, and asks
/// for what is missing.
async fn recovers(bench: &mut Bench, case: &str) -> Result<()> {
    let kept = below(&bench.trust())?;
    let before = bench.shelf.files().into_values();
    let now = bench.forge.files.values().flat_map(|it| [it.bytes.clone(), it.signatures.clone()]);
    let verified: BTreeSet<Vec<u8>> = before.chain(now).collect();
    for (name, bytes) in &kept {
        assert!(verified.contains(bytes), "{case}: {name} is {}", String::from_utf8_lossy(bytes));
    }
    let has = |role: Role, version: u64| {
        let on_the_feed =
            &bench.forge.files[&role.path(&bench.forge.index.channel, version).display().to_string()];
        let path = path(role, version);
        kept.get(&path) == Some(&on_the_feed.bytes)
            && kept.get(&(path + ".sigs")) == Some(&on_the_feed.signatures)
    };
    let roots = if has(Role::Root, bench.forge.root.version) { "root/+2" } else { "root/+1* root/+2" };
    let index = if has(Role::Release, bench.forge.index.version) { "" } else { "index/1*" };
    let asked = format!("{roots} timestamp* {index}");
    bench.start_again(case, Says::Well(""), &asked, all).await?;
    let alarms = bench.world.control().status().await?.alarms;
    assert!(alarms.is_empty(), "{case}: {alarms:?}");
    Ok(())
}

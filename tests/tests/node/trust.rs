//! Where a node's trust begins, what it says of it, and how it begins anew.

use std::path::Path;

use bumpless_control::history::Event;
use bumpless_release::{Options, Publisher};
use bumpless_shared::digest::Digest;
use bumpless_tests::configuration::Settings;
use bumpless_tests::left_out::left_out;
use bumpless_tests::operator::Operator;
use bumpless_tests::world::{Result, World, release, unix_now};
use bumpless_worker::state::Layout;

async fn expect(operator: &Operator, arguments: &[&str], code: i32) -> Result<String> {
    let said = operator.run(arguments).await?;
    assert_eq!(said.code, code, "bumpless {}: {}", arguments.join(" "), said.all());
    Ok(said.all())
}

/// Puts this root, and the `.sigs` beside it, there.
fn put(root: &Path, to: &Path) -> Result<()> {
    for end in ["", ".sigs"] {
        std::fs::copy(format!("{}{end}", root.display()), format!("{}{end}", to.display()))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_knows_a_fingerprint_fetches_the_root_and_begins_with_it() -> Result<()> {
    let mut world = World::prepare(Settings { automatic: true, ..Settings::default() }).await?;
    let fingerprint = world.publisher().fingerprint()?;
    let text = world.configuration_text();
    let root = format!("root = \"{}\"", world.places().root.display());
    assert!(text.contains(&root), "{text}");
    std::fs::write(world.configuration(), text.replace(&root, &format!("root_sha256 = \"{fingerprint}\"")))?;
    world.publish(&release("1.0.0", Layout::ByName)?)?;
    world.start_supervisor()?;
    world.serving().await?;
    let said = expect(&world.operator(), &["trust", "show"], 0).await?;
    assert!(said.contains(&format!("fingerprint {fingerprint}")), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trust_begins_anew_at_roots_word_alone_and_what_runs_goes_on() -> Result<()> {
    let mut world = World::prepare(Settings::default()).await?;
    let configured = world.folder().join("etc/root.json");
    put(&world.places().root.clone(), &configured)?;
    world.places().root = configured.clone();
    world.configure()?;
    world.publish(&release("1.0.0", Layout::ByName)?)?;
    world.start_supervisor()?;
    let before = world.first_install().await?.serving.ok_or("nobody serves")?;
    let old = world.publisher().fingerprint()?;
    let new = Publisher::init(&world.folder().join("new"), &Options::new("stable".parse()?, unix_now()))?;
    let root = new.first_root();
    let reset = ["trust", "reset", "--root", root.to_str().ok_or("no text")?];
    let (operator, stranger) = (world.operator(), world.stranger()?);
    let stands = async |operator: &Operator, root: Digest| -> Result<()> {
        let said = expect(operator, &["trust", "show"], 0).await?;
        assert!(said.contains(&format!("fingerprint {root}")), "{said}");
        Ok(())
    };

    let said = expect(stranger.as_ref().unwrap_or(&operator), &reset, 3).await?;
    assert!(said.contains("Only root may"), "{said}");
    stands(stranger.as_ref().unwrap_or(&operator), old).await?;
    if stranger.is_none() {
        left_out("trust is reset by root", "this is not root");
        return Ok(());
    }
    let said = expect(&operator, &reset, 3).await?;
    assert!(said.contains("feed.root = "), "the configuration would contradict it: {said}");
    stands(&operator, old).await?;

    put(&root, &configured)?;
    let said = expect(&operator, &reset, 0).await?;
    let new = new.fingerprint()?;
    assert!(said.contains(&new.to_string()), "{said}");
    stands(&operator, new).await?;
    let history = world.control().history(100).await?;
    let entries: Vec<_> = history.iter().filter(|entry| entry.event == Event::TrustReset).collect();
    let [entry] = entries[..] else { return Err(format!("{entries:?}").into()) };
    assert_eq!(entry.actor, Some(0));
    assert!(entry.reason.as_ref().is_some_and(|reason| reason.contains(&new.to_string())), "{entry:?}");
    let serving = world.serving().await?.serving.ok_or("nobody serves")?;
    assert_eq!((serving.pid, serving.release), (before.pid, before.release));
    // The old network's feed is not believed any more, also after a restart.
    let said = expect(&operator, &["check"], 5).await?;
    assert!(said.contains("refused"), "{said}");
    world.kill_supervisor()?;
    world.start_supervisor()?;
    world.serving().await?;
    stands(&operator, new).await?;
    Ok(())
}

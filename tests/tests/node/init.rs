//! A first configuration, written for a feed on the network; and a node that begins with it.

use bumpless_tests::configuration::Settings;
use bumpless_tests::world::{Result, World, release};
use bumpless_worker::state::Layout;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_begins_with_what_init_has_written_and_fetched() -> Result<()> {
    let mut world = World::prepare(Settings { automatic: true, ..Settings::default() }).await?;
    world.publisher().begin(&"beta".parse()?)?;
    world.publish(&release("1.0.0", Layout::ByName)?)?;
    let operator = world.operator();
    let (url, fingerprint) = (world.feed_url().to_owned(), world.publisher().fingerprint()?.to_string());
    let config = world.configuration();
    std::fs::remove_file(&config)?;
    let path = config.to_str().ok_or("the folder's name is no text")?;
    let init = ["init", "--feed", &url, "--channel", "beta", "--config", path, "--allow-http-loopback"];

    let said = operator.run(&init).await?;
    assert_eq!(said.code, 3, "{}", said.all());
    assert!(said.errors.contains("not believed because the feed has it"), "{}", said.all());
    let wrong = "0".repeat(64);
    let said = operator.run(&[&init[..], &["--root", &wrong]].concat()).await?;
    assert_eq!(said.code, 3, "{}", said.all());
    assert!(said.errors.contains(&wrong) && said.errors.contains(&fingerprint), "{}", said.all());
    let without = &init[..init.len() - 1];
    let said = operator.run(&[without, &["--root", &fingerprint]].concat()).await?;
    assert_eq!(said.code, 3, "plain http is allowed nowhere else: {}", said.all());
    assert!(!config.exists());

    let said = operator.run(&[&init[..], &["--root", &fingerprint]].concat()).await?;
    assert_eq!(said.code, 0, "{}", said.all());
    assert!(
        said.output.contains("The feed has channel beta: index 1, the newest release is 1.0.0."),
        "{}",
        said.all()
    );
    let said = operator.run(&[&init[..], &["--root", &fingerprint, "--json"]].concat()).await?;
    let json = said.json().ok_or_else(|| said.all())?;
    assert_eq!((said.code, &json["result"], &json["schema"]), (3, &"refused".into(), &1.into()), "{json}");

    // It serves with that alone; only where it lives and listens is this world's.
    let places = world.places().clone();
    let more = format!(
        "state_dir = {:?}\nrun_dir = {:?}\nlisten = [\"{}\"]\n",
        places.state_dir, places.run_dir, places.listen[0]
    );
    std::fs::write(config.with_file_name("config.d").join("more.toml"), more)?;
    world.start_supervisor()?;
    let serving = world.serving().await?.serving.ok_or("nobody serves")?;
    assert_eq!(serving.release.as_str(), "1.0.0");
    let said = operator.run(&["trust", "show"]).await?.all();
    assert!(said.contains(&format!("fingerprint {fingerprint}")) && said.contains("channel beta"), "{said}");
    Ok(())
}

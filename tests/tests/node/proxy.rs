//! The way to the feed through a proxy: as configuration and environment say, and without telling a password.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bumpless_control::status::Status;
use bumpless_tests::configuration::Settings;
use bumpless_tests::supervisor::Supervisor;
use bumpless_tests::world::{Result, World};

/// A proxy that lets nobody through, and what it was asked. Its thread ends with the test's process.
fn stubborn_proxy() -> Result<(SocketAddr, Arc<Mutex<String>>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (address, heard) = (listener.local_addr()?, Arc::<Mutex<String>>::default());
    let all = heard.clone();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|read| read == 1) {
                head.push(byte[0]);
            }
            all.lock().unwrap().push_str(&String::from_utf8_lossy(&head));
            let _ = client.write_all(b"HTTP/1.1 407 Not you\r\nContent-Length: 0\r\n\r\n");
        }
    });
    Ok((address, heard))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_is_used_only_if_the_configuration_says_so_and_its_password_is_never_told() -> Result<()> {
    let (proxy, heard) = stubborn_proxy()?;
    let with_password = format!("http://user:s3cret@{proxy}");
    let here = ("HTTPS_PROXY", with_password.as_str());
    let (environment, address) = ("proxy = \"environment\"", format!("proxy = \"{with_password}\""));
    for (line, variables, asked, told) in [
        ("", vec![here], false, "no connection"),
        (environment, vec![here], true, "proxy authorization required"),
        (environment, vec![("all_proxy", here.1)], true, "proxy authorization required"),
        (environment, vec![here, ("NO_PROXY", "feed.example")], false, "no connection"),
        (environment, vec![], false, "no connection"),
        (environment, vec![("HTTPS_PROXY", "socks5://user:s3cret@x:1")], false, "HTTPS_PROXY names no proxy"),
        (address.as_str(), vec![], true, "proxy authorization required"),
        (address.as_str(), vec![("NO_PROXY", "*")], true, "proxy authorization required"),
    ] {
        let more = format!("[fetch]\nconnect_timeout = \"2s\"\n{line}\n");
        let mut world = World::prepare(Settings { more, ..Settings::default() }).await?;
        world.places().feed = "https://feed.example".to_owned();
        world.configure()?;
        let mut command = world.supervisor_command();
        for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"] {
            command.env_remove(name);
        }
        command.envs(variables.iter().copied());
        let supervisor = Supervisor::start(command, &world.folder().join("log"))?;
        let error = |status: &Status| status.feed.as_ref().and_then(|feed| feed.error.clone());
        let limit = Duration::from_secs(60);
        let status =
            world.control().until("a look at the feed", limit, |status| error(status).is_some()).await?;
        let case = format!("{line} with {variables:?}");
        let error = error(&status).unwrap_or_default();
        assert!(error.contains(told), "{case}: {error}");
        let heard = std::mem::take(&mut *heard.lock().unwrap());
        assert_eq!(heard.starts_with("CONNECT feed.example:443 HTTP/1.1\r\n"), asked, "{case}: {heard}");
        // Proxy-Authorization: user:s3cret
        assert_eq!(heard.contains(": Basic dXNlcjpzM2NyZXQ=\r\n"), asked, "{case}: {heard}");
        let operator = world.operator();
        let said = [operator.run(&["status"]).await?.all(), operator.run(&["status", "--json"]).await?.all()];
        let all = format!("{}{}{}", said[0], said[1], supervisor.log());
        assert!(!all.contains("s3cret"), "{case}: {all}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_configuration_is_fetched_through_the_proxy_that_is_named_or_not_at_all() -> Result<()> {
    let (proxy, heard) = stubborn_proxy()?;
    let mut world = World::prepare(Settings::default()).await?;
    let (operator, fingerprint) = (world.operator(), world.publisher().fingerprint()?.to_string());
    let (config, proxy) = (world.folder().join("first/config.toml"), format!("http://{proxy}"));
    let path = config.to_str().ok_or("the folder's name is no text")?;
    let init = ["init", "--feed", "https://feed.example", "--root", &fingerprint, "--config", path];
    let said = operator.run(&[&init[..], &["--proxy", &proxy]].concat()).await?;
    assert!(said.code == 5 && said.errors.contains("proxy authorization required"), "{}", said.all());
    let heard = std::mem::take(&mut *heard.lock().unwrap());
    assert!(heard.starts_with("CONNECT feed.example:443 HTTP/1.1\r\n"), "{heard}");
    assert!(!config.exists());
    Ok(())
}

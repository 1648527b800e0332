//! A feed that is reached through a proxy, and through nothing else: its name means something to the proxy alone.
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::lab::{Lab, NOW, choose};
use crate::tls::{Tls, base64};
use bumplessd::feed::proxy::{Address, Proxy};
use bumplessd::feed::{Feed, FeedError, Settings, Trouble};

/// Asked for with `%40` for the `@`.
const USER: &str = "user:s3cr@t!";

fn head(stream: &mut impl Read) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// Serves a feed's folder over TLS; ends with the test's process.
fn serve(folder: &Path, tls: &Tls) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (folder, config) = (folder.to_owned(), tls.config.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream.unwrap());
            let request = head(&mut stream);
            let path = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
            let (status, file) = match std::fs::read(folder.join(path)) {
                Ok(file) => ("200 OK", file),
                Err(_) => ("404 No", vec![]),
            };
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", file.len());
            // A client that has heard enough closes.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&file));
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    address
}

/// A proxy that connects to one server, whatever it is called.
struct ConnectProxy {
    address: SocketAddr,
    /// First line and user of each request.
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl ConnectProxy {
    fn start(server: SocketAddr) -> ConnectProxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let proxy = ConnectProxy { address: listener.local_addr().unwrap(), asked: Arc::default() };
        let asked = proxy.asked.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                connect(client.unwrap(), server, &asked);
            }
        });
        proxy
    }

    fn with(&self, user: &str) -> Proxy {
        let address = Address::parse(&format!("http://{user}@{}", self.address)).unwrap();
        Proxy { address, except: String::new() }
    }

    fn asked(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn connect(mut client: TcpStream, server: SocketAddr, asked: &Mutex<Vec<(String, String)>>) {
    let request = head(&mut client);
    let mut lines = request.lines();
    let first = lines.next().unwrap_or_default().to_owned();
    let user = lines.find_map(|line| {
        let (name, value) = line.split_once(": Basic ")?;
        name.eq_ignore_ascii_case("Proxy-Authorization").then_some(value)
    });
    let user = user.unwrap_or_default();
    asked.lock().unwrap().push((first, user.to_owned()));
    if user != base64(USER.as_bytes()) {
        let _ = client.write_all(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n");
        return;
    }
    let server = TcpStream::connect(server).unwrap();
    client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").unwrap();
    let (client_too, server_too) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || copy(client_too, server_too));
    copy(server, client);
}

/// Until one of them has enough.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

fn settings(lab: &Lab, tls: &Tls, proxy: Option<Proxy>) -> Settings {
    Settings {
        ca_file: Some(tls.ca_file.path().to_owned()),
        connect_timeout: Duration::from_secs(2),
        proxy,
        ..lab.settings(&["https://feed.example"])
    }
}

async fn refreshed(settings: Settings) -> Result<Feed, FeedError> {
    let (mut feed, _) = Feed::open(settings).unwrap();
    feed.refresh(NOW).await.map(|_| feed)
}

#[tokio::test]
async fn a_feed_behind_a_proxy_is_reached_through_it_and_by_no_other_way() {
    let (lab, tls) = (Lab::new(b"these bytes are the node"), Tls::new("feed.example"));
    let proxy = ConnectProxy::start(serve(&lab.publisher.feed(), &tls));
    let error = refreshed(settings(&lab, &tls, None)).await.unwrap_err();
    assert_eq!(error.trouble(), Trouble::Unreachable, "{error}");
    let past = Proxy { except: "10.0.0.0/8, .example".to_owned(), ..proxy.with("user:s3cr%40t!") };
    let error = refreshed(settings(&lab, &tls, Some(past))).await.unwrap_err();
    assert_eq!(error.trouble(), Trouble::Unreachable, "{error}");
    assert!(proxy.asked().is_empty());

    let through = proxy.with("user:s3cr%40t!");
    let feed = refreshed(settings(&lab, &tls, Some(through))).await.unwrap();
    feed.fetch(&choose(&feed).unwrap(), |_, _| {}).await.unwrap();
    let asked = proxy.asked();
    let expected = ("CONNECT feed.example:443 HTTP/1.1".to_owned(), base64(USER.as_bytes()));
    // The next root, which is not there; timestamp and index with their signatures; the artifact.
    assert_eq!(asked, vec![expected; 6]);
}

#[tokio::test]
async fn a_proxy_that_refuses_us_is_told_apart_from_the_feed_and_the_password_is_not_told() {
    let (lab, tls) = (Lab::new(b"these bytes are the node"), Tls::new("feed.example"));
    let proxy = ConnectProxy::start(serve(&lab.publisher.feed(), &tls));
    let error = refreshed(settings(&lab, &tls, Some(proxy.with("user:wr0ng")))).await.unwrap_err();
    assert_eq!(error.trouble(), Trouble::Unreachable);
    let text = error.to_string();
    assert!(text.contains("proxy authorization required (a proxy is configured)"), "{text}");
    assert!(!text.contains("wr0ng") && !format!("{error:?}").contains("wr0ng"), "{error:?}");
    assert_eq!(proxy.asked().len(), 1);
}

#[tokio::test]
async fn the_fetchers_command_line_says_that_there_is_a_proxy_and_not_its_password() {
    use std::os::unix::fs::PermissionsExt;
    let (lab, tls) = (Lab::new(b"these bytes are the node"), Tls::new("feed.example"));
    let address = Address::parse("http://user:s3cret@proxy.example:3128").unwrap();
    let mut settings = settings(&lab, &tls, Some(Proxy { address, except: String::new() }));
    let fetcher = lab.dir.path().join("fetcher");
    std::fs::write(&fetcher, "#!/bin/sh\necho \"error $*\" >&2\nexit 12\n").unwrap();
    std::fs::set_permissions(&fetcher, std::fs::Permissions::from_mode(0o755)).unwrap();
    settings.fetcher = Some(fetcher);
    let (mut feed, _) = Feed::open(settings).unwrap();
    let error = loop {
        match feed.refresh(NOW).await.unwrap_err() {
            // Another test's fork held the script open for writing just then.
            FeedError::Fetcher { source, .. } if source.kind() == std::io::ErrorKind::ExecutableFileBusy => {}
            error => break error.to_string(),
        }
    };
    assert!(error.contains("--proxy") && !error.contains("s3cret"), "{error}");
}

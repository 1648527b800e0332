//! The real program against servers that behave, and servers that do not.
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use crate::tls::Tls;
use bumpless_fetch::exit::Exit;

fn request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        request.push(byte[0]);
    }
    String::from_utf8(request).unwrap()
}

/// Answers one request with whatever `answer` writes.
fn server(answer: impl FnOnce(TcpStream) + Send + 'static) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let request = request(&mut stream);
        answer(stream);
        request
    });
    (address, thread)
}

struct Outcome {
    exit: Exit,
    file: Vec<u8>,
    lines: Vec<String>,
}

fn fetch(url: &str, max: u64, more: &[&str]) -> Outcome {
    fetch_behind(b"", url, max, more)
}

const FETCHER: &str = env!("CARGO_BIN_EXE_bumpless-fetch");

/// With so much of the file in its place already.
fn fetch_behind(there: &[u8], url: &str, max: u64, more: &[&str]) -> Outcome {
    fetch_by(Command::new(FETCHER), there, url, max, more)
}

fn fetch_by(mut fetcher: Command, there: &[u8], url: &str, max: u64, more: &[&str]) -> Outcome {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(there).unwrap();
    let output = fetcher
        .args(["--url", url, "--max-bytes", &max.to_string(), "--allow-http-loopback"])
        .args(["--from", &there.len().to_string()])
        .args(more)
        .env("http_proxy", "http://127.0.0.1:1")
        .env("HTTP_PROXY", "http://127.0.0.1:1")
        .env("HTTPS_PROXY", "http://127.0.0.1:1")
        .env("BUMPLESS_PROXY", "http://127.0.0.1:1")
        .stdin(Stdio::null())
        .stdout(Stdio::from(File::try_clone(&file).unwrap()))
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    // What this machine lacks of the sandbox is said first, and is not about the fetch.
    let said = String::from_utf8(output.stderr).unwrap();
    let lines = said.lines().skip_while(|line| line.starts_with("lacks ")).map(str::to_owned).collect();
    Outcome { exit: Exit::of(output.status.code().unwrap()).unwrap(), file: bytes, lines }
}

fn answered(text: impl Into<Vec<u8>>, max: u64, more: &[&str]) -> (Outcome, String) {
    let text = text.into();
    // A client that has heard enough closes in the middle; that is not the server's failure.
    let (address, thread) = server(move |mut stream| drop(stream.write_all(&text)));
    let outcome = fetch(&format!("http://{address}/x"), max, more);
    (outcome, thread.join().unwrap())
}

#[test]
fn a_file_arrives_whole_with_progress_and_no_proxy_from_the_environment() {
    let body = "0123456789".repeat(100_000);
    let (outcome, request) =
        answered(format!("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{body}"), 1_000_000, &[]);
    assert_eq!(outcome.exit, Exit::Done, "{:?}", outcome.lines);
    assert!(outcome.file == body.as_bytes());
    assert_eq!(outcome.lines.first().unwrap(), "progress 0 1000000");
    assert_eq!(outcome.lines.last().unwrap(), "progress 1000000 1000000");
    assert!(!request.to_lowercase().contains("accept-encoding"), "{request}");
}

#[test]
fn a_fetch_goes_on_where_it_stopped_and_begins_anew_where_a_server_does_not_go_on() {
    const WHOLE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789";
    let rest = |range: &str| format!("HTTP/1.1 206 Partial\r\n{range}Content-Length: 6\r\n\r\n456789");
    let right = rest("Content-Range: bytes 4-9/10\r\n");
    for (answers, asked) in [
        (vec![right.clone()], vec![true]),
        // No ranges: the whole file comes, over what is there.
        (vec![WHOLE.to_owned()], vec![true]),
        // Another part than the one that was asked for, or none at all.
        (vec![rest("Content-Range: bytes 3-8/10\r\n"), WHOLE.to_owned()], vec![true, false]),
        (vec![rest("Content-Range: pages 4-9/10\r\n"), WHOLE.to_owned()], vec![true, false]),
        (vec![rest(""), WHOLE.to_owned()], vec![true, false]),
        (
            vec!["HTTP/1.1 416 No\r\nContent-Length: 0\r\n\r\n".to_owned(), WHOLE.to_owned()],
            vec![true, false],
        ),
    ] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let first = answers[0].clone();
        let thread = std::thread::spawn(move || {
            let answer = |answer: String| {
                let (mut stream, _) = listener.accept().unwrap();
                let request = request(&mut stream).to_lowercase();
                // Whoever does not want the rest of this answer closes.
                let _ = stream.write_all(answer.as_bytes());
                request.contains("range: bytes=4-\r\n")
            };
            answers
                .into_iter()
                .map(|text| answer(text.replacen("\r\n", "\r\nConnection: close\r\n", 1)))
                .collect::<Vec<_>>()
        });
        let outcome = fetch_behind(b"0123", &format!("http://{address}/x"), 10, &[]);
        assert_eq!((outcome.exit, outcome.file), (Exit::Done, b"0123456789".to_vec()), "{first}");
        assert_eq!(thread.join().unwrap(), asked, "{first}");
        assert_eq!(outcome.lines.last().unwrap(), "progress 10 10", "{first}");
    }
    // The limit is the whole file's.
    let (address, thread) = server(move |mut stream| drop(stream.write_all(right.as_bytes())));
    let outcome = fetch_behind(b"0123", &format!("http://{address}/x"), 9, &[]);
    assert_eq!((outcome.exit, outcome.file), (Exit::TooLarge, b"0123".to_vec()));
    thread.join().unwrap();
}

#[test]
fn only_not_found_means_that_there_is_no_such_file() {
    for (status, exit) in [
        ("404 Not Found", Exit::NotFound),
        ("410 Gone", Exit::NotFound),
        ("403 Forbidden", Exit::Status),
        ("500 Oops", Exit::Status),
        ("204 No Content", Exit::Status),
        ("206 Partial Content", Exit::Status),
    ] {
        let (outcome, _) = answered(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"), 10, &[]);
        assert_eq!(outcome.exit, exit, "{status}");
        assert_eq!(outcome.file, b"");
        assert_eq!(outcome.lines.len(), 1);
        assert!(outcome.lines[0].starts_with("error "));
    }
}

#[test]
fn a_larger_file_is_cut_whether_it_says_so_or_not() {
    let (outcome, _) = answered("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n01234567890", 10, &[]);
    assert_eq!((outcome.exit, outcome.file.len()), (Exit::TooLarge, 0));
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(1_000_000));
    let (outcome, _) = answered(endless, 10, &[]);
    assert_eq!(outcome.exit, Exit::TooLarge);
    assert!(outcome.file.len() <= 10);
}

#[test]
fn a_redirect_is_not_followed() {
    let (outcome, _) = answered(
        "HTTP/1.1 302 Found\r\nLocation: https://elsewhere.example/\r\nContent-Length: 0\r\n\r\n",
        10,
        &[],
    );
    assert_eq!(outcome.exit, Exit::Redirected);
    assert!(outcome.lines[0].contains("elsewhere.example"), "{:?}", outcome.lines);
}

#[test]
fn contents_are_not_decoded() {
    let gzip = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 20\r\n\r\n".to_vec();
    answer.extend_from_slice(&gzip);
    let (outcome, _) = answered(answer, 100, &[]);
    assert_eq!((outcome.exit, outcome.file), (Exit::Done, gzip.to_vec()));
}

#[test]
fn an_answer_that_breaks_off_is_no_file() {
    let (outcome, _) = answered("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123", 10, &[]);
    assert_eq!(outcome.exit, Exit::Broken);
    let (outcome, _) = answered("this is not http\r\n\r\n", 10, &[]);
    assert_eq!(outcome.exit, Exit::Broken);
}

#[test]
fn plain_http_to_this_machine_goes_through_no_proxy() {
    let (outcome, request) = answered("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 10, &["--proxy"]);
    assert_eq!((outcome.exit, outcome.file), (Exit::Done, b"hi".to_vec()), "{:?}", outcome.lines);
    assert!(request.starts_with("GET /x HTTP/1.1\r\n"), "{request}");
}

#[test]
fn nobody_there_is_said_as_such() {
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    assert_eq!(fetch(&format!("http://{gone}/x"), 10, &[]).exit, Exit::Unreachable);
}

/// Waits until the client has gone; only then the server may end.
fn until_closed(mut stream: TcpStream) {
    let _ = stream.read(&mut [0]);
}

#[test]
fn a_server_that_says_nothing_or_sends_a_byte_now_and_then_is_given_up() {
    let (address, thread) = server(until_closed);
    let outcome =
        fetch(&format!("http://{address}/x"), 10, &["--rate-window-ms", "50", "--connect-timeout-ms", "50"]);
    assert_eq!(outcome.exit, Exit::TimedOut);
    thread.join().unwrap();

    let (address, thread) = server(|mut stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nx").unwrap();
        until_closed(stream);
    });
    let outcome =
        fetch(&format!("http://{address}/x"), 100_000, &["--rate-window-ms", "50", "--min-rate", "1000"]);
    assert_eq!(outcome.exit, Exit::TooSlow, "{:?}", outcome.lines);
    thread.join().unwrap();

    let (address, thread) = server(|mut stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        while stream.write_all(&[0; 1000]).is_ok() {}
    });
    let total = ["--total-timeout-ms", "200", "--min-rate", "1"];
    assert_eq!(fetch(&format!("http://{address}/x"), u64::MAX, &total).exit, Exit::TimedOut);
    thread.join().unwrap();
}

fn trust(tls: &Tls) -> [&str; 2] {
    ["--ca-file", tls.ca_file.path().to_str().unwrap()]
}

/// Answers one request over TLS on this port of 127.0.0.1.
fn serve(tls: &Tls) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = tls.config.clone();
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let connection = rustls::ServerConnection::new(config).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, stream);
        // A client that does not trust us ends this with an error, as it should.
        if stream.read(&mut [0; 4096]).is_ok() {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").unwrap();
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    (port, thread)
}

#[test]
fn a_server_is_believed_only_if_somebody_whom_we_trust_vouches_for_it() {
    let (by_number, by_name) = (Tls::new("127.0.0.1"), Tls::new("localhost"));
    // By its name it is looked up in /etc/hosts, from within the sandbox.
    for (host, tls, more, exit) in [
        ("127.0.0.1", &by_number, &trust(&by_number)[..], Exit::Done),
        ("localhost", &by_name, &trust(&by_name), Exit::Done),
        ("127.0.0.1", &by_number, &[], Exit::Unreachable),
        ("localhost", &by_name, &[], Exit::Unreachable),
        // Of another name than it is asked for by.
        ("localhost", &by_number, &trust(&by_number), Exit::Unreachable),
    ] {
        let (port, thread) = serve(tls);
        let outcome = fetch(&format!("https://{host}:{port}/x"), 5, more);
        assert_eq!(outcome.exit, exit, "{host}: {:?}", outcome.lines);
        assert_eq!(outcome.file, if exit == Exit::Done { &b"hello"[..] } else { b"" });
        thread.join().unwrap();
    }
}

/// The answer to a question for the address of any name: 127.0.0.1, or that it does not fit into a datagram.
fn dns_answer(question: &[u8], fits: bool) -> Vec<u8> {
    let name = question[12..].iter().position(|byte| *byte == 0).unwrap();
    let end = 12 + name + 5;
    let is_ipv4 = question[end - 3] == 1;
    let flags: [u8; 2] = if fits { [0x81, 0x80] } else { [0x83, 0x80] };
    let answers = u8::from(fits && is_ipv4);
    let mut answer = [&question[..2], &flags, &[0, 1, 0, answers, 0, 0, 0, 0], &question[12..end]].concat();
    if answers == 1 {
        // The name above, an IPv4 address, a minute.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    answer
}

/// A name server that has no short answers.
fn dns_server(address: SocketAddr) -> std::io::Result<()> {
    let (datagrams, connections) = (UdpSocket::bind(address)?, TcpListener::bind(address)?);
    // Both end with the test's process.
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = datagrams.recv_from(&mut question) {
            datagrams.send_to(&dns_answer(&question[..length], false), from).unwrap();
        }
    });
    std::thread::spawn(move || {
        for stream in connections.incoming() {
            let (mut stream, mut length) = (stream.unwrap(), [0; 2]);
            while stream.read_exact(&mut length).is_ok() {
                let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut question).unwrap();
                let answer = dns_answer(&question, true);
                let framed = [&(answer.len() as u16).to_be_bytes()[..], &answer].concat();
                // It may have heard enough.
                let _ = stream.write_all(&framed);
            }
        }
    });
    Ok(())
}

#[test]
fn a_name_server_is_asked_from_within_the_sandbox_by_datagram_and_by_connection() {
    let left_out = |why: &str| {
        let test = "a_name_server_is_asked_from_within_the_sandbox";
        writeln!(std::io::stderr(), "left out: {test}: {why}").unwrap();
        let required = std::env::var_os("BUMPLESS_REQUIRE_ALL").is_some_and(|value| value == "1");
        assert!(!required, "{test} was left out, and BUMPLESS_REQUIRE_ALL=1 allows no test to be: {why}");
    };
    let address = SocketAddr::from(([127, 0, 0, 83], 53));
    if let Err(error) = dns_server(address) {
        return left_out(&format!("only root can be a name server: {error}"));
    }
    let dir = tempfile::tempdir().unwrap();
    let (resolv, nsswitch) = (dir.path().join("resolv.conf"), dir.path().join("nsswitch.conf"));
    std::fs::write(&resolv, format!("nameserver {}\noptions timeout:5 attempts:2\n", address.ip())).unwrap();
    std::fs::write(&nsswitch, "hosts: files dns\n").unwrap();
    // In a place where these two are those of the system.
    let elsewhere = |program: &str| {
        let mut command = Command::new("unshare");
        let script = "mount --bind \"$0\" /etc/resolv.conf && mount --bind \"$1\" /etc/nsswitch.conf && \
                      shift && exec \"$@\"";
        command.args(["--mount", "/bin/sh", "-c", script]).arg(&resolv).arg(&nsswitch).arg(program);
        command
    };
    if !elsewhere("true").status().is_ok_and(|status| status.success()) {
        return left_out("no mount namespace can be made here");
    }
    let tls = Tls::new("feed.example");
    let (port, thread) = serve(&tls);
    let url = format!("https://feed.example:{port}/x");
    let outcome = fetch_by(elsewhere(FETCHER), b"", &url, 5, &trust(&tls));
    assert_eq!((outcome.exit, outcome.file), (Exit::Done, b"hello".to_vec()), "{:?}", outcome.lines);
    thread.join().unwrap();
}

#[test]
fn an_address_that_may_not_be_used_is_refused_before_anything_is_sent() {
    let outcome = fetch("http://feed.example/x", 10, &[]);
    assert_eq!(outcome.exit, Exit::Usage);
    assert!(outcome.lines[0].contains("not https"), "{:?}", outcome.lines);
    assert_eq!(fetch("https://127.0.0.1:1/x", 10, &["--ca-file", "/nonexistent"]).exit, Exit::Usage);
}

#[test]
fn every_exit_has_a_code_of_its_own() {
    for exit in Exit::ALL {
        assert_eq!(Exit::of(i32::from(exit.code())), Some(exit));
    }
    assert_eq!(Exit::of(3), None);
}

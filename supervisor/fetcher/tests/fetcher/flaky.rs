//! An artifact that comes in pieces: over a connection that breaks, from one place after the other, after a
//! restart.
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::lab::{Lab, NOW, choose};
use bumplessd::feed::{FeedError, Staged};

/// Serves a feed's folder and breaks off each answer with an artifact after so many bytes of it, as long as
/// there are such numbers.
struct Flaky {
    address: SocketAddr,
    /// Where each request for an artifact wanted to begin.
    asked: Arc<Mutex<Vec<u64>>>,
}

impl Flaky {
    fn start(folder: &Path, breaks: &[usize]) -> Flaky {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let flaky = Flaky { address: listener.local_addr().unwrap(), asked: Arc::default() };
        let (folder, asked) = (folder.to_owned(), flaky.asked.clone());
        let mut breaks: Vec<usize> = breaks.iter().rev().copied().collect();
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), &folder, &asked, &mut breaks);
            }
        });
        flaky
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn asked(&self) -> Vec<u64> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn answer(mut stream: TcpStream, folder: &Path, asked: &Mutex<Vec<u64>>, breaks: &mut Vec<usize>) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).unwrap().to_lowercase();
    let path = request.split(' ').nth(1).unwrap().trim_start_matches('/');
    let from = request.split_once("range: bytes=").map_or(0, |(_, range)| {
        let (from, _) = range.split_once('-').unwrap();
        from.parse::<usize>().unwrap()
    });
    let Ok(file) = std::fs::read(folder.join(path)) else {
        let _ = stream.write_all(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    };
    let (mut end, status) = (file.len(), if from > 0 { "206 Partial" } else { "200 OK" });
    if path.starts_with("blob/") {
        asked.lock().unwrap().push(from as u64);
        if let Some(bytes) = breaks.pop() {
            end = end.min(from + bytes);
        }
    }
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Range: bytes {from}-{}/{}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        file.len() - 1,
        file.len(),
        file.len() - from
    );
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&file[from..end]));
}

/// A lab whose newest artifact has about 600 kB, which zstd cannot make smaller.
fn lab() -> Lab {
    let mut state = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(600_000)
    .collect();
    Lab::new(&noise)
}

fn part(lab: &Lab) -> Option<PathBuf> {
    let mut entries = std::fs::read_dir(lab.dir.path().join("staging")).unwrap();
    entries.next().map(|entry| entry.unwrap().path())
}

fn is_published(lab: &Lab, staged: Staged) -> bool {
    let (mut file, mut bytes) = (staged.into_file(), Vec::new());
    std::io::Seek::rewind(&mut file).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes == std::fs::read(lab.blob()).unwrap()
}

#[tokio::test]
async fn an_interrupted_artifact_is_gone_on_with_as_long_as_something_comes() {
    let lab = lab();
    let flaky = Flaky::start(&lab.publisher.feed(), &[100_000, 200_000, 150_000]);
    let mut feed = lab.feed_at(&[&flaky.url()]);
    let choice = lab.choice(&mut feed).await;
    let mut seen = Vec::new();
    let staged = feed.fetch(&choice, |done, _| seen.push(done)).await.unwrap();
    assert!(is_published(&lab, staged));
    assert_eq!(flaky.asked(), [0, 100_000, 300_000, 450_000]);
    assert!(seen.is_sorted(), "{seen:?}");
    assert_eq!(part(&lab), None);
}

#[tokio::test]
async fn what_came_before_a_restart_is_not_fetched_again() {
    let lab = lab();
    let flaky = Flaky::start(&lab.publisher.feed(), &[100_000, 1000]);
    let mut feed = lab.feed_at(&[&flaky.url()]);
    let choice = lab.choice(&mut feed).await;
    // The second round brings hardly anything, so there is no third.
    let error = feed.fetch(&choice, |_, _| {}).await.unwrap_err();
    assert!(matches!(error, FeedError::Fetch { .. }), "{error}");
    assert_eq!(std::fs::metadata(part(&lab).unwrap()).unwrap().len(), 101_000);
    drop(feed);
    let feed = lab.feed_at(&[&flaky.url()]);
    let staged = feed.fetch(&choose(&feed).unwrap(), |done, _| assert!(done >= 101_000)).await.unwrap();
    assert!(is_published(&lab, staged));
    assert_eq!(flaky.asked(), [0, 100_000, 101_000]);
    assert_eq!(part(&lab), None);
}

#[tokio::test]
async fn another_place_goes_on_where_the_first_one_stopped() {
    let lab = lab();
    let flaky = Flaky::start(&lab.publisher.feed(), &[100_000]);
    let whole = Flaky::start(&lab.publisher.feed(), &[]);
    let mut feed = lab.feed_at(&[&flaky.url(), &whole.url()]);
    let choice = lab.choice(&mut feed).await;
    assert!(is_published(&lab, feed.fetch(&choice, |_, _| {}).await.unwrap()));
    assert_eq!((flaky.asked(), whole.asked()), (vec![0], vec![100_000]));
    // And so does a folder.
    let flaky = Flaky::start(&lab.publisher.feed(), &[100_000]);
    let feed = lab.feed_at(&[&flaky.url(), lab.publisher.feed().to_str().unwrap()]);
    assert!(is_published(&lab, feed.fetch(&choice, |_, _| {}).await.unwrap()));
    assert_eq!(flaky.asked(), [0]);
}

#[tokio::test]
async fn a_wrong_beginning_costs_one_more_transfer_and_nothing_else() {
    let lab = lab();
    let server = Flaky::start(&lab.publisher.feed(), &[]);
    let mut feed = lab.feed_at(&[&server.url()]);
    let choice = lab.choice(&mut feed).await;
    let path = lab.dir.path().join("staging").join(format!("{}.part", choice.artifact().sha256));
    let size = choice.artifact().size as usize;
    for (wrong, asked) in [
        (vec![7; 1000], vec![1000, 0]),
        // As long as the artifact: it is looked at before anything is fetched.
        (vec![7; size], vec![0]),
        (vec![7; size + 1], vec![0]),
    ] {
        std::fs::write(&path, wrong).unwrap();
        assert!(is_published(&lab, feed.fetch(&choice, |_, _| {}).await.unwrap()));
        assert_eq!(server.asked(), asked);
        assert_eq!(part(&lab), None);
    }
    // All of it came, and the supervisor was killed before it looked.
    std::fs::copy(lab.blob(), &path).unwrap();
    assert!(is_published(&lab, feed.fetch(&choice, |_, _| {}).await.unwrap()));
    assert_eq!(server.asked(), [0u64; 0]);
}

#[tokio::test]
async fn only_one_beginning_is_kept_and_a_link_in_its_place_is_not_followed() {
    let mut lab = lab();
    let flaky = Flaky::start(&lab.publisher.feed(), &[100_000, 0, 100_000, 0]);
    let mut feed = lab.feed_at(&[&flaky.url()]);
    let choice = lab.choice(&mut feed).await;
    feed.fetch(&choice, |_, _| {}).await.unwrap_err();
    let first = part(&lab).unwrap();
    lab.release("1.1.0", &[b"the next node".to_vec(), std::fs::read(lab.blob()).unwrap()].concat());
    feed.refresh(NOW).await.unwrap();
    let choice = choose(&feed).unwrap();
    feed.fetch(&choice, |_, _| {}).await.unwrap_err();
    let second = part(&lab).unwrap();
    assert_ne!(first, second);
    assert!(!first.exists());

    let elsewhere = lab.dir.path().join("elsewhere");
    std::fs::rename(&second, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &second).unwrap();
    let error = feed.fetch(&choice, |_, _| {}).await.unwrap_err();
    assert!(matches!(error, FeedError::Staging { .. }), "{error}");
    assert_eq!(std::fs::metadata(&elsewhere).unwrap().len(), 100_000);
}

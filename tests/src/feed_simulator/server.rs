//! A small HTTP server on loopback whose every path can be scripted.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bumpless_trust::Signed;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::answer::{Act, Answer};

/// A longer request is none of a fetcher's.
const MAX_REQUEST: usize = 16 * 1024;

/// Answers until it is dropped. What has no script is not there: 404.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Script {
    answers: BTreeMap<String, Answer>,
    asked: Vec<Asked>,
}

/// A request that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its first word.
    pub method: String,
    /// What it is for, without the leading slash.
    pub path: String,
    /// Its lines of header, in lower case.
    pub lines: Vec<String>,
}

fn lock(script: &Mutex<Script>) -> MutexGuard<'_, Script> {
    script.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Simulator {
    /// Listens on a free port of the loopback; nothing is there yet.
    ///
    /// # Errors
    /// Those of binding.
    pub async fn start() -> io::Result<Simulator> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let script = Arc::<Mutex<Script>>::default();
        let shared = Arc::clone(&script);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let script = Arc::clone(&shared);
                // A client that goes away is its own business.
                tokio::spawn(async move {
                    let _ = serve(stream, &script).await;
                });
            }
        });
        Ok(Simulator { address, script, task })
    }

    /// The feed's address, as a configuration wants it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers this path so from now on.
    pub fn answer(&self, path: &str, answer: Answer) {
        lock(&self.script).answers.insert(path.to_owned(), answer);
    }

    /// These are the feed's signed files from now on, each with its `.sigs`; what else there is, outside of
    /// `blob/`, is gone.
    pub fn offer(&self, files: &BTreeMap<String, Signed>) {
        let mut script = lock(&self.script);
        script.answers.retain(|path, _| path.starts_with("blob/"));
        for (path, Signed { bytes, signatures }) in files {
            script.answers.insert(path.clone(), Answer::File(bytes.clone()));
            script.answers.insert(format!("{path}.sigs"), Answer::File(signatures.clone()));
        }
    }

    /// What was asked for since the last call, in order.
    pub fn take_asked(&self) -> Vec<Asked> {
        std::mem::take(&mut lock(&self.script).asked)
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, script: &Mutex<Script>) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if request.len() > MAX_REQUEST || stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let text = String::from_utf8_lossy(&request);
    let mut lines = text.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let path = words.next().unwrap_or_default().trim_start_matches('/').to_owned();
    let lines = lines.filter(|line| !line.is_empty()).map(str::to_lowercase).collect();
    let answer = {
        let mut script = lock(script);
        let answer = script.answers.get(&path).cloned();
        script.asked.push(Asked { method, path, lines });
        answer.unwrap_or(Answer::Status("404 Not Found"))
    };
    for act in answer.acts() {
        match act {
            Act::Send(bytes) => stream.write_all(&bytes).await?,
            Act::Drip(bytes, pause) => {
                for byte in bytes {
                    tokio::time::sleep(pause).await;
                    stream.write_all(&[byte]).await?;
                }
            }
            Act::Flood(bytes) => loop {
                stream.write_all(&bytes).await?;
            },
            Act::Hang => while stream.read(&mut [0; 64]).await? > 0 {},
        }
    }
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;

    async fn get(simulator: &Simulator, path: &str) -> String {
        let mut stream = TcpStream::connect(simulator.address).await.unwrap();
        stream.write_all(format!("GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn a_path_is_answered_as_it_was_scripted_and_what_was_asked_is_kept_in_order() {
        let simulator = Simulator::start().await.unwrap();
        let signed = Signed { bytes: b"{}".to_vec(), signatures: b"sigs".to_vec() };
        simulator.offer(&BTreeMap::from([("timestamp.json".to_owned(), signed)]));
        simulator.answer("gone", Answer::Status("410 Gone"));
        simulator.answer("short", Answer::of_length(9, b"123"));
        let drip = Answer::then(2, [Act::Drip(b"ab".to_vec(), Duration::from_millis(1))]);
        simulator.answer("slow", drip);
        let whole = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(get(&simulator, "timestamp.json").await, whole);
        assert!(get(&simulator, "timestamp.json.sigs").await.ends_with("\r\n\r\nsigs"));
        assert!(get(&simulator, "gone").await.starts_with("HTTP/1.1 410 Gone\r\n"));
        assert!(get(&simulator, "short").await.ends_with("Content-Length: 9\r\n\r\n123"));
        assert!(get(&simulator, "slow").await.ends_with("\r\n\r\nab"));
        assert!(get(&simulator, "../x").await.starts_with("HTTP/1.1 404 "));
        let asked = simulator.take_asked();
        let paths: Vec<&str> = asked.iter().map(|asked| asked.path.as_str()).collect();
        assert_eq!(paths, ["timestamp.json", "timestamp.json.sigs", "gone", "short", "slow", "../x"]);
        assert_eq!((asked[0].method.as_str(), &asked[0].lines[..]), ("GET", &["host: x".to_owned()][..]));
        assert!(simulator.take_asked().is_empty());
    }
}

//! One request and its answer, into one file.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::time::Duration;

use reqwest::header::{CONTENT_RANGE, HeaderMap, LOCATION, RANGE};
use reqwest::{Certificate, Client, NoProxy, Proxy, Response, StatusCode, redirect};
use tokio::time::{Instant, timeout_at};

use crate::arguments::Arguments;
use crate::exit::Exit;

/// Progress is reported when this many more bytes have come, or after this time: whoever waits at a slow
/// line wants to see that something moves.
const PROGRESS_EVERY: (u64, Duration) = (256 * 1024, Duration::from_millis(500));

/// Why there is no file, or only a part of it.
#[derive(Debug)]
pub enum TransferError {
    /// The certificates of `--ca-file`, or the proxy.
    Setup(String),
    /// 404 or 410.
    NotFound,
    /// It is, or says that it is, larger than this.
    TooLarge(u64),
    /// No connection.
    Unreachable(String),
    /// A deadline: which.
    TimedOut(&'static str),
    /// Bytes in the last window, and how many there should have been.
    TooSlow(u64, u64),
    /// Where to, if it says so.
    Redirected(String),
    /// Another answer than 200.
    Status(StatusCode),
    /// The answer broke off.
    Broken(String),
    /// The file.
    NotWritten(std::io::Error),
}

impl TransferError {
    /// The exit code to end with.
    pub fn exit(&self) -> Exit {
        match self {
            TransferError::Setup(_) => Exit::Usage,
            TransferError::NotFound => Exit::NotFound,
            TransferError::TooLarge(_) => Exit::TooLarge,
            TransferError::Unreachable(_) => Exit::Unreachable,
            TransferError::TimedOut(_) => Exit::TimedOut,
            TransferError::TooSlow(..) => Exit::TooSlow,
            TransferError::Redirected(_) => Exit::Redirected,
            TransferError::Status(_) => Exit::Status,
            TransferError::Broken(_) => Exit::Broken,
            TransferError::NotWritten(_) => Exit::NotWritten,
        }
    }
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransferError::Setup(why) => f.write_str(why),
            TransferError::NotFound => f.write_str("the server has no such file"),
            TransferError::TooLarge(limit) => write!(f, "larger than the {limit} bytes that are allowed"),
            TransferError::Unreachable(why) => write!(f, "no connection: {why}"),
            TransferError::TimedOut(what) => write!(f, "{what} took too long"),
            TransferError::TooSlow(had, needed) => {
                write!(f, "only {had} bytes in a window in which {needed} were expected")
            }
            TransferError::Redirected(to) => {
                write!(f, "the server redirects to {to}; redirects are not followed")
            }
            TransferError::Status(status) => write!(f, "the server answers {status}"),
            TransferError::Broken(why) => write!(f, "the answer broke off: {why}"),
            TransferError::NotWritten(error) => write!(f, "cannot write the file: {error}"),
        }
    }
}

impl Error for TransferError {}

/// Fetches into `file`, behind what is in it already; `progress` gets the bytes so far and, where the
/// server says, in all. A server that does not go on where it is asked to sends the file from its
/// beginning, over what is there.
///
/// # Errors
/// Why not. What was written by then may be gone on with, and is worth nothing before all of it is
/// verified.
pub async fn transfer(
    client: &Client,
    arguments: &Arguments,
    file: &mut File,
    mut progress: impl FnMut(u64, Option<u64>),
) -> Result<(), TransferError> {
    let end = Instant::now() + arguments.total_timeout;
    let mut from = arguments.from;
    let mut answer = loop {
        let answer = ask(client, arguments, from, end).await?;
        match begins(&answer, from)? {
            Some(at) => {
                from = at;
                break answer;
            }
            // It cannot be asked for less than the whole file.
            None => from = 0,
        }
    };
    begin_at(file, from).map_err(TransferError::NotWritten)?;
    let total = answer.content_length().map(|rest| from.saturating_add(rest));
    if total.is_some_and(|total| total > arguments.max_bytes) {
        return Err(TransferError::TooLarge(arguments.max_bytes));
    }
    let needed = (u128::from(arguments.min_rate) * arguments.rate_window.as_millis() / 1000) as u64;
    let (mut done, mut reported) = (from, (from, Instant::now()));
    let (mut window, mut in_window) = (Instant::now() + arguments.rate_window, 0u64);
    progress(done, total);
    loop {
        let Ok(read) = timeout_at(end.min(window), answer.chunk()).await else {
            if Instant::now() >= end {
                return Err(TransferError::TimedOut("the transfer"));
            }
            if in_window < needed.max(1) {
                return Err(TransferError::TooSlow(in_window, needed.max(1)));
            }
            (window, in_window) = (Instant::now() + arguments.rate_window, 0);
            continue;
        };
        let Some(bytes) = read.map_err(|error| broken(&error))? else { break };
        done += bytes.len() as u64;
        in_window += bytes.len() as u64;
        if done > arguments.max_bytes {
            return Err(TransferError::TooLarge(arguments.max_bytes));
        }
        file.write_all(&bytes).map_err(TransferError::NotWritten)?;
        if done - reported.0 >= PROGRESS_EVERY.0 || reported.1.elapsed() >= PROGRESS_EVERY.1 {
            reported = (done, Instant::now());
            progress(done, total);
        }
        if Instant::now() >= window {
            if in_window < needed {
                return Err(TransferError::TooSlow(in_window, needed));
            }
            (window, in_window) = (Instant::now() + arguments.rate_window, 0);
        }
    }
    file.flush().map_err(TransferError::NotWritten)?;
    progress(done, total);
    Ok(())
}

/// One request, for the bytes behind `from`.
async fn ask(
    client: &Client,
    arguments: &Arguments,
    from: u64,
    end: Instant,
) -> Result<Response, TransferError> {
    let window = Instant::now() + arguments.connect_timeout + arguments.rate_window;
    let mut request = client.get(arguments.url.clone());
    if from > 0 {
        request = request.header(RANGE, format!("bytes={from}-"));
    }
    let asked = timeout_at(end.min(window), request.send()).await;
    let asked = asked.map_err(|_| TransferError::TimedOut("the answer"))?;
    asked.map_err(|error| {
        let failed = broken(&error);
        if let TransferError::Unreachable(why) = &failed
            && arguments.proxy.is_some()
        {
            return TransferError::Unreachable(format!("{why} (a proxy is configured)"));
        }
        failed
    })
}

/// Where in the file an answer begins; `None` if it is of no use to one who has `from` bytes, and the
/// whole file has to be asked for.
fn begins(answer: &Response, from: u64) -> Result<Option<u64>, TransferError> {
    let status = answer.status();
    if status.is_redirection() {
        let to = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
        return Err(TransferError::Redirected(to.chars().filter(|c| !c.is_control()).take(200).collect()));
    }
    match status {
        StatusCode::OK => Ok(Some(0)),
        StatusCode::PARTIAL_CONTENT if from > 0 => {
            Ok((range_start(answer.headers()) == Some(from)).then_some(from))
        }
        // Its file ends before ours does.
        StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => Ok(None),
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(TransferError::NotFound),
        status => Err(TransferError::Status(status)),
    }
}

/// The first number of `bytes 500-999/1000`.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    range.split_once('-')?.0.parse().ok()
}

/// What is written next stands at `from`, and nothing behind it.
fn begin_at(file: &mut File, from: u64) -> std::io::Result<()> {
    if !file.metadata()?.is_file() {
        return Ok(());
    }
    file.set_len(from)?;
    file.seek(SeekFrom::Start(from)).map(|_| ())
}

/// Reads the certificates, which is all that it needs of this machine's files; nothing is sent yet.
///
/// # Errors
/// The certificates, or the proxy.
pub fn client(arguments: &Arguments) -> Result<Client, TransferError> {
    let setup = |what: &str, error: &dyn fmt::Display| TransferError::Setup(format!("{what}: {error}"));
    let mut builder = Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .referer(false)
        .connect_timeout(arguments.connect_timeout)
        .user_agent(concat!("bumpless-fetch/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = &arguments.ca_file {
        let pem =
            std::fs::read(path).map_err(|error| setup(&format!("cannot read {}", path.display()), &error))?;
        let certificates = Certificate::from_pem_bundle(&pem)
            .map_err(|error| setup(&format!("{} holds no certificates", path.display()), &error))?;
        builder = builder.tls_certs_only(certificates);
    } else if arguments.url.scheme() == "http" {
        // Without TLS there is nothing to look up in the system's store, which may not even be there.
        builder = builder.tls_certs_only([]);
    }
    // Plain http is for this machine alone: through a proxy it would be another one's loopback.
    if let Some(proxy) = &arguments.proxy
        && arguments.url.scheme() == "https"
    {
        let through = Proxy::https(proxy.url.clone()).map_err(|error| setup("the proxy", &error))?;
        builder = builder.proxy(through.no_proxy(NoProxy::from_string(&proxy.except)));
    }
    builder.build().map_err(|error| setup("cannot set up TLS", &error))
}

/// What went wrong below HTTP, with the last cause, which is the one that helps.
fn broken(error: &reqwest::Error) -> TransferError {
    let mut cause: &dyn Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    if error.is_timeout() {
        TransferError::TimedOut("connecting")
    } else if error.is_connect() {
        TransferError::Unreachable(cause.to_string())
    } else {
        TransferError::Broken(cause.to_string())
    }
}

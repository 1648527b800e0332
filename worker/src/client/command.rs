//! The command `bumpless-client`.

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bumpless_shared::digest::Digest;
use bumpless_shared::operation::LONGEST_RECORD;
use clap::{Args, Parser, Subcommand};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::files::FileError;
use super::{Client, Options, RequestError, Target};
use crate::net;

/// Everything was done.
pub const DONE: u8 = 0;
/// The command line makes no sense.
pub const USAGE: u8 = 2;
/// The node refused, or is another one than the pin says.
pub const REFUSED: u8 = 3;
/// Something that was asked for is not stored.
pub const NOT_STORED: u8 = 4;
/// Anything else failed: a file, the disk, a deadline.
pub const FAILED: u8 = 5;
/// No node answered.
pub const NO_NODE: u8 = 7;

/// Stores files in a bumpless node and fetches them; appends to logs and reads them.
#[derive(Debug, Parser)]
#[command(
    name = "bumpless-client",
    version,
    after_help = "Exit codes: 0 done, 2 usage, 3 refused, 4 not stored, 5 failed, 7 no node answered."
)]
struct Command {
    #[command(flatten)]
    node: NodeArgs,
    /// Seconds for each request, with all its retries.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    deadline: u64,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Args)]
struct NodeArgs {
    /// Address of the node, as `127.0.0.1:4100` or `[::1]:4100`; several are tried in order.
    #[arg(long = "node", value_name = "ADDR", required = true)]
    addresses: Vec<SocketAddr>,
    #[command(flatten)]
    identity: IdentityArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct IdentityArgs {
    /// SHA-256 of the node's certificate (DER), 64 hexadecimal digits.
    #[arg(long, value_name = "HEX")]
    pin: Option<Digest>,
    /// The node's certificate itself, DER or PEM.
    #[arg(long, value_name = "FILE.crt")]
    identity: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Store files; prints a line `NAME  FILE` for each.
    Put {
        /// Files of any size.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Fetch files; each is written to DIR under its name.
    Get {
        /// Names that `put` printed.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<Digest>,
        /// Folder to write to; made if it is not there.
        #[arg(short, long = "output", value_name = "DIR", default_value = ".")]
        output: PathBuf,
    },
    /// Append files to a log, in this order; prints a line `INDEX  FILE` for each.
    ///
    /// Each is one entry and is appended once, however often the connection is lost. While the node is
    /// upgraded from a release that does not know logs, appends are refused until the upgrade is committed.
    Append {
        /// The log: any text, or 64 hexadecimal digits that are taken as they are.
        #[arg(value_name = "LOG", value_parser = log_name)]
        log: Digest,
        /// Files of at most 4096 bytes; `-` is the standard input.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Print a log, a line `INDEX  CONTENT` for each entry; bytes that are no plain text are escaped.
    Log {
        /// The log, as for `append`.
        #[arg(value_name = "LOG", value_parser = log_name)]
        log: Digest,
        /// The index to begin with.
        #[arg(long, value_name = "INDEX", default_value_t = 0)]
        from: u64,
    },
}

/// A log's name: the SHA3-256 of what people call it.
fn log_name(text: &str) -> Result<Digest, std::convert::Infallible> {
    Ok(text.parse().unwrap_or_else(|_| super::name_of(text.as_bytes())))
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    let command = match Command::try_parse() {
        Ok(command) => command,
        Err(error) => {
            // Help and version go to stdout and are no error; a closed stdout is none either.
            let _ = error.print();
            return if error.use_stderr() { USAGE.into() } else { DONE.into() };
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&Failure::System(error)).into(),
    };
    runtime.block_on(perform(command)).into()
}

async fn perform(command: Command) -> u8 {
    let Command { node: NodeArgs { addresses, identity }, deadline, verb } = command;
    let pin = match read_pin(identity) {
        Ok(pin) => pin,
        Err(failure) => return complain(&failure),
    };
    let options = Options { deadline: Duration::from_secs(deadline), ..Options::default() };
    let client = match Client::connect(Target { addresses, pin }, options).await {
        Ok(client) => client,
        Err(error) => return complain(&Failure::Request(error)),
    };
    // The code of the first failure; the rest is done nevertheless.
    let mut code = DONE;
    let mut note = |result: Result<String, Failure>| match result {
        Ok(line) => println!("{line}"),
        Err(failure) => {
            let failed = complain(&failure);
            if code == DONE {
                code = failed;
            }
        }
    };
    match verb {
        Verb::Put { files } => {
            for path in files {
                note(put(&client, &path).await);
            }
        }
        Verb::Get { names, output } => {
            for name in names {
                note(get(&client, name, &output).await);
            }
        }
        Verb::Append { log, files } => {
            for path in files {
                note(append(&client, log, &path).await);
            }
        }
        Verb::Log { log, from } => {
            if let Err(failure) = print_log(&client, log, from).await {
                code = complain(&failure);
            }
        }
    }
    client.close().await;
    code
}

async fn append(client: &Client, log: Digest, path: &Path) -> Result<String, Failure> {
    let shown = path.display().to_string();
    let content = read_entry(path).map_err(|source| Failure::Disk { path: path.to_owned(), source })?;
    let appended = client.append(log, &content).await;
    let index = appended.map_err(|source| Failure::Entry { what: shown.clone(), source })?;
    Ok(format!("{index}  {shown}"))
}

/// The file, or as much of it as shows that it is too long.
fn read_entry(path: &Path) -> io::Result<Vec<u8>> {
    let from: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(path)?),
    };
    let mut content = Vec::new();
    from.take(LONGEST_RECORD as u64 + 1).read_to_end(&mut content)?;
    Ok(content)
}

/// Page after page, each printed when it is there.
async fn print_log(client: &Client, log: Digest, from: u64) -> Result<(), Failure> {
    let mut next = from;
    loop {
        let page = client.read_log(log, next).await.map_err(Failure::Request)?;
        if page.entries.is_empty() {
            return Ok(());
        }
        for content in page.entries {
            println!("{next}  {}", printable(&content));
            next += 1;
        }
    }
}

/// One line: control characters, backslashes and bytes that are no UTF-8 are escaped.
fn printable(content: &[u8]) -> String {
    let mut line = String::new();
    for chunk in content.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => line.push_str("\\\\"),
                control if control.is_control() => line.extend(control.escape_default()),
                plain => line.push(plain),
            }
        }
        line.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    line
}

async fn put(client: &Client, path: &Path) -> Result<String, Failure> {
    let mut progress = Progress::new("put", &path.display().to_string());
    let name = client.put_file(path, |done, total| progress.show(done, total)).await;
    progress.end();
    name.map(|name| format!("{name}  {}", path.display()))
        .map_err(|source| Failure::File { what: path.display().to_string(), source })
}

/// Writes beside the target and renames, so that what bears the name is whole.
async fn get(client: &Client, name: Digest, folder: &Path) -> Result<String, Failure> {
    let target = folder.join(name.to_string());
    let aside = folder.join(format!("{name}.part"));
    let failed = |source| Failure::Disk { path: aside.clone(), source };
    fs::create_dir_all(folder).map_err(|source| Failure::Disk { path: folder.to_owned(), source })?;
    let mut file = BufWriter::new(File::create(&aside).map_err(failed)?);
    let mut progress = Progress::new("get", &name.short());
    let fetched = client.get_file(name, &mut file, |done, total| progress.show(done, total)).await;
    progress.end();
    let whole = match fetched {
        Ok(_) => file.flush().and_then(|()| fs::rename(&aside, &target)).map_err(failed),
        Err(source) => Err(Failure::File { what: name.to_string(), source }),
    };
    if whole.is_err() {
        // The reason of the failure is what counts; a file left beside is seen by its name.
        let _ = fs::remove_file(&aside);
    }
    whole.map(|()| format!("{name}  {}", target.display()))
}

fn read_pin(identity: IdentityArgs) -> Result<Digest, Failure> {
    let path = match identity {
        IdentityArgs { pin: Some(pin), .. } => return Ok(pin),
        IdentityArgs { pin: None, identity: Some(path) } => path,
        IdentityArgs { pin: None, identity: None } => return Err(Failure::NoPin),
    };
    let bytes = fs::read(&path).map_err(|source| Failure::Disk { path: path.clone(), source })?;
    if !bytes.starts_with(b"-----BEGIN") {
        return Ok(net::pin(&bytes));
    }
    let certificate = CertificateDer::from_pem_slice(&bytes).map_err(|_| Failure::NoCertificate { path })?;
    Ok(net::pin(&certificate))
}

enum Failure {
    NoPin,
    NoCertificate { path: PathBuf },
    Disk { path: PathBuf, source: io::Error },
    File { what: String, source: FileError },
    Entry { what: String, source: RequestError },
    Request(RequestError),
    System(io::Error),
}

/// Says what failed, and returns the exit code for it.
fn complain(failure: &Failure) -> u8 {
    let (text, code) = match failure {
        Failure::NoPin => ("name the node's certificate with --pin or --identity".to_owned(), USAGE),
        Failure::NoCertificate { path } => (format!("{} holds no certificate", path.display()), USAGE),
        Failure::Disk { path, source } => (format!("{}: {source}", path.display()), FAILED),
        Failure::System(source) => (format!("cannot start: {source}"), FAILED),
        Failure::Entry { what, source } => (format!("{what}: {source}"), code_of(source)),
        Failure::Request(error) => (error.to_string(), code_of(error)),
        Failure::File { what, source } => {
            let code = match source {
                FileError::Request(error) => code_of(error),
                FileError::Missing { .. } => NOT_STORED,
                FileError::Read { .. }
                | FileError::Write(_)
                | FileError::Manifest { .. }
                | FileError::Task(_) => FAILED,
            };
            (format!("{what}: {source}"), code)
        }
    };
    eprintln!("bumpless-client: {text}");
    code
}

fn code_of(error: &RequestError) -> u8 {
    match error {
        RequestError::NoAddress => USAGE,
        RequestError::Refused { .. }
        | RequestError::NotYet { .. }
        | RequestError::WrongNode { .. }
        | RequestError::Protocol { .. } => REFUSED,
        RequestError::Unreachable { .. } => NO_NODE,
        RequestError::Socket(_) | RequestError::Deadline { .. } | RequestError::TooLarge { .. } => FAILED,
    }
}

/// One line on a terminal, rewritten as the transfer goes on; nothing elsewhere.
struct Progress {
    label: String,
    terminal: bool,
    shown: Option<Instant>,
}

impl Progress {
    fn new(verb: &str, what: &str) -> Progress {
        Progress { label: format!("{verb} {what}"), terminal: io::stderr().is_terminal(), shown: None }
    }

    fn show(&mut self, done: u64, total: u64) {
        let due = self.shown.is_none_or(|last| last.elapsed() >= Duration::from_millis(100));
        if self.terminal && due {
            self.shown = Some(Instant::now());
            let percent = if total == 0 { 100.0 } else { done as f64 * 100.0 / total as f64 };
            eprint!(
                "\r\x1b[K{}  {:.1} of {:.1} MB  {percent:.0}%",
                self.label,
                done as f64 / 1e6,
                total as f64 / 1e6
            );
        }
    }

    fn end(&mut self) {
        if self.shown.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::net::rig::Rig;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_needs_a_node_and_exactly_one_way_to_know_it() {
        Command::command().debug_assert();
        let pin = "00".repeat(32);
        let parse = |line: &str| Command::try_parse_from(line.split(' '));
        assert!(parse(&format!("c --node 127.0.0.1:1 --node [::1]:2 --pin {pin} put a b")).is_ok());
        assert!(parse(&format!("c --node 127.0.0.1:1 --identity x.crt get {pin} -o d")).is_ok());
        assert!(parse(&format!("c --node 127.0.0.1:1 --pin {pin} append diary a -")).is_ok());
        assert!(parse(&format!("c --node 127.0.0.1:1 --pin {pin} log diary --from 7")).is_ok());
        assert!(parse(&format!("c --pin {pin} put a")).is_err(), "no node");
        assert!(parse("c --node 127.0.0.1:1 put a").is_err(), "no identity");
        assert!(parse(&format!("c --node 127.0.0.1:1 --pin {pin} --identity x put a")).is_err(), "both");
        assert!(parse(&format!("c --node 127.0.0.1:1 --pin {pin} get abc")).is_err(), "no name");
    }

    #[test]
    fn a_certificate_is_known_by_the_same_pin_as_der_and_as_pem() {
        let made = rcgen::generate_simple_self_signed(vec!["x".to_owned()]).unwrap();
        let folder = tempfile_folder();
        let (der, pem) = (folder.join("a.der"), folder.join("a.pem"));
        fs::write(&der, made.cert.der()).unwrap();
        fs::write(
            &pem,
            format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", base64(made.cert.der())),
        )
        .unwrap();
        let pin = |path: PathBuf| read_pin(IdentityArgs { pin: None, identity: Some(path) }).ok();
        assert_eq!(pin(der), Some(net::pin(made.cert.der())));
        assert_eq!(pin(pem), Some(net::pin(made.cert.der())));
        fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn files_are_stored_and_fetched_by_name_and_the_exit_code_says_what_failed() {
        let rig = Rig::new(&["127.0.0.1:0"]);
        let worker = rig.worker(1);
        worker.node.listen(Vec::new()).unwrap();
        let folder = tempfile_folder();
        let file = folder.join("file");
        let content = vec![7; 3_000_000];
        fs::write(&file, &content).unwrap();
        let run = |pin: Digest, rest: String| {
            let line = format!("c --node {} --pin {pin} {rest}", rig.addresses[0]);
            perform(Command::try_parse_from(line.split(' ')).unwrap())
        };
        let pin = rig.identity.pin();
        let (path, out) = (file.display(), folder.join("out"));
        assert_eq!(run(pin, format!("put {path}")).await, DONE);
        assert_eq!(run(pin, format!("put {path} {path}.gone")).await, FAILED);
        let name = rig.client().await.put_file(&file, |_, _| ()).await.unwrap();
        assert_eq!(run(pin, format!("get {name} -o {}", out.display())).await, DONE);
        assert!(fs::read(out.join(name.to_string())).unwrap() == content);
        let unknown = Digest([5; 32]);
        assert_eq!(run(pin, format!("get {unknown} {name} -o {}", out.display())).await, NOT_STORED);
        assert_eq!(fs::read_dir(&out).unwrap().count(), 1, "nothing half-made is left");
        assert_eq!(run(unknown, format!("put {path}")).await, REFUSED);
        let entry = folder.join("entry");
        fs::write(&entry, b"one line\n").unwrap();
        let entry = entry.display();
        assert_eq!(
            run(pin, format!("append diary {entry} {path} {entry} {entry}")).await,
            FAILED,
            "one is too long"
        );
        let page = rig.client().await.read_log(super::super::name_of(b"diary"), 0).await.unwrap();
        assert_eq!(page.length, 3);
        assert_eq!(run(pin, "log diary --from 1".to_owned()).await, DONE);
        worker.node.unlisten();
        assert_eq!(run(pin, format!("--deadline 1 put {path}")).await, NO_NODE);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_log_is_named_by_any_text_and_its_entries_are_printed_one_on_a_line() {
        assert_eq!(log_name("diary"), Ok(super::super::name_of(b"diary")));
        assert_eq!(log_name(&"07".repeat(32)), Ok(Digest([7; 32])));
        assert_eq!(printable("süß\t\\ a\n".as_bytes()), "süß\\t\\\\ a\\n");
        assert_eq!(printable(&[b'a', 0xff, 0, b'b']), "a\\xff\\u{0}b");
    }

    fn base64(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let encode = |part: &[u8]| {
            let bits = part
                .iter()
                .enumerate()
                .fold(0, |bits, (place, byte)| bits | u32::from(*byte) << (16 - 8 * place));
            let digit = |place: usize| DIGITS[(bits >> (18 - 6 * place)) as usize & 63] as char;
            (0..4).map(|place| if place <= part.len() { digit(place) } else { '=' }).collect::<String>()
        };
        bytes.chunks(3).map(encode).collect()
    }

    fn tempfile_folder() -> PathBuf {
        let folder = std::env::temp_dir().join(format!("bumpless-pin-{:016x}", rand::random::<u64>()));
        fs::create_dir(&folder).unwrap();
        folder
    }
}

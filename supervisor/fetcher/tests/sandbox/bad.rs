//! One bad deed, in the sandbox or without it. Exit code 0: it was done. 40: it was refused, with the error's
//! number on standard output.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use bumpless_fetch::arguments::Arguments;
use nix::sys::signal::{Signal, kill};
use nix::unistd::getppid;

/// What the tests look for.
pub const REFUSED: u8 = 40;

/// `<shut-in|free> <url of the fetch> <deed> [<with what>]`
pub fn main(arguments: &[String]) -> ExitCode {
    let [where_it_is, url, deed, with @ ..] = arguments else { panic!("{arguments:?}") };
    if where_it_is == "shut-in" {
        let line = ["--allow-http-loopback", "--max-bytes", "10", "--url", url.as_str()].map(str::to_owned);
        bumpless_fetch::sandbox::enter(&Arguments::parse(line, |_| None).unwrap()).unwrap();
    }
    match attempt(deed, with.first().map_or("", String::as_str)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print!("{}", error.raw_os_error().unwrap_or(0));
            ExitCode::from(REFUSED)
        }
    }
}

fn attempt(deed: &str, with: &str) -> io::Result<()> {
    let aside = || format!("{with}.aside");
    let port = || (Ipv4Addr::LOCALHOST, with.parse().unwrap());
    match deed {
        "read" => fs::read(with).map(drop),
        "list" => fs::read_dir(with).map(drop),
        "read its parent's environment" => fs::read(format!("/proc/{}/environ", getppid())).map(drop),
        "create" => fs::write(aside(), b"mine"),
        "overwrite" => fs::write(with, b"mine"),
        "append" => OpenOptions::new().append(true).open(with).map(drop),
        "truncate" => OpenOptions::new().write(true).truncate(true).open(with).map(drop),
        "make a folder" => fs::create_dir(aside()),
        "remove" => fs::remove_file(with),
        "rename" => fs::rename(with, aside()),
        "link" => fs::hard_link(with, aside()),
        "link by name" => std::os::unix::fs::symlink(with, aside()),
        "change the mode" => fs::set_permissions(with, Permissions::from_mode(0o777)),
        "connect" => TcpStream::connect(port()).map(drop),
        "connect by name" => {
            let mut addresses = format!("localhost:{with}").to_socket_addrs()?;
            addresses.find(|address| address.is_ipv4()).map(TcpStream::connect).unwrap().map(drop)
        }
        "listen" => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map(drop),
        "talk to a local service" => UnixStream::connect(with).map(drop),
        "send datagrams" => UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map(drop),
        "execute" => Err(Command::new("/bin/true").exec()),
        "have a child" => Command::new("/bin/true").status().map(drop),
        // One that does no harm where it arrives.
        "signal its parent" => Ok(kill(getppid(), Signal::SIGURG)?),
        "outlive its parent" => Ok(nix::sys::prctl::set_pdeathsig(None)?),
        "leave its group" => Ok(nix::unistd::setsid().map(drop)?),
        deed => panic!("{deed} at {}", Path::new(with).display()),
    }
}

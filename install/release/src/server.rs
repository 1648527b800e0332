//! A static file server on loopback, with range requests: to try a feed out, and for tests.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::sync::oneshot;
use tower_http::services::ServeDir;

/// Serves a folder until it is dropped; then its port is closed and every connection with it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `folder` on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// No port, or no thread.
    pub fn start(folder: &Path) -> io::Result<Self> {
        Server::start_on(folder, (Ipv4Addr::LOCALHOST, 0).into())
    }

    /// Serves `folder` on this address.
    ///
    /// # Errors
    /// The address is not a loopback address, or taken.
    pub fn start_on(folder: &Path, address: SocketAddr) -> io::Result<Self> {
        if !address.ip().is_loopback() {
            let text = format!("{address} is no loopback address; this server is only for trying out");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let folder = folder.to_owned();
        let thread = std::thread::Builder::new().name("feed server".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, folder) => {}
                    _ = stopped => {}
                }
            });
            // Connections end here; a file that is being read must not delay that.
            runtime.shutdown_background();
        })?;
        Ok(Server { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The feed's address, as a configuration wants it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Serves until the process ends.
    pub fn wait(mut self) {
        if let Some(thread) = self.thread.take() {
            // The thread cannot end before `stop` is dropped, which is with `self`.
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, folder: PathBuf) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    loop {
        // An accept error (such as too many open files) concerns one connection; the next may succeed.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let service =
            TowerToHyperService::new(ServeDir::new(&folder).append_index_html_on_directories(false));
        tokio::spawn(async move {
            // A client that goes away in the middle is its own business.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

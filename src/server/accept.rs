//! The accept loop of one listener.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::connection::{self, Shared};
use super::limits::ServerLimits;
use super::observe::Observer;
use super::tls::TlsSource;
use crate::ops::Metrics;

/// Pause after an accept that failed for want of a file descriptor: trying again at once would
/// only burn a core until some connection ends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Said to a plain connection beyond the cap. It fits any socket buffer, so writing never waits.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\
    Connection: close\r\nContent-Length: 0\r\n\r\n";

/// How a listener ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were open when shutdown began and ended by themselves.
    pub finished: usize,
    /// Connections that had to be cut when the grace was over.
    pub cut: usize,
}

/// Serves a listener until `shutdown`, then lets requests in flight end, for `limits.drain` at
/// most.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    tls: Option<Arc<TlsSource>>,
    limits: &ServerLimits,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> Drained {
    let shared = Arc::new(Shared {
        router,
        tls,
        limits: limits.clone(),
        observer: Observer::new(limits.listener, metrics),
        shutdown: shutdown.clone(),
    });
    let free = Arc::new(Semaphore::new(limits.connections_max));
    // A set of its own instead of the worker registry: these tasks end with the listener.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                rest_after(&error, limits.listener).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&free).try_acquire_owned() else {
            shared.observer.refused(remote);
            turn_away(&stream, shared.tls.is_some());
            continue;
        };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let _open = shared.observer.connected();
            connection::serve(stream, remote, Arc::clone(&shared)).await;
            drop(permit);
        });
    }
    drop(listener);
    drain(connections, limits).await
}

/// Binds an address.
///
/// # Errors
/// The system's error together with the address, which it leaves out.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    })
}

/// Refusing at once is better than a queue in the kernel: a client that waits there cannot tell us
/// from a dead machine and does not try the next replica.
fn turn_away(stream: &TcpStream, encrypted: bool) {
    if !encrypted {
        // Whether it arrives does not matter; the close that follows says the same.
        let _ = stream.try_write(TOO_MANY);
    }
}

async fn rest_after(error: &io::Error, listener: &'static str) {
    let of_the_client = matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    );
    if !of_the_client {
        tracing::warn!(listener, %error, "cannot accept connections");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

async fn drain(mut connections: JoinSet<()>, limits: &ServerLimits) -> Drained {
    let mut drained = Drained::default();
    let all_ended = async {
        while connections.join_next().await.is_some() {
            drained.finished += 1;
        }
    };
    let in_time = tokio::time::timeout(limits.drain, all_ended).await;
    if in_time.is_err() {
        drained.cut = connections.len();
        connections.shutdown().await;
        tracing::warn!(
            listener = limits.listener,
            cut = drained.cut,
            "connections cut at the end of the drain"
        );
    }
    drained
}

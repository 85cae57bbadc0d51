//! A listener that runs in the background and can be told to drain.

use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::accept::{self, Drained};
use super::limits::ServerLimits;
use super::tls::TlsSource;
use crate::ops::Metrics;
use crate::worker::Workers;

/// What a server serves.
pub struct ServerParts {
    /// A bound listener.
    pub listener: TcpListener,
    /// The routes behind it.
    pub router: Router,
    /// TLS for every connection, or plain HTTP.
    pub tls: Option<Arc<TlsSource>>,
    /// Its name, deadlines and caps.
    pub limits: ServerLimits,
    /// Where its traffic is counted.
    pub metrics: Arc<Metrics>,
}

/// Closes one listener.
#[derive(Debug, Clone)]
pub struct Closer(CancellationToken);

impl Closer {
    /// Stops accepting, so that clients are refused by the system; requests in flight end within the
    /// listener's grace.
    pub fn close(&self) {
        self.0.cancel();
    }
}

/// One running listener.
#[derive(Debug)]
pub struct Server {
    stop: CancellationToken,
    done: oneshot::Receiver<Drained>,
}

impl Server {
    /// Starts serving as a worker of `servers`. It stops through [`Server::drain`] only, because
    /// listeners end in an order.
    pub fn start(servers: &Workers, parts: ServerParts) -> Self {
        let stop = CancellationToken::new();
        let (tell, done) = oneshot::channel();
        if let Some(tls) = &parts.tls {
            let (tls, metrics) = (Arc::clone(tls), Arc::clone(&parts.metrics));
            // Until the listener is closed, not until its last connection ends.
            let closed = stop.clone();
            servers.spawn("tls-files", |_| tls.follow(metrics, closed));
        }
        let shutdown = stop.clone();
        servers.spawn(parts.limits.listener, |_| async move {
            let ServerParts { listener, router, tls, limits, metrics } = parts;
            let drained = accept::serve(listener, router, tls, &limits, metrics, shutdown).await;
            // Nobody has to be interested.
            let _ = tell.send(drained);
        });
        Self { stop, done }
    }

    /// What closes this listener before the others; [`Server::drain`] still has to be called.
    #[must_use]
    pub fn closer(&self) -> Closer {
        Closer(self.stop.clone())
    }

    /// Stops accepting, lets requests in flight end within the listener's grace, cuts the rest.
    pub async fn drain(self) -> Drained {
        self.stop.cancel();
        self.done.await.unwrap_or_default()
    }
}

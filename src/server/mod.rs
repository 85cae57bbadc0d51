//! The HTTP server under every listener: its own accept loop, because each wait needs a deadline.

pub mod accept;
mod activity;
mod body;
mod client;
mod connection;
mod exposure;
mod gate;
mod handle;
mod handshake;
mod limits;
mod observe;
pub mod tls;

pub use accept::Drained;
pub use body::BodyTooSlow;
pub use client::{ClientCertificate, RemoteAddress, Scheme};
pub use exposure::Exposure;
pub use gate::Gate;
pub use handle::{Closer, Server, ServerParts};
pub(crate) use limits::HAND_OVER_MAX;
pub use limits::ServerLimits;
pub use tls::{TlsFault, TlsFileError, TlsSource, TlsSpec};
pub(crate) use tls::{dial_config, dial_nobody};

//! Who is at the other end of a connection, in every request's extensions.

use std::net::SocketAddr;

/// The address of the client, in every request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct RemoteAddress(pub SocketAddr);

/// What the listener that took the request speaks, in every request's extensions. A proxy in front
/// may speak something else with the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    /// As it is written in a URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The common name of a client certificate that `client_ca` of the listener vouches for. It is in
/// a request's extensions if, and only if, there was such a certificate and it has exactly one
/// common name. The peer listener never sets it: its certificates name replicas, not clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate(pub String);

//! Mutual TLS between replicas, and when plain HTTP will do.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use rustls::{ClientConfig, ServerConfig};
use thiserror::Error;

use crate::server::{TlsFileError, TlsSource, TlsSpec, dial_config, dial_nobody};

/// How an operator comes by certificates; part of every error that asks for them.
const HOW_TO: &str = "run `tercet certs new` to write a CA and a certificate per replica, and set \
                      peer.tls.ca, peer.tls.certificate and peer.tls.key";

/// Where the PEM files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authority that signs every replica's certificate.
    pub ca: PathBuf,
    /// This replica's certificate, followed by intermediates if there are any.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// The TLS material of one replica is not usable, or is missing where it is needed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] TlsFileError),
    /// Plain HTTP would leave this machine.
    #[error("peers may speak plain HTTP on loopback only, and {address} is not: {HOW_TO}")]
    PlainRefused {
        /// The address that is not loopback.
        address: String,
    },
    /// TLS is configured and an address says `http://`.
    #[error(
        "peer TLS is configured, but the address {address} begins with http://: write https://"
    )]
    PlainAddress {
        /// The address.
        address: String,
    },
    /// The HTTP client cannot be built.
    #[error("peer client: {0}")]
    Client(String),
}

/// One replica's TLS material, both ways. Connections use the files as they are when they begin.
#[derive(Debug, Clone)]
pub struct PeerTls {
    source: Arc<TlsSource>,
    client: ClientConfig,
}

impl PeerTls {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// When a file cannot be read, or certificate, key and CA do not fit together.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let spec = TlsSpec::replicas(&files.ca, &files.certificate, &files.key);
        let source = TlsSource::load(spec)?;
        let client = dial_config(&source).map_err(|error| TlsError::Client(error.to_string()))?;
        Ok(Self { source, client })
    }

    /// For the accept loop of the peer listener: clients without a certificate of the CA are
    /// refused.
    #[must_use]
    pub fn source(&self) -> Arc<TlsSource> {
        Arc::clone(&self.source)
    }

    /// What a connection to the peer listener begins with at this moment.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.source.server_config()
    }

    pub(super) fn client_config(&self) -> ClientConfig {
        self.client.clone()
    }
}

/// A client configuration that trusts nobody, for plain HTTP.
pub(super) fn no_tls() -> Result<ClientConfig, TlsError> {
    dial_nobody().map_err(|error| TlsError::Client(error.to_string()))
}

/// Refuses plain HTTP that would leave this machine: a listener on another interface, or a peer
/// that is elsewhere. Called with the configuration, before anything is bound.
///
/// # Errors
/// Names the first address that needs TLS, and how to get certificates.
pub fn check_plain(listen: SocketAddr, addresses: &[&str]) -> Result<(), TlsError> {
    if !listen.ip().is_loopback() {
        return Err(TlsError::PlainRefused { address: listen.to_string() });
    }
    match addresses.iter().find(|address| !is_loopback(address)) {
        Some(address) => Err(TlsError::PlainRefused { address: (*address).to_owned() }),
        None => Ok(()),
    }
}

/// Whether the host of a base URL can only be this machine.
pub(super) fn is_loopback(address: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(address) else { return false };
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn plain_is_for_loopback() {
        let loopback = "127.0.0.1:5001".parse().unwrap();
        let everywhere = "0.0.0.0:5001".parse().unwrap();
        assert!(check_plain(loopback, &["http://127.0.0.1:5011", "http://localhost:1"]).is_ok());
        assert!(check_plain("[::1]:5001".parse().unwrap(), &["http://[::1]:5011/"]).is_ok());
        for (listen, addresses) in [
            (everywhere, &["http://127.0.0.1:5011"][..]),
            (loopback, &["http://10.0.0.7:5001"]),
            (loopback, &["http://tercet-1.tercet:5001"]),
            (loopback, &["http://127.0.0.1.example.org:5001"]),
            (loopback, &["not a url"]),
        ] {
            let error = check_plain(listen, addresses).unwrap_err().to_string();
            assert!(error.contains("tercet certs new"), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_missing_is_named() {
        let files = TlsFiles {
            ca: "/nonexistent/ca.pem".into(),
            certificate: "/nonexistent/replica.pem".into(),
            key: "/nonexistent/replica.key".into(),
        };
        let error = PeerTls::load(&files).unwrap_err().to_string();
        assert_eq!(
            error,
            "peer.tls.certificate: /nonexistent/replica.pem: there is no such file; write it, or \
             correct the path"
        );
    }
}

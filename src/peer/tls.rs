//! Mutual TLS between replicas, and when plain HTTP will do.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

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
    /// A file cannot be read as PEM of the right kind.
    #[error("peer TLS: cannot read {what} from {path}: {reason}")]
    File {
        /// CA, certificate or key.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The files can be read but do not fit together.
    #[error("peer TLS: {certificate} and its key or CA are not usable: {reason}")]
    Unusable {
        /// The certificate file.
        certificate: PathBuf,
        /// Why.
        reason: String,
    },
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

/// One replica's TLS material, both ways.
#[derive(Debug, Clone)]
pub struct PeerTls {
    server: Arc<ServerConfig>,
    client: ClientConfig,
}

impl PeerTls {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// When a file cannot be read, or certificate, key and CA do not fit together.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let unusable =
            |reason: String| TlsError::Unusable { certificate: files.certificate.clone(), reason };
        let provider = provider();
        let mut roots = RootCertStore::empty();
        for certificate in certificates("the CA", &files.ca)? {
            roots.add(certificate).map_err(|error| TlsError::File {
                what: "the CA",
                path: files.ca.clone(),
                reason: error.to_string(),
            })?;
        }
        let roots = Arc::new(roots);
        let chain = certificates("the certificate", &files.certificate)?;
        let key = || {
            PrivateKeyDer::from_pem_file(&files.key).map_err(|error| TlsError::File {
                what: "the key",
                path: files.key.clone(),
                reason: error.to_string(),
            })
        };

        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .map_err(|error| unusable(error.to_string()))?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| unusable(error.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key()?)
            .map_err(|error| unusable(error.to_string()))?;
        // One connection carries one stream, so that nothing queues behind a blob.
        server.alpn_protocols = vec![b"http/1.1".to_vec()];

        let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| unusable(error.to_string()))?
            .with_webpki_verifier(verifier)
            .with_client_auth_cert(chain, key()?)
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Self { server: Arc::new(server), client })
    }

    /// For the accept loop of the peer listener: clients without a certificate of the CA are
    /// refused.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    pub(super) fn client_config(&self) -> ClientConfig {
        self.client.clone()
    }
}

/// A client configuration that trusts nobody, for plain HTTP: the system's certificates are then
/// neither read nor needed.
pub(super) fn no_tls() -> Result<ClientConfig, TlsError> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Client(error.to_string()))?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
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

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fault = |reason: String| TlsError::File { what, path: path.to_owned(), reason };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| fault(error.to_string()))?;
    if certificates.is_empty() {
        return Err(fault("it holds no certificate".to_owned()));
    }
    Ok(certificates)
}

/// Named, never the process default: two providers in one process make the default ambiguous.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
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
        assert!(error.contains("/nonexistent/ca.pem"), "{error}");
    }
}

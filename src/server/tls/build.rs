//! From the content of the files to what rustls serves with.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{InconsistentKeys, RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::certificate::Validity;
use super::error::{TlsFault, TlsFileError};
use super::files::{Content, Contents};
use super::spec::{Clients, Role, TlsSpec};

/// For clients of any age that is still safe.
const CLIENT_VERSIONS: &[&SupportedProtocolVersion] =
    &[&rustls::version::TLS13, &rustls::version::TLS12];
/// Replicas are all new.
const REPLICA_VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// What the files of one listener were made into.
pub(super) struct Loaded {
    pub(super) config: Arc<ServerConfig>,
    pub(super) certified: Arc<CertifiedKey>,
    /// Judges the servers that this replica dials, where its peers are those.
    pub(super) dialled: Option<Arc<WebPkiServerVerifier>>,
    pub(super) validity: Validity,
}

/// Checks the files one by one and against each other.
pub(super) fn build(
    spec: &TlsSpec,
    contents: &Contents,
    now: SystemTime,
) -> Result<Loaded, TlsFileError> {
    let provider = provider();
    let of_certificate = |fault| spec.error(Role::Certificate, fault);
    let of_authorities = |fault| spec.error(Role::Authorities, fault);
    let unusable = |error: rustls::Error| of_certificate(TlsFault::Unusable(error.to_string()));

    let chain = certificates(&contents.certificate).map_err(of_certificate)?;
    // Only the first is judged by its dates: chains may carry cross-signed authorities that expired
    // and that no client needs.
    let first = chain.first().ok_or_else(|| of_certificate(TlsFault::NoCertificate))?;
    let validity = Validity::of(first).map_err(of_certificate)?;
    validity.check(now).map_err(of_certificate)?;
    let key = private_key(&contents.key).map_err(|fault| spec.error(Role::Key, fault))?;
    let certified = Arc::new(pair(spec, chain, key, &provider)?);

    let roots = match &contents.authorities {
        Some(content) => Some(Arc::new(authorities(content).map_err(of_authorities)?)),
        None => None,
    };
    let (verifier, dialled) = match (&spec.clients, roots) {
        (Clients::NotAsked, _) | (_, None) => (WebPkiClientVerifier::no_client_auth(), None),
        (clients, Some(roots)) => {
            let builder = WebPkiClientVerifier::builder_with_provider(
                Arc::clone(&roots),
                Arc::clone(&provider),
            );
            let builder = match clients {
                Clients::Optional(_) => builder.allow_unauthenticated(),
                Clients::NotAsked | Clients::Required(_) | Clients::Replicas(_) => builder,
            };
            let refused = |error: rustls::server::VerifierBuilderError| {
                of_authorities(TlsFault::UnusableAuthority(error.to_string()))
            };
            let verifier = builder.build().map_err(refused)?;
            let dialled = match clients {
                Clients::Replicas(_) => Some(
                    WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                        .build()
                        .map_err(refused)?,
                ),
                _ => None,
            };
            (verifier, dialled)
        }
    };
    let config = server_config(spec, provider, verifier, &certified).map_err(unusable)?;
    Ok(Loaded { config: Arc::new(config), certified, dialled, validity })
}

fn server_config(
    spec: &TlsSpec,
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
    certified: &Arc<CertifiedKey>,
) -> Result<ServerConfig, rustls::Error> {
    let replicas = matches!(spec.clients, Clients::Replicas(_));
    let versions = if replicas { REPLICA_VERSIONS } else { CLIENT_VERSIONS };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(certified))));
    config.alpn_protocols = if replicas {
        // One connection carries one stream, so that nothing queues behind a blob.
        vec![b"http/1.1".to_vec()]
    } else {
        vec![b"h2".to_vec(), b"http/1.1".to_vec()]
    };
    match spec.clients {
        // Tickets need no memory for each client, and their keys change every six hours.
        Clients::NotAsked => config.ticketer = Ticketer::new()?,
        // A resumed session shows no certificate, so a ticket would go on vouching for one that has
        // expired since. These clients shake hands in full each time.
        Clients::Optional(_) | Clients::Required(_) | Clients::Replicas(_) => {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
    }
    Ok(config)
}

fn pair(
    spec: &TlsSpec,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsFileError> {
    let loaded = provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| spec.error(Role::Key, TlsFault::UnusableKey(error.to_string())))?;
    let certified = CertifiedKey::new(chain, loaded);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => {
            let certificate = spec.certificate.clone();
            Err(spec.error(Role::Key, TlsFault::KeyMismatch { certificate }))
        }
        Err(error) => {
            Err(spec.error(Role::Certificate, TlsFault::UnusableCertificate(error.to_string())))
        }
    }
}

fn certificates(content: &Content) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let bytes = content.as_ref().map_err(Clone::clone)?;
    let found = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| TlsFault::NotPem(error.to_string()))?;
    if found.is_empty() { Err(TlsFault::NoCertificate) } else { Ok(found) }
}

fn private_key(content: &Content) -> Result<PrivateKeyDer<'static>, TlsFault> {
    let bytes = content.as_ref().map_err(Clone::clone)?;
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsFault::NoKey,
        error => TlsFault::NotPem(error.to_string()),
    })
}

fn authorities(content: &Content) -> Result<RootCertStore, TlsFault> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(content)? {
        roots.add(certificate).map_err(|error| TlsFault::UnusableAuthority(error.to_string()))?;
    }
    Ok(roots)
}

/// Named, never the process default: two providers in one process make the default ambiguous.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

#[cfg(test)]
#[path = "build_tests.rs"]
mod tests;

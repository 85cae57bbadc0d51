//! The other side of the peer listener's files: what a replica dials its peers with.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::build::provider;
use super::source::TlsSource;

/// A client configuration that always uses the files as they are now, so that the HTTP client on
/// top of it never has to be replaced.
///
/// # Errors
/// When the provider lacks TLS 1.3, which it does not.
pub(crate) fn dial_config(source: &Arc<TlsSource>) -> Result<ClientConfig, Error> {
    let current = Arc::new(Current(Arc::clone(source)));
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::<Current>::clone(&current))
        .with_client_cert_resolver(current);
    // A resumed session would not ask the present authorities.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// A client configuration that trusts nobody, for plain HTTP: the system's certificates are then
/// neither read nor needed.
///
/// # Errors
/// When the provider supports no version of TLS, which it does.
pub(crate) fn dial_nobody() -> Result<ClientConfig, Error> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}

/// Hands every question to what the source holds at that moment. It decides nothing itself.
#[derive(Debug)]
struct Current(Arc<TlsSource>);

impl Current {
    fn verifier(&self) -> Result<Arc<WebPkiServerVerifier>, Error> {
        let none = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        self.0.dialled().ok_or(none)
    }
}

impl ServerCertVerifier for Current {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verifier()?.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier()?.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier()?.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ResolvesClientCert for Current {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.0.certified())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

//! The TLS of one listener as it is now.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::client::WebPkiServerVerifier;
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection};

use super::build::{Loaded, build};
use super::certificate::{Validity, common_name};
use super::error::TlsFileError;
use super::files::Contents;
use super::spec::{Clients, TlsSpec};
use crate::server::client::ClientCertificate;

/// What a listener's connections begin with. Connections that are open keep what they began with.
pub struct TlsSource {
    pub(super) spec: TlsSpec,
    current: ArcSwap<Current>,
}

struct Current {
    contents: Contents,
    loaded: Loaded,
}

impl TlsSource {
    /// Reads and checks the files. Blocks.
    ///
    /// # Errors
    /// The first file that cannot be used, and why.
    pub fn load(spec: TlsSpec) -> Result<Arc<Self>, TlsFileError> {
        let contents = Contents::read(&spec);
        let loaded = build(&spec, &contents, SystemTime::now())?;
        let current = ArcSwap::from_pointee(Current { contents, loaded });
        Ok(Arc::new(Self { spec, current }))
    }

    /// The configuration for a connection that begins now.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().loaded.config)
    }

    /// Who the other end proved to be.
    pub(in crate::server) fn client_of(
        &self,
        connection: &ServerConnection,
    ) -> Option<ClientCertificate> {
        match self.spec.clients {
            Clients::NotAsked | Clients::Replicas(_) => None,
            Clients::Optional(_) | Clients::Required(_) => {
                let certificate = connection.peer_certificates()?.first()?;
                common_name(certificate).map(ClientCertificate)
            }
        }
    }

    /// Whether these are the contents in use.
    pub(super) fn uses(&self, contents: &Contents) -> bool {
        self.current.load().contents == *contents
    }

    /// Uses new contents from the next connection on, if they are good.
    pub(super) fn take(&self, contents: Contents, now: SystemTime) -> Result<(), TlsFileError> {
        let loaded = build(&self.spec, &contents, now)?;
        self.current.store(Arc::new(Current { contents, loaded }));
        Ok(())
    }

    pub(super) fn validity(&self) -> Validity {
        self.current.load().loaded.validity
    }

    pub(super) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.current.load().loaded.certified)
    }

    pub(super) fn dialled(&self) -> Option<Arc<WebPkiServerVerifier>> {
        self.current.load().loaded.dialled.clone()
    }
}

/// Without the contents: one of them is a private key.
impl fmt::Debug for TlsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSource").field("spec", &self.spec).finish_non_exhaustive()
    }
}

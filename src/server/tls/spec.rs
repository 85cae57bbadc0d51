//! Which files a listener's TLS is made of, and what they are for.

use std::path::{Path, PathBuf};

use super::error::{TlsFault, TlsFileError};
use crate::config::{ClientAuth, ListenerTls};

/// The files of one listener.
#[derive(Debug, Clone)]
pub struct TlsSpec {
    pub(super) listener: &'static str,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) clients: Clients,
}

/// Who is asked for a certificate, and the file of the authorities that may have signed it.
#[derive(Debug, Clone)]
pub(super) enum Clients {
    NotAsked,
    Optional(PathBuf),
    Required(PathBuf),
    /// Replicas of one cluster: all of them new enough for TLS 1.3, and each other's clients.
    Replicas(PathBuf),
}

/// The role of a file, for the name of its key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    Certificate,
    Key,
    Authorities,
}

impl TlsSpec {
    /// Of `[registry.tls]`, `[ops.tls]` or `[webhook.tls]`; `listener` is the name before the dot.
    #[must_use]
    pub fn listener(listener: &'static str, tls: &ListenerTls) -> Self {
        let clients = match (tls.client_ca.clone(), tls.client_auth) {
            (None, ClientAuth::Optional) => Clients::NotAsked,
            (Some(authorities), ClientAuth::Optional) => Clients::Optional(authorities),
            // Without a file nobody could be let in, and loading says so.
            (authorities, ClientAuth::Required) => {
                Clients::Required(authorities.unwrap_or_default())
            }
        };
        Self { listener, certificate: tls.certificate.clone(), key: tls.key.clone(), clients }
    }

    /// Of `[peer.tls]`.
    #[must_use]
    pub fn replicas(authorities: &Path, certificate: &Path, key: &Path) -> Self {
        Self {
            listener: "peer",
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            clients: Clients::Replicas(authorities.to_owned()),
        }
    }

    pub(super) fn authorities(&self) -> Option<&Path> {
        match &self.clients {
            Clients::NotAsked => None,
            Clients::Optional(path) | Clients::Required(path) | Clients::Replicas(path) => {
                Some(path)
            }
        }
    }

    pub(super) fn error(&self, role: Role, fault: TlsFault) -> TlsFileError {
        let (name, path) = match (role, &self.clients) {
            (Role::Certificate, _) => ("certificate", self.certificate.as_path()),
            (Role::Key, _) => ("key", self.key.as_path()),
            (Role::Authorities, Clients::Replicas(path)) => ("ca", path.as_path()),
            (Role::Authorities, _) => ("client_ca", self.authorities().unwrap_or(Path::new(""))),
        };
        let setting = format!("{}.tls.{name}", self.listener);
        TlsFileError { setting, path: path.to_owned(), fault }
    }
}

//! Asks an ops listener.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use reqwest::{Certificate, ClientBuilder, Identity};
use rustls::{ClientConfig, RootCertStore};

/// Largest answer that is read. A status has a few hundred bytes for each replica.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A client of ops listeners.
#[derive(Debug, Clone)]
pub(super) struct OpsClient {
    client: reqwest::Client,
}

/// What an ops listener with TLS needs.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct OpsTls {
    /// PEM file of the authority that signed the ops listener's certificate [default: those of the
    /// system]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// PEM file of a client certificate, where the listener asks for one
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// PEM file of its private key
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
}

impl OpsTls {
    fn apply(&self, mut builder: ClientBuilder) -> anyhow::Result<ClientBuilder> {
        if let Some(path) = &self.ca {
            let authorities = Certificate::from_pem_bundle(&read(path)?)
                .with_context(|| format!("{} holds no certificate", path.display()))?;
            builder = builder.tls_certs_only(authorities);
        }
        if let (Some(certificate), Some(key)) = (&self.certificate, &self.key) {
            let both = [read(certificate)?, read(key)?].concat();
            let identity = Identity::from_pem(&both).with_context(|| {
                format!("{} and {} are no pair", certificate.display(), key.display())
            })?;
            builder = builder.identity(identity);
        }
        Ok(builder)
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) ok: bool,
    pub(super) text: String,
}

impl OpsClient {
    /// A client for plain HTTP. `deadline` is for each whole question.
    pub(super) fn new(deadline: Duration) -> anyhow::Result<Self> {
        // Without trust anchors: the system's may be missing on a small machine, and are not needed.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let builder = reqwest::Client::builder().tls_backend_preconfigured(tls);
        Self::build(builder, deadline)
    }

    /// A client for the listener at `ops`, with TLS if the address says so.
    pub(super) fn reaching(ops: &str, tls: &OpsTls, deadline: Duration) -> anyhow::Result<Self> {
        if ops.starts_with("https://") {
            return Self::build(tls.apply(reqwest::Client::builder())?, deadline);
        }
        anyhow::ensure!(
            tls.ca.is_none() && tls.certificate.is_none(),
            "--ca and --certificate are for TLS, and {ops} does not begin with https://"
        );
        Self::new(deadline)
    }

    fn build(builder: ClientBuilder, deadline: Duration) -> anyhow::Result<Self> {
        Ok(Self { client: builder.no_proxy().timeout(deadline).build()? })
    }

    /// `GET` of a path, with or without a scheme before the address.
    pub(super) async fn get(&self, ops: &str, path: &str) -> anyhow::Result<Answer> {
        let base = ops.trim_end_matches('/');
        let url = match base.contains("://") {
            true => format!("{base}{path}"),
            false => format!("http://{base}{path}"),
        };
        let mut response =
            self.client.get(&url).send().await.with_context(|| format!("cannot ask {url}"))?;
        let ok = response.status().is_success();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            bytes.extend_from_slice(&chunk);
            anyhow::ensure!(bytes.len() <= ANSWER_BYTES_MAX, "the answer of {url} does not end");
        }
        Ok(Answer { ok, text: String::from_utf8_lossy(&bytes).into_owned() })
    }
}

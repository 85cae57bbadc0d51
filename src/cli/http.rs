//! Asks an ops listener.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustls::{ClientConfig, RootCertStore};

/// Largest answer that is read. A status has a few hundred bytes for each replica.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A client for plain HTTP, which is all that ops listeners speak.
#[derive(Debug, Clone)]
pub(super) struct OpsClient {
    client: reqwest::Client,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) ok: bool,
    pub(super) text: String,
}

impl OpsClient {
    /// `deadline` is for each whole question.
    pub(super) fn new(deadline: Duration) -> anyhow::Result<Self> {
        // Without trust anchors: the system's may be missing on a small machine, and are not needed.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .timeout(deadline)
            .build()?;
        Ok(Self { client })
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

//! Carries Raft's messages over HTTP.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use reqwest::RequestBuilder;
use tercet_raft::{Hello, Invitation, RpcKind, Target, Transport, TransportError};

use super::call::{read_bounded, read_message};
use super::client::Client;
use super::error::causes;
use super::wire::{JSON_BYTES_MAX, RPC_BYTES_MAX};

/// [`Transport`] over the peer listeners.
///
/// RPCs use connections of their own, one message at a time on each, so a heartbeat waits neither
/// behind a blob nor behind a large append.
#[derive(Debug, Clone)]
pub struct PeerTransport {
    client: Client,
}

impl PeerTransport {
    /// Sends with the TLS material and the identity of `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

impl Transport for PeerTransport {
    fn call(
        &self,
        target: &Target,
        rpc: RpcKind,
        body: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Bytes, TransportError>> {
        let url = self.client.url(&target.address, &format!("/raft/{}", rpc.path()));
        let node_id = target.node_id;
        Box::pin(async move {
            let url = url.map_err(TransportError::NotSent)?;
            let request = self.client.addressed(self.client.raft_http().post(url), node_id);
            answer(request.body(body), deadline, RPC_BYTES_MAX).await
        })
    }

    fn send_snapshot(
        &self,
        target: &Target,
        body: BoxStream<'static, io::Result<Bytes>>,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Bytes, TransportError>> {
        let url = self.client.url(&target.address, "/raft/snapshot");
        let node_id = target.node_id;
        Box::pin(async move {
            let url = url.map_err(TransportError::NotSent)?;
            let request = self.client.addressed(self.client.bulk_http().post(url), node_id);
            let request = request.body(reqwest::Body::wrap_stream(body));
            answer(request, deadline, RPC_BYTES_MAX).await
        })
    }

    fn hello(
        &self,
        address: &str,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Hello, TransportError>> {
        let url = self.client.url(address, "/peer/hello");
        Box::pin(async move {
            let url = url.map_err(TransportError::NotSent)?;
            let body = answer(self.client.raft_http().get(url), deadline, JSON_BYTES_MAX).await?;
            serde_json::from_slice(&body).map_err(|error| TransportError::Broken(error.to_string()))
        })
    }

    fn invite(
        &self,
        address: &str,
        invitation: &Invitation,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<(), TransportError>> {
        let url = self.client.url(address, "/peer/invite");
        let invitation = invitation.clone();
        Box::pin(async move {
            let url = url.map_err(TransportError::NotSent)?;
            let request = self.client.raft_http().post(url).json(&invitation);
            answer(request, deadline, JSON_BYTES_MAX).await.map(drop)
        })
    }
}

async fn answer(
    request: RequestBuilder,
    deadline: Duration,
    limit: usize,
) -> Result<Bytes, TransportError> {
    let exchange = async {
        let response = request.send().await.map_err(|error| {
            if error.is_connect() || error.is_builder() {
                TransportError::NotSent(causes(&error))
            } else {
                TransportError::Broken(causes(&error))
            }
        })?;
        let status = response.status();
        if !status.is_success() {
            let message = read_message(response, deadline).await;
            return Err(TransportError::Rejected { status: status.as_u16(), message });
        }
        read_bounded(response, limit).await.map_err(TransportError::Broken)
    };
    match tokio::time::timeout(deadline, exchange).await {
        Ok(result) => result,
        Err(_) => Err(TransportError::TimedOut(deadline)),
    }
}

//! Asks a replica's peer listener, as the commands that administer a cluster do.
//!
//! The certificate is the replica's own, so these commands run where a replica's configuration and key
//! are: beside it, or in its pod.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{Method, Request, Response, StatusCode, header};
use clap::Args;
use futures_util::StreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tercet_raft::{Hello, Transport};

use super::{ConfigArgs, print};
use crate::admin::AdminErrorBody;
use crate::config::{Config, PeerTls};
use crate::exit::{Exit, Failure, OrExit};
use crate::ops::Metrics;
use crate::peer::{self, Peer, PeerTransport, TlsFiles};

/// For the first answer of the replica.
const HELLO_DEADLINE: Duration = Duration::from_secs(5);
/// Largest answer that is read into memory.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Whom a command asks.
#[derive(Debug, Args)]
pub(super) struct Asked {
    #[command(flatten)]
    config: ConfigArgs,
    /// Peer listener of any replica [default: that of the replica this configuration is for]
    #[arg(long, value_name = "URL")]
    peer: Option<String>,
}

impl Asked {
    pub(super) async fn connect(&self) -> Result<AdminClient, Failure> {
        AdminClient::connect(&self.config.load()?, self.peer.as_deref()).await
    }
}

/// Whom a command asks, and how it tells the answer.
#[derive(Debug, Args)]
pub(super) struct Question {
    #[command(flatten)]
    asked: Asked,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Question {
    pub(super) async fn connect(&self) -> Result<AdminClient, Failure> {
        self.asked.connect().await
    }

    pub(super) fn print<T: Serialize>(
        &self,
        answer: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        if self.json {
            print::line(&serde_json::to_string(answer).or_exit(Exit::Software)?);
        } else {
            print::line(&text(answer));
        }
        Ok(())
    }
}

/// Speaks to the routes below `/admin` of one replica.
#[derive(Debug, Clone)]
pub(super) struct AdminClient {
    client: peer::Client,
    peer: Peer,
    hello: Hello,
}

impl AdminClient {
    /// Finds out whom it talks to. `peer` is the base URL of a peer listener; without it the replica of
    /// this configuration is asked.
    async fn connect(config: &Config, peer: Option<&str>) -> Result<Self, Failure> {
        let address = peer.map_or_else(|| config.peer_address(), ToOwned::to_owned);
        let tls = config.peer.tls.as_ref().map(material).transpose().or_exit(Exit::Config)?;
        let client = peer::Client::new(peer::ClientOptions {
            tls,
            stall: config.limits.holder_stall(),
            metrics: Arc::new(Metrics::new().or_exit(Exit::Software)?),
        })
        .or_exit(Exit::Config)?;
        let transport = PeerTransport::new(client.clone());
        let hello = transport.hello(&address, HELLO_DEADLINE).await.map_err(|error| {
            let message = format!(
                "cannot ask the peer listener {address}: {error}. Is the replica running, and is this its configuration? --peer URL names another one"
            );
            Failure::new(Exit::Unavailable, message)
        })?;
        let Some(cluster_id) = &hello.cluster_id else {
            let message = format!("{} has not found its cluster yet", hello.name);
            return Err(Failure::new(Exit::Unavailable, message));
        };
        // 0: the command line is no replica.
        client.set_identity(cluster_id, 0);
        let peer = Peer::at(&hello.name, hello.node_id.unwrap_or_default(), address);
        Ok(Self { client, peer, hello })
    }

    /// The replica that is asked.
    pub(super) fn hello(&self) -> &Hello {
        &self.hello
    }

    /// The way to any peer listener of the cluster, and the replica that is asked.
    pub(super) fn peers(&self) -> (&peer::Client, &Peer) {
        (&self.client, &self.peer)
    }

    /// `GET` of a path below `/admin`, such as `/admin/members`.
    pub(super) async fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let response = self.ask(Method::GET, path, Body::empty()).await?;
        self.json(path, response).await
    }

    /// `POST` of a JSON body.
    pub(super) async fn post_json<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).or_exit(Exit::Software)?;
        let response = self.ask(Method::POST, path, Body::from(body)).await?;
        self.json(path, response).await
    }

    /// `POST` of a JSON body where a refusal is something to go on from.
    pub(super) async fn change<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<Result<T, Refusal>, Failure> {
        let body = serde_json::to_vec(body).or_exit(Exit::Software)?;
        match self.try_ask(Method::POST, path, Body::from(body)).await? {
            Ok(response) => Ok(Ok(self.json(path, response).await?)),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    /// `GET` of a body that may be long. The replica has 20 seconds for each next piece of it.
    pub(super) async fn stream(&self, path: &str) -> Result<AdminStream, Failure> {
        let response = self.ask(Method::GET, path, Body::empty()).await?;
        let body = response.into_body();
        Ok(AdminStream {
            what: format!("{path} of {}", self.peer.name),
            body: body.into_data_stream(),
        })
    }

    async fn ask(&self, method: Method, path: &str, body: Body) -> Result<Response<Body>, Failure> {
        self.try_ask(method, path, body).await?.map_err(Refusal::into_failure)
    }

    async fn try_ask(
        &self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<Result<Response<Body>, Refusal>, Failure> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .or_exit(Exit::Software)?;
        let response = self
            .client
            .administer(&self.peer, request)
            .await
            .map_err(|error| Failure::new(Exit::Unavailable, error))?;
        if response.status().is_success() {
            return Ok(Ok(response));
        }
        let status = response.status();
        let said = read(response).await?;
        Ok(Err(Refusal::of(status, &said)))
    }

    async fn json<T: DeserializeOwned>(
        &self,
        path: &str,
        response: Response<Body>,
    ) -> Result<T, Failure> {
        let bytes = read(response).await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            let name = &self.peer.name;
            let message = format!("the answer of {name} to {path} cannot be read: {error}");
            Failure::new(Exit::Data, message)
        })
    }
}

/// What a replica does not do, and why.
#[derive(Debug)]
pub(super) struct Refusal {
    exit: Exit,
    /// As the replica says it; made up if the answer has another form.
    pub(super) body: AdminErrorBody,
}

/// A body on its way.
pub(super) struct AdminStream {
    what: String,
    body: BodyDataStream,
}

impl AdminStream {
    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<bytes::Bytes>, Failure> {
        match self.body.next().await {
            None => Ok(None),
            Some(Ok(bytes)) => Ok(Some(bytes)),
            Some(Err(error)) => {
                Err(Failure::new(Exit::Unavailable, format!("{}: {error}", self.what)))
            }
        }
    }
}

fn material(files: &PeerTls) -> Result<peer::PeerTls, peer::TlsError> {
    peer::PeerTls::load(&TlsFiles {
        ca: files.ca.clone(),
        certificate: files.certificate.clone(),
        key: files.key.clone(),
    })
}

async fn read(response: Response<Body>) -> Result<bytes::Bytes, Failure> {
    axum::body::to_bytes(response.into_body(), ANSWER_BYTES_MAX).await.or_exit(Exit::Unavailable)
}

impl Refusal {
    fn of(status: StatusCode, said: &[u8]) -> Self {
        let exit = match status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => Exit::Unavailable,
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => Exit::Usage,
            StatusCode::FORBIDDEN | StatusCode::CONFLICT => Exit::Refused,
            StatusCode::INSUFFICIENT_STORAGE => Exit::Io,
            _ => Exit::Software,
        };
        let body = serde_json::from_slice(said).unwrap_or_else(|_| {
            let text = String::from_utf8_lossy(said);
            let message = format!("refused with status {status}: {}", text.trim());
            AdminErrorBody { code: String::new(), message, hint: String::new() }
        });
        Self { exit, body }
    }

    /// The replica's words, and the exit code of their kind.
    pub(super) fn into_failure(self) -> Failure {
        let AdminErrorBody { code, message, hint } = self.body;
        let code = if code.starts_with("TERCET-") { format!("{code}: ") } else { String::new() };
        let hint = if hint.is_empty() { hint } else { format!("\n  {hint}") };
        Failure::new(self.exit, format!("{code}{message}{hint}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_refusal_keeps_its_words_and_has_a_code() {
        let said = br#"{"code":"TERCET-M03","message":"would lose quorum","hint":"add one first"}"#;
        let failure = Refusal::of(StatusCode::FORBIDDEN, said).into_failure();
        assert_eq!(failure.exit, Exit::Refused);
        assert_eq!(failure.to_string(), "TERCET-M03: would lose quorum\n  add one first");
        let starting = b"this replica is starting\n";
        let failure = Refusal::of(StatusCode::SERVICE_UNAVAILABLE, starting).into_failure();
        assert_eq!(failure.exit, Exit::Unavailable);
        assert!(failure.to_string().ends_with("this replica is starting"));
    }
}

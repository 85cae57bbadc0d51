//! Requests byte by byte, for what no well-behaved client can send.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

const DEADLINE: Duration = Duration::from_secs(20);
/// No answer to a hostile request is longer.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// What came back: the status line's number and the body's text. An answer cut short is still an answer.
#[derive(Clone, Debug)]
pub struct RawAnswer {
    /// The status; `None` if the connection ended without an answer.
    pub status: Option<u16>,
    /// Everything after the headers.
    pub body: String,
}

impl RawAnswer {
    /// The code of the first error in an OCI error body, if it is one.
    pub fn error_code(&self) -> Option<String> {
        let start = self.body.find('{')?;
        let json: Value =
            serde_json::Deserializer::from_str(self.body.get(start..)?).into_iter().next()?.ok()?;
        Some(json.pointer("/errors/0/code")?.as_str()?.to_owned())
    }
}

/// Sends bytes to `http://host:port` and reads until the other side closes. Include `Connection: close`.
pub async fn raw_exchange(base: &str, request: &[u8]) -> Result<RawAnswer> {
    let work = async {
        let mut socket = connect(base).await?;
        // The registry may answer and close before it has read all: then the write fails, not the test.
        let _ = socket.write_all(request).await;
        let mut bytes = Vec::new();
        let _ = socket.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).await;
        Ok(parse(&String::from_utf8_lossy(&bytes)))
    };
    timeout(DEADLINE, work).await.map_err(|_| anyhow!("{base} neither answered nor closed"))?
}

/// Sends the start of a request and closes the connection without waiting for anything.
pub async fn raw_send_and_cut(base: &str, request: &[u8]) -> Result<()> {
    let work = async {
        let mut socket = connect(base).await?;
        socket.write_all(request).await?;
        socket.flush().await?;
        // Enough for the bytes to arrive: what is tested is a cut body, not one that was never seen.
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok(())
    };
    timeout(DEADLINE, work).await.map_err(|_| anyhow!("{base} takes no bytes"))?
}

async fn connect(base: &str) -> Result<TcpStream> {
    let host = base.trim_start_matches("http://");
    TcpStream::connect(host).await.with_context(|| format!("connect to {host}"))
}

fn parse(text: &str) -> RawAnswer {
    let status = text
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split_whitespace().nth(1))
        .and_then(|number| number.parse().ok());
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    RawAnswer { status, body }
}

//! A whole answer, and what tests ask of it.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use reqwest::{Response, header::HeaderMap};
use serde_json::Value;

/// Status, headers and body.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// What was asked, for messages.
    pub url: String,
}

impl Answer {
    /// Reads the body to its end.
    pub async fn read(response: Response) -> Result<Self> {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let url = response.url().to_string();
        let body = response.bytes().await.with_context(|| format!("the body of {url}"))?;
        Ok(Self { status, headers, body, url })
    }

    /// Fails with the body's text unless the status is the wanted one.
    pub fn expect(self, status: u16) -> Result<Self> {
        ensure!(self.status == status, "wanted {status}, got {}", self.describe());
        Ok(self)
    }

    /// Fails unless this is an OCI error body with this status and code.
    pub fn expect_error(self, status: u16, code: &str) -> Result<Self> {
        let answer = self.expect(status)?;
        let found = answer.error_code()?;
        ensure!(found == code, "wanted {code}, got {}", answer.describe());
        Ok(answer)
    }

    /// The code of the first error in an OCI error body.
    pub fn error_code(&self) -> Result<String> {
        let body: Value = serde_json::from_slice(&self.body)
            .with_context(|| format!("no OCI error body: {}", self.describe()))?;
        let code = body.pointer("/errors/0/code").and_then(Value::as_str);
        Ok(code.with_context(|| format!("no error code: {}", self.describe()))?.to_owned())
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("no JSON: {}", self.describe()))
    }

    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// A header that must be there.
    pub fn need_header(&self, name: &str) -> Result<&str> {
        self.header(name).with_context(|| format!("no header {name}: {}", self.describe()))
    }

    /// Whether the registry says that it could not ask the others (RFC 7234 section 5.5.1).
    pub fn is_stale(&self) -> bool {
        self.headers
            .get_all("warning")
            .iter()
            .any(|value| value.to_str().is_ok_and(|text| text.starts_with("110 ")))
    }

    /// All of it, for a message.
    pub fn describe(&self) -> String {
        let body = self.body.slice(..self.body.len().min(600));
        let body = String::from_utf8_lossy(&body).into_owned();
        format!("{} from {} {:?} {body}", self.status, self.url, self.headers)
    }
}

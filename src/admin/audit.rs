//! A line in the audit log for every change.

use axum::extract::Request;
use axum::http::{HeaderName, Method};
use axum::middleware::Next;
use axum::response::{IntoResponseParts, Response, ResponseParts};
use tercet_raft::Force;

use super::error::AdminErrorBody;
use crate::auth::audit::{Administered, administered};
use crate::peer::Forwarded;
use crate::peer::wire::ADMIN_PREFIX;
use crate::server::RemoteAddress;

/// Where the operator's request came from, when another replica passed it on.
pub(super) const REMOTE_HEADER: HeaderName = HeaderName::from_static("x-operator-address");

/// In the extensions of an answer that another replica gave: it wrote the line.
#[derive(Debug, Clone, Copy)]
pub(super) struct DoneElsewhere;

/// What a handler that changes something adds to its answer, as in `(Change::new("removed tercet-3"),
/// Json(answer))`, for the audit log.
#[derive(Debug, Clone)]
pub struct Change {
    detail: String,
    forced: Option<String>,
}

impl Change {
    /// In words.
    pub fn new(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), forced: None }
    }

    /// Also why it was forced, if it was.
    #[must_use]
    pub fn forced(mut self, force: &Force) -> Self {
        self.forced = match force {
            Force::No => None,
            Force::Because(reason) => Some(reason.clone()),
        };
        self
    }
}

impl IntoResponseParts for Change {
    type Error = std::convert::Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Self::Error> {
        parts.extensions_mut().insert(self);
        Ok(parts)
    }
}

/// Layer around all routes. `GET` changes nothing and is not written down.
pub(super) async fn record(request: Request, next: Next) -> Response {
    if request.method() == Method::GET {
        return next.run(request).await;
    }
    let path = request.uri().path();
    let action = path.strip_prefix(ADMIN_PREFIX).unwrap_or(path).trim_matches('/');
    let action = action.replace('/', ".");
    let passed_on = request.extensions().get::<Forwarded>().is_some();
    let told = request.headers().get(&REMOTE_HEADER).filter(|_| passed_on);
    let remote = match told.and_then(|told| told.to_str().ok()?.parse().ok()) {
        Some(remote) => Some(remote),
        None => request.extensions().get::<RemoteAddress>().map(|remote| remote.0),
    };
    let mut line = Line(Some(Administered {
        remote,
        action,
        detail: "interrupted: it may have been done".to_owned(),
        ..Administered::default()
    }));
    let response = next.run(request).await;
    let Some(mut change) = line.0.take() else { return response };
    if response.extensions().get::<DoneElsewhere>().is_some() {
        return response;
    }
    let said = response.extensions().get::<Change>();
    let refusal = response.extensions().get::<AdminErrorBody>();
    change.detail = said
        .map(|said| said.detail.clone())
        .or_else(|| refusal.map(|refusal| format!("{}: {}", refusal.code, refusal.message)))
        .unwrap_or_default();
    change.forced = said.and_then(|said| said.forced.clone());
    change.status = response.status().as_u16();
    administered(&change);
    response
}

/// A line that is not written yet. The operator's command may go away before its answer.
struct Line(Option<Administered>);

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(change) = self.0.take() {
            administered(&change);
        }
    }
}

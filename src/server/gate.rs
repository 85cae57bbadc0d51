//! Answers for a listener whose routes are not there yet.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tower::ServiceExt;

/// Seconds after which a client that came too early may try again.
const RETRY_AFTER: &str = "1";

/// A place for routes. Until they are set, every request is refused at once: a client that is
/// refused tries another replica, one that waits does not.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<OnceLock<Router>>);

impl Gate {
    /// From now on requests reach these routes. Only the first call counts.
    pub fn open(&self, routes: Router) {
        let _ = self.0.set(routes);
    }

    /// The router to serve.
    pub fn router(&self) -> Router {
        Router::new().fallback(pass).with_state(self.clone())
    }
}

async fn pass(State(gate): State<Gate>, request: Request) -> Response {
    match gate.0.get() {
        Some(routes) => routes.clone().oneshot(request).await.into_response(),
        None => starting(),
    }
}

fn starting() -> Response {
    let body = r#"{"errors":[{"code":"UNAVAILABLE","message":"this replica is starting"}]}"#;
    let headers = [(header::RETRY_AFTER, RETRY_AFTER), (header::CONTENT_TYPE, "application/json")];
    (StatusCode::SERVICE_UNAVAILABLE, headers, body).into_response()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use axum::body::Body;
    use axum::routing::get;

    use super::*;

    async fn ask(gate: &Gate) -> Response {
        let request = Request::get("/v2/").body(Body::empty()).unwrap();
        gate.router().oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn a_request_before_the_routes_is_refused_at_once() {
        let gate = Gate::default();
        let response = ask(&gate).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], RETRY_AFTER);
        gate.open(Router::new().route("/v2/", get(|| async { "{}" })));
        assert_eq!(ask(&gate).await.status(), StatusCode::OK);
    }
}

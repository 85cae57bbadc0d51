//! What a listener tells about its traffic: metrics, and one log line for each request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};

use crate::ops::Metrics;

/// Counts and logs for one listener.
pub(super) struct Observer {
    listener: &'static str,
    metrics: Arc<Metrics>,
}

impl Observer {
    pub(super) fn new(listener: &'static str, metrics: Arc<Metrics>) -> Self {
        Self { listener, metrics }
    }

    pub(super) fn connected(&self) -> OpenConnection {
        let gauge = self.metrics.connections_open.with_label_values(&[self.listener]);
        gauge.inc();
        OpenConnection(gauge)
    }

    pub(super) fn refused(&self, remote: SocketAddr) {
        self.metrics.connections_refused.with_label_values(&[self.listener]).inc();
        tracing::debug!(listener = self.listener, %remote, "connection refused: cap reached");
    }

    pub(super) fn cut(&self, remote: SocketAddr, reason: &'static str) {
        self.metrics.connections_cut.with_label_values(&[self.listener, reason]).inc();
        tracing::debug!(listener = self.listener, %remote, reason, "connection cut");
    }

    pub(super) fn handshake_failed(&self, remote: SocketAddr, error: &std::io::Error) {
        self.metrics.tls_handshake_failures.with_label_values(&[self.listener]).inc();
        tracing::debug!(listener = self.listener, %remote, %error, "TLS handshake failed");
    }

    pub(super) fn request(&self, request: &Request<Body>, remote: SocketAddr) -> ObservedRequest {
        ObservedRequest {
            listener: self.listener,
            metrics: Arc::clone(&self.metrics),
            route: route_of(request.uri().path()),
            method: method_of(request.method()),
            target: request.uri().path().to_owned(),
            remote,
            began: Instant::now(),
        }
    }
}

/// Counts an open connection for as long as it lives.
pub(super) struct OpenConnection(prometheus::IntGauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// One request whose response is being made.
pub(super) struct ObservedRequest {
    listener: &'static str,
    metrics: Arc<Metrics>,
    route: &'static str,
    method: &'static str,
    target: String,
    remote: SocketAddr,
    began: Instant,
}

impl ObservedRequest {
    pub(super) fn answered(self, response: &Response<Body>) {
        let took = self.began.elapsed();
        let status = response.status();
        self.metrics
            .http_requests
            .with_label_values(&[self.listener, self.route, self.method, class_of(status)])
            .inc();
        self.metrics
            .http_response_seconds
            .with_label_values(&[self.listener, self.route])
            .observe(took.as_secs_f64());
        tracing::debug!(
            target: "tercet::access",
            listener = self.listener,
            remote = %self.remote,
            method = self.method,
            path = self.target,
            status = status.as_u16(),
            took_ms = took.as_millis() as u64,
            "request"
        );
    }
}

/// A label of few values: a path in a metric would let clients fill the memory.
fn route_of(path: &str) -> &'static str {
    if let Some(rest) = path.strip_prefix("/v2/") {
        return registry_route_of(rest);
    }
    match path {
        "/v2" => "base",
        "/livez" | "/readyz" | "/metrics" | "/status" | "/" => "ops",
        _ if path.starts_with("/raft/snapshot") => "raft_snapshot",
        _ if path.starts_with("/raft/") => "raft",
        _ if path.starts_with("/peer/blobs/") => "peer_blobs",
        _ if path.starts_with("/peer/sessions/") => "peer_sessions",
        _ if path.starts_with("/peer/") => "peer",
        _ if path.starts_with("/forward/") => "forward",
        _ => "other",
    }
}

fn registry_route_of(rest: &str) -> &'static str {
    if rest.is_empty() {
        "base"
    } else if rest == "_catalog" {
        "catalog"
    } else if rest.contains("/blobs/uploads") {
        "uploads"
    } else if rest.contains("/blobs/") {
        "blobs"
    } else if rest.contains("/manifests/") {
        "manifests"
    } else if rest.ends_with("/tags/list") {
        "tags"
    } else if rest.contains("/referrers/") {
        "referrers"
    } else {
        "other"
    }
}

/// For the same reason: a client may invent methods.
fn method_of(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "other",
    }
}

fn class_of(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn every_path_has_a_route_of_few() {
        for (path, route) in [
            ("/v2/", "base"),
            ("/v2/a/b/blobs/uploads/", "uploads"),
            ("/v2/a/blobs/sha256:00", "blobs"),
            ("/v2/a/manifests/latest", "manifests"),
            ("/v2/a/tags/list", "tags"),
            ("/v2/_catalog", "catalog"),
            ("/raft/append", "raft"),
            ("/etc/passwd", "other"),
        ] {
            assert_eq!(route_of(path), route, "{path}");
        }
    }
}

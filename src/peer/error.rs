//! What can go wrong between this replica and another.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use thiserror::Error;

/// A call to a peer failed. Every variant names the peer and what was asked of it.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The peer surely did not get the request: refused connection, name lookup, TLS handshake,
    /// plain HTTP to another machine.
    #[error("{operation} on {peer}: not sent: {reason}")]
    NotSent {
        /// Name of the peer.
        peer: String,
        /// What was asked.
        operation: &'static str,
        /// Why.
        reason: String,
    },
    /// No progress in time. The peer may have done what was asked.
    #[error("{operation} on {peer}: nothing for {waited:?}")]
    TimedOut {
        /// Name of the peer.
        peer: String,
        /// What was asked.
        operation: &'static str,
        /// How long was waited.
        waited: Duration,
    },
    /// The peer answered with an error.
    #[error("{operation} on {peer}: refused with status {status}: {message}")]
    Refused {
        /// Name of the peer.
        peer: String,
        /// What was asked.
        operation: &'static str,
        /// HTTP status.
        status: u16,
        /// What it said, shortened.
        message: String,
    },
    /// The copy of an upload session there is at another offset.
    #[error("{operation} on {peer}: its copy of the session is at offset {offset}")]
    OtherOffset {
        /// Name of the peer.
        peer: String,
        /// What was asked.
        operation: &'static str,
        /// Bytes that the peer has.
        offset: u64,
    },
    /// The connection broke, or the answer is not one that this version gives.
    #[error("{operation} on {peer}: {reason}")]
    Broken {
        /// Name of the peer.
        peer: String,
        /// What was asked.
        operation: &'static str,
        /// Why.
        reason: String,
    },
}

impl PeerError {
    /// The HTTP status with which the peer refused, if it answered.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::OtherOffset { .. } => Some(416),
            _ => None,
        }
    }
}

/// A request could not be handed to the replica that has to answer it.
#[derive(Debug, Error)]
pub enum ForwardError {
    /// It surely did not reach the other replica's registry. Doing it elsewhere is safe.
    #[error("not delivered to {peer}: {reason}")]
    NotDelivered {
        /// Name of the peer.
        peer: String,
        /// Why.
        reason: String,
        /// The request, whole, if none of its body was taken yet; then it may be answered elsewhere.
        request: Option<Box<Request<Body>>>,
    },
    /// It may have been carried out; the answer is lost.
    #[error("no answer from {peer}: {reason}")]
    Unknown {
        /// Name of the peer.
        peer: String,
        /// Why.
        reason: String,
    },
}

/// The whole chain of causes: reqwest's own message says only "error sending request".
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

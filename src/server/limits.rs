//! The deadlines and caps of one listener.

use std::time::Duration;

use crate::config::Limits;

/// What one listener allows its connections.
#[derive(Debug, Clone)]
pub struct ServerLimits {
    /// Name of the listener in logs and metrics: `registry`, `peer`, `ops`, `webhook`.
    pub listener: &'static str,
    /// Most connections at a time.
    pub connections_max: usize,
    /// From the first byte of a request to the end of its header; also for a TLS handshake.
    pub header_timeout: Duration,
    /// From accepting a connection to its first byte.
    pub first_byte_timeout: Duration,
    /// How long a connection is kept without a request.
    pub idle_timeout: Duration,
    /// Slowest request body, in bytes per second of waiting for it.
    pub body_rate_min_bytes: u64,
    /// The stretch of waiting over which that rate is judged.
    pub body_rate_window: Duration,
    /// How long a client may take to accept any byte of a response.
    pub write_stall: Duration,
    /// Grace for requests in flight after shutdown begins.
    pub drain: Duration,
}

/// Long enough for a client behind a bad network to recover, short enough to free its slot.
const BODY_RATE_WINDOW: Duration = Duration::from_secs(30);
/// Between replicas a body is as slow as the client at its other end, and the replica that talks to
/// that client judges it. So here only a body that has stopped is cut, and later than there.
const PEER_BODY_RATE_MIN_BYTES: u64 = 1;
const PEER_BODY_RATE_WINDOW: Duration = Duration::from_secs(60);
/// The part of the drain's grace that is kept for handing leadership over.
pub(crate) const HAND_OVER_MAX: Duration = Duration::from_secs(2);
/// Peers and probes need no long good-bye.
const INTERNAL_DRAIN: Duration = Duration::from_secs(1);
/// Probes, scrapes and a few people.
const OPS_CONNECTIONS_MAX: usize = 256;

impl ServerLimits {
    /// The limits of the listener that clients talk to.
    #[must_use]
    pub fn registry(limits: &Limits) -> Self {
        Self {
            listener: "registry",
            connections_max: limits.connections_max,
            header_timeout: limits.header_timeout(),
            first_byte_timeout: limits.first_byte_timeout(),
            idle_timeout: limits.idle_timeout(),
            body_rate_min_bytes: limits.body_rate_min_bytes,
            body_rate_window: BODY_RATE_WINDOW,
            write_stall: limits.write_stall(),
            drain: limits.drain().saturating_sub(HAND_OVER_MAX),
        }
    }

    /// The limits of the listener that other replicas talk to.
    #[must_use]
    pub fn peer(limits: &Limits) -> Self {
        Self {
            listener: "peer",
            body_rate_min_bytes: PEER_BODY_RATE_MIN_BYTES,
            body_rate_window: PEER_BODY_RATE_WINDOW,
            drain: INTERNAL_DRAIN,
            ..Self::registry(limits)
        }
    }

    /// The limits of the listener that the Kubernetes API server talks to.
    #[must_use]
    pub fn webhook(limits: &Limits) -> Self {
        Self { listener: "webhook", ..Self::ops(limits) }
    }

    /// The limits of the listener for health, metrics and status.
    #[must_use]
    pub fn ops(limits: &Limits) -> Self {
        Self {
            listener: "ops",
            connections_max: limits.connections_max.min(OPS_CONNECTIONS_MAX),
            drain: INTERNAL_DRAIN,
            ..Self::registry(limits)
        }
    }
}

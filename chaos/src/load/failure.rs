//! Why an operation failed.

use std::fmt;

/// What happened to the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    /// Nobody took the connection.
    Connect,
    /// The handshake failed.
    Tls,
    /// There was no whole answer within the deadline.
    Timeout,
    /// The connection ended before the answer did.
    Closed,
    /// The answer is no HTTP/1.1, or has no `Location` where one is needed.
    Malformed,
    /// An answer with another status than the right one.
    Status(u16),
    /// An answer of another length than what was asked for has.
    Length,
    /// Bytes with another digest than that which was asked for.
    Digest,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => formatter.write_str("connect"),
            Self::Tls => formatter.write_str("tls"),
            Self::Timeout => formatter.write_str("timeout"),
            Self::Closed => formatter.write_str("closed"),
            Self::Malformed => formatter.write_str("malformed"),
            Self::Status(status) => write!(formatter, "status {status}"),
            Self::Length => formatter.write_str("wrong length"),
            Self::Digest => formatter.write_str("wrong digest"),
        }
    }
}

impl Failure {
    /// Whether another try at once would fail in the same way, and cost the machine for nothing.
    pub(super) fn wants_a_pause(self) -> bool {
        matches!(self, Self::Connect | Self::Tls)
    }
}

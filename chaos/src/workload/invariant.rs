//! What must hold, whatever happens.

use std::fmt;

use serde::Serialize;

/// The invariants of the scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Invariant {
    /// Durability.
    I1,
    /// Content.
    I2,
    /// Tags.
    I3,
    /// Completeness.
    I4,
    /// Convergence.
    I5,
    /// Collection.
    I6,
    /// Errors.
    I7,
    /// Liveness.
    I8,
    /// Bounds.
    I9,
    /// Honesty of the check itself.
    I10,
}

impl Invariant {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::I1 => "every acknowledged digest can be pulled, byte for byte",
            Self::I2 => "no answer carries bytes that do not hash to the digest asked for",
            Self::I3 => "tags are linearizable, each (repository, tag) by itself",
            Self::I4 => "a manifest that can be seen has all its blobs",
            Self::I5 => "after healing all replicas agree and hold every blob, within a bound",
            Self::I6 => "collection never removes a blob that something refers to",
            Self::I7 => "every error is an OCI error with a fitting status; nothing panics",
            Self::I8 => "with a majority up writes resume, and pulls never stop",
            Self::I9 => "memory, connections and disk stay within their bounds",
            Self::I10 => "an operation of unknown outcome is never counted as failed",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self:?}")
    }
}

//! What clients did to one tag, and what they were told.

use std::fmt;

/// One operation on a tag, in nanoseconds since the start of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What it was.
    pub kind: OperationKind,
    /// When the client sent it.
    pub invoked: i64,
    /// When the client had its answer. `None` for a change whose outcome nobody knows: it stays open to the end.
    pub returned: Option<i64>,
    /// Which replica was asked; empty if that is not known.
    pub replica: String,
}

/// What was done, with the manifest's digest as the value. No two changes set the same value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationKind {
    /// The tag was set, whatever it was.
    Write(String),
    /// The tag was removed; it was there, if there was an answer.
    Delete,
    /// The tag was set if it was what was expected (`If-Match`), or if it was not there (`If-None-Match: *`).
    Swap {
        /// What it had to be; `None` for a tag that is not there.
        from: Option<String>,
        /// What it was set to.
        to: String,
    },
    /// A swap was refused: the tag was not this.
    Differs(Option<String>),
    /// The tag was read; `None` if it did not exist.
    Read(Option<String>),
}

impl Operation {
    /// An operation through a replica that is not named.
    pub fn new(kind: OperationKind, invoked: i64, returned: Option<i64>) -> Self {
        Self { kind, invoked, returned, replica: String::new() }
    }

    /// The same, with the replica that was asked.
    #[must_use]
    pub fn at(mut self, replica: impl Into<String>) -> Self {
        self.replica = replica.into();
        self
    }

    /// The value that it sets, if it sets one.
    pub(crate) fn sets(&self) -> Option<&str> {
        match &self.kind {
            OperationKind::Write(value) | OperationKind::Swap { to: value, .. } => Some(value),
            _ => None,
        }
    }

    /// The value that its answer shows to have been there.
    pub(crate) fn sees(&self) -> Option<&str> {
        match &self.kind {
            OperationKind::Read(value) => value.as_deref(),
            OperationKind::Swap { from, .. } if self.returned.is_some() => from.as_deref(),
            _ => None,
        }
    }

    /// Whether it changes nothing.
    pub(crate) fn only_looks(&self) -> bool {
        matches!(self.kind, OperationKind::Read(_) | OperationKind::Differs(_))
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: i64| time as f64 / 1e9;
        write!(f, "{:10.6} s", seconds(self.invoked))?;
        match self.returned {
            Some(returned) => write!(f, " to {:10.6} s", seconds(returned))?,
            None => f.write_str(" to      unknown")?,
        }
        if !self.replica.is_empty() {
            write!(f, "  {}", self.replica)?;
        }
        match &self.kind {
            OperationKind::Write(value) => write!(f, "  set to {}", short(Some(value))),
            OperationKind::Delete => f.write_str("  removed"),
            OperationKind::Swap { from, to } => {
                write!(f, "  set from {} to {}", short(from.as_deref()), short(Some(to)))
            }
            OperationKind::Differs(value) => {
                write!(f, "  refused, not {}", short(value.as_deref()))
            }
            OperationKind::Read(value) => write!(f, "  read {}", short(value.as_deref())),
        }
    }
}

/// A value as people compare it.
pub(crate) fn short(value: Option<&str>) -> &str {
    const SHOWN: usize = 19;
    value.map_or("nothing", |value| value.get(..SHOWN).unwrap_or(value))
}

//! What was really done to a cluster. A scenario whose fault never happened has shown nothing.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::say::say;

/// The faults of a run, counted by kind and told in order.
#[derive(Debug)]
pub(crate) struct Faults {
    start: Instant,
    counts: BTreeMap<String, u64>,
    events: Vec<String>,
    bands: Vec<Span>,
}

/// A fault that goes on until it is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a fault that is begun is ended with Faults::end, or it lasts until the end of the run"]
pub(crate) struct FaultId(usize);

/// From when to when a fault was there, since the start of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) kind: String,
    pub(crate) what: String,
    pub(crate) start: Duration,
    /// The same as `start` for an instant; `None` for what was never ended.
    pub(crate) end: Option<Duration>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            counts: BTreeMap::new(),
            events: Vec::new(),
            bands: Vec::new(),
        }
    }
}

impl Faults {
    /// A fault of a kind was injected: an instant.
    pub(crate) fn injected(&mut self, kind: &str, what: &str) {
        let fault = self.open(kind, what);
        self.close(fault);
    }

    /// A fault of a kind begins, and goes on until [`Self::end`].
    pub(crate) fn begin(&mut self, kind: &str, what: &str) -> FaultId {
        self.open(kind, what)
    }

    /// The fault is over. Ending it twice changes nothing.
    pub(crate) fn end(&mut self, fault: FaultId) {
        if let Some(what) = self.close(fault) {
            self.note(&format!("over: {what}"));
        }
    }

    /// Something else that a reader of the report wants to know.
    pub(crate) fn note(&mut self, what: &str) {
        let event = format!("{:8.3} s  {what}", self.start.elapsed().as_secs_f64());
        say(&event);
        self.events.push(event);
    }

    pub(crate) fn counts(&self) -> &BTreeMap<String, u64> {
        &self.counts
    }

    pub(crate) fn events(&self) -> &[String] {
        &self.events
    }

    /// All faults, in the order in which they began.
    pub(crate) fn spans(&self) -> &[Span] {
        &self.bands
    }

    fn open(&mut self, kind: &str, what: &str) -> FaultId {
        *self.counts.entry(kind.to_owned()).or_default() += 1;
        self.note(&format!("{kind}: {what}"));
        let (kind, what) = (kind.to_owned(), what.to_owned());
        self.bands.push(Span { kind, what, start: self.start.elapsed(), end: None });
        FaultId(self.bands.len() - 1)
    }

    /// What was ended, unless it was ended before.
    fn close(&mut self, fault: FaultId) -> Option<String> {
        let now = self.start.elapsed();
        let span = self.bands.get_mut(fault.0).filter(|span| span.end.is_none())?;
        span.end = Some(now);
        Some(format!("{}: {}", span.kind, span.what))
    }
}

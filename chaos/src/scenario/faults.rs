//! What was really done to a cluster. A scenario whose fault never happened has shown nothing.

use std::{collections::BTreeMap, time::Instant};

/// The faults of a run, counted by kind and told in order.
#[derive(Debug)]
pub(crate) struct Faults {
    start: Instant,
    counts: BTreeMap<String, u64>,
    events: Vec<String>,
}

impl Default for Faults {
    fn default() -> Self {
        Self { start: Instant::now(), counts: BTreeMap::new(), events: Vec::new() }
    }
}

impl Faults {
    /// A fault of a kind was injected.
    pub(crate) fn injected(&mut self, kind: &str, what: &str) {
        *self.counts.entry(kind.to_owned()).or_default() += 1;
        self.note(&format!("{kind}: {what}"));
    }

    /// Something else that a reader of the report wants to know.
    pub(crate) fn note(&mut self, what: &str) {
        let event = format!("{:8.3} s  {what}", self.start.elapsed().as_secs_f64());
        println!("{event}");
        self.events.push(event);
    }

    pub(crate) fn counts(&self) -> &BTreeMap<String, u64> {
        &self.counts
    }

    pub(crate) fn events(&self) -> &[String] {
        &self.events
    }
}

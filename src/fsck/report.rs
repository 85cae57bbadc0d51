//! What a check found.

use std::collections::BTreeMap;

use serde::Serialize;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// Worth knowing; nothing is wrong with what is stored.
    Note,
    /// Bytes that should be here are not; the other replicas may have them.
    Missing,
    /// Something stored is not what it was.
    Damage,
}

/// One thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// How bad it is.
    pub(crate) severity: Severity,
    /// Which part of the directory: identity, log, state, blobs, uploads, quarantine, leftovers.
    pub(crate) part: &'static str,
    /// What it is.
    pub(crate) what: String,
    /// What to do about it.
    pub(crate) advice: String,
}

/// All of it.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Report {
    /// The directory.
    pub(crate) data_dir: String,
    /// The replica's name, if it has one.
    pub(crate) replica: Option<String>,
    /// Its cluster.
    pub(crate) cluster_id: Option<String>,
    /// The digest of the replicated state, as `tercet state-hash` shows it for a replica that runs.
    pub(crate) state: Option<String>,
    /// Numbers, such as records by table, blobs and their bytes.
    pub(crate) counts: BTreeMap<String, u64>,
    /// What was found, the worst first.
    pub(crate) findings: Vec<Finding>,
    /// What was done about it.
    pub(crate) repaired: Vec<String>,
    /// The images that cannot be pulled whole from this disk alone.
    pub(crate) incomplete_images: Vec<String>,
}

impl Report {
    pub(super) fn count(&mut self, what: impl Into<String>, number: u64) {
        *self.counts.entry(what.into()).or_default() += number;
    }

    pub(super) fn find(
        &mut self,
        severity: Severity,
        part: &'static str,
        what: impl Into<String>,
        advice: &str,
    ) {
        let (what, advice) = (what.into(), advice.to_owned());
        self.findings.push(Finding { severity, part, what, advice });
    }

    /// The worst there is.
    pub(crate) fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    /// How many findings of one kind there are.
    pub(crate) fn number_of(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    pub(super) fn sort(&mut self) {
        self.findings.sort_by(|a, b| b.severity.cmp(&a.severity).then(a.part.cmp(b.part)));
    }
}

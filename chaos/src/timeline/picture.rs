//! A timeline as it stands in a report.

use serde::{Deserialize, Serialize};

use super::request::RequestKind;

/// What happened when. All times are milliseconds since the start of the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// From start to verdict.
    pub length_ms: u64,
    /// How much time a bucket of a track stands for.
    pub bucket_ms: u64,
    /// One for each replica.
    pub tracks: Vec<Track>,
    /// The faults.
    pub bands: Vec<Band>,
    /// Who led from when on.
    pub leaders: Vec<LeaderChange>,
    /// Times without an acknowledged write.
    pub gaps: Vec<Spell>,
    /// Broken promises, when they were noticed.
    pub marks: Vec<Mark>,
}

/// The requests to one replica, bucket by bucket; all lists are of the same length.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Track {
    /// The replica.
    pub name: String,
    /// Requests that were answered as asked.
    pub acknowledged: Vec<u32>,
    /// Requests that were refused.
    pub refused: Vec<u32>,
    /// Requests of which nobody knows.
    pub unknown: Vec<u32>,
    /// Requests that nobody listened to.
    pub failed: Vec<u32>,
    /// Median latency of what was acknowledged, in microseconds; 0 if nothing was.
    pub p50_us: Vec<u64>,
    /// The 99th percentile, likewise.
    pub p99_us: Vec<u64>,
    /// Over the whole run, by kind of request.
    pub latencies: Vec<Latency>,
}

/// How long requests of a kind took that were acknowledged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The kind.
    pub operation: RequestKind,
    /// How many.
    pub count: u64,
    /// Median, in microseconds.
    pub p50_us: u64,
    /// 99th percentile, in microseconds.
    pub p99_us: u64,
    /// The longest, in microseconds.
    pub max_us: u64,
}

/// A fault.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Band {
    /// Its kind.
    pub kind: String,
    /// What was done.
    pub what: String,
    /// When it began.
    pub start_ms: u64,
    /// When it ended; the same for what happened in an instant, none for what was never ended.
    pub end_ms: Option<u64>,
}

/// Another leader.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LeaderChange {
    /// When it was first seen.
    pub at_ms: u64,
    /// Who leads; none if nobody does.
    pub name: Option<String>,
    /// The Raft term.
    pub term: u64,
}

/// A span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spell {
    /// Its start.
    pub start_ms: u64,
    /// Its end.
    pub end_ms: u64,
}

/// Something noticed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// When.
    pub at_ms: u64,
    /// What, in words.
    pub what: String,
}

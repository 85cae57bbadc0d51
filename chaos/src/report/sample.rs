//! Fixed reports for the tests of what is made of them.

use std::collections::BTreeMap;

use super::{Judged, Report, RunReport, Verdict};
use crate::{
    timeline::{Band, Latency, LeaderChange, Mark, RequestKind, Spell, Timeline, Track},
    workload::Counts,
};

/// What must not reach a browser as it is.
pub(crate) const NASTY: &str = "<script>alert(\"x\")</script> & 'more'";

/// Three runs, one of each verdict.
pub(crate) fn run() -> RunReport {
    RunReport {
        title: "run --all".to_owned(),
        seed: 7,
        version: "tercet 0.0.0".to_owned(),
        commit: Some("0123456789ab".to_owned()),
        started_unix_s: 1_800_000_000,
        seconds: 61.5,
        interrupted: false,
        not_run: vec!["lost-disk".to_owned(), "member-churn".to_owned()],
        reports: vec![held(), violated(), void()],
    }
}

/// One that held.
pub(crate) fn held() -> Report {
    Report {
        scenario: "kill-minority".to_owned(),
        rows: vec![1],
        hypothesis: "nobody loses anything".to_owned(),
        fault: "kill -9".to_owned(),
        seed: 7,
        length: "short".to_owned(),
        version: "tercet 0.0.0".to_owned(),
        started_unix_s: 1_800_000_000,
        verdict: Verdict::Held,
        invariants: vec![judged("I1", Verdict::Held, &[])],
        operations: Counts {
            acknowledged_writes: 800,
            acknowledged_reads: 4_000,
            refused: 4,
            unknown: 2,
            ..Counts::default()
        },
        faults: BTreeMap::from([("kill -9".to_owned(), 2)]),
        acknowledged_per_second: 160.0,
        resumed_ms: vec![1_200, 900],
        full_replication_ms: Some(2_100),
        figures: BTreeMap::from([("a figure".to_owned(), NASTY.into())]),
        events: vec!["   1.000 s  kill -9: replica 1".to_owned()],
        timeline: timeline(),
        seconds: 30.0,
        ..Report::default()
    }
}

/// One in which promises were broken, with words that are no good in a page.
pub(crate) fn violated() -> Report {
    let mut report = held();
    report.scenario = "partition-leader".to_owned();
    report.seed = 8;
    report.verdict = Verdict::Violated;
    report.reasons = vec![format!("I3 (tags): {NASTY}")];
    report.invariants =
        vec![judged("I1", Verdict::Void, &[]), judged("I3", Verdict::Violated, &[NASTY])];
    report.operations.violations = 2;
    report.faults = BTreeMap::from([("leader in the minority".to_owned(), 1)]);
    report.timeline.marks = vec![Mark { at_ms: 12_000, what: NASTY.to_owned() }];
    report
}

/// One that shows nothing.
pub(crate) fn void() -> Report {
    Report {
        scenario: "bit-rot".to_owned(),
        seed: 9,
        length: "full".to_owned(),
        verdict: Verdict::Void,
        reasons: vec!["the fault `damage` never happened".to_owned()],
        invariants: vec![judged("I2", Verdict::Void, &[])],
        ..Report::default()
    }
}

fn judged(invariant: &str, verdict: Verdict, violations: &[&str]) -> Judged {
    Judged {
        invariant: invariant.to_owned(),
        words: format!("{invariant} in words"),
        verdict,
        violations: violations.iter().map(|&what| what.to_owned()).collect(),
    }
}

/// Three replicas, of which one is away for a while.
pub(crate) fn timeline() -> Timeline {
    let tracks = (0..3_u32).map(|replica| {
        let away = |index: u32| replica == 1 && (20..60).contains(&index);
        let up = |index: u32, value: u32| if away(index) { 0 } else { value };
        let column = |of: &dyn Fn(u32) -> u32| (0..120).map(of).collect::<Vec<u32>>();
        Track {
            name: format!("replica-{}", replica + 1),
            acknowledged: column(&|index| up(index, 30 + (index * 7 + replica * 5) % 13)),
            refused: column(&|index| u32::from(!away(index) && (20..26).contains(&index)) * 6),
            unknown: column(&|index| u32::from(replica == 1 && index == 20) * 9),
            failed: column(&|index| u32::from(away(index)) * 14),
            p50_us: (0..120).map(|index| u64::from(up(index, 4_000 + index * 20))).collect(),
            p99_us: (0..120)
                .map(|index| u64::from(up(index, 40_000 + (index * 37 % 11) * 30_000)))
                .collect(),
            latencies: vec![Latency {
                operation: RequestKind::PushBlob,
                count: 4_000,
                p50_us: 4_100,
                p99_us: 210_000,
                max_us: 2_400_000,
            }],
        }
    });
    let band = |kind: &str, start_ms, end_ms| Band {
        kind: kind.to_owned(),
        what: "replica 1".to_owned(),
        start_ms,
        end_ms,
    };
    let leader = |at_ms, name: Option<&str>, term| LeaderChange {
        at_ms,
        name: name.map(str::to_owned),
        term,
    };
    Timeline {
        length_ms: 32_000,
        bucket_ms: 250,
        tracks: tracks.collect(),
        bands: vec![
            band("kill -9", 5_000, Some(15_000)),
            band("slow fsync", 12_000, None),
            band("damage", 18_000, Some(18_000)),
        ],
        leaders: vec![
            leader(100, Some("replica-2"), 1),
            leader(5_200, None, 2),
            leader(6_300, Some("replica-3"), 2),
        ],
        gaps: vec![Spell { start_ms: 5_000, end_ms: 6_400 }],
        marks: Vec::new(),
    }
}

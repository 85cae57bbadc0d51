//! What loads came to, as figures.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    crew::Measured,
    failure::Failure,
    options::{Bodies, LoadOptions, LoadTarget, Pace, PushUnit, Rest, Source, Workload},
    tally::{KindTally, Quantiles},
};
use crate::report::Verdict;

/// With more failures than this share of all operations there is no figure: a server that refuses is fast.
const FAILURES_MAX: f64 = 0.001;

/// A whole load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadReport {
    /// What the clients did.
    pub workload: Workload,
    /// What all random choices were drawn from.
    pub seed: u64,
    /// When it began, in seconds since 1970.
    pub started_unix_s: u64,
    /// How it was set.
    pub settings: BTreeMap<String, Value>,
    /// Each target over all rounds, in the order in which they were given.
    pub targets: Vec<Figures>,
    /// Every measurement by itself, in the order in which they were made.
    pub rounds: Vec<Round>,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Its round, from 1 on.
    pub round: usize,
    /// What it came to.
    pub figures: Figures,
}

/// What the load of one target came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    /// The target's name.
    pub target: String,
    /// For how long it was measured.
    pub seconds: f64,
    /// Operations that were sent, and have ended, well or not.
    pub operations: u64,
    /// Operations that succeeded, per second.
    pub operations_per_second: f64,
    /// HTTP requests that were answered, per second; some operations have several.
    pub requests_per_second: f64,
    /// Bytes of bodies per second, both ways together.
    pub bytes_per_second: f64,
    /// Bytes of bodies of answers.
    pub bytes_received: u64,
    /// Bytes of bodies of requests.
    pub bytes_sent: u64,
    /// Connections that were opened.
    pub connections: u64,
    /// Of operations that succeeded, from when they were due (open loop) or sent (closed loop). With those that were
    /// due and never sent, as long as they had waited.
    pub latency: Quantiles,
    /// Of operations that succeeded, from when they were sent.
    pub service: Quantiles,
    /// Operations that were due, and never sent: the target did not keep up with the rate.
    pub unsent: u64,
    /// Of each blob of pushed images by itself, config included: from its `POST` to the `201` of its `PUT`.
    pub blobs: Quantiles,
    /// Why operations failed -> how many did.
    pub errors: BTreeMap<String, u64>,
    /// The figures of each kind of operation.
    pub kinds: BTreeMap<String, KindFigures>,
    /// Processor time of the load itself, in seconds.
    pub client_cpu_seconds: f64,
    /// Processor time of the servers, in seconds, if their processes are known.
    pub server_cpu_seconds: Option<f64>,
    /// The same per gigabyte (10⁹ bytes) of bodies.
    pub server_cpu_seconds_per_gigabyte: Option<f64>,
    /// Each storm by itself.
    pub storms: Vec<StormFigures>,
}

/// One kind of operation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KindFigures {
    /// Operations that were sent, and have ended, well or not.
    pub operations: u64,
    /// Operations that succeeded, per second.
    pub operations_per_second: f64,
    /// As [`Figures::latency`].
    pub latency: Quantiles,
    /// Why operations failed -> how many did.
    pub errors: BTreeMap<String, u64>,
}

/// One storm.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StormFigures {
    /// Until the last client was served.
    pub seconds: f64,
    /// Bytes of bodies per second, all clients together.
    pub bytes_per_second: f64,
    /// Until half of the clients were served.
    pub median_seconds: f64,
    /// The slowest client's time as a multiple of the median.
    pub slowest_to_median: f64,
}

impl Figures {
    /// Of measurements of one target, which count as one.
    pub(super) fn of(target: &LoadTarget, measured: &[Measured]) -> Result<Self> {
        let Some((first, more)) = measured.split_first() else { return Ok(Self::default()) };
        let mut all = first.clone();
        for other in more {
            all.tally.add(&other.tally);
            all.time += other.time;
            all.cpu.add(other.cpu);
        }
        let seconds = all.time.as_secs_f64();
        let (whole, traffic) = (all.tally.whole()?, all.tally.traffic);
        let bytes = traffic.received + traffic.sent;
        let servers = all.cpu.servers.map(|time| time.as_secs_f64());
        Ok(Self {
            target: target.name.clone(),
            seconds,
            operations: whole.ended,
            operations_per_second: per_second(whole.in_time, seconds),
            requests_per_second: per_second(traffic.requests, seconds),
            bytes_per_second: per_second(bytes, seconds),
            bytes_received: traffic.received,
            bytes_sent: traffic.sent,
            connections: traffic.connections,
            latency: whole.latency.quantiles(),
            service: whole.service.quantiles(),
            unsent: whole.unsent,
            blobs: all.tally.blobs.quantiles(),
            errors: errors(&whole),
            kinds: all
                .tally
                .kinds
                .iter()
                .map(|(kind, tally)| (kind.word().to_owned(), KindFigures::of(tally, seconds)))
                .collect(),
            client_cpu_seconds: all.cpu.client.as_secs_f64(),
            server_cpu_seconds: servers,
            server_cpu_seconds_per_gigabyte: servers
                .filter(|_| bytes > 0)
                .map(|seconds| seconds / (bytes as f64 / 1e9)),
            storms: Vec::new(),
        })
    }

    /// How many operations failed.
    pub fn failures(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Wrong bytes are a broken promise; many failures, or nothing at all, are no figure.
    pub(crate) fn verdict(&self) -> Verdict {
        let wrong = |failure: Failure| self.errors.contains_key(&failure.to_string());
        if [Failure::Length, Failure::Digest].into_iter().any(wrong) {
            return Verdict::Violated;
        }
        let failed = self.failures() as f64;
        match self.operations {
            0 => Verdict::Void,
            operations if failed > FAILURES_MAX * operations as f64 => Verdict::Void,
            _ => Verdict::Held,
        }
    }
}

impl KindFigures {
    fn of(tally: &KindTally, seconds: f64) -> Self {
        Self {
            operations: tally.ended,
            operations_per_second: per_second(tally.in_time, seconds),
            latency: tally.latency.quantiles(),
            errors: errors(tally),
        }
    }
}

impl StormFigures {
    /// Of one storm.
    pub(super) fn of(measured: &Measured) -> Result<Self> {
        let seconds = measured.time.as_secs_f64();
        let clients = measured.tally.whole()?.latency.quantiles();
        let median = clients.p50_us as f64;
        Ok(Self {
            seconds,
            bytes_per_second: per_second(measured.tally.traffic.received, seconds),
            median_seconds: median / 1e6,
            slowest_to_median: if median > 0.0 { clients.max_us as f64 / median } else { 0.0 },
        })
    }
}

impl LoadReport {
    /// `held` if every target answered as it should; `void` if there is a target without a figure; `violated` if
    /// one gave wrong bytes.
    pub fn verdict(&self) -> Verdict {
        Verdict::of_all(self.targets.iter().map(Figures::verdict))
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }
}

/// How a load was set, for those who read its figures later.
pub(super) fn settings(options: &LoadOptions) -> BTreeMap<String, Value> {
    let rate = match options.pace {
        Pace::Closed => Value::Null,
        Pace::Open { per_second } => json!(per_second),
    };
    let source = match &options.source {
        Source::Made(sizes) => json!({ "layers": sizes }),
        Source::Existing { repository, tag } => {
            json!({ "existing": format!("{repository}:{tag}") })
        }
        Source::Paths(paths) => match paths.as_slice() {
            [path] => json!({ "path": path }),
            paths => json!({ "paths": paths.len(), "first": paths.first() }),
        },
    };
    let targets: BTreeMap<&str, &[String]> =
        options.targets.iter().map(|target| (target.name.as_str(), &*target.urls)).collect();
    let settings = [
        ("targets", json!(targets)),
        ("source", source),
        ("rate", rate),
        ("clients", json!(options.clients)),
        ("threads", json!(options.threads)),
        ("seconds", json!(options.time.as_secs_f64())),
        ("requests", json!(options.operations_max)),
        ("warm_up_seconds", json!(options.warm_up.as_secs_f64())),
        ("rounds", json!(options.rounds)),
        ("deadline_seconds", json!(options.deadline.as_secs_f64())),
        ("verify", json!(options.bodies == Bodies::Hashed)),
        ("push_images", json!(options.unit == PushUnit::Image)),
        ("chunk", json!(options.chunk)),
        ("tags", json!(options.tags)),
        ("mix", json!(options.mix.to_string())),
        ("sync", json!(options.rest == Rest::Synced)),
    ];
    settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn errors(tally: &KindTally) -> BTreeMap<String, u64> {
    tally.failures.iter().map(|(failure, count)| (failure.to_string(), *count)).collect()
}

fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::{
        super::{
            connection::Traffic,
            cpu::CpuTime,
            options::{Kind, tests::options},
            tally::{Sample, Tally},
        },
        *,
    };

    /// Two seconds in which so many operations of 1, 2, 3, … ms succeeded and so many failed.
    pub(in crate::load) fn measured(good: u64, bad: u64) -> Measured {
        let mut tally = Tally::new(&[Kind::Pull]).unwrap();
        for number in 1..=good + bad {
            let time = Duration::from_millis(number);
            let result = if number > good { Err(Failure::Status(503)) } else { Ok(()) };
            let (latency, service, ended) = (time, time, time);
            let kind = Kind::Pull;
            tally.record(Sample { kind, latency, service, ended, in_time: true, result });
        }
        let received = 1_000_000 * good;
        tally.traffic = Traffic { connections: 1, requests: good + bad, received, sent: 0 };
        let time = Duration::from_secs(2);
        Measured { tally, time, cpu: CpuTime { client: time, servers: Some(time / 2) } }
    }

    pub(in crate::load) fn report(measured: &[Measured]) -> LoadReport {
        let options = options();
        let figures = Figures::of(&options.targets[0], measured).unwrap();
        LoadReport {
            workload: options.workload,
            seed: options.seed,
            started_unix_s: 1_800_000_000,
            settings: settings(&options),
            targets: vec![figures.clone()],
            rounds: vec![Round { round: 1, figures }],
        }
    }

    #[test]
    fn rounds_count_as_one_measurement() {
        let figures = report(&[measured(100, 0), measured(100, 0)]).targets.remove(0);
        assert_eq!((figures.operations, figures.bytes_received), (200, 200_000_000));
        assert_eq!((figures.seconds, figures.operations_per_second), (4.0, 50.0));
        assert_eq!((figures.requests_per_second, figures.bytes_per_second), (50.0, 5e7));
        assert_eq!((figures.latency.count, figures.kinds.len()), (200, 1));
        assert_eq!(figures.server_cpu_seconds_per_gigabyte, Some(10.0));
    }

    #[test]
    fn few_failures_are_a_figure_and_many_are_none() {
        assert_eq!(report(&[measured(10_000, 1)]).verdict(), Verdict::Held);
        assert_eq!(report(&[measured(100, 1)]).verdict(), Verdict::Void);
        assert_eq!(report(&[measured(0, 0)]).verdict(), Verdict::Void);
        let mut wrong = report(&[measured(10_000, 0)]);
        wrong.targets[0].errors.insert(Failure::Digest.to_string(), 1);
        assert_eq!(wrong.verdict(), Verdict::Violated);
    }

    #[test]
    fn the_slowest_client_of_a_storm_is_a_multiple_of_the_median() {
        let storm = StormFigures::of(&measured(100, 0)).unwrap();
        assert!((storm.median_seconds - 0.05).abs() < 0.001, "{storm:?}");
        assert!((storm.slowest_to_median - 2.0).abs() < 0.01, "{storm:?}");
    }

    #[test]
    fn json_says_the_same() {
        let report = report(&[measured(3, 1)]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("load.json");
        report.save(&path).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let read: LoadReport = serde_json::from_str(&text).unwrap();
        assert_eq!((read.workload, &read.settings), (report.workload, &report.settings));
        let (read, wrote) = (&read.rounds[0].figures, &report.rounds[0].figures);
        assert_eq!((&read.errors, read.operations), (&wrote.errors, wrote.operations));
        assert_eq!(read.latency.curve, wrote.latency.curve);
    }
}

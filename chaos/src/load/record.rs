//! Operations of clients that are not the load's own, such as those of another protocol, in the load's own figures.

use std::time::Duration;

use anyhow::Result;

use super::{
    cpu::CpuTime,
    crew::Measured,
    failure::Failure,
    options::{Kind, LoadTarget},
    report::Figures,
    tally::{Sample, Tally},
};

/// What such clients have measured of one server in one stretch of time.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    tally: Tally,
    length: Duration,
    cpu: CpuTime,
    pids: Vec<u32>,
}

impl Record {
    /// Of a measurement that takes so long, and begins now. The processor time of those processes counts.
    pub(crate) fn begin(length: Duration, pids: &[u32]) -> Result<Self> {
        let tally = Tally::new(&[Kind::Tag])?;
        Ok(Self { tally, length, cpu: CpuTime::now(pids), pids: pids.to_vec() })
    }

    /// Takes down an operation that took so long, and ended so long after the start.
    pub(crate) fn ended(&mut self, took: Duration, at: Duration, result: Result<(), Failure>) {
        self.tally.record(Sample {
            kind: Kind::Tag,
            latency: took,
            service: took,
            ended: at,
            in_time: at < self.length,
            result,
        });
    }

    /// All that both have taken down.
    pub(crate) fn add(&mut self, other: &Self) {
        self.tally.add(&other.tally);
    }

    /// The figures, at the end of the measurement.
    pub(crate) fn figures(self, name: &str) -> Result<Figures> {
        let cpu = CpuTime::now(&self.pids).since(self.cpu);
        let target = LoadTarget { name: name.to_owned(), urls: Vec::new(), pids: self.pids };
        Figures::of(&target, &[Measured { tally: self.tally, time: self.length, cpu }])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_ends_after_the_time_counts_for_latency_and_not_for_throughput() {
        let second = Duration::from_secs(1);
        let mut one = Record::begin(second, &[]).unwrap();
        one.ended(second / 2, second / 2, Ok(()));
        let mut two = Record::begin(second, &[]).unwrap();
        two.ended(second, 2 * second, Ok(()));
        two.ended(second, second, Err(Failure::Status(14)));
        one.add(&two);
        let figures = one.figures("etcd").unwrap();
        assert_eq!(
            (figures.target.as_str(), figures.operations, figures.failures()),
            ("etcd", 3, 1)
        );
        assert_eq!((figures.operations_per_second, figures.latency.count), (1.0, 2));
    }
}

//! A stretch of a load: which operation is next, and when it is due.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{cpu::CpuTime, options::Pace};

/// A warm-up, or what is measured after it. All clients take their operations from here.
#[derive(Debug)]
pub(super) struct Phase {
    pace: Pace,
    /// No operation begins later than this after the start.
    length: Duration,
    operations_max: u64,
    next: AtomicU64,
    start: OnceLock<Start>,
}

/// How it was at the start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) at: Instant,
    pub(super) cpu: CpuTime,
}

/// An operation that a client has taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// Of all of the phase, from 0 on.
    pub(super) number: u64,
    /// When it is to begin, after the start; at once in a closed loop.
    pub(super) due: Option<Duration>,
}

impl Phase {
    pub(super) fn new(pace: Pace, length: Duration, operations_max: Option<u64>) -> Self {
        let operations_max = operations_max.unwrap_or(u64::MAX);
        Self { pace, length, operations_max, next: AtomicU64::new(0), start: OnceLock::new() }
    }

    /// Begins it, if no other client has. `cpu` is asked for the processor time so far.
    pub(super) fn begin(&self, cpu: impl FnOnce() -> CpuTime) -> Start {
        *self.start.get_or_init(|| {
            let cpu = cpu();
            Start { at: Instant::now(), cpu }
        })
    }

    /// How it began, if it has.
    pub(super) fn start(&self) -> Option<Start> {
        self.start.get().copied()
    }

    pub(super) fn length(&self) -> Duration {
        self.length
    }

    /// Operations that were taken so far, and the most that there will be.
    pub(super) fn taken(&self) -> (u64, u64) {
        (self.next.load(Ordering::Relaxed).min(self.operations_max), self.operations_max)
    }

    /// The next operation, `elapsed` after the start; `None` once the phase is over.
    ///
    /// In an open loop operations go on to be handed out after the end as long as they were due before it: nobody may
    /// forget those that a slow server has kept from being sent.
    pub(super) fn turn(&self, elapsed: Duration) -> Option<Turn> {
        if matches!(self.pace, Pace::Closed) && elapsed >= self.length {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number >= self.operations_max {
            return None;
        }
        match self.pace {
            Pace::Closed => Some(Turn { number, due: None }),
            Pace::Open { per_second } => {
                let due = due(number, per_second);
                (due < self.length).then_some(Turn { number, due: Some(due) })
            }
        }
    }
}

/// When the operation of this number is due after the start: evenly spaced, the first at once.
fn due(number: u64, per_second: f64) -> Duration {
    Duration::try_from_secs_f64(number as f64 / per_second).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn dues(phase: &Phase, elapsed: Duration) -> Vec<Duration> {
        std::iter::from_fn(|| phase.turn(elapsed)).filter_map(|turn| turn.due).collect()
    }

    #[test]
    fn an_open_loop_has_its_times_whatever_the_server_does() {
        let pace = Pace::Open { per_second: 4.0 };
        let wanted: Vec<Duration> =
            [0, 250, 500, 750].into_iter().map(Duration::from_millis).collect();
        assert_eq!(dues(&Phase::new(pace, SECOND, None), Duration::ZERO), wanted);
        // Long after the end each is still handed out, to be counted as late.
        assert_eq!(dues(&Phase::new(pace, SECOND, None), 9 * SECOND), wanted);
        assert_eq!(dues(&Phase::new(pace, SECOND, Some(2)), Duration::ZERO).len(), 2);
    }

    #[test]
    fn a_rate_may_be_less_than_one_a_second() {
        let phase = Phase::new(Pace::Open { per_second: 0.5 }, 5 * SECOND, None);
        assert_eq!(dues(&phase, Duration::ZERO), [Duration::ZERO, 2 * SECOND, 4 * SECOND]);
        assert_eq!(due(u64::MAX, 1e-300), Duration::MAX);
    }

    #[test]
    fn a_closed_loop_ends_by_time_or_by_number() {
        let phase = Phase::new(Pace::Closed, SECOND, Some(2));
        assert_eq!(phase.turn(Duration::ZERO), Some(Turn { number: 0, due: None }));
        assert_eq!(phase.turn(SECOND), None, "the time is over");
        assert_eq!(phase.turn(Duration::ZERO), Some(Turn { number: 1, due: None }));
        assert_eq!(phase.turn(Duration::ZERO), None, "that were enough");
        assert_eq!(phase.taken(), (2, 2));
    }
}

//! The processor time of the load and of the servers: who of them was busy.

use std::{fs, time::Duration};

/// Of `/proc/<pid>/stat`: `USER_HZ`, which is 100 on every architecture that Tercet runs on.
const TICKS_PER_SECOND: u64 = 100;
/// Where user and system time stand after the name, which ends with the last `)`: fields 14 and 15 of
/// `proc_pid_stat(5)`.
const USER_FIELD: usize = 11;

/// Processor time since the processes began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CpuTime {
    /// Of this process.
    pub(super) client: Duration,
    /// Of all processes of the servers together; `None` if any of them cannot be read.
    pub(super) servers: Option<Duration>,
}

impl CpuTime {
    /// Of this process and of those. Without any, servers have no time.
    pub(super) fn now(pids: &[u32]) -> Self {
        let client = of_process(std::process::id()).unwrap_or_default();
        let servers = match pids {
            [] => None,
            pids => pids.iter().map(|pid| of_process(*pid)).sum::<Option<Duration>>(),
        };
        Self { client, servers }
    }

    /// What was used since then.
    pub(super) fn since(self, start: Self) -> Self {
        let servers = self.servers.zip(start.servers);
        Self {
            client: self.client.saturating_sub(start.client),
            servers: servers.map(|(now, then)| now.saturating_sub(then)),
        }
    }

    /// Both together.
    pub(super) fn add(&mut self, other: Self) {
        self.client += other.client;
        self.servers = match (self.servers, other.servers) {
            (Some(mine), Some(more)) => Some(mine + more),
            (mine, more) => mine.or(more),
        };
    }
}

fn of_process(pid: u32) -> Option<Duration> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(USER_FIELD).map(str::parse::<u64>);
    let ticks = times.next()?.ok()? + times.next()?.ok()?;
    Some(Duration::from_millis(ticks.saturating_mul(1_000 / TICKS_PER_SECOND)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_have_any_name() {
        let stat = "4711 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 30 7 8 20 0 1";
        assert_eq!(parse(stat), Some(Duration::from_millis(1_800)));
        assert_eq!(parse("4711 (a) S 1"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn processes_that_are_gone_have_no_time() {
        let own = std::process::id();
        assert!(CpuTime::now(&[own]).servers.is_some());
        assert_eq!(CpuTime::now(&[own, u32::MAX]).servers, None);
        assert_eq!(CpuTime::now(&[]).servers, None);
    }
}

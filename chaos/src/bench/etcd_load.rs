//! etcd under a closed loop, to compare Tercet's own load with.
//!
//! A slow client would make a slow etcd of any. So the clients are as those of the load: spread over as many threads
//! as there are cores, each with a connection of its own and one call at a time.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, available_parallelism},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use tokio::{
    runtime::{Builder, Runtime},
    sync::Barrier,
    task::JoinSet,
};

use super::etcd_rpc::{Channel, Member};
use crate::{
    content::random_bytes,
    load::{Failure, Figures, Record},
};

/// Before another try to reach a member that took no connection.
const PAUSE: Duration = Duration::from_millis(10);
/// What the values are made of.
const SEED: u64 = 1;

/// A load of etcd: clients set keys that no client has set before, as new tags are.
#[derive(Clone, Copy, Debug)]
pub(super) struct EtcdLoad {
    pub(super) clients: usize,
    pub(super) time: Duration,
    /// As long again before it, which does not count.
    pub(super) warm_up: Duration,
    pub(super) value_bytes: usize,
}

/// What the clients share.
struct Crew {
    load: EtcdLoad,
    members: Vec<Member>,
    pids: Vec<u32>,
    value: Bytes,
    /// All clients pass it together when the warm-up is over.
    ready: Barrier,
    start: OnceLock<Start>,
}

/// The start of what is measured.
struct Start {
    at: Instant,
    /// Has the processor time from here on, and in the end everything.
    record: Result<Record>,
}

/// Measures it once. The members are at `addresses`, as `host:port`, and their processes are `pids`; the clients are
/// spread over them. Must be called outside of any runtime.
///
/// # Errors
/// If the threads cannot be made. What goes wrong with calls is counted, and no error.
pub(super) fn measure(
    load: &EtcdLoad,
    name: &str,
    addresses: &[String],
    pids: &[u32],
) -> Result<Figures> {
    let crew = Arc::new(Crew::new(load, addresses, pids)?);
    let mut records = Vec::new();
    for thread in spawn(&crew)? {
        records.push(thread.join().map_err(|_| anyhow!("a thread of the load has failed"))??);
    }
    let crew = Arc::into_inner(crew).context("a client of the load has not ended")?;
    let mut whole = crew.start.into_inner().context("the load has not begun")?.record?;
    records.iter().for_each(|record| whole.add(record));
    whole.figures(name)
}

impl Crew {
    fn new(load: &EtcdLoad, addresses: &[String], pids: &[u32]) -> Result<Self> {
        ensure!(load.clients > 0 && !addresses.is_empty(), "no client, or no member");
        let members = addresses.iter().map(|address| Member::new(address));
        Ok(Self {
            load: *load,
            members: members.collect::<Result<_>>()?,
            pids: pids.to_vec(),
            value: random_bytes(SEED, load.value_bytes).into(),
            ready: Barrier::new(load.clients),
            start: OnceLock::new(),
        })
    }

    /// A client's connection, always to the same member.
    fn channel(&self, number: usize) -> Option<Channel> {
        let index = number.checked_rem(self.members.len())?;
        self.members.get(index).cloned().map(Channel::new)
    }

    /// Begins what is measured, if no other client has.
    fn begin(&self) -> Instant {
        let begin = || {
            let record = Record::begin(self.load.time, &self.pids);
            Start { at: Instant::now(), record }
        };
        self.start.get_or_init(begin).at
    }
}

/// A key like that of a tag. Never one of an earlier measurement of the same members.
fn new_key() -> Bytes {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("bench/image/t-{}", NEXT.fetch_add(1, Ordering::Relaxed)).into()
}

fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("start a runtime")
}

/// Everything that can fail is made before the first thread begins: the others would wait for its clients for ever.
fn spawn(crew: &Arc<Crew>) -> Result<Vec<thread::JoinHandle<Result<Record>>>> {
    let count = available_parallelism().map_or(1, usize::from).min(crew.load.clients);
    let mut parts = Vec::new();
    for _ in 0..count {
        parts.push((runtime()?, Record::begin(crew.load.time, &[])?));
    }
    let mut threads = Vec::new();
    for (index, (runtime, record)) in parts.into_iter().enumerate() {
        let crew = Arc::clone(crew);
        let thread = thread::Builder::new().name(format!("etcd-load-{index}"));
        let work = move || work(&crew, &runtime, record, (index..crew.load.clients).step_by(count));
        threads.push(thread.spawn(work).context("start a thread")?);
    }
    Ok(threads)
}

/// The clients of one thread.
fn work(
    crew: &Arc<Crew>,
    runtime: &Runtime,
    record: Record,
    numbers: impl Iterator<Item = usize>,
) -> Result<Record> {
    let record = Arc::new(Mutex::new(record));
    runtime.block_on(async {
        let mut clients = JoinSet::new();
        for number in numbers {
            clients.spawn(client(Arc::clone(crew), number, Arc::clone(&record)));
        }
        while let Some(ended) = clients.join_next().await {
            ended.context("a client of the load")?;
        }
        anyhow::Ok(())
    })?;
    let record = record.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(record)
}

/// A client that does one operation at a time.
async fn client(crew: Arc<Crew>, number: usize, record: Arc<Mutex<Record>>) {
    // There is always a member: see `Crew::new`.
    let Some(mut channel) = crew.channel(number) else { return };
    go_through(&crew, &mut channel, Instant::now(), crew.load.warm_up, None).await;
    crew.ready.wait().await;
    go_through(&crew, &mut channel, crew.begin(), crew.load.time, Some(&*record)).await;
}

/// Does operations until the time is over. Those of a warm-up have no record.
async fn go_through(
    crew: &Crew,
    channel: &mut Channel,
    start: Instant,
    length: Duration,
    record: Option<&Mutex<Record>>,
) {
    let mut sent = Instant::now();
    while sent.saturating_duration_since(start) < length {
        let result = channel.put(new_key(), crew.value.clone()).await;
        let now = Instant::now();
        if let Some(record) = record {
            let took = now.saturating_duration_since(sent);
            let at = now.saturating_duration_since(start);
            // The lock is always free: all clients of a record are on one thread.
            record.lock().unwrap_or_else(PoisonError::into_inner).ended(took, at, result);
        }
        sent = now;
        if result == Err(Failure::Connect) {
            tokio::time::sleep(PAUSE).await;
            sent = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::{Etcd, MEMBERS};

    fn load(clients: usize, millis: u64) -> EtcdLoad {
        let time = Duration::from_millis(millis);
        EtcdLoad { clients, time, warm_up: time / 3, value_bytes: 256 }
    }

    #[test]
    fn a_real_etcd_takes_keys() {
        let runtime = Runtime::new().unwrap();
        let etcd = runtime.block_on(Etcd::start()).unwrap();
        let addresses: Vec<String> = (0..MEMBERS).map(|index| etcd.address(index)).collect();
        let figures = measure(&load(4, 300), "etcd", &addresses, &etcd.pids()).unwrap();
        assert!(figures.operations > 0 && figures.latency.p50_us > 0, "{figures:?}");
        assert_eq!(figures.failures(), 0, "{:?}", figures.errors);
        assert!(figures.server_cpu_seconds.is_some());
        etcd.stop().unwrap();
    }

    #[test]
    fn members_that_are_not_there_are_failures_and_not_many_of_them() {
        // Nothing listens on the port for nothing.
        let nobody = ["127.0.0.1:0".to_owned()];
        let figures = measure(&load(2, 50), "etcd", &nobody, &[]).unwrap();
        assert_eq!(figures.errors.get("connect"), Some(&figures.operations));
        assert!((1..=20).contains(&figures.operations), "{}", figures.operations);
        assert!(measure(&load(0, 50), "etcd", &nobody, &[]).is_err());
        assert!(measure(&load(2, 50), "etcd", &[], &[]).is_err());
    }

    #[test]
    fn a_key_is_never_set_twice() {
        let (one, two) = (new_key(), new_key());
        assert!(one.starts_with(b"bench/image/t-") && one != two);
    }
}

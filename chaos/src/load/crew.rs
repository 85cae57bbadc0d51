//! The clients of one measurement, on threads of their own.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use tokio::{
    runtime::{Builder, Runtime},
    sync::Barrier,
    task::JoinSet,
};

use super::{
    connection::Connection,
    cpu::CpuTime,
    operation::{Operator, pull_image},
    options::{Kind, LoadTarget, Pace, Workload},
    phase::Phase,
    plan::Plan,
    progress::Progress,
    site::Site,
    tally::{Sample, Tally},
    timer::Timer,
};

/// Connections of one client of a storm: as many downloads as containerd has at a time.
const STORM_CONNECTIONS: usize = 3;
/// A storm takes as long as it takes; each of its requests has a deadline.
const STORM_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Before another try to reach a server that took no connection.
const PAUSE: Duration = Duration::from_millis(10);
/// Between two pictures of the progress.
const TICK: Duration = Duration::from_millis(200);

/// What one measurement came to.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    pub(super) tally: Tally,
    /// For how long it was measured.
    pub(super) time: Duration,
    /// Processor time that was used meanwhile.
    pub(super) cpu: CpuTime,
}

/// What the clients share.
struct Crew {
    plan: Arc<Plan>,
    sites: Vec<Arc<Site>>,
    pids: Vec<u32>,
    warm_up: Option<Phase>,
    measured: Phase,
    /// All clients pass it together when the warm-up is over.
    ready: Barrier,
}

/// Measures a target once.
///
/// # Errors
/// If the threads cannot be made. What goes wrong with requests is counted, and no error.
pub(super) fn measure(
    plan: &Arc<Plan>,
    target: &LoadTarget,
    sites: &[Arc<Site>],
    progress: &Progress,
) -> Result<Measured> {
    let options = &plan.options;
    let measured = match options.workload {
        Workload::Storm => Phase::new(Pace::Closed, STORM_MAX, Some(options.clients as u64)),
        _ => Phase::new(options.pace, options.time, options.operations_max),
    };
    let warm_up = match options.workload {
        Workload::Storm => None,
        _ => Some(options.warm_up).filter(|time| !time.is_zero()),
    };
    let crew = Arc::new(Crew {
        plan: Arc::clone(plan),
        sites: sites.to_vec(),
        pids: target.pids.clone(),
        warm_up: warm_up.map(|time| Phase::new(options.pace, time, None)),
        measured,
        ready: Barrier::new(options.clients),
    });
    let (ended, all_ended) = mpsc::channel();
    let threads = spawn(&crew, ended)?;
    let at_end = watch(&crew, &all_ended, progress);
    let mut tally = Tally::new(&options.kinds())?;
    for thread in threads {
        tally.add(&thread.join().map_err(|_| anyhow!("a thread of the load has failed"))??);
    }
    let start = crew.measured.start().context("the load has not begun")?;
    let (taken, most) = crew.measured.taken();
    // Where the number of operations ends it, the time is that of the work, and not all that there was.
    let length = crew.measured.length();
    let time = if taken == most { tally.last.min(length) } else { length };
    Ok(Measured { tally, time, cpu: at_end.since(start.cpu) })
}

type Threads = Vec<thread::JoinHandle<Result<Tally>>>;

/// Everything that can fail is made before the first thread begins: the others would wait for its clients for ever.
fn spawn(crew: &Arc<Crew>, ended: Sender<()>) -> Result<Threads> {
    let options = &crew.plan.options;
    let count = options.threads.min(options.clients);
    let mut parts = Vec::new();
    for _ in 0..count {
        let runtime = Builder::new_current_thread().enable_all().build();
        parts.push((runtime.context("start a runtime")?, Tally::new(&options.kinds())?));
    }
    let mut threads = Vec::new();
    for (index, (runtime, tally)) in parts.into_iter().enumerate() {
        let (crew, ended) = (Arc::clone(crew), ended.clone());
        let work = move || {
            let done = work(&crew, &runtime, tally, index, count);
            drop(ended);
            done
        };
        let thread = thread::Builder::new().name(format!("load-{index}"));
        threads.push(thread.spawn(work).context("start a thread")?);
    }
    Ok(threads)
}

/// Waits for the end, and shows how far it is. Returns the processor time as it was when the measurement's time
/// was over.
fn watch(crew: &Crew, all_ended: &Receiver<()>, progress: &Progress) -> CpuTime {
    let mut at_end = None;
    loop {
        let elapsed = crew.measured.start().map(|start| start.at.elapsed());
        let left = elapsed.map(|elapsed| crew.measured.length().saturating_sub(elapsed));
        if left.is_some_and(|left| left.is_zero()) && at_end.is_none() {
            at_end = Some(CpuTime::now(&crew.pids));
        }
        progress.show(elapsed, crew.measured.length(), crew.measured.taken());
        let wait = left.filter(|left| !left.is_zero()).unwrap_or(TICK).min(TICK);
        // Nobody ever sends; the channel ends with the last thread.
        if all_ended.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected) {
            progress.clear();
            return at_end.unwrap_or_else(|| CpuTime::now(&crew.pids));
        }
    }
}

/// The clients of one thread.
fn work(
    crew: &Arc<Crew>,
    runtime: &Runtime,
    tally: Tally,
    index: usize,
    threads: usize,
) -> Result<Tally> {
    let tally = Arc::new(Mutex::new(tally));
    runtime.block_on(async {
        let mut clients = JoinSet::new();
        for number in (index..crew.plan.options.clients).step_by(threads.max(1)) {
            let (crew, tally) = (Arc::clone(crew), Arc::clone(&tally));
            match crew.plan.options.workload {
                Workload::Storm => clients.spawn(storm_client(crew, number, tally)),
                _ => clients.spawn(client(crew, number, tally)),
            };
        }
        while let Some(ended) = clients.join_next().await {
            ended.context("a client of the load")?;
        }
        anyhow::Ok(())
    })?;
    let tally = tally.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(tally)
}

impl Crew {
    /// The server that a client stays with.
    fn site(&self, number: usize) -> Option<Arc<Site>> {
        let index = number.checked_rem(self.sites.len())?;
        self.sites.get(index).cloned()
    }

    fn begin(&self, phase: &Phase) -> Instant {
        phase.begin(|| CpuTime::now(&self.pids)).at
    }
}

/// A client that does one operation at a time.
async fn client(crew: Arc<Crew>, number: usize, tally: Arc<Mutex<Tally>>) {
    // There is always a server: see `prepare`.
    let Some(site) = crew.site(number) else { return };
    let mut operator = Operator::new(site, &crew.plan);
    let timer = Timer::new();
    if let Some(warm_up) = &crew.warm_up {
        go_through(&crew, warm_up, &mut operator, &timer, None).await;
    }
    crew.ready.wait().await;
    go_through(&crew, &crew.measured, &mut operator, &timer, Some(&*tally)).await;
    record(&tally, |tally| tally.traffic.add(operator.connection.traffic()));
}

/// Takes operations as long as there are any. What is not measured is done all the same.
async fn go_through(
    crew: &Crew,
    phase: &Phase,
    operator: &mut Operator,
    timer: &Timer,
    tally: Option<&Mutex<Tally>>,
) {
    let start = crew.begin(phase);
    let end = start + phase.length();
    operator.connection.count_until(Some(end));
    let mut now = Instant::now();
    while let Some(turn) = phase.turn(now.saturating_duration_since(start)) {
        let kind = crew.plan.kind(turn.number);
        let due = turn.due.map_or(now, |due| start + due);
        if let (Some(_), true) = (turn.due, now >= end) {
            if let Some(tally) = tally {
                record(tally, |tally| tally.unsent(kind, now.saturating_duration_since(due)));
            }
            continue;
        }
        if due > now {
            timer.pause(due - now).await;
            now = Instant::now();
        }
        let sent = now;
        let result = operator.operate(&crew.plan, kind, turn.number).await;
        now = Instant::now();
        if let Some(tally) = tally {
            let sample = Sample {
                kind,
                latency: now.saturating_duration_since(due),
                service: now.saturating_duration_since(sent),
                ended: now.saturating_duration_since(start),
                in_time: now < end,
                result,
            };
            record(tally, |tally| {
                tally.record(sample);
                operator.blobs.drain(..).for_each(|time| tally.blobs.record(time));
            });
        }
        // Those of a warm-up do not count.
        operator.blobs.clear();
        if result.is_err_and(|failure| failure.wants_a_pause()) {
            tokio::time::sleep(PAUSE).await;
            now = Instant::now();
        }
    }
}

/// A client that pulls the whole image once, when all do.
async fn storm_client(crew: Arc<Crew>, number: usize, tally: Arc<Mutex<Tally>>) {
    let Some(site) = crew.site(number) else { return };
    let options = &crew.plan.options;
    let count = STORM_CONNECTIONS.min(site.image.len()).max(1);
    let connection = || Connection::new(Arc::clone(&site.endpoint), options.deadline);
    let mut connections: Vec<Connection> = std::iter::repeat_with(connection).take(count).collect();
    crew.ready.wait().await;
    let start = crew.begin(&crew.measured);
    // Counts it: all clients together are the operations of this phase.
    let _ = crew.measured.turn(Duration::ZERO);
    let result = pull_image(&site, &mut connections, options.bodies).await;
    let time = start.elapsed();
    let sample = Sample {
        kind: Kind::Storm,
        latency: time,
        service: time,
        ended: time,
        in_time: true,
        result,
    };
    record(&tally, |tally| {
        tally.record(sample);
        connections.iter().for_each(|connection| tally.traffic.add(connection.traffic()));
    });
}

/// The lock is always free: all clients of a tally are on one thread. It only says so to the compiler.
fn record(tally: &Mutex<Tally>, what: impl FnOnce(&mut Tally)) {
    what(&mut tally.lock().unwrap_or_else(PoisonError::into_inner));
}

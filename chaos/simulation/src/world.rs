//! What all parts of one simulation share: dice, disks, clocks, the trace, and what was seen.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tercet_raft::Consensus;
use tercet_storage::{Clock, DataDir};

use crate::check::Seen;
use crate::disk::{BlobDisk, LogDisk};
use crate::mutation::Mutation;
use crate::net::Net;
use crate::op::History;
use crate::run::Counts;

/// When the simulation begins, in milliseconds since the Unix epoch.
const EPOCH_MS: i64 = 1_800_000_000_000;

/// One simulation. Clones are the same one.
#[derive(Clone)]
pub(crate) struct World(Arc<Mutex<Inner>>);

pub(crate) struct Inner {
    pub(crate) dice: StdRng,
    pub(crate) machines: Vec<Machine>,
    pub(crate) history: History,
    pub(crate) seen: Seen,
    pub(crate) counts: Counts,
    pub(crate) violations: Vec<String>,
    pub(crate) mutation: Option<Mutation>,
    /// How likely a message is lost.
    pub(crate) loss: f64,
    /// The group has formed: clients may begin.
    pub(crate) formed: bool,
    /// Clients stop, faults are over.
    pub(crate) healing: bool,
    trace: Trace,
}

/// A simulated computer with a replica on it.
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) data: DataDir,
    pub(crate) log: Arc<Mutex<LogDisk>>,
    pub(crate) blobs: Arc<Mutex<BlobDisk>>,
    /// The replica, while it runs.
    pub(crate) consensus: Option<Consensus>,
    pub(crate) up: bool,
    /// The last port that a replica listened on here; each start takes another one.
    pub(crate) last_port: u16,
    /// Where its replica listens; `None` while none does.
    pub(crate) port: Option<u16>,
    /// What must go with the replica's process.
    pub(crate) process: Weak<Net>,
    /// What its clock is wrong by, in milliseconds.
    pub(crate) skew_ms: i64,
    /// How long a sync takes at most, in milliseconds.
    pub(crate) sync_ms: u64,
    /// How many disks it has had.
    pub(crate) disks: u32,
    /// The id that its first disk got.
    pub(crate) first_id: Option<u64>,
}

struct Trace {
    hash: u64,
    events: u64,
    lines: Option<Vec<String>>,
}

impl World {
    pub(crate) fn new(seed: u64, mutation: Option<Mutation>, keep_trace: bool) -> Self {
        let inner = Inner {
            dice: StdRng::seed_from_u64(seed),
            machines: Vec::new(),
            history: History::default(),
            seen: Seen::default(),
            counts: Counts::default(),
            violations: Vec::new(),
            mutation,
            loss: 0.0,
            formed: false,
            healing: false,
            trace: Trace {
                hash: 0xcbf2_9ce4_8422_2325,
                events: 0,
                lines: keep_trace.then(Vec::new),
            },
        };
        Self(Arc::new(Mutex::new(inner)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn mutation(&self) -> Option<Mutation> {
        self.lock().mutation
    }

    /// Adds a line to the trace.
    pub(crate) fn note(&self, line: impl FnOnce() -> String) {
        let at = now();
        let line = line();
        self.lock().note_at(at, &line);
    }

    pub(crate) fn violation(&self, what: String) {
        self.note(|| format!("VIOLATION {what}"));
        let mut inner = self.lock();
        if inner.violations.len() < 20 {
            inner.violations.push(what);
        }
    }

    /// How long the next sync of that machine's disk takes.
    pub(crate) fn sync_time(&self, machine: usize) -> Duration {
        let mut inner = self.lock();
        let most = inner.machines.get(machine).map_or(5, |machine| machine.sync_ms);
        Duration::from_millis(inner.dice.random_range(1..=most.max(1)))
    }

    pub(crate) fn chance(&self, likely: f64) -> bool {
        self.lock().dice.random_bool(likely)
    }

    pub(crate) fn below(&self, end: usize) -> usize {
        self.lock().dice.random_range(0..end.max(1))
    }

    pub(crate) fn formed(&self) -> bool {
        self.lock().formed
    }

    pub(crate) fn healing(&self) -> bool {
        self.lock().healing
    }

    pub(crate) fn clock(&self, machine: usize) -> Arc<dyn Clock> {
        Arc::new(SkewedClock { world: self.clone(), machine })
    }

    pub(crate) fn trace_hash(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.trace.hash, inner.trace.events)
    }

    pub(crate) fn take_trace(&self) -> Vec<String> {
        self.lock().trace.lines.take().unwrap_or_default()
    }
}

impl Inner {
    pub(crate) fn note_at(&mut self, at: Duration, line: &str) {
        let trace = &mut self.trace;
        trace.events += 1;
        for byte in at.as_micros().to_le_bytes().iter().chain(line.as_bytes()) {
            trace.hash = (trace.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if let Some(lines) = &mut trace.lines {
            lines.push(format!("{:>9.3}  {line}", at.as_secs_f64()));
        }
    }
}

impl Machine {
    pub(crate) fn new(name: String, root: PathBuf) -> Self {
        Self {
            name,
            data: DataDir::new(root),
            log: Arc::default(),
            blobs: Arc::default(),
            consensus: None,
            up: true,
            last_port: crate::net::PORT,
            port: None,
            process: Weak::new(),
            skew_ms: 0,
            sync_ms: 5,
            disks: 1,
            first_id: None,
        }
    }
}

/// Simulated time since the beginning.
pub(crate) fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

struct SkewedClock {
    world: World,
    machine: usize,
}

impl Clock for SkewedClock {
    fn now_ms(&self) -> u64 {
        let skew =
            self.world.lock().machines.get(self.machine).map_or(0, |machine| machine.skew_ms);
        let since = i64::try_from(now().as_millis()).unwrap_or_default();
        u64::try_from(EPOCH_MS + since + skew).unwrap_or_default()
    }
}

/// FNV-1a, for the trace.
pub(crate) fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

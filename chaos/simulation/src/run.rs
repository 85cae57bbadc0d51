//! One seed from its beginning to its verdict.

use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::faults::Faults;
use crate::mutation::Mutation;
use crate::world::{Machine, World};
use crate::{check, client, node};

/// Time passes in steps of this length; messages arrive between them.
const STEP: Duration = Duration::from_millis(5);
/// Steps between two looks at what must always hold.
const LOOK_EVERY: usize = 10;
/// How long the group may take to form.
const FORMING_MAX: Duration = Duration::from_secs(20);
const CLIENTS: usize = 3;
/// How the name of a seed's folder begins; the process and a number follow.
const SCRATCH: &str = "tercet-simulation-";
/// How long the cluster may take to be whole again once the faults are over. A fetch that failed often waits for
/// up to half a minute.
const HEALING_MAX: Duration = Duration::from_secs(60);

/// How to run a seed.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The rule that is broken, if one is.
    pub mutation: Option<Mutation>,
    /// Whether the trace is kept, line by line.
    pub keep_trace: bool,
    /// How long the faults go on, in simulated time.
    pub faults_for: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { mutation: None, keep_trace: false, faults_for: Duration::from_secs(8) }
    }
}

/// What happened in one seed, or in many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Operations that clients began.
    pub operations: u64,
    /// Of them, those that were answered with what they asked for.
    pub acknowledged: u64,
    /// Of them, those that surely were not done, and reads that were marked stale.
    pub refused: u64,
    /// Of them, those of which nobody knows.
    pub unknown: u64,
    /// Operations on tags whose histories were judged.
    pub judged: u64,
    /// Tags with too many operations to be judged.
    pub unjudged: u64,
    /// Images that were acknowledged and looked for at the end.
    pub kept: u64,
    /// Faults.
    pub faults: u64,
    /// Disks that were replaced by empty ones.
    pub replaced: u64,
    /// Messages that were sent.
    pub messages: u64,
    /// Snapshots that were sent.
    pub snapshots: u64,
    /// Blobs that were fetched by repair.
    pub repaired: u64,
    /// Blobs that the group forgot.
    pub collected: u64,
    /// Files that were removed.
    pub removed: u64,
}

impl Counts {
    /// Adds those of another seed.
    pub fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.judged += other.judged;
        self.unjudged += other.unjudged;
        self.kept += other.kept;
        self.faults += other.faults;
        self.replaced += other.replaced;
        self.messages += other.messages;
        self.snapshots += other.snapshots;
        self.repaired += other.repaired;
        self.collected += other.collected;
        self.removed += other.removed;
    }
}

/// What came of one seed.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The seed.
    pub seed: u64,
    /// What was violated; nothing if all held.
    pub violations: Vec<String>,
    /// What happened.
    pub counts: Counts,
    /// A fingerprint of everything that happened, and when.
    pub trace_hash: u64,
    /// How many events that were.
    pub events: u64,
    /// The events, if they were kept.
    pub trace: Vec<String>,
    /// Simulated time.
    pub elapsed: Duration,
}

/// Runs one seed.
#[must_use]
pub fn simulate(seed: u64, options: &Options) -> Verdict {
    let entered = tercet_raft::simulation::enter(seed);
    let scratch = Scratch::new();
    let world = World::new(seed, options.mutation, options.keep_trace);
    let elapsed = run(seed, &world, options, scratch.path());
    drop(entered);
    let (trace_hash, events) = world.trace_hash();
    let trace = world.take_trace();
    let inner = world.lock();
    let (violations, counts) = (inner.violations.clone(), inner.counts);
    drop(inner);
    Verdict { seed, violations, counts, trace_hash, events, trace, elapsed }
}

fn run(seed: u64, world: &World, options: &Options, scratch: &Path) -> Duration {
    let replicas = match world.below(10) {
        0..7 => 3,
        7 => 4,
        _ => 5,
    };
    let latency = Duration::from_millis([10, 30, 100].get(world.below(3)).copied().unwrap_or(10));
    let loss = [0.0, 0.005, 0.02].get(world.below(3)).copied().unwrap_or_default();
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .tick_duration(STEP)
        .simulation_duration(Duration::from_secs(3_600))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(latency)
        .udp_capacity(4_096)
        .enable_random_order()
        .build();
    let names: Vec<String> = (0..replicas).map(|number| format!("r{number}")).collect();
    for name in &names {
        world.lock().machines.push(Machine::new(name.clone(), scratch.join(name)));
    }
    for (number, name) in names.iter().enumerate() {
        let world = world.clone();
        sim.host(name.as_str(), move || node::run(world.clone(), number));
    }
    for number in 0..CLIENTS {
        sim.client(format!("c{number}"), client::run(world.clone(), number, names.clone()));
    }
    // Now and then the first fault does not wait for the group to form.
    let early = world.below(8) == 0;
    let mut steps = 0;
    let mut step = |sim: &mut turmoil::Sim<'_>| {
        if let Err(error) = sim.step() {
            world.violation(format!("a replica ended: {error}"));
            return false;
        }
        steps += 1;
        if steps % LOOK_EVERY == 0 {
            check::at_every_moment(world);
        }
        world.lock().violations.is_empty()
    };
    while !early && check::not_whole(world).is_some() {
        for _ in 0..LOOK_EVERY {
            if !step(&mut sim) {
                return finish(world, &sim);
            }
        }
        if sim.elapsed() > FORMING_MAX {
            world.violation(format!("the group has not formed in {FORMING_MAX:?}"));
            return finish(world, &sim);
        }
    }
    {
        let mut inner = world.lock();
        (inner.formed, inner.loss) = (true, loss);
    }
    let mut faults = Faults::new(world.clone(), sim.elapsed());
    let over = sim.elapsed() + options.faults_for;
    while sim.elapsed() < over {
        if !step(&mut sim) {
            return finish(world, &sim);
        }
        faults.step(&mut sim);
    }
    faults.heal(&mut sim);
    let end = sim.elapsed() + HEALING_MAX;
    loop {
        for _ in 0..LOOK_EVERY * 2 {
            if !step(&mut sim) {
                return finish(world, &sim);
            }
        }
        let Some(why) = check::not_whole(world) else { break };
        if sim.elapsed() > end {
            world.violation(format!("not whole {HEALING_MAX:?} after the faults: {why}"));
            break;
        }
    }
    check::kept(world);
    check::histories(world);
    finish(world, &sim)
}

/// Lets go of the replicas while their runtimes are there.
fn finish(world: &World, sim: &turmoil::Sim<'_>) -> Duration {
    let mut inner = world.lock();
    let replicas: Vec<_> =
        inner.machines.iter_mut().map(|machine| machine.consensus.take()).collect();
    drop(inner);
    drop(replicas);
    sim.elapsed()
}

/// A folder of its own for what the replicas keep in files.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        static SWEPT: Once = Once::new();
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        SWEPT.call_once(|| remove_abandoned(&parent));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(parent.join(format!("{SCRATCH}{}-{number}", std::process::id())))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Removes the folders of programs that were killed: they are memory.
fn remove_abandoned(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let maker = name.strip_prefix(SCRATCH).and_then(|rest| rest.split_once('-'));
        let Some(Ok(maker)) = maker.map(|(pid, _)| pid.parse::<u32>()) else { continue };
        if !Path::new("/proc").join(maker.to_string()).exists() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

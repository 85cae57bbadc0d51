//! I9: what the processes of the replicas take of the machine stays within bounds.
//!
//! A sampler reads `/proc` all the time. Memory, open files and threads have a maximum; that memory does not grow
//! without end shows in its slope over the second half of a run that is long enough to have one. What a replica takes of
//! its disk is bounded by what clients have sent to the cluster. A scenario may set other bounds before it starts.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::workload::{Invariant, Ledger};

const EVERY: Duration = Duration::from_millis(500);
/// Looks at the processes for each one at the disks, which has to read whole folders.
const LOOKS_PER_DISK: u32 = 10;
/// Samples of a shorter run say nothing about a slope.
const SLOPE_MIN: Duration = Duration::from_secs(600);
const MIB: f64 = 1_048_576.0;

/// What a process may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bounds {
    /// Resident bytes, at the highest.
    pub(crate) memory_max: u64,
    /// Open file descriptors.
    pub(crate) files_max: u64,
    /// Threads.
    pub(crate) threads_max: u64,
    /// Growth of resident bytes in an hour, in the second half of a long run.
    pub(crate) growth_max: u64,
    /// Bytes of the data folder, beside [`DISK_COPIES`] of what clients have sent.
    pub(crate) disk_max: u64,
}

/// A replica keeps each content once; a second time while it is on its way.
const DISK_COPIES: u64 = 2;

impl Default for Bounds {
    /// Several times what a replica takes under the loads of the scenarios, and far below what a leak comes to: at most
    /// 86 MiB, 496 files (a crowd of 300 clients), 77 threads (a disk that is slow) and, beside the content, 131 MiB on
    /// disk were seen in short forms, of which 64 MiB are the reserve for a full disk.
    fn default() -> Self {
        Self {
            memory_max: 512 << 20,
            files_max: 2_048,
            threads_max: 300,
            growth_max: 256 << 20,
            disk_max: 512 << 20,
        }
    }
}

/// What a process took at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sample {
    /// Since the first one.
    seconds: f64,
    /// Of which process.
    pid: u32,
    memory: u64,
    /// Of memory, since the process was started.
    peak: u64,
    files: u64,
    threads: u64,
}

/// The samples of one replica, over all its processes.
#[derive(Clone, Debug, Default)]
struct Taken {
    most: Sample,
    disk: u64,
    /// Of memory, for the slope: thinned out so that it stays small however long the run. Of one process alone: a new
    /// one begins small.
    memory: Vec<(f64, f64)>,
    skip: u64,
    seen: u64,
}

const POINTS_MAX: usize = 2_000;

impl Taken {
    fn add(&mut self, sample: Sample) {
        self.most.peak = self.most.peak.max(sample.peak);
        self.most.files = self.most.files.max(sample.files);
        self.most.threads = self.most.threads.max(sample.threads);
        self.seen += 1;
        if std::mem::replace(&mut self.most.pid, sample.pid) != sample.pid {
            self.memory.clear();
            self.skip = 0;
        }
        if self.seen.is_multiple_of(self.skip + 1) {
            self.memory.push((sample.seconds, sample.memory as f64));
        }
        if self.memory.len() > POINTS_MAX {
            let mut keep = false;
            self.memory.retain(|_| {
                keep = !keep;
                keep
            });
            self.skip = self.skip * 2 + 1;
        }
    }

    /// How long the last process was seen.
    fn lived(&self) -> Duration {
        let (first, last) = (self.memory.first(), self.memory.last());
        let seconds = first.zip(last).map_or(0.0, |(first, last)| last.0 - first.0);
        Duration::from_secs_f64(seconds.max(0.0))
    }

    /// Bytes in an hour, by least squares over the second half.
    fn growth(&self) -> f64 {
        let half = self.memory.get(self.memory.len() / 2..).unwrap_or_default();
        let count = half.len() as f64;
        if count < 2.0 {
            return 0.0;
        }
        let mean = |of: fn(&(f64, f64)) -> f64| half.iter().map(of).sum::<f64>() / count;
        let (time, memory) = (mean(|point| point.0), mean(|point| point.1));
        let over: f64 = half.iter().map(|(x, y)| (x - time) * (y - memory)).sum();
        let under: f64 = half.iter().map(|(x, _)| (x - time).powi(2)).sum();
        if under > 0.0 { over / under * 3_600.0 } else { 0.0 }
    }
}

/// Looks at the processes of one cluster until it is dropped.
#[derive(Debug)]
pub(crate) struct Sampler {
    folder: PathBuf,
    taken: Arc<Mutex<BTreeMap<String, Taken>>>,
    task: JoinHandle<()>,
}

impl Sampler {
    /// Begins with the replicas whose configurations and data are in a folder, whoever starts and kills them when.
    pub(crate) fn start(folder: &Path) -> Self {
        let taken: Arc<Mutex<BTreeMap<String, Taken>>> = Arc::default();
        let (own, samples) = (folder.to_owned(), Arc::clone(&taken));
        let start = Instant::now();
        let task = tokio::spawn(async move {
            for number in 1_u32.. {
                tokio::time::sleep(EVERY).await;
                let folder = own.clone();
                let looked = tokio::task::spawn_blocking(move || {
                    let disks = number.is_multiple_of(LOOKS_PER_DISK).then(|| disks(&folder));
                    (look(&folder), disks.unwrap_or_default())
                });
                let (processes, disks) = looked.await.unwrap_or_default();
                let mut all = samples.lock().unwrap_or_else(PoisonError::into_inner);
                for (replica, mut sample) in processes {
                    sample.seconds = start.elapsed().as_secs_f64();
                    all.entry(replica).or_default().add(sample);
                }
                add_disks(&mut all, disks);
            }
        });
        Self { folder: folder.to_owned(), taken, task }
    }

    /// Judges what was seen. Returns it for the report, by replica.
    pub(crate) fn check(&self, ledger: &Ledger, bounds: Bounds) -> Value {
        let mut all = self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone();
        add_disks(&mut all, disks(&self.folder));
        let sent = ledger.recorder().requests().bytes;
        let mut figures = serde_json::Map::new();
        for (replica, taken) in &all {
            for what in broken(taken, bounds, sent) {
                ledger.violated(Invariant::I9, format!("{replica} {what}"));
            }
            let most = taken.most;
            figures.insert(
                replica.clone(),
                json!({
                    "memory_max_mib": (most.peak as f64 / MIB).round(),
                    // Of a shorter life the slope is that of the warm-up.
                    "memory_growth_mib_per_hour":
                        (taken.lived() > SLOPE_MIN).then(|| (taken.growth() / MIB).round()),
                    "open_files_max": most.files,
                    "threads_max": most.threads,
                    // Not of one that is a file system of its own.
                    "disk_max_mib": (taken.disk > 0).then(|| (taken.disk as f64 / MIB).round()),
                    "samples": taken.seen,
                }),
            );
        }
        figures.insert("sent_mib".to_owned(), (sent as f64 / MIB).round().into());
        if !all.is_empty() {
            ledger.checked(Invariant::I9);
        }
        Value::Object(figures)
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn add_disks(all: &mut BTreeMap<String, Taken>, disks: Vec<(String, u64)>) {
    for (replica, bytes) in disks {
        // Folders of others, such as a client's, are none of a replica.
        if let Some(taken) = all.get_mut(&replica) {
            taken.disk = taken.disk.max(bytes);
        }
    }
}

fn broken(taken: &Taken, bounds: Bounds, sent: u64) -> Vec<String> {
    let most = taken.most;
    let mut broken = Vec::new();
    let mut bound = |what: &str, found: u64, max: u64| {
        if found > max {
            broken.push(format!("had {found} {what}, {max} are allowed"));
        }
    };
    bound("resident bytes", most.peak, bounds.memory_max);
    bound("open files", most.files, bounds.files_max);
    bound("threads", most.threads, bounds.threads_max);
    let disk_max = bounds.disk_max.saturating_add(sent.saturating_mul(DISK_COPIES));
    bound("bytes on its disk", taken.disk, disk_max);
    let growth = taken.growth();
    if taken.lived() > SLOPE_MIN && growth > bounds.growth_max as f64 {
        broken.push(format!(
            "grows by {:.0} MiB an hour, {:.0} are allowed",
            growth / MIB,
            bounds.growth_max as f64 / MIB
        ));
    }
    broken
}

/// What the replicas' processes take now. One that ends meanwhile has nothing to show.
fn look(folder: &Path) -> Vec<(String, Sample)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some((replica_of(&String::from_utf8_lossy(&line), folder)?, sample(pid)?))
    })
    .collect()
}

/// Which replica a command line is of: `tercet serve … --config <folder>/<replica>.toml`, and nothing around it.
fn replica_of(line: &str, folder: &Path) -> Option<String> {
    let words: Vec<&str> = line.split('\0').collect();
    if words.get(1) != Some(&"serve") {
        return None;
    }
    let config = words.iter().map(Path::new).find(|word| {
        word.extension().is_some_and(|end| end == "toml") && word.parent() == Some(folder)
    })?;
    Some(config.file_stem()?.to_str()?.to_owned())
}

fn sample(pid: u32) -> Option<Sample> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
    Some(Sample {
        seconds: 0.0,
        pid,
        memory: field("VmRSS:")? * 1_024,
        peak: field("VmHWM:")? * 1_024,
        files,
        threads: field("Threads:")?,
    })
}

/// What lies in the folders beside the configurations, each called by its replica. One that is a file system of its
/// own is left alone: looking at it would be one more load on a disk that is to fail in just one way, and its size
/// bounds it.
fn disks(folder: &Path) -> Vec<(String, u64)> {
    let Ok(own) = fs::metadata(folder) else { return Vec::new() };
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let named = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let name = entry.file_name().to_str()?.to_owned();
        let config = folder.join(format!("{name}.toml"));
        let data = entry.metadata().ok()?;
        let is_its = data.is_dir() && data.dev() == own.dev() && config.is_file();
        is_its.then(|| (name, bytes_below(&entry.path())))
    });
    named.collect()
}

/// Bytes that the files below a folder take. One that goes meanwhile takes none.
fn bytes_below(folder: &Path) -> u64 {
    const BLOCK: u64 = 512;
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let sizes = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let about = entry.metadata().ok()?;
        Some(if about.is_dir() { bytes_below(&entry.path()) } else { about.blocks() * BLOCK })
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use std::ops::Range;

    use super::*;

    fn taken(seconds: u32, memory: impl Fn(f64) -> f64) -> Taken {
        let mut taken = Taken::default();
        lives(&mut taken, 1, 0..seconds, memory);
        taken
    }

    fn lives(taken: &mut Taken, pid: u32, time: Range<u32>, memory: impl Fn(f64) -> f64) {
        for half in time.start * 2..time.end * 2 {
            let seconds = f64::from(half) / 2.0;
            let memory = memory(seconds) as u64;
            taken.add(Sample { seconds, pid, memory, peak: memory, files: 40, threads: 12 });
        }
    }

    #[test]
    fn growth_is_seen_in_long_runs_and_a_warm_up_is_none() {
        let leak = taken(4_000, |seconds| 50.0 * MIB + seconds * MIB);
        assert!((leak.growth() / MIB - 3_600.0).abs() < 20.0, "{}", leak.growth());
        assert!(leak.memory.len() <= POINTS_MAX);
        assert_eq!(
            broken(&leak, Bounds::default(), 0).len(),
            2,
            "a slope, and in the end the maximum"
        );
        let warm = taken(4_000, |seconds| 50.0 * MIB + seconds.min(900.0) * MIB / 10.0);
        assert_eq!(broken(&warm, Bounds::default(), 0), Vec::<String>::new());
        let short = taken(60, |seconds| seconds * MIB);
        assert_eq!(broken(&short, Bounds::default(), 0), Vec::<String>::new());
        // Killed when it had warmed up, and again: each new process begins small.
        let mut restarted = Taken::default();
        for pid in 0..20 {
            let start = pid * 300;
            let warms = |seconds| 50.0 * MIB + (seconds - f64::from(start)) * MIB / 4.0;
            lives(&mut restarted, pid, start..start + 300, warms);
        }
        assert_eq!(broken(&restarted, Bounds::default(), 0), Vec::<String>::new());
        let many = Bounds { files_max: 39, threads_max: 11, ..Bounds::default() };
        assert_eq!(broken(&short, many, 0).len(), 2);
    }

    #[test]
    fn a_disk_may_hold_what_was_sent_and_not_much_more() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("tercet-1");
        fs::create_dir_all(data.join("blobs")).unwrap();
        fs::create_dir_all(folder.path().join("else")).unwrap();
        fs::write(folder.path().join("tercet-1.toml"), "").unwrap();
        fs::write(data.join("blobs").join("one"), vec![1; 3 << 20]).unwrap();
        let found = disks(folder.path());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].0 == "tercet-1" && found[0].1 >= 3 << 20, "{found:?}");
        let taken = Taken { disk: 3 << 20, ..Taken::default() };
        let bounds = Bounds { disk_max: 1 << 20, ..Bounds::default() };
        assert_eq!(broken(&taken, bounds, 0).len(), 1);
        assert_eq!(broken(&taken, bounds, 1 << 20), Vec::<String>::new());
    }

    #[test]
    fn a_replica_is_known_by_its_configuration() {
        let folder = Path::new("/tmp/c");
        let line = "/x/tercet\0serve\0--exit-with-parent\0--config\0/tmp/c/tercet-1.toml\0";
        assert_eq!(replica_of(line, folder).as_deref(), Some("tercet-1"));
        assert_eq!(replica_of(line, Path::new("/tmp/d")), None);
        // What starts it is not it.
        assert_eq!(replica_of(&format!("ip\0netns\0exec\0a\0{line}"), folder), None);
    }

    #[test]
    fn this_process_has_memory_files_and_threads() {
        let own = sample(std::process::id()).unwrap();
        assert!(own.memory > 1_000_000 && own.files > 2 && own.threads > 0, "{own:?}");
        assert_eq!(sample(u32::MAX), None);
    }
}

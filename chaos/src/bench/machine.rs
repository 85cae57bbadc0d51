//! What everything was measured on, and with which programs.

use std::{
    env,
    fs::{self, File},
    io::{Seek as _, SeekFrom, Write as _},
    path::Path,
    thread::available_parallelism,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::Serialize;

use super::series::{median, quantile};
use crate::{binary::Binary, tools::Tool};

/// Syncs that are timed.
const SYNCS: usize = 50;
/// What is written before each of them.
const SYNC_BYTES: usize = 4_096;
/// Above this share of the cores there was somebody else.
const BUSY_MAX: f64 = 0.1;
/// How long is looked at who uses them.
const LOOK: Duration = Duration::from_secs(1);

/// The machine, as far as it matters to the figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Machine {
    pub(super) processor: String,
    /// Whether it is a guest of another machine, which may have other guests.
    pub(super) guest: bool,
    pub(super) cores: usize,
    pub(super) memory_gib: f64,
    pub(super) kernel: String,
    pub(super) system: String,
    /// Of the folder that the servers wrote to.
    pub(super) file_system: String,
    /// Until 4 KiB were on the disk, half of the time.
    pub(super) sync_p50_ms: f64,
    /// The same, 99 times in 100.
    pub(super) sync_p99_ms: f64,
    /// Cores that somebody else used before the start.
    pub(super) busy_cores: f64,
}

impl Machine {
    /// Looks at this machine, but not at who uses it: see [`busy_cores`]. `folder` is where the servers will write to.
    ///
    /// # Errors
    /// If nothing can be written there.
    pub(super) fn look(folder: &Path) -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let processors = read("/proc/cpuinfo");
        let (sync_p50_ms, sync_p99_ms) = time_syncs(folder)?;
        Ok(Self {
            processor: value(&processors, "model name", ':').unwrap_or("unknown").to_owned(),
            guest: value(&processors, "flags", ':')
                .is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor")),
            cores: available_parallelism().map_or(1, usize::from),
            memory_gib: memory_gib(&read("/proc/meminfo")),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            system: value(&read("/etc/os-release"), "PRETTY_NAME", '=')
                .map_or_else(|| "unknown".to_owned(), |name| name.trim_matches('"').to_owned()),
            file_system: file_system(&read("/proc/self/mounts"), folder),
            sync_p50_ms,
            sync_p99_ms,
            busy_cores: 0.0,
        })
    }

    /// Whether something else was running when the run began.
    pub(super) fn was_busy(&self) -> bool {
        self.busy_cores > BUSY_MAX * self.cores as f64
    }
}

/// How many cores are in use while this does nothing.
pub(super) async fn busy_cores() -> f64 {
    let idle_seconds = || -> Option<f64> {
        let text = fs::read_to_string("/proc/uptime").ok()?;
        text.split_whitespace().nth(1)?.parse().ok()
    };
    let (before, start) = (idle_seconds(), Instant::now());
    tokio::time::sleep(LOOK).await;
    let cores = available_parallelism().map_or(1.0, |cores| cores.get() as f64);
    let idle = before.zip(idle_seconds()).map_or(f64::NAN, |(before, after)| after - before);
    (cores - idle / start.elapsed().as_secs_f64()).max(0.0)
}

/// The value of a line `name = value`.
fn value<'a>(text: &'a str, name: &str, separator: char) -> Option<&'a str> {
    let mut fields = text.lines().filter_map(|line| line.split_once(separator));
    fields.find(|(found, _)| found.trim() == name).map(|(_, value)| value.trim())
}

fn memory_gib(text: &str) -> f64 {
    let kilobytes = value(text, "MemTotal", ':').and_then(|size| size.split_whitespace().next());
    let kilobytes: f64 = kilobytes.and_then(|size| size.parse().ok()).unwrap_or_default();
    kilobytes / f64::from(1 << 20)
}

/// The type of what is mounted where the folder is: the longest of the mount points before it.
fn file_system(mounts: &str, folder: &Path) -> String {
    let fields = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
    };
    let around = mounts.lines().filter_map(fields).filter(|(at, _)| folder.starts_with(at));
    let nearest = around.max_by_key(|(at, _)| at.len());
    nearest.map_or_else(|| "unknown".to_owned(), |(_, kind)| kind)
}

/// What a write costs that has to be on the disk: the median, and the longest but few, in milliseconds.
fn time_syncs(folder: &Path) -> Result<(f64, f64)> {
    let path = folder.join("sync-test");
    let mut file = File::create(&path).with_context(|| format!("make {}", path.display()))?;
    let mut times = Vec::new();
    for _ in 0..SYNCS {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&[7; SYNC_BYTES])?;
        let start = Instant::now();
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    fs::remove_file(&path)?;
    Ok((median(&times), quantile(&times, 0.99)))
}

/// A program, and what it says that it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Version {
    pub(super) name: String,
    pub(super) version: String,
}

/// The versions of everything that is compared; of what is not on this machine, that.
pub(super) async fn versions() -> Vec<Version> {
    let mut versions = vec![registry().await];
    for (name, program, argument) in [
        ("nginx", "nginx", "-v"),
        ("Distribution", "docker-registry", "--version"),
        ("etcd", "etcd", "--version"),
    ] {
        versions.push(Version { name: name.to_owned(), version: said(program, argument).await });
    }
    versions
}

async fn registry() -> Version {
    let version = match Binary::locate() {
        Ok(binary) => {
            let said = Tool::at(binary.path()).run(&["--version"]).await;
            let said = said.map_or_else(|_| "unknown".to_owned(), |said| first_line(&said.all()));
            // The folder says how it was built.
            let profile = binary.path().parent().and_then(Path::file_name).unwrap_or_default();
            match env::var_os("TERCET_BIN") {
                None => format!("{said} ({} build)", profile.to_string_lossy()),
                Some(_) => format!("{said} (named by TERCET_BIN)"),
            }
        }
        Err(_) => "not on this machine".to_owned(),
    };
    Version { name: "Tercet".to_owned(), version }
}

async fn said(program: &str, argument: &str) -> String {
    let Ok(tool) = Tool::find(program) else { return "not on this machine".to_owned() };
    // Some write it to one output, some to the other.
    tool.run(&[argument])
        .await
        .map_or_else(|_| "unknown".to_owned(), |said| first_line(&said.all()))
}

/// Without the folder of the program, if it says its path.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim();
    match line.split_once(' ') {
        Some((path, rest)) if path.starts_with('/') => {
            let name = path.rsplit('/').next().unwrap_or_default();
            format!("{name} {rest}")
        }
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_understood() {
        let info = "processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\nflags\t\t: fpu hypervisor\n";
        assert_eq!(value(info, "model name", ':'), Some("Some CPU @ 3 GHz"));
        assert_eq!(value(info, "cache", ':'), None);
        assert!((memory_gib("MemTotal:       8388608 kB\n") - 8.0).abs() < 1e-9);
        assert!(memory_gib("").abs() < 1e-9);
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /home tmpfs rw 0 0\n/dev/b /home/c xfs rw 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/home/c/d")), "xfs");
        assert_eq!(file_system(mounts, Path::new("/home/cd")), "tmpfs");
        assert_eq!(file_system("", Path::new("/")), "unknown");
    }

    #[test]
    fn this_machine_has_a_core_and_a_disk() {
        let folder = std::env::temp_dir();
        let machine = Machine::look(&folder).unwrap_or_default();
        assert!(machine.cores > 0 && machine.sync_p50_ms <= machine.sync_p99_ms, "{machine:?}");
    }
}

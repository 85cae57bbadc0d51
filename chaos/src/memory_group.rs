//! A bound on the memory of a process, kept by the kernel.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, bail};

use crate::launch::Launch;

/// Behind it stands the process that made the group, and a number.
const PREFIX: &str = "tercet-chaos-";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A memory cgroup of its own, of version 1 or 2, whichever the machine has. Removed when dropped, which the
/// processes in it must not outlive.
#[derive(Debug)]
pub struct MemoryGroup {
    folder: PathBuf,
    files: Files,
}

/// How one version names what it counts.
#[derive(Clone, Copy, Debug)]
struct Files {
    limit: &'static str,
    peak: &'static str,
    kills: &'static str,
}

const VERSION_1: Files = Files {
    limit: "memory.limit_in_bytes",
    peak: "memory.max_usage_in_bytes",
    kills: "memory.oom_control",
};
const VERSION_2: Files = Files { limit: "memory.max", peak: "memory.peak", kills: "memory.events" };

impl MemoryGroup {
    /// A group whose processes may use so many bytes together, page cache included. Needs root.
    pub fn new(bytes: u64) -> Result<Self> {
        let (parent, files) = hierarchy()?;
        remove_abandoned(&parent);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = parent.join(format!("{PREFIX}{}-{number}", process::id()));
        fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        let group = Self { folder, files };
        let limit = group.folder.join(files.limit);
        fs::write(&limit, bytes.to_string()).with_context(|| format!("{}", limit.display()))?;
        Ok(group)
    }

    /// Starts a process inside it.
    #[must_use]
    pub fn launch(&self) -> Launch {
        let enter = format!("echo $$ > '{}/cgroup.procs' && exec \"$@\"", self.folder.display());
        Launch::default().through(&["sh", "-c", &enter, "sh"])
    }

    /// Processes that the kernel has killed because nothing could be taken back from them.
    pub fn kills(&self) -> Result<u64> {
        let text = self.read(self.files.kills)?;
        let found = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Ok(found.with_context(|| format!("no oom_kill in {text}"))?.trim().parse()?)
    }

    /// The most bytes that were ever in use, page cache included.
    pub fn peak(&self) -> Result<u64> {
        Ok(self.read(self.files.peak)?.trim().parse()?)
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.folder.join(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // One with processes in it stays, until another run finds it empty.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Those of programs that were killed. One that still has processes in it refuses.
fn remove_abandoned(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        if maker(&entry.file_name().to_string_lossy()).is_some_and(is_gone) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// The process that made a group of this name, if it is one of ours.
fn maker(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

fn is_gone(pid: u32) -> bool {
    !Path::new("/proc").join(pid.to_string()).exists()
}

fn hierarchy() -> Result<(PathBuf, Files)> {
    let version_1 = Path::new("/sys/fs/cgroup/memory");
    if version_1.join(VERSION_1.limit).is_file() {
        return Ok((version_1.to_path_buf(), VERSION_1));
    }
    for place in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        let controllers = fs::read_to_string(Path::new(place).join("cgroup.controllers"));
        if controllers.is_ok_and(|names| names.split_whitespace().any(|name| name == "memory")) {
            // Children have the controller only if their parent hands it down.
            let handed_down = Path::new(place).join("cgroup.subtree_control");
            fs::write(&handed_down, "+memory")
                .with_context(|| format!("{}", handed_down.display()))?;
            return Ok((PathBuf::from(place), VERSION_2));
        }
    }
    bail!("no memory cgroup is mounted: neither version 1 nor 2")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_groups_of_programs_that_are_gone_are_removed() {
        assert_eq!(maker("tercet-chaos-17-0"), Some(17));
        assert_eq!(maker("tercet-chaos-all"), None);
        assert_eq!(maker("system.slice"), None);

        // In an ordinary folder, where `remove_dir` refuses one that is not empty, as the kernel does.
        let parent = tempfile::tempdir().unwrap();
        let own = format!("{PREFIX}{}-0", process::id());
        // Beyond the largest process id of Linux.
        let gone = format!("{PREFIX}{}-0", 1_u32 << 23);
        let busy = format!("{PREFIX}{}-1", 1_u32 << 23);
        for name in [own.as_str(), &gone, &busy, "other"] {
            fs::create_dir(parent.path().join(name)).unwrap();
        }
        fs::write(parent.path().join(&busy).join("process"), "").unwrap();
        remove_abandoned(parent.path());
        let is_there = |name: &str| parent.path().join(name).is_dir();
        assert!(is_there(&own) && is_there(&busy) && is_there("other"));
        assert!(!is_there(&gone));
    }
}

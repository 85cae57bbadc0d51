//! What a disk shall do wrong from now on.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fuser::Errno;

/// What a process asks of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Bytes of a file.
    Read,
    /// Bytes into a file.
    Write,
    /// Space for bytes that may come, or given back when a file is closed. RocksDB asks for both, and goes on without.
    Space,
    /// A new name: of a file, a directory or a link.
    Create,
    /// `fsync` and `fdatasync`, of a file or a directory.
    Sync,
}

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// EIO. Of a failed write nothing is written; a failed sync makes nothing durable.
    Error,
    /// ENOSPC.
    NoSpace,
    /// It takes so much longer.
    Slow(Duration),
    /// Only the first half of a write is written, and the count says so.
    Short,
}

/// One fault.
#[derive(Clone, Debug)]
pub(crate) struct DiskFault {
    /// Of which calls.
    pub(crate) calls: &'static [Call],
    /// Of which files: those below this path, which is relative to the top of the disk. Empty: all.
    pub(crate) below: PathBuf,
    /// What happens to them.
    pub(crate) effect: Effect,
    /// Which ones, counted from 1; else all.
    pub(crate) which: Option<RangeInclusive<u64>>,
}

impl DiskFault {
    /// Every call below a path.
    pub(crate) fn always(calls: &'static [Call], below: &str, effect: Effect) -> Self {
        Self { calls, below: below.into(), effect, which: None }
    }

    /// One call below a path: the n-th from now on.
    pub(crate) fn once(calls: &'static [Call], below: &str, effect: Effect, number: u64) -> Self {
        Self { calls, below: below.into(), effect, which: Some(number..=number) }
    }
}

/// RocksDB's diary, which nobody reads: a write of it that fails harms nothing, and nobody is told.
const DIARY: &str = "LOG";

#[derive(Debug)]
struct Active {
    fault: DiskFault,
    calls: u64,
    hits: u64,
    /// The file that was hit last.
    last: PathBuf,
}

/// The faults of one disk.
#[derive(Debug, Default)]
pub(super) struct DiskFaults {
    any: AtomicBool,
    active: Mutex<Vec<Active>>,
}

impl DiskFaults {
    fn active(&self) -> MutexGuard<'_, Vec<Active>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, fault: DiskFault) {
        self.active().push(Active { fault, calls: 0, hits: 0, last: PathBuf::new() });
        self.any.store(true, Ordering::Release);
    }

    /// Ends all of them. Returns how often they happened.
    pub(super) fn clear(&self) -> u64 {
        self.any.store(false, Ordering::Release);
        self.active().drain(..).map(|active| active.hits).sum()
    }

    /// The files that the faults have hit last, one for each fault that has hit any.
    pub(super) fn hit(&self) -> Vec<PathBuf> {
        let active = self.active();
        active.iter().filter(|active| active.hits > 0).map(|active| active.last.clone()).collect()
    }

    /// What comes of this call. Takes the time that it takes. `path` is asked for only if it matters.
    pub(super) fn meet(&self, call: Call, path: impl FnOnce() -> PathBuf) -> Met {
        if !self.any.load(Ordering::Acquire) {
            return Met::Well;
        }
        let path = path();
        let mut met = Met::Well;
        let mut pause = Duration::ZERO;
        for active in self.active().iter_mut().filter(|active| active.concerns(call, &path)) {
            active.calls += 1;
            if active.fault.which.as_ref().is_some_and(|which| !which.contains(&active.calls)) {
                continue;
            }
            active.hits += 1;
            active.last.clone_from(&path);
            match active.fault.effect {
                Effect::Error => met = Met::Failed(Errno::EIO),
                Effect::NoSpace => met = Met::Failed(Errno::ENOSPC),
                Effect::Slow(time) => pause += time,
                Effect::Short if matches!(met, Met::Well) => met = Met::Short,
                Effect::Short => {}
            }
        }
        if !pause.is_zero() {
            // A thread of this disk alone; it has enough of them.
            #[allow(clippy::disallowed_methods)]
            std::thread::sleep(pause);
        }
        met
    }
}

impl Active {
    fn concerns(&self, call: Call, path: &Path) -> bool {
        self.fault.calls.contains(&call)
            && path.starts_with(&self.fault.below)
            && path.file_name().is_none_or(|name| name != DIARY)
    }
}

/// What a call came to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Met {
    Well,
    Short,
    Failed(Errno),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(faults: &DiskFaults, call: Call, path: &str) -> bool {
        matches!(faults.meet(call, || path.into()), Met::Failed(_))
    }

    #[test]
    fn a_fault_happens_to_its_calls_and_paths_and_as_often_as_wanted() {
        let faults = DiskFaults::default();
        assert!(!fails(&faults, Call::Sync, "log/1.log"));
        faults.add(DiskFault::once(&[Call::Sync], "log", Effect::Error, 2));
        assert!(!fails(&faults, Call::Sync, "log/1.log"));
        assert!(!fails(&faults, Call::Write, "log/1.log"));
        assert!(!fails(&faults, Call::Sync, "log/LOG"));
        assert!(!fails(&faults, Call::Sync, "state/1.log"));
        assert!(fails(&faults, Call::Sync, "log/2.log"));
        assert!(!fails(&faults, Call::Sync, "log/2.log"));
        assert_eq!(faults.hit(), [PathBuf::from("log/2.log")]);
        assert_eq!(faults.clear(), 1);
        faults.add(DiskFault::always(&[Call::Write, Call::Create], "", Effect::NoSpace));
        assert!(fails(&faults, Call::Write, "a") && fails(&faults, Call::Create, "b/c"));
        assert_eq!(faults.clear(), 2);
        assert!(!fails(&faults, Call::Write, "a"));
    }
}

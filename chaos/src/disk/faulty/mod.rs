//! A disk whose power can fail: a file system in user space (FUSE) that knows what was synced.
//!
//! **The model.** Everything that a process does is seen by all processes at once. What would be found after a loss of
//! power is less: the strict reading of POSIX, with one concession.
//!
//! - The bytes and the length of a file are durable when it is synced (`fsync`, `fdatasync`), all that were written
//!   until then. That makes no name durable, not even the file's own.
//! - A name (of a new file, directory or link, after a rename or a removal) is durable when its directory is synced,
//!   and with it everything earlier that it builds on. A directory without a durable name is lost with all in it.
//! - The concession: a rename is all or nothing, also one between two directories, since every file system with a
//!   journal keeps it so. It is durable with either of the two.
//! - Permissions and times are always durable: nothing in the registry hangs on them.
//! - As in any kernel, what was not synced may still be written back: beyond 20 000 names, the older half; beyond 128 MiB of
//!   one file, all of that file.
//!
//! When the power goes ([`FaultyDisk::lose_power`]) what is not durable is lost, or part of it is not: see
//! [`PowerLoss`]. Before, [`FaultyDisk::cut`] freezes what is durable at one instant, so that several disks can lose
//! power together while the processes on them are still being killed.
//!
//! **Faults.** [`FaultyDisk::inject`]: errors, no space, short writes and delays, by call and path, once or always.
//!
//! **How.** The bytes lie in a folder beside the mount, as processes see them, one file for each, named by a number. In memory
//! are the names, and for each file the writes since its last sync with what they replaced. Pages that the kernel has
//! cached are dropped by mounting the disk anew. Locks and memory maps are the kernel's own affair.

mod content;
mod faults;
mod names;
mod serve;
mod tree;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use fuser::{BackgroundSession, Config, MountOption};
use rand::rngs::StdRng;

use self::{
    serve::{Disk, Server},
    tree::Tree,
};
use super::volume::detach;
use crate::not_shown::{OrNotShown as _, ensure_shown};

pub(crate) use self::{
    content::DataLoss,
    faults::{Call, DiskFault, Effect},
    tree::Lost,
};

/// Some of them may sleep in a slow call.
const THREADS: usize = 6;
/// How long the kernel may take to let go of a disk that nobody uses.
const RELEASE_MAX: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

/// What becomes of names that were not synced when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameLoss {
    /// None has reached the disk.
    Forgotten,
    /// All have, though the bytes of the files need not have: a journal was written, and nothing else.
    Kept,
    /// The first ones have, a random number of them.
    Partly,
}

/// What a loss of power leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PowerLoss {
    /// Of the bytes.
    pub(crate) data: DataLoss,
    /// Of the names.
    pub(crate) names: NameLoss,
}

/// A disk of its own for a replica. Needs root and `/dev/fuse`. Taken off on drop, also under a process that still uses it.
#[derive(Debug)]
pub(crate) struct FaultyDisk {
    mounted_at: PathBuf,
    folder: PathBuf,
    disk: Arc<Disk>,
    session: Option<BackgroundSession>,
}

impl FaultyDisk {
    /// An empty disk at `folder`, which is made if missing. Its bytes lie beside it.
    pub(crate) fn mount(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let bytes = folder.with_extension("disk");
        let disk = Arc::new(Disk::new(bytes.clone(), Tree::new(bytes.clone())?));
        let mut new = Self { mounted_at: folder.to_path_buf(), folder: bytes, disk, session: None };
        new.attach()?;
        Ok(new)
    }

    fn attach(&mut self) -> Result<()> {
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("tercet-chaos".to_owned()),
            MountOption::Subtype("faulty".to_owned()),
            MountOption::DefaultPermissions,
        ];
        config.n_threads = Some(THREADS);
        config.clone_fd = true;
        let server = Server(Arc::clone(&self.disk));
        let session = fuser::spawn_mount(server, &self.mounted_at, &config)
            .with_context(|| format!("mount a FUSE disk at {}", self.mounted_at.display()))
            .or_not_shown()?;
        self.session = Some(session);
        Ok(())
    }

    /// Takes it off. What the kernel has cached of it is gone afterwards.
    fn detach(&mut self) -> Result<()> {
        let Some(session) = self.session.take() else { return Ok(()) };
        detach(&self.mounted_at).or_not_shown()?;
        let start = Instant::now();
        while !session.guard.is_finished() {
            ensure_shown!(
                start.elapsed() < RELEASE_MAX,
                "{} is still in use: kill its processes before",
                self.mounted_at.display()
            );
            // The kernel has a few milliseconds of work, and nobody else waits for this thread.
            #[allow(clippy::disallowed_methods)]
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// The power goes now: nothing becomes durable any more. Every call fails until [`Self::lose_power`].
    pub(crate) fn cut(&self) {
        self.disk.off.store(true, Ordering::Release);
        // A call that was let through before has ended when the lock is free.
        drop(self.disk.tree());
    }

    /// The power is back, and what was not durable is lost. No process may use the disk.
    pub(crate) fn lose_power(&mut self, loss: PowerLoss, random: &mut StdRng) -> Result<Lost> {
        self.detach()?;
        let lost = self.disk.tree().lose(loss, random).or_not_shown()?;
        self.disk.off.store(false, Ordering::Release);
        self.attach()?;
        Ok(lost)
    }

    /// The disk is replaced by an empty one. No process may use it.
    pub(crate) fn replace(&mut self) -> Result<()> {
        self.detach()?;
        self.disk = Arc::new(Disk::new(self.folder.clone(), Tree::new(self.folder.clone())?));
        self.attach()
    }

    /// From now on the disk does this wrong.
    pub(crate) fn inject(&self, fault: DiskFault) {
        self.disk.faults.add(fault);
    }

    /// The files that its faults have hit last.
    pub(crate) fn hit(&self) -> Vec<PathBuf> {
        self.disk.faults.hit()
    }

    /// The disk works again. Returns how often its faults have happened.
    pub(crate) fn repair(&self) -> u64 {
        self.disk.faults.clear()
    }
}

impl Drop for FaultyDisk {
    fn drop(&mut self) {
        // One that was taken off already is what we want; the threads end with the last user.
        let _ = detach(&self.mounted_at);
        drop(self.session.take());
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests;

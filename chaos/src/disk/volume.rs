//! A small file system of its own for a replica's data.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    fs::{FallocateFlags, StatVfs, fallocate, statvfs, syncfs},
    io::Errno,
};

/// What takes the space away, in the volume's own root.
const FILLER: &str = "filler";
const INODE_FILLER: &str = "inode-filler";
/// Files to a folder of the inode filler.
const FILES_PER_FOLDER: usize = 1_000;

/// How large a volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeSpec {
    /// Bytes of the image.
    pub bytes: u64,
    /// Inodes, if not as many as ext4 gives by itself.
    pub inodes: Option<u64>,
}

/// An ext4 in an image file, mounted where a replica keeps its data. Needs root. It is unmounted on drop,
/// also under a process that still uses it.
#[derive(Debug)]
pub struct SmallVolume {
    mounted_at: PathBuf,
    image: PathBuf,
}

impl SmallVolume {
    /// Makes a volume and mounts it at `folder`, which is made if missing. The image lies beside it.
    pub fn mount(folder: &Path, spec: VolumeSpec) -> Result<Self> {
        let image = folder.with_extension("ext4");
        File::create(&image)?.set_len(spec.bytes)?;
        let mut make = Command::new("mkfs.ext4");
        // Nothing for root: the replicas of the tests are root, and their volume must be full for them.
        make.args(["-q", "-F", "-m", "0"]);
        if let Some(inodes) = spec.inodes {
            make.args(["-N", &inodes.to_string()]);
        }
        run(make.arg(&image))?;
        fs::create_dir_all(folder)?;
        run(Command::new("mount")
            .args(["-o", "loop"])
            .args([image.as_os_str(), folder.as_os_str()]))?;
        Ok(Self { mounted_at: folder.to_path_buf(), image })
    }

    /// Takes bytes away until only about `left` are.
    pub fn fill(&self, left: u64) -> Result<()> {
        let filler = File::options().create(true).append(true).open(self.path(FILLER))?;
        // What was removed a moment ago comes back only when the journal is written.
        syncfs(&filler)?;
        self.fill_now(&filler, left)?;
        syncfs(&filler)?;
        self.fill_now(&filler, left)
    }

    fn fill_now(&self, filler: &File, left: u64) -> Result<()> {
        loop {
            let surplus = self.available()?.saturating_sub(left);
            if surplus < self.stat()?.f_frsize {
                return Ok(());
            }
            let length = filler.metadata()?.len();
            // The file system needs some of it for itself, so smaller and smaller steps reach the end.
            let mut step = surplus;
            while let Err(error) = fallocate(filler, FallocateFlags::empty(), length, step) {
                ensure!(error == Errno::NOSPC, "fill {}: {error}", self.mounted_at.display());
                step /= 2;
                if step == 0 {
                    return Ok(());
                }
            }
        }
    }

    /// Takes inodes away until only `left` are.
    pub fn fill_inodes(&self, left: u64) -> Result<()> {
        let root = self.path(INODE_FILLER);
        let mut number = 0_usize;
        while self.inodes_available()? > left {
            let folder = root.join((number / FILES_PER_FOLDER).to_string());
            if number.is_multiple_of(FILES_PER_FOLDER) {
                fs::create_dir_all(&folder)?;
            }
            match File::create(folder.join(number.to_string())) {
                Ok(mut file) => file.flush()?,
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            number += 1;
        }
        Ok(())
    }

    /// Gives everything back that was taken away.
    pub fn free(&self) -> Result<()> {
        for result in
            [fs::remove_file(self.path(FILLER)), fs::remove_dir_all(self.path(INODE_FILLER))]
        {
            match result {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Bytes that a process can still use.
    pub fn available(&self) -> Result<u64> {
        let stat = self.stat()?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    /// Files that a process can still make.
    pub fn inodes_available(&self) -> Result<u64> {
        Ok(self.stat()?.f_favail)
    }

    /// Takes it off. Fails while a process uses it.
    pub fn unmount(self) -> Result<()> {
        run(Command::new("umount").arg(&self.mounted_at))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.mounted_at.join(name)
    }

    fn stat(&self) -> Result<StatVfs> {
        statvfs(&self.mounted_at).with_context(|| format!("stat {}", self.mounted_at.display()))
    }
}

impl Drop for SmallVolume {
    fn drop(&mut self) {
        // One that was taken off already is what we want. The loop device goes with its last user.
        let _ = detach(&self.mounted_at);
        let _ = fs::remove_file(&self.image);
    }
}

/// Takes off what a killed run left mounted below a folder.
pub(crate) fn unmount_below(folder: &Path) {
    let Ok(mounts) = fs::read_to_string("/proc/self/mounts") else { return };
    for place in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        if Path::new(place).starts_with(folder) {
            let _ = detach(Path::new(place));
        }
    }
}

/// Takes a volume off at once, whoever uses it.
pub(super) fn detach(folder: &Path) -> Result<()> {
    run(Command::new("umount").arg("--lazy").arg(folder))
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_os_string();
    let output = command.output().with_context(|| format!("run {}", display(&program)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed with {}: {}", display(&program), output.status, said.trim());
    }
    Ok(())
}

fn display(program: &OsStr) -> String {
    program.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use std::fs::write;

    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_volume_is_filled_to_the_last_byte_and_the_last_inode_and_freed() {
        let scratch = Scratch::new().unwrap();
        let folder = scratch.path().join("data");
        let spec = VolumeSpec { bytes: 64 << 20, inodes: Some(500) };
        let volume = SmallVolume::mount(&folder, spec).unwrap();
        let (bytes, inodes) = (volume.available().unwrap(), volume.inodes_available().unwrap());
        assert!(bytes > 32 << 20 && inodes < 600, "{bytes} bytes, {inodes} inodes");

        volume.fill(1 << 20).unwrap();
        assert!(volume.available().unwrap() <= 1 << 20);
        write(folder.join("small"), [1; 4096]).unwrap();
        volume.fill(0).unwrap();
        assert!(write(folder.join("too-much"), [1; 4096]).is_err());
        volume.free().unwrap();

        volume.fill_inodes(0).unwrap();
        assert!(write(folder.join("one-more"), b"").is_err());
        volume.free().unwrap();
        write(folder.join("one-more"), b"").unwrap();
        assert!(volume.inodes_available().unwrap() > inodes - 10);
        volume.unmount().unwrap();
        assert!(!folder.join("small").exists());
    }
}

//! The bytes of one file, and what of them is not on the disk yet.

use std::{
    fs::{File, FileTimes, Metadata},
    io,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    time::SystemTime,
};

use rand::{RngExt as _, rngs::StdRng};
use rustix::fs::{FallocateFlags, fallocate};

/// What a disk writes whole.
const SECTOR: u64 = 512;

/// What becomes of the writes that were not synced when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DataLoss {
    /// None has reached the disk.
    Forgotten,
    /// All but the last have, and of that a random number of sectors.
    Torn,
    /// A random part of them, whatever the order in which they were made.
    Reordered,
}

/// One change that was not synced, and how to undo it.
#[derive(Debug)]
enum Step {
    Write { offset: u64, new: Vec<u8>, old: Vec<u8>, length: u64 },
    Resize { new_length: u64, cut: Vec<u8>, length: u64 },
}

/// The bytes of a file. They are in a real file as every process sees them; what was not synced is also kept here, so that
/// it can be taken back.
#[derive(Debug)]
pub(super) struct Content {
    path: PathBuf,
    file: Option<File>,
    opens: u32,
    unsynced: Vec<Step>,
    unsynced_bytes: usize,
}

impl Content {
    /// The file must exist.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: None, opens: 0, unsynced: Vec::new(), unsynced_bytes: 0 }
    }

    pub(super) fn opened(&mut self) {
        self.opens += 1;
    }

    pub(super) fn closed(&mut self) {
        self.opens = self.opens.saturating_sub(1);
        if self.opens == 0 {
            self.file = None;
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.opens > 0
    }

    /// Bytes kept in memory.
    pub(super) fn unsynced_bytes(&self) -> usize {
        self.unsynced_bytes
    }

    fn file(&mut self) -> io::Result<&File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => File::options().read(true).write(true).open(&self.path)?,
        };
        Ok(self.file.insert(file))
    }

    pub(super) fn metadata(&mut self) -> io::Result<Metadata> {
        // Many files are only looked at: no descriptor stays open for that.
        match &self.file {
            Some(file) => file.metadata(),
            None => std::fs::metadata(&self.path),
        }
    }

    fn length(&mut self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    pub(super) fn read(&mut self, offset: u64, size: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; size];
        let mut filled = 0;
        let file = self.file()?;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, offset + filled as u64)? {
                0 => break,
                read => filled += read,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    pub(super) fn write(&mut self, offset: u64, new: &[u8]) -> io::Result<()> {
        let length = self.length()?;
        let overwritten = length.saturating_sub(offset).min(new.len() as u64);
        let old = self.read(offset, usize::try_from(overwritten).unwrap_or(new.len()))?;
        self.file()?.write_all_at(new, offset)?;
        self.unsynced_bytes += new.len() + old.len();
        self.unsynced.push(Step::Write { offset, new: new.to_vec(), old, length });
        Ok(())
    }

    pub(super) fn resize(&mut self, new_length: u64) -> io::Result<()> {
        let length = self.length()?;
        let cut = length.saturating_sub(new_length);
        let cut = self.read(new_length, usize::try_from(cut).map_err(io::Error::other)?)?;
        self.file()?.set_len(new_length)?;
        self.unsynced_bytes += cut.len();
        self.unsynced.push(Step::Resize { new_length, cut, length });
        Ok(())
    }

    /// Takes space for the file, beyond its end or as part of it.
    pub(super) fn allocate(&mut self, offset: u64, length: u64, keep_size: bool) -> io::Result<()> {
        let before = self.length()?;
        let flags = if keep_size { FallocateFlags::KEEP_SIZE } else { FallocateFlags::empty() };
        fallocate(self.file()?, flags, offset, length)?;
        let after = self.length()?;
        if after > before {
            let step = Step::Resize { new_length: after, cut: Vec::new(), length: before };
            self.unsynced.push(step);
        }
        Ok(())
    }

    pub(super) fn set_modified(&mut self, time: SystemTime) -> io::Result<()> {
        self.file()?.set_times(FileTimes::new().set_modified(time))
    }

    /// All of it is on the disk.
    pub(super) fn sync(&mut self) {
        self.unsynced = Vec::new();
        self.unsynced_bytes = 0;
    }

    /// The power is gone and back. Returns how many changes were undone, wholly or in part.
    pub(super) fn lose(&mut self, loss: DataLoss, random: &mut StdRng) -> io::Result<usize> {
        self.opens = 0;
        let steps = std::mem::take(&mut self.unsynced);
        self.unsynced_bytes = 0;
        let count = steps.len();
        for step in steps.iter().rev() {
            self.undo(step)?;
        }
        let mut redone = 0;
        for (number, step) in steps.iter().enumerate() {
            let again = match loss {
                DataLoss::Forgotten => break,
                DataLoss::Torn if number + 1 == count => {
                    self.tear(step, random)?;
                    break;
                }
                DataLoss::Torn => true,
                DataLoss::Reordered => random.random_bool(0.5),
            };
            if again {
                self.redo(step)?;
                redone += 1;
            }
        }
        self.file = None;
        Ok(count - redone)
    }

    fn undo(&mut self, step: &Step) -> io::Result<()> {
        let file = self.file()?;
        match step {
            Step::Write { offset, old, length, .. } => {
                file.write_all_at(old, *offset)?;
                file.set_len(*length)
            }
            Step::Resize { new_length, cut, length } => {
                file.set_len(*length)?;
                file.write_all_at(cut, *new_length)
            }
        }
    }

    fn redo(&mut self, step: &Step) -> io::Result<()> {
        match step {
            Step::Write { offset, new, .. } => self.file()?.write_all_at(new, *offset),
            Step::Resize { new_length, .. } => self.file()?.set_len(*new_length),
        }
    }

    /// Only the first sectors of a write; a change of the length happens or does not.
    fn tear(&mut self, step: &Step, random: &mut StdRng) -> io::Result<()> {
        let Step::Write { offset, new, .. } = step else {
            return if random.random_bool(0.5) { self.redo(step) } else { Ok(()) };
        };
        let end = offset + new.len() as u64;
        let sectors = end.div_ceil(SECTOR) - offset / SECTOR;
        let reached = (offset / SECTOR + random.random_range(0..sectors.max(1))) * SECTOR;
        let kept = usize::try_from(reached.saturating_sub(*offset)).unwrap_or(new.len());
        let kept = new.get(..kept.min(new.len())).unwrap_or(new);
        self.file()?.write_all_at(kept, *offset)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use rand::SeedableRng as _;
    use tempfile::TempDir;

    use super::*;

    fn content() -> (Content, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("content");
        File::create(&path).unwrap();
        (Content::new(path), folder)
    }

    fn bytes(content: &mut Content) -> Vec<u8> {
        let length = content.length().unwrap();
        content.read(0, length as usize).unwrap()
    }

    fn random() -> StdRng {
        StdRng::seed_from_u64(7)
    }

    #[test]
    fn what_was_synced_survives_and_what_was_not_does_not() {
        let (mut content, _folder) = content();
        content.write(0, b"synced bytes").unwrap();
        content.sync();
        content.write(7, b"BYTES and more").unwrap();
        content.resize(9).unwrap();
        content.write(20, b"x").unwrap();
        assert_eq!(bytes(&mut content), b"synced BY\0\0\0\0\0\0\0\0\0\0\0x");
        content.allocate(0, 4_096, false).unwrap();
        assert_eq!(content.lose(DataLoss::Forgotten, &mut random()).unwrap(), 4);
        assert_eq!(bytes(&mut content), b"synced bytes");
        assert_eq!(content.lose(DataLoss::Forgotten, &mut random()).unwrap(), 0);
    }

    #[test]
    fn space_beyond_the_end_is_no_change() {
        let (mut content, _folder) = content();
        content.allocate(0, 1 << 20, true).unwrap();
        assert_eq!(content.length().unwrap(), 0);
        assert_eq!(content.lose(DataLoss::Forgotten, &mut random()).unwrap(), 0);
    }

    #[test]
    fn of_a_torn_write_whole_sectors_survive_and_never_all() {
        let mut lengths = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let (mut content, _folder) = content();
            content.write(0, &[1; 700]).unwrap();
            content.write(700, &[2; 2_000]).unwrap();
            content.lose(DataLoss::Torn, &mut StdRng::seed_from_u64(seed)).unwrap();
            let left = bytes(&mut content);
            assert_eq!(left[..700], [1; 700]);
            assert!(left[700..].iter().all(|byte| *byte == 2));
            assert!(left.len() == 700 || left.len().is_multiple_of(512), "{}", left.len());
            lengths.insert(left.len());
        }
        assert_eq!(lengths, [700, 1_024, 1_536, 2_048, 2_560].into());
    }

    #[test]
    fn any_part_of_the_writes_may_have_reached_the_disk() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let (mut content, _folder) = content();
            content.write(0, b"a").unwrap();
            content.write(1, b"b").unwrap();
            content.lose(DataLoss::Reordered, &mut StdRng::seed_from_u64(seed)).unwrap();
            seen.insert(bytes(&mut content));
        }
        let all: Vec<Vec<u8>> = vec![b"".to_vec(), b"\0b".to_vec(), b"a".to_vec(), b"ab".to_vec()];
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), all);
    }
}

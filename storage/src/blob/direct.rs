//! Writes of large content that go around the page cache.
//!
//! A push of gigabytes through the page cache throws out of it what others are pulling, counts as memory of the replica, and
//! leaves as much for the kernel to write when the log's next fsync wants the disk. Content that begins large goes straight
//! to the disk (`O_DIRECT`, open(2)); the first megabytes of it, and all of what is small, still go through the cache.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// Content before this is in the page cache: most blobs are smaller, and are pulled soon after they were pushed.
const FROM_BYTES: u64 = 4 * 1024 * 1024;

/// Addresses, offsets and lengths are multiples of this: no disk in use has larger blocks. A file system that wants more
/// refuses, and is written to through the cache.
const ALIGNMENT: usize = 4096;

/// Each write around the cache waits for the disk; of fewer bytes that wait is longer than what it saves.
const LENGTH_MIN: usize = 64 * 1024;

/// What is written at a time of content whose own address the disk does not take.
const BUFFER_BYTES: usize = 512 * 1024;

/// The way around the cache for one file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Direct {
    /// No write was refused yet.
    #[default]
    Possible,
    /// The file system has none.
    Never,
}

impl Direct {
    /// Writes `blocks`, which are what [`blocks`] says of a chunk, at `offset` of `file`. Returns how many of their bytes were
    /// written; all others are for the cache.
    pub(super) fn write(&mut self, blocks: &[u8], offset: u64, file: &File) -> io::Result<usize> {
        if blocks.is_empty() || *self == Self::Never {
            return Ok(0);
        }
        let mut done = 0;
        match write_around(blocks, offset, file, &mut done) {
            Ok(()) => {}
            // No such writes here, or larger blocks than ours.
            Err(error) if is_refusal(&error) => *self = Self::Never,
            Err(error) => return Err(error),
        }
        Ok(done)
    }
}

/// Counts in `done` what was written.
fn write_around(blocks: &[u8], offset: u64, file: &File, done: &mut usize) -> io::Result<()> {
    let around = Around::the_cache(file)?;
    if blocks.as_ptr().align_offset(ALIGNMENT) == 0 {
        return around.write_all(blocks, offset, done);
    }
    let mut memory = Memory::take();
    for part in blocks.chunks(BUFFER_BYTES) {
        let Some(copy) = memory.copy(part) else { return Ok(()) };
        around.write_all(copy, offset + *done as u64, done)?;
    }
    Ok(())
}

/// Some file systems say that they do not support it, others that the argument is wrong.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

/// A file whose writes go around the cache as long as this lives. Nobody else reads or writes it meanwhile: a sync, which
/// may be under way, does not look at the flag.
struct Around<'a> {
    file: &'a File,
    before: OFlags,
}

impl<'a> Around<'a> {
    fn the_cache(file: &'a File) -> io::Result<Self> {
        let before = fcntl_getfl(file)?;
        fcntl_setfl(file, before | OFlags::DIRECT)?;
        Ok(Self { file, before })
    }

    /// Part of a direct write may be done, and end where the rest is no longer aligned. That happens on a full disk, and the
    /// cache has the same answer then: it is told as a refusal.
    fn write_all(&self, buffer: &[u8], at: u64, done: &mut usize) -> io::Result<()> {
        loop {
            match self.file.write_at(buffer, at) {
                Ok(written) if written == buffer.len() => {
                    *done += written;
                    return Ok(());
                }
                Ok(_) => return Err(io::ErrorKind::InvalidInput.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Around<'_> {
    fn drop(&mut self) {
        // It was set with the same call. If it stayed, what is no whole block would be refused, which loses nothing.
        if let Err(error) = fcntl_setfl(self.file, self.before) {
            tracing::warn!(%error, "a file's writes go around the page cache still");
        }
    }
}

/// Memory at an address that the disk takes, kept when nobody uses it.
struct Memory(Vec<u8>);

/// Memory that is kept.
static UNUSED: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
/// Of which no more is.
const UNUSED_MAX: usize = 2;

impl Memory {
    fn take() -> Self {
        let kept = unused().pop();
        Self(kept.unwrap_or_else(|| vec![0; BUFFER_BYTES + ALIGNMENT]))
    }

    /// `part`, of at most [`BUFFER_BYTES`], at an aligned address; `None` if there is no room for it.
    fn copy(&mut self, part: &[u8]) -> Option<&[u8]> {
        let start = self.0.as_ptr().align_offset(ALIGNMENT);
        let place = self.0.get_mut(start..start.checked_add(part.len())?)?;
        place.copy_from_slice(part);
        Some(place)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let mut unused = unused();
        if unused.len() < UNUSED_MAX {
            unused.push(std::mem::take(&mut self.0));
        }
    }
}

/// A list of memory has no half-written state that a panic could leave.
fn unused() -> MutexGuard<'static, Vec<Vec<u8>>> {
    UNUSED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Those of `length` bytes that belong at `offset` for which the cache is not needed: whole blocks, if there are many.
/// The range is empty else, and at the beginning.
pub(super) fn blocks(offset: u64, length: usize) -> Range<usize> {
    let alignment = ALIGNMENT as u64;
    let first = offset.max(FROM_BYTES).next_multiple_of(alignment);
    let end = offset + length as u64;
    let last = end - end % alignment;
    let within = |at: u64| usize::try_from(at.saturating_sub(offset)).unwrap_or(length);
    if first + LENGTH_MIN as u64 > last { 0..0 } else { within(first)..within(last) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn only_whole_blocks_of_large_content_are_written() {
        let from = usize::try_from(FROM_BYTES).unwrap();
        let least = LENGTH_MIN;
        assert_eq!(blocks(0, from), 0..0);
        assert_eq!(blocks(0, from + least - 1), 0..0);
        assert_eq!(blocks(0, from + least), from..from + least);
        assert_eq!(blocks(FROM_BYTES, least + 5000), 0..least + 4096);
        assert_eq!(blocks(FROM_BYTES + 1, least + 5000), 4095..least + 4095);
        assert_eq!(blocks(FROM_BYTES + 1, least), 0..0);
        assert_eq!(blocks(FROM_BYTES + 4095, 1), 0..0);
    }

    #[test]
    fn a_file_written_both_ways_is_read_as_it_was_meant() {
        // Not in memory: there some kernels have no direct writes, and this is to see them.
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = folder.path().join("content");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let content: Vec<u8> = (0..3 << 20).map(|at: u32| (at % 251) as u8).collect();
        let (mut direct, mut at, mut around) = (Direct::default(), FROM_BYTES - 5, 0);
        for chunk in content.chunks(700_001) {
            let range = blocks(at, chunk.len());
            let first = range.start;
            file.write_all_at(&chunk[..first], at).unwrap();
            let done = direct.write(&chunk[range], at + first as u64, &file).unwrap();
            file.write_all_at(&chunk[first + done..], at + (first + done) as u64).unwrap();
            around += done;
            at += chunk.len() as u64;
        }
        let mut read = vec![0; content.len()];
        file.read_exact_at(&mut read, FROM_BYTES - 5).unwrap();
        assert!(read == content);
        assert!(direct == Direct::Never || around > 2 << 20, "{around}");
    }

    #[test]
    fn a_file_system_without_it_is_written_to_through_the_cache() {
        let (mut direct, chunk) = (Direct::default(), vec![1; LENGTH_MIN]);
        let without = File::options().read(true).open("/proc/self/status").unwrap();
        assert_eq!(direct.write(&chunk, FROM_BYTES, &without).unwrap(), 0);
        assert_eq!(direct, Direct::Never);
    }
}

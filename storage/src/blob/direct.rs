//! Writes of large content that go around the page cache.
//!
//! A push of gigabytes through the page cache throws out of it what others are pulling, counts as memory of the replica, and
//! leaves as much for the kernel to write when the log's next fsync wants the disk. Content that begins large goes straight
//! to the disk (`O_DIRECT`, open(2)); the first megabytes of it, and all of what is small, still go through the cache.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

/// Content before this is in the page cache: most blobs are smaller, and are pulled soon after they were pushed.
const FROM_BYTES: u64 = 4 * 1024 * 1024;

/// Addresses, offsets and lengths are multiples of this: no disk in use has larger blocks. A file system that wants more
/// refuses, and is written to through the cache.
const ALIGNMENT: usize = 4096;

/// What is written at a time.
const BUFFER_BYTES: usize = 512 * 1024;

/// The way around the cache for one file.
#[derive(Debug, Default)]
pub(super) enum Direct {
    /// Not needed yet.
    #[default]
    Untried,
    /// The same file once more, and memory at an address that the disk takes.
    Open { file: File, memory: Memory },
    /// The file system has none.
    Never,
}

impl Direct {
    /// Writes what can be written without the cache of `chunk`, which belongs at `offset` of the file at `path`. Returns which
    /// of its bytes these are; all others are for the cache.
    pub(super) fn write(
        &mut self,
        chunk: &[u8],
        offset: u64,
        path: &Path,
    ) -> io::Result<Range<usize>> {
        let range = blocks(offset, chunk.len());
        let Some(blocks) = chunk.get(range.clone()).filter(|blocks| !blocks.is_empty()) else {
            return Ok(0..0);
        };
        if matches!(self, Self::Untried) {
            *self = Self::open(path);
        }
        let Self::Open { file, memory } = self else { return Ok(0..0) };
        let is_aligned = blocks.as_ptr().align_offset(ALIGNMENT) == 0;
        let most = if is_aligned { blocks.len() } else { BUFFER_BYTES };
        let mut done = 0;
        for part in blocks.chunks(most) {
            let at = offset + (range.start + done) as u64;
            let written = match is_aligned {
                true => write_once(file, part, at),
                false => write_once(file, memory.copy(part), at),
            };
            match written {
                Ok(()) => done += part.len(),
                // Larger blocks than ours, or none of this at all: only the first write tells.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    *self = Self::Never;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(range.start..range.start + done)
    }

    fn open(path: &Path) -> Self {
        let mut options = File::options();
        let direct = i32::try_from(OFlags::DIRECT.bits()).unwrap_or_default();
        // Some file systems refuse the flag; none of them is worse than the cache.
        match options.write(true).custom_flags(direct).open(path) {
            Ok(file) => Self::Open { file, memory: Memory::default() },
            Err(_) => Self::Never,
        }
    }
}

/// For content whose own address the disk does not take; nothing until the first of it comes.
#[derive(Debug, Default)]
pub(super) struct Memory(Vec<u8>);

impl Memory {
    /// At most [`BUFFER_BYTES`] at an aligned address.
    fn copy(&mut self, part: &[u8]) -> &[u8] {
        self.0.resize(BUFFER_BYTES + ALIGNMENT, 0);
        let start = self.0.as_ptr().align_offset(ALIGNMENT);
        let range = start..start.saturating_add(part.len());
        let place = self.0.get_mut(range).unwrap_or_default();
        place.iter_mut().zip(part).for_each(|(place, byte)| *place = *byte);
        place
    }
}

/// Part of a direct write may be done, and end where the rest is no longer aligned. That happens on a full disk, and the cache
/// has the same answer then.
fn write_once(file: &File, buffer: &[u8], at: u64) -> io::Result<()> {
    loop {
        match file.write_at(buffer, at) {
            Ok(written) if written == buffer.len() => return Ok(()),
            Ok(_) => return Err(io::ErrorKind::InvalidInput.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The whole blocks of `length` bytes that belong at `offset`.
fn blocks(offset: u64, length: usize) -> Range<usize> {
    let alignment = ALIGNMENT as u64;
    let first = offset.max(FROM_BYTES).next_multiple_of(alignment);
    let end = offset + length as u64;
    let last = end - end % alignment;
    let within = |at: u64| usize::try_from(at.saturating_sub(offset)).unwrap_or(length);
    if first >= last { 0..0 } else { within(first)..within(last) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn only_whole_blocks_of_large_content_are_written() {
        let from = usize::try_from(FROM_BYTES).unwrap();
        assert_eq!(blocks(0, from), 0..0);
        assert_eq!(blocks(0, from + 4095), 0..0);
        assert_eq!(blocks(0, from + 4096), from..from + 4096);
        assert_eq!(blocks(FROM_BYTES, 10_000), 0..8192);
        assert_eq!(blocks(FROM_BYTES + 1, 10_000), 4095..8191);
        assert_eq!(blocks(FROM_BYTES + 1, 4094), 0..0);
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
            let done = direct.write(chunk, at, &path).unwrap();
            file.write_all_at(&chunk[..done.start], at).unwrap();
            file.write_all_at(&chunk[done.end..], at + done.end as u64).unwrap();
            around += done.len();
            at += chunk.len() as u64;
        }
        let mut read = vec![0; content.len()];
        file.read_exact_at(&mut read, FROM_BYTES - 5).unwrap();
        assert!(read == content);
        assert!(matches!(direct, Direct::Never) || around > 2 << 20, "{around}");
    }

    #[test]
    fn a_file_system_without_it_is_written_to_through_the_cache() {
        let mut direct = Direct::default();
        let chunk = vec![1; 8192];
        let missing = Path::new("/proc/self/no-such-file");
        assert_eq!(direct.write(&chunk, FROM_BYTES, missing).unwrap(), 0..0);
        assert!(matches!(direct, Direct::Never));
    }
}

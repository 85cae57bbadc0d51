//! Memory for blocks on their way out, used again.
//!
//! A block fresh from the allocator costs more than the copy into it: the kernel has to find and clear 64 pages.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::sums::BLOCK_BYTES;

/// The most blocks that are kept while nobody uses them.
const KEPT_MAX: usize = 64;

/// Fewer bytes than these are copied out of their block, so that a client who reads them slowly does not hold a whole one.
const COPIED_BELOW: usize = BLOCK_BYTES / 4;

/// Blocks of memory that nobody uses. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Box<[u8]>>>>);

impl Buffers {
    /// A block, which has whatever bytes were in it last.
    pub(super) fn take(&self) -> Buffer {
        let memory = self.lock().pop().unwrap_or_else(|| vec![0; BLOCK_BYTES].into());
        Buffer { memory, home: self.clone() }
    }

    /// A list of blocks has no half-written state that a panic could leave.
    fn lock(&self) -> MutexGuard<'_, Vec<Box<[u8]>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffers").field("unused", &self.lock().len()).finish()
    }
}

/// A block of memory that goes back when it is dropped.
pub(super) struct Buffer {
    memory: Box<[u8]>,
    home: Buffers,
}

impl Buffer {
    /// The first `length` bytes.
    pub(super) fn first(&mut self, length: usize) -> &mut [u8] {
        self.memory.get_mut(..length).unwrap_or_default()
    }

    /// The bytes in `range`. The block goes back when the last clone of them is dropped.
    pub(super) fn into_bytes(self, range: Range<usize>) -> Bytes {
        match range.len() {
            few if few < COPIED_BELOW => {
                Bytes::copy_from_slice(self.memory.get(range).unwrap_or_default())
            }
            _ => Bytes::from_owner(self).slice(range),
        }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        let mut unused = self.home.lock();
        if unused.len() < KEPT_MAX {
            unused.push(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_block_comes_back_when_its_last_bytes_are_dropped() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        buffer.first(BLOCK_BYTES).fill(7);
        let bytes = buffer.into_bytes(1..BLOCK_BYTES);
        let end = bytes.slice(BLOCK_BYTES - 3..);
        drop(bytes);
        assert_eq!((end.as_ref(), buffers.lock().len()), (&[7, 7][..], 0));
        drop(end);
        assert_eq!(buffers.lock().len(), 1);
        assert_eq!(buffers.take().first(1), [7], "the same one");
    }

    #[test]
    fn few_bytes_do_not_hold_a_block() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        buffer.first(3).copy_from_slice(b"abc");
        assert_eq!(buffer.into_bytes(1..3), "bc");
        assert_eq!(buffers.lock().len(), 1);
    }

    #[test]
    fn no_more_are_kept_than_may_be() {
        let buffers = Buffers::default();
        let taken: Vec<Buffer> = (0..KEPT_MAX + 5).map(|_| buffers.take()).collect();
        drop(taken);
        assert_eq!(buffers.lock().len(), KEPT_MAX);
    }
}

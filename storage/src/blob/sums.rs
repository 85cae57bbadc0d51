//! Checksums of the blocks of a blob, taken while its digest was found right.
//!
//! They prove of one block what the digest can prove of the whole only, at a tenth of its cost. They are valid as long as
//! the process: whoever pushes a blob does not know the seed, so nobody can make another block with the same sum.

use std::fmt;
use std::sync::LazyLock;

use twox_hash::xxhash3_128::Hasher;

use crate::{Algorithm, Digest, DigestHasher};

/// Bytes of a block; the last one of a blob may have fewer. What is read, proved and handed on at once: small enough to
/// stay in a core's cache on the way, large enough that system calls do not count.
pub(super) const BLOCK_BYTES: usize = 256 * 1024;

static SEED: LazyLock<u64> = LazyLock::new(rand::random);

/// The sums of all blocks of a blob.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BlockSums(Box<[u128]>);

impl BlockSums {
    /// Whether `bytes` are those of block `index`, the first being 0.
    pub(super) fn prove(&self, index: u64, bytes: &[u8]) -> bool {
        let known = usize::try_from(index).ok().and_then(|index| self.0.get(index));
        known.is_some_and(|known| *known == sum(bytes))
    }

    /// Whether they are those of content that begins with what `examination` has seen, which is a number of whole blocks.
    pub(super) fn begin_with(&self, examination: &Examination) -> bool {
        examination.whole_blocks().is_some_and(|sums| self.0.starts_with(sums))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them, in the order of their blocks.
    pub(super) fn all(&self) -> &[u128] {
        &self.0
    }
}

/// The sum of one block.
pub(super) fn sum(block: &[u8]) -> u128 {
    Hasher::oneshot_with_seed(*SEED, block)
}

/// Computes the digest of content and the sums of its blocks together.
pub(super) struct Examination {
    hasher: DigestHasher,
    /// Bytes seen.
    seen: u64,
    sums: Vec<u128>,
    /// A block that came in part, and how much of it.
    open: Option<(Hasher, usize)>,
}

impl Examination {
    /// An examination that has seen nothing yet.
    pub(super) fn new(algorithm: Algorithm) -> Self {
        Self { hasher: DigestHasher::new(algorithm), seen: 0, sums: Vec::new(), open: None }
    }

    /// Adds the next bytes, however many.
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        self.hasher.update(bytes);
        self.seen += bytes.len() as u64;
        while !bytes.is_empty() {
            let filled = self.open.as_ref().map_or(0, |(_, filled)| *filled);
            let (piece, rest) = bytes.split_at(bytes.len().min(BLOCK_BYTES - filled));
            bytes = rest;
            if piece.len() == BLOCK_BYTES {
                self.sums.push(sum(piece));
                continue;
            }
            let (mut hasher, filled) =
                self.open.take().unwrap_or_else(|| (Hasher::with_seed(*SEED), 0));
            hasher.write(piece);
            match filled + piece.len() {
                BLOCK_BYTES => self.sums.push(hasher.finish_128()),
                filled => self.open = Some((hasher, filled)),
            }
        }
    }

    /// How many bytes were added.
    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    /// The digest's part of it, for what comes after.
    pub(super) fn hasher(&self) -> &DigestHasher {
        &self.hasher
    }

    /// The sums of everything added, if that is a number of whole blocks.
    pub(super) fn whole_blocks(&self) -> Option<&[u128]> {
        self.open.is_none().then_some(&self.sums)
    }

    /// The digest and the sums of everything added.
    pub(super) fn finish(self) -> (Digest, BlockSums) {
        let Self { hasher, mut sums, open, .. } = self;
        sums.extend(open.map(|(hasher, _)| hasher.finish_128()));
        (hasher.finish(), BlockSums(sums.into()))
    }
}

impl fmt::Debug for Examination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Examination")
            .field("hasher", &self.hasher)
            .field("blocks", &self.sums.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
impl BlockSums {
    /// Those of so many empty blocks.
    pub(super) fn of_nothing(blocks: usize) -> Self {
        Self(vec![0; blocks].into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use proptest::prelude::*;

    use super::*;

    fn examine<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Digest, BlockSums) {
        let mut examination = Examination::new(Algorithm::Sha256);
        for piece in pieces {
            examination.update(piece);
        }
        examination.finish()
    }

    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at / 7 + at / BLOCK_BYTES) as u8).collect()
    }

    #[test]
    fn a_block_is_proved_in_its_place_only() {
        let bytes = content(2 * BLOCK_BYTES + 5);
        let (digest, sums) = examine([&bytes[..]]);
        assert_eq!(digest, Digest::of(Algorithm::Sha256, &bytes));
        assert_eq!(sums.len(), 3);
        for (length, begins) in
            [(0, true), (BLOCK_BYTES, true), (2 * BLOCK_BYTES, true), (9, false)]
        {
            let mut examination = Examination::new(Algorithm::Sha256);
            examination.update(&bytes[..length]);
            assert_eq!(sums.begin_with(&examination), begins, "{length}");
            examination.update(&[1; BLOCK_BYTES]);
            assert!(!sums.begin_with(&examination));
        }
        for (index, block) in (0..).zip(bytes.chunks(BLOCK_BYTES)) {
            assert!(sums.prove(index, block));
            assert!(!sums.prove(index + 1, block));
            for wrong in 0..block.len().min(64) {
                let mut block = block.to_vec();
                block[wrong] ^= 1;
                assert!(!sums.prove(index, &block), "byte {wrong} of block {index}");
            }
            assert!(!sums.prove(index, &block[1..]));
        }
        assert_eq!(examine([]).1.len(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_does_not_matter_in_what_pieces_content_comes(
            length in 0..3 * BLOCK_BYTES,
            mut cuts in proptest::collection::vec(0..3 * BLOCK_BYTES, 0..9),
        ) {
            let bytes = content(length);
            cuts.retain(|cut| *cut <= length);
            cuts.extend([0, length]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]);
            prop_assert_eq!(examine(pieces), examine(bytes.chunks(BLOCK_BYTES)));
        }
    }
}

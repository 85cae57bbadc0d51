//! A blob too large to hold in memory, made block by block from a seed.

use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures_util::{Stream, stream};

use crate::{content::random_bytes, digest::Hasher};

/// Every block can be made by itself, so that any part of a stream can be checked.
const BLOCK: u64 = 256 * 1024;
/// How much of each block [`LargeBlob::check_samples`] compares.
const SAMPLE: usize = 32;

/// A blob of a known seed and size, with its digest.
#[derive(Clone, Debug)]
pub struct LargeBlob {
    seed: u64,
    size: u64,
    digest: String,
}

impl LargeBlob {
    /// Generates the bytes once to learn their digest. Takes about a second per gigabyte.
    pub fn new(seed: u64, size: u64) -> Self {
        let mut hasher = Hasher::like("sha256:");
        for block in 0..size.div_ceil(BLOCK) {
            hasher.update(&make_block(seed, size, block));
        }
        Self { seed, size, digest: hasher.finish() }
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// `sha256:…`.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Long enough for 64 at once on two cores; still an end.
    pub fn deadline(&self) -> Duration {
        Duration::from_secs(420)
    }

    /// The bytes, block by block.
    pub fn stream(&self) -> impl Stream<Item = Result<Bytes>> + Send + use<> {
        let (seed, size) = (self.seed, self.size);
        let blocks = 0..size.div_ceil(BLOCK);
        stream::iter(blocks.map(move |block| Ok(Bytes::from(make_block(seed, size, block)))))
    }

    /// Compares the start of every block that begins in `bytes`, which lie at `offset` of the blob. A
    /// block whose start is cut by the end of `bytes` is compared as far as it goes.
    pub fn check_samples(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut block = offset.div_ceil(BLOCK);
        while let Ok(start) = usize::try_from(block * BLOCK - offset) {
            let Some(found) = bytes.get(start..) else { break };
            let wanted = random_bytes(block_seed(self.seed, block), SAMPLE);
            let length = found.len().min(SAMPLE);
            ensure!(found.get(..length) == wanted.get(..length), "block {block} differs");
            block += 1;
        }
        Ok(())
    }
}

fn block_seed(seed: u64, block: u64) -> u64 {
    seed.rotate_left(32) ^ block.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

fn make_block(seed: u64, size: u64, block: u64) -> Vec<u8> {
    let length = (size - block * BLOCK).min(BLOCK);
    random_bytes(block_seed(seed, block), usize::try_from(length).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use futures_util::TryStreamExt as _;

    use super::*;
    use crate::digest::sha256;

    #[tokio::test]
    async fn stream_digest_and_samples_agree() {
        let blob = LargeBlob::new(3, 2 * BLOCK + 77);
        let parts: Vec<Bytes> = blob.stream().try_collect().await.unwrap();
        let whole = parts.concat();
        assert_eq!(whole.len() as u64, blob.size());
        assert_eq!(sha256(&whole), blob.digest());
        for cut in [0, 1, 1_000, BLOCK as usize, BLOCK as usize + 5] {
            blob.check_samples(0, &whole[..cut]).unwrap();
            blob.check_samples(cut as u64, &whole[cut..]).unwrap();
        }
        let mut wrong = whole;
        wrong[BLOCK as usize] ^= 1;
        assert!(blob.check_samples(0, &wrong).is_err());
    }
}

//! What is pushed: as many blobs as are needed, no two alike, for next to no work of the client.
//!
//! A blob is one random block over and over, and a few bytes at its end that no other has. The hash of all but those is
//! taken before anything is measured, so that a digest costs the client the hash of its end only.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    content::{MediaType, random_bytes},
    digest::sha256,
};

/// Small enough to stay in a cache while it is sent over and over.
const BLOCK_BYTES: usize = 1 << 20;
/// What makes a blob unique: a number of the process and one of the blob.
pub(super) const TAIL_BYTES: usize = 16;

/// Makes payloads. No other maker gives the same, not even one with the same seed: a registry would know the content,
/// and what is measured would be something else.
pub(super) struct Payloads {
    block: Vec<u8>,
    /// Of this maker.
    nonce: u64,
    next: AtomicU64,
    /// Size -> the hash of everything before the tail.
    started: BTreeMap<usize, Sha256>,
}

impl Payloads {
    /// A maker of blobs of these sizes, none of which is below [`TAIL_BYTES`].
    pub(super) fn new(seed: u64, sizes: &[usize]) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let nonce = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let block = random_bytes(seed, BLOCK_BYTES);
        let started = sizes.iter().map(|size| (*size, start_of(&block, *size))).collect();
        Self { block, nonce, next: AtomicU64::new(0), started }
    }

    /// A number that no payload has had, and the maker's own before it: for names.
    pub(super) fn name(&self) -> String {
        format!("{:x}-{}", self.nonce, self.number())
    }

    /// A new blob of one of the sizes.
    pub(super) fn blob(&self, size: usize) -> Payload<'_> {
        let number = self.number();
        let tail = [self.nonce.to_le_bytes(), number.to_le_bytes()].concat();
        let mut hasher =
            self.started.get(&size).cloned().unwrap_or_else(|| start_of(&self.block, size));
        hasher.update(&tail);
        let digest = format!("sha256:{}", hex::encode(hasher.finalize()));
        let filler = size.saturating_sub(TAIL_BYTES);
        Payload { block: &self.block, filler, tail, digest }
    }

    /// A config and a manifest that name these layers.
    pub(super) fn image(&self, layers: &[Payload<'_>]) -> (Payload<'_>, Payload<'_>) {
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = self.text(config.to_string());
        let descriptors: Vec<Value> =
            layers.iter().map(|layer| layer.descriptor(MediaType::LAYER)).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MediaType::MANIFEST,
            "config": config.descriptor(MediaType::CONFIG), "layers": descriptors,
        });
        let manifest = self.text(manifest.to_string());
        (config, manifest)
    }

    fn text(&self, text: String) -> Payload<'_> {
        let digest = sha256(text.as_bytes());
        Payload { block: &self.block, filler: 0, tail: text.into_bytes(), digest }
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// The hash over everything before the tail.
fn start_of(block: &[u8], size: usize) -> Sha256 {
    let mut hasher = Sha256::new();
    let mut left = size.saturating_sub(TAIL_BYTES);
    while left > 0 {
        let part = block.get(..left.min(block.len())).unwrap_or(block);
        hasher.update(part);
        left -= part.len().min(left).max(1);
    }
    hasher
}

/// A body to send, made of slices.
pub(super) struct Payload<'a> {
    block: &'a [u8],
    /// Bytes before the tail: the block over and over.
    filler: usize,
    tail: Vec<u8>,
    pub(super) digest: String,
}

impl Payload<'_> {
    /// Its size in bytes.
    pub(super) fn len(&self) -> usize {
        self.filler + self.tail.len()
    }

    /// As a manifest names it.
    fn descriptor(&self, media_type: &str) -> Value {
        json!({ "mediaType": media_type, "digest": self.digest, "size": self.len() })
    }

    /// The bytes from `start` up to `end`.
    pub(super) fn part(&self, start: usize, end: usize) -> Vec<&[u8]> {
        let mut parts = Vec::new();
        let (mut at, end) = (start, end.min(self.len()));
        while at < end.min(self.filler) {
            let offset = at % self.block.len().max(1);
            let length = (self.block.len() - offset).min(end.min(self.filler) - at);
            let Some(part) = self.block.get(offset..offset + length) else { break };
            parts.push(part);
            at += length.max(1);
        }
        if at < end {
            let tail = self.tail.get(at - self.filler..end - self.filler);
            parts.push(tail.unwrap_or_default());
        }
        parts
    }

    /// All of it.
    pub(super) fn all(&self) -> Vec<&[u8]> {
        self.part(0, self.len())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_payload_has_its_size_and_its_digest_however_it_is_cut() {
        let sizes = [TAIL_BYTES, 100, BLOCK_BYTES, BLOCK_BYTES + TAIL_BYTES, 3 * BLOCK_BYTES + 7];
        let payloads = Payloads::new(1, &sizes);
        for size in sizes {
            let payload = payloads.blob(size);
            let whole = payload.all().concat();
            assert_eq!((whole.len(), payload.len()), (size, size));
            assert_eq!(sha256(&whole), payload.digest);
            let middle = size / 2 + 3;
            let cut = [payload.part(0, middle).concat(), payload.part(middle, size).concat()];
            assert_eq!(cut.concat(), whole, "{size}");
        }
    }

    #[test]
    fn no_two_payloads_are_alike() {
        let payloads = Payloads::new(1, &[64]);
        let digests: BTreeSet<String> = (0..100).map(|_| payloads.blob(64).digest).collect();
        assert_eq!(digests.len(), 100);
    }

    #[test]
    fn an_image_names_its_layers_and_its_config() {
        let payloads = Payloads::new(1, &[64]);
        let layers = [payloads.blob(64), payloads.blob(64)];
        let (config, manifest) = payloads.image(&layers);
        let text = String::from_utf8_lossy(&manifest.all().concat()).into_owned();
        let mut digests = layers.iter().chain([&config]).map(|payload| &payload.digest);
        assert!(digests.all(|digest| text.contains(digest)), "{text}");
        assert_eq!(sha256(text.as_bytes()), manifest.digest);
    }
}

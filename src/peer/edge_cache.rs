//! What a replica with the role `edge` keeps of the blobs that are pulled through it: the ones used last,
//! within a bound.
//!
//! Files that are being served may be evicted: an open file outlives its name.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tercet_storage::{BlobStore, Digest, StorageError, atomic_write};
use tokio_util::sync::CancellationToken;

use crate::ops::Metrics;

/// Between two times that the order of use is written down. A crash forgets what happened since.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// Between two comparisons with the disk, in saves: garbage collection removes files too.
const SAVES_PER_SCAN: u32 = 10;
/// Blobs looked at in one go.
const PAGE: usize = 256;

/// What an [`EdgeCache`] is made of.
pub struct EdgeCacheParts {
    /// This replica's disk.
    pub blobs: BlobStore,
    /// Where the order of use is kept over a restart.
    pub file: PathBuf,
    /// Most bytes of all blobs together (`limits.edge_cache_bytes`).
    pub bytes_max: u64,
    /// Where evictions are counted.
    pub metrics: Arc<Metrics>,
    /// Whether the cluster knows this replica as an edge. One that others count on for copies must keep
    /// what it has, whatever its configuration says.
    pub is_edge: Box<dyn Fn() -> bool + Send + Sync>,
}

/// The bound, and the order of use. Cheap to clone.
#[derive(Clone)]
pub struct EdgeCache {
    inner: Arc<Inner>,
}

struct Inner {
    parts: EdgeCacheParts,
    uses: Mutex<Uses>,
    /// One eviction at a time.
    evicting: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for EdgeCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes_max = self.inner.parts.bytes_max;
        f.debug_struct("EdgeCache").field("bytes_max", &bytes_max).finish_non_exhaustive()
    }
}

/// Who was used when. `order` has exactly the digests of `entries`.
#[derive(Debug, Default)]
struct Uses {
    entries: HashMap<Digest, Entry>,
    order: BTreeMap<u64, Digest>,
    next: u64,
    /// Bytes of `entries`, and of what is on its way.
    bytes: u64,
    /// The disk was looked at; before that nobody knows how much there is.
    known: Known,
    changed: Changed,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    size: u64,
    at: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Known {
    #[default]
    No,
    Yes,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Changed {
    #[default]
    No,
    Yes,
}

impl Uses {
    fn insert(&mut self, digest: Digest, size: u64) {
        self.remove(&digest);
        let at = self.next;
        self.next += 1;
        self.bytes += size;
        self.order.insert(at, digest.clone());
        self.entries.insert(digest, Entry { size, at });
        self.changed = Changed::Yes;
    }

    fn remove(&mut self, digest: &Digest) {
        if let Some(entry) = self.entries.remove(digest) {
            self.order.remove(&entry.at);
            self.bytes = self.bytes.saturating_sub(entry.size);
            self.changed = Changed::Yes;
        }
    }

    fn touch(&mut self, digest: &Digest) {
        if let Some(entry) = self.entries.get(digest).copied() {
            self.insert(digest.clone(), entry.size);
        }
    }

    fn oldest(&self) -> Option<Digest> {
        self.order.first_key_value().map(|(_, digest)| digest.clone())
    }
}

/// Room for one blob that is on its way to the disk.
#[derive(Debug)]
pub struct Room {
    cache: EdgeCache,
    digest: Digest,
    size: u64,
}

impl Room {
    /// The blob is on the disk.
    pub fn kept(self) {
        // Counted anew as an entry; the drop that follows gives back what was set aside.
        self.cache.uses().insert(self.digest.clone(), self.size);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut uses = self.cache.uses();
        uses.bytes = uses.bytes.saturating_sub(self.size);
    }
}

impl EdgeCache {
    /// A cache that keeps nothing before [`EdgeCache::run`] has looked at the disk.
    #[must_use]
    pub fn new(parts: EdgeCacheParts) -> Self {
        let inner =
            Inner { parts, uses: Mutex::default(), evicting: tokio::sync::Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// A blob of this disk is being read.
    pub fn used(&self, digest: &Digest) {
        self.uses().touch(digest);
    }

    /// Makes room for a blob; `None` if it is to be passed through only.
    pub async fn admit(&self, digest: &Digest, size: u64) -> Option<Room> {
        let bytes_max = self.inner.parts.bytes_max;
        if size > bytes_max {
            return None;
        }
        let _turn = self.inner.evicting.lock().await;
        if self.uses().known == Known::No || !self.evict_to(bytes_max - size).await {
            return None;
        }
        self.uses().bytes += size;
        Some(Room { cache: self.clone(), digest: digest.clone(), size })
    }

    /// Bytes of the blobs that are here or on their way here.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.uses().bytes
    }

    /// Looks at the disk, then keeps the order of use on it until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            if let Err(error) = self.scan().await {
                tracing::error!(%error, "cannot tell what this edge keeps, so it keeps nothing new");
            } else {
                let _turn = self.inner.evicting.lock().await;
                self.evict_to(self.inner.parts.bytes_max).await;
            }
            for _ in 0..SAVES_PER_SCAN {
                let stopped = tokio::time::timeout(SAVE_EVERY, stop.cancelled()).await.is_ok();
                self.save();
                if stopped {
                    return;
                }
            }
        }
    }

    /// Removes what was used longest ago until no more than `bytes` are left. Returns whether that is so.
    async fn evict_to(&self, bytes: u64) -> bool {
        loop {
            let oldest = {
                let uses = self.uses();
                if uses.bytes <= bytes {
                    return true;
                }
                uses.oldest()
            };
            // What remains is on its way, or this replica's copies count.
            let Some(digest) = oldest.filter(|_| (self.inner.parts.is_edge)()) else {
                return false;
            };
            match self.inner.parts.blobs.delete(&digest).await {
                Ok(_) => {
                    self.uses().remove(&digest);
                    self.inner.parts.metrics.edge_evicted.inc();
                    tracing::debug!(%digest, "evicted");
                }
                Err(error) => {
                    tracing::error!(%digest, %error, "cannot evict a blob");
                    self.uses().touch(&digest);
                    return false;
                }
            }
        }
    }

    /// Brings the entries into line with the disk.
    async fn scan(&self) -> Result<(), StorageError> {
        let blobs = &self.inner.parts.blobs;
        // Before the walk: what is published during it is added by who publishes it.
        let before: Vec<Digest> = self.uses().entries.keys().cloned().collect();
        let mut found: HashMap<Digest, (u64, u64)> = HashMap::new();
        let mut after: Option<Digest> = None;
        loop {
            let page = blobs.list(after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.clone());
            for digest in page {
                if let Some(stat) = blobs.stat(&digest).await? {
                    found.insert(digest, (stat.size, stat.modified_ms));
                }
            }
        }
        let first = self.uses().known == Known::No;
        let remembered = if first { self.load() } else { Vec::new() };
        let mut uses = self.uses();
        for digest in before {
            if !found.contains_key(&digest) {
                uses.remove(&digest);
            }
        }
        for digest in remembered {
            if let Some((size, _)) = found.remove(&digest)
                && !uses.entries.contains_key(&digest)
            {
                uses.insert(digest, size);
            }
        }
        let mut unknown: Vec<(u64, Digest, u64)> = found
            .into_iter()
            .filter(|(digest, _)| !uses.entries.contains_key(digest))
            .map(|(digest, (size, modified_ms))| (modified_ms, digest, size))
            .collect();
        unknown.sort_unstable();
        for (_, digest, size) in unknown {
            uses.insert(digest, size);
        }
        uses.known = Known::Yes;
        Ok(())
    }

    /// The order of use as it was written down, oldest first.
    fn load(&self) -> Vec<Digest> {
        match std::fs::read_to_string(&self.inner.parts.file) {
            // A line that is none costs one blob its place in the order.
            Ok(text) => text.lines().filter_map(|line| line.parse().ok()).collect(),
            Err(error) => {
                if error.kind() != std::io::ErrorKind::NotFound {
                    tracing::warn!(%error, "the order of use is lost; the files' times are taken");
                }
                Vec::new()
            }
        }
    }

    fn save(&self) {
        let text = {
            let mut uses = self.uses();
            if uses.changed == Changed::No {
                return;
            }
            uses.changed = Changed::No;
            uses.order.values().fold(String::new(), |text, digest| text + &format!("{digest}\n"))
        };
        if let Err(error) = atomic_write(&self.inner.parts.file, text.as_bytes()) {
            tracing::warn!(%error, "cannot write down the order of use");
        }
    }

    /// Every change of it is complete before the lock goes.
    fn uses(&self) -> MutexGuard<'_, Uses> {
        self.inner.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use std::sync::atomic::{AtomicBool, Ordering};

    use tercet_storage::{Algorithm, BlobStoreOptions};

    use super::*;

    struct Bench {
        _folder: tempfile::TempDir,
        blobs: BlobStore,
        cache: EdgeCache,
        is_edge: Arc<AtomicBool>,
        file: PathBuf,
    }

    impl Bench {
        async fn new(bytes_max: u64) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let blobs = BlobStore::open(BlobStoreOptions {
                root: folder.path().to_owned(),
                refuse_percent: 100,
                headroom_bytes: 0,
            })
            .unwrap();
            let is_edge = Arc::new(AtomicBool::new(true));
            let file = folder.path().join("uses");
            let mut bench = Self {
                cache: cache(&blobs, &file, &is_edge, bytes_max),
                _folder: folder,
                blobs,
                is_edge,
                file,
            };
            bench.restart(bytes_max).await;
            bench
        }

        async fn restart(&mut self, bytes_max: u64) {
            self.cache.save();
            self.cache = cache(&self.blobs, &self.file, &self.is_edge, bytes_max);
            self.cache.scan().await.unwrap();
            self.cache.evict_to(bytes_max).await;
        }

        async fn keep(&self, content: &[u8]) -> Option<Digest> {
            let digest = Digest::of(Algorithm::Sha256, content);
            let room = self.cache.admit(&digest, content.len() as u64).await?;
            self.publish(&digest, content).await;
            room.kept();
            Some(digest)
        }

        async fn publish(&self, digest: &Digest, content: &[u8]) {
            let size = Some(content.len() as u64);
            let mut writer = self.blobs.writer(digest.clone(), size).await.unwrap();
            writer.append(content.to_vec().into()).await.unwrap();
            writer.finish().await.unwrap();
        }

        async fn has(&self, digest: &Digest) -> bool {
            self.blobs.size_of(digest).await.unwrap().is_some()
        }
    }

    fn cache(
        blobs: &BlobStore,
        file: &std::path::Path,
        is_edge: &Arc<AtomicBool>,
        bytes_max: u64,
    ) -> EdgeCache {
        let is_edge = Arc::clone(is_edge);
        EdgeCache::new(EdgeCacheParts {
            blobs: blobs.clone(),
            file: file.to_owned(),
            bytes_max,
            metrics: Arc::new(Metrics::new().unwrap()),
            is_edge: Box::new(move || is_edge.load(Ordering::Relaxed)),
        })
    }

    #[tokio::test]
    async fn the_bound_holds_and_what_was_used_last_stays() {
        let bench = Bench::new(100).await;
        let (a, b) = (bench.keep(&[1; 40]).await.unwrap(), bench.keep(&[2; 40]).await.unwrap());
        bench.cache.used(&a);
        let c = bench.keep(&[3; 40]).await.unwrap();
        assert!(bench.has(&a).await && !bench.has(&b).await && bench.has(&c).await);
        assert_eq!(bench.cache.bytes(), 80);
        assert!(bench.keep(&[4; 101]).await.is_none());
        assert_eq!(bench.cache.bytes(), 80);
    }

    #[tokio::test]
    async fn room_is_counted_while_a_blob_is_on_its_way_and_given_back_if_it_does_not_come() {
        let bench = Bench::new(100).await;
        let digest = Digest::of(Algorithm::Sha256, b"on its way");
        let room = bench.cache.admit(&digest, 60).await.unwrap();
        assert!(bench.keep(&[1; 60]).await.is_none(), "both would be more than the bound");
        drop(room);
        assert!(bench.keep(&[1; 60]).await.is_some());
    }

    #[tokio::test]
    async fn the_order_outlives_a_restart_and_a_smaller_bound_is_met() {
        let mut bench = Bench::new(200).await;
        let mut kept = Vec::new();
        for fill in 0..4_u8 {
            kept.push(bench.keep(&[fill; 40]).await.unwrap());
        }
        bench.cache.used(&kept[0]);
        // Not written down before a crash: newest of all.
        let unsaved = Digest::of(Algorithm::Sha256, &[9; 40]);
        bench.publish(&unsaved, &[9; 40]).await;
        bench.restart(80).await;
        assert!(bench.has(&kept[0]).await && bench.has(&unsaved).await);
        for gone in &kept[1..] {
            assert!(!bench.has(gone).await);
        }
        assert_eq!(bench.cache.bytes(), 80);
    }

    #[tokio::test]
    async fn a_replica_that_others_count_on_evicts_nothing() {
        let mut bench = Bench::new(200).await;
        let first = bench.keep(&[1; 90]).await.unwrap();
        bench.is_edge.store(false, Ordering::Relaxed);
        bench.restart(50).await;
        assert!(bench.has(&first).await);
        assert!(bench.keep(&[2; 10]).await.is_none());
        bench.is_edge.store(true, Ordering::Relaxed);
        assert!(bench.keep(&[2; 10]).await.is_some());
        assert!(!bench.has(&first).await);
    }

    #[tokio::test]
    async fn files_that_went_otherwise_make_room() {
        let bench = Bench::new(100).await;
        let first = bench.keep(&[1; 90]).await.unwrap();
        bench.blobs.delete(&first).await.unwrap();
        bench.cache.scan().await.unwrap();
        assert_eq!(bench.cache.bytes(), 0);
    }
}

//! Blobs that no replica has any more: said loudly, with the images that need them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tercet_raft::Consensus;
use tercet_storage::{Clock, Digest, KvRead, Meta, StorageError};

use crate::ops::Metrics;

/// Lost blobs that are known by name; the gauge counts the others too.
const NAMED_MAX: usize = 1_024;
/// Repositories of one blob that are searched for the images that need it.
const REPOSITORIES_MAX: usize = 64;
/// Manifests that are searched in each.
const MANIFESTS_MAX: usize = 2_000;
/// Manifests read at a time.
const PAGE: usize = 256;
/// Images named for one blob.
const IMAGES_MAX: usize = 64;

/// Who needs a blob.
pub trait Affected: Send + Sync + 'static {
    /// Names of images (`repository:tag`, or `repository@digest` for one without a tag) of which the blob
    /// is a part, at most so many as a person reads.
    ///
    /// # Errors
    /// When the metadata cannot be read, with the reason.
    fn by(&self, digest: &Digest) -> Result<Vec<String>, String>;
}

impl Affected for Consensus {
    fn by(&self, digest: &Digest) -> Result<Vec<String>, String> {
        let found = self.read(|meta| images(meta, digest)).map_err(|error| error.to_string())?;
        found.map_err(|error| error.to_string())
    }
}

/// One lost blob, as `/status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// The blob.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// When it was found to be lost, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Images that cannot be pulled whole.
    pub images: Vec<String>,
}

/// The blobs that this replica has found on no replica. Cheap to clone. Kept in memory only: after a
/// restart the comparison of catalogue and disk finds them again.
#[derive(Clone)]
pub struct Losses {
    inner: Arc<Inner>,
}

struct Inner {
    affected: Arc<dyn Affected>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    named: Mutex<Named>,
}

#[derive(Default)]
struct Named {
    losses: BTreeMap<Digest, Loss>,
    /// Beyond [`NAMED_MAX`]; an upper bound, since a blob may be reported twice.
    unnamed: usize,
}

impl std::fmt::Debug for Losses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Losses").field("named", &self.lock().losses.len()).finish_non_exhaustive()
    }
}

impl Losses {
    /// No loss is known.
    #[must_use]
    pub fn new(affected: Arc<dyn Affected>, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        let named = Mutex::default();
        Self { inner: Arc::new(Inner { affected, clock, metrics, named }) }
    }

    /// Every member was asked, and none has the blob. Said once for each blob. Reads much metadata: not for
    /// a runtime thread.
    pub fn report(&self, digest: &Digest, size: u64) {
        let since_ms = self.inner.clock.now_ms();
        {
            let mut named = self.lock();
            if named.losses.contains_key(digest) {
                return;
            }
            if named.losses.len() >= NAMED_MAX {
                named.unnamed += 1;
                self.count(&named);
                return;
            }
            // Counted at once; the search for the images takes long, and must not hold the lock.
            let loss = Loss { digest: digest.clone(), size, since_ms, images: Vec::new() };
            named.losses.insert(digest.clone(), loss);
            self.count(&named);
        }
        let images = self.inner.affected.by(digest).unwrap_or_else(|error| {
            tracing::warn!(%digest, error, "cannot tell which images need a lost blob");
            Vec::new()
        });
        tracing::error!(
            %digest,
            size,
            images = images.join(" "),
            "DATA LOSS: no replica has this blob any more. Push the images again, or restore a backup; a replica that comes back with its disk may still have it"
        );
        if let Some(loss) = self.lock().losses.get_mut(digest) {
            loss.images = images;
        }
    }

    /// The blob is here again, or nobody knows it any more.
    pub fn recovered(&self, digest: &Digest) {
        let mut named = self.lock();
        if named.losses.remove(digest).is_some() {
            tracing::info!(%digest, "a blob that was lost is back, or no longer needed");
            self.count(&named);
        }
    }

    /// Forgets what could not be named: whoever compares the catalogue with the disk counts anew.
    pub fn recount(&self) {
        let mut named = self.lock();
        named.unnamed = 0;
        self.count(&named);
    }

    /// The losses known by name, by digest.
    #[must_use]
    pub fn named(&self) -> Vec<Loss> {
        self.lock().losses.values().cloned().collect()
    }

    /// How many blobs are lost.
    #[must_use]
    pub fn total(&self) -> usize {
        let named = self.lock();
        named.losses.len() + named.unnamed
    }

    fn count(&self, named: &Named) {
        let total = named.losses.len() + named.unnamed;
        self.inner.metrics.unrecoverable_blobs.set(i64::try_from(total).unwrap_or(i64::MAX));
    }

    /// Every change under the lock is complete in itself.
    fn lock(&self) -> MutexGuard<'_, Named> {
        self.inner.named.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn images<R: KvRead>(meta: Meta<'_, R>, digest: &Digest) -> Result<Vec<String>, StorageError> {
    let mut images = Vec::new();
    for repository in meta.blob_repositories(digest, REPOSITORIES_MAX)? {
        let mut after: Option<Digest> = None;
        let mut seen = 0;
        while seen < MANIFESTS_MAX && images.len() < IMAGES_MAX {
            let page = meta.manifest_links(&repository, after.as_ref(), PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            seen += page.len();
            for (manifest, _) in page {
                let Some(record) = meta.manifest(&manifest)? else { continue };
                if !record.summary.references.iter().any(|named| named.digest == *digest) {
                    continue;
                }
                let tags = meta.tags_of(&repository, &manifest)?;
                if tags.is_empty() {
                    images.push(format!("{repository}@{manifest}"));
                }
                images.extend(tags.iter().map(|tag| format!("{repository}:{tag}")));
            }
        }
    }
    images.truncate(IMAGES_MAX);
    Ok(images)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use tercet_storage::{Algorithm, SystemClock};

    use super::*;

    struct Always;

    impl Affected for Always {
        fn by(&self, _digest: &Digest) -> Result<Vec<String>, String> {
            Ok(vec!["team/app:1".to_owned()])
        }
    }

    fn losses() -> (Losses, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new().unwrap());
        (Losses::new(Arc::new(Always), Arc::new(SystemClock), Arc::clone(&metrics)), metrics)
    }

    fn digest(number: usize) -> Digest {
        Digest::of(Algorithm::Sha256, &number.to_be_bytes())
    }

    #[test]
    fn a_loss_is_counted_once_and_names_its_images() {
        let (losses, metrics) = losses();
        losses.report(&digest(1), 10);
        losses.report(&digest(1), 10);
        losses.report(&digest(2), 20);
        assert_eq!((losses.total(), metrics.unrecoverable_blobs.get()), (2, 2));
        let first = losses.named().into_iter().find(|loss| loss.digest == digest(1)).unwrap();
        assert_eq!((first.size, first.images), (10, vec!["team/app:1".to_owned()]));
        losses.recovered(&digest(1));
        losses.recovered(&digest(1));
        assert_eq!((losses.total(), metrics.unrecoverable_blobs.get()), (1, 1));
    }

    #[test]
    fn losses_beyond_the_bound_are_counted_until_the_next_comparison() {
        let (losses, metrics) = losses();
        for number in 0..NAMED_MAX + 3 {
            losses.report(&digest(number), 1);
        }
        assert_eq!(losses.named().len(), NAMED_MAX);
        assert_eq!(metrics.unrecoverable_blobs.get(), i64::try_from(NAMED_MAX + 3).unwrap());
        losses.recount();
        assert_eq!(losses.total(), NAMED_MAX);
    }
}

//! Which blobs nothing references, and which repositories nothing is left of: what the leader proposes to
//! forget, and what an operator is shown before.

use serde::{Deserialize, Serialize};
use tercet_storage::{BlobRecord, Digest, KvRead, Meta, RepositoryName, StorageError};

/// Links of a repository that are looked at to find one that is still of use.
const LINKS_PAGE: usize = 256;
/// Repositories that are named for a blob which would go.
const NAMED_MAX: usize = 16;

/// A blob that nothing references.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The blob.
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
    /// Since when nothing references it, in milliseconds since the Unix epoch.
    pub unreferenced_since_ms: u64,
    /// Repositories that see it, the first sixteen of them.
    pub repositories: Vec<String>,
}

/// How long ago something must have lost its last use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grace {
    pub(super) now_ms: u64,
    pub(super) grace_ms: u64,
}

/// What is to be done about a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A manifest names it.
    Referenced,
    /// Its grace is not over.
    Waits,
    /// It may go.
    Due,
    /// Its stamp is from a clock that was wrong, so far ahead that its grace would be too long: it is
    /// stamped again.
    Misdated,
}

impl Grace {
    pub(super) fn judge(&self, record: &BlobRecord) -> Verdict {
        let Some(since_ms) = record.unreferenced_since_ms else { return Verdict::Referenced };
        if record.references > 0 {
            return Verdict::Referenced;
        }
        if since_ms > self.now_ms.saturating_add(self.grace_ms) {
            return Verdict::Misdated;
        }
        if self.is_over(since_ms) { Verdict::Due } else { Verdict::Waits }
    }

    fn is_over(&self, since_ms: u64) -> bool {
        since_ms.saturating_add(self.grace_ms) <= self.now_ms
    }

    /// Whether a repository has no manifest, and no blob that came lately. Apply judges all of its blobs
    /// again; here the first page is enough to spare the log most of what it would refuse.
    pub(super) fn is_abandoned<R: KvRead + ?Sized>(
        &self,
        meta: &Meta<'_, R>,
        repository: &RepositoryName,
    ) -> Result<bool, StorageError> {
        if !meta.manifest_links(repository, None, 1)?.is_empty() {
            return Ok(false);
        }
        let Some(record) = meta.repository(repository)? else { return Ok(false) };
        if !self.is_over(record.created_ms) {
            return Ok(false);
        }
        let links = meta.blob_links(repository, None, LINKS_PAGE)?;
        Ok(links.iter().all(|(_, link)| link.references == 0 && self.is_over(link.linked_ms)))
    }
}

/// A blob with what an operator wants to know of it.
pub(super) fn describe<R: KvRead + ?Sized>(
    meta: &Meta<'_, R>,
    digest: &Digest,
    record: &BlobRecord,
) -> Result<Candidate, StorageError> {
    let repositories = meta.blob_repositories(digest, NAMED_MAX)?;
    Ok(Candidate {
        digest: digest.to_string(),
        size: record.size,
        unreferenced_since_ms: record.unreferenced_since_ms.unwrap_or_default(),
        repositories: repositories.iter().map(ToString::to_string).collect(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use tercet_storage::{
        Algorithm, BlobLinkRecord, ManifestLinkRecord, MetaBatch, RepositoryRecord, StateDb,
    };

    use super::*;

    fn record(references: u64, since: Option<u64>) -> BlobRecord {
        BlobRecord { size: 1, committed_ms: 1, references, unreferenced_since_ms: since }
    }

    #[test]
    fn a_blob_is_due_when_its_grace_is_over_by_the_clock_that_is_asked() {
        let at = |now_ms| Grace { now_ms, grace_ms: 100 };
        assert_eq!(at(9_999).judge(&record(1, None)), Verdict::Referenced);
        assert_eq!(at(9_999).judge(&record(1, Some(1))), Verdict::Referenced);
        assert_eq!(at(149).judge(&record(0, Some(50))), Verdict::Waits);
        assert_eq!(at(150).judge(&record(0, Some(50))), Verdict::Due);
        assert_eq!(
            at(0).judge(&record(0, Some(100))),
            Verdict::Waits,
            "clocks may differ a little"
        );
        assert_eq!(at(0).judge(&record(0, Some(101))), Verdict::Misdated);
    }

    #[test]
    fn a_repository_is_abandoned_when_nothing_in_it_was_of_use_for_the_grace() {
        let dir = tempfile::tempdir().unwrap();
        let db = StateDb::open(dir.path()).unwrap();
        let digest = |text: &str| Digest::of(Algorithm::Sha256, text.as_bytes());
        let mut batch = MetaBatch::new(&db);
        let mut put = |name: &str, link: Option<(u64, u32)>| {
            let name: RepositoryName = name.parse().unwrap();
            batch.put_repository(&name, &RepositoryRecord { created_ms: 50 }).unwrap();
            if let Some((linked_ms, references)) = link {
                let record = BlobLinkRecord { linked_ms, references };
                batch.put_blob_link(&name, &digest("blob"), &record).unwrap();
            }
        };
        put("empty", None);
        put("old", Some((50, 0)));
        put("fresh", Some((51, 0)));
        put("named", Some((50, 1)));
        put("image", Some((50, 0)));
        let link = ManifestLinkRecord { media_type: "m".into(), pushed_ms: 1 };
        batch.put_manifest_link(&"image".parse().unwrap(), &digest("manifest"), &link).unwrap();
        batch.commit().unwrap();
        let abandoned = |now_ms, name: &str| {
            let grace = Grace { now_ms, grace_ms: 100 };
            grace.is_abandoned(&Meta(&db), &name.parse().unwrap()).unwrap()
        };
        assert!(abandoned(150, "empty") && !abandoned(149, "empty"));
        assert!(abandoned(150, "old") && !abandoned(150, "fresh"));
        assert!(!abandoned(150, "named") && !abandoned(150, "image") && !abandoned(150, "unknown"));
    }

    #[test]
    fn a_candidate_names_who_sees_it() {
        let dir = tempfile::tempdir().unwrap();
        let db = StateDb::open(dir.path()).unwrap();
        let digest = Digest::of(Algorithm::Sha256, b"blob");
        let mut batch = MetaBatch::new(&db);
        for n in 0..20 {
            let name = format!("r{n:02}").parse().unwrap();
            let link = BlobLinkRecord { linked_ms: 1, references: 0 };
            batch.put_blob_link(&name, &digest, &link).unwrap();
        }
        batch.commit().unwrap();
        let candidate = describe(&Meta(&db), &digest, &record(0, Some(7))).unwrap();
        assert_eq!(candidate.repositories.len(), NAMED_MAX);
        assert_eq!((candidate.unreferenced_since_ms, &*candidate.repositories[0]), (7, "r00"));
    }
}

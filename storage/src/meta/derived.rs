//! Tables that are made from others, for databases of versions that did not have them.
//!
//! From then on every write keeps them in step: see [`super::batch::MetaBatch`].

use super::batch::MetaBatch;
use super::keys;
use super::read::Meta;
use super::state_db::StateDb;
use super::table::{KvRead, Table};
use crate::error::StorageError;
use crate::{Digest, ReferenceKind, RepositoryName};

/// In [`Table::System`]; its value says which tables have been made.
const MARKER: &[u8] = b"derived_tables";
const MADE: &[u8] = b"blob_repositories manifest_parents";
/// Records that are read and written at a time.
const PAGE: usize = 512;

/// Makes what is missing. The marker is written last, and writes are lost newest first, so that an
/// interrupted run begins anew.
pub(super) fn make(db: &StateDb) -> Result<(), StorageError> {
    if db.get(Table::System, MARKER)?.as_deref() == Some(MADE) {
        return Ok(());
    }
    each_link(db, Table::BlobLinks, |batch, repository, digest| {
        batch.put_blob_repository(digest, repository);
        Ok(())
    })?;
    each_link(db, Table::ManifestLinks, |batch, repository, parent| {
        let Some(record) = Meta(db).manifest(parent)? else { return Ok(()) };
        for reference in &record.summary.references {
            if reference.kind == ReferenceKind::Manifest {
                batch.put_manifest_parent(repository, &reference.digest, parent);
            }
        }
        Ok(())
    })?;
    let mut batch = MetaBatch::new(db);
    batch.put(Table::System, MARKER, MADE);
    batch.commit()
}

/// Makes all of them anew, whatever they hold.
pub(super) fn remake(db: &StateDb) -> Result<(), StorageError> {
    // First: whoever opens a database without the marker makes them.
    let mut batch = MetaBatch::new(db);
    batch.delete(Table::System, MARKER);
    batch.commit()?;
    for table in [Table::BlobRepositories, Table::ManifestParents] {
        loop {
            let page = db.scan(table, b"", None, PAGE)?;
            if page.is_empty() {
                break;
            }
            let mut batch = MetaBatch::new(db);
            for (key, _) in page {
                batch.delete(table, key);
            }
            batch.commit()?;
        }
    }
    make(db)
}

fn each_link(
    db: &StateDb,
    table: Table,
    mut derive: impl FnMut(&mut MetaBatch<'_>, &RepositoryName, &Digest) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = db.scan(table, b"", after.as_deref(), PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        let mut batch = MetaBatch::new(db);
        for (key, _) in &page {
            let (repository, digest) = keys::link_parts(table, key)?;
            derive(&mut batch, &repository, &digest)?;
        }
        batch.commit()?;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        Algorithm, BlobLinkRecord, ManifestLinkRecord, ManifestRecord, ManifestReference,
        ManifestSummary,
    };

    fn digest(number: usize) -> Digest {
        Digest::of(Algorithm::Sha256, &number.to_le_bytes())
    }

    /// Forgets the tables, as a database has none that an older version wrote.
    fn forget(db: &StateDb) {
        let mut batch = MetaBatch::new(db);
        for table in [Table::BlobRepositories, Table::ManifestParents] {
            for (key, _) in db.scan(table, b"", None, usize::MAX).unwrap() {
                batch.delete(table, key);
            }
        }
        batch.delete(Table::System, MARKER);
        batch.commit().unwrap();
    }

    fn derived(db: &StateDb) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut all = db.scan(Table::BlobRepositories, b"", None, usize::MAX).unwrap();
        all.extend(db.scan(Table::ManifestParents, b"", None, usize::MAX).unwrap());
        all
    }

    #[test]
    fn a_database_of_an_older_version_gets_what_writes_would_have_made() {
        let dir = tempfile::tempdir().unwrap();
        let db = StateDb::open(dir.path()).unwrap();
        let repositories: Vec<RepositoryName> =
            ["a", "a/b", "c"].map(|name| name.parse().unwrap()).to_vec();
        let mut batch = MetaBatch::new(&db);
        // More than a page of each.
        for number in 0..PAGE * 2 + 7 {
            let repository = &repositories[number % 3];
            let link = BlobLinkRecord { linked_ms: 1, references: 1 };
            batch.put_blob_link(repository, &digest(number % 900), &link).unwrap();
        }
        for number in 0..PAGE + 3 {
            let repository = &repositories[number % 3];
            let kind = if number % 2 == 0 { ReferenceKind::Manifest } else { ReferenceKind::Blob };
            let references = vec![ManifestReference { digest: digest(number / 3), size: 1, kind }];
            let summary = ManifestSummary {
                media_type: "application/vnd.oci.image.index.v1+json".into(),
                references,
                subject: None,
                artifact_type: None,
                annotations: BTreeMap::new(),
            };
            let record = ManifestRecord { bytes: vec![1], summary, links: 1 };
            let link = ManifestLinkRecord { media_type: "x".into(), pushed_ms: 1 };
            let parent = digest(10_000 + number);
            batch.put_manifest(&parent, &record).unwrap();
            batch.put_manifest_link(repository, &parent, &link).unwrap();
            if kind == ReferenceKind::Manifest {
                batch.put_manifest_parent(repository, &digest(number / 3), &parent);
            }
        }
        batch.commit().unwrap();
        let before = derived(&db);
        assert!(before.len() > PAGE * 2, "{}", before.len());
        forget(&db);
        drop(db);
        let db = StateDb::open(dir.path()).unwrap();
        assert_eq!(derived(&db), before);
        let parents = Meta(&db).manifest_parents(&repositories[0], &digest(0), 9).unwrap();
        assert_eq!(parents, [digest(10_000)]);

        // An interrupted run is finished.
        let mut batch = MetaBatch::new(&db);
        for (key, _) in db.scan(Table::BlobRepositories, b"", None, 300).unwrap() {
            batch.delete(Table::BlobRepositories, key);
        }
        batch.delete(Table::System, MARKER);
        batch.commit().unwrap();
        drop(db);
        let db = StateDb::open(dir.path()).unwrap();
        assert_eq!(derived(&db), before);
        // And a complete one is not made again.
        let (key, _) = before.first().unwrap().clone();
        let mut batch = MetaBatch::new(&db);
        batch.delete(Table::BlobRepositories, key);
        batch.commit().unwrap();
        drop(db);
        assert_eq!(derived(&StateDb::open(dir.path()).unwrap()), before[1..]);
    }
}

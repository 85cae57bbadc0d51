#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
use std::collections::BTreeMap as Annotations;

use super::*;
use crate::{Algorithm, ManifestReference, ManifestSummary, MetaBatch};

const MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// One repository with one tagged manifest that names one blob.
fn image(db: &StateDb) -> (RepositoryName, Digest, Digest) {
    let repository: RepositoryName = "library/app".parse().unwrap();
    let (bytes, blob) = (b"{}".to_vec(), Digest::of(Algorithm::Sha256, b"layer"));
    let manifest = Digest::of(Algorithm::Sha256, &bytes);
    let summary = ManifestSummary {
        media_type: MEDIA_TYPE.into(),
        references: vec![ManifestReference {
            digest: blob.clone(),
            size: 5,
            kind: ReferenceKind::Blob,
        }],
        subject: None,
        artifact_type: None,
        annotations: Annotations::default(),
    };
    let mut batch = MetaBatch::new(db);
    batch.put_repository(&repository, &RepositoryRecord { created_ms: 1 }).unwrap();
    let record =
        BlobRecord { size: 5, committed_ms: 1, references: 1, unreferenced_since_ms: None };
    batch.put_blob(&blob, &record).unwrap();
    let link = BlobLinkRecord { linked_ms: 1, references: 1 };
    batch.put_blob_link(&repository, &blob, &link).unwrap();
    batch.put_manifest(&manifest, &ManifestRecord { bytes, summary, links: 1 }).unwrap();
    let link = ManifestLinkRecord { media_type: MEDIA_TYPE.into(), pushed_ms: 1 };
    batch.put_manifest_link(&repository, &manifest, &link).unwrap();
    let tag = TagRecord { digest: manifest.clone(), updated_ms: 1 };
    batch.put_tag(&repository, &"latest".parse().unwrap(), &tag).unwrap();
    batch.commit().unwrap();
    (repository, manifest, blob)
}

type Harm = fn(&mut MetaBatch<'_>, &RepositoryName, &Digest, &Digest);

fn problems(db: &StateDb) -> Vec<(&'static str, String)> {
    let found = db.inspect().unwrap();
    assert_eq!(found.problem_count, found.problems.len() as u64);
    found.problems.into_iter().map(|problem| (problem.table, problem.problem)).collect()
}

#[test]
fn a_sound_database_has_no_problem() {
    let directory = tempfile::tempdir().unwrap();
    let db = StateDb::open(directory.path()).unwrap();
    image(&db);
    let found = db.inspect().unwrap();
    assert_eq!(found.problems, []);
    assert_eq!(found.records["tags"], 1);
    assert_eq!(found.records["manifests"], 1);
}

#[test]
fn each_kind_of_damage_is_told() {
    let damage: [(&str, &str, Harm); 7] = [
        ("tags", "checksum", |batch, repository, _, _| {
            let tag = "latest".parse().unwrap();
            let mut value = batch.get(Table::Tags, &keys::tag(repository, &tag)).unwrap().unwrap();
            *value.last_mut().unwrap() ^= 1;
            batch.put(Table::Tags, keys::tag(repository, &tag), value);
        }),
        ("tags", "does not have", |batch, repository, manifest, _| {
            batch.delete_manifest_link(repository, manifest);
        }),
        ("tags", "index of tags", |batch, repository, manifest, _| {
            let key = keys::tag_target(repository, manifest, &"latest".parse().unwrap());
            batch.delete(Table::TagTargets, key);
        }),
        ("blob_links", "not in the catalogue", |batch, _, _, blob| batch.delete_blob(blob)),
        ("blobs", "counts 7, there are 1", |batch, _, _, blob| {
            let record = batch.meta().blob(blob).unwrap().unwrap();
            batch.put_blob(blob, &BlobRecord { references: 7, ..record }).unwrap();
        }),
        ("manifests", "hash to", |batch, _, manifest, _| {
            let record = batch.meta().manifest(manifest).unwrap().unwrap();
            let bytes = b"{ }".to_vec();
            batch.put_manifest(manifest, &ManifestRecord { bytes, ..record }).unwrap();
        }),
        ("blob_links", "index of repositories", |batch, repository, _, blob| {
            batch.delete(Table::BlobRepositories, keys::blob_repository(blob, repository));
        }),
    ];
    for (table, words, harm) in damage {
        let directory = tempfile::tempdir().unwrap();
        let db = StateDb::open(directory.path()).unwrap();
        let (repository, manifest, blob) = image(&db);
        let mut batch = MetaBatch::new(&db);
        harm(&mut batch, &repository, &manifest, &blob);
        batch.commit().unwrap();
        let found = problems(&db);
        let told = found.iter().any(|(at, problem)| *at == table && problem.contains(words));
        assert!(told, "{table}: {words}: {found:?}");
    }
}

#[test]
fn derived_tables_are_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let db = StateDb::open(directory.path()).unwrap();
    let (repository, _, blob) = image(&db);
    let mut batch = MetaBatch::new(&db);
    batch.delete(Table::BlobRepositories, keys::blob_repository(&blob, &repository));
    let stranger: RepositoryName = "library/other".parse().unwrap();
    batch.put(Table::BlobRepositories, keys::blob_repository(&blob, &stranger), Vec::new());
    batch.commit().unwrap();
    assert_eq!(problems(&db).len(), 2);
    db.rebuild_derived().unwrap();
    assert_eq!(problems(&db), []);
}

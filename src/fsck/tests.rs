#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
use std::fs;
use std::path::Path;
use std::time::Duration;

use tercet_storage::{
    Algorithm, BlobLinkRecord, BlobRecord, Digest, ManifestLinkRecord, ManifestRecord,
    ManifestReference, ManifestSummary, MetaBatch, ReferenceKind, RepositoryName, RepositoryRecord,
    StateDb, TagRecord,
};

use super::*;

const LAYER: &[u8] = b"the bytes of a layer";

/// A data directory with one image, and without identity and log.
fn directory(root: &Path) -> (DataDir, Digest) {
    let data = DataDir::new(root);
    let blob = Digest::of(Algorithm::Sha256, LAYER);
    let db = StateDb::open(&data.state()).unwrap();
    let repository: RepositoryName = "library/app".parse().unwrap();
    let (bytes, media_type) = (b"{}".to_vec(), "application/vnd.oci.image.manifest.v1+json");
    let manifest = Digest::of(Algorithm::Sha256, &bytes);
    let reference = ManifestReference {
        digest: blob.clone(),
        size: LAYER.len() as u64,
        kind: ReferenceKind::Blob,
    };
    let summary = ManifestSummary {
        media_type: media_type.into(),
        references: vec![reference],
        subject: None,
        artifact_type: None,
        annotations: Default::default(),
    };
    let mut batch = MetaBatch::new(&db);
    batch.put_repository(&repository, &RepositoryRecord { created_ms: 1 }).unwrap();
    let record = BlobRecord {
        size: LAYER.len() as u64,
        committed_ms: 1,
        references: 1,
        unreferenced_since_ms: None,
    };
    batch.put_blob(&blob, &record).unwrap();
    let link = BlobLinkRecord { linked_ms: 1, references: 1 };
    batch.put_blob_link(&repository, &blob, &link).unwrap();
    batch.put_manifest(&manifest, &ManifestRecord { bytes, summary, links: 1 }).unwrap();
    let link = ManifestLinkRecord { media_type: media_type.into(), pushed_ms: 1 };
    batch.put_manifest_link(&repository, &manifest, &link).unwrap();
    let tag = TagRecord { digest: manifest, updated_ms: 1 };
    batch.put_tag(&repository, &"latest".parse().unwrap(), &tag).unwrap();
    batch.commit().unwrap();
    write(&data.blob(&blob), LAYER);
    (data, blob)
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn look(data: &DataDir, mode: Mode) -> Report {
    let expected =
        Expected { replication_factor: 3, edge: false, orphan_grace: Duration::from_secs(0) };
    check(data, mode, expected).unwrap()
}

fn of_part(report: &Report, part: &str, severity: Severity) -> usize {
    report.findings.iter().filter(|f| f.part == part && f.severity == severity).count()
}

#[test]
fn a_rotten_blob_goes_to_quarantine_and_its_image_is_named() {
    let root = tempfile::tempdir().unwrap();
    let (data, blob) = directory(root.path());
    let sound = look(&data, Mode::Look);
    assert_eq!(of_part(&sound, "blobs", Severity::Damage), 0);
    assert_eq!(of_part(&sound, "state", Severity::Damage), 0);
    assert_eq!(sound.counts["blobs read"], 1);

    write(&data.blob(&blob), &[LAYER, b"!"].concat()[1..]);
    let found = look(&data, Mode::Look);
    assert_eq!(of_part(&found, "blobs", Severity::Damage), 1);
    assert_eq!(found.incomplete_images, ["library/app:latest"]);
    assert!(data.blob(&blob).exists(), "a look has moved it");

    let repaired = look(&data, Mode::Repair);
    assert_eq!(repaired.repaired.len(), 1, "{:?}", repaired.repaired);
    assert!(!data.blob(&blob).exists());
    assert_eq!(fs::read_dir(data.quarantine()).unwrap().count(), 2);
    let after = look(&data, Mode::Look);
    assert_eq!(of_part(&after, "blobs", Severity::Damage), 0);
    assert_eq!(of_part(&after, "blobs", Severity::Missing), 1);
}

#[test]
fn strangers_orphans_and_strays_are_notes_that_a_repair_clears() {
    let root = tempfile::tempdir().unwrap();
    let (data, _) = directory(root.path());
    let orphan = Digest::of(Algorithm::Sha256, b"orphan");
    write(&data.blob(&orphan), b"orphan");
    write(&data.blobs().join("sha256/ab/readme.txt"), b"hello");
    write(&data.root().join("identity.json.tmp"), b"half");
    write(&data.uploads().join("tmp-1"), b"half");
    let found = look(&data, Mode::Look);
    assert_eq!(of_part(&found, "blobs", Severity::Note), 2);
    assert_eq!(of_part(&found, "leftovers", Severity::Note), 2);
    look(&data, Mode::Repair);
    let after = look(&data, Mode::Look);
    assert_eq!(of_part(&after, "blobs", Severity::Note), 0);
    assert_eq!(of_part(&after, "leftovers", Severity::Note), 0);
    assert_eq!(of_part(&after, "quarantine", Severity::Note), 1);
}

#[test]
fn without_a_state_nothing_is_called_an_orphan() {
    let root = tempfile::tempdir().unwrap();
    let data = DataDir::new(root.path());
    let blob = Digest::of(Algorithm::Sha256, LAYER);
    write(&data.blob(&blob), LAYER);
    look(&data, Mode::Repair);
    assert!(data.blob(&blob).exists(), "a blob that nobody could judge was moved");
}

//! How many instructions the hot paths of this crate take, counted by Valgrind (docs/src/instructions.md).
//!
//! `setup` functions are not counted. What a benchmark ends with it returns, so that closing a database or freeing
//! records is not counted either.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::hint::black_box;

use bytes::Bytes;
use gungraun::{
    Callgrind, EntryPoint, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use tempfile::TempDir;
use tercet_storage::codec::{decode, encode};
use tercet_storage::{
    Algorithm, BlobStore, BlobStoreOptions, Digest, Fence, ManifestLinkRecord, ManifestRecord,
    ManifestReference, ManifestSummary, Meta, MetaBatch, ReferenceKind, RepositoryName, StateDb,
    Tag, TagRecord, UploadFile, UploadId, UploadMeta, schemas,
};
use tokio::runtime::Runtime;

const REPOSITORIES: usize = 1_000;
const TAGS_EACH: usize = 10;
/// One lookup, or one record, differs from the next by more than the tolerance; a hundred do not.
const REPEATED: usize = 100;
const MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

// ---- manifest lookup

/// The metadata of a registry, and names to look up in it.
struct Catalogue {
    db: StateDb,
    wanted: Vec<(RepositoryName, Tag)>,
    _dir: TempDir,
}

/// Names whose tags are there.
fn known() -> Catalogue {
    catalogue(|n| format!("v{}", n % TAGS_EACH))
}

/// Names whose repositories are there and whose tags are not.
fn unknown() -> Catalogue {
    catalogue(|n| format!("v{}-absent", n % TAGS_EACH))
}

fn catalogue(wanted_tag: impl Fn(usize) -> String) -> Catalogue {
    let dir = TempDir::new().unwrap();
    let db = StateDb::open(dir.path()).unwrap();
    for n in 0..REPOSITORIES {
        fill(&db, n);
    }
    // In table files, as most of a registry that has run for a while.
    db.flush().unwrap();
    // Names far apart: else they would share a block.
    let wanted = (0..REPEATED)
        .map(|n| (repository(n * (REPOSITORIES / REPEATED)), wanted_tag(n).parse().unwrap()))
        .collect();
    let catalogue = Catalogue { db, wanted, _dir: dir };
    // Blocks are in the cache, as those of a repository that somebody pulls from are.
    look_up_all(&catalogue);
    catalogue
}

/// Ten tags of one image.
fn fill(db: &StateDb, n: usize) {
    let (repository, record) = (repository(n), manifest(n));
    let digest = Digest::of(Algorithm::Sha256, &record.bytes);
    let link = ManifestLinkRecord { media_type: MEDIA_TYPE.to_owned(), pushed_ms: 1 };
    let mut batch = MetaBatch::new(db);
    batch.put_manifest(&digest, &record).unwrap();
    batch.put_manifest_link(&repository, &digest, &link).unwrap();
    let tag = TagRecord { digest, updated_ms: 1 };
    for n in 0..TAGS_EACH {
        batch.put_tag(&repository, &format!("v{n}").parse().unwrap(), &tag).unwrap();
    }
    batch.commit().unwrap();
}

/// What a pull by tag reads; see `find_manifest` in src/registry/pull.rs.
fn look_up(db: &StateDb, repository: &RepositoryName, tag: &Tag) -> Option<ManifestRecord> {
    let meta = Meta(db);
    let digest = meta.tag(repository, tag).unwrap()?.digest;
    meta.manifest_link(repository, &digest).unwrap()?;
    meta.manifest(&digest).unwrap()
}

fn look_up_all(catalogue: &Catalogue) -> Vec<Option<ManifestRecord>> {
    catalogue.wanted.iter().map(|(name, tag)| look_up(&catalogue.db, name, tag)).collect()
}

#[library_benchmark]
#[bench::hit(setup = known)]
#[bench::miss(setup = unknown)]
fn manifest_lookup(catalogue: Catalogue) -> (Catalogue, Vec<Option<ManifestRecord>>) {
    let found = look_up_all(black_box(&catalogue));
    (catalogue, found)
}

// ---- digest pipe

const PART_BYTES: usize = 64 * 1024;
const PARTS: usize = 16;

/// An upload that waits for its bytes.
struct Arriving {
    upload: UploadFile,
    parts: Vec<Bytes>,
    runtime: Runtime,
    _dir: TempDir,
}

fn arriving() -> Arriving {
    let dir = TempDir::new().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let root = dir.path().to_owned();
    // Never too full, whatever else is on the volume.
    let options = BlobStoreOptions { root, refuse_percent: 101, headroom_bytes: 0 };
    let store = BlobStore::open(options).unwrap();
    let meta = UploadMeta {
        repository: repository(0),
        algorithm: Algorithm::Sha256,
        created_ms: 1,
        fence: Fence::default(),
    };
    let upload = runtime.block_on(store.create_upload(&UploadId::new(1), meta)).unwrap();
    let parts = (0..PARTS).map(|n| Bytes::from(vec![u8::try_from(n).unwrap(); PART_BYTES]));
    Arriving { upload, parts: parts.collect(), runtime, _dir: dir }
}

/// Another thread writes and hashes, and waiting for it takes as many instructions as it happens to take: counted is
/// what that thread does with a part, and not how the part gets there.
fn only_the_sink() -> LibraryBenchmarkConfig {
    configured(Callgrind::default().entry_point(custom("*::blob::sink::Sink*::append")))
}

#[library_benchmark(config = only_the_sink())]
#[bench::mebibyte(setup = arriving)]
fn digest_pipe(mut arriving: Arriving) -> Arriving {
    for part in std::mem::take(&mut arriving.parts) {
        arriving.runtime.block_on(arriving.upload.append(part)).unwrap();
    }
    arriving
}

// ---- record codec

fn tag_records() -> Vec<TagRecord> {
    let record = |n| TagRecord { digest: digest("manifest", n), updated_ms: 1_790_000_000_000 };
    warm((0..REPEATED).map(record).collect())
}

fn manifest_records() -> Vec<ManifestRecord> {
    warm((0..REPEATED).map(manifest).collect())
}

fn encoded_tag_records() -> Vec<Vec<u8>> {
    let records = tag_records();
    records.iter().map(|record| encode(schemas::TAG, record).unwrap()).collect()
}

fn encoded_manifest_records() -> Vec<Vec<u8>> {
    let records = manifest_records();
    records.iter().map(|record| encode(schemas::MANIFEST, record).unwrap()).collect()
}

/// Once before it counts: the first checksum asks what the processor can do.
fn warm<T>(records: Vec<T>) -> Vec<T> {
    black_box(encode(schemas::TAG, &0_u8).unwrap());
    records
}

#[library_benchmark]
#[bench::tag(setup = tag_records)]
fn encode_tag(records: Vec<TagRecord>) -> (Vec<TagRecord>, Vec<Vec<u8>>) {
    let encoded = records.iter().map(|record| encode(schemas::TAG, record).unwrap()).collect();
    (records, encoded)
}

#[library_benchmark]
#[bench::manifest(setup = manifest_records)]
fn encode_manifest(records: Vec<ManifestRecord>) -> (Vec<ManifestRecord>, Vec<Vec<u8>>) {
    let encoded = records.iter().map(|record| encode(schemas::MANIFEST, record).unwrap()).collect();
    (records, encoded)
}

#[library_benchmark]
#[bench::tag(setup = encoded_tag_records)]
fn decode_tag(encoded: Vec<Vec<u8>>) -> (Vec<Vec<u8>>, Vec<TagRecord>) {
    let records = encoded.iter().map(|bytes| decode(schemas::TAG, bytes).unwrap()).collect();
    (encoded, records)
}

#[library_benchmark]
#[bench::manifest(setup = encoded_manifest_records)]
fn decode_manifest(encoded: Vec<Vec<u8>>) -> (Vec<Vec<u8>>, Vec<ManifestRecord>) {
    let records = encoded.iter().map(|bytes| decode(schemas::MANIFEST, bytes).unwrap()).collect();
    (encoded, records)
}

// ---- material

fn repository(n: usize) -> RepositoryName {
    format!("team-{}/service-{n}", n % 20).parse().unwrap()
}

fn digest(kind: &str, n: usize) -> Digest {
    Digest::of(Algorithm::Sha256, format!("{kind} {n}").as_bytes())
}

/// Of an image with a config and five layers.
fn manifest(n: usize) -> ManifestRecord {
    let references: Vec<_> = (0..6)
        .map(|layer| ManifestReference {
            digest: digest("layer", n * 6 + layer),
            size: 31_337,
            kind: ReferenceKind::Blob,
        })
        .collect();
    let descriptors: Vec<String> = references
        .iter()
        .map(|layer| {
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{}","size":{}}}"#,
                layer.digest, layer.size
            )
        })
        .collect();
    let bytes = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MEDIA_TYPE}","config":{},"layers":[{}]}}"#,
        descriptors.first().unwrap(),
        descriptors.get(1..).unwrap().join(",")
    );
    let summary = ManifestSummary {
        media_type: MEDIA_TYPE.to_owned(),
        references,
        subject: None,
        artifact_type: None,
        annotations: BTreeMap::new(),
    };
    ManifestRecord { bytes: bytes.into_bytes(), summary, links: 1 }
}

// ---- what runs

fn custom(function: &str) -> EntryPoint {
    EntryPoint::Custom(function.to_owned())
}

/// Instructions alone: simulated caches are slower and not compared.
fn configured(callgrind: &mut Callgrind) -> LibraryBenchmarkConfig {
    LibraryBenchmarkConfig::default().tool(callgrind.args(["--cache-sim=no"]).clone()).clone()
}

library_benchmark_group!(name = metadata, benchmarks = [manifest_lookup]);
library_benchmark_group!(name = blobs, benchmarks = [digest_pipe]);
library_benchmark_group!(
    name = record_codec,
    benchmarks = [encode_tag, encode_manifest, decode_tag, decode_manifest]
);
main!(
    config = configured(&mut Callgrind::default()),
    library_benchmark_groups = [metadata, blobs, record_codec]
);

//! How many instructions the hot paths of this crate take, counted by Valgrind (docs/src/instructions.md).
//!
//! `setup` functions are not counted. What a benchmark ends with it returns, so that closing a database or freeing
//! commands is not counted either.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::hint::black_box;

use futures_util::stream;
use gungraun::{
    Callgrind, EntryPoint, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use openraft::EntryPayload;
use openraft::alias::{EntryOf, LeaderIdOf, LogIdOf};
use openraft::storage::RaftStateMachine;
use tempfile::TempDir;
use tercet_raft::stores::{Machine, TypeConfig};
use tercet_raft::{AbsentReferences, Command, Condition, Proposal};
use tercet_storage::codec::{Schema, decode, encode};
use tercet_storage::{
    Algorithm, BlobLinkRecord, BlobRecord, DataDir, Digest, ManifestReference, ManifestSummary,
    Meta, MetaBatch, ReferenceKind, RepositoryName, StateDb,
};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// Commands that arrive together.
const BATCH: usize = 64;
const REPOSITORIES: usize = 8;
const LAYERS: usize = 6;
const MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

// ---- command apply

type Entry = EntryOf<TypeConfig>;

/// A state machine, and what the log has for it.
struct Committed {
    machine: Machine,
    entries: Vec<Entry>,
    runtime: Runtime,
    _dir: TempDir,
}

/// Each image is new, and its blobs are there.
fn new_images() -> Committed {
    committed(|n| n)
}

/// One image to a repository under many tags: all but the first find it there.
fn new_tags() -> Committed {
    committed(|n| n % REPOSITORIES)
}

fn committed(image: impl Fn(usize) -> usize) -> Committed {
    let dir = TempDir::new().unwrap();
    let data = DataDir::new(dir.path());
    fill(&StateDb::open(&data.state()).unwrap());
    let machine = Machine::open(&data, mpsc::channel(16).0).unwrap();
    // Blocks are in the cache, as those of a repository that somebody pushes to are.
    machine.read(|meta| (0..BATCH).for_each(|n| look_at_blobs(meta, n))).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let entries = (0..BATCH).map(|n| entry(n, push(n, image(n)))).collect();
    Committed { machine, entries, runtime, _dir: dir }
}

/// The blobs of all images, in table files, as most of a registry that has run for a while.
fn fill(db: &StateDb) {
    let mut batch = MetaBatch::new(db);
    for n in 0..BATCH {
        let repository = repository(n);
        for (digest, size) in layers(n) {
            let (references, unreferenced_since_ms) = (0, Some(1));
            let record = BlobRecord { size, committed_ms: 1, references, unreferenced_since_ms };
            let link = BlobLinkRecord { linked_ms: 1, references: 0 };
            batch.put_blob(&digest, &record).unwrap();
            batch.put_blob_link(&repository, &digest, &link).unwrap();
        }
    }
    batch.commit().unwrap();
    db.flush().unwrap();
}

fn look_at_blobs(meta: Meta<'_, StateDb>, image: usize) {
    for (digest, _) in layers(image) {
        assert!(meta.blob(&digest).unwrap().is_some());
        assert!(meta.blob_link(&repository(image), &digest).unwrap().is_some());
    }
}

fn entry(index: usize, command: Command) -> Entry {
    let leader_id = LeaderIdOf::<TypeConfig> { term: 1, node_id: 1 };
    let log_id = LogIdOf::<TypeConfig>::new(leader_id, index as u64 + 1);
    let proposal = Proposal { at_ms: 1_790_000_000_000, command };
    Entry { log_id, payload: EntryPayload::Normal(proposal) }
}

/// Another thread applies, and waiting for it takes as many instructions as it happens to take: counted is what that
/// thread does with the batch, and not how the batch gets there.
fn only_the_state() -> LibraryBenchmarkConfig {
    let entry_point = EntryPoint::Custom("*::machine::state::State*::apply".to_owned());
    configured(Callgrind::default().entry_point(entry_point))
}

#[library_benchmark(config = only_the_state())]
#[bench::new_images(setup = new_images)]
#[bench::new_tags(setup = new_tags)]
fn command_apply(mut committed: Committed) -> Committed {
    let entries = std::mem::take(&mut committed.entries);
    let entries = stream::iter(entries.into_iter().map(|entry| Ok((entry, None))));
    committed.runtime.block_on(committed.machine.apply(entries)).unwrap();
    committed
}

// ---- record codec

/// A log entry is this and its position, in the same envelope.
const PROPOSAL: Schema = Schema { id: u16::MAX, version: 1, name: "proposal" };

fn proposals() -> Vec<Proposal> {
    let proposals: Vec<_> =
        (0..BATCH).map(|n| Proposal { at_ms: 1_790_000_000_000, command: push(n, n) }).collect();
    // Once before it counts: the first checksum asks what the processor can do.
    black_box(encode(PROPOSAL, &proposals).unwrap());
    proposals
}

fn encoded_proposals() -> Vec<Vec<u8>> {
    proposals().iter().map(|proposal| encode(PROPOSAL, proposal).unwrap()).collect()
}

#[library_benchmark]
#[bench::push(setup = proposals)]
fn encode_command(proposals: Vec<Proposal>) -> (Vec<Proposal>, Vec<Vec<u8>>) {
    let encoded = proposals.iter().map(|proposal| encode(PROPOSAL, proposal).unwrap()).collect();
    (proposals, encoded)
}

#[library_benchmark]
#[bench::push(setup = encoded_proposals)]
fn decode_command(encoded: Vec<Vec<u8>>) -> (Vec<Vec<u8>>, Vec<Proposal>) {
    let proposals = encoded.iter().map(|bytes| decode(PROPOSAL, bytes).unwrap()).collect();
    (encoded, proposals)
}

// ---- material

fn repository(n: usize) -> RepositoryName {
    format!("team/service-{}", n % REPOSITORIES).parse().unwrap()
}

fn digest(text: &str) -> Digest {
    Digest::of(Algorithm::Sha256, text.as_bytes())
}

fn layers(image: usize) -> Vec<(Digest, u64)> {
    (0..LAYERS).map(|layer| (digest(&format!("layer {image} {layer}")), 31_337)).collect()
}

/// The push of an image to its repository under the tag number `tag`.
fn push(tag: usize, image: usize) -> Command {
    let reference = |(digest, size)| ManifestReference { digest, size, kind: ReferenceKind::Blob };
    let references: Vec<_> = layers(image).into_iter().map(reference).collect();
    // Only its length matters here: nobody parses it again.
    let bytes = format!("{image:>1000}").into_bytes();
    Command::PushManifest {
        repository: repository(image),
        digest: Digest::of(Algorithm::Sha256, &bytes),
        media_type: MEDIA_TYPE.to_owned(),
        bytes,
        summary: ManifestSummary {
            media_type: MEDIA_TYPE.to_owned(),
            references,
            subject: None,
            artifact_type: None,
            annotations: BTreeMap::new(),
        },
        tags: vec![format!("v{tag}").parse().unwrap()],
        condition: Condition::None,
        absent: AbsentReferences::Refused,
    }
}

// ---- what runs

/// Instructions alone: simulated caches are slower and not compared.
fn configured(callgrind: &mut Callgrind) -> LibraryBenchmarkConfig {
    LibraryBenchmarkConfig::default().tool(callgrind.args(["--cache-sim=no"]).clone()).clone()
}

library_benchmark_group!(name = state_machine, benchmarks = [command_apply]);
library_benchmark_group!(name = record_codec, benchmarks = [encode_command, decode_command]);
main!(
    config = configured(&mut Callgrind::default()),
    library_benchmark_groups = [state_machine, record_codec]
);

//! W2: few tags at a time that move all the time, each write a manifest that no other write has; some writes set a
//! condition, and now and then a tag goes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use rand::{RngExt as _, rngs::StdRng};
use reqwest::Method;
use serde_json::json;

use super::{
    ledger::Ledger,
    probe::first_success,
    request::{Reading, Wrote},
    targets::Targets,
};
use crate::{
    check::{Operation, OperationKind},
    client::RegistryClient,
    content::{Blob, EMPTY_JSON, MediaType},
    wait::wait_until,
};

const REPOSITORY: &str = "chaos/tags";
/// Tags at a time.
const TAGS: usize = 3;
/// After so many operations on them all they give way to new ones. A change whose outcome stays unknown is open to the
/// end of a tag's history, and the time that a history takes to check doubles with each of them.
const ERA: u64 = 450;
/// So each of those counts as so many.
const UNKNOWN_WEIGHT: u64 = 60;
/// Of a hundred changes, those on a condition (`If-Match`, `If-None-Match`).
const SWAPS: u32 = 15;
/// And those that take the tag away: few, since each whose outcome stays unknown may still happen at any time.
const SWAPS_AND_DELETES: u32 = SWAPS + 3;
/// Between two operations of one client: thousands a second would only fill the history.
const PAUSE: Duration = Duration::from_millis(10);
const REFUSED_PAUSE: Duration = Duration::from_millis(50);
const PREPARE_DEADLINE: Duration = Duration::from_secs(60);

/// What all writers and readers have in common.
#[derive(Clone, Debug)]
pub(super) struct Tags {
    pub(super) targets: Targets,
    pub(super) ledger: Arc<Ledger>,
    /// Which of a run's loads this is: no two may write the same manifest.
    pub(super) generation: u64,
    /// Operations so far.
    pub(super) operations: Arc<AtomicU64>,
}

impl Tags {
    /// Pushes the one blob that all manifests refer to.
    pub(super) async fn prepare(&self) -> Result<()> {
        let client = self.targets.numbered(0).context("a workload has a replica")?;
        let blob = Blob::new(EMPTY_JSON);
        // Leadership may just have moved.
        let pushed = || client.push_blob(REPOSITORY, &blob);
        wait_until("the blob of all manifests is pushed", PREPARE_DEADLINE, pushed).await
    }

    fn era(&self) -> u64 {
        self.operations.fetch_add(1, Ordering::Relaxed) / ERA
    }

    /// Changes a tag through any replica.
    pub(super) async fn write(&self, worker: usize, number: u64, random: &mut StdRng) {
        let Some(client) = self.targets.any(random) else { return };
        let tag = tag(self.era(), random);
        let manifest = register_manifest(&format!("{}-{worker}-{number}", self.generation));
        let wrote = match random.random_range(0..100) {
            0..SWAPS => self.swap(&client, &tag, manifest).await,
            SWAPS..SWAPS_AND_DELETES => self.delete(&client, &tag).await,
            _ => self.set(&client, &tag, manifest).await,
        };
        let pause = match wrote {
            // Another one was faster: that is an answer, too.
            Wrote::Acknowledged | Wrote::Refused(404 | 412) => PAUSE,
            _ => REFUSED_PAUSE,
        };
        tokio::time::sleep(pause).await;
    }

    async fn set(&self, client: &RegistryClient, tag: &str, manifest: Blob) -> Wrote {
        let invoked = self.ledger.now();
        let answer =
            client.put_manifest(REPOSITORY, tag, MediaType::MANIFEST, manifest.bytes).await;
        let wrote = self.ledger.judge_write(answer, &[201]);
        self.changed(client, tag, OperationKind::Write(manifest.digest), invoked, &wrote);
        wrote
    }

    async fn delete(&self, client: &RegistryClient, tag: &str) -> Wrote {
        let invoked = self.ledger.now();
        let answer = client.delete(&format!("/v2/{REPOSITORY}/manifests/{tag}")).await;
        let wrote = self.ledger.judge_write(answer, &[202]);
        self.changed(client, tag, OperationKind::Delete, invoked, &wrote);
        wrote
    }

    /// Reads the tag, and sets it if it is still that.
    async fn swap(&self, client: &RegistryClient, tag: &str, manifest: Blob) -> Wrote {
        let began = self.ledger.now();
        let reading = self.read_once(client, tag).await;
        self.saw(client, tag, &reading, began);
        let from = match reading {
            Reading::Found(answer) => Some(crate::digest::sha256(&answer.body)),
            Reading::Absent => None,
            Reading::Refused(_) | Reading::Unreachable(_) | Reading::Wrong => return Wrote::Unsent,
        };
        let path = format!("/v2/{REPOSITORY}/manifests/{tag}");
        let Ok(request) = client.request(Method::PUT, &path) else { return Wrote::Unsent };
        let request = match &from {
            Some(digest) => request.header("if-match", format!("\"{digest}\"")),
            None => request.header("if-none-match", "*"),
        };
        let request = request.header("content-type", MediaType::MANIFEST).body(manifest.bytes);
        let invoked = self.ledger.now();
        let wrote = self.ledger.judge_write(client.send(request).await, &[201]);
        if let Wrote::Refused(412) = wrote {
            // It was judged where all writes are put in order, so it says what a read would say.
            let returned = Some(self.ledger.now());
            let operation = Operation::new(OperationKind::Differs(from), invoked, returned);
            self.ledger.record(REPOSITORY, tag, operation.at(client.base()));
        } else {
            let kind = OperationKind::Swap { from, to: manifest.digest };
            self.changed(client, tag, kind, invoked, &wrote);
        }
        wrote
    }

    /// Takes down what may have changed the tag.
    fn changed(
        &self,
        client: &RegistryClient,
        tag: &str,
        kind: OperationKind,
        invoked: i64,
        wrote: &Wrote,
    ) {
        if wrote.may_have_happened() {
            let returned = wrote.is_acknowledged().then(|| self.ledger.now());
            if returned.is_none() {
                self.operations.fetch_add(UNKNOWN_WEIGHT, Ordering::Relaxed);
            }
            let operation = Operation::new(kind, invoked, returned).at(client.base());
            self.ledger.record(REPOSITORY, tag, operation);
        }
    }

    /// Reads a tag through one replica.
    pub(super) async fn read(&self, replica: usize, random: &mut StdRng) {
        let Some(client) = self.targets.numbered(replica) else { return };
        let now = self.era();
        // What was written long ago must still be there.
        let era = if random.random_ratio(1, 8) { random.random_range(0..=now) } else { now };
        let tag = tag(era, random);
        let invoked = self.ledger.now();
        let reading = self.read_once(&client, &tag).await;
        let pause = if self.saw(&client, &tag, &reading, invoked) { PAUSE } else { REFUSED_PAUSE };
        tokio::time::sleep(pause).await;
    }

    /// Takes down what a read has told. False if that is nothing.
    fn saw(&self, client: &RegistryClient, tag: &str, reading: &Reading, invoked: i64) -> bool {
        let returned = Some(self.ledger.now());
        let value = match reading {
            // The registry says itself that it is no linearizable read.
            Reading::Found(answer) if answer.is_stale() => return false,
            Reading::Found(answer) => Some(crate::digest::sha256(&answer.body)),
            Reading::Absent => None,
            Reading::Refused(_) | Reading::Unreachable(_) | Reading::Wrong => return false,
        };
        let kind = OperationKind::Read(value);
        let operation = Operation::new(kind, invoked, returned).at(client.base());
        self.ledger.record(REPOSITORY, tag, operation);
        true
    }

    async fn read_once(&self, client: &RegistryClient, tag: &str) -> Reading {
        let answer = client.get_manifest(REPOSITORY, tag).await;
        self.ledger.judge_read(answer, None)
    }
}

/// Whether a request to this path is about one of the tags whose histories are kept; not a probe's.
pub(crate) fn has_history(path: &str) -> bool {
    let tag = path.strip_prefix("/v2/").and_then(|path| path.strip_prefix(REPOSITORY));
    tag.is_some_and(|tag| tag.starts_with("/manifests/t"))
}

fn tag(era: u64, random: &mut StdRng) -> String {
    format!("t{}-{era}", random.random_range(0..TAGS))
}

/// How long it takes until a write is acknowledged by the first of these replicas that can. Each is asked again
/// and again, all at the same time.
pub(crate) async fn first_write(
    ledger: &Ledger,
    clients: &[RegistryClient],
    value: &str,
) -> Result<Duration> {
    first_success(clients.len(), async |index| {
        let Some(client) = clients.get(index) else { return false };
        let manifest = register_manifest(&format!("probe-{value}-{index}"));
        let tag = format!("probe-{index}");
        let answer =
            client.put_manifest(REPOSITORY, &tag, MediaType::MANIFEST, manifest.bytes).await;
        ledger.judge_write(answer, &[201]).is_acknowledged()
    })
    .await
}

/// A small artifact that no other write of the run has.
pub(crate) fn register_manifest(value: &str) -> Blob {
    let empty = Blob::new(EMPTY_JSON);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::MANIFEST,
        "artifactType": "application/vnd.example.register",
        "config": empty.descriptor(MediaType::EMPTY),
        "layers": [empty.descriptor(MediaType::EMPTY)],
        "annotations": { "org.example.value": value },
    });
    Blob::new(manifest.to_string())
}

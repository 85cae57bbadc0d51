//! W2: few tags that move all the time, each write a manifest that no other write has.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use rand::{RngExt as _, rngs::StdRng};
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
};

const REPOSITORY: &str = "chaos/tags";
const TAGS: usize = 3;
/// Between two operations of one client: thousands a second would only fill the history.
const PAUSE: Duration = Duration::from_millis(10);
const REFUSED_PAUSE: Duration = Duration::from_millis(50);

/// What all writers and readers have in common.
#[derive(Clone, Debug)]
pub(super) struct Tags {
    pub(super) targets: Targets,
    pub(super) ledger: Arc<Ledger>,
    /// Which of a run's loads this is: no two may write the same manifest.
    pub(super) generation: u64,
}

impl Tags {
    /// Pushes the one blob that all manifests refer to.
    pub(super) async fn prepare(&self) -> Result<()> {
        let client = self.targets.numbered(0).context("a workload has a replica")?;
        client.push_blob(REPOSITORY, &Blob::new(EMPTY_JSON)).await
    }

    /// Sets a tag through any replica.
    pub(super) async fn write(&self, worker: usize, number: u64, random: &mut StdRng) {
        let Some(client) = self.targets.any(random) else { return };
        let tag = format!("t{}", random.random_range(0..TAGS));
        let manifest = register_manifest(&format!("{}-{worker}-{number}", self.generation));
        let invoked = self.ledger.now();
        let bytes = manifest.bytes.clone();
        let answer = client.put_manifest(REPOSITORY, &tag, MediaType::MANIFEST, bytes).await;
        let wrote = self.ledger.judge_write(answer, &[201]);
        if wrote.may_have_happened() {
            let returned = wrote.is_acknowledged().then(|| self.ledger.now());
            let kind = OperationKind::Write(manifest.digest);
            self.ledger.record(REPOSITORY, &tag, Operation { kind, invoked, returned });
        }
        let pause = if matches!(wrote, Wrote::Acknowledged) { PAUSE } else { REFUSED_PAUSE };
        tokio::time::sleep(pause).await;
    }

    /// Reads a tag through one replica.
    pub(super) async fn read(&self, replica: usize, random: &mut StdRng) {
        let Some(client) = self.targets.numbered(replica) else { return };
        let tag = format!("t{}", random.random_range(0..TAGS));
        let invoked = self.ledger.now();
        let reading = self.read_once(&client, &tag).await;
        let returned = Some(self.ledger.now());
        let seen = match reading {
            // The registry says itself that it is no linearizable read.
            Reading::Found(answer) if answer.is_stale() => None,
            Reading::Found(answer) => Some(Some(crate::digest::sha256(&answer.body))),
            Reading::Absent => Some(None),
            Reading::Refused(_) | Reading::Unreachable(_) | Reading::Wrong => None,
        };
        let pause = if seen.is_some() { PAUSE } else { REFUSED_PAUSE };
        if let Some(value) = seen {
            let kind = OperationKind::Read(value);
            self.ledger.record(REPOSITORY, &tag, Operation { kind, invoked, returned });
        }
        tokio::time::sleep(pause).await;
    }

    async fn read_once(&self, client: &RegistryClient, tag: &str) -> Reading {
        let answer = client.get_manifest(REPOSITORY, tag).await;
        self.ledger.judge_read(answer, None)
    }
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

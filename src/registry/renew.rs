//! A client that asks whether a blob exists is about to rely on the answer: the blob must not be collected
//! under it.
//!
//! An existence check of content that manifests name writes nothing. For content that nothing names it is a
//! command, so that the log puts it before or after the collection and never beside it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tercet_raft::{Command, Freshness, Outcome};
use tercet_storage::{BlobLinkRecord, BlobRecord, Digest, RepositoryName};
use tokio::sync::watch;

use super::collect::grace_ms;
use super::error::RegistryError;
use super::now_ms;
use super::read::{Current, find};
use crate::core::Core;

/// A stamp is renewed when this part of the grace is over: a storm of checks writes once in a while.
const GRACE_PARTS: u64 = 10;
/// How long a check waits for its command before it answers what this replica knows.
const PATIENCE: Duration = Duration::from_secs(3);
/// Renewals at a time; checks beyond that answer without one.
const RENEWALS_MAX: usize = 256;

/// Renewals on their way, each once however many ask for it.
#[derive(Debug, Default)]
pub(super) struct Renewals {
    running: Mutex<HashMap<Key, watch::Receiver<Option<Renewed>>>>,
}

type Key = (RepositoryName, Digest);

/// What became of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Renewed {
    /// The grace begins anew.
    Yes,
    /// The blob was collected, or taken out of the repository.
    Gone,
    /// No answer: no quorum, or too many at a time.
    Unknown,
}

/// The size of a blob, if the repository has it and goes on having it for most of a grace: what `HEAD`
/// answers. Without a quorum it is what this replica knows.
pub(crate) async fn check_blob(
    core: &Arc<Core>,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Current<u64>, RegistryError> {
    let unknown =
        || RegistryError::BlobUnknown { repository: repository.clone(), digest: digest.clone() };
    let found = find(core, |meta| {
        let Some(link) = meta.blob_link(repository, digest)? else { return Ok(None) };
        Ok(meta.blob(digest)?.map(|record| (link, record)))
    })
    .await?
    .ok_or_else(unknown)?;
    let (link, record) = &found.value;
    let is_due = needs_renewal(link, record, now_ms(), grace_ms(core));
    if found.freshness == Freshness::Fresh
        && is_due
        && renew(core, (repository.clone(), digest.clone())).await == Renewed::Gone
    {
        return Err(unknown());
    }
    Ok(found.map(|(_, record)| record.size))
}

/// Nothing names the blob, here or anywhere, and that was noted a while ago.
fn needs_renewal(link: &BlobLinkRecord, record: &BlobRecord, now_ms: u64, grace_ms: u64) -> bool {
    let is_old = |since_ms: u64| now_ms.saturating_sub(since_ms) >= grace_ms / GRACE_PARTS;
    let dying = record.unreferenced_since_ms.is_some_and(is_old);
    // Named elsewhere only: the repository's sight of it may go with the repository.
    let fading = link.references == 0 && is_old(link.linked_ms);
    dying || fading
}

async fn renew(core: &Arc<Core>, key: Key) -> Renewed {
    let Some(mut told) = join_or_start(core, key) else { return Renewed::Unknown };
    let renewed = tokio::time::timeout(PATIENCE, told.wait_for(Option::is_some)).await;
    match renewed {
        Ok(Ok(renewed)) => renewed.unwrap_or(Renewed::Unknown),
        Ok(Err(_)) | Err(_) => Renewed::Unknown,
    }
}

/// One command for all who ask for the same at the same time. In a worker: the one who asked first may go
/// away before the others.
fn join_or_start(core: &Arc<Core>, key: Key) -> Option<watch::Receiver<Option<Renewed>>> {
    let mut running = core.collection.renewals.running();
    if let Some(told) = running.get(&key) {
        return Some(told.clone());
    }
    if running.len() >= RENEWALS_MAX {
        return None;
    }
    let (tell, told) = watch::channel(None);
    running.insert(key.clone(), told.clone());
    drop(running);
    let there = Arc::clone(core);
    core.workers.spawn("renewal", |token| async move {
        let renewed = token.run_until_cancelled(propose(&there, &key)).await;
        // First out of the map: who comes now may need a later stamp.
        there.collection.renewals.running().remove(&key);
        tell.send_replace(Some(renewed.unwrap_or(Renewed::Unknown)));
    });
    Some(told)
}

/// A mount of the blob from where it is to where it is: it renews what a mount renews, and finds nothing
/// where a mount would.
async fn propose(core: &Core, (repository, digest): &Key) -> Renewed {
    let command = Command::LinkBlob {
        repository: repository.clone(),
        digest: digest.clone(),
        from: repository.clone(),
    };
    match core.consensus.propose(command).await {
        Ok(Outcome::NotFound | Outcome::RepositoryUnknown) => Renewed::Gone,
        Ok(_) => Renewed::Yes,
        Err(error) => {
            tracing::debug!(%repository, %digest, %error, "the grace of a blob was not renewed");
            Renewed::Unknown
        }
    }
}

impl Renewals {
    /// Each change is one statement.
    fn running(&self) -> MutexGuard<'_, HashMap<Key, watch::Receiver<Option<Renewed>>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn only_what_nothing_names_is_renewed_and_only_once_in_a_while() {
        let link = |linked_ms, references| BlobLinkRecord { linked_ms, references };
        let blob = |references, unreferenced_since_ms| BlobRecord {
            size: 1,
            committed_ms: 1,
            references,
            unreferenced_since_ms,
        };
        let due =
            |link: &BlobLinkRecord, record: &BlobRecord| needs_renewal(link, record, 200, 1000);
        assert!(!due(&link(0, 1), &blob(1, None)), "reading referenced content never writes");
        assert!(due(&link(0, 0), &blob(0, Some(100))));
        assert!(!due(&link(101, 0), &blob(0, Some(101))), "a tenth of the grace is not over");
        assert!(due(&link(100, 0), &blob(3, None)), "named in other repositories only");
        assert!(!due(&link(300, 0), &blob(0, Some(300))), "stamped by a clock that is ahead");
    }
}

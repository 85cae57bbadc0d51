//! Blobs that are pushed again at the very moment at which they are collected.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use futures_util::{StreamExt as _, stream};

use super::{Run, run::HEAL_DEADLINE};
use crate::{
    check::check_copies,
    client::RegistryClient,
    cluster::Cluster,
    content::{Blob, Image},
    workload::{Ledger, Wrote},
};

const REPOSITORY: &str = "chaos/revived";
/// So many in one collection that its last files go when pushes have had their time.
const LAYERS: u64 = 24;
const SIZE: usize = 2_000;
/// Pushes at the same time.
const AT_ONCE: usize = 4;
/// Of three replicas.
const WRITE_QUORUM: usize = 2;
/// A collection takes some milliseconds for each file.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a replica may go on removing the files of one collection.
const REMOVAL: Duration = Duration::from_secs(1);

/// Pushes blobs that nothing refers to, waits until they are collected, and pushes them again at once, in the opposite
/// order of that in which their files go; then an image of them. Their files may be about to be removed, but what is
/// acknowledged again must stay. Returns the digests that are needed from now on.
pub(super) async fn revive(run: &mut Run, round: u64, grace: Duration) -> Result<BTreeSet<String>> {
    let seed = run.seed ^ ((round + 1) << 48);
    let layers = (0..LAYERS).map(|number| Blob::random(seed ^ number, SIZE)).collect();
    let image = Image::of_layers(seed, layers);
    let mut blobs = image.blobs.clone();
    blobs.sort_by(|one, other| other.digest.cmp(&one.digest));
    let index = run.choose(&[0, 1, 2])?;
    let (client, ledger) = (run.client(index)?, Arc::clone(&run.ledger));

    let pushed = push_all(&ledger, &client, &blobs).await;
    // The last one that was pushed is the first to go of those that go together.
    let Some((last, _)) = blobs.iter().zip(&pushed).rfind(|(_, pushed)| pushed.acknowledged) else {
        run.faults.note("no push was acknowledged: nothing can be revived");
        return Ok(BTreeSet::new());
    };
    removal_begins(run.cluster()?, last, grace + HEAL_DEADLINE).await?;
    let start = Instant::now();
    let pushed = push_all(&ledger, &client, &blobs).await;
    let acknowledged = pushed.iter().filter(|pushed| pushed.acknowledged).count();
    let gone = pushed.iter().filter(|pushed| pushed.was_gone).count();
    let tag = format!("r{round}");
    let bytes = image.manifest.bytes.clone();
    let answer = client.put_manifest(REPOSITORY, &tag, &image.media_type, bytes).await;
    let said = answer.as_ref().map(crate::client::Answer::describe).unwrap_or_default();
    let kept = match ledger.judge_write(answer, &[201]) {
        Wrote::Acknowledged => true,
        Wrote::Refused(404) if acknowledged == blobs.len() => {
            ledger.judge_late(start.elapsed(), grace, &tag, &said);
            false
        }
        _ => false,
    };
    if !kept {
        run.faults.note(&format!("an image of {acknowledged} revived blobs was refused: {said}"));
        return Ok(BTreeSet::new());
    }
    let needed: BTreeSet<String> = blobs.into_iter().map(|blob| blob.digest).collect();
    ledger.keep_whole_image(REPOSITORY, &tag, &image);
    if gone > 0 {
        run.faults.injected("revival", &format!("{gone} blobs were pushed as they were collected"));
    }
    tokio::time::sleep(REMOVAL).await;
    check_copies(&ledger, run.cluster()?, &[0, 1, 2], &needed, WRITE_QUORUM)?;
    Ok(needed)
}

/// Waits until the file of a blob is gone from a replica that had it. Nobody may ask the registry for it: that would be a
/// reason to keep it.
async fn removal_begins(cluster: &Cluster, blob: &Blob, deadline: Duration) -> Result<()> {
    let mut had = [false; 3];
    let start = Instant::now();
    while start.elapsed() < deadline {
        for (index, had) in had.iter_mut().enumerate() {
            let is_there = cluster.replica(index).blob_path(&blob.digest)?.is_file();
            if *had && !is_there {
                return Ok(());
            }
            *had |= is_there;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    bail!("{}, which nothing refers to, is not collected within {deadline:?}", blob.digest)
}

/// What came of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pushed {
    acknowledged: bool,
    /// The registry said before that it has no such blob.
    was_gone: bool,
}

/// Some at a time, in this order.
async fn push_all(ledger: &Ledger, client: &RegistryClient, blobs: &[Blob]) -> Vec<Pushed> {
    stream::iter(blobs)
        .map(async |blob| {
            let was_gone = is_gone(ledger, client, blob).await;
            Pushed { acknowledged: push(ledger, client, blob).await, was_gone }
        })
        .buffered(AT_ONCE)
        .collect()
        .await
}

async fn push(ledger: &Ledger, client: &RegistryClient, blob: &Blob) -> bool {
    let Ok(upload) = client.open_upload(REPOSITORY).await else { return false };
    let answer = client.finish(&upload, &blob.digest, blob.bytes.clone()).await;
    ledger.judge_write(answer, &[201]).is_acknowledged()
}

/// Whether the registry says for sure that it is not there.
async fn is_gone(ledger: &Ledger, client: &RegistryClient, blob: &Blob) -> bool {
    let path = format!("/v2/{REPOSITORY}/blobs/{}", blob.digest);
    let answer = ledger.judge_ask(client.head(&path).await);
    answer.is_some_and(|answer| answer.status == 404 && !answer.is_stale())
}

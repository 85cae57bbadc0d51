//! Row 30: more clients at once than there are places.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use rand::RngExt as _;
use reqwest::Method;

use super::{Lane, Needs, Run, Scenario};
use crate::{
    client::{RegistryClient, Upload},
    content::Blob,
    options::ClusterOptions,
    workload::{Invariant, Ledger, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "upload-crowd",
    rows: &[30],
    hypothesis: "a crowd of uploads is served as far as there are places, and told to come back for the rest; the same \
                 content from many is one blob; memory stays what it was",
    fault: "300 uploads at once (2,000 in the full form), 50 (200) of them of the same content, against replicas with places \
            for fewer; who is refused comes back",
    given: "three replicas with few places for uploads; tags move",
    abort: "a replica is killed for its memory, or refuses without saying when to come back",
    recovery: "every client has its blob in within three minutes; all replicas agree and hold everything within 90 s",
    rollback: "stop the clients; what their sessions left is removed when it is idle for an hour",
    invariants: &[Invariant::I1, Invariant::I2, Invariant::I5, Invariant::I7, Invariant::I9],
    fires: &["uploads at once", "uploads of the same content", "refused for now"],
    floor_per_second: 5.0,
    lane: Lane::Smoke,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

const REPOSITORY: &str = "chaos/crowd";
/// For all of one client's tries.
const PATIENCE: Duration = Duration::from_secs(180);
/// The longest that a registry may send a client away for.
const RETRY_SECONDS_MAX: u64 = 60;
/// What no replica may have resident, in bytes: a small pod's memory.
const RESIDENT_MAX: u64 = 256 << 20;

async fn body(run: &mut Run) -> Result<()> {
    run.bounds.memory_max = RESIDENT_MAX;
    // Fewer places on all replicas together than there are clients.
    let (crowd, same, places) = run.of((300, 50, 40), (2_000, 200, 400));
    let options = ClusterOptions::default().setting("limits", "uploads_max", &places.to_string());
    // A connection for each client; for each place a file and what carries its bytes to two others, and the same of theirs.
    let files = crowd as u64 / 3 + 7 * places + 256;
    run.bounds.files_max = run.bounds.files_max.max(files);
    run.start(options).await?;
    run.load(LoadOptions { tag_writers: 1, ..LoadOptions::tags(3) }).await?;
    let clients: Vec<RegistryClient> =
        (0..3).map(|index| run.client(index)).collect::<Result<_>>()?;
    let common = Blob::random(run.random.random(), 64 << 10);
    let pushes: Vec<(Blob, RegistryClient)> = (0..crowd)
        .map(|number| {
            let blob = if number < same {
                common.clone()
            } else {
                let size = run.random.random_range(1_000..16_000);
                Blob::random(run.random.random(), size)
            };
            let client = clients.get(number % clients.len()).context("three clients")?;
            Ok((blob, client.clone()))
        })
        .collect::<Result<_>>()?;

    let at_once = run.faults.begin("uploads at once", &format!("{crowd} of them"));
    let alike = run.faults.begin("uploads of the same content", &format!("{same} of them"));
    let ledger = run.ledger.clone();
    let ends: Vec<Result<u64>> = stream::iter(pushes)
        .map(|(blob, client)| {
            let ledger = ledger.clone();
            async move {
                tokio::time::timeout(PATIENCE, push(&ledger, &client, &blob))
                    .await
                    .with_context(|| format!("{} is not in within {PATIENCE:?}", blob.digest))?
            }
        })
        .buffer_unordered(crowd)
        .collect()
        .await;
    run.faults.end(at_once);
    run.faults.end(alike);
    run.healed();
    let mut refused = 0;
    for end in ends {
        refused += end?;
    }
    if refused > 0 {
        run.faults.injected("refused for now", &format!("{refused} times"));
    }
    run.figure("refused for now", refused);
    let mut peaks = Vec::new();
    for index in 0..3 {
        peaks.push(run.cluster()?.memory(index)?.peak >> 20);
    }
    run.figure("resident at most, MiB", peaks);
    Ok(())
}

/// Brings a blob in, however often that takes. Returns how often it was refused for now.
async fn push(ledger: &Ledger, client: &RegistryClient, blob: &Blob) -> Result<u64> {
    let path = format!("/v2/{REPOSITORY}/blobs/uploads/");
    let mut refused = 0;
    loop {
        // All of them have a session open before the first sends its bytes, as far as there are places.
        if let Ok(answer) = client.call(Method::POST, &path).await {
            if answer.status == 202 {
                let location = answer.need_header("location")?.to_owned();
                let upload = Upload { location, offset: 0 };
                if sent(ledger, client, &upload, blob).await {
                    return Ok(refused);
                }
            } else {
                ensure!(matches!(answer.status, 429 | 503), "{}", answer.describe());
                ledger.judge_error(&answer);
                refused += 1;
                let seconds: u64 = answer.need_header("retry-after")?.parse()?;
                ensure!((1..=RETRY_SECONDS_MAX).contains(&seconds), "{}", answer.describe());
            }
        }
        // Sooner than they are told to: a crowd is not polite.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn sent(ledger: &Ledger, client: &RegistryClient, upload: &Upload, blob: &Blob) -> bool {
    let bytes: Bytes = blob.bytes.clone();
    let answer = client.finish(upload, &blob.digest, bytes).await;
    let wrote = ledger.judge_write(answer, &[201]).is_acknowledged();
    if wrote {
        ledger.keep_blob(REPOSITORY, &blob.digest);
    }
    wrote
}

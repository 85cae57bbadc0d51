//! Row 31: uploads that wander, stumble, lose their owner, or are forgotten.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use rand::RngExt as _;

use super::{Needs, Run, Scenario, run::HEAL_DEADLINE};
use crate::{
    client::{RegistryClient, Upload},
    content::Blob,
    options::ClusterOptions,
    wait::wait_until,
    workload::{Invariant, LoadOptions, push_resumed},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "upload-moves",
    rows: &[31],
    hypothesis: "an upload is nobody's property: any replica goes on with it, a wrong chunk changes nothing, the loss \
                 of its owner costs at most its end, and what is abandoned gives its space back",
    fault: "every request of an upload goes to another replica; chunks out of order, overlapping and twice; a closing \
            PUT twice; kill -9 of the owner between chunks; sessions left alone",
    invariants: &[Invariant::I1, Invariant::I2, Invariant::I5, Invariant::I7, Invariant::I9],
    fires: &["wrong chunk", "second PUT", "kill -9", "abandoned upload"],
    floor_per_second: 1.0,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

const REPOSITORY: &str = "chaos/uploads";
/// How long a session may be left alone.
const IDLE_SECONDS: u64 = 8;
const EXPIRY_DEADLINE: Duration = Duration::from_secs(60);

async fn body(run: &mut Run) -> Result<()> {
    let idle = IDLE_SECONDS.to_string();
    run.start(ClusterOptions::default().setting("limits", "upload_idle_seconds", &idle)).await?;
    run.load(LoadOptions { tag_writers: 1, ..LoadOptions::tags(3) }).await?;
    for _ in 0..run.of(4, 40) {
        wander(run).await?;
    }
    for _ in 0..run.of(2, 15) {
        lose_the_owner(run).await?;
    }
    abandon(run).await
}

fn clients(run: &mut Run) -> Result<Vec<RegistryClient>> {
    (0..3).map(|index| run.client(index)).collect()
}

/// A new blob of a random size, and where it is cut.
fn blob(run: &mut Run) -> (Blob, usize, usize) {
    let size = run.random.random_range(30_000..3_000_000);
    let blob = Blob::random(run.random.random(), size);
    let first = run.random.random_range(1..size - 2);
    let second = run.random.random_range(first + 1..size);
    (blob, first, second)
}

/// Opens on one replica, goes on at another with stumbles, ends at a third.
async fn wander(run: &mut Run) -> Result<()> {
    let clients = clients(run)?;
    let turn = run.random.random_range(0..3_usize);
    let at = |step: usize| clients.get((turn + step) % 3).context("three replicas");
    let (blob, first, second) = blob(run);
    let mut upload = at(0)?.open_upload(REPOSITORY).await?;
    at(1)?.append(&mut upload, blob.bytes.slice(..first)).await?;

    // Ahead, again from the start, and overlapping, each at another replica: refused with where to go on.
    for (step, start) in [second, 0, first.saturating_sub(1)].into_iter().enumerate() {
        let end = (start + 1_000).min(blob.bytes.len());
        let answer = at(step)?.patch(&upload, start as u64, blob.bytes.slice(start..end)).await?;
        let answer = answer.expect(416)?;
        answer.error_code()?;
        let wanted = format!("0-{}", first - 1);
        ensure!(answer.header("range") == Some(wanted.as_str()), "{}", answer.describe());
        run.faults.injected("wrong chunk", &format!("{start} where {first} was next"));
    }
    at(2)?.append(&mut upload, blob.bytes.slice(first..second)).await?;
    let closing = upload.clone();
    let rest = blob.bytes.slice(second..);
    at(0)?.finish(&closing, &blob.digest, rest.clone()).await?.expect(201)?;
    run.ledger.wrote();
    run.ledger.keep_blob(REPOSITORY, &blob.digest);

    // The answer was lost on its way, and the client sends the same again.
    let again = at(1)?.finish(&closing, &blob.digest, rest).await?;
    ensure!(matches!(again.status, 201 | 404), "a second PUT: {}", again.describe());
    if again.status == 404 {
        again.expect_error(404, "BLOB_UPLOAD_UNKNOWN")?;
    }
    run.faults.injected("second PUT", &blob.digest);
    at(2)?.pull_blob(REPOSITORY, &blob.digest).await?;
    Ok(())
}

/// The replica that opened the upload dies between two chunks; the others go on or say that it is gone.
async fn lose_the_owner(run: &mut Run) -> Result<()> {
    let clients = clients(run)?;
    let owner = run.random.random_range(0..3_usize);
    let other = clients.get((owner + 1) % 3).context("three replicas")?;
    let (blob, first, _) = blob(run);
    let opener = clients.get(owner).context("three replicas")?;
    let mut upload = opener.open_upload(REPOSITORY).await?;
    other.append(&mut upload, blob.bytes.slice(..first)).await?;
    run.kill(owner)?;
    let found =
        wait_until("the others know the upload, or that it is gone", HEAL_DEADLINE, || async {
            let answer = other.get(&upload.location).await?;
            ensure!(matches!(answer.status, 204 | 404), "{}", answer.describe());
            Ok(answer)
        })
        .await?;
    if found.status == 204 {
        finish_elsewhere(run, other, upload, &blob, &found).await?;
    } else {
        found.expect_error(404, "BLOB_UPLOAD_UNKNOWN")?;
        run.faults.note("the upload is gone with its owner; it begins again");
    }
    // Whatever became of that session, a client that follows the specification gets its blob in.
    let targets = run.targets.clone();
    let ledger = run.ledger.clone();
    let transfer = push_resumed(&ledger, &targets, REPOSITORY, &blob, &mut run.random).await?;
    run.faults.note(&format!("pushed: {transfer:?}"));
    run.restart_all().await?;
    run.cluster()?.wait_caught_up(owner, HEAL_DEADLINE).await
}

async fn finish_elsewhere(
    run: &mut Run,
    client: &RegistryClient,
    mut upload: Upload,
    blob: &Blob,
    found: &crate::client::Answer,
) -> Result<()> {
    let range = found.need_header("range")?;
    let last: usize = range.strip_prefix("0-").context("a Range")?.parse()?;
    let offset = if last == 0 { 0 } else { last + 1 };
    ensure!(offset as u64 <= upload.offset, "it claims {offset} bytes of {}", upload.offset);
    run.faults.note(&format!("adopted at {offset} of {} bytes sent", upload.offset));
    upload.offset = offset as u64;
    if let Some(location) = found.header("location") {
        location.clone_into(&mut upload.location);
    }
    let rest = blob.bytes.slice(offset..);
    let ledger = run.ledger.clone();
    wait_until("the adopted upload is closed", HEAL_DEADLINE, || async {
        let answer = client.finish(&upload, &blob.digest, rest.clone()).await?;
        // An election may be running: the owner may have led.
        ensure!(answer.status != 503, "{}", answer.describe());
        answer.expect(201)?;
        ledger.wrote();
        Ok(())
    })
    .await?;
    run.ledger.keep_blob(REPOSITORY, &blob.digest);
    Ok(())
}

/// Nobody comes back: the sessions end, and their bytes are gone from every disk.
async fn abandon(run: &mut Run) -> Result<()> {
    let clients = clients(run)?;
    let mut left = Vec::new();
    for number in 0..run.of(6, 60) {
        let client = clients.get(number % 3).context("three replicas")?;
        let mut upload = client.open_upload(REPOSITORY).await?;
        let chunk = Bytes::from(crate::content::random_bytes(run.random.random(), 1 << 20));
        client.append(&mut upload, chunk).await?;
        run.faults.injected("abandoned upload", &upload.location);
        left.push(upload);
    }
    let cluster = run.cluster()?;
    wait_until("abandoned uploads give their space back", EXPIRY_DEADLINE, || async {
        for index in 0..3 {
            let files = cluster.files(index, "uploads")?;
            ensure!(files.paths.is_empty(), "replica {index} still has {:?}", files.paths);
        }
        Ok(())
    })
    .await?;
    for upload in left {
        for client in &clients {
            let answer = client.get(&upload.location).await?;
            answer.expect_error(404, "BLOB_UPLOAD_UNKNOWN")?;
        }
    }
    run.faults.note("all abandoned uploads are gone");
    Ok(())
}

//! Row 31: uploads that wander, stumble, lose their owner, or are forgotten.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use rand::RngExt as _;
use reqwest::Method;

use super::{
    Lane, Needs, Run, Scenario,
    run::{HEAL_DEADLINE, answered},
};
use crate::{
    client::{Answer, RegistryClient, Upload},
    content::Blob,
    options::ClusterOptions,
    wait::wait_until,
    workload::{Invariant, LoadOptions, Reading, push_resumed},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "upload-moves",
    rows: &[31],
    hypothesis: "an upload is nobody's property: any replica goes on with it, a wrong chunk changes nothing, the loss \
                 of its owner costs at most its end, and what is abandoned gives its space back",
    fault: "every request of an upload goes to another replica; chunks out of order, overlapping and twice; a closing \
            PUT twice; kill -9 of the owner between chunks; sessions left alone",
    given: "three replicas share their upload sessions, which end after 8 s without a request; tags move beside the \
            uploads",
    abort: "a blob appears whose bytes do not hash to its name, or the `uploads` folder grows after the clients have \
            gone",
    recovery: "an upload whose owner died is either adopted or cleanly gone within 90 s; abandoned bytes are given \
               back within 60 s",
    rollback: "on a cluster of one's own: start the owner again; sessions that nobody uses end by themselves",
    invariants: &[Invariant::I1, Invariant::I2, Invariant::I5, Invariant::I7, Invariant::I9],
    fires: &["wrong chunk", "second PUT", "kill -9", "abandoned upload"],
    floor_per_second: 1.0,
    lane: Lane::Smoke,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

const REPOSITORY: &str = "chaos/uploads";
/// How long a session may be left alone.
const IDLE_SECONDS: u64 = 8;
const EXPIRY_DEADLINE: Duration = Duration::from_secs(60);
/// Of an upload whose session may have ended since this program, or the cluster, stood still for too long.
const TRIES: usize = 3;

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

/// Opens a session, however often an election makes the replica say "not now".
async fn open(client: &RegistryClient) -> Result<Upload> {
    let path = format!("/v2/{REPOSITORY}/blobs/uploads/");
    let answer = answered("an upload is opened", || client.call(Method::POST, &path)).await?;
    let location = answer.expect(202)?.need_header("location")?.to_owned();
    Ok(Upload { location, offset: 0 })
}

/// Sends the next chunk. One whose answer was lost has been taken, and is refused when it comes again.
async fn append(client: &RegistryClient, upload: &mut Upload, chunk: Bytes) -> Result<()> {
    let end = upload.offset + chunk.len() as u64;
    let sent = &*upload;
    let send = || client.patch(sent, sent.offset, chunk.clone());
    let answer = answered("a chunk is taken", send).await?;
    let wanted = format!("0-{}", end - 1);
    ensure!(
        matches!(answer.status, 202 | 416) && answer.header("range") == Some(wanted.as_str()),
        "of a chunk up to {end}: {}",
        answer.describe()
    );
    upload.offset = end;
    if let Some(location) = answer.header("location") {
        location.clone_into(&mut upload.location);
    }
    Ok(())
}

/// Sends the last bytes. Whether the blob is there then: if not, the session is gone.
async fn close(client: &RegistryClient, upload: &Upload, blob: &Blob, rest: Bytes) -> Result<bool> {
    let finish = || client.finish(upload, &blob.digest, rest.clone());
    let answer = answered("an upload is closed", finish).await?;
    if answer.status == 201 {
        return Ok(true);
    }
    answer.expect_error(404, "BLOB_UPLOAD_UNKNOWN")?;
    // The session ends with the first answer, also with one that was lost.
    let path = path_of(blob);
    let there = answered("a blob is asked for", || client.head(&path)).await?;
    ensure!(matches!(there.status, 200 | 404), "{}", there.describe());
    Ok(there.status == 200)
}

fn path_of(blob: &Blob) -> String {
    format!("/v2/{REPOSITORY}/blobs/{}", blob.digest)
}

/// Opens on one replica, goes on at another with stumbles, ends at a third.
async fn wander(run: &mut Run) -> Result<()> {
    let mut last = Ok(());
    for _ in 0..TRIES {
        let began = Instant::now();
        last = wander_once(run).await;
        let Err(error) = &last else { break };
        if began.elapsed() < Duration::from_secs(IDLE_SECONDS) {
            break;
        }
        run.faults.note(&format!("an upload took longer than a session may rest: {error:#}"));
    }
    last
}

async fn wander_once(run: &mut Run) -> Result<()> {
    let clients = clients(run)?;
    let turn = run.random.random_range(0..3_usize);
    let at = |step: usize| clients.get((turn + step) % 3).context("three replicas");
    let (blob, first, second) = blob(run);
    let mut upload = open(at(0)?).await?;
    append(at(1)?, &mut upload, blob.bytes.slice(..first)).await?;

    // Ahead, again from the start, and overlapping, each at another replica: refused with where to go on.
    for (step, start) in [second, 0, first.saturating_sub(1)].into_iter().enumerate() {
        let end = (start + 1_000).min(blob.bytes.len());
        let (client, chunk) = (at(step)?, blob.bytes.slice(start..end));
        let send = || client.patch(&upload, start as u64, chunk.clone());
        let answer = answered("a wrong chunk is judged", send).await?.expect(416)?;
        answer.error_code()?;
        let wanted = format!("0-{}", first - 1);
        ensure!(answer.header("range") == Some(wanted.as_str()), "{}", answer.describe());
        run.faults.injected("wrong chunk", &format!("{start} where {first} was next"));
    }
    append(at(2)?, &mut upload, blob.bytes.slice(first..second)).await?;
    let closing = upload.clone();
    let rest = blob.bytes.slice(second..);
    ensure!(
        close(at(0)?, &closing, &blob, rest.clone()).await?,
        "the session is gone before its end"
    );
    run.ledger.wrote();
    run.ledger.keep_blob(REPOSITORY, &blob.digest);

    // The answer was lost on its way, and the client sends the same again.
    let client = at(1)?;
    let finish = || client.finish(&closing, &blob.digest, rest.clone());
    let again = answered("a second PUT is judged", finish).await?;
    ensure!(matches!(again.status, 201 | 404), "a second PUT: {}", again.describe());
    if again.status == 404 {
        again.expect_error(404, "BLOB_UPLOAD_UNKNOWN")?;
    }
    run.faults.injected("second PUT", &blob.digest);
    let (client, path) = (at(2)?, path_of(&blob));
    let pulled = answered("a blob is pulled", || client.get(&path)).await;
    match run.ledger.judge_read(pulled, Some(&blob.digest)) {
        Reading::Found(_) => Ok(()),
        other => bail!("the third replica does not give what was pushed: {other:?}"),
    }
}

/// The replica that opened the upload dies between two chunks; the others go on or say that it is gone.
async fn lose_the_owner(run: &mut Run) -> Result<()> {
    let clients = clients(run)?;
    let owner = run.random.random_range(0..3_usize);
    let other = clients.get((owner + 1) % 3).context("three replicas")?;
    let (blob, first, _) = blob(run);
    let opener = clients.get(owner).context("three replicas")?;
    let mut upload = open(opener).await?;
    append(other, &mut upload, blob.bytes.slice(..first)).await?;
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
    found: &Answer,
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
    if close(client, &upload, blob, rest).await? {
        run.ledger.wrote();
        run.ledger.keep_blob(REPOSITORY, &blob.digest);
    } else {
        run.faults.note("the adopted upload has ended before its end");
    }
    Ok(())
}

/// Nobody comes back: the sessions end, and their bytes are gone from every disk.
async fn abandon(run: &mut Run) -> Result<()> {
    let clients = clients(run)?;
    let mut left = Vec::new();
    for number in 0..run.of(6, 60) {
        let client = clients.get(number % 3).context("three replicas")?;
        let mut upload = open(client).await?;
        let chunk = Bytes::from(crate::content::random_bytes(run.random.random(), 1 << 20));
        append(client, &mut upload, chunk).await?;
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
            let ask = || client.get(&upload.location);
            let answer = answered("an abandoned upload is asked for", ask).await?;
            answer.expect_error(404, "BLOB_UPLOAD_UNKNOWN")?;
        }
    }
    run.faults.note("all abandoned uploads are gone");
    Ok(())
}

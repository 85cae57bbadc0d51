//! Large blobs, pushed and pulled so that an interrupted transfer goes on elsewhere, as real clients do it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::StreamExt as _;
use rand::rngs::StdRng;
use reqwest::Method;

use super::{invariant::Invariant, ledger::Ledger, request::Wrote, targets::Targets};
use crate::{
    client::{RegistryClient, Upload},
    content::Blob,
    digest::Hasher,
};

/// What one request carries of an upload.
const CHUNK: usize = 8 << 20;
const PAUSE: Duration = Duration::from_millis(100);
/// For a whole transfer, through whatever happens.
const PATIENCE: Duration = Duration::from_secs(90);

/// How a transfer went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Transfer {
    /// Interruptions after which it went on from where it was.
    pub(crate) resumed: u64,
    /// Times it had to begin again.
    pub(crate) restarted: u64,
}

/// Pushes a blob chunk by chunk through any replica, and finds out from the registry where to go on.
///
/// # Errors
/// If it is not there after a long time.
pub(crate) async fn push_resumed(
    ledger: &Ledger,
    targets: &Targets,
    repository: &str,
    blob: &Blob,
    random: &mut StdRng,
) -> Result<Transfer> {
    let start = Instant::now();
    let mut transfer = Transfer::default();
    let mut open: Option<Upload> = None;
    loop {
        ensure!(start.elapsed() < PATIENCE, "an upload of {} does not end", blob.digest);
        let client = targets.any(random).context("no replica")?;
        let Some(upload) = open.as_mut() else {
            match client.open_upload(repository).await {
                Ok(upload) => open = Some(upload),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
            continue;
        };
        match step(ledger, &client, upload, blob).await {
            Step::Done => {
                ledger.keep_blob(repository, &blob.digest);
                return Ok(transfer);
            }
            Step::Sent => {}
            Step::Interrupted => {
                tokio::time::sleep(PAUSE).await;
                // A PUT whose answer was lost may have worked.
                let path = format!("/v2/{repository}/blobs/{}", blob.digest);
                if client.head(&path).await.is_ok_and(|answer| answer.status == 200) {
                    ledger.keep_blob(repository, &blob.digest);
                    return Ok(transfer);
                }
                match offset(&client, upload, blob.bytes.len()).await {
                    Where::At(offset) => {
                        upload.offset = offset;
                        transfer.resumed += 1;
                    }
                    Where::Nowhere => {
                        open = None;
                        transfer.restarted += 1;
                    }
                    Where::Unknown => {}
                }
            }
        }
    }
}

enum Step {
    Sent,
    Done,
    Interrupted,
}

async fn step(ledger: &Ledger, client: &RegistryClient, upload: &mut Upload, blob: &Blob) -> Step {
    let start = usize::try_from(upload.offset).unwrap_or(usize::MAX).min(blob.bytes.len());
    let end = (start + CHUNK).min(blob.bytes.len());
    if start == end {
        let answer = client.finish(upload, &blob.digest, Bytes::new()).await;
        return match ledger.judge_write(answer, &[201]) {
            Wrote::Acknowledged => Step::Done,
            _ => Step::Interrupted,
        };
    }
    let answer = client.patch(upload, upload.offset, blob.bytes.slice(start..end)).await;
    let followed =
        answer.as_ref().is_ok_and(|answer| answer.status == 202 && upload.follow(answer).is_ok());
    match ledger.judge_write(answer, &[202]) {
        Wrote::Acknowledged if followed => {
            upload.offset = end as u64;
            Step::Sent
        }
        _ => Step::Interrupted,
    }
}

enum Where {
    At(u64),
    Nowhere,
    Unknown,
}

/// Asks how far an upload is.
async fn offset(client: &RegistryClient, upload: &mut Upload, size: usize) -> Where {
    let Ok(answer) = client.get(&upload.location).await else { return Where::Unknown };
    match answer.status {
        204 => {
            let range = answer.header("range").and_then(|range| range.strip_prefix("0-"));
            let last: Option<u64> = range.and_then(|last| last.parse().ok());
            // The specification writes an empty session as 0-0.
            match last {
                Some(0) => Where::At(0),
                Some(last) if last < size as u64 => Where::At(last + 1),
                _ => Where::Unknown,
            }
        }
        404 => Where::Nowhere,
        _ => Where::Unknown,
    }
}

/// Pulls a blob whole; if the stream breaks, goes on from that byte at another replica.
///
/// # Errors
/// If it is not there after a long time.
pub(crate) async fn pull_resumed(
    ledger: &Ledger,
    targets: &Targets,
    repository: &str,
    digest: &str,
    size: u64,
    random: &mut StdRng,
) -> Result<Transfer> {
    let start = Instant::now();
    let mut transfer = Transfer::default();
    let mut hasher = Hasher::like(digest);
    let mut offset = 0_u64;
    let path = format!("/v2/{repository}/blobs/{digest}");
    while offset < size {
        if start.elapsed() > PATIENCE {
            ledger.count(|counts| counts.failed_pulls += 1);
            ledger.violated(Invariant::I8, format!("a pull of {digest} does not end"));
            return Ok(transfer);
        }
        let client = targets.any(random).context("no replica")?;
        let request = client.request(Method::GET, &path)?.timeout(PATIENCE);
        let request = request.header("range", format!("bytes={offset}-"));
        let before = offset;
        if let Ok(response) = request.send().await {
            if response.status() == 404 {
                ledger.lost(format!("{digest} is not there during the run"));
                return Ok(transfer);
            }
            if response.status() == 206 || (response.status() == 200 && offset == 0) {
                let mut stream = response.bytes_stream();
                while let Some(Ok(bytes)) = stream.next().await {
                    hasher.update(&bytes);
                    offset += bytes.len() as u64;
                }
            }
        }
        if offset < size {
            transfer.resumed += u64::from(offset > before);
            tokio::time::sleep(PAUSE).await;
        }
    }
    let found = hasher.finish();
    if found == digest {
        ledger.count(|counts| counts.acknowledged_reads += 1);
    } else {
        ledger.wrong_bytes(format!("a pull of {digest} in parts gave {found}"));
    }
    Ok(transfer)
}

//! Large blobs, pushed and pulled so that an interrupted transfer goes on elsewhere, as real clients do it.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::StreamExt as _;
use rand::rngs::StdRng;
use reqwest::Method;

use super::{
    ledger::Ledger,
    request::{Reading, Wrote},
    targets::Targets,
};
use crate::{
    check::End,
    client::{Answer, RegistryClient, Upload},
    content::Blob,
    digest::Hasher,
    timeline::{Outcome, RequestKind},
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
            let path = format!("/v2/{repository}/blobs/uploads/");
            let answer = client.call(Method::POST, &path).await;
            let location = answer.as_ref().ok().and_then(|answer| answer.header("location"));
            let location = location.map(str::to_owned);
            match (ledger.judge_write(answer, &[202]), location) {
                (Wrote::Acknowledged, Some(location)) => {
                    open = Some(Upload { location, offset: 0 })
                }
                _ => tokio::time::sleep(PAUSE).await,
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
                let head = ledger.judge_ask(client.head(&path).await);
                if head.is_some_and(|answer| answer.status == 200) {
                    ledger.keep_blob(repository, &blob.digest);
                    return Ok(transfer);
                }
                match offset(ledger, &client, upload, blob.bytes.len()).await {
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
async fn offset(
    ledger: &Ledger,
    client: &RegistryClient,
    upload: &mut Upload,
    size: usize,
) -> Where {
    let answer = client.get(&upload.location).await;
    let Some(answer) = ledger.judge_ask(answer) else { return Where::Unknown };
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
            ledger.pull_stopped(digest, PATIENCE);
            return Ok(transfer);
        }
        let client = targets.any(random).context("no replica")?;
        let before = offset;
        let take = |bytes: &[u8]| {
            hasher.update(bytes);
            offset += bytes.len() as u64;
        };
        if pull_part(ledger, &client, &path, before..size, take).await? == Part::Gone {
            ledger.lost(format!("{digest} is not there during the run"));
            return Ok(transfer);
        }
        if offset < size {
            transfer.resumed += u64::from(offset > before);
            tokio::time::sleep(PAUSE).await;
        }
    }
    if ledger.judge_hash("a pull in parts", digest, &hasher.finish()) {
        ledger.count(|counts| counts.acknowledged_reads += 1);
    }
    Ok(transfer)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Some of it came, or nothing.
    Some,
    /// A sure "not there".
    Gone,
}

/// Asks one replica for a part of a blob, and takes what comes.
async fn pull_part(
    ledger: &Ledger,
    client: &RegistryClient,
    path: &str,
    part: Range<u64>,
    mut take: impl FnMut(&[u8]),
) -> Result<Part> {
    let request = client.request(Method::GET, path)?.timeout(PATIENCE);
    let request = request.header("range", format!("bytes={}-", part.start));
    let sent = client.begin(RequestKind::Pull, 0);
    let close = |outcome, status| {
        if let Some(sent) = sent {
            sent.end(outcome, status);
        }
    };
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => {
            close(Outcome::of_error(&error), None);
            ledger.ended(End::of_error(&error.into()));
            return Ok(Part::Some);
        }
    };
    let status = response.status().as_u16();
    if status == 206 || (status == 200 && part.start == 0) {
        let mut left = part.end - part.start;
        let mut stream = response.bytes_stream();
        while let Some(Ok(bytes)) = stream.next().await {
            left = left.saturating_sub(bytes.len() as u64);
            take(&bytes);
        }
        // One that breaks off has no whole answer.
        let (outcome, end) = match left {
            0 => (Outcome::Acknowledged, End::Acknowledged),
            _ => (Outcome::Unknown, End::Unknown),
        };
        close(outcome, Some(status));
        ledger.ended(end);
        return Ok(Part::Some);
    }
    let answer = Answer::read(response).await;
    let outcome = match &answer {
        Ok(answer) => Outcome::of_status(RequestKind::Pull, answer.status),
        Err(_) => Outcome::Unknown,
    };
    close(outcome, Some(status));
    Ok(match ledger.judge_read(answer, None) {
        Reading::Absent => Part::Gone,
        _ => Part::Some,
    })
}

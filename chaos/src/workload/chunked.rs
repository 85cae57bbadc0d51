//! W3: blobs in chunks, each sent to whatever replica, with stumbles, and resumed after whatever went wrong. Then a
//! manifest names each, so that it is no garbage.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use rand::{RngExt as _, rngs::StdRng};
use serde_json::json;

use super::{invariant::Invariant, ledger::Ledger, load::Relies, request::Wrote, targets::Targets};
use crate::{
    client::{Answer, RegistryClient, Upload},
    content::{Blob, Image, MediaType},
};

const REPOSITORY: &str = "chaos/chunked";
const SIZE_MIN: usize = 20_000;
/// Requests for one blob; then its client gives up, and nothing was promised.
const REQUESTS_MAX: usize = 40;
/// Of those, for its manifest.
const NAMINGS_MAX: usize = 10;
/// After a success and after a failure.
const PAUSE: Duration = Duration::from_millis(10);
const FAILED_PAUSE: Duration = Duration::from_millis(100);

/// What all uploaders have in common.
#[derive(Clone, Debug)]
pub(super) struct Chunked {
    pub(super) targets: Targets,
    pub(super) ledger: Arc<Ledger>,
    /// Largest blob in bytes.
    pub(super) size_max: usize,
    pub(super) relies: Relies,
}

/// One blob on its way.
struct Way {
    blob: Blob,
    upload: Upload,
    /// The most that any answer or any request could have left there.
    sent: u64,
    /// Whether every request so far was answered. Else one of them may still happen.
    sure: bool,
}

impl Chunked {
    /// Brings one blob in, or gives up.
    pub(super) async fn push(&self, random: &mut StdRng) {
        let size = random.random_range(SIZE_MIN..=self.size_max.max(SIZE_MIN));
        let blob = Blob::random(random.random(), size);
        let mut way: Option<Way> = None;
        for _ in 0..REQUESTS_MAX {
            let Some(client) = self.targets.any(random) else { return };
            let went_on = match &mut way {
                None => {
                    way = self.open(&client, &blob).await;
                    way.is_some()
                }
                Some(open) => match self.step(&client, open, random).await {
                    Step::Done => return self.name(&blob, random).await,
                    Step::On => true,
                    Step::Failed => {
                        tokio::time::sleep(FAILED_PAUSE).await;
                        match self.find(random, open).await {
                            Found::Whole => return self.name(&blob, random).await,
                            Found::Here | Found::Unknown => true,
                            Found::Gone => {
                                way = None;
                                false
                            }
                        }
                    }
                },
            };
            tokio::time::sleep(if went_on { PAUSE } else { FAILED_PAUSE }).await;
        }
    }

    async fn open(&self, client: &RegistryClient, blob: &Blob) -> Option<Way> {
        let path = format!("/v2/{REPOSITORY}/blobs/uploads/");
        let answer = client.call(reqwest::Method::POST, &path).await;
        let location = match &answer {
            Ok(answer) if answer.status == 202 => answer.header("location").map(str::to_owned),
            _ => None,
        };
        self.ledger.judge_write(answer, &[202]);
        let upload = Upload { location: location?, offset: 0 };
        Some(Way { blob: blob.clone(), upload, sent: 0, sure: true })
    }

    async fn step(&self, client: &RegistryClient, way: &mut Way, random: &mut StdRng) -> Step {
        let size = way.blob.bytes.len() as u64;
        if random.random_bool(0.15) {
            return self.stumble(client, way, random).await;
        }
        // The rest may come with the closing request.
        let left = size.saturating_sub(way.upload.offset);
        if left == 0 || (left < size / 2 && random.random_bool(0.3)) {
            return self.close(client, way).await;
        }
        // Never the first byte alone: an answer could not tell that from none.
        let length = random.random_range(1..=left.min(size / 3 + 1)).max(2).min(left);
        let chunk = slice(&way.blob, way.upload.offset, length);
        way.sent = way.sent.max(way.upload.offset + length);
        let answer = client.patch(&way.upload, way.upload.offset, chunk).await;
        let followed = matches!(&answer, Ok(answer) if answer.status == 202);
        if let Ok(answer) = &answer
            && followed
        {
            // A mistake in the answer shows with the next request.
            let _ = way.upload.follow(answer);
        }
        match self.judge(answer, 202) {
            Wrote::Acknowledged => {
                way.upload.offset += length;
                Step::On
            }
            wrote => {
                way.sure &= !wrote.may_have_happened();
                Step::Failed
            }
        }
    }

    /// A chunk that does not begin where the last one ended: refused, and nothing changes.
    async fn stumble(&self, client: &RegistryClient, way: &mut Way, random: &mut StdRng) -> Step {
        let offset = way.upload.offset;
        let size = way.blob.bytes.len() as u64;
        let wrong = if random.random_bool(0.5) { offset / 2 } else { offset + (size - offset) / 2 };
        if wrong == offset || wrong >= size {
            return Step::On;
        }
        let chunk = slice(&way.blob, wrong, 1_000);
        if !way.sure {
            // An earlier request may have happened meanwhile, and then this is where the next chunk belongs.
            way.sent = way.sent.max(wrong + chunk.len() as u64);
        }
        let answer = client.patch(&way.upload, wrong, chunk).await;
        let Some(answer) = self.ledger.judge_refusal(answer) else {
            way.sure = false;
            return Step::Failed;
        };
        match answer.status {
            202 if way.sure => {
                let what = format!("a chunk at {wrong} was taken where {offset} was next");
                self.ledger.violated(Invariant::I7, format!("{what}: {}", answer.describe()));
                Step::Failed
            }
            202 => Step::Failed,
            416 => {
                let known = range_end(&answer);
                // The owner may just have died: then the copy is shorter, never longer.
                self.ledger.judge_offset(known, way.sent, &answer);
                if known == Some(offset) { Step::On } else { Step::Failed }
            }
            status => {
                way.sure &= status < 500;
                Step::Failed
            }
        }
    }

    async fn close(&self, client: &RegistryClient, way: &mut Way) -> Step {
        let size = way.blob.bytes.len() as u64;
        let rest = slice(&way.blob, way.upload.offset, size);
        way.sent = size;
        let answer = client.finish(&way.upload, &way.blob.digest, rest).await;
        match self.judge(answer, 201) {
            Wrote::Acknowledged => {
                self.acknowledged(&way.blob);
                Step::Done
            }
            wrote => {
                way.sure &= !wrote.may_have_happened();
                Step::Failed
            }
        }
    }

    fn judge(&self, answer: Result<Answer>, wanted: u16) -> Wrote {
        self.ledger.judge_write(answer, &[wanted])
    }

    /// Asks any replica how far the upload is, and goes on from there.
    async fn find(&self, random: &mut StdRng, way: &mut Way) -> Found {
        let Some(client) = self.targets.any(random) else { return Found::Unknown };
        // A closing request whose answer was lost may have worked.
        let path = format!("/v2/{REPOSITORY}/blobs/{}", way.blob.digest);
        if way.sent == way.blob.bytes.len() as u64
            && self
                .ledger
                .judge_ask(client.head(&path).await)
                .is_some_and(|answer| answer.status == 200)
        {
            self.acknowledged(&way.blob);
            return Found::Whole;
        }
        let answer = client.get(&way.upload.location).await;
        let Some(answer) = self.ledger.judge_ask(answer) else { return Found::Unknown };
        match answer.status {
            204 => {
                let Some(offset) = range_end(&answer) else {
                    let what = format!("an upload without a Range: {}", answer.describe());
                    self.ledger.violated(Invariant::I7, what);
                    return Found::Gone;
                };
                self.ledger.judge_offset(Some(offset), way.sent, &answer);
                let _ = way.upload.follow(&answer);
                way.upload.offset = offset.min(way.blob.bytes.len() as u64);
                Found::Here
            }
            404 => {
                self.ledger.judge_error(&answer);
                Found::Gone
            }
            _ => {
                self.ledger.judge_error(&answer);
                Found::Unknown
            }
        }
    }

    fn acknowledged(&self, blob: &Blob) {
        if self.relies == Relies::OnBlobs {
            self.ledger.keep_blob(REPOSITORY, &blob.digest);
        }
    }

    /// Pushes a manifest that names it, to any replica, until one takes it or there is no more patience.
    async fn name(&self, blob: &Blob, random: &mut StdRng) {
        let image = artifact(blob);
        let tag = blob.digest.replace(':', "-");
        for _ in 0..NAMINGS_MAX {
            let Some(client) = self.targets.any(random) else { return };
            let bytes = image.manifest.bytes.clone();
            let answer = client.put_manifest(REPOSITORY, &tag, &image.media_type, bytes).await;
            match self.ledger.judge_write(answer, &[201]) {
                Wrote::Acknowledged => {
                    return self.ledger.keep_whole_image(REPOSITORY, &tag, &image);
                }
                Wrote::Refused(404) => {
                    if self.relies == Relies::OnBlobs {
                        self.ledger.refused_with_blobs(&blob.digest);
                    }
                    return;
                }
                _ => tokio::time::sleep(FAILED_PAUSE).await,
            }
        }
    }
}

enum Step {
    Done,
    On,
    Failed,
}

enum Found {
    /// The session goes on.
    Here,
    /// The blob itself is there.
    Whole,
    /// It begins again.
    Gone,
    Unknown,
}

/// The blob is all that it has.
fn artifact(blob: &Blob) -> Image {
    let content = blob.descriptor("application/octet-stream");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::MANIFEST,
        "artifactType": "application/vnd.example.chunks",
        "config": content, "layers": [content],
    });
    Image::of_json(&manifest, MediaType::MANIFEST, vec![blob.clone()])
}

fn slice(blob: &Blob, start: u64, length: u64) -> bytes::Bytes {
    let size = blob.bytes.len();
    let start = usize::try_from(start).unwrap_or(size).min(size);
    let length = usize::try_from(length).unwrap_or(size);
    blob.bytes.slice(start..start.saturating_add(length).min(size))
}

/// How many bytes a `Range: 0-<last>` speaks of. The specification writes none as `0-0`; so would one byte be.
fn range_end(answer: &Answer) -> Option<u64> {
    let last: u64 = answer.header("range")?.strip_prefix("0-")?.parse().ok()?;
    Some(if last == 0 { 0 } else { last + 1 })
}

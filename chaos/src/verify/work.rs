//! A little work on somebody else's cluster: images are pushed (W1), and tags are set and read (W2).

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use reqwest::Method;
use tokio::task::JoinSet;

use super::{
    Mode, Target, Work,
    book::{Book, Durable, Entry},
};
use crate::{
    check::{Operation, OperationKind},
    client::Upload,
    content::{Blob, EMPTY_JSON, Image, MediaType},
    workload::{Kept, Ledger, Reading, register_manifest},
};

const PUSHERS: usize = 2;
const WRITERS: usize = 2;
const TAGS: usize = 3;
/// Layers of an image that is pushed.
const LAYERS_MAX: usize = 3;
/// Layers that later images share.
const SHARED_MAX: usize = 8;

/// What all clients have in common.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) ledger: Arc<Ledger>,
    pub(super) book: Arc<Book>,
    pub(super) targets: Arc<Vec<Target>>,
    pub(super) clock: Clock,
    pub(super) repository: String,
    pub(super) run: u64,
    pub(super) seed: u64,
    pub(super) bounds: Work,
    pub(super) mode: Mode,
    /// The one blob that all manifests of the tags refer to is there.
    pub(super) prepared: AtomicBool,
    /// Images and bytes so far.
    pub(super) images: AtomicU64,
    pub(super) bytes: AtomicU64,
}

/// Time that goes on from where the last run ended, whatever was done to the wall clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    started: Instant,
    at_start: i64,
}

impl Clock {
    /// One that is later than everything in the book.
    pub(super) fn after(last: i64) -> Self {
        Self { started: Instant::now(), at_start: super::book::now().max(last.saturating_add(1)) }
    }

    pub(super) fn now(self) -> i64 {
        let since = i64::try_from(self.started.elapsed().as_nanos()).unwrap_or(i64::MAX);
        self.at_start.saturating_add(since)
    }
}

/// Works until the time is over. Returns what was acknowledged and is kept.
///
/// # Errors
/// If the book cannot be written: then nothing more may be promised to it.
pub(super) async fn work(worker: Arc<Worker>) -> Result<Vec<Kept>> {
    let readers = worker.targets.len();
    let clients = PUSHERS + WRITERS + readers;
    let pause = Duration::from_secs_f64(clients as f64 / worker.bounds.rate.max(0.1));
    let end = Instant::now() + worker.bounds.time;
    let mut all: JoinSet<Result<Vec<Kept>>> = JoinSet::new();
    for number in 0..clients {
        let worker = Arc::clone(&worker);
        let mut random = StdRng::seed_from_u64(worker.seed ^ ((number as u64 + 1) << 40));
        all.spawn(async move {
            let mut kept = Vec::new();
            let mut shared = VecDeque::new();
            for step in 0_u64.. {
                // Not all of them at the same moment.
                let time = pause.mul_f64(random.random_range(0.5..1.5));
                tokio::time::sleep(time).await;
                if Instant::now() >= end {
                    break;
                }
                if number < PUSHERS {
                    let name = format!("run{}-{number}-{step}", worker.run);
                    kept.extend(worker.push(&name, &mut shared, &mut random).await?);
                } else if number < PUSHERS + WRITERS {
                    worker.write(number, step, &mut random).await?;
                } else {
                    worker.read(number - PUSHERS - WRITERS, &mut random).await?;
                }
            }
            Ok(kept)
        });
    }
    let mut kept = Vec::new();
    while let Some(ended) = all.join_next().await {
        kept.extend(ended.context("a client of the verification")??);
    }
    worker.book.sync()?;
    Ok(kept)
}

impl Worker {
    fn any(&self, random: &mut StdRng) -> Option<&Target> {
        self.targets.get(random.random_range(0..self.targets.len().max(1)))
    }

    fn images(&self) -> String {
        format!("{}/images", self.repository)
    }

    fn tags(&self) -> String {
        format!("{}/tags", self.repository)
    }

    /// Writes a line without holding up the other clients.
    pub(super) async fn note(&self, entry: Entry, durable: Durable) -> Result<()> {
        if self.mode == Mode::CheckOnly {
            return Ok(());
        }
        let book = Arc::clone(&self.book);
        tokio::task::spawn_blocking(move || book.append(&entry, durable)).await?
    }

    /// Pushes an image through any target. It is kept once all of it was acknowledged and the book has it.
    async fn push(
        &self,
        name: &str,
        shared: &mut VecDeque<Blob>,
        random: &mut StdRng,
    ) -> Result<Vec<Kept>> {
        let full = self.images.load(Ordering::Relaxed) >= self.bounds.images_max
            || self.bytes.load(Ordering::Relaxed) >= self.bounds.bytes_max;
        let Some(target) = self.any(random).filter(|_| !full) else { return Ok(Vec::new()) };
        let count = random.random_range(1..=LAYERS_MAX);
        let layers = (0..count).map(|_| self.layer(shared, random)).collect();
        let image = Image::of_layers(random.random(), layers);
        let repository = self.images();
        for blob in &image.blobs {
            if !self.push_blob(target, &repository, blob).await {
                return Ok(Vec::new());
            }
        }
        let bytes = image.manifest.bytes.clone();
        let answer = target.client.put_manifest(&repository, name, &image.media_type, bytes).await;
        if !self.ledger.judge_write(answer, &[201]).is_acknowledged() {
            return Ok(Vec::new());
        }
        let blobs: Vec<String> = image.blobs.iter().map(|blob| blob.digest.clone()).collect();
        let entry = Entry::Image {
            repository: repository.clone(),
            tag: name.to_owned(),
            manifest: image.manifest.digest.clone(),
            blobs: blobs.clone(),
        };
        self.note(entry, Durable::Now).await?;
        self.images.fetch_add(1, Ordering::Relaxed);
        Ok(super::kept(&super::book::KeptImage {
            repository,
            tag: name.to_owned(),
            manifest: image.manifest.digest,
            blobs,
        }))
    }

    /// A new layer, or one that other images have too.
    fn layer(&self, shared: &mut VecDeque<Blob>, random: &mut StdRng) -> Blob {
        if let Some(blob) = shared.get(random.random_range(0..SHARED_MAX)) {
            return blob.clone();
        }
        // Sizes over all orders of magnitude, from 1 KiB on.
        let span = (self.bounds.layer_max.max(2_048) as f64 / 1_024.0).log2();
        let size = 1_024.0 * random.random_range(0.0..span).exp2();
        let blob = Blob::random(random.random(), size as usize);
        self.bytes.fetch_add(blob.bytes.len() as u64, Ordering::Relaxed);
        shared.push_back(blob.clone());
        if shared.len() > SHARED_MAX {
            shared.pop_front();
        }
        blob
    }

    /// Whether it was acknowledged.
    async fn push_blob(&self, target: &Target, repository: &str, blob: &Blob) -> bool {
        let path = format!("/v2/{repository}/blobs/uploads/");
        let answer = target.client.call(Method::POST, &path).await;
        let place = answer.as_ref().ok().and_then(|answer| answer.header("location"));
        let place = place.map(str::to_owned);
        if !self.ledger.judge_write(answer, &[202]).is_acknowledged() {
            return false;
        }
        let Some(location) = place else { return false };
        let upload = Upload { location, offset: 0 };
        let answer = target.client.finish(&upload, &blob.digest, blob.bytes.clone()).await;
        self.ledger.judge_write(answer, &[201]).is_acknowledged()
    }

    /// Sets a tag through any target, once the book knows that it may come to be set.
    async fn write(&self, client: usize, step: u64, random: &mut StdRng) -> Result<()> {
        let Some(target) = self.any(random) else { return Ok(()) };
        let (repository, tag) = (self.tags(), format!("r{}", random.random_range(0..TAGS)));
        if !self.prepared.load(Ordering::Relaxed) {
            if !self.push_blob(target, &repository, &Blob::new(EMPTY_JSON)).await {
                return Ok(());
            }
            self.prepared.store(true, Ordering::Relaxed);
        }
        let manifest = register_manifest(&format!("{}-{}-{client}-{step}", self.seed, self.run));
        let digest = manifest.digest.clone();
        let invoked = self.clock.now();
        let entry = Entry::Writing {
            repository: repository.clone(),
            tag: tag.clone(),
            digest: digest.clone(),
            at: invoked,
            target: target.name.clone(),
        };
        self.note(entry, Durable::Now).await?;
        let bytes = manifest.bytes;
        let answer =
            target.client.put_manifest(&repository, &tag, MediaType::MANIFEST, bytes).await;
        let wrote = self.ledger.judge_write(answer, &[201]);
        if !wrote.may_have_happened() {
            return self.note(Entry::Refused { digest }, Durable::Later).await;
        }
        let returned = wrote.is_acknowledged().then(|| self.clock.now());
        if let Some(at) = returned {
            self.note(Entry::Wrote { digest: digest.clone(), at }, Durable::Now).await?;
        }
        let operation = Operation::new(OperationKind::Write(digest), invoked, returned);
        self.ledger.record(&repository, &tag, operation.at(&target.name));
        Ok(())
    }

    /// Reads a tag through one target.
    async fn read(&self, number: usize, random: &mut StdRng) -> Result<()> {
        let Some(target) = self.targets.get(number) else { return Ok(()) };
        let tag = format!("r{}", random.random_range(0..TAGS));
        self.read_tag(target, &tag).await
    }

    async fn read_tag(&self, target: &Target, tag: &str) -> Result<()> {
        let repository = self.tags();
        let from = self.clock.now();
        let answer = target.client.get_manifest(&repository, tag).await;
        let reading = self.ledger.judge_read(answer, None);
        let to = self.clock.now();
        let digest = match reading {
            // The registry says itself that it is no linearizable read.
            Reading::Found(answer) if answer.is_stale() => return Ok(()),
            Reading::Found(answer) => Some(crate::digest::sha256(&answer.body)),
            Reading::Absent => None,
            Reading::Refused(_) | Reading::Unreachable(_) | Reading::Wrong => return Ok(()),
        };
        let operation = Operation::new(OperationKind::Read(digest.clone()), from, Some(to));
        self.ledger.record(&repository, tag, operation.at(&target.name));
        let (tag, target) = (tag.to_owned(), target.name.clone());
        let entry = Entry::Read { repository, tag, digest, from, to, target };
        self.note(entry, Durable::Later).await
    }

    /// Reads every tag through every target, before and after the work.
    pub(super) async fn read_all(&self) -> Result<()> {
        for target in self.targets.iter() {
            for tag in 0..TAGS {
                self.read_tag(target, &format!("r{tag}")).await?;
            }
        }
        Ok(())
    }
}

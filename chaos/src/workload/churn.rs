//! W4: images come and go all the time, of few layers that most of them share.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use reqwest::Method;
use tokio::{sync::watch, task::JoinSet};

use super::{
    invariant::Invariant,
    ledger::{Kept, Ledger},
    request::Reading,
    targets::Targets,
};
use crate::{
    check::Late,
    client::{Answer, RegistryClient, Upload},
    content::{Blob, Image},
    not_shown::OrNotShown as _,
    wait::wait_until,
};

/// Each repository has one client that changes it, so that it knows what must be there.
pub(crate) const REPOSITORIES: usize = 4;
/// So many that one is needed again about when its grace is over, and few enough that it is needed again.
const LAYERS: u64 = 120;
/// Images of one repository; then one goes for each that comes.
const IMAGES_MAX: usize = 4;
const PAUSE: Duration = Duration::from_millis(20);
/// For what is asked when the storm is over: an election may still be running.
const LAST_DEADLINE: Duration = Duration::from_secs(60);

/// What is alive, by repository and tag.
type Live = BTreeMap<(String, String), Image>;

/// How often something was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Churned {
    /// Images pushed.
    pub(crate) pushed: u64,
    /// Layers that were there already and not sent.
    pub(crate) met: u64,
    /// Layers mounted from another repository.
    pub(crate) mounted: u64,
    /// Images deleted.
    pub(crate) deleted: u64,
    /// Pushes that were so slow that their layers were collected before the manifest came.
    pub(crate) too_slow: u64,
}

#[derive(Debug)]
struct Inner {
    targets: Targets,
    ledger: Arc<Ledger>,
    layers: Vec<Blob>,
    /// A layer without a reference stays at least so long. None where clocks jump, and it may go at once.
    grace: Duration,
    live: Mutex<Live>,
    churned: Mutex<Churned>,
}

/// A running storm.
#[derive(Debug)]
pub(crate) struct Churn {
    inner: Arc<Inner>,
    stop: watch::Sender<bool>,
    clients: JoinSet<()>,
}

impl Churn {
    /// Starts it; everything random is drawn from `seed`.
    pub(crate) fn start(
        targets: &Targets,
        ledger: &Arc<Ledger>,
        grace: Duration,
        seed: u64,
    ) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let layers = (0..LAYERS)
            .map(|_| Blob::random(random.random(), random.random_range(1_000..60_000)))
            .collect();
        let inner = Arc::new(Inner {
            targets: targets.clone(),
            ledger: Arc::clone(ledger),
            layers,
            grace,
            live: Mutex::default(),
            churned: Mutex::default(),
        });
        let mut churn = Self { inner, stop: watch::Sender::new(false), clients: JoinSet::new() };
        for index in 0..REPOSITORIES {
            let inner = Arc::clone(&churn.inner);
            let stopped = churn.stop.subscribe();
            let mut random = StdRng::seed_from_u64(seed ^ ((index as u64 + 1) << 40));
            churn.clients.spawn(async move {
                for number in 0_u64.. {
                    if *stopped.borrow() {
                        return;
                    }
                    inner.step(index, number, &mut random).await;
                }
            });
        }
        churn
    }

    /// What has been done so far.
    pub(crate) fn churned(&self) -> Churned {
        *self.inner.churned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the storm. What is alive goes into the ledger as kept. Whatever else is there, of operations whose
    /// outcome nobody knows, is deleted. Returns the digests of all blobs that are needed.
    pub(crate) async fn stop(mut self) -> Result<BTreeSet<String>> {
        self.stop.send_replace(true);
        while let Some(ended) = self.clients.join_next().await {
            ended.context("a client panicked").or_not_shown()?;
        }
        let live = self.inner.live().clone();
        let client = self.inner.targets.numbered(0).context("no replica")?;
        for index in 0..REPOSITORIES {
            let repository = repository(index);
            let path = format!("/v2/{repository}/tags/list?n=1000");
            let answer = self.inner.last(&path, || client.get(&path)).await?;
            if answer.status == 404 {
                continue;
            }
            let json = answer.expect(200)?.json()?;
            let tags = json.pointer("/tags").and_then(|tags| tags.as_array()).cloned();
            for tag in tags.unwrap_or_default() {
                let tag = tag.as_str().context("a tag is text")?.to_owned();
                if !live.contains_key(&(repository.clone(), tag.clone())) {
                    self.inner.forget(&client, &repository, &tag).await?;
                }
            }
        }
        let mut needed = BTreeSet::new();
        for ((repository, tag), image) in &live {
            self.inner.ledger.keep_whole_image(repository, tag, image);
            needed.extend(image.blobs.iter().map(|blob| blob.digest.clone()));
        }
        // Every answer to the storm was judged as it came.
        self.inner.ledger.checked(Invariant::I6);
        Ok(needed)
    }
}

/// The name of a client's repository.
fn repository(index: usize) -> String {
    format!("chaos/churn-{index}")
}

impl Inner {
    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn churned(&self) -> MutexGuard<'_, Churned> {
        self.churned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn step(&self, index: usize, number: u64, random: &mut StdRng) {
        let Some(client) = self.targets.any(random) else { return };
        let own = self.own(index);
        if own.len() >= IMAGES_MAX || (!own.is_empty() && random.random_bool(0.3)) {
            let chosen = random.random_range(0..own.len());
            if let Some((tag, image)) = own.get(chosen) {
                self.delete(&client, index, tag, image).await;
            }
        } else if random.random_bool(0.7) {
            self.push(&client, index, number, random).await;
        } else {
            self.pull(&client, random).await;
        }
        tokio::time::sleep(PAUSE).await;
    }

    /// Asks until the answer is a sure one.
    async fn last<F, Fut>(&self, what: &str, mut ask: F) -> Result<Answer>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<Answer>>,
    {
        wait_until(what, LAST_DEADLINE, || {
            let asked = ask();
            async move {
                let answer = self.ledger.judge_ask(asked.await).context("no answer")?;
                ensure!(answer.status < 500 && !answer.is_stale(), "{}", answer.describe());
                Ok(answer)
            }
        })
        .await
    }

    /// Deletes what a write of unknown outcome has left. What is gone meanwhile was deleted by one.
    async fn forget(&self, client: &RegistryClient, repository: &str, tag: &str) -> Result<()> {
        let what = format!("{repository}:{tag} is read");
        let answer = self.last(&what, || client.get_manifest(repository, tag)).await?;
        if answer.status == 404 {
            return Ok(());
        }
        let digest = crate::digest::sha256(&answer.expect(200)?.body);
        let path = format!("/v2/{repository}/manifests/{digest}");
        let answer = self.last(&format!("{path} is deleted"), || client.delete(&path)).await?;
        ensure!(matches!(answer.status, 202 | 404), "{}", answer.describe());
        Ok(())
    }

    fn own(&self, index: usize) -> Vec<(String, Image)> {
        let own = repository(index);
        let live = self.live();
        let all = live.iter().filter(|((repository, _), _)| *repository == own);
        all.map(|((_, tag), image)| (tag.clone(), image.clone())).collect()
    }

    async fn push(&self, client: &RegistryClient, index: usize, number: u64, random: &mut StdRng) {
        let count = random.random_range(1..=3);
        let layers: Vec<Blob> = (0..count)
            .filter_map(|_| self.layers.get(random.random_range(0..self.layers.len())).cloned())
            .collect();
        let image = Image::of_layers(random.random(), layers);
        let repository = repository(index);
        // Before the registry could have looked at the first of them.
        let start = Instant::now();
        for blob in &image.blobs {
            if !self.bring(client, index, blob, random).await {
                return;
            }
        }
        let tag = format!("v{number}");
        let bytes = image.manifest.bytes.clone();
        let answer = client.put_manifest(&repository, &tag, &image.media_type, bytes).await;
        let status = answer.as_ref().map(|answer| answer.status).unwrap_or_default();
        let said = answer.as_ref().map(crate::client::Answer::describe).unwrap_or_default();
        if self.ledger.judge_write(answer, &[201]).is_acknowledged() {
            self.churned().pushed += 1;
            self.live().insert((repository, tag), image);
        } else if status == 404 {
            let late = self.ledger.judge_late(start.elapsed(), self.grace, &tag, &said);
            self.churned().too_slow += u64::from(late == Late::TooSlow);
        }
    }

    /// Sees to it that a blob is in the repository, as clients do: asks, mounts, or sends it.
    async fn bring(
        &self,
        client: &RegistryClient,
        index: usize,
        blob: &Blob,
        random: &mut StdRng,
    ) -> bool {
        let repository = repository(index);
        let digest = &blob.digest;
        // Some clients ask first, and believe what they hear; others send all the same.
        if random.random_bool(0.5) {
            let head = client.head(&format!("/v2/{repository}/blobs/{digest}")).await;
            let head = self.ledger.judge_ask(head);
            // One that says that it may be stale has promised nothing.
            if head.is_some_and(|answer| answer.status == 200 && !answer.is_stale()) {
                self.churned().met += 1;
                return true;
            }
        }
        let mut path = format!("/v2/{repository}/blobs/uploads/");
        if random.random_bool(0.5) {
            let from = format!("chaos/churn-{}", random.random_range(0..REPOSITORIES));
            path = format!("{path}?mount={digest}&from={from}");
        }
        let answer = client.call(Method::POST, &path).await;
        let status = answer.as_ref().map(|answer| answer.status).unwrap_or_default();
        let location = answer.as_ref().ok().and_then(|answer| answer.header("location"));
        let location = location.map(str::to_owned);
        if !self.ledger.judge_write(answer, &[201, 202]).is_acknowledged() {
            return false;
        }
        if status == 201 {
            self.churned().mounted += 1;
            return true;
        }
        let Some(location) = location else { return false };
        let upload = Upload { location, offset: 0 };
        let answer = client.finish(&upload, digest, blob.bytes.clone()).await;
        self.ledger.judge_write(answer, &[201]).is_acknowledged()
    }

    async fn delete(&self, client: &RegistryClient, index: usize, tag: &str, image: &Image) {
        let repository = repository(index);
        // Not alive from before the request on: whether it happens may stay unknown.
        self.live().remove(&(repository.clone(), tag.to_owned()));
        let path = format!("/v2/{repository}/manifests/{}", image.manifest.digest);
        let answer = client.delete(&path).await;
        if self.ledger.judge_write(answer, &[202]).is_acknowledged() {
            self.churned().deleted += 1;
        }
    }

    /// Pulls any image that is alive, whole. What dies meanwhile may be missing.
    async fn pull(&self, client: &RegistryClient, random: &mut StdRng) {
        let chosen = {
            let live = self.live();
            if live.is_empty() {
                return;
            }
            let index = random.random_range(0..live.len());
            live.iter().nth(index).map(|(key, image)| (key.clone(), image.clone()))
        };
        let Some(((repository, tag), image)) = chosen else { return };
        let manifest = [(&image.manifest.digest, true)];
        let blobs = image.blobs.iter().map(|blob| (&blob.digest, false));
        for (digest, manifest) in manifest.into_iter().chain(blobs) {
            let kept = Kept {
                repository: repository.clone(),
                reference: digest.clone(),
                digest: digest.clone(),
                manifest,
            };
            if let Reading::Absent = self.ledger.read(client, &kept).await {
                if self.live().contains_key(&(repository.clone(), tag.clone())) {
                    self.ledger.collected_alive(digest, &format!("{repository}:{tag}"));
                }
                return;
            }
        }
    }
}

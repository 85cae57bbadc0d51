//! W1: random images with shared layers are pushed and pulled.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rand::{RngExt as _, rngs::StdRng};
use reqwest::Method;

use super::{
    invariant::Invariant,
    ledger::{Kept, KeptImage, Ledger},
    load::Relies,
    request::{Reading, Wrote},
    targets::Targets,
};
use crate::{
    check::PULL_PATIENCE,
    client::RegistryClient,
    content::{Blob, Image},
};

const REPOSITORY: &str = "chaos/images";
/// Layers that later images may take again.
const SHARED_MAX: usize = 16;
/// Before the next try after a refusal.
const PAUSE: Duration = Duration::from_millis(50);

/// What all pushers and pullers have in common.
#[derive(Clone, Debug)]
pub(super) struct Images {
    pub(super) targets: Targets,
    pub(super) ledger: Arc<Ledger>,
    /// Which of a run's loads this is: no two may use the same tag.
    pub(super) generation: u64,
    /// Largest layer in bytes.
    pub(super) layer_max: usize,
    pub(super) relies: Relies,
    pub(super) shared: Arc<Mutex<VecDeque<Blob>>>,
}

impl Images {
    /// Pushes one image to a random replica; how far it got is in the ledger.
    pub(super) async fn push(&self, worker: usize, number: u64, random: &mut StdRng) {
        let Some(client) = self.targets.any(random) else { return };
        let image = self.make(random);
        for blob in &image.blobs {
            if !self.push_blob(&client, blob, random).await.is_acknowledged() {
                tokio::time::sleep(PAUSE).await;
                return;
            }
        }
        let tag = format!("w{}-{worker}-{number}", self.generation);
        let bytes = image.manifest.bytes.clone();
        let answer = client.put_manifest(REPOSITORY, &tag, &image.media_type, bytes).await;
        match self.ledger.judge_write(answer, &[201]) {
            Wrote::Acknowledged => self.ledger.keep_whole_image(REPOSITORY, &tag, &image),
            Wrote::Refused(404) if self.relies == Relies::OnBlobs => {
                self.ledger.refused_with_blobs(&tag);
            }
            _ => tokio::time::sleep(PAUSE).await,
        }
    }

    async fn push_blob(&self, client: &RegistryClient, blob: &Blob, random: &mut StdRng) -> Wrote {
        let path = format!("/v2/{REPOSITORY}/blobs/uploads/");
        let opened = client.call(Method::POST, &path).await;
        let location = match &opened {
            Ok(answer) if answer.status == 202 => answer.header("location").map(str::to_owned),
            _ => None,
        };
        let opened = self.ledger.judge_write(opened, &[202]);
        let Some(location) = location else { return opened };
        let mut upload = crate::client::Upload { location, offset: 0 };
        let mut rest = blob.bytes.clone();
        // Half of them in chunks.
        if random.random_bool(0.5) {
            let chunk = rest.split_to(rest.len() / 2);
            let sent = client.patch(&upload, 0, chunk).await;
            let followed = sent.as_ref().is_ok_and(|answer| upload.follow(answer).is_ok());
            let sent = self.ledger.judge_write(sent, &[202]);
            if !followed || !sent.is_acknowledged() {
                return sent;
            }
        }
        let answer = client.finish(&upload, &blob.digest, rest).await;
        let wrote = self.ledger.judge_write(answer, &[201]);
        if wrote.is_acknowledged() && self.relies == Relies::OnBlobs {
            self.ledger.keep_blob(REPOSITORY, &blob.digest);
        }
        wrote
    }

    /// One to three layers, of which one in three is a layer that others have too.
    fn make(&self, random: &mut StdRng) -> Image {
        let layers = (0..random.random_range(1..=3)).map(|_| self.layer(random)).collect();
        Image::of_layers(random.random(), layers)
    }

    fn layer(&self, random: &mut StdRng) -> Blob {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if random.random_bool(0.33) && !shared.is_empty() {
            let index = random.random_range(0..shared.len());
            if let Some(blob) = shared.get(index) {
                return blob.clone();
            }
        }
        // Sizes over all orders of magnitude, from 1 KiB on.
        let span = (self.layer_max.max(2_048) as f64 / 1_024.0).log2();
        let size = 1_024.0 * random.random_range(0.0..span).exp2();
        let blob = Blob::random(random.random(), size as usize);
        shared.push_back(blob.clone());
        if shared.len() > SHARED_MAX {
            shared.pop_front();
        }
        blob
    }

    /// Pulls an acknowledged image, whole, from one replica after another until one gives all of it.
    pub(super) async fn pull(&self, random: &mut StdRng) {
        let newest = random.random_bool(0.5);
        let chosen = self
            .ledger
            .image(|count| if newest { count - 1 } else { random.random_range(0..count) });
        let Some(image) = chosen else {
            tokio::time::sleep(PAUSE).await;
            return;
        };
        let pulled = tokio::time::timeout(PULL_PATIENCE, async {
            loop {
                for client in self.targets.shuffled(random) {
                    if self.pull_from(&client, &image, random).await {
                        return;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        })
        .await;
        if pulled.is_err() {
            self.ledger.pull_stopped(&image.tag, PULL_PATIENCE);
        }
    }

    /// Whether the pull is over, well or badly.
    async fn pull_from(
        &self,
        client: &RegistryClient,
        image: &KeptImage,
        random: &mut StdRng,
    ) -> bool {
        let by_tag = random.random_bool(0.5);
        let reference = if by_tag { &image.tag } else { &image.manifest };
        let wanted = image.blobs.iter().map(|digest| (digest, digest, false));
        for (reference, digest, manifest) in
            [(reference, &image.manifest, true)].into_iter().chain(wanted)
        {
            let kept = Kept {
                repository: image.repository.clone(),
                reference: reference.clone(),
                digest: digest.clone(),
                manifest,
            };
            match self.ledger.read(client, &kept).await {
                Reading::Found(answer) => {
                    if manifest && crate::digest::sha256(&answer.body) != *digest {
                        let what = format!("{reference} is another image than was acknowledged");
                        self.ledger.violated(Invariant::I3, what);
                        return true;
                    }
                }
                Reading::Absent => {
                    let what = format!("{reference} of {} is not there during the run", image.tag);
                    self.ledger.lost(what);
                    return true;
                }
                Reading::Wrong => return true,
                Reading::Refused(_) | Reading::Unreachable(_) => return false,
            }
        }
        true
    }
}

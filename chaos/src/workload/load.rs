//! Clients that work until they are told to stop.

use std::{collections::VecDeque, future::Future, sync::Arc};

use anyhow::{Context as _, Result};
use rand::{SeedableRng as _, rngs::StdRng};
use tokio::{sync::watch, task::JoinSet};

use super::{
    chunked::Chunked, images::Images, ledger::Ledger, liars::Liars, tags::Tags, targets::Targets,
};
use crate::not_shown::OrNotShown as _;

/// From when on clients rely on a blob that they have pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relies {
    /// From its own acknowledgement: its grace is longer than the run.
    OnBlobs,
    /// From that of a manifest that names it. Until then it may be collected, and its push be refused.
    OnManifests,
}

/// How many clients do what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoadOptions {
    /// Clients that push images.
    pub(crate) pushers: usize,
    /// Clients that pull them.
    pub(crate) pullers: usize,
    /// Largest layer in bytes.
    pub(crate) layer_max: usize,
    /// Clients that move tags; at most three, so that the histories say something.
    pub(crate) tag_writers: usize,
    /// Clients that read tags, one replica each.
    pub(crate) tag_readers: usize,
    /// Clients that send blobs in chunks and resume them; `layer_max` is their largest, too.
    pub(crate) uploaders: usize,
    /// Clients that lie.
    pub(crate) liars: usize,
    /// What those that push rely on.
    pub(crate) relies: Relies,
}

impl LoadOptions {
    /// W1 and W2 together.
    pub(crate) fn images_and_tags(replicas: usize, layer_max: usize) -> Self {
        let tags = Self::tags(replicas);
        Self { pushers: 2, pullers: 2, layer_max, ..tags }
    }

    /// W1 alone.
    pub(crate) fn images(layer_max: usize) -> Self {
        Self { pushers: 2, pullers: 2, layer_max, tag_writers: 0, tag_readers: 0, ..Self::tags(0) }
    }

    /// W2 alone.
    pub(crate) fn tags(replicas: usize) -> Self {
        Self {
            pushers: 0,
            pullers: 0,
            layer_max: 0,
            tag_writers: 3,
            tag_readers: replicas,
            uploaders: 0,
            liars: 0,
            relies: Relies::OnBlobs,
        }
    }

    /// With W3 beside it.
    pub(crate) fn and_chunked(self, uploaders: usize) -> Self {
        Self { uploaders, ..self }
    }

    /// In a cluster that collects what no manifest names, within the run.
    pub(crate) fn with_collection(self) -> Self {
        Self { relies: Relies::OnManifests, ..self }
    }

    /// With W5 beside it.
    pub(crate) fn and_liars(self, liars: usize) -> Self {
        Self { liars, ..self }
    }
}

/// A running workload.
#[derive(Debug)]
pub(crate) struct Load {
    stop: watch::Sender<bool>,
    clients: JoinSet<()>,
}

impl Load {
    /// Starts it; everything random is drawn from `seed`.
    pub(crate) async fn start(
        targets: &Targets,
        ledger: &Arc<Ledger>,
        options: LoadOptions,
        seed: u64,
    ) -> Result<Self> {
        let mut load = Self { stop: watch::Sender::new(false), clients: JoinSet::new() };
        let images = Images {
            targets: targets.clone(),
            ledger: ledger.clone(),
            generation: seed,
            layer_max: options.layer_max,
            relies: options.relies,
            shared: Arc::new(std::sync::Mutex::new(VecDeque::new())),
        };
        let tags = Tags {
            targets: targets.clone(),
            ledger: ledger.clone(),
            generation: seed,
            operations: Arc::default(),
        };
        tags.prepare().await?;
        for worker in 0..options.pushers {
            let images = images.clone();
            load.spawn(seed, 100 + worker, move |number, mut random| {
                let images = images.clone();
                async move {
                    images.push(worker, number, &mut random).await;
                    random
                }
            });
        }
        for worker in 0..options.pullers {
            let images = images.clone();
            load.spawn(seed, 200 + worker, move |_, mut random| {
                let images = images.clone();
                async move {
                    images.pull(&mut random).await;
                    random
                }
            });
        }
        for worker in 0..options.tag_writers {
            let tags = tags.clone();
            load.spawn(seed, 300 + worker, move |number, mut random| {
                let tags = tags.clone();
                async move {
                    tags.write(worker, number, &mut random).await;
                    random
                }
            });
        }
        for worker in 0..options.tag_readers {
            let tags = tags.clone();
            load.spawn(seed, 400 + worker, move |_, mut random| {
                let tags = tags.clone();
                async move {
                    tags.read(worker, &mut random).await;
                    random
                }
            });
        }
        let chunked = Chunked {
            targets: targets.clone(),
            ledger: ledger.clone(),
            size_max: options.layer_max,
            relies: options.relies,
        };
        for worker in 0..options.uploaders {
            let chunked = chunked.clone();
            load.spawn(seed, 500 + worker, move |_, mut random| {
                let chunked = chunked.clone();
                async move {
                    chunked.push(&mut random).await;
                    random
                }
            });
        }
        let liars = Liars { targets: targets.clone(), ledger: ledger.clone() };
        for worker in 0..options.liars {
            let liars = liars.clone();
            load.spawn(seed, 600 + worker, move |number, mut random| {
                let liars = liars.clone();
                async move {
                    // Not all of them the same lie at the same time.
                    liars.lie(number + 3 * worker as u64, &mut random).await;
                    random
                }
            });
        }
        Ok(load)
    }

    /// One client: `step` again and again, each with the random numbers that the last left.
    fn spawn<Step, Ended>(&mut self, seed: u64, client: usize, step: Step)
    where
        Step: Fn(u64, StdRng) -> Ended + Send + 'static,
        Ended: Future<Output = StdRng> + Send,
    {
        let stopped = self.stop.subscribe();
        let mut random = StdRng::seed_from_u64(seed ^ ((client as u64) << 32));
        self.clients.spawn(async move {
            for number in 0.. {
                if *stopped.borrow() {
                    return;
                }
                random = step(number, random).await;
            }
        });
    }

    /// Lets every client finish what it does.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.stop.send_replace(true);
        while let Some(ended) = self.clients.join_next().await {
            ended.context("a client panicked").or_not_shown()?;
        }
        Ok(())
    }
}

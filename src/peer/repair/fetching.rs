//! Fetches what is missing, a few blobs at a time.

use std::time::Duration;

use tercet_storage::Digest;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::TICK;
use super::backlog::Setback;
use super::shared::Shared;
use crate::peer::fetch::{FetchError, Kept};

/// While the disk is too full.
const DISK_PAUSE: Duration = Duration::from_secs(10);

type Fetched = (Digest, u64, Result<Kept, FetchError>);

pub(super) async fn run(shared: &Shared) {
    // Fetches end with this future: dropping the set aborts them.
    let mut fetches: JoinSet<Fetched> = JoinSet::new();
    let mut paused_until = Instant::now();
    loop {
        tokio::select! {
            Some(fetched) = fetches.join_next() => match fetched {
                Ok((digest, size, result)) => settle(shared, &digest, size, result).await,
                // A panic ends the process by its hook; this is for the moment before.
                Err(error) => tracing::error!(%error, "a repair fetch ended abnormally"),
            },
            () = tokio::time::sleep(TICK) => {}
        }
        let now = Instant::now();
        while paused_until <= now && fetches.len() < shared.parallel {
            let Some((digest, size)) = shared.backlog().next(now) else { break };
            if !shared.fetcher.may_keep() {
                tracing::warn!(
                    "the disk is too full, repair waits (limits.disk_repair_stop_percent)"
                );
                let _ = shared.backlog().retry(&digest, Setback::Busy, now);
                paused_until = now + DISK_PAUSE;
                break;
            }
            start(shared, &mut fetches, digest, size);
        }
        shared.show();
    }
}

fn start(shared: &Shared, fetches: &mut JoinSet<Fetched>, digest: Digest, size: u64) {
    let (fetcher, blobs) = (shared.fetcher.clone(), shared.blobs.clone());
    let budget = shared.budget.clone();
    fetches.spawn(async move {
        // It may have come by another way since it was noted.
        let result = match blobs.size_of(&digest).await {
            Ok(Some(found)) if found == size => Ok(Kept::Here),
            Ok(_) => fetcher.keep_within(&digest, size, &budget).await,
            Err(error) => Err(error.into()),
        };
        (digest, size, result)
    });
}

async fn settle(shared: &Shared, digest: &Digest, size: u64, result: Result<Kept, FetchError>) {
    let (setback, error) = match result {
        Ok(Kept::Here) => {
            shared.backlog().done(digest);
            shared.losses.recovered(digest);
            shared.metrics.repair_fetched.inc();
            return;
        }
        Ok(Kept::Later) => (Setback::Busy, None),
        Err(error @ FetchError::Nowhere { .. }) => (Setback::Nowhere, Some(error)),
        Err(error) => (Setback::Failed, Some(error)),
    };
    if matches!(shared.catalogue.committed_ms(digest), Ok(None)) {
        shared.backlog().done(digest);
        shared.losses.recovered(digest);
        return;
    }
    let Some(retry) = shared.backlog().retry(digest, setback, Instant::now()) else { return };
    let Some(error) = error else { return };
    shared.metrics.repair_failed.inc();
    tracing::warn!(%digest, %error, again_in = ?retry.pause, "repair could not bring a blob");
    if retry.lost {
        // Finding the images that need it reads much of the catalogue.
        let (losses, digest) = (shared.losses.clone(), digest.clone());
        let reported = tokio::task::spawn_blocking(move || losses.report(&digest, size)).await;
        if let Err(error) = reported {
            tracing::error!(%error, "the report of a lost blob ended abnormally");
        }
    }
}

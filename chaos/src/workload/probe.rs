//! The moment at which something works again.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures_util::{StreamExt as _, stream::FuturesUnordered};

/// Between the starts of two attempts. One does not wait for the other: a request that was sent to a member without
/// a leader may hang for longer than the leader is away.
const EVERY: Duration = Duration::from_millis(50);
/// How long one attempt may take.
pub(crate) const ATTEMPT_PATIENCE: Duration = Duration::from_secs(1);
/// Without a write for so long, a cluster with a majority is broken.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long it takes until one of many attempts succeeds; `attempt` starts one for each survivor, told apart by a
/// number.
pub(crate) async fn first_success<F, Attempt>(survivors: usize, attempt: F) -> Result<Duration>
where
    F: Fn(usize) -> Attempt,
    Attempt: Future<Output = bool>,
{
    let start = Instant::now();
    let search = async {
        let mut attempts = FuturesUnordered::new();
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                _ = ticks.tick() => attempts.extend((0..survivors).map(&attempt)),
                Some(succeeded) = attempts.next() => if succeeded {
                    return;
                },
            }
        }
    };
    let found = tokio::time::timeout(DEADLINE, search).await;
    found.with_context(|| format!("no write was acknowledged within {DEADLINE:?}"))?;
    Ok(start.elapsed())
}

//! Waiting for conditions. No test sleeps for a fixed time and hopes.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};

/// Short enough not to add up, long enough not to load a two-core machine.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks `probe` until it succeeds. An `Err` of the probe means "not yet, because"; the last one is the
/// reason given when the deadline passes.
pub async fn wait_until<T, F, Fut>(what: &str, deadline: Duration, mut probe: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let start = Instant::now();
    let mut last = None;
    loop {
        // A probe that hangs must not outlive the deadline either.
        let left = deadline.saturating_sub(start.elapsed()).max(PAUSE);
        let reason = match tokio::time::timeout(left, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(reason)) => reason,
            // What was said before it was cut short says more.
            Err(_) => last.unwrap_or_else(|| anyhow!("the question itself got no answer")),
        };
        if start.elapsed() >= deadline {
            return Err(reason.context(format!("not within {deadline:?}: {what}")));
        }
        last = Some(reason);
        tokio::time::sleep(PAUSE).await;
    }
}

/// Runs one step under a deadline, so that a hang is a failure with a name.
pub async fn within<T, Fut>(what: &str, deadline: Duration, step: Fut) -> Result<T>
where
    Fut: Future<Output = Result<T>>,
{
    tokio::time::timeout(deadline, step)
        .await
        .map_err(|_| anyhow!("not within {deadline:?}: {what}"))?
        .with_context(|| what.to_owned())
}

//! Ends a process of this program as a person would.

use std::{process::ExitStatus, time::Duration};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;

/// How long it may take to clean up.
const CLEAN_UP_MAX: Duration = Duration::from_secs(60);
/// The same of one that may have to stop and kill one of its own first.
const CLEAN_UP_BOTH_MAX: Duration = Duration::from_secs(90);

/// Tells it to end (SIGTERM) and lets it clean up; after a minute it is killed.
///
/// # Errors
/// If it cannot be killed or waited for.
pub async fn stop(child: &mut Child) -> Result<ExitStatus> {
    stop_within(child, CLEAN_UP_MAX).await
}

/// The same for one that runs another one, to which it gives a minute.
pub(crate) async fn stop_both(child: &mut Child) -> Result<ExitStatus> {
    stop_within(child, CLEAN_UP_BOTH_MAX).await
}

async fn stop_within(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid) = pid.and_then(Pid::from_raw) {
        // One that has ended by itself is what we want.
        let _ = kill_process(pid, Signal::TERM);
    }
    if let Ok(ended) = tokio::time::timeout(limit, child.wait()).await {
        return ended.context("wait for tercet-chaos");
    }
    child.kill().await.context("kill a tercet-chaos that does not end")?;
    child.wait().await.context("wait for tercet-chaos")
}

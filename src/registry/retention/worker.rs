//! Judges now and then on whoever leads.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tercet_raft::Role;

use super::enforce::{Retired, enforce};
use super::{Rules, walk};
use crate::config::RetentionMode;
use crate::core::Core;
use crate::registry::error::RegistryError;
use crate::registry::now_ms;
use crate::registry::read::writable_and_current;

/// Starts the worker.
pub(crate) fn start_retention(core: &Arc<Core>) {
    let (weak, interval) = (Arc::downgrade(core), core.config.retention.interval());
    core.workers.spawn("retention", move |token| async move {
        token.run_until_cancelled(keep(weak, interval)).await;
    });
}

async fn keep(core: Weak<Core>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let Some(core) = core.upgrade() else { return };
        if core.consensus.status().role != Role::Leader {
            // Another replica knows better.
            tell_candidates(&core, Retired::default());
            continue;
        }
        match run(&core).await {
            Ok(()) => core.metrics.retention_completed.set((now_ms() / 1000).cast_signed()),
            Err(error) => tracing::warn!(%error, "retention could not be completed; trying again"),
        }
    }
}

/// One round over all repositories.
async fn run(core: &Arc<Core>) -> Result<(), RegistryError> {
    writable_and_current(core).await?;
    let rules = Rules::of_group(&core.consensus)?;
    let mode = core.config.retention.mode;
    let (mut candidates, mut gone, mut left_untagged) = (Retired::default(), Retired::default(), 0);
    let mut after = None;
    loop {
        let page = walk(core, rules.clone(), after).await?;
        for judgement in page.entries {
            candidates.tags += judgement.tags.len() as u64;
            candidates.manifests += judgement.manifests.len() as u64;
            left_untagged += judgement.left_untagged;
            match mode {
                RetentionMode::Report => tracing::debug!(
                    repository = %judgement.repository, rule = judgement.rule,
                    tags = judgement.tags.len(), manifests = judgement.manifests.len(),
                    "retention would remove tags and manifests"
                ),
                RetentionMode::Enforce => {
                    let retired = enforce(core, judgement).await?;
                    gone.tags += retired.tags;
                    gone.manifests += retired.manifests;
                }
            }
        }
        match page.next_after {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    let left = Retired {
        tags: candidates.tags.saturating_sub(gone.tags),
        manifests: candidates.manifests.saturating_sub(gone.manifests),
    };
    tell_candidates(core, left);
    if candidates != Retired::default() {
        tracing::info!(
            ?mode,
            tags = candidates.tags,
            manifests = candidates.manifests,
            removed_tags = gone.tags,
            removed_manifests = gone.manifests,
            left_untagged,
            "retention judged; `tercet retention --dry-run` lists what may go"
        );
    }
    Ok(())
}

fn tell_candidates(core: &Core, left: Retired) {
    let gauge = &core.metrics.retention_candidates;
    gauge.with_label_values(&["tag"]).set(left.tags.cast_signed());
    gauge.with_label_values(&["manifest"]).set(left.manifests.cast_signed());
}

//! Says in the log when the disk fills up, before anything is refused for it.

use std::sync::Arc;
use std::time::Duration;

use tercet_storage::BlobStore;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Looks between two warnings while nothing changes.
const LOOKS_PER_WARNING: u32 = 20;

/// Runs as a worker until it is cancelled.
pub async fn watch(blobs: BlobStore, config: Arc<Config>, stop: CancellationToken) {
    let limit = config.limits.disk_warn_percent;
    let mut looks_above: u32 = 0;
    loop {
        match blobs.space() {
            Ok(space) if space.used_percent() >= limit => {
                if looks_above.is_multiple_of(LOOKS_PER_WARNING) {
                    tracing::warn!(
                        used_percent = space.used_percent(),
                        available_bytes = space.available,
                        repair_stops_at = config.limits.disk_repair_stop_percent,
                        uploads_refused_at = config.limits.disk_refuse_percent,
                        "the disk of the data directory is filling up"
                    );
                }
                looks_above = looks_above.wrapping_add(1);
            }
            Ok(_) => looks_above = 0,
            Err(error) => tracing::warn!(%error, "cannot tell how full the disk is"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

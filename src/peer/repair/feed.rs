//! The log as the repair queue: what has just been committed.

use std::collections::VecDeque;
use std::time::Duration;

use tercet_storage::Digest;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::TICK;
use super::shared::Shared;

/// A blob that has just been committed is usually being published here at that very moment, by the push
/// itself.
const GRACE: Duration = Duration::from_secs(1);
/// Blobs looked for at a time.
const TOLD_MAX: usize = 2_048;

pub(super) async fn run(shared: &Shared, mut committed: mpsc::Receiver<(Digest, u64)>) {
    // In the order of their commit.
    let mut in_grace: VecDeque<(Instant, Digest, u64)> = VecDeque::new();
    let mut told = Vec::new();
    let mut is_open = true;
    loop {
        tokio::select! {
            received = committed.recv_many(&mut told, TOLD_MAX), if is_open => is_open = received > 0,
            () = tokio::time::sleep(TICK) => {}
        }
        if !told.is_empty() {
            // Most are here: the push publishes a blob before it is committed.
            let told = std::mem::take(&mut told);
            match shared.look_for(&shared.directory.members(), told).await {
                Some(missing) => {
                    let (young, old) = missing.into_iter().partition(|blob| is_young(shared, blob));
                    shared.note_missing(old);
                    let due = Instant::now() + GRACE;
                    in_grace.extend(young.into_iter().map(|(digest, size)| (due, digest, size)));
                }
                None => shared.compare_by(Instant::now() + GRACE),
            }
        }
        let now = Instant::now();
        let mut due = Vec::new();
        while in_grace.front().is_some_and(|(due, ..)| *due <= now) {
            due.extend(in_grace.pop_front().map(|(_, digest, size)| (digest, size)));
        }
        if !due.is_empty() {
            match shared.look_for(&shared.directory.members(), due).await {
                Some(missing) => shared.note_missing(missing),
                None => shared.compare_by(now + GRACE),
            }
        }
    }
}

/// Whether a push may still bring the blob. A replica that catches up hears of blobs that are older: those
/// are missing from that moment on, or it would look whole before it is.
fn is_young(shared: &Shared, (digest, _): &(Digest, u64)) -> bool {
    let newest_old =
        shared.clock.now_ms().saturating_sub(u64::try_from(GRACE.as_millis()).unwrap_or(u64::MAX));
    // Gone again, or not to be read: the second look tells.
    !matches!(shared.catalogue.committed_ms(digest), Ok(Some(committed)) if committed < newest_old)
}

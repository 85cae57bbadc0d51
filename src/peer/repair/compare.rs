//! Compares the catalogue with the disk: at the start, then every minute, and when something happens
//! that the log does not tell.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tercet_storage::Digest;
use tokio::time::Instant;

use super::TICK;
use super::shared::{Shared, gauge};
use crate::peer::directory::Peer;

/// Between two comparisons.
const COMPARE_EVERY: Duration = Duration::from_secs(60);
/// Between two comparisons, whatever happens.
const COMPARE_PAUSE: Duration = Duration::from_secs(1);
/// Blobs compared at a time: long enough that going to a blocking thread costs nothing, short enough
/// to hold in memory.
const PAGE: usize = 2_048;

pub(super) async fn run(shared: &Shared) {
    let mut compared_with: Vec<Peer> = Vec::new();
    loop {
        // What the log holds is what placement was decided by, so this comes before the members.
        let applied = shared.catalogue.applied();
        let members = shared.directory.members();
        let moved = members != compared_with;
        if moved {
            drop_what_moved(shared, &members);
        }
        let rescan = shared.catalogue.take_rescan();
        if rescan {
            // Nobody knows what is missing until it has been compared.
            shared.metrics.repair_compared_applied.set(0);
        }
        let wants_more = shared.backlog().wants_more();
        if moved || rescan || wants_more || shared.compare_at() <= Instant::now() {
            shared.comparing(Instant::now() + COMPARE_EVERY);
            if compare(shared, &members).await {
                // Before there are members nothing belongs here, so nothing was compared.
                if !members.is_empty() {
                    shared.metrics.repair_compared_applied.set(gauge(applied));
                }
                compared_with = members;
            } else {
                shared.compare_by(Instant::now() + COMPARE_PAUSE);
            }
            tokio::time::sleep(COMPARE_PAUSE).await;
        }
        tokio::time::sleep(TICK).await;
    }
}

/// What belonged here before the membership changed, and does not any more, is not missing; the rest
/// may be on somebody who came, or only ever was on somebody who went.
fn drop_what_moved(shared: &Shared, members: &[Peer]) {
    shared.backlog().hurry(Instant::now());
    let gone = shared.backlog().retain(|digest| shared.belongs_here(members, digest));
    for digest in gone {
        shared.losses.recovered(&digest);
    }
    shared.forget_all_surplus();
}

/// One comparison; whether it came to its end.
async fn compare(shared: &Shared, members: &[Peer]) -> bool {
    let began = Instant::now();
    shared.losses.recount();
    shared.backlog().begin_comparison();
    let mut after: Option<Digest> = None;
    let mut compared = 0;
    let complete = loop {
        let (catalogue, from) = (Arc::clone(&shared.catalogue), after.clone());
        let page = tokio::task::spawn_blocking(move || catalogue.page(from.as_ref(), PAGE)).await;
        let page = match page.map_err(|error| error.to_string()).and_then(|page| page) {
            Ok(page) => page,
            Err(reason) => {
                tracing::error!(reason, "cannot compare the catalogue with the disk");
                break false;
            }
        };
        let Some((last, _)) = page.last() else { break true };
        after = Some(last.clone());
        compared += page.len() as u64;
        let Some(missing) = shared.look_for(members, page).await else { break false };
        shared.note_missing(missing);
    };
    shared.backlog().end_comparison();
    shared.show();
    if complete {
        shared.catalogued.store(compared, Ordering::Relaxed);
    }
    tracing::debug!(compared, complete, took = ?began.elapsed(), "compared catalogue and disk");
    complete
}

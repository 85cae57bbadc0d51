//! Which blobs this replica holds so surely that another may do without its copy.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use tokio::time::Instant;

use super::PeerState;
use super::gate::Refusal;
use crate::peer::wire::{CONFIRM_MAX, Confirm, Confirmed};

/// Shorter than the patience of who asks. What is not verified by then is verified further and
/// confirmed when it is asked about again.
const TIME_MAX: Duration = Duration::from_secs(10);

pub(super) async fn confirm(
    State(state): State<PeerState>,
    Json(Confirm { blobs }): Json<Confirm>,
) -> Result<Json<Confirmed>, Refusal> {
    if blobs.len() > CONFIRM_MAX {
        let message = format!("{} blobs at a time, the most is {CONFIRM_MAX}", blobs.len());
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    let Some(placed_here) = state.inner.placed_here.get() else { return Err(Refusal::starting()) };
    // It may read as much as a stream does.
    let _permit = state.stream_permit()?;
    let deadline = Instant::now() + TIME_MAX;
    let mut digests = Vec::new();
    for blob in blobs {
        // A copy that is not placed here may go as soon as this replica likes.
        if !placed_here(&blob.digest) {
            continue;
        }
        let confirmed = state.inner.blobs.confirm(&blob.digest, blob.size);
        match tokio::time::timeout_at(deadline, confirmed).await {
            Ok(Ok(true)) => digests.push(blob.digest),
            Ok(Ok(false)) => {}
            Ok(Err(error)) => {
                tracing::warn!(digest = %blob.digest, %error, "cannot confirm a copy")
            }
            Err(_) => break,
        }
    }
    Ok(Json(Confirmed { digests }))
}

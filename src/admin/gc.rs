//! Garbage collection: what would go, where it stands, and a round at once.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use serde::{Deserialize, Serialize};
use tercet_storage::Digest;

use super::{AdminError, Change, on_leader};
use crate::core::Core;
use crate::registry::{self, CandidatePage, GcStatus, Round};

/// A round reads every record; the one who asks waits a little longer than this for an answer.
const ROUND_DEADLINE: Duration = Duration::from_secs(150);

/// Collection as the leader sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    /// The leader.
    pub name: String,
    /// Where it stands there.
    pub status: GcStatus,
    /// Who keeps everything for now.
    pub holds: Vec<Hold>,
}

/// Somebody who keeps blobs from being collected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Who.
    pub holder: String,
    /// Until when, in milliseconds since the Unix epoch.
    pub until_ms: u64,
}

/// Where a page begins.
#[derive(Debug, Clone, Default, Deserialize)]
struct PageAsked {
    after: Option<String>,
}

pub(super) fn routes(core: &Arc<Core>) -> Router<Arc<Core>> {
    // The leader's clock and grace judge, as they do when blobs really go.
    Router::new()
        .route("/admin/gc/status", get(status))
        .route("/admin/gc/candidates", get(candidates))
        .route("/admin/gc/run", post(run))
        .route_layer(middleware::from_fn_with_state(Arc::clone(core), on_leader))
}

async fn status(State(core): State<Arc<Core>>) -> Result<Json<GcReport>, AdminError> {
    let holds = registry::active_holds(&core).map_err(unavailable)?;
    let holds = holds.into_iter();
    Ok(Json(GcReport {
        name: core.config.node.name.clone(),
        status: registry::gc_status(&core),
        holds: holds.map(|hold| Hold { holder: hold.holder, until_ms: hold.until_ms }).collect(),
    }))
}

async fn candidates(
    State(core): State<Arc<Core>>,
    Query(asked): Query<PageAsked>,
) -> Result<Json<CandidatePage>, AdminError> {
    let after = asked.after.as_deref().map(Digest::from_str).transpose();
    let after = after.map_err(|error| AdminError::bad_request(error.to_string()))?;
    Ok(Json(registry::candidates(&core, after.as_ref()).map_err(unavailable)?))
}

async fn run(State(core): State<Arc<Core>>) -> Result<impl IntoResponse, AdminError> {
    let round: Round = tokio::time::timeout(ROUND_DEADLINE, core.collection.run_now())
        .await
        .map_err(|_| {
            AdminError::unavailable("the round has not ended yet")
                .hint("it goes on by itself; `tercet gc status` shows its end")
        })?
        .map_err(AdminError::unavailable)?;
    let change = format!(
        "collected {} blobs of {} bytes, forgot {} repositories",
        round.collected, round.collected_bytes, round.repositories
    );
    Ok((Change::new(change), Json(round)))
}

fn unavailable(error: impl std::fmt::Display) -> AdminError {
    AdminError::unavailable(error.to_string())
}

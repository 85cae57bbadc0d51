//! Reading all blobs again, on demand; and what was lost.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::{AdminError, Change};
use crate::core::Core;
use crate::loss::Loss;
use crate::scrub::ScrubStatus;

/// The scrub of one replica, and the blobs that it has found on no replica.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScrubReport {
    /// The replica.
    pub name: String,
    /// How far it is.
    pub scrub: ScrubStatus,
    /// Blobs that are lost, with the images that need them.
    pub lost: Vec<Loss>,
}

pub(super) fn routes(_core: &Arc<Core>) -> Router<Arc<Core>> {
    Router::new().route("/admin/scrub", get(report)).route("/admin/scrub/start", post(start))
}

async fn report(State(core): State<Arc<Core>>) -> Json<ScrubReport> {
    Json(report_of(&core))
}

async fn start(State(core): State<Arc<Core>>) -> Result<impl IntoResponse, AdminError> {
    core.scrub.start_now();
    Ok((Change::new("scrub started"), Json(report_of(&core))))
}

fn report_of(core: &Core) -> ScrubReport {
    ScrubReport {
        name: core.config.node.name.clone(),
        scrub: core.scrub.status(),
        lost: core.losses.named(),
    }
}

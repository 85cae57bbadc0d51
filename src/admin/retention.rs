//! What retention would remove now: the dry run.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::post;
use axum::{Json, Router, middleware};
use serde::{Deserialize, Serialize};
use tercet_storage::{RepositoryName, RetentionRule, check_retention};

use super::{AdminError, Change, on_leader};
use crate::config::RetentionMode;
use crate::core::Core;
use crate::registry::retention::{self, Judgement};

/// The question.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DryRunAsked {
    /// Rules to judge by instead of those of the group.
    pub rules: Option<Vec<RetentionRule>>,
    /// Go on behind this repository.
    pub after: Option<RepositoryName>,
}

/// A page of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DryRun {
    /// What the leader does with what the rules of the group let go of.
    pub mode: RetentionMode,
    /// Repositories that would let something go, by name.
    pub repositories: Vec<Judgement>,
    /// The repository behind which the next page begins; `None` at the end.
    pub next_after: Option<RepositoryName>,
}

pub(super) fn routes(core: &Arc<Core>) -> Router<Arc<Core>> {
    // The leader's clock judges, as it does when it is no dry run.
    Router::new()
        .route("/admin/retention/dry-run", post(dry_run))
        .route_layer(middleware::from_fn_with_state(Arc::clone(core), on_leader))
}

async fn dry_run(
    State(core): State<Arc<Core>>,
    Json(asked): Json<DryRunAsked>,
) -> Result<impl IntoResponse, AdminError> {
    if let Some(rules) = &asked.rules {
        check_retention(rules).map_err(|error| AdminError::bad_request(error.to_string()))?;
    }
    let page = retention::judge_page(&core, asked.rules, asked.after)
        .await
        .map_err(|error| AdminError::unavailable(error.to_string()))?;
    let mode = core.config.retention.mode;
    let answer = DryRun { mode, repositories: page.entries, next_after: page.next_after };
    Ok((Change::new("nothing: a dry run of retention"), Json(answer)))
}

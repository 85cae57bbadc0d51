//! Who is in the cluster, and changes of that.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use serde::{Deserialize, Serialize};
use tercet_raft::{ChangeRefused, Changed, Force, Leaving};

use super::audit::Change;
use super::error::AdminError;
use super::leader::on_leader;
use crate::core::Core;
use crate::ops::status::{self, Status};

/// The code of a refusal that may be none a moment later.
pub const BUSY: &str = "busy";
/// Why `--force` exists, and when not to use it.
const FORCE_HINT: &str = "bring the silent replicas back first. If they are gone for good, repeat with --force --reason \"…\", which is written to the audit log";

/// Names a member.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MemberNamed {
    /// Its name.
    pub name: String,
}

/// Body of `POST /admin/members/add`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddMember {
    /// The name it is configured with.
    pub name: String,
    /// Base URL of its peer listener.
    pub address: String,
}

/// Body of `POST /admin/members/remove`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoveMember {
    /// Its name.
    pub name: String,
    /// Whether it is removed although that is refused otherwise.
    pub force: Force,
}

/// Body of `POST /admin/members/leaving`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MarkLeaving {
    /// Its name.
    pub name: String,
    /// Whether it is about to go.
    pub leaving: Leaving,
}

/// Body of `POST /admin/members/transfer`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TransferLeadership {
    /// Who shall lead; whoever is furthest, if nobody is named.
    pub name: Option<String>,
}

/// What was changed, or would be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MemberAnswer {
    /// In words.
    pub what: String,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// What the leader had applied after the change: a replica that has applied as much knows of it.
    pub applied: u64,
}

pub(super) fn routes(core: &Arc<Core>) -> Router<Arc<Core>> {
    let on_the_leader = Router::new()
        .route("/admin/leader/members", get(list))
        .route("/admin/members/removal", get(plan_removal))
        .route("/admin/members/add", post(add))
        .route("/admin/members/remove", post(remove))
        .route("/admin/members/promote", post(promote))
        .route("/admin/members/leaving", post(mark_leaving))
        .route("/admin/members/transfer", post(transfer))
        .route_layer(middleware::from_fn_with_state(Arc::clone(core), on_leader));
    Router::new().route("/admin/members", get(list)).merge(on_the_leader)
}

/// As this replica sees it, so that it answers without a leader too.
async fn list(State(core): State<Arc<Core>>) -> Json<Status> {
    Json(status::collect(&core).await)
}

async fn plan_removal(
    State(core): State<Arc<Core>>,
    Query(member): Query<MemberNamed>,
) -> Result<Json<MemberAnswer>, AdminError> {
    let planned = core.consensus.plan_removal(&member.name).await.map_err(refused)?;
    Ok(Json(answer(&core, planned)))
}

async fn add(
    State(core): State<Arc<Core>>,
    Json(member): Json<AddMember>,
) -> Result<impl IntoResponse, AdminError> {
    let AddMember { name, address } = member;
    done(&core, &Force::No, core.consensus.add_member(&name, &address).await)
}

async fn remove(
    State(core): State<Arc<Core>>,
    Json(member): Json<RemoveMember>,
) -> Result<impl IntoResponse, AdminError> {
    let RemoveMember { name, force } = member;
    if matches!(&force, Force::Because(reason) if reason.trim().is_empty()) {
        return Err(AdminError::bad_request("a forced removal needs a reason"));
    }
    done(&core, &force, core.consensus.remove_member(&name, force.clone()).await)
}

async fn promote(
    State(core): State<Arc<Core>>,
    Json(member): Json<MemberNamed>,
) -> Result<impl IntoResponse, AdminError> {
    done(&core, &Force::No, core.consensus.promote(&member.name).await)
}

async fn mark_leaving(
    State(core): State<Arc<Core>>,
    Json(mark): Json<MarkLeaving>,
) -> Result<impl IntoResponse, AdminError> {
    done(&core, &Force::No, core.consensus.set_leaving(&mark.name, mark.leaving).await)
}

async fn transfer(
    State(core): State<Arc<Core>>,
    Json(to): Json<TransferLeadership>,
) -> Result<impl IntoResponse, AdminError> {
    done(&core, &Force::No, core.consensus.transfer_to(to.name.as_deref()).await)
}

fn done(
    core: &Core,
    force: &Force,
    changed: Result<Changed, ChangeRefused>,
) -> Result<(Change, Json<MemberAnswer>), AdminError> {
    let changed = changed.map_err(refused)?;
    let change = Change::new(changed.what.clone()).forced(force);
    Ok((change, Json(answer(core, changed))))
}

fn answer(core: &Core, changed: Changed) -> MemberAnswer {
    let Changed { what, warnings } = changed;
    MemberAnswer { what, warnings, applied: core.consensus.status().applied }
}

fn refused(refused: ChangeRefused) -> AdminError {
    let sentence = refused.to_string();
    let (code, message) = coded(&sentence);
    let retry = refused.retry();
    let (status, code) = match &refused {
        ChangeRefused::UnknownMember { .. } => (StatusCode::NOT_FOUND, code.unwrap_or("not_found")),
        ChangeRefused::NoQuorum(_)
        | ChangeRefused::Unknown(_)
        | ChangeRefused::FeatureLevel { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, code.unwrap_or("unavailable"))
        }
        _ if retry => (StatusCode::CONFLICT, BUSY),
        _ => (StatusCode::CONFLICT, code.unwrap_or("refused")),
    };
    let error = AdminError::new(status, code, message);
    if refused.force_helps() { error.hint(FORCE_HINT) } else { error }
}

/// The code at the beginning of a sentence, if there is one, and the rest.
fn coded(sentence: &str) -> (Option<&str>, &str) {
    match sentence.split_once(": ") {
        Some((code, rest)) if code.starts_with("TERCET-") => (Some(code), rest),
        _ => (None, sentence),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_code_is_taken_off_its_sentence() {
        assert_eq!(coded("TERCET-M12: would lose"), (Some("TERCET-M12"), "would lose"));
        assert_eq!(coded("lag: 7"), (None, "lag: 7"));
    }
}

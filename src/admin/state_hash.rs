//! The digest of a replica's state, to compare replicas with each other.
//!
//! It reads the whole state database, so a replica works on one at a time, and whoever asks meanwhile gets that one.
//! A large state takes longer than an answer may: the asker then gets a number to ask again with.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{Method, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use serde::{Deserialize, Serialize};
use tercet_raft::StateHash;

use super::AdminError;
use crate::core::Core;
use crate::peer::{Forwarded, Peer};

/// How long one answer waits for the digest: less than a peer's patience for the head of an answer.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// What is asked of `GET /admin/state-hash`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct StateHashAsked {
    /// Which member's; without it, that of the replica that is asked.
    pub member: Option<String>,
    /// The number of an earlier answer that had no digest yet.
    pub number: Option<u64>,
}

/// What a replica answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StateHashAnswer {
    /// The replica whose state it is.
    pub name: String,
    /// Its version: only equal ones can be compared.
    pub version: String,
    /// To ask again with.
    pub number: u64,
    /// `None` if it takes longer: ask again.
    pub state: Option<StateHash>,
}

type Running = Shared<BoxFuture<'static, Result<StateHash, String>>>;

/// The computation that runs, or the last one.
#[derive(Default)]
struct Computations {
    current: Mutex<(u64, Option<Running>)>,
}

impl Computations {
    /// The one with that number, the one that runs, or a new one.
    fn join(
        &self,
        number: Option<u64>,
        begin: impl FnOnce() -> BoxFuture<'static, Result<StateHash, String>>,
    ) -> (u64, Running) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, running) = &mut *current;
        if let Some(running) = running
            && (running.peek().is_none() || number == Some(*last))
        {
            return (*last, running.clone());
        }
        let new = begin().shared();
        // It goes on when whoever has asked goes away, so that it is over some time.
        tokio::spawn(new.clone());
        *last += 1;
        *running = Some(new.clone());
        (*last, new)
    }
}

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new()
        .route("/admin/state-hash", get(state_hash))
        .layer(Extension(Arc::new(Computations::default())))
}

async fn state_hash(
    State(core): State<Arc<Core>>,
    Extension(computations): Extension<Arc<Computations>>,
    Query(asked): Query<StateHashAsked>,
    forwarded: Option<Extension<Forwarded>>,
) -> Result<Response, AdminError> {
    let own = core.consensus.identity().name.clone();
    if let Some(member) = asked.member.filter(|member| *member != own) {
        if forwarded.is_some() {
            return Err(AdminError::unavailable(format!("this is {own}, not {member}")));
        }
        return ask_member(&core, &member, asked.number).await;
    }
    let (number, running) = computations.join(asked.number, || {
        let core = Arc::clone(&core);
        async move { core.consensus.state_hash().await.map_err(|error| error.to_string()) }.boxed()
    });
    let state = match tokio::time::timeout(ANSWER_WAIT, running).await {
        Err(_) => None,
        Ok(Ok(state)) => Some(state),
        Ok(Err(error)) => return Err(AdminError::unavailable(error)),
    };
    let version = crate::VERSION.to_owned();
    Ok(Json(StateHashAnswer { name: own, version, number, state }).into_response())
}

/// Passes the question on: whoever reaches one replica reaches all.
async fn ask_member(core: &Core, name: &str, number: Option<u64>) -> Result<Response, AdminError> {
    let members = core.consensus.members();
    let member = members.iter().find(|member| member.name == name).ok_or_else(|| {
        AdminError::not_found(format!("{name} is no member of this cluster"))
            .hint("`tercet member list` shows who is")
    })?;
    let number = number.map_or_else(String::new, |number| format!("&number={number}"));
    let request = Request::builder()
        .method(Method::GET)
        .uri(format!("/admin/state-hash?member={name}{number}"))
        .body(Body::empty())
        .map_err(|error| AdminError::internal(error.to_string()))?;
    let answered = core.peers.administer(&Peer::from(member), request).await;
    answered.map_err(|error| AdminError::unavailable(error.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use std::sync::atomic::{AtomicU64, Ordering};

    use tercet_storage::{Algorithm, Digest};
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn one_runs_at_a_time_and_is_shared() {
        let computations = Computations::default();
        let (begun, end) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
        let begin = || {
            let (begun, end) = (Arc::clone(&begun), Arc::clone(&end));
            move || {
                async move {
                    let applied = begun.fetch_add(1, Ordering::SeqCst) + 1;
                    end.notified().await;
                    let digest = Digest::of(Algorithm::Sha256, b"");
                    Ok(StateHash { applied, term: 1, digest, tables: Vec::new() })
                }
                .boxed()
            }
        };
        let (first, one) = computations.join(None, begin());
        let (second, two) = computations.join(None, begin());
        assert_eq!((first, second), (1, 1));
        end.notify_one();
        assert_eq!(one.await.unwrap().applied, 1);
        assert_eq!(two.await.unwrap().applied, 1);
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        // Whoever was told to come back gets what he waited for; anybody else a new one.
        let (again, old) = computations.join(Some(1), begin());
        assert_eq!((again, old.await.unwrap().applied), (1, 1));
        let (third, new) = computations.join(None, begin());
        assert_eq!(third, 2);
        end.notify_one();
        assert_eq!(new.await.unwrap().applied, 2);
        // A number of before is of no use any more.
        let (fourth, newest) = computations.join(Some(1), begin());
        assert_eq!(fourth, 3);
        end.notify_one();
        assert_eq!(newest.await.unwrap().applied, 3);
    }
}

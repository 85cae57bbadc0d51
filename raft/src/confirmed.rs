//! What each replica has confirmed to the others, so that one whose disk has forgotten it is found out.
//!
//! Raft rests on disks that keep what was confirmed: an entry that is synced, a vote that was given. A replica on an
//! older copy of its disk, a restored snapshot of a volume for instance, can vote for somebody who lacks what only it
//! and one other had. Nothing on that disk tells. The others may: each remembers, as long as it runs, the last that
//! each replica confirmed to it, and a replica that starts asks them before it takes part.
//!
//! An honest disk is never refused, by two rules. What is noted was on the disk when its owner said so. And nothing that is
//! noted for a leader is ever cut off under that leader's vote: so a vote notes no log, since whoever wins may replace its end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::RaftError;
use crate::feature::LEVEL_OF_CONFIRMATIONS;
use crate::identity::Identity;
use crate::machine::State;
use crate::network::{Hello, RpcKind, Target, Transport, decode_answer, encode_message};
use crate::type_config::NodeId;
use crate::type_config::alias::{LeaderId, LogId};

/// How long another replica may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);

/// How far a replica has come: for whom it voted or whom it followed, and the end of its log as it was synced then.
/// What a replica confirms never gets less in this order: votes go up, and under one leader a log only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Confirmed {
    /// A term and who leads in it, or stands for election. In openraft a second one of the same term may come after
    /// it, if its id is greater.
    pub(crate) leader: LeaderId,
    pub(crate) log: Option<LogId>,
}

impl fmt::Display for Confirmed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.log {
            Some(id) => write!(
                f,
                "a vote for {} in term {} with the log up to {} (of term {})",
                self.leader.node_id, self.leader.term, id.index, id.leader_id.term
            ),
            None => write!(f, "a vote for {} in term {}", self.leader.node_id, self.leader.term),
        }
    }
}

/// What the others have confirmed to this replica since it started. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Confirmations {
    /// One for each id that was ever a member since then.
    last: Arc<Mutex<BTreeMap<NodeId, Confirmed>>>,
}

impl Confirmations {
    /// This replica has just said, or shown, that so much is on its disk.
    pub(crate) fn note(&self, replica: NodeId, confirmed: Confirmed) {
        let mut last = self.lock();
        let known = last.entry(replica).or_insert(confirmed);
        *known = confirmed.max(*known);
    }

    /// The last it has confirmed here.
    pub(crate) fn of(&self, replica: NodeId) -> Option<Confirmed> {
        self.lock().get(&replica).copied()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Confirmed>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far this replica's own log is synced, for those whom it leads. Clones share it.
#[derive(Clone)]
pub(crate) struct OwnLog(Arc<OwnLogShared>);

struct OwnLogShared {
    synced: OnceLock<Synced>,
    /// Asked once whether the others understand: the database must not stay open for whoever sends.
    state: Weak<State>,
    /// They do. The level never falls.
    understood: AtomicBool,
}

/// The last flush, once Raft runs.
type Synced = Box<dyn Fn() -> Option<Confirmed> + Send + Sync>;

impl OwnLog {
    pub(crate) fn new(state: &Arc<State>) -> Self {
        Self(Arc::new(OwnLogShared {
            synced: OnceLock::new(),
            state: Arc::downgrade(state),
            understood: AtomicBool::new(false),
        }))
    }

    /// From now on it is known.
    pub(crate) fn follow(&self, synced: Synced) {
        // Once in the life of a replica.
        let _ = self.0.synced.set(synced);
    }

    /// What was synced under this vote.
    pub(crate) fn synced_under(&self, leader: LeaderId) -> Option<LogId> {
        if !self.is_understood() {
            return None;
        }
        self.0.synced.get()?().filter(|synced| synced.leader == leader)?.log
    }

    fn is_understood(&self) -> bool {
        if self.0.understood.load(Ordering::Relaxed) {
            return true;
        }
        let level = self.0.state.upgrade().map(|state| state.read(|meta| meta.feature_level()));
        let Some(Ok(Ok(Some(record)))) = level else { return false };
        let understood = record.level >= LEVEL_OF_CONFIRMATIONS;
        self.0.understood.store(understood, Ordering::Relaxed);
        understood
    }
}

/// Asks the replicas at these addresses what this one has confirmed to them. Who does not answer, or does not know the
/// question, says nothing.
///
/// # Errors
/// [`RaftError::Outdated`] if it was more than `own`, which is what this disk says.
pub(crate) async fn refuse_outdated(
    identity: &Identity,
    own: Confirmed,
    addresses: BTreeSet<String>,
    transport: &Arc<dyn Transport>,
) -> Result<(), RaftError> {
    let questions = addresses.iter().map(|address| async move {
        let asked = tokio::time::timeout(ANSWER_DEADLINE, ask(identity, address, transport));
        asked.await.ok().flatten().ok_or(address)
    });
    let answers = futures_util::future::join_all(questions).await;
    let silent: Vec<&String> =
        answers.iter().filter_map(|answer| answer.as_ref().err().copied()).collect();
    if !silent.is_empty() {
        tracing::info!(from = ?silent, "no answer to what this replica has confirmed");
    }
    let most =
        answers.into_iter().flatten().filter_map(|(name, confirmed)| Some((name, confirmed?)));
    let most = most.max_by_key(|(_, confirmed)| *confirmed);
    match most {
        Some((witness, confirmed)) if confirmed > own => Err(RaftError::Outdated {
            witness,
            confirmed: confirmed.to_string(),
            own: own.to_string(),
        }),
        _ => Ok(()),
    }
}

/// Who answers, and what it remembers.
async fn ask(
    identity: &Identity,
    address: &str,
    transport: &Arc<dyn Transport>,
) -> Option<(String, Option<Confirmed>)> {
    let Hello { name, cluster_id, node_id, .. } =
        transport.hello(address, ANSWER_DEADLINE).await.ok()?;
    if cluster_id.as_ref() != Some(&identity.cluster_id) {
        return None;
    }
    let node_id = node_id.filter(|node_id| *node_id != identity.node_id)?;
    let target = Target { node_id, name: name.clone(), address: address.to_owned() };
    let question = encode_message(RpcKind::Confirmed, &identity.node_id).ok()?;
    let answer =
        transport.call(&target, RpcKind::Confirmed, question, ANSWER_DEADLINE).await.ok()?;
    Some((name, decode_answer(RpcKind::Confirmed, &answer).ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use bytes::Bytes;
    use futures_util::future::BoxFuture;
    use futures_util::stream::BoxStream;
    use openraft::raft::AppendEntriesRequest;
    use tercet_storage::Schema;
    use tercet_storage::codec::Envelope;

    use super::*;
    use crate::network::{
        AppendMessage, Invitation, TransportError, decode_append, decode_message, encode_answer,
        encode_append,
    };
    use crate::type_config::TypeConfig;
    use crate::type_config::alias::Vote;

    fn leader(term: u64) -> LeaderId {
        LeaderId { term, node_id: 1 }
    }

    fn confirmed(term: u64, log: Option<(u64, u64)>) -> Confirmed {
        let log = log.map(|(term, index)| LogId { leader_id: leader(term), index });
        Confirmed { leader: leader(term), log }
    }

    #[test]
    fn the_most_is_remembered_in_the_order_of_raft() {
        let rising = [
            confirmed(1, None),
            confirmed(1, Some((1, 9))),
            // A vote.
            confirmed(2, None),
            // The new leader has replaced the end of the log.
            confirmed(2, Some((1, 4))),
            confirmed(2, Some((2, 5))),
            confirmed(2, Some((2, 6))),
            // Another leader of that term.
            Confirmed { leader: LeaderId { term: 2, node_id: 3 }, log: None },
        ];
        assert!(rising.is_sorted());
        let confirmations = Confirmations::default();
        for one in rising {
            confirmations.note(7, one);
            assert_eq!(confirmations.of(7), Some(one));
        }
        for one in rising {
            confirmations.note(7, one);
            assert_eq!(confirmations.of(7), rising.last().copied());
        }
        assert_eq!(confirmations.of(8), None);
    }

    /// Others by address: who they are, and what they remember of node 7; nobody answers elsewhere.
    struct Others(BTreeMap<&'static str, (&'static str, Option<Confirmed>)>);

    impl Transport for Others {
        fn call(
            &self,
            target: &Target,
            _: RpcKind,
            body: Bytes,
            _: Duration,
        ) -> BoxFuture<'_, Result<Bytes, TransportError>> {
            assert_eq!(decode_message::<NodeId>(RpcKind::Confirmed, &body).unwrap(), 7);
            let (_, confirmed) = self.0[target.address.as_str()];
            Box::pin(async move { Ok(encode_answer(RpcKind::Confirmed, &confirmed).unwrap()) })
        }

        fn hello(
            &self,
            address: &str,
            _: Duration,
        ) -> BoxFuture<'_, Result<Hello, TransportError>> {
            let other = self.0.get(address).copied();
            let name = address.to_owned();
            Box::pin(async move {
                let (cluster_id, _) = other.ok_or(TransportError::NotSent("refused".to_owned()))?;
                let cluster_id = Some(cluster_id.to_owned());
                Ok(Hello { name, cluster_id, node_id: Some(8), feature_level: 2 })
            })
        }

        fn send_snapshot(
            &self,
            _: &Target,
            _: BoxStream<'static, std::io::Result<Bytes>>,
            _: Duration,
        ) -> BoxFuture<'_, Result<Bytes, TransportError>> {
            unreachable!("nobody sends a snapshot")
        }

        fn invite(
            &self,
            _: &str,
            _: &Invitation,
            _: Duration,
        ) -> BoxFuture<'_, Result<(), TransportError>> {
            unreachable!("nobody invites")
        }
    }

    #[tokio::test]
    async fn a_disk_is_refused_if_one_of_its_cluster_has_seen_more() {
        let identity = Identity { node_id: 7, ..Identity::join("seven", "ours", 0) };
        let own = confirmed(2, Some((2, 5)));
        let check = async |others: &[(&'static str, (&'static str, Option<Confirmed>))]| {
            let transport: Arc<dyn Transport> = Arc::new(Others(others.iter().copied().collect()));
            let addresses = ["a", "b", "silent"].map(str::to_owned).into();
            refuse_outdated(&identity, own, addresses, &transport).await
        };
        let (less, more) = (confirmed(2, Some((2, 4))), confirmed(2, Some((2, 6))));
        assert!(check(&[]).await.is_ok(), "nobody answers");
        assert!(check(&[("a", ("ours", None)), ("b", ("ours", Some(less)))]).await.is_ok());
        assert!(check(&[("a", ("ours", Some(own)))]).await.is_ok());
        assert!(check(&[("a", ("another", Some(more)))]).await.is_ok());
        let refused = check(&[("a", ("ours", Some(less))), ("b", ("ours", Some(more)))]).await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("`b`") && refused.contains("up to 6"), "{refused}");
        // A vote alone is enough.
        assert!(check(&[("a", ("ours", Some(confirmed(3, None))))]).await.is_err());
    }

    #[test]
    fn an_append_without_a_claim_is_what_feature_level_1_reads() {
        let request = AppendEntriesRequest::<TypeConfig> {
            vote: Vote { leader_id: leader(2), committed: true },
            prev_log_id: Some(LogId { leader_id: leader(1), index: 3 }),
            entries: Vec::new(),
            leader_commit: None,
        };
        let plain = AppendMessage { request, synced: None };
        let bytes = encode_append(&plain).unwrap();
        let read: AppendEntriesRequest<TypeConfig> =
            Envelope::open(Schema { id: 201, version: 1, name: "append" }, &bytes)
                .unwrap()
                .decode()
                .unwrap();
        assert_eq!(read.prev_log_id, plain.request.prev_log_id);
        assert_eq!(decode_append(&bytes).unwrap().synced, None);
        let claim = Some(LogId { leader_id: leader(2), index: 9 });
        let bytes = encode_append(&AppendMessage { synced: claim, ..plain }).unwrap();
        let read = decode_append(&bytes).unwrap();
        assert_eq!((read.synced, read.request.vote.leader_id), (claim, leader(2)));
    }
}

//! Kill the founding of a new cluster at every step: what is left starts under the old identity with the
//! old state, or under the new one with the new, or not at all; and running it again finishes.
//!
//! The parent runs this test binary again as a child with `TERCET_FAILPOINT` set, as `crash.rs` does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use futures_util::stream;
use openraft::entry::RaftEntry as _;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::{EntryPayload, LogId, Membership, RaftLogReader, Vote};
use tercet_raft::stores::{LogStore, Machine, REFOUND_FAILPOINTS, TypeConfig};
use tercet_raft::{
    Command as RaftCommand, Evidence, Founder, Identity, Proposal, RaftError, ReplicaNode,
    SurvivingLog, Survivor, resume,
};
use tercet_storage::{Algorithm, DataDir, Digest};
use tokio::sync::mpsc;

type Entry = openraft::alias::EntryOf<TypeConfig>;
type LeaderId = openraft::alias::LeaderIdOf<TypeConfig>;

const CHILD_DIR: &str = "TERCET_REFOUND_CHILD_DIR";
const OLD_ID: u64 = 11;
const OTHER_ID: u64 = 22;
const TERM: u64 = 3;
/// The membership is entry 1, blobs are the rest.
const LAST: u64 = 9;
const APPLIED: u64 = 5;
const COMMITTED: u64 = 7;

#[test]
fn a_crash_at_any_step_leaves_the_old_or_the_new_and_never_a_mixture() {
    for failpoint in REFOUND_FAILPOINTS {
        for occurrence in [1, 2] {
            let dir = tempfile::tempdir().unwrap();
            let old = block_on(make_survivor(dir.path()));
            let armed = format!("{failpoint}:{occurrence}");
            let crashed = !run_child(dir.path(), Some(&armed)).success();
            assert!(crashed || occurrence > 1, "{failpoint} was never reached");
            if crashed {
                block_on(check_crashed(dir.path(), &old, &armed));
            }
            assert!(run_child(dir.path(), None).success(), "cannot finish after {armed}");
            block_on(check_done(dir.path(), &old, &armed));
        }
    }
}

/// The child's side: does nothing unless the parent asks.
#[test]
fn refound_child() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let data = DataDir::new(PathBuf::from(dir));
    let founder =
        Founder { name: "b".into(), address: "http://b".into(), now_ms: 1_700_000_000_000 };
    block_on(async {
        let _lock = data.lock().unwrap();
        // The parent does not stop us once the new cluster is founded: that is the end of it.
        if Identity::load(&data).is_ok_and(|identity| identity.unwrap().node_id != OLD_ID) {
            return;
        }
        if resume(&data, &founder.name).unwrap().is_some() {
            return;
        }
        let survivor = Survivor::open(&data).await.unwrap();
        survivor.refound(&founder, SurvivingLog::Apply, Evidence::Keep, &[]).await.unwrap();
    });
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(work)
}

fn run_child(dir: &Path, failpoint: Option<&str>) -> std::process::ExitStatus {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "refound_child", "--nocapture"]).env(CHILD_DIR, dir);
    child.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    match failpoint {
        Some(failpoint) => child.env("TERCET_FAILPOINT", failpoint),
        None => child.env_remove("TERCET_FAILPOINT"),
    };
    child.status().unwrap()
}

/// One of two replicas: it has applied less than it knows to be committed, and has entries beyond that.
async fn make_survivor(dir: &Path) -> Identity {
    let data = DataDir::new(dir);
    let identity = Identity { node_id: OLD_ID, ..Identity::join("b", &"c".repeat(32), 1) };
    identity.store(&data).unwrap();
    let mut log = LogStore::open(&data.log()).unwrap();
    let mut machine = Machine::open(&data, mpsc::channel(64).0).unwrap();
    log.save_vote(&Vote { leader_id: leader(), committed: true }).await.unwrap();
    log.blocking_append((1..=LAST).map(entry)).await.unwrap();
    log.save_committed(Some(LogId::new(leader(), COMMITTED))).await.unwrap();
    machine.apply(stream::iter((1..=APPLIED).map(|i| Ok((entry(i), None))))).await.unwrap();
    identity
}

async fn check_crashed(dir: &Path, old: &Identity, context: &str) {
    let data = DataDir::new(dir);
    match Identity::load(&data) {
        Ok(Some(identity)) if identity == *old => {
            let (applied, members) = state(&data).await;
            assert_eq!(applied, APPLIED, "{context}: the old identity has another state");
            assert_eq!(members, BTreeSet::from([OLD_ID, OTHER_ID]), "{context}");
            assert!(!retired(&data, OTHER_ID), "{context}");
        }
        Ok(Some(identity)) => {
            assert_eq!(context.split(':').next(), Some("refound.after_identity"));
            assert_ne!(identity.cluster_id, old.cluster_id, "{context}");
        }
        Ok(None) => panic!("{context}: the directory looks empty, and would be cleared"),
        Err(error) => assert!(matches!(error, RaftError::Unfinished { .. }), "{context}: {error}"),
    }
}

async fn check_done(dir: &Path, old: &Identity, context: &str) {
    let data = DataDir::new(dir);
    let identity = Identity::load(&data).unwrap().unwrap();
    assert_ne!(identity.node_id, old.node_id, "{context}");
    assert_ne!(identity.cluster_id, old.cluster_id, "{context}");
    assert!(!identity.founder, "{context}");
    let (applied, members) = state(&data).await;
    assert_eq!(applied, LAST, "{context}: entries of the log were left out");
    assert_eq!(members, BTreeSet::from([identity.node_id]), "{context}");
    assert!(retired(&data, OLD_ID) && retired(&data, OTHER_ID), "{context}");
    let mut log = LogStore::open(&data.log()).unwrap();
    let positions = log.get_log_state().await.unwrap();
    assert_eq!(positions.last_purged_log_id, Some(LogId::new(leader(), LAST)), "{context}");
    assert_eq!(positions.last_log_id, positions.last_purged_log_id, "{context}");
    let vote = log.get_log_reader().await.read_vote().await.unwrap().unwrap();
    assert_eq!(vote.leader_id.node_id, identity.node_id, "{context}");
    assert!(vote.leader_id.term > TERM, "{context}");
    // The evidence is a replica of the old cluster, exactly as it was.
    let evidence = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let evidence: Vec<PathBuf> = evidence
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("before-recovery-"))
        .collect();
    assert_eq!(evidence.len(), 1, "{context}");
    let evidence = DataDir::new(&evidence[0]);
    assert_eq!(Identity::load(&evidence).unwrap().as_ref(), Some(old), "{context}");
    assert_eq!(state(&evidence).await.0, APPLIED, "{context}");
}

async fn state(data: &DataDir) -> (u64, BTreeSet<u64>) {
    let mut machine = Machine::open(data, mpsc::channel(64).0).unwrap();
    let (applied, membership) = machine.applied_state().await.unwrap();
    let applied = applied.unwrap().index;
    for index in 2..=applied {
        let found = machine.read(|meta| meta.blob(&digest(index))).unwrap().unwrap();
        assert!(found.is_some(), "the blob of entry {index} is missing");
    }
    (applied, membership.membership().nodes().map(|(id, _)| *id).collect())
}

fn retired(data: &DataDir, id: u64) -> bool {
    let machine = Machine::open(data, mpsc::channel(64).0).unwrap();
    machine.read(|meta| meta.retired(id)).unwrap().unwrap()
}

fn leader() -> LeaderId {
    LeaderId { term: TERM, node_id: OTHER_ID }
}

fn digest(index: u64) -> Digest {
    Digest::of(Algorithm::Sha256, index.to_string().as_bytes())
}

fn entry(index: u64) -> Entry {
    let payload = if index == 1 {
        let node = |name: &str| ReplicaNode {
            name: name.into(),
            address: format!("http://{name}"),
            ..ReplicaNode::default()
        };
        let nodes = BTreeMap::from([(OTHER_ID, node("a")), (OLD_ID, node("b"))]);
        let voters = vec![BTreeSet::from([OLD_ID, OTHER_ID])];
        EntryPayload::Membership(Membership::new(voters, nodes).unwrap())
    } else {
        let command = RaftCommand::BlobCommitted {
            digest: digest(index),
            size: index.to_string().len() as u64,
            repository: "crash/test".parse().unwrap(),
        };
        EntryPayload::Normal(Proposal { at_ms: index, command })
    };
    Entry::new(LogId::new(leader(), index), payload)
}

//! Kill the stores at every write, fsync and rename, open them again, and compare with what had been
//! acknowledged.
//!
//! The parent runs this test binary again as a child with `TERCET_FAILPOINT` set. The child works on
//! the stores and notes each acknowledgement in a file; the process aborts at the failpoint; the
//! parent opens the stores and looks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use futures_util::stream;
use openraft::entry::RaftEntry as _;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::{EntryPayload, LogId, Membership, RaftLogReader, RaftSnapshotBuilder, Vote};
use tercet_raft::stores::{FAILPOINTS, LogStore, Machine, SnapshotDir, TypeConfig};
use tercet_raft::{Command as RaftCommand, MemberKind, Proposal, ReplicaNode};
use tercet_storage::{Algorithm, DataDir, Digest};
use tokio::sync::mpsc;

type Entry = openraft::alias::EntryOf<TypeConfig>;
type LeaderId = openraft::alias::LeaderIdOf<TypeConfig>;
type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotDir>;

const ROUNDS: u64 = 3;
const ENTRIES_PER_ROUND: u64 = 4;
const CHILD_DIR: &str = "TERCET_CRASH_CHILD_DIR";

#[test]
fn acknowledged_writes_survive_a_crash_at_every_failpoint() {
    for failpoint in FAILPOINTS {
        for occurrence in [1, 3] {
            let dir = tempfile::tempdir().unwrap();
            let status = run_child(dir.path(), Some(&format!("{failpoint}:{occurrence}")));
            assert!(!status.success(), "{failpoint}:{occurrence} was never reached");
            check(dir.path(), &format!("{failpoint}:{occurrence}"));
            // What the crash left must also be good enough to go on with.
            assert!(run_child(dir.path(), None).success(), "cannot go on after {failpoint}");
            check(dir.path(), &format!("after {failpoint}:{occurrence}"));
        }
    }
}

#[test]
fn without_a_crash_everything_is_there() {
    let dir = tempfile::tempdir().unwrap();
    assert!(run_child(dir.path(), None).success());
    let acknowledged = check(dir.path(), "no crash");
    assert_eq!(acknowledged.entry, Some(ROUNDS * ENTRIES_PER_ROUND));
}

/// The child's side: does nothing unless the parent asks.
#[test]
fn crash_child() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(work(&PathBuf::from(dir)));
}

fn run_child(dir: &Path, failpoint: Option<&str>) -> std::process::ExitStatus {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "crash_child", "--nocapture"]).env(CHILD_DIR, dir);
    child.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    match failpoint {
        Some(failpoint) => child.env("TERCET_FAILPOINT", failpoint),
        None => child.env_remove("TERCET_FAILPOINT"),
    };
    child.status().unwrap()
}

struct Stores {
    log: LogStore,
    machine: Machine,
    /// A second replica that gets everything by snapshot.
    follower: Machine,
    follower_data: DataDir,
}

fn open(dir: &Path) -> Stores {
    let data = DataDir::new(dir.join("leader"));
    let follower_data = DataDir::new(dir.join("follower"));
    for data in [&data, &follower_data] {
        fs::create_dir_all(data.root()).unwrap();
    }
    Stores {
        log: LogStore::open(&data.log()).expect("open the log"),
        machine: Machine::open(&data, mpsc::channel(1024).0).expect("open the state"),
        follower: Machine::open(&follower_data, mpsc::channel(1024).0).expect("open the follower"),
        follower_data,
    }
}

/// Votes, appends, truncates, applies, snapshots, purges and installs, in rounds that can be resumed.
async fn work(dir: &Path) {
    let mut stores = open(dir);
    let mut acks = Acks::open(dir);
    // As a new leader would, take back what was never acknowledged before going on.
    let start = Acknowledged::read(dir).entry.unwrap_or(0);
    let kept = (start > 0).then(|| LogId::new(leader(start.div_ceil(ENTRIES_PER_ROUND)), start));
    stores.log.truncate_after(kept).await.unwrap();
    for index in (start + 1)..=(ROUNDS * ENTRIES_PER_ROUND) {
        let term = index.div_ceil(ENTRIES_PER_ROUND);
        let vote = Vote { leader_id: leader(term), committed: true };
        stores.log.save_vote(&vote).await.unwrap();
        acks.note("vote", term);
        if index.is_multiple_of(ENTRIES_PER_ROUND) {
            // An entry that a new leader takes back before the right one comes.
            stores.log.blocking_append([entry(index, "wrong")]).await.unwrap();
            let previous = LogId::new(leader((index - 1).div_ceil(ENTRIES_PER_ROUND)), index - 1);
            stores.log.truncate_after(Some(previous)).await.unwrap();
        }
        stores.log.blocking_append([entry(index, "right")]).await.unwrap();
        acks.note("entry", index);
        apply_up_to(&mut stores, index).await;
        acks.note("applied", index);
        if index.is_multiple_of(ENTRIES_PER_ROUND) {
            let snapshot =
                stores.machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
            let last = snapshot.meta.last_log_id.unwrap();
            stores.log.purge(last).await.unwrap();
            install(&mut stores, snapshot).await;
            acks.note("installed", last.index);
        }
    }
}

async fn apply_up_to(stores: &mut Stores, index: u64) {
    let applied = stores.machine.applied_state().await.unwrap().0.map_or(0, |id| id.index);
    let entries =
        stores.log.get_log_reader().await.try_get_log_entries(applied + 1..=index).await.unwrap();
    let entries = entries.into_iter().map(|entry| Ok((entry, None)));
    stores.machine.apply(stream::iter(entries)).await.unwrap();
}

async fn install(stores: &mut Stores, snapshot: Snapshot) {
    let incoming = stores.follower_data.snapshots().join("incoming-test");
    let _ = fs::remove_dir_all(&incoming);
    fs::create_dir_all(&incoming).unwrap();
    for file in fs::read_dir(snapshot.snapshot.path()).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), incoming.join(file.file_name())).unwrap();
    }
    let meta = snapshot.meta.clone();
    stores.follower.install_snapshot(&meta, SnapshotDir::new(incoming)).await.unwrap();
}

/// Opens what the child left and compares it with what the child had acknowledged.
fn check(dir: &Path, context: &str) -> Acknowledged {
    let acknowledged = Acknowledged::read(dir);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut stores = open(dir);
        let vote = stores.log.get_log_reader().await.read_vote().await.unwrap();
        let term = vote.map(|vote| vote.leader_id.term);
        assert!(term >= acknowledged.vote, "{context}: vote {term:?} < {:?}", acknowledged.vote);

        let state = stores.log.get_log_state().await.unwrap();
        let last = state.last_log_id.map(|id| id.index);
        assert!(last >= acknowledged.entry, "{context}: log ends at {last:?}");
        let first = state.last_purged_log_id.map_or(1, |id| id.index + 1);
        let entries = stores.log.get_log_reader().await.try_get_log_entries(first..).await.unwrap();
        for found in &entries {
            let index = found.log_id.index;
            if Some(index) <= acknowledged.entry {
                assert_eq!(*found, entry(index, "right"), "{context}: entry {index} changed");
            }
        }

        let (applied, members) = stores.machine.applied_state().await.unwrap();
        let applied = applied.map(|id| id.index);
        assert!(applied >= acknowledged.applied, "{context}: applied {applied:?}");
        assert!(
            applied >= state.last_purged_log_id.map(|id| id.index),
            "{context}: purged too far"
        );
        let (installed, copied) = stores.follower.applied_state().await.unwrap();
        let installed = installed.map(|id| id.index);
        assert!(installed >= acknowledged.installed, "{context}: installed {installed:?}");
        let machines = [(&stores.machine, applied, members), (&stores.follower, installed, copied)];
        for (machine, up_to, members) in machines {
            let up_to = up_to.unwrap_or(0);
            for index in (1..=up_to).filter(|index| !is_membership(*index)) {
                assert!(holds(machine, index), "{context}: blob of entry {index} is missing");
            }
            let newest = (1..=up_to).rev().find(|index| is_membership(*index));
            let found = members.log_id().as_ref().map(|id| id.index);
            assert_eq!(found, newest, "{context}: another membership");
        }
    });
    acknowledged
}

fn holds(machine: &Machine, index: u64) -> bool {
    let digest = Digest::of(Algorithm::Sha256, format!("right {index}").as_bytes());
    machine.read(|meta| meta.blob(&digest)).unwrap().unwrap().is_some()
}

/// One in each round.
fn is_membership(index: u64) -> bool {
    index % ENTRIES_PER_ROUND == 2
}

fn leader(term: u64) -> LeaderId {
    LeaderId { term, node_id: 1 }
}

fn entry(index: u64, kind: &str) -> Entry {
    let content = format!("{kind} {index}");
    let command = RaftCommand::BlobCommitted {
        digest: Digest::of(Algorithm::Sha256, content.as_bytes()),
        size: content.len() as u64,
        repository: "crash/test".parse().unwrap(),
    };
    let payload = if is_membership(index) {
        let node = ReplicaNode {
            name: "replica".to_owned(),
            address: content,
            kind: MemberKind::Voter,
            zone: None,
        };
        EntryPayload::Membership(
            Membership::new(vec![BTreeSet::from([1])], BTreeMap::from([(1, node)])).unwrap(),
        )
    } else {
        EntryPayload::Normal(Proposal { at_ms: index, command })
    };
    Entry::new(LogId::new(leader(index.div_ceil(ENTRIES_PER_ROUND)), index), payload)
}

/// The child's notes. A crash of the process does not take what was written to the page cache.
struct Acks(fs::File);

impl Acks {
    fn open(dir: &Path) -> Self {
        let path = dir.join("acks");
        Self(fs::OpenOptions::new().create(true).append(true).open(path).unwrap())
    }

    fn note(&mut self, what: &str, number: u64) {
        writeln!(self.0, "{what} {number}").unwrap();
    }
}

struct Acknowledged {
    vote: Option<u64>,
    entry: Option<u64>,
    applied: Option<u64>,
    installed: Option<u64>,
}

impl Acknowledged {
    fn read(dir: &Path) -> Self {
        let notes = fs::read_to_string(dir.join("acks")).unwrap_or_default();
        let last = |what: &str| {
            notes
                .lines()
                .filter_map(|line| line.split_once(' '))
                .filter(|(kind, _)| *kind == what)
                .map(|(_, number)| number.parse().unwrap())
                .max()
        };
        Self {
            vote: last("vote"),
            entry: last("entry"),
            applied: last("applied"),
            installed: last("installed"),
        }
    }
}

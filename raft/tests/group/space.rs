//! Full disks: who refuses what, and that everything goes on by itself when there is space again.

use std::collections::HashSet;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use tercet_raft::{Command, Condition, Outcome, ProposeError, Role};

use crate::content::{put_manifest, repository, tag};
use crate::harness::{Group, HEADROOM_BYTES, VOLUME_BYTES, until};

const SCARCE: u64 = HEADROOM_BYTES / 4;
const FULL: u64 = 0;
/// Enough for a vote and for nothing else.
const EXHAUSTED: u64 = HEADROOM_BYTES / 16;

fn followers(leader: usize) -> Vec<usize> {
    (0..3).filter(|i| *i != leader).collect()
}

fn is_no_space<T: std::fmt::Debug>(result: Result<T, ProposeError>) -> bool {
    matches!(result, Err(ProposeError::NoSpace(_)))
}

/// The snapshots that a replica has now, by name.
fn snapshots(group: &Group, i: usize) -> Vec<OsString> {
    let Ok(entries) = std::fs::read_dir(group.data(i).snapshots()) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name());
    names.filter(|name| name.to_string_lossy().ends_with(".meta")).collect()
}

fn delete_tag() -> Command {
    Command::DeleteTag { repository: repository(), tag: tag() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_with_little_space_refuses_what_grows_and_takes_deletes() {
    let group = Group::start(3).await;
    put_manifest(&group.replica(0), "before", Condition::None).await.unwrap();
    let leader = group.leader().await;
    let follower = followers(leader)[0];

    group.set_free(leader, SCARCE);
    for replica in [leader, follower] {
        let put = put_manifest(&group.replica(replica), "refused", Condition::None).await;
        assert!(is_no_space(put), "through {replica}");
    }
    let deleted = group.replica(follower).propose(delete_tag()).await.unwrap();
    assert_eq!(deleted, Outcome::Done);

    group.set_free(leader, FULL);
    assert!(is_no_space(group.replica(follower).propose(delete_tag()).await));
    assert!(is_no_space(group.replica(leader).write_barrier().await));

    group.set_free(leader, VOLUME_BYTES);
    put_manifest(&group.replica(leader), "after", Condition::None).await.unwrap();
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_follower_lags_keeps_its_leader_and_catches_up() {
    let group = Group::start(3).await;
    let leader = group.leader().await;
    let full = followers(leader)[0];
    group.set_free(full, FULL);
    let term = group.replica(full).status().term;
    let before = group.replica(full).status().last_log;
    for n in 0..20 {
        put_manifest(&group.replica(leader), &format!("n{n}"), Condition::None).await.unwrap();
    }
    assert!(is_no_space(group.replica(full).write_barrier().await));
    // Longer than any election timeout: heartbeats still count.
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        let status = group.replica(full).status();
        assert_eq!(status.role, Role::Follower);
        assert_eq!(status.term, term, "an election for want of space");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(group.replica(full).status().last_log, before);

    group.set_free(full, VOLUME_BYTES);
    let newest = group.replica(leader).status().last_log;
    until("the follower has caught up", || async {
        (group.replica(full).status().applied >= newest).then_some(())
    })
    .await;
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_most_voters_are_full_writes_are_refused_for_that_reason_and_soon() {
    let group = Group::start(3).await;
    let leader = group.leader().await;
    for follower in followers(leader) {
        group.set_free(follower, FULL);
    }
    for n in 0..3 {
        let start = Instant::now();
        let put = put_manifest(&group.replica(leader), &format!("n{n}"), Condition::None).await;
        assert!(is_no_space(put), "attempt {n}");
        assert!(start.elapsed() < Duration::from_secs(4), "it waited for the deadline");
    }
    for follower in followers(leader) {
        group.set_free(follower, VOLUME_BYTES);
    }
    until("writes go on", || async {
        put_manifest(&group.replica(leader), "after", Condition::None).await.ok()
    })
    .await;
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exhausted_replicas_still_elect_a_leader_and_answer_reads() {
    let mut group = Group::start(3).await;
    put_manifest(&group.replica(0), "before", Condition::None).await.unwrap();
    // One that lacked it could not take it from the next leader.
    group.even().await;
    let leader = group.leader().await;
    for i in 0..3 {
        group.set_free(i, EXHAUSTED);
    }
    group.kill(leader).await;
    // Fresh reads need an entry of the new leader's term.
    for i in followers(leader) {
        group.settled(i).await;
        assert!(is_no_space(put_manifest(&group.replica(i), "no", Condition::None).await));
    }
    for i in 0..3 {
        group.set_free(i, VOLUME_BYTES);
    }
    group.restart(leader).await;
    put_manifest(&group.replica(leader), "after", Condition::None).await.unwrap();
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_waits_until_its_receiver_has_room() {
    let mut group = Group::start(3).await;
    let leader = group.leader().await;
    let away = followers(leader)[0];
    group.kill(away).await;
    // Whoever leads later has taken its third snapshot, and so has purged its log behind the second.
    let survivors: Vec<usize> = (0..3).filter(|i| *i != away).collect();
    let mut seen = vec![HashSet::new(); 3];
    let mut n = 0;
    while survivors.iter().any(|i| seen[*i].len() < 3) {
        assert!(n < crate::harness::ENTRIES_PER_SNAPSHOT * 20, "too few snapshots: {seen:?}");
        put_manifest(&group.replica(leader), &format!("n{n}"), Condition::None).await.unwrap();
        n += 1;
        for i in &survivors {
            seen[*i].extend(snapshots(&group, *i));
        }
    }
    // By log or by snapshot: how far the leader has purged its log by now cannot be seen from outside.
    group.set_free(away, EXHAUSTED);
    group.restart_unsettled(away).await;
    // Refused again and again, and still running.
    let end = Instant::now() + Duration::from_secs(2);
    let newest = group.replica(leader).status().last_log;
    while Instant::now() < end {
        assert!(group.replica(away).status().applied < newest);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    group.set_free(away, VOLUME_BYTES);
    until("the snapshot is installed", || async {
        (group.replica(away).status().applied >= newest).then_some(())
    })
    .await;
    group.stop().await;
}

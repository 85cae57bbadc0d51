//! What is acknowledged stays and is seen everywhere, whoever goes and comes back.

use std::time::{Duration, Instant};

use tercet_raft::{Command, Condition, Freshness, Outcome, ProposeError, Role};
use tercet_storage::{Algorithm, Digest};

use crate::content::{knows_blob, manifest_command, push_tag, put_manifest, read_tag};
use crate::harness::{ENTRIES_PER_SNAPSHOT, Group, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_write_anywhere_is_read_everywhere_at_once() {
    let group = Group::start(3).await;
    for round in 0..30_u64 {
        let writer = group.replica(round as usize % 3);
        let digest = push_tag(&writer, &format!("round {round}")).await.unwrap();
        for reader in 0..3 {
            let reader = group.replica(reader);
            assert_eq!(reader.read_barrier().await, Freshness::Fresh);
            assert_eq!(read_tag(&reader), Some(digest.clone()));
        }
    }
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn losing_the_leader_costs_nothing_acknowledged_and_writes_go_on() {
    let mut group = Group::start(3).await;
    let before = push_tag(&group.replica(0), "before").await.unwrap();
    let leader = group.leader().await;
    group.kill(leader).await;
    let survivors: Vec<usize> = (0..3).filter(|i| *i != leader).collect();
    let after = until("a write succeeds", || async {
        push_tag(&group.replica(survivors[0]), "after").await.ok()
    })
    .await;
    for survivor in &survivors {
        let replica = group.replica(*survivor);
        until("fresh again", || async {
            (replica.read_barrier().await == Freshness::Fresh).then_some(())
        })
        .await;
        assert_eq!(read_tag(&replica), Some(after.clone()));
        assert!(knows_blob(&replica, &before));
    }
    group.restart(leader).await;
    until("the old leader has caught up", || async {
        (read_tag(&group.replica(leader)) == Some(after.clone())).then_some(())
    })
    .await;
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_reads_are_stale_and_writes_are_refused_in_time() {
    let mut group = Group::start(3).await;
    let pushed = push_tag(&group.replica(0), "pushed").await.unwrap();
    until("all have it", || async {
        (0..3).all(|i| read_tag(&group.replica(i)) == Some(pushed.clone())).then_some(())
    })
    .await;
    group.kill(0).await;
    group.kill(1).await;
    let last = group.replica(2);
    let asked = Instant::now();
    // A leader that has answered within the last 200 ms is trusted still; what is proposed then is refused by itself.
    let refused = until("a write is refused", || async { last.write_barrier().await.err() }).await;
    assert!(matches!(refused, ProposeError::Unavailable(_)), "{refused:?}");
    assert!(asked.elapsed() < Duration::from_secs(5), "refused after {:?}", asked.elapsed());
    assert_eq!(last.read_barrier().await, Freshness::Stale);
    let asked = Instant::now();
    assert_eq!(last.read_barrier().await, Freshness::Stale);
    assert!(asked.elapsed() < Duration::from_millis(100), "a known stale replica must not wait");
    assert_eq!(read_tag(&last), Some(pushed));
    group.restart(0).await;
    until("fresh again", || async {
        (last.read_barrier().await == Freshness::Fresh).then_some(())
    })
    .await;
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_replica_returns_under_a_new_id_and_the_old_id_is_refused() {
    let mut group = Group::start(3).await;
    push_tag(&group.replica(0), "kept").await.unwrap();
    let old = group.replica(1).identity().clone();
    group.kill(1).await;
    group.wipe(1).await;
    group.restart(1).await;
    let new_id = group.replica(1).identity().node_id;
    assert_ne!(new_id, old.node_id);
    until("the new disk votes and the old id is gone", || async {
        let members = group.replica(0).members();
        let ids: Vec<u64> = members.iter().map(|member| member.node_id).collect();
        let voter = members.iter().any(|m| m.node_id == new_id && m.role != Role::Learner);
        (voter && !ids.contains(&old.node_id) && members.len() == 3).then_some(())
    })
    .await;
    // The old identity, restored by hand onto an otherwise fresh disk.
    group.kill(1).await;
    group.wipe(1).await;
    let data = group.data(1);
    drop(tercet_raft::stores::LogStore::open(&data.log()).unwrap());
    old.store(&data).unwrap();
    group.restart_unsettled(1).await;
    let refusal = until("it is refused", || async { group.replica(1).status().refused }).await;
    assert!(refusal.contains("retired"), "{refusal}");
    group.stop().await;
}

/// The dead predecessor used to count among the five, so its successor stayed a learner for ever.
#[tokio::test(flavor = "multi_thread")]
async fn with_five_voters_a_wiped_replica_still_gets_its_vote_back() {
    let mut group = Group::start(5).await;
    let old_id = group.replica(4).identity().node_id;
    group.kill(4).await;
    group.wipe(4).await;
    group.restart(4).await;
    let new_id = group.replica(4).identity().node_id;
    until("five voters, the old id not among them", || async {
        let members = group.replica(0).members();
        let voters = members.iter().filter(|member| member.role != Role::Learner).count();
        let ids: Vec<u64> = members.iter().map(|member| member.node_id).collect();
        (voters == 5 && ids.contains(&new_id) && !ids.contains(&old_id)).then_some(())
    })
    .await;
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_behind_the_purged_log_catches_up_by_snapshot() {
    let mut group = Group::start(3).await;
    group.kill(2).await;
    for round in 0..ENTRIES_PER_SNAPSHOT {
        push_tag(&group.replica(0), &format!("round {round}")).await.unwrap();
    }
    let last = push_tag(&group.replica(1), "last").await.unwrap();
    group.restart(2).await;
    let returned = group.replica(2);
    until("it has everything", || async {
        (read_tag(&returned) == Some(last.clone())).then_some(())
    })
    .await;
    assert!(returned.take_rescan(), "it must have come by snapshot: the log was purged");
    // What came by snapshot must carry on as a log does.
    drop(returned);
    group.kill(2).await;
    group.restart(2).await;
    assert_eq!(read_tag(&group.replica(2)), Some(last));
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compare_and_swap_lets_exactly_one_of_many_writers_win() {
    let group = Group::start(3).await;
    let attempts = (0..12).map(|writer| {
        let replica = group.replica(writer % 3);
        async move {
            let content = format!("writer {writer}");
            put_manifest(&replica, &content, Condition::IfNoneMatchAny).await.unwrap().1
        }
    });
    let outcomes = futures_util::future::join_all(attempts).await;
    let won = outcomes.iter().filter(|outcome| **outcome == Outcome::Done).count();
    assert_eq!(won, 1, "{outcomes:?}");
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_names_what_the_repository_lacks_is_refused() {
    let group = Group::start(1).await;
    let replica = group.replica(0);
    let missing = Digest::of(Algorithm::Sha256, b"never pushed");
    let mut command = manifest_command("incomplete", Condition::None).1;
    if let Command::PutManifest { summary, .. } = &mut command {
        summary.references.push(tercet_storage::ManifestReference {
            digest: missing.clone(),
            size: 1,
            kind: tercet_storage::ReferenceKind::Blob,
        });
    }
    let outcome = replica.propose(command).await.unwrap();
    assert_eq!(outcome, Outcome::MissingReferences(vec![missing]));
    assert_eq!(read_tag(&replica), None);
    group.stop().await;
}

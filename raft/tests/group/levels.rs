//! Feature levels: nothing is written that a member cannot read.

use std::time::Duration;

use tercet_raft::{Command, Force, Leaving, MemberKind, Outcome, ProposeError, Role};

use crate::content::{push_tag, read_tag};
use crate::harness::{Group, Spec, name, until};
use crate::members::raised;

fn old() -> Spec {
    Spec { feature_level: 1, ..Spec::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_old_member_holds_the_level_back_until_it_is_upgraded() {
    let zoned = |i: usize| Spec { zone: Some(format!("zone-{i}")), ..Spec::default() };
    let mut group = Group::start_as(3, |i| if i == 2 { old() } else { zoned(i) }).await;
    let leader = group.replica(group.leader().await);
    push_tag(&leader, "old and new work together").await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(leader.feature_level(), 1);
    assert!(leader.members().iter().all(|member| member.zone.is_none()));
    let id = leader.identity().node_id;
    let command = Command::SetLeaving {
        name: leader.identity().name.clone(),
        node_id: id,
        leaving: Leaving::Yes,
    };
    let refused = leader.propose(command).await.unwrap_err();
    assert!(matches!(refused, ProposeError::FeatureLevel { needed: 2, current: 1 }), "{refused}");
    let refused = leader.remove_member(&name(1), Force::No).await.unwrap_err();
    assert!(refused.to_string().contains("feature level 2") || refused.retry(), "{refused}");
    // An edge cannot be written down yet: it waits outside, and is not made a voter meanwhile.
    let edge = group.add(Spec { kind: MemberKind::Edge, ..Spec::default() }).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!leader.members().iter().any(|member| member.name == name(edge)));
    drop(leader);

    group.kill(2).await;
    group.set_spec(2, zoned(2));
    group.restart(2).await;
    until("the level is raised", || async {
        group.all().iter().all(|i| group.replica(*i).feature_level() == 2).then_some(())
    })
    .await;
    until("zones and the edge are written down", || async {
        let members = group.replica(0).members();
        let zones = members.iter().filter(|member| member.zone.is_some()).count();
        let edges = members.iter().filter(|member| member.kind == MemberKind::Edge);
        (zones == 3 && edges.filter(|edge| edge.role == Role::Learner).count() == 1).then_some(())
    })
    .await;
    // The way back is closed: an old binary says why and does not start.
    for i in [2, 0] {
        group.kill(i).await;
        group.set_spec(i, old());
        let error = group.start_error(i).await;
        assert!(error.contains("TERCET-M11") && error.contains("0.2.0"), "{error}");
        group.set_spec(i, zoned(i));
        group.restart(i).await;
    }
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_joiner_is_refused_and_says_which_version_it_needs() {
    let mut group = Group::start(3).await;
    raised(&group).await;
    let i = group.add(old()).await;
    let refusal = until("it is refused", || async { group.replica(i).status().refused }).await;
    assert!(refusal.contains("TERCET-M03") && refusal.contains("0.2.0"), "{refusal}");
    let members = group.replica(0).members();
    assert!(!members.iter().any(|member| member.name == name(i)));
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_replica_that_meets_a_newer_command_stops_and_skips_nothing() {
    let mut group = Group::start(3).await;
    let pushed = push_tag(&group.replica(0), "before").await.unwrap();
    group.even().await;
    // It was away while the others were upgraded, and comes back without having been.
    let behind = (group.leader().await + 1) % 3;
    let leader = group.replica((behind + 2) % 3);
    group.set_spec(behind, old());
    group.kill(behind).await;
    let level = Command::SetFeatureLevel { level: 2, version: "9.9.9".to_owned() };
    if leader.feature_level() == 1 {
        assert_eq!(leader.propose(level).await.unwrap(), Outcome::Done);
    }
    let stopped = match group.try_start(behind).await {
        Ok(replica) => {
            let stopped = tokio::time::timeout(Duration::from_secs(20), replica.failed()).await;
            assert_eq!(read_tag(&replica), Some(pushed));
            replica.shutdown().await;
            stopped.expect("it stops")
        }
        Err(refused) => refused.to_string(),
    };
    assert!(stopped.contains("TERCET-M11"), "{stopped}");
    drop(leader);
    group.stop().await;
}

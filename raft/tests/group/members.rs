//! Who belongs to the group: joining, growing, shrinking, being removed, and edges.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tercet_raft::{
    ChangeRefused, Command, Consensus, FEATURE_LEVEL, Force, Leaving, Member, MemberKind, Role,
};

use crate::content::{knows_blob, push_tag, read_tag};
use crate::harness::{Group, PATIENCE, Spec, address, copy_folder, name, until};

#[tokio::test(flavor = "multi_thread")]
async fn one_grows_to_three_to_five_and_shrinks_to_three_while_writes_go_on() {
    let mut group = Group::start(1).await;
    let writer = Writer::start(&group.replica(0));
    for _ in 0..4 {
        let i = group.add(Spec::default()).await;
        group.settled(i).await;
    }
    until("five voters", || async { (voters(&group.replica(0)).len() == 5).then_some(()) }).await;
    until("the level is raised", || async {
        (group.replica(0).feature_level() >= 2).then_some(())
    })
    .await;
    for i in [4, 3] {
        let changed = remove(&group, i, Force::No).await.unwrap();
        assert!(changed.contains(&name(i)), "{changed}");
        until("it knows that it is out", || async {
            group.replica(i).status().removed.then_some(())
        })
        .await;
    }
    assert_eq!(voters(&group.replica(0)), [name(0), name(1), name(2)]);
    let (written, refused) = writer.stop().await;
    assert!(written > 50, "{written} writes");
    assert_eq!(refused, 0, "no write may be refused while members come and go");
    // A cluster that was made small takes writes, whatever its first configuration said.
    remove(&group, 2, Force::No).await.unwrap();
    remove(&group, 1, Force::No).await.unwrap();
    let last = group.replica(0);
    push_tag(&last, "alone").await.unwrap();
    let only = last.remove_member(&name(0), Force::Because("a test".into())).await.unwrap_err();
    assert!(matches!(only, ChangeRefused::NotPossible(_)), "{only}");
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_leader_hands_over_and_never_votes_or_returns() {
    let mut group = Group::start(3).await;
    raised(&group).await;
    let gone = group.leader().await;
    let asked = group.replica(gone).remove_member(&name(gone), Force::No).await.unwrap_err();
    assert!(matches!(&asked, ChangeRefused::NotLeader { leader: Some(_) }), "{asked}");
    remove(&group, gone, Force::No).await.unwrap();
    let again = remove(&group, gone, Force::No).await.unwrap_err();
    assert!(matches!(&again, ChangeRefused::UnknownMember { .. }), "{again}");
    until("it says so", || async {
        let status = group.replica(gone).status();
        (status.removed && status.refused.is_some_and(|why| why.contains("TERCET-M04")))
            .then_some(())
    })
    .await;
    // It neither stands for election nor is it let in, also after a restart on the same disk.
    group.kill(gone).await;
    group.restart_unsettled(gone).await;
    until("it says so again", || async { group.replica(gone).status().removed.then_some(()) })
        .await;
    let rest = group.leader().await;
    assert_ne!(rest, gone);
    let term = group.replica(rest).status().term;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(group.replica(rest).status().term, term, "a removed replica disturbs nobody");
    assert!(!names(&group.replica(rest)).contains(&name(gone)));
    // With an empty disk the name comes back.
    group.kill(gone).await;
    group.wipe(gone).await;
    group.restart(gone).await;
    assert!(voters(&group.replica(rest)).contains(&name(gone)));
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_stops_between_its_two_steps_is_finished_by_the_next_leader() {
    let mut group = Group::start(5).await;
    raised(&group).await;
    let leader = group.leader().await;
    let gone = (leader + 1) % 5;
    group.set_delay(Duration::from_millis(150));
    let asked = group.replica(leader);
    let change = tokio::spawn(async move { asked.remove_member(&name(gone), Force::No).await });
    let witness = (leader + 2) % 5;
    let witness = group.replica(witness);
    loop {
        if witness.status().changing_members {
            break;
        }
        assert!(!change.is_finished(), "the change was over before anybody saw its first step");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    group.kill(leader).await;
    let _ = change.await;
    group.set_delay(Duration::ZERO);
    until("the next leader has finished it", || async {
        let status = witness.status();
        let done = status.leader.is_some() && !status.changing_members;
        (done && !names(&witness).contains(&name(gone))).then_some(())
    })
    .await;
    until("writes go on", || async { push_tag(&witness, "after").await.ok() }).await;
    group.restart(leader).await;
    assert_eq!(voters(&witness).len(), 4);
    drop(witness);
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_stops_behind_its_command_is_finished_by_the_next_leader() {
    let mut group = Group::start(5).await;
    raised(&group).await;
    let leader = group.leader().await;
    let gone = (leader + 1) % 5;
    let witness = group.replica((leader + 2) % 5);
    let node_id = group.replica(gone).identity().node_id;
    let command = Command::RemoveMember { name: name(gone), node_id };
    group.replica(leader).propose(command).await.unwrap();
    group.kill(leader).await;
    until("the id is out of the membership", || async {
        let members = witness.members();
        (!members.iter().any(|member| member.node_id == node_id)).then_some(())
    })
    .await;
    group.restart(leader).await;
    until("it knows", || async { group.replica(gone).status().removed.then_some(()) }).await;
    drop(witness);
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_lose_quorum_is_refused_and_a_dead_member_can_go() {
    let mut group = Group::start(3).await;
    raised(&group).await;
    group.even().await;
    let leader = group.leader().await;
    let (dead, living) = ((leader + 1) % 3, (leader + 2) % 3);
    let asked = group.replica(leader);
    let plan = asked.plan_removal(&name(dead)).await.unwrap();
    assert!(plan.what.contains("2 of 3") && plan.warnings.len() == 1, "{plan:?}");
    group.kill(dead).await;
    for force in [Force::No, Force::Because("a test".to_owned())] {
        let refused = until("its silence is noticed", || async {
            match asked.plan_removal(&name(living)).await {
                Ok(_) => None,
                Err(_) => {
                    Some(asked.remove_member(&name(living), force.clone()).await.unwrap_err())
                }
            }
        })
        .await;
        assert!(matches!(refused, ChangeRefused::WouldLoseQuorum { .. }), "{refused}");
        assert!(!refused.force_helps());
        assert!(refused.to_string().contains(&name(dead)), "{refused}");
    }
    let unknown = asked.remove_member("nobody", Force::No).await.unwrap_err();
    assert!(matches!(unknown, ChangeRefused::UnknownMember { .. }), "{unknown}");
    asked.remove_member(&name(dead), Force::No).await.unwrap();
    push_tag(&asked, "two are enough").await.unwrap();
    drop(asked);
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_leader_that_was_leaving_is_replaced_in_one_change() {
    let mut group = Group::start(3).await;
    raised(&group).await;
    let lost = group.leader().await;
    let old_id = group.replica(lost).identity().node_id;
    group.replica(lost).set_leaving(&name(lost), Leaving::Yes).await.unwrap();
    let other = group.replica((lost + 1) % 3);
    until("the mark is everywhere", || async {
        let members = other.members();
        members.iter().any(|m| m.name == name(lost) && m.leaving == Leaving::Yes).then_some(())
    })
    .await;
    group.kill(lost).await;
    group.wipe(lost).await;
    group.restart(lost).await;
    let replaced = until("the old id is gone", || async {
        let members = other.members();
        let found = members.iter().find(|member| member.name == name(lost))?.clone();
        (members.len() == 3 && found.node_id != old_id && found.role != Role::Learner)
            .then_some(found)
    })
    .await;
    assert_eq!(replaced.leaving, Leaving::No, "a new disk is not about to go");
    drop(other);
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_follows_and_never_votes() {
    let mut group = Group::start(3).await;
    raised(&group).await;
    let edge = Spec { kind: MemberKind::Edge, zone: Some("branch".to_owned()), ..Spec::default() };
    let i = group.add(edge.clone()).await;
    let pushed = push_tag(&group.replica(i), "through the edge").await.unwrap();
    until("it follows", || async {
        (read_tag(&group.replica(i)) == Some(pushed.clone())).then_some(())
    })
    .await;
    let seen = member(&group.replica(0), i).await;
    assert_eq!((seen.kind, seen.zone.as_deref()), (MemberKind::Edge, Some("branch")));
    let leader = group.leader().await;
    let refused = group.replica(leader).promote(&name(i)).await.unwrap_err();
    assert!(refused.to_string().contains("edge"), "{refused}");
    let refused = group.replica(leader).transfer_to(Some(&name(i))).await.unwrap_err();
    assert!(matches!(refused, ChangeRefused::NotPossible(_)), "{refused}");
    // Without a majority of voters it has no say, and it keeps serving what it has.
    let (a, b) = ((leader + 1) % 3, (leader + 2) % 3);
    group.kill(leader).await;
    group.kill(a).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(group.all().iter().all(|i| group.replica(*i).status().role != Role::Leader));
    assert_eq!(read_tag(&group.replica(i)), Some(pushed));
    group.restart_unsettled(leader).await;
    group.restart_unsettled(a).await;
    for voter in [leader, a, b] {
        group.settled(voter).await;
    }
    assert_eq!(member(&group.replica(0), i).await.role, Role::Learner);

    // A new disk takes its place, still without a vote; then its zone changes; then it is made a voter.
    group.kill(i).await;
    group.wipe(i).await;
    group.restart_unsettled(i).await;
    let new_id = group.replica(i).identity().node_id;
    until("the new disk has the place of the old", || async {
        let members = group.replica(0).members();
        let found = members.iter().find(|member| member.name == name(i))?;
        (members.len() == 4 && found.node_id == new_id && found.role == Role::Learner).then_some(())
    })
    .await;
    group.kill(i).await;
    group.set_spec(i, Spec { zone: None, ..edge.clone() });
    group.restart_unsettled(i).await;
    until("the zone is gone", || async {
        member(&group.replica(0), i).await.zone.is_none().then_some(())
    })
    .await;
    group.kill(i).await;
    group.set_spec(i, Spec::default());
    group.restart(i).await;
    assert_eq!(voters(&group.replica(0)).len(), 4);
    // The way back is by an empty disk only.
    group.kill(i).await;
    group.set_spec(i, edge);
    group.restart_unsettled(i).await;
    let refusal = until("it is refused", || async { group.replica(i).status().refused }).await;
    assert!(refusal.contains("TERCET-M05"), "{refusal}");
    assert_eq!(member(&group.replica(0), i).await.kind, MemberKind::Voter);
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_goes_where_an_operator_wants_it() {
    let group = Group::start(3).await;
    for _ in 0..2 {
        for i in 0..3 {
            let leader = group.leader().await;
            group.replica(leader).transfer_to(Some(&name(i))).await.unwrap();
            until("it leads", || async { (group.leader().await == i).then_some(()) }).await;
        }
    }
    let leader = group.leader().await;
    let follower = (leader + 1) % 3;
    until("a follower says who leads instead", || async {
        let refused = group.replica(follower).transfer_to(None).await.unwrap_err();
        let expected = ChangeRefused::NotLeader { leader: Some(name(leader)) };
        (refused == expected).then_some(())
    })
    .await;
    group.replica(leader).transfer_to(None).await.unwrap();
    push_tag(&group.replica(0), "after").await.unwrap();
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_of_one_name_do_not_replace_each_other() {
    let mut group = Group::start(3).await;
    let first = member(&group.replica(0), 1).await.node_id;
    let twin = group.add(Spec { name: Some(name(1)), ..Spec::default() }).await;
    let refusal = until("it is refused", || async { group.replica(twin).status().refused }).await;
    assert!(refusal.contains("TERCET-M06") && refusal.contains(&address(1)), "{refusal}");
    assert_eq!(member(&group.replica(0), 1).await.node_id, first);
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_waits_is_invited_and_one_of_another_cluster_is_not() {
    let mut group = Group::start(1).await;
    let leader = group.replica(0);
    // It knows a name of which nobody ever hears, so it waits for ever.
    let waiting = Spec { initial_members: Some(vec![7]), ..Spec::default() };
    let i = group.add_stopped(waiting);
    let started = group.starting(i);
    until("it listens", || async {
        match leader.add_member(&name(i), &address(i)).await {
            Ok(changed) => Some(changed),
            Err(ChangeRefused::NotPossible(_)) => None,
            Err(error) => panic!("{error}"),
        }
    })
    .await;
    group.started(i, started.await.unwrap());
    group.settled(i).await;
    assert_eq!(voters(&leader), [name(0), name(i)]);
    let again = leader.add_member(&name(i), &address(i)).await.unwrap();
    assert!(again.what.contains("already"), "{again:?}");

    let foreign = group.add(Spec { initial_members: Some(vec![2]), ..Spec::default() }).await;
    let refused = leader.add_member(&name(foreign), &address(foreign)).await.unwrap_err();
    assert!(refused.to_string().contains("TERCET-M02"), "{refused}");
    drop(leader);
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_of_another_cluster_is_refused_and_harms_nobody() {
    let mut other = Group::start(3).await;
    push_tag(&other.replica(1), "of the other cluster").await.unwrap();
    let mut group = Group::start(3).await;
    let pushed = push_tag(&group.replica(0), "of this cluster").await.unwrap();
    group.kill(1).await;
    other.kill(1).await;
    group.wipe(1).await;
    other.copy_disk(1, group.data(1).root()).await;
    other.stop().await;
    // The others, who are the majority of its configured members, tell it that it is the stranger.
    let refusal = group.start_error(1).await;
    assert!(refusal.contains("TERCET-M02"), "{refusal}");
    assert_eq!(read_tag(&group.replica(0)), Some(pushed));
    // The cluster still counts on the disk that has this name here.
    assert_eq!(voters(&group.replica(0)).len(), 3);
    group.wipe(1).await;
    group.restart(1).await;
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_a_disk_is_found_out_by_those_who_have_seen_more() {
    let mut group = Group::start(3).await;
    push_tag(&group.replica(0), "before the copy").await.unwrap();
    // Before that leaders do not say what they have synced.
    until("the feature level is raised", || async {
        (0..3).all(|i| group.replica(i).feature_level() == FEATURE_LEVEL).then_some(())
    })
    .await;
    let leader = group.leader().await;
    let follower = (leader + 1) % 3;
    for victim in [follower, leader] {
        let copy = tempfile::tempdir().unwrap();
        group.kill(victim).await;
        group.copy_disk(victim, copy.path()).await;
        group.restart(victim).await;
        if victim == leader {
            // What it confirms is what it says itself then.
            let name = name(victim);
            let leading = group.leader().await;
            group.replica(leading).hand_over_to(&name, PATIENCE).await;
            until("it leads", || async {
                (group.replica(victim).status().role == Role::Leader).then_some(())
            })
            .await;
        }
        let mut last = None;
        for round in 0..5 {
            last = Some(push_tag(&group.replica(victim), &format!("round {round}")).await.unwrap());
        }
        until("it has confirmed them", || async {
            (read_tag(&group.replica(victim)) == last).then_some(())
        })
        .await;
        group.kill(victim).await;
        group.wipe(victim).await;
        copy_folder(copy.path(), group.data(victim).root());
        let refusal = group.start_error(victim).await;
        assert!(refusal.contains("TERCET-M13"), "{refusal}");
        // As a new member it is welcome.
        group.wipe(victim).await;
        group.restart(victim).await;
        assert_eq!(read_tag(&group.replica(victim)), last);
    }
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_has_all_it_confirmed_is_not_taken_for_an_older_one() {
    let mut group = Group::start(3).await;
    for round in 0..6 {
        let victim = round % 3;
        push_tag(&group.replica(victim), &format!("round {round}")).await.unwrap();
        group.kill(victim).await;
        group.restart(victim).await;
    }
    group.stop().await;
}

/// Writes through one replica until stopped.
struct Writer {
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<u64>,
}

impl Writer {
    fn start(replica: &Consensus) -> Self {
        let (stop, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted, replica) = (stop.clone(), refused.clone(), replica.clone());
        let task = tokio::spawn(async move {
            let mut written = 0;
            while !stopped.load(Ordering::Relaxed) {
                match push_tag(&replica, &format!("write {written}")).await {
                    Ok(digest) => {
                        assert!(knows_blob(&replica, &digest) || replica.status().leader.is_some());
                        written += 1;
                    }
                    Err(error) => {
                        eprintln!("write {written}: {error}");
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            written
        });
        Self { stop, refused, task }
    }

    /// Writes acknowledged, writes refused.
    async fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        (self.task.await.unwrap(), self.refused.load(Ordering::Relaxed))
    }
}

/// Asks whoever leads, as often as leadership moves.
async fn remove(group: &Group, i: usize, force: Force) -> Result<String, ChangeRefused> {
    loop {
        let leader = group.leader().await;
        match group.replica(leader).remove_member(&name(i), force.clone()).await {
            Ok(changed) => return Ok(changed.what),
            Err(error) if error.retry() => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => return Err(error),
        }
    }
}

pub(crate) async fn raised(group: &Group) {
    until("every replica has applied the level", || async {
        group.all().iter().all(|i| group.replica(*i).feature_level() >= 2).then_some(())
    })
    .await;
}

async fn member(asked: &Consensus, i: usize) -> Member {
    until("it is a member", || async {
        asked.members().into_iter().find(|member| member.name == name(i))
    })
    .await
}

fn names(replica: &Consensus) -> Vec<String> {
    replica.members().into_iter().map(|member| member.name).collect()
}

fn voters(replica: &Consensus) -> Vec<String> {
    let members = replica.members().into_iter();
    members.filter(|member| member.role != Role::Learner).map(|member| member.name).collect()
}

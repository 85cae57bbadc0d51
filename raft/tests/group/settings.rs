//! Keys and rules are the same on every replica, however they got there.

use tercet_raft::{Command, Condition, Consensus, Freshness, Outcome};
use tercet_storage::{ImmutableTagRule, Secret, TokenKey};

use crate::content::{push_tag, put_manifest, read_tag, repository, tag};
use crate::harness::{ENTRIES_PER_SNAPSHOT, Group, until};

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_rules_reach_every_replica_and_survive_a_restart_of_all() {
    let mut group = Group::start(3).await;
    assert_eq!(rotate(&group.replica(0), None, "first").await, Outcome::Done);
    assert_eq!(rotate(&group.replica(1), Some("first"), "second").await, Outcome::Done);
    let pushed = push_tag(&group.replica(2), "pushed").await.unwrap();
    assert_eq!(set_rules(&group.replica(2), rules()).await, Outcome::Done);
    let mut expected = None;
    for reader in 0..3 {
        let reader = group.replica(reader);
        assert_eq!(reader.read_barrier().await, Freshness::Fresh);
        let keys = keys(&reader);
        assert_eq!(keys.iter().map(|key| key.id.as_str()).collect::<Vec<_>>(), ["first", "second"]);
        assert_eq!(keys[1].secret, secret("second"));
        assert_eq!(read_rules(&reader), rules());
        // Equal to the last millisecond: nothing in it is a replica's own.
        assert_eq!(*expected.get_or_insert_with(|| keys.clone()), keys);
    }
    for replica in 0..3 {
        group.kill(replica).await;
    }
    for replica in 0..3 {
        group.restart_unsettled(replica).await;
    }
    for replica in 0..3 {
        group.settled(replica).await;
        let replica = group.replica(replica);
        assert_eq!(Some(keys(&replica)), expected);
        assert_eq!(read_rules(&replica), rules());
        let (_, outcome) = put_manifest(&replica, "moved", Condition::None).await.unwrap();
        assert!(matches!(outcome, Outcome::TagImmutable { .. }), "{outcome}");
        assert_eq!(read_tag(&replica), Some(pushed.clone()));
    }
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_carries_keys_and_rules_and_its_receiver_decides_by_them() {
    let mut group = Group::start(3).await;
    let pushed = push_tag(&group.replica(0), "pushed").await.unwrap();
    group.kill(2).await;
    assert_eq!(rotate(&group.replica(0), None, "first").await, Outcome::Done);
    assert_eq!(set_rules(&group.replica(1), rules()).await, Outcome::Done);
    for _ in 0..ENTRIES_PER_SNAPSHOT {
        // The same content again moves no tag, and is an entry all the same.
        assert_eq!(push_tag(&group.replica(0), "pushed").await.unwrap(), pushed);
    }
    group.restart(2).await;
    let returned = group.replica(2);
    assert!(returned.take_rescan(), "it must have come by snapshot: the log was purged");
    assert_eq!(read_rules(&returned), rules());
    assert_eq!(keys(&returned), keys(&group.replica(0)));
    // Whatever applies the next entries here, it starts from what came by snapshot.
    assert_eq!(rotate(&returned, Some("first"), "second").await, Outcome::Done);
    let (_, outcome) = put_manifest(&returned, "moved", Condition::None).await.unwrap();
    let expected = Outcome::TagImmutable {
        tag: tag(),
        rule: "everything".to_owned(),
        current: pushed.clone(),
    };
    assert_eq!(outcome, expected);
    drop(returned);
    group.kill(2).await;
    group.restart(2).await;
    let returned = group.replica(2);
    assert_eq!(keys(&returned).len(), 2);
    assert_eq!(read_rules(&returned), rules());
    assert_eq!(read_tag(&returned), Some(pushed));
    drop(returned);
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_hold_through_the_loss_of_the_leader_and_are_lifted_by_the_next_one() {
    let mut group = Group::start(3).await;
    let pushed = push_tag(&group.replica(0), "pushed").await.unwrap();
    assert_eq!(set_rules(&group.replica(0), rules()).await, Outcome::Done);
    let leader = group.leader().await;
    group.kill(leader).await;
    let survivor = group.replica((leader + 1) % 3);
    let outcome = until("a decision", || async {
        Some(put_manifest(&survivor, "moved", Condition::None).await.ok()?.1)
    })
    .await;
    assert!(matches!(outcome, Outcome::TagImmutable { .. }), "{outcome}");
    assert_eq!(read_tag(&survivor), Some(pushed));
    assert_eq!(set_rules(&survivor, Vec::new()).await, Outcome::Done);
    let (moved, outcome) = put_manifest(&survivor, "moved", Condition::None).await.unwrap();
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(survivor.read_barrier().await, Freshness::Fresh);
    assert_eq!(read_tag(&survivor), Some(moved));
    drop(survivor);
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_make_the_first_key_at_once_one_does() {
    let group = Group::start(3).await;
    let attempts = (0..9).map(|n| {
        let replica = group.replica(n % 3);
        async move { rotate(&replica, None, &format!("key {n}")).await }
    });
    let outcomes = futures_util::future::join_all(attempts).await;
    let won = outcomes.iter().filter(|outcome| **outcome == Outcome::Done).count();
    let lost = Outcome::ConditionFailed { current: None };
    assert_eq!(won, 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == lost).count(), 8, "{outcomes:?}");
    for replica in 0..3 {
        let replica = group.replica(replica);
        assert_eq!(replica.read_barrier().await, Freshness::Fresh);
        assert_eq!(keys(&replica).len(), 1);
        assert_eq!(keys(&replica), keys(&group.replica(0)));
    }
    group.stop().await;
}

fn rules() -> Vec<ImmutableTagRule> {
    vec![ImmutableTagRule {
        name: "everything".to_owned(),
        repositories: vec![repository().to_string()],
        tags: vec!["*".to_owned()],
    }]
}

async fn set_rules(replica: &Consensus, rules: Vec<ImmutableTagRule>) -> Outcome {
    replica.propose(Command::SetImmutableTags { rules }).await.unwrap()
}

fn secret(id: &str) -> Secret {
    Secret::new(std::array::from_fn(|n| id.as_bytes()[n % id.len()]))
}

async fn rotate(replica: &Consensus, expected: Option<&str>, id: &str) -> Outcome {
    let command = Command::RotateTokenKey {
        expected: expected.map(ToOwned::to_owned),
        key_id: id.to_owned(),
        secret: secret(id),
        keep_ms: 60_000,
    };
    replica.propose(command).await.unwrap()
}

fn keys(replica: &Consensus) -> Vec<TokenKey> {
    replica.read(|meta| meta.token_keys()).unwrap().unwrap()
}

fn read_rules(replica: &Consensus) -> Vec<ImmutableTagRule> {
    replica.read(|meta| meta.immutable_tags()).unwrap().unwrap()
}

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use tercet_storage::{FeatureLevelRecord, ImmutableTagRule, ReferenceKind, Untagged};

use super::super::bench::{Bench, Push, digest, repository};
use super::*;
use crate::command::{Command, Proposal};

fn rule(repositories: &[&str], keep_pulled_days: Option<u32>) -> RetentionRule {
    RetentionRule {
        name: "r".to_owned(),
        repositories: repositories.iter().map(|text| (*text).to_owned()).collect(),
        keep_last: Some(3),
        keep_younger_days: None,
        keep_pulled_days,
        keep_tags: Vec::new(),
        untagged: Untagged::Keep,
    }
}

fn set(rules: &[RetentionRule]) -> Command {
    Command::SetRetention { rules: rules.to_vec() }
}

fn expired_tag(tag: &str, content: &str, updated_ms: u64) -> ExpiredTag {
    ExpiredTag { tag: tag.parse().unwrap(), digest: digest(content), updated_ms }
}

fn expired(content: &str, pushed_ms: u64) -> ExpiredManifest {
    ExpiredManifest { digest: digest(content), pushed_ms }
}

fn retire(tags: &[ExpiredTag], manifests: &[ExpiredManifest]) -> Command {
    let (tags, manifests) = (tags.to_vec(), manifests.to_vec());
    Command::ApplyRetention { repository: repository(), tags, manifests }
}

fn retired(tags: &[&str], contents: &[&str]) -> Outcome {
    let mut manifests: Vec<Digest> = contents.iter().map(|content| digest(content)).collect();
    manifests.sort();
    Outcome::Retired { tags: super::super::bench::tags(tags), manifests }
}

/// An index that names what its text says.
fn index(content: &'static str, tags: &'static [&'static str], children: &[&str]) -> Push {
    let mut push = Push::new(content, tags);
    push.references =
        children.iter().map(|child| (digest(child), ReferenceKind::Manifest)).collect();
    push
}

#[test]
fn rules_are_kept_and_the_time_since_pulls_are_noted_goes_on_unless_it_concerns_others() {
    let bench = Bench::new();
    let since = || bench.meta().retention_record().unwrap().unwrap().pulls_since_ms;
    assert_eq!(bench.apply_at(10, set(&[rule(&["a"], Some(5))])), Outcome::Done);
    assert_eq!(since(), 10);
    assert_eq!(bench.apply_at(20, set(&[rule(&["a"], Some(9))])), Outcome::Done);
    assert_eq!(since(), 10, "as before for the same repositories");
    assert_eq!(bench.apply_at(30, set(&[rule(&["a"], None)])), Outcome::Done);
    assert_eq!(bench.apply_at(40, set(&[rule(&["a"], Some(9))])), Outcome::Done);
    assert_eq!(since(), 40, "meanwhile nothing was noted");
    assert_eq!(bench.apply_at(50, set(&[rule(&["a", "b"], Some(9))])), Outcome::Done);
    assert_eq!(since(), 50);
    assert_eq!(bench.meta().retention().unwrap(), [rule(&["a", "b"], Some(9))]);
}

#[test]
fn rules_beyond_the_limits_are_refused_and_the_old_ones_stay() {
    let bench = Bench::new();
    bench.apply(set(&[rule(&["a"], None)]));
    let before = bench.everything();
    for rules in [vec![rule(&["a"], None); 1001], vec![rule(&["[a-z]"], None)]] {
        let outcome = bench.apply(set(&rules));
        assert!(matches!(outcome, Outcome::Refused(_)), "{outcome}");
    }
    assert_eq!(bench.everything(), before);
}

#[test]
fn only_what_is_exactly_as_it_was_judged_goes() {
    let bench = Bench::new();
    bench.apply_at(10, Push::new("one", &["v1", "v2", "v3"]).command());
    bench.apply_at(20, Push::new("two", &["v2"]).command());
    bench.apply_at(30, Push::new("one", &["v3"]).command());
    let judged = ["v1", "v2", "v3", "v4"].map(|tag| expired_tag(tag, "one", 10));
    // v2 points elsewhere, v3 was pushed again, v4 was never there.
    assert_eq!(bench.apply(retire(&judged, &[expired("one", 10)])), retired(&["v1"], &[]));
    assert_eq!(bench.tag("v2"), Some(digest("two")));
    assert_eq!(bench.tag("v3"), Some(digest("one")));
    // Its last tag goes in the same command, so it does too.
    let last = [expired_tag("v3", "one", 30)];
    assert_eq!(bench.apply(retire(&last, &[expired("one", 10)])), retired(&["v3"], &["one"]));
    assert!(bench.meta().manifest(&digest("one")).unwrap().is_none());
    let again = retire(&last, &[expired("one", 10)]);
    assert_eq!(bench.apply(again), retired(&[], &[]), "once more is no harm");
}

#[test]
fn an_immutable_tag_stays_whatever_was_judged_and_keeps_its_manifest() {
    let bench = Bench::new();
    bench.apply_at(10, Push::new("one", &["v1", "latest"]).command());
    let rules = vec![ImmutableTagRule {
        name: "releases".to_owned(),
        repositories: vec!["prod/**".to_owned()],
        tags: vec!["v*".to_owned()],
    }];
    bench.apply(Command::SetImmutableTags { rules });
    let judged = [expired_tag("v1", "one", 10), expired_tag("latest", "one", 10)];
    let outcome = bench.apply(retire(&judged, &[expired("one", 10)]));
    assert_eq!(outcome, retired(&["latest"], &[]));
    assert!(bench.meta().manifest_link(&repository(), &digest("one")).unwrap().is_some());
}

#[test]
fn an_index_keeps_what_it_names_until_it_goes_too() {
    let bench = Bench::new();
    bench.apply_at(10, Push::new("amd64", &[]).command());
    bench.apply_at(10, Push::new("arm64", &[]).command());
    bench.apply_at(11, index("index", &["v1"], &["amd64", "arm64"]).command());
    let children = [expired("amd64", 10), expired("arm64", 10)];
    assert_eq!(bench.apply(retire(&[], &children)), retired(&[], &[]));
    let all = [expired("amd64", 10), expired("arm64", 10), expired("index", 11)];
    assert_eq!(bench.apply(retire(&[], &all)), retired(&[], &[]), "the index has its tag");
    let tag = [expired_tag("v1", "index", 11)];
    let gone = retired(&["v1"], &["amd64", "arm64", "index"]);
    assert_eq!(bench.apply(retire(&tag, &all)), gone);
    assert!(bench.meta().manifest_parents(&repository(), &digest("amd64"), 9).unwrap().is_empty());
}

#[test]
fn a_child_of_two_indexes_stays_while_one_of_them_does() {
    let bench = Bench::new();
    bench.apply_at(10, Push::new("child", &[]).command());
    bench.apply_at(10, index("first", &[], &["child"]).command());
    bench.apply_at(10, index("second", &["v1"], &["child"]).command());
    let both = [expired("first", 10), expired("child", 10)];
    assert_eq!(bench.apply(retire(&[], &both)), retired(&[], &["first"]));
    let delete = Command::DeleteManifest { repository: repository(), digest: digest("second") };
    assert_eq!(bench.apply(delete), Outcome::Done);
    assert_eq!(bench.apply(retire(&[], &[expired("child", 10)])), retired(&[], &["child"]));
}

#[test]
fn what_came_between_judgement_and_command_is_kept() {
    let bench = Bench::new();
    let level = Command::SetFeatureLevel { level: 2, version: "0.2.0".to_owned() };
    bench.apply(level);
    bench.apply_at(10, Push::new("again", &[]).command());
    bench.apply_at(10, Push::new("named", &[]).command());
    bench.apply_at(10, Push::new("tagged", &[]).command());
    bench.apply_at(20, Push::new("again", &[]).command());
    bench.apply_at(20, index("index", &["v1"], &["named"]).command());
    bench.apply_at(20, Push::new("tagged", &["v2"]).command());
    let judged = ["again", "named", "tagged"].map(|content| expired(content, 10));
    assert_eq!(bench.apply(retire(&[], &judged)), retired(&[], &[]));
}

#[test]
fn a_push_of_what_is_there_renews_its_time_once_all_replicas_do() {
    let bench = Bench::new();
    let pushed = || bench.meta().manifest_link(&repository(), &digest("m")).unwrap().unwrap();
    bench.apply_at(10, Push::new("m", &[]).command());
    bench.apply_at(20, Push::new("m", &[]).command());
    assert_eq!(pushed().pushed_ms, 10, "as replicas of level 1 do it");
    bench.apply(Command::SetFeatureLevel { level: 2, version: "0.2.0".to_owned() });
    let level = FeatureLevelRecord { level: 2, version: "0.2.0".to_owned() };
    assert_eq!(bench.meta().feature_level().unwrap(), Some(level));
    bench.apply_at(30, Push::new("m", &[]).command());
    assert_eq!(pushed().pushed_ms, 30);
}

#[test]
fn work_is_bounded_and_a_repository_must_be_there() {
    let bench = Bench::new();
    assert_eq!(bench.apply(retire(&[], &[expired("m", 1)])), Outcome::RepositoryUnknown);
    bench.apply(Push::new("m", &[]).command());
    let many = vec![expired("m", 1); RETIRED_MAX + 1];
    assert!(matches!(bench.apply(retire(&[], &many)), Outcome::Refused(_)));
    let pull = PullSeen { repository: repository(), digest: digest("m"), at_ms: 1 };
    let pulls = vec![pull; PULLS_MAX + 1];
    assert!(matches!(bench.apply(Command::RecordPulls { pulls }), Outcome::Refused(_)));
    assert!(bench.meta().pull(&repository(), &digest("m")).unwrap().is_none());
}

#[test]
fn the_latest_pull_is_kept_until_the_manifest_goes() {
    let bench = Bench::new();
    bench.apply_at(10, Push::new("m", &[]).command());
    let pull = |content: &str, at_ms| {
        let pulls = vec![PullSeen { repository: repository(), digest: digest(content), at_ms }];
        assert_eq!(bench.apply_at(100, Command::RecordPulls { pulls }), Outcome::Done);
    };
    let last = |content| bench.meta().pull(&repository(), &digest(content)).unwrap();
    pull("m", 50);
    pull("m", 40);
    assert_eq!(last("m"), Some(PullRecord { last_ms: 50 }));
    pull("m", 5_000);
    assert_eq!(last("m"), Some(PullRecord { last_ms: 100 }), "a clock that is ahead");
    pull("never pushed", 50);
    assert_eq!(last("never pushed"), None);
    let delete = Command::DeleteManifest { repository: repository(), digest: digest("m") };
    assert_eq!(bench.apply(delete), Outcome::Done);
    assert_eq!(last("m"), None);
}

#[test]
fn blobs_lose_their_reference_when_retention_takes_their_manifest() {
    let bench = Bench::new();
    let commit =
        Command::BlobCommitted { digest: digest("layer"), size: 5, repository: repository() };
    bench.apply_at(10, commit);
    let mut push = Push::new("m", &["v1"]);
    push.references = vec![(digest("layer"), ReferenceKind::Blob)];
    bench.apply_at(20, push.command());
    let tag = [expired_tag("v1", "m", 20)];
    let outcome = bench.apply_at(30, retire(&tag, &[expired("m", 20)]));
    assert_eq!(outcome, retired(&["v1"], &["m"]));
    let blob = bench.meta().blob(&digest("layer")).unwrap().unwrap();
    assert_eq!((blob.references, blob.unreferenced_since_ms), (0, Some(30)));
}

#[test]
fn replicas_that_apply_in_other_batches_end_alike() {
    let commands = [
        Push::new("child", &[]).command(),
        index("index", &["v1"], &["child"]).command(),
        set(&[rule(&["**"], Some(1))]),
        Command::RecordPulls {
            pulls: vec![PullSeen { repository: repository(), digest: digest("child"), at_ms: 1 }],
        },
        retire(&[expired_tag("v1", "index", 1)], &[expired("child", 1), expired("index", 1)]),
        Push::new("child", &["v1"]).command(),
    ];
    let proposals = commands.map(|command| Proposal { at_ms: 1, command }).to_vec();
    let together = Bench::new();
    let outcomes = together.apply_all(proposals.clone());
    let alone = Bench::new();
    let one_by_one: Vec<_> =
        proposals.into_iter().map(|p| alone.apply_at(p.at_ms, p.command)).collect();
    assert_eq!(outcomes, one_by_one);
    assert_eq!(outcomes[4], retired(&["v1"], &["child", "index"]));
    assert_eq!(together.everything(), alone.everything());
}

/// A manifest whose subject is another one.
fn referrer(content: &'static str, subject: &str) -> Command {
    let Command::PushManifest {
        repository,
        digest: of,
        media_type,
        bytes,
        mut summary,
        tags,
        condition,
        absent,
    } = Push::new(content, &[]).command()
    else {
        unreachable!()
    };
    summary.subject = Some(digest(subject));
    Command::PushManifest {
        repository,
        digest: of,
        media_type,
        bytes,
        summary,
        tags,
        condition,
        absent,
    }
}

#[test]
fn a_referrer_stays_with_its_subject_and_goes_with_it() {
    let bench = Bench::new();
    bench.apply_at(10, Push::new("image", &["v1"]).command());
    bench.apply_at(10, referrer("signature", "image"));
    bench.apply_at(10, referrer("early", "an image that never came"));
    let both = [expired("signature", 10), expired("early", 10)];
    assert_eq!(bench.apply(retire(&[], &both)), retired(&[], &["early"]));
    let tag = [expired_tag("v1", "image", 10)];
    let all = [expired("signature", 10), expired("image", 10)];
    assert_eq!(bench.apply(retire(&tag, &all)), retired(&["v1"], &["image", "signature"]));
    let left = bench.meta().referrers(&repository(), &digest("image"), None, 9).unwrap();
    assert!(left.is_empty());
}

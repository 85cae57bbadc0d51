#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::super::bench::{Bench, Push, digest, repository};
use super::*;
use crate::command::{Command, Condition, Proposal};

fn rule(name: &str, repositories: &[&str], tags: &[&str]) -> ImmutableTagRule {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    ImmutableTagRule { name: name.to_owned(), repositories: owned(repositories), tags: owned(tags) }
}

fn set_rules(rules: &[ImmutableTagRule]) -> Command {
    Command::SetImmutableTags { rules: rules.to_vec() }
}

/// `v*` in `prod/**` does not move.
fn guarded() -> Bench {
    let bench = Bench::new();
    let rules = [rule("other", &["dev/**"], &["**"]), rule("releases", &["prod/**"], &["v*"])];
    assert_eq!(bench.apply(set_rules(&rules)), Outcome::Done);
    assert_eq!(bench.meta().immutable_tags().unwrap(), rules);
    assert_eq!(bench.apply(Push::new("one", &["v1", "latest"]).command()), Outcome::Done);
    bench
}

fn immutable(tag: &str, current: &str) -> Outcome {
    Outcome::TagImmutable {
        tag: tag.parse().unwrap(),
        rule: "releases".to_owned(),
        current: digest(current),
    }
}

fn delete_tag(tag: &str) -> Command {
    Command::DeleteTag { repository: repository(), tag: tag.parse().unwrap() }
}

fn delete_manifest(content: &str) -> Command {
    Command::DeleteManifest { repository: repository(), digest: digest(content) }
}

#[test]
fn a_covered_tag_is_made_and_repeated_but_never_moved() {
    let bench = guarded();
    assert_eq!(bench.apply(Push::new("one", &["v1"]).command()), Outcome::Done);
    let before = bench.everything();
    assert_eq!(bench.apply(Push::new("two", &["v1"]).command()), immutable("v1", "one"));
    assert_eq!(bench.apply(Push::new("two", &["v1"]).old_command()), immutable("v1", "one"));
    assert_eq!(bench.everything(), before, "a refusal changes nothing");
}

#[test]
fn a_tag_that_no_rule_covers_moves_as_ever() {
    let bench = guarded();
    assert_eq!(bench.apply(Push::new("two", &["latest", "v2"]).command()), Outcome::Done);
    assert_eq!(bench.tag("latest"), Some(digest("two")));
    assert_eq!(bench.apply(delete_tag("latest")), Outcome::Done);
}

#[test]
fn of_several_tags_all_are_set_or_none() {
    let bench = guarded();
    let before = bench.everything();
    let push = Push::new("two", &["latest", "new", "v1", "v2"]);
    assert_eq!(bench.apply(push.command()), immutable("v1", "one"));
    assert_eq!(bench.everything(), before);
}

#[test]
fn a_covered_tag_is_not_deleted_and_neither_is_its_manifest() {
    let bench = guarded();
    let before = bench.everything();
    assert_eq!(bench.apply(delete_tag("v1")), immutable("v1", "one"));
    assert_eq!(bench.apply(delete_manifest("one")), immutable("v1", "one"));
    assert_eq!(bench.everything(), before, "latest must not be lost on the way");
    assert_eq!(bench.apply(delete_tag("v9")), Outcome::NotFound);
    assert_eq!(bench.apply(Push::new("two", &["latest"]).command()), Outcome::Done);
    assert_eq!(bench.apply(delete_manifest("two")), Outcome::Done);
}

#[test]
fn the_condition_is_judged_first_then_the_rules_then_what_is_missing() {
    let bench = guarded();
    let missing = (digest("never pushed"), tercet_storage::ReferenceKind::Blob);
    let mut push = Push::new("two", &["v1"]);
    push.references.push(missing.clone());
    push.condition = Condition::IfNoneMatchAny;
    let failed = Outcome::ConditionFailed { current: Some(digest("one")) };
    assert_eq!(bench.apply(push.command()), failed);
    push.condition = Condition::IfMatch(digest("one"));
    assert_eq!(bench.apply(push.command()), immutable("v1", "one"));
    push.tags = &["v2"];
    push.condition = Condition::IfNoneMatchAny;
    assert_eq!(bench.apply(push.command()), Outcome::MissingReferences(vec![missing.0]));
}

#[test]
fn rules_count_from_their_place_in_the_log() {
    let bench = Bench::new();
    let rules = set_rules(&[rule("releases", &["**"], &["**"])]);
    let push = |content, tags| Push::new(content, tags).command();
    let commands = [
        push("one", &["v1"]),
        push("two", &["v1"]),
        rules,
        push("three", &["v1"]),
        delete_tag("v1"),
        set_rules(&[]),
        push("four", &["v1"]),
    ];
    let proposals = commands.map(|command| Proposal { at_ms: 1, command }).to_vec();
    let done = || Outcome::Done;
    let refused = || immutable("v1", "two");
    let expected = [done(), done(), done(), refused(), refused(), done(), done()];
    assert_eq!(bench.apply_all(proposals.clone()), expected);
    // In batches of one, on another replica: the same answers and the same bytes.
    let other = Bench::new();
    let one_by_one = proposals.into_iter().map(|p| other.apply_at(p.at_ms, p.command));
    assert_eq!(one_by_one.collect::<Vec<_>>(), expected);
    assert_eq!(other.everything(), bench.everything());
}

#[test]
fn rules_beyond_the_limits_are_refused_and_the_old_ones_stay() {
    let bench = guarded();
    let before = bench.everything();
    let too_many = vec![rule("x", &["**"], &["**"]); 1001];
    for rules in [&too_many[..], &[rule("x", &["[a-z]"], &["**"])]] {
        let outcome = bench.apply(set_rules(rules));
        assert!(matches!(outcome, Outcome::Refused(_)), "{outcome}");
    }
    assert_eq!(bench.everything(), before);
}

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tercet_storage::Algorithm;

use super::*;

const NOW: u64 = 1000 * DAY_MS;

fn digest(content: &str) -> Digest {
    Digest::of(Algorithm::Sha256, content.as_bytes())
}

fn days_ago(days: u64) -> u64 {
    NOW - days * DAY_MS
}

fn rule() -> RetentionRule {
    RetentionRule {
        name: "r".to_owned(),
        repositories: vec!["**".to_owned()],
        keep_last: None,
        keep_younger_days: None,
        keep_pulled_days: None,
        keep_tags: Vec::new(),
        untagged: Untagged::Keep,
    }
}

#[derive(Default)]
struct Repo(Contents);

impl Repo {
    fn tag(mut self, tag: &str, content: &str, days: u64) -> Self {
        let seen = TagSeen {
            tag: tag.parse().unwrap(),
            digest: digest(content),
            updated_ms: days_ago(days),
        };
        self.0.tags.push(seen);
        self
    }

    fn manifest(self, content: &str, days: u64) -> Self {
        self.index(content, days, &[])
    }

    fn index(mut self, content: &str, days: u64, children: &[&str]) -> Self {
        let seen = ManifestSeen {
            pushed_ms: days_ago(days),
            pulled_ms: None,
            children: children.iter().map(|child| digest(child)).collect(),
            subject: None,
            bytes: 100,
        };
        self.0.manifests.insert(digest(content), seen);
        self
    }

    fn referrer(self, content: &str, days: u64, subject: &str) -> Self {
        let mut repo = self.manifest(content, days);
        repo.0.manifests.get_mut(&digest(content)).unwrap().subject = Some(digest(subject));
        repo
    }

    fn pulled(mut self, content: &str, days: u64) -> Self {
        let seen = self.0.manifests.get_mut(&digest(content)).unwrap();
        seen.pulled_ms = Some(days_ago(days));
        self
    }

    fn judge(&self, rule: &RetentionRule) -> Judgement {
        self.judge_beside(rule, &[])
    }

    fn judge_beside(&self, rule: &RetentionRule, immutable: &[&str]) -> Judgement {
        let immutable = immutable.iter().map(|text| text.parse().unwrap()).collect();
        let law = Law { rule, immutable, pulls_since_ms: days_ago(500), now_ms: NOW };
        judge(&law, &"a".parse().unwrap(), &self.0)
    }
}

fn tags(judgement: &Judgement) -> Vec<&str> {
    judgement.tags.iter().map(|gone| gone.tag.as_str()).collect()
}

fn gone(judgement: &Judgement, content: &str) -> bool {
    judgement.manifests.iter().any(|gone| gone.digest == digest(content))
}

fn five() -> Repo {
    Repo::default()
        .manifest("m", 50)
        .tag("v1", "m", 50)
        .tag("v2", "m", 40)
        .tag("v3", "m", 30)
        .tag("b", "m", 20)
        .tag("a", "m", 20)
}

#[test]
fn a_rule_without_a_condition_lets_no_tag_go() {
    let judgement = five().judge(&rule());
    assert!(judgement.tags.is_empty() && judgement.manifests.is_empty());
    let judgement =
        five().judge(&RetentionRule { untagged: Untagged::DeleteAfterDays(0), ..rule() });
    assert!(judgement.tags.is_empty() && judgement.manifests.is_empty());
    assert_eq!((judgement.tags_kept, judgement.manifests_kept), (5, 1));
}

#[test]
fn keep_last_counts_by_the_time_of_the_move_then_by_name() {
    let keep = |keep_last| RetentionRule { keep_last: Some(keep_last), ..rule() };
    assert_eq!(tags(&five().judge(&keep(2))), ["v1", "v2", "v3"]);
    assert_eq!(tags(&five().judge(&keep(1))), ["v1", "v2", "v3", "a"]);
    assert_eq!(tags(&five().judge(&keep(0))), ["v1", "v2", "v3", "b", "a"]);
    assert!(tags(&five().judge(&keep(9))).is_empty());
    assert_eq!(five().judge(&keep(2)).tags[0].why, "not among the last 2");
}

#[test]
fn one_condition_that_holds_is_enough() {
    let rule = RetentionRule {
        keep_last: Some(1),
        keep_younger_days: Some(25),
        keep_tags: vec!["v1".to_owned()],
        ..rule()
    };
    let judgement = five().judge(&rule);
    assert_eq!(tags(&judgement), ["v2", "v3"]);
    let why =
        "not among the last 1, not moved within 25 days, its name matches nothing that is kept";
    assert_eq!(judgement.tags[0].why, why);
}

#[test]
fn a_day_is_over_when_it_is_over() {
    let judge = |keep_younger_days| {
        tags(&five().judge(&RetentionRule { keep_younger_days: Some(keep_younger_days), ..rule() }))
            .len()
    };
    assert_eq!(judge(0), 5, "no day keeps nothing");
    assert_eq!(judge(40), 2, "what is 40 days old is not within 40 days");
    assert_eq!(judge(41), 1);
}

#[test]
fn a_pull_keeps_the_tag_also_if_only_a_child_of_its_index_was_pulled() {
    let rule = RetentionRule { keep_pulled_days: Some(10), ..rule() };
    let repo = Repo::default()
        .manifest("amd64", 100)
        .index("index", 100, &["amd64", "a platform that is not here"])
        .tag("v1", "index", 100)
        .manifest("other", 100)
        .tag("v2", "other", 100)
        .manifest("new", 5)
        .tag("v3", "new", 5)
        .pulled("other", 11)
        .pulled("amd64", 9);
    let judgement = repo.judge(&rule);
    assert_eq!(tags(&judgement), ["v2"]);
    assert_eq!(judgement.tags[0].pulled_ms, Some(days_ago(11)));
    let just = Repo::default().manifest("m", 100).tag("v1", "m", 100).pulled("m", 10);
    assert!(tags(&just.judge(&rule)).is_empty(), "the time that is known may be an hour old");
}

#[test]
fn what_was_there_before_pulls_were_noted_counts_as_pulled_then() {
    let rule = RetentionRule { keep_pulled_days: Some(10), ..rule() };
    let repo = five();
    let since = |pulls_since_ms| {
        let law = Law { rule: &rule, immutable: Vec::new(), pulls_since_ms, now_ms: NOW };
        judge(&law, &"a".parse().unwrap(), &repo.0).tags.len()
    };
    assert_eq!(since(days_ago(9)), 0);
    assert_eq!(since(days_ago(11)), 5);
}

#[test]
fn an_immutable_tag_stays() {
    let rule =
        RetentionRule { keep_last: Some(0), untagged: Untagged::DeleteAfterDays(0), ..rule() };
    let judgement = five().judge_beside(&rule, &["v*"]);
    assert_eq!(tags(&judgement), ["b", "a"]);
    assert!(judgement.manifests.is_empty());
}

#[test]
fn manifests_go_with_their_last_tag_only_if_the_rule_says_so() {
    let repo = || {
        Repo::default()
            .manifest("child", 50)
            .index("index", 50, &["child"])
            .tag("v1", "index", 50)
            .manifest("young", 2)
            .manifest("old", 50)
    };
    let keep = RetentionRule { keep_last: Some(0), ..rule() };
    let judgement = repo().judge(&keep);
    assert_eq!((tags(&judgement).len(), judgement.manifests.len()), (1, 0));
    assert_eq!(judgement.left_untagged, 1);
    let judgement = repo().judge(&RetentionRule { untagged: Untagged::DeleteAfterDays(7), ..keep });
    let order: Vec<_> = judgement.manifests.iter().map(|gone| &gone.digest).collect();
    assert_eq!(order.len(), 3);
    assert!(!gone(&judgement, "young"));
    let place = |content| order.iter().position(|one| **one == digest(content)).unwrap();
    assert!(place("index") < place("child"), "who names it goes first");
    assert_eq!(judgement.left_untagged, 0);
}

#[test]
fn a_manifest_that_is_pulled_by_digest_stays() {
    let rule = RetentionRule {
        keep_pulled_days: Some(30),
        untagged: Untagged::DeleteAfterDays(7),
        ..rule()
    };
    let repo = Repo::default().manifest("used", 400).pulled("used", 3).manifest("idle", 600);
    let judgement = repo.judge(&rule);
    assert!(!gone(&judgement, "used"));
    assert!(gone(&judgement, "idle"));
}

#[test]
fn signatures_stay_and_go_with_their_image() {
    let companion = format!("{}.sig", digest("image").to_string().replace(':', "-"));
    let repo = |days| {
        Repo::default()
            .manifest("image", days)
            .tag("v1", "image", days)
            .manifest("signature", 100)
            .tag(&companion, "signature", 100)
            .referrer("attestation", 1, "image")
            .referrer("on the attestation", 1, "attestation")
    };
    let rule = RetentionRule {
        keep_younger_days: Some(50),
        untagged: Untagged::DeleteAfterDays(7),
        ..rule()
    };
    let judgement = repo(10).judge(&rule);
    assert!(judgement.tags.is_empty() && judgement.manifests.is_empty(), "{judgement:?}");
    let judgement = repo(60).judge(&rule);
    assert_eq!(tags(&judgement), ["v1", companion.as_str()]);
    assert_eq!(judgement.manifests.len(), 4, "young ones too: {judgement:?}");
    let named: Vec<&str> = judgement.manifests.iter().map(|gone| gone.why.as_str()).collect();
    assert!(named.iter().any(|why| why.contains("its subject")), "{named:?}");
    // They take no place of `keep_last` either.
    let last = RetentionRule { keep_last: Some(1), ..rule };
    assert!(tags(&repo(60).judge(&RetentionRule { keep_younger_days: None, ..last })).is_empty());
}

#[test]
fn an_index_that_has_its_own_child_as_its_subject_goes_with_it() {
    let mut repo = Repo::default().manifest("child", 50).index("index", 50, &["child"]);
    repo.0.manifests.get_mut(&digest("index")).unwrap().subject = Some(digest("child"));
    let judgement = repo.judge(&RetentionRule { untagged: Untagged::DeleteAfterDays(7), ..rule() });
    assert_eq!(judgement.manifests.len(), 2);
}

/// Repositories of all shapes: manifests that name and refer to earlier ones, tags with and without
/// companions.
fn any_repo(random: &mut StdRng) -> (Repo, RetentionRule) {
    let count = random.random_range(0..25_usize);
    let names: Vec<String> = (0..count).map(|number| format!("m{number}")).collect();
    let mut repo = Repo::default();
    for (number, name) in names.iter().enumerate() {
        let days = random.random_range(0..40);
        let mut children = Vec::new();
        let mut subject = None;
        if number > 0 && random.random_bool(0.4) {
            for _ in 0..random.random_range(0..4) {
                children.push(names[random.random_range(0..number)].as_str());
            }
        }
        if number > 0 && random.random_bool(0.3) {
            subject = Some(digest(&names[random.random_range(0..number)]));
        }
        repo = repo.index(name, days, &children);
        let seen = repo.0.manifests.get_mut(&digest(name)).unwrap();
        seen.subject = subject;
        if random.random_bool(0.3) {
            seen.pulled_ms = Some(days_ago(random.random_range(0..40)));
        }
    }
    if count > 0 {
        for number in 0..random.random_range(0..12) {
            let of = &names[random.random_range(0..count)];
            repo = repo.tag(&format!("t{number}"), of, random.random_range(0..40));
        }
        for _ in 0..random.random_range(0..4) {
            let image = digest(&names[random.random_range(0..count)]);
            let of = &names[random.random_range(0..count)];
            let tag = format!("{}.sig", image.to_string().replace(':', "-"));
            if repo.0.tags.iter().all(|seen| seen.tag.as_str() != tag) {
                repo = repo.tag(&tag, of, random.random_range(0..40));
            }
        }
    }
    repo.0.tags.sort_by(|a, b| a.tag.cmp(&b.tag));
    let mut sometimes = |max| random.random_bool(0.5).then(|| random.random_range(0..max));
    let rule = RetentionRule {
        keep_last: sometimes(8),
        keep_younger_days: sometimes(30),
        keep_pulled_days: sometimes(30),
        keep_tags: sometimes(10).map(|number| format!("t{number}")).into_iter().collect(),
        untagged: sometimes(30).map_or(Untagged::Keep, Untagged::DeleteAfterDays),
        ..rule()
    };
    (repo, rule)
}

/// What the group does with a batch, and whether it took all of it.
fn apply(contents: &mut Contents, tags: &[TagGoes], manifests: &[ManifestGoes]) -> bool {
    contents.tags.retain(|seen| tags.iter().all(|gone| gone.tag != seen.tag));
    let mut going: BTreeSet<Digest> = manifests.iter().map(|gone| gone.digest.clone()).collect();
    let asked = going.len();
    loop {
        let stays = |digest: &Digest| {
            contents.tags.iter().any(|seen| seen.digest == *digest)
                || contents
                    .manifests
                    .iter()
                    .any(|(parent, seen)| !going.contains(parent) && seen.children.contains(digest))
                || contents.manifests[digest].subject.as_ref().is_some_and(|subject| {
                    contents.manifests.contains_key(subject) && !going.contains(subject)
                })
        };
        let staying: Vec<Digest> = going.iter().filter(|digest| stays(digest)).cloned().collect();
        if staying.is_empty() {
            break;
        }
        going.retain(|digest| !staying.contains(digest));
    }
    contents.manifests.retain(|digest, _| !going.contains(digest));
    going.len() == asked
}

#[test]
fn whatever_the_repository_what_is_kept_stays_whole() {
    let mut random = StdRng::seed_from_u64(4_001);
    let (mut went, mut stayed) = (0, 0);
    for case in 0..4_000 {
        let (repo, rule) = any_repo(&mut random);
        let judgement = repo.judge(&rule);
        let gone_tags: BTreeSet<&Tag> = judgement.tags.iter().map(|gone| &gone.tag).collect();
        let gone: BTreeSet<&Digest> = judgement.manifests.iter().map(|gone| &gone.digest).collect();
        went += gone.len();
        stayed += repo.0.manifests.len() - gone.len();
        assert_eq!(judgement.tags_kept as usize, repo.0.tags.len() - gone_tags.len(), "{case}");
        // Tags that are kept have all that they need.
        for seen in repo.0.tags.iter().filter(|seen| !gone_tags.contains(&seen.tag)) {
            assert!(
                !gone.contains(&seen.digest),
                "{case}: {} lost its manifest",
                seen.tag.as_str()
            );
        }
        for (digest, seen) in repo.0.manifests.iter().filter(|(digest, _)| !gone.contains(digest)) {
            for child in &seen.children {
                assert!(!gone.contains(child), "{case}: {digest} lost {child}");
            }
        }
        for (digest, seen) in &repo.0.manifests {
            if let Some(subject) = &seen.subject
                && repo.0.manifests.contains_key(subject)
                && !gone.contains(subject)
            {
                assert!(!gone.contains(digest), "{case}: {subject} lost its referrer");
            }
        }
        // What is promised by name and number.
        for seen in repo.0.tags.iter().filter(|seen| gone_tags.contains(&seen.tag)) {
            assert!(!rule.keep_tags.iter().any(|kept| kept == seen.tag.as_str()), "{case}");
        }
        if let Some(keep) = rule.keep_last {
            let plain = |seen: &&TagSeen| seen.tag.as_str().starts_with('t');
            let kept =
                repo.0.tags.iter().filter(plain).filter(|seen| !gone_tags.contains(&seen.tag));
            let all = repo.0.tags.iter().filter(plain).count();
            assert!(kept.count() >= all.min(keep as usize), "{case}");
        }
        if !has_condition(&rule) {
            assert!(gone_tags.is_empty(), "{case}");
        }
        if rule.untagged == Untagged::Keep {
            assert!(gone.is_empty(), "{case}");
        }
    }
    assert!(went > 1_000 && stayed > 1_000, "{went} {stayed}: the cases test something");
}

#[test]
fn a_rule_that_keeps_more_never_lets_more_go() {
    let mut random = StdRng::seed_from_u64(4_002);
    for case in 0..2_000 {
        let (repo, strict) = any_repo(&mut random);
        if !has_condition(&strict) {
            continue;
        }
        let more = |days: Option<u32>| days.map(|days| days + 5);
        let mild = RetentionRule {
            keep_last: more(strict.keep_last),
            keep_younger_days: more(strict.keep_younger_days),
            keep_pulled_days: more(strict.keep_pulled_days),
            untagged: match strict.untagged {
                Untagged::DeleteAfterDays(days) => Untagged::DeleteAfterDays(days + 5),
                Untagged::Keep => Untagged::Keep,
            },
            ..strict.clone()
        };
        let (strict, mild) = (repo.judge(&strict), repo.judge(&mild));
        for gone in &mild.tags {
            assert!(strict.tags.iter().any(|other| other.tag == gone.tag), "{case}");
        }
        for gone in &mild.manifests {
            assert!(strict.manifests.iter().any(|other| other.digest == gone.digest), "{case}");
        }
    }
}

#[test]
fn all_that_is_judged_goes_in_one_round_and_the_next_finds_nothing() {
    let mut random = StdRng::seed_from_u64(4_003);
    let (mut split_differently, mut rounds) = (0, 0);
    for case in 0..2_000 {
        let (mut repo, rule) = any_repo(&mut random);
        // Manifests that wait for each other, an index for its subject and that for the index, have to go in one
        // command. Where there are any, a command takes as much as there is at all.
        let piece = if case % 2 == 0 { 3 } else { 25 };
        if case % 2 == 0 {
            repo.0.manifests.values_mut().for_each(|seen| seen.subject = None);
        }
        let judgement = repo.judge(&rule);
        let mut whole = Repo(repo.0.clone());
        assert!(apply(&mut whole.0, &judgement.tags, &judgement.manifests), "{case}");
        let next = whole.judge(&rule);
        assert!(next.tags.is_empty() && next.manifests.is_empty(), "{case}: {next:?}");
        // In small commands: the same in the end, if not at once.
        let mut pieces = Repo(repo.0.clone());
        for _ in 0..20 {
            let judgement = pieces.judge(&rule);
            if judgement.tags.is_empty() && judgement.manifests.is_empty() {
                break;
            }
            rounds += 1;
            apply(&mut pieces.0, &judgement.tags, &[]);
            for some in judgement.manifests.chunks(piece) {
                split_differently += usize::from(!apply(&mut pieces.0, &[], some));
            }
        }
        assert_eq!(pieces.0.manifests, whole.0.manifests, "{case}");
        assert_eq!(pieces.0.tags, whole.0.tags, "{case}");
    }
    assert!(rounds > 500, "{rounds}");
    assert!(split_differently < rounds / 10, "{split_differently} of {rounds}: the order is right");
}

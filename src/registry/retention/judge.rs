//! What a rule lets go of in one repository: a function of what is there, and of the time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use tercet_storage::{Digest, Pattern, RepositoryName, RetentionRule, Tag, Untagged};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// A pull is written down only if the one that is known is older than this: so long after the time that
/// is known a manifest may have been pulled without a word about it.
pub(super) const PULL_RESOLUTION_MS: u64 = 60 * 60 * 1000;

/// A tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TagSeen {
    pub(super) tag: Tag,
    pub(super) digest: Digest,
    pub(super) updated_ms: u64,
}

/// A manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ManifestSeen {
    pub(super) pushed_ms: u64,
    /// When it was last pulled, as far as that is known.
    pub(super) pulled_ms: Option<u64>,
    /// The manifests that it names as an index.
    pub(super) children: Vec<Digest>,
    pub(super) subject: Option<Digest>,
    /// Its size.
    pub(super) bytes: u64,
}

/// All of a repository.
#[derive(Debug, Clone, Default)]
pub(super) struct Contents {
    pub(super) tags: Vec<TagSeen>,
    pub(super) manifests: BTreeMap<Digest, ManifestSeen>,
}

/// What is judged by.
pub(super) struct Law<'a> {
    /// The first rule that means the repository.
    pub(super) rule: &'a RetentionRule,
    /// Patterns of tags that are never removed.
    pub(super) immutable: Vec<Pattern>,
    /// Since when pulls are noted.
    pub(super) pulls_since_ms: u64,
    pub(super) now_ms: u64,
}

/// What one repository may let go of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// The repository.
    pub repository: RepositoryName,
    /// Name of the rule that decided.
    pub rule: String,
    /// Tags that may go.
    pub tags: Vec<TagGoes>,
    /// Manifests that may go, an index before its children and a subject before its referrers.
    pub manifests: Vec<ManifestGoes>,
    /// How many tags stay.
    pub tags_kept: u64,
    /// How many manifests stay.
    pub manifests_kept: u64,
    /// How many of those lose their last tag and stay because the rule keeps what has no tag.
    pub left_untagged: u64,
}

/// A tag that may go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagGoes {
    /// The tag.
    pub tag: Tag,
    /// Where it points.
    pub digest: Digest,
    /// When it was moved there, in milliseconds since the Unix epoch.
    pub updated_ms: u64,
    /// When what it points at was last seen to be pulled, in milliseconds since the Unix epoch.
    pub pulled_ms: Option<u64>,
    /// Why none of the rule's conditions keeps it.
    pub why: String,
}

/// A manifest that may go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestGoes {
    /// The manifest.
    pub digest: Digest,
    /// When it was pushed, in milliseconds since the Unix epoch.
    pub pushed_ms: u64,
    /// When it was last seen to be pulled, in milliseconds since the Unix epoch.
    pub pulled_ms: Option<u64>,
    /// Its size in bytes, without the blobs that it names.
    pub bytes: u64,
    /// Why it goes.
    pub why: String,
}

/// Judges one repository.
pub(super) fn judge(law: &Law<'_>, repository: &RepositoryName, contents: &Contents) -> Judgement {
    let bench = Bench { law, contents };
    let tags = bench.judge_tags();
    let kept = bench.kept_manifests(&tags);
    let why_of = |tag: &TagSeen| match tags.get(&tag.tag) {
        Some(Fate::Goes(why)) => Some(why.clone()),
        Some(Fate::Follows(image)) if !kept.contains(image) => {
            Some(format!("it belongs to {image}, which goes"))
        }
        _ => None,
    };
    let gone_tags: Vec<TagGoes> = contents
        .tags
        .iter()
        .filter_map(|seen| {
            let why = why_of(seen)?;
            let TagSeen { tag, digest, updated_ms } = seen.clone();
            let pulled_ms = bench.pulled_ms(&digest);
            Some(TagGoes { tag, digest, updated_ms, pulled_ms, why })
        })
        .collect();
    let manifests = bench.going_manifests(&kept);
    let count = |all: usize, gone: usize| all.saturating_sub(gone) as u64;
    let still_tagged: BTreeSet<&Digest> = contents
        .tags
        .iter()
        .filter(|seen| why_of(seen).is_none())
        .map(|seen| &seen.digest)
        .collect();
    let left: BTreeSet<&Digest> = gone_tags
        .iter()
        .map(|gone| &gone.digest)
        .filter(|digest| kept.contains(*digest) && !still_tagged.contains(digest))
        .collect();
    let keeps_untagged = law.rule.untagged == Untagged::Keep;
    Judgement {
        repository: repository.clone(),
        rule: law.rule.name.clone(),
        tags_kept: count(contents.tags.len(), gone_tags.len()),
        manifests_kept: count(contents.manifests.len(), manifests.len()),
        left_untagged: if keeps_untagged { left.len() as u64 } else { 0 },
        tags: gone_tags,
        manifests,
    }
}

/// What becomes of a tag.
enum Fate {
    Stays,
    Goes(String),
    /// As what the manifest does that it is named after.
    Follows(Digest),
}

struct Bench<'a> {
    law: &'a Law<'a>,
    contents: &'a Contents,
}

impl Bench<'_> {
    fn judge_tags(&self) -> BTreeMap<&Tag, Fate> {
        let rule = self.law.rule;
        let keep_tags: Vec<Pattern> =
            rule.keep_tags.iter().filter_map(|text| Pattern::parse(text).ok()).collect();
        let last = self.last_moved();
        let mut fates = BTreeMap::new();
        for seen in &self.contents.tags {
            let named = |patterns: &[Pattern]| {
                patterns.iter().any(|pattern| pattern.matches(seen.tag.as_str()))
            };
            let fate = if !has_condition(rule) || named(&self.law.immutable) || named(&keep_tags) {
                Fate::Stays
            } else if let Some(image) = self.image_of(&seen.tag) {
                Fate::Follows(image)
            } else {
                self.by_conditions(seen, &last)
            };
            fates.insert(&seen.tag, fate);
        }
        fates
    }

    /// The tags that `keep_last` keeps. Tags that are moved together are ordered by name, the last of which
    /// counts as the newest.
    fn last_moved(&self) -> BTreeSet<&Tag> {
        let Some(keep) = self.law.rule.keep_last else { return BTreeSet::new() };
        let tags = self.contents.tags.iter().filter(|seen| self.image_of(&seen.tag).is_none());
        let mut by_age: Vec<_> = tags.map(|seen| (seen.updated_ms, &seen.tag)).collect();
        by_age.sort_unstable_by(|a, b| b.cmp(a));
        let keep = usize::try_from(keep).unwrap_or(usize::MAX);
        by_age.into_iter().take(keep).map(|(_, tag)| tag).collect()
    }

    /// The manifest of the repository that a tag such as `sha256-<hex>.sig` is named after. Signatures and
    /// the lists of referrers that older clients keep have such tags; each belongs to its image.
    fn image_of(&self, tag: &Tag) -> Option<Digest> {
        let (algorithm, rest) = tag.as_str().split_once('-')?;
        let hex = rest.split('.').next().unwrap_or_default();
        let digest: Digest = format!("{algorithm}:{hex}").parse().ok()?;
        self.contents.manifests.contains_key(&digest).then_some(digest)
    }

    fn by_conditions(&self, seen: &TagSeen, last: &BTreeSet<&Tag>) -> Fate {
        let (rule, now_ms) = (self.law.rule, self.law.now_ms);
        let mut why = Vec::new();
        if let Some(keep) = rule.keep_last {
            if last.contains(&seen.tag) {
                return Fate::Stays;
            }
            why.push(format!("not among the last {keep}"));
        }
        if let Some(days) = rule.keep_younger_days {
            if within(days, seen.updated_ms, now_ms, 0) {
                return Fate::Stays;
            }
            why.push(format!("not moved within {days} days"));
        }
        if let Some(days) = rule.keep_pulled_days {
            let pulled_ms = self.pulled_ms(&seen.digest);
            if self.counts_as_pulled(days, pulled_ms, seen.updated_ms) {
                return Fate::Stays;
            }
            why.push(format!("not pulled within {days} days"));
        }
        if !rule.keep_tags.is_empty() {
            why.push("its name matches nothing that is kept".to_owned());
        }
        Fate::Goes(why.join(", "))
    }

    /// Whether a manifest was pulled within so many days. What came, or was there when the cluster began to
    /// look, counts as pulled then.
    fn counts_as_pulled(&self, days: u32, pulled_ms: Option<u64>, came_ms: u64) -> bool {
        let Law { pulls_since_ms, now_ms, .. } = self.law;
        let last_ms = pulled_ms.unwrap_or(0).max(*pulls_since_ms).max(came_ms);
        within(days, last_ms, *now_ms, PULL_RESOLUTION_MS)
    }

    /// When a manifest was last pulled, or one that it names: a node that has the index asks for no more
    /// than the image of its platform.
    fn pulled_ms(&self, digest: &Digest) -> Option<u64> {
        let mut seen = BTreeSet::from([digest]);
        let mut open = vec![digest];
        let mut last = None;
        while let Some(digest) = open.pop() {
            let Some(manifest) = self.contents.manifests.get(digest) else { continue };
            last = last.max(manifest.pulled_ms);
            open.extend(manifest.children.iter().filter(|child| seen.insert(child)));
        }
        last
    }

    /// The manifests that stay: those that a tag keeps or that are young enough, what these name, and what
    /// refers to them.
    fn kept_manifests<'a>(&'a self, tags: &BTreeMap<&Tag, Fate>) -> BTreeSet<&'a Digest> {
        let manifests = &self.contents.manifests;
        let Untagged::DeleteAfterDays(days) = self.law.rule.untagged else {
            return manifests.keys().collect();
        };
        let mut followers: BTreeMap<&Digest, Vec<&Digest>> = BTreeMap::new();
        let mut kept = BTreeSet::new();
        let mut open = VecDeque::new();
        for seen in &self.contents.tags {
            match tags.get(&seen.tag) {
                Some(Fate::Stays) | None => open.push_back(&seen.digest),
                Some(Fate::Follows(image)) => {
                    // The map's own key lives as long as the answer.
                    if let Some((image, _)) = manifests.get_key_value(image) {
                        followers.entry(image).or_default().push(&seen.digest);
                    }
                }
                Some(Fate::Goes(_)) => {}
            }
        }
        for (digest, manifest) in manifests {
            match self.subject_here(manifest) {
                Some(subject) => followers.entry(subject).or_default().push(digest),
                None if self.is_young(days, manifest) => open.push_back(digest),
                None => {}
            }
        }
        while let Some(digest) = open.pop_front() {
            let Some(manifest) = manifests.get(digest) else { continue };
            if kept.insert(digest) {
                open.extend(&manifest.children);
                open.extend(followers.get(digest).into_iter().flatten());
            }
        }
        kept
    }

    fn subject_here<'a>(&self, manifest: &'a ManifestSeen) -> Option<&'a Digest> {
        manifest.subject.as_ref().filter(|subject| self.contents.manifests.contains_key(*subject))
    }

    /// Whether a manifest without a tag stays for its own sake.
    fn is_young(&self, untagged_days: u32, manifest: &ManifestSeen) -> bool {
        let pulled = self.law.rule.keep_pulled_days.is_some_and(|days| {
            self.counts_as_pulled(days, manifest.pulled_ms, manifest.pushed_ms)
        });
        pulled || within(untagged_days, manifest.pushed_ms, self.law.now_ms, 0)
    }

    /// In an order in which each could be removed alone, as far as there is one.
    fn going_manifests(&self, kept: &BTreeSet<&Digest>) -> Vec<ManifestGoes> {
        let manifests = &self.contents.manifests;
        let going = || manifests.iter().filter(|(digest, _)| !kept.contains(digest));
        let is_going = |digest: &Digest| manifests.contains_key(digest) && !kept.contains(digest);
        // Who has to go before whom.
        let mut before: BTreeMap<&Digest, usize> = going().map(|(digest, _)| (digest, 0)).collect();
        let mut after: BTreeMap<&Digest, Vec<&Digest>> = BTreeMap::new();
        for (digest, manifest) in going() {
            let children: BTreeSet<&Digest> =
                manifest.children.iter().filter(|child| is_going(child)).collect();
            for child in children {
                *before.entry(child).or_default() += 1;
                after.entry(digest).or_default().push(child);
            }
            if let Some(subject) = self.subject_here(manifest) {
                *before.entry(digest).or_default() += 1;
                after.entry(subject).or_default().push(digest);
            }
        }
        let free = before.iter().filter(|(_, count)| **count == 0);
        let mut open: VecDeque<&Digest> = free.map(|(digest, _)| *digest).collect();
        let mut ordered = Vec::new();
        loop {
            while let Some(digest) = open.pop_front() {
                if before.remove(digest).is_none() {
                    continue;
                }
                ordered.push(digest);
                for next in after.get(digest).into_iter().flatten() {
                    if let Some(count) = before.get_mut(next) {
                        *count = count.saturating_sub(1);
                        if *count == 0 {
                            open.push_back(next);
                        }
                    }
                }
            }
            // What is left goes round in circles, such as an index whose subject is one of its own
            // children: those that only wait for each other go side by side, at once or not at all.
            let rings = before.keys().copied().map(|digest| waits_for(digest, &before, &after));
            match rings.min_by_key(BTreeSet::len) {
                Some(ring) => open.extend(ring),
                None => break,
            }
        }
        ordered
            .into_iter()
            .filter_map(|digest| Some((digest, manifests.get(digest)?)))
            .map(|(digest, manifest)| ManifestGoes {
                digest: digest.clone(),
                pushed_ms: manifest.pushed_ms,
                pulled_ms: manifest.pulled_ms,
                bytes: manifest.bytes,
                why: self.why_manifest(manifest),
            })
            .collect()
    }

    fn why_manifest(&self, manifest: &ManifestSeen) -> String {
        if let Some(subject) = self.subject_here(manifest) {
            return format!("its subject {subject} goes");
        }
        match self.law.rule.untagged {
            Untagged::DeleteAfterDays(0) | Untagged::Keep => "no tag names it".to_owned(),
            Untagged::DeleteAfterDays(days) => {
                format!("no tag names it, pushed more than {days} days ago")
            }
        }
    }
}

/// Those left that a manifest waits for, itself and what these wait for included.
fn waits_for<'a>(
    digest: &'a Digest,
    left: &BTreeMap<&'a Digest, usize>,
    after: &BTreeMap<&'a Digest, Vec<&'a Digest>>,
) -> BTreeSet<&'a Digest> {
    let mut ring = BTreeSet::from([digest]);
    loop {
        let size = ring.len();
        for (first, then) in after {
            if left.contains_key(first) && then.iter().any(|next| ring.contains(next)) {
                ring.insert(first);
            }
        }
        if ring.len() == size {
            return ring;
        }
    }
}

/// Whether the rule says anything about tags.
fn has_condition(rule: &RetentionRule) -> bool {
    rule.keep_last.is_some()
        || rule.keep_younger_days.is_some()
        || rule.keep_pulled_days.is_some()
        || !rule.keep_tags.is_empty()
}

/// Whether less than so many days have gone by since; none of them are over at once.
fn within(days: u32, then_ms: u64, now_ms: u64, slack_ms: u64) -> bool {
    let span_ms = u64::from(days).saturating_mul(DAY_MS).saturating_add(slack_ms);
    days > 0 && now_ms.saturating_sub(then_ms) < span_ms
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;

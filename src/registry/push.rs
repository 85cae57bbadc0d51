//! Push of a manifest: one command.

use tercet_raft::{AbsentReferences, Command, Condition, Outcome};
use tercet_storage::{
    Algorithm, Digest, ManifestLimits, Reference, RepositoryName, Tag, failpoint, parse_manifest,
};

use super::error::RegistryError;
use super::read::{find, writable};
use super::sparse;
use crate::core::Core;

/// A manifest that a client wants stored.
#[derive(Debug)]
pub(crate) struct ManifestPush {
    /// Where.
    pub(crate) repository: RepositoryName,
    /// Under which tag or digest.
    pub(crate) reference: Reference,
    /// Further tags (`?tag=`).
    pub(crate) tags: Vec<Tag>,
    /// `Content-Type` without its parameters.
    pub(crate) content_type: Option<String>,
    /// The manifest.
    pub(crate) bytes: Vec<u8>,
    /// What must hold of the tags.
    pub(crate) precondition: Precondition,
}

/// A precondition as a request spells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Precondition {
    /// None.
    None,
    /// `If-Match: "<digest>"`.
    Matches(Digest),
    /// `If-Match: *`.
    Exists,
    /// `If-None-Match: *`.
    Absent,
}

/// What was stored.
#[derive(Debug)]
pub(crate) struct ManifestPushed {
    /// The manifest's digest.
    pub(crate) digest: Digest,
    /// Its subject, registered as such.
    pub(crate) subject: Option<Digest>,
    /// Every tag that points at it now.
    pub(crate) tags: Vec<Tag>,
    /// What it names and the repository did not have.
    pub(crate) absent: Vec<Digest>,
}

/// Stores a manifest. What it names must be in the repository; that, the tags, the counts and the
/// referrers are judged and changed in one step of the state machine.
pub(crate) async fn push_manifest(
    core: &Core,
    push: ManifestPush,
) -> Result<ManifestPushed, RegistryError> {
    let limits = ManifestLimits {
        max_bytes: core.config.limits.manifest_bytes,
        max_descriptors: core.config.limits.manifest_descriptors,
    };
    let summary = parse_manifest(&push.bytes, push.content_type.as_deref(), &limits)?;
    let digest = verified_digest(&push)?;
    let tags = all_tags(push.reference.clone(), push.tags.clone());
    writable(core).await?;
    let condition = condition(core, &push.repository, &digest, &tags, push.precondition).await?;
    let subject = summary.subject.clone();
    let command = |absent, bytes| Command::PushManifest {
        repository: push.repository.clone(),
        digest: digest.clone(),
        media_type: summary.media_type.clone(),
        bytes,
        summary: summary.clone(),
        tags: tags.clone(),
        condition: condition.clone(),
        absent,
    };
    let whole = command(AbsentReferences::Refused, push.bytes.clone());
    let mut absent = Vec::new();
    failpoint::hit("push.before_manifest");
    let mut outcome = core.consensus.propose(whole).await?;
    failpoint::hit("push.after_manifest");
    if let Outcome::MissingReferences(missing) = &outcome
        && sparse::accepts(core.config.registry.sparse_manifests, &summary, missing)
    {
        absent.clone_from(missing);
        let part = command(AbsentReferences::Allowed(absent.clone()), push.bytes);
        outcome = core.consensus.propose(part).await?;
        if matches!(outcome, Outcome::Done) {
            tracing::info!(
                repository = %push.repository, %digest, missing = absent.len(),
                "a manifest was pushed without all that it names"
            );
        }
    }
    let repository = push.repository;
    match outcome {
        Outcome::Done => Ok(ManifestPushed { digest, subject, tags, absent }),
        Outcome::MissingReferences(missing) => Err(RegistryError::MissingReferences(missing)),
        Outcome::ConditionFailed { current } => Err(RegistryError::ConditionFailed { current }),
        // Nothing was pushed to the repository yet, so whatever the manifest names is missing.
        Outcome::RepositoryUnknown | Outcome::NotFound => {
            Err(RegistryError::RepositoryUnknown(repository))
        }
        Outcome::TagImmutable { tag, rule, current } => {
            Err(RegistryError::TagImmutable { repository, tag, rule, current })
        }
        other => Err(RegistryError::Refused(other.to_string())),
    }
}

/// A push by digest is verified with that digest's algorithm; a push by tag gets a SHA-256.
fn verified_digest(push: &ManifestPush) -> Result<Digest, RegistryError> {
    match &push.reference {
        Reference::Tag(_) => Ok(Digest::of(Algorithm::Sha256, &push.bytes)),
        Reference::Digest(expected) => {
            let actual = Digest::of(expected.algorithm(), &push.bytes);
            if actual == *expected {
                return Ok(actual);
            }
            Err(RegistryError::DigestMismatch { expected: expected.clone(), actual })
        }
    }
}

fn all_tags(reference: Reference, further: Vec<Tag>) -> Vec<Tag> {
    let mut tags = Vec::with_capacity(further.len() + 1);
    if let Reference::Tag(tag) = reference {
        tags.push(tag);
    }
    for tag in further {
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    tags
}

/// The group knows no "points at something": a tag that exists is compared with what it points at
/// now, so a push that races with this one still fails the condition.
async fn condition(
    core: &Core,
    repository: &RepositoryName,
    digest: &Digest,
    tags: &[Tag],
    precondition: Precondition,
) -> Result<Condition, RegistryError> {
    match precondition {
        Precondition::None => Ok(Condition::None),
        Precondition::Matches(digest) => Ok(Condition::IfMatch(digest)),
        Precondition::Absent => Ok(Condition::IfNoneMatchAny),
        Precondition::Exists => {
            let Some(tag) = tags.first() else { return Ok(Condition::IfMatch(digest.clone())) };
            match find(core, |meta| meta.tag(repository, tag)).await? {
                Some(current) => Ok(Condition::IfMatch(current.value.digest)),
                None => Err(RegistryError::ConditionFailed { current: None }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn push(reference: &str) -> ManifestPush {
        ManifestPush {
            repository: "a/b".parse().unwrap(),
            reference: reference.parse().unwrap(),
            tags: Vec::new(),
            content_type: None,
            bytes: b"{}".to_vec(),
            precondition: Precondition::None,
        }
    }

    #[test]
    fn a_digest_is_verified_with_its_own_algorithm() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let right = Digest::of(algorithm, b"{}");
            assert_eq!(verified_digest(&push(&right.to_string())).unwrap(), right);
            let wrong = Digest::of(algorithm, b"other");
            let refused = verified_digest(&push(&wrong.to_string())).unwrap_err();
            assert!(
                matches!(refused, RegistryError::DigestMismatch { expected, .. } if expected == wrong)
            );
        }
        assert_eq!(verified_digest(&push("v1")).unwrap().algorithm(), Algorithm::Sha256);
    }

    #[test]
    fn tags_of_path_and_query_join_without_repeats() {
        let tag = |text: &str| text.parse::<Tag>().unwrap();
        let tags = all_tags("v1".parse().unwrap(), vec![tag("latest"), tag("v1"), tag("latest")]);
        assert_eq!(tags, [tag("v1"), tag("latest")]);
    }
}

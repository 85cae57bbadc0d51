//! What was judged becomes commands.

use tercet_raft::{Command, ExpiredManifest, ExpiredTag, Outcome, RETIRED_MAX};
use tercet_storage::{Digest, RepositoryName, Tag};

use super::judge::{Judgement, ManifestGoes, TagGoes};
use crate::core::Core;
use crate::registry::error::RegistryError;

/// Bytes of manifests that one command removes: every replica reads them while it applies it.
const BATCH_BYTES: u64 = 8 * 1024 * 1024;
/// Names that a log line shows.
const SHOWN: usize = 20;

/// How much went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Retired {
    pub(super) tags: u64,
    pub(super) manifests: u64,
}

/// Removes what a judgement lets go of, as far as it still is as it was judged.
pub(super) async fn enforce(core: &Core, judgement: Judgement) -> Result<Retired, RegistryError> {
    let repository = judgement.repository.clone();
    let mut retired = Retired::default();
    for command in commands(judgement.repository, judgement.tags, judgement.manifests) {
        match core.consensus.propose(command).await? {
            Outcome::Retired { tags, manifests } => {
                tell(&repository, &judgement.rule, &tags, &manifests);
                let (tags, manifests) = (tags.len() as u64, manifests.len() as u64);
                core.metrics.retention_expired.with_label_values(&["tag"]).inc_by(tags);
                core.metrics.retention_expired.with_label_values(&["manifest"]).inc_by(manifests);
                retired.tags += tags;
                retired.manifests += manifests;
            }
            Outcome::RepositoryUnknown => return Ok(retired),
            other => return Err(RegistryError::Refused(format!("retention: {other}"))),
        }
    }
    Ok(retired)
}

fn tell(repository: &RepositoryName, rule: &str, tags: &[Tag], manifests: &[Digest]) {
    if tags.is_empty() && manifests.is_empty() {
        return;
    }
    let shown_tags: Vec<&str> = tags.iter().take(SHOWN).map(Tag::as_str).collect();
    let shown: Vec<String> = manifests.iter().take(SHOWN).map(ToString::to_string).collect();
    tracing::info!(
        %repository, rule, tags = tags.len(), manifests = manifests.len(), ?shown_tags, ?shown,
        "retention removed tags and manifests"
    );
}

/// Tags first: they are what keeps manifests. The order of the manifests stays.
fn commands(
    repository: RepositoryName,
    tags: Vec<TagGoes>,
    manifests: Vec<ManifestGoes>,
) -> Vec<Command> {
    let mut commands = Vec::new();
    let (mut some_tags, mut some_manifests, mut bytes) = (Vec::new(), Vec::new(), 0);
    let mut cut = |tags: &mut Vec<ExpiredTag>, manifests: &mut Vec<ExpiredManifest>| {
        if !tags.is_empty() || !manifests.is_empty() {
            commands.push(Command::ApplyRetention {
                repository: repository.clone(),
                tags: std::mem::take(tags),
                manifests: std::mem::take(manifests),
            });
        }
    };
    for TagGoes { tag, digest, updated_ms, .. } in tags {
        some_tags.push(ExpiredTag { tag, digest, updated_ms });
        if some_tags.len() == RETIRED_MAX {
            cut(&mut some_tags, &mut some_manifests);
        }
    }
    for ManifestGoes { digest, pushed_ms, bytes: size, .. } in manifests {
        if bytes > 0 && bytes + size > BATCH_BYTES {
            cut(&mut some_tags, &mut some_manifests);
            bytes = 0;
        }
        some_manifests.push(ExpiredManifest { digest, pushed_ms });
        bytes += size;
        if some_tags.len() + some_manifests.len() == RETIRED_MAX {
            cut(&mut some_tags, &mut some_manifests);
            bytes = 0;
        }
    }
    cut(&mut some_tags, &mut some_manifests);
    commands
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use tercet_storage::Algorithm;

    use super::*;

    fn tag(number: usize) -> TagGoes {
        TagGoes {
            tag: format!("v{number}").parse().unwrap(),
            digest: Digest::of(Algorithm::Sha256, b"m"),
            updated_ms: 1,
            pulled_ms: None,
            why: String::new(),
        }
    }

    fn manifest(number: usize, bytes: u64) -> ManifestGoes {
        ManifestGoes {
            digest: Digest::of(Algorithm::Sha256, number.to_string().as_bytes()),
            pushed_ms: 1,
            pulled_ms: None,
            bytes,
            why: String::new(),
        }
    }

    fn sizes(commands: &[Command]) -> Vec<(usize, usize)> {
        let size = |command: &Command| match command {
            Command::ApplyRetention { tags, manifests, .. } => (tags.len(), manifests.len()),
            other => panic!("{other:?}"),
        };
        commands.iter().map(size).collect()
    }

    #[test]
    fn batches_are_bounded_in_number_and_bytes_and_nothing_is_left_out() {
        let repository: RepositoryName = "a".parse().unwrap();
        let of = |tags: usize, manifests: usize, bytes: u64| {
            let tags = (0..tags).map(tag).collect();
            let manifests = (0..manifests).map(|i| manifest(i, bytes)).collect();
            sizes(&commands(repository.clone(), tags, manifests))
        };
        assert_eq!(of(0, 0, 1), []);
        assert_eq!(of(3, 2, 1), [(3, 2)]);
        assert_eq!(of(256, 0, 1), [(256, 0)]);
        assert_eq!(of(300, 300, 1), [(256, 0), (44, 212), (0, 88)]);
        assert_eq!(of(1, 3, BATCH_BYTES), [(1, 1), (0, 1), (0, 1)]);
        assert_eq!(of(0, 1, 2 * BATCH_BYTES), [(0, 1)], "one that is larger goes alone");
    }
}

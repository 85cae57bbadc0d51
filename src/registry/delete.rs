//! Deletes are commands: decided by the group, in one order with every push.

use tercet_raft::{Command, Outcome};
use tercet_storage::{Digest, Reference, RepositoryName, Tag};

use super::error::RegistryError;
use super::read::writable;
use crate::core::Core;

/// Removes a manifest from a repository, with every tag there that points at it.
pub(crate) async fn delete_manifest(
    core: &Core,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<(), RegistryError> {
    let command =
        Command::DeleteManifest { repository: repository.clone(), digest: digest.clone() };
    let reference = Reference::Digest(digest.clone());
    propose(core, repository, command, || RegistryError::manifest_unknown(repository, &reference))
        .await
}

/// Removes a tag. The manifest stays.
pub(crate) async fn delete_tag(
    core: &Core,
    repository: &RepositoryName,
    tag: &Tag,
) -> Result<(), RegistryError> {
    let command = Command::DeleteTag { repository: repository.clone(), tag: tag.clone() };
    let reference = Reference::Tag(tag.clone());
    propose(core, repository, command, || RegistryError::manifest_unknown(repository, &reference))
        .await
}

/// Removes a blob from a repository, unless a manifest there names it.
pub(crate) async fn delete_blob(
    core: &Core,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<(), RegistryError> {
    let command = Command::UnlinkBlob { repository: repository.clone(), digest: digest.clone() };
    let (repository, digest) = (repository.clone(), digest.clone());
    writable(core).await?;
    match core.consensus.propose(command).await? {
        Outcome::Done => Ok(()),
        Outcome::InUse => Err(RegistryError::BlobInUse { repository, digest }),
        Outcome::NotFound | Outcome::RepositoryUnknown => {
            Err(RegistryError::BlobUnknown { repository, digest })
        }
        other => Err(RegistryError::Refused(other.to_string())),
    }
}

async fn propose(
    core: &Core,
    repository: &RepositoryName,
    command: Command,
    not_found: impl FnOnce() -> RegistryError,
) -> Result<(), RegistryError> {
    writable(core).await?;
    match core.consensus.propose(command).await? {
        Outcome::Done => Ok(()),
        Outcome::NotFound => Err(not_found()),
        Outcome::RepositoryUnknown => Err(RegistryError::RepositoryUnknown(repository.clone())),
        Outcome::TagImmutable { tag, rule, current } => {
            Err(RegistryError::TagImmutable { repository: repository.clone(), tag, rule, current })
        }
        other => Err(RegistryError::Refused(other.to_string())),
    }
}

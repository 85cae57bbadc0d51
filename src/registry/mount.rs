//! Mounting a blob from another repository.

use tercet_raft::{Command, Outcome};
use tercet_storage::{Digest, RepositoryName};

use super::error::RegistryError;
use super::read::{read, writable};
use crate::core::Core;

/// Repositories with the blob that one search looks at.
const SEARCHED_MAX: usize = 512;

/// Whether a mount was possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mounted {
    /// The blob is in the repository now.
    Yes,
    /// The source has no such blob; the client has to upload it.
    NotThere,
}

/// Makes a blob of `from` visible in `repository`.
pub(crate) async fn mount(
    core: &Core,
    repository: &RepositoryName,
    digest: &Digest,
    from: &RepositoryName,
) -> Result<Mounted, RegistryError> {
    writable(core).await?;
    let command = Command::LinkBlob {
        repository: repository.clone(),
        digest: digest.clone(),
        from: from.clone(),
    };
    match core.consensus.propose(command).await? {
        Outcome::Done => Ok(Mounted::Yes),
        Outcome::NotFound | Outcome::RepositoryUnknown => Ok(Mounted::NotThere),
        other => Err(RegistryError::Refused(other.to_string())),
    }
}

/// A repository to mount a blob from when the client names none: one that the client may read, and
/// `repository` itself before all others. A search that finds nothing within its bound only costs the
/// client an upload.
pub(crate) async fn find_source(
    core: &Core,
    repository: &RepositoryName,
    digest: &Digest,
    readable: impl Fn(&RepositoryName) -> bool,
) -> Result<Option<RepositoryName>, RegistryError> {
    let found = read(core, |meta| {
        if meta.blob(digest)?.is_none() {
            return Ok(None);
        }
        if meta.blob_link(repository, digest)?.is_some() && readable(repository) {
            return Ok(Some(repository.clone()));
        }
        for name in meta.blob_repositories(digest, SEARCHED_MAX)? {
            if readable(&name) {
                return Ok(Some(name));
            }
        }
        Ok(None)
    });
    Ok(found.await?.value)
}

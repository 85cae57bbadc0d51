//! Mounting a blob from another repository.

use tercet_raft::{Command, Outcome};
use tercet_storage::{Digest, RepositoryName};

use super::error::RegistryError;
use super::read::writable;
use crate::core::Core;

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

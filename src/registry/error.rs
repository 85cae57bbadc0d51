//! What a use case can answer instead of a result, in the words of whoever asked.

use tercet_raft::ProposeError;
use tercet_storage::{
    Digest, ManifestError, Reference, RepositoryName, StorageError, Tag, UploadId,
};
use thiserror::Error;

/// A request that was not carried out. `api::error` maps each variant to HTTP.
#[derive(Debug, Error)]
pub(crate) enum RegistryError {
    /// Nothing was ever pushed to the repository.
    #[error("repository {0} does not exist")]
    RepositoryUnknown(RepositoryName),
    /// The blob is not visible in the repository.
    #[error("blob {digest} is not in repository {repository}")]
    BlobUnknown {
        /// The repository.
        repository: RepositoryName,
        /// The blob.
        digest: Digest,
    },
    /// The repository has no such tag or manifest.
    #[error("manifest {reference} is not in repository {repository}")]
    ManifestUnknown {
        /// The repository.
        repository: RepositoryName,
        /// What was asked for, as text.
        reference: String,
    },
    /// No replica that answers has this session: it was closed, cancelled or idle for too long.
    #[error(
        "upload session {0} is not known to this registry: it was closed, cancelled or idle for too long"
    )]
    UploadUnknown(UploadId),
    /// Another request on the session is still sending.
    #[error("upload session {0} is busy with another request")]
    UploadBusy(UploadId),
    /// `limits.uploads_max` sessions are open.
    #[error("{0} uploads are open on this replica, no more are taken now")]
    UploadsFull(usize),
    /// A chunk does not begin where the session ends.
    #[error("the chunk starts at {start}, upload session {id} has {offset} bytes")]
    OffsetMismatch {
        /// The session.
        id: UploadId,
        /// Its repository.
        repository: RepositoryName,
        /// Bytes the session has.
        offset: u64,
        /// Where the chunk would start.
        start: u64,
    },
    /// A body has not the length that the request's header gave it.
    #[error("the body has not the {expected} bytes that the request announced")]
    BodyLength {
        /// What was announced.
        expected: u64,
    },
    /// A body ended before its end. What came is kept.
    #[error("the body broke off after {received} bytes: {reason}")]
    BodyBroken {
        /// Bytes of this body that were taken.
        received: u64,
        /// Why.
        reason: String,
    },
    /// A body came more slowly than `limits.body_rate_min_bytes`. What came is kept.
    #[error("the body came too slowly; {received} bytes were taken")]
    BodyTooSlow {
        /// Bytes of this body that were taken.
        received: u64,
    },
    /// The bytes are not those that the digest names.
    #[error("the content has digest {actual}, the request says {expected}")]
    DigestMismatch {
        /// What the client said.
        expected: Digest,
        /// What the bytes hash to.
        actual: Digest,
    },
    /// The manifest is not one that can be stored.
    #[error("manifest refused: {0}")]
    ManifestInvalid(String),
    /// The manifest is over `limits.manifest_bytes`.
    #[error("manifests of more than {bytes_max} bytes are refused")]
    ManifestTooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// The manifest names content that the repository lacks.
    #[error("the manifest names content that the repository does not have")]
    MissingReferences(Vec<Digest>),
    /// A manifest of the repository names the blob.
    #[error("blob {digest} is named by a manifest of repository {repository}: delete that first")]
    BlobInUse {
        /// The repository.
        repository: RepositoryName,
        /// The blob.
        digest: Digest,
    },
    /// `If-Match` or `If-None-Match` did not hold.
    #[error("the condition does not hold: the tag points at {}", current.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string))]
    ConditionFailed {
        /// What the tag points at.
        current: Option<Digest>,
    },
    /// A rule of `immutable_tags` covers the tag.
    #[error(
        "tag {tag} of repository {repository} does not move: rule {rule:?} makes it immutable, and it points at {current}. Push under another tag"
    )]
    TagImmutable {
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: Tag,
        /// The rule's name.
        rule: String,
        /// What it points at.
        current: Digest,
    },
    /// The disk is too full.
    #[error(
        "the replica's disk is too full for this upload; push through another replica, or ask the operator for space"
    )]
    NoSpace(#[source] StorageError),
    /// The disks that a push needs are too full: those of the majority, or of the replicas that should hold
    /// the blob.
    #[error("the registry is out of space: {0}")]
    ClusterFull(String),
    /// No majority, or not enough copies, at this moment. Nothing acknowledged is lost.
    #[error("not possible at this moment: {0}")]
    Unavailable(String),
    /// The group refused the command.
    #[error("refused: {0}")]
    Refused(String),
    /// The disk or the database failed.
    #[error(transparent)]
    Storage(StorageError),
}

impl RegistryError {
    /// A manifest that is not there.
    pub(crate) fn manifest_unknown(repository: &RepositoryName, reference: &Reference) -> Self {
        Self::ManifestUnknown { repository: repository.clone(), reference: reference.to_string() }
    }
}

impl From<StorageError> for RegistryError {
    fn from(error: StorageError) -> Self {
        match error {
            error if error.is_no_space() => Self::NoSpace(error),
            error if error.is_out_of_files() => {
                tracing::warn!(%error, "too many files are open");
                Self::Unavailable("too many files are open".to_owned())
            }
            StorageError::DigestMismatch { expected, actual } => {
                Self::DigestMismatch { expected, actual }
            }
            StorageError::UploadBusy(id) => Self::UploadBusy(id),
            error => Self::Storage(error),
        }
    }
}

impl From<ProposeError> for RegistryError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NoSpace(why) => Self::ClusterFull(why),
            error => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<ManifestError> for RegistryError {
    fn from(error: ManifestError) -> Self {
        match error {
            ManifestError::TooLarge { max, .. } => Self::ManifestTooLarge { bytes_max: max },
            error => Self::ManifestInvalid(error.to_string()),
        }
    }
}

//! What the tests push and look for.

use tercet_raft::{Command, Condition, Consensus, Outcome, ProposeError};
use tercet_storage::{Algorithm, Digest, ManifestSummary, RepositoryName, Tag};

pub(crate) fn repository() -> RepositoryName {
    "group/test".parse().unwrap()
}

pub(crate) fn tag() -> Tag {
    "latest".parse().unwrap()
}

pub(crate) fn manifest_command(content: &str, condition: Condition) -> (Digest, Command) {
    let bytes = format!("{{\"manifest\":\"{content}\"}}").into_bytes();
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    let command = Command::PutManifest {
        repository: repository(),
        digest: digest.clone(),
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        bytes,
        summary: ManifestSummary {
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            references: Vec::new(),
            subject: None,
            artifact_type: None,
            annotations: Default::default(),
        },
        tags: vec![tag()],
        condition,
    };
    (digest, command)
}

pub(crate) async fn put_manifest(
    replica: &Consensus,
    content: &str,
    condition: Condition,
) -> Result<(Digest, Outcome), ProposeError> {
    let (digest, command) = manifest_command(content, condition);
    let outcome = replica.propose(command).await?;
    Ok((digest, outcome))
}

/// Commits a blob and a manifest of the same digest, and points the tag at it.
pub(crate) async fn push_tag(replica: &Consensus, content: &str) -> Result<Digest, ProposeError> {
    let (digest, outcome) = put_manifest(replica, content, Condition::None).await?;
    assert_eq!(outcome, Outcome::Done);
    let blob = Command::BlobCommitted { digest: digest.clone(), size: 1, repository: repository() };
    assert_eq!(replica.propose(blob).await?, Outcome::Done);
    Ok(digest)
}

pub(crate) fn read_tag(replica: &Consensus) -> Option<Digest> {
    replica.read(|meta| meta.tag(&repository(), &tag())).unwrap().unwrap().map(|tag| tag.digest)
}

pub(crate) fn knows_blob(replica: &Consensus, digest: &Digest) -> bool {
    replica.read(|meta| meta.blob(digest)).unwrap().unwrap().is_some()
}

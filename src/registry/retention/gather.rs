//! What a repository holds, as far as retention asks.

use tercet_raft::Consensus;
use tercet_storage::{Digest, Meta, ReferenceKind, RepositoryName, StateDb, StorageError};

use super::judge::{Contents, ManifestSeen, TagSeen};
use crate::registry::error::RegistryError;
use crate::registry::read::look;

/// Records that are read at a time. Between two pages others may write: what is removed is looked at
/// again when it is.
const PAGE: usize = 256;
/// Tags and manifests of one repository that are held in memory at once.
const CONTENTS_MAX: usize = 1_000_000;

/// Reads all of a repository. Blocking.
pub(super) fn gather(
    consensus: &Consensus,
    repository: &RepositoryName,
) -> Result<Contents, RegistryError> {
    let mut contents = Contents::default();
    let mut after: Option<String> = None;
    loop {
        let page = look(consensus, |meta| tags(&meta, repository, after.as_deref()))?;
        let Some(last) = page.last() else { break };
        after = Some(last.tag.to_string());
        contents.tags.extend(page);
        bound(repository, &contents)?;
    }
    let mut after: Option<Digest> = None;
    loop {
        let page = look(consensus, |meta| manifests(&meta, repository, after.as_ref()))?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        contents.manifests.extend(page);
        bound(repository, &contents)?;
    }
    Ok(contents)
}

fn bound(repository: &RepositoryName, contents: &Contents) -> Result<(), RegistryError> {
    if contents.tags.len() + contents.manifests.len() <= CONTENTS_MAX {
        return Ok(());
    }
    Err(RegistryError::Refused(format!(
        "{repository} has more than {CONTENTS_MAX} tags and manifests: too many to judge"
    )))
}

fn tags(
    meta: &Meta<'_, StateDb>,
    repository: &RepositoryName,
    after: Option<&str>,
) -> Result<Vec<TagSeen>, StorageError> {
    let mut page = Vec::new();
    for tag in meta.tags(repository, after, PAGE)? {
        if let Some(record) = meta.tag(repository, &tag)? {
            page.push(TagSeen { tag, digest: record.digest, updated_ms: record.updated_ms });
        }
    }
    Ok(page)
}

fn manifests(
    meta: &Meta<'_, StateDb>,
    repository: &RepositoryName,
    after: Option<&Digest>,
) -> Result<Vec<(Digest, ManifestSeen)>, StorageError> {
    let mut page = Vec::new();
    for (digest, link) in meta.manifest_links(repository, after, PAGE)? {
        let record = meta.manifest(&digest)?;
        let pulled_ms = meta.pull(repository, &digest)?.map(|record| record.last_ms);
        let bytes = record.as_ref().map_or(0, |record| record.bytes.len() as u64);
        let (children, subject) = match record {
            Some(record) => {
                let references = record.summary.references.into_iter();
                let children = references
                    .filter(|reference| reference.kind == ReferenceKind::Manifest)
                    .map(|reference| reference.digest);
                (children.collect(), record.summary.subject)
            }
            None => (Vec::new(), None),
        };
        let pushed_ms = link.pushed_ms;
        page.push((digest, ManifestSeen { pushed_ms, pulled_ms, children, subject, bytes }));
    }
    Ok(page)
}

//! Pull: blobs by digest, manifests by tag or digest.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use tercet_storage::{Digest, Reference, RepositoryName};

use super::error::RegistryError;
use super::read::{Current, find};
use crate::core::Core;
use crate::peer::read_or_go_on;

/// A manifest as it was pushed.
#[derive(Debug)]
pub(crate) struct ManifestFound {
    /// Its digest.
    pub(crate) digest: Digest,
    /// The media type it was pushed with.
    pub(crate) media_type: String,
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
}

/// The size of a blob, if the repository has it. Whether this replica's disk holds the bytes is
/// another matter: see [`open_blob`].
pub(crate) async fn blob_size(
    core: &Core,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Current<u64>, RegistryError> {
    let found = find(core, |meta| {
        // A blob is visible in a repository only if it is linked there.
        if meta.blob_link(repository, digest)?.is_none() {
            return Ok(None);
        }
        Ok(meta.blob(digest)?.map(|record| record.size))
    })
    .await?;
    found.ok_or_else(|| RegistryError::BlobUnknown {
        repository: repository.clone(),
        digest: digest.clone(),
    })
}

/// Bytes on their way to a client. An error in it means: cut the response.
pub(crate) type ByteStream = BoxStream<'static, io::Result<Bytes>>;

/// Opens a blob, or a part of it, from this disk or else from a peer.
pub(crate) async fn open_blob(
    core: &Core,
    digest: &Digest,
    size: u64,
    range: Option<Range<u64>>,
) -> Result<ByteStream, RegistryError> {
    match core.blobs.reader(digest, range.clone()).await {
        Ok(Some(reader)) if reader.size() == size => {
            core.fetcher.used(digest);
            return Ok(read_or_go_on(&core.fetcher, reader).map_err(io::Error::other).boxed());
        }
        // Its end is not where the response ends, so its hash would come too late.
        Ok(Some(reader)) => {
            let on_disk = reader.size();
            tracing::error!(%digest, on_disk, size, "blob has the wrong size here, reading it from a peer");
            core.blobs.quarantine(digest, "it has another size than was committed").await?;
        }
        Ok(None) => {}
        // Damaged, or the disk fails: a peer has a good copy.
        Err(error) => {
            tracing::error!(%digest, %error, "blob cannot be read here, reading it from a peer");
        }
    }
    let stream = core
        .fetcher
        .open(digest, size, range)
        .await
        .map_err(|error| RegistryError::Unavailable(error.to_string()))?;
    Ok(stream.map_err(io::Error::other).boxed())
}

/// The manifest that a tag points at, or the one with this digest.
pub(crate) async fn find_manifest(
    core: &Core,
    repository: &RepositoryName,
    reference: &Reference,
) -> Result<Current<ManifestFound>, RegistryError> {
    let found = find(core, |meta| {
        let digest = match reference {
            Reference::Digest(digest) => digest.clone(),
            Reference::Tag(tag) => match meta.tag(repository, tag)? {
                Some(record) => record.digest,
                None => return Ok(None),
            },
        };
        let Some(link) = meta.manifest_link(repository, &digest)? else { return Ok(None) };
        let Some(record) = meta.manifest(&digest)? else { return Ok(None) };
        Ok(Some(ManifestFound { digest, media_type: link.media_type, bytes: record.bytes }))
    })
    .await?;
    if let Some(found) = &found {
        core.pulls.note(repository, &found.value.digest);
    }
    found.ok_or_else(|| RegistryError::manifest_unknown(repository, reference))
}

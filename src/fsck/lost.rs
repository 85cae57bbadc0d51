//! Which blobs of the catalogue this disk does not have, and which images that hurts.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use tercet_storage::{
    BlobRecord, DataDir, Digest, KvRead, Meta, ReferenceKind, RepositoryName, StorageError, Tag,
};

/// Records read at once.
const PAGE: usize = 512;

/// The catalogue compared with a disk.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    /// Blobs that are there with the right size.
    pub(crate) present: u64,
    /// Their bytes.
    pub(crate) present_bytes: u64,
    /// Blobs of the catalogue that are not there, or with another size; and their size.
    pub(crate) lost: BTreeMap<Digest, u64>,
}

impl Inventory {
    /// Looks for each blob of the catalogue, without reading it.
    pub(crate) fn take<R: KvRead>(meta: Meta<'_, R>, data: &DataDir) -> Result<Self, StorageError> {
        let mut inventory = Self::default();
        for_each_blob(meta, |digest, size| {
            let path = data.blob(digest);
            match fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.is_file() && metadata.len() == size => {
                    inventory.present += 1;
                    inventory.present_bytes += size;
                }
                Ok(_) => {
                    inventory.lost.insert(digest.clone(), size);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    inventory.lost.insert(digest.clone(), size);
                }
                Err(source) => return Err(StorageError::Io { operation: "stat", path, source }),
            }
            Ok(())
        })?;
        Ok(inventory)
    }

    /// How many bytes are not there.
    pub(crate) fn lost_bytes(&self) -> u64 {
        self.lost.values().sum()
    }
}

/// A manifest that cannot be pulled whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Incomplete {
    /// The repository.
    pub(crate) repository: RepositoryName,
    /// The manifest.
    pub(crate) digest: Digest,
    /// The tags that point at it.
    pub(crate) tags: Vec<Tag>,
    /// How many of the lost blobs it names.
    pub(crate) lost: usize,
}

impl Incomplete {
    /// As a person names it.
    pub(crate) fn label(&self) -> String {
        match self.tags.as_slice() {
            [] => format!("{}@{}", self.repository, self.digest),
            tags => {
                let tags: Vec<&str> = tags.iter().map(Tag::as_str).collect();
                format!("{}:{}", self.repository, tags.join(","))
            }
        }
    }
}

/// The manifests that name one of `lost`, by repository.
pub(crate) fn incomplete<R: KvRead>(
    meta: Meta<'_, R>,
    lost: &BTreeMap<Digest, u64>,
) -> Result<Vec<Incomplete>, StorageError> {
    let mut found = Vec::new();
    if lost.is_empty() {
        return Ok(found);
    }
    for_each_manifest(meta, |repository, digest| {
        let Some(record) = meta.manifest(digest)? else { return Ok(()) };
        let named = record.summary.references.iter().filter(|reference| {
            reference.kind == ReferenceKind::Blob && lost.contains_key(&reference.digest)
        });
        let lost = named.count();
        if lost > 0 {
            let tags = meta.tags_of(repository, digest)?;
            let (repository, digest) = (repository.clone(), digest.clone());
            found.push(Incomplete { repository, digest, tags, lost });
        }
        Ok(())
    })?;
    Ok(found)
}

/// Every blob of the catalogue with its size, in order.
pub(crate) fn for_each_blob<R: KvRead>(
    meta: Meta<'_, R>,
    mut visit: impl FnMut(&Digest, u64) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    for_each_blob_record(meta, |digest, record| visit(digest, record.size))
}

/// Every blob of the catalogue, in order.
pub(crate) fn for_each_blob_record<R: KvRead>(
    meta: Meta<'_, R>,
    mut visit: impl FnMut(&Digest, &BlobRecord) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let mut after = None;
    loop {
        let page = meta.blobs(after.as_ref(), PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        for (digest, record) in &page {
            visit(digest, record)?;
        }
    }
}

/// Every manifest of every repository, in order.
pub(crate) fn for_each_manifest<R: KvRead>(
    meta: Meta<'_, R>,
    mut visit: impl FnMut(&RepositoryName, &Digest) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    for_each_repository(meta, |repository| {
        let mut after = None;
        loop {
            let page = meta.manifest_links(repository, after.as_ref(), PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            for (digest, _) in &page {
                visit(repository, digest)?;
            }
        }
    })
}

/// Every repository, in order.
pub(crate) fn for_each_repository<R: KvRead>(
    meta: Meta<'_, R>,
    mut visit: impl FnMut(&RepositoryName) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let mut after: Option<RepositoryName> = None;
    loop {
        let page = meta.repositories(after.as_ref().map(RepositoryName::as_str), PAGE)?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        for repository in &page {
            visit(repository)?;
        }
    }
}

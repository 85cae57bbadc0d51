//! Walks the published blobs in pages.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::layout::DataDir;
use super::pending::blocking;
use super::store::BlobStore;
use crate::error::StorageError;
use crate::{Algorithm, Digest};

impl BlobStore {
    /// At most `limit` published blobs after `after`, in ascending order: the order of
    /// [`crate::Meta::blobs`]. Memory is bounded by the page and one directory of 1/256 of the blobs. Blobs
    /// published or deleted meanwhile may or may not be seen.
    pub async fn list(
        &self,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<Digest>, StorageError> {
        let (store, after) = (Arc::clone(self.inner()), after.cloned());
        blocking("list blobs", move || page(&store.dir, after.as_ref(), limit)).await
    }
}

fn page(dir: &DataDir, after: Option<&Digest>, limit: usize) -> Result<Vec<Digest>, StorageError> {
    let mut found = Vec::new();
    let first_algorithm = after.map_or(Algorithm::Sha256, Digest::algorithm);
    for algorithm in Algorithm::ALL {
        if algorithm < first_algorithm {
            continue;
        }
        let first_shard = match after {
            Some(after) if after.algorithm() == algorithm => {
                after.as_bytes().first().copied().unwrap_or(0)
            }
            _ => 0,
        };
        for shard in first_shard..=u8::MAX {
            if found.len() >= limit {
                return Ok(found);
            }
            let path = dir.blob_shard(algorithm, &format!("{shard:02x}"));
            let mut digests = read_shard(&path, algorithm)?;
            digests.retain(|digest| after.is_none_or(|after| digest > after));
            digests.sort_unstable();
            digests.truncate(limit - found.len());
            found.append(&mut digests);
        }
    }
    Ok(found)
}

fn read_shard(path: &Path, algorithm: Algorithm) -> Result<Vec<Digest>, StorageError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StorageError::io("list", path)(error)),
    };
    let mut digests = Vec::new();
    for entry in entries {
        let name = entry.map_err(StorageError::io("list", path))?.file_name();
        // Anything else was not put here by this program.
        let digest = name.to_str().and_then(|hex| format!("{algorithm}:{hex}").parse().ok());
        digests.extend(digest);
    }
    Ok(digests)
}

//! Content that arrives under a known digest, typically from a peer.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::pending::{Lent, blocking};
use super::publish::publish;
use super::sink::Sink;
use super::store::{BlobStore, Inner};
use crate::Digest;
use crate::error::StorageError;

/// Writes one blob. Nothing is visible before [`BlobWriter::finish`] succeeds; dropping it forgets the content.
pub struct BlobWriter {
    store: Arc<Inner>,
    digest: Digest,
    expected_size: Option<u64>,
    offset: Arc<AtomicU64>,
    sink: Lent<TemporarySink>,
}

impl BlobStore {
    /// Starts to write the blob `digest`. With `expected_size` its space is reserved now, and content of any
    /// other size is refused.
    pub async fn writer(
        &self,
        digest: Digest,
        expected_size: Option<u64>,
    ) -> Result<BlobWriter, StorageError> {
        let store = Arc::clone(self.inner());
        let algorithm = digest.algorithm();
        let (store, sink) = blocking("create blob", move || {
            // Without a size the volume must at least not be full already.
            let reserved = store.gate.reserve(expected_size.unwrap_or(0))?;
            let reserved = expected_size.map(|_| reserved);
            let path = store.dir.temporary();
            let sink = Sink::create(path.clone(), algorithm, Arc::clone(&store.gate), reserved)?;
            Ok((store, TemporarySink { sink, path }))
        })
        .await?;
        let offset = sink.sink.shared_offset();
        Ok(BlobWriter { store, digest, expected_size, offset, sink: Lent::new(sink) })
    }
}

impl BlobWriter {
    /// The digest this content must have.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Bytes written so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }

    /// Appends `chunk`: all of it, or an error and none of it.
    pub async fn append(&mut self, chunk: Bytes) -> Result<(), StorageError> {
        self.sink.settle("write blob").await?;
        let after = self.written().saturating_add(chunk.len() as u64);
        if let Some(expected) = self.expected_size.filter(|expected| after > *expected) {
            return Err(StorageError::SizeMismatch {
                digest: self.digest.clone(),
                expected,
                actual: after,
            });
        }
        self.sink.run("write blob", move |temporary| temporary.sink.append(&chunk)).await
    }

    /// Verifies and publishes the content. Durable on return; returns its size in bytes.
    pub async fn finish(self) -> Result<u64, StorageError> {
        let Self { store, digest, expected_size, sink, .. } = self;
        let temporary = sink.take("publish blob").await?;
        let actual = temporary.sink.offset();
        if let Some(expected) = expected_size.filter(|expected| *expected != actual) {
            return Err(StorageError::SizeMismatch { digest, expected, actual });
        }
        let guard = store.locks.lock(&digest).await;
        blocking("publish blob", move || publish(&store, &digest, &temporary.sink, &guard)).await
    }
}

impl fmt::Debug for BlobWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobWriter")
            .field("digest", &self.digest)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

/// A sink whose file goes away with it, unless it was published.
#[derive(Debug)]
struct TemporarySink {
    sink: Sink,
    path: PathBuf,
}

impl Drop for TemporarySink {
    fn drop(&mut self) {
        // After a rename there is nothing under this name. What cannot be removed is removed at the next start.
        fs::remove_file(&self.path).ok();
    }
}

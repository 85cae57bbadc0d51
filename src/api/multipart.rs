//! `multipart/byteranges`: several parts of a blob in one answer (RFC 9110 section 14.6).

use std::io;
use std::ops::Range;
use std::sync::Arc;

use axum::http::HeaderValue;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use tercet_storage::Digest;

use super::header::value;
use crate::core::Core;
use crate::registry::{self, ByteStream, RegistryError};

/// Longest boundary that RFC 2046 allows is 70.
const BOUNDARY_BYTES: usize = 64;

/// The body of an answer with several parts, not opened yet.
#[derive(Debug)]
pub(super) struct Multipart {
    boundary: String,
    size: u64,
    parts: Vec<Range<u64>>,
}

impl Multipart {
    /// Parts of the blob with this digest, which has `size` bytes.
    pub(super) fn new(digest: &Digest, size: u64, parts: Vec<Range<u64>>) -> Self {
        // No content can hold its own hash, so none can hold this line; and a repeated request gets
        // the same bytes.
        let mut boundary = digest.hex();
        boundary.truncate(BOUNDARY_BYTES);
        Self { boundary, size, parts }
    }

    /// `Content-Type`.
    pub(super) fn content_type(&self) -> HeaderValue {
        value(&format!("multipart/byteranges; boundary={}", self.boundary))
    }

    /// `Content-Length`: of the parts and of what stands around them.
    pub(super) fn length(&self) -> u64 {
        let of = |text: String| text.len() as u64;
        let parts = self.parts.iter().enumerate();
        let parts = parts.map(|(index, part)| of(self.head(index, part)) + (part.end - part.start));
        parts.sum::<u64>() + of(self.end())
    }

    /// Opens the first part, so that a blob which cannot be read is still an error with a status, and
    /// each other one when the one before it has been sent.
    pub(super) async fn open(
        self,
        core: &Arc<Core>,
        digest: &Digest,
    ) -> Result<ByteStream, RegistryError> {
        let opened = match self.parts.first() {
            Some(part) => registry::open_blob(core, digest, self.size, Some(part.clone())).await?,
            None => stream::empty().boxed(),
        };
        let first = self.parts.first().map(|part| with_head(self.head(0, part), opened));
        let (core, digest) = (Arc::clone(core), digest.clone());
        let end = text(self.end());
        let others = stream::iter(1..self.parts.len()).then(move |index| {
            let (core, digest) = (Arc::clone(&core), digest.clone());
            let part = self.parts.get(index).cloned().unwrap_or_default();
            let head = self.head(index, &part);
            async move {
                let opened = registry::open_blob(&core, &digest, self.size, Some(part)).await;
                opened.map(|bytes| with_head(head, bytes)).map_err(io::Error::other)
            }
        });
        let first = stream::iter(first).flatten();
        Ok(first.chain(others.try_flatten()).chain(end).boxed())
    }

    fn head(&self, index: usize, part: &Range<u64>) -> String {
        format!(
            "{}--{}\r\nContent-Type: application/octet-stream\r\nContent-Range: {}\r\n\r\n",
            if index == 0 { "" } else { "\r\n" },
            self.boundary,
            content_range(part, self.size),
        )
    }

    fn end(&self) -> String {
        format!("\r\n--{}--\r\n", self.boundary)
    }
}

/// `Content-Range` of a part.
pub(super) fn content_range(part: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", part.start, part.end.saturating_sub(1))
}

fn with_head(head: String, bytes: ByteStream) -> ByteStream {
    text(head).chain(bytes).boxed()
}

fn text(text: String) -> BoxStream<'static, io::Result<Bytes>> {
    stream::iter([Ok(Bytes::from(text))]).boxed()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use tercet_storage::Algorithm;

    #[test]
    fn the_length_counts_what_is_around_the_parts() {
        for algorithm in Algorithm::ALL {
            let digest = Digest::of(algorithm, b"x");
            let multipart = Multipart::new(&digest, 1000, vec![0..1, 10..30]);
            assert_eq!(multipart.boundary.len(), BOUNDARY_BYTES);
            let written = multipart.head(0, &(0..1)).len()
                + 1
                + multipart.head(1, &(10..30)).len()
                + 20
                + multipart.end().len();
            assert_eq!(multipart.length(), written as u64);
            assert!(multipart.head(1, &(10..30)).contains("Content-Range: bytes 10-29/1000\r\n"));
        }
    }
}

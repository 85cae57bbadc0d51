//! Pushing: each step of the distribution specification, and whole images.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use reqwest::{Body, Method};

use super::{Answer, RegistryClient};
use crate::{
    content::{Blob, Image},
    large::LargeBlob,
};

/// An open upload session, as far as the client knows it.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Where the next step goes: path and query.
    pub location: String,
    /// Bytes sent.
    pub offset: u64,
}

impl Upload {
    /// Takes the place for the next step from an answer.
    pub fn follow(&mut self, answer: &Answer) -> Result<()> {
        answer.need_header("location")?.clone_into(&mut self.location);
        Ok(())
    }

    /// The location with one more query parameter.
    pub fn with_digest(&self, digest: &str) -> String {
        let sign = if self.location.contains('?') { '&' } else { '?' };
        format!("{}{sign}digest={digest}", self.location)
    }
}

impl RegistryClient {
    /// `POST …/blobs/uploads/`.
    pub async fn open_upload(&self, repository: &str) -> Result<Upload> {
        let path = format!("/v2/{repository}/blobs/uploads/");
        let answer = self.call(Method::POST, &path).await?.expect(202)?;
        let location = answer.need_header("location")?.to_owned();
        Ok(Upload { location, offset: 0 })
    }

    /// One chunk with its `Content-Range`; the raw answer.
    pub async fn patch(&self, upload: &Upload, start: u64, chunk: Bytes) -> Result<Answer> {
        let end = (start + chunk.len() as u64).saturating_sub(1);
        let request = self
            .request(Method::PATCH, &upload.location)?
            .header("content-type", "application/octet-stream")
            .header("content-range", format!("{start}-{end}"))
            .body(chunk);
        self.send(request).await
    }

    /// The next chunk, which must be accepted.
    pub async fn append(&self, upload: &mut Upload, chunk: Bytes) -> Result<()> {
        let length = chunk.len() as u64;
        let answer = self.patch(upload, upload.offset, chunk).await?.expect(202)?;
        upload.offset += length;
        let range = answer.need_header("range")?;
        let wanted = format!("0-{}", upload.offset.saturating_sub(1));
        ensure!(range == wanted, "wanted Range {wanted}, got {range}");
        upload.follow(&answer)
    }

    /// The closing `PUT`, with an optional last chunk; the raw answer.
    pub async fn finish(&self, upload: &Upload, digest: &str, last: Bytes) -> Result<Answer> {
        let request = self
            .request(Method::PUT, &upload.with_digest(digest))?
            .header("content-type", "application/octet-stream")
            .body(last);
        self.send(request).await
    }

    /// A whole blob: `POST`, then `PUT` with the bytes.
    pub async fn push_blob(&self, repository: &str, blob: &Blob) -> Result<()> {
        let upload = self.open_upload(repository).await?;
        let answer = self.finish(&upload, &blob.digest, blob.bytes.clone()).await?;
        check_created(answer, &blob.digest)
    }

    /// A whole blob in a single `POST ?digest=`.
    pub async fn push_blob_at_once(&self, repository: &str, blob: &Blob) -> Result<()> {
        let path = format!("/v2/{repository}/blobs/uploads/?digest={}", blob.digest);
        let request = self
            .request(Method::POST, &path)?
            .header("content-type", "application/octet-stream")
            .body(blob.bytes.clone());
        check_created(self.send(request).await?, &blob.digest)
    }

    /// A blob in chunks: `POST`, `PATCH` for each chunk, `PUT`.
    pub async fn push_blob_chunked(
        &self,
        repository: &str,
        blob: &Blob,
        size: usize,
    ) -> Result<()> {
        let mut upload = self.open_upload(repository).await?;
        let mut rest = blob.bytes.clone();
        while !rest.is_empty() {
            let chunk = rest.split_to(size.clamp(1, rest.len()));
            self.append(&mut upload, chunk).await?;
        }
        check_created(self.finish(&upload, &blob.digest, Bytes::new()).await?, &blob.digest)
    }

    /// A generated blob in one streamed `PATCH`, never whole in memory.
    pub async fn push_large(&self, repository: &str, blob: &LargeBlob) -> Result<()> {
        let mut upload = self.open_upload(repository).await?;
        let request = self
            .request(Method::PATCH, &upload.location)?
            .timeout(blob.deadline())
            .header("content-type", "application/octet-stream")
            .body(Body::wrap_stream(blob.stream()));
        let answer = self.send(request).await?.expect(202)?;
        upload.follow(&answer)?;
        let request =
            self.request(Method::PUT, &upload.with_digest(blob.digest()))?.timeout(blob.deadline());
        check_created(self.send(request).await?, blob.digest())
    }

    /// `PUT` of a manifest; the raw answer.
    pub async fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Answer> {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let request =
            self.request(Method::PUT, &path)?.header("content-type", media_type).body(bytes);
        self.send(request).await.with_context(|| format!("PUT {path}"))
    }

    /// A manifest that must be accepted.
    pub async fn push_manifest(
        &self,
        repository: &str,
        reference: &str,
        image: &Image,
    ) -> Result<()> {
        let bytes = image.manifest.bytes.clone();
        let answer = self.put_manifest(repository, reference, &image.media_type, bytes).await?;
        check_created(answer, &image.manifest.digest)
    }

    /// All blobs of an image, then its manifest.
    pub async fn push_image(&self, repository: &str, reference: &str, image: &Image) -> Result<()> {
        for blob in &image.blobs {
            self.push_blob(repository, blob).await?;
        }
        self.push_manifest(repository, reference, image).await
    }
}

/// `201`, with the digest in its header and a place to read it from.
fn check_created(answer: Answer, digest: &str) -> Result<()> {
    let answer = answer.expect(201)?;
    let found = answer.need_header("docker-content-digest")?;
    ensure!(found == digest, "wanted digest {digest}, got {found}");
    answer.need_header("location")?;
    Ok(())
}

//! Pulling, with every byte checked against the digest that was asked for.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures_util::StreamExt as _;
use reqwest::{Method, header::ACCEPT};
use serde_json::Value;

use super::{Answer, RegistryClient};
use crate::{
    content::{Image, MediaType},
    digest::Hasher,
    large::LargeBlob,
};

impl RegistryClient {
    /// `GET` of a manifest by tag or digest; the raw answer.
    pub async fn get_manifest(&self, repository: &str, reference: &str) -> Result<Answer> {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let request = self.request(Method::GET, &path)?.header(ACCEPT, MediaType::ACCEPT_ALL);
        self.send(request).await.with_context(|| format!("GET {path}"))
    }

    /// A manifest that must be there; its bytes hash to the digest that the registry names.
    pub async fn pull_manifest(&self, repository: &str, reference: &str) -> Result<Answer> {
        let answer = self.get_manifest(repository, reference).await?.expect(200)?;
        let digest = answer.need_header("docker-content-digest")?;
        check(digest, &answer.body)?;
        if reference.contains(':') {
            check(reference, &answer.body)?;
        }
        Ok(answer)
    }

    /// A blob that must be there, in memory.
    pub async fn pull_blob(&self, repository: &str, digest: &str) -> Result<Bytes> {
        let answer = self.get(&format!("/v2/{repository}/blobs/{digest}")).await?.expect(200)?;
        check(digest, &answer.body)?;
        Ok(answer.body)
    }

    /// Part of a blob; the raw answer. `range` is the header's value.
    pub async fn get_range(&self, repository: &str, digest: &str, range: &str) -> Result<Answer> {
        let path = format!("/v2/{repository}/blobs/{digest}");
        let request = self.request(Method::GET, &path)?.header("range", range);
        self.send(request).await
    }

    /// Manifest and all blobs, byte for byte. Returns the manifest's answer.
    pub async fn pull_image(
        &self,
        repository: &str,
        reference: &str,
        image: &Image,
    ) -> Result<Answer> {
        let answer = self.pull_manifest(repository, reference).await?;
        ensure!(
            answer.body == image.manifest.bytes,
            "{repository}:{reference} is another manifest: {}",
            answer.describe()
        );
        for blob in &image.blobs {
            let bytes = self
                .pull_blob(repository, &blob.digest)
                .await
                .with_context(|| format!("pull of {repository}:{reference}"))?;
            ensure!(bytes == blob.bytes, "{} differs", blob.digest);
        }
        Ok(answer)
    }

    /// A generated blob, every byte hashed, never whole in memory.
    pub async fn pull_large(&self, repository: &str, blob: &LargeBlob) -> Result<()> {
        let mut hasher = Hasher::like(blob.digest());
        let length = self.read_large(repository, blob, |_, bytes| {
            hasher.update(bytes);
            Ok(())
        });
        let length = length.await?;
        ensure!(length == blob.size(), "{length} bytes of {}", blob.size());
        let found = hasher.finish();
        ensure!(found == blob.digest(), "the bytes hash to {found}");
        Ok(())
    }

    /// As [`Self::pull_large`], but compares only the start of every block: with dozens of pulls on two
    /// cores, the client's hashing would be most of the work.
    pub async fn pull_large_sampled(&self, repository: &str, blob: &LargeBlob) -> Result<()> {
        let length =
            self.read_large(repository, blob, |offset, bytes| blob.check_samples(offset, bytes));
        let length = length.await?;
        ensure!(length == blob.size(), "{length} bytes of {}", blob.size());
        Ok(())
    }

    /// The tags of a repository, first page.
    pub async fn tags(&self, repository: &str) -> Result<Vec<String>> {
        let answer = self.get(&format!("/v2/{repository}/tags/list")).await?.expect(200)?;
        strings(&answer.json()?, "/tags")
    }

    /// The descriptors that refer to a subject, first page.
    pub async fn referrers(&self, repository: &str, digest: &str) -> Result<Vec<Value>> {
        let answer =
            self.get(&format!("/v2/{repository}/referrers/{digest}")).await?.expect(200)?;
        let index = answer.json()?;
        let list = index.pointer("/manifests").and_then(Value::as_array);
        Ok(list.with_context(|| format!("no manifests: {}", answer.describe()))?.clone())
    }

    async fn read_large(
        &self,
        repository: &str,
        blob: &LargeBlob,
        mut take: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<u64> {
        let path = format!("/v2/{repository}/blobs/{}", blob.digest());
        let request = self.request(Method::GET, &path)?.timeout(blob.deadline());
        let response = request.send().await?;
        if response.status() != 200 {
            bail!("wanted 200, got {}", Answer::read(response).await?.describe());
        }
        let mut stream = response.bytes_stream();
        let mut offset = 0;
        while let Some(bytes) = stream.next().await {
            let bytes = bytes.with_context(|| format!("GET {path} after {offset} bytes"))?;
            take(offset, &bytes)?;
            offset += bytes.len() as u64;
        }
        Ok(offset)
    }
}

/// The strings of a JSON array.
fn strings(json: &Value, pointer: &str) -> Result<Vec<String>> {
    let list = json.pointer(pointer).and_then(Value::as_array);
    let list = list.with_context(|| format!("no list {pointer} in {json}"))?;
    list.iter()
        .map(|item| Ok(item.as_str().with_context(|| format!("{item} is no string"))?.to_owned()))
        .collect()
}

fn check(digest: &str, bytes: &[u8]) -> Result<()> {
    let mut hasher = Hasher::like(digest);
    hasher.update(bytes);
    let found = hasher.finish();
    ensure!(found == digest, "asked for {digest}, got bytes of {found}");
    Ok(())
}

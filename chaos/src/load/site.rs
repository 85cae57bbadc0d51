//! What one server is asked for, with the requests as they go over the wire.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::Value;

use super::{
    endpoint::Endpoint,
    options::{LoadOptions, LoadTarget, Source},
};
use crate::{
    client::RegistryClient,
    content::{Image, MediaType},
    wait::wait_until,
};

/// For each request of the preparation, which may move a layer of gigabytes.
const PATIENCE: Duration = Duration::from_secs(300);
/// Until a replica gives what was pushed to another one.
const EVERYWHERE_WITHIN: Duration = Duration::from_secs(120);

/// A `GET`, ready to be sent.
#[derive(Debug)]
pub(super) struct Get {
    /// All of the request.
    pub(super) head: Vec<u8>,
    /// What the body hashes to, if that is known.
    pub(super) digest: Option<String>,
    /// How long the body is, if that is known.
    pub(super) bytes: Option<u64>,
}

/// A manifest, as it is pulled by its tag and pushed under others.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) get: Get,
    pub(super) media_type: String,
    pub(super) content: Bytes,
}

/// One server of a target.
pub(super) struct Site {
    pub(super) endpoint: Arc<Endpoint>,
    /// Where pushes go.
    pub(super) repository: String,
    /// `POST` that opens an upload.
    pub(super) open_upload: Vec<u8>,
    pub(super) manifest: Option<Manifest>,
    /// Everything that the manifest names: first the configs, then the layers.
    pub(super) image: Vec<Get>,
    /// How many of [`Self::image`] are configs.
    configs: usize,
}

impl Site {
    /// The layers in turn; the config, if an image has nothing else.
    pub(super) fn layer(&self, number: u64) -> Option<&Get> {
        let layers = self.image.get(self.configs..).filter(|layers| !layers.is_empty());
        let layers = layers.unwrap_or(&self.image);
        let index = number.checked_rem(layers.len() as u64)?;
        layers.get(usize::try_from(index).ok()?)
    }
}

/// Makes an image for the load, if it needs one of its own. It is the same for the same seed.
pub(super) fn make_image(options: &LoadOptions) -> Option<Image> {
    match &options.source {
        Source::Made(sizes) if options.workload.needs_image() => {
            Some(Image::random(options.seed, sizes))
        }
        _ => None,
    }
}

/// Brings a target to where the load can begin: everything that will be asked for is there, and was pulled and hashed
/// once from each server.
///
/// # Errors
/// If a server does not take or give something.
pub(super) async fn prepare(
    options: &LoadOptions,
    target: &LoadTarget,
    made: Option<&Image>,
) -> Result<Vec<Arc<Site>>> {
    let tag = format!("seed-{}", options.seed);
    let mut sites = Vec::new();
    for (index, url) in target.urls.iter().enumerate() {
        let endpoint = Endpoint::new(url, options.ca.as_deref())?;
        let client =
            RegistryClient::external(url, options.ca.as_deref(), None)?.patient_for(PATIENCE);
        let wanted = match (&options.source, made) {
            (Source::Paths(paths), _) => of_paths(&client, paths).await?,
            (Source::Existing { repository, tag }, _) if options.workload.needs_image() => {
                of_existing(&client, repository, tag).await?
            }
            (_, Some(image)) => {
                let repository = &options.repository;
                if index == 0 {
                    let push = client.push_image(repository, &tag, image);
                    push.await.with_context(|| format!("push an image to {url}"))?;
                }
                let what = format!("{url} gives the image");
                let pull = || client.pull_image(repository, &tag, image);
                wait_until(&what, EVERYWHERE_WITHIN, pull).await?;
                of_image(repository, &tag, image)
            }
            _ => Wanted::default(),
        };
        // A manifest can only be put where its blobs are.
        let repository = match &options.source {
            Source::Existing { repository, .. } => repository,
            Source::Made(_) | Source::Paths(_) => &options.repository,
        };
        sites.push(Arc::new(wanted.site(endpoint, repository)));
    }
    ensure!(!sites.is_empty(), "{} has no server", target.name);
    Ok(sites)
}

/// A path, and what is known of what lies there.
struct Item {
    path: String,
    digest: Option<String>,
    bytes: Option<u64>,
}

impl Item {
    fn get(&self, host: &str, accept: &str) -> Get {
        let path = &self.path;
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tercet-chaos\r\nAccept: {accept}\r\n\r\n"
        );
        Get { head: head.into_bytes(), digest: self.digest.clone(), bytes: self.bytes }
    }
}

/// What a server will be asked for, before it is known how it is called.
#[derive(Default)]
struct Wanted {
    manifest: Option<(Item, String, Bytes)>,
    image: Vec<Item>,
    configs: usize,
}

impl Wanted {
    fn site(self, endpoint: Endpoint, repository: &str) -> Site {
        let host = endpoint.host.clone();
        let open = format!(
            "POST /v2/{repository}/blobs/uploads/ HTTP/1.1\r\nHost: {host}\r\n\
             User-Agent: tercet-chaos\r\nContent-Length: 0\r\n\r\n"
        );
        let manifest = self.manifest.map(|(item, media_type, content)| Manifest {
            get: item.get(&host, MediaType::ACCEPT_ALL),
            media_type,
            content,
        });
        Site {
            endpoint: Arc::new(endpoint),
            repository: repository.to_owned(),
            open_upload: open.into_bytes(),
            manifest,
            image: self.image.iter().map(|item| item.get(&host, "*/*")).collect(),
            configs: self.configs,
        }
    }
}

async fn of_paths(client: &RegistryClient, paths: &[String]) -> Result<Wanted> {
    let mut image = Vec::new();
    for path in paths {
        let bytes = client.get(path).await?.expect(200)?.body.len() as u64;
        image.push(Item { path: path.to_owned(), digest: None, bytes: Some(bytes) });
    }
    Ok(Wanted { image, ..Wanted::default() })
}

fn of_image(repository: &str, tag: &str, image: &Image) -> Wanted {
    let manifest = Item {
        path: format!("/v2/{repository}/manifests/{tag}"),
        digest: Some(image.manifest.digest.clone()),
        bytes: Some(image.manifest.bytes.len() as u64),
    };
    let blobs = image.blobs.iter();
    Wanted {
        manifest: Some((manifest, image.media_type.clone(), image.manifest.bytes.clone())),
        image: blobs
            .map(|blob| blob_item(repository, &blob.digest, blob.bytes.len() as u64))
            .collect(),
        configs: 1,
    }
}

/// An image that is there already. Of an index, the blobs of its first image.
async fn of_existing(client: &RegistryClient, repository: &str, tag: &str) -> Result<Wanted> {
    let answer = client.get_manifest(repository, tag).await?.expect(200)?;
    let mut json = answer.json()?;
    // Not every server that gives a manifest knows what it is: a plain file server has neither of the headers.
    let media_type = json
        .pointer("/mediaType")
        .and_then(Value::as_str)
        .unwrap_or(MediaType::MANIFEST)
        .to_owned();
    let manifest = Item {
        path: format!("/v2/{repository}/manifests/{tag}"),
        digest: Some(crate::digest::sha256(&answer.body)),
        bytes: Some(answer.body.len() as u64),
    };
    if let Some(first) = json.pointer("/manifests/0/digest").and_then(Value::as_str) {
        json = client.get_manifest(repository, first).await?.expect(200)?.json()?;
    }
    let mut image = Vec::new();
    let config = json.pointer("/config").into_iter();
    let configs = config.clone().count();
    let layers = json.pointer("/layers").and_then(Value::as_array).into_iter().flatten();
    for descriptor in config.chain(layers) {
        let text = descriptor.pointer("/digest").and_then(Value::as_str);
        let digest = text.with_context(|| format!("{descriptor} has no digest"))?;
        let bytes = client.pull_blob(repository, digest).await?.len() as u64;
        image.push(blob_item(repository, digest, bytes));
    }
    ensure!(!image.is_empty(), "{repository}:{tag} names no blobs: {json}");
    Ok(Wanted { manifest: Some((manifest, media_type, answer.body.clone())), image, configs })
}

fn blob_item(repository: &str, digest: &str, bytes: u64) -> Item {
    Item {
        path: format!("/v2/{repository}/blobs/{digest}"),
        digest: Some(digest.to_owned()),
        bytes: Some(bytes),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn requests_are_ready_and_layers_come_in_turn() {
        let image = Image::random(1, &[10, 20]);
        let endpoint = Endpoint::new("http://127.0.0.1:5000", None).unwrap();
        let site = of_image("a/b", "t", &image).site(endpoint, "a/b");
        let sizes: Vec<Option<u64>> = (0..3).map(|turn| site.layer(turn).unwrap().bytes).collect();
        assert_eq!(sizes, [Some(10), Some(20), Some(10)]);
        assert_eq!(site.image.len(), 3);
        let text = |get: &Get| String::from_utf8(get.head.clone()).unwrap();
        let manifest = text(&site.manifest.as_ref().unwrap().get);
        assert!(
            manifest.starts_with("GET /v2/a/b/manifests/t HTTP/1.1\r\nHost: 127.0.0.1:5000\r\n")
        );
        assert!(manifest.contains(MediaType::MANIFEST) && manifest.ends_with("\r\n\r\n"));
        let layer = text(site.layer(0).unwrap());
        let digest = &image.blobs.get(1).unwrap().digest;
        assert!(layer.starts_with(&format!("GET /v2/a/b/blobs/{digest} HTTP/1.1\r\n")));
    }

    #[test]
    fn without_an_image_there_is_nothing_to_pull() {
        let endpoint = Endpoint::new("http://127.0.0.1:5000", None).unwrap();
        assert!(Wanted::default().site(endpoint, "a").layer(3).is_none());
    }
}

//! OCI image layouts on disk: what real clients read images from and write them to.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{content::Image, digest::sha256};

/// What a manifest says about content elsewhere.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Its type.
    pub media_type: String,
    /// Its digest.
    pub digest: String,
    /// Bytes.
    pub size: u64,
}

/// A layout folder.
#[derive(Clone, Debug)]
pub struct Layout {
    path: PathBuf,
}

impl Layout {
    /// Makes an empty layout.
    pub fn create(path: &Path) -> Result<Self> {
        fs::create_dir_all(path.join("blobs/sha256"))?;
        fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        fs::write(path.join("index.json"), r#"{"schemaVersion":2,"manifests":[]}"#)?;
        Ok(Self { path: path.to_path_buf() })
    }

    /// Opens one that a client wrote.
    pub fn open(path: &Path) -> Result<Self> {
        ensure!(path.join("index.json").is_file(), "no image layout at {}", path.display());
        Ok(Self { path: path.to_path_buf() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path as the text that clients take.
    pub fn text(&self) -> String {
        self.path.display().to_string()
    }

    /// Writes an image's blobs and manifest, without naming it.
    pub fn add(&self, image: &Image) -> Result<()> {
        for blob in image.blobs.iter().chain([&image.manifest]) {
            fs::write(self.blob_path(&blob.digest)?, &blob.bytes)?;
        }
        Ok(())
    }

    /// Writes an image and gives it a tag.
    pub fn add_tagged(&self, image: &Image, tag: &str) -> Result<()> {
        self.add(image)?;
        let mut index: Value = serde_json::from_slice(&fs::read(self.path.join("index.json"))?)?;
        let mut descriptor = image.descriptor();
        if let Some(fields) = descriptor.as_object_mut() {
            let name = json!({ "org.opencontainers.image.ref.name": tag });
            fields.insert("annotations".to_owned(), name);
        }
        let list = index.pointer_mut("/manifests").and_then(Value::as_array_mut);
        list.context("index.json has no manifests")?.push(descriptor);
        fs::write(self.path.join("index.json"), index.to_string())?;
        Ok(())
    }

    /// What `index.json` names.
    pub fn roots(&self) -> Result<Vec<Descriptor>> {
        descriptors(&fs::read(self.path.join("index.json"))?)
    }

    /// The digests of everything reachable from `root`, each file's bytes hashed and its size compared.
    pub fn verify(&self, root: &str) -> Result<BTreeSet<String>> {
        let mut seen = BTreeSet::new();
        let mut open = vec![root.to_owned()];
        while let Some(digest) = open.pop() {
            if !seen.insert(digest.clone()) {
                continue;
            }
            let path = self.blob_path(&digest)?;
            let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            ensure!(sha256(&bytes) == digest, "{} has other bytes", path.display());
            // Only manifests and indexes name others; they are small, and layers are no JSON.
            if let Ok(children) = descriptors(&bytes) {
                for child in children {
                    let size = fs::metadata(self.blob_path(&child.digest)?)?.len();
                    ensure!(size == child.size, "{} has {size} bytes", child.digest);
                    open.push(child.digest);
                }
            }
        }
        Ok(seen)
    }

    /// Reads a manifest of the layout.
    pub fn read(&self, digest: &str) -> Result<Vec<u8>> {
        Ok(fs::read(self.blob_path(digest)?)?)
    }

    fn blob_path(&self, digest: &str) -> Result<PathBuf> {
        let hex = digest.strip_prefix("sha256:").context("layouts of the tests use sha256")?;
        Ok(self.path.join("blobs/sha256").join(hex))
    }
}

/// The config, layers and manifests that a manifest, or an index, names.
fn descriptors(bytes: &[u8]) -> Result<Vec<Descriptor>> {
    let json: Value = serde_json::from_slice(bytes)?;
    let kind = json.pointer("/schemaVersion").context("no manifest")?;
    ensure!(kind == 2, "schema version {kind}");
    let mut found = Vec::new();
    if let Some(config) = json.get("config") {
        found.push(serde_json::from_value(config.clone())?);
    }
    for list in ["layers", "manifests"] {
        for item in json.get(list).and_then(Value::as_array).into_iter().flatten() {
            found.push(serde_json::from_value(item.clone())?);
        }
    }
    Ok(found)
}

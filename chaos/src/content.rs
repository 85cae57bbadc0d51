//! Content made from seeds: the same seed gives the same bytes in every run.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::digest::sha256;

/// The media types that the tests use.
pub struct MediaType;

impl MediaType {
    /// An OCI image manifest.
    pub const MANIFEST: &'static str = "application/vnd.oci.image.manifest.v1+json";
    /// An OCI image index.
    pub const INDEX: &'static str = "application/vnd.oci.image.index.v1+json";
    /// An OCI image config.
    pub const CONFIG: &'static str = "application/vnd.oci.image.config.v1+json";
    /// A layer: a gzipped tar.
    pub const LAYER: &'static str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// The config of an artifact that has none.
    pub const EMPTY: &'static str = "application/vnd.oci.empty.v1+json";
    /// Docker's image manifest.
    pub const DOCKER_MANIFEST: &'static str =
        "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's list of manifests.
    pub const DOCKER_LIST: &'static str =
        "application/vnd.docker.distribution.manifest.list.v2+json";
    /// What clients of today send as `Accept` for a manifest.
    pub const ACCEPT_ALL: &'static str = "application/vnd.oci.image.manifest.v1+json, \
        application/vnd.oci.image.index.v1+json, \
        application/vnd.docker.distribution.manifest.v2+json, \
        application/vnd.docker.distribution.manifest.list.v2+json";
}

/// The well-known empty blob of artifacts.
pub const EMPTY_JSON: &[u8] = b"{}";

/// Bytes with their digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// The content.
    pub bytes: Bytes,
    /// Its sha256 digest, unless made otherwise.
    pub digest: String,
}

impl Blob {
    /// From bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { digest: sha256(&bytes), bytes }
    }

    /// Pseudo-random bytes from a seed.
    pub fn random(seed: u64, size: usize) -> Self {
        Self::new(random_bytes(seed, size))
    }

    /// As a manifest names it.
    pub fn descriptor(&self, media_type: &str) -> Value {
        json!({ "mediaType": media_type, "digest": self.digest, "size": self.bytes.len() })
    }
}

/// A manifest or an index with what must be pushed before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The manifest's own bytes.
    pub manifest: Blob,
    /// The type to push it under.
    pub media_type: String,
    /// Config and layers.
    pub blobs: Vec<Blob>,
}

impl Image {
    /// An image with a config and layers of the given sizes, all from one seed.
    pub fn random(seed: u64, layer_sizes: &[usize]) -> Self {
        let layers: Vec<Blob> = layer_sizes
            .iter()
            .zip(1_u64..)
            .map(|(size, number)| {
                Blob::random(seed.wrapping_mul(1_000).wrapping_add(number), *size)
            })
            .collect();
        Self::of_layers(seed, layers)
    }

    /// An image of ready layers.
    pub fn of_layers(seed: u64, layers: Vec<Blob>) -> Self {
        let diff_ids: Vec<&String> = layers.iter().map(|layer| &layer.digest).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux",
            "config": { "Labels": { "seed": seed.to_string() } },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = Blob::new(config.to_string());
        let descriptors: Vec<Value> =
            layers.iter().map(|layer| layer.descriptor(MediaType::LAYER)).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MediaType::MANIFEST,
            "config": config.descriptor(MediaType::CONFIG), "layers": descriptors,
        });
        let mut blobs = vec![config];
        blobs.extend(layers);
        Self::of_json(&manifest, MediaType::MANIFEST, blobs)
    }

    /// Any manifest.
    pub fn of_json(manifest: &Value, media_type: &str, blobs: Vec<Blob>) -> Self {
        let manifest = Blob::new(manifest.to_string());
        Self { manifest, media_type: media_type.to_owned(), blobs }
    }

    /// As another manifest names it.
    pub fn descriptor(&self) -> Value {
        self.manifest.descriptor(&self.media_type)
    }
}

/// An index of images, one per platform. The images must be pushed before it.
pub fn image_index(platforms: &[(&str, &Image)]) -> Image {
    let manifests: Vec<Value> = platforms
        .iter()
        .map(|(architecture, image)| {
            let mut descriptor = image.descriptor();
            if let Some(fields) = descriptor.as_object_mut() {
                let platform = json!({ "architecture": architecture, "os": "linux" });
                fields.insert("platform".to_owned(), platform);
            }
            descriptor
        })
        .collect();
    let index =
        json!({ "schemaVersion": 2, "mediaType": MediaType::INDEX, "manifests": manifests });
    Image::of_json(&index, MediaType::INDEX, Vec::new())
}

/// An artifact that refers to a subject, such as a signature or a bill of materials.
pub fn artifact_for(subject: &Image, artifact_type: &str, content: Blob) -> Image {
    let config = Blob::new(EMPTY_JSON);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::MANIFEST, "artifactType": artifact_type,
        "config": config.descriptor(MediaType::EMPTY),
        "layers": [content.descriptor("application/octet-stream")],
        "subject": subject.descriptor(),
        "annotations": { "org.example.kind": artifact_type },
    });
    Image::of_json(&manifest, MediaType::MANIFEST, vec![config, content])
}

/// Bytes that no compressor shrinks, the same for the same seed.
pub fn random_bytes(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 8);
    let mut state = seed;
    while bytes.len() < size {
        bytes.extend_from_slice(&split_mix(&mut state).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// SplitMix64: a whole generator in five lines whose output will never change under us.
pub(crate) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_bytes_and_another_seed_gives_others() {
        assert_eq!(random_bytes(7, 1_001), random_bytes(7, 1_001));
        assert_ne!(random_bytes(7, 1_001), random_bytes(8, 1_001));
        assert_eq!(random_bytes(7, 1_001).len(), 1_001);
    }

    #[test]
    fn an_image_names_all_its_blobs() {
        let image = Image::random(1, &[10, 20]);
        let text = String::from_utf8_lossy(&image.manifest.bytes).into_owned();
        assert_eq!(image.blobs.len(), 3);
        assert!(image.blobs.iter().all(|blob| text.contains(&blob.digest)));
    }
}
